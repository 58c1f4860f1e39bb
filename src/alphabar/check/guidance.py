"""Checks of guidance: by a model's own answers with a label and without one, or by a classifier.

    (a) without a classifier:  g = u + s·(c − u)             u, c: the answers without, with a label
    (b) with one:              μ + s·Σ·∇ log p(y | x = μ)     Σ: the variance of the step
                               ε − s·√(1 − ᾱ_t)·∇ log p(y | x = x_t)

(a) is Ho and Salimans 2022, eq. (6), with s = 1 + w; (b) is Dhariwal and Nichol 2021, algorithms 1
and 2. Models and classifiers that answer numbers of their own show what the result is made of, and
keep where they were asked.
"""

import inspect
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from alphabar.check.affine import Affine, NotFinite, measure
from alphabar.check.catalogue import named
from alphabar.check.explain import Convention
from alphabar.check.formula import Formula, Process
from alphabar.check.linear import NOISE, Role, Supply, finding, weigh
from alphabar.check.report import Finding, Verdict
from alphabar.check.roles import Answering
from alphabar.check.roles import step as step_role
from alphabar.check.stranger import CannotCheck, Stranger, seeded

FREE = "g = u + s·(c − u): of the answers with a label and without, the weights s and 1 − s"
SHAPE = (3, 4)  # of an item
ITEMS = 6
SCALES = (2.5, 0.0, 1.0, 7.0)
GRADIENT = "∇"
_CLOSE = 1e-4
F = Formula.of
Wrong = tuple[str, ...]  # kind, evidence, in words, remedy


class _Refused(Exception):
    """A model was asked what it was not meant to be."""


def check_guidance(
    function: Callable[..., object],
    betas: Tensor | None = None,
    predicts: str = "eps",
    given: Mapping[str, object] | None = None,
) -> Finding:
    """Whether guidance is what it should be; which of the two kinds is told by behaviour.

    Args:
        function: of (a) a model(x, t, label), x, t, a label and a scale, or of the two answers and
            a scale, or a class that wraps a model, a label and a scale; of (b) a model(x, t), a
            gradient(x, t), x, t and perhaps a scale: one step, or the guided ε.
        betas: β_t (T,), which (b) needs.
        predicts: what the model of (b) predicts: eps, x_0 or v.
        given: what else it is to be handed, by name.

    Raises:
        ValueError: a prediction that means nothing.
    """
    begin = time.perf_counter()
    if predicts not in ("eps", "x_0", "v"):
        raise ValueError(f"predicts = {predicts!r}: choose eps, x_0, v")
    called_as = function.forward if isinstance(function, nn.Module) else function
    stranger = Stranger(called_as, given or {})
    T = 1000 if betas is None else len(betas)
    try:
        free = _free(stranger, T)
        if free is not None:
            wrong, measured, notes, equivalent = free
            verdict: Verdict = "bug" if wrong else "equivalent" if equivalent else "right"
            return Finding(
                stranger.name,
                "guidance",
                verdict,
                FREE,
                measured,
                "(1 − s)·u + s·c",
                tuple(named("guidance", *one) for one in wrong),
                "; ".join(notes),
                seconds=time.perf_counter() - begin,
            )
        return _by_classifier(stranger, betas, predicts, begin)
    except CannotCheck as error:
        seconds = time.perf_counter() - begin
        return Finding(
            stranger.name, "guidance", "unchecked", FREE, "", "", why=str(error), seconds=seconds
        )


# --- (a) without a classifier


class Labelled(nn.Module):
    """A model that says c where it is told the label, and u elsewhere."""

    def __init__(self, x: Tensor, t: Tensor, label: Any, u: Tensor, c: Tensor) -> None:
        super().__init__()
        self.x, self.t, self.label, self.u, self.c = x, t, label, u, c
        self.asked = 0
        self.elsewhere = False
        self.with_label = self.without = False
        self.orders: set[tuple[int, int]] = set()  # the places in which x and t were handed over

    def forward(self, *values: Any, **named_values: Any) -> Tensor:
        """One answer for each row."""
        every = [*values, *named_values.values()]
        x = next((v for v in every if _is_rows(v, self.x)), None)
        if x is None:
            raise _Refused("the model was asked without x")
        rest = [v for v in every if v is not x]
        t = next((v for v in rest if self._is_t(v, len(x))), None)
        if t is None:
            raise _Refused("the model was asked without t")
        rest = [v for v in rest if v is not t]
        n = len(self.x)
        self.asked += 1
        place = [next((i for i, v in enumerate(values) if v is one), -1) for one in (x, t)]
        if min(place) >= 0:  # by a name there is no order
            self.orders.add((place[0], place[1]))
        self.elsewhere |= not torch.allclose(x.to(self.x.dtype), self.x.repeat(len(x) // n, 1, 1))
        told = torch.zeros(len(x), dtype=torch.bool)
        for value in rest:
            told |= self._labelled(value, len(x))
        self.with_label |= bool(told.any())
        self.without |= bool((~told).any())
        item = torch.arange(len(x)) % n
        return torch.where(told[:, None, None], self.c[item], self.u[item])

    def _is_t(self, value: Any, n: int) -> bool:
        if not isinstance(value, int | float | Tensor) or isinstance(value, bool):
            return False
        flat = torch.as_tensor(value).flatten().double()
        return len(flat) in (1, len(self.t), n) and bool((flat == self.t[0].item()).all())

    def _labelled(self, value: Any, n: int) -> Tensor:
        """Which rows carry the label."""
        if isinstance(value, list | tuple) and len(value) in (1, n // len(self.x)):
            parts = [self._labelled(v, n // len(value)) for v in value]
            return torch.cat(parts)
        if isinstance(value, Tensor) and isinstance(self.label, Tensor) and value.ndim:
            if value.shape[1:] != self.label.shape[1:] or len(value) not in (len(self.label), n):
                return torch.zeros(n, dtype=torch.bool)
            same = value == self.label.repeat(
                len(value) // len(self.label), *[1] * (value.ndim - 1)
            )
            return same.flatten(1).all(1) if same.ndim > 1 else same
        if isinstance(value, Tensor | list | tuple) and not isinstance(self.label, Tensor):
            flat = torch.as_tensor(value).flatten() if isinstance(value, Tensor) else None
            if flat is not None and len(flat) == n:
                return flat == self.label
            return torch.zeros(n, dtype=torch.bool)
        same_one = not isinstance(self.label, Tensor) and value is not None and value == self.label
        return torch.full((n,), bool(same_one))


def _is_rows(value: Any, x: Tensor) -> bool:
    return (
        isinstance(value, Tensor)
        and value.is_floating_point()
        and value.shape[1:] == x.shape[1:]
        and len(value) in (len(x), 2 * len(x))
    )


class Seen(NamedTuple):
    """What a result is made of: of each item u·a + c·b."""

    a: Float64[Tensor, " n"]
    b: Float64[Tensor, " n"]
    left: float
    asked: int
    elsewhere: bool
    both: bool  # whether the model was asked with a label and without one
    orders: int  # in how many orders of its arguments the model was asked


class FreeWay(NamedTuple):
    """How guidance without a classifier is called."""

    words: str
    call: Callable[[Mapping[str, Any]], list[Tensor]]
    label: str


_LABELS: Mapping[str, Callable[[int], Any]] = {
    "label: int": lambda n: 3,
    "label: int64 (B,)": lambda n: torch.full((n,), 3),
    "label: float (B, E)": lambda n: torch.full((n, 5), 0.7),
}


def _free(stranger: Stranger, T: int) -> tuple[list[Wrong], str, list[str], bool] | None:
    """What is found of guidance without a classifier; None where it is no such thing."""
    way, first = None, None
    for tried in _free_ways(stranger):
        try:
            one = _seen(tried, T // 2, 2.5)
        except Exception:
            continue
        if one.left > 1e-3 and not one.both:
            continue
        if not (one.asked or tried.label == "answers"):
            continue
        # A label in the place of a scale is not what was meant: both answers are to have a part.
        is_sum = one.left <= 1e-3 and not one.elsewhere
        is_meant = is_sum and bool((one.a.abs() > _CLOSE).all() & (one.b.abs() > _CLOSE).all())
        if way is None or is_meant:
            way, first = tried, one
        if is_meant:
            break
    if way is None or first is None:
        return None
    if first.elsewhere:
        evidence = "the model is not asked at the x that is handed over"
        return [("asked elsewhere", evidence, evidence, "model(x, t, label)")], evidence, [], False
    if first.orders > 1:
        evidence = "x and t are in other places where it is asked with a label than without"
        words = "the model is asked with its arguments in two orders"
        return [("asked in two orders", evidence, words, "model(x, t, label)")], evidence, [], False
    scaled = "scale" in way.words
    notes = [way.words]
    found: dict[float, Seen] = {}
    for scale in SCALES if scaled else (2.5,):
        for t in (T // 2, T // 10, T - 2):
            one = _seen(way, max(t, 1), scale)
            bare = bool((one.b - 1).abs().max() < _CLOSE and one.a.abs().max() < _CLOSE)
            if scale in found and bare and "at some t without" not in "".join(notes):
                old = found[scale]
                if (old.b - one.b).abs().max() > _CLOSE:
                    notes.append("at some t without guidance: in an interval alone")
            if scale not in found or not bare:
                found[scale] = one
    said = _of_weights(found, scaled, [*notes])
    if way.label == "answers" and said[0]:
        # Of two answers nothing tells which is which.
        turned = {scale: one._replace(a=one.b, b=one.a) for scale, one in found.items()}
        notes.append("the answer with the label is handed over first")
        wrong, measured, notes, _ = _of_weights(turned, scaled, notes)
        if not wrong:
            return [], measured, notes, True
    return said


def _of_weights(
    found: Mapping[float, Seen], scaled: bool, notes: list[str]
) -> tuple[list[Wrong], str, list[str], bool]:
    """What is said of the weights at each scale."""
    pairs = {s: (one.a.mean().item(), one.b.mean().item()) for s, one in found.items()}
    measured = "; ".join(f"s = {s:g}: {a:.5g}·u + {b:.5g}·c" for s, (a, b) in pairs.items())
    some = max(found)
    rescaled = _is_rescaled(found[some])
    if rescaled:
        # Each item is brought to a size of its own: only the ratio tells.
        pairs = {s: (a / (a + b), b / (a + b)) for s, (a, b) in pairs.items() if abs(a + b) > 1e-6}
        notes.append("rescaled to the size of c")
    elif any(one.left > 1e-3 for one in found.values()):
        words = "the result is no sum of the two answers"
        return [("no sum of answers", words, words, "u + s * (c - u)")], measured, notes, False
    for name, rule in _RULES.items():
        if all(_near(pair, rule(s)) for s, pair in pairs.items()):
            right = name in ("s", "1 + w")
            if right and (name == "s" or scaled):
                if name == "1 + w":
                    notes.append("s = 1 + w")
                return [], measured, notes, rescaled or name == "1 + w" or len(notes) > 1
            kind, words = _WRONG[name]
            at = max(pairs)
            evidence = f"at s = {at:g} it is {pairs[at][0]:.5g}·u + {pairs[at][1]:.5g}·c"
            return [(kind, evidence, words, "u + s * (c - u)")], measured, notes, False
    if not scaled and all(abs(a + b - 1) < _CLOSE and b > 0 for a, b in pairs.values()):
        return [], measured, [*notes, "its own scale"], False
    total = max(abs(a + b - 1) for a, b in pairs.values())
    if total > _CLOSE:
        kind, words = "weights do not add up", "the weights of u and c do not add up to 1"
        evidence = measured
    else:
        kind, words = "another scale", "the weight of c is not the scale that is given"
        evidence = measured
    return [(kind, evidence, words, "u + s * (c - u)")], measured, notes, False


def _near(pair: tuple[float, float], other: tuple[float, float]) -> bool:
    return all(abs(a - b) <= _CLOSE * (1 + abs(b)) for a, b in zip(pair, other, strict=True))


# The weights of u and c by the scale s.
_RULES: Mapping[str, Callable[[float], tuple[float, float]]] = {
    "s": lambda s: (1 - s, s),
    "1 + w": lambda s: (-s, 1 + s),
    "sign": lambda s: (1 + s, -s),
    "swapped": lambda s: (s, 1 - s),
    "added": lambda s: (1.0, s),
    "added to c": lambda s: (s, 1.0),
    "1 + w with +": lambda s: (s, 1 + s),
    "the sum": lambda s: (1 + s, s),
    "squared": lambda s: (1 - s**2, s**2),
    "twice": lambda s: (1 - 2 * s, 2 * s),
    "c alone": lambda s: (0.0, 1.0),
    "u alone": lambda s: (1.0, 0.0),
    "the difference": lambda s: (-s, s),
}
_WRONG: Mapping[str, tuple[str, str]] = {
    "sign": ("sign of the scale", "the scale has the wrong sign, or u and c have changed places"),
    "swapped": ("roles swapped", "the answers with and without a label have changed places"),
    "added": ("weights do not add up", "s·c is added to u, and u is not taken away"),
    "added to c": ("weights do not add up", "s·u is added to c"),
    "1 + w with +": ("weights do not add up", "w·u is added where it is to be taken away"),
    "the sum": ("weights do not add up", "u and c are added where u is to be taken from c"),
    "squared": ("another scale", "the scale is applied twice"),
    "twice": ("another scale", "the scale counts double"),
    "c alone": ("scale ignored", "the scale has no effect: it is the answer with a label"),
    "u alone": ("label ignored", "the label has no effect: it is the answer without one"),
    "the difference": ("weights do not add up", "u is missing: it is s·(c − u) alone"),
}


def _is_rescaled(one: Seen) -> bool:
    """Whether each item has the same ratio of weights, and a size of its own."""
    total = one.a + one.b
    if one.left > 1e-3 or total.std() < 1e-3 or (total.abs() < 1e-6).any():
        return False
    return bool((one.b / total).std() < 1e-3)


def _seen(way: FreeWay, t: int, scale: float) -> Seen:
    generator = torch.Generator().manual_seed(t)
    draw = [torch.randn((ITEMS, *SHAPE), generator=generator, dtype=torch.float64) for _ in "xuc"]
    x, u, c = (d.float() for d in draw)
    c = 1.7 * c
    steps = torch.full((ITEMS,), t)
    label = None if way.label == "answers" else _LABELS[way.label](ITEMS)
    model = Labelled(x, steps, label, u, c)
    values = {"model": model, "x": x, "t": steps, "label": label, "scale": scale, "u": u, "c": c}
    with seeded(3):
        results = way.call(values)
    result = next(r.double() for r in results if r.shape == x.shape and r.is_floating_point())
    both = (model.with_label and model.without) or way.label == "answers"
    if not result.isfinite().all():
        nothing = torch.zeros(ITEMS, dtype=torch.float64)
        left = math.inf
        return Seen(nothing, nothing, left, model.asked, model.elsewhere, both, len(model.orders))
    matrix = torch.stack([u.flatten(1), c.flatten(1)], 2).double()
    found = torch.linalg.lstsq(matrix, result.flatten(1)[..., None]).solution
    left = (matrix @ found)[..., 0] - result.flatten(1)
    share = (left.square().mean().sqrt() / result.square().mean().sqrt().clamp(min=1e-6)).item()
    a, b = found[:, 0, 0], found[:, 1, 0]
    return Seen(a, b, share, model.asked, model.elsewhere, both, len(model.orders))


def _free_ways(stranger: Stranger) -> Iterator[FreeWay]:
    """Classes that wrap a model; functions of a model; functions of the two answers."""
    wraps = inspect.isclass(stranger.function)
    parameters = stranger.parameters()
    least = sum(p.default is p.empty for p in parameters)
    for label in _LABELS:
        if wraps:
            yield from _wrapped(stranger, label)
            continue
        for k in range(max(least, 4), min(len(parameters), 5) + 1)[::-1]:
            names = ("model", "x", "t", "label", "scale")[:k]
            for order in _orders(names):
                yield FreeWay(
                    f"called with ({', '.join(order)}), {label}",
                    lambda values, order=order: stranger(*(values[n] for n in order)),  # type: ignore[misc]
                    label,
                )
    if not wraps and least <= 3 <= len(parameters):
        for order in (("u", "c", "scale"), ("scale", "u", "c")):
            yield FreeWay(
                f"called with ({', '.join(order)})",
                lambda values, order=order: stranger(*(values[n] for n in order)),  # type: ignore[misc]
                "answers",
            )


def _orders(names: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The usual order first."""
    yield names
    yield from (order for order in itertools.permutations(names) if order != names)


def _wrapped(stranger: Stranger, label: str) -> Iterator[FreeWay]:
    outer = ("model", "label", "scale")
    for k in (3, 2, 1):
        for made in itertools.permutations(outer, k):
            if "model" not in made:
                continue
            left = tuple(name for name in outer if name not in made)
            for order in itertools.permutations(("x", "t", *left)):

                def call(
                    values: Mapping[str, Any],
                    made: tuple[str, ...] = made,
                    order: tuple[str, ...] = order,
                ) -> list[Tensor]:
                    one = stranger.function(*(values[n] for n in made), **stranger.given)
                    return Stranger(one)(*(values[n] for n in order))

                words = f"made with ({', '.join(made)}), called with ({', '.join(order)}), {label}"
                yield FreeWay(words, call, label)


# --- (b) with a classifier


class Gradient(nn.Module):
    """A gradient that answers numbers of its own, and keeps where it was asked."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer, self.asked = answer, list[Tensor]()

    def forward(self, *values: Any, **named_values: Any) -> Tensor:
        """The answer, whatever the question."""
        every = [*values, *named_values.values()]
        x = next((v for v in every if isinstance(v, Tensor) and v.shape == self.answer.shape), None)
        if x is None:
            raise _Refused("the gradient was asked without x")
        self.asked.append(x.detach().clone())
        return self.answer.clone()


class LogProbability(Gradient):
    """Of the same gradient, the function of x that has it: (B,)."""

    def forward(self, *values: Any, **named_values: Any) -> Tensor:
        """log p(y | x), linear in x."""
        every = [*values, *named_values.values()]
        super().forward(*every)
        x = next(v for v in every if isinstance(v, Tensor) and v.shape == self.answer.shape)
        return (x * self.answer).flatten(1).sum(1)


def _role(predicts: str) -> Role:
    step = step_role(predicts)
    tilde = F(beta=1, noise=-1, before={"noise": 1})
    guided = []
    for one in step.conventions:
        variances = {"β̃": tilde, "β": F(beta=1)}
        if one.name == "DDIM":
            continue
        for name, variance in variances.items():
            usual = name == "β̃" and one.is_usual
            guided.append(
                Convention(f"{one.name}, Σ = {name}", {**one.formulas, GRADIENT: variance}, usual)
            )
    eps = {"x_0": F(0.0), "ε": F(), GRADIENT: F(-1.0, noise=0.5), NOISE: F(0.0)}
    guided.append(Convention("the guided ε", eps, False))
    return step._replace(
        name="guidance",
        law="x_{t−1} = μ + s·Σ·∇ log p(y | μ) + √Σ·z, or ε − s·√(1 − ᾱ_t)·∇ log p(y | x_t)",
        conventions=tuple(guided),
    )


class Measured(NamedTuple):
    """A step guided by a classifier, at each of some t."""

    at: dict[int, Affine]
    place: dict[int, tuple[float, float]]  # of x_0 and ε, in what the gradient was asked at
    broken: list[int]


def _by_classifier(
    stranger: Stranger, betas: Tensor | None, predicts: str, begin: float
) -> Finding:
    if betas is None:
        raise CannotCheck(
            f"{stranger.name} is no guidance by (model, x, t, label, scale); of a step with a "
            "classifier's gradient, give betas too"
        )
    process = Process(torch.as_tensor(betas, dtype=torch.float64))
    role = _role(predicts)
    order, kind = _order(stranger, process, role)
    scale = 2.5 if "scale" in order else 1.0
    T = process.T
    knows = _known(stranger, order, kind, process, role, T, 1, scale)
    base = 1 if knows is not None and knows[0] is not None else 0
    steps = [
        i for i in sorted({1, 2, T // 4, T // 2, 3 * T // 4, T - 2, T - 1, T}) if i + 1 - base <= T
    ]
    steps = [0, *steps] if base == 0 else steps
    found = Measured({}, {}, [])
    for i in steps:
        one = _known(stranger, order, kind, process, role, i, base, scale)
        if one is None:
            continue
        if one[0] is None:
            found.broken.append(i)
            continue
        found.at[i], found.place[i] = one[0], one[1]
    evidence = weigh(role, found.at, process, base, f"called with ({', '.join(order)})", order)
    others = list(evidence.others)
    is_eps = evidence.explained is not None and "guided ε" in evidence.explained.convention.name
    where = _where(found.place, process, base)
    if is_eps and where != "x_t":
        others.append(("gradient elsewhere", f"the gradient is taken at {where}, not at x_t"))
    elif not is_eps and where != "the mean":
        key = "gradient at x_t" if where == "x_t" else "gradient elsewhere"
        others.append((key, f"the gradient is taken at {where}, not at the mean of x_{{t−1}}"))
    if found.broken:
        words = f"NaN or infinity at t = {', '.join(str(i + 1 - base) for i in found.broken)}"
        others.insert(0, ("not finite", words))
    if is_eps:
        others = [o for o in others if o[0] != "noise at the end"]
    evidence = evidence._replace(others=tuple(others))
    said = finding(stranger, role, evidence, process, begin)
    return said


def _order(
    stranger: Stranger, process: Process, role: Role
) -> tuple[tuple[str, ...], type[Gradient]]:
    parameters = stranger.parameters()
    least = sum(p.default is p.empty for p in parameters)
    said = ""
    for kind in (Gradient, LogProbability):
        for k in range(max(least, 4), min(len(parameters), 5) + 1)[::-1]:
            for order in _orders(("model", "gradient", "x_t", "t", "scale")[:k]):
                try:
                    one = _at(stranger, order, kind, process, role, process.T // 2, 1, 2.5)
                except Exception as error:
                    said = said or f"{type(error).__name__}: {error}"
                    continue
                if one is not None:
                    return order, kind
    names = ", ".join(p.name for p in parameters)
    raise CannotCheck(
        f"{stranger.name} worked neither as (model, x, t, label, scale) nor as (model, gradient, "
        f"x, t, scale); it takes ({names}): give the rest by name, as in "
        f"given={{{(parameters[-1].name if parameters else 'scale')!r}: ...}}; {said}"
    )


def _known(
    stranger: Stranger,
    order: tuple[str, ...],
    kind: type[Gradient],
    process: Process,
    role: Role,
    i: int,
    base: int,
    scale: float,
) -> tuple[Affine | None, tuple[float, float]] | None:
    """The same as `_at`; None too where it fails, as for a t that is not in its tables."""
    try:
        return _at(stranger, order, kind, process, role, i, base, scale)
    except Exception:
        return None


def _at(
    stranger: Stranger,
    order: tuple[str, ...],
    kind: type[Gradient],
    process: Process,
    role: Role,
    i: int,
    base: int,
    scale: float,
) -> tuple[Affine | None, tuple[float, float]] | None:
    """Coefficients at the person's step i, and where the gradient was asked.

    None where it knows no such step; with no coefficients where the result is not finite.
    """
    t = i + 1 - base
    if not 1 <= t <= process.T:
        return None
    n, generator = 256, torch.Generator().manual_seed(i)
    supply: Supply = role.supply(process, t, n, (3,), generator)
    answer = torch.randn((n, 3), generator=generator)
    gradient = kind(answer)
    model = Answering(supply.slots["answer"])
    values = {**supply.slots, "model": model, "gradient": gradient, "scale": scale}
    values["t"] = torch.full((n,), i)
    terms = {**supply.terms, GRADIENT: scale * answer}

    def call() -> Tensor:
        results = stranger(*(values[name] for name in order))
        if not model.asked or not gradient.asked:
            raise _Refused("the model or the gradient was not asked")
        return next(r for r in results if r.shape == (n, 3) and r.is_floating_point())

    try:
        with seeded(17 + i):
            one = measure(call, terms)
    except NotFinite:
        return None, (0.0, 0.0)
    place = gradient.asked[0].double().reshape(-1)
    columns = torch.stack([v.double().reshape(-1) for v in supply.terms.values()], 1)
    made = torch.linalg.lstsq(columns, place[:, None]).solution[:, 0]
    return one, (made[0].item(), made[1].item())


def _where(place: Mapping[int, tuple[float, float]], process: Process, base: int) -> str:
    """Where the gradient was asked: "x_t", "the mean", or neither."""
    index = torch.tensor(list(place))
    t = index + 1 - base
    # At t = 1 the mean is x_0 itself, of which rounding leaves less.
    kept = F(alpha=0.5, noise=-0.5, before={"noise": 1}).at(process, t)
    mean = torch.stack([F(before={"abar": 0.5}).at(process, t), kept], 1)
    x_t = torch.stack([F(abar=0.5).at(process, t), F(noise=0.5).at(process, t)], 1)
    made = torch.tensor(list(place.values()), dtype=torch.float64)
    off = {
        name: (made - other).abs().max().item()
        for name, other in (("x_t", x_t), ("the mean", mean))
    }
    least = min(off, key=lambda name: off[name])
    return least if off[least] < 2e-3 else "another place"
