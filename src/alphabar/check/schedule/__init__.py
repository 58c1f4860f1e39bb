"""Checks of a schedule: its tables, the steps that are visited, the slope of its noise.

    0 < β_t < 1,    ᾱ_t = Π_{s≤t} (1 − β_s) falls from 1 to nothing,
    β̃_t = β_t·(1 − ᾱ_{t−1})/(1 − ᾱ_t),    KL(q(x_T | x_0) ‖ N(0, I)) = −½·log(1 − ᾱ_T)

Ho, Jain, Abbeel 2020, eq. (2), (4), (7). A table is held against these laws, and against the family
that it is said to be of, whose free numbers are taken from the table itself. The families are those
of `alphabar.schedule`. Tables in float32 are not wrong for their rounding: what each step of the
usual computation may lose is allowed for.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from difflib import get_close_matches

from alphabar.check.report import Finding
from alphabar.check.schedule.betas import ZERO
from alphabar.check.schedule.common import numbers_of
from alphabar.check.schedule.derived import LOGARITHMS, TABLES, check_table
from alphabar.check.schedule.families import OF_BETAS, OF_SIGMAS
from alphabar.check.schedule.sigmas import check_sigmas
from alphabar.check.schedule.slope import check_slope
from alphabar.check.schedule.timesteps import check_timesteps
from alphabar.check.stranger import CannotCheck

GIVES = (*TABLES, *LOGARITHMS, "sigmas", "timesteps", "sigma_prime")
_ALIASES = {
    "squaredcos_cap_v2": "cosine",
    "scaled_linear": "quad",
    "exponential": "log_linear",
    "geometric": "log_linear",
}
CLAIMS = (*OF_BETAS, *OF_SIGMAS, ZERO, *_ALIASES)


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
            function n → timesteps, of `sigmas` n → σ; of `sigma_prime` a function t → σ′(t), t in
            (0, 1).
        claims: the family it is to be of, one of `CLAIMS`.
        gives: what the values are, one of `GIVES`.
        betas: β_1 … β_T that it belongs to.
        steps: how many timesteps, or levels σ, there are to be.
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
        beta = None if betas is None else numbers_of(betas)[0]
    except CannotCheck:
        raise ValueError(
            f"betas is a {type(betas).__name__}: give the numbers β_1 … β_T, such as betas=my_betas"
        ) from None
    try:
        if gives == "sigma_prime":
            found = check_slope(values, sigma)
        elif gives == "timesteps":
            found = check_timesteps(values, beta, steps)
        elif gives == "sigmas" or (gives == "betas" and _are_sigmas(values, family)):
            gives = "sigmas"
            found = check_sigmas(values, family, steps)
        else:
            found = check_table(gives, values, family, beta)
    except CannotCheck as error:
        found = Finding(gives, "schedule", "unchecked", "", "", "", why=str(error))
    return replace(found, name=gives, seconds=time.perf_counter() - begin)


def _are_sigmas(values: object, family: str | None) -> bool:
    """Whether what is claimed says so: no β is above 1, and a function of n is no table of them."""
    if family not in OF_SIGMAS:
        return False
    try:
        return bool(numbers_of(values)[0].max() > 1)
    except CannotCheck:
        return callable(values)


def _one_of(name: str, value: str, choices: Sequence[str]) -> None:
    if value in choices:
        return
    near = get_close_matches(str(value), choices, 3, 0.5)
    raise ValueError(f"{name} = {value!r}: it must be one of {', '.join(near or choices)}")
