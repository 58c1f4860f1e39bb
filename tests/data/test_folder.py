"""Folders of pictures: what is read, in which order, and what is left out or refused."""

import os
import re
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

import alphabar.data.pictures as pictures
from alphabar.data import load

RNG = np.random.default_rng(0)


def save(path, *shape, **options):
    """A picture of random levels, and these."""
    path.parent.mkdir(parents=True, exist_ok=True)
    levels = RNG.integers(0, 256, shape).astype(np.uint8)
    Image.fromarray(levels).save(path, **options)
    return levels


def levels_of(item):
    return torch.round((item.permute(1, 2, 0) + 1) * 127.5).squeeze(-1).numpy()


@pytest.fixture
def classes(tmp_path):
    """Six cats and five dogs, 8 by 8 in colour, and their levels in order."""
    made = [save(tmp_path / f"{kind}s/{kind}{i}.png", 8, 8, 3)
            for kind, n in [("cat", 6), ("dog", 5)] for i in range(n)]  # fmt: skip
    return tmp_path, made


def test_classes_are_the_folders_in_order_of_their_names(classes):
    path, made = classes
    data = load(f"folder:{path},size=8")
    assert data.kind == "pictures"
    assert data.x.shape == (11, 3, 8, 8)
    assert data.classes == ("cats", "dogs")
    assert data.labels.tolist() == [0] * 6 + [1] * 5
    assert data.held_out.tolist() == [4, 10]
    for item, levels in zip(data.x, made, strict=True):
        np.testing.assert_array_equal(levels_of(item), levels)
    again = load(data.spec)
    assert torch.equal(again.x, data.x)
    assert again.spec == data.spec == f"folder:{path},size=8,flip=false,grey=false,strict=false"
    assert load(str(path), size=8).spec == data.spec


def test_mirrors_are_items_held_out_with_their_picture(classes):
    path, made = classes
    data = load(f"folder:{path},size=8,flip=true")
    assert data.x.shape == (22, 3, 8, 8)
    for i, levels in enumerate(made):
        np.testing.assert_array_equal(levels_of(data.x[2 * i]), levels)
        np.testing.assert_array_equal(levels_of(data.x[2 * i + 1]), levels[:, ::-1])
    assert data.held_out.tolist() == [8, 9, 20, 21]
    assert data.labels.tolist() == [0] * 12 + [1] * 10
    assert len(data.hue) == 22


def test_a_folder_without_folders_has_no_classes(tmp_path):
    for name in ("b", "a", "c"):
        save(tmp_path / f"{name}.png", 4, 4)
    (tmp_path / "nothing").mkdir()
    data = load(f"folder:{tmp_path},size=4")
    assert data.x.shape == (3, 1, 4, 4)
    assert data.labels is None
    assert data.classes == ()
    assert data.held_out is None  # of three there is no fifth
    first = np.asarray(Image.open(tmp_path / "a.png"))
    np.testing.assert_array_equal(levels_of(data.x[0]), first)


def test_one_folder_alone_is_no_class(tmp_path):
    for name in ("2019/a", "2019/b", "2019/deeper/c"):
        save(tmp_path / f"{name}.png", 40, 40)
    data = load(str(tmp_path))
    assert data.x.shape == (3, 1, 32, 32)
    assert data.labels is None


def test_the_middle_is_kept_and_the_shorter_side_is_the_size(tmp_path):
    # Three squares in a row, of which the middle one stays.
    stripes = np.repeat(np.array([0, 100, 200], np.uint8), 12)
    Image.fromarray(np.tile(stripes, (12, 1))).save(tmp_path / "wide.png")
    Image.fromarray(np.tile(stripes, (12, 1)).T).save(tmp_path / "tall.png")
    data = load(f"folder:{tmp_path},size=6")
    assert data.x.shape == (2, 1, 6, 6)
    inner = data.x[:, :, 1:-1, 1:-1]
    assert (inner - (100 / 127.5 - 1)).abs().max() < 0.02  # Lanczos looks a little further
    even = save(tmp_path / "square.png", 12, 12)
    x = load(f"folder:{tmp_path},size=6").x[0, 0]
    # Lanczos at a half keeps the mean of a picture but for its borders.
    assert abs((x.mean() + 1) * 127.5 - even.mean()) < 5


def test_large_photographs_are_read_at_a_part_of_their_size(tmp_path):
    y, x = np.mgrid[:800, :1000] / 800
    smooth = (255 * np.stack([x / 1.25, y, 0.5 + 0.5 * np.sin(9 * x)], -1)).astype(np.uint8)
    Image.fromarray(smooth).save(tmp_path / "a.jpg", quality=95)
    Image.fromarray(smooth).save(tmp_path / "b.png")
    jpeg, png = load(f"folder:{tmp_path},size=32").x
    assert (jpeg - png).abs().max() < 0.04


def test_grey_and_colour(tmp_path):
    grey, colour = save(tmp_path / "a.png", 4, 4), save(tmp_path / "b.png", 4, 4, 3)
    both = load(f"folder:{tmp_path},size=4").x
    assert both.shape == (2, 3, 4, 4)
    np.testing.assert_array_equal(levels_of(both[0]), np.stack([grey] * 3, -1))
    np.testing.assert_array_equal(levels_of(both[1]), colour)
    alone = load(f"folder:{tmp_path},size=4,grey=true").x
    assert alone.shape == (2, 1, 4, 4)
    np.testing.assert_array_equal(levels_of(alone[0]), grey)
    luma = colour @ np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
    np.testing.assert_allclose(levels_of(alone[1]), luma, atol=1)


def test_odd_pictures_are_read_as_single_ones_are(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    save(tmp_path / "turned.jpg", 9, 9, 3, exif=exif)
    save(tmp_path / "transparent.png", 9, 9, 4)
    Image.fromarray(RNG.integers(0, 2**16, (9, 9)).astype(np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray(RNG.integers(0, 256, (9, 9, 4)).astype(np.uint8), "CMYK").save(
        tmp_path / "cmyk.tif"
    )
    frames = [Image.fromarray(RNG.integers(0, 256, (9, 9)).astype(np.uint8)) for _ in range(3)]
    frames[0].save(tmp_path / "animated.gif", save_all=True, append_images=frames[1:])
    save(tmp_path / "map.ppm", 9, 9, 3)
    save(tmp_path / "map.pgm", 9, 9)
    names = sorted(os.listdir(tmp_path))
    data = load(f"folder:{tmp_path},size=9")
    for name, item in zip(names, data.x, strict=True):
        alone = load(str(tmp_path / name)).x[0]
        torch.testing.assert_close(item, alone.expand(3, 9, 9), atol=1e-6, rtol=0)


def test_small_pictures_are_enlarged_and_counted(tmp_path):
    save(tmp_path / "a.png", 1, 1)
    save(tmp_path / "b.png", 1, 3000)
    save(tmp_path / "c.png", 8, 8)
    with pytest.warns(UserWarning, match="2 of 3 pictures are smaller than size = 8 and were enl"):
        data = load(f"folder:{tmp_path},size=8")
    assert data.x.shape == (3, 1, 8, 8)
    assert data.x[0].unique().numel() == 1


def test_what_is_left_out_is_counted_or_refused(classes, monkeypatch):
    path, made = classes
    for hidden in (".DS_Store", "cats/._cat0.png", ".git/a.png", "__MACOSX/a.png"):
        (path / hidden).parent.mkdir(exist_ok=True)
        (path / hidden).write_bytes(b"anything")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(load(f"folder:{path},size=8,strict=true")) == 11
    (path / "notes.txt").write_text("two cats are missing")
    (path / "dogs/none.jpg").write_bytes(b"")
    whole = (path / "cats/cat5.png").read_bytes()
    (path / "cats/cat5.png").write_bytes(whole[:100])
    (path / "cats/link.png").symlink_to(path / "nowhere")
    (path / "dogs/vector.png").write_text("<svg/>")
    monkeypatch.setattr(pictures, "MAX_PIXELS", 100)
    save(path / "dogs/bomb.png", 10, 11)
    message = (
        r"of 16 files these are left out: 2 that are no pictures \('notes.txt', 'link.png'\), and "
        r"4 that cannot be read \(such as .*\); strict=true refuses them"
    )
    with pytest.warns(UserWarning, match=message) as told:
        data = load(f"folder:{path},size=8")
    assert len(told) == 1
    np.testing.assert_array_equal([levels_of(item) for item in data.x], made[:5] + made[6:])
    assert data.labels.tolist() == [0] * 5 + [1] * 5
    (path / "cats/link.png").unlink()
    with pytest.raises(ValueError, match=r"1 files that are no pictures .*notes.txt.*strict=true"):
        load(f"folder:{path},size=8,strict=true")
    (path / "notes.txt").unlink()
    with pytest.raises(ValueError, match=r"cat5.png' cannot be read as a picture"):
        load(f"folder:{path},size=8,strict=true")


def test_links_that_go_round_are_entered_once(classes):
    path, _ = classes
    (path / "cats/again").symlink_to(path / "cats")
    (path / "cats/up").symlink_to(path)
    data = load(f"folder:{path},size=8")
    assert len(data) == 11
    assert data.classes == ("cats", "dogs")


def test_a_pipe_is_not_waited_for(classes):
    path, _ = classes
    os.mkfifo(path / "cats/pipe.png")
    with pytest.warns(UserWarning, match="1 that are no pictures"):
        assert len(load(f"folder:{path},size=8")) == 11


def test_folders_that_are_refused(tmp_path):
    a, b, c, d = (tmp_path / name for name in "abcd")
    save(a / "one.png", 4, 4)
    save(b / "cats/a.png", 4, 4)
    save(b / "cats/b.png", 4, 4)
    (b / "dogs").mkdir()
    save(c / "cats/a.png", 4, 4)
    save(c / "b.png", 4, 4)
    d.mkdir()
    (d / "readme.md").write_text("nothing here")
    for spec, error, message in [
        (f"folder:{a}", ValueError, "a' has 1 pictures that can be read: .* at least two; add"),
        (f"folder:{b}", ValueError, "b': the class 'dogs' has no picture that can be read"),
        (f"folder:{c}", ValueError, r"has 1 pictures \('b.png'\) beside the folders 'cats'"),
        (
            str(d),
            ValueError,
            r"d' is a folder with no picture in it or below: their names must end in one of .png",
        ),
        (f"folder:{a},size=0", ValueError, "size = 0: it must be a whole number from 1 to 4096"),
        (f"folder:{a},size=5000", ValueError, "size = 5000: it must be a whole number from 1"),
        (f"folder:{a}/one.png", NotADirectoryError, "is a file: folder needs a folder of pict"),
        (f"folder:{a}/none", NotADirectoryError, "none' is not there: folder needs a folder"),
        ("folder", ValueError, "folder needs path"),
    ]:
        with pytest.raises(error, match=message) as refusal:
            load(spec)
        assert "\n" not in str(refusal.value)


def test_a_class_of_which_nothing_can_be_read_is_refused(tmp_path):
    for name in ("cats/a", "cats/b", "dogs/a"):
        save(tmp_path / f"{name}.png", 40, 40)
    (tmp_path / "dogs/a.png").write_bytes(b"not a picture")
    with (
        pytest.warns(UserWarning, match="1 that cannot be read"),
        pytest.raises(ValueError, match="the class 'dogs' has no picture that can be read"),
    ):
        load(str(tmp_path))
    (tmp_path / "cats/b.png").write_bytes(b"")
    with pytest.raises(ValueError, match=re.escape("b.png' is empty")) as refusal:
        load(f"folder:{tmp_path},strict=true")
    assert "\n" not in str(refusal.value)


def test_warnings_are_as_they_were(classes):
    path, _ = classes
    before = list(warnings.filters)
    load(f"folder:{path},size=8")
    assert warnings.filters == before
