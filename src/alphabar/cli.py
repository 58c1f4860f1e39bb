"""The command line: reads the arguments, calls the library, prints. No maths here.

torch is imported by the commands that need it, so that `alphabar --help` answers at once.
"""

import inspect
import math
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from alphabar.arguments import check_whole
from alphabar.frame import (
    DataSpec,
    NetOfRun,
    Run,
    ScheduleSpec,
    Standardise,
    T_Option,
    check_columns,
    command,
    is_run,
    load_data,
    main,
    new_table,
    parse_schedule,
    say_pairs,
    short,
    to_json,
    use_one_thread,
    whole,
)
from alphabar.locale import texts
from alphabar.output import check_file, check_folder, writing

if TYPE_CHECKING:
    from torch import Tensor

    from alphabar.compare import Row
    from alphabar.data import Data, Standardiser
    from alphabar.draw import Choice, Plan, Source, Watched
    from alphabar.engine import Accelerated
    from alphabar.origin import Origin
    from alphabar.schedule import Schedule
    from alphabar.trace import Trace

_COMPARED = "ddim heun dpmpp_2m dpmpp_3m unipc"

_Origin = Annotated[
    str, typer.Argument(metavar="RUN|DATA", help="A run's folder, or with --exact data.")
]
_MaybeSchedule = Annotated[
    str | None, typer.Option("--schedule", help="A schedule's spec (the run's own, or linear).")
]
_Class = Annotated[
    int | None,
    typer.Option(
        "--label", parser=whole, metavar="K", help="Of a run with classes: draw this one."
    ),
]
_Guidance = Annotated[
    float | None,
    typer.Option("--guidance", metavar="S", help="Classifier-free guidance to the class; 1: none."),
]
_Exact = Annotated[
    bool, typer.Option("--exact", help="By the data's exact denoiser; nothing is trained.")
]
_Spacing = Annotated[
    str | None,
    typer.Option(
        "--spacing",
        help="How the levels are chosen from the schedule. New ones: log_snr, karras. Its own: "
        "trailing, leading, linspace, all. Fitted to the data: curvature (quick), fitted (by "
        "gradient).",
    ),
]
_Start = Annotated[
    str,
    typer.Option(
        "--start",
        help="x_T: noise is N(0, I), matched has the data's mean and covariance, auto is noise "
        "where that is as good.",
    ),
]


@command
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
    table = new_table(run.text("name"), run.text("usage"), run.text("what"))
    translated = texts(run.lang, "cli").get("summaries", {})
    for entry in DATA:
        table.add_row(entry.name, entry.usage, translated.get(entry.name, entry.summary))
    run.say(table)
    run.say(run.text("data_files"))
    run.finish({"data": entries})


@command
def check(
    run: Run,
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE|ID",
            help="A module (.py) or a notebook (.ipynb); with --gallery a bug, such as A6.",
        ),
    ] = None,
    roles: Annotated[
        list[str] | None,
        typer.Option(
            "--as",
            metavar="ROLE=EXPR",
            help="What a function is, as marginal=my_function; marginal, transition, posterior, "
            "step, sampler, scheduler, loss, weighting, schedule and more.",
        ),
    ] = None,
    betas: Annotated[
        str | None,
        typer.Option("--betas", metavar="EXPR", help="β_1 … β_T, in the names of the file."),
    ] = None,
    predicts: Annotated[
        str | None,
        typer.Option("--predicts", help="What the model says: eps, x_0, v, score or flow."),
    ] = None,
    scale: Annotated[str | None, typer.Option("--scale", help="vp, ve or flow.")] = None,
    given: Annotated[
        list[str] | None,
        typer.Option("--given", metavar="NAME=EXPR", help="An argument that functions take."),
    ] = None,
    limit: Annotated[
        float,
        typer.Option("--limit", metavar="SECONDS", help="For the import, and each function."),
    ] = 60,
    gallery: Annotated[
        bool,
        typer.Option("--gallery", help="Show a bug: code, formula, effect. Without ID list all."),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("-o", help="With --gallery ID: its picture (.png .svg .pdf)."),
    ] = None,
) -> None:
    """Check diffusion code in a file: a verdict for each function, and the name of its bug.

    The file is run in a process of its own; what it prints is shown with --debug. Ends with 1 if a
    bug was found, else with 2 if something could not be checked.
    """
    if gallery:
        _show_bug(run, None if file is None else str(file), output)
        return
    if file is None:
        raise ValueError("no FILE is given: name a module (.py) or a notebook (.ipynb)")
    if output:
        raise ValueError(f"-o {output}: there is a picture of a bug alone; add --gallery ID")
    for option, value, choices in (
        ("--predicts", predicts, ("eps", "x_0", "v", "score", "flow")),
        ("--scale", scale, ("vp", "ve", "flow")),
    ):
        if value is not None and value not in choices:
            raise ValueError(f"{option} {value}: choose {', '.join(choices)}")
    from alphabar.check import command as checking
    from alphabar.check.discover import Asked

    asked = Asked(
        tuple(checking.role(text) for text in roles or ()),
        betas,
        predicts,
        scale,
        tuple(checking.pair("--given", text) for text in given or ()),
    )
    outcome = checking.examine(file, asked, limit, run.debug)
    report = outcome.report
    for note in outcome.notes:
        run.warn(f"{file.name}: {note}")
    if report.functions:
        run.say(f"{report}\n")
    if outcome.unrecognised:
        run.say(run.text("check_unknown", names=", ".join(outcome.unrecognised)))
    if outcome.without_role:
        run.say(run.text("check_without_role", names=", ".join(outcome.without_role)))
    found = [f.verdict for f in report.functions]
    counts = {v: found.count(v) for v in dict.fromkeys(found)}
    said = ", ".join(f"{n} {run.text('verdict_' + v)}" for v, n in counts.items())
    run.say(run.text("check_counts", file=file.name, counts=said or run.text("check_none")))
    run.finish({**report.to_dict(), "notes": outcome.notes})
    code = {"bug": 1, "unchecked": 2}.get(report.verdict, 0)
    if code:
        raise typer.Exit(code)


@command
def schedules(
    run: Run,
    specs: Annotated[
        list[str] | None, typer.Argument(metavar="SPEC…", help="Schedules; all kinds if none.")
    ] = None,
    T: T_Option = None,
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
    parsed = [parse_schedule(spec, T) for spec in specs]
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
                temporary.write_text(to_json(document), encoding="utf-8")
            else:
                _write_schedule_csv(temporary, parsed, coefficients)
        run.say(run.text("written", path=output))
    run.finish(document)


@command
def forward(
    run: Run,
    data: DataSpec,
    schedule: ScheduleSpec = "linear",
    T: T_Option = None,
    panels: Annotated[
        int | None,
        typer.Option(
            "--panels", parser=whole, metavar="N", help="How many t to show (10; 60 if animated)."
        ),
    ] = None,
    stepwise: Annotated[
        bool, typer.Option("--stepwise", help="Along the chain, not by the closed form.")
    ] = False,
    standardise: Standardise = None,
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
    noise = parse_schedule(schedule, T)
    count = (
        panels
        if panels is not None
        else min(60 if output and output.suffix.lower() in moving else 10, noise.T + 1)
    )
    times = _times(noise.T, count)
    loaded, standardiser = load_data(run, data, standardise)

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
    table = new_table(
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


@command
def sample(
    run: Run,
    data: _Origin,
    exact: _Exact = False,
    n: Annotated[
        int | None,
        typer.Option("-n", parser=whole, metavar="N", help="How many (10000; 25 pictures)."),
    ] = None,
    sampler: Annotated[
        str | None, typer.Option("--sampler", help="A sampler's spec (dpmpp_2m).")
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option("--steps", parser=whole, metavar="K", help="Steps from noise to data (20)."),
    ] = None,
    nfe: Annotated[
        int | None,
        typer.Option(
            "--nfe",
            parser=whole,
            metavar="K",
            help="In place of --steps: as many as take at most K calls of the denoiser.",
        ),
    ] = None,
    schedule: _MaybeSchedule = None,
    T: T_Option = None,
    spacing: _Spacing = None,
    fit_coefficients: Annotated[
        bool,
        typer.Option(
            "--fit-coefficients",
            help="With --spacing fitted: what each step mixes is fitted too, for one call a step.",
        ),
    ] = False,
    start: _Start = "auto",
    label: _Class = None,
    guidance: _Guidance = None,
    net: NetOfRun = None,
    standardise: Standardise = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            help="Samples in the data's own units (.npy .csv), the way there in panels (.png .svg "
            ".pdf; of pictures a page of samples), as a film (.gif .mp4), or all of it (.npz). A "
            "name without an ending is a folder: any number of samples, in parts.",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a folder of samples that was begun.")
    ] = False,
) -> None:
    """Draw samples from noise: by a run that was trained, or by the exact denoiser of data.

    A run draws by its own steps, fitted to its denoiser, unless a sampler, a number of steps or a
    spacing is given.

    The samples of --json's `sampler`, `levels`, `start` and `seed` come again by
    --sampler SAMPLER --schedule LEVELS --spacing all --start START --seed SEED.
    """
    stills, moving = (".png", ".svg", ".pdf"), (".gif", ".mp4")
    ending = output.suffix.lower() if output else ""
    if output and ending:
        check_file(output, (".npy", ".csv", *stills, *moving, ".npz"), run.force)
    if resume and (ending or not output):
        raise ValueError("--resume goes on with a folder of samples: give it with -o FOLDER")
    from alphabar import draw
    from alphabar.engine import processes
    from alphabar.trace import even_times

    use_one_thread()
    engine = processes() if output and not ending else None
    seed = _seed(run, engine, output if resume else None)
    if engine and engine.rank:
        run = replace(run, quiet=True, as_json=False)  # of several one speaks
    origin = _origin(run, data, exact, standardise, label, guidance, net=net)
    source, points = origin.source, origin.kind == "points"
    noise = _noise_of(origin, schedule, T)
    asked = (sampler, steps, nfe, spacing, schedule, T, label)
    is_plain = all(value is None for value in asked) and not fit_coefficients and start == "auto"
    choice = None
    if not (is_plain and origin.has_own_steps):
        rule = spacing or "log_snr"
        if label is not None and (start == "matched" or rule in draw.FITTED):
            raise ValueError(
                f"--label {label}: a matched start and fitted steps are for the mean and "
                "covariance of all the data; leave out --start and --spacing"
            )
        named = _sampler_or_fitted(sampler, rule, fit_coefficients)
        choice = draw.choose(named, rule, noise, steps, nfe)
        draw.check_start(start, rule)
        if label is not None:
            start = "noise"
    count = (choice or origin.own_choice).steps
    if ending == ".csv" and not points:
        raise ValueError(f"-o {output}: a table holds points, and {data} holds pictures; take .npy")
    if n is None:
        n = 10_000 if points else 25
    if output and engine:
        _sample_in_parts(
            run, engine, origin, choice, noise, start, label, guidance, n, output, seed, resume
        )
        return
    times: list[int] = []
    shown = 0
    if ending == ".npz":
        times, shown = list(range(count + 1)), n
    elif ending in moving or (ending in stills and points):
        times = even_times(count, 60 if ending in moving else 8)
        shown = min(n, 2000 if points else 25)
    draw.check_memory(source, n, len(times), shown)
    _say_source(run, origin)
    watched = draw.Watched(times, shown)
    with run.progress() as bar:
        plan = origin.plan(choice, noise, start, seed, bar)
        _warn_of_start(run, source, plan, noise, start)
        advance = bar("sampling", count * len(draw.batches(source, n)))
        drawn = draw.draw(source, plan, n, seed, watch=watched, advance=advance)
    x = source.invert(drawn.x)
    if output:
        with writing(output) as temporary:
            if ending == ".npy":
                _write_npy(temporary, x)
            elif ending == ".csv":
                _write_csv(temporary, x, origin.columns)
            elif ending == ".npz":
                trace = watched.trace(plan.schedule)
                _write_frames(temporary, trace, source.standardiser, watched.x_0_hat)
            elif shown:
                _draw_way_back(run, temporary, origin, plan, watched)
            else:
                _draw_samples(run, temporary, x)
    sentence = "start_noise" if plan.start is None else "start_matched"
    say_pairs(
        run,
        {
            "data": origin.spec or "-",
            "target": _target(run, origin),
            "sampler": short(plan.sampler.spec),
            "schedule": f"{short(noise.spec)}, {plan.rule}: {plan.schedule.T}",
            "start": run.text(sentence),
            "samples": f"{n}   seed {seed}",
            "calls": str(drawn.nfe),
            "seconds": f"{drawn.seconds:.2f}",
        },
    )
    if output:
        run.say(run.text("written", path=output))
    run.finish(
        {
            "file": str(output) if output else None,
            "n": n,
            "sampler": plan.sampler.spec,
            "schedule": noise.spec,
            "nfe": drawn.nfe,
            "seconds": drawn.seconds,
            "seed": seed,
            "data": origin.spec,
            "run": str(origin.run.path) if origin.run else None,
            "class": label,
            "guidance": guidance,
            "target": origin.target,
            "start": plan.start_name,
            "spacing": plan.rule,
            "steps": plan.schedule.T,
            "levels": plan.schedule.spec,
            "fit_seconds": plan.fit_seconds,
            "standardised": source.standardiser and source.standardiser.to_dict(),
        }
    )


def _seed(run: Run, engine: "Accelerated | None", begun: Path | None) -> int:
    """What is given; else that of samples that were begun; else one for all processes."""
    from alphabar.shards import read_manifest

    if run.given_seed is None and begun is not None:
        kept = read_manifest(begun).get("seed")
        if isinstance(kept, int):
            return kept
    return run.seed if engine is None else engine.shared(run.seed)


def _sample_in_parts(
    run: Run,
    engine: "Accelerated",
    origin: "Origin",
    choice: "Choice | None",
    noise: "Schedule",
    start: str,
    label: int | None,
    guidance: float | None,
    n: int,
    output: Path,
    seed: int,
    resume: bool,
) -> None:
    """Samples into a folder, each process its own parts."""
    from alphabar import draw
    from alphabar.shards import Shards, begin_shards, open_shards

    source = origin.source
    check_whole("-n", n, 1, 2**40)
    if run.force and resume:
        raise ValueError("--resume goes on with samples and --force replaces them: give one")
    with run.progress() as bar:
        # The first may keep fitted steps, and the others read them.
        plan = engine.first(lambda: origin.plan(choice, noise, start, seed, bar))
        plan = plan or origin.plan(choice, noise, start, seed, bar)
        _warn_of_start(run, source, plan, noise, start)
        about = {
            "origin": origin.spec,
            "run": origin.run and origin.run.config.digest,
            "step": origin.step,
            "seed": seed,
            "sampler": plan.sampler.spec,
            "levels": plan.schedule.spec,
            "start": plan.start_name,
            "class": label,
            "guidance": guidance,
        }

        def begin() -> Shards:
            return begin_shards(output, about, n, source.shape, None, run.force, resume)

        shards = engine.first(begin) or open_shards(output)
        left = shards.missing(engine.rank, engine.size)
        advance = bar("sampling", len(left))
        seconds = 0.0
        try:
            for i in left:
                first, m = shards.part(i)
                drawn = draw.draw(source, plan, m, seed, first)
                shards.write(i, source.invert(drawn.x))
                seconds += drawn.seconds
                advance()
        except (KeyboardInterrupt, SystemExit):
            run.warn(run.text("stopped_samples", folder=output))
            raise
    run.say(run.text("written", path=output))
    run.finish(
        {
            "file": str(output),
            "n": n,
            "parts": shards.count,
            "drawn": len(left),
            "processes": engine.size,
            "schedule": noise.spec,
            "seconds": seconds,
            "seed": seed,
            "spacing": plan.rule,
            **{key: about[key] for key in ("sampler", "levels", "start", "class", "guidance")},
        }
    )


@command
def compare(
    run: Run,
    data: _Origin,
    exact: _Exact = False,
    samplers: Annotated[
        list[str] | None,
        typer.Option(
            "--samplers",
            "--sampler",
            metavar="SPEC…",
            help="Samplers with spaces between; SPEC@RULE has a spacing of its own, and "
            "mixes@fitted fitted coefficients too (ddim heun dpmpp_2m dpmpp_3m unipc).",
        ),
    ] = None,
    nfe: Annotated[
        list[str] | None,
        typer.Option("--nfe", metavar="K…", help="Calls of the denoiser (5 8 12 20 40)."),
    ] = None,
    n: Annotated[
        int | None,
        typer.Option(
            "-n",
            parser=whole,
            metavar="N",
            help="Samples in a draw (10000, or half of a file's rows if these are fewer).",
        ),
    ] = None,
    draws: Annotated[
        int, typer.Option("--draws", parser=whole, metavar="N", help="Draws of each.")
    ] = 10,
    schedule: _MaybeSchedule = None,
    T: T_Option = None,
    spacing: _Spacing = None,
    start: _Start = "auto",
    standardise: Standardise = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", help="The picture (.png .svg .pdf) or the numbers (.csv .json)."),
    ] = None,
    net: NetOfRun = None,
) -> None:
    """Compare samplers: error against calls of the denoiser, beside the floor of true samples."""
    if output:
        check_file(output, (".png", ".svg", ".pdf", ".csv", ".json"), run.force)
    seed = run.seed
    budgets = _budgets(nfe or ["5 8 12 20 40"])
    check_whole("--draws", draws, 1, 1000)
    spacing = spacing or "log_snr"
    from alphabar import draw, metrics
    from alphabar.compare import SET, evaluate, yardstick_of
    from alphabar.origin import truth_of

    use_one_thread()
    origin = _origin(run, data, exact, standardise, seed=seed, net=net)
    noise = _noise_of(origin, schedule, T)
    names = [name for given in samplers or [_COMPARED] for name in given.split()]
    if not names:
        raise ValueError('--samplers "": name one at least, such as heun')
    choices = {}
    for name in names:
        spec, rule = name.rsplit("@", 1) if "@" in name else (name, spacing)
        draw.check_start(start, rule)
        for budget in budgets:
            choice = draw.choose(spec, rule, noise, nfe=budget)
            choices[name, choice.steps] = choice
    source, loaded, standardiser = origin.source, origin.data, origin.source.standardiser
    if origin.kind == "pictures":
        raise ValueError(f"{data} holds pictures: compare scores points; draw some with sample")
    parts = truth_of(origin, seed)
    most = 100_000 if parts is None else len(parts.used)
    n = check_whole("-n", min(SET, most) if n is None else n, 2, most)
    _say_source(run, origin)
    rows: dict[str, list[Row]] = {name: [] for name in names}
    with run.progress() as bar:
        plans = {
            key: draw.make_plan(choice, source, noise, start, seed, bar)
            for key, choice in choices.items()
        }
        _warn_of_start(run, source, max(plans.values(), key=lambda p: p.gap), noise, start)
        reference = bar("reference", 1 if parts else 1 + metrics.FLOOR_SETS)
        yardstick = yardstick_of(loaded, standardiser, parts, n, reference)
        advance = bar("sampling", draws * len(plans))
        for (name, _), plan in plans.items():
            rows[name].append(evaluate(source, plan, yardstick, n, draws, seed, advance))
    truth = "fresh points" if parts is None else "the held-out half of the file"
    document = {
        "data": loaded.spec,
        "schedule": noise.spec,
        "spacing": spacing,
        "target": origin.target,
        "run": str(origin.run.path) if origin.run else None,
        "n": n,
        "seed": seed,
        "reference": truth,
        "floor": math.sqrt(yardstick.floor),
        "compared": [row._asdict() for found in rows.values() for row in found],
        "standardised": standardiser and standardiser.to_dict(),
        "file": str(output) if output else None,
    }
    _say_rows(run, rows, n, math.sqrt(yardstick.floor), parts is None)
    if output:
        with writing(output) as temporary:
            if output.suffix.lower() == ".json":
                temporary.write_text(to_json(document), encoding="utf-8")
            elif output.suffix.lower() == ".csv":
                _write_rows(temporary, rows)
            else:
                from alphabar.figures import Style, error_against_calls

                drawn = {
                    name: [(row.nfe, row.ratio, row.standard_error) for row in found]
                    for name, found in rows.items()
                }
                figure = error_against_calls(drawn, style=Style(lang=run.lang))
                figure.savefig(temporary, dpi=150)
        run.say(run.text("written", path=output))
    run.finish(document)


@command
def score(
    run: Run,
    file: Annotated[str, typer.Argument(metavar="FILE", help="Points: a file, or a spec.")],
    against: Annotated[
        str, typer.Option("--against", metavar="DATA", help="What they should be like.")
    ],
    standardise: Standardise = None,
) -> None:
    """Score points: their distance from data, beside the floor of true samples."""
    use_one_thread()
    from alphabar import metrics
    from alphabar.compare import judge
    from alphabar.data import load

    points = load(file)
    loaded, standardiser = load_data(run, against, standardise)
    for spec, one in ((file, points), (against, loaded)):
        if one.kind == "pictures":
            raise ValueError(f"{spec} holds pictures: score compares points; give a file of them")
    check_columns(file, points.columns, against, loaded.columns)
    with run.progress() as bar:
        advance = bar("reference", 1 + metrics.FLOOR_SETS)
        found = judge(points.x, loaded, standardiser, advance)
    fresh = loaded.fresh is not None
    result = found.score
    if 2 * found.copies >= len(points):
        run.warn(run.text("copies", copies=found.copies, n=len(points), data=against))
    say_pairs(
        run,
        {
            "ratio": f"{result.ratio:.4g}   ({run.text('ratio_is')})",
            "distance": f"{result.value:.4g}",
            "floor": f"{result.floor:.4g}",
            "scored": run.text("scored_are", n=found.n, draws=result.draws),
            "reference": run.text(
                "reference_fresh" if fresh else "reference_rows", n=found.reference, data=against
            ),
        },
    )
    run.finish(
        {
            "metrics": {"sliced_w2": result._asdict()},
            "against": loaded.spec,
            "file": file,
            "n": found.n,
            "reference": "fresh points" if fresh else "the rows of the file",
            "copies": found.copies,
            "standardised": standardiser and standardiser.to_dict(),
        }
    )


@command
def study(
    run: Run,
    data: DataSpec = "swiss_roll",
    schedule: Annotated[
        str, typer.Option("--schedule", help="What the reverse process runs on.")
    ] = "linear",
    T: T_Option = None,
    steps: Annotated[
        int, typer.Option("--steps", parser=whole, metavar="N", help="Training steps.")
    ] = 4000,
    standardise: Standardise = None,
    claim: Annotated[
        bool,
        typer.Option(
            "--claim",
            help="Also test whether schedules that grow beat a constant one: 270 trainings, about "
            "half an hour.",
        ),
    ] = False,
    output: Annotated[Path, typer.Option("-o", help="A folder for the report.")] = Path("study"),
) -> None:
    """From data to noise and back: a report to open."""
    check_folder(output, run.force)
    seed = run.seed
    noise = parse_schedule(schedule, T)
    loaded, standardiser = load_data(run, data, standardise)
    from alphabar.claim import Settings as ClaimSettings
    from alphabar.report import result_lines, write_report
    from alphabar.study import study as work_through

    use_one_thread()
    check_whole("--steps", steps, 1, 10**7)
    _warn_of(run, noise)
    with run.progress() as bar:
        evidence = ClaimSettings() if claim else None
        found = work_through(loaded, standardiser, noise, seed, steps, bar, evidence)
        words = ["alphabar", "study", loaded.spec, "--schedule", noise.spec, "--seed", str(seed)]
        words += ["--steps", str(steps), "--lang", run.lang]
        if standardise is not None:
            words.append("--standardise" if standardise else "--no-standardise")
        if claim:
            words.append("--claim")
        command = shlex.join(words)
        document = write_report(found, output, run.lang, command, bar)
    for line in result_lines(found, run.lang):
        run.say(line)
    run.say(run.text("report", path=document["report"]))
    run.finish(document)


def _origin(
    run: Run,
    spec: str,
    exact: bool,
    standardise: bool | None,
    label: int | None = None,
    guidance: float | None = None,
    seed: int | None = None,
    net: str | None = None,
) -> "Origin":
    """What to draw from; of a file's exact denoiser half its rows, if a seed to cut it is given."""
    from alphabar.compare import halves
    from alphabar.origin import origin_of_data, origin_of_run

    if is_run(spec) and not exact:
        if standardise is not None:
            raise ValueError(
                f"--standardise: {spec} is a run, which knows how it was trained; leave it out"
            )
        return origin_of_run(spec, label, guidance, net)
    if not exact:
        _refuse_untrained(spec)
    if label is not None or guidance is not None:
        raise ValueError(
            "--label and --guidance are for a run that was trained with --classes, and --exact "
            "for data; leave one out"
        )
    loaded, standardiser = load_data(run, spec, standardise)
    parts = None if seed is None or loaded.kind == "pictures" else halves(loaded, seed)
    return origin_of_data(loaded, standardiser, parts and parts.used)


def _noise_of(origin: "Origin", schedule: str | None, T: int | None) -> "Schedule":
    """What levels come from: what is asked for, or a run's own, or `linear`, with -T."""
    from alphabar.origin import SCHEDULE

    own = origin.run.config.schedule if origin.run else None
    return parse_schedule(schedule or own or SCHEDULE, T)


def _refuse_untrained(spec: str) -> NoReturn:
    """Say what is missing where something that is no run is named without --exact."""
    from alphabar.data import load

    try:
        load(spec)
    except (ValueError, OSError) as error:
        raise ValueError(f"{spec}: there is no such run, nor such data ({error})") from None
    raise ValueError(
        f"{spec} names data, and nothing is trained on it: train a run first (alphabar train "
        f"{spec} -o RUN), or add --exact, to draw by its exact denoiser"
    )


def _target(run: Run, origin: "Origin") -> str:
    from alphabar.draw import Known

    if isinstance(origin.source, Known):
        found = "target_law" if origin.source.is_law else "target_items"
        return run.text(found, n=len(origin.source.x))
    return run.text("target_run", run=origin.run and origin.run.path, step=origin.step)


def _show_bug(run: Run, bug: str | None, output: Path | None) -> None:
    """A page of the gallery, and its picture."""
    if output:
        check_file(output, (".png", ".svg", ".pdf"), run.force)
        if bug is None:
            raise ValueError(f"-o {output}: name the bug that it is to show, such as A6")
    from alphabar.check import gallery

    text = gallery.show(bug)
    if output and bug is not None:
        from alphabar.figures import Style

        with writing(output) as temporary:
            gallery.picture(bug, Style(lang=run.lang)).savefig(temporary, dpi=150)
    run.say(text)
    if output:
        run.say(run.text("written", path=output))
    run.finish({"id": bug, "text": text, "file": str(output) if output else None})


def _sampler_or_fitted(sampler: str | None, spacing: str, fit_coefficients: bool) -> str:
    from alphabar.draw import FREE

    if not fit_coefficients:
        return "dpmpp_2m" if sampler is None else sampler
    if sampler is not None:
        raise ValueError(
            f"--sampler {sampler} with --fit-coefficients: the coefficients are the sampler; leave "
            "one of the two out"
        )
    if spacing != "fitted":
        raise ValueError(
            f"--fit-coefficients with --spacing {spacing}: they are fitted together with the "
            "levels; add --spacing fitted"
        )
    return FREE


def _budgets(given: list[str]) -> list[int]:
    """Whole numbers with commas or spaces between, each once, rising."""
    words = [word for text in given for word in text.replace(",", " ").split()]
    if not words:
        raise ValueError('--nfe "": give one number of calls at least, such as 20')
    return sorted({whole(word) for word in words})


def _say_source(run: Run, origin: "Origin") -> None:
    from alphabar.draw import Known

    if isinstance(origin.source, Known) and not origin.source.is_law:
        run.warn(run.text("finite", data=origin.spec, n=len(origin.source.x)))


def _warn_of_start(
    run: Run, source: "Source", plan: "Plan", schedule: "Schedule", start: str
) -> None:
    """Where x_T starts, if that is not N(0, I); and where the schedule does not suit the data."""
    from alphabar.draw import FITTED

    if plan.gap > source.tolerance and start != "matched" and plan.rule not in FITTED:
        run.warn(run.text("far_" + plan.start_name, gap=f"{plan.gap:.3g}"))
    spread = source.spread
    if not spread or plan.rule in FITTED:
        return
    from alphabar.draw import Known

    items = isinstance(source, Known) and not source.is_law and source.x.ndim == 2
    if source.standardiser is None and items:
        remedy = "--standardise"
    else:
        centre = -2 * math.log(spread)
        remedy = f"--schedule log_snr:start={centre + 10:.1f},end={centre - 10:.1f}"
    top, bottom = plan.schedule[plan.schedule.T], schedule[1]
    for code, level, wrong in (
        ("data_shows", top, top.sigma < 2 * spread * top.alpha),
        ("data_hidden", bottom, bottom.sigma > spread * bottom.alpha / 2),
    ):
        if wrong:
            noise = f"{(level.sigma / level.alpha).item():.3g}"
            run.warn(run.text(code, noise=noise, spread=f"{spread:.3g}", remedy=remedy))


def _say_rows(
    run: Run, rows: "Mapping[str, Iterable[Row]]", n: int, floor: float, fresh: bool
) -> None:
    heads = ("sampler", "spacing", "calls", "ratio", "error", "seconds")
    table = new_table(*map(run.text, heads))
    for name, found in rows.items():
        for row in found:
            error = "-" if row.standard_error is None else f"{row.standard_error:.2g}"
            table.add_row(
                short(name.partition("@")[0]),
                row.spacing,
                str(row.nfe),
                f"{row.ratio:.3f}",
                error,
                f"{row.seconds:.2f}",
            )
    run.say(table)
    run.say(run.text("floor_fresh" if fresh else "floor_half", n=n, floor=f"{floor:.4g}"))


def _write_rows(path: Path, rows: "Mapping[str, Iterable[Row]]") -> None:
    import csv

    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        lines = [row._asdict() for found in rows.values() for row in found]
        writer.writerow(lines[0])
        writer.writerows(line.values() for line in lines)


def _write_npy(path: Path, x: "Tensor") -> None:
    import numpy as np

    with path.open("wb") as file:
        np.save(file, x.numpy())


def _write_csv(path: Path, x: "Tensor", columns: Iterable[str]) -> None:
    """The digits that it takes to read the same numbers back."""
    import csv

    import numpy as np

    digits = 17 if x.dtype.itemsize == 8 else 9
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerow(columns)
        np.savetxt(file, x.numpy(), fmt=f"%.{digits}g", delimiter=",")


def _draw_samples(run: Run, path: Path, x: "Tensor") -> None:
    """A page of pictures."""
    from alphabar.figures import Style, data_cloud

    style = Style(lang=run.lang)
    title = style.text("panel", "samples", n=f"{len(x):,}")
    data_cloud(x, title=title, style=style).savefig(path, dpi=150)


def _draw_way_back(
    run: Run, path: Path, origin: "Origin", plan: "Plan", watched: "Watched"
) -> None:
    """The reverse process; a point has the hue of the place where it ends."""
    from alphabar.figures import Style, animation, strip

    style = Style(lang=run.lang)
    trace = watched.trace(plan.schedule).to_vp()
    hue, columns = None, None
    if origin.kind == "points":
        hue, columns = origin.hue(trace.x[-1]), origin.columns
    if path.suffix.lower() not in (".gif", ".mp4"):
        figure = strip(
            trace.x,
            trace.times,
            trace.alpha_bar,
            hue,
            x_0_hat=watched.x_0_hat,
            columns=columns,
            style=style,
        )
        figure.savefig(path, dpi=150)
        return
    frames = len(trace.times)
    with run.progress() as bar:
        animation(
            trace.x,
            trace.times,
            trace.alpha_bar,
            hue,
            path,
            fps=min(20, max(2, frames // 3)),  # three seconds, if the steps are few
            columns=columns,
            style=style,
            advance=bar("frames", frames),
        )


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


def _write_frames(
    path: Path,
    traced: "Trace",
    standardiser: "Standardiser | None",
    x_0_hat: "list[Tensor] | None" = None,
) -> None:
    import numpy as np
    import torch

    arrays = {
        "x": torch.stack(traced.x).numpy(),
        "t": np.array(traced.times),
        "alpha_bar": np.array(traced.alpha_bar),
    }
    if x_0_hat is not None:
        arrays["x_0_hat"] = torch.stack(x_0_hat).numpy()
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
    table = new_table(
        "spec", "ᾱ_T", "SNR_T", "KL", "ᾱ ≤ ½", run.text("largest_step"), "β", "ᾱ", "λ"
    )
    for schedule, one in zip(parsed, described, strict=True):
        end, step = one["terminal"], one["largest_step"]
        table.add_row(
            short(one["spec"], 80),
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
        table = new_table("t", *columns)
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


import alphabar.learn  # noqa: E402  its commands come last in --help
import alphabar.restoring  # noqa: E402, F401

if __name__ == "__main__":
    main()
