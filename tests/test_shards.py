"""Samples in parts: the same however they were cut, drawn or stopped; refused where they differ."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from alphabar.shards import MANIFEST, begin_shards, open_shards
from command_line import Run

ABOUT: dict[str, object] = {"seed": 3, "sampler": "ddim"}
FEW = ("--exact", "--steps", 3, "--seed", 5)


def filled(folder: Path, n: int = 10, size: int = 4) -> np.ndarray:
    shards = begin_shards(folder, ABOUT, n, (2,), size)
    whole = torch.arange(2.0 * n).reshape(n, 2)
    for i in shards.missing():
        first, m = shards.part(i)
        shards.write(i, whole[first : first + m])
    return whole.numpy()


def test_parts_are_the_whole(tmp_path: Path) -> None:
    whole = filled(tmp_path / "x")
    shards = open_shards(tmp_path / "x")
    assert (shards.count, shards.missing()) == (3, [])
    for first in range(10):
        for m in range(11 - first):
            np.testing.assert_array_equal(shards.read(first, m).numpy(), whole[first : first + m])
    with pytest.raises(ValueError, match="sample 10 is not there"):
        shards.read(8, 3)


def test_processes_share_the_parts(tmp_path: Path) -> None:
    shards = begin_shards(tmp_path / "x", ABOUT, 100, (2,), 3)
    parts = [shards.missing(rank, 4) for rank in range(4)]
    assert sorted(i for part in parts for i in part) == [*range(34)]


@pytest.mark.parametrize("damage", ["cut off", "gone", "another shape", "no array", "empty"])
def test_a_part_that_is_not_whole_is_missing(tmp_path: Path, damage: str) -> None:
    filled(tmp_path / "x")
    part = tmp_path / "x" / "000001.npy"
    if damage == "gone":
        part.unlink()
    elif damage == "another shape":
        np.save(part, np.zeros((3, 2), np.float32))
    else:
        whole = part.read_bytes()
        part.write_bytes({"cut off": whole[:-4], "no array": b"dear me", "empty": b""}[damage])
    shards = open_shards(tmp_path / "x")
    assert shards.missing() == [1]
    with pytest.raises(ValueError, match="sample 4 is not there; draw the rest with --resume"):
        shards.read(0, 5)


def test_only_the_same_samples_go_on(tmp_path: Path) -> None:
    whole = filled(tmp_path / "x")
    shards = begin_shards(tmp_path / "x", ABOUT, 10, (2,), 4, resume=True)
    np.testing.assert_array_equal(shards.read(0, 10).numpy(), whole)
    for about, n, shape in (
        ({**ABOUT, "seed": 4}, 10, (2,)),
        (ABOUT, 11, (2,)),
        (ABOUT, 10, (3,)),
        ({"seed": 3}, 10, (2,)),
    ):
        with pytest.raises(ValueError, match="its samples were begun with"):
            begin_shards(tmp_path / "x", about, n, shape, 4, resume=True)
    with pytest.raises(ValueError, match="not empty"):
        begin_shards(tmp_path / "x", ABOUT, 10, (2,), 4)
    assert begin_shards(tmp_path / "x", ABOUT, 9, (2,), 4, force=True).missing() == [0, 1, 2]
    for text in ("{", "[]", '{"n": 0, "size": 1, "shape": [2]}', '{"n": 3}'):
        (tmp_path / "x" / MANIFEST).write_text(text)
        with pytest.raises(ValueError, match=r"draw (the samples|them) anew"):
            open_shards(tmp_path / "x")
    with pytest.raises(ValueError, match="no samples were begun there"):
        begin_shards(tmp_path / "y", ABOUT, 10, (2,), resume=True)


def test_a_full_disk_leaves_the_other_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = begin_shards(tmp_path / "x", ABOUT, 4, (2,), 2)
    shards.write(0, torch.zeros(2, 2))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OSError, match=r"part 1 of 2 could not be written \(No space left"):
        shards.write(1, torch.zeros(2, 2))
    assert shards.missing() == [1]
    assert sorted(p.name for p in (tmp_path / "x").iterdir()) == ["000000.npy", MANIFEST]


def test_the_command_draws_what_it_draws_at_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alphabar.shards.NUMBERS", 60)  # 30 points a part
    assert run("sample", "moons", "-n", 100, "-o", "whole.npy", *FEW).code == 0
    found = json.loads(run("sample", "moons", "-n", 100, "-o", "parts", *FEW, "--json").out)
    assert (found["parts"], found["drawn"], found["processes"]) == (4, 4, 1)
    whole, parts = np.load("whole.npy"), open_shards(Path("parts"))
    np.testing.assert_allclose(parts.read(0, 100), whole, atol=1e-5)
    Path("parts/000002.npy").unlink()
    again = run("sample", "moons", "-n", 100, "-o", "parts", *FEW[:-2], "--resume", "--json")
    assert json.loads(again.out)["drawn"] == 1  # with the seed that was begun with
    np.testing.assert_allclose(parts.read(0, 100), whole, atol=1e-5)
    assert run("evaluate", "parts", "--against", "moons", "-n", 50, "--metrics", "ks").code == 0
    for words, said in (
        ("-n 100 -o parts --exact", "not empty"),
        ("-n 99 -o parts --exact --steps 3 --resume", "begun with n = 100"),
        ("-n 100 -o parts --exact --steps 4 --resume", "begun with levels"),
        ("-n 100 -o parts --exact --resume --force", "give one"),
        ("-n 100 -o new --exact --resume", "no samples were begun"),
        ("-n 100 -o x.npy --exact --resume", "give it with -o FOLDER"),
        ("-n 100 --exact --resume", "give it with -o FOLDER"),
    ):
        result = run("sample", "moons", *words.split())
        assert (result.code, said in result.err) == (2, True), (words, result)
    Path("line.csv").write_text("1\n2\n3\n4\n5\n")
    assert "no such file" in run("evaluate", "nothing.npy", "--against", "moons").err
    assert "of shape (2,), and" in run("evaluate", "parts", "--against", "line.csv").err


@pytest.mark.slow
def test_a_job_that_is_killed_goes_on(tmp_path: Path) -> None:
    begin = "import alphabar.shards as s; s.NUMBERS = 60\nfrom alphabar.cli import main; main()"
    drawn = [sys.executable, "-c", begin, "sample", "moons", "--exact", "-n", "600", "--seed", "5"]
    drawn += ["--steps", "4", "--quiet", "-o"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    job = subprocess.Popen([*drawn, "parts"], cwd=tmp_path, env=environment)
    while len([*(tmp_path / "parts").glob("0*.npy")]) < 3:
        assert job.poll() is None
        time.sleep(0.01)
    job.kill()
    job.wait()
    kept = open_shards(tmp_path / "parts")
    assert 0 < len(kept.missing()) < kept.count
    for rest in (["parts", "--resume"], ["whole.npy"]):
        subprocess.run([*drawn, *rest], cwd=tmp_path, env=environment, check=True, timeout=120)
    np.testing.assert_allclose(
        kept.read(0, 600), np.load(tmp_path / "whole.npy"), rtol=0, atol=1e-5
    )
