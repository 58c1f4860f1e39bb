"""What a trained denoiser says of true points, in nats: their likelihood and its bound.

    −log p̂(x)  =  −log p̂_z(z) + Σ_k log s_k,    z = (x − m)/s            x in the data's own units
    H(p)  ≤  E[−log p̂(x)]  =  H(p) + KL(p ‖ p̂)                       x ~ p, true points

p̂ is the law that the probability flow of the denoiser draws from: `likelihood`. The variational
bound by the ancestral steps of a schedule, `bound`, lies above the entropy too, though p̂ is not the
law of those steps. Data that are integers have no density, and the bound is of their probability,
by a discretised decoder: in bits. Where p is known, H(p) and KL(p ‖ p̂) are measured on the same
points: most of what their −log p happens to be is shared and cancels from the difference.
"""

import copy
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from alphabar.bound import Bound, Discretised, Variance, bound
from alphabar.compare import Halves
from alphabar.data import Data, Standardiser
from alphabar.denoise import NetDenoiser
from alphabar.evaluate import Fresh
from alphabar.likelihood import Trace, log_likelihood
from alphabar.samplers import Normal
from alphabar.schedule import Level, Schedule
from alphabar.targets import Target

MOST = 1_000  # true points
MOST_INTEGERS = 2**16  # beyond, a bin is so small that a density says the same
EXACT = 32  # dimensions up to which the trace is summed exactly
_STREAM = 15  # of `evaluate.Reference.sets`: no metric draws these points


class Mean(NamedTuple):
    """The mean of a number over items, in nats an item."""

    nats: float
    standard_error: float

    @classmethod
    def of(cls, each: Float64[Tensor, " n"]) -> "Mean":
        """That of two items or more."""
        return cls(each.mean().item(), (each.std() / math.sqrt(len(each))).item())

    def to_dict(self, d: int) -> dict[str, float]:
        """For JSON: an item, and a dimension."""
        return {
            "nats": self.nats,
            "standard_error": self.standard_error,
            "nats_per_dim": self.nats / d,
            "standard_error_per_dim": self.standard_error / d,
        }


class Nats(NamedTuple):
    """What true points cost, all in the data's own units."""

    n: int
    d: int
    nll: Mean | None  # −log p̂; None where the flow has no density, and
    reason: str | None  # says why
    trace: Trace
    nfe: int | None
    bound: Bound  # nats a dimension; of integers, of their probability
    integers: tuple[int, int] | None  # the lowest and the highest, where the data are such
    schedule: Schedule
    variance: Variance
    entropy: Mean | None  # −log p of the same points; None where p is not known
    divergence: Mean | None  # log p − log p̂

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        found = self.bound

        def shown(mean: Mean | None) -> dict[str, float] | None:
            return None if mean is None else mean.to_dict(self.d)

        return {
            "n": self.n,
            "dimensions": self.d,
            "nll": shown(self.nll),
            "reason": self.reason,
            "trace": self.trace,
            "nfe": self.nfe,
            "bound": {
                "schedule": self.schedule.spec,
                "variance": self.variance,
                "prior": found.prior,
                "diffusion": found.terms[1:].sum().item(),
                "reconstruction": found.reconstruction,
                "total": found.total,
                "standard_error": found.standard_error,
                "bits": found.bits,
                "integers": self.integers and list(self.integers),
                "terms": found.terms.tolist(),
            },
            "entropy": shown(self.entropy),
            "divergence": shown(self.divergence),
        }


def true_points(data: Data, parts: Halves | None, seed: int) -> Float64[Tensor, "n d"]:
    """Up to `MOST` points that nothing was trained on, in the data's units.

    Args:
        data: what can be drawn from afresh, or a file's rows.
        parts: which rows were trained on; None for rows that are all truth.
        seed: determines which.
    """
    if data.fresh is not None:
        return Fresh(data.fresh).sets(1, MOST, seed, _STREAM)[0]
    rows = data.x if parts is None else data.x[parts.held_out]
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed % 2**63))
    return rows[order[:MOST]]


def integers_of(x: Float[Tensor, "n d"]) -> tuple[int, int] | None:
    """The lowest and the highest of data that are integers; None of others, and of one integer."""
    low, high = x.min().item(), x.max().item()
    whole = low < high and high - low < MOST_INTEGERS and torch.equal(x, x.round())
    return (int(low), int(high)) if whole else None


def nats(
    denoiser: NetDenoiser,
    x: Float64[Tensor, "n d"],
    standardiser: Standardiser | None,
    schedule: Schedule,
    start: Normal | None,
    seed: int,
    target: Target | None = None,
    integers: tuple[int, int] | None = None,
    advance: Callable[[], None] = lambda: None,
) -> Nats:
    """What true points cost by a trained denoiser.

    Args:
        denoiser: the trained one; a copy in float64 is asked, as the flow's density needs.
        x: true points in the data's own units, two or more.
        standardiser: what brought the data to the denoiser's units.
        schedule: the steps of the bound; the flow begins at the noisiest.
        start: the law of x_T, as of `samplers.sample`, in the denoiser's units.
        seed: determines the noise of the bound, and the probes of a trace in many dimensions.
        target: the law of the data in their own units, where it is known.
        integers: the lowest and the highest, where the data are integers: `integers_of`.
        advance: called T + 1 times.

    Raises:
        ValueError: a denoiser that returns what is not finite; points that are none of `integers`.
    """
    n, d = x.shape

    def scaled(values: Tensor) -> Tensor:
        return values if standardiser is None else standardiser.apply(values)

    z = scaled(x)
    stretch = 0.0 if standardiser is None else standardiser.std.log().sum().item()
    wide = copy.deepcopy(denoiser).double()
    # Integers are single points, for which β̃ is right, and data with a density are not.
    variance: Variance = "beta" if integers is None else "posterior"
    variance = "learned" if denoiser.learns_variance else variance
    decoder = None
    if integers is not None:
        low, high = integers
        ends = (scaled(torch.full((1, d), end, dtype=torch.float64))[0] for end in integers)
        decoder = Discretised(high - low + 1, *ends)
    found = bound(wide, z, schedule, seed, variance, start, decoder, advance=advance)
    if decoder is None:  # a density depends on the unit, a probability does not
        found = found._replace(
            terms=torch.cat([found.terms[:1] + stretch / d, found.terms[1:]]),
            total=found.total + stretch / d,
        )
    each, reason, nfe = None, None, None
    trace: Trace = "exact" if d <= EXACT else "hutchinson"
    try:
        flow = log_likelihood(wide, z, schedule, start, trace, seed=seed)
        each, nfe = stretch - flow.log_prob, flow.nfe
    except ValueError as error:  # a set of points, or a net that ends like one, has no density
        reason = str(error)
    advance()
    own = None if target is None else _own(target, x)
    return Nats(
        n,
        d,
        None if each is None else Mean.of(each),
        reason,
        trace,
        nfe,
        found,
        integers,
        schedule,
        variance,
        None if own is None else Mean.of(own),
        None if own is None or each is None else Mean.of(each - own),
    )


def _own(target: Target, x: Float[Tensor, "n d"]) -> Float64[Tensor, " n"] | None:
    """−log p(x); None where p has no density."""
    clean = Level(torch.tensor(1.0).double(), torch.tensor(0.0).double())
    try:
        return -target.log_prob(x, clean)
    except ValueError:
        return None
