"""Embeddings of t: right in many manners, and wrong ones."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from alphabar.check.embedding import check_embedding


def rates(dim: int, end: int = 0, period: float = 10000.0) -> Tensor:
    half = dim // 2
    return torch.exp(-math.log(period) * torch.arange(half) / (half - end))


def usual(t: Tensor, dim: int = 32) -> Tensor:
    angles = t.float()[:, None] * rates(dim)[None]
    return torch.cat([angles.sin(), angles.cos()], 1)


def cosines_first(t: Tensor, dim: int = 64) -> Tensor:
    angles = t.float()[:, None] * rates(dim, 1)[None]
    return torch.cat([angles.cos(), angles.sin()], -1)


def interleaved(t: Tensor, dim: int = 32) -> Tensor:
    angles = t.float()[:, None] * rates(dim)
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)


def odd(t: Tensor, dim: int = 33) -> Tensor:
    return nn.functional.pad(usual(t, dim - 1), (0, 1))


def table(T: int, dim: int) -> Tensor:
    return usual(torch.arange(T), dim)


def thousandfold(t: Tensor, dim: int = 32) -> Tensor:
    """Of t in [0, 1]."""
    return usual(1000 * t, dim)


def octaves(t: Tensor) -> Tensor:
    angles = t.reshape(-1, 1) * math.pi * 2.0 ** torch.arange(8)
    return torch.cat([angles.sin(), angles.cos()], 1)


class Learned(nn.Module):
    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(32, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, t: Tensor) -> Tensor:
        return self.layers(usual(t))


class Fourier(nn.Module):
    def __init__(self, dim: int = 32) -> None:
        super().__init__()
        weights = torch.randn(dim // 2, generator=torch.Generator().manual_seed(1))
        self.register_buffer("weights", 0.3 * weights)

    def forward(self, t: Tensor) -> Tensor:
        angles = t.float().view(-1, 1) * self.weights * 2 * math.pi
        return torch.cat([angles.sin(), angles.cos()], dim=1)


def one_hot(t: Tensor) -> Tensor:
    return nn.functional.one_hot(t, 1000).float()


@pytest.mark.parametrize(
    "function",
    [usual, cosines_first, interleaved, odd, table, thousandfold, octaves, Learned, Learned(),
     Fourier(), one_hot, nn.Embedding(1000, 16), lambda t: 3 * usual(t)[:, :, None]],
)  # fmt: skip
def test_right_in_many_manners(function: object) -> None:
    found = check_embedding(function)  # type: ignore[arg-type]
    assert found.verdict in ("right", "equivalent"), found


def test_the_usual_is_right_and_other_rates_are_equivalent() -> None:
    assert check_embedding(usual).verdict == "right"
    assert check_embedding(table).verdict == "right"
    found = check_embedding(thousandfold)
    assert found.verdict == "equivalent"
    assert check_embedding(Fourier()).verdict == "equivalent"


@settings(max_examples=6, deadline=None)
@given(
    dim=st.integers(6, 80).map(lambda n: 2 * n),
    end=st.integers(0, 1),
    period=st.sampled_from([10000.0, 5000.0, 1000.0, 20000.0]),
    T=st.sampled_from([100, 500, 1000, 4000]),
)
def test_any_width_and_period(dim: int, end: int, period: float, T: int) -> None:
    """The rates are those that were put in."""

    def function(t: Tensor) -> Tensor:
        angles = t.float()[:, None] * rates(dim, end, period)[None]
        return torch.cat([angles.sin(), angles.cos()], 1)

    found = check_embedding(function, T)
    assert found.verdict in ("right", "equivalent"), found
    second = float(found.measured.split("rates ")[1].split(", ")[1])
    assert second == pytest.approx(rates(dim, end, period)[1].item(), rel=0.01)


def over_the_batch(t: Tensor, dim: int = 32) -> Tensor:
    places = torch.arange(len(t)).float()
    angles = places[:, None] * rates(dim)[None] + 0 * t.float()[:, None]
    return torch.cat([angles.sin(), angles.cos()], 1)


def normalised(t: Tensor) -> Tensor:
    e = usual(t)
    return e - e.mean(0, keepdim=True)


def laid_wrong(t: Tensor, dim: int = 32) -> Tensor:
    angles = t.float() * rates(dim)
    return torch.cat([angles.sin(), angles.cos()])


def square_only(t: Tensor, dim: int = 32) -> Tensor:
    angles = t.float()[None, :] * rates(2 * dim)[:, None]
    return (angles.sin() + angles.cos()) @ torch.eye(dim)


def across(t: Tensor, dim: int = 32) -> Tensor:
    angles = t.float()[None, :] * rates(dim)[:, None]
    return torch.cat([angles.sin(), angles.cos()], 0)


@pytest.mark.parametrize(
    "function", [over_the_batch, normalised, square_only, across, lambda t: usual(t.flip(0))]
)
def test_what_depends_on_the_batch_is_named(function: object) -> None:
    found = check_embedding(function)  # type: ignore[arg-type]
    assert [d.id for d in found.diagnoses] == ["A22"], found


def with_rates(r: Tensor):  # type: ignore[no-untyped-def]
    def function(t: Tensor) -> Tensor:
        angles = t.float()[:, None] * r[None]
        return torch.cat([angles.sin(), angles.cos()], 1)

    return function


def only(*names: str):  # type: ignore[no-untyped-def]
    def function(t: Tensor) -> Tensor:
        angles = t.float()[:, None] * rates(32)[None]
        return torch.cat([getattr(angles, name)() for name in names], 1)

    return function


def squeezed(t: Tensor) -> Tensor:
    return usual(t).squeeze()


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (lambda t: usual(t.to(torch.int8)), "two-t-alike"),
        (lambda t: usual(t.long() // 10), "two-t-alike"),
        (lambda t: usual(0 * t), "two-t-alike"),
        (lambda t: usual(t / 1000), "scaled-away"),
        (with_rates(1 / rates(32)), "rates-above-1"),
        (with_rates(torch.linspace(1, 0.01, 16)), "rates-not-geometric"),
        (only("sin"), "no-cosines"),
        (only("sin", "sin"), "no-cosines"),
        (only("cos", "cos"), "no-sines"),
        (only("sin", "exp"), "not-finite"),
        (only("sin", "tan"), "not-a-wave"),
        (only("sin", "clone"), "not-a-wave"),
        (only("clone", "neg"), "no-sines"),
        (lambda t: usual(t) + 0.01 * torch.randn(len(t), 1), "random"),
        (squeezed, "no-batch-of-one"),
        (lambda t: usual(t) / 0, "not-finite"),
    ],
)
def test_wrong_ones_are_described(function: object, kind: str) -> None:
    found = check_embedding(function)  # type: ignore[arg-type]
    assert [d.id for d in found.diagnoses] == [f"embedding/{kind}"], found


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="T = 1: give the number of steps, 2 or more"):
        check_embedding(usual, 1)
    found = check_embedding(lambda t, a, b: t)
    assert found.verdict == "unchecked"
    assert "gave no rows (B, D)" in found.why
    assert check_embedding(lambda t: "text").verdict == "unchecked"
    assert check_embedding(usual, given={"dim": 16}).verdict == "right"


@pytest.mark.parametrize(("where", "words"), [(torch.isfinite, "NaN"), (lambda t: t == 0, "t = 0")])
def test_nan_is_not_called_random(where, words: str) -> None:  # type: ignore[no-untyped-def]
    def function(t: Tensor) -> Tensor:
        return torch.where(where(t)[:, None], torch.nan, usual(t))

    found = check_embedding(function)
    assert [d.id for d in found.diagnoses] == ["embedding/not-finite"]
    assert words in found.measured


def test_a_thousand_columns() -> None:
    found = check_embedding(lambda t: usual(t, 1000))
    assert found.verdict == "right", found


def test_t_itself_tells_every_t() -> None:
    found = check_embedding(lambda t: t[:, None] / 1000)
    assert found.verdict == "equivalent", found
    assert "t itself" in found.convention
    found = check_embedding(lambda t: torch.stack([t / 1000, t / 100], 1))
    assert [d.id for d in found.diagnoses] == ["embedding/no-sines"]
