"""Writes a study up: figures as files, one self-contained page, and `summary.json`.

The page holds its pictures and formulas itself (SVG by ziamath, no script, no font, no request),
so it opens from a disk, in a mail, in ten years.
"""

import base64
import html
import io
import json
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import torch
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image

from alphabar.derivations import FORMULAS, derivations
from alphabar.diagnosis import REACHES_NOISE, remedies, terminal
from alphabar.figures import (
    Style,
    animation,
    data_cloud,
    loss_curve,
    samples_beside_data,
    schedule_curves,
    schedule_rows,
    strip,
)
from alphabar.figures.style import DPI, THEMES
from alphabar.locale import texts
from alphabar.markup import display, fill, inline, math_svg, number_text, plain_text, prose
from alphabar.metrics import FLOOR_SETS, REFERENCE
from alphabar.output import filling
from alphabar.schedule import Schedule
from alphabar.study import FILM, SHOWN, Bar, Study, at_times, summary
from alphabar.trace import Trace, even_times

SECTIONS = (
    "data",
    "chain",
    "closed_form",
    "schedules",
    "coefficients",
    "pictures",
    "posterior",
    "learning",
    "reverse",
    "score",
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
    """What came out, in five lines."""
    words: Mapping[str, str] = texts(lang, "report")["result"]
    best = found.sampled[0]
    missed = sum(terminal(p.schedule).kl_to_prior > REACHES_NOISE for p in found.post)
    values: dict[str, dict[str, object]] = {
        "data": {"data": found.data.spec, "n": f"{len(found.x_0):,}", "seed": found.seed},
        "forward": {"distance": f"{found.chain.distance:.3f}", "bound": f"{found.chain.bound:.3f}"},
        "schedules": {"count": missed},
        "train": {
            "steps": f"{len(found.trained.losses):,}",
            "seconds": f"{found.trained.seconds:.0f}",
            "loss": f"{summary(found)['train']['loss']:.3f}",
        },
        "sample": {
            "nfe": best.nfe,
            "sampler": best.sampler,
            "ratio": f"{best.score.ratio:.2f}",
        },
    }
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
    return {
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
        "loss": lambda: loss_curve(
            range(1, len(found.trained.losses) + 1), found.trained.losses, style=style
        ),
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
    }


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


def _film_all(found: Study, folder: Path, lang: str) -> list[dict[str, str]]:
    """The forward and the reverse process as films."""
    forward = at_times(
        found.schedule.to_vp(),
        found.x_0[:SHOWN],
        FILM,
        torch.Generator().manual_seed(found.seed % 2**63),
    )
    parts = {
        "forward": (forward, found.hue[:SHOWN]),
        "reverse": (found.reverse.film, _where_they_end(found)),
    }
    films = []
    for name, (part, hue) in parts.items():
        path = folder / f"{name}.mp4"
        style = Style("light", lang)
        animation(part.x, part.times, part.alpha_bar, hue, path, columns=found.columns, style=style)
        films.append({"name": name, "moving": _data_url(path)})
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
    films: list[dict[str, str]],
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
        sections=list(SECTIONS),
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
        },
        post=[_diagnosed(p.schedule) for p in found.post],
        schedule=found.schedule.spec,
        T=f"{found.reverse.trace.schedule.T:,}",
        coefficient_names=COEFFICIENTS,
        coefficients=[(t, [table[name][t - 1].item() for name in COEFFICIENTS]) for t in shown],
        parameters=f"{sum(p.numel() for p in found.trained.denoiser.parameters()):,}",
        steps=f"{len(found.trained.losses):,}",
        train_seconds=f"{found.trained.seconds:.0f}",
        reference=reference,
        sampled=found.sampled,
        command=command,
        code=CODE,
    )


def _diagnosed(schedule: Schedule) -> dict[str, Any]:
    end = terminal(schedule)
    return {
        "spec": schedule.spec,
        "alpha_bar": end.alpha_bar,
        "kept": f"{end.alpha_bar**0.5:.0%}",
        "kl": end.kl_to_prior,
        "remedies": remedies(schedule),
    }
