"""A sampler whose numbers are given: those that were fitted to a few levels of one data set.

    x_s = a·x_t + b·x̂_0 + c1·(x̂_0 one call ago) + c2·(x̂_0 two calls ago)

`alphabar.fit.fit_mixes` finds them. They belong to the levels that they were fitted to: elsewhere a
clean item would leave its path, a·α_t + b + c1 + c2 ≠ α_s, which is refused.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from alphabar.samplers.base import SAMPLERS, LinearSampler, Mix, Move, one_call_a_step
from alphabar.schedule import Level


@dataclass(frozen=True)
class Mixes(LinearSampler):
    """The sampler above, with the mix of each step, from the noisiest on."""

    steps: tuple[Mix, ...]

    @property
    def order(self) -> int:
        """0: there is no other number of steps to converge with."""
        return 0

    def moves(self, path: Level) -> list[Move]:
        """One call a step.

        Raises:
            ValueError: a path of other levels than these numbers were made for.
        """
        if len(path.alpha) != len(self.steps) + 1:
            raise ValueError(
                f"these mixes are for {len(self.steps)} steps, the schedule has "
                f"{len(path.alpha) - 1}: give the schedule that they were fitted with"
            )
        sums = torch.tensor([[m.a, m.b + sum(m.c)] for m in self.steps], dtype=torch.float64)
        off = (sums[:, 0] * path.alpha[:-1] + sums[:, 1] - path.alpha[1:]).abs()
        if not off.max() <= 1e-9:
            i = int(off.argmax())
            raise ValueError(
                f"step {i + 1} of these mixes leads a clean item {off[i].item():.2g} off its path: "
                "they belong to other levels; give the schedule that they were fitted with"
            )
        return one_call_a_step(path, self.steps)


@SAMPLERS.entry()
def mixes(
    a: Sequence[float], b: Sequence[float], c1: Sequence[float], c2: Sequence[float]
) -> Mixes:
    """The numbers a, b, c1, c2 of each step, from the noisiest on; they fit one schedule only."""
    if not len(a) == len(b) == len(c1) == len(c2) >= 1:
        raise ValueError(
            f"a, b, c1, c2 have {len(a)}, {len(b)}, {len(c1)}, {len(c2)} numbers: "
            "all need one a step"
        )
    rows = list(zip(*(map(float, column) for column in (a, b, c1, c2)), strict=True))
    if not all(math.isfinite(number) for row in rows for number in row):
        raise ValueError("mixes hold NaN or inf: every a, b, c1 and c2 must be a number")
    for i, (_, _, *earlier) in enumerate(rows[:2], start=1):
        if any(earlier[i - 1 :]):
            raise ValueError(
                f"step {i} of these mixes counts an answer from before the first: c{i} must be 0 "
                "there, as there are no earlier calls"
            )
    return Mixes(tuple(Mix(a_, b_, (c, c_)) for a_, b_, c, c_ in rows))
