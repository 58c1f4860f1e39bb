import re
import warnings

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from alphabar.figures import Style
from alphabar.figures import style as style_module
from alphabar.figures.style import DASHES, THEMES, fold, korean_family
from alphabar.fonts import find_font
from alphabar.locale import LANGS, texts

# Machado, Oliveira, Fernandes 2009, severity 1.0, on linear RGB.
VISIONS = {
    "full": np.eye(3),
    "no red cones": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "no green cones": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "no blue cones": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}
TO_XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)


def linear(rgb):
    rgb = np.asarray(rgb)
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lab(rgb, vision="full"):
    """CIELAB under D65 of colours (…, 3), as a kind of eye sees them."""
    seen = np.clip(linear(rgb) @ VISIONS[vision].T, 0, 1)
    xyz = seen @ TO_XYZ.T / [0.95047, 1, 1.08883]
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.stack(
        [116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1
    )


def contrast(a, b):
    """WCAG contrast of two colours."""
    low, high = sorted(linear(to_rgb(c)) @ TO_XYZ[1] for c in (a, b))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("vision", VISIONS)
def test_line_colours_differ_for_every_eye(theme, vision):
    colours = lab([to_rgb(c) for c in THEMES[theme].lines], vision)
    distance = np.linalg.norm(colours[:, None] - colours, axis=-1)
    assert distance[np.triu_indices(len(colours), 1)].min() > 20


@pytest.mark.parametrize("theme", THEMES)
def test_hues_keep_their_order_in_grey_and_for_every_eye(theme):
    hues = Style(theme).hues(np.linspace(0, 1, 101))
    for vision in VISIONS:
        lightness = lab(hues, vision)[:, 0]
        assert np.diff(lightness).min() > 0, vision
        assert np.ptp(lightness) > 45, vision
        steps = np.linalg.norm(np.diff(lab(hues, vision)[::10], axis=0), axis=1)
        assert steps.min() > 4, vision


@pytest.mark.parametrize("theme", THEMES)
def test_everything_stands_out_from_its_paper(theme):
    colours = THEMES[theme]
    assert contrast(colours.ink, colours.paper) > 12
    assert contrast(colours.muted, colours.paper) > 4.5
    assert min(contrast(c, colours.paper) for c in colours.lines) > 2.3
    hues = Style(theme).hues(np.linspace(0, 1, 11))
    paper = lab(to_rgb(colours.paper))
    assert np.linalg.norm(lab(hues) - paper, axis=1).min() > 35


def test_twenty_eight_lines_all_differ():
    style = Style()
    looks = [str(sorted(style.line(i).items())) for i in range(28)]
    assert len(set(looks)) == 28
    assert len(DASHES) * len(THEMES["light"].lines) == 28


def flat(table, path=()):
    for key, value in table.items():
        yield from flat(value, (*path, key)) if isinstance(value, dict) else [((*path, key), value)]


def test_languages_say_the_same_things():
    tables = {lang: dict(flat(texts(lang, "figures"))) for lang in LANGS}
    english = tables["en"]
    for table in tables.values():
        assert table.keys() == english.keys()
        for key, text in table.items():
            names = re.findall(r"(?<![_}a-z])\{([a-z]+)\}", text)
            assert sorted(names) == sorted(re.findall(r"(?<![_}a-z])\{([a-z]+)\}", english[key]))
            # Formulas are the same; their order in the sentence need not be.
            formulas = re.findall(r"\$[^$]+\$", text)
            assert sorted(formulas) == sorted(re.findall(r"\$[^$]+\$", english[key]))
    korean = {k: v for k, v in tables["ko"].items() if re.sub(r"\$[^$]+\$", "", v).strip()}
    assert all(re.search("[가-힣]", v) for v in korean.values())


def test_unknown_languages_are_refused_by_name():
    with pytest.raises(ValueError, match="lang = 'fr': choose en or ko"):
        Style(lang="fr")
    with pytest.raises(ValueError, match="lang = 'fr'"):
        texts("fr", "figures")


def test_texts_cannot_be_changed():
    with pytest.raises(TypeError):
        texts("en", "figures")["title"] = {}


@pytest.fixture
def no_hangul(monkeypatch):
    monkeypatch.setattr(style_module, "find_font", lambda text: None)
    style_module._family.cache_clear()
    korean_family.cache_clear()
    yield
    style_module._family.cache_clear()
    korean_family.cache_clear()


def test_without_a_korean_font_it_says_so_once_and_speaks_english(no_hangul):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        styles = [Style("light", "ko"), Style("dark", "ko"), Style("light", "ko")]
    assert [s.lang for s in styles] == ["en"] * 3
    assert styles[0] == Style("light")
    (warning,) = caught
    assert "\n" not in str(warning.message)
    assert "Korean" in str(warning.message)
    assert styles[0].text("title", "data") == "The data"


@pytest.mark.skipif(find_font("한글") is None, reason="no font on this machine has Hangul")
def test_korean_figures_are_korean():
    style = Style(lang="ko")
    assert style.lang == "ko"
    assert style.text("title", "data") == "데이터"
    assert style.text("panel", "samples", n=7).count("7") == 1


def test_texts_are_folded_between_words_and_never_in_a_formula():
    text = r"one two $a \mid b$ three four"
    folded = fold(text, 1.2, 12)
    assert "\n" in folded
    assert folded.replace("\n", " ") == text
    assert r"$a \mid b$" in folded
    assert fold("short", 5, 12) == "short"
    korean = fold("정방향 과정을 한 번에 보기", 1.5, 12)
    assert korean.count("\n") > fold("abcdef ghij kl mn op", 1.5, 12).count("\n")
