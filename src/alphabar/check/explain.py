"""Which formulas explain what was measured: the law itself, another convention, or a bug."""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from alphabar.check.chance import FAR
from alphabar.check.formula import Base, Edit, Formula, Process, edits

SINGLE = 2.0**-24  # rounding of numbers in single precision


class Convention(NamedTuple):
    """One of the usual ways to be right; or to be wrong as a whole."""

    name: str
    formulas: Mapping[str, Formula]  # of each coefficient
    is_usual: bool = True  # else it is `equivalent`
    wrong: str = ""  # what is wrong with all of it, if it is
    is_chain: bool = False  # whether t steps are made, one after the other, from t = 0
    least: float = 0.0  # the noise that a straight flow ends at


class Series(NamedTuple):
    """A coefficient, measured at each t."""

    values: Float64[Tensor, " n"]
    errors: Float64[Tensor, " n"]  # standard errors


class Part(NamedTuple):
    """What explains one coefficient."""

    name: str
    right: Formula
    found: Edit | None  # None: the law
    misfit: float  # largest relative deviation


class Explanation(NamedTuple):
    """What explains all coefficients together."""

    convention: Convention
    base: int  # what the person's code calls the first noisy level
    parts: tuple[Part, ...]
    cost: float

    @property
    def is_right(self) -> bool:
        """Whether nothing is wrong."""
        return not self.convention.wrong and not self.wrong

    @property
    def wrong(self) -> tuple[Part, ...]:
        """The coefficients that are not what they should be."""
        return tuple(part for part in self.parts if part.found is not None)


def explain(
    measured: Mapping[str, Series],
    index: Int64[Tensor, " n"],
    conventions: Sequence[Convention],
    bases: Sequence[int],
    process: Process,
    by_way_of_x_0: bool = False,
    eps: float = SINGLE,
    loose: float = 0.0,
) -> list[Explanation]:
    """All that explains every coefficient at every step, the least far-fetched first.

    Args:
        measured: each coefficient.
        index: the person's number of each step.
        conventions: ways to be right.
        bases: what the first noisy level may be called, 0 or 1.
        process: what the person has stated.
        by_way_of_x_0: whether the coefficients may be sums, by way of the posterior's mean, which
            loses more digits.
        eps: rounding of the numbers that the person's code works with.
        loose: what any coefficient may be off by, as a share of it, beside that.
    """
    found = []
    for convention in conventions:
        for base in bases:
            t = index + 1 - base
            lost = _lost(process, t, eps) if by_way_of_x_0 else torch.zeros(len(t)).double()
            # ε comes with x_t, and is lost with it.
            sigma = process.log(Base("noise"), t).mul(0.5).exp().nan_to_num(nan=1.0)
            parts: list[Part] = []
            for name, right in convention.formulas.items():
                series = measured[name]
                shares = {"ε": sigma, "z": torch.zeros_like(sigma)}
                floor = lost * shares.get(name, torch.ones_like(sigma))
                if convention.is_chain:
                    kept = _used(parts[0]) if parts else None
                    part = _best_chain(name, right, kept, series, t, process)
                else:
                    part = _best(name, right, series, t, process, eps, floor, loose)
                if part is None:
                    break
                parts.append(part)
            else:
                cost = sum(p.found.cost for p in parts if p.found is not None)
                cost += 1.0 if convention.wrong else 0.0 if convention.is_usual else 0.1
                found.append(Explanation(convention, base, tuple(parts), cost))
    return sorted(found, key=lambda e: e.cost)


def _best(
    name: str,
    right: Formula,
    series: Series,
    t: Int64[Tensor, " n"],
    process: Process,
    eps: float,
    floor: Float64[Tensor, " n"],
    loose: float,
) -> Part | None:
    """The least change of the formula that fits; None if none does."""
    tried = _tried(right)
    predicted, rounded = tried.at(process, t, eps)
    apart = (series.values - predicted).abs()
    rounded = torch.where(predicted == 0, 0.0, (loose + rounded) * predicted.abs())
    within = apart <= FAR * series.errors + rounded + floor + 200 * eps
    # A formula of a step that there is not says nothing, but it must say something of most.
    known = predicted.isfinite()
    fits = (within | ~known).all(1) & (known.sum(1) >= max(1, len(t) - 1))
    if not fits.any():
        return None
    i = int(fits.to(torch.uint8).argmax())  # the first
    told = known[i] & series.errors.isfinite() & (predicted[i] != 0)
    misfit = (apart[i] / predicted[i].abs())[told].max().item() if told.any() else 0.0
    return Part(name, right, tried.edits[i], misfit)


def _used(part: Part) -> Formula:
    return part.right if part.found is None else part.found.formula


def _best_chain(
    name: str,
    right: Formula,
    kept: Formula | None,
    series: Series,
    t: Int64[Tensor, " n"],
    process: Process,
) -> Part | None:
    """The same for what t steps make of one: of x_0 the product, of the noise the root of a sum.

    x_t = Π a_i·x_0 + √(Σ_i b_i²·Π_{j>i} a_j²)·z
    """
    every = torch.arange(1, process.T + 1)
    a = None if kept is None else kept.at(process, every)
    for edit in (None, *_ordered(right)):
        each = (right if edit is None else edit.formula).at(process, every)
        if a is None:
            whole = each.cumprod(0)
        else:
            # v_t = a_t²·v_{t−1} + b_t², as a_T may be 0.
            variance, total = [], 0.0
            for keep, add in zip(a.square().tolist(), each.square().tolist(), strict=True):
                total = keep * total + add
                variance.append(total)
            whole = torch.tensor(variance, dtype=torch.float64).sqrt()
        found = torch.cat([torch.tensor([1.0 if a is None else 0.0]).double(), whole])[t]
        apart = (series.values - found).abs()
        if (apart <= FAR * series.errors + 1e-3 * found.abs() + 1e-6).all():
            known = found != 0
            misfit = (apart / found.abs())[known].max().item() if known.any() else 0.0
            return Part(name, right, edit, misfit)
    return None


@lru_cache(maxsize=256)
def _ordered(right: Formula) -> tuple[Edit, ...]:
    """One change, and two at once, the least far-fetched first."""
    once: dict[Formula, tuple[float, Edit]] = {}
    for edit in edits(right):
        if edit.formula != right and edit.cost < once.get(edit.formula, (math.inf, edit))[0]:
            once[edit.formula] = (edit.cost, edit)
    twice: dict[Formula, tuple[float, Edit]] = {}
    for _, first in once.values():
        for second in edits(first.formula):
            cost = first.cost + second.cost + 0.5
            if second.formula == right or second.formula in once:
                continue
            if cost < twice.get(second.formula, (math.inf, second))[0]:
                kind = f"{first.kind}; {second.kind}"
                says = f"{first.says}, and {second.says}"
                twice[second.formula] = (cost, Edit(second.formula, kind, says, cost))
    return tuple(sorted((e for _, e in (*once.values(), *twice.values())), key=lambda e: e.cost))


def _lost(process: Process, t: Int64[Tensor, " n"], eps: float) -> Float64[Tensor, " n"]:
    """What β_t/(1 − ᾱ_t) loses, and with it the posterior's mean: much, near the data."""
    beta, noise = (process.log(Base(name), t).exp() for name in ("beta", "noise"))
    lost = 2 * eps * (1 + process.time(t).double().sqrt()) * beta / noise.square()
    return lost.nan_to_num(nan=0.0)  # of a step towards noise


class _Tried(NamedTuple):
    """The law and all its changes, as a table of powers: one product gives the value of each."""

    edits: tuple[Edit | None, ...]  # None: the law
    bases: tuple[Base, ...]
    powers: Float64[Tensor, "m bases"]
    factors: Float64[Tensor, " m"]

    def at(
        self, process: Process, t: Int64[Tensor, " n"], eps: float
    ) -> tuple[Float64[Tensor, "m n"], Float64[Tensor, "m n"]]:
        """The value of each at every t, and how far, relatively, rounding may have put it off.

        ᾱ_t as a running product is off by about √t·eps, and so is 1 − ᾱ_t, which may be far less.
        """
        logs = torch.stack([process.log(base, t) for base in self.bases])
        far = logs.nan_to_num(nan=0.0, neginf=-1e5, posinf=1e5)
        values = self.factors[:, None] * (self.powers @ far).exp()
        unknown = (self.powers != 0).double() @ logs.isnan().double() > 0
        drift = (4 * eps * (1 + process.time(t).double().sqrt())).expand(len(self.bases), len(t))
        small = torch.tensor([base.name in ("noise", "beta") for base in self.bases])[:, None]
        drift = torch.where(small, drift / far.exp().clamp(1e-300), drift)
        return values.masked_fill(unknown, math.nan), 30 * eps + self.powers.abs() @ drift


@lru_cache(maxsize=256)
def _tried(right: Formula) -> _Tried:
    edits_ = (None, *_ordered(right))
    formulas = [right if edit is None else edit.formula for edit in edits_]
    bases = sorted({base for formula in formulas for base, _ in formula.powers})
    powers = torch.zeros(len(formulas), len(bases), dtype=torch.float64)
    for i, formula in enumerate(formulas):
        for base, power in formula.powers:
            powers[i, bases.index(base)] = power
    factors = torch.tensor([formula.factor for formula in formulas], dtype=torch.float64)
    return _Tried(edits_, tuple(bases), powers, factors)
