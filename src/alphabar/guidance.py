"""Guidance: a denoiser pushed towards a condition y.

    x̂ = u + s·(c − u),    c = E[x_0 | x_t, y],  u = E[x_0 | x_t]               guided
    x̂ = u + s·(σ²/α)·∇_{x_t} log p(y | x_t)                                    classifier_guided

With exact parts the two are the same, and s = 1 is the conditional denoiser (Bayes). In scores,
∇log p(x_t) + s·∇log p(y | x_t): at each level, that of the tilted density p(x_t)·p(y | x_t)^s.

**For s other than 1, guided samples do not follow p(x_0)·p(y | x_0)^s.** The tilted densities of
the levels are not the diffusion of one another: diffusing the tilted data gives another density
than tilting the diffused data, so no process has these scores. Two Gaussians at ±1 of standard
deviation 0.7, guided to +1 with s = 2: the exact guided flow ends at mean 1.44 and standard
deviation 0.51, where the tilted density has 1.13 and 0.62. A test of guidance by its samples
therefore fails right code; test it level by level, against the formulas above.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from alphabar.arguments import check_number
from alphabar.predict import add, any_zero, describe, numbers
from alphabar.samplers.base import Denoiser
from alphabar.schedule import Level, align

# Given x_t and its level: log p(y | x_t) of each item, up to a constant.
LogProb = Callable[[Float[Tensor, "B ..."], Level], Float[Tensor, " B"]]


def guided(
    conditional: Denoiser,
    unconditional: Denoiser,
    scale: float,
    interval: tuple[float, float] | None = None,
    rescale: float = 0.0,
) -> Denoiser:
    """Classifier-free guidance: x̂ = u + s·(c − u).

    Its samples do not follow p(x_0)·p(y | x_0)^s: see above.

    Args:
        conditional: c, with its condition bound (`functools.partial`).
        unconditional: u; a denoiser for another condition makes that one a negative prompt.
        scale: s ≥ 0: 0 is u, 1 is c, more exaggerates. Ho & Salimans' w is s − 1.
        interval: (low, high) in log-SNR λ: guidance at levels low ≤ λ < high, c alone elsewhere.
            The paper's σ in (σ_lo, σ_hi] (α = 1) is (−2·log σ_hi, −2·log σ_lo).
        rescale: φ from 0 to 1: x̂ ← φ·x̂·(std c)/(std x̂) + (1 − φ)·x̂, each standard deviation over
            all numbers of an item. Guidance makes it grow, which over-exposes pictures. It acts on
            x̂_0, whatever the model predicts: there it means contrast, and the same in every scale.
            The paper's listing rescales the model's own output instead: not the same.

    Returns:
        A denoiser. It calls u only where s ≠ 1 inside the interval, and c only where it counts.

    Raises:
        TypeError: a scale or a rescale that is not a number.
        ValueError: scale < 0 or not finite; an interval that does not rise; rescale outside 0..1.
            When called: c or u of another shape than x_t; rescale for items of one number, which
            have no standard deviation.

    Sources: Ho & Salimans 2022, eq. (6); Kynkäänniemi et al. 2024 (interval); Lin et al. 2023, eq.
    (15) and (16) (rescale).
    """
    rule = "a number ≥ 0 (to push away from a condition, give it as `unconditional`)"
    s = check_number("scale", scale, 0, math.inf, rule)
    phi = check_number("rescale", rescale, 0, 1, "a share from 0 (no rescaling) to 1")
    if interval is not None:
        _check_interval(interval)

    def denoise(x_t: Float[Tensor, "B ..."], level: Level) -> Float[Tensor, "B ..."]:
        inside = None if interval is None else _inside(interval, level)
        if s == 1 or (inside is not None and not inside.any()):
            return _checked(conditional(x_t, level), x_t, level)
        if inside is not None and inside.all():
            inside = None
        u = _checked(unconditional(x_t, level), x_t, level)
        if s == 0 and phi == 0 and inside is None:
            return u
        c = _checked(conditional(x_t, level), x_t, level)
        x_0_hat = torch.lerp(u, c, s)
        if phi:
            x_0_hat = _rescaled(x_0_hat, c, phi)
        return x_0_hat if inside is None else torch.where(align(inside.double(), c) > 0, x_0_hat, c)

    return denoise


def classifier_guided(denoiser: Denoiser, log_prob: LogProb, scale: float) -> Denoiser:
    """Classifier guidance: x̂ = x̂_0 + s·(σ²/α)·∇_{x_t} log p(y | x_t).

    The gradient is taken by autograd at the x_t that the denoiser is given, also inside
    `torch.no_grad` and `torch.inference_mode`. Its samples do not follow p(x_0)·p(y | x_0)^s: see
    above.

    Args:
        denoiser: E[x_0 | x_t]. A conditional one is guided further.
        log_prob: (x_t, level) → log p(y | x_t) of each item, (B,), up to a constant; made of torch
            operations. An item's value may depend on that item alone.
        scale: s, any number; 1 is Bayes' rule.

    Returns:
        A denoiser; differentiable in x_t where gradients are wanted, at second order in log_prob.
        At σ = 0, x̂ is x̂_0: clean data leave nothing to guide.

    Raises:
        TypeError: a scale that is not a number.
        ValueError: a scale that is not finite. When called: log_prob of another shape than (B,), or
            not dependent on x_t; α = 0, where x_t says nothing about y: the gradient is 0 and its
            factor inf, though E[x_0 | y] is as sound as ever; use `guided` there.

    Source: Dhariwal & Nichol 2021, eq. (14), in x̂_0 and for any scale.
    """
    s = check_number("scale", scale, -math.inf, math.inf, "a number, such as 1")

    def denoise(x_t: Float[Tensor, "B ..."], level: Level) -> Float[Tensor, "B ..."]:
        alpha, sigma = numbers(level)
        if any_zero(alpha):
            raise ValueError(
                f"{describe(alpha, sigma)}: pure noise says nothing about the class, so its "
                "gradient is no guide; start at a level with alpha > 0, or use `guided`"
            )
        x_0_hat = _checked(denoiser(x_t, level), x_t, level)
        if s == 0 or (isinstance(sigma, float) and sigma == 0):
            return x_0_hat
        grad = _gradient(log_prob, x_t, level)
        if any_zero(sigma):
            # A classifier may be infinitely sure of clean data: 0·inf.
            grad = torch.where(align(level.sigma, x_t) == 0, 0.0, grad)
        return add(x_0_hat, s * sigma * (sigma / alpha), grad).to(x_t.dtype)

    return denoise


def _gradient(
    log_prob: LogProb, x_t: Float[Tensor, "B ..."], level: Level
) -> Float[Tensor, "B ..."]:
    create = torch.is_grad_enabled() and x_t.requires_grad
    with torch.inference_mode(False), torch.enable_grad():
        if create:
            x = x_t
        else:
            x = (x_t.clone() if x_t.is_inference() else x_t.detach()).requires_grad_()
        values = log_prob(x, level)
        if values.shape != x.shape[:1]:
            raise ValueError(
                f"log_prob returned shape {tuple(values.shape)} for {len(x)} items: it must "
                f"return one number for each, shape ({len(x)},); sum over the other axes"
            )
        grad = None
        if values.requires_grad:
            (grad,) = torch.autograd.grad(values.sum(), x, create_graph=create, allow_unused=True)
        if grad is None:
            raise ValueError(
                "log_prob does not depend on x_t: compute it from the x it is given, with torch "
                "operations, and without torch.no_grad or detach"
            )
    return grad


def _rescaled(
    x_0_hat: Float[Tensor, "B ..."], c: Float[Tensor, "B ..."], phi: float
) -> Float[Tensor, "B ..."]:
    if c[0].numel() < 2:
        raise ValueError(
            f"rescale = {phi:g} for items of {c[0].numel()} number: its standard deviation over an "
            "item needs at least two; take rescale = 0"
        )
    axes = tuple(range(1, c.ndim))
    wide = torch.promote_types(c.dtype, torch.float32)
    before, after = (v.to(wide).std(axes, keepdim=True) for v in (c, x_0_hat))
    # An item of equal numbers has no contrast to bring back.
    ratio = torch.where(after > 0, before / after, 1.0)
    return (x_0_hat * torch.lerp(torch.ones_like(ratio), ratio, phi)).to(c.dtype)


def _checked(x_0_hat: Tensor, x_t: Tensor, level: Level) -> Tensor:
    if x_0_hat.shape != x_t.shape:
        raise ValueError(
            f"{describe(*numbers(level))}: a denoiser returned shape {tuple(x_0_hat.shape)} for x "
            f"of shape {tuple(x_t.shape)}: it must return one x_0 for each item"
        )
    return x_0_hat.to(x_t.dtype)


def _inside(interval: tuple[float, float], level: Level) -> Bool[Tensor, "*B"]:
    log_snr = level.log_snr
    return (interval[0] <= log_snr) & (log_snr < interval[1])


def _check_interval(interval: tuple[float, float]) -> None:
    low, high = interval
    if not low < high:
        raise ValueError(
            f"interval = ({low}, {high}): it is (low, high) in log-SNR with low < high; for sigmas "
            "(alpha = 1) it is (−2·log sigma_high, −2·log sigma_low)"
        )
