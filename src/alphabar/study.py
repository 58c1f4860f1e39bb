"""The study: from data through the forward process and the schedules to a trained reverse process.

`study` computes; `report.py` writes it up. Each part is a function that returns what it found, so
that a lesson or a notebook can call it alone.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from alphabar import schedule as schedules
from alphabar.data import Data, Standardiser
from alphabar.denoise import NetDenoiser
from alphabar.diagnosis import remedies
from alphabar.forward import marginal
from alphabar.metrics import Score, Yardstick, against_fresh, against_held_out
from alphabar.nets import MLP
from alphabar.samplers import SAMPLERS, sample
from alphabar.schedule import SCHEDULES, Schedule
from alphabar.trace import Moments, Trace, even_times, ks_bound, ks_distance, trace
from alphabar.train import train

SHOWN = 10_000  # points in a picture, and in a set that is scored
FEW = 20  # steps of the samplers that are compared
REVERSE_SHOWN = 2_000  # points that are followed through the long reverse process
FILM = 60  # frames of a film
LONG = 1000  # steps of the long reverse process, at most
DRAWS = 10  # sets that are sampled and scored
# (samplers that are compared, in the order of the report; the first one is the study's result)
COMPARED = ("dpmpp_2m", "ddim:eta=0.0", "ddpm")
POST_CHAIN = "constant:T=100,beta=0.035"
POST_SCHEDULES = tuple(
    f"{kind}:T=100,start=1e-05,end=0.01" for kind in ("linear", "quad", "sigmoid")
)

# bar("training", 4000) starts a progress bar and returns what moves it one step on.
Bar = Callable[[str, int], Callable[[], None]]


@dataclass(frozen=True)
class Chain:
    """The chain beside the closed form."""

    chain: Trace
    closed_form: Trace
    moments: list[Moments]
    # Largest distance between the distribution functions of a coordinate of x_T by the two ways,
    # and what it stays below in all but one of a million studies if both have the same law.
    distance: float
    bound: float
    # Mean and variance of x_T if each step added rand, uniform on [0, 1], in place of randn.
    uniform_mean: float
    uniform_variance: float


@dataclass(frozen=True)
class Reverse:
    """A trajectory of a sampler, from noise to data."""

    trace: Trace  # its times fall
    x_0_hat: list[Float[Tensor, "n ..."]]
    film: Trace


@dataclass(frozen=True)
class Sampled:
    """What a sampler drew, and how close it came."""

    sampler: str
    nfe: int
    seconds: float  # for one set
    score: Score
    x: Float[Tensor, "n ..."]  # the first draw


@dataclass(frozen=True)
class Trained:
    """A denoiser, and how it was trained."""

    denoiser: NetDenoiser
    seconds: float
    losses: list[float]


@dataclass(frozen=True)
class Study:
    """Everything the report shows."""

    data: Data
    standardiser: Standardiser | None
    schedule: Schedule
    seed: int
    x_0: Float[Tensor, "N d"]  # what was diffused and trained on, standardised if so
    hue: Float64[Tensor, " N"]
    chain: Chain
    post: list[Trace]
    mended: list[Trace]
    pictures: list[Trace]
    trained: Trained
    reverse: Reverse
    sampled: list[Sampled]

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the coordinates."""
        return self.data.columns


def study(
    data: Data,
    standardiser: Standardiser | None,
    schedule: Schedule,
    seed: int,
    steps: int,
    bar: Bar,
) -> Study:
    """Run every part on one data set of points.

    Args:
        data: points; where they cannot be drawn afresh, half is held out to score against.
        standardiser: applied to the points first, where given.
        schedule: what the reverse process runs on, spaced to few steps where few are asked for.
        seed: determines everything.
        steps: training steps.
        bar: makes progress bars.

    Raises:
        ValueError: pictures, or fewer than four points in a file of one's own.
    """
    if data.kind != "points":
        raise ValueError(
            f"{data.spec} holds pictures: study works on points; "
            f"see pictures dissolve with `alphabar forward {data.spec}`"
        )
    # Before any work: a schedule that cannot be spaced is refused here.
    few = schedule.spaced(min(FEW, schedule.T), "log_snr")
    generator = torch.Generator().manual_seed(seed % 2**63)
    every = data.x if standardiser is None else standardiser.apply(data.x)
    order = torch.arange(len(every))
    held_out = None
    if data.fresh is None:
        if len(every) < 4:
            raise ValueError(
                f"{len(every)} rows: study trains on half of a file and scores against the other "
                "half, so it needs 4 or more"
            )
        order = torch.randperm(len(every), generator=generator)
        order, rest = order[: (len(every) + 1) // 2], order[(len(every) + 1) // 2 :]
        held_out = every[rest]
    x_0 = every[order].float()

    advance = bar("forward", 4)
    shown = x_0[:SHOWN]
    chain = forward_chain(SCHEDULES.parse(POST_CHAIN), shown, generator)
    advance()
    post = [at_times(SCHEDULES.parse(spec), shown, 7, generator) for spec in POST_SCHEDULES]
    advance()
    mended = [at_times(SCHEDULES.parse(remedies(p.schedule)[0]), shown, 7, generator) for p in post]
    advance()
    pictures = dissolving_pictures(generator)
    advance()

    trained = train_denoiser(x_0, steps, seed, bar)
    reverse = run_backwards(trained.denoiser, schedule, x_0, seed, bar)
    yardstick = measure(data, standardiser, x_0.double(), held_out)
    n = min(len(x_0), SHOWN)
    sampled = [
        draw_and_score(name, trained.denoiser, few, n, seed, yardstick, bar) for name in COMPARED
    ]
    return Study(
        data,
        standardiser,
        schedule,
        seed,
        x_0,
        data.hue[order],
        chain,
        post,
        mended,
        pictures,
        trained,
        reverse,
        sampled,
    )


def at_times(
    schedule: Schedule,
    x_0: Float[Tensor, "N ..."],
    count: int,
    generator: torch.Generator,
    stepwise: bool = False,
) -> Trace:
    """x_t at `count` even times, t = 0 and t = T among them."""
    return trace(schedule, x_0, even_times(schedule.T, count), generator, stepwise)


def forward_chain(
    schedule: Schedule, x_0: Float[Tensor, "N d"], generator: torch.Generator
) -> Chain:
    """The chain, the closed form, and whether they agree."""
    chain = at_times(schedule, x_0, 10, generator, stepwise=True)
    # Fresh noise for each panel, as the post draws it: no panel can borrow another's luck.
    independent = [marginal(schedule[t], x_0).sample(generator) for t in chain.times]
    closed_form = Trace(schedule, chain.times, independent)
    distance = max(
        ks_distance(a, b)
        for a, b in zip(chain.x[-1].unbind(1), closed_form.x[-1].unbind(1), strict=True)
    )
    n, d = x_0.shape
    moments = chain.moments(x_0)
    # rand adds √β/2 to the mean at each step, and its variance is 1/12 of randn's.
    start = moments[0]
    last, beta = schedule[schedule.T], schedule.beta[1:]
    ahead = last.alpha / schedule.to_vp().alpha[1:]  # what is left at T of a shift made at t
    return Chain(
        chain,
        closed_form,
        moments,
        distance,
        ks_bound(n, n, d, 1e-6),
        uniform_mean=(last.alpha * start.mean + (ahead * beta.sqrt()).sum() / 2).item(),
        uniform_variance=(last.alpha**2 * start.variance + last.sigma**2 / 12).item(),
    )


def dissolving_pictures(generator: torch.Generator) -> list[Trace]:
    """A photograph and 25 digits, dissolving on the DDPM paper's schedule."""
    from alphabar.data import digits, photo

    noise = schedules.linear()
    return [at_times(noise, x, 8, generator) for x in (photo("china", size=160).x, digits().x[:25])]


def train_denoiser(x_0: Float[Tensor, "N d"], steps: int, seed: int, bar: Bar) -> Trained:
    """A small network, trained on these points."""
    denoiser = NetDenoiser(MLP(x_0.shape[1], seed % 2**63), x_0)
    advance = bar("training", steps)
    losses: list[Tensor] = []
    start = time.perf_counter()
    for step in train(denoiser, x_0, steps, seed):
        losses.append(step.loss)
        advance()
    seconds = time.perf_counter() - start
    return Trained(step.denoiser, seconds, torch.stack(losses).tolist())


def run_backwards(
    denoiser: NetDenoiser, schedule: Schedule, x_0: Float[Tensor, "N d"], seed: int, bar: Bar
) -> Reverse:
    """The DDPM paper's own way: one small noisy step for every t of the schedule."""
    if schedule.T > LONG:
        schedule = schedule.spaced(LONG, "log_snr")
    times = even_times(schedule.T, 8)
    film_times = even_times(schedule.T, FILM)
    advance = bar("reverse", schedule.T)
    kept: dict[int, Tensor] = {}
    believed: dict[int, Tensor] = {}
    ddpm = SAMPLERS.parse("ddpm")
    for step in sample(denoiser, ddpm, schedule, REVERSE_SHOWN, tuple(x_0.shape[1:]), seed):
        if step.t in times or step.t in film_times:
            kept[step.t] = step.x
        if step.x_0_hat is not None:
            if step.t + 1 in times:  # what was said of x_{t+1}, on the way to x_t
                believed[step.t + 1] = step.x_0_hat
            advance()
    believed[0] = kept[0]

    def part(times: Sequence[int]) -> Trace:
        falling = sorted(times, reverse=True)
        return Trace(schedule, falling, [kept[t] for t in falling]).to_vp()

    shown = part(times)
    return Reverse(shown, [believed[t] for t in shown.times], part(film_times))


def measure(
    data: Data,
    standardiser: Standardiser | None,
    used: Float64[Tensor, "N d"],
    held_out: Float64[Tensor, "M d"] | None,
) -> Yardstick:
    """Against fresh points where there are any, else against the held-out half of the file."""
    fresh = data.fresh
    if fresh is None:
        assert held_out is not None
        return against_held_out(used[:SHOWN], held_out[:SHOWN])

    def draw(n: int, seed: int) -> Tensor:
        x = fresh(n, seed)
        return x if standardiser is None else standardiser.apply(x)

    return against_fresh(min(len(used), SHOWN), draw)


def draw_and_score(
    spec: str,
    denoiser: NetDenoiser,
    schedule: Schedule,
    n: int,
    seed: int,
    yardstick: Yardstick,
    bar: Bar,
) -> Sampled:
    """DRAWS independent sets of n samples each, and their score."""
    advance = bar(spec, DRAWS)
    sampler = SAMPLERS.parse(spec)
    shape = tuple(denoiser.mean.shape)
    draws = []
    start = time.perf_counter()
    for i in range(DRAWS):
        # Draw i takes items i·n … of one long run: no two draws share any noise.
        *_, last = sample(denoiser, sampler, schedule, n, shape, seed, first=i * n)
        draws.append(last.x.double())
        advance()
    seconds = (time.perf_counter() - start) / DRAWS
    return Sampled(sampler.spec, schedule.T, seconds, yardstick.score(draws), draws[0].float())


def summary(found: Study) -> dict[str, Any]:
    """The numbers of the study, as `summary.json` holds them; the files are added by the report."""
    best = found.sampled[0]
    return {
        "data": found.data.spec,
        "schedule": found.schedule.spec,
        "seed": found.seed,
        "standardised": found.standardiser and found.standardiser.to_dict(),
        "train": {
            "seconds": found.trained.seconds,
            "steps": len(found.trained.losses),
            "loss": sum(found.trained.losses[-100:]) / len(found.trained.losses[-100:]),
        },
        "sample": {"sampler": best.sampler, "nfe": best.nfe, "seconds": best.seconds},
        "metrics": {"sliced_w2": best.score._asdict()},
        "reference": "fresh points" if found.data.fresh else "the held-out half of the file",
        "compared": [
            {"sampler": s.sampler, "nfe": s.nfe, "seconds": s.seconds, **s.score._asdict()}
            for s in found.sampled
        ],
    }
