"""What the exact denoiser of a finite set gives back: the set."""

import numpy as np
from matplotlib.axes import Axes

from alphabar.figures.cloud import Cloud, marker
from alphabar.figures.curves import log_scale
from alphabar.figures.panels import Frame, Numbers, View, number, numbers, read
from alphabar.figures.style import LIGHT, Style, StyledFigure

SIDE = 3.4  # inches of a panel
BINS = 40
DEPTH = 1e4  # times less than the greatest distance: nearer than that is as good as no distance


def memorisation(
    training: Frame,
    of_set: Frame,
    of_law: Frame | None = None,
    *,
    nearest_of_set: Numbers,
    nearest_of_law: Numbers | None = None,
    nearest_fresh: Numbers,
    title: str | None = None,
    style: Style = LIGHT,
) -> StyledFigure:
    """Samples of two exact denoisers beside the training points, and how near they come to them.

    Sampling with the exact denoiser of a finite set returns the set; with that of the law that
    the set was drawn from it gives new points. In the panels of samples a ring is a training
    point.

    Args:
        training: the training points, or pictures.
        of_set: samples by the exact denoiser of the training points.
        of_law: samples by the exact denoiser of the true law.
        nearest_of_set: the distance of each of these samples to the nearest training point.
        nearest_of_law: the same for of_law.
        nearest_fresh: the same for points drawn afresh from the true law.
        title: in place of the style's own.

    Raises:
        ValueError: only one of of_law and nearest_of_law, or distances that are negative or
            not finite, or none.
    """
    if (of_law is None) != (nearest_of_law is None):
        raise ValueError("of_law and nearest_of_law come together: give both or neither")
    given = {"training": training, "of_set": of_set, "of_law": of_law}
    arrays = {key: read(x) for key, x in given.items() if x is not None}
    distances = {
        key: _distances(f"nearest_{key}", d)
        for key, d in (("of_set", nearest_of_set), ("of_law", nearest_of_law))
        if d is not None
    }
    fresh = _distances("nearest_fresh", nearest_fresh)
    blue, orange, *_ = style.colours.lines
    colours = {"training": style.colours.muted, "of_set": orange, "of_law": blue}
    view = View(list(arrays.values()), style, room=0.5)
    is_plane = not view.is_pictures and view.d > 1
    near = np.quantile(fresh, 0.01)
    shares = {key: f"{(d < near).mean():.0%}" for key, d in distances.items()}
    notes = [style.text("note", "rings")] if is_plane else []
    notes.append(style.text("note", "copies_both" if of_law is not None else "copies", **shares))
    every = np.concatenate([fresh, *distances.values()])
    bins = _bins(every)
    if every.min() < bins[0]:
        notes.append(style.text("note", "nearer", value=f"${number(bins[0])}$"))
    notes += view.notes
    with style.applied(title or ""):
        side, width = SIDE * view.aspect, (SIDE + 0.1) * len(arrays)
        words = title or style.text("title", "memorisation")
        height = side + 2.5 + 0.17 * len(notes)
        figure = style.figure(width, height, words, tuple(notes), title or "")
        layout = figure.add_gridspec(2, len(arrays), height_ratios=[side, 1.6])
        panels = [figure.add_subplot(layout[0, i]) for i in range(len(arrays))]
        for axes, (key, array) in zip(panels, arrays.items(), strict=True):
            axes.set_title(style.text("panel", key, n=f"{len(array):,}"))
            if is_plane:
                _rings(axes, arrays["training"][:, :2], style)
            if is_plane and key == "training":
                view.place(axes)
            elif isinstance(artist := view.draw(axes, array, None), Cloud):
                artist.colours = style.rgb(colours[key])
        _histograms(figure.add_subplot(layout[1, :]), distances, fresh, bins, colours, style)
    return figure


def _distances(name: str, distances: Numbers) -> np.ndarray:
    array = numbers(distances)
    if not len(array) or not ((array >= 0) & np.isfinite(array)).all():
        raise ValueError(f"{name}: give at least one distance, all finite and none negative")
    return array


def _rings(axes: Axes, points: np.ndarray, style: Style) -> None:
    radius = 1.6 * marker(len(points), 72.0**2 * SIDE**2)[0]
    axes.plot(*points.T, "o", ms=2 * radius, mfc="none", mec=style.colours.muted, mew=0.6)


def _histograms(
    axes: Axes,
    distances: dict[str, np.ndarray],
    fresh: np.ndarray,
    bins: np.ndarray,
    colours: dict[str, str],
    style: Style,
) -> None:
    for key, d in distances.items():
        words = style.text("note", f"from_{key[3:]}")
        axes.stairs(_heights(d, bins), bins, label=words, color=colours[key], fill=True, alpha=0.75)
    words, ink = style.text("note", "fresh"), style.colours.ink
    axes.stairs(_heights(fresh, bins), bins, label=words, color=ink, lw=1.3, ls=(0, (3, 1.5)))
    log_scale(axes, "x")
    axes.set(xlim=bins[[0, -1]], ylim=(0, 1.35), yticks=[])
    axes.set_xlabel(style.text("axis", "nearest"))
    axes.set_ylabel(style.text("axis", "heights"))
    axes.legend(loc="upper left", ncols=3, frameon=False, fontsize=8.5, borderaxespad=0.1)


def _bins(distances: np.ndarray) -> np.ndarray:
    """Edges of bars of the same width on a logarithmic axis."""
    high = distances.max() or 1.0
    low = max(distances.min(initial=high, where=distances > 0), high / DEPTH)
    return np.geomspace(0.7 * low, 1.1 * high, BINS + 1)


def _heights(distances: np.ndarray, bins: np.ndarray) -> np.ndarray:
    """A histogram whose highest bar is 1; what is out of its range is in its first or last bar."""
    count = np.histogram(np.clip(distances, bins[0], bins[-1]), bins)[0]
    return count / count.max()
