"""Training: show a denoiser noisy items, and ask for the clean ones.

    minimise  E ‖x̂_0(x_t, level) − x_0‖² / c_out²    over x_0 from the data, λ uniform, ε ~ N(0, I)

Whatever the weight, the minimiser is E[x_0 | x_t] (Vincent 2011); this one, Karras et al. 2022,
eq. (8), asks the network for an answer of variance 1 at every level.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple, cast

import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from alphabar.checks import check_seed, check_whole
from alphabar.denoise import NetDenoiser
from alphabar.forward import marginal
from alphabar.schedule import Level

# Levels outside this range teach nothing: above it data are seen as they are, below it not at all.
_LOG_SNR = (-10.0, 10.0)


class TrainStep(NamedTuple):
    """What one step of training leaves behind."""

    step: int  # 1..steps
    loss: Float[Tensor, ""]
    denoiser: NetDenoiser  # the moving average of the weights: the one to sample with


def denoising_loss(
    denoiser: NetDenoiser,
    x_0: Float[Tensor, "B ..."],
    level: Level,
    eps: Float[Tensor, "B ..."],
) -> Float[Tensor, " B"]:
    """The loss above for each item, averaged over its numbers."""
    x_0_hat = denoiser(marginal(level, x_0).at(eps), level)
    weight = (denoiser.output_scale(level) ** -2).to(x_0.device, x_0.dtype)
    return weight * (x_0_hat - x_0).square().flatten(1).mean(1)


def train(
    denoiser: NetDenoiser,
    x_0: Float[Tensor, "N ..."],
    steps: int,
    seed: int,
    batch: int = 1024,
    peak_rate: float = 3e-3,
) -> Iterator[TrainStep]:
    """Train `denoiser` on the items x_0, one step each time the iterator is advanced.

    AdamW with a one-cycle rate (Smith & Topin 2018), and a moving average of the weights that
    spans about the last tenth of the steps, and the last thousand at most.

    Args:
        denoiser: trained in place.
        x_0: the data, (N, …).
        steps: how many steps.
        seed: with the same seed, data and number of threads, all is bit-identical.
        batch: items a step, drawn with replacement.
        peak_rate: the highest learning rate.

    Raises:
        ValueError: steps or batch below 1; a loss that is not finite; it is looked at every 100
            steps and at the last.
    """
    check_whole("steps", steps, 1, 10**9)
    check_whole("batch", batch, 1, 10**9)
    generator = torch.Generator().manual_seed(check_seed(seed) % 2**63)
    optimizer = torch.optim.AdamW(denoiser.parameters(), lr=peak_rate, weight_decay=0, fused=True)
    rate = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, peak_rate, total_steps=steps + 1, pct_start=0.1
    )
    decay = math.exp(-10 / steps) if steps > 10 else 0.0
    decay = min(decay, 0.999)
    average = AveragedModel(denoiser, multi_avg_fn=get_ema_multi_avg_fn(decay))  # type: ignore[no-untyped-call]
    denoiser.train()
    for step in range(1, steps + 1):
        chosen = torch.randint(len(x_0), (batch,), generator=generator)
        items = x_0[chosen.to(x_0.device)]
        eps = torch.randn(items.shape, generator=generator, dtype=items.dtype).to(items.device)
        loss = denoising_loss(denoiser, items, _levels(batch, generator), eps).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        rate.step()
        average.update_parameters(denoiser)
        if (step % 100 == 0 or step == steps) and not loss.isfinite():
            raise ValueError(f"the loss is {loss.item()} at step {step}: lower peak_rate")
        yield TrainStep(step, loss.detach(), cast(NetDenoiser, average.module))


def _levels(n: int, generator: torch.Generator) -> Level:
    """n levels with λ spread evenly over its range, all shifted by one random amount.

    Evenly spread levels vary the loss less than independent ones (Kingma et al. 2021, appendix
    I.1).
    """
    low, high = _LOG_SNR
    shift = torch.rand((), generator=generator, dtype=torch.float64)
    log_snr: Float64[Tensor, " n"] = low + (high - low) * (torch.arange(n) + shift) / n
    return Level(log_snr.sigmoid().sqrt(), (-log_snr).sigmoid().sqrt())
