"""The command line as a person meets it: output, exit codes, errors, nothing left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alphabar.schedule import SCHEDULES
from command_line import Run, alphabar, document

POST = ["linear:T=100,start=1e-5,end=1e-2", "quad:T=100,start=1e-5,end=1e-2"]


# --- what it prints


@pytest.mark.parametrize("words", ["--help", "train --help", "sample --help", "evaluate --help"])
def test_help_needs_no_torch(words: str) -> None:
    code = (
        f"import sys; sys.argv = ['alphabar', *{words.split()}]\n"
        "import alphabar\nfrom alphabar import cli\n"
        "try: cli.main()\nexcept SystemExit as e: assert e.code == 0\n"
        "assert not {'torch', 'numpy', 'matplotlib'} & set(sys.modules), 'too much was imported'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    expected = [words.split()[0], "--seed", "--json"]
    if words == "--help":
        expected = ["data", "schedules", "forward", "sample", "compare", "score", "study"]
        expected += ["train", "evaluate", "decompose", "check"]
    for word in expected:
        assert word in done.stdout


def test_data_lists_every_set(run: Run) -> None:
    from alphabar.data import DATA

    found = document(run("data", "--json"))["data"]
    assert [entry["name"] for entry in found] == [entry.name for entry in DATA]  # type: ignore[attr-defined]
    said = run("data").out
    for entry in DATA:
        assert entry.usage in said
        assert entry.summary in said


def test_schedules_json_is_the_contract(run: Run) -> None:
    result = run("schedules", *POST, "jsd:T=4", "--json", "--coefficients")
    assert result.out.count("\n") == 1
    first, _, jsd = document(result)["schedules"]  # type: ignore[misc]
    assert list(first) == [
        "spec",
        "name",
        "T",
        "beta",
        "alpha_bar",
        "log_snr",
        "terminal",
        "half",
        "largest_step",
        "warnings",
        "coefficients",
    ]
    s = SCHEDULES.parse(POST[0])
    assert first["beta"] == s.beta.tolist()  # every digit
    assert first["alpha_bar"] == s.alpha_bar.tolist()
    assert first["log_snr"][0] is None  # inf
    assert first["log_snr"][1:] == s.log_snr[1:].tolist()
    assert first["terminal"]["alpha_bar"] == pytest.approx(0.605, abs=5e-4)
    assert [w["code"] for w in first["warnings"]] == ["terminal-snr"]
    assert "linear:T=100,start=0.00019,end=0.19" in first["warnings"][0]["message"]
    assert first["half"] is None
    assert {len(v) for v in first["coefficients"].values()} == {100}
    assert jsd["terminal"] == {"alpha_bar": 0, "snr_db": None, "kl_to_prior": 0}
    assert jsd["coefficients"]["sqrt_recip_alphas_cumprod"][-1] is None


def test_schedules_say_what_the_eye_misses(run: Run) -> None:
    result = run("schedules", "linear", "quad", "sigmoid", "-T", 100, "--lang", "en")
    assert result.code == 0
    assert result.err.count("this never reaches noise") == 3
    assert "spec" in result.out
    assert "T=100" in result.out
    korean = run("schedules", "linear", "-T", 100, "--lang", "ko")
    assert "잡음" in korean.err


def test_T_is_only_for_specs_without_one(run: Run) -> None:
    found = document(run("schedules", "linear:T=7", "cosine", "-T", 9, "--json"))["schedules"]
    assert [s["T"] for s in found] == [7, 9]  # type: ignore[attr-defined]


def test_no_spec_shows_every_kind(run: Run) -> None:
    found = document(run("schedules", "--json", "-T", 5))["schedules"]
    assert len(found) == sum(entry.takes_no_argument for entry in SCHEDULES)  # type: ignore[arg-type]


def test_schedules_files(run: Run, tmp_path: Path) -> None:
    run("schedules", "linear:T=5", "jsd:T=3", "--coefficients", "-o", "t.csv")
    rows = (tmp_path / "t.csv").read_text().splitlines()
    assert len(rows) == 1 + 6 + 4
    assert rows[0].startswith("spec,t,beta,alpha_bar,log_snr,betas,")
    run("schedules", "linear:T=5", "-o", "t.json")
    assert json.loads((tmp_path / "t.json").read_text())["schedules"][0]["T"] == 5
    run("schedules", "linear:T=5", "-o", "t.png")
    with Image.open(tmp_path / "t.png") as picture:
        assert picture.size[0] > 500
    run("schedules", "linear:T=5", "-o", "t.svg")
    assert "<svg" in (tmp_path / "t.svg").read_text()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t.csv", "t.json", "t.png", "t.svg"]


def test_forward_measures_what_the_law_says(run: Run) -> None:
    found = document(run("forward", "swiss_roll", "--seed", 1, "--panels", 4, "--json"))
    assert found["seed"] == 1
    assert [p["t"] for p in found["panels"]] == [0, 333, 667, 1000]  # type: ignore[attr-defined]
    for panel in found["panels"]:  # type: ignore[attr-defined]
        assert panel["variance"] == pytest.approx(panel["variance_law"], rel=0.05)
    assert document(run("forward", "swiss_roll", "--seed", 1, "--panels", 4, "--json")) == found


def test_a_seed_is_drawn_and_said(run: Run) -> None:
    seeds = {document(run("forward", "moons:n=10", "--json"))["seed"] for _ in range(3)}
    assert len(seeds) == 3
    assert "seed " in run("forward", "moons:n=10").out


@pytest.mark.parametrize("stepwise", [False, True])
def test_forward_frames(run: Run, tmp_path: Path, stepwise: bool) -> None:
    more = ["--stepwise"] if stepwise else []
    run("forward", "moons:n=50", "--schedule", "linear:T=20", "--seed", 2, "-o", "f.npz", *more)
    with np.load(tmp_path / "f.npz") as file:
        frames = dict(file)
    assert sorted(frames) == ["alpha_bar", "t", "x"]
    assert frames["x"].shape == (21, 50, 2)
    assert frames["t"].tolist() == list(range(21))
    s = SCHEDULES.parse("linear:T=20")
    np.testing.assert_array_equal(frames["alpha_bar"], s.alpha_bar.numpy())
    noise = [
        (frames["x"][t] - s.alpha[t].item() * frames["x"][0]) / s.sigma[t].item() for t in (1, 20)
    ]
    # One ε for all t in the closed form; along the chain the noise of x_1 is almost gone by x_20.
    same = np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]
    assert same < 0.5 if stepwise else same > 0.999


@pytest.mark.parametrize("name", ["s.png", "s.svg", "s.pdf", "s.gif", "s.mp4"])
def test_forward_pictures(run: Run, tmp_path: Path, name: str) -> None:
    result = run("forward", "moons:n=200", "--schedule", "karras:T=6", "--panels", 4, "-o", name)
    assert result.code == 0, result.err
    assert (tmp_path / name).stat().st_size > 2000
    assert os.listdir(tmp_path) == [name]


def test_forward_of_pictures(run: Run, tmp_path: Path) -> None:
    found = document(run("forward", "digits", "--panels", 3, "-o", "d.png", "--json"))
    assert found["file"] == "d.png"
    assert found["panels"][-1]["variance"] == pytest.approx(1, abs=0.02)  # type: ignore[index]


def test_a_file_is_standardised_and_says_so(run: Run, tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal([1e8, -3], [1e4, 1e-8], (200, 2))
    np.savetxt(tmp_path / "x.csv", x, delimiter=",", header="mass,charge", comments="")
    result = run("forward", "x.csv", "--seed", 0, "-o", "f.npz", "--json", "-T", 5)
    found = document(result)
    assert "mean 0 and variance 1" in result.err
    scale = found["standardised"]
    assert scale["mean"][0] == pytest.approx(x[:, 0].mean(), rel=1e-14)  # type: ignore[index]
    with np.load(tmp_path / "f.npz") as file:
        frames = dict(file)
    back = frames["mean"] + frames["std"] * frames["x"][0]
    np.testing.assert_allclose(back, x, rtol=1e-6)
    plain = document(run("forward", "x.csv", "--no-standardise", "--json", "-T", 5))
    assert plain["standardised"] is None
    generated = document(run("forward", "moons", "--standardise", "--json", "-T", 5))
    assert generated["panels"][0]["variance"] == pytest.approx(1)  # type: ignore[index]


def test_quiet_prints_nothing(run: Run) -> None:
    assert run("schedules", *POST, "--quiet") == (0, "", "")


# --- drawing with nothing trained


SAMPLE = ["sample", "gaussians", "--exact", "-n", "40", "--seed", "3"]


def test_sample_json_is_the_contract(run: Run) -> None:
    result = run(*SAMPLE, "--sampler", "heun", "--nfe", "8", "-o", "x.npy", "--json")
    found = document(result)
    assert result.err == ""
    assert found["file"] == "x.npy"
    assert (found["n"], found["seed"], found["nfe"], found["steps"]) == (40, 3, 7, 4)
    assert found["sampler"] == "heun:churn=0.0,low=0.0,high=1e+30,inflate=1.0"
    assert found["schedule"] == "linear:T=1000,start=0.0001,end=0.02"
    assert found["seconds"] > 0  # type: ignore[operator]
    assert found["data"] == "gaussians:n=10000,modes=8,std=0.1,seed=0"
    assert (found["target"], found["start"], found["spacing"]) == ("law", "noise", "log_snr")
    assert (found["fit_seconds"], found["standardised"]) == (None, None)
    assert np.load("x.npy").shape == (40, 2)


def test_sample_says_what_it_did(run: Run) -> None:
    said = run(*SAMPLE).out
    for part in ("its exact law", "dpmpp_2m", "log_snr: 20", "N(0, I)", "seed 3"):
        assert part in said
    assert "정확한 분포" in run(*SAMPLE, "--lang", "ko").out
    assert run(*SAMPLE, "--quiet") == (0, "", "")
    copies = run("sample", "checkerboard:n=30", "--exact", "-n", 5)
    assert "its 30 items stand for it: samples are copies" in copies.err


@pytest.mark.parametrize("ending", ["npy", "csv", "npz", "png", "gif"])
def test_the_same_seed_draws_the_same_bytes(run: Run, tmp_path: Path, ending: str) -> None:
    options = ["--sampler", "ddpm", "--steps", "4"]
    for name in ("a", "b"):
        assert run(*SAMPLE, *options, "-o", f"{name}.{ending}").code == 0
    assert run(*SAMPLE[:-1], 4, *options, "-o", f"c.{ending}").code == 0
    a, b, c = ((tmp_path / f"{name}.{ending}").read_bytes() for name in "abc")
    assert (a == b, a == c) == (True, False)


def test_sample_frames(run: Run, tmp_path: Path) -> None:
    run(*SAMPLE, "--steps", 5, "--sampler", "ddim", "--spacing", "trailing", "-o", "x.npz")
    with np.load(tmp_path / "x.npz") as file:
        frames = dict(file)
    assert sorted(frames) == ["alpha_bar", "t", "x", "x_0_hat"]
    assert frames["x"].shape == frames["x_0_hat"].shape == (6, 40, 2)
    assert frames["t"].tolist() == [5, 4, 3, 2, 1, 0]
    every = SCHEDULES.parse("linear").alpha_bar[[1000, 800, 600, 400, 200, 0]]
    np.testing.assert_allclose(frames["alpha_bar"], every.numpy())
    np.testing.assert_array_equal(frames["x_0_hat"][-2], frames["x"][-1])  # where ddim lands
    run(*SAMPLE, "--steps", 5, "--sampler", "ddim", "--spacing", "trailing", "-o", "x.npy")
    np.testing.assert_array_equal(np.load("x.npy"), frames["x"][-1])


@pytest.mark.parametrize("name", ["s.png", "s.svg", "s.pdf", "s.gif", "s.mp4"])
def test_sample_pictures(run: Run, tmp_path: Path, name: str) -> None:
    result = run(*SAMPLE, "--schedule", "karras", "--steps", "4", "-o", name)
    assert result.code == 0, result.err
    assert (tmp_path / name).stat().st_size > 2000
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize(
    ("data", "shape"), [("digits", (1, 8, 8)), ("photo:china,size=12", (3, 8, 12))]
)
def test_sample_of_pictures(run: Run, tmp_path: Path, data: str, shape: tuple[int, ...]) -> None:
    options = ["--exact", "-n", "3", "--steps", "4", "--seed", "0"]
    for name in ("x.npy", "x.png", "x.gif"):
        assert run("sample", data, *options, "-o", name).code == 0
    x = np.load("x.npy")
    assert x.shape == (3, *shape)
    assert np.abs(x).max() < 1.1


def test_a_file_keeps_its_names_and_its_scale(run: Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal([1e8, -3e-8, 5], [1e4, 1e-8, 1], (80, 3))
    np.savetxt(
        "mine.csv", x, delimiter=",", header='질량,"charge, C",$z$', comments="", fmt="%.17g"
    )
    result = run("sample", "mine.csv", "--exact", "-n", 60, "--seed", 0, "-o", "new.csv")
    assert result.code == 0, result.err
    assert "mean 0 and variance 1" in result.err
    assert (tmp_path / "new.csv").read_text().splitlines()[0] == '질량,"charge, C",$z$'
    new = np.loadtxt("new.csv", delimiter=",", skiprows=1)
    # Each is one of the rows, in units of their columns' spread.
    apart = np.abs((new[:, None] - x[None]) / x.std(0)).max(2).min(1)
    assert apart.max() < 0.05
    again = document(
        run("sample", "mine.csv", "--exact", "-n", 60, "--seed", 0, "-o", "n.npy", "--json")
    )
    assert np.load("n.npy").dtype == np.float64
    np.testing.assert_array_equal(np.load("n.npy"), new)  # every digit is in the table
    assert again["standardised"]["mean"][0] == pytest.approx(1e8, rel=1e-3)  # type: ignore[index]


@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_data_of_any_scale(run: Run, scale: float) -> None:
    x = scale * np.random.default_rng(0).normal(size=(60, 2))
    np.save("x.npy", x)

    def apart(*more: object) -> float:
        """How far samples are from the rows, in units of the data's spread."""
        result = run(
            "sample", "x.npy", "--exact", "-n", 50, "--seed", 1, "-o", "y.npy", "--force", *more
        )
        assert result.code == 0, result.err
        y = np.load("y.npy").astype(float)
        assert 0.5 < y.std() / x.std() < 1.5 or "take --standardise" in result.err
        return float(np.linalg.norm(y[:, None] - x[None], axis=2).min(1).max() / scale)

    assert apart() < 0.05
    centre = -2 * np.log(scale)
    fitting = f"log_snr:start={centre + 10:.1f},end={centre - 10:.1f}"
    assert apart("--no-standardise", "--schedule", fitting) < 0.05
    told = run("sample", "x.npy", "--exact", "-n", 5, "--seed", 1, "--no-standardise").err
    assert "take --standardise" in told


@pytest.mark.parametrize("d", [1, 1000])
def test_one_column_and_a_thousand(run: Run, quick: None, d: int) -> None:
    np.save("x.npy", np.random.default_rng(0).normal(size=(30, d)))
    for name in ("y.npy", "y.csv", "y.png"):
        result = run("sample", "x.npy", "--exact", "-n", 20, "--steps", 5, "--seed", 1, "-o", name)
        assert result.code == 0, result.err
    assert np.load("y.npy").shape == (20, d)
    found = document(run("score", "y.csv", "--against", "x.npy", "--json"))
    assert found["metrics"]["sliced_w2"]["ratio"] > 0  # type: ignore[index]
    options = ["--nfe", "3", "--draws", "2", "--samplers", "ddim", "--json"]
    document(run("compare", "x.npy", "--exact", *options))


def test_one_point(run: Run) -> None:
    assert run("sample", "moons:n=1", "--exact", "-n", 5).code == 0
    assert (
        run("sample", "checkerboard:n=1", "--exact", "-n", 5, "--steps", 3, "-o", "x.npy").code == 0
    )
    assert np.unique(np.load("x.npy").round(5), axis=0).shape == (1, 2)


def test_where_it_starts_is_said(run: Run) -> None:
    post = ["sample", "swiss_roll", "--exact", "-n", "9", "--seed", "0", "--schedule", POST[0]]
    result = run(*post, "--json")
    assert document(result)["start"] == "matched"
    assert "starts with the data's mean and covariance" in result.err
    assert "the data show through the noise" in result.err
    assert "--schedule log_snr:start=10.7,end=-9.3" in result.err
    result = run(*post, "--start", "noise", "--json")
    assert document(result)["start"] == "noise"
    assert "samples will be off" in result.err
    result = run(*SAMPLE, "--start", "matched", "--json")
    assert (document(result)["start"], result.err) == ("matched", "")


@pytest.mark.parametrize(
    "options",
    [
        ["--spacing", "fitted"],
        ["--spacing", "curvature", "--sampler", "heun"],
        ["--spacing", "fitted", "--fit-coefficients"],
        ["--spacing", "karras", "--start", "matched"],
        ["--schedule", "flow", "--spacing", "leading"],
    ],
    ids=" ".join,
)
def test_samples_come_again_from_their_levels(run: Run, quick: None, options: list[str]) -> None:
    found = document(run(*SAMPLE, *options, "--steps", 4, "-o", "a.npy", "--json"))
    assert (found["fit_seconds"] is not None) is ("fitted" in options or "curvature" in options)
    again = ["--sampler", found["sampler"], "--schedule", found["levels"], "--spacing", "all"]
    assert run(*SAMPLE, *again, "--start", found["start"], "-o", "b.npy").code == 0
    np.testing.assert_array_equal(np.load("a.npy"), np.load("b.npy"))


def test_compare_json_is_the_contract(run: Run, quick: None) -> None:
    arguments = ["compare", "moons", "--exact", "--samplers", "ddim heun@karras", "--nfe", "3, 6"]
    arguments += ["-n", "300", "--draws", "3", "--seed", "1", "--json"]
    found = document(run(*arguments))
    assert found["data"] == "moons:n=10000,noise=0.05,seed=0"
    assert (found["schedule"], found["spacing"]) == (
        "linear:T=1000,start=0.0001,end=0.02",
        "log_snr",
    )
    assert (found["reference"], found["target"], found["n"]) == ("fresh points", "law", 300)
    rows: list[dict[str, object]] = found["compared"]  # type: ignore[assignment]
    assert [(r["spacing"], r["nfe"], r["steps"]) for r in rows] == [
        ("log_snr", 3, 3),
        ("log_snr", 6, 6),
        ("karras", 3, 2),
        ("karras", 5, 3),
    ]
    for row in rows:
        assert row["floor"] == found["floor"]
        assert row["ratio"] == pytest.approx(row["value"] / row["floor"])  # type: ignore[operator]
        assert row["standard_error"] > 0  # type: ignore[operator]
        assert row["draws"] == 3
        del row["seconds"]
    again: list[dict[str, object]] = document(run(*arguments))["compared"]  # type: ignore[assignment]
    assert [{k: v for k, v in r.items() if k != "seconds"} for r in again] == rows


def test_compare_files(run: Run, quick: None, tmp_path: Path) -> None:
    arguments = [
        "compare",
        "gaussians",
        "--exact",
        "--sampler",
        "ddim",
        "--sampler",
        "mixes@fitted",
    ]
    arguments += ["--nfe", "3", "--nfe", "4", "-n", "100", "--draws", "1", "--seed", "1"]
    for name in ("c.png", "c.svg", "c.pdf", "c.csv", "c.json"):
        result = run(*arguments, "-o", name)
        assert result.code == 0, result.err
        assert (tmp_path / name).stat().st_size > 500
    rows = (tmp_path / "c.csv").read_text().splitlines()
    assert len(rows) == 5
    assert rows[0].startswith("sampler,spacing,nfe,steps,value,floor,ratio,standard_error,draws,")
    saved = json.loads((tmp_path / "c.json").read_text())
    assert [r["fit_seconds"] is None for r in saved["compared"]] == [True, True, False, False]
    assert "true sets of 100 points" in result.out


def test_compare_of_a_file_holds_half_out(run: Run, quick: None) -> None:
    np.save("x.npy", np.random.default_rng(0).normal(size=(41, 2)))
    options = ["--exact", "--nfe", "8", "--draws", "2", "--samplers", "dpmpp_2m", "--seed", "0"]
    result = run("compare", "x.npy", *options, "--json")
    found = document(result)
    assert (found["n"], found["reference"]) == (21, "the held-out half of the file")
    assert "its 21 items stand for it" in result.err
    assert "held-out half" in run("compare", "x.npy", *options).out


def test_score_json_is_the_contract(run: Run, quick: None) -> None:
    assert run("sample", "moons", "--exact", "-n", 500, "--seed", 0, "-o", "x.csv").code == 0
    found = document(run("score", "x.csv", "--against", "moons", "--json"))
    assert list(found["metrics"]["sliced_w2"]) == ["value", "floor", "ratio", "draws"]  # type: ignore[index,call-overload]
    assert found["metrics"]["sliced_w2"]["ratio"] < 2.5  # type: ignore[index]
    assert (found["file"], found["n"], found["copies"]) == ("x.csv", 500, 0)
    assert (found["against"], found["reference"]) == (
        "moons:n=10000,noise=0.05,seed=0",
        "fresh points",
    )
    far = document(run("score", "x.csv", "--against", "swiss_roll", "--json"))
    assert far["metrics"]["sliced_w2"]["ratio"] > 5  # type: ignore[index]
    assert "distance / floor" in run("score", "x.csv", "--against", "moons").out


def test_a_file_against_itself_is_explained(run: Run, quick: None) -> None:
    np.savetxt("x.csv", np.random.default_rng(0).normal(size=(50, 2)), delimiter=",")
    result = run("score", "x.csv", "--against", "x.csv", "--json")
    assert "50 of the 50 rows are rows of x.csv themselves" in result.err
    found = document(result)
    assert (found["reference"], found["copies"]) == ("the rows of the file", 50)
    assert found["metrics"]["sliced_w2"]["ratio"] == pytest.approx(0, abs=1e-6)  # type: ignore[index]


def test_score_weighs_columns_alike(run: Run, quick: None) -> None:
    """A column a thousand times as large must not hide that the other is wrong."""
    rng = np.random.default_rng(0)
    np.save("x.npy", rng.normal(size=(300, 2)) * [1000, 1])
    np.save("y.npy", rng.normal(size=(300, 2)) * [1000, 1] + [0, 5])
    ratio = [
        document(run("score", "y.npy", "--against", "x.npy", "--json", *more))["metrics"][
            "sliced_w2"
        ]["ratio"]  # type: ignore[index]
        for more in ([], ["--no-standardise"])
    ]
    assert ratio[0] > 10
    assert ratio[1] < 3


def test_sampling_that_fails_leaves_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("alphabar.cli._write_npy", full)
    result = run(*SAMPLE, "-o", "x.npy")
    assert (result.code, os.listdir(tmp_path)) == (2, [])


def test_sample_in_a_process_of_its_own(run: Run, tmp_path: Path) -> None:
    with alphabar(*SAMPLE, "-o", "x.csv", cwd=tmp_path) as process:
        out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    assert "written: x.csv" in out
    assert (tmp_path / "x.csv").read_text().count("\n") == 41
    refused = "alphabar: -n = 0: it must be a whole number from 1 to 100000000\n"
    assert run("sample", "moons", "--exact", "-n", 0) == (2, "", refused)


# --- what it refuses: one line, exit code 2, nothing written


def files(folder: Path) -> None:
    """A folder of things that can go wrong."""
    (folder / "empty.csv").write_text("")
    (folder / "header.csv").write_text("a,b\n")
    (folder / "text.csv").write_text("a,b\n1,2\n3,four\n")
    (folder / "nan.csv").write_text("a,b\n1,2\nnan,3\n4,5\n")
    (folder / "one.csv").write_text("a,b\n1,2\n")
    (folder / "ragged.csv").write_text("a,b\n1,2\n3\n")
    (folder / "constant.csv").write_text("a,b\n1,2\n1,3\n")
    (folder / "good.csv").write_text("a,b\n1,2\n2,3\n")
    (folder / "swapped.csv").write_text("b,a\n2,1\n3,2\n")
    (folder / "equal.csv").write_text("a,b\n1,2\n1,2\n")
    (folder / "wide.csv").write_text("a,b,c\n1,2,3\n2,3,5\n")
    np.save(folder / "cube.npy", np.zeros((2, 4, 5, 6)))
    (folder / "broken.npy").write_bytes(b"not numpy")
    Image.new("L", (8, 8), 255).save(folder / "white.png")
    (folder / "folder.csv").mkdir()
    (folder / "here.png").write_text("mine")
    (folder / "full").mkdir()
    (folder / "full" / "mine.txt").write_text("mine")


# Wrong wherever data are named.
_BAD_DATA = [
    (["swiss_rol"], "did you mean swiss_roll"),
    (["swiss_roll:n=0"], "n = 0"),
    (["swiss_roll:noise=nan"], "noise = nan"),
    (["moons:sides=3"], "no parameter 'sides'"),
    (["empty.csv"], "empty.csv"),
    (["header.csv"], "header.csv"),
    (["text.csv"], "four"),
    (["nan.csv"], "NaN"),
    (["one.csv"], "one.csv"),
    (["ragged.csv"], "line 3"),
    (["cube.npy"], "(2, 4, 5, 6)"),
    (["broken.npy"], "broken.npy"),
    (["missing.csv"], "missing.csv"),
    (["folder.csv"], "folder.csv"),
]
# Wrong wherever samples are drawn.
_DRAWN = [
    *_BAD_DATA,
    (["moons", "--sampler", "heum"], "did you mean heun"),
    (["moons", "--sampler", "ddim:eta=2"], "eta = 2"),
    (["moons", "--sampler", "ddim:eta"], "'eta' has no value"),
    (["moons", "--sampler", "ddim:eta=0,eta=1"], "eta is given twice"),
    (["moons", "--sampler", "pc:corrections=-1"], "corrections = -1"),
    (["moons", "--schedule", "linaer"], "did you mean linear"),
    (["moons", "-T", "0"], "T = 0"),
    (["moons", "--spacing", "even"], "--spacing even: choose"),
    (
        ["moons", "--spacing", "trailing", "--nfe", "8", "-T", "5"],
        "n = 8 levels cannot be selected",
    ),
    (["moons", "--spacing", "leading", "--nfe", "8", "-T", "5"], "n = 8 levels cannot be selected"),
    (
        ["moons", "--spacing", "linspace", "--nfe", "8", "-T", "5"],
        "n = 8 levels cannot be selected",
    ),
    (["moons", "--nfe", "8", "-T", "1"], "n = 8 levels cannot be spaced"),
    (["moons", "--start", "zero"], "--start zero: choose"),
    (["moons", "--start", "noise", "--spacing", "fitted"], "leave --start out"),
    (["moons", "--standardise"], "in its own units alone"),
    (["digits", "--standardise"], "holds pictures"),
    (["moons", "-n", "0"], "-n = 0"),
    (["moons", "-n", "ten"], "ten is not a whole number"),
    (["moons", "--seed", "-1"], "seed = -1"),
    (["moons", "--lang", "fr"], "choose en or ko"),
    (["moons", "-o", "missing/out.png"], "there is no folder"),
    (["moons", "-o", "here.png"], "add --force"),
    (["moons", "-o", "folder.csv"], "this is a folder"),
]
BAD = [
    (["schedules", "linear:T=0"], "T = 0"),
    (["schedules", "linear:T=-1"], "T = -1"),
    (["schedules", "linear:T=1.5"], "T = 1.5"),
    (["schedules", "linear", "-T", "1000001"], "T = 1000001"),
    (["schedules", "linear", "-T", "ten"], "ten"),
    (["schedules", "constant:beta=0"], "beta = 0"),
    (["schedules", "constant:beta=1.5"], "beta = 1.5"),
    (["schedules", "constant:beta=nan"], "beta = nan"),
    (["schedules", "from_betas:betas=0.1-0-0.1"], "beta[2] = 0"),
    (["schedules", "from_alpha_bar:alpha_bar=0.9-0.8-0.85"], "alpha_bar[3]"),
    (["schedules", "from_alpha_bar:alpha_bar=0.9-0.9"], "alpha_bar[2]"),
    (["schedules", "linaer"], "did you mean linear"),
    (["schedules", "linear:Tee=3"], "no parameter 'Tee'"),
    (["schedules", "linear:T"], "'T' has no value or key"),
    (["schedules", "linear:T=3,T=4"], "T is given twice"),
    (["schedules", "linear", "--lang", "fr"], "choose en or ko"),
    (["schedules", "linear", "-o", "out.txt"], "must end in .png"),
    (["schedules", "linear", "-o", "missing/out.png"], "there is no folder"),
    (["schedules", "linear", "-o", "here.png"], "add --force"),
    (["schedules", "linear", "-o", "folder.csv"], "this is a folder"),
    (["schedules", "--bogus"], "--bogus"),
    (["bogus"], "bogus"),
    (["forward"], "DATA"),
    (["forward", "swiss_rol"], "did you mean swiss_roll"),
    (["forward", "swiss_roll:n=0"], "n = 0"),
    (["forward", "swiss_roll", "--panels", "1"], "--panels 1"),
    (["forward", "swiss_roll", "-T", "5", "--panels", "7"], "--panels 7"),
    (["forward", "swiss_roll", "--seed", "-1"], "seed = -1"),
    (["forward", "swiss_roll", "-T", "1000000", "--schedule", "jsd", "-o", "x.npz"], "GiB"),
    (["forward", "empty.csv"], "empty.csv"),
    (["forward", "header.csv"], "header.csv"),
    (["forward", "text.csv"], "four"),
    (["forward", "nan.csv"], "NaN"),
    (["forward", "one.csv"], "one.csv"),
    (["forward", "ragged.csv"], "line 3"),
    (["forward", "constant.csv"], "'a'"),
    (["forward", "cube.npy"], "(2, 4, 5, 6)"),
    (["forward", "broken.npy"], "broken.npy"),
    (["forward", "missing.csv"], "missing.csv"),
    (["forward", "missing.png"], "missing.png"),
    (["forward", "folder.csv"], "folder.csv"),
    (["forward", "image:white.png"], "white.png"),
    (["forward", "photo:cat"], "china"),
    (["forward", "text:   "], "text"),
    (["forward", "digits", "--standardise"], "holds pictures"),
    *((["sample", *bad, "--exact"], message) for bad, message in _DRAWN),
    *((["compare", *bad, "--exact"], message) for bad, message in _DRAWN),
    *((["score", *bad, "--against", "moons"], message) for bad, message in _BAD_DATA),
    *((["score", "good.csv", "--against", *bad], message) for bad, message in _BAD_DATA),
    (["sample", "moons"], "add --exact"),
    (["compare", "moons"], "add --exact"),
    (["sample", "nope"], "there is no such run, nor such data"),
    (["sample", "full"], "full holds no config.json"),
    (["compare", "full"], "full holds no config.json"),
    (["sample", "moons", "--exact", "--label", "1"], "trained with --classes"),
    (["sample", "moons", "--exact", "--guidance", "2"], "trained with --classes"),
    (["sample"], "DATA"),
    (["score", "good.csv"], "--against"),
    (["score", "--against", "moons"], "FILE"),
    (["sample", "constant.csv", "--exact"], "'a'"),
    (["score", "good.csv", "--against", "constant.csv"], "'a'"),
    (
        ["score", "good.csv", "--against", "equal.csv", "--no-standardise"],
        "are 0 from one another, so there is no distance",
    ),
    (["score", "good.csv", "--against", "wide.csv"], "2 columns against 3"),
    (["score", "good.csv", "--against", "swapped.csv"], "the same order"),
    (["score", "digits", "--against", "moons"], "holds pictures"),
    (["score", "good.csv", "--against", "digits"], "holds pictures"),
    (["score", "moons:n=1", "--against", "moons"], "two or more"),
    (["compare", "digits", "--exact"], "holds pictures"),
    (["compare", "good.csv", "--exact"], "2 rows: half of a file"),
    (["sample", "moons", "--exact", "--steps", "0"], "--steps = 0"),
    (["sample", "moons", "--exact", "--steps", "-3"], "--steps = -3"),
    (["sample", "moons", "--exact", "--steps", "1.5"], "1.5"),
    (["sample", "moons", "--exact", "--nfe", "0"], "--nfe = 0"),
    (["sample", "moons", "--exact", "--steps", "5", "--nfe", "5"], "give one"),
    (["sample", "moons", "--exact", "--nfe", "5", "--sampler", "adaptive"], "give --steps"),
    (["sample", "moons", "--exact", "--nfe", "5", "--sampler", "langevin"], "6 calls at least"),
    (["sample", "moons", "--exact", "--steps", "9", "--spacing", "all"], "leave out --steps"),
    (["sample", "moons", "--exact", "--sampler", "mixes"], "mixes needs a"),
    (["sample", "moons", "--exact", "--spacing", "fitted", "--sampler", "ddpm"], "without noise"),
    (["sample", "moons", "--exact", "--spacing", "curvature", "--sampler", "adaptive"], "dpmpp_2m"),
    (["sample", "moons", "--exact", "--fit-coefficients"], "add --spacing fitted"),
    (
        ["sample", "moons", "--exact", "--fit-coefficients", "--sampler", "ddim"],
        "leave one of the two out",
    ),
    (["sample", "digits", "--exact", "-o", "x.csv"], "holds pictures"),
    (["sample", "moons", "--exact", "-o", "x.txt"], "must end in .npy"),
    (["compare", "moons", "--exact", "-o", "x.gif"], "must end in .png"),
    (["sample", "moons", "--exact", "-n", "1000000000"], "-n = 1000000000"),
    (["sample", "digits", "--exact", "-n", "100000000"], "GiB"),
    (["sample", "moons", "--exact", "-n", "10000000", "--steps", "999", "-o", "x.npz"], "GiB"),
    (["compare", "moons", "--exact", "--nfe", ""], "one number of calls"),
    (["compare", "moons", "--exact", "--nfe", "5,x"], "x is not a whole number"),
    (["compare", "moons", "--exact", "--nfe", "5,0"], "--nfe = 0"),
    (["compare", "moons", "--exact", "--samplers", " "], "name one at least"),
    (["compare", "moons", "--exact", "--samplers", "ddim hein"], "did you mean heun"),
    (["compare", "moons", "--exact", "--samplers", "heun@linaer"], "--spacing linaer"),
    (["compare", "moons", "--exact", "--samplers", "adaptive"], "as its tolerance needs"),
    (["compare", "moons", "--exact", "--draws", "0"], "--draws = 0"),
    (["compare", "moons", "--exact", "-n", "1"], "-n = 1"),
    (["study", "digits", "-o", "s"], "holds pictures"),
    (["study", "good.csv", "-o", "s"], "needs 4 or more"),
    (["study", "-o", "full"], "not empty"),
    (["study", "-o", "here.png"], "this is a file"),
    (["study", "-o", "a/b"], "there is no folder"),
    (["study", "-o", "s", "--steps", "0"], "--steps = 0"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[" ".join(a) for a, _ in BAD])
def test_refused(run: Run, tmp_path: Path, arguments: list[str], message: str) -> None:
    files(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    result = run(*arguments)
    assert result.code == 2
    assert result.out == ""
    told = (
        "variance 1 first",
        "never reaches noise",
        "ᾱ_T = 0",
        "is not known, so",
    )  # said before, and not wrong
    lines = [line for line in result.err.splitlines() if not any(t in line for t in told)]
    assert len(lines) == 1, result.err
    assert lines[0].startswith("alphabar: ")
    assert message in lines[0]
    assert "fault of alphabar" not in lines[0]
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "here.png").read_text() == "mine"


def test_a_terminal_that_cannot_write_greek() -> None:
    with alphabar(
        "schedules", "linear:T=5", "--json", env={**os.environ, "PYTHONIOENCODING": "ascii"}
    ) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "ᾱ" in json.loads(out)["schedules"][0]["warnings"][0]["message"]
    with alphabar(
        "schedules", "linear:T=5", env={**os.environ, "PYTHONIOENCODING": "ascii"}
    ) as process:
        assert process.wait(60) == 0


def test_standard_output_that_is_closed_from_the_start() -> None:
    done = subprocess.run(
        f"{sys.executable} -m alphabar.cli data >&-", shell=True, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr == "alphabar: standard output was closed before all was written\n"


def test_a_picture_follows_the_law_too(run: Run) -> None:
    for spec in ("photo:china,size=64", "moons:n=1"):
        found = document(run("forward", spec, "--panels", 3, "--seed", 0, "--json"))
        assert [p["variance_law"] for p in found["panels"]][-1] == pytest.approx(1, abs=1e-3)  # type: ignore[attr-defined]
    photo = document(run("forward", "photo:china,size=64", "--seed", 0, "--json"))
    for panel in photo["panels"]:  # type: ignore[attr-defined]
        assert panel["variance"] == pytest.approx(panel["variance_law"], rel=0.05)


def test_a_lopsided_table_is_refused() -> None:
    """In a process of its own: here the shapes are checked before the code that says it well."""
    with alphabar("schedules", "table:alpha=1-0.5,sigma=0-0.5-1") as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert err.startswith("alphabar: alpha has 2 levels and sigma 3")


def test_json_prints_nothing_on_errors(run: Run) -> None:
    result = run("schedules", "linaer", "--json")
    assert (result.code, result.out) == (2, "")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_read_permission(run: Run, tmp_path: Path) -> None:
    secret = tmp_path / "x.csv"
    secret.write_text("1,2\n3,4\n")
    secret.chmod(0)
    result = run("forward", "x.csv")
    assert result.code == 2
    assert "x.csv" in result.err


def test_force_replaces(run: Run, tmp_path: Path) -> None:
    files(tmp_path)
    assert run("schedules", "linear:T=5", "-o", "here.png", "--force").code == 0
    with Image.open(tmp_path / "here.png") as picture:
        assert picture.format == "PNG"


def test_a_failure_while_writing_leaves_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("alphabar.cli._write_frames", full)
    result = run("forward", "moons:n=9", "-T", 5, "-o", "f.npz")
    assert (result.code, os.listdir(tmp_path)) == (2, [])
    assert "No space left" in result.err


def test_our_own_faults_say_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyError("oops")

    monkeypatch.setattr("alphabar.cli.parse_schedule", broken)
    result = run("schedules", "linear")
    assert result.code == 2
    assert "KeyError: 'oops'; this is a fault of alphabar (--debug shows where)" in result.err
    shown = run("schedules", "linear", "--debug")
    assert shown.code == 2
    assert "Traceback" in shown.err


# --- signals and pipes


def test_a_closed_pipe_is_one_line() -> None:
    process = alphabar("schedules", "log_snr:T=100000", "--json")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(10)
    process.stdout.close()
    assert process.wait(60) == 2
    assert process.stderr.read() == "alphabar: standard output was closed before all was written\n"
    process.stderr.close()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_leave_no_half_file(tmp_path: Path, number: int, code: int) -> None:
    process = alphabar(
        "forward", "swiss_roll", "--panels", "900", "-o", str(tmp_path / "f.gif"), cwd=tmp_path
    )
    for _ in range(600):  # until the film has begun, so that there is a half file to leave
        if os.listdir(tmp_path):
            break
        time.sleep(0.1)
    assert [name[0] for name in os.listdir(tmp_path)] == ["."]
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in err
    assert os.listdir(tmp_path) == []
