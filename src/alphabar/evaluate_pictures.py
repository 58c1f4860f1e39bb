"""What generated pictures are worth, by held-out ones: no network is downloaded for it.

    class_accuracy          samples that a classifier takes for the class they were drawn as
    precision … coverage    of held-out pictures, in pixels and in the classifier's features
    frechet                 of normal laws with their moments, in both
    nearest_train …         to the training pictures, in pixels

A set of samples has as many pictures as it is held against, of as many of each class where the
samples have classes. The floor is what as many training pictures score in their place: real ones,
of the same law. The classifier learns half of them, and floors in its features are of the other
half: what it has learned lies closer together there than what it has not.

A model that returns its training pictures fails by `nearest_train` alone. One that returns the mean
of each class is right about the class, keeps as far from the training pictures as true ones do, and
covers pixels almost as well (a mean is in the middle): `recall`, `frechet` and the coverage of
features tell it. Only together do the numbers say that what was learned is the law.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from scipy import stats  # type: ignore[import-untyped]
from torch import Tensor

from alphabar.evaluate import (
    MEMORY,
    METRICS,
    SHARE,
    Advance,
    Found,
    HeldOut,
    Measured,
    Metric,
    evaluate,
    measured,
    missing,
)
from alphabar.metrics import NEIGHBOURS, Manifold, frechet_squared, manifold
from alphabar.recognise import Share, train_recogniser

LEAST = 4 * NEIGHBOURS  # pictures of a set
FLOORS = 20  # sets of training pictures
MOST = 2000  # pictures of a set, as the cost of coverage grows with their square
AT_A_TIME = 128  # pictures that an extractor is given
SPACES = ("", "_features", "_named")  # pixels, of the classifier, of what the person names
Extract = Callable[[Float[Tensor, "n C H W"]], Float[Tensor, "n d"]]

_OF = {name: METRICS[name] for name in Manifold._fields} | {
    "frechet": Metric("Fréchet distance of the moments", "low", is_squared=True)
}


class Pictures(NamedTuple):
    """Real pictures, (N, C, H, W) in [−1, 1], and their classes, if they have such."""

    x: Float[Tensor, "N C H W"]
    labels: Int64[Tensor, " N"] | None

    def evenly(self, n: int) -> "Pictures":
        """n of them, spread over all."""
        return self.of(torch.arange(n) * len(self.x) // n)

    def of(self, rows: Int64[Tensor, " n"]) -> "Pictures":
        """Some of them."""
        return Pictures(self.x[rows], None if self.labels is None else self.labels[rows])


class _Space(NamedTuple):
    """Features, and real pictures that they were not fitted to."""

    extract: Extract
    real: Pictures


def evaluate_pictures(
    sets: Sequence[Float[Tensor, "n C H W"]],
    used: Pictures,
    held: Pictures,
    asked: Int64[Tensor, " n"] | None = None,
    seed: int = 0,
    extract: Extract | None = None,
    advance: Advance = lambda: None,
) -> dict[str, Measured]:
    """Sets of samples against held-out pictures.

    Args:
        sets: independent sets, each of as many pictures as `held` has.
        used: the pictures that were trained on.
        held: pictures that were not.
        asked: the class that each picture of a set was drawn as; None: of no class.
        seed: of the classifier, and of the sets of training pictures.
        extract: features of pictures, to compare in as well.
        advance: called `evaluation_length(…)` times.

    Raises:
        ValueError: another number or shape of pictures, numbers that are not finite, too few held
            out or in training, features that are not one row of numbers a picture.
    """
    _check(sets, used.x, held.x)
    found: dict[str, Measured] = {}
    spaces: list[_Space | str] = [_Space(lambda x: x.flatten(1), used)]
    if used.labels is None or held.labels is None or used.labels.min() == used.labels.max():
        why = "the pictures have no labels of two classes, by which a classifier could learn"
        found["class_accuracy"] = missing(_ACCURACY, why)
        spaces.append(why)
    else:
        order = used.labels.argsort(stable=True)
        learned, others = used.of(order[::2]), used.of(order[1::2])
        assert learned.labels is not None
        classes = 1 + int(max(used.labels.max(), held.labels.max()))
        known = train_recogniser(learned.x, learned.labels, seed, classes)
        if asked is None:
            found["class_accuracy"] = missing(_ACCURACY, "the samples were drawn as of no class")
        else:
            right = [int((known.classify(x) == asked).sum()) for x in sets]
            floor = known.accuracy(held.x, held.labels)
            found["class_accuracy"] = _accuracy(right, len(asked), floor)
        spaces.append(_Space(known.features, others))
    advance()
    if extract is not None:
        spaces.append(_Space(checked(extract), used))
    for name, space in zip(SPACES, spaces, strict=False):
        found |= _in_space(name, space, sets, held.x, asked, seed)
        advance()
    flat = [x.flatten(1) for x in sets]
    reference = HeldOut(used.x.flatten(1), held.x.flatten(1))
    found |= evaluate(flat, reference, used.x.flatten(1), None, ["sliced_w2", *MEMORY], seed)
    advance()
    return found


def evaluation_length(extract: bool = False) -> int:
    """How often `evaluate_pictures` moves its progress bar."""
    return 4 + extract


_ACCURACY = Metric("share taken for the class that they were drawn as", "high", bounds=SHARE)


def _check(sets: Sequence[Tensor], used: Tensor, held: Tensor) -> None:
    if min(len(used), len(held)) < LEAST:
        raise ValueError(
            f"{len(held)} pictures are held out and {len(used)} are not: it takes {LEAST} or more "
            "of each to compare with; add pictures"
        )
    for i, x in enumerate(sets):
        if x.shape != held.shape:
            raise ValueError(
                f"set {i} has shape {tuple(x.shape)}, and the held-out pictures "
                f"{tuple(held.shape)}: draw as many of that shape"
            )
        if not x.isfinite().all():
            raise ValueError(f"set {i} holds NaN or infinity: see where the sampler left the data")
    if not sets:
        raise ValueError("no sets: give one at least")


def _floor_rows(
    real: Pictures, n: int, asked: Int64[Tensor, " n"] | None, seed: int
) -> list[Int64[Tensor, " n"]] | str:
    """Sets of real pictures like those of samples: as many, of the same classes; or why not."""
    if n >= len(real.x):
        return f"{n} pictures are as many as the {len(real.x)} real ones for a floor: draw fewer"
    generator = torch.Generator().manual_seed(seed % 2**63)

    def some(rows: Int64[Tensor, " m"], count: int) -> Int64[Tensor, " _"]:
        return rows[torch.randperm(len(rows), generator=generator)[:count]]

    if asked is None or real.labels is None:
        return [some(torch.arange(len(real.x)), n) for _ in range(FLOORS)]
    counts = Counter(asked.tolist())
    of = {c: (real.labels == c).nonzero().flatten() for c in counts}
    for c, count in counts.items():
        if count > len(of[c]):
            return f"{count} pictures of class {c} and {len(of[c])} real ones: draw fewer of it"
    return [torch.cat([some(of[c], count) for c, count in counts.items()]) for _ in range(FLOORS)]


def _accuracy(right: Sequence[int], n: int, floor: Share) -> Measured:
    """Beside the classifier's own accuracy, which has an interval too."""
    value = Share.of(sum(right), n * len(right))
    return Measured(
        value=value.value,
        low=value.low,
        high=value.high,
        floor=floor.value,
        floor_sd=None,
        ratio=value.value / floor.value if floor.value else None,
        p_value=None,
        draws=len(right),
        n=n,
        better="high",
        interval="points",
        reason=None,
        floor_low=floor.low,
        floor_high=floor.high,
    )


def _in_space(
    space: str,
    of: _Space | str,
    sets: Sequence[Tensor],
    held: Tensor,
    asked: Tensor | None,
    seed: int,
) -> dict[str, Measured]:
    """Overlap and Fréchet distance in a space of features; why not, where there is none."""
    n = len(held)
    rows = of if isinstance(of, str) else _floor_rows(of.real, n, asked, seed)
    if isinstance(of, str) or isinstance(rows, str):
        return {name + space: missing(metric, str(rows)) for name, metric in _OF.items()}
    truth, real = of.extract(held), of.extract(of.real.x)
    values = [_scores(of.extract(x), truth) for x in sets]
    floors = np.array([_scores(real[chosen], truth) for chosen in rows])
    # Sets drawn from N pictures without replacement differ by √(1 − n/N) of what sets of the law
    # do, and the mean of N pictures differs from the law's by √(n/N) of it.
    share, mean = n / len(real), floors.mean(0)
    floors = mean + math.sqrt((1 + share) / (1 - share)) * (floors - mean)
    found = {}
    for i, (name, metric) in enumerate(_OF.items()):
        outcome = Found([v[i] for v in values], floors[:, i].tolist(), n)
        found[name + space] = _with_range(measured(metric, outcome), outcome, metric)
    return found


def _scores(x: Float[Tensor, "n d"], truth: Float[Tensor, "m d"]) -> tuple[float, ...]:
    return (*manifold(x, truth), frechet_squared(x, truth))


def _with_range(one: Measured, outcome: Found, metric: Metric) -> Measured:
    """Between which scores 95 of 100 real sets lie."""
    floors = np.array(outcome.floors)
    if metric.is_squared:
        floors = np.sqrt(floors.clip(0))
    # Of a normal law of their mean and spread: of twenty the outermost say little.
    reach = stats.t.ppf(0.975, FLOORS - 1) * math.sqrt(1 + 1 / FLOORS) * floors.std(ddof=1)
    low, high = (floors.mean() + np.array([-reach, reach])).clip(*metric.bounds).tolist()
    return replace(one, floor_low=low, floor_high=high)


def checked(extract: Extract) -> Extract:
    """The person's extractor, a few pictures at a time, with what it returns looked at."""

    def looked_at(x: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.cat([rows_of(part) for part in torch.split(x, AT_A_TIME)])

    def rows_of(x: Tensor) -> Tensor:
        features: Any = extract(x.float())
        shape = tuple(getattr(features, "shape", ()))
        if (
            not isinstance(features, Tensor)
            or len(shape) != 2
            or shape[0] != len(x)
            or not shape[1]
        ):
            raise ValueError(
                f"the features of {len(x)} pictures are {type(features).__name__} of shape "
                f"{shape}: give one row of numbers a picture, a tensor (n, d)"
            )
        if not features.isfinite().all():
            raise ValueError("the features hold NaN or infinity: give finite numbers")
        return features.detach().cpu()

    return looked_at
