"""The gallery: each bug of the catalogue as code, formula, measured effect and picture.

    print(gallery.show("A6"))
    gallery.picture("A6").savefig("a6.png")

The code that is shown is the source of the functions that run (`right`, `wrong`), the numbers are
measured when they are asked for (`seen`), and `docs/bugs.md` is `markdown()`:

    python -m alphabar.check.gallery docs
"""

import inspect
import math
import textwrap
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING

from alphabar.check.catalogue import BUGS, Bug
from alphabar.check.gallery import right
from alphabar.check.gallery.conventions import CONVENTIONS
from alphabar.check.gallery.entries import ENTRIES, Entry
from alphabar.check.gallery.seen import Row, Seen

if TYPE_CHECKING:
    from alphabar.figures.style import Style, StyledFigure

__all__ = ["Entry", "entries", "markdown", "measured", "picture", "show", "table"]

_BUGS = {bug.id: bug for bug in BUGS}
_ENTRIES = {entry.id: entry for entry in ENTRIES}


def entries() -> tuple[Entry, ...]:
    """All of them, A1 first."""
    return ENTRIES


def show(id: str | None = None) -> str:
    """One bug for the terminal, measured now; or the list of all.

    Raises:
        ValueError: there is no such bug.
    """
    if id is None:
        return "\n".join(f"{bug.id:<5}{bug.name}" for bug in BUGS)
    entry, bug = _entry(id), _BUGS[id.upper()]
    rows = [("", "law", "right", "wrong"), *map(_cells, measured(entry.id).rows)]
    width = max(len(row[0]) for row in rows)
    numbers = [f"{a:<{width}}" + "".join(f"{b:>12}" for b in rest) for a, *rest in rows]
    parts = [
        f"{bug.id}  {bug.name}\nseen in {bug.seen}",
        f"right   {entry.formula}\nwrong   {entry.mistaken}",
        source(entry.right),
        source(entry.wrong),
        "\n".join(numbers),
        textwrap.fill(entry.lesson, 88),
        textwrap.fill(f"Remedy: {bug.remedy}", 88),
        f"What all the code shares:\n\n{textwrap.indent(notebook(), '    ')}",
    ]
    return "\n\n".join(parts)


@cache
def measured(id: str) -> Seen:
    """What a bug does, in numbers and to be drawn.

    Raises:
        ValueError: there is no such bug.
    """
    return _entry(id).effect()


def picture(id: str, style: "Style | None" = None) -> "StyledFigure":
    """A bug as a picture: what the right code makes beside what the wrong code makes.

    Raises:
        ValueError: there is no such bug.
    """
    from alphabar.check.gallery.pictures import right_beside_wrong
    from alphabar.figures.style import LIGHT

    entry = _entry(id)
    title = f"{entry.id}: {_BUGS[entry.id].name}"
    return right_beside_wrong(measured(id).drawn, title, style or LIGHT)


def source(code: object) -> str:
    """The source of a function or class, as it runs."""
    assert callable(code)
    return inspect.getsource(code).strip()


def notebook() -> str:
    """The tables and helpers that all the code shares."""
    text = inspect.getsource(right)
    return text.partition("import torch\n")[2].partition("# ---")[0].strip()


# --- docs/bugs.md


def markdown(tables: Mapping[str, str] | None = None) -> str:
    """The page of all bugs.

    Args:
        tables: the measured numbers of each bug, as `table` writes them; measured if not given.
    """
    found = {e.id: table(e.id) for e in ENTRIES} if tables is None else tables
    return (
        "\n\n".join(
            [
                _HEAD,
                "\n".join(_link(_BUGS[e.id]) for e in ENTRIES),
                "\n".join(f"- [{c.id} {c.name}](#{c.id.lower()})" for c in CONVENTIONS),
                f"## What all the code shares\n\n{_fenced(notebook())}",
                *(_section(e, _BUGS[e.id], found[e.id]) for e in ENTRIES),
                _NO_BUGS,
                *(
                    f'<a id="{c.id.lower()}"></a>\n\n## {c.id}: {c.name}\n\n{c.why}\n\n{c.seen}'
                    for c in CONVENTIONS
                ),
            ]
        )
        + "\n"
    )


def table(id: str) -> str:
    """The measured numbers of a bug, in Markdown."""
    rows = [("measured", "law", "right", "wrong"), ("---",) * 4, *map(_cells, measured(id).rows)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


_HEAD = """\
# Real bugs, and what they do

Thirty-five bugs that were found in public diffusion code, each as code, formula, number and
picture. `alphabar check` names them from what a function does; `alphabar check --gallery A6` shows
one.

Each sampler below is handed the *exact* denoiser of the Swiss roll, so what is wrong in a picture
is the bug alone (and, where steps are few and long, their length: then the right code is not at 1
either). *Ratio* is the distance of 2,000 samples to the law of the data over that of 2,000 true
ones: 1 is perfect, and chance makes it about 0.7 to 1.4. A loss is judged by which exact model has
the lower loss: that is what a network would learn, and right code samples it.

**Many pictures look right.** That is why these bugs lived: look at the numbers.

This page is written by `python -m alphabar.check.gallery docs`: the code is what was run, and the
numbers are what it gave."""

_NO_BUGS = """\
# Reported as bugs, and none

These are conventions, or the same thing written in another way. `check` says `right`, `equivalent`
or `fragile`."""


def _section(entry: Entry, bug: Bug, numbers: str) -> str:
    return "\n\n".join(
        [
            f'<a id="{bug.id.lower()}"></a>\n\n## {bug.id}: {bug.name}',
            f"Seen in {bug.seen}.",
            f"| | |\n| --- | --- |\n| right | {_in_table(entry.formula)} |\n"
            f"| wrong | {_in_table(entry.mistaken)} |",
            f"Right:\n\n{_fenced(source(entry.right))}",
            f"Wrong:\n\n{_fenced(source(entry.wrong))}",
            f"![Right beside wrong: {bug.name}](bugs/{bug.id.lower()}.png)",
            numbers,
            entry.lesson,
            f"**Remedy:** {bug.remedy}.",
        ]
    )


def _link(bug: Bug) -> str:
    return f"- [{bug.id} {bug.name}](#{bug.id.lower()})"


def _fenced(code: str) -> str:
    return f"```python\n{code}\n```"


def _in_table(formula: str) -> str:
    return "`" + formula.replace("|", "\\|") + "`"


def _cells(row: Row) -> Sequence[str]:
    return (
        row.what,
        "" if row.law is None else _number(row.law),
        *map(_number, row.both),
    )


def _number(value: float) -> str:
    """Three digits."""
    if not math.isfinite(value):
        return str(value)
    if value and not 1e-3 <= abs(value) < 1e4:
        return f"{value:.1e}".replace("-", "−")
    return f"{value:.3g}".replace("-", "−")


def _entry(id: str) -> Entry:
    found = _ENTRIES.get(id.upper())
    if found is None:
        raise ValueError(f"{id}: there is no such bug; choose {ENTRIES[0].id} … {ENTRIES[-1].id}")
    return found
