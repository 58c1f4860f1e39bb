"""What the functions of a diffusion process are to do: laws, and the usual ways to say them."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from alphabar.check.explain import Convention
from alphabar.check.formula import Formula, Process
from alphabar.check.linear import NOISE, Role, Supply

F = Formula.of


def _normal(n: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(n, *shape, generator=generator)


def _forward(state: str) -> Callable[..., Supply]:
    def supply(
        process: Process, t: int, n: int, shape: tuple[int, ...], generator: torch.Generator
    ) -> Supply:
        x = 2 * _normal(n, shape, generator)
        return Supply({state: x, NOISE: _normal(n, shape, generator)}, {state: x})

    return supply


MARGINAL = Role(
    "marginal",
    "q(x_t | x_0) = N(√ᾱ_t·x_0, (1 − ᾱ_t)·I)",
    "x_t",
    ("x_0",),
    NOISE,
    _forward("x_0"),
    (
        Convention("variance-preserving", {"x_0": F(abar=0.5), NOISE: F(noise=0.5)}),
        Convention(
            "variance-exploding (x_t/√ᾱ_t)", {"x_0": F(), NOISE: F(noise=0.5, abar=-0.5)}, False
        ),
    ),
)
TRANSITION = Role(
    "transition",
    "q(x_t | x_{t−1}) = N(√(1 − β_t)·x_{t−1}, β_t·I)",
    "x_t",
    ("x_{t−1}",),
    NOISE,
    _forward("x_{t−1}"),
    (
        Convention("variance-preserving", {"x_{t−1}": F(alpha=0.5), NOISE: F(beta=0.5)}),
        Convention(
            "variance-exploding (x_t/√ᾱ_t)", {"x_{t−1}": F(), NOISE: F(beta=0.5, abar=-0.5)}, False
        ),
        Convention(
            "the whole chain from x_0",
            {"x_{t−1}": F(alpha=0.5), NOISE: F(beta=0.5)},
            False,
            is_chain=True,
        ),
    ),
)
_MEAN = {
    "x_0": F(beta=1, noise=-1, before={"abar": 0.5}),
    "x_t": F(alpha=0.5, noise=-1, before={"noise": 1}),
}


def _posterior(
    process: Process, t: int, n: int, shape: tuple[int, ...], generator: torch.Generator
) -> Supply:
    both = {name: _normal(n, shape, generator) for name in ("x_0", "x_t")}
    return Supply(both, both)


POSTERIOR = Role(
    "posterior",
    "q(x_{t−1} | x_t, x_0) = N(μ̃_t, β̃_t·I)",
    "μ̃_t",
    ("x_0", "x_t"),
    None,
    _posterior,
    (Convention("variance-preserving", {**_MEAN, NOISE: F(0.0)}),),
)


class Answering(nn.Module):
    """A model that answers as it was told, and keeps what it was asked."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = answer
        self.asked: list[tuple[object, ...]] = []

    def forward(self, *values: object, **named: object) -> Tensor:
        """The answer, whatever the question."""
        self.asked.append((*values, *named.values()))
        return self.answer.clone()


def _step(predicts: str) -> Callable[..., Supply]:
    """The oracle step: a true x_0 and ε in; what comes out is known exactly, without a network."""

    def supply(
        process: Process, t: int, n: int, shape: tuple[int, ...], generator: torch.Generator
    ) -> Supply:
        # Within ±1: many clip what they take for data.
        x_0 = 1.6 * torch.rand(n, *shape, generator=generator) - 0.8
        eps = _normal(n, shape, generator)
        at = torch.tensor([t])
        a, b = (f.at(process, at).float() for f in (F(abar=0.5), F(noise=0.5)))
        answer = {"eps": eps, "x_0": x_0, "v": a * eps - b * x_0}[predicts]
        slots = {"model": Answering(answer), "answer": answer, "x_t": a * x_0 + b * eps}
        return Supply(slots, {"x_0": x_0, "ε": eps})

    return supply


def step(predicts: str) -> Role:
    """One step of a sampler, t → t − 1."""
    x_0, kept = F(before={"abar": 0.5}), F(alpha=0.5, noise=-0.5, before={"noise": 1})
    tilde = F(beta=0.5, noise=-0.5, before={"noise": 0.5})
    return Role(
        "step",
        "of a true x_0 and ε the step makes N(√ᾱ_{t−1}·x_0, (1 − ᾱ_{t−1})·I), or DDPM's with β",
        "x_{t−1}",
        ("x_t",),
        None,
        _step(predicts),
        (
            Convention("DDPM with variance β̃", {"x_0": x_0, "ε": kept, NOISE: tilde}),
            Convention("DDIM", {"x_0": x_0, "ε": F(before={"noise": 0.5}), NOISE: F(0.0)}),
            Convention("DDPM with variance β", {"x_0": x_0, "ε": kept, NOISE: F(beta=0.5)}, False),
        ),
        lands=True,
    )
