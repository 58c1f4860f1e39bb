"""A user's own numbers: points from .npy, .npz, .csv and .tsv, pictures from .npy and .npz."""

import csv
import io
import os
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import BinaryIO

import numpy as np
import torch
from jaxtyping import Float64, Int64, Shaped
from torch import Tensor

from alphabar.data.arrays import labels_of, pictures_of
from alphabar.data.base import DATA, Data
from alphabar.storage import IN_MEMORY

POINT_FILES = (".npy", ".npz", ".csv", ".tsv")
TAB = "\t"
LABELS = ("y", "labels")
PICTURE_FILES = (
    *(".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
)


@DATA.entry(positional="path")
def file(path: str, key: str | None = None) -> Data:
    """Points of your own: .npy, .npz, .csv or .tsv, a row each; or pictures in an array.

    A text file is UTF-8 with commas (.csv) or tabs (.tsv) between the numbers; a first line of
    names is found out and kept. Hue: the rank of the first column.

    An array of three or four axes holds pictures: see `alphabar.data.arrays`. A large .npy of
    float32 (N, C, H, W) is used where it lies. In an .npz, whole numbers named `y` or `labels`, one
    for each item, are their classes.

    Args:
        path: the file.
        key: which array of an .npz; without it `x`, or the only one beside labels.

    Raises:
        ValueError: the file does not hold at least two rows of finite numbers; the sentence says
            where.
        OSError: it cannot be read.
    """
    ending = extension(path)
    if key is not None and ending != ".npz":
        raise ValueError(f"{path!r} with key = {key}: only an .npz has keys; leave key out")
    labels = None
    with opened(path, POINT_FILES) as handle:
        if ending in (".csv", ".tsv"):
            return _read_table(path, handle, "," if ending == ".csv" else TAB)
        if ending == ".npy":
            array = _read_npy(path, handle)
        else:
            array, labels = _read_npz(path, handle, key)
    if array.ndim > 2:
        return pictures_of(array, repr(path), labels)
    return replace(points(array, name=repr(path)), labels=labels)


def points(
    x: Shaped[np.ndarray, "..."] | Shaped[Tensor, "..."],
    columns: Sequence[str] = (),
    name: str = "x",
    lines: Sequence[int] = (),
) -> Data:
    """A data set of any (N, d) real numbers; (N,) is (N, 1). It has no spec.

    Args:
        x: booleans, integers or floats; they become float64.
        columns: names of the coordinates; x, y, z or x1, x2, … if left out.
        name: what to call the data in an error.
        lines: the line of each row in its text file, for errors.

    Raises:
        ValueError: x is not two or more rows of finite real numbers.
    """
    array = np.asarray(x.detach().cpu() if isinstance(x, Tensor) else x)
    if array.dtype.kind not in "biuf":
        raise ValueError(
            f"{name} holds {array.dtype} values: points must be real numbers; "
            "save them as an array of floats"
        )
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2:
        raise ValueError(
            f"{name} has shape {array.shape}: points must have two axes, (N, d), a row each; "
            "reshape it"
        )
    if len(array) < 2 or array.shape[1] == 0:
        raise ValueError(
            f"{name} has {_count(len(array), 'row')} and {_count(array.shape[1], 'column')}: "
            "a data set needs at least two rows and one column; add data"
        )
    with np.errstate(over="ignore"):  # a long double may be too large: it is reported below
        array = np.array(array, np.float64, order="C")
    wrong = np.flatnonzero(~np.isfinite(array).all(1))
    if len(wrong):
        first = ", ".join(str(lines[i] if lines else i) for i in wrong[:5])
        counted = "lines" if lines else "rows, counted from 0:"
        more = ", …" if len(wrong) > 5 else ""
        raise ValueError(
            f"{name}: {len(wrong)} of {len(array)} rows hold NaN or infinity ({counted} {first}"
            f"{more}): every value must be a finite number; remove or fill those rows"
        )
    d = array.shape[1]
    if columns and len(columns) != d:
        raise ValueError(
            f"{name}: {_count(len(columns), 'name')} for {_count(d, 'column')}: name each once"
        )
    default = ("x", "y", "z")[:d] if d <= 3 else tuple(f"x{i + 1}" for i in range(d))
    hue = np.empty(len(array))
    hue[np.argsort(array[:, 0], kind="stable")] = np.linspace(0, 1, len(array))
    return Data(torch.from_numpy(array), torch.from_numpy(hue), tuple(columns) or default)


def extension(path: str) -> str:
    """The ending of a path in lower case, with its dot; '' if there is none."""
    return os.path.splitext(path)[1].lower()


@contextmanager
def opened(path: str, endings: tuple[str, ...]) -> Iterator[BinaryIO]:
    """The file at `path`, open for reading its bytes.

    Raises:
        ValueError: its name does not end in one of `endings`, or it is empty.
        OSError: it cannot be opened; the same kind of error, but in one sentence.
    """
    full = os.path.expanduser(path)
    if os.path.isdir(full):
        raise IsADirectoryError(f"{path!r} is a folder: name a file in it")
    ending = extension(path)
    if ending not in endings:
        hint = ""
        if ending in PICTURE_FILES:
            hint = f"; for a picture write picture:{path} or image:{path}"
        if ending in POINT_FILES:
            hint = f"; for points write file:{path}"
        raise ValueError(f"{path!r}: the name must end in one of {' '.join(endings)}{hint}")
    try:
        handle = open(full, "rb")  # noqa: SIM115, it is closed below
    except FileNotFoundError:
        raise FileNotFoundError(f"{path!r}: there is no such file; check its path") from None
    except PermissionError:
        raise PermissionError(f"{path!r} may not be read: allow it with chmod +r") from None
    except OSError as error:
        raise OSError(f"{path!r} cannot be read: {error.strerror}; check its path") from None
    except ValueError as error:
        raise ValueError(f"{path!r} cannot be a path ({error}); check it") from None
    with handle:
        if not os.fstat(handle.fileno()).st_size:
            raise ValueError(f"{path!r} is empty: it must hold data; write the file again")
        yield handle


@contextmanager
def decoding(path: str, what: str) -> Iterator[None]:
    """One sentence for whatever a decoder raises when it meets a damaged file."""
    try:
        yield
    except Exception as error:  # zlib's, zipfile's, struct's, … : there is no end to them
        if "allow_pickle" in str(error):
            raise ValueError(
                f"{path!r} holds Python objects, and reading those could run code: "
                "save it as an array of floats"
            ) from None
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise ValueError(
            f"{path!r} cannot be read as {what}, it may be cut off or damaged ({reason}): "
            "save it again"
        ) from None


def _read_npy(path: str, handle: BinaryIO) -> Shaped[np.ndarray, "..."]:
    with decoding(path, "a .npy file"):
        if os.fstat(handle.fileno()).st_size <= IN_MEMORY:
            return np.lib.format.read_array(handle, allow_pickle=False)
        # "c": what is written to it, which nobody does, would not reach the file.
        return np.asarray(np.load(os.path.expanduser(path), mmap_mode="c", allow_pickle=False))


def _read_npz(
    path: str, handle: BinaryIO, key: str | None
) -> tuple[Shaped[np.ndarray, "..."], Int64[Tensor, " N"] | None]:
    """The array, and the labels beside it."""
    with decoding(path, "an .npz file"):
        if not zipfile.is_zipfile(handle):
            raise ValueError("it is not a zip archive")
        handle.seek(0)
        archive = np.load(handle, allow_pickle=False)
    keys = archive.files
    others = [name for name in keys if name not in LABELS]
    if key is None:
        alone = others if others else keys
        key = "x" if "x" in keys else alone[0] if len(alone) == 1 else None
    if key not in keys:
        what = "" if key is None else f" and no {key!r}"
        remedy = f"choose one with file:{path},key=NAME" if keys else "save one as x"
        raise ValueError(f"{path!r} has the arrays {keys}{what}: {remedy}")
    labels = None
    with decoding(path, "an .npz file"):
        array = np.asarray(archive[key])
        named = {name: archive[name] for name in LABELS if name in keys and name != key}
    for given in named.values():
        if given.dtype.kind in "iu":  # y may be numbers of another kind
            labels = labels_of(given, len(array) if array.ndim else 0, repr(path))
    return array, labels


def _read_table(path: str, handle: BinaryIO, delimiter: str) -> Data:
    try:
        text = handle.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path!r}, line {line}: byte 0x{error.object[error.start]:02x} is not UTF-8 text; "
            'save the file as UTF-8 ("CSV UTF-8" in Excel)'
        ) from None
    first = next(_rows(path, text, delimiter), None)
    if first is None:
        raise ValueError(f"{path!r} is blank: it must hold data; write the file again")
    head, names = first
    numeric = [_number(cell) is not None for cell in names]
    columns: tuple[str, ...] = ()
    if all(numeric):
        head = 0
    elif not any(numeric):
        names[0] = names[0].lstrip("# ")  # np.savetxt marks its header so
        columns = tuple(name.strip() or f"column {i + 1}" for i, name in enumerate(names))
    else:
        i, j = numeric.index(True), numeric.index(False)
        raise ValueError(
            f"{path!r}, line {head}: column {i + 1} is the number {names[i]!r} and column {j + 1} "
            f"is {names[j]!r}: a line holds names only (the first) or numbers only; correct it"
        )
    rest = io.StringIO(text, newline=None)
    for _ in range(head):
        rest.readline()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns where there is nothing but a header
            array = np.loadtxt(rest, delimiter=delimiter, comments=None, quotechar='"', ndmin=2)
        if array.shape[1] != len(names):
            raise ValueError
    except ValueError:
        # numpy's reader is quick; this one can say what is wrong, and has the last word.
        array = _read_rows(path, text, delimiter, head, columns or [""] * len(names))
    lines: list[int] = []
    if not np.isfinite(array).all():
        lines = [line for line, _ in _rows(path, text, delimiter) if line > head]
    return points(array, columns, repr(path), lines)


def _rows(path: str, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Each row that is not blank, and the number of its (last) line."""
    reader = csv.reader(io.StringIO(text, newline=None), delimiter=delimiter)
    try:
        for row in reader:
            if len(row) > 1 or (row and row[0].strip()):
                yield reader.line_num, row
    except csv.Error as error:
        raise ValueError(f"{path!r}, line {reader.line_num}: {error}; correct the line") from None


def _read_rows(
    path: str, text: str, delimiter: str, head: int, columns: Sequence[str]
) -> Float64[np.ndarray, "N d"]:
    values: list[list[float]] = []
    for line, row in _rows(path, text, delimiter):
        if line <= head:
            continue
        if len(row) != len(columns):
            raise ValueError(
                f"{path!r}, line {line}: {_count(len(row), 'value')} where the first line has "
                f"{len(columns)}: every line needs as many; correct it"
            )
        numbers = [_number(cell) for cell in row]
        if None in numbers:
            i = numbers.index(None)
            where = f"column {i + 1}" + (f" ({columns[i]})" if columns[i] else "")
            what = f"the text {row[i][:40]!r}" if row[i].strip() else "empty"
            raise ValueError(
                f"{path!r}, line {line}, {where} is {what}: every value must be a number, with "
                f"{'tabs' if delimiter == TAB else 'commas'} between; correct the line or remove "
                "the column"
            )
        values.append([number for number in numbers if number is not None])
    return np.array(values, np.float64).reshape(-1, len(columns))


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" + ("s" if n != 1 else "")
