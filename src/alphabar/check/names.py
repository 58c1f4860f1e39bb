"""What the usual names in diffusion code stand for: what a function is to be, and what it takes.

They say what to check a function as. Whether it is right, and what is wrong with it, they do not.

A term of the trade, such as `q_sample` or `p_losses`, is taken at its word: what breaks the law of
its role is a bug, with a known cause or without. A vague name, such as `interpolate` or
`perceptual_loss`, is used for other things as well: there the law alone proves nothing, as a
function that is meant to be something else breaks it rightly. It takes one known change of the law
that explains all that was measured; else the function is `unchecked`, until the person says what it
is. Where it cannot even be called as what it may mean, it is not recognised.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

# T, the number of steps; n_steps too, but not train_steps, which are of an optimiser.
STEPS_NAME = re.compile(
    r"T|n_?T|((n|num|max|total|number_of)_)?((diffusion|train|noise|noising)_)?time_?steps?|"
    r"((n|num|max|total|number_of)_)?((diffusion|noise|noising)_)?steps?"
)
MODEL_NAME = re.compile(
    r"(.*_)?(model|net|network|nn|unet|denoiser|denoise_fn|predictor|theta|score|score_fn)",
    re.IGNORECASE,
)


class Meaning(NamedTuple):
    """The roles that a name in lower case with underscores may mean, the likeliest first."""

    pattern: str
    roles: tuple[str, ...]
    is_vague: bool = False


# Ways to sample, as in ddim_sampler and sample_ddim.
_METHODS = (
    r"(ddim|ddpm|edm|ancestral|euler(_(maruyama|ancestral|a))?|heun|rk_?\d*|midpoint|dpm\w*|unipc|"
    r"p?lms|pndm|pc|em|karras|reverse|backward|sde|ode|flow|rf|rectified_flow|c?fm|ald|ve|vp)"
)
_LOSSES = (
    r"(p|noise|noise_(estimation|pred|prediction|matching)|diffusion|ddpm|ddim|train|training|"
    r"denoise|denoising|(denoising_)?score(_matching)?|dsm|simple|eps|epsilon|x_?0|v|velocity|edm|"
    r"flow|(conditional_)?flow_matching|rectified_flow|c?fm|rf|min_snr|weighted|get|compute|calc|calculate)"
)

_NAMES = (
    Meaning(r"(.*_)?(ema|exponential_moving_average)(_.*)?", ("ema",)),
    Meaning(
        r"(.*_)?(sinusoid(al)?|time|timesteps?)_"
        r"(.*_)?(emb|embed|embs|embedding|embeddings|encoding|encodings|encoder|features)(_.*)?",
        ("embedding",),
    ),
    Meaning(  # of a place in a text or a picture, too
        r"(.*_)?(fourier|pos(itional|ition)?|step)_"
        r"(.*_)?(emb|embed|embs|embedding|embeddings|encoding|encodings|encoder|features)(_.*)?",
        ("embedding",),
        is_vague=True,
    ),
    Meaning(r"(.*_)?langevin(_.*)?", ("langevin",)),
    Meaning(r"(.*_)?corrector(_.*)?|correct", ("langevin",), is_vague=True),
    Meaning(
        r"cfg(_.*)?|(.*_)?classifier_(free|guid\w*)(_.*)?|(.*_)?guid(ed|ance)(_.*)?|"
        r"(.*_)?sampl(e|er|ing)_(cfg|classifier)(_.*)?",
        ("guidance",),
    ),
    Meaning(r"(.*_)?(cfg|classifier)(_.*)?", ("guidance",), is_vague=True),
    Meaning(
        r"(?!(init|load|save|reset|set|add)_)(.*_)?(snr|loss|lambda|p2)_weight(s|ing)?(_.*)?|"
        r"min_snr(_.*)?",
        ("weighting",),
    ),
    Meaning(
        r"(?!(init|load|save|reset|set|add)_)(.*_)?weight(s|ing)?(_.*)?",
        ("weighting",),
        is_vague=True,
    ),
    Meaning(
        r"(sample|draw|random|generate)_(random_|diffusion_)?(t|ts|time|times|timesteps?)",
        ("time_sampling", "step"),
    ),
    Meaning(r"times", ("time_sampling", "step"), is_vague=True),
    Meaning(r"(.*_)?(nll|vlb|bpd|prior_kl|kl_term)(_.*)?", ("likelihood",)),
    Meaning(
        r"(.*_)?(likelihood|log_prob|elbo|bound)(_.*)?",
        ("likelihood",),
        is_vague=True,
    ),
    Meaning(rf"({_LOSSES}_)*loss(es)?(_(fn|func|function|simple))?", ("loss",)),
    Meaning(r"(.*_)?(loss|losses)(_.*)?", ("loss",), is_vague=True),
    Meaning(
        r"((q|ddpm|diffusion|gaussian|get|compute)_)*posterior(_(mean|var|log_var|std|mu|step).*)?",
        ("posterior",),
    ),
    Meaning(r"(.*_)?posterior(_.*)?|p_mean_var(iance)?", ("posterior",), is_vague=True),
    Meaning(
        r"p_sample(_(one_)?step|_ddim|_ddpm)?|remove_noise|denoise(_one)?_step|"
        r"sample_prev(ious)?(_.*)?|reverse_diffusion_step|(.*_)?"
        r"(ddim|ddpm|p|denoise|denoising|reverse|backward|sampling|sampler|ancestral|euler|heun)"
        r"_step",
        ("step", "sampler"),
    ),
    Meaning(r"denoise(_one)?", ("step", "sampler"), is_vague=True),
    Meaning(
        r"(forward|q|noising|noise|diffusion|diffuse|forward_diffusion|add_noise)_(one_)?step",
        ("transition", "marginal"),
    ),
    Meaning(
        r"(forward|diffusion|forward_diffusion|noising)_process|forward_chain|q_chain",
        ("transition", "marginal"),
    ),
    Meaning(
        r"q_sample|(.*_)?add_(gaussian_)?noise(_.*)?|forward_diffusion(_sample)?|noisify|noising|"
        r"noise_(images?|data|samples?|x)|q_xt_x0|q_forward|diffusion_forward|"
        r"forward_(nois(e|ing)|sample|diffuse)|(apply|get|make)_nois(e|y)(_.*)?|to_noisy|"
        r"(ve|vp)_sample",
        ("marginal", "transition"),
    ),
    # Data are corrupted, mixed and interpolated for other ends too.
    Meaning(
        r"(corrupt|perturb|diffuse)(_.*)?|(.*_)?mix|(.*_)?(interpol(ate|ation|ant)|lerp)|"
        r"(sample|compute|get)_(x_?t|(.*_)?path|conditional_pt)|(.*_)?(probability|prob)_path",
        ("marginal",),
        is_vague=True,
    ),
    Meaning(
        r"q_mean_(std|var|variance)|q_x_?t(_x_?0)?|(get_)?(velocity|v_target)|"
        r"(q_)?marginal(_prob)?(_mean_(std|sigma|var|variance))?",
        ("marginal",),
    ),
    # A numeric part of it, such as marginal_prob_std, is no marginal.
    Meaning(r"(.*_)?marginal(_(sample|dist|distribution))?", ("marginal",), is_vague=True),
    Meaning(
        rf"(.*_)?{_METHODS}_sampl(e|er|es|ing)(_.*)?|sampl(e|er|ing)_{_METHODS}(_.*)?|"
        r"p_sampl(e|er|ing)(_.*)?|"
        r"sampl(e|er|ing)(_loop|_images?|_from_noise|_all)?|"
        r"generate(_(samples?|images?|new_images?))?|(.*_)?sampl(e|ing)_loop(_.*)?|"
        r"(reverse|backward|denoising)_(process|diffusion|loop)",
        ("sampler", "step"),
    ),
    Meaning(
        r".*betas?(_.*)?|(.*_)?(noise|linear|cosine|quad|sigmoid)_schedules?(_.*)?", ("schedule",)
    ),
)
# What turns ε, x_0 and v into one another: nothing is checked as that.
_CONVERSION = re.compile(
    r"(pred|predict|get|compute|calc|calculate)_(.*_)?(x_?0|x_?start|x_?prev|start|noise|eps|epsilon|"
    r"v|score|velocity|original)(_from_.*|_hat)?|"
    r"(x_?0|x_?start|start|noise|eps|epsilon|v|score)_(from|to)_.*"
)
# What is said of each item beside it, such as its class.
LABEL_NAME = re.compile(r"y|(class_?)?labels?|class(es|_ids?|_idx)|cls")
# Whose process is one in continuous time, and what a model of it predicts.
_PROCESSES: tuple[tuple[str, dict[str, str]], ...] = (
    (
        r"(.*_)?(flow|velocity|rectified|c?fm|interpol(ate|ation|ant)|lerp)(_.*)?",
        {"scale": "flow", "predicts": "flow"},
    ),
    (r"(.*_)?(edm|karras)(_.*)?", {"scale": "ve", "predicts": "x_0"}),
    (
        r"(.*_)?(score|ncsn|smld|ve_?sde|marginal_prob_std)(_.*)?",
        {"scale": "ve", "predicts": "score"},
    ),
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
    found = _meaning(_words(name))
    return () if found is None else found.roles


def is_vague(name: str) -> bool:
    """Whether a name is used for other things as well."""
    found = _meaning(_words(name))
    return found is not None and found.is_vague


def is_conversion(name: str) -> bool:
    """Whether a name is of what turns ε, x_0 and v into one another, and of no role."""
    return not roles_of(name) and _CONVERSION.fullmatch(_words(name)) is not None


def process_of(*names: str) -> dict[str, str]:
    """The process in continuous time that the first of these names to tell any tells."""
    for name in names:
        for pattern, facts in _PROCESSES:
            if re.fullmatch(pattern, _words(name)):
                return facts
    return {}


def _words(name: str) -> str:
    """In lower case with underscores."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def _meaning(words: str) -> Meaning | None:
    if re.match("(plot|show|save|load|print|log|visuali[sz]e|animate|test)_", words):
        return None
    return next((m for m in _NAMES if re.fullmatch(m.pattern, words)), None)


def gives_of(name: str) -> str | None:
    """What a function of this name gives of q(x_t | x_0), if not a sample."""
    return next((v for k, v in _GIVES.items() if re.fullmatch(k, name.lower())), None)


def prediction(words: str) -> str | None:
    """What a model predicts, in the words of somebody else's option."""
    return _PREDICTIONS.get(words.lower())
