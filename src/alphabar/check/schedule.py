"""Checks of a schedule: its tables, the steps that are visited, the slope of its noise.

    0 < β_t < 1,    ᾱ_t = Π_{s≤t} (1 − β_s) falls from 1 to nothing,
    β̃_t = β_t·(1 − ᾱ_{t−1})/(1 − ᾱ_t),    KL(q(x_T | x_0) ‖ N(0, I)) = −½·log(1 − ᾱ_T)

Ho, Jain, Abbeel 2020, eq. (2), (4), (7). A table is held against these laws, and against the family
that it is said to be of, whose free numbers are taken from the table itself. The families are those
of `alphabar.schedule`. Tables in float32 are not wrong for their rounding: what each step of the
usual computation may lose is allowed for.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float64, Int64
from scipy import optimize  # type: ignore[import-untyped]
from torch import Tensor

from alphabar import schedule
from alphabar.check.catalogue import named
from alphabar.check.formula import Formula, Process, edits
from alphabar.check.report import Diagnosis, Finding, Verdict
from alphabar.check.stranger import CannotCheck, Stranger, tensors_of
from alphabar.diagnosis import REACHES_NOISE

F = Formula.of

_POSTERIOR = F(beta=1, noise=-1, before={"noise": 1})
_SNR = F(abar=1, noise=-1)
# What the tables of a process are called in the DDPM paper's code, and what they are.
_TABLES: Mapping[str, Formula] = {
    "betas": F(beta=1),
    "alphas": F(alpha=1),
    "alphas_cumprod": F(abar=1),
    "alphas_cumprod_prev": F(before={"abar": 1}),
    "sqrt_alphas_cumprod": F(abar=0.5),
    "sqrt_one_minus_alphas_cumprod": F(noise=0.5),
    "sqrt_recip_alphas_cumprod": F(abar=-0.5),
    "sqrt_recipm1_alphas_cumprod": F(noise=0.5, abar=-0.5),
    "snr": _SNR,
    "posterior_variance": _POSTERIOR,
    "posterior_mean_coef1": F(beta=1, noise=-1, before={"abar": 0.5}),
    "posterior_mean_coef2": F(alpha=0.5, noise=-1, before={"noise": 1}),
}
_LOGARITHMS: Mapping[str, Formula] = {
    "log_snr": _SNR,
    "log_one_minus_alphas_cumprod": F(noise=1),
    "posterior_log_variance_clipped": _POSTERIOR,
}
# ᾱ_t of a table that has it in another form: there β need not be stated.
_TO_ALPHA_BAR: Mapping[str, Callable[[Tensor], Tensor]] = {
    "alphas_cumprod": lambda v: v,
    "sqrt_alphas_cumprod": lambda v: v**2,
    "sqrt_one_minus_alphas_cumprod": lambda v: 1 - v**2,
    "sqrt_recip_alphas_cumprod": lambda v: v**-2,
    "sqrt_recipm1_alphas_cumprod": lambda v: 1 / (1 + v**2),
    "snr": lambda v: v / (1 + v),
    "log_snr": torch.sigmoid,
    "log_one_minus_alphas_cumprod": lambda v: -torch.expm1(v),
}
GIVES = (*_TABLES, *_LOGARITHMS, "sigmas", "timesteps", "sigma_prime")

_ALIASES = {
    "squaredcos_cap_v2": "cosine",
    "scaled_linear": "quad",
    "exponential": "log_linear",
    "geometric": "log_linear",
}
_LINES = ("constant", "linear", "quad", "sigmoid", "warmup10", "warmup50")
_OF_BETAS = (*_LINES, "cosine", "jsd", "log_snr", "flow")
_OF_SIGMAS = ("karras", "log_linear")
ZERO = "zero_terminal_snr"
CLAIMS = (*_OF_BETAS, *_OF_SIGMAS, ZERO, *_ALIASES)

_EPS = torch.finfo(torch.float32).eps  # coarser than any table that was computed with care
_HIGHEST_CLIP = 0.9  # a cosine table that is clipped below is not that table any more
_LOWEST_CLIP = 2e-4
_FIRST = 10  # a line in β that begins above this share of 1/T leaves clean data out
_STEPS = (1, 2, 10, 50, 300)  # asked of a function that makes timesteps
_TIMES = tuple(i / 20 for i in range(1, 20))  # where a slope is looked at


def check_schedule(
    values: object,
    claims: str | None = None,
    gives: str = "betas",
    betas: object = None,
    steps: int | None = None,
    sigma: Callable[..., object] | None = None,
) -> Finding:
    """A table, the steps that a sampler visits, or a slope, against the laws of a schedule.

    Args:
        values: (T,) numbers for t = 1..T, or (T+1,) with t = 0 first. Of `timesteps` also a
            function n → timesteps; of `sigma_prime` a function t → σ′(t), t in (0, 1).
        claims: the family it is to be of, one of `CLAIMS`.
        gives: what the values are, one of `GIVES`.
        betas: β_1 … β_T that it belongs to.
        steps: how many timesteps there are to be.
        sigma: σ(t), whose slope is checked.

    Raises:
        ValueError: a name that is not in `CLAIMS` or `GIVES`, or betas that are not numbers.
    """
    begin = time.perf_counter()
    _one_of("gives", gives, GIVES)
    if claims is not None:
        _one_of("claims", claims, CLAIMS)
    family = _ALIASES.get(claims or "", claims)
    try:
        beta = None if betas is None else _numbers(betas)[0]
    except CannotCheck:
        raise ValueError(
            f"betas is a {type(betas).__name__}: give the numbers β_1 … β_T, such as betas=my_betas"
        ) from None
    try:
        if gives == "sigma_prime":
            found = _slope(values, sigma)
        elif gives == "timesteps":
            found = _timesteps(values, beta, steps)
        elif gives == "sigmas":
            found = _sigmas(values, family)
        else:
            found = _table(gives, values, family, beta)
    except CannotCheck as error:
        found = Finding(gives, "schedule", "unchecked", "", "", "", why=str(error))
    return replace(found, name=gives, seconds=time.perf_counter() - begin)


def _one_of(name: str, value: str, choices: Sequence[str]) -> None:
    if value in choices:
        return
    near = get_close_matches(str(value), choices, 3, 0.5)
    raise ValueError(f"{name} = {value!r}: it must be one of {', '.join(near or choices)}")


def _numbers(values: object) -> tuple[Float64[Tensor, " n"], float]:
    """A table in float64, and the rounding that is allowed for.

    Raises:
        CannotCheck: it is not one list of numbers.
    """
    if callable(values) and not isinstance(values, Tensor):
        try:
            values = Stranger(values)()
        except Exception as error:
            raise CannotCheck(
                f"it is a function, and called without arguments it says {type(error).__name__}: "
                f"{error}; give the table that it returns"
            ) from None
    table = None
    if isinstance(values, Sequence) and all(isinstance(v, int | float | np.number) for v in values):
        table = torch.tensor([float(v) for v in values], dtype=torch.float64)  # not by way of f32
    else:
        found = [t for t in tensors_of(values) if t.squeeze().ndim <= 1]
        table = found[0] if found else None
    if table is None or not table.numel():
        raise CannotCheck(f"it is a {type(values).__name__}, not one list of numbers: give (T,)")
    if table.is_complex():
        table = torch.where(table.imag == 0, table.real, math.nan)  # it is no number
    coarse = torch.finfo(table.dtype).eps if table.is_floating_point() else 0.0
    return table.detach().double().cpu().flatten(), max(_EPS, coarse)


# --- a table of the process


def _table(
    gives: str, values: object, claims: str | None, beta: Float64[Tensor, " T"] | None
) -> Finding:
    table, eps = _numbers(values)
    if gives == "betas":
        return _betas(table, claims, eps, torch.zeros_like(table))
    if gives == "alphas":
        return _betas(1 - table, claims, eps, torch.full_like(table, 4 * eps), "α_t = 1 − β_t")
    if beta is not None:
        stated = _betas(beta, None, _EPS, torch.zeros_like(beta))
        outside = not ((beta > 0) & (beta <= 1)).all()
        if outside:
            return replace(stated, measured=f"of the betas that are stated: {stated.measured}")
        found = _against(gives, table, Process(beta), eps)
        if found.verdict == "bug" or claims is None:
            return found
        of_betas = _betas(beta, claims, _EPS, torch.zeros_like(beta))
        if of_betas.verdict == "bug":
            return replace(of_betas, measured=f"of the betas that are stated: {of_betas.measured}")
        worst: Verdict = "right" if found.verdict == of_betas.verdict == "right" else "equivalent"
        verdict: Verdict = "fragile" if "fragile" in (found.verdict, of_betas.verdict) else worst
        convention = "; ".join(filter(None, (found.convention, of_betas.convention)))
        return replace(found, verdict=verdict, convention=convention, why=found.why or of_betas.why)
    if gives not in _TO_ALPHA_BAR:
        raise CannotCheck(f"what {gives} should be follows from β: give betas=my_betas")
    return _alpha_bars(gives, table, claims, eps)


def _alpha_bars(
    gives: str, table: Float64[Tensor, " n"], claims: str | None, eps: float
) -> Finding:
    """A table from which ᾱ follows: its β_t = 1 − ᾱ_t/ᾱ_{t−1} is checked."""
    abar = _TO_ALPHA_BAR[gives](table)
    with_clean = len(abar) > 1 and bool(abar[0] == 1)
    whole = abar if with_clean else torch.cat([abar.new_ones(1), abar])
    law = "ᾱ falls at every step, and 0 ≤ ᾱ_t < 1"
    if not whole.isfinite().all():
        i = int(whole.isfinite().logical_not().nonzero()[0])
        return _bug(law, f"t = {i}: {_g(whole[i])}", "a number", "not finite")
    rises = whole[1:] >= whole[:-1]
    if rises.any() or whole.min() < 0:
        t = int((rises | (whole[1:] < 0)).nonzero()[0]) + 1
        before = f"ᾱ_{t - 1} = {_g(whole[t - 1])}"
        if whole[t] == whole[t - 1] and 0.5 < whole[t]:
            why = f"{before} and ᾱ_{t} are the same number: the table's precision cannot tell them"
            return Finding("", "schedule", "fragile", law, before, "less at each step", why=why)
        kind = "not falling" if 0 <= whole[t] else "outside 0 and 1"
        return _bug(law, f"{before}, ᾱ_{t} = {_g(whole[t])}", "less at each step, from 0", kind)
    beta = 1 - whole[1:] / whole[:-1]
    # The relative error of ᾱ that a rounding of the table makes.
    at = table if with_clean else torch.cat([table[:1], table])
    moved = (_TO_ALPHA_BAR[gives](at * (1 + eps)) - _TO_ALPHA_BAR[gives](at)).abs() / whole
    loss = moved.nan_to_num(1.0, 1.0) + eps
    slack = 8 * (loss[1:] + loss[:-1]) * (1 - beta) + 4 * eps
    found = _betas(beta, claims, eps, slack, gives)
    if with_clean and claims is None and found.verdict == "right":
        return replace(found, verdict="equivalent", convention="begins with t = 0, clean data")
    return found


def _against(gives: str, table: Float64[Tensor, " n"], process: Process, eps: float) -> Finding:
    """A table against what β says that it is."""
    logarithm = gives in _LOGARITHMS
    formula = _LOGARITHMS[gives] if logarithm else _TABLES[gives]
    law = f"{'log ' * logarithm}{formula}, ᾱ_t = Π_(s≤t) (1 − β_s), t = 1..T"
    T, n = process.T, len(table)
    if n not in (T, T + 1):
        return _bug(law, f"{n} numbers", f"T = {T}, one for each β", "length")
    t = torch.arange(T + 1 - n, T + 1)
    values = table.exp() if logarithm else table
    error = _rounding(formula, process, t, eps)
    worse = _misfit(values, formula.at(process, t), error)
    convention = "begins with t = 0, clean data" if n > T else ""
    first = int((t == 1).nonzero()[0])
    clips = formula == _POSTERIOR and bool(worse[first])
    if clips and _is_clipped(values[first:], formula.at(process, t[first:]), error[first:]):
        worse[first] = False
        convention = "the variance of the last step, 0, is clipped"
    if formula == _POSTERIOR and worse.any() and not logarithm:
        as_log = _misfit(values.exp(), formula.at(process, t), error)
        as_log[first] = False
        if not as_log.any():
            worse, convention = as_log, "the logarithm of the variance"
    if not worse.any():
        verdict: Verdict = "equivalent" if convention else "right"
        i = int(len(t) // 2)
        numbers = f"t = {int(t[i])}: {_g(values[i])}"
        return Finding(
            "", "schedule", verdict, law, numbers, _at(formula, process, t[i]), (), convention
        )
    i = int(worse.nonzero()[0])
    measured = f"t = {int(t[i])}: {_g(values[i])}"
    expected = _at(formula, process, t[i])
    diagnoses = _rivals(formula, values, process, t, error, bool(worse[first]))
    return Finding("", "schedule", "bug", law, measured, expected, tuple(diagnoses))


def _rounding(
    formula: Formula, process: Process, t: Int64[Tensor, " n"], eps: float
) -> Float64[Tensor, " n"]:
    """The relative error of a formula that is computed step by step with this rounding.

    A product of t factors 1 − β loses eps/(1 − β) with each, and 1 − ᾱ what ᾱ has lost besides
    eps/(1 − ᾱ).
    """
    beta = torch.cat([process.beta.new_zeros(1), process.beta])
    abar = torch.cat([beta.new_ones(1), process.alpha_bar(torch.arange(1, process.T + 1))])
    steps = torch.arange(process.T + 1, dtype=torch.float64)
    # The last β may be 1: then ᾱ_T = 0 is exact.
    of_abar = steps + torch.where(beta < 1, 1 / (1 - beta), 0.0).cumsum(0)
    lost = {
        "abar": of_abar,
        "noise": (of_abar * abar + 1) / (1 - abar).clamp(min=1e-30),
        "alpha": torch.where(beta < 1, 1 / (1 - beta), 0.0),
        "beta": 1 + 1 / beta.clamp(min=1e-30),
        "sum": steps,
    }
    total = torch.zeros(len(t), dtype=torch.float64)
    for base, power in formula.powers:
        total = total + abs(power) * lost[base.name][(t + base.shift).clamp(0, process.T)]
    return 4 * eps * (1 + total)


def _misfit(
    values: Float64[Tensor, " n"], expected: Float64[Tensor, " n"], error: Float64[Tensor, " n"]
) -> Tensor:
    """Where a table is not what is expected; where nothing finite is, anything will do."""
    inside = (values - expected).abs() <= error.clamp(max=0.5) * expected.abs() + _EPS
    # Small numbers must be right too, as long as float32 has them.
    ratio = (values - expected).abs() <= error.clamp(max=0.5) * expected.abs() + 1e-7 * _EPS
    fine = inside & (ratio | (expected.abs() < 1e-6))
    # Where ᾱ is next to nothing, 1/ᾱ is whatever float32 makes of it.
    endless = (expected.abs() > 1e15) & ~(values.abs() < 1e15)
    return ~(fine | endless | ~expected.isfinite())


def _is_clipped(
    values: Float64[Tensor, " n"], expected: Float64[Tensor, " n"], error: Float64[Tensor, " n"]
) -> bool:
    """Whether the first variance, 0, is the second's, or next to nothing."""
    if len(values) < 2 or not values[0].isfinite() or values[0] < 0:
        return False
    return bool(
        values[0] <= 1e-6 * expected[1] or abs(values[0] - expected[1]) <= error[1] * expected[1]
    )


def _rivals(
    formula: Formula,
    values: Float64[Tensor, " n"],
    process: Process,
    t: Int64[Tensor, " n"],
    error: Float64[Tensor, " n"],
    at_first: bool,
) -> list[Diagnosis]:
    """Wrong formulas that explain a table, the best first."""

    def explains(expected: Float64[Tensor, " n"]) -> bool:
        known = expected.isfinite()
        if known.sum() < max(1, len(t) // 2):
            return False
        return not _misfit(values, expected, error * 2)[known].any()

    words = f"it fits at all {len(t)} steps"
    late = formula.shifted(-1).at(process, t)
    if explains(late) or (
        at_first and values.isfinite().logical_not().nonzero()[:, 0].tolist() == [0]
    ):
        says = f"{formula.shifted(-1)} {words}, ᾱ_0 = 1 included"
        return [named("schedule", "keeps clean", says)]
    padded = Formula.made(
        formula.factor,
        {b._replace(shift=1) if b.shift == -1 else b: p for b, p in formula.powers},
    )
    if padded != formula and explains(padded.at(process, t)):
        return [named("schedule", "padded right", f"{padded} {words}")]
    if not values.isfinite().all():
        return [named("schedule", "not finite", f"at {_where(~values.isfinite(), t)}")]
    if explains(formula.at(process, t.flip(0))):
        return [_reading("reversed", "it runs from T down to 1", f"{formula} reversed {words}")]
    totals = {
        "product of beta": ("Π β_s stands where Π (1 − β_s) is meant", process.beta.cumprod(0)),
        "sum of beta": ("1 − Σ β_s stands where Π (1 − β_s) is meant", 1 - process.beta.cumsum(0)),
        "exp of sum": ("exp(−Σ β_s) stands for Π (1 − β_s)", (-process.beta.cumsum(0)).exp()),
        "sum of alpha": ("Σ (1 − β_s) stands for the product", (1 - process.beta).cumsum(0)),
    }
    if formula == _TABLES["alphas_cumprod"] and len(t) == process.T:
        for kind, (says, other) in totals.items():
            if explains(other):
                return [_reading(kind, says, words, "alpha_bar = cumprod(1 - betas)")]
    for edit in sorted(edits(formula), key=lambda e: e.cost):
        if explains(edit.formula.at(process, t)):
            remedy = f"make it {formula}"
            return [_reading(edit.kind, edit.says, f"{edit.formula} {words}", remedy)]
    return []


# --- β


class _Fit(NamedTuple):
    """A family with its free numbers taken from the table."""

    says: str
    beta: Float64[Tensor, " T"]
    error: Float64[Tensor, " T"] | float
    why: str = ""  # how it breaks easily
    equivalent: bool = False


def _betas(
    beta: Float64[Tensor, " n"],
    claims: str | None,
    eps: float,
    slack: Float64[Tensor, " n"],
    read: str = "",
) -> Finding:
    """β_t for t = 1..T, with what each may be off by its rounding."""
    law = "0 < β_t < 1, ᾱ_t = Π_(s≤t) (1 − β_s) falls to nothing"
    if claims is not None:
        law += f"; {claims}"
    convention = f"read from {read}" if read else ""
    if _begins_clean(beta):
        beta, slack = beta[1:], slack[1:]
        convention = "begins with t = 0, β_0 = 0"
    if not beta.isfinite().all():
        return _bug(law, f"{_where(~beta.isfinite())} is not finite", "a number", "not finite")
    outside = (beta <= -slack) | (beta > 1 + slack) | (beta == 0)
    outside[:-1] |= beta[:-1] >= 1
    reread = [] if claims is None else _rereadings(beta, claims, slack + 16 * eps)
    if outside.any():
        t = int(outside.nonzero()[0])
        what = f"β_{t + 1} = {_g(beta[t])}"
        found = _bug(law, what, "above 0 and below 1; only the last may be 1", "outside 0 and 1")
        return replace(found, diagnoses=tuple(reread)) if reread else found
    beta = beta.clamp(min=1e-30, max=1.0)
    T, log_abar = len(beta), torch.log1p(-beta).cumsum(0)
    abar = log_abar.exp()
    kl = _kl_to_prior(float(abar[-1]))
    end = f"ᾱ_T = {_g(abar[-1])}, {kl:.3g} nats a dimension from noise; T = {T}"
    diagnoses: list[Diagnosis] = []
    expected, measured, fit, is_off = "", end, None, False
    if claims == ZERO:
        stretch = _zero_terminal(beta, abar, slack, eps)
        diagnoses += stretch.diagnoses
        expected, measured = "ᾱ_T = 0", "; ".join(filter(None, (stretch.says, end)))
        is_off = stretch.verdict == "bug"
        if stretch.verdict == "unchecked":
            raise CannotCheck(
                f"{end}, as it must be; but it is none of the usual tables, stretched, and the "
                "rest cannot be told: check the table before it was stretched"
            )
    elif claims is not None:
        fit, expected, differs = _held_to(claims, beta, slack, eps)
        if fit is None:
            measured = f"{differs}; {end}"
            diagnoses += reread or _wrong_family(claims, beta, slack, eps)
    else:
        fit = next(iter(_recognised(beta, slack, eps)), None)
    is_off |= claims not in (None, ZERO) and fit is None
    far = claims in _LINES and claims != "constant" and T >= 50 and beta[0] > _FIRST / T
    # Read as what it is, the table has no ends of its own to speak of.
    if not reread and (far or (T >= 10 and beta[0] > max(0.05, 10 * float(beta[1])))):
        words = f"β_1 = {_g(beta[0])}, β_2 = {_g(beta[1])}, ᾱ_1 = {_g(abar[0])}"
        name = "the first step takes away much of the data at once"
        diagnoses.append(_reading("first step", name, words, "let β_1 be the least"))
    if kl > REACHES_NOISE and claims != ZERO and not reread:
        diagnoses.append(_ends_early(beta, abar, kl))
        expected = expected or f"KL below {REACHES_NOISE:g} nats a dimension: ᾱ_T below 0.02"
    verdict: Verdict = "bug" if diagnoses or is_off else "right"
    why = ""
    if verdict == "right":
        if convention.startswith("begins") or (fit is not None and fit.equivalent):
            verdict = "equivalent"
        if fit is not None and fit.why:
            verdict, why = "fragile", fit.why
        if eps > _EPS:
            verdict = "fragile"
            why = "its precision is low: 1 − β and ᾱ lose digits; keep tables in float32 at least"
    said = fit.says if fit is not None else ""
    return Finding(
        "",
        "schedule",
        verdict,
        law,
        measured,
        expected or f"KL below {REACHES_NOISE:g}",
        tuple(diagnoses),
        "; ".join(filter(None, (said, convention))),
        why,
    )


def _begins_clean(beta: Float64[Tensor, " n"]) -> bool:
    """Whether a 0 comes first that belongs to t = 0, and is not the first of a line from 0."""
    if len(beta) < 3 or beta[0] != 0 or not (beta[1:3] > 0).all():
        return len(beta) == 2 and bool(beta[0] == 0) and bool(beta[1] > 0.9)
    first, second = beta[1:3].tolist()
    to_zero = 2 * first - second, 2 * math.sqrt(first) - math.sqrt(second)
    return abs(to_zero[0]) > 1e-3 * first and abs(to_zero[1]) > 1e-3 * math.sqrt(first)


def _kl_to_prior(abar: float) -> float:
    """−½·log(1 − ᾱ_T), nats a dimension for data of variance 1."""
    return -0.5 * math.log1p(-abar) if abar < 1 else math.inf


def _ends_early(beta: Float64[Tensor, " T"], abar: Float64[Tensor, " T"], kl: float) -> Diagnosis:
    T = len(beta)
    words = (
        f"β runs from {_g(beta[0])} to {_g(beta[-1])} in T = {T} steps, which leave ᾱ_T = "
        f"{_g(abar[-1])}, {kl:.2g} nats a dimension from noise"
    )
    if T < 1000:
        log_rest = (1000 / T) * math.log(float(abar[-1]))
        words += f"; over 1000 steps the same range would leave {math.exp(log_rest):.2g}"
    return named("schedule", "ends before noise", words)


def _held_to(
    claims: str, beta: Float64[Tensor, " T"], slack: Float64[Tensor, " T"], eps: float
) -> tuple[_Fit | None, str, str]:
    """The family's fit; else None. What the family says, and where the table first differs."""
    nearest: tuple[int, str, str] | None = None
    for fit in _fits(claims, beta, slack):
        off = (beta - fit.beta).abs() > fit.error + slack + 16 * eps * beta.max()
        if not off.any():
            return fit, fit.says, ""
        t = int((beta - fit.beta).abs().argmax()) if off.all() else int(off.nonzero()[0])
        expected = f"{fit.says}: β_{t + 1} = {_g(fit.beta[t])}"
        this = (int(off.sum()), expected, f"β_{t + 1} = {_g(beta[t])}")
        nearest = min(nearest or this, this)
    if nearest is None:
        return None, claims, f"β from {_g(beta[0])} to {_g(beta[-1])}, which no {claims} table has"
    return None, nearest[1], nearest[2]


def _recognised(
    beta: Float64[Tensor, " T"], slack: Float64[Tensor, " T"], eps: float
) -> Iterator[_Fit]:
    """The families that a table is of."""
    if len(beta) < 3:
        return
    for family in (*_OF_BETAS, *_OF_SIGMAS):
        fit, _, _ = _held_to(family, beta, slack, eps)
        if fit is not None:
            yield fit._replace(why="", equivalent=False)


def _fits(family: str, beta: Float64[Tensor, " T"], slack: Float64[Tensor, " T"]) -> Iterator[_Fit]:
    """A family's tables of the same T whose free numbers are those of a table."""
    T = len(beta)
    first, last = beta[0].item(), beta[-1].item()
    abar = torch.log1p(-beta).cumsum(0).exp()
    ends = f"β from {first:.6g} to {last:.6g}"
    with_ends: Mapping[str, Callable[[int, float, float], schedule.Schedule]] = {
        "linear": schedule.linear,
        "quad": schedule.quad,
        "sigmoid": schedule.sigmoid,
        "warmup10": schedule.warmup10,
        "warmup50": schedule.warmup50,
    }
    try:
        if family == "constant":
            yield _Fit(f"constant, β = {first:.6g}", torch.full_like(beta, first), 0.0)
        elif family in with_ends and (first < last or T == 1):
            low, high = (first, last) if family != "sigmoid" or T == 1 else _feet(first, last)
            yield _Fit(f"{family}, {ends}", _beta_of(with_ends[family](T, low, high)), 0.0)
        elif family == "jsd":
            yield _Fit("jsd, ᾱ_t = 1 − t/T", _beta_of(schedule.jsd(T)), 0.0)
        elif family == "cosine":
            yield from _cosines(beta)
        elif family == "flow" and last == 1 and T == 1:
            yield _Fit("flow", torch.ones_like(beta), 0.0)
        elif family == "flow" and last == 1:
            # √(1/SNR) = shift·u/(1 − u) at u = t/T
            i = T // 2 - 1
            ratio = ((1 - abar[i]) / abar[i]).sqrt().item()
            shift = ratio * (1 - (i + 1) / T) / ((i + 1) / T)
            yield _Fit(f"flow, shift = {shift:.4g}", _beta_of(schedule.flow(T, shift)), 1e-5)
        elif family in ("log_snr", *_OF_SIGMAS) and T < 3:
            yield _Fit(f"{family}, {ends}", beta, 0.0)  # it has as many free numbers
        elif family in ("log_snr", *_OF_SIGMAS) and 0 < abar[-1]:
            yield from _by_noise(family, abar, 1e-6 + 8 * slack[0].item() / first)
    except ValueError:
        return  # no such table: its free numbers are out of range


def _beta_of(table: schedule.Schedule) -> Float64[Tensor, " T"]:
    return table.beta[1:]


def _feet(first: float, last: float) -> tuple[float, float]:
    """The levels between which a sigmoid from −6 to 6 runs, from its first value and its last."""
    foot = 1 / (1 + math.exp(6))
    span = (last - first) / (1 - 2 * foot)
    return first - span * foot, first - span * foot + span


def _by_noise(family: str, abar: Float64[Tensor, " T"], error: float) -> Iterator[_Fit]:
    """Families that are lines in a function of the noise level.

    The least noise is taken from β_1, and all β are off by as large a share as that is.
    """
    T = len(abar)
    log_snr = torch.logit(abar)
    if family == "log_snr":
        high, low = log_snr[0].item(), log_snr[-1].item()
        says = f"log_snr, λ from {high:.4g} to {low:.4g}"
        yield _Fit(says, _beta_of(schedule.log_snr(T, high, low)), error)
        return
    sigma = (-log_snr / 2).exp()
    made = _of_sigmas(family, sigma)
    if made is not None:
        says, table = made
        expected = _beta_of(schedule.from_sigmas(table))
        yield _Fit(says, expected, error * expected)


def _of_sigmas(
    family: str, sigma: Float64[Tensor, " T"]
) -> tuple[str, Float64[Tensor, " T"]] | None:
    """Rising σ of a family, with the ends and the ρ of a table."""
    T, low, high = len(sigma), sigma[0].item(), sigma[-1].item()
    if family == "log_linear":
        table = schedule.log_linear(T, low, high).sigma[1:]
        return f"log_linear, σ from {low:.4g} to {high:.4g}", table
    rho = _rho(sigma)
    if rho is None:
        return None
    table = schedule.karras(T, low, high, rho).sigma[1:]
    return f"karras, σ from {low:.4g} to {high:.4g}, ρ = {rho:.4g}", table


def _rho(sigma: Float64[Tensor, " T"]) -> float | None:
    """ρ for which σ^(1/ρ) is on a line, as the middle says: a mean of the ends of power 1/ρ."""
    i = len(sigma) // 2
    if len(sigma) < 3:
        return 7.0
    share = i / (len(sigma) - 1)
    low, high, middle = sigma[0].item(), sigma[-1].item(), sigma[i].item()

    def off(power: float) -> float:
        mean = (1 - share) * low**power + share * high**power
        return math.log(mean) / power - math.log(middle)

    if not off(0.011) < 0 < off(9.0):
        return None
    return 1 / float(optimize.brentq(off, 0.011, 9.0, xtol=1e-12))


def _cosines(beta: Float64[Tensor, " T"]) -> Iterator[_Fit]:
    """ᾱ on a squared cosine: the paper's offset, then another, clipped as the table is."""
    T = len(beta)
    least, most = beta.min().item(), beta.max().item()
    for s in _offsets(beta):
        full = _beta_of(schedule.cosine(T, s, 1.0))
        if most < min(_HIGHEST_CLIP, full.max().item()):
            most = full.max().item()  # it is not clipped, it is another table
        if least > _LOWEST_CLIP:
            least = full.min().item()
        angle = (torch.arange(T + 1, dtype=torch.float64) / T + s) / (1 + s) * math.pi / 2
        near = angle.cos().clamp(min=1e-12)
        moves = near[1:] / near[:-1] ** 2 + near[1:] ** 2 / near[:-1] ** 3
        says = f"cosine, s = {s:.4g}"
        low_clip = least > full.min().item() + 1e-6
        why = ""
        if most >= 1 - _EPS:
            why = (
                f"β is not clipped: at its end β_T = {most:.10g} leaves ᾱ_T = 0, and 1/√ᾱ_T has no "
                "bound; clip β at 0.999"
            )
        else:
            says += f", β ≤ {most:.6g}"
        if low_clip:
            says += f", β ≥ {least:.3g}"
        error = 8 * _EPS * moves.clamp(max=1e4) + 4 * _EPS
        # Near a clip of 0.999 a rounding decides on which side of it β is.
        yield _Fit(says, full.clamp(least, most), error, why, low_clip or s != 0.008)


def _offsets(beta: Float64[Tensor, " T"]) -> Iterator[float]:
    yield 0.008
    T = len(beta)
    if T < 2:
        return
    i = T // 4

    def off(s: float) -> float:
        angle = torch.tensor([(i / T + s) / (1 + s), ((i + 1) / T + s) / (1 + s)]).double()
        before, after = (angle * math.pi / 2).cos().tolist()
        return 1 - (after / before) ** 2 - beta[i].item()

    yield 0.0
    if off(0.0) < 0 < off(0.1):
        yield float(optimize.brentq(off, 0.0, 0.1))


def _rereadings(
    beta: Float64[Tensor, " T"], claims: str, slack: Float64[Tensor, " T"]
) -> list[Diagnosis]:
    """What the table would be of the family as, if it is not β."""
    if claims == ZERO or len(beta) < 3:
        return []
    if not beta.isfinite().all():
        return []
    one = beta.new_ones(1)
    if _held_to(claims, beta.clamp(1e-30, 1.0), slack, _EPS)[0] is not None:
        return []
    readings = {
        "alpha for beta": ("1 − β stands where β is meant", 1 - beta),
        "root of beta": ("√β stands where β is meant", beta**2),
        "square of beta": ("β² stands where β is meant", beta.clamp(min=0).sqrt()),
        "reversed": ("β runs from T down to 1", beta.flip(0)),
        "abar for beta": ("ᾱ stands where β is meant", 1 - beta / torch.cat([one, beta[:-1]])),
        "noise for beta": (
            "1 − ᾱ stands where β is meant",
            1 - (1 - beta) / torch.cat([one, 1 - beta[:-1]]),
        ),
        "sign of beta": ("the sign of β is flipped", -beta),
    }
    for kind, (says, other) in readings.items():
        inside = ((other > 0) & (other <= 1)).all() and (other[:-1] < 1).all()
        if not inside:
            continue
        fit, _, _ = _held_to(claims, other, 4 * slack, _EPS)
        if fit is not None:
            return [_reading(kind, says, f"so read, it is {fit.says}", "return β")]
    return []


def _wrong_family(
    claims: str, beta: Float64[Tensor, " T"], slack: Float64[Tensor, " T"], eps: float
) -> list[Diagnosis]:
    """What a table is that is not of the family which it claims."""
    if claims == "cosine":
        u = torch.arange(len(beta) + 1, dtype=torch.float64) / len(beta)
        s, quarter = 0.008, math.pi / 2
        curves = {
            "not squared": ("the cosine is not squared", ((u + s) / (1 + s) * quarter).cos()),
            "squared twice": (
                "the cosine is squared twice",
                ((u + s) / (1 + s) * quarter).cos() ** 4,
            ),
            "no half": ("π stands for π/2", ((u + s) / (1 + s) * 2 * quarter).cos() ** 2),
            "not divided": ("t/T + s is not divided by 1 + s", ((u + s) * quarter).cos() ** 2),
            "sine": ("sine for cosine", ((u + s) / (1 + s) * quarter).sin() ** 2),
        }
        for kind, (says, curve) in curves.items():
            step = 1 - curve[1:] / curve[:-1]
            expected = step.clamp(beta.min().item(), beta.max().item())
            if ((beta - expected).abs() <= slack + 1e-4 * beta.max()).all():
                remedy = "ᾱ_t = cos²((t/T + s)/(1 + s)·π/2)"
                return [_reading(kind, says, f"it fits at all {len(beta)} steps", remedy)]
        once = u[1:]
        direct = 1 - ((once + s) / (1 + s) * quarter).cos() ** 2
        if ((beta - direct.clamp(max=beta.max().item())).abs() <= slack + 1e-4).all():
            words = f"1 − f(t) fits at all {len(beta)} steps"
            return [_reading("total for step", "1 − ᾱ_t stands for β_t", words, "1 − ᾱ_t/ᾱ_{t−1}")]
    for fit in _recognised(beta, slack, eps):
        kind = f"another family, {fit.says.split(',')[0]}"
        return [_reading(kind, f"it is not {claims}", f"it is {fit.says}", f"make it {claims}")]
    return []


class _Stretch(NamedTuple):
    """What a table is that ends at ᾱ_T = 0."""

    verdict: Verdict
    says: str = ""
    diagnoses: tuple[Diagnosis, ...] = ()


def _zero_terminal(
    beta: Float64[Tensor, " T"],
    abar: Float64[Tensor, " T"],
    slack: Float64[Tensor, " T"],
    eps: float,
) -> _Stretch:
    """ᾱ_T = 0, and the rest a usual table, stretched (Lin et al. 2023, algorithm 1) or as it is."""
    if beta[-1] < 1 - 8 * eps:
        words = f"ᾱ_T = {_g(abar[-1])}, √ᾱ_T = {_g(abar[-1].sqrt())}; it must be 0"
        return _Stretch("bug", "", (named("schedule", "signal left at the end", words),))
    for family in ("jsd", "flow", "cosine"):
        fit, _, _ = _held_to(family, beta, slack, eps)
        if fit is not None:
            return _Stretch("right", fit.says)
    base = _stretched(abar, torch.sqrt, torch.sqrt)
    if base or len(beta) < 10:
        return _Stretch("right", f"{base}, stretched" if base else "")
    wrong: dict[str, tuple[str, Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
        "not squared": ("√ᾱ is stretched, and not squared after", torch.sqrt, lambda a: a),
        "no root": ("ᾱ is stretched where √ᾱ is meant", lambda a: a, lambda a: a),
        "squared twice": ("√ᾱ is stretched, and squared twice", torch.sqrt, lambda a: a**0.25),
    }
    for kind, (says, of_base, of_table) in wrong.items():
        base = _stretched(abar, of_base, of_table)
        if base:
            words = f"so made of {base}, it fits at all {len(beta)} steps"
            remedy = "√ᾱ′ = (√ᾱ − √ᾱ_T)·√ᾱ_1/(√ᾱ_1 − √ᾱ_T), then square it"
            return _Stretch("bug", "", (_reading(kind, says, words, remedy),))
    falls = beta[1:] < beta[:-1] - slack[1:] - 16 * eps
    if falls.any():
        t = int(falls.nonzero()[0]) + 1
        return _Stretch("bug", f"no usual table, stretched: β falls from t = {t} to {t + 1}")
    return _Stretch("unchecked")


def _stretched(
    abar: Float64[Tensor, " T"],
    of_base: Callable[[Tensor], Tensor],
    of_table: Callable[[Tensor], Tensor],
) -> str:
    """The usual table ᾱ of which h(ᾱ′) is g(ᾱ), moved to end at 0; "" where there is none."""
    T, i, h = len(abar), len(abar) // 2, of_table(abar)
    # Level 1 stays as it is: g(1 − β_1) = h(ᾱ′_1), with g the identity or a root.
    is_root = bool(of_base(h.new_tensor(4.0)) == 2)
    kept = h[0].item() ** (2 if is_root else 1)
    start, most = 1 - kept, math.log(0.999)
    if not 0 < start < 0.999:
        return ""
    snr, least = math.log(kept / start), math.log(start)
    # Each with its one free number, a logarithm, and the range of it.
    bases: dict[str, tuple[Callable[[float], schedule.Schedule], float, float]] = {
        "linear": (lambda e: schedule.linear(T, start, math.exp(e)), least, most),
        "quad": (lambda e: schedule.quad(T, start, math.exp(e)), least, most),
        "sigmoid": (lambda e: schedule.sigmoid(T, *_feet(start, math.exp(e))), least, most),
        "warmup10": (lambda e: schedule.warmup10(T, start, math.exp(e)), least, most),
        "warmup50": (lambda e: schedule.warmup50(T, start, math.exp(e)), least, most),
        "log_snr": (lambda e: schedule.log_snr(T, snr, snr - math.exp(e)), 0.0, 4.0),
        "log_linear": (
            lambda e: schedule.log_linear(T, math.exp(-snr / 2), math.exp(e)),
            max(0.0, 0.01 - snr / 2),
            9.0,
        ),
        "karras": (
            lambda e: schedule.karras(T, math.exp(-snr / 2), math.exp(e)),
            max(0.0, 0.01 - snr / 2),
            9.0,
        ),
    }

    def made(table: schedule.Schedule) -> Float64[Tensor, " T"]:
        g = of_base(table.alpha_bar[1:])
        return (g - g[-1]) * g[0] / (g[0] - g[-1])

    def fits(base: Callable[[float], schedule.Schedule], low: float, high: float) -> bool:
        def off(e: float) -> float:
            try:
                return float(made(base(e))[i] - h[i])
            except ValueError:  # no such table
                return math.nan

        # The middle may rise and fall again as the end moves: each crossing is tried.
        grid = torch.linspace(low + 1e-4, high, 24, dtype=torch.float64).tolist()
        for before, after in pairwise((e, off(e)) for e in grid):
            if before[1] * after[1] <= 0:
                end = float(optimize.brentq(off, before[0], after[0], xtol=1e-14))
                if ((made(base(end)) - h).abs() <= 1e-4).all():
                    return True
        return False

    for name, (base, low, high) in bases.items():
        too_far = name in _LINES and start > _FIRST / T
        if not too_far and fits(base, low, high):
            return name
    for name, table in (("constant", schedule.constant(T, start)), ("cosine", schedule.cosine(T))):
        if ((made(table) - h).abs() <= 1e-4).all():
            return name
    return ""


# --- σ


def _sigmas(values: object, claims: str | None) -> Finding:
    """Noise over signal, from the noisiest down to 0; or rising, as a table to train with."""
    law = "σ falls at every step, and ends with one 0"
    sigma, eps = _numbers(values)
    n = len(sigma)
    if not sigma.isfinite().all():
        return _bug(
            law, f"{_where(~sigma.isfinite(), base=0)} is not finite", "a number", "not finite"
        )
    if (sigma < 0).any():
        i = int((sigma < 0).nonzero()[0])
        return _bug(law, f"σ[{i}] = {_g(sigma[i])}", "0 or more", "negative sigma")
    if n < 2:
        raise CannotCheck(f"it has {n} level: give the noise levels of two steps or more")
    rising = bool(sigma[0] < sigma[-1])
    order = "in rising order, as for training" if rising else ""
    down = sigma.flip(0) if rising else sigma
    end = f"σ ends with {', '.join(_g(v) for v in down[-3:])}"
    flat = down[1:] >= down[:-1]
    if flat[-2:].any() and not flat[:-2].any() and (down[1:] == down[:-1])[flat].all():
        return _bug(law, end, "each once, and one 0", "last σ repeated")
    if flat.any():
        i = int(flat.nonzero()[0])
        measured = f"σ[{i}] = {_g(down[i])}, σ[{i + 1}] = {_g(down[i + 1])}"
        return _bug(law, measured, "less at each step", "not falling")
    inner = down[:-1] if down[-1] == 0 else down
    up = inner.flip(0)
    fit = None
    families = _OF_SIGMAS if claims not in _OF_SIGMAS else (claims,)
    found: tuple[str, Float64[Tensor, " T"]] | None = None
    for family in families if len(up) > 2 else ():
        try:
            found = _of_sigmas(family, up)
        except ValueError:
            found = None
        if found is not None and ((found[1] - up).abs() <= 256 * eps * up).all():
            fit = found[0]
            break
    ends_open = bool(down[-1] != 0) and not rising
    langevin = fit is not None and fit.startswith("log_linear") and claims != "karras"
    if ends_open and not langevin:
        return _bug(law, end, "… σ_min, 0", "no zero at the end")
    if claims is not None and len(up) > 2:
        law += f"; {claims}"
        if claims not in _OF_SIGMAS:
            raise CannotCheck(
                f"claims = {claims!r} says how β goes on, and these are σ: check the betas, or "
                "claim karras, log_linear or nothing"
            )
        if fit is None:
            return _no_such_sigmas(law, claims, up, found)
        low, high = up[0].item(), up[-1].item()
        if claims == "karras" and not (1e-10 < low < 0.5 and 0.5 < high < 1e6):
            words = f"σ from {low:.3g} to {high:.3g}"
            return _bug(law, words, "from about 0.002 to about 80", "ends of sigma")
    kl = _kl_to_prior(1 / (1 + float(down[0]) ** 2))
    measured = f"{end}; σ_max = {_g(down[0])}, {kl:.3g} nats a dimension from noise"
    verdict: Verdict = "equivalent" if order or ends_open else "right"
    why = ""
    if kl > REACHES_NOISE:
        verdict, why = (
            "fragile",
            (
                f"σ_max = {_g(down[0])} leaves {kl:.2g} nats a dimension of data of variance 1: "
                "begin with such data and noise, not with noise alone"
            ),
        )
    open_end = "without a 0, as for Langevin dynamics" if ends_open else ""
    convention = "; ".join(filter(None, (fit, order, open_end)))
    return Finding("", "schedule", verdict, law, measured, "… σ_min, 0", (), convention, why)


def _no_such_sigmas(
    law: str,
    claims: str,
    up: Float64[Tensor, " T"],
    nearest: tuple[str, Float64[Tensor, " T"]] | None,
) -> Finding:
    """σ that are not of the family, with the family that they are of."""
    for other in _OF_SIGMAS:
        made = _of_sigmas(other, up)
        if other != claims and made is not None and torch.allclose(made[1], up, 1e-4, 0):
            return replace(
                _bug(law, made[0], claims, "another family"),
                diagnoses=(
                    _reading("another family", f"it is not {claims}", f"it is {made[0]}", ""),
                ),
            )
    if nearest is None:
        return _bug(law, f"σ from {_g(up[0])} to {_g(up[-1])}", "σ^(1/ρ) on a line", "no rho")
    i = int((nearest[1] - up).abs().div(up).argmax())
    measured = f"{_g(up[i])}, {i} places from the end"
    return _bug(law, measured, f"{_g(nearest[1][i])} there, of {nearest[0]}", "another curve")


# --- the steps that are visited


def _timesteps(values: object, beta: Float64[Tensor, " T"] | None, steps: int | None) -> Finding:
    if beta is None:
        raise CannotCheck("which steps there are follows from T: give betas=my_betas")
    T = len(beta)
    if not callable(values) or isinstance(values, Tensor):
        return _visited(_times_of(values, steps), T, steps)
    stranger = Stranger(values)
    asked = [n for n in sorted({*_STEPS, T // 2, T}) if 1 <= n <= T]
    found: list[tuple[int, Finding]] = []
    said = ""
    for n in asked:
        try:
            found.append((n, _visited(_times_of(stranger(n), n), T, n)))
        except Exception as error:
            said = said or f"{type(error).__name__}: {error}"
    if not found:
        raise CannotCheck(f"it was called with a number of steps, such as 50, and said: {said}")
    order = ("bug", "fragile", "equivalent", "right")
    more = [one for one in found if one[0] > 1] or found
    n, worst = min(more, key=lambda one: order.index(one[1].verdict))
    bugs = {d.id: d for _, one in more for d in one.diagnoses}
    if worst.verdict in ("equivalent", "right") and found[0][1].verdict == "bug":
        # A line of one point has one end: which of the two is taken is seldom thought of.
        why = f"of a single step it makes {found[0][1].measured}: take two or more"
        return replace(worst, verdict="fragile", why=why)
    return replace(
        worst, measured=f"of {n} steps: {worst.measured}", diagnoses=tuple(bugs.values())
    )


def _times_of(values: object, n: int | None) -> Float64[Tensor, " n"]:
    """The timesteps among what came back: the list that is nearest to n long."""
    found = [t for t in tensors_of(values) if t.ndim == 1 and len(t) and not t.is_complex()]
    if isinstance(values, Sequence) and all(isinstance(v, int | float | np.number) for v in values):
        found = [torch.tensor([float(v) for v in values], dtype=torch.float64)]
    elif isinstance(values, range):
        found = [torch.tensor(list(values), dtype=torch.float64)]
    if not found:
        found = [
            torch.stack([t.reshape(()).double() for t in tensors_of(values) if t.numel() == 1])
        ]
    times = min(reversed(found), key=lambda t: abs(len(t) - (n or len(t))))
    return times.detach().double().cpu()


def _visited(times: Float64[Tensor, " n"], T: int, steps: int | None) -> Finding:
    """t from the noisiest level down to near clean data, each once."""
    law = f"from T − 1 = {T - 1} (or T) down to near 0, each t once"
    if not times.isfinite().all():
        return _bug(law, "NaN or infinity", "whole numbers", "not finite")
    rising = len(times) > 1 and bool(times[0] < times[-1])
    conventions = ["in rising order"] if rising else []
    down = times.flip(0) if rising else times
    # Heun's method asks twice at each level but the first, or but the last.
    doubled = steps is not None and len(down) == 2 * steps - 1 and steps > 1
    if doubled and len(_distinct(down)) == steps:
        down = _distinct(down).flip(0)
        conventions.append("each twice, for a second stage")
    counts_from = 1 if down[0] == T else 0
    if counts_from:
        conventions.append("t counts from 1")
    if steps is not None and len(down) == steps + 1 and down[-1] == counts_from - 1:
        down = down[:-1]
        conventions.append("clean data last")
    if (down != down.round()).any():
        conventions.append("between whole numbers")
    first, last = ", ".join(f"{v:g}" for v in down[:3]), f"{down[-1]:g}"
    measured = f"{first}, …, {last} ({len(down)} steps)" if len(down) > 3 else f"{down.tolist()}"
    if down.min() < 0 or down.max() > T:
        kind = "timesteps outside"
        return _bug(law, measured, f"from 0 to {T - 1}, or from 1 to {T}", kind)
    repeated = down[1:] == down[:-1]
    if repeated.any() or len(_distinct(down)) < len(down):
        most = max(down.tolist(), key=down.tolist().count)
        words = f"t = {most:g} comes {down.tolist().count(most)} times"
        diagnosis = named("schedule", "duplicate timesteps", words)
        return replace(_bug(law, f"{words}: {measured}", "each once", ""), diagnoses=(diagnosis,))
    if (down[1:] > down[:-1]).any():
        i = int((down[1:] > down[:-1]).nonzero()[0])
        return _bug(law, f"{down[i]:g}, then {down[i + 1]:g}", "less at each step", "not falling")
    noisiest = T - 1 + counts_from
    late = down[0] < noisiest - 0.5
    widest = float((down[:-1] - down[1:]).max()) if len(down) > 1 else float(T)
    gap = max(widest, T / len(down)) + 1
    early = down[-1] - counts_from > gap
    diagnoses = []
    if late:
        words = f"the first is t = {down[0]:g}, and the noisiest {noisiest}"
        diagnoses.append(named("schedule", "late start", words))
    if early:
        words = f"the last is t = {last}, and the steps are {gap - 1:g} wide at most"
        name = "the steps end before clean data"
        diagnoses.append(_reading("early end", name, words, "visit the least noisy levels too"))
    off = 0 if steps is None else len(down) - steps
    whole = steps is not None and T % steps == 0
    if off and whole and not late:
        words = f"{len(down)} steps, where {steps} are asked for"
        name = "there are more steps, or fewer, than asked for"
        diagnoses.append(_reading("count", name, words, "make as many as asked for"))
    expected = f"{noisiest}, …" + (f" ({steps} steps)" if steps is not None else "")
    if diagnoses:
        return Finding("", "schedule", "bug", law, measured, expected, tuple(diagnoses))
    verdict: Verdict = "equivalent" if conventions else "right"
    why = ""
    if off:
        verdict, why = (
            "fragile",
            f"asked for {steps} steps, which do not divide {T}, it makes {len(down)}",
        )
    return Finding(
        "", "schedule", verdict, law, measured, expected, (), "; ".join(conventions), why
    )


def _distinct(times: Float64[Tensor, " n"]) -> Float64[Tensor, " m"]:
    """Each t once, rising."""
    return torch.tensor(sorted({*times.tolist()}), dtype=torch.float64)


# --- σ′


def _slope(values: object, sigma: Callable[..., object] | None) -> Finding:
    """σ′(t) against the slope of σ(t), by autograd or by differences."""
    law = "σ′(t) = dσ/dt"
    if not callable(values):
        raise CannotCheck(f"σ′ is a {type(values).__name__}: give the function t → σ′(t)")
    if sigma is None:
        raise CannotCheck("there is nothing to hold σ′ against: give sigma=, the function t → σ(t)")
    t = torch.tensor(_TIMES, dtype=torch.float64)
    measured, single = _curve(Stranger(values), t, "σ′")
    level, coarse = _curve(Stranger(sigma), t, "σ")
    if not measured.isfinite().all():
        return _bug(
            law,
            f"NaN or infinity at t = {_first(~measured.isfinite(), t)}",
            "a number",
            "not finite",
        )
    true, error = _derivative(Stranger(sigma), t)
    error = max(error, 64 * _EPS if single or coarse else 1e-7)
    size = true.abs().clamp(min=1e-3 * true.abs().max().item())
    off = (measured - true).abs() > error * size
    i = len(t) // 2
    shown = int(off.nonzero()[len(off.nonzero()) // 2]) if off.any() else i
    at = f"σ′({t[shown]:g}) = "
    told, expected = f"{at}{_g(measured[shown])}", f"{at}{_g(true[shown])}"
    if not off.any():
        return Finding("", "schedule", "right", law, told, expected)
    diagnoses = []
    rivals: dict[str, tuple[str, Tensor]] = {
        "slope by a factor": ("", true),
        "square for sigma": ("it is the slope of σ²/2, σ·σ′", level * true),
        "log for sigma": ("it is the slope of log σ, σ′/σ", true / level),
        "value for slope": ("it is σ itself", level),
        "first term alone": ("the term 1/σ is missing", true * level**2 / (1 + level**2)),
        "second term alone": ("the term σ is missing", true / (1 + level**2)),
        "minus for plus": ("σ − 1/σ stands for σ + 1/σ", true * (level**2 - 1) / (level**2 + 1)),
        "inverse": ("it is 1/σ′", 1 / true),
        "scale": ("it is the slope of σ/√(1 + σ²)", true / (1 + level**2) ** 1.5),
        "root": ("it is √σ′", true.abs().sqrt()),
    }
    for kind, (says, rival) in rivals.items():
        ratio = measured / rival
        factor = float(ratio.median())
        if not factor or ((ratio - factor).abs() > 4 * error * abs(factor) + 1e-9).any():
            continue
        words = f"it is {factor:.6g} times what it should be at all {len(t)} t"
        if kind == "slope by a factor" and abs(factor + 1) < 4 * error:
            diagnoses = [
                _reading("slope: sign", "its sign is flipped", words, "write the other sign")
            ]
        elif kind == "slope by a factor":
            diagnoses = [named("schedule", kind, words)]
        else:
            many = "" if abs(factor - 1) < 4 * error else f", times {factor:.6g},"
            fits = f"that{many} fits at all {len(t)} t"
            diagnoses = [_reading(kind, says, fits, "differentiate σ(t)")]
        break
    return Finding("", "schedule", "bug", law, told, expected, tuple(diagnoses))


def _curve(
    stranger: Stranger, t: Float64[Tensor, " n"], what: str
) -> tuple[Float64[Tensor, " n"], bool]:
    """A function of time at each t, and whether it is in low precision.

    Raises:
        CannotCheck: it cannot be called with t in (0, 1).
    """
    forms: tuple[Callable[[], list[Tensor]], ...] = (
        lambda: stranger(t),
        lambda: [_one(stranger(s)) for s in t],
        lambda: [_one(stranger(float(s))) for s in t],
        lambda: stranger(t.float()),
        lambda: stranger(t[:, None]),
    )
    said = ""
    for form in forms:
        try:
            found = form()
        except Exception as error:
            said = said or f"{type(error).__name__}: {error}"
            continue
        values = found[0] if len(found) == 1 else torch.stack([v.reshape(()) for v in found])
        if values.numel() == len(t):
            return values.detach().double().flatten(), values.dtype != torch.float64
    raise CannotCheck(
        f"{what} of t in (0, 1) gave {said or 'not one number for each t'}: give a function of t"
    )


def _one(found: list[Tensor]) -> Tensor:
    return found[0].detach().reshape(())


def _derivative(sigma: Stranger, t: Float64[Tensor, " n"]) -> tuple[Float64[Tensor, " n"], float]:
    """dσ/dt and its relative error: by autograd in float64, else by differences."""
    try:
        leaf = t.clone().requires_grad_()
        value = sigma.function(leaf)
        (found,) = torch.autograd.grad(value.sum(), leaf)
        if found.isfinite().all() and value.dtype == torch.float64:
            return found, 1e-7
    except Exception:
        pass  # it is written for numbers, or for numpy: then by differences

    def at(shift: float) -> Float64[Tensor, " n"]:
        return _curve(sigma, t + shift, "σ")[0]

    single = _curve(sigma, t, "σ")[1]
    h = 5e-3 if single else 1e-3

    def stencil(h: float) -> Float64[Tensor, " n"]:
        return (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)

    fine, rough = stencil(h), stencil(2 * h)
    spread = float(((fine - rough).abs() / fine.abs().clamp(min=1e-12)).max())
    return fine, max(spread, 1e-3 if single else 1e-7)


# --- saying


def _bug(law: str, measured: str, expected: str, kind: str) -> Finding:
    diagnoses = (named("schedule", kind, measured),) if kind in _NAMED else ()
    return Finding("", "schedule", "bug", law, measured, expected, diagnoses)


# Kinds that have a number in the catalogue: the others are told by law and measurement alone.
_NAMED = ("last σ repeated", "no zero at the end", "keeps clean")


def _reading(kind: str, name: str, explains: str, remedy: str = "") -> Diagnosis:
    return named("schedule", kind, explains, name, remedy)


def _at(formula: Formula, process: Process, t: Int64[Tensor, ""]) -> str:
    return f"{formula} = {_g(formula.at(process, t[None])[0])}"


def _where(wrong: Tensor, t: Int64[Tensor, " n"] | None = None, base: int = 1) -> str:
    places = wrong.nonzero()[:, 0]
    which = places + base if t is None else t[places]
    some = ", ".join(str(int(i)) for i in which[:3])
    return f"t = {some}" + (", …" if len(which) > 3 else "")


def _first(wrong: Tensor, t: Float64[Tensor, " n"]) -> str:
    return f"{t[wrong][0]:g}"


def _g(value: Tensor | float) -> str:
    return f"{float(value):.6g}"
