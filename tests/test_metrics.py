"""The score against another algorithm for optimal transport; truth scores 1, a copy √2."""

import math

import numpy as np
import pytest
import torch
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


def test_a_file_is_scored_against_its_other_half() -> None:
    ratios = []
    for i in range(40):
        used, held_out, truth = (gaussian(200, 3 * i + k, 3) for k in range(3))
        ratios.append(against_held_out(used, held_out).score([truth]).ratio ** 2)
    assert np.mean(ratios) ** 0.5 == pytest.approx(1, abs=0.08)
    wrong = against_held_out(gaussian(200, 0, 3), gaussian(200, 1, 3)).score(
        [gaussian(200, 2, 3) + 1]
    )
    assert wrong.ratio > 4


@pytest.mark.parametrize(("reference", "n"), [(1, 10), (10, 1)])
def test_two_points_at_least(reference: int, n: int) -> None:
    with pytest.raises(ValueError, match="two or more"):
        SlicedW2(gaussian(reference, 0), n)


def test_a_set_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="it must be"):
        SlicedW2(gaussian(50, 0), 20)(gaussian(21, 1))
