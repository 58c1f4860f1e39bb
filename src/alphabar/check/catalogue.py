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
        (("transition", "uniform noise"), ("marginal", "uniform noise")),
    ),
    Bug(
        "A2",
        "β where √β is meant",
        "multiply the noise by betas[t].sqrt(): β is its variance",
        "acids-ircam/diffusion_models 8",
        (("transition", "ε: no root of beta"),),
    ),
    Bug(
        "A3",
        "an argument that is accepted and never used",
        "use the noise that is handed over, or take the argument away",
        "acids-ircam/diffusion_models 8",
        (("transition", "ignored noise"), ("marginal", "ignored noise")),
    ),
    Bug(
        "A6",
        "the noise is multiplied by x_0 too",
        "add sqrt(1 - alpha_bar[t]) * noise: the noise does not depend on the data",
        "blt2114/twisted_diffusion_sampler 3",
        (("marginal", "noise by state"),),
    ),
)
_BY_KEY = {key: bug for bug in BUGS for key in bug.keys}


def named(role: str, kind: str, explains: str, name: str = "", remedy: str = "") -> Diagnosis:
    """What is wrong in a function, under the number of the catalogue where it has one."""
    bug = _BY_KEY.get((role, kind))
    if bug is not None:
        return Diagnosis(bug.id, bug.name, explains, bug.remedy)
    return Diagnosis(f"{role}/{kind}".replace(" ", "-"), name or kind, explains, remedy)
