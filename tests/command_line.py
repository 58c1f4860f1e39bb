"""What tests of the command line share: how a command is called, and what it gave."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest


class Result(NamedTuple):
    """What a person is left with."""

    code: int
    out: str
    err: str


Run = Callable[..., Result]


def document(result: Result) -> dict[str, Any]:
    """The one JSON document on standard output."""
    assert result.code == 0, result.err
    found: dict[str, Any] = json.loads(
        result.out, parse_constant=lambda c: pytest.fail(f"{c} is not JSON")
    )
    return found


def alphabar(*arguments: str, **options: object) -> subprocess.Popen[str]:
    """A process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "alphabar.cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # What is started in the background ignores Ctrl-C, and so would all that it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **options,  # type: ignore[call-overload]
    )
