"""Terms of the bound: against torch.distributions, right in many manners, and wrong ones."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from alphabar.check.likelihood import check_likelihood

BETAS = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
ABAR = torch.cumprod(1 - BETAS, 0)
BEFORE = torch.cat([torch.ones(1).double(), ABAR[:-1]])
TILDE = BETAS * (1 - BEFORE) / (1 - ABAR)


def ids(function: object, predicts: str = "eps") -> list[str]:
    found = check_likelihood(function, BETAS, predicts)  # type: ignore[arg-type]
    assert (found.verdict == "bug") == bool(found.diagnoses), found
    return [d.id for d in found.diagnoses]


def prior(half: float = 0.5, end: int = -1, square: int = 2, log: float = -1.0, one: float = -1.0):  # type: ignore[no-untyped-def]
    def function(x_0: Tensor) -> Tensor:
        v = 1 - ABAR[end]
        m = ABAR[end].sqrt() * x_0.double()
        return (half * (v + m**square + one + log * v.log())).flatten(1).sum(1)

    return function


def bound(half: float = 0.5, variance: Tensor = TILDE, other: Tensor = TILDE, mean: int = 0):  # type: ignore[no-untyped-def]
    """By torch.distributions where nothing is wrong."""

    def function(model, x_0: Tensor, t: Tensor, noise: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        a, b = ABAR[t, None], BEFORE[t + mean, None]
        x_t = a.sqrt() * x_0 + (1 - a).sqrt() * noise
        guess = (x_t - (1 - a).sqrt() * model(x_t, t)) / a.sqrt()

        def mu(x: Tensor) -> Tensor:
            first = b.sqrt() * BETAS[t, None] / (1 - a)
            return first * x + (1 - BETAS[t, None]).sqrt() * (1 - b) / (1 - a) * x_t

        q = Normal(mu(x_0), variance[t, None].sqrt())
        p = Normal(mu(guess), other[t, None].sqrt())
        return 2 * half * kl_divergence(q, p).flatten(1).sum(1)

    return function


def bound_x_0(model, x_0: Tensor, t: Tensor, noise: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
    a, b = ABAR[t, None], BEFORE[t, None]
    guess = model(a.sqrt() * x_0 + (1 - a).sqrt() * noise, t)
    weight = 0.5 * (b / (1 - b) - a / (1 - a))  # Kingma et al. 2021, eq. (14)
    return (weight * (x_0 - guess) ** 2).sum(1)


def bound_v(model, x_0: Tensor, t: Tensor, noise: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
    a, b = ABAR[t, None], BEFORE[t, None]
    x_t = a.sqrt() * x_0 + (1 - a).sqrt() * noise
    guess = a.sqrt() * x_t - (1 - a).sqrt() * model(x_t, t)
    return (0.5 * (b / (1 - b) - a / (1 - a)) * (x_0 - guess) ** 2).sum(1)


def normal_kl(m, lv, n, lw):  # type: ignore[no-untyped-def]
    return 0.5 * (-1.0 + lw - lv + torch.exp(lv - lw) + (m - n) ** 2 * torch.exp(-lw))


def grouped(m, n, s, r):  # type: ignore[no-untyped-def]
    """Means, then standard deviations."""
    return kl_divergence(Normal(m, s), Normal(n, r)).sum(1)


def log_prob(x, mean, logvar):  # type: ignore[no-untyped-def]
    return -0.5 * (math.log(2 * math.pi) + logvar + (x - mean) ** 2 * torch.exp(-logvar))


@pytest.mark.parametrize(
    "function", [prior(), bound(), normal_kl, grouped, log_prob,
                 lambda x: prior()(x).float(), bound(other=BETAS)]
)  # fmt: skip
def test_right(function: object) -> None:
    assert ids(function) == []


def test_other_predictions() -> None:
    assert ids(bound_x_0, "x_0") == []
    assert ids(bound_v, "v") == []
    assert ids(bound_v, "x_0") != []


@pytest.mark.parametrize("right", [prior(), bound(), normal_kl])
@pytest.mark.parametrize(
    "change",
    [lambda k: k / math.log(2), lambda k: k.mean(), lambda k: k / 3, lambda k: k.sum()],
)
def test_units_are_conventions(right, change) -> None:  # type: ignore[no-untyped-def]
    if right is normal_kl and change(torch.tensor(3.0)) == 1:
        return  # a third of a number is no average

    if right is normal_kl:
        found = check_likelihood(lambda a, b, c, d: change(right(a, b, c, d)), BETAS)
    elif right.__code__.co_argcount == 1:
        found = check_likelihood(lambda x: change(right(x)), BETAS)
    else:
        found = check_likelihood(lambda m, x, t, z: change(right(m, x, t, z)), BETAS)
    assert found.verdict == "equivalent", found


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (prior(half=1.0), "without-the-half"),
        (prior(end=-2), "of-ᾱ_{T−1}"),
        (prior(log=1.0), "with-the-sign-of-the-logarithm-flipped"),
        (prior(one=0.0), "without-the-−1"),
        (prior(half=-0.5), "with-its-sign-flipped"),
        (bound(half=1.0), "error:-twice"),
        (bound(half=0.25), "error:-half"),
        (lambda a, b, c, d: normal_kl(c, d, a, b), "with-p-and-q-exchanged"),
        (lambda a, b, c, d: 2 * normal_kl(a, b, c, d), "without-the-half"),
        (lambda m, lv, n, lw: normal_kl(m, lv, n, lw) + lv - lw,
         "with-the-sign-of-the-logarithm-flipped"),
        (lambda x, m, lv: log_prob(x, m, lv) + 0.5 * math.log(2 * math.pi), "without-2π"),
        (lambda x, m, lv: log_prob(x, m, lv) * 2, "without-the-half"),
    ],
)  # fmt: skip
def test_wrong_ones_are_named(function: object, kind: str) -> None:
    assert ids(function) == [f"likelihood/{kind}"]


@pytest.mark.parametrize(
    "function",
    [
        bound(variance=TILDE.sqrt(), other=TILDE.sqrt()),
        bound(mean=-1),
        bound(variance=TILDE, other=TILDE.square()),
        lambda m, x, t, z: bound()(m, x, t, z) + 1,
        prior(square=1),
        prior(square=4),
        lambda x: x.flatten(1).sum(1) / 0,
        lambda x: x.flatten(1).square().sum(1),
    ],
)
def test_other_wrong_ones_are_seen(function: object) -> None:
    assert len(ids(function)) >= 1


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="predicts = 'flow': choose eps, x_0, v"):
        check_likelihood(prior(), BETAS, "flow")
    found = check_likelihood(lambda a, b, c, d, e: a, BETAS)
    assert found.verdict == "unchecked"
    assert "given={'name': value}" in found.why
    assert check_likelihood(lambda x: "text", BETAS).verdict == "unchecked"
