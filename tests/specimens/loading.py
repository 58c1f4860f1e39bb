"""A specimen as a module: the correct source, its edits, and other names if a seed is given.

One bijection renames every name that the source binds, whether in a function or in the module, so
no two names can meet and the behaviour stays. What others reach through a dot keeps its name
(`step`, `betas`), unless it is private. Docstrings and comments go.
"""

import ast
import random
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

FOLDER = Path(__file__).parent

# The facts that are expressions in the module's names; every other one is a word.
EXPRESSIONS = {
    "betas",
    "sigma",
    "sigmas",
    "data_range",
    "clip",
    "dtype",
    "decay",
    "gamma",
    "steps",
}


class Specimen(NamedTuple):
    """Code as somebody wrote it, and what they would say of it."""

    id: str  # A1 … A35, N1 … N8, or "right"
    style: str  # plain, class or scheduler
    module: str  # the file of the correct code, without .py
    edits: tuple[tuple[str, str], ...]  # (old, new): each old text stands there exactly once
    subject: str  # an expression in the module's names: what is to be checked
    role: str
    given: dict[str, str]
    note: str  # what is wrong, in the words of the formula


@cache
def correct(module: str) -> str:
    """The source of a correct module."""
    return (FOLDER / f"{module}.py").read_text(encoding="utf-8")


def source(specimen: Specimen) -> str:
    """The correct source with the specimen's edits.

    Raises:
        ValueError: an old text that does not stand there exactly once.
    """
    text = correct(specimen.module)
    for old, new in specimen.edits:
        if text.count(old) != 1:
            raise ValueError(f"{specimen.module}.py has {text.count(old)} of {old!r}: it must be 1")
        text = text.replace(old, new)
    return text


def load(specimen: Specimen, seed: int | None = None) -> ModuleType:
    """The specimen as a fresh module, under other names if there is a seed.

    `module.__specimen__` is the specimen with its subject and facts in the module's names.
    """
    tree = ast.parse(source(specimen))
    if seed is not None:
        rename = _Rename(tree, seed)
        tree = ast.fix_missing_locations(rename.visit(tree))
        specimen = specimen._replace(
            subject=rename.expression(specimen.subject),
            given={
                name: rename.expression(value) if name in EXPRESSIONS else value
                for name, value in specimen.given.items()
            },
        )
    module = ModuleType(f"specimen_{specimen.id}")
    exec(compile(tree, f"<specimen {specimen.id}>", "exec"), module.__dict__)
    module.__dict__["__specimen__"] = specimen
    return module


def reach(module: ModuleType) -> Any:
    """What is to be checked in a loaded module; made anew each time where it is an object."""
    return eval(module.__dict__["__specimen__"].subject, module.__dict__)


def facts(module: ModuleType) -> dict[str, Any]:
    """What its author would say of it, expressions evaluated."""
    given = module.__dict__["__specimen__"].given
    return {
        name: eval(value, module.__dict__) if name in EXPRESSIONS else value
        for name, value in given.items()
    }


class _Rename(ast.NodeTransformer):
    def __init__(self, tree: ast.Module, seed: int) -> None:
        self.parameters: dict[str, set[str]] = {}  # of each callable of the module, by its name
        self.in_class_body: set[ast.AST] = set()
        private: set[str] = set()
        bound: set[str] = set()
        used: set[str] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                bound.add(node.name)
                self.in_class_body |= _stored_in_body(node)
                private |= _private(p.name for p in node.body if isinstance(p, ast.FunctionDef))
                self._learn_class(tree, node)
            elif isinstance(node, ast.FunctionDef):
                names = [a.arg for a in _arguments(node.args)]
                self.parameters.setdefault(node.name, set()).update(names)
                if node not in self.in_class_body:
                    bound.add(node.name)
            elif isinstance(node, ast.arg):
                bound.add(node.arg)
            elif isinstance(node, ast.Name):
                used.add(node.id)
                if isinstance(node.ctx, ast.Store) and node not in self.in_class_body:
                    bound.add(node.id)
            elif isinstance(node, ast.Attribute):
                used.add(node.attr)
                if isinstance(node.ctx, ast.Store):
                    private |= _private([node.attr])
        draw = random.Random(seed)
        count = len(bound) + len(private)
        fresh = [f"{letter}{i}" for i in range(count) for letter in "abcdefghkmpqruvwxyz"]
        fresh = draw.sample(sorted(set(fresh) - used - bound), count)
        self.names = dict(zip(sorted(bound), fresh, strict=False))
        self.attributes = dict(
            zip(sorted(private), (f"_{n}" for n in fresh[len(bound) :]), strict=True)
        )

    def _learn_class(self, tree: ast.Module, node: ast.ClassDef) -> None:
        """What a call of the class takes: its own __init__'s parameters, or those of its base."""
        classes = {part.name: part for part in tree.body if isinstance(part, ast.ClassDef)}
        found: ast.ClassDef | None = node
        while found is not None:
            for part in found.body:
                if isinstance(part, ast.FunctionDef) and part.name == "__init__":
                    self.parameters[node.name] = {a.arg for a in _arguments(part.args)}
                    return
            bases = [b.id for b in found.bases if isinstance(b, ast.Name) and b.id in classes]
            found = classes[bases[0]] if bases else None

    def expression(self, text: str) -> str:
        """An expression in the module's old names, in the new ones."""
        return ast.unparse(self.visit(_Local(self).visit(ast.parse(text, mode="eval"))))

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if node not in self.in_class_body:
            node.id = self.names.get(node.id, node.id)
        return node

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.arg = self.names.get(node.arg, node.arg)
        node.annotation = node.annotation and self.visit(node.annotation)
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        self.generic_visit(node)
        node.attr = self.attributes.get(node.attr, node.attr)
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        called = node.func
        name = called.id if isinstance(called, ast.Name) else getattr(called, "attr", "")
        takes = self.parameters.get(name, set())
        for keyword in node.keywords:
            if keyword.arg in takes:
                keyword.arg = self.names[keyword.arg]
        self.generic_visit(node)
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        if node in self.in_class_body:
            node.name = self.attributes.get(node.name, node.name)
        else:
            node.name = self.names[node.name]
        return self._bare(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.name = self.names[node.name]
        return self._bare(node)

    def visit_Module(self, node: ast.Module) -> ast.AST:
        return self._bare(node)

    def _bare(self, node: Any) -> ast.AST:
        """The same without its docstring."""
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        self.generic_visit(node)
        return node


class _Local(ast.NodeTransformer):
    """Gives the parameters of a lambda names of their own, apart from the module's."""

    def __init__(self, rename: _Rename) -> None:
        self.taken = set(rename.names) | set(rename.names.values())

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
        own = {a.arg for a in _arguments(node.args)}
        for part in ast.walk(node):
            if isinstance(part, ast.arg) and part.arg in own:
                part.arg = f"_{part.arg}"
            elif isinstance(part, ast.Name) and part.id in own:
                part.id = f"_{part.id}"
        return node


def _arguments(args: ast.arguments) -> list[ast.arg]:
    return [*args.posonlyargs, *args.args, *args.kwonlyargs]


def _private(names: Iterable[str]) -> set[str]:
    return {name for name in names if name.startswith("_") and not name.endswith("__")}


def _stored_in_body(node: ast.ClassDef) -> set[ast.AST]:
    """The methods and the names that a class's own body binds: others reach them by a dot."""
    found: set[ast.AST] = set()
    for part in node.body:
        if isinstance(part, ast.FunctionDef):
            found.add(part)
        elif isinstance(part, ast.Assign):
            found.update(part.targets)
        elif isinstance(part, ast.AnnAssign):
            found.add(part.target)
    return found
