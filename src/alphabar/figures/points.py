"""The data, and samples beside it."""

from collections.abc import Sequence

from alphabar.figures.panels import Frame, Hue, View, number, read, read_hue
from alphabar.figures.style import LIGHT, Style, StyledFigure


def data_cloud(
    x: Frame,
    hue: Hue | None = None,
    *,
    columns: Sequence[str] | None = None,
    title: str | None = None,
    style: Style = LIGHT,
) -> StyledFigure:
    """The data: points (of more than two columns the first two), or the first pictures.

    Args:
        x: points (N,) or (N, d), or pictures (N, C, H, W) with pixels from -1 to 1.
        hue: (N,) in [0, 1], the colour of each point.
        columns: names of the columns of points.
        title: in place of the style's own.
    """
    array = read(x)
    view = View([array], style, columns, room=0.5)
    written = "".join([title or "", *view.columns])
    with style.applied(written):
        title = title or style.text("title", "data")
        figure = style.figure(5.2, 0.6 + 4.8 * view.aspect, title, written=written)
        axes = figure.subplots()
        view.draw(axes, array, read_hue(hue))
        view.label(axes)
    return figure


def samples_beside_data(
    data: Frame,
    samples: Frame,
    hue: Hue | None = None,
    *,
    samples_hue: Hue | None = None,
    ratio: float | None = None,
    columns: Sequence[str] | None = None,
    title: str | None = None,
    style: Style = LIGHT,
) -> StyledFigure:
    """Samples of a model beside the data, on the same limits.

    Args:
        data: points or pictures.
        samples: the same kind of thing; there may be more or fewer.
        hue: (N,) in [0, 1], the colour of each data point.
        samples_hue: the same for the samples; without it they have one colour.
        ratio: the score, `ratio` of sliced_w2, written under the panels.
        columns: names of the columns of points.
        title: in place of the style's own.
    """
    arrays = [read(data), read(samples)]
    view = View(arrays, style, columns, room=0.5)
    notes = () if ratio is None else (style.text("note", "ratio", ratio=number(ratio)),)
    written = "".join([title or "", *view.columns])
    with style.applied(written):
        title = title or style.text("title", "samples")
        figure = style.figure(9.0, 0.9 + 4.3 * view.aspect, title, notes, written, gap=0.06)
        panels = figure.subplots(1, 2)
        for axes, key, array, colour in zip(
            panels, ("data", "samples"), arrays, (hue, samples_hue), strict=True
        ):
            view.draw(axes, array, read_hue(colour))
            view.label(axes)
            axes.set_title(style.text("panel", key, n=f"{len(array):,}"))
        panels[1].set_ylabel("")
        panels[1].tick_params(labelleft=False)
    return figure
