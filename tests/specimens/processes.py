"""Diffusion in continuous time, as classes: processes, flows, and samplers that use them."""

import math
from itertools import pairwise

import torch


def column(values, x):
    return torch.as_tensor(values, dtype=x.dtype).reshape(-1, *((1,) * (x.ndim - 1)))


class VESDE:
    """Variance that explodes: σ(t) = σ_min·(σ_max/σ_min)^t, t from 0 to 1."""

    def __init__(self, sigma_min=0.01, sigma_max=50.0):
        self.sigma_min = sigma_min
        self.sigma_max = sigma_max

    def sigma(self, t):
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** t

    def marginal_prob(self, x_0, t):
        std = column(self.sigma(t), x_0)
        return x_0, std.expand_as(x_0)

    def perturb(self, x_0, t, noise=None):
        noise = torch.randn_like(x_0) if noise is None else noise
        mean, std = self.marginal_prob(x_0, t)
        return mean + std * noise

    def sde(self, x, t):
        """Drift and diffusion."""
        growth = math.sqrt(2 * math.log(self.sigma_max / self.sigma_min))
        return torch.zeros_like(x), column(self.sigma(t) * growth, x)

    def score_loss(self, score, x_0, t, noise=None):
        noise = torch.randn_like(x_0) if noise is None else noise
        std = column(self.sigma(t), x_0)
        target = -noise / std
        return ((score(self.perturb(x_0, t, noise), t) - target) * std).square().mean()

    def correct(self, score, x, t, step=0.1):
        """Langevin: a step in units of the variance at t."""
        size = step * column(self.sigma(t), x) ** 2
        return x + size * score(x, t) + torch.sqrt(2 * size) * torch.randn_like(x)


class VPSDE:
    """Variance that is preserved; β(t) = β_min + t·(β_max − β_min)."""

    def __init__(self, beta_min=0.1, beta_max=20.0):
        self.beta_min = beta_min
        self.beta_max = beta_max

    def beta(self, t):
        return self.beta_min + t * (self.beta_max - self.beta_min)

    def area(self, t):
        return self.beta_min * t + 0.5 * t**2 * (self.beta_max - self.beta_min)

    def marginal_prob(self, x_0, t):
        area = column(self.area(t), x_0)
        std = torch.sqrt(-torch.expm1(-area))
        return torch.exp(-0.5 * area) * x_0, std.expand_as(x_0)

    def perturb(self, x_0, t, noise=None):
        noise = torch.randn_like(x_0) if noise is None else noise
        mean, std = self.marginal_prob(x_0, t)
        return mean + std * noise

    def sigma(self, t):
        """Noise over signal."""
        return torch.sqrt(torch.expm1(self.area(t)))

    def sigma_prime(self, t):
        return self.beta(t) * (self.sigma(t) ** 2 + 1) / (2 * self.sigma(t))

    def scale(self, t):
        return torch.exp(-0.5 * self.area(t))

    def scale_prime(self, t):
        return -0.5 * self.beta(t) * self.scale(t)

    def velocity(self, denoise, x, t):
        """dx/dt along the flow that keeps every marginal; denoise(y, σ) is asked at y = x/scale."""
        s, sigma = self.scale(t), self.sigma(t)
        score = (denoise(x / s, sigma) - x / s) / (s * sigma**2)
        return self.scale_prime(t) / s * x - s**2 * self.sigma_prime(t) * sigma * score

    def flow_sample(self, denoise, x, n=50, end=1e-3):
        grid = torch.linspace(1, end, n + 1, dtype=torch.float64)
        for t, s in pairwise(grid):
            first = self.velocity(denoise, x, t)
            second = self.velocity(denoise, x + (s - t) * first, s)
            x = x + 0.5 * (s - t) * (first + second)
        return x


class HeunSampler:
    def __init__(self, steps=40, sigma_min=0.002, sigma_max=80.0, rho=7):
        root = torch.linspace(
            sigma_max ** (1 / rho), sigma_min ** (1 / rho), steps, dtype=torch.float64
        )
        self.levels = torch.cat([root**rho, torch.zeros(1, dtype=torch.float64)])

    def one_step(self, denoise, x, sigma, sigma_next):
        d = (x - denoise(x, sigma)) / sigma
        guess = x + (sigma_next - sigma) * d
        if sigma_next == 0:
            return guess
        d_next = (guess - denoise(guess, sigma_next)) / sigma_next
        return x + (sigma_next - sigma) * 0.5 * (d + d_next)

    def __call__(self, denoise, shape):
        x = self.levels[0] * torch.randn(shape, dtype=torch.float64)
        for sigma, sigma_next in pairwise(self.levels):
            x = self.one_step(denoise, x, sigma, sigma_next)
        return x


class RectifiedFlow:
    """t = 0 is noise and t = 1 is data."""

    def __init__(self, steps=50):
        self.steps = steps

    def times(self, count):
        return torch.rand(count)

    def mix(self, data, noise, t):
        t = column(t, data)
        return noise + t * (data - noise)

    def loss(self, net, data, t=None, noise=None):
        t = self.times(len(data)) if t is None else t
        noise = torch.randn_like(data) if noise is None else noise
        flow = data - noise
        return torch.mean((net(self.mix(data, noise, t), t) - flow) ** 2)

    def sample(self, net, shape):
        x = torch.randn(shape)
        for i in range(self.steps):
            t = torch.full((shape[0],), i / self.steps)
            x = x + net(x, t) / self.steps
        return x


class Annealed:
    """Langevin at one level after another, from the noisiest."""

    def __init__(self, sigmas, step=2e-5, moves=20):
        self.sigmas = sigmas
        self.step = step
        self.moves = moves

    def move(self, score, x, k):
        size = self.step * (self.sigmas[k] / self.sigmas[-1]) ** 2
        return x + size * score(x, k) + (2 * size) ** 0.5 * torch.randn_like(x)

    def __call__(self, score, x):
        for k in range(len(self.sigmas)):
            for _ in range(self.moves):
                x = self.move(score, x, k)
        return x
