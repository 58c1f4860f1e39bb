"""Checks of q(x_t | x_0): in a table's steps, or in continuous time; as a sample, or as moments.

x_t = α_t·x_0 + σ_t·ε        α² + σ² = 1, or α = 1, or α = 1 − t and σ = t
"""

from collections.abc import Callable, Mapping

import torch

from alphabar.check.formula import Continuum, Formula, Process
from alphabar.check.linear import Role, check_linear
from alphabar.check.moments import Spread, check_moments, has_moments
from alphabar.check.report import Finding
from alphabar.check.roles import MARGINAL, PRESERVING, STRAIGHT, VELOCITY, exploding
from alphabar.check.stranger import Stranger

SCALES = ("vp", "ve", "flow")
GIVES = ("sample", "mean", "mean_variance", "mean_std", "mean_log_variance", "v")
_VARIANCE = {
    "vp": Formula.of(noise=1),
    "ve": Formula.of(noise=1, abar=-1),
    "flow": Formula.of(spread=2),
}
_STATED = {
    "mean_variance": "variance",
    "mean_std": "standard deviation",
    "mean_log_variance": "log-variance",
}
# Of a process in continuous time: they may be times from 0 to 1, or σ.
_TIMES = torch.cat([torch.tensor([0.004]), torch.linspace(0.06, 0.94, 9), torch.ones(1)]).double()


def check_marginal(
    function: Callable[..., object],
    process: Process | None,
    scale: str,
    gives: str,
    dtype: torch.dtype,
    given: Mapping[str, object],
) -> Finding:
    """One function against the marginal in its scale."""
    role, levels = marginal_law(process, scale, gives)
    role = role._replace(dtype=dtype)
    if gives not in ("sample", "v") or has_moments(role, Stranger(function, given), levels):
        spread = Spread(_VARIANCE[scale], stated=_STATED.get(gives, ""))
        return check_moments(role, function, levels, spread, given)
    return check_linear(role, function, levels, given)


def marginal_law(process: Process | None, scale: str, gives: str) -> tuple[Role, Process]:
    """What is to be held, and the levels at which it is measured."""
    if process is not None:
        role = {"vp": MARGINAL, "ve": exploding(True), "flow": STRAIGHT}[scale]
        return (VELOCITY if gives == "v" else role), process
    role = {"vp": PRESERVING, "ve": exploding(False), "flow": STRAIGHT}[scale]
    return role, Continuum.at(_TIMES, 2 * ((1 - _TIMES) / _TIMES).log())
