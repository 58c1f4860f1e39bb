"""Samples in a folder, in parts: more than memory holds, drawn by many processes, and to go on.

    samples.json   what determines the samples, how many there are, and how many a part holds
    000000.npy     samples 0 … size − 1, and so on; float32, in the data's own units

The noise of a sample depends on (seed, item, step) alone, so that a part is the same whoever draws
it and when. A part is written under another name and renamed: what is there is whole. So a job that
was stopped goes on with the parts that are missing, and n processes take every n-th part.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from alphabar.output import check_folder, writing

MANIFEST = "samples.json"
NUMBERS = 2**24  # in a part, unless something else is asked for: 64 MiB


@dataclass(frozen=True)
class Shards:
    """A folder of samples, whole or on its way.

    Args:
        folder: where they are.
        n: how many samples there are to be.
        size: how many a part holds; the last may hold fewer.
        shape: of a sample.
    """

    folder: Path
    n: int
    size: int
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """How many parts there are to be."""
        return -(-self.n // self.size)

    def part(self, i: int) -> tuple[int, int]:
        """The first sample of part i, and how many it holds."""
        first = i * self.size
        return first, min(self.size, self.n - first)

    def missing(self, rank: int = 0, processes: int = 1) -> list[int]:
        """The parts of one of several processes that are not there, or not whole."""
        return [i for i in range(rank, self.count, processes) if not self._is_whole(i)]

    def write(self, i: int, x: Float[Tensor, "m ..."]) -> None:
        """Part i, all at once.

        Raises:
            ValueError: another number or shape of samples.
            OSError: it could not be written; the parts before are whole.
        """
        expected = (self.part(i)[1], *self.shape)
        if tuple(x.shape) != expected:
            raise ValueError(f"part {i} has shape {tuple(x.shape)}: it must be {expected}")
        try:
            with writing(self._path(i)) as temporary:
                np.save(temporary, x.float().numpy(), allow_pickle=False)
        except OSError as error:
            raise OSError(
                f"{self.folder}: part {i} of {self.count} could not be written "
                f"({error.strerror}); the others are whole; make room, then add --resume"
            ) from None

    def read(self, first: int, m: int) -> Float64[Tensor, "m ..."]:
        """Samples first … first + m − 1, of parts that are mapped and not loaded.

        Raises:
            ValueError: some of them are not there.
        """
        found = []
        while m:
            i, inside = divmod(first, self.size)
            if first >= self.n or not self._is_whole(i):
                raise ValueError(
                    f"{self.folder}: sample {first} is not there; draw the rest with --resume"
                )
            taken = np.load(self._path(i), mmap_mode="r")[inside : inside + m]
            found.append(torch.from_numpy(np.array(taken, np.float64)))
            first, m = first + len(taken), m - len(taken)
        return torch.cat(found) if found else torch.empty(0, *self.shape, dtype=torch.float64)

    def _path(self, i: int) -> Path:
        return self.folder / f"{i:06d}.npy"

    def _is_whole(self, i: int) -> bool:
        try:
            found = np.load(self._path(i), mmap_mode="r")
        except (OSError, ValueError, EOFError):
            return False
        return found.dtype == np.float32 and found.shape == (self.part(i)[1], *self.shape)


def begin_shards(
    folder: Path,
    about: Mapping[str, object],
    n: int,
    shape: tuple[int, ...],
    size: int | None = None,
    force: bool = False,
    resume: bool = False,
) -> Shards:
    """A folder for n samples, which is made; or one that was begun, to go on with.

    Args:
        folder: its parent must exist.
        about: what determines the samples; JSON.
        n: how many.
        shape: of a sample.
        size: how many a part holds; None: `NUMBERS` numbers' worth.
        force: replace what is there.
        resume: go on; all else must be as it was.

    Raises:
        ValueError: a folder that is not empty; or to go on with, that holds no samples or others.
        OSError: it cannot be written.
    """
    if size is None:
        size = max(1, NUMBERS // max(1, int(np.prod(shape))))
    values = {**about, "n": n, "size": size, "shape": list(shape)}
    if resume:
        kept = read_manifest(folder)
        for key in sorted({*kept, *values}):
            if json.loads(json.dumps(values.get(key))) != kept.get(key):
                raise ValueError(
                    f"{folder}: its samples were begun with {key} = {kept.get(key)!r}, and this "
                    f"has {values.get(key)!r}: go on as they were begun, or name another folder"
                )
        return Shards(folder, n, size, shape)
    check_folder(folder, force)
    folder.mkdir(exist_ok=True)
    for old in _parts(folder):
        old.unlink()
    with writing(folder / MANIFEST) as temporary:
        temporary.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    return Shards(folder, n, size, shape)


def read_manifest(folder: Path) -> dict[str, object]:
    """What the samples in a folder were begun as.

    Raises:
        ValueError: it holds none, or what says so is damaged.
    """
    try:
        values = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(
            f"{folder} holds no {MANIFEST}: no samples were begun there; leave out --resume"
        ) from None
    except (ValueError, OSError) as error:
        raise ValueError(f"{folder / MANIFEST} cannot be read ({error}): draw them anew") from None
    if not isinstance(values, dict):
        raise ValueError(f"{folder / MANIFEST} holds no object: draw the samples anew")
    return values


def open_shards(folder: Path) -> Shards:
    """The samples in a folder.

    Raises:
        ValueError: it holds none, or what says how many is damaged.
    """
    values = read_manifest(folder)
    n, size, shape = (values.get(key) for key in ("n", "size", "shape"))
    if not (
        isinstance(n, int)
        and isinstance(size, int)
        and min(n, size) > 0
        and isinstance(shape, list)
        and all(isinstance(side, int) and side > 0 for side in shape)
    ):
        raise ValueError(f"{folder / MANIFEST} is damaged: draw the samples anew")
    return Shards(folder, n, size, tuple(shape))


def is_shards(path: str) -> bool:
    """Whether samples were begun in a folder."""
    return os.path.isfile(os.path.join(path, MANIFEST))


def _parts(folder: Path) -> Iterator[Path]:
    return (p for p in folder.glob("[0-9]*.npy") if p.stem.isdigit())
