"""A folder of pictures: (N, C, size, size), -1 for black and 1 for white.

photos/*.jpg             no classes
photos/cats/*.jpg        the class of each is the folder it lies in or below; the labels are
photos/dogs/*.jpg        the places 0, 1, … of their names in order
"""

import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from alphabar.data.base import DATA, Data, check_count, every_fifth
from alphabar.data.files import PICTURE_FILES, extension
from alphabar.data.pictures import MAX_SIZE, decode, header, is_grey
from alphabar.storage import room_for

_AT_ONCE = 8  # pictures that are decoded at a time, at most


@DATA.entry(positional="path")
def folder(
    path: str, size: int = 32, flip: bool = False, grey: bool = False, strict: bool = False
) -> Data:
    """A folder of pictures; where they lie in folders in it, those are their classes.

    The shorter side is made `size`, and of the longer one its middle is kept. Each picture is
    turned upright as its camera says, laid over white where it is transparent, and of an animation
    it is the first frame. All are grey if each is, else RGB. Links are followed, each folder is
    entered once; what begins with a dot is not looked at. Other files, and pictures that cannot be
    read, are left out with a warning that counts them.

    Labels: the place of the class in `classes`. Hue: the label over the number of classes; without
    classes the place in the order of names. Held out: every fifth picture of each class, with its
    mirror. More than 256 MB are kept in a temporary file: see `alphabar.storage`.

    Args:
        path: the folder.
        size: of a side, in pixels; smaller pictures are enlarged, with a warning.
        flip: after each picture its mirror comes as another item.
        grey: make all of them grey.
        strict: refuse what would be left out.

    Raises:
        ValueError: fewer than two pictures, pictures beside classes, a class without any, or with
            `strict` something to leave out.
        OSError: no folder, or one that cannot be read; no room on the disk.
    """
    size = check_count("size", size, MAX_SIZE)
    found = _find(path)
    if strict and found.others:
        raise ValueError(
            f"{path!r} has {len(found.others)} files that are no pictures "
            f"({_some(found.others)}): strict=true allows none; remove them, or leave strict out"
        )
    x, kept = _read_all(path, found, size, grey, flip, strict)
    labels = None
    if len(found.classes) > 1:
        labels = torch.tensor([found.labels[i] for i in kept])
        for label in set(range(len(found.classes))) - set(labels.tolist()):
            raise _empty(path, found.classes[label])
    place = torch.arange(len(kept)) if labels is None else labels
    hue = place.double() / (len(kept) if labels is None else len(found.classes))
    held_out = every_fifth(torch.zeros_like(place) if labels is None else labels)
    if flip:
        # A mirror is held out with its picture: it would give away most of it.
        held_out = torch.stack([2 * held_out, 2 * held_out + 1], 1).flatten()
        hue = hue.repeat_interleave(2)
        labels = None if labels is None else labels.repeat_interleave(2)
    return Data(
        x,
        hue,
        labels=labels,
        held_out=held_out if len(held_out) else None,
        classes=found.classes if labels is not None else (),
    )


@dataclass(frozen=True)
class _Found:
    """What lies below a folder, in order."""

    pictures: Sequence[str]
    labels: Sequence[int]  # of each picture the place of its class
    classes: tuple[str, ...]
    others: Sequence[str]


def _find(path: str) -> _Found:
    full = os.path.expanduser(path)
    if not os.path.isdir(full):
        what = "is a file" if os.path.exists(full) else "is not there"
        raise NotADirectoryError(
            f"{path!r} {what}: folder needs a folder of pictures; for a single one write "
            "picture:PATH"
        )
    pictures: list[str] = []
    others: list[str] = []
    for file in _files(full):
        # A pipe would be waited for, whatever it is called.
        is_picture = extension(file) in PICTURE_FILES and os.path.isfile(file)
        (pictures if is_picture else others).append(file)
    names = [os.path.relpath(file, full).split(os.sep) for file in pictures]
    beside = [name[0] for name in names if len(name) == 1]
    within = {name[0] for name in names if len(name) > 1}
    if not pictures:
        raise ValueError(
            f"{path!r} is a folder with no picture in it or below: their names must end in one of "
            f"{' '.join(PICTURE_FILES)}; name another folder"
        )
    if beside and within:
        raise ValueError(
            f"{path!r} has {len(beside)} pictures ({_some(beside)}) beside the folders "
            f"{_some(sorted(within))}: each must lie in the folder of its class, or all in one; "
            "move them"
        )
    if beside:
        return _Found(pictures, [0] * len(pictures), (), others)
    classes = tuple(sorted(entry.name for entry in os.scandir(full) if _is_class(entry)))
    for name in classes:
        if name not in within:
            raise _empty(path, name)
    return _Found(pictures, [classes.index(name[0]) for name in names], classes, others)


def _files(full: str) -> Iterator[str]:
    """All files below, sorted by name in each folder; no folder twice, whatever links there are."""

    def refuse(error: OSError) -> None:
        raise type(error)(f"{error.filename!r} cannot be read: {error.strerror}; allow it")

    seen = set()
    for here, folders, files in os.walk(full, onerror=refuse, followlinks=True):
        about = os.stat(here)
        if (about.st_dev, about.st_ino) in seen:
            folders.clear()
            continue
        seen.add((about.st_dev, about.st_ino))
        folders[:] = sorted(name for name in folders if not _is_hidden(name))
        yield from (os.path.join(here, name) for name in sorted(files) if not _is_hidden(name))


def _is_class(entry: "os.DirEntry[str]") -> bool:
    return entry.is_dir() and not _is_hidden(entry.name)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"  # what macOS adds to archives


def _empty(path: str, name: str) -> ValueError:
    return ValueError(
        f"{path!r}: the class {name!r} has no picture that can be read: each folder in it is a "
        "class, and needs one; add pictures, or remove the folder"
    )


class _Picture(NamedTuple):
    levels: UInt8[np.ndarray, "C H W"]
    was_small: bool


def _read_all(
    path: str, found: _Found, size: int, grey: bool, flip: bool, strict: bool
) -> tuple[Float32[Tensor, "N C size size"], Sequence[int]]:
    """The pictures, and which of those that were found they are."""
    each = 1 + flip
    kept: list[int] = []
    damaged: list[str] = []
    small = 0

    def read(file: str) -> "_Picture | ValueError | OSError":
        try:
            return _read(file, size, mode)
        except (ValueError, OSError) as error:
            return error

    pool = ThreadPoolExecutor(min(_AT_ONCE, os.cpu_count() or 1))
    # The filters are those of all threads, so they are set once, outside of them.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mode = "L" if grey or all(map(_is_grey_file, found.pictures)) else "RGB"
        x = room_for(each * len(found.pictures), len(mode), size, size)
        try:
            for i, one in enumerate(pool.map(read, found.pictures)):
                if not isinstance(one, _Picture):
                    if strict:
                        raise one
                    damaged.append(found.pictures[i])
                    reason = str(one)
                    continue
                item = torch.from_numpy(one.levels).float() / 127.5 - 1
                x[each * len(kept)] = item
                if flip:
                    x[each * len(kept) + 1] = item.flip(-1)
                small += one.was_small
                kept.append(i)
        finally:
            pool.shutdown(cancel_futures=True)
    if len(kept) < 2:
        why = f"; {reason}" if damaged else ""
        raise ValueError(
            f"{path!r} has {len(kept)} pictures that can be read: a data set needs at least two; "
            f"add pictures{why}"
        )
    left_out = []
    if found.others:
        left_out.append(f"{len(found.others)} that are no pictures ({_some(found.others)})")
    if damaged:
        left_out.append(f"{len(damaged)} that cannot be read (such as {reason})")
    if left_out:
        warnings.warn(
            f"{path!r}: of {len(found.pictures) + len(found.others)} files these are left out: "
            f"{', and '.join(left_out)}; strict=true refuses them",
            stacklevel=4,
        )
    if small:
        warnings.warn(
            f"{path!r}: {small} of {len(kept)} pictures are smaller than size = {size} and were "
            "enlarged: a smaller size shows what they hold",
            stacklevel=4,
        )
    return x[: each * len(kept)], kept


def _read(file: str, size: int, mode: str) -> _Picture:
    from PIL import ImageOps
    from PIL.Image import Resampling

    image = decode(file, size)
    was_small = min(image.size) < size
    square = ImageOps.fit(image.convert(mode), (size, size), Resampling.LANCZOS)
    levels = np.asarray(square).reshape(size, size, len(mode))
    return _Picture(np.ascontiguousarray(levels.transpose(2, 0, 1)), was_small)


def _is_grey_file(file: str) -> bool:
    """Whether a picture has no colour; what cannot be read has none, and is left out."""
    try:
        with header(file) as image:
            return is_grey(image)
    except (ValueError, OSError):
        return True


def _some(files: Sequence[str]) -> str:
    names = [repr(os.path.basename(file)) for file in files[:3]]
    return ", ".join(names) + (", …" if len(files) > 3 else "")
