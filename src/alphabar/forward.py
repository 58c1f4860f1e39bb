"""The forward process: from data to noise, in one move or step by step.

    q(x_t | x_0)      = N(α_t·x_0, σ_t²·I)                                marginal
    q(x_t | x_s)      = N(α_ts·x_s, σ_ts²·I)                  s < t       transition
    q(x_s | x_t, x_0) = N(μ̃, σ̃²·I)                            s < t       posterior

    α_ts = α_t/α_s    σ_ts² = σ_t² − α_ts²·σ_s²
    μ̃ = α_ts·(σ_s²/σ_t²)·x_t + α_s·(σ_ts²/σ_t²)·x_0    σ̃² = σ_s²·σ_ts²/σ_t²

Ho, Jain, Abbeel 2020, eq. (2), (4), (6), (7), written for any s < t and any scale as in Kingma et
al. 2021, appendix A. For x_0 of any shape (B, …), any float dtype, on any device; one level for
all items, or one for each.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from alphabar.schedule import Level, Schedule, align


class Gaussian(NamedTuple):
    """N(mean, var·I), one per item of a batch.

    `mean` has the data's shape (B, …) and dtype; `var` is float64, () or (B,), in squared data
    units: it stays in float64 because a small variance is lost in a narrower type.
    """

    mean: Float[Tensor, "B ..."]
    var: Float64[Tensor, "*B"]

    def sample(self, generator: torch.Generator) -> Float[Tensor, "B ..."]:
        """mean + √var·ε with ε ~ N(0, I) drawn from `generator`, on the generator's device."""
        return self._shift_(standard_normal_like(self.mean, generator))

    def at(self, eps: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
        """mean + √var·eps, for a noise of your own.

        Raises:
            ValueError: eps has another shape than the mean.
        """
        if eps.shape != self.mean.shape:
            raise ValueError(
                f"eps has shape {tuple(eps.shape)}, x has {tuple(self.mean.shape)}: they must agree"
            )
        return self._shift_(eps.to(self.mean.dtype, copy=True))

    def _shift_(self, eps: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
        # In place: eps is ours alone, and a pass over memory costs as much as the arithmetic.
        return eps.mul_(align(self.var.sqrt(), eps)).add_(self.mean)

    def log_prob(self, x: Float[Tensor, "B ..."]) -> Float64[Tensor, " B"]:
        """log N(x; mean, var·I) in nats, summed over each item's numbers.

        Raises:
            ValueError: a variance of 0, where there is no density.
        """
        if (self.var == 0).any():
            raise ValueError(
                "var = 0: all mass is at one point, which has no density; ask for a level t ≥ 1"
            )
        squares = (x.double() - self.mean.double()).square().flatten(1).sum(1)
        d = self.mean[0].numel()
        var = self.var.to(squares.device)
        return -0.5 * (squares / var + d * (2 * math.pi * var).log())

    def kl(self, other: "Gaussian") -> Float64[Tensor, " B"]:
        """KL(self ‖ other) in nats, summed over each item's numbers.

            ½·[‖μ₁ − μ₂‖²/v₂ + d·(v₁/v₂ − 1 − log(v₁/v₂))]

        It is inf where self is a single point (v₁ = 0).

        Raises:
            ValueError: `other` has a variance of 0, which leaves nothing to compare with.
        """
        if (other.var == 0).any():
            raise ValueError("the second Gaussian has var = 0: the divergence is not defined there")
        squares = (self.mean.double() - other.mean.double()).square().flatten(1).sum(1)
        d = self.mean[0].numel()
        var, other_var = self.var.to(squares.device), other.var.to(squares.device)
        ratio = var / other_var
        return 0.5 * (squares / other_var + d * (ratio - 1 - ratio.log()))


def marginal(level: Level, x_0: Float[Tensor, "B ..."]) -> Gaussian:
    """q(x_t | x_0) = N(α_t·x_0, σ_t²·I): any level in one move.

    Args:
        level: `schedule[t]`, one or one per item.
        x_0: clean items, (B, …).

    Raises:
        TypeError: x_0 is not of a floating-point dtype.
        ValueError: as many levels as items, or one, are needed.

    Source: Ho, Jain, Abbeel 2020, eq. (4).

    >>> from alphabar import schedule
    >>> q = marginal(schedule.linear(T=1000)[500], torch.ones(3, 2))
    >>> x_t = q.sample(torch.Generator().manual_seed(0))
    """
    return Gaussian(_scaled(level.alpha, x_0), level.sigma**2)


def transition(level_s: Level, level_t: Level, x_s: Float[Tensor, "B ..."]) -> Gaussian:
    """q(x_t | x_s) = N(α_ts·x_s, σ_ts²·I): forward from level s to a noisier level t.

    Between neighbours of a variance-preserving schedule this is N(√(1−β_t)·x_{t−1}, β_t·I).

    Raises:
        TypeError: x_s is not of a floating-point dtype.
        ValueError: t is not noisier than s; a wrong number of levels.

    Source: Ho, Jain, Abbeel 2020, eq. (2); Kingma et al. 2021, appendix A.
    """
    alpha_ts, var_ts = _between(level_s, level_t)
    return Gaussian(_scaled(alpha_ts, x_s), var_ts)


def posterior(
    level_s: Level,
    level_t: Level,
    x_0: Float[Tensor, "B ..."],
    x_t: Float[Tensor, "B ..."],
) -> Gaussian:
    """q(x_s | x_t, x_0) = N(μ̃, σ̃²·I): one step back, if the clean item were known.

    At s = 0 it is x_0 itself, with variance 0.

    Raises:
        TypeError: x_0 or x_t is not of a floating-point dtype.
        ValueError: t is not noisier than s; x_0 and x_t differ in shape; a wrong number of levels.

    Source: Ho, Jain, Abbeel 2020, eq. (6) and (7); Kingma et al. 2021, appendix A.
    """
    if x_0.shape != x_t.shape:
        raise ValueError(
            f"x_0 has shape {tuple(x_0.shape)}, x_t has {tuple(x_t.shape)}: they must agree"
        )
    alpha_ts, var_ts = _between(level_s, level_t)
    var_t = level_t.sigma**2
    var_s = level_s.sigma**2
    new = var_ts / var_t  # the share of σ_t² that came between s and t
    mean = _scaled(alpha_ts * var_s / var_t, x_t) + _scaled(level_s.alpha * new, x_0)
    return Gaussian(mean, var_s * new)


def walk(
    schedule: Schedule, x_0: Float[Tensor, "B ..."], generator: torch.Generator
) -> Iterator[tuple[int, Float[Tensor, "B ..."]]]:
    """The Markov chain x_0 → x_1 → … → x_T, one step at a time: yields (t, x_t), t = 0..T.

        x_t = α_ts·x_{t−1} + σ_ts·ε_t,    s = t − 1,    a fresh ε_t ~ N(0, I) at each step

    Each x_t is a tensor of its own: keep it or let it go. `x_0` itself is yielded first and is
    never changed.

    Raises:
        TypeError: x_0 is not of a floating-point dtype.

    Source: Ho, Jain, Abbeel 2020, eq. (2).
    """
    _require_float(x_0)
    scales, variances = _between(
        Level(schedule.alpha[:-1], schedule.sigma[:-1]),
        Level(schedule.alpha[1:], schedule.sigma[1:]),
    )
    yield 0, x_0
    # A thousand roundings to half precision would add up: the chain itself is kept in float32.
    x = x_0.to(torch.promote_types(x_0.dtype, torch.float32))
    for t, (alpha_ts, sigma_ts) in enumerate(
        zip(scales.tolist(), variances.sqrt().tolist(), strict=True), start=1
    ):
        eps = standard_normal_like(x, generator)
        x = eps.mul_(sigma_ts).add_(x, alpha=alpha_ts)
        yield t, x.to(x_0.dtype)


def standard_normal_like(
    x: Float[Tensor, "B ..."], generator: torch.Generator
) -> Float[Tensor, "B ..."]:
    """ε ~ N(0, I) of x's shape and dtype, drawn where the generator lives and moved to x."""
    _require_float(x)
    eps = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=generator.device)
    return eps.to(x.device)


def _between(level_s: Level, level_t: Level) -> tuple[Float64[Tensor, "*B"], Float64[Tensor, "*B"]]:
    """α_ts and σ_ts² of the step from s to t."""
    drop = level_t.log_snr - level_s.log_snr
    if not (drop < 0).all():
        raise ValueError(
            "the step does not go forward: level t must be noisier than level s "
            "(log_snr[t] < log_snr[s])"
        )
    # σ_t² − α_ts²·σ_s² = σ_t²·(1 − e^(λ_t − λ_s)), without the cancellation.
    return level_t.alpha / level_s.alpha, level_t.sigma**2 * -torch.expm1(drop)


def _scaled(
    coefficient: Float64[Tensor, "*B"], x: Float[Tensor, "B ..."]
) -> Float[Tensor, "B ..."]:
    _require_float(x)
    return (align(coefficient, x) * x).to(x.dtype)


def _require_float(x: Tensor) -> None:
    if not x.is_floating_point():
        raise TypeError(f"x has dtype {x.dtype}: diffusion needs real numbers; call x.float()")
