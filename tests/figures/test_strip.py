import re

import numpy as np
import pytest
import torch
from figure_checks import TS

from alphabar import schedule as schedules
from alphabar.figures import data_cloud, schedule_rows, strip
from alphabar.figures.cloud import Cloud
from alphabar.figures.panels import limits, mosaic, number, stack


def shown(axes):
    """t and ᾱ_t as the title of a panel gives them."""
    t, alpha_bar = axes.get_title().split("\n")
    assert r"\bar\alpha_t" in alpha_bar
    value = alpha_bar.split("= ")[1].rstrip("$")
    value = re.sub(r" \\times 10\^\{(-?\d+)\}", r"e\1", value)
    return int(re.fullmatch(r"\$t = (\d+)\$", t)[1]), float(value)


@pytest.mark.parametrize("ts", [TS, TS[::-1], [0, 1, 1000], list(range(0, 1001, 50))])
@pytest.mark.parametrize("name", ["linear", "cosine", "flow"])
def test_each_panel_says_its_t_and_alpha_bar(data, diffuse, ts, name):
    schedule = schedules.SCHEDULES.parse(f"{name}:T=1000")
    x, hue = data("d2", 50)
    figure = strip(diffuse(x, ts, schedule), ts, schedule.alpha_bar[ts], hue)
    panels = [axes for axes in figure.axes if axes.axison]
    assert [shown(axes)[0] for axes in panels] == ts
    for axes, t in zip(panels, ts, strict=True):
        alpha_bar = schedule.alpha_bar[t].item()
        assert shown(axes)[1] == pytest.approx(alpha_bar, rel=0.05, abs=5e-4 * alpha_bar)
        assert (shown(axes)[1] == 1) == (alpha_bar > 1 - 5e-7)
    assert ("Reverse" in figure.get_suptitle()) == (ts[0] > ts[-1])


def test_points_and_colours_are_those_given(data, diffuse, style):
    x, hue = data("d2", 50)
    frames = diffuse(x)
    figure = strip(frames, TS, [0.5] * 4, hue, style=style)
    for axes, frame in zip(figure.axes, frames, strict=True):
        (cloud,) = axes.findobj(Cloud)
        assert np.allclose(cloud.points, frame)
        assert np.allclose(cloud.colours, style.hues(hue))


def test_frames_may_be_one_array_an_iterator_or_tensors(data, diffuse):
    x, hue = data("d2", 50)
    frames = diffuse(x)
    ways = [torch.stack(frames), np.stack(frames), iter(frames), [f.half() for f in frames]]
    pictures = [strip(way, iter(TS), [0.5] * 4, hue).pixels() for way in ways]
    for picture in pictures[:3]:
        assert np.array_equal(picture, pictures[0])


def test_long_strips_go_on_in_the_next_row(data):
    x, _ = data("d2", 20)
    for n, across in ((10, 10), (11, 6), (25, 9)):
        figure = strip([x] * n, range(n), [0.5] * n)
        columns = {round(axes.get_subplotspec().colspan.start) for axes in figure.axes}
        assert len(columns) == across
        assert sum(axes.axison for axes in figure.axes) == n


def test_second_row_is_what_the_network_believes(data):
    x, _ = data("d2", 20)
    x = x.double()
    figure = strip([x + 5] * 3, [9, 4, 0], [0.1, 0.5, 1.0], x_0_hat=[x] * 3)
    assert len(figure.axes) == 6
    for axes in figure.axes[:3]:
        assert np.allclose(axes.findobj(Cloud)[0].points, x + 5)
    for axes in figure.axes[3:]:
        assert np.allclose(axes.findobj(Cloud)[0].points, x)
    assert [figure.axes[i].get_ylabel() for i in (0, 3)] == ["$x_t$", r"$\hat{x}_0$"]


def test_as_many_of_each_are_needed(data):
    x, _ = data("d2", 20)
    with pytest.raises(ValueError, match="1 t for 2"):
        strip([x, x], [0], [1.0, 0.5])
    with pytest.raises(ValueError, match="3 alpha_bar for 2"):
        strip([x, x], [0, 1], [1.0, 0.5, 0.2])
    with pytest.raises(ValueError, match="1 x_0_hat for 2"):
        strip([x, x], [0, 1], [1.0, 0.5], x_0_hat=[x])
    with pytest.raises(ValueError, match="nothing to draw"):
        strip([], [], [])
    with pytest.raises(ValueError, match="2 names for 1"):
        schedule_rows([[x]], [[0]], [schedules.flow(10)], ["a", "b"])


def test_schedule_rows_show_how_far_each_schedule_gets(data, diffuse):
    """The post's three schedules at T = 100 end at ᾱ_T of 0.61, 0.71 and 0.60: none is noise."""
    x, hue = data("d2", 50)
    three = [
        make(100, 1e-5, 1e-2) for make in (schedules.linear, schedules.quad, schedules.sigmoid)
    ]
    figure = schedule_rows([diffuse(x, TS, s) for s in three], [TS] * 3, three, None, hue)
    labels = [axes.get_ylabel() for axes in figure.axes[::4]]
    for label, schedule, end in zip(labels, three, ("0.605", "0.707", "0.605"), strict=True):
        assert label.split("\n")[0] == schedule.spec.split(":")[0]
        assert label.split("\n")[1] == "T=100"
        assert rf"\bar\alpha_{{100}} = {end}" in label
    for row, schedule in zip(range(3), three, strict=True):
        for axes, t in zip(figure.axes[4 * row : 4 * row + 4], TS, strict=True):
            assert shown(axes) == (t, pytest.approx(schedule.alpha_bar[t].item(), abs=6e-4))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1, "1"),
        (0, "0"),
        (0.60496, "0.605"),
        (0.6, "0.600"),
        (0.99949, "0.999"),
        (0.9999, "0.9999"),
        (0.00153, "0.00153"),
        (4.036e-5, r"4.0 \times 10^{-5}"),
        (1e-33, r"1.0 \times 10^{-33}"),
        (12.34, "12.3"),
        (123.4, "123"),
    ],
)
def test_numbers_are_short_and_true(value, text):
    assert number(value) == text


def test_limits_hold_the_data_but_not_one_stray_point():
    rng = np.random.default_rng(0)
    x = rng.normal(size=10_000)
    low, high = limits([x, np.append(x, 1000.0)], 0.08)
    assert 2.5 < high < 4
    assert -4 < low < -2.5
    few = np.array([0.0, 1.0, 7.0, np.inf])
    low, high = limits([few], 0.08)
    assert low < 0
    assert high > 7


def test_stack_fills_the_histogram():
    values = np.random.default_rng(0).normal(size=1000)
    edges = np.linspace(-2, 2, 21)
    points = stack(values, edges)
    assert np.array_equal(points[:, 0], values)
    density = np.histogram(values, edges)[0] / 1000 / (edges[1] - edges[0])
    for i in range(20):
        inside = (values >= edges[i]) & (values < edges[i + 1])
        heights = np.sort(points[inside, 1])
        step = 1 / 1000 / (edges[1] - edges[0])
        assert np.allclose(heights, (np.arange(len(heights)) + 0.5) * step)
        assert heights[-1] < density[i]
    assert np.isnan(points[np.abs(values) > 2, 1]).all()


def test_mosaic_keeps_pixels_and_order():
    pictures = np.linspace(-1, 1, 5)[:, None, None, None] * np.ones((5, 1, 4, 4))
    page = mosaic(pictures)
    assert page.shape == (4 + 1 + 4, 3 * 4 + 2, 4)
    for i, value in enumerate([0, 0.25, 0.5, 0.75, 1]):
        y, x = divmod(i, 3)
        assert np.allclose(page[5 * y : 5 * y + 4, 5 * x : 5 * x + 4, :3], value)
    assert (page[4] == 0).all()  # a clear gap
    assert np.array_equal(mosaic(pictures[:1] * 9)[..., :3], np.zeros((4, 4, 3)))  # clipped


def test_one_stray_point_does_not_shrink_a_strip_but_is_seen_in_the_data():
    x = np.random.default_rng(0).normal(size=(2000, 2))
    stray = np.concatenate([x, [[5.0, 0.0]]])
    panel = strip([x, stray], [0, 1], [1.0, 0.9]).axes[0]
    assert 5 < np.ptp(panel.get_xlim()) < 7.5
    assert data_cloud(stray).axes[0].get_xlim()[1] > 5
