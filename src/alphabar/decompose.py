"""Which part is to blame: the error of samples taken apart, by sampling in four ways.

    Q(denoiser, way) = mean SW2² of sets of n samples to the truth,     floor² = that of true sets

                        few steps          many steps
    trained denoiser    Q(x̂_0, few)        Q(x̂_0, many)
    exact denoiser      Q(x̂_0*, few)       Q(x̂_0*, many)

    Q(x̂_0, few) = floor²                                         sampling noise
                + Q(x̂_0, many) − Q(x̂_0*, many)                   model
                + Q(x̂_0*, few) − Q(x̂_0*, many)                   discretisation
                + Q(x̂_0, few) − Q(x̂_0, many) − Q(x̂_0*, few) + Q(x̂_0*, many)    interaction
                + Q(x̂_0*, many) − floor²                         rest

Squares add, distances do not. With q the truth's quantile functions along all directions, samples
have q + d + e: d is what is systematically wrong, e the noise of n points, and E‖d + e‖² = ‖d‖² +
floor², as long as d is small beside the data. Two systematic errors meet in 2⟨d_model, d_few⟩, the
interaction: below 0 where they cancel, so that better steps alone may even make a result worse.

All four begin from the same noise, item by item, so that they share most of e. Against the exact
denoiser at many steps this cancels from each difference (it is a control variate with coefficient
1); against the floor it would not. What remains of e, and whatever the exact denoiser leaves even
at many steps (a start that is not quite x_T, say), is the rest: 0 within its standard error where
the way with many steps is good enough to serve as the reference.

A fixed training set T is itself off the truth, by d_T. Of this the model part holds κ²‖d_T‖² with
κ = ⟨d_model, d_T⟩/‖d_T‖², and what is left is orthogonal to it, so the two add up. κ is about 1 (a
little less: samples of a set blur its finest grain) for a denoiser that knows the set by heart, and
0 for one that knows the law. It is a statement on quantile functions, whose errors mostly lie in a
few slow modes: an error that has nothing to do with T is aligned with it a little, by chance.

Source: the split of squares is a 2×2 factorial design, Fisher 1935, *The Design of Experiments*;
control variates: Owen 2013, *Monte Carlo theory, methods and examples*, section 8.9.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from alphabar.arguments import check_whole
from alphabar.metrics import REFERENCE, SlicedW2, Yardstick
from alphabar.noise import keyed_noise
from alphabar.samplers import Denoiser, Normal, Sampler, dpmpp_3m, matched, sample
from alphabar.schedule import Schedule
from alphabar.targets import Target

MANY = 200  # steps of `finely`
REFERENCES = 5  # sets of `metrics.REFERENCE` points that stand for the law
BATCH = 2**17  # numbers that are sampled at a time

Advance = Callable[[], None]
PartName = Literal["noise", "model", "discretisation", "interaction", "rest", "total", "systematic"]


class Way(NamedTuple):
    """How samples are drawn, but for the denoiser."""

    sampler: Sampler
    schedule: Schedule  # the levels that are visited
    start: Normal | None = None  # of `samplers.sample`; None: noise


def finely(schedule: Schedule, start: Normal | None = None, steps: int = MANY) -> Way:
    """DPM-Solver++ 3M at many steps, even in λ, between the ends of a schedule."""
    return Way(dpmpp_3m(), schedule.spaced(steps, "log_snr"), start)


class Run(NamedTuple):
    """One of the four ways, measured."""

    denoiser: Literal["trained", "exact"]
    sampler: str
    steps: int
    nfe: int
    square: float  # mean SW2² over draws, in squared data units
    standard_error: float | None  # of `square`; None of a single draw
    ratio: float  # √(square/floor²)


class Part(NamedTuple):
    """A term of the sum. It may be below 0, by chance or where errors cancel."""

    name: PartName
    square: float  # squared data units
    standard_error: float | None  # of `square`; None of a single draw, and of the floor
    floors: float  # square/floor²: the total's is ratio²
    floors_error: float | None  # standard_error/floor²


class Inherited(NamedTuple):
    """How much of the training set's own deviation from the truth the samples have."""

    deviation: float  # ‖d_T‖²: SW2² of the training set, squared data units
    share: float  # κ: 1 for a denoiser that knows the set by heart, 0 for one that generalises
    share_error: float | None
    square: float  # κ²‖d_T‖², without the bias that the noise of κ would give it
    standard_error: float | None  # of `square`
    floors: float  # square/floor²


@dataclass(frozen=True)
class Decomposition:
    """The error of samples, and the parts that add up to it.

    Args:
        runs: trained at few steps, trained at many, exact at few, exact at many.
        parts: noise, model, discretisation, interaction, rest.
        total: their sum.
        systematic: model, discretisation and interaction together, trained at few − exact at many:
            the total less the noise and the rest, and much steadier than the total is.
        inherited: the share of the training set in the model's part, where the set was given.
        floor: SW2 of true sets.
        n: samples in a set.
        draws: how many sets were drawn in each way.
    """

    runs: tuple[Run, Run, Run, Run]
    parts: tuple[Part, Part, Part, Part, Part]
    total: Part
    systematic: Part
    inherited: Inherited | None
    floor: float
    n: int
    draws: int

    @property
    def noise(self) -> Part:
        """The error of true sets: nothing is below it but by chance."""
        return self.parts[0]

    @property
    def model(self) -> Part:
        """What the trained denoiser adds to the exact one, at many steps."""
        return self.parts[1]

    @property
    def discretisation(self) -> Part:
        """What few steps add to many, with the exact denoiser."""
        return self.parts[2]

    @property
    def interaction(self) -> Part:
        """What both together add beyond their sum."""
        return self.parts[3]

    @property
    def rest(self) -> Part:
        """What the exact denoiser at many steps is off the floor: chance, if it is a reference."""
        return self.parts[4]

    @property
    def ratio(self) -> float:
        """√(total/floor²): the score of the samples, as `compare.evaluate` has it."""
        return math.sqrt(self.total.floors)

    @property
    def steady_ratio(self) -> float:
        """√(1 + systematic/floor²): the score without the luck of the draws.

        It is `ratio` with less chance in it, provided that the rest is chance alone.
        """
        return math.sqrt(max(0.0, 1 + self.systematic.floors))

    @property
    def largest(self) -> Part:
        """The largest of model, discretisation and interaction."""
        return max(self.parts[1:4], key=lambda part: part.square)

    @property
    def blame(self) -> Part | None:
        """The largest, if it is above 0 by two standard errors or more; else chance is to blame."""
        error = self.largest.standard_error
        return self.largest if error is not None and self.largest.square > 2 * error else None

    def rows(self) -> list[Part]:
        """The table: the parts, and the total."""
        return [*self.parts, self.total]

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON can hold it."""
        return {
            "n": self.n,
            "draws": self.draws,
            "floor": self.floor,
            "ratio": self.ratio,
            "steady_ratio": self.steady_ratio,
            "blame": None if self.blame is None else self.blame.name,
            "runs": [run._asdict() for run in self.runs],
            "parts": [part._asdict() for part in self.rows()],
            "systematic": self.systematic._asdict(),
            "inherited": None if self.inherited is None else self.inherited._asdict(),
        }


def decompose(
    denoiser: Denoiser,
    target: Target,
    few: Way,
    many: Way,
    yardstick: Yardstick,
    n: int,
    draws: int,
    seed: int,
    training: Float[Tensor, "N d"] | None = None,
    dtype: torch.dtype = torch.float32,
    advance: Advance = lambda: None,
) -> Decomposition:
    """Take the error of `few` with a trained denoiser apart.

        few = Way(dpmpp_2m(), schedule.spaced(12, "log_snr"), start)
        decompose(net, target, few, finely(schedule, start), yardstick, 10_000, 10, seed=0)

    What `few` and `many` do not share is the discretisation. With the same start in both, an error
    of the start is in the rest; with a better one in `many`, in the discretisation.

    Args:
        denoiser: the trained one.
        target: the truth that it was to learn, whose exact denoiser it is compared with. A set of
            `Points` in place of a law: the rest is then what that set is off the truth.
        few: what is taken apart.
        many: the reference; a sampler without noise keeps the noise of the draws shared.
        yardstick: SW2 for sets of n points, in the target's units.
        n: samples in a set.
        draws: how many sets, each from noise of its own; two or more for standard errors.
        seed: determines all noise; draw i takes the items i·n … as `compare.evaluate` does.
        training: the points that the denoiser was trained on, in the target's units, if it is
            asked what the samples have from them. The target is then the law that they came from.
        dtype: what samples are computed in.
        advance: called after each set: 4·draws times.

    Raises:
        ValueError: n < 2 or draws < 1; a denoiser that returns another shape or dtype, or something
            that is not finite; training points of another dimension.
    """
    check_whole("n", n, 2, 2**31)
    check_whole("draws", draws, 1, 2**31)
    if training is not None and training.shape[1:] != target.shape:
        raise ValueError(
            f"training has shape {tuple(training.shape)}: it must be points of the target's shape, "
            f"(N, {', '.join(map(str, target.shape))})"
        )
    off = None if training is None else SlicedW2(training, n).quantiles - _truth(target, n)
    each = [(who, how) for who in (denoiser, target) for how in (few, many)]
    squares = torch.zeros(4, draws, dtype=torch.float64)
    along = torch.zeros(4, draws, dtype=torch.float64)  # ⟨samples, d_T⟩
    calls = [0] * 4
    for i in range(draws):
        for k, (who, how) in enumerate(each):
            x, calls[k] = _drawn(who, how, target, n, seed, i * n, dtype)
            rising = yardstick.distance.sorted_projections(x)
            squares[k, i] = yardstick.distance.of_sorted(rising)
            if off is not None:
                along[k, i] = (rising * off).mean()
            advance()

    floor = yardstick.floor
    inherited = None
    if off is not None:
        inherited = _inherited(along[1] - along[3], off.square().mean().item(), floor)
    a, b, c, d = (
        Run(
            "trained" if k < 2 else "exact",
            how.sampler.spec,
            how.schedule.T,
            calls[k],
            v.mean().item(),
            error_of(v),
            math.sqrt(v.mean().item() / floor),
        )
        for k, ((_, how), v) in enumerate(zip(each, squares, strict=True))
    )
    trained_few, trained_many, exact_few, exact_many = squares
    return Decomposition(
        runs=(a, b, c, d),
        parts=(
            Part("noise", floor, None, 1.0, None),
            _part("model", trained_many - exact_many, floor),
            _part("discretisation", exact_few - exact_many, floor),
            _part("interaction", (trained_few - exact_few) - (trained_many - exact_many), floor),
            _part("rest", exact_many - floor, floor),
        ),
        total=_part("total", trained_few, floor),
        systematic=_part("systematic", trained_few - exact_many, floor),
        inherited=inherited,
        floor=math.sqrt(floor),
        n=n,
        draws=draws,
    )


def _part(name: PartName, squares: Float64[Tensor, " draws"], floor: float) -> Part:
    mean, error = squares.mean().item(), error_of(squares)
    return Part(name, mean, error, mean / floor, None if error is None else error / floor)


def _truth(target: Target, n: int) -> Float64[Tensor, "k n"]:
    """The target's quantiles, much nearer to them than a set of `REFERENCE` points is.

    The noise of such a reference, n/REFERENCE of floor², would count as a deviation of the training
    set, which is itself of about the size of floor².
    """
    generator = torch.Generator().manual_seed(0)
    sets = (target.sample(REFERENCE, generator).cpu() for _ in range(REFERENCES))
    return torch.stack([SlicedW2(one, n).quantiles for one in sets]).mean(0)


def error_of(values: Float64[Tensor, " draws"]) -> float | None:
    """The standard error of the mean; None of a single value."""
    return (values.std() / math.sqrt(len(values))).item() if len(values) > 1 else None


def _inherited(product: Float64[Tensor, " draws"], deviation: float, floor: float) -> Inherited:
    """From ⟨d, d_T⟩ of each draw, and ‖d_T‖²."""
    share = (product / deviation).mean().item()
    error = error_of(product / deviation)
    square = (share**2 - (error or 0.0) ** 2) * deviation
    off = None if error is None else 2 * abs(share) * error * deviation
    return Inherited(deviation, share, error, square, off, square / floor)


def _drawn(
    denoiser: Denoiser, way: Way, target: Target, n: int, seed: int, first: int, dtype: torch.dtype
) -> tuple[Float64[Tensor, "n d"], int]:
    """Items first … first + n − 1 of the samples that the seed determines, and the calls made."""
    shape, top = target.shape, way.schedule[way.schedule.T]
    size = max(1, BATCH // math.prod(shape))
    parts, calls = [], 0
    for i in range(0, n, size):
        count = min(size, n - i)
        z = keyed_noise(seed, 0, first + i, count, shape).to(dtype)
        x_T = z * torch.hypot(*top) if way.start is None else matched(way.start, top, z)
        *_, last = sample(
            denoiser,
            way.sampler,
            way.schedule,
            count,
            shape,
            seed,
            first + i,
            x_T,
            target.device,
        )
        parts.append(last.x.double().cpu())
        calls = max(calls, last.nfe)
    return torch.cat(parts), calls
