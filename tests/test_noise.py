"""Keyed noise: a function of (seed, item, step), standard normal, and nothing shared."""

import math

import pytest
import torch
from scipy import stats

from alphabar.arguments import check_seed
from alphabar.noise import keyed_noise

FALSE_ALARM = 1e-6
PINNED = [[0.17788761854171753, 0.09467827528715134], [0.24875667691230774, -1.128907322883606]]


@pytest.mark.parametrize("cut", [1, 7, 511, 512, 513, 2000])
def test_batches_do_not_matter(cut: int) -> None:
    whole = keyed_noise(5, 3, 0, 3000, (2,))
    parts = [keyed_noise(5, 3, a, min(cut, 3000 - a), (2,)) for a in range(0, 3000, cut)]
    assert torch.equal(torch.cat(parts), whole)


def test_it_is_standard_normal() -> None:
    z = keyed_noise(1, 0, 0, 200_000, (1,)).flatten().double()
    distance = stats.kstest(z.numpy(), "norm").statistic
    assert distance < math.sqrt(math.log(2 / FALSE_ALARM) / 2 / len(z))


@pytest.mark.parametrize("other", [(6, 0, 0), (5, 1, 0), (5, 0, 2048)])
def test_other_seed_step_or_item_is_other_noise(other: tuple[int, int, int]) -> None:
    n = 20_000
    a = keyed_noise(5, 0, 0, n, (1,)).flatten()
    seed, step, first = other
    b = keyed_noise(seed, step, first, n, (1,)).flatten()
    assert not (a == b).any()
    assert abs(torch.corrcoef(torch.stack([a, b]))[0, 1]) < 5.5 / math.sqrt(n)


def test_shapes() -> None:
    assert keyed_noise(0, 0, 5, 3, (1, 8, 8)).shape == (3, 1, 8, 8)
    assert keyed_noise(2**64 - 1, 0, 0, 1, ()).shape == (1,)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seed_out_of_range(seed: int) -> None:
    with pytest.raises(ValueError, match="whole number from 0"):
        check_seed(seed)


def test_the_numbers_themselves_are_pinned() -> None:
    """Every sample of every seed depends on them: they must not change unnoticed."""
    assert keyed_noise(7, 3, 10_000, 2, (2,)).tolist() == PINNED


def test_large_items_cost_no_more_than_themselves() -> None:
    assert keyed_noise(0, 0, 5, 1, (3, 64, 64)).shape == (1, 3, 64, 64)
    a, b = keyed_noise(0, 0, 5, 2, (3, 100, 100))
    assert not (a == b).any()
