"""Following items: the closed form or the chain, their moments, and the KS test that joins them."""

import pytest
import torch
from scipy import stats
from torch import Tensor

from alphabar import schedule as S
from alphabar.forward import walk
from alphabar.trace import even_times, ks_bound, ks_distance, trace


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shaped(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def test_the_closed_form_glides_on_one_noise() -> None:
    table, x_0 = S.linear(12), shaped(5, 2)
    found = trace(table, x_0, [0, 4, 12], generator(1))
    eps = shaped(5, 2)
    for t, x_t in zip([0, 4, 12], found.x, strict=True):
        torch.testing.assert_close(x_t, table.alpha[t] * x_0 + table.sigma[t] * eps)
    assert found.alpha_bar == table.alpha_bar[[0, 4, 12]].tolist()


def test_stepwise_is_the_chain() -> None:
    table, x_0 = S.linear(12), shaped(5, 2)
    found = trace(table, x_0, [0, 4, 12], generator(1), stepwise=True)
    chain = dict(walk(table, x_0, generator(1)))
    assert all(torch.equal(x, chain[t]) for t, x in zip(found.times, found.x, strict=True))


@pytest.mark.parametrize("times", [[3, 3], [4, 2], []])
def test_times_rise(times: list[int]) -> None:
    with pytest.raises(ValueError, match="must rise"):
        trace(S.linear(10), shaped(3, 2), times, generator())


def test_times_are_within_the_schedule() -> None:
    with pytest.raises(ValueError, match="t = 11 is outside"):
        trace(S.linear(10), shaped(3, 2), [3, 11], generator())


@pytest.mark.parametrize("stepwise", [False, True])
@pytest.mark.parametrize("spec", ["linear:T=30,end=0.3", "karras:T=30", "flow:T=30"])
def test_moments_follow_the_law(spec: str, stepwise: bool) -> None:
    n = 40_000
    x_0 = 0.3 * shaped(n, 2) + 1.5
    table = S.SCHEDULES.parse(spec)
    found = trace(table, x_0, even_times(30, 7), generator(2), stepwise)
    for m in found.moments(x_0):
        scale = m.variance_law**0.5
        assert m.mean == pytest.approx(m.mean_law, abs=5.5 * scale / (2 * n) ** 0.5)
        assert m.variance == pytest.approx(m.variance_law, rel=5.5 * (2 / (2 * n)) ** 0.5 + 1e-9)


def test_to_vp() -> None:
    x_0 = shaped(5, 2)
    vp, ve = S.linear(20), S.linear(20).to_ve()
    a = trace(vp, x_0, [0, 10, 20], generator(3))
    b = trace(ve, x_0, [0, 10, 20], generator(3)).to_vp()
    for p, q in zip(a.x, b.x, strict=True):
        torch.testing.assert_close(p, q)
    assert b.schedule.scale == "vp"


@pytest.mark.parametrize(("T", "count"), [(1, 10), (5, 10), (100, 10), (1000, 2), (7, 7)])
def test_even_times(T: int, count: int) -> None:
    times = even_times(T, count)
    assert (times[0], times[-1]) == (0, T)
    assert len(times) == min(count, T + 1)
    assert times == sorted(set(times))


def test_ks_distance_is_scipys() -> None:
    for seed in range(5):
        a, b = shaped(200, seed=seed), 0.8 * shaped(300, seed=seed + 10) + 0.2
        expected = stats.ks_2samp(a.numpy(), b.numpy()).statistic
        assert ks_distance(a, b) == pytest.approx(expected, abs=1e-12)


def test_ks_bound_holds_its_false_alarm_rate() -> None:
    """At a rate of 10% over two tests it must be exceeded in at most that share of 2,000 trials."""
    bound = ks_bound(100, 150, 2, 0.1)
    over = 0
    for i in range(2000):
        pairs = [(shaped(100, seed=4 * i + k), shaped(150, seed=4 * i + k + 2)) for k in (0, 1)]
        over += max(ks_distance(a, b) for a, b in pairs) > bound
    assert 20 < over < 200 + 5 * 13.4
