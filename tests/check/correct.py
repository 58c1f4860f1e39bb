"""Correct diffusion code, made at random: one law, as differently as people write it.

    x_t = √ᾱ_t·x_0 + √(1 − ᾱ_t)·ε,    ᾱ_t = Π (1 − β_s)

`case(seed)` is a function, the role and facts that its author would state, and the choices made.
Tables are computed here, in numpy, in the person's precision; nothing is taken from alphabar.
"""

import copy
import inspect
import math
import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as nnf
from torch import Tensor

Made = tuple[Any, dict[str, Any]]  # what is checked, and its facts


class Case(NamedTuple):
    """One right implementation."""

    seed: int
    role: str
    subject: Any
    facts: dict[str, Any]
    words: str  # the choices


class Choices:
    """Choices at random, each kept in words."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.words: list[str] = []

    def of(self, what: str, options: Sequence[Any]) -> Any:
        """One of them."""
        chosen = self.random.choice(list(options))
        self.words.append(f"{what}={chosen}")
        return chosen

    def number(self, what: str, low: float, high: float) -> float:
        """Between two, evenly by logarithm."""
        found = low * (high / low) ** self.random.random()
        self.words.append(f"{what}={found:.3g}")
        return found


def ordered(core: Callable[..., Any], choices: Choices, **defaults: Any) -> Callable[..., Any]:
    """The same function with its required arguments in another order; then those with defaults."""
    required = [p for p in inspect.signature(core).parameters if p not in defaults]
    choices.random.shuffle(required)
    choices.words.append(f"({', '.join([*required, *(f'{n}=' for n in defaults)])})")
    either = inspect.Parameter.POSITIONAL_OR_KEYWORD
    signature = inspect.Signature(
        [inspect.Parameter(name, either) for name in required]
        + [inspect.Parameter(name, either, default=v) for name, v in defaults.items()]
    )

    def call(*values: Any, **named: Any) -> Any:
        bound = signature.bind(*values, **named)
        bound.apply_defaults()
        return core(**bound.arguments)

    call.__signature__ = signature  # type: ignore[attr-defined]
    if choices.of("kind", ("function", "function", "object")) == "function":
        return call
    return Callable_(call, signature)


class Callable_:
    """An object that is called."""

    def __init__(self, call: Callable[..., Any], signature: inspect.Signature) -> None:
        self.call, self.__signature__ = call, signature

    def __call__(self, *values: Any, **named: Any) -> Any:
        return self.call(*values, **named)


# --- schedules


STEPS = (1, 2, 3, 5, 10, 50, 100, 200, 500, 1000)
FAMILIES = (
    "linear",
    "line of log α",
    "quad",
    "sigmoid",
    "constant",
    "cosine",
    "log SNR",
    "zero-terminal",
    "jsd",
)
NO_SIGNAL = ("zero-terminal", "jsd")


def betas_of(family: str, T: int, end: float) -> np.ndarray:
    """β_1 … β_T, which leave ᾱ_T of about `end` of the signal, or a family's own."""
    u = np.linspace(0, 1, T) if T > 1 else np.ones(1)
    if family == "linear" and T >= 50:
        return np.linspace(1e-4, 0.02, T) * 1000 / T
    if family == "cosine":
        curve = np.cos((np.arange(T + 1) / T + 0.008) / 1.008 * np.pi / 2) ** 2
        return np.minimum(1 - curve[1:] / curve[:-1], 0.999)
    if family == "jsd":
        return 1 / np.arange(T, 0, -1)
    if family == "log SNR" and T >= 2:
        bars = 1 / (1 + np.exp(-np.linspace(7, math.log(end), T)))
        return 1 - bars / np.concatenate([[1.0], bars[:-1]])
    shape = {
        "quad": (0.1 + u) ** 2,
        "sigmoid": 0.02 + 1 / (1 + np.exp(6 - 12 * u)),
        "constant": np.ones(T),
    }.get(family, 0.02 + u)
    betas = -np.expm1(math.log(end) * shape / shape.sum())
    if family == "zero-terminal" and T >= 2:
        betas = np.linspace(1e-4, 0.02, T) * 1000 / T if T >= 50 else betas
        root = np.sqrt(np.cumprod(1 - betas))
        root = (root - root[-1]) * root[0] / (root[0] - root[-1])
        bars = root**2
        return 1 - np.concatenate([bars[:1], bars[1:] / bars[:-1]])
    return betas


class Table:
    """A person's tables, as they hold them, by their own index of t.

    Args:
        choices: what decides.
        signal: whether some signal must be left at T.
        steps: the T to choose from.
    """

    def __init__(
        self,
        choices: Choices,
        signal: bool = False,
        steps: Sequence[int] = STEPS,
        reads: Sequence[str] = (),
    ) -> None:
        self.T = choices.of("T", steps)
        family = choices.of("β", [f for f in FAMILIES if not (signal and f in NO_SIGNAL)])
        end = choices.number("ᾱ_T", 3e-5, 1e-2)
        self.base = choices.of("first t", (0, 1))
        self.type = choices.of("table", (np.float32, np.float64, np.float64))
        betas = betas_of(family, self.T, end).astype(self.type)
        self.own = betas
        # With a clean level in front where t counts from 1.
        beta = np.concatenate([np.zeros(self.base, self.type), betas])
        bars = np.cumprod(1 - beta)
        before = np.concatenate([np.ones(1, self.type), bars[:-1]])
        with np.errstate(divide="ignore", invalid="ignore"):
            tilde = beta * (1 - before) / (1 - bars)
            clean = beta * np.sqrt(before) / (1 - bars)
            noisy = (1 - before) * np.sqrt(1 - beta) / (1 - bars)
            ratio = np.sqrt((1 - bars) / bars)
        self.beta, self.alpha, self.bar, self.before = beta, 1 - beta, bars, before
        self.tilde, self.clean, self.noisy, self.ratio = tilde, clean, noisy, ratio
        self.read = choices.of("read", reads or READS)
        self.cast = choices.of("cast", (True, False))
        self.stated = choices.of("stated", ("torch", "numpy", "list"))
        self.choices = choices

    @property
    def betas(self) -> Any:
        """As the person hands them over."""
        return {
            "torch": torch.from_numpy(self.own),
            "numpy": self.own,
            "list": self.own.tolist(),
        }[self.stated]

    @property
    def first(self) -> int:
        """The index of the least noisy level."""
        return self.base

    @property
    def last(self) -> int:
        """The index of the noisiest."""
        return self.T - 1 + self.base

    def at(self, values: np.ndarray, t: Any, x: Tensor) -> Tensor:
        """A table's numbers at t, in a shape that goes with x."""
        return READ[self.read](torch.from_numpy(np.asarray(values)), t, x)

    def bar_at(self, t: Any, x: Tensor) -> Tensor:
        """ᾱ at t, which may be the clean level in front of the first."""
        if self.base == 1:
            return self.at(self.bar, t, x)
        bars = np.concatenate([np.ones(1, self.type), self.bar])
        return self.at(bars, t + 1, x)

    def done(self, result: Tensor, x: Tensor) -> Tensor:
        """A result in the person's type."""
        return result.to(x.dtype) if self.cast else result


def _wide(values: Tensor, x: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (x.ndim - 1))


def _gather(values: Tensor, t: Tensor, x: Tensor) -> Tensor:
    return values.gather(-1, t).reshape(len(t), *((1,) * (x.ndim - 1)))


def _pictures(values: Tensor, t: Tensor, x: Tensor) -> Tensor:
    return values[t][:, None, None, None]


def _vectors(values: Tensor, t: Tensor, x: Tensor) -> Tensor:
    return values[t].unsqueeze(-1)


READ: dict[str, Callable[[Tensor, Any, Tensor], Tensor]] = {
    "any shape": lambda values, t, x: _wide(values[t], x),
    "by gather": _gather,
    "pictures": _pictures,
    "vectors": _vectors,
    "one t": lambda values, t, x: values[int(t)],
    "float t": lambda values, t, x: _wide(values[torch.as_tensor(t).long()], x),
    "column t": lambda values, t, x: values[t] if t.shape[1:] == (1,) else _vectors(values, t, x),
}
READS = tuple(READ)


# --- noise, and what comes back


_FRESH = np.random.default_rng(7)
_OWN = torch.Generator().manual_seed(11)


def _gauss(x: Tensor) -> Tensor:
    return torch.tensor([random.gauss(0, 1) for _ in range(x.numel())]).reshape(x.shape)


NOISES: dict[str, Callable[[Tensor], Tensor]] = {
    "randn_like": torch.randn_like,
    "randn": lambda x: torch.randn(x.shape),
    "randn float64": lambda x: torch.randn(*x.shape, dtype=torch.float64),
    "empty.normal_": lambda x: torch.empty_like(x).normal_(),
    "torch.normal": lambda x: torch.normal(torch.zeros_like(x), torch.ones_like(x)),
    "Normal": lambda x: torch.distributions.Normal(0.0, 1.0).sample(x.shape),
    "own generator": lambda x: torch.randn(x.shape, generator=_OWN),
    "np.random": lambda x: torch.from_numpy(np.random.randn(*x.shape)),  # noqa: NPY002, people do
    "default_rng": lambda x: torch.from_numpy(_FRESH.standard_normal(tuple(x.shape))),
    "random.gauss": _gauss,
}


def noise_of(choices: Choices, often: bool = False) -> Callable[[Tensor], Tensor]:
    """A way to draw noise; `often`: one that does not take all day."""
    return NOISES[choices.of("noise", [n for n in NOISES if not (often and n == "random.gauss")])]


PACKS: dict[str, Callable[..., Any]] = {
    "tensor": lambda x, *more: x,
    "tensor again": lambda x, *more: x,
    "tuple": lambda x, *more: (x, *more),
    "list": lambda x, *more: [x, *more],
    "numpy": lambda x, *more: x.numpy(),
    "dict": lambda x, *more: {"sample": x, **{f"more{i}": m for i, m in enumerate(more)}},
}


def pack_of(choices: Choices) -> Callable[..., Any]:
    """What comes back, and in what."""
    return PACKS[choices.of("returns", list(PACKS))]


# --- the forward process


def marginal(choices: Choices) -> Made:
    """x_t of x_0."""
    kind = choices.of("kind", ("sample",) * 4 + ("moments", "v", "ve", "flow", "time"))
    if kind in ("flow", "time"):
        return _continuous_marginal(choices, kind)
    table = Table(choices, signal=kind == "ve")
    if kind == "moments":
        return _moments(choices, table)
    draw, pack = noise_of(choices), pack_of(choices)
    keep, spread = np.sqrt(table.bar), np.sqrt(1 - table.bar)
    facts: dict[str, Any] = {"betas": table.betas}
    if kind == "ve":
        facts["scale"] = "ve"
        keep, spread = np.ones_like(table.bar), table.ratio
    if kind == "v":
        facts["gives"] = "v"

        def velocity(x_0: Tensor, t: Any, noise: Tensor) -> Any:
            return table.done(table.at(keep, t, x_0) * noise - table.at(spread, t, x_0) * x_0, x_0)

        return ordered(velocity, choices), facts
    dtype = choices.of("data", (torch.float32,) * 3 + (torch.float64, torch.float16))
    if dtype is not torch.float32:
        facts["dtype"] = dtype

    def mixed(x_0: Tensor, t: Any, noise: Tensor | None = None) -> Any:
        z = draw(x_0) if noise is None else noise
        x_t = table.at(keep, t, x_0) * x_0 + table.at(spread, t, x_0) * z
        return pack(table.done(x_t, x_0), z)

    handed = choices.of("noise is", ("drawn", "an argument", "an option"))
    if handed == "drawn":

        def drawn(x_0: Tensor, t: Any) -> Any:
            return mixed(x_0, t)

        return ordered(drawn, choices), facts
    if handed == "an argument":
        return ordered(mixed, choices), facts
    return ordered(mixed, choices, noise=None), facts


def _moments(choices: Choices, table: Table) -> Made:
    gives = choices.of("gives", ("mean", "mean_std", "mean_variance", "mean_log_variance"))
    wide = choices.of("expanded", (True, False))

    def moments(x_0: Tensor, t: Any) -> Any:
        mean = table.at(np.sqrt(table.bar), t, x_0) * x_0
        variance = 1 - table.at(table.bar, t, x_0)
        beside = {
            "mean_std": variance.sqrt(),
            "mean_variance": variance,
            "mean_log_variance": variance.log(),
        }.get(gives)
        if beside is None:
            return table.done(mean, x_0)
        return table.done(mean, x_0), beside.expand_as(x_0) if wide else beside

    return ordered(moments, choices), {"betas": table.betas, "gives": gives}


def _continuous_marginal(choices: Choices, kind: str) -> Made:
    draw, pack = noise_of(choices), pack_of(choices)
    scale = choices.of("scale", ("flow",) if kind == "flow" else ("vp", "ve"))
    up = choices.of("data at", (0, 1)) if kind == "flow" else 0
    high = choices.number("β_max", 5, 25)

    def levels(t: Tensor) -> tuple[Tensor, Tensor]:
        if scale == "flow":
            return (t, 1 - t) if up else (1 - t, t)
        if scale == "ve":
            return torch.ones_like(t), 0.01 * 5000**t
        area = 0.1 * t + (high - 0.1) / 2 * t**2
        return torch.exp(-area / 2), torch.sqrt(1 - torch.exp(-area))

    def mixed(x_0: Tensor, t: Any, noise: Tensor | None = None) -> Any:
        keep, spread = levels(_wide(torch.as_tensor(t), x_0))
        z = draw(x_0) if noise is None else noise
        return pack(keep * x_0 + spread * z, z)

    return ordered(mixed, choices, noise=None), {"scale": scale}


def transition(choices: Choices) -> Made:
    """x_t of x_{t−1}, or of x_0 in t steps."""
    chain = choices.of("chain", (False, False, True))
    table = Table(choices, steps=[T for T in STEPS if T <= (200 if chain else 1000)])
    draw, pack = noise_of(choices, often=chain), pack_of(choices)

    def one(x: Tensor, t: Any) -> Any:
        beta = table.at(table.beta, t, x)
        z = draw(x)
        return pack(table.done((1 - beta).sqrt() * x + beta.sqrt() * z, x))

    def whole(x: Tensor, t: Any) -> Any:
        for i in range(table.first, int(t) + 1):
            beta = torch.tensor(table.beta[i])
            x = table.done((1 - beta).sqrt() * x + beta.sqrt() * draw(x), x)
        return pack(x)

    return ordered(whole if chain else one, choices), {"betas": table.betas}


# --- towards the data


def _x_0_of(predicts: str, x: Tensor, answer: Tensor, bar: Tensor) -> Tensor:
    if predicts == "eps":
        return (x - (1 - bar).sqrt() * answer) / bar.sqrt()
    return answer if predicts == "x_0" else bar.sqrt() * x - (1 - bar).sqrt() * answer


def posterior(choices: Choices) -> Made:
    """The moments of x_{t−1}."""
    by_model = choices.of("by a model", (False, False, True))
    predicts = choices.of("predicts", ("eps", "x_0", "v")) if by_model else "x_0"
    # Of one step alone the posterior is x_0 itself.
    table = Table(choices, predicts == "eps", [T for T in STEPS if T > 1])
    gives = choices.of("gives", ("mean", "variance", "log", "std", "both", "mean alone"))
    form = choices.of("form", ("coefficients", "precisions"))
    large = choices.of("variance", ("β̃", "β")) == "β" and gives != "both"

    def moments(x_0: Tensor, x_t: Tensor, t: Any) -> Any:
        if form == "coefficients" or table.type is np.float32:
            mean = table.at(table.clean, t, x_t) * x_0 + table.at(table.noisy, t, x_t) * x_t
        else:
            beta, before = table.at(table.beta, t, x_t), table.at(table.before, t, x_t)
            alpha, bar = 1 - beta, table.at(table.bar, t, x_t)
            mean = (before.sqrt() * beta * x_0 + alpha.sqrt() * (1 - before) * x_t) / (1 - bar)
        mean = table.done(mean, x_t)
        variance = table.at(table.beta if large else table.tilde, t, x_t)
        # β̃_1 = 0 has no logarithm: that of the second step is taken, as usual.
        clipped = np.concatenate(
            [
                table.tilde[: table.base],
                table.tilde[table.base + 1 :][:1],
                table.tilde[table.base + 1 :],
            ]
        )
        log = table.at(np.log(np.maximum(table.beta if large else clipped, 1e-20)), t, x_t)
        return {
            "mean": (mean, variance.expand_as(x_t)),
            "variance": (mean, variance),
            "log": (mean, log),
            "std": (mean, variance.sqrt()),
            "both": (mean, variance, log),
            "mean alone": mean,
        }[gives]

    if not by_model:
        return ordered(moments, choices), {"betas": table.betas}

    def modelled(model: Any, x: Tensor, t: Any) -> Any:
        x_0 = _x_0_of(predicts, x, model(x, t), table.at(table.bar, t, x))
        return moments(x_0, x, t)

    return ordered(modelled, choices), {"betas": table.betas, "predicts": predicts}


def _rest(choices: Choices, table: Table, predicts: str) -> dict[str, Any]:
    """How a step is made."""
    how = choices.of("step", ("DDPM", "DDPM", "DDIM") + (("ε form",) if predicts == "eps" else ()))
    return {
        "how": how,
        "eta": choices.of("η", (0.0, 0.0, 0.3, 1.0)) if how == "DDIM" else 0.0,
        "large": choices.of("variance", ("β̃", "β")) == "β" if how != "DDIM" else False,
        "clip": choices.of("clip", (None, None, 1.0, 3.0)) if how != "ε form" else None,
        "again": choices.of("ε of the clipped", (True, False)),
    }


def _one_step(
    table: Table, predicts: str, how: dict[str, Any], draw: Callable[[Tensor], Tensor]
) -> Callable[..., tuple[Tensor, Tensor]]:
    """x_s of x_t and the model's answer; s is the level before t, or one further off."""

    def step(answer: Tensor, x: Tensor, t: Any, s: Any) -> tuple[Tensor, Tensor]:
        bar, before = table.at(table.bar, t, x), table.bar_at(s, x)
        alpha = bar / before
        beta = 1 - alpha
        x_0 = _x_0_of(predicts, x, answer, bar)
        if how["clip"] is not None:
            x_0 = x_0.clamp(-how["clip"], how["clip"])
        more = (torch.as_tensor(t) > table.first).to(x.dtype)
        more = _wide(more, x) if more.ndim else more
        tilde = (1 - before) / (1 - bar) * beta
        if how["how"] == "DDIM":
            sigma = how["eta"] * tilde.sqrt()
            eps = answer
            if predicts != "eps" or (how["clip"] is not None and how["again"]):
                eps = (x - bar.sqrt() * x_0) / (1 - bar).sqrt()
            mean = before.sqrt() * x_0 + (1 - before - sigma**2).clamp(min=0).sqrt() * eps
        elif how["how"] == "ε form":
            mean = (x - beta / (1 - bar).sqrt() * answer) / alpha.sqrt()
            sigma = beta.sqrt() if how["large"] else tilde.sqrt()
        else:
            mean = (before.sqrt() * beta * x_0 + alpha.sqrt() * (1 - before) * x) / (1 - bar)
            sigma = beta.sqrt() if how["large"] else tilde.sqrt()
        if how["how"] == "DDIM" and not how["eta"]:
            return table.done(mean, x), x_0
        return table.done(mean + more * sigma * draw(x), x), x_0

    return step


def _double(table: Table) -> None:
    """Quotients of levels are made in float64, though the stated β are rounded."""
    for name in ("beta", "bar", "before", "tilde"):
        setattr(table, name, getattr(table, name).astype(np.float64))
    table.bar = np.cumprod(1 - table.beta)
    table.type = np.float64


def step(choices: Choices) -> Made:
    """x_{t−1} of x_t."""
    predicts = choices.of("predicts", ("eps", "x_0", "v"))
    learned = choices.of("learned", (False,) * 4 + (True,))
    table = Table(choices, signal=predicts == "eps")
    _double(table)
    if learned:
        return _learned_step(choices, table, predicts)
    how = _rest(choices, table, predicts)
    one = _one_step(table, predicts, how, noise_of(choices))
    pack = pack_of(choices)
    facts = {"betas": table.betas, "predicts": predicts, "clip": how["clip"]}
    takes = choices.of("takes", ("model", "model", "answer"))
    if how["how"] == "DDIM" and choices.of("takes s", (True, False)):

        def to(model: Any, x: Tensor, t: Any, s: Any) -> Any:
            return pack(*one(model(x, t), x, t, s))

        return ordered(to, choices), facts

    def by_model(model: Any, x: Tensor, t: Any) -> Any:
        return pack(*one(model(x, t), x, t, t - 1))

    def by_answer(answer: Tensor, x: Tensor, t: Any) -> Any:
        return pack(*one(answer, x, t, t - 1))

    return ordered(by_model if takes == "model" else by_answer, choices), facts


def _learned_step(choices: Choices, table: Table, predicts: str) -> Made:
    draw, pack = noise_of(choices), pack_of(choices)

    def learned(model: Any, x: Tensor, t: Any) -> Any:
        answer, place = model(x, t).chunk(2, dim=1)
        bar, before = table.at(table.bar, t, x), table.bar_at(t - 1, x)
        beta = table.at(table.beta, t, x)
        x_0 = _x_0_of(predicts, x, answer, bar)
        mean = (before.sqrt() * beta * x_0 + (1 - beta).sqrt() * (1 - before) * x) / (1 - bar)
        small = ((1 - before) / (1 - bar) * beta).clamp(min=1e-20).log()
        part = (place + 1) / 2
        log = part * beta.log() + (1 - part) * small
        more = (torch.as_tensor(t) > table.first).to(x.dtype)
        more = _wide(more, x) if more.ndim else more
        return pack(table.done(mean + more * (log / 2).exp() * draw(x), x))

    facts = {"betas": table.betas, "predicts": predicts, "variance": "learned_range"}
    return ordered(learned, choices), facts


TOLD: dict[str, Callable[[int, int], Any]] = {
    "int64 (B,)": lambda t, n: torch.full((n,), t),
    "int64 ()": lambda t, n: torch.tensor(t),
    "int": lambda t, n: t,
    "float (B,)": lambda t, n: torch.full((n,), float(t)),
    "int64 (1,)": lambda t, n: torch.tensor([t]),
}


def sampler(choices: Choices) -> Made:
    """From noise to data."""
    kind = choices.of("kind", ("table",) * 4 + ("σ", "flow"))
    return {"table": _table_loop, "σ": _sigma_loop, "flow": _flow_loop}[kind](choices)


def _visited(choices: Choices, table: Table, all_of_them: bool) -> list[int]:
    """The levels that a loop visits, from the noisiest; counted from 0."""
    T = table.T
    if all_of_them:
        return list(range(T - 1, -1, -1))
    n = choices.of("moves", [n for n in (1, 2, 5, 10, 20, 50) if n <= T])
    spacing = choices.of("spacing", ("leading from T", "trailing", "linspace", "quad"))
    if spacing == "leading from T":
        return [T - 1 - i * (T // n) for i in range(n)]
    if spacing == "trailing":
        return [round(T - i * T / n) - 1 for i in range(n)]
    line = np.linspace(T - 1, 0, n) if n > 1 else np.array([T - 1.0])
    if spacing == "quad":
        line = np.linspace(math.sqrt(T - 1), 0, n) ** 2 if n > 1 else line
    return sorted({int(i) for i in line.round()}, reverse=True)


def _table_loop(choices: Choices) -> Made:
    predicts = choices.of("predicts", ("eps", "x_0", "v"))
    table = Table(choices, predicts == "eps", reads=("one t",))
    _double(table)
    how = _rest(choices, table, predicts)
    one = _one_step(table, predicts, how, noise_of(choices, often=True))
    levels = _visited(choices, table, how["how"] != "DDIM" or table.T == 1)
    told = TOLD[choices.of("told", list(TOLD))]
    start = noise_of(choices, often=True)
    returns = choices.of("returns", ("tensor", "tensor", "list", "tuple", "numpy"))

    def run(model: Any, x: Tensor) -> Any:
        passed = []
        for k, level in enumerate(levels):
            t = level + table.base
            s = (levels[k + 1] if k + 1 < len(levels) else -1) + table.base
            x, x_0 = one(model(x, told(t, len(x))), x, t, s)
            x = x.float()
            passed.append(x)
        return {"list": passed, "tuple": (x, x_0.to(x.dtype)), "numpy": x.numpy()}.get(returns, x)

    facts = {"betas": table.betas, "predicts": predicts, "clip": how["clip"]}
    return _begun(choices, run, lambda shape: start(torch.empty(shape)).float()), facts


def _begun(
    choices: Choices, run: Callable[..., Any], begin: Callable[[Sequence[int]], Tensor]
) -> Callable[..., Any]:
    """A loop of a shape, of the first x, or of how many points of the plane."""
    takes = choices.of("takes", ("shape", "x", "n", "option"))
    if takes == "shape":

        def of_shape(model: Any, shape: Sequence[int]) -> Any:
            return run(model, begin(shape))

        return ordered(of_shape, choices)
    if takes == "x":

        def of_x(model: Any, x: Tensor) -> Any:
            return run(model, x)

        return ordered(of_x, choices)
    if takes == "option":

        def optional(model: Any, shape: Sequence[int], x: Tensor | None = None) -> Any:
            return run(model, begin(shape) if x is None else x)

        return ordered(optional, choices, x=None)
    item = choices.of("item", ((4,), (2,), (1, 8, 8)))

    def of_n(model: Any, n: int) -> Any:
        return run(model, begin((n, *item)))

    return ordered(of_n, choices)


def _sigma_loop(choices: Choices) -> Made:
    predicts = choices.of("predicts", ("x_0", "eps"))
    method = choices.of("method", ("Euler", "Heun", "2M", "ancestral", "midpoint"))
    rho, n = choices.of("ρ", (1, 3, 7)), choices.of("moves", (5, 18, 40))
    low, high = choices.of("ends", ((0.002, 80.0), (0.02, 20.0), (0.03, 14.6)))
    own = np.append(np.linspace(high ** (1 / rho), low ** (1 / rho), n) ** rho, 0.0)
    told = choices.of("told", ("number", "(B,)", "()"))
    draw = noise_of(choices, often=True)
    double = choices.of("data", (False, True))

    def denoised(model: Any, x: Tensor, sigma: float) -> Tensor:
        label: Any = {
            "number": sigma,
            "(B,)": torch.full((len(x),), sigma, dtype=x.dtype),
            "()": torch.tensor(sigma, dtype=torch.float64),
        }[told]
        said = model(x, label)
        return said if predicts == "x_0" else x - sigma * said

    def run(model: Any, x: Tensor, sigmas: Any) -> Any:
        levels = [float(s) for s in sigmas]
        x = x.double() if double else x
        old = None
        for i in range(len(levels) - 1):
            here, there = levels[i], levels[i + 1]
            x_0 = denoised(model, x, here)
            slope = (x - x_0) / here
            if method == "2M" and there > 0:
                h = math.log(here / there)
                use = x_0
                if old is not None:
                    r = math.log(levels[i - 1] / here) / h
                    use = x_0 + (x_0 - old) / (2 * r)
                x = there / here * x + (1 - there / here) * use
            elif method == "ancestral" and there > 0:
                up = there * math.sqrt(1 - there**2 / here**2)
                down = there**2 / here
                x = x + (down - here) * slope + up * draw(x).to(x.dtype)
            elif method == "midpoint" and there > 0:
                middle = math.sqrt(here * there)
                end = x + (middle - here) * slope
                x = x + (there - here) * (end - denoised(model, end, middle)) / middle
            else:
                end = x + (there - here) * slope
                if method == "Heun" and there > 0:
                    other = (end - denoised(model, end, there)) / there
                    end = x + (there - here) * (slope + other) / 2
                x = end
            old = x_0
        return x

    facts: dict[str, Any] = {"predicts": predicts, "scale": "ve"}
    takes = choices.of("takes", ("σ", "σ stated", "x", "shape"))
    if takes in ("σ", "σ stated"):

        def of_sigmas(model: Any, x: Tensor, sigmas: Any) -> Any:
            return run(model, x, sigmas)

        if takes == "σ stated":
            facts["sigmas"] = own
        return of_sigmas, facts
    if takes == "x":
        facts["sigmas"] = own

        def of_x(model: Any, x: Tensor) -> Any:
            return run(model, x, own)

        return ordered(of_x, choices), facts

    def of_shape(model: Any, shape: Sequence[int]) -> Any:
        return run(model, torch.randn(shape) * own[0], own)

    return ordered(of_shape, choices), facts


def _flow_loop(choices: Choices) -> Made:
    method = choices.of("method", ("Euler", "midpoint", "Heun"))
    n, up = choices.of("moves", (4, 20, 50)), choices.of("data at", (0, 1))
    bent = choices.of("bent", (1.0, 1.0, 2.0))
    told = choices.of("told", ("(B,)", "number", "()"))
    grid = np.linspace(0, 1, n + 1) ** bent if up else np.linspace(1, 0, n + 1) ** bent

    def asked(model: Any, x: Tensor, t: float) -> Tensor:
        label: Any = {"(B,)": torch.full((len(x),), t), "number": t, "()": torch.tensor(t)}[told]
        return model(x, label)

    def run(model: Any, x: Tensor) -> Any:
        for t, s in zip(grid[:-1].tolist(), grid[1:].tolist(), strict=True):
            slope = asked(model, x, t)
            if method == "midpoint":
                slope = asked(model, x + (s - t) / 2 * slope, (s + t) / 2)
            if method == "Heun":
                slope = (slope + asked(model, x + (s - t) * slope, s)) / 2
            x = x + (s - t) * slope
        return x

    facts = {"predicts": "flow", "scale": "flow"}
    return _begun(choices, run, lambda shape: torch.randn(tuple(shape))), facts


# --- training


def loss(choices: Choices) -> Made:
    """A squared error of what a model answers."""
    scale = choices.of("scale", ("vp", "vp", "vp", "ve", "flow"))
    predictions = {
        "vp": ("eps", "eps", "x_0", "v", "score"),
        "ve": ("eps", "x_0", "score"),
        "flow": ("flow", "flow", "eps", "x_0"),
    }
    predicts = choices.of("predicts", predictions[scale])
    facts: dict[str, Any] = {"predicts": predicts, "scale": scale}
    table = None
    up = choices.of("data at", (0, 1)) if scale == "flow" else 0
    if scale == "vp":
        reads = ("any shape", "by gather", "vectors")
        table = Table(choices, predicts == "score", reads=reads)
        facts["betas"] = table.betas

    def levels(t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        if table is not None:
            bar = table.at(table.bar, t, x)
            return bar.sqrt(), (1 - bar).sqrt()
        t = _wide(t, x)
        if scale == "ve":
            return torch.ones_like(t), 0.01 * 5000**t
        return (t, 1 - t) if up else (1 - t, t)

    draw = noise_of(choices)
    total = choices.of(
        "total", ("mse_loss", "mean", "sum", "per item", "sum mean", "half", "logged")
    )
    weighted = choices.of("weighted", (False, False, True))
    images = choices.of("range", (None, None, None, (0.0, 1.0), (0.0, 255.0)))
    if images is not None:
        facts["data_range"] = images

    def value(model: Any, x_0: Tensor, t: Tensor, noise: Tensor | None) -> Any:
        if images is not None:
            x_0 = x_0 / images[1] * 2 - 1
        z = draw(x_0).to(x_0.dtype) if noise is None else noise
        a, b = (f.to(x_0.dtype) for f in levels(t, x_0))
        x_t = a * x_0 + b * z
        target = {
            "eps": z,
            "x_0": x_0,
            "v": a * z - b * x_0,
            "score": -z / b,
            "flow": x_0 - z if up else z - x_0,
        }[predicts]
        said = model(x_t, t)
        if weighted:
            weight = b**2 if predicts == "score" else 1 + b
            said, target = said * weight.sqrt(), target * weight.sqrt()
        error = (said - target) ** 2
        return {
            "mse_loss": lambda: nnf.mse_loss(said, target),
            "mean": lambda: error.mean(),
            "sum": lambda: error.sum(),
            "per item": lambda: error.flatten(1).mean(1),
            "sum mean": lambda: error.flatten(1).sum(1).mean(),
            "half": lambda: 0.5 * torch.mean(error),
            "logged": lambda: (error.mean(), {"mse": error.detach().mean().item()}),
        }[total]()

    def times(n: int) -> Tensor:
        return torch.rand(n) if table is None else torch.randint(table.first, table.last + 1, (n,))

    handed = choices.of("handed", ("t and noise", "t", "nothing", "options"))
    if handed == "t and noise":

        def both(model: Any, x_0: Tensor, t: Tensor, noise: Tensor) -> Any:
            return value(model, x_0, t, noise)

        return ordered(both, choices), facts
    if handed == "t":

        def at(model: Any, x_0: Tensor, t: Tensor) -> Any:
            return value(model, x_0, t, None)

        return ordered(at, choices), facts
    if handed == "options":

        def optional(
            model: Any, x_0: Tensor, t: Tensor | None = None, noise: Tensor | None = None
        ) -> Any:
            return value(model, x_0, times(len(x_0)) if t is None else t, noise)

        return ordered(optional, choices, t=None, noise=None), facts

    def alone(model: Any, x_0: Tensor) -> Any:
        return value(model, x_0, times(len(x_0)), None)

    return ordered(alone, choices), facts


# --- the smaller parts


def weighting(choices: Choices) -> Made:
    """How much each level counts."""
    claims = choices.of("claims", ("min_snr", "p2", "snr", "snr+1", "truncated", "edm", "uniform"))
    of_two = ("eps", "x_0", "v")
    predicts = choices.of("predicts", of_two if claims in ("min_snr", "p2") else ("eps", "x_0"))
    table = Table(choices, signal=True, reads=("any shape",))
    gamma = choices.of("γ", (5.0, 1.0, 3.0)) if claims in ("min_snr", "p2") else None
    factor = choices.of("factor", (1.0, 1.0, 0.5))

    def of_snr(snr: Any) -> Any:
        if claims == "min_snr":
            least = torch.minimum(snr, torch.full_like(snr, gamma or 0.0))
            return factor * least / {"eps": snr, "x_0": 1, "v": snr + 1}[predicts]
        if claims == "p2":
            lost = (1 + snr) ** (gamma or 0.0)
            return factor * {"eps": 1, "x_0": snr, "v": snr / (snr + 1)}[predicts] / lost
        return (
            factor
            * {
                "snr": snr,
                "snr+1": snr + 1,
                "truncated": snr.clamp(min=1),
                "edm": snr + 4,
                "uniform": torch.ones_like(snr),
            }[claims]
        )

    bar = torch.from_numpy(table.bar)
    facts = {"betas": table.betas, "predicts": predicts, "claims": claims, "gamma": gamma}
    form = choices.of("form", ("of t", "of SNR", "table", "list", "numpy of t"))
    if form in ("table", "list"):
        weights = of_snr((bar / (1 - bar))[table.base :])
        return (weights if form == "table" else weights.tolist()), facts

    def of_t(t: Any) -> Any:
        here = bar[torch.as_tensor(t).long()]
        weight = of_snr(here / (1 - here))
        return weight.numpy() if form == "numpy of t" else weight

    return (of_snr if form == "of SNR" else of_t), facts


def time_sampling(choices: Choices) -> Made:
    """Uniform times."""
    if choices.of("time", ("steps", "steps", "continuous")) == "continuous":
        lib = choices.of("draw", ("rand", "numpy", "random", "even"))

        def continuous(n: int) -> Any:
            if lib == "even":
                return (torch.rand(1) + torch.arange(n) / n) % 1
            return {
                "rand": lambda: torch.rand(n),
                "numpy": lambda: np.random.uniform(size=n),  # noqa: NPY002, people do
                "random": lambda: torch.tensor([random.random() for _ in range(n)]),
            }[lib]()

        return continuous, {"scale": "flow"}
    table = Table(choices)
    low, high = table.first, table.last
    draw = choices.of("draw", ("randint", "np.randint", "rand", "choice", "multinomial", "pairs"))

    def steps(n: int) -> Any:
        if draw == "pairs":
            half = torch.randint(low, high + 1, (n // 2 + 1,))
            return torch.cat([half, low + high - half])[:n]
        return {
            "randint": lambda: torch.randint(low, high + 1, (n,)),
            "np.randint": lambda: np.random.randint(low, high + 1, n),  # noqa: NPY002
            "rand": lambda: (torch.rand(n, dtype=torch.float64) * table.T).long() + low,
            "choice": lambda: _FRESH.choice(np.arange(low, high + 1), size=n),
            "multinomial": lambda: torch.multinomial(torch.ones(table.T), n, True) + low,
        }[draw]()

    form = choices.of("asked", ("n", "shape", "batch", "n and device", "one"))
    facts = {"betas": table.betas}
    forms: dict[str, Callable[..., Any]] = {
        "n": lambda n: steps(n),
        "shape": lambda shape: steps(shape[0]),
        "batch": lambda x: steps(x.shape[0]),
        "n and device": lambda n, device: steps(n),
        "one": lambda: int(steps(2)[0]),
    }
    return forms[form], facts


def guidance(choices: Choices) -> Made:
    """u + s·(c − u), or a classifier's gradient."""
    if choices.of("kind", ("free", "free", "classifier")) == "classifier":
        return _classifier(choices)
    form = choices.of("form", ("lerp", "sum", "differences", "1 + w", "halves", "answers", "class"))
    null = choices.of("null", ("None", "index", "zeros"))
    s_is = choices.of("s", ("number", "option"))

    def mix(u: Tensor, c: Tensor, s: float) -> Tensor:
        if form == "lerp":
            return torch.lerp(u, c, s)
        if form == "sum":
            return s * c + (1 - s) * u
        if form == "1 + w":
            return (1 + s) * c - s * u
        return c + (s - 1) * (c - u) if form == "differences" else u + s * (c - u)

    def nothing(y: Any) -> Any:
        if null == "None":
            return None
        return torch.zeros_like(y) if null == "zeros" else torch.full_like(y, 1000)

    def free(model: Any, x: Tensor, t: Any, y: Any, s: float) -> Tensor:
        if form == "halves" and null != "None":
            both = model(torch.cat([x, x]), torch.cat([t, t]), torch.cat([y, nothing(y)]))
            c, u = both.chunk(2)
            return mix(u, c, s)
        return mix(model(x, t, nothing(y)), model(x, t, y), s)

    if form == "answers":
        return (lambda u, c, s: mix(u, c, s)), {}
    if form == "class":

        class Guided(torch.nn.Module):
            def __init__(self, model: Any, s: float = 3.0) -> None:
                super().__init__()
                self.model, self.s = model, s

            def forward(self, x: Tensor, t: Any, y: Any) -> Tensor:
                return free(self.model, x, t, y, self.s)

        return Guided, {}
    return (ordered(free, choices, s=5.0) if s_is == "option" else ordered(free, choices)), {}


def _classifier(choices: Choices) -> Made:
    predicts = choices.of("predicts", ("eps", "x_0", "v"))
    table = Table(choices, True, [T for T in STEPS if T >= 10], reads=("any shape",))
    table.cast = True
    _double(table)
    draw = noise_of(choices)
    form = choices.of("form", ("step", "ε"))
    facts = {"betas": table.betas, "predicts": predicts}

    def shifted(model: Any, gradient: Any, x: Tensor, t: Any, s: float = 1.0) -> Tensor:
        bar = table.at(table.bar, t, x)
        x_0 = _x_0_of(predicts, x, model(x, t), bar)
        mean = table.at(table.clean, t, x) * x_0 + table.at(table.noisy, t, x) * x
        variance = table.at(table.tilde, t, x)
        mean = table.done(mean, x)
        mean = mean + s * variance * gradient(mean, t)
        more = (torch.as_tensor(t) > table.first).to(x.dtype)
        more = _wide(more, x) if more.ndim else more
        return table.done(mean + more * variance.sqrt() * draw(x), x)

    def guided(model: Any, gradient: Any, x: Tensor, t: Any, s: float = 1.0) -> Tensor:
        spread = (1 - table.at(table.bar, t, x)).sqrt()
        return table.done(model(x, t) - s * spread * gradient(x, t), x)

    if form == "ε" and predicts == "eps":
        return guided, facts
    return shifted, facts


def ema(choices: Choices) -> Made:
    """An average of weights."""
    decay = choices.of("decay", (0.9, 0.99, 0.995, 0.999, 0.9999))
    form = choices.of("form", ("copy", "dictionary", "flat", "function", "list"))
    rising = choices.of("warm-up", (None, None, "(1 + k)/(10 + k)", "copies first"))
    write = choices.of("write", ("lerp", "mul add", "sum", "sub"))

    def mixed(old: Tensor, new: Tensor, d: float) -> Tensor:
        new = new.detach()
        if write == "lerp":
            return old.lerp(new, 1 - d)
        if write == "mul add":
            return old.clone().mul_(d).add_(new, alpha=1 - d)
        return d * old + (1 - d) * new if write == "sum" else old - (1 - d) * (old - new)

    def rate(k: int) -> float:
        if rising == "copies first":
            return 0.0 if k <= 5 else decay
        return min(decay, (1 + k) / (10 + k)) if rising else decay

    class Copy:
        def __init__(self, model: Any) -> None:
            self.shadow, self.k = _copied(model), 0

        @torch.no_grad()
        def update(self, model: Any) -> None:
            self.k += 1
            for old, new in zip(self.shadow.parameters(), model.parameters(), strict=True):
                old.copy_(mixed(old, new, rate(self.k)))

    class Dictionary:
        def __init__(self, model: Any) -> None:
            self.model, self.k = model, 0
            self.shadow = {n: p.detach().clone() for n, p in model.named_parameters()}

        def step(self) -> None:
            self.k += 1
            for n, p in self.model.named_parameters():
                self.shadow[n] = mixed(self.shadow[n], p, rate(self.k))

    class Listed:
        def __init__(self, parameters: Any) -> None:
            self.averages, self.k = [p.detach().clone() for p in parameters], 0

        def update(self, parameters: Any) -> None:
            self.k += 1
            for i, p in enumerate(parameters):
                self.averages[i] = mixed(self.averages[i], p, rate(self.k))

    @torch.no_grad()
    def update(average: Any, model: Any, d: float) -> None:
        for old, new in zip(average.parameters(), model.parameters(), strict=True):
            old.copy_(mixed(old, new, d))

    made = {"copy": Copy, "dictionary": Dictionary, "list": Listed, "function": update}
    return made.get(form, Copy), {"decay": decay}


def _copied(model: Any) -> Any:
    return copy.deepcopy(model).requires_grad_(False)


def embedding(choices: Choices) -> Made:
    """Rows for t."""
    T = choices.of("T", (10, 100, 1000, 4000))
    form = choices.of("form", ("sin cos", "cos sin", "interleaved", "table", "module"))
    last = choices.of("last rate", ("1/10000", "above"))
    width = choices.of("width", (32, 64, 128, 256))

    def rows(t: Tensor, dim: int = width) -> Tensor:
        half = dim // 2
        rates = 10000.0 ** (-torch.arange(half) / (half - 1 if last == "1/10000" else half))
        angles = t.float().reshape(-1, 1) * rates
        if form == "interleaved":
            return torch.stack([angles.sin(), angles.cos()], 2).flatten(1)
        parts = (angles.cos(), angles.sin()) if form == "cos sin" else (angles.sin(), angles.cos())
        return torch.cat(parts, 1)

    table = rows(torch.arange(T))

    class Module(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("table", table)

        def forward(self, t: Tensor) -> Tensor:
            return self.table[t]  # type: ignore[index]

    if form == "module":
        return Module(), {"T": T}
    if form == "table":
        return (lambda t: table[t]), {"T": T}
    return (rows if choices.of("dim", (True, False)) else lambda t: rows(t)), {"T": T}


def langevin(choices: Choices) -> Made:
    """Moves at a level."""
    draw = noise_of(choices, often=True)
    form = choices.of("form", ("step", "moves", "level", "α/2", "annealed", "loop"))
    own = choices.number("step", 1e-3, 0.05)
    told = choices.of("told", ("t", "nothing"))

    def ask(score: Any, x: Tensor, t: Any) -> Tensor:
        return score(x, t) if told == "t" else score(x)

    def move(score: Any, x: Tensor, t: Any, a: float) -> Tensor:
        return x + a * ask(score, x, t) + math.sqrt(2 * a) * draw(x).to(x.dtype)

    def moves(score: Any, x: Tensor, t: Any, step: float, n: int) -> Tensor:
        for _ in range(n):
            x = move(score, x, t, step)
        return x

    def halved(score: Any, x: Tensor, t: Any, step: float) -> Tensor:
        return x + step / 2 * ask(score, x, t) + math.sqrt(step) * draw(x).to(x.dtype)

    def level(score: Any, x: Tensor, sigma: Any) -> Tensor:
        a = own * _wide(torch.as_tensor(sigma, dtype=x.dtype), x) ** 2
        z = draw(x).to(x.dtype)
        return x + a * ask(score, x, sigma) + (2 * a).sqrt() * z

    def annealed(score: Any, x: Tensor, sigmas: Any) -> Tensor:
        for sigma in [float(s) for s in sigmas]:
            for _ in range(5):
                x = move(score, x, sigma, own * (sigma / float(sigmas[-1])) ** 2)
        return x

    def loop(score: Any, x: Tensor) -> Tensor:
        for sigma in (2.0, 1.0, 0.5):
            x = move(score, x, sigma, own * sigma**2)
        return x

    forms: dict[str, Callable[..., Any]] = {
        "step": move,
        "moves": moves,
        "level": level,
        "α/2": halved,
        "annealed": annealed,
        "loop": loop,
    }
    return forms[form], {"scale": choices.of("scale", ("vp", "ve"))}


def likelihood(choices: Choices) -> Made:
    """A term of the bound."""
    table = Table(choices, True, [T for T in STEPS if T >= 5], reads=("any shape",))
    table.cast = True
    total = choices.of("total", ("sum", "mean", "bits", "batch"))
    kind = choices.of("kind", ("prior", "term", "two", "density"))

    def summed(values: Tensor) -> Tensor:
        flat = values.flatten(1)
        if total == "batch":
            return flat.sum(1).mean()
        return (
            flat.sum(1)
            if total == "sum"
            else flat.mean(1) / (math.log(2) if total == "bits" else 1.0)
        )

    def normals(m: Tensor, v: Tensor, n: Tensor, w: Tensor) -> Tensor:
        return 0.5 * (v / w - 1 - torch.log(v / w) + (m - n) ** 2 / w)

    def prior(x_0: Tensor) -> Tensor:
        bar = torch.tensor(float(table.bar[-1]), dtype=torch.float64)
        one = torch.ones_like(x_0)
        return summed(normals(bar.sqrt() * x_0, (1 - bar) * one, 0 * one, one))

    def two(m: Tensor, log_v: Tensor, n: Tensor, log_w: Tensor) -> Tensor:
        return summed(
            0.5 * (log_w - log_v + torch.exp(log_v - log_w) + (m - n) ** 2 * torch.exp(-log_w) - 1)
        )

    def density(x: Tensor, m: Tensor, log_v: Tensor) -> Tensor:
        spread = torch.exp(log_v / 2)
        return summed(0.5 * ((x - m) / spread) ** 2 + spread.log() + 0.5 * math.log(2 * math.pi))

    predicts = choices.of("predicts", ("eps", "x_0", "v"))
    _double(table)

    def term(model: Any, x_0: Tensor, t: Any, noise: Tensor) -> Tensor:
        bar, before = table.at(table.bar, t, x_0), table.bar_at(t - 1, x_0)
        beta = 1 - bar / before
        x_t = bar.sqrt() * x_0 + (1 - bar).sqrt() * noise
        guess = _x_0_of(predicts, x_t, model(x_t.float(), t), bar)
        share = before.sqrt() * beta / (1 - bar)
        variance = (1 - before) / (1 - bar) * beta
        return summed(0.5 * (share * (x_0 - guess)) ** 2 / variance)

    forms: dict[str, Callable[..., Any]] = {
        "prior": prior,
        "two": two,
        "density": density,
        "term": term,
    }
    return forms[kind], {"betas": table.betas, "predicts": predicts}


def schedule(choices: Choices) -> Made:
    """A table of numbers."""
    T = choices.of("T", STEPS)
    gives = choices.of(
        "gives",
        ("betas", "betas", "betas", "alphas_cumprod", "sigmas", "timesteps", "sqrt_alphas_cumprod"),
    )
    if gives == "sigmas":
        rho, n = choices.of("ρ", (3, 7)), choices.of("n", (5, 18, 40))
        low, high = choices.of("ends", ((0.002, 80.0), (0.02, 14.6)))
        sigmas = np.linspace(high ** (1 / rho), low ** (1 / rho), n) ** rho
        return torch.from_numpy(np.append(sigmas, 0.0)), {"gives": gives, "claims": "karras"}
    if gives == "timesteps":
        n = choices.of("n", [n for n in (1, 2, 5, 10, 50) if n <= T])
        times = np.array([round(T - i * T / n) - 1 for i in range(n)])
        betas = betas_of("linear", T, 1e-3)
        return times, {"gives": gives, "betas": betas, "steps": n}
    few = ("cosine", "jsd", "constant")
    family = choices.of("β", few if T < 50 else (*few, "linear", "zero-terminal", "quad"))
    kept = choices.of("in", (np.float64, np.float32))
    betas = betas_of(family, T, 1e-3)
    if family == "quad":
        betas = np.linspace(math.sqrt(1e-4), math.sqrt(0.02), T) ** 2 * 1000 / T
    betas = betas.astype(kept)
    facts: dict[str, Any] = {"gives": gives}
    if choices.of("claimed", (True, False)):
        facts["claims"] = "zero_terminal_snr" if family == "zero-terminal" else family
    bars = np.cumprod(1 - betas)
    table = {"betas": betas, "alphas_cumprod": bars, "sqrt_alphas_cumprod": np.sqrt(bars)}[gives]
    if gives != "betas" and choices.of("β stated", (True, False)):
        facts["betas"] = betas
    pack = choices.of("as", (torch.from_numpy, np.asarray, lambda v: v.tolist()))
    return pack(table), facts


class Scheduler:
    """A scheduler with DDPM's, DDIM's or Euler's step."""

    init_noise_sigma = 1.0

    def __init__(self, choices: Choices, table: Table, predicts: str, kind: str) -> None:
        self.kind, self.predicts, self.T = kind, predicts, table.T
        self.betas = torch.from_numpy(table.own)
        self.alphas_cumprod = torch.cumprod(1 - self.betas.double(), 0)
        self.spacing = choices.of("spacing", ("trailing", "linspace"))
        self.eta = choices.of("η", (0.0, 1.0))
        self.fresh = noise_of(choices, often=True)
        self.timesteps = torch.arange(table.T - 1, -1, -1)

    def set_timesteps(self, n: int) -> None:
        if self.spacing == "trailing":
            times = [round(self.T - i * self.T / n) - 1 for i in range(n)]
        else:
            times = np.linspace(self.T - 1, 0, n).round().astype(int).tolist()
        self.timesteps = torch.tensor(times)
        if self.kind == "Euler":
            self.init_noise_sigma = float((1 / self._bar(times[0])).sqrt())

    def _bar(self, t: int) -> Tensor:
        return self.alphas_cumprod[t] if t >= 0 else torch.ones((), dtype=torch.float64)

    def add_noise(self, x_0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        bar = _wide(self.alphas_cumprod[t], x_0)
        if self.kind == "Euler":
            return x_0 + ((1 - bar) / bar).sqrt().to(x_0.dtype) * noise
        return (bar.sqrt() * x_0 + (1 - bar).sqrt() * noise).to(x_0.dtype)

    def scale_model_input(self, x: Tensor, t: Any) -> Tensor:
        if self.kind != "Euler":
            return x
        return (x * self._bar(int(t)).sqrt()).to(x.dtype)

    def step(self, answer: Tensor, t: Any, x: Tensor) -> dict[str, Tensor]:
        i = self.timesteps.tolist().index(int(t))
        rest = self.timesteps.tolist()[i + 1 :]
        bar, before = self._bar(int(t)), self._bar(rest[0] if rest else -1)
        if self.kind == "Euler":
            here, there = (((1 - b) / b).sqrt() for b in (bar, before))
            x_0 = _x_0_of(self.predicts, bar.sqrt() * x, answer, bar)
            return {"prev_sample": (x + (there - here) * (x - x_0) / here).to(x.dtype)}
        x_0 = _x_0_of(self.predicts, x, answer, bar)
        eps = (x - bar.sqrt() * x_0) / (1 - bar).sqrt()
        eta = 1.0 if self.kind == "DDPM" else self.eta
        sigma = eta * ((1 - before) / (1 - bar) * (1 - bar / before)).sqrt()
        x = before.sqrt() * x_0 + (1 - before - sigma**2).clamp(min=0).sqrt() * eps
        x = x + sigma * self.fresh(x)
        return {"prev_sample": x.to(answer.dtype), "x_0": x_0.to(answer.dtype)}


def scheduler(choices: Choices) -> Made:
    """An object that steps."""
    kind = choices.of("kind", ("DDPM", "DDIM", "Euler"))
    predicts = choices.of("predicts", ("eps", "x_0", "v"))
    table = Table(choices, predicts == "eps" or kind == "Euler", [T for T in STEPS if T >= 10])
    facts = {"predicts": predicts, "scale": "ve" if kind == "Euler" else "vp"}
    if choices.of("β", ("stated", "its own")) == "stated":
        facts["betas"] = table.betas
    return Scheduler(choices, table, predicts, kind), facts


MAKERS: dict[str, Callable[[Choices], Made]] = {
    "marginal": marginal,
    "transition": transition,
    "posterior": posterior,
    "step": step,
    "sampler": sampler,
    "loss": loss,
    "weighting": weighting,
    "time_sampling": time_sampling,
    "guidance": guidance,
    "ema": ema,
    "embedding": embedding,
    "langevin": langevin,
    "likelihood": likelihood,
    "schedule": schedule,
    "scheduler": scheduler,
}
# Half of all are of the process itself.
OFTEN = ("marginal", "transition", "posterior", "step", "sampler", "loss")
ROLES = (*MAKERS, *OFTEN, "step", "sampler", "loss")


def case(seed: int, role: str | None = None) -> Case:
    """The right implementation of this seed; one role after another unless it is given."""
    name = role or ROLES[seed % len(ROLES)]
    choices = Choices(seed)
    subject, facts = MAKERS[name](choices)
    return Case(seed, name, subject, facts, " ".join(choices.words))
