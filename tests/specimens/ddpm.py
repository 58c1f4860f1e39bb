"""Gaussian diffusion as one class with registered tables, in the manner of the papers' own code.

Index t = 0 … T − 1 is the level after t + 1 steps. A network is called as net(x, t), t of shape
(B,), and returns what `objective` says, with a second half of channels where the range of the
variance is learned.
"""

import copy
import math
from itertools import pairwise

import torch
from torch import nn


def linear_betas(timesteps, low=1e-4, high=0.02):
    # low and high belong to 1000 steps
    ratio = 1000 / timesteps
    return torch.linspace(ratio * low, ratio * high, timesteps, dtype=torch.float64)


def cosine_bars(timesteps, offset=0.008):
    count = timesteps + 1
    grid = torch.linspace(0, timesteps, count, dtype=torch.float64) / timesteps
    curve = torch.cos((grid + offset) / (1 + offset) * math.pi * 0.5) ** 2
    return curve / curve[0]


def cosine_betas(timesteps):
    bars = cosine_bars(timesteps)
    return torch.clamp(1 - bars[1:] / bars[:-1], 0, 0.999)


def without_terminal_signal(betas):
    """The same schedule, moved and stretched so that nothing is left of the data at its end."""
    root = torch.sqrt(torch.cumprod(1 - betas, dim=0))
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    bars = torch.cat([torch.ones(1, dtype=root.dtype), root**2])
    return 1 - bars[1:] / bars[:-1]


class GaussianDiffusion(nn.Module):
    def __init__(
        self,
        timesteps=1000,
        schedule="linear",
        objective="eps",
        learned_range=False,
        clip=None,
        threshold=None,
        gamma=None,
        guide=None,
        guide_scale=1.0,
    ):
        super().__init__()
        if schedule == "linear":
            betas = linear_betas(timesteps)
        elif schedule == "cosine":
            betas = cosine_betas(timesteps)
        else:
            betas = without_terminal_signal(linear_betas(timesteps))
        self.timesteps = timesteps
        self.objective = objective
        self.learned_range = learned_range
        self.clip = clip
        self.threshold = threshold
        self.guide = guide
        self.guide_scale = guide_scale

        bars = torch.cumprod(1 - betas, dim=0)
        bars_with_data = torch.cat([torch.ones(1, dtype=bars.dtype), bars])
        bars = bars_with_data[1:]
        bars_before = nn.functional.pad(bars[:-1], (1, 0), value=1.0)
        rest = 1 - bars
        variance = betas * (1 - bars_before) / rest
        self._register("betas", betas)
        self._register("alphas_cumprod", bars)
        self._register("alphas_cumprod_prev", bars_before)
        self._register("sqrt_alphas_cumprod", bars.sqrt())
        self._register("sqrt_one_minus_alphas_cumprod", rest.sqrt())
        self._register("sqrt_recip_alphas_cumprod", bars.clamp(min=1e-20).rsqrt())
        self._register("sqrt_recipm1_alphas_cumprod", (rest / bars.clamp(min=1e-20)).sqrt())
        self._register("posterior_variance", variance)
        # at t = 0 it is 0: its logarithm is cut off at the next one's
        floor = torch.cat([variance[1:2], variance[1:]])
        self._register("posterior_log_variance_clipped", floor.log())
        self._register("posterior_mean_coef1", betas * bars_before.sqrt() / rest)
        self._register("posterior_mean_coef2", (1 - bars_before) * (1 - betas).sqrt() / rest)
        snr = bars / rest
        if gamma is None:
            weight = torch.ones_like(snr)
        elif objective == "eps":
            weight = torch.clamp(gamma / snr, max=1.0)
        elif objective == "x_0":
            weight = snr.clamp(max=gamma)
        else:
            weight = snr.clamp(max=gamma) / (snr + 1)
        self._register("loss_weight", weight)

    def _register(self, name, table):
        self.register_buffer(name, table.to(torch.float32))

    def _at(self, table, t, x):
        return table.gather(0, t).reshape(len(t), *((1,) * (x.ndim - 1)))

    # --- from data to noise

    def q_step(self, x, t, noise=None):
        """x_t from x_{t−1}."""
        noise = torch.randn_like(x) if noise is None else noise
        beta = self._at(self.betas, t, x)
        return (1 - beta).sqrt() * x + beta.sqrt() * noise

    def q_mean_variance(self, x_start, t):
        mean = self._at(self.sqrt_alphas_cumprod, t, x_start) * x_start
        variance = self._at(1 - self.alphas_cumprod, t, x_start)
        return mean, variance.expand_as(x_start)

    def q_sample(self, x_start, t, noise=None):
        if noise is None:
            noise = torch.randn_like(x_start)
        assert noise.shape == x_start.shape
        alpha = self._at(self.sqrt_alphas_cumprod, t, x_start)
        sigma = self._at(self.sqrt_one_minus_alphas_cumprod, t, x_start)
        return (alpha * x_start + sigma * noise).to(x_start.dtype)

    def q_posterior_mean_variance(self, x_start, x_t, t):
        mean = self._at(self.posterior_mean_coef1, t, x_t) * x_start
        mean = mean + self._at(self.posterior_mean_coef2, t, x_t) * x_t
        variance = self._at(self.posterior_variance, t, x_t)
        log_variance = self._at(self.posterior_log_variance_clipped, t, x_t)
        return mean, variance, log_variance

    # --- one quantity from another

    def predict_start_from_noise(self, x_t, t, noise):
        back = self._at(self.sqrt_recip_alphas_cumprod, t, x_t)
        return back * x_t - self._at(self.sqrt_recipm1_alphas_cumprod, t, x_t) * noise

    def predict_start_from_v(self, x_t, t, v):
        alpha = self._at(self.sqrt_alphas_cumprod, t, x_t)
        return alpha * x_t - self._at(self.sqrt_one_minus_alphas_cumprod, t, x_t) * v

    def predict_noise_from_start(self, x_t, t, x_start):
        back = self._at(self.sqrt_recip_alphas_cumprod, t, x_t)
        return (back * x_t - x_start) / self._at(self.sqrt_recipm1_alphas_cumprod, t, x_t)

    def v_of(self, x_start, t, noise):
        alpha = self._at(self.sqrt_alphas_cumprod, t, x_start)
        return alpha * noise - self._at(self.sqrt_one_minus_alphas_cumprod, t, x_start) * x_start

    def score_of(self, x_start, x_t, t):
        """∇ log q(x_t | x_0)."""
        apart = x_t - self._at(self.sqrt_alphas_cumprod, t, x_t) * x_start
        return -apart / self._at(1 - self.alphas_cumprod, t, x_t)

    def _bounded(self, x_start):
        if self.clip is not None:
            return x_start.clamp(-self.clip, self.clip)
        if self.threshold is not None:
            largest = x_start.abs().flatten(1)
            s = largest.quantile(self.threshold, dim=1).clamp(min=1.0)
            s = s.reshape(-1, *((1,) * (x_start.ndim - 1)))
            return x_start.clamp(-s, s) / s
        return x_start

    def predict_start(self, x_t, t, out):
        if self.objective == "eps":
            found = self.predict_start_from_noise(x_t, t, out)
        elif self.objective == "v":
            found = self.predict_start_from_v(x_t, t, out)
        else:
            found = out
        return self._bounded(found)

    # --- from noise to data

    def p_mean_variance(self, net, x, t):
        out = net(x, t)
        if self.learned_range:
            out, place = out.chunk(2, dim=1)
            high = self._at(self.betas, t, x).log()
            low = self._at(self.posterior_log_variance_clipped, t, x)
            part = (place + 1) / 2
            log_variance = part * high + (1 - part) * low
            variance = log_variance.exp()
        else:
            variance = self._at(self.posterior_variance, t, x).expand_as(x)
            log_variance = self._at(self.posterior_log_variance_clipped, t, x).expand_as(x)
        x_start = self.predict_start(x, t, out)
        mean = self.q_posterior_mean_variance(x_start, x, t)[0]
        if self.guide is not None:
            mean = mean + self.guide_scale * variance * self.guide(mean, t)
        return mean, variance, log_variance

    def p_sample(self, net, x, t):
        mean, _, log_variance = self.p_mean_variance(net, x, t)
        noise = torch.randn_like(x)
        mask = (t != 0).to(x.dtype).reshape(len(x), *((1,) * (x.ndim - 1)))
        return mean + mask * (0.5 * log_variance).exp() * noise

    def p_sample_loop(self, net, shape):
        img = torch.randn(shape)
        for i in range(self.timesteps - 1, -1, -1):
            img = self.p_sample(net, img, torch.full((shape[0],), i, dtype=torch.long))
        return img

    def interpolate(self, net, x_1, x_2, t, share=0.5):
        """Between two items: noise both to index t, mix, and go back."""
        batch = torch.full((len(x_1),), t, dtype=torch.long)
        img = (1 - share) * self.q_sample(x_1, batch) + share * self.q_sample(x_2, batch)
        for i in reversed(range(t + 1)):
            img = self.p_sample(net, img, torch.full((len(x_1),), i, dtype=torch.long))
        return img

    def ddim_pairs(self, steps):
        """Pairs of index and next index; −1 is clean data."""
        times = torch.linspace(-1, self.timesteps - 1, steps + 1).round().int().tolist()[::-1]
        return list(pairwise(times))

    def _bar(self, t):
        return self.alphas_cumprod[t] if t >= 0 else torch.ones(())

    def ddim_sample(self, net, shape, steps=100, eta=0.0):
        img = torch.randn(shape)
        for time, time_next in self.ddim_pairs(steps):
            t = torch.full((shape[0],), time, dtype=torch.long)
            x_start = self.predict_start(img, t, net(img, t))
            bar, bar_next = self._bar(time), self._bar(time_next)
            pred_noise = (img - bar.sqrt() * x_start) / (1 - bar).sqrt()
            sigma = eta * ((1 - bar / bar_next) * (1 - bar_next) / (1 - bar)).sqrt()
            direction = (1 - bar_next - sigma**2).sqrt() * pred_noise
            img = bar_next.sqrt() * x_start + direction + sigma * torch.randn_like(img)
        return img

    def ddim_encode(self, net, x_start, steps=100):
        """Along the same path from data to noise."""
        img = x_start
        ends = [time for time, _ in reversed(self.ddim_pairs(steps))]
        for i in range(steps - 1):
            t = torch.full((len(img),), ends[i], dtype=torch.long)
            bar, bar_next = self._bar(ends[i]), self._bar(ends[i + 1])
            found = self.predict_start(img, t, net(img, t))
            noise = (img - bar.sqrt() * found) / (1 - bar).sqrt()
            img = bar_next.sqrt() * found + (1 - bar_next).sqrt() * noise
        return img

    # --- losses

    def times(self, count):
        return torch.randint(0, self.timesteps, (count,))

    def p_losses(self, net, x_start, t, noise=None):
        noise = torch.randn_like(x_start) if noise is None else noise
        x_t = self.q_sample(x_start, t, noise)
        out = net(x_t, t)
        if self.objective == "eps":
            target = noise
        elif self.objective == "x_0":
            target = x_start
        elif self.objective == "v":
            target = self.v_of(x_start, t, noise)
        else:
            target = self.score_of(x_start, x_t, t)
        each = (out - target).square().flatten(1).mean(dim=1)
        weight = self.loss_weight.gather(0, t)
        return (weight * each).mean()

    def forward(self, net, images):
        """The loss of images with values from 0 to 1."""
        t = self.times(len(images))
        return self.p_losses(net, images * 2 - 1, t)

    # --- the bound, in nats, one per item

    def prior_kl(self, x_start):
        t = torch.full((len(x_start),), self.timesteps - 1, dtype=torch.long)
        mean, variance = self.q_mean_variance(x_start, t)
        return 0.5 * (mean**2 + variance - 1 - variance.log()).flatten(1).sum(1)

    def bound_term(self, net, x_start, t, noise):
        """KL(q(x_{t−1} | x_t, x_0) ‖ p(x_{t−1} | x_t)) for t > 0."""
        x_t = self.q_sample(x_start, t, noise)
        true, _, true_log = self.q_posterior_mean_variance(x_start, x_t, t)
        mean, _, log = self.p_mean_variance(net, x_t, t)
        ratio = true_log - log
        kl = 0.5 * (ratio.exp() - 1 - ratio + (true - mean) ** 2 * (-log).exp())
        return kl.flatten(1).sum(1)


class TimeEmbedding(nn.Module):
    """Sines in the even columns and cosines in the odd ones."""

    def __init__(self, dim=32):
        super().__init__()
        self.dim = dim

    def forward(self, t):
        rates = 10000 ** (-torch.arange(0, self.dim, 2) / self.dim)
        angles = t.float().unsqueeze(1) * rates
        table = torch.zeros(len(t), self.dim)
        table[:, 0::2] = angles.sin()
        table[:, 1::2] = angles.cos()
        return table


class EMA(nn.Module):
    def __init__(self, net, decay=0.995):
        super().__init__()
        self.decay = decay
        self.count = 0
        self.average = copy.deepcopy(net).requires_grad_(False)

    def current_decay(self):
        return min(self.decay, self.count / (self.count + 1))

    def update(self, net):
        rate = self.current_decay()
        self.count += 1
        for old, new in zip(self.average.parameters(), net.parameters(), strict=True):
            old.data = rate * old.data + (1 - rate) * new.data


class ClassifierFree(nn.Module):
    """Guidance without a classifier; wraps net(x, t, label), label None for none."""

    def __init__(self, net, label, scale):
        super().__init__()
        self.net = net
        self.label = label
        self.scale = scale

    def forward(self, x, t):
        free = self.net(x, t, None)
        given = self.net(x, t, self.label)
        return free + (given - free) * self.scale
