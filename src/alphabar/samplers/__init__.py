"""Samplers: one short file a family of methods, one loop for all."""

from alphabar.samplers.adams import adams
from alphabar.samplers.adaptive import adaptive
from alphabar.samplers.base import (
    SAMPLERS,
    Asked,
    Denoiser,
    LinearSampler,
    Mix,
    Move,
    Normal,
    Sampler,
    Step,
    eigen,
    invert,
    levels_of,
    matched,
    nfe_of,
    sample,
)
from alphabar.samplers.ddim import ddim, ddpm
from alphabar.samplers.dpmpp import dpmpp_2m, dpmpp_2m_sde, dpmpp_3m, dpmpp_3m_sde
from alphabar.samplers.heun import euler, heun
from alphabar.samplers.langevin import langevin, pc
from alphabar.samplers.mixes import mixes
from alphabar.samplers.unipc import unipc

__all__ = [
    "SAMPLERS",
    "Asked",
    "Denoiser",
    "LinearSampler",
    "Mix",
    "Move",
    "Normal",
    "Sampler",
    "Step",
    "adams",
    "adaptive",
    "ddim",
    "ddpm",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "dpmpp_3m",
    "dpmpp_3m_sde",
    "eigen",
    "euler",
    "heun",
    "invert",
    "langevin",
    "levels_of",
    "matched",
    "mixes",
    "nfe_of",
    "pc",
    "sample",
    "unipc",
]
