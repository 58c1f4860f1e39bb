"""`alphabar check FILE`: a child process runs the file and checks it; this one waits, and says.

A file that never ends, ends Python or takes all memory costs that process alone: it is ended, and
another goes on with the functions that are left.
"""

import contextlib
import difflib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alphabar.check.discover import Asked
from alphabar.check.report import Finding, Report
from alphabar.check.source import read

LIMIT = 60.0  # seconds for importing a file, and for each of its functions
WHOLE = 5  # times as long for all of it
STARTING = 120.0  # seconds in which Python and torch have begun
GRACE = 2.0  # after which a child that does not stop by itself is ended
ROLES = (
    *("schedule", "marginal", "transition", "posterior", "loss", "weighting", "time_sampling"),
    *("step", "sampler", "scheduler", "guidance", "ema", "embedding", "langevin", "likelihood"),
)


@dataclass
class Outcome:
    """What was found, and what could not be looked at."""

    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unrecognised: list[str] = field(default_factory=list)
    without_role: list[str] = field(default_factory=list)

    @property
    def report(self) -> Report:
        """The findings."""
        return Report(tuple(self.findings))


def pair(option: str, text: str) -> tuple[str, str]:
    """NAME=EXPR, taken apart.

    Raises:
        ValueError: one of the two is missing.
    """
    name, _, expression = (part.strip() for part in text.partition("="))
    if not (name and expression):
        raise ValueError(f"{option} {text}: write NAME=EXPR, such as {option} {_EXAMPLES[option]}")
    return name, expression


_EXAMPLES = {"--as": "marginal=my_function", "--given": "gamma=5.0"}


def role(text: str) -> tuple[str, str]:
    """ROLE=EXPR, taken apart.

    Raises:
        ValueError: there is no such role.
    """
    name, expression = pair("--as", text)
    if name not in ROLES:
        near = difflib.get_close_matches(name, ROLES, 1)
        hint = f"did you mean {near[0]}?" if near else f"choose {', '.join(ROLES)}"
        raise ValueError(f"--as {text}: there is no role {name}; {hint}")
    return name, expression


def examine(path: Path, asked: Asked, limit: float = LIMIT, debug: bool = False) -> Outcome:
    """Run a file in child processes, and check what it defines.

    Args:
        path: a module or a notebook.
        asked: what the person has said of it.
        limit: seconds for running the file, and for each function.
        debug: whether what the person's code prints is shown, on standard error.

    Raises:
        ValueError: a file that is not Python; an expression that does not evaluate; a limit that is
            not above 0.
    """
    if not limit > 0:
        raise ValueError(f"--limit {limit:g}: give seconds, more than 0")
    read(path)
    outcome, examination = Outcome(), _Examination(path, asked, limit)
    deadline = time.monotonic() + WHOLE * limit + STARTING
    while not examination.over:
        with tempfile.TemporaryDirectory() as folder, _child(path, folder, debug) as child:
            examination.go_on(child, outcome, deadline)
    return outcome


class _Examination:
    """Where the children have come to."""

    def __init__(self, path: Path, asked: Asked, limit: float) -> None:
        self.path, self.asked, self.limit = path, asked, limit
        self.over = False
        self.skip: list[str] = []  # what is done with
        self.guessed: set[str] = set()
        self.passed_over: list[str] = []  # statements that took too long
        self.first = True
        self.looked = False

    def go_on(self, child: "_Child", outcome: Outcome, deadline: float) -> None:
        """Ask a child for all that is left, and hear it until it ends or has to be ended."""
        child.ask(
            {
                "file": str(self.path.resolve()),
                "asked": self.asked._asdict(),
                "limit": self.limit,
                "skip": self.skip,
                "passed_over": self.passed_over,
            }
        )
        state, doing, role, wait = "starting", "", "", STARTING
        while True:
            said = child.hear(min(wait, deadline - time.monotonic()))
            kind = said["kind"]
            if kind == "refused":
                raise ValueError(said["why"])
            if kind in ("late", "ended"):
                self._lost(said, state, doing, role, outcome, deadline)
                return
            if kind == "ready":
                state, wait = "importing", self.limit + GRACE
            elif kind == "imported":
                state, wait = "looking", self.limit + GRACE
                if self.first:
                    self._imported(said, outcome)
            elif kind == "found":
                state, wait = "checking", self.limit + GRACE
                self.guessed = {*said["guessed"]}
                if said["late"] and not self.looked:
                    why = (
                        f"making what {self.path.name} defines took longer than {self.limit:g} s: "
                        "say what to check with --as, and --betas"
                    )
                    outcome.findings.append(self._unchecked(self.path.name, "file", why))
                self.looked = True
            elif kind == "begin":
                doing, role, wait = said["name"], said["role"], said["seconds"] + GRACE
            elif kind == "done":
                self.skip.append(doing)
                outcome.findings += map(Finding.from_dict, said["findings"])
            elif kind == "end":
                outcome.unrecognised += said["unrecognised"]
                outcome.without_role += said["without_role"]
                self.over = True
                return

    def _imported(self, said: dict[str, Any], outcome: Outcome) -> None:
        self.first = False
        outcome.notes += said["notes"]
        for failed in said["failed"]:
            place, why = failed["place"], failed["why"]
            if failed["kind"] == "late":
                self.passed_over.append(place)
                why = self._too_long()
            if failed["kind"] == "refused" or self.path.suffix.lower() == ".ipynb":
                outcome.notes.append(f"{place}: {why}; the rest was run")
            else:
                outcome.findings.append(self._unchecked(self.path.name, "file", f"{place}: {why}"))

    def _too_long(self) -> str:
        return (
            f"importing {self.path.name} took longer than {self.limit:g} s: move what runs into "
            "`if __name__ == '__main__':`"
        )

    def _lost(
        self,
        said: dict[str, Any],
        state: str,
        doing: str,
        role: str,
        outcome: Outcome,
        deadline: float,
    ) -> None:
        """A child that hangs, or is no more."""
        late = said["kind"] == "late"
        if time.monotonic() >= deadline:
            whole = WHOLE * self.limit
            why = f"there was no time left for the rest: {whole:g} s for a file (--limit)"
        elif state in ("starting", "importing", "looking"):
            why = self._too_long() if late else f"importing it ended Python ({said['how']})"
        else:
            self._lost_one(said, doing, role, outcome)
            return
        outcome.findings.append(self._unchecked(self.path.name, "file", why))
        self.over = True

    def _lost_one(self, said: dict[str, Any], doing: str, role: str, outcome: Outcome) -> None:
        if doing in self.skip:  # it ended Python after its result was told
            self.over = True
            return
        self.skip.append(doing)
        if doing in self.guessed:
            outcome.unrecognised.append(doing)
            return
        if said["kind"] == "late":
            why = (
                f"it took longer than {self.limit:g} s: give it less to do, or more time with "
                "--limit"
            )
        else:
            why = f"it ended Python ({said['how']}): it has to go on"
        outcome.findings.append(self._unchecked(doing, role, why))

    def _unchecked(self, name: str, role: str, why: str) -> Finding:
        return Finding(name, role, "unchecked", "", "", "", why=why)


class _Child:
    """A process that answers line by line."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.lines: queue.Queue[str] = queue.Queue()
        self.reading = threading.Thread(target=self._read, daemon=True)
        self.reading.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put("")

    def ask(self, request: dict[str, Any]) -> None:
        """One line."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps(request), file=self.process.stdin, flush=True)

    def hear(self, seconds: float) -> dict[str, Any]:
        """What it says next, or that it is late or has ended."""
        try:
            line = self.lines.get(timeout=max(seconds, 0))
        except queue.Empty:
            return {"kind": "late"}
        if line:
            said: dict[str, Any] = json.loads(line)
            return said
        code = self.process.wait()
        how = f"by signal {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        return {"kind": "ended", "how": how}

    def end(self) -> None:
        """Now, with all that it has begun."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if hasattr(os, "killpg"):
                os.killpg(self.process.pid, signal.SIGKILL)
            else:
                self.process.kill()
        self.process.wait()
        self.reading.join(GRACE)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


@contextlib.contextmanager
def _child(path: Path, folder: str, debug: bool) -> Iterator[_Child]:
    """A process in the folder of the file; it and all that it began is ended in the end."""
    own = {
        "MPLBACKEND": "Agg",  # no window
        "CUDA_VISIBLE_DEVICES": "",  # what a check hands over lies on the CPU
        "TMPDIR": folder,
        "PYTHONIOENCODING": "utf-8",
    }
    threads = {"OMP_NUM_THREADS": "1"}  # what is this small waits for a second one
    process = subprocess.Popen(
        # -B: no __pycache__ beside the file; -P: what lies there is not taken for a standard module
        [sys.executable, "-B", "-P", "-m", "alphabar.check.child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=None if debug else subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
        cwd=path.resolve().parent,
        env={**threads, **os.environ, **own},
        start_new_session=True,
    )
    child = _Child(process)
    try:
        yield child
    finally:
        child.end()
