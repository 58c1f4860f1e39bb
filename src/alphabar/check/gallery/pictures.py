"""The pictures of the gallery: right and wrong, on the same limits."""

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from alphabar.check.gallery.seen import Clouds, Lines
from alphabar.figures.curves import log_scale
from alphabar.figures.panels import View, read, read_hue
from alphabar.figures.style import LIGHT, Style, StyledFigure, plain


def right_beside_wrong(drawn: Clouds | Lines, title: str, style: Style = LIGHT) -> StyledFigure:
    """Two clouds side by side, or two lines in one panel."""
    if isinstance(drawn, Clouds):
        return clouds(drawn, title, style)
    return lines(drawn, title, style)


def clouds(drawn: Clouds, title: str, style: Style = LIGHT) -> StyledFigure:
    """Points of the right code beside points of the wrong code."""
    arrays = [read(points) for points in drawn.both]
    # Where one runs away, the other is to be seen still.
    view = View([_within(arrays[1], arrays[0]), arrays[0]], style, room=0.3)
    hue = read_hue(drawn.hue)
    with style.applied(title):
        figure = style.figure(7.2, 4.0, plain(title), gap=0.05)
        for axes, name, array in zip(
            figure.subplots(1, 2), ("right", "wrong"), arrays, strict=True
        ):
            view.draw(axes, array, hue)
            view.label(axes)
            axes.set(xlabel="", ylabel="")
            axes.set_title(name)
            _say_what_is_missing(axes, array, style)
    return figure


def lines(drawn: Lines, title: str, style: Style = LIGHT) -> StyledFigure:
    """What the right code gives, and the wrong one, over the same x."""
    x = np.asarray(drawn.x, float)
    with style.applied(title):
        figure = style.figure(7.2, 3.4, plain(title))
        axes = figure.subplots()
        dots: dict[str, Any] = {"marker": "o", "markersize": 4} if len(x) <= 40 else {}
        for i, (name, y) in enumerate(zip(("right", "wrong"), drawn.both, strict=True)):
            axes.plot(x, np.asarray(y, float), label=name, **style.line(i), **dots)
            for gap in x[~np.isfinite(np.asarray(y, float))]:
                axes.axvline(gap, **style.line(i), lw=0.9)
                where: dict[str, Any] = {
                    "xycoords": ("data", "axes fraction"),
                    "textcoords": "offset points",
                }
                look: dict[str, Any] = {"ha": "right", "size": 8, "color": style.line(i)["color"]}
                axes.annotate(f"{name}: not finite", (gap, 0.9), (-4, 0), **where, **look)
        for axis in drawn.logarithmic:
            log_scale(axes, "x" if axis == "x" else "y")
        if "x" in drawn.logarithmic:
            axes.set_xticks(x, [f"{value:g}" for value in x])
            axes.minorticks_off()
        axes.set(xlabel=drawn.across, ylabel=drawn.up)
        axes.legend(frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1, 0.99))
    return figure


def _within(array: np.ndarray, of: np.ndarray) -> np.ndarray:
    """The points not further out than three times the others' reach."""
    reach = 3 * np.abs(of[np.isfinite(of).all(1)]).max()
    kept = array[(np.abs(array) <= reach).all(1)]
    return kept if len(kept) else of


def _say_what_is_missing(axes: Axes, array: np.ndarray, style: Style) -> None:
    (low, high), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    finite = np.isfinite(array).all(1)
    x, y = array.T
    inside = finite & (x >= low) & (x <= high) & (y >= bottom) & (y <= top)
    away, lost = (finite & ~inside).mean(), 1 - finite.mean()
    said = [
        f"{math.floor(100 * share)} % {words}"
        for share, words in ((lost, "not finite"), (away, "further out"))
        if share >= 0.02
    ]
    if said:
        axes.text(
            0.03,
            0.97,
            ", ".join(said),
            transform=axes.transAxes,
            va="top",
            color=style.colours.muted,
        )
