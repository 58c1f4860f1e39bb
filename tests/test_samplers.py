"""Samplers: the oracle step, orders of convergence, the loop, inversion, what they refuse."""

import math
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
import torch
from scipy.stats import chi2
from torch import Tensor

from alphabar import schedule as S
from alphabar.forward import posterior
from alphabar.noise import keyed_noise
from alphabar.samplers import (
    SAMPLERS,
    Denoiser,
    LinearSampler,
    Move,
    Normal,
    Sampler,
    Step,
    base,
    invert,
    langevin,
    nfe_of,
    sample,
)
from alphabar.samplers.base import Asked, combine
from alphabar.samplers.multistep import counts, moments, weights
from alphabar.schedule import SCHEDULES, Level, Schedule

ODES = {  # and the order that each claims
    "ddim:eta=0.0": 1,
    "euler": 1,
    "heun": 2,
    "dpmpp_2m": 2,
    "dpmpp_3m": 3,
    "unipc:order=1,variant=bh1": 2,
    "unipc:order=1,variant=bh2": 2,
    "unipc:order=2,variant=bh1": 3,
    "unipc:order=2,variant=bh2": 3,
    "unipc:order=3,variant=bh1": 3,
    "unipc:order=3,variant=bh2": 3,
    "adams:order=1": 1,
    "adams:order=2": 2,
    "adams:order=3": 3,
    "adams:order=4": 3,
}
KEEP_THE_LAW = [  # with noise, and x_s is still N(α_s·x_0, σ_s²)
    "ddpm:variance=posterior",
    "ddim:eta=0.5",
    "ddim:eta=1.0",
    "euler:churn=20,low=0.05,high=20.0",
    "heun:churn=7",
    "dpmpp_2m_sde",
    "dpmpp_2m_sde:eta=0.0",
    "dpmpp_2m_sde:eta=0.5",
    "dpmpp_3m_sde",
    "dpmpp_3m_sde:eta=0.3",
    "pc",
    "pc:eta=0.0,corrections=2,step=1.5",
    "pc:eta=0.5,corrections=0",
]
OWN_LAW = ["ddpm:variance=beta", "heun:churn=20,inflate=1.1", "langevin", "langevin:step=2.0"]
# Right in their own laws, which are not that of the data: inflated noise, long Langevin steps.
BIASED = ["heun:churn=20,inflate=1.1", "langevin:step=2.0", "pc:eta=0.0,corrections=2,step=1.5"]
ADAPTIVE = ["adaptive:rtol=1e-4,atol=1e-4", "adaptive:rtol=1e-5,atol=1e-6"]
SPECS = [*ODES, *KEEP_THE_LAW, *OWN_LAW, *ADAPTIVE]

TABLES = [
    "linear:T=40",
    "jsd:T=25",
    "flow:T=20,shift=3.0",
    "karras:T=30",
    "cosine:T=30",
    "cosine:T=1",
    "flow:T=1",
    "jsd:T=2",
    "linear:T=2",
    "flow:T=3",
    "karras:T=4",
]

FEW_TABLES = ["flow:T=20,shift=3.0", "linear:T=2", "cosine:T=1", "flow:T=1", "karras:T=6"]

# Data N(MEAN, STD²·I): its denoiser and its probability flow are known in closed form.
MEAN, STD = 0.7, 0.5


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Items are few here: threads would only wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def sampler(spec: str) -> Sampler:
    made: Sampler = SAMPLERS.parse(spec)
    return made


def linear_sampler(spec: str) -> LinearSampler:
    made = sampler(spec)
    assert isinstance(made, LinearSampler)
    return made


def table(spec: str) -> Schedule:
    made: Schedule = SCHEDULES.parse(spec)
    return made


def downwards(s: Schedule) -> Level:
    return Level(s.alpha.flip(0), s.sigma.flip(0))


def vp(lam: Tensor) -> Level:
    """Variance-preserving levels of this log-SNR."""
    return Level(lam.sigmoid().sqrt(), (-lam).sigmoid().sqrt())


def of_items(level: Level, x: Tensor) -> tuple[Tensor, Tensor]:
    """α and σ ready to multiply x, from one level or one an item."""
    shape = [-1, *[1] * (x.ndim - 1)] if level.alpha.ndim else []
    return level.alpha.to(x.dtype).reshape(shape), level.sigma.to(x.dtype).reshape(shape)


def normal_data(mean: float, std: float) -> Denoiser:
    """E[x_0 | x_t] for N(mean, std²·I), by the product of two Gaussian densities."""

    def denoise(x: Tensor, level: Level) -> Tensor:
        alpha, sigma = of_items(level, x)
        gain = alpha * std**2 / ((alpha * std) ** 2 + sigma**2)
        return mean + gain * (x - alpha * mean)

    return denoise


exact = normal_data(MEAN, STD)


def quantile(s: Schedule, t: int, z: Tensor) -> Tensor:
    """Where the flow of the data above has the point that is z standard deviations out, at t."""
    spread = torch.hypot(s.alpha[t] * STD, s.sigma[t])
    return s.alpha[t] * MEAN + spread * z


# A target that bends the flow: two Gaussians on the line. In one dimension the flow keeps the
# cumulative distribution, so its solution is a quantile: no solver is needed for the truth.
W = torch.tensor([0.4, 0.6], dtype=torch.float64)
M = torch.tensor([-1.0, 0.6], dtype=torch.float64)
V = torch.tensor([0.1, 0.25], dtype=torch.float64)


def two_humps(x: Tensor, level: Level) -> Tensor:
    alpha, sigma = of_items(level, x)
    total = alpha**2 * V + sigma**2
    apart = x - alpha * M  # (n, 2)
    log_r = W.log() - 0.5 * total.log() - 0.5 * apart**2 / total
    return (log_r.softmax(-1) * (M + alpha * V / total * apart)).sum(-1, keepdim=True)


def flow_of_two_humps(x: Tensor, level: Level, to: Level) -> Tensor:
    """Where the probability flow takes x (n, 1) from one level to another: equal quantiles."""

    def spread(at: Level) -> Tensor:
        return (at.alpha**2 * V + at.sigma**2).sqrt()

    def below(y: Tensor, at: Level) -> Tensor:
        return (W * torch.special.ndtr((y - at.alpha * M) / spread(at))).sum(-1, keepdim=True)

    p = below(x, level)
    low, high = torch.full_like(x, -20.0), torch.full_like(x, 20.0)
    for _ in range(60):
        middle = (low + high) / 2
        under = below(middle, to) < p
        low, high = torch.where(under, middle, low), torch.where(under, high, middle)
    y = (low + high) / 2
    z = (y - to.alpha * M) / spread(to)
    density = (W * (-(z**2) / 2).exp() / spread(to)).sum(-1, keepdim=True) / math.sqrt(2 * math.pi)
    return y - (below(y, to) - p) / density


def run(  # along a path, as `sample` and `invert` do
    spec: str, denoiser: Denoiser, x: Tensor, path: Level, noise: Callable[[int], Tensor] | None
) -> Iterator[tuple[int, Tensor, Tensor]]:
    times = range(len(path.alpha) - 1, -1, -1)
    draw = noise or (lambda k: pytest.fail(f"{spec} draws noise"))
    return sampler(spec).run(Asked(denoiser, times), x, path, draw)


# --- the family


def test_every_sampler_is_listed() -> None:
    # `mixes` runs on the one schedule that its numbers belong to: a test of its own below.
    listed = {spec.partition(":")[0] for spec in SPECS} | {"mixes"}
    assert listed == {entry.name for entry in SAMPLERS}


def test_mixes_are_the_method_whose_numbers_they_are() -> None:
    s = S.flow(6)
    steps = [move.to for move in linear_sampler("dpmpp_2m").moves(downwards(s))]
    columns = [[m.a, m.b, *m.c, 0.0, 0.0][:4] for m in steps if m is not None]
    made = SAMPLERS["mixes"].build(*zip(*columns, strict=True))
    *_, given = sample(exact, made, s, 5, (2,), seed=1)
    *_, wanted = sample(exact, sampler("dpmpp_2m"), s, 5, (2,), seed=1)
    torch.testing.assert_close(given.x, wanted.x)
    again = sampler(made.spec)
    *_, twice = sample(exact, again, s, 5, (2,), seed=1)
    assert torch.equal(twice.x, given.x)
    with pytest.raises(ValueError, match="for 6 steps, the schedule has 5"):
        list(sample(exact, made, S.flow(5), 5, (2,), seed=1))
    with pytest.raises(ValueError, match="leads a clean item"):
        list(sample(exact, made, S.flow(6, shift=2.0), 5, (2,), seed=1))


@pytest.mark.parametrize("spec", SPECS)
def test_a_sampler_knows_its_spec(spec: str) -> None:
    made = sampler(spec)
    assert sampler(made.spec) == made
    assert sampler(made.spec).spec == made.spec


@pytest.mark.parametrize("spec", SPECS)
def test_the_order_that_is_claimed(spec: str) -> None:
    claim = 5 if spec in ADAPTIVE else ODES.get(spec, 2 if spec == "dpmpp_2m_sde:eta=0.0" else 0)
    assert sampler(spec).order == claim


# --- oracle step: the true x_0 and ε in, exact law out


class Symbols:
    """x as a row of coefficients: of x_0, of the starting ε, and of each draw of noise.

    A sampler's moves are linear, so one row tells the law of x: mean x[0]·x_0 and variance the sum
    of the squares of the rest. The denoiser is right: it always answers x_0.
    """

    def __init__(self, path: Level, draws: int = 400) -> None:
        self.x = torch.zeros(1, 2 + draws, dtype=torch.float64)
        self.x[0, :2] = torch.stack([path.alpha[0], path.sigma[0]])
        self.asked: list[tuple[float, float, float, float]] = []

    def denoiser(self, x: Tensor, level: Level) -> Tensor:
        self.asked.append((*self.law(x), float(level.alpha), float(level.sigma)))
        answer = torch.zeros_like(x)
        answer[0, 0] = 1
        return answer

    def noise(self, draw: int) -> Tensor:
        z = torch.zeros_like(self.x)
        z[0, 1 + draw] = 1
        return z

    @staticmethod
    def law(x: Tensor) -> tuple[float, float]:
        return x[0, 0].item(), x[0, 1:].square().sum().item()


@pytest.mark.parametrize("levels", TABLES)
@pytest.mark.parametrize("spec", [*ODES, *KEEP_THE_LAW, "adaptive:rtol=1e-10,atol=1e-10"])
def test_oracle_step(spec: str, levels: str) -> None:
    """x_s has mean α_s·x_0 and variance σ_s² at every level, and wherever the denoiser is asked."""
    path = downwards(table(levels))
    symbols = Symbols(path)
    # The adaptive solve is right to its tolerance; Adams' weights are large in long steps of α/σ.
    near = {"adaptive": 1e-8, "adams": 1e-9}.get(spec.partition(":")[0], 1e-11)
    reached = [0]
    for i, x, _ in run(spec, symbols.denoiser, symbols.x, path, symbols.noise):
        mean, variance = symbols.law(x)
        alpha, sigma = path.alpha[i].item(), path.sigma[i].item()
        assert mean == pytest.approx(alpha, rel=near, abs=near)
        assert variance == pytest.approx(sigma**2, rel=near, abs=near if near == 1e-8 else 1e-20)
        reached.append(i)
    assert reached == list(range(len(path.alpha)))
    if spec.startswith("adaptive"):
        return  # a Runge–Kutta stage is near the way, not on it
    for mean, variance, alpha, sigma in symbols.asked:
        assert mean == pytest.approx(alpha, rel=near, abs=near)
        assert variance == pytest.approx(sigma**2, rel=near)


@pytest.mark.parametrize("levels", ["flow:T=20,shift=3.0", "linear:T=2", "karras:T=6", "jsd:T=25"])
@pytest.mark.parametrize("spec", [*ODES, "dpmpp_2m_sde:eta=0.0", "adaptive:rtol=1e-10,atol=1e-10"])
def test_oracle_step_towards_noise(spec: str, levels: str) -> None:
    """As inversion goes, up to α = 0 where there is no x_0 left: the same law at every level."""
    s = table(levels)
    path = Level(s.alpha[1:], s.sigma[1:])
    symbols = Symbols(path, draws=0)
    for i, x, _ in run(spec, symbols.denoiser, symbols.x, path, None):
        near = 1e-6 if spec.startswith("adaptive") else 1e-9
        mean, variance = symbols.law(x)
        assert mean == pytest.approx(path.alpha[i].item(), rel=near, abs=near)
        assert variance == pytest.approx(path.sigma[i].item() ** 2, rel=near)


@pytest.mark.parametrize("levels", TABLES)
def test_oracle_step_of_ddpm_with_beta(levels: str) -> None:
    """From an exact x_t: variance σ_s² + β − β̃ in the variance-preserving scale; 0 at the end."""
    s = table(levels)
    alpha_bar = s.alpha**2 / (s.alpha**2 + s.sigma**2)
    for t in range(1, s.T + 1):
        path = Level(s.alpha[[t, t - 1]], s.sigma[[t, t - 1]])
        symbols = Symbols(path, draws=1)
        ((_, x, _),) = run("ddpm:variance=beta", symbols.denoiser, symbols.x, path, symbols.noise)
        beta = 1 - alpha_bar[t] / alpha_bar[t - 1]
        beta_tilde = beta * (1 - alpha_bar[t - 1]) / (1 - alpha_bar[t])
        scale = s.alpha[t - 1] ** 2 + s.sigma[t - 1] ** 2
        extra = (scale * (beta - beta_tilde)).item() if t > 1 else 0.0
        mean, variance = symbols.law(x)
        assert mean == pytest.approx(s.alpha[t - 1].item(), abs=1e-11)
        assert variance == pytest.approx(s.sigma[t - 1].item() ** 2 + extra, rel=1e-7, abs=1e-20)


@pytest.mark.parametrize("levels", TABLES)
@pytest.mark.parametrize(("churn", "low", "high", "inflate"), [(20, 0, 1e30, 1.1), (5, 0.1, 3, 1)])
@pytest.mark.parametrize("name", ["euler", "heun"])
def test_oracle_step_of_churn(
    name: str, churn: float, low: float, high: float, inflate: float, levels: str
) -> None:
    """Karras et al. 2022, algorithm 2, lines 4 to 6: σ̂ = (1 + γ)·σ, noise of S_noise²·(σ̂² − σ²)."""
    path = downwards(table(levels))
    symbols = Symbols(path)
    spec = f"{name}:churn={churn},low={low},high={high},inflate={inflate}"
    variance = path.sigma[0].item() ** 2
    for i, x, _ in run(spec, symbols.denoiser, symbols.x, path, symbols.noise):
        alpha, sigma = path.alpha[i - 1].item(), path.sigma[i - 1].item()
        inside = alpha > 0 and low <= sigma / alpha <= high
        lifted = sigma * (1 + (min(churn / (len(path.alpha) - 1), 2**0.5 - 1) if inside else 0))
        variance += inflate**2 * (lifted**2 - sigma**2)
        variance *= (path.sigma[i].item() / lifted) ** 2
        assert symbols.law(x) == pytest.approx((path.alpha[i].item(), variance), rel=1e-9)


@pytest.mark.parametrize("levels", TABLES)
@pytest.mark.parametrize(("corrections", "step"), [(5, 0.2), (1, 2.0)])
def test_oracle_step_of_langevin(corrections: int, step: float, levels: str) -> None:
    """At each level the variance approaches σ_t² by e^(−2k) a step; to the next, x·α_s/α_t."""
    path = downwards(table(levels))
    symbols = Symbols(path)
    spec = f"langevin:corrections={corrections},step={step}"
    variance = path.sigma[0].item() ** 2
    for i, x, _ in run(spec, symbols.denoiser, symbols.x, path, symbols.noise):
        t, s = (Level(path.alpha[j], path.sigma[j]) for j in (i - 1, i))
        variance = (
            t.sigma.item() ** 2
            + (variance - t.sigma.item() ** 2) * math.exp(-2 * step) ** corrections
        )
        ratio = s.sigma / t.sigma if t.alpha == 0 else s.alpha / t.alpha
        variance *= ratio.item() ** 2
        if i == len(path.alpha) - 1:
            variance = 0.0  # x̂_0
        assert symbols.law(x) == pytest.approx((s.alpha.item(), variance), rel=1e-9, abs=1e-11)


@pytest.mark.parametrize("step", [1e-6, 0.2, 10.0])
@pytest.mark.parametrize("level", [(0.6, 0.8), (0.0, 1.0), (1.0, 7.0)])
def test_a_corrector_keeps_its_stationary_law(level: tuple[float, float], step: float) -> None:
    """Whatever the step, variance σ² stays, and any other approaches it."""
    alpha, sigma = level
    at = Level(*torch.tensor(level, dtype=torch.float64))
    (move,) = langevin_moves(at, step)
    assert move.at == at
    mix = move.to
    assert mix is not None
    assert mix.a * alpha + mix.b == pytest.approx(alpha, abs=1e-15)
    assert (mix.a * sigma) ** 2 + mix.d**2 == pytest.approx(sigma**2, rel=1e-14)
    # The first order in k is the step δ·∇log p + √(2δ)·z with δ = k·σ².
    if step < 1e-3:
        assert mix.a == pytest.approx(1 - step, abs=step**2)
        assert mix.d**2 == pytest.approx(2 * step * sigma**2, rel=2 * step)
    variance = 5.0
    for _ in range(math.ceil(20 / step) if step > 1e-3 else 0):
        variance = mix.a**2 * variance + mix.d**2
        assert variance == pytest.approx(sigma**2, rel=5) or step < 1
    if step > 1e-3:
        assert variance == pytest.approx(sigma**2, rel=1e-12)


def langevin_moves(at: Level, step: float) -> list[Move]:
    path = Level(
        torch.stack([at.alpha, at.alpha.new_ones(())]), torch.stack([at.sigma, at.sigma * 0])
    )
    return langevin(1, step).moves(path)[:1]


@pytest.mark.parametrize("levels", FEW_TABLES)
@pytest.mark.parametrize("spec", ["ddpm:variance=posterior", "ddim:eta=1.0", "dpmpp_2m_sde"])
def test_ancestral_steps_draw_from_the_posterior(spec: str, levels: str) -> None:
    """One step with the true x_0 is q(x_s | x_t, x_0), as the forward process defines it."""
    s = table(levels)
    x_0, x_t = torch.tensor([[0.3]]).double(), torch.tensor([[1.1]]).double()
    for t in range(1, s.T + 1):
        path = Level(s.alpha[[t, t - 1]], s.sigma[[t, t - 1]])
        q = posterior(s[t - 1], s[t], x_0, x_t)
        ((_, mean, _),) = run(spec, lambda x, _: x_0, x_t, path, lambda k: x_t * 0)
        ((_, moved, _),) = run(spec, lambda x, _: x_0, x_t, path, lambda k: x_t * 0 + 1)
        torch.testing.assert_close(mean, q.mean, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close((moved - mean).square(), q.var.view(1, 1), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("levels", FEW_TABLES)
@pytest.mark.parametrize("spec", [s for s in SPECS if s not in ADAPTIVE])
def test_coefficients_are_numbers(spec: str, levels: str) -> None:
    for move in linear_sampler(spec).moves(downwards(table(levels))):
        for mix in (move.to, move.ask):
            if mix is not None:
                assert all(type(c) is float for c in (mix.a, mix.b, *mix.c, mix.d))
                assert all(math.isfinite(c) for c in (mix.a, mix.b, *mix.c, mix.d))


@pytest.mark.parametrize("levels", ["linear:T=12", "flow:T=12", "karras:T=12", "jsd:T=1"])
@pytest.mark.parametrize(
    ("spec", "same"),
    [
        ("ddim:eta=1.0", "ddpm"),
        ("ddim", "euler"),
        ("ddim", "adams:order=1"),
        ("dpmpp_2m", "dpmpp_2m_sde:eta=0.0"),
        ("ddim:eta=0.3", "pc:eta=0.3,corrections=0"),
    ],
)
def test_two_names_for_one_method(spec: str, same: str, levels: str) -> None:
    s = table(levels)
    for one, other in zip(
        sample(exact, sampler(spec), s, 6, (2,), seed=3),
        sample(exact, sampler(same), s, 6, (2,), seed=3),
        strict=True,
    ):
        torch.testing.assert_close(one.x, other.x, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("levels", FEW_TABLES)
@pytest.mark.parametrize("spec", SPECS)
def test_the_last_step_lands_on_x_0_hat(spec: str, levels: str) -> None:
    s = table(levels)
    answers: list[Tensor] = []

    def spy(x: Tensor, level: Level) -> Tensor:
        answers.append(exact(x, level))
        return answers[-1]

    steps = list(sample(spy, sampler(spec), s, 5, (2,), seed=1))
    assert [step.t for step in steps] == list(range(s.T, -1, -1))
    last = steps[-1]
    if not spec.startswith("langevin"):  # which asks more than once at its last level
        assert last.x_0_hat is not None
        assert torch.equal(last.x, last.x_0_hat)
    assert torch.equal(last.x, answers[-1])
    assert all(step.x.isfinite().all() for step in steps)


@pytest.mark.parametrize("spec", [s for s in SPECS if "churn" not in s])
def test_a_step_tells_what_was_said_of_the_x_before(spec: str) -> None:
    s = S.flow(6)
    for before, after in pairwise(sample(exact, sampler(spec), s, 5, (2,), seed=1)):
        said = exact(before.x, s[before.t])
        torch.testing.assert_close(after.x_0_hat, said, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("spec", SPECS)
def test_the_same_trajectory_in_every_scale(spec: str) -> None:
    """x_t/√(α_t² + σ_t²) does not depend on the scale: variance-preserving, exploding, flow."""
    plain = S.linear(7)
    z = keyed_noise(4, 0, 0, 8, (2,)).double()
    runs = []
    for s in (plain, plain.to_ve(), plain.to_flow()):
        steps = sample(exact, sampler(spec), s, 8, (2,), seed=4, start=torch.hypot(*s[s.T]) * z)
        runs.append([step.x / torch.hypot(*s[step.t]) for step in steps])
    for other in runs[1:]:
        torch.testing.assert_close(torch.stack(other), torch.stack(runs[0]), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("spec", SPECS)
def test_the_same_trajectory_for_eps_x_0_and_v(spec: str) -> None:
    """A model of ε, v or the flow's velocity, turned into x̂_0 by its definition alone."""

    def of_eps(x: Tensor, level: Level) -> Tensor:
        alpha, sigma = of_items(level, x)
        eps = (x - alpha * exact(x, level)) / sigma
        return (x - sigma * eps) / alpha

    def of_v(x: Tensor, level: Level) -> Tensor:
        alpha, sigma = of_items(level, x)
        v = alpha * (x - alpha * exact(x, level)) / sigma - sigma * exact(x, level)
        return (alpha * x - sigma * v) / (alpha**2 + sigma**2)

    def of_velocity(x: Tensor, level: Level) -> Tensor:
        alpha, sigma = of_items(level, x)
        u = (x - alpha * exact(x, level)) / sigma - exact(x, level)
        return (x - sigma * u) / (alpha + sigma)

    s = S.linear(6)
    start = keyed_noise(5, 0, 0, 8, (2,)).double()
    *_, plain = sample(exact, sampler(spec), s, 8, (2,), seed=5, start=start)
    for wrapped in (of_eps, of_v, of_velocity):
        *_, last = sample(wrapped, sampler(spec), s, 8, (2,), seed=5, start=start)
        torch.testing.assert_close(last.x, plain.x, rtol=1e-8, atol=1e-9)


# --- orders of convergence, in float64, between log-SNR −1 and 4


def even(u: Tensor) -> Tensor:
    return 1.5 + 2.5 * u


def bent(u: Tensor) -> Tensor:
    """Closer together in the middle, so that no two steps are alike."""
    return 1.5 + 2.5 * (0.4 * u + 0.6 * u**3)


GRIDS = pytest.mark.parametrize("grid", [even, bent])
STARTS = torch.tensor([[-1.7], [-0.4], [0.3], [1.9]], dtype=torch.float64)


def grid_of(grid: Callable[[Tensor], Tensor], n: int, before: int = 0) -> Level:
    """n steps from u = −1 to 1, and some levels before them."""
    return vp(grid(-1 + 2 * torch.arange(-before, n + 1, dtype=torch.float64) / n))


def at(path: Level, i: int) -> Level:
    return Level(path.alpha[i], path.sigma[i])


def slope(errors: list[float], sizes: tuple[int, int]) -> float:
    return math.log(errors[0] / errors[1]) / math.log(sizes[1] / sizes[0])


# Methods whose next order is nearly as large: they come near their own late.
FINE = {"adams:order=4": (640, 1280), "unipc:order=3,variant=bh1": (640, 1280)}


@GRIDS
@pytest.mark.parametrize("spec", ODES)
def test_order_end_to_end(spec: str, grid: Callable[[Tensor], Tensor]) -> None:
    """With the method's own start; the truth is a quantile, not another solver."""
    sizes, errors = FINE.get(spec, (160, 320)), []
    for n in sizes:
        path = grid_of(grid, n)
        *_, (i, x, _) = run(spec, two_humps, STARTS, path, None)
        assert i == n
        truth = flow_of_two_humps(STARTS, at(path, 0), at(path, n))
        errors.append((x - truth).abs().max().item())
    assert slope(errors, sizes) == pytest.approx(ODES[spec], abs=0.15)


HISTORY = {
    "dpmpp_2m": 2,
    "dpmpp_3m": 3,
    "adams:order=2": 2,
    "adams:order=3": 3,
    "adams:order=4": 4,
    "unipc:order=1,variant=bh2": 2,
    "unipc:order=2,variant=bh1": 3,
    "unipc:order=2,variant=bh2": 3,
    "unipc:order=3,variant=bh1": 4,
    "unipc:order=3,variant=bh2": 4,
}


def run_with_exact_history(moves: list[Move], path: Level, before: int) -> Tensor:
    """x at the path's end, from x and earlier answers that are true.

    The path begins `before` levels early. Up to its level number `before` state and answers are
    those of the true flow, and the moves are made from there on. The first of UniPC's moves would
    correct x, which is true already: only its prediction is made.
    """
    here = at(path, before)
    x = STARTS
    answers = [
        two_humps(flow_of_two_humps(x, here, at(path, i)), at(path, i))
        for i in range(before - 1, -1, -1)
    ]
    question = x
    for i, move in enumerate(moves[before:]):
        assert move.at is not None
        answers = [two_humps(question, move.at), *answers]
        if move.to is not None and not (i == 0 and move.ask is not None):
            x = combine(move.to, x, answers, None)
        question = x if move.ask is None else combine(move.ask, x, answers, None)
    return question


@GRIDS
@pytest.mark.parametrize("spec", HISTORY)
def test_order_with_exact_history(spec: str, grid: Callable[[Tensor], Tensor]) -> None:
    """What the method's formula is worth, whatever its start."""
    before, sizes, errors = 3, (160, 320), []
    for n in sizes:
        path = grid_of(grid, n, before)
        x = run_with_exact_history(linear_sampler(spec).moves(path), path, before)
        truth = flow_of_two_humps(STARTS, at(path, before), at(path, n + before))
        errors.append((x - truth).abs().max().item())
    assert slope(errors, sizes) == pytest.approx(HISTORY[spec], abs=0.15)


@pytest.mark.parametrize(
    "H", [1e-9, 0.01, 0.5, 1.999, 2.001, 30.0, 700.0, -0.3, -1.99, -2.01, -9.0]
)
def test_moments_of_the_exponential(H: float) -> None:
    """∫_0^1 H·e^(−H(1−u))·u^k du by Gauss–Legendre, and every weight right for a cubic."""
    import numpy as np

    # Where |H| is large all weight is near one end: the nodes are put there.
    edge = min(1.0, 40 / abs(H))
    low = 1 - edge if H > 0 else 0.0
    u, w = np.polynomial.legendre.leggauss(60)
    u, w = low + edge * (u + 1) / 2, w * edge / 2
    wanted = [(H * np.exp(-H * (1 - u)) * u**k * w).sum() for k in range(4)]
    found = moments(torch.tensor([H], dtype=torch.float64), 4)
    torch.testing.assert_close(found[0].tolist(), wanted, rtol=1e-11, atol=0.0)
    nodes = torch.tensor([[1.0, 0.0, -0.7, -2.0]], dtype=torch.float64)
    cubic = 3 - nodes + 2 * nodes**2 - 0.5 * nodes**3
    total = (weights(found, nodes) * cubic).sum().item()
    by_hand = 3 * wanted[0] - wanted[1] + 2 * wanted[2] - 0.5 * wanted[3]
    assert total == pytest.approx(by_hand, rel=1e-9)


def test_how_many_answers_a_step_counts() -> None:
    inf = math.inf
    lam = torch.tensor([-inf, -2, -1, 0, 1, inf], dtype=torch.float64)
    assert counts(lam, 3) == [1, 1, 2, 3, 1]
    assert counts(lam[1:], 2) == [1, 2, 2, 1]
    assert counts(lam[[0, 5]], 3) == [1]


@pytest.mark.parametrize("spec", ["dpmpp_3m", "adams:order=3", "adams:order=4"])
def test_a_start_made_good_is_exact_for_a_line(spec: str) -> None:
    """x̂_0 = l, l = log(α/σ) (for Adams: σ/α = 1/u), whatever x is; from the second step on.

    d(x/σ)/du = x̂_0, and ∫ l·e^l dl = (l − 1)·e^l, ∫ du/u = log u.
    """
    path = grid_of(bent, 6)
    u = path.alpha / path.sigma

    def line(x: Tensor, level: Level) -> Tensor:
        v = level.alpha / level.sigma
        return torch.zeros_like(x) + (1 / v if spec.startswith("adams") else v.log())

    total = u.log() if spec.startswith("adams") else (u.log() - 1) * u
    for i, x, _ in run(spec, line, STARTS, path, None):
        if i > 1:
            truth = path.sigma[i] * (STARTS / path.sigma[0] + total[i] - total[0])
            torch.testing.assert_close(x, truth, rtol=1e-12, atol=1e-12)


# --- the adaptive solve


@pytest.mark.parametrize("tolerance", [1e-2, 1e-4, 1e-6, 1e-8, 1e-10])
def test_adaptive_error_follows_the_tolerance(tolerance: float) -> None:
    path = vp(torch.tensor([-1.0, 4.0], dtype=torch.float64))
    spec = f"adaptive:rtol={tolerance},atol={tolerance}"
    ((_, x, _),) = run(spec, two_humps, STARTS, path, None)
    error = (x - flow_of_two_humps(STARTS, at(path, 0), at(path, 1))).abs().max().item()
    assert 0.02 * tolerance < error < 5 * tolerance


@pytest.mark.parametrize("levels", ["flow:T=4", "jsd:T=9", "karras:T=3", "linear:T=5"])
def test_adaptive_follows_the_flow_from_pure_noise(levels: str) -> None:
    s = table(levels)
    z = torch.tensor([[-1.2], [0.4], [2.0]], dtype=torch.float64)
    spec = "adaptive:rtol=1e-9,atol=1e-9"
    for step in sample(exact, sampler(spec), s, 3, (1,), seed=0, start=quantile(s, s.T, z)):
        if step.t:
            torch.testing.assert_close(step.x, quantile(s, step.t, z), rtol=1e-7, atol=1e-7)


def test_adaptive_items_take_their_own_steps() -> None:
    """The same beside others, and each is asked at levels of its own."""
    s = S.flow(3)
    solve = sampler("adaptive:rtol=1e-8,atol=1e-8")
    start = torch.linspace(-2, 2, 7, dtype=torch.float64)[:, None]
    seen: list[Tensor] = []

    def spy(x: Tensor, level: Level) -> Tensor:
        seen.append(level.alpha)
        return two_humps(x, level)

    steps = list(sample(spy, solve, s, 7, (1,), seed=0, start=start))
    assert steps[-1].nfe == len(seen)
    assert any(len(alpha) > 1 and alpha.unique().numel() > 1 for alpha in seen if alpha.ndim)
    for i in range(7):
        alone = list(sample(two_humps, solve, s, 1, (1,), seed=0, start=start[i : i + 1]))
        for one, all_items in zip(alone, steps, strict=True):
            # Not bit for bit: exp and log have other last digits in longer vectors.
            torch.testing.assert_close(one.x[0], all_items.x[i], rtol=0, atol=1e-12)


def test_adaptive_error_is_a_mean_over_an_item() -> None:
    """The same number a hundred times over is solved in the same steps."""
    calls = []
    for numbers in (1, 100):
        start = torch.full((1, numbers), 0.8, dtype=torch.float64)
        made = sampler("adaptive:rtol=1e-7,atol=1e-7")
        *_, last = sample(exact, made, S.flow(3), 1, (numbers,), seed=0, start=start)
        calls.append(last.nfe)
    assert calls[0] == calls[1]


def test_adaptive_says_when_it_cannot_get_through() -> None:
    """A denoiser that jumps faster than any step: no endless loop."""

    def wild(x: Tensor, level: Level) -> Tensor:
        return 1e9 * torch.sin(1e9 * x)

    start, solve = torch.ones(2, 1, dtype=torch.float64), sampler("adaptive:rtol=1e-9,atol=1e-9")
    with pytest.raises(ValueError, match=r"rtol = 1e-09, atol = 1e-09: raise them"):
        list(sample(wild, solve, S.flow(3), 2, (1,), seed=0, start=start))


def test_adaptive_refuses_what_the_dtype_cannot_resolve() -> None:
    """It would not end: the error it sees is rounding, whatever the step."""
    with pytest.raises(ValueError, match=r"atol = 1e-08: torch.float32 resolves no error below"):
        list(sample(exact, sampler("adaptive:rtol=1e-8,atol=1e-8"), S.flow(3), 2, (1,), seed=0))


# --- the loop


@pytest.mark.parametrize("levels", ["linear:T=9", "flow:T=9", "cosine:T=1", "karras:T=2"])
@pytest.mark.parametrize("spec", SPECS)
def test_calls_are_counted(spec: str, levels: str) -> None:
    s, calls = table(levels), 0

    def spy(x: Tensor, level: Level) -> Tensor:
        nonlocal calls
        calls += 1
        return exact(x, level)

    for step in sample(spy, sampler(spec), s, 3, (2,), seed=0):
        assert step.nfe == calls
    made = sampler(spec)
    if isinstance(made, LinearSampler):
        assert nfe_of(made, s) == calls
    finite = sum(math.isfinite(v) for v in s.log_snr[1:].tolist())
    name = spec.partition(":")[0]
    if name == "heun":
        assert calls == s.T + finite - 1
    elif name in {"ddpm", "ddim", "euler", "adams", "unipc"} or name.startswith("dpmpp"):
        assert calls == s.T
    elif name == "langevin":
        assert calls == 5 * s.T + 1
    elif spec == "pc":
        assert calls == 2 * s.T - 1


def test_the_loop() -> None:
    s = S.linear(5)
    seen: list[float] = []

    def spy(x: Tensor, level: Level) -> Tensor:
        seen.append(level.alpha_bar.item())
        return exact(x, level)

    steps = list(sample(spy, sampler("ddpm"), s, 3, (2,), seed=0))
    assert [step.t for step in steps] == [5, 4, 3, 2, 1, 0]
    assert seen == s.alpha_bar[1:].flip(0).tolist()  # every level once, T first, never level 0
    assert steps[0].x_0_hat is None
    assert torch.equal(steps[0].x, keyed_noise(0, 0, 0, 3, (2,)))


@pytest.mark.parametrize("spec", SPECS)
def test_no_step_overwrites_another(spec: str) -> None:
    """Trajectories are kept by those who draw: an x that was handed out stays as it was."""
    s = S.flow(6)
    steps, copies = [], []
    for step in sample(exact, sampler(spec), s, 3, (2,), seed=0):
        steps.append(step)
        copies.append((step.x.clone(), None if step.x_0_hat is None else step.x_0_hat.clone()))
    for step, (x, x_0_hat) in zip(steps, copies, strict=True):
        assert torch.equal(step.x, x)
        assert x_0_hat is None or (step.x_0_hat is not None and torch.equal(step.x_0_hat, x_0_hat))


def test_a_start_is_not_overwritten() -> None:
    start = torch.full((3, 2), 0.25)
    for spec in SPECS:
        list(sample(exact, sampler(spec), S.flow(4), 3, (2,), seed=0, start=start))
        assert torch.equal(start, torch.full((3, 2), 0.25)), spec


@pytest.mark.parametrize("spec", SPECS)
def test_nothing_is_done_before_it_is_asked_for(spec: str) -> None:
    calls = 0

    def spy(x: Tensor, level: Level) -> Tensor:
        nonlocal calls
        calls += 1
        return exact(x, level)

    steps = sample(spy, sampler(spec), S.linear(6), 2, (1,), seed=0)
    next(steps)
    assert calls == 0
    step = next(steps)
    assert step.t == 5
    assert step.nfe == calls > 0


@pytest.mark.parametrize("spec", SPECS)
def test_items_do_not_depend_on_their_batch(spec: str) -> None:
    # Blocks of noise hold 2¹² numbers: the second part lies across their border.
    s = S.linear(6)
    *_, whole = sample(exact, sampler(spec), s, 8300, (2,), seed=8)
    *_, part = sample(exact, sampler(spec), s, 150, (2,), seed=8, first=8100)
    torch.testing.assert_close(part.x, whole.x[8100:8250], rtol=0, atol=1e-6)


@pytest.mark.parametrize("spec", SPECS)
def test_every_draw_of_noise_has_its_own_key(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw 0 is the start; then 1, 2, …, each once, for these items."""
    keys: list[tuple[object, ...]] = []

    def spy(*key: object) -> Tensor:
        keys.append(key)
        return keyed_noise(*key)  # type: ignore[arg-type]

    monkeypatch.setattr(base, "keyed_noise", spy)
    list(sample(exact, sampler(spec), S.linear(5), 3, (2,), seed=11, first=40))
    assert keys == [(11, draw, 40, 3, (2,)) for draw in range(len(keys))]
    noisy = spec not in ODES and spec not in ADAPTIVE and spec != "dpmpp_2m_sde:eta=0.0"
    assert (len(keys) > 1) == noisy


def test_noise_is_fresh_at_every_step() -> None:
    """With a denoiser that says 0, x_{t-1} − a·x_t is d·z: recover the z and compare.

    The largest of 435 correlations of 4,000 pairs exceeds 6/√4000 once in a million seeds.
    """
    s = S.linear(30)
    made = linear_sampler("ddpm")
    steps = list(sample(lambda x, _: torch.zeros_like(x), made, s, 4000, (1,), seed=1))
    drawn = [steps[0].x.flatten()]
    for i, move in enumerate(made.moves(downwards(s))[:-1]):
        assert move.to is not None
        drawn.append(((steps[i + 1].x - move.to.a * steps[i].x) / move.to.d).flatten())
        keyed = keyed_noise(1, i + 1, 0, 4000, (1,)).flatten()
        torch.testing.assert_close(drawn[-1], keyed, rtol=1e-3, atol=1e-3)
    correlation = torch.corrcoef(torch.stack(drawn))
    assert (correlation - torch.eye(len(drawn))).abs().max() < 6 / math.sqrt(4000)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_all_is_computed_in_the_dtype_of_the_start(spec: str, dtype: torch.dtype) -> None:
    def spy(x: Tensor, level: Level) -> Tensor:
        assert x.dtype == dtype
        return exact(x, level)

    start = keyed_noise(0, 0, 0, 3, (2,)).to(dtype)
    for step in sample(spy, sampler(loose(spec, dtype)), S.flow(5), 3, (2,), seed=0, start=start):
        assert step.x.dtype == dtype
        assert step.x_0_hat is None or step.x_0_hat.dtype == dtype
        assert step.x.isfinite().all()


def loose(spec: str, dtype: torch.dtype) -> str:
    """No solve can follow a tolerance below its dtype's."""
    lax = {
        torch.float64: spec,
        torch.float32: ADAPTIVE[0],
        torch.bfloat16: "adaptive:rtol=0.1,atol=0.1",
    }
    return lax[dtype] if spec in ADAPTIVE else spec


@pytest.mark.parametrize("shape", [(1000,), (3, 4, 4), ()])
@pytest.mark.parametrize("spec", SPECS)
def test_items_of_any_shape(spec: str, shape: tuple[int, ...]) -> None:
    """Every number of an item goes its own way here, so it is that of a flat item."""
    s, numbers = S.flow(3), math.prod(shape)
    steps = list(sample(exact, sampler(spec), s, 2, shape, seed=6))
    flat = list(sample(exact, sampler(spec), s, 2, (numbers,), seed=6))
    for step, other in zip(steps, flat, strict=True):
        assert step.x.shape == (2, *shape)
        torch.testing.assert_close(step.x.reshape(2, numbers), other.x)


@pytest.mark.parametrize("scale", [1e-8, 1e8])
@pytest.mark.parametrize("spec", [s for s in SPECS if s not in BIASED])
def test_data_of_any_scale(spec: str, scale: float) -> None:
    """Gaussian data and a schedule of its scale: the draw is that of the scale 1, times it."""
    atol = {1e-8: "1e-12", 1e8: "1"}[scale]
    made = sampler(f"adaptive:rtol=1e-4,atol={atol}" if spec in ADAPTIVE else spec)
    if spec == "euler:churn=20,low=0.05,high=20.0":
        made = sampler(f"euler:churn=20,low={0.05 * scale},high={20 * scale}")
    s = S.log_linear(50, 0.01 * scale, 100 * scale)
    # The plain start is made for data of variance 1: √(1 + σ_T²) would be far above 1e-6 here.
    start = Normal(torch.tensor([MEAN * scale]), torch.tensor([[(STD * scale) ** 2]]).double())
    denoiser = normal_data(MEAN * scale, STD * scale)
    *_, last = sample(denoiser, made, s, 4000, (1,), seed=3, start=start)
    assert last.x.isfinite().all()
    # 4,000 draws: ±0.04 is five standard deviations of the mean, seven of the spread (1e-6 of
    # seeds); the rest is for 60 steps, of which annealed Langevin makes the least.
    assert last.x.mean().item() / scale == pytest.approx(MEAN, abs=0.06)
    assert last.x.std().item() / scale == pytest.approx(STD, abs=0.06)


@pytest.mark.parametrize("spec", [s for s in SPECS if s not in BIASED])
def test_exact_denoiser_gives_the_data_back(spec: str) -> None:
    """From pure noise at ᾱ_T = 0."""
    *_, last = sample(exact, sampler(spec), S.flow(100), 4000, (1,), seed=2)
    # As above; ancestral steps cost about 4 % of the spread at T = 100.
    assert last.x.mean().item() == pytest.approx(MEAN, abs=0.06)
    assert last.x.std().item() == pytest.approx(STD, abs=0.06)


# --- where sampling starts

COV = torch.tensor([[1.0, 0.6, -0.2], [0.6, 0.5, 0.1], [-0.2, 0.1, 0.7]], dtype=torch.float64)
CENTRE = torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)
# x lies on a plane through the centre: the last number is the sum of the others.
FLAT = torch.tensor([[1.0, 0.3, 1.3], [0.3, 0.4, 0.7], [1.3, 0.7, 2.0]], dtype=torch.float64)


def surprise(x: Tensor, mean: Tensor, cov: Tensor) -> tuple[float, float]:
    """How unlikely the mean and covariance of x are, as chances under N(mean, cov).

    Hotelling's statistic, χ² with d degrees of freedom; and the likelihood ratio of the covariance,
    χ² with d(d+1)/2 for many x.
    """
    n, d = x.shape
    precision = torch.linalg.inv(cov)
    apart = x.mean(0) - mean
    ratio = precision @ x.T.cov()
    by_mean = n * (apart @ precision @ apart)
    by_cov = n * (ratio.trace() - torch.linalg.slogdet(ratio).logabsdet - d)
    return float(chi2.sf(by_mean, d)), float(chi2.sf(by_cov, d * (d + 1) / 2))


@pytest.mark.parametrize("cov", [COV, FLAT])
@pytest.mark.parametrize("levels", ["linear:T=100", "linear:T=100 ve", "flow:T=5", "karras:T=3"])
def test_a_start_that_matches_the_moments(levels: str, cov: Tensor) -> None:
    """x_T of N(α·mean, α²·cov + σ²·I): false alarm for two seeds in a million."""
    s = table(levels.removesuffix(" ve"))
    s = s.to_ve() if levels.endswith("ve") else s
    data = Normal(CENTRE, cov)
    start = next(sample(exact, sampler("heun"), s, 20_000, (3,), seed=9, start=data))
    top = s[s.T]
    chances = surprise(
        start.x.double(),
        top.alpha * CENTRE,
        top.alpha**2 * cov + top.sigma**2 * torch.eye(3, dtype=torch.float64),
    )
    assert min(chances) > 1e-6


def test_a_start_that_matches_keeps_to_its_items() -> None:
    """Each item has its own noise, whatever the batch."""
    data, s = Normal(CENTRE.view(3, 1), COV), S.linear(100)
    whole = next(sample(exact, sampler("ddim"), s, 50, (3, 1), seed=9, start=data)).x
    part = next(sample(exact, sampler("ddim"), s, 10, (3, 1), seed=9, first=20, start=data)).x
    torch.testing.assert_close(part, whole[20:30])
    assert whole.shape == (50, 3, 1)
    assert whole.dtype == torch.float32
    assert whole.is_contiguous()
    # Where nothing is left of the data it is the plain start.
    plain = next(sample(exact, sampler("ddim"), S.flow(5), 50, (3, 1), seed=9)).x
    none = next(sample(exact, sampler("ddim"), S.flow(5), 50, (3, 1), seed=9, start=data)).x
    torch.testing.assert_close(none, plain)


def gaussian_3d(x: Tensor, level: Level) -> Tensor:
    alpha, sigma = of_items(level, x.double())
    values, vectors = torch.linalg.eigh(COV)
    gain = (vectors * (alpha * values / (alpha**2 * values + sigma**2))[..., None, :]) @ vectors.T
    apart = (x.double() - alpha * CENTRE)[:, None, :]
    return (CENTRE + (apart @ gain)[:, 0]).to(x.dtype)


@pytest.mark.parametrize("spec", ["heun", "dpmpp_3m", "adaptive"])
def test_moment_matched_samples_have_the_moments_of_the_data(spec: str) -> None:
    """On a schedule that stops at ᾱ_T = 0.36, where N(0, I) is a wrong start.

    False alarm for two seeds in a million.
    """
    s = S.linear(100)
    every = [0, 1, 100] if spec == "adaptive" else list(range(101))
    s = Schedule(s.alpha[every], s.sigma[every])
    assert s.alpha_bar[-1] > 0.3
    made, n = sampler(spec), 5000
    *_, last = sample(gaussian_3d, made, s, n, (3,), seed=5, start=Normal(CENTRE, COV))
    assert min(surprise(last.x.double(), CENTRE, COV)) > 1e-6
    *_, plain = sample(gaussian_3d, made, s, n, (3,), seed=5)
    assert max(surprise(plain.x.double(), CENTRE, COV)) < 1e-20


def test_normal_of_data() -> None:
    x_0 = torch.tensor([[[0.0, 1.0]], [[2.0, 1.0]], [[4.0, 7.0]]])
    data = Normal.of(x_0)
    assert data.mean.tolist() == [[2.0, 3.0]]
    torch.testing.assert_close(data.cov, torch.tensor([[8.0, 12.0], [12.0, 24.0]]).double() / 3)
    assert data.cov.dtype == data.mean.dtype == torch.float64


def test_a_plain_start() -> None:
    """√(α_T² + σ_T²)·z, in any scale."""
    z = keyed_noise(2, 0, 5, 4, (2,))
    for s in (S.linear(7), S.linear(7).to_ve(), S.linear(7).to_flow(), S.flow(3)):
        first = next(sample(exact, sampler("ddim"), s, 4, (2,), seed=2, first=5))
        torch.testing.assert_close(first.x, (z * torch.hypot(*s[s.T])).float())
        assert first.t == s.T
        assert first.nfe == 0


# --- inversion

TO_NOISE = [
    "ddim",
    "heun",
    "dpmpp_2m",
    "dpmpp_3m",
    "unipc",
    "adams",
    "adaptive:rtol=1e-8,atol=1e-8",
]


def inverted(spec: str, s: Schedule, x_0: Tensor) -> Step:
    steps = list(invert(exact, sampler(spec), s, x_0))
    assert [step.t for step in steps] == list(range(s.T + 1))
    assert torch.equal(steps[0].x, x_0)
    return steps[-1]


@pytest.mark.parametrize(("spec", "order"), [("ddim", 1), ("heun", 2), ("dpmpp_2m", 2)])
def test_inversion_has_the_order_of_its_method(spec: str, order: int) -> None:
    """The noise reached is the quantile that the data came from, up to the method's error."""
    z = torch.tensor([[-1.5], [0.2], [0.9]], dtype=torch.float64)
    errors = []
    for n in (160, 320):
        s = S.log_snr(n, 14.0, -6.0)
        reached = inverted(spec, s, MEAN + STD * z)
        errors.append((reached.x - quantile(s, s.T, z)).abs().max().item())
    assert slope(errors, (160, 320)) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("levels", ["log_snr:T=200,start=16,end=-8", "flow:T=200", "karras:T=200"])
@pytest.mark.parametrize("spec", TO_NOISE)
def test_round_trip(spec: str, levels: str) -> None:
    """x → noise → x."""
    s = table(levels)
    if spec.startswith("adaptive"):
        s = Schedule(s.alpha[[0, 1, 100, 200]], s.sigma[[0, 1, 100, 200]])
    x_0 = torch.tensor([[-0.1, 0.5], [0.9, 1.6]], dtype=torch.float64)
    reached = inverted(spec, s, x_0)
    *_, back = sample(exact, sampler(spec), s, 2, (2,), seed=0, start=reached.x)
    # DDIM's first order at 200 steps; the flow's last step to α = 0 is a long one for all.
    near = {"ddim": 5e-2}.get(spec, 2e-3)
    torch.testing.assert_close(back.x, x_0, rtol=0, atol=near)


def test_inversion_to_the_tolerance() -> None:
    z = torch.tensor([[-1.5], [0.2], [0.9]], dtype=torch.float64)
    s = S.log_snr(3, 18.0, -6.0)
    for tolerance in (1e-4, 1e-6):
        reached = inverted(f"adaptive:rtol={tolerance},atol={tolerance}", s, MEAN + STD * z)
        torch.testing.assert_close(reached.x, quantile(s, s.T, z), rtol=0, atol=20 * tolerance)


def test_the_first_step_of_inversion_solves_for_x_0_hat() -> None:
    """x̂_0(x_1) = x_0 up to the second order in σ_1², in any scale."""
    x_0 = torch.tensor([[-0.1], [1.6]], dtype=torch.float64)
    for s in (S.linear(10), S.linear(10).to_ve(), S.linear(10).to_flow()):
        step = list(invert(exact, sampler("ddim"), s, x_0))[1]
        small = (s.sigma[1] / s.alpha[1] / STD).item() ** 2
        error = (exact(step.x, s[1]) - x_0).abs().max().item()
        assert error < 4 * small**2
        assert step.nfe == 1


@pytest.mark.parametrize("levels", ["cosine:T=1", "flow:T=2", "karras:T=1"])
@pytest.mark.parametrize("spec", TO_NOISE)
def test_inversion_on_few_levels(spec: str, levels: str) -> None:
    x_0 = torch.tensor([[-0.1], [1.6]], dtype=torch.float64)
    assert inverted(spec, table(levels), x_0).x.isfinite().all()


def test_inversion_needs_a_level_with_data_in_it() -> None:
    with pytest.raises(ValueError, match="nothing is left of the data at t = 1"):
        next(invert(exact, sampler("ddim"), table("flow:T=1"), torch.zeros(2, 1)))


@pytest.mark.parametrize("spec", [s for s in SPECS if s not in ODES and s not in ADAPTIVE])
def test_noise_cannot_be_undone(spec: str) -> None:
    x_0 = torch.zeros(2, 1)
    if spec == "dpmpp_2m_sde:eta=0.0":
        list(invert(exact, sampler(spec), S.linear(4), x_0))
        return
    with pytest.raises(ValueError, match="adds noise, which cannot be undone, or knows"):
        next(invert(exact, sampler(spec), S.linear(4), x_0))


# --- what is refused


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda x, _: x[:, :1], r"at t = 5 the denoiser returned torch.float32 of shape \(3, 1\)"),
        (
            lambda x, _: x.double(),
            r"at t = 5 the denoiser returned torch.float64 of shape \(3, 2\)",
        ),
        (lambda x, _: x * math.nan, "at t = 5 the denoiser returned NaN or inf"),
        (
            lambda x, level: x / 0 if (level.alpha_bar > 0.9995).any() else x,
            "at t = 1 the denoiser",
        ),
    ],
)
@pytest.mark.parametrize("spec", ["ddpm", "euler", "dpmpp_3m", "unipc", "adams", "langevin"])
def test_a_bad_denoiser_is_named(spec: str, answer: Denoiser, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(sample(answer, sampler(spec), S.linear(5), 3, (2,), seed=0))


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("bad", [5, 3, 1])
def test_the_level_of_a_bad_answer_is_named(spec: str, bad: int) -> None:
    """Also in the second stage of a step: the t is that of the step in which it happened."""
    s = S.linear(5)
    limit = s.log_snr[bad].item() - 1e-9

    def broken(x: Tensor, level: Level) -> Tensor:
        return exact(x, level) if (level.log_snr < limit).all() else x * math.nan

    stages = {bad, min(bad + 1, 5)}  # a second stage at s belongs to the step t → s
    if "churn" in spec:
        stages |= {3, 2, 1}  # asked at levels of more noise than the path's
    with pytest.raises(ValueError, match=r"at t = [0-9]+ the denoiser") as error:
        list(sample(broken, sampler(spec), s, 3, (2,), seed=0))
    assert int(str(error.value).split()[3]) in stages


def test_large_answers_are_not_inf() -> None:
    """Their sum overflows, they do not."""
    *_, last = sample(lambda x, _: x * 0 + 3e38, sampler("ddim"), S.linear(3), 5, (9,), seed=0)
    assert last.x.isfinite().all()


@pytest.mark.parametrize("n", [0, -1])
def test_n_is_positive(n: int) -> None:
    with pytest.raises(ValueError, match=f"n = {n}"):
        list(sample(exact, sampler("ddpm"), S.linear(5), n, (2,), seed=0))


def test_a_schedule_has_steps() -> None:
    with pytest.raises(ValueError, match="T = 0"):
        S.linear(0)
    with pytest.raises(ValueError, match="n = 0"):
        S.linear(5).spaced(0)


@pytest.mark.parametrize(
    "start", [torch.zeros(2, 2), torch.zeros(3), Normal(torch.zeros(3), torch.eye(3))]
)
def test_a_start_of_another_shape(start: Tensor | Normal) -> None:
    with pytest.raises(ValueError, match=r"start has .*shape \((2, 2|3,)\)"):
        next(sample(exact, sampler("ddim"), S.linear(3), 3, (2,), seed=0, start=start))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("ddim:eta=-0.1", "eta = -0.1"),
        ("ddim:eta=1.1", "eta = 1.1"),
        ("ddim:eta=nan", "eta = nan"),
        ("ddpm:variance=fixed", "variance = fixed: choose posterior, beta, learned"),
        ("euler:churn=-1", "churn = -1"),
        ("heun:low=-1", "low = -1"),
        ("heun:high=-1", "high = -1"),
        ("heun:low=3,high=2", "low = 3 > high = 2"),
        ("heun:inflate=0", "inflate = 0"),
        ("dpmpp_2m_sde:eta=2", "eta = 2"),
        ("dpmpp_3m_sde:eta=-1", "eta = -1"),
        ("unipc:order=0", "order = 0"),
        ("unipc:order=4", "order = 4"),
        ("unipc:variant=bh3", "variant = bh3: choose bh1 or bh2"),
        ("adams:order=0", "order = 0"),
        ("adams:order=5", "order = 5"),
        ("langevin:corrections=0", "corrections = 0"),
        ("langevin:step=0", "step = 0"),
        ("langevin:step=11", "step = 11"),
        ("pc:eta=1.5", "eta = 1.5"),
        ("pc:corrections=-1", "corrections = -1"),
        ("pc:step=0", "step = 0"),
        ("adaptive:rtol=0", "rtol = 0"),
        ("adaptive:atol=2", "atol = 2"),
    ],
)
def test_parameters_are_checked(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SAMPLERS.parse(spec)


# --- gradients: levels can be fitted through a run


FREE = torch.tensor([-3.0, -1.1, 0.4, 1.3, 3.7], dtype=torch.float64)


def ends_at(lam: Tensor, ends: str) -> Level:
    """Levels of these log-SNRs, with pure noise and clean data put at the ends."""
    free = vp(lam)
    zero, one = lam.new_zeros(1), lam.new_ones(1)
    if ends == "open":
        return free
    if ends == "clean":
        return Level(torch.cat([free.alpha, one]), torch.cat([free.sigma, zero]))
    return Level(torch.cat([zero, free.alpha, one]), torch.cat([one, free.sigma, zero]))


@pytest.mark.parametrize("ends", ["open", "clean", "both"])
@pytest.mark.parametrize(
    "spec", [*ODES, "ddim:eta=0.5", "ddpm", "ddpm:variance=beta", "dpmpp_3m_sde"]
)
def test_gradients_in_the_levels(spec: str, ends: str) -> None:
    """Autograd against central differences; σ = 0 and α = 0 at fixed ends give no NaN."""
    weight = torch.tensor([[1.0], [-0.3], [0.7], [0.2]], dtype=torch.float64)

    def loss(lam: Tensor) -> Tensor:
        path = ends_at(lam, ends)
        *_, (_, x, _) = run(spec, two_humps, STARTS, path, lambda k: torch.cos(k * STARTS))
        return (weight * x).sum()

    lam = FREE.clone().requires_grad_()
    value = loss(lam)
    (found,) = torch.autograd.grad(value, lam)
    torch.testing.assert_close(value.detach(), loss(FREE))  # the same with and without gradients
    h = 1e-5
    wanted = torch.stack(
        [(loss(FREE + e) - loss(FREE - e)) / (2 * h) for e in h * torch.eye(5, dtype=torch.float64)]
    )
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-8)


def test_slopes_agree_between_grids() -> None:
    """The errors behind the orders are those of the methods: each falls at every refinement."""
    for spec in ("heun", "dpmpp_3m", "unipc:order=3,variant=bh2"):
        errors = []
        for n in (20, 40, 80):
            path = grid_of(bent, n)
            *_, (_, x, _) = run(spec, two_humps, STARTS, path, None)
            truth = flow_of_two_humps(STARTS, at(path, 0), at(path, n))
            errors.append((x - truth).abs().max().item())
        assert all(fine < coarse / 2 for coarse, fine in pairwise(errors))


@pytest.mark.parametrize("spec", ["dpmpp_3m", "adams"])
def test_the_start_is_made_good_after_pure_noise_too(spec: str) -> None:
    """From ᾱ_T = 0 the first step has no length: it is the second that is made twice."""
    s = S.flow(6)
    path = Level(s.alpha.flip(0), s.sigma.flip(0))
    made = sampler(spec)
    assert isinstance(made, LinearSampler)
    assert [move.to is None for move in made.moves(path)] == [False, True, *[False] * 4]


def test_nothing_corrects_a_step_from_pure_noise() -> None:
    """UniPC's corrector of a step without length is its predictor: the answer at its start."""
    s = S.flow(6)
    path = Level(s.alpha.flip(0), s.sigma.flip(0))
    made = sampler("unipc")
    assert isinstance(made, LinearSampler)
    first, second, *_ = made.moves(path)
    assert first.ask is not None
    assert second.to is not None
    assert (second.to.a, second.to.b, second.to.c[0]) == (first.ask.a, 0.0, first.ask.b)


def test_adams_integrates_long_steps_exactly() -> None:
    """∫_0^h e^(−(h−w))·v dw for v = (1 − e^(−w))/(1 − e^(−h)), by hand, at h = 12."""
    path = vp(torch.tensor([-24.0, -23.0, 1.0], dtype=torch.float64))
    made = sampler("adams:order=2")
    assert isinstance(made, LinearSampler)
    mix = made.moves(path)[1].to
    assert mix is not None
    h = 12.0
    slope = (-math.expm1(-h) - h * math.exp(-h)) / -math.expm1(-h)  # of the line in v
    rho = path.sigma / path.alpha
    node = ((rho[0] - rho[1]) / (rho[2] - rho[1])).item()  # v of the answer before
    assert mix.c[0] == pytest.approx(path.alpha[2].item() * slope / node, rel=1e-9)
