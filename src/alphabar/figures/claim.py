"""What several schedules score, each in several ways: the study post's claim in one picture."""

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, Locator, LogLocator, MaxNLocator, NullLocator

from alphabar.figures.style import LIGHT, Style, StyledFigure, is_wide, plain

ROW = 0.3  # inches
PANEL = 3.6

# Ratio, the ends of its interval or None, and the ratio of the exact denoiser or None.
Marks = tuple[float, float | None, float | None, float | None]


def schedule_ratios(
    panels: Mapping[tuple[str, str], Mapping[str, Marks]],
    *,
    grows: Sequence[str] = ("linear", "quad", "sigmoid"),
    floor: float = 1.0,
    title: str | None = None,
    style: Style = LIGHT,
) -> StyledFigure:
    """Ratios with their intervals, a row for each schedule, a panel for each way and range.

    Args:
        panels: by (way, range), `plain` or `ours` and `post` or `noise`: for each schedule (ratio,
            low, high, exact), with None for what is not known. Ranges are below one another; the
            ways of a range beside one another, with the same schedules.
        grows: the schedules to be told apart by colour; the others are grey.
        floor: the ratio of true samples.
        title: in place of the style's own.

    Raises:
        ValueError: there is nothing to draw; a number is not above 0, and so has no place on a
            logarithmic axis; ways of a range that have other schedules, or a way that is missing.
    """
    ways, ranges = ([*dict.fromkeys(key[i] for key in panels)] for i in (0, 1))
    names = {r: [*next(p for (_, s), p in panels.items() if s == r)] for r in ranges}
    for way in ways:
        for range_ in ranges:
            if [*panels.get((way, range_), {})] != names[range_]:
                raise ValueError(
                    f"({way}, {range_}) has other schedules than the panel beside it, or is "
                    f"missing: every way needs {', '.join(names[range_])}"
                )
    every = [v for panel in panels.values() for marks in panel.values() for v in marks]
    seen = [v for v in every if v is not None]
    if not seen:
        raise ValueError("there is nothing to draw: give at least one schedule and its ratio")
    for v in (*seen, floor):
        if not 0 < v < math.inf:
            raise ValueError(f"{v}: a ratio must be above 0, to have a place on a logarithmic axis")
    low, high = min(*seen, floor), max(*seen, floor)
    margin = (high / low) ** 0.05 * 1.04
    heights = [ROW * (len(names[r]) + 0.4) for r in ranges]
    longest = max(sum(2 if is_wide(c) else 1 for c in name) for r in ranges for name in names[r])
    notes = (style.text("note", "schedule_ratios"),)
    written = "".join([title or "", *(name for r in ranges for name in names[r])])
    with style.applied(written):
        title = title or style.text("title", "schedule_ratios")
        width = 0.4 + 0.075 * longest + PANEL * len(ways)
        height = 1.35 + sum(heights) + 0.3 * len(ranges)
        figure = style.figure(width, height, title, notes, written)
        grid = figure.subplots(
            len(ranges), len(ways), sharex=True, squeeze=False, height_ratios=heights
        )
        for i, range_ in enumerate(ranges):
            for j, way in enumerate(ways):
                axes: Axes = grid[i, j]
                parts = style.text("way", way), style.text("range", range_)
                axes.set_title(", ".join(parts), loc="left")
                axes.set(xscale="log", xlim=(low / margin, high * margin))
                axes.axvline(floor, color=style.colours.ink, ls=(0, (6, 3)), lw=1.1, zorder=1.5)
                _rows(axes, panels[way, range_], grows, style)
                labels = [plain(name) for name in names[range_]] if j == 0 else []
                axes.set_yticks(range(len(names[range_])), labels or [""] * len(names[range_]))
        for axes in grid[-1]:
            axes.set_xlabel(style.text("axis", "ratio"))
    return figure


def _rows(axes: Axes, panel: Mapping[str, Marks], grows: Sequence[str], style: Style) -> None:
    """A dot, its bar, and the exact denoiser's diamond for each schedule, from the top."""
    for y, (name, (ratio, low, high, exact)) in enumerate(panel.items()):
        grown = [*grows].index(name) if name in grows else None
        colour = style.colours.muted if grown is None else style.line(grown)["color"]
        if low is not None and high is not None:
            axes.plot([low, high], [y, y], color=colour, lw=2.2, zorder=2)
        if exact is not None:
            paper = style.colours.paper
            axes.plot([exact], [y], "D", ms=5.5, mfc=paper, mec=colour, mew=1.3, zorder=2.5)
        axes.plot([ratio], [y], "o", ms=6, color=colour, zorder=3)
    axes.set_ylim(len(panel) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0, pad=8, labelcolor=style.colours.ink)
    axes.spines["left"].set_visible(False)
    axes.grid(True, axis="both")
    axes.xaxis.set_major_locator(_locator(*axes.get_xlim()))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def _locator(low: float, high: float) -> Locator:
    """Round numbers, about as many whatever the span of a logarithmic axis."""
    span = high / low
    if span < 3:
        return MaxNLocator(5)
    subs = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0) if span < 12 else (1.0, 2.0, 5.0)
    return LogLocator(subs=subs if span < 200 else (1.0,))
