"""Checks of a scheduler as a whole: an object that holds the levels and makes each step.

    scheduler.set_timesteps(n)
    for t in scheduler.timesteps:
        x = scheduler.step(model(scheduler.scale_model_input(x, t), t), t, x).prev_sample

Its tables, its marginal, and its loop with numbers of steps that do and do not divide T.
"""

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from alphabar.check.catalogue import named
from alphabar.check.formula import Continuum, Process
from alphabar.check.linear import check_linear
from alphabar.check.loop import Loop, check_loop, scales_of
from alphabar.check.marginal import check_marginal, marginal_law
from alphabar.check.report import Finding
from alphabar.check.reverse import clipped_loop, learned_loop
from alphabar.check.roles import RANGE, step
from alphabar.check.scales import table
from alphabar.check.schedule import check_schedule
from alphabar.check.stranger import CannotCheck, tensors_of

NEEDED = ("set_timesteps", "timesteps", "step")
_FEW = 64  # items, where there are many steps


class Facts(NamedTuple):
    """What a person has said of a scheduler."""

    process: Process
    predicts: str
    scale: str = "vp"
    variance: str = "fixed"
    clip: float | None = None
    claims: str | None = None


def check_scheduler(
    scheduler: Any, facts: Facts, given: Mapping[str, object]
) -> tuple[Finding, ...]:
    """All of it: the worst of its loops, and what else is not right."""
    name = type(scheduler).__name__
    missing = [part for part in NEEDED if not hasattr(scheduler, part)]
    if missing:
        why = f"{name} has no {', '.join(missing)}: check its parts one by one"
        return (Finding(name, "scheduler", "unchecked", "", "", "", why=why),)
    if not list(_prepared(scheduler, min(50, facts.process.T)).timesteps):
        none = named("step", "no steps", "set_timesteps leaves no timesteps")
        return (Finding(name, "scheduler", "bug", "", none.explains, none.remedy, (none,)),)
    found = [*_tables(scheduler, facts), *_marginals(scheduler, facts, given)]
    found = [replace(one, name=f"{name}.{one.name}") for one in found]
    loop = replace(_loops(scheduler, facts, given), name=name, role="scheduler")
    bugs = [one for one in found if one.verdict == "bug"]
    return (*bugs, loop, *(one for one in found if one not in bugs))


def _tables(scheduler: Any, facts: Facts) -> list[Finding]:
    found = []
    beta = facts.process.beta
    if facts.claims is not None:
        found.append(check_schedule(beta, claims=facts.claims, gives="betas"))
    table = getattr(scheduler, "alphas_cumprod", None)
    if table is not None and len(table) == len(beta):
        one = check_schedule(table, gives="alphas_cumprod", betas=beta)
        found.append(replace(one, name="alphas_cumprod"))
    return found


def _marginals(scheduler: Any, facts: Facts, given: Mapping[str, object]) -> list[Finding]:
    found = []
    T = facts.process.T
    scale = "vp" if _is_prescaled(_prepared(scheduler, min(50, T))) else facts.scale
    for method, gives in (("add_noise", "sample"), ("get_velocity", "v")):
        if hasattr(scheduler, method):
            # Some know the levels of the table at once, and some those of the steps that were set.
            for n in (None, T):
                call = getattr(_prepared(scheduler, n), method)
                one = check_marginal(call, facts.process, scale, gives, torch.float32, given)
                if one.verdict not in ("bug", "unchecked"):
                    break
            is_fine = one.verdict not in ("bug", "unchecked")
            if not is_fine or _are_whole(scheduler, T):
                own = _at_its_own(scheduler, method, facts, scale, gives, given)
                # The loop's t = 0 is the first noisy level: here it must be too.
                if own.verdict == "bug" or (not is_fine and own.verdict != "unchecked"):
                    one = own
            found.append(replace(one, name=method))
    return found


def _at_its_own(
    scheduler: Any,
    method: str,
    facts: Facts,
    scale: str,
    gives: str,
    given: Mapping[str, object],
) -> Finding:
    """A marginal at the timesteps that were set: some know no others."""
    fresh = _prepared(scheduler, min(50, facts.process.T))
    told = torch.tensor(sorted({float(t) for t in fresh.timesteps}), dtype=torch.float64)
    told = told[torch.linspace(0, len(told) - 1, min(9, len(told))).round().long()]
    level = table(facts.process, 0)
    log_snr = torch.tensor([level.log_snr(v) for v in told.tolist()], dtype=torch.float64)
    role, _ = marginal_law(facts.process, scale, gives)
    return check_linear(role, getattr(fresh, method), Continuum.at(told, log_snr), given)


def _are_whole(scheduler: Any, T: int) -> bool:
    """Whether timesteps are indices of the table, and not between them."""
    return all(float(t) == int(t) for t in _prepared(scheduler, min(50, T)).timesteps)


def _visits_all(scheduler: Any, T: int) -> bool:
    """Whether with T steps each index of the table is visited once: some repeat a few, or can't."""
    try:
        return sorted(map(float, _prepared(scheduler, T).timesteps)) == list(range(T))
    except CannotCheck:
        return False


def _is_prescaled(scheduler: Any) -> bool:
    """Whether the model is shown a sample as it is, of the size of noise: then it is preserved."""
    x = torch.ones(1, 1)
    if float(getattr(scheduler, "init_noise_sigma", 1.0)) > 1.001:
        return False
    if not hasattr(scheduler, "scale_model_input"):
        return True
    return bool(torch.equal(scheduler.scale_model_input(x, scheduler.timesteps[0]), x))


def _prepared(scheduler: Any, n: int | None) -> Any:
    """A copy to work with, as a scheduler may keep what it did."""
    fresh = copy.deepcopy(scheduler)
    if n is not None:
        try:
            fresh.set_timesteps(n)
        except Exception as error:
            why = f"set_timesteps({n}) raised {type(error).__name__}: {error}"
            raise CannotCheck(why) from error
    return fresh


def loop_of(scheduler: Any, n: int) -> Callable[..., Tensor]:
    """The loop that everybody writes around a scheduler, with n steps."""

    def generate(model: Callable[..., Tensor], shape: tuple[int, ...]) -> Tensor:
        fresh = _prepared(scheduler, n)
        x = torch.randn(shape) * float(getattr(fresh, "init_noise_sigma", 1.0))
        for t in fresh.timesteps:
            seen = fresh.scale_model_input(x, t) if hasattr(fresh, "scale_model_input") else x
            said = model(seen, torch.as_tensor(t).expand(shape[0]))
            results = tensors_of(fresh.step(said, t, x))
            x = next(r for r in results if tuple(r.shape) == tuple(shape))
        return x

    return generate


def _loops(scheduler: Any, facts: Facts, given: Mapping[str, object]) -> Finding:
    """The first loop that is wrong, or the last that is right."""
    begin = time.perf_counter()
    scales = scales_of(facts.process, facts.scale)
    role = step(facts.predicts)
    T = facts.process.T
    counts = [n for n in (50, 30, 7) if n <= T] or [T]
    places = [None] if facts.variance == "fixed" else list(RANGE)
    refused: CannotCheck | None = None
    found: Finding | None = None
    for place in places:
        law = step(facts.predicts, place=place)
        for n in counts if place is None else counts[:1]:
            loop = Loop(loop_of(scheduler, n), scales, facts.predicts, given, place)
            judge = None if place is None else learned_loop
            try:
                one = check_loop(law, loop, judge)
            except CannotCheck as error:
                refused = refused or error
                continue
            one = replace(one, convention=f"{one.convention}; {n} steps")
            if one.verdict == "bug":
                return one
            if found is None or one.verdict != "unchecked":
                found = one
    if found is not None and found.verdict != "unchecked" and _visits_all(scheduler, T):
        # Every level, the last before clean data among them, by few items.
        law = step(facts.predicts, place=places[0])
        loop = Loop(loop_of(scheduler, T), scales, facts.predicts, given, places[0], items=_FEW)
        one = check_loop(law, loop, None if places[0] is None else learned_loop)
        if one.verdict == "bug":
            return replace(one, convention=f"{one.convention}; {T} steps")
    if found is None:
        return Finding(role.name, role.name, "unchecked", role.law, "", "", why=str(refused))
    if found.verdict in ("right", "equivalent"):
        loop = Loop(loop_of(scheduler, counts[0]), scales, facts.predicts, given, places[0])
        found = clipped_loop(found, loop, facts.clip)
    return replace(found, seconds=time.perf_counter() - begin)
