"""What samples are worth: a set against data, and samplers against one another.

ratio = √(SW2²/floor²), floor² the mean SW2² of true sets; over draws i with q_i = SW2_i²/floor²

ratio = √(mean q),    standard error = (standard deviation of q)/√draws / (2·ratio)
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

from alphabar import metrics
from alphabar.data import Data, Standardiser
from alphabar.draw import Plan, Source, draw
from alphabar.metrics import (
    Nearest,
    Score,
    Yardstick,
    against_fresh,
    against_held_out,
    trials_rows,
)

SET = 10_000  # points of a set that is scored, at most

Advance = Callable[[], None]


class Row(NamedTuple):
    """What a sampler's draws are worth."""

    sampler: str
    spacing: str
    nfe: int
    steps: int
    value: float
    floor: float
    ratio: float
    standard_error: float | None  # of the ratio; None of a single draw
    draws: int
    seconds: float  # of the quickest draw: the first may have prepared something
    start: str
    levels: str  # the spec of the levels visited
    fit_seconds: float | None


class Halves(NamedTuple):
    """Items: those that are drawn from or learned from, and those that stand for the truth."""

    used: Tensor
    held_out: Tensor


def halves(data: Data, seed: int) -> Halves | None:
    """Data cut in two: as they say themselves, or a file at random; None for fresh points.

    Raises:
        ValueError: fewer than four rows.
    """
    if data.fresh is not None:
        return None
    n = len(data)
    if data.held_out is not None:
        is_used = torch.ones(n, dtype=torch.bool)
        is_used[data.held_out] = False
        return Halves(is_used.nonzero().flatten(), data.held_out)
    if n < 4:
        raise ValueError(
            f"{n} rows: half of a file is drawn from and half stands for the truth, so it needs 4 "
            "or more (train --no-hold-out learns from all)"
        )
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed % 2**63))
    return Halves(order[: (n + 1) // 2], order[(n + 1) // 2 :])


def yardstick_of(
    data: Data,
    standardiser: Standardiser | None,
    parts: Halves | None,
    n: int,
    advance: Advance = lambda: None,
) -> Yardstick:
    """How far sets of n points are from the data's truth: fresh points, or the held-out half.

    Args:
        data: the data.
        standardiser: what brings them to the units of the sets.
        parts: the halves of a file; None for data that can be drawn afresh.
        n: points of a set.
        advance: called 1 + `metrics.FLOOR_SETS` times where fresh points are drawn, else once.
    """
    fresh = data.fresh
    if fresh is None:
        assert parts is not None
        x = data.x if standardiser is None else standardiser.apply(data.x)
        made = against_held_out(x[parts.used[:n]], x[parts.held_out[:SET]])
        advance()
        return made

    def drawn(m: int, seed: int) -> Tensor:
        advance()
        x = fresh(m, seed)
        return x if standardiser is None else standardiser.apply(x)

    return against_fresh(n, drawn)


def evaluate(
    source: Source,
    plan: Plan,
    yardstick: Yardstick,
    n: int,
    draws: int,
    seed: int,
    advance: Advance = lambda: None,
) -> Row:
    """Independent sets of n samples each, and their score.

    All samplers with one seed begin from the same noise.

    Args:
        source: what to draw from.
        plan: how to draw.
        yardstick: what to score against.
        n: samples in a set.
        draws: how many sets.
        seed: determines all noise.
        advance: called after each set.
    """
    scores, seconds = [], []
    for i in range(draws):
        # Draw i takes items i·n … of one long run: no two draws share any noise.
        drawn = draw(source, plan, n, seed, first=i * n)
        scores.append(yardstick.score([drawn.x.double()]))
        seconds.append(drawn.seconds)
        advance()
    score, error = pooled(scores)
    return Row(
        sampler=plan.sampler.spec,
        spacing=plan.rule,
        nfe=drawn.nfe,
        steps=plan.schedule.T,
        value=score.value,
        floor=score.floor,
        ratio=score.ratio,
        standard_error=error,
        draws=draws,
        seconds=min(seconds),
        start=plan.start_name,
        levels=plan.schedule.spec,
        fit_seconds=plan.fit_seconds,
    )


def pooled(scores: Sequence[Score]) -> tuple[Score, float | None]:
    """The score of several draws together, and the standard error of its ratio."""
    squares = torch.tensor([s.ratio**2 for s in scores], dtype=torch.float64)
    ratio, floor = squares.mean().sqrt().item(), scores[0].floor
    error = None
    if len(scores) > 1 and ratio > 0:
        error = (squares.std() / math.sqrt(len(scores)) / (2 * ratio)).item()
    return Score(ratio * floor, floor, ratio, len(scores)), error


class Judged(NamedTuple):
    """A set of points against data."""

    score: Score
    n: int  # points in each draw
    reference: int  # points that stood for the truth
    copies: int  # rows of the set that are rows of the data, up to rounding to float32


def judge(
    x: Float64[Tensor, "n d"],
    data: Data,
    standardiser: Standardiser | None,
    advance: Advance = lambda: None,
) -> Judged:
    """The score of a set of points, in shuffled draws of `SET` where it has more.

    Against a file, its rows are the reference, and the floor is the distance of n from m rows, both
    drawn with replacement from the file's: what fresh true sets of these sizes would score.

    Args:
        x: the points, in the data's units.
        data: what they should be like.
        standardiser: applied to both, where given.
        advance: called 1 + `metrics.FLOOR_SETS` times.

    Raises:
        ValueError: other columns than the data's; data without spread.
    """
    if x.shape[1] != data.x.shape[1]:
        raise ValueError(
            f"{x.shape[1]} columns against {data.x.shape[1]}: points are compared with points of "
            "as many columns; choose the columns first"
        )
    scale = (lambda v: v) if standardiser is None else standardiser.apply
    truth, points = scale(data.x), scale(x)
    n = min(len(x), SET)
    if data.fresh is None:
        rows = _shuffled(truth)[:SET]
        yardstick = trials_rows(rows, n).yardstick(advance)
        advance()
        reference = len(rows)
    else:
        yardstick = yardstick_of(data, standardiser, None, n, advance)
        reference = metrics.REFERENCE
    if len(x) > n:
        points = _shuffled(points)  # a file may be sorted
    draws = [points[i : i + n] for i in range(0, len(x) - n + 1, n)]
    near = Nearest(truth)
    copies = int((near(points) <= near.slack(points)).sum())
    return Judged(yardstick.score(draws), n, reference, copies)


def _shuffled(x: Float64[Tensor, "n d"]) -> Float64[Tensor, "n d"]:
    return x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))]
