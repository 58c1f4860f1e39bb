"""Checks of whole sampling loops and of moves, by a model that keeps what it was asked.

At each question the model is told x and a level's label, and answers with what follows from a
fresh random x_0: the ε, v or flow that belongs to it at that x and level. Whatever the method is,
one move is then a sum

    x' = Σ_j p_j·x_0^(j) + q·ε + d·z        j: the last few questions

whose coefficients are measured without any discretisation error. With the same answer at every
question, x' must be α_s·x_0 + q·ε + d·z, q² + d² = σ_s², for the next level that the model is told
(DDPM's with variance β adds a little more). That audits every pair of levels, and every ᾱ used.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor, nn

from alphabar.check.affine import Affine, Law, NotFinite, Recorder, Value, fit
from alphabar.check.explain import Convention, Explanation, Part
from alphabar.check.formula import Formula, Moves, Process
from alphabar.check.linear import INSIDE, Evidence, Role, finding, unchecked, weigh
from alphabar.check.report import Finding
from alphabar.check.scales import (
    EXPLODING,
    FLOW,
    FLOW_UP,
    PREDICTIONS,
    Scale,
    answer,
    between,
    table,
)
from alphabar.check.stranger import CannotCheck, Stranger, Way, question, seeded, ways

ITEMS, MANY = 512, 4096
# σ from the noisiest to clean data, where nobody has stated them (Karras et al. 2022, eq. (5)).
_SIGMAS = torch.cat(
    [
        torch.linspace(80.0 ** (1 / 7), 0.002 ** (1 / 7), 40, dtype=torch.float64) ** 7,
        torch.zeros(1, dtype=torch.float64),
    ]
)
# Answers that a method may still use; more where what it keeps are slopes, made of all before.
OLDER, OLDEST = 3, 60
FEW_MOVES = 50  # that are enough to tell which levels are used
_LEAST = 2e-4  # a weight that is more than rounding


class Question(NamedTuple):
    """What the model was asked, and what it knew."""

    x: Tensor
    x_0: Tensor
    eps: Tensor
    label: float
    drawn: int  # how many draws there were before


class Knowing(nn.Module):
    """A model that knows a new x_0 each time, and keeps every (x, t) that it is asked about."""

    def __init__(
        self,
        shape: Sequence[int],
        scale: Scale,
        predicts: str,
        place: float | None = None,
        size: float | Tensor = INSIDE,
    ) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(()))  # by which people ask where a model is
        self.size = size
        self.orders: set[int] = set()  # the places in which x was handed over
        self.met: tuple[int, ...] | None = None  # the shape of an x of another shape
        self.shape, self.scale, self.predicts, self.place = tuple(shape), scale, predicts, place
        self.asked: list[Question] = []
        self.recorder: Recorder | None = None
        self.generator = np.random.default_rng(0)  # no recorder sees it

    def forward(self, *values: Any, **named: Any) -> Tensor:
        """What follows from x_0, and the place in the range of variances where there is one."""
        said = (*values, *named.values())
        if any(self._is_doubled(value) for value in said):  # for guidance, both in one question
            half = Knowing.forward(
                self, *map(self._half, values), **{name: self._half(v) for name, v in named.items()}
            )
            return torch.cat([half, half])
        for value in said:
            if isinstance(value, Tensor) and value.ndim > 1 and len(value) == self.shape[0]:
                self.met = self.met or tuple(value.shape)
        x, labels = question(said, self.shape)
        if (labels != labels[0]).any():
            raise CannotCheck("the model was told different t for items of one step")
        self.orders |= {i for i, value in enumerate(values) if value is x}
        label = float(labels[0])
        alpha, sigma = self.scale.level(label)
        x_0 = self.data()
        if sigma > 0:
            eps = (x.detach().double() - alpha * x_0) / sigma
        else:  # at clean data x_0 is what is seen, and ε as it was
            x_0 = x.detach().double() / alpha
            eps = self.asked[-1].eps if self.asked else torch.zeros_like(x_0)
        drawn = len(self.recorder.draws) if self.recorder else 0
        self.asked.append(Question(x.detach().clone(), x_0, eps, label, drawn))
        made = answer(self.predicts, x_0, eps, alpha, sigma, self.scale is FLOW_UP).to(x.dtype)
        if self.place is None:
            return made
        return torch.cat([made, torch.full_like(made, self.place)], 1)

    def _is_doubled(self, value: Any) -> bool:
        """Whether this is x twice, one after the other."""
        n = self.shape[0]
        if not isinstance(value, Tensor) or value.shape != (2 * n, *self.shape[1:]):
            return False
        return torch.equal(value[:n], value[n:])

    def _half(self, value: Any) -> Any:
        """The first half of what is said of both, item by item."""
        n = self.shape[0]
        is_of_both = isinstance(value, Tensor) and value.ndim > 0 and len(value) == 2 * n
        return value[:n] if is_of_both else value

    def data(self) -> Tensor:
        """The x_0 of the next answer."""
        return self.size * (2 * torch.from_numpy(self.generator.random(self.shape)) - 1)


class _Steady(Knowing):
    """A model that knows one x_0 all along: whatever the method, that is what it must lead to."""

    def data(self) -> Tensor:
        """The same as before."""
        self.generator = np.random.default_rng(0)
        return super().data()


class _Rising(Knowing):
    """A model whose answers are the time: a method of first order ends beside their integral."""

    def forward(self, *values: Any, **named: Any) -> Tensor:
        """The label that it is told."""
        return torch.full_like(super().forward(*values, **named), self.asked[-1].label)


@dataclass(frozen=True)
class Audit:
    """What a loop did.

    Args:
        scale: what its labels mean.
        labels: what it told the model, in order.
        at: by move k = 1..K the coefficients of the total x_0, of ε and of noise.
        older: by move how much it leans on each earlier answer.
        wrong: what cannot be measured, by kind and in words.
        start: what the first x is made of.
    """

    scale: Scale
    predicts: str
    labels: list[float]
    at: dict[int, Affine]
    older: dict[int, list[float]]
    wrong: list[tuple[str, str]]
    start: Affine | None
    to: list[float]  # the level that each move leads to, as the logarithm of signal to noise

    @property
    def log_snr(self) -> list[float]:
        """Of every level that the model was told."""
        return [self.scale.log_snr(label) for label in self.labels]


# --- entries


Judge = Callable[[Role, Audit, Way, Mapping[str, Tensor]], tuple[Evidence, Process]]


class Loop(NamedTuple):
    """A loop of somebody's, and what was said of it."""

    function: Callable[..., object]
    scales: Sequence[Scale]
    predicts: str
    given: Mapping[str, object] = MappingProxyType({})
    place: float | None = None  # that the model gives in a range of variances
    sigmas: Tensor | None = None
    steps: int | None = None  # as stated
    items: int = ITEMS  # that it is measured on


def check_loop(role: Role, loop: Loop, judge: Judge | None = None) -> Finding:
    """A sampling loop, move by move, against what each must do."""
    begin = time.perf_counter()
    stranger = Stranger(loop.function, loop.given)
    try:
        best, moves = _looped(role, stranger, loop, (loop.items, 4), judge or judged)
        if best.noisy and len(best.steps) <= FEW_MOVES:
            best, moves = _looped(role, stranger, loop, (MANY, 4), judge or judged)
    except CannotCheck as error:
        return unchecked(stranger.name, role, str(error), begin)
    law = loop.scales[0].role(role)
    found = finding(stranger, law, best, moves, begin)
    if found.verdict == "bug" and _is_right(best._replace(others=())) and found.diagnoses:
        # No coefficient is wrong: what is, and what to do, are said by the bug alone.
        bug = found.diagnoses[0]
        found = replace(found, measured=bug.explains, expected=bug.remedy)
    return found


def _looped(
    role: Role, stranger: Stranger, loop: Loop, shape: tuple[int, int], judge: Judge
) -> tuple[Evidence, Process]:
    """The evidence of a loop, with items of this shape."""
    first, tried = _way(stranger, loop, shape)
    if not tried["model"].asked:
        raise CannotCheck(f"{stranger.name} never asks the model: it must call it as model(x, t)")
    loop = loop._replace(scales=_fitting(loop.scales, [q.label for q in tried["model"].asked]))
    best: tuple[Evidence, Process] | None = None
    # Of several results, such as all that was passed on the way, the last is most often meant.
    for picked in reversed(first.others):
        way = replace(first, picked=picked)
        for scale in loop.scales:
            found = _judged(role, stranger, way, tried, loop, scale, loop.predicts, judge)
            if _walks_straight(stranger, way, tried, loop, scale, found[0]):
                name = "a method of several stages or answers, exact on straight lines"
                found = by_path(way, name), found[1]
            if best is None or found[0].cost < best[0].cost:
                best = found
        if best is not None and _is_right(best[0]):
            break
    assert best is not None
    evidence, moves = best
    if "x_T" not in first.order and _starts_alike(stranger, first, tried, loop):
        more = ("same noise", "each call starts from the same noise: a seed is set inside")
        evidence = evidence._replace(others=(*evidence.others, more))
        best = evidence, moves
    strange = _unstated(loop, [q.label for q in tried["model"].asked])
    if strange:
        evidence = evidence._replace(others=(strange, *evidence.others))
        return evidence, moves
    known = {"second stage", "last step", "last σ repeated"} & {kind for kind, _ in evidence.others}
    if (evidence.explained is None or not evidence.explained.is_right) and not known:
        return _as_other(role, stranger, first, tried, loop, evidence, moves)
    return best


def _starts_alike(stranger: Stranger, way: Way, tried: Mapping[str, Any], loop: Loop) -> bool:
    """Whether another seed makes no difference to what the model is shown first."""
    shown = []
    for seed in (11, 12):
        model = _Once(tried["model"].shape, loop.scales[0], loop.predicts, loop.place)
        with seeded(seed), torch.no_grad(), suppress(CannotCheck):
            way.call(stranger, {**tried, "model": model})
        shown.append(model.asked[0].x if model.asked else None)
    one, other = shown
    return one is not None and other is not None and torch.equal(one, other)


def by_path(way: Way, name: str) -> Evidence:
    """The evidence of a loop that is right on its whole way, not by the coefficients of a move."""
    law = Convention(name, {"x_0": Formula.of(), "ε": Formula.of(noise=0.5)})
    parts = tuple(Part(term, f, None, 0.0) for term, f in law.formulas.items())
    none = torch.empty(0, dtype=torch.int64)
    right = Explanation(law, 1, parts, 0.0)
    return Evidence(str(way), way.order, none, {}, right, 1, False, ())


def _walks_straight(
    stranger: Stranger,
    way: Way,
    tried: Mapping[str, Any],
    loop: Loop,
    scale: Scale,
    evidence: Evidence,
) -> bool:
    """Whether all that is wrong with a flow's loop is that it leans on many answers, rightly.

    Any consistent method walks a straight line exactly, and asks about points of that line alone.
    One that leans on many answers must be of second order too, but for a first step of its own.
    """
    known = {"second stage", "last step", "first order", "last σ repeated"}
    kinds = {kind for kind, _ in evidence.others}
    if not scale.is_flow or loop.predicts != "flow" or evidence.is_right or kinds - known:
        return False
    ended: list[tuple[Knowing, Tensor]] = []
    for kind in (_Steady, _Rising):
        model = kind(tried["model"].shape, scale, loop.predicts)
        with seeded(3), Recorder() as recorder, torch.no_grad(), suppress(CannotCheck):
            model.recorder = recorder
            ended.append((model, way.call(stranger, {**tried, "model": model}).double()))
            if len(recorder.draws) > model.asked[0].drawn:
                return False
    if len(ended) < 2:
        return False
    (steady, end), (rising, risen) = ended
    first = steady.asked[0]
    alpha, sigma = scale.level(first.label)
    if sigma < 1 - 1e-2 or abs(first.eps.std().item() - 1) > 0.05:
        return False
    for asked in steady.asked:
        alpha, sigma = scale.level(asked.label)
        if (asked.x.double() - alpha * first.x_0 - sigma * first.eps).abs().max() > 1e-4:
            return False
    if (end - first.x_0).abs().max() > 1e-3:
        return False
    labels = [*dict.fromkeys(asked.label for asked in rising.asked)]
    if len(labels) < 2:
        return False
    goal = 1.0 if scale is FLOW_UP else 0.0
    made = 0.5 * (goal**2 - labels[0] ** 2)
    off = (risen - rising.asked[0].x.double()).mean().item() - made
    return abs(off) <= 0.6 * (labels[1] - labels[0]) ** 2 + 1e-3


class _Once(Knowing):
    """A model that answers no second question."""

    def forward(self, *values: Any, **named: Any) -> Tensor:
        """An answer, or the end of it."""
        if self.asked:
            raise CannotCheck("enough")
        return super().forward(*values, **named)


def _unstated(loop: Loop, labels: Sequence[float]) -> tuple[str, str] | None:
    """Whether a loop visits levels that are not those that were stated."""
    visited = len({*labels})
    if loop.steps is not None and visited not in (loop.steps, loop.steps + 1):
        words = f"it visits {visited} levels, where {loop.steps} steps were stated"
        return "another number of steps", words
    if loop.sigmas is None or loop.scales[0].table is not None:
        return None
    others = [
        label
        for label in labels
        if not torch.isclose(loop.sigmas, torch.tensor(label).double(), rtol=1e-4).any()
    ]
    # A second stage may lie between two levels.
    if 2 * len(others) <= len(labels):
        return None
    return "levels not stated", f"the model is told σ = {others[0]:.6g}, which is not stated"


def ends(
    loop: Loop, sizes: Sequence[Tensor], shape: tuple[int, int]
) -> list[tuple[Tensor, Tensor]]:
    """What a loop returns for data in ± each size (n, 1), and the x_0 that its model has known.

    Raises:
        CannotCheck: it cannot be called, or does not lead to data.
    """
    stranger = Stranger(loop.function, loop.given)
    way, tried = _way(stranger, loop, shape)
    way = replace(way, picked=way.others[-1])
    labels = [q.label for q in tried["model"].asked]
    if not labels:
        raise CannotCheck(f"{stranger.name} never asks the model")
    found = []
    for scale in _fitting(loop.scales, labels):
        if scale.log_snr(labels[0]) > scale.log_snr(labels[-1]):
            continue
        made = []
        for size in sizes:
            met = tried["model"].shape
            by_item = size[: met[0]].reshape(-1, *(1,) * (len(met) - 1))
            model = _Steady(met, scale, loop.predicts, loop.place, by_item)
            with seeded(3), torch.no_grad():
                end = way.call(stranger, {**tried, "model": model})
            if end.is_floating_point():
                made.append((_as_data(end)[0].double(), model.asked[-1].x_0))
        if len(made) == len(sizes):
            found.append(made)
    if not found:
        raise CannotCheck(f"{stranger.name} does not lead to data")
    return min(found, key=lambda made: (made[0][0] - made[0][1]).abs().median().item())


def scales_of(process: Process | None, scale: str) -> list[Scale]:
    """What the labels that a model is told may mean."""
    if process is not None:
        return [table(process, 0), table(process, 1)]
    return {"ve": [EXPLODING], "vp": [EXPLODING], "flow": [FLOW, FLOW_UP]}[scale]


def _fitting(scales: Sequence[Scale], labels: Sequence[float]) -> Sequence[Scale]:
    """Those in which labels that were told can be meant: an index 0 is noisy, and so is T."""
    if scales[0].table is None:
        return scales
    T = scales[0].table.T
    if any(label != int(label) for label in labels):
        scales = [s for scale in scales for s in (scale, between(scale))]
    bases = (1,) if max(labels) == T else (0,) if {0, T - 1} & {*labels} else (0, 1)
    return [scale for scale in scales if scale.base in bases]


def _as_other(
    role: Role,
    stranger: Stranger,
    way: Way,
    tried: Mapping[str, Any],
    loop: Loop,
    best: Evidence,
    moves: Process,
) -> tuple[Evidence, Process]:
    """The same with a model that predicts something else: is it taken for that?"""
    for other in PREDICTIONS[:3]:
        if other == loop.predicts or loop.scales[0].table is None or loop.place is not None:
            continue
        for scale in loop.scales:
            again, along = _judged(role, stranger, way, tried, loop, scale, other, judged)
            if again.explained is not None and again.explained.is_right and not again.others:
                words = f"with a model that predicts {other} every step is right"
                return again._replace(others=((f"takes it for {other}", words),)), along
    return best, moves


def _way(stranger: Stranger, loop: Loop, shape: tuple[int, ...]) -> tuple[Way, dict[str, Any]]:
    """How it is called: with a model, and with what else it needs."""
    generator = torch.Generator().manual_seed(0)
    x, other = (torch.randn(shape, generator=generator) for _ in range(2))
    scale = loop.scales[0]
    tried: dict[str, Any] = {
        "model": Knowing(shape, scale, loop.predicts, loop.place),
        "shape": shape,
        "x_T": x,
        "n": shape[0],
    }
    more: tuple[dict[str, Any], ...] = ({},)
    if scale.table is None:
        sigmas = loop.sigmas if loop.sigmas is not None else _SIGMAS
        if scale is EXPLODING:
            tried["x_T"] = sigmas[0].item() * x
        more = ({"sigmas": sigmas}, {})
    else:
        middle = scale.table.T // 2
        more = ({}, {"start": middle}, {"other": other, "start": middle})
    refused: CannotCheck | None = None
    for extra in more:
        with seeded(0):
            try:
                needed = ("model", *extra)
                slots = {**tried, **extra}
                return next(ways(stranger, slots, needed, shape, any_type=True)), slots
            except CannotCheck as error:
                refused = refused or error
    met = tried["model"].met
    if met is not None and met != tuple(shape):
        # It knows of itself what an item is; of large ones a few are enough.
        n = min(shape[0], max(2, 4 * ITEMS // math.prod(met[1:])))
        return _way(stranger, loop, (n, *met[1:]))
    assert refused is not None
    raise refused


def check_moves(
    role: Role,
    function: Callable[..., object],
    scales: Sequence[Scale],
    predicts: str,
    given: Mapping[str, object],
) -> Finding:
    """A function that makes one move, from a level to another, both handed over by their labels."""
    begin = time.perf_counter()
    stranger = Stranger(function, given)
    found: list[tuple[Evidence, Process, Role]] = []
    said = ""
    try:
        for scale in scales:
            law = scale.role(role)
            for way in _ways_of_moves(stranger, scale, predicts):
                try:
                    found.append((*_moved(role, stranger, scale, predicts, way), law))
                except Exception as error:
                    said = said or f"{type(error).__name__}: {error}"
        if not found:
            raise CannotCheck(f"{stranger.name} works for one move alone; {said}")
    except CannotCheck as error:
        return unchecked(stranger.name, role, str(error), begin)
    best, moves, law = min(found, key=lambda one: one[0].cost)
    return finding(stranger, law, best, moves, begin)


_MOVES: Mapping[str, tuple[float, ...]] = {
    EXPLODING.name: (10.0, 3.0, 0.9, 0.2, 0.0),
    FLOW.name: (0.9, 0.7, 0.5, 0.2, 0.0),
    FLOW_UP.name: (0.1, 0.3, 0.5, 0.8, 1.0),
}


def _slots(scale: Scale, predicts: str, label: float, to: float) -> dict[str, Any]:
    """A model, an x at a level, and the labels of that and of the next."""
    shape = (ITEMS, 4)
    generator = torch.Generator().manual_seed(0)
    alpha, sigma = scale.level(label)
    x_0 = 1.6 * torch.rand(shape, generator=generator) - 0.8
    x = alpha * x_0 + sigma * torch.randn(shape, generator=generator)
    t, s = (torch.full((ITEMS,), v, dtype=torch.float64) for v in (label, to))
    return {"model": Knowing(shape, scale, predicts), "x_t": x, "t": t, "s": s}


def _ways_of_moves(stranger: Stranger, scale: Scale, predicts: str) -> list[Way]:
    slots = _slots(scale, predicts, *_MOVES[scale.name][:2])
    first: dict[tuple[str, ...], Way] = {}
    model = slots["model"]
    for way in ways(stranger, slots, ("model", "x_t", "t", "s"), (ITEMS, 4)):
        model.asked.clear()
        with seeded(0):
            way.call(stranger, slots)
        # Told s first, a function has most likely been handed the two the wrong way round.
        if model.asked and math.isclose(model.asked[0].label, slots["t"][0].item(), rel_tol=1e-6):
            first.setdefault(way.order, way)
    if not first:
        raise CannotCheck(f"{stranger.name} never asks the model at the level that it is handed")
    return list(first.values())


def _moved(
    role: Role, stranger: Stranger, scale: Scale, predicts: str, way: Way
) -> tuple[Evidence, Process]:
    """Several moves, each with a model of its own, as one body of evidence."""
    whole: Audit | None = None
    for label, to in pairwise(_MOVES[scale.name]):
        slots = _slots(scale, predicts, label, to)
        model = slots["model"]
        with seeded(1), Recorder() as recorder, torch.no_grad():
            model.recorder = recorder
            end = way.call(stranger, slots)
        one = audited(model, end, recorder, {})
        one = replace(one, to=[*one.to[:-1], scale.log_snr(to)], start=None)
        whole = one if whole is None else _after(whole, one)
    assert whole is not None
    return judged(role, whole, way, {"x_t": slots["x_t"]})


def _after(one: Audit, other: Audit) -> Audit:
    """Both, one after the other."""
    n = len(one.labels)
    return replace(
        one,
        labels=one.labels + other.labels,
        at={**one.at, **{k + n: v for k, v in other.at.items()}},
        older={**one.older, **{k + n: v for k, v in other.older.items()}},
        wrong=[*dict.fromkeys(one.wrong + other.wrong)],
        to=one.to + other.to,
    )


# --- measuring


def _judged(
    role: Role,
    stranger: Stranger,
    way: Way,
    tried: Mapping[str, Any],
    loop: Loop,
    scale: Scale,
    predicts: str,
    judge: Judge,
) -> tuple[Evidence, Process]:
    """The whole loop, with a model of this prediction in this scale."""
    model = Knowing(tried["model"].shape, scale, predicts, loop.place)
    with seeded(1), Recorder() as recorder, torch.no_grad():
        model.recorder = recorder
        end = way.call(stranger, {**tried, "model": model})
    if not model.asked:
        raise CannotCheck("the model was never asked: pass it on as model(x, t)")
    handed: dict[str, Tensor] = {k: tried[k] for k in ("x_T", "other") if k in way.order}
    end, said = _as_data(end)
    audit = audited(model, end, recorder, handed)
    left = _left(audit, loop)
    if left is not None:
        audit = replace(audit, to=[*audit.to[:-1], scale.log_snr(left)])
    evidence, moves = judge(role, audit, way, handed)
    if left is not None:
        weak = f"it ends at σ = {left:.3g}, as the levels do: append 0, or that noise is left"
        evidence = evidence._replace(weak=weak)
    if said and evidence.explained is not None:
        law = evidence.explained.convention._replace(is_usual=False)
        explained = evidence.explained._replace(convention=law)
        evidence = evidence._replace(called=f"{said}; {evidence.called}", explained=explained)
    return evidence, moves


def _left(audit: Audit, loop: Loop) -> float | None:
    """The last σ that was stated, where it is not 0 and the loop ends with that noise."""
    last = audit.at.get(len(audit.labels))
    if loop.sigmas is None or audit.scale is not EXPLODING or last is None:
        return None
    stated = loop.sigmas[-1].item()
    noise = math.hypot(last.of["ε"].value, last.noise.value)
    if stated <= 0 or audit.labels[-1] <= stated or abs(noise - stated) > 1e-3 * stated:
        return None
    return stated


def _as_data(end: Tensor) -> tuple[Tensor, str]:
    """What a loop returns, in the range of its data if it has made a picture of them.

    The model's data are even about 0, so those of a picture are about its middle.
    """
    if end.is_floating_point():
        for size, said in ((1.0, "returned in [0, 1]"), (255.0, "returned in [0, 255]")):
            if abs(end.double().mean().item() / size - 0.5) < 0.05:
                return 2 * end / size - 1, said
    return end, ""


def audited(model: Knowing, end: Tensor, recorder: Recorder, handed: Mapping[str, Tensor]) -> Audit:
    """What each move has made of the answers and of ε."""
    asked = model.asked
    results = [q.x for q in asked[1:]]
    if end.is_floating_point():  # else it was made a picture of whole numbers
        results.append(end)
    drawn = [*(q.drawn for q in asked), len(recorder.draws)]
    at: dict[int, Affine] = {}
    older: dict[int, list[float]] = {}
    wrong = []
    stale = False  # whether noise was found to be used twice
    inexact, lost = 0, False
    for k, result in enumerate(results):
        if inexact > FEW_MOVES and k % max(1, len(results) // FEW_MOVES) and k + 1 < len(results):
            continue  # enough is known of it
        try:
            if not result.isfinite().all():
                raise NotFinite("the result is not finite")
            draws = recorder.draws[drawn[k] : drawn[k + 1]]
            one = _fitted(result, asked[: k + 1], draws, lost)
        except (NotFinite, RuntimeError):
            end_ = k == len(results) - 1
            leans = any(abs(w) > _LEAST for ws in older.values() for w in ws)
            kind = "not finite" if not end_ else "last step" if leans else "not finite at the end"
            if k == 0 and not end_:
                kind = "never finite"
            words = f"NaN or infinity comes of the step from {asked[k].label:g}"
            wrong.append((kind, words))
            break
        inexact += not one.exact
        # A move that is no sum of all answers so far: later ones will be none either.
        lost |= not one.exact and k < FEW_MOVES
        weights = [v.value for name, v in one.of.items() if name not in ("x_0", "ε")]
        total = one.of["x_0"].value + sum(weights)
        errors = [v.error for name, v in one.of.items() if name != "ε"]
        of = {"x_0": Value(total, math.hypot(*errors)), "ε": one.of["ε"]}
        if not one.exact:
            weights = []  # they are not known well enough to say more of them
        at[k + 1], older[k + 1] = replace(one, of=of), weights
        if not one.exact and drawn[k] and not stale:
            before = recorder.draws[max(0, drawn[k] - OLDEST) : drawn[k + 1]]
            stale = _fitted(result, asked[: k + 1], before).exact
            if stale:
                words = f"the noise of the step from {asked[k].label:g} was drawn before"
                wrong.append(("old noise", words))
    if len(model.orders) > 1:
        words = "the model is asked as (x, t) at some steps, and as (t, x) at others"
        wrong.append(("asked in two orders", words))
    start = None
    if asked[0].x.isfinite().all():
        start = fit(asked[0].x, handed, recorder.draws[: asked[0].drawn])
    labels = [q.label for q in asked]
    to = [*(model.scale.log_snr(label) for label in labels[1:]), math.inf]
    return Audit(model.scale, model.predicts, labels, at, older, wrong, start, to)


def _fitted(
    result: Tensor,
    asked: Sequence[Question],
    draws: Sequence[tuple[Law, Tensor]],
    lost: bool = True,
) -> Affine:
    """A result by the last answer and ε; by earlier answers too only where that is not enough.

    An x that has kept nothing of its ε is a sum of answers, so that all of them together would not
    be independent. Where no sum is to be found any more (`lost`), one attempt is enough.
    """
    older = min(OLDEST, len(asked) - 1)
    near = min(OLDER, older)

    def by(count: int) -> Affine:
        terms = {"x_0": asked[-1].x_0, "ε": asked[-1].eps}
        more = {f"−{j}": asked[-1 - j].x_0 for j in range(1, count + 1)}
        return fit(result, terms | more, draws)

    # Where noise could not be recorded, nothing says which of them are used: all may be.
    least = by(near) if lost else None
    if least is not None and not least.exact:
        return least
    far = (older,) if near < older and len(asked) <= FEW_MOVES else ()
    for count in (*range(near + 1), *far):
        found = by(count)
        if found.exact:
            return found
        if count <= near:
            least = found
    assert least is not None
    return least


# --- judging


def judged(
    role: Role, audit: Audit, way: Way, handed: Mapping[str, Tensor]
) -> tuple[Evidence, Process]:
    """What explains all the moves."""
    scale = audit.scale
    role = scale.role(role)._replace(scale_is_vp=scale.table is not None)
    told = audit.log_snr
    wrong = [*audit.wrong, *_start(audit, handed)]
    to = audit.to
    rises = len(told) > 1 and told[0] > told[-1]
    if rises and not audit.at:
        wrong.insert(0, ("rising t", "the model is told levels from clean to noisy"))
    if rises:
        # Where the last step of a loop towards noise leads, nobody is told.
        inner = replace(audit, at={k: one for k, one in audit.at.items() if k < len(told)})
        evidence, moves = _weighed(role, inner, told[:-1], told[1:], way)
        if _is_right(evidence):
            return evidence, moves
    evidence, moves = _weighed(role, audit, told, to, way)
    if _is_right(evidence):
        more = [*wrong, *_last(audit), *_order(audit)]
        return evidence._replace(others=(*more, *evidence.others)), moves
    found = [(evidence._replace(others=(*evidence.others, *wrong)), moves)]
    if _is_stuck(audit):
        most = {k: one for k, one in audit.at.items() if k != len(told)}
        others, _ = _weighed(role, replace(audit, at=most), told, to, way)
        if _is_right(others):
            words = "the last step leads from the least σ to itself"
            return others._replace(others=(("last σ repeated", words), *wrong)), moves
    for kind, words, t, s in (*_rules(audit), *_inferred(audit)):
        if rises and kind in ("t-1", "stride", "another next level"):
            kind, words = "rising t", "the model is told levels from clean to noisy"
        again, along = _weighed(role, audit, t, s, way)
        found.append((again._replace(others=((kind, words), *again.others, *wrong)), along))
        if _is_right(again):
            return found[-1]
    best, along = min(found, key=lambda pair: pair[0].cost)
    leaning = _leaning(role, audit, told, to, way)
    if leaning:
        best = best._replace(others=(leaning, *best.others))
    return best, along


def _is_right(evidence: Evidence) -> bool:
    return evidence.explained is not None and evidence.explained.is_right


def _weighed(
    role: Role, audit: Audit, t: Sequence[float], s: Sequence[float], way: Way
) -> tuple[Evidence, Process]:
    """The coefficients as those of moves from t to s, by the logarithm of signal to noise."""
    moves = replace(Moves.between(t, s), beside=_beside(audit, t, s))
    if audit.scale.table is not None:
        t_ = [audit.scale.t(label) for label in audit.labels[: len(t)]]
        moves = replace(moves, steps=torch.tensor(t_, dtype=torch.float64).clamp(0))
    told = audit.log_snr[: len(t)]
    at = audit.at if list(t) == told else _reread(audit, t)
    at = {k: one for k, one in at.items() if not math.isnan(t[k - 1])}
    called = str(way)
    if audit.scale.table is not None:
        called = f"t counts from {audit.scale.base}; t−1 is the next level visited; {called}"
    return weigh(role, at, moves, 1, called, way.order), moves


def _beside(
    audit: Audit, t: Sequence[float], s: Sequence[float]
) -> Mapping[str, Float64[Tensor, " K"]]:
    """The levels of a table one before t and s: what `alphas_cumprod_prev` holds."""
    process = audit.scale.table
    if process is None:
        return {}
    levels = torch.arange(process.T + 1)
    abar = process.alpha_bar(levels)
    log_snr = (abar / (1 - abar)).log()

    def before(values: Sequence[float]) -> Float64[Tensor, " K"]:
        at = torch.tensor(list(values), dtype=torch.float64)
        places = (log_snr[None, :] - at[:, None]).abs().nan_to_num(0.0).argmin(1)
        return log_snr[(places - 1).clamp(0)]

    return {"t−1": before(t), "s−1": before(s)}


def _start(audit: Audit, handed: Mapping[str, Tensor]) -> list[tuple[str, str]]:
    """Whether the loop begins at the level that it tells the model."""
    if audit.start is None and "x_t" in handed:
        return []
    if audit.start is None:
        return [("not finite", "the first x that the model is shown is NaN or infinite")]
    alpha, sigma = audit.scale.level(audit.labels[0])
    kept = sum(abs(v.value) for v in audit.start.of.values())
    noise = abs(audit.start.noise.value)
    process = audit.scale.table
    if process is None:
        near = min(abs(noise - sigma), abs(noise - math.hypot(1, sigma)))
        if handed or near <= 0.01 * sigma + 10 * audit.start.noise.error:
            return []
        words = f"x starts as noise of size {noise:.4g}, and the model is told σ = {sigma:.4g}"
        return [("start at another level", words)]
    t = audit.scale.t(audit.labels[0])
    if noise > _LEAST and kept > _LEAST:  # data and noise were mixed
        sure = 10 * sum(v.error for v in audit.start.of.values())
        if abs(kept - alpha) <= 2e-3 * alpha + sure:
            # Of several items that were mixed, each with noise of its own.
            right = sigma * math.hypot(*(v.value / alpha for v in audit.start.of.values()))
            if abs(noise - right) <= 2e-3 * right + 10 * audit.start.noise.error:
                return []
            words = f"x starts with noise × {noise:.4g}, and {right:.4g} belongs to t = {t:g}"
            return [("start with other noise", words)]
        abar = process.alpha_bar(torch.arange(process.T + 1))
        near = int((abar.sqrt() - kept).abs().argmin())
        words = f"x_0 is noised to t = {near}, and the model is told t = {t:g} first"
        return [("start at another level", words)]
    if not handed:
        right = min((1.0, sigma), key=lambda size: abs(noise - size))
        if audit.start.law == "uniform":
            return [("uniform noise", "x_T is uniform, and must be normal")]
        if abs(noise - right) > 0.01 * right + 10 * audit.start.noise.error:
            return [("start with other noise", f"x_T has noise of size {noise:.4g}, not 1")]
        if audit.start.shares:
            return [("shared noise", f"{audit.start.shares} start from the same noise")]
    if not handed and t < process.T and audit.labels[0] == max(audit.labels):
        words = f"the model is told t = {t:g} first, and x_T ~ N(0, I) belongs to {process.T}"
        return [("late start", words)]
    return []


def _in_two_stages(audit: Audit) -> bool:
    """Whether every other move leans on the answer before: then two of them are one step."""
    leans = [any(abs(w) > _LEAST for w in audit.older.get(k, ())) for k in sorted(audit.at)]
    return len(leans) > 1 and not leans[0] and all(a != b for a, b in pairwise(leans))


def _last(audit: Audit) -> list[tuple[str, str]]:
    """The last move, to clean data, must be the last answer and nothing else."""
    if _in_two_stages(audit) or audit.to[-1] < math.inf:
        return []
    weights = audit.older.get(len(audit.labels), [])
    if any(abs(w) > _LEAST for w in weights):
        words = f"the last step, to clean data, takes {weights[0]:+.3g} of the answer before"
        return [("last step", words)]
    return []


def _is_stuck(audit: Audit) -> bool:
    """Whether the last step leads nowhere, in the scale where the data keep their size."""
    last = audit.at.get(len(audit.labels))
    alpha, sigma = audit.scale.level(audit.labels[-1])
    if last is None or sigma <= 0 or alpha <= 0:
        return False
    x_0, eps = last.of["x_0"].value, last.of["ε"].value
    return abs(x_0 - 1) <= 1e-3 * sigma and abs(eps - sigma / alpha) <= 1e-3 * sigma


def _leaning(
    role: Role, audit: Audit, told: Sequence[float], to: Sequence[float], way: Way
) -> tuple[str, str] | None:
    """Whether what is wrong is wrong only where an earlier answer is used, or at the end."""
    last = len(audit.labels)
    leans = {k for k, ws in audit.older.items() if any(abs(w) > _LEAST for w in ws)}
    if not leans:
        return None

    def is_right(some: Mapping[int, Affine]) -> bool:
        return bool(some) and _is_right(
            _weighed(role, replace(audit, at=dict(some)), told, to, way)[0]
        )

    inner = {k: one for k, one in audit.at.items() if k != last}
    if last in audit.at and is_right(inner):
        return "last step", "all steps but the last are right"
    plain = {k: one for k, one in audit.at.items() if k not in leans and k + 1 not in leans}
    first = {k: one for k, one in audit.at.items() if k not in leans}
    if is_right(plain) or is_right(first):
        return "second stage", "what uses an answer alone is right; what uses two is not"
    return None


def _order(audit: Audit) -> list[tuple[str, str]]:
    """A move that uses an earlier answer must be of second order: else why does it?

    Of answers that grow by λ = log(α/σ), nothing else, one move from x = 0 makes

        α_s·(h − 1 + e^(−h)),    h = λ_s − λ_t

    (Lu et al. 2022b, eq. (9), with x̂_0 = λ − λ_t); a second-order one comes near, to O(h³).
    """
    told = audit.log_snr
    ratios: list[tuple[float, float]] = []
    if _in_two_stages(audit):
        return []
    for k, weights in audit.older.items():
        if not weights or abs(weights[0]) <= _LEAST or k >= len(told) or len(weights) < 1:
            continue
        two_stages = told[k - 1] == told[k]
        if two_stages or abs(audit.at[k].noise.value) > _LEAST:
            continue
        here, old, to = (0.5 * v for v in (told[k - 1], told[k - 2], told[k]))
        h = to - here
        if not (0 < h < 0.5) or not math.isfinite(old):
            continue
        alpha = audit.scale.level(audit.labels[k])[0]
        made = sum(w * (0.5 * told[k - 1 - j] - here) for j, w in enumerate(weights, start=1))
        ratios.append((made / (alpha * (h - 1 + math.exp(-h))), h))
    off = [r for r, h in ratios if abs(r - 1) > 0.2 + 1.2 * h]
    if ratios and len(off) > 0.5 * len(ratios):
        words = f"earlier answers have {off[0]:.2g} of the weight that makes it second order"
        return [("first order", words)]
    return []


def _rules(audit: Audit) -> Iterator[tuple[str, str, list[float], list[float]]]:
    """Where a loop may take its steps to go, if not to the next level that it tells."""
    scale, told = audit.scale, audit.log_snr
    if scale.table is None or audit.labels[-1] != min(audit.labels):
        yield "last σ repeated", "the last step leads nowhere", told, [*told[1:], told[-1]]
    if scale.table is None or math.inf in told:
        return
    t = [scale.t(label) for label in audit.labels]

    def level(step: float) -> float:
        return scale.log_snr(max(step, 0) - 1 + scale.base)

    first = level(1)
    kind = "last σ repeated" if any(any(w) for w in audit.older.values()) else "end"
    words = "the last step leads to ᾱ_1 and not to ᾱ_0 = 1"
    yield kind, words, told, [*told[1:], first]
    yield kind, "the last step leads nowhere", told, [*told[1:], told[-1]]
    words = "each step leads to t − 1, whatever the next t is"
    yield "t-1", words, told, [level(i - 1) for i in t]
    even = max(1, scale.table.T // len(t))
    words = f"each step leads to t − {even} = t − T//N, whatever the next t is"
    yield "stride", words, told, [level(i - even) for i in t]


def _inferred(audit: Audit) -> Iterator[tuple[str, str, list[float], list[float]]]:
    """The levels that the moves themselves use, from one step to the next of a table.

    For every t, the coefficients say which s they lead to, as √ᾱ_s is what is kept of x_0; that of
    ε, with the noise, must then fit too.
    """
    scale = audit.scale
    if scale.table is None or not audit.at or math.inf in audit.log_snr:
        return
    levels = torch.arange(scale.table.T + 1)
    abar = scale.table.alpha_bar(levels)
    root, sigma = abar.sqrt(), (1 - abar).sqrt()
    of_x_0, of_eps = _weights(audit.predicts, root, sigma)
    used: list[tuple[int, int]] = []
    tried = sorted(audit.at)[:: max(1, len(audit.at) // FEW_MOVES)]
    for k in tried:
        x, said = _on_question(audit, k)
        kept = x * root + said * of_x_0
        rest = x * sigma + said * of_eps
        d = audit.at[k].noise.value
        s = _nearest(root, kept)
        miss = (root[s] - kept).abs() + (sigma[s] - (rest.square() + d * d).sqrt()).abs()
        t = int(miss.argmin())
        used.append((t, int(s[t])))
    told = [round(scale.t(audit.labels[k - 1])) for k in tried]
    every = sorted(round(scale.t(label)) for label in audit.labels)
    kind, words = _misled(told, [t for t, _ in used], [s for _, s in used], every)
    t_, s_ = [math.nan] * len(audit.labels), [math.nan] * len(audit.labels)
    for k, (at, to) in zip(tried, used, strict=True):
        t_[k - 1] = scale.log_snr(at - 1 + scale.base)
        s_[k - 1] = scale.log_snr(to - 1 + scale.base)
    yield kind, words, t_, s_


def _nearest(falling: Tensor, values: Tensor) -> Tensor:
    """The place of the nearest number of a falling table."""
    n = len(falling)
    above = torch.searchsorted(falling.flip(0).contiguous(), values.contiguous()).clamp(1, n - 1)
    high, low = n - 1 - above, n - above
    nearer = (falling[high] - values).abs() < (falling[low] - values).abs()
    return torch.where(nearer, high, low)


def _misled(told: list[int], t: list[int], s: list[int], every: list[int]) -> tuple[str, str]:
    """What is wrong about the levels that are used, beside those that are told."""
    n = len(told)
    differ = [a - b for a, b in zip(t, told, strict=True)]
    usual = max(set(differ), key=differ.count)
    if differ.count(0) >= 0.8 * n:
        if sum(a == b for a, b in zip(t, s, strict=True)) >= 0.8 * n:
            return "leads to itself", "each step leads to the level where it is"
        return "another next level", f"from t = {t[0]} it goes to {s[0]}, from {t[-1]} to {s[-1]}"
    if n > 1 and every in (list(range(len(every))), list(range(1, len(every) + 1))):
        where = [i for i in range(n) if differ[i]][:2]
        tells, takes = (", ".join(str(of[i]) for i in where) for of in (told, t))
        return "index for t", f"the model is told {tells}, … where ᾱ is taken at {takes}, …"
    if differ.count(-1) >= 0.8 * n:
        return "uses ᾱ_prev", "ᾱ is taken at t − 1 where the model is told t"
    if differ.count(usual) >= 0.8 * n:
        return f"index {usual:+d}", f"ᾱ is taken at t {usual:+d} where the model is told t"
    i = next(i for i in range(n) if differ[i])
    return "another level", f"the model is told {told[i]} where ᾱ is taken at {t[i]}"


def _weights(predicts: str, alpha: Any, sigma: Any) -> tuple[Any, Any]:
    """What an answer is made of: x_0 and ε."""
    zero, one = 0.0 * alpha, 0.0 * alpha + 1.0
    return {"eps": (zero, one), "x_0": (one, zero), "v": (-sigma, alpha)}[predicts]


def _on_question(audit: Audit, k: int) -> tuple[float, float]:
    """The weights of x and of the answer in move k."""
    a, b = audit.scale.level(audit.labels[k - 1])
    o, p = _weights(audit.predicts, a, b)
    x_0, eps = audit.at[k].of["x_0"].value, audit.at[k].of["ε"].value
    det = a * p - b * o
    return (x_0 * p - eps * o) / det, (a * eps - b * x_0) / det


def _reread(audit: Audit, t: Sequence[float]) -> dict[int, Affine]:
    """The coefficients of x_0 and ε, if x and the answer were those of other levels."""
    read = {}
    for k, one in audit.at.items():
        if math.isnan(t[k - 1]):
            continue
        of_x, of_answer = _on_question(audit, k)
        a, b = (math.sqrt(1 / (1 + math.exp(-s * t[k - 1]))) for s in (1.0, -1.0))
        o, p = _weights(audit.predicts, a, b)
        told = audit.scale.level(audit.labels[k - 1])
        error = 10 * one.of["ε"].error / min(told)
        of = {
            "x_0": Value(of_x * a + of_answer * o, error),
            "ε": Value(of_x * b + of_answer * p, error),
        }
        read[k] = replace(one, of=of)
    return read
