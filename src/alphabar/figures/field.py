"""What the noise makes of a density, and which way leads back.

    ∇log p_t(x) = −E[ε | x_t = x] / σ_t        (the score; √ᾱ_t·x̂_0 = x + σ_t²·∇log p_t(x))

Densities differ by powers of ten between a thin curve and a round cloud, so what is shaded is not
the density but its smallest regions that hold given shares of the probability.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple, SupportsFloat, SupportsInt

import numpy as np
from jaxtyping import Shaped
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from torch import Tensor

from alphabar.figures.panels import Frames, check_lengths, frame, moment, numbers, read
from alphabar.figures.strip import Row, grid, parts
from alphabar.figures.style import LIGHT, Style, StyledFigure

# Numbers on a grid, or vectors on one.
Grid = Shaped[np.ndarray, "..."] | Shaped[Tensor, "..."]

SHARES = (0.99, 0.9, 0.6, 0.3)  # of the probability, in regions each inside the one before
TINTS = (0.1, 0.24, 0.42, 0.6)  # how far from the paper to the line's colour
ACROSS = 5
BELOW = 40.0  # nats under the outermost edge: further down a density of 0 may pass for this one


class Plane(NamedTuple):
    """A grid in the plane: where its columns and rows lie, and where its arrows do."""

    x: np.ndarray  # (W,)
    y: np.ndarray  # (H,)
    at: np.ndarray  # (N, 2)


def density_and_score(
    log_density: Iterable[Grid],
    score: Iterable[Grid],
    t: Iterable[SupportsInt],
    alpha_bar: Iterable[SupportsFloat],
    *,
    x: Grid,
    y: Grid,
    at: Grid,
    points: Frames | None = None,
    title: str | None = None,
    style: Style = LIGHT,
) -> StyledFigure:
    """The exact density and score at several noise levels, panel by panel, on the same limits.

    Everything is in the variance-preserving scale, x_t = √ᾱ_t·x_0 + √(1−ᾱ_t)·ε. An arrow is at
    its longest, the distance between two arrows, where σ_t·|∇log p_t| is large, and half as long
    where it is 1; at ᾱ_t = 1 it has no length.

    Args:
        log_density: for each level log p_t (H, W) on the grid, up to a constant; -inf where p_t
            is 0.
        score: for each level ∇log p_t (…, 2) where the arrows are; one that is not finite is left
            out.
        t: the levels.
        alpha_bar: ᾱ_t of each level.
        x: (W,) where the grid's columns lie, ascending.
        y: (H,) where the grid's rows lie, ascending.
        at: (…, 2) where the arrows lie, such as a coarser grid.
        points: for each level points (N, 2) to lay over it.
        title: in place of the style's own.

    Raises:
        ValueError: there are not as many of each as of log_density, their shapes do not fit, or a
            log density is nan, inf or nowhere finite.
    """
    densities, scores = list(map(numbers, log_density)), [_flat("score", v) for v in score]
    ts, alpha_bars = list(map(int, t)), list(map(float, alpha_bar))
    clouds = [None] * len(ts) if points is None else [read(p) for p in points]
    check_lengths(len(densities), score=scores, t=ts, alpha_bar=alpha_bars, points=clouds)
    plane = Plane(numbers(x), numbers(y), _flat("at", at))
    for log_p in densities:
        _check_density(log_p, plane)
    for vectors in scores:
        if len(vectors) != len(plane.at):
            raise ValueError(f"{len(vectors)} vectors of score for {len(plane.at)} places in at")

    fields: list[Callable[[Axes], object]] = [
        partial(_field, log_p=p, arrows=strokes(s, a, plane), points=c, plane=plane, style=style)
        for p, s, a, c in zip(densities, scores, alpha_bars, clouds, strict=True)
    ]
    captions = [moment(*m) for m in zip(ts, alpha_bars, strict=True)]
    rows = [Row("", fields[part], captions[part]) for part in parts(len(fields), ACROSS)]
    keys = ["score"] + ["no_noise"] * (1 in alpha_bars)
    figure = grid(
        rows,
        title or style.text("title", "density_and_score"),
        tuple(style.text("note", key) for key in keys),
        style,
        aspect=float(np.ptp(plane.y) / np.ptp(plane.x)),
        beside=0.9,
    )
    with style.applied(figure.written):
        figure.legend(
            [Patch(fc=c, ec=style.colours.lines[0], lw=0.6) for c in tints(style)],
            [f"{share:.0%}" for share in SHARES],
            title=style.text("panel", "holds"),
            loc="outside right upper",
            frameon=False,
            reverse=True,
            fontsize=8.5,
            title_fontsize=8.5,
        )
    return figure


def edges(log_p: np.ndarray, plane: Plane) -> np.ndarray:
    """log p where the smallest regions end that hold SHARES of what is on the grid; ascending."""
    order = np.argsort(log_p, axis=None)[::-1]
    values = log_p.ravel()[order]
    area = np.outer(np.gradient(plane.y), np.gradient(plane.x)).ravel()[order]
    mass = np.cumsum(np.exp(values - values[0]) * area)
    levels = np.interp(SHARES, mass / mass[-1], values)
    # Where a density is flat, or in one cell, regions coincide: contours must not.
    slack = 1e-6 * np.arange(len(levels), 0, -1)
    return np.minimum(levels, values[0]) - slack


def strokes(score: np.ndarray, alpha_bar: float, plane: Plane) -> np.ndarray:
    """The arrows (N, 2): along the score, none longer than the distance between two."""
    noise = np.sqrt(max(0, 1 - alpha_bar)) * np.where(np.isfinite(score), score, 0)
    spacing = np.sqrt(np.ptp(plane.x) * np.ptp(plane.y) / len(plane.at))
    return 0.95 * spacing * noise / (1 + np.linalg.norm(noise, axis=1, keepdims=True))


def tints(style: Style) -> list[np.ndarray]:
    """The regions' colours, from the outermost to the innermost."""
    paper, full = style.rgb(style.colours.paper)[0], style.rgb(style.colours.lines[0])[0]
    return [(1 - tint) * paper + tint * full for tint in TINTS]


def _flat(name: str, vectors: Grid) -> np.ndarray:
    """Vectors (…, 2) as (N, 2)."""
    array = numbers(vectors)
    if array.shape[-1:] != (2,):
        raise ValueError(f"{name} of shape {array.shape}: give vectors in the plane, (…, 2)")
    return array.reshape(-1, 2)


def _check_density(log_p: np.ndarray, plane: Plane) -> None:
    shape = len(plane.y), len(plane.x)
    if not all((np.diff(axis) > 0).all() for axis in (plane.x, plane.y)):
        raise ValueError("x or y does not ascend: sort it, and the grid with it")
    if log_p.shape != shape or min(shape) < 2:
        raise ValueError(
            f"log_density of shape {log_p.shape} for {shape[0]} y and {shape[1]} x: give a row "
            "for each y and a column for each x, at least 2 of each"
        )
    if not (log_p < np.inf).all() or not np.isfinite(log_p).any():
        raise ValueError(
            "log_density is nan, inf or nowhere finite: a set of points has no density at "
            "alpha_bar = 1, so begin at a level with noise"
        )


def _field(
    axes: Axes,
    log_p: np.ndarray,
    arrows: np.ndarray,
    points: np.ndarray | None,
    plane: Plane,
    style: Style,
) -> None:
    _place(axes, plane, style)
    levels = edges(log_p, plane)
    log_p = np.maximum(log_p, levels[0] - BELOW)
    axes.contourf(plane.x, plane.y, log_p, [*levels, np.inf], colors=tints(style), zorder=0)
    if (seen := levels[levels > log_p.min()]).size:
        line = style.colours.lines[0]
        axes.contour(plane.x, plane.y, log_p, seen, colors=line, linewidths=0.5, linestyles="-")
    if points is not None:
        colour, paper = style.colours.lines[1], style.colours.paper
        axes.plot(*points[:, :2].T, "o", ms=3.2, color=colour, mec=paper, mew=0.4)
    some = np.linalg.norm(arrows, axis=1) > 0
    axes.quiver(
        *plane.at[some].T,
        *arrows[some].T,
        color=style.colours.ink,
        angles="xy",
        scale_units="xy",
        scale=1,
        pivot="mid",
        units="inches",
        width=0.01,
        headwidth=4,
        headlength=4.5,
        headaxislength=4,
        minshaft=1.5,
        zorder=3,
    )


def _place(axes: Axes, plane: Plane, style: Style) -> None:
    frame(axes, style)
    axes.set(xlim=plane.x[[0, -1]], ylim=plane.y[[0, -1]])
    axes.set_box_aspect(float(np.ptp(plane.y) / np.ptp(plane.x)))
