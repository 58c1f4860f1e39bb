"""Laws that every exact target obeys, at every level, in every scale."""

import math

import pytest
import torch
from oracles import LEVELS, generator, grid, level, noisy, normal, posterior
from torch import Tensor

from alphabar.schedule import Level, align, cosine
from alphabar.targets import Curve, Mixture, Points, Target


def wave(u: Tensor) -> Tensor:
    return torch.stack([2 * u - 1, (3 * u).sin(), u.square()], 1)


def loop(u: Tensor) -> Tensor:
    return torch.stack([(6 * u).cos(), u + (6 * u).sin()], 1)


def full(k: int, d: int) -> Tensor:
    root = 0.5 * normal(k, d, d, seed=3)
    return root @ root.mT + 0.05 * torch.eye(d, dtype=torch.float64)


TARGETS: dict[str, Target] = {
    "points in a plane": Points(normal(30, 2)),
    "weighted points": Points(normal(30, 2), weights=normal(30, seed=1).exp()),
    "points with noise": Points(normal(30, 2), weights=normal(30, seed=1).exp(), noise=0.3),
    "points on a line": Points(normal(9, 1)),
    "numbers": Points(normal(9)),
    "pictures": Points(normal(20, 1, 3, 2), noise=0.1),
    "six dimensions": Points(normal(40, 6)),
    "one point": Points(normal(1, 2)),
    "twins": Points(torch.cat([normal(5, 2)] * 2)),
    "isotropic": Mixture([1, 2, 3], normal(3, 2), var=torch.tensor([0.01, 0.3, 1.0])),
    "diagonal": Mixture([1, 2, 3], normal(3, 2, 2), var=normal(3, 2, 2, seed=1).exp()),
    "full": Mixture([3, 1, 2], normal(3, 2), cov=full(3, 2)),
    "full, 3-D": Mixture([3, 1], normal(2, 3), cov=full(2, 3)),
    "one Gaussian": Mixture([1], normal(1, 1), var=torch.tensor([0.5])),
    "curve": Curve(loop, noise=0.1),
    "curve in space": Curve(wave, noise=0.2),
    "bare curve": Curve(loop, noise=0.0),
}
each = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())
each_level = pytest.mark.parametrize("pair", LEVELS.values(), ids=LEVELS.keys())
PLANE = [name for name, target in TARGETS.items() if target.shape == (2,)]


@each
def test_is_a_target(target: Target) -> None:
    assert isinstance(target, Target)
    n = math.prod(target.shape)
    assert target.mean.shape == target.shape
    assert target.cov.shape == (n, n)
    assert target.sample(7, generator()).shape == (7, *target.shape)
    assert target.sample(7, generator()).dtype == torch.float64


@each
@each_level
def test_score_is_the_gradient_of_log_prob(target: Target, pair: tuple[float, float]) -> None:
    at = level(*pair)
    x = noisy(target, at).requires_grad_()
    (expected,) = torch.autograd.grad(target.log_prob(x, at).sum(), x)
    found = target.score(x.detach(), at)
    torch.testing.assert_close(found * pair[1], expected * pair[1], rtol=1e-8, atol=1e-8)


@each
@each_level
def test_denoiser_is_tweedies(target: Target, pair: tuple[float, float]) -> None:
    """α·x̂_0 = x_t + σ²·∇ log p_t(x_t)."""
    alpha, sigma = pair
    at = level(*pair)
    x = noisy(target, at).requires_grad_()
    (score,) = torch.autograd.grad(target.log_prob(x, at).sum(), x)
    expected = x.detach() + sigma**2 * score
    found = target.denoise(x.detach(), at)
    # In units of σ; what is nearly all noise cancels down to α·x̂_0.
    torch.testing.assert_close(alpha * found / sigma, expected / sigma, rtol=0, atol=2e-8)
    assert torch.equal(target(x.detach(), at), found)


@each
@each_level
def test_posterior_cov_is_the_denoisers_jacobian(target: Target, pair: tuple[float, float]) -> None:
    """Cov[x_0|x_t] = (σ²/α)·∂x̂_0/∂x_t, by autograd through `denoise`."""
    alpha, sigma = pair
    at = level(*pair)
    x = noisy(target, at, 3)
    n = math.prod(target.shape)
    jacobian = torch.stack(
        [
            torch.autograd.functional.jacobian(
                lambda y: target.denoise(y[None], at)[0].reshape(-1), item
            ).reshape(n, n)
            for item in x
        ]
    )
    found = target.posterior_cov(x, at)
    size = sigma**2 / alpha * jacobian
    torch.testing.assert_close(found, size, rtol=1e-7, atol=1e-7 * (1 + sigma**2 * 1e-4))
    torch.testing.assert_close(found, found.mT, rtol=1e-12, atol=1e-14)


@each
def test_pure_noise_leaves_the_prior(target: Target) -> None:
    at = level(0.0, 1.0)
    x = 5 * normal(4, *target.shape)
    expected = target.mean.expand(4, *target.shape)
    torch.testing.assert_close(target.denoise(x, at), expected, rtol=1e-9, atol=1e-9)
    found = target.posterior_cov(x, at)
    torch.testing.assert_close(found, target.cov.expand_as(found), rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(target.score(x, at), -x, rtol=1e-12, atol=0)
    gauss = torch.distributions.Normal(torch.zeros(()).double(), torch.ones(()).double())
    expected = gauss.log_prob(x).flatten(1).sum(1) if x.ndim > 1 else gauss.log_prob(x)
    torch.testing.assert_close(target.log_prob(x, at), expected, rtol=1e-10, atol=1e-9)


@each
def test_clean_data_are_what_they_are(target: Target) -> None:
    x = target.sample(6, generator(2))
    at = level(0.5, 0.0)
    torch.testing.assert_close(target.denoise(0.5 * x, at), x, rtol=1e-12, atol=1e-12)
    assert target.denoise((0.5 * x).float(), at).isfinite().all()
    if isinstance(target, Curve) and target.noise == 0:
        return
    cov = target.posterior_cov(0.5 * x, at)
    torch.testing.assert_close(cov, torch.zeros_like(cov), rtol=0, atol=1e-12)


@each
def test_no_density_where_there_is_none(target: Target) -> None:
    x, clean = target.sample(3, generator()), level(1.0, 0.0)
    if getattr(target, "noise", 1) == 0:
        for method in (target.log_prob, target.score):
            with pytest.raises(ValueError, match=r"sigma = 0.*no density.*noisier"):
                method(x, clean)
        return
    y = x.clone().requires_grad_()
    log = target.log_prob(y, clean)
    (expected,) = torch.autograd.grad(log.sum(), y)
    torch.testing.assert_close(target.score(x, clean), expected, rtol=1e-8, atol=1e-8)


@each
def test_one_level_per_item_equals_item_by_item(target: Target) -> None:
    alpha, sigma = [1.0, 0.6, 0.02, 0.0, 1.0], [0.05, 0.8, 3.0, 1.0, 0.01]
    many = level(alpha, sigma)
    for dtype, rtol in ((torch.float64, 1e-9), (torch.float32, 2e-3)):
        x = target.sample(5, generator(4))
        x = align(many.alpha, x) * x + 1e-3 * normal(5, *target.shape)
        x = x.to(dtype)
        whole = {
            name: getattr(target, name)(x, many)
            for name in ("denoise", "score", "log_prob", "posterior_cov")
        }
        for i in range(5):
            one = level(alpha[i], sigma[i])
            for name, values in whole.items():
                single = getattr(target, name)(x[i : i + 1], one)
                torch.testing.assert_close(values[i : i + 1], single, rtol=rtol, atol=rtol * 1e-1)


@each
def test_one_process_in_three_scales(target: Target) -> None:
    """Multiplying x_t, α and σ by one factor changes x̂_0 not at all, log p_t by −D·log factor."""
    vp = level(0.8, 0.6)
    x = noisy(target, vp)
    n = math.prod(target.shape)
    for factor in (1 / 0.8, 1 / 1.4, 1e-6, 1e6):
        at = Level(vp.alpha * factor, vp.sigma * factor)
        y = factor * x
        torch.testing.assert_close(
            target.denoise(y, at), target.denoise(x, vp), rtol=1e-9, atol=1e-9
        )
        torch.testing.assert_close(
            target.log_prob(y, at) + n * math.log(factor),
            target.log_prob(x, vp),
            rtol=1e-9,
            atol=1e-9,
        )
        torch.testing.assert_close(
            factor * target.score(y, at), target.score(x, vp), rtol=1e-8, atol=1e-8
        )


@each
@pytest.mark.parametrize("sigma", [1e-3, 0.3, 1e3])
def test_far_outside_the_data_all_is_finite_and_right(target: Target, sigma: float) -> None:
    """28σ out, float32 and float64, where densities underflow."""
    at = level(1.0, sigma)
    x = target.sample(6, generator(3))
    way = normal(*x.shape, seed=8)
    way = way / way.flatten(1).norm(dim=1).reshape(-1, *[1] * (x.ndim - 1)) if x.ndim > 1 else way
    x = x + 28 * sigma * way
    for dtype in (torch.float32, torch.float64):
        y = x.to(dtype)
        assert target.log_prob(y, at).isfinite().all()
        assert target.score(y, at).isfinite().all()
        narrow, wide = target.denoise(y, at).double(), target.denoise(y.double(), at)
        size = wide.abs().max()
        assert (narrow - wide).abs().max() <= 1e-3 * sigma + 2e-7 * size
    y = x.clone().requires_grad_()
    (score,) = torch.autograd.grad(target.log_prob(y, at).sum(), y)
    torch.testing.assert_close(target.score(x, at), score, rtol=1e-6, atol=1e-6 / sigma)


@pytest.mark.parametrize("name", PLANE)
@pytest.mark.parametrize("pair", [(0.8, 0.6), (1.0, 0.25), (0.2, 0.8)])
def test_density_integrates_to_one_and_has_the_moments(
    name: str, pair: tuple[float, float]
) -> None:
    """∫p_t = 1, ∫x·p_t = α·E[x_0], ∫xxᵀp_t = α²·E[x_0x_0ᵀ] + σ²·I, by sums over a grid.

    Sums over a smooth density are right to rounding once the cells are finer than its width.
    """
    alpha, sigma = pair
    at, target = level(*pair), TARGETS[name]
    x, area = grid(-9, 9, 160)
    p = target.log_prob(x, at).exp() * area
    assert p.sum().item() == pytest.approx(1, abs=1e-6)
    mean = p @ x
    torch.testing.assert_close(mean, alpha * target.mean, rtol=0, atol=1e-5)
    cov = (p[:, None] * (x - mean)).T @ (x - mean)
    expected = alpha**2 * target.cov + sigma**2 * torch.eye(2, dtype=torch.float64)
    torch.testing.assert_close(cov, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", [n for n in PLANE if getattr(TARGETS[n], "noise", 1) > 0])
@each_level
def test_against_bayes_on_a_grid(name: str, pair: tuple[float, float]) -> None:
    """p(x_0) summed over a grid of x_0 (its own density at σ = 0), times the likelihood."""
    alpha, sigma = pair
    target, at = TARGETS[name], level(*pair)
    if sigma / alpha < 0.1:
        pytest.skip("the grid would have to be finer than the likelihood")
    atoms, area = grid(-8, 8, 320)
    mass = target.log_prob(atoms, level(1.0, 0.0)).exp() * area
    if abs(mass.sum() - 1) > 1e-6:
        mass = mass.clamp_min(0)
    atoms, mass = atoms[mass > 1e-18], mass[mass > 1e-18]
    x = noisy(target, at, 4)
    log, mean, cov = posterior(atoms, mass, x, alpha, sigma)
    torch.testing.assert_close(target.log_prob(x, at), log, rtol=0, atol=2e-5)
    torch.testing.assert_close(target.denoise(x, at), mean, rtol=0, atol=2e-5)
    torch.testing.assert_close(target.posterior_cov(x, at), cov, rtol=0, atol=2e-4)


@each
def test_samples_have_the_mean_and_covariance(target: Target) -> None:
    """200,000 draws; a moment strays by 6 standard errors once in 5e8 of Gaussian ones."""
    n = 200_000
    x = target.sample(n, generator(11)).reshape(n, -1)
    std = target.cov.diagonal().clamp_min(1e-12).sqrt()
    error = (x.mean(0) - target.mean.reshape(-1)).abs() / std
    assert (error < 6 / math.sqrt(n) + 1e-9).all()
    # Products of two coordinates have a kurtosis of at most 10 in all these targets.
    products = (x - target.mean.reshape(-1)).T @ (x - target.mean.reshape(-1)) / n
    scaled = (products - target.cov) / (std[:, None] * std)
    assert scaled.abs().max() < 6 * 3 / math.sqrt(n) + 1e-9


@each
def test_same_generator_same_samples(target: Target) -> None:
    a, b = (target.sample(5, generator(9)) for _ in range(2))
    assert torch.equal(a, b)


@each
def test_gradients_reach_the_points_and_the_level(target: Target) -> None:
    """Autograd against finite differences of `denoise` computed without it, dtype by dtype."""
    alpha, sigma = torch.tensor([0.7, 0.9]).double(), torch.tensor([0.6, 0.4]).double()
    x = target.sample(2, generator(6)) * 0.8
    weight = normal(*x.shape, seed=2)

    def value(x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return (weight * target.denoise(x, Level(alpha, sigma)).double()).sum()

    inputs = [t.clone().requires_grad_() for t in (x, alpha, sigma)]
    grads = torch.autograd.grad(value(*inputs), inputs)
    step = 1e-5
    for i, grad in enumerate(grads):
        way = normal(*grad.shape, seed=3)
        moved = [[t.clone() for t in (x, alpha, sigma)] for _ in range(2)]
        moved[0][i] += step * way
        moved[1][i] -= step * way
        slope = (value(*moved[0]) - value(*moved[1])) / (2 * step)
        assert (grad * way).sum().item() == pytest.approx(slope.item(), rel=1e-5, abs=1e-7)
    narrow = [x.float().requires_grad_(), *inputs[1:]]
    grads32 = torch.autograd.grad(value(*narrow), narrow)
    for a, b in zip(grads32, grads, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=2e-3, atol=2e-3)
    with torch.no_grad():
        torch.testing.assert_close(
            target.denoise(narrow[0], Level(alpha, sigma)),
            target.denoise(x, Level(alpha, sigma)).float(),
            rtol=1e-4,
            atol=1e-4,
        )


@each
def test_keeps_dtype_shape_and_input(target: Target) -> None:
    table = cosine(10)
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        x = target.sample(3, generator()).to(dtype)
        before = x.clone()
        for name in ("denoise", "score"):
            found = getattr(target, name)(x, table[5])
            assert found.dtype == dtype
            assert found.shape == x.shape
        assert target.log_prob(x, table[5]).dtype == torch.float64
        assert target.posterior_cov(x, table[5]).dtype == torch.float64
        assert torch.equal(x, before)
        exact = target.denoise(x.double(), table[5])
        eps = torch.finfo(dtype).eps
        torch.testing.assert_close(
            target.denoise(x, table[5]).double(), exact, rtol=eps, atol=max(eps, 1e-4)
        )
    assert target.denoise(x[:0], table[5]).shape == (0, *target.shape)


@each
def test_refuses_what_does_not_fit(target: Target) -> None:
    at = level(0.8, 0.6)
    with pytest.raises(ValueError, match="items have"):
        target.denoise(torch.zeros(3, *target.shape, 2), at)
    with pytest.raises(ValueError, match="2 noise levels for x"):
        target.denoise(torch.zeros(3, *target.shape), level([0.8, 0.8], [0.6, 0.6]))
    with pytest.raises(TypeError):
        target.denoise(torch.zeros(3, *target.shape, dtype=torch.int64), at)
