"""Checks of what tells a network its t: a row of numbers for each t, of that t alone.

    e(t) = (sin(r_1·t), …, sin(r_k·t), cos(r_1·t), …, cos(r_k·t)),    r_i = 10000^(−(i − 1)/k)

(Vaswani et al. 2017, section 3.5; the last rate is 1/10000 in some, and just above it in others).
Any other e will do that is of each t alone and tells every two t apart; what is made of sines is
looked at column by column, for its rate, and for the cosine that goes with it.
"""

import inspect
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

from alphabar.check.catalogue import named
from alphabar.check.report import Finding, Verdict
from alphabar.check.stranger import CannotCheck, tensors_of

LAW = "row i depends on t_i alone, and two t never have the same row"
BATCH = 7  # no usual width of an embedding
WIDTHS = (32, 64, 128, 256, 16, 8)
MANY = 1000  # t that are told apart
_SAME = 2e-5  # relatively, of rows
_FINEST = 2.0**-16  # distance of two t, where t need not be whole
_FIT = 0.02  # of a column, relatively

T_ITSELF = "no sines: t itself"
_BY_RANGE = ("two t alike", "not finite", "rates above 1")  # kinds
Wrong = tuple[str, ...]  # kind, evidence, in words, remedy
Embed = Callable[[Tensor], Tensor]  # t float64 (B,) to rows (B, D)

_FORMS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "t: int64 (B,)": lambda t: t.round().long(),
    "t: float (B,)": lambda t: t.float(),
    "t: float (B, 1)": lambda t: t.float()[:, None],
    "t: int64 (B, 1)": lambda t: t.round().long()[:, None],
}


class Way(NamedTuple):
    """One way to call it."""

    embed: Embed
    words: str
    whole: bool  # whether t is handed over as whole numbers
    fine: Embed | None = None  # the same for t that need not be whole, if it takes them


class Column(NamedTuple):
    """A column as amplitude·cos(rate·t − phase)."""

    kind: str  # "wave", "constant", "line", "other"
    rate: float = 0.0
    of_sine: float = 0.0
    of_cosine: float = 0.0


def check_embedding(
    function: Callable[..., Any], T: int = MANY, given: Mapping[str, object] | None = None
) -> Finding:
    """Whether an embedding of t is of each t alone, and tells all t = 0 … T − 1 apart.

    Args:
        function: function(t) or function(t, dim); a module; a class whose objects are called with
            t; or a function (T, dim) that gives the whole table.
        T: how many t there are.
        given: what else it is to be handed, by name.

    Raises:
        ValueError: T is no number of steps.
    """
    begin = time.perf_counter()
    if not isinstance(T, int) or T < 2:
        raise ValueError(f"T = {T!r}: give the number of steps, 2 or more")
    name = getattr(function, "__qualname__", type(function).__name__)
    why = ""
    try:
        wrong, measured, notes = _judged(function, T, dict(given or {}))
    except CannotCheck as error:
        seconds = time.perf_counter() - begin
        why = str(error)
        return Finding(name, "embedding", "unchecked", LAW, "", "", why=why, seconds=seconds)
    verdict: Verdict = "bug" if wrong else "right"
    if verdict == "right" and any(note.startswith(("other rates", T_ITSELF)) for note in notes):
        verdict = "equivalent"
    return Finding(
        name,
        "embedding",
        verdict,
        LAW,
        measured,
        "one row for each t; of sines and cosines, rates that fall evenly from 1 to 1/10000",
        tuple(named("embedding", *one) for one in wrong),
        "; ".join(notes),
        why,
        time.perf_counter() - begin,
    )


# --- calling


def _judged(
    function: Callable[..., Any], T: int, given: dict[str, object]
) -> tuple[list[Wrong], str, list[str]]:
    whole = torch.arange(BATCH, dtype=torch.float64) * ((T - 1) // BATCH or 1)
    whole = whole.clamp(max=T - 1)
    said, transposed, found = "", "", None
    for way in _ways(function, T, given):
        try:
            rows = way.embed(whole)
        except Exception as error:
            said = said or f"{type(error).__name__}: {error}"
            continue
        if rows.ndim != 2 or len(rows) != BATCH:
            if rows.ndim == 2 and rows.shape[1] == BATCH:
                transposed = transposed or f"for {BATCH} t it gives {tuple(rows.shape)}"
            said = said or f"for {BATCH} t it gives {tuple(rows.shape)}"
            continue
        try:
            result = _of_way(way, T)
        except Exception as error:  # it takes these t, and not others
            said = said or f"{type(error).__name__}: {error}"
            continue
        if found is None or not result[0]:
            found = result
        # What is made for t in [0, 1] may be called so; all else is as wrong in another form.
        if not found[0] or found[0][0][0] not in _BY_RANGE:
            break
    if found is not None:
        return found
    square = next(_only_square(function, T, given), "")
    if transposed or square:
        return [("depends on the batch", transposed or square)], transposed or square, []
    raise CannotCheck(
        f"{getattr(function, '__qualname__', function)} gave no rows (B, D) for t of shape (B,); "
        f"{said or 'look at what it returns'}"
    )


def _callables(function: Callable[..., Any], given: dict[str, object]) -> list[Callable[..., Any]]:
    """The thing itself, or objects of a class."""
    if not inspect.isclass(function):
        return [lambda *values: function(*values, **given)]
    made: list[Callable[..., Any]] = []
    for width in ((), *((w,) for w in WIDTHS[:2])):
        try:
            one: Any = function(*width, **given)
        except Exception:
            continue
        made.append(one)
    return made


def _ways(function: Callable[..., Any], T: int, given: dict[str, object]) -> Iterator[Way]:
    for call in _callables(function, given):
        for extra in ((), (WIDTHS[0],)):
            for form, make in _FORMS.items():
                words = f"called with ({', '.join(['t', *['dim'] * len(extra)])}), {form}"

                def embed(t: Tensor, make: Any = make, extra: Any = extra, call: Any = call) -> Any:
                    return _rows(call(make(t), *extra), len(t))

                def fine(t: Tensor, extra: Any = extra, call: Any = call) -> Any:
                    return _rows(call(t.float(), *extra), len(t))

                yield Way(embed, words, "int64" in form, fine)
    for call in _callables(function, given):
        yield Way(
            lambda t, call=call: _rows(call(T, WIDTHS[0]), T)[t.long()],  # type: ignore[misc]
            "called with (T, dim): the whole table",
            True,
        )


def _rows(result: object, n: int) -> Tensor:
    tensors = [t for t in tensors_of(result) if t.ndim]
    if not tensors:
        raise ValueError("it gave no tensor")
    rows = tensors[0].detach().double()
    if rows.ndim == 1 and n == 1:
        raise ValueError("for one t it gives no batch of one row")
    return rows.flatten(1) if rows.ndim > 1 and len(rows) == n else rows.reshape(rows.shape[:2])


def _only_square(function: Callable[..., Any], T: int, given: dict[str, object]) -> Iterator[str]:
    """Batches of the only size that it takes: that of the embedding's width."""
    for call in _callables(function, given):
        for extra in ((), *((w,) for w in WIDTHS)):
            for n in dict.fromkeys((*WIDTHS, *(w // 2 for w in WIDTHS))):
                t = torch.linspace(0, T - 1, n).round()
                for make in _FORMS.values():
                    try:
                        rows = _rows(call(make(t.double()), *extra), n)
                    except Exception:
                        continue
                    if rows.ndim == 2 and len(rows) == n:
                        yield f"it takes {n} t, and no {BATCH}: the batch is laid along the rates"


# --- laws


def _of_way(way: Way, T: int) -> tuple[list[Wrong], str, list[str]]:
    """What is wrong with it, what was measured, and in which convention."""
    generator = torch.Generator().manual_seed(0)
    every = torch.linspace(0, T - 1, min(T, MANY), dtype=torch.float64).round()
    some = every[torch.randperm(len(every), generator=generator)[:BATCH]]
    notes = [way.words]
    one_by_one, missing = [], ""
    first, second = way.embed(some), way.embed(some)
    if not first.isfinite().all():  # NaN is not even equal to itself
        t = some[int((~first.isfinite()).any(1).to(torch.uint8).argmax())].item()
        words = f"NaN or infinity at t = {t:g}"
        return [("not finite", words, "it is not finite", "")], words, notes
    if not torch.equal(first, second):
        wrong = ("random", "two calls with the same t differ", "it is random", "fix what is random")
        return [wrong], "two calls with the same t differ", notes
    for t in some:
        try:
            one_by_one.append(way.embed(t[None]).view_as(first[:1])[0])
        except Exception as error:
            missing = f"{type(error).__name__}: {error}"
    size = first.abs().max().item()
    if not missing:
        apart = (torch.stack(one_by_one) - first).abs().max().item()
        order = torch.randperm(len(some), generator=generator)
        apart = max(apart, (way.embed(some[order]) - first[order]).abs().max().item())
        if apart > _SAME * max(size, 1e-9):
            words = f"the row of a t in a batch, and alone, are {apart:.3g} apart"
            return [("depends on the batch", words)], words, notes
    domains = [("t = 0 … T − 1", every)]
    if not way.whole:
        domains.append(("t in [0, 1]", torch.linspace(0, 1, len(every), dtype=torch.float64)))
    results = [_of_domain(way, domain, t, size) for domain, t in domains]
    wrong_by_range = any(one[0] in _BY_RANGE for one in results[0][0])
    if len(results) > 1 and wrong_by_range and not results[1][0]:
        notes.append("other rates: for t in [0, 1]")
        results = results[1:]
    wrong_ones, measured, more = results[0]
    if missing:
        words = "a batch of one t fails, or has another shape"
        wrong_ones = [*wrong_ones, ("no batch of one", missing, words, "keep (B, D) for B = 1")]
    return wrong_ones, measured, [*notes, *more]


def _of_domain(
    way: Way, domain: str, every: Float64[Tensor, " n"], size: float
) -> tuple[list[Wrong], str, list[str]]:
    rows = way.embed(every)
    if not rows.isfinite().all():
        i = int((~rows.isfinite()).any(1).to(torch.uint8).argmax())
        words = f"NaN or infinity at t = {every[i].item():g}"
        return [("not finite", words, "it is not finite for every t", "")], words, []
    # By products of matrices, which lose what is far below _SAME.
    apart = torch.cdist(rows, rows, compute_mode="use_mm_for_euclid_dist")
    apart.fill_diagonal_(math.inf)
    i, j = divmod(int(apart.argmin()), len(rows))
    least = (rows[i] - rows[j]).norm().item()
    t, s = every[min(i, j)].item(), every[max(i, j)].item()
    measured = f"{domain}: the two nearest rows, of t = {t:g} and {s:g}, are {least:.3g} apart"
    if least <= _SAME * size:
        words = "two t have the same row"
        evidence = f"the rows of t = {t:g} and t = {s:g} are the same"
        remedy = "keep t a float of full range before it is multiplied by the rates"
        return [("two t alike", evidence, words, remedy)], measured, []
    columns = list(_columns(_finer(way, every, rows), every, rows))
    waves = [c for c in columns if c.kind == "wave"]
    norm = rows.norm(dim=1).mean().item()
    if least < 2e-3 * norm and len(every) > 20 and all(c.kind != "other" for c in columns):
        evidence = f"rows of size {norm:.3g} are {least:.3g} apart"
        words = "t is scaled away: neighbouring t hardly differ"
        remedy = "hand over t = 0 … T − 1, or multiply by T"
        return [("scaled away", evidence, words, remedy)], measured, []
    if len(waves) < max(2, len(columns) // 2):
        notes = [] if waves else ["no sines and cosines"]
        if len(columns) == 1 and columns[0].kind == "line":
            notes = [f"{T_ITSELF}, as a multiple of it"]
        return _of_no_waves(columns, rows), measured, notes
    wrong, notes = _of_waves(columns, domain, every)
    some = ", ".join(f"{c.rate:.4g}" for c in waves[:3])
    return wrong, f"{measured}; rates {some}, …, {waves[-1].rate:.4g}", notes


def _finer(way: Way, every: Float64[Tensor, " n"], rows: Float64[Tensor, "n d"]) -> Way:
    """The same, with t that need not be whole, where it takes them."""
    if not way.whole or way.fine is None:
        return way
    try:
        same = torch.allclose(way.fine(every), rows, atol=1e-5)
    except Exception:
        return way
    return way._replace(embed=way.fine, whole=False) if same else way


def _of_no_waves(columns: Sequence[Column], rows: Float64[Tensor, "n d"]) -> list[Wrong]:
    within = rows.abs().max().item() <= 1 + 1e-6 and 0.4 < rows.square().mean().item() < 0.6
    if within and rows.abs().max().item() > 0.99 and all(c.kind == "other" for c in columns):
        evidence = "every column is as a sine of angles at random"
        words = "the angles are too large, or rounded: what is left of them is noise"
        return [("not a wave", evidence, words, "exp(-log(10000) * arange(k) / k) * t")]
    # One column alone is t itself, as a small network may well be told it.
    if len(columns) > 1 and all(c.kind in ("line", "constant") for c in columns):
        words = "the angles themselves, without sine or cosine"
        return [
            ("no sines", "every column is a multiple of t", words, "angles.sin(), angles.cos()")
        ]
    return []


def _of_waves(
    columns: Sequence[Column], domain: str, every: Float64[Tensor, " n"]
) -> tuple[list[Wrong], list[str]]:
    """Sines and cosines of one set of rates, in any order, that fall evenly."""
    # Of one angle from one t to the next, above which single precision cannot tell.
    fastest = 4 * len(every) / every[-1].item()
    odd = [i for i, c in enumerate(columns) if c.kind in ("other", "line")]
    if max(c.rate for c in columns) <= fastest and odd:
        evidence = f"columns {odd[:5]} of {len(columns)} are no sine and no cosine"
        return [("not a wave", evidence, "some columns are no sines", "angles.sin()")], []
    waves = [c for c in columns if c.kind == "wave"]
    sines = [c for c in waves if abs(c.of_sine) > 20 * abs(c.of_cosine)]
    cosines = [c for c in waves if abs(c.of_cosine) > 20 * abs(c.of_sine)]
    mixed = len(waves) - len(sines) - len(cosines)
    rates = _distinct([c.rate for c in waves])
    if mixed > len(waves) // 2:  # phases, as of random features
        return [], ["other rates: with phases"]
    if not sines or not cosines:
        there, lacks = ("sines", "cosines") if sines else ("cosines", "sines")
        evidence = f"{len(waves)} columns, and all are {there}"
        return [(f"no {lacks}", evidence, f"the {lacks} are missing", "cat([sin, cos])")], []
    # The cosine of a rate of nearly 0 is hardly told from 1.
    lone = [
        r for r in rates
        if 0.5 / every[-1].item() < r <= fastest
        and not (_has(sines, r) and _has(cosines, r))
    ]  # fmt: skip
    if lone:
        evidence = f"of rate {lone[0]:.4g} there is no pair of sine and cosine"
        words = "a sine and its cosine have different rates"
        return [("no pairs", evidence, words, "the same angles for sine and cosine")], []
    return _of_rates(rates, len(waves), every)


def _of_rates(
    rates: Sequence[float], count: int, every: Float64[Tensor, " n"]
) -> tuple[list[Wrong], list[str]]:
    top = max(rates)
    end = every[-1].item()  # faster than this are not told exactly
    known = [r for r in sorted(rates, reverse=True) if 0.05 < r * end <= 300 * len(every)]
    if len(known) < 4:
        if len(rates) == 1 and count >= 8:
            evidence = f"{count} columns, and all have the rate {top:.4g}"
            return [("one rate", evidence, "all rates are the same", "a rate for each pair")], []
        return [], [f"other rates: {len(rates)} in all"]
    steps = torch.tensor(known).double().log().diff()
    even = (steps - steps.mean()).abs().max() < 0.02 * steps.mean().abs()
    differences = torch.tensor(known).double().diff()
    linear = (differences - differences.mean()).abs().max() < 0.02 * differences.mean().abs()
    if linear and not even:
        evidence = f"the rates differ by {differences.mean().abs().item():.4g} each"
        words = "the rates fall by equal differences, not by equal factors"
        return [("rates not geometric", evidence, words, "exp(-log(10000) * arange(k) / k)")], []
    if not even:
        ratio = steps.exp()
        if _irregular(steps):
            return [], ["other rates: of no rule"]
        evidence = f"the ratio of two rates goes from {ratio.min():.4g} to {ratio.max():.4g}"
        words = "the rates do not fall by equal factors"
        return [("rates not geometric", evidence, words, "exp(-log(10000) * arange(k) / k)")], []
    factor = steps.mean().exp().item()
    said = f"rates from {top:.4g} by factors of {factor:.4g}"
    if abs(top - 1) < 0.01:
        return [], [said if 1e-5 < min(rates) < 1e-3 else f"other rates: {said}"]
    on_unit = (
        abs(factor - 0.5) < 0.005 or abs(top / 1000 - 1) < 0.01 or abs(top / len(every) - 1) < 0.01
    )
    if on_unit or top <= math.pi:
        return [], [f"other rates: {said}"]
    evidence = (
        f"{said}; in single precision the angles are off by {top * every[-1].item() * 6e-8:.1g}"
    )
    words = "the rates are above 1: sines of angles so large are noise"
    return [("rates above 1", evidence, words, "let the first rate be 1")], []


def _irregular(steps: Float64[Tensor, " n"]) -> bool:
    """Whether ratios rise and fall as if drawn at random."""
    turns = steps.diff().sign().diff().abs() > 0
    return len(turns) > 0 and turns.double().mean().item() > 0.3


def _distinct(rates: Sequence[float]) -> list[float]:
    found: list[float] = []
    for rate in sorted(rates, reverse=True):
        if not found or found[-1] - rate > 0.02 * found[-1]:
            found.append(rate)
    return found


def _has(columns: Sequence[Column], rate: float) -> bool:
    return any(abs(c.rate - rate) <= 0.03 * rate for c in columns)


# --- measuring a column


def _columns(
    way: Way, every: Float64[Tensor, " n"], rows: Float64[Tensor, "n d"]
) -> Iterator[Column]:
    """Each column's rate, from s(t + h) + s(t − h) = 2·cos(rate·h)·s(t), with h from fine to wide.

    A fine h tells rates apart that a wide one mistakes for each other; a wide one is exact.
    """
    end = every[-1].item()
    finest = 1.0 if way.whole else _FINEST * max(1.0, 2.0 ** round(math.log2(end) / 2))
    # What rounds t cannot tell finer ones apart.
    if not way.whole and end > 1:
        half = way.embed(torch.tensor([1.0, 1.25], dtype=torch.float64))
        finest = 1.0 if torch.equal(half[0], half[1]) else finest
    rate = torch.zeros(rows.shape[1], dtype=torch.float64)
    known = torch.zeros(rows.shape[1], dtype=torch.bool)
    lost = torch.zeros(rows.shape[1], dtype=torch.bool)
    generator = torch.Generator().manual_seed(1)
    h = finest
    while 2 * h <= end:
        low, high = h, min(end - h, max(64 * h, 1.0 if end > 1 else 0.1))
        t = low + (high - low) * torch.rand(96, generator=generator, dtype=torch.float64)
        t = t.round().clamp(h, end - h) if finest == 1.0 else (t / finest).round() * finest
        before, at, after = (way.embed(u) for u in (t - h, t, t + h))
        power = at.square().sum(0).clamp(min=1e-300)
        cosine = ((before + after) * at).sum(0) / (2 * power)
        left = (before + after - 2 * cosine * at).square().mean(0).sqrt()
        fits = left <= _FIT * at.square().mean(0).sqrt() + 1e-7
        phase = cosine.clamp(-1, 1).arccos()
        guess = rate * h
        turns = 2 * math.pi * torch.round(guess / (2 * math.pi))
        choices = torch.stack([turns + phase, turns - phase, turns + 2 * math.pi - phase])
        near = (choices - guess).abs().argmin(0)
        picked = torch.where(known, choices.gather(0, near[None])[0], phase)
        lost |= ~fits
        rate = torch.where(fits & ~lost, picked / h, rate)
        known |= fits & ~lost
        h *= 2
    for i in range(rows.shape[1]):
        yield _column(every, rows[:, i], rate[i].item(), bool(known[i]), h)


def _column(
    every: Float64[Tensor, " n"], column: Float64[Tensor, " n"], rate: float, known: bool, h: float
) -> Column:
    size = column.square().mean().sqrt()
    if column.std() <= 1e-4 * size or size < 1e-12:
        return Column("constant")
    matrix = torch.stack([every, torch.ones_like(every)], 1)
    line = torch.linalg.lstsq(matrix, column[:, None]).solution
    if (column - column[0]).abs().max() < 0.05 and (
        matrix @ line - column[:, None]
    ).abs().max() < 1e-3:
        return Column("constant")  # a wave so slow that it hardly moves
    is_line = (matrix @ line - column[:, None]).square().mean().sqrt() < 1e-5 * size
    if not known:
        return Column("line" if is_line else "other")
    near = torch.linspace(-0.02, 0.02, 41).double() if rate * h < 3 else torch.zeros(1).double()
    rates = rate * (1 + near)
    thin = max(1, len(every) // 200)
    angles = rates[:, None] * every[::thin]
    # Angles of many turns are not exact in single precision.
    told = angles <= 2000
    matrix = torch.stack([angles.sin(), angles.cos()], 2) * told[..., None]
    some = (column[::thin] * told)[..., None]
    found = torch.linalg.lstsq(matrix, some).solution
    left = (matrix @ found - some).square().sum((1, 2)) / told.sum(1)
    best = int(left.argmin())
    of_sine, of_cosine = found[best, :, 0].tolist()
    wave = Column("wave", rates[best].item(), of_sine, of_cosine)
    angles = every * wave.rate
    fitted = wave.of_sine * angles.sin() + wave.of_cosine * angles.cos()
    if (fitted - column)[angles <= 2000].square().mean().sqrt() > 0.1 * size:
        return Column("line" if is_line else "other")
    if is_line and math.hypot(of_sine, of_cosine) > 3 * column.abs().max().item():
        return Column("line")
    return wave
