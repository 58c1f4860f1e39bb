"""A process in panels: one moment after the other, on the same limits, with its t and ᾱ_t."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple, SupportsFloat, SupportsInt

import numpy as np
from matplotlib.axes import Axes

from alphabar.figures.curves import spec_names
from alphabar.figures.panels import (
    Frames,
    Hue,
    View,
    check_lengths,
    moment,
    number,
    read,
    read_hue,
)
from alphabar.figures.style import LIGHT, Style, StyledFigure, plain
from alphabar.schedule import Schedule

ACROSS = 10  # panels in a row; what is left goes to the next row


def strip(
    frames: Frames,
    t: Iterable[SupportsInt],
    alpha_bar: Iterable[SupportsFloat],
    hue: Hue | None = None,
    *,
    x_0_hat: Frames | None = None,
    columns: Sequence[str] | None = None,
    title: str | None = None,
    style: Style = LIGHT,
) -> StyledFigure:
    """The forward or the reverse process, panel by panel.

    A variance-exploding x_t grows with t until the data is a dot: hand in √ᾱ_t·x_t.

    Args:
        frames: x at each of the moments: points or pictures.
        t: the moments; if they descend, it is the reverse process.
        alpha_bar: ᾱ_t of each moment.
        hue: (N,) in [0, 1], the colour of each point in every panel.
        x_0_hat: what the network believes the data to be at each moment, for a second row.
        columns: names of the columns of points.
        title: in place of the style's own.

    Raises:
        ValueError: as many t, alpha_bar and x_0_hat as frames are needed.
    """
    x_t, ts, alpha_bars = (
        [read(x) for x in frames],
        [int(v) for v in t],
        list(map(float, alpha_bar)),
    )
    believed = None if x_0_hat is None else [read(x) for x in x_0_hat]
    check_lengths(len(x_t), t=ts, alpha_bar=alpha_bars, x_0_hat=believed)
    captions = [moment(*m) for m in zip(ts, alpha_bars, strict=True)]
    view = View(x_t + (believed or []), style, columns)

    hues, rows = read_hue(hue), []
    for part in parts(len(x_t)):
        label = style.text("row", "x_t") if believed else ""
        rows.append(Row(label, _panels(view, x_t[part], hues), captions[part]))
        if believed:
            label = style.text("row", "x_0_hat")
            rows.append(Row(label, _panels(view, believed[part], hues), []))
    notes = view.notes
    if believed:
        notes = (style.text("note", "x_0_hat"), *notes)
    direction = "reverse" if ts[0] > ts[-1] else "forward"
    return _rows_of(rows, view, hues, title or style.text("title", direction), notes)


def schedule_rows(
    frames: Iterable[Frames],
    t: Iterable[Iterable[SupportsInt]],
    schedules: Sequence[Schedule],
    names: Sequence[str] | None = None,
    hue: Hue | None = None,
    *,
    columns: Sequence[str] | None = None,
    title: str | None = None,
    style: Style = LIGHT,
) -> StyledFigure:
    """The same data under several schedules: a row for each, with the ᾱ_T that it ends at.

    Args:
        frames: for each schedule, x at each of its moments.
        t: for each schedule, its moments.
        schedules: the schedules, for their ᾱ_t.
        names: what the rows are called; the specs of the schedules if not given.
        hue: (N,) in [0, 1], the colour of each point in every panel.
        columns: names of the columns of points.
        title: in place of the style's own.

    Raises:
        ValueError: as many frames, t and names as schedules are needed.
    """
    arrays, moments = [[read(x) for x in row] for row in frames], [list(map(int, v)) for v in t]
    names = spec_names(schedules) if names is None else names
    check_lengths(len(schedules), frames=arrays, t=moments, names=names)
    view = View([x for row in arrays for x in row], style, columns)
    hues, rows = read_hue(hue), []
    for x_t, ts, schedule, name in zip(arrays, moments, schedules, names, strict=True):
        check_lengths(len(x_t), t=ts)
        alpha_bar = schedule.alpha_bar.tolist()
        end = rf"$\bar\alpha_{{{schedule.T}}} = {number(alpha_bar[-1])}$"
        label = plain(name).replace(":", "\n").replace(",", "\n") + "\n" + end
        captions = [moment(s, alpha_bar[s]) for s in ts]
        rows.append(Row(label, _panels(view, x_t, hues), captions))
    title = title or style.text("title", "schedule_rows")
    return _rows_of(rows, view, hues, title, view.notes)


class Row(NamedTuple):
    """A row of panels: what it is called, what draws each, what stands over them."""

    label: str
    panels: Sequence[Callable[[Axes], object]]
    captions: Sequence[str]


def grid(
    rows: Sequence[Row],
    title: str,
    notes: tuple[str, ...],
    style: Style,
    *,
    aspect: float = 1.0,
    gap: float = 0.02,
    beside: float = 0.0,
) -> StyledFigure:
    """Rows of panels of one size, with `beside` inches free to the right of them."""
    across = max(len(row.panels) for row in rows)
    side = float(np.clip(12.4 / across, 1.24, 2.6))
    lines = [line for row in rows for line in row.label.split("\n") if "$" not in line]
    margin = 0.3 + 0.065 * max(map(len, lines), default=0)
    height = 0.34 + (0.1 + 0.17 * len(notes) if notes else 0)
    height += sum(side * aspect + 0.14 + 0.36 * bool(row.captions) for row in rows)
    written = "".join([title, *notes, *(row.label for row in rows)])
    with style.applied(written):
        width = max(across * (side + 0.08) + margin + beside, 4.4)
        figure = style.figure(width, height, title, notes, written, gap=gap)
        grid = figure.subplots(len(rows), across, squeeze=False)
        for row, panels in zip(rows, grid, strict=True):
            panels[0].set_ylabel(row.label, rotation=0, ha="right", va="center", fontsize=8.5)
            for axes in panels[len(row.panels) :]:
                axes.set_axis_off()
            for axes, draw in zip(panels, row.panels, strict=False):
                draw(axes)
            for axes, caption in zip(panels, row.captions, strict=False):
                axes.set_title(caption)
    return figure


def parts(n: int, most: int = ACROSS) -> Iterator[slice]:
    """Cut n panels into rows of about the same length, none longer than `most`."""
    across = -(-n // -(-n // most))
    return (slice(i, i + across) for i in range(0, n, across))


def _rows_of(
    rows: Sequence[Row], view: View, hues: np.ndarray | None, title: str, notes: tuple[str, ...]
) -> StyledFigure:
    if hues is not None and not view.is_pictures:
        notes = (view.style.text("note", "hue"), *notes)
    gap = 0.08 if view.is_pictures else 0.02
    return grid(rows, title, notes, view.style, aspect=view.aspect, gap=gap)


def _panels(
    view: View, arrays: Sequence[np.ndarray], hues: np.ndarray | None
) -> list[Callable[[Axes], object]]:
    return [partial(view.draw, array=array, hue=hues) for array in arrays]
