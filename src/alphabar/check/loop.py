"""Checks of a whole sampling loop, by a model that knows the truth and keeps what it was asked.

The model is told a true x_0 for every item, and answers at each call with what follows from it:
the ε, v or x_0 that belongs to the x that it was handed and to the t that it was told. So x̂_0 is
right in every call, no method has a discretisation error, and each step must lead from

    x_t = √ᾱ_t·x_0 + √(1 − ᾱ_t)·ε    to    √ᾱ_s·x_0 + k·ε + d·z,    k² + d² = 1 − ᾱ_s

for the next t that it tells (DDPM's with variance β add a little more). That audits every pair of
steps, and every ᾱ used.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from alphabar.check.affine import Affine, NotFinite, Recorder, Value, fit
from alphabar.check.formula import Path, Process
from alphabar.check.linear import Evidence, Role, finding, unchecked, weigh
from alphabar.check.report import Finding
from alphabar.check.stranger import CannotCheck, Stranger, Way, question, seeded, ways

ITEMS = 2048


class Knowing(nn.Module):
    """A model that knows x_0, and keeps every (x, t) that it is asked about."""

    def __init__(self, x_0: Tensor, process: Process, predicts: str, base: int) -> None:
        super().__init__()
        self.x_0, self.process, self.predicts, self.base = x_0, process, predicts, base
        self.asked: list[tuple[Tensor, Tensor, int]] = []  # x, its ε, the person's t
        self.recorder: Recorder | None = None
        self.drawn: list[int] = []  # how many draws there were before each question

    def forward(self, *values: Any, **named: Any) -> Tensor:
        """What follows from x_0."""
        x, labels = question((*values, *named.values()), self.x_0.shape)
        if (labels != labels[0]).any():
            raise CannotCheck("the model was told different t for items of one step")
        label = int(labels[0])
        t = torch.tensor([label + 1 - self.base])
        abar = self.process.alpha_bar(t).item()
        a, b = abar**0.5, (1 - abar) ** 0.5
        eps = (x - a * self.x_0) / b
        self.asked.append((x.detach().clone(), eps.detach(), label))
        self.drawn.append(len(self.recorder.draws) if self.recorder else 0)
        return {"eps": eps, "x_0": self.x_0, "v": a * eps - b * self.x_0}[self.predicts].clone()


def check_loop(
    role: Role,
    function: Callable[..., object],
    process: Process,
    predicts: str,
    given: Mapping[str, object],
) -> Finding:
    """A sampling loop, step by step, against what each step must do."""
    begin = time.perf_counter()
    stranger = Stranger(function, given)
    shape = (ITEMS, 3)
    generator = torch.Generator().manual_seed(0)
    x_0 = 1.6 * torch.rand(shape, generator=generator) - 0.8
    model = Knowing(x_0, process, predicts, 0)
    tried: dict[str, Any] = {
        "model": model,
        "shape": shape,
        "x_T": torch.randn(shape, generator=generator),
        "n": ITEMS,
    }
    try:
        with seeded(0):
            way = next(ways(stranger, tried, ("model",), shape))
    except CannotCheck as error:
        return unchecked(stranger.name, role, str(error), begin)
    # The first call has shown which numbers the person's steps have.
    labels = [label for _, _, label in model.asked]
    bases = (1,) if max(labels) == process.T else (0,) if {0, process.T - 1} & {*labels} else (0, 1)
    best, path = _least([_run(role, stranger, way, process, predicts, b, tried) for b in bases])
    if best.explained is None or not best.explained.is_right:
        for other in {"eps", "x_0", "v"} - {predicts}:
            again, along = _least(
                [_run(role, stranger, way, process, other, b, tried) for b in bases]
            )
            if again.explained is not None and again.explained.is_right and not again.others:
                words = f"with a model that predicts {other} every step is right"
                best, path = again._replace(others=((f"takes it for {other}", words),)), along
    return finding(stranger, role, best, path, begin)


def _least(found: list[tuple[Evidence, Process]]) -> tuple[Evidence, Process]:
    return min(found, key=lambda pair: pair[0].cost)


def _run(
    role: Role,
    stranger: Stranger,
    way: Way,
    process: Process,
    predicts: str,
    base: int,
    tried: Mapping[str, Any],
) -> tuple[Evidence, Process]:
    """The whole loop, with a model of this prediction."""
    model = Knowing(tried["model"].x_0, process, predicts, base)
    with seeded(1), Recorder() as recorder:
        model.recorder = recorder
        end = way.call(stranger, {**tried, "model": model})
    return _evidence(role, model, end, recorder, process, way)


class Rule(NamedTuple):
    """Where a loop takes its steps to go, and with which ᾱ."""

    kind: str
    words: str
    t: list[int]
    s: list[int]


def _rules(t: list[int], T: int) -> Iterator[Rule]:
    """From each t to the next that the model is told; and the ways to get that wrong."""
    to = [*t[1:], 0]
    yield Rule("", "", t, to)
    yield Rule("end", "the last step leads to ᾱ_1 and not to ᾱ_0 = 1", t, [*t[1:], 1])
    yield Rule("t-1", "each step leads to t − 1, whatever the next t is", t, [i - 1 for i in t])
    even = max(1, T // len(t))
    words = f"each step leads to t − {even} = t − T//N, whatever the next t is"
    yield Rule("stride", words, t, [max(i - even, 0) for i in t])
    yield from _indices(t, T)
    for by in (1, -1):
        late = [min(max(i + by, 1), T) for i in t]
        words = f"the ᾱ of t {'+' if by > 0 else '−'} 1 is used where the model is told t"
        yield Rule(f"index {by:+d}", words, late, to)
        both = [*late[1:], 0]
        yield Rule(f"all {by:+d}", words + ", and for the next t too", late, both)


def _indices(t: list[int], T: int) -> Iterator[Rule]:
    """The index of a step, counted up or down, told in its place; the t may lie in several ways."""
    n = len(t)
    if not 1 < n < T or sorted(t) != list(range(1, n + 1)):
        return
    words = "the model is told the index of the step, 0 to N − 1, in place of its t"
    even = T // n
    for grid in (
        [round(1 + i * (T - 1) / (n - 1)) for i in range(n)],
        [T - even * i for i in reversed(range(n))],
        [1 + even * i for i in range(n)],
        [even * (i + 1) for i in range(n)],
    ):
        falling = grid[::-1]
        yield Rule("index for t", words, falling, [*falling[1:], 0])


def _evidence(
    role: Role, model: Knowing, end: Tensor, recorder: Recorder, process: Process, way: Way
) -> tuple[Evidence, Process]:
    times = [label + 1 - model.base for _, _, label in model.asked]
    at, wrong = _measured(model, end, recorder)
    if "x_T" not in way.order and times[0] < process.T and times[0] == max(times):
        words = f"the model is told t = {times[0]} first, and x_T ~ N(0, I) belongs to {process.T}"
        wrong.append(("late start", words))
    rises = len(times) > 1 and times[0] < times[-1]
    if rises:
        upwards = _upwards(role, at, times, wrong, process, way)
        if not upwards[0].others:
            return upwards
    found = [upwards] if rises else []
    for rule in _indices(times, process.T) if rises else _rules(times, process.T):
        path = Path(process.beta, torch.tensor(rule.t), torch.tensor(rule.s))
        if (path.t < path.s).any():
            continue
        read = at if rule.t == times else _reread(at, model, times, rule.t)
        evidence = weigh(role, read, path, 1, str(way), way.order)
        said = ((rule.kind, rule.words),) if rule.kind else ()
        found.append((evidence._replace(others=(*said, *evidence.others, *wrong)), path))
        if evidence.explained is not None and evidence.explained.is_right:
            break
    return min(found, key=lambda pair: pair[0].cost)


def _measured(
    model: Knowing, end: Tensor, recorder: Recorder
) -> tuple[dict[int, Affine], list[tuple[str, str]]]:
    """What each step has made of x_0 and ε, and what cannot be measured."""
    results = [x for x, _, _ in model.asked[1:]] + [end]
    drawn = [*model.drawn, len(recorder.draws)]
    at = {}
    for k, result in enumerate(results):
        terms = {"x_0": model.x_0, "ε": model.asked[k][1]}
        try:
            at[k + 1] = fit(result, terms, recorder.draws[drawn[k] : drawn[k + 1]])
        except NotFinite:
            kind = "not finite at the end" if k == len(results) - 1 else "not finite"
            return at, [(kind, f"NaN or infinity comes of the step from t = {model.asked[k][2]}")]
    return at, []


def _upwards(
    role: Role,
    at: Mapping[int, Affine],
    times: list[int],
    wrong: list[tuple[str, str]],
    process: Process,
    way: Way,
) -> tuple[Evidence, Process]:
    """A loop from data to noise: right if each step leads to the next level, else upside down.

    Where its last step leads, nobody is told.
    """
    path = Path(process.beta, torch.tensor(times[:-1]), torch.tensor(times[1:]))
    all_but_last = {k: one for k, one in at.items() if k < len(times)}
    evidence = weigh(role, all_but_last, path, 1, str(way), way.order)
    if evidence.explained is None or not evidence.explained.is_right:
        words = "the model is told rising t: the loop goes from clean to noisy"
        evidence = evidence._replace(others=(("rising t", words), *wrong))
    return evidence, path


def _reread(
    at: Mapping[int, Affine], model: Knowing, told: list[int], used: list[int]
) -> dict[int, Affine]:
    """The coefficients of x_0 and ε, if x and the answer were those of other levels."""

    def weights(t: int) -> tuple[tuple[float, float], tuple[float, float]]:
        """What x and the model's answer are made of: (x_0, ε) each."""
        abar = model.process.alpha_bar(torch.tensor([t])).item()
        a, b = abar**0.5, (1 - abar) ** 0.5
        return (a, b), {"eps": (0.0, 1.0), "x_0": (1.0, 0.0), "v": (-b, a)}[model.predicts]

    read = {}
    for k, one in at.items():
        (a, b), (o, p) = weights(told[k - 1])
        x_0, eps = one.of["x_0"].value, one.of["ε"].value
        det = a * p - b * o
        of_x, of_answer = (x_0 * p - eps * o) / det, (a * eps - b * x_0) / det
        (a, b), (o, p) = weights(used[k - 1])
        error = 10 * one.of["ε"].error / abs(det)
        of = {
            "x_0": Value(of_x * a + of_answer * o, error),
            "ε": Value(of_x * b + of_answer * p, error),
        }
        read[k] = replace(one, of=of)
    return read
