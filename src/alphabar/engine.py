"""Training in several processes, on other devices, in mixed precision: by accelerate.

    accelerate launch --num_processes 2 --cpu -m alphabar train digits --classes -o RUN

    one batch of B  =  n processes × k parts × B/(n·k) items,    gradient = mean over all of them

How many processes there are, on which machines, in what precision and in how many parts a batch is
taken is accelerate's to say: by `accelerate launch`, its options or its configuration. What is
learnt does not depend on it, up to rounding: see `train.Engine`. The first process writes the run;
the others hold the same weights, and write nothing.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

if TYPE_CHECKING:
    from accelerate import Accelerator

Result = TypeVar("Result")


class Ended(OSError):
    """Another process has ended, and this one cannot go on without it."""


class Accelerated:
    """A training by an `Accelerator`.

        train(denoiser, items, seed, steps=4000, engine=Accelerated(Accelerator()))

    Args:
        accelerator: says how many processes there are, on what devices, in what precision, and how
            many parts a batch is taken in (`gradient_accumulation_steps`).
    """

    def __init__(self, accelerator: "Accelerator") -> None:
        self.accelerator = accelerator
        self.rank: int = accelerator.process_index
        self.size: int = accelerator.num_processes
        self.parts: int = accelerator.gradient_accumulation_steps
        self.device: torch.device = accelerator.device

    def prepare(
        self, losses: nn.Module, optimizer: torch.optim.Optimizer
    ) -> tuple[nn.Module, torch.optim.Optimizer]:
        """In the precision that was asked for, and with gradients of all processes."""
        with self._together():
            return self.accelerator.prepare(losses, optimizer)

    @contextmanager
    def part(self, losses: nn.Module) -> Iterator[None]:
        """Gradients are exchanged, and the weights moved, in the last part alone."""
        with self._together(), self.accelerator.accumulate(losses):
            yield

    def backward(self, loss: Float[Tensor, ""]) -> None:
        """The gradient, scaled where the precision needs it."""
        self.accelerator.backward(loss)

    def mean(self, value: float) -> float:
        """Over all processes."""
        if self.size == 1:
            return value
        with self._together():
            one = torch.tensor(value, dtype=torch.float64, device=self.device)
            return self.accelerator.reduce(one, "mean").item()

    def shared(self, value: Result) -> Result:
        """What the first process has."""
        if self.size == 1:
            return value
        with self._together():
            from accelerate.utils import broadcast_object_list

            return broadcast_object_list([value])[0]

    def first(self, action: Callable[[], Result]) -> Result | None:
        """What the first process makes of it, while the others wait; they get None.

        Raises:
            Ended: in the others, where the first could not do it; it has said why.
        """
        found, done = None, False
        try:
            if self.rank == 0:
                found, done = action(), True
        finally:
            done = self.shared(done)
        if not done:
            raise Ended("the first process could not do it, and has said why")
        return found

    @contextmanager
    def tracking(
        self, name: str, config: Mapping[str, object]
    ) -> Iterator[Callable[[Mapping[str, float | None]], None]]:
        """What is handed the lines of metrics, each with its `step`, for the trackers.

        Args:
            name: of the run.
            config: what determines it.
        """
        accelerator = self.accelerator
        if not accelerator.log_with:
            yield lambda line: None
            return
        plain = {k: v if isinstance(v, int | float | str) else str(v) for k, v in config.items()}
        accelerator.init_trackers(name, plain)

        def track(line: Mapping[str, float | None]) -> None:
            numbers = {k: v for k, v in line.items() if v is not None}
            accelerator.log(numbers, step=int(numbers.pop("step")))

        try:
            yield track
        finally:
            accelerator.end_training()

    @contextmanager
    def _together(self) -> Iterator[None]:
        """Where processes wait for one another, and one may have died."""
        try:
            yield
        except RuntimeError as error:
            if self.size == 1 or not _is_lost(error):
                raise
            raise Ended(
                f"process {self.rank} of {self.size} cannot go on: another one has ended, or "
                "cannot be reached; a checkpoint that was written is whole; start all of them "
                "again with --resume"
            ) from None


def processes() -> Accelerated:
    """This process, and those that were started beside it."""
    from accelerate import Accelerator

    return Accelerated(Accelerator())


def check_trackers(names: Sequence[str]) -> list[str]:
    """The names of trackers, such as tensorboard.

    Raises:
        ValueError: one that accelerate does not know, or that is not installed.
    """
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    installed = [str(one) for one in get_available_trackers()]
    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            known = ", ".join(sorted(map(str, LOGGER_TYPE_TO_CLASS)))
            raise ValueError(f"--track {name}: it is no tracker; choose among {known}")
        if name not in installed:
            raise ValueError(f"--track {name}: it is not installed; pip install {name}")
    return [*names]


def _is_lost(error: RuntimeError) -> bool:
    """Whether this is what a broken connection between processes raises."""
    words = str(error).lower()
    return isinstance(error, torch.distributed.DistError) or any(
        known in words
        for known in ("connection closed", "connection reset", "gloo", "nccl", "timed out", "peer")
    )
