"""Sampling with a variance that the denoiser has learned, against the two that it lies between."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from alphabar import schedule as S
from alphabar.denoise import Moments, NetDenoiser
from alphabar.nets import mlp
from alphabar.noise import keyed_noise
from alphabar.samplers import SAMPLERS, Normal, sample
from alphabar.schedule import Level, Schedule

TABLES: dict[str, Schedule] = {
    "vp": S.linear(6, end=0.5),
    "ve": S.linear(6, end=0.5).to_ve(),
    "flow": S.flow(6),  # begins at pure noise
}
MEAN, STD = 0.4, 0.6  # of normal data, of which all is known


def exact(x_t: Tensor, level: Level) -> Tensor:
    """E[x_0 | x_t] of normal data."""
    alpha, sigma = level.alpha.item(), level.sigma.item()
    var = alpha**2 * STD**2 + sigma**2
    return MEAN + alpha * STD**2 / var * (x_t - alpha * MEAN)


class Learned:
    """The exact denoiser, and what it says of the variance."""

    def __init__(self, mix: Callable[[Level], float | Tensor]) -> None:
        self.mix = mix

    def __call__(self, x_t: Tensor, level: Level) -> Tensor:
        return exact(x_t, level)

    def with_variance(self, x_t: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        return exact(x_t, level), self.mix(level) * torch.ones_like(x_t)


def drawn(spec: str, denoiser: object, schedule: Schedule, n: int = 50) -> list[Tensor]:
    start = Normal(torch.full((2,), MEAN).double(), STD**2 * torch.eye(2).double())
    steps = sample(denoiser, SAMPLERS.parse(spec), schedule, n, (2,), seed=3, start=start)  # type: ignore[arg-type]
    return [step.x for step in steps]


@pytest.mark.parametrize(("mix", "variance"), [(-1.0, "posterior"), (1.0, "beta")])
@pytest.mark.parametrize("name", TABLES)
def test_the_ends_are_the_two_of_ddpm(name: str, mix: float, variance: str) -> None:
    found = drawn("ddpm:variance=learned", Learned(lambda level: mix), TABLES[name])
    expected = drawn(f"ddpm:variance={variance}", exact, TABLES[name])
    assert len(found) == 7
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=2e-6)


def test_each_number_has_a_variance_of_its_own() -> None:
    """One step by hand: the geometric mean of β and β̃ is a mix of 0."""
    schedule = S.from_betas([0.2, 0.5])
    mix = torch.tensor([[-1.0, 0.0], [1.0, 0.5]])
    x_2, x_1, _ = drawn("ddpm:variance=learned", Learned(lambda level: mix), schedule, n=2)
    beta, bar_1, bar_2 = 0.5, 0.8, 0.4
    tilde = beta * (1 - bar_1) / (1 - bar_2)
    mean = math.sqrt(bar_1) * beta / (1 - bar_2) * exact(x_2, schedule[2])
    mean += math.sqrt(1 - beta) * (1 - bar_1) / (1 - bar_2) * x_2
    m = (mix + 1) / 2
    expected = mean + (beta**m * tilde ** (1 - m)).sqrt() * keyed_noise(3, 1, 0, 2, (2,))
    torch.testing.assert_close(x_1, expected)


@pytest.mark.parametrize("name", TABLES)
def test_the_right_variance_keeps_the_law_in_few_steps(name: str) -> None:
    """q(x_s | x_t) of normal data is normal: with its variance no step has an error."""
    schedule, vp = TABLES[name], TABLES[name].to_vp()

    def right(level: Level) -> float:
        t = int((schedule.log_snr - level.log_snr).abs().argmin())
        s_bar, t_bar = vp.alpha_bar[t - 1].item(), vp.alpha_bar[t].item()
        beta = 1 - t_bar / s_bar
        tilde = beta * (1 - s_bar) / (1 - t_bar)
        if t == 1:
            return 0.0  # no noise is added there
        gain = math.sqrt(s_bar) * beta / (1 - t_bar)
        left = STD**2 * (1 - t_bar) / (t_bar * STD**2 + 1 - t_bar)  # Var[x_0 | x_t]
        return 2 * math.log((tilde + gain**2 * left) / tilde) / math.log(beta / tilde) - 1

    n = 100_000
    steps = drawn("ddpm:variance=learned", Learned(right), schedule, n)
    wrong = drawn("ddpm", exact, schedule, n)
    for t, x in zip(range(6, 0, -1), steps, strict=False):
        alpha, sigma = schedule[t].alpha.item(), schedule[t].sigma.item()
        law = alpha**2 * STD**2 + sigma**2
        error = 5 * law * math.sqrt(2 / (2 * n))  # of the variance of 2n numbers
        assert x.double().var().item() == pytest.approx(law, abs=error)
        assert x.double().mean().item() == pytest.approx(alpha * MEAN, abs=5 * (law / n) ** 0.5)
    assert abs(wrong[5].double().var().item() - law) > 3 * error  # β̃ falls short of it


def test_a_trained_network_has_one_and_its_classes_too() -> None:
    x_0 = torch.randn(30, 2, generator=torch.Generator().manual_seed(0))
    net = mlp(width=8).build((2,), 0, outputs=2, classes=3)
    with torch.no_grad():
        for weight in net.parameters():
            weight.copy_(0.3 * torch.randn(weight.shape))
    learned = NetDenoiser(net, Moments.of(x_0), learns_variance=True)
    whole, of_one = (
        drawn("ddpm:variance=learned", denoiser, TABLES["vp"])[-1]
        for denoiser in (learned, learned.given(2))
    )
    assert not torch.equal(whole, of_one)
    assert not torch.equal(whole, drawn("ddpm", learned, TABLES["vp"])[-1])


def test_what_is_refused() -> None:
    with pytest.raises(TypeError, match="function has learned no variance"):
        drawn("ddpm:variance=learned", exact, TABLES["vp"])
    plain = NetDenoiser(mlp(width=8).build((2,), 0), Moments.of(torch.randn(9, 2)))
    classes = NetDenoiser(mlp(width=8).build((2,), 0, classes=3), Moments.of(torch.randn(9, 2)))
    for denoiser in (plain, classes.given(0)):
        with pytest.raises(TypeError, match="learns no variance"):
            drawn("ddpm:variance=learned", denoiser, TABLES["vp"])
    with pytest.raises(ValueError, match="not finite"):
        drawn("ddpm:variance=learned", Learned(lambda level: math.nan), TABLES["vp"])
    with pytest.raises(ValueError, match="mix of shape"):
        drawn("ddpm:variance=learned", Learned(lambda level: torch.ones(3, 1, 1)), TABLES["vp"])
