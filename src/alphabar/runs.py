"""A run: a training and all that came of it, in a folder.

    config.json              what determines the run, a line a key
    checkpoint.safetensors   weights, their average, the optimizer's moments, the randomness
    metrics.jsonl            a line at steps 1, 2, 3, … 10, 12, 13, 15, … : twenty a decade at most
    data.safetensors         mean and covariance of the items, for a matched start
    steps-NAME.json          steps that were fitted to the denoiser of a checkpoint
    .lock                    held by the process that trains

A checkpoint is one file, because one rename replaces one file: whenever the process is killed or
the disk fills, what lies there is whole and of one step. Whoever samples reads only the tensors of
the average from it. It is forced to the disk before the rename: else a power cut could leave the
new name with nothing behind it, and a disk that fills late could be noticed too late.

    begin:    config, lessons = configure(data, …);  training = begin(path, config, lessons)
    resume:   run = open_run(path);  training = resume(run, lessons_of(run.config, data))
    both:     with training: for at in training.steps(): …
    sample:   open_run(path).denoiser()
"""

import contextlib
import copy
import errno
import hashlib
import importlib.metadata
import json
import math
import os
import re
import signal
import threading
import time
import types
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, Float64
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from alphabar.config import Config, Lessons
from alphabar.denoise import Moments, NetDenoiser
from alphabar.draw import MAX_COV
from alphabar.excess import ExcessLoss
from alphabar.output import TEMPORARY, writing
from alphabar.samplers import SAMPLERS, Normal, Sampler
from alphabar.schedule import SCHEDULES, Schedule
from alphabar.storage import chunks
from alphabar.train import Diverged, Engine, State, TrainStep, train

FORMAT = 2  # of the folder; another number is another meaning of its files

_CONFIG, _CHECKPOINT, _METRICS = "config.json", "checkpoint.safetensors", "metrics.jsonl"
_DATA, _LOCK, _STEPS = "data.safetensors", ".lock", "steps-{}.json"
# Files on their way: ours, and those that safetensors writes before it renames them.
_ON_THEIR_WAY = re.compile(rf"{re.escape(TEMPORARY)}.*|\.tmp[0-9A-Za-z]{{6}}")

_EVERY = 30.0  # seconds between checkpoints
_A_DECADE = 20  # lines of metrics
_CALM = 10.0  # times the first loss, or times 1: above it, weights are not worth keeping

Probe = Callable[[NetDenoiser], ExcessLoss]


# --- a folder


class Line(NamedTuple):
    """A line of the metrics."""

    step: int
    loss: float  # mean since the line before
    rate: float
    excess_loss: float | None  # as a share of the optimum; None where that is not known
    seconds: float  # of training


class Law(NamedTuple):
    """What is kept of the items that were trained on."""

    mean: Float64[Tensor, "..."]
    cov: Float64[Tensor, "D D"] | None  # None for items of more than `draw.MAX_COV` numbers
    var: Float64[Tensor, " D"]  # of each number

    @classmethod
    def of(cls, x_0: Float32[Tensor, "N ..."]) -> "Law":
        """That of a data set."""
        if x_0[0].numel() <= MAX_COV:
            mean, cov = Normal.of(x_0)
            return cls(mean, cov, cov.diagonal())
        mean = Moments.of(x_0).mean
        squares = ((part.double() - mean).flatten(1).square().sum(0) for part in chunks(x_0))
        return cls(mean, None, reduce(torch.add, squares) / len(x_0))


class Trained(NamedTuple):
    """A denoiser that was trained."""

    denoiser: NetDenoiser  # with the average of the weights
    step: int  # that the checkpoint is of
    seconds: float  # of training until then


@dataclass(frozen=True)
class RunFolder:
    """A run that lies on disk, to be read: `open_run` gives it. It may be in training meanwhile."""

    path: Path
    config: Config
    net: str | None = None  # an import path, as the person has named it

    def trained(self) -> Trained:
        """The denoiser of the last checkpoint; nothing of the optimizer is read.

        Raises:
            ValueError: there is no checkpoint, or a damaged one, or one of another config.
        """
        self.config.check_net(self.net)
        average: State = {}
        with _reading(_checkpoint(self.path), self.config) as kept:
            for key in kept:
                if key.startswith("average."):
                    average[key.removeprefix("average.")] = kept[key]
            step, seconds = int(kept["step"]), kept["seconds"][0].item()
            moments = Moments(average["mean"].double(), average["std"].double())
            denoiser = self.config.build(moments, self.net)
            denoiser.load_state_dict(average)
        return Trained(denoiser.eval().requires_grad_(False), step, seconds)

    def denoiser(self) -> NetDenoiser:
        """The denoiser of the last checkpoint."""
        return self.trained().denoiser

    def law(self) -> Law:
        """The moments of what was trained on.

        Raises:
            ValueError: the file is missing or damaged.
        """
        with _reading(self.path / _DATA, self.config) as kept:
            law = Law(kept["mean"], kept.get("cov"), kept["var"])
        return law

    def metrics(self) -> list[Line]:
        """What was logged; a last line that was cut off is left out.

        Raises:
            ValueError: a line that is none, before the last.
        """
        return _read_metrics(self.path / _METRICS)

    def save_steps(self, name: str, schedule: Schedule, sampler: Sampler, step: int) -> None:
        """Keep steps that were fitted to the denoiser of the checkpoint of this training step.

        Raises:
            ValueError: a name that is not letters, digits, - and _.
            OSError: they could not be written.
        """
        values = {
            "format": FORMAT,
            "config": self.config.digest,
            "checkpoint": step,
            "sampler": sampler.spec,
            "schedule": schedule.spec,
        }
        with writing(self._steps(name)) as temporary:
            temporary.write_text(_lines(values), encoding="utf-8")

    def load_steps(self, name: str, step: int) -> tuple[Schedule, Sampler] | None:
        """Steps that were fitted to the denoiser of this training step.

        None if there are none, or none that can be used: fitted to an earlier checkpoint, or
        damaged. They can be fitted again.

        Raises:
            ValueError: a name that is not letters, digits, - and _.
        """
        path = self._steps(name)
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if (values["format"], values["config"], values["checkpoint"]) != (
                FORMAT,
                self.config.digest,
                step,
            ):
                return None
            return SCHEDULES.parse(values["schedule"]), SAMPLERS.parse(values["sampler"])
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def _steps(self, name: str) -> Path:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            raise ValueError(f"steps {name!r}: name them with letters, digits, - and _ only")
        return self.path / _STEPS.format(name)


def open_run(path: Path, net: str | None = None) -> RunFolder:
    """The run in a folder; a reader needs no lock.

    Args:
        path: the folder.
        net: the import path of its network, where that is the person's own code: a run itself
            names none that would be run.

    Raises:
        ValueError, OSError: there is no folder, or it holds no run, half of one, or one of another
            version of alphabar.
    """
    if not path.exists():
        raise FileNotFoundError(
            f"{path}: there is no such run; check the path, or make it with alphabar train DATA "
            f"-o {path}"
        )
    if not path.is_dir():
        raise NotADirectoryError(f"{path} is a file, and a run is a folder; name that")
    try:
        text = (path / _CONFIG).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ValueError(
            f"{path} holds no {_CONFIG}: it is not a run, or was cut off while it was made; train "
            "one with alphabar train (--force replaces what is there)"
        ) from None
    except UnicodeDecodeError:
        raise ValueError(_damaged_config(path, "it is not text")) from None
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(_damaged_config(path, str(error))) from None
    if not isinstance(values, dict) or "format" not in values:
        raise ValueError(_damaged_config(path, "the key 'format' is missing"))
    if values["format"] != FORMAT:
        raise ValueError(
            f"{path} is a run of format {values['format']!r}, written by alphabar "
            f"{values.get('alphabar', 'unknown')}: this alphabar ({_version()}) reads "
            f"format {FORMAT}; use that version, or train the run anew"
        )
    for key in ("format", "alphabar", "torch", "threads"):
        values.pop(key, None)
    try:
        return RunFolder(path, Config.from_dict(values), net)
    except (TypeError, ValueError) as error:
        raise ValueError(_damaged_config(path, str(error))) from None


def _version() -> str:
    return importlib.metadata.version("alphabar")


def _damaged_config(path: Path, why: str) -> str:
    return f"{path / _CONFIG} is damaged or was edited ({why}): restore it, or train the run anew"


def _checkpoint(path: Path) -> Path:
    """The checkpoint of a run.

    Raises:
        ValueError: there is none yet.
    """
    file = path / _CHECKPOINT
    if not file.exists():
        raise ValueError(
            f"{path} holds no checkpoint: its training was stopped before the first; go on with "
            "--resume"
        )
    return file


class _Kept(Mapping[str, Tensor]):
    """Tensors of a file, each read when it is asked for, and held against its checksum."""

    def __init__(self, file: Any) -> None:
        self._file, self._sums = file, json.loads((file.metadata() or {})["sums"])

    def __getitem__(self, key: str) -> Tensor:
        if key not in self._sums:
            raise KeyError(key)
        tensor: Tensor = self._file.get_tensor(key)
        if _sum(tensor) != self._sums[key]:
            raise ValueError(f"{key} is not what was written")
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._sums)

    def __len__(self) -> int:
        return len(self._sums)


def _sum(tensor: Tensor) -> str:
    """A checksum of a tensor's bytes."""
    data = np.ascontiguousarray(tensor.detach().cpu().numpy()).data
    return hashlib.blake2b(data, digest_size=8).hexdigest()


@contextlib.contextmanager
def _reading(file: Path, config: Config) -> Iterator[_Kept]:
    """The tensors of a run's file; one sentence for whatever is wrong with it."""
    try:
        with file.open("rb"):  # what safetensors says of a file that it cannot open is not why
            pass
        with safe_open(file, "pt") as kept:
            if (kept.metadata() or {}).get("config") != config.digest:
                raise ValueError(f"it was written by another {_CONFIG} than the one beside it")
            yield _Kept(kept)
    except (SafetensorError, KeyError, RuntimeError, ValueError, OSError) as error:
        reason = getattr(error, "strerror", None) or _reason(error)
        raise ValueError(
            f"{file} cannot be used ({reason}): restore it, or train the run anew"
        ) from None


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:150] or type(error).__name__


def _read_metrics(path: Path) -> list[Line]:
    if not path.exists():
        return []
    pieces = path.read_bytes().split(b"\n")
    lines = []
    for i, piece in enumerate(pieces[:-1], start=1):  # after the last newline: nothing, or half
        try:
            lines.append(Line(**json.loads(piece)))
        except (TypeError, ValueError):
            raise ValueError(f"{path}, line {i} is damaged: delete that line") from None
    return lines


def _lines(values: Mapping[str, object]) -> str:
    """JSON, a line a key."""
    inner = (
        f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False, allow_nan=False)}"
        for key, value in values.items()
    )
    return "{\n" + ",\n".join(inner) + "\n}\n"


# --- training in a folder


class Progress(NamedTuple):
    """One step, and the line that was logged of it, if it was."""

    step: TrainStep
    line: Line | None


def begin(
    path: Path,
    config: Config,
    lessons: Lessons,
    force: bool = False,
    engine: Engine | None = None,
) -> "Training":
    """A new run in a folder, which is made; it is locked until the training is closed.

    Args:
        path: the folder; what it stands in must exist.
        config: of `configure`, as are
        lessons: what is learned from.
        force: replace a run that is there; other files in the folder stay.
        engine: where to train; None: in this process.

    Raises:
        ValueError: the folder holds something, or there is none for it to stand in.
        OSError: it is locked by another process, or cannot be written; what was made is removed.
    """
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file, and a run is a folder; name another")
    if not path.parent.is_dir():
        raise ValueError(f"{path}: there is no folder {path.parent}; make it first")
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"{path!r} is no name in UTF-8, which the files of a run need; name another"
        ) from None
    is_new = not path.exists()
    if not (is_new or force or (path / _LOCK).exists()):
        _check_empty(path)  # before anything is written there
    lock: _Lock | None = None
    try:
        with _at_first(path):
            path.mkdir(exist_ok=True)
            lock = _Lock(path)
            if not force:
                _check_empty(path)  # again: now nobody else begins a run here
            # What was there goes when what replaces it is on the disk.
            _write_first(path, config, lessons)
        for old in (path / _CHECKPOINT, path / _METRICS, *path.glob(_STEPS.format("*"))):
            old.unlink(missing_ok=True)
    except BaseException:
        if lock is not None:
            lock.remove()
        if is_new:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise
    return Training(RunFolder(path, config, config.net), lock, lessons, None, engine)


def _check_empty(path: Path) -> None:
    if any(entry.name != _LOCK for entry in path.iterdir()):
        raise ValueError(
            f"{path} is not empty: add --resume to go on with its run, --force to train anew in "
            "its place, or name another folder"
        )


def resume(run: RunFolder, lessons: Lessons, engine: Engine | None = None) -> "Training":
    """Go on with a run from its last checkpoint, as if it had not been stopped.

    On one machine, in one process with as many threads, all that follows is bit-identical.

    Args:
        run: of `open_run`.
        lessons: of `lessons_of`.
        engine: where to train; None: in this process.

    Raises:
        ValueError: the checkpoint is damaged or of another config, or other lessons.
        OSError: another process trains in it, or it cannot be written.
    """
    _check_lessons(run, lessons)
    lock = _Lock(run.path)
    try:
        for entry in run.path.iterdir():
            # Of a process that was killed while it wrote; fitted steps may be on their way now.
            if _ON_THEIR_WAY.fullmatch(entry.name) and entry.suffix != ".json":
                entry.unlink()
        state = _last_state(run)
        _trim(run.path / _METRICS, 0 if state is None else int(state["step"]))
        return Training(run, lock, lessons, state, engine)
    except BaseException:
        lock.release()
        raise


def join(run: RunFolder, lessons: Lessons, engine: Engine) -> "Training":
    """Take part in a run that another process has begun or resumed, and that it alone writes.

    Args:
        run: of `open_run`.
        lessons: as those of the other process.
        engine: what the processes train together by.

    Raises:
        ValueError: the checkpoint is damaged or of another config, or other lessons.
    """
    _check_lessons(run, lessons)
    return Training(run, None, lessons, _last_state(run), engine)


def _check_lessons(run: RunFolder, lessons: Lessons) -> None:
    if lessons.fingerprint != run.config.fingerprint:
        raise ValueError(f"{run.path} was trained on other items; make them with lessons_of")


def _last_state(run: RunFolder) -> State | None:
    """All that is in the last checkpoint; None before the first."""
    if not (run.path / _CHECKPOINT).exists():
        return None
    with _reading(_checkpoint(run.path), run.config) as kept:
        return dict(kept)


class Training:
    """A run in training: `begin`, `resume` or `join` give it. Close it, or use it in a `with`."""

    def __init__(
        self,
        run: RunFolder,
        lock: "_Lock | None",  # None: another process writes
        lessons: Lessons,
        state: State | None,
        engine: Engine | None,
    ) -> None:
        self.run, self._lock, self._state, self._engine = run, lock, state, engine
        self._denoiser = run.config.build(Moments.of(lessons.x_0), run.net)
        self._items = lessons.items(run.config.seed)
        self._kept = 0 if state is None else int(state["step"])  # step of the checkpoint on disk
        self._good: tuple[int, State] | None = None  # a later one, in memory
        self._loop: Generator[Progress, None, None] | None = None
        self._sum, self._count, self._last_loss = 0.0, 0.0, 0.0
        if state is not None:
            self._sum, self._count, self._last_loss = state["log"].tolist()

    def __enter__(self) -> "Training":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Write what is left to write, and let others train in the folder."""
        if self._loop is not None:
            self._loop.close()
        if self._lock is not None:
            self._lock.release()

    def steps(self, probe: Probe | None = None, every: float = _EVERY) -> Iterator[Progress]:
        """Train, a step each time the iterator is advanced; once, `resume` the run to go on.

        A checkpoint is written at the end, every so many seconds, and when the training is closed
        or the process is told to end (SIGINT, SIGTERM), which waits for the step under way.

        Args:
            probe: measures the excess loss when a line is logged: an `excess.Excess`.
            every: seconds between checkpoints.

        Raises:
            Diverged: the loss or the weights are no longer numbers, or the loss has exploded; the
                last good weights are kept, and the message says of which step.
            OSError: a file could not be written; the checkpoint before is whole.
            RuntimeError: called a second time.
        """
        if self._loop is not None:
            raise RuntimeError("this training has had its steps: resume the run to go on")
        self._loop = self._train(probe, every)
        return self._loop

    def _train(self, probe: Probe | None, every: float) -> Generator[Progress, None, None]:
        config = self.run.config
        loop = train(
            self._denoiser,
            self._items,
            config.seed,
            config.steps,
            config.seconds,
            config.settings(),
            self._state,
            self._engine,
        )
        whole: TrainStep | None = None  # the last step, while none is under way
        written, held = time.monotonic(), _Held()
        try:
            while True:
                with held:
                    whole = None
                    step = next(loop, None)
                    if step is None:
                        return
                    line = self._log(step, probe)
                    whole = step
                    if step.last or time.monotonic() - written >= every:
                        self._write(step)
                        written = time.monotonic()
                yield Progress(step, line)
        except Diverged as error:
            raise Diverged(f"{error}; {self._keep_good()}") from None
        finally:
            if whole is not None and whole.step > self._kept:
                with contextlib.suppress(OSError, Diverged):  # what ended the training matters more
                    self._write(whole)

    def _log(self, step: TrainStep, probe: Probe | None) -> Line | None:
        self._sum += step.loss
        self._count += 1
        if not (step.last or is_logged(step.step)):
            return None
        loss = self._sum / self._count
        self._sum, self._count, self._last_loss = 0.0, 0.0, loss
        state = self._finite_state(step)
        line = Line(step.step, loss, step.rate, None, step.seconds)
        if self._lock is not None:
            if probe is not None:
                line = line._replace(excess_loss=probe(_on_processor(step.denoiser)).share)
            path = self.run.path / _METRICS
            with self._disk("a line of metrics"), path.open("ab") as file:
                file.write((json.dumps(line._asdict(), allow_nan=False) + "\n").encode())
        if self._is_calm(state):
            self._good = step.step, state
        return line

    def _write(self, step: TrainStep) -> None:
        state = self._finite_state(step)
        # A loss that is on its way up to infinity must not replace the weights from before.
        if step.last or self._is_calm(state):
            self._write_state(step.step, state)

    def _write_state(self, step: int, state: State) -> None:
        if self._lock is None:
            return
        path, config = self.run.path, self.run.config
        with self._disk(f"the checkpoint of step {step}"):
            with contextlib.suppress(FileNotFoundError):
                _force_to_disk(path / _METRICS)  # its lines are part of this step
            _write_tensors(path / _CHECKPOINT, state, config)
        self._kept, self._good = step, None

    def _keep_good(self) -> str:
        """Write what is in memory, if it is later than what is on disk; says which step is kept."""
        if self._good is not None and self._good[0] > self._kept:
            self._write_state(*self._good)
        if not self._kept:
            return "no step before it was good, so no weights are kept"
        return f"the weights of step {self._kept} are kept in {self.run.path}"

    def _finite_state(self, step: TrainStep) -> State:
        log = torch.tensor([self._sum, self._count, self._last_loss], dtype=torch.float64)
        state = step.state() | {"log": log}
        for key, value in state.items():
            if value.is_floating_point() and not value.isfinite().all():
                raise Diverged(
                    f"{key} holds NaN or infinity after step {step.step}, whose loss was "
                    f"{step.loss:g}: training stops here; lower the rate (it rises to "
                    f"{self.run.config.rate:g}), or look for huge numbers in the data"
                )
        return state

    def _is_calm(self, state: State) -> bool:
        recent = self._sum / self._count if self._count else self._last_loss
        first = state["seconds"][1].item()
        return abs(recent) <= _CALM * max(abs(first), 1.0)

    @contextlib.contextmanager
    def _disk(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            whole = f"the checkpoint of step {self._kept} is whole" if self._kept else "none is yet"
            raise OSError(
                f"{self.run.path}: {what} could not be written ({error.strerror}); {whole}; make "
                "room, then go on with --resume"
            ) from None


def _on_processor(denoiser: NetDenoiser) -> NetDenoiser:
    """Where exact targets are."""
    return denoiser if denoiser.mean.device.type == "cpu" else copy.deepcopy(denoiser).cpu()


def is_logged(step: int) -> bool:
    """Whether a line is logged of a step: of twenty in a decade, evenly on a logarithmic scale."""
    if step == 1:
        return True
    return math.floor(_A_DECADE * math.log10(step)) > math.floor(_A_DECADE * math.log10(step - 1))


@contextlib.contextmanager
def _at_first(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.strerror is None:
            raise  # it is a sentence already
        raise OSError(
            f"{path}: the run could not be begun ({error.strerror}); make room there and allow it, "
            "or name another folder"
        ) from None


def _write_first(path: Path, config: Config, lessons: Lessons) -> None:
    """What is written once. The config comes last: with it the folder is a run."""
    law = {k: v for k, v in Law.of(lessons.x_0)._asdict().items() if v is not None}
    values = {
        "format": FORMAT,
        "alphabar": _version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        **config.to_dict(),
    }
    # Renamed from the inside out, once all is on the disk.
    with writing(path / _CONFIG) as text, writing(path / _DATA) as data:
        _save(data, law, config)
        text.write_text(_lines(values), encoding="utf-8")
        _force_to_disk(text)


def _write_tensors(path: Path, tensors: State, config: Config) -> None:
    with writing(path) as temporary:
        _save(temporary, tensors, config)
    _force_to_disk(path.parent)


def _save(path: Path, tensors: State, config: Config) -> None:
    # Of memory of its own each: in one dimension a covariance is its own diagonal.
    whole = {key: value.detach().clone().contiguous() for key, value in tensors.items()}
    sums = json.dumps({key: _sum(value) for key, value in whole.items()})
    try:
        save_file(whole, path, {"format": str(FORMAT), "config": config.digest, "sums": sums})
    except SafetensorError as error:
        raise _os_error(error) from None
    _force_to_disk(path)


def _os_error(error: SafetensorError) -> OSError:
    """What safetensors says in words, with the number that it had."""
    found = re.search(r"os error (\d+)", str(error))
    number = int(found[1]) if found else errno.EIO
    return OSError(number, os.strerror(number))


def _force_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _trim(path: Path, step: int) -> None:
    """Drop the lines of later steps: they will be logged again."""
    lines = _read_metrics(path)
    kept = [line for line in lines if line.step <= step]
    text = "".join(json.dumps(line._asdict()) + "\n" for line in kept)
    if path.exists() and path.read_text(encoding="utf-8") != text:
        with writing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")


class _Lock:
    """One trainer a folder. The system lets go of it when its process ends, however it ends."""

    def __init__(self, folder: Path) -> None:
        import fcntl  # not on every system; who only samples needs none

        self._path = folder / _LOCK
        self._is_new = not self._path.exists()
        try:
            self._file: IO[str] = self._path.open("a+", encoding="utf-8")
        except OSError as error:
            raise OSError(f"{folder} cannot be written to ({error.strerror}); allow it") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            holder = self._file.read().strip() or "unknown"
            self._file.close()
            raise BlockingIOError(
                f"{folder} is being trained by process {holder}: wait until it is done, or stop it"
            ) from None
        try:
            self._file.truncate(0)
            self._file.write(f"{os.getpid()}\n")
            self._file.flush()
        except OSError:
            self.remove()
            raise

    def release(self) -> None:
        """Let others have it."""
        with contextlib.suppress(OSError):  # what could not be written cannot be flushed either
            self._file.close()

    def remove(self) -> None:
        """Release it, and leave no file where there was none."""
        if self._is_new:
            self._path.unlink(missing_ok=True)
        self.release()


class _Held:
    """SIGINT and SIGTERM wait until what is inside is done; the second of them does not."""

    def __init__(self) -> None:
        self._came: int | None = None
        self._before: dict[int, Any] = {}
        # Signals never interrupt another thread; a handler that is not Python's cannot be put back.
        is_main = threading.current_thread() is threading.main_thread()
        held = (signal.SIGINT, signal.SIGTERM) if is_main else ()
        self._numbers = [n for n in held if signal.getsignal(n) is not None]

    def __enter__(self) -> None:
        self._came = None
        for number in self._numbers:
            self._before[number] = signal.signal(number, self._note)

    def __exit__(self, *_: object) -> None:
        self._restore()
        if self._came is not None:
            signal.raise_signal(self._came)

    def _note(self, number: int, frame: types.FrameType | None) -> None:
        self._came = number
        self._restore()

    def _restore(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())
