"""DDIM: an exact deterministic or noisy step, if x̂_0 were right.

    x_s = α_s·x̂_0 + √(σ_s² − d²)·ε̂ + d·z,    ε̂ = (x_t − α_t·x̂_0)/σ_t,    d = eta·σ̃

with σ̃² the variance of the posterior q(x_s | x_t, x_0). Song, Meng, Ermon 2021, eq. (12) and (16).
eta = 0 is deterministic; eta = 1 is DDPM's ancestral step with variance β̃.
"""

from dataclasses import dataclass

import torch

from alphabar.checks import check_number
from alphabar.samplers.base import SAMPLERS, Move
from alphabar.schedule import Schedule
from alphabar.spec import Named


@dataclass(frozen=True)
class DDIM(Named):
    """The sampler above; order 1 for eta = 0."""

    eta: float

    def moves(self, schedule: Schedule) -> list[Move]:
        """The moves T → … → 0; the last lands on x̂_0, because σ_0 = 0."""
        alpha, sigma, log_snr = schedule.alpha, schedule.sigma, schedule.log_snr
        new = -torch.expm1(log_snr[1:] - log_snr[:-1])  # σ̃² = σ_s²·new, as in `posterior`
        a = sigma[:-1] * (1 - self.eta**2 * new).sqrt() / sigma[1:]
        b = alpha[:-1] - a * alpha[1:]
        d = self.eta * sigma[:-1] * new.sqrt()
        rows: list[list[float]] = torch.stack([a, b, d], 1).flip(0).tolist()
        return [Move(a_i, b_i, (), d_i) for a_i, b_i, d_i in rows]


@SAMPLERS.entry()
def ddim(eta: float = 0.0) -> DDIM:
    """Deterministic for eta = 0, the more noisy the closer eta is to 1 (Song et al. 2021)."""
    return DDIM(check_number("eta", eta, 0, 1, "0 ≤ eta ≤ 1"))


@SAMPLERS.entry()
def ddpm() -> DDIM:
    """The DDPM paper's ancestral sampling, with the posterior's variance β̃ (Ho et al. 2020)."""
    return DDIM(1.0)
