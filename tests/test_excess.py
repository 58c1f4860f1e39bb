"""Excess loss against closed forms, quadrature, and the relative entropy that it integrates to."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm
from torch import Tensor

from alphabar import excess
from alphabar.denoise import edm
from alphabar.excess import Excess, ExcessLoss, Weight, even_log_snr
from alphabar.samplers import Denoiser
from alphabar.schedule import Level
from alphabar.targets import Mixture, Points, Target

GRID = torch.tensor([-6.0, -2.0, 0.0, 1.5, 5.0])


def gaussian(mean: list[float], std: float) -> Mixture:
    return Mixture([1.0], torch.tensor([mean]), var=torch.tensor([std**2]))


def scales(log_snr: float) -> tuple[float, float]:
    ratio = math.exp(-log_snr / 2)  # σ/α
    alpha = 1 / math.sqrt(1 + ratio**2)
    return alpha, ratio * alpha


def excess_loss(
    denoiser: Denoiser,
    target: Target,
    log_snr: Tensor,
    n: int,
    seed: int,
    weight: Weight | None = None,
) -> ExcessLoss:
    return Excess(target, log_snr, n, seed, weight)(denoiser)


def test_the_exact_denoiser_has_no_excess() -> None:
    target = Mixture(
        [1.0, 1.0], torch.tensor([[-1.0, 0.0], [2.0, 1.0]]), var=torch.tensor([0.3, 0.1])
    )
    assert excess_loss(target, target, GRID, 50, 0).share < 1e-11  # rounded to float32
    found = Excess(target, GRID, 50, 0, dtype=torch.float64)(target)
    assert (found.share, found.share_error, found.nats) == (0, 0, 0)
    assert (found.optimum > 0).all()
    points = Points(torch.randn(99, 2, generator=torch.Generator().manual_seed(0)))
    assert excess_loss(lambda x, at: points(x.double(), at), points, GRID, 50, 0).share == 0


def test_a_shift_is_an_excess_of_its_square_everywhere() -> None:
    target = gaussian([1.0, -2.0, 0.5], 0.7)
    shift = torch.tensor([0.3, 0.0, -0.4], dtype=torch.float64)
    found = Excess(target, GRID, 20, 0, dtype=torch.float64)(lambda x, at: target(x, at) + shift)
    torch.testing.assert_close(found.excess, torch.full((5,), 0.25 / 3).double())
    torch.testing.assert_close(found.excess_error, torch.zeros(5).double(), atol=1e-12, rtol=0)
    expected = (found.weight * 0.25 / 3).mean().item()
    assert found.share == pytest.approx(expected / found.weighted_optimum)


def test_gaussians_in_closed_form() -> None:
    """Optimum s²σ²/(α²s² + σ²), of which EDM's weight makes 1; an answer too large by a tenth."""
    s, D = 1.7, 4
    target = gaussian([0.0] * D, s)
    found = excess_loss(lambda x, at: 1.1 * target(x, at), target, GRID, 20_000, 3)
    for i, log_snr in enumerate(GRID.tolist()):
        alpha, sigma = scales(log_snr)
        least = s**2 * sigma**2 / (alpha**2 * s**2 + sigma**2)
        assert abs(found.optimum[i] - least) < 4 * found.optimum_error[i]
        assert found.optimum_error[i] == pytest.approx(least * math.sqrt(2 / D / 20_000), rel=0.05)
        assert abs(found.excess[i] - 0.01 * (s**2 - least)) < 4 * found.excess_error[i]
        assert found.weight[i] * least == pytest.approx(1, rel=1e-6)
    assert found.weighted_optimum == pytest.approx(1, abs=0.02)


def test_the_weight_is_that_of_the_networks_loss() -> None:
    """1/c_out² of a network that predicts what EDM's does, for data of this spread."""
    x = torch.randn(500, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 2, 4])
    found = excess_loss(lambda x, at: x, Points(x), GRID, 2, 0)
    scaled = edm((x.double() - x.double().mean(0)).square().mean().sqrt().item())
    for log_snr, weight in zip(GRID.tolist(), found.weight.tolist(), strict=True):
        assert weight == pytest.approx(float(scaled(*scales(log_snr)).out) ** -2)


WEIGHTS, MEANS, STDS = (0.3, 0.7), (-1.5, 0.8), (0.4, 0.6)
MIXTURE = Mixture(WEIGHTS, torch.tensor(MEANS)[:, None], var=torch.tensor(STDS).square())


def density(x: float, alpha: float = 1.0, sigma: float = 0.0) -> float:
    return sum(
        w * norm.pdf(x, alpha * m, math.hypot(alpha * s, sigma))
        for w, m, s in zip(WEIGHTS, MEANS, STDS, strict=True)
    )


def test_loss_is_optimum_and_excess_by_quadrature() -> None:
    """Bayes' rule and all three integrals by brute force, for a denoiser that is far off."""
    found = excess_loss(lambda x, at: torch.tanh(x), MIXTURE, torch.tensor([-1.0, 2.0]), 20_000, 1)
    x_0 = np.linspace(-6, 6, 1201)
    prior = np.array([density(x) for x in x_0])
    prior /= prior.sum()
    for i, log_snr in enumerate((-1.0, 2.0)):
        alpha, sigma = scales(log_snr)
        x_t = np.linspace(-9, 9, 1401)
        joint = prior[:, None] * norm.pdf(x_t, alpha * x_0[:, None], sigma)
        joint /= joint.sum()
        p_t = joint.sum(0)
        exact = (joint * x_0[:, None]).sum(0) / p_t
        beyond = (p_t * (np.tanh(x_t) - exact) ** 2).sum()
        least = (joint * (exact - x_0[:, None]) ** 2).sum()
        loss = (joint * (np.tanh(x_t) - x_0[:, None]) ** 2).sum()
        assert loss == pytest.approx(beyond + least, rel=1e-9)
        assert abs(found.excess[i] - beyond) < 4 * found.excess_error[i] < 0.1 * beyond
        assert abs(found.optimum[i] - least) < 4 * found.optimum_error[i] < 0.1 * least


def test_the_denoiser_of_another_law_exceeds_by_the_relative_entropy() -> None:
    """Verdú: ½∫E‖x̂_q − x̂_p‖² dSNR = KL(p ‖ q), which knows nothing of denoisers."""
    grid = even_log_snr(240, -12, 18)
    p, q = gaussian([0.0, 0.0], 1.0), gaussian([0.5, -0.2], 1.3)
    kl = math.log(1.3**2) + (2 + 0.29) / (2 * 1.3**2) - 1
    assert Excess(p, grid, 400, 0, dtype=torch.float64)(q).nats == pytest.approx(kl, rel=0.02)

    kl = quad(lambda x: density(x) * math.log(density(x) / norm.pdf(x, 0, 1.4)), -8, 8)[0]
    found = Excess(MIXTURE, grid, 400, 0, dtype=torch.float64)(gaussian([0.0], 1.4))
    assert found.nats == pytest.approx(kl, rel=0.03)


def test_standard_errors_are_what_seeds_differ_by() -> None:
    target = Mixture([1.0, 1.0], torch.tensor([[-1.0], [2.0]]), var=torch.tensor([0.2, 0.5]))
    found = [
        excess_loss(lambda x, at: 0.9 * x, target, GRID, 100, seed, lambda at: at.snr + 2)
        for seed in range(300)
    ]
    for name in ("excess", "optimum"):
        spread = torch.stack([getattr(one, name) for one in found]).std(0)
        claimed = torch.stack([getattr(one, f"{name}_error") for one in found]).mean(0)
        torch.testing.assert_close(claimed, spread, rtol=0.2, atol=0)
    spread = torch.tensor([one.share for one in found]).std().item()
    assert np.mean([one.share_error for one in found]) == pytest.approx(spread, rel=0.15)


def test_levels_are_independent() -> None:
    probe = Excess(gaussian([0.0], 1.0), torch.tensor([-1e-9, 0.0]), 1000, 0)
    first, second = probe.x_t[:, 0].chunk(2)
    assert abs(torch.corrcoef(torch.stack([first, second]))[0, 1]) < 0.1


def test_at_the_ends() -> None:
    """All variance is left where nothing is seen; a finite set is known where all is seen."""
    x = torch.tensor([[0.0, 0.0], [1.0, 2.0], [-3.0, 1.0]])
    found = excess_loss(lambda x, at: x, Points(x), torch.tensor([-20.0, 15.0]), 4000, 0)
    var = x.double().var(0, correction=0).mean()
    assert abs(found.optimum[0] - var) < 4 * found.optimum_error[0]
    assert found.optimum[1] < 1e-30
    assert found.weight[0] == pytest.approx(1 / var.item(), rel=1e-6)


def test_share_weighs_levels() -> None:
    target = gaussian([0.0, 0.0], 1.0)

    def only_first(level: Level) -> Tensor:
        return (level.log_snr < -3).double() * 7

    found = excess_loss(lambda x, at: target(x, at) + 0.1, target, GRID, 4000, 0, only_first)
    assert found.weight.tolist() == [7, 0, 0, 0, 0]
    assert found.share == pytest.approx((found.excess[0] / found.optimum[0]).item())
    expected = found.share * found.optimum_error[0] / found.optimum[0]
    assert found.share_error == pytest.approx(expected.item(), rel=1e-3)


def test_one_call_with_a_level_an_item_and_parts_where_it_is_large(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target = Points(torch.randn(20, 1, 2, 2, generator=torch.Generator().manual_seed(0)))
    seen: list[tuple[int, int, torch.dtype]] = []

    def denoiser(x: Tensor, level: Level) -> Tensor:
        assert not torch.is_grad_enabled()
        seen.append((len(x), len(level.alpha.unique()), x.dtype))
        torch.testing.assert_close(level.alpha**2 + level.sigma**2, torch.ones(len(x)).double())
        return x * level.alpha.to(x.dtype)[:, None, None, None]

    whole = excess_loss(denoiser, target, GRID, 30, 5)
    assert seen == [(150, 5, torch.float32)]
    assert whole.D == 4
    monkeypatch.setattr(excess, "BATCH", 4 * 47)
    parts = excess_loss(denoiser, target, GRID, 30, 5)
    assert [n for n, _, _ in seen[1:]] == [47, 47, 47, 9]
    torch.testing.assert_close(parts.excess, whole.excess)
    assert excess_loss(denoiser, target, GRID, 30, 6).share != whole.share
    assert excess_loss(denoiser, target, GRID, 30, 5).share == parts.share


def test_even_levels() -> None:
    grid = even_log_snr(5, -1, 4)
    assert grid.tolist() == [-0.5, 0.5, 1.5, 2.5, 3.5]
    assert even_log_snr(8).mean() == 0
    assert all(b - a == 2.5 for a, b in pairwise(even_log_snr(8).tolist()))


@pytest.mark.parametrize(
    ("log_snr", "message"),
    [
        (torch.tensor([]), "0 levels"),
        (torch.tensor([1.0, 1.0]), "rising"),
        (torch.tensor([0.0, math.inf]), "finite"),
    ],
)
def test_wrong_levels(log_snr: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Excess(gaussian([0.0], 1.0), log_snr, 10, 0)


def test_what_cannot_be_measured() -> None:
    target = gaussian([0.0], 1.0)
    with pytest.raises(ValueError, match="n_each = 1"):
        Excess(target, GRID, 1, 0)
    with pytest.raises(ValueError, match="seed"):
        Excess(target, GRID, 2, -1)
    with pytest.raises(ValueError, match="does not vary"):
        Excess(Points(torch.ones(3, 2)), GRID, 2, 0)
    for wrong in (lambda at: at.snr - 1, lambda at: 0 * at.snr, lambda at: at.snr[:2]):
        with pytest.raises(ValueError, match="weight"):
            Excess(target, GRID, 2, 0, wrong)
    probe = Excess(target, GRID, 2, 0)
    with pytest.raises(ValueError, match=r"shape \(10, 1, 1\)"):
        probe(lambda x, at: x[..., None])
    with pytest.raises(ValueError, match=r"NaN or inf at log_snr = 1\.5:"):
        probe(lambda x, at: torch.where((at.log_snr > 1)[:, None], math.nan, x))
