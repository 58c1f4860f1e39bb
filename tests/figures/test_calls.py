import re

import numpy as np
import pytest
from examples import samplers

from alphabar.figures import error_against_calls
from alphabar.figures.calls import MARKERS


def measured(axes):
    """The lines with markers that lie in the axes: name ends lie outside."""
    lines = [line for line in axes.get_lines() if line.get_transform() == axes.transData]
    return [line for line in lines if line.get_marker() in MARKERS]


def labels(axis):
    return {
        tick: label.get_text()
        for tick, label in zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True)
    }


def test_lines_are_the_measurements_in_order():
    rows = {"a": [(20, 1.2, 0.1), (5, 3.0, None)], "b": [(7, 2.0, 0.0)]}
    axes = error_against_calls(rows).axes[0]
    a, b = measured(axes)
    assert a.get_xydata().tolist() == [[5, 3], [20, 1.2]]
    assert b.get_xydata().tolist() == [[7, 2]]
    assert axes.get_xscale() == axes.get_yscale() == "log"


def test_twelve_lines_differ_without_colour_and_their_names_are_tied_to_them():
    figure = error_against_calls(samplers(12))
    figure.pixels()
    axes = figure.axes[0]
    lines = measured(axes)
    assert len({line.get_marker() for line in lines}) == 12
    names = [t for t in axes.texts if t.get_text() in samplers(12)]
    ties = [line for line in axes.get_lines() if line.get_markevery() == [2]]
    assert len(names) == len(ties) == 12
    for name, tie, line in zip(names, ties, lines, strict=True):
        for look in ("get_marker", "get_color", "get_linestyle"):
            assert getattr(tie, look)() == getattr(line, look)()
        assert tie.get_ydata()[2] == name.get_position()[1]
        end = axes.transAxes.inverted().transform(axes.transData.transform(line.get_xydata()[-1]))
        assert tie.get_ydata()[0] == pytest.approx(end[1])
        assert name.get_window_extent().x0 > axes.get_window_extent().x1  # not over the lines
    ends = [line.get_ydata()[-1] for line in lines]
    heights = [name.get_position()[1] for name in names]
    assert np.array_equal(np.argsort(ends, kind="stable"), np.argsort(heights))


def test_a_line_that_ends_early_is_led_to_the_edge():
    axes = error_against_calls(
        {"a": [(5, 2.0, None)], "b": [(5, 3.0, None), (50, 1.5, None)]}
    ).axes[0]
    leads = [line for line in axes.get_lines() if line.get_linestyle() == ":" and line.get_lw() < 1]
    for lead, line in zip(leads, measured(axes), strict=True):
        end = axes.transAxes.inverted().transform(axes.transData.transform(line.get_xydata()[-1]))
        assert lead.get_xydata() == pytest.approx(np.array([end, [1, end[1]]]))


def test_floor_and_goal_are_lines_with_their_words(style):
    figure = error_against_calls(samplers(3), floor=0.9, goal=1.3, style=style)
    figure.pixels()
    axes = figure.axes[0]
    for level, key in ((0.9, "floor"), (1.3, "goal")):
        (words,) = [t for t in axes.texts if t.get_text() == style.text("note", key, value=level)]
        (line,) = [v for v in axes.get_lines() if list(v.get_ydata()) == [level, level]]
        box, y = words.get_window_extent(), axes.transData.transform((5, level))[1]
        assert 0 < (box.y0 - y if key == "goal" else y - box.y1) < 10
        assert line.get_linestyle() == "--"
        assert level in labels(axes.yaxis)
    assert "1.3" in style.text("note", "goal", value="1.3")


def test_ticks_are_plain_numbers_with_room_between_them():
    for n, goal, scale in ((6, 1.25, 1), (6, 1.01, 1), (3, None, 1e4), (3, 1.25, 1e-3)):
        rows = {k: [(c, v * scale, e) for c, v, e in row] for k, row in samplers(n).items()}
        figure = error_against_calls(rows, goal=goal)
        figure.pixels()
        axes = figure.axes[0]
        for axis in (axes.xaxis, axes.yaxis):
            shown = labels(axis)
            assert 3 <= len(shown) <= 16
            for tick, text in shown.items():
                assert re.fullmatch(r"\d+(\.\d+)?", text)
                assert float(text) == pytest.approx(tick)
        assert all(text.isdigit() for text in labels(axes.xaxis).values())
        assert {5, 10, 20, 50, 100} <= labels(axes.xaxis).keys()  # what most were measured at
        assert 1 in labels(axes.yaxis)


def test_bars_are_standard_errors_and_stay_in_the_axes():
    rows = {"a": [(5, 2.0, 0.5), (10, 1.0, 3.0), (20, 1.5, None)]}
    figure = error_against_calls(rows)
    axes = figure.axes[0]
    (bars,) = axes.collections
    low = axes.get_ylim()[0]
    assert [s.tolist() for s in bars.get_segments()] == [
        [[5, 1.5], [5, 2.5]],
        [[10, low], [10, 4.0]],
        [[20, 1.5], [20, 1.5]],
    ]
    assert 0 < low < 0.5
    assert axes.get_ylim()[1] > 4
    assert figure.get_supxlabel() == "Bars: one standard error up and down."
    assert error_against_calls({"a": [(5, 2.0, None)]}).get_supxlabel() == ""


def test_values_below_the_floor_are_seen():
    axes = error_against_calls({"a": [(5, 2.0, None), (50, 0.93, None)]}).axes[0]
    assert axes.get_ylim()[0] < 0.93


@pytest.mark.parametrize("wild", [np.nan, np.inf, -np.inf])
def test_what_diverged_is_a_gap(wild):
    rows = {"a": [(5, wild, wild), (9, 2.0, wild), (20, 1.1, None)], "b": [(5, np.nan, None)]}
    if wild < 0:
        with pytest.raises(ValueError, match="a: calls and errors must be above 0"):
            error_against_calls(rows)
        return
    figure = error_against_calls(rows)
    assert figure.pixels().std() > 0
    a, b = measured(figure.axes[0])
    assert np.isnan(a.get_ydata()).tolist() == [True, False, False]
    assert np.isnan(b.get_ydata()).all()


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ({}, {}, "nothing to draw"),
        ({"a": []}, {}, "nothing to draw"),
        ({"a": [(5, np.nan, None)]}, {}, "nothing to draw"),
        ({"ddim": [(5, 0.0, None)]}, {}, "ddim: calls and errors must be above 0"),
        ({"ddim": [(0, 1.0, None)]}, {}, "ddim: calls and errors must be above 0"),
        ({"a": [(5, 1.0, None)]}, {"floor": 0.0}, "floor or goal = 0.0"),
    ],
)
def test_what_has_no_place_on_the_axes_is_refused(rows, options, message):
    with pytest.raises(ValueError, match=message):
        error_against_calls(rows, **options)


def test_another_measure_has_its_name():
    rows = {"a": [(5, 0.3, None)]}
    assert error_against_calls(rows, measure="W₂", floor=None).axes[0].get_ylabel() == "W₂"
    assert error_against_calls(rows).axes[0].get_ylabel() == "distance / that of true samples"
