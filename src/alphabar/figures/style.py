"""One style for every figure: light or dark, English or Korean, on screen and in print.

A `Style` draws with matplotlib's defaults plus its own settings, whatever the user has set, and
leaves the user's settings as they were.
"""

import io
import re
import threading
import unicodedata
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import Any, Literal, NamedTuple

import matplotlib.style
import numpy as np
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure

from alphabar.fonts import find_font
from alphabar.locale import texts

DPI = 110

# From dark blue to light gold: lightness rises all the way, so the order survives a grey print
# and every kind of colour vision. Each theme takes the part that stands out from its paper.
HUES = LinearSegmentedColormap.from_list(
    "alphabar", ["#14285f", "#3f3a94", "#8046a6", "#c9558f", "#f07a68", "#f7a955", "#f8dc7c"]
)


class Theme(NamedTuple):
    """The colours of a theme."""

    paper: str
    ink: str
    muted: str
    faint: str
    hues: tuple[float, float]  # the part of HUES that is used
    # At least 20 apart in CIELAB for any two, also for readers who lack a kind of cone.
    lines: tuple[str, ...]


THEMES: dict[Literal["light", "dark"], Theme] = {
    "light": Theme(
        paper="#ffffff",
        ink="#1b1f24",
        muted="#5a6472",
        faint="#dfe3e8",
        hues=(0.0, 0.84),
        lines=("#254ada", "#b5530c", "#038251", "#a05988", "#3baff1", "#dd9800", "#1b1f24"),
    ),
    "dark": Theme(
        paper="#14181f",
        ink="#e8eaed",
        muted="#9ba6b4",
        faint="#323a46",
        hues=(0.26, 1.0),
        lines=("#7ebdff", "#e16926", "#1de868", "#da8cb3", "#677ede", "#f6da39", "#e8eaed"),
    ),
}
# Seven colours and four dashes have no common factor: 28 lines that all differ, and neighbours
# differ in both.
DASHES = ("-", (0, (6, 1.6)), (0, (1.2, 1.2)), (0, (6, 1.6, 1.2, 1.6)))

# matplotlib's settings belong to the whole process; two threads must not restore each other's.
_SETTINGS = threading.RLock()


@dataclass(frozen=True)
class Style:
    """How figures look and which language they speak.

    Args:
        theme: `light` or `dark`.
        lang: `en` or `ko`. Where no font on this machine has Hangul, it becomes `en` and one
            warning a process says so.

    Raises:
        ValueError: an unknown theme or language.
    """

    theme: Literal["light", "dark"] = "light"
    lang: str = "en"

    def __post_init__(self) -> None:
        if self.theme not in THEMES:
            raise ValueError(f"theme = {self.theme!r}: choose {' or '.join(THEMES)}")
        texts(self.lang, "figures")
        if self.lang == "ko" and not korean_family():
            object.__setattr__(self, "lang", "en")

    @property
    def colours(self) -> Theme:
        """The colours of the theme."""
        return THEMES[self.theme]

    def text(self, group: str, key: str, **values: object) -> str:
        """A text of `locale/<lang>/figures.toml`, filled in."""
        text: str = texts(self.lang, "figures")[group][key]
        for name, value in values.items():  # not str.format: formulas have braces of their own
            text = text.replace(f"{{{name}}}", str(value))
        return text

    def hues(self, hue: np.ndarray) -> np.ndarray:
        """Colours (N, 3) for hues in [0, 1]."""
        low, high = self.colours.hues
        return HUES(low + (high - low) * np.asarray(hue, float))[:, :3]

    def rgb(self, colour: str) -> np.ndarray:
        """A colour as (1, 3)."""
        return np.array([to_rgb(colour)])

    def line(self, i: int) -> dict[str, Any]:
        """Colour and dash of the i-th line among many."""
        colours = self.colours.lines
        return {"color": colours[i % len(colours)], "linestyle": DASHES[i % len(DASHES)]}

    def settings(self, written: str = "") -> dict[str, Any]:
        """matplotlib's settings, with fonts that can write `written` as well."""
        c = self.colours
        families = [korean_family(), "DejaVu Sans"] if self.lang == "ko" else ["DejaVu Sans"]
        families += [family] if (family := _family(written)) else []
        return {
            "font.family": list(dict.fromkeys(families)),
            "mathtext.fontset": "dejavusans",
            "font.size": 9,
            "axes.titlesize": 9,
            "axes.labelsize": 9,
            "xtick.labelsize": 8,
            "ytick.labelsize": 8,
            "figure.titlesize": 12,
            "figure.dpi": DPI,
            "savefig.dpi": DPI,
            "figure.facecolor": c.paper,
            "axes.facecolor": c.paper,
            "text.color": c.ink,
            "axes.titlecolor": c.ink,
            "axes.labelcolor": c.ink,
            "axes.edgecolor": c.muted,
            "xtick.color": c.muted,
            "ytick.color": c.muted,
            "axes.linewidth": 0.8,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": False,
            "grid.color": c.faint,
            "grid.linewidth": 0.8,
            "axes.axisbelow": True,
            "lines.linewidth": 1.8,
            "lines.solid_capstyle": "round",
        }

    @contextmanager
    def applied(self, written: str = "") -> Iterator[None]:
        """Draw with this style and nothing of the user's own settings."""
        with _SETTINGS, matplotlib.style.context(["default", self.settings(written)]):
            yield

    def figure(
        self,
        width: float,
        height: float,
        title: str,
        notes: tuple[str, ...] = (),
        written: str = "",
        gap: float = 0.02,
    ) -> "StyledFigure":
        """An empty figure in inches, with its title and the notes under it.

        Call it, and add what is drawn, inside `applied`. `gap` is the share of the figure's width
        that stays free between columns of panels.
        """
        # An even number of whole pixels: half ones leave a seam, and video needs even.
        width, height = (2 * round(v * DPI / 2) / DPI for v in (width, height))
        figure = StyledFigure(self, width, height, written)
        figure.set_layout_engine("constrained", h_pad=0.07, w_pad=0.04, wspace=gap)
        left = 0.05 / width  # where the panels begin
        figure.suptitle(fold(title, width, 12), x=left, ha="left")
        if notes:
            text = "\n".join(fold(note, width, 9) for note in notes)
            look = {"size": 9, "linespacing": 1.35, "color": self.colours.muted}
            figure.supxlabel(text, x=left, ha="left", **look)
        return figure


LIGHT = Style()


class StyledFigure(Figure):
    """A matplotlib Figure that is drawn in its style wherever and whenever it is drawn.

    matplotlib makes some parts (tick labels) while it draws, from the settings of that moment:
    without this, a user's own settings would reach into the figure.
    """

    def __init__(self, style: Style, width: float, height: float, written: str = "") -> None:
        self.style, self.written = style, written
        super().__init__(figsize=(width, height))
        self._agg = FigureCanvasAgg(self)

    def pixels(self) -> np.ndarray:
        """The figure as it looks on screen, RGB (H, W, 3), uint8."""
        self._agg.draw()  # type: ignore[no-untyped-call]
        rgba = self._agg.buffer_rgba()  # type: ignore[no-untyped-call]
        return np.ascontiguousarray(np.asarray(rgba)[:, :, :3])

    def draw(self, renderer: Any) -> None:
        """Draw in the figure's own style."""
        with self.style.applied(self.written):
            super().draw(renderer)

    def savefig(self, fname: Any, **kwargs: Any) -> None:
        """Save in the figure's own style; arguments as matplotlib's."""
        with self.style.applied(self.written):
            super().savefig(fname, **kwargs)

    def _repr_png_(self) -> bytes:
        """What a notebook shows."""
        file = io.BytesIO()
        self.savefig(file, format="png")
        return file.getvalue()


@cache
def korean_family() -> str | None:
    """The family of a font with every syllable that the figures write, or None and a warning."""

    def words(table: Mapping[str, Any]) -> Iterator[str]:
        return chain.from_iterable(
            words(v) if isinstance(v, Mapping) else [v] for v in table.values()
        )

    text = "".join(words(texts("ko", "figures")))
    family = _family(text)
    if family is None:
        warnings.warn(
            "no font on this machine can write Korean, so figures are in English: "
            "install one, such as fonts-nanum or Noto Sans KR",
            stacklevel=2,
        )
    return family


@cache
def _family(written: str) -> str | None:
    """The family of a font that can write it all; None if there is none, or none is needed."""
    wide = "".join(sorted({c for c in written if is_wide(c)}))  # what DejaVu Sans has not got
    path = find_font(wide) if wide else None
    if path is None:
        return None
    font_manager.fontManager.addfont(path)  # matplotlib's list may be older than the font
    return font_manager.FontProperties(fname=path).get_name()


def is_wide(c: str) -> bool:
    """Whether a character takes the room of two, as Hangul does."""
    return unicodedata.east_asian_width(c) in "WF"


def fold(text: str, width: float, size: float) -> str:
    """Text broken at spaces into lines that fit `width` inches at `size` points."""
    room = (width - 0.3) * 72 / (0.56 * size)
    lines, length = [""], 0
    for word in re.findall(r"(?:\\\$|\$[^$]*\$|\S)+", text):  # a formula stays in one piece
        n = sum(2 if is_wide(c) else 1 for c in word) // (2 if "\\" in word else 1)
        if length and length + 1 + n > room:
            lines.append("")
            length = 0
        lines[-1] += (" " if length else "") + word
        length += n + bool(length)
    return "\n".join(lines)


def plain(text: object) -> str:
    """A user's own words, not to be read as a formula."""
    return str(text).replace("$", r"\$")
