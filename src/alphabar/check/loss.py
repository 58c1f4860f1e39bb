"""Checks of a training loss: what it asks of the model, of which x_t, and how much each t counts.

A model that answers what it is told shows the loss as a function of its answer a. Where that is
w·‖a − target‖², two gradients give both numbers exactly,

    w = (g(a) − g(b))/(2·(a − b)),    target = a − g(a)/(2·w)

for every number of every item. What the target is made of, and the x_t that the model was handed,
are then measured like a step of the process.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from alphabar.check.affine import Affine, NotFinite, Recorder, Value, fit
from alphabar.check.catalogue import named
from alphabar.check.explain import Convention
from alphabar.check.formula import Continuum, Formula, Process
from alphabar.check.linear import (
    EACH,
    NOISE,
    Evidence,
    Role,
    Supply,
    finding,
    not_optional,
    together,
    unchecked,
    weigh,
)
from alphabar.check.marginal import marginal_law
from alphabar.check.report import Finding
from alphabar.check.stranger import CannotCheck, Stranger, Way, question, seeded, ways
from alphabar.check.time_sampling import check_time_sampling
from alphabar.check.weighting import check_weighting

ONE_FOR_ALL = "right with one t for all items; with a t for each, as training draws them, it raises"
LABEL = "label"  # what is said of an item beside it
ITEMS, SHAPES, LABELS = 2048, ((3,), (1, 2, 2)), 8
LEAST = 200  # numbers at one level, to estimate anything from
_ROUNDING = 1e-3  # of a target, which is a quotient of differences
UPWARDS = "asks for flow, t = 1 data"
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
        self.anchor = nn.Parameter(torch.zeros(()))  # by which people ask where a model is
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


class Facts(NamedTuple):
    """What a person has said of a loss."""

    predicts: str
    process: Process | None
    scale: str = "vp"
    data_range: tuple[float, float] | None = None
    claims: str | None = None
    gamma: float | None = None


def _no_supply(*_: Any) -> Supply:
    raise AssertionError("a loss is supplied by its own check")


def role(predicts: str, scale: str = "vp") -> Role:
    """The loss of a model that predicts this."""
    v = "√ᾱ_t·ε − √(1 − ᾱ_t)·x_0"
    words = {"eps": "ε", "v": v, "flow": "dx/dt = ε − x_0"}.get(predicts, predicts)
    targets = dict(TARGETS)
    if scale == "ve":
        targets["score"] = {"x_0": F(0.0), NOISE: F(-1.0, noise=-0.5, abar=0.5)}
    wrong = [
        Convention(f"asks for {name}", formulas, wrong=f"asks for {name}")
        for name, formulas in {**targets, "x_t": _NOISED}.items()
        if name != predicts
    ]
    right = [Convention(f"asks for {predicts}", targets[predicts])]
    if predicts == "flow":
        back = {"x_0": F(), NOISE: F(-1.0)}
        right.append(Convention(UPWARDS, back, False))
    return Role(
        "loss",
        f"w·‖model(x_t, t) − target‖², x_t of q(x_t | x_0), target = {words}",
        "target",
        ("model", "x_0"),
        None,
        _no_supply,
        (*right, *wrong),
        signed=True,
    )


def _down_to(asks: Role, least: float) -> Role:
    """The same of a flow that ends at noise of a size: dx/dt = (1 − σ_min)·ε − x_0, too."""
    more = [
        c._replace(
            name=f"{c.name}, σ_min = {least:.3g}",
            formulas={**c.formulas, NOISE: c.formulas[NOISE]._replace(factor=f * (1 - least))},
            is_usual=False,
        )
        for c in asks.conventions
        if not c.wrong and "flow" in c.name and (f := c.formulas[NOISE].factor)
    ]
    return asks._replace(conventions=(*more, *asks.conventions))


def _noised(facts: Facts) -> Role:
    """What x_t must be, and what a range of the data makes of it where it is handled wrongly."""
    law, _ = marginal_law(facts.process, facts.scale, "sample")
    if facts.data_range is None:
        return law
    usual = law.conventions[0]
    x_0, z = usual.formulas["x_0"], usual.formulas[NOISE]
    wrong = (
        ("range twice", x_0._replace(factor=2.0), z),
        ("range after noise", x_0, z._replace(factor=2.0)),
        ("range never", x_0._replace(factor=0.5), z),
    )
    rivals = (Convention(kind, {"x_0": x, NOISE: n}, wrong=kind) for kind, x, n in wrong)
    return law._replace(conventions=(*law.conventions, *rivals))


def check_loss(
    facts: Facts, function: Callable[..., object], given: Mapping[str, object]
) -> tuple[Finding, ...]:
    """A loss: what it asks for, of which x_t, at which t, and how much each counts."""
    found: tuple[Finding, ...] = ()
    for shape in SHAPES:
        again = _checked(facts, function, given, shape)
        # What was made for pictures may refuse numbers.
        if again[0].verdict != "unchecked":
            return again
        found = found or again
    return found


def _checked(
    facts: Facts,
    function: Callable[..., object],
    given: Mapping[str, object],
    item: tuple[int, ...],
) -> tuple[Finding, ...]:
    """The same with items of a shape."""
    begin, asks = time.perf_counter(), role(facts.predicts, facts.scale)
    stranger = Stranger(function, given)
    noised_law, levels = _noised(facts), marginal_law(facts.process, facts.scale, "sample")[1]
    tried = _supplied(facts, levels, item)
    shape = tried["x_0"].shape
    generator = torch.Generator().manual_seed(1)
    # Two far apart, since the target is a quotient by their difference, and a third to test it.
    one, other = (torch.randn(shape, generator=generator) for _ in range(2))
    answers = torch.stack([one + one.sign(), -one - one.sign(), other])
    meant: dict[frozenset[str], tuple[Evidence, Evidence]] = {}  # by what it takes
    called: dict[frozenset[str], Way] = {}
    # Of a loss that is no squared error: where it is 0, and of which x_t.
    zeros: dict[frozenset[str], dict[str, Evidence]] = {}
    never: dict[frozenset[str], NotFinite] = {}
    loud: list[tuple[str, str]] = []
    others: list[Finding] = []
    refused: CannotCheck | None = None
    try:
        with seeded(0):
            found = _without_labels(stranger, _ways(stranger, tried), tried)
        loud = _not_left_out(asks, stranger, found)
        for way in found:
            takes = frozenset(way.order)
            seen: list[Seen] = []
            try:
                seen = [_seen(stranger, way, {**tried, "model": Asking(a)}) for a in answers]
                target = _target(answers, seen)
                said = [
                    _explained(asks, noised_law, levels, b, target, seen[0], way, tried)
                    for b in (0, 1)
                ]
            except NotFinite as error:
                never[takes] = error
                continue
            except CannotCheck as error:
                refused = refused or error
                if seen and facts.process is not None:
                    zeros.setdefault(takes, {})
                    for name, x_t in _by_zero(stranger, way, tried, seen[0], facts, noised_law):
                        least = min(zeros[takes].get(name, x_t), x_t, key=lambda e: e.cost)
                        zeros[takes][name] = least
                continue
            kept = [pair for pair in said if pair is not None]
            if "t" not in way.order:
                drawn, more = _times(stranger, way, tried, facts, kept)
                others += drawn
                kept = [(e._replace(others=(*e.others, *more)), x) for e, x in kept]
            if kept:
                best = min(kept, key=_both)
                if takes not in meant or _both(best) < _both(meant[takes]):
                    meant[takes] = best
                    called[takes] = way
        for takes, way in called.items():
            if "t" in way.order:
                with suppress(Exception):  # it knows no step T, or not this many items
                    others += _weights(stranger, way, tried, meant[takes][0].base, facts)
        known = {takes for takes, names in zeros.items() if names}
        broken = next((e for takes, e in never.items() if takes not in {*meant, *known}), None)
        if broken is not None:
            raise broken
        if not meant and known:
            zero = [zeros[takes] for takes in known]
            return _another_loss(stranger, asks, noised_law, facts, zero, loud, begin)
        if not meant and refused is not None:
            raise refused
        if not meant:
            why = "its t or noise are drawn where no draw can be recorded: let both be handed over"
            raise CannotCheck(why)
    except CannotCheck as error:
        return (unchecked(stranger.name, asks, str(error), begin),)
    except NotFinite as error:
        seconds, words = time.perf_counter() - begin, str(error)
        nan = (named("loss", "not finite", words, "the loss is not finite"),)
        return (
            Finding(stranger.name, "loss", "bug", asks.law, words, "numbers", nan, seconds=seconds),
        )
    process = facts.process or levels
    worst, x_t = (together([pair[i] for pair in meant.values()]) for i in (0, 1))
    worst = _direction(asks, worst, x_t)
    worst = worst._replace(others=(*worst.others, *loud))
    if any("t" in way.order and way.t_form not in EACH for way in called.values()):
        worst = worst._replace(weak=ONE_FOR_ALL)
    first = finding(stranger, asks, worst, process, begin)
    wrong = [f for f in others if f.verdict == "bug"]
    return (first, *_unless_fine(stranger, noised_law, x_t, process, begin), *_once(wrong))


def _unless_fine(
    stranger: Stranger, noised: Role, x_t: Evidence, process: Process, begin: float
) -> tuple[Finding, ...]:
    """What is said of x_t, where there is something to say."""
    found = finding(stranger, noised, x_t, process, begin)
    return () if found.verdict in ("right", "equivalent") else (found,)


def _not_left_out(asks: Role, stranger: Stranger, found: Sequence[Way]) -> list[tuple[str, str]]:
    """Noise, else t, that has a default and must be handed over all the same."""
    orders = [way.order for way in found]
    said = (not_optional(asks._replace(noise=name), stranger, orders) for name in (NOISE, "t"))
    return next(filter(None, said), [])


def _both(pair: tuple[Evidence, Evidence]) -> float:
    return pair[0].cost + pair[1].cost


def _once(found: Sequence[Finding]) -> list[Finding]:
    """One finding of a role is enough."""
    return list({f.role: f for f in reversed(found)}.values())


def _direction(asks: Role, target: Evidence, noised: Evidence) -> Evidence:
    """Of a flow, x_t and dx/dt must agree on where time goes."""
    if target.explained is None or noised.explained is None or "dx/dt" not in asks.law:
        return target
    up = target.explained.convention.name.startswith(UPWARDS)
    reversed_ = "t = 1 data" in noised.explained.convention.name
    if "flow" in noised.explained.convention.name and up != reversed_:
        more = ("flow backwards", "the target is −dx/dt of the x_t that the model is shown")
        return target._replace(others=(*target.others, more))
    return target


def _supplied(facts: Facts, levels: Process, item: tuple[int, ...]) -> dict[str, Any]:
    """What a loss may be handed: data in their range, and t of every level, a few items each."""
    generator = torch.Generator().manual_seed(0)
    shape = (ITEMS, *item)
    x_0 = torch.randn(shape, generator=generator)
    if facts.data_range is not None:
        low, high = facts.data_range
        x_0 = low + (high - low) * torch.rand(shape, generator=generator)
    if levels.has_table:
        # Every step once, as far as there is room, and some of them again and again.
        often = torch.linspace(1, levels.T - 1, LABELS).round().long()
        once = torch.arange(min(levels.T, ITEMS - 16 * LABELS))
        t = torch.cat([once, often.repeat(ITEMS)[: ITEMS - len(once)]])
    else:
        t = torch.stack([levels.labels(1 + i % levels.T, 1)[0] for i in range(ITEMS)])
    return {
        "model": Asking(torch.zeros(shape)),
        "x_0": x_0,
        "t": t,
        NOISE: torch.randn(shape, generator=generator),
        LABEL: torch.randn(shape, generator=generator),
        "data": _normalised(x_0, facts.data_range),
    }


def _normalised(x_0: Tensor, data_range: tuple[float, float] | None) -> Tensor:
    if data_range is None:
        return x_0
    low, high = data_range
    return 2 * (x_0 - low) / (high - low) - 1


def _explained(
    asks: Role,
    noised: Role,
    levels: Process,
    base: int,
    target: Tensor,
    seen: Seen,
    way: Way,
    tried: Mapping[str, Any],
) -> tuple[Evidence, Evidence] | None:
    """What explains the target and x_t, if the first noisy level is called by this number."""
    called = str(way)
    if not levels.has_table:
        if base != 1:
            return None
        assert isinstance(levels, Continuum)
        unit = _unit(seen.label, max(1.0, levels.label.max().item()))
        if unit > 1:
            called += f"; the model is told {unit:g}·t"
            seen = seen._replace(label=seen.label / unit)
        levels = _told(levels, seen.label)
        labels = {i: levels.label[i - 1].item() for i in range(1, levels.T + 1)}
    else:
        labels = {i: float(i) for i in _some(seen.label, levels.T, base)}
    labels = {i: label for i, label in labels.items() if (seen.label == label).sum() >= 3}
    if not labels:
        return None
    broken = _broken(seen)
    if levels.has_table:  # of clean data there may be no target
        broken &= (seen.label >= base) & (seen.label < base + levels.T)
    labels = {i: label for i, label in labels.items() if not broken[seen.label == label].any()}
    if not labels:
        raise NotFinite(_where(seen, broken))
    x_t = {i: _at(label, seen.x_t, seen, way, tried) for i, label in labels.items()}
    process = noised.read(x_t, levels) if noised.read is not None else levels
    of = {
        i: _by_x_t(_at(label, target, seen, way, tried), x_t[i], label, target, seen, tried)
        for i, label in labels.items()
        if target[seen.label == label].isfinite().all()  # it counts at all
    }
    if not of:
        raise NotFinite("the loss does not depend on the model's answer")
    second = weigh(noised, x_t, process, base, called, way.order)
    if second.explained is not None and second.explained.convention.least:
        asks = _down_to(asks, second.explained.convention.least)
    first = weigh(asks, of, process, base, called, way.order)
    if any(one.noisy and one.numbers < LEAST for one in (first, second)):
        return None  # an estimate from so few says nothing
    if second.explained is not None and second.explained.convention.wrong:
        kept = tuple(pair for pair in second.others if pair[0] != "constant")
        second = second._replace(others=kept)  # of the range
    if broken.any():
        first = first._replace(others=(("not finite", _where(seen, broken)), *first.others))
    return first, second


def _broken(seen: Seen) -> Tensor:
    """Which items have an x_t or a loss that is NaN or infinite."""
    return ~(seen.gradient.isfinite() & seen.x_t.isfinite()).flatten(1).all(1)


def _where(seen: Seen, broken: Tensor) -> str:
    labels = torch.unique(seen.label[broken])
    some = ", ".join(f"{v:g}" for v in labels[:3].tolist()) + (", …" if len(labels) > 3 else "")
    every = len(labels) == len(torch.unique(seen.label))
    return "x_t or the loss is NaN or infinite at " + ("every t" if every else f"t = {some}")


def _unit(label: Tensor, largest: float) -> float:
    """What a model is told for t = 1 where it is told more than the largest t: 10, 100, 1000, …"""
    most = label.max().item()
    return 10.0 ** math.ceil(math.log10(most)) if largest < most < math.inf else 1.0


def _told(levels: Continuum, label: Tensor) -> Continuum:
    """The levels that came up often, where they are not those that were handed over."""
    values, counts = torch.unique(label.double(), return_counts=True)
    often = values[(counts >= 30) & (values > 1e-3) & (values < 1 - 1e-3)]
    if len(often) < 2 or len(values) == levels.T:
        return levels
    return Continuum.at(often, 2 * ((1 - often) / often).log())


def _times(
    stranger: Stranger,
    way: Way,
    tried: Mapping[str, Any],
    facts: Facts,
    said: Sequence[tuple[Evidence, Evidence]],
) -> tuple[tuple[Finding, ...], list[tuple[str, str]]]:
    """Whether the t that a loss draws itself are uniform, and are the levels that it knows."""
    ends: list[float] = []

    def drawn(n: int) -> Tensor:
        told: list[Tensor] = []
        while sum(len(t) for t in told) < n:
            model = Asking(tried["model"].answer.detach())
            way.call(stranger, {**tried, "model": model})
            told.append(question(model.asked[0], tried["x_0"].shape)[1].detach())
        ends.extend(bound.item() for t in told for bound in t.aminmax())
        return torch.cat(told)[:n]

    T = facts.process.T if facts.process is not None else None
    if T is None and facts.scale != "flow":
        return (), []  # of σ every law is somebody's
    batch = drawn(ITEMS)
    unit = _unit(batch, 1.0) if T is None else 1.0
    if bool((batch == batch[0]).all()):
        return (), []  # one t for all items: too few draws to tell their law
    found = check_time_sampling(lambda n: drawn(n) / unit, T, "flow" if T is None else "vp")
    # In few steps of a fine table either count may fit.
    first = {e.base for e, x_t in said if e.is_right and x_t.is_right}
    more = []
    if T is not None and first and not any(b <= min(ends) and max(ends) < b + T for b in first):
        base = max(first)
        words = (
            f"it draws t from {min(ends):g} to {max(ends):g}, and by the x_t of each it counts "
            f"from {base} to {base + T - 1}"
        )
        more.append(("other t drawn", words))
    return (replace(found, name=stranger.name),), more


def _weights(
    stranger: Stranger, way: Way, tried: Mapping[str, Any], base: int, facts: Facts
) -> tuple[Finding, ...]:
    """Whether each item counts by its own t alone, and as much as is claimed."""
    begin = time.perf_counter()
    t = tried["t"] + (base if facts.process is not None else 0)
    some = torch.where(torch.arange(ITEMS) < ITEMS // 2, t, t[0])
    weights, again = (_curved(stranger, way, {**tried, "t": told}) for told in (t, some))
    if not (weights > 0).any() and (weights < 0).any():
        said = named("loss", "negative", "the loss is greatest at its target", "a minus too many")
        return (Finding(stranger.name, "loss", "bug", "w ≥ 0", "w < 0", "w ≥ 0", (said,)),)
    half = slice(0, ITEMS // 2)
    if not torch.allclose(again[half], weights[half], rtol=1e-2, atol=0, equal_nan=True):
        words = "an item's weight changes with the t of the other items"
        said = named("loss", "weights averaged", words)
        law, fits = "the weight of an item depends on its own t alone", "by its own t"
        seconds = time.perf_counter() - begin
        return (Finding(stranger.name, "loss", "bug", law, words, fits, (said,), seconds=seconds),)
    if facts.claims is None or facts.process is None or ITEMS < facts.process.T:
        return ()
    table = torch.full((facts.process.T,), math.nan, dtype=torch.float64)
    d = tried["x_0"][0].numel()
    found = []
    for count in (ITEMS * d, ITEMS, d, 1):  # a mean of all, or a sum over some
        table[t.long() - base] = weights.double() * (count / 2)
        found.append(
            check_weighting(table, facts.process.beta, facts.predicts, facts.claims, facts.gamma)
        )
    best = min(found, key=lambda f: (f.verdict == "bug", not f.diagnoses))
    return (replace(best, name=stranger.name),)


def _curved(stranger: Stranger, way: Way, values: Mapping[str, Any]) -> Tensor:
    """How much each item counts: the curvature of the loss in its answer."""
    one = torch.ones_like(values["x_0"])
    seen = [_seen(stranger, way, {**values, "model": Asking(a)}) for a in (one, -one)]
    return ((seen[0].gradient - seen[1].gradient) / 2).flatten(1).median(1).values


def _target(answers: Tensor, seen: Sequence[Seen]) -> Tensor:
    """What the loss is least at.

    Raises:
        CannotCheck: a loss that is not quadratic.
        NotFinite: a loss that is never finite; or is no squared error, and not always finite.
    """
    if not all(torch.equal(seen[0].x_t.nan_to_num(), one.x_t.nan_to_num()) for one in seen):
        raise CannotCheck(
            "the loss draws another noise each time, whatever the seed: let noise be handed over, "
            "or draw it with torch"
        )
    broken = _broken(seen[0])
    if broken.all():
        raise NotFinite(_where(seen[0], broken))
    curvature = (seen[0].gradient - seen[1].gradient) / (answers[0] - answers[1])
    predicted = seen[0].gradient + curvature * (answers[2] - answers[0])
    known = predicted.isfinite() & seen[2].gradient.isfinite()  # a clean level may divide by 0
    apart = (predicted - seen[2].gradient)[known].abs().mean()
    if not apart <= 1e-3 * seen[2].gradient[known].abs().mean():
        broken &= seen[0].label != 0  # which may be clean data
        if broken.any():
            raise NotFinite(_where(seen[0], broken))
        raise CannotCheck("the loss is no squared error of the model's answer; give that part")
    return answers[0] - seen[0].gradient / curvature


def _by_zero(
    stranger: Stranger,
    way: Way,
    tried: Mapping[str, Any],
    seen: Seen,
    facts: Facts,
    noised: Role,
) -> Iterator[tuple[str, Evidence]]:
    """The targets at which a loss is 0, where it is no squared error: an absolute one, or Huber's.

    Each with what its x_t is made of. Only with noise that was handed over or recorded.
    """
    process = facts.process
    drawn = [d for law, d in seen.draws if law == "normal" and d.shape == tried["x_0"].shape]
    z = tried[NOISE] if NOISE in way.order else drawn[0].float() if drawn else None
    if process is None or z is None:
        return
    far = [_seen_value(stranger, way, {**tried, "model": Asking(s * (5 * z + 5))}) for s in (1, -1)]
    usual = min(far)
    if usual <= 0:
        return  # it falls without end
    for base in (0, 1):
        t = (seen.label.long() + 1 - base).clamp(1, process.T)
        names = []
        for name, target in {**TARGETS, "x_t": _NOISED}.items():
            a, b = (
                target[k].at(process, t).float().reshape(-1, *(1,) * (z.ndim - 1))
                for k in ("x_0", NOISE)
            )
            answer = a * tried["data"] + b * z
            value = _seen_value(stranger, way, {**tried, "model": Asking(answer)})
            if abs(value) <= 1e-4 * abs(usual):
                names.append(name)
        if names:
            often = _some(seen.label, process.T, base)
            x_t = {i: _at(float(i), seen.x_t, seen, way, tried) for i in often}
            of = weigh(noised, x_t, process, base, str(way), way.order)
            yield from ((name, of) for name in names)


def _seen_value(stranger: Stranger, way: Way, values: Mapping[str, Any]) -> float:
    """The loss itself, with the same noise as ever."""
    with seeded(7), torch.no_grad():
        return way.call(stranger, values).double().sum().item()


def _another_loss(
    stranger: Stranger,
    asks: Role,
    noised: Role,
    facts: Facts,
    zeros: Sequence[Mapping[str, Evidence]],
    loud: Sequence[tuple[str, str]],
    begin: float,
) -> tuple[Finding, ...]:
    """What is said of a loss that is 0 where it should be, or elsewhere."""

    def cost(zero: tuple[str, Evidence]) -> float:
        return (zero[0] != facts.predicts) + zero[1].cost

    # As the arguments were meant, and of those the worst.
    name, x_t = max((min(found.items(), key=cost) for found in zeros), key=cost)
    wrong = [named("loss", *one) for one in loud]
    if name != facts.predicts:
        wrong.insert(0, named("loss", f"asks for {name}", f"it is 0 at {name}"))
    first = Finding(
        stranger.name,
        "loss",
        "bug" if wrong else "right",
        asks.law,
        f"no squared error; it is 0 where the answer is {name}",
        f"0 where the answer is {facts.predicts}",
        tuple(wrong),
        f"an absolute error, or another; {x_t.called}",
        seconds=time.perf_counter() - begin,
    )
    assert facts.process is not None
    return (first, *_unless_fine(stranger, noised, x_t, facts.process, begin))


def _at(label: float, results: Tensor, seen: Seen, way: Way, tried: Mapping[str, Any]) -> Affine:
    """What the results of the items at the person's level are made of."""
    rows = seen.label == label
    terms = {"x_0": tried["data"][rows]}
    if NOISE in way.order:
        terms[NOISE] = tried[NOISE][rows]
    draws = [(law, d[rows]) for law, d in seen.draws if d.shape == results.shape]
    return fit(results[rows], terms, draws, _ROUNDING)


def _by_x_t(
    one: Affine, x_t: Affine, label: float, target: Tensor, seen: Seen, tried: Mapping[str, Any]
) -> Affine:
    """The same by way of x_t, where noise could neither be handed over nor recorded.

    With target = p·x_0 + q·x_t and x_t = a·x_0 + b·z it is (p + q·a)·x_0 + q·b·z.
    """
    if one.exact or NOISE in one.of or x_t.noise.value <= 0:
        return one
    rows = seen.label == label
    terms = {"x_0": tried["data"][rows], "x_t": seen.x_t[rows]}
    by = fit(target[rows], terms, [], _ROUNDING)
    if not by.exact:
        return one
    q = by.of["x_t"].value
    a, b = x_t.of["x_0"], x_t.noise
    x_0 = Value(by.of["x_0"].value + q * a.value, by.of["x_0"].error + abs(q) * a.error)
    z = Value(q * b.value, by.of["x_t"].error * b.value + abs(q) * b.error)
    return replace(by, of={"x_0": x_0}, noise=z, law="normal", exact=False, count=x_t.count)


def _ways(stranger: Stranger, tried: Mapping[str, Any]) -> list[Way]:
    error: CannotCheck | None = None
    for shape in ((), (ITEMS,)):
        try:
            first: dict[tuple[str, ...], Way] = {}
            slots = {k: v for k, v in tried.items() if k not in ("data", LABEL)}
            for way in ways(stranger, slots, ("model", "x_0"), shape):
                first.setdefault(way.order, way)
            return list(first.values())
        except CannotCheck as refused:
            error = error or refused
    assert error is not None
    raise error


def _without_labels(
    stranger: Stranger, found: Sequence[Way], tried: Mapping[str, Any]
) -> list[Way]:
    """Ways in which all that is handed over is used: what reaches the model as it is, is a label.

    Where all ways have such, what stands for noise in them is the label.
    """
    kept, labelled = [], []
    for way in found:
        handed_on = _handed_on(stranger, way, tried)
        if not handed_on:
            kept.append(way)
        elif handed_on == {NOISE}:
            order = tuple(LABEL if name == NOISE else name for name in way.order)
            labelled.append(replace(way, order=order))
    return kept or labelled or [*found]


def _handed_on(stranger: Stranger, way: Way, tried: Mapping[str, Any]) -> set[str]:
    """What reaches the model as it was handed over, beside x_t and t."""
    model = Asking(tried["model"].answer.detach())
    with seeded(7), suppress(CannotCheck):
        way.call(stranger, {**tried, "model": model})
    beside = [v for v in (*model.asked[0],)[1:] if isinstance(v, Tensor)] if model.asked else []
    return {
        name
        for name in {"x_0", NOISE} & {*way.order}
        if any(v.shape == tried[name].shape and torch.equal(v, tried[name]) for v in beside)
    }


def _seen(stranger: Stranger, way: Way, values: Mapping[str, Any]) -> Seen:
    model = values["model"]
    coarse = 0 if "t" in way.order else ITEMS
    with seeded(7), Recorder(coarse) as recorder, torch.enable_grad():
        loss = way.call(stranger, values, keep_graph=True)
    if len(model.asked) != 1:
        raise CannotCheck(f"the loss asks the model {len(model.asked)} times; it must ask once")
    if not loss.requires_grad:
        raise CannotCheck(
            "the loss has no gradient in the model's answer: return the tensor itself, not "
            "loss.item(), and do not detach the answer"
        )
    (gradient,) = torch.autograd.grad(loss.sum(), model.answer)
    x_t, label = question(model.asked[0], values["x_0"].shape)
    return Seen(x_t.detach(), label.detach(), gradient, recorder.draws)


def _some(label: Tensor, T: int, base: int) -> list[int]:
    """A few of the t that came up often enough, from the least to the most."""
    values, counts = torch.unique(label, return_counts=True)
    often = values[(counts >= 3) & (values + 1 - base >= 1) & (values + 1 - base <= T)]
    places = torch.linspace(0, len(often) - 1, min(LABELS, len(often))).round().long()
    return sorted({int(v) for v in often[places]}) if len(often) else []
