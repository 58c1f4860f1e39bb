"""Commands of what is learned, as a person meets them: runs, their samples, and what is wrong."""

import json
import math
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from alphabar.config import Config, configure
from alphabar.data import Standardiser, load
from alphabar.excess import Excess, even_log_snr
from alphabar.guidance import guided
from alphabar.origin import origin_of_run, truth_of
from alphabar.runs import begin, open_run
from alphabar.samplers import dpmpp_2m, sample
from alphabar.schedule import SCHEDULES
from command_line import Run, alphabar, document

TINY = ["--steps", "20", "--batch", "64", "--seed", "1"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of a few steps, and the file that two of them learned from; copied, never changed."""
    home = tmp_path_factory.mktemp("trained")
    rng = np.random.default_rng(0)
    x = rng.normal([1e3, -2e-3], [50, 1e-4], (120, 2))
    np.savetxt(home / "mine.csv", x, delimiter=",", header="mass,charge", comments="")

    def make(name: str, spec: str, scaled: bool = False, **options: Any) -> None:
        data = load(spec)
        standardiser = Standardiser.fit(data.x) if scaled else None
        config, lessons = configure(data, standardiser, 1, steps=20, batch=64, **options)
        with begin(home / name, config, lessons) as training:
            for _ in training.steps():
                pass

    before = Path.cwd()
    os.chdir(home)
    short = {"schedule": "linear:T=40,end=0.5", "levels": "logistic"}
    make("moons", "moons:n=200", **short)
    make("half", "mine.csv", True, held_out=True, **short)
    make("all", "mine.csv", True)
    three = load("gaussians:n=90,modes=3")
    make("three", "gaussians:n=90,modes=3", condition=three.labels)
    make("digits", "digits")
    os.chdir(before)
    return home


@pytest.fixture
def home(trained: Path, tmp_path: Path, quick: None) -> Path:
    """A folder with these runs."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    return tmp_path


def everything(folder: Path) -> dict[str, bytes]:
    """What lies in it, but for the locks."""
    found = (p for p in folder.rglob("*") if p.is_file() and p.name != ".lock")
    return {str(p.relative_to(folder)): p.read_bytes() for p in found}


# --- training


def test_train_json_is_the_contract(run: Run, quick: None, tmp_path: Path) -> None:
    result = run("train", "moons:n=200", "-o", "r", *TINY, "--json")
    found = document(result)
    assert list(found)[:5] == ["run", "seconds", "steps", "loss", "excess_loss"]
    assert (found["run"], found["steps"], found["seed"]) == ("r", 20, 1)
    assert found["seconds"] > 0
    folder = open_run(tmp_path / "r")
    assert Config.from_dict(found["spec"]) == folder.config
    assert found["spec"]["data"] == "moons:n=200,noise=0.05,seed=0"
    assert [line.step for line in folder.metrics()][-1] == 20
    assert found["loss"] == folder.metrics()[-1].loss
    # The excess is that of the weights which are kept, against the law of the moons.
    target = load("moons").target
    assert target is not None
    probe = Excess(target(), even_log_snr(20), 256, seed=1)
    assert found["excess_loss"] == pytest.approx(probe(folder.denoiser()).share, rel=1e-6)
    assert {p.name for p in (tmp_path / "r").iterdir()} == {
        ".lock",
        "checkpoint.safetensors",
        "config.json",
        "data.safetensors",
        "metrics.jsonl",
        "steps-fitted-12.json",
    }
    assert result.err == ""


def test_train_says_what_it_did(run: Run, quick: None) -> None:
    said = run("train", "moons:n=200", "-o", "r", *TINY).out
    for part in ("moons:n=200,noise=0.05,seed=0", "20   seed 1", "above the exact optimum"):
        assert part in said
    assert "alphabar sample r -o samples.png" in said
    assert "정확한 최적값보다" in run("train", "moons", "-o", "k", *TINY, "--lang", "ko").out
    assert run("train", "moons", "-o", "q", *TINY, "--quiet") == (0, "", "")


def test_the_same_seed_trains_the_same_bytes(run: Run, quick: None, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert run("train", "moons:n=200", "-o", name, *TINY[:-1], seed).code == 0

    def weights(name: str) -> bytes:
        state = load_file(tmp_path / name / "checkpoint.safetensors")
        return b"".join(state[k].numpy().tobytes() for k in sorted(state) if "average" in k)

    assert weights("a") == weights("b") != weights("c")
    for name in ("a", "b"):
        assert run("sample", name, "-n", 30, "--seed", 5, "-o", f"{name}.npy").code == 0
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()
    drawn = {document(run("train", "moons", "-o", n, "--steps", 1, "--json"))["seed"] for n in "de"}
    assert len(drawn) == 2


def test_a_schedule_of_one_step_can_be_trained_and_sampled(run: Run, quick: None) -> None:
    """No steps can be fitted between its levels: there are none."""
    way = ["--schedule", "linear:T=1,end=0.9"]
    assert run("train", "moons:n=200", "-o", "one", *TINY, *way).code == 0
    assert run("sample", "one", "-n", 5, "--spacing", "all", "--seed", 1).code == 0


def test_one_column_from_file_to_samples(run: Run, quick: None, tmp_path: Path) -> None:
    Path("one_column.csv").write_text("a\n" + "\n".join(map(str, range(100))) + "\n")
    assert run("train", "one_column.csv", "-o", "r", *TINY).code == 0
    assert run("sample", "r", "-n", 5, "--seed", 1, "-o", "s.csv").code == 0
    assert Path("s.csv").read_text().splitlines()[0] == "a"


def test_seconds_bound_the_training(run: Run, quick: None) -> None:
    found = document(run("train", "moons", "-o", "r", "--seconds", 0.3, "--batch", 64, "--json"))
    assert found["seconds"] == pytest.approx(0.3, abs=0.2)
    assert found["steps"] > 1
    assert found["spec"]["seconds"] == 0.3


@pytest.mark.parametrize(
    "options",
    [
        ["--schedule", "linear:T=100", "--predicts", "eps", "--objective", "simple"],
        ["--schedule", "linear", "-T", "30", "--predicts", "eps", "--objective", "hybrid"],
        ["--schedule", "cosine", "--objective", "vlb"],
        ["--levels", "cosine", "--predicts", "flow", "--objective", "flow"],
        ["--objective", "min_snr", "--net", "mlp:width=16,depth=2"],
        ["--objective", "sliced", "--rate", "1e-3", "--weight-decay", "0.01"],
        ["--stream"],
        ["--standardise"],
        ["--classes", "--drop", "0.5"],
    ],
    ids=" ".join,
)
def test_every_way_to_train(run: Run, quick: None, options: list[str]) -> None:
    result = run("train", "moons:n=200", "-o", "r", *TINY, *options, "--json")
    config = Config.from_dict(document(result)["spec"])
    given = dict(zip(options[::2], options[1::2], strict=False))
    for name, value in given.items():
        kept = getattr(config, name.removeprefix("--").replace("-", "_"), None)
        if isinstance(kept, str):
            assert kept.startswith(value)
        elif isinstance(kept, float):
            assert kept == float(value)
    assert config.stream is ("--stream" in options)
    assert config.classes == (2 if "--classes" in options else 0)
    assert (config.standardiser is not None) is ("--standardise" in options)
    if "-T" in options:
        assert "T=30" in str(config.schedule)
    assert run("sample", "r", "-n", 20, "--seed", 1).code == 0


def test_half_of_a_file_is_held_out(run: Run, home: Path) -> None:
    result = run("train", "mine.csv", "-o", "r", *TINY, "--json")
    assert "60 of the 120 rows are held out" in result.err
    assert "mean 0 and variance 1" in result.err
    found = document(result)["spec"]
    assert (found["held_out"], found["n"]) == (True, 60)
    result = run("train", "mine.csv", "-o", "s", *TINY, "--no-hold-out", "--json")
    assert "held out" not in result.err
    assert document(result)["spec"]["n"] == 120


def test_few_and_copied_rows_are_remarked_on(run: Run, quick: None, tmp_path: Path) -> None:
    (tmp_path / "dup.csv").write_text("a,b\n" + "1,2\n3,5\n" * 60)
    result = run("train", "dup.csv", "-o", "r", *TINY, "--no-hold-out")
    assert "118 of 120 items are copies of others" in result.err
    (tmp_path / "two.csv").write_text("a,b\n1,2\n3,5\n")
    result = run("train", "two.csv", "-o", "s", *TINY, "--no-hold-out")
    assert "2 items to learn from" in result.err
    assert run("sample", "s", "-n", 5).code == 0
    result = run("train", "gaussians:n=4,modes=4", "-o", "t", *TINY, "--classes")
    assert "class 1 has only 1 to learn from" in result.err


# --- stopped, and gone on with


@pytest.fixture
def stopped(run: Run, quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run `r` that a person stopped."""
    said = 0

    def interrupt(*_: object) -> None:
        nonlocal said
        said += 1
        if said == 8:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("alphabar.frame.Advance.say", interrupt)
        result = run("train", "moons:n=200", "-o", "r", *TINY)
    assert (result.code, result.out) == (130, "")
    assert (
        result.err
        == "stopped; alphabar train -o r --resume goes on from the last step that is kept\n"
    )


def test_a_resumed_run_is_the_same_run(run: Run, stopped: None, tmp_path: Path) -> None:
    kept = open_run(tmp_path / "r").trained().step
    assert 0 < kept < 20
    early = document(run("sample", "r", "-n", 40, "--seed", 3, "--json"))
    assert f"{kept} steps of training" in run("sample", "r", "-n", 4, "--seed", 3).out
    assert run("train", "-o", "r", "--resume").code == 0
    late = document(run("sample", "r", "-n", 40, "--seed", 3, "-o", "r.npy", "--json"))
    assert late["levels"] != early["levels"]  # fitted to other weights
    assert run("train", "moons:n=200", "-o", "s", *TINY).code == 0
    assert run("sample", "s", "-n", 40, "--seed", 3, "-o", "s.npy").code == 0
    np.testing.assert_array_equal(np.load("r.npy"), np.load("s.npy"))
    lines = [open_run(tmp_path / name).metrics() for name in "rs"]
    assert [(a.step, a.loss, a.excess_loss) for a in lines[0]] == [
        (b.step, b.loss, b.excess_loss) for b in lines[1]
    ]


def test_what_is_done_stays_as_it_is(run: Run, home: Path) -> None:
    before = (home / "moons" / "checkpoint.safetensors").read_bytes()
    given = ["--steps", 20, "--seed", 1, "--objective", "edm", "--schedule", "linear:end=0.5,T=40"]
    found = document(run("train", "moons:n=200", "-o", "moons", "--resume", *given, "--json"))
    assert found["steps"] == 20
    assert (home / "moons" / "checkpoint.safetensors").read_bytes() == before


def test_force_trains_anew(run: Run, home: Path) -> None:
    (home / "moons" / "mine.txt").write_text("mine")
    assert run("train", "circles:n=90", "-o", "moons", *TINY, "--force").code == 0
    assert open_run(home / "moons").config.data == load("circles:n=90").spec
    assert (home / "moons" / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_keep_a_checkpoint(tmp_path: Path, number: int, code: int) -> None:
    words = ["train", "swiss_roll:n=300", "-o", "r", "--batch", "64", "--seconds", "300"]
    process = alphabar(*words, cwd=tmp_path)
    lines = tmp_path / "r" / "metrics.jsonl"
    for _ in range(1200):  # until it trains
        if lines.exists() and lines.read_bytes().count(b"\n") > 5:
            break
        time.sleep(0.1)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (code, "")
    assert err.splitlines() == [
        "stopped; alphabar train -o r --resume goes on from the last step that is kept"
    ]
    assert open_run(tmp_path / "r").trained().step >= 6


# --- samples of a run


def test_a_run_draws_by_steps_of_its_own(run: Run, home: Path) -> None:
    steps = home / "moons" / "steps-fitted-12.json"
    first = document(run("sample", "moons", "-n", 50, "--seed", 3, "-o", "a.npy", "--json"))
    kept = json.loads(steps.read_text())
    assert (first["spacing"], first["nfe"], first["target"]) == ("fitted", 12, "network")
    assert (first["levels"], first["sampler"]) == (kept["schedule"], kept["sampler"])
    assert first["fit_seconds"] > 0
    again = document(run("sample", "moons", "-n", 50, "--seed", 3, "-o", "b.npy", "--json"))
    assert again["fit_seconds"] is None
    steps.write_text("{")  # fitted again, to the same, whatever is drawn
    run("sample", "moons", "-n", 5, "--seed", 8)
    assert json.loads(steps.read_text()) == kept
    run("sample", "moons", "-n", 50, "--seed", 3, "-o", "c.npy")
    a, b, c = (np.load(f"{name}.npy") for name in "abc")
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(a, c)
    options = ["--sampler", first["sampler"], "--schedule", first["levels"], "--spacing", "all"]
    options += ["--start", first["start"], "-n", "50", "--seed", "3"]
    assert run("sample", "moons", *options, "-o", "d.npy").code == 0
    np.testing.assert_array_equal(a, np.load("d.npy"))


def test_large_items_have_steps_by_curvature(run: Run, home: Path) -> None:
    found = document(run("sample", "digits", "-n", 3, "--json"))
    assert (found["spacing"], found["nfe"], found["sampler"]) == ("curvature", 20, "dpmpp_2m")
    assert (home / "digits" / "steps-curvature-20.json").exists()
    assert document(run("sample", "digits", "-n", 3, "--json"))["fit_seconds"] is None


def test_training_is_as_long_as_the_data_are_many(
    run: Run, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alphabar.learn.LEAST", 10)
    monkeypatch.setattr("alphabar.learn.MOST", 30)
    for n, steps in ((4, 10), (22, 22), (400, 30)):
        words = ["train", f"swiss_roll:n={n}", "-o", f"r{n}", "--batch", 8, "--seed", 1, "--json"]
        assert document(run(*words))["steps"] == steps


def test_a_folder_that_cannot_be_written_to_is_sampled_from(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("alphabar.runs.writing", refuse)
    found = document(run("sample", "moons", "-n", 5, "--json"))
    assert found["fit_seconds"] > 0
    assert not (home / "moons" / "steps-fitted-12.json").exists()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--nfe", "8", "--spacing", "fitted", "--fit-coefficients"], ("mixes", 8, "fitted")),
        (["--sampler", "heun", "--nfe", "8"], ("heun", 7, "log_snr")),
        (["--steps", "5", "--spacing", "curvature"], ("dpmpp_2m", 5, "curvature")),
        (["--schedule", "cosine", "-T", "30", "--spacing", "all"], ("dpmpp_2m", 30, "all")),
        (["--start", "noise"], ("dpmpp_2m", 20, "log_snr")),
    ],
    ids=lambda v: " ".join(map(str, v)),
)
def test_other_ways_to_draw(
    run: Run, home: Path, options: list[str], expected: tuple[str, int, str]
) -> None:
    found = document(run("sample", "moons", "-n", 30, "--seed", 1, *options, "--json"))
    assert (found["sampler"].split(":")[0], found["nfe"], found["spacing"]) == expected


def test_samples_are_those_of_the_library(run: Run, home: Path) -> None:
    denoiser = open_run(home / "three").denoiser()
    few = SCHEDULES.parse("linear").spaced(6, "log_snr")
    ways = {
        "": denoiser,
        "--label 2": denoiser.given(2),
        "--label 2 --guidance 3": guided(denoiser.given(2), denoiser, 3),
    }
    drawn = []
    for options, way in ways.items():
        words = ["-n", 25, "--seed", 4, "--steps", 6, "--start", "noise", *options.split()]
        assert run("sample", "three", *words, "-o", "x.npy", "--force").code == 0
        *_, last = sample(way, dpmpp_2m(), few, 25, (2,), 4)
        np.testing.assert_allclose(np.load("x.npy"), last.x.numpy(), rtol=0, atol=1e-6)
        drawn.append(last.x)
    assert (drawn[0] - drawn[1]).abs().max() > 1e-4
    assert (drawn[1] - drawn[2]).abs().max() > 1e-4


def test_a_class_starts_from_noise(run: Run, home: Path) -> None:
    """The mean and covariance of all the data are not those of a class."""
    found = document(run("sample", "three", "-n", 5, "--label", 1, "--json"))
    assert (found["start"], found["class"], found["sampler"]) == ("noise", 1, "dpmpp_2m")


def test_a_class_starts_from_noise_even_far_from_it(run: Run, quick: None) -> None:
    way = ["--classes", "--schedule", "linear:T=100,end=0.01"]
    assert run("train", "gaussians:n=200", "-o", "g", *TINY, *way).code == 0
    result = run("sample", "g", "-n", 5, "--label", 1, "--json")
    assert document(result)["start"] == "noise"
    assert "N(0, I) is" in result.err  # and that it is far off is said
    assert (
        document(run("sample", "g", "-n", 5, "--spacing", "log_snr", "--json"))["start"]
        == "matched"
    )


def test_samples_of_a_file_have_its_names_and_units(run: Run, home: Path) -> None:
    assert run("sample", "half", "-n", 200, "--seed", 1, "-o", "new.csv").code == 0
    assert Path("new.csv").read_text().splitlines()[0] == "mass,charge"
    new = np.loadtxt("new.csv", delimiter=",", skiprows=1)
    np.testing.assert_allclose(new.mean(0), [1e3, -2e-3], rtol=0.05)
    np.testing.assert_allclose(new.std(0), [50, 1e-4], rtol=0.3)


@pytest.mark.parametrize("name", ["s.png", "s.gif", "s.npz", "s.npy"])
@pytest.mark.parametrize("of", ["moons", "digits", "half"])
def test_files_of_samples(run: Run, home: Path, of: str, name: str) -> None:
    (home / "mine.csv").unlink()  # a run can do without the data that it was trained on
    result = run("sample", of, "-n", 4, "--seed", 1, "-o", name)
    assert result.code == 0, result.err
    if name == "s.npy":
        assert np.load(name).shape == (4, *((1, 8, 8) if of == "digits" else (2,)))
    elif name == "s.npz":
        with np.load(name) as file:
            assert ("mean" in file.files) is (of == "half")
            assert file["x"].shape[:2] == (21 if of == "digits" else 13, 4)
    else:
        assert Path(name).stat().st_size > 2000


# --- what samples are worth


def test_evaluate_compare_and_decompose_agree(run: Run, home: Path) -> None:
    """One run, one seed, one way to draw: the same samples, and the same score."""
    way = ["-n", "150", "--draws", "3", "--seed", "2", "--nfe", "5", "--json"]
    compared = document(run("compare", "moons", "--samplers", "ddim", *way))["compared"][0]
    way += ["--sampler", "ddim"]
    found = document(run("evaluate", "moons", "--metrics", "sliced_w2 ks", *way))
    score = found["metrics"]["sliced_w2"]
    assert list(found["metrics"]) == ["sliced_w2", "ks"]
    assert {"value", "floor", "ratio", "draws", "low", "high", "p_value"} <= set(score)
    assert score["value"] == pytest.approx(compared["value"], rel=1e-6)
    assert score["floor"] == pytest.approx(compared["floor"], rel=1e-6)
    assert (score["draws"], found["n"], found["run"]) == (3, 150, "moons")
    assert (found["against"], found["reference"]) == (
        "moons:n=200,noise=0.05,seed=0",
        "fresh points",
    )
    assert found["sample"]["nfe"] == 5
    parts = document(run("decompose", "moons", *way))
    assert parts["ratio"] == pytest.approx(score["ratio"], rel=1e-5)
    names = [part["name"] for part in parts["parts"]]
    assert names == ["noise", "model", "discretisation", "interaction", "rest", "total"]
    assert sum(p["square"] for p in parts["parts"][:-1]) == pytest.approx(
        parts["parts"][-1]["square"]
    )
    assert (parts["target"], parts["blame"] in {*names, None}) == ("law", True)
    assert parts["inherited"] is not None
    assert len(parts["excess"]["log_snr"]) == 40


def test_a_run_of_a_file_is_held_against_the_other_half(run: Run, home: Path) -> None:
    way = ["--draws", "2", "--seed", "2", "--json"]
    found = document(run("evaluate", "half", "--metrics", "sliced_w2 copies", *way))
    assert (found["reference"], found["n"]) == ("the held-out half of the file", 60)
    assert found["standardised"]["mean"][0] == pytest.approx(1e3, rel=0.02)
    assert found["metrics"]["copies"]["value"] == 0
    assert found["metrics"]["sliced_w2"]["ratio"] < 5
    compared = document(run("compare", "half", "--samplers", "ddim", "--nfe", "4", *way))
    assert compared["reference"] == "the held-out half of the file"
    result = run("decompose", "half", *way)
    assert "60 training points" in result.err
    assert document(result)["target"] == "items"
    # The very rows: their mean is the one that was kept of what was trained on.
    origin = origin_of_run("half")
    parts = truth_of(origin, seed=2)
    assert parts is not None
    assert origin.source.standardiser is not None
    used = origin.source.standardiser.apply(origin.data.x)[parts.used]
    torch.testing.assert_close(used.mean(0), origin.source.mean, rtol=0, atol=1e-5)
    # All of the file, when that is asked for.
    other = document(run("evaluate", "all", "--against", "mine.csv", "--metrics", "ks", *way))
    assert (other["reference"], other["n"]) == ("the rows of the file", 120)


def test_decompose_without_a_law(run: Run, quick: None) -> None:
    assert run("train", "checkerboard:n=80", "-o", "r", *TINY).code == 0
    result = run("decompose", "r", "-n", 40, "--draws", 1, "--seed", 1, "--json")
    assert "80 training points" in result.err
    assert document(result)["target"] == "items"


def test_evaluate_a_file(run: Run, quick: None, tmp_path: Path) -> None:
    assert run("sample", "moons", "--exact", "-n", 300, "--seed", 1, "-o", "x.csv").code == 0
    found = document(
        run("evaluate", "x.csv", "--against", "moons", "-n", 100, "--json", "--seed", 1)
    )
    assert (found["file"], found["draws"], found["n"]) == ("x.csv", 3, 100)
    assert 0.5 < found["metrics"]["sliced_w2"]["ratio"] < 1.6
    assert abs(found["metrics"]["nll"]["value"] - found["metrics"]["nll"]["floor"]) < 0.3
    for name in ("m.csv", "m.json"):
        options = ["--metrics", "ks mmd", "--seed", 1, "-o", name]
        said = run("evaluate", "x.csv", "--against", "moons", *options).out
        assert "fresh points" in said
    rows = Path("m.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["metric", "ks", "mmd"]
    assert list(json.loads(Path("m.json").read_text())["metrics"]) == ["ks", "mmd"]


def test_pictures_of_the_parts(run: Run, home: Path) -> None:
    options = ["-n", 60, "--draws", 2, "--seed", 1]
    files = ["-o", "p.png", "--levels", "l.svg"]
    said = run("decompose", "moons", *options, *files, "--lang", "ko").out
    assert "모델 오차" in said
    assert Path("p.png").stat().st_size > 2000
    assert "<svg" in Path("l.svg").read_text()
    assert run("decompose", "moons", *options, "-o", "p.json").code == 0
    assert json.loads(Path("p.json").read_text())["draws"] == 2


def test_likelihood_of_a_run(run: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alphabar.nats.MOST", 100)
    options = ["--metrics", "ks", "-n", 60, "--draws", 1, "--seed", 1, "--likelihood"]
    found = document(run("evaluate", "moons", *options, "--json"))["likelihood"]
    assert (found["n"], found["dimensions"], found["trace"]) == (100, 2, "exact")
    nll, entropy, divergence = (found[k]["nats"] for k in ("nll", "entropy", "divergence"))
    assert nll - entropy == pytest.approx(divergence, abs=1e-9)
    assert divergence > 0.1  # 20 steps of training
    bound = found["bound"]
    assert len(bound["terms"]) == 40
    parts = bound["prior"] + bound["diffusion"] + bound["reconstruction"]
    assert parts == pytest.approx(bound["total"], abs=1e-9)
    assert bound["total"] > found["entropy"]["nats_per_dim"]
    assert "variational bound" in run("evaluate", "moons", *options).out
    held = document(run("evaluate", "half", *options, "--json"))["likelihood"]
    assert (held["n"], held["entropy"], held["divergence"]) == (60, None, None)


def test_bits_of_a_file_of_integers(
    run: Run, quick: None, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alphabar.nats.MOST", 50)
    rows = torch.randint(0, 5, (300, 2), generator=torch.Generator().manual_seed(0))
    Path("counts.csv").write_text("a,b\n" + "".join(f"{a},{b}\n" for a, b in rows.tolist()))
    way = ["--schedule", "linear:T=40,end=0.5"]
    assert run("train", "counts.csv", "-o", "c", *TINY, *way).code == 0
    options = ["--metrics", "ks", "-n", 60, "--draws", 1, "--seed", 1, "--likelihood"]
    found = document(run("evaluate", "c", *options, "--json"))["likelihood"]["bound"]
    assert (found["integers"], found["variance"]) == ([0, 4], "posterior")
    assert found["bits"] > math.log2(5) - 0.3  # of 20 steps of training, far above it
    said = run("evaluate", "c", *options).out
    assert f"integers from 0 to 4: the bound is of their probability, {found['bits']:.4f}" in said


def test_the_variance_that_a_run_has_learned(run: Run, quick: None) -> None:
    way = ["--objective", "hybrid", "--schedule", "linear:T=40,end=0.5"]
    assert run("train", "moons:n=200", "-o", "h", *TINY, *way).code == 0
    assert run("train", "moons:n=200", "-o", "p", *TINY).code == 0
    options = ["-n", 30, "--spacing", "all", "--seed", 1, "--sampler"]
    assert run("sample", "h", *options, "ddpm:variance=learned", "-o", "l.npy").code == 0
    assert run("sample", "h", *options, "ddpm", "-o", "b.npy").code == 0
    learned, posterior = np.load("l.npy"), np.load("b.npy")
    assert learned.shape == (30, 2)
    assert not np.array_equal(learned, posterior)
    refused = run("sample", "p", *options, "ddpm:variance=learned", "-o", "x.npy")
    assert (refused.code, refused.out) == (2, "")
    assert "learns no variance" in refused.err
    assert not Path("x.npy").exists()
    refused = run("decompose", "h", "--sampler", "ddpm:variance=learned", "-n", 40)
    assert (refused.code, refused.out) == (2, "")
    assert "--sampler ddpm:variance=learned: the run is compared with the exact" in refused.err
    refused = run("train", "moons", "-o", "n", *TINY, "--objective", "hybrid")
    assert (refused.code, refused.out) == (2, "")
    assert "--schedule SPEC" in refused.err


def test_a_denoiser_without_a_density_says_so(
    run: Run, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alphabar.nats.MOST", 50)
    options = ["--predicts", "x_0", "--objective", "x_0", "--schedule", "linear:T=40,end=0.5"]
    assert run("train", "moons:n=200", "-o", "r", *TINY, *options).code == 0
    options = ["--metrics", "ks", "-n", 60, "--draws", 1, "--seed", 1, "--likelihood"]
    found = document(run("evaluate", "r", *options, "--json"))["likelihood"]
    assert found["nll"] is None
    assert "no limit at clean data" in found["reason"]
    assert "no limit at clean data" in run("evaluate", "r", *options).err


# --- what is refused: one line, exit code 2, nothing written


BAD = [
    ("train", "-o RUN"),
    ("train moons", "-o RUN"),
    ("train -o x", "needs DATA"),
    ("train mons -o x", "did you mean moons"),
    ("train gaussians -o x --drop 0.2", "--drop 0.2: it is the class that is withheld"),
    ("train gaussians -o x --classes --stream", "--classes and --stream"),
    ("train moons -o x --rate 1e30", "above 0, up to 1000"),
    ("train tiny.csv -o x", "whose squares are out of range"),
    ("decompose moons -o p.png --levels p.png", "these are one file"),
    ("decompose moons --levels p.json", "--levels p.json: its name must end in"),
    ("sample three --label 1 --guidance 1e9", "from 0 to 1000"),
    ("train missing.csv -o x", "no such file"),
    ("train nan.csv -o x", "NaN"),
    ("train one.csv -o x", "1 row"),
    ("train two.csv -o x", "needs 4 or more"),
    ("train equal.csv -o x", "'a' is 1 in every row"),
    ("train equal.csv -o x --no-standardise", "do not vary"),
    ("train moons:n=1 -o x", "do not vary"),
    ("train moons -o a/b", "there is no folder a"),
    ("train moons -o mine.csv", "is a file"),
    ("train moons -o full", "not empty"),
    ("train moons -o moons", "--resume to go on"),
    ("train moons -o x --steps 0", "steps = 0"),
    ("train moons -o x --steps 1.5", "1.5 is not a whole number"),
    ("train moons -o x --seconds 0", "seconds = 0"),
    ("train moons -o x --seconds nan", "seconds = nan"),
    ("train moons -o x --steps 5 --seconds 3", "give one of the two"),
    ("train moons -o x --rate -1", "rate = -1"),
    ("train moons -o x --batch 0", "batch = 0"),
    ("train moons -o x --batch 1000000000", "GiB"),
    ("train moons -o x --net mlp:width=60000,depth=99", "GiB"),
    ("train moons -o x --net mpl", "did you mean mlp"),
    ("train moons -o x --predicts noise", "predicts = 'noise'"),
    ("train moons -o x --objective simpl", "did you mean simple"),
    ("train moons -o x --objective hybrid", "belong to no schedule"),
    ("train moons -o x --levels gauss", "not a density of levels"),
    ("train moons -o x --schedule linaer", "did you mean linear"),
    ("train moons -o x --schedule jsd:T=9 --predicts eps --objective simple", "pure noise"),
    ("train moons -o x -T 50", "add --schedule"),
    ("train gaussians -o x --classes --drop 2", "drop = 2"),
    ("train moons -o x --weight-decay -1", "weight_decay = -1"),
    ("train moons -o x --hold-out", "leave it out"),
    ("train moons -o x --seed -1", "seed = -1"),
    ("train circles -o x --classes --stream", "come without classes"),
    ("train swiss_roll -o x --classes", "has no labels"),
    ("train mine.csv -o x --stream", "cannot be drawn afresh"),
    ("train digits -o x --standardise", "holds pictures"),
    ("train -o nothere --resume", "no such run"),
    ("train -o full --resume", "holds no config.json"),
    ("train -o moons --resume --force", "give one of the two"),
    ("train -o moons --resume --steps 30", "begun with 20"),
    ("train -o moons --resume --seconds 3", "begun without seconds"),
    ("train -o moons --resume --seed 2", "begun with 1"),
    ("train -o moons --resume --net mlp:width=9", "goes on as it was begun"),
    ("train -o moons --resume --schedule cosine", "goes on as it was begun"),
    ("train -o moons --resume --stream", "goes on as it was begun"),
    ("train -o moons --resume --hold-out", "goes on as it was begun"),
    ("train -o moons --resume --classes", "goes on as it was begun"),
    ("train -o moons --resume --standardise", "goes on as it was begun"),
    ("train -o half --resume --no-standardise", "goes on as it was begun"),
    ("train circles -o moons --resume", "not what the run was begun with"),
    ("train wide.csv -o moons --resume", "items of shape (3,)"),
    ("sample moons -n 0", "-n = 0"),
    ("sample moons --exact --label 1", "trained with --classes"),
    ("sample half --exact", "is a folder"),
    ("sample moons --label 1", "trained without classes"),
    ("sample moons --guidance 2", "add --label"),
    ("sample three --label 3", "knows the classes 0 to 2"),
    ("sample three --label -1", "knows the classes 0 to 2"),
    ("sample three --label 1 --guidance nan", "--guidance = nan"),
    ("sample three --label 1 --start matched", "of all the data"),
    ("sample three --label 1 --spacing fitted", "of all the data"),
    ("sample moons --standardise", "knows how it was trained"),
    ("sample moons --nfe 5 --steps 5", "give one"),
    ("sample moons --sampler heum", "did you mean heun"),
    ("sample moons --fit-coefficients", "add --spacing fitted"),
    ("sample moons --start noise --spacing fitted", "leave --start out"),
    ("sample digits -o x.csv", "holds pictures"),
    ("compare digits", "holds pictures"),
    ("compare all", "trained on all of"),
    ("compare moons --samplers mixes@log_snr", "mixes needs a"),
    ("evaluate", "RUN|FILE"),
    ("evaluate nope", "is no run"),
    ("evaluate full", "holds no config.json"),
    ("evaluate mine.csv", "--against DATA"),
    ("evaluate nope.csv --against moons", "no such file"),
    ("evaluate mine.csv --against nope.csv", "no such file"),
    ("evaluate mine.csv --against moons --likelihood", "is no run"),
    ("evaluate mine.csv --against moons --nfe 3", "is no run"),
    ("evaluate mine.csv --against wide.csv", "2 columns against 3"),
    ("evaluate mine.csv --against swapped.csv", "the same order"),
    ("evaluate mine.csv --against digits", "holds pictures"),
    ("evaluate mine.csv --against half", "is a folder"),
    ("evaluate digits", "trained on all of digits"),
    ("evaluate half --against wide.csv", "2 columns against 3"),
    ("evaluate half --against swapped.csv", "the same order"),
    ("evaluate half --against digits", "holds pictures"),
    ("evaluate all", "trained on all of"),
    ("evaluate half -n 61", "-n = 61"),
    ("evaluate moons -n 1", "-n = 1"),
    ("evaluate moons --draws 0", "--draws = 0"),
    ("evaluate moons --metrics w3", "metric 'w3'"),
    ("evaluate moons --standardise", "add --against"),
    ("evaluate moons -o x.png", "must end in .json"),
    ("evaluate moons -o a/x.json", "there is no folder"),
    ("evaluate moons -o mine.csv", "add --force"),
    ("decompose", "RUN"),
    ("decompose nope", "no such run"),
    ("decompose mine.csv", "a run is a folder"),
    ("decompose digits", "holds pictures"),
    ("decompose all", "trained on all of"),
    ("decompose moons -o x.csv", "must end in .png"),
    ("decompose moons --levels x.json", "must end in .png"),
    ("decompose moons --nfe 0", "--nfe = 0"),
    ("decompose moons -n 1", "-n = 1"),
]


@pytest.fixture
def around(home: Path) -> Path:
    """The runs, and files that go wrong."""
    (home / "nan.csv").write_text("a,b\n1,2\nnan,3\n4,5\n")
    (home / "one.csv").write_text("a,b\n1,2\n")
    (home / "tiny.csv").write_text("a,b\n" + "1e-300,1\n2e-300,2\n" * 9)
    (home / "two.csv").write_text("a,b\n1,2\n2,3\n")
    (home / "equal.csv").write_text("a,b\n" + "1,2\n" * 9)
    (home / "wide.csv").write_text("a,b,c\n" + "1,2,3\n2,3,5\n4,4,4\n" * 9)
    (home / "swapped.csv").write_text("charge,mass\n" + "1,2\n2,3\n" * 9)
    (home / "full").mkdir()
    (home / "full" / "mine.txt").write_text("mine")
    return home


TOLD = ("variance 1 first", "rows are held out", "items to learn from", "are copies of others")


@pytest.mark.parametrize(("line", "message"), BAD, ids=[line for line, _ in BAD])
def test_refused(run: Run, around: Path, line: str, message: str) -> None:
    before = everything(around)
    result = run(*line.split())
    assert (result.code, result.out) == (2, "")
    *before_it, last = result.err.splitlines()
    assert all(any(told in said for told in TOLD) for said in before_it), result.err
    assert last.startswith("alphabar: ")
    assert message in last
    assert "fault of alphabar" not in last
    assert everything(around) == before


def test_nothing_is_made_where_nothing_can_be_trained(run: Run, around: Path) -> None:
    run("train", "equal.csv", "-o", "x")
    assert not (around / "x").exists()


# --- runs that are not whole


def damaged(run_: Path, how: str) -> None:
    checkpoint = run_ / "checkpoint.safetensors"
    if how == "cut off":
        checkpoint.write_bytes(checkpoint.read_bytes()[:900])
    elif how == "swapped":
        shutil.copy(run_.parent / "half" / checkpoint.name, checkpoint)
    elif how == "version":
        text = (run_ / "config.json").read_text()
        (run_ / "config.json").write_text(text.replace('"format": 2', '"format": 7'))
    elif how == "edited":
        text = (run_ / "config.json").read_text()
        (run_ / "config.json").write_text(text.replace('"seed": 1', '"seed": 5'))
    elif how == "not JSON":
        (run_ / "config.json").write_text("{")
    else:
        (run_ / how).unlink()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("cut off", "cannot be used"),
        ("swapped", "another config.json"),
        ("version", "format 7"),
        ("edited", "it was written by another config.json"),
        ("not JSON", "damaged or was edited"),
        ("config.json", "holds no config.json"),
        ("checkpoint.safetensors", "go on with --resume"),
        ("data.safetensors", "restore it, or train the run anew"),
    ],
)
@pytest.mark.parametrize("command", ["sample", "compare", "evaluate", "decompose"])
def test_a_run_that_is_not_whole(
    run: Run, home: Path, how: str, message: str, command: str
) -> None:
    damaged(home / "moons", how)
    result = run(command, "moons")
    assert (result.code, result.out) == (2, "")
    assert result.err.count("\n") == 1
    assert message in result.err


def test_training_begins_anew_without_a_checkpoint(run: Run, home: Path) -> None:
    before = (home / "moons" / "checkpoint.safetensors").read_bytes()
    damaged(home / "moons", "checkpoint.safetensors")
    assert run("train", "-o", "moons", "--resume").code == 0
    after = load_file(home / "moons" / "checkpoint.safetensors")
    (home / "old.safetensors").write_bytes(before)
    for key, value in load_file(home / "old.safetensors").items():
        if key != "seconds":
            assert torch.equal(after[key], value), key


def test_data_that_have_changed(run: Run, home: Path) -> None:
    text = (home / "mine.csv").read_text().splitlines(True)
    (home / "mine.csv").write_text("".join([*text[:5], *text[6:]]))
    for words in ("evaluate half", "decompose half", "compare half", "train -o half --resume"):
        result = run(*words.split())
        assert result.code == 2
        assert "is not what the run was begun with" in result.err
    assert run("sample", "half", "-n", 5, "-o", "x.png").code == 0
    (home / "mine.csv").unlink()
    assert "no such file" in run("evaluate", "half").err


def test_two_cannot_train_in_one_folder(run: Run, home: Path) -> None:
    import fcntl

    with (home / "moons" / ".lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        for words in (["train", "-o", "moons", "--resume"], ["train", "moons", "-o", "moons"]):
            force = [] if "--resume" in words else ["--force"]
            result = run(*words, *force)
            assert result.code == 2
            assert "is being trained by process" in result.err
        assert run("sample", "moons", "-n", 5).code == 0


def test_training_that_diverges(run: Run, quick: None, tmp_path: Path) -> None:
    words = ["train", "swiss_roll:n=100", "-o", "r", "--rate", "1000", "--steps", "300"]
    result = run(*words, "--batch", "64", "--seed", "1")
    assert (result.code, result.out) == (2, "")
    assert result.err.count("\n") == 1
    for part in ("at step", "log-SNR", "lower the rate", "are kept in r"):
        assert part in result.err
    assert run("sample", "r", "-n", 5).code == 0


def test_a_disk_that_fills(
    run: Run, quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alphabar import runs

    write = runs._write_tensors

    def full(path: Path, *rest: Any) -> None:
        if path.name == "checkpoint.safetensors":
            raise OSError(28, "No space left on device")
        write(path, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(runs, "_write_tensors", full)
        result = run("train", "moons:n=200", "-o", "r", *TINY)
    assert result.code == 2
    assert result.err.count("\n") == 1
    assert "No space left on device" in result.err
    assert run("train", "-o", "r", "--resume").code == 0
    with monkeypatch.context() as patch:  # a run that was not begun leaves nothing
        patch.setattr(runs, "_write_first", full)
        patch.setattr(runs, "_write_first", lambda *_: full(Path("checkpoint.safetensors")))
        assert run("train", "moons:n=200", "-o", "s", *TINY).code == 2
    assert not (tmp_path / "s").exists()


def test_too_little_memory_is_no_fault(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def small(*_: object) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes")

    monkeypatch.setattr("alphabar.learn._refuse_too_large", small)
    result = run("train", "moons", "-o", "r")
    assert result.code == 2
    assert "there is not enough memory" in result.err


# --- pictures


@pytest.mark.slow
def test_pictures_are_judged_by_those_that_were_held_out(run: Run, tmp_path: Path) -> None:
    made = run("train", "digits", "--classes", "-o", "d", "--steps", 60, "--seed", 1, "--batch", 64)
    assert made.code == 0
    assert "355 of the 1797" in made.err
    Path("features_of_mine.py").write_text("def mean(x):\n    return x.flatten(2).mean(2)\n")
    way = ("--draws", 2, "--sampler", "ddim", "--steps", 3, "--seed", 2)
    found = document(run("evaluate", "d", *way, "--features", "features_of_mine:mean", "--json"))
    assert (found["n"], found["draws"], found["reference"]) == (355, 2, "held-out pictures")
    metrics = found["metrics"]
    for name in ("class_accuracy", "coverage", "nearest_train", "frechet_features"):
        assert metrics[name]["value"] is not None
        assert metrics[name]["floor"] is not None
    floor = metrics["class_accuracy"]
    assert 0.97 < floor["floor_low"] < floor["floor"] < floor["floor_high"] < 1
    assert floor["value"] < 0.9  # after so few steps
    assert metrics["coverage_named"]["floor"] > 0.9
    for words, said in (
        ("--metrics ks", "measured in one way"),
        ("-n 3", "-n = 3"),
        ("--against moons", "has items of shape (2,)"),
        ("--features nowhere:f", "no module nowhere"),
    ):
        result = run("evaluate", "d", *words.split())
        assert (result.code, said in result.err) == (2, True), (words, result.err)
