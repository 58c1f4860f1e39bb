"""Calling a stranger's function: which argument is which, and what it gives back.

Names say nothing here: a function is tried in every order of its arguments in which it could have
been meant, and behaviour decides.
"""

import inspect
import itertools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

MANY_RESULTS = 4  # of one shape
_WORDS = (str, bool, torch.device, torch.dtype)

# How a step is handed over: one number for all items or one for each, of one type or another.
T_FORMS: Mapping[str, Callable[[Tensor], object]] = {
    "t: int64 (B,)": lambda t: t,
    "t: int": lambda t: t[0].item(),
    "t: int64 ()": lambda t: t[0],
    "t: int64 (1,)": lambda t: t[:1],
    "t: int64 (B, 1)": lambda t: t[:, None],
    "t: float (B,)": lambda t: t.float(),
}


class CannotCheck(Exception):
    """Why a function could not be checked, and what to do."""


@dataclass
class Stranger:
    """A function of somebody else's.

    Args:
        function: any callable.
        given: arguments that the person has stated, by name.
    """

    function: Callable[..., Any]
    given: Mapping[str, object] = field(default_factory=dict)
    modified: bool = False  # whether it has changed what it was handed
    most: int = 0  # numbers in the largest tensor that came back last

    @property
    def name(self) -> str:
        """What the person calls it."""
        return getattr(self.function, "__qualname__", type(self.function).__name__)

    def parameters(self) -> list[inspect.Parameter]:
        """Those that are left to fill by position.

        Raises:
            CannotCheck: a callable that does not say what it takes.
        """
        try:
            found = list(inspect.signature(self.function).parameters.values())
        except (TypeError, ValueError):
            raise CannotCheck(
                f"{self.name} does not say which arguments it takes; wrap it: lambda x_0, t: ..."
            ) from None
        if any(p.kind == p.VAR_POSITIONAL for p in found):
            raise CannotCheck(f"{self.name} takes *args: say which, as in lambda x_0, t: f(x_0, t)")
        for p in found:
            if p.kind == p.KEYWORD_ONLY and p.default is p.empty and p.name not in self.given:
                raise CannotCheck(f"{self.name} needs {p.name}: give it, given={{{p.name!r}: ...}}")
        places = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        left = [p for p in found if p.kind in places and p.name not in self.given]
        # What is a word, a switch or a device of itself is no place for a tensor.
        return list(itertools.takewhile(lambda p: not isinstance(p.default, _WORDS), left))

    def __call__(self, *values: object, keep_graph: bool = False) -> list[Tensor]:
        """The tensors that it returns, whatever it packs them in."""
        handed = [v.clone() if isinstance(v, Tensor) else v for v in values]
        try:
            result = self.function(*handed, **self.given)
        except CannotCheck:
            raise
        except SystemExit:
            raise CannotCheck("it ends Python (sys.exit)") from None
        except Exception as error:
            raise CannotCheck(f"{type(error).__name__}: {error}") from error
        self.modified |= any(
            isinstance(v, Tensor) and not torch.equal(v, h)  # type: ignore[arg-type]
            for v, h in zip(values, handed, strict=True)
        )
        found = tensors_of(result)
        self.most = max((t.numel() for t in found), default=0)
        return [t if keep_graph else t.detach() for t in found]


def tensors_of(result: object) -> list[Tensor]:
    """All tensors in what a function returns, in their order."""
    if isinstance(result, Tensor):
        return [result if result.layout == torch.strided else result.to_dense()]
    if isinstance(result, np.ndarray | np.generic | float | int):
        array = np.asarray(result)
        return [torch.as_tensor(array)] if array.dtype.kind in "biufc" else []
    if isinstance(result, Mapping):
        return [t for value in result.values() for t in tensors_of(value)]
    if isinstance(result, list) and result and all(isinstance(v, int | float) for v in result):
        return [torch.tensor(result)]
    if isinstance(result, Sequence) and not isinstance(result, str):
        return [t for value in result for t in tensors_of(value)]
    if hasattr(result, "__dict__"):
        return [t for value in vars(result).values() for t in tensors_of(value)]
    return []


@dataclass(frozen=True)
class Way:
    """One way of calling a function.

    Args:
        order: what goes where.
        t_form: a key of `T_FORMS`.
        picked: which of the tensors that come back is meant.
        others: all that it may be, by their shape.
    """

    order: tuple[str, ...]
    t_form: str
    picked: int
    others: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"called with ({', '.join(self.order)}), {self.t_form}".removesuffix(", no t")

    def call(
        self, stranger: Stranger, values: Mapping[str, Any], keep_graph: bool = False
    ) -> Tensor:
        """What comes back; with its graph, for a gradient in what a model has answered."""
        results = stranger(*self.handed(values), keep_graph=keep_graph)
        if not -len(results) <= self.picked < len(results):
            raise CannotCheck(
                f"{stranger.name} gave {len(results)} results where it gave more before"
            )
        return results[self.picked]

    def handed(self, values: Mapping[str, Any]) -> list[object]:
        """The arguments, in their order."""
        return [_formed(k, values[k], self.t_form) for k in self.order]


def _formed(name: str, value: Any, form: str) -> object:
    if name == "index":  # beside t, which is one for each item
        return value[0].item()
    return T_FORMS[form](value) if name in ("t", "s") else value


def ways(
    stranger: Stranger,
    tried: Mapping[str, Any],
    needed: Sequence[str],
    shape: Sequence[int],
    any_type: bool = False,
) -> Iterator[Way]:
    """All ways that work: no error, and a finite result of the right shape.

    Args:
        stranger: the function.
        tried: a value for everything that it might take.
        needed: what it must take.
        shape: of the result.
        any_type: whether whole numbers will do, as of pictures.

    Raises:
        CannotCheck: no way works; says what came nearest.
    """
    parameters = stranger.parameters()
    least = sum(p.default is inspect.Parameter.empty for p in parameters)
    if len(parameters) < len(needed):
        raise CannotCheck(
            f"{stranger.name} takes {len(parameters)} arguments, and {', '.join(needed)} are needed"
        )
    if least > len(tried):
        names = ", ".join(p.name for p in parameters[len(tried) : least])
        raise CannotCheck(
            f"{stranger.name} takes {least} arguments, and only {', '.join(tried)} can be made up: "
            f"give the rest by name, as in given={{{parameters[least - 1].name!r}: ...}} ({names})"
        )
    # What is a number unless it is given is no place for items.
    small = {i for i, p in enumerate(parameters) if type(p.default) in (int, float)}
    items = {name for name, value in tried.items() if isinstance(value, Tensor) and value.ndim > 1}
    said, found = "", False
    for k in range(max(least, len(needed)), min(len(parameters), len(tried)) + 1):
        for order in itertools.permutations(tried, k):
            if not {*needed} <= {*order} or any(order[i] in items for i in small if i < k):
                continue
            for form in T_FORMS if "t" in order else ["no t"]:
                handed = [_formed(name, tried[name], form) for name in order]
                try:
                    results = stranger(*handed)
                except CannotCheck as error:
                    said = said or str(error)
                    continue
                fitting = [
                    i
                    for i, result in enumerate(results)
                    if tuple(result.shape) == tuple(shape)
                    and (any_type or result.is_floating_point())
                ]
                if len(fitting) > MANY_RESULTS:  # all that was passed on the way: the last is meant
                    fitting = [fitting[-1] - len(results)]
                for picked in fitting:
                    found = True
                    yield Way(order, form, picked, tuple(fitting))
    if not found:
        raise CannotCheck(
            f"{stranger.name} gave nothing of shape {tuple(shape)} for {', '.join(tried)} in any "
            f"order; {said or 'look at what it returns'}"
        )


def question(values: Sequence[Any], shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The x among what a model was asked, and the t of each of its items.

    Raises:
        CannotCheck: there is no x of that shape, or no t.
    """
    said = [torch.as_tensor(v) for v in values if isinstance(v, int | float | Tensor)]
    x = next((v for v in said if v.shape == tuple(shape)), None)
    t = next((v.flatten() for v in said if v is not x), None)
    if x is None or t is None:
        raise CannotCheck(
            f"the model was asked without an x of shape {tuple(shape)} and a t: call it as "
            "model(x, t)"
        )
    if len(t) not in (1, len(x)):
        raise CannotCheck(f"the model was told {len(t)} t for {len(x)} items: one, or one each")
    return x, t.expand(len(x))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """All global generators at a seed; afterwards as they were."""
    before = random.getstate(), np.random.get_state()  # noqa: NPY002, strangers use it
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        random.seed(seed)
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])  # noqa: NPY002
