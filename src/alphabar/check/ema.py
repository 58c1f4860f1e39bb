"""Checks of a moving average of weights, by its answer to weights that are known:

    average ← d_k·average + (1 − d_k)·weights,    0 ≤ d_k ≤ decay,    d_k → decay

Weights that change at random from update to update give d_k at each k, and show whether anything
else is added. d_k may rise to `decay`, so that the start is soon forgotten (a warm-up); where it
takes long, a counter that the object keeps is set ahead. Karras et al. 2024, eq. (123), let d_k
rise to 1 by a power of k, and have no decay.
"""

import copy
import inspect
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor, nn

from alphabar.check.catalogue import named
from alphabar.check.report import Diagnosis, Finding, Verdict
from alphabar.check.stranger import CannotCheck, seeded

LAW = "average ← d_k·average + (1 − d_k)·weights, where d_k never falls, and comes to decay"
UPDATES, FEW = 3000, 200
FAR_AHEAD = (10**4, 10**5, 10**6, 10**9)  # what a counter is set to
SECONDS = 1.5  # for all updates together
_DEPTH = 6
_OTHER = 0.5  # another decay, to see whether it is heeded
_CLOSE = 1e-5  # of d_k; float32 averages are worse, see `_close`

Path = tuple[tuple[str, Any], ...]
Wrong = tuple[str, str, str, str]  # kind, evidence, in words, remedy


class Small(nn.Module):
    """A module with parameters of two shapes, and buffers."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 4, dtype=dtype)
        self.register_buffer("seen", torch.zeros(5, dtype=dtype))


class Series(NamedTuple):
    """What the updates did: average ← kept·average + taken·weights + constant."""

    kept: Float64[np.ndarray, " K"]
    taken: Float64[np.ndarray, " K"]
    constant: float
    left: float  # what that does not explain, as a share
    eps: float  # rounding of the numbers
    ahead: tuple[float, ...] = ()  # `kept` with the counter set ahead
    starts: float = 0.0  # how far the average was from the weights at first
    averaged_buffers: bool = False
    note: str = ""


class Subject(NamedTuple):
    """An average in the making."""

    update: Callable[[], Any]
    nets: Callable[[], list[Tensor]]  # the weights
    averages: Callable[[], list[Tensor]]  # of the same shapes
    holder: Any  # what keeps the counter, if anything
    buffer: Callable[[], Tensor | None] = lambda: None
    copies: Callable[[], list[list[Tensor]]] = list  # other ways to read the average
    words: str = ""


class NotAveraged(Exception):
    """The update changes nothing, or the weights, or there is no average: a kind of bug."""

    def __init__(self, kind: str, evidence: str, words: str, remedy: str) -> None:
        super().__init__(words)
        self.wrong: Wrong = (kind, evidence, words, remedy)


def check_ema(
    make: Callable[..., Any], decay: float, given: Mapping[str, object] | None = None
) -> Finding:
    """Whether a moving average of weights is one, with the decay that was given.

    Args:
        make: a class or function that makes of a module, or of its parameters, an object with a
            method that updates it; or a function update(average, weights), with or without decay.
        decay: what the person has set, or would set, in [0, 1).
        given: what else `make` is to be handed, by name.

    Raises:
        ValueError: a decay that is none.
    """
    begin = time.perf_counter()
    is_number = isinstance(decay, int | float) and not isinstance(decay, bool)
    if not is_number or not 0 <= decay < 1:
        raise ValueError(f"decay = {decay!r}: give a number from 0 to below 1, such as 0.999")
    name = getattr(make, "__qualname__", type(make).__name__)
    notes: list[str] = []
    series: Series | None = None
    why = ""
    try:
        with seeded(0), torch.no_grad():
            series, wrong, notes, why = _judged(make, float(decay), dict(given or {}))
    except NotAveraged as error:
        wrong = [error.wrong]
    except CannotCheck as error:
        seconds = time.perf_counter() - begin
        return Finding(name, "ema", "unchecked", LAW, "", "", why=str(error), seconds=seconds)
    verdict: Verdict = "bug" if wrong else "unchecked" if why else "right"
    if verdict == "right" and any(note.startswith(_EQUIVALENT) for note in notes):
        verdict = "equivalent"
    diagnoses = tuple(_named(one) for one in wrong)
    return Finding(
        name,
        "ema",
        verdict,
        LAW,
        wrong[0][1] if series is None else _measured(series),
        f"d_k ≤ {decay:g}, and d_k → {decay:g}",
        diagnoses,
        "; ".join(notes),
        why,
        time.perf_counter() - begin,
    )


_EQUIVALENT = ("power-function", "bias-corrected", "averages every")


def _named(wrong: Wrong) -> Diagnosis:
    kind, evidence, words, remedy = wrong
    return named("ema", kind, evidence, words, remedy)


# --- finding the average, and what updates it


def _judged(
    make: Callable[..., Any], decay: float, given: dict[str, object]
) -> tuple[Series, list[Wrong], list[str], str]:
    """The best that any way of calling it gives."""
    found: list[tuple[Series, list[Wrong], list[str], str]] = []
    refused: list[NotAveraged] = []
    said = ""
    for way in _ways(make):
        for dtype in (torch.float64, torch.float32):
            try:
                subject = way(make, decay, given, dtype)
                series = _series(subject, UPDATES, dtype)
            except NotAveraged as error:
                refused.append(error)
                break
            except Exception as error:
                said = said or f"{type(error).__name__}: {error}"
                continue
            wrong, notes, why = _wrong(series, decay)
            if subject.words:
                notes.append(subject.words)
            if not wrong and way in (_object_with_decay, _function_with_decay):
                wrong = _heeds(way, make, given, dtype, series)
                if wrong:
                    return series, wrong, notes, why
            found.append((series, wrong, notes, why))
            break
        if found and not found[-1][1]:
            return found[-1]
    if found:
        return found[0]
    if refused:
        raise refused[0]
    raise CannotCheck(
        f"{getattr(make, '__qualname__', make)} gave no average of a module or of its parameters; "
        f"hand over the class, or lambda model: EMA(model, ...); {said}"
    )


Way = Callable[[Callable[..., Any], float, dict[str, object], torch.dtype], Subject]


def _ways(make: Callable[..., Any]) -> Sequence[Way]:
    if inspect.isclass(make):
        return (_object_with_decay, _object)
    if _counts_third(make):
        return (_function, _object)
    return (_function_with_decay, _function, _object_with_decay, _object)


def _counts_third(make: Callable[..., Any]) -> bool:
    """Whether the third argument is a whole number unless it is given: no decay, but a step."""
    try:
        found = [*inspect.signature(make).parameters.values()]
    except (TypeError, ValueError):
        return False
    return len(found) > 2 and type(found[2].default) is int and found[2].default > 1


def _heeds(
    way: Way,
    make: Callable[..., Any],
    given: dict[str, object],
    dtype: torch.dtype,
    series: Series,
) -> list[Wrong]:
    """Whether another decay makes a difference; where it is refused it is no decay."""
    if way is _object_with_decay and not _takes_decay(make, series):
        return []
    try:
        other = _series(way(make, _OTHER, given, dtype), FEW, dtype)
    except Exception:
        return []
    end = other.kept[-1]
    if abs(end - _OTHER) <= _close(other):
        return []
    evidence = f"with decay = {_OTHER:g} it comes to {end:.6g}"
    return [("other decay", evidence, "the decay that is given is not used", "use what is given")]


def _takes_decay(make: Callable[..., Any], series: Series) -> bool:
    """Whether the second argument is the decay: its default is what the average comes to."""
    try:
        places = [
            p
            for p in inspect.signature(make).parameters.values()
            if p.kind == p.POSITIONAL_OR_KEYWORD
        ]
    except (TypeError, ValueError):
        return False
    end = max(series.kept[-1], *series.ahead) if series.ahead else series.kept[-1]
    default = places[1].default if len(places) > 1 else None
    return isinstance(default, float) and bool(abs(default - end) <= 1e-6)


def _object_with_decay(
    make: Callable[..., Any], decay: float, given: dict[str, object], dtype: torch.dtype
) -> Subject:
    return _made(lambda source: make(source, decay, **given), dtype)


def _object(
    make: Callable[..., Any], decay: float, given: dict[str, object], dtype: torch.dtype
) -> Subject:
    return _made(lambda source: make(source, **given), dtype)


def _made(make: Callable[[Any], Any], dtype: torch.dtype) -> Subject:
    """An object that keeps an average: its method that updates, and where the average is."""
    best: tuple[int, Callable[[], Subject]] | None = None
    said, made_one = "", None
    for form in ("module", "parameters"):
        try:
            one = make(_source(Small(dtype), form))
        except Exception as error:
            said = said or f"{type(error).__name__}: {error}"
            continue
        made_one = one
        for name in _methods(one):
            for told in ("module", "parameters", "nothing", "module, k", "parameters, k", "state"):
                try:
                    rank = _rank(make, form, name, told, dtype)
                except Exception as error:
                    said = said or f"{type(error).__name__}: {error}"
                    continue
                if rank and (best is None or rank > best[0]):
                    best = rank, _maker(make, form, name, told, dtype)
        if best is not None and best[0] == _UPDATES:
            break
    if best is None:
        if made_one is None or not _methods(made_one):
            raise CannotCheck(said or "it is no object with a method that updates it")
        net = Small(dtype)
        one = make(_source(net, form))
        if not _candidates(one, net) and _holds(one, net):
            raise _IS_THE_MODEL
        raise NotAveraged(
            "never updates",
            f"no method of {', '.join(_methods(made_one))} changes an average",
            "no update changes the average",
            "average = d * average + (1 - d) * weights, kept from update to update",
        )
    rank, subject = best
    if rank == _CHANGES_NET:
        raise NotAveraged(
            "updates the model",
            "after an update the weights are a mixture, and the average is as it was",
            "it changes the weights of the model in place of the average",
            "write into the average: average.copy_(d * average + (1 - d) * weights)",
        )
    return subject()


_IS_THE_MODEL = NotAveraged(
    "the model itself",
    "the average changes with the weights, before any update",
    "the average is the model itself, not a copy",
    "average = copy.deepcopy(model)",
)
_UPDATES, _COPIES, _CHANGES_NET = 3, 2, 1


def _source(net: Small, form: str) -> Any:
    return net if form == "module" else list(net.parameters())


def _methods(one: Any) -> list[str]:
    """Public methods of its own, and a call."""
    own: list[str] = []
    for kind in type(one).__mro__:
        if kind in (object, nn.Module, dict, list) or kind.__module__.startswith(
            "torch.nn.modules"
        ):
            continue
        for name, value in vars(kind).items():
            is_public = not name.startswith("_") or name in ("__call__", "forward")
            if is_public and callable(value) and name not in own:
                own.append(name)
    if callable(one) and inspect.isfunction(one):
        own.append("__call__")
    return own


def _rank(make: Callable[[Any], Any], form: str, name: str, told: str, dtype: torch.dtype) -> int:
    """Whether a method averages, copies, mixes into the weights, or (0) does none of these."""
    subject = _maker(make, form, name, told, dtype)()
    random = np.random.default_rng(1)
    copies = 0
    for _ in range(12):
        _set(subject.nets(), random)
        before = [p.clone() for p in subject.nets()], [a.clone() for a in subject.averages()]
        subject.update()
        after = subject.nets(), subject.averages()
        if not _equal(before[0], after[0]):
            old, new, average = (_flat(v) for v in (before[0], after[0], before[1]))
            mixed = np.linalg.lstsq(np.stack([old, average], 1), new, rcond=None)[0]
            is_mixture = np.abs(mixed).min() > 1e-9 and _equal(before[1], after[1])
            return _CHANGES_NET if is_mixture else 0
        if _equal(before[1], after[1]):
            continue
        if not _equal(after[0], after[1]):
            return _UPDATES
        copies += 1
    return _COPIES if copies else 0


def _equal(a: Sequence[Tensor], b: Sequence[Tensor]) -> bool:
    return all(torch.equal(x.double(), y.double()) for x, y in zip(a, b, strict=True))


def _maker(
    make: Callable[[Any], Any], form: str, name: str, told: str, dtype: torch.dtype
) -> Callable[[], Subject]:
    def subject() -> Subject:
        net = Small(dtype)
        one = make(_source(net, form))
        method = getattr(one, name)
        count = [0]

        def update() -> Any:
            count[0] += 1
            return method(*_told(told, net, count[0] - 1))

        paths = _changing(one, net, name, told)

        def averages() -> list[Tensor]:
            return [_follow(one, path) for path in paths]

        held = [p for p in _candidates(one, net) if _follow(one, p).shape == net.seen.shape]

        def buffer() -> Tensor | None:
            return _follow(one, held[0]) if held else None

        def nets() -> list[Tensor]:
            return [p.data for p in net.parameters()]

        def copies() -> list[list[Tensor]]:
            return list(_readings(one, name, net))

        return Subject(update, nets, averages, one, buffer, copies, f"updated by {name}({told})")

    return subject


def _readings(one: Any, update: str, net: Small) -> Iterator[list[Tensor]]:
    """The average as other methods hand it over, or write it into a network."""
    for name in _methods(one):
        if name in (update, "__call__", "forward"):
            continue
        for told in ("nothing", "module", "parameters"):
            other, into = copy.deepcopy(one), copy.deepcopy(net)
            before = [p.data.clone() for p in into.parameters()]
            values = () if told == "nothing" else (_source(into, told),)
            try:
                result = getattr(other, name)(*values)
                yield [_follow(result, path) for path in _fitting(result, net)]
            except Exception:
                pass
            after = [p.data for p in into.parameters()]
            if not _equal(before, after):
                yield after


def _told(told: str, net: Small, k: int) -> list[Any]:
    """What a method is handed."""
    values = {
        "module": net,
        "parameters": list(net.parameters()),
        "state": net.state_dict(),
        "k": k,
    }
    return [values[part] for part in told.split(", ") if part != "nothing"]


def _changing(one: Any, net: Small, name: str, told: str) -> list[Path]:
    """Where the average of each parameter is: the tensor of its shape that updates change."""
    paths = _candidates(one, net)
    chosen: list[list[Path]] = []
    random = np.random.default_rng(2)
    before = {path: _follow(one, path).clone() for path in paths}
    was = [p.data.clone() for p in net.parameters()]
    _set([p.data for p in net.parameters()], random)
    moved = [path for path in paths if not torch.equal(before[path], _follow(one, path))]
    for p in net.parameters():
        fitting = [path for path in paths if before[path].shape == p.shape]
        if not fitting:
            raise CannotCheck(f"no tensor of the shape {tuple(p.shape)} in what it keeps")
        if all(path in moved for path in fitting):
            raise _IS_THE_MODEL
        still = [path for path in fitting if path not in moved]
        chosen.append(still)
    for p, old in zip(net.parameters(), was, strict=True):
        p.data.copy_(old)
    if all(len(still) == 1 for still in chosen):
        return [still[0] for still in chosen]
    # Something else is kept too, such as a copy of the weights: the average is what changes, and
    # is not what the weights are.
    other, net = copy.deepcopy((one, net))
    first = {path: _follow(other, path).clone() for still in chosen for path in still}
    for k in range(12):
        _set([p.data for p in net.parameters()], random)
        getattr(other, name)(*_told(told, net, k))

    def likely(path: Path, p: Tensor) -> int:
        now = _follow(other, path)
        return 2 * (not torch.equal(first[path], now)) - torch.equal(now, p.data)

    pairs = zip(chosen, net.parameters(), strict=True)
    return [max(still, key=lambda path, p=p: likely(path, p)) for still, p in pairs]  # type: ignore[misc]


def _candidates(one: Any, net: Small) -> list[Path]:
    """Tensors in an object that are not the network's own."""
    own = {p.data_ptr() for p in (*net.parameters(), *net.buffers())}
    found = _walk(one, (), set(), _DEPTH, net)
    return [path for path, tensor in found if id(tensor) and tensor.data_ptr() not in own]


def _holds(one: Any, net: Small) -> bool:
    own = {p.data_ptr() for p in net.parameters()}
    return any(t.data_ptr() in own for _, t in _walk(one, (), set(), _DEPTH, None))


def _fitting(one: Any, net: Small) -> list[Path]:
    """One tensor for each parameter."""
    found = list(_walk(one, (), set(), _DEPTH, net))
    return [
        next(path for path, tensor in found if tensor.shape == p.shape) for p in net.parameters()
    ]


def _walk(
    value: Any, path: Path, seen: set[int], depth: int, net: Small | None
) -> Iterator[tuple[Path, Tensor]]:
    """All float tensors that can be reached, with the way to each."""
    if isinstance(value, Tensor):
        if value.is_floating_point() and value.ndim:
            yield path, value
        return
    if depth == 0 or id(value) in seen or value is net:
        return
    seen.add(id(value))
    for step, part in _parts(value):
        yield from _walk(part, (*path, step), seen, depth - 1, net)


def _parts(value: Any) -> Iterator[tuple[tuple[str, Any], Any]]:
    if isinstance(value, Mapping):
        yield from ((("item", key), part) for key, part in value.items())
    elif isinstance(value, list | tuple):
        yield from ((("item", i), part) for i, part in enumerate(value))
    elif inspect.isfunction(value):
        for i, cell in enumerate(value.__closure__ or ()):
            yield ("cell", i), cell.cell_contents
    elif inspect.ismethod(value):
        yield ("attribute", "__self__"), value.__self__
    elif not inspect.isclass(value) and not inspect.ismodule(value):
        names = [*getattr(value, "__dict__", {}), *getattr(type(value), "__slots__", ())]
        for name in names:
            if hasattr(value, name):
                yield ("attribute", name), getattr(value, name)


def _follow(value: Any, path: Path) -> Any:
    for how, key in path:
        if how == "item":
            value = value[key]
        elif how == "cell":
            value = value.__closure__[key].cell_contents
        else:
            value = getattr(value, key)
    return value


# --- a function of an average and weights


def _function_with_decay(
    make: Callable[..., Any], decay: float, given: dict[str, object], dtype: torch.dtype
) -> Subject:
    return _functional(lambda a, b: make(a, b, decay, **given), dtype)


def _function(
    make: Callable[..., Any], decay: float, given: dict[str, object], dtype: torch.dtype
) -> Subject:
    return _functional(lambda a, b: make(a, b, **given), dtype)


def _functional(function: Callable[[Any, Any], Any], dtype: torch.dtype) -> Subject:
    said = ""
    for form in ("module", "parameters", "state", "tensor"):
        net, other = Small(dtype), Small(dtype)
        pair = [_as(m, form) for m in (other, net)]
        was = [[t.clone() for t in _weights(v)] for v in pair]
        try:
            result = function(*pair)
            changed = [not _equal(w, _weights(v)) for w, v in zip(was, pair, strict=True)]
            returned = _fits(result, pair[0])
        except Exception as error:
            said = said or f"{type(error).__name__}: {error}"
            continue
        if not any(changed) and returned is None:
            raise NotAveraged(
                "never updates",
                "neither of what it is handed has changed, and nothing comes back",
                "no update changes the average",
                "average = d * average + (1 - d) * weights",
            )
        place = 0 if changed[0] or not changed[1] else 1
        kept = [_as(copy.deepcopy(net), form) for _ in range(2)]
        words = f"called with {'(average, weights)' if place == 0 else '(weights, average)'}"

        def update(kept: list[Any] = kept, place: int = place, inside: bool = any(changed)) -> None:
            result = function(*kept)
            if not inside:
                kept[place] = result

        return Subject(
            update,
            lambda kept=kept, place=place: _weights(kept[1 - place]),  # type: ignore[misc]
            lambda kept=kept, place=place: _weights(kept[place]),  # type: ignore[misc]
            function,
            words=words,
        )
    raise CannotCheck(said)


def _as(net: Small, form: str) -> Any:
    if form == "module":
        return net
    if form == "parameters":
        return list(net.parameters())
    if form == "state":
        return {k: v.clone() for k, v in net.named_parameters()}
    return net.layer.weight.data.clone()


def _weights(value: Any) -> list[Tensor]:
    if isinstance(value, nn.Module):
        return [p.data for p in value.parameters()]
    if isinstance(value, Mapping):
        return [v.data for v in value.values()]
    return [value.data] if isinstance(value, Tensor) else [v.data for v in value]


def _fits(result: Any, like: Any) -> Any:
    try:
        same = [t.shape for t in _weights(result)] == [t.shape for t in _weights(like)]
    except (TypeError, AttributeError):
        return None
    return result if same else None


# --- measuring


def _set(weights: Sequence[Tensor], random: np.random.Generator) -> None:
    for w in weights:
        w.copy_(torch.from_numpy(random.standard_normal(tuple(w.shape))))


def _flat(tensors: Sequence[Tensor]) -> Float64[np.ndarray, " n"]:
    return np.concatenate([t.detach().double().numpy().reshape(-1) for t in tensors])


def _series(subject: Subject, updates: int, dtype: torch.dtype) -> Series:
    random = np.random.default_rng(4)
    starts = _flat(subject.averages()) - _flat(subject.nets())
    begin = time.perf_counter()
    rows: list[tuple[Any, Any, Any]] = []
    counters: Mapping[Path, float] = {}

    def once() -> None:
        _set(subject.nets(), random)
        weights, before = _flat(subject.nets()), _flat(subject.averages())
        subject.update()
        rows.append((before, weights, _flat(subject.averages())))

    for k in range(updates):
        if k in (3, 4):
            counters = _counting(subject.holder, counters, k == 3)
        once()
        if k > FEW and time.perf_counter() - begin > SECONDS:
            break
    seen = subject.buffer()
    kept, taken, constant, left = _solved(rows)
    note = _corrected(subject, kept)
    ahead: list[float] = []
    period = int(np.diff(np.flatnonzero(np.abs(taken) > 1e-12)).max(initial=1))
    if counters and updates > FEW:
        for far in FAR_AHEAD:
            for path in counters:
                _put(subject.holder, path, far)
            place = len(rows)
            for _ in range(period):
                once()
            ahead.append(float(_solved(rows[place:])[0].min()))
    eps = 2.0**-52 if all(a.dtype == torch.float64 for a in subject.averages()) else 2.0**-23
    if dtype == torch.float32:
        eps = 2.0**-23
    averaged = seen is not None and bool((seen != 0).any())
    return Series(
        kept,
        taken,
        constant,
        left,
        eps,
        tuple(ahead),
        float(np.abs(starts).max()),
        averaged,
        note,
    )


def _solved(rows: Sequence[tuple[Any, Any, Any]]) -> tuple[Any, Any, float, float]:
    """kept, taken, constant and what is left of each update, by least squares; else NaN."""
    before, weights, after = (np.stack(part) for part in zip(*rows, strict=True))
    if not (np.isfinite(before).all() and np.isfinite(after).all()):
        unknown = np.full(len(before), math.nan)  # the search for singular values would not end
        return unknown, unknown, math.nan, math.nan
    columns = np.stack([before, weights, np.ones_like(before)], 2)
    found = (np.linalg.pinv(columns) @ after[..., None])[..., 0]
    left = (columns @ found[..., None])[..., 0] - after
    # An average that is the same everywhere, as at first, does not show what multiplies it.
    flat = before.std(1) < 1e-9
    found[flat, 0], found[flat, 2] = 1 - found[flat, 1], 0.0
    share = float(np.sqrt((left**2).mean() / max((after**2).mean(), 1e-300)))
    return found[:, 0], found[:, 1], float(np.abs(found[:, 2]).max()), share


def _corrected(subject: Subject, kept: Any) -> str:
    """Whether the average is read with a division by 1 − Π d_k."""
    whole = 1 - float(np.prod(kept[-len(kept) :]))
    if not 1e-6 < whole < 1 - 1e-6:
        return ""
    raw = _flat(subject.averages())
    for reading in subject.copies():
        if np.allclose(_flat(reading), raw / whole, rtol=1e-4):
            return "bias-corrected: what is read is the average over 1 − Π d_k"
    return ""


def _counting(holder: Any, before: Mapping[Path, float], first: bool) -> Mapping[Path, float]:
    """Whole numbers in an object; of those seen before, the ones that have risen."""
    found = dict(_numbers(holder, (), set(), 3))
    if first:
        return found
    return {path: value for path, value in found.items() if value > before.get(path, math.inf)}


def _numbers(value: Any, path: Path, seen: set[int], depth: int) -> Iterator[tuple[Path, float]]:
    if isinstance(value, bool):
        return
    if isinstance(value, int) or (
        isinstance(value, Tensor) and value.numel() == 1 and not value.is_floating_point()
    ):
        yield path, float(value)
        return
    if depth == 0 or id(value) in seen or isinstance(value, Small | Tensor | str):
        return
    seen.add(id(value))
    for step, part in _parts(value):
        yield from _numbers(part, (*path, step), seen, depth - 1)


def _put(holder: Any, path: Path, number: int) -> None:
    inside, (how, key) = _follow(holder, path[:-1]), path[-1]
    old = _follow(inside, path[-1:])
    if isinstance(old, Tensor):
        old.fill_(number)
    elif how == "item":
        inside[key] = number
    elif how == "cell":
        inside.__closure__[key].cell_contents = number
    else:
        setattr(inside, key, number)


# --- saying


def _close(series: Series) -> float:
    return _CLOSE if series.eps < 1e-10 else 1e-4


def _wrong(series: Series, decay: float) -> tuple[list[Wrong], list[str], str]:
    """What is wrong, what else was noticed, and why no verdict can be given."""
    close = _close(series)
    d, taken = series.kept, series.taken
    notes: list[str] = []
    if not np.isfinite(d).all() or not math.isfinite(series.left):
        return [("not finite", "the average is NaN or infinite", "it is not finite", "")], [], ""
    if series.left > max(1e-6, 100 * series.eps):
        evidence = f"{series.left:.2g} of it is something else than average and weights"
        words = "the result is no sum of the average and of the weights"
        return (
            [("no average", evidence, words, "average = d * average + (1 - d) * weights")],
            [],
            "",
        )
    if series.constant > close:
        return (
            [("constant", f"{series.constant:.3g}", "a constant is added", "leave it away")],
            [],
            "",
        )
    off = float(np.abs(d + taken - 1).max())
    if off > close:
        k = int(np.abs(d + taken - 1).argmax())
        evidence = f"at update {k + 1} the weights are {d[k]:.6g} and {taken[k]:.6g}"
        words = "what multiplies the average and the weights does not add up to 1"
        remedy = "average = d * average + (1 - d) * weights"
        return [("weights do not add up", evidence, words, remedy)], [], ""
    at_work = d[np.abs(taken) > 1e-12]
    if not len(at_work):
        words = "no update changes the average"
        return [("never updates", "d_k = 1 at every k", words, "multiply by d < 1")], [], ""
    if len(at_work) < len(d) - 1:
        notes.append(f"averages every {len(d) / len(at_work):.3g}th update")
    end = series.ahead[-1] if series.ahead else at_work[-1]
    if abs(end - decay) > close and _is_power(at_work):
        notes.append(f"power-function average: d_k → 1 by a power of k, no decay ({_family(d)})")
        return [], notes, ""
    wrong = [*_end(series, at_work, float(end), decay, close)]
    rising = np.diff([*at_work, *series.ahead])
    if not wrong and (rising < -close).any():
        k = int((rising < -close).argmax())
        first, second = [*at_work, *series.ahead][k : k + 2]
        evidence = f"d_k = {first:.6g} is followed by {second:.6g}"
        words = "the decay falls from update to update"
        wrong.append(("falling decay", evidence, words, "min(decay, (1 + k) / (10 + k)) rises"))
    first_copies = abs(d[0]) <= close
    if not wrong and series.starts > 1e-6 and not first_copies:
        if series.note:
            notes.append(series.note)
        else:
            wrong.append(
                (
                    "starts elsewhere",
                    f"at first it is {series.starts:.3g} off the weights",
                    "the average does not start as the weights, and nothing corrects it",
                    "start with a copy of the weights, or divide by 1 - decay**k",
                )
            )
    why = ""
    if not wrong and not series.ahead and abs(end - decay) > close:
        family = _family(at_work)
        if not family:
            why = (
                f"after {len(d)} updates d_k = {end:.6g} still rises, and there is no counter to "
                f"set ahead: check it with a smaller decay"
            )
        notes.append(f"after {len(d)} updates d_k = {end:.6g}")
    notes.append(f"warm-up {_family(at_work) or 'of its own'}" if at_work[0] < end - close else "")
    notes.append("buffers are averaged" if series.averaged_buffers else "buffers are not averaged")
    return wrong, [note for note in notes if note], why


def _end(series: Series, d: Any, end: float, decay: float, close: float) -> Iterator[Wrong]:
    swapped = abs(end - (1 - decay)) <= close < abs(1 - 2 * decay)
    top = float(max(d.max(), end))
    reached = bool(series.ahead) or abs(d[-1] - d[len(d) // 2]) <= 1e-9
    if swapped:
        evidence = f"d_k comes to {end:.6g} = 1 − {decay:g}"
        words = "decay and 1 − decay have changed places"
        yield (
            "roles swapped",
            evidence,
            words,
            "average = decay * average + (1 - decay) * weights",
        )
    elif top > decay + close or (reached and abs(end - decay) > close):
        word = "comes to" if abs(end - decay) > close else "is as large as"
        value = end if abs(end - decay) > close else top
        yield (
            "other decay",
            f"d_k {word} {value:.6g} where the decay given is {decay:g}"
            + (f"; {_family(d)}" if _family(d) else ""),
            "",
            "",
        )
    elif d.min() < -close:
        evidence = f"d_k = {d.min():.6g}"
        yield ("negative decay", evidence, "what multiplies the average is negative", "")


_FAMILIES: Mapping[str, Callable[[Any], Any]] = {
    "(1 + k)/(10 + k)": lambda k: (1 + k) / (10 + k),
    "k/(k + 1)": lambda k: k / (k + 1),
    "1 − (1 + k)^(−2/3)": lambda k: 1 - (1 + k) ** (-2 / 3),
    "1 − (1 + k)^(−3/4)": lambda k: 1 - (1 + k) ** (-3 / 4),
}


def _family(d: Any) -> str:
    """A usual rule that the first d_k follow, up to where they stay the same."""
    rising = d[: int(np.argmax(d >= d.max() - 1e-9))]
    if len(rising) < 3:
        return ""
    k = np.arange(len(rising), dtype=float)
    for name, rule in _FAMILIES.items():
        for start in (0, 1, 2):
            if np.abs(rule(k + start) - rising).max() < 1e-4:
                return name.replace("k", f"(k + {start})") if start > 1 else name
    return ""


def _is_power(d: Any) -> bool:
    """Whether d_k = (1 − 1/k)^(γ + 1), with γ > ½, k from 1, 2 or 3."""
    if len(d) < 50:
        return False
    for start in (1, 2, 3):
        k = np.arange(len(d), dtype=float) + start
        with np.errstate(divide="ignore", invalid="ignore"):
            power = (np.log(d) / np.log1p(-1 / k))[10:]
        if np.isfinite(power).all() and np.ptp(power) < 1e-2 * power.mean() and power.mean() > 1.5:
            return True
    return False


def _measured(series: Series) -> str:
    d = series.kept
    some = ", ".join(f"d_{k} = {d[k - 1]:.6g}" for k in (1, 2, 10, 100, len(d)) if k <= len(d))
    far = "".join(f"; with the counter at 10^9: {series.ahead[-1]:.6g}" for _ in series.ahead[:1])
    return some + far
