"""alphabar's own schedules, process, samplers and objectives, before check like anybody's code."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from alphabar import check, objectives, samplers, schedule
from alphabar.check import Report
from alphabar.forward import marginal, posterior, transition
from alphabar.levels import Drawn
from alphabar.objectives import Objective
from alphabar.samplers import sample
from alphabar.samplers.base import Sampler
from alphabar.schedule import Level, Schedule

SOUND = ("right", "equivalent")
TABLE = schedule.linear(T=200, start=5e-4, end=0.1)


def fine(report: Report) -> bool:
    return report.verdict in SOUND


@pytest.mark.parametrize(
    ("claims", "made"),
    [
        ("linear", schedule.linear()),
        ("scaled_linear", schedule.scaled_linear()),
        ("quad", schedule.quad()),
        ("sigmoid", schedule.sigmoid()),
        ("cosine", schedule.cosine()),
        ("jsd", schedule.jsd()),
        ("constant", schedule.constant()),
        ("warmup10", schedule.warmup10()),
    ],
)
def test_schedules(claims: str, made: Schedule) -> None:
    report = check.schedule(made.beta[1:], claims=claims)
    assert fine(report), report
    report = check.schedule(made.alpha_bar[1:], gives="alphas_cumprod", betas=made.beta[1:])
    assert fine(report), report


def test_sigmas() -> None:
    made = schedule.karras(40)
    sigmas = (made.sigma / made.alpha).flip(0)
    report = check.schedule(sigmas, claims="karras", gives="sigmas")
    assert fine(report), report


def of_t(t: Tensor) -> Level:
    return TABLE[t]


def test_the_forward_process() -> None:
    betas = TABLE.beta[1:]

    def moments(x_0: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        found = marginal(of_t(t), x_0)
        return found.mean, found.var

    assert fine(report := check.marginal(moments, betas, gives="mean_variance")), report

    def one_step(x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        return transition(of_t(t - 1), of_t(t), x).at(noise)

    assert fine(report := check.transition(one_step, betas)), report

    def back(x_0: Tensor, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        found = posterior(of_t(t - 1), of_t(t), x_0, x_t)
        return found.mean, found.var

    assert fine(report := check.posterior(back, betas)), report


def loop(sampler: Sampler, levels: Schedule) -> Callable[..., Tensor]:
    """A sampler of ours as a loop of x and σ: asked in the scale where the data keep their size."""

    def run(model: Callable[..., Tensor], shape: tuple[int, ...]) -> Tensor:
        def denoiser(x: Tensor, level: Level, cond: object = None) -> Tensor:
            return model(x / level.alpha.to(x.dtype), level.sigma / level.alpha)

        start = torch.randn(shape, dtype=torch.float64)
        n, *item = shape
        *_, last = sample(denoiser, sampler, levels, n, tuple(item), seed=0, start=start)
        return last.x

    return run


@pytest.mark.parametrize(
    "sampler",
    [
        samplers.ddpm(),
        samplers.ddim(),
        samplers.ddim(eta=0.5),
        samplers.euler(),
        samplers.heun(),
        samplers.dpmpp_2m(),
        samplers.dpmpp_3m(),
        samplers.dpmpp_2m_sde(),
        samplers.unipc(),
    ],
    ids=str,
)
def test_samplers(sampler: Sampler) -> None:
    levels = schedule.cosine(T=1000).spaced(20, "log_snr")
    report = check.sampler(loop(sampler, levels), predicts="x_0", scale="ve")
    assert fine(report), report


def asked(objective: Objective) -> Callable[..., Tensor]:
    """An objective of ours as a loss of a model that predicts x_0."""

    def loss(model: Callable[..., Tensor], x_0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        def denoiser(x: Tensor, level: Level, cond: object = None) -> Tensor:
            return model(x, t)

        generator = torch.Generator().manual_seed(0)
        drawn = Drawn(of_t(t), None, None)
        return objective(denoiser, x_0, drawn, noise, generator).mean()

    return loss


@pytest.mark.parametrize(
    ("objective", "claims"),
    [
        (objectives.simple(), "snr"),
        (objectives.x_0(), "uniform"),
        (objectives.v(), "snr+1"),
        (objectives.min_snr(), "min_snr"),
    ],
    ids=["simple", "x_0", "v", "min_snr"],
)
def test_objectives(objective: Objective, claims: str) -> None:
    report = check.loss(asked(objective), TABLE.beta[1:], "x_0", claims=claims, gamma=5.0)
    assert fine(report), report


def test_a_slip_in_our_own_would_be_seen() -> None:
    """The same tests with one thing wrong in what they check."""
    late = schedule.cosine(T=1000).spaced(20, "log_snr")
    wrong = Schedule(late.alpha, late.sigma)

    def run(model: Callable[..., Tensor], shape: tuple[int, ...]) -> Tensor:
        right = lambda x, level, cond=None: model(  # noqa: E731
            x / level.alpha.to(x.dtype), 1.1 * level.sigma / level.alpha
        )
        start = torch.randn(shape, dtype=torch.float64)
        *_, last = sample(right, samplers.ddim(), wrong, shape[0], shape[1:], seed=0, start=start)
        return last.x

    assert check.sampler(run, predicts="x_0", scale="ve").verdict == "bug"
