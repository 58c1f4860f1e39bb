"""What the usual names in diffusion code stand for: what a function is to be, and what it takes.

They say what to check a function as. Whether it is right, and what is wrong with it, they do not.
"""

import re
from collections.abc import Mapping

# T, the number of steps; n_steps too, but not train_steps, which are of an optimiser.
STEPS_NAME = re.compile(
    r"T|n_?T|((n|num|max|total|number_of)_)?((diffusion|train|noise|noising)_)?time_?steps?|"
    r"((n|num|max|total|number_of)_)?((diffusion|noise|noising)_)?steps?"
)
MODEL_NAME = re.compile(
    r"(.*_)?(model|net|network|nn|unet|denoiser|denoise_fn|predictor|theta|score|score_fn)",
    re.IGNORECASE,
)

# A name in lower case with underscores, and the roles that it may mean, the likeliest first.
_NAMES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"(.*_)?(ema|exponential_moving_average)(_.*)?", ("ema",)),
    (
        r"(.*_)?(sinusoid(al)?|fourier|pos(itional|ition)?|time|timesteps?|step)_"
        r"(.*_)?(emb|embed|embs|embedding|embeddings|encoding|encodings|encoder|features)(_.*)?",
        ("embedding",),
    ),
    (r"(.*_)?(langevin|corrector)(_.*)?|correct", ("langevin",)),
    (r"(.*_)?(cfg|classifier|guided|guidance)(_.*)?", ("guidance",)),
    (
        r"(?!(init|load|save|reset|set|add)_)(.*_)?weight(s|ing)?(_.*)?|min_snr(_.*)?",
        ("weighting",),
    ),
    (
        r"(sample|draw|random|generate)_(random_|diffusion_)?(t|ts|time|times|timesteps?)|times",
        ("time_sampling", "step"),
    ),
    (r"(.*_)?(nll|likelihood|log_prob|vlb|elbo|bpd|prior_kl|bound|kl_term)(_.*)?", ("likelihood",)),
    (r"(.*_)?(loss|losses)(_.*)?", ("loss",)),
    (r"(.*_)?posterior(_.*)?", ("posterior",)),
    (
        r"p_sample(_step|_ddim|_ddpm)?|remove_noise|denoise(_one)?(_step)?|(.*_)?"
        r"(ddim|ddpm|p|denoise|denoising|reverse|backward|sampling|sampler|ancestral|euler)_step",
        ("step", "sampler"),
    ),
    (
        r"(forward|q|noising|noise|diffusion|diffuse|forward_diffusion|add_noise)_(one_)?step",
        ("transition", "marginal"),
    ),
    (r"(forward|diffusion)_process|forward_chain|q_chain", ("transition", "marginal")),
    (
        r"q_sample|(.*_)?add_noise(_.*)?|forward_diffusion(_sample)?|diffuse(_.*)?|perturb(_.*)?|"
        r"noise_(images?|data|samples?|x)|noisify|q_xt_x0|forward_noise|forward_sample|"
        r"(apply|get)_nois(e|y)(_.*)?|to_noisy|corrupt(_.*)?|(.*_)?mix|ve_sample|vp_sample",
        ("marginal", "transition"),
    ),
    (
        r"(.*_)?marginal(_.*)?|q_mean_(std|var|variance)|q_x_?t(_x_?0)?|(get_)?(velocity|v_target)",
        ("marginal",),
    ),
    (
        r"(p|ddim|ddpm|ancestral|euler|heun|reverse|sde|ode|flow)_sampl(e|er|ing)(_.*)?|"
        r"sampl(e|er|ing)(_loop|_images?|_ddim|_ddpm|_from_noise|_all)?|"
        r"generate(_(samples?|images?|new_images?))?|(.*_)?sampl(e|ing)_loop(_.*)?|"
        r"(reverse|backward|denoising)_(process|diffusion|loop)",
        ("sampler", "step"),
    ),
    (r".*betas?(_.*)?|(.*_)?(noise|linear|cosine|quad|sigmoid)_schedules?(_.*)?", ("schedule",)),
)
# What the result of some is, by name.
_GIVES: Mapping[str, str] = {
    r".*mean_(std|sigma)|marginal_prob": "mean_std",
    r".*mean_var(iance)?": "mean_variance",
    r"(get_)?(velocity|v_target)": "v",
}
_PREDICTIONS: Mapping[str, str] = {
    **dict.fromkeys(("epsilon", "eps", "noise", "pred_noise"), "eps"),
    **dict.fromkeys(("sample", "x_0", "x0", "pred_x0", "x_start", "pred_x_0", "start_x"), "x_0"),
    **dict.fromkeys(("v_prediction", "v", "pred_v", "velocity"), "v"),
}


def roles_of(name: str) -> tuple[str, ...]:
    """What a function of this name may be."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
    if re.match("(plot|show|save|load|print|log|visuali[sz]e|animate|test)_", words):
        return ()
    found = (roles for pattern, roles in _NAMES if re.fullmatch(pattern, words))
    return next(found, ())


def gives_of(name: str) -> str | None:
    """What a function of this name gives of q(x_t | x_0), if not a sample."""
    return next((v for k, v in _GIVES.items() if re.fullmatch(k, name.lower())), None)


def prediction(words: str) -> str | None:
    """What a model predicts, in the words of somebody else's option."""
    return _PREDICTIONS.get(words.lower())
