"""Exact targets: a p(x_0) whose density, score and denoiser are known at every noise level.

`Points` (a finite data set), `Mixture` (Gaussians) and `Curve` (the Swiss roll itself) are each a
`Target`; `target_of(data)` is the law that a data set is drawn from, where that is known, else its
own points.
"""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from torch import Tensor

from alphabar.targets.base import Target
from alphabar.targets.curve import Curve
from alphabar.targets.mixture import Mixture
from alphabar.targets.points import Points

__all__ = ["Curve", "Mixture", "Points", "Target", "target_of"]


@runtime_checkable
class Drawn(Protocol):
    """Items, and the law they were drawn from, as in `alphabar.data.Data`."""

    @property
    def x(self) -> Tensor:
        """The items."""

    @property
    def target(self) -> Callable[[], Target] | None:
        """The exact p(x_0), where it is known."""


def target_of(data: Drawn) -> Target:
    """The exact p(x_0) of a data set: the law it was drawn from, or its own points.

    >>> from alphabar import data
    >>> target_of(data.load("swiss_roll:n=10"))
    <Curve in 2 dimensions, noise 0.1>
    >>> target_of(data.load("checkerboard:n=10"))
    <10 Points of shape (2,)>
    """
    return Points(data.x) if data.target is None else data.target()
