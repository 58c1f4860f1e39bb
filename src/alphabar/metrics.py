"""How far a set of points is from the truth, beside how far the truth is from itself.

    SW2² = mean over directions θ of (1/n) Σ_i (i-th smallest θ·x − truth's quantile at (i+½)/n)²

The sliced Wasserstein-2 distance (Bonneel et al. 2015). A finite set is never at distance 0: its
floor is the distance of fresh true sets of the same size. ratio = √(SW2²/floor²) is 1 for truth.
"""

import math
from collections.abc import Callable, Iterable
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


def score_against_fresh(
    draws: Iterable[Float[Tensor, "n d"]],
    n: int,
    fresh: Callable[[int, int], Float[Tensor, "m d"]],
) -> Score:
    """The score of samples, where the truth can be drawn afresh.

    Args:
        draws: independent sets of n samples.
        n: points a set.
        fresh: (n, seed) → n true points.
    """
    distance = SlicedW2(fresh(REFERENCE, 0), n)
    floor = [distance(fresh(n, 1 + i)) for i in range(FLOOR_SETS)]
    return _score([distance(x) for x in draws], floor)


def score_against_held_out(
    draws: Iterable[Float[Tensor, "n d"]],
    used: Float[Tensor, "n d"],
    held_out: Float[Tensor, "m d"],
) -> Score:
    """The score of samples against the half of a file that was not trained on.

    The floor is what two random parts of the file, of these sizes, are from each other: samples
    as good as the data themselves score 1.

    Args:
        draws: independent sets of as many samples as `used` has points.
        used: the points that were trained on.
        held_out: the others.
    """
    n, both = len(used), torch.cat([used, held_out])
    generator = torch.Generator().manual_seed(0)
    floor = []
    for _ in range(FLOOR_SETS):
        shuffled = both[torch.randperm(len(both), generator=generator)]
        floor.append(SlicedW2(shuffled[n:], n)(shuffled[:n]))
    distance = SlicedW2(held_out, n)
    return _score([distance(x) for x in draws], floor)


def _score(squares: list[float], floor: list[float]) -> Score:
    value, lowest = sum(squares) / len(squares), sum(floor) / len(floor)
    return Score(value**0.5, lowest**0.5, (value / lowest) ** 0.5, len(squares))
