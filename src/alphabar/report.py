"""Writes a study up: figures as files, one self-contained page, and `summary.json`.

The page holds its pictures and formulas itself (SVG by ziamath, no script, no font, no request),
so it opens from a disk, in a mail, in ten years.
"""

import base64
import html
import io
import json
import math
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import torch
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image

from alphabar.claim import Claim, Interval
from alphabar.decompose import Decomposition
from alphabar.derivations import FORMULAS, derivations
from alphabar.diagnosis import REACHES_NOISE, remedies, terminal
from alphabar.excess import ExcessLoss
from alphabar.figures import (
    Style,
    animation,
    data_cloud,
    density_and_score,
    error_against_calls,
    error_parts,
    excess_by_level,
    memorisation,
    samples_beside_data,
    schedule_curves,
    schedule_ratios,
    schedule_rows,
    step_spacing,
    strip,
    training_curve,
)
from alphabar.figures.style import DPI, THEMES
from alphabar.locale import texts
from alphabar.markup import display, fill, inline, math_svg, number_text, plain_text, prose
from alphabar.metrics import FLOOR_SETS, REFERENCE
from alphabar.output import filling
from alphabar.schedule import Schedule
from alphabar.study import (
    CALLS,
    FILM,
    PATH_SAMPLER,
    SHOWN,
    Bar,
    Exact,
    Field,
    Study,
    Trained,
    at_times,
    summary,
)
from alphabar.trace import Trace, even_times
from alphabar.train import Settings

SECTIONS = (
    "data",
    "chain",
    "closed_form",
    "schedules",
    "coefficients",
    "pictures",
    "posterior",
    "exact",
    "learning",
    "reverse",
    "score",
    "blame",
    "claim",
    "again",
)
# The paper's names, and what they stand for.
COEFFICIENTS = {
    "betas": r"\beta_t",
    "alphas_cumprod": r"\bar\alpha_t",
    "sqrt_alphas_cumprod": r"\sqrt{\bar\alpha_t}",
    "sqrt_one_minus_alphas_cumprod": r"\sqrt{1-\bar\alpha_t}",
    "log_one_minus_alphas_cumprod": r"\log(1-\bar\alpha_t)",
    "sqrt_recip_alphas_cumprod": r"\sqrt{1/\bar\alpha_t}",
    "sqrt_recipm1_alphas_cumprod": r"\sqrt{1/\bar\alpha_t-1}",
    "posterior_variance": r"\tilde\beta_t",
    "posterior_log_variance_clipped": r"\log\tilde\beta_t",
    "posterior_mean_coef1": r"\frac{\sqrt{\bar\alpha_{t-1}}\,\beta_t}{1-\bar\alpha_t}",
    "posterior_mean_coef2": r"\frac{\sqrt{1-\beta_t}\,(1-\bar\alpha_{t-1})}{1-\bar\alpha_t}",
}
# What Tweedie's formula speaks of, for a finite set.
OF_SET = (
    r"\hat x_0 = \frac{\sum_i w_i\,x_i}{\sum_i w_i}, \quad w_i = \exp\left("
    r"-\frac{\lVert x_t - \sqrt{\bar\alpha_t}\,x_i\rVert^2}{2(1-\bar\alpha_t)}\right)"
)
GOAL = 1.25  # times the distance of true samples
SURE = 0.01  # the chance that truth looks as bad, below which samples are said to differ
RULES = ("log_snr", "karras", "curvature", "fitted", "all")
CODE = """\
import torch
from alphabar import data, forward, schedule

x_0 = data.swiss_roll().x
noise = schedule.linear(T=1000)
g = torch.Generator().manual_seed(0)

# q(x_500 | x_0), in one move
x_500 = forward.marginal(noise[500], x_0).sample(g)
# the chain x_0, x_1, …, x_1000, step by step
chain = dict(forward.walk(noise, x_0, g))
# q(x_499 | x_500, x_0)
back = forward.posterior(noise[499], noise[500], x_0, x_500)
print(noise.alpha_bar[-1], back.mean, back.var)"""
"""The library in a few lines; the tests run it."""


def write_report(found: Study, folder: Path, lang: str, command: str, bar: Bar) -> dict[str, Any]:
    """Write `report.html`, `summary.json` and `figures/` into the folder; returns the summary.

    All of it appears at once: nothing is left behind if something fails on the way.

    Args:
        found: what `study` returned.
        folder: where to write; its parent exists.
        lang: `en` or `ko`.
        command: what the person typed, to be shown on the page.
        bar: makes progress bars.
    """
    document = summary(found)
    with filling(folder) as temporary:
        figures = temporary / "figures"
        figures.mkdir()
        images = _draw_all(found, figures, lang, bar)
        films = _film_all(found, figures, lang)
        document["figures"] = [f"figures/{p.name}" for p in sorted(figures.iterdir())]
        document["report"] = "report.html"
        page = _page(found, lang, command, images, films)
        (temporary / "report.html").write_text(page, encoding="utf-8")
        text = json.dumps(document, ensure_ascii=False, indent=2, allow_nan=False)
        (temporary / "summary.json").write_text(text + "\n", encoding="utf-8")
    document["report"] = str(folder / "report.html")
    return document


def result_lines(found: Study, lang: str) -> list[str]:
    """What came out, in a line for each part that there is."""
    words: Mapping[str, str] = texts(lang, "report")["result"]
    best, exact = found.sampled[0], found.exact.best
    missed = sum(terminal(p.schedule).kl_to_prior > REACHES_NOISE for p in found.post)
    values: dict[str, dict[str, object]] = {
        "data": {"data": found.data.spec, "n": f"{len(found.x_0):,}", "seed": found.seed},
        "forward": {"distance": f"{found.chain.distance:.3f}", "bound": f"{found.chain.bound:.3f}"},
        "schedules": {"count": missed},
        "exact": {
            "nfe": exact.nfe,
            "ratio": f"{exact.ratio:.2f}",
            "net_nfe": best.nfe,
            "net_ratio": f"{best.score.ratio:.2f}",
        },
        "train": {
            "steps": f"{len(found.trained.losses):,}",
            "seconds": f"{found.trained.seconds:.0f}",
            "loss": f"{found.trained.loss:.3f}",
        },
        "sample": {
            "nfe": best.nfe,
            "sampler": _name(best.sampler),
            "ratio": f"{best.score.ratio:.2f}",
        },
    }
    excess, parts = found.trained.excess, found.parts
    if excess is not None and parts is not None:
        blame, names = _blame_texts(parts), texts(lang, "figures")["part"]
        key = "blame_none" if blame["key"] == "none" else "blame"
        name = names[parts.largest.name]
        values[key] = {**blame, "part": name, "excess": _percent(excess.share)}
    if found.claim is not None:
        values["claim"] = _counted(found.claim)
    return [words[key].format(**v) for key, v in values.items()]


# --- pictures


def _plans(found: Study, style: Style) -> dict[str, Callable[[], Figure]]:
    """What draws each figure of the report, by the name of its file."""
    hue, columns = found.hue[:SHOWN], found.columns
    shown = found.x_0[:SHOWN]
    best = found.sampled[0]

    def traced(trace: Trace, **options: Any) -> Callable[[], Figure]:
        return lambda: strip(trace.x, trace.times, trace.alpha_bar, style=style, **options)

    def rows(traces: list[Trace]) -> Callable[[], Figure]:
        frames, times = [t.x for t in traces], [t.times for t in traces]
        levels = [t.schedule for t in traces]
        return lambda: schedule_rows(frames, times, levels, hue=hue, columns=columns, style=style)

    photograph, digits = found.pictures
    ends = _where_they_end(found)
    exact = found.exact
    plans = {
        "data": lambda: data_cloud(shown, hue, columns=columns, style=style),
        "chain": traced(found.chain.chain, hue=hue, columns=columns),
        "closed-form": traced(
            found.chain.closed_form,
            hue=hue,
            columns=columns,
            title=style.text("title", "closed_form"),
        ),
        "schedule-rows": rows(found.post),
        "schedule-curves": lambda: schedule_curves([t.schedule for t in found.post], style=style),
        "schedule-rows-mended": rows(found.mended),
        "schedule-curves-mended": lambda: schedule_curves(
            [t.schedule for t in found.mended], style=style
        ),
        "photograph": traced(photograph),
        "digits": traced(digits),
        "loss": lambda: _training(found.trained, style),
        "reverse": traced(
            found.reverse.trace, hue=ends, x_0_hat=found.reverse.x_0_hat, columns=columns
        ),
        "samples": lambda: samples_beside_data(
            shown,
            best.x,
            hue,
            samples_hue=_nearest_hue(found, best.x),
            ratio=best.score.ratio,
            columns=columns,
            style=style,
        ),
        "exact-reverse": traced(
            exact.reverse.trace,
            hue=_nearest_hue(found, exact.reverse.trace.x[-1]),
            x_0_hat=exact.reverse.x_0_hat,
            columns=columns,
        ),
        "exact-samplers": lambda: error_against_calls(
            _lines(exact), goal=GOAL if exact.source.is_law else None, style=style
        ),
        "exact-steps": lambda: step_spacing(
            {rule: exact.levels[rule] for rule in RULES if rule in exact.levels}, style=style
        ),
        "memorisation": lambda: _memorisation(exact, style),
    }
    if (field := exact.field) is not None:
        plans["density-and-score"] = lambda: _density(field, style)
    if (excess := found.trained.excess) is not None:
        plans["excess"] = lambda: _levels(excess, style)
    if (parts := found.parts) is not None:
        plans["blame"] = lambda: error_parts(
            {str(part.name): (part.floors, part.floors_error) for part in parts.rows()},
            inherited=parts.inherited and parts.inherited.floors,
            style=style,
        )
    if (claim := found.claim) is not None:
        plans["claim"] = lambda: schedule_ratios(claim.panels(), style=style)
    return plans


def _training(trained: Trained, style: Style) -> Figure:
    excess = trained.excess
    return training_curve(
        torch.arange(1, len(trained.losses) + 1),
        torch.tensor(trained.losses),
        list(trained.probed),
        optimum=excess and excess.weighted_optimum,
        style=style,
    )


def _levels(found: ExcessLoss, style: Style) -> Figure:
    return excess_by_level(
        found.log_snr,
        found.excess,
        found.optimum,
        found.weight,
        found.excess_error,
        style=style,
    )


def _lines(exact: Exact) -> dict[str, list[tuple[float, float, float | None]]]:
    """The rows that were compared, a line for each sampler and rule."""
    lines: dict[str, list[tuple[float, float, float | None]]] = {}
    for row in exact.compared:
        point = (float(row.nfe), row.ratio, row.standard_error)
        lines.setdefault(f"{_name(row.sampler)}, {row.spacing}", []).append(point)
    return lines


def _name(spec: str) -> str:
    """A sampler without its numbers."""
    return spec.partition(":")[0]


def _memorisation(exact: Exact, style: Style) -> Figure:
    found, law = exact.memorised, exact.memorised.of_law
    return memorisation(
        found.training,
        found.of_set.x,
        None if law is None else law.x,
        nearest_of_set=found.of_set.nearest,
        nearest_of_law=None if law is None else law.nearest,
        nearest_fresh=found.fresh.nearest,
        style=style,
    )


def _density(field: Field, style: Style) -> Figure:
    return density_and_score(
        field.log_density,
        field.score,
        field.times,
        field.alpha_bar,
        x=field.x,
        y=field.y,
        at=field.at,
        style=style,
    )


def _where_they_end(found: Study) -> Any:
    """For each point of the reverse process the hue of the place where it ends."""
    return _nearest_hue(found, found.reverse.trace.x[-1])


def _nearest_hue(found: Study, x: Any) -> Any:
    from sklearn.neighbors import KNeighborsRegressor

    known = KNeighborsRegressor(1)  # type: ignore[no-untyped-call]
    known.fit(found.x_0[:SHOWN].numpy(), found.hue[:SHOWN].numpy())
    return known.predict(x.numpy()).clip(0, 1)  # type: ignore[no-untyped-call]


def _draw_all(found: Study, folder: Path, lang: str, bar: Bar) -> dict[str, dict[str, str]]:
    """Every figure in both themes, as files and as data for the page."""
    images: dict[str, dict[str, str]] = {}
    plans = {theme: _plans(found, Style(theme, lang)) for theme in THEMES}
    advance = bar("figures", sum(map(len, plans.values())))
    for theme, drawings in plans.items():
        for name, draw in drawings.items():
            path = folder / f"{name}-{theme}.png"
            figure = draw()
            _save_png(figure, path)
            images.setdefault(name, {})[theme] = _data_url(path)
            images[name]["width"] = str(round(figure.get_figwidth() * DPI))
            advance()
    return images


def _save_png(figure: Figure, path: Path) -> None:
    """A PNG for screens of twice the usual resolution, in 256 colours: a third of the bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=1.6 * DPI)
    picture = Image.open(buffer).convert("RGB")
    picture.quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(
        path, optimize=True
    )


def _film_all(found: Study, folder: Path, lang: str) -> dict[str, str]:
    """The forward and the reverse process as films, the latter with both denoisers."""
    forward = at_times(
        found.schedule.to_vp(),
        found.x_0[:SHOWN],
        FILM,
        torch.Generator().manual_seed(found.seed % 2**63),
    )
    parts = {
        "forward": (forward, found.hue[:SHOWN]),
        "reverse": (found.reverse.film, _where_they_end(found)),
        "exact": (
            found.exact.reverse.film,
            _nearest_hue(found, found.exact.reverse.film.x[-1]),
        ),
    }
    films = {}
    for name, (part, hue) in parts.items():
        path = folder / f"{name}.mp4"
        style = Style("light", lang)
        animation(part.x, part.times, part.alpha_bar, hue, path, columns=found.columns, style=style)
        films[name] = _data_url(path)
    return films


def _data_url(path: Path) -> str:
    kind = {".png": "image/png", ".mp4": "video/mp4"}[path.suffix]
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


# --- the page


def _page(
    found: Study,
    lang: str,
    command: str,
    images: dict[str, dict[str, str]],
    films: dict[str, str],
) -> str:
    words = texts(lang, "report")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    environment.filters |= {
        "prose": prose,
        "inline": inline,
        "display": display,
        "math": math_svg,
        "plain": plain_text,
        "number": number_text,
        "digits": _digits,
        "signed": lambda value: f"{value:+.2f}".replace("-", "\N{MINUS SIGN}"),
        "fill": fill,
        "breakable": lambda name: Markup(html.escape(name).replace("_", "_<wbr>")),
    }
    package = files("alphabar")
    template = environment.from_string((package / "report.html").read_text(encoding="utf-8"))
    n = min(len(found.x_0), SHOWN)
    reference = (
        words["score"]["fresh"].format(reference=f"{REFERENCE:,}", floor=FLOOR_SETS, n=f"{n:,}")
        if found.data.fresh
        else words["score"]["held_out"]
    )
    table = found.schedule.coefficients()
    shown = sorted({1, 2, *even_times(found.schedule.T, 9)[1:]} & set(range(found.schedule.T + 1)))
    return template.render(
        w=words,
        lang=lang,
        css=Markup((package / "report.css").read_text(encoding="utf-8")),
        sections=_sections(found),
        results=result_lines(found, lang),
        data=found.data.spec,
        seed=found.seed,
        standardised=found.standardiser is not None,
        n=f"{len(found.x_0):,}",
        d=found.x_0.shape[1],
        images=images,
        films=films,
        chain=found.chain,
        moments=found.chain.moments,
        derivations={d.key: d for d in derivations(lang)},
        formulas={
            "kernel": FORMULAS["closed_form"]["kernel"].tex,
            "one_step": FORMULAS["closed_form"]["one_step"].tex,
            "claim": FORMULAS["closed_form"]["claim"].tex,
            "posterior": FORMULAS["posterior"]["result"].tex,
            "mean_in_eps": FORMULAS["mean_in_eps"]["mean"].tex,
            "l_simple": FORMULAS["l_simple"]["result"].tex,
            "score": FORMULAS["tweedie"]["result"].tex,
            "of_set": OF_SET,
        },
        exact=found.exact,
        exact_n=f"{len(found.exact.source.x):,}",
        exact_points=f"{len(found.exact.reverse.trace.x[0]):,}",
        exact_steps=found.exact.reverse.trace.schedule.T,
        exact_sampler=PATH_SAMPLER,
        exact_set=f"{found.exact.n:,}",
        exact_few=len(next(iter(found.exact.levels.values()))),
        exact_best=_name(found.exact.best.sampler),
        exact_fresh=words["exact"]["fresh" if found.data.fresh else "held_out"],
        exact_table=_table(found.exact),
        exact_of=_share_texts(found.exact),
        goal=GOAL,
        post=[_diagnosed(p.schedule) for p in found.post],
        schedule=found.schedule.spec,
        T=f"{found.reverse.trace.schedule.T:,}",
        coefficient_names=COEFFICIENTS,
        coefficients=[(t, [table[name][t - 1].item() for name in COEFFICIENTS]) for t in shown],
        parameters=f"{sum(p.numel() for p in found.trained.denoiser.parameters()):,}",
        batch=f"{Settings().batch:,}",
        steps=f"{len(found.trained.losses):,}",
        train_seconds=f"{found.trained.seconds:.0f}",
        excess=_excess_texts(found.trained),
        reference=reference,
        sampled=[(_name(s.sampler), s) for s in found.sampled],
        metrics={k: m for k, m in found.metrics.items() if m["value"] is not None},
        unmeasured=[k for k, m in found.metrics.items() if m["value"] is None],
        remembered=_remembered(found.metrics),
        parts=found.parts,
        part_names=texts(lang, "figures")["part"],
        blame=found.parts and _blame_texts(found.parts),
        claim=found.claim and _claim_texts(found.claim, lang),
        command=command,
        code=CODE,
    )


def _sections(found: Study) -> list[str]:
    """The chapters that there is something to say in."""
    empty = {"blame": found.parts is None, "claim": found.claim is None}
    return [key for key in SECTIONS if not empty.get(key)]


def _digits(value: float, count: int = 4) -> str:
    """So many digits, with a real minus sign: values beside one another are compared."""
    text = f"{value:#.{count}g}".rstrip(".") if value else "0"
    return text.replace("-", "\N{MINUS SIGN}")


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"


def _excess_texts(trained: Trained) -> dict[str, str]:
    """The least loss, how far above it the network's is, and at which level it errs most."""
    excess = trained.excess
    if excess is None:
        return {}
    worst = int((excess.weight * excess.excess).argmax())
    peak = excess.log_snr[worst].item()
    return {
        "optimum": f"{excess.weighted_optimum:.3f}",
        "share": _percent(excess.share),
        "error": f"{100 * excess.share_error:.2g}%",
        "loss": f"{trained.loss:.3f}",
        "peak": f"{peak:.1f}",
        "noise": f"{math.exp(-peak / 2):.2g}",
    }


def _remembered(metrics: dict[str, Any]) -> dict[str, Any]:
    """How many samples lie close to a training point, and whether more than true points do."""
    near, copies = metrics["memorised"], metrics["copies"]
    if near["value"] is None:
        return {}
    return {
        "near": _percent(near["value"]),
        "floor": _percent(near["floor"]),
        "copies": _percent(copies["value"]),
        "more": near["p_value"] < SURE,
    }


def _blame_texts(parts: Decomposition) -> dict[str, str]:
    """The largest part, whether it stands out from chance, and what the training set has to do."""
    largest, inherited = parts.largest, parts.inherited
    found = {
        "key": "none" if parts.blame is None else parts.blame.name,
        "few": str(parts.runs[0].steps),
        "many": str(parts.runs[1].steps),
        "ratio": f"{parts.ratio:.2f}",
        "steady": f"{parts.steady_ratio:.2f}",
        "floors": f"{largest.floors:.2f}",
        "total": f"{parts.total.floors:.2f}",
        "draws": str(parts.draws),
        "n": f"{parts.n:,}",
    }
    if inherited is not None:
        found |= {
            "deviation": f"{inherited.deviation / parts.floor**2:.2f}",
            "share": f"{inherited.share:.2f}",
            "inherited": f"{inherited.floors:.2f}",
        }
    return found


def _counted(claim: Claim) -> dict[str, object]:
    """How many of the comparisons came out which way."""
    answers = [verdict.answer for verdict in claim.verdicts()]
    return {
        "all": len(answers),
        "holds": answers.count("holds"),
        "fails": answers.count("does not hold"),
        "undecided": answers.count("undecided"),
    }


def _claim_texts(claim: Claim, lang: str) -> dict[str, Any]:
    """Every comparison of growing schedules with a constant one, in words."""
    names, words = texts(lang, "figures"), texts(lang, "report")["claim"]
    answers = {"holds": "holds", "does not hold": "fails", "undecided": "undecided"}
    rows = [
        {
            "question": words[v.question],
            "way": names["way"][v.way],
            "range": names["range"][v.range],
            "against": v.against,
            "nfe": v.nfe,
            "answer": words[answers[v.answer]],
            "holds": v.answer == "holds",
            "factors": [_factor(pair.factor) for pair in v.pairs],
        }
        for v in claim.verdicts()
    ]
    return {
        "rows": rows,
        "growing": [pair.schedule for pair in claim.verdicts()[0].pairs],
        "counted": _counted(claim),
        "seeds": claim.settings.seeds,
        "steps": f"{claim.steps:,}",
        "share": f"{claim.settings.shares[0]:.0%}",
    }


def _factor(found: Interval) -> str:
    if found.low is None or found.high is None:
        return f"{found.mean:.2f}"
    return f"{found.mean:.2f} ({found.low:.2f}–{found.high:.2f})"


def _table(exact: Exact) -> dict[str, Any]:
    """The ratios, a row for each sampler and rule and a column for each number of calls."""
    calls = sorted({row.nfe for row in exact.compared})
    # A sampler of two calls a step does not make every number of calls.
    wanted = list(CALLS) if set(CALLS) & set(calls) else calls
    rows = []
    for name, line in _lines(exact).items():
        within = [[p for p in line if p[0] <= k] for k in wanted]
        above = [0, *wanted]
        cells = [
            next((p for p in reversed(points) if p[0] > low), None)
            for points, low in zip(within, above, strict=False)
        ]
        rows.append((*name.split(", "), cells))
    return {"calls": wanted, "rows": rows}


def _share_texts(exact: Exact) -> dict[str, str]:
    """How many samples come near a training point, in per cent."""
    found = exact.memorised
    return {
        "of_set": f"{100 * found.share(found.of_set):.3g}%",
        "of_law": "" if found.of_law is None else f"{100 * found.share(found.of_law):.3g}%",
    }


def _diagnosed(schedule: Schedule) -> dict[str, Any]:
    end = terminal(schedule)
    return {
        "spec": schedule.spec,
        "alpha_bar": end.alpha_bar,
        "kept": f"{end.alpha_bar**0.5:.0%}",
        "kl": end.kl_to_prior,
        "remedies": remedies(schedule),
    }
