"""The figures: one pure function each, that returns a matplotlib Figure in a style of our own.

figure = strip(frames, t, alpha_bar, hue, style=Style(theme="dark", lang="ko"))
figure.savefig("forward.png")
"""

from alphabar.figures.animation import animation
from alphabar.figures.calls import error_against_calls
from alphabar.figures.curves import loss_curve, schedule_curves
from alphabar.figures.field import density_and_score
from alphabar.figures.memory import memorisation
from alphabar.figures.points import data_cloud, samples_beside_data
from alphabar.figures.spacing import Difficulty, step_spacing
from alphabar.figures.strip import schedule_rows, strip
from alphabar.figures.style import Style

__all__ = [
    "Difficulty",
    "Style",
    "animation",
    "data_cloud",
    "density_and_score",
    "error_against_calls",
    "loss_curve",
    "memorisation",
    "samples_beside_data",
    "schedule_curves",
    "schedule_rows",
    "step_spacing",
    "strip",
]
