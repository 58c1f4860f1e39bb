"""The study end to end: what it writes, that the page is whole, and what a browser makes of it."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alphabar import compare, data, schedule
from alphabar.denoise import NetDenoiser
from alphabar.draw import choose, make_plan, source_of
from alphabar.locale import texts
from alphabar.markup import fill, inline, math_svg, number_text, prose
from alphabar.metrics import against_held_out
from alphabar.nets import MLP
from alphabar.report import _table
from alphabar.schedule import SCHEDULES, Level
from alphabar.study import (
    Exact,
    Study,
    density_field,
    forward_chain,
    memorise,
    run_backwards,
    run_exactly,
    true_points,
)
from alphabar.study import study as work_through
from alphabar.targets import Points

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


# The same command with steps that are fitted in a tenth of the time.
QUICK = "import alphabar.fit as f; f.ROUNDS = 25; from alphabar.cli import main; main()"


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
    assert set(summary["train"]) == {"seconds", "steps", "loss"}
    assert summary["train"]["steps"] == 400
    assert set(summary["sample"]) == {"sampler", "nfe", "seconds"}
    assert summary["sample"]["nfe"] == 20
    score = summary["metrics"]["sliced_w2"]
    assert set(score) == {"value", "floor", "ratio", "draws"}
    assert score["ratio"] == pytest.approx(score["value"] / score["floor"])
    assert score["draws"] == 10
    assert {c["sampler"] for c in summary["compared"]} == {
        "dpmpp_2m", "ddim:eta=0.0", "ddpm:variance=posterior",
    }  # fmt: skip
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


def test_training_helped(roll: tuple[Path, dict[str, object]]) -> None:
    """400 steps are few, but noise alone scores about 30, and a blurred roll about 10."""
    metrics = roll[1]["metrics"]
    assert metrics["sliced_w2"]["ratio"] < 8  # type: ignore[index]


def test_every_figure_is_a_file(roll: tuple[Path, dict[str, object]]) -> None:
    folder, printed = roll
    figures: list[str] = printed["figures"]  # type: ignore[assignment]
    assert sorted(f"figures/{p.name}" for p in (folder / "figures").iterdir()) == figures
    stills = {re.sub(r"-(light|dark)\.png", "", f) for f in figures if f.endswith(".png")}
    assert len(stills) == 17
    for name in stills:
        assert f"{name}-light.png" in figures
        assert f"{name}-dark.png" in figures
    assert {"figures/forward.mp4", "figures/reverse.mp4", "figures/exact.mp4"} < set(figures)
    assert [p.name for p in folder.iterdir() if p.name.startswith(".")] == []


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
        points = data.load("moons:n=300")
        return work_through(points, None, schedule.linear(20, 0.01, 0.6), seed, 40, still)

    one, again, other = run(5), run(5), run(6)
    for a, b in ((one, again), (one, other)):
        same = a.seed == b.seed
        assert (a.trained.losses == b.trained.losses) is same
        assert torch.equal(a.sampled[0].x, b.sampled[0].x) is same
        assert torch.equal(a.chain.chain.x[-1], b.chain.chain.x[-1]) is same
        assert torch.equal(a.reverse.trace.x[-1], b.reverse.trace.x[-1]) is same
        assert (a.sampled[2].score == b.sampled[2].score) is same
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
    # Ten draws that share no noise: their own distances all differ.
    assert found.sampled[0].score.draws == 10


def test_what_the_network_says_belongs_to_its_panel() -> None:
    """x̂_0 under x_t must be the answer to that x_t at that t."""
    denoiser = NetDenoiser(MLP(2, 0), data.moons(n=50).x.float())
    torch.nn.init.normal_(denoiser.net.body[-1].weight)  # type: ignore[union-attr,index]
    noise = schedule.linear(6, 0.1, 0.9)
    found = run_backwards(denoiser, noise, data.moons(n=50).x.float(), 0, still)
    assert found.trace.times[0] == 6
    assert found.trace.times[-1] == 0
    with torch.no_grad():
        for t, x, said in zip(found.trace.times, found.trace.x, found.x_0_hat, strict=True):
            expected = denoiser(x, noise[t]) if t else x
            torch.testing.assert_close(said, expected, rtol=1e-4, atol=1e-4)


# --- the exact denoiser


def make_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is fitted, and few steps are made."""
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
    assert len(shown) == (17 if which == "roll" else 16)
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
