"""Following items through the forward process: x_t at several t, and what was measured there."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from alphabar.forward import marginal, standard_normal_like, walk
from alphabar.schedule import Schedule


class MomentsAt(NamedTuple):
    """Mean and variance of all numbers of all items at t: measured, and by the law."""

    t: int
    alpha_bar: float
    mean: float
    mean_law: float
    variance: float
    variance_law: float


@dataclass(frozen=True)
class Trace:
    """The same items at several t of one schedule."""

    schedule: Schedule
    times: list[int]
    x: list[Float[Tensor, "N ..."]]

    @property
    def alpha_bar(self) -> list[float]:
        """ᾱ_t at these t."""
        return self.schedule.alpha_bar[self.times].tolist()

    def to_vp(self) -> "Trace":
        """The same items in the variance-preserving scale, where no x_t outgrows a picture."""
        factor = torch.hypot(self.schedule.alpha, self.schedule.sigma).tolist()
        scaled = [x / factor[t] for t, x in zip(self.times, self.x, strict=True)]
        return Trace(self.schedule.to_vp(), self.times, scaled)

    def moments(self, x_0: Float[Tensor, "N ..."]) -> list[MomentsAt]:
        """Mean and variance of all the numbers at each t, and what the law says they should be.

        mean x_t = α_t·mean x_0,    var x_t = α_t²·var x_0 + σ_t²
        """
        x_0 = x_0.double()
        mean, variance = x_0.mean().item(), x_0.var(correction=0).item()
        found = []
        for t, x_t in zip(self.times, self.x, strict=True):
            level = self.schedule[t]
            alpha, sigma = level.alpha.item(), level.sigma.item()
            measured = x_t.double()
            found.append(
                MomentsAt(
                    t,
                    level.alpha_bar.item(),
                    measured.mean().item(),
                    alpha * mean,
                    measured.var(correction=0).item(),
                    alpha**2 * variance + sigma**2,
                )
            )
        return found


def trace(
    schedule: Schedule,
    x_0: Float[Tensor, "N ..."],
    times: Sequence[int],
    generator: torch.Generator,
    stepwise: bool = False,
    advance: Callable[[], None] = lambda: None,
) -> Trace:
    """x_t at several t, each from its exact marginal q(x_t | x_0).

    Args:
        schedule: the forward process.
        x_0: clean items, (N, …).
        times: the t wanted, rising.
        generator: where the noise comes from.
        stepwise: along the chain, with fresh noise at each step (`walk`). Otherwise in one move
            each, with the same ε for all t: every item then glides on a smooth path of its own,
            which is no path of the chain, although each of its x_t has the right distribution.
        advance: called after each step of the chain, or each of `times`.

    Raises:
        TypeError: x_0 is not of a floating-point dtype.
        ValueError: a t outside 0..T, or times that do not rise.
    """
    if not times or any(s >= t for s, t in pairwise(times)):
        raise ValueError(f"times = {list(times)}: they must rise")
    levels = [schedule[t] for t in times]  # refuses a t outside 0..T
    x: list[Tensor] = []
    if stepwise:
        wanted = set(times)
        for t, x_t in islice(walk(schedule, x_0, generator), max(times) + 1):
            if t in wanted:
                x.append(x_t)
            advance()
    else:
        eps = standard_normal_like(x_0, generator)
        for level in levels:
            x.append(marginal(level, x_0).at(eps))
            advance()
    return Trace(schedule, list(times), x)


def even_times(T: int, count: int) -> list[int]:
    """`count` whole numbers from 0 to T, both included, as evenly spread as they can be.

    If there are fewer than `count`, all of them.

    >>> even_times(100, 5)
    [0, 25, 50, 75, 100]
    """
    count = min(count, T + 1)
    return [round(i * T / (count - 1)) for i in range(count)]


def ks_distance(a: Float[Tensor, " n"], b: Float[Tensor, " m"]) -> float:
    """Kolmogorov–Smirnov: the largest distance between two empirical distribution functions.

    >>> ks_distance(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 3.0]))
    0.5
    """
    a, b = a.sort().values, b.sort().values
    at = torch.cat([a, b])
    below_a = torch.searchsorted(a, at, right=True).double() / len(a)
    below_b = torch.searchsorted(b, at, right=True).double() / len(b)
    return (below_a - below_b).abs().max().item()


def ks_bound(n: int, m: int, tests: int, false_alarm: float) -> float:
    """What the largest of `tests` such distances stays below, if the laws are the same.

        P(D > c) ≤ e·exp(−2·c²·n·m/(n + m))        Wei & Dudley 2012, for n = m ≥ 4

    Args:
        n: size of one sample.
        m: size of the other.
        tests: how many distances are taken.
        false_alarm: the probability that the largest of them exceeds the bound nevertheless.
    """
    return math.sqrt(math.log(math.e * tests / false_alarm) / 2 * (1 / n + 1 / m))
