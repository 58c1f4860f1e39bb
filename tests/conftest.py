"""Fixtures of the command line's tests: a command in this process, and short fits."""

import signal
import sys
import warnings
from functools import partial
from pathlib import Path

import pytest

from alphabar import cli
from command_line import Result, Run


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """A command, in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["alphabar", *map(str, arguments)])
        monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # main changes it
        before = signal.getsignal(signal.SIGTERM)
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        signal.signal(signal.SIGTERM, before)
        out, err = capsys.readouterr()
        assert isinstance(stopped.value.code, int)
        return Result(stopped.value.code, out, err)

    return call


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A coarse yardstick, short fits, and steps that count as many at a sixth of the cost."""
    from alphabar.decompose import finely  # slow to import, and few tests need it

    for module in ("metrics", "decompose"):
        monkeypatch.setattr(f"alphabar.{module}.REFERENCE", 4000)
    for module in ("metrics", "evaluate"):
        monkeypatch.setattr(f"alphabar.{module}.FLOOR_SETS", 5)
    monkeypatch.setattr("alphabar.evaluate.TRUE_SETS", 5)
    for module in ("fit", "draw"):
        monkeypatch.setattr(f"alphabar.{module}.ROUNDS", 3)
        monkeypatch.setattr(f"alphabar.{module}.FINE", 30)
    monkeypatch.setattr("alphabar.fit.ITEMS", 64)
    monkeypatch.setattr("alphabar.decompose.finely", partial(finely, steps=30))
