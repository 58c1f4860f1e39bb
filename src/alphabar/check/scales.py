"""What the label of a level means: x = α·x_0 + σ·ε, by a table's index, by σ, or by a flow's time.

table  α = √ᾱ_t, σ = √(1 − ᾱ_t)        variance exploding  α = 1, σ = label
flow   α = 1 − label, σ = label         or the other way round
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from alphabar.check.explain import Convention
from alphabar.check.formula import Base, Formula, Process
from alphabar.check.linear import NOISE, Role

F = Formula.of


# (1 − τ) = √ᾱ/(√ᾱ + √(1 − ᾱ)) at the same ratio of signal to noise.
_TO_FLOW = F(before={"abar": -0.5, "signal": 1.0})
_STRAIGHT = (
    "of a true x_0 and ε the step makes (1 − τ_{t−1})·x_0 + τ_{t−1}·ε, with τ from 0, data, to 1"
)
_EXPLODING = "of a true x_0 and ε the step makes N(x_0, σ_{t−1}²·I), σ² = (1 − ᾱ)/ᾱ"


class Scale(NamedTuple):
    """A way to name levels, and the size of a state at each.

    Args:
        name: of the way.
        level: α and σ of a label.
        factors: what the variance-preserving coefficients are multiplied by, at the place −1.
        table: where labels are indices of a table; None elsewhere.
        base: what the table's first noisy level is called.
    """

    name: str
    level: Callable[[float], tuple[float, float]]
    factors: Formula
    table: Process | None = None
    base: int = 0

    @property
    def is_flow(self) -> bool:
        """Whether data and noise are mixed as 1 − τ and τ."""
        return self.factors == _TO_FLOW

    def log_snr(self, label: float) -> float:
        """log(α²/σ²)."""
        alpha, sigma = self.level(label)
        if sigma <= 0:
            return math.inf
        return 2 * math.log(alpha / sigma) if alpha > 0 else -math.inf

    def t(self, label: float) -> float:
        """The step of the table."""
        return label + 1 - self.base

    def of(self, law: Convention) -> Convention:
        """A variance-preserving law in this scale."""
        if not self.factors.powers:
            return law
        scaled = {name: _times(f, self.factors) for name, f in law.formulas.items()}
        if not self.is_flow:
            return law._replace(formulas=scaled)
        name = "Euler's step of the flow" if law.name == "DDIM" else law.name
        return law._replace(name=name, formulas={k: _in_time(f) for k, f in scaled.items()})

    def role(self, role: Role) -> Role:
        """What a function of this role is to do in this scale; a flow moves without noise first."""
        laws = [self.of(c) for c in role.conventions]
        if self.is_flow:
            laws.sort(key=lambda law: law.formulas[NOISE].factor != 0)
        said = _STRAIGHT if self.is_flow else role.law if self.table else _EXPLODING
        return role._replace(law=said, conventions=tuple(laws))


def table(process: Process, base: int, by_log: bool = False) -> Scale:
    """Indices of a table of ᾱ; between them σ/α, or its logarithm, is a straight line."""
    abar = process.alpha_bar(torch.arange(process.T + 1))
    ratio = ((1 - abar) / abar).sqrt()

    def level(label: float) -> tuple[float, float]:
        t = min(max(label + 1 - base, 0.0), float(process.T))
        below = min(int(t), process.T - 1)
        if t == int(t):
            here = abar[int(t)].item()
            return math.sqrt(here), math.sqrt(1 - here)
        low, high = ratio[below].item(), ratio[below + 1].item()
        share = t - below
        is_log = by_log and low > 0
        sigma = low ** (1 - share) * high**share if is_log else low + share * (high - low)
        return 1 / math.hypot(1, sigma), sigma / math.hypot(1, sigma)

    return Scale("variance-preserving", level, F(), process, base)


def between(scale: Scale) -> Scale:
    """The same table, where the labels between its indices are those of log σ."""
    assert scale.table is not None
    return table(scale.table, scale.base, by_log=True)


EXPLODING = Scale("variance-exploding", lambda sigma: (1.0, sigma), F(before={"abar": -0.5}))
FLOW = Scale("flow, t = 0 data", lambda t: (1 - t, t), _TO_FLOW)
FLOW_UP = Scale("flow, t = 1 data", lambda t: (t, 1 - t), _TO_FLOW)


def _times(one: Formula, other: Formula) -> Formula:
    powers: dict[Base, float] = dict(one.powers)
    for base, power in other.powers:
        powers[base] = powers.get(base, 0.0) + power
    return Formula.made(one.factor * other.factor, powers)


def _in_time(one: Formula) -> Formula:
    """The same by the time of a flow: 1 − ᾱ = ᾱ·τ²/(1 − τ)², and 1 − β_t = ᾱ_t/ᾱ_{t−1}."""
    powers: dict[Base, float] = {}
    for base, p in one.powers:
        parts = {base: p}
        if base.name == "noise":
            parts = {
                Base("abar", base.shift): p,
                Base("spread", base.shift): 2 * p,
                Base("signal", base.shift): -2 * p,
            }
        elif base.name == "alpha":
            parts = {Base("abar", base.shift): p, Base("abar", base.shift - 1): -p}
        for part, power in parts.items():
            powers[part] = powers.get(part, 0.0) + power
    return Formula.made(one.factor, powers)


def answer(
    predicts: str, x_0: Tensor, eps: Tensor, alpha: float, sigma: float, up: bool = False
) -> Tensor:
    """What a model says that predicts this."""
    if predicts == "eps":
        return eps
    if predicts == "x_0":
        return x_0
    if predicts == "v":
        return alpha * eps - sigma * x_0
    if predicts == "score":
        return -eps / max(sigma, 1e-12)
    return x_0 - eps if up else eps - x_0  # flow


PREDICTIONS = ("eps", "x_0", "v", "score", "flow")
