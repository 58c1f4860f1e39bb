# mypy: allow-untyped-calls
"""What each bug does, measured: on the Swiss roll, or on the law where the roll shows nothing.

    ratio² = SW2²(samples)/E SW2²(true sets of the same size)        1 for truth, see `metrics`

A sampler is handed the exact denoiser of the roll, so nothing but the bug and the length of its
steps is in the result. A loss is handed exact models of rival targets: the one with the lower loss
is what a network learns, and it is sampled by right code. All is seeded.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from alphabar import data
from alphabar.check.gallery import right, wrong
from alphabar.check.stranger import seeded
from alphabar.metrics import Yardstick, against_fresh
from alphabar.schedule import Level
from alphabar.targets import Curve

N = 2000  # points
Model = Callable[[Tensor, Any], Tensor]
Code = Callable[..., Any]


class Row(NamedTuple):
    """A number that the bug changes."""

    what: str
    both: Sequence[float]  # of the right and of the wrong code
    law: float | None = None  # what it should be, where that is known apart from the code


class Clouds(NamedTuple):
    """Points (n, 2) of the right and of the wrong code."""

    both: Sequence[Tensor]
    hue: Tensor | None = None


class Lines(NamedTuple):
    """Numbers of the right and of the wrong code over the same x."""

    x: Tensor
    both: Sequence[Tensor]
    across: str
    up: str
    logarithmic: str = ""  # "y", "xy"


class Seen(NamedTuple):
    """What was measured, and what is drawn."""

    rows: Sequence[Row]
    drawn: Clouds | Lines


# --- the roll, and what is known of it


@cache
def roll(seed: int = 0) -> data.Data:
    """The points that are drawn and noised."""
    return data.swiss_roll(N, seed=seed)


@cache
def law() -> Curve:
    """The law of the points."""
    target = roll().target
    assert target is not None
    found = target()
    assert isinstance(found, Curve)
    return found


@cache
def _yardstick() -> Yardstick:
    fresh = roll().fresh
    assert fresh is not None
    return against_fresh(N, fresh)


def ratio(x: Tensor) -> float:
    """The score of N points; NaN if one of them is not finite."""
    if not x.isfinite().all():
        return math.nan
    return _yardstick().score([x.double()]).ratio


def _x_0() -> Tensor:
    return roll().x.float()


def _believed(x: Tensor, a: Tensor, size: float = 1.0, shift: float = 0.0) -> Tensor:
    """E[x_0 | x_t] at ᾱ = a, of data that are size·roll + shift."""
    a = a.double().flatten()
    a = a if len(a) == len(x) else a[0]
    root = a.sqrt().reshape(-1, 1)
    moved = Level(a.sqrt(), (1 - a).sqrt() / size)
    there = x.isfinite().all(1, keepdim=True)
    # No right code comes near 30; further out the nodes that a point sees would take seconds.
    known = x.double().where(there, 0.0).clamp(-30, 30)
    found = law().denoise((known - root * shift) / size, moved) * size + shift
    return found.where(there, math.nan).to(x.dtype)


def exact(predicts: str, size: float = 1.0, shift: float = 0.0, table: Any = None) -> Model:
    """The exact model of the roll, told an index of the notebook's levels."""
    alpha_bar = right.alpha_bar if table is None else table

    def model(x: Tensor, t: Any) -> Tensor:
        a = alpha_bar[t].reshape(-1, 1)
        x_0 = _believed(x, a, size, shift)
        eps = (x - a.sqrt() * x_0) / (1 - a).sqrt()
        return {
            "x_0": x_0,
            "eps": eps,
            "v": a.sqrt() * eps - (1 - a).sqrt() * x_0,
            "score": -eps / (1 - a).sqrt(),
            "x_t": x,
        }[predicts]

    return model


def _denoise(x: Tensor, sigma: float) -> Tensor:
    """E[x_0 | x_0 + σ·ε = x]."""
    one = torch.tensor(1.0, dtype=torch.float64)
    return law().denoise(x, Level(one, one * sigma))


def _ddim(believe: Model, table: Tensor) -> Tensor:
    """N(0, I) led down a table of ᾱ by its 100 steps."""
    with seeded(0):
        x = torch.randn(N, 2)
    for t in reversed(range(len(table))):
        x_0, a = believe(x, t), table[t]
        eps = (x - a.sqrt() * x_0) / (1 - a).sqrt()
        b = table[t - 1] if t else torch.tensor(1.0)
        x = right.ddim_step(x, eps, a, b)
    return x


def _ancestral(step: Code, *models: Model) -> Tensor:
    """N(0, I) led down all levels by steps of one, step(*models, x, t)."""
    with seeded(0):
        x = torch.randn(N, 2)
        for t in reversed(range(100)):
            x = step(*models, x, torch.full((N,), t))
    return x


def _samples(both: Sequence[Tensor], *rows: Row) -> Seen:
    return Seen((Row("ratio of the samples", [ratio(x) for x in both], 1.0), *rows), Clouds(both))


def _run(code: Code, *values: Any, seed: int = 0) -> Tensor:
    with seeded(seed):
        return code(*values)


def _finite(x: Tensor) -> float:
    return x.isfinite().all(1).double().mean().item()


def loops(one: Code, other: Code, predicts: str = "eps", *more: Any) -> Seen:
    """Two sampling loops, with the exact model, and with one that knows x_0."""
    codes = (one, other)
    found = [_run(code, exact(predicts), (N, 2), *more) for code in codes]
    return _samples(found, *_audit([lambda m, c=c: c(m, (N, 2), *more) for c in codes], predicts))


def late_start() -> Seen:
    """A12."""
    codes = (right.ddim_sample, wrong.ddim_sample_a12)
    held = []
    for code in codes:
        model = Knowing("eps")
        _run(code, model, (N, 2), 10)
        held.append(right.alpha_bar[model.told[0]].sqrt().item())
    row = Row("share √ᾱ of x_0 that should be in the first x", held)
    return _samples([_run(code, exact("eps"), (N, 2), 10) for code in codes], row)


class Knowing:
    """A model that knows x_0, and measures the noise in what it is asked about."""

    def __init__(self, predicts: str) -> None:
        self.predicts, self.noise, self.told = predicts, list[float](), list[Any]()

    def __call__(self, x: Tensor, t: Any) -> Tensor:
        """What follows from x_0 at the level that it is told."""
        a = right.alpha_bar[t].reshape(-1, 1)
        eps = (x - a.sqrt() * _x_0()) / (1 - a).sqrt()
        self.told.append(t)
        self.noise.append(eps.square().mean().sqrt().item())
        return {"eps": eps, "x_0": _x_0()}[self.predicts]

    @property
    def worst(self) -> float:
        """The noise that was furthest from 1, on the scale of ratios."""
        return max(self.noise, key=lambda v: abs(math.log(v)) if v > 0 else math.inf)


def _audit(loops_: Sequence[Code], predicts: str) -> tuple[Row, Row]:
    """No method has an error with a model that knows x_0: what is wrong is the bug."""
    worst, apart = [], []
    for loop in loops_:
        model = Knowing(predicts)
        apart.append((_run(loop, model) - _x_0()).square().mean().sqrt().item())
        worst.append(model.worst)
    return (
        Row("noise in x over that of the level told, at its worst", worst, 1.0),
        Row("error in the end of a model that knows x_0", apart, 0.0),
    )


def steps(one: Code, other: Code) -> Seen:
    """Two steps of a sampler, all the way down, with the exact model."""
    return _samples([_ancestral(code, exact("eps")) for code in (one, other)])


# --- from data to noise


def chains(one: Code, other: Code) -> Seen:
    """The roll after all 100 steps."""

    def end(step: Code) -> Tensor:
        x = _x_0()
        with seeded(0):
            for t in range(100):
                x = step(x, torch.full((N,), t))
        return x

    both = [end(one), end(other)]
    kept = right.alpha_bar[-1].item()
    mean, var = law().mean.mean().item(), law().cov.diagonal().mean().item()
    rows = (
        Row("mean of x_T", [x.mean().item() for x in both], kept**0.5 * mean),
        Row("variance of x_T", [x.var(0).mean().item() for x in both], kept * var + 1 - kept),
    )
    return Seen(rows, Clouds(both, roll().hue))


def noise_unused() -> Seen:
    """A3: what a network can learn of a noise that is not in x_t."""
    t = torch.full((N,), 25)
    with seeded(0):
        noise = torch.randn(N, 2)
    x = [_run(code, _x_0(), t, noise, seed=1) for code in (right.q_sample, wrong.q_sample_a3)]
    a = right.alpha_bar[25]
    there = [(x_t - a.sqrt() * _x_0()) / (1 - a).sqrt() for x_t in x]
    same = [torch.corrcoef(torch.stack([z.flatten(), noise.flatten()]))[0, 1].item() for z in there]
    losses = [(exact("eps")(x_t, t) - noise).square().mean().item() for x_t in x]
    rows = (
        Row("correlation of the noise given with that in x_t, t = 26", same, law=1.0),
        Row("loss of the exact model", losses),
    )
    return Seen(rows, Clouds(x, roll().hue))


def noise_by_data() -> Seen:
    """A6."""
    t = torch.full((N,), 40)
    x = [_run(code, _x_0(), t) for code in (right.q_sample, wrong.q_sample_a6)]
    at_0 = [_run(code, torch.zeros(N, 2), t) for code in (right.q_sample, wrong.q_sample_a6)]
    law_ = (1 - right.alpha_bar[40]).sqrt().item()
    row = Row("std of x_t at x_0 = 0, t = 41", [z.std().item() for z in at_0], law=law_)
    return Seen((row,), Clouds(x, roll().hue))


def mixed_in_another_scale() -> Seen:
    """A7: noised, then denoised by a sampler that takes x_t for x_0 + σ·ε."""
    t = 25
    a = right.alpha_bar[: t + 1].double()
    down = torch.cat([((1 - a) / a).sqrt().flip(0), torch.zeros(1)])
    found, slopes = [], []
    for code in (right.ve_sample, wrong.ve_sample_a7):
        x = _run(code, _x_0(), torch.full((N,), t))
        slopes.append((((x * _x_0()).mean() - x.mean() * _x_0().mean()) / _x_0().var()).item())
        found.append(right.heun_sample(_denoise, x.double(), down))
    return _samples(found, Row("what multiplies x_0 in x_t, t = 26", slopes, law=1.0))


def in_half() -> Seen:
    """A35."""
    t = torch.arange(100)
    zero, noise = torch.zeros(100, 1, dtype=torch.bfloat16), torch.ones(100, 1).bfloat16()
    codes = (right.q_sample_in_half, wrong.q_sample_in_half_a35)
    sizes = [code(zero, t, noise).float().flatten() for code in codes]
    should = (1 - right.alpha_bar).sqrt()
    off = [((size - should) / should).abs().max().item() for size in sizes]
    rows = (
        Row("noise in x_t at t = 1, bfloat16", [s[0].item() for s in sizes], law=should[0].item()),
        Row("greatest relative error of √(1 − ᾱ_t)", off, law=0.0),
    )
    few = slice(0, 8)
    return Seen(rows, Lines(t[few] + 1, [s[few] for s in sizes], "t", "noise in x_t"))


# --- schedules


def betas_for_1000() -> Seen:
    """A13: sampling from N(0, I) down a schedule that does not end there."""
    tables = [torch.cumprod(1 - code(100), 0) for code in (right.make_betas, wrong.make_betas_a13)]
    found = [_ddim(exact("x_0", table=a), a) for a in tables]
    return _samples(found, Row("ᾱ_T", [a[-1].item() for a in tables], law=0.0))


def clean_value_kept() -> Seen:
    """A10."""
    tables = [code(100) for code in (right.cosine_alpha_bar, wrong.cosine_alpha_bar_a10)]
    finite = []
    for a in tables:
        x = _ddim(exact("x_0", table=a.float()), a.float())
        finite.append(_finite(x))
    rows = (
        Row("1 − ᾱ of the first step", [(1 - a[0]).item() for a in tables]),
        Row("share of samples that are finite", finite, law=1.0),
    )
    few = slice(0, 8)
    x = torch.arange(1, 101)[few]
    noise = [1 - a[few] for a in tables]
    return Seen(rows, Lines(x, noise, "t", r"$1 - \bar\alpha_t$"))


def slope_doubled() -> Seen:
    """A14: the probability flow dx = σ′·(x − x̂_0)/σ·dt, by Euler's method from t = 1."""
    t = torch.linspace(0, 1, 100_001, dtype=torch.float64)[1:]
    levels = torch.logspace(right.sigma(t[-1]).log10(), -1.7, 501, dtype=torch.float64)
    # t at which σ falls by the same factor in each step
    place = torch.searchsorted(right.sigma(t), levels).clamp(max=len(t) - 1)
    times = t[place]
    found = []
    for slope in (right.sigma_prime, wrong.sigma_prime_a14):
        with seeded(0):
            x = torch.randn(N, 2, dtype=torch.float64) * right.sigma(times[0])
        for here, there in pairwise(times):
            sigma = right.sigma(here)
            x = x + (there - here) * slope(here) * (x - _denoise(x, sigma.item())) / sigma
        found.append(x)
    half = torch.tensor(0.5, dtype=torch.float64)
    step = 1e-5
    by_difference = (right.sigma(half + step) - right.sigma(half - step)) / (2 * step)
    slopes = [f(half).item() for f in (right.sigma_prime, wrong.sigma_prime_a14)]
    return _samples(found, Row("σ′(½)", slopes, law=by_difference.item()))


def no_zero_at_the_end() -> Seen:
    """A28."""
    tables = [code(20) for code in (right.karras_sigmas, wrong.karras_sigmas_a28)]
    with seeded(0):
        x_T = 80 * torch.randn(N, 2, dtype=torch.float64)
    found = [right.heun_sample(_denoise, x_T, sigmas) for sigmas in tables]
    # With a model that knows x_0 nothing else is left.
    x_0 = roll().x
    ends = [right.heun_sample(lambda x, sigma: x_0, x_0 + x_T, sigmas) for sigmas in tables]
    off = [(x - x_0).square().mean().sqrt().item() for x in ends]
    rows = (
        Row("last σ", [s[-1].item() for s in tables], law=0.0),
        Row("error in the end of a model that knows x_0", off, law=0.0),
    )
    return _samples(found, *rows)


# --- training


def times_out_of_range() -> Seen:
    """A5."""
    with seeded(0):
        one, other = right.flow_times(10_000), wrong.flow_times_a5(10_000)
    outside = [((t < 0) | (t > 1)).double().mean().item() for t in (one, other)]
    late = [((t > 0.9) & (t <= 1)).double().mean().item() for t in (one, other)]
    at = torch.linspace(-3, 3, 121)
    below = [(t[None] <= at[:, None]).double().mean(1) for t in (one, other)]
    rows = (
        Row("share of t outside 0 … 1", outside, law=0.0),
        Row("share of t in 0.9 … 1", late, law=0.1),
    )
    return Seen(rows, Lines(at, below, "t", "share of the times below t"))


def losses(one: Code, other: Code, predicts: str, rival: Model, rival_name: str) -> Seen:
    """What a network learns by each loss, sampled by right code as a model of `predicts`."""
    truth = exact(predicts)
    with seeded(0):
        t = torch.randint(0, 100, (N,))
        noise = torch.randn(N, 2)
    found, of_truth, of_rival = [], [], []
    for loss in (one, other):
        values = [loss(model, _x_0(), t, noise).item() for model in (truth, rival)]
        learnt = truth if values[0] < values[1] else rival
        of_truth.append(values[0])
        of_rival.append(values[1])
        found.append(_sampled_by(learnt, predicts))
    rows = (
        Row(f"loss of the exact {_NAMES[predicts]}", of_truth),
        Row(f"loss of {rival_name}", of_rival),
    )
    return _samples(found, *rows)


_NAMES = {"eps": "ε̂", "x_0": "x̂_0", "v": "v̂", "score": "score"}


def _sampled_by(model: Model, predicts: str) -> Tensor:
    """Right sampling, of a model whose answer is taken for what it should be."""

    def believe(x: Tensor, t: int) -> Tensor:
        a, answer = right.alpha_bar[t], model(x, t)
        b = 1 - a
        return {
            "x_0": answer,
            "eps": (x - b.sqrt() * answer) / a.sqrt(),
            "v": a.sqrt() * x - b.sqrt() * answer,
            "score": (x + b * answer) / a.sqrt(),
        }[predicts]

    return _run(right.ddim_sample_by_x_0, believe, (N, 2), 50)


def range_twice() -> Seen:
    """A9: pictures of two pixels, a quarter of the roll around ½."""
    images = _x_0() / 4 + 0.5
    with seeded(0):
        t = torch.randint(0, 100, (N,))
        noise = torch.randn(N, 2)
    # The networks' data: 2·images − 1 = roll/2, or once more roll − 1.
    models = [exact("eps", 0.5), exact("eps", 1.0, -1.0)]
    found, table = [], []
    for loss in (right.image_loss, wrong.image_loss_a9):
        values = [loss(model, images, t, noise).item() for model in models]
        table.append(values)
        x = _sampled_by(models[values.index(min(values))], "eps")
        found.append(4 * ((x + 1) / 2 - 0.5))  # to [0, 1], and to the units of the roll
    rows = [
        Row(f"loss of the exact ε̂ of {name}", [losses_[k] for losses_ in table])
        for k, name in enumerate(("data in [−1, 1]", "data in [−3, 1]"))
    ]
    return _samples(found, *rows)


def weights(one: Code, other: Code) -> Seen:
    """Weights over t."""
    t = torch.arange(100)
    found = [code(t) for code in (one, other)]
    rows = [
        Row(f"weight at t = {k + 1}", [w[k].item() for w in found], law=_min_snr(k))
        for k in (0, 50, 99)
    ]
    return Seen(rows, Lines(t + 1, found, "t", "weight", "y"))


def _min_snr(t: int) -> float:
    """min(SNR, 5)/SNR, by the sum of logarithms."""
    log_abar = torch.log1p(-right.betas[: t + 1].double()).sum()
    return min(1.0, 5 * torch.expm1(-log_abar).item())


def weight_not_finite() -> Seen:
    """A19."""
    t = torch.arange(100)
    found = [code(t) for code in (right.min_snr_weight_to_zero, wrong.min_snr_weight_to_zero_a19)]
    with seeded(0):
        batches = torch.randint(0, 100, (2000, 64))
    lost = [w[batches].mean(1).isfinite().double().mean().item() for w in found]
    rows = (
        Row("weight at T, where SNR = 0", [w[-1].item() for w in found], law=1.0),
        Row("share of batches of 64 with a finite loss", lost, law=1.0),
    )
    last = slice(90, 100)
    return Seen(rows, Lines(t[last] + 1, [w[last] for w in found], "t", "weight"))


def weights_averaged() -> Seen:
    """A18: the weight of each item, by the gradient in the model's answer."""
    t = torch.arange(100)
    with seeded(0):
        x_0, noise = _x_0()[:100], torch.randn(100, 2)
    found = []
    for loss in (right.weighted_loss, wrong.weighted_loss_a18):
        answer = torch.zeros(100, 2, requires_grad=True)
        value = loss(lambda x, t, answer=answer: answer, x_0, t, noise)
        (gradient,) = torch.autograd.grad(value, answer)
        found.append((gradient * noise).sum(1) / noise.square().sum(1) * -100)
    rows = [
        Row(f"weight at t = {k + 1}", [w[k].item() for w in found], law=_min_snr(k))
        for k in (0, 10, 99)
    ]
    return Seen(rows, Lines(t + 1, found, "t", "weight of an item", "y"))


def embedded() -> Seen:
    """A22."""
    with seeded(0):
        order = torch.randperm(100)
    codes = (right.time_embedding, wrong.time_embedding_a22)
    rows_, apart = [], []
    for code in codes:
        shuffled = code(order)[order.argsort()]
        apart.append((shuffled - code(torch.arange(100))).abs().max().item())
        rows_.append(shuffled[:40, 1])
    rows = (Row("greatest change of a row when the batch is shuffled", apart, law=0.0),)
    t = torch.arange(40)
    return Seen(rows, Lines(t, rows_, "t", "second column, batch shuffled"))


def averaged() -> Seen:
    """A33: the average of a weight that is 1 and noise of standard deviation 1."""
    with seeded(0):
        weight = 1 + torch.randn(20_000)
    kept, decays = [], []
    for make in (right.EMA, wrong.EMA_A33):
        net = nn.Linear(1, 1, bias=False)
        ema, path = make(net), []
        for value in weight:
            net.weight.data.fill_(value)
            ema.update(net)
            path.append(ema.average.weight.item())
        before = ema.average.weight.item()
        net.weight.data.fill_(before + 1)
        ema.update(net)
        decays.append(1 - (ema.average.weight.item() - before))
        kept.append(torch.tensor(path))
    rows = (
        Row("decay after 20,000 updates", decays, law=0.999),
        Row(
            "std of the average, in the second half",
            [path[10_000:].std().item() for path in kept],
            law=math.sqrt((1 - 0.999) / (1 + 0.999)),
        ),
    )
    few = slice(0, 2000, 10)
    x = torch.arange(1, 20_001)[few]
    return Seen(rows, Lines(x, [path[few] for path in kept], "update", "average"))


# --- steps and loops


def posteriors() -> Seen:
    """A11: ancestral sampling by the posterior's mean, and its right variance."""
    model = exact("x_0")

    def end(mean: Code) -> Tensor:
        def step(x: Tensor, t: Tensor) -> Tensor:
            a, b, beta = (
                right.at(table, t) for table in (right.alpha_bar, right.alpha_bar_prev, right.betas)
            )
            z = torch.randn_like(x)
            return mean(model(x, t), x, t) + (beta * (1 - b) / (1 - a)).sqrt() * z

        return _ancestral(step)

    return _samples([end(right.posterior_mean), end(wrong.posterior_mean_a11)])


def learned_range() -> Seen:
    """A15: a network whose answer is halfway between the logarithms of β̃ and β."""
    model = exact("eps")

    def both(x: Tensor, t: Tensor) -> Tensor:
        return torch.cat([model(x, t), torch.zeros_like(x)], 1)

    codes = (right.p_sample_learned, wrong.p_sample_learned_a15)
    found = [_ancestral(code, both) for code in codes]
    second = torch.ones(N, dtype=torch.int64)
    stds = [_run(code, both, torch.zeros(N, 2), second).std(0).mean().item() for code in codes]
    b = right.betas[:2].double()
    a = (1 - b).cumprod(0)
    tilde = b[1] * (1 - a[0]) / (1 - a[1])
    row = Row("std of the step from t = 2", stds, law=(b[1] * tilde).sqrt().sqrt().item())
    return _samples(found, row)


def with_finite(seen: Seen) -> Seen:
    """And how many of the samples are numbers."""
    assert isinstance(seen.drawn, Clouds)
    shares = [_finite(x) for x in seen.drawn.both]
    return Seen((*seen.rows, Row("share of samples that are finite", shares, law=1.0)), seen.drawn)


def guided() -> Seen:
    """A32: to the inner half of the roll, by the exact classifier, in 100 steps."""
    whole = law()
    half = Curve(whole.curve, whole.noise, (0.0, 0.5))

    def gradient(x: Tensor, t: Tensor) -> Tensor:
        a = right.alpha_bar[t].double()
        level = Level(a.sqrt(), (1 - a).sqrt())
        return (half.score(x.double(), level) - whole.score(x.double(), level)).to(x.dtype)

    model = exact("eps")
    codes = (right.p_sample_guided, wrong.p_sample_guided_a32)
    found = [_ancestral(code, model, gradient) for code in codes]

    def fresh(n: int, seed: int) -> Tensor:
        return half.sample(n, torch.Generator().manual_seed(1000 + seed))

    yard = against_fresh(N, fresh)
    scores = [yard.score([x.double()]).ratio for x in found]
    row = Row("ratio of the samples, to the inner half", scores, law=1.0)
    t = torch.full((N,), 40)
    x_t = _run(right.q_sample, _x_0(), t)
    a, beta = right.alpha_bar[40], right.betas[40]
    mean = (x_t - beta / (1 - a).sqrt() * model(x_t, t)) / (1 - beta).sqrt()
    asked = []

    def recorded(x: Tensor, t: Tensor) -> Tensor:
        asked.append(x)
        return x

    for code in codes:
        code(model, recorded, x_t, t)
    apart = [(x - mean).square().mean().sqrt().item() for x in asked]
    far = Row("from μ to where the gradient is taken, t = 41 (root mean square)", apart, law=0.0)
    return Seen((row, far), Clouds(found))


def langevin() -> Seen:
    """A31: 300 moves at the level t = 11, from true points of it."""
    t, codes = 10, (right.langevin_step, wrong.langevin_step_a31)
    start = _run(right.q_sample, _x_0(), t)
    score = exact("score")

    def moved(code: Code, x: Tensor, score: Model, count: int) -> Tensor:
        with seeded(1):
            for _ in range(count):
                x = code(score, x, t)
        return x

    found = [moved(code, start, score, 300) for code in codes]
    fresh = roll().fresh
    assert fresh is not None
    a = right.alpha_bar[t].double()

    def noised(n: int, seed: int) -> Tensor:
        z = torch.randn(n, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        return a.sqrt() * fresh(n, seed) + (1 - a).sqrt() * z

    yard = against_fresh(N, noised)
    small = [moved(code, torch.randn(N, 2) * 0.0, lambda x, t: -100 * x, 300) for code in codes]
    rows = (
        Row(
            "ratio to true points of this level",
            [yard.score([x.double()]).ratio for x in found],
            law=1.0,
        ),
        Row(
            "variance in the end, of N(0, 0.01·I)", [x.var().item() for x in small], law=0.01 / 0.9
        ),
    )
    return Seen(rows, Clouds(found))


def noised_elsewhere() -> Seen:
    """A8: the roll noised part of the way, and back."""
    codes = (right.img2img, wrong.img2img_a8)
    found = [_run(code, exact("eps"), _x_0()) for code in codes]
    return _samples(found, *_audit([lambda m, c=c: c(m, _x_0()) for c in codes], "eps"))


def orders() -> Seen:
    """A27: how the error falls with the number of steps."""
    counts = (20, 40, 80, 160)
    with seeded(0):
        x_T = 10 * torch.randn(200, 2, dtype=torch.float64)

    def end(code: Code, n: int) -> Tensor:
        sigmas = torch.logspace(1, -1, n + 1, dtype=torch.float64)
        return code(_denoise, x_T, sigmas)

    true = end(right.heun_sample, 1280)
    errors = [
        torch.tensor([(end(code, n) - true).square().mean().sqrt().item() for n in counts])
        for code in (right.heun_sample, wrong.heun_sample_a27)
    ]
    order = [math.log2((e[-2] / e[-1]).item()) for e in errors]
    with seeded(0):
        start = 80 * torch.randn(N, 2, dtype=torch.float64)
    codes = (right.heun_sample, wrong.heun_sample_a27)
    ends = [ratio(code(_denoise, start, right.karras_sigmas(40))) for code in codes]
    rows = (
        Row("order, from 80 steps to 160", order, law=2.0),
        Row("error after 160 steps (root mean square)", [e[-1].item() for e in errors]),
        Row("ratio of the samples, 40 steps", ends, law=1.0),
    )
    return Seen(rows, Lines(torch.tensor(counts), errors, "steps", "error", "xy"))
