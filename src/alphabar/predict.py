"""What a model may predict, and how each prediction says the same as x̂_0.

    x_t = α·x_0 + σ·ε            in any scale: α² + σ² = 1, α = 1, α + σ = 1 or none of them

    kind     it is                  x̂_0 from it
    x_0      x_0                    output
    eps      ε                      (x_t − σ·output)/α
    v        α·ε − σ·x_0            (α·x_t − σ·output)/(α² + σ²)
    score    ∇log p(x_t) = −ε/σ     (x_t + σ²·output)/α
    flow     ε − x_0                (x_t − σ·output)/(α + σ)

Each is p·x_0 + q·ε, and so is x_t, with p = α and q = σ. Two such sums determine x_0 and ε, hence
every third one, by Cramer's rule: from (p, q) and x_t to (p′, q′),

    output′ = a·x_t + b·output,    a = (p′·q − q′·p)/D,  b = (α·q′ − σ·p′)/D,  D = α·q − σ·p

Expectations given x_t obey the same equations. Sources: Ho, Jain, Abbeel 2020, eq. (15) (eps);
Salimans & Ho 2022, section 4 (v); Song et al. 2021, eq. (9), and Vincent 2011 (score); Lipman et
al. 2023 and Liu et al. 2023 (flow, with time running from data to noise).

At the ends of the schedule:

- σ = 0 (clean data): x_t says nothing about ε, so E[ε | x_t] = 0: from x̂_0, eps and v are 0 and
  flow is −x̂_0. x̂_0 from any other kind is x_t/α, whatever was predicted. The score has no value:
  a `ValueError`.
- α = 0 (pure noise): eps and score say nothing about x_0; they give one another and nothing else:
  a `ValueError`. x_0, v and flow are sound.

Between the ends, what one kind leaves undetermined cannot come back: x̂_0 from eps has the
rounding errors of x_t and eps, times σ/α; eps from x̂_0 those of x_t and x̂_0, times α/σ.
"""

from typing import Literal, get_args

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from alphabar.schedule import Level, align

Kind = Literal["x_0", "eps", "v", "score", "flow"]
# A float for all items, or one number each. Not a 0-dim tensor: its arithmetic costs tens of times
# that of floats, which is felt where a small network is called a thousand times.
Number = float | Float64[Tensor, "*B"]


def to_x_0(
    kind: Kind, output: Float[Tensor, "B ..."], x_t: Float[Tensor, "B ..."], level: Level
) -> Float[Tensor, "B ..."]:
    """x̂_0 from a prediction of this kind: `convert(kind, "x_0", …)`."""
    return convert(kind, "x_0", output, x_t, level)


def from_x_0(
    kind: Kind, x_0_hat: Float[Tensor, "B ..."], x_t: Float[Tensor, "B ..."], level: Level
) -> Float[Tensor, "B ..."]:
    """A prediction of this kind from x̂_0: `convert("x_0", kind, …)`."""
    return convert("x_0", kind, x_0_hat, x_t, level)


def convert(
    source: Kind,
    target: Kind,
    output: Float[Tensor, "B ..."],
    x_t: Float[Tensor, "B ..."],
    level: Level,
) -> Float[Tensor, "B ..."]:
    """The prediction of kind `target` that says the same as `output`, of kind `source`.

    Directly, not by way of x̂_0, which would lose what x̂_0 cannot hold: near clean data eps → v
    keeps its digits.

    Args:
        source, target: x_0, eps, v, score or flow; see the table above.
        output: what was predicted, (B, …).
        x_t: what it was predicted from, (B, …).
        level: the level of x_t, one or one per item, in x_t's scale.

    Returns:
        (B, …) in x_t's dtype; half precision is rounded once.

    Raises:
        TypeError: output or x_t is not of a floating-point dtype.
        ValueError: output and x_t differ in shape; an unknown kind; at α = 0, another kind from eps
            or score; at σ = 0, score from another kind; a wrong number of levels.
    """
    if output.shape != x_t.shape:
        raise ValueError(
            f"the prediction has shape {tuple(output.shape)}, x_t has {tuple(x_t.shape)}: "
            "they must agree"
        )
    a, b = coefficients(source, target, *numbers(level))
    return combine(a, x_t, b, output)


def coefficients(source: Kind, target: Kind, alpha: Number, sigma: Number) -> tuple[Number, Number]:
    """The a and b of output′ = a·x_t + b·output above, in float64.

    Raises:
        ValueError: an unknown kind; an end of the schedule where `target` cannot be made from
            `source`.
    """
    check_kind(source)
    check_kind(target)
    if source == target:
        return 0.0, 1.0
    # score = ε/(−σ), so it goes in and out as ε.
    if source == "score":
        a, b = coefficients("eps", target, alpha, sigma)
        return a, -sigma * b
    if target == "score":
        if any_zero(sigma):
            raise ValueError(
                f"{describe(alpha, sigma)}: clean data have no score (it is −ε/σ); ask for it at a "
                "level with sigma > 0"
            )
        a, b = coefficients(source, "eps", alpha, sigma)
        return a / -sigma, b / -sigma
    p, q = _parts(source, alpha, sigma)
    p_, q_ = _parts(target, alpha, sigma)
    if source == "x_0":
        # D = −σ. At σ = 0, ε is 0 in the mean, and so is what stands before it here.
        inverse = _inverse_or_zero(sigma)
        return q_ * inverse, p_ - alpha * q_ * inverse
    if source == "eps" and any_zero(alpha):
        raise ValueError(
            f"{describe(alpha, sigma)}: in pure noise a prediction of eps or score says nothing "
            f"about {target}; use a model that predicts x_0, v or flow there, or start at a level "
            "with alpha > 0"
        )
    determinant = alpha * q - sigma * p
    return (p_ * q - q_ * p) / determinant, (alpha * q_ - sigma * p_) / determinant


def check_kind(kind: Kind) -> None:
    """Raises ValueError for what is none of the kinds."""
    if kind not in get_args(Kind):
        raise ValueError(f"kind = {kind!r}: a prediction is one of {', '.join(get_args(Kind))}")


def numbers(level: Level) -> tuple[Number, Number]:
    """α and σ as floats if there is one level, else as they are."""
    alpha, sigma = level
    if alpha.ndim or sigma.ndim or alpha.requires_grad or sigma.requires_grad:
        return alpha, sigma
    return alpha.item(), sigma.item()


def combine(
    a: Number, x: Float[Tensor, "B ..."], b: Number, y: Float[Tensor, "B ..."]
) -> Float[Tensor, "B ..."]:
    """a·x + b·y in x's dtype, rounded to half precision once; y itself if a = 0 and b = 1.

    Raises:
        TypeError: x or y is not of a floating-point dtype.
        ValueError: as many coefficients as items, or one, are needed.
    """
    if not (x.is_floating_point() and y.is_floating_point()):
        raise TypeError(
            f"dtypes {x.dtype} and {y.dtype}: diffusion needs real numbers; call .float()"
        )
    if isinstance(a, float) and isinstance(b, float) and (a, b) == (0, 1):
        return y.to(x.dtype)
    wide = torch.promote_types(torch.promote_types(x.dtype, y.dtype), torch.float32)
    return add(scale(a, x.to(wide)), b, y.to(wide)).to(x.dtype)


def scale(a: Number, x: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
    """a·x in x's dtype, rounded to half precision once."""
    return a * x if isinstance(a, float) else (align(a, x) * x).to(x.dtype)


def add(x: Float[Tensor, "..."], b: Number, y: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
    """x + b·y in the wider of their dtypes, rounded to half precision once."""
    if isinstance(b, float):
        return torch.add(x, y, alpha=b)
    return torch.addcmul(x, align(b, y), y).to(torch.result_type(x, y))


def describe(alpha: Number, sigma: Number) -> str:
    """The level, or the range of levels, for errors."""
    return f"at alpha = {_range(alpha)}, sigma = {_range(sigma)}"


def _range(value: Number) -> str:
    if isinstance(value, float):
        return f"{value + 0.0:.6g}"
    low, high = (v.item() + 0.0 for v in value.aminmax())  # −0 + 0 = 0
    return f"{low:.6g}" if low == high else f"{low:.6g} to {high:.6g}"


def _parts(kind: Kind, alpha: Number, sigma: Number) -> tuple[Number, Number]:
    """The p and q of p·x_0 + q·ε; of score, those of ε."""
    table: dict[Kind, tuple[Number, Number]] = {
        "x_0": (1.0, 0.0),
        "eps": (0.0, 1.0),
        "v": (-sigma, alpha),
        "flow": (-1.0, 1.0),
    }
    return table[kind]


def any_zero(value: Number) -> bool:
    """Whether a coefficient is 0 anywhere."""
    return value == 0 if isinstance(value, float) else bool((value == 0).any())


def _inverse_or_zero(value: Number) -> Number:
    if isinstance(value, float):
        return 1 / value if value else 0.0
    return torch.where(value == 0, 0.0, 1 / value)
