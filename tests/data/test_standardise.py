"""Columns to mean 0 and variance 1, and back."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alphabar.data import Standardiser

F64 = torch.float64


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    d=st.integers(1, 5),
    scale=st.sampled_from([1e-8, 1e-3, 1.0, 1e8]),
    shift=st.sampled_from([0.0, 1.0, -50.0]),
)
def test_scales_and_comes_back(seed, d, scale, shift):
    x = torch.from_numpy(np.random.default_rng(seed).standard_normal((40, d)) + shift) * scale
    made = Standardiser.fit(x)
    z = made.apply(x)
    # numpy's own moments are the judge.
    np.testing.assert_allclose(z.numpy().mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(z.numpy().var(0), 1, rtol=1e-10)
    np.testing.assert_allclose(made.invert(z), x, rtol=1e-12, atol=1e-13 * scale)


def test_uses_the_population_standard_deviation():
    made = Standardiser.fit(torch.tensor([[1.0], [3.0]], dtype=F64))
    assert (made.mean.item(), made.std.item()) == (2, 1)


def test_columns_of_unlike_units():
    x = torch.rand(100, 2, dtype=F64) * torch.tensor([1e-8, 1e8], dtype=F64)
    assert torch.allclose(Standardiser.fit(x).apply(x).std(0, correction=0), torch.ones(2).double())


def test_float32_stays_float32_and_is_rounded_once():
    x = torch.rand(10, 3) + 1000
    made = Standardiser.fit(x)
    z = made.apply(x)
    assert z.dtype == torch.float32
    assert made.mean.dtype == torch.float64
    torch.testing.assert_close(made.invert(z), x)
    torch.testing.assert_close(made.apply(x[None, :4])[0], z[:4])


def test_json_round_trip_is_exact():
    made = Standardiser.fit(torch.rand(100, 4, dtype=F64).exp() / 3)
    back = Standardiser.from_dict(json.loads(json.dumps(made.to_dict())))
    assert torch.equal(back.mean, made.mean)
    assert torch.equal(back.std, made.std)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e8 / 3, -7e-9])
def test_a_constant_column_is_refused_by_name(value):
    # 0.1 added up and divided again is not 0.1: the std of such a column is not quite 0.
    x = torch.rand(1000, 2, dtype=F64)
    x[:, 1] = value
    with pytest.raises(ValueError, match=r"column 'speed' is .* in every row: .*must vary.*remove"):
        Standardiser.fit(x, ("time", "speed"))
    with pytest.raises(ValueError, match="column 1 is"):
        Standardiser.fit(x)


def test_other_columns_without_a_scale_are_refused():
    with pytest.raises(ValueError, match="column 'a' is empty"):
        Standardiser.fit(torch.zeros(0, 1, dtype=F64), "a")
    with pytest.raises(ValueError, match="column 0 holds NaN or infinity"):
        Standardiser.fit(torch.tensor([[1.0], [float("nan")]], dtype=F64))
    for size in (1e-300, 1e300):  # the variance underflows, or overflows
        with pytest.raises(ValueError, match=r"column 0 holds numbers of the size of .* squares"):
            Standardiser.fit(torch.tensor([[size], [2 * size]], dtype=F64))


@pytest.mark.parametrize(
    "values",
    [{"mean": [1.0]}, {"mean": [1.0], "std": "a"}, {"mean": 1.0, "std": 1.0}, {}],
)
def test_a_broken_dict_is_refused(values):
    with pytest.raises(ValueError, match="needs `mean` and `std`"):
        Standardiser.from_dict(values)


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ([0.0], [0.0], "column 0 has mean 0 and std 0"),
        ([0.0, 0.0], [1.0, -1.0], "column 1 has"),
        ([float("nan")], [1.0], "column 0 has mean nan"),
        ([0.0], [float("inf")], "column 0 has"),
    ],
)
def test_a_wrong_mean_or_std_is_refused(mean, std, message):
    with pytest.raises(ValueError, match=message):
        Standardiser.from_dict({"mean": mean, "std": std})


def test_a_mean_and_a_std_of_unlike_length_are_refused():
    # While the tests run the annotations are checked too, and their TypeError comes first.
    with pytest.raises((ValueError, TypeError), match=r"one number per column|parameter 'std'"):
        Standardiser.from_dict({"mean": [0.0], "std": [1.0, 2.0]})
