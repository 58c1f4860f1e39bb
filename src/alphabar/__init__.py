"""alphabar: diffusion models you can see, prove and use.

    from alphabar import data, marginal, schedule, walk

Names are imported when they are first used: `import alphabar` alone does not import torch.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alphabar import data, diagnosis, figures, forward, metrics, samplers, schedule
    from alphabar.forward import Gaussian, marginal, posterior, transition, walk
    from alphabar.samplers import sample
    from alphabar.schedule import Level, Schedule

_HOMES = {
    "Level": "schedule",
    "Schedule": "schedule",
    "Gaussian": "forward",
    "marginal": "forward",
    "transition": "forward",
    "posterior": "forward",
    "walk": "forward",
    "sample": "samplers",
}
_MODULES = ("data", "diagnosis", "figures", "forward", "metrics", "samplers", "schedule")

__all__ = [
    "Gaussian",
    "Level",
    "Schedule",
    "data",
    "diagnosis",
    "figures",
    "forward",
    "marginal",
    "metrics",
    "posterior",
    "sample",
    "samplers",
    "schedule",
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
