"""Wrong code by the rule: one operator at one place of a right module.

    KINDS = what is swapped for what; the same for every module

A mutant is judged against two laws. Of its behaviour on the probes of the specimens: none changed
is "same", and one that runs on no probe is "broken". Of `check`: a changed one that is called a bug
is "caught", one called fragile for a reason that right code does not give is "told"; another has
survived.

What a mutant's author would state (the β_t above all) is read from the mutant itself, as in life.
So code is no wrong one of its role where only those facts change: that mutant is of the schedule.
"""

import ast
import copy
import io
import multiprocessing
import random
import resource
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import FrameType, ModuleType
from typing import Any, NamedTuple

import torch

from specimens.catalogue import RIGHT
from specimens.loading import Specimen, correct, facts, load, reach
from specimens.probes import SIGMAS, TIMES, X, Y, key_of, net, numbers_of, score, stepped

# --- the operators

ARITHMETIC: dict[type[ast.operator], tuple[type[ast.operator], ...]] = {
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div, ast.Add),
    ast.Div: (ast.Mult,),
    ast.Pow: (ast.Mult,),
    ast.FloorDiv: (ast.Mult,),
}
COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
FUNCTIONS = {
    "exp": "log",
    "log": "exp",
    "expm1": "exp",
    "sin": "cos",
    "cos": "sin",
    "cumprod": "cumsum",
    "randn": "rand",
    "rand": "randn",
    "randn_like": "rand_like",
    "rand_like": "randn_like",
    "min": "max",
    "max": "min",
    "minimum": "maximum",
    "maximum": "minimum",
    "mean": "sum",
    "sum": "mean",
    "rsqrt": "sqrt",
    "round": "floor",
}
# What is gone where its argument stands alone.
DROPPED = ("sqrt", "square", "abs", "clamp", "reversed")

Rival = tuple[str, ast.AST]


def _called(node: ast.Call) -> str:
    return node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")


def _module_name(node: ast.AST) -> bool:
    """Whether a dot after it reaches a function and no method."""
    return isinstance(node, ast.Name) and node.id in ("torch", "math", "np")


def _of_call(node: ast.Call) -> Iterator[Rival]:
    name = _called(node)
    if name in FUNCTIONS:
        other = copy.deepcopy(node)
        if isinstance(other.func, ast.Name):
            other.func.id = FUNCTIONS[name]
        elif isinstance(other.func, ast.Attribute):
            other.func.attr = FUNCTIONS[name]
        yield "function", other
    if name in DROPPED:
        method = isinstance(node.func, ast.Attribute) and not _module_name(node.func.value)
        yield "function", node.func.value if method else node.args[0]
    for i in range(len(node.args) - 1):
        args = list(node.args)
        args[i], args[i + 1] = args[i + 1], args[i]
        yield "arguments", ast.Call(node.func, args, node.keywords)
    for i, keyword in enumerate(node.keywords):
        if keyword.arg is not None:
            rest = node.keywords[:i] + node.keywords[i + 1 :]
            yield "keyword", ast.Call(node.func, node.args, rest)


def _of_operation(node: ast.BinOp) -> Iterator[Rival]:
    for swapped in ARITHMETIC.get(type(node.op), ()):
        yield "operator", ast.BinOp(node.left, swapped(), node.right)
    for side in ("left", "right"):
        part = getattr(node, side)
        if not isinstance(part, (ast.Name, ast.Attribute, ast.Subscript, ast.Call)):
            continue
        other = copy.copy(node)
        setattr(other, side, ast.UnaryOp(ast.USub(), part))
        yield "sign", other
        other = copy.copy(node)
        setattr(other, side, ast.BinOp(part, ast.Pow(), ast.Constant(0.5)))
        yield "root", other


def _moved(index: ast.expr) -> Iterator[ast.expr]:
    if isinstance(index, (ast.Name, ast.BinOp)):
        for by in (ast.Add(), ast.Sub()):
            yield ast.BinOp(index, by, ast.Constant(1))


def _of_index(node: ast.Subscript) -> Iterator[Rival]:
    for other in _moved(node.slice):
        yield "index", ast.Subscript(node.value, other, node.ctx)
    if not isinstance(node.slice, ast.Slice):
        return
    for side in ("lower", "upper", "step"):
        bound = getattr(node.slice, side)
        if bound is None:
            continue
        for other in (*_moved(bound), None):
            part = copy.copy(node.slice)
            setattr(part, side, other)
            yield "index", ast.Subscript(node.value, part, node.ctx)


def _of_constant(node: ast.Constant) -> Iterator[Rival]:
    if type(node.value) is int:
        yield "constant", ast.Constant(node.value + 1)
        yield "constant", ast.Constant(node.value - 1)
    elif isinstance(node.value, float):
        yield "constant", ast.Constant(2 * node.value)


def rivals(node: ast.AST) -> Iterator[Rival]:
    """What stands in the place of one node, with the kind of the swap."""
    if isinstance(node, ast.Call):
        yield from _of_call(node)
    elif isinstance(node, ast.BinOp):
        yield from _of_operation(node)
    elif isinstance(node, ast.Subscript):
        yield from _of_index(node)
    elif isinstance(node, ast.Constant):
        yield from _of_constant(node)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield "sign", node.operand
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARISONS:
        ops = [COMPARISONS[type(node.ops[0])](), *node.ops[1:]]
        yield "comparison", ast.Compare(node.left, ops, node.comparators)
    elif isinstance(node, (ast.Assign, ast.AugAssign)) or (
        isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant)
    ):
        yield "statement", ast.Pass()


# --- where they stand


class Place(NamedTuple):
    """Where a node hangs in the tree."""

    parent: ast.AST
    field: str
    index: int | None

    def put(self, node: ast.AST) -> None:
        if self.index is None:
            setattr(self.parent, self.field, node)
        else:
            getattr(self.parent, self.field)[self.index] = node


class Mutant(NamedTuple):
    """One swap in one right module."""

    subject: str  # whose code it is: a key of the catalogue
    kind: str
    scope: str  # the function or class
    before: str  # the line
    after: str
    text: str  # the whole module

    @property
    def words(self) -> str:
        return f"{self.subject} [{self.kind}] {self.scope}: {self.before}  →  {self.after}"


def _children(node: ast.AST) -> Iterator[tuple[Place, ast.AST]]:
    for field, value in ast.iter_fields(node):
        for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(child, ast.AST) and not isinstance(child, ast.expr_context):
                yield Place(node, field, index), child


def _own(statement: ast.AST) -> Iterator[tuple[Place, ast.AST]]:
    """All nodes of a statement but those of the statements in it."""
    for place, child in _children(statement):
        if not isinstance(child, (ast.stmt, ast.JoinedStr)):
            yield place, child
            yield from _own(child)


def _statements(node: ast.AST, scope: str) -> Iterator[tuple[Place, ast.stmt, str]]:
    for place, child in _children(node):
        if isinstance(child, ast.stmt):
            yield place, child, scope
            named = isinstance(child, (ast.FunctionDef, ast.ClassDef))
            inner = f"{scope}.{child.name}".lstrip(".") if named else scope
            yield from _statements(child, inner)


def _names(nodes: Iterable[ast.AST]) -> set[str]:
    return {part.id for node in nodes for part in ast.walk(node) if isinstance(part, ast.Name)}


def _eligible(specimen: Specimen, tree: ast.Module, run: set[int]) -> set[ast.stmt]:
    """The statements that the subject runs, and those of the module that make what it names."""
    found: set[ast.stmt] = set()
    for _, statement, scope in _statements(tree, ""):
        body = isinstance(statement, (ast.FunctionDef, ast.ClassDef))
        inside = statement.body if body else [statement]
        lines = range(inside[0].lineno, (inside[-1].end_lineno or 0) + 1)
        if (scope or body) and run.intersection(lines):
            found.add(statement)
    asked = [ast.parse(text, mode="eval") for text in (specimen.subject,)]
    names = _names([*asked, *(s for s in found if not isinstance(s, ast.ClassDef))])
    tables = [s for s in tree.body if isinstance(s, ast.Assign)]
    while new := {s for s in tables if _names(s.targets) & names} - found:
        found |= new
        names |= _names(new)
    return found


def lines_of(specimen: Specimen) -> set[int]:
    """The lines of its module that a right subject runs when it is probed."""
    module = load(specimen)
    found: set[int] = set()
    name = f"<specimen {specimen.id}>"

    def trace(frame: FrameType, event: str, _: object) -> Callable[..., Any] | None:
        if frame.f_code.co_filename != name:
            return None
        if event == "line":
            found.add(frame.f_lineno)
        return trace

    sys.settrace(trace)
    try:
        numbers_of(key_of(specimen), module)
    finally:
        sys.settrace(None)
    return found


def mutants(specimen: Specimen, seed: int) -> Iterator[Mutant]:
    """All of one right specimen in the order of a seed: one of each kind, then one more of each."""
    tree = ast.parse(correct(specimen.module))
    whole = ast.unparse(tree)
    right = whole.splitlines()
    key = key_of(specimen)
    eligible = _eligible(specimen, tree, lines_of(specimen))
    found: dict[str, list[tuple[Place, ast.AST, ast.AST, str]]] = {}
    for place, statement, scope in _statements(tree, ""):
        if statement not in eligible:
            continue
        for where, node in ((place, statement), *_own(statement)):
            for kind, rival in rivals(node):
                named = getattr(statement, "name", "") if where.parent is not tree else ""
                within = f"{scope}.{named}".strip(".")
                found.setdefault(kind, []).append((where, node, rival, within))
    draw = random.Random(f"{seed} {key}")
    for ways in found.values():
        draw.shuffle(ways)
    kinds = sorted(found)
    while any(found.values()):
        draw.shuffle(kinds)
        for kind in kinds:
            if not found[kind]:
                continue
            where, node, rival, scope = found[kind].pop()
            where.put(rival)
            text = ast.unparse(ast.fix_missing_locations(tree))
            where.put(node)
            after = text.splitlines()
            changed = [i for i, (a, b) in enumerate(zip(right, after, strict=False)) if a != b]
            if changed:
                i = changed[0]
                yield Mutant(key, kind, scope, right[i].strip(), after[i].strip(), text)


# --- what becomes of them


class Fate(NamedTuple):
    """What a mutant does, and what check said."""

    what: str  # caught, told, survived, unchecked, broken, same, other facts
    verdict: str  # of check, or how it ends
    names: tuple[str, ...] = ()
    words: str = ""


SUBJECTS = {key_of(specimen): specimen for specimen in RIGHT}
JUDGED = ("caught", "told", "survived", "unchecked")
PASSED = ("right", "equivalent", "fragile")


def _module(specimen: Specimen, text: str) -> ModuleType:
    module = ModuleType("mutant")
    exec(compile(text, "<mutant>", "exec"), module.__dict__)
    module.__dict__["__specimen__"] = specimen
    return module


def _close(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal but for rounding in single precision."""
    if a.shape != b.shape:
        return False
    size = float(a.nan_to_num(0, 0, 0).abs().max()) if a.numel() else 0.0
    return torch.allclose(a, b, rtol=1e-5, atol=1e-6 * size, equal_nan=True)


def _alike(a: Any, b: Any) -> bool:
    """Whether two modules state the same fact."""
    if callable(a):
        return all(_alike(a(t), b(t)) for t in (0.01, 0.3, 0.9))
    if isinstance(a, (str, torch.dtype)) or a is None:
        return bool(a == b)
    one, other = (torch.as_tensor(x, dtype=torch.float64) for x in (a, b))
    return _close(one, other)


def _apart(specimen: Specimen) -> set[str]:
    """The facts that are not themselves what is checked."""
    itself = specimen.role == "schedule" and specimen.given.get("gives", "betas") == "betas"
    return set(specimen.given) - ({"betas"} if itself else set())


# What the probes of the specimens leave out: own draws, and steps at the data's end.
MORE: dict[str, tuple[Callable[[Any], Any], ...]] = {
    "loss": (
        lambda f: f(net, X),
        lambda f: f(net, X, TIMES),
        lambda f: f(score, X, SIGMAS / 50),
    ),
    "marginal": (lambda f: f(X, SIGMAS / 50),),
    "step": (
        lambda f: f(X, Y, 19, 0),
        lambda f: f(X, Y, 1, 0),
        lambda f: f(net, 0.05 * X, TIMES),
    ),
    "scheduler": (lambda f: list(stepped(f, f.num_train_timesteps)),),
}


def _more(role: str, module: ModuleType) -> list[list[torch.Tensor] | None]:
    """Of each further probe what it gives; none where it does not fit."""
    found: list[list[torch.Tensor] | None] = []
    for probe in MORE.get(role, ()):
        torch.manual_seed(0)
        try:
            made = probe(reach(module))
        except Exception:
            found.append(None)
            continue
        parts = made if isinstance(made, (list, tuple)) else [made]
        found.append([torch.as_tensor(part).detach().double() for part in parts])
    return found


def _alter(role: str, module: ModuleType, right: list[list[torch.Tensor] | None]) -> bool:
    """Whether a further probe that fits right code shows another behaviour."""
    for one, other in zip(_more(role, module), right, strict=True):
        if other is not None and (one is None or not all(map(_close, one, other))):
            return True
    return False


@cache
def _reference(key: str) -> tuple[list[torch.Tensor], dict[str, Any], list[Any]]:
    module = load(SUBJECTS[key])
    return numbers_of(key, module), facts(module), _more(SUBJECTS[key].role, module)


def _whys(report: Any) -> set[str]:
    """Why it is fragile."""
    return {part.why for part in report.functions if part.verdict == "fragile"}


@cache
def _whys_of_right(key: str) -> set[str]:
    from alphabar import check

    module = load(SUBJECTS[key])
    return _whys(getattr(check, SUBJECTS[key].role)(reach(module), **facts(module)))


def _fate(key: str, text: str) -> Fate:
    from alphabar import check

    specimen = SUBJECTS[key]
    right, stated, more = _reference(key)
    try:
        module = _module(specimen, text)
        known = facts(module)
        if not all(_alike(stated[name], known[name]) for name in _apart(specimen)):
            return Fate("other facts", "")
    except Exception as problem:
        return Fate("broken", "does not run", words=repr(problem))
    runs = True
    try:
        found = numbers_of(key, module)
        same = len(found) == len(right) and all(map(_close, right, found))
        if same and not _alter(specimen.role, module, more):
            return Fate("same", "")
    except Exception:
        runs = False
    torch.manual_seed(0)
    try:
        subject = reach(module)
    except Exception as problem:
        return Fate("broken", "does not run", words=repr(problem))
    try:
        report = getattr(check, specimen.role)(subject, **known)
    except ValueError as problem:
        return Fate("caught", "refused", words=str(problem))
    names = tuple(d.id for part in report.functions for d in part.diagnoses)
    verdict = report.verdict
    if verdict in PASSED:
        told = verdict == "fragile" and not _whys(report) <= _whys_of_right(key)
        what = "told" if told else "survived"
    elif verdict == "unchecked":
        what = "unchecked" if runs else "broken"
    else:
        what = "caught"
    return Fate(what, verdict, names, str(report))


def _work(pipe: Connection, memory: int) -> None:
    import alphabar.check  # noqa: F401  # its time is no mutant's

    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # theirs
    pipe.send("ready")
    while True:
        key, text = pipe.recv()
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            try:
                fate = _fate(key, text)
            except Exception as problem:  # of check itself: never caught
                fate = Fate("survived", "check raised", words=repr(problem))
        pipe.send(fate)


class Bench:
    """One process that judges mutants, each within a limit; a new one after each that hangs."""

    def __init__(self, limit: float = 20.0, memory: int = 3 << 30) -> None:
        self.limit = limit
        self.memory = memory
        self.process: BaseProcess | None = None
        self.pipe: Connection | None = None

    def __enter__(self) -> "Bench":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.process = None

    def _start(self) -> Connection:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, self.memory), daemon=True)
        self.process.start()
        theirs.close()
        if self.pipe.poll(60):  # torch's import
            self.pipe.recv()
        return self.pipe

    def fate(self, mutant: Mutant) -> Fate:
        """What becomes of it.

        Raises:
            EOFError: no process can be started.
        """
        pipe = self._start() if self.process is None or self.pipe is None else self.pipe
        try:
            pipe.send((mutant.subject, mutant.text))
            if pipe.poll(self.limit):
                return pipe.recv()
            ended = "hangs"
        except (EOFError, OSError):
            ended = "ends the process"
        self.__exit__()
        return Fate("broken", ended)


def judged(
    bench: Bench, specimens: Iterable[Specimen], each: int, seed: int
) -> Iterator[tuple[Mutant, Fate]]:
    """Of each specimen that many mutants that change what it does; those that do not besides."""
    for specimen in specimens:
        left = each
        for mutant in mutants(specimen, seed):
            fate = bench.fate(mutant)
            yield mutant, fate
            left -= fate.what in JUDGED
            if not left:
                break
