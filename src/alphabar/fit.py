"""Steps fitted to the data: where a sampler should look, if it may look only a few times.

A teacher runs the probability flow finely once, from x_T to x_0. Then either

- *by curvature*: levels are spaced so that each step makes an equal share of the error. A method of
  order p errs in a step of length h by about h^(p+1)·|d^p x̂_0/dλ^p|, so the density of levels is
  the (p+1)-th root of that derivative. No optimisation.
- *by gradient*: the sampler is a differentiable function of its levels, and of its coefficients.
  minimise E‖x_0 of the few steps − x_0 of the teacher‖² by Adam, both from the same noise
  (Watson et al. 2022, *Differentiable diffusion sampler search*, with the teacher in place of
  their perceptual loss).

Both may begin far from pure noise: where the data, seen through the noise, are as good as Gaussian,
a start with their mean and covariance is right.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from alphabar.arguments import check_whole
from alphabar.noise import keyed_noise
from alphabar.samplers import (
    Asked,
    Denoiser,
    LinearSampler,
    Mix,
    Move,
    Normal,
    Sampler,
    dpmpp_2m,
    dpmpp_3m,
    eigen,
    levels_of,
    matched,
    mixes,
    sample,
)
from alphabar.schedule import Level, Schedule, from_log_snr

FINE = 200  # steps of the teacher
ITEMS = 512  # trajectories that are fitted to; twice as many fit no better
ROUNDS = 250  # Adam's steps
# A level matters where x̂_0 differs by this share of the data's spread from what needs no level:
# from a Gaussian's denoiser at the noisy end, from where the item ends at the clean one.
_MATTERS = 0.01
MAX_STEPS = 1000

Advance = Callable[[], None]


class Teacher(NamedTuple):
    """What a fine run along the flow has shown, call by call from the noisiest on."""

    log_snr: Float64[Tensor, " calls"]
    change: Float64[Tensor, " calls"]  # |d^p x̂_0/dλ^p|, root mean square over items
    unlike_gaussian: Float64[Tensor, " calls"]  # |x̂_0 − a Gaussian's x̂_0|
    left: Float64[Tensor, " calls"]  # how far x̂_0 has yet to go, at most
    z: Float[Tensor, "n ..."]  # the noise that the items started from
    x_0: Float[Tensor, "n ..."]  # where they ended


def fit_steps(
    denoiser: Denoiser,
    sampler: Sampler,
    n: int,
    schedule: Schedule,
    start: Normal,
    by: Literal["gradient", "curvature"] = "gradient",
    seed: int = 0,
    advance: Advance = lambda: None,
) -> Schedule:
    """A schedule of n steps for this denoiser and this sampler, variance-preserving.

        few = fit_steps(target, samplers.dpmpp_2m(), 8, schedule.linear(), start)
        *_, last = sample(target, samplers.dpmpp_2m(), few, 1000, (2,), seed=1, start=start)

    Its noisiest level keeps some of the data: sample with the same `start`.

    Args:
        denoiser: exact or trained. By gradient it must be differentiable in x_t and in the level.
        sampler: one without noise.
        n: steps.
        schedule: its λ_1 and λ_T are how far the teacher goes.
        start: mean and covariance of the data.
        by: which of the two ways.
        seed: of the noise that the trajectories start from.
        advance: called FINE times, and then ROUNDS times by gradient.

    Raises:
        ValueError: n < 1; a sampler with noise, or with steps of its own choice; a schedule
            without two levels of finite log-SNR.
    """
    if sampler.order == 0 or not isinstance(sampler, LinearSampler):
        raise ValueError(
            f"{sampler.spec}: steps are fitted to a sampler that has an order, so without noise "
            "and of fixed steps, such as dpmpp_2m"
        )
    if by not in ("gradient", "curvature"):
        raise ValueError(f"by = {by!r}: choose gradient or curvature")
    check_whole("n", n, 1, MAX_STEPS)
    teacher = _teach(denoiser, schedule, start, min(sampler.order, 3), seed, advance)
    levels = _equal_shares(teacher, n, min(sampler.order, 3))
    if by == "gradient":
        levels, _ = _descend(denoiser, sampler, levels, None, teacher, start, advance)
    return from_log_snr(levels)


def fit_mixes(
    denoiser: Denoiser,
    n: int,
    schedule: Schedule,
    start: Normal,
    seed: int = 0,
    advance: Advance = lambda: None,
) -> tuple[Schedule, Sampler]:
    """Levels and coefficients of n steps of one call each, beginning from DPM-Solver++ 2M's.

    A step's a, c1 and c2 are free, and b keeps a clean item on its path. The arguments are those of
    `fit_steps`; `advance` is called FINE + 2·ROUNDS times.

    Returns:
        The schedule, and the sampler `mixes` with its numbers: neither is of use without the other.
    """
    check_whole("n", n, 1, MAX_STEPS)
    sampler = dpmpp_2m()
    teacher = _teach(denoiser, schedule, start, 2, seed, advance)
    levels = _equal_shares(teacher, n, 2)
    levels, _ = _descend(denoiser, sampler, levels, None, teacher, start, advance)
    free = torch.zeros(3, n, dtype=torch.float64)
    levels, free = _descend(denoiser, sampler, levels, free, teacher, start, advance)
    few = from_log_snr(levels)
    path = Level(few.alpha.flip(0), few.sigma.flip(0))
    steps = [move.to for move in _Freed(sampler, free).moves(path)]
    numbers = [[m.a, m.b, *m.c] for m in steps if m]
    return few, mixes(*torch.tensor(numbers, dtype=torch.float64).T.tolist())


@dataclass(frozen=True)
class _Freed(LinearSampler):
    """One call a step, with a·(1 + free[0]), c1 + free[1] and c2 + free[2]."""

    base: LinearSampler
    free: Float64[Tensor, "3 n"]

    @property
    def order(self) -> int:
        return 0

    def moves(self, path: Level) -> list[Move]:
        freed = []
        for i, move in enumerate(self.base.moves(path)):
            assert move.to is not None
            a = move.to.a * (1 + self.free[0, i])
            given = [*move.to.c, 0.0, 0.0]
            c = [given[k] + self.free[k + 1, i] * (k < i) for k in range(2)]
            b = path.alpha[i + 1] - a * path.alpha[i] - c[0] - c[1]
            freed.append(move._replace(to=Mix(a, b, tuple(c))))
        return freed


def _teach(
    denoiser: Denoiser, schedule: Schedule, start: Normal, p: int, seed: int, advance: Advance
) -> Teacher:
    """Run the flow finely, from a matched start at the schedule's noisiest level."""
    if schedule.log_snr[1:].isfinite().sum() < 2:
        raise ValueError(
            f"levels cannot be fitted between those of a schedule of T = {schedule.T}: give one "
            "with two or more levels that keep some of the data, such as linear:T=1000"
        )
    shape = tuple(start.mean.shape)
    items = max(64, min(ITEMS, 2**21 // start.mean.numel()))
    fine = schedule.to_vp().spaced(FINE, "log_snr")
    gaussian = _gaussian_denoiser(start)
    # Of large items fewer will do: each costs two products with their covariance's axes.
    some = max(64, min(items, 2**18 // start.mean.numel()))
    answers: list[Tensor] = []  # the last p + 1 of them
    change, unlike_gaussian, moved = [], [], []
    steps = sample(denoiser, dpmpp_3m(), fine, items, shape, seed, start=start)
    x = next(steps).x
    for step in steps:
        assert step.x_0_hat is not None
        answers = [step.x_0_hat, *answers[:p]]
        unlike_gaussian.append(_size(answers[0][:some] - gaussian(x[:some], fine[step.t + 1])))
        moved.append(_size(answers[0] - answers[1]) if len(answers) > 1 else 0.0)
        if len(answers) > p:
            signs = [(-1) ** k * math.comb(p, k) for k in range(p + 1)]
            change.append(_size(sum(c * a for c, a in zip(signs, answers, strict=True))))
        x = step.x
        advance()
    # The difference of the answers i − p … i belongs to the middle of them.
    before = (p + 1) // 2
    change = [change[0]] * before + change + [change[-1]] * (p - before)
    log_snr = fine.log_snr[1:].flip(0)
    left = torch.tensor([*moved[1:], 0.0]).double().flip(0).cumsum(0).flip(0)
    columns = [log_snr, *(torch.tensor(c).double() for c in (change, unlike_gaussian)), left]
    known = log_snr.isfinite()
    log_snr, changes, unlike, left = (c[known] for c in columns)
    changes /= log_snr[1:].diff().mean() ** p
    return Teacher(log_snr, changes, unlike, left, keyed_noise(seed, 0, 0, items, shape), x)


def _gaussian_denoiser(law: Normal) -> Denoiser:
    """m + α·Σ·(α²·Σ + σ²·I)⁻¹·(x_t − α·m): x̂_0 if the data were N(m, Σ)."""
    values, vectors = eigen(law.cov)
    mean = law.mean.double().flatten()

    def denoise(x_t: Tensor, level: Level) -> Tensor:
        gain = level.alpha * values / (level.alpha**2 * values + level.sigma**2)
        rest = x_t.double().flatten(1) - level.alpha * mean
        return (mean + (rest @ vectors * gain) @ vectors.T).to(x_t.dtype).view_as(x_t)

    return denoise


def _size(x: Float[Tensor, "n ..."]) -> float:
    """√(E‖x‖²) over items."""
    return x.double().flatten(1).square().sum(1).mean().sqrt().item()


def _equal_shares(teacher: Teacher, n: int, p: int) -> Float64[Tensor, " n"]:
    """n falling λ between which the (p+1)-th root of the p-th derivative has equal integrals."""
    spread = _size(teacher.x_0 - teacher.x_0.mean(0))
    needed = (teacher.unlike_gaussian > _MATTERS * spread) & (teacher.left > _MATTERS * spread)
    first, last = 0, len(needed) - 1
    if needed.sum() > 1:
        first, last = int(needed.nonzero()[0]), int(needed.nonzero()[-1])
    log_snr, change = (v[first : last + 1].numpy() for v in (teacher.log_snr, teacher.change))
    density = change ** (1 / (p + 1))
    density = density + 0.05 * density.max() + 1e-30  # nowhere quite empty
    share = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2 * np.diff(log_snr))])
    rising = np.interp(np.linspace(0, share[-1], n), share, log_snr)
    return torch.from_numpy(rising).flip(0)


def _descend(
    denoiser: Denoiser,
    sampler: LinearSampler,
    levels: Float64[Tensor, " n"],
    free: Float64[Tensor, "3 n"] | None,
    teacher: Teacher,
    start: Normal,
    advance: Advance,
) -> tuple[Float64[Tensor, " n"], Float64[Tensor, "3 n"]]:
    """The levels, and the coefficients if given, that come closest to the teacher's x_0."""
    # The cleanest λ, and the logarithm of each distance to the next: λ falls whatever they are.
    top, gaps = levels[:1].clone(), (-levels.diff()).log()
    numbers = torch.zeros(3, len(levels), dtype=torch.float64) if free is None else free.clone()
    scale = _size(teacher.x_0 - teacher.x_0.mean(0)) ** 2  # no unit enters Adam's ε
    if scale == 0:  # all data are one point: any level gives it
        return levels, numbers
    variables = [top, gaps] if free is None else [top, gaps, numbers]
    for variable in variables:
        variable.requires_grad_()
    rates = [0.05, 0.05] if free is None else [0.02, 0.02, 0.005]
    groups = [{"params": [v], "lr": r} for v, r in zip(variables, rates, strict=True)]
    optimizer = torch.optim.Adam(groups)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, ROUNDS)
    times = range(len(levels), -1, -1)
    best = math.inf
    for _ in range(ROUNDS):
        log_snr = torch.cat([top, top - gaps.exp().cumsum(0)])
        path = _path(log_snr)
        trial = sampler if free is None else _Freed(sampler, numbers)
        x = matched(start, levels_of(path)[0], teacher.z)
        *_, (_, x_0, x_0_hat) = trial.run(Asked(denoiser, times), x, path, _no_noise)
        if not x_0_hat.requires_grad:
            raise ValueError(
                "the denoiser's answer has no gradient: fit by gradient through one made of torch "
                "operations, without no_grad or detach, or fit by curvature"
            )
        loss = (x_0 - teacher.x_0).square().flatten(1).sum(1).mean() / scale
        if loss.item() < best:
            best, kept = loss.item(), (log_snr.detach().clone(), numbers.detach().clone())
        # Not `backward`, which would leave gradients in the denoiser's own parameters.
        for variable, gradient in zip(variables, torch.autograd.grad(loss, variables), strict=True):
            variable.grad = gradient
        optimizer.step()
        rate.step()
        advance()
    return kept


def _path(log_snr: Float64[Tensor, " n"]) -> Level:
    """The variance-preserving levels from the noisiest of these λ, which fall, to σ = 0."""
    noisy_first = log_snr.flip(0)
    alpha, sigma = noisy_first.sigmoid().sqrt(), (-noisy_first).sigmoid().sqrt()
    return Level(torch.cat([alpha, alpha.new_ones(1)]), torch.cat([sigma, sigma.new_zeros(1)]))


def _no_noise(draw: int) -> Tensor:
    raise AssertionError("a sampler without noise drew some")
