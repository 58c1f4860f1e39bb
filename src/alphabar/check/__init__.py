"""check: whether somebody's diffusion code is right, or which bug it has."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch

from alphabar.check.catalogue import named
from alphabar.check.formula import Process
from alphabar.check.linear import Role, check_linear
from alphabar.check.loop import check_loop
from alphabar.check.loss import check_loss
from alphabar.check.report import CheckFailed, Diagnosis, Finding, Report
from alphabar.check.roles import MARGINAL, POSTERIOR, TRANSITION
from alphabar.check.roles import step as step_role

__all__ = [
    "CheckFailed",
    "Diagnosis",
    "Finding",
    "Report",
    "marginal",
    "posterior",
    "step",
    "transition",
]


def marginal(
    function: Callable[..., object], betas: object, given: Mapping[str, object] | None = None
) -> Report:
    """Whether a function draws x_t of x_0 as q(x_t | x_0) says."""
    return _linear(MARGINAL, function, betas, given)


def transition(
    function: Callable[..., object], betas: object, given: Mapping[str, object] | None = None
) -> Report:
    """Whether a function draws x_t of x_{t−1} as q(x_t | x_{t−1}) says."""
    return _linear(TRANSITION, function, betas, given)


def posterior(
    function: Callable[..., object], betas: object, given: Mapping[str, object] | None = None
) -> Report:
    """Whether a function has the mean of q(x_{t−1} | x_t, x_0)."""
    return _linear(POSTERIOR, function, betas, given)


def step(
    function: Callable[..., object],
    betas: object,
    predicts: str = "eps",
    given: Mapping[str, object] | None = None,
) -> Report:
    """Whether a step of a sampler makes of a true x_0 and ε what it should."""
    report = _linear(step_role(predicts), function, betas, given)
    if report.verdict != "bug":
        return report
    for other in sorted({"eps", "x_0", "v"} - {predicts}):
        again = _linear(step_role(other), function, betas, given)
        if again.verdict in ("right", "equivalent"):
            words = f"with a model that predicts {other} the step is right"
            diagnosis = named("step", f"takes it for {other}", words)
            (found,) = report.functions
            return Report((replace(found, diagnoses=(diagnosis, *found.diagnoses)),))
    return report


def _linear(
    role: Role,
    function: Callable[..., object],
    betas: object,
    given: Mapping[str, object] | None,
) -> Report:
    process = Process(torch.as_tensor(betas, dtype=torch.float64))
    return Report((check_linear(role, function, process, given or {}),))


def sampler(
    function: Callable[..., object],
    betas: object,
    predicts: str = "eps",
    given: Mapping[str, object] | None = None,
) -> Report:
    """Whether a whole sampling loop does at every step what it should."""
    process = Process(torch.as_tensor(betas, dtype=torch.float64))
    return Report((check_loop(step_role(predicts), function, process, predicts, given or {}),))


def loss(
    function: Callable[..., object],
    betas: object,
    predicts: str = "eps",
    given: Mapping[str, object] | None = None,
) -> Report:
    """Whether a training loss asks for what the model is said to predict."""
    process = Process(torch.as_tensor(betas, dtype=torch.float64))
    return Report(check_loss(predicts, function, process, given or {}))
