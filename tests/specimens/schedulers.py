"""Schedulers: objects that hold the levels, and make one step from what a network returned.

    scheduler.set_timesteps(n)
    for t in scheduler.timesteps:
        x = scheduler.step(net(scheduler.scale_model_input(x, t), t), t, x).prev_sample

Timestep t = 0 … T − 1 is the level after t + 1 steps; `sigmas` are noise over signal, for samples
whose signal is not scaled down.
"""

import copy
import math
from typing import NamedTuple

import numpy as np
import torch


class StepOutput(NamedTuple):
    prev_sample: torch.Tensor
    pred_original_sample: torch.Tensor


def make_betas(num_train_timesteps, beta_start, beta_end, beta_schedule):
    if beta_schedule == "cosine":
        count = num_train_timesteps + 1
        u = np.linspace(0, num_train_timesteps, count) / num_train_timesteps
        curve = np.cos((u + 0.008) / 1.008 * np.pi / 2) ** 2
        return torch.from_numpy(np.minimum(1 - curve[1:] / curve[:-1], 0.999))
    # the two ends are those of a thousand steps
    factor = 1000 / num_train_timesteps
    low, high = factor * beta_start, factor * beta_end
    if beta_schedule == "scaled_linear":
        return torch.linspace(low**0.5, high**0.5, num_train_timesteps, dtype=torch.float64) ** 2
    return torch.linspace(low, high, num_train_timesteps, dtype=torch.float64)


def rescale_zero_terminal_snr(betas):
    root = (1 - betas).cumprod(0).sqrt()
    first, last = root[0].clone(), root[-1].clone()
    bars = ((root - last) * first / (first - last)) ** 2
    return 1 - torch.cat([bars[:1], bars[1:] / bars[:-1]])


def like(values, x):
    return values.reshape(-1, *[1] * (x.ndim - 1))


class Scheduler:
    init_noise_sigma = 1.0

    def __init__(
        self,
        num_train_timesteps=1000,
        beta_start=1e-4,
        beta_end=0.02,
        beta_schedule="linear",
        prediction_type="epsilon",
        timestep_spacing="trailing",
        rescale_betas_zero_snr=False,
        clip_sample_range=None,
        thresholding_ratio=None,
        sample_max_value=100.0,
    ):
        self.num_train_timesteps = num_train_timesteps
        self.betas = make_betas(num_train_timesteps, beta_start, beta_end, beta_schedule)
        if rescale_betas_zero_snr:
            self.betas = rescale_zero_terminal_snr(self.betas)
        self.prediction_type = prediction_type
        self.timestep_spacing = timestep_spacing
        self.clip_sample_range = clip_sample_range
        self.thresholding_ratio = thresholding_ratio
        self.sample_max_value = sample_max_value
        bars_with_data = torch.cat(
            [torch.ones(1, dtype=torch.float64), (1 - self.betas).cumprod(0)]
        )
        self.alphas_cumprod = bars_with_data[1:]
        self.final_alpha_cumprod = torch.tensor(1.0, dtype=torch.float64)
        self.num_inference_steps = num_train_timesteps
        self.timesteps = torch.arange(num_train_timesteps - 1, -1, -1)

    def set_timesteps(self, num_inference_steps):
        last = self.num_train_timesteps - 1
        if self.timestep_spacing == "linspace":
            times = np.linspace(0, last, num_inference_steps, dtype=np.float64)[::-1]
        else:
            ratio = self.num_train_timesteps / num_inference_steps
            times = np.arange(num_inference_steps, 0, -1) * ratio - 1
        self.num_inference_steps = num_inference_steps
        self.timesteps = torch.from_numpy(np.round(times).astype(np.int64).copy())

    def previous_timestep(self, timestep):
        place = int((self.timesteps == timestep).nonzero()[0])
        return int(self.timesteps[place + 1]) if place + 1 < len(self.timesteps) else -1

    def scale_model_input(self, sample, timestep):
        return sample

    def add_noise(self, original_samples, noise, timesteps):
        bar = like(self.alphas_cumprod[timesteps], original_samples)
        noisy = bar.sqrt() * original_samples + (1 - bar).sqrt() * noise
        return noisy.to(original_samples.dtype)

    def get_velocity(self, sample, noise, timesteps):
        bar = like(self.alphas_cumprod[timesteps], sample)
        velocity = bar.sqrt() * noise - (1 - bar).sqrt() * sample
        return velocity.to(sample.dtype)

    def _bar(self, t):
        return self.alphas_cumprod[t] if t >= 0 else self.final_alpha_cumprod

    def _bounded(self, x):
        if self.clip_sample_range is not None:
            return x.clamp(-self.clip_sample_range, self.clip_sample_range)
        if self.thresholding_ratio is not None:
            sizes = x.abs().reshape(len(x), -1)
            s = torch.quantile(sizes, self.thresholding_ratio, dim=1)
            s = like(s.clamp(min=1, max=self.sample_max_value), x)
            return x.clamp(-s, s) / s
        return x

    def _original(self, output, sample, bar):
        if self.prediction_type == "epsilon":
            found = (sample - (1 - bar).sqrt() * output) / bar.sqrt()
        elif self.prediction_type == "v_prediction":
            found = bar.sqrt() * sample - (1 - bar).sqrt() * output
        else:
            found = output
        return self._bounded(found)


class DDPMScheduler(Scheduler):
    variance_type = "fixed_small"

    def _log_variance(self, timestep, previous, place):
        bar, bar_prev = self._bar(timestep), self._bar(previous)
        current_beta = 1 - bar / bar_prev
        small = (current_beta * (1 - bar_prev) / (1 - bar)).clamp(min=1e-20)
        if self.variance_type == "learned_range":
            part = (place + 1) / 2
            return part * current_beta.log() + (1 - part) * small.log()
        return small.log()

    def step(self, model_output, timestep, sample, generator=None):
        timestep = int(timestep)
        previous = self.previous_timestep(timestep)
        bar, bar_prev = self._bar(timestep), self._bar(previous)
        place = None
        if self.variance_type == "learned_range":
            model_output, place = model_output.chunk(2, dim=1)
        beta_prod_t = 1 - bar
        beta_prod_prev = 1 - bar_prev
        current_alpha = bar / bar_prev
        original = self._original(model_output, sample, bar)
        clean_share = bar_prev.sqrt() * (1 - current_alpha) / beta_prod_t
        noisy_share = current_alpha.sqrt() * beta_prod_prev / beta_prod_t
        x = clean_share * original + noisy_share * sample
        if previous >= 0:
            noise = torch.randn(sample.shape, generator=generator, dtype=sample.dtype)
            log_variance = self._log_variance(timestep, previous, place)
            x = x + torch.exp(0.5 * log_variance) * noise
        return StepOutput(x, original)


class LearnedRangeScheduler(DDPMScheduler):
    """For networks that return a second half of channels, from −1 to 1."""

    variance_type = "learned_range"


class DDIMScheduler(Scheduler):
    def step(self, model_output, timestep, sample, eta=0.0, generator=None):
        timestep = int(timestep)
        previous = self.previous_timestep(timestep)
        alpha_prod, alpha_prod_prev = self._bar(timestep), self._bar(previous)
        pred_original = self._original(model_output, sample, alpha_prod)
        pred_epsilon = (sample - alpha_prod.sqrt() * pred_original) / (1 - alpha_prod).sqrt()
        share = (1 - alpha_prod_prev) / (1 - alpha_prod)
        std = eta * (share * (1 - alpha_prod / alpha_prod_prev)).sqrt()
        direction = (1 - alpha_prod_prev - std**2).sqrt() * pred_epsilon
        x = alpha_prod_prev.sqrt() * pred_original + direction
        if eta > 0:
            x = x + std * torch.randn(sample.shape, generator=generator, dtype=sample.dtype)
        return StepOutput(x, pred_original)


class SigmaScheduler(Scheduler):
    """Samples are x_0 + σ·noise; a network sees them at unit variance."""

    def set_timesteps(self, num_inference_steps):
        super().set_timesteps(num_inference_steps)
        bars = self.alphas_cumprod[self.timesteps]
        sigmas = ((1 - bars) / bars).sqrt()
        self.sigmas = torch.cat([sigmas, torch.zeros(1, dtype=sigmas.dtype)])
        self.init_noise_sigma = (self.sigmas[0] ** 2 + 1).sqrt()
        self.step_index = 0
        self.started = None

    def sigma_of(self, timesteps):
        bars = self.alphas_cumprod[timesteps]
        return ((1 - bars) / bars).sqrt()

    def scale_model_input(self, sample, timestep):
        sigma = self.sigma_of(int(timestep))
        return sample / (sigma**2 + 1).sqrt()

    def add_noise(self, original_samples, noise, timesteps):
        sigma = like(self.sigma_of(timesteps), original_samples)
        return (original_samples + sigma * noise).to(original_samples.dtype)

    def _original(self, output, sample, sigma):
        if self.prediction_type == "epsilon":
            return sample - sigma * output
        if self.prediction_type == "v_prediction":
            return sample / (sigma**2 + 1) - sigma / (sigma**2 + 1).sqrt() * output
        return output


class EulerScheduler(SigmaScheduler):
    def step(self, model_output, timestep, sample):
        i = self.step_index
        sigma, sigma_next = self.sigmas[i], self.sigmas[i + 1]
        original = self._original(model_output, sample, sigma)
        slope = (sample - original) / sigma
        self.step_index += 1
        return StepOutput(sample + (sigma_next - sigma) * slope, original)


class HeunScheduler(SigmaScheduler):
    """Each timestep but the last comes twice: for the slope where a step starts, and ends."""

    def set_timesteps(self, num_inference_steps):
        super().set_timesteps(num_inference_steps)
        first, rest = self.timesteps[:1], self.timesteps[1:]
        self.timesteps = torch.cat([first, rest.repeat_interleave(2)])

    def step(self, model_output, timestep, sample):
        i = self.step_index
        sigma, sigma_next = self.sigmas[i], self.sigmas[i + 1]
        if self.started is None:
            original = self._original(model_output, sample, sigma)
            slope = (sample - original) / sigma
            x = sample + (sigma_next - sigma) * slope
            if sigma_next == 0:
                self.step_index += 1
            else:
                self.started = (sample, slope)
            return StepOutput(x, original)
        start, slope = self.started
        original = self._original(model_output, sample, sigma_next)
        slope_next = (sample - original) / sigma_next
        x = start + (sigma_next - sigma) * (slope + slope_next) / 2
        self.started = None
        self.step_index += 1
        return StepOutput(x, original)


class DPMSolverScheduler(Scheduler):
    """DPM-Solver++ 2M: each step leans on the x̂_0 of the step before."""

    def set_timesteps(self, num_inference_steps):
        super().set_timesteps(num_inference_steps)
        bars = self.alphas_cumprod[self.timesteps]
        self.bars = torch.cat([bars, self.final_alpha_cumprod[None]])
        self.step_index = 0
        self.before = None

    def step(self, model_output, timestep, sample):
        i = self.step_index
        bar, bar_next = self.bars[i], self.bars[i + 1]
        original = self._original(model_output, sample, bar)
        sigma, sigma_next = (1 - bar).sqrt(), (1 - bar_next).sqrt()
        lam = 0.5 * torch.log(bar / (1 - bar))
        lam_next = 0.5 * torch.log(bar_next / (1 - bar_next))
        h = lam_next - lam
        data = original
        last = i == len(self.timesteps) - 1
        if self.before is not None and not last:
            bar_before = self.bars[i - 1]
            r = (lam - 0.5 * torch.log(bar_before / (1 - bar_before))) / h
            data = original + (original - self.before) / (2 * r)
        x = sigma_next / sigma * sample - bar_next.sqrt() * torch.expm1(-h) * data
        self.before = original
        self.step_index += 1
        return StepOutput(x.to(sample.dtype), original)


# --- sampling


def generate(net, scheduler, shape, num_inference_steps=50):
    scheduler.set_timesteps(num_inference_steps)
    x = scheduler.init_noise_sigma * torch.randn(shape)
    for t in scheduler.timesteps:
        out = net(scheduler.scale_model_input(x, t), t.expand(shape[0]))
        x = scheduler.step(out, t, x).prev_sample
    return x


def img2img(net, scheduler, images, strength=0.5, num_inference_steps=50):
    """Noise the images to a part of the way, then back."""
    scheduler.set_timesteps(num_inference_steps)
    begin = round((1 - strength) * num_inference_steps)
    times = scheduler.timesteps[begin:]
    noise = torch.randn_like(images)
    x = scheduler.add_noise(images, noise, times[:1].expand(len(images)))
    for t in times:
        x = scheduler.step(net(x, t.expand(len(images))), t, x).prev_sample
    return x


def guided_output(net, x, t, label, guidance_scale):
    both = net(torch.cat([x, x]), torch.cat([t, t]), [None, label])
    uncond, cond = both.chunk(2)
    return uncond + guidance_scale * (cond - uncond)


# --- training


def draw_timesteps(scheduler, count):
    return torch.randint(0, scheduler.num_train_timesteps, (count,))


def snr_weights(scheduler, timesteps, gamma=5.0):
    bar = scheduler.alphas_cumprod[timesteps]
    snr = bar / (1 - bar)
    if scheduler.prediction_type == "v_prediction":
        return snr.clamp(max=gamma) / (snr + 1)
    return (gamma / snr).clamp(max=1.0)


def training_loss(net, scheduler, x_0, timesteps, noise, gamma=None):
    noisy = scheduler.add_noise(x_0, noise, timesteps)
    out = net(noisy, timesteps)
    if scheduler.prediction_type == "epsilon":
        target = noise
    elif scheduler.prediction_type == "sample":
        target = x_0
    else:
        target = scheduler.get_velocity(x_0, noise, timesteps)
    loss = (out - target) ** 2
    if gamma is None:
        return loss.mean()
    loss = loss.mean(dim=list(range(1, loss.ndim)))
    return (loss * snr_weights(scheduler, timesteps, gamma)).mean()


def train_step(net, scheduler, pixels, timesteps, noise):
    """Of pixels from 0 to 1."""
    x_0 = pixels * 2 - 1
    return training_loss(net, scheduler, x_0, timesteps, noise)


def timestep_embedding(timesteps, dim=32, max_period=10000):
    half = dim // 2
    index = torch.arange(half, dtype=torch.float32)
    angles = timesteps.float().unsqueeze(-1) * torch.exp(-math.log(max_period) * index / half)
    return torch.cat([torch.cos(angles), torch.sin(angles)], dim=-1)


class EMAModel:
    """An average of parameters that forgets slowly, and faster at the start."""

    def __init__(self, parameters, decay=0.9999, power=2 / 3):
        self.shadow_params = [p.detach().clone() for p in parameters]
        self.decay = decay
        self.power = power
        self.optimization_step = 0

    def get_decay(self, step):
        value = 1 - (1 + step) ** -self.power
        return min(self.decay, value)

    def step(self, parameters):
        decay = self.get_decay(self.optimization_step)
        self.optimization_step += 1
        for shadow, p in zip(self.shadow_params, parameters, strict=True):
            shadow.sub_((1 - decay) * (shadow - p.detach()))

    def copy_to(self, parameters):
        for shadow, p in zip(self.shadow_params, parameters, strict=True):
            p.data.copy_(shadow)

    def averaged(self, net):
        other = copy.deepcopy(net)
        self.copy_to(other.parameters())
        return other
