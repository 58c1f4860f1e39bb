"""Langevin dynamics: noise and score in balance, at one level.

    x ← α·x̂_0 + e^(−k)·(x − α·x̂_0) + σ·√(1 − e^(−2k))·z

If x̂_0 did not depend on x, this would be the exact motion of dx = ∇log p·dτ + √2·dw for a time
k·σ²: it keeps N(α·x_0, σ²·I) whatever k is, where the usual step x + δ·∇log p + √(2δ)·z widens it
to σ²/(1 − k/2), δ = k·σ². To first order in k the two are the same.

Annealed Langevin does this at one level after the other (Song & Ermon 2019, algorithm 1); a
predictor–corrector sampler does it after each step of another method (Song et al. 2021, algorithm
1).
"""

import math
from dataclasses import dataclass

from alphabar.arguments import check_number, check_whole
from alphabar.samplers.base import (
    SAMPLERS,
    LinearSampler,
    Mix,
    Move,
    gain,
    levels_of,
    steps_of,
)
from alphabar.samplers.ddim import DDIM
from alphabar.schedule import Level


@dataclass(frozen=True)
class Langevin(LinearSampler):
    """Annealed Langevin: `corrections` steps at each level, then x·α_s/α_t at the next.

    The last answer is where it ends (Jolicoeur-Martineau et al. 2021): one more call.
    From α = 0, where nothing is left to scale, it goes on with Euler's step.

    Args:
        corrections: how many steps at a level.
        step: k.
    """

    corrections: int
    step: float

    @property
    def order(self) -> int:
        """0: it is made of noise."""
        return 0

    def moves(self, path: Level) -> list[Move]:
        """`corrections` calls a level, and one to end."""
        t, s = steps_of(path)
        rescale = [Mix(a, 0.0) for a in (s.alpha / t.alpha).tolist()]
        if t.alpha[0] == 0:
            rescale[0] = Mix((s.sigma[0] / t.sigma[0]).item(), gain(t, s)[0].item())
        moves = []
        for i, correct in enumerate(corrections(t, self.step), start=1):
            last = i == len(rescale)
            moves += [correct] * self.corrections
            to_next = Move(correct.at, Mix(0.0, 1.0)) if last else Move(None, rescale[i - 1])
            moves.append(to_next._replace(reaches=i))
        return moves


@dataclass(frozen=True)
class PredictorCorrector(LinearSampler):
    """DDIM(eta), and after each of its steps `corrections` steps of Langevin's.

    Args:
        eta: DDIM's.
        corrections: how many steps at a level.
        step: k.
    """

    eta: float
    corrections: int
    step: float

    @property
    def order(self) -> int:
        """0: it is made of noise."""
        return 0

    def moves(self, path: Level) -> list[Move]:
        """1 + `corrections` calls a step, and one in the last, which lands on x̂_0."""
        moves = []
        correct = corrections(steps_of(path)[1], self.step)
        for i, predict in enumerate(DDIM(self.eta).moves(path)):
            last = i == len(correct) - 1
            more = [] if last else [correct[i]] * self.corrections
            moves += [m._replace(reaches=None) for m in (predict, *more)]
            moves[-1] = moves[-1]._replace(reaches=i + 1)
        return moves


def corrections(levels: Level, step: float) -> list[Move]:
    """A step of Langevin's at each of these levels."""
    b, d = -math.expm1(-step) * levels.alpha, math.sqrt(-math.expm1(-2 * step)) * levels.sigma
    rows = zip(levels_of(levels), b.tolist(), d.tolist(), strict=True)
    return [Move(level, Mix(math.exp(-step), b_i, (), d_i)) for level, b_i, d_i in rows]


_STEP = "a step in 0 < step ≤ 10, such as 0.2"


@SAMPLERS.entry()
def langevin(corrections: int = 5, step: float = 0.2) -> Langevin:
    """Annealed Langevin dynamics: level after level, noise and score in balance (Song & Ermon)."""
    return Langevin(
        check_whole("corrections", corrections, 1, 1000),
        check_number("step", step, 0, 10, _STEP, open_low=True),
    )


@SAMPLERS.entry()
def pc(eta: float = 1.0, corrections: int = 1, step: float = 0.2) -> PredictorCorrector:
    """Predictor–corrector: DDIM(eta), and Langevin's steps after each of its own (Song et al.)."""
    return PredictorCorrector(
        check_number("eta", eta, 0, 1, "0 ≤ eta ≤ 1"),
        check_whole("corrections", corrections, 0, 1000),
        check_number("step", step, 0, 10, _STEP, open_low=True),
    )
