"""What the eye misses in a schedule: where it ends, and what that does to a model.

    KL(q(x_T | x_0) ‖ N(0, I)), averaged over x_0 of variance 1, is −½·log(1 − ᾱ_T) nats a dimension

A model is sampled from N(0, I), but was trained on q(x_T). If the two differ, what the data still
say at T (their mean above all) is missing from every sample (Lin et al. 2023).
"""

import math
from typing import NamedTuple

from alphabar.schedule import SCHEDULES, Schedule

# Nats a dimension: ᾱ_T below 0.0198.
REACHES_NOISE = 0.01
# Where a remedy aims: the DDPM paper's own ᾱ_T, 4e-5.
_TARGET_ALPHA_BAR = 4e-5


class Terminal(NamedTuple):
    """The last level of a schedule."""

    alpha_bar: float
    snr_db: float  # 10·log10(SNR); -inf where ᾱ_T = 0
    kl_to_prior: float  # nats a dimension


class Warning(NamedTuple):
    """Something to know before training: `values` fill in the text of `code` in any language."""

    code: str
    values: dict[str, str]


def terminal(schedule: Schedule) -> Terminal:
    """Where the schedule ends, in the variance-preserving scale, for data of variance 1."""
    last = schedule[schedule.T]
    log_snr = last.log_snr.item()
    return Terminal(
        alpha_bar=last.alpha_bar.item(),
        snr_db=10 * log_snr / math.log(10),
        # −½·log(1 − ᾱ) = −½·log sigmoid(−λ) = ½·log(1 + e^λ), without the cancellation.
        kl_to_prior=0.5 * math.log1p(math.exp(log_snr)) if log_snr < 700 else 0.5 * log_snr,
    )


def half(schedule: Schedule) -> int | None:
    """The first t with ᾱ_t ≤ ½, where there is as much noise as data; None if it never comes."""
    below = (schedule.alpha_bar <= 0.5).nonzero()
    return int(below[0]) if len(below) else None


def largest_step(schedule: Schedule) -> tuple[int, float] | None:
    """(t, drop of log-SNR from t−1 to t) where the finite drop is largest; None if T = 1."""
    drops = -schedule.log_snr.diff()
    drops[drops.isinf()] = -math.inf
    t = int(drops.argmax())
    return (t + 1, drops[t].item()) if drops[t] > 0 else None


def warnings(schedule: Schedule) -> list[Warning]:
    """What to know before training on this schedule.

    `terminal-snr`: it does not reach noise. `zero-snr`: it ends at exactly ᾱ_T = 0, where a network
    that predicts ε is asked nothing about the data.
    """
    found = []
    end = terminal(schedule)
    if end.kl_to_prior > REACHES_NOISE:
        values = {
            "T": str(schedule.T),
            "alpha_bar": f"{end.alpha_bar:.3g}",
            "kept": f"{math.sqrt(end.alpha_bar):.0%}",
            "kl": f"{end.kl_to_prior:.3g}",
            "remedy": " / ".join(remedies(schedule)),
        }
        found.append(Warning("terminal-snr", values))
    if end.alpha_bar == 0:
        found.append(Warning("zero-snr", {"T": str(schedule.T)}))
    return found


def describe(schedule: Schedule) -> dict[str, object]:
    """All of the above as plain numbers and lists, for JSON; warnings without their text."""
    end, step = terminal(schedule), largest_step(schedule)
    return {
        "spec": schedule.spec,
        "name": schedule.spec.partition(":")[0],
        "T": schedule.T,
        "beta": schedule.beta.tolist(),
        "alpha_bar": schedule.alpha_bar.tolist(),
        "log_snr": schedule.log_snr.tolist(),
        "terminal": end._asdict(),
        "half": half(schedule),
        "largest_step": step and {"t": step[0], "log_snr": step[1]},
    }


def remedies(schedule: Schedule) -> list[str]:
    """Specs like this one that do reach noise, best first; the last resort is a method.

    First the same T with its range of β (or its largest σ, or its last λ) changed, then the same
    range with more steps.
    """
    found: list[str] = []
    if schedule._call is not None:
        name, arguments, _ = schedule._call
        scaled = [key for key in ("start", "end", "beta") if key in arguments]
        if name == "log_snr":
            found = [_respec(name, dict(arguments) | {"end": -10.0})]
        elif "sigma_max" in arguments:
            found = [_respec(name, dict(arguments) | {"sigma_max": 80.0})]
        elif scaled and "T" in arguments:
            found = _with_range(name, dict(arguments), scaled) + _with_steps(name, dict(arguments))
    return [spec for spec in found if spec] or ["zero_terminal_snr()"]


def _with_range(name: str, arguments: dict[str, object], keys: list[str]) -> list[str]:
    """The spec with all of `keys` times the one factor that brings ᾱ_T to the target."""
    highest = max(_number(arguments[key]) for key in keys)

    def scaled(factor: float) -> dict[str, object]:
        return arguments | {key: _round(_number(arguments[key]) * factor) for key in keys}

    low, high = 1.0, 0.9 / highest  # a β near 1 would do all the work in one step
    if high <= low or not _reaches(name, scaled(high)):
        return []
    for _ in range(40):
        middle = math.sqrt(low * high)
        built = SCHEDULES[name].build(**scaled(middle))
        low, high = (low, middle) if built.alpha_bar[-1] <= _TARGET_ALPHA_BAR else (middle, high)
    return [_respec(name, scaled(high))]


def _with_steps(name: str, arguments: dict[str, object]) -> list[str]:
    """The spec with the T, in steps of 10, that brings ᾱ_T to the target."""
    built = SCHEDULES[name].build(**arguments)
    lost = -math.log(built.alpha_bar[-1].item())
    if lost < 1e-9:  # hardly any noise at all: no number of steps will do
        return []
    # log ᾱ_T grows in proportion to T while the range of β stays.
    steps = math.ceil(built.T * -math.log(_TARGET_ALPHA_BAR) / lost / 10) * 10
    if steps > 100_000 or not _reaches(name, arguments | {"T": steps}):
        return []
    return [_respec(name, arguments | {"T": steps})]


def _reaches(name: str, arguments: dict[str, object]) -> bool:
    try:
        return terminal(SCHEDULES[name].build(**arguments)).kl_to_prior <= REACHES_NOISE
    except ValueError:
        return False


def _respec(name: str, arguments: dict[str, object]) -> str:
    return SCHEDULES[name].build(**arguments).spec if _reaches(name, arguments) else ""


def _number(value: object) -> float:
    assert isinstance(value, int | float)
    return float(value)


def _round(value: float) -> float:
    """Two significant digits, as a person would type it."""
    return float(f"{value:.2g}")
