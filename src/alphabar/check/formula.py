"""A coefficient as a formula in β_t and ᾱ_t, and what it becomes when one thing in it is wrong.

Every coefficient of a diffusion process is a product of powers,

    c·Π_i b_i^(p_i)        b_i among ᾱ_t, 1 − ᾱ_t, α_t = 1 − β_t, β_t, and the same one step before

and nearly every slip of the hand is a small change of that product: a root forgotten, a factor
dropped, β_t for 1 − ᾱ_t, an index off by one. So the ways to be wrong need not be listed: they are
made, by `edits`, from the formula that is right, and each predicts a number for every t.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

# What belongs to one step t: with a place for the step.
_BASES = {
    "abar": "ᾱ_{}",
    "noise": "(1 − ᾱ_{})",
    "alpha": "(1 − β_{})",
    "beta": "β_{}",
    "sum": "Σβ_{}",
}
# What each is mistaken for: the total for the single step, and what is kept for what is lost.
_RELATIVES = {
    "abar": ("alpha", "noise"),
    "noise": ("beta", "abar", "sum"),
    "alpha": ("abar", "beta"),
    "beta": ("noise", "alpha"),
    "sum": ("noise",),
}
SHIFTS = {0: "t", -1: "t−1", 1: "t+1", -2: "t−2", 2: "t+2"}


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
        # At t = 0: ᾱ = 1, and neither noise nor a step.
        clean = {"abar": 0.0, "noise": -math.inf, "alpha": 0.0, "beta": -math.inf, "sum": -math.inf}
        return {
            name: torch.cat([torch.tensor([clean[name]], dtype=torch.float64), values])
            for name, values in logs.items()
        }

    def alpha_bar(self, t: Int64[Tensor, " n"]) -> Float64[Tensor, " n"]:
        """ᾱ_t."""
        return self._logs["abar"][t].exp()

    def time(self, t: Int64[Tensor, " n"]) -> Int64[Tensor, " n"]:
        """How many steps of the process lie before each level."""
        return t

    def is_last(self, t: Int64[Tensor, " n"]) -> Bool[Tensor, " n"]:
        """Whether the step from t back is the last one, to clean data."""
        return t == 1

    def log(self, base: Base, t: Int64[Tensor, " n"]) -> Float64[Tensor, " n"]:
        """log b at each t; NaN where the step does not exist."""
        at = t + base.shift
        inside = (at >= 0) & (at <= self.T)
        return torch.where(inside, self._logs[base.name][at.clamp(0, self.T)], math.nan)


@dataclass(frozen=True, eq=False)
class Path(Process):
    """Steps from t_k to s_k, k = 1..K, of a process that may skip levels: with its own β_k.

        1 − β_k = ᾱ_{t_k}/ᾱ_{s_k}

    At a place of −1 is the level s_k; other levels are not on the path.
    """

    t: Int64[Tensor, " K"]
    s: Int64[Tensor, " K"]

    @property
    def T(self) -> int:
        """How many steps."""
        return len(self.t)

    def time(self, t: Int64[Tensor, " n"]) -> Int64[Tensor, " n"]:
        """How many steps of the process lie before each level."""
        return self.t[t - 1]

    def is_last(self, t: Int64[Tensor, " n"]) -> Bool[Tensor, " n"]:
        """Whether the step is the last of the path."""
        return t == self.T

    def log(self, base: Base, t: Int64[Tensor, " n"]) -> Float64[Tensor, " n"]:
        """log b at each k; NaN where the path has no such level."""
        step = t - 1
        if base.shift == 0 and base.name in ("alpha", "beta"):
            abar = self._logs["abar"]
            log_alpha = abar[self.t[step]] - abar[self.s[step]]
            return log_alpha if base.name == "alpha" else torch.log(-torch.expm1(log_alpha))
        if base.shift not in (0, -1) or base.name in ("alpha", "beta", "sum"):
            return torch.full((len(t),), math.nan, dtype=torch.float64)
        at = (self.s if base.shift else self.t)[step]
        return self._logs[base.name][at]


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
    for name in _BASES:
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
