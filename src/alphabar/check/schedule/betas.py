"""A table of β_t: its range, its end, and the family that it is said to be of.

    0 < β_t < 1,    KL(q(x_T | x_0) ‖ N(0, I)) = −½·log(1 − ᾱ_T)

Ho, Jain, Abbeel 2020, eq. (2).
"""

import math
from dataclasses import replace

import torch
from jaxtyping import Float64
from torch import Tensor

from alphabar.check.catalogue import named
from alphabar.check.report import Diagnosis, Finding, Verdict
from alphabar.check.schedule.common import EPS, bug, digits, kl_to_prior, reading, where
from alphabar.check.schedule.families import FIRST, LINES, held_to, recognised
from alphabar.check.schedule.zero_terminal import zero_terminal
from alphabar.check.stranger import CannotCheck
from alphabar.diagnosis import REACHES_NOISE

ZERO = "zero_terminal_snr"


def check_betas(
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
        return bug(law, f"{where(~beta.isfinite())} is not finite", "a number", "not finite")
    outside = (beta <= -slack) | (beta > 1 + slack) | (beta == 0)
    outside[:-1] |= beta[:-1] >= 1
    reread = [] if claims is None else _rereadings(beta, claims, slack + 16 * eps)
    if outside.any():
        t = int(outside.nonzero()[0])
        what = f"β_{t + 1} = {digits(beta[t])}"
        found = bug(law, what, "above 0 and below 1; only the last may be 1", "outside 0 and 1")
        return replace(found, diagnoses=tuple(reread)) if reread else found
    beta = beta.clamp(min=1e-30, max=1.0)
    T, log_abar = len(beta), torch.log1p(-beta).cumsum(0)
    abar = log_abar.exp()
    kl = kl_to_prior(float(abar[-1]))
    end = f"ᾱ_T = {digits(abar[-1])}, {kl:.3g} nats a dimension from noise; T = {T}"
    diagnoses: list[Diagnosis] = []
    expected, measured, fit, is_off = "", end, None, False
    if claims == ZERO:
        stretch = zero_terminal(beta, abar, slack, eps)
        diagnoses += stretch.diagnoses
        expected, measured = "ᾱ_T = 0", "; ".join(filter(None, (stretch.says, end)))
        is_off = stretch.verdict == "bug"
        if stretch.verdict == "unchecked":
            raise CannotCheck(
                f"{end}, as it must be; but it is none of the usual tables, stretched, and the "
                "rest cannot be told: check the table before it was stretched"
            )
    elif claims is not None:
        fit, expected, differs = held_to(claims, beta, slack, eps)
        if fit is None:
            measured = f"{differs}; {end}"
            diagnoses += reread or _wrong_family(claims, beta, slack, eps)
    else:
        fit = next(iter(recognised(beta, slack, eps)), None)
    is_off |= claims not in (None, ZERO) and fit is None
    far = claims in LINES and claims != "constant" and T >= 50 and beta[0] > FIRST / T
    # Read as what it is, the table has no ends of its own to speak of.
    if not reread and (far or (T >= 10 and beta[0] > max(0.05, 10 * float(beta[1])))):
        words = f"β_1 = {digits(beta[0])}, β_2 = {digits(beta[1])}, ᾱ_1 = {digits(abar[0])}"
        name = "the first step takes away much of the data at once"
        diagnoses.append(reading("first step", name, words, "let β_1 be the least"))
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
        if eps > EPS:
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


def _ends_early(beta: Float64[Tensor, " T"], abar: Float64[Tensor, " T"], kl: float) -> Diagnosis:
    T = len(beta)
    words = (
        f"β runs from {digits(beta[0])} to {digits(beta[-1])} in T = {T} steps, which leave ᾱ_T = "
        f"{digits(abar[-1])}, {kl:.2g} nats a dimension from noise"
    )
    if T < 1000:
        log_rest = (1000 / T) * math.log(float(abar[-1]))
        words += f"; over 1000 steps the same range would leave {math.exp(log_rest):.2g}"
    return named("schedule", "ends before noise", words)


def _rereadings(
    beta: Float64[Tensor, " T"], claims: str, slack: Float64[Tensor, " T"]
) -> list[Diagnosis]:
    """What the table would be of the family as, if it is not β."""
    if claims == ZERO or len(beta) < 3:
        return []
    if not beta.isfinite().all():
        return []
    one = beta.new_ones(1)
    if held_to(claims, beta.clamp(1e-30, 1.0), slack, EPS)[0] is not None:
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
        fit, _, _ = held_to(claims, other, 4 * slack, EPS)
        if fit is not None:
            return [reading(kind, says, f"so read, it is {fit.says}", "return β")]
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
                return [reading(kind, says, f"it fits at all {len(beta)} steps", remedy)]
        once = u[1:]
        direct = 1 - ((once + s) / (1 + s) * quarter).cos() ** 2
        if ((beta - direct.clamp(max=beta.max().item())).abs() <= slack + 1e-4).all():
            words = f"1 − f(t) fits at all {len(beta)} steps"
            return [reading("total for step", "1 − ᾱ_t stands for β_t", words, "1 − ᾱ_t/ᾱ_{t−1}")]
    for fit in recognised(beta, slack, eps):
        kind = f"another family, {fit.says.split(',')[0]}"
        return [reading(kind, f"it is not {claims}", f"it is {fit.says}", f"make it {claims}")]
    return []
