"""The variational bound against torch.distributions, closed forms, quadrature, and the entropy."""

import math
from typing import NamedTuple

import jaxtyping
import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from alphabar import schedule as S
from alphabar.bound import Bound, Discretised, Variance, bound
from alphabar.noise import keyed_noise
from alphabar.samplers.base import Normal as Moments
from alphabar.schedule import Level, Schedule
from alphabar.targets import Mixture, Points

TABLES = {
    "vp": S.from_alpha_bar([0.95, 0.7, 0.3, 0.02]),
    "ve": S.from_sigmas([0.1, 0.4, 1.5, 9.0]),
    "flow": S.flow(4),  # ends in pure noise: alpha[T] = 0
}
HUMPS = Mixture([1, 3], torch.tensor([[-1.0], [0.8]]).double(), var=torch.tensor([0.04, 0.25]))


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def drawn(target: Mixture | Points, n: int, seed: int = 0) -> Tensor:
    return target.sample(n, torch.Generator().manual_seed(seed))


def wrong(x_t: Tensor, level: Level) -> Tensor:
    """Not the denoiser of anything."""
    return (0.8 * x_t + 0.1) / (level.alpha + level.sigma)


class Expected(NamedTuple):
    prior: float
    terms: list[float]


def by_distributions(
    x_0: Tensor, table: Schedule, variance: Variance, mix: float, seed: int
) -> Expected:
    """All terms of the bound of `wrong`, from Bayes' rule for one step and torch's divergences."""
    d = x_0[0].numel()
    terms = []
    for t in range(1, table.T + 1):
        (a_s, s_s), (a_t, s_t) = ([c.item() for c in table[i]] for i in (t - 1, t))
        x_t = a_t * x_0 + s_t * keyed_noise(seed, t, 0, len(x_0), tuple(x_0.shape[1:])).double()
        x_0_hat = wrong(x_t, table[t])
        step = a_t / a_s  # x_t = step·x_s + √added·z
        added = s_t**2 - step**2 * s_s**2
        # β in the variance-preserving scale, then in this one.
        beta = (1 - step**2 * (a_s**2 + s_s**2) / (a_t**2 + s_t**2)) * (a_s**2 + s_s**2)
        if t == 1:
            decoder = Independent(Normal(x_0_hat, math.sqrt(beta)), 1)
            terms.append(-decoder.log_prob(x_0).mean().item() / d)
            continue
        precision = 1 / s_s**2 + step**2 / added

        def back(clean: Tensor, var: float, pair: tuple[float, ...]) -> Independent:
            a_s, s_s, step, added, precision, x_t = pair
            mean = (a_s * clean / s_s**2 + step * x_t / added) / precision
            return Independent(Normal(mean, math.sqrt(var)), 1)

        pair = (a_s, s_s, step, added, precision, x_t)
        m = {"posterior": 0.0, "beta": 1.0, "learned": (mix + 1) / 2}[variance]
        var = beta**m * (1 / precision) ** (1 - m)
        truth, model = back(x_0, 1 / precision, pair), back(x_0_hat, var, pair)
        terms.append(kl_divergence(truth, model).mean().item() / d)
    a, s = (c.item() for c in table[table.T])
    at_T = Independent(Normal(a * x_0, s), 1)
    start = Independent(Normal(torch.zeros_like(x_0), math.hypot(a, s)), 1)
    return Expected(kl_divergence(at_T, start).mean().item() / d, terms)


@pytest.mark.parametrize("variance", ["posterior", "beta"])
@pytest.mark.parametrize("name", TABLES)
def test_every_term_against_torch_distributions(name: str, variance: Variance) -> None:
    x_0 = drawn(Mixture([1], double(1, -2, 0.5)[None], var=torch.ones(1)), 20)
    found = bound(wrong, x_0, TABLES[name], 7, variance)
    expected = by_distributions(x_0, TABLES[name], variance, 0.0, 7)
    assert found.prior == pytest.approx(expected.prior, rel=1e-10)
    assert found.terms.tolist() == pytest.approx(expected.terms, rel=1e-10)
    assert found.terms.shape == (TABLES[name].T,)
    assert found.reconstruction == found.terms[0].item()
    assert found.total == pytest.approx(expected.prior + sum(expected.terms), rel=1e-12)
    assert found.bits is None


class Learned:
    """`wrong`, with one mix for all numbers or one each."""

    def __init__(self, mix: float | Tensor) -> None:
        self.mix = mix

    def __call__(self, x_t: Tensor, level: Level) -> Tensor:
        return wrong(x_t, level)

    def with_variance(self, x_t: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        return wrong(x_t, level), self.mix * torch.ones_like(x_t)


@pytest.mark.parametrize("mix", [-1.0, -0.3, 0.0, 1.0, 1.4])
@pytest.mark.parametrize("name", TABLES)
def test_learned_variance_lies_between_the_two(name: str, mix: float) -> None:
    """Nichol & Dhariwal 2021, eq. (15)."""
    x_0 = drawn(Mixture([1], double(1, -2, 0.5)[None], var=torch.ones(1)), 20)
    found = bound(Learned(mix), x_0, TABLES[name], 7, "learned")
    expected = by_distributions(x_0, TABLES[name], "learned", mix, 7)
    assert found.terms[1:].tolist() == pytest.approx(expected.terms[1:], rel=1e-10)
    if mix == 1:  # at t = 1 as well
        assert found.reconstruction == pytest.approx(expected.terms[0], rel=1e-10)
    else:
        assert math.isfinite(found.reconstruction)


def test_learned_variance_is_one_for_each_number() -> None:
    """Two columns, one at each end: together with the exchanged they make both ends in full."""
    x_0 = drawn(Mixture([1], double(1, -2)[None], var=torch.ones(1)), 20)

    def terms(mix: float | Tensor) -> Tensor:
        return bound(Learned(mix), x_0, TABLES["vp"], 0, "learned").terms

    one, other = terms(double(-1, 1)), terms(double(1, -1))
    assert not torch.allclose(one, other, rtol=1e-3)
    torch.testing.assert_close(one + other, terms(-1.0) + terms(1.0), rtol=1e-12, atol=1e-12)


def test_a_given_decoder_width_stands_before_the_learned() -> None:
    x_0 = drawn(HUMPS, 20)
    low, high = (
        bound(Learned(m), x_0, TABLES["vp"], 0, "learned", decoder_std=0.3) for m in (-1.0, 1.0)
    )
    assert low.reconstruction == high.reconstruction
    assert low.total != high.total


@pytest.mark.parametrize("variance", ["posterior", "beta"])
def test_gaussian_in_closed_form(variance: Variance) -> None:
    """Data N(m, s²): E(x_0 − x̂_0)² = s²σ²/(α²s² + σ²), and all terms follow."""
    m, s, n = 0.7, 0.5, 40_000
    target = Mixture([1], double(m)[:, None], var=double(s * s))
    table = S.from_alpha_bar([0.97, 0.8, 0.4, 0.05])
    found = bound(target, drawn(target, n, 3), table, 1, variance, batch=n)
    ab = table.alpha_bar.numpy()
    snr = ab[1:] / (1 - ab[1:])
    mmse = s**2 / (1 + s**2 * snr)
    beta = 1 - ab[1:] / ab[:-1]
    for t in range(2, table.T + 1):
        r = 1.0 if variance == "posterior" else (1 - ab[t - 1]) / (1 - ab[t])
        part = 0.5 * (snr[t - 2] - snr[t - 1]) * r * mmse[t - 1]
        expected = part + 0.5 * (r - 1 - math.log(r))
        assert abs(found.terms[t - 1].item() - expected) < 5 * part * math.sqrt(2 / n)
    part = 0.5 * mmse[0] / beta[0]
    expected = part + 0.5 * math.log(2 * math.pi * beta[0])
    assert abs(found.reconstruction - expected) < 5 * part * math.sqrt(2 / n)
    second = m**2 + s**2
    expected = 0.5 * (ab[-1] * second - ab[-1] - math.log(1 - ab[-1]))
    spread = ab[-1] / 2 * math.sqrt((2 * s**4 + 4 * m**2 * s**2) / n)
    assert abs(found.prior - expected) < 5 * spread


# --- the bound and the entropy


def density(x: float) -> float:
    return 0.25 * norm.pdf(x, -1, 0.2) + 0.75 * norm.pdf(x, 0.8, 0.5)


def entropy() -> float:
    return quad(lambda x: -density(x) * math.log(density(x)), -4, 5, limit=200)[0]


def mmse(snr: float) -> float:
    """E(x_0 − E[x_0 | x_t])² of `HUMPS` on a grid, by Bayes' rule and sums."""
    x = np.linspace(-4, 5, 1801)
    p = np.array([density(v) for v in x])
    p /= p.sum()
    rho = 1 / math.sqrt(snr)
    y = np.linspace(-4 - 8 * rho, 5 + 8 * rho, 2401)
    joint = p * np.exp(-0.5 * ((y[:, None] - x) / rho) ** 2)
    mean = joint @ x / joint.sum(1).clip(1e-300)
    weight = joint.sum(1) / joint.sum()
    return (p @ x**2) - weight @ mean**2


def test_expectation_by_quadrature() -> None:
    """L_{t−1} = ½(SNR_{t−1} − SNR_t)·mmse(SNR_t) for a target with no closed form for it."""
    table = S.from_log_snr([3.0, 1.0, -1.0, -4.0])
    n = 20_000
    found = bound(HUMPS, drawn(HUMPS, n), table, 0, "posterior", batch=n)
    snr = np.exp([3.0, 1.0, -1.0, -4.0])
    for t in (2, 3, 4):
        expected = 0.5 * (snr[t - 2] - snr[t - 1]) * mmse(snr[t - 1])
        assert found.terms[t - 1].item() == pytest.approx(expected, rel=0.05)
    beta = 1 / (1 + snr[0])
    expected = 0.5 * (mmse(snr[0]) / beta + math.log(2 * math.pi * beta))
    assert abs(found.reconstruction - expected) < 0.03


@pytest.mark.parametrize(("variance", "fall", "last"), [("posterior", 3, 0.2), ("beta", 1.3, 0.05)])
def test_never_below_the_entropy_and_down_to_it_with_many_steps(
    variance: Variance, fall: float, last: float
) -> None:
    """β̃ pays more for long steps, and its gap falls like 1/T."""
    x_0 = drawn(HUMPS, 2000)
    # Against the same items' own −log p, so that only x_t is left to chance.
    own = -HUMPS.log_prob(x_0, Level(double(1.0)[0], double(0.0)[0])).mean().item()
    assert own == pytest.approx(entropy(), abs=0.1)
    gaps = []
    for steps in (20, 80, 320):
        table = S.from_log_snr(torch.linspace(10, -12, steps).double())
        found = bound(HUMPS, x_0, table, 5, variance)
        gaps.append(found.total - own)
        assert found.standard_error is not None
        assert found.total > entropy() - 4 * found.standard_error
    assert gaps[0] > fall * gaps[1] > fall**2 * gaps[2]
    assert abs(gaps[2]) < last


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_a_worse_denoiser_has_a_larger_bound(factor: float) -> None:
    x_0 = drawn(HUMPS, 2000)
    table = S.cosine(10)
    worse = bound(lambda x, level: factor * HUMPS(x, level), x_0, table, 0)
    assert worse.total > bound(HUMPS, x_0, table, 0).total + 0.1


def test_standard_error_is_over_items() -> None:
    x_0 = drawn(HUMPS, 40)
    whole = bound(HUMPS, x_0, TABLES["vp"], 3)
    alone = [bound(HUMPS, x_0[i : i + 1], TABLES["vp"], 3, first=i) for i in range(40)]
    assert all(one.standard_error is None for one in alone)
    each = torch.tensor([one.total for one in alone], dtype=torch.float64)
    assert whole.total == pytest.approx(each.mean().item(), rel=1e-12)
    assert whole.standard_error == pytest.approx(each.std().item() / math.sqrt(40), rel=1e-10)


# --- what it does not depend on


def same(a: Bound, b: Bound, rel: float = 1e-9) -> bool:
    return (
        a.prior == pytest.approx(b.prior, rel=rel)
        and a.terms.tolist() == pytest.approx(b.terms.tolist(), rel=rel)
        and a.total == pytest.approx(b.total, rel=rel)
    )


@pytest.mark.parametrize("variance", ["posterior", "beta", "learned"])
def test_the_same_in_every_scale(variance: Variance) -> None:
    x_0, vp = drawn(HUMPS, 50), TABLES["vp"]

    class Both(Learned):
        def with_variance(self, x_t: Tensor, level: Level) -> tuple[Tensor, Tensor]:
            return HUMPS(x_t, level), torch.full_like(x_t, 0.4)

        def __call__(self, x_t: Tensor, level: Level) -> Tensor:
            return HUMPS(x_t, level)

    start = Moments(HUMPS.mean, HUMPS.cov)
    made = [
        bound(Both(0.0), x_0, table, 3, variance, start=start)
        for table in (vp, vp.to_ve(), vp.to_flow())
    ]
    assert same(made[0], made[1])
    assert same(made[0], made[2])


def test_the_denoiser_is_asked_in_the_schedules_own_scale() -> None:
    asked: list[tuple[float, torch.dtype]] = []

    def spy(x_t: Tensor, level: Level) -> Tensor:
        asked.append((level.sigma.item(), x_t.dtype))
        return x_t

    bound(spy, torch.ones(3, 2), TABLES["ve"], 0)
    assert asked == [(s, torch.float32) for s in (9.0, 1.5, 0.4, 0.1)]


def test_parts_and_batches_make_the_whole() -> None:
    x_0 = drawn(HUMPS, 11)
    calls: list[int] = []
    whole = bound(HUMPS, x_0, TABLES["vp"], 3)
    batched = bound(HUMPS, x_0, TABLES["vp"], 3, batch=4, advance=lambda: calls.append(1))
    assert same(whole, batched, 1e-12)
    assert len(calls) == 3 * 4
    a, b = bound(HUMPS, x_0[:4], TABLES["vp"], 3), bound(HUMPS, x_0[4:], TABLES["vp"], 3, first=4)
    assert whole.total == pytest.approx((4 * a.total + 7 * b.total) / 11, rel=1e-12)
    assert bound(HUMPS, x_0, TABLES["vp"], 4).total != whole.total


def test_items_of_any_shape_and_float32() -> None:
    means = torch.arange(12).double().reshape(1, 3, 2, 2) / 6
    pictures = Mixture([1], means, var=double(0.3))
    flat = Mixture([1], means.flatten(1), var=double(0.3))
    x_0 = drawn(pictures, 10)
    start = Moments(pictures.mean, pictures.cov)
    a = bound(pictures, x_0, TABLES["vp"], 0, start=start)
    b = bound(flat, x_0.flatten(1), TABLES["vp"], 0, start=Moments(flat.mean, flat.cov))
    assert same(a, b)
    narrow = bound(pictures, x_0.float(), TABLES["vp"], 0, start=start)
    assert same(a, narrow, 1e-5)
    assert narrow.terms.dtype == torch.float64


# --- the start


def test_prior_of_a_matched_start_against_torch_distributions() -> None:
    root = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.7, 0.0], [-0.3, 0.2, 0.4]]).double()
    mean, cov = double(1, -2, 3), root @ root.T
    x_0 = drawn(Mixture([1], mean[None], cov=cov[None]), 30)
    table = TABLES["vp"]
    found = bound(wrong, x_0, table, 0, start=Moments(mean, cov))
    a, s = table[table.T]
    eye = torch.eye(3).double()
    truth = MultivariateNormal(a * x_0, s**2 * eye)
    model = MultivariateNormal(a * mean, a**2 * cov + s**2 * eye)
    expected = kl_divergence(truth, model).mean().item() / 3
    assert found.prior == pytest.approx(expected, rel=1e-10)
    assert found.prior < bound(wrong, x_0, table, 0).prior


def test_pure_noise_has_no_prior_term() -> None:
    x_0 = 5 * drawn(HUMPS, 10)
    assert bound(HUMPS, x_0, S.flow(4), 0).prior == 0
    assert bound(HUMPS, x_0, S.flow(4), 0, start=Moments(HUMPS.mean, HUMPS.cov)).prior == 0
    one = bound(HUMPS, x_0, S.flow(1), 0)  # the only level is pure noise
    assert one.total == one.reconstruction
    # x̂_0 is the mean then, and v_1 = 1.
    expected = -Normal(HUMPS.mean, 1.0).log_prob(x_0).mean().item()
    assert one.total == pytest.approx(expected, rel=1e-12)


# --- integers


@pytest.mark.parametrize("mean", [-40.0, -1.1, -0.3, 0.0, 0.49, 1.0, 60.0])
@pytest.mark.parametrize("std", [1e-3, 0.05, 1.0, 30.0])
@pytest.mark.parametrize("decoder", [Discretised(256, -1, 1), Discretised(2, 0, 1)])
def test_probabilities_of_all_integers_sum_to_1(
    decoder: Discretised, mean: float, std: float
) -> None:
    every = torch.linspace(decoder.low, decoder.high, decoder.count, dtype=torch.float64)
    log_var = double(2 * math.log(std))[0]
    log_p = decoder.log_prob(every, torch.full_like(every, mean), log_var)
    assert log_p.isfinite().all()
    assert log_p.logsumexp(0).item() == pytest.approx(0, abs=1e-9)


def test_bins_against_scipy() -> None:
    decoder = Discretised(5, 0.0, 1.0)
    mean, std = 0.3, 0.2
    every = torch.linspace(0, 1, 5, dtype=torch.float64)
    found = decoder.log_prob(every, torch.full_like(every, mean), double(2 * math.log(std))[0])
    edges = norm.cdf([-math.inf, 0.125, 0.375, 0.625, 0.875, math.inf], mean, std)
    np.testing.assert_allclose(found.exp().numpy(), np.diff(edges), rtol=1e-12)


def test_far_tails_keep_their_digits() -> None:
    """30 standard deviations out, on either side: ∫ of the density over the bin."""
    decoder = Discretised(101, 0.0, 100.0)
    for value, mean in ((20.0, 50.0), (80.0, 50.0)):
        found = decoder.log_prob(double(value), double(mean), double(0.0)[0]).item()
        inner = quad(lambda u: math.exp((29.5**2 - u**2) / 2), 29.5, 30.5, epsabs=0)[0]
        assert found == pytest.approx(norm.logpdf(29.5) + math.log(inner), rel=1e-12)


def test_bits_of_integers_are_never_below_the_entropy_and_reach_it() -> None:
    """Three integers of probabilities ½, ¼, ¼: 1.5 bits."""
    target = Points(double(0, 1, 2)[:, None], weights=double(2, 1, 1))
    counts = torch.tensor([100, 50, 50])
    x_0 = torch.repeat_interleave(double(0, 1, 2), counts)[:, None]
    decoder = Discretised(3, 0, 2)
    table = S.from_log_snr(torch.linspace(8, -12, 200).double())
    fine = bound(target, x_0, table, 0, "posterior", decoder=decoder)
    assert fine.bits == pytest.approx(fine.total / math.log(2), rel=1e-15)
    assert fine.standard_error is not None
    assert fine.bits == pytest.approx(1.5, abs=0.03 + 3 * fine.standard_error / math.log(2))
    coarse = bound(target, x_0, table.spaced(6, "log_snr"), 0, "posterior", decoder=decoder)
    assert coarse.bits is not None
    assert coarse.bits > 1.6


def test_bytes_as_they_are_or_from_minus_1_to_1() -> None:
    """The same probabilities where all else is scaled alike; float32 is enough."""
    x_0 = torch.randint(256, (40, 3), generator=torch.Generator().manual_seed(0)).double()

    def half(x_t: Tensor, level: Level) -> Tensor:
        return 0.9 * x_t

    bytes_, small = Discretised(256, 0, 255), Discretised(256, -1, 1)
    found = [
        decoder.log_prob(scale * x_0 + shift, 0.9 * (scale * x_0) + shift, log_var)
        for decoder, scale, shift, log_var in (
            (bytes_, 1.0, 0.0, double(4.0)[0]),
            (small, 1 / 127.5, -1.0, double(4.0 - 2 * math.log(127.5))[0]),
        )
    ]
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-9)
    narrow = bound(half, (x_0 / 127.5 - 1).float(), TABLES["vp"], 0, decoder=small)
    wide = bound(half, x_0 / 127.5 - 1, TABLES["vp"], 0, decoder=small)
    assert narrow.bits == pytest.approx(wide.bits, rel=1e-5)


def test_decoder_of_a_width_of_ones_own() -> None:
    x_0 = drawn(HUMPS, 30)
    found = bound(lambda x, level: torch.zeros_like(x), x_0, TABLES["vp"], 0, decoder_std=0.7)
    expected = -norm.logpdf(x_0.numpy(), 0, 0.7).mean()
    assert found.reconstruction == pytest.approx(expected, rel=1e-12)


# --- what is refused


def refused(pattern: str, kind: type[Exception] = ValueError) -> object:
    return pytest.raises(kind, match=pattern)


@pytest.mark.parametrize("value", [0.5, -1.0, 3.0, 1.002])
def test_bits_are_for_integers_alone(value: float) -> None:
    x_0 = double(0, 1, 2, value)[:, None]
    with refused(r"x_0 holds .*none of the 3 numbers from 0 to 2 in steps of 1: bits"):
        bound(wrong, x_0, TABLES["vp"], 0, decoder=Discretised(3, 0, 2))


@pytest.mark.parametrize(
    ("count", "low", "high", "pattern"),
    [
        (1, 0, 1, "count = 1"),
        (3, 1, 1, "low = 1, high = 1: the highest"),
        (3, 0, math.nan, "high = nan"),
        (3, -math.inf, 0, "low = -inf"),
    ],
)
def test_decoders_that_mean_nothing(count: int, low: float, high: float, pattern: str) -> None:
    with refused(pattern):
        Discretised(count, low, high)


def test_bad_arguments() -> None:
    x_0, table = torch.ones(3, 2), TABLES["vp"]
    with refused("function has learned no variance", TypeError):
        bound(wrong, x_0, table, 0, "learned")
    with refused(r"shape \(0, 2\): give at least one"):
        bound(wrong, x_0[:0], table, 0)
    with refused("x_0 holds NaN or inf"):
        bound(wrong, x_0 * math.nan, table, 0)
    with refused(r"mean of shape \(3,\): items have \(2,\)"):
        bound(wrong, x_0, table, 0, start=Moments(torch.zeros(3), torch.eye(3)))
    with refused("decoder_std = 0"):
        bound(wrong, x_0, table, 0, decoder_std=0.0)
    with refused("seed = -1"):
        bound(wrong, x_0, table, -1)
    with refused("batch = 0"):
        bound(wrong, x_0, table, 0, batch=0)
    with refused("at t = 4 the denoiser returned NaN"):
        bound(lambda x, level: x * math.nan, x_0, table, 0)
    with refused("mix of shape"):
        bound(Learned(math.inf), x_0, table, 0, "learned")


def test_a_misspelt_variance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with refused("variance = 'both': choose posterior, beta, learned"):
        bound(wrong, torch.ones(3, 2), TABLES["vp"], 0, "both")  # type: ignore[arg-type]
