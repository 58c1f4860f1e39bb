"""Pictures in .npy and .npz files."""

from pathlib import Path

import numpy as np
import pytest
import torch

import alphabar.data.files as files
import alphabar.storage as storage
from alphabar.data import load

RNG = np.random.default_rng(0)
LEVELS = RNG.integers(0, 256, (10, 5, 6, 3)).astype(np.uint8)
EXACT = torch.from_numpy(LEVELS.astype(np.float64) * 2 / 255 - 1).permute(0, 3, 1, 2).float()
OURS = EXACT.numpy()


def write(path, array=None, **arrays):
    if array is None:
        np.savez(path, **arrays)
    else:
        np.save(path, array)
    return str(path)


@pytest.mark.parametrize(
    "array",
    [
        LEVELS,
        LEVELS.transpose(0, 3, 1, 2),
        np.asfortranarray(LEVELS),
        OURS,
        OURS.astype(np.float64),
        OURS.astype(">f4"),
        OURS.transpose(0, 2, 3, 1),
    ],
    ids=["levels", "channels first", "fortran", "ours", "float64", "big endian", "channels last"],
)
def test_every_layout_is_the_same_pictures(tmp_path, array):
    data = load(write(tmp_path / "a.npy", array))
    assert data.kind == "pictures"
    assert data.x.shape == (10, 3, 5, 6)
    assert data.x.is_contiguous()
    torch.testing.assert_close(data.x, EXACT, atol=1e-6, rtol=0)
    assert data.held_out.tolist() == [4, 9]
    assert data.labels is None
    assert torch.equal(load(data.spec).x, data.x)


def test_grey_and_two_tones(tmp_path):
    grey = LEVELS[..., 0]
    x = load(write(tmp_path / "a.npy", grey)).x
    torch.testing.assert_close(x, EXACT[:, :1], atol=1e-6, rtol=0)
    x = load(write(tmp_path / "b.npy", grey > 99)).x
    assert torch.equal(x[:, 0] > 0, torch.from_numpy(grey > 99))
    assert x.unique().tolist() == [-1, 1]


@pytest.mark.parametrize("name", ["y", "labels"])
def test_labels_lie_beside(tmp_path, name):
    classes = np.array([0, 1] * 5)
    data = load(write(tmp_path / "a.npz", images=LEVELS, **{name: classes[:, None]}))
    assert data.labels.tolist() == classes.tolist()
    assert data.held_out.tolist() == [8, 9]
    assert data.x.shape == (10, 3, 5, 6)
    points = load(write(tmp_path / "b.npz", x=RNG.random((10, 2)), **{name: classes}))
    assert points.kind == "points"
    assert points.labels.tolist() == classes.tolist()
    assert points.held_out is None


def test_a_second_coordinate_named_y_is_no_label(tmp_path):
    assert load(write(tmp_path / "a.npz", x=RNG.random(9), y=RNG.random(9))).labels is None


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (LEVELS.astype(np.int64), "holds int64 values: pictures must be uint8 levels"),
        (LEVELS.astype(np.float32), r"numbers from 0 to 255: .* within \[-1, 1\].* v/127.5 - 1"),
        (np.where(OURS > 0.9, np.nan, OURS), "holds numbers from nan to nan"),
        (OURS.astype(np.float64) * 1e300, "holds numbers from -inf to inf"),
        (LEVELS % 2, "holds the levels 0 and 1 .* save it as booleans"),
        (LEVELS[:, :4, :, :2], r"has shape \(10, 4, 6, 2\): pictures are \(N, H, W\)"),
        (LEVELS[..., None], r"has shape \(10, 5, 6, 3, 1\)"),
        (LEVELS[:1], "needs at least two pictures"),
        (LEVELS[:, :0], "of at least one pixel"),
    ],
)
def test_arrays_that_are_refused(tmp_path, array, message):
    path = write(tmp_path / "a.npy", array)
    with pytest.raises(ValueError, match=message) as refusal:
        load(path)
    assert "\n" not in str(refusal.value)
    assert path in str(refusal.value)


@pytest.mark.parametrize("labels", [np.arange(9), np.arange(10) - 1, np.full(10, 10)])
def test_labels_that_are_refused(tmp_path, labels):
    path = write(tmp_path / "a.npz", x=LEVELS, y=labels)
    with pytest.raises(ValueError, match=r"for 10 items: .* whole number from 0 to 9, the place"):
        load(path)


def test_pictures_without_black_bring_a_warning(tmp_path):
    path = write(tmp_path / "a.npy", (OURS + 1) / 2)
    with pytest.warns(UserWarning, match=r"black is -1: if 0 is your black .* save 2\*x - 1"):
        assert load(path).x.min() >= 0


def test_large_arrays_are_used_where_they_lie(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "IN_MEMORY", 0)
    path = write(tmp_path / "a.npy", OURS)
    x = load(path).x
    assert path in Path("/proc/self/maps").read_text()
    assert torch.equal(x, EXACT)
    x[0] = 7  # a copy on write: the file stays as it is
    assert torch.equal(load(path).x, EXACT)


def test_what_is_too_large_for_memory_is_mapped(tmp_path, monkeypatch):
    path = write(tmp_path / "a.npy", LEVELS)
    monkeypatch.setattr(storage, "IN_MEMORY", 0)
    monkeypatch.setattr("alphabar.data.arrays.CHUNK", 200)  # two pictures at a time
    x = load(path).x
    torch.testing.assert_close(x, EXACT, atol=1e-6, rtol=0)
    monkeypatch.setattr(storage, "CHUNK", 200)
    taken = storage.take(x, torch.tensor([9, 3, 3, 0, 5]))
    assert torch.equal(taken, x[[9, 3, 3, 0, 5]])


def test_a_disk_without_room(monkeypatch):
    monkeypatch.setattr(storage, "IN_MEMORY", 0)
    with pytest.raises(OSError, match=r"has no room for 4,611,686,018,427,387,904 bytes .*TMPDIR"):
        storage.room_for(2**30, 2**30)
