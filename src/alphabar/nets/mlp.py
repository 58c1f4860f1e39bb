"""A multilayer perceptron for points, with random Fourier features.

    features(v) = [v, sin(v·F), cos(v·F)],    F fixed, its columns drawn from N(0, scale²·I)

A plain MLP learns fine detail last; sines of its input give it the detail from the start (Tancik
et al. 2020, *Fourier Features Let Networks Learn High Frequency Functions*).
"""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Fourier(nn.Module):
    """v ↦ [v, sin(v·F), cos(v·F)] with a fixed random matrix F, saved with the weights."""

    frequencies: Tensor

    def __init__(self, d: int, n: int, scale: float, generator: torch.Generator) -> None:
        super().__init__()
        self.register_buffer("frequencies", scale * torch.randn(d, n, generator=generator))
        self.size = d + 2 * n

    def forward(self, v: Float[Tensor, "B d"]) -> Float[Tensor, "B features"]:
        """The features of v."""
        phase = v @ self.frequencies
        return torch.cat([v, phase.sin(), phase.cos()], 1)


class MLP(nn.Module):
    """Points and a scalar label each, to points.

    Args:
        d: numbers per point.
        seed: of the fixed frequencies and the first weights.
        width: units per hidden layer.
        depth: hidden layers.
    """

    def __init__(self, d: int, seed: int, width: int = 128, depth: int = 3) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.point = Fourier(d, 16, 2.0, generator)
        self.label = Fourier(1, 8, 1.0, generator)
        sizes = [self.point.size + self.label.size, *[width] * depth]
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(sizes):
            layers += [_linear(fan_in, fan_out, fan_in**-0.5, generator), nn.SiLU()]
        # The answer starts at 0, which the preconditioning makes the best linear denoiser.
        self.body = nn.Sequential(*layers, _linear(width, d, 0.0, generator))

    def forward(self, x: Float[Tensor, "B d"], label: Float[Tensor, " B"]) -> Float[Tensor, "B d"]:
        """The network's answer for points x with labels."""
        return self.body(torch.cat([self.point(x), self.label(label[:, None])], 1))


def _linear(fan_in: int, fan_out: int, bound: float, generator: torch.Generator) -> nn.Linear:
    """A layer with weights uniform in ±bound, and biases of 0."""
    # Its own start draws from the global generator, which is not ours to move.
    with torch.random.fork_rng(devices=[]):
        layer = nn.Linear(fan_in, fan_out)
    nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer
