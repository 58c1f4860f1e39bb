"""Drawing: the reverse process, led by the exact denoiser of a data set or by a trained one.

    x_T ~ N(0, (α_T² + σ_T²)·I)    or    N(α_T·m, α_T²·Σ + σ_T²·I),    then x_t → x_s → … → x_0

m and Σ are the data's mean and covariance. The first start is right where nothing of the data is
left in x_T; the second has the right first two moments wherever the levels end.
"""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from alphabar import schedule as schedules
from alphabar.arguments import check_whole
from alphabar.data import Data, Standardiser
from alphabar.diagnosis import REACHES_NOISE
from alphabar.fit import FINE, ROUNDS, fit_mixes, fit_steps
from alphabar.noise import keyed_noise
from alphabar.samplers import (
    SAMPLERS,
    Denoiser,
    LinearSampler,
    Normal,
    Sampler,
    Step,
    dpmpp_2m,
    matched,
    nfe_of,
    sample,
)
from alphabar.samplers.mixes import Mixes
from alphabar.schedule import MAX_T, Level, Schedule
from alphabar.targets import Points, Target, target_of
from alphabar.trace import Trace

FEW = 20  # steps, if no number is given
MAX_N = 100_000_000
MAX_COV = 4096  # numbers of an item up to which their covariance is worked out
LARGEST = 1e18
BATCH = 2**17  # numbers that are sampled at a time
MEMORY = 4 * 2**30  # bytes that samples may take
# Nats a dimension that N(0, I) may be off. At half of the 0.01 that `diagnosis` calls noise, 10,000
# samples of the Swiss roll are five times as far from it as true ones.
AS_GOOD = 1e-5
SELECTING = ("trailing", "leading", "linspace")
FITTED = ("fitted", "curvature")
RULES = ("log_snr", "karras", *SELECTING, "all", *FITTED)
STARTS = ("auto", "noise", "matched")
FREE = "mixes"  # as a sampler, with spacing `fitted`: its coefficients are fitted too

# bar("sampling", 400) starts a progress bar and returns what moves it one step on.
Bar = Callable[[str, int], Callable[[], None]]


class Source(ABC):
    """What is drawn from, in the units that it is diffused in."""

    denoiser: Denoiser
    mean: Float64[Tensor, "..."]  # E[x_0]
    standardiser: Standardiser | None  # what brought the data to these units

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Of an item."""

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """What is enough to tell the items apart."""

    @abstractmethod
    def _law(self) -> Normal:
        """The mean and covariance of the data."""

    @abstractmethod
    def _variances(self) -> Float64[Tensor, " D"]:
        """Of each number of a large item."""

    @property
    def is_large(self) -> bool:
        """Whether the covariance of items of this size is left alone."""
        return math.prod(self.shape) > MAX_COV

    @property
    def tolerance(self) -> float:
        """How far off a start may be: where it cannot be matched, what counts as noise will do."""
        return REACHES_NOISE if self.is_large else AS_GOOD

    @cached_property
    def law(self) -> Normal:
        """The data's mean and covariance.

        Raises:
            ValueError: items of more than `MAX_COV` numbers.
        """
        if self.is_large:
            raise ValueError(
                f"items of {math.prod(self.shape)} numbers: a matched start, and fitted "
                f"steps, need the covariance of at most {MAX_COV}; take --start noise, and a "
                "--spacing that is not fitted"
            )
        return self._law()

    @cached_property
    def variances(self) -> Float64[Tensor, " D"]:
        """Along the principal axes of the data; of large items along the coordinates."""
        if self.is_large:
            return self._variances()
        return torch.linalg.eigvalsh(self.law.cov).clamp(min=0)

    @property
    def spread(self) -> float:
        """The largest standard deviation in any direction."""
        return self.variances.max().sqrt().item()

    def gap(self, level: Level) -> float:
        """KL(N(α·m, α²·Σ + σ²·I) ‖ N(0, (α² + σ²)·I)), nats a dimension."""
        alpha, total = level.alpha, level.alpha**2 + level.sigma**2
        excess = alpha**2 * (self.variances - 1) / total
        shift = alpha**2 * self.mean.double().square().mean() / total
        return ((excess - excess.log1p()).mean() + shift).item() / 2

    def invert(self, x: Float[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
        """Back in the data's own units; scaled ones become float64."""
        return x if self.standardiser is None else self.standardiser.invert(x.double())


@dataclass(frozen=True, eq=False)
class Known(Source):
    """An exact target.

    Args:
        target: the exact p(x_0).
        x: the data, or those of them that stand for p(x_0).
        is_law: the target is the law that the data were drawn from, and not these items alone.
        standardiser: what brought the data to these units.
    """

    target: Target
    x: Float[Tensor, "N ..."]
    is_law: bool
    standardiser: Standardiser | None

    @property
    def denoiser(self) -> Target:  # type: ignore[override]
        """E[x_0 | x_t] itself."""
        return self.target

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an item."""
        return self.target.shape

    @property
    def mean(self) -> Float64[Tensor, "..."]:  # type: ignore[override]
        """E[x_0]."""
        return self.target.mean

    def _law(self) -> Normal:
        return Normal(self.target.mean, self.target.cov)

    def _variances(self) -> Float64[Tensor, " D"]:
        return self.x.double().flatten(1).var(0, correction=0)

    @cached_property
    def dtype(self) -> torch.dtype:
        """What is enough to tell the items apart: float32, unless they are far from 0."""
        far = self.x.abs().max().item()
        return torch.float64 if far * 2**-24 > 1e-3 * self.spread > 0 else torch.float32


@dataclass(frozen=True, eq=False)
class Learned(Source):
    """A trained denoiser, and what was kept of its data.

    Args:
        denoiser: the network's.
        mean: of the training data.
        cov: of them, flattened; None for large items.
        var: of each number.
        standardiser: what brought the data to the units of training.
    """

    denoiser: Denoiser
    mean: Float64[Tensor, "..."]
    cov: Float64[Tensor, "D D"] | None
    var: Float64[Tensor, " D"]
    standardiser: Standardiser | None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an item."""
        return tuple(self.mean.shape)

    @property
    def dtype(self) -> torch.dtype:
        """A network's: float32."""
        return torch.float32

    def _law(self) -> Normal:
        assert self.cov is not None
        return Normal(self.mean, self.cov)

    def _variances(self) -> Float64[Tensor, " D"]:
        return self.var


def source_of(data: Data, standardiser: Standardiser | None, rows: Tensor | None = None) -> Known:
    """The exact target of a data set: its law where that is known, else its items.

    Args:
        data: the data.
        standardiser: applied first, where given.
        rows: indices of the items that may be used, if not all.

    Raises:
        ValueError: a known law and a standardiser; numbers above `LARGEST`.
    """
    if data.target is not None:
        if standardiser is not None:
            raise ValueError(
                "--standardise: the exact law of these data is known in its own units alone; "
                "leave the option out"
            )
        return Known(target_of(data), data.x, True, None)
    x = data.x if rows is None else data.x[rows]
    x = x if standardiser is None else standardiser.apply(x)
    if x.abs().max() > LARGEST:
        raise ValueError(
            f"the data hold numbers up to {x.abs().max():.2g}, whose squares float32 cannot hold: "
            "add --standardise, or give them in a larger unit"
        )
    return Known(Points(x), x, False, standardiser)


class Choice(NamedTuple):
    """A sampler and its number of steps, before anything is worked out."""

    sampler: Sampler
    rule: str
    steps: int
    fits_mixes: bool


@dataclass(frozen=True)
class Plan:
    """A sampler, the levels that it visits, and where it starts from.

    Args:
        sampler: the sampler.
        rule: how the levels were chosen.
        schedule: these levels.
        start: the moments of x_T; None for noise.
        gap: how far noise would be from them: `Source.gap`.
        fit_seconds: how long the levels were fitted; None if they were not.
    """

    sampler: Sampler
    rule: str
    schedule: Schedule
    start: Normal | None
    gap: float
    fit_seconds: float | None

    @property
    def start_name(self) -> str:
        """`noise` or `matched`."""
        return "noise" if self.start is None else "matched"


def choose(
    spec: str, rule: str, schedule: Schedule, steps: int | None = None, nfe: int | None = None
) -> Choice:
    """What was asked for, or an error that says why it cannot be had.

    Args:
        spec: a sampler's; `mixes` with the rule `fitted` has its coefficients fitted.
        rule: one of `RULES`.
        schedule: what the levels come from.
        steps: how many, if it is given.
        nfe: calls of the denoiser, in its place: as many steps as they allow.

    Raises:
        ValueError: an unknown name, both steps and nfe, a number that the rule or the sampler
            cannot have.
    """
    if rule not in RULES:
        raise ValueError(f"--spacing {rule}: choose {', '.join(RULES[:-1])} or {RULES[-1]}")
    if steps is not None and nfe is not None:
        raise ValueError(f"--steps {steps} and --nfe {nfe}: one follows from the other; give one")
    fits_mixes = spec == FREE and rule == "fitted"
    sampler: Sampler = dpmpp_2m() if fits_mixes else SAMPLERS.parse(spec)
    if rule in FITTED and (sampler.order == 0 or not isinstance(sampler, LinearSampler)):
        raise ValueError(
            f"--spacing {rule} with {spec}: steps are fitted to a sampler without noise and of "
            "steps that do not depend on x, such as dpmpp_2m or heun"
        )
    if rule == "all":
        if steps is not None or nfe is not None:
            raise ValueError(
                f"--spacing all visits each of the T = {schedule.T} levels: leave out --steps and "
                "--nfe, or take another spacing"
            )
        return Choice(sampler, rule, schedule.T, fits_mixes)
    given = f"--steps {steps}"
    if steps is not None:
        steps = check_whole("--steps", steps, 1, MAX_T)
    elif nfe is not None:
        steps, given = _steps_within(sampler, schedule, rule, nfe), f"--nfe {nfe}"
    else:
        steps, given = min(FEW, schedule.T), f"{FEW} steps"
    if rule not in FITTED:
        try:
            _spaced(schedule, steps, rule)
        except ValueError as error:
            raise ValueError(f"{given}: {error}") from None
    return Choice(sampler, rule, steps, fits_mixes)


def _spaced(schedule: Schedule, steps: int, rule: str) -> Schedule:
    return schedule if rule == "all" else schedule.spaced(steps, rule)  # type: ignore[arg-type]


def _steps_within(sampler: Sampler, schedule: Schedule, rule: str, nfe: int) -> int:
    """The most steps that take at most `nfe` calls."""
    check_whole("--nfe", nfe, 1, MAX_T)
    if isinstance(sampler, Mixes):
        return nfe  # one a step; of another number of steps it knows nothing
    if not isinstance(sampler, LinearSampler):
        raise ValueError(
            f"--nfe {nfe}: {sampler.spec} calls the denoiser as often as its tolerance needs; "
            "give --steps, the levels that it must land on, or another sampler"
        )

    def calls(n: int) -> int:
        # Their number depends on how many levels there are and whether the last is pure noise.
        return nfe_of(sampler, schedules.flow(n) if ends_at_noise else schedules.log_snr(n))

    ends_at_noise = schedule.alpha[-1] == 0 and rule != "leading"
    least = calls(1)
    if least > nfe:
        raise ValueError(f"--nfe {nfe}: {sampler.spec} takes {least} calls at least")
    low, high = 1, nfe + 1  # calls(low) ≤ nfe < calls(high), as a step takes one call or more
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if calls(middle) <= nfe else (low, middle)
    return low


def fit_length(choice: Choice) -> int:
    """How often the fitting of these steps moves its progress bar; 0 if they are not fitted."""
    if choice.rule not in FITTED:
        return 0
    return FINE + ROUNDS * (0 if choice.rule == "curvature" else 2 if choice.fits_mixes else 1)


def make_plan(
    choice: Choice, source: Source, schedule: Schedule, start: str, seed: int, bar: Bar
) -> Plan:
    """The levels, fitted if so, and the start.

    Args:
        choice: the sampler and the number of steps.
        source: what will be drawn from.
        schedule: what the levels come from.
        start: `noise`, `matched`, or `auto`: noise where `Source.gap` is within `Source.tolerance`.
        seed: of the trajectories that are fitted to.
        bar: makes progress bars.

    Raises:
        ValueError: an unknown start, one that fitted steps cannot have, items too large for it.
    """
    check_start(start, choice.rule)
    sampler, seconds = choice.sampler, None
    if choice.rule in FITTED:
        advance = bar("fitting", fit_length(choice))
        began = time.perf_counter()
        options = (choice.steps, schedule, source.law)
        if choice.fits_mixes:
            few, sampler = fit_mixes(source.denoiser, *options, seed, advance)
        else:
            assert isinstance(sampler, LinearSampler)
            by = "curvature" if choice.rule == "curvature" else "gradient"
            few = fit_steps(source.denoiser, sampler, *options, by, seed, advance)  # type: ignore[arg-type]
        seconds = time.perf_counter() - began
    else:
        few = _spaced(schedule, choice.steps, choice.rule)
    gap = source.gap(few[few.T])
    far = gap > source.tolerance and start == "auto"
    law = source.law if far or start == "matched" or choice.rule in FITTED else None
    return Plan(sampler, choice.rule, few, law, gap, seconds)


def check_start(start: str, rule: str) -> None:
    """Refuse a start that there is not, or that fitted steps cannot have."""
    if start not in STARTS:
        raise ValueError(f"--start {start}: choose {', '.join(STARTS[:-1])} or {STARTS[-1]}")
    if start == "noise" and rule in FITTED:
        raise ValueError(
            f"--start noise with --spacing {rule}: fitted steps begin where the data still show; "
            "leave --start out"
        )


class Watched:
    """x_t of the first `count` items at some t, and what the denoiser made of it there."""

    def __init__(self, times: Sequence[int], count: int) -> None:
        self.times, self.count = sorted(set(times), reverse=True), count
        self._x: dict[int, list[Tensor]] = {t: [] for t in self.times}
        self._x_0_hat: dict[int, list[Tensor]] = {t: [] for t in self.times}
        self._before = 0

    def __call__(self, step: Step, first: int) -> None:
        """Keep what is asked for of items first, first + 1, …."""
        room = max(0, self.count - first)
        if step.t in self._x:
            self._x[step.t].append(step.x[:room])
        if step.x_0_hat is not None and self._before in self._x:
            self._x_0_hat[self._before].append(step.x_0_hat[:room])
        if step.t == 0 and 0 in self._x:
            self._x_0_hat[0].append(step.x[:room])
        self._before = step.t

    def trace(self, schedule: Schedule) -> Trace:
        """x_t, t falling."""
        return Trace(schedule, self.times, [torch.cat(self._x[t]) for t in self.times])

    @property
    def x_0_hat(self) -> list[Float[Tensor, "n ..."]]:
        """What the denoiser took each of these x_t for; at t = 0 x_0 itself."""
        return [torch.cat(self._x_0_hat[t]) for t in self.times]


class Drawn(NamedTuple):
    """Samples, in the units of their source."""

    x: Float[Tensor, "n ..."]
    nfe: int
    seconds: float


def batches(source: Source, n: int) -> list[tuple[int, int]]:
    """(first, size) of the parts that n items are drawn in."""
    size = max(1, BATCH // max(1, math.prod(source.shape)))
    return [(i, min(size, n - i)) for i in range(0, n, size)]


def check_memory(source: Source, n: int, frames: int = 0, shown: int = 0) -> None:
    """Refuse what would not fit: n samples, and `shown` of them at `frames` moments, twice."""
    check_whole("-n", n, 1, MAX_N)
    bytes_each = math.prod(source.shape) * source.dtype.itemsize
    size = bytes_each * (n + 2 * frames * shown)
    if size > MEMORY:
        raise ValueError(
            f"-n {n}: this needs {size / 2**30:.0f} GiB, more than the {MEMORY / 2**30:.0f} "
            "allowed: take fewer samples or steps, or draw them in parts, each with a --seed of "
            "its own"
        )


def draw(
    source: Source,
    plan: Plan,
    n: int,
    seed: int,
    first: int = 0,
    watch: Callable[[Step, int], None] = lambda step, first: None,
    advance: Callable[[], None] = lambda: None,
) -> Drawn:
    """Items first … first + n − 1 of the samples that the seed determines.

    They are drawn in parts; what a part keeps of its way is up to `watch`.

    Args:
        source: what to draw from.
        plan: how.
        n: how many.
        seed: determines all noise.
        first: index of the first item.
        watch: called with each step of each part, and the index of its first item.
        advance: called after each step of each part.

    Raises:
        ValueError: the denoiser returned another shape or dtype, or something that is not finite;
            it names the t.
    """
    shape = source.shape
    x = torch.empty(n, *shape, dtype=source.dtype)
    calls = 0
    began = time.perf_counter()
    for i, size in batches(source, n):
        start = _start(source, plan, first + i, size, seed)
        for step in sample(
            source.denoiser, plan.sampler, plan.schedule, size, shape, seed, first + i, start
        ):
            watch(step, i)
            if step.x_0_hat is not None:
                advance()
        x[i : i + size] = step.x
        calls = max(calls, step.nfe)
    return Drawn(x, calls, time.perf_counter() - began)


def _start(
    source: Source, plan: Plan, first: int, n: int, seed: int
) -> Normal | Float64[Tensor, "n ..."] | None:
    """What `sample` starts from: in float64 x_T itself, as all is computed in its dtype."""
    if source.dtype == torch.float32:
        return plan.start
    z = keyed_noise(seed, 0, first, n, source.shape).double()
    top = plan.schedule[plan.schedule.T]
    return z * torch.hypot(*top) if plan.start is None else matched(plan.start, top, z)
