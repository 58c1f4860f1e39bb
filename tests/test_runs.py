"""A run folder: whole however its process ends, continued bit for bit, refused when it is wrong."""

import json
import math
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from alphabar import runs
from alphabar.config import Config, Lessons, configure, lessons_of
from alphabar.data import Data, Standardiser, load, points
from alphabar.denoise import NetDenoiser
from alphabar.excess import Excess, even_log_snr
from alphabar.runs import Law, Progress, begin, is_logged, open_run, resume
from alphabar.samplers import SAMPLERS, Sampler
from alphabar.samplers.mixes import mixes
from alphabar.schedule import SCHEDULES, Schedule, from_log_snr
from alphabar.targets import target_of
from alphabar.train import Diverged, TrainStep, train

TINY = "mlp:width=8,depth=2,features=2"
STEPS = 40
SMALL: dict[str, Any] = {"steps": STEPS, "net": TINY, "batch": 16}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT interrupts, also where the tests themselves run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def plain() -> tuple[Config, Lessons]:
    return configure(load("gaussians:n=100"), None, 5, **SMALL)


def streamed() -> tuple[Config, Lessons]:
    return configure(load("gaussians:n=100"), None, 5, **SMALL, stream=True)


def by_class() -> tuple[Config, Lessons]:
    data = load("gaussians:n=100")
    return configure(data, None, 5, **SMALL, condition=data.labels, drop=0.3)


def of_few() -> tuple[Config, Lessons]:
    """Fewer items than a batch holds: an order of them is of several epochs."""
    return configure(load("gaussians:n=7"), None, 5, **SMALL)


def scaled() -> tuple[Config, Lessons]:
    data = points(np.random.default_rng(0).normal(size=(50, 3)) * [1, 10, 100])
    given = SMALL | {"schedule": "cosine:T=30", "predicts": "v", "objective": "hybrid"}
    return configure(data, Standardiser.fit(data.x), 5, **given, held_out=True)


KINDS = {f.__name__: f for f in (plain, streamed, by_class, of_few, scaled)}


def advance(training: runs.Training, count: int | None = None) -> list[Progress]:
    """So many steps, or all that there are; the folder is closed."""
    seen = []
    with training:
        for at in training.steps():
            seen.append(at)
            if len(seen) == count:
                break
    return seen


def through(
    training: runs.Training,
    probe: Any = None,
    every: float = 30,
    at_step: tuple[int, Callable[[], object]] = (0, lambda: None),
) -> None:
    """All steps, and something done by the caller after one of them."""
    with training:
        for at in training.steps(probe, every):
            if at.step.step == at_step[0]:
                at_step[1]()


@dataclass
class Whole:
    """What a run leaves, the clock apart."""

    state: dict[str, Tensor]
    lines: list[tuple[object, ...]]

    @classmethod
    def of(cls, path: Path) -> "Whole":
        state = load_file(path / "checkpoint.safetensors")
        state["seconds"] = state["seconds"][1:]
        return cls(state, [line[:-1] for line in open_run(path).metrics()])

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, Whole)
        return (
            self.lines == other.lines
            and self.state.keys() == other.state.keys()
            and all(torch.equal(v, other.state[k]) for k, v in self.state.items())
        )


def uninterrupted(path: Path, kind: str = "plain") -> Whole:
    advance(begin(path, *KINDS[kind]()))
    return Whole.of(path)


def temporaries(path: Path) -> list[str]:
    return [entry.name for entry in path.glob(".*") if entry.name != ".lock"]


# --- what is in a folder


def test_a_folder_holds_what_it_says(tmp_path: Path) -> None:
    config, lessons = scaled()
    seen = advance(begin(tmp_path / "run", config, lessons))
    assert {entry.name for entry in (tmp_path / "run").iterdir()} == {
        "config.json",
        "checkpoint.safetensors",
        "metrics.jsonl",
        "data.safetensors",
        ".lock",
    }
    run = open_run(tmp_path / "run")
    assert run.config.to_dict() == config.to_dict()
    denoiser, step, seconds = run.trained()
    assert (step, seconds) == (STEPS, seen[-1].step.seconds)
    # The average of the weights, to the last bit, and ready to sample with.
    wanted = seen[-1].step.denoiser.state_dict()
    assert denoiser.state_dict().keys() == wanted.keys()
    assert all(torch.equal(v, wanted[k]) for k, v in denoiser.state_dict().items())
    assert not denoiser.training
    assert not any(p.requires_grad for p in denoiser.parameters())
    level = SCHEDULES.parse("cosine:T=30")[12]
    x = lessons.x_0[:5]
    assert torch.equal(denoiser(x, level), seen[-1].step.denoiser(x, level).detach())
    assert denoiser.learns_variance


def test_the_config_is_a_line_a_key(tmp_path: Path) -> None:
    config, lessons = plain()
    with begin(tmp_path / "run", config, lessons):
        text = (tmp_path / "run" / "config.json").read_text()
    found = json.loads(text)
    assert text.count("\n") == len(found) + 2
    assert found["format"] == 2
    assert found["threads"] == 1
    assert found["data"].startswith("gaussians:n=100")
    assert '"shape": [2],' in text


def test_moments_are_those_of_the_items(tmp_path: Path) -> None:
    config, lessons = scaled()
    begin(tmp_path / "run", config, lessons).close()
    law = open_run(tmp_path / "run").law()
    x = lessons.x_0.double().numpy()
    np.testing.assert_allclose(law.mean, x.mean(0), rtol=1e-12, atol=1e-15)
    assert law.cov is not None
    np.testing.assert_allclose(law.cov, np.cov(x.T, bias=True), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(law.var, x.var(0), rtol=1e-12)
    assert law.mean.dtype == torch.float64


def test_large_items_have_no_covariance() -> None:
    x = torch.randn(6, 1, 65, 65, generator=torch.Generator().manual_seed(0))
    law = Law.of(x)
    assert law.cov is None
    np.testing.assert_allclose(law.var, x.double().numpy().reshape(6, -1).var(0), rtol=1e-12)


def test_sampling_reads_nothing_of_the_optimizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uninterrupted(tmp_path / "run")
    read: list[str] = []

    class Watched:
        def __init__(self, *args: Any) -> None:
            self._file = safe_open(*args)

        def __enter__(self) -> "Watched":
            self._inside = self._file.__enter__()
            return self

        def __exit__(self, *args: Any) -> None:
            self._file.__exit__(*args)

        def keys(self) -> list[str]:
            return list(self._inside.keys())

        def metadata(self) -> dict[str, str]:
            return dict(self._inside.metadata())

        def get_tensor(self, key: str) -> Tensor:
            read.append(key)
            return self._inside.get_tensor(key)

    monkeypatch.setattr(runs, "safe_open", Watched)
    open_run(tmp_path / "run").denoiser()
    assert {key.partition(".")[0] for key in read} == {"average", "step", "seconds"}


def test_lines_are_means_and_twenty_a_decade(tmp_path: Path) -> None:
    seen = advance(begin(tmp_path / "run", *plain()))
    lines = open_run(tmp_path / "run").metrics()
    assert lines == [at.line for at in seen if at.line is not None]
    before = 0
    for line in lines:
        losses = [at.step.loss for at in seen[before : line.step]]
        assert line.loss == pytest.approx(np.mean(losses), rel=1e-12)
        step = seen[line.step - 1].step
        assert (line.step, line.rate, line.seconds) == (step.step, step.rate, step.seconds)
        assert line.excess_loss is None
        before = line.step
    assert before == STEPS
    logged = [step for step in range(1, 10**5 + 1) if is_logged(step)]
    assert logged[:10] == list(range(1, 11))
    assert {10**k for k in range(6)} <= set(logged)
    late = np.array([step for step in logged if step >= 100])
    assert len(late) == 3 * 20 + 1
    assert (np.diff(np.log10(late)) < 2 / 20).all()


def test_excess_loss_is_what_the_probe_says(tmp_path: Path) -> None:
    data = load("gaussians:n=100")
    probe = Excess(target_of(data), even_log_snr(4), 32, seed=0)
    config, lessons = configure(data, None, 5, **SMALL)
    with begin(tmp_path / "run", config, lessons) as training:
        for at in training.steps(probe):
            if at.line is not None:
                assert at.line.excess_loss == probe(at.step.denoiser).share
    found = open_run(tmp_path / "run").metrics()
    assert len({line.excess_loss for line in found}) == len(found)
    # Measuring changes nothing.
    other = uninterrupted(tmp_path / "other")
    assert all(torch.equal(v, other.state[k]) for k, v in Whole.of(tmp_path / "run").state.items())


# --- going on


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_run_is_the_uninterrupted_one(kind: str, tmp_path: Path) -> None:
    """Stopped after 1, 1 + 6, … steps, between lines of the metrics and at them."""
    whole = uninterrupted(tmp_path / "whole", kind)
    advance(begin(tmp_path / "run", *KINDS[kind]()), 1)
    for count in (6, 2, 15, None):
        run = open_run(tmp_path / "run")
        advance(resume(run, KINDS[kind]()[1]), count)
    assert Whole.of(tmp_path / "run") == whole
    assert whole.state["step"].item() == STEPS


def test_another_seed_is_another_run(tmp_path: Path) -> None:
    """Else the test above might compare what never differs."""
    whole = uninterrupted(tmp_path / "whole")
    config, lessons = configure(load("gaussians:n=100"), None, 6, **SMALL)
    advance(begin(tmp_path / "run", config, lessons))
    assert Whole.of(tmp_path / "run") != whole


def test_what_was_logged_after_the_checkpoint_is_logged_again(tmp_path: Path) -> None:
    whole = uninterrupted(tmp_path / "whole")
    path = tmp_path / "run"
    advance(begin(path, *plain()), 11)
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 13, "loss": 1.0, "rate": 1.0, "excess_loss": null, "seconds": 1.0}\n')
        file.write('{"step": 15, "lo')
    assert [line.step for line in open_run(path).metrics()] == [*range(1, 11), 13]
    advance(resume(open_run(path), plain()[1]))
    assert Whole.of(path) == whole


def test_a_run_killed_before_its_first_checkpoint_begins_anew(tmp_path: Path) -> None:
    whole = uninterrupted(tmp_path / "whole")
    path = tmp_path / "run"
    advance(begin(path, *plain()), 9)
    (path / "checkpoint.safetensors").unlink()
    (path / ".tmpAbCdEf").write_bytes(b"half a checkpoint")
    (path / ".alphabar-x1y2.safetensors").write_bytes(b"")
    for name in (".gitignore", ".notes", ".tmp-of-mine"):
        (path / name).write_text("mine")
    with pytest.raises(ValueError, match=r"holds no checkpoint: .*go on with --resume"):
        open_run(path).denoiser()
    advance(resume(open_run(path), plain()[1]))
    for name in (".gitignore", ".notes", ".tmp-of-mine"):
        (path / name).unlink()  # they are still there
    assert Whole.of(path) == whole
    assert temporaries(path) == []


def test_a_finished_run_has_nothing_left_to_do(tmp_path: Path) -> None:
    whole = uninterrupted(tmp_path / "run")
    assert advance(resume(open_run(tmp_path / "run"), plain()[1])) == []
    assert Whole.of(tmp_path / "run") == whole


def test_a_run_by_time_ends_with_a_checkpoint_and_goes_on(tmp_path: Path) -> None:
    data = load("gaussians:n=100")
    config, lessons = configure(data, None, 5, **SMALL | {"steps": None}, seconds=0.1)
    first = advance(begin(tmp_path / "run", config, lessons), 3)
    rest = advance(resume(open_run(tmp_path / "run"), lessons))
    assert rest[0].step.step == 4
    assert rest[0].step.seconds > first[-1].step.seconds
    assert rest[-1].step.last
    assert rest[-1].step.seconds >= 0.1 > rest[-2].step.seconds
    assert rest[-1].line is not None
    assert open_run(tmp_path / "run").trained().step == rest[-1].step.step
    assert advance(resume(open_run(tmp_path / "run"), lessons)) == []


def test_a_training_has_its_steps_once(tmp_path: Path) -> None:
    with begin(tmp_path / "run", *plain()) as training:
        training.steps()
        with pytest.raises(RuntimeError, match="resume the run to go on"):
            training.steps()


def test_closing_writes_what_the_iterator_left(tmp_path: Path) -> None:
    with begin(tmp_path / "run", *plain()) as training:
        steps = training.steps()
        for _ in range(5):
            next(steps)
    assert open_run(tmp_path / "run").trained().step == 5


def test_checkpoints_are_written_by_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(runs.time, "monotonic", lambda: now)
    found = []
    with begin(tmp_path / "run", *plain()) as training:
        for at in training.steps(every=10):
            now += 4
            file = tmp_path / "run" / "checkpoint.safetensors"
            if at.step.step < 12:
                found.append(int(load_file(file)["step"]) if file.exists() else 0)
    assert found == [0, 0, 0, 4, 4, 4, 7, 7, 7, 10, 10]


# --- being stopped


@pytest.mark.usefixtures("interruptible")
def test_a_signal_waits_for_the_step(tmp_path: Path) -> None:
    """SIGINT comes while the probe runs: the step is finished, logged and written."""
    whole = uninterrupted(tmp_path / "whole")
    path, before = tmp_path / "run", signal.getsignal(signal.SIGINT)
    data = load("gaussians:n=100")
    excess = Excess(target_of(data), even_log_snr(1), 2, seed=0)

    def probe(denoiser: Any) -> Any:
        if (path / "metrics.jsonl").exists() and len(open_run(path).metrics()) == 6:
            signal.raise_signal(signal.SIGINT)
        return excess(denoiser)

    with pytest.raises(KeyboardInterrupt):
        through(begin(path, *plain()), probe)
    assert signal.getsignal(signal.SIGINT) is before
    assert open_run(path).trained().step == 7
    assert open_run(path).metrics()[-1].step == 7
    advance(resume(open_run(path), plain()[1]))
    found = Whole.of(path)
    assert all(torch.equal(v, found.state[k]) for k, v in whole.state.items())


@pytest.mark.usefixtures("interruptible")
def test_the_second_signal_does_not_wait(tmp_path: Path) -> None:
    excess = Excess(target_of(load("gaussians:n=100")), even_log_snr(1), 2, seed=0)
    asked = 0

    def probe(denoiser: Any) -> Any:
        nonlocal asked
        asked += 1
        if asked == 7:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            raise AssertionError("it waited")
        return excess(denoiser)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        through(begin(tmp_path / "run", *plain()), probe)
    assert signal.getsignal(signal.SIGINT) is before
    # The step was not whole, so it is not kept.
    assert not (tmp_path / "run" / "checkpoint.safetensors").exists()


def test_sigterm_ends_as_its_handler_says(tmp_path: Path) -> None:
    def end(number: int, frame: object) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        with pytest.raises(SystemExit) as caught:
            through(
                begin(tmp_path / "run", *plain()),
                at_step=(3, lambda: os.kill(os.getpid(), signal.SIGTERM)),
            )
    finally:
        signal.signal(signal.SIGTERM, before)
    assert caught.value.code == 143
    assert open_run(tmp_path / "run").trained().step == 3


def test_an_error_of_the_caller_keeps_the_last_step(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        through(begin(tmp_path / "run", *plain()), at_step=(8, lambda: 1 / 0))
    assert open_run(tmp_path / "run").trained().step == 8


KILLED = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from alphabar.config import configure, lessons_of
from alphabar.data import load
from alphabar.runs import begin, open_run, resume

torch.set_num_threads(1)
torch.optim.AdamW([torch.zeros(1)])  # what it imports at first, no child need import again
path, moments = Path(sys.argv[1]), random.Random(int(sys.argv[2]))
data = load("gaussians:n=100")


def go_on(every):
    if (path / "config.json").exists():
        run = open_run(path)
        training = resume(run, lessons_of(run.config, data))
    else:
        training = begin(path, *configure(data, None, 5, steps=STEPS, net=NET, batch=16))
    with training:
        for _ in training.steps(every=every):
            pass


def lines():
    try:
        return (path / "metrics.jsonl").read_bytes().count(b"\\n")
    except FileNotFoundError:
        return 0


killed = 0
for _ in range(6):
    before = lines()
    child = os.fork()
    if not child:
        go_on(0)
        os._exit(0)
    while lines() < before + 1 and not os.waitpid(child, os.WNOHANG)[0]:
        time.sleep(0.001)
    time.sleep(moments.uniform(0, 0.02))
    run = open_run(path)
    try:
        resume(run, lessons_of(run.config, data))
    except BlockingIOError as error:
        assert f"is being trained by process {child}: wait" in str(error), error
        run.config  # reading needs no lock
        killed += 1
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
go_on(30)
print("killed", killed)
"""


def test_a_killed_run_is_the_uninterrupted_one(tmp_path: Path) -> None:
    """SIGKILL at six random moments of a process that does little but write checkpoints."""
    steps = 400
    script = KILLED.replace("STEPS", str(steps)).replace("NET", repr(TINY))
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "run"), "1"],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.stdout == "killed 6\n", done.stderr
    config, lessons = configure(load("gaussians:n=100"), None, 5, **SMALL | {"steps": steps})
    advance(begin(tmp_path / "whole", config, lessons))
    assert Whole.of(tmp_path / "run") == Whole.of(tmp_path / "whole")
    assert temporaries(tmp_path / "run") == []


# --- a loss that is no number any more


class Poison:
    """`train`, whose denoiser is spoilt after one step; the step itself is told of as it was."""

    def __init__(self, step: int, factor: float, at_once: bool = False) -> None:
        self.step, self.factor, self.at_once = step, factor, at_once

    def __call__(self, denoiser: Any, *args: Any) -> Iterator[Any]:
        for step in train(denoiser, *args):
            if self.at_once:
                self._spoil(denoiser, step.step)
            yield step
            if not self.at_once:
                self._spoil(denoiser, step.step)

    def _spoil(self, denoiser: Any, step: int) -> None:
        if step == self.step:
            with torch.no_grad():
                denoiser.net.last.bias.mul_(self.factor).add_(self.factor)


@pytest.mark.parametrize(
    ("factor", "says"),
    [
        (float("nan"), r"the loss is nan at step 28, and nan for an item at log-SNR .*"),
        (1e5, r"the loss is \d.*e\+\d+ at step 28, and .*for an item at log-SNR .*"),
    ],
)
def test_the_last_good_weights_are_kept(
    factor: float, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run"
    monkeypatch.setattr(runs, "train", Poison(27, factor))
    with pytest.raises(Diverged, match=f"^{says}; the weights of step 26 are kept in {path}$"):
        through(begin(path, *plain()))
    monkeypatch.undo()
    advance(begin(tmp_path / "other", *plain()), 26)
    assert Whole.of(path).state.keys() == Whole.of(tmp_path / "other").state.keys()
    found, wanted = Whole.of(path).state, Whole.of(tmp_path / "other").state
    assert all(torch.equal(v, wanted[k]) for k, v in found.items())
    # Nothing but bad luck: the same run goes well from there.
    whole = uninterrupted(tmp_path / "whole")
    advance(resume(open_run(path), plain()[1]))
    assert Whole.of(path) == whole


@pytest.mark.parametrize("step", [29, STEPS])
def test_weights_that_are_no_numbers_are_not_kept(
    step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NaN in the weights of a step whose loss was fine; at the last one no loss would tell."""
    path, kept = tmp_path / "run", {29: 26, STEPS: 36}[step]
    monkeypatch.setattr(runs, "train", Poison(step, float("nan"), at_once=True))
    says = rf"weights.net.last.bias holds NaN or infinity after step {step}, whose loss was .*"
    with pytest.raises(Diverged, match=f"{says}the weights of step {kept} are kept"):
        through(begin(path, *plain()))
    run = open_run(path)
    assert run.trained().step == kept
    assert all(p.isfinite().all() for p in run.denoiser().parameters())


def test_nothing_is_kept_of_a_run_that_was_never_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "train", Poison(1, float("nan"), at_once=True))
    with pytest.raises(Diverged, match="no step before it was good, so no weights are kept"):
        through(begin(tmp_path / "run", *plain()))
    assert not (tmp_path / "run" / "checkpoint.safetensors").exists()


def test_a_loss_on_its_way_up_replaces_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """×30 the bias after step 10: the loss is a hundred times the first, but no explosion yet."""
    monkeypatch.setattr(runs, "train", Poison(10, 30.0))
    with begin(tmp_path / "run", *plain()) as training:
        for at in training.steps(every=0):
            if at.step.step > 10:
                assert at.step.loss > 100
                assert int(load_file(tmp_path / "run" / "checkpoint.safetensors")["step"]) == 10
            if at.step.step == 20:
                break
    assert open_run(tmp_path / "run").trained().step == 10


def test_a_rate_that_is_too_high_says_so(tmp_path: Path) -> None:
    data = load("gaussians:n=100")
    config, lessons = configure(data, None, 5, **SMALL | {"steps": 4000}, rate=900.0)
    says = r"at step \d+, and .* log-SNR .*lower the rate \(it rises to 900\).*step \d+ are kept"
    with pytest.raises(Diverged, match=says):
        through(begin(tmp_path / "run", config, lessons))
    assert open_run(tmp_path / "run").denoiser()


# --- a disk that fills


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file may grow beyond this, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("size", "what"), [(2000, "the checkpoint of step 10"), (30, "a line of metrics")]
)
def test_a_full_disk_leaves_the_checkpoint_before(size: int, what: str, tmp_path: Path) -> None:
    whole = uninterrupted(tmp_path / "whole")
    path = tmp_path / "run"
    advance(begin(path, *plain()), 9)
    before = (path / "checkpoint.safetensors").read_bytes()
    says = re.escape(
        f"{path}: {what} could not be written (File too large); the checkpoint of step 9 is "
        "whole; make room, then go on with --resume"
    )
    training = resume(open_run(path), plain()[1])
    with pytest.raises(OSError, match=f"^{says}$"), room_for(size):
        through(training, every=0)
    assert (path / "checkpoint.safetensors").read_bytes() == before
    assert temporaries(path) == []
    advance(resume(open_run(path), plain()[1]))
    assert Whole.of(path) == whole


def test_a_disk_that_is_full_from_the_start(tmp_path: Path) -> None:
    says = r"could not be begun \(File too large\); make room"
    with pytest.raises(OSError, match=says), room_for(100):
        begin(tmp_path / "run", *plain())
    assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    with pytest.raises(OSError, match="could not be begun"), room_for(100):
        begin(tmp_path / "run", *plain())
    assert list((tmp_path / "run").iterdir()) == []
    with pytest.raises(OSError, match="could not be begun"), room_for(0):
        begin(tmp_path / "new", *plain())
    assert not (tmp_path / "new").exists()
    advance(begin(tmp_path / "run", *plain()), 1)  # it can be tried again


def test_a_run_that_cannot_be_replaced_stays(tmp_path: Path) -> None:
    whole = uninterrupted(tmp_path / "run")
    before = {entry: entry.read_bytes() for entry in (tmp_path / "run").iterdir()}
    with pytest.raises(OSError, match="could not be begun"), room_for(100):
        begin(tmp_path / "run", *plain(), force=True)
    assert Whole.of(tmp_path / "run") == whole
    assert {entry: entry.read_bytes() for entry in (tmp_path / "run").iterdir()} == before


def test_a_folder_of_something_else_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("mine")
    with pytest.raises(ValueError, match="is not empty"):
        begin(tmp_path / "thesis", *plain())
    assert [entry.name for entry in (tmp_path / "thesis").iterdir()] == ["chapter.tex"]


def test_a_folder_that_may_not_be_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    advance(begin(tmp_path / "run", *plain()), 2)
    run, lessons = open_run(tmp_path / "run"), plain()[1]

    def refuse(*args: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(OSError, match=r"run cannot be written to \(Permission denied\); allow it"):
        resume(run, lessons)


def test_a_checkpoint_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forced there, whole, while the name still stands for the one before; then the name is."""
    synced: list[tuple[int, int, int | None]] = []
    file = tmp_path / "run" / "checkpoint.safetensors"

    def note(descriptor: int) -> None:
        found = os.fstat(descriptor)
        synced.append((found.st_ino, found.st_size, file.stat().st_ino if file.exists() else None))

    monkeypatch.setattr(runs.os, "fsync", note)
    advance(begin(tmp_path / "run", *plain()), 3)
    before = file.stat().st_ino
    synced.clear()
    advance(resume(open_run(tmp_path / "run"), plain()[1]), 2)
    new, folder = file.stat(), (tmp_path / "run").stat()
    metrics = (tmp_path / "run" / "metrics.jsonl").stat()
    assert synced[0] == (metrics.st_ino, metrics.st_size, before)
    assert synced[1] == (new.st_ino, new.st_size, before)
    assert synced[2] == (folder.st_ino, folder.st_size, new.st_ino)


# --- one trainer


def test_a_second_trainer_is_refused(tmp_path: Path) -> None:
    config, lessons = plain()
    path = tmp_path / "run"
    says = f"{path} is being trained by process {os.getpid()}: wait until it is done, or stop it"
    with begin(path, config, lessons) as training:
        next(training.steps())
        before = {entry: entry.read_bytes() for entry in path.iterdir()}
        for force in (False, True):
            with pytest.raises(BlockingIOError, match=re.escape(says)):
                begin(path, config, lessons, force)
        with pytest.raises(BlockingIOError, match=re.escape(says)):
            resume(open_run(path), lessons)
        assert {entry: entry.read_bytes() for entry in path.iterdir()} == before
    resume(open_run(path), lessons).close()  # its lock is open again


# --- making a folder


def test_nothing_of_a_users_is_replaced(tmp_path: Path) -> None:
    config, lessons = plain()
    path = tmp_path / "run"
    path.mkdir()
    (path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"run is not empty: add --resume .* --force"):
        begin(path, config, lessons)
    advance(begin(path, config, lessons, force=True), 12)
    open_run(path).save_steps("few", SCHEDULES.parse("linear:T=3"), SAMPLERS.parse("ddim"), 12)
    with pytest.raises(ValueError, match="not empty"):
        begin(path, config, lessons)
    with begin(path, config, lessons, force=True):
        assert {entry.name for entry in path.iterdir()} == {
            "thesis.txt",
            "config.json",
            "data.safetensors",
            ".lock",
        }
    assert (path / "thesis.txt").read_text() == "mine"


def test_where_no_folder_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="file is a file, and a run is a folder"):
        begin(tmp_path / "file", *plain())
    with pytest.raises(ValueError, match=r"there is no folder .*missing; make it first"):
        begin(tmp_path / "missing" / "run", *plain())
    assert {entry.name for entry in tmp_path.iterdir()} == {"file"}


def test_other_lessons_are_refused(tmp_path: Path) -> None:
    advance(begin(tmp_path / "run", *plain()), 1)
    with pytest.raises(ValueError, match="was trained on other items"):
        resume(open_run(tmp_path / "run"), of_few()[1])


# --- folders that are wrong


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A run of three steps, to be broken."""
    advance(begin(tmp_path / "run", *plain()), 3)
    return tmp_path / "run"


def edit(path: Path, **values: object) -> None:
    found = json.loads((path / "config.json").read_text()) | values
    (path / "config.json").write_text(json.dumps(found))


def test_there_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no such run.*alphabar train DATA -o"):
        open_run(tmp_path / "run")
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="is a file, and a run is a folder"):
        open_run(tmp_path / "file")
    with pytest.raises(ValueError, match=r"holds no config.json: it is not a run, or was cut off"):
        open_run(tmp_path)


@pytest.mark.parametrize("text", ["", '{"format": 2,', "[]", "null", "{}", "\udcff"])
def test_a_config_that_is_damaged(text: str, broken: Path) -> None:
    (broken / "config.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=r"config.json is damaged or was edited \(.*train the run"):
        open_run(broken)


def test_a_config_that_was_edited(broken: Path) -> None:
    edit(broken, predicts="v")
    says = r"checkpoint.safetensors cannot be used \(it was written by another config.json"
    with pytest.raises(ValueError, match=says):
        open_run(broken).denoiser()
    with pytest.raises(ValueError, match=says):
        resume(open_run(broken), plain()[1])
    with pytest.raises(
        ValueError, match=r"data.safetensors cannot be used \(it was written by another config.json"
    ):
        open_run(broken).law()
    edit(broken, predicts="w")
    with pytest.raises(ValueError, match=r"edited \(predicts = 'w': choose"):
        open_run(broken)
    edit(broken, predicts="edm", seed=None)
    with pytest.raises(ValueError, match=r"edited \(seed = None"):
        open_run(broken)


def test_data_may_move(broken: Path) -> None:
    edit(broken, data="elsewhere.csv")
    assert open_run(broken).trained().step == 3


def test_another_version(broken: Path) -> None:
    edit(broken, format=3, alphabar="9.9.0", surprise=True)
    says = r"is a run of format 3, written by alphabar 9.9.0: this alphabar \(.*\) reads format 2"
    with pytest.raises(ValueError, match=says):
        open_run(broken)


@pytest.mark.parametrize("size", [0, 5, 100, -1])
def test_a_checkpoint_that_is_cut_off(size: int, broken: Path) -> None:
    file = broken / "checkpoint.safetensors"
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(ValueError, match=r"checkpoint.safetensors cannot be used \(.*restore it"):
        open_run(broken).denoiser()
    with pytest.raises(ValueError, match=r"checkpoint.safetensors cannot be used"):
        resume(open_run(broken), plain()[1])
    resume_is_free_again(broken)


def resume_is_free_again(path: Path) -> None:
    (path / "checkpoint.safetensors").unlink()
    resume(open_run(path), plain()[1]).close()


def test_moments_that_are_damaged(broken: Path) -> None:
    file = broken / "data.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"data.safetensors cannot be used .* restore it"):
        open_run(broken).law()
    file.unlink()
    with pytest.raises(ValueError, match=r"data.safetensors cannot be used"):
        open_run(broken).law()
    assert open_run(broken).denoiser()  # it needs none


@pytest.mark.parametrize("line", ["", "{}", "[1]", '{"step": 1', "7"])
def test_a_damaged_line_is_named(line: str, broken: Path) -> None:
    file = broken / "metrics.jsonl"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([lines[0], line, *lines[1:]]) + "\n")
    with pytest.raises(ValueError, match=r"metrics.jsonl, line 2 is damaged: delete that line"):
        open_run(broken).metrics()


# --- fitted steps


def awkward() -> tuple[Schedule, Sampler]:
    """Levels and coefficients of which no digit is round."""
    few = from_log_snr([4 / 3, -math.pi, -1e-300 - math.e**2])
    numbers = np.random.default_rng(0).normal(size=(4, 3)) * [[1e-9], [1], [1e5], [1e-200]]
    numbers[2, 0] = numbers[3, :2] = 0  # there are no answers before the first
    return few, mixes(*numbers.tolist())


def test_fitted_steps_come_back_to_the_last_bit(broken: Path) -> None:
    run = open_run(broken)
    few, sampler = awkward()
    assert run.load_steps("fitted-3", 3) is None
    run.save_steps("fitted-3", few, sampler, 3)
    found = open_run(broken).load_steps("fitted-3", 3)
    assert found is not None
    assert torch.equal(found[0].alpha, few.alpha)
    assert torch.equal(found[0].sigma, few.sigma)
    assert found[1] == sampler
    assert run.load_steps("fitted-4", 3) is None
    # They were fitted to another denoiser.
    assert run.load_steps("fitted-3", 4) is None
    edit(broken, batch=17)
    assert open_run(broken).load_steps("fitted-3", 3) is None


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"format": 2}', "broken"])
def test_damaged_steps_are_as_good_as_none(text: str, broken: Path) -> None:
    run = open_run(broken)
    run.save_steps("few", SCHEDULES.parse("linear:T=3"), SAMPLERS.parse("ddim"), 3)
    assert run.load_steps("few", 3) is not None
    (broken / "steps-few.json").write_text(text)
    assert run.load_steps("few", 3) is None


@pytest.mark.parametrize("name", ["", "../few", "a b", "few.json"])
def test_names_of_steps_stay_in_the_folder(name: str, broken: Path) -> None:
    with pytest.raises(ValueError, match="name them with letters, digits"):
        open_run(broken).load_steps(name, 3)


# --- little data


@pytest.mark.parametrize(
    "x",
    [
        torch.tensor([[0.0, 1.0], [2.0, -1.0]]),
        torch.arange(20.0).view(10, 2),
        torch.arange(4.0).view(2, 2).repeat(30, 1),
    ],
    ids=["two", "ten", "copies"],
)
def test_little_and_repeated_data_train(x: Tensor, tmp_path: Path) -> None:
    config, lessons = configure(points(x), None, 0, **SMALL)
    seen = advance(begin(tmp_path / "run", config, lessons))
    assert all(np.isfinite(at.step.loss) for at in seen)
    level = SCHEDULES.parse("linear:T=10")[5]
    assert open_run(tmp_path / "run").denoiser()(lessons.x_0, level).isfinite().all()


def test_a_class_with_one_member_can_be_asked_for(tmp_path: Path) -> None:
    data = load("gaussians:n=40")
    labels = torch.zeros(40, dtype=torch.int64)
    labels[3] = 2  # and none of class 1
    config, lessons = configure(data, None, 0, **SMALL, condition=labels)
    assert len(lessons.remarks()) == 3
    advance(begin(tmp_path / "run", config, lessons))
    denoiser = open_run(tmp_path / "run").denoiser()
    level = SCHEDULES.parse("linear:T=10")[8]
    x = lessons.x_0[:6]
    none, zero, one, two = (
        denoiser.given(c)(x, level) for c in (-1, 0, 1, 2)
    )  # fmt: skip
    assert torch.equal(denoiser(x, level), none)
    assert not torch.equal(none, zero)
    assert not torch.equal(zero, two)
    assert one.isfinite().all()
    with pytest.raises(ValueError, match="a class from 0 to 2"):
        denoiser.given(3)(x, level)


def test_conditions_of_numbers_are_kept_with_the_run(tmp_path: Path) -> None:
    data: Data = load("gaussians:n=40")
    given = data.x.flip(1).float()
    config, lessons = configure(data, None, 0, **SMALL, condition=given)
    advance(begin(tmp_path / "run", config, lessons), 7)
    run = open_run(tmp_path / "run")
    assert run.config.numbers == 2
    advance(resume(run, lessons_of(run.config, data, given)))
    level = SCHEDULES.parse("linear:T=10")[5]
    assert run.denoiser().given(given)(lessons.x_0, level).isfinite().all()


def test_the_last_step_is_kept_however_high_its_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "train", Poison(36, 30.0))
    through(begin(tmp_path / "run", *plain()))
    assert open_run(tmp_path / "run").metrics()[-1].loss > 100
    assert open_run(tmp_path / "run").trained().step == STEPS


def test_weights_on_their_way_up_are_not_the_last_good_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoilt(denoiser: NetDenoiser, *args: Any) -> Iterator[TrainStep]:
        for step in train(denoiser, *args):
            yield step
            if step.step in (10, 21):
                with torch.no_grad():
                    factor = 30 if step.step == 10 else math.nan
                    denoiser.net.last.bias.mul_(factor).add_(30)

    monkeypatch.setattr(runs, "train", spoilt)
    with pytest.raises(Diverged, match="the weights of step 10 are kept"):
        through(begin(tmp_path / "run", *plain()))


@pytest.mark.parametrize("name", ["checkpoint.safetensors", "data.safetensors"])
def test_a_byte_that_has_changed_is_seen(tmp_path: Path, name: str) -> None:
    """Whatever tensor it is of: what is read is what was written."""
    advance(begin(tmp_path / "run", *plain()), 3)
    run, file = open_run(tmp_path / "run"), tmp_path / "run" / name
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(ValueError, match=rf"{name} cannot be used \(.* is not what was written\)"):
        run.law() if name == "data.safetensors" else resume(run, plain()[1])


def test_files_that_cannot_be_opened_say_why(tmp_path: Path) -> None:
    advance(begin(tmp_path / "run", *plain()), 3)
    run, file = open_run(tmp_path / "run"), tmp_path / "run" / "checkpoint.safetensors"
    file.unlink()
    file.mkdir()
    with pytest.raises(ValueError, match=r"cannot be used \(Is a directory\)"):
        run.denoiser()


def test_data_of_one_column(tmp_path: Path) -> None:
    config, lessons = configure(points(torch.linspace(0, 1, 50)[:, None]), None, 0, **SMALL)
    advance(begin(tmp_path / "run", config, lessons))
    law = open_run(tmp_path / "run").law()
    assert law.cov is not None
    assert law.cov.item() == pytest.approx(lessons.x_0.double().var(correction=0).item())


def test_a_name_that_is_not_utf_8_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"r\xff")
    with pytest.raises(ValueError, match="no name in UTF-8"):
        begin(path, *plain())
    assert not path.exists()
