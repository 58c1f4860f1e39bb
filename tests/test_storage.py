"""What runs over all items in parts: the same as at once."""

import numpy as np
import pytest
import torch

import alphabar.storage as storage
from alphabar.config import Lessons, configure
from alphabar.data import Data
from alphabar.data.base import every_fifth
from alphabar.denoise import Moments
from alphabar.runs import Law
from alphabar.samplers import Normal

X = torch.from_numpy(np.random.default_rng(0).normal(0.3, 0.2, (23, 3, 4, 2)).astype(np.float32))


@pytest.fixture
def in_parts(monkeypatch):
    """Five items at a time, and nothing in memory."""
    monkeypatch.setattr(storage, "CHUNK", 5 * 24)
    monkeypatch.setattr(storage, "IN_MEMORY", 0)


def test_parts_are_views_of_all(in_parts):
    parts = list(storage.chunks(X))
    assert [len(part) for part in parts] == [5, 5, 5, 5, 3]
    assert torch.equal(torch.cat(parts), X)
    assert parts[1].data_ptr() == X[5].data_ptr()
    assert len(list(storage.chunks(torch.zeros(3, 1000)))) == 3  # one at least


def test_moments_are_numpys(in_parts, monkeypatch):
    flat = X.numpy().astype(np.float64).reshape(23, -1)
    moments, law, normal = Moments.of(X), Law.of(X), Normal.of(X)
    np.testing.assert_allclose(moments.mean.flatten(), flat.mean(0), rtol=1e-13)
    np.testing.assert_allclose(moments.std, np.sqrt(flat.var(0).mean()), rtol=1e-13)
    np.testing.assert_allclose(normal.mean.flatten(), flat.mean(0), rtol=1e-13)
    np.testing.assert_allclose(normal.cov, np.cov(flat.T, bias=True), rtol=1e-11, atol=1e-15)
    np.testing.assert_allclose(law.cov, normal.cov)
    monkeypatch.setattr("alphabar.runs.MAX_COV", 1)
    large = Law.of(X)
    assert large.cov is None
    np.testing.assert_allclose(large.var, flat.var(0), rtol=1e-12)
    np.testing.assert_allclose(large.mean.flatten(), flat.mean(0), rtol=1e-13)


def test_a_run_learns_from_the_same_items(in_parts, monkeypatch):
    x = X.clamp(-1, 1)
    held = every_fifth(torch.zeros(23, dtype=torch.int64))
    data = Data(x, torch.zeros(23, dtype=torch.float64), held_out=held)
    _, lessons = configure(data, None, seed=0, steps=1, net="mlp:width=8", held_out=True)
    used = [i for i in range(23) if i % 5 != 4]
    assert torch.equal(lessons.x_0, x[used])
    monkeypatch.undo()
    _, whole = configure(data, None, seed=0, steps=1, net="mlp:width=8", held_out=True)
    assert whole.fingerprint == lessons.fingerprint


def test_copies_are_counted():
    x = torch.arange(300.0).repeat(2)[:, None]
    assert [remark.values for remark in Lessons(x).remarks()] == [{"copies": 300, "n": 600}]
