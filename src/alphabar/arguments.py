"""Numbers that people type: the right kind, in the right range, or one sentence that says so."""

import math
import numbers

MAX_SEED = 2**64 - 1


def check_whole(name: str, value: int, low: int, high: int) -> int:
    """A whole number in [low, high].

    Raises:
        TypeError: not a whole number.
        ValueError: out of range.
    """
    rule = f"it must be a whole number from {low} to {high}"
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} = {value!r}: {rule}")
    if not low <= value <= high:
        raise ValueError(f"{name} = {value}: {rule}")
    return int(value)


def check_number(
    name: str, value: float, low: float, high: float, rule: str, open_low: bool = False
) -> float:
    """A finite number in [low, high], or in (low, high] if open_low; `rule` says it in words.

    Raises:
        TypeError: not a number.
        ValueError: not finite, or out of range.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} = {value!r}: it must be {rule}")
    value = float(value)
    if not (math.isfinite(value) and low <= value <= high) or (open_low and value == low):
        raise ValueError(f"{name} = {value:g}: it must be {rule}")
    return value


def check_seed(value: int, high: int = MAX_SEED) -> int:
    """A seed.

    Raises:
        TypeError, ValueError: not a whole number from 0 to `high`.
    """
    return check_whole("seed", value, 0, high)
