"""check.marginal: items with a t of their own, what stands beside the result, and its arguments."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from alphabar import check
from alphabar.check.report import Finding

BETAS = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
ABAR = (1 - BETAS).cumprod(0).float()


def along_items(values: Tensor, x: Tensor) -> Tensor:
    return values.reshape(-1, *(1,) * (x.ndim - 1))


def along_last(values: Tensor, x: Tensor) -> Tensor:
    return values.reshape(*(1,) * (x.ndim - 1), -1)


def mixed(x_0: Tensor, t: Any, noise: Tensor, laid: Any = along_items) -> Tensor:
    abar = laid(ABAR[t], x_0)
    return abar.sqrt() * x_0 + (1 - abar).sqrt() * noise


def finding(function: Any, **facts: Any) -> Finding:
    return check.marginal(function, **{"betas": BETAS, **facts}).functions[0]


def ids(found: Finding) -> list[str]:
    return [d.id for d in found.diagnoses]


def test_t_along_the_items() -> None:
    assert finding(mixed).verdict == "right"


def test_t_along_the_last_axis_mixes_items() -> None:
    found = finding(lambda x_0, t, noise: mixed(x_0, t, noise, along_last))
    assert found.verdict == "fragile"
    assert "last axis" in found.why


def test_only_a_batch_of_t_and_that_along_the_last_axis() -> None:
    def q_sample(x_0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        assert len(t)  # a number has no length
        return mixed(x_0, t, noise, along_last)

    found = finding(q_sample)
    assert found.verdict == "bug"
    assert ids(found) == ["marginal/mixed-t"]


def test_one_t_of_a_batch_is_wrong() -> None:
    def q_sample(x_0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        return mixed(x_0, t.clone().index_fill_(0, torch.tensor([0]), int(t[-1])), noise)

    assert ids(finding(q_sample)) == ["marginal/mixed-t"]


def test_a_second_draw_does_no_harm() -> None:
    def q_sample(x_0: Tensor, t: Tensor) -> Tensor:
        result = mixed(x_0, t, torch.randn_like(x_0))
        torch.randn_like(x_0)
        return result

    assert finding(q_sample).verdict == "right"


@pytest.mark.parametrize("base", [0, 1])
def test_a_process_of_one_step(base: int) -> None:
    abar = torch.tensor([1.0] * base + [1e-3])

    def q_sample(x_0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        now = along_items(abar[t], x_0)
        return now.sqrt() * x_0 + (1 - now).sqrt() * noise

    found = finding(q_sample, betas=[1 - 1e-3])
    assert found.verdict == "right"
    assert f"t counts from {base}" in found.convention


def test_noise_of_either_sign_has_one_law() -> None:
    assert finding(lambda x_0, t: mixed(x_0, t, -torch.randn_like(x_0))).verdict == "right"


@pytest.mark.parametrize("turned", [False, True])
def test_the_noise_that_is_returned(turned: bool) -> None:
    def q_sample(x_0: Tensor, t: Tensor) -> tuple[Tensor, ...]:
        noise = torch.randn_like(x_0)
        both = mixed(x_0, t, noise), noise
        return both[::-1] if turned else both

    def twice(x_0: Tensor, t: Tensor) -> tuple[Tensor, ...]:
        both = mixed(x_0, t, torch.randn_like(x_0)), torch.randn_like(x_0)
        return both[::-1] if turned else both

    def masked(x_0: Tensor, t: Tensor) -> tuple[Tensor, ...]:
        both = *q_sample(x_0, t), (torch.rand_like(x_0) > 0.5).float()
        return both[::-1] if turned else both

    def of_two_times(x_0: Tensor, t: Tensor) -> tuple[Tensor, ...]:
        return twice(x_0, t)[turned], mixed(x_0, (t - 9).clamp(0), torch.randn_like(x_0))

    assert finding(q_sample).verdict == "right"
    assert finding(masked).verdict == "right"
    assert finding(of_two_times).verdict == "right"
    assert ids(finding(twice)) == ["marginal/other-noise"]


def test_noise_with_a_default_may_be_left_out() -> None:
    def q_sample(x_0: Tensor, t: Tensor, noise: Tensor | None = None) -> Tensor:
        assert noise is not None
        return mixed(x_0, t, noise)

    found = finding(q_sample)
    assert ids(found) == ["marginal/not-optional"]
    assert "without noise" in found.diagnoses[0].explains


def test_noise_that_is_not_normal() -> None:
    def said(noise: Any) -> tuple[str, ...]:
        found = finding(lambda x_0, t: mixed(x_0, t, noise(torch.rand_like, x_0)))
        return found.diagnoses[0].id, found.diagnoses[0].explains, *ids(found)[1:]

    known = "A1", "the noise is uniform on [0, 1], of mean 0.5 and variance 0.083"
    assert said(lambda rand, x: rand(x)) == known
    assert said(lambda rand, x: 2 * rand(x) - 1) == ("A1", "the noise is uniform around 0")
    of_twelve = said(lambda rand, x: sum(rand(x) for _ in range(12)) - 6)
    assert of_twelve[0] == "marginal/noise-of-another-law"


def ve(sign: float = 1.0, ratio: float = 5000.0) -> Any:
    def marginal_prob(x_0: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        std = along_items(torch.as_tensor(sign * 0.01 * ratio**t), x_0)
        return x_0, std.expand_as(x_0)

    return marginal_prob


def test_a_spread_that_nobody_has_stated_is_a_spread() -> None:
    facts = {"betas": None, "scale": "ve"}
    found = finding(ve(), **facts)
    assert found.verdict == "right"
    assert "nobody has stated it" in found.convention
    assert ids(finding(ve(sign=-1.0), **facts)) == ["marginal/no-spread"]
    assert ids(finding(ve(ratio=-5000.0), **facts)) == ["marginal/no-spread"]  # NaN


def test_continuous_time_is_looked_at_near_its_ends() -> None:
    def perturb(x_0: Tensor, t: Tensor, sign: float = 1.0) -> Tensor:
        area = along_items(torch.as_tensor(sign * 0.1 * t + 0.5 * 19.9 * t**2), x_0)
        spread = torch.sqrt(-torch.expm1(-area))
        return torch.exp(-0.5 * area) * x_0 + spread * torch.randn_like(x_0)

    assert finding(perturb, betas=None).verdict == "right"
    turned = finding(lambda x_0, t: perturb(x_0, t, -1.0), betas=None)
    assert turned.verdict == "bug"
    assert "NaN" in turned.diagnoses[0].explains


def test_pure_noise_at_the_end_of_continuous_time() -> None:
    def perturb(x_0: Tensor, t: Tensor) -> Tensor:
        angle = along_items(torch.as_tensor(t, dtype=x_0.dtype), x_0) * math.pi / 2
        return angle.cos() * x_0 + angle.sin() * torch.randn_like(x_0)

    found = finding(perturb, betas=None)
    assert found.verdict == "right"
    # What is expected is that of the levels that were measured.
    assert found.measured.partition(";")[2] == found.expected.partition(";")[2]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_tables_in_half_precision(dtype: torch.dtype) -> None:
    signal, spread = ABAR.sqrt().to(dtype), (1 - ABAR).sqrt().to(dtype)

    def q_sample(x_0: Tensor, t: Tensor, noise: Tensor, share: float = 1.0) -> Tensor:
        kept, added = along_items(signal[t], x_0), along_items(spread[t], x_0)
        return kept * x_0 + share * added * noise

    found = finding(q_sample)
    assert found.verdict == "fragile"
    assert str(dtype) in found.why
    assert finding(lambda x_0, t, noise: q_sample(x_0, t, noise, 1.01)).verdict == "bug"


@pytest.mark.parametrize("least", [1e-4, 1e-2])
def test_a_flow_with_a_least_noise(least: float) -> None:
    """x_t = t·x_1 + (1 − (1 − σ_min)·t)·ε: Lipman et al. 2023, eq. (22)."""

    def path(x_0: Tensor, t: Tensor, noise: Tensor, more: float = 0.0) -> Tensor:
        t = along_items(torch.as_tensor(t, dtype=x_0.dtype), x_0)
        return (t + more) * x_0 + (1 - (1 - least) * t) * noise

    facts = {"betas": None, "scale": "flow"}
    found = finding(path, **facts)
    assert found.verdict == "equivalent"
    assert f"σ_min = {least:g}" in found.convention
    assert finding(lambda x_0, t, z: path(x_0, t, z, 0.01), **facts).verdict == "bug"
