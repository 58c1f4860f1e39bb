"""Commands of what is learned: train, evaluate, decompose. No maths here.

torch is imported by the commands that need it, so that `alphabar --help` answers at once.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from alphabar.arguments import check_whole
from alphabar.frame import (
    Bar,
    NetOfRun,
    Run,
    Standardise,
    T_Option,
    check_columns,
    command,
    is_run,
    load_data,
    new_table,
    parse_schedule,
    say_pairs,
    short,
    to_json,
    use_one_thread,
    whole,
)
from alphabar.output import check_file, writing

if TYPE_CHECKING:
    from torch import Tensor

    from alphabar.compare import Halves
    from alphabar.config import Config
    from alphabar.data import Data
    from alphabar.data import Standardiser as Scaling
    from alphabar.decompose import Decomposition
    from alphabar.draw import Choice
    from alphabar.engine import Accelerated
    from alphabar.excess import Excess, ExcessLoss
    from alphabar.origin import Origin
    from alphabar.runs import Training
    from alphabar.targets import Target

# Of training, if neither steps nor seconds are given: one a point, as more would teach few points
# by heart and many have little left to teach (docs/training.md).
LEAST, MOST = 200, 5000
LEVELS = 20  # at which the excess loss is measured while training
DRAWS = 10

_Sampler = Annotated[str | None, typer.Option("--sampler", help="A sampler's spec.")]
_Few = Annotated[
    int | None, typer.Option("--steps", parser=whole, metavar="K", help="Steps from noise to data.")
]
_Calls = Annotated[
    int | None, typer.Option("--nfe", parser=whole, metavar="K", help="In place of --steps: calls.")
]
_Spacing = Annotated[str | None, typer.Option("--spacing", help="As of `alphabar sample`.")]
_Draws = Annotated[
    int, typer.Option("--draws", parser=whole, metavar="N", help="Independent sets of samples.")
]
_Count = Annotated[
    int | None, typer.Option("-n", parser=whole, metavar="N", help="Samples in a set (10000).")
]


@command
def train(
    run: Run,
    data: Annotated[
        str | None,
        typer.Argument(metavar="DATA", help="A data set's spec or a file; not with --resume."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", metavar="RUN", help="The run's folder.")
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps", parser=whole, metavar="N", help="Steps (one a point, 200 to 5000)."
        ),
    ] = None,
    seconds: Annotated[
        float | None, typer.Option("--seconds", metavar="S", help="In place of --steps: how long.")
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(
            "--schedule", help="Noise levels from this schedule, t uniform; and to sample on."
        ),
    ] = None,
    T: T_Option = None,
    levels: Annotated[
        str | None,
        typer.Option(
            "--levels", help="Noise levels from a density: logistic, normal, uniform, cosine."
        ),
    ] = None,
    net: Annotated[
        str | None, typer.Option("--net", help="A network's spec, such as mlp:width=128.")
    ] = None,
    predicts: Annotated[
        str | None, typer.Option("--predicts", help="edm, x_0, eps, v, score or flow (edm).")
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option(
            "--objective", help="edm, simple, v, min_snr, vlb, hybrid, … (as --predicts)."
        ),
    ] = None,
    batch: Annotated[
        int | None, typer.Option("--batch", parser=whole, metavar="N", help="Items a step.")
    ] = None,
    rate: Annotated[float | None, typer.Option("--rate", help="The highest learning rate.")] = None,
    weight_decay: Annotated[float | None, typer.Option("--weight-decay", help="Of AdamW.")] = None,
    classes: Annotated[
        bool, typer.Option("--classes", help="Condition on the data's labels.")
    ] = False,
    drop: Annotated[
        float | None, typer.Option("--drop", help="How often the class is withheld, for guidance.")
    ] = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="Draw fresh points all the time, where that can be.")
    ] = False,
    hold_out: Annotated[
        bool | None,
        typer.Option(
            "--hold-out/--no-hold-out",
            help="Of a file, keep half to judge samples by (default: yes).",
        ),
    ] = None,
    standardise: Standardise = None,
    track: Annotated[
        str | None,
        typer.Option(
            "--track", help="Trackers to log to as well, such as tensorboard; names with spaces."
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run from its last checkpoint.")
    ] = False,
) -> None:
    """Train a denoiser on data; the run is a folder, to sample from and to evaluate."""
    if output is None:
        raise ValueError("train needs -o RUN, the folder that the run is kept in")
    if T is not None and schedule is None:
        raise ValueError(f"-T {T}: it is the T of a schedule; add --schedule, such as linear")
    use_one_thread()
    given: dict[str, Any] = {
        "steps": steps,
        "seconds": seconds,
        "net": net,
        "predicts": predicts,
        "objective": objective,
        "levels": levels,
        "schedule": None if schedule is None else parse_schedule(schedule, T).spec,
        "batch": batch,
        "rate": rate,
        "weight_decay": weight_decay,
        "drop": drop,
        "stream": stream or None,
        "held_out": hold_out,
    }
    given = {key: value for key, value in given.items() if value is not None}
    engine = _engine(track, output)
    if engine.rank:
        run = replace(run, quiet=True, as_json=False)  # of several one speaks
    begun = _resumed if resume else _begun
    training, config, loaded = begun(run, engine, output, data, given, classes, standardise)
    try:
        with training, run.progress() as bar:
            _train(training, engine, config, loaded, bar)
            if engine.rank:
                return  # the first process says what came of it
            from alphabar.origin import origin_of_run

            origin = origin_of_run(str(output), net=config.net)
            plan = None
            if origin.has_own_steps:
                plan = origin.plan(None, origin.schedule, "auto", config.seed, bar)
    except (KeyboardInterrupt, SystemExit):
        run.warn(run.text("stopped", run=output))
        raise
    lines = training.run.metrics()
    loss, excess = (lines[-1].loss, lines[-1].excess_loss) if lines else (None, None)
    shown = "-" if loss is None else f"{loss:.4g}"
    if excess is not None:
        shown += f"   ({run.text('excess_is', excess=f'{100 * excess:.3g} %')})"
    say_pairs(
        run,
        {
            "run": str(output),
            "data": config.data or "-",
            "steps": f"{origin.step}   seed {config.seed}",
            "seconds": f"{origin.seconds:.1f}",
            "loss": shown,
            "own_steps": "-" if plan is None else f"{plan.schedule.T}",
        },
    )
    run.say(run.text("trained_next", run=output))
    run.finish(
        {
            "run": str(output),
            "seconds": origin.seconds,
            "steps": origin.step,
            "loss": loss,
            "excess_loss": excess,
            "seed": config.seed,
            "fit_seconds": plan and plan.fit_seconds,
            "spec": config.to_dict(),
        }
    )


def _engine(track: str | None, output: Path) -> "Accelerated":
    """Where to train, as `accelerate launch` or the lack of it says."""
    from accelerate import Accelerator

    from alphabar.engine import Accelerated, check_trackers

    names = check_trackers((track or "").split())
    return Accelerated(Accelerator(log_with=names or None, project_dir=output))


def _begun(
    run: Run,
    engine: "Accelerated",
    output: Path,
    data: str | None,
    given: dict[str, Any],
    classes: bool,
    standardise: bool | None,
) -> "tuple[Training, Config, Data]":
    """A new run: all is tried out before anything is written."""
    from alphabar.config import configure
    from alphabar.runs import RunFolder, begin, join
    from alphabar.train import check_shares

    if data is None:
        raise ValueError(
            "train needs DATA, such as swiss_roll or mine.csv; alphabar data lists them"
        )
    loaded, standardiser = load_data(run, data, standardise)
    if not given.keys() & {"steps", "seconds"}:
        given["steps"] = MOST if given.get("stream") else min(max(LEAST, len(loaded)), MOST)
    if "drop" in given and not classes:
        raise ValueError(
            f"--drop {given['drop']:g}: it is the class that is withheld; add --classes"
        )
    if classes and given.get("stream"):
        raise ValueError("--classes and --stream: fresh points come without classes; give one")
    if classes and loaded.labels is None:
        raise ValueError(f"--classes: {loaded.spec} has no labels; take gaussians or digits, say")
    is_file = loaded.fresh is None and (loaded.kind == "points" or loaded.held_out is not None)
    if given.get("held_out") and not is_file:
        raise ValueError(f"--hold-out: {data} can be drawn afresh, or is one picture; leave it out")
    _refuse_too_large(loaded, given)
    condition = loaded.labels if classes else None
    config, lessons = configure(
        loaded,
        standardiser,
        engine.shared(run.seed),
        condition=condition,
        **{"held_out": is_file} | given,
    )
    check_shares(config.batch, engine)
    if config.held_out:
        run.warn(run.text("held_out", n=len(loaded) - config.n, of=len(loaded)))
    for remark in lessons.remarks():
        run.warn(run.text(remark.key, **remark.values))
    training = engine.first(lambda: begin(output, config, lessons, run.force, engine))
    return training or join(RunFolder(output, config, config.net), lessons, engine), config, loaded


def _refuse_too_large(data: "Data", given: dict[str, Any]) -> None:
    """Refuse a network or a batch that memory could not hold; nothing is allocated yet."""
    import torch

    from alphabar.draw import MEMORY
    from alphabar.nets import recipe
    from alphabar.train import Settings

    batch = given.get("batch", Settings().batch)
    with torch.device("meta"):
        net = recipe(given.get("net", "mlp")).build(tuple(data.x.shape[1:]), 0)
    weights = sum(weight.numel() for weight in net.parameters())
    hidden = sum(getattr(module, "out_features", 0) for module in net.modules())
    # Weights, average, gradient, two moments, and copies of all but the gradient to be written;
    # of an item its way through the network and back.
    size = 4 * (9 * weights + batch * (8 * data.x[0].numel() + 3 * hidden))
    if size > MEMORY:
        raise ValueError(
            f"a network of {weights:.3g} weights and a batch of {batch} need {size / 2**30:.3g} "
            f"GiB, more than the {MEMORY / 2**30:.0f} allowed: take a smaller --net or --batch, or "
            "smaller items"
        )


def _resumed(
    run: Run,
    engine: "Accelerated",
    output: Path,
    data: str | None,
    given: dict[str, Any],
    classes: bool,
    standardise: bool | None,
) -> "tuple[Training, Config, Data]":
    """A run to go on with, as it was begun."""
    from alphabar.config import lessons_of
    from alphabar.data import load
    from alphabar.runs import join, open_run, resume
    from alphabar.train import check_shares

    if run.force:
        raise ValueError("--resume goes on with a run and --force replaces it: give one of the two")
    folder = open_run(output, given.get("net"))
    config = folder.config
    config.check_given({**given, "seed": run.given_seed})
    is_scaled = config.standardiser is not None
    if (classes and not config.classes) or standardise is (not is_scaled):
        option = "--classes" if standardise is None else "--standardise or --no-standardise"
        raise ValueError(
            f"{option}: this run was begun in another way, and goes on as it was begun; leave the "
            "option out, or train another"
        )
    spec = data or config.data
    if spec is None:
        raise ValueError(f"{output} was trained on tensors, which are not kept: go on in Python")
    loaded = load(spec)
    lessons = lessons_of(config, loaded)
    check_shares(config.batch, engine)
    training = engine.first(lambda: resume(folder, lessons, engine))
    return training or join(folder, lessons, engine), config, loaded


def _train(
    training: "Training", engine: "Accelerated", config: "Config", data: "Data", bar: Bar
) -> None:
    """All steps, with a progress bar of steps, or of thousandths of seconds."""
    advance = bar("training", config.steps or round(1000 * (config.seconds or 0)))
    before = 0.0
    with engine.tracking(training.run.path.name, config.to_dict()) as track:
        for step, line in training.steps(_probe(config, data)):
            done = step.step if config.steps else 1000 * step.seconds
            advance(done - before)
            before = done
            if line is None:
                continue
            track(line._asdict())
            excess = line.excess_loss
            more = "" if excess is None else f"  excess {100 * excess:.3g} %"
            advance.say(f"loss {line.loss:.4g}{more}")


def _probe(config: "Config", data: "Data") -> "Excess | None":
    """What measures the excess loss, where the exact law is known in the units of the run."""
    from alphabar.excess import Excess, even_log_snr

    if data.target is None or config.standardiser is not None:
        return None
    return Excess(data.target(), even_log_snr(LEVELS), n_each=256, seed=1)


@command
def evaluate(
    run: Run,
    what: Annotated[str, typer.Argument(metavar="RUN|FILE", help="A run, or a file of samples.")],
    against: Annotated[
        str | None,
        typer.Option(
            "--against", metavar="DATA", help="The truth (of a run, what it was trained on)."
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option("--metrics", help="Names with spaces between; energy and mmd on request."),
    ] = None,
    n: _Count = None,
    draws: _Draws = DRAWS,
    sampler: _Sampler = None,
    steps: _Few = None,
    nfe: _Calls = None,
    spacing: _Spacing = None,
    net: NetOfRun = None,
    likelihood: Annotated[
        bool,
        typer.Option(
            "--likelihood",
            help="Of a run: also how likely true points are by it, and the variational bound.",
        ),
    ] = False,
    features: Annotated[
        str | None,
        typer.Option(
            "--features",
            metavar="MODULE:NAME",
            help="Of pictures: compare in your own features as well, by a function or a module.",
        ),
    ] = None,
    standardise: Standardise = None,
    output: Annotated[Path | None, typer.Option("-o", help="The numbers (.json .csv).")] = None,
) -> None:
    """Evaluate samples: distances, coverage, memorisation, each beside what truth itself scores."""
    if output:
        check_file(output, (".json", ".csv"), run.force)
    use_one_thread()
    check_whole("--draws", draws, 1, 1000)
    from alphabar.evaluate import chosen, evaluation, evaluation_length
    from alphabar.origin import training_of

    names = chosen(None if metrics is None else metrics.split())
    way = (sampler, steps, nfe, spacing)
    document: dict[str, Any]
    with run.progress() as bar:
        if not is_run(what):
            if likelihood or features or any(value is not None for value in way):
                raise ValueError(
                    f"{what} is no run: --sampler, --steps, --nfe, --spacing, --features and "
                    "--likelihood are for one; leave them out"
                )
            truth, sets = _file(run, what, against, n, draws, standardise)
            # Points that can be drawn afresh are known by their own set, which others train on too.
            seen = None if truth.data.fresh is None else truth.data.x
            document = {"file": what}
            advance = bar("evaluating", evaluation_length(names))
            document |= evaluation(sets, *truth, seen, names, run.seed, advance)
        elif (way_ := _chosen(what, *way, net))[0].kind == "pictures":
            if metrics is not None or likelihood or standardise is not None:
                raise ValueError(
                    f"{what} draws pictures, which are measured in one way: leave out --metrics, "
                    "--likelihood and --standardise"
                )
            document = _pictures(*way_, against, n, draws, features, run.seed, bar)
        else:
            if features is not None:
                raise ValueError(f"--features: {what} draws points; they are compared as they are")
            origin, choice = way_
            truth = _truth_of_run(run, origin, against, standardise)
            seen = training_of(origin)
            sets, document = _samples(origin, choice, n, draws, truth, run.seed, bar)
            if likelihood:
                document["likelihood"] = _likelihood(origin, truth, run.seed, bar)
            advance = bar("evaluating", evaluation_length(names))
            document |= evaluation(sets, *truth, seen, names, run.seed, advance)
    _say_metrics(run, document)
    if output:
        with writing(output) as temporary:
            if output.suffix.lower() == ".json":
                temporary.write_text(to_json(document), encoding="utf-8")
            else:
                _write_csv(temporary, document["metrics"])
        run.say(run.text("written", path=output))
    run.finish({**document, "written": str(output) if output else None})


def _pictures(
    origin: "Origin",
    choice: "Choice | None",
    against: str | None,
    n: int | None,
    draws: int,
    features: str | None,
    seed: int,
    bar: Bar,
) -> dict[str, Any]:
    """What the pictures of a run are worth."""
    from alphabar.data import load
    from alphabar.evaluate_pictures import (
        LEAST,
        MOST,
        Pictures,
        checked,
        evaluate_pictures,
        evaluation_length,
    )
    from alphabar.imports import imported
    from alphabar.origin import truth_of

    extract = None if features is None else imported(features, "--features")
    parts = truth_of(origin, seed)
    assert origin.run is not None
    assert parts is not None
    data = origin.data
    used, held = (
        Pictures(data.x[rows], None if data.labels is None else data.labels[rows]) for rows in parts
    )
    if against is not None:
        other = load(against)
        origin.run.config.check_items(tuple(other.x.shape[1:]), against)
        held = Pictures(other.x, other.labels)
    most = min(MOST, len(held.x))
    held = held.evenly(check_whole("-n", most if n is None else n, min(LEAST, most), most))
    if extract is not None:
        checked(extract)(held.x[:2])  # before the samples are drawn
    asked = held.labels if origin.run.config.classes else None
    sets, how = _drawn(origin, choice, len(held.x), draws, seed, bar, asked)
    advance = bar("evaluating", evaluation_length(extract is not None))
    found = evaluate_pictures(sets, used, held, asked, seed, extract, advance)
    return how | {
        "metrics": {name: one.to_dict() for name, one in found.items()},
        "against": against or data.spec,
        "reference": "held-out pictures",
        "n": len(held.x),
        "draws": draws,
        "seed": seed,
    }


class _Truth(NamedTuple):
    """What samples are held against."""

    data: "Data"
    standardiser: "Scaling | None"
    parts: "Halves | None"  # rows that were trained on, and others; None where all are truth


def _truth_of_run(
    run: Run, origin: "Origin", against: str | None, standardise: bool | None
) -> _Truth:
    from alphabar.origin import truth_of

    _refuse_pictures(str(origin.run and origin.run.path), origin.kind)
    if against is not None:
        data, standardiser = load_data(run, against, standardise)
        _refuse_pictures(against, data.kind)
        check_columns("the run", origin.columns, against, data.columns)
        return _Truth(data, standardiser, None)
    if standardise is not None:
        raise ValueError("--standardise: a run knows its units; leave it out, or add --against")
    return _Truth(origin.data, origin.source.standardiser, truth_of(origin, run.seed))


def _file(
    run: Run, path: str, against: str | None, n: int | None, draws: int, standardise: bool | None
) -> "tuple[_Truth, list[Tensor]]":
    """The truth, and the rows of a file in sets of n."""
    from alphabar.compare import SET
    from alphabar.data import load
    from alphabar.shards import is_shards, open_shards

    if against is None:
        raise ValueError(f"{path} is no run: add --against DATA, what it should be like")
    data, standardiser = load_data(run, against, standardise)
    _refuse_pictures(against, data.kind)
    if is_shards(path):
        shards = open_shards(Path(path))
        if shards.shape != tuple(data.x.shape[1:]):
            raise ValueError(
                f"{path} holds samples of shape {shards.shape}, and {against} items of shape "
                f"{tuple(data.x.shape[1:])}: give data of that shape"
            )
        most, rows = shards.n, shards.read
    else:
        points = load(path)
        _refuse_pictures(path, points.kind)
        check_columns(path, points.columns, against, data.columns)
        most, rows = len(points), lambda first, m: points.x[first : first + m]
    n = check_whole("-n", min(SET, most) if n is None else n, 2, most)
    sets = [rows(i * n, n) for i in range(min(draws, most // n))]
    return _Truth(data, standardiser, None), sets


def _refuse_pictures(name: str, kind: str) -> None:
    if kind == "pictures":
        raise ValueError(f"{name} holds pictures: this command compares points")


def _likelihood(origin: "Origin", truth: _Truth, seed: int, bar: Bar) -> dict[str, Any]:
    from alphabar.nats import integers_of, nats, true_points

    assert origin.run is not None
    data, source, schedule = truth.data, origin.source, origin.schedule
    found = nats(
        origin.run.denoiser(),
        true_points(data, truth.parts, seed),
        source.standardiser,
        schedule,
        None if source.is_large else source.law,
        seed,
        None if data.target is None else data.target(),
        integers_of(data.x) if data.fresh is None else None,
        bar("likelihood", 1 + schedule.T),
    )
    return found.to_dict()


def _say_metrics(run: Run, document: dict[str, Any]) -> None:
    heads = ("metric", "value", "interval", "floor", "ratio", "p")
    table = new_table(*map(run.text, heads))
    for name, one in document["metrics"].items():
        if one["value"] is None:
            table.add_row(name, "-", short(one["reason"] or "", 70))
            continue
        interval = "-" if one["low"] is None else f"{one['low']:.4g} … {one['high']:.4g}"
        rest = ("-" if one[k] is None else f"{one[k]:.4g}" for k in ("floor", "ratio", "p_value"))
        table.add_row(name, f"{one['value']:.4g}", interval, *rest)
    run.say(table)
    keys = ("n", "draws", "reference")
    shown = {key: document[key] for key in keys}
    shown["reference"] = run.text("truth_" + str(document["reference"]).replace(" ", "_"))
    run.say(run.text("evaluated", **shown))
    if "likelihood" in document:
        _say_nats(run, document["likelihood"])


def _say_nats(run: Run, found: dict[str, Any]) -> None:
    """−log p̂, the bound with its parts, the entropy; nats a dimension."""
    table = new_table(*(run.text(key) for key in ("nats", "value", "error")))
    bound = found["bound"]
    rows = [("bound", bound["total"], bound["standard_error"])]
    rows += [(key, bound[key], None) for key in ("prior", "diffusion", "reconstruction")]
    for key in ("nll", "entropy", "divergence"):
        if found[key] is not None:
            one = found[key]
            rows.append((key, one["nats_per_dim"], one["standard_error_per_dim"]))
    for key, value, error in rows:
        table.add_row(
            run.text(f"nats_{key}"), f"{value:.4f}", "" if error is None else f"{error:.2g}"
        )
    run.say(table)
    run.say(run.text("nats_are", n=found["n"]))
    if bound["bits"] is not None:
        low, high = bound["integers"]
        run.say(run.text("bits_are", bits=f"{bound['bits']:.4f}", low=low, high=high))
    if found["reason"]:
        run.warn(found["reason"].partition(";")[0])


def _write_csv(path: Path, metrics: dict[str, dict[str, Any]]) -> None:
    import csv

    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["metric", *next(iter(metrics.values()))])
        for name, one in metrics.items():
            writer.writerow([name, *one.values()])


def _chosen(
    path: str,
    sampler: str | None,
    steps: int | None,
    nfe: int | None,
    spacing: str | None,
    net: str | None,
) -> "tuple[Origin, Choice | None]":
    """A run, and how to draw from it; None: by its own steps."""
    from alphabar import draw
    from alphabar.origin import origin_of_run

    origin = origin_of_run(path, net=net)
    if origin.has_own_steps and all(v is None for v in (sampler, steps, nfe, spacing)):
        return origin, None
    rule = spacing or "log_snr"
    return origin, draw.choose(sampler or "dpmpp_2m", rule, origin.schedule, steps, nfe)


def _samples(
    origin: "Origin",
    choice: "Choice | None",
    n: int | None,
    draws: int,
    truth: _Truth,
    seed: int,
    bar: Bar,
) -> "tuple[list[Tensor], dict[str, Any]]":
    """Independent sets of n samples in the data's units, and how they were drawn."""
    return _drawn(origin, choice, _size(n, truth), draws, seed, bar)


def _drawn(
    origin: "Origin",
    choice: "Choice | None",
    n: int,
    draws: int,
    seed: int,
    bar: Bar,
    asked: "Tensor | None" = None,
) -> "tuple[list[Tensor], dict[str, Any]]":
    """The same, each set with as many samples of a class as are asked for."""
    import torch

    from alphabar.draw import draw

    plan = origin.plan(choice, origin.schedule, "auto", seed, bar)
    parts = [(origin.source, torch.arange(n))]
    if asked is not None:
        parts = [
            (origin.source_of_class(int(c)), (asked == c).nonzero().flatten())
            for c in torch.unique(asked)
        ]
    advance = bar("sampling", draws * len(parts))
    sets, seconds, calls = [], 0.0, 0
    for i in range(draws):
        x, first = torch.empty(n, *origin.source.shape, dtype=torch.float64), i * n
        for source, rows in parts:
            drawn = draw(source, plan, len(rows), seed, first)
            x[rows] = source.invert(drawn.x).double()
            first += len(rows)
            seconds, calls = seconds + drawn.seconds, drawn.nfe
            advance()
        sets.append(x)
    how = {
        "sampler": plan.sampler.spec,
        "spacing": plan.rule,
        "nfe": calls,
        "levels": plan.schedule.spec,
        "start": plan.start_name,
        "seconds": seconds,
    }
    return sets, {"run": str(origin.run and origin.run.path), "step": origin.step, "sample": how}


def _size(n: int | None, truth: _Truth) -> int:
    """Points in a set: no more than truth has."""
    from alphabar.compare import SET

    if truth.data.fresh is not None:
        most = SET
    else:
        most = min(SET, len(truth.data if truth.parts is None else truth.parts.used))
    return check_whole("-n", most if n is None else n, 2, most)


@command
def decompose(
    run: Run,
    path: Annotated[str, typer.Argument(metavar="RUN", help="A run's folder.")],
    n: _Count = None,
    draws: _Draws = DRAWS,
    sampler: _Sampler = None,
    steps: _Few = None,
    nfe: _Calls = None,
    spacing: _Spacing = None,
    net: NetOfRun = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", help="The parts as a picture (.png .svg .pdf), or the numbers (.json)."),
    ] = None,
    levels: Annotated[
        Path | None,
        typer.Option(
            "--levels", help="A picture of the levels where the model errs (.png .svg .pdf)."
        ),
    ] = None,
) -> None:
    """Take a run's error apart: the model, the few steps, the noise of the samples."""
    pictures = (".png", ".svg", ".pdf")
    if output:
        check_file(output, (*pictures, ".json"), run.force)
    if levels:
        check_file(levels, pictures, run.force, "--levels")
    if output and levels and output.resolve() == levels.resolve():
        raise ValueError(f"-o {output} and --levels {levels}: these are one file; name two")
    use_one_thread()
    check_whole("--draws", draws, 1, 1000)
    from alphabar.compare import yardstick_of
    from alphabar.decompose import Way, finely
    from alphabar.decompose import decompose as take_apart
    from alphabar.excess import Excess, even_log_snr
    from alphabar.metrics import FLOOR_SETS
    from alphabar.targets import Points

    origin, choice = _chosen(path, sampler, steps, nfe, spacing, net)
    if choice is not None and getattr(choice.sampler, "variance", None) == "learned":
        raise ValueError(
            f"--sampler {sampler}: the run is compared with the exact denoiser, which has learned "
            "no variance; choose posterior or beta"
        )
    truth = _truth_of_run(run, origin, None, None)
    seed, source, parts = run.seed, origin.source, truth.parts
    target, training = _exact(run, origin, truth)
    n = _size(n, truth)
    with run.progress() as bar:
        plan = origin.plan(choice, origin.schedule, "auto", seed, bar)
        few = Way(plan.sampler, plan.schedule, plan.start)
        many = finely(origin.schedule, source.law)
        reference = bar("reference", 1 if parts else 1 + FLOOR_SETS)
        yardstick = yardstick_of(*truth, n, reference)
        found = take_apart(
            source.denoiser,
            target,
            few,
            many,
            yardstick,
            n,
            draws,
            seed,
            training,
            advance=bar("sampling", 4 * draws),
        )
        excess = Excess(target, even_log_snr(40), n_each=512, seed=1)(source.denoiser)
    _say_parts(run, found)
    worst = (excess.weight * excess.excess).argmax()
    run.say(
        run.text(
            "excess_line",
            share=f"{100 * excess.share:.3g}",
            nats=f"{excess.nats:.3g}",
            log_snr=f"{excess.log_snr[worst]:.1f}",
        )
    )
    document = {
        "run": path,
        "seed": seed,
        "sampler": plan.sampler.spec,
        "levels": plan.schedule.spec,
        "target": "items" if isinstance(target, Points) else "law",
        **found.to_dict(),
        "excess": _excess_dict(excess),
    }
    _draw_parts(run, output, levels, found, excess, document)
    run.finish({**document, "file": str(output) if output else None})


def _exact(run: Run, origin: "Origin", truth: _Truth) -> "tuple[Target, Tensor | None]":
    """The exact target to hold the run against, and the points that the run has seen of it."""
    from alphabar.origin import training_of
    from alphabar.targets import Points

    data, standardiser, parts = truth
    assert origin.run is not None
    if data.target is not None:
        if standardiser is not None:
            raise ValueError(
                f"{origin.run.path} was trained on standardised {data.spec}, whose law is known in "
                "its own units alone: train without --standardise"
            )
        return data.target(), training_of(origin)
    x = data.x if parts is None else data.x[parts.used]
    run.warn(run.text("against_items", n=len(x)))
    return Points(x if standardiser is None else standardiser.apply(x)), None


def _say_parts(run: Run, found: "Decomposition") -> None:
    table = new_table(*(run.text(key) for key in ("part", "floors", "error")))
    for part in found.rows():
        error = "-" if part.floors_error is None else f"{part.floors_error:.2g}"
        table.add_row(run.text(f"part_{part.name}"), f"{part.floors:+.3f}", error)
    run.say(table)
    run.say(
        run.text(
            "parts_line",
            ratio=f"{found.ratio:.3f}",
            steady=f"{found.steady_ratio:.3f}",
            blame=run.text("part_none" if found.blame is None else f"part_{found.blame.name}"),
        )
    )
    if found.inherited is not None:
        run.say(run.text("inherited_line", share=f"{found.inherited.share:.2f}"))


def _excess_dict(excess: "ExcessLoss") -> dict[str, Any]:
    values = (excess._asdict() | {"nats": excess.nats}).items()
    return {key: v if isinstance(v, int | float) else v.tolist() for key, v in values}


def _draw_parts(
    run: Run,
    output: Path | None,
    levels: Path | None,
    found: "Decomposition",
    excess: "ExcessLoss",
    document: dict[str, Any],
) -> None:
    from alphabar.figures import Style, error_parts, excess_by_level

    style = Style(lang=run.lang)
    if output:
        with writing(output) as temporary:
            if output.suffix.lower() == ".json":
                temporary.write_text(to_json(document), encoding="utf-8")
            else:
                inherited = found.inherited and found.inherited.floors
                parts = {str(part.name): (part.floors, part.floors_error) for part in found.rows()}
                error_parts(parts, inherited=inherited, style=style).savefig(temporary, dpi=150)
        run.say(run.text("written", path=output))
    if levels:
        with writing(levels) as temporary:
            figure = excess_by_level(
                excess.log_snr,
                excess.excess,
                excess.optimum,
                excess.weight,
                excess.excess_error,
                style=style,
            )
            figure.savefig(temporary, dpi=150)
        run.say(run.text("written", path=levels))
