"""Check of a weighting: how much the loss counts at each level.

    ℓ = w_t·‖a − â‖²,    a what the model predicts,    SNR_t = ᾱ_t/(1 − ᾱ_t)

An error of ε̂ is SNR times an error of x̂_0, and one of v̂ is SNR + 1 times, both squared, so the same
weighting of x̂_0 is another w for each prediction (Kingma & Gao 2023, section 3):

    claims       x_0: w                     eps: w                  v: w
    min_snr      min(SNR, γ)                min(SNR, γ)/SNR         min(SNR, γ)/(SNR + 1)
    p2           SNR/(k + SNR)^γ, k = 1     1/(k + SNR)^γ           SNR/((k + SNR)^γ·(SNR + 1))

Hang et al. 2023, section 3.4; Choi et al. 2022, section 3. Others are meant for one prediction, and
taken as they are: `snr`, `snr+1`, `truncated` max(SNR, 1) (Salimans & Ho 2022, section 4),
`debiased` 1/√SNR (Yu et al. 2023), `edm` SNR + 1/std², std = ½ (Karras et al. 2022, table 1),
`sigmoid` 1/(1 + SNR) (Kingma & Gao 2023, section 3), `uniform` 1. A constant factor is a
convention.
"""

import itertools
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from alphabar.check.catalogue import named
from alphabar.check.formula import process_of
from alphabar.check.report import Diagnosis, Finding, Verdict
from alphabar.check.stranger import CannotCheck, Stranger, seeded, tensors_of

PREDICTIONS = ("eps", "x_0", "v")
CLAIMS = (
    "min_snr",
    "p2",
    "snr",
    "snr+1",
    "truncated",
    "debiased",
    "edm",
    "sigmoid",
    "uniform",
)
_BY_PREDICTION = ("min_snr", "p2")
_GAMMA = {"min_snr": 5.0, "p2": 1.0}
_EPS = torch.finfo(torch.float32).eps
# Without a signal, so many times the greatest of the other weights is a weight without bound.
_HUGE = 1e4
_SILENT = 1e-15  # an SNR that is 0 up to rounding
_UNKNOWN = "none of the usual weightings"

Snr = Float64[Tensor, " T"]


class _Way(NamedTuple):
    """How a function was called, and the weights it gave for t = 1..T."""

    called: str
    weights: Float64[Tensor, " T"]


class _Reading(NamedTuple):
    """A formula for the weights; no kind where it is the one that is meant."""

    kind: str
    says: str
    weights: Float64[Tensor, " T"]


def check_weighting(
    function: object,
    betas: object,
    predicts: str = "eps",
    claims: str | None = None,
    gamma: float | None = None,
    given: Mapping[str, object] | None = None,
) -> Finding:
    """Whether a loss is weighted at each level as it is said to be.

    Args:
        function: t → w_t, or SNR → w, with γ as a second argument if it takes one; or a table of
            (T,) numbers for t = 1..T, or (T+1,) with t = 0 first.
        betas: β_1 … β_T, each in (0, 1); the last may be 1, where SNR = 0.
        predicts: what the loss is an error of: eps, x_0 or v.
        claims: the weighting it is to be, one of `CLAIMS`; None: any that is finite and ≥ 0.
        gamma: the γ of `min_snr` (5 if none fits) and `p2`.
        given: further arguments of the function, by name.

    Raises:
        ValueError: betas, a prediction or a weighting that mean nothing.
    """
    begin = time.perf_counter()
    beta = process_of(betas).beta
    _one_of("predicts", predicts, PREDICTIONS)
    if claims is not None:
        _one_of("claims", claims, CLAIMS)
    if gamma is not None and not gamma > 0:
        raise ValueError(f"gamma = {gamma}: it must be an SNR above 0, such as 5")
    log_abar = torch.log1p(-beta).cumsum(0)
    snr = log_abar.exp() / -torch.expm1(log_abar)
    error = _rounding(beta)
    law = _law(claims, predicts)
    stranger = Stranger(function, given or {}) if callable(function) else None
    name = "weights" if stranger is None else stranger.name
    try:
        tried = list(_ways(function, stranger, snr, gamma or 5.0))
    except CannotCheck as refused:
        seconds = time.perf_counter() - begin
        return Finding(name, "weighting", "unchecked", law, "", "", (), "", str(refused), seconds)
    found = [_weighed(way, snr, error, predicts, claims, gamma, law, name) for way in tried]
    # Names say nothing: of several ways to call it, the one that was meant makes the most sense.
    best = min(found, key=_rank)
    return replace(best, seconds=time.perf_counter() - begin)


def _rank(found: Finding) -> int:
    """Known weightings; then what is named; then what is finite, or else is not."""
    is_known = found.verdict != "bug" and not found.convention.startswith(_UNKNOWN)
    order = (is_known, bool(found.diagnoses), found.verdict != "bug")
    return order.index(True) if any(order) else len(order)


def _one_of(name: str, value: str, choices: Sequence[str]) -> None:
    if value in choices:
        return
    near = get_close_matches(str(value), choices, 3, 0.5)
    raise ValueError(f"{name} = {value!r}: it must be one of {', '.join(near or choices)}")


def _rounding(beta: Float64[Tensor, " T"]) -> Float64[Tensor, " T"]:
    """The relative error of SNR_t in float32: a product of t factors 1 − β, and one difference."""
    rest = 1 - beta
    # Where β_T = 1, ᾱ_T = 0 is exact.
    of_abar = (1 + torch.where(rest > 0, 1 / rest, 0.0)).cumsum(0)
    noise = -torch.expm1(torch.log1p(-beta).cumsum(0))
    return 4 * _EPS * (2 + of_abar + (1 + of_abar) / noise)


# --- calling


def _ways(function: object, stranger: Stranger | None, snr: Snr, gamma: float) -> Iterator[_Way]:
    """The weights for t = 1..T, by each way of asking that works.

    Raises:
        CannotCheck: none does.
    """
    T = len(snr)
    if stranger is None:
        table = _listed(function)
        if len(table) not in (T, T + 1):
            raise CannotCheck(f"there are {len(table)} weights, and T = {T}: give one for each β")
        yield _Way("a table" + ", t = 0 first" * (len(table) > T), table[len(table) - T :])
        return
    least = [p for p in stranger.parameters() if p.default is p.empty]
    if len(least) > 2:
        names = ", ".join(p.name for p in least)
        raise CannotCheck(
            f"{stranger.name} takes {names}: wrap it as a function of t, or give the rest by name, "
            f"as in given={{{least[-1].name!r}: ...}}"
        )
    t = torch.arange(T)
    mores = [(), (gamma,)][max(len(least) - 1, 0) : len(stranger.parameters())]
    said, found = "", False
    for what, values in (("t from 0", t), ("t from 1", t + 1), ("SNR", snr)):
        for handed, more in itertools.product((values, values.float()), mores):
            weights = _asked(stranger, handed, more)
            if isinstance(weights, str):
                said = said or weights
                continue
            found = True
            yield _Way(f"called with {what}" + ", γ" * len(more), weights)
            if what == "t from 0" and isinstance(_asked(stranger, t[-1:] + 1, more), str):
                return  # it knows T numbers, and no t = T
            break
    if not found:
        raise CannotCheck(
            f"{stranger.name} gave no weight for each t: {said}; give a function of t, or a table"
        )


def _asked(stranger: Stranger, values: Tensor, more: tuple[float, ...]) -> Tensor | str:
    """A weight for each value, all asked at once or one by one; or what it said."""
    said = ""
    try:
        with seeded(0):
            found = [v for v in stranger(values, *more) if v.numel() == len(values)]
        if found:
            return found[0].double().cpu().flatten()
        said = f"not {len(values)} numbers for t of shape ({len(values)},)"
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
    try:
        with seeded(0):
            each = [stranger(v.item(), *more)[0] for v in values]
        return torch.stack([v.double().cpu().reshape(()) for v in each])
    except Exception:
        return said


def _listed(values: object) -> Float64[Tensor, " n"]:
    """A table of weights.

    Raises:
        CannotCheck: it is not one.
    """
    if isinstance(values, Sequence) and all(isinstance(v, int | float | np.number) for v in values):
        return torch.tensor([float(v) for v in values], dtype=torch.float64)
    found = [t for t in tensors_of(values) if t.squeeze().ndim == 1 and not t.is_complex()]
    if not found:
        raise CannotCheck(
            f"the weights are a {type(values).__name__}: "
            "give a function of t, or a table of T numbers"
        )
    return found[0].detach().double().cpu().flatten()


# --- the law


def _law(claims: str | None, predicts: str) -> str:
    formulas = {
        ("min_snr", "x_0"): "min(SNR, γ)",
        ("min_snr", "eps"): "min(SNR, γ)/SNR",
        ("min_snr", "v"): "min(SNR, γ)/(SNR + 1)",
        ("p2", "x_0"): "SNR/(1 + SNR)^γ",
        ("p2", "eps"): "1/(1 + SNR)^γ",
        ("p2", "v"): "SNR/(1 + SNR)^(γ + 1)",
        ("snr", ""): "SNR",
        ("snr+1", ""): "SNR + 1",
        ("truncated", ""): "max(SNR, 1)",
        ("debiased", ""): "1/√SNR",
        ("edm", ""): "SNR + 4",
        ("sigmoid", ""): "1/(1 + SNR)",
        ("uniform", ""): "1",
    }
    if claims is None:
        return "w_t is a number, and ≥ 0"
    return f"w_t = {formulas[claims, predicts if claims in _BY_PREDICTION else '']}"


def _right(claims: str, predicts: str, snr: Snr, gamma: float) -> Float64[Tensor, " T"]:
    """The weights of `claims` at levels of these SNR; at SNR = 0 their limit."""
    if claims == "min_snr":
        return {
            "x_0": snr.clamp(max=gamma),
            "eps": (gamma / snr).clamp(max=1.0),
            "v": snr.clamp(max=gamma) / (snr + 1),
        }[predicts]
    if claims == "p2":
        less = (1 + snr) ** -gamma
        return {"x_0": snr * less, "eps": less, "v": snr * less / (snr + 1)}[predicts]
    return {
        "snr": snr,
        "snr+1": snr + 1,
        "truncated": snr.clamp(min=1.0),
        "debiased": snr**-0.5,
        "edm": snr + 4,
        "sigmoid": 1 / (1 + snr),
        "uniform": torch.ones_like(snr),
    }[claims]


def _weighed(
    way: _Way,
    snr: Snr,
    error: Float64[Tensor, " T"],
    predicts: str,
    claims: str | None,
    gamma: float | None,
    law: str,
    name: str,
) -> Finding:
    """What the weights of one way of calling are."""
    w = way.weights

    def said(
        verdict: Verdict, measured: str, expected: str, *found: Diagnosis, convention: str = ""
    ) -> Finding:
        both = "; ".join(filter(None, (convention, way.called)))
        return Finding(name, "weighting", verdict, law, measured, expected, found, both)

    silent = snr < _SILENT
    broken = ~w.isfinite()
    heard = w[w.isfinite() & ~silent]
    without_bound = silent & (w > _HUGE * heard.max()) if len(heard) else torch.zeros_like(broken)
    if (broken & ~silent).any():
        t = int((broken & ~silent).nonzero()[0])
        return said("bug", f"w = {w[t]:g} at t = {t + 1}, SNR = {snr[t]:.4g}", "a number")
    if (broken | without_bound).any():
        t = int((broken | without_bound).nonzero()[0])
        words = f"w = {w[t]:.4g} at t = {t + 1}, where SNR = {snr[t]:.2g}"
        return said(
            "bug", words, "a number", named("weighting", "not finite without signal", words)
        )
    if (w < 0).any():
        t = int((w < 0).nonzero()[0])
        measured = f"w = {w[t]:.6g} at t = {t + 1}, SNR = {snr[t]:.4g}"
        explained = _rivals(w, snr, error, predicts, claims, gamma) if claims else ()
        return said("bug", measured, "0 or more", *explained)
    if claims is None:
        for reading in _recognised(snr, w, predicts, gamma):
            if _factor(w, reading.weights, error, silent) is not None:
                return said("right", _shown(w, snr), law, convention=reading.says)
            least, most = w.min().item(), w.max().item()
            clipped = reading.weights.clamp(least, most)
            kept = int((clipped == reading.weights).sum())
            if kept >= max(2, len(w) // 10) and _factor(w, clipped, error, silent) is not None:
                words = f"{reading.says}, between {least:.4g} and {most:.4g}"
                return said("right", _shown(w, snr), law, convention=words)
        return said("right", _shown(w, snr), law, convention=_UNKNOWN)
    expected = torch.ones_like(w)
    for size in _gammas(claims, predicts, w, snr, gamma):
        expected = _right(claims, predicts, snr, size)
        factor = _factor(w, expected, error, silent)
        if factor is None and claims == "debiased":
            clipped = expected.clamp(w.min().item(), w.max().item())
            if int((clipped == expected).sum()) >= max(2, len(w) // 10):
                factor = _factor(w, clipped, error, silent)
        if factor is None:
            continue
        usual = abs(factor - 1) < 1e-3
        if usual and claims in _BY_PREDICTION:
            convention = f"γ = {size:.6g}"
        else:
            convention = "" if usual else f"times {factor:.6g} throughout"
        verdict: Verdict = "right" if usual else "equivalent"
        return said(verdict, _shown(w, snr), law, convention=convention)
    size = gamma or _GAMMA.get(claims, 1.0)
    expected = _right(claims, predicts, snr, size)
    off = ((w - expected).abs() > (4 * error * expected).clamp(min=_EPS)) & expected.isfinite()
    t = int(off.nonzero()[len(off.nonzero()) // 2]) if off.any() else len(w) // 2
    at = f"t = {t + 1}, SNR = {snr[t]:.4g}"
    return said(
        "bug",
        f"w = {w[t]:.6g} at {at}",
        f"{law.removeprefix('w_t = ')} = {expected[t]:.6g} at {at}, γ = {size:g}",
        *_rivals(w, snr, error, predicts, claims, gamma),
    )


def _shown(w: Float64[Tensor, " T"], snr: Snr) -> str:
    places = sorted({0, len(w) // 2, len(w) - 1})
    return ", ".join(f"w = {w[i]:.4g} at SNR = {snr[i]:.3g}" for i in places)


def _factor(
    w: Float64[Tensor, " T"],
    expected: Float64[Tensor, " T"],
    error: Float64[Tensor, " T"],
    silent: Tensor,
) -> float | None:
    """c for which w = c·expected at all levels with a signal; None if there is none.

    Where there is none, any weight from 0 to twice the limit will do: ε is x_t then, and there is
    nothing to learn.
    """
    heard = ~silent & expected.isfinite()
    if not heard.any() or not (expected[heard] > 0).any() or not (w[heard] > 0).any():
        return None
    # Where rounding loses least.
    places = torch.where(heard & (expected > 0), error, torch.inf)
    best = places <= 2 * places.min()
    factor = float((w[best] / expected[best]).median())
    if not math.isfinite(factor) or factor <= 0:
        return None
    allowed = (2 * (error + float(error[best].max())) + 1e-5).clamp(max=0.3)
    fits = (w - factor * expected).abs() <= allowed * factor * expected + 1e-30
    quiet = (w <= 2.1 * factor * expected.clamp(min=1e-6)) | ~expected.isfinite()
    return factor if bool((fits | ~heard).all()) and bool((quiet | ~silent).all()) else None


def _gammas(
    claims: str, predicts: str, w: Float64[Tensor, " T"], snr: Snr, gamma: float | None
) -> Iterator[float]:
    """γ as stated; else the usual one, then that of the weights themselves."""
    if gamma is not None or claims not in _BY_PREDICTION:
        yield 1.0 if gamma is None else gamma
        return
    yield _GAMMA[claims]
    if claims == "min_snr":
        # min(SNR, γ), times a factor that is 1 or that of the noisiest level with a signal.
        clamped = w * {"eps": snr, "x_0": torch.ones_like(snr), "v": snr + 1}[predicts]
        last = int((snr > _SILENT).nonzero()[-1])
        for factor in (1.0, float(clamped[last] / snr[last])):
            size = clamped / factor
            flat = ((size / size[0] - 1).abs() < 5e-3) & (snr > 1.02 * size[0])
            if flat.any() and size[0] > 0:
                yield float(size[int(flat.nonzero()[-1])])  # where rounding loses least
            elif 0 < size[0] <= 100:
                yield float(size[0])  # no SNR is above γ: any that is not below them will do


# --- what else it may be


def _recognised(
    snr: Snr, w: Float64[Tensor, " T"], predicts: str, gamma: float | None
) -> Iterator[_Reading]:
    """The usual weightings, those of the stated prediction first."""
    for claims in ("uniform", *CLAIMS[:-1]):
        for other in sorted(PREDICTIONS, key=lambda p: p != predicts):
            if claims not in _BY_PREDICTION and other != predicts:
                continue
            for size in _gammas(claims, other, w, snr, gamma):
                says = (
                    f"{claims}, γ = {size:.4g}, of {other}" if claims in _BY_PREDICTION else claims
                )
                yield _Reading("", says, _right(claims, other, snr, size))


def _rivals(
    w: Float64[Tensor, " T"],
    snr: Snr,
    error: Float64[Tensor, " T"],
    predicts: str,
    claims: str,
    gamma: float | None,
) -> tuple[Diagnosis, ...]:
    """The wrong formula that explains all weights, if there is one."""
    silent = snr < _SILENT
    for reading in _readings(snr, predicts, claims, gamma or _GAMMA.get(claims, 1.0), w):
        factor = _factor(w, reading.weights, 2 * error, silent)
        if factor is None or (abs(factor - 1) > 0.01 and "times" not in reading.says):
            continue
        remedy = f"make it {_law(claims, predicts).removeprefix('w_t = ')}"
        explains = f"that fits at all {len(w)} levels"
        return (named("weighting", reading.kind, explains, reading.says, remedy),)
    return ()


def _readings(
    snr: Snr, predicts: str, claims: str, gamma: float, w: Float64[Tensor, " T"]
) -> Iterator[_Reading]:
    """Slips of the hand, the likeliest first."""
    if claims == "min_snr":
        below: dict[str, Tensor] = {"x_0": torch.ones_like(snr), "eps": snr, "v": snr + 1}
        wrong = snr.clamp(min=gamma)
        for other in sorted(PREDICTIONS, key=lambda p: p != predicts):
            says = "max(SNR, γ) stands where min(SNR, γ) is meant"
            yield _Reading("clamped the wrong way", says, wrong / below[other])
        yield _Reading("not clamped", "SNR is not clamped at γ", snr / below[predicts])
        says = "γ stands where min(SNR, γ) is meant"
        yield _Reading("always gamma", says, gamma / below[predicts])
    if claims in _BY_PREDICTION:
        for other in PREDICTIONS:
            if other != predicts:
                says = f"it is the weight for a model that predicts {other}"
                yield _Reading(f"weight of {other}", says, _right(claims, other, snr, gamma))
    abar = snr / (1 + snr)
    mistaken: dict[str, tuple[str, Tensor]] = {
        "inverse SNR": ("1/SNR stands where SNR is meant", 1 / snr),
        "root of SNR": ("√SNR = α/σ stands where SNR is meant", snr.sqrt()),
        "square of SNR": ("SNR is squared", snr**2),
        "abar for SNR": ("ᾱ stands where SNR is meant", abar),
        "noise for SNR": ("1 − ᾱ stands where SNR is meant", 1 - abar),
        "root of noise": ("√(1 − ᾱ) stands where 1 − ᾱ is meant in SNR", abar / (1 - abar).sqrt()),
        "root of abar": ("√ᾱ stands where ᾱ is meant in SNR", abar.sqrt() / (1 - abar)),
        "product for ratio": ("ᾱ·(1 − ᾱ) stands where ᾱ/(1 − ᾱ) is meant", abar * (1 - abar)),
        "sum for difference": ("1 + ᾱ stands where 1 − ᾱ is meant in SNR", abar / (1 + abar)),
        "log SNR": ("log SNR stands where SNR is meant", snr.log()),
        "one step early": ("SNR_{t+1} stands where SNR_t is meant", torch.cat([snr[1:], snr[-1:]])),
        "one step late": ("SNR_{t−1} stands where SNR_t is meant", torch.cat([snr[:1], snr[:-1]])),
    }
    for kind, (says, other_snr) in mistaken.items():
        yield _Reading(kind, says, _right(claims, predicts, other_snr, gamma))
    for size in _gammas(claims, predicts, w, snr, None):
        says = f"γ is {size:.6g}, not {gamma:g}"
        yield _Reading("another gamma", says, _right(claims, predicts, snr, size))
    right = _right(claims, predicts, snr, gamma)
    changed: dict[str, tuple[str, Tensor]] = {
        "inverse": ("it is 1/w", 1 / right),
        "root": ("it is √w", right.sqrt()),
        "square": ("it is w²", right**2),
        "constant": ("it is the same at all t, times a number", torch.ones_like(right)),
        "reversed": ("it runs from T down to 1", right.flip(0)),
        "times SNR": ("a factor SNR is too many", right * snr),
        "times SNR + 1": ("a factor SNR + 1 is too many", right * (snr + 1)),
    }
    for kind, (says, other_weights) in changed.items():
        yield _Reading(kind, says, other_weights)
    for other in CLAIMS:
        if other != claims:
            weights = _right(other, predicts, snr, _GAMMA.get(other, 1.0))
            yield _Reading(f"is {other}", f"it is {other}, not {claims}", weights)
