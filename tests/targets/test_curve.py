"""`Curve` against adaptive quadrature of scipy's."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from oracles import level, normal
from scipy.integrate import quad
from torch import Tensor

from alphabar.data import load
from alphabar.targets import Curve, target_of

SETS = ["swiss_roll", "moons", "circles:factor=0.3", "s_curve", "spirals", "rings:rings=3"]


def by_quadrature(
    target: Curve, x: np.ndarray, alpha: float, sigma: float
) -> tuple[float, np.ndarray]:
    """log p_t and E[x_0|x_t] at one x."""
    s = target.noise
    v = alpha**2 * s**2 + sigma**2

    def seen(u: float) -> tuple[np.ndarray, float]:
        c = target.curve(torch.tensor([u], dtype=torch.float64))[0].numpy()
        return c, -((x - alpha * c) ** 2).sum() / (2 * v)

    line = np.linspace(target.pieces[0] + 1e-9, target.pieces[-1] - 1e-9, 4001)
    c = target.curve(torch.from_numpy(line)).numpy()
    logs = -((x - alpha * c) ** 2).sum(1) / (2 * v)
    top, best = logs.max(), line[logs.argmax()]

    def integral(of) -> float:
        total = 0.0
        for a, b in pairwise(target.pieces):
            near = [best + k * 0.01 for k in range(-5, 6) if a < best + k * 0.01 < b]
            for low, high in pairwise([a, *near, b]):
                total += quad(of, low, high, epsabs=1e-13, epsrel=1e-12, limit=200)[0]
        return total / (target.pieces[-1] - target.pieces[0])

    z = integral(lambda u: math.exp(seen(u)[1] - top))
    nodes = np.array(
        [integral(lambda u, j=j: seen(u)[0][j] * math.exp(seen(u)[1] - top)) / z for j in (0, 1)]
    )
    log = math.log(z) + top - math.log(2 * math.pi * v)
    return log, sigma**2 / v * nodes + alpha * s**2 / v * x


@pytest.mark.parametrize(("alpha", "sigma"), [(1.0, 0.01), (0.8, 0.6)])
@pytest.mark.parametrize("spec", SETS)
def test_against_adaptive_quadrature(spec: str, alpha: float, sigma: float) -> None:
    target = target_of(load(spec + ("," if ":" in spec else ":") + "n=10"))
    assert isinstance(target, Curve)
    at = level(alpha, sigma)
    x = alpha * target.sample(2, torch.Generator().manual_seed(3)) + 2 * sigma * normal(2, 2)
    for item in x:
        log, mean = by_quadrature(target, item.numpy(), alpha, sigma)
        assert target.log_prob(item[None], at).item() == pytest.approx(log, abs=1e-9)
        np.testing.assert_allclose(target.denoise(item[None], at)[0], mean, rtol=0, atol=1e-9)


def test_the_rolls_error_is_as_stated() -> None:
    """1e-10, of log p_t and of the mean, against 4,000 nodes typed here."""
    target = target_of(load("swiss_roll:n=10"))
    y, w = np.polynomial.legendre.leggauss(1000)
    u = (np.arange(4)[:, None] + (y + 1) / 2) / 4
    t = torch.from_numpy(1.5 * math.pi * (1 + 2 * u.ravel()))
    atoms = torch.stack([t * t.cos(), t * t.sin()], 1) / 10
    log_w = torch.from_numpy(np.tile(w / 8, 4)).log()
    for alpha, sigma in ((1.0, 0.001), (0.9, 0.1), (1.0, 0.5), (0.6, 0.8), (0.1, 1.0)):
        v = (0.1 * alpha) ** 2 + sigma**2
        x = alpha * target.sample(400, torch.Generator().manual_seed(1))
        x += sigma * normal(400, 2) + 2 * math.sqrt(v) * normal(400, 2, seed=2)
        e = log_w - (x[:, None] - alpha * atoms).square().sum(2) / (2 * v)
        log = e.logsumexp(1) - math.log(2 * math.pi * v)
        mean = sigma**2 / v * (e.softmax(1) @ atoms) + alpha * 0.01 / v * x
        at = level(alpha, sigma)
        assert (target.log_prob(x, at) - log).abs().max() < 3e-10
        assert (target.denoise(x, at) - mean).abs().max() < 1e-10
        narrow = target.denoise(x.float(), at).double()
        assert (narrow - target.denoise(x.float().double(), at)).abs().max() < 1e-3 * sigma + 3e-7


def test_fewer_nodes_where_there_is_more_noise() -> None:
    target = target_of(load("swiss_roll:n=10"))
    assert isinstance(target, Curve)
    counts = [target.nodes(rho) for rho in (0.1, 0.2, 0.4, 0.8, 1e3)]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] <= 260
    assert counts[-1] < 60


def test_a_bare_curve_is_followed_down() -> None:
    """A straight line without noise: the posterior is a Gaussian along it, cut off far away."""
    line = Curve(lambda u: torch.stack([4 * u - 2, 0 * u], 1), noise=0)
    for sigma in (0.3, 1e-2, 3e-3):
        x = torch.tensor([[0.1, 0.5 * sigma], [-0.3, -2 * sigma]], dtype=torch.float64)
        at = level(1.0, sigma)
        expected = torch.stack([x[:, 0], 0 * x[:, 1]], 1)
        if sigma < 0.1:
            torch.testing.assert_close(line.denoise(x, at), expected, rtol=0, atol=1e-9 * sigma)
            log = -0.5 * (x[:, 1] / sigma) ** 2 - 0.5 * math.log(2 * math.pi * sigma**2)
            torch.testing.assert_close(line.log_prob(x, at), log - math.log(4), rtol=0, atol=1e-8)


def test_what_cannot_be_resolved_says_so() -> None:
    line = Curve(lambda u: torch.stack([u, u], 1), noise=0)
    with pytest.raises(ValueError, match=r"nodes do not resolve the curve.*noisier level"):
        line.denoise(torch.zeros(1, 2), level(1.0, 1e-8))

    def jump(u: Tensor) -> Tensor:
        return torch.stack([u, (u > 0.37).double()], 1)

    with pytest.raises(ValueError, match="name in `pieces`"):
        Curve(jump, noise=0.3).denoise(torch.zeros(1, 2), level(1.0, 0.1))
    whole = Curve(jump, noise=0.3, pieces=(0, 0.37, 1))
    assert whole.mean.tolist() == pytest.approx([0.5, 0.63])


def test_refuses() -> None:
    with pytest.raises(ValueError, match=r"pieces = \[1.0, 0.0\]: they must increase"):
        Curve(lambda u: u[:, None], 0.1, (1, 0))
    with pytest.raises(ValueError, match="noise = -1"):
        Curve(lambda u: u[:, None], -1.0)
    with pytest.raises(ValueError, match="must be finite for every u"):
        Curve(lambda u: (u - 0.5).log()[:, None], 0.1)
