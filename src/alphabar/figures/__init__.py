"""The figures: one pure function each, that returns a matplotlib Figure in a style of our own.

figure = strip(frames, t, alpha_bar, hue, style=Style(theme="dark", lang="ko"))
figure.savefig("forward.png")
"""

from alphabar.figures.animation import animation
from alphabar.figures.blame import error_parts, excess_by_level
from alphabar.figures.calls import error_against_calls
from alphabar.figures.claim import schedule_ratios
from alphabar.figures.curves import schedule_curves
from alphabar.figures.field import density_and_score
from alphabar.figures.learning import training_curve
from alphabar.figures.memory import memorisation
from alphabar.figures.points import data_cloud, samples_beside_data
from alphabar.figures.restored import restored
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
    "error_parts",
    "excess_by_level",
    "memorisation",
    "restored",
    "samples_beside_data",
    "schedule_curves",
    "schedule_ratios",
    "schedule_rows",
    "step_spacing",
    "strip",
    "training_curve",
]
