"""Denoising diffusion in tables and plain functions, as one keeps it in a notebook.

Index t = 0 … 999 is the level after t + 1 steps. A model is called as model(x, t), t of shape (B,).
"""

import copy
import math

import torch

n_steps = 1000


def cosine_curve(n_timesteps, s=0.008):
    steps = n_timesteps + 1
    x = torch.linspace(0, n_timesteps, steps, dtype=torch.float64)
    f = torch.cos((x / n_timesteps + s) / (1 + s) * math.pi / 2) ** 2
    return f / f[0]


def cosine_betas(n_timesteps):
    f = cosine_curve(n_timesteps)
    return (1 - f[1:] / f[:-1]).clamp(max=0.999)


def cosine_tables(n_timesteps):
    beta = cosine_betas(n_timesteps)
    curve = torch.cat([torch.ones(1, dtype=beta.dtype), torch.cumprod(1 - beta, 0)])
    bars = curve[1:]
    before = torch.cat([torch.ones(1, dtype=beta.dtype), bars[:-1]])
    variance = beta * (1 - before) / (1 - bars)
    return beta, bars, variance


def make_beta_schedule(schedule="linear", n_timesteps=1000, start=1e-4, end=2e-2):
    # start and end are made for 1000 steps: of fewer, each must add more noise
    scale = 1000 / n_timesteps
    start, end = scale * start, scale * end
    if schedule == "linear":
        return torch.linspace(start, end, n_timesteps)
    if schedule == "quad":
        return torch.linspace(start**0.5, end**0.5, n_timesteps) ** 2
    if schedule == "sigmoid":
        return torch.sigmoid(torch.linspace(-6, 6, n_timesteps)) * (end - start) + start
    if schedule == "cosine":
        return cosine_betas(n_timesteps)
    raise ValueError(schedule)


def zero_terminal_betas(n_timesteps=1000):
    line = torch.linspace(0.00085**0.5, 0.012**0.5, n_timesteps, dtype=torch.float64)
    root = torch.cumprod(1 - line**2, 0).sqrt()
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    bars = root**2
    return 1 - torch.cat([bars[:1], bars[1:] / bars[:-1]])


betas = make_beta_schedule("linear", n_steps)
alphas = 1 - betas
alphas_prod = torch.cumprod(alphas, 0)
alphas_prod_p = torch.cat([torch.ones(1), alphas_prod[:-1]], 0)
alphas_bar_sqrt = torch.sqrt(alphas_prod)
one_minus_alphas_bar_sqrt = torch.sqrt(1 - alphas_prod)
reverse_variance = betas * (1 - alphas_prod_p) / (1 - alphas_prod)
reverse_log_variance = torch.log(reverse_variance.clamp(min=1e-20))
clean_share = betas * torch.sqrt(alphas_prod_p) / (1 - alphas_prod)
noisy_share = (1 - alphas_prod_p) * torch.sqrt(alphas) / (1 - alphas_prod)
betas_zero = zero_terminal_betas(n_steps)
alphas_prod_zero = torch.cumprod(1 - betas_zero, 0)


def extract(values, t, x):
    return values[t].reshape(-1, *[1] * (x.ndim - 1))


# --- from data to noise


def forward_step(x, t):
    beta_t = extract(betas, t, x)
    return torch.sqrt(1 - beta_t) * x + torch.sqrt(beta_t) * torch.randn_like(x)


def forward_process(x_start, steps, noise=None):
    x_seq = [x_start]
    for n in range(steps):
        z = torch.randn_like(x_start) if noise is None else noise[n]
        x_seq.append(torch.sqrt(1 - betas[n]) * x_seq[-1] + torch.sqrt(betas[n]) * z)
    return x_seq


def q_sample(x_0, t, noise=None):
    if noise is None:
        noise = torch.randn_like(x_0)
    keep = extract(alphas_bar_sqrt, t, x_0)
    spread = extract(one_minus_alphas_bar_sqrt, t, x_0)
    return (keep * x_0 + spread * noise).to(x_0.dtype)


def q_mean_std(x_0, t):
    mean = extract(alphas_bar_sqrt, t, x_0) * x_0
    std = extract(one_minus_alphas_bar_sqrt, t, x_0)
    return mean, std.expand_as(x_0)


def q_posterior_mean_variance(x_0, x_t, t):
    mean = extract(clean_share, t, x_t) * x_0 + extract(noisy_share, t, x_t) * x_t
    return mean, extract(reverse_variance, t, x_t)


# --- what the model says


def predict_x_0(x_t, t, eps):
    spread = extract(one_minus_alphas_bar_sqrt, t, x_t)
    return (x_t - spread * eps) / extract(alphas_bar_sqrt, t, x_t)


def velocity(x_0, noise, t):
    keep = extract(alphas_bar_sqrt, t, x_0)
    return keep * noise - extract(one_minus_alphas_bar_sqrt, t, x_0) * x_0


def dynamic_threshold(x_0, ratio=0.995, largest=100.0):
    sizes = x_0.abs().flatten(1)
    bound = torch.quantile(sizes, ratio, dim=1)
    bound = bound.clamp(min=1.0, max=largest).reshape(-1, *[1] * (x_0.ndim - 1))
    return torch.maximum(torch.minimum(x_0, bound), -bound) / bound


# --- losses


def sample_time(n):
    return torch.randint(0, n_steps, (n,))


def noise_estimation_loss(model, x_0, t=None, noise=None):
    t = sample_time(len(x_0)) if t is None else t
    noise = torch.randn_like(x_0) if noise is None else noise
    guess = model(q_sample(x_0, t, noise), t)
    return (noise - guess).square().mean()


def x_0_estimation_loss(model, x_0, t=None, noise=None):
    t = sample_time(len(x_0)) if t is None else t
    noise = torch.randn_like(x_0) if noise is None else noise
    x_t = q_sample(x_0, t, noise)
    return (x_0 - model(x_t, t)).square().mean()


def v_estimation_loss(model, x_0, t=None, noise=None):
    t = sample_time(len(x_0)) if t is None else t
    noise = torch.randn_like(x_0) if noise is None else noise
    target = velocity(x_0, noise, t)
    return (target - model(q_sample(x_0, t, noise), t)).square().mean()


def score_estimation_loss(model, x_0, t=None, noise=None):
    t = sample_time(len(x_0)) if t is None else t
    noise = torch.randn_like(x_0) if noise is None else noise
    spread = extract(one_minus_alphas_bar_sqrt, t, x_0)
    target = -noise / spread
    return (spread * (model(q_sample(x_0, t, noise), t) - target)).square().mean()


def normalise(images):
    return images * 2 - 1


def image_loss(model, images, t=None, noise=None):
    """Of images with values from 0 to 1."""
    t = sample_time(len(images)) if t is None else t
    noise = torch.randn_like(images) if noise is None else noise
    x_0 = normalise(images)
    x_t = q_sample(x_0, t, noise)
    return (noise - model(x_t, t)).square().mean()


def min_snr_weight(t, gamma=5.0):
    snr = alphas_prod[t] / (1 - alphas_prod[t])
    return snr.clamp(max=gamma) / snr


def min_snr_weight_zero(t, gamma=5.0):
    """On the table that ends without any signal."""
    snr = alphas_prod_zero[t] / (1 - alphas_prod_zero[t])
    return (gamma / snr).clamp(max=1.0)


def debiased_weight_zero(t):
    snr = alphas_prod_zero[t] / (1 - alphas_prod_zero[t])
    return 1 / snr.clamp(min=1e-4, max=1e3).sqrt()


def weighted_loss(model, x_0, t=None, noise=None):
    t = sample_time(len(x_0)) if t is None else t
    noise = torch.randn_like(x_0) if noise is None else noise
    error = (noise - model(q_sample(x_0, t, noise), t)).square().flatten(1).mean(1)
    weight = min_snr_weight(t)
    return (weight * error).mean()


# --- from noise to data


def p_sample(model, x, t):
    eps = model(x, t)
    share = extract(betas, t, x) / extract(one_minus_alphas_bar_sqrt, t, x)
    mean = (x - share * eps) / torch.sqrt(1 - extract(betas, t, x))
    std = torch.exp(0.5 * extract(reverse_log_variance, t, x))
    noisy = (t > 0).reshape(-1, *[1] * (x.ndim - 1))
    return mean + noisy * std * torch.randn_like(x)


def p_sample_learned(model, x, t):
    """Of a model that returns the noise and, from −1 to 1, where its variance lies."""
    eps, place = model(x, t).chunk(2, dim=1)
    mean, _ = q_posterior_mean_variance(predict_x_0(x, t, eps), x, t)
    low = extract(reverse_log_variance.clamp(min=-12.0), t, x)
    high = torch.log(extract(betas, t, x))
    part = (place + 1) / 2
    std = torch.exp(0.5 * (part * high + (1 - part) * low))
    noisy = (t > 0).reshape(-1, *[1] * (x.ndim - 1))
    return mean + noisy * std * torch.randn_like(x)


def p_sample_clipped(model, x, t, largest=3.0):
    """Of data that lie between −largest and largest."""
    x_0 = predict_x_0(x, t, model(x, t)).clamp(-largest, largest)
    mean, variance = q_posterior_mean_variance(x_0, x, t)
    noisy = (t > 0).reshape(-1, *[1] * (x.ndim - 1))
    return mean + noisy * variance.sqrt() * torch.randn_like(x)


def p_sample_thresholded(model, x, t):
    x_0 = dynamic_threshold(predict_x_0(x, t, model(x, t)))
    mean, variance = q_posterior_mean_variance(x_0, x, t)
    noisy = (t > 0).reshape(-1, *[1] * (x.ndim - 1))
    return mean + noisy * variance.sqrt() * torch.randn_like(x)


def p_sample_loop(model, shape):
    x = torch.randn(shape)
    for i in reversed(range(n_steps)):
        x = p_sample(model, x, torch.full((shape[0],), i))
    return x


def img2img(model, x_0, start):
    """Noise x_0 to index `start`, then back to data."""
    x = q_sample(x_0, torch.full((len(x_0),), start))
    for i in reversed(range(start + 1)):
        x = p_sample(model, x, torch.full((len(x_0),), i))
    return x


def alpha_bar_at(t):
    return alphas_prod[t] if t >= 0 else torch.tensor(1.0)


def ddim_timesteps(n):
    return torch.linspace(n_steps - 1, 0, n).round().long().tolist()


def ddim_step(x, eps, t, s, eta=0.0):
    """From index t to index s; s = −1 is clean data."""
    bar_t, bar_s = alpha_bar_at(t), alpha_bar_at(s)
    x_0 = (x - torch.sqrt(1 - bar_t) * eps) / torch.sqrt(bar_t)
    sigma = eta * torch.sqrt((1 - bar_s) / (1 - bar_t) * (1 - bar_t / bar_s))
    along = torch.sqrt(1 - bar_s - sigma**2) * eps
    return torch.sqrt(bar_s) * x_0 + along + sigma * torch.randn_like(x)


def ddim_step_x_0(x, x_0, t, s):
    """The same for a model that predicts x_0."""
    bar_t, bar_s = alpha_bar_at(t), alpha_bar_at(s)
    eps = (x - torch.sqrt(bar_t) * x_0) / torch.sqrt(1 - bar_t)
    return torch.sqrt(bar_s) * x_0 + torch.sqrt(1 - bar_s) * eps


def ddim_sample_loop(model, shape, n=50, eta=0.0):
    x = torch.randn(shape)
    times = ddim_timesteps(n)
    for i in range(n):
        t = times[i]
        s = times[i + 1] if i + 1 < n else -1
        eps = model(x, torch.full((shape[0],), t))
        x = ddim_step(x, eps, t, s, eta)
    return x


# --- guidance


def cfg(model, x, t, y, scale):
    bare = model(x, t, None)
    return bare + scale * (model(x, t, y) - bare)


def p_sample_classifier(model, gradient, x, t, scale=1.0):
    """gradient(x, t) is ∇ log p(y | x)."""
    mean, variance = q_posterior_mean_variance(predict_x_0(x, t, model(x, t)), x, t)
    mean = mean + scale * variance * gradient(mean, t)
    noisy = (t > 0).reshape(-1, *[1] * (x.ndim - 1))
    return mean + noisy * variance.sqrt() * torch.randn_like(x)


# --- small parts


class EMA:
    def __init__(self, model, decay=0.999):
        self.decay = decay
        self.updates = 0
        self.shadow = copy.deepcopy(model)

    def update(self, model):
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        with torch.no_grad():
            for old, new in zip(self.shadow.parameters(), model.parameters(), strict=True):
                old.mul_(decay).add_(new, alpha=1 - decay)


def time_embedding(t, dim=32):
    half = dim // 2
    rates = torch.exp(-math.log(10000) * torch.arange(half) / (half - 1))
    angles = t.float()[:, None] * rates[None, :]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def langevin_step(score, x, t, step=1e-3):
    """x goes up its score at a fixed level, with the noise that keeps the density as it is."""
    z = torch.randn_like(x)
    return x + step * score(x, t) + math.sqrt(2 * step) * z


def prior_kl(x_0):
    """KL(q(x_T | x_0) ‖ N(0, I)), nats, one per item."""
    mean = alphas_bar_sqrt[-1] * x_0
    variance = 1 - alphas_prod[-1]
    return 0.5 * (variance + mean**2 - 1 - torch.log(variance)).flatten(1).sum(1)


def bound_term(model, x_0, t, noise):
    """KL(q(x_{t−1} | x_t, x_0) ‖ p(x_{t−1} | x_t)), both with the same variance, t > 0."""
    x_t = q_sample(x_0, t, noise)
    true, variance = q_posterior_mean_variance(x_0, x_t, t)
    guess, _ = q_posterior_mean_variance(predict_x_0(x_t, t, model(x_t, t)), x_t, t)
    return 0.5 * ((true - guess) ** 2 / variance).flatten(1).sum(1)
