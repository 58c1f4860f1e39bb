"""`alphabar check FILE` as a person meets it: whatever the file does, a verdict or a reason."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from alphabar.check import Finding, Report
from alphabar.check.child import Failed, needs_gpu, perform, reason, run_parts
from alphabar.check.command import ROLES, Outcome, examine, pair, role
from alphabar.check.discover import Asked, Task
from alphabar.check.report import Diagnosis
from alphabar.check.source import read
from command_line import Run, document

HEAD = """
import os, sys, time
import numpy as np
import torch
betas = torch.linspace(1e-4, 0.02, 1000)
bars = torch.cumprod(1 - betas, 0)
def mixed(x, t, noise):
    a = bars[t].reshape(-1, 1)
    return a.sqrt() * x + (1 - a).sqrt() * noise
"""
Q_SAMPLE = """
def q_sample(x, t, noise=None):
    return mixed(x, t, torch.randn_like(x) if noise is None else noise)
"""

# What a function may do, as the body of q_sample(x, t), and what is said of it.
BAD: Mapping[str, tuple[str, str, str]] = {
    "raises": ("raise KeyError('boom')", "unchecked", "KeyError: 'boom'"),
    "hangs": (
        "while True: time.sleep(0.01)",
        "unchecked",
        "it took longer than 2 s: give it less to do, or more time with --limit",
    ),
    "hangs_on": (
        "while True:\n            try: time.sleep(9)\n            except: pass",
        "unchecked",
        "it took longer than 2 s",
    ),
    "prints": ("print('noisy'); return mixed(x, t, torch.randn_like(x))", "right", ""),
    "numpy": ("return mixed(x, t, torch.randn_like(x)).numpy()", "right", ""),
    "with_noise": ("z = torch.randn_like(x); return mixed(x, t, z), z", "right", ""),
    "shape": ("return x.sum()", "unchecked", "gave nothing of shape"),
    "nan": ("return x * float('nan')", "bug", ""),
    "in_place": (
        "x.copy_(mixed(x, t, torch.randn_like(x))); return x",
        "fragile",
        "work on a copy",
    ),
    "constant": ("return torch.ones_like(x)", "bug", ""),
    "own_rng": (
        "z = np.random.normal(size=tuple(x.shape))\n"
        "        return mixed(x, t, torch.as_tensor(z).float())",
        "right",
        "",
    ),
    "fixed_seed": ("torch.manual_seed(0); return mixed(x, t, torch.randn_like(x))", "bug", ""),
    "gpu": ("return x.cuda()", "unchecked", "it needs a GPU, and check runs on the CPU"),
    "asks": ("input('?')", "unchecked", "EOF"),
    "exits": ("sys.exit(0)", "unchecked", "it ends Python (sys.exit)"),
    "ends": ("os._exit(3)", "unchecked", "it ended Python (with exit code 3)"),
    "memory": ("return torch.zeros(10**12)", "unchecked", "can't allocate memory"),
    "writes": ("open('beside.txt', 'w')", "unchecked", "nothing be written beside your file"),
    "last": ("return mixed(x, t, torch.randn_like(x))", "right", ""),
}
TAIL = """
class Needy:
    def q_sample(self, x, t, one, two, three, four): return x
def p_sample(x_t, t, riddle, other, more, most, last): return x_t
print("hello"); os.write(1, b"raw")
import not_there_at_all
open("beside.txt", "w").write("x")
torch.save(bars, "beside.pt")
os.makedirs("out/deep", exist_ok=True)
open(os.path.join(os.environ["TMPDIR"], "elsewhere"), "w").write("x")
if __name__ == "__main__":
    1 / 0
while True: time.sleep(0.01)
after = 1
def q_posterior(a): raise after
"""


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, Path]:
    """One file with all of it: what one function does, the others do not suffer."""
    path = tmp_path_factory.mktemp("bad") / "bad.py"
    classes = [
        f"class {k}:\n    def q_sample(self, x, t):\n        {v[0]}\n" for k, v in BAD.items()
    ]
    path.write_text(HEAD + "".join(classes) + TAIL, encoding="utf-8")
    return examine(path, Asked(), limit=2), path


@pytest.mark.parametrize("name", BAD)
def test_whatever_a_function_does(bad: tuple[Outcome, Path], name: str) -> None:
    (found,) = (f for f in bad[0].findings if f.name == f"{name}.q_sample")
    _, verdict, why = BAD[name]
    assert found.verdict == verdict, found
    assert why in found.why


def test_arguments_that_were_not_given(bad: tuple[Outcome, Path]) -> None:
    found = {f.name: f for f in bad[0].findings}
    assert "four" in found["Needy.q_sample"].why
    assert "--given NAME=EXPR" in found["Needy.q_sample"].why
    assert found["p_sample"].verdict == "unchecked"


def test_a_file_that_does_not_run_through(bad: tuple[Outcome, Path]) -> None:
    """What fails is named by its line, what trains is stopped, what is below is still defined."""
    outcome, path = bad
    said = [f.why for f in outcome.findings if f.role == "file"]
    assert all(f.verdict == "unchecked" for f in outcome.findings if f.role == "file")
    assert len(said) == 2
    assert said[0].endswith(
        "there is no module not_there_at_all here: install it (pip install not_there_at_all)"
    )
    line = 1 + path.read_text("utf-8").splitlines().index("while True: time.sleep(0.01)")
    assert said[1] == (
        f"line {line}: importing bad.py took longer than 2 s: move what runs into "
        "`if __name__ == '__main__':`"
    )
    assert "q_posterior" in [f.name for f in outcome.findings]


def test_nothing_is_written_beside_the_file(bad: tuple[Outcome, Path]) -> None:
    outcome, path = bad
    assert [p.name for p in path.parent.iterdir()] == ["bad.py"]
    assert [n.split("your file ")[1] for n in outcome.notes] == [
        "(beside.txt); the rest was run",
        "(beside.pt); the rest was run",
        "(out); the rest was run",
    ]


# --- the command


def test_right_code_in_a_package_and_the_contract(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "tables.py").write_text(HEAD)
    (folder / "random.py").write_text("1 / 0")  # not what the standard library means
    (folder / "ends.txt").write_text("3")
    (folder / "code.py").write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "from .tables import *\n"
        "assert open('ends.txt').read() == '3'\n"
        "print('{')\n"
        "@dataclass\nclass D:\n    x: int = 3\n" + Q_SAMPLE + "def w(a, b): return a + b\n"
        "def u(a, b, c=None):\n    return q_sample(a, b, c)\n"
    )
    result = run("check", "mine/code.py", "--json")
    found = document(result)
    assert result.err == ""
    assert list(found) == ["verdict", "functions", "notes"]
    assert found["verdict"] in ("right", "equivalent")
    named = {f["name"]: f for f in found["functions"]}
    assert list(named) == ["betas", "q_sample", "u"]
    assert named["u"]["role"] == "marginal"  # by what it does
    assert {*named["u"]} >= {
        *("name", "role", "verdict", "law", "measured", "expected", "diagnoses", "convention"),
        "seconds",
    }
    assert Report.from_dict(found).to_dict() == {k: found[k] for k in ("verdict", "functions")}
    assert "β_t: betas, T = 1000" in named["u"]["convention"]
    assert sorted(p.name for p in folder.iterdir()) == [
        *("__init__.py", "code.py", "ends.txt", "random.py", "tables.py")
    ]


def test_a_bug_a_guess_and_a_notebook(run: Run, tmp_path: Path) -> None:
    cells = [
        "%matplotlib inline\n!pip install x\n" + HEAD,
        "this is no Python",
        "1 / 0\n",
        "%%bash\nexit 3",
        "%%time\nbeta_of = [\n",
        "def forward_step(x, t):\n"
        "    beta = betas[t][:, None]\n"
        "    return (1 - beta).sqrt() * x + beta * torch.randn_like(x)",
        "def perhaps(x, t):\n"
        "    return bars[t][:, None] * x + (1 - bars[t])[:, None] * torch.randn_like(x)",
    ]
    sources = [{"cell_type": "code", "source": c} for c in cells]
    sources.append({"cell_type": "markdown", "source": "words"})
    (tmp_path / "n.ipynb").write_text(json.dumps({"cells": sources, "metadata": {}}))
    result = run("check", "n.ipynb", "--json", "--as", "transition=forward_step", "--lang", "ko")
    assert result.code == 1
    found = json.loads(result.out)
    named = {f["name"]: f for f in found["functions"]}
    assert named["forward_step"]["verdict"] == "bug"
    assert named["forward_step"]["diagnoses"][0]["id"] == "A2"
    assert named["perhaps"]["verdict"] == "unchecked"  # a bug is never only guessed at
    assert "--as marginal=perhaps" in named["perhaps"]["why"]
    assert [n.split(" (")[0] for n in found["notes"]] == [
        "cell 1: lines of % and ! are left out",
        "cell 2, line 1: this is not Python",
        "cell 4: lines of % and ! are left out",
        "cell 5: lines of % and ! are left out",
        "cell 5, line 2: this is not Python",
        "cell 3, line 1: ZeroDivisionError: division by zero; the rest was run",
    ]
    assert all(n in result.err for n in found["notes"])


REFUSED: list[tuple[list[str], str]] = [
    (["no.py"], "no.py: there is no such file"),
    (["data.csv"], "data.csv is not Python: give a module (.py) or a notebook (.ipynb)"),
    (["folder.py"], "folder.py is not Python"),
    (["broken.py"], "broken.py, line 2: this is not Python (invalid syntax)"),
    (["zero.py"], "zero.py: this is not Python ("),  # of no line
    (["r.ipynb"], "r.ipynb is a notebook of R"),
    (["old.ipynb"], "old.ipynb is not a notebook of format 4"),
    (["fine.py", "--as", "marginl=f"], "there is no role marginl; did you mean marginal?"),
    (["fine.py", "--as", "marginal"], "write NAME=EXPR"),
    (["fine.py", "--given", "=3"], "write NAME=EXPR, such as --given gamma=5.0"),
    (["fine.py", "--predicts", "noise"], "--predicts noise: choose eps, x_0, v, score, flow"),
    (["fine.py", "--scale", "edm"], "--scale edm: choose vp, ve, flow"),
    (["fine.py", "--limit", "0"], "--limit 0: give seconds, more than 0"),
    (["fine.py", "-o", "x.png"], "add --gallery ID"),
    (["fine.py", "--betas", "beta"], "--betas beta: NameError: name 'beta' is not defined"),
    ([], "no FILE is given"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED, ids=lambda v: " ".join(v)[:30])
def test_what_is_refused(run: Run, tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "folder.py").mkdir()
    for name, text in {
        "data.csv": "1,2",
        "broken.py": "x = 1\nif if\n",
        "zero.py": "x = 1\0",
        "fine.py": "def f(): pass",
        "r.ipynb": json.dumps({"cells": [], "metadata": {"kernelspec": {"language": "R"}}}),
        "old.ipynb": "{}",
    }.items():
        (tmp_path / name).write_text(text)
    result = run("check", *arguments)
    assert result.code == 2
    assert result.out == ""
    assert message in result.err
    assert result.err.count("\n") == 1


def test_a_class_that_trains_when_it_is_made(tmp_path: Path) -> None:
    path = tmp_path / "c.py"
    path.write_text(
        HEAD + Q_SAMPLE + "class Trains:\n"
        "    def __init__(self):\n        while True: time.sleep(0.01)\n"
        "    def p_sample(self, x, t): pass\n"
    )
    outcome = examine(path, Asked(), limit=1)
    assert outcome.findings[0].role == "file"
    assert "making what c.py defines took longer than 1 s" in outcome.findings[0].why
    assert "q_sample" in [f.name for f in outcome.findings]


def test_the_gallery(run: Run, tmp_path: Path) -> None:
    listed = run("check", "--gallery")
    assert listed.code == 0
    assert listed.out.startswith("A1 ")
    shown = run("check", "--gallery", "A2", "-o", "a2.png", "--json")
    assert document(shown)["file"] == "a2.png"
    assert (tmp_path / "a2.png").stat().st_size > 1000
    for arguments, message in (("B1", "no such bug"), ("-o x.png", "name the bug")):
        refused = run("check", "--gallery", *arguments.split())
        assert refused.code == 2
        assert message in refused.err


def test_words(run: Run, tmp_path: Path) -> None:
    (tmp_path / "c.py").write_text(
        "print('loud')\ndef extract(a): pass\ndef predict_v_from_x0(a): pass\n"
    )
    result = run("check", "c.py")
    assert result.code == 2
    assert "not recognised: extract; say what they are with --as ROLE=NAME" in result.out
    assert "what turns ε, x_0 and v into one another: predict_v_from_x0" in result.out
    assert result.out.endswith("such as --as marginal=my_function\n")
    assert "loud" not in result.out


def test_what_the_code_prints(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.py").write_text("print('loud')\nimport os\nos.write(2, b'raw')")
    assert examine(tmp_path / "c.py", Asked(), debug=True) == Outcome()
    assert capfd.readouterr() == ("", "loud\nraw")


# --- its parts


def parts(tmp_path: Path, code: str) -> Any:
    (tmp_path / "m.py").write_text(code)
    return read(tmp_path / "m.py").parts


def test_statements_run_one_by_one(tmp_path: Path) -> None:
    code = "a = 1\nb = c\nimport nowhere.at_all\nraise SystemExit\nd = a + 1\n"
    names: dict[str, Any] = {}
    failed = run_parts(parts(tmp_path, code), names, 5.0, set())
    assert names["d"] == 2
    assert [f.place for f in failed] == ["line 2", "line 3", "line 4"]
    assert failed[0].why == "NameError: name 'c' is not defined"
    assert failed[1].why.endswith("install it (pip install nowhere)")


def test_what_takes_too_long_is_left(tmp_path: Path) -> None:
    code = "a = []\nwhile True: a.append(1)\na.append('late')\ndef f(): pass\n"
    names: dict[str, Any] = {}
    failed = run_parts(parts(tmp_path, code), names, 0.1, set())
    assert failed == [Failed("line 2", "", "late")]
    assert "late" not in names["a"]
    assert callable(names["f"])
    again: dict[str, Any] = {}
    assert run_parts(parts(tmp_path, code), again, 0.1, {"line 2"}) == []
    assert again["a"] == []
    assert callable(again["f"])


def test_future_imports_hold_for_all(tmp_path: Path) -> None:
    code = "from __future__ import annotations\ndef f(x: nowhere): pass\n"
    names: dict[str, Any] = {}
    assert run_parts(parts(tmp_path, code), names, 5.0, set()) == []
    assert names["f"].__annotations__ == {"x": "nowhere"}


def test_reasons() -> None:
    assert reason(MemoryError()).startswith("it needs more memory")
    assert "it needs a GPU" in reason(RuntimeError("Found no NVIDIA driver on your system"))
    assert not needs_gpu("KeyError: 3")


def checked(roles: tuple[str, ...], function: Any, vague: bool = False, **facts: Any) -> Finding:
    import torch

    betas = torch.linspace(1e-4, 0.02, 1000)
    facts = {"betas": betas, "given": {}, "T": 1000} | facts
    (found,) = perform(Task("mine", roles, function, facts, ("said",), vague=vague), 20.0)
    assert isinstance(found, Finding)
    assert found.name == "mine"
    return found


def test_what_nobody_has_said_is_found_out() -> None:
    """A model of x_0, where ε is the default; the second thing that a name may mean."""
    names: dict[str, Any] = {}
    exec(HEAD + Q_SAMPLE, names)

    def x_0_loss(model: Any, x: Any) -> Any:
        t = names["torch"].randint(0, 1000, (len(x),))
        return (x - model(names["q_sample"](x, t), t)).square().mean()

    found = checked(("loss",), x_0_loss)
    assert found.verdict == "equivalent"
    assert "--predicts x_0" in found.convention
    assert found.convention.endswith("; said")
    assert checked(("loss",), x_0_loss, predicts="x_0").verdict == "right"
    either = checked(("posterior", "marginal"), names["q_sample"])
    assert (either.role, either.verdict) == ("marginal", "right")
    wrong = checked(("transition", "marginal"), lambda x, t: 3 * x)
    assert (wrong.role, wrong.verdict) == ("transition", "bug")


def test_a_vague_name_takes_an_explained_bug() -> None:
    """A function that is something else is no bug; one that differs by one known change is."""

    def halfway(x: Any, y: Any, t: Any) -> Any:
        return (x + y) / 2

    names: dict[str, Any] = {}
    exec(HEAD, names)

    def rootless(x: Any, t: Any, noise: Any) -> Any:
        a = names["bars"][t].reshape(-1, 1)
        return a * x + (1 - a).sqrt() * noise

    found = checked(("marginal",), halfway, vague=True, scale="vp")
    assert found.verdict == "unchecked"
    assert "say --as marginal=mine if it is meant to be" in found.why
    assert not found.diagnoses
    assert checked(("marginal",), halfway, scale="vp").verdict == "bug"
    assert checked(("marginal",), rootless, vague=True, scale="vp").verdict == "bug"
    uncalled = Task("mine", ("loss",), lambda x: x, {"given": {}}, vague=True)
    assert perform(uncalled, 5.0) == []
    assert perform(Task("mine", ("guidance",), None, vague=True, why="no"), 5.0) == []


def test_without_betas_the_process_is_named_or_nothing_is_said() -> None:
    def backwards(x_0: Any, x_1: Any, t: Any) -> Any:
        return (1 - t[:, None]) * x_0 - t[:, None] * x_1

    def checked_so(**how: Any) -> Finding:
        facts = {"given": {}, "T": 1000}
        (found,) = perform(Task("mine", ("marginal",), backwards, facts, **how), 20.0)
        assert isinstance(found, Finding)
        return found

    found = checked_so()
    assert found.verdict == "unchecked"
    assert "no β_t were found, and nothing says which process" in found.why
    found = checked_so(process={"scale": "flow", "predicts": "flow"})
    assert (found.verdict, found.law) == ("bug", "x_t = (1 − t)·x_0 + t·ε")


def test_what_was_said_is_tried_in_its_process() -> None:
    """`--predicts flow` does not keep a flow from being tried."""

    def euler(model: Any, x: Any) -> Any:
        for i in range(5, 0, -1):
            x = x - model(x, x.new_full((len(x),), i / 5)) / 5
        return x

    (found,) = perform(
        Task("mine", ("sampler",), euler, {"given": {}, "T": 9, "predicts": "flow"}, stated=True),
        20.0,
    )
    assert found.verdict == "equivalent"
    assert "--scale flow --predicts flow" in found.convention


def test_a_check_that_lacks_a_fact() -> None:
    task = Task("mine", ("posterior",), lambda x, t: x, {"given": {}})
    (found,) = perform(task, 5.0)
    assert found.why == "no betas found in the file: give --betas EXPR"


def test_a_report_goes_through_json() -> None:
    finding = Finding(
        "f", "step", "bug", "l", "m", "e", (Diagnosis("A1", "n", "e", "r"),), "c", "w"
    )
    report = Report((finding, finding))
    assert Report.from_dict(json.loads(json.dumps(report.to_dict()))) == report


def test_options() -> None:
    assert role("marginal=lambda x, t: f(x, t=t)") == ("marginal", "lambda x, t: f(x, t=t)")
    assert pair("--given", "a = 3") == ("a", "3")
    assert "scheduler" in ROLES
