"""The study end to end: what it writes, that the page is whole, and what a browser makes of it."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from alphabar import data, schedule
from alphabar.denoise import NetDenoiser
from alphabar.markup import fill, inline, math_svg, number_text, prose
from alphabar.metrics import against_held_out
from alphabar.nets import MLP
from alphabar.schedule import SCHEDULES
from alphabar.study import Bar, Study, forward_chain, run_backwards
from alphabar.study import study as work_through

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


def run_study(folder: Path, *arguments: str) -> tuple[dict[str, object], str]:
    """Run in a process of its own, as a person would."""
    done = subprocess.run(
        [sys.executable, "-m", "alphabar.cli", "study", *arguments, "--json"],
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
    assert {c["sampler"] for c in summary["compared"]} == {"dpmpp_2m", "ddim:eta=0.0", "ddpm"}


def test_training_helped(roll: tuple[Path, dict[str, object]]) -> None:
    """400 steps are few, but noise alone scores about 30, and a blurred roll about 10."""
    metrics = roll[1]["metrics"]
    assert metrics["sliced_w2"]["ratio"] < 8  # type: ignore[index]


def test_every_figure_is_a_file(roll: tuple[Path, dict[str, object]]) -> None:
    folder, printed = roll
    figures: list[str] = printed["figures"]  # type: ignore[assignment]
    assert sorted(f"figures/{p.name}" for p in (folder / "figures").iterdir()) == figures
    stills = {re.sub(r"-(light|dark)\.png", "", f) for f in figures if f.endswith(".png")}
    assert len(stills) == 12
    for name in stills:
        assert f"{name}-light.png" in figures
        assert f"{name}-dark.png" in figures
    assert {"figures/forward.mp4", "figures/reverse.mp4"} < set(figures)
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


def test_the_same_seed_gives_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alphabar.metrics.REFERENCE", 5000)

    def run(seed: int) -> Study:
        still: Bar = lambda what, total: lambda: None  # noqa: E731
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

    monkeypatch.setattr("alphabar.study.against_held_out", spy)
    still: Bar = lambda what, total: lambda: None  # noqa: E731
    found = work_through(data.load(str(path)), None, schedule.linear(5, 0.1, 0.9), 0, 20, still)
    assert (len(seen["used"]), len(seen["held_out"])) == (21, 20)
    both = torch.cat([seen["used"], seen["held_out"]])
    np.testing.assert_allclose(np.sort(both.numpy(), 0), np.sort(rows, 0), rtol=1e-6)
    assert torch.equal(found.x_0.double(), seen["used"])
    # Ten draws that share no noise: their own distances all differ.
    assert found.sampled[0].score.draws == 10


def test_what_the_network_says_belongs_to_its_panel() -> None:
    """x̂_0 under x_t must be the answer to that x_t at that t."""
    denoiser = NetDenoiser(MLP(2, 0), data.moons(n=50).x.float())
    torch.nn.init.normal_(denoiser.net.body[-1].weight)  # type: ignore[union-attr,index,arg-type]
    noise = schedule.linear(6, 0.1, 0.9)
    still: Bar = lambda what, total: lambda: None  # noqa: E731
    found = run_backwards(denoiser, noise, data.moons(n=50).x.float(), 0, still)
    assert found.trace.times[0] == 6
    assert found.trace.times[-1] == 0
    with torch.no_grad():
        for t, x, said in zip(found.trace.times, found.trace.x, found.x_0_hat, strict=True):
            expected = denoiser(x, noise[t]) if t else x
            torch.testing.assert_close(said, expected, rtol=1e-4, atol=1e-4)


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
    assert len(shown) == 12
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
    assert len(films) == 2
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
