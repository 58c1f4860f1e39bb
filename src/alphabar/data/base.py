"""What every data set is: items x_0 ~ p(x_0), each with a hue by which it can be followed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64
from torch import Tensor

from alphabar.arguments import check_number, check_seed, check_whole
from alphabar.spec import Family, Named

if TYPE_CHECKING:
    from alphabar.targets import Target

MAX_N = 100_000_000
MAX_SEED = 2**32 - 2  # 1 + seed must still be one 32-bit word: see `generated`

DATA = Family("data set")


@dataclass(frozen=True, eq=False)
class Data(Named):
    """Items x_0, each with a hue in [0, 1] by which it can be followed.

    Args:
        x: points, (N, d) float64, or pictures, (N, C, H, W) float32 in [-1, 1].
        hue: (N,), where the item is on its shape: along the curve, or around the centre.
        columns: the names of the d coordinates; () for pictures.
        labels: (N,), the class or component of each item, where there are such.
        fresh: `fresh(n, seed)` draws n new x from the same p(x_0), independent of these and of
            those of every other seed; None where p(x_0) is known by these items alone.
        target: makes the exact p(x_0), where it is known: see `alphabar.targets.target_of`.
        held_out: which items are never to be learned from, where that is fixed once for all.
        classes: the name of each class, where they have names.
    """

    x: Float64[Tensor, "N d"] | Float32[Tensor, "N C H W"]
    hue: Float64[Tensor, " N"]
    columns: tuple[str, ...] = ()
    labels: Int64[Tensor, " N"] | None = None
    fresh: Callable[[int, int], Tensor] | None = None
    target: Callable[[], "Target"] | None = None
    held_out: Int64[Tensor, " m"] | None = None
    classes: tuple[str, ...] = ()

    @property
    def kind(self) -> Literal["points", "pictures"]:
        """Whether `x` is (N, d) or (N, C, H, W)."""
        return "points" if self.x.ndim == 2 else "pictures"

    def __len__(self) -> int:
        return len(self.x)


def every_fifth(labels: Int64[Tensor, " N"]) -> Int64[Tensor, " m"]:
    """Of each class every fifth item, in order: the same whatever the seed."""
    place = torch.empty_like(labels)
    for label in torch.unique(labels):
        rows = (labels == label).nonzero().flatten()
        place[rows] = torch.arange(len(rows))
    return (place % 5 == 4).nonzero().flatten()


class Draw(NamedTuple):
    """n points of a shape in the plane, before they become tensors."""

    x: Float64[np.ndarray, "n 2"]
    hue: Float64[np.ndarray, " n"]
    labels: Int64[np.ndarray, " n"] | None = None


Randomness = int | np.random.SeedSequence


def generated(
    draw: Callable[[int, Randomness], Draw],
    n: int,
    seed: int,
    target: Callable[[], "Target"] | None = None,
) -> Data:
    """The data set whose points, and fresh points, are what `draw(n, randomness)` gives.

    `target` makes the law that `draw` draws from, where it is known exactly.
    """
    n, seed = check_count("n", n), check_seed(seed, MAX_SEED)
    own = draw(n, seed)

    def fresh(n: int, fresh_seed: int) -> Float64[Tensor, "n 2"]:
        # The seed alone is the words [seed, 0, 0, 0], so 1 + fresh_seed never repeats the set.
        words = [seed, 1 + check_seed(fresh_seed, MAX_SEED)]
        return _tensor(draw(check_count("n", n), np.random.SeedSequence(words)).x)

    labels = None if own.labels is None else torch.from_numpy(own.labels)
    return Data(_tensor(own.x), _tensor(own.hue.clip(0, 1)), ("x", "y"), labels, fresh, target)


def check_count(name: str, value: int, high: int = MAX_N) -> int:
    """A whole number from 1 to `high`, or an error that says so."""
    return check_whole(name, value, 1, high)


def check_noise(value: float, name: str = "noise") -> float:
    """A standard deviation of noise, or an error that says what one is."""
    return check_number(name, value, 0, 1000, "a standard deviation from 0 to 1000, such as 0.05")


def _tensor(array: Float64[np.ndarray, "..."]) -> Float64[Tensor, "..."]:
    return torch.from_numpy(np.ascontiguousarray(array))
