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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from alphabar.checks import check_seed
from alphabar.locale import LANGS, texts

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

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
    def progress(self) -> Iterator[Callable[[str, int], Callable[[], None]]]:
        """Progress bars on standard error: `advance = bar("training", 4000)`, then `advance()`."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

        shown = sys.stderr.isatty() and not self.quiet
        columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True), disable=not shown) as bars:

            def bar(what: str, total: int) -> Callable[[], None]:
                task = bars.add_task(what, total=total)
                return functools.partial(bars.advance, task)

            yield bar


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
