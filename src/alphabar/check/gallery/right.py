# mypy: allow-untyped-defs, allow-untyped-calls
# ruff: noqa: D101, D102, D103
"""Diffusion as one writes it in a notebook: the right code of the gallery.

    x_t = √ᾱ_t·x_0 + √(1 − ᾱ_t)·ε,    ᾱ_t = (1 − β_1)·…·(1 − β_t)

Index t = 0 … 99 is the level after t + 1 steps, and index −1 is clean data. A model is called as
model(x, t). What is wrong with each of these functions is in `wrong`, beside which it is shown.
"""

import copy
import math
from itertools import pairwise

import torch

betas = torch.linspace(1e-3, 0.2, 100)
alpha_bar = torch.cumprod(1 - betas, 0)
alpha_bar_prev = torch.cat([torch.ones(1), alpha_bar[:-1]])
# Of a schedule that ends in pure noise: ᾱ_T = 0.
alpha_bar_zero = torch.cat([alpha_bar[:-1], torch.zeros(1)])
betas_zero = 1 - alpha_bar_zero / torch.cat([torch.ones(1), alpha_bar_zero[:-1]])


def at(table, t):
    return table[t].reshape(-1, 1)


def level(t):
    return alpha_bar[t] if t >= 0 else torch.tensor(1.0)


def ddim_step(x, eps, a, b):
    x_0 = (x - (1 - a).sqrt() * eps) / a.sqrt()
    return b.sqrt() * x_0 + (1 - b).sqrt() * eps


def cosine_betas(n_steps, s=0.008):
    t = torch.linspace(0, 1, n_steps + 1, dtype=torch.float64)
    f = torch.cos((t + s) / (1 + s) * math.pi / 2) ** 2
    return (1 - f[1:] / f[:-1]).clamp(max=0.999)


def beta_at(t):
    return 0.1 + 19.9 * t


def sigma(t):
    return torch.expm1(0.1 * t + 19.9 * t**2 / 2).sqrt()


# --- from data to noise


def forward_step(x, t):
    beta = at(betas, t)
    return torch.sqrt(1 - beta) * x + torch.sqrt(beta) * torch.randn_like(x)


def q_sample(x_0, t, noise=None):
    noise = torch.randn_like(x_0) if noise is None else noise
    a = at(alpha_bar, t)
    return a.sqrt() * x_0 + (1 - a).sqrt() * noise


def ve_sample(x_0, t):
    a = at(alpha_bar, t)
    sigma = ((1 - a) / a).sqrt()
    return x_0 + sigma * torch.randn_like(x_0)


def q_sample_in_half(x_0, t, noise):
    a = at(alpha_bar, t)
    x_t = a.sqrt() * x_0.float() + (1 - a).sqrt() * noise.float()
    return x_t.to(x_0.dtype)


# --- schedules


def make_betas(n_steps):
    scale = 1000 / n_steps
    return torch.linspace(scale * 1e-4, scale * 0.02, n_steps)


def cosine_alpha_bar(n_steps):
    betas = cosine_betas(n_steps)
    return torch.cumprod(1 - betas, 0)


def sigma_prime(t):
    return 0.5 * beta_at(t) * (sigma(t) + 1 / sigma(t))


def karras_sigmas(n, low=0.03, high=80.0, rho=7.0):
    ramp = torch.linspace(0, 1, n, dtype=torch.float64)
    sigmas = (high ** (1 / rho) + ramp * (low ** (1 / rho) - high ** (1 / rho))) ** rho
    return torch.cat([sigmas, torch.zeros(1, dtype=torch.float64)])


# --- training


def flow_times(n):
    return torch.rand(n)


def score_loss(model, x_0, t, noise):
    a = at(alpha_bar, t)
    x_t = a.sqrt() * x_0 + (1 - a).sqrt() * noise
    target = -noise / (1 - a).sqrt()
    return ((model(x_t, t) - target) ** 2).mean()


def image_loss(model, images, t, noise):
    x_0 = 2 * images - 1
    x_t = q_sample(x_0, t, noise)
    return ((model(x_t, t) - noise) ** 2).mean()


def x_0_loss(model, x_0, t, noise):
    x_t = q_sample(x_0, t, noise)
    return ((model(x_t, t) - x_0) ** 2).mean()


def v_loss(model, x_0, t, noise):
    a = at(alpha_bar, t)
    x_t = q_sample(x_0, t, noise)
    v = a.sqrt() * noise - (1 - a).sqrt() * x_0
    return ((model(x_t, t) - v) ** 2).mean()


def min_snr_weight(t, gamma=5.0):
    snr = alpha_bar[t] / (1 - alpha_bar[t])
    return snr.clamp(max=gamma) / snr


def min_snr_weight_to_zero(t, gamma=5.0):
    snr = alpha_bar_zero[t] / (1 - alpha_bar_zero[t])
    return (gamma / snr).clamp(max=1)


def weighted_loss(model, x_0, t, noise):
    error = (model(q_sample(x_0, t, noise), t) - noise) ** 2
    return (min_snr_weight(t) * error.mean(1)).mean()


def time_embedding(t, dim=32):
    rates = torch.exp(-math.log(10_000) * torch.arange(dim // 2) / (dim // 2 - 1))
    angles = t[:, None] * rates[None, :]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class EMA:
    def __init__(self, model, decay=0.999):
        self.decay, self.count = decay, 0
        self.average = copy.deepcopy(model)

    @torch.no_grad()
    def update(self, model):
        self.count += 1
        decay = min(self.decay, self.count / (10 + self.count))
        for mean, new in zip(self.average.parameters(), model.parameters(), strict=True):
            mean.lerp_(new, 1 - decay)


# --- one step of a sampler


def posterior_mean(x_0, x_t, t):
    a, b, beta = at(alpha_bar, t), at(alpha_bar_prev, t), at(betas, t)
    return b.sqrt() * beta / (1 - a) * x_0 + (1 - beta).sqrt() * (1 - b) / (1 - a) * x_t


def p_sample(model, x, t):
    a, b, beta = at(alpha_bar, t), at(alpha_bar_prev, t), at(betas, t)
    mean = (x - beta / (1 - a).sqrt() * model(x, t)) / (1 - beta).sqrt()
    log_variance = (beta * (1 - b) / (1 - a)).clamp(min=1e-20).log()
    return mean + torch.exp(0.5 * log_variance) * torch.randn_like(x)


def p_sample_learned(model, x, t):
    a, b, beta = at(alpha_bar, t), at(alpha_bar_prev, t), at(betas, t)
    eps, part = model(x, t).chunk(2, dim=1)  # part is from −1 to 1
    mean = (x - beta / (1 - a).sqrt() * eps) / (1 - beta).sqrt()
    low, high = (beta * (1 - b) / (1 - a)).clamp(min=1e-20).log(), beta.log()
    log_variance = (1 + part) / 2 * high + (1 - part) / 2 * low
    return mean + (t > 0).reshape(-1, 1) * torch.exp(0.5 * log_variance) * torch.randn_like(x)


def p_sample_clipped(model, x, t, largest=2.0):
    a, b, beta = at(alpha_bar, t), at(alpha_bar_prev, t), at(betas, t)
    x_0 = (x - (1 - a).sqrt() * model(x, t)) / a.sqrt()
    x_0 = x_0.clamp(-largest, largest)
    variance = beta * (1 - b) / (1 - a)
    return posterior_mean(x_0, x, t) + variance.sqrt() * torch.randn_like(x)


def p_sample_guided(model, gradient, x, t, scale=1.0):
    a, b, beta = at(alpha_bar, t), at(alpha_bar_prev, t), at(betas, t)
    mean = (x - beta / (1 - a).sqrt() * model(x, t)) / (1 - beta).sqrt()
    variance = beta * (1 - b) / (1 - a)
    mean = mean + scale * variance * gradient(mean, t)
    return mean + variance.sqrt() * torch.randn_like(x)


def langevin_step(score, x, t, step=0.002):
    noise = torch.randn_like(x)
    return x + step * score(x, t) + math.sqrt(2 * step) * noise


# --- whole loops


def ddim_sample(model, shape, n=30):
    x = torch.randn(shape)
    times = torch.linspace(99, 0, n).round().long().tolist()
    for t, s in pairwise([*times, -1]):
        x = ddim_step(x, model(x, t), level(t), level(s))
    return x


def ddim_sample_by_x_0(model, shape, n=30):
    x = torch.randn(shape)
    times = torch.linspace(99, 0, n).round().long().tolist()
    for t, s in pairwise([*times, -1]):
        x_0 = model(x, t)
        eps = (x - level(t).sqrt() * x_0) / (1 - level(t)).sqrt()
        x = ddim_step(x, eps, level(t), level(s))
    return x


def ddpm_sample(model, shape):
    x = torch.randn(shape)
    for t in reversed(range(100)):
        x = p_sample(model, x, torch.full((len(x),), t))
    return x


def img2img(model, x_0, begin=10, n=30):
    times = torch.linspace(0, 99, n).round().long().tolist()
    x = q_sample(x_0, times[begin])
    for t, s in pairwise([*reversed(times[: begin + 1]), -1]):
        x = ddim_step(x, model(x, t), level(t), level(s))
    return x


def heun_sample(denoise, x, sigmas):
    for here, there in pairwise(sigmas.tolist()):
        slope = (x - denoise(x, here)) / here
        x_next = x + (there - here) * slope
        if there > 0:
            slope_next = (x_next - denoise(x_next, there)) / there
            x_next = x + (there - here) * (slope + slope_next) / 2
        x = x_next
    return x
