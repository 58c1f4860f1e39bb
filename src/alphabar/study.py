"""The study: from data through the forward process and the schedules to the reverse process, first
with the exact denoiser of the data and then with a trained one, whose error is taken apart.

`study` computes; `report.py` writes it up. Each part is a function that returns what it found, so
that a lesson or a notebook can call it alone.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from alphabar import schedule as schedules
from alphabar.claim import Claim, run_claim
from alphabar.claim import Settings as ClaimSettings
from alphabar.compare import Halves, Row, evaluate, halves, yardstick_of
from alphabar.data import Data, Standardiser
from alphabar.decompose import Decomposition, Way, decompose, finely
from alphabar.denoise import Moments, NetDenoiser
from alphabar.diagnosis import remedies
from alphabar.draw import (
    FREE,
    Choice,
    Known,
    Learned,
    Plan,
    Watched,
    choose,
    draw,
    fit_length,
    make_plan,
    source_of,
)
from alphabar.evaluate import evaluation, evaluation_length
from alphabar.excess import Excess, ExcessLoss
from alphabar.fit import fit_mixes
from alphabar.forward import marginal
from alphabar.metrics import FLOOR_SETS, Score, Yardstick
from alphabar.nets import mlp
from alphabar.origin import FITTED
from alphabar.runs import is_logged
from alphabar.samplers import SAMPLERS, Normal, sample
from alphabar.schedule import SCHEDULES, Schedule, from_log_snr
from alphabar.targets import Points, Target
from alphabar.trace import MomentsAt, Trace, even_times, ks_bound, ks_distance, trace
from alphabar.train import Settings, Shuffled, train

SHOWN = 10_000  # points in a picture, and in a set that is scored
REVERSE_SHOWN = 2_000  # points that are followed through the long reverse process
FILM = 60  # frames of a film
LONG = 1000  # steps of the long reverse process, at most
DRAWS = 10  # sets that are sampled and scored
COMPARED = ("dpmpp_2m", "ddim:eta=0.0", "ddpm")  # beside the steps fitted to the network
PROBED = 20  # levels at which the excess loss is measured
PROBES = 512  # items at each
MANY = 80  # steps that count as many: 200 are a hundredth of a floor closer, at twice the cost
# --- with the exact denoiser
PATH = 80  # steps of the reverse process, without noise
PATH_SAMPLER = "dpmpp_2m"
CALLS = (5, 8, 12, 20, 40)
# (sampler, how its levels are chosen); at each number of calls
RULED = (
    ("ddim", "log_snr"),
    ("heun", "curvature"),
    ("unipc", "log_snr"),
    ("dpmpp_2m", "log_snr"),
    ("dpmpp_2m", "curvature"),
)
FEWEST = (5, 8)  # calls to which levels and coefficients are fitted by gradient: seconds each
SPACED = 8  # steps whose levels are shown
EXACT_DRAWS = 3
SET = (
    2_000  # points whose exact denoiser leads, where the law is not known: its cost grows with them
)
FIT_SET = 200  # of them, for the fitting by gradient: a gradient costs several calls
MEMORY = 300  # training points that are few enough to see in a picture
RECALLED = 1_000  # samples by their exact denoiser
LEAST_NOISE = 20.0  # λ of data of spread 1 at which neighbours of a set are far apart
FRESH_SEED = 2**31  # of true points to compare with: the yardstick takes the small ones
# The levels whose density is drawn: the t that come closest.
SHOWN_ALPHA_BAR = (0.998, 0.97, 0.85, 0.5, 0.1)
GRID, ARROWS = 101, 15  # places on an axis

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
    moments: list[MomentsAt]
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

    plan: Plan
    nfe: int
    seconds: float  # for one set
    score: Score
    x: Float[Tensor, "n d"]  # the first draw

    @property
    def sampler(self) -> str:
        """Its spec."""
        return self.plan.sampler.spec


class Probed(NamedTuple):
    """The excess loss after a step of training."""

    step: int
    share: float  # of the optimum
    share_error: float


@dataclass(frozen=True)
class Trained:
    """A denoiser, and how it was trained."""

    denoiser: NetDenoiser
    seconds: float
    losses: list[float]
    probed: list[Probed]  # empty where the law is not known
    excess: ExcessLoss | None  # at the end, at the levels of training; None likewise

    @property
    def loss(self) -> float:
        """The mean over the last steps."""
        last = self.losses[-100:]
        return sum(last) / len(last)


@dataclass(frozen=True)
class Field:
    """Density and score in the plane, in the variance-preserving scale, at several t."""

    times: list[int]
    alpha_bar: list[float]
    log_density: list[Float64[Tensor, "H W"]]
    score: list[Float64[Tensor, "N 2"]]
    x: Float64[Tensor, " W"]
    y: Float64[Tensor, " H"]
    at: Float64[Tensor, "N 2"]


@dataclass(frozen=True)
class Recalled:
    """Samples, and the distance of each to the nearest of the training points."""

    x: Float[Tensor, "n d"]
    nearest: Float64[Tensor, " n"]


@dataclass(frozen=True)
class Memorised:
    """What the exact denoiser of a few training points gives back, beside the law's."""

    training: Float[Tensor, "k d"]
    of_set: Recalled
    of_law: Recalled | None  # None where the law is not known
    fresh: Recalled  # true points that are not among the training points

    @property
    def near(self) -> float:
        """Nearer than this to a training point comes one true point in a hundred."""
        return self.fresh.nearest.quantile(0.01).item()

    def share(self, samples: Recalled) -> float:
        """The share of samples that come nearer than that."""
        return (samples.nearest < self.near).double().mean().item()


@dataclass(frozen=True)
class Exact:
    """The reverse process with the exact denoiser."""

    source: Known
    field: Field | None  # in the plane only
    reverse: Reverse
    start: str  # `noise` or `matched`
    n: int  # points of a set that is scored
    compared: list[Row]
    levels: dict[str, Float64[Tensor, " T"]]  # λ of a few steps, by the rule that chose them
    memorised: Memorised

    @property
    def best(self) -> Row:
        """The closest in the few calls that steps were fitted to."""
        few = [row for row in self.compared if row.nfe <= SPACED] or self.compared
        return min(few, key=lambda row: row.ratio)


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
    exact: Exact
    trained: Trained
    reverse: Reverse
    sampled: list[Sampled]  # the first one is the study's result
    metrics: dict[str, Any]  # of the first, as `evaluate.evaluation` has them
    parts: Decomposition | None  # of the first; None where the law is not known
    claim: Claim | None  # None where it was not asked for

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
    claim: ClaimSettings | None = None,
) -> Study:
    """Run every part on one data set of points.

    Args:
        data: points; where they cannot be drawn afresh, half is held out to score against.
        standardiser: applied to the points first, where given.
        schedule: what the reverse process runs on, spaced to few steps where few are asked for.
        seed: determines everything.
        steps: training steps.
        bar: makes progress bars.
        claim: how much evidence to gather on the post's claim, which takes many trainings; None:
            none.

    Raises:
        ValueError: pictures, or fewer than four points in a file of one's own.
    """
    if data.kind != "points":
        raise ValueError(
            f"{data.spec} holds pictures: study works on points; "
            f"see pictures dissolve with `alphabar forward {data.spec}`"
        )
    # Before any work: a schedule that cannot be spaced is refused here.
    choices = [choose(name, "log_snr", schedule) for name in COMPARED]
    if _can_be_spaced(schedule):
        choices.insert(0, choose(FREE, "fitted", schedule, steps=FITTED))
    generator = torch.Generator().manual_seed(seed % 2**63)
    every = data.x if standardiser is None else standardiser.apply(data.x)
    order = torch.arange(len(every))
    parts = halves(data, seed)
    if parts is not None:
        torch.randperm(len(every), generator=generator)  # the bits that cut the file in two
        order = parts.used
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

    n = min(len(x_0), SHOWN)
    yardstick = _yardstick(data, standardiser, parts, n, bar)
    exact = run_exactly(data, standardiser, schedule, seed, parts, yardstick, bar)
    law = exact.source.target if exact.source.is_law else None
    trained = train_denoiser(x_0, steps, seed, bar, law)
    reverse = run_backwards(trained.denoiser, schedule, x_0, seed, bar)
    source = learned_source(trained.denoiser, x_0, standardiser)
    sampled: list[Sampled] = []
    best: list[Tensor] = []
    for choice in choices:
        plan = make_plan(choice, source, schedule, "auto", seed, bar)
        found, sets = draw_and_score(plan, source, n, seed, yardstick, bar)
        sampled.append(found)
        best = best or [source.invert(x) for x in sets]
    advance = bar("evaluating", evaluation_length())
    seen = data.x if parts is None else data.x[parts.used]
    metrics = evaluation(best, data, standardiser, parts, seen, None, seed, advance)
    taken_apart = None
    if law is not None and _can_be_spaced(schedule):
        taken_apart = take_apart(
            source, sampled[0].plan, law, schedule, yardstick, n, seed, data.x, bar
        )
    evidence = None
    if claim is not None:
        evidence = run_claim(claim, bar("claim", claim.units))
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
        exact,
        trained,
        reverse,
        sampled,
        metrics["metrics"],
        taken_apart,
        evidence,
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


def train_denoiser(
    x_0: Float[Tensor, "N d"], steps: int, seed: int, bar: Bar, law: Target | None = None
) -> Trained:
    """A small network, trained on these points.

    Args:
        x_0: what it learns from.
        steps: of training.
        seed: of the first weights, and of all that is drawn.
        bar: makes progress bars.
        law: that the points were drawn from, if it is known: the excess loss is measured.
    """
    net = mlp().build(tuple(x_0.shape[1:]), seed)
    denoiser = NetDenoiser(net, Moments.of(x_0))
    settings = Settings()
    probe = None if law is None else loss_probe(law, settings)
    advance = bar("training", steps)
    losses: list[float] = []
    probed: list[Probed] = []
    excess = None
    for step in train(denoiser, Shuffled(x_0), seed, steps=steps, settings=settings):
        losses.append(step.loss)
        if probe is not None and (step.last or is_logged(step.step)):
            excess = probe(step.denoiser)
            probed.append(Probed(step.step, excess.share, excess.share_error))
        advance()
    return Trained(step.denoiser.requires_grad_(False), step.seconds, losses, probed, excess)


def loss_probe(law: Target, settings: Settings) -> Excess:
    """What measures how far the training loss is above its least value, on fresh points.

    Its levels are as many equal shares of those of training, so that a mean over them is one over
    the batches.
    """
    shares = (torch.arange(PROBED, dtype=torch.float64) + 0.5) / PROBED
    return Excess(law, settings.levels.quantile(shares), PROBES, seed=1)


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


def _yardstick(
    data: Data, standardiser: Standardiser | None, parts: Halves | None, n: int, bar: Bar
) -> Yardstick:
    total = 1 + FLOOR_SETS if parts is None else 1
    return yardstick_of(data, standardiser, parts, n, bar("floor", total))


def learned_source(
    denoiser: NetDenoiser, x_0: Float[Tensor, "N d"], standardiser: Standardiser | None
) -> Learned:
    """What samples of a network are drawn from: the network, and the moments of its data."""
    law = Normal.of(x_0)
    return Learned(denoiser, law.mean, law.cov, law.cov.diagonal(), standardiser)


def draw_and_score(
    plan: Plan, source: Learned, n: int, seed: int, yardstick: Yardstick, bar: Bar
) -> tuple[Sampled, list[Float64[Tensor, "n d"]]]:
    """DRAWS independent sets of n samples each, what they are worth, and the sets."""
    advance = bar(plan.sampler.spec.partition(":")[0], DRAWS)
    sets, seconds = [], 0.0
    for i in range(DRAWS):
        # Draw i takes items i·n … of one long run: no two draws share any noise.
        drawn = draw(source, plan, n, seed, first=i * n)
        sets.append(drawn.x.double())
        seconds += drawn.seconds / DRAWS
        advance()
    score = yardstick.score(sets)
    return Sampled(plan, drawn.nfe, seconds, score, sets[0].float()), sets


def take_apart(
    source: Learned,
    plan: Plan,
    law: Target,
    schedule: Schedule,
    yardstick: Yardstick,
    n: int,
    seed: int,
    training: Float[Tensor, "N d"],
    bar: Bar,
) -> Decomposition:
    """Which part of the error of a plan's samples is the network's, and which the few steps'.

    It is of the sets that `draw_and_score` draws with this seed: its total is their score.
    """
    return decompose(
        source.denoiser,
        law,
        Way(plan.sampler, plan.schedule, plan.start),
        finely(schedule, source.law, MANY),
        yardstick,
        n,
        DRAWS,
        seed,
        training,
        advance=bar("decomposing", 4 * DRAWS),
    )


# --- with the exact denoiser


def run_exactly(
    data: Data,
    standardiser: Standardiser | None,
    schedule: Schedule,
    seed: int,
    parts: Halves | None,
    yardstick: Yardstick,
    bar: Bar,
) -> Exact:
    """The reverse process led by E[x_0 | x_t] itself: where it goes, how close, and to what.

    Args:
        data: points.
        standardiser: applied to the points first, where given.
        schedule: what the levels come from.
        seed: determines everything.
        parts: the halves of a file; None for points that can be drawn afresh.
        yardstick: for sets of as many points as there are, `SHOWN` at most.
        bar: makes progress bars.
    """
    x = data.x if parts is None else data.x[parts.used]
    x = x if standardiser is None else standardiser.apply(x)
    source, n = exact_source(data, standardiser, x), min(len(x), SHOWN)
    if not source.is_law and n > SET:
        n = SET
        yardstick = _yardstick(data, standardiser, parts, n, bar)
    field = density_field(source.target, schedule, source.x) if x.shape[1] == 2 else None
    reverse, start = exact_reverse(source, schedule, seed, bar)
    compared, levels = compare_exactly(source, schedule, yardstick, n, seed, bar)
    memorised = memorise(source, schedule, x[:MEMORY], true_points(data, standardiser, parts), seed)
    return Exact(source, field, reverse, start, n, compared, levels, memorised)


def exact_source(data: Data, standardiser: Standardiser | None, x: Float64[Tensor, "N d"]) -> Known:
    """The law of the data where it is known in these units, else the first of the points x."""
    if data.target is not None and standardiser is None:
        return source_of(data, None)
    return Known(Points(x[:SET]), x[:SET], False, standardiser)


def true_points(
    data: Data, standardiser: Standardiser | None, parts: Halves | None
) -> Float64[Tensor, "n d"]:
    """Points of the same kind that are not among the data, or the held-out half of a file."""
    if data.fresh is not None:
        x = data.fresh(RECALLED, FRESH_SEED)
    else:
        assert parts is not None
        x = data.x[parts.held_out[:RECALLED]]
    return x if standardiser is None else standardiser.apply(x)


def density_field(target: Target, schedule: Schedule, x_0: Float[Tensor, "N 2"]) -> Field | None:
    """log p_t and ∇log p_t on grids that hold most of every p_t shown.

    None where the data are so wide that the noise of no level reaches from one place to the next.
    """
    schedule = schedule.to_vp()
    gaps = [(schedule.alpha_bar[1:] - wanted).abs() for wanted in SHOWN_ALPHA_BAR]
    times = sorted({1 + int(gap.argmin()) for gap in gaps})
    levels = [schedule[t] for t in times]
    generator = torch.Generator().manual_seed(0)
    # As many of a small set, each several times over: the noise has to show its extent, too.
    some = x_0[torch.arange(REVERSE_SHOWN) % len(x_0)].double()
    clouds = torch.cat([marginal(level, some).sample(generator) for level in levels])
    low, high = (clouds.quantile(q, dim=0) for q in (0.01, 0.99))
    # One scale on both axes, so that an arrow points where the score does.
    reach, middle = 0.54 * (high - low).max(), (low + high) / 2
    x, y = (m + reach * torch.linspace(-1, 1, GRID, dtype=torch.float64) for m in middle)
    cell = 2 * reach / (GRID - 1)
    times = [t for t, level in zip(times, levels, strict=True) if level.sigma > cell / 5]
    if not times:
        return None
    levels = [schedule[t] for t in times]
    inside = torch.linspace(-1, 1, ARROWS, dtype=torch.float64) * (1 - 1 / ARROWS)
    at = torch.cartesian_prod(*(m + reach * inside for m in middle))
    places = torch.cartesian_prod(x, y)
    if places.abs().max() < 1000 * reach:
        # A picture needs no more, and a curve is asked in float64 at a hundred times the cost.
        places = places.float()
    return Field(
        times,
        schedule.alpha_bar[times].tolist(),
        [target.log_prob(places, level).view(GRID, GRID).T for level in levels],
        [target.score(at, level).double() for level in levels],
        x,
        y,
        at,
    )


def exact_reverse(source: Known, schedule: Schedule, seed: int, bar: Bar) -> tuple[Reverse, str]:
    """Points that follow the exact flow from noise to data, and how they were started."""
    choice = long_way(schedule)
    plan = make_plan(choice, source, schedule, "auto", seed, bar)
    times, film = even_times(choice.steps, 8), even_times(choice.steps, FILM)
    watched = Watched([*times, *film], REVERSE_SHOWN)
    draw(
        source, plan, REVERSE_SHOWN, seed, watch=watched, advance=bar("exact reverse", choice.steps)
    )
    whole = watched.trace(plan.schedule).to_vp()
    at = {t: i for i, t in enumerate(whole.times)}

    def part(times: Sequence[int]) -> Trace:
        falling = sorted(times, reverse=True)
        return Trace(whole.schedule, falling, [whole.x[at[t]] for t in falling])

    believed = [watched.x_0_hat[at[t]] for t in sorted(times, reverse=True)]
    return Reverse(part(times), believed, part(film)), plan.start_name


def long_way(schedule: Schedule) -> Choice:
    """Many small steps, without noise."""
    if not _can_be_spaced(schedule):
        return choose(PATH_SAMPLER, "all", schedule)
    return choose(PATH_SAMPLER, "log_snr", schedule, steps=PATH)


def _can_be_spaced(schedule: Schedule) -> bool:
    """Whether there are two levels to lie between."""
    return int(schedule.log_snr[1:].isfinite().sum()) > 1


def compare_exactly(
    source: Known, schedule: Schedule, yardstick: Yardstick, n: int, seed: int, bar: Bar
) -> tuple[list[Row], dict[str, Float64[Tensor, " T"]]]:
    """Samplers with the exact denoiser: how close each comes, and the levels of a few steps.

    Args:
        source: what to draw from.
        schedule: what the levels come from.
        yardstick: for sets of n points.
        n: points in a set.
        seed: determines all noise.
        bar: makes progress bars.
    """
    if _can_be_spaced(schedule):
        choices = [choose(name, rule, schedule, nfe=k) for name, rule in RULED for k in CALLS]
        choices += [choose("mixes", "fitted", schedule, nfe=k) for k in FEWEST]
    else:
        names = dict.fromkeys(name for name, _ in RULED)
        choices = [choose(name, "all", schedule) for name in names]
    # One bar for all that is fitted: a bar for each would fill the screen.
    fitting = bar("fitting", sum(map(fit_length, choices)))
    comparing = bar("comparing", EXACT_DRAWS * len(choices))
    rows: list[Row] = []
    levels: dict[str, Tensor] = {}
    for choice in choices:
        if choice.fits_mixes:
            plan = fitted_plan(choice.steps, source, schedule, seed, fitting)
        else:
            plan = make_plan(choice, source, schedule, "auto", seed, lambda *_: fitting)
        rows.append(evaluate(source, plan, yardstick, n, EXACT_DRAWS, seed, comparing))
        if choice.steps == SPACED and choice.rule not in levels:
            levels[choice.rule] = plan.schedule.log_snr[1:]
    if levels:
        levels["karras"] = schedule.spaced(SPACED, "karras").log_snr[1:]
    else:
        levels["all"] = schedule.log_snr[1:]
    return rows, levels


def fitted_plan(
    steps: int, source: Known, schedule: Schedule, seed: int, advance: Callable[[], None]
) -> Plan:
    """Levels and coefficients fitted by gradient: to the law, or to a few of many points."""
    target = source.target if source.is_law else Points(source.x[:FIT_SET])
    began = time.perf_counter()
    few, sampler = fit_mixes(target, steps, schedule, source.law, seed, advance)
    seconds = time.perf_counter() - began
    return Plan(sampler, "fitted", few, source.law, source.gap(few[few.T]), seconds)


def memorise(
    source: Known,
    schedule: Schedule,
    training: Float64[Tensor, "k d"],
    fresh: Float64[Tensor, "m d"],
    seed: int,
) -> Memorised:
    """Samples by the exact denoiser of the training points, and by the law's where it is known.

    Args:
        source: the law, if it is one.
        schedule: what the levels come from.
        training: a few points.
        fresh: points of the same law that are not among them.
        seed: of the noise; the same for both.
    """

    def recalled(x: Tensor) -> Recalled:
        apart = torch.cdist(
            x.double(), training.double(), compute_mode="donot_use_mm_for_euclid_dist"
        )
        return Recalled(x, apart.min(1).values)

    # A schedule ends where its noise is small to the eye; neighbours in the set may be nearer.
    levels = _to_the_end(schedule, training)

    def drawn(source: Known) -> Recalled:
        plan = make_plan(
            choose(PATH_SAMPLER, "all", levels),
            source,
            levels,
            "auto",
            seed,
            lambda *_: lambda: None,
        )
        return recalled(draw(source, plan, RECALLED, seed).x)

    return Memorised(
        training,
        drawn(Known(Points(training), training, False, None)),
        drawn(source) if source.is_law else None,
        recalled(fresh),
    )


def _to_the_end(schedule: Schedule, x_0: Float[Tensor, "k d"]) -> Schedule:
    """The levels of `long_way`, and on to noise far below the distances within x_0."""
    vp = schedule.to_vp()
    log_snr = (vp.spaced(PATH, "log_snr") if _can_be_spaced(vp) else vp).log_snr[1:]
    spread = x_0.double().var(0, correction=0).sum().sqrt().clamp(min=1e-300)
    end = torch.maximum(LEAST_NOISE - 2 * spread.log(), log_snr[0] + 1)
    below = torch.lerp(end, log_snr[0], torch.arange(PATH // 4).double() / (PATH // 4))
    return from_log_snr(torch.cat([below, log_snr]))


def summary(found: Study) -> dict[str, Any]:
    """The numbers of the study, as `summary.json` holds them; the files are added by the report.

    `train`, `sample`, `metrics`, `decompose` and the first of `compared` are of one network and
    one way to sample it, by steps fitted to it:

    - `train`: its `seconds`, `steps`, `loss` (mean of the last 100 steps) and, where the law is
      known, `optimum`, the least mean loss that any denoiser can have on fresh points at the levels
      of training, and `excess_loss`, how far the network's is above it, as a share of it; `probed`
      holds (step, excess loss, standard error) on the way, `excess` its levels.
    - `sample`: `sampler`, `spacing`, `start`, `nfe`, `seconds` for a set, `fit_seconds`, `log_snr`.
    - `metrics`: by name, what `evaluate.Measured` holds.
    - `decompose`: what `Decomposition.to_dict` holds; null where the law is not known.
    - `claim`: what `Claim.to_dict` holds; null where it was not asked for.
    """
    best = found.sampled[0]
    plan, trained, parts = best.plan, found.trained, found.parts
    excess = trained.excess
    return {
        "data": found.data.spec,
        "schedule": found.schedule.spec,
        "seed": found.seed,
        "standardised": found.standardiser and found.standardiser.to_dict(),
        "train": {
            "seconds": trained.seconds,
            "steps": len(trained.losses),
            "loss": trained.loss,
            "excess_loss": excess and excess.share,
            "optimum": excess and excess.weighted_optimum,
            "probed": [list(probed) for probed in trained.probed],
            "excess": excess and _plain(excess),
        },
        "sample": {
            "sampler": best.sampler,
            "spacing": plan.rule,
            "start": plan.start_name,
            "nfe": best.nfe,
            "seconds": best.seconds,
            "fit_seconds": plan.fit_seconds,
            "log_snr": [v if v > -math.inf else None for v in plan.schedule.log_snr[1:].tolist()],
        },
        "metrics": found.metrics,
        "decompose": parts and parts.to_dict(),
        "reference": "fresh points" if found.data.fresh else "the held-out half of the file",
        "compared": [
            {
                "sampler": s.sampler,
                "spacing": s.plan.rule,
                "start": s.plan.start_name,
                "nfe": s.nfe,
                "seconds": s.seconds,
                **s.score._asdict(),
            }
            for s in found.sampled
        ],
        "exact": _exact_summary(found.exact),
        "claim": found.claim and found.claim.to_dict(),
    }


def _plain(excess: ExcessLoss) -> dict[str, Any]:
    values = excess._asdict().items()
    return {key: v.tolist() if isinstance(v, Tensor) else v for key, v in values}


def _exact_summary(exact: Exact) -> dict[str, Any]:
    kept = ("sampler", "spacing", "nfe", "value", "floor", "ratio", "draws", "seconds")
    memorised, fitted = exact.memorised, exact.levels.get("fitted")
    samples = {
        "of_set": memorised.of_set,
        "of_law": memorised.of_law,
        "fresh": memorised.fresh,
    }
    return {
        "target": "law" if exact.source.is_law else "points",
        "n": exact.n,
        "start": exact.start,
        "compared": [{key: getattr(row, key) for key in kept} for row in exact.compared],
        "fitted": None if fitted is None else {"nfe": len(fitted), "log_snr": fitted.tolist()},
        "memorisation": {
            "points": len(memorised.training),
            "samples": len(memorised.of_set.x),
            "near": memorised.near,
            "share": {key: r and memorised.share(r) for key, r in samples.items()},
            "median": {key: r and r.nearest.median().item() for key, r in samples.items()},
        },
    }
