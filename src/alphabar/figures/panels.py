"""What a panel shows: points in the plane, points on a line, or pictures, all in one frame.

A `View` looks at everything that a figure shows before anything is drawn, so that all its panels
share the same limits and a cloud that moves or grows is seen to move or grow.
"""

from collections.abc import Iterable, Sequence, Sized

import numpy as np
from jaxtyping import Shaped
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from alphabar.figures.cloud import Cloud
from alphabar.figures.style import Style, plain

# x of one moment: points (N,) or (N, d), or pictures (N, C, H, W) with pixels from -1 to 1.
Frame = Shaped[np.ndarray, "..."] | Shaped[Tensor, "..."]
# One number after the other.
Numbers = Shaped[np.ndarray, " _"] | Shaped[Tensor, " _"]
# A number from 0 to 1 for each point.
Hue = Numbers
# Several moments of the same x, one after the other.
Frames = Iterable[Frame]

BINS = 72
PICTURES = 25  # of a batch; more would be too small to see in a panel


class View:
    """How these arrays are drawn: in one way, on one set of limits.

    Args:
        arrays: all that the figure shows, as `read` returns it.
        columns: names of the columns of points; x_1, x_2, … if not given.
        room: how far beyond the middle 99 % of the values the limits may go to hold them all, as
            a share of their span; what is further out is cut off.
    """

    def __init__(
        self,
        arrays: Sequence[np.ndarray],
        style: Style,
        columns: Sequence[str] | None = None,
        room: float = 0.08,
    ) -> None:
        self.style = style
        shapes = {a.shape[1:] for a in arrays}
        if len(shapes) != 1:
            raise ValueError(
                f"items of shapes {sorted(shapes)}: all that is drawn in one figure has one shape"
            )
        self.shape = shapes.pop()
        self.is_pictures = len(self.shape) == 3
        self.d = int(np.prod(self.shape))
        if columns is not None and len(columns) != self.d:
            raise ValueError(f"{len(columns)} column names for {self.d} columns")
        self.columns = (
            [plain(c) for c in columns]
            if columns is not None
            else [f"$x_{{{i + 1}}}$" for i in range(2)]
        )
        self.aspect = 1.0  # height of a panel over its width
        if self.is_pictures:
            page = mosaic(arrays[0])
            self.aspect = float(np.clip(page.shape[0] / page.shape[1], 0.3, 3))
            return
        if self.d == 1:
            self.x_limits = limits([a[:, 0] for a in arrays], room)
            self.edges = np.linspace(*self.x_limits, BINS + 1)
            tops = [stack(a[:, 0], self.edges)[:, 1] for a in arrays]
            top = max((t.max() for t in tops if len(t)), default=1.0)
            self.y_limits = (0.0, 1.08 * float(top) if top > 0 else 1.0)
        else:
            self.x_limits, self.y_limits = square(
                limits([a[:, 0] for a in arrays], room), limits([a[:, 1] for a in arrays], room)
            )

    @property
    def notes(self) -> tuple[str, ...]:
        """What a figure without axis labels has to say about the columns."""
        if self.is_pictures or self.d <= 2:
            return ()
        x, y = self.columns[:2]
        return (self.style.text("note", "columns", x=x, y=y, d=self.d),)

    def place(self, axes: Axes) -> None:
        """Give empty axes their frame and limits."""
        frame(axes, self.style)
        if self.is_pictures:
            axes.spines[:].set_visible(False)
        else:
            axes.set_box_aspect(1)
            axes.set(xlim=self.x_limits, ylim=self.y_limits)

    def draw(self, axes: Axes, array: np.ndarray, hue: np.ndarray | None) -> Artist:
        """Draw on empty axes; the artist can be handed to `move`."""
        self.place(axes)
        if self.is_pictures:
            return axes.imshow(mosaic(array), interpolation_stage="rgba")
        cloud = Cloud(self._plane(array), self._colours(len(array), hue))
        axes.add_artist(cloud)
        return cloud

    def move(self, artist: Artist, array: np.ndarray) -> None:
        """Show other values of the same items."""
        if isinstance(artist, AxesImage):
            artist.set_data(mosaic(array))
        elif isinstance(artist, Cloud):
            artist.points = self._plane(array)

    def label(self, axes: Axes) -> None:
        """Give axes with points their ticks and the names of the columns."""
        if self.is_pictures:
            return
        axes.spines[:].set_color(self.style.colours.muted)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines["left"].set_visible(self.d > 1)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel(self.columns[0])
        if self.d > 1:
            axes.yaxis.set_major_locator(MaxNLocator(5))
            axes.set_ylabel(self.columns[1])

    def _plane(self, array: np.ndarray) -> np.ndarray:
        return stack(array[:, 0], self.edges) if self.d == 1 else array[:, :2]

    def _colours(self, n: int, hue: np.ndarray | None) -> np.ndarray:
        if hue is None:
            return self.style.rgb(self.style.colours.lines[0])
        if len(hue) != n:
            raise ValueError(f"{len(hue)} hues for {n} points: give one for each point")
        return self.style.hues(hue)


def frame(axes: Axes, style: Style) -> None:
    """A panel without ticks, in a faint frame."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(True)
    axes.spines[:].set_color(style.colours.faint)


def read(x: Frame) -> np.ndarray:
    """Points as (N, d) or pictures as (N, C, H, W), in float64, from any device and dtype."""
    array = numbers(x)
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim not in (2, 4) or 0 in array.shape:
        raise ValueError(
            f"x of shape {array.shape}: give points (N,) or (N, d) or pictures (N, C, H, W), "
            "at least one"
        )
    if array.ndim == 4 and array.shape[1] not in (1, 3):
        raise ValueError(
            f"pictures with {array.shape[1]} channels: 1 (grey) or 3 (colour) are drawn"
        )
    return array


def read_hue(hue: Hue | None) -> np.ndarray | None:
    """Hues (N,), each in [0, 1]."""
    if hue is None:
        return None
    array = numbers(hue)
    if array.ndim != 1 or not ((array >= 0) & (array <= 1)).all():
        raise ValueError(f"hue of shape {array.shape}: give one number from 0 to 1 for each point")
    return array


def check_lengths(n: int, **given: Sized | None) -> None:
    """Refuse what does not come n times.

    Raises:
        ValueError: naming what was given in another number.
    """
    for name, values in given.items():
        if values is not None and len(values) != n:
            raise ValueError(f"{len(values)} {name} for {n}: give as many of each")
    if n < 1:
        raise ValueError("there is nothing to draw: give at least one")


def numbers(x: Shaped[np.ndarray, "..."] | Shaped[Tensor, "..."]) -> np.ndarray:
    """As an array in float64, from any device and dtype."""
    return np.asarray(x.detach().cpu().double() if isinstance(x, Tensor) else x, float)


def limits(values: Sequence[np.ndarray], room: float) -> tuple[float, float]:
    """Limits that hold all the values, but for the odd one far out."""
    ends = []
    for v in values:
        v = v[np.isfinite(v)]
        if len(v):
            low, high = np.quantile(v, [0.005, 0.995])
            reach = room * (high - low)
            ends += [max(v.min(), low - reach), min(v.max(), high + reach)]
    low, high = (min(ends), max(ends)) if ends else (-1.0, 1.0)
    margin = 0.05 * (high - low) or max(0.5, 1e-6 * abs(low))  # all values may be the same
    return float(low - margin), float(high + margin)


def square(
    x: tuple[float, float], y: tuple[float, float]
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Limits of the same length around the same centres."""
    half = max(x[1] - x[0], y[1] - y[0]) / 2
    return ((x[0] + x[1]) / 2 - half, (x[0] + x[1]) / 2 + half), (
        (y[0] + y[1]) / 2 - half,
        (y[0] + y[1]) / 2 + half,
    )


def stack(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Points (N, 2) that fill a histogram: each at its value, piled up in its bin.

    The height is a density, so it can be compared between sets of different sizes.
    """
    bins = np.searchsorted(edges, values, side="right") - 1
    outside = (bins < 0) | (bins >= len(edges) - 1) | ~np.isfinite(values)
    order = np.argsort(bins, kind="stable")
    first = np.searchsorted(bins[order], bins[order])
    rank = np.empty(len(values))
    rank[order] = np.arange(len(values)) - first
    height = (rank + 0.5) / (len(values) * (edges[1] - edges[0]))
    return np.stack([values, np.where(outside, np.nan, height)], axis=1)


def mosaic(pictures: np.ndarray) -> np.ndarray:
    """The first pictures of a batch side by side, RGBA (H, W, 4), with clear gaps."""
    pictures = pictures[:PICTURES]
    n, _, height, width = pictures.shape
    columns = int(np.ceil(np.sqrt(n)))
    rows = -(-n // columns)
    gap = max(1, round(0.06 * width)) if n > 1 else 0
    page = np.zeros((rows * (height + gap) - gap, columns * (width + gap) - gap, 4))
    shown = np.clip(np.nan_to_num(pictures) / 2 + 0.5, 0, 1).transpose(0, 2, 3, 1)
    for i, picture in enumerate(shown):
        y, x = (i // columns) * (height + gap), (i % columns) * (width + gap)
        page[y : y + height, x : x + width] = np.concatenate(
            [np.broadcast_to(picture, (height, width, 3)), np.ones((height, width, 1))], axis=2
        )
    return page


def moment(t: int, alpha_bar: float) -> str:
    """What stands over a panel: its t and its ᾱ_t."""
    return f"$t = {t}$\n$\\bar\\alpha_t = {number(alpha_bar)}$"


def number(value: float) -> str:
    """Three digits, as a formula; near 1 as many as it takes to differ from 1."""
    if value == 0 or value == 1:
        return f"{value:.0f}"
    if 0.9995 <= value < 1:
        return f"{value:.{min(6, int(np.ceil(-np.log10(1 - value) - 1e-6)))}f}"
    if 0.001 <= abs(value) < 1000:
        return f"{value:#.3g}".rstrip(".")
    mantissa, exponent = f"{value:.1e}".split("e")
    return rf"{mantissa} \times 10^{{{int(exponent)}}}"
