"""What a function does to its inputs: a sum of them with coefficients, and noise.

    f(u_1, …, u_k) = Σ a_i·u_i + c + b·z,    z ~ a law of mean 0 and variance 1

Every step of a diffusion process, forward or back, is of this form at a fixed t, so that measuring
it is measuring a few numbers, by least squares over many items. What torch and numpy's functions
draw at random is recorded and counts as an input: then b is as exact as a. Noise from elsewhere is
left over, and its size and law are estimated, with their errors.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64
from scipy import stats  # type: ignore[import-untyped]
from torch import Tensor
from torch.overrides import TorchFunctionMode

from alphabar.check.chance import FAR, ONE

_NORMAL = {"randn", "randn_like", "normal", "normal_"}
_UNIFORM = {"rand", "rand_like", "uniform_"}
_NUMPY: Mapping[str, "Law"] = {
    "randn": "normal",
    "standard_normal": "normal",
    "normal": "normal",
    "rand": "uniform",
    "random": "uniform",
    "uniform": "uniform",
}
# A residual of this share of the result is rounding in float32.
ROUNDING = 3e-5
_LOW = 1e-3  # more than that is rounding in half precision

Law = Literal["none", "normal", "uniform", "other"]


class Recorder(TorchFunctionMode):
    """Keeps what torch draws at random, while it is on.

    Args:
        coarse: how many numbers of one draw, one for each item, are rounded to a few values, so
            that times that a function draws itself come up again and again; 0: none.
    """

    def __init__(self, coarse: int = 0) -> None:
        super().__init__()
        self.draws: list[tuple[Law, Tensor]] = []
        self.coarse = coarse
        self._patched: dict[str, Any] = {}

    def __enter__(self) -> "Recorder":
        """Also numpy's own draws of standard numbers, by its functions."""
        for name, law in _NUMPY.items():
            self._patched[name] = getattr(np.random, name)
            setattr(np.random, name, self._of_numpy(self._patched[name], law))
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        for name, function in self._patched.items():
            setattr(np.random, name, function)

    def _of_numpy(self, function: Any, law: Law) -> Callable[..., Any]:
        def drawn(*args: Any, **kwargs: Any) -> Any:
            result = function(*args, **kwargs)
            if isinstance(result, np.ndarray):
                # Of another mean and size: what a standard one would have been.
                values = torch.from_numpy(result.copy()).double()
                mean, size = _standard(function.__name__, args, kwargs)
                self.draws.append((law, (values - mean) / size))
            return result

        return drawn

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Call the function, and look at what it gave."""
        result = function(*args, **(kwargs or {}))
        name = getattr(function, "__name__", "")
        law: Law | None = "normal" if name in _NORMAL else "uniform" if name in _UNIFORM else None
        if law and isinstance(result, Tensor) and result.numel() == self.coarse > 0:
            few = (
                (8 * result).floor().add(0.5).div(8)
                if law == "uniform"
                else (2 * result).round() / 2
            )
            result.copy_(few)
        if law and isinstance(result, Tensor):
            standard = _made_standard(name, result.detach().clone(), args, kwargs or {})
            if standard is not None:
                self.draws.append((law, standard))
        return result


def _made_standard(
    name: str, result: Tensor, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Tensor | None:
    """What would have been drawn of mean 0 and size 1, or of [0, 1]; None where nobody can say."""
    if name not in ("normal", "normal_", "uniform_"):
        return result
    given = args[1:] if name.endswith("_") else args
    first, second = ("from", "to") if name == "uniform_" else ("mean", "std")
    low = given[0] if given else kwargs.get(first, 0.0)
    high = given[1] if len(given) > 1 else kwargs.get(second, 1.0)
    size = high - low if name == "uniform_" else high
    if not bool((torch.as_tensor(size) != 0).all()):
        return None
    return (result - low) / size


def _standard(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, Any]:
    """Mean and size, or lower end and width, of numpy's draws."""
    first, second = {"normal": ("loc", "scale"), "uniform": ("low", "high")}.get(name, ("", ""))
    if not first:
        return 0.0, 1.0
    low = args[0] if args else kwargs.get(first, 0.0)
    high = args[1] if len(args) > 1 else kwargs.get(second, 1.0)
    return low, (high if name == "normal" else high - low)


class NotFinite(ValueError):
    """A result that is NaN or infinite."""


class Value(NamedTuple):
    """A number that was measured, and its standard error."""

    value: float
    error: float


@dataclass(frozen=True)
class Affine:
    """The coefficients, at one t.

    Args:
        of: of each input.
        constant: c.
        noise: b, with the law of z scaled to variance 1.
        law: of z.
        exact: whether nothing was left over but rounding.
        shares: whether items, or numbers of an item, had noise in common.
        leans: the input on whose size that of the noise depends.
        count: of numbers that it was measured on.
    """

    of: Mapping[str, Value]
    constant: Value
    noise: Value
    law: Law
    exact: bool
    shares: str = ""
    leans: str = ""
    count: int = 0


def measure(
    call: Callable[[], Tensor],
    inputs: Mapping[str, Float[Tensor, "n ..."]],
    rounding: float = ROUNDING,
) -> Affine:
    """The coefficients of what `call` makes of these inputs; see `fit`."""
    with Recorder() as recorder:
        result = call()
    return fit(result, inputs, recorder.draws, rounding)


def fit(
    result: Float[Tensor, "n ..."],
    inputs: Mapping[str, Float[Tensor, "n ..."]],
    draws: Sequence[tuple[Law, Tensor]],
    rounding: float = ROUNDING,
) -> Affine:
    """The coefficients of a result in what it may depend on.

    Args:
        result: (n, …).
        inputs: of the result's shape, linearly independent.
        draws: what was drawn at random on the way, with its law.
        rounding: of the result, as a share of its size.

    Raises:
        NotFinite: a result that is not.
    """
    if not result.isfinite().all():
        raise NotFinite("the result is not finite")
    if result.is_floating_point():
        rounding = max(rounding, 4 * torch.finfo(result.dtype).eps)
    result = result.detach().double().cpu().flatten(1)
    names = list(inputs)
    columns = [inputs[name].double().reshape(-1) for name in names]
    drawn: list[tuple[Law, Tensor]] = []
    for law, draw in draws:
        shared = _spread(draw, result)
        if shared is not None:
            drawn.append((law, shared))
    size = result.square().mean().sqrt().item()
    full = [*columns, *(d.reshape(-1) for _, d in drawn)]
    found, left = least_squares(full, result)
    if left <= rounding * size + 1e-12:
        # Rounding of a result to few digits is as good as random.
        error = left if rounding <= _LOW else 2 * left / math.sqrt(result.numel())
        one = _exact(names, found, drawn, size, error)
        # Noise that was not recorded, and is as small as that, hides behind it.
        return one if drawn else replace(one, noise=Value(one.noise.value, max(left, error)))
    found, left = least_squares(columns, result)
    one = _estimated(names, columns, found, result)
    if rounding > _LOW:  # which is noise too
        own = one.noise
        one = replace(one, noise=Value(own.value, own.error + rounding * size))
    return one


def _spread(draw: Tensor, result: Tensor) -> Tensor | None:
    """A draw in the result's shape; None of one that does not fit it."""
    try:
        return draw.double().cpu().flatten(1).expand_as(result)
    except (RuntimeError, IndexError):
        return None


def least_squares(columns: list[Tensor], result: Tensor) -> tuple[Float64[Tensor, " k"], float]:
    """Coefficients of the columns and of 1, and the root mean square of what is left."""
    matrix = torch.stack([*columns, torch.ones(result.numel(), dtype=torch.float64)], 1)
    # A draw may be a multiple of another: the shortest solution.
    found = torch.linalg.lstsq(matrix, result.reshape(-1, 1), driver="gelsy").solution[:, 0]
    left = (matrix @ found - result.reshape(-1)).square().mean().sqrt().item()
    return found, left


def _exact(
    names: list[str],
    found: Float64[Tensor, " k"],
    drawn: list[tuple[Law, Tensor]],
    size: float,
    left: float,
) -> Affine:
    error = max(left, 1e-7 * size)
    values = {name: Value(found[i].item(), error) for i, name in enumerate(names)}
    weights = found[len(names) : -1].tolist()
    constant = found[-1].item()
    variance, shares = 0.0, ""
    laws: list[Law] = []
    used: list[float] = []
    # A draw that something else was made of may have a weight that is rounding.
    least = max(10 * error, 1e-3 * max(map(abs, weights), default=0.0))
    for weight, (of_draw, draw) in zip(weights, drawn, strict=True):
        if abs(weight) <= least:
            continue
        constant += weight * (0.5 if of_draw == "uniform" else 0.0)
        variance += weight**2 * (1 / 12 if of_draw == "uniform" else 1.0)
        laws.append(of_draw)
        used.append(weight)
        shares = shares or _shared(draw)
    law: Law = "none" if not laws else "other" if len({*laws}) > 1 else laws[0]
    if law == "uniform" and len(laws) > 1 and max(used) - min(used) <= 10 * error:
        law = "other"  # numbers that were added up; those of a chain have weights of their own
    sign = math.copysign(1.0, sum(weights)) if len(weights) == 1 else 1.0
    noise = Value(sign * math.sqrt(variance), error)
    return Affine(values, Value(constant, error), noise, law, True, shares)


def _shared(noise: Float64[Tensor, "n d"]) -> str:
    """Whether all items, or all numbers of an item, have the same noise."""
    if len(noise) > 1 and (noise == noise[:1]).all():
        return "all items"
    if noise.shape[1] > 1 and (noise == noise[:, :1]).all():
        return "all numbers of an item"
    return ""


def _estimated(
    names: list[str],
    columns: list[Tensor],
    found: Float64[Tensor, " k"],
    result: Float64[Tensor, "n d"],
) -> Affine:
    matrix = torch.stack([*columns, torch.ones(result.numel(), dtype=torch.float64)], 1)
    rest = result.reshape(-1) - matrix @ found
    n, std = len(rest), rest.std().item()
    # Of numbers that are all alike there is no inverse, and no error that is too large.
    errors = std * torch.linalg.pinv(matrix.T @ matrix).diagonal().clamp(0).sqrt()
    values = {name: Value(found[i].item(), errors[i].item()) for i, name in enumerate(names)}
    z = (rest / std).numpy()
    fourth = float((z**4).mean())
    noise = Value(std, std * math.sqrt(max(fourth - 1, 0.1) / (4 * n)))
    size = result.square().mean().sqrt().item()
    if std <= 1e-3 * size:  # rounding has no law
        values_ = Value(found[-1].item(), errors[-1].item())
        return Affine(values, values_, Value(std, std), "normal", False, count=n)
    leans = ""
    for name, column in zip(names, columns, strict=True):
        r = float(np.corrcoef(z**2, column.abs().numpy())[0, 1])
        if abs(r) > FAR / math.sqrt(n):
            leans = name
            break
    spread = rest.view_as(result)
    shares = ""
    for axis, who in ((0, "all items"), (1, "all numbers of an item")):
        along = spread.shape[axis]
        # Of independent ones the mean has a share 1/along of the variance; of the same, all.
        if n > 1000 and along > 1 and spread.mean(axis).var().item() > (1 + 1 / along) / 2 * std**2:
            shares = who
    constant = Value(found[-1].item(), errors[-1].item())
    return Affine(values, constant, noise, _law(z), False, shares, leans, n)


def _law(z: np.ndarray[Any, np.dtype[np.float64]]) -> Law:
    """Normal or uniform, by Kolmogorov and Smirnov, at one false alarm in 10⁹."""
    if stats.kstest(z, "norm").pvalue > ONE:
        return "normal"
    half = math.sqrt(3)
    if stats.kstest(z, "uniform", args=(-half, 2 * half)).pvalue > ONE:
        return "uniform"
    return "other"
