"""Tables that end without signal: a usual one, stretched (Lin et al. 2023, algorithm 1).

√ᾱ′_t = (√ᾱ_t − √ᾱ_T)·√ᾱ_1/(√ᾱ_1 − √ᾱ_T)
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float64
from scipy import optimize  # type: ignore[import-untyped]
from torch import Tensor

from alphabar import schedule
from alphabar.check.catalogue import named
from alphabar.check.report import Diagnosis, Verdict
from alphabar.check.schedule.common import digits, reading
from alphabar.check.schedule.families import FIRST, LINES, feet, held_to


class _Stretch(NamedTuple):
    """What a table is that ends at ᾱ_T = 0."""

    verdict: Verdict
    says: str = ""
    diagnoses: tuple[Diagnosis, ...] = ()


def zero_terminal(
    beta: Float64[Tensor, " T"],
    abar: Float64[Tensor, " T"],
    slack: Float64[Tensor, " T"],
    eps: float,
) -> _Stretch:
    """ᾱ_T = 0, and the rest a usual table, stretched (Lin et al. 2023, algorithm 1) or as it is."""
    if beta[-1] < 1 - 8 * eps:
        words = f"ᾱ_T = {digits(abar[-1])}, √ᾱ_T = {digits(abar[-1].sqrt())}; it must be 0"
        return _Stretch("bug", "", (named("schedule", "signal left at the end", words),))
    for family in ("jsd", "flow", "cosine"):
        fit, _, _ = held_to(family, beta, slack, eps)
        if fit is not None:
            return _Stretch("right", fit.says)
    base = _stretched(abar, torch.sqrt, torch.sqrt)
    if base or len(beta) < 10:
        return _Stretch("right", f"{base}, stretched" if base else "")
    wrong: dict[str, tuple[str, Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
        "not squared": ("√ᾱ is stretched, and not squared after", torch.sqrt, lambda a: a),
        "no root": ("ᾱ is stretched where √ᾱ is meant", lambda a: a, lambda a: a),
        "squared twice": ("√ᾱ is stretched, and squared twice", torch.sqrt, lambda a: a**0.25),
    }
    for kind, (says, of_base, of_table) in wrong.items():
        base = _stretched(abar, of_base, of_table)
        if base:
            words = f"so made of {base}, it fits at all {len(beta)} steps"
            remedy = "√ᾱ′ = (√ᾱ − √ᾱ_T)·√ᾱ_1/(√ᾱ_1 − √ᾱ_T), then square it"
            return _Stretch("bug", "", (reading(kind, says, words, remedy),))
    falls = beta[1:] < beta[:-1] - slack[1:] - 16 * eps
    if falls.any():
        t = int(falls.nonzero()[0]) + 1
        return _Stretch("bug", f"no usual table, stretched: β falls from t = {t} to {t + 1}")
    return _Stretch("unchecked")


def _stretched(
    abar: Float64[Tensor, " T"],
    of_base: Callable[[Tensor], Tensor],
    of_table: Callable[[Tensor], Tensor],
) -> str:
    """The usual table ᾱ of which h(ᾱ′) is g(ᾱ), moved to end at 0; "" where there is none."""
    T, i, h = len(abar), len(abar) // 2, of_table(abar)
    # Level 1 stays as it is: g(1 − β_1) = h(ᾱ′_1), with g the identity or a root.
    is_root = bool(of_base(h.new_tensor(4.0)) == 2)
    kept = h[0].item() ** (2 if is_root else 1)
    start, most = 1 - kept, math.log(0.999)
    if not 0 < start < 0.999:
        return ""
    snr, least = math.log(kept / start), math.log(start)
    # Each with its one free number, a logarithm, and the range of it.
    bases: dict[str, tuple[Callable[[float], schedule.Schedule], float, float]] = {
        "linear": (lambda e: schedule.linear(T, start, math.exp(e)), least, most),
        "quad": (lambda e: schedule.quad(T, start, math.exp(e)), least, most),
        "sigmoid": (lambda e: schedule.sigmoid(T, *feet(start, math.exp(e))), least, most),
        "warmup10": (lambda e: schedule.warmup10(T, start, math.exp(e)), least, most),
        "warmup50": (lambda e: schedule.warmup50(T, start, math.exp(e)), least, most),
        "log_snr": (lambda e: schedule.log_snr(T, snr, snr - math.exp(e)), 0.0, 4.0),
        "log_linear": (
            lambda e: schedule.log_linear(T, math.exp(-snr / 2), math.exp(e)),
            max(0.0, 0.01 - snr / 2),
            9.0,
        ),
        "karras": (
            lambda e: schedule.karras(T, math.exp(-snr / 2), math.exp(e)),
            max(0.0, 0.01 - snr / 2),
            9.0,
        ),
    }

    def made(table: schedule.Schedule) -> Float64[Tensor, " T"]:
        g = of_base(table.alpha_bar[1:])
        return (g - g[-1]) * g[0] / (g[0] - g[-1])

    def fits(base: Callable[[float], schedule.Schedule], low: float, high: float) -> bool:
        def off(e: float) -> float:
            try:
                return float(made(base(e))[i] - h[i])
            except ValueError:  # no such table
                return math.nan

        # The middle may rise and fall again as the end moves: each crossing is tried.
        grid = torch.linspace(low + 1e-4, high, 24, dtype=torch.float64).tolist()
        for before, after in pairwise((e, off(e)) for e in grid):
            if before[1] * after[1] <= 0:
                end = float(optimize.brentq(off, before[0], after[0], xtol=1e-14))
                if ((made(base(end)) - h).abs() <= 1e-4).all():
                    return True
        return False

    for name, (base, low, high) in bases.items():
        too_far = name in LINES and start > FIRST / T
        if not too_far and fits(base, low, high):
            return name
    for name, table in (("constant", schedule.constant(T, start)), ("cosine", schedule.cosine(T))):
        if ((made(table) - h).abs() <= 1e-4).all():
            return name
    return ""
