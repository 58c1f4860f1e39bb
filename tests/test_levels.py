"""Levels drawn for training: densities against scipy's, evenness, and what a schedule gives."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor

from alphabar import schedule as S
from alphabar.levels import LEVELS, Density, Levels, OfSchedule, even, of_schedule
from alphabar.spec import Entry

# What the λ of each member is, by scipy, and how far it may be from it: the ends that are cut off.
THEIRS = {
    "uniform": stats.uniform(-10, 20),
    "uniform:low=-4,high=7.5": stats.uniform(-4, 11.5),
    "normal": stats.norm(2.4, 2.4),
    "normal:mean=-1,std=5": stats.norm(-1, 5),
    "logistic": stats.logistic(scale=2),
    "logistic:mean=3,scale=1.6": stats.logistic(3, 1.6),
    "cosine": stats.hypsecant(scale=2),
}
SCHEDULES = ["linear:T=40", "karras:T=25", "flow:T=10", "jsd:T=7", "constant:T=1"]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def member(spec: str) -> Density:
    return LEVELS.parse(spec)


def of(spec: str) -> OfSchedule:
    return of_schedule(S.SCHEDULES.parse(spec))


def test_every_member_has_an_oracle() -> None:
    assert {entry.name for entry in LEVELS} == {spec.split(":")[0] for spec in THEIRS}


@pytest.mark.parametrize("spec", THEIRS)
def test_quantile_and_density_are_scipys(spec: str) -> None:
    levels = member(spec)
    u = torch.linspace(0.001, 0.999, 999, dtype=torch.float64)
    log_snr = levels.quantile(u)
    np.testing.assert_allclose(log_snr, THEIRS[spec].ppf(u), rtol=2e-4, atol=2e-4)
    np.testing.assert_allclose(levels.density(log_snr), THEIRS[spec].pdf(log_snr), rtol=2e-6)


@pytest.mark.parametrize("spec", THEIRS)
def test_the_density_integrates_to_one_and_the_quantile_to_its_ends(spec: str) -> None:
    """∫ p from the low end to quantile(u) is u, by quadrature, also in the tails."""
    levels = member(spec)
    low, high = levels.ends

    def density(x: float) -> float:
        return levels.density(torch.tensor([x], dtype=torch.float64)).item()

    middle = levels.quantile(torch.tensor([0.5], dtype=torch.float64)).item()
    halves = [integrate.quad(density, a, b, limit=200) for a, b in ((low, middle), (middle, high))]
    assert [half for half, _ in halves] == pytest.approx([0.5, 0.5], abs=1e-9)
    for share in (1e-6, 0.01, 0.9, 1 - 1e-6):
        to = levels.quantile(torch.tensor([share], dtype=torch.float64)).item()
        below = integrate.quad(density, low, to, limit=200, points=sorted((middle, to)))[0]
        assert below == pytest.approx(share, rel=1e-6)


@pytest.mark.parametrize("spec", ["uniform", "normal:mean=20,std=100", "logistic", "cosine"])
def test_levels_are_finite_at_the_very_ends(spec: str) -> None:
    levels = member(spec)
    ends = torch.tensor([0, 1e-300, math.nextafter(1, 0)], dtype=torch.float64)
    log_snr = levels.quantile(ends)
    low, high = levels.ends
    assert log_snr.tolist() == pytest.approx([low, low, high], abs=0.1)
    assert log_snr.min() >= low
    assert log_snr.max() <= high
    assert (levels.density(log_snr) > 0).all()


@pytest.mark.parametrize("spec", THEIRS)
def test_draws_are_variance_preserving_levels_with_their_density(spec: str) -> None:
    drawn = member(spec).draw(100, generator())
    alpha, sigma = drawn.level
    assert alpha.shape == sigma.shape == (100,)
    assert alpha.dtype == sigma.dtype == torch.float64
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones(100).double())
    assert drawn.density is not None
    np.testing.assert_allclose(drawn.density, THEIRS[spec].pdf(drawn.level.log_snr), rtol=1e-5)
    assert drawn.before is None
    assert drawn.T is None


@pytest.mark.parametrize("spec", THEIRS)
@pytest.mark.parametrize("n", [1, 7, 1000])
def test_one_level_in_each_nth_of_the_distribution(spec: str, n: int) -> None:
    for seed in range(5):
        share = THEIRS[spec].cdf(member(spec).draw(n, generator(seed)).level.log_snr)
        assert sorted(np.floor(share * n)) == list(range(n))


def test_the_shift_is_uniform_and_shared() -> None:
    """A5: one shift for all, and uniform itself, or the levels would not have their density."""
    drawn = torch.stack([even(4, generator(seed)) for seed in range(400)])
    torch.testing.assert_close(drawn.diff(dim=1), torch.full((400, 3), 0.25, dtype=torch.float64))
    assert stats.kstest(drawn[:, 0] * 4, "uniform").pvalue > 0.01
    assert even(3, generator()).max() < 1


def test_every_level_is_drawn_by_its_density_from_small_batches_too() -> None:
    """Batches of 2: pooled, λ has the density, by a Kolmogorov–Smirnov test."""
    pooled: list[float] = []
    levels, rng = member("cosine"), generator(1)
    for _ in range(600):
        pooled += levels.draw(2, rng).level.log_snr.tolist()
    assert stats.kstest(pooled, THEIRS["cosine"].cdf).pvalue > 0.01


def test_normal_is_edms_log_sigma() -> None:
    """Karras et al. 2022, table 1: log σ ~ N(−1.2, 1.2²), σ that of α = 1."""
    alpha, sigma = member("normal").draw(100_000, generator()).level
    log_sigma = (sigma / alpha).log()
    assert log_sigma.mean().item() == pytest.approx(-1.2, abs=1e-3)
    assert log_sigma.std().item() == pytest.approx(1.2, abs=1e-3)


def test_logistic_is_a_uniform_flow_time() -> None:
    alpha, sigma = member("logistic").draw(1000, generator()).level
    time = sigma / (alpha + sigma)
    assert sorted((time * 1000).floor().tolist()) == list(range(1000))


def test_cosine_is_nichol_and_dhariwals_schedule() -> None:
    """Their ᾱ with s = 0 at t spread evenly, as a table of `schedule.cosine`."""
    table = S.cosine(1000, s=0.0)
    u = 1 - torch.arange(1, 990, dtype=torch.float64) / 1000
    found = member("cosine").quantile(u)
    torch.testing.assert_close(found, table.log_snr[1:990], rtol=1e-4, atol=1e-5)


# --- of a schedule


@pytest.mark.parametrize("spec", SCHEDULES)
def test_each_t_is_drawn_as_often_as_any_other(spec: str) -> None:
    levels = of(spec)
    vp = levels.schedule.to_vp()
    drawn = levels.draw(3 * vp.T, generator(2))
    assert drawn.before is not None
    assert drawn.density is None
    assert drawn.T == vp.T
    torch.testing.assert_close(drawn.level.alpha, vp.alpha[1:].repeat_interleave(3))
    torch.testing.assert_close(drawn.level.sigma, vp.sigma[1:].repeat_interleave(3))
    torch.testing.assert_close(drawn.before.alpha, vp.alpha[:-1].repeat_interleave(3))
    torch.testing.assert_close(drawn.before.sigma, vp.sigma[:-1].repeat_interleave(3))


def test_few_items_of_many_steps_are_spread_over_all() -> None:
    """n = 10 of T = 1000: one in each hundred, and every t comes up in time."""
    levels = of("linear:T=1000")
    alpha = levels.schedule.alpha
    seen: set[int] = set()
    for seed in range(900):
        drawn = levels.draw(10, generator(seed)).level.alpha
        t = (alpha[None] - drawn[:, None]).abs().argmin(1)
        assert ((t - 1) // 100).tolist() == list(range(10))
        seen |= set(t.tolist())
    assert len(seen) > 550  # 900 draws of the same hundred places
    assert min(seen) >= 1


@pytest.mark.parametrize("spec", SCHEDULES)
def test_the_quantile_of_a_schedule_falls_on_its_levels(spec: str) -> None:
    levels = of(spec)
    log_snr = levels.schedule.log_snr[1:].flip(0)
    T = len(log_snr)
    u = (torch.arange(T, dtype=torch.float64) + 0.5) / T
    torch.testing.assert_close(levels.quantile(u), log_snr)
    ends = torch.tensor([0, math.nextafter(1, 0)], dtype=torch.float64)
    torch.testing.assert_close(levels.quantile(ends), log_snr[[0, -1]])


def test_a_spec_makes_the_same_levels_again() -> None:
    assert of("linear:T=40").spec == S.linear(40).spec
    for spec in THEIRS:
        levels = LEVELS.parse(spec)
        again = LEVELS.parse(levels.spec)
        assert again.spec == levels.spec
        a, b = (x.draw(9, generator()).level.alpha for x in (levels, again))
        assert torch.equal(a, b)


# --- laws of all


@pytest.mark.parametrize("levels", [*map(member, THEIRS), *map(of, SCHEDULES)])
def test_draws_are_deterministic_and_leave_the_global_generator_alone(levels: Levels) -> None:
    state = torch.get_rng_state()
    first, again, other = (levels.draw(64, generator(seed)).level.alpha for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again)
    if not isinstance(levels, OfSchedule):
        assert not torch.equal(first, other)


@pytest.mark.parametrize("entry", list(LEVELS), ids=lambda entry: entry.name)
def test_specs_round_trip(entry: Entry) -> None:
    made = LEVELS.parse(entry.usage)
    assert made.spec == entry.usage
    assert made == entry.build()


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("uniform:low=3,high=3", "low = 3 ≥ high = 3"),
        ("uniform:low=-800", "log-SNR from -745"),
        ("normal:std=0", "std = 0"),
        ("normal:mean=99", "log-SNR from -20 to 20"),
        ("cosin", "did you mean cosine"),
        ("logistic:std=2", "no parameter 'std'"),
    ],
)
def test_bad_specs_are_one_sentence(spec: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        LEVELS.parse(spec)


@pytest.mark.parametrize("levels", [member("uniform"), of("linear:T=40")])
def test_at_least_one_level(levels: Levels) -> None:
    with pytest.raises(ValueError, match="n = 0"):
        levels.draw(0, generator())


def test_a_shift_that_rounds_up_stays_below_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """n − 1 + r rounds to n for the largest r: u = 1 would be λ = inf, or t = T + 1."""
    largest = torch.tensor(math.nextafter(1, 0), dtype=torch.float64)

    def rand(*args: object, **kwargs: object) -> Tensor:
        return largest

    monkeypatch.setattr(torch, "rand", rand)
    assert even(2**20, generator())[-1] < 1
    assert member("logistic").draw(2**20, generator()).level.log_snr.isfinite().all()
    assert of("linear:T=40").draw(2**20, generator()).level.alpha[-1] == S.linear(40).alpha[40]
