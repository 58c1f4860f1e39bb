"""Checks of a training loss: what it asks of the model, of which x_t, and how much each t counts.

A model that answers what it is told shows the loss as a function of its answer a. Where that is
w·‖a − target‖², two gradients give both numbers exactly,

    w = (g(a) − g(b))/(2·(a − b)),    target = a − g(a)/(2·w)

for every number of every item. What the target is made of, and the x_t that the model was handed,
are then measured like a step of the process.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from alphabar.check.affine import Affine, Recorder, fit
from alphabar.check.explain import Convention
from alphabar.check.formula import Formula, Process
from alphabar.check.linear import (
    NOISE,
    Evidence,
    Role,
    Supply,
    finding,
    together,
    unchecked,
    weigh,
)
from alphabar.check.report import Finding
from alphabar.check.roles import MARGINAL
from alphabar.check.stranger import CannotCheck, Stranger, Way, question, seeded, ways

ITEMS, SHAPE, LABELS = 4096, (3,), 8
_ROUNDING = 1e-3  # of a target, which is a quotient of differences
F = Formula.of

_NOISED = {"x_0": F(abar=0.5), NOISE: F(noise=0.5)}
TARGETS = {
    "eps": {"x_0": F(0.0), NOISE: F()},
    "x_0": {"x_0": F(), NOISE: F(0.0)},
    "v": {"x_0": F(-1.0, noise=0.5), NOISE: F(abar=0.5)},
    "score": {"x_0": F(0.0), NOISE: F(-1.0, noise=-0.5)},
    "flow": {"x_0": F(-1.0), NOISE: F()},
}


class Asking(nn.Module):
    """A model that answers what it is told, and keeps what it was asked."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = answer.clone().requires_grad_()
        self.asked: list[tuple[Any, ...]] = []

    def forward(self, *values: Any, **named: Any) -> Tensor:
        """The answer."""
        self.asked.append((*values, *named.values()))
        return self.answer * 1.0


class Seen(NamedTuple):
    """One call of a loss."""

    x_t: Tensor
    label: Tensor  # (n,)
    gradient: Tensor
    draws: list[Any]


def _no_supply(*_: Any) -> Supply:
    raise AssertionError("a loss is supplied by its own check")


def role(predicts: str) -> Role:
    """The loss of a model that predicts this."""
    words = {"eps": "ε", "x_0": "x_0", "v": "√ᾱ_t·ε − √(1 − ᾱ_t)·x_0"}.get(predicts, predicts)
    wrong = [
        Convention(f"asks for {name}", formulas, wrong=f"asks for {name}")
        for name, formulas in {**TARGETS, "x_t": _NOISED}.items()
        if name != predicts
    ]
    return Role(
        "loss",
        f"w·‖model(x_t, t) − target‖² with x_t = √ᾱ_t·x_0 + √(1 − ᾱ_t)·ε and target = {words}",
        "target",
        ("model", "x_0"),
        None,
        _no_supply,
        (Convention(f"asks for {predicts}", TARGETS[predicts]), *wrong),
        signed=True,
    )


def check_loss(
    predicts: str,
    function: Callable[..., object],
    process: Process,
    given: Mapping[str, object],
) -> tuple[Finding, ...]:
    """A loss: what it asks for, and of which x_t."""
    begin, asks = time.perf_counter(), role(predicts)
    stranger = Stranger(function, given)
    generator = torch.Generator().manual_seed(0)
    shape = (ITEMS, *SHAPE)
    tried: dict[str, Any] = {
        "model": Asking(torch.zeros(shape)),
        "x_0": torch.randn(shape, generator=generator),
        "t": torch.randint(1, max(2, process.T), (ITEMS,), generator=generator),
        NOISE: torch.randn(shape, generator=generator),
    }
    answers = torch.randn((3, *shape), generator=generator)
    targets: list[Evidence] = []
    noised: list[Evidence] = []
    try:
        with seeded(0):
            found = _ways(stranger, tried)
        for way in found:
            seen = [_seen(stranger, way, {**tried, "model": Asking(a)}) for a in answers]
            target = _target(answers, seen)
            for base in (0, 1):
                labels = _some(seen[0].label, process.T, base)
                if labels:
                    for role_, results, evidence in (
                        (asks, target, targets),
                        (MARGINAL, seen[0].x_t, noised),
                    ):
                        at = {i: _at(i, results, seen[0], way, tried) for i in labels}
                        evidence.append(weigh(role_, at, process, base, str(way), way.order))
    except CannotCheck as error:
        return (unchecked(stranger.name, asks, str(error), begin),)
    said = finding(stranger, asks, together(targets), process, begin)
    more = finding(stranger, MARGINAL, together(noised), process, begin)
    return (said,) if more.verdict == "right" else (said, more)


def _target(answers: Tensor, seen: Sequence[Seen]) -> Tensor:
    """What the loss is least at.

    Raises:
        CannotCheck: a loss that is not quadratic.
    """
    curvature = (seen[0].gradient - seen[1].gradient) / (answers[0] - answers[1])
    predicted = seen[0].gradient + curvature * (answers[2] - answers[0])
    apart = (predicted - seen[2].gradient).abs().mean()
    if not apart <= 1e-3 * seen[2].gradient.abs().mean():
        raise CannotCheck("the loss is no squared error of the model's answer; give that part")
    return answers[0] - seen[0].gradient / curvature


def _at(i: int, results: Tensor, seen: Seen, way: Way, tried: Mapping[str, Any]) -> Affine:
    """What the results of the items at the person's step i are made of."""
    rows = seen.label == i
    terms = {"x_0": tried["x_0"][rows]}
    if NOISE in way.order:
        terms[NOISE] = tried[NOISE][rows]
    draws = [(law, d[rows]) for law, d in seen.draws if d.shape == results.shape]
    return fit(results[rows], terms, draws, _ROUNDING)


def _ways(stranger: Stranger, tried: Mapping[str, Any]) -> list[Way]:
    error: CannotCheck | None = None
    for shape in ((), (ITEMS,)):
        try:
            first: dict[tuple[str, ...], Way] = {}
            for way in ways(stranger, tried, ("model", "x_0"), shape):
                first.setdefault(way.order, way)
            return list(first.values())
        except CannotCheck as refused:
            error = error or refused
    assert error is not None
    raise error


def _seen(stranger: Stranger, way: Way, values: Mapping[str, Any]) -> Seen:
    model = values["model"]
    with seeded(7), Recorder() as recorder, torch.enable_grad():
        loss = way.call(stranger, values, keep_graph=True)
    if len(model.asked) != 1:
        raise CannotCheck(f"the loss asks the model {len(model.asked)} times; it must ask once")
    (gradient,) = torch.autograd.grad(loss.sum(), model.answer)
    x_t, label = question(model.asked[0], values["x_0"].shape)
    return Seen(x_t.detach(), label.detach(), gradient, recorder.draws)


def _some(label: Tensor, T: int, base: int) -> list[int]:
    """A few of the t that came up often enough, from the least to the most."""
    values, counts = torch.unique(label, return_counts=True)
    often = values[(counts >= 3) & (values + 1 - base >= 1) & (values + 1 - base <= T)]
    places = torch.linspace(0, len(often) - 1, min(LABELS, len(often))).round().long()
    return sorted({int(v) for v in often[places]}) if len(often) else []
