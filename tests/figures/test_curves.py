import math

import numpy as np
import pytest
from matplotlib.patches import Rectangle

from alphabar import schedule as schedules
from alphabar.figures import schedule_curves
from alphabar.figures.curves import NOISE

POST = [make(100, 1e-5, 1e-2) for make in (schedules.linear, schedules.quad, schedules.sigmoid)]


def curves(axes):
    return [line for line in axes.get_lines() if line.get_transform() != axes.transAxes]


@pytest.mark.parametrize("Ts", [(100, 100), (100, 50)])
def test_lines_are_the_tables(Ts):
    two = [schedules.linear(Ts[0]), schedules.flow(Ts[1])]
    figure = schedule_curves(two)
    same = Ts[0] == Ts[1]
    for axes, table in zip(figure.axes, ("beta", "alpha_bar", "log_snr"), strict=True):
        first = 0 if table == "alpha_bar" else 1
        for line, schedule in zip(curves(axes), two, strict=True):
            t = np.arange(first, schedule.T + 1) / (1 if same else schedule.T)
            values = np.clip(getattr(schedule, table).numpy()[first:], -1000, 1000)
            assert np.allclose(line.get_xdata(), t)
            assert np.allclose(line.get_ydata(), values)
        assert axes.get_xlim() == (0, 100 if same else 1)
        assert axes.get_xlabel() == ("step $t$" if same else "$t / T$")


def test_every_schedule_has_its_name_in_order_and_a_look_of_its_own():
    names = [f"schedule {i}" for i in range(15)]
    many = [schedules.constant(100, 0.002 * 1.4**i) for i in range(15)]
    figure = schedule_curves(many, names)
    figure.pixels()
    labels = [t for t in figure.axes[2].texts if t.get_text() in names]
    heights = [t.get_position()[1] for t in labels]
    assert [t.get_text() for t in labels] == names
    assert heights == sorted(heights, reverse=True)  # more noise, lower λ_T
    looks = {(line.get_color(), str(line._dash_pattern)) for line in curves(figure.axes[0])}
    assert len(looks) == 15


def test_labels_of_lines_that_end_in_noise_stay_in_the_figure():
    figure = schedule_curves([schedules.flow(100, float(s)) for s in range(1, 19)])
    figure.pixels()
    boxes = [t.get_window_extent() for t in figure.axes[2].texts]
    assert min(box.y0 for box in boxes) >= 0
    assert max(box.y1 for box in boxes) <= figure.bbox.y1


def test_beta_is_linear_unless_a_schedule_would_lie_on_the_ground():
    assert schedule_curves(POST).axes[0].get_yscale() == "linear"
    assert schedule_curves([*POST, schedules.flow(100)]).axes[0].get_yscale() == "log"


def test_noise_is_where_the_kl_to_the_prior_is_a_hundredth():
    assert -0.5 * math.log(1 - NOISE) == pytest.approx(0.01)
    assert pytest.approx(0.0198, abs=1e-5) == NOISE
    figure = schedule_curves(POST)
    tops = [
        [p.get_y() + p.get_height() for p in axes.patches if isinstance(p, Rectangle)]
        for axes in figure.axes
    ]
    assert tops[0] == []
    assert tops[1] == [pytest.approx(NOISE)]
    assert 1 / (1 + math.exp(-tops[2][0])) == pytest.approx(NOISE)
    # None of the post's schedules gets there, and the picture shows where it would be.
    assert figure.axes[2].get_ylim()[0] < tops[2][0] < POST[0].log_snr[-1]


@pytest.mark.parametrize("T", [1, 2])
def test_shortest_schedules_are_seen(T):
    figure = schedule_curves([schedules.constant(T, 0.5)])
    assert figure.pixels().std() > 0
    assert all(line.get_marker() == "o" for line in curves(figure.axes[0]))


def test_tables_without_a_spec_are_numbered():
    table = schedules.Schedule(POST[0].alpha, POST[0].sigma)
    figure = schedule_curves([POST[0], table])
    assert [t.get_text() for t in figure.axes[2].texts][1:] == [POST[0].spec, "table 2"]


def test_as_many_names_as_schedules():
    with pytest.raises(ValueError, match="1 names for 3"):
        schedule_curves(POST, ["a"])
