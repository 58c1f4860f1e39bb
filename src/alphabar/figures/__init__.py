"""The figures: one pure function each, that returns a matplotlib Figure in a style of our own.

figure = strip(frames, t, alpha_bar, hue, style=Style(theme="dark", lang="ko"))
figure.savefig("forward.png")
"""

from alphabar.figures.animation import animation
from alphabar.figures.curves import loss_curve, schedule_curves
from alphabar.figures.points import data_cloud, samples_beside_data
from alphabar.figures.strip import schedule_rows, strip
from alphabar.figures.style import Style

__all__ = [
    "Style",
    "animation",
    "data_cloud",
    "loss_curve",
    "samples_beside_data",
    "schedule_curves",
    "schedule_rows",
    "strip",
]
