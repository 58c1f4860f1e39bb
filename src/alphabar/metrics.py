"""How far a set of points is from the truth: every number here is 0, or 1, at its best, and never
quite that for a finite set. `evaluate` puts each beside what truth itself would score.

    SW2² = mean over directions θ of (1/n) Σ_i (i-th smallest θ·x − truth's quantile at (i+½)/n)²
    W2²  = min over pairings π of (1/n) Σ_i ‖x_i − y_π(i)‖²
    KS   = max over θ and t of |share of θ·x ≤ t − share of θ·y ≤ t|
    E²   = 2·E‖X − Y‖ − E‖X − X'‖ − E‖Y − Y'‖          the same with −k(·,·) for ‖· − ·‖: MMD²

Bonneel et al. 2015 (sliced Wasserstein-2); Székely & Rizzo 2013 (energy); Gretton et al. 2012
(MMD). A finite set is never at distance 0: its floor is the distance of fresh true sets of the same
size. ratio = √(SW2²/floor²) is 1 for truth.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

REFERENCE = 200_000  # points that stand for the truth
FLOOR_SETS = 200  # true sets that measure the floor
NEIGHBOURS = 5  # k of precision, recall, density and coverage
ROUNDING = 1e-6  # of the largest number: what going through float32 and back may move a point by
WIDTHS = (0.5, 1.0, 2.0)  # of the MMD's kernels, in units of the median distance
FEW_COLUMNS = 16  # up to here distances are taken difference by difference
TREE_COLUMNS = 8  # up to here a tree finds the nearest point
CHUNK = 2**23  # distances held at a time


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

    def _projected(self, x: Float[Tensor, "n d"]) -> Float64[Tensor, "k n"]:
        return (x.detach().double() @ self.directions).T.contiguous()

    def _sorted(self, x: Float[Tensor, "n d"]) -> Float64[Tensor, "k n"]:
        # NumPy sorts the same numbers ten times as fast as torch on one core.
        return torch.from_numpy(np.sort(self._projected(x).numpy(), axis=1))

    def sorted_projections(self, x: Float[Tensor, "n d"]) -> Float64[Tensor, "k n"]:
        """θ·x, rising, for each direction θ.

        Raises:
            ValueError: x has another number of points or columns than was announced.
        """
        expected = (self.quantiles.shape[1], len(self.directions))
        if tuple(x.shape) != expected:
            raise ValueError(f"x has shape {tuple(x.shape)}: it must be {expected}")
        return self._sorted(x)

    def __call__(self, x: Float[Tensor, "n d"]) -> float:
        """SW2² of x, in squared data units.

        Raises:
            ValueError: x has another number of points or columns than was announced.
        """
        return self.of_sorted(self.sorted_projections(x))

    def of_sorted(self, projections: Float64[Tensor, "k n"]) -> float:
        """SW2² of points whose sorted projections these are."""
        return (projections - self.quantiles).square().mean().item()

    def variance(self, x: Float[Tensor, "n d"]) -> float:
        """Var of SW2² over sets like x, as far as it is linear in the points: Var[φ(x)]/n.

        φ = mean over θ of φ_θ(θ·x) with φ_θ' = 2·(identity − transport map), the potential of the
        one-dimensional problem. It vanishes for the truth itself, where the spread is of the
        second order; of a finite true set it comes out at about twice that spread.

        Source: del Barrio & Loubes 2019, theorem 4.1.
        """
        projected, order = self._projected(x).sort(1)
        apart = projected - self.quantiles
        steps = projected.diff(dim=1) * (apart[:, 1:] + apart[:, :-1])
        potential = torch.zeros_like(projected)
        potential[:, 1:] = steps.cumsum(1)
        each = torch.zeros_like(projected).scatter_(1, order, potential).mean(0)
        return (each.var() / len(x)).item()


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


class Trials(NamedTuple):
    """What sets of n points are measured by, and `FLOOR_SETS` true sets, each with its measure."""

    distance: SlicedW2
    floor: Iterator[tuple[SlicedW2, Float[Tensor, "n d"]]]

    def yardstick(self, advance: Callable[[], None] = lambda: None) -> Yardstick:
        """The mean of the true sets; `advance` is called after each."""
        floor = 0.0
        for distance, x in self.floor:
            floor += distance(x) / FLOOR_SETS
            advance()
        return Yardstick(self.distance, floor)


def trials_fresh(n: int, fresh: Callable[[int, int], Float[Tensor, "m d"]]) -> Trials:
    """Sets of n points, where the truth can be drawn afresh: seed 0 for the reference, then 1…."""
    distance = SlicedW2(fresh(REFERENCE, 0), n)
    return Trials(distance, ((distance, fresh(n, 1 + i)) for i in range(FLOOR_SETS)))


def trials_held_out(used: Float[Tensor, "n d"], held_out: Float[Tensor, "m d"]) -> Trials:
    """Sets of as many points as were used of a file: against the others, and parts like these."""
    n, both = len(used), torch.cat([used, held_out])
    generator = torch.Generator().manual_seed(0)

    def floor() -> Iterator[tuple[SlicedW2, Tensor]]:
        for _ in range(FLOOR_SETS):
            shuffled = both[torch.randperm(len(both), generator=generator)]
            yield SlicedW2(shuffled[n:], n), shuffled[:n]

    return Trials(SlicedW2(held_out, n), floor())


def trials_rows(rows: Float[Tensor, "m d"], n: int) -> Trials:
    """Sets of n points against rows; true ones are drawn from them again, and so are the rows."""
    generator = torch.Generator().manual_seed(0)

    def again(size: int) -> Float[Tensor, "size d"]:
        return rows[torch.randint(len(rows), (size,), generator=generator)]

    floor = ((SlicedW2(again(len(rows)), n), again(n)) for _ in range(FLOOR_SETS))
    return Trials(SlicedW2(rows, n), floor)


def against_fresh(n: int, fresh: Callable[[int, int], Float[Tensor, "m d"]]) -> Yardstick:
    """The yardstick for sets of n points, where the truth can be drawn afresh.

    Args:
        n: points in a set that will be scored.
        fresh: (m, seed) → m true points.
    """
    return trials_fresh(n, fresh).yardstick()


def against_held_out(used: Float[Tensor, "n d"], held_out: Float[Tensor, "m d"]) -> Yardstick:
    """The yardstick for sets of n points, where there is a file and half of it was held out.

    The floor is what two random parts of the file, of these sizes, are from each other: samples
    as good as the file's own rows score 1.

    Args:
        used: the rows that were trained on; a set that will be scored has as many.
        held_out: the others.
    """
    return trials_held_out(used, held_out).yardstick()


class Gap(NamedTuple):
    """The largest distance between two empirical distribution functions in any direction."""

    value: float
    share: float  # of the first set below the place where it is

    def variance(self, n: int) -> float:
        """Var of the value over first sets of n points, the place held fixed: that of a share."""
        return self.share * (1 - self.share) / n


def ks_gap(a: Float64[Tensor, "k n"], b: Float64[Tensor, "k m"]) -> Gap:
    """Kolmogorov–Smirnov: max over k directions and t of |F_a(t) − F_b(t)|.

    Numbers within 1e-9 of one another, in units of the largest, count as equal: a projection of the
    same point may come out a rounding higher in another set.

    Args:
        a: sorted projections of one set.
        b: of the other.
    """
    largest = Gap(0.0, 0.0)
    n, m = a.shape[1], b.shape[1]
    above_a, above_b = np.arange(1, n + 1) / n, np.arange(1, m + 1) / m
    for x, y in zip(a.numpy(), b.numpy(), strict=True):
        slack = 1e-9 * max(abs(x[0]), abs(x[-1]), abs(y[0]), abs(y[-1]))
        # F_a − F_b is largest where F_a has just risen, and least where F_b has.
        over = above_a - np.searchsorted(y, x + slack, "right") / m
        below = np.searchsorted(x, y + slack, "right") / n
        under = above_b - below
        i, j = int(over.argmax()), int(under.argmax())
        largest = max(largest, Gap(over[i].item(), above_a[i].item()))
        largest = max(largest, Gap(under[j].item(), below[j].item()))
    return largest


def distances(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Float64[Tensor, "n m"]:
    """‖x_i − y_j‖.

    Beyond `FEW_COLUMNS` columns by a matrix product, about the mean of y; what is nearer than 1e-7
    of the farthest point's distance from it comes out as 0.
    """
    x, y = x.detach().double(), y.detach().double()
    if x.shape[1] <= FEW_COLUMNS:
        return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
    centre = y.mean(0)
    x, y = x - centre, y - centre
    apart = torch.cdist(x, y, compute_mode="use_mm_for_euclid_dist")
    reach = max(x.norm(dim=1).max().item(), y.norm(dim=1).max().item())
    return apart.masked_fill_(apart < 1e-7 * reach, 0)


def wasserstein2_squared(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> float:
    """W2² of two sets, in squared data units, by the network simplex: exact.

    Source: Bonneel et al. 2011, as in POT (Flamary et al. 2021).
    """
    import ot  # type: ignore[import-untyped]

    cost = distances(x, y).square_()
    scale = cost.max().item()
    if not 0 < scale < math.inf:
        return scale
    # The solver compares with absolute tolerances, so it is given numbers up to 1.
    return scale * float(ot.emd2([], [], (cost / scale).numpy(), numItermax=10**8))


class Manifold(NamedTuple):
    """How two sets overlap, by balls that reach from each point to its k-th nearest neighbour.

    precision: share of the samples within a ball of the true set.
    recall: share of the true points within a ball of the samples.
    density: how many balls of the true set a sample is in, over k; its mean. 1 for truth.
    coverage: share of the true set's balls that hold a sample.

    Source: Kynkäänniemi et al. 2019, eq. (1)–(2); Naeem et al. 2020, eq. (3) and (5).
    """

    precision: float
    recall: float
    density: float
    coverage: float


def manifold(x: Float[Tensor, "n d"], truth: Float[Tensor, "m d"], k: int = NEIGHBOURS) -> Manifold:
    """Precision, recall, density and coverage of x.

    A point on the rim of a ball is in it, so that points which are there several times count.

    Raises:
        ValueError: no more than k points on a side.
    """
    if min(len(x), len(truth)) <= k:
        raise ValueError(
            f"{len(x)} points against {len(truth)}: each must have a neighbour number {k}, so it "
            f"takes {k + 1} or more of each"
        )
    apart = distances(truth, x)
    around_truth, around_x = _radii(truth, k), _radii(x, k)
    within = apart <= around_truth[:, None]
    return Manifold(
        precision=within.any(0).double().mean().item(),
        recall=(apart <= around_x).any(1).double().mean().item(),
        density=within.double().sum(0).mean().item() / k,
        coverage=within.any(1).double().mean().item(),
    )


def _radii(x: Float[Tensor, "n d"], k: int) -> Float64[Tensor, " n"]:
    """The distance of each point to its k-th nearest other one, a rounding up."""
    return distances(x, x).topk(k + 1, dim=1, largest=False).values[:, k] * (1 + 1e-9)


def frechet_squared(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> float:
    """W2² of the normal laws that have the means and covariances of two sets.

        ‖m_x − m_y‖² + tr(C_x + C_y − 2·(C_x·C_y)^(1/2))

    With X, Y the centred sets over √(n − 1), C_x = XᵀX, the last trace is the sum of the singular
    values of X·Yᵀ, of which the triangular factors of X and Y are enough: no root of a matrix that
    may be singular. Of few points it is too large, so only sets of as many can be compared.

    Source: Dowson & Landau 1982; of features, Heusel et al. 2017, eq. (6).

    Raises:
        ValueError: fewer than two points in a set.
    """
    if min(len(x), len(y)) < 2:
        raise ValueError(f"{len(x)} points against {len(y)}: a covariance takes two or more")
    means, factors = [], []
    for points in (x.detach().double(), y.detach().double()):
        mean = points.mean(0)
        means.append(mean)
        scaled = (points - mean) / math.sqrt(len(points) - 1)
        factors.append(torch.linalg.qr(scaled, mode="r").R if len(points) > len(mean) else scaled)
    shift = (means[0] - means[1]).square().sum()
    own = factors[0].square().sum() + factors[1].square().sum()
    shared = torch.linalg.svdvals(factors[0] @ factors[1].T).sum()
    return max(0.0, (shift + own - 2 * shared).item())


def energy_squared(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> float:
    """E² = 2·E‖X − Y‖ − E‖X − X'‖ − E‖Y − Y'‖ of the two sets themselves: 0 or above.

    Source: Székely & Rizzo 2013, eq. (6.1).
    """

    def mean(a: Tensor, b: Tensor) -> float:
        return _sum(a, b, lambda apart: apart) / (len(a) * len(b))

    # At 0 a difference of roundings may be left, of either sign.
    return max(0.0, 2 * mean(x, y) - mean(x, x) - mean(y, y))


def mmd_squared(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"], widths: Sequence[float]) -> float:
    """MMD² by the U-statistic, whose mean is 0 for truth, so that it may be negative.

    The kernel is the mean of exp(−‖x − y‖²/(2·w²)) over the widths w, in data units.

    Source: Gretton et al. 2012, eq. (3).
    """

    def kernel(apart: Tensor) -> Tensor:
        squares = apart.square()
        total = torch.zeros_like(squares)
        for w in widths:
            total += (squares * (-0.5 / w**2)).exp_()
        return total / len(widths)

    def others(a: Tensor) -> float:
        return (_sum(a, a, kernel) - len(a)) / (len(a) * (len(a) - 1))

    return others(x) + others(y) - 2 * _sum(x, y, kernel) / (len(x) * len(y))


def _sum(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"], of: Callable[[Tensor], Tensor]) -> float:
    rows = max(1, CHUNK // len(y))
    return sum(of(distances(x[i : i + rows], y)).sum().item() for i in range(0, len(x), rows))


def median_distance(x: Float[Tensor, "n d"]) -> float:
    """The median distance between two points of x that are not in the same place; 0 if all are."""
    i, j = torch.triu_indices(len(x), len(x), 1)
    apart = distances(x, x)[i, j]
    apart = apart[apart > 0]
    return apart.median().item() if len(apart) else 0.0


class Nearest:
    """The distance of points to the nearest of a set, such as a training set.

    Args:
        training: the set.
    """

    def __init__(self, training: Float[Tensor, "N d"]) -> None:
        self.training = training.detach().double()
        # A tree that must be searched from end to end is slower than none.
        way = "kd_tree" if training.shape[1] <= TREE_COLUMNS else "brute"
        self._near = NearestNeighbors(n_neighbors=1, algorithm=way).fit(self.training.numpy())  # type: ignore[no-untyped-call]
        self._largest = self.training.abs().max().item()

    def __call__(self, x: Float[Tensor, "n d"]) -> Float64[Tensor, " n"]:
        """min over i of ‖x − training_i‖, in data units."""
        return torch.from_numpy(self._near.kneighbors(x.detach().double().numpy())[0][:, 0])

    def slack(self, x: Float[Tensor, "n d"]) -> float:
        """As near as this, a point of x is a copy: it may have been through float32."""
        return ROUNDING * (self._largest + x.abs().max().item())
