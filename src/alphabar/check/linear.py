"""Checks of what is linear: steps of the process, forward and back, each of the form

    result = Σ a_i·u_i + b·z

with coefficients that a law gives for every t. They are measured, and then explained.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Int64
from torch import Tensor

from alphabar.check.affine import Affine, Law, NotFinite, Value, measure
from alphabar.check.catalogue import named
from alphabar.check.explain import Convention, Explanation, Series, explain
from alphabar.check.formula import Formula, Process
from alphabar.check.report import Diagnosis, Finding, Verdict
from alphabar.check.stranger import CannotCheck, Stranger, Way, seeded, ways

# Items that are enough where noise is handed over or recorded, and where it must be estimated.
FEW, MANY = 512, 40_000
# Shapes of an item: numbers, a picture. A function may be written for one of them alone.
SHAPES = ((3,), (2, 4, 4))
NOISE = "z"  # what a function draws itself, or takes for what it would draw


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

    @property
    def cost(self) -> float:
        """How far it is from right."""
        found = 20.0 if self.explained is None else self.explained.cost
        return found + len(self.others)


def check_linear(
    role: Role, function: Callable[..., object], process: Process, given: Mapping[str, object]
) -> Finding:
    """One function against its law."""
    begin = time.perf_counter()
    stranger = Stranger(function, given)
    try:
        tried = _tried(role, stranger, process)
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
    diagnoses = _diagnoses(role, best)
    verdict: Verdict = "bug" if diagnoses or best.explained is None else "right"
    why = ""
    if verdict == "right" and best.explained is not None:
        if not best.explained.convention.is_usual:
            verdict = "equivalent"
        if stranger.modified:
            verdict, why = "fragile", "it changes the tensor that it is handed; work on a copy"
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


# --- measuring


def _tried(role: Role, stranger: Stranger, process: Process) -> list[Evidence]:
    """All ways of calling it, measured."""
    error = None
    for shape in SHAPES:
        try:
            found = list(_ways(role, stranger, process, shape))
        except CannotCheck as refused:
            error = error or refused
            continue
        first: dict[tuple[str, ...], Way] = {}
        for way in found:  # one form of t is enough, and the first result
            first.setdefault(way.order, way)
        return [
            _outcome(role, stranger, way, process, shape, base)
            for way in first.values()
            for base in _bases(role, stranger, way, process, shape)
        ]
    assert error is not None
    raise error


def _ways(role: Role, stranger: Stranger, process: Process, shape: tuple[int, ...]) -> list[Way]:
    middle = max(1, process.T // 2)
    slots = role.supply(process, middle, 4, shape, torch.Generator().manual_seed(0)).slots
    tried = {**slots, "t": torch.full((4,), middle)}
    if role.lands:
        tried["s"] = tried["t"] - 1
    with seeded(0):
        return list(ways(stranger, tried, (*role.needed, "t"), (4, *shape)))


def _bases(
    role: Role, stranger: Stranger, way: Way, process: Process, shape: tuple[int, ...]
) -> tuple[int, ...]:
    """Only a function that knows a step T counts from 1."""
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
    supply = role.supply(process, max(t, 1), n, shape, torch.Generator().manual_seed(i))
    terms = {k: v.flatten(1) for k, v in supply.terms.items()}
    if role.noise is not None and role.noise in way.order:
        terms[NOISE] = supply.slots[role.noise].flatten(1)

    def call() -> Tensor:
        steps = {"t": torch.full((n,), i), "s": torch.full((n,), i - 1)}
        return way.call(stranger, {**supply.slots, **steps}).flatten(1)

    try:
        with seeded(17 + i):
            return measure(call, terms)
    except NotFinite:
        raise
    except Exception:
        return None


def _outcome(
    role: Role,
    stranger: Stranger,
    way: Way,
    process: Process,
    shape: tuple[int, ...],
    base: int,
) -> Evidence:
    T = process.T
    some = sorted({i for i in (1, 2, T // 4, T // 2, (3 * T) // 4, T - 2, T - 1, T) if 0 <= i <= T})
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
    if any(not one.exact for one in at.values()):
        at = measured(MANY)
    evidence = weigh(role, at, process, base, str(way), way.order)
    if broken:
        words = f"NaN or infinity at t = {', '.join(str(i + 1 - base) for i in sorted({*broken}))}"
        kind = "not finite" if at else "never finite"
        evidence = evidence._replace(others=((kind, words), *evidence.others))
    return evidence


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
        return Evidence(called, takes, none, {}, None, base, False, ())
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
    if role.lands:
        last = process.is_last(index + 1 - base)
        if (series[NOISE].values[last].abs() > 1e-5).any():
            others.append(("noise at the end", "the last step, to clean data, adds noise"))
        # Whatever the variance is elsewhere: there it is none, and says nothing of the rest.
        series[NOISE].errors[last] = math.inf
    found = explain(series, index, role.conventions, (base,), process, role.lands)
    return Evidence(
        called, takes, index, series, found[0] if found else None, base, ignored, tuple(others)
    )


def _series(values: Sequence[Value]) -> Series:
    return Series(
        torch.tensor([v.value for v in values], dtype=torch.float64),
        torch.tensor([v.error for v in values], dtype=torch.float64),
    )


def _noise(one: Affine, signed: bool) -> Value:
    """What the noise is multiplied by: of uniform numbers, not their standard deviation."""
    size = one.noise.value if signed else abs(one.noise.value)
    return Value(size * math.sqrt(12) if one.law == "uniform" else size, one.noise.error * 4)


def _others(at: Sequence[Affine], own: bool) -> list[tuple[str, str]]:
    """What is wrong beside the coefficients."""
    found = []
    laws: set[Law] = {one.law for one in at if abs(one.noise.value) > 1e-6}
    if own and "uniform" in laws:
        found.append(
            ("uniform noise", "the noise is uniform on [0, 1], of mean 0.5 and variance 0.083")
        )
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
    if best.explained is not None:
        parts = {
            p.name: p.right if p.found is None else p.found.formula for p in best.explained.parts
        }
        return f"{role.result} = {_sum(parts)}; {_numbers(best)}"
    return _numbers(best)


def _numbers(best: Evidence) -> str:
    if not len(best.steps):
        return "nothing that is finite"
    i = int(len(best.steps) // 2)
    parts = ", ".join(f"{name} × {series.values[i]:.6g}" for name, series in best.series.items())
    return f"at t = {best.steps[i] + 1 - best.base}: {parts}"


def _expected(role: Role, best: Evidence, process: Process) -> str:
    usual = role.conventions[0]
    if best.explained is not None and not best.explained.convention.wrong:
        usual = best.explained.convention
    if not len(best.steps):
        return f"{role.result} = {_sum(usual.formulas)}"
    i = len(best.steps) // 2
    t = best.steps[i : i + 1] + 1 - best.base
    numbers = ", ".join(
        f"{name} × {f.at(process, t).item():.6g}" for name, f in usual.formulas.items()
    )
    return f"{role.result} = {_sum(usual.formulas)}; at t = {int(t)}: {numbers}"


def _sum(formulas: Mapping[str, Formula]) -> str:
    parts = [f"{f}·{name}" for name, f in formulas.items() if f.factor]
    return " + ".join(parts).replace("+ −", "− ") or "0"


def _convention(best: Evidence) -> str:
    first = f"t counts from {best.base}"
    if best.explained is not None:
        return f"{best.explained.convention.name}; {first}; {best.called}"
    return f"{first}; {best.called}"
