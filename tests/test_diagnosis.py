"""What the eye misses: the terminal numbers against quadrature, and remedies that do help."""

import math

import pytest
import torch

from alphabar import schedule as S
from alphabar.diagnosis import (
    REACHES_NOISE,
    describe,
    half,
    largest_step,
    remedies,
    terminal,
    warnings,
)
from alphabar.schedule import SCHEDULES, Schedule

POST = [f"{kind}:T=100,start=1e-5,end=1e-2" for kind in ("linear", "quad", "sigmoid")]


def made(spec: str) -> Schedule:
    schedule: Schedule = SCHEDULES.parse(spec)
    return schedule


@pytest.mark.parametrize(
    "spec", [*POST, "linear", "constant:T=100,beta=0.035", "karras", "log_snr"]
)
def test_kl_to_prior_by_quadrature(spec: str) -> None:
    """½·(E x_0² ᾱ + v − 1 − log v) with v = 1 − ᾱ; here summed over a grid of x_0 ~ N(0, 1)."""
    s = made(spec)
    a = s.alpha_bar[-1].item()
    x_0 = torch.linspace(-12, 12, 4001, dtype=torch.float64)
    weight = torch.softmax(-0.5 * x_0**2, 0)
    p = torch.distributions.Normal(math.sqrt(a) * x_0, math.sqrt(1 - a))
    q = torch.distributions.Normal(torch.zeros_like(x_0), torch.ones_like(x_0))
    expected = (weight * torch.distributions.kl_divergence(p, q)).sum().item()
    assert terminal(s).kl_to_prior == pytest.approx(expected, rel=1e-5, abs=1e-12)


def test_the_posts_three_never_reach_noise() -> None:
    for spec, alpha_bar in zip(POST, (0.605, 0.707, 0.605), strict=True):
        (warning,) = warnings(made(spec))
        assert warning.code == "terminal-snr"
        assert float(warning.values["alpha_bar"]) == pytest.approx(alpha_bar)
        kept = f"{math.sqrt(made(spec).alpha_bar[-1]):.0%}"
        assert warning.values["kept"] == kept


@pytest.mark.parametrize(
    "spec",
    [
        *POST,
        "constant:T=100,beta=0.035",
        "constant:T=10,beta=0.01",
        "warmup10:T=30",
        "warmup50:T=99",
        "scaled_linear:T=50",
        "log_linear:sigma_max=2",
        "karras:sigma_max=1",
        "log_snr:end=0",
        "linear:T=2",
        "linear:T=1",
        "constant:T=1,beta=1e-17",
    ],
)
def test_remedies_reach_noise(spec: str) -> None:
    assert terminal(made(spec)).kl_to_prior > REACHES_NOISE
    found = remedies(made(spec))
    assert found
    for remedy in found:
        s = made(spec).zero_terminal_snr() if remedy == "zero_terminal_snr()" else made(remedy)
        assert terminal(s).kl_to_prior <= REACHES_NOISE
        if remedy != "zero_terminal_snr()":
            assert s.spec == remedy
            assert remedy.split(":")[0] == spec.split(":")[0]


def test_the_same_T_comes_first() -> None:
    assert [r.split(",")[0] for r in remedies(made(POST[0]))] == ["linear:T=100", "linear:T=2020"]


def test_a_table_without_a_name_can_still_be_mended() -> None:
    s = S.from_betas([0.1, 0.2])
    assert remedies(s) == ["zero_terminal_snr()"]


def test_zero_snr_is_said() -> None:
    assert [w.code for w in warnings(S.jsd(10))] == ["zero-snr"]
    assert warnings(S.linear()) == []


def test_terminal_in_decibels() -> None:
    end = terminal(S.from_alpha_bar([0.5, 0.01]))
    assert end.snr_db == pytest.approx(10 * math.log10(0.01 / 0.99))
    assert terminal(S.jsd(3)) == (0, -math.inf, 0)


def test_half_and_largest_step() -> None:
    s = S.from_alpha_bar([0.9, 0.5, 0.4, 0.0])
    assert half(s) == 2
    assert half(S.linear(3)) is None
    t, drop = largest_step(s) or (0, 0.0)
    assert t == 2  # from 0.9 to 0.5; the drops from inf and to -inf do not count
    assert drop == pytest.approx(math.log(9))
    assert largest_step(S.linear(1)) is None
    assert largest_step(S.jsd(2)) is None


def test_describe_is_the_contract() -> None:
    found = describe(S.linear(4))
    assert list(found) == [
        "spec",
        "name",
        "T",
        "beta",
        "alpha_bar",
        "log_snr",
        "terminal",
        "half",
        "largest_step",
    ]
    assert found["name"] == "linear"
    assert [len(found[k]) for k in ("beta", "alpha_bar", "log_snr")] == [5, 5, 5]  # type: ignore[arg-type]
    assert (found["beta"][0], found["alpha_bar"][0]) == (0, 1)  # type: ignore[index]
    assert set(found["terminal"]) == {"alpha_bar", "snr_db", "kl_to_prior"}  # type: ignore[call-overload]
    assert set(found["largest_step"]) == {"t", "log_snr"}  # type: ignore[call-overload]
