"""Langevin's moves: the noise that keeps a density, right and wrong, and an oracle by moments."""

import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from alphabar.check.langevin import check_langevin

LEVELS = [1.0, 0.5, 0.2, 0.1]  # that are handed over


def move(keep: float = 1.0, up: float = 1.0, noise: float = math.sqrt(2)):  # type: ignore[no-untyped-def]
    def moved(score, x, t, step=1e-3):  # type: ignore[no-untyped-def]
        z = torch.randn_like(x)
        return keep * x + up * step * score(x, t) + noise * math.sqrt(step) * z

    return moved


def kinds(function: object, **facts: object) -> list[str]:
    found = check_langevin(function, **facts)  # type: ignore[arg-type]
    assert (found.verdict == "bug") == bool(found.diagnoses), found
    return [d.id for d in found.diagnoses]


def song_and_ermon(score, x, sigmas, step=2e-5, n=20):  # type: ignore[no-untyped-def]
    for sigma in sigmas:
        a = step * (sigma / sigmas[-1]) ** 2
        for _ in range(n):
            x = x + a / 2 * score(x, sigma) + a**0.5 * torch.randn_like(x)
    return x


def corrector(score, x, t, r=0.16, n=2):  # type: ignore[no-untyped-def]
    """Of the ratio of signal and noise, Song et al. 2021, algorithm 4."""
    for _ in range(n):
        g, z = score(x, t), torch.randn_like(x)
        norm = [v.flatten(1).norm(dim=1).mean() for v in (g, z)]
        step = 2 * (r * norm[1] / norm[0]) ** 2
        mean = x + step * g
        x = mean + torch.sqrt(2 * step) * z
    return x, mean


def corrector_by_item(score, x, t, r=0.16):  # type: ignore[no-untyped-def]
    g, z = score(x, t), torch.randn_like(x)
    step = 2 * (r * z.flatten(1).norm(dim=1) / g.flatten(1).norm(dim=1)) ** 2
    step = step.reshape(-1, *[1] * (x.ndim - 1))
    return x + step * g + torch.sqrt(2 * step) * z


def with_numpy(score, x, sigma, step=0.01):  # type: ignore[no-untyped-def]
    z = torch.from_numpy(np.random.standard_normal(x.shape)).to(x.dtype)  # noqa: NPY002
    return x + step * score(x, sigma) + math.sqrt(2 * step) * z


def final_denoise(score, x, sigmas, step=1e-4):  # type: ignore[no-untyped-def]
    for sigma in sigmas:
        x = x + step * score(x, sigma) + math.sqrt(2 * step) * torch.randn_like(x)
    return x + sigmas[-1] ** 2 * score(x, sigmas[-1])


def swapped(x, score, step, sigma, n):  # type: ignore[no-untyped-def]
    for _ in range(n):
        noise = torch.randn_like(x)
        x = x + step * score(x, sigma) + math.sqrt(2 * step) * noise
    return x


@pytest.mark.parametrize(
    "function",
    [
        move(),
        song_and_ermon,
        corrector,
        corrector_by_item,
        with_numpy,
        final_denoise,
        swapped,
    ],
)
def test_right_in_many_manners(function: object) -> None:
    found = check_langevin(function)  # type: ignore[arg-type]
    assert found.verdict == "right", found


@settings(max_examples=12, deadline=None)
@given(factor=st.floats(0.05, 5), step=st.floats(1e-5, 0.1))
def test_noise_by_any_factor(factor: float, step: float) -> None:
    """Named exactly where the variance at rest, by moments of an Ornstein-Uhlenbeck chain, is off.

    For p = N(0, 1) the chain's variance v solves v = (1 − a)²·v + b².
    """
    function = move(up=1.0, noise=math.sqrt(2) * factor)
    found = check_langevin(lambda score, x, t: function(score, x, t, step))
    b = math.sqrt(2 * step) * factor
    rest = b**2 / (1 - (1 - step) ** 2) * (1 - step / 2)  # up to the error of the step itself
    if abs(rest - 1) < 1e-4:
        assert found.verdict == "right"
    elif abs(rest - 1) > 3e-3:
        assert [d.id for d in found.diagnoses] == ["A31"], found
        said = re.search(r"variance is ([\d.e-]+)", found.diagnoses[0].explains)
        assert said is not None
        assert float(said[1]) == pytest.approx(rest, rel=1e-3)


def without_noise(score, x, t):  # type: ignore[no-untyped-def]
    return x + 0.01 * score(x, t)


def step_for_root(score, x, t, step=0.01):  # type: ignore[no-untyped-def]
    return x + step * score(x, t) + 2 * step * torch.randn_like(x)


def annealed_wrong(score, x, sigmas, step=1e-4):  # type: ignore[no-untyped-def]
    for sigma in sigmas:
        for _ in range(3):
            x = x + step * sigma**2 * score(x, sigma) + math.sqrt(2 * step) * torch.randn_like(x)
    return x


def numpy_wrong(score, x, sigma, step=0.01):  # type: ignore[no-untyped-def]
    z = torch.from_numpy(np.random.standard_normal(x.shape)).to(x.dtype)  # noqa: NPY002
    return x + step * score(x, sigma) + math.sqrt(step) * z


@pytest.mark.parametrize(
    "function", [without_noise, step_for_root, annealed_wrong, numpy_wrong, move(noise=1.0)]
)
def test_wrong_noise_is_named(function: object) -> None:
    assert kinds(function) == ["A31"]


def uniform(score, x, t, step=0.01):  # type: ignore[no-untyped-def]
    return x + step * score(x, t) + math.sqrt(2 * step) * torch.rand_like(x)


def fixed(score, x, t, step=0.01):  # type: ignore[no-untyped-def]
    z = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    return x + step * score(x, t) + math.sqrt(2 * step) * z


def drawn_once(score, x, t, step=0.01, n=4):  # type: ignore[no-untyped-def]
    z = torch.randn_like(x)
    for _ in range(n):
        x = x + step * score(x, t) + math.sqrt(2 * step) * z
    return x


def one_for_all(score, x, t, step=0.01):  # type: ignore[no-untyped-def]
    return x + step * score(x, t) + math.sqrt(2 * step) * torch.randn_like(x[:1])


def elsewhere(score, x, t, step=0.01):  # type: ignore[no-untyped-def]
    z = torch.randn_like(x)
    return x + step * score(2 * x, t) + math.sqrt(2 * step) * z


def not_finite(score, x, t, step=0.01):  # type: ignore[no-untyped-def]
    return (x + step * score(x, t) + math.sqrt(2 * step) * torch.randn_like(x)) / 0


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (move(up=-1.0), "langevin/sign-of-the-score"),
        (move(up=0.0), "langevin/score-without-effect"),
        (move(keep=0.9), "langevin/x-by-a-factor"),
        (uniform, "langevin/uniform-noise"),
        (fixed, "langevin/the-same-noise"),
        (drawn_once, "langevin/the-same-noise"),
        (one_for_all, "langevin/shared-noise"),
    ],
)
def test_other_bugs_are_described(function: object, kind: str) -> None:
    assert kinds(function) == [kind]


def test_the_score_is_asked_where_x_is() -> None:
    assert "langevin/asked-elsewhere" in kinds(elsewhere)


@pytest.mark.parametrize("level", [float, lambda s: torch.full((4, 1), s), math.log, LEVELS.index])
def test_the_score_is_told_one_of_many_levels(level) -> None:  # type: ignore[no-untyped-def]
    def annealed(told, step=1e-3):  # type: ignore[no-untyped-def]
        def function(score, x, sigmas):  # type: ignore[no-untyped-def]
            for sigma in map(float, sigmas):
                a = step * (sigma / float(sigmas[-1])) ** 2
                for _ in range(2):
                    noise = torch.randn_like(x)
                    x = x + a * score(x, told(sigma, a)) + math.sqrt(2 * a) * noise
            return x

        return function

    assert kinds(annealed(lambda sigma, a: level(sigma))) == []
    # A number of its own for each level may be what the network was trained with.
    for told in (
        lambda sigma, a: a,
        lambda sigma, a: sigma**2,
        lambda sigma, a: math.log(sigma) / 4,
    ):
        found = check_langevin(annealed(told))
        assert found.verdict == "fragile"
        assert "tell your network the levels 1, 0.5, 0.2, 0.1" in found.why
    out_of_order = annealed(lambda sigma, a: math.cos(9 * sigma))
    assert kinds(out_of_order) == ["langevin/told-no-level"]


def test_in_place_is_fragile() -> None:
    def function(score, x, t):  # type: ignore[no-untyped-def]
        return x.add_(0.01 * score(x, t) + math.sqrt(0.02) * torch.randn_like(x))

    assert check_langevin(function).verdict == "fragile"


def test_a_module_and_a_list_of_levels() -> None:
    class Moves(nn.Module):
        def __init__(self, net: nn.Module | None = None) -> None:
            super().__init__()
            self.levels = [1.0, 0.3]

        def forward(self, score, x: Tensor, k: int) -> dict[str, Tensor]:  # type: ignore[no-untyped-def]
            a = 0.1 * self.levels[k] ** 2
            return {"x": x + a * score(x, k) + (2 * a) ** 0.5 * torch.randn(x.shape)}

    found = check_langevin(Moves())
    assert found.verdict == "right"
    assert "k: int" in found.convention


def test_what_cannot_be_called_says_why() -> None:
    found = check_langevin(lambda score, x, t, a, b, c: x)
    assert found.verdict == "unchecked"
    assert "given={'c': ...}" in found.why
    found = check_langevin(lambda score, x, t: 1 / 0)
    assert found.verdict == "unchecked"
    assert "ZeroDivisionError" in found.why
    assert check_langevin(not_finite).verdict in ("bug", "unchecked")
    with pytest.raises(ValueError, match=r"scale = 'v': choose 'vp' or 've'"):
        check_langevin(move(), scale="v")
