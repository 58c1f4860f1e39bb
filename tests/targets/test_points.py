"""`Points` where it is hard: float32 near σ = 0, every engine, every scale, bad input."""

import math

import mpmath
import pytest
import torch
from oracles import generator, level, normal, posterior
from torch import Tensor

from alphabar.targets import Points
from alphabar.targets.cells import Cells, halved

RELATIVE = [1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 1e4]  # σ in units of the data's scale


def exact(points: Tensor, x: Tensor, sigma: float) -> Tensor:
    """The mean, from differences, in float64."""
    squares = torch.stack([(item - points.double()).square().sum(1) for item in x.double()])
    least = squares.amin(1, keepdim=True)
    return torch.softmax((least - squares) / (2 * sigma**2), 1) @ points.double()


def worst(found: Tensor, truth: Tensor, sigma: float) -> float:
    """The largest error of a number in units of σ, less a rounding of the result."""
    rounding = torch.finfo(found.dtype).eps * truth.abs()
    return ((found.double() - truth).abs() - rounding).clamp_min(0).max().item() / sigma


@pytest.mark.parametrize("relative", RELATIVE)
@pytest.mark.parametrize(("n", "d"), [(6000, 1), (6000, 2), (3000, 3), (1500, 20), (300, 3072)])
def test_float32_is_right_at_every_level(n: int, d: int, relative: float) -> None:
    """Below 1e-3·σ from σ = 1e-4 of the data's scale on, through whichever engine serves."""
    points = normal(n, d).float()
    target = Points(points)
    for offset in (0.0, 28.0):
        way = torch.nn.functional.normalize(normal(512, d, seed=1), dim=1)
        x = points[torch.arange(512) % n].double() + relative * normal(512, d, seed=2)
        x = (x + offset * relative * way).float()
        at = level(1.0, relative)
        found, some = target.denoise(x, at), slice(None, None, 16)
        truth = exact(points, x[some], relative)
        assert found.dtype == torch.float32
        assert worst(found[some], truth, relative) < 1e-3
        wide = target.denoise(x[some].double(), at)
        assert worst(wide, truth, relative) < 1e-6


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize("d", [1, 2, 1000])
def test_any_unit_will_do(scale: float, offset: float, d: int) -> None:
    points = scale * (normal(200, d) + offset)
    target = Points(points)
    for relative in (1e-2, 1.0, 1e2):
        sigma = scale * relative
        x = points[:8] + sigma * normal(8, d, seed=3)
        log, mean, cov = posterior(points, target.weights, x, 1.0, sigma)
        at = level(1.0, sigma)
        torch.testing.assert_close(target.log_prob(x, at), log, rtol=1e-7, atol=1e-6)
        assert worst(target.denoise(x, at), mean, sigma) < 1e-5
        error = target.posterior_cov(x[:2], at) - cov[:2]
        assert error.abs().max() < 1e-5 * scale**2


def test_thirty_digits_agree() -> None:
    """The mean and log p_t in exact arithmetic, σ = 1e-4, midway between two points."""
    points = torch.tensor([[0.1, 0.2], [0.1003, 0.2], [-0.7, 0.4]], dtype=torch.float64)
    x = torch.tensor([[0.100151, 0.2001]], dtype=torch.float64)
    alpha, sigma = 0.75, 1e-4
    mpmath.mp.dps = 30
    y = [mpmath.mpf(v) * mpmath.mpf(alpha) for v in x[0].tolist()]
    w = [
        mpmath.exp(
            -sum((a - alpha * mpmath.mpf(b)) ** 2 for a, b in zip(y, p.tolist(), strict=True))
            / (2 * mpmath.mpf(sigma) ** 2)
        )
        for p in points
    ]
    mean = [sum(a * p[j].item() for a, p in zip(w, points, strict=True)) / sum(w) for j in (0, 1)]
    log = mpmath.log(sum(w) / 3 / (2 * mpmath.pi * mpmath.mpf(sigma) ** 2))
    target, at = Points(points), level(alpha, sigma)
    found = target.denoise(alpha * x, at)[0]
    assert found.tolist() == pytest.approx([float(m) for m in mean], abs=1e-6 * sigma)
    assert target.log_prob(alpha * x, at).item() == pytest.approx(float(log), rel=1e-9)
    narrow = target.denoise((alpha * x).float(), at)
    truth = exact(points, (alpha * x).float() / alpha, sigma / alpha)
    assert worst(narrow, truth, sigma) < 1e-3


@pytest.mark.parametrize("sigma", [1e-5, 1e-3, 0.02, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_near_neighbours_are_all_that_counts(sigma: float, weighted: bool) -> None:
    """Boxes against all points, with weights over ten orders of magnitude and clusters."""
    n = 5000
    points = torch.cat([normal(n // 2, 2), 5 + 0.01 * normal(n - n // 2, 2, seed=1)])
    weights = (4 * normal(n, seed=2)).exp() if weighted else None
    target = Points(points, weights)
    x = points[::5] + sigma * normal(1000, 2, seed=3)
    x[::7] += 40 * sigma * normal(143, 2, seed=4)
    at = level(1.0, sigma)
    found = target.denoise(x, at)
    _, mean, _ = posterior(points, target.weights, x[::9], 1.0, sigma)
    assert worst(found[::9], mean, sigma) < 1e-6
    # Each item at a level of its own, all octaves in one batch.
    sigmas = (10 ** torch.linspace(-6, 4, 1000, dtype=torch.float64)).tolist()
    y = points[::5] + torch.tensor(sigmas)[:, None] * normal(1000, 2, seed=5)
    whole = target.denoise(y, level([1.0] * 1000, sigmas))
    for i in range(0, 1000, 37):
        _, mean, _ = posterior(points, target.weights, y[i : i + 1], 1.0, sigmas[i])
        assert worst(whole[i : i + 1], mean, sigmas[i]) < 1e-6


@pytest.mark.parametrize(("n", "d"), [(3000, 2), (3000, 1), (50, 2), (400, 200)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_clean_limit_is_the_nearest_point(n: int, d: int, dtype: torch.dtype) -> None:
    points = normal(n, d).to(dtype)
    x = (points[:700] + 0.3 * normal(min(n, 700), d, seed=1)).to(dtype)
    found = Points(points).denoise(x, level(1.0, 0.0))
    nearest = torch.stack(
        [points[(p.double() - points.double()).square().sum(1).argmin()] for p in x]
    )
    torch.testing.assert_close(found, nearest, rtol=2e-7, atol=1e-12)


def test_points_that_tie_are_averaged_by_weight() -> None:
    target = Points(torch.tensor([[-1.0], [1.0], [9.0]]), weights=[1, 3, 5])
    for sigma in (0.0, 1e-6, 0.05):
        assert target.denoise(torch.zeros(1, 1), level(1.0, sigma)).item() == pytest.approx(0.5)


def test_duplicates_are_weights() -> None:
    a = Points(torch.tensor([[0.0, 1.0]] * 3 + [[2.0, 0.0]]))
    b = Points(torch.tensor([[0.0, 1.0], [2.0, 0.0]]), weights=[3, 1])
    x = normal(9, 2)
    for sigma in (1e-3, 0.7, 50.0):
        at = level(0.9, sigma)
        for name in ("denoise", "score", "log_prob", "posterior_cov"):
            torch.testing.assert_close(
                getattr(a, name)(x, at), getattr(b, name)(x, at), rtol=1e-9, atol=1e-12
            )


def test_many_copies_of_one_point() -> None:
    target = Points(torch.full((3000, 2), 0.3))
    x = normal(2000, 2)
    for sigma in (0.0, 1e-300, 1e-5, 1.0, 1e5):
        found = target.denoise(x, level(1.0, sigma))
        torch.testing.assert_close(found, torch.full_like(x, 0.3), rtol=1e-6, atol=0)


def test_noise_makes_a_kernel_density_estimate() -> None:
    from scipy.stats import gaussian_kde

    points = normal(200, 2)
    kde = gaussian_kde(points.T.numpy(), bw_method=0.3)
    white = torch.linalg.cholesky(torch.from_numpy(kde.covariance))
    z = torch.linalg.solve_triangular(white, points.T, upper=False).T
    target = Points(z, noise=1.0)
    at = torch.linalg.solve_triangular(white, normal(50, 2, seed=3).T, upper=False).T
    found = target.log_prob(at, level(1.0, 0.0)) - torch.logdet(white)
    expected = torch.from_numpy(kde.logpdf(normal(50, 2, seed=3).T.numpy()))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_draws_points_by_weight() -> None:
    """100,000 draws; a share strays by 6 standard errors once in 5e8."""
    target = Points(torch.tensor([0.0, 1.0, 2.0]), weights=[1, 2, 5])
    x = target.sample(100_000, generator())
    for value, share in enumerate((1 / 8, 2 / 8, 5 / 8)):
        error = 6 * math.sqrt(share * (1 - share) / 100_000)
        assert (x == value).double().mean().item() == pytest.approx(share, abs=error)


@pytest.mark.parametrize("n", [1, 2, 31, 32, 33, 100, 1000, 4097])
@pytest.mark.parametrize("d", [1, 3])
def test_halving_keeps_every_point_once(n: int, d: int) -> None:
    index = halved(normal(n, d), 32)
    assert index.shape[1] <= 32
    own = index[index < n]
    assert torch.equal(own.sort().values, torch.arange(n))
    cells = Cells(normal(n, d), torch.zeros(n, dtype=torch.float64), 32)
    assert cells.log_total.exp().sum().item() == pytest.approx(n)


@pytest.mark.parametrize("spread", [0.0, 20.0])
def test_what_the_boxes_leave_out_weighs_no_more_than_stated(spread: float) -> None:
    """Less than boxes·e^−L of all, with boxes of one point, where the bound has least to spare."""
    n, rho, nats = 512, 0.05, 12.0
    points, x = normal(n, 2), normal(200, 2, seed=1)
    log_mass = spread * normal(n, seed=2)
    cells = Cells(points, log_mass, 1)
    e = log_mass - (x[:, None] - points).square().sum(2) / (2 * rho**2)
    share = e.softmax(1)
    left_out = torch.ones(200, dtype=torch.float64)
    most = 0
    for blocks, boxes, kept in cells.near(x, x, rho, nats):
        at, log = cells.take(boxes, kept)
        for block, c, w in zip(blocks.tolist(), at, log, strict=True):
            mine = (points[:, None] == c[w > -1e29]).all(2).any(1)
            left_out[block] = share[block][~mine].sum()
            most = max(most, int(mine.sum()))
    assert left_out.max() <= n * math.exp(-nats)
    assert left_out.max() > 1e-9  # and no better than it need be
    assert most < n / 4


def test_the_law_of_a_point_is_a_gaussian() -> None:
    target = Points(torch.tensor([[2.0, -1.0]]))
    x, at = normal(5, 2), level(0.6, 0.8)
    expected = -0.5 * ((x - 0.6 * torch.tensor([2.0, -1.0]).double()) / 0.8).square().sum(1)
    expected -= math.log(2 * math.pi * 0.64)
    torch.testing.assert_close(target.log_prob(x, at), expected, rtol=1e-12, atol=0)
    assert (target.cov == 0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(0, 2),), r"x has shape \(0, 2\).*at least one point"),
        ((torch.tensor([[1.0, math.nan]]),), r"x\[0, 1\] = nan.*finite"),
        ((torch.zeros(2, 1), torch.tensor([1.0, 0.0])), r"weights\[1\] = 0.*above 0"),
        ((torch.zeros(2, 1), torch.tensor([1.0, math.inf])), r"weights\[1\] = inf"),
        ((torch.zeros(2, 1), torch.ones(3)), r"weights have shape \(3,\): there must be 2"),
        ((torch.zeros(2, 1), None, -0.1), r"noise = -0.1: .*0 or above"),
    ],
)
def test_refuses(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Points(*arguments)
