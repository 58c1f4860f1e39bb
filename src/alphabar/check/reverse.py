"""Checks of one step towards the data, and of its moments: by a true x_0 and ε.

    x_{t−1} ~ N(μ̃_t(x_t, x̂_0), Σ_t)    Σ_t = β̃_t, β_t, or between them as their logarithms

The last step returns x̂_0 as it was used, so it shows how x̂_0 was clipped too.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from alphabar.check.catalogue import named
from alphabar.check.formula import Process
from alphabar.check.linear import (
    INSIDE,
    NOISE,
    Evidence,
    Role,
    finding,
    handed,
    measured_ways,
    together,
    unchecked,
)
from alphabar.check.loop import Audit, Loop, ends, judged
from alphabar.check.moments import Measured, Spread, check_moments
from alphabar.check.report import Diagnosis, Finding
from alphabar.check.roles import POSTERIOR, RANGE, Answering, step
from alphabar.check.stranger import CannotCheck, Stranger, Way, seeded

VARIANCES = ("fixed", "learned_range")
_PREDICTIONS = ("eps", "x_0", "v")
_WIDE = 4.0  # times the range of the data, to see what is clipped
_ITEMS, _NUMBERS = 64, 96  # of a batch, and of an item, so that a quantile means something


# --- moments


def check_posterior(
    function: Callable[..., object],
    process: Process,
    predicts: str,
    variance: str,
    given: Mapping[str, object],
) -> Finding:
    """The moments of q(x_{t−1} | x_t, x_0), or of p(x_{t−1} | x_t) with a model."""
    small, large = RANGE[-1.0], RANGE[1.0]
    if variance == "fixed":
        for role in (POSTERIOR, _mean(predicts)):
            found = check_moments(role, function, process, Spread(small, large), given)
            if found.verdict == "bug" and _adds_noise(role, Stranger(function, given), process):
                words = "what comes back is another each time, for the same arguments"
                return _bug(found, named("posterior", "adds noise", words))
            if found.verdict != "unchecked":
                return found
        return found
    for place, formula in RANGE.items():
        role = _mean(predicts, place)

        def linear(measured: Measured) -> Sequence[Diagnosis]:
            t = measured.steps + 1 - measured.base
            return [
                named("posterior", *wrong)
                for values in measured.beside.values()
                for read in (values, values.exp())
                if (wrong := _linear(read, t, process)) is not None
            ][:1]

        found = check_moments(
            role,
            function,
            process,
            Spread(formula, free_end=True),
            given,
            linear if place == 0 else None,
        )
        if found.verdict not in ("right", "equivalent"):
            return _first(found, "linear in variance")
    return found


def _adds_noise(role: Role, stranger: Stranger, process: Process) -> bool:
    """Whether what should be a mean has noise in it, at most steps."""
    best = together(measured_ways(role, stranger, process))
    noise = best.series.get(NOISE)
    return noise is not None and bool((noise.values.abs() > 1e-3).double().mean() > 0.5)


def _mean(predicts: str, place: float | None = None) -> Role:
    role = step(predicts, place=place)
    keep = role.conventions[:1]
    return role._replace(name="posterior", result="μ̃_t", law=POSTERIOR.law, conventions=keep)


def _first(found: Finding, kind: str) -> Finding:
    """With the diagnosis of a kind before all others."""
    id_ = named(found.role, kind, "").id
    order = sorted(found.diagnoses, key=lambda d: d.id != id_)
    return replace(found, diagnoses=tuple(order))


def _linear(variance: Float[Tensor, " n"], t: Tensor, process: Process) -> tuple[str, str] | None:
    """Whether the variance in the middle of its range is the mean of both ends."""
    small, large = (RANGE[p].at(process, t) for p in (-1.0, 1.0))
    middle = 0.5 * (small + large)
    inner = ~process.is_last(t)
    if ((variance - middle).abs() <= 1e-3 * middle)[inner].all():
        words = "in the middle of the range the variance is (β + β̃)/2, and √(β·β̃) is right"
        return "linear in variance", words
    return None


def _of_one_step(
    variance: Float[Tensor, " n"], steps: Tensor, audit: Audit
) -> tuple[str, str] | None:
    """Whether the variance is that of one step of the table, where a move skips many."""
    process = audit.scale.table
    if process is None:
        return None
    told = torch.tensor([round(audit.scale.t(audit.labels[k - 1])) for k in steps.tolist()])
    beta = process.beta[told.clamp(1, process.T) - 1]
    if ((variance - beta).abs() <= 1e-3 * beta).double().mean() < 0.8:
        return None
    return "variance of one step", "the range ends at β_t of one step, though each move skips some"


# --- steps


def check_step(
    function: Callable[..., object],
    process: Process,
    predicts: str,
    variance: str,
    clip: float | None,
    given: Mapping[str, object],
) -> Finding:
    """One step t → t − 1."""
    begin = time.perf_counter()
    stranger = Stranger(function, given)
    size = INSIDE * min(clip or 1.0, 1.0)
    places = [None] if variance == "fixed" else list(RANGE)
    try:
        for place in places:
            role = step(predicts, size, place)
            best = together(measured_ways(role, stranger, process))
            found = finding(stranger, role, best, process, begin)
            if found.verdict == "bug":
                found = _other_reading(found, stranger, best, process, predicts, size, place)
                name = _silenced(found, stranger, best, process, role)
                if name is not None:
                    why = f"right if its caller hands over {name} = 0 at the last step"
                    found = replace(found, verdict="fragile", why=why)
                break
        else:
            if found.verdict in ("right", "equivalent"):
                found = _clipped(found, stranger, best, process, predicts, clip, places[0])
    except CannotCheck as error:
        return unchecked(stranger.name, step(predicts), str(error), begin)
    return replace(found, seconds=time.perf_counter() - begin)


def _other_reading(
    found: Finding,
    stranger: Stranger,
    best: Evidence,
    process: Process,
    predicts: str,
    size: float,
    place: float | None,
) -> Finding:
    """What else would explain a step that is wrong."""
    if place == 0 and NOISE in best.series:
        t = best.steps + 1 - best.base
        wrong = _linear(best.series[NOISE].values.square(), t, process)
        if wrong is not None:
            return replace(found, diagnoses=(named("step", *wrong), *found.diagnoses))
    for other in _PREDICTIONS:
        if other != predicts:
            role = step(other, size, place)
            again = together(measured_ways(role, stranger, process))
            if again.explained is not None and again.explained.is_right and not again.others:
                words = f"with a model that predicts {other} the step is right"
                said = named("step", f"takes it for {other}", words)
                return replace(found, diagnoses=(said, *found.diagnoses))
    return found


def _silenced(
    found: Finding, stranger: Stranger, best: Evidence, process: Process, role: Role
) -> str | None:
    """The argument whose 0 takes the noise of the last step away, if that noise is all the bug."""
    if {d.id for d in found.diagnoses} != {named("step", "noise at the end", "").id}:
        return None
    assert best.way is not None
    values = handed(role, best.way, process, best.base, best.base, _ITEMS, best.shape)
    names = [p.name for p in stranger.parameters()]
    for i, parameter in enumerate(stranger.parameters()):
        if parameter.default is not None or (i < len(values) and best.way.order[i] != role.noise):
            continue
        given = {name: v for name, v in zip(names, values, strict=False) if name != names[i]}
        again = Stranger(stranger.function, {**stranger.given, **given, names[i]: 0.0})
        results = []
        for seed in (5, 6):
            with seeded(seed), suppress(CannotCheck):
                results.append(again()[best.way.picked])
        if len(results) == 2 and torch.equal(*results):
            return names[i]
    return None


def _clipped(
    found: Finding,
    stranger: Stranger,
    best: Evidence,
    process: Process,
    predicts: str,
    clip: float | None,
    place: float | None,
) -> Finding:
    """How x̂_0 is clipped, by data that lie outside of where they should."""
    assert best.way is not None
    role = step(predicts, _WIDE * (clip or 1.0), place)
    for shape in ((_NUMBERS,), best.shape):
        arguments = handed(role, best.way, process, best.base, best.base, _ITEMS, shape)
        x_0 = _supplied(role, process, best.base, shape)
        results = []
        try:
            for values in (arguments, [_beside(v) for v in arguments], arguments):
                with seeded(5):
                    results.append(stranger(*values)[best.way.picked].double().flatten(1))
        except Exception:
            continue
        used, other, again = results
        if used.shape == x_0.flatten(1).shape and used.isfinite().all():
            if _differ(used, other) and not _differ(used, again):
                return _mixed(found)
            return _judged(found, used, x_0.double().flatten(1), clip)
    return found


def _beside(value: object) -> object:
    """What is handed over, with larger companions for the first half of the items."""
    if isinstance(value, Answering):
        return Answering(_companions(value.answer))
    return _companions(value) if isinstance(value, Tensor) else value


def _companions(value: Tensor) -> Tensor:
    """The last half of the items three times as large, but for labels of levels."""
    if value.ndim < 2 or not value.is_floating_point():
        return value
    half = len(value) // 2
    return torch.cat([value[:half], 3 * value[half:]])


def _differ(one: Tensor, other: Tensor) -> bool:
    """Whether the first half of the items is another, by more than rounding."""
    half = len(one) // 2
    return bool((one[:half] - other[:half]).abs().max() > 1e-3 * one[:half].abs().max())


def _mixed(found: Finding) -> Finding:
    """What is said of items that are another beside larger ones, and the same beside the same."""
    words = "an item ends elsewhere where the others of its batch are larger"
    return _bug(found, named("step", "items mixed", words))


def clipped_loop(found: Finding, loop: Loop, clip: float | None) -> Finding:
    """The same of a whole loop, which ends with the last x̂_0 as it was used."""
    if clip is None and "returned in [0, " in found.convention:
        return found  # of a picture: it has that range of itself
    wide = _WIDE * (clip or 1.0)
    even = torch.full((_ITEMS, 1), wide, dtype=torch.float64)
    try:
        (used, x_0), (other, _) = ends(loop, (even, _companions(even)), (_ITEMS, _NUMBERS))
    except CannotCheck:
        return found
    if used.shape != x_0.shape or not used.isfinite().all():
        return found
    if _differ(used, other):
        ((again, _),) = ends(loop, (even,), (_ITEMS, _NUMBERS))
        if not _differ(used, again):
            return _mixed(found)
    return _judged(found, used.flatten(1), x_0.flatten(1), clip)


def learned_loop(
    role: Role, audit: Audit, way: Way, handed: Mapping[str, Tensor]
) -> tuple[Evidence, Process]:
    """A loop whose model says where in the range its variance is."""
    evidence, moves = judged(role, audit, way, handed)
    if (evidence.explained is None or not evidence.explained.is_right) and len(evidence.steps):
        variance = evidence.series[NOISE].values.square()
        wrong = _linear(variance, evidence.steps, moves)
        wrong = wrong or _of_one_step(variance, evidence.steps, audit)
        if wrong is not None:
            evidence = evidence._replace(others=(wrong, *evidence.others))
    return evidence, moves


def _supplied(role: Role, process: Process, i: int, shape: tuple[int, ...]) -> Tensor:
    generator = torch.Generator().manual_seed(i)
    return role.supply(process, 1, _ITEMS, shape, generator).terms["x_0"]


def _judged(
    found: Finding, used: Float[Tensor, "n d"], x_0: Float[Tensor, "n d"], clip: float | None
) -> Finding:
    near = 1e-2  # of x̂_0 by way of ε, at the first step
    if (used - x_0).abs().max() <= near * x_0.abs().max():
        if clip is None:
            return found
        words = f"x̂_0 up to {x_0.abs().max():.2g} is used as it is"
        return _bug(found, named("step", "never clipped", words, "x̂_0 is not clipped"))
    most = used.abs().max().item()
    if (used - x_0.clamp(-most, most)).abs().max() <= near * most:
        words = f"x̂_0 is clipped at ±{most:.3g}, whatever the data are"
        if clip is not None:
            if abs(most - clip) <= near * clip:
                return found
            return _bug(found, named("step", "clipped at 1", words))
        said = named("step", "clipped at 1", words)
        why = f"right for data within ±{most:.3g} alone: x̂_0 is clipped there; say clip={most:.3g}"
        return replace(found, verdict="fragile", why=why, diagnoses=(said,))
    # Dynamic thresholding (Saharia et al. 2022): clip at s, and divide by s.
    largest = x_0.abs().amax(1, keepdim=True)
    if (used - x_0 / largest.clamp(1)).abs().max() <= near:
        words = "x̂_0 is divided by its own largest number: nothing is clipped"
        return _bug(found, named("step", "threshold changes nothing", words))
    s = (x_0 / used).where(used.abs() < 0.999 * used.abs().amax(1, keepdim=True), 0.0)
    s = s.median(1, keepdim=True).values.clamp(1e-6)
    if (used - x_0.clamp(-s, s) / s).abs().max() <= 5 * near:
        share = (x_0.abs() <= s).double().mean().item()
        words = f"{found.convention}; x̂_0 is thresholded at its {share:.3g} quantile"
        return replace(found, convention=words)
    middle = int((used - x_0).abs().amax(1).argmax())
    at = int((used - x_0).abs()[middle].argmax())
    words = f"an x̂_0 of {x_0[middle, at]:.3g} is used as {used[middle, at]:.3g}"
    return _bug(found, named("step", "another clipping", words, "x̂_0 is changed before it is used"))


def _bug(found: Finding, said: Diagnosis) -> Finding:
    return replace(found, verdict="bug", diagnoses=(said, *found.diagnoses))
