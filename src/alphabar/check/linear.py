"""Checks of what is linear: steps of the process, forward and back, each of the form

    result = Σ a_i·u_i + b·z

with coefficients that a law gives for every t. They are measured, and then explained.
"""

import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from jaxtyping import Float64, Int64
from torch import Tensor
from torch.nn.functional import logsigmoid

from alphabar.check.affine import (
    ROUNDING,
    Affine,
    Law,
    NotFinite,
    Recorder,
    Value,
    least_squares,
    measure,
)
from alphabar.check.catalogue import named
from alphabar.check.chance import FALSE_ALARM, FAR, power
from alphabar.check.composed import Composed, Place, composed
from alphabar.check.explain import Convention, Explanation, Series, explain
from alphabar.check.formula import Base, Formula, Process, misread
from alphabar.check.report import Diagnosis, Finding, Verdict
from alphabar.check.stranger import CannotCheck, Stranger, Way, seeded, ways

# Items that are enough where noise is handed over or recorded; numbers, where it is estimated.
FEW, MANY = 512, 60_000
MIXED = 2000  # items of one batch, each at a t of its own
EACH = ("t: int64 (B,)", "t: int64 (B, 1)", "t: float (B,)")  # forms with one for each item
ALONE = "t: int64 (1,)"
ALONG = (
    "right with one t for all items; one for each is laid along the last axis, which raises, or "
    "mixes items in silence where that axis has their number"
)
# Shapes of an item: numbers, a picture. A function may be written for one of them alone.
SHAPES = ((3,), (2, 4, 4))
# Of data: many clip what they take for data at ±1, and that is looked at by itself.
INSIDE = 0.8
NOISE = "z"  # what a function draws itself, or takes for what it would draw
# μ̃_t of x_0 and x_t (Ho et al. 2020, eq. (7)).
POSTERIOR_MEAN = {
    "x_0": Formula.of(beta=1, noise=-1, before={"abar": 0.5}),
    "x_t": Formula.of(alpha=0.5, noise=-1, before={"noise": 1}),
}
MISREAD = {
    "padded right": "ᾱ_t in place of ᾱ_{t−1}, and 1 at t = T",
    "next for previous": "ᾱ_{t+1} in place of ᾱ_{t−1}, and 1 at t = T",
    "keeps clean": "ᾱ_{t−1} in place of ᾱ_t, so that the first is ᾱ_0 = 1",
    "end": "ᾱ_1 in place of ᾱ_0 = 1 at the last step",
}


class Supply(NamedTuple):
    """What a function is handed, and what its result is a sum of."""

    slots: Mapping[str, Any]  # tensors (n, …), or a model; `t` comes of itself
    terms: Mapping[str, Tensor]


class Role(NamedTuple):
    """What a function is to do."""

    name: str
    law: str
    result: str
    needed: tuple[str, ...]  # slots that it must take, beside t
    noise: str | None  # the slot in which it may be handed noise
    supply: Callable[[Process, int, int, tuple[int, ...], torch.Generator], Supply]
    conventions: tuple[Convention, ...]
    lands: bool = False  # whether the last step, to t = 0, may add no noise
    signed: bool = False  # whether −z is something else than z
    predicts: str = ""  # what a model says, where there is one
    scale_is_vp: bool = True
    dtype: torch.dtype = torch.float32  # of what is handed over
    trains: bool = False  # whether training calls it, with a t for each item
    # The levels, where only what was measured tells them.
    read: Callable[[Mapping[int, Affine], Process], Process] | None = None

    @property
    def is_low(self) -> bool:
        """Whether results are rounded to few digits."""
        return torch.finfo(self.dtype).eps > 1e-4


class Evidence(NamedTuple):
    """What was measured, and what explains it."""

    called: str  # how the function was called
    takes: tuple[str, ...]  # what it was handed
    steps: Int64[Tensor, " n"]
    series: Mapping[str, Series]
    explained: Explanation | None
    base: int
    ignored: bool  # whether noise was handed over, and had no effect
    others: tuple[tuple[str, str], ...]  # what else is wrong: its kind, in words
    apart: float = 1.0  # how far, from 0 to 1, the coefficients are from the nearest law
    way: Way | None = None
    shape: tuple[int, ...] = ()
    at: Mapping[int, Affine] = MappingProxyType({})
    noisy: bool = False  # whether coefficients are estimates, as noise could not be recorded
    numbers: int = 0  # that were measured at each step
    weak: str = ""  # where it is wrong, and need not be called
    place: str = "t"  # what a step's number is: t, or which move of many

    @property
    def is_right(self) -> bool:
        """Whether nothing is wrong."""
        return self.explained is not None and self.explained.is_right and not self.others

    @property
    def tells(self) -> bool:
        """Whether it is explained, and by more than that a part is missing altogether.

        What is wrong at one step alone has many explanations.
        """
        if self.explained is None or (len(self.steps) == 1 and not self.is_right):
            return False
        return all(p.found is None or p.found.formula.factor for p in self.explained.wrong)

    @property
    def cost(self) -> float:
        """How far it is from right."""
        found = 20.0 + self.apart if self.explained is None else self.explained.cost
        return found + len(self.others)


def check_linear(
    role: Role, function: Callable[..., object], process: Process, given: Mapping[str, object]
) -> Finding:
    """One function against its law."""
    begin = time.perf_counter()
    stranger = Stranger(function, given)
    try:
        tried = measured_ways(role, stranger, process)
    except CannotCheck as error:
        return unchecked(stranger.name, role, str(error), begin)
    return finding(stranger, role, together(tried), process, begin)


def together(tried: Sequence[Evidence]) -> Evidence:
    """One body of evidence: in each set of arguments the order that was meant, then the worst.

    A function that is right with the noise that it is handed may still draw a wrong one itself.
    """
    meant: dict[frozenset[str], Evidence] = {}
    for evidence in tried:
        takes = frozenset(evidence.takes)
        if takes not in meant or evidence.cost < meant[takes].cost:
            meant[takes] = evidence
    worst = max(meant.values(), key=lambda e: e.cost)
    if any(e.ignored for e in meant.values()):
        more = ("ignored noise", "what is handed over as noise changes nothing")
        worst = worst._replace(others=(*worst.others, more))
    return worst


def unchecked(name: str, role: Role, why: str, begin: float) -> Finding:
    """What is said where nothing could be measured."""
    seconds = time.perf_counter() - begin
    return Finding(name, role.name, "unchecked", role.law, "", "", why=why, seconds=seconds)


def finding(
    stranger: Stranger, role: Role, best: Evidence, process: Process, begin: float
) -> Finding:
    """What the evidence says."""
    if role.read is not None and best.at:
        process = role.read(best.at, process)
    diagnoses = _diagnoses(role, best)
    verdict: Verdict = "bug" if diagnoses or best.explained is None else "right"
    why = ""
    if verdict == "right" and best.explained is not None:
        if not best.explained.convention.is_usual:
            verdict = "equivalent"
        if best.weak:
            verdict, why = "fragile", best.weak
        elif stranger.modified:
            verdict, why = "fragile", "it changes the tensor that it is handed; work on a copy"
        elif _is_turned(role, best):
            verdict = "fragile"
            why = f"right if noise is its argument before {role.needed[0]}, not the other way round"
    return Finding(
        stranger.name,
        role.name,
        verdict,
        role.law,
        _measured(role, best),
        _expected(role, best, process),
        tuple(diagnoses),
        _convention(best),
        why,
        time.perf_counter() - begin,
    )


def _is_turned(role: Role, best: Evidence) -> bool:
    """Whether noise must be handed over before the data, against all custom."""
    noise, data = role.noise or "", role.needed[0]
    if noise not in best.takes or data not in best.takes:
        return False
    return best.takes.index(noise) < best.takes.index(data)


# --- measuring


def measured_ways(role: Role, stranger: Stranger, process: Process) -> list[Evidence]:
    """All ways of calling it, measured, with items of the shape that makes the most sense."""
    refused: CannotCheck | None = None
    found: list[Evidence] = []
    for shape in SHAPES:
        try:
            by_order: dict[tuple[str, ...], list[Way]] = {}
            for way in ways_of(role, stranger, process, shape):
                by_order.setdefault(way.order, []).append(way)
        except CannotCheck as error:
            refused = refused or error
            continue
        again = [
            _of_order(role, stranger, same, process, shape, base)
            for same in by_order.values()
            for base in bases(role, stranger, same[0], process, shape)
        ]
        loud = not_optional(role, stranger, by_order)
        again = [e._replace(others=(*e.others, *loud)) for e in again]
        # A function for pictures may give something for numbers too, which is not its result.
        if not found or together(again).cost < together(found).cost:
            found = again
        if together(found).tells:
            break
    if not found:
        assert refused is not None
        raise refused
    return found


def not_optional(
    role: Role, stranger: Stranger, orders: Collection[tuple[str, ...]]
) -> list[tuple[str, str]]:
    """Noise that has a default, and must be handed over all the same."""
    if role.noise is None or not all(role.noise in order for order in orders):
        return []
    places = {order.index(role.noise) for order in orders}
    spare = [p for i in places if (p := stranger.parameters()[i]).default is not p.empty]
    if not spare:
        return []
    words = f"without {spare[0].name}, which has a default, it raises or gives nothing of its shape"
    return [("not optional", words)]


def _of_order(
    role: Role,
    stranger: Stranger,
    same: Sequence[Way],
    process: Process,
    shape: tuple[int, ...],
    base: int,
) -> Evidence:
    """Of ways with the same arguments one form of t is enough, and one result that is explained."""
    form = same[0].t_form
    best: Evidence | None = None
    for way in same:
        if way.t_form != form:
            continue
        evidence = _outcome(role, stranger, way, process, shape, base)
        if best is None or evidence.cost < best.cost:
            best = evidence
        if best.is_right:
            break
    assert best is not None
    best = _apart_from_others(role, stranger, best, process)
    return best._replace(others=(*best.others, *_other_noise(role, stranger, best, process)))


def _other_noise(
    role: Role, stranger: Stranger, best: Evidence, process: Process
) -> list[tuple[str, str]]:
    """What comes beside the result must be made of the noise that is in it, not of another.

    With x_t = a·x_0 + b·z any sum of x_0 and z is one of x_0 and x_t.
    """
    way = best.way
    if role.noise is None or way is None or not best.is_right or len(way.others) < 2:
        return []
    middle = int(best.steps[len(best.steps) // 2])
    arguments = handed(role, way, process, middle, best.base, FEW, best.shape)
    known = [v for v in arguments if isinstance(v, Tensor) and v.shape == (FEW, *best.shape)]
    beside: list[list[tuple[Tensor, float]]] = []
    for seed in (5, 6):
        with seeded(seed):
            results = [v.double() for v in stranger(*arguments)]
        if len(results) <= max(way.others):
            return []
        columns = [v.double().flatten() for v in (*known, results[way.picked])]
        of = [results[j] for j in way.others if j != way.picked]
        beside.append([(v, least_squares(columns, v)[1]) for v in of])
    first, again = beside
    if any(left <= 0.05 * v.square().mean().sqrt() for v, left in first):
        return []  # the noise in the result, or what is made of it
    for (v, left), (other, _) in zip(first, again, strict=True):
        if left > 0.95 and not torch.equal(v, other) and _is_normal(v):
            return [("other noise", "it draws twice: one is in the result, and one is returned")]
    return []


def _is_normal(v: Tensor) -> bool:
    """Whether these look like draws of N(0, 1), by their first four moments."""
    moments = torch.stack([v.mean(), v.square().mean(), v.pow(4).mean() / 3])
    return bool((moments - torch.tensor([0.0, 1.0, 1.0])).abs().max() < 0.3)


def _apart_from_others(
    role: Role, stranger: Stranger, best: Evidence, process: Process
) -> Evidence:
    """What is right for one t for all: whether items with a t of their own get theirs too."""
    way = best.way
    if way is None or not best.is_right or "index" in way.order or "t" not in way.order:
        return best
    if way.t_form in EACH:
        mixed = _mixed(role, stranger, best, way, process)
        return best if not mixed else best._replace(others=(*best.others, ("mixed t", mixed)))
    # Numbers that are laid along the last axis pass where there are as many items as that is long.
    along = replace(way, t_form=EACH[0])
    mixed = _mixed(role, stranger, best, along, process, best.shape[-1])
    if not mixed:
        return best
    if way.t_form == ALONE:  # no plain number will do
        mixed += ": t is laid along the last axis"
        return best._replace(others=(*best.others, ("mixed t", mixed)))
    # Training gives each item a t of its own; whole chains go through the steps together.
    return best._replace(weak=ALONG) if role.trains else best


def _mixed(
    role: Role, stranger: Stranger, best: Evidence, way: Way, process: Process, n: int = MIXED
) -> str:
    """How many items of one batch, each at a t of its own, are not as the law says."""
    assert best.explained is not None
    law = best.explained.convention
    if best.noisy or best.ignored or law.is_chain or law not in role.conventions:
        return ""
    known = process
    if role.read is not None:
        known = role.read(best.at, process)
    if process.has_table and not role.predicts:
        t = torch.randperm(process.T, generator=torch.Generator().manual_seed(0)) + 1
    else:  # what was measured, as it takes a call for each t
        t = best.steps.flip(0) + 1 - best.base
    if role.lands:
        t = t[~known.is_last(t)]
    for formula in law.formulas.values():
        t = t[formula.at(known, t).isfinite()]  # pure noise tells no level
    t = t[:n]
    if len(t) < min(n, 2):
        return ""
    supply, steps = _of_each(role, process, t, best)
    slots = {k: _cast(v, role.dtype) for k, v in supply.slots.items()}
    with seeded(3), Recorder() as recorder:
        try:
            result = way.call(stranger, {**slots, **steps}).double()
        except CannotCheck:
            return ""  # loud
    drawn = [sign * d for _, d in recorder.draws if d.shape == result.shape for sign in (1, -1)]
    if role.noise is not None and role.noise in way.order:
        drawn = [supply.slots[role.noise]]
    elif not law.formulas[NOISE].factor:
        drawn = [torch.zeros_like(result)]
    near = 5e-2 if role.is_low else 5e-3
    off = torch.zeros(len(t), dtype=torch.bool)
    for k, noise in enumerate(drawn):  # one of them is in the result
        terms = {**supply.terms, NOISE: noise}
        parts = [
            f.at(known, t).reshape(-1, *(1,) * (result.ndim - 1)) * terms[name].double()
            for name, f in law.formulas.items()
            if f.factor
        ]
        made = torch.stack(parts).sum(0)
        far = (result - made).abs().flatten(1).amax(1)
        wrong = ~(far <= near * made.abs().flatten(1).amax(1) + near)
        off = wrong if k == 0 or wrong.sum() < off.sum() else off
    if not off.any():
        return ""
    words = f"of {len(t)} items with t of their own {int(off.sum())} are not as the law says"
    return f"{words}, one with t = {steps['t'][off.to(torch.uint8).argmax()].item():g}"


def _of_each(
    role: Role, process: Process, t: Int64[Tensor, " n"], best: Evidence
) -> tuple[Supply, Mapping[str, Tensor]]:
    """What is handed over where each item has a t of its own."""
    steps = {
        name: torch.cat([process.labels(i, 1) for i in (t - by + best.base).tolist()])
        for name, by in (("t", 1), ("s", 2))
    }
    if not role.predicts:
        return _supply(role, process, 1, len(t), best.shape, 1), steps
    each = [_supply(role, process, i, 1, best.shape, i) for i in t.tolist()]
    slots = {name: torch.cat([one.slots[name] for one in each]) for name in ("answer", "x_t")}
    model = type(each[0].slots["model"])(slots["answer"])
    terms = {name: torch.cat([one.terms[name] for one in each]) for name in each[0].terms}
    return Supply({**slots, "model": model}, terms), steps


def ways_of(role: Role, stranger: Stranger, process: Process, shape: tuple[int, ...]) -> list[Way]:
    """All ways of calling it that work, with no more than it needs."""
    if process.T > 1:
        return _ways_at(role, stranger, process, process.T // 2, shape)
    try:
        return _ways_at(role, stranger, process, 1, shape)
    except CannotCheck:
        return _ways_at(role, stranger, process, 0, shape)  # its only step counts from 0


def _ways_at(
    role: Role, stranger: Stranger, process: Process, middle: int, shape: tuple[int, ...]
) -> list[Way]:
    slots = role.supply(process, max(middle, 1), 4, shape, torch.Generator().manual_seed(0)).slots
    tried = {k: _cast(v, role.dtype) for k, v in slots.items()}
    tried["t"] = process.labels(middle, 4)
    if not role.lands:
        return _working(role, stranger, tried, shape)
    # A number beside t is the next step, if it can be; else t again.
    try:
        return _working(role, stranger, {**tried, "s": process.labels(middle - 1, 4)}, shape)
    except CannotCheck as error:
        if len(stranger.parameters()) < 4:
            raise
        with suppress(CannotCheck):
            return _working(role, stranger, {**tried, "index": tried["t"]}, shape)
        raise error from None


def _working(
    role: Role, stranger: Stranger, tried: Mapping[str, Any], shape: tuple[int, ...]
) -> list[Way]:
    with seeded(0):
        found = list(ways(stranger, tried, (*role.needed, "t"), (4, *shape)))
        found = [way for way in found if _heard(stranger, way, tried)] or found
    if role.predicts:
        found = [way for way in found if {"model", "answer"} & {*way.order}]
        if not found:
            raise CannotCheck(f"{stranger.name} takes neither a model nor its answer")
    # Noise may be handed over or not; of anything else, what the function needs is enough.
    least = [{*way.order} - {role.noise} for way in found]
    return [
        way
        for way, takes in zip(found, least, strict=True)
        if not any(other < takes for other in least)
    ]


def _heard(stranger: Stranger, way: Way, tried: Mapping[str, Any]) -> bool:
    """Whether a model that is handed over is asked: else it stands where something else should."""
    if "model" not in way.order:
        return True
    model = tried["model"]
    model.asked.clear()
    way.call(stranger, tried)
    return bool(model.asked)


def bases(
    role: Role, stranger: Stranger, way: Way, process: Process, shape: tuple[int, ...]
) -> tuple[int, ...]:
    """Only a function that knows a step T counts from 1."""
    if not process.has_table:
        return (1,)
    try:
        knows = _call(role, stranger, way, process, process.T, 1, 4, shape) is not None
    except NotFinite:
        knows = True
    return (1,) if knows else (0,)


def _call(
    role: Role,
    stranger: Stranger,
    way: Way,
    process: Process,
    i: int,
    base: int,
    n: int,
    shape: tuple[int, ...],
) -> Affine | None:
    """The coefficients at the person's step i; None where the function knows no such step."""
    t = i + 1 - base
    if not 0 <= t <= process.T:
        return None
    supply = _supply(role, process, t, n, shape, i)
    slots = {k: _cast(v, role.dtype) for k, v in supply.slots.items()}
    terms = {k: _cast(v, role.dtype).flatten(1) for k, v in supply.terms.items()}
    if role.noise is not None and role.noise in way.order:
        terms[NOISE] = slots[role.noise].flatten(1)

    def call() -> Tensor:
        return way.call(stranger, {**slots, **_steps(way, process, i, n)}).flatten(1)

    try:
        with seeded(17 + i):
            return measure(call, terms, 2e-2 if role.is_low else ROUNDING)
    except NotFinite:
        raise
    except Exception:
        return None


def _supply(
    role: Role, process: Process, t: int, n: int, shape: tuple[int, ...], seed: int
) -> Supply:
    return role.supply(process, max(t, 1), n, shape, torch.Generator().manual_seed(seed))


def _steps(way: Way, process: Process, i: int, n: int) -> dict[str, Tensor]:
    t = process.labels(i, n)
    steps = {"t": t, "index": t}
    return {**steps, "s": process.labels(i - 1, n)} if "s" in way.order else steps


def handed(
    role: Role,
    way: Way,
    process: Process,
    i: int,
    base: int,
    n: int,
    shape: tuple[int, ...],
) -> list[object]:
    """The arguments of a call at the person's step i."""
    slots = _supply(role, process, i + 1 - base, n, shape, i).slots
    slots = {k: _cast(v, role.dtype) for k, v in slots.items()}
    return way.handed({**slots, **_steps(way, process, i, n)})


def _cast(value: Any, dtype: torch.dtype) -> Any:
    return value.to(dtype) if isinstance(value, Tensor) else value


def _outcome(
    role: Role,
    stranger: Stranger,
    way: Way,
    process: Process,
    shape: tuple[int, ...],
    base: int,
) -> Evidence:
    T = process.T
    some = sorted({i for i in (1, 2, T // 4, T // 2, (3 * T) // 4, T - 2, T - 1, T) if 1 <= i <= T})
    some = [0, *some] if base == 0 else some

    broken: list[int] = []

    def measured(n: int) -> dict[int, Affine]:
        found: dict[int, Affine] = {}
        for i in some:
            try:
                one = _call(role, stranger, way, process, i, base, n, shape)
            except NotFinite:
                broken.append(i)
                continue
            if one is not None:
                found[i] = one
        return found

    at = measured(FEW)
    # What was meant for pictures may make n² numbers of n items.
    if any(not one.exact for one in at.values()) and stranger.most <= 64 * FEW * math.prod(shape):
        at = measured(MANY // math.prod(shape))
    if role.read is not None and at:
        process = role.read(at, process)
    evidence = weigh(role, at, process, base, str(way), way.order)
    if role.lands and "s" in way.order and evidence.explained is None:
        evidence = _but_the_last(role, at, process, base, way) or evidence
    evidence = evidence._replace(way=way, shape=shape, at=at)
    if _repeats(role, stranger, way, process, at, base, shape):
        more = ("same noise", "each call draws the same noise: a seed is set inside")
        evidence = evidence._replace(others=(*evidence.others, more))
    if broken:
        words = f"NaN or infinity at t = {', '.join(str(i + 1 - base) for i in sorted({*broken}))}"
        last = process.is_last(torch.tensor(broken) + 1 - base)
        kind = "not finite" if at else "never finite"
        if role.lands and bool(last.all()):
            kind = "not finite at the end"
        if not any(other == "keeps clean" for other, _ in evidence.others):  # that divides by 0
            evidence = evidence._replace(others=((kind, words), *evidence.others))
        if len(broken) > len(at):
            evidence = evidence._replace(explained=None, apart=5.0)
    return evidence


def _but_the_last(
    role: Role, at: Mapping[int, Affine], process: Process, base: int, way: Way
) -> Evidence | None:
    """Right wherever it leads to a level of the table: what leads to clean data may be apart."""
    inner = {i: one for i, one in at.items() if not process.is_last(torch.tensor([i + 1 - base]))}
    evidence = weigh(role, inner, process, base, str(way), way.order)
    if not evidence.is_right:
        return None
    words = f"right but for the step to clean data, where s = {base - 1} is handed over"
    return evidence._replace(weak=words)


def _repeats(
    role: Role,
    stranger: Stranger,
    way: Way,
    process: Process,
    at: Mapping[int, Affine],
    base: int,
    shape: tuple[int, ...],
) -> bool:
    """Whether two calls draw the same noise, whatever the generators were at."""
    noisy = [i for i, one in at.items() if abs(one.noise.value) > 1e-3]
    if not noisy or role.noise in way.order:
        return False
    results = []
    for seed in (101, 202):
        with seeded(seed):
            arguments = handed(role, way, process, noisy[-1], base, 64, shape)
            results.append(stranger(*arguments)[way.picked])
    return results[0].shape == results[1].shape and torch.equal(results[0], results[1])


def weigh(
    role: Role,
    at: Mapping[int, Affine],
    process: Process,
    base: int,
    called: str,
    takes: tuple[str, ...],
) -> Evidence:
    """What explains the coefficients at the person's steps."""
    if not at:
        none = torch.empty(0, dtype=torch.int64)
        return Evidence(called, takes, none, {}, None, base, False, (), apart=20.0)
    all_ = list(at.values())
    handed = NOISE in all_[0].of
    ignored = handed and all(
        abs(one.of[NOISE].value) <= 8 * one.of[NOISE].error + 1e-6 and one.noise.value
        for one in all_
    )
    series = {name: _series([one.of[name] for one in all_]) for name in all_[0].of if name != NOISE}
    own = not handed or ignored
    series[NOISE] = _series([_noise(one, role.signed) if own else one.of[NOISE] for one in all_])
    index = torch.tensor(list(at))
    others = _others(all_, own)
    if handed and not ignored and not all(one.exact for one in all_):
        others.append(("no sum", f"{role.result} is no sum of what is handed over"))
    if role.lands:
        last = process.is_last(index + 1 - base)
        least = 1e-5 if all(one.exact for one in all_) else 1e-3
        if (series[NOISE].values[last].abs() > least).any():
            others.append(("noise at the end", "the last step, to clean data, adds noise"))
        # Whatever the variance is elsewhere: there it is none, and says nothing of the rest.
        series[NOISE].errors[last] = math.inf
    loose = 1e-2 if role.is_low else 0.0
    found = explain(series, index, role.conventions, (base,), process, role.lands, loose=loose)
    best = found[0] if found else None
    if role.is_low and (best is None or not best.is_right):
        eps = torch.finfo(role.dtype).eps
        again = explain(series, index, role.conventions, (base,), process, role.lands, eps)
        if again and again[0].is_right:
            best = again[0]
            words = f"the coefficients are those of a table in {role.dtype}, 1 − ᾱ_t has no digits"
            others.insert(0, ("low precision", words))
    if best is None or not best.is_right:
        # One step alone would fit any table.
        for kind, other in misread(process).items() if process.has_table and process.T > 1 else ():
            again = explain(series, index, role.conventions, (base,), other, role.lands)
            if again and again[0].is_right:
                best = again[0]
                others.insert(0, (kind, f"with {MISREAD[kind]} all {len(index)} steps tried fit"))
                break
    if (best is None or not best.is_right) and role.lands and not others:
        best = _kept(role, series, index + 1 - base, process) or best
    if best is None and role.predicts in ("eps", "x_0", "v"):
        whole = _composed(role, series, index + 1 - base, process)
        if whole is not None:
            others.insert(0, whole)
    weak = ""
    if best is None and not others:
        best = least_noise(role.conventions, series, index, base, process)
    if best is None and not others:
        best, weak = _in_half(role, series, index, base, process)
    apart = min(_apart(series, c, index + 1 - base, process) for c in role.conventions)
    noisy, numbers = not all(one.exact for one in all_), max(one.count for one in all_)
    evidence = Evidence(called, takes, index, series, best, base, ignored, tuple(others), apart)
    place = "t" if process.has_table else "move" if role.lands else "level"
    return evidence._replace(noisy=noisy, numbers=numbers, place=place, weak=weak)


def least_noise(
    laws: Sequence[Convention],
    series: Mapping[str, Series],
    index: Int64[Tensor, " n"],
    base: int,
    process: Process,
) -> Explanation | None:
    """A straight flow that ends at noise of a size σ_min, in place of the data themselves.

    b ← b + σ_min·a,    a·x_0 + b·z the law    (Lipman et al. 2023, eq. (20))
    """
    t = index + 1 - base
    for law in laws:
        names = {b.name for f in law.formulas.values() for b, _ in f.powers}
        if not names or not names <= {"signal", "spread"} or NOISE not in law.formulas:
            continue
        a, b = (law.formulas[name].at(process, t) for name in ("x_0", NOISE))
        z = series[NOISE]
        least = ((z.values - b)[a > 0.1] / a[a > 0.1]).median().item()
        if not 1e-6 < least <= 0.2:
            continue
        name = f"{law.name}, σ_min = {least:.3g}"
        named_so = law._replace(name=name, is_usual=False, least=least)
        straight = {**series, NOISE: Series(z.values - least * a, z.errors)}
        found = explain(straight, index, (named_so,), (base,), process)
        if found and found[0].is_right:
            return found[0]
    return None


def _in_half(
    role: Role,
    series: Mapping[str, Series],
    index: Int64[Tensor, " n"],
    base: int,
    process: Process,
) -> tuple[Explanation | None, str]:
    """Right but for the rounding of tables in half precision, where every coefficient is one."""
    values = torch.cat([one.values for one in series.values()])
    for dtype, share in ((torch.float16, 2.0**-10), (torch.bfloat16, 2.0**-7)):
        rounded = values.to(dtype).double()
        if not bool(((values - rounded).abs() <= 1e-5 * values.abs() + 1e-7).all()):
            continue
        found = explain(series, index, role.conventions, (base,), process, loose=share)
        if found and found[0].is_right:
            return found[0], f"right to the digits of {dtype}: keep tables in float32"
    return None, ""


def _kept(
    role: Role, series: Mapping[str, Series], t: Int64[Tensor, " n"], process: Process
) -> Explanation | None:
    """Right with any share of fresh noise: what is kept of ε and what is new make σ_s together.

    x_s = α_s·x_0 + √(σ_s² − d²)·ε + d·z        (Song et al. 2021a, eq. (12))
    """
    law = next((c for c in role.conventions if not c.wrong and c.formulas[NOISE].factor == 0), None)
    if law is None or "ε" not in law.formulas:
        return None
    eps, z = series["ε"], series[NOISE]
    if (eps.values < -1e-3).any():
        return None
    size = (eps.values.square() + z.values.square()).sqrt()
    error = eps.errors + z.errors.nan_to_num(posinf=0.0)
    whole = {"x_0": series["x_0"], "ε": Series(size, error)}
    both = Convention(
        "variance-keeping, with noise of its own",
        {name: law.formulas[name] for name in ("x_0", "ε")},
        False,
    )
    found = explain(whole, t, (both,), (1,), process, role.lands)
    return found[0] if found and found[0].is_right else None


def _composed(
    role: Role, series: Mapping[str, Series], t: Int64[Tensor, " n"], process: Process
) -> tuple[str, str] | None:
    """A step whose parts are taken at other levels, by its kind and in words."""

    def place(log_snr: Float64[Tensor, " n"]) -> Place:
        return Place((0.5 * logsigmoid(log_snr)).exp(), (0.5 * logsigmoid(-log_snr)).exp())

    if not role.scale_is_vp:
        return None
    places = {name: place(v) for name, v in process.neighbours(t).items()}
    fitting = []
    x_0, eps = series["x_0"], series["ε"]
    tried = list(_means(t, process))
    if (series[NOISE].values.abs() <= 1e-3).all():
        tried += composed(role.predicts, places)
    for one in tried:
        known = one.x_0.isfinite() & one.eps.isfinite()
        far = [
            (s.values - made).abs() <= FAR * s.errors + 2e-4 * made.abs() + 1e-4
            for s, made in ((x_0, one.x_0), (eps, one.eps))
        ]
        if known.sum() >= max(2, len(t) - 2) and bool((far[0] & far[1])[known].all()):
            fitting.append(one)
    if not fitting:
        return None
    best = min(fitting, key=lambda one: one.cost)
    return best.kind, f"{best.words}: fits at all {len(t)} steps tried"


def _means(t: Int64[Tensor, " n"], process: Process) -> Iterator[Composed]:
    """μ̃_t by way of x̂_0, with a table of ᾱ that is misread (Ho et al. 2020, eq. (7))."""
    if not process.has_table:
        return
    abar, noise = (process.log(Base(name), t).exp() for name in ("abar", "noise"))
    for kind, other in misread(process).items():
        of_x_0, of_x_t = (POSTERIOR_MEAN[name].at(other, t) for name in ("x_0", "x_t"))
        words = f"μ̃_t with {MISREAD[kind]}"
        x_0, eps = of_x_0 + of_x_t * abar.sqrt(), of_x_t * noise.sqrt()
        yield Composed(kind, words, x_0, eps, 1.0)


def _apart(
    series: Mapping[str, Series], law: Convention, t: Int64[Tensor, " n"], process: Process
) -> float:
    """How far the coefficients of what is handed over are from a law, as a share of their size."""
    far, size = 0.0, 0.0
    for name, formula in law.formulas.items():
        right = formula.at(process, t)
        known = right.isfinite() & (name != NOISE)
        far += (series[name].values - right)[known].abs().sum().item()
        size += (series[name].values.abs() + right.abs())[known].sum().item()
    return far / size if size else 1.0


def _series(values: Sequence[Value]) -> Series:
    return Series(
        torch.tensor([v.value for v in values], dtype=torch.float64),
        torch.tensor([v.error for v in values], dtype=torch.float64),
    )


def _noise(one: Affine, signed: bool) -> Value:
    """What the noise is multiplied by: of uniform numbers, not their standard deviation."""
    size = one.noise.value if signed else abs(one.noise.value)
    scale = 1.0
    if one.law == "uniform":
        scale = math.sqrt(3 if _is_centred(one) else 12)
    # What is exact is a root of squares of several weights.
    return Value(scale * size, (4 if one.exact else scale) * one.noise.error)


def _is_centred(one: Affine) -> bool:
    """Whether uniform noise is so around 0."""
    return abs(one.constant.value) <= 0.1 * abs(one.noise.value)


def _others(at: Sequence[Affine], own: bool) -> list[tuple[str, str]]:
    """What is wrong beside the coefficients."""
    found = []
    laws: set[Law] = {one.law for one in at if abs(one.noise.value) > 1e-6}
    uniform = next((one for one in at if one.law == "uniform"), None)
    if own and uniform is not None and "uniform" in laws:
        law = "around 0" if _is_centred(uniform) else "on [0, 1], of mean 0.5 and variance 0.083"
        found.append(("uniform noise", f"the noise is uniform {law}"))
    leans = next((one.leans for one in at if one.leans), "")
    if own and "other" in laws and not leans:
        found.append(("noise of another law", "the noise is not normal"))
    if leans:
        found.append(("noise by state", f"the size of the noise depends on {leans}"))
    shares = next((one.shares for one in at if one.shares), "")
    if shares and own:
        found.append(("shared noise", f"{shares} have the same noise"))
    if "uniform" not in laws and any(
        abs(one.constant.value) > 8 * one.constant.error + 1e-5 for one in at
    ):
        found.append(("constant", "a constant is added"))
    return found


# --- saying


def _diagnoses(role: Role, best: Evidence) -> list[Diagnosis]:
    found = [named(role.name, kind, words) for kind, words in best.others]
    if best.explained is not None:
        if best.explained.convention.wrong:
            words = f"all {len(best.steps)} steps tried fit"
            found.append(named(role.name, best.explained.convention.wrong, words))
        for part in best.explained.wrong:
            assert part.found is not None
            if part.name == NOISE and any(kind == "noise by state" for kind, _ in best.others):
                continue  # it has no one size
            fits = f"{part.found.formula} fits at all {len(best.steps)} steps tried, to " + (
                f"{max(part.misfit, 1e-9):.1g}"
            )
            key = f"{part.name}: {part.found.kind}"
            found.append(
                named(
                    role.name,
                    key,
                    fits,
                    f"{part.found.says} in what multiplies {part.name}",
                    f"multiply {part.name} by {part.right}",
                )
            )
    return found


def _measured(role: Role, best: Evidence) -> str:
    said = _formula(role, best)
    return said + chance(best.numbers) if best.noisy and best.numbers else said


def _formula(role: Role, best: Evidence) -> str:
    if best.explained is not None:
        parts = {
            p.name: p.right if p.found is None else p.found.formula for p in best.explained.parts
        }
        return f"{role.result} = {_sum(parts)}; {_numbers(best)}"
    return _numbers(best)


def chance(n: int) -> str:
    """What is said where noise could not be recorded: how sure an estimate from n numbers is."""
    error = 1 / math.sqrt(2 * n)  # of a standard deviation, relatively
    off = (FAR + 3) * error
    return (
        f"; estimated from {n} numbers: false alarms below {FALSE_ALARM:g} a report, and a noise "
        f"{off:.2g} of itself off is seen with probability {power(off, error):.3f}"
    )


def _numbers(best: Evidence) -> str:
    if not len(best.steps):
        return "nothing that is finite"
    if best.explained is not None and best.explained.convention.is_chain:
        return f"in {int(best.steps[-1] + 1 - best.base)} steps and less"
    i = int(len(best.steps) // 2)
    parts = ", ".join(f"{name} × {series.values[i]:.6g}" for name, series in best.series.items())
    return f"at {_place(best, i)}: {parts}"


def _expected(role: Role, best: Evidence, process: Process) -> str:
    usual = role.conventions[0]
    if best.explained is not None and not best.explained.convention.wrong:
        usual = best.explained.convention
    if not len(best.steps) or usual.is_chain:
        return f"{role.result} = {_sum(usual.formulas)}"
    i = len(best.steps) // 2
    t = best.steps[i : i + 1] + 1 - best.base
    numbers = ", ".join(
        f"{name} × {f.at(process, t).item():.6g}" for name, f in usual.formulas.items()
    )
    return f"{role.result} = {_sum(usual.formulas)}; at {_place(best, i)}: {numbers}"


def _place(best: Evidence, i: int) -> str:
    number = int(best.steps[i]) + 1 - best.base
    return f"t = {number}" if best.place == "t" else f"{best.place} {number}"


def _sum(formulas: Mapping[str, Formula]) -> str:
    parts = [f"{f}·{name}" for name, f in formulas.items() if f.factor]
    return " + ".join(parts).replace("+ −", "− ") or "0"


def _convention(best: Evidence) -> str:
    first = f"t counts from {best.base}" if best.place == "t" else ""
    name = "" if best.explained is None else best.explained.convention.name
    return "; ".join(filter(None, (name, first, best.called)))
