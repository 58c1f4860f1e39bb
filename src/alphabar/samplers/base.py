"""The reverse process: from noise to data, with a denoiser as guide.

Every sampler here moves from level t to a cleaner level s by

    x_s = a·x_t + b·x̂_0 + Σ_k c_k·(x̂_0 from k calls ago) + d·z,    z ~ N(0, I)

and differs from the others only in the numbers a, b, c, d. They depend on the schedule alone, so
they are computed once, in float64; the loop is then a few tensor operations. As a noise-free item
must stay on its own path, a·α_t + b + Σ c_k = α_s in every deterministic method.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from alphabar.checks import check_whole
from alphabar.noise import keyed_noise
from alphabar.schedule import Level, Schedule
from alphabar.spec import Family

SAMPLERS = Family("sampler")

# Given x_t and its level, the mean of all clean items that could have led there: E[x_0 | x_t].
Denoiser = Callable[[Float[Tensor, "B ..."], Level], Float[Tensor, "B ..."]]


class Move(NamedTuple):
    """The numbers of one step t → s."""

    a: float
    b: float
    c: tuple[float, ...]  # for the x̂_0 of one call ago, two calls ago, …
    d: float


@runtime_checkable
class Sampler(Protocol):
    """A rule that turns a schedule into moves."""

    @property
    def spec(self) -> str:
        """The text that makes this sampler again."""

    def moves(self, schedule: Schedule) -> list[Move]:
        """The moves T → T−1 → … → 0, in that order."""


class Step(NamedTuple):
    """Where a sampler is: at level t, and what the denoiser said on the way there."""

    t: int
    x: Float[Tensor, "n ..."]
    x_0_hat: Float[Tensor, "n ..."] | None  # None at the start, before the first call


@torch.no_grad()
def sample(
    denoiser: Denoiser,
    sampler: Sampler,
    schedule: Schedule,
    n: int,
    shape: tuple[int, ...],
    seed: int,
    first: int = 0,
    device: torch.device | str = "cpu",
) -> Iterator[Step]:
    """Draw n items: yields the start at t = T, then each step down to t = 0.

        *_, last = sample(denoiser, sampler, schedule.spaced(20, "log_snr"), 1000, (2,), seed=0)
        last.x

    The start is √(α_T² + σ_T²)·z: N(0, I) in the variance-preserving scale. One call of the
    denoiser a step.

    Args:
        denoiser: returns x̂_0 for (x_t, level).
        sampler: which moves to make.
        schedule: the levels to visit.
        n: how many items.
        shape: the shape of one item.
        seed: with the item's index and the step, determines all noise.
        first: index of the first item, to draw a large set in parts.
        device: where to compute.

    Raises:
        ValueError: n < 1; the denoiser returns another shape or something that is not finite, with
            the t where it happened.
    """
    check_whole("n", n, 1, 2**40)
    T = schedule.T
    start = schedule[T]
    x = keyed_noise(seed, 0, first, n, shape).to(device)
    x.mul_(torch.hypot(start.alpha, start.sigma))
    earlier: list[Tensor] = []
    yield Step(T, x, None)
    for t, move in zip(range(T, 0, -1), sampler.moves(schedule), strict=True):
        x_0_hat = denoiser(x, schedule[t])
        _check(x_0_hat, x, t)
        x = move.a * x
        x.add_(x_0_hat, alpha=move.b)
        for c, past in zip(move.c, earlier, strict=False):
            x.add_(past, alpha=c)
        if move.d:
            x.add_(keyed_noise(seed, T - t + 1, first, n, shape).to(device), alpha=move.d)
        earlier = [x_0_hat, *earlier][:1]
        yield Step(t - 1, x, x_0_hat)


def _check(x_0_hat: Tensor, x: Tensor, t: int) -> None:
    if x_0_hat.shape != x.shape:
        raise ValueError(
            f"at t = {t} the denoiser returned shape {tuple(x_0_hat.shape)} for x of shape "
            f"{tuple(x.shape)}: it must return one x_0 for each item"
        )
    if not x_0_hat.isfinite().all():
        raise ValueError(
            f"at t = {t} the denoiser returned NaN or inf: look at its input and its weights there"
        )
