"""Objectives: what is asked of a denoiser, as a loss for each item.

    ℓ(x_0, ε, level) = w(level)·‖x̂_0(α·x_0 + σ·ε) − x_0‖²/D        D numbers an item

Whatever w > 0, the minimiser of E[ℓ] is x̂_0 = E[x_0 | x_t] (Vincent 2011): the objective
decides how much an error counts at each level, and how noisy the gradient is. Each w makes ℓ the
squared error of some prediction (Kingma & Gao 2023, section 3), with SNR = α²/σ²:

    objective    w(level)            ℓ = ‖a − â‖²/D with a =
    x_0          1                   x_0
    simple       SNR                 ε                           Ho, Jain, Abbeel 2020, eq. (14)
    v            SNR + 1             α·ε − σ·x_0, α² + σ² = 1    Salimans & Ho 2022, section 4
    flow         (1 + √SNR)²         ε − x_0                     Lipman et al. 2023; Liu et al. 2023
    edm          SNR + 1/std²        (x_0 − c_skip·x)/c_out      Karras et al. 2022, eq. (8)
    min_snr      min(SNR, γ)         √min(1, γ/SNR)·ε            Hang et al. 2023, section 3.4
    p2           SNR/(k + SNR)^γ     ε/(k + SNR)^(γ/2)           Choi et al. 2022, section 3
    denoising    SNR                 −σ·∇log q(x_t | x_0) = ε    Vincent 2011, section 4.2

`vlb` is the variational bound itself, and `hybrid` learns the variance of a step too. `implicit`
and `sliced` match the score where x_t alone is known, `Explicit` where the score is.

All weights are finite. At α = 0 (SNR = 0) those of `simple`, `min_snr` and `p2` are 0: in pure
noise ε is x_t/σ, and there is nothing to learn of it. Where w would be above 1e30, as at σ = 0 if
it has no bound, an item counts 0: there x_t is x_0 up to rounding, and w would magnify nothing
else. At σ = 0 there is no score, and what matches it refuses.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, cast, get_args

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from alphabar.arguments import check_number
from alphabar.forward import marginal, standard_normal_like
from alphabar.levels import Drawn
from alphabar.predict import from_x_0
from alphabar.samplers.base import Denoiser
from alphabar.schedule import Level, align
from alphabar.spec import Family, Named
from alphabar.targets.base import Target
from alphabar.variance import ReverseStep, WithVariance

OBJECTIVES = Family("training objective")

Variance = Literal["posterior", "beta"]
Directions = Literal["rademacher", "normal"]

_MOST = 1e30


class Objective(Named, ABC):
    """A loss for each item, differentiable in the denoiser's parameters."""

    @abstractmethod
    def __call__(
        self,
        denoiser: Denoiser,
        x_0: Float[Tensor, "B ..."],
        drawn: Drawn,
        eps: Float[Tensor, "B ..."],
        generator: torch.Generator,
    ) -> Float[Tensor, " B"]:
        """The loss of each item: a mean over its numbers, in x_0's dtype, float32 at the least.

        Args:
            denoiser: returns x̂_0 for (x_t, level).
            x_0: clean items, (B, …).
            drawn: a level for each of them.
            eps: the noise, of x_0's shape; x_t = α·x_0 + σ·eps.
            generator: for what else is random; only `sliced` draws from it.

        Raises:
            TypeError, ValueError: shapes that do not fit; levels or a denoiser that lack what the
                objective needs.
        """


# --- the error of x̂_0, weighted by level


@dataclass(frozen=True)
class Weighted(Objective):
    """w(SNR)·‖x̂_0 − x_0‖²/D.

    Args:
        weight: SNR of each item → its weight, float64, (B,) → (B,).
    """

    weight: Callable[[Float64[Tensor, " B"]], Float64[Tensor, " B"]]

    def __call__(
        self,
        denoiser: Denoiser,
        x_0: Float[Tensor, "B ..."],
        drawn: Drawn,
        eps: Float[Tensor, "B ..."],
        generator: torch.Generator,
    ) -> Float[Tensor, " B"]:
        """The loss above for each item."""
        x_0_hat = denoiser(marginal(drawn.level, x_0).at(eps), drawn.level)
        return _weighed(self.weight(drawn.level.snr), _squared(_error(x_0_hat, x_0)))


@dataclass(frozen=True)
class EDM(Objective):
    """(SNR + 1/std²)·‖x̂_0 − x_0‖²/D: the error of a network that EDM's preconditioning wraps.

    Args:
        std: the data's standard deviation; None: the denoiser's own.
    """

    std: float | None = None

    def __call__(
        self,
        denoiser: Denoiser,
        x_0: Float[Tensor, "B ..."],
        drawn: Drawn,
        eps: Float[Tensor, "B ..."],
        generator: torch.Generator,
    ) -> Float[Tensor, " B"]:
        """The loss above for each item.

        Raises:
            TypeError: no std, and a denoiser that has none.
        """
        std = getattr(denoiser, "std", None) if self.std is None else self.std
        if std is None:
            raise TypeError(
                f"edm takes std from the denoiser, and this {type(denoiser).__name__} has none: "
                "give the data's standard deviation, as in edm:std=1"
            )
        floor = float(std) ** -2
        return Weighted(lambda snr: snr + floor)(denoiser, x_0, drawn, eps, generator)


@OBJECTIVES.entry()
def simple() -> Weighted:
    """‖ε̂ − ε‖²: each level counts by its SNR (Ho, Jain, Abbeel 2020, eq. (14), L_simple)."""
    return Weighted(lambda snr: snr)


@OBJECTIVES.entry()
def x_0() -> Weighted:
    """‖x̂_0 − x_0‖²: each level counts the same."""
    return Weighted(torch.ones_like)


@OBJECTIVES.entry()
def v() -> Weighted:
    """‖v̂ − v‖², v = α·ε − σ·x_0 with α² + σ² = 1 (Salimans & Ho 2022, section 4)."""
    return Weighted(lambda snr: snr + 1)


@OBJECTIVES.entry()
def flow() -> Weighted:
    """‖û − u‖², u = ε − x_0: conditional flow matching (Lipman et al. 2023; Liu et al. 2023)."""
    return Weighted(lambda snr: (1 + snr.sqrt()).square())


@OBJECTIVES.entry()
def edm(std: float | None = None) -> EDM:
    """1/c_out²: a preconditioned network's own error (Karras et al. 2022, eq. (8)).

    Without std, that of the denoiser.
    """
    if std is not None:
        check_number("std", std, 0, math.inf, "a standard deviation > 0", open_low=True)
    return EDM(std)


@OBJECTIVES.entry()
def min_snr(gamma: float = 5.0) -> Weighted:
    """‖ε̂ − ε‖², but no level counts more than SNR = γ (Hang et al. 2023, section 3.4)."""
    gamma = check_number("gamma", gamma, 0, math.inf, "an SNR > 0, such as 5", open_low=True)
    return Weighted(lambda snr: snr.clamp(max=gamma))


@OBJECTIVES.entry()
def p2(k: float = 1.0, gamma: float = 1.0) -> Weighted:
    """‖ε̂ − ε‖²/(k + SNR)^γ: less where little is left to do (Choi et al. 2022, section 3).

    With gamma = 0 it is `simple`.
    """
    k = check_number("k", k, 0, math.inf, "a number > 0, such as 1", open_low=True)
    gamma = check_number("gamma", gamma, 0, 10, "a power from 0 to 10, such as 1")

    def weight(snr: Float64[Tensor, " B"]) -> Float64[Tensor, " B"]:
        # The quotient's logarithm stays finite where its parts do not: SNR = inf is 1e300 here.
        log_snr = snr.clamp(max=1e300).log()
        return (log_snr - gamma * torch.logaddexp(log_snr, log_snr.new_tensor(math.log(k)))).exp()

    return Weighted(weight)


# --- the variational bound


@dataclass(frozen=True)
class VLB(Objective):
    """The variational bound on −log p(x_0), in nats per number, without its term for x_T.

    With levels of a schedule, each draw stands for all T steps:

        T·KL(q(x_s | x_t, x_0) ‖ p(x_s | x_t)),    p(x_s | x_t) = N(μ̃(x_t, x̂_0), v·I),    s = t − 1

    Ho, Jain, Abbeel 2020, eq. (5), constants included. At t = 1 the term is −log p(x_0 | x_1) with
    v = β_1, whichever variance is chosen, since β̃_1 = 0 gives no density. With levels of a density,
    the same for T → ∞, where both variances agree:

        ½·SNR/p(λ)·‖x̂_0 − x_0‖²/D        Kingma et al. 2021, the continuous-time model

    whose expectation is the bound's part between the ends of that density.

    Args:
        variance: v of the schedule's steps: `beta`, or `posterior` (β̃).
    """

    variance: Variance

    def __call__(
        self,
        denoiser: Denoiser,
        x_0: Float[Tensor, "B ..."],
        drawn: Drawn,
        eps: Float[Tensor, "B ..."],
        generator: torch.Generator,
    ) -> Float[Tensor, " B"]:
        """The bound's loss for each item.

        Raises:
            ValueError: levels that come neither from a schedule nor from a density.
        """
        level, density = drawn.level, drawn.density
        if density is not None:
            weighted = Weighted(lambda snr: 0.5 * snr / density)
            return weighted(denoiser, x_0, drawn, eps, generator)
        before, T = _steps("vlb", drawn)
        step = ReverseStep.between(before, level)
        log_ratio = step.log_beta - step.log_floor
        if self.variance == "posterior":
            log_ratio = torch.where(step.is_last, log_ratio, 0.0)
        x_0_hat = denoiser(marginal(level, x_0).at(eps), level)
        squares = _squared(_error(x_0_hat, x_0))
        return T * _kl(step, before, align(log_ratio, squares), squares)


@dataclass(frozen=True)
class Hybrid(Objective):
    """‖ε̂ − ε‖²/D + weight·L_vlb: a network that learns the variance of its steps too.

        log v = m·log β + (1 − m)·log β̃,    m = (mix + 1)/2

    Nichol & Dhariwal 2021, eq. (15) and (16). In L_vlb, the bound of `vlb` with this v, x̂_0 is held
    fixed: it guides the variance alone. At t = 1 the range is that of `learned_log_variance`.

    Args:
        weight: of the bound, ≥ 0.
    """

    weight: float

    def __call__(
        self,
        denoiser: Denoiser,
        x_0: Float[Tensor, "B ..."],
        drawn: Drawn,
        eps: Float[Tensor, "B ..."],
        generator: torch.Generator,
    ) -> Float[Tensor, " B"]:
        """The loss above for each item.

        Raises:
            TypeError: a denoiser that predicts no variance.
            ValueError: levels that do not come from a schedule.
        """
        if not isinstance(denoiser, WithVariance):
            raise TypeError(
                f"hybrid learns a variance, and this {type(denoiser).__name__} predicts none: "
                "give a denoiser with with_variance(x_t, level), or another objective"
            )
        level = drawn.level
        before, T = _steps("hybrid", drawn)
        x_0_hat, mix = denoiser.with_variance(marginal(level, x_0).at(eps), level)
        error = _error(x_0_hat, x_0)
        step = ReverseStep.between(before, level)
        bound = _kl(step, before, step.log_ratio(mix), error.detach().square())
        return _weighed(level.snr, _squared(error)) + self.weight * T * _mean(bound)


@OBJECTIVES.entry()
def vlb(variance: str = "beta") -> VLB:
    """The variational bound in nats per number (Ho et al. 2020; Kingma et al. 2021).

    With variance β (`beta`) or β̃ (`posterior`) of the steps of a schedule; see `bound`.
    """
    return VLB(cast(Variance, _one_of("variance", variance, get_args(Variance))))


@OBJECTIVES.entry()
def hybrid(weight: float = 0.001) -> Hybrid:
    """`simple`, and a little of the bound for the learned variance (Nichol & Dhariwal 2021)."""
    return Hybrid(check_number("weight", weight, 0, math.inf, "a weight ≥ 0, such as 0.001"))


def _kl(
    step: ReverseStep,
    before: Level,
    log_ratio: Float[Tensor, "B ..."],
    squares: Float[Tensor, "B ..."],
) -> Float[Tensor, "B ..."]:
    """KL(q(x_s | x_t, x_0) ‖ p(x_s | x_t)) of each number, −log p(x_0 | x_t) at s = 0.

    With r = log(v/β̃):  ½·(r + e^(−r) − 1 + gain²/v·(x̂_0 − x_0)²),    gain = α_s·(1 − e^(λ_t − λ_s))
    At s = 0:           ½·(log(2π·v) + (x̂_0 − x_0)²/v)
    """
    spread = step.is_last.logical_not().double()
    constant = torch.where(step.is_last, math.log(2 * math.pi) + step.log_floor, 0.0)
    weight = (2 * (before.alpha.log() + step.log_new) - step.log_floor).exp()
    return 0.5 * (
        (log_ratio + align(constant, squares))
        + align(spread, squares) * torch.expm1(-log_ratio)
        + align(weight, squares) * (-log_ratio).exp() * squares
    )


def _steps(name: str, drawn: Drawn) -> tuple[Level, int]:
    """The levels one step before, and how many steps there are."""
    if drawn.before is None or drawn.T is None:
        raise ValueError(
            f"{name} needs the step t → t − 1 that each level starts, and these levels belong to "
            "no schedule: draw them from one, with --schedule SPEC and no --levels, or "
            "levels.of_schedule(schedule)"
        )
    return drawn.before, drawn.T


# --- the score


@dataclass(frozen=True)
class Denoising(Objective):
    """σ²·‖s − ∇log q(x_t | x_0)‖²/D = ‖σ·s + ε‖²/D, with s = (α·x̂_0 − x_t)/σ².

    Vincent 2011, section 4.2. It is `simple`, by way of the score.
    """

    def __call__(
        self,
        denoiser: Denoiser,
        x_0: Float[Tensor, "B ..."],
        drawn: Drawn,
        eps: Float[Tensor, "B ..."],
        generator: torch.Generator,
    ) -> Float[Tensor, " B"]:
        """The loss above for each item.

        Raises:
            ValueError: a level with σ = 0, where there is no score.
        """
        x_t = marginal(drawn.level, x_0).at(eps)
        return _squared(_scaled_score(denoiser, x_t, drawn.level) + eps)


@dataclass(frozen=True)
class Explicit(Objective):
    """σ²·‖s − ∇log p_t(x_t)‖²/D, where the truth is known.

    Hyvärinen 2005, section 2. Its gradient is that of `simple` in the mean, without the noise of ε.

    Args:
        target: whose score it is.
    """

    target: Target

    def __call__(
        self,
        denoiser: Denoiser,
        x_0: Float[Tensor, "B ..."],
        drawn: Drawn,
        eps: Float[Tensor, "B ..."],
        generator: torch.Generator,
    ) -> Float[Tensor, " B"]:
        """The loss above for each item.

        Raises:
            ValueError: a level with σ = 0, where there is no score.
        """
        x_t = marginal(drawn.level, x_0).at(eps)
        found = _scaled_score(denoiser, x_t, drawn.level)
        return _squared(found - align(drawn.level.sigma, x_t) * self.target.score(x_t, drawn.level))


@dataclass(frozen=True)
class Implicit(Objective):
    """σ²·(‖s‖² + 2·tr ∂s/∂x_t)/D, for which x_t alone is needed: neither x_0 nor the true score.

    Hyvärinen 2005, theorem 1. It may be negative: it lacks the term σ²·E‖∇log p_t(x_t)‖²/D, which
    no denoiser changes. The trace is exact, by D backward passes, or vᵀ(∂s/∂x_t)v in its place, by
    one, with E[v·vᵀ] = I (Song et al. 2019, SSM-VR, whose loss is half of this one).

    Args:
        directions: the law of v, or None for the exact trace.
    """

    directions: Directions | None = None

    def __call__(
        self,
        denoiser: Denoiser,
        x_0: Float[Tensor, "B ..."],
        drawn: Drawn,
        eps: Float[Tensor, "B ..."],
        generator: torch.Generator,
    ) -> Float[Tensor, " B"]:
        """The loss above for each item.

        Raises:
            ValueError: a level with σ = 0, where there is no score.
        """
        training = torch.is_grad_enabled()
        with torch.enable_grad():  # derivatives in x_t are needed even where none in weights are
            x_t = marginal(drawn.level, x_0).at(eps).requires_grad_()
            score = _scaled_score(denoiser, x_t, drawn.level)  # σ·s
            trace = self._trace(score.flatten(1), x_t, generator, training)
            loss = _squared(score) + 2 * align(drawn.level.sigma, trace) * trace / x_0[0].numel()
        return loss if training else loss.detach()

    def _trace(
        self,
        score: Float[Tensor, "B D"],
        x_t: Float[Tensor, "B ..."],
        generator: torch.Generator,
        training: bool,
    ) -> Float[Tensor, " B"]:
        def pulled_back(direction: Float[Tensor, "#B D"]) -> Float[Tensor, "B D"]:
            """vᵀ·∂score/∂x_t of each item; an item's score depends on its own x_t alone."""
            product = (direction * score).sum()
            (row,) = torch.autograd.grad(product, x_t, create_graph=training, retain_graph=True)
            return row.flatten(1)

        if self.directions is None:
            axes = torch.eye(score.shape[1], dtype=score.dtype, device=score.device)
            return torch.stack([pulled_back(e[None])[:, i] for i, e in enumerate(axes)]).sum(0)
        direction = standard_normal_like(score.detach(), generator)
        if self.directions == "rademacher":
            direction = direction.sign()  # of a normal number: ±1 with equal chance
        return (pulled_back(direction) * direction).sum(1)


@OBJECTIVES.entry()
def denoising() -> Denoising:
    """‖σ·s + ε‖²: the score of q(x_t | x_0), matched (Vincent 2011); the same as `simple`."""
    return Denoising()


@OBJECTIVES.entry()
def implicit() -> Implicit:
    """σ²·(‖s‖² + 2·tr ∂s/∂x): the score, matched without x_0 (Hyvärinen 2005); D passes."""
    return Implicit()


@OBJECTIVES.entry()
def sliced(directions: str = "rademacher") -> Implicit:
    """`implicit` along one random direction an item (Song et al. 2019): one pass more.

    Directions are of ±1 (`rademacher`), which vary less, or `normal`.
    """
    return Implicit(cast(Directions, _one_of("directions", directions, get_args(Directions))))


def _scaled_score(
    denoiser: Denoiser, x_t: Float[Tensor, "B ..."], level: Level
) -> Float[Tensor, "B ..."]:
    """σ·s, the score times the noise scale: −ε̂, whose size is 1 at every level.

    Raises:
        ValueError: σ = 0.
    """
    score = from_x_0("score", denoiser(x_t, level), x_t, level)
    return align(level.sigma, x_t) * score


# --- small parts


def _error(x_0_hat: Float[Tensor, "B ..."], x_0: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
    """x̂_0 − x_0, float32 at the least.

    Raises:
        ValueError: they differ in shape, which would be made up for in silence.
    """
    if x_0_hat.shape != x_0.shape:
        raise ValueError(
            f"the denoiser returned shape {tuple(x_0_hat.shape)} for items of shape "
            f"{tuple(x_0.shape)}: it must return one x_0 for each"
        )
    return _wide(x_0_hat) - x_0


def _wide(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """x in its dtype, float32 at the least."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _squared(error: Float[Tensor, "B ..."]) -> Float[Tensor, " B"]:
    """‖error‖²/D of each item, float32 at the least."""
    return _mean(_wide(error).square())


def _mean(values: Float[Tensor, "B ..."]) -> Float[Tensor, " B"]:
    return values.reshape(len(values), -1).mean(1)


def _weighed(weight: Float64[Tensor, " B"], loss: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    """weight·loss, with 0 in place of a weight that is out of reach."""
    return align(torch.where(weight <= _MOST, weight, 0.0), loss) * loss


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise ValueError(f"{name} = {value}: choose {' or '.join(choices)}")
    return value
