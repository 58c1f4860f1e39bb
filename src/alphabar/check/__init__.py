"""check: whether somebody's diffusion code is right, or which bug it has.

    report = check.marginal(my_q_sample, betas=my_betas)
    print(report)
    report.raise_if_failed()  # in a test suite of one's own

Every check takes the person's function, their β_t for t = 1..T, in (0, 1), and in `given` what else
the function is to be handed, by name. None raises for what the function does: that is in the
report. All raise `ValueError` for betas or a prediction that mean nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from alphabar.check.catalogue import named
from alphabar.check.drift import judge_drift
from alphabar.check.formula import Process
from alphabar.check.linear import check_linear
from alphabar.check.loop import check_loop, check_moves, scales_of
from alphabar.check.loss import TARGETS, check_loss
from alphabar.check.marginal import GIVES, SCALES, check_marginal
from alphabar.check.report import CheckFailed, Diagnosis, Finding, Report
from alphabar.check.reverse import VARIANCES, check_posterior, check_step
from alphabar.check.roles import TRANSITION
from alphabar.check.roles import step as step_role
from alphabar.check.scales import PREDICTIONS

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
    function: Callable[..., object],
    betas: object = None,
    scale: str = "vp",
    gives: str = "sample",
    dtype: torch.dtype = torch.float32,
    given: Mapping[str, object] | None = None,
) -> Report:
    """Whether a function draws x_t of x_0 as q(x_t | x_0) says (Ho et al. 2020, eq. (4)).

    Args:
        function: of x_0 and t, and of noise if it takes any.
        betas: β_1 … β_T; none of a process in continuous time, whose t is from 0 to 1, or σ.
        scale: vp (α² + σ² = 1), ve (α = 1) or flow (α = 1 − t, σ = t).
        gives: a sample, the mean alone, moments (mean_variance, mean_std, mean_log_variance), or v.
        dtype: of x_0; what comes back may be rounded to it, and no more.
        given: other arguments, by name.
    """
    _choose("scale", scale, SCALES)
    _choose("gives", gives, GIVES)
    process = None if betas is None else _process(betas)
    return Report((check_marginal(function, process, scale, gives, dtype, given or {}),))


def transition(
    function: Callable[..., object], betas: object, given: Mapping[str, object] | None = None
) -> Report:
    """Whether a function draws x_t of x_{t−1}, or by t such steps of x_0 (the same, eq. (2))."""
    return Report((check_linear(TRANSITION, function, _process(betas), given or {}),))


def posterior(
    function: Callable[..., object],
    betas: object,
    predicts: str = "eps",
    variance: str = "fixed",
    claims: str | None = None,
    given: Mapping[str, object] | None = None,
) -> Report:
    """Whether a function has the moments of q(x_{t−1} | x_t, x_0) (the same, eqs. (6) and (7)).

    Args:
        function: of x_0, x_t and t; or of a model, x_t and t.
        betas: β_1 … β_T.
        predicts: what a model says: eps, x_0 or v.
        variance: fixed, or learned_range (Nichol & Dhariwal 2021, eq. (15)).
        claims: the schedule's name, for the record.
        given: other arguments, by name.
    """
    _choose("variance", variance, VARIANCES)
    found = check_posterior(function, _process(betas), _predicts(predicts), variance, given or {})
    return Report((found,))


def step(
    function: Callable[..., object],
    betas: object = None,
    predicts: str = "eps",
    scale: str | None = None,
    variance: str = "fixed",
    clip: float | None = None,
    given: Mapping[str, object] | None = None,
) -> Report:
    """Whether a step of a sampler makes of a true x_0 and ε what it should.

    Args:
        function: of a model (or its answer), x_t and t, and of the next level if it takes one.
        betas: β_1 … β_T; none where levels are named by σ or by a flow's time.
        predicts: what the model says: eps, x_0 or v; score or flow too where there are no betas.
        scale: ve or flow, where there are no betas.
        variance: fixed, or learned_range (Nichol & Dhariwal 2021, eq. (15)).
        clip: where x̂_0 is meant to be clipped.
        given: other arguments, by name.
    """
    _choose("variance", variance, VARIANCES)
    if betas is None:
        levels = scales_of(None, _choose("scale", scale or "ve", SCALES))
        law = step_role(_predicts(predicts, PREDICTIONS))
        return Report((check_moves(law, function, levels, predicts, given or {}),))
    process = _process(betas)
    found = check_step(function, process, _predicts(predicts), variance, clip, given or {})
    return Report((found,))


def sampler(
    function: Callable[..., object],
    betas: object = None,
    predicts: str = "eps",
    scale: str | None = None,
    steps: int | None = None,
    sigma: Callable[[float], object] | None = None,
    sigmas: object = None,
    given: Mapping[str, object] | None = None,
) -> Report:
    """Whether a whole sampling loop does at every step what it should."""
    role = step_role(_predicts(predicts, PREDICTIONS))
    process = None if betas is None else _process(betas)
    scales = scales_of(process, scale or "vp")
    judge = judge_drift if sigma is not None else None
    found = check_loop(role, function, scales, predicts, given or {}, _levels(sigmas), judge=judge)
    return Report((found,))


def _levels(sigmas: object) -> Tensor:
    """σ from the noisiest to clean data, as stated, or 40 of our own (Karras et al. 2022, (5))."""
    if sigmas is not None:
        return torch.as_tensor(sigmas, dtype=torch.float64)
    rise = torch.linspace(80.0 ** (1 / 7), 0.002 ** (1 / 7), 40, dtype=torch.float64)
    return torch.cat([rise**7, torch.zeros(1, dtype=torch.float64)])


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
    return _choose("predicts", given, choices)


def _choose(name: str, given: str, choices: Sequence[str]) -> str:
    if given not in choices:
        raise ValueError(f"{name} = {given!r}: choose {', '.join(choices)}")
    return given
