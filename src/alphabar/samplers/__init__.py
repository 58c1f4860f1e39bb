"""Samplers: one short file a family of methods, one loop for all."""

from alphabar.samplers.base import SAMPLERS, Denoiser, Move, Sampler, Step, sample
from alphabar.samplers.ddim import DDIM, ddim, ddpm
from alphabar.samplers.dpmpp import DPMpp2M, dpmpp_2m

__all__ = [
    "DDIM",
    "SAMPLERS",
    "DPMpp2M",
    "Denoiser",
    "Move",
    "Sampler",
    "Step",
    "ddim",
    "ddpm",
    "dpmpp_2m",
    "sample",
]
