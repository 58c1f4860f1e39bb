"""How far a set of points is from the truth, beside how far the truth is from itself.

    SW2² = mean over directions θ of (1/n) Σ_i (i-th smallest θ·x − truth's quantile at (i+½)/n)²

The sliced Wasserstein-2 distance (Bonneel et al. 2015). A finite set is never at distance 0: its
floor is the distance of fresh true sets of the same size. ratio = √(SW2²/floor²) is 1 for truth.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor

REFERENCE = 200_000  # points that stand for the truth
FLOOR_SETS = 200  # true sets that measure the floor


class Score(NamedTuple):
    """SW2 in data units; `ratio` is value/floor, 1 for truth."""

    value: float
    floor: float
    ratio: float
    draws: int


def directions(d: int) -> Float64[Tensor, "d k"]:
    """Unit vectors to project on: 64 even ones in the plane, else 128 fixed random ones."""
    if d == 2:
        angle = math.pi * torch.arange(64, dtype=torch.float64) / 64
        return torch.stack([angle.cos(), angle.sin()])
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(d, 128, generator=generator, dtype=torch.float64)
    return v / v.norm(dim=0)


class SlicedW2:
    """Squared sliced Wasserstein-2 distance of sets of n points to a reference set.

    Args:
        reference: points that stand for the truth, (R, d).
        n: how many points the sets to be measured have.

    Raises:
        ValueError: fewer than two points.
    """

    def __init__(self, reference: Float[Tensor, "R d"], n: int) -> None:
        if min(len(reference), n) < 2:
            raise ValueError(
                f"{n} points against {len(reference)}: a distance needs two or more of each"
            )
        self.directions = directions(reference.shape[1])
        projected = self._sorted(reference)
        # The empirical quantile function, linear between the points (k + ½)/R.
        at = ((torch.arange(n, dtype=torch.float64) + 0.5) / n * len(reference) - 0.5).clamp(
            0, len(reference) - 1
        )
        low = at.long().clamp(max=len(reference) - 2)
        self.quantiles = torch.lerp(projected[:, low], projected[:, low + 1], at - low)

    def _sorted(self, x: Float[Tensor, "n d"]) -> Float64[Tensor, "k n"]:
        return (x.double() @ self.directions).T.contiguous().sort(1).values

    def __call__(self, x: Float[Tensor, "n d"]) -> float:
        """SW2² of x, in squared data units.

        Raises:
            ValueError: x has another number of points or columns than was announced.
        """
        expected = (self.quantiles.shape[1], len(self.directions))
        if tuple(x.shape) != expected:
            raise ValueError(f"x has shape {tuple(x.shape)}: it must be {expected}")
        return (self._sorted(x) - self.quantiles).square().mean().item()


@dataclass(frozen=True)
class Yardstick:
    """A distance to the truth, and the floor that truth itself would score on it.

    Args:
        distance: SW2² of a set of n points.
        floor: mean SW2² of true sets of n points.

    Raises:
        ValueError: a floor of 0 (data that do not vary), or one that is not finite.
    """

    distance: SlicedW2
    floor: float

    def __post_init__(self) -> None:
        if not 0 < self.floor < math.inf:
            raise ValueError(
                f"sets of these data are {self.floor:g} from one another, so there is no distance "
                "to compare with: give data that vary, with numbers below 1e150"
            )

    def score(self, draws: Sequence[Float[Tensor, "n d"]]) -> Score:
        """The score of independent sets of n samples each."""
        squares = [self.distance(x) for x in draws]
        value = sum(squares) / len(squares)
        ratio = math.sqrt(value / self.floor)
        return Score(math.sqrt(value), math.sqrt(self.floor), ratio, len(squares))


def against_fresh(n: int, fresh: Callable[[int, int], Float[Tensor, "m d"]]) -> Yardstick:
    """The yardstick for sets of n points, where the truth can be drawn afresh.

    Args:
        n: points in a set that will be scored.
        fresh: (m, seed) → m true points.
    """
    distance = SlicedW2(fresh(REFERENCE, 0), n)
    floor = [distance(fresh(n, 1 + i)) for i in range(FLOOR_SETS)]
    return Yardstick(distance, sum(floor) / FLOOR_SETS)


def against_held_out(used: Float[Tensor, "n d"], held_out: Float[Tensor, "m d"]) -> Yardstick:
    """The yardstick for sets of n points, where there is a file and half of it was held out.

    The floor is what two random parts of the file, of these sizes, are from each other: samples
    as good as the file's own rows score 1.

    Args:
        used: the rows that were trained on; a set that will be scored has as many.
        held_out: the others.
    """
    n, both = len(used), torch.cat([used, held_out])
    generator = torch.Generator().manual_seed(0)
    floor = 0.0
    for _ in range(FLOOR_SETS):
        shuffled = both[torch.randperm(len(both), generator=generator)]
        floor += SlicedW2(shuffled[n:], n)(shuffled[:n]) / FLOOR_SETS
    return Yardstick(SlicedW2(held_out, n), floor)
