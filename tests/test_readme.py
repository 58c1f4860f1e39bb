"""What the README, CONTRIBUTING and the report tell people to type, typed."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

import alphabar.schedule
from alphabar import cli
from alphabar.config import configure
from alphabar.data import load
from alphabar.report import CODE
from alphabar.runs import begin
from alphabar.schedule import SCHEDULES

ROOT = Path(__file__).parent.parent


def blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / name).read_text("utf-8"), re.DOTALL)


@pytest.mark.parametrize("code", [*blocks("README.md", "python"), CODE])
def test_the_library_in_15_lines(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line for line in code.splitlines() if line.strip() and not line.startswith("#")]
    assert len(lines) <= 15
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out


def commands() -> list[str]:
    listed = next(b for b in blocks("README.md", "sh") if b.startswith("alphabar data"))
    lines = listed.splitlines()
    assert len(lines) <= 14
    return [line.split("#")[0].strip() for line in lines]


def arguments_after(command: str, option: str) -> str | None:
    words = shlex.split(command)
    return words[words.index(option) + 1] if option in words else None


@pytest.mark.parametrize("command", [c for c in commands() if " study " not in c])
def test_the_command_line_in_14(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: None
) -> None:
    from alphabar.fonts import find_font

    if "한글" in command and find_font("한글") is None:
        pytest.skip("no font on this machine has Hangul")
    monkeypatch.chdir(tmp_path)
    for name in ("mine.csv", "new.csv"):
        if name != arguments_after(command, "-o"):
            x = np.random.default_rng(len(name)).normal(size=(50, 3))
            np.savetxt(name, x, delimiter=",")
    arguments = shlex.split(command)
    if arguments[1] == "train":  # the same, only shorter
        arguments[arguments.index("--seconds") + 1] = "0.2"
    elif "roll" in arguments:
        config, lessons = configure(load("swiss_roll:n=100"), None, 0, 9, schedule="linear:T=20")
        with begin(Path("roll"), config, lessons) as training:
            list(training.steps())
    if arguments[1] in ("evaluate", "decompose"):
        arguments += ["-n", "100", "--draws", "2"]
    if Path(arguments[-1]).suffix in (".gif", ".mp4"):
        arguments += ["--panels", "4"]  # the film is the same, only shorter
    if arguments[1] == "compare":  # the same, with fewer points
        arguments += ["-n", "100", "--draws", "2", "--nfe", "5"]
    monkeypatch.setattr("sys.argv", arguments)
    monkeypatch.setattr("warnings.showwarning", None)
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 0
    if "-o" in arguments:
        assert Path(arguments[arguments.index("-o") + 1]).stat().st_size > 0


def test_the_new_schedule_of_contributing_works() -> None:
    (code,) = blocks("CONTRIBUTING.md", "python")
    try:
        exec(code, vars(alphabar.schedule))
        assert SCHEDULES.parse("cubic:T=50").spec == "cubic:T=50,end=0.02"
    finally:
        SCHEDULES._entries.pop("cubic", None)
        vars(alphabar.schedule).pop("cubic", None)


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_what_is_linked_is_there(name: str) -> None:
    text = (ROOT / name).read_text("utf-8")
    paths = re.findall(r'(?:src|srcset)="([^"]+)"|\]\((?!http)([^)#]+)\)', text)
    for path in {a or b for a, b in paths}:
        assert (ROOT / path).is_file(), path


def test_the_makefile_has_the_targets() -> None:
    text = (ROOT / "Makefile").read_text()
    for target in ("study", "test", "lint", "bench", "prove"):
        assert re.search(rf"^{target}:", text, re.MULTILINE)
