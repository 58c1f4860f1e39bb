"""DPM-Solver++: second and third order from one call a step, by remembering earlier answers.

    x_s = (σ_s/σ_t)·e^(−ηh)·x_t + α_s·Σ_j w_j·x̂_0(j calls ago) + σ_s·√(1 − e^(−2ηh))·z

(`multistep.py` says what h and η are.) With E = 1 − e^(−(1+η)h) and r = h_previous/h,

    2M: w = E·(1 + 1/(2r), −1/(2r))        Lu et al. 2022, algorithm 2; SDE: eq. (17)
    3M: w integrates the parabola through the last three answers

The published code of 3M (and of its SDE form) gives the parabola's last coefficient half its
weight, by which it converges with order 2 only; see `tests/test_parity.py`.
"""

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
    one_call_a_step,
    steps_of,
)
from alphabar.samplers.multistep import (
    counts,
    mixes_of,
    moments,
    polynomial_rows,
    start_made_good,
)
from alphabar.schedule import Level


@dataclass(frozen=True)
class DPMpp(LinearSampler):
    """The samplers above. Every one of them lands on x̂_0 in the step to σ = 0.

    A multistep method has no earlier answers at its start. 3M's first step is made twice: after
    the second answer it is made good with the line through both, at no further call. So it keeps
    its third order from the first step to the last.

    Args:
        history: 2 or 3, how many answers count.
        eta: 0 for the flow, 1 for the reverse SDE, or in between.
    """

    history: int
    eta: float = 0.0

    @property
    def order(self) -> int:
        """`history` without noise."""
        return self.history if self.eta == 0 else 0

    def moves(self, path: Level) -> list[Move]:
        """One call a step; the step to σ = 0 lands on x̂_0."""
        h = path.log_snr.diff() / 2
        a, d = path.sigma[1:] / path.sigma[:-1], None
        if self.eta:
            noisy = self.eta * h
            a, d = a * torch.exp(-noisy), path.sigma[1:] * (-torch.expm1(-2 * noisy)).sqrt()
        rows = self._differences(path) if self.history == 2 else self._rows(path, self.history)
        mixes = mixes_of(a, rows, d)
        if self.history == 2 or self.eta:  # noise caps the order anyway
            return one_call_a_step(path, mixes)

        def again(i: int) -> Mix:
            step = Level(path.alpha[i : i + 2], path.sigma[i : i + 2])
            return mixes_of(a[i : i + 1], self._rows(step, 1, ahead=True), None)[0]

        return start_made_good(path, mixes, again)

    def _alone(self, path: Level) -> Float64[Tensor, " n"]:
        if self.eta == 0:
            return gain(*steps_of(path))
        return -path.alpha[1:] * torch.expm1(-(1 + self.eta) * path.log_snr.diff() / 2)

    def _rows(self, path: Level, order: int, ahead: bool = False) -> Float64[Tensor, "n count"]:
        H = (1 + self.eta) * path.log_snr.diff() / 2

        def integrals(steps: Tensor, count: int) -> Tensor:
            return path.alpha[1:][steps, None] * moments(H[steps], count)

        return polynomial_rows(path.log_snr, integrals, self._alone(path), order, ahead)

    def _differences(self, path: Level) -> Float64[Tensor, "n 2"]:
        two = torch.tensor(counts(path.log_snr, 2)) == 2
        h = path.log_snr.diff()
        before = torch.cat([h[:1], h[:-1]])
        ratio = torch.where(two, h, 0.0) / torch.where(two, before, 1.0)
        alone = self._alone(path)
        slope = alone * ratio / 2
        return torch.stack([alone + slope, -slope], 1)


_ETA = "0 (no noise) ≤ eta ≤ 1 (the reverse SDE)"


@SAMPLERS.entry()
def dpmpp_2m() -> DPMpp:
    """Second-order multistep DPM-Solver++ (Lu et al. 2022)."""
    return DPMpp(2)


@SAMPLERS.entry()
def dpmpp_3m() -> DPMpp:
    """Third-order multistep DPM-Solver++, its start made good (Lu et al. 2022)."""
    return DPMpp(3)


@SAMPLERS.entry()
def dpmpp_2m_sde(eta: float = 1.0) -> DPMpp:
    """DPM-Solver++ 2M along the reverse SDE: fresh noise at each step (Lu et al. 2022)."""
    return DPMpp(2, check_number("eta", eta, 0, 1, _ETA))


@SAMPLERS.entry()
def dpmpp_3m_sde(eta: float = 1.0) -> DPMpp:
    """DPM-Solver++ 3M along the reverse SDE: fresh noise at each step."""
    return DPMpp(3, check_number("eta", eta, 0, 1, _ETA))
