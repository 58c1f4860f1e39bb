"""Every operator against its dense matrix."""

import math

import pytest
import torch
from torch import Tensor

from alphabar.operators import Blur, Downscale, Grey, Identity, Mask, Operator, dense


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


HOLES = torch.arange(24).reshape(4, 6) % 3 > 0
OPERATORS: dict[str, Operator] = {
    "identity": Identity((3, 4)),
    "mask of points": Mask(torch.tensor([True, False, True, True, False]), (5,)),
    "mask of pictures": Mask(HOLES, (2, 4, 6)),
    "downscale points": Downscale((6,), 3),
    "downscale pictures": Downscale((2, 4, 6), 2),
    "luminance": Grey((3, 2, 4)),
    "mean of channels": Grey((2, 3)),
    "blur points": Blur((7,), 0.8),
    "blur pictures": Blur((2, 4, 5), 0.7),
    "blur by a kernel": Blur((1, 4, 5), normal(3, 5, seed=9)),
}
each = pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)


@each
def test_the_adjoint_is_the_transpose(operator: Operator) -> None:
    x, y = normal(1, *operator.shape), normal(1, *operator.output_shape, seed=1)
    ax, aty = operator.apply(x), operator.adjoint(y)
    assert (ax.shape, aty.shape) == (y.shape, x.shape)
    torch.testing.assert_close((ax * y).sum(), (x * aty).sum(), rtol=1e-12, atol=1e-12)


@each
def test_solve_is_the_dense_one(operator: Operator) -> None:
    A = dense(operator)
    v = normal(3, *operator.output_shape, seed=2)
    for a, b in ((1.0, 0.3), (0.2, 2.0), (0.0, 0.5)):
        M = a * A @ A.T + b * torch.eye(len(A), dtype=torch.float64)
        expected = torch.linalg.solve(M, v.flatten(1).T).T.reshape(v.shape)
        torch.testing.assert_close(operator.solve(a, b, v), expected, rtol=1e-9, atol=1e-9)
    pinv = v.flatten(1) @ torch.linalg.pinv(A @ A.T, hermitian=True)
    torch.testing.assert_close(operator.solve(1.0, 0.0, v).flatten(1), pinv, rtol=1e-6, atol=1e-6)


@each
def test_gram_and_its_largest_eigenvalue(operator: Operator) -> None:
    A = dense(operator)
    values, vectors = torch.linalg.eigh(A @ A.T)
    assert operator.largest == pytest.approx(values[-1].item())
    v = normal(2, *operator.output_shape, seed=3)
    expected = v.flatten(1) @ (vectors * torch.exp(-values)) @ vectors.T
    found = operator.gram(lambda x: torch.exp(-x), v).flatten(1)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_what_they_keep() -> None:
    """On items so small that the answer can be read off."""
    x = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    assert Downscale((4,), 2).apply(x).tolist() == [[1.5, 3.5]]
    assert Mask(torch.tensor([False, True, False, True]), (4,)).apply(x).tolist() == [[2.0, 4.0]]
    white = torch.ones(1, 3, 2, 2)
    torch.testing.assert_close(Grey((3, 2, 2)).apply(white), torch.ones(1, 1, 2, 2))
    red = white * torch.tensor([1.0, 0.0, 0.0])[:, None, None]
    torch.testing.assert_close(Grey((3, 2, 2)).apply(red), torch.full((1, 1, 2, 2), 0.299))


def test_blur_is_a_convolution_on_a_ring() -> None:
    kernel = torch.tensor([0.5, 0.3, 0.2])  # the kernel's first number looks at the next item
    x = normal(1, 6).float()
    expected = 0.3 * x + 0.5 * x.roll(-1, 1) + 0.2 * x.roll(1, 1)
    torch.testing.assert_close(Blur((6,), kernel).apply(x), expected)
    flat = torch.full((1, 1, 5, 6), 2.5)
    torch.testing.assert_close(Blur((1, 5, 6), 1.3).apply(flat), flat)
    peak = torch.zeros(1, 101)
    peak[0, 50] = 1
    spread = Blur((101,), 3.0).apply(peak)[0]
    at = torch.arange(101) - 50.0
    assert (spread @ at).item() == pytest.approx(0, abs=1e-4)
    assert math.sqrt((spread @ at.square()).item()) == pytest.approx(3.0, rel=1e-3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Mask(torch.ones(5, dtype=torch.bool), (4,)), r"shape \(5,\).*\(4,\)"),
        (lambda: Mask(torch.zeros(4, dtype=torch.bool), (4,)), "no number at all"),
        (lambda: Downscale((3, 8, 9), 2), "factor = 2 does not divide 8 × 9"),
        (lambda: Downscale((4,), 0), "factor = 0"),
        (lambda: Grey((1, 4, 4)), "grey already"),
        (lambda: Grey((5,)), "grey already"),
        (lambda: Grey((3, 4, 4), [1.0, 2.0]), "for 3 channels"),
        (lambda: Blur((4, 4), 0.0), "std = 0"),
        (lambda: Blur((4, 4), torch.ones(2, 3)), "odd sizes"),
        (lambda: Blur((4, 4), torch.ones(5, 3)), "no larger"),
        (lambda: Blur((4, 4), torch.zeros(3, 3)), "0 throughout"),
        (lambda: Identity(()), "an axis at least"),
        (lambda: Identity((2,)).apply(torch.zeros(5, 3)), r"\(5, 3\)"),
        (lambda: Grey((3, 2)).adjoint(torch.zeros(5, 2)), r"takes a batch"),
    ],
)
def test_refuses(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]


def test_a_mask_is_of_booleans() -> None:
    with pytest.raises(TypeError):  # jaxtyping answers here, the library elsewhere
        Mask(torch.ones(4), (4,))
