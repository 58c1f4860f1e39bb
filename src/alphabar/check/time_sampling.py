"""Check of the times that a loss is asked at: each level must be as likely as any other.

    t uniform on {1, …, T} (or 0, …, T − 1),    of a flow: t uniform on [0, 1]

Ho, Jain, Abbeel 2020, algorithm 1; Liu et al. 2023, eq. (1). What is drawn is compared by bounds
that hold for every n: the greatest distance of the distribution functions (Dvoretzky, Kiefer,
Wolfowitz 1956; Massart 1990) and, of whole numbers, the count of each t by its binomial law:

    P(sup |F_n − F| > D) ≤ 2·exp(−2·n·D²)

Draws that are spread evenly on purpose, or in pairs t and T − t, are uniform too.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float64
from scipy import special, stats  # type: ignore[import-untyped]
from torch import Tensor

from alphabar.check.catalogue import named
from alphabar.check.chance import ONE
from alphabar.check.report import Diagnosis, Finding, Verdict
from alphabar.check.stranger import CannotCheck, Stranger, seeded

SCALES = ("vp", "flow")

_MANY = 50_000
_PER_STEP, _MOST = 200, 2_000_000
_CALLS = 16
_SINGLE = 4000  # calls of a function that draws one t


class _Drawn(NamedTuple):
    """What a function drew."""

    called: str
    first: Float64[Tensor, " n"]
    second: Float64[Tensor, " n"]  # by the same call again
    is_whole: bool
    is_fixed: bool  # whether it draws the same each time


class _Said(NamedTuple):
    """What is said of the law of t."""

    verdict: Verdict
    measured: str
    kind: str = ""
    name: str = ""
    remedy: str = ""
    convention: str = ""
    why: str = ""


def check_time_sampling(
    function: Callable[..., object],
    T: int | None = None,
    scale: str = "vp",
    given: Mapping[str, object] | None = None,
) -> Finding:
    """Whether times are drawn uniformly.

    Args:
        function: n → n times; or of a shape (n,), of n and a device, of a batch of n items, of
            nothing for a single time. A second tensor that comes back is left alone.
        T: the number of steps; None where time is continuous.
        scale: `vp`, with T steps, or `flow`, with t in [0, 1].
        given: further arguments of the function, by name.

    Raises:
        ValueError: another scale, or a T below 1.
    """
    begin = time.perf_counter()
    if scale not in SCALES:
        raise ValueError(f"scale = {scale!r}: it must be {' or '.join(SCALES)}")
    if T is not None and (isinstance(T, bool) or not isinstance(T, int) or T < 1):
        raise ValueError(f"T = {T!r}: it must be the number of steps, 1 or more, such as 1000")
    steps = T if scale == "vp" else None
    law = "t uniform on [0, 1]" if steps is None else f"t uniform on {steps} whole numbers"
    stranger = Stranger(function, given or {})
    n = _MANY if steps is None else max(_MANY // 2, min(_PER_STEP * steps, _MOST))
    try:
        drawn = _draw(stranger, n, steps)
    except CannotCheck as error:
        seconds = time.perf_counter() - begin
        return Finding(
            stranger.name,
            "time_sampling",
            "unchecked",
            law,
            "",
            "",
            why=str(error),
            seconds=seconds,
        )
    said = _weigh(drawn, steps)
    diagnoses: tuple[Diagnosis, ...] = ()
    if said.verdict == "bug" and said.kind:
        explains, remedy = said.measured, said.remedy or f"draw {law}"
        diagnoses = (named("time_sampling", said.kind, explains, said.name, remedy),)
    return Finding(
        stranger.name,
        "time_sampling",
        said.verdict,
        law,
        f"{said.measured}; of {len(drawn.first)} times drawn",
        f"{law}; {_power(len(drawn.first), steps)}",
        diagnoses,
        "; ".join(filter(None, (said.convention, drawn.called))),
        said.why,
        time.perf_counter() - begin,
    )


def _power(n: int, T: int | None) -> str:
    """What is seen, and how often it would be by chance."""
    seen = (
        f"a share of times that is off by {2 * _far(n):.2g} is seen all but {ONE:.0e} of the time"
    )
    return f"{seen}, false alarms {ONE:.0e} each" + ("" if T is None else ", counts of each t too")


def _far(n: int) -> float:
    """D that right draws exceed with the probability ONE at most."""
    return math.sqrt(math.log(2 / ONE) / (2 * n))


# --- drawing


def _draw(stranger: Stranger, n: int, T: int | None) -> _Drawn:
    """Times, by the first way of asking that gives n of them.

    Raises:
        CannotCheck: none does.
    """
    least = [p for p in stranger.parameters() if p.default is p.empty]
    ways = _asked(n, T)
    if len(least) > max(len(way) for _, way in ways):
        names = ", ".join(p.name for p in least)
        raise CannotCheck(
            f"{stranger.name} takes {names}: give all but the number of times by name, as in "
            f"given={{{least[-1].name!r}: ...}}"
        )
    said = ""
    for i, (called, values) in enumerate(ways):
        if not len(least) <= len(values) <= len(stranger.parameters()):
            continue
        try:
            with seeded(29):
                first = _times(stranger(*values), n)
                second = _times(stranger(*values), n)
                # Many times that are spread evenly may be the same: then a few are not.
                few = [_times(stranger(*_asked(3, T)[i][1]), 3) for _ in range(_CALLS)]
        except Exception as error:
            said = said or f"{type(error).__name__}: {error}"
            continue
        if first is not None and second is not None:
            fixed = torch.equal(first, second) and all(_same(few[0], other) for other in few)
            return _Drawn(f"called with {called}", first, second, _is_whole(first), fixed)
    if not least:
        return _singly(stranger, said)
    raise CannotCheck(
        f"{stranger.name} gave no {n} times for n items: {said or 'look at what it gives'}; "
        "give a function n → t"
    )


def _singly(stranger: Stranger, said: str) -> _Drawn:
    """Times of a function that draws a batch of its own, or one, and is told nothing."""
    try:
        with seeded(29):
            once = stranger()[0].flatten()
            calls = max(2, 2 * (_SINGLE // max(len(once), 1)))
            drawn = [stranger()[0].double().flatten() for _ in range(calls)]
    except Exception as error:
        raise CannotCheck(
            f"{stranger.name} gave no times: {said or f'{type(error).__name__}: {error}'}; "
            "give a function n → t"
        ) from None
    first, second = torch.cat(drawn[: calls // 2]), torch.cat(drawn[calls // 2 :])
    fixed = all(_same(drawn[0], d) for d in drawn)
    return _Drawn("called without arguments", first, second, _is_whole(first), fixed)


def _asked(n: int, T: int | None) -> list[tuple[str, tuple[object, ...]]]:
    """Ways of asking for n times."""
    cpu = torch.device("cpu")
    ways: list[tuple[str, tuple[object, ...]]] = [
        ("(n)", (n,)),
        ("((n,))", ((n,),)),
        ("(batch)", (torch.zeros(n, 1),)),
        ("(n, device)", (n, cpu)),
        ("(n, 'cpu')", (n, "cpu")),
        ("((n,), device)", ((n,), cpu)),
    ]
    if T is not None:
        ways += [("(n, T)", (n, T)), ("(T, n)", (T, n)), ("(T, (n,))", (T, (n,)))]
        ways += [("(n, T, device)", (n, T, cpu))]
    return ways


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    return one is not None and other is not None and torch.equal(one, other)


def _times(found: Sequence[Tensor], n: int) -> Float64[Tensor, " n"] | None:
    """The first tensor of n numbers."""
    return next((t.detach().double().cpu().flatten() for t in found if t.numel() == n), None)


def _is_whole(times: Float64[Tensor, " n"]) -> bool:
    return bool((times == times.round()).all())


# --- weighing


def _weigh(drawn: _Drawn, T: int | None) -> _Said:
    times = drawn.first
    ends = f"t from {times.min():.6g} to {times.max():.6g}"
    if not (times.isfinite().all() and drawn.second.isfinite().all()):
        return _Said("bug", "NaN or infinity among them", "not finite", "a time is not a number")
    if T is not None and T > 1 and not drawn.is_whole and _inside(times):
        said = _continuous(times)
        if said.verdict == "right":
            return said._replace(verdict="equivalent", convention="t as a share of T")
        return said
    one = T == 1
    if not one and drawn.is_fixed:
        words = "two calls drew the same times"
        return _Said(
            "bug", words, "the same each call", "the times are the same each time", "no fixed seed"
        )
    if not one and (times == times[0]).all():
        return _shared(times[0].item(), drawn, T)
    if T is None:
        return _continuous(times)
    if not drawn.is_whole:
        kind, name = (
            ("normal t", "") if _is_normal(times) else ("fractions", "t is no whole number")
        )
        return _Said("bug", f"{ends}, between whole numbers", kind, name)
    return _discrete(times, T, ends)


def _inside(times: Float64[Tensor, " n"]) -> bool:
    return bool(((times >= 0) & (times <= 1)).all())


def _shared(value: float, drawn: _Drawn, T: int | None) -> _Said:
    """One t for all items: no bias, but noise."""
    other = drawn.second[0].item()
    high = 1 if T is None else T
    if not (0 <= value <= high and 0 <= other <= high):
        return _Said(
            "bug", f"t = {value:g} for all, then {other:g}", "outside", "t is out of range"
        )
    why = (
        "all items of a batch have the same t: the gradient is right in the mean, and far noisier; "
        "draw one t for each"
    )
    return _Said("fragile", f"t = {value:g} for all items, then {other:g}", why=why)


def _discrete(times: Float64[Tensor, " n"], T: int, ends: str) -> _Said:
    """Whole numbers: each of T as often as any other."""
    low, high = int(times.min()), int(times.max())
    n = len(times)
    if low < 0 or high > T:
        return _Said("bug", ends, "outside", "t is out of range", f"torch.randint(0, {T}, (n,))")
    paired = T > 1 and n % 2 == 0 and bool((times[: n // 2] + times[n // 2 :]).std() == 0)
    counted = times[: n // 2] if paired else times
    counts = torch.bincount(counted.long(), minlength=T + 1)
    if low == 0 and high == T:
        words = f"{ends}: {T + 1} numbers, where there are {T} steps"
        return _Said("bug", words, "one too many", "t takes T + 1 values", f"randint(0, {T}, (n,))")
    base = 1 if high == T else 0
    mine = counts[base : base + T]
    rare = float(stats.binom.ppf(ONE / T, len(counted), 1 / T))
    never = (mine == 0).nonzero()[:, 0] + base
    if len(never) and rare > 0:
        which = ", ".join(str(int(t)) for t in never[:3]) + (", …" if len(never) > 3 else "")
        last, first = int(never[-1]) == base + T - 1, int(never[0]) == base
        words = f"t = {which} never came: {ends}"
        if len(never) == 1 and last:
            name, kind = "the last step is never drawn", "never the last"
        elif len(never) == 1 and first:
            name, kind = "the first step is never drawn", "never the first"
        else:
            name, kind = f"{len(never)} of {T} steps are never drawn", "some never"
        if kind == "never the first":
            why = f"right if sampling too leaves out the first of the {T} steps, t = {base}"
            return _Said("fragile", words, why=why)
        remedy = f"draw torch.randint(0, {T}, (n,)), whose upper end is not drawn, for t from 0"
        return _Said("bug", words, kind, name, remedy)
    expected = len(counted) / T
    tail = special.bdtr(mine.double().numpy(), len(counted), 1 / T)
    over = special.bdtrc(mine.double().numpy() - 1, len(counted), 1 / T)
    worst = int(torch.from_numpy(tail).minimum(torch.from_numpy(over)).argmin())
    share = (mine.cumsum(0) / len(counted) - torch.arange(1, T + 1) / T).abs()
    off = float(share.max())
    if min(tail[worst], over[worst]) < ONE / (2 * T) or off > _far(len(counted)):
        words = (
            f"t = {worst + base} came {int(mine[worst])} times, expected {expected:.0f}; the share "
            f"below some t is off by {off:.2g}"
        )
        return _Said("bug", words, "not uniform", "some t come more often than others")
    measured = f"{ends}, each {int(mine.min())} to {int(mine.max())} times, expected {expected:.0f}"
    conventions = [f"t counts from {base}"]
    if paired:
        conventions.append("in pairs t and T − t")
    elif T > 1 and float((mine - expected).square().mean()) < 0.1 * expected:
        conventions.append("spread evenly")
    return _Said(
        "equivalent" if len(conventions) > 1 else "right",
        measured,
        convention=", ".join(conventions),
    )


def _continuous(times: Float64[Tensor, " n"]) -> _Said:
    """Times of a flow: uniform on [0, 1], or a law that is known to stand for it."""
    ends = f"t from {times.min():.4g} to {times.max():.4g}"
    n = len(times)
    if not _inside(times):
        moments = f"mean {times.mean():.3g}, standard deviation {times.std():.3g}"
        if _is_normal(times):
            words = f"{ends}, {moments}: a normal law"
            return _Said("bug", words, "normal t")
        if _is_even(times):
            return _elsewhere(times)
        return _Said(
            "bug", f"{ends}, {moments}", "outside", "t is not in [0, 1]", "t = torch.rand(n)"
        )
    off = _distance(times, times.sort().values)
    measured = f"{ends}, distribution off by {off:.2g}"
    if off < 0.2 / math.sqrt(n):  # random draws: 0.87/√n in the mean, and this once in 10¹²
        return _Said("equivalent", measured, convention="spread evenly over [0, 1]")
    if off <= _far(n):
        return _Said("right", measured)
    low, high = times.min().item(), times.max().item()
    if _is_even(times):
        if low > 0.05 or high < 0.95:
            return _elsewhere(times)
        return _Said("equivalent", measured, convention=f"uniform from {low:.3g} to {high:.3g}")
    # t = shift·u/(1 + (shift − 1)·u) with u uniform has the median shift/(1 + shift).
    shift = float((times / (1 - times)).median())
    u = times / (shift - (shift - 1) * times)
    if _distance(times, u.sort().values) <= 2 * _far(n):
        return _Said("equivalent", measured, convention=f"uniform, shifted by {shift:.3g}")
    open_ = (times > 0) & (times < 1)
    if open_.all() and _is_normal(times.logit()):
        logit = times.logit()
        words = f"logit-normal, mean {logit.mean():.3g}, standard deviation {logit.std():.3g}"
        return _Said("equivalent", measured, convention=words)
    words = f"{measured}; mean {times.mean():.3g}, standard deviation {times.std():.3g}"
    return _Said("bug", words, "not uniform", "some t come more often than others", "torch.rand(n)")


def _is_even(times: Float64[Tensor, " n"]) -> bool:
    """Whether they are uniform between their own ends."""
    low, high = times.min().item(), times.max().item()
    inner = (times.sort().values - low) / max(high - low, 1e-300)
    return _distance(times, inner) <= _far(len(times)) + 2 / len(times)


def _elsewhere(times: Float64[Tensor, " n"]) -> _Said:
    """Uniform times of another interval: levels that are never drawn, or that there are not."""
    words = f"uniform from {times.min():.3g} to {times.max():.3g}, and levels are from 0 to 1"
    name = "t is uniform on another interval than [0, 1]"
    return _Said("bug", words, "another interval", name, "t = torch.rand(n), scaled by nothing")


def _distance(times: Float64[Tensor, " n"], ordered: Float64[Tensor, " n"]) -> float:
    """sup |F_n − F| of sorted numbers from the uniform law."""
    n = len(times)
    i = torch.arange(n, dtype=torch.float64)
    return float(torch.maximum((ordered - i / n).abs(), (ordered - (i + 1) / n).abs()).max())


def _is_normal(values: Float64[Tensor, " n"]) -> bool:
    """Whether a quarter of them is normal with the mean and the size of the rest."""
    rest, part = values[len(values) // 4 :], values[: len(values) // 4]
    std = float(rest.std())
    if not math.isfinite(std) or std == 0:
        return False
    # Of so many some lie beyond 3 standard deviations: P(none) = 0.9973^8000 < ONE.
    if len(values) >= 8000 and (values - rest.mean()).abs().max() < 3 * std:
        return False
    ordered = torch.special.ndtr((part - rest.mean()) / std).sort().values
    return _distance(part, ordered) <= _far(len(part))
