"""alphabar: diffusion models you can see, prove and use.

    from alphabar import data, marginal, schedule, walk

Names are imported when they are first used: `import alphabar` alone does not import torch.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alphabar import (
        bound,
        check,
        data,
        decompose,
        denoise,
        diagnosis,
        evaluate,
        excess,
        figures,
        fit,
        forward,
        guidance,
        levels,
        likelihood,
        metrics,
        nets,
        objectives,
        predict,
        runs,
        samplers,
        schedule,
        targets,
        train,
    )
    from alphabar.denoise import ModelDenoiser, NetDenoiser
    from alphabar.fit import fit_mixes, fit_steps
    from alphabar.forward import Gaussian, marginal, posterior, transition, walk
    from alphabar.guidance import classifier_guided, guided
    from alphabar.samplers import invert, sample
    from alphabar.schedule import Level, Schedule
    from alphabar.targets import Curve, Mixture, Points, target_of

_HOMES = {
    "Level": "schedule",
    "Schedule": "schedule",
    "Gaussian": "forward",
    "marginal": "forward",
    "transition": "forward",
    "posterior": "forward",
    "walk": "forward",
    "sample": "samplers",
    "invert": "samplers",
    "ModelDenoiser": "denoise",
    "NetDenoiser": "denoise",
    "fit_steps": "fit",
    "fit_mixes": "fit",
    "guided": "guidance",
    "classifier_guided": "guidance",
    "Points": "targets",
    "Mixture": "targets",
    "Curve": "targets",
    "target_of": "targets",
}
_MODULES = (
    "bound",
    "check",
    "data",
    "decompose",
    "denoise",
    "diagnosis",
    "evaluate",
    "excess",
    "figures",
    "fit",
    "forward",
    "guidance",
    "levels",
    "likelihood",
    "metrics",
    "nets",
    "objectives",
    "predict",
    "runs",
    "samplers",
    "schedule",
    "targets",
    "train",
)

__all__ = [
    "Curve",
    "Gaussian",
    "Level",
    "Mixture",
    "ModelDenoiser",
    "NetDenoiser",
    "Points",
    "Schedule",
    "bound",
    "check",
    "classifier_guided",
    "data",
    "decompose",
    "denoise",
    "diagnosis",
    "evaluate",
    "excess",
    "figures",
    "fit",
    "fit_mixes",
    "fit_steps",
    "forward",
    "guidance",
    "guided",
    "invert",
    "levels",
    "likelihood",
    "marginal",
    "metrics",
    "nets",
    "objectives",
    "posterior",
    "predict",
    "runs",
    "sample",
    "samplers",
    "schedule",
    "target_of",
    "targets",
    "train",
    "transition",
    "walk",
]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(importlib.import_module(f"alphabar.{_HOMES[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"alphabar.{name}")
    raise AttributeError(f"module 'alphabar' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
