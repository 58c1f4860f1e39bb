"""What samples are worth: each measure beside its floor, what truth itself scores, and an interval.

    value = mean of m(X), X a set of n samples      floor = mean of m(Y), Y a true set of n points
    value ± t·s/√k           over k ≥ 5 independent sets, t of k − 1 degrees of freedom
    value ± 1.96·√(Var/k)    over fewer, Var that of one set, by its own points
    and no narrower than value ± 1.96·√(Var/k) with the Var of true sets
    p = the chance that as many true sets, in place of the samples, look at least as bad

A distance of a finite set is never 0, so the interval is of the mean that sets of n points have, as
the floor is. Nothing is drawn with replacement: twins would be nearer to one another than samples
are. Measures that compare every point with every other are taken on disjoint parts of the draws,
each against true points of its own: five parts or more, so that there is a spread to go by.
Distances are averaged squared, as the score is: value = √(mean of m²), and the half-width of the
interval of the squares is divided by 2·value, the slope of the square.

Each measure's source is in `metrics`.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64
from scipy import stats  # type: ignore[import-untyped]
from torch import Tensor

from alphabar.arguments import check_seed
from alphabar.compare import SET, Halves
from alphabar.data import Data, Standardiser
from alphabar.metrics import (
    FLOOR_SETS,
    NEIGHBOURS,
    TREE_COLUMNS,
    WIDTHS,
    Manifold,
    Nearest,
    Trials,
    energy_squared,
    ks_gap,
    manifold,
    median_distance,
    mmd_squared,
    trials_fresh,
    trials_held_out,
    trials_rows,
    wasserstein2_squared,
)
from alphabar.schedule import Level
from alphabar.targets import Target

SETS = 5  # sets whose spread is an interval
MEAN_SETS = 10  # the same of measures that cost no more, and lose nothing, on small sets
MOST_SETS = 20  # sets that are measured, at most; the score takes all there are
TRUE_SETS = 50  # for a floor, where `metrics.FLOOR_SETS` and `PAIRED` say nothing else
NEAR = 0.01  # the share of true points that come nearer to a training point than `near`
LEAST_TRUE = 2_000  # true points that say what is near, where they can be drawn afresh
PRODUCTS = 10**11  # that may be spent on nearest points in many columns
RELABELLED = 1_999  # times, for a p-value
SURE = 0.95

Advance = Callable[[], None]
Better = Literal["low", "high", "floor"]
Pair = tuple[Tensor, Tensor]
Numbers = Float64[np.ndarray, " _"]


class Metric(NamedTuple):
    """What a number means."""

    summary: str
    better: Better  # which way is better; `floor`: truth has neither more nor less
    is_default: bool = True
    is_squared: bool = False  # averaged as a square and reported as its root
    bounds: tuple[float, float] = (0, math.inf)


SHARE = (0.0, 1.0)
ANY = (-math.inf, math.inf)
METRICS: dict[str, Metric] = {
    "sliced_w2": Metric("sliced Wasserstein-2 distance: the score", "low", is_squared=True),
    "wasserstein2": Metric("exact Wasserstein-2 distance", "low", is_squared=True),
    "ks": Metric(
        "largest gap between distribution functions, in any direction", "low", bounds=SHARE
    ),
    "precision": Metric("share of samples that are where true points are", "high", bounds=SHARE),
    "recall": Metric("share of true points that are where samples are", "high", bounds=SHARE),
    "density": Metric(
        "true points around a sample, 1 where they are as many as should be", "floor"
    ),
    "coverage": Metric(
        "share of true points with a sample among their neighbours", "high", bounds=SHARE
    ),
    "nearest_train": Metric("median distance to the nearest training point", "floor"),
    "memorised": Metric(
        "share nearer to a training point than 99% of true points", "low", bounds=SHARE
    ),
    "copies": Metric("share that are training points, up to rounding", "low", bounds=SHARE),
    "nll": Metric("mean of −log p(x) in nats an item; floor: entropy", "floor", bounds=ANY),
    "energy": Metric("energy distance", "low", is_default=False, is_squared=True),
    "mmd": Metric(
        "squared maximum mean discrepancy, unbiased", "low", is_default=False, bounds=ANY
    ),
}
DEFAULT = tuple(name for name, metric in METRICS.items() if metric.is_default)
PROJECTED = ("sliced_w2", "ks")
MEMORY = ("nearest_train", "memorised", "copies")


@dataclass(frozen=True)
class Measured:
    """A measure of samples, beside what truth scores.

    Args:
        value: the mean over the sets; None where it could not be had, and `reason` says why.
        low: where its 95% confidence interval begins; None where one set is all there is.
        high: where it ends.
        floor: the mean over true sets of n points.
        floor_sd: the standard deviation from one true set to the next.
        ratio: value/floor; None where the floor is 0 or may be negative.
        p_value: the chance that truth looks as bad: worse than the floor, or where `better` is
            `floor` as far from it on either side.
        draws: independent sets that were measured.
        n: points in each.
        better: `low`, `high`, or `floor` where truth has neither more nor less.
        interval: what low and high come from: `sets`, the spread of the sets; `points`, the spread
            within them.
        reason: why there is no value, or no interval.
        floor_low: where the interval of the floor begins, where it is not the mean of many sets;
        floor_high: where it ends.
    """

    value: float | None
    low: float | None
    high: float | None
    floor: float | None
    floor_sd: float | None
    ratio: float | None
    p_value: float | None
    draws: int
    n: int
    better: Better
    interval: Literal["sets", "points"] | None
    reason: str | None
    floor_low: float | None = None
    floor_high: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


class Found(NamedTuple):
    """A measure of sets of samples and of true sets, of n points each."""

    values: Sequence[float]
    floors: Sequence[float]
    n: int
    variances: Sequence[float] | None = None  # of each value, from its own points


Outcome = Found | str  # or why it cannot be had


# --- what stands for the truth


class Reference(ABC):
    """The truth that samples are measured against."""

    name: str
    columns: int

    def largest(self) -> int:
        """The most points of a set that `trials` can be for."""
        return SET

    @abstractmethod
    def trials(self, n: int) -> Trials:
        """What the score measures sets of n points by; the same for every seed."""

    @abstractmethod
    def room(self, count: int) -> int:
        """The most points that each of `count` disjoint sets can have."""

    @abstractmethod
    def sets(self, count: int, n: int, seed: int, stream: int) -> list[Float[Tensor, "n d"]]:
        """Disjoint sets of n true points; another stream, other sets."""

    @abstractmethod
    def pairs(self, count: int, n: int, seed: int, stream: int) -> Iterator[Pair]:
        """Two disjoint sets of n true points, `count` times."""


class Fresh(Reference):
    """Points that can be drawn afresh.

    Args:
        fresh: (m, seed) → m true points, as of `Data.fresh`.
    """

    name = "fresh points"

    def __init__(self, fresh: Callable[[int, int], Float[Tensor, "m d"]]) -> None:
        self._fresh = fresh
        self.columns = fresh(2, 0).shape[1]

    def trials(self, n: int) -> Trials:
        """Against `metrics.REFERENCE` fresh points."""
        return trials_fresh(n, self._fresh)

    def room(self, count: int) -> int:
        """No more than the score takes."""
        return SET

    def _drawn(self, count: int, n: int, seed: int, stream: int) -> Iterator[Float[Tensor, "n d"]]:
        # Seeds above those of the score's sets and below those of the study's.
        first = 2**20 * (1 + seed % 2000) + 2**16 * stream
        return (self._fresh(n, first + i) for i in range(count))

    def sets(self, count: int, n: int, seed: int, stream: int) -> list[Float[Tensor, "n d"]]:
        """Fresh points."""
        return list(self._drawn(count, n, seed, stream))

    def pairs(self, count: int, n: int, seed: int, stream: int) -> Iterator[Pair]:
        """Fresh points."""
        drawn = self._drawn(2 * count, n, seed, stream)
        return zip(drawn, drawn, strict=True)


class _File(Reference):
    """Rows of a file: those that samples are measured against, and all there are."""

    def __init__(self, against: Float[Tensor, "m d"], rows: Float[Tensor, "N d"]) -> None:
        self._against, self._rows = against, rows
        self.columns = rows.shape[1]

    def room(self, count: int) -> int:
        """What the rows allow; a floor takes two sets."""
        return len(self._against) // max(2, count)

    def sets(self, count: int, n: int, seed: int, stream: int) -> list[Float[Tensor, "n d"]]:
        """Parts of the rows that samples are measured against."""
        shuffled = _shuffled(self._against, seed, stream)
        return _cut([shuffled], n, count)

    def pairs(self, count: int, n: int, seed: int, stream: int) -> Iterator[Pair]:
        """Two parts of all the rows; other ones each time, though not independent of the others."""
        for i in range(count):
            shuffled = _shuffled(self._rows, seed, 2**16 * stream + 1 + i)
            yield shuffled[:n], shuffled[n : 2 * n]


class HeldOut(_File):
    """The half of a file that nothing was trained on.

    Args:
        used: the rows that were trained on.
        held_out: the others.
    """

    name = "the held-out half of the file"

    def __init__(self, used: Float[Tensor, "n d"], held_out: Float[Tensor, "m d"]) -> None:
        super().__init__(held_out, torch.cat([used, held_out]))
        self._used = used

    def largest(self) -> int:
        """As many as were used: its floor is that of other halves."""
        return min(SET, len(self._used))

    def trials(self, n: int) -> Trials:
        """Against the held-out half; true sets are other halves."""
        return trials_held_out(self._used[:n], self._against[:SET])


class Rows(_File):
    """All the rows of a file that is not known to have been trained on.

    Args:
        rows: these.
    """

    name = "the rows of the file"

    def __init__(self, rows: Float[Tensor, "m d"]) -> None:
        super().__init__(rows, rows)

    def trials(self, n: int) -> Trials:
        """Against the rows; true sets are drawn from them again, and so are the rows."""
        return trials_rows(_shuffled(self._rows, 0, 0)[:SET], n)


# --- the measures


class Paired(NamedTuple):
    """Measures of a set and a true one, all of one function.

    Args:
        names: what it returns.
        of: from a true set, (x, y) → the numbers.
        least: points that a set must have.
        most: points that it is given, as the cost grows with their square or cube.
        sets: sets that are measured, at most.
        true_sets: pairs of true sets for the floor.
    """

    names: tuple[str, ...]
    of: Callable[[Tensor], Callable[[Tensor, Tensor], tuple[float, ...]]]
    least: int
    most: int
    sets: int
    true_sets: int


def _mmd(truth: Tensor) -> Callable[[Tensor, Tensor], tuple[float, ...]]:
    median = median_distance(truth[:1000])
    if not 0 < median < math.inf:
        raise ValueError(f"points a median of {median:g} apart: a kernel needs a width")
    widths = [w * median for w in WIDTHS]
    return lambda x, y: (mmd_squared(x, y, widths),)


def _alone(
    of: Callable[[Tensor, Tensor], float],
) -> Callable[[Tensor], Callable[[Tensor, Tensor], tuple[float, ...]]]:
    return lambda truth: lambda x, y: (of(x, y),)


# Places in this list are part of the seeds.
PAIRED = (
    Paired(("wasserstein2",), _alone(wasserstein2_squared), 10, 2_000, 5, 10),
    Paired(Manifold._fields, lambda truth: manifold, 4 * NEIGHBOURS, 2_000, 10, 20),
    Paired(("energy",), _alone(energy_squared), 10, 5_000, 10, 20),
    Paired(("mmd",), _mmd, 10, 5_000, 10, 20),
)


def chosen(which: Sequence[str] | None) -> tuple[str, ...]:
    """The names of metrics, in their order; `DEFAULT` for None.

    Raises:
        ValueError: one that there is not, or none.
    """
    if which is None:
        return DEFAULT
    unknown = [name for name in which if name not in METRICS]
    if unknown or not which:
        given = repr(unknown[0]) if unknown else "none"
        raise ValueError(f"metric {given}: choose among {', '.join(METRICS)}")
    return tuple(name for name in METRICS if name in which)


def evaluation_length(which: Sequence[str] | None = None) -> int:
    """How often `evaluate` moves its progress bar, at most."""
    names = set(chosen(which))
    length = FLOOR_SETS if "sliced_w2" in names else TRUE_SETS if "ks" in names else 0
    length += sum(p.sets + p.true_sets for p in PAIRED if names & {*p.names})
    return length + (1 if names & {*MEMORY} else 0) + (TRUE_SETS if "nll" in names else 0)


def evaluate(
    draws: Sequence[Float[Tensor, "n d"]],
    reference: Reference,
    training: Float[Tensor, "N d"] | None = None,
    target: Target | None = None,
    which: Sequence[str] | None = None,
    seed: int = 0,
    advance: Advance = lambda: None,
) -> dict[str, Measured]:
    """What samples are worth, by each of the metrics.

    A metric that cannot be had has a reason in place of numbers: `nearest_train`, `memorised`
    and `copies` need the training points, and `nll` a target that has a density.

    Args:
        draws: independent sets of samples, in the units of everything else here.
        reference: what stands for the truth.
        training: the points that the samples' maker has seen.
        target: the exact law, where it is known.
        which: names in `METRICS`; None for the default ones.
        seed: determines which parts are compared, and with what; the score does not depend on it
            where a draw has no more than `compare.SET` points.
        advance: called `evaluation_length(which)` times at most.

    Raises:
        ValueError: an unknown metric; no draw, draws of different shapes, too few points, other
            columns than the truth's, a number that is not finite.
    """
    names = chosen(which)
    check_seed(seed)
    sets = _checked(draws, reference.columns, seed)
    found: dict[str, Outcome] = {}
    if {*names} & {*PROJECTED}:
        found |= _projected(sets, reference, names, advance)
    for place, paired in enumerate(PAIRED):
        if {*names} & {*paired.names}:
            found |= _compared(sets, reference, paired, seed, 2 * place + 1, advance)
    if {*names} & {*MEMORY}:
        found |= _remembered(sets, reference, training, seed)
        advance()
    if "nll" in names:
        found["nll"] = _likelihood(sets, target, seed, advance)
    return {name: measured(METRICS[name], found[name]) for name in names}


def evaluation(
    draws: Sequence[Float[Tensor, "n d"]],
    data: Data,
    standardiser: Standardiser | None = None,
    parts: Halves | None = None,
    training: Float[Tensor, "N d"] | None = None,
    which: Sequence[str] | None = None,
    seed: int = 0,
    advance: Advance = lambda: None,
) -> dict[str, Any]:
    """What samples are worth against a data set, as the command line's JSON has it.

    Distances are in standardised units where a standardiser is given, and `nll` is in the data's
    own.

    Args:
        draws: independent sets of samples, in the data's units.
        data: points.
        standardiser: applied to both, where given.
        parts: which rows of a file stand for the truth; None: all of them.
        training: the points that the samples' maker has seen, in the data's units; None: not known.
        which: names in `METRICS`; None for the default ones.
        seed: see `evaluate`.
        advance: called `evaluation_length(which)` times at most.

    Raises:
        ValueError: pictures, and as of `evaluate`.
    """
    if data.kind != "points":
        raise ValueError(f"{data.spec} holds pictures: evaluate compares points; give data of them")
    names = chosen(which)
    scale = (lambda x: x) if standardiser is None else standardiser.apply
    fresh = data.fresh
    reference: Reference
    if fresh is not None:
        reference = Fresh(lambda n, key: scale(fresh(n, key)))
    elif parts is not None:
        reference = HeldOut(scale(data.x[parts.used]), scale(data.x[parts.held_out]))
    else:
        reference = Rows(scale(data.x))
    seen = None if training is None else scale(training)
    found = {}
    scaled = [name for name in names if name != "nll"]
    points = [scale(x.double()) for x in draws]
    if scaled:
        found = evaluate(points, reference, seen, None, scaled, seed, advance)
    if "nll" in names:
        law = None if data.target is None else data.target()
        found |= evaluate(draws, reference, None, law, ["nll"], seed, advance)
    return {
        "metrics": {name: found[name].to_dict() for name in names},
        "against": data.spec,
        "reference": reference.name,
        "n": len(draws[0]),
        "draws": len(draws),
        "seed": seed,
        "standardised": standardiser and standardiser.to_dict(),
    }


# --- sets of samples


def _checked(
    draws: Sequence[Float[Tensor, "n d"]], columns: int, seed: int
) -> list[Float64[Tensor, "n d"]]:
    """The draws, shuffled: the rows of a file may be sorted."""
    if not draws:
        raise ValueError("no draws: give one set of samples at least")
    shape = tuple(draws[0].shape)
    for i, x in enumerate(draws):
        if tuple(x.shape) != shape:
            raise ValueError(
                f"draw {i} has shape {tuple(x.shape)} and draw 0 {shape}: give sets of as many "
                "samples each"
            )
        wrong = int((~x.isfinite()).any(1).sum())
        if wrong:
            raise ValueError(
                f"draw {i} holds NaN or infinity in {wrong} of its {len(x)} samples: every number "
                "must be finite; see where the sampler left them, or drop those rows"
            )
    if shape[1] != columns:
        raise ValueError(
            f"{shape[1]} columns against {columns}: samples are compared with points of as many "
            "columns; choose the columns first"
        )
    if shape[0] < 2:
        raise ValueError(f"{shape[0]} samples in a draw: a distance needs two or more")
    return [_shuffled(x.detach().double(), seed, -1 - i) for i, x in enumerate(draws)]


def _shuffled(x: Float[Tensor, "n d"], seed: int, stream: int) -> Float[Tensor, "n d"]:
    generator = torch.Generator().manual_seed((2**24 * seed + stream) % 2**63)
    return x[torch.randperm(len(x), generator=generator)]


def _cut(sets: Sequence[Tensor], n: int, most: int | None = None) -> list[Float[Tensor, "n d"]]:
    """Disjoint sets of n points."""
    cut = [x[i : i + n] for x in sets for i in range(0, len(x) - n + 1, n)]
    return cut[:most]


def _evenly(sets: Sequence[Tensor], most: int) -> list[Float[Tensor, "n d"]]:
    """`MEAN_SETS` disjoint parts or more of at most `most` points, and two at least."""
    each = max(1, min(math.ceil(MEAN_SETS / len(sets)), len(sets[0]) // 2))
    return _cut(sets, min(len(sets[0]) // each, most), MOST_SETS)


# --- each family of measures


def _projected(
    sets: Sequence[Tensor], reference: Reference, names: Sequence[str], advance: Advance
) -> dict[str, Outcome]:
    """sliced_w2 and ks, of the same projections."""
    n = min(len(sets[0]), SET, reference.largest())
    distance, floor = reference.trials(n)
    samples = _cut(sets, n)
    squares: list[float] = []
    gaps: list[float] = []
    scored = "sliced_w2" in names
    for i, (measure, x) in enumerate(islice(floor, None if scored else TRUE_SETS)):
        projections = measure.sorted_projections(x)
        squares.append(measure.of_sorted(projections))
        if "ks" in names and i < TRUE_SETS:
            gaps.append(ks_gap(projections, measure.quantiles).value)
        advance()
    found: dict[str, Outcome] = {}
    if scored:
        few = samples if len(samples) < SETS else []
        variances = [distance.variance(x) for x in few] or None
        found["sliced_w2"] = Found([distance(x) for x in samples], squares, n, variances)
    if "ks" in names:
        found_gaps = [
            ks_gap(distance.sorted_projections(x), distance.quantiles) for x in samples[:MOST_SETS]
        ]
        found["ks"] = Found(
            [gap.value for gap in found_gaps],
            gaps,
            n,
            [gap.variance(n) for gap in found_gaps],
        )
    return found


def _compared(
    sets: Sequence[Tensor],
    reference: Reference,
    paired: Paired,
    seed: int,
    stream: int,
    advance: Advance,
) -> dict[str, Outcome]:
    """Measures of disjoint parts of the draws, each against true points of its own."""
    parts = _parts(sets, reference, paired)
    if not parts:
        reason = (
            f"{len(sets[0])} samples in a draw against {reference.name}: it takes {paired.least} "
            "or more on each side"
        )
        return dict.fromkeys(paired.names, reason)
    n = len(parts[0])
    truths = reference.sets(len(parts), n, seed, stream)
    try:
        measure = paired.of(truths[0])
    except ValueError as error:
        return dict.fromkeys(paired.names, str(error))

    def measured(pairs: Iterable[Pair]) -> list[tuple[float, ...]]:
        numbers = []
        for x, y in pairs:
            numbers.append(measure(x, y))
            advance()
        return numbers

    values = measured(zip(parts, truths, strict=True))
    floors = measured(reference.pairs(paired.true_sets, n, seed, stream + 1))
    return {
        name: Found(list(v), list(f), n)
        for name, v, f in zip(
            paired.names, zip(*values, strict=True), zip(*floors, strict=True), strict=True
        )
    }


def _parts(
    sets: Sequence[Tensor], reference: Reference, paired: Paired
) -> list[Float[Tensor, "n d"]]:
    """As many disjoint parts as give an interval, or as the points allow."""
    most = max(SETS, min(len(sets), paired.sets))
    if reference.room(most) < len(sets[0]):
        most = SETS  # of a file, a few large parts rather than many small ones
    for count in range(most, 0, -1):
        used = min(count, len(sets))
        each = math.ceil(count / used)
        n = min(len(sets[0]) // each, paired.most, reference.room(count))
        if n >= paired.least:
            return [x[i * n : (i + 1) * n] for i in range(each) for x in sets[:used]][:count]
    return []


def _remembered(
    sets: Sequence[Tensor],
    reference: Reference,
    training: Float[Tensor, "N d"] | None,
    seed: int,
) -> dict[str, Outcome]:
    """How near samples come to the training points, beside true points that are not among them."""
    if training is None:
        reason = "the points that the samples' maker was trained on are not known"
        return dict.fromkeys(MEMORY, reason)
    is_bounded = reference.room(TRUE_SETS) < SET
    count = MEAN_SETS if is_bounded else TRUE_SETS
    most = reference.room(count)
    if most < 2:
        reason = f"{reference.name} are too few: it takes {2 * MEAN_SETS} or more"
        return dict.fromkeys(MEMORY, reason)
    if training.shape[1] > TREE_COLUMNS:
        rows = PRODUCTS // training.numel()
        most = max(2, min(most, rows // (count + max(MEAN_SETS, min(len(sets), MOST_SETS)))))
    samples = _evenly(sets, most)
    n = len(samples[0])
    if not is_bounded:
        count = max(count, math.ceil(LEAST_TRUE / n))
    truth = reference.sets(count, n, seed, 0)
    near = Nearest(training)
    slack = near.slack(torch.cat([*samples, *truth]))
    found, true = ([near(x).numpy() for x in some] for some in (samples, truth))
    if isinstance(reference, Rows) and (np.concatenate(true) <= slack).mean() > 0.5:
        reason = (
            f"{reference.name} were trained on, so truth is as near to them as copies are: give "
            "others, or hold some out"
        )
        return dict.fromkeys(MEMORY, reason)

    limit = max(slack, float(np.quantile(np.concatenate(true), NEAR)))
    judged = true[:TRUE_SETS]
    return {
        "nearest_train": Found([_median(a) for a in found], [_median(a) for a in judged], n),
        "memorised": Found(
            [_share(a, limit) for a in found], [_share(a, limit) for a in judged], n
        ),
        "copies": Found([_share(a, slack) for a in found], [_share(a, slack) for a in judged], n),
    }


def _median(apart: Numbers) -> float:
    return float(np.median(apart))


def _share(apart: Numbers, limit: float) -> float:
    return float((apart <= limit).mean())


def _likelihood(
    sets: Sequence[Tensor], target: Target | None, seed: int, advance: Advance
) -> Outcome:
    """−log p(x), and that of points drawn from p itself: its entropy."""
    if target is None:
        return "the law of the data is not known"
    clean = Level(torch.tensor(1.0).double(), torch.tensor(0.0).double())
    generator = torch.Generator().manual_seed(seed % 2**63)

    def mean(x: Tensor) -> float:
        return -target.log_prob(x, clean).mean().item()

    try:
        samples = _evenly(sets, SET)
        values, floors, n = [mean(x) for x in samples], [], len(samples[0])
        for _ in range(TRUE_SETS):
            floors.append(mean(target.sample(n, generator)))
            advance()
    except ValueError as error:
        return str(error)
    return Found(values, floors, n)


# --- from sets to a number


def measured(metric: Metric, outcome: Outcome) -> Measured:
    """The mean, its interval, and how it stands to truth's; or the reason why there is none."""
    if isinstance(outcome, str):
        return missing(metric, outcome)
    values, floors = (np.asarray(v, dtype=np.float64) for v in outcome[:2])
    if not np.isfinite(values).all() or not np.isfinite(floors).all():
        return missing(metric, "numbers too large for their squares: standardise the columns")

    def shown(v: float) -> float:
        return math.sqrt(max(v, 0.0)) if metric.is_squared else v

    value, floor = shown(float(values.mean())), shown(float(floors.mean()))
    least, most = metric.bounds
    low = high = None
    half, interval = _half_width(values, floors, outcome.variances)
    if half is not None:
        if metric.is_squared and half > 0:
            # About the root: a square that is low by chance looks less spread than it is.
            half /= 2 * max(value, math.sqrt(half) / 2)
        low, high = max(least, value - half), min(most, value + half)
    return Measured(
        value=value,
        low=low,
        high=high,
        floor=floor,
        floor_sd=math.sqrt(_variance([shown(float(v)) for v in floors])),
        ratio=value / floor if least == 0 and floor > 0 else None,
        p_value=_chance(values, floors, metric.better),
        draws=len(values),
        n=outcome.n,
        better=metric.better,
        interval=interval,
        reason=None if interval else "one set of samples has no spread: give more samples",
    )


def _half_width(
    values: Numbers, floors: Numbers, variances: Sequence[float] | None
) -> tuple[float | None, Literal["sets", "points"] | None]:
    """Of the interval of the mean, and where it comes from."""
    k, likely = len(values), (1 + SURE) / 2
    z = float(stats.norm.ppf(likely))
    # A few sets near the floor may agree by chance, as their law is skewed.
    least = z * math.sqrt(_variance(floors) / k)
    if k >= SETS or (k > 1 and variances is None):
        t = float(stats.t.ppf(likely, k - 1))
        return max(least, t * math.sqrt(_variance(values) / k)), "sets"
    if variances is not None:
        return max(least, z * math.sqrt(float(np.mean(variances)) / k)), "points"
    return None, None


def missing(metric: Metric, reason: str) -> Measured:
    """No numbers, and why."""
    return Measured(None, None, None, None, None, None, None, 0, 0, metric.better, None, reason)


def _chance(values: Numbers, floors: Numbers, better: Better) -> float:
    """The permutation test of equal means: samples and true sets relabelled.

    Source: Phipson & Smyth 2010, eq. (2).
    """
    k, both = len(values), np.concatenate([values, floors])
    if k == 1:
        sums = both  # each of them once in its place: all the ways there are
    else:
        order = np.random.default_rng(0).random((RELABELLED, len(both)))
        sums = both[order.argpartition(k - 1, axis=1)[:, :k]].sum(1)
        sums = np.append(sums, values.sum())
    slack = 1e-12 * float(np.abs(both).sum())
    above = float((sums >= values.sum() - slack).mean())
    below = float((sums <= values.sum() + slack).mean())
    return {"low": above, "high": below, "floor": min(1.0, 2 * min(above, below))}[better]


def _variance(values: Sequence[float] | Numbers) -> float:
    return float(np.var(values, ddof=1))
