"""Objectives: what minimises them, how much each level counts, and the bound against Gaussians."""

import math
from collections.abc import Callable

import pytest
import torch
from numpy.polynomial.hermite_e import hermegauss
from torch import Tensor, nn
from torch.autograd.functional import hessian, jacobian
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from alphabar import denoise, forward, predict
from alphabar import schedule as S
from alphabar.levels import LEVELS, Drawn, of_schedule
from alphabar.objectives import (
    OBJECTIVES,
    Explicit,
    Objective,
    Weighted,
)
from alphabar.predict import Kind
from alphabar.schedule import Level, Schedule
from alphabar.spec import Entry
from alphabar.targets import Mixture
from alphabar.variance import learned_log_variance

TARGET = Mixture([0.3, 0.7], torch.tensor([[-1.0], [0.8]]), var=torch.tensor([0.1, 0.3]))
# Two Gaussians in three dimensions, neither of them round.
ROOT = torch.tensor([[1.0, 0, 0], [0.5, 0.7, 0], [-0.4, 0.2, 0.6]], dtype=torch.float64)
SOLID = Mixture(
    [0.4, 0.6],
    torch.tensor([[0.5, -1, 0], [-0.5, 0, 1]]),
    cov=torch.stack([ROOT @ ROOT.T, 0.2 * torch.eye(3).double()]),
)
STEPS = S.log_snr(8, 4, -3)

FAMILY = {entry.name: OBJECTIVES.parse(entry.name) for entry in OBJECTIVES}
ALL: dict[str, Objective] = FAMILY | {
    "vlb:variance=beta": OBJECTIVES.parse("vlb:variance=beta"),
    "edm:std=0.3": OBJECTIVES.parse("edm:std=0.3"),
    "p2:gamma=0.5": OBJECTIVES.parse("p2:gamma=0.5"),
    "min_snr:gamma=1": OBJECTIVES.parse("min_snr:gamma=1"),
    "explicit": Explicit(TARGET),
}
WEIGHTED = ["simple", "x_0", "v", "flow", "edm", "min_snr", "p2"]
MATCHING = ["denoising", "implicit", "sliced", "explicit"]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def at(schedule: Schedule, t: list[int] | Tensor) -> Drawn:
    """Levels t of a schedule, as `of_schedule` would give them."""
    t = torch.as_tensor(t)
    return Drawn(schedule[t], schedule[t - 1], None, schedule.T)


def of_snr(log_snr: list[float]) -> Drawn:
    values = torch.tensor(log_snr, dtype=torch.float64)
    level = Level(values.sigmoid().sqrt(), (-values).sigmoid().sqrt())
    return Drawn(level, None, torch.full_like(values, 0.05))


def loss(
    objective: Objective, denoiser: Callable[..., Tensor], x_0: Tensor, drawn: Drawn, eps: Tensor
) -> Tensor:
    return objective(denoiser, x_0, drawn, eps, generator(9))


class Sum:
    """x̂_0 = Σ θ_k·φ_k(x_t), of which one φ is the exact denoiser; the mix is a number."""

    std = torch.tensor(0.7, dtype=torch.float64)

    def __init__(self, theta: Tensor, mix: Tensor | float = 0.3) -> None:
        self.theta = theta
        self.mix = mix

    def __call__(self, x_t: Tensor, level: Level) -> Tensor:
        basis = [TARGET(x_t, level), x_t.square(), torch.sin(2 * x_t), torch.ones_like(x_t)]
        return torch.einsum("k,k...->...", self.theta.to(x_t.dtype), torch.stack(basis))

    def with_variance(self, x_t: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        return self(x_t, level), torch.ones_like(x_t) * self.mix


class Wrong:
    """A denoiser of any shape that is wrong, with a bend of its own."""

    std = torch.tensor(1.3, dtype=torch.float64)
    columns: int | None = None

    def __init__(self, theta: Tensor | None = None) -> None:
        self.theta = torch.tensor([0.6, 0.9, 0.2]) if theta is None else theta

    def __call__(self, x_t: Tensor, level: Level) -> Tensor:
        a, b, c = self.theta.to(x_t.dtype)
        sums = x_t.flatten(1).sum(1).reshape(-1, *[1] * (x_t.ndim - 1))
        return (a * torch.tanh(b * x_t + c) + 0.1 * sums)[:, : self.columns]

    def with_variance(self, x_t: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        return self(x_t, level), torch.sin(self.theta[2].to(x_t.dtype) * x_t)


class Net(nn.Module):
    """A small network of points and a label, which answers once or twice."""

    def __init__(self, twice: bool = False) -> None:
        super().__init__()
        self.twice = twice
        self.first = nn.Parameter(normal(3, 8, seed=3).float())
        self.last = nn.Parameter(normal(8, 4 if twice else 2, seed=4).float())

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        answer = torch.tanh(torch.cat([x, label[:, None]], 1) @ self.first) @ self.last
        return answer.reshape(-1, 2, 2) if self.twice else answer


def quadrature(n: int = 60) -> tuple[Tensor, Tensor, Tensor]:
    """x_0 and eps, (n²·K, 1), and weights by which sums of f(x_0, eps) are means over both."""
    points, weights = map(torch.from_numpy, hermegauss(n))
    weights = weights / weights.sum()
    means, spreads = torch.tensor([-1.0, 0.8]).double(), torch.tensor([0.1, 0.3]).double().sqrt()
    shares = torch.tensor([0.3, 0.7]).double()
    x_0 = means[:, None, None] + spreads[:, None, None] * points[:, None]
    eps = points.expand(2, n, n)
    weight = shares[:, None, None] * weights[:, None] * weights
    return x_0.expand(2, n, n).reshape(-1, 1), eps.reshape(-1, 1), weight.flatten()


def expected(
    objective: Objective, denoiser: Callable[..., Tensor], schedule: Schedule, t: int, n: int = 60
) -> Tensor:
    """E[ℓ] at level t, by Gauss–Hermite quadrature over the components of x_0 and eps."""
    x_0, eps, weight = quadrature(n)
    return weight @ loss(objective, denoiser, x_0, at(schedule, [t] * len(x_0)), eps)


# --- what minimises an objective


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("t", [1, 5, 8])
def test_the_minimiser_is_the_exact_denoiser(name: str, t: int) -> None:
    """The expected loss is a parabola in θ; its lowest point, by the normal equations."""

    def mean_loss(theta: Tensor) -> Tensor:
        return expected(ALL[name], Sum(theta), STEPS, t)

    start = torch.tensor([0.2, -0.3, 0.4, 0.1], dtype=torch.float64)
    curvature = hessian(mean_loss, start)
    slope = jacobian(mean_loss, start)
    lowest = start - torch.linalg.solve(curvature, slope)
    assert torch.linalg.eigvalsh(curvature)[0] > 0
    torch.testing.assert_close(lowest, torch.eye(4).double()[0], rtol=0, atol=2e-5)


@pytest.mark.parametrize("spec", ["uniform", "normal", "logistic", "cosine"])
def test_the_minimiser_of_the_bound_in_continuous_time(spec: str) -> None:
    x_0, eps, weight = quadrature()
    drawn = LEVELS.parse(spec).draw(16, generator())

    def mean_loss(theta: Tensor) -> Tensor:
        i = 9
        one = Level(drawn.level.alpha[i].expand(len(x_0)), drawn.level.sigma[i].expand(len(x_0)))
        here = Drawn(one, None, drawn.density[i].expand(len(x_0)))
        return weight @ loss(FAMILY["vlb"], Sum(theta), x_0, here, eps)

    start = torch.zeros(4, dtype=torch.float64)
    lowest = -torch.linalg.solve(hessian(mean_loss, start), jacobian(mean_loss, start))
    torch.testing.assert_close(lowest, torch.eye(4).double()[0], rtol=0, atol=2e-5)


@pytest.mark.parametrize("t", [1, 4, 8])
def test_score_matching_in_four_ways_has_one_gradient(t: int) -> None:
    """Explicit, implicit, sliced and denoising: equal in the mean, whatever the model."""
    theta = torch.tensor([0.6, 0.9, 0.2], dtype=torch.float64)

    def gradient(objective: Objective) -> Tensor:
        return jacobian(lambda theta: expected(objective, Wrong(theta), STEPS, t), theta)

    truth = gradient(ALL["explicit"])
    assert truth.abs().min() > 1e-4
    for name in ("implicit", "sliced", "denoising", "simple"):
        torch.testing.assert_close(gradient(ALL[name]), truth, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("t", [1, 4, 8])
def test_what_no_model_can_change(t: int) -> None:
    """The constants between them: E[SNR·Cov[x_0|x_t]] (denoising), −σ²·E‖score‖² (implicit)."""
    x_0, eps, weight = quadrature()
    level = STEPS[t]
    x_t = forward.marginal(level, x_0).at(eps)
    score = TARGET.score(x_t, level)
    left = level.snr * (weight @ TARGET.posterior_cov(x_t, level)[:, 0, 0])
    missing = -(level.sigma**2) * (weight @ score[:, 0].square())
    value = {name: expected(ALL[name], Wrong(), STEPS, t) for name in MATCHING}
    torch.testing.assert_close(value["denoising"] - value["explicit"], left, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(value["implicit"] - value["explicit"], missing, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(value["sliced"], value["implicit"])


# --- how much each level counts

# Each weighted loss, as the squared error of which prediction, times what.
KINDS: dict[str, tuple[Kind, Callable[[Tensor], Tensor]]] = {
    "simple": ("eps", torch.ones_like),
    "x_0": ("x_0", torch.ones_like),
    "v": ("v", torch.ones_like),
    "flow": ("flow", torch.ones_like),
    "denoising": ("eps", torch.ones_like),
    "min_snr:gamma=5": ("eps", lambda snr: (5 / snr).clamp(max=1)),
    "min_snr:gamma=0.5": ("eps", lambda snr: (0.5 / snr).clamp(max=1)),
    "p2:k=1,gamma=1": ("eps", lambda snr: 1 / (1 + snr)),
    "p2:k=0.3,gamma=2": ("eps", lambda snr: (0.3 + snr) ** -2),
    "p2:gamma=0": ("eps", torch.ones_like),
}


@pytest.mark.parametrize("spec", KINDS)
def test_each_weight_is_the_error_of_some_prediction(spec: str) -> None:
    """Against `predict`, which knows nothing of weights; one-hot batches give the same (A18)."""
    kind, factor = KINDS[spec]
    objective = OBJECTIVES.parse(spec)
    drawn = of_snr([6.0, 2.0, 1.4, -0.5, -5.0])
    x_0, eps = normal(5, 3), normal(5, 3, seed=1)
    alpha, sigma = drawn.level.alpha[:, None], drawn.level.sigma[:, None]
    x_t = alpha * x_0 + sigma * eps
    truth = {"x_0": x_0, "eps": eps, "v": alpha * eps - sigma * x_0, "flow": eps - x_0}[kind]
    predicted = predict.from_x_0(kind, Wrong()(x_t, drawn.level), x_t, drawn.level)
    expected = factor(drawn.level.snr) * (predicted - truth).square().mean(1)
    found = loss(objective, Wrong(), x_0, drawn, eps)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("spec", ["edm:std=0.4", "edm"])
@pytest.mark.parametrize("scale", ["vp", "ve", "flow"])
def test_edm_is_the_error_of_the_network_inside(spec: str, scale: str) -> None:
    """Karras et al. 2022, eq. (8): the inner network's target is (x_0 − c_skip·x)/c_out."""
    table = {"vp": STEPS.to_vp(), "ve": STEPS.to_ve(), "flow": STEPS.to_flow()}[scale]
    drawn = at(table, [1, 3, 6, 8])
    x_0, eps = normal(4, 2), normal(4, 2, seed=1)
    alpha, sigma = drawn.level.alpha[:, None], drawn.level.sigma[:, None]
    std = 0.4 if "=" in spec else Wrong.std.item()
    skip, out, _ = denoise.edm(std)(alpha, sigma)
    x_t = alpha * x_0 + sigma * eps
    target, answer = ((x - skip * x_t) / out for x in (x_0, Wrong()(x_t, drawn.level)))
    found = loss(OBJECTIVES.parse(spec), Wrong(), x_0, drawn, eps)
    torch.testing.assert_close(found, (answer - target).square().mean(1))


@pytest.mark.parametrize("name", ALL)
def test_the_scale_does_not_matter(name: str) -> None:
    """x_t times a factor is the same process: with the exact denoiser, the same loss."""
    x_0, eps = normal(8, 1), normal(8, 1, seed=1)
    t = torch.arange(1, 9)
    exact = Sum(torch.eye(4).double()[0])
    vp, ve, flow = (
        loss(ALL[name], exact, x_0, at(s, t), eps)
        for s in (STEPS.to_vp(), STEPS.to_ve(), STEPS.to_flow())
    )
    torch.testing.assert_close(ve, vp, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(flow, vp, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", ALL)
def test_an_items_loss_is_its_own(name: str) -> None:
    """A18: one-hot batches; neither another item nor another level enters a loss."""
    x_0, eps = normal(4, 1), normal(4, 1, seed=1)
    t = torch.tensor([1, 3, 6, 8])
    whole = loss(ALL[name], Wrong(), x_0, at(STEPS, t), eps)
    assert whole.shape == (4,)
    assert len(set(whole.tolist())) == 4
    for i in range(4):
        j = slice(i, i + 1)
        one = loss(ALL[name], Wrong(), x_0[j], at(STEPS, t[j]), eps[j])
        torch.testing.assert_close(one, whole[j])


@pytest.mark.parametrize("name", [*FAMILY, "vlb:variance=beta"])
def test_images_are_their_numbers(name: str) -> None:
    """(B, C, H, W) and (B, C·H·W) have the same losses, a mean over their numbers."""
    x_0, eps = normal(3, 2, 2, 3), normal(3, 2, 2, 3, seed=1)
    drawn = at(STEPS, [2, 5, 8])
    images = loss(ALL[name], Wrong(), x_0, drawn, eps)
    flat = loss(ALL[name], Wrong(), x_0.flatten(1), drawn, eps.flatten(1))
    torch.testing.assert_close(images, flat)
    if name in WEIGHTED:
        x_t = forward.marginal(drawn.level, x_0).at(eps)
        square = (Wrong()(x_t, drawn.level) - x_0).square().flatten(1).sum(1) / 12
        one = loss(ALL["x_0"], Wrong(), x_0, drawn, eps)
        torch.testing.assert_close(one, square)


@pytest.mark.parametrize("name", FAMILY)
def test_a_network_learns_from_all_of_them(name: str) -> None:
    """Gradients reach every weight of a network, through second derivatives too."""
    x_0 = normal(64, 2).float()
    twice = name == "hybrid"
    denoiser = denoise.NetDenoiser(Net(twice), denoise.Moments.of(x_0), learns_variance=twice)
    drawn = of_schedule(STEPS).draw(64, generator())
    loss(FAMILY[name], denoiser, x_0, drawn, normal(64, 2, seed=1).float()).mean().backward()
    for weight in denoiser.parameters():
        assert weight.grad is not None
        assert weight.grad.isfinite().all()
        assert weight.grad.abs().max() > 0


def test_edm_counts_the_answer_of_a_network_as_it_is() -> None:
    """The error of x̂_0 over c_out is that of the network, whatever the data's spread."""
    x_0, eps = 5 * normal(8, 2).float(), normal(8, 2, seed=1).float()
    denoiser = denoise.NetDenoiser(Net(), denoise.Moments.of(x_0))
    drawn = at(STEPS, torch.arange(1, 9))
    x_t = forward.marginal(drawn.level, x_0).at(eps)
    out = denoise.edm(x_0.double().std(0, correction=0).square().mean().sqrt().item())(
        drawn.level.alpha, drawn.level.sigma
    ).out
    error = (denoiser(x_t, drawn.level) - x_0) / out[:, None]
    found = loss(FAMILY["edm"], denoiser, x_0, drawn, eps)
    torch.testing.assert_close(found.double(), error.square().mean(1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_narrow_types_agree(name: str, dtype: torch.dtype) -> None:
    """In float32 to four digits; in bfloat16 the loss is float32, and right but for x_t's own."""
    x_0, eps = normal(8, 1).to(dtype), normal(8, 1, seed=1).to(dtype)
    t = torch.arange(1, 9)
    wide = loss(ALL[name], Wrong(), x_0.double(), at(STEPS, t), eps.double())
    narrow = loss(ALL[name], Wrong(), x_0, at(STEPS, t), eps)
    assert narrow.dtype == torch.float32
    scale = wide.abs().mean().item()
    digits = 1e-4 if dtype == torch.float32 else 0.1
    torch.testing.assert_close(narrow.double(), wide, rtol=digits, atol=digits * scale)


def test_half_precision_is_squared_and_mixed_in_float32() -> None:
    """bfloat16 has three digits: what comes after the denoiser must not lose more of them."""
    x_0 = normal(6, 8).bfloat16()
    answer = normal(6, 8, seed=2).bfloat16()
    found = loss(FAMILY["x_0"], lambda x_t, level: answer, x_0, at(STEPS, [4] * 6), x_0)
    expected = (answer.double() - x_0).square().mean(1)
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=0)
    narrow = learned_log_variance(STEPS[3], STEPS[4], answer)
    wide = learned_log_variance(STEPS[3], STEPS[4], answer.double())
    torch.testing.assert_close(narrow.double(), wide, rtol=1e-6, atol=1e-6)


# --- the ends of a schedule

ENDS = Level(
    torch.tensor([0.0, 1e-200, 1.0, 1.0, 1.0]).double(),
    torch.tensor([1.0, 1.0, 1e-70, 1e-200, 0.0]).double(),
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("spec", "noise", "clean"),
    [
        ("simple", 0, 0),
        ("x_0", 1, 1),
        ("v", 1, 0),
        ("flow", 1, 0),
        ("edm:std=0.5", 4, 0),
        ("min_snr:gamma=3", 0, 3),
        ("p2", 0, 1),
        ("p2:gamma=0.5", 0, 0),
        ("p2:gamma=2", 0, 0),
    ],
)
def test_weights_are_finite_at_both_ends(
    spec: str, noise: float, clean: float, dtype: torch.dtype
) -> None:
    """A19: the weight at SNR 0 and at SNR inf, each with an error of 1, and with none."""
    x_0, eps = normal(5, 2).to(dtype), normal(5, 2, seed=1).to(dtype)
    drawn = Drawn(ENDS, None, None)
    objective = OBJECTIVES.parse(spec)
    off = loss(objective, lambda x_t, level: x_0 + 1, x_0, drawn, eps).double()
    expected = torch.tensor([noise, noise, clean, clean, clean], dtype=torch.float64)
    torch.testing.assert_close(off, expected, rtol=1e-6, atol=1e-25)
    right = loss(objective, lambda x_t, level: x_0, x_0, drawn, eps)
    assert right.tolist() == [0] * 5


@pytest.mark.parametrize("name", MATCHING)
def test_clean_data_have_no_score(name: str) -> None:
    x_0, eps = normal(5, 1), normal(5, 1, seed=1)
    with pytest.raises(ValueError, match="clean data have no score"):
        loss(ALL[name], Wrong(), x_0, Drawn(ENDS, None, None), eps)


@pytest.mark.parametrize("name", MATCHING)
def test_pure_noise_has_a_score(name: str) -> None:
    x_0, eps = normal(3, 1), normal(3, 1, seed=1)
    assert loss(ALL[name], Wrong(), x_0, at(S.jsd(5), [5, 5, 5]), eps).isfinite().all()


# --- the variational bound


@pytest.mark.parametrize("table", ["linear:T=20", "jsd:T=4", "cosine:T=6", "constant:T=1,beta=0.3"])
@pytest.mark.parametrize("variance", ["posterior", "beta"])
def test_each_step_of_the_bound_is_torchs_divergence(table: str, variance: str) -> None:
    """q(x_s | x_t, x_0) from `forward`, its divergence from torch; at t = 1 a density."""
    schedule = S.SCHEDULES.parse(table)
    T = schedule.T
    t = torch.arange(1, T + 1)
    x_0, eps = normal(T, 3), normal(T, 3, seed=1)
    x_t = forward.marginal(schedule[t], x_0).at(eps)
    x_0_hat = Wrong()(x_t, schedule[t])
    expected = []
    for i in range(T):
        s, here = schedule[i], schedule[i + 1]
        q = forward.posterior(s, here, x_0[[i]], x_t[[i]])
        p = forward.posterior(s, here, x_0_hat[[i]], x_t[[i]])
        beta = schedule.beta[i + 1]
        if i == 0:
            expected.append(-Normal(p.mean, beta.sqrt()).log_prob(x_0[[0]]).mean())
        else:
            v = q.var if variance == "posterior" else beta
            step = kl_divergence(Normal(q.mean, q.var.sqrt()), Normal(p.mean, v.sqrt()))
            expected.append(step.mean())
    objective = OBJECTIVES.parse(f"vlb:variance={variance}")
    found = loss(objective, Wrong(), x_0, at(schedule, t), eps)
    torch.testing.assert_close(found, T * torch.stack(expected), rtol=1e-8, atol=1e-10)


def signs(repeats: int) -> tuple[Tensor, Tensor]:
    """x_0 and eps of ±1, in all pairs: exact means of whatever is quadratic in both."""
    pairs = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]]).double()
    return pairs[:, :1].repeat(repeats, 1), pairs[:, 1:].repeat(repeats, 1)


class Wiener:
    """The exact denoiser of N(0, var), and of no other data."""

    def __init__(self, var: float, mix: Tensor | None = None) -> None:
        self.var = var
        self.mix = mix

    def __call__(self, x_t: Tensor, level: Level) -> Tensor:
        gain = level.alpha * self.var / (level.alpha**2 * self.var + level.sigma**2)
        return gain[:, None] * x_t

    def with_variance(self, x_t: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        assert self.mix is not None
        return self(x_t, level), self.mix.expand_as(x_t)


def chain_bound(schedule: Schedule, var: float, variances: Tensor) -> float:
    """−E[log p(x_0:T) − log q(x_1:T | x_0)] of N(0, var), from joint covariances alone.

    Every x_t of both chains is a sum of independent noises; the bound is KL(q ‖ p) of the two joint
    Gaussians of x_0..x_T, plus the entropy of x_0.
    """
    T = schedule.T
    alpha, sigma = schedule.alpha.tolist(), schedule.sigma.tolist()
    q = torch.zeros(T + 1, T + 1, dtype=torch.float64)
    q[0, 0] = math.sqrt(var)
    for t in range(1, T + 1):
        ratio = alpha[t] / alpha[t - 1]
        q[t] = ratio * q[t - 1]
        q[t, t] = math.sqrt(sigma[t] ** 2 - (ratio * sigma[t - 1]) ** 2)
    p = torch.zeros(T + 1, T + 1, dtype=torch.float64)
    p[T, T] = 1.0
    for t in range(T, 0, -1):
        one = torch.ones(1, 1, dtype=torch.float64)
        x_0_hat = Wiener(var)(one, schedule[torch.tensor([t])])
        p[t - 1] = forward.posterior(schedule[t - 1], schedule[t], x_0_hat, one).mean * p[t]
        p[t - 1, t - 1] = variances[t - 1].sqrt()
    zero = torch.zeros(T + 1, dtype=torch.float64)
    joint_q, joint_p = (MultivariateNormal(zero, m @ m.T) for m in (q, p))
    return (kl_divergence(joint_q, joint_p)).item() + entropy(var)


def entropy(var: float) -> float:
    """That of N(0, var), in nats."""
    return Normal(torch.tensor(0.0).double(), math.sqrt(var)).entropy().item()


def reverse_variances(schedule: Schedule, variance: str) -> Tensor:
    beta = schedule.beta[1:]
    if variance == "beta":
        return beta
    sigma = schedule.sigma.square()
    return torch.cat([beta[:1], (beta * sigma[:-1] / sigma[1:])[1:]])


@pytest.mark.parametrize(
    "table", ["linear:T=12,end=0.6", "cosine:T=9", "log_snr:T=15,start=6,end=-6"]
)
@pytest.mark.parametrize("variance", ["posterior", "beta"])
@pytest.mark.parametrize("var", [0.3, 1.0])
def test_the_bound_telescopes(table: str, variance: str, var: float) -> None:
    """The mean loss and the prior's term are the bound of the whole chain, and above the truth."""
    schedule = S.SCHEDULES.parse(table)
    x_0, eps = signs(schedule.T)
    x_0 = math.sqrt(var) * x_0
    drawn = of_schedule(schedule).draw(len(x_0), generator(1))
    objective = OBJECTIVES.parse(f"vlb:variance={variance}")
    steps = loss(objective, Wiener(var), x_0, drawn, eps).mean().item()
    one = torch.ones((), dtype=torch.float64)
    last = forward.marginal(schedule[schedule.T], x_0)
    prior = last.kl(forward.Gaussian(torch.zeros_like(x_0), one)).mean().item()
    whole = chain_bound(schedule, var, reverse_variances(schedule, variance))
    assert steps + prior == pytest.approx(whole, rel=1e-9)
    assert whole > entropy(var) - 1e-12


def test_many_steps_reach_the_entropy_of_white_data() -> None:
    """N(0, 1) stays what it is: with variance β each reverse step is exact, and so is the bound."""
    schedule = S.linear(1000)
    x_0, eps = signs(1000)
    drawn = of_schedule(schedule).draw(4000, generator())
    found = loss(OBJECTIVES.parse("vlb:variance=beta"), Wiener(1.0), x_0, drawn, eps).mean().item()
    assert found == pytest.approx(entropy(1.0), abs=1e-4)


@pytest.mark.parametrize("spec", ["uniform", "normal", "logistic", "cosine"])
def test_the_continuous_bound_is_mutual_information(spec: str) -> None:
    """½·∫SNR·mmse dλ over [a, b] = ½·log((1 + c·e^b)/(1 + c·e^a)) for N(0, c) (Guo et al. 2005)."""
    var, low, high, n = 0.4, -6.0, 7.0, 2000
    log_snr = low + (high - low) * (torch.arange(n, dtype=torch.float64) + 0.5) / n
    density = LEVELS.parse(spec).density(log_snr)
    x_0, eps = signs(n)
    each = of_snr(log_snr.repeat_interleave(4).tolist()).level
    drawn = Drawn(each, None, density.repeat_interleave(4))
    losses = loss(FAMILY["vlb"], Wiener(var), math.sqrt(var) * x_0, drawn, eps)
    found = (losses.reshape(n, 4).mean(1) * density).sum() * (high - low) / n
    exact = 0.5 * math.log((1 + var * math.exp(high)) / (1 + var * math.exp(low)))
    assert found.item() == pytest.approx(exact, rel=1e-6)


def test_the_mean_of_the_continuous_bound_over_its_draws() -> None:
    """The same through the draws themselves, for a level density: the mean is the integral."""
    var, n = 0.4, 4000
    x_0, eps = signs(n)
    drawn = LEVELS.parse("uniform:low=-6,high=7").draw(4 * n, generator(3))
    found = loss(FAMILY["vlb"], Wiener(var), math.sqrt(var) * x_0, drawn, eps).mean().item()
    exact = 0.5 * math.log((1 + var * math.exp(7)) / (1 + var * math.exp(-6)))
    assert found == pytest.approx(exact, rel=2e-3)


def test_many_steps_are_continuous_time() -> None:
    """The bound of T steps from λ = 6 to −6 tends to the integral between, from above."""
    var = 0.4
    apart = []
    for T in (50, 100, 200):
        schedule = S.log_snr(T, 6, -6)
        x_0, eps = signs(T)
        drawn = of_schedule(schedule).draw(4 * T, generator())
        losses = loss(FAMILY["vlb"], Wiener(var), math.sqrt(var) * x_0, drawn, eps)
        steps = losses[4:].sum().item() / (4 * T)  # without t = 1, the last step to data
        exact = 0.5 * math.log((1 + var * math.exp(6)) / (1 + var * math.exp(-6)))
        apart.append(steps - exact)
    assert apart[0] > apart[1] > apart[2] > 0
    assert apart[1] / apart[2] == pytest.approx(2, abs=0.05)


# --- the learned variance


@pytest.mark.parametrize("table", ["linear:T=40", "cosine:T=12", "jsd:T=5", "karras:T=10"])
def test_a_mix_of_one_is_beta_and_of_minus_one_the_posterior(table: str) -> None:
    """A15: half way lies the geometric mean, not the arithmetic one."""
    vp = S.SCHEDULES.parse(table).to_vp()
    t = torch.arange(2, vp.T + 1)
    one = torch.ones(len(t), 2, dtype=torch.float64)
    beta = vp.beta[t]
    posterior = forward.posterior(vp[t - 1], vp[t], one, one).var
    for mix, expected in ((1, beta), (-1, posterior), (0, (beta * posterior).sqrt())):
        found = learned_log_variance(vp[t - 1], vp[t], mix * one).exp()
        torch.testing.assert_close(found, expected[:, None].expand_as(found))


def test_the_learned_variance_is_diffusers() -> None:
    scheduler = pytest.importorskip("diffusers").DDPMScheduler(
        variance_type="learned_range", num_train_timesteps=100
    )
    schedule = S.linear(100)
    mix = normal(1, 4).clamp(-1, 1)
    for t in (2, 3, 40, 100):
        theirs = scheduler._get_variance(t - 1, predicted_variance=mix)
        found = learned_log_variance(schedule[t - 1], schedule[t], mix)
        torch.testing.assert_close(found, theirs.double(), rtol=1e-4, atol=1e-4)


def test_the_learned_variance_at_the_last_step_is_the_next_ones() -> None:
    """At s = 0, where β̃ = 0, that of s = 1 for a schedule of equal βs; any scale, any shape."""
    schedule = S.constant(3, 0.2)
    mix = torch.tensor([[-1.0, 0.4, 1.0]]).double()
    last = learned_log_variance(schedule[0], schedule[1], mix)
    next_ = learned_log_variance(schedule[1], schedule[2], mix)
    torch.testing.assert_close(last, next_)
    assert learned_log_variance(S.jsd(1)[0], S.jsd(1)[1], mix).tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("scale", ["ve", "flow"])
def test_the_learned_variance_in_another_scale(scale: str) -> None:
    """x_s times a factor has a variance times its square; images, and one level for all."""
    other = STEPS.to_ve() if scale == "ve" else STEPS.to_flow()
    mix = normal(2, 3, 4, 4)
    for t in (1, 2, 8):
        factor = torch.hypot(*other[t - 1]).log()
        vp = learned_log_variance(STEPS[t - 1], STEPS[t], mix)
        torch.testing.assert_close(
            learned_log_variance(other[t - 1], other[t], mix), vp + 2 * factor
        )


@pytest.mark.parametrize("t", [2, 5, 8])
def test_the_best_learned_variance_is_that_of_x_s_given_x_t(t: int) -> None:
    """With the exact mean: Var[x_s | x_t] of jointly Gaussian x_s, x_t, by conditioning."""
    var = 0.3
    x_0, eps = signs(1)
    (alpha_s, sigma_s), (alpha, sigma) = STEPS[t - 1], STEPS[t]
    ratio = alpha / alpha_s
    var_s, var_t = (a**2 * var + s**2 for a, s in ((alpha_s, sigma_s), (alpha, sigma)))
    best = var_s - (ratio * var_s) ** 2 / var_t
    beta = 1 - ratio**2
    low = (sigma_s * beta.sqrt() / sigma).square()
    mix = 2 * (best.log() - low.log()) / (beta.log() - low.log()) - 1
    assert mix.abs() < 1  # the bounds are bounds
    drawn = at(STEPS, [t] * 4)

    def slope(mix: Tensor) -> Tensor:
        def mean_loss(mix: Tensor) -> Tensor:
            denoiser = Wiener(var, mix)
            return loss(FAMILY["hybrid"], denoiser, math.sqrt(var) * x_0, drawn, eps).mean()

        return jacobian(mean_loss, mix)

    assert slope(mix).abs() < 1e-9 * slope(mix + 0.1).abs()
    assert slope(mix - 0.1) < 0 < slope(mix + 0.1)


def test_hybrid_is_simple_and_the_bound_with_a_variance_between() -> None:
    """At mix = ±1 its bound is that of β̃ and β; at t = 1 with the stand-in for β̃."""
    x_0, eps = normal(8, 1), normal(8, 1, seed=1)
    t = torch.arange(1, 9)
    parts = {}
    for mix, variance in ((-1.0, "posterior"), (1.0, "beta")):
        denoiser = Sum(torch.tensor([0.5, 0.1, 0.2, 0.3]).double(), mix)
        bound = loss(OBJECTIVES.parse(f"vlb:variance={variance}"), denoiser, x_0, at(STEPS, t), eps)
        plain = loss(FAMILY["simple"], denoiser, x_0, at(STEPS, t), eps)
        found = loss(OBJECTIVES.parse("hybrid:weight=0.25"), denoiser, x_0, at(STEPS, t), eps)
        torch.testing.assert_close(found[1:], (plain + 0.25 * bound)[1:])
        parts[variance] = (found - plain)[0] / 0.25, bound[0]
    torch.testing.assert_close(*parts["beta"])
    v = learned_log_variance(STEPS[0], STEPS[1], -torch.ones(1, 1).double()).exp()
    x_t = forward.marginal(STEPS[1], x_0[:1]).at(eps[:1])
    x_0_hat = denoiser(x_t, STEPS[1])
    decoder = -Normal(x_0_hat, v.sqrt()).log_prob(x_0[:1])[0, 0]
    torch.testing.assert_close(parts["posterior"][0], 8 * decoder)


def test_the_bound_teaches_the_variance_and_leaves_the_mean_to_simple() -> None:
    theta = torch.tensor([0.5, 0.1, 0.2, 0.3], dtype=torch.float64, requires_grad=True)
    mix = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    x_0, eps = normal(8, 1), normal(8, 1, seed=1)
    drawn = at(STEPS, torch.arange(1, 9))
    heavy = loss(OBJECTIVES.parse("hybrid:weight=10"), Sum(theta, mix), x_0, drawn, eps).sum()
    simple = loss(FAMILY["simple"], Sum(theta), x_0, drawn, eps).sum()
    of_mean, of_mix = torch.autograd.grad(heavy, [theta, mix])
    torch.testing.assert_close(of_mean, torch.autograd.grad(simple, theta)[0])
    assert of_mix != 0


# --- the score


def test_the_implicit_trace_is_that_of_the_posterior_covariance() -> None:
    """For the exact score, tr ∂s/∂x = (α²/σ⁴)·tr Cov[x_0 | x_t] − D/σ² (Efron 2011)."""
    x_0, eps = normal(6, 3), normal(6, 3, seed=1)
    drawn = at(STEPS, [1, 2, 4, 5, 7, 8])
    level = drawn.level
    x_t = forward.marginal(level, x_0).at(eps)
    cov = SOLID.posterior_cov(x_t, level).diagonal(dim1=1, dim2=2).sum(1)
    trace = level.alpha**2 / level.sigma**4 * cov - 3 / level.sigma**2
    expected = level.sigma**2 * (SOLID.score(x_t, level).square().sum(1) + 2 * trace) / 3
    torch.testing.assert_close(loss(FAMILY["implicit"], SOLID, x_0, drawn, eps), expected)


def sliced_alike(directions: str, n: int) -> tuple[Tensor, Tensor]:
    """One item n times over, so that only the directions differ; and σ²·J of its score."""
    x_0, eps = normal(1, 3).expand(n, 3), normal(1, 3, seed=1).expand(n, 3)
    drawn = at(STEPS, [4] * n)
    level = STEPS[4]
    x_t = forward.marginal(level, x_0[:1]).at(eps[:1])
    cov = SOLID.posterior_cov(x_t, level)[0]
    slope = level.alpha**2 / level.sigma**2 * cov - torch.eye(3).double()
    losses = loss(OBJECTIVES.parse(f"sliced:directions={directions}"), SOLID, x_0, drawn, eps)
    size = (level.sigma * SOLID.score(x_t, level)).square().sum()
    return (3 * losses - size) / 2, slope


def test_rademacher_directions_take_every_corner_alike() -> None:
    """vᵀJv of v = (±1, ±1, ±1) has four values, those of the corners up to sign, equally often."""
    found, slope = sliced_alike("rademacher", 4000)
    corners = torch.tensor([[1.0, 1, 1], [1, 1, -1], [1, -1, 1], [-1, 1, 1]]).double()
    values = torch.einsum("ci,ij,cj->c", corners, slope, corners)
    nearest = (found[:, None] - values).abs()
    assert nearest.min(1).values.max() < 1e-9
    share = nearest.argmin(1).bincount(minlength=4) / 4000
    assert (share - 0.25).abs().max() < 0.03
    assert values.mean() == pytest.approx(slope.trace())


def test_normal_directions_have_the_trace_as_mean_and_gaussian_spread() -> None:
    """vᵀJv for v ~ N(0, I): mean tr J, variance 2·‖J‖² (Hutchinson)."""
    found, slope = sliced_alike("normal", 20_000)
    std = math.sqrt(2 * slope.square().sum())
    assert found.mean().item() == pytest.approx(slope.trace().item(), abs=4 * std / 141)
    assert found.std().item() == pytest.approx(std, rel=0.05)


@pytest.mark.parametrize("name", ["implicit", "sliced"])
def test_score_matching_can_be_measured_without_gradients(name: str) -> None:
    theta = torch.tensor([0.6, 0.9, 0.2], dtype=torch.float64, requires_grad=True)
    x_0, eps = normal(4, 2), normal(4, 2, seed=1)
    drawn = at(STEPS, [1, 3, 5, 8])
    trained = loss(FAMILY[name], Wrong(theta), x_0, drawn, eps)
    with torch.no_grad():
        measured = loss(FAMILY[name], Wrong(theta), x_0, drawn, eps)
    assert trained.requires_grad
    assert not measured.requires_grad
    torch.testing.assert_close(measured, trained.detach())


def test_sliced_draws_from_its_generator_alone() -> None:
    x_0, eps = normal(4, 2), normal(4, 2, seed=1)
    drawn = at(STEPS, [1, 3, 5, 8])
    state = torch.get_rng_state()
    first, again, other = (
        FAMILY["sliced"](Wrong(), x_0, drawn, eps, generator(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


# --- names and errors


@pytest.mark.parametrize("entry", list(OBJECTIVES), ids=lambda entry: entry.name)
def test_specs_round_trip(entry: Entry) -> None:
    made = OBJECTIVES.parse(entry.usage)
    assert made.spec == entry.usage
    assert OBJECTIVES.parse(made.spec).spec == made.spec


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("simpl", "'simpl' is not a training objective: did you mean simple"),
        ("min_snr:gamma=0", "gamma = 0: it must be an SNR > 0"),
        ("p2:gamma=-1", "gamma = -1: it must be a power from 0 to 10"),
        ("p2:k=0", "k = 0: it must be a number > 0"),
        ("edm:std=0", "std = 0: it must be a standard deviation > 0"),
        ("edm:std=-2", "std = -2: it must be a standard deviation > 0"),
        ("hybrid:weight=-1", "weight = -1: it must be a weight ≥ 0"),
        ("vlb:variance=learned", "variance = learned: choose posterior or beta"),
        ("sliced:directions=uniform", "directions = uniform: choose rademacher or normal"),
    ],
)
def test_bad_specs_are_one_sentence(spec: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        OBJECTIVES.parse(spec)


def test_the_bound_needs_to_know_where_levels_come_from() -> None:
    x_0, eps = normal(2, 1), normal(2, 1, seed=1)
    level = STEPS[torch.tensor([2, 3])]
    with pytest.raises(ValueError, match=r"vlb needs the step t → t − 1 .*of_schedule"):
        loss(FAMILY["vlb"], Wrong(), x_0, Drawn(level, None, None), eps)


def test_hybrid_needs_a_schedule_and_a_variance() -> None:
    x_0, eps = normal(2, 1), normal(2, 1, seed=1)
    with pytest.raises(ValueError, match=r"hybrid needs the step t → t − 1 .*of_schedule"):
        loss(FAMILY["hybrid"], Wrong(), x_0, of_snr([1.0, 2.0]), eps)
    with pytest.raises(TypeError, match="this Mixture predicts none"):
        loss(FAMILY["hybrid"], TARGET, x_0, at(STEPS, [2, 3]), eps)


def test_edm_needs_a_standard_deviation() -> None:
    x_0, eps = normal(2, 1), normal(2, 1, seed=1)
    with pytest.raises(TypeError, match=r"this Mixture has none: give .* edm:std=1"):
        loss(FAMILY["edm"], TARGET, x_0, at(STEPS, [2, 3]), eps)


@pytest.mark.parametrize("name", [*WEIGHTED, *MATCHING, "vlb"])
def test_an_answer_of_another_shape_is_not_stretched(name: str) -> None:
    x_0, eps = normal(3, 2), normal(3, 2, seed=1)
    narrow = Wrong()
    narrow.columns = 1
    with pytest.raises(ValueError, match=r"has shape \(3, 1\)|returned shape \(3, 1\)"):
        loss(ALL[name], narrow, x_0, at(STEPS, [2, 3, 4]), eps)


def test_steps_go_back() -> None:
    with pytest.raises(ValueError, match="level t must be noisier"):
        learned_log_variance(STEPS[3], STEPS[2], torch.zeros(1, 1))


def test_a_weight_of_ones_own() -> None:
    """`Weighted` takes any function of SNR."""
    x_0, eps = normal(3, 2), normal(3, 2, seed=1)
    drawn = at(STEPS, [1, 4, 8])
    own = loss(Weighted(lambda snr: 2 / (1 + snr)), Wrong(), x_0, drawn, eps)
    plain = loss(FAMILY["x_0"], Wrong(), x_0, drawn, eps)
    torch.testing.assert_close(own, 2 * drawn.level.sigma**2 * plain)
