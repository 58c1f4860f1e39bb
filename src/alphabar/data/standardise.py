"""Columns of any unit, brought to mean 0 and variance 1, and back.

z = (x − mean)/std,    x = mean + std·z
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Standardiser:
    """The mean and the population standard deviation of each of d columns, float64.

    Raises:
        ValueError: the two differ in length, or a std is not a positive number.
    """

    mean: Float64[Tensor, " d"]
    std: Float64[Tensor, " d"]

    def __post_init__(self) -> None:
        if self.mean.ndim != 1 or self.mean.shape != self.std.shape:
            raise ValueError(
                f"mean has shape {tuple(self.mean.shape)} and std {tuple(self.std.shape)}: "
                "each must hold one number per column"
            )
        wrong = ~((self.std > 0) & self.std.isfinite() & self.mean.isfinite())
        if wrong.any():
            i = int(wrong.nonzero()[0])
            raise ValueError(
                f"column {i} has mean {self.mean[i]:g} and std {self.std[i]:g}: the mean must be "
                "a number and the std a positive one; fit the data anew"
            )

    @classmethod
    def fit(cls, x: Float[Tensor, "N d"], columns: Sequence[str] = ()) -> "Standardiser":
        """The mean and standard deviation of each column of x.

        Args:
            x: points.
            columns: names for the error messages.

        Raises:
            ValueError: a column that does not vary or is not finite, which has no scale.
        """
        x = x.double()
        for i, column in enumerate(x.unbind(1)):
            name = repr(columns[i]) if i < len(columns) else str(i)
            if not column.isfinite().all():
                raise ValueError(
                    f"column {name} holds NaN or infinity: every value must be a number; "
                    "remove or fill those rows"
                )
            far = column.abs().max().item() if len(column) else 0.0
            if not (1e-140 < far < 1e140 or far == 0):
                raise ValueError(
                    f"column {name} holds numbers of the size of {far:.3g}, whose squares are "
                    "out of range: give it in another unit"
                )
            # The mean of equal numbers may be off by a rounding, so std == 0 would not see them.
            if len(column) == 0 or column.min() == column.max() or column.std(correction=0) == 0:
                value = f"{column[0]:g} in every row" if len(column) else "empty"
                raise ValueError(
                    f"column {name} is {value}: a column must vary to be scaled to variance 1; "
                    "remove it from the data"
                )
        return cls(x.mean(0), x.std(0, correction=0))

    def apply(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """z = (x − mean)/std, in x's dtype."""
        return ((x - self.mean.to(x.device)) / self.std.to(x.device)).to(x.dtype)

    def invert(self, z: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """x = mean + std·z, in z's dtype."""
        return (self.mean.to(z.device) + self.std.to(z.device) * z).to(z.dtype)

    def to_dict(self) -> dict[str, list[float]]:
        """For JSON; `from_dict` gives back the same bits."""
        return {"mean": self.mean.tolist(), "std": self.std.tolist()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Standardiser":
        """The standardiser that `to_dict` wrote.

        Raises:
            ValueError: `mean` or `std` is missing or is not a list of numbers.
        """
        try:
            mean, std = (
                torch.tensor(list(values[key]), dtype=torch.float64) for key in ("mean", "std")
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"a standardiser needs `mean` and `std`, a list of numbers each ({error!r}): "
                "write it with to_dict"
            ) from None
        return cls(mean, std)
