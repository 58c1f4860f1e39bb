"""Bugs that have been seen in the wild, with their names: what `check` calls what it finds.

A bug that is none of these has no number, and is called by what is wrong and where.
"""

from typing import NamedTuple

from alphabar.check.report import Diagnosis


class Bug(NamedTuple):
    """A bug of the catalogue.

    Args:
        id: its number.
        name: what the code does.
        remedy: what to write.
        seen: where it was found.
        keys: role and kind of what is measured where this bug is.
    """

    id: str
    name: str
    remedy: str
    seen: str
    keys: tuple[tuple[str, str], ...]


BUGS = (
    Bug(
        "A1",
        "uniform noise where normal noise is meant",
        "torch.randn_like(x) in place of torch.rand_like(x)",
        "acids-ircam/diffusion_models 8",
        (
            ("transition", "uniform noise"),
            ("marginal", "uniform noise"),
            ("loss", "uniform noise"),
            ("step", "uniform noise"),
        ),
    ),
    Bug(
        "A2",
        "β where √β is meant",
        "multiply the noise by betas[t].sqrt(): β is its variance",
        "acids-ircam/diffusion_models 8",
        (("transition", "z: no root of beta"),),
    ),
    Bug(
        "A3",
        "an argument that is accepted and never used",
        "use the noise that is handed over, or take the argument away",
        "acids-ircam/diffusion_models 8",
        (("transition", "ignored noise"), ("marginal", "ignored noise"), ("loss", "ignored noise")),
    ),
    Bug(
        "A4",
        "the denoising score target lacks its minus sign",
        "the score of q(x_t | x_0) is −ε/√(1 − ᾱ_t): write the minus",
        "acids-ircam/diffusion_models 11",
        (("loss", "z: sign"),),
    ),
    Bug(
        "A5",
        "times are drawn from a normal law where they must be uniform",
        "draw t with torch.rand, so that it lies in [0, 1]",
        "lucidrains/rectified-flow-pytorch 16",
        (
            ("time_sampling", "normal t"),
            ("loss", "normal t"),
        ),
    ),
    Bug(
        "A6",
        "the noise is multiplied by x_0 too",
        "add sqrt(1 - alpha_bar[t]) * noise: the noise does not depend on the data",
        "blt2114/twisted_diffusion_sampler 3",
        (("marginal", "noise by state"),),
    ),
    Bug(
        "A7",
        "variance-preserving mixing, with the data scaled down, in a variance-exploding process",
        "x_t = x_0 + sigma * noise, with no factor of x_0",
        "diffusers 253",
        (
            ("marginal", "x_0: scaled down"),
            ("scheduler", "marginal scaled down"),
        ),
    ),
    Bug(
        "A8",
        "the data are noised to one level, and denoised from another",
        "begin the loop at the level to which the data were noised",
        "CompVis/stable-diffusion 533, InvokeAI 1946",
        (("step", "start at another level"),),
    ),
    Bug(
        "A9",
        "the data are brought to [−1, 1] twice, or after the noise was added",
        "x_0 = 2 * images - 1, once, before any noise",
        "imagen-pytorch 160, DALLE2-pytorch 102",
        (
            ("marginal", "range twice"),
            ("marginal", "range after noise"),
        ),
    ),
    Bug(
        "A10",
        "the table keeps ᾱ_0 = 1, of the clean data, and divides by 1 − ᾱ_0 = 0",
        "leave the first value out: alpha_bar = cumprod(1 - betas) starts with 1 - betas[0]",
        "MONAI GenerativeModels 489",
        (
            ("schedule", "keeps clean"),
            ("posterior", "keeps clean"),
            ("step", "keeps clean"),
            ("marginal", "keeps clean"),
            ("scheduler", "keeps clean"),
        ),
    ),
    Bug(
        "A11",
        "ᾱ_{t−1} is padded on the wrong side",
        "alpha_bar_prev = cat([1, alpha_bar[:-1]])",
        "denoising-diffusion-pytorch 18",
        (
            ("posterior", "padded right"),
            ("posterior", "next for previous"),
            ("step", "padded right"),
            ("step", "next for previous"),
            ("schedule", "padded right"),
        ),
    ),
    Bug(
        "A12",
        "sampling starts below T",
        "begin at t = T: with spacing trailing, or linspace(T − 1, 0, N)",
        "diffusers 2585, 3664",
        (
            ("step", "late start"),
            ("schedule", "late start"),
            ("schedule", "signal left at the end"),
        ),
    ),
    Bug(
        "A13",
        "T is another, and the range of β is kept: the end is not noise",
        "scale the range of β by 1000/T, or take a schedule that is made for any T",
        "tiny-diffusion 4, diffusers 12341",
        (("schedule", "ends before noise"),),
    ),
    Bug(
        "A14",
        "σ′(t) misses a factor",
        "σ′ = ½·(β_min + (β_max − β_min)·t)·(σ + 1/σ)",
        "deepinv 1343",
        (
            ("schedule", "slope by a factor"),
            ("step", "slope by a factor"),
        ),
    ),
    Bug(
        "A15",
        "a learned range interpolates the variances, not their logarithms",
        "exp(part * log(beta) + (1 - part) * log(beta_tilde))",
        "diffusers 2090, 3006",
        (
            ("posterior", "linear in variance"),
            ("step", "linear in variance"),
            ("step", "variance of one step"),
        ),
    ),
    Bug(
        "A16",
        "the root of a logarithm: a log-variance taken for a variance",
        "std = exp(0.5 * log_variance)",
        "diffusers 14569",
        (("step", "never finite"), ("posterior", "never finite")),
    ),
    Bug(
        "A17",
        "the min-SNR weight is clamped the wrong way",
        "weight = clamp(snr, max=gamma)/snr for a model that predicts eps",
        "denoising-diffusion-pytorch 363",
        (
            ("weighting", "clamped the wrong way"),
            ("loss", "clamped the wrong way"),
        ),
    ),
    Bug(
        "A18",
        "weights and errors are multiplied in all pairs: mean(w)·mean(error)",
        "bring both to the shape (B,) before they are multiplied",
        "bayesflow 787",
        (("loss", "weights averaged"),),
    ),
    Bug(
        "A19",
        "the weight is infinite, or NaN, where SNR = 0",
        "write it without a division by the SNR, or clamp the SNR from below",
        "kohya sd-scripts 1263, Min-SNR-Diffusion-Training 4",
        (
            ("weighting", "not finite without signal"),
            ("loss", "weight not finite"),
        ),
    ),
    Bug(
        "A20",
        "the loss asks for x_t where the model predicts x_0",
        "compare the model's answer with x_0",
        "irom-princeton/dppo 14",
        (("loss", "asks for x_t"),),
    ),
    Bug(
        "A21",
        "the loss asks for ε where the model predicts v",
        "compare the model's answer with v = √ᾱ_t·ε − √(1 − ᾱ_t)·x_0",
        "diffusers 1429",
        (("loss", "asks for eps"),),
    ),
    Bug(
        "A22",
        "the embedding runs over the batch, not over the items' own t",
        "embed each t alone: angles = t[:, None] * rates[None, :]",
        "gmongaras/Diffusion_models_from_scratch 10",
        (("embedding", "depends on the batch"),),
    ),
    Bug(
        "A23",
        "the model is told an index where a timestep is meant",
        "call model(x, timesteps[i]), not model(x, i)",
        "Stability-AI/stablediffusion 226",
        (("step", "index for t"),),
    ),
    Bug(
        "A24",
        "DDIM takes ᾱ_{t−1} where ᾱ_t is meant: the last pair is (0, 0), and divides by 0",
        "pair each t with the next: zip(times, [*times[1:], -1])",
        "denoising-diffusion-pytorch 81",
        (("step", "not finite at the end"), ("step", "leads to itself"), ("step", "uses ᾱ_prev")),
    ),
    Bug(
        "A25",
        "the model predicts x_0, and its answer is taken for ε",
        "turn the answer into ε first: (x_t − √ᾱ_t·x̂_0)/√(1 − ᾱ_t)",
        "diffusers 1486",
        (("step", "takes it for eps"),),
    ),
    Bug(
        "A26",
        "the previous t is t − T//N, whatever the steps are",
        "take the next of the steps that are visited",
        "diffusers 9261, 11347, 12633",
        (("step", "stride"), ("step", "t-1")),
    ),
    Bug(
        "A27",
        "the second stage of Heun's step is taken at the wrong σ",
        "divide by sigma_next, and ask the model there",
        "diffusers 1512",
        (("step", "second stage"),),
    ),
    Bug(
        "A28",
        "the last step goes wrong: σ repeated, the order not lowered, or a second stage at σ = 0",
        "end with one step of first order from the least σ to 0",
        "diffusers 6477, 6953, 9007",
        (
            ("schedule", "last σ repeated"),
            ("schedule", "no zero at the end"),
            ("step", "last step"),
            ("step", "last σ repeated"),
        ),
    ),
    Bug(
        "A29",
        "the last step leads to ᾱ_1 and not to ᾱ_0 = 1",
        "let the last step end at alpha_bar = 1, so that it returns x̂_0",
        "ControlNet 587, stablediffusion 345",
        (("step", "end"),),
    ),
    Bug(
        "A30",
        "the loop goes from clean to noisy",
        "visit the steps from T down to 1",
        "nathan-barry/tiny-diffusion 2",
        (("step", "rising t"),),
    ),
    Bug(
        "A31",
        "the noise of a Langevin step lacks √(2·step)",
        "x + step * score(x) + sqrt(2 * step) * noise",
        "google-research/ibc 6",
        (("langevin", "noise by a factor"),),
    ),
    Bug(
        "A32",
        "the classifier's gradient is taken at x_t, where the mean of x_{t−1} is meant",
        "mean + scale * variance * gradient(mean, t)",
        "openai/guided-diffusion 51",
        (("guidance", "gradient at x_t"),),
    ),
    Bug(
        "A33",
        "the decay of the average is overwritten",
        "keep `decay` as it was given, and use min(decay, warm-up)",
        "diffusers 1864",
        (("ema", "other decay"),),
    ),
    Bug(
        "A34",
        "x̂_0 is clipped at ±1, whatever the range of the data; or thresholded by its own maximum",
        "clip at the range of the data; threshold at max(1, quantile)",
        "MONAI GenerativeModels 494, diffusers 3003",
        (
            ("step", "clipped at 1"),
            ("step", "threshold changes nothing"),
        ),
    ),
    Bug(
        "A35",
        "low precision: 1 − ᾱ_t of a rounded table, or timesteps that are rounded to the same",
        "keep tables in float32 or float64, and cast the result; let timesteps be distinct",
        "diffusers 9004, 10740, 14213",
        (
            ("marginal", "low precision"),
            ("schedule", "duplicate timesteps"),
        ),
    ),
)
_BY_KEY = {key: bug for bug in BUGS for key in bug.keys}


# What is wrong beside the catalogue: its name, and what to write.
_DRAW = "draw torch.randn_like(x) in every call, for every item and number"
_OTHERS = {
    "shared noise": ("items or numbers share their noise", _DRAW),
    "same noise": ("the same noise in each call", "set no seed inside the function"),
    "old noise": ("noise is used twice", _DRAW),
    "noise of another law": ("the noise is not normal", _DRAW),
    "noise at the end": ("noise is added at the last step", "leave it out where s is clean data"),
    "constant": ("a constant is added", "leave it out: no law here has one"),
    "mixed t": (
        "items of one batch do not each get their own t",
        "index the table by t, one for each item: betas[t][:, None]",
    ),
    "not optional": (
        "an argument with a default cannot be left out",
        "draw it where it is None: noise = torch.randn_like(x_0) if noise is None else noise",
    ),
    "other noise": (
        "the noise that is returned is not the noise that was mixed in",
        "draw it once: noise = torch.randn_like(x_0), and use and return that",
    ),
    "no spread": (
        "what stands beside the mean is no spread",
        "return a standard deviation, a variance or its logarithm that grows with t",
    ),
    "no sum": ("the result is no sum of what is handed over", "look for a product or a quotient"),
    "never finite": ("NaN or infinity", "look for a division by 0, or the root of a negative"),
    "not finite": ("NaN or infinity", "look for a division by 0, or the root of a negative"),
    "start with other noise": ("x_T has another size", "start from torch.randn(shape)"),
    "first order": (
        "earlier answers are weighted so that nothing is gained",
        "look at the weights of the answers before",
    ),
    "asked in two orders": (
        "the model is asked with its arguments in two orders",
        "call it as model(x, t) everywhere",
    ),
    "items mixed": (
        "what becomes of an item depends on the others of its batch",
        "take maxima and quantiles by item, with dim=1 of x.flatten(1)",
    ),
    "no steps": ("there are no steps", "let set_timesteps(n) make n of them"),
    "adds noise": (
        "it adds noise, so it draws x_{t−1} and gives no moments",
        "check it as a step: check.step, or --as step=…",
    ),
    "never clipped": ("x̂_0 is not clipped", "clip x̂_0 before the step uses it"),
    "levels not stated": ("other levels are visited", "hand over the levels that you state"),
    "another number of steps": ("other steps are visited", "look at how the steps are spaced"),
    "other t drawn": (
        "the t that it draws are not the levels that it knows",
        "draw t with torch.randint(0, T, (n,)) and read tables at t; from 1 to T, at t - 1",
    ),
    "flow backwards": ("the target points backwards", "ask for dx/dt of the x_t that is shown"),
}


def named(role: str, kind: str, explains: str, name: str = "", remedy: str = "") -> Diagnosis:
    """What is wrong in a function, under the number of the catalogue where it has one."""
    bug = _BY_KEY.get((role, kind))
    if bug is not None:
        return Diagnosis(bug.id, bug.name, explains, bug.remedy)
    usual, mend = _OTHERS.get(kind, (kind, "make it what the law says"))
    id_ = f"{role}/{kind}".replace(" ", "-")
    return Diagnosis(id_, name or usual, explains, remedy or mend)
