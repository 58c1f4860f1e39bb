"""The probability flow solved to a tolerance, each item with steps of its own length.

With w = asinh(α/σ), so that α = tanh w and σ = 1/cosh w in the variance-preserving scale, the flow
is free of every singularity:

    dx/dw = x̂_0(x, w) − tanh(w)·x        w from 0 (pure noise) to ∞ (clean data)

(Song et al. 2021, eq. (13), in another time.) Dormand & Prince's pair of orders 5 and 4 (1980,
table 2) takes the step; the difference of the two is the error that the step is chosen by.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from alphabar.checks import check_number
from alphabar.samplers.base import SAMPLERS, Asked, Noise, levels_of
from alphabar.schedule import Level
from alphabar.spec import Named

_A = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_C = (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
_FOURTH = (5179 / 57600, 0.0, 7571 / 16695, 393 / 640, -92097 / 339200, 187 / 2100, 1 / 40)
_ERROR = tuple(b - b4 for b, b4 in zip((*_A[-1], 0.0), _FOURTH, strict=True))
_SHORTEST = 1e-7  # in w; a step that must be shorter will not get through


@dataclass(frozen=True)
class Adaptive(Named):
    """The solver above. It lands on every level of the schedule, so give it few of them.

    An item's error in a step is the root mean square of error/(atol + rtol·|x|) over its numbers;
    it is kept below 1. As items do not share steps, none depends on the batch it is in.

    Args:
        rtol: relative tolerance of each step.
        atol: absolute tolerance of each step, for x of variance about 1.
    """

    rtol: float
    atol: float

    @property
    def order(self) -> int:
        """Of the step it takes: 5."""
        return 5

    def run(
        self, ask: Asked, x: Float[Tensor, "n ..."], path: Level, noise: Noise
    ) -> Iterator[tuple[int, Float[Tensor, "n ..."], Float[Tensor, "n ..."]]]:
        """From each level of the path to the next; the step to σ = 0 lands on x̂_0.

        Raises:
            ValueError: tolerances that x's dtype cannot resolve; a flow too fast to follow.
        """
        finest = 4 * torch.finfo(x.dtype).eps
        if max(self.rtol, self.atol) < finest:
            # Rounding would be taken for the method's error, and steps grow tiny to lower it.
            raise ValueError(
                f"rtol = {self.rtol:g}, atol = {self.atol:g}: {x.dtype} resolves no error below "
                f"{finest:.1g}: raise one of the two, or start in float64"
            )
        h = torch.full((len(x),), 0.1, dtype=torch.float64)
        for i, (t, s) in enumerate(pairwise(levels_of(path))):
            if s.sigma == 0:
                x_0_hat = ask(x, t, i)
                yield i + 1, x_0_hat, x_0_hat
                continue
            w, end = (torch.asinh(level.alpha / level.sigma) for level in (t, s))
            y, x_0_hat, h = self._solve(ask, x / torch.hypot(*t), w, end, h, i)
            x = y * torch.hypot(*s)
            yield i + 1, x, x_0_hat

    def _solve(
        self,
        ask: Asked,
        y: Float[Tensor, "n ..."],
        start: Float64[Tensor, ""],
        end: Float64[Tensor, ""],
        h: Float64[Tensor, " n"],
        i: int,
    ) -> tuple[Float[Tensor, "n ..."], Float[Tensor, "n ..."], Float64[Tensor, " n"]]:
        """y at `end`, x̂_0 at the start, and the next step that each item would take."""
        sign = float(torch.sign(end - start))

        def believed(y: Tensor, w: Tensor) -> Tensor:
            return ask(y, Level(w.tanh(), 1 / w.cosh()), i)

        def slope(x_0_hat: Tensor, y: Tensor, w: Tensor) -> Tensor:
            return x_0_hat - _wide(w.tanh(), y) * y

        y = y.clone()
        w, h = start.expand(len(y)).clone(), h.clone()
        x_0_hat = believed(y, w)
        first = slope(x_0_hat, y, w)
        going = torch.arange(len(y))
        while len(going):
            y_i, w_i = y[going], w[going]
            left = (end - w_i).abs()
            step = torch.minimum(h[going], left)
            k = [first[going]]
            for row, c in zip(_A, _C, strict=True):
                move = sum(a * k_j for a, k_j in zip(row, k, strict=True) if a)
                y_new = y_i + _wide(sign * step, y_i) * move
                w_new = w_i + sign * c * step
                k.append(slope(believed(y_new, w_new), y_new, w_new))
            error = _wide(step, y_i) * sum(e * k_j for e, k_j in zip(_ERROR, k, strict=True))
            scale = self.atol + self.rtol * torch.maximum(y_i.abs(), y_new.abs())
            norm = (error / scale).double().square().reshape(len(y_i), -1).mean(1).sqrt().cpu()
            taken = norm <= 1
            factor = (0.9 * norm.clamp(min=1e-10) ** -0.2).clamp(0.2, 5)
            if (step[~taken] * factor[~taken] < _SHORTEST).any():
                raise ValueError(
                    f"the flow changes faster than steps of {_SHORTEST:g} can follow at "
                    f"rtol = {self.rtol:g}, atol = {self.atol:g}: raise them, or begin the "
                    "schedule at a higher level of noise"
                )
            # A step that was cut off at the end says nothing against the longer one.
            h[going] = torch.where(taken & (step < h[going]), h[going], step * factor)
            done = going[taken]
            y[done], first[done] = y_new[taken], k[-1][taken]
            w[done] += sign * step[taken]
            going = going[~(taken & (step == left))]
        return y, x_0_hat, h


def _wide(values: Float64[Tensor, " n"], x: Float[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
    return values.to(x).view(-1, *[1] * (x.ndim - 1))


@SAMPLERS.entry()
def adaptive(rtol: float = 1e-4, atol: float = 1e-4) -> Adaptive:
    """The probability flow to a tolerance, by Dormand–Prince 5(4), each item with its own steps."""
    rule = "a tolerance from 1e-12 to 1, such as 1e-4"
    return Adaptive(
        check_number("rtol", rtol, 1e-12, 1, rule), check_number("atol", atol, 1e-12, 1, rule)
    )
