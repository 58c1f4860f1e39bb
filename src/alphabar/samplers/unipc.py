"""UniPC: a predictor, and a corrector that costs no call.

The predictor goes from t to s with the answers at t and before. The denoiser's answer there serves
twice: the corrector makes the step t → s again with it, and the next prediction starts from the
corrected x_s. Zhao et al. 2023, *UniPC*, algorithms 1 and 2, for x̂_0, varying coefficients.

Both integrate the polynomial through their answers exactly (`multistep.py`), except the predictor
through two and the corrector through two, for which the paper's code takes ½ of B(h) for the slope:

    B(h) = h (bh1) or 1 − e^(−h) (bh2)
"""

from dataclasses import dataclass
from typing import Literal, cast, get_args

import torch
from jaxtyping import Float64
from torch import Tensor

from alphabar.arguments import check_whole
from alphabar.samplers.base import SAMPLERS, LinearSampler, Move, gain, levels_of, steps_of
from alphabar.samplers.multistep import counts, mixes_of, moments, polynomial_rows
from alphabar.schedule import Level

Variant = Literal["bh1", "bh2"]


@dataclass(frozen=True)
class UniPC(LinearSampler):
    """The sampler above.

    Args:
        history: 1 to 3, the answers of the predictor; the corrector has one more.
        variant: B(h).
    """

    history: int
    variant: Variant

    @property
    def order(self) -> int:
        """history + 1, but 3 at most: its start, two answers long, has no more."""
        return min(self.history + 1, 3)

    def moves(self, path: Level) -> list[Move]:
        """One call a step: correct the step before with the answer, then predict the next."""
        log_snr, alpha_s = path.log_snr, path.alpha[1:]
        h, alone = log_snr.diff() / 2, gain(*steps_of(path))
        a = path.sigma[1:] / path.sigma[:-1]

        def integrals(steps: Tensor, count: int) -> Tensor:
            return alpha_s[steps, None] * moments(h[steps], count)

        predicted = polynomial_rows(log_snr, integrals, alone, self.history)
        corrected = polynomial_rows(log_snr, integrals, alone, self.history, ahead=True)
        known = torch.tensor(counts(log_snr, self.history))
        finite = h.isfinite()
        length = torch.where(finite, h, 0.0)
        half = (alpha_s * length if self.variant == "bh1" else alone) / 2
        if self.history > 1:
            before = torch.where(known == 2, torch.cat([h[:1], h[:-1]]), 1.0)
            slope = half * length / before
            rows = torch.stack([alone + slope, -slope], 1)
            predicted = torch.where((known == 2)[:, None], _filled(rows, predicted), predicted)
        one = (known == 1) & finite
        rows = torch.stack([half, alone - half], 1)
        corrected = torch.where(one[:, None], _filled(rows, corrected), corrected)
        predict, correct = mixes_of(a, predicted, None), mixes_of(a, corrected, None)
        levels = levels_of(path)
        moves = [Move(levels[0], None, predict[0], 1)]
        for i in range(1, len(a)):
            moves.append(Move(levels[i], correct[i - 1], predict[i], i + 1))
        return moves


def _filled(
    rows: Float64[Tensor, "n two"], like: Float64[Tensor, "n count"]
) -> Float64[Tensor, "n count"]:
    return torch.cat([rows, rows.new_zeros(len(rows), like.shape[1] - 2)], 1)


@SAMPLERS.entry()
def unipc(order: int = 2, variant: str = "bh2") -> UniPC:
    """Predictor of `order` and corrector in one call a step (Zhao et al. 2023)."""
    if variant not in get_args(Variant):
        raise ValueError(f"variant = {variant}: choose {' or '.join(get_args(Variant))}")
    return UniPC(check_whole("order", order, 1, 3), cast(Variant, variant))
