"""Adams–Bashforth: earlier answers carry a polynomial in the noise scale σ/α.

    x_s = (σ_s/σ_t)·x_t + α_s·∫_0^h e^(−(h−w))·P(v(w)) dw,    v = (1 − e^(−w))/(1 − e^(−h))

P goes through x̂_0 at t, at the level before, …; v runs from 0 at t to 1 at s, evenly in ρ = σ/α,
and h is half the gain of log-SNR. DPM-Solver++ does the same with a polynomial in log ρ. Since ρ
takes ever shorter steps, this one extrapolates less: it is the calmer where steps are long.
Order 1 is DDIM. The weights are integrals of Lagrange's polynomials, as in Bashforth & Adams 1883;
for diffusion, in ε̂, see Zhang & Chen 2023 (*DEIS*).
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from alphabar.arguments import check_whole
from alphabar.samplers.base import (
    SAMPLERS,
    LinearSampler,
    Mix,
    Move,
    gain,
    one_call_a_step,
    steps_of,
)
from alphabar.samplers.multistep import mixes_of, polynomial_rows, start_made_good
from alphabar.schedule import Level

# Gauss–Legendre on [0, 1]: exact to rounding for steps of up to 30 in h, a factor of e^30 in σ/α.
_NODES, _WEIGHTS = (
    torch.from_numpy(v) for v in (np.polynomial.legendre.leggauss(64) * np.array([[0.5], [0.5]]))
)
_NODES = _NODES + 0.5


@dataclass(frozen=True)
class Adams(LinearSampler):
    """The sampler above; its first step is made good as in `start_made_good`.

    Args:
        history: 1 to 4, how many answers the polynomial goes through.
    """

    history: int

    @property
    def order(self) -> int:
        """`history`, but 3 at most: its start, two answers long, has no more."""
        return min(self.history, 3)

    def moves(self, path: Level) -> list[Move]:
        """One call a step; the step to σ = 0 lands on x̂_0."""
        a = path.sigma[1:] / path.sigma[:-1]
        mixes = mixes_of(a, self._rows(path, self.history), None)
        if self.history < 3:
            return one_call_a_step(path, mixes)

        def again(i: int) -> Mix:
            step = Level(path.alpha[i : i + 2], path.sigma[i : i + 2])
            return mixes_of(a[i : i + 1], self._rows(step, 1, ahead=True), None)[0]

        return start_made_good(path, mixes, again)

    def _rows(self, path: Level, order: int, ahead: bool = False) -> Float64[Tensor, "n count"]:
        h = path.log_snr.diff() / 2
        # The step to σ = 0 has no finite length, though ρ is 0 at its end.
        rho = torch.where(path.sigma > 0, path.sigma / path.alpha, math.inf)

        def integrals(steps: Tensor, count: int) -> Tensor:
            length = h[steps, None]
            w = length * _NODES
            kernel = path.alpha[1:][steps, None] * length * torch.exp(w - length) * _WEIGHTS
            v = torch.expm1(-w) / torch.expm1(-length)
            return torch.stack([(kernel * v**k).sum(1) for k in range(count)], 1)

        return polynomial_rows(rho, integrals, gain(*steps_of(path)), order, ahead)


@SAMPLERS.entry()
def adams(order: int = 3) -> Adams:
    """Adams–Bashforth: a polynomial in σ/α through the last answers, 1 to 4 of them."""
    return Adams(check_whole("order", order, 1, 4))
