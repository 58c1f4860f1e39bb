"""The command line as a person meets it: output, exit codes, errors, nothing left behind."""

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from alphabar import cli
from alphabar.schedule import SCHEDULES

POST = ["linear:T=100,start=1e-5,end=1e-2", "quad:T=100,start=1e-5,end=1e-2"]


class Result(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["alphabar", *map(str, arguments)])
        monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # main changes it
        before = signal.getsignal(signal.SIGTERM)
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        signal.signal(signal.SIGTERM, before)
        out, err = capsys.readouterr()
        assert isinstance(stopped.value.code, int)
        return Result(stopped.value.code, out, err)

    return call


def document(result: Result) -> dict[str, object]:
    assert result.code == 0, result.err
    found: dict[str, object] = json.loads(
        result.out, parse_constant=lambda c: pytest.fail(f"{c} is not JSON")
    )
    return found


def alphabar(*arguments: str, **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "alphabar.cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,  # type: ignore[call-overload]
    )


# --- what it prints


def test_help_needs_no_torch() -> None:
    code = (
        "import sys; sys.argv = ['alphabar', '--help']\n"
        "import alphabar\nfrom alphabar import cli\n"
        "try: cli.main()\nexcept SystemExit as e: assert e.code == 0\n"
        "assert not {'torch', 'numpy', 'matplotlib'} & set(sys.modules), 'too much was imported'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for command in ("data", "schedules", "forward", "study"):
        assert command in done.stdout


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
    np.save(folder / "cube.npy", np.zeros((2, 3, 4)))
    (folder / "broken.npy").write_bytes(b"not numpy")
    Image.new("L", (8, 8), 255).save(folder / "white.png")
    (folder / "folder.csv").mkdir()
    (folder / "here.png").write_text("mine")
    (folder / "full").mkdir()
    (folder / "full" / "mine.txt").write_text("mine")


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
    (["forward", "cube.npy"], "(2, 3, 4)"),
    (["forward", "broken.npy"], "broken.npy"),
    (["forward", "missing.csv"], "missing.csv"),
    (["forward", "missing.png"], "missing.png"),
    (["forward", "folder.csv"], "folder.csv"),
    (["forward", "image:white.png"], "white.png"),
    (["forward", "photo:cat"], "china"),
    (["forward", "text:   "], "text"),
    (["forward", "digits", "--standardise"], "holds pictures"),
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
    told = ("variance 1 first", "never reaches noise", "ᾱ_T = 0")  # said before, and not wrong
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

    monkeypatch.setattr("alphabar.cli._schedule", broken)
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
