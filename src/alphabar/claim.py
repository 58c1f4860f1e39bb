"""The study post's claim, tested: is a schedule whose β grows better than a constant β, and faster?

    r = √(SW2²/floor²) of samples,    factor = r_growing/r_constant, below 1 if growth is better

The same net is trained on each schedule of T = 100 steps, from the same first weights, on the same
batches with the same noise, and sampled from the same noise: of one seed, schedules differ in their
levels alone. Two ranges:

    post     growing from β = 1e-5 to 1e-2, which the post's code has: ᾱ_T ≈ 0.6 to 0.7. Constant:
             the 0.035 of its first example (ᾱ_T = 0.028), and the one that ends where `linear` does
    noise    all end at ᾱ_T = 1e-4, the growing ones from β = 1e-5

and two ways:

    plain    a net told t predicts ε, L_simple, t uniform; ancestral sampling over all T steps
             from N(0, I)        Ho, Jain, Abbeel 2020, algorithms 1 and 2
    ours     EDM's preconditioning and objective, t uniform; DPM-Solver++ 2M at even λ between
             the schedule's own ends, from a start with the data's mean and covariance

Ratios multiply: an interval is that of Student's t for the mean of log r over seeds, of the
differences seed by seed for a factor. Why a schedule scores what it does, in units of floor²,

    r² = 1 + discretisation + start + learning
    discretisation = Q(exact denoiser, x_T from the truth) − 1
    start          = Q(exact denoiser, the way's x_T) − Q(exact denoiser, x_T from the truth)
    learning       = Q(net, the way's x_T) − Q(exact denoiser, the way's x_T)

with Q the mean of SW2²/floor². They telescope: where two errors meet, the product is in the later
one, and each may be below 0 where errors cancel. What a schedule never visits counts as
discretisation: from its cleanest level a sampler jumps to x̂_0.

Source: paired comparisons, Student 1908; simultaneous intervals, Dunn 1961.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Literal, NamedTuple, get_args

import torch
from jaxtyping import Float
from scipy import stats  # type: ignore[import-untyped]
from torch import Tensor

from alphabar import schedule as schedules
from alphabar.arguments import check_number, check_whole
from alphabar.data import Data, swiss_roll
from alphabar.denoise import Label, Moments, NetDenoiser, by_step
from alphabar.levels import of_schedule
from alphabar.metrics import Yardstick, against_fresh
from alphabar.nets import mlp
from alphabar.noise import keyed_noise
from alphabar.objectives import edm, simple
from alphabar.samplers import Denoiser, Normal, Sampler, ddpm, dpmpp_2m, sample
from alphabar.schedule import SCHEDULES, Level, Schedule
from alphabar.targets import target_of
from alphabar.train import Settings as TrainSettings
from alphabar.train import Shuffled, train

WayName = Literal["plain", "ours"]
RangeName = Literal["post", "noise"]
Start = Literal["own", "true"]
Answer = Literal["holds", "does not hold", "undecided"]
Question = Literal["better", "faster"]

WAYS: tuple[WayName, ...] = get_args(WayName)
RANGES: tuple[RangeName, ...] = get_args(RangeName)
T = 100
POST_BETA, POST_START, POST_END = 0.035, 1e-5, 1e-2
GROWING = ("linear", "quad", "sigmoid")
END = 1e-4  # ᾱ_T of the range that reaches noise
CONFIDENCE = 0.95
SAME = 1.05  # a factor surely between 1/1.05 and 1.05 is none
PROBED, WARM = 150, 30  # steps that measure the speed of training, and those not counted
_TRUE = 2**31  # seeds of true points to start from: the yardstick takes the small ones

Advance = Callable[[], None]
# Of a schedule: ratio, the ends of its interval, ratio of the exact denoiser.
Marks = tuple[float, float | None, float | None, float]


# --- what is compared


class Contender(NamedTuple):
    """A schedule that is trained on."""

    name: str
    schedule: Schedule
    grows: bool


@cache
def contenders(range_: RangeName) -> tuple[Contender, ...]:
    """The schedules of a range, the constant ones first."""
    if range_ == "post":
        grown = [SCHEDULES[kind].build(T=T, start=POST_START, end=POST_END) for kind in GROWING]
        constants = [POST_BETA, constant_beta(grown[0].alpha_bar[T].item())]
    else:
        grown = [reaching(kind, END) for kind in GROWING]
        constants = [constant_beta(END)]
    return (
        *(Contender(f"constant {b:.3g}", schedules.constant(T, b), False) for b in constants),
        *(Contender(kind, table, True) for kind, table in zip(GROWING, grown, strict=True)),
    )


def constant_beta(alpha_bar: float) -> float:
    """β of the constant schedule that ends at this ᾱ_T = (1 − β)^T."""
    return -math.expm1(math.log(alpha_bar) / T)


def reaching(kind: str, alpha_bar: float) -> Schedule:
    """The schedule of this kind from the post's β_1 whose `end` leads to ᾱ_T, by bisection."""
    low, high = POST_START, 1 - 1e-9
    while True:
        middle = (low + high) / 2
        table = SCHEDULES[kind].build(T=T, start=POST_START, end=middle)
        if middle in (low, high):
            return table
        low, high = (middle, high) if table.alpha_bar[T] > alpha_bar else (low, middle)


class Way(NamedTuple):
    """How a net is trained on a schedule, and how samples are drawn."""

    denoiser: NetDenoiser
    training: TrainSettings
    paths: tuple[tuple[Sampler, Schedule], ...]  # the first has T evaluations
    start: Normal | None


def way_of(
    name: WayName, schedule: Schedule, x_0: Float[Tensor, "N 2"], nfe: Sequence[int], seed: int
) -> Way:
    """A way to train on a schedule, with first weights that depend on the seed alone."""
    net, moments = mlp().build(tuple(x_0.shape[1:]), seed), Moments.of(x_0)
    levels = of_schedule(schedule)
    if name == "plain":
        told = NetDenoiser(net, moments, "eps", _told_t(schedule))
        return Way(told, TrainSettings(simple(), levels), ((ddpm(), schedule),), None)
    paths = tuple((dpmpp_2m(), schedule.spaced(k, "log_snr")) for k in nfe)
    return Way(NetDenoiser(net, moments), TrainSettings(edm(), levels), paths, Normal.of(x_0))


def _told_t(schedule: Schedule) -> Label:
    """10·t/T − 5: t, over the range that λ/4 has in `ours`. Told t/T, the plain way does worse."""
    step = by_step(schedule, first=1)
    return lambda level: 10 * step(level) / schedule.T - 5


# --- settings and results


@dataclass(frozen=True)
class Settings:
    """How much evidence is gathered.

    Args:
        seeds: trainings of each kind; two or more for intervals.
        seconds: of each full training, turned into steps by this machine's speed, once; or
        steps: how many, whatever the machine; then `seconds` is not used.
        draws: sets of samples that are scored, of each training.
        exact_draws: of them, those also drawn with the exact denoiser, at most `draws`.
        n: points of the training set and of each set of samples.
        shares: of the full training, rising to 1; each is a training of its own, whose rate falls
            to 0 at its own end: what someone with that much time would get.
        nfe: evaluations of `ours`; at shares below 1 only the first, T, which `plain` has.
        ways: to train and sample.
        ranges: of the schedules.

    Raises:
        TypeError, ValueError: numbers out of range; shares that do not rise to 1; nfe that does not
            begin with T; no ways or ranges, or unknown ones.
    """

    seeds: int = 5
    seconds: float = 5.0
    steps: int | None = None
    draws: int = 4
    exact_draws: int = 2
    n: int = 10_000
    shares: tuple[float, ...] = (0.25, 0.5, 1.0)
    nfe: tuple[int, ...] = (T, 20)
    ways: tuple[WayName, ...] = WAYS
    ranges: tuple[RangeName, ...] = RANGES

    def __post_init__(self) -> None:
        check_whole("seeds", self.seeds, 1, 10**6)
        check_number("seconds", self.seconds, 0, 1e6, "a time > 0, such as 5", open_low=True)
        if self.steps is not None:
            check_whole("steps", self.steps, 1, 10**9)
        check_whole("draws", self.draws, 1, 10**6)
        check_whole("exact_draws", self.exact_draws, 1, self.draws)
        check_whole("n", self.n, 2, 10**8)
        for share in self.shares:
            check_number("share", share, 0, 1, "a share of the training in (0, 1]", open_low=True)
        if not self.shares or self.shares[-1] != 1 or list(self.shares) != sorted({*self.shares}):
            raise ValueError(f"shares = {self.shares}: they must rise and end with 1")
        for k in self.nfe:
            check_whole("nfe", k, 2, 10**6)
        if not self.nfe or self.nfe[0] != T or len({*self.nfe}) < len(self.nfe):
            raise ValueError(
                f"nfe = {self.nfe}: the first must be {T}, the evaluations of the plain way, so "
                "that both are compared at equal cost, and each must be there once"
            )
        for name, chosen, known in (("ways", self.ways, WAYS), ("ranges", self.ranges, RANGES)):
            if not chosen or len({*chosen}) < len(chosen) or not {*chosen} <= {*known}:
                raise ValueError(f"{name} = {chosen}: choose from {', '.join(known)}, each once")

    @property
    def units(self) -> int:
        """How often `run_claim` calls `advance`: for each training, and each exact comparison."""
        found = sum(len(contenders(r)) for r in self.ranges)
        return self.seeds * found * len(self.ways) * (len(self.shares) + 1)


class Row(NamedTuple):
    """A training, and what its samples are worth at one number of evaluations."""

    way: WayName
    range: RangeName
    schedule: str
    seed: int
    share: float  # of the full training
    steps: int
    train_seconds: float
    loss: float  # mean over the last tenth; of its own objective and levels: not comparable
    nfe: int
    sample_seconds: float  # mean of the sets
    squares: tuple[float, ...]  # SW2²/floor² of each set

    @property
    def ratio(self) -> float:
        """The score of the sets together."""
        return math.sqrt(sum(self.squares) / len(self.squares))


class Ideal(NamedTuple):
    """What the exact denoiser's samples are worth, of the same starting noise as a `Row`'s."""

    way: WayName
    range: RangeName
    schedule: str
    seed: int
    nfe: int
    start: Start  # the way's own, or x_T of true points
    squares: tuple[float, ...]  # SW2²/floor², of the first sets

    @property
    def ratio(self) -> float:
        """The score of the sets together."""
        return math.sqrt(sum(self.squares) / len(self.squares))


class Interval(NamedTuple):
    """A geometric mean; the ends are None of a single value."""

    mean: float
    low: float | None
    high: float | None


class Summary(NamedTuple):
    """The ratio over seeds."""

    way: WayName
    range: RangeName
    schedule: str
    share: float
    nfe: int
    ratio: Interval  # 95 %
    exact: float  # the ratio of the exact denoiser, sampled in the same way


class Pair(NamedTuple):
    """A growing schedule against a constant one."""

    schedule: str
    against: str
    factor: Interval  # all pairs of a verdict together 95 %
    p: float | None  # two-sided, of this pair alone; None of a single seed


class Verdict(NamedTuple):
    """Whether growth beats a constant β, by one way, in one range."""

    question: Question  # `better` after the full training, `faster`: after the first share already
    way: WayName
    range: RangeName
    against: str
    share: float
    nfe: int
    answer: Answer
    pairs: tuple[Pair, ...]


class Estimate(NamedTuple):
    """A mean over seeds, in units of floor²."""

    value: float
    standard_error: float | None  # None of a single seed


class Parts(NamedTuple):
    """Where the error comes from: 1 + discretisation + start + learning = total."""

    way: WayName
    range: RangeName
    schedule: str
    share: float
    nfe: int
    discretisation: Estimate
    start: Estimate
    learning: Estimate
    total: Estimate


Key = tuple[WayName, RangeName, str, float, int]


@dataclass(frozen=True)
class Claim:
    """The evidence.

    Args:
        settings: what was asked for.
        steps: of the full training.
        floor: SW2 of true sets, data units.
        rows: one for each training and number of evaluations.
        ideals: the exact denoiser in place of the trained.
    """

    settings: Settings
    steps: int
    floor: float
    rows: tuple[Row, ...]
    ideals: tuple[Ideal, ...]

    def ratios(
        self, way: WayName, range_: RangeName, schedule: str, share: float = 1.0, nfe: int = T
    ) -> list[float]:
        """The ratio of each seed, in order.

        Raises:
            ValueError: there is no such training.
        """
        return [row.ratio for row in self._rows((way, range_, schedule, share, nfe))]

    def summaries(self) -> list[Summary]:
        """One for each way, range, schedule, share and number of evaluations."""
        return [
            Summary(
                *key,
                geometric_mean(self.ratios(*key)),
                root_mean([q for ideal in self._ideals(key, "own") for q in ideal.squares]),
            )
            for key in self._keys()
        ]

    def parts(self) -> list[Parts]:
        """Where the error comes from, by the sets that the exact denoiser drew as well."""
        return [self._parts(key) for key in self._keys()]

    def verdicts(self) -> list[Verdict]:
        """An answer for each question, way, range, constant schedule and number of evaluations."""
        first = self.settings.shares[0]
        asked: list[tuple[Question, float, int]] = [("better", 1.0, k) for k in self.settings.nfe]
        if first < 1:
            asked.append(("faster", first, T))
        return [
            self._verdict(question, way, range_, against.name, share, nfe)
            for way in self.settings.ways
            for range_ in self.settings.ranges
            for against in contenders(range_)
            if not against.grows
            for question, share, nfe in asked
            if way == "ours" or nfe == T
        ]

    def panels(self) -> dict[tuple[str, str], dict[str, Marks]]:
        """For `figures.schedule_ratios`: the full trainings at T evaluations, by way and range."""
        found: dict[tuple[str, str], dict[str, Marks]] = {}
        for summary in self.summaries():
            if summary.share == 1 and summary.nfe == T:
                panel = found.setdefault((summary.way, summary.range), {})
                panel[summary.schedule] = (*summary.ratio, summary.exact)
        return {(w, r): found[w, r] for r in self.settings.ranges for w in self.settings.ways}

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON can hold it."""
        return {
            "settings": asdict(self.settings),
            "steps": self.steps,
            "floor": self.floor,
            "schedules": [
                _described(r, contender)
                for r in self.settings.ranges
                for contender in contenders(r)
            ],
            "rows": [{**row._asdict(), "ratio": row.ratio} for row in self.rows],
            "exact": [{**ideal._asdict(), "ratio": ideal.ratio} for ideal in self.ideals],
            "summaries": [_plain(summary) for summary in self.summaries()],
            "parts": [_plain(parts) for parts in self.parts()],
            "verdicts": [_plain(verdict) for verdict in self.verdicts()],
        }

    def _keys(self) -> list[Key]:
        return list(dict.fromkeys(_key(row) for row in self.rows))

    def _rows(self, key: Key) -> list[Row]:
        """Of each seed, in order."""
        found = sorted((row for row in self.rows if _key(row) == key), key=lambda row: row.seed)
        if not found:
            raise ValueError(
                f"{key} was not measured: choose way, range, schedule, share and nfe of a row"
            )
        return found

    def _ideals(self, key: Key, start: Start) -> list[Ideal]:
        """Of each seed, in order."""
        way, range_, schedule, _, nfe = key
        wanted = (way, range_, schedule, nfe, start)
        found = [i for i in self.ideals if (i.way, i.range, i.schedule, i.nfe, i.start) == wanted]
        return sorted(found, key=lambda ideal: ideal.seed)

    def _parts(self, key: Key) -> Parts:
        true, own = ([i.ratio**2 for i in self._ideals(key, s)] for s in ("true", "own"))
        # The sets that both drew, from the same noise: most of their chance is shared.
        several = self.settings.exact_draws
        net = [sum(row.squares[:several]) / several for row in self._rows(key)]
        return Parts(
            *key,
            discretisation=estimate([q - 1 for q in true]),
            start=estimate([q - p for p, q in zip(true, own, strict=True)]),
            learning=estimate([q - p for p, q in zip(own, net, strict=True)]),
            total=estimate(net),
        )

    def _verdict(
        self,
        question: Question,
        way: WayName,
        range_: RangeName,
        against: str,
        share: float,
        nfe: int,
    ) -> Verdict:
        constant = self.ratios(way, range_, against, share, nfe)
        growing = [c.name for c in contenders(range_) if c.grows]
        pairs = tuple(
            compared(
                name, self.ratios(way, range_, name, share, nfe), against, constant, len(growing)
            )
            for name in growing
        )
        return Verdict(question, way, range_, against, share, nfe, answer(pairs), pairs)


def _key(row: Row) -> Key:
    return row.way, row.range, row.schedule, row.share, row.nfe


def _described(range_: RangeName, contender: Contender) -> dict[str, Any]:
    table = contender.schedule
    return {
        "range": range_,
        "name": contender.name,
        "grows": contender.grows,
        "spec": table.spec,
        "alpha_bar_T": table.alpha_bar[T].item(),
        "log_snr_1": table.log_snr[1].item(),
    }


def _plain(value: Any) -> Any:
    """Named tuples as dictionaries, all the way down."""
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: _plain(part) for name, part in value._asdict().items()}
    return [_plain(part) for part in value] if isinstance(value, tuple) else value


# --- statistics


def geometric_mean(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """exp(mean of log v), between exp(mean ± t·s/√n).

    Ratios are above 0, and what makes one net worse than another multiplies: logarithms are nearer
    to normal, and no interval reaches below 0. With t of n − 1 degrees of freedom: Student 1908.
    """
    logs = torch.tensor(values, dtype=torch.float64).log()
    mean, n = logs.mean().item(), len(logs)
    if n < 2:
        return Interval(math.exp(mean), None, None)
    reach = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * logs.std().item() / math.sqrt(n)
    return Interval(math.exp(mean), math.exp(mean - reach), math.exp(mean + reach))


def compared(
    name: str, ratios: Sequence[float], against: str, others: Sequence[float], family: int = 1
) -> Pair:
    """The factor r/r' between two schedules, seed by seed.

    Args:
        name: of the first.
        ratios: of each seed.
        against: the name of the second.
        others: of the same seeds.
        family: so many pairs are judged together: each interval is wider, by Bonferroni's
            inequality, so that all of them hold in 95 % of such experiments.
    """
    factors = [a / b for a, b in zip(ratios, others, strict=True)]
    interval = geometric_mean(factors, 1 - (1 - CONFIDENCE) / family)
    return Pair(name, against, interval, _p_value(factors))


def _p_value(factors: Sequence[float]) -> float | None:
    """Of the paired t-test that the mean of log factors is 0."""
    logs = torch.tensor(factors, dtype=torch.float64).log()
    if len(logs) < 2:
        return None
    mean, error = logs.mean().item(), (logs.std() / math.sqrt(len(logs))).item()
    if error == 0:
        return float(mean == 0)
    return 2 * float(stats.t.sf(abs(mean) / error, len(logs) - 1))


def answer(pairs: Sequence[Pair]) -> Answer:
    """The claim is of all that grow: it holds if all are surely better.

    It does not hold if one is surely worse, or surely the same within 5 %. Otherwise the evidence
    does not decide.
    """
    intervals = [(pair.factor.low, pair.factor.high) for pair in pairs]
    sure = [(low, high) for low, high in intervals if low is not None and high is not None]
    if len(sure) < len(intervals):
        return "undecided"
    if all(high < 1 for _, high in sure):
        return "holds"
    if any(low > 1 or (high >= 1 and 1 / SAME < low and high < SAME) for low, high in sure):
        return "does not hold"
    return "undecided"


def estimate(values: Sequence[float]) -> Estimate:
    """The mean, and its standard error."""
    v = torch.tensor(values, dtype=torch.float64)
    error = (v.std() / math.sqrt(len(v))).item() if len(v) > 1 else None
    return Estimate(v.mean().item(), error)


def root_mean(squares: Sequence[float]) -> float:
    """√ of the mean."""
    return math.sqrt(sum(squares) / len(squares))


# --- the experiment


def run_claim(
    settings: Settings | None = None,
    advance: Advance = lambda: None,
    yardstick: Yardstick | None = None,
) -> Claim:
    """Train on each schedule of each range in each way, and score what is sampled.

    Args:
        settings: how much.
        advance: called `settings.units` times.
        yardstick: SW2 for sets of `settings.n` points against `data.swiss_roll()`; None: made here.
    """
    settings = settings or Settings()
    data = swiss_roll(settings.n)
    assert data.fresh is not None
    bench = _Bench(settings, data, yardstick or against_fresh(settings.n, data.fresh))
    steps = settings.steps or steps_in(settings.seconds, bench.x_0)
    rows: list[Row] = []
    ideals: list[Ideal] = []
    # Seeds outermost: what else the machine does meanwhile falls on all schedules alike.
    for seed in range(settings.seeds):
        for range_ in settings.ranges:
            for contender in contenders(range_):
                for name in settings.ways:
                    for share in settings.shares:
                        rows += bench.trained(name, range_, contender, seed, share, steps)
                        advance()
                    ideals += bench.exact(name, range_, contender, seed)
                    advance()
    return Claim(settings, steps, math.sqrt(bench.yardstick.floor), tuple(rows), tuple(ideals))


def steps_in(seconds: float, x_0: Float[Tensor, "N 2"]) -> int:
    """How many steps of training take so long here, judging by a few of the plain way."""
    way = way_of("plain", contenders("noise")[0].schedule, x_0, (T,), 0)
    done = [s.seconds for s in train(way.denoiser, Shuffled(x_0), 0, PROBED, None, way.training)]
    return max(1, round(seconds * (PROBED - WARM) / (done[-1] - done[WARM - 1])))


class _Drawn(NamedTuple):
    """A set of samples."""

    square: float  # SW2²/floor²
    nfe: int
    seconds: float


class _Bench:
    """What all trainings share: the data, their exact law, and what samples are scored by."""

    def __init__(self, settings: Settings, data: Data, yardstick: Yardstick) -> None:
        self.settings, self.data, self.yardstick = settings, data, yardstick
        self.x_0 = data.x.float()
        self.target = target_of(data)

    def trained(
        self,
        name: WayName,
        range_: RangeName,
        contender: Contender,
        seed: int,
        share: float,
        steps: int,
    ) -> Iterator[Row]:
        """One training, sampled at each number of evaluations."""
        way = way_of(name, contender.schedule, self.x_0, self.settings.nfe, seed)
        steps, losses = max(1, round(share * steps)), []
        for step in train(way.denoiser, Shuffled(self.x_0), seed, steps, None, way.training):
            losses.append(step.loss)
        tail = losses[-max(1, steps // 10) :]
        for sampler, path in way.paths if share == 1 else way.paths[:1]:
            drawn = [
                self._drawn(step.denoiser, sampler, path, seed, i, way.start)
                for i in range(self.settings.draws)
            ]
            yield Row(
                name,
                range_,
                contender.name,
                seed,
                share,
                steps,
                step.seconds,
                sum(tail) / len(tail),
                drawn[0].nfe,
                sum(one.seconds for one in drawn) / len(drawn),
                tuple(one.square for one in drawn),
            )

    def exact(
        self, name: WayName, range_: RangeName, contender: Contender, seed: int
    ) -> Iterator[Ideal]:
        """The exact denoiser, sampled as the trained one is, and from the true x_T."""
        way = way_of(name, contender.schedule, self.x_0, self.settings.nfe, seed)
        for sampler, path in way.paths:
            for start in get_args(Start):
                squares, calls = [], 0
                for i in range(self.settings.exact_draws):
                    x_T = way.start if start == "own" else self._true(path[path.T], seed, i)
                    square, calls, _ = self._drawn(self.target, sampler, path, seed, i, x_T)
                    squares.append(square)
                yield Ideal(name, range_, contender.name, seed, calls, start, tuple(squares))

    @torch.no_grad()
    def _drawn(
        self,
        denoiser: Denoiser,
        sampler: Sampler,
        path: Schedule,
        seed: int,
        i: int,
        start: Normal | Float[Tensor, "n 2"] | None,
    ) -> _Drawn:
        """The i-th set of a seed: its noise is the same for all denoisers, schedules and ways."""
        n, begin = self.settings.n, time.perf_counter()
        *_, last = sample(denoiser, sampler, path, n, (2,), seed, first=i * n, start=start)
        seconds = time.perf_counter() - begin
        return _Drawn(self.yardstick.distance(last.x) / self.yardstick.floor, last.nfe, seconds)

    def _true(self, top: Level, seed: int, i: int) -> Float[Tensor, "n 2"]:
        """x_T = α_T·x_0 + σ_T·z of points of the law, with the z that other starts have."""
        n = self.settings.n
        assert self.data.fresh is not None
        x_0 = self.data.fresh(n, _TRUE + seed * self.settings.draws + i).float()
        return top.alpha * x_0 + top.sigma * keyed_noise(seed, 0, i * n, n, (2,))
