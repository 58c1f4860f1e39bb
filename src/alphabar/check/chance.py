"""How often a check may be wrong by chance, and what it may miss by chance.

Where a function draws noise that cannot be recorded, what is measured is an estimate. A report
makes at most `TESTS` comparisons, so each has its share of the report's false alarms:

    P(any of them fails, for right code) ≤ TESTS · ONE = FALSE_ALARM
"""

from scipy import special  # type: ignore[import-untyped]

FALSE_ALARM = 1e-6  # of a whole report
TESTS = 1000
ONE = FALSE_ALARM / TESTS
# A standard normal number is further out than this, to either side, with the probability ONE.
FAR = float(special.ndtri(1 - ONE / 2))


def power(off: float, error: float) -> float:
    """The probability to see a number that is off by so much, where its standard error is this."""
    return float(special.ndtr(off / error - FAR))
