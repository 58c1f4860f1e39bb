"""What all checks of a schedule use: how a table is read, and how a finding is said."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from alphabar.check.catalogue import named
from alphabar.check.report import Diagnosis, Finding, Verdict
from alphabar.check.stranger import CannotCheck, Stranger, tensors_of

EPS = torch.finfo(torch.float32).eps  # coarser than any table that was computed with care
STEPS = (1, 2, 10, 50, 300)  # asked of a function that makes timesteps, or levels
WORST_FIRST: tuple[Verdict, ...] = ("bug", "fragile", "equivalent", "right")


def numbers_of(values: object) -> tuple[Float64[Tensor, " n"], float]:
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
    return table.detach().double().cpu().flatten(), max(EPS, coarse)


def kl_to_prior(abar: float) -> float:
    """−½·log(1 − ᾱ_T), nats a dimension for data of variance 1."""
    return -0.5 * math.log1p(-abar) if abar < 1 else math.inf


def bug(law: str, measured: str, expected: str, kind: str) -> Finding:
    """A law that is broken, with a diagnosis where the kind has a number in the catalogue."""
    diagnoses = (named("schedule", kind, measured),) if kind in _NAMED else ()
    return Finding("", "schedule", "bug", law, measured, expected, diagnoses)


# Kinds that have a number in the catalogue: the others are told by law and measurement alone.
_NAMED = ("last σ repeated", "no zero at the end", "keeps clean")


def reading(kind: str, name: str, explains: str, remedy: str = "") -> Diagnosis:
    """What a table would be right as."""
    return named("schedule", kind, explains, name, remedy)


def where(wrong: Tensor, t: Int64[Tensor, " n"] | None = None, base: int = 1) -> str:
    """The first places that are wrong, in words."""
    places = wrong.nonzero()[:, 0]
    which = places + base if t is None else t[places]
    some = ", ".join(str(int(i)) for i in which[:3])
    return f"t = {some}" + (", …" if len(which) > 3 else "")


def digits(value: Tensor | float) -> str:
    """Six of them."""
    return f"{float(value):.6g}"
