"""Which of a module's functions are checked as what, and with which facts.

A name, or the person's word, says what a function is to be; whether it is, behaviour alone decides.
A function whose name says nothing is tried as what it could be, and is taken for it only where it
is right: nothing is called a bug that was only guessed.
"""

import functools
import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import CodeType, FunctionType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from alphabar.check.names import (
    LABEL_NAME,
    MODEL_NAME,
    STEPS_NAME,
    gives_of,
    is_conversion,
    is_vague,
    prediction,
    process_of,
    roles_of,
)
from alphabar.check.stranger import Stranger, seeded, tensors_of
from alphabar.check.tables import Table, as_betas, is_data, table_in, table_of, used

STEPS = 1000  # of a schedule, where nothing says how many
# Parameters that are tables: a module's own of the same name is meant.
_TABLE_NAME = re.compile(r"alpha|beta|sigma|sqrt|bar|prod|variance|schedule", re.IGNORECASE)
# What a function that is only guessed at may not do, as it is called with what it was not made for.
_DOES = {
    *("open", "save", "savefig", "imsave", "imwrite", "write", "write_text", "write_bytes", "dump"),
    *("mkdir", "makedirs", "remove", "unlink", "rename", "rmtree", "to_csv", "savez", "savetxt"),
    *("system", "Popen", "urlopen", "urlretrieve", "get_file", "download", "backward", "show"),
    *("input", "exit", "kill"),
}

GUESSES = ("marginal", "transition", "posterior", "step", "loss")
NEEDS_MODEL = ("step", "sampler", "loss", "guidance", "likelihood", "langevin")


@dataclass
class Task:
    """One thing to check.

    Args:
        name: what the person calls it.
        roles: what it may be; the first that it is right as, else the first.
        function: what is checked.
        facts: what the check of a role may take, by name: betas, predicts, …
        said: where the facts come from.
        stated: whether the person has said what the model predicts.
        guessed: whether only behaviour speaks for it.
        reads_table: whether it reads the β_t, so that it is of no other process.
        vague: whether its name is used for other things as well.
        process: the facts of a process in continuous time that names tell, where there is no table.
        why: what is in the way of a check.
    """

    name: str
    roles: tuple[str, ...]
    function: Any
    facts: dict[str, Any] = field(default_factory=dict)
    said: tuple[str, ...] = ()
    stated: bool = False
    guessed: bool = False
    reads_table: bool = False
    vague: bool = False
    process: Mapping[str, str] = field(default_factory=dict)
    why: str = ""


class Asked(NamedTuple):
    """What the person has said, as expressions in the module's names or as words."""

    roles: tuple[tuple[str, str], ...] = ()  # (role, expression)
    betas: str | None = None
    predicts: str | None = None
    scale: str | None = None
    given: tuple[tuple[str, str], ...] = ()  # (name, expression)


class Module:
    """A module that has run, and what is to be checked of it.

    Args:
        names: its globals.
        asked: what the person has said.
        own: the name that it ran under; what is of another module is left to that.

    Raises:
        ValueError: an expression that does not evaluate.
    """

    def __init__(self, names: dict[str, Any], asked: Asked, own: str) -> None:
        self.names, self.asked, self.own = names, asked, own
        self.given = {k: self.evaluated("--given", k, e) for k, e in asked.given}
        self.unrecognised: list[str] = []
        self.without_role: list[str] = []
        self.table: Table | None = None
        self.table = self._stated_table() or table_in(names) or self._computed_table()

    @property
    def steps(self) -> int:
        """T: of the table, else as a number of the file says, else a thousand."""
        if self.table is not None:
            return len(self.table.values)
        named = (v for k, v in self.names.items() if STEPS_NAME.fullmatch(k))
        return next((v for v in named if type(v) is int and v > 1), STEPS)

    def evaluated(self, option: str, name: str, expression: str) -> Any:
        """What an expression of the person's stands for.

        Raises:
            ValueError: it does not evaluate.
        """
        try:
            return eval(expression, {"torch": torch, "np": np, **self.names})
        except Exception as error:
            known = ", ".join(n for n in _public(self.names, self.own)[:12])
            raise ValueError(
                f"{option} {name}{'=' if name else ''}{expression}: {type(error).__name__}: {error}"
                f"; the module defines {known or 'nothing'}"
            ) from None

    def tasks(self) -> Iterator[Task]:
        """What is to be checked, the quick ones first as they stand in the file.

        Raises:
            ValueError: an expression of the person's that does not evaluate.
        """
        stated = []
        for role, expression in self.asked.roles:
            value = self.evaluated("--as", role, expression)
            stated.append(value)
            found = self._task(expression, (role,), value, getattr(value, "__self__", None))
            yield replace(found, vague=False)
        if self.table is not None:
            yield Task(self.table.name, ("schedule",), self.table.values, {"gives": "betas"})
        unknown = []
        for name in _public(self.names, self.own):
            value = self.names[name]
            if any(value is s or getattr(s, "__func__", s) is value for s in stated):
                continue
            if inspect.isclass(value):
                yield from self._of_class(name, value)
                continue
            roles = roles_of(name)
            if is_conversion(name):
                self.without_role.append(name)
            elif not roles:
                unknown.append((name, value))
            elif roles == ("schedule",):
                yield from self._of_schedule(name, value)
            else:
                yield self._task(name, roles, value)
        for name, value in unknown:
            if self.table is not None and could_be_tried(value):
                yield replace(self._task(name, GUESSES, value), guessed=True)
            else:
                self.unrecognised.append(name)

    # --- tasks of functions, schedules and classes

    def _task(
        self,
        name: str,
        roles: tuple[str, ...],
        value: Any,
        owner: Any = None,
        table: Table | None = None,
    ) -> Task:
        if self.asked.betas is None:
            reads = sorted(_globals_of(value, self.names))
            table = table or table_of(owner) or used(reads, self.names)
        reads_table = table is not None
        table = table or self.table
        if "time_sampling" in roles and len(roles) > 1:  # sample_timestep(x, t) is a step
            roles = roles[1:] if len(_needed(value)) > 1 else roles[:1]
        predicts = self.asked.predicts or _prediction(owner)
        facts = self._facts(value, table, predicts)
        if roles[0] == "marginal" and (gives := gives_of(name.rpartition(".")[2])) is not None:
            facts["gives"] = gives
        if {*roles} & {*NEEDS_MODEL}:
            value = with_model(value, owner, self.names)
            if roles != ("guidance",):
                value = labelled(value)
        said = [table.words] if table is not None else []
        if "learned" in str(getattr(owner, "variance_type", "")):
            facts["variance"] = "learned_range"
        given = facts["given"] | self._steps_of(value, roles[0], facts["T"])
        facts["given"] = given if inspect.isclass(value) else {}
        value = bound(value, given)
        taken = sorted({*given} - {*self.given})
        if taken:
            said.append(f"{', '.join(taken)} taken from the file")
        own = name.rpartition(".")[2].removesuffix("()")
        process = {} if table is not None else process_of(own, *_public(self.names, self.own))
        if process.get("predicts") == "score" and {"step", "sampler"} & {*roles}:
            process = {}  # their t need not be σ, and nothing says which σ it stands for
        return Task(
            name,
            roles,
            value,
            facts,
            tuple(said),
            predicts is not None,
            reads_table=reads_table,
            vague=is_vague(own),
            process=process,
        )

    def _facts(self, value: Any, table: Table | None, predicts: str | None) -> dict[str, Any]:
        steps = len(table.values) if table is not None else self.steps
        facts: dict[str, Any] = {"T": steps, "given": self._given(value, table)}
        if table is not None:
            facts["betas"] = table.values
        if predicts is not None:
            facts["predicts"] = predicts
        if self.asked.scale is not None:
            facts["scale"] = self.asked.scale
        decay = _default(value, "decay", "beta", "ema_decay")
        facts["decay"] = 0.99 if decay is None else decay
        # What the check itself takes, such as the range of the data.
        return facts | {k: v for k, v in self.given.items() if k not in facts["given"]}

    def _given(self, value: Any, table: Table | None) -> dict[str, Any]:
        """What a function is to be handed by name: what the person says, and tables of the file."""
        found: dict[str, Any] = {}
        for name, parameter in _parameters(value).items():
            needed = parameter.default is inspect.Parameter.empty
            if name in self.given:
                found[name] = self.given[name]
            elif name == "device" and (needed or "cuda" in str(parameter.default)):
                found[name] = "cpu"
            elif needed and self._helper(name) is not None:
                found[name] = self._helper(name)
            elif needed and _TABLE_NAME.search(name) and not STEPS_NAME.fullmatch(name):
                own = self.names.get(name)
                if is_data(own):
                    found[name] = own
                elif table is not None and re.fullmatch("betas?", name):
                    found[name] = table.values.float()
        return found

    def _helper(self, name: str) -> Any:
        """A function of the file that another is handed by its name, such as σ(t)."""
        if MODEL_NAME.fullmatch(name):
            return None
        for own in (self.names.get(f"{name}_fn"), self.names.get(name)):
            if isinstance(own, functools.partial | FunctionType):
                return own
        return None

    def _steps_of(self, value: Any, role: str, steps: int) -> dict[str, int]:
        """T, where a function must be told it. Of others the same name may stand for t."""
        if role not in ("sampler", "loss"):
            return {}
        found = [k for k in _needed(value) if STEPS_NAME.fullmatch(k) and k not in self.given]
        if role == "loss":
            found = [k for k in found if k == "T" or k.startswith(("n_", "num_"))]
        return dict.fromkeys(found, steps)

    def _of_schedule(self, name: str, value: Any) -> Iterator[Task]:
        """A function that makes a table of β_t; another of such a name makes something else."""
        made = self._made(value)
        if made is not None and self.table is not None and _equal(made, self.table.values):
            return  # it is checked as the table of the file
        if made is not None:
            facts = {"gives": "betas"}
            yield Task(f"{name}()", ("schedule",), made, facts, (f"T = {len(made)}",))
        else:
            self.unrecognised.append(name)

    def _made(self, value: Any) -> Tensor | None:
        """What a schedule's function gives, called with T alone or with nothing."""
        for values in ((self.steps,), ()):
            try:
                with seeded(0):
                    found = tensors_of(value(*values))
            except (Exception, SystemExit):
                continue
            if found and found[0].ndim == 1 and found[0].is_floating_point() and len(found[0]) > 1:
                return found[0].detach()
        return None

    def _of_class(self, name: str, made: type) -> Iterator[Task]:
        """A class as a whole, or its methods of known names, of an object that the file has."""
        roles = roles_of(name)
        if roles in (("ema",), ("guidance",)):  # made by the check, of a network of its own
            facts = self._facts(made, self.table, None)
            method = _averages(made) if roles == ("ema",) else ""
            found = self._object(made)[0] if method else None
            if found is None:
                yield Task(name, roles, made, facts, vague=is_vague(name))
            else:
                yield Task(f"{name}.{method}", roles, getattr(found, method), facts)
            return
        if roles and roles != ("schedule",) and {"__call__", "forward"} & {*vars(made)}:
            found, why = self._object(made)
            if why:
                why = f"{why}: say --as {roles[0]}='{name}(…)'"
                yield Task(f"{name}()", roles, None, vague=is_vague(name), why=why)
            else:
                yield self._task(f"{name}()", roles, found, found)
            return
        methods = [k for k, v in vars(made).items() if not k.startswith("_") and callable(v)]
        has = {k for k in dir(made) if not k.startswith("_")}
        is_scheduler = {"set_timesteps", "step"} <= has
        named = [(k, roles_of(k)) for k in methods]
        named = [(k, r) for k, r in named if r and r != ("schedule",)]
        if not (is_scheduler or named):
            return
        self.without_role += [f"{name}.{k}" for k in methods if is_conversion(k)]
        found, why = self._object(made)
        if why:
            for method, roles in [("", ("scheduler",))] if is_scheduler else named:
                shown = f"{name}.{method}".rstrip(".")
                made_so = f"{name}(…).{method}".rstrip(".")
                said = f"{why}: say --as {roles[0]}='{made_so}'"
                yield Task(shown, roles, None, vague=is_vague(method), why=said)
            return
        table = table_of(found)
        if is_scheduler:
            yield self._task(name, ("scheduler",), found, found, table)
            return
        for method, roles in named:
            yield self._task(f"{name}.{method}", roles, getattr(found, method), found, table)

    def _object(self, made: type) -> tuple[Any, str]:
        """An object of a class: one that the file has, or one made of what can be made up."""
        for value in self.names.values():
            if type(value) is made:
                return value, ""
        said = ""
        for everything in (False, True):
            arguments, unknown = {}, ""
            for name, parameter in _parameters(made).items():
                needed = parameter.default is inspect.Parameter.empty
                if needed or everything:
                    value = self._made_up(name)
                    if value is not None:
                        arguments[name] = value
                    elif needed:
                        unknown = unknown or name
            if unknown:
                return None, f"{made.__name__} cannot be made without {unknown}"
            try:
                with seeded(0):
                    return made(**arguments), ""
            except (Exception, SystemExit) as error:
                said = said or f"{type(error).__name__}: {error}"
        return None, f"{made.__name__} cannot be made ({said})"

    def _made_up(self, name: str) -> Any:
        if name in self.given:
            return self.given[name]
        if MODEL_NAME.fullmatch(name):
            return Slot()
        if name == "device":
            return "cpu"
        if STEPS_NAME.fullmatch(name):
            return self.steps
        if re.fullmatch("betas?", name):
            return None if self.table is None else self.table.values.float()
        if re.fullmatch("(img|image|input)_(size|dim)|size", name):
            return 4
        if re.fullmatch("((img|image|input|in)_)?(channels|ch)", name):
            return 2
        return 32 if re.fullmatch("(.*_)?(dim|dims|features|embed_size)", name) else None

    # --- β_t

    def _stated_table(self) -> Table | None:
        if self.asked.betas is None:
            return None
        value = self.evaluated("--betas", "", self.asked.betas)
        values = as_betas(value, any_order=True)
        if values is None:
            raise ValueError(
                f"--betas {self.asked.betas} is a {type(value).__name__}: give the numbers β_1 … "
                "β_T, each above 0 and below 1"
            )
        return Table(self.asked.betas, values)

    def _computed_table(self) -> Table | None:
        """That of a function of the file that makes one, or of an object of one of its classes."""
        for name in _public(self.names, self.own):
            value = self.names[name]
            if not inspect.isclass(value) and roles_of(name) == ("schedule",):
                made = self._made(value)
                values = None if made is None else as_betas(made)
                if values is not None:
                    return Table(f"{name}()", values)
        for name in _public(self.names, self.own):
            value = self.names[name]
            if inspect.isclass(value) and any(roles_of(k) for k in vars(value) if k[0] != "_"):
                table = table_of(self._object(value)[0])
                if table is not None:
                    return table
        return None


# --- functions


class Slot(nn.Module):
    """Stands where a class keeps its network, and asks the one that a check puts in."""

    channels = out_dim = 2
    self_condition = random_or_learned_sinusoidal_cond = False
    inner: list[Any]

    def __init__(self) -> None:
        super().__init__()
        self.inner = []

    def forward(self, *values: Any, **named: Any) -> Any:
        """What the network that is in says."""
        return self.inner[-1](*values, **named)


def with_model(function: Any, owner: Any, names: dict[str, Any]) -> Any:
    """The function with the network that it takes from its object or module as an argument.

    As it is, if it takes a network, or uses none.
    """
    parameters = _parameters(function)
    if any(MODEL_NAME.fullmatch(name) for name in parameters):
        return function
    own = getattr(owner, "_modules", None) or getattr(owner, "__dict__", {})
    if owner is not None and not inspect.isclass(owner):
        kept = {k: v for k, v in own.items() if isinstance(v, nn.Module)}
        place = own
    else:
        code = getattr(inspect.unwrap(function), "__code__", None)
        used = code.co_names if isinstance(code, CodeType) else ()
        kept = {k: names[k] for k in used if isinstance(names.get(k), nn.Module)}
        place = names
    likely = {k: v for k, v in kept.items() if MODEL_NAME.fullmatch(k)} or kept
    if not likely:
        return function
    key = next(iter(likely))
    stands = likely[key]
    slot = stands if isinstance(stands, Slot) else Slot()

    @functools.wraps(function)
    def handed(model: Any, *values: Any, **named: Any) -> Any:
        before = place[key]
        slot.inner.append(model)
        place[key] = slot
        try:
            return function(*values, **named)
        finally:
            place[key] = before
            slot.inner.pop()

    first = inspect.Parameter("model", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    handed.__signature__ = inspect.Signature([first, *parameters.values()])  # type: ignore[attr-defined]
    return handed


def bound(function: Any, given: Mapping[str, Any]) -> Any:
    """The function of its other arguments alone, in their order."""
    parameters = _parameters(function)
    kinds = {p.kind for p in parameters.values()}
    if not given or inspect.isclass(function) or inspect.Parameter.POSITIONAL_ONLY in kinds:
        return function
    left = [p for k, p in parameters.items() if k not in given]
    names = [p.name for p in left if p.kind is not inspect.Parameter.KEYWORD_ONLY]

    @functools.wraps(function)
    def called(*values: Any, **named: Any) -> Any:
        if len(values) > len(names):
            raise TypeError(f"it takes {len(names)} arguments beside {', '.join(given)}")
        return function(**dict(zip(names, values, strict=False)), **named, **given)

    plain = [p.replace(kind=inspect.Parameter.POSITIONAL_OR_KEYWORD) for p in left[: len(names)]]
    called.__signature__ = inspect.Signature([*plain, *left[len(names) :]])  # type: ignore[attr-defined]
    return called


def labelled(function: Any) -> Any:
    """The function of all but its classes, of which each item has the first.

    As it is, if it takes none; or nothing else that could be x, which some call y.
    """
    needed = _needed(function)
    labels = [k for k in needed if LABEL_NAME.fullmatch(k)]
    others = [k for k in needed if k not in labels and not MODEL_NAME.fullmatch(k)]
    if not labels or not any(re.match("x|im|n|shape|size|data|batch|z", k) for k in others):
        return function
    rest = {k: p for k, p in inspect.signature(function).parameters.items() if k not in labels}
    names = [k for k, p in rest.items() if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]

    @functools.wraps(function)
    def called(*values: Any, **named: Any) -> Any:
        many = next((v for v in values if isinstance(v, Tensor) and v.ndim > 1), None)
        n = next((v for v in values if type(v) is int), 1) if many is None else len(many)
        classes = dict.fromkeys(labels, torch.zeros(n, dtype=torch.long))
        return function(**dict(zip(names, values, strict=False)), **named, **classes)

    called.__signature__ = inspect.Signature([*rest.values()])  # type: ignore[attr-defined]
    return called


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one.double(), other, rtol=1e-6, atol=0)


def _averages(made: type) -> str:
    """The method that is handed the average and the model, of a class that is made without one."""
    if any(map(_is_weights, _parameters(made))):
        return ""
    for name, method in vars(made).items():
        needed = _needed(method)[1:]
        if not name.startswith("_") and len(needed) == 2 and all(map(_is_weights, needed)):
            return name
    return ""


def _is_weights(name: str) -> bool:
    return MODEL_NAME.fullmatch(name) is not None or name in ("parameters", "params")


def could_be_tried(function: Any) -> bool:
    """Whether a function can be called with what it was perhaps not made for, to see what it does.

    It takes two to four arguments, gives something back, and calls nothing that leaves a trace.
    """
    code = getattr(inspect.unwrap(function), "__code__", None)
    if not isinstance(code, CodeType) or inspect.isgeneratorfunction(function):
        return False
    if not 1 < len(_parameters(function)) <= 5 or len(_needed(function)) > 4:
        return False
    return not any({*part.co_names} & _DOES for part in _codes(code))


def _globals_of(function: Any, names: Mapping[str, Any]) -> set[str]:
    """What a function reads of its module, and what the functions that it calls read."""
    seen: set[str] = set()
    waiting = [function]
    while waiting:
        code = getattr(inspect.unwrap(waiting.pop()), "__code__", None)
        if not isinstance(code, CodeType):
            continue
        for name in {n for part in _codes(code) for n in part.co_names} - seen:
            if name in names:
                seen.add(name)
                waiting += [names[name]] if callable(names[name]) else []
    return seen


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for part in code.co_consts:
        if isinstance(part, CodeType):
            yield from _codes(part)


def looks_forward(function: Any, T: int, given: Mapping[str, Any]) -> bool:
    """Whether a result is a share of x that falls with t, and a rest that grows."""
    stranger = Stranger(function, {k: v for k, v in given.items() if k in _parameters(function)})
    x = torch.randn(256, 3, generator=torch.Generator().manual_seed(0))

    def seen(i: int, order: int, form: int) -> tuple[float, float] | None:
        t: Any = torch.full((256,), i) if form == 0 else i
        try:
            with seeded(1):
                results = stranger(*((x, t) if order == 0 else (t, x)))
            result = next(r for r in results if r.shape == x.shape).double()
        except Exception:
            return None
        share = ((result * x).sum() / (x * x).sum()).item()
        return share, (result - share * x).std().item()

    at = [max(1, T // 10), T // 2, T - 1]
    for order in (0, 1):
        for form in (0, 1):
            found = [seen(i, order, form) for i in at]
            if None in found:
                continue
            shares, rests = zip(*(f for f in found if f is not None), strict=True)
            falls = shares[0] > shares[1] > shares[2] > -0.2 and shares[0] < 1.5
            if falls and rests[0] < rests[1] <= 1.05 * rests[2]:
                return True
    return False


def _public(names: Mapping[str, Any], own: str) -> list[str]:
    """The functions and classes that a module defines itself, in their order."""
    return [
        k
        for k, v in names.items()
        if not k.startswith("_")
        and callable(v)
        and getattr(v, "__module__", None) == own
        and (inspect.isclass(v) or hasattr(v, "__name__"))
    ]


def _parameters(value: Any) -> Mapping[str, inspect.Parameter]:
    places = (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.KEYWORD_ONLY,
    )
    try:
        found = inspect.signature(value).parameters
    except (TypeError, ValueError):
        return {}
    return {k: p for k, p in found.items() if p.kind in places}


def _needed(value: Any) -> list[str]:
    """The arguments that must be given."""
    empty = inspect.Parameter.empty
    return [k for k, p in _parameters(value).items() if p.default is empty and k != "device"]


def _default(value: Any, *names: str) -> float | None:
    for name, parameter in _parameters(value).items():
        if name in names and isinstance(parameter.default, float):
            return parameter.default
    return None


def _prediction(owner: Any) -> str | None:
    """What an object says that its model predicts."""
    for holder in (owner, getattr(owner, "config", None)):
        for name in ("prediction_type", "objective", "parameterization", "predicts", "pred_type"):
            said = getattr(holder, name, None)
            if isinstance(said, str) and prediction(said) is not None:
                return prediction(said)
    return None
