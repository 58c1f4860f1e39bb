"""check.time_sampling: right draws in many forms, and draws that leave steps out."""

import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from alphabar.check.chance import ONE
from alphabar.check.time_sampling import _distance, _far, check_time_sampling

T = 1000


def kinds(function: object, T: int | None = T, scale: str = "vp") -> tuple[str, list[str]]:
    found = check_time_sampling(function, T, scale)  # type: ignore[arg-type]
    return found.verdict, [d.id for d in found.diagnoses]


def paired(n: int) -> Tensor:
    half = torch.randint(0, T, (n // 2,))
    return torch.cat([half, T - 1 - half])


def even(n: int) -> Tensor:
    return (torch.arange(n) + torch.rand(())) / n


@settings(max_examples=15, deadline=None)
@given(steps=st.integers(1, 1000), base=st.sampled_from([0, 1]))
def test_whole_numbers(steps: int, base: int) -> None:
    fine = kinds(lambda n: torch.randint(base, steps + base, (n,)), steps)
    # Of two or three values many draws are as good as evenly spread.
    assert fine in [("right", [])] + [("equivalent", [])] * (steps < 4)
    if steps > 2:
        never = kinds(lambda n: torch.randint(0, steps - 1, (n,)), steps)
        assert never == ("bug", ["time_sampling/never-the-last"])
        first = kinds(lambda n: torch.randint(2, steps + 1, (n,)), steps)
        assert first == ("fragile", [])  # right if sampling leaves it out too


def test_right_draws_in_many_forms() -> None:
    rng = np.random.default_rng(0)
    for function in (
        lambda n: torch.randint(0, T, (n,)),
        lambda n: rng.integers(0, T, n),
        lambda n, device: torch.randint(0, T, (n,), device=device),
        lambda shape: torch.randint(0, T, shape),
        lambda x: torch.randint(0, T, (x.shape[0],)),
        lambda n, steps: torch.randint(0, steps, (n,)),
        lambda n: (torch.randint(0, T, (n,)), torch.ones(n)),
        lambda n: torch.randint(0, T, (n,)).tolist(),
        lambda: torch.randint(0, T, (128,)),
    ):
        assert kinds(function)[0] == "right"
    assert kinds(paired)[0] == "equivalent"
    assert kinds(lambda n: torch.rand(n)) == ("equivalent", [])
    assert kinds(lambda n: (even(n) * T).long())[0] == "equivalent"


def test_whole_numbers_that_are_drawn_wrongly() -> None:
    for function, kind in (
        (lambda n: torch.randint(0, T + 1, (n,)), "one-too-many"),
        (lambda n: torch.randint(0, T // 2, (n,)), "some-never"),
        (lambda n: torch.randint(0, 2 * T, (n,)), "outside"),
        (lambda n: (torch.rand(n) ** 2 * T).long(), "not-uniform"),
        (lambda n: (torch.rand(n) * (T - 1)).round().long(), "not-uniform"),  # half at the ends
        (lambda n: torch.arange(n) % T, "the-same-each-call"),
        (lambda n: torch.randn(n) * T, "A5"),
    ):
        verdict, found = kinds(function)
        assert (verdict, found[0].removeprefix("time_sampling/")) == ("bug", kind)

    def fixed(n: int) -> Tensor:
        return torch.randint(0, T, (n,), generator=torch.Generator().manual_seed(0))

    assert kinds(fixed) == ("bug", ["time_sampling/the-same-each-call"])
    shared = check_time_sampling(lambda n: torch.randint(0, T, (1,)).expand(n), T)
    assert (shared.verdict, "one t for each" in shared.why) == ("fragile", True)


def test_times_of_a_flow() -> None:
    def shifted(n: int) -> Tensor:
        u = torch.rand(n)
        return 3 * u / (1 + 2 * u)

    for function, words in (
        (lambda n: torch.rand(n), ""),
        (lambda n: torch.rand(n, dtype=torch.float16), ""),
        (even, "evenly"),
        (lambda n: torch.randn(n).sigmoid(), "logit-normal"),
        (lambda n: (0.5 + 0.8 * torch.randn(n)).sigmoid(), "logit-normal, mean 0."),
        (lambda n: 0.03 + 0.97 * torch.rand(n), "from 0.03"),
        (shifted, "shifted by 3"),
    ):
        found = check_time_sampling(function, scale="flow")
        assert found.verdict == ("equivalent" if words else "right"), found
        assert words in found.convention
    for function, kind in (
        (lambda n: torch.randn(n), "A5"),
        (lambda n: 0.5 + 0.2 * torch.randn(n), "A5"),
        (lambda n: torch.randn(n).clamp(0, 1), "time_sampling/not-uniform"),
        (lambda n: torch.rand(n) ** 2, "time_sampling/not-uniform"),
        (lambda n: 3 * torch.rand(n) ** 2, "time_sampling/outside"),
        (lambda n: torch.full((n,), math.nan), "time_sampling/not-finite"),
    ):
        assert kinds(function, None, "flow") == ("bug", [kind])


def test_the_bound_is_kept_and_is_stated() -> None:
    """By simulation: the distance exceeds D(p) with a probability of p at most, p = 1 in 20."""
    n, draws = 500, 2000
    d = math.sqrt(math.log(2 / 0.05) / (2 * n))
    assert _far(n) == pytest.approx(d * math.sqrt(math.log(2 / ONE) / math.log(2 / 0.05)))
    generator = torch.Generator().manual_seed(0)
    u = torch.rand(draws, n, generator=generator, dtype=torch.float64).sort(1).values
    share = sum(_distance(row, row) > d for row in u) / draws
    assert 0.03 < share < 0.05 + 3 * math.sqrt(0.05 * 0.95 / draws)
    found = check_time_sampling(lambda n: torch.rand(n), scale="flow")
    assert "50000 times" in found.measured
    assert "1e-09" in found.expected


def test_what_cannot_be_called() -> None:
    def fails(n: int) -> Tensor:
        raise RuntimeError("needs a GPU")

    assert "needs a GPU" in check_time_sampling(fails, T).why
    assert "given=" in check_time_sampling(lambda a, b, c, d, e: a, T).why
    assert kinds(lambda n: torch.rand(3)) == ("unchecked", [])
    assert check_time_sampling(
        lambda n, T: torch.randint(0, T, (n,)), T, given={"T": T}
    ).verdict == ("right")


def test_what_is_misdeclared() -> None:
    with pytest.raises(ValueError, match="scale = 'vpp': it must be vp or flow"):
        check_time_sampling(torch.rand, T, "vpp")
    with pytest.raises(ValueError, match="T = 0"):
        check_time_sampling(torch.rand, 0)


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0.0, 0.8), (0.2, 1.0), (0.0, 2.0)])
def test_uniform_on_another_interval_says_which(low: float, high: float) -> None:
    found = check_time_sampling(lambda n: low + (high - low) * torch.rand(n), scale="flow")
    assert [d.id for d in found.diagnoses] == ["time_sampling/another-interval"]
    said = re.search(r"uniform from (\S+) to (\S+),", found.measured)
    assert said is not None
    assert [float(v) for v in said.groups()] == pytest.approx([low, high], abs=1e-3)


def test_a_sum_of_uniform_times_is_not_called_normal() -> None:
    found = check_time_sampling(lambda n: torch.rand(n) + torch.rand(n), scale="flow")
    assert [d.id for d in found.diagnoses] == ["time_sampling/outside"]
