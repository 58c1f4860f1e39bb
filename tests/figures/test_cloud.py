import time

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from alphabar.figures.cloud import Cloud, marker, splat

RED, BLUE = np.array([[1.0, 0, 0]]), np.array([[0, 0, 1.0]])


def test_a_marker_is_where_it_should_be_and_as_large():
    for radius in (0.6, 1.0, 2.5, 6.0):
        centre = np.array([[20.3, 9.8]])
        image = splat(centre, RED, (30, 40), radius, 0.8)
        assert image.shape == (30, 40, 4)
        alpha = image[..., 3] / 255
        y, x = np.mgrid[:30, :40] + 0.5
        assert (alpha * x).sum() / alpha.sum() == pytest.approx(20.3, abs=0.15)
        assert (alpha * y).sum() / alpha.sum() == pytest.approx(9.8, abs=0.15)
        # The rim is half a pixel soft on either side, which makes a disc of r² + 1/12.
        assert alpha.sum() / 0.8 == pytest.approx(np.pi * (radius**2 + 1 / 12), rel=0.1)
        assert alpha.max() <= 0.81
        assert (image[alpha > 0, :3] == [255, 0, 0]).all()


def test_opacity_compounds_where_points_are_dense():
    one, many = (splat(np.full((n, 2), 5.5), RED, (11, 11), 2, 0.1)[5, 5, 3] / 255 for n in (1, 20))
    assert one == pytest.approx(0.1, abs=0.01)
    assert many == pytest.approx(1 - 0.9**20, abs=0.02)


def test_no_colour_hides_another_because_it_comes_later():
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 60, (4000, 2))
    colours = np.repeat(np.concatenate([RED, BLUE]), 2000, axis=0)  # all the blue ones come last
    image = splat(points, colours, (60, 60), 1.2, 0.7).astype(float)
    mean = np.average(image[..., :3].reshape(-1, 3), axis=0, weights=image[..., 3].ravel())
    assert mean[0] == pytest.approx(mean[2], rel=0.06)
    assert image[..., 0].std() > 30  # and they are not mixed to one mud


def test_points_outside_or_not_finite_are_left_out():
    points = np.array([[np.nan, 3], [np.inf, 3], [-1e9, 3], [3, 1e300], [-3, 5], [13, 14]])
    image = splat(points, RED, (10, 10), 2, 0.7)
    assert image.shape == (10, 10, 4)
    assert image[..., 3].max() == 0
    edge = splat(np.array([[0.0, 0.0], [9.9, 9.9]]), RED, (10, 10), 2, 0.7)
    assert edge[0, 0, 3] > 100
    assert edge[9, 9, 3] > 100


def test_fuzz_at_the_edges():
    rng = np.random.default_rng(0)
    for _ in range(50):
        shape = tuple(int(v) for v in rng.integers(1, 20, 2))
        points = rng.uniform(-12, 32, (200, 2))
        assert splat(points, RED, shape, rng.uniform(0.2, 5), 0.5).shape == (*shape, 4)


@pytest.mark.parametrize("dpi", [50, 100, 230])
def test_up_is_up_at_any_resolution(dpi):
    figure = Figure(figsize=(3, 3), dpi=dpi)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.set_axis_off()
    axes.add_artist(Cloud(np.array([[0.25, 0.9]]), RED))
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3].astype(float)
    ink = 255 - pixels[..., 1]
    y, x = np.mgrid[: pixels.shape[0], : pixels.shape[1]] / pixels.shape[0]
    assert (ink * x).sum() / ink.sum() == pytest.approx(0.25, abs=0.01)
    assert (ink * y).sum() / ink.sum() == pytest.approx(0.1, abs=0.01)


def test_markers_shrink_as_their_number_grows():
    sizes = [marker(n, 90.0**2) for n in (1, 100, 10_000, 1_000_000)]
    assert sorted(sizes, reverse=True) == sizes
    assert sizes[0][0] > 2
    assert sizes[-1][1] < 0.1


def test_a_million_points_are_drawn():
    rng = np.random.default_rng(0)
    begin = time.perf_counter()
    image = splat(rng.normal(100, 20, (1_000_000, 2)), RED, (200, 200), 0.6, 0.03)
    assert image[100, 100, 3] > image[100, 40, 3] > 0
    assert time.perf_counter() - begin < 20
