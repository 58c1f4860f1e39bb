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
        (("transition", "uniform noise"), ("marginal", "uniform noise"), ("loss", "uniform noise")),
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
        "A6",
        "the noise is multiplied by x_0 too",
        "add sqrt(1 - alpha_bar[t]) * noise: the noise does not depend on the data",
        "blt2114/twisted_diffusion_sampler 3",
        (("marginal", "noise by state"),),
    ),
    Bug(
        "A11",
        "ᾱ_{t−1} is padded on the wrong side",
        "alpha_bar_prev = cat([1, alpha_bar[:-1]])",
        "denoising-diffusion-pytorch 18",
        (("posterior", "x_0: abar +2"), ("posterior", "x_t: noise +2")),
    ),
    Bug(
        "A12",
        "sampling starts below T",
        "begin at t = T: with spacing trailing, or linspace(T − 1, 0, N)",
        "diffusers 2585, 3664",
        (("step", "late start"),),
    ),
    Bug(
        "A16",
        "the root of a logarithm: a log-variance taken for a variance",
        "std = exp(0.5 * log_variance)",
        "diffusers 14569",
        (("step", "never finite"), ("posterior", "never finite")),
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
        "A23",
        "the model is told an index where a timestep is meant",
        "call model(x, timesteps[i]), not model(x, i)",
        "Stability-AI/stablediffusion 226",
        (("step", "index for t"),),
    ),
    Bug(
        "A24",
        "the steps are paired one off: the last leads from a level to itself, and divides by 0",
        "pair each t with the next: zip(times, [*times[1:], -1])",
        "denoising-diffusion-pytorch 81",
        (("step", "not finite at the end"),),
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
)
_BY_KEY = {key: bug for bug in BUGS for key in bug.keys}


def named(role: str, kind: str, explains: str, name: str = "", remedy: str = "") -> Diagnosis:
    """What is wrong in a function, under the number of the catalogue where it has one."""
    bug = _BY_KEY.get((role, kind))
    if bug is not None:
        return Diagnosis(bug.id, bug.name, explains, bug.remedy)
    return Diagnosis(f"{role}/{kind}".replace(" ", "-"), name or kind, explains, remedy)
