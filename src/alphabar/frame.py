"""What every command of the command line shares: its options, its errors, its exit codes.

A command is a function with `@command` above it; what it is told and how it talks is its `run`.
torch is imported by the commands that need it, so that `alphabar --help` answers at once.
"""

import functools
import inspect
import io
import json
import math
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from alphabar.arguments import check_seed
from alphabar.locale import LANGS, texts

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID
    from rich.table import Table

    from alphabar.data import Data
    from alphabar.data import Standardiser as Scaling
    from alphabar.schedule import Schedule

app = typer.Typer(
    name="alphabar",
    help="Diffusion models you can see, prove and use.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@dataclass(frozen=True)
class Run:
    """What every command is told, and how it talks to the person."""

    lang: str
    given_seed: int | None
    as_json: bool
    quiet: bool
    force: bool
    debug: bool

    def __post_init__(self) -> None:
        if self.lang not in LANGS:
            raise ValueError(f"--lang {self.lang}: choose {' or '.join(LANGS)}")
        if self.given_seed is not None:
            check_seed(self.given_seed)

    @functools.cached_property
    def seed(self) -> int:
        """The seed that was given, or one that is drawn now; the command reports it."""
        return int.from_bytes(os.urandom(4)) if self.given_seed is None else self.given_seed

    def text(self, key: str, **values: object) -> str:
        """A sentence in the person's language."""
        return str(texts(self.lang, "cli")[key]).format(**values)

    def say(self, line: object = "") -> None:
        """Print a result, unless JSON or silence was asked for."""
        if not (self.as_json or self.quiet):
            self.console.print(line)

    def warn(self, line: str) -> None:
        """Print one line of warning on standard error."""
        if not self.quiet:
            print(line, file=sys.stderr)

    def finish(self, document: Mapping[str, object]) -> None:
        """Print the result as JSON, if that was asked for."""
        if self.as_json:
            print(to_json(document, sys.stdout.encoding))

    @functools.cached_property
    def console(self) -> "Console":
        """Standard output. A pipe gets lines as long as they are, not cut at 80 columns."""
        from rich.console import Console

        width = None if sys.stdout.isatty() else 10_000
        return Console(highlight=False, soft_wrap=True, width=width, markup=False)

    @contextmanager
    def progress(self) -> Iterator["Bar"]:
        """Progress bars on standard error: `advance = bar("training", 4000)`, then `advance()`."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

        shown = sys.stderr.isatty() and not self.quiet
        columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True), disable=not shown) as bars:

            def bar(what: str, total: int) -> Advance:
                return Advance(bars, bars.add_task(what, total=total), what)

            yield bar


@dataclass(frozen=True)
class Advance:
    """Moves a progress bar on."""

    _bars: "Progress"
    _task: "TaskID"
    _what: str

    def __call__(self, by: float = 1) -> None:
        """So much further."""
        self._bars.advance(self._task, by)

    def say(self, words: str) -> None:
        """Words after the bar's name, in place of those that were there."""
        self._bars.update(self._task, description=f"{self._what}  {words}")


Bar = Callable[[str, int], Advance]


def whole(text: str | int) -> int:
    """What typer reads a whole number by; a default comes as the number that it is."""
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"{text} is not a whole number") from None


_COMMON: dict[str, Any] = {
    "lang": (str, typer.Option("--lang", help="Language: en or ko."), "en"),
    "given_seed": (
        int | None,
        typer.Option(
            "--seed",
            parser=whole,
            metavar="N",
            help="Makes everything reproducible; drawn and shown if left out.",
        ),
        None,
    ),
    "as_json": (bool, typer.Option("--json", help="One JSON document on standard output."), False),
    "quiet": (bool, typer.Option("--quiet", help="Print errors only."), False),
    "force": (bool, typer.Option("--force", help="Replace files that exist."), False),
    "debug": (bool, typer.Option("--debug", help="Show the traceback of an error."), False),
}


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Register a command; the options that all commands have reach it as its `run`."""

    @functools.wraps(function)
    def registered(**values: Any) -> None:
        run = Run(**{name: values.pop(name) for name in _COMMON})
        try:
            function(run=run, **values)
        except BrokenPipeError:
            raise _ClosedPipe from None  # typer would end a broken pipe with a code of its own

    own = [p for p in inspect.signature(function).parameters.values() if p.name != "run"]
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [p.replace(kind=keyword) for p in own] + [
        inspect.Parameter(name, keyword, default=default, annotation=Annotated[kind, option])
        for name, (kind, option, default) in _COMMON.items()
    ]
    registered.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    registered.__annotations__ = {p.name: p.annotation for p in parameters}
    return app.command()(registered)


def main() -> NoReturn:
    """Run the command line and exit with its code."""
    # So that `finally` blocks remove temporary files when the process is told to end.
    signal.signal(signal.SIGTERM, _terminate)
    if len(sys.argv) == 1:
        sys.argv.append("--help")
    if sys.stdout is None:
        sys.exit(_say_closed())
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without ᾱ gets a ? and no error
    debug, quiet = "--debug" in sys.argv, "--quiet" in sys.argv

    def say(message: Warning | str, *_: Any, **__: Any) -> None:
        if not quiet:
            print(f"alphabar: {message}", file=sys.stderr)

    warnings.showwarning = say
    try:
        code = app(standalone_mode=False) or 0
        sys.stdout.flush()
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except (BrokenPipeError, _ClosedPipe):
        # Python flushes once more as it ends, and would complain; there is nowhere to write to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = _say_closed()
    except Exception as error:
        if debug:
            traceback.print_exc()
        print(f"alphabar: {_one_line(error)}", file=sys.stderr)
        code = 2
    sys.exit(code)


def to_json(document: object, encoding: str = "utf-8") -> str:
    """One line of JSON, ±inf as null; escaped where the encoding is not UTF-8."""
    escaped = encoding.lower().replace("-", "") != "utf8"  # JSON stays whole in any encoding
    return json.dumps(_finite(document), ensure_ascii=escaped, allow_nan=False)


def _say_closed() -> int:
    print("alphabar: standard output was closed before all was written", file=sys.stderr)
    return 2


class _ClosedPipe(Exception):
    """Whoever read standard output has stopped reading."""


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


def _one_line(error: Exception) -> str:
    explain = getattr(error, "format_message", None)  # typer's own errors: which option was wrong
    if explain is not None:
        return " ".join(str(explain()).split()).rstrip(".") + "; --help lists what there is"
    message = " ".join(str(error).split())
    known = isinstance(error, ValueError | TypeError | OSError)
    if known and message:
        return message
    if isinstance(error, MemoryError) or "can't allocate memory" in message:
        return f"there is not enough memory ({message[:100]}): take less of what you asked for"
    return f"{type(error).__name__}: {message}; this is a fault of alphabar (--debug shows where)"


def _finite(value: Any) -> Any:
    """The value with ±inf as None; NaN is a fault and raises."""
    if isinstance(value, float):
        if math.isnan(value):
            raise ArithmeticError("a result is NaN")
        return None if math.isinf(value) else value
    if isinstance(value, Mapping):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return value


def new_table(*columns: str) -> "Table":
    """A table to print, with these heads."""
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        made.add_column(column, no_wrap=True)
    return made


# --- what several commands take, and do with it

DataSpec = Annotated[
    str, typer.Argument(metavar="DATA", help="A data set's spec or a file; see `alphabar data`.")
]
T_Option = Annotated[
    int | None,
    typer.Option("-T", parser=whole, metavar="N", help="T of every schedule spec that gives none."),
]
ScheduleSpec = Annotated[str, typer.Option("--schedule", help="A schedule's spec.")]
NetOfRun = Annotated[
    str | None,
    typer.Option(
        "--net", metavar="MODULE:NAME", help="The code of a run's network, where it is your own."
    ),
]
Standardise = Annotated[
    bool | None,
    typer.Option(
        "--standardise/--no-standardise",
        help="Scale each column to mean 0 and variance 1 (default: for files of points only).",
    ),
]


def is_run(path: str) -> bool:
    """Whether this is a folder, as runs are and data are not; samples in parts are no run."""
    from alphabar.shards import is_shards

    return Path(path).is_dir() and not is_shards(path)


def check_columns(what: str, own: Sequence[str], against: str, others: Sequence[str]) -> None:
    """Refuse to compare points of other columns, or of the same in another order."""
    if len(own) != len(others):
        raise ValueError(
            f"{what} has {len(own)} columns against {len(others)} of {against}: points are "
            "compared with points of as many columns; choose the columns first"
        )
    if own != others and sorted(own) == sorted(others):
        raise ValueError(
            f"{what} has the columns {', '.join(own)}, and {against} {', '.join(others)}: they "
            "must come in the same order"
        )


def load_data(run: Run, spec: str, standardise: bool | None) -> "tuple[Data, Scaling | None]":
    """The data, and how to scale them if they are to be scaled; says so where it is our choice."""
    from alphabar.data import Standardiser, load

    loaded = load(spec)
    if loaded.kind == "pictures":
        if standardise:
            raise ValueError(f"--standardise: {spec} holds pictures, which are in [-1, 1] already")
        return loaded, None
    is_file = loaded.fresh is None
    if not (is_file if standardise is None else standardise):
        return loaded, None
    standardiser = Standardiser.fit(loaded.x, loaded.columns)
    if standardise is None:
        run.warn(run.text("standardised"))
    return loaded, standardiser


def use_one_thread() -> None:
    """Let torch use one thread."""
    import torch

    # What is this small gains nothing from a second thread, and waits for it 20 times as long where
    # another program wants that core. It also makes the numbers those of any number of cores.
    torch.set_num_threads(1)


def parse_schedule(spec: str, T: int | None = None) -> "Schedule":
    """The schedule that a spec names, with -T where it gives none."""
    from alphabar.schedule import SCHEDULES

    schedule: Schedule = SCHEDULES.parse(spec, **({} if T is None else {"T": T}))
    return schedule


def short(text: str, most: int = 60) -> str:
    """The text, cut where it is longer."""
    return text if len(text) <= most else text[: most - 1] + "…"


def say_pairs(run: Run, pairs: Mapping[str, str]) -> None:
    """A line for each: what it is, in the person's language, and its value."""
    from rich.table import Table

    lines = Table(box=None, show_header=False, pad_edge=False)
    for key, value in pairs.items():
        lines.add_row(run.text(key), value)
    run.say(lines)
