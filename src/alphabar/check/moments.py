"""Checks of functions that return moments: a mean, and a variance, its root or its logarithm.

    q(x_t | x_0): √ᾱ_t·x_0 and 1 − ᾱ_t        q(x_{t−1} | x_t, x_0): μ̃_t and β̃_t

The mean is held against the same law as a sample, without noise. Each tensor beside it must not
depend on what was handed over but t, and its value is explained like any coefficient.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from alphabar.check.catalogue import named
from alphabar.check.explain import Convention, Explanation, Series, explain
from alphabar.check.formula import Formula, Process, misread
from alphabar.check.linear import (
    MISREAD,
    NOISE,
    SHAPES,
    Evidence,
    Role,
    bases,
    handed,
    measured_ways,
    together,
    unchecked,
    ways_of,
)
from alphabar.check.linear import finding as finding_of
from alphabar.check.report import Diagnosis, Finding
from alphabar.check.stranger import CannotCheck, Stranger, Way, seeded

_ITEMS = 4
_OTHER = "(β)"  # right too, and not the variance of Bayes' rule


class Spread(NamedTuple):
    """What may stand beside a mean."""

    variance: Formula
    other: Formula | None = None  # another variance that is right too
    free_end: bool = False  # whether it may be cut off at the last step, where it is 0
    stated: str = ""  # what the person says that it is: variance, standard deviation, log-variance


def has_moments(role: Role, stranger: Stranger, process: Process) -> bool:
    """Whether a function returns several tensors, and draws nothing."""
    for shape in SHAPES:
        try:
            found = ways_of(replace_noise(role), stranger, process, shape)
        except CannotCheck:
            continue
        way = found[0]
        if _passes_on(role, stranger, way, process, shape):
            return False
        base = 1 if process.T > 1 else bases(replace_noise(role), stranger, way, process, shape)[0]
        middle = max(base, process.T // 2)
        with seeded(1):
            first = _results(role, stranger, way, process, middle, base, shape)
        with seeded(2):
            again = _results(role, stranger, way, process, middle, base, shape)
        return len(first) > 1 and all(
            a.shape == b.shape and torch.equal(a.nan_to_num(), b.nan_to_num())
            for a, b in zip(first, again, strict=True)
        )
    return False


def _passes_on(
    role: Role, stranger: Stranger, way: Way, process: Process, shape: tuple[int, ...]
) -> bool:
    """Whether the function takes noise, so that it gives a sample, whatever else it gives."""
    try:
        return any(role.noise in other.order for other in ways_of(role, stranger, process, shape))
    except CannotCheck:
        return False


def replace_noise(role: Role) -> Role:
    """The same of a mean: there is no noise in it, and none is handed over."""
    conventions = tuple(
        c._replace(formulas={**c.formulas, NOISE: Formula.of(0.0)}) for c in role.conventions
    )
    once = {tuple(c.formulas.items()): c for c in reversed(conventions)}
    return role._replace(noise=None, conventions=tuple(reversed(once.values())))


def check_moments(
    role: Role,
    function: Callable[..., object],
    process: Process,
    spread: Spread,
    given: Mapping[str, object],
    more: Callable[["Measured"], Sequence[Diagnosis]] | None = None,
) -> Finding:
    """A mean, and what comes beside it; `more` looks at the tensors beside it as well."""
    begin = time.perf_counter()
    stranger = Stranger(function, given)
    mean = replace_noise(role)
    try:
        best = together(measured_ways(mean, stranger, process))
    except CannotCheck as error:
        return unchecked(stranger.name, role, str(error), begin)
    found = finding_of(stranger, mean, best, process, begin)
    if best.way is None or not len(best.steps):
        return found
    levels = role.read(best.at, process) if role.read is not None else process
    measured = _measured(mean, stranger, best, levels)
    said, wrong = [], []
    for j, values in measured.beside.items():
        name, diagnoses = _explained(role, spread, values, measured, levels, best)
        said.append(name)
        wrong += diagnoses
        if j in measured.leaning:
            words = "the size of the noise depends on what is handed over beside t"
            wrong.insert(0, named(role.name, "noise by state", words))
    wrong += more(measured) if more is not None else ()
    return _with(found, [*wrong], ", ".join(said), begin)


class Measured(NamedTuple):
    """The tensors beside a mean, by their place: one number for each of the person's steps."""

    steps: Int64[Tensor, " n"]
    base: int
    beside: Mapping[int, Float64[Tensor, " n"]]
    leaning: frozenset[int]  # those that are not the same for all items


def _with(found: Finding, wrong: list[Diagnosis], said: str, begin: float) -> Finding:
    seconds = time.perf_counter() - begin
    convention = f"{found.convention}; beside the mean: {said}" if said else found.convention
    # The same bug in the mean and beside it is one.
    ids = {d.id for d in found.diagnoses}
    diagnoses = (*found.diagnoses, *(d for d in wrong if d.id not in ids))
    verdict = "bug" if wrong else found.verdict
    if verdict == "right" and _OTHER in said:
        verdict = "equivalent"
    return replace(
        found, verdict=verdict, diagnoses=diagnoses, convention=convention, seconds=seconds
    )


def _results(
    role: Role,
    stranger: Stranger,
    way: Way,
    process: Process,
    i: int,
    base: int,
    shape: tuple[int, ...],
) -> list[Tensor]:
    return stranger(*handed(role, way, process, i, base, _ITEMS, shape))


def _measured(role: Role, stranger: Stranger, best: Evidence, process: Process) -> Measured:
    assert best.way is not None
    values: dict[int, list[float]] = {}
    leaning = set()
    for i in best.steps.tolist():
        with seeded(0):
            results = _results(role, stranger, best.way, process, i, best.base, best.shape)
        for j, result in enumerate(results):
            if j == best.way.picked % len(results):
                continue
            flat = result.detach().double().flatten()
            middle = flat.median().item()
            values.setdefault(j, []).append(middle)
            finite = flat[flat.isfinite()]
            if len(finite) and (finite - middle).abs().max() > 1e-4 * abs(middle) + 1e-7:
                leaning.add(j)
    beside = {
        j: torch.tensor(v, dtype=torch.float64)
        for j, v in values.items()
        if len(v) == len(best.steps)
    }
    return Measured(best.steps, best.base, beside, frozenset(leaning))


def _explained(
    role: Role,
    spread: Spread,
    values: Float64[Tensor, " n"],
    measured: Measured,
    process: Process,
    best: Evidence,
) -> tuple[str, list[Diagnosis]]:
    """What one tensor beside the mean is; its diagnoses, if it is not what it should be."""
    index, base = measured.steps, measured.base
    law = spread.variance.at(process, index + 1 - base)
    if role.read is not None and bool((law < 1e-20).all()):  # the mean has told no level
        return _grown(role, values)
    tried = []
    for name, read, power in (
        ("its variance", values, 1.0),
        ("its standard deviation", values, 0.5),
        ("its log-variance", values.exp(), 1.0),
        ("half its log-variance", (2 * values).exp(), 1.0),
    ):
        if not name.endswith(f" {spread.stated}".rstrip()):
            continue
        errors = torch.zeros(len(values), dtype=torch.float64)
        if role.lands and ("log" in name or (spread.free_end and values.isfinite().all())):
            errors[process.is_last(index + 1 - base)] = math.inf  # −∞, or cut off
        series = {"σ²": Series(read.nan_to_num(nan=-1.0), errors)}
        for kind, words, levels in _levels(process):
            for one in _conventions(spread, power):
                for found in explain(series, index, (one,), (base,), levels)[:1]:
                    cost = found.cost + (1.0 if kind else 0.0)
                    tried.append((cost, name, kind, words, found))
    if not tried:
        words = f"{values.tolist()[len(values) // 2]:.4g} at the middle step is no variance of it"
        return "something else", [named(role.name, "another variance", words)]
    _, name, kind, words, found = min(tried, key=lambda one: one[0])
    wrong = [named(role.name, kind, f"{name}: {words}")] if kind else []
    return f"{name} {found.convention.name}".strip(), wrong + _wrong(role, name, found)


def _grown(role: Role, values: Float64[Tensor, " n"]) -> tuple[str, list[Diagnosis]]:
    """Of data that keep their size nothing says what σ_t is, but that it grows with t."""
    if bool((values.diff() > 0).all()):
        return "its spread, which grows with t; nobody has stated it", []
    words = f"from {values[0]:.4g} at the least t to {values[-1]:.4g} at the greatest"
    return "something else", [named(role.name, "no spread", words)]


def _levels(process: Process) -> Iterator[tuple[str, str, Process]]:
    yield "", "", process
    if process.has_table:
        for kind, other in misread(process).items():
            yield kind, f"with {MISREAD[kind]} all steps fit", other


def _conventions(spread: Spread, power: float) -> Iterator[Convention]:
    for formula, name in ((spread.variance, ""), (spread.other, _OTHER)):
        if formula is not None:
            law = Formula.made(1.0, {b: power * p for b, p in formula.powers})
            yield Convention(name, {"σ²": law}, not name)


def _wrong(role: Role, name: str, found: Explanation) -> list[Diagnosis]:
    return [
        named(
            role.name,
            f"variance: {part.found.kind}",
            f"{part.found.formula} fits at all steps tried",
            f"{part.found.says} in {name}",
            f"return {part.right}",
        )
        for part in found.wrong
        if part.found is not None
    ]
