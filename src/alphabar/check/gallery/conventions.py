"""What has been reported as a bug and is none, with the derivation that shows it."""

from typing import NamedTuple


class Convention(NamedTuple):
    """Something that looks wrong and is not: why, and where it was taken for a bug."""

    id: str
    name: str
    why: str
    seen: str


CONVENTIONS = (
    Convention(
        "N1",
        "The grid of the cosine schedule",
        "With `steps = T + 1` points, `x = linspace(0, T, steps)` has x_t = t for t = 0 … T, and "
        "x_t/T is t/T, the paper's grid. The variant `linspace(0, steps, steps)/steps` has x_t = "
        "t·steps/(steps − 1), and divided by `steps` it is t/(steps − 1) = t/T again: both ends "
        "were stretched by the same factor. The tables are equal to the last rounding.",
        "Reported in denoising-diffusion-pytorch 19.",
    ),
    Convention(
        "N2",
        "The guidance scale counts from 0 or from 1",
        "With ε_u unconditional and ε_c conditional, (1 + w)·ε_c − w·ε_u = ε_u + (1 + w)·(ε_c − "
        "ε_u): the same line through both, and s = 1 + w. No guidance is w = 0 or s = 1; only the "
        "number that is typed differs.",
        "Reported in stable-dreamfusion 32, diffusers 5882.",
    ),
    Convention(
        "N3",
        "The mean of the reverse step, from ε or from x̂_0",
        "μ̃ = √ᾱ_{t−1}·β_t/(1 − ᾱ_t)·x̂_0 + √(1 − β_t)·(1 − ᾱ_{t−1})/(1 − ᾱ_t)·x_t. Put in x̂_0 = "
        "(x_t − √(1 − ᾱ_t)·ε̂)/√ᾱ_t and √ᾱ_t = √ᾱ_{t−1}·√(1 − β_t): what multiplies x_t is (β_t + "
        "(1 − β_t)·(1 − ᾱ_{t−1}))/((1 − ᾱ_t)·√(1 − β_t)) = 1/√(1 − β_t), as β_t + (1 − β_t) − ᾱ_t "
        "= 1 − ᾱ_t, and what multiplies ε̂ is −β_t/(√(1 − ᾱ_t)·√(1 − β_t)). So μ̃ = (x_t − "
        "β_t/√(1 − ᾱ_t)·ε̂)/√(1 − β_t). They differ once x̂_0 is clipped, since ε̂ is not clipped "
        "with it.",
        "Reported in hojonathanho/diffusion 2.",
    ),
    Convention(
        "N4",
        "β or β̃ as the variance of the reverse step",
        "The variance of q(x_{t−1} | x_t) lies between β̃_t = β_t·(1 − ᾱ_{t−1})/(1 − ᾱ_t), exact "
        "where x_0 is one point, and β_t, exact where x_0 ~ N(0, I): there Var[x_{t−1} | x_t] = "
        "β̃_t + ᾱ_{t−1}·β_t²/(1 − ᾱ_t)²·Var[x_0 | x_t] with Var[x_0 | x_t] = 1 − ᾱ_t, and β_t/(1 "
        "− ᾱ_t)·(1 − ᾱ_{t−1} + ᾱ_{t−1}·β_t) = β_t, since 1 − ᾱ_{t−1}·(1 − β_t) = 1 − ᾱ_t. Both "
        "tend to the same process as the steps grow short.",
        "See Ho et al. 2020, section 3.2.",
    ),
    Convention(
        "N5",
        "`beta_prod_t` is 1 − ᾱ_t, not the product of the β",
        "The name misleads and the number is right: `beta_prod_t = 1 - alpha_prod_t` is the "
        "variance of the noise in x_t, because 1 − ᾱ_t = (1 − β_t)·(1 − ᾱ_{t−1}) + β_t, step by "
        "step. The product of the β appears nowhere in the process.",
        "Reported in diffusers 9474.",
    ),
    Convention(
        "N6",
        "A sample that is scaled before the model sees it",
        "In the variance-exploding scale x = x_0 + σ·ε. A network that was trained on "
        "x_t = √ᾱ_t·x_0 + √(1 − ᾱ_t)·ε with σ² = (1 − ᾱ_t)/ᾱ_t is to be handed "
        "√ᾱ_t·x = x/√(1 + σ²), as ᾱ_t = 1/(1 + σ²); its ε̂ is the same in both scales. A scheduler "
        "that divides does what has to be done; doing it twice would be a bug.",
        "Reported in diffusers 7046.",
    ),
    Convention(
        "N7",
        "Flow time that runs the other way",
        "With x_t = (1 − t)·x_0 + t·ε the velocity is dx/dt = ε − x_0. With u = 1 − t, x_u = "
        "u·x_0 + (1 − u)·ε and dx/du = x_0 − ε: the sign of the velocity and the direction of "
        "integration turn over together, and the path is the same. It is a bug only where the "
        "loss takes one and the sampler the other.",
        "Papers on flow matching and on rectified flow write it both ways.",
    ),
    Convention(
        "N8",
        "The greatest β is 0.999",
        "The cosine schedule ends in ᾱ_T = 0, so its last β = 1 − ᾱ_T/ᾱ_{T−1} would be 1, and "
        "x̂_0 a division by √ᾱ_T = 0. β ≤ 0.999 keeps ᾱ_T at a thousandth of ᾱ_{T−1}: right, and "
        "fragile. There x̂_0 = (x_T − √(1 − ᾱ_T)·ε̂)/√ᾱ_T enlarges any error of ε̂ by 1/√ᾱ_T, "
        "thousands of times, unless x̂_0 is clipped or the model predicts x_0 or v.",
        "See Nichol & Dhariwal 2021, section 3.2.",
    ),
)
