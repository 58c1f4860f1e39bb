"""The gallery: its code against check, its numbers against what is typed here, its page."""

import inspect
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from alphabar import check
from alphabar.check import gallery
from alphabar.check.catalogue import BUGS
from alphabar.check.gallery import right, seen
from alphabar.check.gallery.conventions import CONVENTIONS
from alphabar.check.gallery.entries import Entry
from alphabar.figures import Style

DOCS = Path(__file__).parents[2] / "docs"
SOUND = ("right", "equivalent", "fragile")
ENTRIES = gallery.entries()
# What takes a tenth of a second: their numbers are measured again here.
QUICK = ("A2", "A5", "A6", "A16", "A18", "A19", "A22", "A24", "A26", "A29", "A35")

# What check takes more than a second for.
LONG = ("A4", "A6", "A9", "A18", "A20", "A21", "A27")


def name(entry: Entry) -> str:
    return entry.id


def test_every_bug_is_there_and_in_order() -> None:
    assert [e.id for e in ENTRIES] == [bug.id for bug in BUGS]
    assert [c.id for c in CONVENTIONS] == [f"N{i}" for i in range(1, 9)]


def role(entry: Entry) -> object:
    """The check, where there is one yet that takes the entry's facts."""
    found = getattr(check, entry.role, None)
    if not inspect.isfunction(found) or not {*entry.facts} <= {
        *inspect.signature(found).parameters
    }:
        pytest.skip(f"there is no check.{entry.role} yet that takes these facts")
    return found


@pytest.mark.parametrize(
    "entry",
    [pytest.param(e, marks=[pytest.mark.prove] * (e.id in LONG)) for e in ENTRIES],
    ids=lambda entry: entry.id,
)
def test_check_names_the_wrong_code_and_not_the_right(entry: Entry) -> None:
    find = role(entry)
    assert callable(find)
    sound = find(entry.subject(entry.right), **entry.facts)
    assert sound.verdict in SOUND, sound
    report = find(entry.subject(entry.wrong), **entry.facts)
    named = [d.id for finding in report.functions for d in finding.diagnoses]
    assert report.verdict == "bug", report
    assert named[0] == entry.id, report


@pytest.mark.parametrize("entry", ENTRIES, ids=name)
def test_the_code_is_short_and_the_bug_marked(entry: Entry) -> None:
    one, other = gallery.source(entry.right), gallery.source(entry.wrong)
    assert max(len(one.splitlines()), len(other.splitlines())) <= 14
    assert "←" in other
    assert "←" not in one
    assert other.split("(")[0].lower().endswith(f"_{entry.id.lower()}") or "EMA_A33" in other


# --- what is measured


def rows(id: str) -> dict[str, seen.Row]:
    return {row.what: row for row in gallery.measured(id).rows}


def test_the_exact_model_is_the_roll_s() -> None:
    """By the weights of 200,000 points of the law."""
    x, t = torch.tensor([[0.3, -0.2], [1.0, 0.4]]), 30
    a = np.prod(1 - np.linspace(1e-3, 0.2, 100)[: t + 1])
    fresh = seen.roll().fresh
    assert fresh is not None
    points = fresh(200_000, 5).numpy()
    for one, found in zip(x.numpy(), seen.exact("x_0")(x, t).numpy(), strict=True):
        weight = np.exp(-((one - math.sqrt(a) * points) ** 2).sum(1) / (2 * (1 - a)))
        assert found == pytest.approx((weight[:, None] * points).sum(0) / weight.sum(), abs=0.01)


def test_models_are_of_one_another() -> None:
    x, t = torch.randn(5, 2, generator=torch.Generator().manual_seed(0)), torch.arange(5) * 20
    x_0, eps, v, score = (seen.exact(p)(x, t) for p in ("x_0", "eps", "v", "score"))
    root, noise = right.alpha_bar[t, None].sqrt(), (1 - right.alpha_bar[t, None]).sqrt()
    assert torch.allclose(root * x_0 + noise * eps, x, atol=1e-5)
    assert torch.allclose(v, root * eps - noise * x_0, atol=1e-5)
    assert torch.allclose(score, -eps / noise, atol=1e-5)


def test_a_point_that_is_no_number_stays_one() -> None:
    x = torch.tensor([[0.1, 0.2], [math.nan, 0.0]])
    found = seen.exact("eps")(x, 10)
    assert found[0].isfinite().all()
    assert found[1].isnan().all()


def test_the_ratio_is_1_for_truth_and_nan_for_nan() -> None:
    fresh = seen.roll().fresh
    assert fresh is not None
    ratios = [seen.ratio(fresh(seen.N, 10_000 + i)) for i in range(10)]
    assert 0.85 < math.sqrt(np.mean(np.square(ratios))) < 1.2  # 4 standard deviations or more
    assert math.isnan(seen.ratio(torch.full((seen.N, 2), math.nan)))


def test_what_the_post_s_bugs_do_to_a_chain() -> None:
    """Moments of the chain, by recursion."""
    for id, kept, noise_mean, noise_var in (("A1", 1.0, 0.5, 1 / 12), ("A2", 0.0, 0.0, 1.0)):
        mean, var = float(seen.roll().x.mean()), float(seen.roll().x.var(0).mean())
        for beta in np.linspace(1e-3, 0.2, 100):
            size = math.sqrt(beta) if kept else beta
            mean = math.sqrt(1 - beta) * mean + size * noise_mean
            var = (1 - beta) * var + size**2 * noise_var
        found = rows(id)
        assert found["mean of x_T"].both[1] == pytest.approx(mean, abs=0.05)
        assert found["variance of x_T"].both[1] == pytest.approx(var, rel=0.1)


@pytest.mark.parametrize("id", QUICK)
def test_right_code_does_what_the_law_says(id: str) -> None:
    for row in gallery.measured(id).rows:
        if row.law is not None and "ratio" not in row.what:
            assert row.both[0] == pytest.approx(row.law, rel=0.03, abs=0.02), row


def test_what_pictures_hide_numbers_show() -> None:
    worst = "noise in x over that of the level told, at its worst"
    end = "error in the end of a model that knows x_0"
    assert rows("A26")[worst].both[1] > 1.2
    assert rows("A29")[end].both[1] == pytest.approx(math.sqrt(1e-3), rel=0.05)
    for id in ("A26", "A29"):
        ratios = rows(id)["ratio of the samples"].both
        assert ratios[1] == pytest.approx(ratios[0], rel=0.25)  # and these do not tell
        assert rows(id)[end].both[0] < 1e-6
    assert rows("A24")["share of samples that are finite"].both == [1.0, 0.0]


# --- how it is shown


def test_a_page_for_the_terminal() -> None:
    text = gallery.show("a18")
    assert text.startswith("A18  weights and errors are multiplied in all pairs")
    for part in (
        "bayesflow 787",
        "def weighted_loss(",
        "def weighted_loss_a18(",
        "Remedy",
        "betas",
    ):
        assert part in text
    assert all(len(line) <= 100 for line in text.splitlines())
    assert gallery.show().splitlines()[5].startswith("A6 ")
    with pytest.raises(ValueError, match="A99: there is no such bug; choose A1 … A35"):
        gallery.show("A99")
    with pytest.raises(ValueError, match="A36"):
        gallery.picture("A36")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("id", ["A6", "A16", "A19", "A35"])
def test_a_picture_has_both(id: str, theme: str) -> None:
    """In each panel, or in one, something of the colours of a right and of a wrong result."""
    style = Style(theme)  # type: ignore[arg-type]
    figure = gallery.picture(id, style)
    pixels = figure.pixels()
    again = gallery.picture(id, style).pixels()
    assert np.array_equal(pixels, again)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles in (["right", "wrong"], [""])
    if id == "A16":
        assert "100 % not finite" in [text.get_text() for text in figure.axes[1].texts]
    if id == "A19":
        assert "wrong: not finite" in [text.get_text() for text in figure.axes[0].texts]
    ink = [
        np.abs(half.astype(int) - pixels[0, 0].astype(int)).sum()
        for half in np.array_split(pixels, 2, 1)
    ]
    assert min(ink) > 10_000


def tables() -> dict[str, str]:
    """The numbers that the page holds."""
    page = (DOCS / "bugs.md").read_text(encoding="utf-8")
    parts = re.split(r'<a id="(a\d+)"></a>', page)
    found = {}
    for id, part in zip(parts[1::2], parts[2::2], strict=True):
        match = re.search(r"^\| measured \|.*(?:\n\|.*)*", part, re.M)
        assert match is not None
        found[id.upper()] = match[0]
    return found


def test_the_page_is_what_the_gallery_says() -> None:
    """If not: python -m alphabar.check.gallery docs."""
    page = (DOCS / "bugs.md").read_text(encoding="utf-8")
    assert page == gallery.markdown(tables())
    for target in re.findall(r"\]\(#(\w+)\)", page):
        assert f'<a id="{target}"></a>' in page
    for picture in re.findall(r"\]\((bugs/\w+\.png)\)", page):
        with Image.open(DOCS / picture) as opened:
            assert min(opened.size) > 200


def numbers(table: str) -> list[float]:
    cells = [cell for line in table.splitlines()[2:] for cell in line.split(" | ")[1:]]
    said = [cell.strip(" |").replace("−", "-") for cell in cells]
    return [float(cell) for cell in said if cell]


@pytest.mark.parametrize("id", QUICK)
def test_the_numbers_of_the_page_are_measured(id: str) -> None:
    """To a tenth, as another build of torch may draw and round otherwise."""
    held, found = numbers(tables()[id]), numbers(gallery.table(id))
    assert len(held) == len(found) > 2
    assert held == pytest.approx(found, rel=0.1, abs=0.02, nan_ok=True)


@pytest.mark.prove
@pytest.mark.parametrize("entry", ENTRIES, ids=name)
def test_all_numbers_of_the_page_are_measured(entry: Entry) -> None:
    held, found = numbers(tables()[entry.id]), numbers(gallery.table(entry.id))
    assert held == pytest.approx(found, rel=0.1, abs=0.02, nan_ok=True)


def test_the_pictures_are_small() -> None:
    files = list((DOCS / "bugs").iterdir())
    assert {f.name for f in files} == {f"{e.id.lower()}.png" for e in ENTRIES}
    assert sum(f.stat().st_size for f in files) < 2_000_000
