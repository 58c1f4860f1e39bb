import numpy as np
import pytest
from examples import BUMP, LEVELS
from matplotlib.colors import same_color

from alphabar.figures import Difficulty, step_spacing


def test_each_level_is_a_dot_in_its_row_and_hollow_beyond_the_axis(style):
    figure = step_spacing(LEVELS, BUMP, style=style)
    axes = figure.axes[-1]
    low, high = axes.get_xlim()
    rows = {i: [line for line in axes.get_lines() if line.get_ydata()[0] == i] for i in range(3)}
    for i, log_snr in enumerate(LEVELS.values()):
        near = np.abs(log_snr) <= 18
        dots, *hollow = rows[i]
        assert np.array_equal(dots.get_xdata(), log_snr[near])
        assert low < dots.get_xdata().min() < dots.get_xdata().max() < high
        assert len(hollow) == (not near.all())
        for ends in hollow:
            assert same_color(ends.get_mfc(), style.colours.paper)
            assert ends.get_xdata().tolist() == [low, high]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["even", r"가 \$b", "thousand"]
    assert rows[0][0].get_ms() > rows[2][0].get_ms()
    assert style.text("note", "beyond") == figure.get_supxlabel()


def test_rows_are_in_order_from_the_top_below_the_curve():
    figure = step_spacing(LEVELS, BUMP)
    figure.pixels()
    above, below = figure.axes
    assert above.get_xlim() == below.get_xlim()
    first, last = (below.transData.transform((0, i))[1] for i in (0, 2))
    assert above.get_window_extent().y0 > first > last > below.get_window_extent().y0
    (curve,) = above.get_lines()
    assert np.array_equal(curve.get_xydata(), np.stack(BUMP, 1))
    assert above.get_ylim() == (0, pytest.approx(1.08))


def test_noise_is_left_and_data_right(style):
    words = step_spacing(LEVELS, style=style).axes[0].get_xlabel()
    noise, data = {"en": ("noise", "data"), "ko": ("잡음", "데이터")}[style.lang]
    assert words.startswith(noise)
    assert words.endswith(data)


def test_without_a_curve_or_anything_beyond_neither_is_spoken_of():
    figure = step_spacing({"a": np.array([-1.0, 1.0])})
    assert len(figure.axes) == 1
    assert figure.get_supxlabel() == ""


@pytest.mark.parametrize("log_snr", [[3.0], [np.inf], [-np.inf, np.inf], [2.0, 2.0]])
def test_levels_without_extent_are_drawn(log_snr):
    assert step_spacing({"a": np.array(log_snr)}, BUMP).pixels().std() > 0


@pytest.mark.parametrize(
    ("levels", "difficulty", "message"),
    [
        ({}, None, "nothing to draw"),
        ({"a": np.zeros(0)}, None, "a: give at least one log_snr"),
        ({"karras": np.array([1, np.nan])}, None, "karras: .* none that is nan"),
        ({"a": np.zeros(1)}, Difficulty(np.zeros(3), np.zeros(2)), "2 value for 3"),
        ({"a": np.zeros(1)}, Difficulty(np.zeros(1), np.array([np.nan])), "finite"),
    ],
)
def test_what_cannot_be_drawn_is_refused(levels, difficulty, message):
    with pytest.raises(ValueError, match=message):
        step_spacing(levels, difficulty)
