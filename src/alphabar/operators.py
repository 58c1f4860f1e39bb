"""What damages an item: linear operators A that keep some of its numbers and lose the others.

    y = A·x_0 + σ_y·n,    n ~ N(0, I)

    Identity    y = x_0                                    A·Aᵀ = I
    Mask        the numbers that are known                 A·Aᵀ = I
    Downscale   the mean of each block of f^k numbers      A·Aᵀ = I/f^k
    Grey        Σ_c w_c·(channel c)                        A·Aᵀ = I·Σ w_c²
    Blur        a circular convolution, F⁻¹·diag(h)·F      A·Aᵀ = F⁻¹·diag(|h|²)·F

All that posterior sampling asks of A beside A and Aᵀ is a function of A·Aᵀ, such as an inverse, and
every operator here has one in closed form (`gram`). Items have any shape; the last two axes (or the
only one) are those of space.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from alphabar.arguments import check_number, check_whole

# A function of an eigenvalue, applied to many of them.
OfEigenvalues = Callable[[Float64[Tensor, "..."]], Float64[Tensor, "..."]]

LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601: what Pillow's mode "L" keeps of red, green, blue


class Operator(ABC):
    """A linear A from items of `shape` to measurements of `output_shape`.

    Raises (every method):
        ValueError: a batch of items of another shape than was announced.
    """

    shape: tuple[int, ...]
    output_shape: tuple[int, ...]

    def apply(self, x: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
        """A·x, item by item; differentiable."""
        return self._apply(_batch("x", x, self.shape))

    def adjoint(self, y: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
        """Aᵀ·y, item by item."""
        return self._adjoint(_batch("y", y, self.output_shape))

    def gram(self, f: OfEigenvalues, v: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
        """f(A·Aᵀ)·v: f of the eigenvalues λ ≥ 0, given in float64."""
        return self._gram(f, _batch("v", v, self.output_shape))

    def solve(self, a: float, b: float, v: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
        """(a·A·Aᵀ + b·I)⁻¹·v, exactly.

        Where it is singular, its pseudoinverse: eigenvalues below 10⁻¹² of the largest count as 0.
        """

        def inverse(eigenvalues: Float64[Tensor, "..."]) -> Float64[Tensor, "..."]:
            total = a * eigenvalues + b
            lost = total <= 1e-12 * total.max()
            return (1 / total.masked_fill(lost, 1)).masked_fill(lost, 0)

        return self.gram(inverse, v)

    @property
    @abstractmethod
    def largest(self) -> float:
        """The largest eigenvalue of A·Aᵀ."""

    @abstractmethod
    def _apply(self, x: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]: ...

    @abstractmethod
    def _adjoint(self, y: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]: ...

    def _gram(self, f: OfEigenvalues, v: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
        """Where A·Aᵀ = λ·I, f is one number."""
        return v * f(torch.tensor(self.largest, dtype=torch.float64)).item()


class Identity(Operator):
    """All numbers are kept: what is left is to take the noise away."""

    def __init__(self, shape: Sequence[int]) -> None:
        self.shape = self.output_shape = _shape(shape)

    @property
    def largest(self) -> float:
        """1."""
        return 1.0

    def _apply(self, x: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
        return x

    def _adjoint(self, y: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
        return y


class Mask(Operator):
    """The numbers that are known, one after the other: inpainting.

    Args:
        known: true where a number is known. A mask of the picture's height and width counts for
            each channel.
        shape: of the items.

    Raises:
        TypeError: a mask that is not of booleans.
        ValueError: a mask of another size than the items, or one that knows nothing.
    """

    def __init__(self, known: Bool[Tensor, "..."], shape: Sequence[int]) -> None:
        self.shape = _shape(shape)
        if known.dtype != torch.bool:
            raise TypeError(
                f"the mask has dtype {known.dtype}: it must be bool, true where a number is known"
            )
        if tuple(known.shape) not in (self.shape, self.shape[1:]):
            raise ValueError(
                f"the mask has shape {tuple(known.shape)} and items have {self.shape}: it must be "
                "of that shape, or of that without the channels"
            )
        if not known.any():
            raise ValueError("the mask knows no number at all: draw samples instead")
        self.known = known.expand(self.shape)
        self._index = self.known.flatten().nonzero().flatten()
        self.output_shape = (len(self._index),)

    @property
    def largest(self) -> float:
        """1."""
        return 1.0

    def _apply(self, x: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
        return x.flatten(1)[:, self._index.to(x.device)]

    def _adjoint(self, y: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
        x = y.new_zeros(len(y), math.prod(self.shape))
        x[:, self._index.to(y.device)] = y
        return x.view(len(y), *self.shape)


class Downscale(Operator):
    """The mean of each block of factor × factor numbers: superresolution.

    Raises:
        ValueError: a factor that does not divide the sizes.
    """

    def __init__(self, shape: Sequence[int], factor: int) -> None:
        self.shape = _shape(shape)
        self.factor = check_whole("factor", factor, 1, 2**20)
        space = self.shape[-2:]
        if any(size % factor for size in space):
            raise ValueError(
                f"factor = {factor} does not divide {' × '.join(map(str, space))}: take one that "
                "does, or crop the item"
            )
        self.output_shape = (*self.shape[:-2], *(size // factor for size in space))
        self._count = factor ** len(space)

    @property
    def largest(self) -> float:
        """1 over the numbers in a block."""
        return 1 / self._count

    def _apply(self, x: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
        space = self.output_shape[-2:]
        blocks = [part for size in space for part in (size, self.factor)]
        x = x.reshape(*x.shape[: -len(space)], *blocks)
        return x.mean([-1, -3][: len(space)])

    def _adjoint(self, y: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
        for axis in range(1, 1 + len(self.shape[-2:])):
            y = y.repeat_interleave(self.factor, -axis)
        return y / self._count


class Grey(Operator):
    """One channel, a weighted mean of all: what colorisation undoes.

    Args:
        shape: of the items, channels first.
        weights: one a channel. Luminance (BT.601) for three channels, else their mean.

    Raises:
        ValueError: items without channels, or of one; another number of weights.
    """

    def __init__(self, shape: Sequence[int], weights: Sequence[float] | None = None) -> None:
        self.shape = _shape(shape)
        channels = self.shape[0]
        if len(self.shape) < 2 or channels < 2:
            raise ValueError(
                f"items of shape {self.shape} are grey already: colour has two channels or more, "
                "(C, H, W)"
            )
        if weights is None:
            weights = LUMINANCE if channels == 3 else [1 / channels] * channels
        self.weights = torch.tensor(weights, dtype=torch.float64)
        if len(self.weights) != channels or not self.weights.any():
            raise ValueError(
                f"weights = {list(weights)} for {channels} channels: give one each, not all 0"
            )
        self.output_shape = (1, *self.shape[1:])

    @property
    def largest(self) -> float:
        """Σ w_c²."""
        return self.weights.square().sum().item()

    def _apply(self, x: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
        return torch.einsum("c,bc...->b...", self.weights.to(x), x)[:, None]

    def _adjoint(self, y: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
        return torch.einsum("c,b...->bc...", self.weights.to(y), y[:, 0])


class Blur(Operator):
    """A convolution with a kernel, alike for all channels. **The border is periodic**: what leaves
    on one side comes in on the other, so that Fourier's transform makes it diagonal.

    Args:
        shape: of the items.
        kernel: its standard deviation in numbers, for a Gaussian one; or the kernel itself, with an
            axis for each of space, odd sizes, its centre in the middle. It is taken as given: a
            blur's sums to 1.

    Raises:
        ValueError: a standard deviation that is not above 0; a kernel of even or larger sizes than
            the item, of other axes, or 0 throughout.
    """

    def __init__(self, shape: Sequence[int], kernel: float | Float[Tensor, "..."]) -> None:
        self.shape = self.output_shape = _shape(shape)
        space = self.shape[-2:]
        self._axes = tuple(range(-len(space), 0))
        if not isinstance(kernel, Tensor):
            rule = "a standard deviation > 0, in numbers"
            kernel = _gaussian(space, check_number("std", kernel, 0, math.inf, rule, open_low=True))
        elif kernel.ndim != len(space) or any(
            k % 2 == 0 or k > size for k, size in zip(kernel.shape, space, strict=True)
        ):
            raise ValueError(
                f"the kernel has shape {tuple(kernel.shape)} for items of {space}: it needs odd "
                "sizes, no larger than those"
            )
        else:
            whole = torch.zeros(space, dtype=torch.float64)
            whole[tuple(slice(k) for k in kernel.shape)] = kernel.double().cpu()
            kernel = whole.roll([-(k // 2) for k in kernel.shape], self._axes)
        self._h: Tensor = torch.fft.fftn(kernel)
        if not self._h.abs().max() > 0:
            raise ValueError("the kernel is 0 throughout: nothing of the item would be left")

    @property
    def largest(self) -> float:
        """max |h|²."""
        return self._h.abs().square().max().item()

    def _apply(self, x: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
        return self._filter(self._h, x)

    def _adjoint(self, y: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
        return self._filter(self._h.conj(), y)

    def _gram(self, f: OfEigenvalues, v: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
        return self._filter(f(self._h.abs().square()), v)

    def _filter(self, h: Tensor, x: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
        # In float64: a deblurring divides by small |h|.
        found = torch.fft.fftn(x.double(), dim=self._axes) * h.to(x.device)
        return torch.fft.ifftn(found, dim=self._axes).real.to(x.dtype)


def dense(operator: Operator) -> Float64[Tensor, "M D"]:
    """A as a matrix of flattened items: for small ones."""
    d = math.prod(operator.shape)
    eye = torch.eye(d, dtype=torch.float64).reshape(d, *operator.shape)
    return operator.apply(eye).flatten(1).T.contiguous()


def _gaussian(space: tuple[int, ...], std: float) -> Float64[Tensor, "..."]:
    """A normalised Gaussian around the first number, on a ring along each axis."""
    kernel = torch.ones((), dtype=torch.float64)
    for size in space:
        at = torch.arange(size, dtype=torch.float64)
        # Scaled by the nearest number, so that a tiny std leaves that one alone, and not NaN.
        line = (-(torch.minimum(at, size - at) / std).square() / 2).exp()
        kernel = kernel[..., None] * (line / line.sum())
    return kernel


def _shape(shape: Sequence[int]) -> tuple[int, ...]:
    found = tuple(check_whole("shape", size, 1, 2**40) for size in shape)
    if not found:
        raise ValueError("shape = (): items need an axis at least, such as (2,)")
    return found


def _batch(name: str, x: Float[Tensor, "..."], shape: tuple[int, ...]) -> Float[Tensor, "B ..."]:
    if x.ndim == 0 or tuple(x.shape[1:]) != shape:
        raise ValueError(
            f"{name} has shape {tuple(x.shape)}: this operator takes a batch (B, …) of {shape}"
        )
    return x
