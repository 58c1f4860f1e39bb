"""Curves over time: what a schedule does at each step."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from alphabar.figures.panels import check_lengths
from alphabar.figures.style import LIGHT, Style, StyledFigure, is_wide, plain
from alphabar.schedule import Schedule

# KL(q(x_T | x_0) ‖ N(0, I)) = −½ log(1 − ᾱ) per dimension, for data of variance 1. Below 0.01
# nats x_T may be called noise: ᾱ < 0.0198.
NOISE = -math.expm1(-0.02)
LOG_SNR = 18.0  # further out a curve leaves the axes: nothing is seen of the noise, or of the data
DOTS = 20  # up to this T each step is a dot


def spec_names(schedules: Sequence[Schedule]) -> list[str]:
    """The specs of schedules; those that were made from numbers are counted."""
    return [
        s.spec if s._call is not None else f"table {i}" for i, s in enumerate(schedules, start=1)
    ]


def schedule_curves(
    schedules: Sequence[Schedule],
    names: Sequence[str] | None = None,
    *,
    title: str | None = None,
    style: Style = LIGHT,
) -> StyledFigure:
    """β_t, ᾱ_t and λ_t of several schedules, up to about 15, each line named at its end.

    The horizontal axis is t, or t/T where the schedules differ in T. Where ᾱ_t has come down to
    noise (KL to N(0, I) below 0.01 nats a dimension), the ground is shaded.

    Args:
        schedules: one or more.
        names: what they are called; their specs if not given.
        title: in place of the style's own.
    """
    names = spec_names(schedules) if names is None else names
    check_lengths(len(schedules), names=names)
    same_T = len({s.T for s in schedules}) == 1
    written = "".join([title or "", *names])
    room = room_for(names)
    with style.applied(written):
        title = title or style.text("title", "schedule_curves")
        figure = style.figure(10.8 + room, 4.0, title, written=written)
        panels = figure.subplots(1, 3)
        for axes, key in zip(panels, ("beta", "alpha_bar", "log_snr"), strict=True):
            axes.set_title(style.text("axis", key), loc="left")
            axes.set_xlabel(style.text("axis", "step" if same_T else "share"))
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=same_T))
            axes.grid(True, axis="y")
        beta_axes, alpha_bar_axes, log_snr_axes = panels
        ends, peaks, extent = [], [], []
        for i, schedule in enumerate(schedules):
            t = np.arange(schedule.T + 1) / (1 if same_T else schedule.T)
            beta, alpha_bar, log_snr = (
                v.cpu().numpy() for v in (schedule.beta, schedule.alpha_bar, schedule.log_snr)
            )
            look = {**style.line(i), "marker": "o" if schedule.T <= DOTS else "", "markersize": 3}
            # Past its limits a curve goes on to ±1000: lines are not drawn to infinity.
            log_snr = np.clip(log_snr, -1000, 1000)
            beta_axes.plot(t[1:], beta[1:], **look)
            alpha_bar_axes.plot(t, alpha_bar, **look)
            log_snr_axes.plot(t[1:], log_snr[1:], **look)
            ends.append(log_snr[-1])
            peaks.append(beta.max())
            extent += [log_snr[1], log_snr[-1]]

        for axes in panels:
            axes.set_xlim(0, schedules[0].T if same_T else 1)
        if max(peaks) > 10 * min(peaks):  # on a linear axis the lowest would lie on the ground
            log_scale(beta_axes)
        else:
            beta_axes.set_ylim(0, 1.05 * max(peaks))
        alpha_bar_axes.set_ylim(0, 1.02)
        low, high = max(min(extent), -LOG_SNR), min(max(extent), LOG_SNR)
        margin = 0.05 * (high - low) or 1.0
        noise = math.log(NOISE / (1 - NOISE))
        low, high = min(low - margin, noise - 2), high + margin
        log_snr_axes.set_ylim(low, high)

        for axes, level in ((alpha_bar_axes, NOISE), (log_snr_axes, noise)):
            axes.axhspan(-2000, level, color=style.colours.faint, alpha=0.7, lw=0, zorder=0)
        log_snr_axes.annotate(
            style.text("note", "noise"),
            (0, 0),
            (4, 3),
            xycoords="axes fraction",
            textcoords="offset points",
            size=8,
            color=style.colours.muted,
        )
        looks = [style.line(i) for i in range(len(names))]
        name_ends(log_snr_axes, (np.array(ends) - low) / (high - low), names, looks)
    return figure


def log_scale(axes: Axes, axis: Literal["x", "y"] = "y") -> None:
    """Make an axis logarithmic."""
    axes.set(**{f"{axis}scale": "log"})
    # Powers of ten are formulas, which take their minus sign from the first font alone, and fonts
    # with Hangul may have none.
    axes.tick_params(axis=axis, which="both", labelfontfamily="DejaVu Sans")


def room_for(names: Iterable[str]) -> float:
    """The inches that names and their ties take to the right of the axes."""
    return 0.35 + 0.066 * max(sum(2 if is_wide(c) else 1 for c in name) for name in names)


def name_ends(
    axes: Axes, ends: np.ndarray, names: Sequence[str], looks: Sequence[dict[str, Any]]
) -> None:
    """Write each line's name to the right of the axes, tied to the line's end by its own look.

    Args:
        ends: how high each line ends, as a share of the axes.
        looks: the arguments of `plot` for each line; a marker is set before the name.
    """
    ends = np.clip(ends, 0, 1)
    order = np.argsort(ends, kind="stable")
    gap = min(0.062, 1.1 / max(len(ends) - 1, 1))
    heights = np.empty(len(ends))
    floor, ceiling = -math.inf, 1.0
    for i in order:
        heights[i] = floor = max(ends[i], floor + gap)
    for i in order[::-1]:
        heights[i] = ceiling = min(heights[i], ceiling)
        ceiling -= gap
    for end, height, name, look in zip(ends, heights, names, looks, strict=True):
        axes.plot(
            [1, 1.06, 1.16],
            [end, height, height],
            **look,
            markevery=[2],
            transform=axes.transAxes,
            clip_on=False,
            solid_joinstyle="round",
            lw=1.4,
        )
        axes.text(1.18, height, plain(name), transform=axes.transAxes, va="center", size=8.5)
