"""Which part of the error is whose: the parts of a sum, and the noise levels of one of them."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from alphabar.figures.curves import DOTS, log_scale
from alphabar.figures.panels import Numbers, check_lengths, numbers
from alphabar.figures.style import LIGHT, Style, StyledFigure

PARTS = ("noise", "model", "discretisation", "interaction", "rest")
ROW = 0.36  # inches
BAR = 0.62  # of a row


def error_parts(
    parts: Mapping[str, tuple[float, float | None]],
    *,
    inherited: float | None = None,
    title: str | None = None,
    style: Style = LIGHT,
) -> StyledFigure:
    """The squared error of samples as a sum: each bar begins where the one above it ends.

        error_parts({part.name: (part.floors, part.floors_error) for part in found.rows()})

    Args:
        parts: for noise, model, discretisation, interaction, rest and total, in any order, the
            squared distance as a multiple of that of true samples, and its standard error or None.
        inherited: the share of the model's part that is the training set's, in the same units.
        title: in place of the style's own.

    Raises:
        ValueError: a part is missing or unknown, a number is not finite, or they do not add up.
    """
    if set(parts) != {*PARTS, "total"}:
        raise ValueError(f"parts = {sorted(parts)}: give {', '.join(PARTS)} and total")
    value = np.array([parts[name][0] for name in PARTS], float)
    total = float(parts["total"][0])
    error = np.array([parts[name][1] or 0.0 for name in (*PARTS, "total")], float)
    if not np.isfinite([*value, total, *error, inherited or 0.0]).all():
        raise ValueError("a part is not finite: there is nothing to draw it by")
    if abs(value.sum() - total) > 1e-6 * np.abs(value).sum():
        raise ValueError(f"the parts add up to {value.sum():.6g} and the total is {total:.6g}")
    ends = np.cumsum(value)
    starts = ends - value
    blue, orange, _, purple, *_ = style.colours.lines
    muted, ink = style.colours.muted, style.colours.ink
    colours = (muted, blue, orange, purple, style.colours.faint, ink)
    notes = [style.text("note", "root", ratio=f"{math.sqrt(max(total, 0)):.2f}")]
    rest = [style.text("note", "whiskers")] if error.any() else []
    rest += [style.text("note", "cancel")] if (value[1:4] < 0).any() else []
    notes += [" ".join(rest)] if rest else []
    names = [style.text("part", name) for name in (*PARTS, "total")]
    digits = min(4, max(0, 1 - math.floor(math.log10(error[-1])))) if error[-1] else 2
    written = [_signed(v, e, digits) for v, e in zip([*value, total], error, strict=True)]
    written[0], written[-1] = (text.removeprefix("+") for text in (written[0], written[-1]))
    with style.applied(title or ""):
        words = title or style.text("title", "error_parts")
        height = 1.2 + 0.18 * len(notes) + ROW * len(names) + 0.25 * (inherited is not None)
        figure = style.figure(8.4, height, words, tuple(notes), title or "")
        axes = figure.subplots()
        heights = np.arange(len(names))
        look: dict[str, Any] = {
            "height": BAR,
            "color": colours,
            "edgecolor": muted,
            "linewidth": 0.6,
        }
        axes.barh(heights, [*value, total], left=[*starts, 0.0], **look)
        if inherited is not None:
            mark: dict[str, Any] = {"edgecolor": style.colours.paper, "hatch": "////", "lw": 0}
            axes.barh(1, inherited, left=starts[1], height=BAR, color=blue, **mark)
            patch = Patch(facecolor=blue, label=style.text("part", "inherited"), **mark)
            figure.legend(handles=[patch], loc="outside upper right", frameon=False, fontsize=8.5)
        reach = np.array([*ends, total])
        axes.hlines(heights, reach - error, reach + error, color=ink, lw=1.1)
        # On a bar of the ink's own colour the whisker's lower half would not be seen.
        axes.hlines(heights[-1:], total - error[-1], total, color=style.colours.paper, lw=1.1)
        for i, end in enumerate(ends):
            axes.plot([end, end], [i + BAR / 2, i + 1 - BAR / 2], color=muted, lw=0.8)
        axes.axvline(0, color=muted, lw=0.8)
        axes.set_yticks(heights, names)
        axes.tick_params(axis="y", length=0, pad=8, labelcolor=ink)
        axes.set(ylim=(len(names) - 0.5, -0.5), xlabel=style.text("axis", "squares"))
        low = min(0.0, (reach - error).min(), starts.min())
        high = max((reach + error).max(), starts.max())
        axes.set_xlim(low - 0.01 * (high - low), high + 0.02 * (high - low))
        axes.xaxis.set_major_locator(MaxNLocator(8))
        axes.grid(True, axis="x")
        axes.spines["left"].set_visible(False)
        # Signs in DejaVu Sans: fonts with Hangul may have no minus sign.
        right = axes.secondary_yaxis("right")
        right.set_yticks(heights, written)
        right.tick_params(length=0, labelcolor=ink, labelfontfamily="DejaVu Sans")
        right.spines["right"].set_visible(False)
    return figure


def _signed(value: float, error: float, digits: int) -> str:
    """Such as +1.58 ± 0.12."""
    text = f"{value:+.{digits}f}".replace("-", "\N{MINUS SIGN}")
    return f"{text} ± {error:.{digits}f}" if error else text


def excess_by_level(
    log_snr: Numbers,
    excess: Numbers,
    optimum: Numbers,
    weight: Numbers,
    excess_error: Numbers | None = None,
    *,
    title: str | None = None,
    style: Style = LIGHT,
) -> StyledFigure:
    """Where a denoiser errs: above as it is, beside the least error; below as the loss has it.

    The curve below is w·excess over the mean of w·optimum: its mean is the excess loss as a share
    of the optimum.

    Args:
        log_snr: the levels λ, evenly spaced for the mean to be that over the range.
        excess: the denoiser's mean squared difference from the exact one at each.
        optimum: the exact denoiser's mean squared error at each.
        weight: w, the weight of each in the loss.
        excess_error: standard errors of `excess`.
        title: in place of the style's own.

    Raises:
        ValueError: another number of one than of the others; levels, an excess, an optimum or a
            weight that is not finite, or negative but for the levels; an optimum of 0 throughout.
    """
    x, e, o, w = (numbers(v) for v in (log_snr, excess, optimum, weight))
    error = np.zeros(len(x)) if excess_error is None else numbers(excess_error)
    check_lengths(len(x), excess=e, optimum=o, weight=w, excess_error=error)
    rest = np.concatenate([e, o, w, error])
    if not np.isfinite([*x, *rest]).all() or (rest < 0).any() or not (w * o).any():
        raise ValueError(
            "give finite numbers for each level, none of excess, optimum and weight below 0, and "
            "an optimum that is somewhere above 0"
        )
    scale = (w * o).mean()
    names = [style.text("note", "exact"), style.text("note", "excess")]
    with style.applied(title or ""):
        words = title or style.text("title", "excess_by_level")
        notes = (style.text("note", "levels"),)
        figure = style.figure(8.4, 5.4, words, notes, title or "")
        # A tick label at the top of one panel must not meet one at the bottom of the other.
        engine = figure.get_layout_engine()
        assert isinstance(engine, ConstrainedLayoutEngine)
        engine.set(hspace=0.08)
        above, below = figure.subplots(2, sharex=True, height_ratios=[1.25, 1])
        looks = [
            {"color": style.colours.ink, "linestyle": (0, (6, 2))},
            style.line(0),
        ]
        dots: dict[str, Any] = {"marker": "o" if len(x) <= DOTS else "", "markersize": 3}
        for values, look, name in zip((o, e), looks, names, strict=True):
            above.plot(x, np.where(values > 0, values, np.nan), **look, **dots, label=name)
        colour = looks[1]["color"]
        low = np.maximum(e - error, e / 2)
        above.fill_between(x, low, e + error, where=e > 0, color=colour, alpha=0.25, lw=0)
        log_scale(above)
        figure.legend(loc="outside upper right", ncols=2, frameon=False, fontsize=8.5)
        above.set_ylabel(style.text("axis", "squared_error"))
        share, spread = w * e / scale, w * error / scale
        below.fill_between(x, share, color=colour, alpha=0.2, lw=0)
        below.plot(x, share, **looks[1], **dots)
        below.vlines(x, np.maximum(share - spread, 0), share + spread, color=colour, lw=1)
        mean = share.mean()
        below.axhline(mean, color=style.colours.ink, ls=(0, (1, 2)), lw=1.1)
        top = (share + spread).max() or 1.0
        below.set_ylim(0, 1.3 * top)
        below.annotate(
            style.text("note", "mean_excess", value=f"{100 * mean:.2g}%"),
            (0.01, 0.97),
            xycoords="axes fraction",
            va="top",
            size=8.5,
        )
        below.yaxis.set_major_locator(MaxNLocator(5))
        below.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:.3g}%"))
        below.set_ylabel(style.text("axis", "excess_share"))
        below.set_xlabel(style.text("axis", "noise_to_data"))
        room = 0.01 * np.ptp(x) or 1.0
        below.set_xlim(x.min() - room, x.max() + room)
        for axes in (above, below):
            axes.grid(True, axis="y")
    return figure
