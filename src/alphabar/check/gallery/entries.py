# mypy: allow-untyped-calls
"""The entries of the gallery: of each bug the code, the formula, the effect, the check."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from alphabar.check.gallery import right, seen, wrong
from alphabar.check.gallery.seen import Code, Seen


def _itself(code: Code) -> object:
    return code


@dataclass(frozen=True)
class Entry:
    """A bug, shown.

    Args:
        id: its number in the catalogue.
        right: the right code.
        wrong: the same with the bug.
        formula: what the right code computes.
        mistaken: what the wrong code computes.
        effect: measures what the bug does.
        lesson: what the picture shows, or hides.
        role: what of `check` sees it.
        facts: what a person would state there.
        subject: what is handed to the check, made of the code.
    """

    id: str
    right: Code
    wrong: Code
    formula: str
    mistaken: str
    effect: Callable[[], Seen]
    lesson: str
    role: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    subject: Callable[[Code], object] = _itself


_BETAS: Mapping[str, Any] = {"betas": right.betas}
_EPS: Mapping[str, Any] = {**_BETAS, "predicts": "eps"}
_X_0: Mapping[str, Any] = {**_BETAS, "predicts": "x_0"}
_MIN_SNR: Mapping[str, Any] = {**_EPS, "claims": "min_snr", "gamma": 5.0}

ENTRIES = (
    Entry(
        "A1",
        right.forward_step,
        wrong.forward_step_a1,
        "x_t = √(1 − β_t)·x_{t−1} + √β_t·z,  z ~ N(0, I)",
        "x_t = √(1 − β_t)·x_{t−1} + √β_t·u,  u ~ U[0, 1]",
        lambda: seen.chains(right.forward_step, wrong.forward_step_a1),
        "The picture shows it: uniform numbers are all above 0, so the cloud drifts up and to the "
        "right, and it is too small. Seen without its axes it could pass for noise.",
        "transition",
        _BETAS,
    ),
    Entry(
        "A2",
        right.forward_step,
        wrong.forward_step_a2,
        "x_t = √(1 − β_t)·x_{t−1} + √β_t·z",
        "x_t = √(1 − β_t)·x_{t−1} + β_t·z",
        lambda: seen.chains(right.forward_step, wrong.forward_step_a2),
        "The wrong cloud is Gaussian too: only its size is wrong, and a plot that fits its own "
        "axes would hide that. A sampler that starts from N(0, I) starts from another law than "
        "training has ended in.",
        "transition",
        _BETAS,
    ),
    Entry(
        "A3",
        right.q_sample,
        wrong.q_sample_a3,
        "x_t = √ᾱ_t·x_0 + √(1 − ᾱ_t)·noise",
        "x_t = √ᾱ_t·x_0 + √(1 − ᾱ_t)·z,  z drawn anew",
        seen.noise_unused,
        "The picture hides it wholly: both clouds have the right law. But the loss asks for a "
        "noise that is not in x_t, so even the exact model has a loss above 1, and a network "
        "learns to answer 0.",
        "marginal",
        _BETAS,
    ),
    Entry(
        "A4",
        right.score_loss,
        wrong.score_loss_a4,
        "E‖s(x_t, t) − (−ε/√(1 − ᾱ_t))‖²,  least at s = ∇log p_t",
        "E‖s(x_t, t) − ε/√(1 − ᾱ_t)‖²,  least at s = −∇log p_t",
        lambda: seen.losses(
            right.score_loss,
            wrong.score_loss_a4,
            "score",
            lambda x, t: -seen.exact("score")(x, t),
            "minus the exact score",
        ),
        "The loss falls as well as ever, to the same value: nothing in training tells. What is "
        "learnt points away from the data, and samples fly off.",
        "loss",
        {**_BETAS, "predicts": "score"},
    ),
    Entry(
        "A5",
        right.flow_times,
        wrong.flow_times_a5,
        "t ~ U[0, 1]",
        "t ~ N(0, 1)",
        seen.times_out_of_range,
        "Two thirds of the training go to times that do not exist. The rest is learnt more "
        "slowly, and unevenly, so the picture of the samples is worse and never says why.",
        "time_sampling",
        {"scale": "flow"},
    ),
    Entry(
        "A6",
        right.q_sample,
        wrong.q_sample_a6,
        "x_t = √ᾱ_t·x_0 + √(1 − ᾱ_t)·ε",
        "x_t = √ᾱ_t·x_0 + √(1 − ᾱ_t)·x_0·ε",
        seen.noise_by_data,
        "The picture shows it, if one knows where to look: a cross along the axes, where one "
        "coordinate is near 0 and gets no noise. For data of variance 1 the variance of x_t is "
        "right all the same.",
        "marginal",
        _BETAS,
    ),
    Entry(
        "A7",
        right.ve_sample,
        wrong.ve_sample_a7,
        "x_t = x_0 + σ_t·ε,  σ_t² = (1 − ᾱ_t)/ᾱ_t",
        "x_t = √ᾱ_t·x_0 + √(1 − ᾱ_t)·ε",
        seen.mixed_in_another_scale,
        "Noised to t = 26, and denoised by a sampler of the variance-exploding scale. Data that "
        "were scaled down come back too near the middle: on the roll, on its inner turn.",
        "marginal",
        {**_BETAS, "scale": "ve"},
    ),
    Entry(
        "A8",
        right.img2img,
        wrong.img2img_a8,
        "x_t = √ᾱ_t·x_0 + √(1 − ᾱ_t)·ε, then denoised from t",
        "the same, then denoised from the step below t",
        seen.noised_elsewhere,
        "The picture hides it, and the ratio is no worse: the exact denoiser leads any noise to "
        "the roll. When the loop begins, x has more noise than the model is told of, which a "
        "network takes for detail; and with few steps a level is a whole stride.",
        "sampler",
        _EPS,
    ),
    Entry(
        "A9",
        right.image_loss,
        wrong.image_loss_a9,
        "x_0 = 2·image − 1 in [−1, 1]",
        "x_0 = 2·(2·image − 1) − 1 in [−3, 1]",
        seen.range_twice,
        "The network learns data of another range, and learns them well: the loss of the exact "
        "model of that range is the lower one. Brought back to pictures once, its samples are too "
        "large and off centre; clipped to [0, 1], pictures have hard contrasts and are too dark.",
        "loss",
        {**_EPS, "data_range": (0.0, 1.0)},
    ),
    Entry(
        "A10",
        right.cosine_alpha_bar,
        wrong.cosine_alpha_bar_a10,
        "ᾱ_t for t = 1 … T",
        "ᾱ_t for t = 0 … T − 1, with ᾱ_0 = 1",
        seen.clean_value_kept,
        "Nothing shows before the last step, where ε̂ = (x_t − √ᾱ_t·x̂_0)/√(1 − ᾱ_t) divides "
        "by 0, and not one sample is left. Some code hides that by a clamp; then every level "
        "is one step too clean.",
        "schedule",
        {
            "claims": "cosine",
            "gives": "alphas_cumprod",
            "betas": right.cosine_betas(1000),
        },
        lambda code: code(1000),
    ),
    Entry(
        "A11",
        right.posterior_mean,
        wrong.posterior_mean_a11,
        "ᾱ_{t−1} = (1, ᾱ_1, …, ᾱ_{T−1})",
        "ᾱ_{t−1} = (ᾱ_2, …, ᾱ_T, 1)",
        seen.posteriors,
        "The weight of x_t is above 1 where it should be below, and the samples run away. "
        "With T = 1000 and clipping they stay in the box and look merely bad.",
        "posterior",
        _BETAS,
    ),
    Entry(
        "A12",
        right.ddim_sample,
        wrong.ddim_sample_a12,
        "t = T, …, 1",
        "t = T − T/N, …, 1, from x ~ N(0, I)",
        seen.late_start,
        "The picture hides it, and so does the ratio, which ten long steps decide. The noise "
        "that sampling starts from has no trace of the data, and at the level where it starts "
        "there should be one: √ᾱ of their mean. On the roll, whose mean is near 0, that costs "
        "nothing; in pictures it is the brightness, and none comes out very dark or very "
        "bright.",
        "sampler",
        _EPS,
    ),
    Entry(
        "A13",
        right.make_betas,
        wrong.make_betas_a13,
        "β from 1e-4·1000/T to 0.02·1000/T",
        "β from 1e-4 to 0.02, whatever T",
        seen.betas_for_1000,
        "A third of the data's variance is left at the end, and sampling starts from N(0, I) all "
        "the same. The roll comes out, and the points are in the wrong places on it.",
        "schedule",
        {"claims": "linear", "gives": "betas"},
        lambda code: code(100),
    ),
    Entry(
        "A14",
        right.sigma_prime,
        wrong.sigma_prime_a14,
        "σ′ = ½·β(t)·(σ + 1/σ)",
        "σ′ = β(t)·(σ + 1/σ)",
        seen.slope_doubled,
        "Every step goes twice as far as it should, and no finer steps help. All points fall "
        "together while they are still noise, to one dot, and stay there.",
        "schedule",
        {"gives": "sigma_prime", "sigma": right.sigma},
    ),
    Entry(
        "A15",
        right.p_sample_learned,
        wrong.p_sample_learned_a15,
        "Σ = exp(v·log β_t + (1 − v)·log β̃_t)",
        "Σ = v·β_t + (1 − v)·β̃_t",
        seen.learned_range,
        "The picture hides it. β and β̃ are nearly the same but for the last steps, which decide "
        "the finest detail.",
        "step",
        {**_EPS, "variance": "learned_range"},
    ),
    Entry(
        "A16",
        right.p_sample,
        wrong.p_sample_a16,
        "std = exp(½·log β̃_t)",
        "std = √(log β̃_t)",
        lambda: seen.with_finite(seen.steps(right.p_sample, wrong.p_sample_a16)),
        "A variance below 1 has a logarithm below 0, and its root is NaN: there is nothing to "
        "draw. The kindest bug of all, unless a later clamp turns NaN into a number.",
        "step",
        _EPS,
    ),
    Entry(
        "A17",
        right.min_snr_weight,
        wrong.min_snr_weight_a17,
        "w = min(SNR, γ)/SNR",
        "w = max(SNR, γ)/SNR",
        lambda: seen.weights(right.min_snr_weight, wrong.min_snr_weight_a17),
        "The loss is still an average of squared errors and falls. Nearly all of it is now the "
        "noisiest levels, where there is least to learn.",
        "weighting",
        _MIN_SNR,
    ),
    Entry(
        "A18",
        right.weighted_loss,
        wrong.weighted_loss_a18,
        "mean_i(w_i·e_i)",
        "mean_i(w_i)·mean_i(e_i)",
        seen.weights_averaged,
        "(B, 1) times (B,) is (B, B), without an error or a warning: every item has the same "
        "weight, the mean. The loss is a plausible number.",
        "loss",
        _MIN_SNR,
    ),
    Entry(
        "A19",
        right.min_snr_weight_to_zero,
        wrong.min_snr_weight_to_zero_a19,
        "w = min(1, γ/SNR),  1 at SNR = 0",
        "w = min(SNR, γ)/SNR,  0/0 at SNR = 0",
        seen.weight_not_finite,
        "One t of a hundred has no weight, and half of all batches hold it: the loss is NaN "
        "within a few steps, and then the network is.",
        "weighting",
        {**_MIN_SNR, "betas": right.betas_zero},
    ),
    Entry(
        "A20",
        right.x_0_loss,
        wrong.x_0_loss_a20,
        "E‖x̂_0 − x_0‖²,  least at E[x_0 | x_t]",
        "E‖x̂_0 − x_t‖²,  least at x_t",
        lambda: seen.losses(
            right.x_0_loss, wrong.x_0_loss_a20, "x_0", seen.exact("x_t"), "the answer x_t"
        ),
        "The loss falls to 0, lower than it ever could, as the network learns to repeat what it "
        "is told. Sampling then returns noise.",
        "loss",
        _X_0,
    ),
    Entry(
        "A21",
        right.v_loss,
        wrong.v_loss_a21,
        "E‖v̂ − v‖²,  v = √ᾱ_t·ε − √(1 − ᾱ_t)·x_0",
        "E‖v̂ − ε‖²",
        lambda: seen.losses(right.v_loss, wrong.v_loss_a21, "v", seen.exact("eps"), "the exact ε̂"),
        "What is learnt is right at clean levels, where v is nearly ε, and wrong at noisy "
        "ones, where v is −x_0 and samples get their shape: they crowd on the inner turn. A "
        "loss that falls below what is possible, 0.19 here, was the one sign.",
        "loss",
        {**_BETAS, "predicts": "v"},
    ),
    Entry(
        "A22",
        right.time_embedding,
        wrong.time_embedding_a22,
        "row i = (sin(ω·t_i), cos(ω·t_i))",
        "row i = (sin(ω·i), cos(ω·i))",
        seen.embedded,
        "The network is told its item's place in the batch. Training goes on, blind to t; in "
        "sampling, where a batch of one has i = 0 throughout, it is told that all levels are the "
        "same.",
        "embedding",
    ),
    Entry(
        "A23",
        right.ddim_sample,
        wrong.ddim_sample_a23,
        "ε̂ = model(x_t, t)",
        "ε̂ = model(x_t, i),  i the index of t among the steps",
        lambda: seen.loops(right.ddim_sample, wrong.ddim_sample_a23),
        "With as many steps as levels there is no difference, so tests with N = T pass. With "
        "fewer, the model is told of far less noise than there is, takes too little off, and "
        "all points end on the roll's outer edge.",
        "sampler",
        _EPS,
    ),
    Entry(
        "A24",
        right.ddim_sample_by_x_0,
        wrong.ddim_sample_by_x_0_a24,
        "from (t, ᾱ_t) to (s, ᾱ_s), at last to ᾱ = 1",
        "from (t, ᾱ_{t−1}) to (s, ᾱ_{s−1}), at last from 1 to 1",
        lambda: seen.with_finite(
            seen.loops(right.ddim_sample_by_x_0, wrong.ddim_sample_by_x_0_a24, "x_0")
        ),
        "All steps but the last are one level off, which one would not see. The last divides by "
        "√(1 − 1) = 0: nothing is left to draw.",
        "sampler",
        _X_0,
    ),
    Entry(
        "A25",
        right.ddim_sample_by_x_0,
        wrong.ddim_sample_by_x_0_a25,
        "ε̂ = (x_t − √ᾱ_t·x̂_0)/√(1 − ᾱ_t)",
        "ε̂ = x̂_0",
        lambda: seen.loops(right.ddim_sample_by_x_0, wrong.ddim_sample_by_x_0_a25, "x_0"),
        "The picture shows it. Shapes and types agree, so nothing else does.",
        "sampler",
        _X_0,
    ),
    Entry(
        "A26",
        right.ddim_sample,
        wrong.ddim_sample_a26,
        "from t to the next t that is visited",
        "from t to t − T//N",
        lambda: seen.loops(right.ddim_sample, wrong.ddim_sample_a26),
        "The picture hides it, and the ratio is no worse: the exact denoiser takes off at the "
        "next step what was left by the last. On the way x has up to 1.5 times the noise of the "
        "level that the model is told, and no network was trained on that. With even strides "
        "from T − 1 there is no difference at all.",
        "sampler",
        _EPS,
    ),
    Entry(
        "A27",
        right.heun_sample,
        wrong.heun_sample_a27,
        "second slope = (x′ − x̂_0)/σ_next",
        "second slope = (x′ − x̂_0)/σ",
        seen.orders,
        "Samples of many steps look right: the method still converges, at first order. Only the "
        "slope of error against steps tells, on two lines of logarithms.",
        "sampler",
        {"predicts": "x_0", "scale": "ve"},
    ),
    Entry(
        "A28",
        right.karras_sigmas,
        wrong.karras_sigmas_a28,
        "σ_1 > … > σ_N > 0, then 0",
        "σ_1 > … > σ_N, then σ_N",
        seen.no_zero_at_the_end,
        "The picture hides it: what is left is noise of the least σ, here 0.03, on a roll that is "
        "itself 0.1 thick. In pictures it is a fine grain.",
        "schedule",
        {"claims": "karras", "gives": "sigmas"},
        lambda code: code(20),
    ),
    Entry(
        "A29",
        right.ddim_sample,
        wrong.ddim_sample_a29,
        "at last to ᾱ_0 = 1: x = x̂_0",
        "at last to ᾱ_1: x = √ᾱ_1·x̂_0 + √(1 − ᾱ_1)·ε̂",
        lambda: seen.loops(right.ddim_sample, wrong.ddim_sample_a29),
        "The picture hides it, and so does the ratio: noise of √(1 − ᾱ_1) = 0.03 is left. Only a "
        "direct look at the last step tells: it must return x̂_0.",
        "sampler",
        _EPS,
    ),
    Entry(
        "A30",
        right.ddpm_sample,
        wrong.ddpm_sample_a30,
        "t = T, …, 1",
        "t = 1, …, T",
        lambda: seen.loops(right.ddpm_sample, wrong.ddpm_sample_a30),
        "The picture shows it. With a poor network one would blame the network.",
        "sampler",
        _EPS,
    ),
    Entry(
        "A31",
        right.langevin_step,
        wrong.langevin_step_a31,
        "x + h·∇log p + √(2h)·z",
        "x + h·∇log p + h·z",
        seen.langevin,
        "The points run uphill and stay there. What is left is the ridge of the density: "
        "sharp, as if it were better than right. Only the spread tells.",
        "langevin",
        _BETAS,
    ),
    Entry(
        "A32",
        right.p_sample_guided,
        wrong.p_sample_guided_a32,
        "μ + s·Σ·∇log p(y | μ)",
        "μ + s·Σ·∇log p(y | x_t)",
        seen.guided,
        "The picture hides it, as does the ratio: with short steps μ is near x_t. They are "
        "apart by what a step moves, more with fewer steps. (Neither ratio is 1: guidance "
        "step by step is right to first order only.)",
        "guidance",
        _EPS,
    ),
    Entry(
        "A33",
        right.EMA,
        wrong.EMA_A33,
        "mean ← d_k·mean + (1 − d_k)·w,  d_k = min(decay, k/(10 + k))",
        "decay ← min(decay, k/(10 + k)) = 1/11 for good",
        seen.averaged,
        "The average is there, is saved and is sampled from, and is the last weights. Samples are "
        "as noisy as without it, and no test of shapes sees that.",
        "ema",
        {"decay": 0.999},
    ),
    Entry(
        "A34",
        right.p_sample_clipped,
        wrong.p_sample_clipped_a34,
        "x̂_0 clipped at the range of the data, here ±2",
        "x̂_0 clipped at ±1",
        lambda: seen.steps(right.p_sample_clipped, wrong.p_sample_clipped_a34),
        "The picture shows it: a roll in a box. For pictures in [−1, 1] the same line is right, "
        "and it is copied from there to latents, sounds and points.",
        "step",
        {**_EPS, "clip": 2.0},
    ),
    Entry(
        "A35",
        right.q_sample_in_half,
        wrong.q_sample_in_half_a35,
        "√(1 − ᾱ_t) of a float32 table, then rounded",
        "√(1 − round(ᾱ_t))",
        seen.in_half,
        "bfloat16 has no number between 0.996 and 1, so ᾱ_1 = 0.999 becomes 1, and the first "
        "level has no noise at all. With T = 1000 the first dozens are so. At noisy levels "
        "all is well, and no picture of them tells.",
        "marginal",
        {**_BETAS, "dtype": torch.bfloat16},
    ),
)
