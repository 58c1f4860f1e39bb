"""How training goes: the loss, and how far it is above the least that it can be."""

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from alphabar.figures.curves import log_scale
from alphabar.figures.panels import Numbers, check_lengths, numbers
from alphabar.figures.style import LIGHT, Style, StyledFigure

NEAR = 1.12  # neighbours that a mean is taken over lie within this factor
PLACES = 240  # of the means


def training_curve(
    at: Numbers,
    loss: Numbers,
    excess: Sequence[tuple[float, float, float | None]] | None = None,
    *,
    unit: str = "step",
    optimum: float | None = None,
    goal: float | None = None,
    title: str | None = None,
    style: Style = LIGHT,
) -> StyledFigure:
    """The loss of a training run, and below it the excess over the exact optimum, log-log.

    The loss soon looks flat, as what is left of it cannot be learned; the excess shows the rest.

    Args:
        at: the step, or the second, of each loss; above 0.
        loss: the loss there; what is not finite leaves a gap.
        excess: (step or second, excess as a share of the optimum, its standard error or None),
            where it is known; what is not finite or not above 0 leaves a gap.
        unit: what `at` counts: `step` or `seconds`.
        optimum: the loss that the exact denoiser has, where it is known.
        goal: a share of excess that is aimed at.
        title: in place of the style's own.

    Raises:
        ValueError: a place that is not above 0, or a goal; another unit; nothing to draw.
    """
    if unit not in ("step", "seconds"):
        raise ValueError(f"unit = {unit!r}: choose step or seconds")
    x, y = numbers(at), numbers(loss)
    check_lengths(len(x), loss=y)
    found = np.array([(a, s, e or 0.0) for a, s, e in excess or ()], float).reshape(-1, 3)
    if not (x > 0).all() or not (found[:, 0] > 0).all() or not (goal is None or goal > 0):
        raise ValueError(
            "steps, seconds and the goal must be above 0, to have a place on a logarithmic axis"
        )
    places, mean = _means(x, y)
    notes = [style.text("note", "trend")] if len(x) > len(places) else []
    notes += [style.text("note", "bars")] if found[:, 2].any() else []
    heights = [2.3, 2.1] if len(found) else [3.0]
    with style.applied(title or ""):
        words = title or style.text("title", "training_curve")
        height = 0.75 + 0.17 * len(notes) + sum(heights)
        figure = style.figure(7.0, height, words, tuple(notes), title or "")
        panels = figure.subplots(
            len(heights), sharex=True, squeeze=False, height_ratios=heights
        ).flat
        for axes in panels:
            axes.grid(True, axis="y")
        above, below = panels[0], panels[-1]
        _loss(above, (x, y), (places, mean), optimum, style)
        if len(found):
            _excess(below, found, goal, style)
        below.set_xscale("log")
        every = np.concatenate([x, found[:, 0]])
        room = (every.max() / every.min()) ** 0.015 if np.ptp(every) else 2.0
        below.set_xlim(every.min() / room, every.max() * room)
        _plain_ticks(below.xaxis, lambda value: f"{value:,.6g}")
        below.set_xlabel(style.text("axis", "training_step" if unit == "step" else "seconds"))
    return figure


def _loss(
    axes: Axes,
    every: tuple[np.ndarray, np.ndarray],
    mean: tuple[np.ndarray, np.ndarray],
    optimum: float | None,
    style: Style,
) -> None:
    line, y = style.line(0), every[1]
    if len(y) > len(mean[1]):
        axes.plot(*every, color=line["color"], alpha=0.3, lw=0.6)
    axes.plot(*mean, **line)
    axes.set_ylabel(style.text("axis", "loss"))
    seen = y[np.isfinite(y)]
    if len(seen) and 0 < 20 * seen.min() < seen.max():
        log_scale(axes)
    if optimum is None:
        return
    axes.axhline(optimum, color=style.colours.ink, ls=(0, (4, 3)), lw=1)
    if axes.get_yscale() == "linear":  # the words are under their line
        low, high = axes.get_ylim()
        axes.set_ylim(min(low, optimum - 0.16 * (high - optimum)), high)
    axes.annotate(
        style.text("note", "optimum", value=f"{optimum:.3g}"),
        (0, optimum),
        (4, -3),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        va="top",
        size=8.5,
        bbox={"boxstyle": "square,pad=0.15", "fc": style.colours.paper, "ec": "none"},
    )


def _excess(axes: Axes, found: np.ndarray, goal: float | None, style: Style) -> None:
    at, share, error = found[np.argsort(found[:, 0], kind="stable")].T
    share = np.where(np.isfinite(share) & (share > 0), share, np.nan)
    error = np.where(np.isfinite(share), np.nan_to_num(error), 0)
    axes.set_yscale("log")
    colour = style.line(1)["color"]
    axes.plot(at, share, color=colour, marker="o", markersize=4)
    axes.vlines(at, np.maximum(share - error, share / 2), share + error, color=colour, lw=1)
    axes.set_ylabel(style.text("axis", "excess_share"))
    if goal is not None:
        axes.axhline(goal, color=style.colours.ink, ls=(0, (1, 2)), lw=1.1)
        axes.annotate(
            style.text("note", "goal", value=_percent(goal)),
            (0, goal),
            (4, 3),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            size=8.5,
        )
    _plain_ticks(axes.yaxis, _percent)


def _plain_ticks(axis: Axis, write: Callable[[float], str]) -> None:
    """Plain numbers on a logarithmic axis: as many of each decade as there is room for."""
    low, high = axis.get_view_interval()
    digits = (1, 2, 5) if high < 300 * low else (1, 3) if high < 1e4 * low else (1,)
    axis.set_major_locator(LogLocator(subs=digits, numticks=9))
    axis.set_major_formatter(FuncFormatter(lambda value, _: write(value)))
    axis.set_minor_locator(NullLocator())


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%" if share > 1e-6 else f"{100 * share:.0e}%"


def _means(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means of y over places within a factor of one another, which no logarithmic axis tells."""
    finite = np.isfinite(y)
    order = np.argsort(x, kind="stable")
    x, y, finite = x[order], y[order], finite[order]
    if len(x) <= PLACES:
        places = x
    else:
        places = np.unique(x[np.searchsorted(x, np.geomspace(x[0], x[-1], PLACES) * (1 - 1e-9))])
    sums = np.concatenate([[0], np.cumsum(np.where(finite, y, 0))])
    counts = np.concatenate([[0], np.cumsum(finite)])
    first = np.searchsorted(x, places / NEAR)
    last = np.searchsorted(x, places * NEAR, "right")
    number = counts[last] - counts[first]
    total = sums[last] - sums[first]
    mean = np.divide(total, number, out=np.full(len(places), np.nan), where=number > 0)
    return places, mean
