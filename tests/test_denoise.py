"""Models of every kind, scale and preconditioning made into one denoiser: E[x_0 | x_t]."""

import math
from collections.abc import Callable
from itertools import product
from typing import Literal, get_args

import jaxtyping
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, EDMEulerScheduler
from torch import Tensor, nn

from alphabar import schedule as S
from alphabar.denoise import (
    ModelDenoiser,
    Moments,
    NetDenoiser,
    by_flow_time,
    by_log_sigma,
    by_log_snr,
    by_step,
    edm,
)
from alphabar.predict import Kind
from alphabar.schedule import Level, Schedule

Scale = Literal["vp", "ve", "flow"]
KINDS: list[Kind] = list(get_args(Kind))
SCALES: list[Scale] = ["vp", "ve", "flow"]
MEANS, STD = torch.tensor([-1.0, 1.5]).double(), 0.4


def shaped(*shape: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def bayes(x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """E[x_0 | x_t] by summing over 4001 values of x_0: data ½·N(−1, 0.4²) + ½·N(1.5, 0.4²)."""
    x_0 = torch.linspace(-4, 5, 4001, dtype=torch.float64)
    prior = torch.logsumexp(-0.5 * ((x_0[:, None] - MEANS) / STD) ** 2, 1)
    log = prior - 0.5 * ((x[..., None] - alpha[..., None] * x_0) / sigma[..., None]) ** 2
    return (torch.softmax(log, -1) * x_0).sum(-1)


def perfect(kind: Kind, trained_in: Scale) -> Callable[[Tensor, Tensor], Tensor]:
    """A model that says exactly what its kind means in its scale, told of λ."""

    def model(x: Tensor, log_snr: Tensor) -> Tensor:
        ratio = torch.exp(log_snr / 2)[:, None]  # α/σ
        alpha, sigma = {
            "vp": (ratio / torch.sqrt(1 + ratio**2), 1 / torch.sqrt(1 + ratio**2)),
            "ve": (torch.ones_like(ratio), 1 / ratio),
            "flow": (ratio / (1 + ratio), 1 / (1 + ratio)),
        }[trained_in]
        x_0 = bayes(x, alpha, sigma)
        eps = (x - alpha * x_0) / sigma
        return {
            "x_0": x_0,
            "eps": eps,
            "v": alpha * eps - sigma * x_0,
            "score": -eps / sigma,
            "flow": eps - x_0,
        }[kind]

    return model


def in_scale(s: Schedule, scale: Scale) -> Schedule:
    return {"vp": s.to_vp, "ve": s.to_ve, "flow": s.to_flow}[scale]()


# --- the wrapper


@pytest.mark.parametrize("used_in", SCALES)
@pytest.mark.parametrize("trained_in", SCALES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_perfect_model_is_the_exact_denoiser(
    kind: Kind, trained_in: Scale, used_in: Scale
) -> None:
    """Whatever it predicts, wherever it was trained, wherever it is used: by brute-force Bayes."""
    s = in_scale(S.log_snr(6, 8.0, -8.0), used_in)
    t = torch.arange(1, 7)
    denoiser = ModelDenoiser(perfect(kind, trained_in), kind, trained_in, by_log_snr)
    x_t = torch.hypot(s.alpha, s.sigma)[1:, None] * shaped(6, 1)
    exact = bayes(x_t, s.alpha[1:, None], s.sigma[1:, None])
    torch.testing.assert_close(denoiser(x_t, s[t]), exact, rtol=1e-9, atol=1e-9)
    for i in range(6):
        one = denoiser(x_t[i : i + 1], s[i + 1])
        torch.testing.assert_close(one, exact[i : i + 1], rtol=1e-9, atol=1e-9)


def test_one_trajectory_for_every_kind_and_scale() -> None:
    """DDIM from the same noise, x_s = α_s·x̂_0 + (σ_s/σ_t)·(x_t − α_t·x̂_0), in three scales."""
    ends = []
    for kind, trained_in, used_in in product(KINDS, SCALES, SCALES):
        s = in_scale(S.log_snr(12, 6.0, -6.0), used_in)
        denoiser = ModelDenoiser(perfect(kind, trained_in), kind, trained_in, by_log_snr)
        x = torch.hypot(s.alpha[-1], s.sigma[-1]) * shaped(4, 1)
        for t in range(12, 0, -1):
            x_0_hat = denoiser(x, s[t])
            x = s.alpha[t - 1] * x_0_hat + s.sigma[t - 1] / s.sigma[t] * (x - s.alpha[t] * x_0_hat)
        ends.append(x)
    for end in ends[1:]:
        torch.testing.assert_close(end, ends[0], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("used_in", SCALES)
def test_edm_is_karras_table_1(used_in: Scale) -> None:
    """Typed anew in σ; the VP and flow states are x/α of it."""
    s = in_scale(S.karras(7, 0.01, 20.0), used_in)
    std, x = 0.5, shaped(7, 3)
    sigma = torch.tensor([S.karras(7, 0.01, 20.0).sigma[t] for t in range(1, 8)])[:, None]
    c_skip = std**2 / (sigma**2 + std**2)
    c_out = sigma * std / torch.sqrt(sigma**2 + std**2)
    c_in = 1 / torch.sqrt(sigma**2 + std**2)
    c_noise = torch.log(sigma) / 4
    expected = c_skip * x + c_out * (torch.sin(3 * c_in * x) + c_noise)
    denoiser = ModelDenoiser(
        lambda x, label: torch.sin(3 * x) + label[:, None], edm(0.5), "ve", by_log_sigma
    )
    x_t = s.alpha[1:, None] * x
    torch.testing.assert_close(denoiser(x_t, s[torch.arange(1, 8)]), expected, rtol=1e-10, atol=0)
    for t in range(1, 8):
        one = denoiser(x_t[t - 1 : t], s[t])
        torch.testing.assert_close(one, expected[t - 1 : t], rtol=1e-10, atol=0)


@pytest.mark.parametrize("trained_in", SCALES)
def test_edm_keeps_variance_one_in_every_scale(trained_in: Scale) -> None:
    """Var(c_in·x) = 1, and the output that is asked for has variance 1: by the law of variances."""
    s = in_scale(S.log_snr(5, 8.0, -8.0), trained_in)
    std = 0.7
    for t in range(1, 6):
        alpha, sigma = s.alpha[t].item(), s.sigma[t].item()
        skip, out, inner = edm(std)(alpha, sigma)
        assert inner**2 * (alpha**2 * std**2 + sigma**2) == pytest.approx(1)
        # x_0 − c_skip·x_t = (1 − c_skip·α)·x_0 − c_skip·σ·ε
        asked = ((1 - skip * alpha) * std) ** 2 + (skip * sigma) ** 2
        assert asked == pytest.approx(float(out**2))


@pytest.mark.parametrize(
    ("kind", "name"), [("eps", "epsilon"), ("x_0", "sample"), ("v", "v_prediction")]
)
def test_diffusers_agrees(kind: Kind, name: str) -> None:
    """The same network, given to diffusers' DDIM and to us: the same x̂_0, told the same t."""
    theirs = DDIMScheduler(1000, prediction_type=name, clip_sample=False)
    told: list[float] = []

    def net(x: Tensor, t: Tensor) -> Tensor:
        told.append(t[0].item())
        return torch.sin(3 * x) + t[:, None] / 1000

    s = S.linear(1000, 1e-4, 0.02)
    denoiser = ModelDenoiser(net, kind, "vp", by_step(s, first=0))
    x = shaped(4, 2)
    theirs.set_timesteps(10)
    for timestep in theirs.timesteps.tolist():
        output = net(x, torch.full((4,), float(timestep)))
        expected = theirs.step(output, timestep, x).pred_original_sample
        ours = denoiser(x, s[timestep + 1])
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)
        assert told[-1] == pytest.approx(told[-2], abs=1e-6)


def test_diffusers_edm_agrees() -> None:
    theirs = EDMEulerScheduler(sigma_min=0.002, sigma_max=80.0, sigma_data=0.5)
    denoiser = ModelDenoiser(
        lambda x, label: torch.sin(3 * x) + label[:, None], edm(0.5), "ve", by_log_sigma
    )
    x = shaped(4, 2)
    for sigma in (0.01, 0.6, 30.0):
        value = torch.tensor(sigma).double()
        y = theirs.precondition_inputs(x, value)
        output = torch.sin(3 * y) + theirs.precondition_noise(value)
        expected = theirs.precondition_outputs(x, output, value)
        level = Level(torch.ones_like(value), value)
        torch.testing.assert_close(denoiser(x, level), expected, rtol=1e-6, atol=1e-6)


def test_both_ends_of_the_schedule() -> None:
    """Pure noise: x_0, v and flow go on; eps, score and the scale α = 1 say why they do not."""
    end, start = S.jsd(10)[10], S.jsd(10)[0]
    x = shaped(3, 2)
    told = by_step(S.jsd(10), first=0)

    def net(x: Tensor, t: Tensor) -> Tensor:
        return torch.full_like(x, 0.25)

    assert (ModelDenoiser(net, "x_0", "vp", told)(x, end) == 0.25).all()
    assert (ModelDenoiser(net, "v", "vp", told)(x, end) == -0.25).all()
    torch.testing.assert_close(ModelDenoiser(net, "flow", "flow", told)(x, end), x - 0.25)
    torch.testing.assert_close(
        ModelDenoiser(net, edm(0.5), "vp", told)(x, end), torch.full_like(x, 0.125)
    )
    for kind in ("eps", "score"):
        with pytest.raises(ValueError, match="alpha = 0, sigma = 1: in pure noise"):
            ModelDenoiser(net, kind, "vp", told)(x, end)
    with pytest.raises(ValueError, match="no place in the variance-exploding scale"):
        ModelDenoiser(net, "x_0", "ve", told)(x, end)
    for kind, scale in product(("eps", "v", "score", "flow"), SCALES):
        torch.testing.assert_close(ModelDenoiser(net, kind, scale, told)(x, start), x)


# --- labels


def test_labels_are_the_scales_own() -> None:
    for s in (S.karras(9), S.karras(9).to_vp(), S.karras(9).to_flow()):
        sigma = S.karras(9).sigma[1:]
        torch.testing.assert_close(by_log_snr(s[torch.arange(1, 10)]), -2 * sigma.log())
        torch.testing.assert_close(by_log_sigma(s[torch.arange(1, 10)]), sigma.log() / 4)
        assert by_log_sigma(s[3]).item() == pytest.approx(math.log(sigma[2]) / 4)
    flow = S.flow(8)
    for s in (flow, flow.to_vp()):
        torch.testing.assert_close(
            by_flow_time(s.levels), torch.linspace(0, 1, 9, dtype=torch.float64)
        )


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("spec", ["linear:T=1000", "cosine:T=50", "flow:T=20", "karras:T=18"])
def test_a_trained_step_has_its_own_number(spec: str, first: int) -> None:
    s: Schedule = S.SCHEDULES.parse(spec)
    numbers = torch.arange(s.T).double() + first
    for scaled in (s, s.to_vp(), s.to_flow()):
        found = by_step(s, first)(scaled[torch.arange(1, s.T + 1)])
        torch.testing.assert_close(found, numbers, rtol=0, atol=1e-6)
        whole = by_step(s, first, rounded=True)(scaled[torch.arange(1, s.T + 1)])
        assert whole.dtype == torch.int64
        assert torch.equal(whole, numbers.long())
    assert by_step(s, first)(s[s.T]).item() == s.T - 1 + first


def test_between_steps_the_number_is_interpolated() -> None:
    """In log σ, as k-diffusion does it; numpy is the judge."""
    s = S.linear(1000)
    sigma = (s.sigma / s.alpha)[1:].numpy()
    asked = np.geomspace(sigma[0] / 3, sigma[-1] * 3, 257)
    expected = np.interp(np.log(asked), np.log(sigma), np.arange(1000))
    levels = Level(torch.ones(257).double(), torch.from_numpy(asked))
    torch.testing.assert_close(
        by_step(s, first=0)(levels), torch.from_numpy(expected), rtol=0, atol=1e-8
    )
    nearest = np.abs(np.log(asked)[:, None] - np.log(sigma)).argmin(1)
    assert by_step(s, first=0, rounded=True)(levels).tolist() == nearest.tolist()


def test_steps_towards_pure_noise() -> None:
    """Flow's last step ends at λ = −inf: there α/σ is interpolated, and α/(α+σ) is nearly t."""
    s = S.flow(10)
    label = by_step(s, first=1)
    for sigma in (0.92, 0.97, 0.999, 1.0):
        level = Level(*torch.tensor([1 - sigma, sigma], dtype=torch.float64))
        line = 10 - (1 - sigma) / sigma / (0.1 / 0.9)
        assert label(level).item() == pytest.approx(line, abs=1e-9)
    assert by_step(s, first=1, rounded=True)(s[10]).item() == 10
    one = by_step(S.linear(1), first=1)
    assert one(s[torch.tensor([2, 9])]).tolist() == [1, 1]


# --- what reaches the model


def test_the_model_gets_its_own_scale_and_a_label_for_each_item() -> None:
    seen: list[tuple[Tensor, Tensor]] = []

    def spy(x: Tensor, label: Tensor) -> Tensor:
        seen.append((x, label))
        return x

    s = S.linear(1000).to_ve()
    x = shaped(5, 2)
    ModelDenoiser(spy, "eps", "vp", by_step(s, first=0))(x, s[1000])
    torch.testing.assert_close(seen[-1][0], x / torch.sqrt(1 + s.sigma[1000] ** 2))
    assert seen[-1][1].tolist() == [999.0] * 5
    assert seen[-1][1].dtype == torch.float64
    ModelDenoiser(spy, "eps", "vp", by_step(s, first=0))(x.bfloat16(), s[1000])
    assert seen[-1][0].dtype == torch.bfloat16
    # bfloat16 would say 1000.
    assert seen[-1][1].tolist() == [999.0] * 5
    ModelDenoiser(spy, "eps", "vp", by_step(s, first=0, rounded=True))(x.float(), s[1000])
    assert seen[-1][1].dtype == torch.int64


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("kind", KINDS)
def test_the_answer_has_the_states_dtype(kind: Kind, dtype: torch.dtype) -> None:
    s = S.linear(100)
    denoiser = ModelDenoiser(lambda x, t: torch.tanh(x), kind, "vp", by_step(s, first=0))
    x = shaped(200, 2).to(dtype)
    for level in (s[50], s[torch.full((200,), 50)]):
        found, exact = denoiser(x, level), denoiser(x.double(), s[50])
        assert found.dtype == dtype
        unit = torch.finfo(dtype).eps
        torch.testing.assert_close(found.double(), exact, rtol=4 * unit, atol=4 * unit)


@pytest.mark.parametrize("predicts", [*KINDS, edm(0.5)])
def test_differentiable_in_x(predicts: Kind) -> None:
    s = S.linear(10)
    denoiser = ModelDenoiser(lambda x, t: torch.sin(x), predicts, "ve", by_step(s, first=0))
    for level in (s[5], s[torch.tensor([2, 5, 9])]):
        x = shaped(3, 2).requires_grad_()
        assert torch.autograd.gradcheck(lambda x, level=level: denoiser(x, level), x)


# --- models that are wrong


def test_wrong_models_are_refused() -> None:
    s, x = S.linear(10), shaped(3, 2)
    told = by_step(s, first=0)

    def refused(model: Callable[[Tensor, Tensor], object], error: type, match: str) -> None:
        with pytest.raises(error, match=match):
            ModelDenoiser(model, "eps", "vp", told)(x, s[5])

    level = f"at alpha = {s.alpha[5].item():.6g}, sigma = {s.sigma[5].item():.6g}"
    refused(lambda x, t: x[:, :1], ValueError, rf"{level}.*shape \(3, 1\) for x of shape \(3, 2\)")
    refused(lambda x, t: torch.cat([x, x], 1), ValueError, "take the first half of its channels")
    refused(lambda x, t: x[:1], ValueError, "they must agree")
    refused(lambda x, t: x > 0, ValueError, rf"{level}.*returned dtype torch\.bool")
    refused(lambda x, t: x.long(), ValueError, r"returned dtype torch\.int64")
    refused(lambda x, t: x + 0j, ValueError, r"returned dtype torch\.complex128")
    refused(lambda x, t: (x,), TypeError, "returned a tuple, not a tensor")
    with pytest.raises(ValueError, match="2 noise levels for x of shape"):
        ModelDenoiser(lambda x, t: x, "eps", "vp", told)(x, s[torch.tensor([1, 2])])


def test_a_label_must_be_finite_and_one_an_item() -> None:
    s, x = S.jsd(10), shaped(3, 2)
    with pytest.raises(ValueError, match="label is not finite; clamp it"):
        ModelDenoiser(lambda x, t: x, "v", "vp", by_log_snr)(x, s[10])
    with pytest.raises(ValueError, match=r"label has shape \(2,\) for 3 items"):
        ModelDenoiser(lambda x, t: x, "v", "vp", lambda level: torch.zeros(2).double())(x, s[5])
    with pytest.raises(ValueError, match="first = 2"):
        by_step(s, first=2)


def test_nan_is_passed_on() -> None:
    """Not hidden, not guarded twice: the sampling loop refuses it."""
    s, x = S.linear(10), shaped(3, 2)
    denoiser = ModelDenoiser(lambda x, t: x / 0 * 0, "x_0", "vp", by_step(s, first=0))
    assert denoiser(x, s[5]).isnan().all()


@pytest.mark.parametrize("std", [0.0, -1.0, math.nan, math.inf])
def test_edm_needs_a_spread(std: float) -> None:
    with pytest.raises(ValueError, match="a standard deviation > 0"):
        edm(std)


def test_misspelt_names_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match="'noise': a prediction is one of"):
        ModelDenoiser(lambda x, t: x, "noise", "vp", by_log_snr)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'edm': choose vp, ve or flow"):
        ModelDenoiser(lambda x, t: x, "eps", "edm", by_log_snr)  # type: ignore[arg-type]


# --- the network


class Wavy(nn.Module):
    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        return torch.sin(3 * x) + label[:, None].to(x.dtype)


@pytest.mark.parametrize("t", [0, 1, 7, 10])
def test_one_level_is_as_good_as_one_an_item(t: int) -> None:
    """Floats on one path, tensors on the other: the same numbers, ends included."""
    denoiser = NetDenoiser(Wavy(), Moments.of(0.3 * shaped(100, 2) + 1))
    x, s = shaped(4, 2), S.jsd(10)
    torch.testing.assert_close(
        denoiser(x, s[t]), denoiser(x, s[torch.full((4,), t)]), rtol=1e-12, atol=1e-12
    )


def test_a_network_is_told_log_snr_within_five() -> None:
    seen: list[float] = []

    class Spy(nn.Module):
        def forward(self, x: Tensor, label: Tensor) -> Tensor:
            seen.extend(label.tolist())
            return x

    denoiser = NetDenoiser(Spy(), Moments.of(shaped(100, 2)))
    for t in (0, 1, 2, 3, 4):  # λ = inf, 300, 8, −300, −inf
        denoiser(shaped(1, 2), S.from_log_snr([300.0, 8.0, -300.0, -math.inf])[t])
    assert seen == pytest.approx([5, 5, 2, -5, -5], abs=1e-12)


def test_a_network_in_centred_edm_is_the_wrapper_shifted() -> None:
    data = 0.3 * shaped(100, 2) + 1
    net = NetDenoiser(Wavy(), Moments.of(data))
    mean, std = net.mean.double(), net.std.item()
    told = ModelDenoiser(Wavy(), edm(std), "vp", lambda level: level.log_snr / 4)
    s, x = S.linear(10), shaped(4, 2)
    for t in (1, 5, 10):
        expected = mean + told(x - s.alpha[t] * mean, s[t])
        torch.testing.assert_close(net(x, s[t]), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_network_answers_in_the_states_dtype(dtype: torch.dtype) -> None:
    denoiser = NetDenoiser(Wavy(), Moments.of(0.3 * shaped(100, 2) + 1))
    x, s = shaped(4, 2).to(dtype), S.linear(10)
    for level in (s[5], s[torch.full((4,), 5)]):
        found = denoiser(x, level)
        assert found.dtype == dtype
        unit = torch.finfo(dtype).eps
        torch.testing.assert_close(
            found.double(), denoiser(x.double(), s[5]), rtol=4 * unit, atol=4 * unit
        )


def test_gradients_reach_the_level() -> None:
    denoiser = NetDenoiser(Wavy(), Moments.of(0.3 * shaped(100, 2) + 1))
    x = shaped(3, 2)
    for alpha in (torch.tensor(0.6), torch.tensor([0.2, 0.6, 0.9])):
        a = alpha.double().requires_grad_()
        s = (1 - alpha.double() ** 2).sqrt().requires_grad_()
        assert torch.autograd.gradcheck(lambda a, s: denoiser(x, Level(a, s)), (a, s))
