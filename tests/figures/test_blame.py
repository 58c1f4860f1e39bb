import numpy as np
import pytest
from examples import PARTS, erring
from figure_checks import LOOKS, assert_legible, style_of
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from alphabar.figures import error_parts, excess_by_level


def bars(axes):
    return [p for p in axes.patches if isinstance(p, Rectangle) and p.get_hatch() is None]


def whiskers(axes):
    return [s for c in axes.collections for s in c.get_segments()]


def test_each_bar_begins_where_the_one_above_ends():
    axes = error_parts(PARTS).axes[0]
    shown = bars(axes)
    at = 0.0
    for (name, (value, _)), bar in zip(PARTS.items(), shown, strict=True):
        start = 0.0 if name == "total" else at
        assert bar.get_x() == pytest.approx(start)
        assert bar.get_width() == pytest.approx(value)
        at += value if name != "total" else 0
    assert shown[-1].get_width() == pytest.approx(at)
    tops = [bar.get_y() for bar in shown]
    assert tops == sorted(tops)
    assert axes.yaxis_inverted()


def test_errors_are_thin_lines_about_the_ends():
    axes = error_parts(PARTS).axes[0]
    ends = np.cumsum([v for v, _ in list(PARTS.values())[:-1]])
    for i, (end, (_, error)) in enumerate(zip([*ends, ends[-1]], PARTS.values(), strict=True)):
        line = whiskers(axes)[i]
        assert line[:, 0] == pytest.approx([end - (error or 0), end + (error or 0)])
        assert line[:, 1] == pytest.approx([i, i])


def test_names_and_numbers_stand_beside_the_bars(style):
    figure = error_parts(PARTS, style=style)
    figure.pixels()
    axes = figure.axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == [style.text("part", name) for name in PARTS]
    right = axes.child_axes[0]
    assert [label.get_text() for label in right.get_yticklabels()] == [
        "1.00",
        "+1.58 ± 0.12",
        "+0.81 ± 0.16",
        "−0.44 ± 0.04",
        "−0.07 ± 0.22",
        "2.88 ± 0.27",
    ]
    assert "1.70" in figure.get_supxlabel()  # √2.88


def test_what_cancels_is_said_only_where_it_does(style):
    words = style.text("note", "cancel")
    assert words in error_parts(PARTS, style=style).get_supxlabel().replace("\n", " ")
    rising = PARTS | {"interaction": (0.2, 0.04), "total": (3.52, 0.2)}
    assert words not in error_parts(rising, style=style).get_supxlabel().replace("\n", " ")


def test_the_training_sets_share_is_hatched_within_the_models_bar(style):
    figure = error_parts(PARTS, inherited=0.3, style=style)
    axes = figure.axes[0]
    (hatched,) = [p for p in axes.patches if p.get_hatch()]
    model = bars(axes)[1]
    assert hatched.get_x() == model.get_x()
    assert hatched.get_width() == pytest.approx(0.3)
    assert hatched.get_y() == model.get_y()
    (legend,) = figure.legends
    assert legend.get_texts()[0].get_text() == style.text("part", "inherited")
    assert not error_parts(PARTS, style=style).legends


def test_parts_differ_in_colour():
    shown = bars(error_parts(PARTS).axes[0])
    assert len({to_hex(bar.get_facecolor()) for bar in shown}) == 6


@pytest.mark.parametrize("look", LOOKS[::3])
def test_large_small_and_single_draws(look):
    style = style_of(look)
    large = [1.0, 1234.5, 4321.0, -2000.0, -0.5, 3556.0]
    for values, error in ((large, 100.0), (large, None), ([1.0, 0, 0, 0, 0, 1.0], 1e-4)):
        parts = {name: (v, error) for name, v in zip(PARTS, values, strict=True)}
        assert_legible(error_parts(parts, inherited=0.0, style=style))
    below = [1.0, -0.3, -0.4, -0.2, -0.3, -0.2]  # by chance: no root
    parts = {name: (v, 0.5) for name, v in zip(PARTS, below, strict=True)}
    assert_legible(error_parts(parts, style=style))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({}, "give noise, model"),
        ({k: v for k, v in PARTS.items() if k != "rest"}, "give noise, model"),
        (PARTS | {"luck": (0.0, None)}, "give noise, model"),
        (PARTS | {"model": (np.nan, None)}, "not finite"),
        (PARTS | {"total": (2.8, None)}, r"add up to 2\.88 and the total is 2\.8"),
    ],
)
def test_parts_that_are_none_are_refused(parts, message):
    with pytest.raises(ValueError, match=message):
        error_parts(parts)


# --- level by level

X = np.array([-4.0, 0.0, 4.0])
EXCESS, OPTIMUM = np.array([0.01, 0.04, 0.001]), np.array([1.0, 0.5, 0.01])
WEIGHT, ERROR = np.array([1.0, 2.0, 50.0]), np.array([0.001, 0.06, 0.0])


def test_above_both_errors_below_the_share_of_the_loss():
    figure = excess_by_level(X, EXCESS, OPTIMUM, WEIGHT, ERROR)
    above, below = figure.axes
    assert above.get_yscale() == "log"
    exact, model = above.get_lines()[:2]
    assert exact.get_ydata().tolist() == OPTIMUM.tolist()
    assert model.get_ydata().tolist() == EXCESS.tolist()
    loss = (1.0 + 1.0 + 0.5) / 3
    share, mean = below.get_lines()
    assert share.get_ydata() == pytest.approx(np.array([0.01, 0.08, 0.05]) / loss)
    assert mean.get_ydata() == pytest.approx([0.14 / 2.5] * 2)
    assert any("5.6%" in text.get_text() for text in below.texts)
    lines = below.collections[-1].get_segments()
    assert lines[0][:, 1] == pytest.approx(np.array([0.009, 0.011]) / loss)
    assert lines[1][:, 1] == pytest.approx(np.array([0, 0.2]) / loss)  # not below 0
    (band,) = above.collections
    y = band.get_paths()[0].vertices[:, 1]
    assert (y.min(), y.max()) == (0.001, 0.1)


def test_lines_are_named_by_their_looks(style):
    figure = excess_by_level(X, EXCESS, OPTIMUM, WEIGHT, style=style)
    figure.pixels()
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == [style.text("note", "exact"), style.text("note", "excess")]
    for handle, line in zip(legend.get_lines(), figure.axes[0].get_lines(), strict=True):
        for look in ("get_color", "get_linestyle"):
            assert getattr(handle, look)() == getattr(line, look)()


@pytest.mark.parametrize("look", LOOKS[::3])
def test_exact_denoisers_single_levels_and_many(look):
    style = style_of(look)
    assert_legible(excess_by_level(X, 0 * X, OPTIMUM, WEIGHT, style=style))
    assert_legible(excess_by_level(X[:1], EXCESS[:1], OPTIMUM[:1], WEIGHT[:1], style=style))
    assert_legible(excess_by_level(X, 1e-30 * EXCESS, OPTIMUM, WEIGHT, ERROR, style=style))
    assert_legible(erring(500, style=style))
    assert_legible(excess_by_level(X, 1e4 * EXCESS, OPTIMUM * [1, 1, 0], WEIGHT, style=style))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((X, EXCESS[:2], OPTIMUM, WEIGHT), "2 excess for 3"),
        ((X, -EXCESS, OPTIMUM, WEIGHT), "finite numbers"),
        ((X, EXCESS * np.nan, OPTIMUM, WEIGHT), "finite numbers"),
        ((X + np.inf, EXCESS, OPTIMUM, WEIGHT), "finite numbers"),
        ((X, EXCESS, 0 * OPTIMUM, WEIGHT), "somewhere above 0"),
        ((X[:0], X[:0], X[:0], X[:0]), "nothing to draw"),
    ],
)
def test_levels_that_are_none_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        excess_by_level(*values)
