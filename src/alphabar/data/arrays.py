"""Arrays of pictures: (N, H, W), (N, H, W, C) or (N, C, H, W), in levels or within [-1, 1].

x = v/127.5 − 1 of levels v = 0..255
"""

import warnings

import numpy as np
import torch
from jaxtyping import Float32, Int64, Shaped
from torch import Tensor

from alphabar.data.base import Data, every_fifth
from alphabar.storage import CHUNK, chunks, room_for

_CHANNELS = (1, 3)


def pictures_of(
    array: Shaped[np.ndarray, "N *item"], name: str, labels: Int64[Tensor, " N"] | None = None
) -> Data:
    """A data set of pictures in an array; float32 in our own order is not copied.

    Held out: every fifth of each class. Hue: the label over their number; else the place.

    Args:
        array: (N, H, W) or (N, H, W, C) or (N, C, H, W), C = 1 or 3; where both may be, C comes
            first. Booleans are black and white, uint8 are levels, floats lie within [-1, 1].
        name: what to call the data in an error.
        labels: the class of each.

    Raises:
        ValueError: another shape, other values.
    """
    x = _scaled(_ordered(array, name), name)
    n = len(x)
    place = torch.arange(n) if labels is None else labels
    held_out = every_fifth(torch.zeros_like(place) if labels is None else labels)
    hue = place.double() / (n if labels is None else int(labels.max()) + 1)
    return Data(x, hue, labels=labels, held_out=held_out if len(held_out) else None)


def labels_of(array: Shaped[np.ndarray, "..."], n: int, name: str) -> Int64[Tensor, " n"]:
    """The classes of n items, from 0.

    Raises:
        ValueError: another number of labels, or what are no classes.
    """
    flat = array.reshape(-1)
    if array.dtype.kind not in "iu" or len(flat) != n or not (0 <= flat.min() <= flat.max() < n):
        raise ValueError(
            f"{name} has labels of {array.dtype} and shape {array.shape} for {n} items: each item "
            f"needs a whole number from 0 to {n - 1}, the place of its class; save them so, or "
            "under another name"
        )
    return torch.from_numpy(flat.astype(np.int64))


def _ordered(array: Shaped[np.ndarray, "N *item"], name: str) -> Shaped[np.ndarray, "N C H W"]:
    """The axes in our own order."""
    shape = array.shape
    if len(shape) == 3:
        ordered = array[:, None]
    elif len(shape) == 4 and shape[1] in _CHANNELS:
        ordered = array
    elif len(shape) == 4 and shape[3] in _CHANNELS:
        ordered = np.moveaxis(array, 3, 1)
    else:
        raise ValueError(
            f"{name} has shape {shape}: pictures are (N, H, W), (N, H, W, C) or (N, C, H, W), with "
            "C = 1 for grey or 3 for RGB; reshape it"
        )
    if shape[0] < 2 or 0 in shape:
        raise ValueError(
            f"{name} has shape {shape}: a data set needs at least two pictures of at least one "
            "pixel; add data"
        )
    return ordered


def _scaled(array: Shaped[np.ndarray, "N C H W"], name: str) -> Float32[Tensor, "N C H W"]:
    kind = array.dtype
    if kind.kind == "f":
        is_ours = kind == np.float32 and kind.isnative and array.flags.c_contiguous
        x = torch.from_numpy(array) if is_ours else _converted(array, 1, 0)
        bounds = [torch.aminmax(part) for part in chunks(x)]
        low = torch.stack([bound.min for bound in bounds]).min().item()  # NaN if any is
        high = torch.stack([bound.max for bound in bounds]).max().item()
        if not -1 <= low <= high <= 1:
            raise ValueError(
                f"{name} holds numbers from {low:.6g} to {high:.6g}: pictures of floats must lie "
                "within [-1, 1], black to white; of levels 0..255 take v/127.5 - 1, or save them "
                "as uint8"
            )
        if low >= 0:
            warnings.warn(
                f"{name} holds numbers from {low:.6g} to {high:.6g}, and black is -1: if 0 is your "
                "black and 1 your white, save 2*x - 1",
                stacklevel=4,
            )
        return x
    if kind == np.bool_:
        return _converted(array, 2, -1)
    if kind == np.uint8:
        if array.max() <= 1:
            raise ValueError(
                f"{name} holds the levels 0 and 1 of 0..255, all of them nearly black: if 1 is "
                "white, save it as booleans"
            )
        return _converted(array, 1 / 127.5, -1)
    raise ValueError(
        f"{name} holds {kind} values: pictures must be uint8 levels 0..255, floats within [-1, 1] "
        "or booleans; convert them (levels by astype(np.uint8))"
    )


def _converted(
    array: Shaped[np.ndarray, "N C H W"], scale: float, shift: float
) -> Float32[Tensor, "N C H W"]:
    """scale·v + shift, worked out in parts."""
    x = room_for(*array.shape)
    rows = max(1, CHUNK // array[0].size)
    for at in range(0, len(x), rows):
        with np.errstate(over="ignore"):  # a float64 may be too large: that is reported after
            part = array[at : at + rows].astype(np.float32, order="C")
        x[at : at + rows] = torch.from_numpy(part * np.float32(scale) + np.float32(shift))
    return x
