"""A coefficient as a formula in β_t and ᾱ_t, and what it becomes when one thing in it is wrong.

Every coefficient of a diffusion process is a product of powers,

    c·Π_i b_i^(p_i)        b_i among ᾱ_t, 1 − ᾱ_t, α_t = 1 − β_t, β_t, and the same one step before
                           (of a straight flow 1 − τ and τ, its time from data to noise)

and nearly every slip of the hand is a small change of that product: a root forgotten, a factor
dropped, β_t for 1 − ᾱ_t, an index off by one. So the ways to be wrong need not be listed: they are
made, by `edits`, from the formula that is right, and each predicts a number for every t.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor
from torch.nn.functional import logsigmoid

# What belongs to one step t: with a place for the step.
_BASES = {
    "abar": "ᾱ_{}",
    "noise": "(1 − ᾱ_{})",
    "alpha": "(1 − β_{})",
    "beta": "β_{}",
    "sum": "Σβ_{}",
    "signal": "(1 − τ_{})",
    "spread": "τ_{}",
}
# What each is mistaken for: the total for the single step, and what is kept for what is lost.
_RELATIVES = {
    "abar": ("alpha", "noise"),
    "noise": ("beta", "abar", "sum"),
    "alpha": ("abar", "beta"),
    "beta": ("noise", "alpha"),
    "sum": ("noise",),
    "signal": ("spread",),
    "spread": ("signal",),
}
SHIFTS = {0: "t", -1: "{t−1}", 1: "{t+1}", -2: "{t−2}", 2: "{t+2}"}


class Base(NamedTuple):
    """One of the numbers above, at a step: `Base("abar", -1)` is ᾱ_{t−1}."""

    name: str
    shift: int = 0

    def __str__(self) -> str:
        return _BASES[self.name].format(SHIFTS[self.shift])


class Formula(NamedTuple):
    """c·Π b^p; `Formula.of(beta=0.5)` is √β_t. A factor of 0 is a term that is missing."""

    factor: float
    powers: tuple[tuple[Base, float], ...]

    @classmethod
    def of(
        cls, factor: float = 1.0, before: Mapping[str, float] | None = None, **now: float
    ) -> "Formula":
        """From the powers of numbers at t, and of numbers one step `before`."""
        powers = {Base(name): p for name, p in now.items()}
        powers |= {Base(name, -1): p for name, p in (before or {}).items()}
        return cls.made(factor, powers)

    @classmethod
    def made(cls, factor: float, powers: Mapping[Base, float]) -> "Formula":
        """With powers of 0 left out, in an order that makes equal formulas equal."""
        return cls(factor, tuple(sorted((b, p) for b, p in powers.items() if p)))

    def at(self, process: "Process", t: Int64[Tensor, " n"]) -> Float64[Tensor, " n"]:
        """Its value at each t."""
        total = torch.zeros(len(t), dtype=torch.float64)
        for base, power in self.powers:
            total = total + power * process.log(base, t)
        return self.factor * total.exp()

    def shifted(self, by: int) -> "Formula":
        """The same, of another step."""
        return Formula.made(
            self.factor, {b._replace(shift=b.shift + by): p for b, p in self.powers}
        )

    def __str__(self) -> str:
        if self.factor == 0:
            return "0"
        above = [_power(b, p) for b, p in self.powers if p > 0]
        below = [_power(b, -p) for b, p in self.powers if p < 0]
        size = abs(self.factor)
        if size != 1 or not above:
            above.insert(0, f"{size:g}")
        text = "·".join(above)
        if below:
            text += "/" + (below[0] if len(below) == 1 else f"({'·'.join(below)})")
        return "−" * (self.factor < 0) + text


def _power(base: Base, power: float) -> str:
    text = str(base)
    if power == 0.5:
        return "√" + text
    return text if power == 1 else f"{text}^{power:g}"


@dataclass(frozen=True, eq=False)
class Process:
    """β_t for t = 1..T, as a person has stated them, and what follows; float64."""

    beta: Float64[Tensor, " T"]
    has_table: ClassVar[bool] = True  # of ᾱ by t, which may be misread

    @property
    def T(self) -> int:
        """How many steps."""
        return len(self.beta)

    @cached_property
    def _logs(self) -> dict[str, Float64[Tensor, " levels"]]:
        """Logarithms for t = 0..T, where they have one."""
        log_alpha = torch.log1p(-self.beta)
        log_abar = log_alpha.cumsum(0)
        logs = {
            "abar": log_abar,
            "noise": torch.log(-torch.expm1(log_abar)),
            "alpha": log_alpha,
            "beta": self.beta.log(),
            "sum": self.beta.cumsum(0).log(),
        }
        log_snr = logs["abar"] - logs["noise"]
        logs["signal"], logs["spread"] = logsigmoid(0.5 * log_snr), logsigmoid(-0.5 * log_snr)
        # At t = 0: ᾱ = 1, and neither noise nor a step.
        clean = {name: 0.0 if name in ("abar", "alpha", "signal") else -math.inf for name in logs}
        return {
            name: torch.cat([torch.tensor([clean[name]], dtype=torch.float64), values])
            for name, values in logs.items()
        }

    def alpha_bar(self, t: Int64[Tensor, " n"]) -> Float64[Tensor, " n"]:
        """ᾱ_t."""
        return self._logs["abar"][t].exp()

    def labels(self, i: int, n: int) -> Tensor:
        """The person's step i, as it is handed over for n items."""
        return torch.full((n,), i)

    def time(self, t: Int64[Tensor, " n"]) -> Tensor:
        """How many steps of the process lie before each level."""
        return t

    def is_last(self, t: Int64[Tensor, " n"]) -> Bool[Tensor, " n"]:
        """Whether the step from t back is the last one, to clean data."""
        return t == 1

    def neighbours(self, t: Int64[Tensor, " n"]) -> dict[str, Float64[Tensor, " n"]]:
        """The logarithm of signal to noise at t, at s = t − 1, and one level beside them."""
        found = {}
        for name, by in (("t", 0), ("s", -1), ("s−1", -2), ("t+1", 1)):
            abar, noise = (self.log(Base(b, by), t) for b in ("abar", "noise"))
            found[name] = abar - noise
        return found

    def log(self, base: Base, t: Int64[Tensor, " n"]) -> Float64[Tensor, " n"]:
        """log b at each t; NaN where the step does not exist."""
        at = t + base.shift
        inside = (at >= 0) & (at <= self.T)
        return torch.where(inside, self._logs[base.name][at.clamp(0, self.T)], math.nan)


def process_of(betas: object) -> Process:
    """The process of β_1 … β_T that a person has stated.

    Raises:
        ValueError: they are none.
    """
    try:
        beta = torch.as_tensor(betas, dtype=torch.float64).detach().cpu()
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"betas is a {type(betas).__name__}: give the numbers β_1 … β_T") from None
    inside = beta.ndim == 1 and len(beta) > 0 and bool(((beta > 0) & (beta <= 1)).all())
    if not inside or not (beta[:-1] < 1).all():
        raise ValueError(
            f"betas has shape {tuple(beta.shape)}: give the numbers β_1 … β_T, each above "
            "0 and below 1; only the last may be 1"
        )
    return Process(beta)


@dataclass(frozen=True, eq=False)
class Misread(Process):
    """The same table of β_t, where the code takes ᾱ from other places: from `now[t]` and
    `before[t]`, in place of t and t − 1.
    """

    now: Int64[Tensor, " levels"]
    before: Int64[Tensor, " levels"]

    def log(self, base: Base, t: Int64[Tensor, " n"]) -> Float64[Tensor, " n"]:
        """log b at each t, as the code has it."""
        if base.name in ("abar", "noise") and base.shift in (0, -1):
            places = self.before if base.shift else self.now
            return self._logs[base.name][places[t]]
        return super().log(base, t)


def misread(process: Process) -> Mapping[str, Misread]:
    """The usual ways to misread a table of ᾱ, by their kind."""
    t = torch.arange(process.T + 1)
    to = (t - 1).clamp(0)

    def changed(at: int, level: int) -> Int64[Tensor, " levels"]:
        other = to.clone()
        other[at] = level
        return other

    padded = t.clone()
    padded[-1] = 0
    return {
        "padded right": Misread(process.beta, t, padded),
        "next for previous": Misread(process.beta, t, torch.cat([t[1:], t[:1]])),
        "keeps clean": Misread(process.beta, to, (t - 2).clamp(0)),
        "end": Misread(process.beta, t, changed(1, 1)),
    }


@dataclass(frozen=True, eq=False)
class Moves(Process):
    """Moves from level t_k to level s_k, k = 1..K, each a logarithm of ᾱ/(1 − ᾱ), in any scale.

        1 − β_k = ᾱ_{t_k}/ᾱ_{s_k},    flow: signal = √ᾱ/(√ᾱ + √(1 − ᾱ)), spread = 1 − signal

    At a place of −1 is the level s_k; other levels are not on the way.
    """

    log_snr_t: Float64[Tensor, " K"]
    log_snr_s: Float64[Tensor, " K"]
    beside: Mapping[str, Float64[Tensor, " K"]] = field(default_factory=dict)  # by name
    steps: Float64[Tensor, " K"] | None = None  # of a table, that lie before t_k
    has_table: ClassVar[bool] = False

    def neighbours(self, t: Int64[Tensor, " n"]) -> dict[str, Float64[Tensor, " n"]]:
        """The logarithm of signal to noise at t, at s, and at the levels beside."""
        every = {"t": self.log_snr_t, "s": self.log_snr_s, **self.beside}
        return {name: values[t - 1] for name, values in every.items()}

    @classmethod
    def between(cls, log_snr_t: Sequence[float], log_snr_s: Sequence[float]) -> "Moves":
        """From logarithms of the ratio of signal to noise; clean data have inf."""
        t, s = (torch.tensor(list(v), dtype=torch.float64) for v in (log_snr_t, log_snr_s))
        return cls(torch.full((len(t),), math.nan, dtype=torch.float64), t, s)

    @property
    def T(self) -> int:
        """How many moves."""
        return len(self.log_snr_t)

    def alpha_bar(self, t: Int64[Tensor, " n"]) -> Float64[Tensor, " n"]:
        """ᾱ where the moves begin."""
        return self.log_snr_t[t - 1].sigmoid()

    def time(self, t: Int64[Tensor, " n"]) -> Tensor:
        """How many steps of a table lie before each level; none where there is no table."""
        return torch.zeros_like(t) if self.steps is None else self.steps[t - 1]

    def is_last(self, t: Int64[Tensor, " n"]) -> Bool[Tensor, " n"]:
        """Whether the move ends at clean data."""
        return self.log_snr_s[t - 1].isposinf()

    def log(self, base: Base, t: Int64[Tensor, " n"]) -> Float64[Tensor, " n"]:
        """log b at each k; NaN where there is no such level."""
        k = t - 1
        if base.shift not in (0, -1):
            return torch.full((len(t),), math.nan, dtype=torch.float64)
        log_snr = (self.log_snr_s if base.shift else self.log_snr_t)[k]
        size = {"abar": 1.0, "noise": -1.0, "signal": 0.5, "spread": -0.5}
        if base.name in size:
            return logsigmoid(size[base.name] * log_snr)
        if base.shift or base.name == "sum":
            return torch.full((len(t),), math.nan, dtype=torch.float64)
        log_alpha = logsigmoid(self.log_snr_t[k]) - logsigmoid(self.log_snr_s[k])
        return log_alpha if base.name == "alpha" else torch.log(-torch.expm1(log_alpha))


@dataclass(frozen=True, eq=False)
class Continuum(Moves):
    """Some levels of a process in continuous time, each by the number that the person gives it."""

    label: Float64[Tensor, " K"] = field(default_factory=lambda: torch.empty(0))

    @classmethod
    def at(cls, label: Float64[Tensor, " K"], log_snr: Float64[Tensor, " K"]) -> "Continuum":
        """From their labels and the logarithms of signal to noise."""
        none = torch.full_like(log_snr, math.nan)
        return cls(none, log_snr, none, label=label)

    def labels(self, i: int, n: int) -> Tensor:
        """The person's number of the level i, as it is handed over for n items."""
        label = self.label[i - 1].item()
        is_whole = bool((self.label == self.label.round()).all())
        return torch.full((n,), int(label) if is_whole else label)

    def is_last(self, t: Int64[Tensor, " n"]) -> Bool[Tensor, " n"]:
        """No level here is clean."""
        return torch.zeros(len(t), dtype=torch.bool)


class Edit(NamedTuple):
    """A change of a formula, what kind it is, in words, and how far-fetched it is."""

    formula: Formula
    kind: str
    says: str
    cost: float


def edits(right: Formula) -> Iterator[Edit]:
    """What a formula becomes when one thing in it is wrong."""
    powers = dict(right.powers)

    def changed(base: Base, power: float, other: Base | None = None) -> Formula:
        rest = {b: p for b, p in powers.items() if b != base}
        key = other or base
        return Formula.made(right.factor, rest | {key: rest.get(key, 0.0) + power})

    yield Edit(right._replace(factor=-right.factor), "sign", "its sign is flipped", 1)
    for base, p in right.powers:
        if abs(p) == 0.5:
            yield Edit(
                changed(base, 2 * p),
                f"no root of {base.name}",
                f"{base} stands where its root is meant",
                1,
            )
        else:
            yield Edit(
                changed(base, p / 2),
                f"root of {base.name}",
                f"the root of {base} stands where {base} is meant",
                1,
            )
            yield Edit(changed(base, 2 * p), f"square of {base.name}", f"{base} is squared", 1.5)
        yield Edit(
            changed(base, 0), f"no {base.name}", f"the factor {_power(base, p)} is missing", 1
        )
        yield Edit(
            changed(base, -p),
            f"inverse of {base.name}",
            f"{_power(base, abs(p))} is on the wrong side of the line",
            1.5,
        )
        for name in _RELATIVES[base.name]:
            other = base._replace(name=name)
            kind = f"{name} for {base.name}"
            yield Edit(changed(base, p, other), kind, f"{other} stands where {base} is meant", 1)
        for by in (-1, 1, 2):
            other = base._replace(shift=base.shift + by)
            if other.shift in SHIFTS:
                kind = f"{base.name} {by:+d}"
                yield Edit(
                    changed(base, p, other), kind, f"{other} stands where {base} is meant", 1
                )
    if len(right.powers) > 1:
        yield Edit(_all(right, 2), "square", "all of it is squared", 1.5)
        yield Edit(_all(right, 0.5), "root", "its root is taken", 1.5)
        for by in (-1, 1):
            if all(b.shift + by in SHIFTS for b, _ in right.powers):
                words = "one step late" if by < 0 else "one step early"
                yield Edit(right.shifted(by), f"all {by:+d}", f"all of it is {words}", 1)
    for size, words in ((2.0, "twice"), (0.5, "half")):
        yield Edit(
            right._replace(factor=size * right.factor),
            words,
            f"it is {words} what it should be",
            1.5,
        )
    if right.factor:
        yield Edit(Formula(0.0, ()), "missing", "it is missing", 1)
    if right.powers:
        yield Edit(
            Formula(right.factor, ()), "constant", f"it is {right.factor:g} whatever t is", 1.2
        )
    for name in ("abar", "noise", "alpha", "beta", "sum"):
        for p in (0.5, -0.5, 1.0, -1.0):
            base = Base(name)
            if base not in powers:
                more = Formula.made(right.factor, powers | {base: p})
                yield Edit(more, f"more {name}", f"a factor {_power(base, p)} is too many", 2)


def _all(right: Formula, power: float) -> Formula:
    return Formula.made(
        math.copysign(abs(right.factor) ** power, right.factor),
        {b: power * p for b, p in right.powers},
    )
