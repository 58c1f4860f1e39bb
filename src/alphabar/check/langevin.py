"""Checks of Langevin's moves, which go up the score at one level and leave its density as it is:

    x' = x + a·s(x) + b·z,    b² = 2·a

That is all the law there is: whatever a is made of, this much noise keeps p(x) ∝ exp(∫ s), up to
the error of a finite step (Welling and Teh 2011, eq. (4); Song and Ermon 2019, eq. (4), whose a is
α/2). Every move is measured on its own: a score that answers what it is told, and keeps every x
that it was asked about, shows where each move began and where it led.
"""

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor, nn

from alphabar.check.affine import Law, NotFinite, Recorder, Value, fit
from alphabar.check.catalogue import named
from alphabar.check.chance import FAR
from alphabar.check.report import Finding, Verdict
from alphabar.check.stranger import CannotCheck, Stranger, seeded

LAW = "x' = x + a·score(x) + b·z with b² = 2a and z ~ N(0, I)"
SHAPES = ((16,), (2, 4, 4))
FEW, MANY = 256, 8192  # items: where noise is recorded, and where it must be estimated
ENOUGH = 300  # moves of a loop
SIZE = 100.0  # of a score: what multiplies it is small, and stands beside x
_STEP, _MOVES = 0.01, 3
_LEVELS = (1.0, 0.5, 0.2, 0.1)
_WRONG_BY = 1e-3  # relatively, where all noise is known
_EXACT = 1e-9  # error of what is measured in float64, of x of size 1


_NOT_FINITE = "the result was not finite"


class _NeverFinite(Exception):
    """It can be called, and never gives a number."""


class _Enough(CannotCheck):
    """A loop has made as many moves as are looked at."""


class Score(nn.Module):
    """A score that answers at random, and keeps what it was asked and what it said."""

    def __init__(self, shape: Sequence[int], dtype: torch.dtype) -> None:
        super().__init__()
        self.shape, self.dtype = tuple(shape), dtype
        self.random = np.random.default_rng(5)  # torch's draws are recorded
        self.asked: list[Tensor] = []
        self.said: list[Tensor] = []
        # By call, the first number of whatever else it was told.
        self.told: list[tuple[float, ...]] = []
        self.drawn_before: list[int] = []
        self.recorder: Recorder | None = None

    def forward(self, *values: Any, **named_values: Any) -> Tensor:
        """Another answer each time."""
        every = [
            torch.as_tensor(v)
            for v in (*values, *named_values.values())
            if isinstance(v, int | float | Tensor)
        ]
        x = next((v for v in every if v.shape == self.shape), None)
        if x is None:
            raise ValueError(f"the score was asked without an x of shape {self.shape}")
        self.told.append(tuple(float(v.flatten()[0]) for v in every if v is not x and v.numel()))
        self.asked.append(x.detach().double().clone())
        self.drawn_before.append(len(self.recorder.draws) if self.recorder else 0)
        if len(self.asked) > ENOUGH:
            raise _Enough
        answer = torch.from_numpy(SIZE * self.random.standard_normal(self.shape))
        self.said.append(answer)
        return answer.to(self.dtype)


class Run(NamedTuple):
    """What one call did."""

    score: Score
    ends: tuple[Tensor, ...]  # results that might be the last x; none where it was cut short
    draws: list[tuple[Law, Tensor]]


class Move(NamedTuple):
    """x' = keep·x + a·score + b·z + constant, for each item or for all."""

    keep: Value
    a: Value
    b: Value
    constant: Value
    off: float  # |b² − 2|a||/(2|a|), the largest of any item
    law: Law
    shares: str
    exact: bool


class Judged(NamedTuple):
    """What a call comes to."""

    moves: list[Move]
    problems: list[tuple[str, ...]]
    notes: list[str]
    doubt: str  # on what it depends whether it is right


class Called(NamedTuple):
    """How a function is called: what goes where."""

    order: tuple[str, ...]
    others: Mapping[str, Any]

    @property
    def is_of_many(self) -> bool:
        """Whether a list of levels is handed over."""
        return any(name.startswith("levels") for name in self.order)

    def __str__(self) -> str:
        return f"called with ({', '.join(self.order)})"


def check_langevin(
    function: Callable[..., object],
    betas: Tensor | None = None,
    scale: str = "vp",
    given: Mapping[str, object] | None = None,
) -> Finding:
    """Whether moves at a level, one or many, have the noise that keeps the density.

    Args:
        function: of a score(x, level) and x; of a level, an index of one or a list of levels; of
            the size of a step and of the number of moves.
        betas: β_t (T,), for the range of t; without them t goes up to 1000.
        scale: "vp" or "ve": the law is the same in both.
        given: what else it is to be handed, by name.

    Raises:
        ValueError: another scale.
    """
    begin = time.perf_counter()
    if scale not in ("vp", "ve"):
        raise ValueError(f"scale = {scale!r}: choose 'vp' or 've'")
    # A module's own call takes anything.
    called_as = function.forward if isinstance(function, nn.Module) else function
    stranger = Stranger(called_as, given or {})
    T = 1000 if betas is None else len(betas)
    called: Called | None = None
    try:
        called, (moves, problems, notes, doubt) = _best(stranger, T)
    except _NeverFinite:
        moves, notes, doubt = [], [], ""
        problems = [("not finite", _NOT_FINITE, "it is NaN or infinite")]
    except CannotCheck as error:
        seconds = time.perf_counter() - begin
        return Finding(
            stranger.name, "langevin", "unchecked", LAW, "", "", why=str(error), seconds=seconds
        )
    verdict: Verdict = "bug" if problems else "right"
    why = ""
    if verdict == "right" and doubt:
        verdict, why = "fragile", doubt
    elif verdict == "right" and stranger.modified:
        verdict, why = "fragile", "it changes the x that it is handed; work on a copy"
    return Finding(
        stranger.name,
        "langevin",
        verdict,
        LAW,
        _measured(moves),
        _expected(moves),
        tuple(named("langevin", *problem) for problem in problems),
        "; ".join([*([str(called)] if called else []), *notes]),
        why,
        time.perf_counter() - begin,
    )


# --- calling


def _best(stranger: Stranger, T: int) -> tuple[Called, Judged]:
    """The way of calling it that was meant, and what its moves are."""
    parameters = stranger.parameters()
    least = sum(p.default is p.empty for p in parameters)
    if least > 5:
        raise CannotCheck(
            f"{stranger.name} takes {least} arguments, and only a score, x, a level, a step and a "
            f"number of moves can be made up: give the rest by name, as in "
            f"given={{{parameters[least - 1].name!r}: ...}}"
        )
    said, best, asks = "", None, 0
    for k in range(max(least, 2), min(len(parameters), 5) + 1):
        for shape in SHAPES:
            found = None
            for strict in (True, False):
                found, said = _first(stranger, k, T, shape, strict, said)
                if found is not None:
                    break
            if found is None:
                continue
            called, run, dtype = found
            # One more argument counts where it is the number of moves.
            if best is None or len(run.score.asked) == _MOVES > asks:
                best, asks = (called, shape, dtype), len(run.score.asked)
            break
    if best is None and said == _NOT_FINITE:
        raise _NeverFinite
    if best is None:
        raise CannotCheck(
            f"{stranger.name} gave no finite x for a score, x and a level in any order; "
            f"{said or 'look at what it returns'}"
        )
    called, shape, dtype = best
    judged = _judged(stranger, called, (FEW, *shape), dtype)
    if any(not move.exact for move in judged.moves):
        judged = _judged(stranger, called, (MANY, *shape), dtype)
    return called, judged


def _first(
    stranger: Stranger, k: int, T: int, shape: tuple[int, ...], strict: bool, said: str
) -> tuple[tuple[Called, Run, torch.dtype] | None, str]:
    """The first way with k arguments that works; `strict`: and tells the score its level.

    Where many levels may be meant, one for each item works too, if it is gone through as a list.
    """
    spare = None
    for called in sorted(_ways(k, T), key=lambda c: not c.is_of_many):
        for dtype in (torch.float64, torch.float32):
            try:
                run = _run(stranger, called, (len(_LEVELS) + 1, *shape), dtype)
            except Exception as error:
                said = said or f"{type(error).__name__}: {error}"
                continue
            if not run.score.asked:
                continue
            finite = all(bool(x.isfinite().all()) for x in (*run.score.asked, *run.ends))
            if not finite:
                # Of a level that is another than was meant it may be: others are tried.
                said = _NOT_FINITE
                continue
            if strict and not _is_told(called, run):
                continue
            if called.is_of_many and len({*run.score.told}) < len(_LEVELS):
                spare = spare or (called, run, dtype)
                continue
            return (called, run, dtype), said
    return spare, said


def _ways(k: int, T: int) -> Iterator[Called]:
    levels: dict[str, Any] = {
        "t: int64 (B,)": lambda n: torch.full((n,), T // 2),
        "k: int": lambda n: 1,
        "level: float": lambda n: 0.5,
        "t: float (B,)": lambda n: torch.full((n,), 0.5),
        "level: ()": lambda n: torch.tensor(0.5, dtype=torch.float64),
        "levels: (K,)": lambda n: torch.tensor(_LEVELS, dtype=torch.float64),
        "levels: list": lambda n: list(_LEVELS),
    }
    if k == 2:
        yield from (Called(order, {}) for order in (("score", "x"), ("x", "score")))
    elif k >= 3:
        for level, make in levels.items():
            others = {level: make, "step": lambda n: _STEP, "moves": lambda n: _MOVES}
            for extra in itertools.combinations(("step", "moves"), k - 3):
                for order in itertools.permutations(("score", "x", level, *extra)):
                    yield Called(order, others)


def _is_told(called: Called, run: Run) -> bool:
    """Whether the score is told the level, where there is something else to mistake for it."""
    if not {"step", "moves"} & {*called.order}:
        return True
    wrong = {_STEP, float(_MOVES)}
    return run.score.told[0][:1] not in {(number,) for number in wrong}


def _run(stranger: Stranger, called: Called, shape: tuple[int, ...], dtype: torch.dtype) -> Run:
    score = Score(shape, dtype)
    x = torch.from_numpy(np.random.default_rng(3).standard_normal(shape)).to(dtype)
    made = {name: make(shape[0]) for name, make in called.others.items()}
    values = {"score": score, "x": x, **made}
    ends: tuple[Tensor, ...] = ()
    with Recorder() as recorder:
        score.recorder = recorder
        try:
            results = stranger(*(values[name] for name in called.order))
            ends = tuple(
                r.detach().double() for r in results if r.shape == shape and r.is_floating_point()
            )
            if not ends:
                raise ValueError(f"it gave nothing of shape {shape}")
        except _Enough:
            pass
    return Run(score, ends[:4], list(recorder.draws))


# --- measuring


def _judged(
    stranger: Stranger, called: Called, shape: tuple[int, ...], dtype: torch.dtype
) -> Judged:
    with seeded(11):
        run = _run(stranger, called, shape, dtype)
        again = _run(stranger, called, shape, dtype)
    x = torch.from_numpy(np.random.default_rng(3).standard_normal(shape)).to(dtype).double()
    best: tuple[list[Move], list[tuple[str, ...]], list[str]] | None = None
    for end in run.ends or (None,):
        try:
            moves = _moves(run, end)
        except NotFinite:
            found: tuple[list[Move], list[tuple[str, ...]], list[str]]
            found = [], [("not finite", "NaN or infinity")], []
        else:
            notes = []
            if len(moves) >= 3 and _ends_clean(moves):
                moves, notes = moves[:-1], ["it ends with a move without noise"]
            found = moves, _problems(moves), notes
        if best is None or len(found[1]) < len(best[1]):
            best = found
    assert best is not None
    moves, problems, notes = best
    if not torch.allclose(run.score.asked[0], x, atol=1e-5):
        problems.append(("asked elsewhere", "the score is not asked at the x that was handed over"))
    otherwise = _told_otherwise(called, run)
    problems += _problems_of_levels(otherwise)
    if any(m.b.value for m in moves) and _same(run, again):
        problems.append(("the same noise", "two calls have the same noise: draw it afresh"))
    elif _repeats(run, moves):
        problems.append(("the same noise", "all moves have the same noise: draw it afresh"))
    doubt = ""
    if otherwise:
        doubt = f"right if {_listed(otherwise)} tell your network the levels {_listed(_LEVELS)}"
    return Judged(moves, problems, notes, doubt)


def _moves(run: Run, end: Tensor | None) -> list[Move]:
    """A few moves of all there are: the first ones, the last ones, and between."""
    asked, said, starts = run.score.asked, run.score.said, run.score.drawn_before
    every = [*asked, end] if end is not None else asked
    count = len(every) - 1
    some = sorted({*range(min(count, 4)), *range(0, count, max(1, count // 12)), count - 1})
    found = []
    for i in some:
        # The noise of a move may be drawn before its score is asked for.
        low = starts[i - 1] if i else 0
        high = starts[i + 1] if i + 1 < len(starts) else len(run.draws)
        draws = run.draws if len(run.draws) <= 8 else run.draws[low:high]
        found.append(_move(every[i], every[i + 1], said[i], draws))
    return found


def _move(
    before: Tensor, after: Tensor, score: Tensor, draws: Sequence[tuple[Law, Tensor]]
) -> Move:
    inputs = {"x": before.flatten(1), "score": score.flatten(1)}
    one = fit(after, inputs, draws, 1e-6)
    if not one.exact:
        each = _each(before, after, score, draws)
        if each is not None:
            return each
    a, b = one.of["score"], one.noise
    if one.exact:
        a, b = Value(a.value, _EXACT / SIZE), Value(b.value, _EXACT)
    if one.law == "uniform":  # what multiplies the uniform numbers themselves
        b = Value(b.value * math.sqrt(12), b.error)
    off = _off(torch.tensor([a.value]).double(), torch.tensor([b.value]).double())
    return Move(one.of["x"], a, b, one.constant, off, one.law, one.shares, one.exact)


def _off(a: Float64[Tensor, " n"], b: Float64[Tensor, " n"]) -> float:
    return ((b.square() - 2 * a.abs()).abs() / (2 * a.abs()).clamp(min=1e-300)).max().item()


def _each(
    before: Tensor, after: Tensor, score: Tensor, draws: Sequence[tuple[Law, Tensor]]
) -> Move | None:
    """The same with coefficients of each item's own; None where that explains it no better."""
    for law, draw in draws:
        if draw.shape != after.shape:
            continue
        columns = [before, score, draw.double()]
        matrix = torch.stack([c.flatten(1) for c in columns], 2)
        found = torch.linalg.lstsq(matrix, after.flatten(1)[..., None]).solution
        left = (matrix @ found)[..., 0] - after.flatten(1)
        if left.square().mean().sqrt() > 1e-6 * after.square().mean().sqrt():
            continue
        keep, a, b = found[..., 0].unbind(1)
        worst = int((keep - 1).abs().argmax())
        return Move(
            Value(keep[worst].item(), 1e-6),
            Value(a.median().item(), 1e-9),
            Value(b.median().item(), 1e-9),
            Value(0.0, 0.0),
            _off(a, b),
            law,
            "",
            True,
        )
    return None


def _ends_clean(moves: Sequence[Move]) -> bool:
    """Whether the last move, and no other, has no noise."""
    noisy = [abs(m.b.value) > 1e-9 for m in moves]
    return all(noisy[:-1]) and not noisy[-1]


def _same(run: Run, again: Run) -> bool:
    """Whether two calls, one after the other, have come to the same x."""
    first, second = (r.ends or tuple(r.score.asked[1:]) for r in (run, again))
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=False))


def _repeats(run: Run, moves: Sequence[Move]) -> bool:
    """Whether moves, where there are several, draw less often than they are many."""
    if len(moves) < 2 or not all(m.exact and abs(m.b.value) > 1e-9 for m in moves):
        return False
    drawn = [d for _, d in run.draws if d.shape == run.score.asked[0].shape]
    count = len(run.score.asked) - (0 if run.ends else 1)
    return len(drawn) < count - 1 or any(
        torch.equal(a, b) for a, b in itertools.pairwise(drawn[:8])
    )


# --- saying


def _problems(moves: Sequence[Move]) -> list[tuple[str, ...]]:
    """What is wrong: kind, evidence, in words, remedy."""
    found: dict[str, tuple[str, ...]] = {}
    for move in moves:
        for problem in _problems_of(move):
            found.setdefault(problem[0], problem)
    return list(found.values())


def _told_otherwise(called: Called, run: Run) -> list[float]:
    """What the score is told of many levels, where that is neither a level, its place nor its log.

    A single level may be told in any unit.
    """
    if not called.is_of_many:
        return []
    known = [*_LEVELS, *range(len(_LEVELS) + 1), *map(math.log, _LEVELS)]
    told = [v for v in run.score.told if v]
    named_so = [any(math.isclose(v, k, rel_tol=1e-5) for v in one for k in known) for one in told]
    return [] if all(named_so) else list(dict.fromkeys(one[0] for one in told))


def _problems_of_levels(otherwise: Sequence[float]) -> list[tuple[str, ...]]:
    """Each level must be told by a number of its own."""
    steps = [after - before for before, after in itertools.pairwise(otherwise)]
    in_order = all(step < 0 for step in steps) or all(step > 0 for step in steps)
    if not otherwise or (len(otherwise) == len(_LEVELS) and in_order):
        return []
    return [
        (
            "told no level",
            f"it is told {_listed(otherwise)}, and the levels are {_listed(_LEVELS)}",
            "the score is told a number that is no level",
            "score(x, sigma), with one of the levels that were handed over",
        )
    ]


def _listed(numbers: Sequence[float]) -> str:
    return ", ".join(f"{v:.4g}" for v in numbers)


def _problems_of(move: Move) -> Iterator[tuple[str, ...]]:
    a, b, keep = move.a, move.b, move.keep
    if abs(a.value) <= FAR * a.error:
        yield (
            "score without effect",
            f"the score is multiplied by {a.value:.2g}",
            "the score has no effect on x",
            "add step * score(x)",
        )
        return
    noisy = abs(b.value) > FAR * b.error
    if a.value < 0:
        yield (
            "sign of the score",
            f"a = {a.value:.4g}",
            "x goes down its score, away from the data",
            "add step * score(x), do not subtract it",
        )
    if noisy and move.law in ("uniform", "other"):
        law = "uniform" if move.law == "uniform" else "not normal"
        yield (
            "uniform noise" if law == "uniform" else "noise of another law",
            f"the noise is {law}",
            f"the noise is {law} where N(0, I) is meant",
            "torch.randn_like(x)",
        )
    chance = 0.0 if move.exact else FAR * (2 * b.error / abs(b.value) + a.error / abs(a.value))
    if move.law != "uniform" and move.off > _WRONG_BY + chance:
        meant = math.sqrt(2 * abs(a.value))
        yield (
            "noise by a factor",
            f"b = {b.value:.6g} where √(2a) = {meant:.6g}: it is {b.value / meant:.4g} times that, "
            f"and at rest the variance is {b.value**2 / (2 * abs(a.value)):.4g} times the law's"
            if noisy
            else f"there is no noise where √(2a) = {meant:.6g}",
        )
    if abs(keep.value - 1) > FAR * keep.error * (not move.exact) + 1e-5:
        yield (
            "x by a factor",
            f"x is multiplied by {keep.value:.6g}",
            "x itself is multiplied by a number",
            "x + step * score(x) + sqrt(2 * step) * noise, with no factor of x",
        )
    if move.shares:
        yield (
            "shared noise",
            f"{move.shares} have the same noise",
            "the noise is not drawn for each number of its own",
            "torch.randn_like(x)",
        )
    chance = 0.0 if move.exact else FAR * move.constant.error
    if move.law != "uniform" and abs(move.constant.value) > chance + 1e-5:
        yield (
            "constant",
            f"{move.constant.value:.4g} is added",
            "a constant is added",
            "leave it away",
        )


def _measured(moves: Sequence[Move]) -> str:
    if not moves:
        return "nothing that is finite"
    m = max(moves, key=lambda m: m.off)
    return (
        f"x' = {m.keep.value:.6g}·x + {m.a.value:.6g}·score + {m.b.value:.6g}·z, "
        f"b²/(2a) = {m.b.value**2 / (2 * m.a.value) if m.a.value else math.nan:.6g}; "
        f"the worst of {len(moves)} moves"
    )


def _expected(moves: Sequence[Move]) -> str:
    if not moves:
        return LAW
    m = max(moves, key=lambda m: m.off)
    return f"x' = x + {abs(m.a.value):.6g}·score + {math.sqrt(2 * abs(m.a.value)):.6g}·z"
