import math

import numpy as np
import pytest
from examples import trained
from figure_checks import LOOKS, assert_legible, style_of

from alphabar.figures import Style, training_curve
from alphabar.figures.learning import NEAR

STEPS = np.arange(1, 2001)


def measured(axes):
    (line,) = [line for line in axes.get_lines() if line.get_marker() == "o"]
    return line.get_xydata()


def test_above_is_every_loss_and_a_mean_over_neighbours():
    loss = np.sin(STEPS / 3) + 2
    loss[700] = np.nan
    above, _ = training_curve(STEPS, loss, [(5, 0.1, None)]).axes
    faint, mean = above.get_lines()
    assert np.array_equal(faint.get_xydata(), np.stack([STEPS, loss], 1), equal_nan=True)
    places = mean.get_xdata()
    assert (places[0], places[-1]) == (1, 2000)
    assert 100 < len(places) <= 240
    for place, value in mean.get_xydata():
        near = [
            y
            for x, y in zip(STEPS, loss, strict=True)
            if place / NEAR <= x <= place * NEAR and y == y
        ]
        assert value == pytest.approx(np.mean(near))


def test_below_is_the_excess_with_its_errors_in_percent():
    found = [(2000, 0.002, 0.0005), (10, 0.1, 0.09), (100, 0.02, None), (500, math.nan, 0.1)]
    figure = training_curve(STEPS, np.ones(2000), found)
    figure.pixels()
    _, below = figure.axes
    assert below.get_xscale() == below.get_yscale() == "log"
    expected = [[10, 0.1], [100, 0.02], [500, np.nan], [2000, 0.002]]
    assert np.array_equal(measured(below), expected, equal_nan=True)
    (bars,) = below.collections
    ends = [s[:, 1].tolist() for s in bars.get_segments() if len(s)]
    assert ends[0] == pytest.approx([0.05, 0.19])  # not below half, which has no end on this axis
    assert len(ends) == 3  # none for the gap
    assert ends[-1] == pytest.approx([0.0015, 0.0025])
    for axis, suffix, factor in ((below.yaxis, "%", 100), (below.xaxis, "", 1)):
        low, high = axis.get_view_interval()
        ticks = zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True)
        shown = [(tick, text.get_text()) for tick, text in ticks if low <= tick <= high]
        assert len(shown) >= 3
        for tick, text in shown:
            number = float(text.removesuffix(suffix).replace(",", ""))
            assert number == pytest.approx(factor * tick)


def test_optimum_and_goal_are_lines_with_their_words(style):
    figure = trained(style=style)
    figure.pixels()
    for axes, level, key, words in zip(
        figure.axes, (0.9, 0.01), ("optimum", "goal"), ("0.9", "1%"), strict=True
    ):
        (text,) = [t for t in axes.texts if t.get_text() == style.text("note", key, value=words)]
        (line,) = [v for v in axes.get_lines() if list(v.get_ydata()) == [level, level]]
        box, y = text.get_window_extent(), axes.transData.transform((1, level))[1]
        assert 0 < (y - box.y1 if key == "optimum" else box.y0 - y) < 10
        assert line.get_linestyle() == "--"


def test_seconds_and_steps(style):
    for unit, words in (("step", "training_step"), ("seconds", "seconds")):
        figure = training_curve(STEPS / 100, np.ones(2000), unit=unit, style=style)
        assert figure.axes[-1].get_xlabel() == style.text("axis", words)


def test_without_a_known_optimum_there_is_one_panel():
    figure = training_curve(STEPS, 1 / STEPS)
    (axes,) = figure.axes
    assert axes.get_xscale() == axes.get_yscale() == "log"  # the loss falls by more than 20
    assert "standard error" not in figure.get_supxlabel()


@pytest.mark.parametrize("look", LOOKS[::3])
@pytest.mark.parametrize("steps", [1, 2, 30, 100_000])
def test_short_and_long_runs(look, steps):
    at = np.arange(1, steps + 1)
    style = style_of(look)
    assert_legible(training_curve(at, 5 + 1 / at, [(steps, 0.5, None)], optimum=5, style=style))
    assert_legible(training_curve(at / 7, np.full(steps, 3.0), unit="seconds", style=style))


def test_a_wide_excess_is_marked_by_decades():
    figure = training_curve(STEPS, np.ones(2000), [(1, 40.0, None), (2000, 1e-9, 1e-10)])
    assert_legible(figure)


def test_what_diverged_is_a_gap():
    loss = np.where(STEPS > 1000, np.inf, 1.0)
    figure = training_curve(STEPS, loss, [(10, 0.1, 0.01), (1500, math.inf, math.nan)])
    assert_legible(figure)
    _, mean = figure.axes[0].get_lines()
    gaps = np.isnan(mean.get_ydata())
    assert gaps[-1]
    assert not gaps[0]


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (([0, 1], [1, 2]), {}, "above 0"),
        (([1, 2], [1, 2], [(0, 1, None)]), {}, "above 0"),
        (([1, 2], [1, 2]), {"goal": 0.0}, "above 0"),
        (([1, 2], [1, 2]), {"unit": "hours"}, "choose step or seconds"),
        (([1, 2], [1]), {}, "1 loss for 2"),
        (([], []), {}, "nothing to draw"),
    ],
)
def test_what_has_no_place_on_the_axes_is_refused(arguments, options, message):
    at, loss, *rest = arguments
    with pytest.raises(ValueError, match=message):
        training_curve(np.array(at, float), np.array(loss, float), *rest, **options)


def test_a_title_of_ones_own():
    figure = training_curve(STEPS, np.ones(2000), title="run 7 $", style=Style())
    assert figure.get_suptitle() == "run 7 $"
