"""The forward process against what it is defined by: Bayes on a grid, moments, the chain itself."""

import math
from collections.abc import Sequence

import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from alphabar import schedule as S
from alphabar.forward import Gaussian, marginal, posterior, transition, walk
from alphabar.schedule import SCHEDULES, Level, Schedule

# Every test that draws noise may fail by chance once in a million runs, and is seeded, so that it
# either does or does not.
FALSE_ALARM = 1e-6

KINDS = ["linear:T=10", "cosine:T=10", "jsd:T=10", "karras:T=10", "flow:T=10,shift=3.0"]
STEPS = [(0, 1), (1, 2), (3, 7), (0, 10), (9, 10), (4, 5)]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shaped(shape: Sequence[int], seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64).to(dtype)


# --- closed forms


@pytest.mark.parametrize("spec", KINDS)
@pytest.mark.parametrize(("s", "t"), STEPS)
def test_transition_after_marginal_is_marginal(spec: str, s: int, t: int) -> None:
    """x_t = α_ts·(α_s·x_0 + σ_s·ε) + σ_ts·ε′: means chain, variances add."""
    table: Schedule = SCHEDULES.parse(spec)
    x_0 = shaped((5, 3))
    first, whole = marginal(table[s], x_0), marginal(table[t], x_0)
    step = transition(table[s], table[t], first.mean)
    alpha_ts = table.alpha[t] / table.alpha[s]
    torch.testing.assert_close(step.mean, whole.mean, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(step.var + alpha_ts**2 * first.var, whole.var, rtol=1e-12, atol=0)


def test_one_step_is_the_papers() -> None:
    table = S.linear(50)
    x = shaped((4, 2))
    for t in (1, 25, 50):
        step = transition(table[t - 1], table[t], x)
        beta = table.beta[t]
        torch.testing.assert_close(step.mean, (1 - beta).sqrt() * x, rtol=1e-12, atol=0)
        torch.testing.assert_close(step.var, beta, rtol=1e-11, atol=0)


@pytest.mark.parametrize("spec", KINDS)
@pytest.mark.parametrize(("s", "t"), [p for p in STEPS if p[0] > 0])
def test_posterior_is_bayes_on_a_grid(spec: str, s: int, t: int) -> None:
    """q(x_s|x_t,x_0) ∝ q(x_t|x_s)·q(x_s|x_0), normalised by summing over 20,001 values of x_s."""
    table: Schedule = SCHEDULES.parse(spec)
    alpha_s, sigma_s = table.alpha[s].item(), table.sigma[s].item()
    alpha_t, sigma_t = table.alpha[t].item(), table.sigma[t].item()
    x_0, x_t = 0.7, alpha_t * 0.7 + 1.3 * sigma_t
    grid = alpha_s * x_0 + sigma_s * torch.linspace(-12, 12, 20_001, dtype=torch.float64)
    ratio = alpha_t / alpha_s
    width = math.sqrt(sigma_t**2 - ratio**2 * sigma_s**2)
    log = Normal(ratio * grid, width).log_prob(torch.tensor(x_t, dtype=torch.float64))
    log += Normal(alpha_s * x_0, sigma_s).log_prob(grid)
    weight = torch.softmax(log, 0)
    mean = (weight * grid).sum()
    var = (weight * (grid - mean) ** 2).sum()
    found = posterior(
        table[s], table[t], torch.tensor([x_0]).double(), torch.tensor([x_t]).double()
    )
    torch.testing.assert_close(found.mean[0], mean, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(found.var, var, rtol=1e-6, atol=0)


def test_posterior_at_the_first_step_is_the_data() -> None:
    table = S.linear(10)
    x_0, x_t = shaped((3, 2)), shaped((3, 2), 2)
    found = posterior(table[0], table[1], x_0, x_t)
    assert torch.equal(found.mean, x_0)
    assert found.var == 0


@pytest.mark.parametrize("spec", ["linear:T=1000", "jsd:T=30", "cosine:T=100"])
def test_posterior_has_the_papers_coefficients(spec: str) -> None:
    table: Schedule = SCHEDULES.parse(spec)
    c = table.coefficients()
    x_0, x_t = shaped((table.T, 2)), shaped((table.T, 2), 2)
    t = torch.arange(1, table.T + 1)
    found = posterior(table[t - 1], table[t], x_0, x_t)
    mean = c["posterior_mean_coef1"][:, None] * x_0 + c["posterior_mean_coef2"][:, None] * x_t
    torch.testing.assert_close(found.mean, mean, rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(found.var, c["posterior_variance"], rtol=1e-8, atol=0)


@pytest.mark.parametrize("spec", ["linear:T=8", "cosine:T=8"])
def test_one_process_in_three_scales(spec: str) -> None:
    vp: Schedule = SCHEDULES.parse(spec)
    x_0, eps = shaped((6, 2)), shaped((6, 2), 2)
    for other in (vp.to_ve(), vp.to_flow()):
        for s, t in [(0, 1), (2, 5), (7, 8)]:
            to_vp_s = torch.hypot(other.alpha[s], other.sigma[s])
            to_vp_t = torch.hypot(other.alpha[t], other.sigma[t])
            x_s, y_s = marginal(vp[s], x_0).at(eps), marginal(other[s], x_0).at(eps)
            torch.testing.assert_close(y_s / to_vp_s, x_s, rtol=1e-12, atol=1e-14)
            x_t = transition(vp[s], vp[t], x_s).at(eps)
            y_t = transition(other[s], other[t], y_s).at(eps)
            torch.testing.assert_close(y_t / to_vp_t, x_t, rtol=1e-11, atol=1e-14)
            a, b = posterior(vp[s], vp[t], x_0, x_t), posterior(other[s], other[t], x_0, y_t)
            torch.testing.assert_close(b.mean / to_vp_s, a.mean, rtol=1e-11, atol=1e-14)
            torch.testing.assert_close(b.var / to_vp_s**2, a.var, rtol=1e-10, atol=1e-20)


# --- in distribution


@pytest.mark.parametrize(
    "spec", ["constant:T=100,beta=0.035", "jsd:T=25", "karras:T=30", "flow:T=20"]
)
def test_the_chain_has_the_marginals_distribution(spec: str) -> None:
    """x_T of the T-step chain: KS against N(α_T·x_0, σ_T²), and the joint second moments."""
    table: Schedule = SCHEDULES.parse(spec)
    n = 40_000
    x_0 = torch.tensor([0.5, -1.5], dtype=torch.float64).expand(n, 2)
    chain = dict(walk(table, x_0, generator(3)))
    assert list(chain) == list(range(table.T + 1))
    assert chain[0] is x_0
    for t in (1, table.T // 2, table.T):
        law = marginal(table[t], x_0[:1])
        z = (chain[t] - law.mean) / law.var.sqrt()  # N(0, I) if all is right
        for j in range(2):
            distance = stats.kstest(z[:, j].numpy(), "norm").statistic
            assert distance < math.sqrt(math.log(4 / FALSE_ALARM) / 2 / n)
        cov = z.T @ z / n
        # A mean of n products of independent N(0,1) has variance 1/n, of squares 2/n.
        assert (cov - torch.eye(2)).abs().max() < 5.5 * math.sqrt(2 / n)
    # Fresh noise at each step: successive increments are uncorrelated.
    steps = [
        (chain[t] - transition(table[t - 1], table[t], chain[t - 1]).mean)[:, 0] for t in (1, 2, 3)
    ]
    correlation = torch.corrcoef(torch.stack(steps))
    assert (correlation - torch.eye(3)).abs().max() < 5.5 / math.sqrt(n)


def test_samples_have_the_mean_and_variance_that_they_claim() -> None:
    n = 200_000
    q = Gaussian(torch.full((n, 1), 2.0, dtype=torch.float64), torch.tensor(0.09).double())
    x = q.sample(generator(5))
    assert x.mean().item() == pytest.approx(2, abs=5.5 * 0.3 / math.sqrt(n))
    assert x.var().item() == pytest.approx(0.09, rel=5.5 * math.sqrt(2 / n))
    distance = stats.kstest(((x - 2) / 0.3).flatten().numpy(), "norm").statistic
    assert distance < math.sqrt(math.log(2 / FALSE_ALARM) / 2 / n)


# --- shapes, dtypes, gradients


@pytest.mark.parametrize("shape", [(4,), (4, 2), (4, 1, 8, 8), (4, 3, 5, 7, 2)])
def test_one_t_per_item_equals_item_by_item(shape: tuple[int, ...]) -> None:
    table = S.cosine(20)
    x_0, other = shaped(shape, dtype=torch.float32), shaped(shape, 2, torch.float32)
    t, s = torch.tensor([1, 20, 7, 13]), torch.tensor([0, 3, 6, 1])
    for whole, single in (
        (marginal(table[t], x_0), lambda i, a, b: marginal(table[int(t[i])], a)),
        (
            transition(table[s], table[t], x_0),
            lambda i, a, b: transition(table[int(s[i])], table[int(t[i])], a),
        ),
        (
            posterior(table[s], table[t], x_0, other),
            lambda i, a, b: posterior(table[int(s[i])], table[int(t[i])], a, b),
        ),
    ):
        noisy = whole.at(other)
        for i in range(4):
            one = single(i, x_0[i : i + 1], other[i : i + 1])
            torch.testing.assert_close(whole.mean[i : i + 1], one.mean, rtol=3e-7, atol=3e-7)
            assert whole.var[i] == one.var
            torch.testing.assert_close(
                noisy[i : i + 1], one.at(other[i : i + 1]), rtol=1e-6, atol=1e-6
            )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("per_item", [False, True])
def test_narrow_types_agree_with_float64(dtype: torch.dtype, per_item: bool) -> None:
    table = S.linear(1000)
    narrow = torch.finfo(dtype).eps
    x_0, x_t, eps = (shaped((6, 3), i).to(dtype) for i in (1, 2, 3))
    for t in (1, 2, 500, 1000):
        index = torch.full((6,), t) if per_item else t
        before = index - 1
        for q, exact in (
            (marginal(table[index], x_0), marginal(table[index], x_0.double())),
            (
                transition(table[before], table[index], x_0),
                transition(table[before], table[index], x_0.double()),
            ),
            (
                posterior(table[before], table[index], x_0, x_t),
                posterior(table[before], table[index], x_0.double(), x_t.double()),
            ),
        ):
            got, expected = q.at(eps), exact.at(eps.double())
            assert got.dtype == q.mean.dtype == dtype
            # A few roundings of numbers of size 3.
            torch.testing.assert_close(got.double(), expected, rtol=4 * narrow, atol=4 * narrow)
            assert torch.equal(q.var, exact.var)
    chain = [x for _, x in walk(table, x_0, generator())]
    assert {x.dtype for x in chain} == {dtype}
    assert chain[-1].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_once(dtype: torch.dtype) -> None:
    """The same bits whether t is one for all or one per item, and those of the exact product."""
    table = S.linear(1000)
    x_0 = shaped((1000, 3)).to(dtype)
    for t in (1, 300, 700):
        one = marginal(table[t], x_0).mean
        assert torch.equal(marginal(table[torch.full((1000,), t)], x_0).mean, one)
        exact = (table.alpha[t].float() * x_0.float()).to(dtype)
        assert torch.equal(one, exact)


def test_gradients_flow_through_marginal() -> None:
    table = S.linear(10)
    x_0 = shaped((3, 2)).requires_grad_()
    x_t = marginal(table[4], x_0).sample(generator())
    (grad,) = torch.autograd.grad(x_t.sum(), x_0)
    torch.testing.assert_close(grad, torch.full_like(grad, table.alpha[4].item()))
    assert torch.autograd.gradcheck(lambda x: marginal(table[7], x).sample(generator()), x_0)
    assert torch.autograd.gradcheck(
        lambda x, y: posterior(table[3], table[7], x, y).mean,
        (x_0, shaped((3, 2)).requires_grad_()),
    )


def test_noise_of_ones_own_is_used_and_kept() -> None:
    table = S.linear(10)
    x_0, eps = shaped((3, 2)), shaped((3, 2), 2)
    before = eps.clone()
    x_t = marginal(table[5], x_0).at(eps)
    expected = table.alpha[5] * x_0 + table.sigma[5] * eps
    torch.testing.assert_close(x_t, expected, rtol=1e-14, atol=0)
    assert torch.equal(eps, before)
    assert not torch.equal(marginal(table[5], x_0).at(2 * eps), x_t)


def test_inputs_are_never_changed() -> None:
    table = S.linear(6)
    x_0 = shaped((3, 2))
    before = x_0.clone()
    _ = marginal(table[5], x_0).sample(generator())
    _ = list(walk(table, x_0, generator()))
    assert torch.equal(x_0, before)


def test_same_generator_same_noise() -> None:
    table = S.linear(6)
    x_0 = shaped((3, 2))
    a, b = (marginal(table[5], x_0).sample(generator(9)) for _ in range(2))
    assert torch.equal(a, b)
    assert not torch.equal(a, marginal(table[5], x_0).sample(generator(10)))


# --- Gaussian


def test_log_prob_and_kl_against_torch() -> None:
    p = Gaussian(shaped((4, 3)), torch.tensor([0.5, 1.0, 2.0, 1e-6]).double())
    q = Gaussian(shaped((4, 3), 2), torch.tensor(0.7).double())
    theirs_p = MultivariateNormal(p.mean, torch.diag_embed(p.var[:, None].expand(4, 3)))
    theirs_q = MultivariateNormal(q.mean, torch.diag_embed(q.var.expand(4, 3)))
    x = shaped((4, 3), 3)
    torch.testing.assert_close(p.log_prob(x), theirs_p.log_prob(x), rtol=1e-12, atol=0)
    torch.testing.assert_close(p.kl(q), kl_divergence(theirs_p, theirs_q), rtol=1e-12, atol=0)
    assert (p.kl(p) == 0).all()


def test_log_prob_integrates_to_one() -> None:
    x = torch.linspace(-30, 30, 200_001, dtype=torch.float64)
    q = marginal(S.linear(10)[7], torch.full((len(x), 1), 0.3, dtype=torch.float64))
    density = q.log_prob(x[:, None]).exp()
    assert torch.trapezoid(density, x).item() == pytest.approx(1, abs=1e-9)


def test_a_point_has_no_density() -> None:
    point = marginal(S.linear(10)[0], shaped((3, 2)))
    with pytest.raises(ValueError, match="var = 0"):
        point.log_prob(shaped((3, 2)))
    other = marginal(S.linear(10)[5], shaped((3, 2)))
    assert (point.kl(other) == math.inf).all()
    with pytest.raises(ValueError, match="second Gaussian"):
        other.kl(point)


# --- what is refused


def test_refused() -> None:
    table = S.linear(10)
    x = shaped((3, 2))
    with pytest.raises(ValueError, match="does not go forward"):
        transition(table[5], table[5], x)
    with pytest.raises(ValueError, match="does not go forward"):
        posterior(table[6], table[5], x, x)
    with pytest.raises(ValueError, match="2 noise levels for x of shape"):
        marginal(table[torch.tensor([1, 2])], x)
    with pytest.raises(ValueError, match="x_0 has shape"):
        posterior(table[1], table[2], x, x[:, :1])
    with pytest.raises(ValueError, match="eps has shape"):
        marginal(table[1], x).at(x[:2])


def test_whole_numbers_cannot_be_diffused() -> None:
    with pytest.raises(TypeError):
        marginal(S.linear(10)[1], torch.ones(3, 2, dtype=torch.int64))


def test_a_level_can_be_made_by_hand() -> None:
    level = Level(torch.tensor(0.6).double(), torch.tensor(0.8).double())
    assert level.alpha_bar.item() == pytest.approx(0.36)
    assert level.snr.item() == pytest.approx(0.5625)
