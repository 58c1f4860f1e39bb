"""What a person names in code of their own: `package.module:name`.

Only what is given on the command line or in a call is imported, never what a file says.
"""

import importlib
import os
import re
import sys
from collections.abc import Callable
from typing import Any

_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


def is_import_path(text: str) -> bool:
    """Whether a text reads `package.module:name`."""
    return _PATH.fullmatch(text) is not None


def imported(path: str, option: str) -> Callable[..., Any]:
    """What the path names; modules are looked for in the present folder, too.

    Args:
        path: `package.module:name`.
        option: what it was given as, for errors.

    Raises:
        ValueError: it does not read so; there is no such module or name; the module raises; or
            what it names cannot be called.
    """
    if not is_import_path(path):
        raise ValueError(f"{option} {path}: write package.module:name, as in mynets:Net")
    module, _, name = path.partition(":")
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        remedy = "go to its folder, or install it"
        raise ValueError(f"{option} {path}: there is no module {error.name}; {remedy}") from None
    except Exception as error:
        said = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{option} {path}: importing {module} raises {type(error).__name__}: {said}; mend it"
        ) from error
    made = getattr(found, name, None)
    if not callable(made):
        what = "has nothing of that name" if made is None else f"{name} cannot be called"
        raise ValueError(f"{option} {path}: {module} {what}; name a function or a class in it")
    return made
