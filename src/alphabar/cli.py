"""The command line: reads the arguments, calls the library, prints. No maths here.

torch is imported by the commands that need it, so that `alphabar --help` answers at once.
"""

import functools
import inspect
import io
import json
import math
import os
import shlex
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from alphabar.checks import check_seed, check_whole
from alphabar.locale import LANGS, texts
from alphabar.output import check_file, check_folder, writing

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from torch import Tensor

    from alphabar.data import Data, Standardiser
    from alphabar.schedule import Schedule
    from alphabar.trace import Trace

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
            print(_to_json(document, sys.stdout.encoding))

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


def _whole(text: str | int) -> int:  # a default comes as the number that it is
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
            parser=_whole,
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


def _command(function: Callable[..., None]) -> Callable[..., None]:
    """Register a command; the options that all commands have reach it as its `run`."""

    @functools.wraps(function)
    def command(**values: Any) -> None:
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
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return app.command()(command)


_DataSpec = Annotated[
    str, typer.Argument(metavar="DATA", help="A data set's spec or a file; see `alphabar data`.")
]
_Steps = Annotated[
    int | None,
    typer.Option(
        "-T", parser=_whole, metavar="N", help="T of every schedule spec that gives none."
    ),
]
_Standardise = Annotated[
    bool | None,
    typer.Option(
        "--standardise/--no-standardise",
        help="Scale each column to mean 0 and variance 1 (default: for files of points only).",
    ),
]


@_command
def data(run: Run) -> None:
    """List the data sets, with their parameters."""
    from alphabar.data import DATA

    entries = [
        {
            "name": entry.name,
            "usage": entry.usage,
            "summary": entry.summary,
            "parameters": {
                key: None if default is inspect.Parameter.empty else default
                for key, default in entry.parameters.items()
            },
        }
        for entry in DATA
    ]
    table = _table(run.text("name"), run.text("usage"), run.text("what"))
    translated = texts(run.lang, "cli").get("summaries", {})
    for entry in DATA:
        table.add_row(entry.name, entry.usage, translated.get(entry.name, entry.summary))
    run.say(table)
    run.say(run.text("data_files"))
    run.finish({"data": entries})


@_command
def schedules(
    run: Run,
    specs: Annotated[
        list[str] | None, typer.Argument(metavar="SPEC…", help="Schedules; all kinds if none.")
    ] = None,
    T: _Steps = None,
    coefficients: Annotated[
        bool, typer.Option("--coefficients", help="The DDPM paper's table for each.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("-o", help="The curves (.png .svg .pdf) or the tables (.csv .json)."),
    ] = None,
) -> None:
    """Compare schedules: their curves, and where they end."""
    pictures, documents = (".png", ".svg", ".pdf"), (".csv", ".json")
    if output:
        check_file(output, pictures + documents, run.force)
    from alphabar import diagnosis
    from alphabar.schedule import SCHEDULES

    if not specs:
        specs = [entry.name for entry in SCHEDULES if entry.takes_no_argument]
    parsed = [_schedule(spec, T) for spec in specs]
    described = []
    for schedule in parsed:
        one = diagnosis.describe(schedule)
        one["warnings"] = [
            {"code": w.code, "message": run.text(w.code, **w.values)}
            for w in diagnosis.warnings(schedule)
        ]
        if coefficients:
            one["coefficients"] = {k: v.tolist() for k, v in schedule.coefficients().items()}
        described.append(one)
    document = {"schedules": described}
    if not run.as_json:
        _say_schedules(run, parsed, described, coefficients)
    for one in described:
        for warning in one["warnings"]:  # type: ignore[attr-defined]
            run.warn(f"{one['spec']}: {warning['message']}")
    if output:
        with writing(output) as temporary:
            if output.suffix.lower() in pictures:
                from alphabar.figures import Style, schedule_curves

                names = [schedule.spec for schedule in parsed]
                figure = schedule_curves(parsed, names, style=Style(lang=run.lang))
                figure.savefig(temporary, dpi=150)
            elif output.suffix.lower() == ".json":
                temporary.write_text(_to_json(document), encoding="utf-8")
            else:
                _write_schedule_csv(temporary, parsed, coefficients)
        run.say(run.text("written", path=output))
    run.finish(document)


@_command
def forward(
    run: Run,
    data: _DataSpec,
    schedule: Annotated[str, typer.Option("--schedule", help="A schedule's spec.")] = "linear",
    T: _Steps = None,
    panels: Annotated[
        int | None,
        typer.Option(
            "--panels", parser=_whole, metavar="N", help="How many t to show (10; 60 if animated)."
        ),
    ] = None,
    stepwise: Annotated[
        bool, typer.Option("--stepwise", help="Along the chain, not by the closed form.")
    ] = False,
    standardise: _Standardise = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", help="Panels (.png .svg .pdf), an animation (.gif .mp4), or all t (.npz)."
        ),
    ] = None,
) -> None:
    """Dissolve data in noise, and compare with the law."""
    stills, moving = (".png", ".svg", ".pdf"), (".gif", ".mp4")
    if output:
        check_file(output, (*stills, *moving, ".npz"), run.force)
    seed = run.seed
    noise = _schedule(schedule, T)
    count = (
        panels
        if panels is not None
        else min(60 if output and output.suffix.lower() in moving else 10, noise.T + 1)
    )
    times = _times(noise.T, count)
    loaded, standardiser = _load(run, data, standardise)

    import torch

    from alphabar.trace import trace

    whole = output is not None and output.suffix.lower() == ".npz"
    shown = list(range(noise.T + 1)) if whole else times
    _refuse_if_too_large(len(shown), loaded.x)
    x_0 = loaded.x if standardiser is None else standardiser.apply(loaded.x)
    _warn_of(run, noise)
    generator = torch.Generator().manual_seed(seed % 2**63)
    with run.progress() as bar:
        advance = bar("forward", noise.T + 1 if stepwise else len(shown))
        traced = trace(noise, x_0.float(), shown, generator, stepwise, advance)
    rows = [m._asdict() for m in traced.moments(x_0) if m.t in times]
    table = _table(
        "t",
        "ᾱ_t",
        *(run.text(k) for k in ("mean", "law", "variance", "law")),
    )
    for row in rows:
        table.add_row(str(row["t"]), *(f"{value:.4g}" for value in list(row.values())[1:]))
    run.say(f"{loaded.spec}   {noise.spec}   seed {seed}")
    run.say(table)
    if output:
        with writing(output) as temporary:
            if whole:
                _write_frames(temporary, traced, standardiser)
            else:
                _draw(run, temporary, loaded, traced)
        run.say(run.text("written", path=output))
    run.finish(
        {
            "data": loaded.spec,
            "schedule": noise.spec,
            "seed": seed,
            "stepwise": stepwise,
            "standardised": standardiser and standardiser.to_dict(),
            "panels": rows,
            "file": str(output) if output else None,
        }
    )


@_command
def study(
    run: Run,
    data: _DataSpec = "swiss_roll",
    schedule: Annotated[
        str, typer.Option("--schedule", help="What the reverse process runs on.")
    ] = "linear",
    T: _Steps = None,
    steps: Annotated[
        int, typer.Option("--steps", parser=_whole, metavar="N", help="Training steps.")
    ] = 4000,
    standardise: _Standardise = None,
    output: Annotated[Path, typer.Option("-o", help="A folder for the report.")] = Path("study"),
) -> None:
    """From data to noise and back: a report to open."""
    check_folder(output, run.force)
    seed = run.seed
    noise = _schedule(schedule, T)
    loaded, standardiser = _load(run, data, standardise)
    import torch

    from alphabar.report import result_lines, write_report
    from alphabar.study import study as work_through

    # A small network gains nothing from a second thread, and waits for it 20 times as long where
    # another program wants that core. It also makes the numbers those of any number of cores.
    torch.set_num_threads(1)
    check_whole("--steps", steps, 1, 10**7)
    _warn_of(run, noise)
    with run.progress() as bar:
        found = work_through(loaded, standardiser, noise, seed, steps, bar)
        words = ["alphabar", "study", loaded.spec, "--schedule", noise.spec, "--seed", str(seed)]
        words += ["--steps", str(steps), "--lang", run.lang]
        if standardise is not None:
            words.append("--standardise" if standardise else "--no-standardise")
        command = shlex.join(words)
        document = write_report(found, output, run.lang, command, bar)
    for line in result_lines(found, run.lang):
        run.say(line)
    run.say(run.text("report", path=document["report"]))
    run.finish(document)


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


def _load(run: Run, spec: str, standardise: bool | None) -> "tuple[Data, Standardiser | None]":
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


def _times(T: int, count: int) -> list[int]:
    """`count` times from 0 to T, or an error that says how many there can be."""
    from alphabar.trace import even_times

    if not 2 <= count <= T + 1:
        raise ValueError(
            f"--panels {count}: choose from 2 (t = 0 and t = T) to {T + 1} (every t of T = {T})"
        )
    return even_times(T, count)


def _warn_of(run: Run, schedule: "Schedule") -> None:
    from alphabar import diagnosis

    for warning in diagnosis.warnings(schedule):
        run.warn(f"{schedule.spec}: {run.text(warning.code, **warning.values)}")


def _refuse_if_too_large(frames: int, x: "Tensor") -> None:
    size = frames * x.numel() * 4
    if size > 4 * 2**30:
        raise ValueError(
            f"{frames} frames of {tuple(x.shape)} numbers need {size / 2**30:.0f} GiB, more than "
            "the 4 allowed: take fewer steps (-T), panels or items (n=)"
        )


def _write_frames(path: Path, traced: "Trace", standardiser: "Standardiser | None") -> None:
    import numpy as np
    import torch

    arrays = {
        "x": torch.stack(traced.x).numpy(),
        "t": np.array(traced.times),
        "alpha_bar": np.array(traced.alpha_bar),
    }
    if standardiser is not None:
        arrays |= {"mean": standardiser.mean.numpy(), "std": standardiser.std.numpy()}
    with path.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def _draw(run: Run, path: Path, data: "Data", traced: "Trace") -> None:
    from alphabar.figures import Style, animation, strip

    style = Style(lang=run.lang)
    points = data.kind == "points"
    hue, columns = (data.hue, data.columns) if points else (None, None)
    shown = traced if traced.schedule.scale != "ve" else traced.to_vp()
    if path.suffix.lower() in (".gif", ".mp4"):
        with run.progress() as bar:
            animation(
                shown.x,
                shown.times,
                shown.alpha_bar,
                hue,
                path,
                columns=columns,
                style=style,
                advance=bar("frames", len(shown.times)),
            )
    else:
        figure = strip(shown.x, shown.times, shown.alpha_bar, hue, columns=columns, style=style)
        figure.savefig(path, dpi=150)


def _say_schedules(
    run: Run, parsed: "list[Schedule]", described: list[dict[str, Any]], coefficients: bool
) -> None:
    table = _table("spec", "ᾱ_T", "SNR_T", "KL", "ᾱ ≤ ½", run.text("largest_step"), "β", "ᾱ", "λ")
    for schedule, one in zip(parsed, described, strict=True):
        end, step = one["terminal"], one["largest_step"]
        table.add_row(
            one["spec"] if len(one["spec"]) < 80 else one["spec"][:79] + "…",
            f"{end['alpha_bar']:.3g}",
            f"{end['snr_db']:.1f} dB",
            f"{end['kl_to_prior']:.3g}",
            "-" if one["half"] is None else f"t = {one['half']}",
            "-" if step is None else f"{step['log_snr']:.3g} (t = {step['t']})",
            *(_sparkline(v) for v in (schedule.beta[1:], schedule.alpha_bar, schedule.log_snr[1:])),
        )
    run.say(table)
    run.say(run.text("schedules_legend"))
    if not coefficients:
        return
    for schedule in parsed:
        columns = schedule.coefficients()
        table = _table("t", *columns)
        shown = _times(schedule.T, min(11, schedule.T + 1))[1:]
        for t in sorted({1, *shown}):
            table.add_row(str(t), *(f"{v[t - 1]:.6g}" for v in columns.values()))
        run.say(schedule.spec)
        run.say(table)


def _sparkline(values: "Tensor") -> str:
    """A curve in eight characters, from its lowest value to its highest."""
    marks = "▁▂▃▄▅▆▇█"
    finite = [v for v in values.tolist() if math.isfinite(v)] or [0.0]
    low, span = min(finite), (max(finite) - min(finite)) or 1.0
    points = [values[round(i * (len(values) - 1) / 7)].item() for i in range(8)]
    return "".join(marks[round(7 * min(max((p - low) / span, 0), 1))] for p in points)


def _write_schedule_csv(path: Path, parsed: "list[Schedule]", coefficients: bool) -> None:
    """One row for each schedule and t, every digit kept."""
    import csv

    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        for i, schedule in enumerate(parsed):
            columns = {
                "beta": schedule.beta,
                "alpha_bar": schedule.alpha_bar,
                "log_snr": schedule.log_snr,
            }
            table = [v.tolist() for v in columns.values()]
            names = ["spec", "t", *columns]
            if coefficients:  # they start at t = 1
                more = schedule.coefficients()
                table += [["", *v.tolist()] for v in more.values()]
                names += list(more)
            if i == 0:
                writer.writerow(names)
            for t, row in enumerate(zip(*table, strict=True)):
                writer.writerow([schedule.spec, t, *row])


def _to_json(document: object, encoding: str = "utf-8") -> str:
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


def _table(*columns: str) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, no_wrap=True)
    return table


def _schedule(spec: str, T: int | None = None) -> "Schedule":
    from alphabar.schedule import SCHEDULES

    schedule: Schedule = SCHEDULES.parse(spec, **({} if T is None else {"T": T}))
    return schedule


if __name__ == "__main__":
    main()
