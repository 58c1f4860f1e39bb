"""A call of each figure that is drawn from numbers, and the exact law that some of them show."""

import numpy as np

from alphabar import schedule as schedules
from alphabar.figures import (
    Difficulty,
    density_and_score,
    error_against_calls,
    error_parts,
    excess_by_level,
    memorisation,
    restored,
    schedule_curves,
    schedule_ratios,
    step_spacing,
    training_curve,
)

ALPHA_BARS = (1.0, 0.97, 0.6, 0.02)
AXIS = np.linspace(-3, 3, 61)
GRID = np.stack(np.meshgrid(AXIS, AXIS), -1)
AT = np.stack(np.meshgrid(*[(np.arange(11) + 0.5) / 11 * 6 - 3] * 2), -1)
ROLL = np.linspace(1.5, 4.5, 30) * np.pi
CENTRES = np.stack([ROLL * np.cos(ROLL), ROLL * np.sin(ROLL)], 1) / 10


def law(x, alpha_bar, var=0.03, centres=CENTRES):
    """log p_t (…) and its gradient (…, 2) for equal Gaussians at `centres`."""
    v = alpha_bar * var + 1 - alpha_bar
    away = x[..., None, :] - np.sqrt(alpha_bar) * centres
    logs = -(away**2).sum(-1) / (2 * v) - np.log(2 * np.pi * v * len(centres))
    log_p = np.logaddexp.reduce(logs, axis=-1)
    weights = np.exp(logs - log_p[..., None])
    return log_p, -(weights[..., None] * away).sum(-2) / v


def field(alpha_bars=ALPHA_BARS, y=AXIS, at=AT, **options):
    grid = np.stack(np.meshgrid(AXIS, y), -1)
    densities, scores = zip(*((law(grid, a)[0], law(at, a)[1]) for a in alpha_bars), strict=True)
    return density_and_score(
        densities, scores, range(len(alpha_bars)), alpha_bars, x=AXIS, y=y, at=at, **options
    )


def samplers(n, error=0.03):
    """Measurements of n samplers that come down to 1 at their own rates; some end early."""
    return {
        f"sampler:order={i}": [
            (calls, v := np.sqrt(1 + ((3 + i) / calls) ** (1 + i % 3)), error and error * v)
            for calls in ([5, 10, 20, 50, 100] if i % 4 else [9, 19, 39])
        ]
        for i in range(n)
    }


LEVELS = {
    "even": np.linspace(-9, 9, 20),
    "가 $b": np.array([np.inf, 40, 5, 2, 0, -3, -np.inf]),
    "thousand": np.linspace(-10, 12, 1000),
}
BUMP = Difficulty(np.linspace(-20, 20, 201), np.exp(-(np.linspace(-20, 20, 201) ** 2) / 18))


def remembered(training=None, law=True, **options):
    """A training set, copies of it, and points near it."""
    rng = np.random.default_rng(0)
    training = rng.normal(size=(60, 2)) if training is None else training
    d = training.shape[1:]
    both = {
        "of_law": rng.uniform(-1, 1, size=(90, *d)),
        "nearest_of_law": rng.lognormal(-2, 0.5, 90),
    }
    return memorisation(
        training,
        training[rng.integers(0, len(training), 80)],
        nearest_of_set=np.repeat([0, 1e-4], 40),
        nearest_fresh=rng.lognormal(-2, 0.5, 500),
        **(both if law else {}),
        **options,
    )


PARTS = {
    "noise": (1.0, None),
    "model": (1.58, 0.12),
    "discretisation": (0.81, 0.16),
    "interaction": (-0.44, 0.04),
    "rest": (-0.07, 0.22),
    "total": (2.88, 0.27),
}


def trained(steps=3000, **options):
    """A loss that comes down to 0.9 and its noise, and the excess at some of its steps."""
    at = np.arange(1, steps + 1)
    excess = 0.1 / (1 + at / 100) ** 1.5
    seen = np.unique(np.geomspace(1, steps, 12).astype(int))
    found = [(n, excess[n - 1], 0.1 * excess[n - 1]) for n in seen.tolist()]
    loss = 0.9 * (1 + excess) + 0.03 * np.random.default_rng(0).normal(size=steps)
    return training_curve(at, loss, found, **{"optimum": 0.9, "goal": 0.01} | options)


def erring(levels=40, **options):
    """Errors of a denoiser that are largest in the middle, the exact one's, and their weights."""
    x = np.linspace(-10, 10, levels)
    optimum, weight = 1 / (1 + np.exp(x)), 1 + np.exp(x)
    excess = optimum * 0.02 * np.exp(-((x - 2) ** 2) / 8)
    return excess_by_level(x, excess, optimum, weight, 0.1 * excess, **options)


GROWN = {
    "linear": (2.6, 2.3, 2.9, 1.8),
    "quad": (1.9, 1.8, 2.1, 1.6),
    "sigmoid": (2.2, 2, 2.4, 1.5),
}
RATIOS = {
    ("plain", "post"): {
        "constant 0.035": (4.2, 3.9, 4.5, 3.95),
        "가 $b": (7, 6.5, 7.2, 6.8),
        **GROWN,
    },
    ("ours", "post"): {"constant 0.035": (2.9, 2.8, 3, 2.86), "가 $b": (2.3, 2, 2.6, 2.1), **GROWN},
    ("plain", "noise"): {"constant 0.088": (8.1, 7.7, 8.5, 7.8), **GROWN},
    ("ours", "noise"): {"constant 0.088": (5.9, None, None, None), **GROWN},
}

DRAWS = np.random.default_rng(3).uniform(-1, 1, (9, 3, 8, 8))
GIVEN = np.where(np.arange(8) < 4, DRAWS[:1], np.nan)  # half of it is missing

EXAMPLES = {
    "schedule_curves": lambda style: schedule_curves(
        [schedules.linear(100), schedules.flow(100)], ["a", "가 $b"], style=style
    ),
    "density_and_score": lambda style: field(style=style),
    "error_against_calls": lambda style: error_against_calls(samplers(6), goal=1.25, style=style),
    "schedule_ratios": lambda style: schedule_ratios(RATIOS, style=style),
    "step_spacing": lambda style: step_spacing(LEVELS, BUMP, style=style),
    "memorisation": lambda style: remembered(style=style),
    "error_parts": lambda style: error_parts(PARTS, inherited=0.19, style=style),
    "excess_by_level": lambda style: erring(style=style),
    "restored": lambda style: restored(GIVEN, DRAWS, style=style),
    "training_curve": lambda style: trained(style=style),
}
