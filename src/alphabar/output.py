"""Files that a command writes: never over a user's own, never half of one."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TEMPORARY = ".alphabar-"  # what the name of a file on its way begins with


def check_file(path: Path, endings: tuple[str, ...], force: bool, option: str = "-o") -> Path:
    """Refuse a path that could not or should not be written, before any work is done.

    Args:
        path: what was asked for.
        endings: that its name may have.
        force: whether a file that is there may be replaced.
        option: what it was asked for by.

    Raises:
        ValueError: an ending that is not one of `endings`, a folder that does not exist, a path
            that is a folder, an existing file without `force`.
    """
    if path.suffix.lower() not in endings:
        raise ValueError(f"{option} {path}: its name must end in {', '.join(endings)}")
    if not path.parent.is_dir():
        raise ValueError(f"{option} {path}: there is no folder {path.parent}; make it first")
    if path.is_dir():
        raise ValueError(f"{option} {path}: this is a folder; name a file in it")
    if path.exists() and not force:
        raise ValueError(f"{option} {path}: this file exists; add --force to replace it")
    if not os.access(path.parent, os.W_OK):
        raise ValueError(f"{option} {path}: the folder {path.parent} cannot be written to")
    return path


def check_folder(path: Path, force: bool) -> Path:
    """Refuse a folder that could not or should not be written into; it is not made yet.

    Raises:
        ValueError: a path that is a file, a parent that does not exist, a folder that holds
            something without `force`.
    """
    if path.exists() and not path.is_dir():
        raise ValueError(f"-o {path}: this is a file; name a folder")
    if not path.parent.is_dir():
        raise ValueError(f"-o {path}: there is no folder {path.parent}; make it first")
    if path.is_dir() and any(path.iterdir()) and not force:
        raise ValueError(
            f"-o {path}: this folder is not empty; add --force to write into it, or name another"
        )
    if not os.access(path if path.is_dir() else path.parent, os.W_OK):
        raise ValueError(f"-o {path}: the folder cannot be written to")
    return path


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, with its ending; it becomes `path` when all went well.

    with writing(path) as temporary:
        figure.savefig(temporary)
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=TEMPORARY, suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())  # mkstemp's are private; a plain open()'s are not
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def filling(folder: Path) -> Iterator[Path]:
    """A temporary folder whose files move into `folder` when all went well; it is made if need be.

    It lies inside `folder` where that exists: a folder may be writable, or a disk of its own, where
    its parent is not.
    """
    home = folder if folder.is_dir() else folder.parent
    temporary = Path(tempfile.mkdtemp(dir=home, prefix=TEMPORARY))
    try:
        yield temporary
        if not folder.exists():
            temporary.chmod(0o777 & ~_umask())
            temporary.rename(folder)
            return
        for path in sorted(temporary.rglob("*")):
            if path.is_file():
                target = folder / path.relative_to(temporary)
                target.parent.mkdir(exist_ok=True)
                path.replace(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask
