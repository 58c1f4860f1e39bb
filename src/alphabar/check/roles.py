"""What the functions of a diffusion process are to do: laws, and the usual ways to say them."""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from alphabar.check.affine import Affine
from alphabar.check.explain import Convention
from alphabar.check.formula import Continuum, Formula, Process
from alphabar.check.linear import INSIDE, NOISE, POSTERIOR_MEAN, Role, Supply

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
    trains=True,
)
VELOCITY = Role(
    "marginal",
    "v = √ᾱ_t·ε − √(1 − ᾱ_t)·x_0",
    "v",
    ("x_0",),
    NOISE,
    _forward("x_0"),
    (Convention("velocity", {"x_0": F(-1.0, noise=0.5), NOISE: F(abar=0.5)}),),
    signed=True,
    trains=True,
)


def _scaled_down() -> Convention:
    preserving = MARGINAL.conventions[0]
    return preserving._replace(name="variance-preserving mixing", wrong="x_0: scaled down")


def exploding(has_table: bool) -> Role:
    """The marginal where the data keep their size; σ of a table, or read off what is measured."""
    law = MARGINAL.conventions[1]._replace(name="variance-exploding", is_usual=True)
    return MARGINAL._replace(
        law="q(x_t | x_0) = N(x_0, σ_t²·I)",
        conventions=(law, _scaled_down()),
        read=None if has_table else _by_ratio,
    )


def _by_ratio(at: Mapping[int, Affine], process: Process) -> Process:
    """The levels by the ratio of noise to signal."""
    return _read(at, process, _by_both)


def _by_signal(at: Mapping[int, Affine], process: Process) -> Process:
    """The levels by what is kept of x_0 alone."""
    return _read(at, process, _by_x_0)


def _read(
    at: Mapping[int, Affine], process: Process, log_snr: Callable[[float, float, bool], float]
) -> Process:
    found = torch.full((process.T,), math.nan, dtype=torch.float64)
    for i, one in at.items():
        x_0 = one.of["x_0"].value
        z = one.of[NOISE].value if NOISE in one.of else one.noise.value
        if x_0 > 0:
            found[i - 1] = log_snr(x_0, z, one.exact)
    assert isinstance(process, Continuum)
    return Continuum.at(process.label, found)


def _by_both(x_0: float, z: float, exact: bool) -> float:
    # An estimate of what multiplies x_0 is as uncertain as σ is large, where it must be 1.
    return -2 * math.log(max(abs(z / x_0 if exact else z), 1e-12))


def _by_x_0(x_0: float, z: float, exact: bool) -> float:
    # An estimate near 1 says little of 1 − ᾱ, and the noise beside it much.
    abar = 1 - z**2 if not exact and x_0**2 > 0.5 else x_0**2
    abar = min(max(abar, 1e-12), 1 - 2e-9)
    return math.log(abar) - math.log1p(-abar)


# Of a process in continuous time, whose schedule nobody has stated: α² + σ² = 1 all the same.
PRESERVING = MARGINAL._replace(conventions=MARGINAL.conventions[:1], read=_by_signal)
STRAIGHT = MARGINAL._replace(
    law="x_t = (1 − t)·x_0 + t·ε",
    conventions=(
        Convention("straight flow, t = 0 data", {"x_0": F(signal=1), NOISE: F(spread=1)}),
        Convention("straight flow, t = 1 data", {"x_0": F(spread=1), NOISE: F(signal=1)}, False),
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
    (Convention("variance-preserving", {**POSTERIOR_MEAN, NOISE: F(0.0)}),),
    lands=True,
)


class Answering(nn.Module):
    """A model that answers as it was told, and keeps what it was asked."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(()))  # by which people ask where a model is
        self.answer = answer
        self.asked: list[tuple[object, ...]] = []

    def forward(self, *values: object, **named: object) -> Tensor:
        """The answer, whatever the question."""
        self.asked.append((*values, *named.values()))
        return self.answer.clone()


def _step(predicts: str, size: float, place: float | None) -> Callable[..., Supply]:
    """The oracle step: a true x_0 and ε in; what comes out is known exactly, without a network."""

    def supply(
        process: Process, t: int, n: int, shape: tuple[int, ...], generator: torch.Generator
    ) -> Supply:
        x_0 = size * (2 * torch.rand(n, *shape, generator=generator) - 1)
        eps = _normal(n, shape, generator)
        at = torch.tensor([t])
        a, b = (f.at(process, at).float() for f in (F(abar=0.5), F(noise=0.5)))
        answer = {"eps": eps, "x_0": x_0, "v": a * eps - b * x_0}[predicts]
        if place is not None:
            answer = torch.cat([answer, torch.full_like(answer, place)], 1)
        slots = {"model": Answering(answer), "answer": answer, "x_t": a * x_0 + b * eps}
        return Supply(slots, {"x_0": x_0, "ε": eps})

    return supply


# The variance of a step by where in its range the model says it is: of β̃_t at −1 and of β_t at 1,
# and between them as their logarithms (Nichol & Dhariwal 2021, eq. (15)).
RANGE = {
    -1.0: F(beta=1, noise=-1, before={"noise": 1}),
    1.0: F(beta=1),
    0.0: F(beta=1, noise=-0.5, before={"noise": 0.5}),
}


def step(predicts: str, size: float = INSIDE, place: float | None = None) -> Role:
    """One step of a sampler, t → t − 1, of data in ±size; with a learned variance at a place."""
    x_0, kept = F(before={"abar": 0.5}), F(alpha=0.5, noise=-0.5, before={"noise": 1})
    tilde = F(beta=0.5, noise=-0.5, before={"noise": 0.5})
    # (√ᾱ_s + √(1 − ᾱ_s))·x_0, in powers of what there are names for.
    both = F(before={"abar": 0.5, "signal": -1.0})
    reused = (
        [
            Convention(
                "the answer stands for x_0 and for ε",
                {"x_0": both, "ε": F(0.0), NOISE: F(0.0)},
                wrong="takes it for eps",
            )
        ]
        if predicts == "x_0"
        else []
    )
    laws: tuple[Convention, ...]
    if place is not None:
        root = Formula.made(1.0, {b: 0.5 * p for b, p in RANGE[place].powers})
        laws = (Convention("DDPM with a learned variance", {"x_0": x_0, "ε": kept, NOISE: root}),)
    else:
        laws = (
            Convention("DDPM with variance β̃", {"x_0": x_0, "ε": kept, NOISE: tilde}),
            Convention("DDIM", {"x_0": x_0, "ε": F(before={"noise": 0.5}), NOISE: F(0.0)}),
            Convention("DDPM with variance β", {"x_0": x_0, "ε": kept, NOISE: F(beta=0.5)}, False),
        )
    return Role(
        "step",
        "of a true x_0 and ε the step makes N(√ᾱ_{t−1}·x_0, (1 − ᾱ_{t−1})·I), or DDPM's with β",
        "x_{t−1}",
        ("x_t",),
        None,
        _step(predicts, size, place),
        (
            *laws,
            Convention(
                "nothing moves",
                {"x_0": F(abar=0.5), "ε": F(noise=0.5), NOISE: F(0.0)},
                wrong="leads to itself",
            ),
            *reused,
        ),
        lands=True,
        predicts=predicts,
    )
