"""The real thing: diffusers' schedulers pass as they are, or for what can be demonstrated."""

from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    UniPCMultistepScheduler,
)

from alphabar import check

pytestmark = [pytest.mark.prove, pytest.mark.filterwarnings("ignore")]  # warnings of theirs
TRAILING = {"timestep_spacing": "trailing"}


@pytest.mark.parametrize(
    ("kind", "facts", "scale"),
    [
        (DDPMScheduler, {"clip_sample": False, **TRAILING}, "vp"),
        (HeunDiscreteScheduler, {}, "ve"),
        (DPMSolverMultistepScheduler, {}, "vp"),
        (UniPCMultistepScheduler, {}, "vp"),
    ],
)
def test_right_as_they_are(kind: Any, facts: dict[str, Any], scale: str) -> None:
    report = check.scheduler(kind(**facts), scale=scale)
    assert report.verdict in ("right", "equivalent"), report


def test_sampling_that_starts_below_T_is_told() -> None:
    """The default spacing, `leading`, tells the model 980 first, and 999 is what N(0, I) is."""
    for scheduler in (DDPMScheduler(clip_sample=False), DDIMScheduler(clip_sample=False)):
        report = check.scheduler(scheduler)
        assert report.functions[0].diagnoses[0].id == "A12", report
        scheduler.set_timesteps(50)
        assert scheduler.timesteps[0] == 980


def test_a_stride_that_is_not_the_next_timestep_is_told() -> None:
    report = check.scheduler(DDIMScheduler(clip_sample=False, set_alpha_to_one=True, **TRAILING))
    assert report.functions[0].diagnoses[0].id == "A26", report


def test_the_velocity_of_euler_is_that_of_other_levels() -> None:
    """Its place in the timesteps, noisiest first, is taken for an index of ᾱ, cleanest first."""
    scheduler = EulerDiscreteScheduler()
    wrong = [f for f in check.scheduler(scheduler, scale="ve").functions if f.verdict == "bug"]
    assert [f.name for f in wrong] == ["EulerDiscreteScheduler.get_velocity"]
    scheduler.set_timesteps(50)
    one = torch.ones(1, 3)
    found = scheduler.get_velocity(0 * one, one, scheduler.timesteps[:1])  # √ᾱ_T
    assert found[0, 0] > 0.99 > scheduler.alphas_cumprod[-1].sqrt()
