"""The reverse process: from noise to data, with a denoiser as guide.

A sampler visits levels t → s → …, asks the denoiser at each, and mixes what it knows:

    x ← a·x + b·x̂_0 + Σ_k c_k·(x̂_0 from k calls ago) + d·z,    z ~ N(0, I)

Samplers differ in the numbers a, b, c, d alone. They depend on the levels and not on x, so they are
computed once, in float64; the loop is then a few tensor operations. A noise-free item must stay on
its own path, so a·α_t + b + Σ c_k = α_s for all of them.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from alphabar.arguments import check_whole
from alphabar.noise import keyed_noise
from alphabar.schedule import Level, Schedule
from alphabar.spec import Family, Named
from alphabar.storage import chunks

SAMPLERS = Family("sampler")

# Given x_t and its level, the mean of all clean items that could have led there: E[x_0 | x_t].
Denoiser = Callable[[Float[Tensor, "B ..."], Level], Float[Tensor, "B ..."]]

# A coefficient: a number, or a tensor where levels are being fitted by gradient.
Scalar = float | Float64[Tensor, ""]


class Mix(NamedTuple):
    """x ← a·x + b·x̂_0 + Σ c_k·(x̂_0 from k calls ago) + d·z, with k = 1, 2, …."""

    a: Scalar
    b: Scalar
    c: tuple[Scalar, ...] = ()
    d: Scalar = 0.0


class Move(NamedTuple):
    """One call of the denoiser, and what is done with its answer."""

    at: Level | None  # where the denoiser is asked; None: it is not, noise is all that comes
    to: Mix | None  # the state after the answer; None: it stays, and only `ask` moves on
    ask: Mix | None = None  # from that state to where the next question is asked, if not there
    reaches: int | None = None  # index in the path of the level reached; None: between two levels


class Step(NamedTuple):
    """Where a sampler is: at level t, and what the denoiser said of the x of the step before."""

    t: int
    x: Float[Tensor, "n ..."]
    x_0_hat: Float[Tensor, "n ..."] | None  # None at the start, before the first call
    nfe: int  # calls of the denoiser so far


class Asked:
    """A denoiser whose every answer is looked at and counted."""

    def __init__(self, denoiser: Denoiser, times: Sequence[int]) -> None:
        self.denoiser = denoiser
        self.times = times  # the t of each level of the path
        self.nfe = 0

    def __call__(self, x: Float[Tensor, "n ..."], level: Level, i: int) -> Float[Tensor, "n ..."]:
        """x̂_0 for x, asked on the way from the i-th level of the path.

        Raises:
            ValueError: an answer of another shape or dtype, or one that is not finite; names t.
        """
        x_0_hat = self.denoiser(x, level)
        self.nfe += 1
        if x_0_hat.shape != x.shape or x_0_hat.dtype != x.dtype:
            raise ValueError(
                f"at t = {self.times[i]} the denoiser returned {x_0_hat.dtype} of shape "
                f"{tuple(x_0_hat.shape)} for x of {x.dtype} and shape {tuple(x.shape)}: it must "
                "return one x_0 for each item, in x's dtype"
            )
        # A sum is one pass and catches every NaN; it may overflow where all numbers are finite.
        if not math.isfinite(x_0_hat.sum().item()) and not x_0_hat.isfinite().all():
            raise ValueError(
                f"at t = {self.times[i]} the denoiser returned NaN or inf, asked at sigma/alpha = "
                f"{(level.sigma / level.alpha).max().item():.4g}: look at its input and its "
                "weights there"
            )
        return x_0_hat


# noise(k): the k-th draw of noise for all items, k = 1, 2, …
Noise = Callable[[int], Float[Tensor, "n ..."]]


@runtime_checkable
class Sampler(Protocol):
    """A rule that leads items from level to level."""

    @property
    def spec(self) -> str:
        """The text that makes this sampler again."""

    @property
    def order(self) -> int:
        """p: with n steps the error of the whole trajectory falls as n^(−p); 0 if noise rules."""

    def run(
        self, ask: Asked, x: Float[Tensor, "n ..."], path: Level, noise: Noise
    ) -> Iterator[tuple[int, Float[Tensor, "n ..."], Float[Tensor, "n ..."]]]:
        """Lead x along the levels of `path`: yields (index in the path, x, x̂_0 of the x before)."""


@dataclass(frozen=True)
class LinearSampler(Named, ABC):
    """A sampler whose every move is a `Mix` that the levels alone determine."""

    @property
    @abstractmethod
    def order(self) -> int:
        """p: with n steps the error of the whole trajectory falls as n^(−p); 0 if noise rules."""

    @abstractmethod
    def moves(self, path: Level) -> list[Move]:
        """The moves along the levels of `path`, float64 (n+1,), from its first to its last."""

    def run(
        self, ask: Asked, x: Float[Tensor, "n ..."], path: Level, noise: Noise
    ) -> Iterator[tuple[int, Float[Tensor, "n ..."], Float[Tensor, "n ..."]]]:
        """The only loop: ask, mix, go on."""
        moves = self.moves(path) if path.alpha.requires_grad else _moves(self, *path)
        memory = max(len(mix.c) for m in moves for mix in (m.to, m.ask) if mix) + 1
        question, draw, here = x, 0, 0
        answers: list[Tensor] = []
        first: Tensor | None = None  # of the answers since the level before

        def mixed(mix: Mix) -> Tensor:
            nonlocal draw
            z = None
            if isinstance(mix.d, Tensor) or mix.d:
                draw += 1
                z = noise(draw)
            return combine(mix, x, answers, z)

        for move in moves:
            if move.at is not None:
                answer = ask(question, move.at, here)
                answers = [answer, *answers[: memory - 1]]
                first = answer if first is None else first
            if move.to is not None:
                x = mixed(move.to)
            question = x if move.ask is None else mixed(move.ask)
            if move.reaches is not None:
                here = move.reaches
                yield here, question, answers[0] if first is None else first
                first = None


@lru_cache(maxsize=16)
def _moves(sampler: LinearSampler, *path: Float64[Tensor, " levels"]) -> list[Move]:
    """The moves along a path, worked out once: a large set is drawn in many parts."""
    return sampler.moves(Level(*path))


def combine(
    mix: Mix,
    x: Float[Tensor, "n ..."],
    answers: list[Float[Tensor, "n ..."]],
    z: Float[Tensor, "n ..."] | None,
) -> Float[Tensor, "n ..."]:
    """The sum above; differentiable in the coefficients where they are tensors."""
    terms = list(zip((mix.b, *mix.c), answers, strict=False))
    if z is not None:
        terms.append((mix.d, z))
    total = mix.a * x  # a tensor here is 0-dimensional: x's dtype wins
    for coefficient, term in terms:
        if isinstance(coefficient, Tensor):
            total = total + coefficient * term
        elif coefficient:
            total.add_(term, alpha=coefficient)
    return total


def scalars(values: Float64[Tensor, " n"]) -> list[Scalar]:
    """Numbers for a `Mix`, or tensors where a gradient must pass through them."""
    return list(values.unbind()) if values.requires_grad else values.tolist()


def levels_of(path: Level) -> list[Level]:
    """The levels of a path, one by one."""
    return [Level(*pair) for pair in zip(path.alpha.unbind(), path.sigma.unbind(), strict=True)]


def steps_of(path: Level) -> tuple[Level, Level]:
    """Where each step of a path starts, and where it ends."""
    return Level(path.alpha[:-1], path.sigma[:-1]), Level(path.alpha[1:], path.sigma[1:])


def gain(t: Level, s: Level) -> Float64[Tensor, " n"]:
    """α_s − α_t·σ_s/σ_t: what all answers count together in a step t → s without noise."""
    # Without the cancellation; on the way to noise α_s may be 0, and α_s·expm1(inf) NaN.
    near = -s.alpha * torch.expm1((t.log_snr - s.log_snr) / 2)
    return torch.where(s.alpha == 0, -t.alpha * s.sigma / t.sigma, near)


def one_call_a_step(path: Level, mixes: Iterable[Mix]) -> list[Move]:
    """The moves of a sampler that asks at each level, and goes on to the next."""
    steps = zip(levels_of(path), mixes, strict=False)  # nobody asks at the last level
    return [Move(level, mix, reaches=i) for i, (level, mix) in enumerate(steps, start=1)]


def nfe_of(sampler: LinearSampler, schedule: Schedule) -> int:
    """How many calls of the denoiser the sampler makes on this schedule."""
    return sum(move.at is not None for move in sampler.moves(_downwards(schedule)))


class Normal(NamedTuple):
    """N(mean, cov) for items of the mean's shape: what is known of p(x_0) at the least."""

    mean: Float[Tensor, "..."]
    cov: Float[Tensor, "D D"]  # of the flattened item

    @classmethod
    def of(cls, x_0: Float[Tensor, "N ..."]) -> "Normal":
        """The mean and covariance of a data set."""
        mean = reduce(torch.add, (part.double().sum(0) for part in chunks(x_0))) / len(x_0)
        cov = mean.new_zeros(mean.numel(), mean.numel())
        for part in chunks(x_0):
            rest = (part.double() - mean).flatten(1)
            cov.addmm_(rest.T, rest)
        return cls(mean, cov.div_(len(x_0)))


@torch.no_grad()
def sample(
    denoiser: Denoiser,
    sampler: Sampler,
    schedule: Schedule,
    n: int,
    shape: tuple[int, ...],
    seed: int,
    first: int = 0,
    start: Normal | Float[Tensor, "n ..."] | None = None,
    device: torch.device | str = "cpu",
) -> Iterator[Step]:
    """Draw n items: yields the start at t = T, then each level that is reached, down to t = 0.

        *_, last = sample(denoiser, sampler, schedule.spaced(20, "log_snr"), 1000, (2,), seed=0)
        last.x

    Args:
        denoiser: returns x̂_0 for (x_t, level).
        sampler: which moves to make.
        schedule: the levels to visit, in any scale.
        n: how many items.
        shape: the shape of one item.
        seed: with the item's index and the step, determines all noise.
        first: index of the first item, to draw a large set in parts.
        start: x_T. If not given, √(α_T² + σ_T²)·z, which is N(0, I) in the variance-preserving
            scale: right for data of mean 0 and variance 1, or where α_T is as good as 0. A
            `Normal` with the mean and covariance of the data starts from
            N(α_T·mean, α_T²·cov + σ_T²·I), which has the true first two moments at any level.
            A tensor is x_T itself; all is computed in its dtype.
        device: where to compute.

    Raises:
        ValueError: n < 1; first < 0; a start of another shape, or not finite; the denoiser returns
            another shape or dtype or something that is not finite, with the t where it happened.
    """
    check_whole("n", n, 1, 2**40)
    check_whole("first", first, 0, 2**40)
    top = schedule[schedule.T]
    if isinstance(start, Tensor):
        if start.shape != (n, *shape):
            raise ValueError(
                f"start has shape {tuple(start.shape)}: it must be {(n, *shape)}, one x_T an item"
            )
        if not start.isfinite().all():
            raise ValueError("start holds NaN or inf: every number of x_T must be finite")
        x = start.to(device)
    else:
        z = keyed_noise(seed, 0, first, n, shape)
        x = (z.mul_(torch.hypot(*top)) if start is None else matched(start, top, z)).to(device)

    def noise(draw: int) -> Tensor:
        return keyed_noise(seed, draw, first, n, shape).to(x)

    times = range(schedule.T, -1, -1)
    ask = Asked(denoiser, times)
    yield Step(schedule.T, x, None, 0)
    for i, x_s, x_0_hat in sampler.run(ask, x, _downwards(schedule), noise):
        yield Step(times[i], x_s, x_0_hat, ask.nfe)


@torch.no_grad()
def invert(
    denoiser: Denoiser, sampler: Sampler, schedule: Schedule, x_0: Float[Tensor, "n ..."]
) -> Iterator[Step]:
    """From data to noise, along the flow by which `sampler` draws: yields t = 0, …, T.

    The first step solves x̂_0(x_1) = x_0, since that is where sampling lands, by one step of
    x_1 ← x_1 + α_1·(x_0 − x̂_0(x_1)) from α_1·x_0. `sample(…, start=last.x)` leads back to x_0, up
    to the errors of the two; items that the denoiser would not give (off the data, for a finite
    set of points) cannot come back.

    Raises:
        ValueError: a sampler that adds noise; α_1 = 0; what `sample` raises of a denoiser.
    """
    if sampler.order == 0:
        raise ValueError(
            f"{sampler.spec} adds noise, which cannot be undone, or knows one set of levels alone: "
            "invert with a sampler that has an order, such as heun or dpmpp_2m"
        )
    bottom = schedule[1]
    alpha = bottom.alpha.item()
    if alpha == 0:
        raise ValueError(
            "nothing is left of the data at t = 1: take a schedule with levels between data and "
            "pure noise"
        )
    ask = Asked(denoiser, range(1, schedule.T + 1))
    yield Step(0, x_0, None, 0)
    answer = ask((alpha * x_0).to(x_0.dtype), bottom, 0)
    x = combine(Mix(2 * alpha, -alpha), x_0, [answer], None)
    yield Step(1, x, answer, ask.nfe)
    if schedule.T == 1:
        return
    path = Level(schedule.alpha[1:], schedule.sigma[1:])
    for i, x_t, x_0_hat in sampler.run(ask, x, path, lambda draw: x):
        yield Step(i + 1, x_t, x_0_hat, ask.nfe)


@lru_cache(maxsize=16)
def _downwards(schedule: Schedule) -> Level:
    return Level(schedule.alpha.flip(0), schedule.sigma.flip(0))


@lru_cache(maxsize=4)
def eigen(cov: Float[Tensor, "D D"]) -> tuple[Float64[Tensor, " D"], Float64[Tensor, "D D"]]:
    """Eigenvalues and eigenvectors, worked out once: seconds for thousands of numbers."""
    values, vectors = torch.linalg.eigh(cov.double())
    return values, vectors


def matched(data: Normal, top: Level, z: Float[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
    """α·mean + (α²·cov + σ²·I)^½·z: what the data look like at a noisy level, up to two moments.

    Raises:
        ValueError: z has items of another shape than the mean.
    """
    if data.mean.shape != z.shape[1:]:
        raise ValueError(
            f"start has a mean of shape {tuple(data.mean.shape)}: items have {tuple(z.shape[1:])}"
        )
    # A covariance of fewer points than numbers is singular: eigenvalues bear that, Cholesky's
    # factor does not.
    values, vectors = eigen(data.cov)
    scales = (top.alpha**2 * values.clamp(min=0) + top.sigma**2).sqrt()
    root = (vectors * scales) @ vectors.T  # symmetric, so x_T changes smoothly with the level
    x = z.flatten(1) @ root.to(z.dtype)
    return (x.view_as(z) + (top.alpha * data.mean).to(z.dtype)).contiguous()
