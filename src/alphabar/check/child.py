"""Runs a person's file and checks its functions, in a process of its own.

It is asked by one line of JSON on standard input, and answers by lines on what was its standard
output, which the person's code can no longer reach: what that prints goes to standard error.
"""

import contextlib
import dataclasses
import inspect
import io
import json
import os
import re
import signal
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TextIO

# Seconds for all functions whose names say nothing, and for each of them.
GUESSING, GUESS = 10.0, 3.0
SOUND = ("right", "equivalent", "fragile")


class TimeUp(BaseException):
    """The time for this is over; not an Exception, which the person's code may catch."""


class NotWritten(PermissionError):
    """The person's code would have written beside the person's file."""


def main() -> None:
    """Answer one request."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    request = json.loads(sys.stdin.readline())
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    sys.stdin = io.TextIOWrapper(os.fdopen(nothing, "rb"))  # input() meets its end
    _limit_memory()

    def say(kind: str, **what: Any) -> None:
        print(json.dumps({"kind": kind, **what}), file=out, flush=True)

    try:
        _answer(request, say)
    except ValueError as error:  # what the person has said makes no sense
        say("refused", why=str(error))
    _end(out)


def _answer(request: Mapping[str, Any], say: Callable[..., None]) -> None:
    import torch

    from alphabar.check.discover import Asked, Module, Task
    from alphabar.check.source import read

    torch.set_num_threads(1)
    path, limit, skip = Path(request["file"]), request["limit"], {*request["skip"]}
    asked = Asked(**{k: _tuples(v) for k, v in request["asked"].items()})
    source = read(path)
    say("ready")
    _guard(path.parent, torch)
    module = load(path)
    failed = run_parts(source.parts, module.__dict__, limit, {*request["passed_over"]})
    say("imported", failed=[f._asdict() for f in failed], notes=source.notes)
    tasks: list[Task] = []
    unrecognised: list[str] = []
    without_role: list[str] = []
    late = False
    try:
        with _time_limit(limit):
            found = Module(module.__dict__, asked, module.__name__)
            unrecognised, without_role = found.unrecognised, found.without_role
            for task in found.tasks():
                tasks.append(task)  # one by one: those before the time is up count
    except TimeUp:
        late = True
    say("found", guessed=[t.name for t in tasks if t.guessed], late=late)
    begin = time.monotonic()
    for task in tasks:
        if task.name in skip:
            continue
        left = min(GUESS, begin + GUESSING - time.monotonic()) if task.guessed else limit
        say("begin", name=task.name, role=task.roles[0], seconds=max(left, 0.1))
        findings = perform(task, max(left, 0.1))
        if not findings:
            unrecognised.append(task.name)
        say("done", findings=[f.to_dict() for f in findings])
        begin = begin if task.guessed else time.monotonic()
    say("end", unrecognised=unrecognised, without_role=without_role)


def _tuples(value: Any) -> Any:
    return tuple(map(tuple, value)) if isinstance(value, list) else value


def _end(out: TextIO) -> None:
    """At once: threads that the person's code has begun are not waited for."""
    out.flush()
    os._exit(0)


# --- running the file


class Failed(NamedTuple):
    """A statement that did not go through."""

    place: str
    why: str
    kind: str = ""  # late: it ran out of time; refused: it would have written a file


def load(path: Path) -> types.ModuleType:
    """An empty module that stands where the file's would, so that its imports work."""
    folder, package = path.resolve().parent, ""
    while (folder / "__init__.py").exists() and folder.name.isidentifier():
        package = f"{folder.name}.{package}".rstrip(".")
        folder = folder.parent
    sys.path.insert(0, str(folder))
    name = f"{package}.{path.stem}".lstrip(".")
    if name in sys.modules or not path.stem.isidentifier():
        name = f"{package}._checked_{''.join(filter(str.isalnum, path.stem))}".lstrip(".")
    module = types.ModuleType(name)
    module.__file__ = str(path)
    module.__package__ = package
    sys.modules[name] = module
    return module


def run_parts(
    parts: Any, names: dict[str, Any], limit: float, passed_over: set[str]
) -> list[Failed]:
    """Run statements one by one; after the time is up, only those that define or import.

    Returns:
        Those that failed.
    """
    failed: list[Failed] = []
    deadline = time.monotonic() + limit
    late = False
    for part in parts:
        late |= part.place in passed_over
        if late and not part.defines:
            continue
        left = deadline - time.monotonic()
        try:
            with _time_limit(max(left, 1.0)):
                exec(part.code, names)
        except TimeUp:
            late = True
            failed.append(Failed(part.place, "", "late"))
        except NotWritten as error:
            failed.append(Failed(part.place, str(error), "refused"))
        except BaseException as error:
            failed.append(Failed(part.place, reason(error)))
    return failed


def reason(error: BaseException) -> str:
    """Why the person's code failed, and what to do."""
    words = " ".join(str(error).split())
    if isinstance(error, ModuleNotFoundError) and error.name:
        top = error.name.partition(".")[0]
        return f"there is no module {error.name} here: install it (pip install {top})"
    if isinstance(error, SystemExit):
        return "it ends Python (sys.exit): it has to go on"
    if isinstance(error, EOFError):
        return "it asks for input: there is nobody to answer"
    if isinstance(error, NotWritten):
        return words
    if isinstance(error, MemoryError) or "can't allocate memory" in words:
        return f"it needs more memory than there is ({words[:100]})"
    if needs_gpu(words):
        return f"it needs a GPU, and check runs on the CPU ({words[:100]}): {ON_CPU}"
    return f"{type(error).__name__}: {words}".rstrip(": ")


ON_CPU = 'write device = "cuda" if torch.cuda.is_available() else "cpu"'


def needs_gpu(words: str) -> bool:
    """Whether an error is of a GPU that is not there."""
    said = words.lower()
    return "cuda" in said or "nvidia" in said or "mps backend" in said


@contextlib.contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeUp after so long, where the system has timers; else the parent ends the process."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def up(number: int, frame: types.FrameType | None) -> None:
        raise TimeUp

    before = signal.signal(signal.SIGALRM, up)
    # Again each tenth of a second: what catches everything may catch the first.
    signal.setitimer(signal.ITIMER_REAL, seconds, 0.1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _guard(folder: Path, torch: Any) -> None:
    """Let nothing be written in the folder of the person's file, or below."""
    temporary = Path(tempfile.gettempdir()).resolve()

    def refuse(path: Any) -> None:
        if isinstance(path, int) or path is None:
            return
        try:
            full = Path(os.fsdecode(path)).resolve()
        except (TypeError, ValueError, OSError):
            return
        within = full.is_relative_to(folder) and not full.is_relative_to(temporary)
        if within and not any(p.startswith(".") for p in full.relative_to(folder).parts):
            raise NotWritten(f"check lets nothing be written beside your file ({full.name})")

    changes = {"os.remove": 1, "os.rename": 2, "os.mkdir": 1, "os.rmdir": 1, "os.truncate": 1}
    changes |= {"os.link": 2, "os.symlink": 2, "shutil.rmtree": 1}
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments
            if (mode and {*str(mode)} & {*"wax+"}) or (flags and flags & writing):
                refuse(path)
        elif event in changes:
            for path in arguments[: changes[event]]:
                refuse(path)

    sys.addaudithook(hook)
    save = torch.save

    def saving(obj: object, f: Any, *values: Any, **named: Any) -> Any:
        if isinstance(f, str | os.PathLike):  # torch opens it out of Python's sight
            refuse(f)
        return save(obj, f, *values, **named)

    torch.save = saving


def _limit_memory() -> None:
    """Four fifths of what the machine has."""
    with contextlib.suppress(ImportError, ValueError, OSError, AttributeError):
        import resource

        most = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * 4 // 5
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))


# --- checking


def perform(task: Any, limit: float) -> list[Any]:
    """What is found of a task; nothing of one that is something else than was guessed."""
    from alphabar.check.report import Finding

    def unchecked(why: str) -> Finding:
        return Finding(task.name, task.roles[0], "unchecked", "", "", "", why=why, seconds=spent())

    begin = time.monotonic()

    def spent() -> float:
        return time.monotonic() - begin

    if task.why:
        return [] if task.vague else [unchecked(task.why)]
    try:
        with _time_limit(limit):
            found = _guessed(task) if task.guessed else _best(task)
    except TimeUp:
        if task.guessed:
            return []
        words = f"it took longer than {limit:g} s: give it less to do, or more time with --limit"
        return [unchecked(words)]
    except BaseException as error:
        return [] if task.guessed else [unchecked(reason(error))]
    said = "; ".join(task.said)
    whole = task.roles[0] != "scheduler"
    share = spent() / max(len(found), 1)  # of all that was tried
    return [
        dataclasses.replace(
            f,
            name=task.name if whole or not f.name else f.name,
            convention="; ".join(filter(None, (f.convention, said))),
            why=_with_remedy(f.why) if f.verdict == "unchecked" else f.why,
            seconds=share if whole else f.seconds,
        )
        for f in found
    ]


def _with_remedy(why: str) -> str:
    """Why something is unchecked, and what is to be done of it on the command line."""
    if needs_gpu(why):
        return f"{why}; it needs a GPU, and check runs on the CPU: {ON_CPU}"
    return f"{why}; here: --given NAME=EXPR" if "given={" in why else why


# What a table of β_t, or the process in continuous time, decides.
_BY_PROCESS = ("marginal", "step", "sampler", "loss", "time_sampling")
# The id of a bug of the catalogue, or of one change of a formula, such as step/z:-no-root-of-beta.
_EXPLAINS = re.compile(r"[A-Z]\d+|.*:.*")


def _best(task: Any) -> list[Any]:
    """As the first role that it is sound in; else with a bug, one that is explained before others.

    A bug stands only where it is known in which process, and, if nothing explains it, only where
    the name is clear. Nothing is said of a vague name that cannot be called as what it may mean.
    """
    from alphabar.check.report import Finding

    reports = []
    for role in task.roles:
        report = _checked(role, task.function, task.facts)
        reports.append(report)
        if report.verdict in ("bug", "unchecked"):
            report = _otherwise(role, task, report)
        if report.verdict in SOUND:
            return list(report.functions)
    unknown = task.roles[0] in _BY_PROCESS and not {*task.facts} & {"betas", "scale"}
    if unknown and task.process:
        facts = {k: v for k, v in task.process.items() if k not in task.facts}
        reports = [_checked(role, task.function, task.facts | facts) for role in task.roles]
    wrong = [r for r in reports if r.verdict == "bug"]
    if not wrong:
        return [] if task.vague else list(reports[0].functions)
    explained = [r for r in wrong if _is_explained(r)]
    best = (explained or wrong)[0]
    if unknown and not task.process:
        why = (
            "no β_t were found, and nothing says which process it is of: say --betas EXPR, or "
            "--scale flow, ve or vp in continuous time, and what the model --predicts"
        )
    elif task.vague and not explained:
        why = (
            f"it is no {task.roles[0]}, and its name need not mean one: say "
            f"--as {task.roles[0]}={task.name} if it is meant to be"
        )
    else:
        return list(best.functions)
    return [Finding(task.name, best.functions[0].role, "unchecked", "", "", "", why=why)]


def _is_explained(report: Any) -> bool:
    """Whether one known change explains all that is wrong."""
    wrong = [f.diagnoses for f in report.functions if f.verdict == "bug"]
    return all(len(ds) == 1 and _EXPLAINS.fullmatch(ds[0].id) for ds in wrong)


# What nobody has said, and what makes a function sound after all.
_Facts = dict[str, Any]
_CONTINUOUS: tuple[_Facts, ...] = tuple(
    {"betas": None, "scale": scale, "predicts": predicts}
    for scale, predicts in (("flow", "flow"), ("ve", "x_0"), ("ve", "score"), ("vp", "x_0"))
)
_OTHERS: dict[str, tuple[_Facts, ...]] = {
    "loss": (
        *({"predicts": p} for p in ("x_0", "v", "score")),
        {"data_range": (0.0, 1.0)},
        *_CONTINUOUS[:3],
    ),
    "marginal": tuple({"betas": None, "scale": scale} for scale in ("flow", "ve", "vp")),
    "step": ({"variance": "learned_range"}, *_CONTINUOUS[:3]),
    "sampler": _CONTINUOUS[:3],
    "time_sampling": ({"betas": None, "scale": "flow"},),
}


def _otherwise(role: str, task: Any, report: Any) -> Any:
    """A report by other facts, if they make it sound and the person has not stated them."""
    from alphabar import check

    said = " ".join(d.explains for f in report.functions for d in f.diagnoses)
    named = dict.fromkeys(re.findall(r"predicts (eps|x_0|v)\b", said))
    others: list[_Facts] = []
    if role in ("step", "sampler", "scheduler"):
        others += [{"predicts": p} for p in named]
    takes = inspect.signature(getattr(check, role)).parameters
    for facts in (*others, *_OTHERS.get(role, ())):
        if any(name not in takes or _is_denied(task, name, v) for name, v in facts.items()):
            continue
        if (task.guessed or task.reads_table) and "betas" in facts:
            continue
        again = _checked(role, task.function, task.facts | facts)
        if again.verdict in SOUND:
            note = f"taken for it, as that makes it right: {_option(facts)}"
            return type(again)(tuple(_noted(f, note) for f in again.functions))
    return report


def _is_denied(task: Any, name: str, value: Any) -> bool:
    """Whether the person has said something else; a table that was found does not count."""
    if name == "betas" or (name == "predicts" and not task.stated):
        return False
    return bool(task.facts.get(name, value) != value)


def _option(facts: _Facts) -> str:
    """What says the same on the command line."""
    words = {"predicts": "--predicts {}", "scale": "--scale {}"}
    return " ".join(
        words.get(name, "--given " + name + "={!r}").format(value)
        for name, value in facts.items()
        if name != "betas"
    )


def _noted(finding: Any, note: str) -> Any:
    together = "; ".join(filter(None, (finding.convention, note)))
    verdict = "equivalent" if finding.verdict == "right" else finding.verdict
    return dataclasses.replace(finding, convention=together, verdict=verdict)


def _guessed(task: Any) -> list[Any]:
    from alphabar.check.discover import looks_forward
    from alphabar.check.report import Finding

    for role in task.roles:
        report = _checked(role, task.function, task.facts)
        if report.verdict == "bug":
            report = _otherwise(role, task, report)
        if report.verdict in SOUND:
            return list(report.functions)
    if looks_forward(task.function, task.facts["T"], task.facts["given"]):
        why = (
            f"it may be a forward process: say --as marginal={task.name}, or --as "
            f"transition={task.name}"
        )
        return [Finding(task.name, "marginal", "unchecked", "", "", "", why=why)]
    return []


def _checked(role: str, function: Any, facts: Mapping[str, Any]) -> Any:
    from alphabar import check
    from alphabar.check.report import Finding, Report

    entry = getattr(check, role)
    parameters = inspect.signature(entry).parameters
    taken = {k: v for k, v in facts.items() if k in parameters}
    missing = [
        k
        for k, p in list(parameters.items())[1:]
        if p.default is inspect.Parameter.empty and k not in taken
    ]
    if missing:
        why = f"no {', '.join(missing)} found in the file: give --{missing[0]} EXPR"
        return Report((Finding("", role, "unchecked", "", "", "", why=why),))
    try:
        return entry(function, **taken)
    except ValueError as error:
        why = " ".join(str(error).split())
        return Report((Finding("", role, "unchecked", "", "", "", why=why),))


if __name__ == "__main__":
    main()
