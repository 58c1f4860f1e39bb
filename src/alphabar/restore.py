"""Restoration: what x_0 may have been, given a damaged and noisy measurement of it.

    y = A·x_0 + σ_y·n,    p(x_0 | y) ∝ p(x_0)·N(y; A·x_0, σ_y²·I)

`denoise` is exact for A = I: y is x_t itself, at the level whose σ/α is σ_y. For every other linear
operator the default is `posterior`, which walks through the laws

    π_k(x_0) ∝ p(x_0)·N(y; A·x_0, τ_k²·A·Aᵀ + σ_y²·I),    τ_0 > τ_1 > … > 0

from next to p(x_0) down to p(x_0 | y), and at each of them

    weighs    w ∝ π_k(x)/π_{k−1}(x), of which p(x) cancels, and draws the items again by w;
    moves     z ~ p(z | x, y), a Gaussian, for z = x + ρ·e with ρ² = τ_k² + σ_y²/λ_max(A·Aᵀ);
              x ~ p(x | z), which is denoising: the reverse process from σ/α = ρ on.

Every move leaves π_k as it is (Gibbs), since z is so coupled that y = A·z + (the rest of the noise)
has under x exactly the covariance of π_k. So the network is asked for nothing but what it was
trained for, there is no approximation of p(y | x_t), and no bias at σ_y > 0 beyond that of the
reverse process and of a finite number of items.

Sources: split Gibbs, Vono, Dobigeon, Chainais 2019; with diffusion and falling ρ, Wu et al. 2024
(*PnP-DM*); weights and resampling between the laws, Del Moral, Doucet, Jasra 2006. `pi_gdm`: Song
et al. 2023 (*ΠGDM*). `repaint`: Lugmayr et al. 2022. `edit`: Meng et al. 2022 (*SDEdit*).
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from alphabar.arguments import check_number, check_seed, check_whole
from alphabar.forward import marginal, transition
from alphabar.noise import keyed_noise
from alphabar.operators import Mask, Operator
from alphabar.samplers import (
    Asked,
    Denoiser,
    LinearSampler,
    Sampler,
    ddim,
    dpmpp_2m_sde,
    invert,
    sample,
)
from alphabar.samplers.base import combine
from alphabar.schedule import Level, Schedule, align, from_sigmas

RESAMPLE = 0.5  # items are drawn again where (Σw)²/Σw² falls below this share of them
_NOISE = "a standard deviation ≥ 0, in the units of y"


class Restored(NamedTuple):
    """Draws of x_0 given y, so far."""

    draws: Float[Tensor, "n ..."]
    left: int  # how many levels are still to come; at 0 the draws are done
    nfe: int  # calls of the denoiser so far

    @property
    def mean(self) -> Float[Tensor, "..."]:
        """The mean of the draws: the best single guess in squared error."""
        return self.draws.mean(0)

    @property
    def spread(self) -> Float[Tensor, "..."]:
        """The standard deviation of each number over the draws: where the guess is unsure."""
        return self.draws.std(0)


def denoise(
    denoiser: Denoiser,
    schedule: Schedule,
    y: Float[Tensor, "n ..."],
    noise: float,
    seed: int,
    sampler: Sampler | None = None,
    density: float = 8.0,
    first: int = 0,
) -> Iterator[Restored]:
    """x_0 ~ p(x_0 | y) for y = x_0 + noise·n: the reverse process from σ/α = noise on.

    Args:
        denoiser: E[x_0 | x_t].
        schedule: names the scale in which the denoiser is asked and, by its level 1, what counts
            as clean.
        y: noisy items. The same one n times gives n draws of its posterior.
        noise: σ_y ≥ 0. At 0, y itself is the answer.
        seed: with the index of an item and the step, determines all noise.
        sampler: one that adds noise draws from the posterior; `dpmpp_2m_sde` if not given. A
            deterministic one gives one answer to a y, and only over
            all y these have the right law.
        density: calls for each factor e in σ/α.
        first: index of the first item, to do a large set in parts.

    Raises:
        TypeError, ValueError: noise that is not a number ≥ 0; what `sample` raises.
    """
    check_number("noise", noise, 0, math.inf, _NOISE)
    if noise == 0:
        yield Restored(y, 0, 0)
        return
    path = descent(schedule, noise, density)
    sampler = dpmpp_2m_sde() if sampler is None else sampler
    x = align(path[path.T].alpha, y) * y
    for step in sample(denoiser, sampler, path, len(y), tuple(y.shape[1:]), seed, first, x):
        yield Restored(step.x, step.t, step.nfe)


def posterior(
    denoiser: Denoiser,
    schedule: Schedule,
    operator: Operator,
    y: Float[Tensor, "..."],
    noise: float,
    n: int,
    seed: int,
    levels: int = 12,
    density: float = 8.0,
    crowd: int = 4,
    polish: int = 3,
) -> Iterator[Restored]:
    """n draws of p(x_0 | y) for y = A·x_0 + noise·n: yields after each level, down to left = 0.

        *_, last = posterior(denoiser, schedule, Mask(known, shape), y, noise=0.05, n=8, seed=0)
        last.mean, last.spread

    All draws are made together and depend on one another: another n gives other draws.

    Args:
        denoiser: E[x_0 | x_t].
        schedule: names the scale in which the denoiser is asked; its noisiest level is where the
            items start, its level 1 what counts as clean.
        operator: A.
        y: one measurement, of the operator's `output_shape`; computed in its dtype.
        noise: σ_y ≥ 0. At 0, A·x = y holds to rounding in the end.
        n: how many draws.
        seed: with the index of an item and the step, determines all noise.
        levels: how many laws there are on the way.
        density: calls for each factor e in σ/α, in each move.
        crowd: items on the way for each draw in the end; the n are drawn from them by weight before
            the last level. It pays for what resampling costs in independence. 0: one each, without
            weights, which is annealed split Gibbs: for few draws of large items, where all weights
            but one would vanish.
        polish: moves at the last level.

    Raises:
        TypeError, ValueError: y of another shape or not finite; arguments out of range; what
            `samplers.sample` raises of a denoiser.
    """
    _check_measurement(operator, y, noise)
    check_whole("n", n, 1, 2**40)
    check_whole("levels", levels, 2, 10**6)
    check_whole("crowd", crowd, 0, 10**6)
    check_whole("polish", polish, 1, 10**6)
    keyed = _Keyed(seed, n * max(crowd, 1), y)
    lowest = _ratio(schedule[1])
    extra = noise / math.sqrt(operator.largest)  # ρ at τ = 0
    top = next(_ratio(schedule[t]) for t in range(schedule.T, 0, -1) if schedule.alpha[t] > 0)
    x, nfe = _reverse(
        denoiser, schedule, keyed(operator.shape) * math.hypot(1, top), top, density, keyed
    )
    away = (y - operator.apply(x)).flatten(1).norm(dim=1).max().item()
    # From here on down: above, the weights of any two differ by less than a factor e^(1/2).
    high = min(max(away / math.sqrt(operator.largest), 2 * lowest), top)
    taus = _falling(high, max(lowest, extra / 4), levels)
    if noise > 0:
        taus.append(0.0)
    log_w = torch.zeros(keyed.n, dtype=torch.float64)
    before: float | None = None
    for k, tau in enumerate(taus, start=1):
        last = k == len(taus)
        if crowd:
            apart = y - operator.apply(x)
            log_w = log_w + _log_ratio(operator, apart, noise, tau, before)
            w = log_w.softmax(0)
            if last or 1 / w.square().sum() < RESAMPLE * len(w):
                keyed.n = n if last else keyed.n
                x, log_w = x[_systematic(w, keyed)], torch.zeros_like(log_w)
        before = tau
        for _ in range(polish if last else 1):
            z, rho = _coupled(operator, x, y, noise, tau, keyed)
            x, calls = _reverse(denoiser, schedule, z, rho, density, keyed)
            nfe += calls
        if last and noise == 0:
            x = x + operator.adjoint(operator.solve(1.0, 0.0, y - operator.apply(x)))
        yield Restored(x, len(taus) - k, nfe)


def pi_gdm(
    denoiser: Denoiser, operator: Operator, y: Float[Tensor, "..."], noise: float
) -> Denoiser:
    """ΠGDM: the denoiser pushed towards y, for any sampler; the same y for all items.

        p(y | x_t) ≈ N(y; A·x̂_0, r²·A·Aᵀ + σ_y²·I),    r² = σ²/(α² + σ²)
        x̂ = x̂_0 + (σ²/α)·∂/∂x_t log p(y | x_t)

    r² is the variance of x_0 given x_t for data of variance 1: bring them to that. The weight is
    Bayes' rule for this p(y | x_t), where the paper's r² rescales it with each step. At α = 0 there
    is no push.

    Raises:
        TypeError, ValueError: y of another shape or not finite; noise that is not a number ≥ 0.

    Source: Song et al. 2023, eq. (7) and (8).
    """
    _check_measurement(operator, y, noise)

    def guided(x_t: Float[Tensor, "B ..."], level: Level) -> Float[Tensor, "B ..."]:
        if level.alpha == 0 or level.sigma == 0:
            return denoiser(x_t, level)
        with torch.enable_grad():
            x = x_t.detach().requires_grad_()
            x_0_hat = denoiser(x, level)
            apart = y.to(x_0_hat) - operator.apply(x_0_hat)
            r2 = (1 - level.alpha_bar).item()
            pull = operator.adjoint(operator.solve(r2, noise**2, apart.detach()))
            (push,) = torch.autograd.grad((x_0_hat * pull).sum(), x)
        return x_0_hat.detach() + align(level.sigma**2 / level.alpha, push) * push

    return guided


def repaint(
    denoiser: Denoiser,
    schedule: Schedule,
    operator: Mask,
    y: Float[Tensor, "..."],
    noise: float,
    n: int,
    seed: int,
    repeats: int = 10,
    first: int = 0,
) -> Iterator[Restored]:
    """RePaint: at each level what is known comes from y, diffused, and the rest from the sampler.

    Each step t → s is made `repeats` times, with the forward step s → t between, so that the two
    parts come to fit. σ_y counts where it is below the noise of the level; below that y is taken
    as it is.

    Raises:
        TypeError, ValueError: y of another shape or not finite; arguments out of range.

    Source: Lugmayr et al. 2022, algorithm 1, with jumps of one step.
    """
    _check_measurement(operator, y, noise)
    check_whole("n", n, 1, 2**40)
    check_whole("repeats", repeats, 1, 10**6)
    keyed = _Keyed(seed, n, y, first)
    ask = Asked(denoiser, range(schedule.T, -1, -1))
    back: LinearSampler = ddim(eta=1.0)
    x = keyed(operator.shape) * torch.hypot(*schedule[schedule.T]).item()
    for t in range(schedule.T, 0, -1):
        at, to = schedule[t], schedule[t - 1]
        (move,) = back.moves(Level(torch.stack([at.alpha, to.alpha]), _pair(at.sigma, to.sigma)))
        assert move.to is not None
        left = (to.sigma.square() - (to.alpha * noise).square()).clamp(min=0).sqrt().item()
        for again in range(repeats):
            x_0_hat = ask(x, at, schedule.T - t)
            x_s = combine(move.to, x, [x_0_hat], keyed(operator.shape))
            known = to.alpha.item() * y + left * keyed(operator.output_shape)
            x_s = x_s + operator.adjoint(known - operator.apply(x_s))
            if again < repeats - 1 and t > 1:
                x = transition(to, at, x_s).at(keyed(operator.shape))
            else:
                x = x_s
                break
        yield Restored(x, t - 1, ask.nfe)


def edit(
    denoiser: Denoiser,
    sampler: Sampler,
    schedule: Schedule,
    x_0: Float[Tensor, "n ..."],
    strength: float,
    seed: int,
    first: int = 0,
) -> Iterator[Restored]:
    """SDEdit: diffuse x_0 to t = strength·T and come back: the coarse stays, the fine is new.

    Args:
        strength: from 0 (nothing changes) to 1 (all but nothing of x_0 stays).

    Raises:
        TypeError, ValueError: a strength out of range; what `sample` raises.

    Source: Meng et al. 2022, algorithm 1.
    """
    check_number("strength", strength, 0, 1, "a share from 0 (unchanged) to 1 (all new)")
    t = round(strength * schedule.T)
    if t == 0:
        yield Restored(x_0, 0, 0)
        return
    shape = tuple(x_0.shape[1:])
    path = Schedule(schedule.alpha[: t + 1], schedule.sigma[: t + 1])
    x = marginal(path[t], x_0).at(keyed_noise(seed, 0, first, len(x_0), shape).to(x_0))
    for step in sample(denoiser, sampler, path, len(x_0), shape, seed, first, x):
        yield Restored(step.x, step.t, step.nfe)


def interpolate(
    denoiser: Denoiser,
    sampler: Sampler,
    schedule: Schedule,
    a: Float[Tensor, "..."],
    b: Float[Tensor, "..."],
    steps: int,
) -> Float[Tensor, "steps ..."]:
    """From a to b through the latent: encode both, go along the great circle, decode.

    z(u) = (sin((1−u)·θ)·z_a + sin(u·θ)·z_b)/sin θ, u from 0 to 1, θ the angle between the latents.
    The ends are a and b up to the errors of the sampler.

    Raises:
        TypeError, ValueError: a and b of different shapes; steps < 2; what `invert` raises.

    Source: Song, Meng, Ermon 2021, section 5.3.
    """
    if a.shape != b.shape:
        raise ValueError(f"a has shape {tuple(a.shape)} and b {tuple(b.shape)}: they must agree")
    check_whole("steps", steps, 2, 2**40)
    *_, top = invert(denoiser, sampler, schedule, torch.stack([a, b]))
    z = top.x.flatten(1).double()
    unit = z / z.norm(dim=1, keepdim=True)
    theta = 2 * torch.atan2((unit[0] - unit[1]).norm(), (unit[0] + unit[1]).norm())
    u = torch.linspace(0, 1, steps, dtype=torch.float64)[:, None]
    # sinc is sin(πx)/(πx): their ratio is right at θ = 0 too.
    of_a, of_b = ((v * torch.sinc(v * theta / math.pi)) for v in (1 - u, u))
    path = (of_a * z[0] + of_b * z[1]) / torch.sinc(theta / math.pi)
    start = path.to(a.dtype).reshape(steps, *a.shape)
    *_, last = sample(denoiser, sampler, schedule, steps, tuple(a.shape), 0, start=start)
    return last.x


def descent(schedule: Schedule, ratio: float, density: float) -> Schedule:
    """Levels from σ/α = ratio to clean, even in log-SNR, in the scale of `schedule`.

    Args:
        schedule: its level 1 is the last before clean data.
        ratio: where to start; at or below level 1 there is one step.
        density: levels for each factor e in σ/α.

    Raises:
        TypeError, ValueError: a density that is not a number > 0; a schedule in no named scale.
    """
    check_number("density", density, 0, 1e6, "a number > 0, such as 8", open_low=True)
    lowest = _ratio(schedule[1])
    # The 1e-9: a start that is level 1 but for rounding.
    count = max(0, math.ceil(density * math.log(ratio / lowest) - 1e-9))
    sigmas = torch.tensor(_falling(ratio, lowest, count + 1)[::-1], dtype=torch.float64)
    return from_sigmas(sigmas)._in_scale_of(schedule)


class _Keyed:
    """Noise of (seed, draw, step), the next step at each call."""

    def __init__(self, seed: int, n: int, like: Tensor, first: int = 0) -> None:
        self.seed, self.n, self.like = check_seed(seed), n, like
        self.first, self.step = first, -1

    def __call__(self, shape: tuple[int, ...]) -> Float[Tensor, "n ..."]:
        self.step += 1
        return keyed_noise(self.seed, self.step, self.first, self.n, shape).to(self.like)

    def uniform(self) -> float:
        """One number in (0, 1) for all draws."""
        self.step += 1
        return torch.special.ndtr(keyed_noise(self.seed, self.step, 0, 1, ()).double()).item()


def _reverse(
    denoiser: Denoiser,
    schedule: Schedule,
    z: Float[Tensor, "n ..."],
    rho: float,
    density: float,
    keyed: _Keyed,
) -> tuple[Float[Tensor, "n ..."], int]:
    """x ~ p(x | z) for z = x + ρ·e, by the reverse process, and the calls it took."""
    path = descent(schedule, rho, density)
    ask = Asked(denoiser, range(path.T, -1, -1))
    x = align(path[path.T].alpha, z) * z
    down = Level(path.alpha.flip(0), path.sigma.flip(0))
    shape = tuple(z.shape[1:])
    with torch.no_grad():
        *_, (_, x, _) = dpmpp_2m_sde().run(ask, x, down, lambda draw: keyed(shape))
    return x, ask.nfe


def _coupled(
    operator: Operator,
    x: Float[Tensor, "n ..."],
    y: Float[Tensor, "..."],
    noise: float,
    tau: float,
    keyed: _Keyed,
) -> tuple[Float[Tensor, "n ..."], float]:
    """z ~ p(z | x, y) and ρ, by Matheron's rule: a draw of (z, y) given x, corrected by y."""
    largest = operator.largest
    rho = math.hypot(tau, noise / math.sqrt(largest))
    z = x + rho * keyed(operator.shape)
    # The noise of y that is not in A·e already: σ_y²·(I − A·Aᵀ/λ_max), 0 where A·Aᵀ = λ·I.
    rest = operator.gram(
        lambda v: noise * (1 - v / largest).clamp(min=0).sqrt(), keyed(operator.output_shape)
    )
    off = y - operator.apply(z) - rest
    return z + rho**2 * operator.adjoint(operator.solve(tau**2, noise**2, off)), rho


def _check_measurement(operator: Operator, y: Float[Tensor, "..."], noise: float) -> None:
    check_number("noise", noise, 0, math.inf, _NOISE)
    if not y.is_floating_point():
        raise TypeError(f"y has dtype {y.dtype}: it must be real numbers; call y.float()")
    if tuple(y.shape) != operator.output_shape:
        raise ValueError(
            f"y has shape {tuple(y.shape)}: this operator gives {operator.output_shape}"
        )
    if not y.isfinite().all():
        raise ValueError("y holds NaN or inf: every number must be finite; mask those out")


def _ratio(level: Level) -> float:
    return (level.sigma / level.alpha).item()


def _falling(high: float, low: float, count: int) -> list[float]:
    """From high to low in even factors."""
    if count == 1:
        return [high]
    step = math.log(low / high) / (count - 1)
    return [high * math.exp(i * step) for i in range(count)]


def _pair(a: Float64[Tensor, ""], b: Float64[Tensor, ""]) -> Float64[Tensor, " 2"]:
    return torch.stack([a, b])


def _log_ratio(
    operator: Operator,
    apart: Float[Tensor, "n ..."],
    noise: float,
    tau: float,
    before: float | None,
) -> Float64[Tensor, " n"]:
    """log N(apart; 0, τ²·A·Aᵀ + σ_y²) − the same at the τ before, up to a constant of all items."""

    def squares(tau: float) -> Float64[Tensor, " n"]:
        inverse = operator.solve(tau**2, noise**2, apart)
        return (apart.double() * inverse.double()).flatten(1).sum(1)

    return -0.5 * (squares(tau) - (0.0 if before is None else squares(before)))


def _systematic(w: Float64[Tensor, " m"], keyed: _Keyed) -> Int64[Tensor, " n"]:
    """Which items to take, each about n·w times (Carpenter, Clifford, Fearnhead 1999)."""
    at = (torch.arange(keyed.n, dtype=torch.float64) + keyed.uniform()) / keyed.n
    return torch.searchsorted(w.cumsum(0), at).clamp(max=len(w) - 1)
