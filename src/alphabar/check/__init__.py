"""check: whether somebody's diffusion code is right, or which bug it has.

    report = check.marginal(my_q_sample, betas=my_betas)
    print(report)
    report.raise_if_failed()  # in a test suite of one's own

Every check takes the person's function, their β_t for t = 1..T, in (0, 1), and in `given` what else
the function is to be handed, by name. None raises for what the function does: that is in the
report. All raise `ValueError` for betas or a prediction that mean nothing.
"""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from alphabar.check.affine import NotFinite
from alphabar.check.drift import judge_drift
from alphabar.check.ema import check_ema
from alphabar.check.embedding import check_embedding
from alphabar.check.formula import process_of
from alphabar.check.guidance import check_guidance
from alphabar.check.langevin import check_langevin
from alphabar.check.likelihood import check_likelihood
from alphabar.check.linear import check_linear
from alphabar.check.loop import Loop, check_loop, check_moves, scales_of
from alphabar.check.loss import TARGETS, Facts, check_loss
from alphabar.check.marginal import GIVES, SCALES, check_marginal
from alphabar.check.report import CheckFailed, Diagnosis, Finding, Report
from alphabar.check.reverse import VARIANCES, check_posterior, check_step, clipped_loop
from alphabar.check.roles import TRANSITION
from alphabar.check.roles import step as step_role
from alphabar.check.scales import PREDICTIONS
from alphabar.check.schedule import check_schedule
from alphabar.check.scheduler import Facts as Held
from alphabar.check.scheduler import check_scheduler
from alphabar.check.time_sampling import check_time_sampling
from alphabar.check.weighting import CLAIMS, check_weighting

__all__ = [
    "CheckFailed",
    "Diagnosis",
    "Finding",
    "Report",
    "ema",
    "embedding",
    "guidance",
    "langevin",
    "likelihood",
    "loss",
    "marginal",
    "posterior",
    "sampler",
    "schedule",
    "scheduler",
    "step",
    "time_sampling",
    "transition",
    "weighting",
]


_PREDICTIONS = ("eps", "x_0", "v")


def _whole(check: Callable[..., Report]) -> Callable[..., Report]:
    """Whatever the person's function does in the middle of a check, there is a report.

    A `ValueError` is said of what the person has stated.
    """
    signature = inspect.signature(check)

    @functools.wraps(check)
    def guarded(*args: Any, **kwargs: Any) -> Report:
        function = next(iter(signature.bind(*args, **kwargs).arguments.values()))
        try:
            return check(*args, **kwargs)
        except Exception as error:
            if isinstance(error, ValueError) and not isinstance(error, NotFinite):
                raise
            name = getattr(function, "__qualname__", type(function).__name__)
            why = f"{name} could not be followed to the end: {type(error).__name__}: {error}"
            return Report((Finding(name, check.__name__, "unchecked", "", "", "", why=why),))

    return guarded


@_whole
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
    process = None if betas is None else process_of(betas)
    return Report((check_marginal(function, process, scale, gives, dtype, given or {}),))


@_whole
def transition(
    function: Callable[..., object], betas: object, given: Mapping[str, object] | None = None
) -> Report:
    """Whether a function draws x_t of x_{t−1}, or by t such steps of x_0 (the same, eq. (2))."""
    return Report((check_linear(TRANSITION, function, process_of(betas), given or {}),))


@_whole
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
        claims: the schedule's name, see `schedule`.
        given: other arguments, by name.
    """
    _choose("variance", variance, VARIANCES)
    found = check_posterior(function, process_of(betas), _predicts(predicts), variance, given or {})
    if claims is None:
        return Report((found,))
    return Report((found, check_schedule(betas, claims, "betas")))


@_whole
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
    process = process_of(betas)
    found = check_step(function, process, _predicts(predicts), variance, clip, given or {})
    return Report((found,))


@_whole
def sampler(
    function: Callable[..., object],
    betas: object = None,
    predicts: str = "eps",
    scale: str | None = None,
    steps: int | None = None,
    clip: float | None = None,
    sigma: Callable[[float], object] | None = None,
    sigmas: object = None,
    given: Mapping[str, object] | None = None,
) -> Report:
    """Whether a whole sampling loop does at every step what it should.

    Args:
        function: of a model, and of a shape, x_T or a number of items; of levels σ, if it takes
            them; or of a model, data and the step to which they are noised first.
        betas: β_1 … β_T; none where levels are named by σ or by a flow's time.
        predicts: eps, x_0 or v; score or flow too where there are no betas.
        scale: ve or flow, where there are no betas; vp where σ is given.
        steps: how many steps were asked for.
        clip: where x̂_0 is meant to be clipped.
        sigma: σ(t), of a flow in time that the loop integrates at a scale of its own.
        sigmas: the levels that it is meant to visit, from the noisiest to 0.
        given: other arguments, by name.
    """
    role = step_role(_predicts(predicts, PREDICTIONS if betas is None else _PREDICTIONS))
    process = None if betas is None else process_of(betas)
    scales = scales_of(process, _choose("scale", scale or "vp", SCALES))
    loop = Loop(function, scales, predicts, given or {}, sigmas=_sigmas(sigmas), steps=steps)
    found = check_loop(role, loop, judge_drift if sigma is not None else None)
    if sigma is None and found.verdict in ("right", "equivalent"):
        found = clipped_loop(found, loop, clip)
    return Report((replace(found, role="sampler"),))


@_whole
def scheduler(
    object_: object,
    betas: object = None,
    predicts: str = "eps",
    scale: str = "vp",
    variance: str = "fixed",
    clip: float | None = None,
    claims: str | None = None,
    given: Mapping[str, object] | None = None,
) -> Report:
    """Whether a scheduler as a whole is right: its tables, its marginal and its loop.

    Args:
        object_: with set_timesteps, timesteps and step; add_noise, scale_model_input, … if it has.
        betas: β_1 … β_T; its own `betas` if none are given.
        predicts: what the model says: eps, x_0 or v.
        scale: vp, or ve where x_t = x_0 + σ·ε.
        variance: fixed, or learned_range (Nichol & Dhariwal 2021, eq. (15)).
        clip: where x̂_0 is meant to be clipped.
        claims: the schedule's name, see `schedule`.
        given: other arguments, by name.
    """
    _choose("scale", scale, SCALES)
    _choose("variance", variance, VARIANCES)
    own = betas if betas is not None else getattr(object_, "betas", None)
    facts = Held(process_of(own), _predicts(predicts), scale, variance, clip, claims)
    return Report(check_scheduler(object_, facts, given or {}))


@_whole
def schedule(
    values: object,
    claims: str | None = None,
    gives: str = "betas",
    betas: object = None,
    steps: int | None = None,
    sigma: Callable[..., object] | None = None,
) -> Report:
    """Whether a table (or σ′) is what it is said to be: identities, order, ends, the end's KL.

    Args:
        values: the table; of σ′ a function of t; of timesteps a function of their number too.
        claims: the family: linear, scaled_linear, cosine, zero_terminal_snr, karras, …
        gives: what the numbers are: betas, alphas_cumprod, sigmas, timesteps, sigma_prime, …
        betas: β_1 … β_T, where they are something else.
        steps: how many timesteps were asked for.
        sigma: σ(t), for σ′.
    """
    found = check_schedule(values, claims, gives, betas=betas, steps=steps, sigma=sigma)
    return Report((found,))


@_whole
def weighting(
    function: object,
    betas: object,
    predicts: str = "eps",
    claims: str | None = None,
    gamma: float | None = None,
    given: Mapping[str, object] | None = None,
) -> Report:
    """Whether a loss is weighted at each level as it is said to be.

    Args:
        function: of t, or of the SNR; or a table of T numbers.
        betas: β_1 … β_T; the last may be 1.
        predicts: what the loss is an error of: eps, x_0 or v.
        claims: min_snr, p2, snr, snr+1, truncated, debiased, edm, sigmoid or uniform.
        gamma: of min_snr and p2.
        given: other arguments, by name.
    """
    return Report((check_weighting(function, betas, predicts, claims, gamma, given),))


@_whole
def time_sampling(
    function: Callable[..., object],
    betas: object = None,
    scale: str | None = None,
    given: Mapping[str, object] | None = None,
) -> Report:
    """Whether training times are drawn uniformly.

    Args:
        function: of how many, or of a shape.
        betas: β_1 … β_T; none where times are continuous.
        scale: vp with T steps, or flow with t in [0, 1].
        given: other arguments, by name.
    """
    T = None if betas is None else process_of(betas).T
    law = scale or ("flow" if T is None else "vp")
    return Report((check_time_sampling(function, T, law, given),))


@_whole
def guidance(
    function: Callable[..., object],
    betas: object = None,
    predicts: str = "eps",
    given: Mapping[str, object] | None = None,
) -> Report:
    """Whether guidance is u + s·(c − u), or a classifier's gradient is taken where it should be.

    Args:
        function: of a model, x, t, a label and s; of both answers and s; a class that wraps a
            model; or of a model, a gradient, x and t.
        betas: β_1 … β_T, for a classifier's.
        predicts: what the model says.
        given: other arguments, by name.
    """
    beta = None if betas is None else process_of(betas).beta
    return Report((check_guidance(function, beta, predicts, given),))


@_whole
def ema(
    make: Callable[..., Any], decay: float, given: Mapping[str, object] | None = None
) -> Report:
    """Whether an average of weights forgets as it is said to: by its answer to single impulses.

    Args:
        make: a class or function that makes the average of a network, or one that updates it.
        decay: what is kept of it at each update, in the end.
        given: other arguments, by name.
    """
    return Report((check_ema(make, decay, given),))


@_whole
def embedding(
    function: Callable[..., object], T: int = 1000, given: Mapping[str, object] | None = None
) -> Report:
    """Whether an embedding of t tells every t apart, and each item by its own.

    Args:
        function: of t, and of a width if it takes one; a module too.
        T: how many steps there are.
        given: other arguments, by name.
    """
    return Report((check_embedding(function, T, given),))


@_whole
def langevin(
    function: Callable[..., object],
    betas: object = None,
    scale: str | None = None,
    given: Mapping[str, object] | None = None,
) -> Report:
    """Whether Langevin moves keep the density as it is: noise of √(2·step) for a step.

    Args:
        function: of a score, x and a level, and of a step if it takes one; or a whole loop.
        betas: β_1 … β_T, where levels are steps.
        scale: vp, ve or flow.
        given: other arguments, by name.
    """
    beta = None if betas is None else process_of(betas).beta
    return Report((check_langevin(function, beta, scale or "vp", given),))


@_whole
def likelihood(
    function: Callable[..., object],
    betas: object,
    predicts: str = "eps",
    given: Mapping[str, object] | None = None,
) -> Report:
    """Whether a term of the variational bound is what it should be (Ho et al. 2020, eq. (5)).

    Args:
        function: of x_0; of a model, x_0, t and noise; or of two normal laws.
        betas: β_1 … β_T.
        predicts: what the model says.
        given: other arguments, by name.
    """
    return Report((check_likelihood(function, process_of(betas).beta, predicts, given),))


@_whole
def loss(
    function: Callable[..., object],
    betas: object = None,
    predicts: str = "eps",
    scale: str = "vp",
    data_range: tuple[float, float] | None = None,
    claims: str | None = None,
    gamma: float | None = None,
    given: Mapping[str, object] | None = None,
) -> Report:
    """Whether a training loss asks for what the model predicts, of the right x_t, at the right t.

    Args:
        function: of a model and x_0, and of t and noise if it takes them.
        betas: β_1 … β_T; none of a process in continuous time.
        predicts: eps, x_0, v, score or flow.
        scale: vp, ve or flow.
        data_range: of x_0 as it is handed over, where the loss brings it to [−1, 1] itself.
        claims: the weighting that it is meant to have, see `weighting`.
        gamma: of that weighting.
        given: other arguments, by name.
    """
    _predicts(predicts, tuple(TARGETS))
    _choose("scale", scale, SCALES)
    process = None if betas is None else process_of(betas)
    if claims is not None:
        _choose("claims", claims, CLAIMS)
    facts = Facts(predicts, process, scale, data_range, claims, gamma)
    return Report(check_loss(facts, function, given or {}))


def _sigmas(sigmas: object) -> torch.Tensor | None:
    if sigmas is None:
        return None
    try:
        found = torch.as_tensor(sigmas, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"sigmas is a {type(sigmas).__name__}: give the levels, 0 last") from None
    if found.ndim != 1 or len(found) < 2:
        raise ValueError(f"sigmas has shape {tuple(found.shape)}: give two levels or more, 0 last")
    return found


def _predicts(given: str, choices: tuple[str, ...] = _PREDICTIONS) -> str:
    return _choose("predicts", given, choices)


def _choose(name: str, given: str, choices: Sequence[str]) -> str:
    if given not in choices:
        raise ValueError(f"{name} = {given!r}: choose {', '.join(choices)}")
    return given
