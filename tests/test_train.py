"""Denoiser and training: preconditioning in every scale, the loss, and what it converges to."""

import math

import pytest
import torch
from torch import Tensor, nn

from alphabar import schedule as S
from alphabar.denoise import NetDenoiser
from alphabar.forward import marginal
from alphabar.nets import MLP
from alphabar.schedule import Level
from alphabar.train import denoising_loss, train


class Fixed(nn.Module):
    """A net that answers a fixed function of its input."""

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        return torch.sin(3 * x) + label[:, None]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def points(n: int = 500) -> Tensor:
    return torch.randn(n, 2, generator=generator()) * torch.tensor([0.5, 0.2]) + 1.5


def test_edm_is_the_case_alpha_1() -> None:
    """Karras et al. 2022, table 1, typed anew, on centred data."""
    x_0 = points()
    denoiser = NetDenoiser(Fixed(), x_0)
    x = torch.randn(7, 2, generator=generator(1))
    s = (x_0 - x_0.mean(0)).square().mean().sqrt().item()
    for sigma in (0.002, 0.5, 80.0):
        level = Level(torch.tensor(1.0).double(), torch.tensor(sigma).double())
        y = x - x_0.mean(0)
        c_skip = s**2 / (sigma**2 + s**2)
        c_out = sigma * s / math.sqrt(sigma**2 + s**2)
        c_in = 1 / math.sqrt(sigma**2 + s**2)
        label = torch.full((7,), -math.log(sigma) / 2).clamp(-5, 5)
        expected = x_0.mean(0) + c_skip * y + c_out * Fixed()(c_in * y, label)
        torch.testing.assert_close(denoiser(x, level), expected, rtol=1e-5, atol=1e-6)


def test_the_denoiser_is_one_function_in_every_scale() -> None:
    denoiser = NetDenoiser(Fixed(), points())
    vp = S.linear(50)
    x = torch.randn(51, 2, generator=generator(2))
    answers = []
    for s in (vp, vp.to_ve(), vp.to_flow()):
        scale = torch.hypot(s.alpha, s.sigma).float()[:, None]
        t = torch.arange(51)
        answers.append(denoiser(x * scale, s[t]))
    torch.testing.assert_close(answers[1], answers[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(answers[2], answers[0], rtol=1e-4, atol=1e-5)


def test_both_ends_are_finite() -> None:
    denoiser = NetDenoiser(Fixed(), points())
    s = S.jsd(10)
    x = torch.randn(4, 2, generator=generator(3))
    torch.testing.assert_close(denoiser(x, s[0]), x)  # no noise: nothing to take away
    assert denoiser(x, s[10]).isfinite().all()  # all noise


def test_one_level_or_one_per_item() -> None:
    denoiser = NetDenoiser(Fixed(), points())
    s = S.linear(50)
    x = torch.randn(3, 2, generator=generator(4))
    t = torch.tensor([1, 20, 50])
    each = torch.cat([denoiser(x[i : i + 1], s[int(t[i])]) for i in range(3)])
    torch.testing.assert_close(denoiser(x, s[t]), each)


def test_input_and_ideal_answer_have_variance_one() -> None:
    """What the preconditioning promises, measured: on Gaussian data at seven levels."""
    x_0 = 0.4 * torch.randn(100_000, 1, generator=generator(5)) + 2
    seen: list[Tensor] = []

    class Spy(nn.Module):
        def forward(self, x: Tensor, label: Tensor) -> Tensor:
            seen.append(x)
            return torch.zeros_like(x)

    denoiser = NetDenoiser(Spy(), x_0)
    s = S.log_snr(7, 8, -8)
    for t in range(1, 8):
        x_t = marginal(s[t], x_0).sample(generator(100 + t))
        skip = denoiser(x_t, s[t])
        ideal = (x_0 - skip) / denoiser.output_scale(s[t])
        assert seen[-1].std().item() == pytest.approx(1, abs=0.02)
        assert ideal.std().item() == pytest.approx(1, abs=0.02)


def test_loss_weights_each_item_by_its_own_level() -> None:
    """One-hot batches: an item's loss must not depend on the other items or their levels."""
    denoiser = NetDenoiser(Fixed(), points())
    s = S.linear(50)
    x_0, eps = points(4), torch.randn(4, 2, generator=generator(6))
    t = torch.tensor([1, 10, 30, 50])
    whole = denoising_loss(denoiser, x_0, s[t], eps)
    assert whole.shape == (4,)
    for i in range(4):
        one = denoising_loss(denoiser, x_0[i : i + 1], s[t[i : i + 1]], eps[i : i + 1])
        torch.testing.assert_close(whole[i], one[0])
        level = s[int(t[i])]
        x_t = level.alpha.float() * x_0[i] + level.sigma.float() * eps[i]
        error = (denoiser(x_t[None], level)[0] - x_0[i]).square().mean()
        variance = level.sigma**2 + level.alpha**2 * denoiser.std**2
        weight = variance / (level.sigma * denoiser.std) ** 2
        torch.testing.assert_close(whole[i], (weight * error).float(), rtol=1e-4, atol=1e-6)


def test_training_is_deterministic_and_leaves_the_global_generator_alone() -> None:
    x_0 = points()

    def run(seed: int) -> tuple[list[float], Tensor]:
        last = None
        losses = []
        for last in train(NetDenoiser(MLP(2, seed), x_0), x_0, 12, seed, batch=64):
            losses.append(last.loss.item())
        assert last is not None
        return losses, torch.cat([p.flatten() for p in last.denoiser.parameters()])

    state = torch.get_rng_state()
    (losses, weights), (again, same) = run(1), run(1)
    assert torch.equal(torch.get_rng_state(), state)
    assert losses == again
    assert torch.equal(weights, same)
    assert run(2)[0] != losses


@pytest.mark.slow
def test_training_approaches_the_exact_denoiser() -> None:
    """Two points ±1: E[x_0 | x_t] = tanh(α·x_t/σ²). The net must come close to it at all levels."""
    x_0 = torch.tensor([[-1.0], [1.0]])
    *_, last = train(NetDenoiser(MLP(1, 0, width=64), x_0), x_0, 1200, 0, batch=512)
    s = S.log_snr(5, 4, -6)
    for t in range(1, 6):
        level = s[t]
        x_t = marginal(level, x_0.repeat(200, 1)).sample(generator(t))
        exact = torch.tanh(x_t * (level.alpha / level.sigma**2).float())
        with torch.no_grad():
            error = (last.denoiser(x_t, level) - exact).square().mean().sqrt()
        assert error < 0.06


def test_the_average_follows_its_decay() -> None:
    """w̄ ← d·w̄ + (1 − d)·w with d = e^(−10/steps), from the first weights on."""
    x_0 = points()
    denoiser = NetDenoiser(MLP(2, 3), x_0)
    average: Tensor | None = None
    decay = math.exp(-10 / 40)
    for step in train(denoiser, x_0, 40, 0, batch=16):
        weights = torch.cat([p.detach().flatten() for p in denoiser.parameters()])
        average = weights if average is None else decay * average + (1 - decay) * weights
        found = torch.cat([p.detach().flatten() for p in step.denoiser.parameters()])
        torch.testing.assert_close(found, average, rtol=1e-4, atol=1e-6)


def test_the_label_stays_within_five() -> None:
    seen: list[Tensor] = []

    class Spy(nn.Module):
        def forward(self, x: Tensor, label: Tensor) -> Tensor:
            seen.append(label)
            return x

    denoiser = NetDenoiser(Spy(), points())
    s = S.from_log_snr([300.0, 8.0, -300.0])
    denoiser(torch.zeros(3, 2), s[torch.tensor([1, 2, 3])])
    assert seen[0].tolist() == [5, 2, -5]


def test_data_must_vary() -> None:
    with pytest.raises(ValueError, match="do not vary"):
        NetDenoiser(Fixed(), torch.ones(5, 2))


@pytest.mark.parametrize(("steps", "batch"), [(0, 8), (-1, 8), (5, 0)])
def test_steps_and_batch_are_positive(steps: int, batch: int) -> None:
    with pytest.raises(ValueError, match="whole number from 1"):
        next(train(NetDenoiser(MLP(2, 0), points()), points(), steps, 0, batch))


def test_an_exploding_loss_stops_with_its_step() -> None:
    class Bad(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.tensor(math.nan))

        def forward(self, x: Tensor, label: Tensor) -> Tensor:
            return x * self.w

    with pytest.raises(ValueError, match="the loss is nan at step 100"):
        list(train(NetDenoiser(Bad(), points()), points(), 200, 0, batch=8))
