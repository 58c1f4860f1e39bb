"""A network of the person's own, by its import path: `mynets:Net`.

    Net(**task) → a module;    module(x, label)  or  module(x, label, cond)  →  (B, *shape)

`task` are those of shape, outputs, classes and numbers that the callable takes. A run keeps the
path and not the code, and opening a run never imports it: the person names it again.
"""

import inspect
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from alphabar.condition import Condition
from alphabar.imports import imported, is_import_path
from alphabar.nets.base import NETS, Recipe, Task


def recipe(spec: str) -> Recipe:
    """The recipe of a spec, or of what an import path names, which is imported.

    Raises:
        ValueError: an unknown name, a malformed spec, or a path that leads to nothing.
    """
    if not is_own(spec):
        return NETS.parse(spec)
    make = imported(spec, "--net")
    return _Named(lambda task: Own(make, spec, task), path=spec)


def is_own(spec: str) -> bool:
    """Whether a spec is an import path."""
    return is_import_path(spec) and spec.partition(":")[0] not in NETS


@dataclass(frozen=True)
class _Named(Recipe):
    path: str = ""

    @property
    def spec(self) -> str:
        return self.path


class Own(nn.Module):
    """What an import path names, for a task; what it answers is looked at.

    Args:
        make: a class, or a function that returns a module.
        name: what to call it in errors.
        task: what it is to work on.

    Raises:
        ValueError: it raises, or makes no module.
    """

    def __init__(self, make: object, name: str, task: Task) -> None:
        super().__init__()
        self._name, self._task = name, task
        given = task._asdict()
        given.pop("seed")  # the global generator is at it
        try:
            assert callable(make)
            takes = inspect.signature(make).parameters
            every = any(p.kind == p.VAR_KEYWORD for p in takes.values())
            net = make(**{k: v for k, v in given.items() if every or k in takes})
        except Exception as error:
            raise ValueError(
                f"--net {name}: making it raises {type(error).__name__}: {error}; of shape, "
                "outputs, classes and numbers it is given those that it takes"
            ) from error
        if not isinstance(net, nn.Module):
            raise ValueError(f"--net {name} gives {type(net).__name__}: it must be a torch module")
        self.net = net

    def forward(
        self, x: Float[Tensor, "B ..."], label: Float[Tensor, " B"], cond: Condition | None = None
    ) -> Float[Tensor, "B ..."]:
        """Its answer.

        Raises:
            ValueError: it raises, or answers in another shape.
        """
        given = () if cond is None else (cond,)
        try:
            answer = self.net(x, label, *given)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            raise ValueError(
                f"--net {self._name}: called with x {tuple(x.shape)} and label {tuple(label.shape)}"
                f"{' and a condition' if given else ''} it raises {type(error).__name__}: {error}"
            ) from error
        outputs = self._task.outputs
        expected = (len(x), *((outputs,) if outputs > 1 else ()), *self._task.shape)
        shape = tuple(getattr(answer, "shape", ()))
        if not isinstance(answer, Tensor) or shape != expected:
            raise ValueError(
                f"--net {self._name} answers {type(answer).__name__} of shape {shape}: it must be "
                f"a tensor of shape {expected}"
            )
        return answer
