"""Exact likelihood: the density that a denoiser gives to clean items, by the probability flow.

With w = asinh(α/σ), so that α = tanh w and σ = 1/cosh w, the flow moves items and their density:

    dx/dw = f(x, w) = x̂_0(x, w) − tanh(w)·x            w from 0 (pure noise) to ∞ (clean)
    d log p_w(x)/dw = −tr ∂f/∂x = D·tanh(w) − tr ∂x̂_0/∂x       along it

Chen et al. 2018, theorem 1; Song et al. 2021, appendix D.2, in another time. Both slopes are finite
at every w, and where the data have a density both fall off like σ² towards clean data. Items are
led from w_1 to the noisiest level of a schedule, w_T, where sampling starts from a known law:

    log p(x_0) = log p_T(x_T) + ∫ (D·tanh(w) − tr ∂x̂_0/∂x) dw + D·log α_1      from w_T to w_1

The trace is a sum of D derivatives, or Hutchinson's estimate: the mean of zᵀ(∂x̂_0/∂x)z over random
z ∈ {−1, 1}^D (Hutchinson 1990; Grathwohl et al. 2019, section 3.1), the same z all along the flow.
"""

import math
from collections.abc import Iterator
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from alphabar.arguments import check_number, check_seed, check_whole
from alphabar.bound import check_items
from alphabar.noise import keyed_noise
from alphabar.samplers.adaptive import solve, vp_level
from alphabar.samplers.base import Denoiser, Normal, eigen
from alphabar.schedule import Level, Schedule

Trace = Literal["exact", "hutchinson"]

CLEAN = 1e-5  # σ/α at w_1, in units of the data's standard deviation
MOST = 1024  # dimensions up to which the trace is summed exactly
UNSETTLED = 0.5  # nats for an e-fold of σ/α: with no density in k directions there are k


class Likelihood(NamedTuple):
    """log p(x_0) of each item, and what it cost."""

    log_prob: Float64[Tensor, " n"]  # nats, of the whole item
    standard_error: Float64[Tensor, " n"] | None  # over the probes; None of an exact trace
    nfe: int  # calls of the denoiser that the slowest item needed


@torch.no_grad()
def log_likelihood(
    denoiser: Denoiser,
    x_0: Float[Tensor, "n ..."],
    schedule: Schedule,
    start: Normal | None = None,
    trace: Trace = "exact",
    probes: int = 8,
    seed: int = 0,
    tolerance: float = 1e-6,
    clean: float | None = None,
    first: int = 0,
    batch: int = 4096,
) -> Likelihood:
    """log p(x_0) of what `sample` would draw, were its steps infinitely fine.

    What is returned is the log-density of x_0 + ρ·ε, ρ the σ/α at which the flow ends. With the
    exact denoiser and a start that fits, it is `target.log_prob(x_0, Level(1, ρ))`. With ρ → 0 it
    tends to log p(x_0), where there is one: by default ρ is so small that it differs only for
    data that have details finer than a thousandth of their size, and a denoiser whose density has
    not come to rest there is refused.

    Args:
        denoiser: returns x̂_0 for (x_t, level), differentiable in x_t, each item's from that item
            alone. It is called in x_0's dtype; the flow itself is followed in float64.
        x_0: clean items. In float32 the result is good to about 1e-4 nats.
        schedule: its noisiest level is where the flow begins; its other levels do not matter.
        start: the law of x_T, as of `sample`: N(0, I), in the variance-preserving scale, if not
            given; else N(α_T·mean, α_T²·cov + σ_T²·I).
        trace: `exact` takes D backward passes a call, `hutchinson` one for each probe.
        probes: random directions of Hutchinson's estimate; two or more give a standard error.
        seed: with an item's index, determines its probes.
        tolerance: of a step: the error of x, relative and in units of the data's standard
            deviation (at most 1), and of log p in nats per dimension.
        clean: ρ, in the data's units. None: 1e-5 of the standard deviation of `start`, or 1e-5.
        first: index of the first item, to do a large set in parts.
        batch: items in a call; memory is of the order of that call.

    Raises:
        TypeError: x_0 is not of a floating-point dtype.
        ValueError: x_0 is not finite; no density at ρ, where `clean` is not given; more than 1024
            dimensions with an exact trace; a schedule that ends cleaner than ρ; a denoiser whose
            answer has no gradient, another shape or dtype, or is not finite; a tolerance that
            x_0's dtype cannot resolve; a flow too fast to follow; arguments out of range.

    >>> from alphabar import schedule
    >>> from alphabar.targets import Mixture
    >>> normal = Mixture([1], torch.zeros(1, 1), var=torch.tensor([0.25]))
    >>> found = log_likelihood(normal, torch.tensor([[0.5]]), schedule.cosine())
    >>> truth = -0.5 - math.log(0.5 * math.sqrt(2 * math.pi))  # one standard deviation out
    >>> abs(found.log_prob.item() - truth) < 1e-3
    True
    """
    _check(x_0, start, trace, tolerance)
    check_whole("probes", probes, 1, 2**20)
    check_seed(seed)
    check_whole("first", first, 0, 2**40)
    check_whole("batch", batch, 1, 2**40)
    scale = 1.0 if start is None else math.sqrt(start.cov.trace().item() / len(start.cov)) or 1.0
    rho = CLEAN * scale
    if clean is not None:
        rho = check_number("clean", clean, 0, math.inf, "a sigma/alpha > 0", open_low=True)
    top = schedule[schedule.T]
    if top.alpha * rho >= top.sigma:
        raise ValueError(
            f"the schedule's noisiest level has sigma/alpha = {(top.sigma / top.alpha).item():.4g},"
            f" which is no more than that of clean data, {rho:.4g}: give a smaller clean, or a "
            "schedule that ends in more noise"
        )
    ends = (
        torch.asinh(torch.tensor(1 / rho, dtype=torch.float64)),
        torch.asinh(top.alpha / top.sigma),
    )
    found, calls = [], 0
    for i in range(0, len(x_0), batch):
        part = x_0[i : i + batch]
        signs = _signs(part, seed, probes, first + i) if trace == "hutchinson" else None
        flow = _Flow(denoiser, part, signs)
        found.append(_log_prob(flow, part, ends, start, tolerance, min(1.0, scale), clean is None))
        calls = max(calls, flow.calls)
    each = torch.cat(found)
    several = trace == "hutchinson" and probes > 1
    error = each.std(1) / math.sqrt(probes) if several else None
    return Likelihood(each.mean(1), error, calls)


def _log_prob(
    flow: "_Flow",
    x_0: Float[Tensor, "n ..."],
    ends: tuple[Float64[Tensor, ""], Float64[Tensor, ""]],
    start: Normal | None,
    tolerance: float,
    unit: float,
    settled: bool,
) -> Float64[Tensor, "n K"]:
    """log p(x_0), one estimate for each probe; refused if it should be settled and is not."""
    w_1, w_T = ends
    n, d = len(x_0), x_0[0].numel()
    x_1 = w_1.tanh() * x_0.double().reshape(n, d)
    y = torch.cat([x_1, x_1.new_zeros(n, flow.estimates)], 1)
    slope = flow(y, w_1.expand(n), torch.arange(n))
    change = slope[:, d:].mean(1).abs().mean().item()
    if settled and change >= UNSETTLED:
        raise ValueError(
            f"at sigma/alpha = {1 / w_1.sinh().item():.4g} the log-density still changes by "
            f"{change:.3g} nats for each e-fold of noise: it has no limit at clean data, as that "
            "of a finite set of points, which has no density; name in `clean` the noise at which "
            "you want it, such as 0.01"
        )

    def norm(error: Tensor, y: Tensor, y_new: Tensor) -> Tensor:
        size = unit + torch.maximum(y[:, :d].abs(), y_new[:, :d].abs())
        moved = (error[:, :d] / size).square().mean(1)
        gained = (error[:, d:] / d).square().mean(1)
        return torch.maximum(moved, gained).sqrt() / tolerance

    advice = f"at tolerance = {tolerance:g}: raise it, or give a larger clean"
    h = torch.full((n,), 0.1, dtype=torch.float64)
    y, _ = solve(flow, y, slope, w_1, w_T, h, norm, advice)
    at_start = _log_start(start, vp_level(w_T), y[:, :d])
    return at_start[:, None] - y[:, d:] + d * w_1.tanh().log()


class _Flow:
    """The slopes above, of (n, D + K) numbers: an item's x, and log p by each of K estimates."""

    def __init__(
        self,
        denoiser: Denoiser,
        x_0: Float[Tensor, "n ..."],
        signs: Float[Tensor, "n K ..."] | None,
    ) -> None:
        self.denoiser, self.signs = denoiser, signs
        self.shape, self.dtype = x_0.shape[1:], x_0.dtype
        self.estimates = 1 if signs is None else signs.shape[1]
        self.calls = 0

    def __call__(
        self, y: Float64[Tensor, "m E"], w: Float64[Tensor, " m"], rows: Int64[Tensor, " m"]
    ) -> Float64[Tensor, "m E"]:
        """dx/dw and d log p/dw.

        Raises:
            ValueError: an answer that will not do.
        """
        d = math.prod(self.shape)
        self.calls += 1
        with torch.enable_grad():
            x = y[:, :d].to(self.dtype).reshape(-1, *self.shape).requires_grad_()
            x_0_hat = self.denoiser(x, vp_level(w))
            _check_answer(x, x_0_hat, w)
            traces = torch.stack(list(self._traces(x, x_0_hat, rows)), 1)
        if not traces.isfinite().all():
            raise ValueError(
                f"{_place(w)} the denoiser's derivative is NaN or inf: look for functions that are "
                "not smooth, such as a square root or a norm at 0"
            )
        alpha = w.tanh()[:, None].to(y.device)
        dx = x_0_hat.detach().double().reshape(-1, d) - alpha * y[:, :d]
        return torch.cat([dx, d * alpha - traces], 1)

    def _traces(
        self, x: Float[Tensor, "m ..."], x_0_hat: Float[Tensor, "m ..."], rows: Int64[Tensor, " m"]
    ) -> Iterator[Float64[Tensor, " m"]]:
        """tr ∂x̂_0/∂x: the sum of all derivatives, or an estimate by each probe."""
        if self.signs is not None:
            for z in self.signs[rows].unbind(1):
                yield (_pulled(x, x_0_hat, z) * z).double().flatten(1).sum(1)
            return
        total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        for i in range(math.prod(self.shape)):
            unit = torch.zeros_like(x)
            unit.reshape(len(x), -1)[:, i] = 1
            total += _pulled(x, x_0_hat, unit).reshape(len(x), -1)[:, i]
        yield total


def _place(w: Float64[Tensor, " m"]) -> str:
    """For errors: the noise that the cleanest item was at."""
    return f"at sigma/alpha = {(1 / w.max().sinh()).item():.4g}"


def _check_answer(x: Float[Tensor, "m ..."], x_0_hat: Tensor, w: Float64[Tensor, " m"]) -> None:
    if x_0_hat.shape != x.shape or x_0_hat.dtype != x.dtype:
        raise ValueError(
            f"{_place(w)} the denoiser returned {x_0_hat.dtype} of shape {tuple(x_0_hat.shape)} "
            f"for x of {x.dtype} and shape {tuple(x.shape)}: it must return one x_0 for each item, "
            "in x's dtype"
        )
    if not x_0_hat.isfinite().all():
        raise ValueError(
            f"{_place(w)} the denoiser returned NaN or inf: look at its input and its weights there"
        )


def _pulled(
    x: Float[Tensor, "m ..."], x_0_hat: Float[Tensor, "m ..."], z: Float[Tensor, "m ..."]
) -> Float[Tensor, "m ..."]:
    """zᵀ·∂x̂_0/∂x of each item."""
    if x_0_hat.requires_grad:
        (pulled,) = torch.autograd.grad(x_0_hat, x, z, retain_graph=True, allow_unused=True)
        if pulled is not None:
            return pulled
    raise ValueError(
        "the denoiser's answer has no derivative in x, and the density needs it: let it be made "
        "without torch.no_grad or .detach()"
    )


def _log_start(
    start: Normal | None, top: Level, x: Float64[Tensor, "n D"]
) -> Float64[Tensor, " n"]:
    """log of the density from which sampling starts, in the variance-preserving scale."""
    if start is None:
        return -0.5 * (x.square() + math.log(2 * math.pi)).sum(1)
    values, vectors = (v.to(x.device) for v in eigen(start.cov))
    var = top.alpha**2 * values.clamp(min=0) + top.sigma**2
    apart = (x - top.alpha * start.mean.to(x).flatten()) @ vectors
    return -0.5 * (apart.square() / var + (2 * math.pi * var).log()).sum(1)


def _signs(
    x_0: Float[Tensor, "n ..."], seed: int, probes: int, first: int
) -> Float[Tensor, "n K ..."]:
    """Random numbers of {−1, 1}, which an item's index determines."""
    drawn = [
        keyed_noise(seed, probe, first, len(x_0), tuple(x_0.shape[1:])) for probe in range(probes)
    ]
    return torch.where(torch.stack(drawn, 1) < 0, -1.0, 1.0).to(x_0)


def _check(
    x_0: Float[Tensor, "n ..."], start: Normal | None, trace: Trace, tolerance: float
) -> None:
    check_items(x_0, start)
    if trace not in get_args(Trace):
        raise ValueError(f"trace = {trace!r}: choose {' or '.join(get_args(Trace))}")
    d = x_0[0].numel()
    if trace == "exact" and d > MOST:
        raise ValueError(
            f"{d} numbers an item: an exact trace takes as many backward passes a call, so it is "
            f"for up to {MOST}; use trace = 'hutchinson'"
        )
    check_number("tolerance", tolerance, 1e-12, 1, "a tolerance from 1e-12 to 1, such as 1e-6")
    finest = 4 * torch.finfo(x_0.dtype).eps
    if tolerance < finest:
        # Rounding would be taken for the method's error, and steps grow tiny to lower it.
        raise ValueError(
            f"tolerance = {tolerance:g}: {x_0.dtype} resolves no error below {finest:.1g}; raise "
            "it, or give x_0 in float64"
        )
