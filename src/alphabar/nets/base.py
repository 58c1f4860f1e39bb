"""What a network is: numbers and a label in, numbers out. It knows no diffusion.

    net(x, label)  or  net(x, label, cond)  →  (B, *shape), or (B, outputs, *shape) if outputs > 1

A spec such as `mlp:width=64` names a kind of network; how large an item is, and what it may be
conditioned on, is known only when there are data. So a spec makes a `Recipe`, and a recipe a net.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from alphabar.arguments import check_whole
from alphabar.condition import Condition
from alphabar.spec import Family, Named

NETS = Family("network")


class Task(NamedTuple):
    """What a network is to work on."""

    shape: tuple[int, ...]  # of an item
    seed: int  # of its first weights
    outputs: int = 1  # answers of an item's shape
    classes: int = 0  # conditioned on a class, 0..classes−1, if above 0
    numbers: int = 0  # or on so many numbers


@dataclass(frozen=True)
class Recipe(Named):
    """Makes a network for a task; knows the spec that makes it again.

    Args:
        make: the network for a task, with its first weights.
        fit: the recipe for items of a shape, where some of it is chosen by that.
    """

    make: Callable[[Task], nn.Module]
    fit: Callable[[tuple[int, ...]], "Recipe"] | None = None

    def fitted(self, shape: tuple[int, ...]) -> "Recipe":
        """The recipe with nothing left to the shape of an item: its spec makes the same for ever.

        What is chosen by the shape may be chosen otherwise one day; a run must not change then.
        """
        return self if self.fit is None else self.fit(shape)

    def build(
        self,
        shape: tuple[int, ...],
        seed: int,
        outputs: int = 1,
        classes: int = 0,
        numbers: int = 0,
    ) -> nn.Module:
        """The network, with its first weights.

        Args:
            shape: of an item.
            seed: of the weights; the global generator is left as it was.
            outputs: how many answers of an item's shape.
            classes: how many classes it may be conditioned on.
            numbers: how many numbers it may be conditioned on, in place of a class.

        Raises:
            ValueError: both classes and numbers.
        """
        if classes and numbers:
            raise ValueError(
                f"classes = {classes} and numbers = {numbers}: a network is conditioned on a class "
                "or on numbers; write the class as numbers (one-hot) to have both"
            )
        seed = check_whole("seed", seed, 0, 2**64 - 1) % 2**63
        # Layers draw their first weights from the global generator.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.make(Task(shape, seed, outputs, classes, numbers))


class Fourier(nn.Module):
    """v ↦ [v, sin(v·F), cos(v·F)] with a fixed random matrix F, saved with the weights."""

    frequencies: Tensor

    def __init__(self, d: int, n: int, scale: float) -> None:
        super().__init__()
        self.register_buffer("frequencies", scale * torch.randn(d, n))
        self.size = d + 2 * n

    def forward(self, v: Float[Tensor, "B d"]) -> Float[Tensor, "B features"]:
        """The features of v."""
        phase = v @ self.frequencies
        return torch.cat([v, phase.sin(), phase.cos()], 1)


class ConditionEmbedding(nn.Module):
    """Condition → a vector of `width` numbers, learned; items without one have a vector too.

    Dropping the condition of some items while training teaches the network both the conditional and
    the unconditional answer (Ho & Salimans 2022, algorithm 1).
    """

    def __init__(self, classes: int, numbers: int, width: int) -> None:
        super().__init__()
        self.classes, self.numbers = classes, numbers
        if classes:
            self.table = nn.Embedding(classes + 1, width)  # the first row: none
            nn.init.zeros_(self.table.weight)
        else:
            self.line = nn.Linear(numbers, width)
            self.none = nn.Parameter(torch.zeros(width))
            nn.init.zeros_(self.line.weight)
            nn.init.zeros_(self.line.bias)

    def forward(self, cond: Condition | None, n: int) -> Float[Tensor, "n width"]:
        """The vector of each of n items.

        Raises:
            TypeError: a condition of the wrong kind.
            ValueError: another number of items or numbers, a class that there is not.
        """
        if self.classes:
            if cond is None:
                return self.table.weight[:1].expand(n, -1)
            if cond.is_floating_point():
                raise TypeError(
                    f"the condition has dtype {cond.dtype}: this network is conditioned on a class "
                    f"from 0 to {self.classes - 1}, int64"
                )
            if cond.shape != (n,) or cond.min() < -1 or cond.max() >= self.classes:
                raise ValueError(
                    f"the condition has shape {tuple(cond.shape)} and values {int(cond.min())} to "
                    f"{int(cond.max())}: give each of the {n} items a class from 0 to "
                    f"{self.classes - 1}, or -1 for none"
                )
            return self.table(cond + 1)
        if cond is None:
            return self.none.expand(n, -1)
        if not cond.is_floating_point() or cond.shape != (n, self.numbers):
            raise ValueError(
                f"the condition has shape {tuple(cond.shape)} and dtype {cond.dtype}: give each of "
                f"the {n} items {self.numbers} real numbers, NaN for none"
            )
        known = ~cond.isnan().any(1, keepdim=True)
        return torch.where(known, self.line(cond.nan_to_num()), self.none)


class Told(nn.Module):
    """Label and condition of each item, as `width` numbers for all layers.

    e = silu(W_2·silu(W_1·features(label)) + embedding(condition))
    """

    def __init__(self, task: Task, width: int) -> None:
        super().__init__()
        label = Fourier(1, 16, 1.0)
        self.label = nn.Sequential(
            label, nn.Linear(label.size, width), nn.SiLU(), nn.Linear(width, width)
        )
        conditioned = task.classes or task.numbers
        self.condition = (
            ConditionEmbedding(task.classes, task.numbers, width) if conditioned else None
        )

    def forward(
        self, label: Float[Tensor, " B"], cond: Condition | None
    ) -> Float[Tensor, "B width"]:
        """The numbers of each item.

        Raises:
            TypeError: a condition, and a network that takes none.
        """
        e = self.label(label[:, None])
        if self.condition is not None:
            e = e + self.condition(cond, len(label))
        else:
            refuse(cond)
        return functional.silu(e)


def refuse(cond: Condition | None) -> None:
    """Refuse a condition, of a network that takes none.

    Raises:
        TypeError: there is one.
    """
    if cond is not None:
        raise TypeError("this network takes no condition: build it with classes or numbers")


def check_pictures(task: Task, name: str) -> Task:
    """The task, of pictures.

    Raises:
        ValueError: items of another kind.
    """
    if len(task.shape) != 3:
        raise ValueError(
            f"{name} is a network for pictures, (C, H, W), and an item has shape {task.shape}: "
            "take mlp"
        )
    return task
