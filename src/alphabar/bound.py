"""The variational bound: how many nats a denoiser and a schedule need to tell what x_0 is.

    −log p(x_0) ≤ E[L_T + L_{T−1} + … + L_1 + L_0]                  over x_t ~ q(x_t | x_0)

    L_T     = KL(q(x_T | x_0) ‖ p(x_T))                        prior: what x_T still shows of x_0
    L_{t−1} = KL(q(x_{t−1} | x_t, x_0) ‖ N(μ̃(x_t, x̂_0), v_t·I))    a step back, t = T..2
    L_0     = −log p(x_0 | x_1)                                reconstruction, by a decoder

Ho, Jain, Abbeel 2020, eq. (5). Both Gaussians of a step have their means on the same line, so for
each number, with r = β̃_t/v_t,

    L_{t−1} = ½·[(SNR_{t−1} − SNR_t)·r·(x_0 − x̂_0)² + r − 1 − log r]

which is Kingma et al. 2021, eq. (13) and (14), where v_t = β̃_t. It depends on the log-SNR alone:
the bound is the same in any scale. Its expectation over data from p is at least the entropy of p,
so that it tells nats that are lost from nats that nobody could save.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from alphabar.arguments import check_number, check_seed, check_whole
from alphabar.forward import marginal
from alphabar.noise import keyed_noise
from alphabar.samplers.base import Asked, Denoiser, Normal, eigen
from alphabar.schedule import Level, Schedule
from alphabar.variance import LearnedVariance, learned_log_variance

Variance = Literal["posterior", "beta", "learned"]

_LOG_2PI = math.log(2 * math.pi)


class Bound(NamedTuple):
    """The bound in nats per dimension, averaged over items."""

    prior: float  # L_T
    terms: Float64[Tensor, " T"]  # terms[t − 1] is L_{t−1}, t = 1..T: terms[0] reconstructs
    total: float  # prior + terms.sum()
    standard_error: float | None  # of the total, over items; None of a single one
    bits: float | None  # total in bits per dimension, of a discretised decoder; else None

    @property
    def reconstruction(self) -> float:
        """L_0 = −log p(x_0 | x_1)."""
        return self.terms[0].item()


@dataclass(frozen=True, eq=False)
class Discretised:
    """A decoder for data that are integers: each stands for the numbers nearer to it than others.

        p(x_0 | x_1) = Φ((x_0 + h − μ)/σ) − Φ((x_0 − h − μ)/σ)

    with half a bin h, the lowest bin open to −∞ and the highest to ∞ (Ho, Jain, Abbeel 2020,
    eq. (13)), so that the probabilities of all integers sum to 1.

    Args:
        count: how many integers there are; 256 for bytes.
        low: what the lowest is in the units of x_0; −1 for Ho et al.'s pictures. A tensor says it
            for each number of an item, where they have units of their own.
        high: what the highest is; the others are evenly spaced between.

    Raises:
        TypeError, ValueError: fewer than two integers, or low ≥ high.
    """

    count: int
    low: float | Float64[Tensor, "..."]
    high: float | Float64[Tensor, "..."]

    def __post_init__(self) -> None:
        check_whole("count", self.count, 2, 2**31)
        low, high = (torch.as_tensor(v, dtype=torch.float64) for v in (self.low, self.high))
        pairs = torch.stack([low.expand_as(low + high), high.expand_as(low + high)], -1)
        for a, b in pairs.reshape(-1, 2).tolist():
            check_number("low", a, -math.inf, math.inf, "a finite number")
            if check_number("high", b, -math.inf, math.inf, "a finite number") <= a:
                raise ValueError(
                    f"low = {a:g}, high = {b:g}: the highest integer must be above the lowest"
                )

    def log_prob(
        self,
        x_0: Float64[Tensor, "B ..."],
        mean: Float64[Tensor, "B ..."],
        log_var: Float64[Tensor, "..."],
    ) -> Float64[Tensor, "B ..."]:
        """log p(x_0 | x_1) of each number, in nats.

        Raises:
            ValueError: a number that is none of the integers.
        """
        low, high = (torch.as_tensor(v).to(x_0).expand_as(x_0) for v in (self.low, self.high))
        width = (high - low) / (self.count - 1)
        index = ((x_0 - low) / width).round()
        value = low + width * index
        # Up to a rounding to float32 of numbers of the size of the largest.
        near = torch.minimum(1e-3 * width + 1e-6 * low.abs().maximum(high.abs()), 0.1 * width)
        wrong = ((x_0 - value).abs() > near) | (index < 0) | (index >= self.count)
        if wrong.any():
            x, a, b, w = (v[wrong][0].item() for v in (x_0, low, high, width))
            raise ValueError(
                f"x_0 holds {x:.9g}, which is none of the {self.count} numbers from {a:g} to "
                f"{b:g} in steps of {w:g}: bits per dimension are for integers alone; without a "
                "decoder the bound is in nats, for any data"
            )
        std = (log_var / 2).exp()
        upper = ((value + width / 2 - mean) / std).masked_fill(index == self.count - 1, math.inf)
        lower = ((value - width / 2 - mean) / std).masked_fill(index == 0, -math.inf)
        return _log_between(lower, upper)


def _log_between(a: Float64[Tensor, "..."], b: Float64[Tensor, "..."]) -> Float64[Tensor, "..."]:
    """log(Φ(b) − Φ(a)), a < b, from the tail that is the smaller."""
    turn = a + b > 0
    a, b = torch.where(turn, -b, a), torch.where(turn, -a, b)
    log_a, log_b = torch.special.log_ndtr(a), torch.special.log_ndtr(b)
    return log_b + (-torch.expm1(log_a - log_b)).log()


@torch.no_grad()
def bound(
    denoiser: Denoiser,
    x_0: Float[Tensor, "n ..."],
    schedule: Schedule,
    seed: int,
    variance: Variance = "beta",
    start: Normal | None = None,
    decoder: Discretised | None = None,
    decoder_std: float | None = None,
    first: int = 0,
    batch: int = 4096,
    advance: Callable[[], None] = lambda: None,
) -> Bound:
    """The bound above, by one draw of x_t for each item and each t: T calls for each batch.

    All sums are in float64. Memory is of the order of x_0 and of one call.

    Args:
        denoiser: returns x̂_0 for (x_t, level); called in x_0's dtype and in the schedule's scale.
        x_0: clean items, such as the denoiser was not trained on; nats are relative to their unit.
        schedule: the steps. Each needs a density, so it is not the bound of a faster sampler.
        seed: with the index of an item and t, determines all noise.
        variance: v_t, in the variance-preserving scale: `beta` is β_t, `posterior` β̃_t (Ho et al.
            2020, section 3.2), `learned` what `denoiser.with_variance` makes of the two (Nichol &
            Dhariwal 2021, eq. (15)), for each number. β is right for steps much finer than the
            data's detail, β̃ where data are single points, as integers are. For data with a density
            β̃ costs nats that fall only like 1/T: 0.4 a dimension for a mixture in 20 and `linear`
            with T = 1000, where β costs less than 0.01.
        start: the law of x_T, as of `sample`: N(0, I), in the variance-preserving scale, if not
            given; else N(α_T·mean, α_T²·cov + σ_T²·I).
        decoder: what the integers are, for data that are integers; then the result is also in
            bits. Without it p(x_0 | x_1) = N(x̂_0, v_1·I), a density, for continuous data.
        decoder_std: √v_1 of either decoder. If not given, v_1 = β_1 = 1 − ᾱ_1, or what is learned;
            the posterior's own β̃_1 is 0, which would need a perfect x̂_0. (Ho et al.'s code has
            β̃_2 there.)
        first: index of the first item, to do a large set in parts.
        batch: items in a call.
        advance: called after each call of the denoiser.

    Raises:
        TypeError: x_0 is not of a floating-point dtype; `learned`, and a denoiser without
            `with_variance`.
        ValueError: x_0 is empty or not finite, or, with a decoder, not of its integers; a denoiser
            whose answer has another shape or dtype, or is not finite; arguments out of range.

    >>> from alphabar import schedule
    >>> from alphabar.targets import Mixture
    >>> normal = Mixture([1], torch.zeros(1, 2), var=torch.ones(1))
    >>> x_0 = normal.sample(1000, torch.Generator().manual_seed(0))
    >>> found = bound(normal, x_0, schedule.cosine(100), seed=0)
    >>> entropy = 0.5 * math.log(2 * math.pi * math.e)
    >>> abs(found.total - entropy) < 3 * found.standard_error
    True
    """
    check_items(x_0, start)
    check_seed(seed)
    check_whole("first", first, 0, 2**40)
    check_whole("batch", batch, 1, 2**40)
    if decoder_std is not None:
        rule = "a standard deviation > 0"
        check_number("decoder_std", decoder_std, 0, math.inf, rule, open_low=True)
    learned = _learned(denoiser, variance)
    ask = Asked(learned or denoiser, range(schedule.T + 1))
    vp, d, n = schedule.to_vp(), x_0[0].numel(), len(x_0)
    terms = torch.zeros(schedule.T, dtype=torch.float64)
    prior, totals = 0.0, []
    for i in range(0, n, batch):
        part = x_0[i : i + batch]
        exact = part.double()
        total = _prior(exact, vp[vp.T], start).cpu()
        prior += total.sum().item()
        for t in range(schedule.T, 0, -1):
            eps = keyed_noise(seed, t, first + i, len(part), tuple(part.shape[1:])).to(part)
            x_0_hat = ask(marginal(schedule[t], part).at(eps), schedule[t], t)
            if t == 1 and decoder_std is not None:
                log_var = torch.tensor(2 * math.log(decoder_std), dtype=torch.float64)
            else:
                log_var = _log_var(vp[t - 1], vp[t], variance, learned)
            if t > 1:
                each = _step(vp[t - 1], vp[t], exact - x_0_hat, log_var)
            elif decoder is None:
                each = 0.5 * ((exact - x_0_hat).square() / log_var.exp() + log_var + _LOG_2PI)
            else:
                each = -decoder.log_prob(exact, x_0_hat.double(), log_var)
            of_items = each.flatten(1).sum(1).cpu()
            terms[t - 1] += of_items.sum()
            total += of_items
            advance()
        totals.append(total / d)
    nats = torch.cat(totals)
    mean = nats.mean().item()
    error = (nats.std() / math.sqrt(n)).item() if n > 1 else None
    bits = None if decoder is None else mean / math.log(2)
    return Bound(prior / (n * d), terms / (n * d), mean, error, bits)


def check_items(x_0: Float[Tensor, "n ..."], start: Normal | None) -> None:
    """Refuses what are not clean items, and a start that is not of their shape.

    Raises:
        TypeError, ValueError: in one sentence.
    """
    if not x_0.is_floating_point():
        raise TypeError(f"x_0 has dtype {x_0.dtype}: diffusion needs real numbers; call .float()")
    if x_0.ndim == 0 or x_0.numel() == 0:
        raise ValueError(f"x_0 has shape {tuple(x_0.shape)}: give at least one item, (n, …)")
    if not x_0.isfinite().all():
        raise ValueError("x_0 holds NaN or inf: every number must be finite; drop those items")
    if start is not None and start.mean.shape != x_0.shape[1:]:
        raise ValueError(
            f"start has a mean of shape {tuple(start.mean.shape)}: items have "
            f"{tuple(x_0.shape[1:])}"
        )


def _learned(denoiser: Denoiser, variance: Variance) -> LearnedVariance | None:
    if variance not in get_args(Variance):
        raise ValueError(f"variance = {variance!r}: choose {', '.join(get_args(Variance))}")
    return LearnedVariance(denoiser) if variance == "learned" else None


def _log_var(
    s: Level, t: Level, variance: Variance, learned: LearnedVariance | None
) -> Float64[Tensor, "..."]:
    """log v_t, one for all or one for each number; β̃ only where it is not 0."""
    if learned is not None:
        return learned_log_variance(s, t, learned.mix.double())
    if variance == "posterior" and s.sigma > 0:
        return _log_posterior_var(s, t)
    return ((-t.log_snr).sigmoid() * _new(s, t)).log()


def _new(s: Level, t: Level) -> Float64[Tensor, ""]:
    """The share of σ_t² that came between s and t."""
    return -torch.expm1(t.log_snr - s.log_snr)


def _log_posterior_var(s: Level, t: Level) -> Float64[Tensor, ""]:
    return (s.sigma.square() * _new(s, t)).log()


def _step(
    s: Level, t: Level, error: Float64[Tensor, "B ..."], log_var: Float64[Tensor, "..."]
) -> Float64[Tensor, "B ..."]:
    """L_{t−1} of each number, from x_0 − x̂_0."""
    log_r = _log_posterior_var(s, t) - log_var
    fall = s.snr * _new(s, t)  # SNR_s − SNR_t
    return 0.5 * (fall * log_r.exp() * error.square() + torch.expm1(log_r) - log_r)


def _prior(
    x_0: Float64[Tensor, "n ..."], top: Level, start: Normal | None
) -> Float64[Tensor, " n"]:
    """L_T of each item: KL between Gaussians, along the axes of the start's covariance."""
    x, var = x_0.flatten(1), torch.ones((), dtype=torch.float64)
    if start is not None:
        values, vectors = (v.to(x.device) for v in eigen(start.cov))
        x = (x - start.mean.to(x).flatten()) @ vectors
        var = top.alpha**2 * values.clamp(min=0) + top.sigma**2
    log_r = 2 * top.sigma.log() - var.log()
    each = (top.alpha * x).square() / var + torch.expm1(log_r) - log_r
    return 0.5 * each.sum(1)
