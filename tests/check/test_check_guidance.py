"""Guidance, with a classifier and without: right in many manners, and wrong ones."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from alphabar.check.guidance import check_guidance

BETAS = torch.linspace(1e-3, 0.05, 200, dtype=torch.float64)
ABAR = torch.cumprod(1 - BETAS, 0)
BEFORE = torch.cat([torch.ones(1).double(), ABAR[:-1]])


def ids(function: object, betas: Tensor | None = None) -> list[str]:
    found = check_guidance(function, betas)  # type: ignore[arg-type]
    assert (found.verdict == "bug") == bool(found.diagnoses), found
    assert found.verdict != "unchecked", found
    return [d.id for d in found.diagnoses]


def mixed(by_u, by_c):  # type: ignore[no-untyped-def]
    def function(model, x, t, y, scale):  # type: ignore[no-untyped-def]
        u, c = model(x, t, None), model(x, t, y)
        return by_u(scale) * u + by_c(scale) * c

    return function


def doubled(net, x, t, label, scale):  # type: ignore[no-untyped-def]
    """A zero embedding for no label, and one call for both."""
    null = torch.zeros_like(label)
    c, u = net(torch.cat([x, x]), torch.cat([t, t]), torch.cat([label, null])).chunk(2)
    return u + scale * (c - u)


def null_index(x, t, net, scale, y):  # type: ignore[no-untyped-def]
    u, c = net(x, t, y=torch.full_like(y, 1000)), net(x, t, y=y)
    return torch.lerp(u, c, scale)


def answers(uncond, cond, scale=7.5):  # type: ignore[no-untyped-def]
    return uncond + scale * (cond - uncond)


def rescaled(model, x, t, y, scale, phi=0.7):  # type: ignore[no-untyped-def]
    u, c = model(x, t, None), model(x, t, y)
    g = u + scale * (c - u)
    std = [v.std(dim=(1, 2), keepdim=True) for v in (c, g)]
    return phi * g * std[0] / std[1] + (1 - phi) * g


def interval(model, x, t, y, scale):  # type: ignore[no-untyped-def]
    c = model(x, t, y)
    if int(t[0]) > 900:
        return c
    u = model(x, t, None)
    return u + scale * (c - u)


class Wrapper(nn.Module):
    def __init__(self, net, scale=3.0):  # type: ignore[no-untyped-def]
        super().__init__()
        self.net, self.scale = net, scale

    def forward(self, x, t, y):  # type: ignore[no-untyped-def]
        u = self.net(x, t, None)
        return u + self.scale * (self.net(x, t, y) - u)


@pytest.mark.parametrize(
    ("function", "verdict"),
    [
        (mixed(lambda s: 1 - s, lambda s: s), "right"),
        (doubled, "right"),
        (null_index, "right"),
        (answers, "right"),
        (Wrapper, "right"),
        (mixed(lambda s: -s, lambda s: 1 + s), "equivalent"),
        (rescaled, "equivalent"),
        (interval, "equivalent"),
    ],
)
def test_without_a_classifier(function: object, verdict: str) -> None:
    found = check_guidance(function)  # type: ignore[arg-type]
    assert found.verdict == verdict, found


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (mixed(lambda s: 1 + s, lambda s: -s), "sign-of-the-scale"),
        (mixed(lambda s: s, lambda s: 1 - s), "roles-swapped"),
        (mixed(lambda s: 1, lambda s: s), "weights-do-not-add-up"),
        (mixed(lambda s: s, lambda s: 1 + s), "weights-do-not-add-up"),
        (mixed(lambda s: 1 - s**2, lambda s: s**2), "another-scale"),
        (mixed(lambda s: 1 - s / 2, lambda s: s / 2), "another-scale"),
        (mixed(lambda s: 0, lambda s: 1), "scale-ignored"),
        (mixed(lambda s: 1, lambda s: 0), "label-ignored"),
        (lambda m, x, t, y, s: answers(m(x, t, y), m(x, t, None), s), "roles-swapped"),
        (lambda m, x, t, y, s: answers(m(x, t, y), m(x, t, y), s), "scale-ignored"),
        (lambda m, x, t, y, s: answers(m(2 * x, t, None), m(2 * x, t, y), s), "asked-elsewhere"),
        (lambda u, c, s: u + s * c, "weights-do-not-add-up"),
    ],
)
def test_wrong_ones_are_described(function: object, kind: str) -> None:
    assert ids(function) == [f"guidance/{kind}"]


@settings(max_examples=8, deadline=None)
@given(a=st.floats(-2, 2), b=st.floats(-2, 2))
def test_weights_that_are_linear_in_the_scale(a: float, b: float) -> None:
    """Right where c has weight s, or 1 + s, and u the rest; wrong otherwise."""
    found = check_guidance(mixed(lambda s: 1 - a - b * s, lambda s: a + b * s))
    if abs(b - 1) < 1e-3 and min(abs(a), abs(a - 1)) < 1e-3:
        assert found.verdict != "unchecked"
    elif abs(b - 1) > 1e-2 or min(abs(a), abs(a - 1)) > 1e-2:
        assert found.verdict == "bug"


def step(place: str = "mean", variance: str = "tilde", sign: float = 1.0, power: float = 1.0):  # type: ignore[no-untyped-def]
    def function(model, gradient, x, t, scale=1.0):  # type: ignore[no-untyped-def]
        a, b, beta = ABAR[t, None], BEFORE[t, None], BETAS[t, None]
        tilde = beta * (1 - b) / (1 - a)
        mean = (x - beta / (1 - a).sqrt() * model(x, t)) / (1 - beta).sqrt()
        at = mean.float() if place == "mean" else x
        var = tilde if variance == "tilde" else beta
        shift = sign * scale * var**power * gradient(at, t)
        return (mean + shift + (t > 0)[:, None] * var.sqrt() * torch.randn_like(x)).float()

    return function


def guided_eps(place: str = "x_t", sign: float = -1.0):  # type: ignore[no-untyped-def]
    def function(model, gradient, x, t, scale):  # type: ignore[no-untyped-def]
        at = x if place == "x_t" else 0.9 * x
        return model(x, t) + sign * (1 - ABAR[t, None]).sqrt().float() * scale * gradient(at, t)

    return function


def by_autograd(model, log_p, x, t, scale):  # type: ignore[no-untyped-def]
    def gradient(y, t):  # type: ignore[no-untyped-def]
        with torch.enable_grad():
            y = y.detach().requires_grad_()
            return torch.autograd.grad(log_p(y, t).sum(), y)[0]

    return step()(model, gradient, x, t, scale)


@pytest.mark.parametrize("function", [step(), step(variance="beta"), guided_eps(), by_autograd])
def test_with_a_classifier(function: object) -> None:
    assert ids(function, BETAS) == []


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (step(place="x_t"), "A32"),
        (step(place="x_t", variance="beta"), "A32"),
        (step(sign=-1.0), "guidance/∇:-sign"),
        (guided_eps(sign=1.0), "guidance/∇:-sign"),
        (guided_eps(place="elsewhere"), "guidance/gradient-elsewhere"),
    ],
)
def test_wrong_classifier_guidance_is_named(function: object, kind: str) -> None:
    assert ids(function, BETAS)[:1] == [kind]


@pytest.mark.parametrize("function", [step(power=0.5), step(sign=2.0), step(power=2.0)])
def test_wrong_size_of_the_gradient_is_seen(function: object) -> None:
    assert ids(function, BETAS)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="predicts = 'score': choose eps, x_0, v"):
        check_guidance(answers, predicts="score")
    found = check_guidance(step())
    assert found.verdict == "unchecked"
    assert "give betas" in found.why
    found = check_guidance(lambda model, gradient, x, t, scale: 1 / 0, BETAS)
    assert found.verdict == "unchecked"
    assert "ZeroDivisionError" in found.why


def test_a_model_is_asked_in_one_order() -> None:
    def label_first(model, x, t, y, scale):  # type: ignore[no-untyped-def]
        u, c = model(x, None, t), model(x, y, t)
        return u + scale * (c - u)

    def label_once_first(model, x, t, y, scale):  # type: ignore[no-untyped-def]
        u, c = model(x, t, None), model(x, y, t)
        return u + scale * (c - u)

    assert ids(label_first) == []
    assert ids(label_once_first) == ["guidance/asked-in-two-orders"]


@pytest.mark.parametrize(
    "function",
    [lambda c, u, s: u + s * (c - u), lambda c, u, w: (1 + w) * c - w * u],
)
def test_the_answer_with_the_label_may_come_first(function) -> None:  # type: ignore[no-untyped-def]
    found = check_guidance(function)
    assert found.verdict == "equivalent"
    assert "with the label is handed over first" in found.convention
    assert check_guidance(lambda c, u, s: c + s * u).verdict == "bug"
