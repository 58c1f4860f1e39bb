"""What multistep samplers share: the flow's integral with x̂_0 replaced by a polynomial.

With λ/2 = log(α/σ), half the log-SNR (`lam` below), the reverse process from t to s is exactly

    x_s = (σ_s/σ_t)·e^(−ηh)·x_t + α_s·∫_0^h (1 + η)·e^(−(1+η)(h−τ))·x̂_0(λ_t/2 + τ) dτ + d·z

    h = (λ_s − λ_t)/2,    d² = σ_s²·(1 − e^(−2ηh))

where η is how much noise comes on the way: 0 for the probability flow, 1 for the reverse SDE (Lu et
al. 2022, *DPM-Solver++*, prop. 4.1; Gonzalez et al. 2023, *SEEDS*). A method of order p puts the
polynomial through p answers of the denoiser in place of x̂_0: a weighted sum of these.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from alphabar.samplers.base import Mix, Move, one_call_a_step, scalars
from alphabar.schedule import Level


def moments(H: Float64[Tensor, " n"], count: int) -> Float64[Tensor, "n count"]:
    """M_k = ∫_0^1 H·e^(−H(1−u))·u^k du for k = 0..count−1, of steps of length H ≠ 0.

    M_0 = 1 − e^(−H),  M_k = 1 − k·M_{k−1}/H; for |H| < 2, where that cancels, the series
    M_k = H·e^(−H)·Σ_j H^j/(j!·(j + k + 1)).
    """
    short = H.abs() < 2
    near, far = torch.where(short, H, 1.0), torch.where(short, 3.0, H)
    j = torch.arange(24, dtype=torch.float64)
    powers = near[:, None] ** j / torch.lgamma(j + 1).exp()
    columns, m = [], -torch.expm1(-far)
    for k in range(count):
        if k:
            m = 1 - k * m / far
        series = near * torch.exp(-near) * (powers / (j + k + 1)).sum(1)
        columns.append(torch.where(short, series, m))
    return torch.stack(columns, 1)


def weights(
    moments: Float64[Tensor, "n p"], nodes: Float64[Tensor, "n p"]
) -> Float64[Tensor, "n p"]:
    """What each of p answers counts in ∫ (the polynomial through them), by step.

    Args:
        moments: the integrals of u^0, …, u^(p−1) over the step, u from 0 to 1.
        nodes: the u at which the answers were given; 0 is the step's start, 1 its end.
    """
    # Σ_j w_j·u_j^k = M_k for all k < p: the weights are right for every polynomial below p.
    powers = nodes[:, None, :] ** torch.arange(nodes.shape[1], dtype=torch.float64)[:, None]
    return torch.linalg.solve(powers, moments[..., None])[..., 0]


def counts(at: Float64[Tensor, " levels"], order: int) -> list[int]:
    """How many answers can carry the polynomial of each step i → i+1: those at i, i−1, ….

    One where the step has no finite length, such as to σ = 0: there only x̂_0 itself counts.
    """
    finite = at.isfinite().tolist()
    found = []
    for i in range(len(at) - 1):
        known = next((k for k in range(order) if i < k or not finite[i - k]), order)
        found.append(max(known, 1) if finite[i + 1] else 1)
    return found


def polynomial_rows(
    at: Float64[Tensor, " levels"],
    moments: Callable[[Int64[Tensor, " m"], int], Float64[Tensor, "m count"]],
    alone: Float64[Tensor, " n"],
    order: int,
    ahead: bool = False,
) -> Float64[Tensor, "n count"]:
    """What the answers at i+1 (if `ahead`), i, i−1, … count in each step i → i+1.

    Args:
        at: the variable of the polynomial at each level. Where it is infinite there is no
            polynomial.
        moments: (steps, count) → the integrals of u^0, …, u^(count−1) over these steps.
        alone: what the answer at i counts where it is the only one.
        order: how many answers from i back, where there are as many; a row is filled with 0.
    """
    known = torch.tensor(counts(at, order))
    finite = at.isfinite()
    rows = torch.zeros(len(alone), order + ahead, dtype=torch.float64)
    rows[:, int(ahead)] = alone
    for p in range(1 if ahead else 2, order + 1):
        steps = ((known == p) & finite[:-1] & finite[1:]).nonzero().flatten()
        here = at[steps]
        levels = steps[:, None] - torch.arange(-int(ahead), p)  # i+1, i, i−1, …
        nodes = (at[levels] - here[:, None]) / (at[steps + 1] - here)[:, None]
        rows[steps, : p + ahead] = weights(moments(steps, p + ahead), nodes)
    return rows


def mixes_of(
    a: Float64[Tensor, " n"], rows: Float64[Tensor, "n count"], d: Float64[Tensor, " n"] | None
) -> list[Mix]:
    """The mixes of steps with these coefficients: a row holds b, c_1, c_2, …."""
    spread = map(scalars, rows.unbind()) if rows.requires_grad else rows.tolist()
    noise = [0.0] * len(a) if d is None else scalars(d)
    return [
        Mix(a_i, b, tuple(c), d_i)
        for a_i, (b, *c), d_i in zip(scalars(a), spread, noise, strict=True)
    ]


def start_made_good(path: Level, mixes: list[Mix], again: Callable[[int], Mix]) -> list[Move]:
    """One call a step, and the first step of finite length made twice.

    A multistep method has nothing to extrapolate from at its start, and an Euler step there caps
    its order at 2. So that step is only a question; when the answer is there, the step is made
    again with both, as part of the second. No further call is needed.

    Args:
        path: the levels.
        mixes: each step by itself.
        again: again(i) is step i with two answers: `b` for the one at its end, `c` for the one at
            its start.
    """
    moves = one_call_a_step(path, mixes)
    finite = path.log_snr.isfinite().tolist()
    i = finite.index(True) if True in finite else len(finite)
    if i + 2 < len(finite) and finite[i + 1]:
        first, second = again(i), mixes[i + 1]
        c = [*second.c, *[0.0] * (len(first.c) - len(second.c))]
        for k, value in enumerate(first.c):
            c[k] = c[k] + second.a * value
        both = Mix(second.a * first.a, second.b + second.a * first.b, tuple(c))
        moves[i] = Move(moves[i].at, None, mixes[i], i + 1)
        moves[i + 1] = Move(moves[i + 1].at, both, reaches=i + 2)
    return moves
