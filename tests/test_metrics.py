"""The score against another algorithm for optimal transport; truth scores 1, a copy √2."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from alphabar import metrics
from alphabar.metrics import SlicedW2, against_fresh, against_held_out, directions


def gaussian(n: int, seed: int, d: int = 2) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_directions() -> None:
    plane = directions(2)
    assert plane.shape == (2, 64)
    angles = torch.atan2(plane[1], plane[0])
    torch.testing.assert_close(angles, math.pi * torch.arange(64).double() / 64)
    for d in (1, 3, 50):
        v = directions(d)
        assert v.shape == (d, 128)
        torch.testing.assert_close(v.norm(dim=0), torch.ones(128).double())
        assert torch.equal(v, directions(d))
        if d == 50:  # in every direction alike: their mean is that of 128 random unit vectors
            assert v.mean(1).norm() < 3 / math.sqrt(128)


def test_the_sizes_of_the_contract() -> None:
    assert (metrics.REFERENCE, metrics.FLOOR_SETS) == (200_000, 200)


def test_truth_floor_and_samples_never_share_points() -> None:
    seeds: list[int] = []

    def fresh(n: int, seed: int) -> Tensor:
        seeds.append(seed)
        return gaussian(n, seed)

    against_fresh(10, fresh)
    assert len(set(seeds)) == len(seeds) == 201


def test_equal_sizes_are_plain_optimal_transport() -> None:
    """With as many points on both sides the quantiles are the points: sort and pair."""
    from scipy.optimize import linear_sum_assignment

    x, y = gaussian(60, 0, 3), gaussian(60, 1, 3) * 2 + 1
    total = 0.0
    for v in directions(3).T:
        cost = ((x @ v)[:, None] - (y @ v)[None, :]).square().numpy()
        rows, columns = linear_sum_assignment(cost)  # the best of all pairings, not by sorting
        total += cost[rows, columns].mean() / 128
    assert SlicedW2(y, 60)(x) == pytest.approx(total, rel=1e-10)


def test_quantiles_of_a_larger_reference() -> None:
    reference = gaussian(1000, 2, 2)
    measured = SlicedW2(reference, 40)
    at = (np.arange(40) + 0.5) / 40
    for j, v in enumerate(directions(2).T):
        expected = np.quantile((reference @ v).numpy(), at, method="hazen")
        np.testing.assert_allclose(measured.quantiles[j].numpy(), expected, rtol=1e-12)


def test_a_shift_is_measured_exactly() -> None:
    """Shifted by m, SW2² = mean over θ of (θ·m)² = |m|²/2 in the plane."""
    x = gaussian(500, 3)
    assert SlicedW2(x, 500)(x) == pytest.approx(0, abs=1e-20)
    assert SlicedW2(x, 500)(x + torch.tensor([3.0, 4.0]).double()) == pytest.approx(12.5)


def test_truth_scores_one_and_a_copy_root_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alphabar.metrics.REFERENCE", 50_000)
    yardstick = against_fresh(500, gaussian)
    fresh = [gaussian(500, 10_000 + i) for i in range(300)]
    score = yardstick.score(fresh)
    assert score.draws == 300
    assert score.ratio == pytest.approx(1, abs=0.06)
    assert score.value / score.floor == pytest.approx(score.ratio)
    # A sampler of the training points themselves, drawn with replacement: their own error once,
    # and that of the draw again.
    ratios = []
    for i in range(30):
        training = gaussian(500, 20_000 + i)
        chosen = torch.randint(500, (10, 500), generator=torch.Generator().manual_seed(i))
        ratios.append(yardstick.score([training[c] for c in chosen]).ratio ** 2)
    assert np.mean(ratios) ** 0.5 == pytest.approx(math.sqrt(2), abs=0.12)


def test_a_file_is_scored_against_its_other_half(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alphabar.metrics.FLOOR_SETS", 50)
    ratios = []
    for i in range(40):
        used, held_out, truth = (gaussian(200, 3 * i + k, 3) for k in range(3))
        ratios.append(against_held_out(used, held_out).score([truth]).ratio ** 2)
    assert np.mean(ratios) ** 0.5 == pytest.approx(1, abs=0.08)
    wrong = against_held_out(gaussian(200, 0, 3), gaussian(200, 1, 3)).score(
        [gaussian(200, 2, 3) + 1]
    )
    assert wrong.ratio > 4


def test_samples_that_remember_how_they_were_made() -> None:
    x = gaussian(50, 3).requires_grad_()
    assert SlicedW2(x, 50)(x) == pytest.approx(0, abs=1e-20)
    assert metrics.Nearest(x)(x).max() == 0
    assert metrics.wasserstein2_squared(x, x) == pytest.approx(0, abs=1e-20)


@pytest.mark.parametrize(("reference", "n"), [(1, 10), (10, 1)])
def test_two_points_at_least(reference: int, n: int) -> None:
    with pytest.raises(ValueError, match="two or more"):
        SlicedW2(gaussian(reference, 0), n)


def test_a_set_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="it must be"):
        SlicedW2(gaussian(50, 0), 20)(gaussian(21, 1))


# --- against other libraries and closed forms


@pytest.mark.parametrize("d", [1, 2, 5])
def test_sliced_w2_is_that_of_pot(d: int) -> None:
    import ot

    x, y = gaussian(80, 4, d), 1.3 * gaussian(80, 5, d) + 0.2
    other = ot.sliced_wasserstein_distance(
        x.numpy(), y.numpy(), projections=directions(d).numpy(), p=2
    )
    assert math.sqrt(SlicedW2(y, 80)(x)) == pytest.approx(float(other), rel=1e-10)


def normal_scores(n: int) -> Tensor:
    return torch.from_numpy(stats.norm.ppf((np.arange(n) + 0.5) / n))[:, None]


@pytest.mark.parametrize(("mean", "sd"), [(0.7, 1.0), (0.0, 1.8), (-0.4, 0.5)])
def test_normal_laws_on_the_line(mean: float, sd: float) -> None:
    """W2² = (difference of the means)² + (difference of the standard deviations)²."""
    x = mean + sd * normal_scores(4_000)
    expected = pytest.approx(mean**2 + (sd - 1) ** 2, rel=2e-3)
    assert SlicedW2(normal_scores(200_000), 4_000)(x) == expected
    assert metrics.wasserstein2_squared(x[::8], normal_scores(500)) == pytest.approx(
        mean**2 + (sd - 1) ** 2, rel=0.05
    )


def test_the_linear_part_of_a_shift() -> None:
    """A shift m is a potential 2·θ·m·θ·x in each direction, m·x on average in the plane."""
    m = torch.tensor([3.0, 4.0]).double()
    x = gaussian(4_000, 6)
    expected = (x @ m).var().item() / 4_000
    assert SlicedW2(x, 4_000).variance(x + m) == pytest.approx(expected, rel=1e-3)
    measured = SlicedW2(gaussian(100_000, 7), 500)
    squares = [measured(1.3 * gaussian(500, 100 + i)) for i in range(400)]
    linear = [measured.variance(1.3 * gaussian(500, 100 + i)) for i in range(100)]
    assert np.mean(linear) == pytest.approx(np.var(squares), rel=0.25)


def test_the_linear_part_of_truth_is_twice_its_spread() -> None:
    measured = SlicedW2(gaussian(100_000, 7), 300)
    squares = [measured(gaussian(300, 100 + i)) for i in range(600)]
    linear = [measured.variance(gaussian(300, 100 + i)) for i in range(600)]
    assert np.mean(linear) == pytest.approx(2 * np.var(squares), rel=0.3)


def test_rows_that_are_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """On average over files, the floor is the distance of fresh sets of these sizes."""
    monkeypatch.setattr("alphabar.metrics.FLOOR_SETS", 10)
    floors, true = [], []
    for i in range(100):
        found = [m(x) for m, x in metrics.trials_rows(gaussian(200, 3 * i), 60).floor]
        assert len(set(found)) == 10
        floors += found
        true.append(SlicedW2(gaussian(200, 3 * i + 1), 60)(gaussian(60, 3 * i + 2)))
    assert np.mean(floors) == pytest.approx(np.mean(true), rel=0.15)


def brute_force(x: Tensor, y: Tensor) -> float:
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    cost = cdist(x.numpy(), y.numpy(), "sqeuclidean")
    rows, columns = linear_sum_assignment(cost)
    return float(cost[rows, columns].mean())


@pytest.mark.parametrize("d", [1, 2, 30])
def test_exact_transport_is_the_best_pairing(d: int) -> None:
    x, y = gaussian(90, 9, d), gaussian(90, 10, d) * 0.5 + 2
    assert metrics.wasserstein2_squared(x, y) == pytest.approx(brute_force(x, y), rel=1e-9)
    # 20 points against 30 are 60 against 60, each of them several times.
    many = brute_force(x[:20].repeat_interleave(3, 0), y[:30].repeat_interleave(2, 0))
    assert metrics.wasserstein2_squared(x[:20], y[:30]) == pytest.approx(many, rel=1e-9)


@pytest.mark.parametrize("unit", [1e-120, 1.0, 1e120])
def test_exact_transport_in_any_unit(unit: float) -> None:
    x = gaussian(50, 11)
    m = torch.tensor([3.0, 4.0]).double()
    assert metrics.wasserstein2_squared(unit * x, unit * (x + m)) / unit**2 == pytest.approx(25)


def test_exact_transport_between_equal_points() -> None:
    same = torch.ones(20, 2).double()
    assert metrics.wasserstein2_squared(same, same) == 0


@pytest.mark.parametrize(("n", "m", "d"), [(50, 50, 2), (50, 31, 2), (17, 60, 5)])
@pytest.mark.parametrize("is_discrete", [False, True])
def test_ks_is_that_of_scipy(n: int, m: int, d: int, is_discrete: bool) -> None:
    x, y = gaussian(n, 12, d), gaussian(m, 13, d) + 0.3
    if is_discrete:
        x, y = x.round(), y.round()
    # Rounded, so that what is equal but for the last digits is equal for scipy too.
    a, b = ((v @ directions(d)).T.sort(1).values for v in (x, y))
    found = metrics.ks_gap(a, b)
    each = [
        stats.ks_2samp(p.numpy().round(9), q.numpy().round(9)) for p, q in zip(a, b, strict=True)
    ]
    best = max(each, key=lambda one: one.statistic)
    assert found.value == pytest.approx(best.statistic, abs=1e-12)
    share = (a[each.index(best)] <= best.statistic_location + 1e-9).double().mean().item()
    if not is_discrete and [e.statistic for e in each].count(best.statistic) == 1:
        assert found.share == pytest.approx(share, abs=1 / n + 1e-9)


def test_ks_forgives_a_rounding() -> None:
    a = torch.tensor([[1.0, 1.0, 2.0, 2.0]]).double()
    assert metrics.ks_gap(a, a * (1 + 1e-15)).value == 0
    assert metrics.ks_gap(a * (1 + 1e-15), a).value == 0
    assert metrics.ks_gap(a, a * (1 + 1e-6)).value == 0.5


def test_the_variance_of_ks_where_the_gap_is() -> None:
    """Against a law far off, the gap is a share of the points, and varies like one."""
    b = (gaussian(2_000, 14, 1) + 1.0).T.sort(1).values
    gaps = [metrics.ks_gap(gaussian(400, 100 + i, 1).T.sort(1).values, b) for i in range(400)]
    expected = np.mean([gap.variance(400) for gap in gaps])
    assert expected == pytest.approx(np.var([gap.value for gap in gaps]), rel=0.25)


@pytest.mark.parametrize("d", [1, 3, 40])
def test_distances(d: int) -> None:
    from scipy.spatial.distance import cdist

    x, y = gaussian(30, 15, d) + 1e3, gaussian(20, 16, d) + 1e3
    y[3] = x[7]
    found = metrics.distances(x, y).numpy()
    np.testing.assert_allclose(found, cdist(x.numpy(), y.numpy()), rtol=1e-7, atol=1e-12)
    assert found[7, 3] == 0


# --- precision, recall, density, coverage


def naive(x: Tensor, truth: Tensor, k: int) -> tuple[float, float, float, float]:
    """As the papers have it, point by point."""
    from sklearn.metrics import pairwise_distances

    def radius(points: np.ndarray, i: int) -> float:
        others = np.delete(pairwise_distances(points[[i]], points)[0], i)
        return float(np.sort(others)[k - 1])

    a, b = x.numpy(), truth.numpy()
    radii_a = [radius(a, i) for i in range(len(a))]
    radii_b = [radius(b, i) for i in range(len(b))]
    apart = pairwise_distances(b, a)
    precision = recall = density = coverage = 0.0
    for j in range(len(a)):
        inside = [apart[i, j] <= radii_b[i] for i in range(len(b))]
        precision += any(inside) / len(a)
        density += sum(inside) / k / len(a)
    for i in range(len(b)):
        recall += any(apart[i, j] <= radii_a[j] for j in range(len(a))) / len(b)
        coverage += (min(apart[i]) <= radii_b[i]) / len(b)
    return precision, recall, density, coverage


@pytest.mark.parametrize(("n", "m", "d", "k"), [(60, 60, 2, 5), (40, 70, 3, 3), (60, 50, 20, 5)])
def test_manifold_point_by_point(n: int, m: int, d: int, k: int) -> None:
    x, truth = 0.8 * gaussian(n, 17, d) + 0.4, gaussian(m, 18, d)
    assert tuple(metrics.manifold(x, truth, k)) == pytest.approx(naive(x, truth, k))


def test_manifold_of_truth() -> None:
    """Density 1; coverage 1 − ∏_{i=1..k} (n − i)/(2n − i) (Naeem et al. 2020, lemma 2)."""
    n, k = 100, 5
    found = np.mean(
        [metrics.manifold(gaussian(n, i), gaussian(n, 500 + i), k) for i in range(300)], 0
    )
    covered = 1 - math.prod((n - i) / (2 * n - i) for i in range(1, k + 1))
    assert found[2] == pytest.approx(1, abs=0.03)
    assert found[3] == pytest.approx(covered, abs=0.005)
    assert found[0] == pytest.approx(found[1], abs=0.01)  # the one is the other, sides changed


def test_manifold_of_collapsed_shifted_and_outlying_sets() -> None:
    truth, other = gaussian(300, 19), gaussian(300, 20)
    mode = metrics.manifold(0.02 * other, truth)
    assert mode.precision == 1
    assert mode.recall < 0.05
    assert mode.coverage < 0.05
    # In 30 columns its middle is nearer to every point than their own neighbours are.
    assert metrics.manifold(0.02 * gaussian(300, 20, 30), gaussian(300, 19, 30)).density > 20
    assert tuple(metrics.manifold(other + 100, truth)) == (0, 0, 0, 0)
    # One sample far out makes a large ball of its own, which recall believes and coverage does not.
    some = torch.cat([0.02 * other[:-6], 50 + 1e-3 * other[-6:]])
    far = metrics.manifold(
        torch.cat([0.02 * other[:-1], torch.tensor([[50.0, 0.0]]).double()]), truth
    )
    assert far.recall > 0.4
    assert far.coverage < 0.05
    assert metrics.manifold(some, truth).precision == pytest.approx(294 / 300)


def test_manifold_where_points_repeat() -> None:
    """Eleven places, each many times over: truth is where truth is."""
    places = torch.arange(11).double()[:, None] * 0.1
    x = places.repeat(20, 1)
    assert metrics.manifold(x, x).precision == 1
    assert metrics.manifold(x, x).coverage == 1
    wide = x.repeat(1, 30)  # by the matrix product
    assert tuple(metrics.manifold(wide, wide.flip(0)))[:2] == (1, 1)
    assert metrics.manifold(wide + 0.03, wide).precision == 0


@pytest.mark.parametrize("columns", [1, 30])
def test_manifold_on_the_rim_of_a_ball(columns: int) -> None:
    """Whole numbers, a step from the last of them: as near as that one's own neighbour."""
    truth = torch.arange(11).double()[:, None].repeat(1, columns)
    assert metrics.manifold(truth[-2:] + 1, truth, 1).precision == 1


def test_manifold_needs_neighbours() -> None:
    with pytest.raises(ValueError, match="6 or more"):
        metrics.manifold(gaussian(5, 0), gaussian(50, 1))


# --- energy distance and MMD


@pytest.mark.parametrize("chunk", [2**23, 100])
def test_energy_is_that_of_scipy(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alphabar.metrics.CHUNK", chunk)
    x, y = gaussian(70, 21, 1), 2 * gaussian(45, 22, 1) + 1
    expected = stats.energy_distance(x[:, 0].numpy(), y[:, 0].numpy())
    assert math.sqrt(metrics.energy_squared(x, y)) == pytest.approx(expected, rel=1e-10)
    assert metrics.energy_squared(x, x) == pytest.approx(0, abs=1e-14)


def test_energy_of_a_shift_in_many_dimensions() -> None:
    """‖X − Y‖ of Gaussians a shift apart is a noncentral chi; here d = 20."""
    d, shift = 20, 2.0
    x, y = gaussian(2_000, 23, d), gaussian(2_000, 24, d)
    y[:, 0] += shift
    apart = math.sqrt(2) * stats.ncx2.expect(np.sqrt, (d, shift**2 / 2))
    alone = math.sqrt(2) * stats.chi2.expect(np.sqrt, (d,))
    floor = 2 * alone / 2_000  # of pairs of a point and itself
    expected = 2 * (apart - alone) + floor
    assert metrics.energy_squared(x, y) == pytest.approx(expected, rel=0.05)


def test_mmd_is_the_mean_over_pairs_of_others() -> None:
    from sklearn.metrics.pairwise import rbf_kernel

    x, y, widths = gaussian(30, 25, 3), gaussian(20, 26, 3) + 0.5, (0.7, 1.5)

    def kernel(a: Tensor, b: Tensor) -> np.ndarray:
        return sum(rbf_kernel(a.numpy(), b.numpy(), 1 / (2 * w**2)) for w in widths) / len(widths)

    def others(k: np.ndarray) -> float:
        return float(k[~np.eye(len(k), dtype=bool)].mean())

    expected = others(kernel(x, x)) + others(kernel(y, y)) - 2 * kernel(x, y).mean()
    assert metrics.mmd_squared(x, y, widths) == pytest.approx(expected, rel=1e-9)


def test_mmd_of_normal_laws() -> None:
    """E k(X, Y) = (w²/(w² + s² + u²))^{d/2}·exp(−‖m‖²/(2(w² + s² + u²))); unbiased."""
    d, w, m, s = 2, 1.0, 0.5, 1.5

    def expected(shift: float, variance: float) -> float:
        total = w**2 + variance
        return (w**2 / total) ** (d / 2) * math.exp(-(shift**2) / 2 / total)

    truth = expected(0, 2) + expected(0, 2 * s**2) - 2 * expected(m, 1 + s**2)
    shift = torch.tensor([m, 0.0]).double()
    found = [
        metrics.mmd_squared(gaussian(60, i), s * gaussian(60, 500 + i) + shift, [w])
        for i in range(200)
    ]
    assert np.mean(found) == pytest.approx(truth, abs=4 * np.std(found) / 200**0.5)
    same = [metrics.mmd_squared(gaussian(60, i), gaussian(60, 500 + i), [w]) for i in range(200)]
    assert np.mean(same) == pytest.approx(0, abs=4 * np.std(same) / 200**0.5)
    assert min(same) < 0


def test_median_distance() -> None:
    from scipy.spatial.distance import pdist

    x = gaussian(40, 27, 3)
    assert metrics.median_distance(x) == pytest.approx(np.sort(pdist(x.numpy()))[(780 - 1) // 2])
    # Of points that repeat, the median among those that differ.
    assert metrics.median_distance(torch.tensor([[0.0]] * 9 + [[3.0]]).double()) == 3
    assert metrics.median_distance(torch.zeros(5, 2).double()) == 0


# --- the nearest training point


@pytest.mark.parametrize("d", [2, 30])
def test_nearest(d: int) -> None:
    training, x = gaussian(60, 28, d), gaussian(25, 29, d)
    near = metrics.Nearest(training)
    expected = [min(float((a - b).norm()) for b in training) for a in x]
    np.testing.assert_allclose(near(x).numpy(), expected, rtol=1e-9)
    rounded = training.float().double()
    assert (near(rounded) <= near.slack(rounded)).all()
    assert (near(x) > near.slack(x)).all()


# --- the Fréchet distance


@pytest.mark.parametrize(
    ("n", "m", "d"), [(40, 40, 3), (200, 90, 17), (50, 50, 50), (12, 9, 30), (40, 8, 20), (2, 2, 1)]
)
def test_frechet_is_by_the_root_of_the_product_of_covariances(n: int, m: int, d: int) -> None:
    """Also of fewer points than columns, where the covariances are singular."""
    from scipy.linalg import sqrtm

    x, y = gaussian(n, 30, d) * 2 + 1, gaussian(m, 31, d) @ gaussian(d, 32, d)
    a, b = (np.atleast_2d(np.cov(z.numpy(), rowvar=False)) for z in (x, y))
    # A little on the diagonal: of a singular product sqrtm has no root to a good precision.
    slack = 1e-13 * np.eye(d) if min(n, m) <= d else 0 * np.eye(d)
    root_a = sqrtm(a + slack).real
    root = sqrtm(root_a @ (b + slack) @ root_a).real
    shift = float((x.mean(0) - y.mean(0)).square().sum())
    expected = shift + np.trace(a) + np.trace(b) - 2 * np.trace(root)
    found = metrics.frechet_squared(x, y)
    assert found == pytest.approx(expected, rel=1e-5 if min(n, m) <= d else 1e-9)
    assert metrics.frechet_squared(y, x) == pytest.approx(found, rel=1e-12)


def with_moments(mean: Tensor, root: Tensor) -> Tensor:
    """Points whose mean, and whose covariance root·rootᵀ, are as given."""
    d = len(mean)
    z = torch.cat([torch.eye(d), -torch.eye(d)]).double() * math.sqrt((2 * d - 1) / 2)
    return mean + z @ root.T


def test_frechet_between_normal_laws() -> None:
    """Σ (difference of means)² + Σ (difference of standard deviations)², of laws that commute."""
    turn = torch.linalg.qr(gaussian(4, 33, 4)).Q
    s, r = (torch.tensor(v).double() for v in ([1.0, 2.0, 0.0, 5.0], [3.0, 2.0, 0.5, 0.0]))
    shift = torch.tensor([1.0, -2.0, 0.0, 4.0]).double()
    x = with_moments(torch.zeros(4).double(), turn @ torch.diag(s))
    y = with_moments(shift, turn @ torch.diag(r))
    expected = 21 + float((s - r).square().sum())
    assert metrics.frechet_squared(x, y) == pytest.approx(expected, rel=1e-12)
    # Far from the origin nothing cancels but the means.
    assert metrics.frechet_squared(x + 1e6, y + 1e6) == pytest.approx(expected, rel=1e-8)


def test_frechet_of_a_set_and_itself_is_0() -> None:
    for n, d in ((50, 4), (5, 40)):
        x = gaussian(n, 34, d)
        assert 0 <= metrics.frechet_squared(x, x.flip(0)) < 1e-12 * d
    same = torch.ones(3, 2).double()
    assert metrics.frechet_squared(same, same) == 0


def test_frechet_of_few_points_is_too_large() -> None:
    """Of normal laws that are the same: so only sets of as many points can be compared."""
    found = [
        np.mean(
            [metrics.frechet_squared(gaussian(n, i, 6), gaussian(n, -1 - i, 6)) for i in range(40)]
        )
        for n in (10, 40, 160)
    ]
    assert found[0] > 3 * found[1] > 9 * found[2] > 0


def test_frechet_takes_two_points() -> None:
    with pytest.raises(ValueError, match="1 points against 5"):
        metrics.frechet_squared(gaussian(1, 0), gaussian(5, 1))
