"""The usual families of β_t and of σ, with their free numbers taken from a table.

The families are those of `alphabar.schedule`.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float64
from scipy import optimize  # type: ignore[import-untyped]
from torch import Tensor

from alphabar import schedule
from alphabar.check.schedule.common import EPS, digits

LINES = ("constant", "linear", "quad", "sigmoid", "warmup10", "warmup50")
OF_BETAS = (*LINES, "cosine", "jsd", "log_snr", "flow")
OF_SIGMAS = ("karras", "log_linear")
_HIGHEST_CLIP = 0.9  # a cosine table that is clipped below is not that table any more
_LOWEST_CLIP = 2e-4
FIRST = 10  # a line in β that begins above this share of 1/T leaves clean data out


class Fit(NamedTuple):
    """A family with its free numbers taken from the table."""

    says: str
    beta: Float64[Tensor, " T"]
    error: Float64[Tensor, " T"] | float
    why: str = ""  # how it breaks easily
    equivalent: bool = False


def held_to(
    claims: str, beta: Float64[Tensor, " T"], slack: Float64[Tensor, " T"], eps: float
) -> tuple[Fit | None, str, str]:
    """The family's fit; else None. What the family says, and where the table first differs."""
    nearest: tuple[int, str, str] | None = None
    for fit in _fits(claims, beta, slack):
        off = (beta - fit.beta).abs() > fit.error + slack + 16 * eps * beta.max()
        if not off.any():
            return fit, fit.says, ""
        t = int((beta - fit.beta).abs().argmax()) if off.all() else int(off.nonzero()[0])
        expected = f"{fit.says}: β_{t + 1} = {digits(fit.beta[t])}"
        this = (int(off.sum()), expected, f"β_{t + 1} = {digits(beta[t])}")
        nearest = min(nearest or this, this)
    if nearest is None:
        return (
            None,
            claims,
            f"β from {digits(beta[0])} to {digits(beta[-1])}, which no {claims} table has",
        )
    return None, nearest[1], nearest[2]


def recognised(
    beta: Float64[Tensor, " T"], slack: Float64[Tensor, " T"], eps: float
) -> Iterator[Fit]:
    """The families that a table is of."""
    if len(beta) < 3:
        return
    for family in (*OF_BETAS, *OF_SIGMAS):
        fit, _, _ = held_to(family, beta, slack, eps)
        if fit is not None:
            yield fit._replace(why="", equivalent=False)


def _fits(family: str, beta: Float64[Tensor, " T"], slack: Float64[Tensor, " T"]) -> Iterator[Fit]:
    """A family's tables of the same T whose free numbers are those of a table."""
    T = len(beta)
    first, last = beta[0].item(), beta[-1].item()
    abar = torch.log1p(-beta).cumsum(0).exp()
    ends = f"β from {first:.6g} to {last:.6g}"
    with_ends: Mapping[str, Callable[[int, float, float], schedule.Schedule]] = {
        "linear": schedule.linear,
        "quad": schedule.quad,
        "sigmoid": schedule.sigmoid,
        "warmup10": schedule.warmup10,
        "warmup50": schedule.warmup50,
    }
    try:
        if family == "constant":
            yield Fit(f"constant, β = {first:.6g}", torch.full_like(beta, first), 0.0)
        elif family in with_ends and (first < last or T == 1):
            low, high = first, last
            if family == "sigmoid":
                yield from _alpha_bar_sigmoids(beta, abar)
                low, high = (first, last) if T == 1 else feet(first, last)
            yield Fit(f"{family}, {ends}", _beta_of(with_ends[family](T, low, high)), 0.0)
        elif family == "jsd":
            yield Fit("jsd, ᾱ_t = 1 − t/T", _beta_of(schedule.jsd(T)), 0.0)
        elif family == "cosine":
            yield from _cosines(beta)
        elif family == "flow" and last == 1 and T == 1:
            yield Fit("flow", torch.ones_like(beta), 0.0)
        elif family == "flow" and last == 1:
            # √(1/SNR) = shift·u/(1 − u) at u = t/T
            i = T // 2 - 1
            ratio = ((1 - abar[i]) / abar[i]).sqrt().item()
            shift = ratio * (1 - (i + 1) / T) / ((i + 1) / T)
            yield Fit(f"flow, shift = {shift:.4g}", _beta_of(schedule.flow(T, shift)), 1e-5)
        elif family in ("log_snr", *OF_SIGMAS) and T < 3:
            yield Fit(f"{family}, {ends}", beta, 0.0)  # it has as many free numbers
        elif family in ("log_snr", *OF_SIGMAS) and 0 < abar[-1]:
            yield from _by_noise(family, abar, 1e-6 + 8 * slack[0].item() / first)
    except ValueError:
        return  # no such table: its free numbers are out of range


def _beta_of(table: schedule.Schedule) -> Float64[Tensor, " T"]:
    return table.beta[1:]


def feet(first: float, last: float) -> tuple[float, float]:
    """The levels between which a sigmoid from −6 to 6 runs, from its first value and its last."""
    foot = 1 / (1 + math.exp(6))
    span = (last - first) / (1 - 2 * foot)
    return first - span * foot, first - span * foot + span


def _alpha_bar_sigmoids(beta: Float64[Tensor, " T"], abar: Float64[Tensor, " T"]) -> Iterator[Fit]:
    """ᾱ, in place of β, on a part of a sigmoid, s, of which two values say where it lies.

        ᾱ_t = (s(b) − s(a + (b − a)·t/T))/(s(b) − s(a))

    Jabri, Fleet, Chen 2022, code listing 1, with a = start/τ, b = end/τ; clipped as the table is.
    """
    T = len(beta)
    if T < 4:
        return
    t = torch.arange(T + 1, dtype=torch.float64)
    seen = [T // 3, 2 * T // 3]

    def curve(a: float, b: float) -> Float64[Tensor, " levels"]:
        high, low = (torch.tensor(v, dtype=torch.float64).sigmoid() for v in (b, a))
        return (high - (a + (b - a) * t / T).sigmoid()) / (high - low)

    def off(ends: Float64[np.ndarray, " 2"]) -> list[float]:
        return [(curve(*ends)[i] - abar[i - 1]).item() for i in seen]

    found = optimize.root(off, (-3.0, 3.0), tol=1e-12)
    a, b = found.x
    if not (-100 < a < b < 100 and abs(found.fun).max() < 1e-9):
        return
    whole = curve(a, b)
    full = 1 - whole[1:] / whole[:-1]
    most = beta.max().item()
    says = f"sigmoid of ᾱ, from {a:.4g} to {b:.4g}"
    if most < full.max().item():
        says += f", β ≤ {most:.6g}"
    # What is left of ᾱ is a difference of two numbers near s(b).
    error = 64 * EPS / whole[:-1] + 1e-9
    yield Fit(says, full.clamp(max=most), error, "", True)


def _by_noise(family: str, abar: Float64[Tensor, " T"], error: float) -> Iterator[Fit]:
    """Families that are lines in a function of the noise level.

    The least noise is taken from β_1, and all β are off by as large a share as that is.
    """
    T = len(abar)
    log_snr = torch.logit(abar)
    if family == "log_snr":
        high, low = log_snr[0].item(), log_snr[-1].item()
        says = f"log_snr, λ from {high:.4g} to {low:.4g}"
        yield Fit(says, _beta_of(schedule.log_snr(T, high, low)), error)
        return
    sigma = (-log_snr / 2).exp()
    made = of_sigmas(family, sigma)
    if made is not None:
        says, table = made
        expected = _beta_of(schedule.from_sigmas(table))
        yield Fit(says, expected, error * expected)


def of_sigmas(
    family: str, sigma: Float64[Tensor, " T"]
) -> tuple[str, Float64[Tensor, " T"]] | None:
    """Rising σ of a family, with the ends and the ρ of a table."""
    T, low, high = len(sigma), sigma[0].item(), sigma[-1].item()
    if family == "log_linear":
        table = schedule.log_linear(T, low, high).sigma[1:]
        return f"log_linear, σ from {low:.4g} to {high:.4g}", table
    rho = _rho(sigma)
    if rho is None:
        return None
    table = schedule.karras(T, low, high, rho).sigma[1:]
    return f"karras, σ from {low:.4g} to {high:.4g}, ρ = {rho:.4g}", table


def _rho(sigma: Float64[Tensor, " T"]) -> float | None:
    """ρ for which σ^(1/ρ) is on a line, as the middle says: a mean of the ends of power 1/ρ."""
    i = len(sigma) // 2
    if len(sigma) < 3:
        return 7.0
    share = i / (len(sigma) - 1)
    low, high, middle = sigma[0].item(), sigma[-1].item(), sigma[i].item()

    def off(power: float) -> float:
        mean = (1 - share) * low**power + share * high**power
        return math.log(mean) / power - math.log(middle)

    if not off(0.011) < 0 < off(9.0):
        return None
    return 1 / float(optimize.brentq(off, 0.011, 9.0, xtol=1e-12))


def _cosines(beta: Float64[Tensor, " T"]) -> Iterator[Fit]:
    """ᾱ on a squared cosine: the paper's offset, then another, clipped as the table is."""
    T = len(beta)
    least, most = beta.min().item(), beta.max().item()
    for s in _offsets(beta):
        full = _beta_of(schedule.cosine(T, s, 1.0))
        if most < min(_HIGHEST_CLIP, full.max().item()):
            most = full.max().item()  # it is not clipped, it is another table
        if least > _LOWEST_CLIP:
            least = full.min().item()
        angle = (torch.arange(T + 1, dtype=torch.float64) / T + s) / (1 + s) * math.pi / 2
        near = angle.cos().clamp(min=1e-12)
        moves = near[1:] / near[:-1] ** 2 + near[1:] ** 2 / near[:-1] ** 3
        says = f"cosine, s = {s:.4g}"
        low_clip = least > full.min().item() + 1e-6
        why = ""
        if most >= 1 - EPS:
            why = (
                f"β is not clipped: at its end β_T = {most:.10g} leaves ᾱ_T = 0, and 1/√ᾱ_T has no "
                "bound; clip β at 0.999"
            )
        else:
            says += f", β ≤ {most:.6g}"
        if low_clip:
            says += f", β ≥ {least:.3g}"
        error = 8 * EPS * moves.clamp(max=1e4) + 4 * EPS
        # Near a clip of 0.999 a rounding decides on which side of it β is.
        yield Fit(says, full.clamp(least, most), error, why, low_clip or s != 0.008)


def _offsets(beta: Float64[Tensor, " T"]) -> Iterator[float]:
    yield 0.008
    T = len(beta)
    if T < 2:
        return
    i = T // 4

    def off(s: float) -> float:
        angle = torch.tensor([(i / T + s) / (1 + s), ((i + 1) / T + s) / (1 + s)]).double()
        before, after = (angle * math.pi / 2).cos().tolist()
        return 1 - (after / before) ** 2 - beta[i].item()

    yield 0.0
    if off(0.0) < 0 < off(0.1):
        yield float(optimize.brentq(off, 0.0, 0.1))
