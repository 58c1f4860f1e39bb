"""Samplers: coefficient laws, the oracle step, convergence, the loop."""

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from alphabar import schedule as S
from alphabar.forward import posterior
from alphabar.noise import keyed_noise
from alphabar.samplers import SAMPLERS, Sampler, sample
from alphabar.schedule import SCHEDULES, Level, Schedule

SPECS = ["ddim:eta=0.0", "ddim:eta=0.5", "ddpm", "dpmpp_2m"]
TABLES = ["linear:T=40", "jsd:T=25", "karras:T=30", "flow:T=20,shift=3.0", "cosine:T=1"]

# Data N(MEAN, STD²·I): its denoiser and its probability flow are known in closed form.
MEAN, STD = 0.7, 0.5


def sampler(spec: str) -> Sampler:
    made: Sampler = SAMPLERS.parse(spec)
    return made


def table(spec: str) -> Schedule:
    made: Schedule = SCHEDULES.parse(spec)
    return made


def exact(x: Tensor, level: Level) -> Tensor:
    """E[x_0 | x_t] for Gaussian data, by the product of two Gaussian densities."""
    alpha, sigma = level.alpha.to(x), level.sigma.to(x)
    precision = 1 / STD**2 + alpha**2 / sigma**2
    return (MEAN / STD**2 + alpha * x / sigma**2) / precision


@pytest.mark.parametrize("spec", SPECS)
def test_a_sampler_knows_its_spec(spec: str) -> None:
    assert sampler(spec).spec == spec


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("levels", TABLES)
def test_a_clean_item_stays_on_its_path(spec: str, levels: str) -> None:
    """With x_t = α_t·x_0 and every x̂_0 = x_0, x_s = α_s·x_0: a·α_t + b + Σc = α_s."""
    s = table(levels)
    moves = sampler(spec).moves(s)
    assert len(moves) == s.T
    for i, move in enumerate(moves):
        t = s.T - i
        total = move.a * s.alpha[t].item() + move.b + sum(move.c)
        assert total == pytest.approx(s.alpha[t - 1].item(), abs=1e-12)
        assert all(math.isfinite(v) for v in (move.a, move.b, *move.c, move.d))
    assert (moves[-1].a, moves[-1].b, sum(moves[-1].c), moves[-1].d) == (0, 1, 0, 0)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("levels", TABLES)
def test_oracle_step(spec: str, levels: str) -> None:
    """True x_0 and ε in: x_s has variance σ_s² about α_s·x_0, exactly, at every step."""
    s = table(levels)
    for i, move in enumerate(sampler(spec).moves(s)):
        t = s.T - i
        # x_t = α_t·x_0 + σ_t·ε, so the noise of x_s is a·σ_t·ε + d·z with ε, z independent.
        variance = (move.a * s.sigma[t].item()) ** 2 + move.d**2
        assert variance == pytest.approx(s.sigma[t - 1].item() ** 2, rel=1e-9, abs=1e-18)


@pytest.mark.parametrize("levels", TABLES)
def test_ddpm_draws_from_the_posterior(levels: str) -> None:
    """One step with the true x_0 is q(x_s | x_t, x_0), as the forward process defines it."""
    s = table(levels)
    x_0, x_t = torch.tensor([[0.3]]).double(), torch.tensor([[1.1]]).double()
    for i, move in enumerate(sampler("ddpm").moves(s)):
        t = s.T - i
        q = posterior(s[t - 1], s[t], x_0, x_t)
        mean = move.a * x_t + move.b * x_0
        torch.testing.assert_close(mean, q.mean, rtol=1e-9, atol=1e-12)
        assert move.d**2 == pytest.approx(q.var.item(), rel=1e-9, abs=1e-18)


def bent(n: int) -> Schedule:
    """n + 1 levels from λ = 6 to −6, closer together in the middle: no two steps are alike."""
    u = torch.linspace(-1, 1, n + 1, dtype=torch.float64)
    return S.from_log_snr(-6 * (0.4 * u + 0.6 * u**3))


@pytest.mark.parametrize("grid", [lambda n: S.log_snr(n + 1, 6.0, -6.0), bent])
@pytest.mark.parametrize(("spec", "order"), [("ddim", 1), ("dpmpp_2m", 2)])
def test_order_of_convergence(spec: str, order: int, grid: Callable[[int], Schedule]) -> None:
    """Error on the exact flow of Gaussian data, between two fixed levels, fitted over n."""
    errors = []
    for n in (80, 160, 320):
        s = grid(n)
        start = torch.tensor([[-1.2], [0.4], [2.0]], dtype=torch.float64)
        spread = torch.hypot(s.alpha * STD, s.sigma)  # std of x_t; the flow keeps its quantile
        x = s.alpha[-1] * MEAN + spread[-1] * start
        earlier: list[Tensor] = []
        for i, move in enumerate(sampler(spec).moves(s)[:-1]):
            x_0_hat = exact(x, s[s.T - i])
            x = move.a * x + move.b * x_0_hat
            for c, past in zip(move.c, earlier, strict=False):
                x = x + c * past
            earlier = [x_0_hat]
        truth = s.alpha[1] * MEAN + spread[1] * start
        errors.append((x - truth).abs().max().item())
    slopes = [math.log2(a / b) for a, b in pairwise(errors)]
    assert slopes == pytest.approx([order] * 2, abs=0.15)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize(
    "levels", ["linear:T=200,start=5e-4,end=0.1", "jsd:T=200", "karras:T=200", "flow:T=200"]
)
def test_exact_denoiser_gives_the_data_back(spec: str, levels: str) -> None:
    *_, last = sample(exact, sampler(spec), table(levels), 20_000, (1,), seed=2)
    # Discretisation costs ddpm about 2% of the spread at 200 steps, and eta in between less.
    assert last.x.mean().item() == pytest.approx(MEAN, abs=0.025)
    assert last.x.std().item() == pytest.approx(STD, abs=0.04)


def test_the_same_trajectory_in_every_scale() -> None:
    vp = S.linear(30)
    for spec in SPECS:
        ends = []
        for s in (vp, vp.to_ve(), vp.to_flow()):
            *_, last = sample(exact, sampler(spec), s, 50, (2,), seed=4)
            ends.append(last.x)
        torch.testing.assert_close(ends[1], ends[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(ends[2], ends[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("spec", SPECS)
def test_items_do_not_depend_on_their_batch(spec: str) -> None:
    s = S.linear(15)
    *_, whole = sample(exact, sampler(spec), s, 1500, (2,), seed=8)
    *_, part = sample(exact, sampler(spec), s, 300, (2,), seed=8, first=1000)
    torch.testing.assert_close(part.x, whole.x[1000:1300], rtol=0, atol=1e-6)


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
    assert steps[-1].x_0_hat is not None
    assert torch.equal(steps[-1].x, steps[-1].x_0_hat)
    assert len({step.x.data_ptr() for step in steps}) == 6  # no step overwrites another


def test_noise_is_fresh_at_every_step() -> None:
    """With a denoiser that says 0, x_{t-1} − a·x_t is d·z: recover the z and compare."""
    s = S.linear(30)
    steps = list(sample(lambda x, _: torch.zeros_like(x), sampler("ddpm"), s, 4000, (1,), seed=1))
    moves = sampler("ddpm").moves(s)
    drawn = [steps[0].x.flatten()]
    for i, move in enumerate(moves[:-1]):
        drawn.append(((steps[i + 1].x - move.a * steps[i].x) / move.d).flatten())
        keyed = keyed_noise(1, i + 1, 0, 4000, (1,)).flatten()  # the contract's (seed, item, step)
        torch.testing.assert_close(drawn[-1], keyed, rtol=1e-3, atol=1e-3)
    correlation = torch.corrcoef(torch.stack(drawn))
    assert (correlation - torch.eye(len(drawn))).abs().max() < 6 / math.sqrt(4000)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda x, _: x[:, :1], "at t = 5 the denoiser returned shape"),
        (lambda x, _: x * math.nan, "at t = 5 the denoiser returned NaN"),
        (lambda x, level: x / 0 if level.alpha_bar > 0.9995 else x, "at t = 1 the denoiser"),
    ],
)
def test_a_bad_denoiser_is_named(answer: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(sample(answer, sampler("ddpm"), S.linear(5), 3, (2,), seed=0))  # type: ignore[arg-type]


@pytest.mark.parametrize("n", [0, -1])
def test_n_is_positive(n: int) -> None:
    with pytest.raises(ValueError, match=f"n = {n}"):
        list(sample(exact, sampler("ddpm"), S.linear(5), n, (2,), seed=0))


@pytest.mark.parametrize("eta", [-0.1, 1.1, math.nan])
def test_eta_is_checked(eta: float) -> None:
    with pytest.raises(ValueError, match="eta"):
        SAMPLERS.parse(f"ddim:eta={eta}")
