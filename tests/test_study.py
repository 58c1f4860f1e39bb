"""The study end to end: what it writes, that the page is whole, and what a browser makes of it."""

import json
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from alphabar import claim, compare, data, schedule
from alphabar.decompose import Decomposition, Inherited, Part
from alphabar.decompose import Run as RunOf
from alphabar.denoise import Moments, NetDenoiser
from alphabar.draw import choose, make_plan, source_of
from alphabar.evaluate import DEFAULT, METRICS, PAIRED
from alphabar.figures import Style, data_cloud
from alphabar.figures.style import DPI
from alphabar.locale import LANGS, texts
from alphabar.markup import fill, inline, math_svg, number_text, prose
from alphabar.metrics import against_held_out
from alphabar.nets import mlp
from alphabar.report import (
    _blame_texts,
    _levels,
    _page,
    _remembered,
    _save_png,
    _sections,
    _table,
    _training,
)
from alphabar.schedule import SCHEDULES, Level
from alphabar.study import (
    Exact,
    Study,
    density_field,
    forward_chain,
    loss_probe,
    memorise,
    run_backwards,
    run_exactly,
    true_points,
)
from alphabar.study import study as work_through
from alphabar.targets import Points, Target
from alphabar.train import Settings

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


def quickened(patch: Callable[[str, object], None]) -> None:
    """Less of what takes long and is tested where it belongs: fits, floors, films, pictures."""
    patch("alphabar.fit.ROUNDS", 10)
    patch("alphabar.study.MANY", 30)
    patch("alphabar.study.CALLS", (5, 8, 20))
    for module in ("study", "report"):
        patch(f"alphabar.{module}.FILM", 6)
    patch("alphabar.report._save_png", coarse)
    patch("alphabar.decompose.REFERENCE", 20_000)
    patch("alphabar.evaluate.TRUE_SETS", 20)
    paired = tuple(p._replace(most=200, sets=5, true_sets=5) for p in PAIRED)
    patch("alphabar.evaluate.PAIRED", paired)
    patch("alphabar.study.run_claim", made_claim)


def coarse(figure: Figure, path: Path) -> None:
    """A picture that is there, and can be told from others by its size."""
    figure.savefig(path, dpi=40)


def made_claim(settings: claim.Settings, advance: Callable[[], None]) -> claim.Claim:
    """What no training has found: quad is surely better, sigmoid as good, linear better in one."""
    rows, ideals = [], []
    for range_, way, seed in product(claim.RANGES, claim.WAYS, range(settings.seeds)):
        for contender in claim.contenders(range_):
            q = {"quad": 3.0, "sigmoid": 9.9}.get(contender.name, 10.0) + 0.1 * (seed % 2)
            q *= 0.5 if (contender.name, way) == ("linear", "ours") else 1
            q *= 0.5 if (contender.name, way, range_) == ("sigmoid", "ours", "post") else 1
            key = (way, range_, contender.name, seed)
            for share, nfe in ((0.25, 100), (0.5, 100), (1.0, 100), (1.0, 20)):
                if way == "ours" or nfe == 100:
                    rows.append(claim.Row(*key, share, 9, 1.0, 0.5, nfe, 1.0, (q,) * 4))
            for nfe, start in product((100, 20), ("own", "true")):
                ideals.append(claim.Ideal(*key, nfe, start, (2.0, 2.0)))
    return claim.Claim(settings, 9, 0.01, tuple(rows), tuple(ideals))


QUICK = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import pkgutil, test_study
from alphabar.cli import main
def patch(path, value):
    module, _, name = path.rpartition(".")
    setattr(pkgutil.resolve_name(module), name, value)
test_study.quickened(patch)
main()
"""


def still(what: str, total: int) -> Callable[[], None]:
    """A progress bar that is not shown."""
    return lambda: None


def run_study(folder: Path, *arguments: str) -> tuple[dict[str, object], str]:
    """Run in a process of its own, as a person would."""
    done = subprocess.run(
        [sys.executable, "-c", QUICK, "study", *arguments, "--json"],
        capture_output=True,
        text=True,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found, done.stderr


@pytest.fixture(scope="module")
def roll(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, object]]:
    folder = tmp_path_factory.mktemp("roll")
    arguments = ["swiss_roll:n=2000", "-T", "100", "--schedule", "linear:start=1e-3,end=0.2"]
    arguments.append("--claim")
    found, _ = run_study(folder, *arguments, "--seed", "3", "--steps", "400", "-o", "out")
    return folder / "out", found


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, object], str]:
    """A file of one's own, of three columns in odd units, in Korean."""
    folder = tmp_path_factory.mktemp("table")
    rng = np.random.default_rng(0)
    x = np.column_stack([1e8 + 1e4 * rng.random(300), 1e-8 * rng.normal(size=300), rng.random(300)])
    np.savetxt(folder / "x.csv", x, delimiter=",", header="질량,charge,$z$", comments="")
    found, err = run_study(
        folder, "x.csv", "--lang", "ko", "--seed", "1", "--steps", "150", "-o", "o"
    )
    return folder / "o", found, err


class Page(HTMLParser):
    """Every address that a page would ask for, and every id and anchor."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.ids: list[str] = []
        self.anchors: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for key, value in attributes:
            if key in ("src", "srcset", "poster"):
                self.asked.append(value or "")
            if key == "id":
                self.ids.append(value or "")
            if key == "href":
                self.anchors.append(value or "")


# --- what it writes


def test_summary_is_the_contract(roll: tuple[Path, dict[str, object]]) -> None:
    folder, printed = roll
    summary = json.loads((folder / "summary.json").read_text())
    assert {**summary, "report": None} == {**printed, "report": None}
    assert printed["report"] == "out/report.html"
    assert summary["data"] == "swiss_roll:n=2000,noise=1.0,seed=0"
    assert summary["schedule"] == "linear:T=100,start=0.001,end=0.2"
    assert set(summary["train"]) == {
        "seconds", "steps", "loss", "excess_loss", "optimum", "probed", "excess",
    }  # fmt: skip
    assert summary["train"]["steps"] == 400
    assert set(summary["sample"]) == {
        "sampler", "spacing", "start", "nfe", "seconds", "fit_seconds", "log_snr",
    }  # fmt: skip
    assert summary["sample"]["nfe"] == len(summary["sample"]["log_snr"]) == 12
    assert summary["sample"]["sampler"].startswith("mixes:")
    assert summary["sample"]["start"] == "matched"
    assert list(summary["metrics"]) == list(DEFAULT)
    score = summary["metrics"]["sliced_w2"]
    assert {"value", "low", "high", "floor", "ratio", "p_value", "draws"} < set(score)
    assert score["ratio"] == pytest.approx(score["value"] / score["floor"])
    assert score["draws"] == 10
    assert score["ratio"] == pytest.approx(summary["compared"][0]["ratio"])
    assert [(c["sampler"].partition(":")[0], c["nfe"]) for c in summary["compared"]] == [
        ("mixes", 12), ("dpmpp_2m", 20), ("ddim", 20), ("ddpm", 20),
    ]  # fmt: skip
    exact = summary["exact"]
    assert set(exact) == {
        "target", "n", "start", "compared", "fitted", "memorisation",
    }  # fmt: skip
    assert (exact["target"], exact["n"], exact["start"]) == ("law", 2000, "noise")
    for row in exact["compared"]:
        assert set(row) == {
            "sampler", "spacing", "nfe", "value", "floor", "ratio", "draws", "seconds",
        }  # fmt: skip
        assert row["draws"] == 3
        assert row["ratio"] == pytest.approx(row["value"] / row["floor"])
    assert {row["spacing"] for row in exact["compared"]} == {"log_snr", "curvature", "fitted"}
    assert exact["fitted"]["nfe"] == len(exact["fitted"]["log_snr"]) == 8
    assert exact["memorisation"]["points"] == 300
    # All that the set's denoiser draws is in the set; of the law's samples it is about 1 %.
    assert exact["memorisation"]["share"]["of_set"] == 1
    assert exact["memorisation"]["share"]["of_law"] < 0.06


def test_the_parts_are_of_the_samples_that_were_scored(
    roll: tuple[Path, dict[str, object]],
) -> None:
    summary: dict[str, Any] = roll[1]
    found = summary["decompose"]
    parts = {part["name"]: part for part in found["parts"]}
    assert found["draws"] == 10
    assert parts["total"]["floors"] == pytest.approx(summary["metrics"]["sliced_w2"]["ratio"] ** 2)
    several = [part["floors"] for name, part in parts.items() if name != "total"]
    assert sum(several) == pytest.approx(parts["total"]["floors"])
    assert [run["steps"] for run in found["runs"]] == [12, 30, 12, 30]
    # 400 steps of training are few, and 12 that were fitted to the network are many.
    assert found["blame"] == "model"
    assert parts["model"]["floors"] > 3 * parts["discretisation"]["floors"]


def test_the_excess_falls_and_adds_up(roll: tuple[Path, dict[str, object]]) -> None:
    trained: dict[str, Any] = roll[1]["train"]  # type: ignore[assignment]
    probed = np.array(trained["probed"])
    assert (probed[0, 0], probed[-1, 0]) == (1, 400)
    assert np.ptp(np.diff(np.log(probed[5:-1, 0]))) < 0.35  # evenly on a logarithmic scale
    assert probed[-1, 1] == trained["excess_loss"]
    # A network that answers 0 begins at the best linear denoiser.
    assert probed[0, 1] > 3 * probed[-1, 1] > 0
    levels = {k: np.array(v) for k, v in trained["excess"].items()}
    optimum = (levels["weight"] * levels["optimum"]).mean()
    assert trained["optimum"] == pytest.approx(optimum)
    excess = (levels["weight"] * levels["excess"]).mean()
    assert trained["excess_loss"] == pytest.approx(excess / optimum)
    # A batch of 100 steps is a sample of the law, give or take the fewness of 2,000 points.
    assert trained["loss"] == pytest.approx(optimum + excess, rel=0.05)


@pytest.mark.parametrize("which", ["roll", "table"])
def test_the_page_says_what_the_summary_says(which: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(which)[0]
    summary = json.loads((folder / "summary.json").read_text("utf-8"))
    text = (folder / "report.html").read_text("utf-8")

    def chapter(key: str) -> str:
        return text.partition(f'<section id="{key}">')[2].partition("</section>")[0]

    def cells(html: str) -> list[list[str]]:
        rows = re.findall(r"<tr>(.*?)</tr>", html, flags=re.DOTALL)
        return [[re.sub("<[^>]+>", "", c) for c in re.findall(r"<td.*?</td>", r)] for r in rows]

    # Both are of one set of draws; the one in the data's units is scaled again.
    first, again = summary["compared"][0], summary["metrics"]["sliced_w2"]
    assert again["ratio"] == pytest.approx(first["ratio"], rel=1e-6)
    score = cells(chapter("score"))
    compared = [row for row in score if len(row) == 7 and row[0] in ("mixes", "ddim", "ddpm")]
    for row, said in zip((summary["compared"][i] for i in (0, 2, 3)), compared, strict=True):
        assert said[1:3] == [row["spacing"], str(row["nfe"])]
        assert said[5] == f"{row['ratio']:.2f}"
    measures = {row[0]: row[1:] for row in score if row and row[0] in METRICS}
    for name, one in summary["metrics"].items():
        if one["value"] is None:
            assert name not in measures
            assert name in chapter("score")
            continue
        said = [cell.replace("−", "-") for cell in measures[name]]
        four = {k: f"{one[k]:#.4g}" if one[k] else "0" for k in ("value", "low", "high", "floor")}
        assert (said[0], said[2]) == (four["value"], four["floor"])
        if one["low"] is not None:
            assert said[1] == f"{four['low']} … {four['high']}"
        assert said[5] == f"{one['draws']} × {one['n']:,}"
        assert text.count(f"<dt><code>{name}</code></dt>") == 1
    if which == "table":
        assert summary["metrics"]["nll"]["value"] is None
        assert 'id="blame"' not in text
        assert summary["decompose"] is summary["train"]["excess_loss"] is None
        return
    parts = {part["name"]: part for part in summary["decompose"]["parts"]}
    names = texts("en", "figures")["part"]
    said = {row[0]: row[1] for row in cells(chapter("blame"))[-6:]}
    for name, part in parts.items():
        written = float(said[names[name]].replace("−", "-"))
        assert written == pytest.approx(part["floors"], abs=0.006)
    runs = summary["decompose"]["runs"]
    assert [row[1:] for row in cells(chapter("blame"))[1:3]] == [
        [f"{run['ratio']:.2f}" for run in two] for two in (runs[:2], runs[2:])
    ]
    assert re.findall(r"<th>(\d+) steps</th>", chapter("blame")) == ["12", "30"]
    learning = chapter("learning")
    assert f"<strong>{summary['train']['optimum']:.3f}</strong>" in learning
    assert f"<strong>{100 * summary['train']['excess_loss']:.3g}%</strong>" in learning
    levels = {k: np.array(v) for k, v in summary["train"]["excess"].items()}
    peak = levels["log_snr"][(levels["weight"] * levels["excess"]).argmax()]
    assert f'aria-label="\\lambda = {peak:.1f}"' in learning
    assert f"= {np.exp(-peak / 2):.2g}" in learning
    answers = [verdict["answer"] for verdict in summary["claim"]["verdicts"]]
    assert {"holds", "does not hold"} <= set(answers)
    claimed = cells(chapter("claim"))[1:]
    assert [row[1] for row in claimed] == answers
    first = summary["claim"]["verdicts"][0]["pairs"][1]["factor"]
    assert claimed[0][7] == "{mean:.2f} ({low:.2f}–{high:.2f})".format(**first)
    lines = re.findall(
        r"<li>(.*?)</li>", text.partition('class="results"')[2].partition("</ul>")[0]
    )
    assert any(f"holds in {answers.count('holds')}," in line for line in lines)
    assert any(f"{parts['model']['floors']:.2f}" in line for line in lines)


def test_training_helped(roll: tuple[Path, dict[str, object]]) -> None:
    """400 steps are few, but noise alone scores about 30, and a blurred roll about 10."""
    metrics = roll[1]["metrics"]
    assert metrics["sliced_w2"]["ratio"] < 8  # type: ignore[index]


def test_every_figure_is_a_file(roll: tuple[Path, dict[str, object]]) -> None:
    folder, printed = roll
    figures: list[str] = printed["figures"]  # type: ignore[assignment]
    assert sorted(f"figures/{p.name}" for p in (folder / "figures").iterdir()) == figures
    stills = {re.sub(r"-(light|dark)\.png", "", f) for f in figures if f.endswith(".png")}
    assert len(stills) == 20
    for name in stills:
        assert f"{name}-light.png" in figures
        assert f"{name}-dark.png" in figures
    assert {"figures/forward.mp4", "figures/reverse.mp4", "figures/exact.mp4"} < set(figures)
    assert [p.name for p in folder.iterdir() if p.name.startswith(".")] == []


def test_pictures_are_sharp_and_have_256_colours(tmp_path: Path) -> None:
    """1.6 times the resolution of the page, and paper as white as it was drawn."""
    figure = data_cloud(data.moons(n=50).x)
    _save_png(figure, tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as picture:
        width, height = figure.get_size_inches() * 1.6 * DPI
        assert picture.mode == "P"
        assert picture.size == pytest.approx((width, height), abs=1)
        assert len(picture.getcolors() or ()) > 40
        assert picture.convert("RGB").getpixel((0, 0)) >= (250, 250, 250)


def test_the_page_holds_all_that_it_needs(roll: tuple[Path, dict[str, object]]) -> None:
    text = (roll[0] / "report.html").read_text("utf-8")
    page = Page(text)
    assert page.asked
    assert all(address.startswith("data:") for address in page.asked)
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert all(anchor.removeprefix("#") in page.ids for anchor in page.anchors)
    assert len(page.ids) == len(set(page.ids))
    assert page.tags.count("svg") > 100
    assert_filled(text)


def assert_filled(text: str) -> None:
    """No mark, no placeholder and no missing number is left for a reader to see."""
    visible = re.sub(r"<style>.*?</style>|<svg.*?</svg>|<pre.*?</pre>", "", text, flags=re.DOTALL)
    visible = re.sub(r"<[^>]+>", "", visible)
    for left_over in ("{", "}", "$", "**", "nan", "None", "undefined"):
        assert left_over not in visible, visible[max(0, visible.find(left_over) - 80) :][:160]


def test_a_file_of_ones_own(table: tuple[Path, dict[str, object], str]) -> None:
    folder, printed, err = table
    assert "표준화" in err
    scale: dict[str, list[float]] = printed["standardised"]  # type: ignore[assignment]
    assert scale["mean"][0] == pytest.approx(1e8 + 5e3, rel=1e-5)
    assert printed["reference"] == "the held-out half of the file"
    assert (folder / "report.html").stat().st_size > 1e6
    exact: dict[str, Any] = printed["exact"]  # type: ignore[assignment]
    assert exact["target"] == "points"
    assert exact["n"] == 150
    assert exact["memorisation"]["share"]["of_law"] is None
    # Three columns: there is no plane to draw a density in.
    assert "figures/density-and-score-light.png" not in printed["figures"]  # type: ignore[operator]


@pytest.mark.parametrize(("which", "lang"), [("roll", "en"), ("table", "ko")])
def test_the_exact_process_has_its_chapter(
    which: str, lang: str, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(which)[0]
    page = (folder / "report.html").read_text("utf-8")
    order = [page.index(f'<section id="{key}">') for key in ("posterior", "exact", "learning")]
    assert order == sorted(order)
    chapter = page[order[1] : order[2]]
    words = texts(lang, "report")["exact"]
    assert words["heading"] in chapter
    assert chapter.count("<figure") == (6 if which == "roll" else 5)
    assert chapter.count("<video") == 1
    assert (words["copies"].strip() in chapter) is (which == "table")
    assert (words["fresh"] in chapter or words["held_out"] in chapter) is (which == "table")


def test_the_same_seed_gives_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alphabar.metrics.REFERENCE", 5000)
    make_quick(monkeypatch)

    def run(seed: int) -> Study:
        points = data.load("gaussians:n=300")
        return work_through(points, None, schedule.linear(20, 0.01, 0.6), seed, 20, still)

    one, again, other = run(5), run(5), run(6)
    for a, b in ((one, again), (one, other)):
        same = a.seed == b.seed
        assert (a.trained.losses == b.trained.losses) is same
        assert torch.equal(a.sampled[0].x, b.sampled[0].x) is same
        assert torch.equal(a.chain.chain.x[-1], b.chain.chain.x[-1]) is same
        assert torch.equal(a.reverse.trace.x[-1], b.reverse.trace.x[-1]) is same
        assert (a.sampled[2].score == b.sampled[2].score) is same
        assert (a.sampled[0].plan.sampler == b.sampled[0].plan.sampler) is same
        assert (a.trained.probed == b.trained.probed) is same
        assert (a.metrics == b.metrics) is same
        assert a.parts is not None
        assert b.parts is not None
        assert (a.parts == b.parts) is same
        assert torch.equal(a.exact.reverse.trace.x[-1], b.exact.reverse.trace.x[-1]) is same
        assert torch.equal(a.exact.memorised.of_set.x, b.exact.memorised.of_set.x) is same
        assert (a.exact.best.ratio == b.exact.best.ratio) is same


def test_a_file_is_split_and_scored_on_rows_never_trained_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "x.npy"
    rows = np.random.default_rng(0).normal(size=(41, 2))
    np.save(path, rows)
    seen: dict[str, torch.Tensor] = {}

    def spy(used: torch.Tensor, held_out: torch.Tensor) -> object:
        seen.update(used=used, held_out=held_out)
        return against_held_out(used, held_out)

    monkeypatch.setattr("alphabar.compare.against_held_out", spy)
    make_quick(monkeypatch)
    found = work_through(data.load(str(path)), None, schedule.linear(5, 0.1, 0.9), 0, 20, still)
    assert (len(seen["used"]), len(seen["held_out"])) == (21, 20)
    both = torch.cat([seen["used"], seen["held_out"]])
    np.testing.assert_allclose(np.sort(both.numpy(), 0), np.sort(rows, 0), rtol=1e-6)
    assert torch.equal(found.x_0, seen["used"].float())
    # The exact denoiser knows these rows alone, too.
    assert not found.exact.source.is_law
    assert torch.equal(found.exact.source.x, seen["used"])
    assert found.sampled[0].score.draws == 2
    assert found.metrics["sliced_w2"]["ratio"] == pytest.approx(found.sampled[0].score.ratio)
    # The law is not known: nothing can be held against it, and the page has no chapter on it.
    assert found.trained.excess is found.parts is None
    assert not {"blame", "claim"} & set(_sections(found))


def test_what_the_network_says_belongs_to_its_panel() -> None:
    """x̂_0 under x_t must be the answer to that x_t at that t."""
    denoiser = NetDenoiser(mlp().build((2,), 0), Moments.of(data.moons(n=50).x.float()))
    torch.nn.init.normal_(denoiser.net.last.weight)  # type: ignore[union-attr,arg-type]
    noise = schedule.linear(6, 0.1, 0.9)
    found = run_backwards(denoiser, noise, data.moons(n=50).x.float(), 0, still)
    assert found.trace.times[0] == 6
    assert found.trace.times[-1] == 0
    with torch.no_grad():
        for t, x, said in zip(found.trace.times, found.trace.x, found.x_0_hat, strict=True):
            expected = denoiser(x, noise[t]) if t else x
            torch.testing.assert_close(said, expected, rtol=1e-4, atol=1e-4)


# --- the trained network


class ExactAnswers:
    """The exact denoiser of a law, off by as much as a network whose output is off by `error`."""

    def __init__(self, law: Target, error: float) -> None:
        self.law, self.error = law, error
        self.std = law.cov.diagonal().mean().sqrt().item()

    def __call__(self, x_t: torch.Tensor, level: Level) -> torch.Tensor:
        spread = torch.hypot(level.sigma, level.alpha * self.std)
        return self.law.denoise(x_t, level) + self.error * level.sigma[:, None] * (
            self.std / spread[:, None]
        )


@pytest.mark.parametrize("error", [0.0, 0.3])
def test_the_least_loss_is_that_of_training_with_the_exact_denoiser(error: float) -> None:
    """Batches as `train` draws them, of fresh points, through the objective that it minimises."""
    points = data.moons()
    assert points.target is not None
    assert points.fresh is not None
    law, settings = points.target(), Settings()
    probe = loss_probe(law, settings)
    generator = torch.Generator().manual_seed(0)
    answers, losses = ExactAnswers(law, error), []
    for i in range(16):
        drawn = settings.levels.draw(1024, generator)
        eps = torch.randn(1024, 2, generator=generator, dtype=torch.float64)
        x_0 = points.fresh(1024, 7 + i)
        losses.append(settings.objective(answers, x_0, drawn, eps, generator).mean())
    mean, spread = torch.stack(losses).mean().item(), torch.stack(losses).std().item()
    found = probe(ExactAnswers(law, error))
    expected = found.weighted_optimum * (1 + found.share)
    # Five standard errors of these batches, and of the probe, which has nearly as many points.
    assert mean == pytest.approx(expected, abs=5 * 2**0.5 * spread / 4)
    assert found.share * found.weighted_optimum == pytest.approx(error**2, rel=0.05, abs=1e-6)


@pytest.mark.parametrize(
    ("spec", "start", "rules"),
    [
        ("linear", "noise", ["fitted", "log_snr", "log_snr", "log_snr"]),
        ("linear:T=100,start=1e-05,end=0.01", "matched", ["fitted"] + 3 * ["log_snr"]),
        ("constant:T=1,beta=0.5", "matched", 3 * ["log_snr"]),
    ],
)
def test_samples_of_the_network_start_where_the_schedule_ends(
    monkeypatch: pytest.MonkeyPatch, spec: str, start: str, rules: list[str]
) -> None:
    monkeypatch.setattr("alphabar.metrics.REFERENCE", 2000)
    make_quick(monkeypatch)
    points = data.load("gaussians:n=200")
    found = work_through(points, None, SCHEDULES.parse(spec), 0, 20, still)
    assert [one.plan.rule for one in found.sampled] == rules
    assert {one.plan.start_name for one in found.sampled[-3:]} == {start}
    for one in found.sampled:
        if one.plan.start is not None:  # the moments of what was learned from
            np.testing.assert_allclose(one.plan.start.mean, points.x.mean(0), atol=1e-6)
            np.testing.assert_allclose(one.plan.start.cov, np.cov(points.x.T, ddof=0), atol=1e-6)
    page = pages(found, "en")
    words = texts("en", "report")
    assert (plain(words["score"]["matched"])[:40] in page) is (start == "matched")
    assert ("<code>mixes</code>" in page.partition('id="score"')[2]) is (rules[0] == "fitted")
    assert ('id="blame"' in page) is (rules[0] == "fitted")
    if spec == "linear":
        drawn_as_found(found)
        evidence = made_claim(claim.Settings(), lambda: None)
        assert 'id="claim"' in pages(replace(found, claim=evidence), "ko")


def drawn_as_found(found: Study) -> None:
    """The figures of training hold the numbers that they should."""
    trained = found.trained
    assert trained.excess is not None
    above, below = _training(trained, Style()).axes
    assert trained.excess.weighted_optimum in [line.get_ydata()[0] for line in above.get_lines()]
    steps, shares = zip(*((p.step, p.share) for p in trained.probed), strict=True)
    np.testing.assert_allclose(below.get_lines()[0].get_xydata().T, [steps, shares])
    exact, net = _levels(trained.excess, Style()).axes[0].get_lines()
    np.testing.assert_allclose(exact.get_ydata(), trained.excess.optimum)
    np.testing.assert_allclose(net.get_ydata(), trained.excess.excess)


def pages(found: Study, lang: str) -> str:
    """The page without its pictures; nothing on it is left to be filled in, or to be marked up."""
    none = {"light": "data:", "dark": "data:", "width": "1"}
    page = _page(found, lang, "", defaultdict(lambda: none), defaultdict(lambda: "data:"))
    assert_filled(page)
    return page


def plain(text: str) -> str:
    """The words before the first mark."""
    return re.split(r"[$*`]", text.strip())[0]


def parted(model: float, few: float, both: float, error: float) -> Decomposition:
    def part(name: str, floors: float, error: float | None) -> Part:
        return Part(name, floors / 4, error and error / 4, floors, error)  # type: ignore[arg-type]

    parts = [("model", model), ("discretisation", few), ("interaction", both), ("rest", 0.1)]
    total = 1 + sum(v for _, v in parts)
    runs = [
        RunOf(who, "ddim", steps, steps, 1.0, 0.1, 2.0)  # type: ignore[arg-type]
        for who in ("trained", "exact")
        for steps in (12, 80)
    ]
    return Decomposition(
        runs=tuple(runs),  # type: ignore[arg-type]
        parts=(part("noise", 1, None), *(part(k, v, error) for k, v in parts)),  # type: ignore[arg-type]
        total=part("total", total, error),
        systematic=part("systematic", total - 1.1, error),
        inherited=Inherited(0.05, 0.5, 0.01, 0.0125, 0.01, 0.05),
        floor=0.5,
        n=1000,
        draws=10,
    )


@pytest.mark.parametrize(
    ("numbers", "key"),
    [
        ((2.0, 0.5, -0.4), "model"),
        ((0.5, 2.0, -0.4), "discretisation"),
        ((0.5, 0.6, 2.0), "interaction"),
        ((0.39, 0.1, 0.2), "none"),
    ],
)
def test_the_part_to_blame_is_the_largest_that_is_no_chance(
    numbers: tuple[float, float, float], key: str
) -> None:
    found = _blame_texts(parted(*numbers, error=0.2))
    assert found["key"] == key
    assert found["floors"] == f"{max(numbers):.2f}"
    assert found["total"] == f"{1.1 + sum(numbers):.2f}"
    assert found["steady"] == f"{(1 + sum(numbers)) ** 0.5:.2f}"
    # In floors, floor² being ¼: the training set is 0.05/0.25 off.
    assert (found["deviation"], found["share"], found["inherited"]) == ("0.20", "0.50", "0.05")
    for lang in LANGS:
        text = texts(lang, "report")["blame"][key].format(**found)
        assert found["floors"] in text
        assert found["total"] in text


@pytest.mark.parametrize(("p", "more"), [(0.5, False), (0.001, True)])
def test_memorising_is_more_than_chance(p: float, more: bool) -> None:
    near = {"value": 0.034, "floor": 0.01, "p_value": p}
    found = _remembered({"memorised": near, "copies": {"value": 0.0}})
    assert found == {"near": "3.4%", "floor": "1%", "copies": "0%", "more": more}
    unknown = {"value": None, "floor": None, "p_value": None}
    assert _remembered({"memorised": unknown, "copies": unknown}) == {}


# --- the exact denoiser


def make_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is fitted to the exact denoiser, little else, and few steps are made.

    In this process every call is checked, so calls are what takes long.
    """
    quickened(monkeypatch.setattr)  # type: ignore[arg-type]
    monkeypatch.setattr("alphabar.fit.ROUNDS", 2)
    monkeypatch.setattr("alphabar.fit.FINE", 20)
    monkeypatch.setattr("alphabar.evaluate.TRUE_SETS", 3)
    monkeypatch.setattr("alphabar.study.DRAWS", 2)
    monkeypatch.setattr("alphabar.study.MANY", 8)
    monkeypatch.setattr("alphabar.study.LONG", 40)
    monkeypatch.setattr("alphabar.study.GRID", 11)
    monkeypatch.setattr("alphabar.study.PROBED", 8)
    monkeypatch.setattr("alphabar.study.PROBES", 64)
    monkeypatch.setattr("alphabar.study.FEWEST", ())
    monkeypatch.setattr("alphabar.study.CALLS", (8,))
    monkeypatch.setattr("alphabar.study.RULED", (("ddim", "log_snr"), ("dpmpp_2m", "log_snr")))
    monkeypatch.setattr("alphabar.study.PATH", 24)
    monkeypatch.setattr("alphabar.study.REVERSE_SHOWN", 200)


def exactly(points: data.Data, noise: schedule.Schedule) -> Exact:
    parts = compare.halves(points, 0)
    n = len(points) if parts is None else len(parts.used)
    yardstick = compare.yardstick_of(points, None, parts, n)
    return run_exactly(points, None, noise, 0, parts, yardstick, still)


def test_forty_calls_of_the_exact_denoiser_draw_true_samples(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The ratio of ten draws.

    q = SW2²/floor² of a true set has mean 1 and a tail no heavier than the exponential law's. So
    the mean of ten, a gamma variable at the worst, is outside 0.35² … 1.82² with probability below
    10⁻⁶.
    """
    monkeypatch.setattr("alphabar.metrics.REFERENCE", 20_000)
    points = data.swiss_roll(n=1000)
    source, noise = source_of(points, None), schedule.linear()
    yardstick = compare.yardstick_of(points, None, None, 1000)

    def ratio(sampler: str, calls: int) -> float:
        plan = make_plan(
            choose(sampler, "log_snr", noise, nfe=calls), source, noise, "auto", 0, still
        )
        return compare.evaluate(source, plan, yardstick, 1000, 10, 0).ratio

    assert 0.35 < ratio("dpmpp_2m", 40) < 1.82
    assert ratio("ddim", 5) > 3


def test_a_finite_set_returns_itself_and_its_law_does_not() -> None:
    """Of samples by the law about 1 % come as near as 1 % of true points do.

    `near` is the tenth smallest of 1000, so its own share is below 2.5 %, and then that of 1000
    samples is below 6 %, both but for a chance below 10⁻⁵.
    """
    points = data.moons(n=50)
    fresh = true_points(points, None, None)
    found = memorise(source_of(points, None), schedule.linear(), points.x, fresh, 0)
    assert found.of_set.nearest.max() < 1e-5
    assert found.share(found.of_set) == 1
    assert found.of_law is not None
    assert found.share(found.of_law) < 0.06
    # Every point is drawn: each of 50 is missed by all of 1000 with probability 50·e^−20.
    apart = torch.cdist(found.of_set.x.double(), points.x)
    assert set(apart.argmin(1).tolist()) == set(range(50))


def test_the_field_has_its_rows_along_y() -> None:
    """A few points that no exchange of axes maps to themselves, against the definition."""
    x_0 = torch.tensor([[2.0, 0.1], [0.3, -0.5], [-1.0, 0.2]], dtype=torch.float64)
    noise = schedule.linear()
    field = density_field(Points(x_0), noise, x_0)
    assert field is not None
    assert density_field(Points(1e8 * x_0), noise, 1e8 * x_0) is None
    i, j, k = 17, 70, 3
    level: Level = noise[field.times[k]]
    here = torch.stack([field.x[j], field.y[i]])
    squares = (here - level.alpha * x_0).square().sum(1)
    density = (-squares / (2 * level.sigma**2)).exp().mean() / (2 * np.pi * level.sigma**2)
    assert field.log_density[k][i, j].exp() == pytest.approx(density.item(), rel=1e-4)
    cell = (field.x[1] - field.x[0]) * (field.y[1] - field.y[0])
    for log_p in field.log_density[1:]:  # with the least noise, the grid is too coarse to add up
        assert 0.9 < (log_p.exp().sum() * cell).item() < 1.001


@pytest.mark.parametrize(
    ("spec", "start"),
    [
        ("linear", "noise"),
        ("log_linear:T=50", "noise"),
        ("flow:T=20", "noise"),
        ("linear:T=100,start=1e-05,end=0.01", "matched"),
        ("constant:T=1,beta=0.5", "matched"),
    ],
)
def test_any_schedule_leads_back(monkeypatch: pytest.MonkeyPatch, spec: str, start: str) -> None:
    """Variance-exploding, ending in pure noise, ending before it, with one step."""
    monkeypatch.setattr("alphabar.metrics.REFERENCE", 2000)
    make_quick(monkeypatch)
    noise = SCHEDULES.parse(spec)
    found = exactly(data.moons(n=100), noise)
    assert found.start == start
    assert found.reverse.trace.times[-1] == 0
    assert all(x.abs().max() < 8 for x in found.reverse.trace.x)  # in a scale that a picture has
    assert found.memorised.of_set.nearest.max() < 1e-4
    assert len(_table(found)["rows"]) == 2


@pytest.mark.parametrize(("rows", "d"), [(4, 2), (30, 1), (30, 3), (60, 10)])
def test_a_file_of_any_shape(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rows: int, d: int
) -> None:
    make_quick(monkeypatch)
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(rows, d)))
    found = exactly(data.load(str(tmp_path / "x.npy")), schedule.linear())
    assert found.n == rows / 2
    assert (found.field is None) is (d != 2)
    assert found.memorised.of_law is None
    assert found.memorised.of_set.nearest.max() < 1e-3
    assert found.reverse.x_0_hat[0].shape == (200, d)


def test_what_people_type_is_not_markup() -> None:
    typed = r"text:a$\frac{$*b*`<i>&"
    html = prose(fill("on `{data}` and {data}", data=typed))
    assert re.sub("<[^>]+>", "", html).count("a$\\frac{$*b*`&lt;i&gt;&amp;") == 2
    assert "<svg" not in html
    assert "<em>" not in html


def test_rand_for_randn_ends_where_the_study_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """The box about `rand`: its mean and variance, measured on a chain with uniform noise."""
    noise = SCHEDULES.parse("constant:T=100,beta=0.035")
    x_0 = data.swiss_roll(20_000).x
    found = forward_chain(noise, x_0, torch.Generator().manual_seed(0))
    x, generator = x_0, torch.Generator().manual_seed(1)
    for beta in noise.beta[1:]:
        uniform = torch.rand(x.shape, generator=generator, dtype=x.dtype)
        x = (1 - beta).sqrt() * x + beta.sqrt() * uniform
    assert x.mean().item() == pytest.approx(found.uniform_mean, abs=0.01)
    assert x.var(0).mean().item() == pytest.approx(found.uniform_variance, rel=0.03)
    assert found.uniform_mean == pytest.approx(4.4, abs=0.05)  # what the post's cloud shows
    assert found.distance < found.bound


# --- in a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield launched
        launched.close()


@pytest.mark.browser
@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("which", ["roll", "table"])
def test_the_page_in_a_browser(
    browser: object, which: str, scheme: str, width: int, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(which)[0]
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[attr-defined]
    asked: list[str] = []
    said: list[str] = []
    page.on("request", lambda r: asked.append(r.url))
    page.on("console", lambda m: said.append(m.text))
    page.on("pageerror", lambda e: said.append(str(e)))
    page.goto((folder / "report.html").as_uri())
    page.wait_for_load_state("load")
    for proof in page.query_selector_all("details"):
        proof.query_selector("summary").click()
    assert [u for u in asked if not u.startswith(("file:", "data:"))] == []
    assert said == []
    shown = page.evaluate(
        """() => [...document.images].map(i => [i.naturalWidth, i.currentSrc.length])"""
    )
    assert len(shown) == (20 if which == "roll" else 16)
    assert all(size > 100 for size, _ in shown)
    # The theme that was asked for: the paper of the page, and the pictures drawn for it.
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 24, 31)"}[scheme]
    chosen = page.evaluate(
        "() => [...document.images].map(i => [i.currentSrc === i.src, i.currentSrc.length])"
    )
    assert all(is_light is (scheme == "light") for is_light, _ in chosen)
    # Nothing may be wider than the window: what is wide scrolls in a box of its own.
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    clipped = page.evaluate(
        """() => [...document.querySelectorAll('p, li, h1, h2, h3, figcaption, summary')]
              .filter(e => e.scrollWidth > e.clientWidth + 1 && !e.closest('.scroll')
                        && getComputedStyle(e).overflow === 'visible')
              .map(e => e.textContent.slice(0, 60))"""
    )
    assert clipped == []
    films = page.evaluate("() => [...document.querySelectorAll('video')].map(v => v.readyState)")
    assert len(films) == 3
    page.close()


# --- words and formulas


def test_markup() -> None:
    assert "<strong>b</strong>" in prose("a **b** `c`")
    html = inline(r"left $x_t$, and $\bar\alpha_t$")
    assert html.count("<svg") == 2
    assert '<span class="whole"><svg' in html  # the comma stays with its formula
    assert "<p>" not in html
    assert "&lt;b&gt;" in prose("<b>")
    assert 'aria-label="x_t"' in math_svg("x_t")


def test_a_broken_formula_is_named() -> None:
    with pytest.raises(ValueError, match="cannot be set"):
        math_svg(r"\frac{a}{")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (1.0, "1"), (0.605207, "0.605"), (-0.01, "−0.0100"), (4.03e-5, "4.0×10⁻⁵"),
     (157.4, "157"), (float("inf"), "∞"), (float("-inf"), "−∞"), (-3e-9, "−3.0×10⁻⁹")],
)  # fmt: skip
def test_numbers(value: float, text: str) -> None:
    assert number_text(value) == text
