"""The noise levels at which a denoiser is trained, drawn evenly.

    u_i = (i + r)/n,  i = 0..n−1,  one r ~ U(0, 1);    λ_i = F⁻¹(u_i),    p(λ) = F′(λ)

Taken at random, a u_i is uniform on (0, 1) and its λ_i has the density p; together they leave no
gap and make no cluster, which varies the loss less than independent draws (Kingma et al. 2021,
appendix I.1). They come in order. Items are drawn at random themselves, so that which item meets
which level is random without a shuffle.

    spec        λ = log(α²/σ²) has the density     which is
    uniform     1/(high − low)                     Kingma et al. 2021, with a fixed linear λ
    normal      N(mean, std²)                      Karras et al. 2022: log σ ~ N(−mean/2, (std/2)²)
    logistic    sech²((λ − mean)/(2·scale))/(4·scale)
                                               flow matching (0 and 2): σ/(α + σ) uniform
    cosine      sech(λ/2)/(2π)                     t uniform, α = cos(πt/2), σ = sin(πt/2)

Kingma & Gao 2023, section 2, lists such densities. The last three have no end: they are cut off
at |λ| = 30, where σ/α is 3e-7 or its inverse, and scaled up to integrate to 1. Of `cosine` and the
default `logistic` less than a millionth is lost. Of a schedule, t = 1 + ⌊u·T⌋ with the same u.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

from alphabar.arguments import check_number, check_whole
from alphabar.schedule import Level, Schedule
from alphabar.spec import Family, Named

LEVELS = Family("density of levels")

_END = 30.0  # |λ| beyond which no density goes
_BELOW_1 = math.nextafter(1, 0)


class Drawn(NamedTuple):
    """Noise levels for the items of a batch, and what an objective must know of how they came."""

    level: Level  # (n,), variance-preserving
    before: Level | None  # (n,), the level one step cleaner (t − 1), where they are a schedule's
    density: Float64[Tensor, " n"] | None  # p(λ) at each λ, where they come from a density
    T: int | None = None  # how many steps the schedule has, each as likely as any other


class Levels(Named, ABC):
    """A rule by which noise levels are drawn."""

    @abstractmethod
    def quantile(self, u: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
        """λ below which a share u of all levels lies, 0 ≤ u < 1."""

    @abstractmethod
    def draw(self, n: int, generator: torch.Generator) -> Drawn:
        """n levels, evenly over the rule's range, drawn by `generator`.

        Raises:
            ValueError: n < 1.
        """


def even(n: int, generator: torch.Generator) -> Float64[Tensor, " n"]:
    """u_i = (i + r)/n, 0 ≤ u_i < 1: one in each n-th of the unit interval.

    Raises:
        ValueError: n < 1.
    """
    device = generator.device
    shift = torch.rand((), generator=generator, dtype=torch.float64, device=device)
    u = torch.arange(check_whole("n", n, 1, 2**40), dtype=torch.float64, device=device)
    return u.add_(shift).div_(n).clamp_(max=_BELOW_1)  # n − 1 + r may round to n


# --- from a density of λ


class Density(Levels):
    """Levels whose λ has a density, cut off at both ends; members give it before the cut."""

    @property
    def ends(self) -> tuple[float, float]:
        """The least λ and the greatest."""
        return -_END, _END

    @abstractmethod
    def _share(self, log_snr: Float64[Tensor, "*n"]) -> Float64[Tensor, "*n"]:
        """F(λ), the share below λ."""

    @abstractmethod
    def _inverse(self, share: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
        """F⁻¹, the λ below which this share lies."""

    @abstractmethod
    def _density(self, log_snr: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
        """F′(λ)."""

    @cached_property
    def _kept(self) -> tuple[float, float]:
        """F at the low end, and how much lies between the ends."""
        low, high = self._share(torch.tensor(self.ends, dtype=torch.float64)).tolist()
        return low, high - low

    def quantile(self, u: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
        """λ below which a share u of all levels lies, 0 ≤ u < 1."""
        low, mass = self._kept
        return self._inverse(low + mass * u).clamp_(*self.ends)  # beyond them by a rounding

    def density(self, log_snr: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
        """p(λ), for λ between the ends; its integral from end to end is 1."""
        return self._density(log_snr) / self._kept[1]

    def draw(self, n: int, generator: torch.Generator) -> Drawn:
        """n levels, evenly over the density's range, on the generator's device.

        Raises:
            ValueError: n < 1.
        """
        log_snr = self.quantile(even(n, generator))
        level = Level(log_snr.sigmoid().sqrt(), (-log_snr).sigmoid().sqrt())
        return Drawn(level, None, self.density(log_snr))


@dataclass(frozen=True)
class Uniform(Density):
    """λ uniform on [low, high]."""

    low: float
    high: float

    @property
    def ends(self) -> tuple[float, float]:
        """The least λ and the greatest."""
        return self.low, self.high

    def _share(self, log_snr: Float64[Tensor, "*n"]) -> Float64[Tensor, "*n"]:
        return (log_snr - self.low) / (self.high - self.low)

    def _inverse(self, share: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
        return self.low + (self.high - self.low) * share

    def _density(self, log_snr: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
        return torch.full_like(log_snr, 1 / (self.high - self.low))


@dataclass(frozen=True)
class Normal(Density):
    """λ ~ N(mean, std²) within ±30."""

    mean: float
    std: float

    def _share(self, log_snr: Float64[Tensor, "*n"]) -> Float64[Tensor, "*n"]:
        return torch.special.ndtr((log_snr - self.mean) / self.std)

    def _inverse(self, share: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
        return self.mean + self.std * torch.special.ndtri(share)

    def _density(self, log_snr: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
        z = (log_snr - self.mean) / self.std
        return (-0.5 * z.square()).exp() / (self.std * math.sqrt(2 * math.pi))


@dataclass(frozen=True)
class Logistic(Density):
    """F(λ) = sigmoid((λ − mean)/scale), within ±30."""

    mean: float
    scale: float

    def _share(self, log_snr: Float64[Tensor, "*n"]) -> Float64[Tensor, "*n"]:
        return ((log_snr - self.mean) / self.scale).sigmoid()

    def _inverse(self, share: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
        return self.mean + self.scale * share.logit()

    def _density(self, log_snr: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
        half = (log_snr - self.mean) / (2 * self.scale)
        return 0.25 / (self.scale * half.cosh().square())


@dataclass(frozen=True)
class Cosine(Density):
    """λ = −2·log tan(πt/2) with t uniform: F(λ) = (2/π)·atan(e^(λ/2)), within ±30."""

    def _share(self, log_snr: Float64[Tensor, "*n"]) -> Float64[Tensor, "*n"]:
        return (log_snr / 2).exp().atan() * (2 / math.pi)

    def _inverse(self, share: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
        return 2 * (share * (math.pi / 2)).tan().log()

    def _density(self, log_snr: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
        return 1 / (2 * math.pi * (log_snr / 2).cosh())


@LEVELS.entry()
def uniform(low: float = -10.0, high: float = 10.0) -> Uniform:
    """λ uniform between two ends: no level is thought of more than another.

    Kingma et al. 2021, with λ on a fixed straight line.
    """
    rule = "a log-SNR from -745 to 745"
    low, high = (
        check_number("low", low, -745, 745, rule),
        check_number("high", high, -745, 745, rule),
    )
    if low >= high:
        raise ValueError(f"low = {low:g} ≥ high = {high:g}: λ runs from low to high, so low < high")
    return Uniform(low, high)


@LEVELS.entry()
def normal(mean: float = 2.4, std: float = 2.4) -> Normal:
    """λ normal: most levels in the middle, where there is most to learn.

    The defaults are EDM's log σ ~ N(−1.2, 1.2²), Karras et al. 2022, table 1 (λ = −2·log σ). Time
    of a flow whose logit is N(m, s²) (Esser et al. 2024, section 3.1) is mean = −2m, std = 2s.
    """
    mean = check_number("mean", mean, -20, 20, "a log-SNR from -20 to 20, such as 2.4")
    std = check_number("std", std, 0, 100, "a standard deviation of λ in 0 < std ≤ 100", True)
    return Normal(mean, std)


@LEVELS.entry()
def logistic(mean: float = 0.0, scale: float = 2.0) -> Logistic:
    """λ logistic; by default the time of a flow uniform, λ = 2·log((1−t)/t).

    That is flow matching and rectified flow: Lipman et al. 2023 (their time runs the other way);
    Liu et al. 2023, eq. (1). Its tails are wider than the normal's: no level is quite left out.
    """
    mean = check_number("mean", mean, -20, 20, "a log-SNR from -20 to 20, such as 3")
    scale = check_number("scale", scale, 0, 100, "a scale of λ in 0 < scale ≤ 100", True)
    return Logistic(mean, scale)


@LEVELS.entry()
def cosine() -> Cosine:
    """t uniform on the cosine schedule, λ = −2·log tan(πt/2).

    Nichol & Dhariwal 2021, eq. (17), with s = 0 and without the clip.
    """
    return Cosine()


# --- from a schedule


@dataclass(frozen=True, eq=False)
class OfSchedule(Levels):
    """t uniform over 1..T of a schedule, in the variance-preserving scale."""

    schedule: Schedule

    @property
    def spec(self) -> str:
        """The schedule's."""
        return self.schedule.spec

    @cached_property
    def _vp(self) -> Schedule:
        return self.schedule.to_vp()

    def quantile(self, u: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
        """λ below which a share u of all levels lies, 0 ≤ u < 1."""
        return self._vp.log_snr[self._vp.T - self._index(u)]

    def draw(self, n: int, generator: torch.Generator) -> Drawn:
        """n levels, each t as often as any other, and the level one step before each.

        They are on the schedule's device.

        Raises:
            ValueError: n < 1.
        """
        alpha, sigma = self._vp.levels
        i = self._index(even(n, generator))
        level, before = Level(alpha[i + 1], sigma[i + 1]), Level(alpha[i], sigma[i])
        return Drawn(level, before, None, self._vp.T)

    def _index(self, u: Float64[Tensor, " n"]) -> Tensor:
        """⌊uT⌋, from 0 to T − 1."""
        T = self._vp.T
        return (u * T).long().clamp_(max=T - 1).to(self._vp.alpha.device)


def of_schedule(schedule: Schedule) -> OfSchedule:
    """Levels drawn from a schedule: t uniform over 1..T (Ho, Jain, Abbeel 2020, algorithm 1)."""
    return OfSchedule(schedule)
