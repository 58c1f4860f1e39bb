"""Noise schedules: how much of the data, and how much noise, there is at each step t.

    x_t = α_t·x_0 + σ_t·ε,    ε ~ N(0, I),    λ_t = log(α_t²/σ_t²),    ᾱ_t = sigmoid(λ_t)

A schedule is a table of (α_t, σ_t) for t = 0..T in float64; level 0 is clean data. Tables that
preserve variance (α² + σ² = 1), let it explode (α = 1) or flow (α + σ = 1) are one process in
different scales: x_t is multiplied by a factor that depends on t alone, and λ_t stays the same.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from jaxtyping import Float, Float64, Integer
from torch import Tensor

from alphabar.arguments import check_number, check_whole
from alphabar.spec import Family, Named

MAX_T = 1_000_000
Numbers = Sequence[float] | Tensor | np.ndarray
Scale = Literal["vp", "ve", "flow", "other"]
Spacing = Literal["leading", "trailing", "linspace", "log_snr", "karras"]

_LARGEST = torch.finfo(torch.float64).max
_SMALLEST_BETA = 1e-300  # below it float64 loses digits, then the number itself

SCHEDULES = Family("schedule")


class Level(NamedTuple):
    """One noise level, or one per item: x_t = alpha·x_0 + sigma·eps.

    `alpha` and `sigma` are float64 of shape () or (B,); `align` casts them to the data's dtype.
    """

    alpha: Float64[Tensor, "*B"]
    sigma: Float64[Tensor, "*B"]

    @property
    def log_snr(self) -> Float64[Tensor, "*B"]:
        """λ = log(α²/σ²), natural logarithm, from inf (clean) to -inf (noise)."""
        return (self.alpha.log() - self.sigma.log()).mul_(2)

    @property
    def snr(self) -> Float64[Tensor, "*B"]:
        """α²/σ², the signal-to-noise ratio."""
        return self.log_snr.exp()

    @property
    def alpha_bar(self) -> Float64[Tensor, "*B"]:
        """ᾱ = α²/(α² + σ²): the share of the variance of x_t that is data (of variance 1)."""
        return self.log_snr.sigmoid()


def align(coefficient: Float64[Tensor, "*B"], x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """A coefficient of shape () or (B,), made ready to multiply x of shape (B, …).

    The one place where float64 tables meet the data's dtype. For half precision the coefficients
    become float32: cast the product back to `x.dtype`, so that it is rounded once.

    Raises:
        ValueError: as many coefficients as x has items are needed, or a single one.
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    if coefficient.ndim == 0 and dtype == x.dtype:
        return coefficient  # torch keeps x's dtype; in half precision it would round this first
    if coefficient.ndim == 0:
        return coefficient.to(x.device, dtype).reshape([1] * x.ndim)
    if x.ndim == 0 or len(coefficient) != len(x):
        raise ValueError(
            f"{len(coefficient)} noise levels for x of shape {tuple(x.shape)}: "
            "give one t, or one t for each item along the first axis"
        )
    return coefficient.to(x.device, dtype).reshape(-1, *[1] * (x.ndim - 1))


@dataclass(frozen=True, eq=False)
class Schedule(Named):
    """A table of noise levels: t = 0 is clean data, t = T the noisiest.

    Args:
        alpha: signal scales, (T+1,), alpha[0] = 1; alpha[T] may be 0. Kept, not copied.
        sigma: noise scales, (T+1,), sigma[0] = 0. Kept, not copied.

    Raises:
        ValueError: the table does not lead from clean data to ever more noise; the sentence names
            the first t that is wrong.
    """

    alpha: Float64[Tensor, " levels"]
    sigma: Float64[Tensor, " levels"]

    def __post_init__(self) -> None:
        alpha, sigma = _vector("alpha", self.alpha), _vector("sigma", self.sigma)
        object.__setattr__(self, "alpha", alpha)
        object.__setattr__(self, "sigma", sigma)
        if len(alpha) != len(sigma) or len(alpha) < 2:
            raise ValueError(
                f"alpha has {len(alpha)} levels and sigma {len(sigma)}: both need the same T + 1, "
                "from t = 0 (clean data) to T ≥ 1"
            )
        if alpha[0] != 1 or sigma[0] != 0:
            raise ValueError(
                f"level 0 has alpha = {alpha[0]:g} and sigma = {sigma[0]:g}: it is clean data, so "
                "it must have alpha = 1 and sigma = 0"
            )
        for name, values in (("alpha", alpha), ("sigma", sigma)):
            if not _within(values, 0, math.inf):
                wrong = ~(values >= 0) | values.isinf()
                _refuse(name, values, wrong, "every one must be a number ≥ 0")
        log_snr = self.log_snr
        falls = log_snr[1:] < log_snr[:-1]
        if not falls.all():
            t = int(falls.logical_not().nonzero()[0]) + 1
            if alpha[t] < 1e-300:
                raise ValueError(
                    f"nothing is left of the data at t = {t - 1} already, before the last step "
                    f"T = {self.T} (alpha = {alpha[t]:g} is at the end of float64): take smaller "
                    "betas or fewer steps"
                )
            raise ValueError(
                f"the noise does not grow from t = {t - 1} to {t}: log_snr goes from "
                f"{log_snr[t - 1]:.17g} to {log_snr[t]:.17g}; it must fall at every step"
            )

    def __len__(self) -> int:
        """The number of levels, T + 1."""
        return len(self.alpha)

    def __iter__(self) -> Iterator[Level]:
        """The levels t = 0..T in order."""
        return (self[t] for t in range(len(self)))

    def __getitem__(self, t: int | np.integer[Any] | Integer[Tensor, "*B"]) -> Level:
        """The level at t, or the levels of a batch of t.

        Raises:
            TypeError: t is not a whole number or a tensor of whole numbers.
            ValueError: t outside 0..T.
        """
        if isinstance(t, Tensor) and not (t.is_floating_point() or t.dtype == torch.bool):
            index = t.to(self.alpha.device, torch.int64)  # a narrow type could not hold T
            outside = (index < 0) | (index > self.T)
            if outside.any():
                raise ValueError(self._outside(int(index[outside].flatten()[0])))
            return Level(self.alpha[index], self.sigma[index])
        if isinstance(t, bool) or not isinstance(t, int | np.integer):
            raise TypeError(f"t = {t!r}: t is a whole number from 0 to {self.T}")
        if not 0 <= t <= self.T:
            raise ValueError(self._outside(int(t)))
        return Level(self.alpha[t], self.sigma[t])

    def _outside(self, t: int) -> str:
        return f"t = {t} is outside 0..{self.T}: t = 0 is clean data, t = {self.T} the noisiest"

    @property
    def T(self) -> int:
        """The number of steps."""
        return len(self.alpha) - 1

    @property
    def levels(self) -> Level:
        """All levels at once, (T+1,)."""
        return Level(self.alpha, self.sigma)

    @property
    def log_snr(self) -> Float64[Tensor, " levels"]:
        """λ_t = log(α_t²/σ_t²), natural logarithm; log_snr[0] = inf."""
        return self.levels.log_snr

    @property
    def snr(self) -> Float64[Tensor, " levels"]:
        """α_t²/σ_t²; snr[0] = inf."""
        return self.levels.snr

    @property
    def alpha_bar(self) -> Float64[Tensor, " levels"]:
        """ᾱ_t = sigmoid(λ_t), which is α_t² in the variance-preserving scale; alpha_bar[0] = 1."""
        return self.levels.alpha_bar

    @property
    def beta(self) -> Float64[Tensor, " levels"]:
        """β_t = 1 − ᾱ_t/ᾱ_{t−1}, the variance that step t adds; beta[0] = 0."""
        log_snr = self.log_snr
        # 1 − ᾱ_t/ᾱ_s = (1 − ᾱ_t)(1 − e^(λ_t − λ_s)), without the cancellation.
        beta = (-log_snr[1:]).sigmoid() * -torch.expm1(log_snr[1:] - log_snr[:-1])
        return torch.cat([beta.new_zeros(1), beta])

    def _unnamed_call(self) -> tuple[str, dict[str, object], None]:
        return "table", {"alpha": self.alpha, "sigma": self.sigma}, None

    def __repr__(self) -> str:
        name = self.spec if self._call else f"table of T = {self.T}"
        return f"<Schedule {name}: alpha_bar[T] = {self.alpha_bar[-1]:.4g}>"

    # --- the same process in another scale

    @property
    def scale(self) -> Scale:
        """`vp` (α² + σ² = 1), `ve` (α = 1), `flow` (α + σ = 1) or `other`."""
        one = torch.ones_like(self.alpha)
        sums: dict[Scale, Tensor] = {
            "vp": self.alpha**2 + self.sigma**2,
            "ve": self.alpha,
            "flow": self.alpha + self.sigma,
        }
        return next((s for s, v in sums.items() if torch.allclose(v, one, 1e-9, 0)), "other")

    def to_vp(self) -> "Schedule":
        """The same process with α² + σ² = 1 (variance-preserving)."""
        return self._rescaled(torch.hypot(self.alpha, self.sigma))

    def to_ve(self) -> "Schedule":
        """The same process with α = 1 (variance-exploding); σ is then EDM's sigma.

        Raises:
            ValueError: alpha[T] = 0, where σ would be infinite.
        """
        if self.alpha[-1] == 0:
            raise ValueError(
                f"alpha[{self.T}] = 0: a variance-exploding table would need sigma = inf there; "
                "stay in the variance-preserving or flow scale, or drop the last level"
            )
        return self._rescaled(self.alpha)

    def to_flow(self) -> "Schedule":
        """The same process with α + σ = 1 (rectified flow); σ is then flow's time."""
        return self._rescaled(self.alpha + self.sigma)

    def _rescaled(self, factor: Float64[Tensor, " levels"]) -> "Schedule":
        return Schedule(self.alpha / factor, self.sigma / factor)

    def _in_scale_of(self, other: "Schedule") -> "Schedule":
        if other.scale == "other":
            raise ValueError(
                "this schedule is in no named scale: convert it first, with to_vp(), to_ve() or "
                "to_flow()"
            )
        return {"vp": self.to_vp, "ve": self.to_ve, "flow": self.to_flow}[other.scale]()

    # --- other tables made from this one

    def zero_terminal_snr(self) -> "Schedule":
        """The same shape, stretched so that nothing is left of the data at T: ᾱ_T = 0.

            √ᾱ′_t = (√ᾱ_t − √ᾱ_T)·√ᾱ_1/(√ᾱ_1 − √ᾱ_T)

        Level 1 stays as it is. Lin et al. 2023, *Common Diffusion Noise Schedules and Sample Steps
        are Flawed*, Algorithm 1. With T = 1 the only level becomes pure noise.

        Raises:
            ValueError: in the variance-exploding scale, where ᾱ_T = 0 needs an infinite sigma.
        """
        if self.scale == "ve":
            raise ValueError(
                "a variance-exploding table cannot end at ᾱ_T = 0 (sigma would be inf): "
                "convert it with to_vp() first"
            )
        vp = self.to_vp()
        first, last = vp.alpha[1], vp.alpha[-1]
        alpha = vp.alpha.clone()
        alpha[1:] = (alpha[1:] - last) * (first / (first - last) if self.T > 1 else 1.0)
        sigma = ((1 - alpha) * (1 + alpha)).sqrt()
        if self.T > 1:
            alpha[1], sigma[1] = vp.alpha[1], vp.sigma[1]  # exactly, not up to rounding
        return Schedule(alpha, sigma)._in_scale_of(self)

    def spaced(self, n: int, rule: Spacing = "trailing") -> "Schedule":
        """A schedule of n steps from this one, to sample with fewer steps than T.

        Args:
            n: the number of steps.
            rule: how its levels are chosen (the first three select levels of this table; names as
                in Lin et al. 2023, Table 2):
                `leading`: t = 1 + i·⌊T/n⌋, i = 0..n-1. Does not reach T.
                `trailing`: t = round(T − i·T/n), i = n-1..0. Always ends at T.
                `linspace`: t = 1 + round(i·(T−1)/(n−1)). Holds both 1 and T.
                `log_snr`: new levels at equal distances of λ from λ_1 to λ_T. Where ᾱ_T = 0, that
                level is kept and the others reach to λ_{T−1}.
                `karras`: the same with equal distances of (σ/α)^(1/7), which are shorter at low
                noise (Karras et al. 2022, eq. (5)).

        Raises:
            ValueError: n < 1, n > T where levels are selected, an unknown rule.
        """
        n, T = check_whole("n", n, 1, MAX_T), self.T
        if rule in ("log_snr", "karras"):
            return self._spaced_anew(n, rule)
        if n > T:
            raise ValueError(
                f"n = {n} levels cannot be selected from T = {T}: take n ≤ {T}, or the rule "
                "log_snr or karras, which make new levels"
            )
        i = torch.arange(n)
        if rule == "leading":
            t = 1 + i * (T // n)
        elif rule == "trailing":
            # Whole-number rounding, half to even as in numpy and torch, for T − i·T/n.
            t = (T - i.flip(0) * (T / n)).round().long()
        elif rule == "linspace":
            t = 1 + torch.linspace(0, T - 1, n, dtype=torch.float64).round().long()
        else:
            raise ValueError(f"rule = {rule!r}: choose {', '.join(get_args(Spacing))}")
        t = torch.cat([torch.zeros(1, dtype=torch.int64), t])
        return Schedule(self.alpha[t], self.sigma[t])

    def _spaced_anew(self, n: int, rule: Spacing) -> "Schedule":
        log_snr = self.log_snr[1:]
        noise = log_snr[log_snr == -math.inf]  # the level of pure noise, if there is one
        finite = log_snr[: len(log_snr) - len(noise)]
        count = n - len(noise)
        if len(finite) < min(count, 2):
            raise ValueError(
                f"n = {n} levels cannot be spaced between {len(finite)} (T = {self.T}): "
                f"take n ≤ {len(finite) + len(noise)}, or a schedule with more steps"
            )
        if count:
            low, high = finite[0].item(), finite[-1].item()
            if rule == "log_snr":
                between = _line(low, high, count)
            else:  # σ/α = e^(−λ/2)
                between = -14 * _line(math.exp(-low / 14), math.exp(-high / 14), count).log()
            noise = torch.cat([between, noise])
        return from_log_snr(noise)._in_scale_of(self)

    def coefficients(self) -> dict[str, Float64[Tensor, " T"]]:
        """The DDPM paper's table for t = 1..T, under the names of that paper's code.

        Ho, Jain, Abbeel 2020, eq. (4) and (7). `posterior_log_variance_clipped` repeats its second
        entry in place of the first, log 0, as there; with T = 1 there is no second and it is -inf.
        Where ᾱ_T = 0, `sqrt_recip_alphas_cumprod` and `sqrt_recipm1_alphas_cumprod` end in inf and
        only at T.
        """
        vp = self.to_vp()
        alpha, sigma, beta = vp.alpha[1:], vp.sigma[1:], vp.beta[1:]
        alpha_s, sigma_s = vp.alpha[:-1], vp.sigma[:-1]
        alpha_ts = alpha / alpha_s
        posterior_variance = beta * (sigma_s / sigma) ** 2
        clipped = posterior_variance.clone()
        clipped[0] = posterior_variance[min(1, self.T - 1)]
        return {
            "betas": beta,
            "alphas_cumprod": alpha**2,
            "alphas_cumprod_prev": alpha_s**2,
            "sqrt_alphas_cumprod": alpha,
            "sqrt_one_minus_alphas_cumprod": sigma,
            "log_one_minus_alphas_cumprod": 2 * sigma.log(),
            "sqrt_recip_alphas_cumprod": 1 / alpha,
            "sqrt_recipm1_alphas_cumprod": sigma / alpha,
            "posterior_variance": posterior_variance,
            "posterior_log_variance_clipped": clipped.log(),
            "posterior_mean_coef1": beta * alpha_s / sigma**2,
            "posterior_mean_coef2": alpha_ts * (sigma_s / sigma) ** 2,
        }


# --- tables from numbers, for t = 1..T; level 0 is added


@SCHEDULES.entry()
def from_betas(betas: Numbers) -> Schedule:
    """Variance-preserving, from the variances β_t that each step adds.

        ᾱ_t = Π_{s≤t} (1 − β_s)        Ho, Jain, Abbeel 2020, eq. (4)

    Args:
        betas: (T,), each in (0, 1); the last may be 1.

    Raises:
        ValueError: a β outside (0, 1], or below 1e-300.
    """
    beta = _vector("betas", betas)
    if not _within(beta, _SMALLEST_BETA, 1):  # rare: a β of 1, or something wrong
        outside = ~((beta >= _SMALLEST_BETA) & (beta <= 1))
        outside[:-1] |= beta[:-1] == 1
        rule = (
            f"every one must be from {_SMALLEST_BETA:g} to less than 1, and only the last may be 1"
        )
        _refuse("beta", beta, outside, rule, first=1)
    # Sums of logarithms: 1 − ᾱ keeps its digits however close ᾱ is to 1.
    log_alpha_bar = beta.new_zeros(len(beta) + 1)
    log_alpha_bar[1:] = -beta
    log_alpha_bar.log1p_().cumsum_(0)
    return Schedule((log_alpha_bar / 2).exp_(), log_alpha_bar.expm1_().neg_().sqrt_())


@SCHEDULES.entry()
def from_alpha_bar(alpha_bar: Numbers) -> Schedule:
    """Variance-preserving, from ᾱ_t, falling and in (0, 1); the last may be 0.

    Raises:
        ValueError: an ᾱ outside [0, 1), or one that rises or repeats; names the t.
    """
    values = _vector("alpha_bar", alpha_bar)
    rule = "0 ≤ alpha_bar < 1 for t = 1..T (alpha_bar[0] = 1 is added: leave it out)"
    _refuse("alpha_bar", values, ~((values >= 0) & (values < 1)), rule, first=1)
    _refuse_unless_monotone("alpha_bar", values, "fall", -1)
    return _vp(values, 1 - values)


@SCHEDULES.entry()
def from_sigmas(sigmas: Numbers) -> Schedule:
    """Variance-exploding, from noise scales σ_t > 0 that rise with t (EDM's sigma).

    Raises:
        ValueError: a σ that is not a number above 0, or does not rise; names the t.
    """
    values = _vector("sigmas", sigmas)
    rule = "every one must be a number > 0 (sigma[0] = 0 is added: leave it out)"
    _refuse("sigma", values, ~(values > 0) | values.isinf(), rule, first=1)
    _refuse_unless_monotone("sigma", values, "rise", 1)
    sigma = torch.cat([values.new_zeros(1), values])
    return Schedule(torch.ones_like(sigma), sigma)


@SCHEDULES.entry()
def from_log_snr(log_snr: Numbers) -> Schedule:
    """Variance-preserving, from λ_t = log(α_t²/σ_t²), which falls; the last may be -inf.

    Raises:
        ValueError: a λ that is NaN or inf, or does not fall; names the t.
    """
    values = _vector("log_snr", log_snr)
    if not _within(values, -_LARGEST, math.inf):
        wrong = values.isnan() | values.isinf()
        wrong[-1:] &= values[-1:] != -math.inf
        rule = "every one must be a number; only the last may be -inf"
        _refuse("log_snr", values, wrong, rule, 1)
    _refuse_unless_monotone("log_snr", values, "fall", -1)
    return _vp(values.sigmoid(), (-values).sigmoid())


@SCHEDULES.entry()
def table(alpha: Numbers, sigma: Numbers) -> Schedule:
    """Any scale, from the whole table of α_t and σ_t for t = 0..T."""
    # Copies: a schedule must not change when the caller's arrays do.
    return Schedule(_vector("alpha", alpha).clone(), _vector("sigma", sigma).clone())


# --- variance-preserving, by β


@SCHEDULES.entry()
def constant(T: int = 1000, beta: float = 0.01) -> Schedule:
    """The same β at each step.

    β_t = beta        Ho, Jain, Abbeel 2020 (their code's `const`)
    """
    return from_betas(torch.full((check_steps(T),), _beta("beta", beta), dtype=torch.float64))


@SCHEDULES.entry()
def linear(T: int = 1000, start: float = 1e-4, end: float = 0.02) -> Schedule:
    """β on a straight line, the DDPM paper's.

        β_t = start + (end − start)·(t−1)/(T−1)        Ho, Jain, Abbeel 2020, section 4

    With T = 1, β_1 = start.
    """
    return from_betas(_beta_line(T, start, end))


@SCHEDULES.entry()
def quad(T: int = 1000, start: float = 1e-4, end: float = 0.02) -> Schedule:
    """√β on a straight line.

        β_t = (√start + (√end − √start)·(t−1)/(T−1))²

    Ho, Jain, Abbeel 2020 (their code's `quad`); Stable Diffusion calls it `scaled_linear`.
    """
    return from_betas(_beta_line(T, start, end, power=0.5) ** 2)


@SCHEDULES.entry()
def scaled_linear(T: int = 1000, start: float = 0.00085, end: float = 0.012) -> Schedule:
    """`quad` under the name and with the range of Stable Diffusion (Rombach et al. 2022)."""
    return quad(T, start, end)


@SCHEDULES.entry()
def sigmoid(T: int = 1000, start: float = 1e-4, end: float = 0.02) -> Schedule:
    """β on an S-shaped curve.

        β_t = start + (end − start)·sigmoid(−6 + 12·(t−1)/(T−1))

    The study post's third schedule; Xu et al. 2022 (GeoDiff) use it too. With T = 1 the curve is at
    its foot, near start.
    """
    T, start, end = check_steps(T), _beta("start", start), _beta("end", end)
    s_curve = torch.linspace(-6, 6, T, dtype=torch.float64).sigmoid_()
    return from_betas(s_curve.mul_(end - start).add_(start))


@SCHEDULES.entry()
def warmup10(T: int = 1000, start: float = 1e-4, end: float = 0.02) -> Schedule:
    """β on a line for the first tenth of the steps, then at `end`.

    Ho, Jain, Abbeel 2020 (their code's `warmup10`): the line has ⌊T/10⌋ steps.
    """
    return _warmup(T, start, end, 10)


@SCHEDULES.entry()
def warmup50(T: int = 1000, start: float = 1e-4, end: float = 0.02) -> Schedule:
    """β on a line for the first half of the steps, then at `end`.

    Ho, Jain, Abbeel 2020 (their code's `warmup50`): the line has ⌊T/2⌋ steps.
    """
    return _warmup(T, start, end, 2)


@SCHEDULES.entry()
def jsd(T: int = 1000) -> Schedule:
    """ᾱ on a straight line down to exactly 0.

        β_t = 1/(T − t + 1), so that ᾱ_t = 1 − t/T

    Sohl-Dickstein et al. 2015, section 2.4.1 (binomial); Ho, Jain, Abbeel 2020 (`jsd`).
    """
    return from_betas(1 / torch.arange(check_steps(T), 0, -1, dtype=torch.float64))


@SCHEDULES.entry()
def cosine(T: int = 1000, s: float = 0.008, max_beta: float = 0.999) -> Schedule:
    """ᾱ on a squared cosine, with β clipped.

        ᾱ_t = f(t)/f(0),  f(t) = cos²((t/T + s)/(1 + s)·π/2),  β_t ≤ max_beta

    Nichol & Dhariwal 2021, eq. (17).
    """
    T = check_steps(T)
    s = check_number("s", s, 0, math.inf, "an offset ≥ 0, such as 0.008")
    max_beta = _beta("max_beta", max_beta)
    step = math.pi / 2 / (T * (1 + s))
    angle = torch.arange(T + 1, dtype=torch.float64).add_(T * s).mul_(step)
    before, after = angle[:-1], angle[1:]
    # 1 − cos²a/cos²b = sin(a−b)·sin(a+b)/cos²b, without the cancellation.
    beta = (after + before).sin_().mul_(math.sin(step)).div_(before.cos().square_())
    return from_betas(beta.clamp_(max=max_beta))


# --- by noise scale, by flow time, by log-SNR


@SCHEDULES.entry()
def log_linear(T: int = 1000, sigma_min: float = 0.01, sigma_max: float = 50.0) -> Schedule:
    """Variance-exploding, σ growing by the same factor at each step.

        σ_t = sigma_min·(sigma_max/sigma_min)^((t−1)/(T−1))        Song et al. 2021, eq. (30)

    With T = 1, σ_1 = sigma_max.
    """
    T, low, high = check_steps(T), *_sigma_range(sigma_min, sigma_max)
    return from_sigmas(_line(math.log(low), math.log(high), T).exp())


@SCHEDULES.entry()
def karras(
    T: int = 1000, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0
) -> Schedule:
    """Variance-exploding, σ^(1/rho) on a straight line: most levels at low noise.

        σ_t = (σ_min^(1/ρ) + (σ_max^(1/ρ) − σ_min^(1/ρ))·(t−1)/(T−1))^ρ

    Karras et al. 2022, eq. (5), with i = T − t. With T = 1, σ_1 = sigma_max.
    """
    T, low, high = check_steps(T), *_sigma_range(sigma_min, sigma_max)
    rho = check_number("rho", rho, 0.1, 100, "a power from 0.1 to 100, such as 7")
    return from_sigmas(_line(low ** (1 / rho), high ** (1 / rho), T) ** rho)


@SCHEDULES.entry()
def flow(T: int = 1000, shift: float = 1.0) -> Schedule:
    """Rectified flow: a straight path from data to noise, ᾱ_T = 0.

        σ_t = shift·u/(1 + (shift − 1)·u),  α_t = 1 − σ_t,  u = t/T

    Liu et al. 2023; `shift` (3 in SD3) is Esser et al. 2024, eq. (23).
    """
    T = check_steps(T)
    shift = check_number(
        "shift", shift, 0, math.inf, "a factor > 0 (1 for no shift)", open_low=True
    )
    u = torch.arange(T + 1, dtype=torch.float64) / T
    below = (1 - u) + shift * u  # 1 + (shift − 1)·u, without the cancellation
    return Schedule((1 - u) / below, shift * u / below)


@SCHEDULES.entry()
def log_snr(T: int = 1000, start: float = 10.0, end: float = -10.0) -> Schedule:
    """Variance-preserving, λ on a straight line from `start` at t = 1 to `end` at t = T.

        λ_t = start + (end − start)·(t−1)/(T−1)

    Kingma et al. 2021 train with this range's shape. With T = 1, λ_1 = end.
    """
    T = check_steps(T)
    start = check_number("start", start, -745, 745, "a log-SNR from -745 to 745, such as 10")
    end = check_number("end", end, -745, 745, "a log-SNR from -745 to 745, such as -10")
    if end >= start:
        raise ValueError(f"end = {end:g} ≥ start = {start:g}: log_snr falls, so end < start")
    return from_log_snr(_line(start, end, T))


# --- checks and small parts


def check_steps(value: int) -> int:
    """A schedule's number of steps, or an error that says what one is."""
    return check_whole("T", value, 1, MAX_T)


def _beta(name: str, value: float) -> float:
    return check_number(name, value, 0, 1, "a variance in 0 < beta ≤ 1", open_low=True)


def _sigma_range(low: float, high: float) -> tuple[float, float]:
    rule = "a noise scale > 0"
    low = check_number("sigma_min", low, 0, math.inf, rule, open_low=True)
    high = check_number("sigma_max", high, 0, math.inf, rule, open_low=True)
    if low >= high:
        raise ValueError(f"sigma_min = {low:g} ≥ sigma_max = {high:g}: sigma rises with t")
    return low, high


def _line(start: float, end: float, n: int) -> Float64[Tensor, " n"]:
    """n equally spaced numbers from start to end; `end` alone if n is 1."""
    if n == 1:
        return torch.tensor([end], dtype=torch.float64)
    return torch.linspace(start, end, n, dtype=torch.float64)


def _beta_line(T: int, start: float, end: float, power: float = 1.0) -> Float64[Tensor, " T"]:
    T, start, end = check_steps(T), _beta("start", start), _beta("end", end)
    return torch.linspace(start**power, end**power, T, dtype=torch.float64)


def _warmup(T: int, start: float, end: float, part: int) -> Schedule:
    T, start, end = check_steps(T), _beta("start", start), _beta("end", end)
    betas = torch.full((T,), end, dtype=torch.float64)
    if T >= part:
        betas[: T // part] = _beta_line(T // part, start, end)
    return from_betas(betas)


def _vp(alpha_bar: Float64[Tensor, " T"], rest: Float64[Tensor, " T"]) -> Schedule:
    one, zero = alpha_bar.new_ones(1), alpha_bar.new_zeros(1)
    return Schedule(torch.cat([one, alpha_bar.sqrt()]), torch.cat([zero, rest.sqrt()]))


def _vector(name: str, values: Numbers) -> Float64[Tensor, " n"]:
    try:
        vector = torch.as_tensor(values)
        if vector.is_complex():
            raise TypeError("complex numbers are not ordered")
        # Not from `vector`: a list of Python numbers has become float32 there.
        vector = torch.as_tensor(values, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name} is not a list of numbers: {error}") from None
    if vector.ndim != 1 or not 1 <= len(vector) <= MAX_T + 1:
        raise ValueError(
            f"{name} has shape {tuple(vector.shape)}: it must be one list of 1 to {MAX_T} numbers"
        )
    return vector


def _within(values: Float64[Tensor, " n"], low: float, high: float) -> bool:
    """Whether all values are in [low, high); NaN is not."""
    least, most = (v.item() for v in values.aminmax())
    return low <= least and most < high


def _refuse(
    name: str, values: Float64[Tensor, " n"], wrong: Tensor, rule: str, first: int = 0
) -> None:
    """Raise for the first value that is wrong; `first` is the t of values[0]."""
    if wrong.any():
        i = int(wrong.nonzero()[0])
        raise ValueError(f"{name}[{i + first}] = {values[i].item()!r}: {rule}")


def _refuse_unless_monotone(name: str, values: Float64[Tensor, " T"], verb: str, sign: int) -> None:
    before, after = values[:-1], values[1:]
    right = after > before if sign > 0 else after < before
    if not right.all():
        wrong = ~right
        i = int(wrong.nonzero()[0])
        raise ValueError(
            f"{name}[{i + 2}] = {after[i].item()} after {name}[{i + 1}] = {before[i].item()}: "
            f"it must {verb} at every step"
        )
