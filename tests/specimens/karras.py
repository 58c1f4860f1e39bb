"""Diffusion in σ and in continuous time, as plain functions: x = x_0 + σ·noise, and flows.

denoise(x, sigma) returns x̂_0 and score(x, sigma) ∇ log p; sigma has the shape (B,), or is a number
where a whole batch is at one level.
"""

import math
from itertools import pairwise

import torch


def karras_sigmas(n, sigma_min=0.002, sigma_max=80.0, rho=7.0):
    """n levels, and 0 at the end."""
    u = torch.linspace(0, 1, n, dtype=torch.float64)
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    return torch.cat([(high + u * (low - high)) ** rho, torch.zeros(1, dtype=torch.float64)])


def wide(sigma, x):
    return torch.as_tensor(sigma, dtype=x.dtype).reshape(-1, *[1] * (x.ndim - 1))


def ve_sample(x_0, sigma, noise=None):
    noise = torch.randn_like(x_0) if noise is None else noise
    s = wide(sigma, x_0)
    return x_0 + s * noise


def denoising_score_matching(score, x_0, sigma):
    s = wide(sigma, x_0)
    noisy = x_0 + s * torch.randn_like(x_0)
    target = -(noisy - x_0) / s**2
    error = score(noisy, sigma) - target
    return (s**2 * error**2).mean()


def slope(denoise, x, sigma):
    return (x - denoise(x, sigma)) / sigma


def euler_sample(denoise, x, sigmas):
    sigmas = sigmas.tolist()
    for i in range(len(sigmas) - 1):
        x = x + (sigmas[i + 1] - sigmas[i]) * slope(denoise, x, sigmas[i])
    return x


def heun_sample(denoise, x, sigmas):
    sigmas = sigmas.tolist()
    for i in range(len(sigmas) - 1):
        here, there = sigmas[i], sigmas[i + 1]
        d = slope(denoise, x, here)
        x_next = x + (there - here) * d
        if there > 0:
            d_next = slope(denoise, x_next, there)
            x_next = x + (there - here) * (d + d_next) / 2
        x = x_next
    return x


def dpmpp_2m_sample(denoise, x, sigmas):
    old = None
    for i in range(len(sigmas) - 1):
        here, there = sigmas[i], sigmas[i + 1]
        x_0 = denoise(x, here.item())
        h = here.log() - there.log()
        use = x_0
        if old is not None and there > 0:
            h_old = sigmas[i - 1].log() - here.log()
            use = (1 + h / (2 * h_old)) * x_0 - h / (2 * h_old) * old
        x = (there / here) * x - torch.expm1(-h) * use
        old = x_0
    return x


def langevin(score, x, sigma, step, n=1):
    """n moves at one level."""
    for _ in range(n):
        noise = torch.randn_like(x)
        x = x + step * score(x, sigma) + math.sqrt(2 * step) * noise
    return x


def annealed_langevin(score, x, sigmas, step=2e-5, n=100):
    for sigma in sigmas.tolist():
        size = step * (sigma / float(sigmas[-1])) ** 2
        x = langevin(score, x, sigma, size, n)
    return x


# --- the variance-preserving process in terms of σ

beta_low, beta_more = 0.1, 19.9


def vp_sigma(t):
    t = torch.as_tensor(t, dtype=torch.float64)
    return torch.expm1(0.5 * beta_more * t**2 + beta_low * t).sqrt()


def vp_sigma_prime(t):
    sigma = vp_sigma(t)
    return 0.5 * (beta_low + beta_more * t) * (sigma + 1 / sigma)


def vp_scale(t):
    return 1 / (vp_sigma(t) ** 2 + 1).sqrt()


def vp_scale_prime(t):
    return -(vp_scale(t) ** 3) * vp_sigma(t) * vp_sigma_prime(t)


def vp_slope(denoise, x, t):
    """dx/dt of the flow, x at the scale of the process; denoise is asked at scale 1."""
    sigma, scale = vp_sigma(t), vp_scale(t)
    spread = vp_sigma_prime(t) / sigma * (x - scale * denoise(x / scale, sigma.item()))
    return vp_scale_prime(t) / scale * x + spread


def vp_flow_sample(denoise, x, n=50, end=1e-3):
    """From t = 1 to t = end by Heun's steps."""
    times = torch.linspace(1, end, n + 1, dtype=torch.float64)
    for i in range(n):
        t, s = times[i], times[i + 1]
        d = vp_slope(denoise, x, t)
        x = x + (s - t) * (d + vp_slope(denoise, x + (s - t) * d, s)) / 2
    return x


# --- straight flows: x_t = (1 − t)·x_0 + t·noise


def flow_times(n):
    return torch.rand(n)


def flow_mix(x_0, noise, t):
    share = wide(t, x_0)
    return (1 - share) * x_0 + share * noise


def flow_loss(net, x_0, t=None, noise=None):
    t = flow_times(len(x_0)) if t is None else t
    noise = torch.randn_like(x_0) if noise is None else noise
    target = noise - x_0
    return (net(flow_mix(x_0, noise, t), t) - target).square().mean()


def flow_sample(net, shape, n=50):
    x = torch.randn(shape)
    grid = torch.linspace(1, 0, n + 1).tolist()
    for t, s in pairwise(grid):
        x = x + (s - t) * net(x, torch.full((shape[0],), t))
    return x
