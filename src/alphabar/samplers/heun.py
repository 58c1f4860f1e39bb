"""Euler and Heun with churn, after EDM.

In y = x/α and ρ = σ/α the probability flow is dy/dρ = (y − x̂_0)/ρ. Euler follows its slope at t,

    y_s = y_t + (ρ_s − ρ_t)·(y_t − x̂_0)/ρ_t        (the same step as DDIM's, eta = 0)

and Heun the mean of the slopes at t and at the end of that step: two calls a step, and one in the
last. Karras et al. 2022, algorithms 1 and 2. Churn first raises the noise of x_t by fresh noise,
from ρ to (1 + γ)·ρ.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from alphabar.arguments import check_number
from alphabar.samplers.base import (
    SAMPLERS,
    LinearSampler,
    Mix,
    Move,
    gain,
    levels_of,
    scalars,
    steps_of,
)
from alphabar.schedule import Level


@dataclass(frozen=True)
class EDM(LinearSampler):
    """Euler's or Heun's method.

    Args:
        stages: 1 for Euler, 2 for Heun. Heun's step is Euler's where it ends at σ = 0, and where
            it starts from α = 0, ρ = inf.
        churn: S_churn, the total of γ over the steps; γ is √2 − 1 at most.
        low: S_tmin, the ρ below which nothing is churned.
        high: S_tmax, the ρ above which nothing is churned.
        inflate: S_noise, the scale of the churned noise.
    """

    stages: int
    churn: float
    low: float
    high: float
    inflate: float

    @property
    def order(self) -> int:
        """`stages` without noise."""
        return self.stages if self.churn == 0 else 0

    def moves(self, path: Level) -> list[Move]:
        """Lift the noise, ask, step; for Heun ask again at the step's end and step anew."""
        t, s = steps_of(path)
        gamma = self._gamma(t)
        lifted = Level(t.alpha, t.sigma * (1 + gamma))
        h = (s.log_snr - lifted.log_snr) / 2
        a, rest = s.sigma / lifted.sigma, gain(lifted, s)
        euler = [Mix(*row) for row in zip(scalars(a), scalars(rest), strict=True)]
        twice = [self.stages == 2 and known for known in h.isfinite().tolist()]
        half = torch.exp(torch.where(h.isfinite(), h, 0.0)) / 2  # ρ_t/(2·ρ_s)
        rows = zip(scalars(a), scalars(rest * half), scalars(rest * (1 - half)), strict=True)
        heun = [Mix(a_i, end, (start,)) for a_i, end, start in rows]
        noise = scalars(self.inflate * t.sigma * (gamma * (2 + gamma)).sqrt())
        from_, to, moves = levels_of(lifted), levels_of(s), []
        for i, churned in enumerate((gamma > 0).tolist()):
            if churned:
                moves.append(Move(None, Mix(1.0, 0.0, (), noise[i])))
            if twice[i]:
                moves.append(Move(from_[i], None, euler[i]))
                moves.append(Move(to[i], heun[i], reaches=i + 1))
            else:
                moves.append(Move(from_[i], euler[i], reaches=i + 1))
        return moves

    def _gamma(self, t: Level) -> Float64[Tensor, " n"]:
        rho = t.sigma / t.alpha
        inside = (self.low <= rho) & (rho <= self.high) & rho.isfinite()
        return inside.double() * min(self.churn / len(rho), math.sqrt(2) - 1)


def _edm(stages: int, churn: float, low: float, high: float, inflate: float) -> EDM:
    churn = check_number("churn", churn, 0, 1e6, "EDM's S_churn, 0 (none) or more, such as 40")
    low = check_number("low", low, 0, 1e30, "a noise level σ/α ≥ 0, such as 0.05")
    high = check_number("high", high, 0, 1e30, "a noise level σ/α ≥ 0, such as 50")
    inflate = check_number("inflate", inflate, 0.5, 2, "EDM's S_noise, 0.5 to 2, such as 1.003")
    if low > high:
        raise ValueError(f"low = {low:g} > high = {high:g}: noise is churned between the two")
    return EDM(stages, churn, low, high, inflate)


@SAMPLERS.entry()
def euler(churn: float = 0.0, low: float = 0.0, high: float = 1e30, inflate: float = 1.0) -> EDM:
    """Euler's method in σ/α, with EDM's churn (Karras et al. 2022); DDIM if churn = 0."""
    return _edm(1, churn, low, high, inflate)


@SAMPLERS.entry()
def heun(churn: float = 0.0, low: float = 0.0, high: float = 1e30, inflate: float = 1.0) -> EDM:
    """Heun's method in σ/α, with EDM's churn: two calls a step (Karras et al. 2022, alg. 2)."""
    return _edm(2, churn, low, high, inflate)
