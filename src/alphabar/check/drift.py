"""Checks of a loop that integrates the flow in time, at a scale of its own: to a method's accuracy.

    dy/dσ = c·(y − x̂_0)/σ,    y = x/s(t)        (Karras et al. 2022, eq. (4), c = 1)

Such a loop is exact only as its steps become small, so each move is held against the power that it
should follow: y − x̂_0 must fall as σ^c with c = 1. Where σ′ is taken with a factor, c is that
factor; where s′ is made of the same σ′, c − (c − 1)·σ²/(1 + σ²) is.
"""

import math
from collections.abc import Mapping
from statistics import median
from typing import NamedTuple

from torch import Tensor

from alphabar.check.formula import Moves, Process
from alphabar.check.linear import Evidence, Role
from alphabar.check.loop import Audit, by_path
from alphabar.check.stranger import Way

_OFF = 0.04  # of the power, beside what the method itself may be off by


class Move(NamedTuple):
    """One whole step: its σ, its length in log σ, and the power that it follows."""

    sigma: float
    h: float
    power: float
    total: float  # what it makes of the answer, which should be 1


def judge_drift(
    role: Role, audit: Audit, way: Way, handed: Mapping[str, Tensor]
) -> tuple[Evidence, Process]:
    """What explains the powers of all steps that are short enough to tell."""
    told = audit.log_snr
    process = Moves.between(told[:-1], told[1:])
    return _judged(audit, by_path(way, "the flow in time")), process


def _judged(audit: Audit, evidence: Evidence) -> Evidence:
    moves = _moves(audit)
    if not moves:
        words = "no step is short enough to tell: call it with more steps"
        return evidence._replace(explained=None, others=(("too few steps", words),))
    wrong = [*audit.wrong]
    if audit.labels[0] < audit.labels[-1]:
        wrong.append(("rising t", "the model is told rising σ: the loop goes from clean to noisy"))
    off = [m for m in moves if abs(m.power - 1) > _OFF + m.h**2]
    if len(off) > 0.1 * len(moves):
        wrong.insert(0, _factor(moves))
    return evidence._replace(others=tuple(wrong))


def _moves(audit: Audit) -> list[Move]:
    """Whole steps, of one stage or of two."""
    found = []
    k = 1
    labels = audit.labels
    while k < len(labels):
        if k not in audit.at:
            break
        q, p, last = audit.at[k].of["ε"].value, audit.at[k].of["x_0"].value, k
        if k + 1 < len(labels) and labels[k] == labels[k + 1] and k + 1 in audit.at:
            q *= audit.at[k + 1].of["ε"].value / labels[k]
            p = audit.at[k + 1].of["x_0"].value
            last = k + 1
        sigma, to = labels[k - 1], labels[last]
        k = last + 1
        if not (sigma > 0 and to > 0 and q > 0):
            continue
        h = math.log(sigma / to)
        if 0.01 < abs(h) < 0.3:
            found.append(Move(sigma, abs(h), math.log(q / sigma) / -h, p))
    return found


def _factor(moves: list[Move]) -> tuple[str, str]:
    """The factor that σ′ is taken with, if one explains all steps."""
    plain = [m.power for m in moves]
    both = [(m.power - (share := m.sigma**2 / (1 + m.sigma**2))) / (1 - share) for m in moves]
    for factors, who in ((plain, "σ′"), (both, "σ′, in s′ too,")):
        near = [f for f, m in zip(factors, moves, strict=True) if m.sigma < 2]
        if not near:
            continue
        middle = median(near)
        spread = sum(abs(f - middle) < 0.05 * abs(middle) + 0.05 for f in near)
        if spread > 0.8 * len(near) and abs(middle - 1) > _OFF:
            words = f"{who} is {middle:.3g} times what it should be: fits {len(near)} steps"
            return "slope by a factor", words
    words = f"y − x̂_0 falls as σ to the power {median(plain):.3g}, where 1 is right"
    return "another flow", words
