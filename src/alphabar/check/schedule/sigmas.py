"""A grid of noise levels, σ_1 > … > σ_n > 0, on which a sampler steps down to clean data.

karras: σ_i^(1/ρ) on a line (Karras et al. 2022, eq. (5))
"""

from dataclasses import replace

import torch
from jaxtyping import Float64
from torch import Tensor

from alphabar.check.report import Finding, Verdict
from alphabar.check.schedule.common import (
    STEPS,
    WORST_FIRST,
    bug,
    digits,
    kl_to_prior,
    numbers_of,
    reading,
    where,
)
from alphabar.check.schedule.families import OF_SIGMAS, of_sigmas
from alphabar.check.stranger import CannotCheck, Stranger
from alphabar.diagnosis import REACHES_NOISE


def check_sigmas(values: object, claims: str | None, steps: int | None) -> Finding:
    """The levels of a table, or of a function of their number."""
    if not callable(values) or isinstance(values, Tensor):
        return _levels(values, claims, steps)
    stranger = Stranger(values)
    if all(p.default is not p.empty for p in stranger.parameters()):
        return _levels(values, claims, steps)
    found, said = [], ""
    for n in STEPS[2:]:
        try:
            made = stranger(n)
        except CannotCheck as error:
            said = said or str(error)
            continue
        found.append((n, _levels(made, claims, n)))
    if not found:
        raise CannotCheck(f"it was called with a number of levels, such as 50, and said: {said}")
    n, worst = min(found, key=lambda one: WORST_FIRST.index(one[1].verdict))
    return replace(worst, measured=f"of {n} levels: {worst.measured}")


def _levels(values: object, claims: str | None, steps: int | None) -> Finding:
    """Noise over signal, from the noisiest down to 0; or rising, as a table to train with."""
    law = "σ falls at every step, and ends with one 0"
    sigma, eps = numbers_of(values)
    n = len(sigma)
    if not sigma.isfinite().all():
        return bug(
            law, f"{where(~sigma.isfinite(), base=0)} is not finite", "a number", "not finite"
        )
    if (sigma < 0).any():
        i = int((sigma < 0).nonzero()[0])
        return bug(law, f"σ[{i}] = {digits(sigma[i])}", "0 or more", "negative sigma")
    if steps is not None and n not in (steps, steps + 1):
        return bug(law, f"{n} levels", f"{steps}, or {steps + 1} with the 0", "length")
    if n < 2:
        raise CannotCheck(f"it has {n} level: give the noise levels of two steps or more")
    rising = bool(sigma[0] < sigma[-1])
    order = "in rising order, as for training" if rising else ""
    down = sigma.flip(0) if rising else sigma
    end = f"σ ends with {', '.join(digits(v) for v in down[-3:])}"
    flat = down[1:] >= down[:-1]
    if flat[-2:].any() and not flat[:-2].any() and (down[1:] == down[:-1])[flat].all():
        return bug(law, end, "each once, and one 0", "last σ repeated")
    if flat.any():
        i = int(flat.nonzero()[0])
        measured = f"σ[{i}] = {digits(down[i])}, σ[{i + 1}] = {digits(down[i + 1])}"
        return bug(law, measured, "less at each step", "not falling")
    inner = down[:-1] if down[-1] == 0 else down
    up = inner.flip(0)
    fit = None
    families = OF_SIGMAS if claims not in OF_SIGMAS else (claims,)
    found: tuple[str, Float64[Tensor, " T"]] | None = None
    for family in families if len(up) > 2 else ():
        try:
            found = of_sigmas(family, up)
        except ValueError:
            found = None
        if found is not None and ((found[1] - up).abs() <= 256 * eps * up).all():
            fit = found[0]
            break
    ends_open = bool(down[-1] != 0) and not rising
    langevin = fit is not None and fit.startswith("log_linear") and claims != "karras"
    if ends_open and not langevin:
        return bug(law, end, "… σ_min, 0", "no zero at the end")
    if claims is not None:
        law += f"; {claims}"
        if claims not in OF_SIGMAS:
            raise CannotCheck(
                f"claims = {claims!r} says how β goes on, and these are σ: check the betas, or "
                "claim karras, log_linear or nothing"
            )
        if len(up) < 3:
            raise CannotCheck(
                f"fewer than 3 levels are of every curve, and show no {claims}: give more, or the "
                "function of their number"
            )
        if fit is None:
            return _no_such_sigmas(law, claims, up, found)
        low, high = up[0].item(), up[-1].item()
        if claims == "karras" and not (1e-10 < low < 0.5 and 0.5 < high < 1e6):
            words = f"σ from {low:.3g} to {high:.3g}"
            return bug(law, words, "from about 0.002 to about 80", "ends of sigma")
    kl = kl_to_prior(1 / (1 + float(down[0]) ** 2))
    measured = f"{end}; σ_max = {digits(down[0])}, {kl:.3g} nats a dimension from noise"
    verdict: Verdict = "equivalent" if order or ends_open else "right"
    why = ""
    if kl > REACHES_NOISE:
        verdict, why = (
            "fragile",
            (
                f"σ_max = {digits(down[0])} leaves {kl:.2g} nats a dimension of data of variance "
                "1: begin with such data and noise, not with noise alone"
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
    for other in OF_SIGMAS:
        made = of_sigmas(other, up)
        if other != claims and made is not None and torch.allclose(made[1], up, 1e-4, 0):
            return replace(
                bug(law, made[0], claims, "another family"),
                diagnoses=(
                    reading("another family", f"it is not {claims}", f"it is {made[0]}", ""),
                ),
            )
    if nearest is None:
        return bug(
            law, f"σ from {digits(up[0])} to {digits(up[-1])}", "σ^(1/ρ) on a line", "no rho"
        )
    i = int((nearest[1] - up).abs().div(up).argmax())
    measured = f"{digits(up[i])}, {i} places from the end"
    return bug(law, measured, f"{digits(nearest[1][i])} there, of {nearest[0]}", "another curve")
