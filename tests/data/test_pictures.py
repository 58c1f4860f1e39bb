"""Pictures: digits, photographs, and files of all sorts."""

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits, load_sample_image

import alphabar.data.pictures as pictures
from alphabar.data import load


def test_digits_are_scikit_learns():
    data = load("digits")
    assert data.x.shape == (1797, 1, 8, 8)
    assert data.kind == "pictures"
    assert data.spec == "digits"
    source = load_digits()
    np.testing.assert_array_equal((data.x[:, 0].numpy() + 1) * 8, source.images)
    np.testing.assert_array_equal(data.labels, source.target)


@pytest.mark.parametrize("name", ["china", "flower"])
def test_photos_keep_their_proportions(name):
    data = load(f"photo:{name}")
    assert data.x.shape == (1, 3, 171, 256)
    assert data.spec == f"photo:{name},size=256"
    whole = load(f"photo:{name},size=4096").x[0]  # never enlarged
    expected = load_sample_image(f"{name}.jpg").astype(np.float32) / 127.5 - 1
    np.testing.assert_array_equal(whole.permute(1, 2, 0), expected)
    assert load(f"photo:{name},size=1").x.shape == (1, 3, 1, 1)


def save(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return str(path)


RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (5, 9)).astype(np.uint8)
COLOUR = RNG.integers(0, 256, (5, 9, 3)).astype(np.uint8)


@pytest.mark.parametrize("ending", ["png", "bmp", "tif", "tiff", "PNG"])
@pytest.mark.parametrize("array", [GREY, COLOUR], ids=["grey", "colour"])
def test_lossless_files_come_back_exactly(tmp_path, ending, array):
    path = save(tmp_path / f"a.{ending}", array)
    x = load(path).x
    assert x.shape == (1, 3 if array.ndim == 3 else 1, 5, 9)
    np.testing.assert_array_equal(
        torch.round((x[0].permute(1, 2, 0) + 1) * 127.5).squeeze(-1), array
    )


@pytest.mark.parametrize("ending", ["jpg", "jpeg", "webp", "gif"])
def test_other_formats_are_read(tmp_path, ending):
    path = save(tmp_path / f"a.{ending}", np.full((6, 4, 3), [255, 0, 0], np.uint8))
    x = load(path).x
    assert x.shape == (1, 3, 6, 4)
    torch.testing.assert_close(x.mean((0, 2, 3)), torch.tensor([1.0, -1, -1]), atol=0.05, rtol=0)


def test_spec_of_a_path_parses_back(tmp_path):
    path = save(tmp_path / "my cat, and=dog.png", COLOUR)
    data = load(path, size=7)
    assert data.spec == f'picture:"{path}",size=7'
    assert data.x.shape == (1, 3, 4, 7)
    assert torch.equal(load(data.spec).x, data.x)


def test_camera_orientation_is_respected(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    x = load(save(tmp_path / "a.png", COLOUR, exif=exif)).x
    upright = np.rot90(COLOUR, -1)
    np.testing.assert_array_equal(torch.round((x[0].permute(1, 2, 0) + 1) * 127.5), upright)


def test_transparency_is_laid_over_white(tmp_path):
    rgba = np.zeros((2, 3, 4), np.uint8)
    rgba[0, :, 3] = 255
    rgba[1, 0, 3] = 51  # a fifth black, four fifths white
    x = load(save(tmp_path / "a.png", rgba)).x[0, 0]
    expected = torch.tensor([[-1.0, -1, -1], [0.6, 1, 1]])
    torch.testing.assert_close(x, expected, atol=0.01, rtol=0)
    grey_alpha = np.stack([rgba[..., 0], rgba[..., 3]], -1)
    Image.fromarray(grey_alpha).save(tmp_path / "la.png")
    assert load(str(tmp_path / "la.png")).x.shape == (1, 1, 2, 3)


def test_palette_with_transparency(tmp_path):
    image = Image.new("P", (4, 2), 1)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((0, 0), 0)
    image.save(tmp_path / "p.gif", transparency=0)
    x = load(str(tmp_path / "p.gif")).x[0]
    assert x[:, 0, 0].tolist() == [1, 1, 1]
    assert x[:, 1, 1].tolist() == [-1, -1, 1]


def test_two_tones_and_sixteen_bits(tmp_path):
    Image.fromarray(GREY > 127).save(tmp_path / "two.png")
    assert set(load(str(tmp_path / "two.png")).x.unique().tolist()) == {-1, 1}
    deep = GREY.astype(np.uint16) * 257
    x = load(save(tmp_path / "deep.png", deep)).x
    np.testing.assert_array_equal(torch.round((x[0, 0] + 1) * 127.5), GREY)


def test_long_and_thin_is_shrunk_to_one_pixel(tmp_path):
    assert load(save(tmp_path / "a.png", np.zeros((2, 2000), np.uint8))).x.shape == (1, 1, 1, 256)


@pytest.mark.parametrize("kind", ["picture", "image"])
def test_files_that_are_no_pictures_are_refused(tmp_path, kind):
    whole = tmp_path / "whole.png"
    save(whole, RNG.integers(0, 256, (80, 80, 3)).astype(np.uint8))
    cut, broken, empty = tmp_path / "cut.png", tmp_path / "broken.png", tmp_path / "empty.jpg"
    cut.write_bytes(whole.read_bytes()[:9000])
    broken.write_bytes(b"\x89PNG\r\n\x1a\n" + b"garbage" * 9)
    empty.write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    for name, error, message in [
        (cut, ValueError, "cut.png' cannot be read as a picture, it may be cut off or damaged"),
        (broken, ValueError, "broken.png' cannot be read as a picture"),
        (empty, ValueError, "empty.jpg' is empty"),
        (tmp_path / "none.png", FileNotFoundError, "none.png': there is no such file"),
        (tmp_path / "folder.png", IsADirectoryError, "folder.png' is a folder: name a file"),
        (tmp_path / "a.svg", ValueError, r"a.svg': the name must end in one of .png .jpg"),
        (tmp_path / "a.csv", ValueError, r"must end in .*; for points write file:.*a.csv"),
    ]:
        with pytest.raises(error, match=message) as refusal:
            load(f"{kind}:{name}")
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "content",
    # PostScript is a program, which Pillow would hand to ghostscript.
    [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", b"\0\0\1\0\1\0"],
)
def test_content_of_another_format_is_refused(tmp_path, content):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read as a picture"):
        load(str(path))


def test_pictures_of_fractions_are_refused(tmp_path):
    path = save(tmp_path / "a.tif", np.zeros((3, 3), np.float32))
    with pytest.raises(ValueError, match="holds fractions"):
        load(path)


def test_pictures_of_too_many_pixels_are_refused_unread(tmp_path, monkeypatch):
    path = save(tmp_path / "a.png", GREY)
    monkeypatch.setattr(pictures, "MAX_PIXELS", 44)
    with pytest.raises(ValueError, match=r"has more than 44 pixels.*save it smaller"):
        load(path)
    monkeypatch.setattr(pictures, "MAX_PIXELS", 45)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30)  # Pillow warns above this
    assert load(path).x.shape == (1, 1, 5, 9)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # and refuses above twice this
    with pytest.raises(ValueError, match="has more than 45 pixels"):
        load(path)
