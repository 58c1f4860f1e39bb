"""Models made into denoisers: x̂_0 = E[x_0 | x_t], at any level, in any scale.

Whatever a model predicts, and however its input and output are scaled,

    x̂_0 = c_skip·x + c_out·model(c_in·x, label),    x = f·x_t,  α ← f·α,  σ ← f·σ

where f brings x_t into the scale that the model was trained in: f = 1/√(α² + σ²) if that preserves
variance, 1/α if it lets variance explode, 1/(α + σ) for flow. c_skip and c_out are a row of the
table in `predict` (c_in = 1), or a preconditioning, such as Karras et al. 2022, table 1, written
for any scale: with s the data's standard deviation and √v = √(σ² + α²·s²) that of x,

    c_skip = α·s²/v,    c_out = σ·s/√v,    c_in = 1/√v

so that the network's input and its ideal output have variance 1 at every level. With α = 1 it is
theirs.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal, NamedTuple, cast, get_args

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn

from alphabar.arguments import check_number, check_whole
from alphabar.condition import Condition
from alphabar.predict import (
    Kind,
    Number,
    add,
    any_zero,
    check_kind,
    coefficients,
    combine,
    describe,
    numbers,
    scale,
)
from alphabar.schedule import Level, Schedule
from alphabar.storage import chunks


class Coefficients(NamedTuple):
    """x̂_0 = skip·x + out·model(inner·x, label)."""

    skip: Number
    out: Number
    inner: Number


# Given the model's own α and σ: its coefficients.
Preconditioning = Callable[[Number, Number], Coefficients]
# Given a level: how the model is told of it, one number for all items or one each.
Label = Callable[[Level], Float64[Tensor, "*B"] | Int64[Tensor, "*B"]]


def edm(std: float) -> Preconditioning:
    """EDM's preconditioning, in any scale, for data of this standard deviation (EDM: 0.5).

    Raises:
        ValueError: std ≤ 0.

    Source: Karras et al. 2022, table 1.
    """
    std = check_number("std", std, 0, math.inf, "a standard deviation > 0", open_low=True)
    return lambda alpha, sigma: _edm(std, alpha, sigma)


def _edm(std: float, alpha: Number, sigma: Number) -> Coefficients:
    share = std / _hypot(sigma, alpha * std)
    return Coefficients(alpha * share * share, sigma * share, share / std)


# --- how a model is told the level


def by_log_snr(level: Level) -> Float64[Tensor, "*B"]:
    """λ = log(α²/σ²), as in Kingma et al. 2021. Infinite at both ends of a schedule."""
    return level.log_snr


def by_log_sigma(level: Level) -> Float64[Tensor, "*B"]:
    """log(σ/α)/4: Karras et al. 2022, table 1 (c_noise). Infinite at both ends of a schedule."""
    return level.log_snr / -8


def by_flow_time(level: Level) -> Float64[Tensor, "*B"]:
    """σ/(α + σ), from 0 (clean) to 1 (noise): the time of flow matching.

    For a model whose time runs the other way, or to 1000, give a function of this one.
    """
    return level.sigma / (level.alpha + level.sigma)


def by_step(schedule: Schedule, first: int, rounded: bool = False) -> Label:
    """The step of the schedule that the model was trained on, found by log-SNR.

        t + first − 1,    with λ_t = λ of the level, on straight lines between the table's λ

    Args:
        schedule: the training schedule, in any scale.
        first: what the model calls the first noisy level, t = 1: 0 in Ho et al.'s code, diffusers
            and most others, 1 in the papers.
        rounded: to the step whose λ is nearest, int64, for models that look t up in a table.

    A level outside λ_T..λ_1 is the nearer of the two: the model knows no other. Where ᾱ_T = 0
    (λ_T = −inf) the last line runs in α/σ instead.
    """
    check_whole("first", first, 0, 1)
    log_snr = schedule.log_snr[1:]
    rising, last = -log_snr, len(log_snr) - 1

    def label(level: Level) -> Float64[Tensor, "*B"] | Int64[Tensor, "*B"]:
        found = level.log_snr.to(log_snr.device).clamp(log_snr[last], log_snr[0])
        if last == 0:
            t = torch.zeros_like(found)
        else:
            i = torch.searchsorted(rising, -found).clamp(1, last)
            before, after = log_snr[i - 1], log_snr[i]
            line = (before - found) / (before - after)
            to_noise = 1 - ((found - before) / 2).exp()
            t = i - 1 + torch.where(after.isinf(), to_noise, line)
        return t.round().long() + first if rounded else t + first

    return label


# --- denoisers


@dataclass(frozen=True)
class ModelDenoiser:
    """Any model, of any prediction, preconditioning and scale, as a denoiser.

    Args:
        model: (x, label) → output of x's shape. x has x_t's dtype; the label is (B,), in float32
            (float64 for float64 x_t), or int64 if `label` gives whole numbers. Bind a condition
            with `functools.partial`.
        predicts: x_0, eps, v, score or flow, or a preconditioning such as `edm(0.5)`.
        trained_in: the scale of the model's x: `vp`, `ve` (EDM's) or `flow`. v, score and
            flow mean what they mean in that scale.
        label: what the model is told of a level: `by_log_snr`, `by_log_sigma`, `by_flow_time`,
            `by_step(schedule, first)`, or a function of your own.

    A network of Ho et al. or diffusers, and one of EDM:

    >>> from alphabar import schedule
    >>> net = lambda x, label: torch.zeros_like(x)
    >>> ddpm = ModelDenoiser(net, "eps", "vp", by_step(schedule.linear(), first=0))
    >>> ve = ModelDenoiser(net, edm(0.5), "ve", by_log_sigma)
    >>> ddpm(torch.ones(4, 2), schedule.karras(18)[9]).shape
    torch.Size([4, 2])
    """

    model: Callable[..., Any]
    predicts: Kind | Preconditioning
    trained_in: Literal["vp", "ve", "flow"]
    label: Label

    def __post_init__(self) -> None:
        if not callable(self.predicts):
            check_kind(self.predicts)
        if self.trained_in not in ("vp", "ve", "flow"):
            raise ValueError(f"trained_in = {self.trained_in!r}: choose vp, ve or flow")

    def __call__(self, x_t: Float[Tensor, "B ..."], level: Level) -> Float[Tensor, "B ..."]:
        """x̂_0 for x_t at one level, or one level an item; in x_t's dtype, differentiable in x_t.

        NaN passes through: the sampling loop refuses it, and names its t.

        Raises:
            TypeError: the model returns something that is not a tensor.
            ValueError: it returns another shape, or no floating-point numbers; a label that is not
                finite, or neither one nor one an item; α = 0 in a scale or for a prediction that
                has no meaning there; a wrong number of levels.
        """
        alpha, sigma = numbers(level)
        factor = self._factor(alpha, sigma)
        skip, out, inner = self._coefficients(alpha * factor, sigma * factor)
        output = self.model(scale(inner * factor, x_t), self._label(level, x_t))
        if not isinstance(output, Tensor):
            raise TypeError(
                f"the model returned a {type(output).__name__}, not a tensor; wrap it in a "
                "function that takes the tensor out, such as lambda x, t: net(x, t).sample"
            )
        if output.shape != x_t.shape:
            raise ValueError(
                f"{describe(alpha, sigma)}: the model returned shape {tuple(output.shape)} for x "
                f"of shape {tuple(x_t.shape)}: they must agree; if it predicts a variance too, "
                "take the first half of its channels"
            )
        if not output.is_floating_point():
            raise ValueError(
                f"{describe(alpha, sigma)}: the model returned dtype {output.dtype}: it must "
                "return real numbers in floating point"
            )
        return combine(skip * factor, x_t, out, output)

    def _factor(self, alpha: Number, sigma: Number) -> Number:
        if self.trained_in == "vp":
            return 1 / _hypot(alpha, sigma)
        if self.trained_in == "flow":
            return 1 / (alpha + sigma)
        if any_zero(alpha):
            raise ValueError(
                f"{describe(alpha, sigma)}: pure noise has no place in the variance-exploding "
                "scale, where this model was trained (its sigma would be inf); start at a level "
                "with alpha > 0"
            )
        return 1 / alpha

    def _coefficients(self, alpha: Number, sigma: Number) -> Coefficients:
        if callable(self.predicts):
            return self.predicts(alpha, sigma)
        return Coefficients(*coefficients(self.predicts, "x_0", alpha, sigma), 1.0)

    def _label(self, level: Level, x_t: Tensor) -> Tensor:
        label = self.label(level)
        if label.ndim and label.shape != x_t.shape[:1]:
            raise ValueError(
                f"the label has shape {tuple(label.shape)} for {len(x_t)} items: it must be one "
                "number, or one an item"
            )
        if label.is_floating_point():
            if not label.isfinite().all():
                raise ValueError(
                    f"{describe(*numbers(level))}: the model's label is not finite; clamp it, such "
                    "as lambda level: by_log_snr(level).clamp(-20, 20)"
                )
            # Half precision cannot tell step 999 from 1000.
            label = label.to(torch.promote_types(x_t.dtype, torch.float32))
        return label.to(x_t.device).expand(len(x_t))


PREDICTIONS = ("edm", *get_args(Kind))


class Moments(NamedTuple):
    """What a network need not learn: the mean of each number, and one standard deviation of all."""

    mean: Float64[Tensor, "..."]
    std: Float64[Tensor, ""]

    @classmethod
    def of(cls, x_0: Float[Tensor, "N ..."]) -> "Moments":
        """The mean and standard deviation of a data set.

        Raises:
            ValueError: data that do not vary.
        """
        mean = reduce(torch.add, (part.double().sum(0) for part in chunks(x_0))) / len(x_0)
        squares = ((part.double() - mean).square().sum() for part in chunks(x_0))
        std = (reduce(torch.add, squares) / x_0.numel()).sqrt()
        if not std > 0:
            raise ValueError(
                f"the data do not vary (standard deviation {std:g}): there is nothing to learn; "
                "give at least two different items"
            )
        return cls(mean, std)


class NetDenoiser(nn.Module):
    """A network to be trained, as a denoiser in any scale, of data centred on their mean.

        x̂_0 = m + c_skip·y + c_out·net(c_in·y, label),    y = x_t − α·m,  c_in = 1/√(σ² + α²·s²)

    By `edm` all of it is finite at α = 0 (pure noise), and at σ = 0 it returns x_t itself. The
    data's mean m and standard deviation s are stored with the weights.

    Args:
        net: (items, label) → items, or (items, label, condition) → items.
        data: m (one per number) and s (one for all): `Moments.of(x_0)`.
        predicts: `edm` for its preconditioning, or what the network's answer is to mean: x_0, eps,
            v, score or flow, of the centred data in the variance-preserving scale.
        label: what the network is told of a level; None: λ/4, kept within ±5.
        learns_variance: the network answers twice, (B, 2, …): the second is `with_variance`'s mix.

    Raises:
        ValueError: an unknown prediction.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        net: nn.Module,
        data: Moments,
        predicts: Kind | Literal["edm"] = "edm",
        label: Label | None = None,
        learns_variance: bool = False,
    ) -> None:
        super().__init__()
        if predicts not in PREDICTIONS:
            raise ValueError(f"predicts = {predicts!r}: choose {', '.join(PREDICTIONS)}")
        self.net, self.predicts, self.label = net, predicts, label
        self.learns_variance = learns_variance
        self.register_buffer("mean", data.mean.float())
        self.register_buffer("std", data.std.double())
        self._std = data.std.item()  # a float costs the loop nothing

    def forward(
        self, x_t: Float[Tensor, "B ..."], level: Level, cond: Condition | None = None
    ) -> Float[Tensor, "B ..."]:
        """x̂_0 for x_t at one level, or one level an item.

        Raises:
            ValueError: α = 0 for a prediction that has no meaning there (eps, score).
        """
        return self._both(x_t, level, cond)[0]

    def with_variance(
        self, x_t: Float[Tensor, "B ..."], level: Level, cond: Condition | None = None
    ) -> tuple[Float[Tensor, "B ..."], Float[Tensor, "B ..."]]:
        """x̂_0, and where between its bounds, at −1 and 1, the network sees the variance of a step.

        Raises:
            TypeError: the network learns no variance.
        """
        x_0_hat, mix = self._both(x_t, level, cond)
        if mix is None:
            raise TypeError(
                "this denoiser learns no variance: train one with the objective hybrid (in Python "
                "made with learns_variance=True), or choose variance=posterior or beta"
            )
        return x_0_hat, mix

    def given(self, cond: Condition | int) -> "Given":
        """The denoiser of p(x_0 | condition): of one class for all items, or a condition each."""
        return Given(self, cond)

    def _both(
        self, x_t: Float[Tensor, "B ..."], level: Level, cond: Condition | None
    ) -> tuple[Float[Tensor, "B ..."], Float[Tensor, "B ..."] | None]:
        alpha, sigma = numbers(level)
        skip, out, inner = self._coefficients(alpha, sigma)
        wide = torch.promote_types(x_t.dtype, self.mean.dtype)
        mean = self.mean.to(wide)
        centred = add(x_t.to(wide), -alpha, mean.expand_as(x_t))
        # A network with weights works in their precision, what is around it in that of x_t.
        weight = next(self.net.parameters(), None)
        seen = scale(inner, centred).to(wide if weight is None else weight.dtype)
        given = () if cond is None else (cond,)
        answer = self.net(seen, self._label(level, seen), *given)
        mix = None
        if self.learns_variance:
            answer, mix = answer.unbind(1)
        return add(add(mean, skip, centred), out, answer).to(x_t.dtype), mix

    def _coefficients(self, alpha: Number, sigma: Number) -> Coefficients:
        found = _edm(self._std, alpha, sigma)
        if self.predicts == "edm":
            return found
        factor = 1 / _hypot(alpha, sigma)
        skip, out = coefficients(self.predicts, "x_0", alpha * factor, sigma * factor)
        return Coefficients(skip * factor, out, found.inner)

    def _label(self, level: Level, x: Float[Tensor, "B ..."]) -> Float[Tensor, " B"]:
        if self.label is None:
            return _quarter_log_snr(level, x)
        return self.label(level).to(x.device, x.dtype).expand(len(x))

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._std = self.std.item()


@dataclass(frozen=True, eq=False)
class Given:
    """A trained denoiser, told what each item is to be.

    Args:
        denoiser: that is told it.
        cond: a class for all items, or a condition each.
    """

    denoiser: NetDenoiser
    cond: Condition | int

    @property
    def std(self) -> Tensor:
        """Of the data."""
        return self.denoiser.std

    def __call__(self, x_t: Float[Tensor, "B ..."], level: Level) -> Float[Tensor, "B ..."]:
        """E[x_0 | x_t, condition], as learned."""
        return cast(Tensor, self.denoiser(x_t, level, self._each(x_t)))

    def with_variance(
        self, x_t: Float[Tensor, "B ..."], level: Level
    ) -> tuple[Float[Tensor, "B ..."], Float[Tensor, "B ..."]]:
        """As of the denoiser.

        Raises:
            TypeError: the network learns no variance.
        """
        return self.denoiser.with_variance(x_t, level, self._each(x_t))

    def _each(self, x_t: Float[Tensor, "B ..."]) -> Condition:
        if isinstance(self.cond, Tensor):
            return self.cond
        return torch.full((len(x_t),), self.cond, dtype=torch.int64, device=x_t.device)


_LEAST, _MOST = math.exp(-10), math.exp(10)


def _quarter_log_snr(level: Level, x: Float[Tensor, "B ..."]) -> Float[Tensor, " B"]:
    """λ/4 within ±5, one for each item of x."""
    alpha, sigma = numbers(level)
    if isinstance(alpha, float) and isinstance(sigma, float):
        ratio = min(max(alpha / sigma, _LEAST), _MOST) if sigma else _MOST
        return torch.full((len(x),), math.log(ratio) / 2, dtype=x.dtype, device=x.device)
    return (level.log_snr / 4).clamp(-5, 5).to(x.device, x.dtype).expand(len(x))


def _hypot(a: Number, b: Number) -> Number:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.hypot(a, b)
    return math.hypot(a, b)
