"""Tensors of many items, which may be larger than memory.

Up to `IN_MEMORY` bytes they lie in memory. Beyond, they are mapped from a temporary file without a
name, in the folder that TMPDIR names: the system reads what is asked for, forgets it when memory is
short, and frees the disk when the process ends, however it ends.
"""

import math
import os
import tempfile
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

IN_MEMORY = 2**28
CHUNK = 2**22  # numbers that are worked on at a time


def room_for(*shape: int) -> Float32[Tensor, "..."]:
    """A tensor of that shape, to be filled.

    Raises:
        OSError: the disk has no room for it.
    """
    size = 4 * math.prod(shape)
    if size <= IN_MEMORY:
        return torch.empty(shape, dtype=torch.float32)
    folder = tempfile.gettempdir()
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            if hasattr(os, "posix_fallocate"):  # macOS has none
                # A map that finds the disk full when it is written to kills the process.
                os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            raise OSError(
                f"{folder} has no room for {size:,} bytes ({error.strerror}), and data beyond "
                f"{IN_MEMORY:,} bytes are kept there: set TMPDIR to a folder on a larger disk, or "
                "take fewer or smaller items"
            ) from None
        return torch.from_numpy(np.memmap(file, np.float32, "r+", shape=shape))


def chunks(x: Float[Tensor, "N ..."]) -> Iterator[Float[Tensor, "n ..."]]:
    """The items in parts of about `CHUNK` numbers, each a view."""
    return iter(torch.split(x, max(1, CHUNK // max(1, math.prod(x.shape[1:])))))


def take(x: Float[Tensor, "N ..."], rows: Int64[Tensor, " n"]) -> Float[Tensor, "n ..."]:
    """Some of the items; of those that are too many for memory, in a place of their own."""
    if rows.numel() * math.prod(x.shape[1:]) * x.element_size() <= IN_MEMORY:
        return x[rows]
    taken = room_for(len(rows), *x.shape[1:])
    at = 0
    for part in chunks(taken):
        torch.index_select(x, 0, rows[at : at + len(part)], out=part)
        at += len(part)
    return taken
