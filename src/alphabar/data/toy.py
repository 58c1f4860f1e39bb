"""Toy sets in the plane, each one formula.

    x_0 = curve(position) + noise·ε,    ε ~ N(0, I)

Every point is drawn on its own (no evenly spaced angles, no equal shares), so that any part of a
set is a fair sample of p(x_0). Coordinates are near unit scale: x_T ~ N(0, I) is not far away.
"""

import math

import numpy as np
from jaxtyping import Float64
from numpy.random import Generator, default_rng

from alphabar.checks import check_number
from alphabar.data.base import DATA, Data, Draw, Randomness, check_count, check_noise, generated

TAU = 2 * math.pi


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

    return generated(draw, n, seed)


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
        side = 1 - 2 * lower
        curve = (side * (np.cos(math.pi * u) - 0.5), side * (np.sin(math.pi * u) - 0.25))
        return Draw(_blur(curve, noise, rng), (lower + u) / 2, lower)

    return generated(draw, n, seed)


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
        return Draw(_blur(_polar(np.where(inner, factor, 1.0), TAU * u), noise, rng), u, inner)

    return generated(draw, n, seed)


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
        t = 3 * math.pi * (u - 0.5)
        curve = (np.sin(t) / math.sqrt(2), np.sign(t) * (np.cos(t) - 1) / math.sqrt(2))
        return Draw(_blur(curve, noise, rng), u)

    return generated(draw, n, seed)


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
        k, s = rng.integers(arms, size=n), np.sqrt(rng.random(n))
        curve = _polar(1.6 * s, TAU * (turns * s + k / arms))
        return Draw(_blur(curve, noise, rng), (k + s) / arms, k)

    return generated(draw, n, seed)


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
        return Draw(_blur(_polar(1.5 * (k + 1) / rings, TAU * u), noise, rng), u, k)

    return generated(draw, n, seed)


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

    return generated(draw, n, seed)


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


Coordinates = tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]


def _polar(radius: Float64[np.ndarray, " n"], angle: Float64[np.ndarray, " n"]) -> Coordinates:
    return radius * np.cos(angle), radius * np.sin(angle)


def _blur(curve: Coordinates, noise: float, rng: Generator) -> Float64[np.ndarray, "n 2"]:
    x = np.stack(curve, 1)
    return x + noise * rng.standard_normal(x.shape)
