"""Where the levels of a sampler's steps lie on the axis of noise."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from matplotlib.ticker import MaxNLocator

from alphabar.figures.curves import LOG_SNR
from alphabar.figures.panels import Numbers, check_lengths, numbers
from alphabar.figures.style import LIGHT, Style, StyledFigure, plain

ROW = 0.27  # inches


class Difficulty(NamedTuple):
    """How much a step has to do at each noise level, such as a density over log-SNR."""

    log_snr: Numbers
    value: Numbers


def step_spacing(
    levels: Mapping[str, Numbers],
    difficulty: Difficulty | None = None,
    *,
    title: str | None = None,
    style: Style = LIGHT,
) -> StyledFigure:
    """The levels of several rules that space steps, a row of dots each, from noise to data.

    Args:
        levels: for each rule the log-SNR λ_t of its levels, in any order; what lies beyond ±18,
            as ±inf does, is a hollow dot at the end of the axis.
        difficulty: a curve over λ to draw above the rows, on the same axis.
        title: in place of the style's own.

    Raises:
        ValueError: there are no levels, a level is nan, or the difficulty is not finite.
    """
    rows = {name: numbers(log_snr) for name, log_snr in levels.items()}
    check_lengths(len(rows), levels=rows)
    for name, log_snr in rows.items():
        if not len(log_snr) or np.isnan(log_snr).any():
            raise ValueError(f"{name}: give at least one log_snr, and none that is nan")
    curve = None if difficulty is None else [numbers(v) for v in difficulty]
    if curve is not None:
        check_lengths(len(curve[0]), value=curve[1])
        if not np.isfinite(curve).all():
            raise ValueError("difficulty: give finite numbers, or leave out where it is not known")
    every = np.concatenate(list(rows.values()))
    inside = every[np.abs(every) <= LOG_SNR]
    low, high = (inside.min(), inside.max()) if len(inside) else (-LOG_SNR, LOG_SNR)
    margin = 0.04 * (high - low) or 1.0
    low, high = float(low - margin), float(high + margin)
    beyond = len(inside) < len(every)
    notes = (style.text("note", "beyond"),) if beyond else ()
    heights = [1.3] * (curve is not None) + [ROW * len(rows) + 0.1]
    written = "".join([title or "", *rows])
    with style.applied(written):
        title = title or style.text("title", "step_spacing")
        figure = style.figure(8.4, 0.85 + 0.25 * beyond + sum(heights), title, notes, written)
        *above, below = figure.subplots(
            len(heights), sharex=True, squeeze=False, height_ratios=heights
        )[:, 0]
        if curve is not None:
            (axes,), (x, y) = above, curve
            axes.fill_between(x, y, color=style.colours.faint, lw=0)
            axes.plot(x, y, color=style.colours.muted, lw=1.4)
            axes.set(ylim=(0, 1.08 * y[(x >= low) & (x <= high)].max(initial=0) or 1), yticks=[])
            axes.set_ylabel(style.text("axis", "difficulty"))
            axes.tick_params(bottom=False, labelbottom=False)
        for i, log_snr in enumerate(rows.values()):
            off = np.abs(log_snr) > LOG_SNR
            ends = np.unique(np.where(log_snr[off] > 0, high, low))
            size = float(np.clip(400 / len(log_snr), 1.8, 5.5))
            colour = style.colours.lines[i % len(style.colours.lines)]
            for x, look in (
                (log_snr[~off], {"ms": size, "mew": 0}),
                (ends, {"ms": 4.5, "mfc": style.colours.paper, "clip_on": False}),
            ):
                if len(x):  # an empty line that is not clipped takes room at the figure's corner
                    below.plot(x, np.full(len(x), i), "o", color=colour, **look)
        below.set(xlim=(low, high), ylim=(len(rows) - 0.4, -0.6))
        below.set_yticks(range(len(rows)), [plain(name) for name in rows])
        below.tick_params(axis="y", length=0, pad=8, labelcolor=style.colours.ink)
        below.spines["left"].set_visible(False)
        below.grid(True, axis="y")
        below.xaxis.set_major_locator(MaxNLocator(9))
        below.set_xlabel(style.text("axis", "noise_to_data"))
    return figure
