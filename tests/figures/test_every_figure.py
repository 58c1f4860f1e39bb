import inspect
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
import torch
from examples import ALPHA_BARS, EXAMPLES, field, remembered, samplers
from figure_checks import KINDS, LOOKS, TS, assert_legible, style_of
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from alphabar import figures
from alphabar import schedule as schedules
from alphabar.figures import (
    Style,
    data_cloud,
    error_against_calls,
    samples_beside_data,
    schedule_curves,
    schedule_rows,
    step_spacing,
    strip,
    training_curve,
)
from alphabar.figures.cloud import Cloud

# All styles for points in the plane; for the others the one that is furthest from the defaults.
PAIRS = [(kind, look) for kind in KINDS for look in LOOKS if kind == "d2" or look == LOOKS[-1]]


@pytest.fixture(params=["data_cloud", "strip", "reverse", "rows", "beside"])
def build(request, schedule, diffuse):
    """A function: the figure of some data in a style."""

    def make(x, hue, style):
        if request.param == "data_cloud":
            return data_cloud(x, hue, style=style)
        if request.param == "beside":
            x_1 = torch.as_tensor(x).detach().double()[: max(1, len(x) // 2)]
            return samples_beside_data(x, x_1, hue, ratio=1.2345, style=style)
        if request.param == "rows":
            both = [schedules.linear(100, 1e-5, 1e-2), schedules.flow(1000)]
            ts = [TS, [0, 300, 1000]]
            frames = [diffuse(x, t, s) for t, s in zip(ts, both, strict=True)]
            return schedule_rows(frames, ts, both, None, hue, style=style)
        ts = TS[::-1] if request.param == "reverse" else TS
        believed = [torch.as_tensor(x).detach()] * 4 if request.param == "reverse" else None
        return strip(diffuse(x, ts), ts, schedule.alpha_bar[ts], hue, x_0_hat=believed, style=style)

    return make


def panels(figure):
    return [axes for axes in figure.axes if axes.axison]


@pytest.mark.parametrize(("kind", "look"), PAIRS)
def test_every_kind_of_data_in_every_style(build, data, kind, look):
    figure = build(*data(kind), style_of(look))
    assert isinstance(figure, Figure)
    assert_legible(figure)
    shown = panels(figure)
    if kind in ("d1", "d2", "d5"):
        assert all(any(isinstance(a, Cloud) for a in axes.get_children()) for axes in shown)
        assert len({axes.get_xlim() for axes in shown}) == 1
        assert len({axes.get_ylim() for axes in shown}) == 1
    else:
        assert all(any(isinstance(a, AxesImage) for a in axes.get_children()) for axes in shown)
    if kind == "d2":  # a circle is round: one unit is as long across as up
        for axes in shown:
            box = axes.get_window_extent()
            across, up = np.ptp(axes.get_xlim()) / box.width, np.ptp(axes.get_ylim()) / box.height
            assert across == pytest.approx(up, rel=0.01)


FEW_AND_MANY = {
    "all schedules": lambda style: schedule_curves(
        [entry.build() for entry in schedules.SCHEDULES if takes_only_T(entry)], style=style
    ),
    "two losses": lambda style: training_curve(
        torch.tensor([1, 2]), torch.tensor([1.0, 0.5]), style=style
    ),
    "a level": lambda style: field(ALPHA_BARS[:1], points=[np.zeros((3, 2))], style=style),
    "seven levels": lambda style: field(np.linspace(0.99, 0.01, 7), style=style),
    "a sampler": lambda style: error_against_calls(samplers(1, None), floor=None, style=style),
    "12 samplers": lambda style: error_against_calls(samplers(12), goal=1.01, style=style),
    "a step": lambda style: step_spacing({"a": np.zeros(1)}, style=style),
    "no law": lambda style: remembered(law=False, style=style),
    "on a line": lambda style: remembered(np.zeros((3, 1)), style=style),
    "five columns": lambda style: remembered(np.zeros((3000, 5)), style=style),
    "pictures": lambda style: remembered(np.zeros((9, 1, 8, 8)), style=style),
}


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("name", EXAMPLES)
def test_figures_of_numbers_in_every_style(name, look):
    assert_legible(EXAMPLES[name](style_of(look)))


@pytest.mark.parametrize("look", LOOKS[::3])
@pytest.mark.parametrize("name", FEW_AND_MANY)
def test_figures_of_few_and_many_numbers(name, look):
    assert_legible(FEW_AND_MANY[name](style_of(look)))


def test_every_figure_is_here():
    drawn = {data_cloud, samples_beside_data, schedule_rows, strip}  # by `build`
    others = {"Style", "Difficulty", "animation"}
    assert {f.__name__ for f in drawn} | EXAMPLES.keys() | others == set(figures.__all__)


def takes_only_T(entry):
    return all(p is not inspect.Parameter.empty for p in entry.parameters.values())


@pytest.mark.parametrize("build", ["strip", "beside"], indirect=True)
def test_themes_differ_and_the_same_call_gives_the_same_picture(build, data):
    x, hue = data("d2", 200)
    light, dark = (build(x, hue, Style(theme)).pixels() for theme in ("light", "dark"))
    again = build(x, hue, Style("light")).pixels()
    assert np.array_equal(light, again)
    assert light.shape == dark.shape
    assert (light[0, 0] > 250).all()
    assert (dark[0, 0] < 40).all()


WILD = {
    "figure.facecolor": "red",
    "axes.facecolor": "lime",
    "font.size": 30,
    "font.family": "monospace",
    "mathtext.fontset": "cm",
    "xtick.color": "cyan",
    "xtick.labelsize": 25,
    "axes.spines.top": True,
    "axes.grid": True,
    "lines.linewidth": 9,
    "savefig.bbox": "tight",
    "savefig.facecolor": "blue",
    "savefig.dpi": 37,
    "figure.dpi": 41,
    "axes.unicode_minus": False,
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_figures_of_numbers_are_the_same_at_each_call_whatever_the_users_settings(name):
    light, dark = (EXAMPLES[name](Style(theme)).pixels() for theme in ("light", "dark"))
    with matplotlib.rc_context(WILD):
        before = dict(matplotlib.rcParams)
        assert np.array_equal(EXAMPLES[name](Style()).pixels(), light)
        assert dict(matplotlib.rcParams) == before
    assert light.shape == dark.shape
    assert (light[0, 0] > 250).all()
    assert (dark[0, 0] < 40).all()


@pytest.mark.parametrize(
    ("build", "look"), [("rows", LOOKS[3]), ("beside", LOOKS[0])], indirect=["build"]
)
def test_users_settings_stay_out_and_stay_as_they_are(build, data, tmp_path, look):
    x, hue = data("d2", 200)

    def picture(name):
        build(x, hue, style_of(look)).savefig(tmp_path / name)
        return (tmp_path / name).read_bytes()

    plain = picture("plain.png")
    with matplotlib.rc_context(WILD):
        before = dict(matplotlib.rcParams)
        assert picture("wild.png") == plain
        assert dict(matplotlib.rcParams) == before


def test_pyplot_is_not_imported_and_no_backend_is_chosen():
    code = (
        "import sys, io, numpy as np, matplotlib\n"
        "from alphabar.figures import data_cloud, training_curve\n"
        "data_cloud(np.zeros((3, 2))).savefig(io.BytesIO())\n"
        "training_curve(np.array([1, 2]), np.array([1.0, 2.0])).savefig(io.BytesIO())\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_vector_files_hold_text_as_shapes_and_points_as_one_picture(data, tmp_path):
    x, hue = data("d2", 5000)
    for suffix in ("svg", "pdf"):
        data_cloud(x, hue).savefig(tmp_path / f"cloud.{suffix}")
        assert 10_000 < (tmp_path / f"cloud.{suffix}").stat().st_size < 500_000
    assert (tmp_path / "cloud.svg").read_text().count("<image") == 1


def test_a_notebook_gets_a_png(data):
    assert data_cloud(data("d2")[0])._repr_png_().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((3, 4, 5)), "shape"),
        (np.zeros((0, 2)), "at least one"),
        (np.zeros((2, 4, 5, 5)), "4 channels"),
    ],
)
def test_what_cannot_be_drawn_is_refused(x, message):
    with pytest.raises(ValueError, match=message):
        data_cloud(x)


def test_wrong_hues_and_columns_are_refused():
    x = np.zeros((3, 2))
    with pytest.raises(ValueError, match="2 hues for 3 points"):
        data_cloud(x, np.zeros(2))
    with pytest.raises(ValueError, match="from 0 to 1"):
        data_cloud(x, np.array([0, 1, 2.0]))
    with pytest.raises(ValueError, match="1 column names for 2"):
        data_cloud(x, columns=["a"])
    with pytest.raises(ValueError, match="one shape"):
        samples_beside_data(x, np.zeros((3, 3)))


@pytest.mark.parametrize("x", [np.full((5, 2), 3.0), np.full((5, 1), np.nan), np.array([[1e9, 0]])])
def test_data_without_extent_is_drawn(x):
    assert data_cloud(x).pixels().std() > 0


def test_columns_are_named_in_the_users_words(data):
    names = ["price $", "무게", "c", "d", "e"]
    figure = data_cloud(data("d5")[0], columns=names)
    figure.pixels()
    axes = figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == (r"price \$", "무게")
    x = [data("d5")[0]]
    note = strip(x, [3], [0.5], columns=names).get_supxlabel()
    assert "5 columns" in note
    assert "무게" in note


def test_score_is_written_under_samples(data, style):
    figure = samples_beside_data(data("d2")[0], data("d2")[0], ratio=1.2345, style=style)
    assert "1.23" in figure.get_supxlabel()
    assert len(figure.axes) == 2
    n = {"en": "(400)", "ko": "(400개)"}[style.lang]
    assert all(axes.get_title().endswith(n) for axes in figure.axes)
