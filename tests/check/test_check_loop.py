"""Loops and schedulers, level by level and item by item, and how they ask their model."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from alphabar import check
from alphabar.check import loop
from alphabar.check.affine import Affine, fit
from alphabar.check.report import Finding
from alphabar.check.scheduler import loop_of

T = 100
BETAS = torch.linspace(1e-3, 0.15, T, dtype=torch.float64)
ABAR = torch.cumprod(1 - BETAS, 0)


class Scheduler:
    """DDIM, or DDPM, over a table; `clean` is below which index it takes the data to be clean."""

    betas = BETAS

    def __init__(self, clean: int = 0, is_noisy: bool = False) -> None:
        self.clean, self.is_noisy = clean, is_noisy
        self.timesteps = torch.empty(0)

    def set_timesteps(self, n: int) -> None:
        self.timesteps = torch.linspace(T - 1, T // n - 1, n).round().long()

    def level(self, t: int) -> Tensor:
        return ABAR[t] if t >= self.clean else torch.tensor(1.0).double()

    def original(self, x: Tensor, eps: Tensor, t: int) -> Tensor:
        return (x - (1 - ABAR[t]).sqrt() * eps) / ABAR[t].sqrt()

    def step(self, eps: Tensor, t: Tensor, x: Tensor) -> Tensor:
        later = self.timesteps[self.timesteps < t]
        here, to = ABAR[t], self.level(int(later[0]) if len(later) else -1)
        x_0 = self.original(x, eps, int(t))
        eps = (x - here.sqrt() * x_0) / (1 - here).sqrt()
        var = (1 - to) / (1 - here) * (1 - here / to) if self.is_noisy else torch.tensor(0.0)
        mean = to.sqrt() * x_0 + (1 - to - var).clamp(0).sqrt() * eps
        return (mean + var.sqrt() * self.noise(x)).to(x.dtype)

    def noise(self, x: Tensor) -> Tensor:
        return torch.randn_like(x)


def whole(scheduler: object, **facts: Any) -> Finding:
    return check.scheduler(scheduler, **facts).functions[0]


@pytest.mark.parametrize("is_noisy", [False, True])
def test_index_0_is_a_level_still(is_noisy: bool) -> None:
    assert whole(Scheduler(is_noisy=is_noisy)).verdict == "right"
    found = whole(Scheduler(clean=1, is_noisy=is_noisy))
    assert found.verdict == "bug", found
    assert f"{T} steps" in found.convention


class Repeats(Scheduler):
    """It rounds more steps than there are levels, as many do, and then divides by nothing."""

    def set_timesteps(self, n: int) -> None:
        super().set_timesteps(n)
        if n == T:
            self.timesteps[1] = T - 1


def test_steps_that_come_twice_are_not_all_steps() -> None:
    assert whole(Repeats()).verdict == "right"


class Nowhere(Scheduler):
    def set_timesteps(self, n: int) -> None:
        self.timesteps = torch.empty(0)


def test_no_steps() -> None:
    found = whole(Nowhere())
    assert (found.verdict, found.diagnoses[0].id) == ("bug", "step/no-steps")


class Bounded(Scheduler):
    """x̂_0 is thresholded at a quantile: of each item, or of the whole batch."""

    def __init__(self, of_batch: bool) -> None:
        super().__init__()
        self.of_batch = of_batch

    def original(self, x: Tensor, eps: Tensor, t: int) -> Tensor:
        found = super().original(x, eps, t)
        sizes = found.abs().flatten(1)
        s = sizes.quantile(0.9) if self.of_batch else sizes.quantile(0.9, dim=1, keepdim=True)
        s = s.clamp(min=1)
        return found.clamp(-s, s) / s


def test_an_item_is_bounded_by_itself() -> None:
    assert "quantile" in whole(Bounded(of_batch=False)).convention
    assert whole(Bounded(of_batch=True)).diagnoses[0].id == "step/items-mixed"


@pytest.mark.parametrize("of_batch", [False, True])
def test_a_step_bounds_each_item_by_itself(of_batch: bool) -> None:
    bounded = Bounded(of_batch)
    before = torch.cat([torch.ones(1).double(), ABAR[:-1]])

    def p_sample(model: Callable[..., Tensor], x: Tensor, t: int) -> Tensor:
        here, to = ABAR[t], before[t]
        x_0 = bounded.original(x, model(x, t), t)
        eps = (x - here.sqrt() * x_0) / (1 - here).sqrt()
        return (to.sqrt() * x_0 + (1 - to).sqrt() * eps).to(x.dtype)

    found = check.step(p_sample, BETAS).functions[0]
    names = [d.id for d in found.diagnoses]
    assert names == (["step/items-mixed"] if of_batch else []), found


class Hidden(Scheduler):
    """Noise that nobody can record."""

    drawn = torch.Generator().manual_seed(7)

    def noise(self, x: Tensor) -> Tensor:
        u = torch.randint(1, 2**40, (2, *x.shape), generator=self.drawn).double() / 2**40
        return (-2 * u[0].log()).sqrt() * (2 * torch.pi * u[1]).cos()


def test_noise_that_is_not_recorded_takes_no_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of earlier answers, and of earlier draws, no more are tried than at the first move."""
    tried: list[int] = []

    def counted(result: Tensor, inputs: Mapping[str, Tensor], draws: Sequence[Any]) -> Affine:
        tried.append(len(inputs) + len(draws))
        return fit(result, inputs, draws)

    monkeypatch.setattr(loop, "fit", counted)
    found = check.sampler(loop_of(Hidden(is_noisy=True), 12), BETAS)
    assert found.verdict == "right", found
    assert len(tried) < 80
    assert max(tried) < 8


def heun(model: Callable[..., Tensor], x: Tensor, sigma: Tensor, to: Tensor) -> Tensor:
    d = (x - model(x, sigma)) / sigma
    end = x + (to - sigma) * d
    if to == 0:
        return end
    return x + (to - sigma) * (d + (end - model(end, to)) / to) / 2


def twisted(model: Callable[..., Tensor], x: Tensor, sigma: Tensor, to: Tensor) -> Tensor:
    asked = 0

    def turned(x: Tensor, sigma: Tensor) -> Tensor:
        nonlocal asked
        asked += 1
        return model(x, sigma) if asked == 1 else model(sigma, x)

    return heun(turned, x, sigma, to)


def test_a_model_is_asked_in_one_order() -> None:
    def other(model: Callable[..., Tensor], x: Tensor, sigma: Tensor, to: Tensor) -> Tensor:
        return heun(lambda x, sigma: model(sigma, x), x, sigma, to)

    for move, names in ((heun, []), (other, []), (twisted, ["step/asked-in-two-orders"])):
        found = check.step(move, predicts="x_0", scale="ve").functions[0]
        assert [d.id for d in found.diagnoses] == names, found


def midpoint(steps: int, bent: float, end: float = 1.0) -> Callable[..., Tensor]:
    def generate(model: Callable[..., Tensor], x: Tensor) -> Tensor:
        times = end * torch.linspace(0, 1, steps + 1) ** bent
        for t, s in pairwise(times):
            middle = (t + s) / 2
            half = x + (middle - t) * model(x, t)
            x = x + (s - t) * model(half, middle)
        return x

    return generate


@pytest.mark.parametrize(("steps", "bent"), [(4, 1.0), (20, 2.0)])
def test_the_midpoint_rule_ends_at_the_data(steps: int, bent: float) -> None:
    """Its last move leans on two answers, so only one x_0 all along shows what is clipped."""
    found = check.sampler(midpoint(steps, bent), predicts="flow", scale="flow").functions[0]
    assert found.verdict == "right", found


def test_a_flow_is_told_in_its_own_words() -> None:
    found = check.sampler(midpoint(4, 1.0), predicts="flow", scale="flow").functions[0]
    assert "τ_{t−1}·ε" in found.measured
    for text in (found.law, found.measured, found.expected, found.convention):
        assert "ᾱ" not in text
        assert "DDIM" not in text


def test_a_bug_beside_the_coefficients_is_what_was_measured() -> None:
    class Late(Scheduler):
        def set_timesteps(self, n: int) -> None:
            super().set_timesteps(n)
            self.timesteps = self.timesteps - 1

    found = whole(Late())
    assert found.diagnoses[0].id == "A12"
    assert f"told t = {T - 1} first" in found.measured
    assert found.measured != found.expected


def test_a_step_that_is_taken_for_a_mean_is_told() -> None:
    def p_sample(model: Callable[..., Tensor], x: Tensor, t: int) -> Tensor:
        mean = (x - BETAS[t] / (1 - ABAR[t]).sqrt() * model(x, t)) / (1 - BETAS[t]).sqrt()
        return (mean + (t > 0) * BETAS[t].sqrt() * torch.randn_like(x)).to(x.dtype)

    found = check.posterior(p_sample, BETAS).functions[0]
    assert found.diagnoses[0].id == "posterior/adds-noise", found
    assert "step" in found.diagnoses[0].remedy


def rule(weights: Sequence[float], stages: Sequence[float]) -> Callable[..., Tensor]:
    """Explicit stages, each of the one before, and their weights: RK4, RK3 and such."""

    def generate(model: Callable[..., Tensor], x: Tensor) -> Tensor:
        for t, s in pairwise(torch.linspace(1, 0, 11)):
            h, k, total = s - t, torch.zeros_like(x), torch.zeros_like(x)
            for weight, c in zip(weights, stages, strict=True):
                k = model(x + c * h * k, t + c * h)
                total = total + weight * k
            x = x + h * total
        return x

    return generate


def adams(weight: float) -> Callable[..., Tensor]:
    def generate(model: Callable[..., Tensor], x: Tensor) -> Tensor:
        before = None
        for t, s in pairwise(torch.linspace(0, 1, 21)):
            v = model(x, t)
            x = x + (s - t) * (v if before is None else (1 + weight) * v - weight * before)
            before = v
        return x

    return generate


@pytest.mark.parametrize(
    "generate",
    [
        rule((1 / 6, 1 / 3, 1 / 3, 1 / 6), (0, 0.5, 0.5, 1)),
        rule((0.25, 0, 0.75), (0, 1 / 3, 2 / 3)),
        adams(0.5),
    ],
)
def test_a_flow_may_be_walked_by_any_method(generate: Callable[..., Tensor]) -> None:
    found = check.sampler(generate, predicts="flow", scale="flow").functions[0]
    assert found.verdict == "right", found
    assert "straight lines" in found.convention


@pytest.mark.parametrize(
    "generate",
    [
        rule((1 / 6, 1 / 3, 1 / 3, 1 / 6), (0, 0.5, 0.5, 0.5)),
        rule((1 / 6, 1 / 3, 1 / 3, 1 / 3), (0, 0.5, 0.5, 1)),
        adams(0.25),
        adams(-0.5),
    ],
)
def test_a_flow_is_walked_to_second_order(generate: Callable[..., Tensor]) -> None:
    found = check.sampler(generate, predicts="flow", scale="flow").functions[0]
    assert found.verdict == "bug", found


@pytest.mark.parametrize("size", [1, 255])
@pytest.mark.parametrize("clean", [0, 10])
def test_a_loop_may_return_a_picture(size: int, clean: int) -> None:
    inner = loop_of(Scheduler(clean=clean), 20)

    def generate(model: Callable[..., Tensor], shape: tuple[int, ...]) -> Tensor:
        return size * (inner(model, shape).clamp(-1, 1) + 1) / 2

    found = check.sampler(generate, BETAS).functions[0]
    assert found.verdict == ("bug" if clean else "equivalent"), found
    assert f"returned in [0, {size}]" in found.convention


@pytest.mark.parametrize("is_used", [True, False])
def test_noise_that_a_caller_may_silence_is_no_bug(is_used: bool) -> None:
    def denoise(x: Tensor, t: int, eps: Tensor, z: Tensor | None = None) -> Tensor:
        z = torch.randn_like(x) if z is None or not is_used else z
        mean = (x - BETAS[t] / (1 - ABAR[t]).sqrt() * eps) / (1 - BETAS[t]).sqrt()
        return (mean + BETAS[t].sqrt() * z).to(x.dtype)

    found = check.step(denoise, BETAS).functions[0]
    assert found.verdict == ("fragile" if is_used else "bug"), found
    assert ("z = 0" in found.why) == is_used


@pytest.mark.parametrize("repeats", [False, True])
def test_levels_without_0_leave_noise(repeats: bool) -> None:
    sigmas = torch.linspace(80 ** (1 / 7), 0.01 ** (1 / 7), 12).double() ** 7

    def generate(model: Callable[..., Tensor], x: Tensor) -> Tensor:
        for sigma, to in pairwise(torch.cat([sigmas, sigmas[-1:]]) if repeats else sigmas):
            x = x + (to - sigma) * (x - model(x, sigma)) / sigma
        return x

    found = check.sampler(generate, predicts="x_0", scale="ve", sigmas=sigmas).functions[0]
    assert found.verdict == ("bug" if repeats else "fragile"), found
    assert repeats or "ends at σ = 0.01" in found.why


def test_guidance_may_ask_both_in_one_question() -> None:
    def generate(model: Callable[..., Tensor], shape: tuple[int, ...]) -> Tensor:
        def guided(x: Tensor, t: Tensor) -> Tensor:
            with_, without = model(torch.cat([x, x]), t.repeat(2)).chunk(2)
            return without + 3 * (with_ - without)

        return loop_of(Scheduler(), 20)(guided, shape)

    found = check.sampler(generate, BETAS).functions[0]
    assert found.verdict == "right", found
