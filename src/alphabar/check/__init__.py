"""check: whether somebody's diffusion code is right, or which bug it has.

    report = check.marginal(my_q_sample, betas=my_betas)
    print(report)
    report.raise_if_failed()  # in a test suite of one's own

Every check takes the person's function, their β_t for t = 1..T, in (0, 1), and in `given` what else
the function is to be handed, by name. None raises for what the function does: that is in the
report. All raise `ValueError` for betas or a prediction that mean nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch

from alphabar.check.catalogue import named
from alphabar.check.formula import Process
from alphabar.check.linear import check_linear
from alphabar.check.loop import check_loop
from alphabar.check.loss import TARGETS, check_loss
from alphabar.check.report import CheckFailed, Diagnosis, Finding, Report
from alphabar.check.roles import MARGINAL, POSTERIOR, TRANSITION
from alphabar.check.roles import step as step_role

__all__ = [
    "CheckFailed",
    "Diagnosis",
    "Finding",
    "Report",
    "loss",
    "marginal",
    "posterior",
    "sampler",
    "step",
    "transition",
]


_PREDICTIONS = ("eps", "x_0", "v")


def marginal(
    function: Callable[..., object], betas: object, given: Mapping[str, object] | None = None
) -> Report:
    """Whether a function draws x_t of x_0 as q(x_t | x_0) says (Ho et al. 2020, eq. (4))."""
    return Report((check_linear(MARGINAL, function, _process(betas), given or {}),))


def transition(
    function: Callable[..., object], betas: object, given: Mapping[str, object] | None = None
) -> Report:
    """Whether a function draws x_t of x_{t−1}, or by t such steps of x_0 (the same, eq. (2))."""
    return Report((check_linear(TRANSITION, function, _process(betas), given or {}),))


def posterior(
    function: Callable[..., object], betas: object, given: Mapping[str, object] | None = None
) -> Report:
    """Whether a function has the mean of q(x_{t−1} | x_t, x_0) (the same, eq. (7))."""
    return Report((check_linear(POSTERIOR, function, _process(betas), given or {}),))


def step(
    function: Callable[..., object],
    betas: object,
    predicts: str = "eps",
    given: Mapping[str, object] | None = None,
) -> Report:
    """Whether a step of a sampler makes of a true x_0 and ε what it should."""
    role, process = step_role(_predicts(predicts)), _process(betas)
    found = check_linear(role, function, process, given or {})
    for other in _PREDICTIONS:
        if found.verdict == "bug" and other != predicts:
            again = check_linear(step_role(other), function, process, given or {})
            if again.verdict in ("right", "equivalent"):
                words = f"with a model that predicts {other} the step is right"
                diagnosis = named("step", f"takes it for {other}", words)
                found = replace(found, diagnoses=(diagnosis, *found.diagnoses))
                break
    return Report((found,))


def sampler(
    function: Callable[..., object],
    betas: object,
    predicts: str = "eps",
    given: Mapping[str, object] | None = None,
) -> Report:
    """Whether a whole sampling loop does at every step what it should."""
    role = step_role(_predicts(predicts))
    return Report((check_loop(role, function, _process(betas), predicts, given or {}),))


def loss(
    function: Callable[..., object],
    betas: object,
    predicts: str = "eps",
    given: Mapping[str, object] | None = None,
) -> Report:
    """Whether a training loss asks for what the model predicts: eps, x_0, v, score or flow."""
    _predicts(predicts, tuple(TARGETS))
    return Report(check_loss(predicts, function, _process(betas), given or {}))


def _process(betas: object) -> Process:
    try:
        beta = torch.as_tensor(betas, dtype=torch.float64).detach().cpu()
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"betas is a {type(betas).__name__}: give the numbers β_1 … β_T") from None
    if beta.ndim != 1 or len(beta) < 2 or not ((beta > 0) & (beta < 1)).all():
        raise ValueError(
            f"betas has shape {tuple(beta.shape)}: give two numbers or more, β_1 … β_T, each above "
            "0 and below 1"
        )
    return Process(beta)


def _predicts(given: str, choices: tuple[str, ...] = _PREDICTIONS) -> str:
    if given not in choices:
        raise ValueError(f"predicts = {given!r}: choose {', '.join(choices)}")
    return given
