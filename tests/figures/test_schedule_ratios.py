import math

import numpy as np
import pytest
from examples import GROWN, RATIOS
from figure_checks import assert_legible
from matplotlib.colors import same_color

from alphabar.figures import Style, schedule_ratios

ONE = {("plain", "post"): {"a": (2.0, 1.5, 3.0, 1.2)}}


def drawn(axes, y):
    """(x, marker) of everything on a row."""
    lines = [line for line in axes.get_lines() if np.atleast_1d(line.get_ydata())[0] == y]
    return [(line.get_xdata(), line.get_marker()) for line in lines if line.get_xdata()[0] != 1]


def test_each_schedule_has_its_ratio_its_interval_and_the_exact_one(style):
    figure = schedule_ratios(RATIOS, style=style)
    panels = {axes.get_title(loc="left"): axes for axes in figure.axes}
    assert len(panels) == 4
    for (way, range_), marks in RATIOS.items():
        axes = panels[f"{style.text('way', way)}, {style.text('range', range_)}"]
        low_limit, high_limit = axes.get_xlim()
        for y, (ratio, low, high, exact) in enumerate(marks.values()):
            found = {marker: list(x) for x, marker in drawn(axes, y)}
            expected = {"o": [ratio]}
            expected |= {"D": [exact]} if exact else {}
            expected |= {"None": [low, high]} if low else {}
            assert found == expected
            for x in found.values():
                assert low_limit < min(x) <= max(x) < high_limit
        assert low_limit < 1 < high_limit
        floor = [line for line in axes.get_lines() if list(line.get_xdata()) == [1, 1]]
        assert len(floor) == 1


def test_rows_run_from_the_top_and_are_named_at_the_left():
    figure = schedule_ratios(RATIOS)
    figure.pixels()
    left, right = figure.axes[:2]
    heights = [left.transData.transform((1, y))[1] for y in range(5)]
    assert heights == sorted(heights, reverse=True)
    assert [t.get_text() for t in left.get_yticklabels()] == [
        "constant 0.035",
        r"가 \$b",
        *GROWN,
    ]
    assert not any(t.get_text() for t in right.get_yticklabels())
    assert len({axes.get_xlim() for axes in figure.axes}) == 1
    named = [
        [t.get_text() for t in axes.get_xticklabels() if t.get_visible()] for axes in figure.axes
    ]
    assert [bool(names) for names in named] == [False, False, True, True]
    assert {"1", "2", "5"} <= {*named[2]}


def test_growing_schedules_have_colours_of_their_own_and_the_others_are_grey():
    style = Style("dark")
    axes = schedule_ratios(RATIOS, style=style).axes[0]
    colours = [
        line.get_color()
        for y in range(5)
        for line in axes.get_lines()
        if list(line.get_ydata()) == [y] and line.get_marker() == "o"
    ]
    assert len(colours) == 5
    assert all(same_color(colour, style.colours.muted) for colour in colours[:2])
    assert len({*colours[2:]}) == 3
    assert not any(same_color(colour, style.colours.muted) for colour in colours[2:])


@pytest.mark.parametrize(
    "marks",
    [
        {"a": (2.0, None, None, None)},
        {"a": (0.98, 0.97, 1.01, 1.0)},
        {"a": (3000.0, 10.0, 90000.0, 1.0)},
        {f"schedule {i}": (1.0 + i, 0.9 + i, 1.2 + i, 1.0) for i in range(12)},
    ],
)
def test_few_many_and_wide(marks):
    assert_legible(schedule_ratios({("ours", "noise"): marks}))


def test_floor_and_title_are_those_that_are_given():
    figure = schedule_ratios(ONE, floor=1.414, title="가 title")
    assert figure.get_suptitle() == "가 title"
    (axes,) = figure.axes
    assert [1.414, 1.414] in [list(line.get_xdata()) for line in axes.get_lines()]
    low, high = axes.get_xlim()
    assert low < 1.2 < 3 < high


@pytest.mark.parametrize(
    ("panels", "message"),
    [
        ({}, "nothing to draw"),
        ({("plain", "post"): {}}, "nothing to draw"),
        ({("plain", "post"): {"a": (0.0, None, None, None)}}, "0.0: a ratio must be above 0"),
        ({("plain", "post"): {"a": (2.0, -1.0, 3.0, None)}}, "-1.0: a ratio must be above 0"),
        ({("plain", "post"): {"a": (math.inf, None, None, None)}}, "inf: a ratio"),
        ({("plain", "post"): {"a": (2.0, math.nan, 3.0, None)}}, "nan: a ratio"),
        ({**ONE, ("ours", "post"): {"b": (2.0, 1.5, 3.0, 1.2)}}, r"\(ours, post\) has other"),
        ({**ONE, ("ours", "noise"): ONE["plain", "post"]}, "is missing"),
    ],
)
def test_what_cannot_be_drawn_is_refused(panels, message):
    with pytest.raises(ValueError, match=message):
        schedule_ratios(panels)
