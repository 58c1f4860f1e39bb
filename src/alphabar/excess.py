"""Where a denoiser errs: its loss beyond the least that any denoiser can have, level by level.

    E‖x̂_0 − x_0‖² = E‖x̂_0* − x_0‖² + E‖x̂_0 − x̂_0*‖²,    x̂_0* = E[x_0 | x_t]
         loss     =    optimum     +      excess

x̂_0* − x_0 has mean 0 given x_t, so it is orthogonal to whatever depends on x_t alone. The excess is
therefore measured by itself, from x̂_0 − x̂_0*: where a denoiser is nearly perfect, the difference of
two losses would be all noise.

Weighted by w and averaged over the levels, both are in units of the training loss. With EDM's
w = 1/c_out² = SNR + 1/s², s² the mean variance of a number of x_0, w·optimum is at most 1, and 1
everywhere for N(m, s²·I) alone: it goes to 1 at λ → −∞, where nothing but the mean is known, and at
λ → ∞ to the share of directions in which p has a density (0 for a finite set).

    KL(p ‖ q) = ½ ∫ E‖x̂_0 − x̂_0*‖² dSNR = ½ ∫ SNR·E‖x̂_0 − x̂_0*‖² dλ

for the denoiser x̂_0 of a law q; for any denoiser the integral is how far its variational bound with
infinitely many steps lies above the entropy of p.

Source: Karras et al. 2022, eq. (8) and table 1; Verdú 2010, *Mismatched estimation and relative
entropy*; Kingma et al. 2021, section 5.1.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from alphabar.arguments import check_seed, check_whole
from alphabar.forward import marginal
from alphabar.samplers import Denoiser
from alphabar.schedule import Level
from alphabar.targets import Target

LOG_SNR = (-10.0, 10.0)  # beyond, data are seen as they are, or not at all
BATCH = 2**17  # numbers that a denoiser is given at a time

Weight = Callable[[Level], Float64[Tensor, " B"]]


class ExcessLoss(NamedTuple):
    """The loss of a denoiser, in two: squared errors per number of x_0, at L levels."""

    log_snr: Float64[Tensor, " L"]
    excess: Float64[Tensor, " L"]  # E‖x̂_0 − x̂_0*‖²/D
    excess_error: Float64[Tensor, " L"]  # standard errors
    optimum: Float64[Tensor, " L"]  # E‖x̂_0* − x_0‖²/D
    optimum_error: Float64[Tensor, " L"]
    weight: Float64[Tensor, " L"]
    share: float  # Σ w·excess / Σ w·optimum
    share_error: float
    D: int  # numbers of an item

    @property
    def weighted_optimum(self) -> float:
        """The mean of w·optimum over the levels: the least that the weighted loss can be."""
        return (self.weight * self.optimum).mean().item()

    @property
    def nats(self) -> float:
        """(D/2)·∫ SNR·excess dλ from the first to the last level, by trapezoids; an item."""
        rate = self.log_snr.exp() * self.excess * self.D / 2
        return torch.trapezoid(rate, self.log_snr).item()


class Excess:
    """Noisy items and their exact answers, to hold a denoiser against as often as wanted.

        probe = Excess(target, even_log_snr(20), n_each=1024, seed=0)
        probe(denoiser).share

    Each level has items of its own, so that the errors of levels are independent.

    Args:
        target: the exact p(x_0).
        log_snr: the levels λ, (L,), rising.
        n_each: items at each level.
        seed: determines them.
        weight: w(level), as a tensor of one number a level; None: SNR + 1/s².
        dtype: of the items that the denoiser is given.

    Raises:
        ValueError: levels that do not rise, are not finite, or none; fewer than two items; a
            weight that is not a number ≥ 0 for each level, or nowhere above 0; a target that does
            not vary, without a weight.
    """

    def __init__(
        self,
        target: Target,
        log_snr: Float[Tensor, " L"],
        n_each: int,
        seed: int,
        weight: Weight | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.log_snr = log_snr.detach().cpu().double()
        if (
            not len(log_snr)
            or not self.log_snr.isfinite().all()
            or (self.log_snr.diff() <= 0).any()
        ):
            raise ValueError(
                f"log_snr has {len(log_snr)} levels: give one or more, finite and rising, such as "
                "even_log_snr(20)"
            )
        self.n_each = check_whole("n_each", n_each, 2, 2**31)
        generator = torch.Generator().manual_seed(check_seed(seed) % 2**63)
        levels = _level(self.log_snr)
        self.weight = _weights(weight or edm_weight(target), levels)
        self.level = _level(self.log_snr.repeat_interleave(n_each))
        self.D = math.prod(target.shape)
        n = n_each * len(self.log_snr)
        x_0 = target.sample(n, generator)
        eps = torch.randn(x_0.shape, generator=generator, dtype=torch.float64).to(x_0.device)
        # The denoiser and the exact one are asked about the same x_t, rounded as it is.
        self.x_t = marginal(self.level, x_0).at(eps).to(dtype)
        self._parts = torch.split(torch.arange(n), max(1, BATCH // max(1, self.D)))
        self.exact = self._asked(lambda x, level: target.denoise(x.double(), level))
        self._optimum = self._squares(self.exact - x_0)

    def __call__(self, denoiser: Denoiser) -> ExcessLoss:
        """The excess loss of a denoiser, which is called with one level an item.

        Raises:
            ValueError: it returns another shape, or something that is not finite; names the level.
        """
        excess = self._squares(self._asked(denoiser).double() - self.exact)
        share = ((self.weight @ excess.mean(1)) / (self.weight @ self._optimum.mean(1))).item()
        # A ratio of means errs as the mean of its numerator − share·denominator (delta method).
        apart = excess - share * self._optimum
        error = (self.weight * _error(apart)).norm() / (self.weight @ self._optimum.mean(1))
        return ExcessLoss(
            self.log_snr,
            excess.mean(1),
            _error(excess),
            self._optimum.mean(1),
            _error(self._optimum),
            self.weight,
            share,
            error.item(),
            self.D,
        )

    @torch.no_grad()
    def _asked(self, denoiser: Denoiser) -> Float[Tensor, "n ..."]:
        answers = []
        for part in self._parts:
            level = Level(self.level.alpha[part], self.level.sigma[part])
            x = self.x_t[part.to(self.x_t.device)]
            answer = denoiser(x, level)
            if answer.shape != x.shape:
                raise ValueError(
                    f"the denoiser returned shape {tuple(answer.shape)} for x of shape "
                    f"{tuple(x.shape)}: it must return one x_0 for each item"
                )
            if not answer.isfinite().all():
                wrong = int((~answer.flatten(1).isfinite()).any(1).nonzero()[0])
                raise ValueError(
                    f"the denoiser returned NaN or inf at log_snr = {level.log_snr[wrong]:.4g}: "
                    "look at its input and its weights there"
                )
            answers.append(answer)
        return torch.cat(answers)

    def _squares(self, x: Float64[Tensor, "n ..."]) -> Float64[Tensor, "L n_each"]:
        """‖x‖²/D of each item, a row for each level."""
        return x.flatten(1).square().mean(1).cpu().reshape(-1, self.n_each)


def even_log_snr(
    count: int, low: float = LOG_SNR[0], high: float = LOG_SNR[1]
) -> Float64[Tensor, " count"]:
    """The middles of `count` equal parts of [low, high]: their mean is that over the range."""
    parts = check_whole("count", count, 1, 10**6)
    return low + (high - low) * (torch.arange(parts, dtype=torch.float64) + 0.5) / parts


def edm_weight(target: Target) -> Weight:
    """SNR + 1/s², s² the mean variance of a number of x_0: 1/c_out² of Karras et al. 2022, table 1.

    Raises:
        ValueError: a target that does not vary.
    """
    var = target.cov.diagonal().mean().item()
    if not var > 0:
        raise ValueError(
            "the target does not vary: there is nothing to learn, and no loss to exceed; give a "
            "target of two or more different points"
        )
    return lambda level: level.snr + 1 / var


def _level(log_snr: Float64[Tensor, " n"]) -> Level:
    """Levels of these λ, variance-preserving."""
    return Level(log_snr.sigmoid().sqrt(), (-log_snr).sigmoid().sqrt())


def _weights(weight: Weight, levels: Level) -> Float64[Tensor, " L"]:
    found = weight(levels).detach().cpu().double()
    if (
        found.shape != levels.alpha.shape
        or not (found.isfinite() & (found >= 0)).all()
        or not found.any()
    ):
        raise ValueError(
            f"the weight is of shape {tuple(found.shape)} and down to {found.min():g}: it must be "
            f"a finite number ≥ 0 for each of the {len(levels.alpha)} levels, somewhere above 0"
        )
    return found


def _error(values: Float64[Tensor, "L n_each"]) -> Float64[Tensor, " L"]:
    """The standard error of each row's mean."""
    return values.std(1) / math.sqrt(values.shape[1])
