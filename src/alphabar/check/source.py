"""What a person's file is: a module or a notebook, as statements that can be run one by one.

One that fails is named, and the rest goes on: what it defines can still be checked.
"""

import __future__

import ast
import json
import linecache
import re
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import Any, NamedTuple

ENDINGS = (".py", ".ipynb")
_MAGIC = re.compile(r"^(\s*)(?:[%!?]|[\w.,\s]+=\s*[%!]).*$|^(\s*)[\w.]+\?{1,2}\s*$", re.MULTILINE)
# Magics of a whole cell that leave Python to be run below them.
_TIMED = ("%%time", "%%timeit", "%%capture", "%%prun")


class Part(NamedTuple):
    """One statement at the top level."""

    place: str  # such as "line 3", or "cell 2, line 3"
    code: CodeType
    defines: bool  # whether it only defines or imports


class Source(NamedTuple):
    """A file, read but not run."""

    path: Path
    parts: tuple[Part, ...]
    notes: tuple[str, ...]  # what was left out, and why

    @property
    def is_notebook(self) -> bool:
        """Whether its parts lie in cells."""
        return self.path.suffix.lower() == ".ipynb"


def read(path: Path) -> Source:
    """The statements of a .py or .ipynb file.

    Raises:
        ValueError: a file that is not there, is neither, or is not Python.
    """
    if not path.exists():
        raise ValueError(f"{path}: there is no such file")
    if path.suffix.lower() not in ENDINGS or not path.is_file():
        raise ValueError(
            f"{path} is not Python: give a module (.py) or a notebook (.ipynb) that defines the "
            "functions"
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    return _notebook(path, data) if path.suffix.lower() == ".ipynb" else _module(path, data)


def _module(path: Path, data: bytes) -> Source:
    try:
        tree = ast.parse(data, str(path))
        parts = tuple(_parts(tree, str(path), ""))
    except SyntaxError as error:
        place = f"{path}, line {error.lineno}" if error.lineno else f"{path}"
        raise ValueError(f"{place}: {_words(error)}") from None
    except (ValueError, RecursionError) as error:  # a byte 0; brackets without end
        raise ValueError(f"{path} is not Python: {error or type(error).__name__}") from None
    return Source(path, parts, ())


def _notebook(path: Path, data: bytes) -> Source:
    try:
        document: Any = json.loads(data)
        language = document.get("metadata", {}).get("kernelspec", {}).get("language", "python")
        cells = [_text(c["source"]) for c in document["cells"] if c["cell_type"] == "code"]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{path} is not a notebook of format 4: save it in Jupyter anew") from None
    if language.lower() != "python":
        raise ValueError(f"{path} is a notebook of {language}: check reads Python")
    parts: list[Part] = []
    notes: list[str] = []
    flags = 0
    for number, text in enumerate(cells, 1):
        cell = f"cell {number}"
        plain = _without_magics(text)
        if plain != text:
            notes.append(f"{cell}: lines of % and ! are left out")
        name = f"<{path.name} {cell}>"
        lines = [f"{line}\n" for line in plain.splitlines()]
        linecache.cache[name] = len(plain), None, lines, name  # for inspect.getsource
        try:
            tree = ast.parse(plain, name)
            flags |= _future(tree)
            parts += _parts(tree, name, f"{cell}, ", flags)
        except SyntaxError as error:
            notes.append(f"{cell}, line {error.lineno}: {_words(error)}; the cell is left out")
    return Source(path, tuple(parts), tuple(notes))


def _text(source: str | list[str]) -> str:
    return source if isinstance(source, str) else "".join(source)


def _words(error: SyntaxError) -> str:
    return f"this is not Python ({error.msg})"


def _without_magics(text: str) -> str:
    """The cell with its lines kept in number; as it is, where it is Python."""
    first = text.lstrip()
    if first.startswith("%%") and not first.startswith(_TIMED):
        return "\n" * text.count("\n")
    try:
        ast.parse(text)
    except SyntaxError:
        return _MAGIC.sub(lambda found: f"{found[1] or found[2] or ''}pass", text)
    return text


def _parts(tree: ast.Module, name: str, before: str, flags: int = 0) -> Iterator[Part]:
    flags |= _future(tree)
    definitions = ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom
    for node in tree.body:
        code = compile(ast.Module([node], []), name, "exec", flags=flags, dont_inherit=True)
        yield Part(f"{before}line {node.lineno}", code, isinstance(node, definitions))


def _future(tree: ast.Module) -> int:
    """The flags of `from __future__ import …`, which hold for all that follows."""
    flags = 0
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            for alias in node.names:
                feature = getattr(__future__, alias.name, None)
                flags |= getattr(feature, "compiler_flag", 0)
    return flags
