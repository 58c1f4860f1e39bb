"""Conversions against the definitions of what is predicted, at and between the schedule's ends."""

import math
from itertools import product
from typing import get_args

import jaxtyping
import pytest
import torch
from torch import Tensor

from alphabar import schedule as S
from alphabar.predict import Kind, coefficients, convert, from_x_0, to_x_0
from alphabar.schedule import Level

KINDS: list[Kind] = list(get_args(Kind))
PAIRS = [(a, b) for a, b in product(KINDS, KINDS) if a != b]
SCALES = ["vp", "ve", "flow", "other"]


def shaped(*shape: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def level_at(log_snr: float, scale: str) -> Level:
    """The level of this log-SNR, from the scale's own equation."""
    if scale == "vp":
        return Level(
            number(1 / math.sqrt(1 + math.exp(-log_snr))),
            number(1 / math.sqrt(1 + math.exp(log_snr))),
        )
    if scale == "ve":
        return Level(number(1.0), number(math.exp(-log_snr / 2)))
    if scale == "flow":
        return Level(
            number(1 / (1 + math.exp(-log_snr / 2))), number(1 / (1 + math.exp(log_snr / 2)))
        )
    return Level(number(0.3 * math.exp(log_snr / 4)), number(0.3 * math.exp(-log_snr / 4)))


def defined(kind: Kind, x_0: Tensor, eps: Tensor, level: Level) -> Tensor:
    """What a perfect model of this kind would say, from x_0 and ε themselves."""
    alpha, sigma = level
    match kind:
        case "x_0":
            return x_0
        case "eps":
            return eps
        case "v":
            return alpha * eps - sigma * x_0
        case "score":
            return -eps / sigma
        case "flow":
            return eps - x_0


# --- between the ends


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("log_snr", [-6.0, -0.5, 0.0, 1.7, 6.0])
def test_every_kind_gives_every_other(scale: str, log_snr: float) -> None:
    level = level_at(log_snr, scale)
    x_0, eps = shaped(5, 3), shaped(5, 3, seed=2)
    x_t = level.alpha * x_0 + level.sigma * eps
    for source, target in product(KINDS, KINDS):
        found = convert(source, target, defined(source, x_0, eps, level), x_t, level)
        torch.testing.assert_close(found, defined(target, x_0, eps, level), rtol=1e-11, atol=1e-11)
    for kind in KINDS:
        output = defined(kind, x_0, eps, level)
        torch.testing.assert_close(to_x_0(kind, output, x_t, level), x_0, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(from_x_0(kind, x_0, x_t, level), output, rtol=1e-11, atol=1e-11)


def test_score_is_the_slope_of_the_log_density() -> None:
    """Data at −1 and 2 with weights ¼ and ¾: autograd's ∇log p(x_t) against E[x_0 | x_t]."""
    places, weights = torch.tensor([-1.0, 2.0]).double(), torch.tensor([0.25, 0.75]).double()
    x_t = torch.linspace(-3, 4, 15, dtype=torch.float64)[:, None].requires_grad_()
    for scale in SCALES:
        level = level_at(0.4, scale)
        density = weights * torch.exp(-0.5 * ((x_t - level.alpha * places) / level.sigma) ** 2)
        (score,) = torch.autograd.grad(density.sum(1).log().sum(), x_t, retain_graph=True)
        x_0_hat = ((density * places).sum(1) / density.sum(1))[:, None].detach()
        torch.testing.assert_close(from_x_0("score", x_0_hat, x_t.detach(), level), score)
        torch.testing.assert_close(to_x_0("score", score, x_t.detach(), level), x_0_hat)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", ["vp", "ve", "flow"])
@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_round_trips(source: Kind, target: Kind, scale: str, dtype: torch.dtype) -> None:
    """There and back at λ = −40..40 costs the rounding of the numbers on the way, no more.

    A rounding error on the way counts times b of the way back: what the second kind cannot hold is
    lost, and nothing else. Where neither way enlarges anything, that is a few units of rounding.
    """
    unit = torch.finfo(dtype).eps
    for log_snr in range(-40, 41, 4):
        level = level_at(float(log_snr), scale)
        x_t, output = shaped(50, 2).to(dtype), shaped(50, 2, seed=2).to(dtype)
        x_t = x_t * float(torch.hypot(*level))
        if source == "score":
            output = output / float(level.sigma)
        there = convert(source, target, output, x_t, level)
        back = convert(target, source, there, x_t, level)
        assert there.dtype == back.dtype == dtype
        a, b = (abs(float(c)) for c in coefficients(source, target, *map(float, level)))
        a_, b_ = (abs(float(c)) for c in coefficients(target, source, *map(float, level)))
        assert b * b_ == pytest.approx(1, rel=1e-9)
        size = a_ * x_t.abs() + b_ * (a * x_t.abs() + b * output.abs())
        assert ((back - output).abs() <= 3 * unit * size).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["v", "flow", "eps", "score"])
def test_x_0_comes_back_from_what_can_hold_it(kind: Kind, dtype: torch.dtype) -> None:
    """From v and flow at every level; from eps and score where there is more data than noise."""
    unit = torch.finfo(dtype).eps
    for log_snr in range(-40 if kind in ("v", "flow") else 0, 41, 4):
        for scale in ("vp", "flow"):
            level = level_at(float(log_snr), scale)
            x_0, x_t = shaped(50, 2).to(dtype), shaped(50, 2, seed=2).to(dtype)
            back = to_x_0(kind, from_x_0(kind, x_0, x_t, level), x_t, level)
            assert (back - x_0).abs().max() < 40 * unit


def test_eps_becomes_v_with_all_its_digits_near_clean_data() -> None:
    """At λ = 30, float32's x̂_0 no longer holds ε; the conversion does not go through it."""
    level = level_at(30.0, "vp")
    x_0, eps = shaped(50, 2).float(), shaped(50, 2, seed=2).float()
    x_t = level.alpha * x_0 + level.sigma * eps
    v = convert("eps", "v", eps, x_t, level)
    torch.testing.assert_close(v, level.alpha * eps - level.sigma * x_0, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(convert("v", "eps", v, x_t, level), eps, rtol=1e-6, atol=1e-6)
    assert (from_x_0("eps", to_x_0("eps", eps, x_t, level), x_t, level) - eps).abs().max() > 0.01


# --- at the ends


@pytest.mark.parametrize("batch", [False, True])
def test_clean_data(batch: bool) -> None:
    """σ = 0: E[ε | x_t] = 0, and x̂_0 is x_t/α whatever was predicted."""
    x_t, output = shaped(3, 2), shaped(3, 2, seed=2)
    one = Level(number(0.8), number(0.0))
    level = Level(*(v.expand(3) for v in one)) if batch else one
    for kind in ("eps", "v", "score", "flow"):
        torch.testing.assert_close(to_x_0(kind, output, x_t, level), x_t / 0.8)
    assert torch.equal(to_x_0("x_0", output, x_t, level), output)
    assert (from_x_0("eps", output, x_t, level) == 0).all()
    assert (from_x_0("v", output, x_t, level) == 0).all()
    assert torch.equal(from_x_0("flow", output, x_t, level), -output)
    assert (convert("score", "eps", output, x_t, level) == 0).all()
    assert torch.equal(convert("score", "score", output, x_t, level), output)
    for kind in ("x_0", "eps", "v", "flow"):
        with pytest.raises(ValueError, match="sigma = 0: clean data have no score"):
            convert(kind, "score", output, x_t, level)


@pytest.mark.parametrize("batch", [False, True])
def test_pure_noise(batch: bool) -> None:
    """α = 0: x_t is σ·ε, and of the kinds only x_0, v and flow say anything about x_0."""
    x_0, eps = shaped(3, 2), shaped(3, 2, seed=2)
    one = Level(number(0.0), number(0.8))
    level = Level(*(v.expand(3) for v in one)) if batch else one
    x_t = 0.8 * eps
    for source, target in product(["x_0", "v", "flow"], KINDS):
        found = convert(source, target, defined(source, x_0, eps, one), x_t, level)
        torch.testing.assert_close(found, defined(target, x_0, eps, one))
    for source, target in product(["eps", "score"], ["x_0", "v", "flow"]):
        with pytest.raises(ValueError, match=r"alpha = 0, sigma = 0\.8: in pure noise"):
            convert(source, target, eps, x_t, level)
    torch.testing.assert_close(convert("eps", "score", eps, x_t, level), -eps / 0.8)
    torch.testing.assert_close(convert("score", "eps", -eps / 0.8, x_t, level), eps)


def test_ends_within_a_batch() -> None:
    """Each item by its own level: the end of one is not another's."""
    s = S.jsd(10)
    x_t, output = shaped(3, 2), shaped(3, 2, seed=2)
    levels = s[torch.tensor([0, 5, 10])]
    for source, target in (("x_0", "eps"), ("x_0", "v"), ("v", "x_0"), ("flow", "eps")):
        whole = convert(source, target, output, x_t, levels)
        for i, t in enumerate((0, 5, 10)):
            one = convert(source, target, output[i : i + 1], x_t[i : i + 1], s[t])
            torch.testing.assert_close(whole[i : i + 1], one, rtol=1e-14, atol=1e-15)
    with pytest.raises(ValueError, match="alpha = 0 to 1, sigma = 0 to 1: in pure noise"):
        to_x_0("eps", output, x_t, levels)
    with pytest.raises(ValueError, match="no score"):
        from_x_0("score", output, x_t, levels)


# --- shapes, dtypes, gradients


@pytest.mark.parametrize("shape", [(4,), (4, 2), (4, 3, 5, 7)])
def test_one_level_per_item_equals_item_by_item(shape: tuple[int, ...]) -> None:
    s, t = S.cosine(20), torch.tensor([1, 20, 7, 13])
    x_t, output = shaped(*shape).float(), shaped(*shape, seed=2).float()
    for source, target in PAIRS:
        whole = convert(source, target, output, x_t, s[t])
        for i in range(4):
            one = convert(source, target, output[i : i + 1], x_t[i : i + 1], s[int(t[i])])
            torch.testing.assert_close(whole[i : i + 1], one, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("batch", [False, True])
def test_half_precision_is_rounded_once(dtype: torch.dtype, batch: bool) -> None:
    s = S.linear(1000)
    x_t, output = shaped(1000, 2).to(dtype), shaped(1000, 2, seed=2).to(dtype)
    for t in (100, 500, 900):
        level = s[torch.full((1000,), t)] if batch else s[t]
        for source, target in PAIRS:
            found = convert(source, target, output, x_t, level)
            exact = convert(source, target, output.double(), x_t.double(), s[t])
            assert found.dtype == dtype
            # Half a unit in the last place, and float32's own error.
            near = torch.finfo(dtype).eps / 2 * exact.abs() + 2e-6 * (1 + exact.abs().max())
            assert ((found.double() - exact).abs() <= near).all()


def test_the_answer_has_the_states_dtype() -> None:
    level = S.linear(10)[5]
    x_t, output = shaped(3, 2).float(), shaped(3, 2)
    assert to_x_0("v", output.bfloat16(), x_t, level).dtype == torch.float32
    assert to_x_0("v", output, x_t, level).dtype == torch.float32
    assert to_x_0("x_0", output, x_t, level).dtype == torch.float32


@pytest.mark.parametrize("batch", [False, True])
def test_gradients(batch: bool) -> None:
    level = S.linear(10)[torch.tensor([2, 5, 9])] if batch else S.linear(10)[5]
    x_t, output = shaped(3, 2).requires_grad_(), shaped(3, 2, seed=2).requires_grad_()
    for source, target in PAIRS:
        assert torch.autograd.gradcheck(
            lambda y, x, a=source, b=target: convert(a, b, y, x, level), (output, x_t)
        )


def test_gradients_reach_the_level() -> None:
    x_t, output = shaped(3, 2), shaped(3, 2, seed=2)
    alpha, sigma = number(0.6).requires_grad_(), number(0.7).requires_grad_()
    for source, target in PAIRS:
        assert torch.autograd.gradcheck(
            lambda a, s, i=source, j=target: convert(i, j, output, x_t, Level(a, s)), (alpha, sigma)
        )


# --- what is refused


def test_refused() -> None:
    s, x = S.linear(10), shaped(3, 2)
    with pytest.raises(ValueError, match=r"shape \(3, 1\), x_t has \(3, 2\)"):
        to_x_0("v", x[:, :1], x, s[5])
    with pytest.raises(ValueError, match="2 noise levels for x of shape"):
        to_x_0("v", x, x, s[torch.tensor([1, 2])])


def test_refused_where_nobody_checks_types(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    s, x = S.linear(10), shaped(3, 2)
    with pytest.raises(ValueError, match="'noise': a prediction is one of x_0, eps, v, score, fl"):
        to_x_0("noise", x, x, s[5])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="real numbers"):
        to_x_0("v", x.long(), x.long(), s[5])
