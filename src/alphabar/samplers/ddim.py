"""DDIM and DDPM: exact steps, if x̂_0 were right.

    x_s = α_s·x̂_0 + √(σ_s² − d²)·ε̂ + d·z,    ε̂ = (x_t − α_t·x̂_0)/σ_t,    d = eta·σ̃

with σ̃² the variance of the posterior q(x_s | x_t, x_0). Song, Meng, Ermon 2021, eq. (12) and (16).
eta = 0 is deterministic, and is Euler's method both in EDM's σ and in the flow's time; eta = 1 is
DDPM's ancestral step, whose noise may be as large as the network has learned that it should be.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat
from typing import Literal, cast, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from alphabar.arguments import check_number
from alphabar.samplers.base import (
    SAMPLERS,
    Asked,
    LinearSampler,
    Mix,
    Move,
    Noise,
    combine,
    levels_of,
    one_call_a_step,
    scalars,
)
from alphabar.schedule import Level
from alphabar.variance import LearnedVariance, learned_log_variance

Variance = Literal["posterior", "beta", "learned"]


@dataclass(frozen=True)
class DDIM(LinearSampler):
    """The sampler above.

    Args:
        eta: 0 ≤ eta ≤ 1.
        variance: of the noise; `posterior` is (eta·σ̃)², `beta` the β of the step t → s, whatever
            eta is; `learned`, with eta = 1, is the denoiser's own, for each number of each item.
    """

    eta: float
    variance: Variance = "posterior"

    @property
    def order(self) -> int:
        """1 without noise."""
        return 1 if self.eta == 0 and self.variance == "posterior" else 0

    def moves(self, path: Level) -> list[Move]:
        """One call a step; the step to σ = 0 lands on x̂_0."""
        alpha_s, sigma_s, sigma_t = path.alpha[1:], path.sigma[1:], path.sigma[:-1]
        h = path.log_snr.diff() / 2
        new = (-torch.expm1(-2 * h)).clamp(min=0)  # σ̃² = σ_s²·new; no noise in inversion
        # Of eta = 1 directly: at σ_s = 0 the logarithm is that of 0, which has no gradient.
        kept = -h if self.eta == 1 else 0.5 * torch.log1p(-(self.eta**2) * new)
        a = sigma_s / sigma_t * kept.exp()
        b = -alpha_s * torch.expm1(kept - h)  # α_s − a·α_t, without the cancellation
        b = torch.where(alpha_s > 0, b, -a * path.alpha[:-1])  # to pure noise, in inversion
        if self.variance == "beta":
            # β = (1 − ᾱ_t)·new, in the variance-preserving scale; no noise on clean data.
            d = torch.hypot(alpha_s, sigma_s) * ((-path.log_snr[:-1]).sigmoid() * new).sqrt()
            d = torch.where(sigma_s > 0, d, 0.0)
        elif self.eta:
            d = self.eta * sigma_s * new.sqrt()
        else:
            d = torch.zeros_like(h)
        return one_call_a_step(path, map(Mix, scalars(a), scalars(b), repeat(()), scalars(d)))

    def run(
        self, ask: Asked, x: Float[Tensor, "n ..."], path: Level, noise: Noise
    ) -> Iterator[tuple[int, Float[Tensor, "n ..."], Float[Tensor, "n ..."]]]:
        """Lead x along the levels of `path`.

        Raises:
            TypeError: `learned`, and a denoiser that has learned no variance.
        """
        if self.variance != "learned":
            yield from super().run(ask, x, path, noise)
            return
        ask.denoiser = learned = LearnedVariance(ask.denoiser)
        levels = levels_of(path)
        for i, (t, s, move) in enumerate(zip(levels, levels[1:], self.moves(path), strict=False)):
            assert move.to is not None
            x_0_hat = ask(x, t, i)
            x = combine(Mix(move.to.a, move.to.b), x, [x_0_hat], None)
            if s.sigma > 0:
                std = (learned_log_variance(s, t, learned.mix) / 2).exp().to(x.dtype)
                x.addcmul_(std, noise(i + 1))
            yield i + 1, x, x_0_hat


@SAMPLERS.entry()
def ddim(eta: float = 0.0) -> DDIM:
    """Deterministic for eta = 0, the more noisy the closer eta is to 1 (Song et al. 2021)."""
    return DDIM(check_number("eta", eta, 0, 1, "0 ≤ eta ≤ 1"))


@SAMPLERS.entry()
def ddpm(variance: str = "posterior") -> DDIM:
    """The DDPM paper's ancestral sampling, with variance β̃ (`posterior`), β (`beta`) or `learned`.

    The first two are Ho et al.'s, section 3.2: β̃ is right if all data are one point, β if they are
    N(0, I). Between them lies what a run with the objective `hybrid` has learned (Nichol & Dhariwal
    2021, eq. (15)). But for β̃ the last step would add noise, and does not, as in their code.
    """
    if variance not in get_args(Variance):
        raise ValueError(f"variance = {variance}: choose {', '.join(get_args(Variance))}")
    return DDIM(1.0, cast(Variance, variance))
