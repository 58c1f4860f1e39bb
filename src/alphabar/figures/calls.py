"""What a sampler's samples are worth, against what they cost: calls of the denoiser."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis

from alphabar.figures.curves import name_ends, room_for
from alphabar.figures.style import LIGHT, Style, StyledFigure

# With the seven colours and four dashes, twelve shapes: neighbours differ in all three.
MARKERS = "os^DvPX<>*ph"
# First digits of ticks, from those that are wanted most.
DIGITS = (1, 2, 5, 3, 1.5, 1.25, 7, 4, 1.1, 9, 1.05, 9.5, 1.02, 9.8, 1.01, 9.9)


def error_against_calls(
    rows: Mapping[str, Sequence[tuple[float, float, float | None]]],
    *,
    floor: float | None = 1.0,
    goal: float | None = None,
    measure: str | None = None,
    title: str | None = None,
    style: Style = LIGHT,
) -> StyledFigure:
    """The error of samples against the calls of the denoiser, a line for each sampler, log-log.

    Args:
        rows: for each sampler (calls, error, standard error or None), in any order; an error that
            is not finite leaves a gap.
        floor: the error that true samples have; samples may by chance fall below it.
        goal: an error that is aimed at.
        measure: what the error is called, if it is not the ratio of distances.
        title: in place of the style's own.

    Raises:
        ValueError: there is nothing to draw, or a number of calls, an error, the floor or the goal
            is not above 0: it has no place on a logarithmic axis.
    """
    lines = {name: _line(name, measured) for name, measured in rows.items()}
    calls, value, error = np.concatenate([np.zeros((3, 0)), *lines.values()], axis=1)
    if not np.isfinite(value).any():
        raise ValueError("there is nothing to draw: give at least one finite error")
    marks = sorted(
        (level, style.text("note", key, value=f"{level:.6g}"), dash)
        for key, level, dash in (("floor", floor, (0, (6, 3))), ("goal", goal, (0, (1, 2))))
        if level is not None
    )
    levels = [level for level, _, _ in marks]
    if not all(level > 0 for level in levels):
        raise ValueError(f"floor or goal = {levels[0]}: a logarithmic axis needs it above 0")
    notes = (style.text("note", "bars"),) if error.any() else ()
    written = "".join([title or "", measure or "", *lines])
    with style.applied(written):
        title = title or style.text("title", "error_against_calls")
        figure = style.figure(7.0 + room_for(lines), 4.4, title, notes, written)
        axes = figure.subplots()
        axes.set(xscale="log", yscale="log", xlabel=style.text("axis", "calls"))
        axes.set_ylabel(measure or style.text("axis", "ratio"))
        axes.set_xlim(_around(calls, 0.03))
        reach = [np.maximum(value - error, value / 2), value + error, levels]
        axes.set_ylim(_around(np.concatenate(reach), 0.07))
        number, times = np.unique(calls, return_counts=True)
        usual = number[np.argsort(-times, kind="stable")][: (2 * times >= times.max()).sum()]
        _plain_ticks(axes.xaxis, usual, 0.08, whole=True)
        _plain_ticks(axes.yaxis, levels, 0.07)
        axes.grid(True, axis="y")
        looks, ends = [], []
        for i, (n, v, e) in enumerate(lines.values()):
            look = {**style.line(i), "marker": MARKERS[i % len(MARKERS)], "markersize": 4.5}
            axes.plot(n, v, **look)
            axes.vlines(n, np.maximum(v - e, axes.get_ylim()[0]), v + e, color=look["color"], lw=1)
            looks.append(look)
            ends.append(_end(axes, n, v, look))
        for i, (level, words, dash) in enumerate(marks):
            axes.axhline(level, color=style.colours.ink, ls=dash, lw=1.1, zorder=1.5)
            axes.annotate(
                words,
                (0, level),
                (5, 3 if i else -4),  # the lower one under its line, so that the two stay apart
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                va="bottom" if i else "top",
                size=8.5,
                zorder=1.6,
            )
        name_ends(axes, np.array(ends), list(lines), looks)
    return figure


def _line(name: str, measured: Sequence[tuple[float, float, float | None]]) -> np.ndarray:
    """Calls, error (nan where not finite) and standard error (0 where not known), as rows."""
    table = np.array([(n, v, e or 0.0) for n, v, e in measured], float).reshape(-1, 3)
    calls, value, error = table[np.argsort(table[:, 0], kind="stable")].T
    if not (calls > 0).all() or (value <= 0).any():
        raise ValueError(
            f"{name}: calls and errors must be above 0, to have a place on a logarithmic axis"
        )
    value = np.where(np.isfinite(value), value, np.nan)
    return np.stack([calls, value, np.where(np.isfinite(value + error), np.abs(error), 0)])


def _end(axes: Axes, calls: np.ndarray, value: np.ndarray, look: dict[str, Any]) -> float:
    """How high a line ends; one that ends early is led to the edge by a thin line."""
    finite = np.isfinite(value).nonzero()[0]
    if not len(finite):
        return 1.0
    last = finite[-1]
    height = _share(value[last], axes.get_ylim())
    start = _share(calls[last], axes.get_xlim())
    axes.plot([start, 1], [height] * 2, ":", color=look["color"], lw=0.8, transform=axes.transAxes)
    return height


def _share(value: float, limits: tuple[float, float]) -> float:
    """How far along a logarithmic axis a value lies, from 0 to 1."""
    low, high = np.log(limits)
    return float((math.log(value) - low) / (high - low))


def _around(values: np.ndarray, room: float) -> tuple[float, float]:
    """Limits of a logarithmic axis that holds all that is finite, with a share of room."""
    logs = np.log(values[np.isfinite(values)])
    margin = room * np.ptp(logs) or 0.2
    return float(np.exp(logs.min() - margin)), float(np.exp(logs.max() + margin))


def _plain_ticks(axis: Axis, wanted: Iterable[float], gap: float, whole: bool = False) -> None:
    """Numbers without powers of ten: those that are wanted, then round ones where there is room."""
    low, high = axis.get_view_interval()
    decades = 10.0 ** np.arange(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks: list[float] = []
    round_ones = [float(digit * decade) for digit in DIGITS for decade in decades]
    for tick in [*wanted, *(v for v in round_ones if not whole or v.is_integer())]:
        far = all(abs(_share(tick, (low, high)) - _share(t, (low, high))) >= gap for t in ticks)
        if low <= tick <= high and far:
            ticks.append(tick)
    axis.set_ticks(ticks, [f"{tick:.10g}" for tick in ticks])
    axis.set_ticks([], minor=True)
