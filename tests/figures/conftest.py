"""Small data of every kind that the figures draw, and the style matrix."""

import math

import numpy as np
import pytest
import torch
from figure_checks import LOOKS, TS, style_of
from sklearn.datasets import make_swiss_roll

from alphabar import schedule as schedules


@pytest.fixture(params=LOOKS, ids="-".join)
def style(request):
    return style_of(request.param)


@pytest.fixture
def data():
    """A function: the data of a kind and its hue."""

    def make(kind, n=400):
        rng = np.random.default_rng(0)
        x, roll = make_swiss_roll(n, noise=1.0, random_state=0)
        hue = (roll - roll.min()) / np.ptp(roll)
        cases = {
            "d1": torch.tensor(x[:, :1] / 10, dtype=torch.float32),
            "d2": torch.tensor(x[:, [0, 2]] / 10, dtype=torch.bfloat16),
            "d5": rng.normal(size=(n, 5)),
            "grey": torch.rand(30, 1, 8, 8) * 2 - 1,
            "colour": rng.uniform(-1, 1, size=(7, 3, 10, 12)),
            "one": torch.rand(1, 3, 40, 30, requires_grad=True),
        }
        return cases[kind], (hue if kind in ("d1", "d2", "d5") else None)

    return make


@pytest.fixture
def schedule():
    return schedules.constant(100, 0.035)


@pytest.fixture
def diffuse(schedule):
    """A function: x_t of data at each t, by the closed form."""

    def frames(x_0, ts=TS, schedule=schedule):
        x_0 = torch.as_tensor(x_0).detach().double()
        noise = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(1)).double()
        return [
            math.sqrt(schedule.alpha_bar[t]) * x_0 + math.sqrt(1 - schedule.alpha_bar[t]) * noise
            for t in ts
        ]

    return frames
