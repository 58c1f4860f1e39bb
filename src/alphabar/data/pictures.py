"""Pictures for the forward process: (N, C, H, W), -1 for black and 1 for white."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from alphabar.data.base import DATA, Data, check_count, every_fifth
from alphabar.data.files import PICTURE_FILES, decoding, opened

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_SIZE = 4096
MAX_PIXELS = 80_000_000
PHOTOS = ("china", "flower")
# A picture is told by its content, and never handed to a decoder that runs programs, as EPS's.
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")


# Without a handler, what Pillow logs of a damaged file is printed beside our own sentence.
logging.getLogger("PIL").addHandler(logging.NullHandler())


@DATA.entry()
def digits() -> Data:
    """1797 handwritten digits of 8 by 8 grey pixels, from scikit-learn.

        x = ink/8 − 1, ink 0..16

    x: (1797, 1, 8, 8). Labels: the digit. Hue: digit/10. Held out: every fifth of each digit.
    """
    from sklearn.datasets import load_digits

    ink, labels = load_digits(return_X_y=True)
    x = torch.from_numpy(ink.astype(np.float32) / 8 - 1).reshape(-1, 1, 8, 8)
    digit = torch.from_numpy(labels.astype(np.int64))
    return Data(x, digit.double() / 10, labels=digit, held_out=every_fifth(digit))


@DATA.entry(positional="name")
def photo(name: str, size: int = 256) -> Data:
    """One of scikit-learn's two sample photographs: china (a temple) or flower.

    Args:
        name: `china` or `flower`.
        size: the longer side is at most this many pixels; 640 as it is.

    Raises:
        ValueError: another name, or a size that is not a whole number from 1 to 4096.
    """
    size = check_count("size", size, MAX_SIZE)
    if name not in PHOTOS:
        raise ValueError(
            f"{name!r} is not a photo: write photo:{' or photo:'.join(PHOTOS)}; "
            "for a file of your own write picture:PATH"
        )
    import sklearn.datasets

    folder = os.path.dirname(sklearn.datasets.__file__)
    return _as_data(read_picture(os.path.join(folder, "images", f"{name}.jpg")), size)


@DATA.entry(positional="path")
def picture(path: str, size: int = 256) -> Data:
    """A picture file of your own, as one item of (1, C, H, W).

    Grey stays grey (C = 1), all else becomes RGB; it is turned upright as its camera says, and
    laid over white where it is transparent. Of an animation it is the first frame.

    Args:
        path: a .png, .jpg, .webp, .bmp, .gif, .tif or .ppm file.
        size: the longer side is made at most this many pixels, never more than it has.

    Raises:
        ValueError: the file is not a picture, is damaged, or is too large.
        OSError: it cannot be read.
    """
    size = check_count("size", size, MAX_SIZE)
    return _as_data(read_picture(path), size)


def read_picture(path: str) -> "Image":
    """The file as an upright PIL image of mode L or RGB, of 8 bits.

    Raises:
        ValueError: it is not a picture, is damaged, has more than 80 million pixels, or holds
            fractions instead of grey levels.
        OSError: it cannot be read.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own about large or odd files; see `header`
        return decode(path)


def decode(path: str, shorter: int | None = None) -> "Image":
    """As `read_picture`, but for Pillow's warnings: in a thread they cannot be silenced.

    Args:
        path: the file.
        shorter: what the shorter side will be made. A photograph of many times that is read at a
            half, a quarter or an eighth of its size, at least twice what is needed: that is faster.
    """
    from PIL import Image, ImageOps

    with header(path) as image, decoding(path, "a picture"):
        if shorter is not None:
            image.draft(None, (2 * shorter, 2 * shorter))
        grey = is_grey(image)
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I"):  # 16 bits, which convert would cut at 255
            levels = (np.asarray(upright) // 257).clip(0, 255)
            upright = Image.fromarray(levels.astype(np.uint8))
        if upright.has_transparency_data:
            upright = upright.convert("RGBA")
            white = Image.new("RGBA", upright.size, "white")
            upright = Image.alpha_composite(white, upright)
        return upright.convert("L" if grey else "RGB")


@contextmanager
def header(path: str) -> Iterator["Image"]:
    """A picture of which no pixel is decoded yet.

    Raises:
        ValueError, OSError: what the header tells, of what `read_picture` refuses.
    """
    from PIL import Image

    with opened(path, PICTURE_FILES) as handle:
        with decoding(path, "a picture"):
            try:
                image: Image.Image = Image.open(handle, formats=_FORMATS)
                width, height = image.size
            except Image.DecompressionBombError:
                width = height = MAX_PIXELS
        if width * height > MAX_PIXELS:
            raise ValueError(
                f"{path!r} has more than {MAX_PIXELS:,} pixels: it would take too much memory; "
                "save it smaller"
            )
        if image.mode == "F":
            raise ValueError(
                f"{path!r} holds fractions, of unknown range: a picture must hold 8 or 16 bits a "
                "pixel; save it as PNG"
            )
        yield image


def is_grey(image: "Image") -> bool:
    """Whether it has no colour by its mode."""
    return image.mode in ("1", "L", "LA", "La") or image.mode.startswith("I")


def shrink(image: "Image", size: int, *, average: bool = False) -> "Image":
    """The image with a longer side of at most `size`; `average` keeps the mean darkness."""
    from PIL.Image import Resampling

    longer = max(image.size)
    if longer <= size:
        return image
    width, height = (max(1, round(side * size / longer)) for side in image.size)
    return image.resize((width, height), Resampling.BOX if average else Resampling.LANCZOS)


def _as_data(image: "Image", size: int) -> Data:
    array = np.asarray(shrink(image, size), np.float32) / 127.5 - 1
    x: Float32[Tensor, "C H W"] = torch.from_numpy(array.reshape(*array.shape[:2], -1))
    x = x.permute(2, 0, 1).contiguous()
    return Data(x[None], torch.zeros(1, dtype=torch.float64))
