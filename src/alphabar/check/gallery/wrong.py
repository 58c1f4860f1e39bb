# mypy: allow-untyped-defs, allow-untyped-calls
# ruff: noqa: D101, D102, D103
"""The same functions with the bugs of the catalogue, one in each: the wrong code of the gallery.

    A6:  x_t = √ᾱ_t·x_0 + √(1 − ᾱ_t)·ε·x_0        and so on

The line with the bug is marked. None of this is to be used.
"""

import copy
import math
from itertools import pairwise

import torch

from alphabar.check.gallery.right import (
    alpha_bar,
    alpha_bar_prev,
    alpha_bar_zero,
    at,
    beta_at,
    betas,
    cosine_betas,
    ddim_step,
    level,
    min_snr_weight,
    p_sample,
    posterior_mean,
    q_sample,
    sigma,
)

# --- from data to noise


def forward_step_a1(x, t):
    beta = at(betas, t)
    return torch.sqrt(1 - beta) * x + torch.sqrt(beta) * torch.rand_like(x)  # ← rand


def forward_step_a2(x, t):
    beta = at(betas, t)
    return torch.sqrt(1 - beta) * x + beta * torch.randn_like(x)  # ← no root


def q_sample_a3(x_0, t, noise=None):
    a = at(alpha_bar, t)
    return a.sqrt() * x_0 + (1 - a).sqrt() * torch.randn_like(x_0)  # ← not the noise given


def q_sample_a6(x_0, t, noise=None):
    noise = torch.randn_like(x_0) if noise is None else noise
    a = at(alpha_bar, t)
    return a.sqrt() * x_0 + (1 - a).sqrt() * x_0 * noise  # ← times x_0


def ve_sample_a7(x_0, t):
    a = at(alpha_bar, t)
    return a.sqrt() * x_0 + (1 - a).sqrt() * torch.randn_like(x_0)  # ← variance-preserving


def q_sample_in_half_a35(x_0, t, noise):
    a = at(alpha_bar.to(x_0.dtype), t)  # ← rounded before 1 − ᾱ_t is taken
    x_t = a.sqrt() * x_0 + (1 - a).sqrt() * noise
    return x_t


# --- schedules


def make_betas_a13(n_steps):
    return torch.linspace(1e-4, 0.02, n_steps)  # ← made for 1000 steps


def cosine_alpha_bar_a10(n_steps):
    betas = cosine_betas(n_steps)
    with_data = torch.cat([torch.ones(1, dtype=betas.dtype), torch.cumprod(1 - betas, 0)])
    return with_data[:-1]  # ← keeps ᾱ = 1, of clean data, and leaves the last out


def sigma_prime_a14(t):
    return beta_at(t) * (sigma(t) + 1 / sigma(t))  # ← no ½


def karras_sigmas_a28(n, low=0.03, high=80.0, rho=7.0):
    ramp = torch.linspace(0, 1, n, dtype=torch.float64)
    sigmas = (high ** (1 / rho) + ramp * (low ** (1 / rho) - high ** (1 / rho))) ** rho
    return torch.cat([sigmas, sigmas[-1:]])  # ← ends with its last σ again


# --- training


def flow_times_a5(n):
    return torch.randn(n)  # ← normal


def score_loss_a4(model, x_0, t, noise):
    a = at(alpha_bar, t)
    x_t = a.sqrt() * x_0 + (1 - a).sqrt() * noise
    target = noise / (1 - a).sqrt()  # ← no minus
    return ((model(x_t, t) - target) ** 2).mean()


def image_loss_a9(model, images, t, noise):
    x_0 = 2 * (2 * images - 1) - 1  # ← twice
    x_t = q_sample(x_0, t, noise)
    return ((model(x_t, t) - noise) ** 2).mean()


def x_0_loss_a20(model, x_0, t, noise):
    x_t = q_sample(x_0, t, noise)
    return ((model(x_t, t) - x_t) ** 2).mean()  # ← x_t


def v_loss_a21(model, x_0, t, noise):
    x_t = q_sample(x_0, t, noise)
    return ((model(x_t, t) - noise) ** 2).mean()  # ← noise, of a model whose answer is v


def min_snr_weight_a17(t, gamma=5.0):
    snr = alpha_bar[t] / (1 - alpha_bar[t])
    return snr.clamp(min=gamma) / snr  # ← min


def min_snr_weight_to_zero_a19(t, gamma=5.0):
    snr = alpha_bar_zero[t] / (1 - alpha_bar_zero[t])
    return snr.clamp(max=gamma) / snr  # ← 0/0 at t = T


def weighted_loss_a18(model, x_0, t, noise):
    error = (model(q_sample(x_0, t, noise), t) - noise) ** 2
    weight = min_snr_weight(t).reshape(-1, 1)
    return (weight * error.mean(1)).mean()  # ← (B, 1) × (B,) is (B, B)


def time_embedding_a22(t, dim=32):
    rates = torch.exp(-math.log(10_000) * torch.arange(dim // 2) / (dim // 2 - 1))
    angles = torch.arange(len(t))[:, None] * rates[None, :]  # ← the place in the batch
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class EMA_A33:
    def __init__(self, model, decay=0.999):
        self.decay, self.count = decay, 0
        self.average = copy.deepcopy(model)

    @torch.no_grad()
    def update(self, model):
        self.count += 1
        self.decay = min(self.decay, self.count / (10 + self.count))  # ← overwritten
        for mean, new in zip(self.average.parameters(), model.parameters(), strict=True):
            mean.lerp_(new, 1 - self.decay)


# --- one step of a sampler


def posterior_mean_a11(x_0, x_t, t):
    alpha_bar_prev = torch.cat([alpha_bar[1:], torch.ones(1)])  # ← padded on the right
    a, b, beta = at(alpha_bar, t), at(alpha_bar_prev, t), at(betas, t)
    return b.sqrt() * beta / (1 - a) * x_0 + (1 - beta).sqrt() * (1 - b) / (1 - a) * x_t


def p_sample_a16(model, x, t):
    a, b, beta = at(alpha_bar, t), at(alpha_bar_prev, t), at(betas, t)
    mean = (x - beta / (1 - a).sqrt() * model(x, t)) / (1 - beta).sqrt()
    log_variance = (beta * (1 - b) / (1 - a)).clamp(min=1e-20).log()
    return mean + log_variance.sqrt() * torch.randn_like(x)  # ← root of a logarithm


def p_sample_learned_a15(model, x, t):
    a, b, beta = at(alpha_bar, t), at(alpha_bar_prev, t), at(betas, t)
    eps, part = model(x, t).chunk(2, dim=1)
    mean = (x - beta / (1 - a).sqrt() * eps) / (1 - beta).sqrt()
    low, high = beta * (1 - b) / (1 - a), beta  # ← not their logarithms
    variance = (1 + part) / 2 * high + (1 - part) / 2 * low
    return mean + (t > 0).reshape(-1, 1) * variance.sqrt() * torch.randn_like(x)


def p_sample_clipped_a34(model, x, t, largest=2.0):
    a, b, beta = at(alpha_bar, t), at(alpha_bar_prev, t), at(betas, t)
    x_0 = (x - (1 - a).sqrt() * model(x, t)) / a.sqrt()
    x_0 = x_0.clamp(-1, 1)  # ← whatever the range of the data
    variance = beta * (1 - b) / (1 - a)
    return posterior_mean(x_0, x, t) + variance.sqrt() * torch.randn_like(x)


def p_sample_guided_a32(model, gradient, x, t, scale=1.0):
    a, b, beta = at(alpha_bar, t), at(alpha_bar_prev, t), at(betas, t)
    mean = (x - beta / (1 - a).sqrt() * model(x, t)) / (1 - beta).sqrt()
    variance = beta * (1 - b) / (1 - a)
    mean = mean + scale * variance * gradient(x, t)  # ← at x
    return mean + variance.sqrt() * torch.randn_like(x)


def langevin_step_a31(score, x, t, step=0.002):
    noise = torch.randn_like(x)
    return x + step * score(x, t) + step * noise  # ← no √(2·step)


# --- whole loops


def ddim_sample_a12(model, shape, n=10):
    x = torch.randn(shape)
    times = torch.arange(0, 100, 100 // n).flip(0).tolist()  # ← starts at 90
    for t, s in pairwise([*times, -1]):
        x = ddim_step(x, model(x, t), level(t), level(s))
    return x


def ddim_sample_a23(model, shape, n=30):
    x = torch.randn(shape)
    times = torch.linspace(99, 0, n).round().long().tolist()
    for i, (t, s) in enumerate(pairwise([*times, -1])):
        x = ddim_step(x, model(x, n - 1 - i), level(t), level(s))  # ← the index of t
    return x


def ddim_sample_by_x_0_a24(model, shape, n=30):
    x = torch.randn(shape)
    times = torch.linspace(99, 0, n).round().long().tolist()
    for t, s in pairwise([*times, 0]):
        x_0 = model(x, t)
        a, b = alpha_bar_prev[t], alpha_bar_prev[s]  # ← each of the level before; last 1, 1
        eps = (x - a.sqrt() * x_0) / (1 - a).sqrt()
        x = ddim_step(x, eps, a, b)
    return x


def ddim_sample_by_x_0_a25(model, shape, n=30):
    x = torch.randn(shape)
    times = torch.linspace(99, 0, n).round().long().tolist()
    for t, s in pairwise([*times, -1]):
        eps = model(x, t)  # ← its answer is x̂_0
        x = ddim_step(x, eps, level(t), level(s))
    return x


def ddim_sample_a26(model, shape, n=30):
    x = torch.randn(shape)
    for t in torch.linspace(99, 0, n).round().long().tolist():
        s = max(t - 100 // n, -1)  # ← not the next of the times
        x = ddim_step(x, model(x, t), level(t), level(s))
    return x


def ddim_sample_a29(model, shape, n=30):
    x = torch.randn(shape)
    times = torch.linspace(99, 0, n).round().long().tolist()
    for t, s in pairwise([*times, 0]):  # ← ends at index 0, which is not clean
        x = ddim_step(x, model(x, t), level(t), level(s))
    return x


def ddpm_sample_a30(model, shape):
    x = torch.randn(shape)
    for t in range(100):  # ← rising
        x = p_sample(model, x, torch.full((len(x),), t))
    return x


def img2img_a8(model, x_0, begin=10, n=30):
    times = torch.linspace(0, 99, n).round().long().tolist()
    x = q_sample(x_0, times[begin])
    for t, s in pairwise([*reversed(times[:begin]), -1]):  # ← begins one step lower
        x = ddim_step(x, model(x, t), level(t), level(s))
    return x


def heun_sample_a27(denoise, x, sigmas):
    for here, there in pairwise(sigmas.tolist()):
        slope = (x - denoise(x, here)) / here
        x_next = x + (there - here) * slope
        if there > 0:
            slope_next = (x_next - denoise(x_next, there)) / here  # ← σ of the first stage
            x_next = x + (there - here) * (slope + slope_next) / 2
        x = x_next
    return x
