"""Drawn text and pictures as densities, against outlines and pixel counts."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.font_manager import FontProperties
from matplotlib.path import Path as Outline
from matplotlib.textpath import TextPath
from PIL import Image
from scipy.spatial import cKDTree
from scipy.stats import chisquare, ks_2samp, kstest, uniform

import alphabar.data.glyphs as glyphs
from alphabar.data import load
from alphabar.fonts import find_font

RARE = 1e-6
needs_hangul = pytest.mark.skipif(
    find_font("한글") is None, reason="no font with Hangul on this machine (fonts-nanum has it)"
)


def fill_outline(text: str) -> tuple[np.ndarray, object]:
    """A fine grid inside the vector outline, normalised as the formula says, and a test."""
    path = TextPath((0, 0), text, size=100, prop=FontProperties(fname=str(find_font(text))))
    polygons = [Outline(polygon) for polygon in path.to_polygons()]

    def inside(x: np.ndarray) -> np.ndarray:
        return np.logical_xor.reduce([polygon.contains_points(x) for polygon in polygons])

    low, high = path.get_extents().get_points()
    x = np.stack(np.meshgrid(*np.linspace(low, high, 400).T), -1).reshape(-1, 2)
    x = x[inside(x)]
    centre = x.mean(0)
    scale = np.sqrt(((x - centre) ** 2).sum(1).mean())
    return (x - centre) / scale, lambda z: inside(z * scale + centre)


@pytest.mark.parametrize(
    "text", ["Rj", "%&", pytest.param("한글", marks=needs_hangul)], ids=["Rj", "percent", "hangul"]
)
def test_text_fills_its_outline_upright(text):
    data = load(f'text:"{text}"')
    x = data.x.numpy()
    reference, inside = fill_outline(text)
    # Drawn in pixels, of about 0.01, the strokes end within one of the outline.
    assert inside(x).mean() > 0.96
    assert cKDTree(reference).query(x)[0].max() < 0.02
    for a, b in zip(x.T, reference.T, strict=True):
        assert ks_2samp(a, b).statistic < 0.03
    # Mirrored or upside down it would not fit.
    assert inside(x * [1, -1]).mean() < 0.9
    assert inside(x * [-1, 1]).mean() < 0.9


def test_text_has_mean_0_and_unit_size():
    x = load("text:Swiss,n=200000").x
    assert x.mean(0).abs().max() < 0.015  # 6 standard errors of a coordinate of variance ≤ 1
    assert abs((x**2).sum(1).mean() - 1) < 0.02


def test_text_hue_runs_from_left_to_right():
    data = load("text:abc")
    place = data.x[:, 0] - data.x[:, 0].min()
    torch.testing.assert_close(data.hue, place / place.max(), atol=0.01, rtol=0)


def test_text_of_two_lines_is_written_downwards():
    data = load("text:i\nMMM")
    assert data.x[data.x[:, 1] < 0, 0].std() > 2 * data.x[data.x[:, 1] > 0.5, 0].std()


@needs_hangul
def test_text_in_pieces_is_the_same_as_whole_syllables():
    pieces = unicodedata.normalize("NFD", "한글")
    assert len(pieces) == 6
    assert torch.equal(load(f"text:{pieces}").x, load("text:한글").x)


@needs_hangul
def test_text_spec_keeps_hangul_and_commas():
    assert load("text:한글").spec == "text:한글,n=10000,seed=0"
    assert load('text:"가, 나",n=5').spec == 'text:"가, 나",n=5,seed=0'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("   ", "has nothing to draw"),
        ("\n\t\u3000", "has nothing to draw"),
        ("a" * 201, "201 characters: at most 200"),
        ("a\U000f1234", "no font on this machine has the characters \U000f1234; install one"),
    ],
)
def test_text_that_cannot_be_written_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        glyphs.text(text)


def test_text_without_a_font_is_refused(monkeypatch):
    monkeypatch.setattr(glyphs, "find_font", lambda text: None)
    with pytest.raises(ValueError, match=r"'한글': no font on this machine has .*fonts-nanum"):
        load("text:한글")
    # Each character has a font, but none has both.
    monkeypatch.setattr(glyphs, "find_font", lambda text: None if len(text) > 1 else Path("f.ttf"))
    with pytest.raises(ValueError, match="no font on this machine has all its characters at once"):
        load("text:한a")


def test_text_that_the_font_cannot_draw_is_refused(monkeypatch, tmp_path):
    broken = tmp_path / "broken.ttf"
    broken.write_bytes(b"no font")
    monkeypatch.setattr(glyphs, "find_font", lambda text: broken)
    with pytest.raises(ValueError, match=r"text = 'a': broken.ttf cannot draw it"):
        load("text:a")


def test_text_without_ink_is_refused(monkeypatch):
    font = find_font("a")
    monkeypatch.setattr(glyphs, "find_font", lambda text: font)
    with pytest.raises(ValueError, match="leaves no ink"):
        glyphs.text("\u200b")


def pixel_counts(x: torch.Tensor, darkness: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points in each pixel, and their places inside it, undoing the normalisation by brute force.

    Each pixel is cut into 50 × 50 to find the mean and the size of the density.
    """
    height, width = darkness.shape
    fine = np.kron(darkness, np.ones((50, 50))).astype(float)
    fine /= fine.sum()
    up, right = np.indices(fine.shape).astype(float)
    right, up = (right + 0.5) / 50, height - (up + 0.5) / 50
    mean = np.array([(fine * right).sum(), (fine * up).sum()])
    size = np.sqrt((fine * ((right - mean[0]) ** 2 + (up - mean[1]) ** 2)).sum())
    place = x.numpy() * size + mean
    place[:, 1] = height - place[:, 1]
    column, row = np.floor(place).astype(int).T
    counts = np.zeros((height, width))
    np.add.at(counts, (row, column), 1)
    return counts, place % 1


@pytest.mark.parametrize("invert", [False, True])
def test_image_density_is_proportional_to_darkness(tmp_path, invert):
    grey = np.random.default_rng(1).integers(0, 256, (4, 7)).astype(np.uint8)
    grey[0, 0], grey[3, 2] = 255, 0
    Image.fromarray(grey).save(tmp_path / "a.png")
    data = load(f"image:{tmp_path}/a.png,n=100000,invert={str(invert).lower()}")
    darkness = grey.astype(float) if invert else 255.0 - grey
    for x in (data.x, data.fresh(100_000, 0)):
        counts, place = pixel_counts(x, darkness)
        inked = darkness > 0
        assert counts[~inked].sum() == 0
        expected = darkness[inked] / darkness.sum() * len(x)
        assert chisquare(counts[inked], expected).pvalue > RARE
        assert kstest(place.ravel(), uniform.cdf).pvalue > RARE


def test_image_of_many_pixels_keeps_its_darkness(tmp_path):
    grey = np.full((8, 3000), 255, np.uint8)
    grey[:, :1000], grey[:, 2000:] = 0, 128
    Image.fromarray(grey).save(tmp_path / "wide.png")
    x = load(f"image:{tmp_path}/wide.png").x[:, 0]
    middle = (x.max() + x.min()) / 2
    left = (x < middle).double().mean()
    assert abs(left - 255 / (255 + 127)) < 0.03  # 6 standard errors


def test_transparent_pixels_have_no_points(tmp_path):
    rgba = np.zeros((10, 10, 4), np.uint8)
    rgba[:, 5:, 3] = 255
    Image.fromarray(rgba).save(tmp_path / "half.png")
    x = load(f"image:{tmp_path}/half.png").x
    assert torch.allclose(
        x.max(0).values - x.min(0).values, x.new_tensor([1, 2]) * (12 / 5) ** 0.5, atol=0.01
    )


@pytest.mark.parametrize(("grey", "spec"), [(255, ""), (0, ",invert=true")])
def test_image_without_ink_is_refused(tmp_path, grey, spec):
    Image.new("L", (4, 4), grey).save(tmp_path / "blank.png")
    with pytest.raises(ValueError, match=r"blank.png' has no (dark|light) pixel.*invert="):
        load(f"image:{tmp_path}/blank.png{spec}")
