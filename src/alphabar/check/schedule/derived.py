"""A table that follows from β_t, held against what it follows from.

    ᾱ_t = Π_{s≤t} (1 − β_s),    β̃_t = β_t·(1 − ᾱ_{t−1})/(1 − ᾱ_t),    SNR_t = ᾱ_t/(1 − ᾱ_t)

Ho, Jain, Abbeel 2020, eq. (4) and (7).
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from alphabar.check.catalogue import named
from alphabar.check.formula import Formula, Process, edits
from alphabar.check.report import Diagnosis, Finding, Verdict
from alphabar.check.schedule.betas import check_betas
from alphabar.check.schedule.common import EPS, bug, digits, numbers_of, reading, where
from alphabar.check.stranger import CannotCheck

F = Formula.of
_POSTERIOR = F(beta=1, noise=-1, before={"noise": 1})
_SNR = F(abar=1, noise=-1)
# What the tables of a process are called in the DDPM paper's code, and what they are.
TABLES: Mapping[str, Formula] = {
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
LOGARITHMS: Mapping[str, Formula] = {
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


def check_table(
    gives: str, values: object, claims: str | None, beta: Float64[Tensor, " T"] | None
) -> Finding:
    """A table of the process, by what it is said to give."""
    table, eps = numbers_of(values)
    if gives == "betas":
        return check_betas(table, claims, eps, torch.zeros_like(table))
    if gives == "alphas":
        return check_betas(1 - table, claims, eps, torch.full_like(table, 4 * eps), "α_t = 1 − β_t")
    if beta is not None:
        stated = check_betas(beta, None, EPS, torch.zeros_like(beta))
        outside = not ((beta > 0) & (beta <= 1)).all()
        if outside:
            return replace(stated, measured=f"of the betas that are stated: {stated.measured}")
        found = _against(gives, table, Process(beta), eps)
        if found.verdict == "bug" or claims is None:
            return found
        of_betas = check_betas(beta, claims, EPS, torch.zeros_like(beta))
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
        return bug(law, f"t = {i}: {digits(whole[i])}", "a number", "not finite")
    rises = whole[1:] >= whole[:-1]
    if rises.any() or whole.min() < 0:
        t = int((rises | (whole[1:] < 0)).nonzero()[0]) + 1
        before = f"ᾱ_{t - 1} = {digits(whole[t - 1])}"
        if whole[t] == whole[t - 1] and 0.5 < whole[t]:
            why = f"{before} and ᾱ_{t} are the same number: the table's precision cannot tell them"
            return Finding("", "schedule", "fragile", law, before, "less at each step", why=why)
        kind = "not falling" if 0 <= whole[t] else "outside 0 and 1"
        return bug(law, f"{before}, ᾱ_{t} = {digits(whole[t])}", "less at each step, from 0", kind)
    beta = 1 - whole[1:] / whole[:-1]
    # The relative error of ᾱ that a rounding of the table makes.
    at = table if with_clean else torch.cat([table[:1], table])
    moved = (_TO_ALPHA_BAR[gives](at * (1 + eps)) - _TO_ALPHA_BAR[gives](at)).abs() / whole
    loss = moved.nan_to_num(1.0, 1.0) + eps
    slack = 8 * (loss[1:] + loss[:-1]) * (1 - beta) + 4 * eps
    found = check_betas(beta, claims, eps, slack, gives)
    if with_clean and claims is None and found.verdict == "right":
        return replace(found, verdict="equivalent", convention="begins with t = 0, clean data")
    return found


def _against(gives: str, table: Float64[Tensor, " n"], process: Process, eps: float) -> Finding:
    """A table against what β says that it is."""
    logarithm = gives in LOGARITHMS
    formula = LOGARITHMS[gives] if logarithm else TABLES[gives]
    law = f"{'log ' * logarithm}{formula}, ᾱ_t = Π_(s≤t) (1 − β_s), t = 1..T"
    T, n = process.T, len(table)
    if n not in (T, T + 1):
        return bug(law, f"{n} numbers", f"T = {T}, one for each β", "length")
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
        numbers = f"t = {int(t[i])}: {digits(values[i])}"
        return Finding(
            "", "schedule", verdict, law, numbers, _at(formula, process, t[i]), (), convention
        )
    i = int(worse.nonzero()[0])
    measured = f"t = {int(t[i])}: {digits(values[i])}"
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
    inside = (values - expected).abs() <= error.clamp(max=0.5) * expected.abs() + EPS
    # Small numbers must be right too, as long as float32 has them.
    ratio = (values - expected).abs() <= error.clamp(max=0.5) * expected.abs() + 1e-7 * EPS
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
        return [named("schedule", "not finite", f"at {where(~values.isfinite(), t)}")]
    if explains(formula.at(process, t.flip(0))):
        return [reading("reversed", "it runs from T down to 1", f"{formula} reversed {words}")]
    totals = {
        "product of beta": ("Π β_s stands where Π (1 − β_s) is meant", process.beta.cumprod(0)),
        "sum of beta": ("1 − Σ β_s stands where Π (1 − β_s) is meant", 1 - process.beta.cumsum(0)),
        "exp of sum": ("exp(−Σ β_s) stands for Π (1 − β_s)", (-process.beta.cumsum(0)).exp()),
        "sum of alpha": ("Σ (1 − β_s) stands for the product", (1 - process.beta).cumsum(0)),
    }
    if formula == TABLES["alphas_cumprod"] and len(t) == process.T:
        for kind, (says, other) in totals.items():
            if explains(other):
                return [reading(kind, says, words, "alpha_bar = cumprod(1 - betas)")]
    for edit in sorted(edits(formula), key=lambda e: e.cost):
        if explains(edit.formula.at(process, t)):
            remedy = f"make it {formula}"
            return [reading(edit.kind, edit.says, f"{edit.formula} {words}", remedy)]
    return []


def _at(formula: Formula, process: Process, t: Int64[Tensor, ""]) -> str:
    return f"{formula} = {digits(formula.at(process, t[None])[0])}"
