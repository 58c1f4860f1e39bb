"""The variance of a reverse step t → s: β, β̃, and what a network learns between the two.

    p(x_s | x_t) = N(μ̃(x_t, x̂_0), v·I)

    β = (1 − e^(λ_t − λ_s))·(1 − ᾱ_t)·(α_s² + σ_s²)        right if data are N(0, I)
    β̃ = (1 − e^(λ_t − λ_s))·σ_s²                           right if they are one point

Ho, Jain, Abbeel 2020, section 3.2. λ is the log-SNR, so that both hold in any scale, for x_s in it.
The mean variance of x_s given x_t is β̃ + (α_s·(1 − e^(λ_t − λ_s)))²·E[Var(x_0 | x_t)], so it lies
between the two for all data that vary by at most 1.
"""

import math
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from alphabar.schedule import Level, align


class ReverseStep(NamedTuple):
    """The variances between which that of a step t → s lies."""

    log_new: Float64[Tensor, "*B"]  # of 1 − e^(λ_t − λ_s), the share of σ_t² that came after s
    log_beta: Float64[Tensor, "*B"]
    log_floor: Float64[Tensor, "*B"]  # log β̃, and what stands in for it at s = 0
    is_last: Bool[Tensor, "*B"]  # s = 0

    @classmethod
    def between(cls, s: Level, t: Level) -> "ReverseStep":
        """Both variances of the step from t back to s.

        Raises:
            ValueError: t is not noisier than s.
        """
        drop = t.log_snr - s.log_snr
        if not (drop < 0).all():
            raise ValueError(
                "the step does not go back: level t must be noisier than the level s before it "
                "(log_snr[t] < log_snr[s])"
            )
        new = -torch.expm1(drop)
        beta = (-t.log_snr).sigmoid() * new  # sigmoid(−λ) is 1 − ᾱ, without the cancellation
        var_s = s.sigma.square()
        floor = torch.where(var_s == 0, beta / (2 - beta) * s.alpha.square(), var_s * new)
        log_beta = (beta * (s.alpha.square() + var_s)).log()
        return cls(new.log(), log_beta, floor.log(), var_s == 0)

    def log_ratio(self, mix: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
        """log(v/floor) of a learned variance."""
        wide = mix.to(torch.promote_types(mix.dtype, torch.float32))
        return align(self.log_beta - self.log_floor, mix) * ((wide + 1) / 2)


def learned_log_variance(
    before: Level, level: Level, mix: Float[Tensor, "B ..."]
) -> Float[Tensor, "B ..."]:
    """log of the variance of a reverse step t → s, for a network that mixes its two bounds.

        log v = m·log β + (1 − m)·log β̃,    m = (mix + 1)/2        Nichol & Dhariwal 2021, eq. (15)

    At s = 0, where β̃ is 0, β/(2 − β) stands in for it, which is the next step's β̃ if that adds the
    same β; the paper takes the next step's β̃ itself.

    Args:
        before: level s, one or one per item, in any scale: the variance is that of x_s.
        level: level t, in the same scale.
        mix: (B, …), the network's answer; ±1 are the bounds, and it is not confined to them.

    Returns:
        (B, …), natural logarithms of squared data units; in mix's dtype, float32 at the least.

    Raises:
        ValueError: t is not noisier than s; a wrong number of levels.
    """
    step = ReverseStep.between(before, level)
    return align(step.log_floor, mix) + step.log_ratio(mix)


@runtime_checkable
class WithVariance(Protocol):
    """A denoiser that knows the variance of its steps."""

    def with_variance(
        self, x_t: Float[Tensor, "B ..."], level: Level
    ) -> tuple[Float[Tensor, "B ..."], Float[Tensor, "B ..."]]:
        """x̂_0, and the mix of `learned_log_variance`, both of x_t's shape."""


class LearnedVariance:
    """A denoiser that is asked for its variances too, and what it last said of them.

    Args:
        denoiser: one that has learned a variance.

    Raises:
        TypeError: one that has not.
    """

    mix: Float[Tensor, "B ..."]

    def __init__(self, denoiser: object) -> None:
        if not isinstance(denoiser, WithVariance):
            raise TypeError(
                f"this {type(denoiser).__name__} has learned no variance: only a denoiser that was "
                "trained for one has (--objective hybrid), without guidance; choose posterior or "
                "beta"
            )
        self.denoiser = denoiser

    def __call__(self, x_t: Float[Tensor, "B ..."], level: Level) -> Float[Tensor, "B ..."]:
        """x̂_0.

        Raises:
            ValueError: a mix of another shape, or one that is not finite.
        """
        x_0_hat, mix = self.denoiser.with_variance(x_t, level)
        if mix.shape != x_t.shape or not math.isfinite(mix.sum().item()):
            raise ValueError(
                f"with_variance returned a mix of shape {tuple(mix.shape)} for x of shape "
                f"{tuple(x_t.shape)}, or one that is not finite: it must be one finite number for "
                "each of x's"
            )
        self.mix = mix
        return x_0_hat
