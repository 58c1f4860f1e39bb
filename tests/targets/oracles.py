"""What the targets are held against: Bayes on a grid, sums written out, and nothing of theirs."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from alphabar.schedule import Level

LEVELS = {
    "vp": (0.8, 0.6),
    "vp, little noise": (0.9998, 0.02),
    "ve": (1.0, 0.7),
    "ve, much noise": (1.0, 30.0),
    "flow": (0.35, 0.65),
    "nearly all noise": (1e-3, 1.0),
}


def level(alpha: float | list[float], sigma: float | list[float]) -> Level:
    return Level(torch.tensor(alpha, dtype=torch.float64), torch.tensor(sigma, dtype=torch.float64))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def noisy(target: Callable[..., Tensor], at: Level, n: int = 12, seed: int = 5) -> Tensor:
    """x_t ~ p_t, float64."""
    x = target.sample(n, generator(seed))  # type: ignore[attr-defined]
    return at.alpha * x + at.sigma * normal(*x.shape, seed=seed + 1)


def posterior(
    atoms: Tensor, mass: Tensor, x: Tensor, alpha: float, sigma: float
) -> tuple[Tensor, Tensor, Tensor]:
    """log p_t, E[x_0|x_t] and Cov[x_0|x_t] by Bayes' rule over weighted atoms, item by item."""
    logs, means, covs = [], [], []
    for item in x.double().flatten(1):
        z = atoms.double().flatten(1)
        log = mass.log() - (item - alpha * z).square().sum(1) / (2 * sigma**2)
        log = log - z.shape[1] * (math.log(sigma) + 0.5 * math.log(2 * math.pi))
        p = torch.softmax(log, 0)
        mean = p @ z
        apart = z - mean
        logs.append(torch.logsumexp(log, 0))
        means.append(mean)
        covs.append(torch.einsum("n,nd,ne->de", p, apart, apart))
    return torch.stack(logs), torch.stack(means), torch.stack(covs)


def grid(low: float, high: float, n: int) -> tuple[Tensor, float]:
    """Cell centres of a square grid in the plane, (n², 2), and a cell's area."""
    step = (high - low) / n
    line = low + step * (torch.arange(n, dtype=torch.float64) + 0.5)
    return torch.cartesian_prod(line, line), step**2
