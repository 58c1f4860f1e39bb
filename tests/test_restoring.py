"""The command `restore`: every task, what fits what was given, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alphabar.data import load
from command_line import Run

SEED = ("--seed", 3, "--json")


def save(name: str, levels: np.ndarray) -> None:
    Image.fromarray(levels.round().clip(0, 255).astype(np.uint8)).save(name)


def pixels(name: str) -> np.ndarray:
    with Image.open(name) as picture:
        return np.array(picture)


@pytest.fixture
def digit(run: Run) -> np.ndarray:
    """A run of digits that has learned next to nothing, and pictures for every task."""
    few = ("--steps", 20, "--batch", 64, "--seed", 1, "--net", "mlp:width=32")
    assert run("train", "digits", "--classes", *few, "-o", "r").code == 0
    whole = ((load("digits").x[20, 0].numpy() + 1) * 127.5).round()
    hole = np.zeros((8, 8))
    hole[2:5, 3:6] = 255
    noise = np.random.default_rng(0).standard_normal((8, 8))
    save("whole.png", whole)
    save("mask.png", hole)
    save("noisy.png", whole + 40 * noise)
    save("small.png", whole.reshape(4, 2, 4, 2).mean((1, 3)))
    save("odd.png", np.zeros((5, 8)))
    save("large.png", np.zeros((16, 16)))
    save("black.png", np.zeros((8, 8)))
    return whole


TASKS = (
    ("inpaint", "whole.png", "--mask", "mask.png"),
    ("denoise", "noisy.png", "--noise", 0.3),
    ("superres", "small.png"),
    ("deblur", "whole.png", "--blur", 1),
    ("edit", "whole.png", "--strength", 0.4),
)


def test_every_task(run: Run, digit: np.ndarray) -> None:
    for task, picture, *options in TASKS:
        words = ("restore", "r", picture, "--task", task, *options, "-n", 3, *SEED)
        found = json.loads(run(*words, "-o", f"{task}.npy").out)
        draws = np.load(f"{task}.npy")
        assert draws.shape == (3, 1, 8, 8)
        assert (found["task"], found["n"], found["file"]) == (task, 3, f"{task}.npy")
        spread = np.sqrt(draws.var(0, ddof=1).mean())
        assert found["spread"] == pytest.approx(spread, rel=1e-4)
    again = json.loads(run(*words).out)
    assert (again["spread"], again["nfe"]) == (found["spread"], found["nfe"])  # by its seed
    inpainted = np.load("inpaint.npy")
    known = pixels("mask.png") < 128
    exact = (digit / 127.5 - 1)[None, known].repeat(3, 0)
    np.testing.assert_allclose(inpainted[:, 0, known], exact, atol=1e-6)
    assert (inpainted[:, 0, ~known].std(0) > 1e-3).all()
    small = np.load("superres.npy").reshape(3, 4, 2, 4, 2).mean((2, 4))
    given = pixels("small.png") / 127.5 - 1
    assert np.abs(small - given).mean() < 0.1
    edited = np.load("edit.npy")
    assert np.abs(edited - (digit / 127.5 - 1)).mean() < np.abs(edited).mean()


def test_a_page_and_a_class(run: Run, digit: np.ndarray) -> None:
    words = ("restore", "r", "whole.png", "--task", "inpaint", "--mask", "mask.png", "-n", 4)
    for lang in ("ko", "en"):
        said = run(*words, "--label", 3, "--guidance", 2, "-o", f"{lang}.png", "--lang", lang)
        assert said.code == 0, said
        with Image.open(f"{lang}.png") as page:
            assert page.size[0] > 1000
    assert run(*words, "-o", "en.png").code == 2  # nothing is replaced without --force
    assert Path("en.png").stat().st_size > 0


REFUSED = (
    ("r whole.png --task blur", "choose denoise, inpaint"),
    ("r whole.png --task inpaint", "needs --mask"),
    ("r whole.png --task deblur", "needs --blur"),
    ("r whole.png --task deblur --blur 0", "> 0"),
    ("r whole.png --task deblur --blur nan", "> 0"),
    ("r whole.png --task edit", "needs --strength"),
    ("r whole.png --task edit --strength 1.5", "strength"),
    ("r whole.png --task edit --strength 0.5 --noise 1", "not for --task edit"),
    ("r whole.png --task denoise", "needs --noise"),
    ("r whole.png --task denoise --noise -1", "≥ 0"),
    ("r whole.png --task denoise --noise 1 --mask mask.png", "--mask is not for"),
    ("r whole.png --task inpaint --mask small.png", "4×4, and the picture 8×8"),
    ("r whole.png --task inpaint --mask black.png", "all black"),
    ("r whole.png --task inpaint --mask none.png", "no such file"),
    ("r odd.png --task denoise --noise 1", "8×5, and the run draws 8×8"),
    ("r odd.png --task superres", "2, 3, … times smaller"),
    ("r large.png --task superres", "2, 3, … times smaller"),
    ("r whole.png --task colorize", "grey already"),
    ("r none.png --task superres", "no such file"),
    ("r whole.png --task superres -n 0", "-n = 0"),
    ("r small.png --task superres --label 10", "knows the classes 0 to 9"),
    ("r small.png --task superres --guidance 2", "add --label"),
    ("r small.png --task superres --crowd -1", "crowd"),
    ("r small.png --task superres -o out.gif", "out.gif"),
    ("nothing small.png --task superres", "no such run"),
)


def test_what_is_refused(run: Run, digit: np.ndarray) -> None:
    for words, said in REFUSED:
        result = run("restore", *words.split())
        assert (result.code, said in result.err) == (2, True), (words, result)
        assert result.err.startswith("alphabar: ")
    few = ("--steps", 2, "--levels", "logistic", "--schedule", "linear:T=1")
    assert run("train", "moons:n=50", *few, "-o", "p").code == 0
    assert "draws points" in run("restore", "p", "whole.png", "--task", "superres").err
