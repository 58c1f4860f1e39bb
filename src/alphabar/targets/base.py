"""What an exact target is: a p(x_0) whose diffusion is known in closed form at every noise level.

    p_t(x_t) = ∫ N(x_t; α·x_0, σ²·I) p(x_0) dx_0

    ∇ log p_t(x_t) = (α·E[x_0 | x_t] − x_t)/σ²                       Tweedie's formula

Source: Efron 2011, eq. (1.4); Vincent 2011, section 4; any scale: only (α, σ) enter.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from alphabar.schedule import Level, align

Column = Float64[Tensor, "#B 1"]  # α or σ² of each item, or one for all


class Target(ABC):
    """A p(x_0) whose diffusion is known exactly; called like a network, it denoises.

    x_t has the shape (B, …) with … = `shape`, any float dtype, on any device; a level is one for
    all items or one for each. What is the size of x_t (`denoise`, `score`) comes back in its dtype
    and on its device; `log_prob` and `posterior_cov` are float64.

    Raises (every method):
        TypeError: x_t is not of a floating-point dtype.
        ValueError: x_t is not a batch of items of `shape`; a wrong number of levels.
    """

    shape: tuple[int, ...]
    device: torch.device

    @property
    @abstractmethod
    def mean(self) -> Float64[Tensor, "..."]:
        """E[x_0], of `shape`."""

    @cached_property
    def cov(self) -> Float64[Tensor, "D D"]:
        """Cov[x_0], items flattened."""
        return self._prior_cov()

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator) -> Float64[Tensor, "n ..."]:
        """n independent draws of x_0, by `generator`, on the target's device."""

    def denoise(self, x_t: Float[Tensor, "B ..."], level: Level) -> Float[Tensor, "B ..."]:
        """E[x_0 | x_t], of x_t's dtype; differentiable in x_t and in the level.

        At α = 0 it is E[x_0]; at σ = 0 its limit.
        """
        return self._like(x_t, self._denoise(*self._flat(x_t, level)))

    def __call__(self, x_t: Float[Tensor, "B ..."], level: Level) -> Float[Tensor, "B ..."]:
        """E[x_0 | x_t]: a target is a denoiser."""
        return self.denoise(x_t, level)

    def score(self, x_t: Float[Tensor, "B ..."], level: Level) -> Float[Tensor, "B ..."]:
        """∇ log p_t(x_t) = (α·x̂_0 − x_t)/σ², of x_t's dtype; at σ = 0 that of p itself.

        Raises:
            ValueError: σ = 0 and the target has no density.
        """
        return self._like(x_t, self._score(*self._flat(x_t, level)))

    def log_prob(self, x_t: Float[Tensor, "B ..."], level: Level) -> Float64[Tensor, " B"]:
        """log p_t(x_t) in nats.

        Raises:
            ValueError: σ = 0 and the target has no density.
        """
        return self._log_prob(*self._flat(x_t, level)).to(x_t.device)

    def posterior_cov(self, x_t: Float[Tensor, "B ..."], level: Level) -> Float64[Tensor, "B D D"]:
        """Cov[x_0 | x_t] = (σ²/α)·∂x̂_0/∂x_t, items flattened.

        Source: Efron 2011, eq. (2.8), second derivative.
        """
        return self._cov(*self._flat(x_t, level)).to(x_t.device)

    @abstractmethod
    def _prior_cov(self) -> Float64[Tensor, "D D"]: ...

    @abstractmethod
    def _denoise(
        self, x: Float[Tensor, "B D"], alpha: Column, var: Column
    ) -> Float[Tensor, "B D"]: ...

    @abstractmethod
    def _score(
        self, x: Float[Tensor, "B D"], alpha: Column, var: Column
    ) -> Float[Tensor, "B D"]: ...

    @abstractmethod
    def _log_prob(
        self, x: Float[Tensor, "B D"], alpha: Column, var: Column
    ) -> Float64[Tensor, " B"]: ...

    @abstractmethod
    def _cov(
        self, x: Float[Tensor, "B D"], alpha: Column, var: Column
    ) -> Float64[Tensor, "B D D"]: ...

    def _flat(
        self, x_t: Float[Tensor, "B ..."], level: Level
    ) -> tuple[Float[Tensor, "B D"], Column, Column]:
        """x_t as (B, D); α and σ² as columns."""
        if not x_t.is_floating_point():
            raise TypeError(f"x_t has dtype {x_t.dtype}: a point is real numbers; call x_t.float()")
        if tuple(x_t.shape[1:]) != self.shape or x_t.ndim == 0:
            raise ValueError(
                f"x_t has shape {tuple(x_t.shape)}: this target's items have {self.shape}; give a "
                f"batch of shape (B, {', '.join(map(str, self.shape))})"
            )
        align(level.alpha, x_t)  # refuses a wrong number of levels
        align(level.sigma, x_t)
        alpha, sigma = (c.to(self.device, torch.float64).reshape(-1, 1) for c in level)
        flat = x_t.to(self.device).reshape(len(x_t), math.prod(self.shape))
        return flat, alpha, sigma.square()

    def _like(
        self, x_t: Float[Tensor, "B ..."], found: Float[Tensor, "B D"]
    ) -> Float[Tensor, "B ..."]:
        return found.reshape(x_t.shape).to(x_t.device, x_t.dtype)


def check_weights(
    weights: Float[Tensor, "..."] | Sequence[float] | None, count: int
) -> Float64[Tensor, " K"]:
    """`count` shares of the whole, which are in the ratio of the weights; None: equal ones.

    Raises:
        ValueError: another number of weights, or one that is not finite and above 0.
    """
    if weights is None:
        return torch.full((count,), 1 / count, dtype=torch.float64)
    given = torch.as_tensor(weights).double()
    if given.shape != (count,):
        raise ValueError(
            f"weights have shape {tuple(given.shape)}: there must be {count}, one each"
        )
    wrong = ~((given > 0) & given.isfinite())
    if wrong.any():
        i = int(wrong.nonzero()[0])
        raise ValueError(
            f"weights[{i}] = {given[i]:g}: every weight must be a number above 0; leave out what "
            "has none"
        )
    given = given / given.max()
    return given / given.sum()


def check_finite(name: str, values: Float[Tensor, "..."]) -> None:
    """Refuses infinities and what is not a number.

    Raises:
        ValueError: it names the first place.
    """
    wrong = ~values.isfinite()
    if wrong.any():
        place = wrong.nonzero()[0].tolist()
        raise ValueError(
            f"{name}{place} = {values[tuple(place)]:g}: every number must be finite; drop or mend "
            "that item"
        )
