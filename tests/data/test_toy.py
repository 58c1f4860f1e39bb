"""Each toy set against what defines it, computed another way."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, ks_1samp, kstest, norm, uniform
from sklearn.datasets import make_circles, make_moons, make_s_curve, make_swiss_roll

from alphabar.data import gaussian_means, load

RARE = 1e-6  # the false alarm of each statistical test here, were its seed not fixed


def polar(x: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Radius, and angle in turns, 0..1."""
    z = torch.view_as_complex(x.contiguous())
    return z.abs().numpy(), (z.angle() / (2 * math.pi) % 1).numpy()


def distance_to(x: torch.Tensor, curve: np.ndarray) -> np.ndarray:
    """From each point to the nearest of many on the curve."""
    return torch.cdist(x, torch.from_numpy(curve)).min(1).values.numpy()


@pytest.mark.parametrize("seed", [0, 7])
def test_swiss_roll_is_scikit_learns_bit_for_bit(seed):
    data = load(f"swiss_roll:seed={seed}")
    x, t = make_swiss_roll(10_000, noise=1.0, random_state=seed)
    assert (data.x.numpy() == x[:, [0, 2]] / 10.0).all()
    assert data.spec == f"swiss_roll:n=10000,noise=1.0,seed={seed}"
    np.testing.assert_allclose(1.5 * math.pi * (1 + 2 * data.hue.numpy()), t, rtol=1e-14)


def test_swiss_roll_default_spec():
    assert load("swiss_roll").spec == "swiss_roll:n=10000,noise=1.0,seed=0"


def test_swiss_roll_without_noise_lies_on_the_roll_where_its_hue_says():
    data = load("swiss_roll:n=2000,noise=0")
    t = 1.5 * math.pi * (1 + 2 * data.hue)
    torch.testing.assert_close(data.x, torch.stack([t * t.cos(), t * t.sin()], 1) / 10)


def test_fresh_swiss_roll_without_noise_lies_on_the_roll():
    radius, _ = polar(load("swiss_roll:n=2,noise=0").fresh(5000, 1))
    assert ks_1samp(radius * 10, uniform(1.5 * math.pi, 3 * math.pi).cdf).pvalue > RARE


@pytest.mark.parametrize(
    ("spec", "curve"),
    [
        ("moons:n=1000", make_moons(4000)[0] - [0.5, 0.25]),
        ("circles:n=1000,factor=0.3", make_circles(4000, factor=0.3)[0]),
        ("s_curve:n=1000", make_s_curve(4000, random_state=0)[0][:, [0, 2]] / math.sqrt(2)),
    ],
)
def test_shape_is_scikit_learns(spec, curve):
    data = load(spec + ",noise=0")
    assert distance_to(data.x, curve).max() < 0.02
    back = torch.from_numpy(curve[::40])
    assert torch.cdist(back, data.x).min(1).values.max() < 0.06  # all of the curve is there


@pytest.mark.parametrize("name", ["moons", "circles", "s_curve", "spirals", "rings"])
def test_noise_is_gaussian_of_its_own_size(name):
    # The same seed with and without noise: the difference is the noise itself.
    noise = (load(f"{name}:noise=0.2").x - load(f"{name}:noise=0").x).numpy() / 0.2
    assert kstest(noise.ravel(), norm.cdf).pvalue > RARE
    assert abs(np.corrcoef(noise.T)[0, 1]) < 0.05


@pytest.mark.parametrize(
    ("name", "classes"), [("moons", 2), ("circles", 2), ("spirals", 2), ("pinwheel", 5)]
)
def test_classes_have_equal_shares(name, classes):
    counts = np.bincount(load(name).labels.numpy(), minlength=classes)
    assert len(counts) == classes
    assert chisquare(counts).pvalue > RARE


def test_moons_hue_runs_along_each_half_circle():
    data = load("moons:noise=0")
    theta = math.pi * (2 * data.hue - data.labels)
    side = 1 - 2 * data.labels
    expected = torch.stack([side * (theta.cos() - 0.5), side * (theta.sin() - 0.25)], 1)
    torch.testing.assert_close(data.x, expected)


def test_circles_radii_hue_and_labels():
    data = load("circles:noise=0,factor=0.25")
    radius, angle = polar(data.x)
    np.testing.assert_allclose(radius, np.where(data.labels, 0.25, 1.0))
    np.testing.assert_allclose(angle, data.hue, atol=1e-9)
    assert kstest(angle, uniform.cdf).pvalue > RARE


def test_s_curve_is_the_letter_s():
    data = load("s_curve:noise=0")
    x, y = data.x[data.hue.argsort()].T
    assert y[0] > 0 > y[-1]  # the hue runs downwards,
    quarter = len(x) // 4  # and the letter bulges left above, right below
    assert x[quarter] < -0.4
    assert x[3 * quarter] > 0.4


@pytest.mark.parametrize(("arms", "turns"), [(1, 1.0), (2, 1.5), (5, 0.3)])
def test_spirals_wind_evenly(arms, turns):
    data = load(f"spirals:arms={arms},turns={turns},noise=0")
    radius, angle = polar(data.x)
    arm = data.labels.numpy()
    gap = (angle - turns * radius / 1.6 - arm / arms + 0.5) % 1 - 0.5
    np.testing.assert_allclose(gap, 0, atol=1e-9)
    assert kstest((radius / 1.6) ** 2, uniform.cdf).pvalue > RARE
    np.testing.assert_allclose(data.hue, (arm + radius / 1.6) / arms, atol=1e-12)


def test_pinwheel_unwinds_into_gaussians():
    data = load("pinwheel:n=20000,arms=3,radial=0.2,tangential=0.05,rate=0.4")
    z = torch.view_as_complex(data.x)
    straight = z * torch.exp(-2j * math.pi * data.labels / 3)
    # a + ib = z·exp(−i·rate·exp(a)): a by fixed-point iteration, b from it.
    a = straight.abs()
    for _ in range(60):
        a = (straight * torch.exp(-0.4j * a.exp())).real * 0.5 + a * 0.5
    b = (straight * torch.exp(-0.4j * a.exp())).imag
    assert kstest((a.numpy() - 1) / 0.2, norm.cdf).pvalue > RARE
    assert kstest(b.numpy() / 0.05, norm.cdf).pvalue > RARE


@pytest.mark.parametrize("squares", [1, 2, 4, 5])
def test_checkerboard_fills_its_dark_squares_evenly(squares):
    data = load(f"checkerboard:squares={squares},n=20000")
    assert data.x.abs().max() <= 1.5
    u = (data.x.numpy() + 1.5) / 3 * squares
    column, row = np.floor(u).astype(int).T
    counts = np.zeros((squares, squares))
    np.add.at(counts, (column, row), 1)
    dark = np.indices((squares, squares)).sum(0) % 2 == 0
    assert counts[~dark].sum() == 0
    assert dark.sum() == 1 or chisquare(counts[dark]).pvalue > RARE
    assert kstest((u % 1).ravel(), uniform.cdf).pvalue > RARE


@pytest.mark.parametrize("rings", [1, 3, 4])
def test_rings_have_their_radii_and_the_same_density(rings):
    data = load(f"rings:rings={rings},noise=0,n=20000")
    radius, angle = polar(data.x)
    k = np.rint(radius / 1.5 * rings).astype(int)
    np.testing.assert_allclose(radius, 1.5 * k / rings)
    np.testing.assert_array_equal(data.labels, k - 1)
    expected = np.arange(1, rings + 1) / sum(range(1, rings + 1)) * len(data)
    assert rings == 1 or chisquare(np.bincount(k)[1:], expected).pvalue > RARE
    assert kstest(angle, uniform.cdf).pvalue > RARE
    np.testing.assert_allclose(angle, data.hue, atol=1e-9)


@pytest.mark.parametrize("modes", [1, 4, 8, 25])
def test_gaussians_have_their_means_and_std(modes):
    data = load(f"gaussians:modes={modes},std=0.05,n=20000")
    means = gaussian_means(modes)
    assert means.shape == (modes, 2)
    noise = (data.x.numpy() - means[data.labels]) / 0.05
    assert kstest(noise.ravel(), norm.cdf).pvalue > RARE
    assert abs(np.corrcoef(noise.T)[0, 1]) < 0.05
    counts = np.bincount(data.labels, minlength=modes)
    assert modes == 1 or chisquare(counts).pvalue > RARE


@pytest.mark.parametrize("modes", [2, 4, 8, 9, 25, 100])
def test_gaussian_means_are_centred_with_unit_total_variance(modes):
    means = gaussian_means(modes)
    np.testing.assert_allclose(means.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose((means**2).sum(1).mean(), 2)


def test_eight_gaussians_are_on_a_ring_and_twenty_five_on_a_grid():
    np.testing.assert_allclose(np.linalg.norm(gaussian_means(8), axis=1), math.sqrt(2))
    grid = gaussian_means(25)
    assert len(np.unique(grid[:, 0].round(9))) == len(np.unique(grid[:, 1].round(9))) == 5
    np.testing.assert_allclose(np.diff(np.unique(grid[:, 0].round(12))), math.sqrt(0.5))
