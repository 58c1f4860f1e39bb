"""Restorers against the exact posterior of a mixture, which is held against brute force."""

import math
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from alphabar import schedule as S
from alphabar.operators import Blur, Downscale, Grey, Identity, Mask, Operator, dense
from alphabar.restore import (
    Restored,
    _coupled,
    _Keyed,
    _log_ratio,
    denoise,
    descent,
    edit,
    interpolate,
    pi_gdm,
    posterior,
    repaint,
)
from alphabar.samplers import ddim, heun, sample
from alphabar.schedule import Level
from alphabar.targets import Mixture

FULL = S.log_snr(1000, 10, -10)


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def law() -> Mixture:
    means = torch.tensor([[-1.0, -1.0], [-0.8, 1.0], [1.2, 0.3]], dtype=torch.float64)
    root = 0.4 * normal(3, 2, 2, seed=4)
    cov = root @ root.mT + 0.02 * torch.eye(2, dtype=torch.float64)
    return Mixture([1, 2, 1], means, cov=cov)


def end(steps: Iterator[Restored]) -> Restored:
    *_, last = steps
    assert last.left == 0
    return last


# --- the exact posterior


@pytest.mark.parametrize("noise", [0.3, 1.0])
def test_the_exact_posterior_is_bayes_on_a_grid(noise: float) -> None:
    target, A = law(), torch.tensor([[0.7, -0.4]], dtype=torch.float64)
    y = torch.tensor([-0.3], dtype=torch.float64)
    line = torch.linspace(-5, 5, 401, dtype=torch.float64)
    x = torch.cartesian_prod(line, line)
    clean = Level(*torch.tensor([1.0, 0.0], dtype=torch.float64))
    log_p = target.log_prob(x, clean) - (y - x @ A.T).square().sum(1) / (2 * noise**2)
    p = log_p.softmax(0)
    found = target.observed(A, y, noise)
    mean = p @ x
    torch.testing.assert_close(found.mean, mean, rtol=1e-6, atol=1e-6)
    cov = torch.einsum("n,nd,ne->de", p, x - mean, x - mean)
    torch.testing.assert_close(found.cov, cov, rtol=1e-6, atol=1e-6)
    density = found.log_prob(x, clean).exp() * (line[1] - line[0]) ** 2
    torch.testing.assert_close(density, p, rtol=1e-6, atol=1e-12)


def test_exact_numbers_are_kept_and_the_rest_is_the_line_through_them() -> None:
    target = law()
    found = target.observed(torch.tensor([[1.0, 0.0]]), torch.tensor([-0.9]), 0.0)
    line = torch.linspace(-6, 6, 20001, dtype=torch.float64)
    at = torch.stack([torch.full_like(line, -0.9), line], 1)
    p = target.log_prob(at, Level(*torch.tensor([1.0, 0.0], dtype=torch.float64))).softmax(0)
    expected = torch.tensor([-0.9, (p @ line).item()], dtype=torch.float64)
    torch.testing.assert_close(found.mean, expected, rtol=1e-6, atol=1e-6)
    assert found.cov[1, 1].item() == pytest.approx((p @ (line - expected[1]).square()).item())
    assert found.cov[0].abs().max() < 1e-12


def test_the_posterior_of_pictures_keeps_their_shape() -> None:
    target = Mixture([1, 1], normal(2, 3, 2, 2), var=torch.tensor([0.1, 0.2]))
    op = Grey((3, 2, 2))
    y = op.apply(target.sample(1, torch.Generator().manual_seed(0)))[0]
    found = target.observed(dense(op), y.flatten(), 0.1)
    assert found.shape == (3, 2, 2)
    torch.testing.assert_close(op.apply(found.mean[None])[0], y, rtol=0, atol=0.5)


def test_the_posterior_refuses() -> None:
    target = law()
    with pytest.raises(ValueError, match=r"must be \(M, 2\)"):
        target.observed(torch.ones(1, 3), torch.ones(1), 0.1)
    with pytest.raises(ValueError, match="std = -1"):
        target.observed(torch.ones(1, 2), torch.ones(1), -1.0)
    with pytest.raises(ValueError, match="give a std > 0"):
        target.observed(torch.zeros(1, 2), torch.ones(1), 0.0)


# --- the Gaussian half of a move


@pytest.mark.parametrize(
    "operator", [Blur((5,), 0.8), Downscale((4,), 2), Mask(torch.arange(3) > 0, (3,))]
)
@pytest.mark.parametrize(("noise", "tau"), [(0.5, 0.0), (0.5, 0.7), (0.0, 0.4)])
def test_the_coupling_is_bayes_rule(operator: Operator, noise: float, tau: float) -> None:
    """Mean and covariance of z given x and y, from their joint covariance."""
    A, n = dense(operator), 40_000
    x, y = normal(1, *operator.shape), normal(*operator.output_shape, seed=1)
    z, rho = _coupled(operator, x.expand(n, -1), y, noise, tau, _Keyed(0, n, x))
    d = A.shape[1]
    S_y = tau**2 * A @ A.T + noise**2 * torch.eye(len(A)).double()  # of y given x
    gain = rho**2 * A.T @ torch.linalg.inv(S_y)
    mean = x[0] + gain @ (y - A @ x[0])
    cov = rho**2 * torch.eye(d).double() - gain @ A * rho**2
    torch.testing.assert_close(z.mean(0), mean, rtol=0, atol=0.025)
    torch.testing.assert_close(torch.cov(z.T), cov, rtol=0, atol=0.025)


def test_the_weights_are_torchs_densities() -> None:
    op, noise = Blur((4,), 0.7), 0.3
    A, apart = dense(op), normal(6, 4, seed=2)

    def log_prob(tau: float) -> Tensor:
        cov = tau**2 * A @ A.T + noise**2 * torch.eye(4, dtype=torch.float64)
        law = MultivariateNormal(torch.zeros(4, dtype=torch.float64), cov)
        found: Tensor = law.log_prob(apart)  # type: ignore[no-untyped-call]
        return found

    expected = log_prob(0.4) - log_prob(0.9)
    found = _log_ratio(op, apart, noise, 0.4, 0.9)
    torch.testing.assert_close(found - found[0], expected - expected[0], rtol=1e-9, atol=1e-9)


# --- draws


def moments_agree(draws: Tensor, exact: Mixture, atol: float) -> None:
    flat = draws.double().flatten(1)
    torch.testing.assert_close(flat.mean(0), exact.mean.flatten(), rtol=0, atol=atol)
    torch.testing.assert_close(torch.cov(flat.T), exact.cov, rtol=0, atol=atol)


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_inpainting_draws_the_posterior(noise: float) -> None:
    target, op = law(), Mask(torch.tensor([True, False]), (2,))
    y = torch.tensor([-0.9])
    last = end(posterior(target, FULL, op, y, noise, n=800, seed=0, levels=8, density=5.0))
    moments_agree(last.draws, target.observed(dense(op), y, noise), 0.1)
    if noise == 0:
        torch.testing.assert_close(last.draws[:, 0], y.expand(800))
    torch.testing.assert_close(last.mean, last.draws.mean(0))
    assert last.spread.shape == (2,)


def test_blur_has_noise_of_its_own() -> None:
    """λ is not one number here, so the rest of the noise counts."""
    op = Blur((3,), 0.6)
    target = Mixture([1], normal(1, 3), var=torch.tensor([0.5]))
    y = torch.tensor([0.5, -0.4, 0.1])
    last = end(posterior(target, FULL, op, y, 0.3, n=2000, seed=1, levels=5, crowd=1))
    moments_agree(last.draws, target.observed(dense(op), y, 0.3), 0.05)


def test_denoising_draws_the_posterior() -> None:
    target = law()
    y = torch.tensor([0.1, 0.4])
    last = end(denoise(target, FULL, y.expand(3000, 2), 0.7, seed=0))
    moments_agree(last.draws, target.observed(torch.eye(2), y, 0.7), 0.05)
    (only,) = denoise(target, FULL, y[None], 0.0, seed=0)
    assert (only.draws == y).all()
    once = end(denoise(target, FULL, y.expand(2, 2), 0.7, seed=0, sampler=ddim()))
    assert (once.draws[0] == once.draws[1]).all()


@pytest.mark.parametrize("scale", ["to_vp", "to_ve", "to_flow"])
def test_any_scale(scale: str) -> None:
    target = Mixture([1], torch.zeros(1, 2), var=torch.tensor([1.0]))
    table = getattr(FULL, scale)()
    y = torch.tensor([[1.0, -1.0]]).expand(2000, 2)
    last = end(denoise(target, table, y, 1.0, seed=0, density=4.0))
    torch.testing.assert_close(last.mean, y[0] / 2, rtol=0, atol=0.07)
    torch.testing.assert_close(last.spread, torch.full((2,), 0.5**0.5), rtol=0, atol=0.05)
    assert descent(table, 1.0, 3.0).scale == table.scale
    assert descent(table, 1e-9, 3.0).T == 1


def test_pi_gdm_is_exact_for_data_of_variance_1() -> None:
    target = Mixture([1], torch.zeros(1, 2), var=torch.tensor([1.0]))
    A = torch.tensor([[1.0, 0.0]])
    y, op = torch.tensor([0.8]), Mask(torch.tensor([True, False]), (2,))
    exact = target.observed(A, y, 0.5)
    x, at = normal(6, 2), Level(*torch.tensor([0.6, 0.8], dtype=torch.float64))
    found = pi_gdm(target, op, y.double(), 0.5)(x, at)
    torch.testing.assert_close(found, exact.denoise(x, at), rtol=1e-6, atol=1e-6)
    noise = Level(*torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert (pi_gdm(target, op, y, 0.5)(x, noise) == 0).all()
    steps = sample(pi_gdm(target, op, y, 0.5), ddim(1.0), FULL.spaced(40), 50, (2,), seed=0)
    *_, last = steps
    assert last.x.isfinite().all()


def test_repaint_keeps_what_is_known() -> None:
    target, op = law(), Mask(torch.tensor([True, False]), (2,))
    y = torch.tensor([-0.9])
    steps = repaint(target, FULL.spaced(20, "log_snr"), op, y, 0.0, 100, seed=0, repeats=2)
    last = end(steps)
    torch.testing.assert_close(last.draws[:, 0], y.expand(100))
    assert last.nfe == 20 * 2 - 1
    assert last.draws[:, 1].std() > 0.1


def test_edit_goes_as_far_as_its_strength() -> None:
    target = law()
    x = target.sample(200, torch.Generator().manual_seed(0)).float()
    few = FULL.spaced(20, "log_snr")
    (same,) = edit(target, ddim(), few, x, 0.0, seed=0)
    assert (same.draws == x).all()
    moved = [
        (end(edit(target, ddim(), few, x, s, seed=0)).draws - x).norm() for s in (0.2, 0.5, 1.0)
    ]
    assert 0 < moved[0] < moved[1] < moved[2]
    with pytest.raises(ValueError, match="strength = 2"):
        next(edit(target, ddim(), few, x, 2.0, seed=0))


def test_interpolation_of_a_gaussian_is_a_great_circle() -> None:
    """The flow of N(0, I) leaves every point where it is, so the latent is the item itself."""
    target = Mixture([1], torch.zeros(1, 2), var=torch.tensor([1.0]))
    a, b = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 2.0])
    few = FULL.spaced(60, "log_snr")
    found = interpolate(target, heun(), few, a, b, steps=5)
    angle = torch.linspace(0, math.pi / 2, 5)
    expected = 2 * torch.stack([angle.cos(), angle.sin()], 1)
    torch.testing.assert_close(found, expected, rtol=0, atol=0.02)
    same = interpolate(target, heun(), few, a, a, steps=3)
    torch.testing.assert_close(same, a.expand(3, 2), rtol=0, atol=0.02)
    with pytest.raises(ValueError, match="must agree"):
        interpolate(target, heun(), few, a, b[:1], steps=5)


def test_one_seed_one_result() -> None:
    target, op = law(), Mask(torch.tensor([True, False]), (2,))
    y = torch.tensor([-0.9])

    def draws(seed: int) -> Tensor:
        return end(
            posterior(target, FULL, op, y, 0.1, 20, seed, levels=3, density=2.0, polish=1)
        ).draws

    assert (draws(0) == draws(0)).all()
    assert (draws(0) != draws(1)).any()
    few = FULL.spaced(5, "log_snr")
    whole = end(repaint(target, few, op, y, 0.1, 20, seed=3, repeats=2)).draws
    part = end(repaint(target, few, op, y, 0.1, 5, seed=3, repeats=2, first=10)).draws
    torch.testing.assert_close(part, whole[10:15])


RefusedCall = Callable[[Mixture, Operator], object]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, op: next(posterior(m, FULL, op, torch.ones(2), 0.1, 4, 0)), r"gives \(1,\)"),
        (lambda m, op: next(posterior(m, FULL, op, torch.ones(1), -1.0, 4, 0)), "noise = -1"),
        (lambda m, op: next(posterior(m, FULL, op, torch.ones(1) / 0, 0.1, 4, 0)), "NaN or inf"),
        (lambda m, op: next(posterior(m, FULL, op, torch.ones(1), 0.1, 0, 0)), "n = 0"),
        (lambda m, op: next(denoise(m, FULL, torch.ones(1, 2), math.nan, 0)), "noise = nan"),
        (lambda m, op: pi_gdm(m, op, torch.ones(2), 0.1), r"gives \(1,\)"),
        (lambda m, op: next(repaint(m, FULL, op, torch.ones(2), 0.1, 4, 0)), r"gives \(1,\)"),
    ],
)
def test_refuses(call: RefusedCall, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(law(), Mask(torch.tensor([True, False]), (2,)))


def test_identity_needs_no_crowd() -> None:
    """At τ = 0 the coupling is y itself: the last move of `posterior` is `denoise`."""
    z, rho = _coupled(Identity((2,)), normal(5, 2), normal(2), 0.4, 0.0, _Keyed(0, 5, normal(1)))
    assert rho == pytest.approx(0.4)
    torch.testing.assert_close(z, normal(2).expand(5, 2), rtol=1e-12, atol=1e-12)
