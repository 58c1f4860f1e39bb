import numpy as np
import pytest
from examples import remembered
from matplotlib.colors import to_rgb
from matplotlib.patches import StepPatch

from alphabar.figures import memorisation
from alphabar.figures.cloud import Cloud, marker

RNG = np.random.default_rng(1)
TRAINING, OF_SET, OF_LAW = (RNG.normal(size=(n, 2)) for n in (40, 70, 90))
FRESH = np.linspace(0.1, 1, 101)


def drawn(nearest_of_set=FRESH / 1e3, nearest_of_law=FRESH, nearest_fresh=FRESH, **options):
    return memorisation(
        TRAINING,
        OF_SET,
        OF_LAW,
        nearest_of_set=nearest_of_set,
        nearest_of_law=nearest_of_law,
        nearest_fresh=nearest_fresh,
        **options,
    )


def notes(figure):
    return figure.get_supxlabel().replace("\n", " ")


def test_rings_are_the_training_set_and_dots_the_samples(style):
    figure = drawn(style=style)
    blue, orange, *_ = style.colours.lines
    for axes, points, colour in zip(
        figure.axes, (None, OF_SET, OF_LAW), (None, orange, blue), strict=False
    ):
        (rings,) = axes.get_lines()
        assert np.array_equal(rings.get_xydata(), TRAINING)
        assert rings.get_mfc() == "none"
        clouds = axes.findobj(Cloud)
        assert len(clouds) == (points is not None)
        for cloud in clouds:
            assert np.array_equal(cloud.points, points)
            assert cloud.colours == pytest.approx(np.array([to_rgb(colour)]))
    assert len({axes.get_xlim() for axes in figure.axes[:3]}) == 1
    counts = {"en": "({})", "ko": "({}개)"}[style.lang]
    for axes, n in zip(figure.axes, (40, 70, 90), strict=False):
        assert axes.get_title().endswith(counts.format(n))


def test_a_ring_holds_its_dot():
    for n in (20, 500, 20_000):
        training = np.random.default_rng(0).normal(size=(n, 2))
        figure = remembered(training)
        figure.pixels()
        box = figure.axes[1].get_window_extent()
        dot = marker(n, box.width * box.height * (72 / figure.dpi) ** 2)[0]
        assert figure.axes[1].get_lines()[0].get_ms() / 2 > 1.2 * dot


def test_histograms_are_the_distances_on_a_logarithmic_axis(style):
    axes = drawn(style=style).axes[3]
    patches = axes.findobj(StepPatch)
    given = (FRESH / 1e3, FRESH, FRESH)
    keys = ("from_set", "from_law", "fresh")
    for patch, distances, key in zip(patches, given, keys, strict=True):
        heights, edges, _ = patch.get_data()
        assert np.allclose(np.diff(np.log(edges)), np.log(edges[1] / edges[0]))
        count = np.histogram(distances, edges)[0]
        assert count.sum() == len(distances)  # none is lost
        assert heights == pytest.approx(count / count.max())
        assert patch.get_label() == style.text("note", key)
    assert axes.get_xscale() == "log"
    legend = axes.get_legend()
    axes.figure.pixels()
    assert [t.get_text() for t in legend.get_texts()] == [style.text("note", k) for k in keys]
    assert legend.get_window_extent().y0 > axes.transData.transform((1, 1))[1]  # above all bars


def test_the_shares_of_copies_are_counted():
    """A hundredth of FRESH is below 0.109: half of these, and none of those."""
    note = notes(drawn(np.repeat([0.108, 0.11], 20), np.full(7, 0.11)))
    assert "50% of the samples from the training set, 0% of those from the true law" in note
    alone = notes(remembered(law=False))
    assert "100% of the samples from the training set." in alone
    assert "law" not in alone


def test_what_lies_on_a_training_point_is_in_the_first_bar_and_said_to_be():
    figure = drawn(nearest_of_set=np.zeros(30))
    heights, edges, _ = figure.axes[3].findobj(StepPatch)[0].get_data()
    assert heights.tolist() == [1] + [0] * (len(heights) - 1)
    assert edges[0] < 0.1
    assert "The first bar holds all that is nearer than $0.0700$." in notes(figure)
    assert "first bar" not in notes(drawn())
    tiny = drawn(nearest_of_set=np.full(3, 1e-300))
    assert tiny.axes[3].get_xlim()[0] > 1e-6  # the axis does not go down to it


@pytest.mark.parametrize("d", [1, 5])
def test_points_of_any_number_of_columns_have_their_colours(d):
    training = np.random.default_rng(0).normal(size=(50, d))
    figure = remembered(training)
    colours = [axes.findobj(Cloud)[-1].colours for axes in figure.axes[1:3]]
    lines = figure.style.colours.lines
    assert np.allclose(colours, [[to_rgb(lines[1])], [to_rgb(lines[0])]])
    assert ("5 columns" in notes(figure)) == (d == 5)
    assert ("ring" in notes(figure)) == (d == 5)


def test_two_panels_without_the_law():
    assert len(remembered(law=False).axes) == 3
    assert len(remembered().axes) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nearest_of_law": None}, "give both or neither"),
        ({"nearest_fresh": np.zeros(0)}, "nearest_fresh: give at least one"),
        ({"nearest_of_set": np.array([-1.0])}, "nearest_of_set: .* none negative"),
        ({"nearest_of_set": np.array([np.inf])}, "nearest_of_set: .* all finite"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        drawn(**options)


@pytest.mark.parametrize("distances", [np.zeros(3), np.full(3, 2.0), np.full(3, 1e-300)])
def test_distances_without_extent_are_drawn(distances):
    assert drawn(distances, distances, distances).pixels().std() > 0
