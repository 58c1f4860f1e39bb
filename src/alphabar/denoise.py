"""A network made into a denoiser: x̂_0 = E[x_0 | x_t], at any level, in any scale.

With data of mean m and standard deviation s, and v = σ² + α²·s² the variance of x_t,

    x̂_0 = m + (α·s²/v)·(x_t − α·m) + (σ·s/√v)·net((x_t − α·m)/√v, λ)

so that the network's input and its ideal output have variance 1 at every level. This is Karras et
al. 2022, table 1 (EDM), for any α: with α = 1 it is theirs. At α = 0 (pure noise) all of it is
finite, and at σ = 0 it returns x_t itself.
"""

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from alphabar.schedule import Level, align


class NetDenoiser(nn.Module):
    """The denoiser above. Data's mean and standard deviation are stored with the weights.

    Args:
        net: (points, label) → points; the label is λ/4, kept within ±5.
        x_0: the training data, from which m (one per number) and s (one for all) are taken.

    Raises:
        ValueError: data that do not vary.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, net: nn.Module, x_0: Float[Tensor, "N ..."]) -> None:
        super().__init__()
        self.net = net
        mean = x_0.double().mean(0)
        std = (x_0.double() - mean).square().mean().sqrt()
        if not std > 0:
            raise ValueError(
                f"the data do not vary (standard deviation {std:g}): there is nothing to learn; "
                "give at least two different items"
            )
        self.register_buffer("mean", mean.float())
        self.register_buffer("std", std)

    def output_scale(self, level: Level) -> Float64[Tensor, "*B"]:
        """σ·s/√v: by how much the network's answer counts, and its error too."""
        level = self._here(level)
        return level.sigma * self.std / self._total(level)

    def _here(self, level: Level) -> Level:
        return Level(level.alpha.to(self.std.device), level.sigma.to(self.std.device))

    def _total(self, level: Level) -> Float64[Tensor, "*B"]:
        return torch.hypot(level.sigma, level.alpha * self.std)

    def forward(self, x_t: Float[Tensor, "B ..."], level: Level) -> Float[Tensor, "B ..."]:
        """x̂_0 for x_t at one level, or one level an item."""
        level = self._here(level)
        total = self._total(level)
        centred = x_t - align(level.alpha, x_t) * self.mean
        label = (level.log_snr / 4).clamp(-5, 5).to(x_t.device, x_t.dtype).expand(len(x_t))
        answer = self.net(centred * align(1 / total, x_t), label)
        return (
            self.mean
            + align(level.alpha * self.std**2 / total**2, x_t) * centred
            + align(self.output_scale(level), x_t) * answer
        )
