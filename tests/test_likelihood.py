"""The exact likelihood against closed forms, scipy's solver, and densities that sum to 1."""

import math

import jaxtyping
import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor, nn

from alphabar import data
from alphabar import schedule as S
from alphabar.denoise import Moments, NetDenoiser
from alphabar.likelihood import Likelihood, log_likelihood
from alphabar.samplers.base import Normal
from alphabar.schedule import Level, Schedule
from alphabar.targets import Curve, Mixture, Points, Target, target_of


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussians(d: int, finest: float = 0.02) -> Mixture:
    g = generator(d)
    root = 0.5 * torch.randn(3, d, d, generator=g, dtype=torch.float64) / math.sqrt(d)
    means = torch.randn(3, d, generator=g, dtype=torch.float64)
    return Mixture([1, 2, 3], means, cov=root @ root.mT + finest * torch.eye(d).double())


TARGETS: dict[str, Target] = {
    "d = 1": gaussians(1),
    "d = 2": gaussians(2),
    "d = 5": gaussians(5),
    "d = 20": Mixture(
        [1, 2, 3],
        torch.randn(3, 20, generator=generator(1)).double(),
        var=0.05 + torch.randn(3, 20, generator=generator(2)).exp() / 20,
    ),
    "finer": gaussians(2, finest=1e-4),
    "swiss roll": target_of(data.load("swiss_roll:n=10")),
    "kernels": Points(torch.randn(30, 2, generator=generator()).double(), noise=0.1),
}


def truth(target: Target, x_0: Tensor, rho: float = 0.0) -> Tensor:
    return target.log_prob(x_0, Level(double(1.0)[0], double(rho)[0]))


def moments(target: Target) -> Normal:
    return Normal(target.mean, target.cov)


def gap(found: Likelihood, expected: Tensor) -> float:
    return (found.log_prob - expected).abs().max().item()


# --- with the exact denoiser


@pytest.mark.parametrize("name", TARGETS)
def test_closed_form(name: str) -> None:
    """Within 1e-3 nats of the whole item; by far."""
    target = TARGETS[name]
    x_0 = target.sample(6, generator(1))
    x_0[0] += 1.5 * target.cov.diagonal().sqrt().reshape(target.shape)  # and a rare one
    found = log_likelihood(target, x_0, S.cosine(), start=moments(target))
    assert gap(found, truth(target, x_0)) < 2e-4
    assert found.standard_error is None
    assert found.log_prob.dtype == torch.float64


@pytest.mark.parametrize(
    "table",
    [S.linear(), S.cosine(), S.flow(7), S.karras(5), S.linear().to_ve(), S.cosine(3).to_flow()],
    ids=["linear", "cosine", "flow", "karras", "ve", "cosine in flow"],
)
def test_from_any_schedule_and_scale(table: Schedule) -> None:
    target = TARGETS["d = 2"]
    x_0 = target.sample(5, generator(1))
    found = log_likelihood(target, x_0, table, start=moments(target))
    assert gap(found, truth(target, x_0)) < 1e-4


def test_a_standard_start() -> None:
    """N(0, I) is right where nothing is left of the data, or where that is what they are."""
    target = TARGETS["d = 2"]
    x_0 = target.sample(5, generator(1))
    assert gap(log_likelihood(target, x_0, S.flow(7)), truth(target, x_0)) < 1e-4
    table = S.linear(1000, 1e-4, 0.002)  # ᾱ_T = 0.35
    eye = Normal(torch.zeros(2), torch.eye(2))
    given = log_likelihood(target, x_0, table, start=eye, tolerance=1e-4)
    standard = log_likelihood(target, x_0, table, tolerance=1e-4)
    assert gap(standard, truth(target, x_0)) > 0.1
    torch.testing.assert_close(given.log_prob, standard.log_prob, rtol=0, atol=1e-12)
    normal = Mixture([1], torch.zeros(1, 3), var=torch.ones(1))
    x_0 = normal.sample(5, generator())
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(x_0).sum(1)
    assert gap(log_likelihood(normal, x_0, table), expected) < 1e-5


def test_a_matched_start_is_a_law_of_gaussians() -> None:
    """Of Gaussian data it is exact, at any level of noise."""
    root = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.7, 0.0], [-0.3, 0.2, 0.4]]).double()
    mean, cov = double(1, -2, 3), 9 * root @ root.T
    target = Mixture([1], mean[None], cov=cov[None])
    x_0 = target.sample(6, generator())
    found = log_likelihood(
        target, x_0, S.linear(1000, 1e-4, 0.002), start=Normal(mean, cov), tolerance=1e-8
    )
    expected = torch.distributions.MultivariateNormal(mean, cov).log_prob(x_0)
    assert gap(found, expected) < 1e-6


@pytest.mark.parametrize("rho", [0.03, 0.3, 2.0])
@pytest.mark.parametrize(
    "target",
    [
        TARGETS["d = 2"],
        Points(torch.randn(20, 2, generator=generator()).double()),
        Curve(lambda u: torch.stack([(3 * u).cos(), (3 * u).sin()], 1), noise=0.0),
    ],
    ids=["mixture", "points", "bare curve"],
)
def test_a_noise_of_ones_own(target: Target, rho: float) -> None:
    """The density of x_0 + ρ·ε, also of data that have none themselves."""
    x_0 = target.sample(5, generator(1))
    found = log_likelihood(target, x_0, S.cosine(), start=moments(target), clean=rho)
    assert gap(found, truth(target, x_0, rho)) < 1e-4


def test_error_falls_with_the_tolerance() -> None:
    target = TARGETS["d = 2"]
    x_0 = target.sample(10, generator(1))
    errors, calls = [], []
    for tolerance in (1e-3, 1e-5, 1e-7):
        found = log_likelihood(
            target, x_0, S.flow(3), start=moments(target), tolerance=tolerance, clean=1e-3
        )
        errors.append(gap(found, truth(target, x_0, 1e-3)))
        calls.append(found.nfe)
    assert errors[1] < errors[0] / 5
    assert errors[2] < 2e-6
    assert calls == sorted(calls)


@pytest.mark.parametrize("unit", [1e-4, 1e3])
def test_data_of_any_unit(unit: float) -> None:
    """p(x/u)/u^D: with a start that knows the unit."""
    target = Mixture([1, 3], unit * double(-1, 1)[:, None], var=unit**2 * double(0.01, 0.2))
    x_0 = target.sample(4, generator(1))
    found = log_likelihood(target, x_0, S.flow(5), start=moments(target))
    assert gap(found, truth(target, x_0)) < 1e-4


def test_items_of_any_shape() -> None:
    means = torch.randn(2, 1, 3, 2, generator=generator()).double()
    pictures, flat = (Mixture([1, 2], m, var=double(0.2, 0.3)) for m in (means, means.flatten(1)))
    x_0 = pictures.sample(4, generator(1))
    found = log_likelihood(pictures, x_0, S.cosine(), start=moments(pictures))
    assert gap(found, truth(flat, x_0.flatten(1))) < 1e-4
    numbers = Mixture([1, 2], double(-1, 1), var=double(0.2, 0.3))
    x_0 = numbers.sample(4, generator(1))
    found = log_likelihood(numbers, x_0, S.cosine(), start=moments(numbers))
    assert gap(found, truth(numbers, x_0)) < 1e-4


def test_float32() -> None:
    target = TARGETS["d = 5"]
    x_0 = target.sample(8, generator(1)).float()
    seen = set()

    def spy(x_t: Tensor, level: Level) -> Tensor:
        seen.add(x_t.dtype)
        return target(x_t, level)

    found = log_likelihood(spy, x_0, S.cosine(), start=moments(target))
    assert gap(found, truth(target, x_0)) < 2e-4
    assert seen == {torch.float32}


# --- with a denoiser that is nobody's: what the flow says, whatever it is


def bent(x_t: Tensor, level: Level) -> Tensor:
    """With α = 1: x/(1 + σ²) + 0.6·σ/(1 + σ²)·sin(2x/√(1 + σ²)), for each number."""
    alpha, sigma = (c.reshape(-1, *[1] * (x_t.ndim - 1)).to(x_t) for c in level)
    x, sigma = x_t / alpha, sigma / alpha
    return (x + 0.6 * sigma * torch.sin(2 * x / (1 + sigma**2).sqrt())) / (1 + sigma**2)


def test_against_scipys_solver() -> None:
    """Song's flow in EDM's time: dx/dσ = (x − D)/σ, d log p/dσ = −(1 − ∂D/∂x)/σ, by DOP853."""

    def slope(sigma: float, y: np.ndarray) -> list[float]:
        x = y[0]
        size = math.sqrt(1 + sigma**2)
        denoised = (x + 0.6 * sigma * math.sin(2 * x / size)) / size**2
        derivative = (1 + 1.2 * sigma / size * math.cos(2 * x / size)) / size**2
        return [(x - denoised) / sigma, -(1 - derivative) / sigma]

    table, x_0 = S.karras(4), [-1.3, 0.4, 2.5]
    top = table.sigma[-1].item()
    expected = []
    for x in x_0:
        done = solve_ivp(slope, (0.05, top), [x, 0.0], "DOP853", rtol=1e-9, atol=1e-10)
        x_T, gained = done.y[:, -1]
        var = 1 + top**2  # of N(0, I) in the variance-preserving scale
        expected.append(-0.5 * (x_T**2 / var + math.log(2 * math.pi * var)) - gained)
    found = log_likelihood(bent, double(*x_0)[:, None], table, clean=0.05, tolerance=1e-8)
    assert gap(found, double(*expected)) < 1e-6


def test_density_integrates_to_1() -> None:
    x = torch.linspace(-7, 7, 501, dtype=torch.float64)[:, None]
    found = log_likelihood(bent, x, S.cosine(), tolerance=1e-5, clean=0.01)
    assert torch.trapezoid(found.log_prob.exp(), x[:, 0]).item() == pytest.approx(1, abs=1e-4)
    standard = torch.distributions.Normal(0.0, 1.0).log_prob(x[:, 0])
    assert (found.log_prob - standard).exp().max() > 1.2  # and it is another density


class Small(nn.Module):
    """(points, label) → points, by fixed random weights."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(d + 1, 16), nn.Linear(16, d)
        with torch.no_grad():
            for i, p in enumerate(self.parameters()):
                p.copy_(0.7 * torch.randn(p.shape, generator=generator(i)))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        return self.last(torch.tanh(self.first(torch.cat([x, label[:, None]], 1)))) / 4


def test_density_of_a_network_integrates_to_1() -> None:
    """A network that has learned nothing, in float32 and in float64."""
    x_0 = torch.randn(100, 1, generator=generator())
    net = NetDenoiser(Small(1), Moments.of(x_0))
    x = torch.linspace(-12, 12, 401)[:, None]
    start = Normal.of(x_0)
    narrow = log_likelihood(net, x, S.cosine(), start=start, tolerance=1e-5)
    assert torch.trapezoid(narrow.log_prob.exp(), x[:, 0].double()).item() == pytest.approx(
        1, abs=1e-3
    )
    own = torch.distributions.Normal(start.mean, start.cov[0].sqrt())
    assert (narrow.log_prob - own.log_prob(x.double())[:, 0])[150:250].abs().max() > 0.3
    some = x[140:260:12]
    wide = log_likelihood(net.double(), some.double(), S.cosine(), start=start, tolerance=1e-6)
    assert gap(wide, narrow.log_prob[140:260:12]) < 1e-3


# --- Hutchinson's estimate


def test_hutchinson_is_unbiased_and_knows_its_error() -> None:
    target, n, probes = TARGETS["d = 5"], 24, 12
    x_0 = target.sample(n, generator(1))
    start = moments(target)
    exact = log_likelihood(target, x_0, S.cosine(), start=start, tolerance=1e-5)
    found = log_likelihood(
        target, x_0, S.cosine(), start=start, tolerance=1e-5, trace="hutchinson", probes=probes
    )
    assert found.standard_error is not None
    assert found.standard_error.min() > 0.01
    z = (found.log_prob - exact.log_prob) / found.standard_error
    assert abs(z.mean().item()) < 4 / math.sqrt(n)
    assert 0.7 < z.square().mean().sqrt().item() < 1.6


def test_hutchinson_in_one_dimension_is_exact() -> None:
    """There z² = 1."""
    target = TARGETS["d = 1"]
    x_0 = target.sample(5, generator(1))
    start = moments(target)
    found = log_likelihood(target, x_0, S.cosine(), start=start, trace="hutchinson", probes=2)
    assert gap(found, truth(target, x_0)) < 1e-4
    assert found.standard_error is not None
    assert found.standard_error.max() < 1e-12
    one = log_likelihood(target, x_0, S.cosine(), start=start, trace="hutchinson", probes=1)
    assert one.standard_error is None


def test_hutchinson_follows_the_seed() -> None:
    target = TARGETS["d = 5"]
    x_0 = target.sample(1, generator(1)).expand(6, 5)

    def found(seed: int) -> Tensor:
        return log_likelihood(
            target, x_0, S.cosine(), trace="hutchinson", probes=1, seed=seed, tolerance=1e-3
        ).log_prob

    assert torch.equal(found(0), found(0))
    assert not torch.equal(found(0), found(1))
    assert found(0).unique().numel() > 1  # each item has probes of its own


# --- items are alone


@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
def test_items_do_not_depend_on_the_batch(trace: str) -> None:
    target = TARGETS["swiss roll"]
    x_0 = target.sample(9, generator(1))

    def found(part: slice, batch: int = 4096) -> Tensor:
        return log_likelihood(
            target,
            x_0[part],
            S.cosine(),
            start=moments(target),
            trace=trace,  # type: ignore[arg-type]
            probes=2,
            seed=3,
            tolerance=1e-4,
            first=part.start or 0,
            batch=batch,
        ).log_prob

    whole = found(slice(None))
    torch.testing.assert_close(found(slice(None), batch=4), whole, rtol=0, atol=1e-7)
    torch.testing.assert_close(found(slice(4, 6)), whole[4:6], rtol=0, atol=1e-7)


def test_nfe_is_that_of_the_slowest_item() -> None:
    target = TARGETS["d = 1"]
    x_0 = target.sample(3, generator(1))
    calls = 0

    def spy(x_t: Tensor, level: Level) -> Tensor:
        nonlocal calls
        calls += 1
        return target(x_t, level)

    whole = log_likelihood(spy, x_0, S.cosine(), tolerance=1e-3)
    assert whole.nfe == calls
    alone = [log_likelihood(target, x[None], S.cosine(), tolerance=1e-3).nfe for x in x_0]
    assert whole.nfe == max(alone)
    assert log_likelihood(target, x_0, S.cosine(), tolerance=1e-3, batch=1).nfe == max(alone)


def test_nothing_is_left_behind() -> None:
    """Also under no_grad; neither x_0 nor the network keeps a gradient."""
    x_0 = torch.randn(10, 2, generator=generator())
    kept = x_0.clone()
    net = NetDenoiser(Small(2), Moments.of(x_0))
    with torch.no_grad():
        found = log_likelihood(net, x_0, S.cosine(), tolerance=1e-3)
    assert not x_0.requires_grad
    tracked = log_likelihood(net, x_0.clone().requires_grad_(), S.cosine(), tolerance=1e-3)
    assert not tracked.log_prob.requires_grad
    assert torch.equal(tracked.log_prob, found.log_prob)
    assert torch.equal(x_0, kept)
    assert all(p.grad is None for p in net.parameters())


# --- what is refused


def refused(pattern: str, kind: type[Exception] = ValueError) -> object:
    return pytest.raises(kind, match=pattern)


@pytest.mark.parametrize("n", [1, 30])
def test_points_have_no_density(n: int) -> None:
    x = torch.randn(n, 2, generator=generator()).double()
    with refused(r"still changes by 2 nats.*finite set of points.*name in `clean`"):
        log_likelihood(Points(x), x, S.cosine())
    with refused(r"still changes by 2 nats"):  # nor where no point is
        log_likelihood(Points(x), x + 0.1, S.cosine())


def test_a_plane_in_space_has_no_density() -> None:
    flat = Mixture([1], torch.zeros(1, 3), var=torch.tensor([[1.0, 0.5, 0.0]]))
    with refused(r"still changes by 1 nats"):
        log_likelihood(flat, flat.sample(4, generator()), S.cosine())


def test_denoisers_that_will_not_do() -> None:
    x_0, table = torch.ones(3, 2), S.cosine()
    weight = torch.ones(1, requires_grad=True)
    for deaf in (lambda x, level: x.detach(), lambda x, level: weight * x.detach()):
        with refused("no derivative in x"):
            log_likelihood(deaf, x_0, table)
    with refused(r"returned torch.float64 of shape \(3, 2\) for x of torch.float32"):
        log_likelihood(lambda x, level: x.double(), x_0, table)
    with refused(r"at sigma/alpha = 1e-05 the denoiser returned NaN"):
        log_likelihood(lambda x, level: x * math.nan, x_0, table)
    with refused("derivative is NaN or inf"):
        log_likelihood(lambda x, level: x + (x - x.detach()).abs().sqrt(), x_0, table)
    with refused(r"steps of 1e-07 can follow at tolerance = 1e-06: raise it, or give"):
        log_likelihood(lambda x, level: 1e9 * torch.sin(1e9 * x), x_0, table, clean=0.1)


def test_bad_arguments() -> None:
    x_0, table = torch.ones(3, 2), S.cosine()
    with refused("1200 numbers an item: an exact trace.*up to 1024; use trace = 'hutchinson'"):
        log_likelihood(bent, torch.ones(1, 1200), table)
    with refused(r"shape \(0, 2\): give at least one"):
        log_likelihood(bent, x_0[:0], table)
    with refused("x_0 holds NaN or inf"):
        log_likelihood(bent, x_0 / 0, table)
    with refused(r"mean of shape \(3,\): items have \(2,\)"):
        log_likelihood(bent, x_0, table, start=Normal(torch.zeros(3), torch.eye(3)))
    with refused("torch.float32 resolves no error below 5e-07"):
        log_likelihood(bent, x_0, table, tolerance=1e-8)
    with refused("tolerance = 2"):
        log_likelihood(bent, x_0, table, tolerance=2.0)
    with refused("probes = 0"):
        log_likelihood(bent, x_0, table, trace="hutchinson", probes=0)
    with refused("seed = -1"):
        log_likelihood(bent, x_0, table, seed=-1)
    with refused("batch = 0"):
        log_likelihood(bent, x_0, table, batch=0)
    with refused("clean = 0"):
        log_likelihood(bent, x_0, table, clean=0.0)
    with refused(r"noisiest level has sigma/alpha = 80.*clean data, 90: give a smaller clean"):
        log_likelihood(bent, x_0, S.karras(5), clean=90.0)


def test_what_the_types_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with refused("trace = 'both': choose exact or hutchinson"):
        log_likelihood(bent, torch.ones(3, 2), S.cosine(), trace="both")  # type: ignore[arg-type]
    with refused("dtype torch.int64", TypeError):
        log_likelihood(bent, torch.ones(3, 2).long(), S.cosine())
