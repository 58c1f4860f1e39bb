"""σ′(t) against the slope of σ(t), by autograd or by differences."""

from collections.abc import Callable

import torch
from jaxtyping import Float64
from torch import Tensor

from alphabar.check.catalogue import named
from alphabar.check.report import Finding
from alphabar.check.schedule.common import EPS, bug, digits, reading
from alphabar.check.stranger import CannotCheck, Stranger

_TIMES = tuple(i / 20 for i in range(1, 20))  # where a slope is looked at


def check_slope(values: object, sigma: Callable[..., object] | None) -> Finding:
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
        return bug(
            law,
            f"NaN or infinity at t = {_first(~measured.isfinite(), t)}",
            "a number",
            "not finite",
        )
    true, error = _derivative(Stranger(sigma), t)
    error = max(error, 64 * EPS if single or coarse else 1e-7)
    size = true.abs().clamp(min=1e-3 * true.abs().max().item())
    off = (measured - true).abs() > error * size
    i = len(t) // 2
    shown = int(off.nonzero()[len(off.nonzero()) // 2]) if off.any() else i
    at = f"σ′({t[shown]:g}) = "
    told, expected = f"{at}{digits(measured[shown])}", f"{at}{digits(true[shown])}"
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
                reading("slope: sign", "its sign is flipped", words, "write the other sign")
            ]
        elif kind == "slope by a factor":
            diagnoses = [named("schedule", kind, words)]
        else:
            many = "" if abs(factor - 1) < 4 * error else f", times {factor:.6g},"
            fits = f"that{many} fits at all {len(t)} t"
            diagnoses = [reading(kind, says, fits, "differentiate σ(t)")]
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


def _first(wrong: Tensor, t: Float64[Tensor, " n"]) -> str:
    return f"{t[wrong][0]:g}"
