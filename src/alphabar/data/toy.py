"""Toy sets in the plane, each one formula.

    x_0 = curve(position) + noise·ε,    ε ~ N(0, I)

Every point is drawn on its own (no evenly spaced angles, no equal shares), so that any part of a
set is a fair sample of p(x_0). Coordinates are near unit scale: x_T ~ N(0, I) is not far away.
"""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float64, Int64
from numpy.random import Generator, default_rng

from alphabar.arguments import check_number
from alphabar.data.base import DATA, Data, Draw, Randomness, check_count, check_noise, generated

if TYPE_CHECKING:
    from alphabar.targets import Target

TAU = 2 * math.pi
Array = Float64[np.ndarray, " n"] | Int64[np.ndarray, " n"]
Coordinates = tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]


@DATA.entry()
def swiss_roll(n: int = 10_000, noise: float = 1.0, seed: int = 0) -> Data:
    """A rolled-up sheet seen from its side, the study post's set.

        x = (t·cos t + noise·ε₁, t·sin t + noise·ε₂)/10,    t ~ U[1.5π, 4.5π]

    Columns 0 and 2 of scikit-learn's `make_swiss_roll(n, noise=noise, random_state=seed)`, over
    10. Hue: t, from the inner end to the outer.
    """
    noise = check_noise(noise)

    def draw(n: int, randomness: Randomness) -> Draw:
        from sklearn.datasets import make_swiss_roll

        if isinstance(randomness, np.random.SeedSequence):
            state: int | np.random.RandomState = np.random.RandomState(
                np.random.MT19937(randomness)
            )
        else:
            state = randomness
        x, t = make_swiss_roll(n, noise=noise, random_state=state)
        t = t.reshape(n)  # which squeezes a single one
        return Draw(x[:, [0, 2]] / 10.0, (t / (1.5 * math.pi) - 1) / 2)

    def curve(u: Array) -> Coordinates:
        t = 1.5 * math.pi * (1 + 2 * u)
        return _polar(t / 10, t)

    return generated(draw, n, seed, _law(curve, noise / 10))


@DATA.entry()
def moons(n: int = 10_000, noise: float = 0.05, seed: int = 0) -> Data:
    """Two half circles, each with its tip in the other.

        upper: (cos θ − ½, sin θ − ¼)    lower: (½ − cos θ, ¼ − sin θ)    + noise·ε,  θ ~ U[0, π]

    scikit-learn's `make_moons`, centred. Hue: along the upper one, then the lower.
    """
    noise = check_noise(noise)

    def draw(n: int, randomness: Randomness) -> Draw:
        rng = default_rng(randomness)
        lower, u = rng.integers(2, size=n), rng.random(n)
        return Draw(_blur(curve(lower, u), noise, rng), (lower + u) / 2, lower)

    def curve(lower: Array, u: Array) -> Coordinates:
        side = 1 - 2 * lower
        return side * (np.cos(math.pi * u) - 0.5), side * (np.sin(math.pi * u) - 0.25)

    return generated(draw, n, seed, _law_of_parts(curve, noise, [1, 1]))


@DATA.entry()
def circles(n: int = 10_000, factor: float = 0.5, noise: float = 0.05, seed: int = 0) -> Data:
    """A circle of radius 1 and one of radius `factor` inside it.

        x = r·(cos θ, sin θ) + noise·ε,    r = 1 or factor, half the points each,  θ ~ U[0, 2π]

    scikit-learn's `make_circles`. Hue: θ.
    """
    factor = check_number("factor", factor, 0, 1, "a radius from 0 to 1, such as 0.5")
    noise = check_noise(noise)

    def draw(n: int, randomness: Randomness) -> Draw:
        rng = default_rng(randomness)
        inner, u = rng.integers(2, size=n), rng.random(n)
        return Draw(_blur(curve(inner, u), noise, rng), u, inner)

    def curve(inner: Array, u: Array) -> Coordinates:
        return _polar(np.where(inner, factor, 1.0), TAU * u)

    return generated(draw, n, seed, _law_of_parts(curve, noise, [1, 1]))


@DATA.entry()
def s_curve(n: int = 10_000, noise: float = 0.05, seed: int = 0) -> Data:
    """The letter S, two three-quarter circles.

        x = (sin t, sign(t)·(cos t − 1))/√2 + noise·ε,    t ~ U[−1.5π, 1.5π]

    Columns 0 and 2 of scikit-learn's `make_s_curve`, over √2. Hue: t, from the top end.
    """
    noise = check_noise(noise)

    def draw(n: int, randomness: Randomness) -> Draw:
        rng = default_rng(randomness)
        u = rng.random(n)
        return Draw(_blur(curve(u), noise, rng), u)

    def curve(u: Array) -> Coordinates:
        t = 3 * math.pi * (u - 0.5)
        return np.sin(t) / math.sqrt(2), np.sign(t) * (np.cos(t) - 1) / math.sqrt(2)

    return generated(draw, n, seed, _law(curve, noise, (0, 0.5, 1)))


@DATA.entry()
def spirals(
    n: int = 10_000, arms: int = 2, turns: float = 1.5, noise: float = 0.03, seed: int = 0
) -> Data:
    """Arms that wind out of the centre together.

        x = 1.6·s·(cos φ, sin φ) + noise·ε,    φ = 2π·(turns·s + k/arms),  s = √u,  u ~ U[0, 1]

    k is the arm. Hue: along arm 0 from the centre, then arm 1, …
    """
    arms, noise = check_count("arms", arms, 100), check_noise(noise)
    turns = check_number("turns", turns, 0, 100, "a number of turns from 0 to 100, such as 1.5")

    def draw(n: int, randomness: Randomness) -> Draw:
        rng = default_rng(randomness)
        k, u = rng.integers(arms, size=n), rng.random(n)
        return Draw(_blur(curve(k, u), noise, rng), (k + np.sqrt(u)) / arms, k)

    def curve(k: Array, u: Array) -> Coordinates:
        s = np.sqrt(u)
        return _polar(1.6 * s, TAU * (turns * s + k / arms))

    return generated(draw, n, seed, _law_of_parts(curve, noise, [1] * arms))


@DATA.entry()
def pinwheel(
    n: int = 10_000,
    arms: int = 5,
    radial: float = 0.3,
    tangential: float = 0.1,
    rate: float = 0.25,
    seed: int = 0,
) -> Data:
    """Blades on a hub, twisted more the further out.

        x = R(φ)·(a, b),  a = 1 + radial·ε₁,  b = tangential·ε₂,  φ = 2π·k/arms + rate·exp(a)

    R(φ) turns by φ, k is the arm. Johnson et al. 2016, figure 1. Hue: the arm.
    """
    arms = check_count("arms", arms, 100)
    # exp(a) overflows long after the blades have become rings.
    rule = "a standard deviation from 0 to 10, such as 0.1"
    radial = check_number("radial", radial, 0, 10, rule)
    tangential = check_number("tangential", tangential, 0, 10, rule)
    rate = check_number("rate", rate, -10, 10, "a twist from -10 to 10, such as 0.25")

    def draw(n: int, randomness: Randomness) -> Draw:
        rng = default_rng(randomness)
        k = rng.integers(arms, size=n)
        a, b = 1 + radial * rng.standard_normal(n), tangential * rng.standard_normal(n)
        angle = TAU * k / arms + rate * np.exp(a)
        cos, sin = np.cos(angle), np.sin(angle)
        return Draw(np.stack([a * cos - b * sin, a * sin + b * cos], 1), k / arms, k)

    return generated(draw, n, seed)


@DATA.entry()
def checkerboard(n: int = 10_000, squares: int = 4, seed: int = 0) -> Data:
    """The dark squares of a board, uniform inside each.

        x ~ U of the squares (i, j) with i + j even, of a board of squares² on [−1.5, 1.5]²

    i counts from the left and j from below. Hue: from left to right.
    """
    squares = check_count("squares", squares, 100)

    def draw(n: int, randomness: Randomness) -> Draw:
        rng = default_rng(randomness)
        i, j = np.indices((squares, squares)).reshape(2, -1)
        dark = np.flatnonzero((i + j) % 2 == 0)
        k = rng.integers(len(dark), size=n)
        cell = np.stack([i[dark[k]], j[dark[k]]], 1)
        u = (cell + rng.random((n, 2))) / squares
        return Draw(3 * (u - 0.5), u[:, 0], k)

    return generated(draw, n, seed)


@DATA.entry()
def rings(n: int = 10_000, rings: int = 4, noise: float = 0.03, seed: int = 0) -> Data:
    """Circles around one centre, evenly spaced, as dense on each.

        x = r·(cos θ, sin θ) + noise·ε,    r = 1.5·k/rings,  k = 1..rings with p ∝ k,  θ ~ U[0, 2π]

    Hue: θ. Labels: k − 1.
    """
    rings, noise = check_count("rings", rings, 100), check_noise(noise)
    share = np.arange(1, rings + 1) / (rings * (rings + 1) / 2)

    def draw(n: int, randomness: Randomness) -> Draw:
        rng = default_rng(randomness)
        k, u = rng.choice(rings, size=n, p=share), rng.random(n)
        return Draw(_blur(curve(k, u), noise, rng), u, k)

    def curve(k: Array, u: Array) -> Coordinates:
        return _polar(1.5 * (k + 1) / rings, TAU * u)

    return generated(draw, n, seed, _law_of_parts(curve, noise, range(1, rings + 1)))


@DATA.entry()
def gaussians(n: int = 10_000, modes: int = 8, std: float = 0.1, seed: int = 0) -> Data:
    """Equal round Gaussians, on a ring or, if `modes` is a square number, on a grid.

        x = mean_k + std·ε,    k ~ U{0, …, modes − 1}

    `gaussian_means(modes)` gives the means, whose variance is 1 along each axis. Hue and labels:
    the component k.
    """
    means = gaussian_means(modes)
    std = check_noise(std, "std")

    def draw(n: int, randomness: Randomness) -> Draw:
        rng = default_rng(randomness)
        k = rng.integers(len(means), size=n)
        return Draw(means[k] + std * rng.standard_normal((n, 2)), k / len(means), k)

    def target() -> "Target":
        from alphabar.targets import Mixture

        var = torch.full((len(means),), std**2, dtype=torch.float64)
        return Mixture(torch.ones_like(var), torch.from_numpy(means), var)

    return generated(draw, n, seed, target)


def gaussian_means(modes: int) -> Float64[np.ndarray, "modes 2"]:
    """The means of the components of `gaussians`.

    ring: √2·(cos φ, sin φ),  φ = 2π·k/modes    grid of m·m: from (−h, −h) to (h, h), row by row,
    h = √(3·(m − 1)/(m + 1))
    """
    modes = check_count("modes", modes, 10_000)
    side = math.isqrt(modes)
    if side * side == modes:
        half = math.sqrt(3 * (side - 1) / (side + 1))
        y, x = np.meshgrid(*[np.linspace(-half, half, side)] * 2, indexing="ij")
        return np.stack([x.ravel(), y.ravel()], 1)
    return np.stack(_polar(np.full(modes, math.sqrt(2)), TAU * np.arange(modes) / modes), 1)


def _law(
    curve: Callable[[Array], Coordinates], noise: float, pieces: Sequence[float] = (0, 1)
) -> Callable[[], "Target"]:
    """The law of curve(u) + noise·ε, u ~ U[0, 1]; `pieces`: see `alphabar.targets.Curve`."""

    def target() -> "Target":
        from alphabar.targets import Curve

        return Curve(
            lambda u: torch.from_numpy(np.stack(curve(u.numpy()), 1)), noise, tuple(pieces)
        )

    return target


def _law_of_parts(
    curve: Callable[[Array, Array], Coordinates], noise: float, shares: Sequence[int]
) -> Callable[[], "Target"]:
    """The law of curve(k, u) + noise·ε, part k with probability ∝ shares[k], u ~ U[0, 1]."""
    edges = np.cumsum([0, *shares]) / sum(shares)

    def whole(s: Array) -> Coordinates:
        k = np.searchsorted(edges[1:-1], s, side="right")
        return curve(k, ((s - edges[k]) / np.diff(edges)[k]).clip(0, 1))

    return _law(whole, noise, edges.tolist())


def _polar(radius: Array, angle: Array) -> Coordinates:
    return radius * np.cos(angle), radius * np.sin(angle)


def _blur(curve: Coordinates, noise: float, rng: Generator) -> Float64[np.ndarray, "n 2"]:
    x = np.stack(curve, 1)
    return x + noise * rng.standard_normal(x.shape)
