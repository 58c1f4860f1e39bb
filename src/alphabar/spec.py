"""A spec is a line of text that names an object and calls the function that makes it.

    NAME[:ARG[,ARG]…]     ARG = key=value     `linear:T=1000,start=0.0001,end=0.02`

The first ARG may leave out its key where the entry declares a positional one (`text:한글`).
A value is a number, `true`, `false`, a bare word, a `"quoted"` one, or numbers joined by `-`.
"""

import copy
import dataclasses
import difflib
import functools
import inspect
import math
import re
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar, get_args, get_origin

P = ParamSpec("P")
R = TypeVar("R", bound="Named")

_NUMBER = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[+-]?inf|nan"
_IS_NUMBER = re.compile(_NUMBER)
_LIST = re.compile(rf"(?:{_NUMBER})(?:-(?:{_NUMBER}))*")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_NAME = re.compile(r"[A-Za-z_]\w*")
# What a bare word cannot hold, or would be read as something else.
_NEEDS_QUOTES = re.compile(r'[",=\\]|^\s|\s$|^$|^(?:true|false)$')


class Named:
    """Base of objects that know the spec that makes them again."""

    # Set by the family on what its function returns; a tuple, not the text, because a table of
    # a million numbers is slow to write and seldom asked for.
    _call: tuple[str, Mapping[str, object], str | None] | None = None

    @property
    def spec(self) -> str:
        """The text that makes this object again."""
        return format_spec(*(self._call or self._unnamed_call()))

    def _unnamed_call(self) -> tuple[str, Mapping[str, object], str | None]:
        raise ValueError(f"this {type(self).__name__} was not made from a spec, so it has none")


@dataclasses.dataclass(frozen=True)
class Entry:
    """One function that a family can call by name."""

    name: str
    build: Callable[..., Any]
    signature: inspect.Signature
    positional: str | None

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return (inspect.getdoc(self.build) or "").split("\n")[0]

    @property
    def parameters(self) -> dict[str, Any]:
        """Each parameter and its default; `inspect.Parameter.empty` where it must be given."""
        return {name: p.default for name, p in self.signature.parameters.items()}

    @property
    def takes_no_argument(self) -> bool:
        """Whether the bare name is a spec: every parameter has a default."""
        return inspect.Parameter.empty not in self.parameters.values()

    @property
    def usage(self) -> str:
        """The spec with every parameter at its default: `linear:T=1000,start=0.0001,end=0.02`."""
        parts = [
            (name.upper() if name == self.positional else f"{name}=…")
            if default is inspect.Parameter.empty
            else f"{name}={show(default)}"
            for name, default in self.parameters.items()
            if default is not None
        ]
        return self.name + (":" + ",".join(parts) if parts else "")


class Family:
    """The functions that make one kind of object: schedules, data sets, samplers, nets.

    Adding a member is one line, `@FAMILY.entry()`, above a function that returns a `Named`.
    """

    def __init__(self, noun: str) -> None:
        self.noun = noun
        self._entries: dict[str, Entry] = {}

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __getitem__(self, name: str) -> Entry:
        if name not in self._entries:
            raise ValueError(
                f"{name!r} is not a {self.noun}: {_choices(name, list(self._entries))}"
            )
        return self._entries[name]

    def entry(self, positional: str | None = None) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Register the function below under its own name.

        Args:
            positional: the parameter whose key a spec may leave out.
        """

        def register(function: Callable[P, R]) -> Callable[P, R]:
            name = function.__name__
            signature = inspect.signature(function)

            @functools.wraps(function)
            def build(*args: P.args, **kwargs: P.kwargs) -> R:
                bound = signature.bind(*args, **kwargs)
                bound.apply_defaults()
                made = copy.copy(function(*args, **kwargs))
                object.__setattr__(made, "_call", (name, bound.arguments, positional))
                return made

            self._entries[name] = Entry(name, build, signature, positional)
            return build

        return register

    def parse(self, text: str, **defaults: object) -> Any:
        """The object that `text` names.

        Args:
            text: the spec.
            defaults: values for parameters that the entry has and the spec leaves out.

        Raises:
            ValueError: a malformed spec, an unknown name or key, a key given twice, a value of
                the wrong kind; the sentence names it and lists what is valid.
        """
        name, arguments = split(text)
        entry = self[name]
        values: dict[str, object] = {}
        for position, (key, raw) in enumerate(arguments):
            if key is None:
                if position or entry.positional is None:
                    raise ValueError(
                        f"{text!r}: {raw!r} has no value or key; write key=value, "
                        f"as in {entry.usage}"
                    )
                key = entry.positional
            if key not in entry.parameters:
                raise ValueError(
                    f"{text!r}: {name} has no parameter {key!r}; "
                    f"{_choices(key, list(entry.parameters))}"
                )
            if key in values:
                raise ValueError(f"{text!r}: {key} is given twice; give it once")
            values[key] = _convert(raw, entry.signature.parameters[key], text)
        for key, value in defaults.items():
            if key in entry.parameters:
                values.setdefault(key, value)
        for key, default in entry.parameters.items():
            if default is inspect.Parameter.empty and key not in values:
                raise ValueError(f"{text!r}: {name} needs {key}; write {entry.usage}")
        return entry.build(**values)


def split(text: str) -> tuple[str, list[tuple[str | None, str]]]:
    """Cut a spec into its name and its (key, raw value) pairs; the key is None if left out.

    >>> split('linear:T=100,end=0.02')
    ('linear', [('T', '100'), ('end', '0.02')])
    """
    name, colon, rest = text.strip().partition(":")
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{text!r} is not a spec; write NAME or NAME:key=value,key=value, "
            "as in linear:T=1000,end=0.02"
        )
    if not colon:
        return name, []
    arguments: list[tuple[str | None, str]] = []
    for piece in _split_outside_quotes(rest, text):
        match = re.match(r"([A-Za-z_]\w*)=", piece)
        key, raw = (match.group(1), piece[match.end() :]) if match else (None, piece)
        if not raw.strip():
            what = f"{key} has no value" if key else "an argument is empty"
            raise ValueError(f"{text!r}: {what}; write key=value, or leave it out")
        arguments.append((key, raw))
    return name, arguments


def _split_outside_quotes(rest: str, text: str) -> list[str]:
    pieces, start, quoted, at = [], 0, False, 0
    while at < len(rest):
        character = rest[at]
        if quoted and character == "\\":
            at += 1
        elif character == '"':
            quoted = not quoted
        elif character == "," and not quoted:
            pieces.append(rest[start:at])
            start = at + 1
        at += 1
    if quoted:
        raise ValueError(f'{text!r}: a quote is opened and not closed; write "…" or \\"')
    return [*pieces, rest[start:]]


def show(value: object) -> str:
    """A value as a spec writes it; `format_spec` and `Family.parse` are inverse to each other.

    >>> show(1e-5), show(True), show("한글"), show("a,b"), show((1, 2, 2))
    ('1e-05', 'true', '한글', '"a,b"', '1-2-2')
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        if _NEEDS_QUOTES.search(value) or _IS_NUMBER.fullmatch(value):
            return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        return value
    if isinstance(value, Sequence):
        return "-".join(show(item) for item in value)
    if hasattr(value, "tolist"):  # a tensor or an array
        return show(value.tolist())
    raise TypeError(f"a spec cannot hold {value!r}: use numbers, words, true, false or lists")


def format_spec(name: str, values: Mapping[str, object], positional: str | None = None) -> str:
    """The spec that calls `name` with `values`; parameters that are None are left out."""
    parts: list[str] = []
    for key, value in values.items():
        if value is not None:
            bare = key == positional and not parts
            parts.append(show(value) if bare else f"{key}={show(value)}")
    return name + (":" + ",".join(parts) if parts else "")


def _choices(given: str, valid: list[str]) -> str:
    near = difflib.get_close_matches(given, valid, n=1, cutoff=0.6)
    listed = ", ".join(valid) if valid else "none at all"
    return (f"did you mean {near[0]}? " if near else "") + f"Valid: {listed}"


def _convert(raw: str, parameter: inspect.Parameter, text: str) -> object:
    """Read `raw` as the kind of value that the parameter's annotation asks for."""
    annotation = parameter.annotation
    union = isinstance(annotation, types.UnionType)
    stated = get_args(annotation) if union else (annotation,)
    kinds = {get_origin(kind) or kind for kind in stated}
    whole = Sequence[int] in stated
    word = raw.strip()
    if str in kinds and (_QUOTED.fullmatch(word) or '"' not in word):
        return re.sub(r"\\(.)", r"\1", word[1:-1]) if word.startswith('"') else word
    if bool in kinds and word in ("true", "false"):
        return word == "true"
    if Sequence in kinds and _LIST.fullmatch(word):
        listed = [float(number) for number in re.findall(rf"(?:^|-)({_NUMBER})", word)]
        if not whole:
            return listed
        if all(number.is_integer() for number in listed):
            return [int(number) for number in listed]
    if _IS_NUMBER.fullmatch(word):
        number = float(word)
        if int in kinds and math.isfinite(number) and number == int(number):
            return int(number) if "." in word or "e" in word.lower() else int(word)
        if float in kinds:
            return number
    rules = {str: 'a word, or "quoted"', bool: "true or false", Sequence: "numbers joined by -"}
    if whole:
        rules[Sequence] = "whole numbers joined by -"
    rules |= {int: "a whole number", float: "a number"}
    rule = " or ".join(rule for kind, rule in rules.items() if kind in kinds)
    raise ValueError(f"{text!r}: {parameter.name} = {word}: it must be {rule}")
