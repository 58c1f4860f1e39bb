"""What generated pictures are worth, by held-out ones: no network is downloaded for it.

    class_accuracy          samples that a classifier takes for the class they were drawn as
    precision … coverage    of held-out pictures, in pixels and in the classifier's features
    frechet                 of normal laws with their moments, in both
    nearest_train …         to the training pictures, in pixels

A set of samples has as many pictures as it is held against, of as many of each class where the
samples have classes. The floor is what as many training pictures score in their place: real ones,
of the same law. So a model that returns its training pictures reaches every floor but that of
`nearest_train`, and one that returns blurred means keeps far from them and reaches no other: only
together do the numbers say that what was learned is the law.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
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
        rows = torch.arange(n) * len(self.x) // n
        return Pictures(self.x[rows], None if self.labels is None else self.labels[rows])


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
    extracts: list[Extract | str] = [lambda x: x.flatten(1)]
    if used.labels is None or held.labels is None:
        why = "the pictures have no labels, by which a classifier could learn"
        found["class_accuracy"] = missing(_ACCURACY, why)
        extracts.append(why)
    else:
        classes = 1 + int(max(used.labels.max(), held.labels.max()))
        known = train_recogniser(used.x, used.labels, seed, classes)
        floor = known.accuracy(held.x, held.labels)
        if asked is None:
            found["class_accuracy"] = missing(_ACCURACY, "the samples were drawn as of no class")
        else:
            right = [int((known.classify(x) == asked).sum()) for x in sets]
            found["class_accuracy"] = _accuracy(right, len(asked), floor)
        extracts.append(known.features)
    advance()
    if extract is not None:
        extracts.append(checked(extract))
    rows = _floor_rows(used, len(held.x), asked, seed)
    for space, of in zip(SPACES, extracts, strict=False):
        found |= _in_space(space, of, sets, held.x, used.x, rows)
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
    used: Pictures, n: int, asked: Int64[Tensor, " n"] | None, seed: int
) -> list[Int64[Tensor, " n"]]:
    """Of the used pictures, sets that are like those of samples: as many, of the same classes."""
    generator = torch.Generator().manual_seed(seed % 2**63)

    def some(rows: Int64[Tensor, " m"], count: int) -> Int64[Tensor, " _"]:
        return rows[torch.randperm(len(rows), generator=generator)[:count]]

    if asked is None or used.labels is None:
        return [some(torch.arange(len(used.x)), n) for _ in range(FLOORS)]
    counts = [*zip(*torch.unique(asked, return_counts=True), strict=True)]
    of = {int(label): (used.labels == label).nonzero().flatten() for label, _ in counts}
    return [
        torch.cat([some(of[int(label)], int(count)) for label, count in counts])
        for _ in range(FLOORS)
    ]


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
    extract: Extract | str,
    sets: Sequence[Tensor],
    held: Tensor,
    used: Tensor,
    rows: Sequence[Tensor],
) -> dict[str, Measured]:
    """Overlap and Fréchet distance in a space of features; why not, where there is none."""
    if isinstance(extract, str):
        return {name + space: missing(metric, extract) for name, metric in _OF.items()}
    truth, real = extract(held).double(), extract(used).double()
    values = [_scores(extract(x).double(), truth) for x in sets]
    floors = [_scores(real[chosen], truth) for chosen in rows]
    n = len(held)
    found = {}
    for i, (name, metric) in enumerate(_OF.items()):
        outcome = Found([v[i] for v in values], [f[i] for f in floors], n)
        found[name + space] = _with_range(measured(metric, outcome), outcome, metric)
    return found


def _scores(x: Float[Tensor, "n d"], truth: Float[Tensor, "m d"]) -> tuple[float, ...]:
    return (*manifold(x, truth), frechet_squared(x, truth))


def _with_range(one: Measured, outcome: Found, metric: Metric) -> Measured:
    """Between which scores 95 of 100 real sets lie."""
    floors = torch.tensor(outcome.floors, dtype=torch.float64)
    if metric.is_squared:
        floors = floors.sqrt()
    # Of a normal law of their mean and spread: of twenty the outermost say little.
    reach = 1.96 * floors.std().item()
    mean = floors.mean().item()
    return replace(one, floor_low=mean - reach, floor_high=mean + reach)


def checked(extract: Extract) -> Extract:
    """The person's extractor, with what it returns looked at."""

    def looked_at(x: Tensor) -> Tensor:
        features: Any = extract(x.float())
        shape = tuple(getattr(features, "shape", ()))
        if not isinstance(features, Tensor) or len(shape) != 2 or shape[0] != len(x):
            raise ValueError(
                f"the features of {len(x)} pictures are {type(features).__name__} of shape "
                f"{shape}: give one row of numbers a picture, a tensor (n, d)"
            )
        if not features.isfinite().all():
            raise ValueError("the features hold NaN or infinity: give finite numbers")
        return features.detach().cpu()

    return looked_at
