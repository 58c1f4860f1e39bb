"""DPM-Solver++ (2M): second order from one call a step, by remembering the last x̂_0.

    x_s = (σ_s/σ_t)·x_t − α_s·(e^(−h) − 1)·D,    D = x̂_0 + (x̂_0 − previous)·h/(2·h_previous)

with h half the gain of log-SNR from t to s. Lu et al. 2022, *DPM-Solver++*, algorithm 2.
"""

from dataclasses import dataclass

import torch

from alphabar.samplers.base import SAMPLERS, Move
from alphabar.schedule import Schedule
from alphabar.spec import Named


@dataclass(frozen=True)
class DPMpp2M(Named):
    """The sampler above. First order at its first step, and at its last, which ends at σ = 0."""

    def moves(self, schedule: Schedule) -> list[Move]:
        """The moves T → … → 0; the last lands on x̂_0."""
        alpha, sigma = schedule.alpha.flip(0), schedule.sigma.flip(0)
        h = schedule.log_snr.flip(0).diff() / 2  # inf in the last step, and the first if ᾱ_T = 0
        a = sigma[1:] / sigma[:-1]
        b = -alpha[1:] * torch.expm1(-h)
        # h/(2·h_previous), and 0 where there is nothing to extrapolate from or to.
        slope = torch.zeros_like(h)
        slope[1:] = h[1:] / (2 * h[:-1])
        slope[-1] = 0
        return [
            Move(a_i, b_i * (1 + k), (-b_i * k,), 0.0)
            for a_i, b_i, k in torch.stack([a, b, slope], 1).tolist()
        ]


@SAMPLERS.entry()
def dpmpp_2m() -> DPMpp2M:
    """Second-order multistep DPM-Solver++, one network call a step (Lu et al. 2022)."""
    return DPMpp2M()
