"""Training by accelerate: the same run in any number of processes, and an end when one dies."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from safetensors.torch import load_file
from torch import nn

from alphabar.data import load
from alphabar.denoise import Moments, NetDenoiser
from alphabar.engine import Accelerated, check_trackers
from alphabar.nets import NETS
from alphabar.objectives import OBJECTIVES
from alphabar.train import Engine, Settings, Shuffled, Streamed, train

MOONS = load("moons:n=500")


@pytest.fixture(autouse=True)
def _one_at_a_time() -> Iterator[None]:
    """An accelerator is kept for the whole process: here each test has its own."""
    yield
    AcceleratorState._reset_state(True)
    GradientState._reset_state()


def trained(engine: Engine | None, objective: str = "edm", steps: int = 30) -> NetDenoiser:
    x = MOONS.x.float()
    learns = objective == "hybrid"
    net = NETS.parse("mlp:width=32").build((2,), 0, 1 + learns)
    denoiser = NetDenoiser(net, Moments.of(x), learns_variance=learns)
    settings = Settings(OBJECTIVES.parse(objective), batch=64)
    *_, last = train(denoiser, Shuffled(x), 3, steps, settings=settings, engine=engine)
    return last.denoiser


def weights(of: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in of.parameters()])


def test_one_process_is_bit_identical_to_none() -> None:
    assert torch.equal(weights(trained(Accelerated(Accelerator(cpu=True)))), weights(trained(None)))


@pytest.mark.parametrize("parts", [2, 4])
def test_parts_of_a_batch_add_up(parts: int) -> None:
    engine = Accelerated(Accelerator(cpu=True, gradient_accumulation_steps=parts))
    assert engine.parts == parts
    # Adam divides by what is small at first: of rounding more is left than float32 has.
    assert torch.allclose(weights(trained(engine)), weights(trained(None)), rtol=0, atol=1e-4)


def test_parts_draw_their_own_directions() -> None:
    """Slices are drawn by each part alone: only the law is the same, and what is drawn beside."""
    engine = Accelerated(Accelerator(cpu=True, gradient_accumulation_steps=2))
    apart = (weights(trained(engine, "sliced")) - weights(trained(None, "sliced"))).abs().max()
    assert 0 < apart < 0.5


def test_half_precision_learns() -> None:
    engine = Accelerated(Accelerator(cpu=True, mixed_precision="bf16"))
    found, exact = trained(engine), trained(None)
    apart = (weights(found) - weights(exact)).norm() / weights(exact).norm()
    assert 1e-6 < apart < 0.05


@pytest.mark.parametrize("share", [slice(0, None, 2), slice(1, None, 3)])
def test_a_share_is_of_what_all_draw(share: slice) -> None:
    x = MOONS.x.float()
    for make in (lambda: Shuffled(x), lambda: Streamed(lambda n, seed: x[:n] + seed, 5)):
        one, other = make(), make()
        for _ in range(20):
            a = one.draw(60, torch.Generator().manual_seed(1)).x_0[share]
            assert torch.equal(other.draw(60, torch.Generator().manual_seed(1), share).x_0, a)


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    engine = Accelerated(Accelerator(cpu=True, gradient_accumulation_steps=7))
    with pytest.raises(ValueError, match="64 cannot be shared evenly by 1 processes in 7 parts"):
        trained(engine)


def test_trackers_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="--track nothing: it is no tracker; choose among aim"):
        check_trackers(["nothing"])
    with pytest.raises(ValueError, match="--track clearml: it is not installed"):
        check_trackers(["clearml"])


# --- several processes


def started(folder: Path, *arguments: object, n: int = 2) -> list[subprocess.Popen[str]]:
    """n processes that train together, as `torchrun` or `accelerate launch` starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    sizes = {"WORLD_SIZE": str(n), "LOCAL_WORLD_SIZE": str(n), "ACCELERATE_USE_CPU": "true"}
    command = [sys.executable, "-m", "alphabar", "train", *map(str, arguments)]
    return [
        subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **common, **sizes, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(n)
    ]


def ended(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    found = [process.communicate(timeout=120) for process in processes]
    return [(p.returncode, *said) for p, said in zip(processes, found, strict=True)]


# A schedule of one step, to which no steps can be fitted: that takes longer than the training.
RUN = ("moons:n=500", "--net", "mlp:width=32", "--batch", 64, "--seed", 3, "--json")
RUN += ("--levels", "logistic", "--schedule", "linear:T=1")


@pytest.mark.slow
@pytest.mark.parametrize("victim", [1, pytest.param(0, marks=pytest.mark.prove)])
def test_two_processes_train_what_one_does_and_one_ends_when_the_other_dies(
    tmp_path: Path, victim: int
) -> None:
    (alone,) = ended(started(tmp_path, *RUN, "--steps", 400, "-o", "alone", n=1))
    assert alone[0] == 0, alone[2]
    both = started(tmp_path, *RUN, "--steps", 400, "-o", "both")
    lines = tmp_path / "both" / "metrics.jsonl"
    while not (lines.exists() and len(lines.read_text().splitlines()) > 15):
        time.sleep(0.01)
        assert both[victim].poll() is None, both[victim].communicate()
    both[victim].kill()
    code, out, said = ended(both)[1 - victim]
    assert (code, out) == (2, "")
    assert said.splitlines()[-1].startswith(
        f"alphabar: process {1 - victim} of 2 cannot go on: another one has ended"
    )
    first, second = ended(started(tmp_path, "-o", "both", "--resume", "--json"))
    assert (first[0], second[0]) == (0, 0), (first, second)
    assert second[1] == ""  # one speaks
    document, expected = json.loads(first[1]), json.loads(alone[1])
    assert document["steps"] == 400
    assert document["loss"] == pytest.approx(expected["loss"], rel=1e-4)
    found, exact = (
        load_file(tmp_path / name / "checkpoint.safetensors") for name in ("both", "alone")
    )
    assert found.keys() == exact.keys()
    for key, value in exact.items():
        if key.startswith(("weights", "average", "optimizer", "generator", "items")):
            assert torch.allclose(found[key].double(), value.double(), rtol=0, atol=2e-3), key


@pytest.mark.prove
def test_what_one_process_refuses_ends_all(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear")
    first, second = ended(started(tmp_path, *RUN, "--steps", 5, "-o", "full"))
    assert (first[0], second[0]) == (2, 2)
    assert "is not empty" in first[2]
    assert "the first process could not do it" in second[2]
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["letter.txt"]
