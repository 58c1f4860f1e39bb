"""Words and drawings as points: ink is a density.

    p(x_0) ∝ darkness of the pixel that x_0 lies in

A point is a pixel drawn by its darkness, then a place in it drawn uniformly. The plane is moved
and scaled, alike in both directions, so that p has mean 0 and E|x_0|² = 1, with y upwards.
"""

import math
import unicodedata
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64, UInt8
from numpy.random import default_rng

from alphabar.data.base import DATA, Data, Draw, Randomness, generated
from alphabar.data.pictures import read_picture, shrink
from alphabar.fonts import find_font

MAX_CHARACTERS = 200
_FONT_PIXELS = 256
_IMAGE_PIXELS = 2048


@DATA.entry(positional="text")
def text(text: str, n: int = 10_000, seed: int = 0) -> Data:
    """Any text written in points, Hangul too.

    Uniform over the strokes; the font is one of this machine that has all the characters. Hue:
    from left to right.

    Args:
        text: at most 200 characters; a newline begins a new line.
        n: number of points.
        seed: which points.

    Raises:
        ValueError: the text is blank or too long, or no font can write it.
    """
    return _scatter(Ink.of(_write(text)), n, seed)


@DATA.entry(positional="path")
def image(path: str, n: int = 10_000, invert: bool = False, seed: int = 0) -> Data:
    """A picture file as points, the denser the darker.

    p(x_0) ∝ 255 − grey level; white and transparent pixels have no points. A side of more than
    2048 pixels is shrunk first. Hue: from left to right.

    Args:
        path: a .png, .jpg, .webp, .bmp, .gif, .tif or .ppm file.
        n: number of points.
        invert: put the points where it is light.
        seed: which points.

    Raises:
        ValueError: the file is not a picture, or has no dark pixel.
        OSError: it cannot be read.
    """
    grey = np.asarray(shrink(read_picture(path), _IMAGE_PIXELS, average=True).convert("L"))
    darkness = grey if invert else 255 - grey
    if not darkness.any():
        raise ValueError(
            f"{path!r} has no {'light' if invert else 'dark'} pixel: its points lie where it is "
            f"{'light' if invert else 'dark'}; give another, or invert={str(not invert).lower()}"
        )
    return _scatter(Ink.of(darkness), n, seed)


@dataclass(frozen=True, eq=False)
class Ink:
    """The pixels that have ink, and how to draw a point among them."""

    pixels: Int64[np.ndarray, "inked 2"]  # (column, row)
    cumulative: Float64[np.ndarray, " inked"]  # share of the ink up to each pixel
    centre: Float64[np.ndarray, " 2"]
    scale: float

    @classmethod
    def of(cls, darkness: UInt8[np.ndarray, "H W"]) -> "Ink":
        """The density ∝ darkness, of which there must be some."""
        row, column = np.nonzero(darkness)
        pixels = np.stack([column, row], 1)
        weight = darkness[row, column].astype(np.float64)
        cumulative = np.cumsum(weight)  # exact: whole numbers far below 2⁵³
        weight /= cumulative[-1]
        centre = weight @ pixels + 0.5
        spread = weight @ ((pixels + 0.5 - centre) ** 2) + 1 / 12  # 1/12: within a pixel
        scale = 1 / math.sqrt(spread.sum())
        return cls(pixels, cumulative / cumulative[-1], centre, scale)

    def draw(self, n: int, randomness: Randomness) -> Draw:
        """n points of the density."""
        rng = default_rng(randomness)
        # u < 1 = cumulative[-1], so that the pixel found always exists.
        pixel = self.pixels[np.searchsorted(self.cumulative, rng.random(n), side="right")]
        place = pixel + rng.random((n, 2))
        left, right = self.pixels[:, 0].min(), self.pixels[:, 0].max() + 1
        hue = (place[:, 0] - left) / (right - left)
        return Draw((place - self.centre) * (self.scale, -self.scale), hue)


def _scatter(ink: Ink, n: int, seed: int) -> Data:
    return generated(ink.draw, n, seed)


def _write(text: str) -> UInt8[np.ndarray, "H W"]:
    """How much of each pixel (0..255) the strokes of `text` cover."""
    from PIL import Image, ImageDraw, ImageFont

    # macOS passes Hangul in pieces (NFD); fonts have the whole syllables.
    text = unicodedata.normalize("NFC", text)
    if not text.strip():
        raise ValueError(f"text = {text!r} has nothing to draw: write something, as in text:한글")
    if len(text) > MAX_CHARACTERS:
        raise ValueError(
            f"text has {len(text)} characters: at most {MAX_CHARACTERS} can be drawn; shorten it"
        )
    path = find_font(text)
    if path is None:
        missing = [c for c in dict.fromkeys(text) if not c.isspace() and find_font(c) is None]
        what = f"the characters {' '.join(missing)}" if missing else "all its characters at once"
        raise ValueError(
            f"text = {text!r}: no font on this machine has {what}; install one that does "
            "(for Hangul: apt install fonts-nanum), or write something else"
        )
    try:
        font = ImageFont.truetype(str(path), _FONT_PIXELS)
        measure = ImageDraw.Draw(Image.new("L", (1, 1)))
        left, top, right, bottom = measure.multiline_textbbox((0, 0), text, font=font)
        size = (math.ceil(right - left) + 2, math.ceil(bottom - top) + 2)
        canvas = Image.new("L", size)
        ImageDraw.Draw(canvas).multiline_text((1 - left, 1 - top), text, 255, font=font)
    except (OSError, ValueError) as error:  # a font of fixed-size pictures, such as emoji
        raise ValueError(f"text = {text!r}: {path.name} cannot draw it ({error})") from None
    coverage = np.asarray(canvas)
    if not coverage.any():
        raise ValueError(f"text = {text!r} leaves no ink: write something visible, as in text:한글")
    return coverage
