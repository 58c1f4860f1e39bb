import numpy as np
import pytest
from examples import ALPHA_BARS, AT, AXIS, GRID, field, law
from matplotlib.colors import to_rgb
from matplotlib.contour import ContourSet
from matplotlib.patches import Patch
from matplotlib.quiver import Quiver
from test_figure_style import VISIONS, contrast, lab

from alphabar.figures import density_and_score
from alphabar.figures.field import SHARES, Plane, edges, strokes, tints
from alphabar.figures.panels import moment
from alphabar.figures.style import THEMES, Style

PLANE = Plane(AXIS, AXIS, AT.reshape(-1, 2))


def drawn(axes, kind):
    return [artist for artist in axes.get_children() if isinstance(artist, kind)]


@pytest.mark.parametrize("sigma", [0.08, 0.4, 1.0])
def test_regions_of_a_gaussian_hold_their_shares(sigma):
    """P(|x| > r) = exp(−r²/2σ²), so the edge lies log(1 − share) below the peak."""
    axis = np.linspace(-5 * sigma, 5 * sigma, 201)
    r_2 = axis[:, None] ** 2 + axis**2
    found = edges(7 - r_2 / (2 * sigma**2), Plane(axis, axis, AT))
    assert found == pytest.approx(7 + np.log1p(-np.array(SHARES)), abs=0.02)


def test_regions_count_the_area_of_uneven_cells():
    x = np.sinh(np.linspace(-2.3, 2.3, 301))
    y = np.linspace(-5, 5, 201)
    found = edges(-(x**2 + y[:, None] ** 2) / 2, Plane(x, y, AT))
    assert found == pytest.approx(np.log1p(-np.array(SHARES)), abs=0.03)


def test_contours_are_the_regions_edges_and_the_key_says_which(style):
    figure = field(style=style)
    key = figure.legends[0]
    names = [text.get_text() for text in key.get_texts()]
    assert names == ["30%", "60%", "90%", "99%"]
    shown = {
        name: patch.get_facecolor()[:3]
        for name, patch in zip(names, key.findobj(Patch)[: len(names)], strict=True)
    }
    for axes, alpha_bar in zip(figure.axes, ALPHA_BARS, strict=True):
        filled, lines = drawn(axes, ContourSet)
        levels = edges(law(GRID, alpha_bar)[0], PLANE)
        assert filled.filled
        assert filled.levels[:-1] == pytest.approx(levels)
        assert lines.levels == pytest.approx(levels)
        colours = dict(zip(("99%", "90%", "60%", "30%"), filled.get_facecolor(), strict=True))
        assert all(shown[name] == pytest.approx(colours[name][:3]) for name in names)


@pytest.mark.parametrize("theme", THEMES)
def test_regions_differ_for_every_eye_and_arrows_stand_out_from_all(theme):
    style = Style(theme)
    paper = style.rgb(style.colours.paper)[0]
    grounds = [paper, *tints(style)]
    assert all(contrast(style.colours.ink, ground) > 3 for ground in grounds)
    for vision in VISIONS:
        seen = lab(np.array(grounds), vision)
        lightness = np.diff(seen[:, 0])
        assert (np.sign(lightness) == np.sign(lightness[0])).all()
        assert np.linalg.norm(np.diff(seen, axis=0), axis=1).min() > 5


def test_arrows_follow_the_score_and_say_how_strong_it_is():
    figure = field()
    spacing = 6 / 11
    for axes, alpha_bar in zip(figure.axes[1:], ALPHA_BARS[1:], strict=True):
        (quiver,) = drawn(axes, Quiver)
        arrows, score = np.stack([quiver.U, quiver.V], 1), law(AT, alpha_bar)[1].reshape(-1, 2)
        assert np.allclose(quiver.XY, AT.reshape(-1, 2))
        assert quiver.pivot == "middle"
        length, size = np.linalg.norm(arrows, axis=1), np.linalg.norm(score, axis=1)
        assert np.allclose((arrows * score).sum(1), length * size)  # the same way
        assert (np.diff(length[np.argsort(size)]) > -1e-12).all()
        assert 0.7 * spacing < length.max() < spacing
    assert not drawn(figure.axes[0], Quiver)[0].U.size


def test_an_arrow_is_half_as_long_where_the_noise_times_the_score_is_one():
    alpha_bar = 0.64
    scores = np.array([[1, 0], [0, -1e9], [0, 0], [np.inf, np.nan]]) / 0.6
    at = np.array([[-1.0, 0], [0, 0], [1, 0], [2, 0]])
    right, down, none, wild = strokes(scores, alpha_bar, Plane(AXIS, AXIS, at))
    assert right == pytest.approx([-down[1] / 2, 0])
    assert down[0] == 0
    assert not none.any()
    assert not wild.any()


def test_panels_share_limits_and_a_circle_is_round():
    square, flat = field(), field(y=np.linspace(-1, 2, 31), at=AT[3:9])
    for figure, limits in ((square, (-3, 3)), (flat, (-1, 2))):
        figure.pixels()
        for axes, alpha_bar, t in zip(figure.axes, ALPHA_BARS, range(4), strict=True):
            assert axes.get_xlim() == (-3, 3)
            assert axes.get_ylim() == limits
            box = axes.get_window_extent()
            assert box.width / 6 == pytest.approx(box.height / np.ptp(limits), rel=0.01)
            assert axes.get_title() == moment(t, alpha_bar)


def test_notes_say_what_an_arrow_means_and_why_there_is_none(style):
    with_data, noisy = field(style=style), field(ALPHA_BARS[1:], style=style)
    why = style.text("note", "no_noise")
    assert why in with_data.get_supxlabel()
    assert why not in noisy.get_supxlabel()
    assert r"$\sigma_t|\nabla\log p_t|$" in noisy.get_supxlabel()


def test_points_lie_over_their_own_level():
    points = [np.full((3, 2), float(i)) for i in range(4)]
    figure = field(points=points)
    for axes, these in zip(figure.axes, points, strict=True):
        (line,) = axes.get_lines()
        assert np.array_equal(line.get_xydata(), these)
        assert to_rgb(line.get_color()) == to_rgb(figure.style.colours.lines[1])


@pytest.mark.parametrize(
    "log_p",
    [
        np.zeros((61, 61)),
        np.where(np.eye(61) > 0, 0.0, -np.inf),
        np.pad([[5.0]], 30, constant_values=-1e4),
        np.where(AXIS < 0, 0.0, -1e300) + np.zeros((61, 1)),
    ],
)
def test_densities_that_are_flat_thin_or_zero_are_drawn(log_p):
    figure = one(log_p)
    assert len(drawn(figure.axes[0], ContourSet)) in (1, 2)
    assert figure.pixels().std() > 0


def one(log_p, score=AT, **options):
    return density_and_score(
        [log_p], [score], [3], [0.5], **{"x": AXIS, "y": AXIS, "at": AT, **options}
    )


@pytest.mark.parametrize(
    ("log_p", "options", "message"),
    [
        (np.full((61, 61), np.nan), {}, "begin at a level with noise"),
        (np.full((61, 61), -np.inf), {}, "nowhere finite"),
        (np.full((61, 61), np.inf), {}, "inf"),
        (np.zeros((61, 60)), {}, r"\(61, 60\) for 61 y and 61 x"),
        (np.zeros((61, 61)), {"x": AXIS[::-1]}, "does not ascend"),
        (np.zeros((61, 61)), {"score": AT[:5]}, "55 vectors of score for 121"),
        (np.zeros((61, 61)), {"at": np.zeros((4, 3))}, r"at of shape \(4, 3\)"),
        (np.zeros((61, 61)), {"points": []}, "0 points for 1"),
    ],
)
def test_what_does_not_fit_is_refused(log_p, options, message):
    with pytest.raises(ValueError, match=message):
        one(log_p, **options)
