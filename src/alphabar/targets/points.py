"""A finite data set: the law that a network trained on it would learn, could it learn perfectly.

    p(x_0) = Σ_i w_i·N(x_0; x_i, s²·I)        v = α²·s² + σ²,  s = 0 for the points alone

    p_t(x_t)     = Σ_i w_i·N(x_t; α·x_i, v·I)        p_i ∝ w_i·exp(−‖x_t − α·x_i‖²/2v)
    E[x_0 | x_t] = (σ²/v)·Σ_i p_i·x_i + (α·s²/v)·x_t
    Cov[x_0|x_t] = (σ²/v)²·Cov_p[x_i] + (s²·σ²/v)·I

Karras et al. 2022, eq. (3) and appendix B.3 (α = 1, s = 0); Vincent 2011, section 4.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from alphabar.arguments import check_number
from alphabar.targets.base import Column, Target, check_finite, check_weights
from alphabar.targets.cloud import Cloud


class Blurred(Target):
    """Weighted points with Gaussian noise of standard deviation `noise` on each."""

    noise: float

    @abstractmethod
    def _cloud(self, x: Float[Tensor, "B D"], alpha: Column, v: Column) -> Cloud:
        """The points that stand for p where it is seen through noise of variance v at x."""

    def _var(self, alpha: Column, var: Column) -> Column:
        return alpha.square() * self.noise**2 + var

    def _denoise(
        self, x: Float[Tensor, "B D"], alpha: Column, var: Column
    ) -> Float64[Tensor, "B D"]:
        v = self._var(alpha, var)
        nodes = self._cloud(x, alpha, v).mean(x, alpha, v)
        if self.noise == 0:
            return nodes
        return var / v * nodes + alpha * self.noise**2 / v * x

    def _score(self, x: Float[Tensor, "B D"], alpha: Column, var: Column) -> Float64[Tensor, "B D"]:
        v = self._var(alpha, var)
        self._require_density(v)
        return (alpha * self._cloud(x, alpha, v).mean(x, alpha, v) - x) / v

    def _log_prob(
        self, x: Float[Tensor, "B D"], alpha: Column, var: Column
    ) -> Float64[Tensor, " B"]:
        v = self._var(alpha, var)
        self._require_density(v)
        return self._cloud(x, alpha, v).log_sum(x, alpha, v)

    def _cov(self, x: Float[Tensor, "B D"], alpha: Column, var: Column) -> Float64[Tensor, "B D D"]:
        v = self._var(alpha, var)
        within = self._cloud(x, alpha, v).cov(x, alpha, v)
        if self.noise == 0:
            return within
        share = (var / v)[..., None]
        return share.square() * within + share * self.noise**2 * torch.eye(
            x.shape[1], dtype=torch.float64, device=self.device
        )

    def _require_density(self, v: Column) -> None:
        if (v == 0).any():
            raise ValueError(
                "sigma = 0 and noise = 0: the points have no density there; ask for a noisier "
                "level, or give them noise"
            )


class Points(Blurred):
    """A finite data set, or with `noise` its kernel density estimate.

    At σ = 0 with noise = 0 `denoise` is the nearest point, the limit. For x_t in float32 it is
    within 5e-4·σ/α of the exact mean at any level, besides the rounding of its result; in float64
    as near as the roundings of x_t − α·x_i allow (see `cloud`). Memory is of the order of the
    points and of x_t.

    Args:
        x: (N, …), of any float dtype; kept, not copied.
        weights: (N,), positive; only their ratios count; None for equal ones.
        noise: the standard deviation of Gaussian noise on each number of each point.

    Raises:
        TypeError: x is not of a floating-point dtype.
        ValueError: no point, a number that is not finite, a weight that is not positive, a
            noise below 0.

    Source: Karras et al. 2022, eq. (3) and appendix B.3.

    >>> from alphabar.schedule import linear
    >>> target = Points(torch.tensor([[-1.0], [1.0]]))
    >>> target.denoise(torch.tensor([[0.0]]), linear(10)[5])
    tensor([[0.]])
    """

    def __init__(
        self,
        x: Float[Tensor, "N ..."],
        weights: Float[Tensor, "..."] | Sequence[float] | None = None,
        noise: float = 0.0,
    ) -> None:
        if x.ndim == 0 or len(x) == 0:
            raise ValueError(
                f"x has shape {tuple(x.shape)}: a data set has at least one point; give (N, …)"
            )
        check_finite("x", x)
        self.noise = check_number("noise", noise, 0, math.inf, "a standard deviation, 0 or above")
        self.weights = check_weights(weights, len(x)).to(x.device)
        self.shape = tuple(x.shape[1:])
        self.device = x.device
        self._x = x.detach().reshape(len(x), -1)
        self._nodes = Cloud(self._x, self.weights.log())

    def __repr__(self) -> str:
        noise = f", noise {self.noise:g}" if self.noise else ""
        return f"<{len(self._x)} Points of shape {self.shape}{noise}>"

    @property
    def mean(self) -> Float64[Tensor, "..."]:
        """E[x_0] = Σ w_i·x_i."""
        return self._mean().reshape(self.shape)

    def _mean(self) -> Float64[Tensor, " D"]:
        nodes = self._nodes
        return nodes.centre + nodes.unit * (self.weights @ nodes.z)

    def _prior_cov(self) -> Float64[Tensor, "D D"]:
        apart = self._x.double() - self._mean()
        within = (self.weights[:, None] * apart).T @ apart
        return within.diagonal_scatter(within.diagonal() + self.noise**2)

    def sample(self, n: int, generator: torch.Generator) -> Float64[Tensor, "n ..."]:
        """n independent draws of x_0, by `generator`, on the target's device."""
        where = generator.device
        # Not `multinomial`, which takes at most 2²⁴ points.
        edges = self.weights.cumsum(0).to(where)
        u = torch.rand(n, generator=generator, dtype=torch.float64, device=where)
        index = torch.searchsorted(edges, u * edges[-1], right=True).clamp_max(len(edges) - 1)
        x = self._x[index.to(self.device)].double()
        if self.noise > 0:
            eps = torch.randn(x.shape, generator=generator, dtype=torch.float64, device=where)
            x += self.noise * eps.to(self.device)
        return x.reshape(n, *self.shape)

    def _cloud(self, x: Float[Tensor, "B D"], alpha: Column, v: Column) -> Cloud:
        return self._nodes
