"""What a command draws from: the exact denoiser of a data set, or the one that a run trained."""

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from alphabar.arguments import check_number
from alphabar.compare import Halves, halves
from alphabar.config import lessons_of
from alphabar.data import Data, Standardiser, load
from alphabar.denoise import NetDenoiser
from alphabar.draw import (
    FREE,
    Bar,
    Choice,
    Known,
    Learned,
    Plan,
    Source,
    choose,
    make_plan,
    source_of,
)
from alphabar.guidance import guided
from alphabar.runs import RunFolder, open_run
from alphabar.schedule import SCHEDULES, Schedule

FITTED = 12  # calls that a run's own steps are fitted to, of items of up to
SMALL = 8  # numbers; beyond, where a gradient costs more and gains less,
CURVED = 20  # calls whose levels are chosen by curvature
SCHEDULE = "linear"  # what levels come from, unless something else is said


@dataclass(frozen=True, eq=False)
class Origin:
    """What samples are drawn from, and what they are called.

    Args:
        spec: of the data; None for a run that was trained on tensors.
        kind: points or pictures.
        columns: names of a point's numbers.
        source: what is drawn from.
        schedule: what levels come from if nothing else is said.
        run: the run, if it is one.
        step: of training, that its denoiser is of.
        seconds: of training until then.
        given: the data, where they are at hand.
    """

    spec: str | None
    kind: str
    columns: tuple[str, ...]
    source: Source
    schedule: Schedule
    run: RunFolder | None = None
    step: int = 0
    seconds: float = 0.0
    given: Data | None = None

    @cached_property
    def data(self) -> Data:
        """The data.

        Raises:
            ValueError: a run that was trained on tensors, or data that have changed since.
        """
        if self.given is not None:
            return self.given
        assert self.run is not None
        if self.spec is None:
            raise ValueError(
                f"{self.run.path} was trained on tensors, which are not kept: nothing stands for "
                "the truth; give data with evaluate --against DATA"
            )
        try:
            data = load(self.spec)
        except (ValueError, OSError) as error:
            raise ValueError(
                f"{self.run.path} was trained on {self.spec}, which cannot be had from here "
                f"({error}): go to the folder where it was trained, or give --against DATA"
            ) from None
        lessons_of(self.run.config, data)
        return data

    @property
    def target(self) -> str:
        """`law`, `items` or `network`."""
        if isinstance(self.source, Known):
            return "law" if self.source.is_law else "items"
        return "network"

    @property
    def has_own_steps(self) -> bool:
        """Whether steps can be fitted to a run and kept with it.

        Its items must not be too large, and its schedule must have levels between data and noise.
        """
        levels = int(self.schedule.log_snr[1:].isfinite().sum())
        return self.run is not None and not self.source.is_large and levels > 1

    def hue(self, x: Float[Tensor, "n d"]) -> Any:
        """For each point the hue of the nearest of up to 10,000 of the data.

        Of a run whose data are gone, the rank of the first number, as in files.
        """
        from sklearn.neighbors import KNeighborsRegressor

        try:
            data = self.data
        except (ValueError, OSError):
            return x[:, 0].argsort().argsort().double().numpy() / max(1, len(x) - 1)
        items = data.x
        if isinstance(self.source, Known):
            items = self.source.x
        elif self.source.standardiser is not None:
            items = self.source.standardiser.apply(items)
        some = slice(None, None, -(-len(items) // 10_000))
        known = KNeighborsRegressor(1)  # type: ignore[no-untyped-call]
        known.fit(items[some].numpy(), data.hue[some].numpy())
        return known.predict(x.double().numpy()).clip(0, 1)  # type: ignore[no-untyped-call]

    def source_of_class(self, label: int) -> Source:
        """Of a run that was trained with classes: what draws this one, without guidance."""
        assert isinstance(self.source, Learned)
        assert isinstance(self.source.denoiser, NetDenoiser)
        return replace(self.source, denoiser=self.source.denoiser.given(label))

    @property
    def own_choice(self) -> Choice:
        """A run's own steps: fitted by gradient, or where that takes minutes by curvature."""
        if math.prod(self.source.shape) <= SMALL:
            return choose(FREE, "fitted", self.schedule, FITTED)
        return choose("dpmpp_2m", "curvature", self.schedule, CURVED)

    def plan(
        self, choice: Choice | None, schedule: Schedule, start: str, seed: int, bar: Bar
    ) -> Plan:
        """How to draw: by a choice, or by the run's own steps, fitted to it and kept with it.

        Raises:
            ValueError: items that are too large to fit steps to, and as of `draw.make_plan`.
        """
        if choice is not None:
            return make_plan(choice, self.source, schedule, start, seed, bar)
        assert self.run is not None
        own = self.own_choice
        name = f"{own.rule}-{own.steps}"
        kept = self.run.load_steps(name, self.step)
        if kept is not None:
            few, sampler = kept
            return Plan(sampler, own.rule, few, self.source.law, self.source.gap(few[few.T]), None)
        plan = make_plan(own, self.source, self.schedule, "auto", self.run.config.seed, bar)
        # A folder that cannot be written to can still be sampled from.
        with contextlib.suppress(OSError):
            self.run.save_steps(name, plan.schedule, plan.sampler, self.step)
        return plan


def origin_of_data(data: Data, standardiser: Standardiser | None, rows: Tensor | None) -> Origin:
    """The exact denoiser of a data set."""
    source = source_of(data, standardiser, rows)
    schedule = SCHEDULES.parse(SCHEDULE)
    return Origin(data.spec, data.kind, data.columns, source, schedule, given=data)


def origin_of_run(
    path: str, label: int | None = None, guidance: float | None = None, net: str | None = None
) -> Origin:
    """The denoiser that a run has trained.

    Args:
        path: its folder.
        label: a class to draw; None for all.
        guidance: the scale of classifier-free guidance towards the class; 1 is none.
        net: the import path of its network, where that is the person's own code.

    Raises:
        ValueError, OSError: no run, or one that cannot be read; a class that it does not know.
    """
    run = open_run(Path(path), net)
    config, law = run.config, run.law()
    trained = run.trained()
    denoiser: Callable[[Tensor, Any], Tensor] = trained.denoiser
    if label is not None:
        if not config.classes:
            raise ValueError(
                f"--label {label}: {path} was trained without classes; train it with --classes"
            )
        if not 0 <= label < config.classes:
            raise ValueError(f"--label {label}: {path} knows the classes 0 to {config.classes - 1}")
        denoiser = trained.denoiser.given(label)
        if guidance is not None:
            check_number("--guidance", guidance, 0, 1000, "from 0 to 1000; 1 is no guidance")
            denoiser = guided(denoiser, trained.denoiser, guidance)
    elif guidance is not None:
        raise ValueError(f"--guidance {guidance:g} leads to a class; add --label K")
    source = Learned(denoiser, law.mean, law.cov, law.var, config.standardiser)
    schedule = SCHEDULES.parse(config.schedule or SCHEDULE)
    names = (config.data, config.kind, config.columns)
    return Origin(*names, source, schedule, run, trained.step, trained.seconds)


def training_of(origin: Origin) -> Tensor | None:
    """The points that a run was trained on, in their own units; None where they cannot be had.

    They cannot of a run that was trained on tensors or on fresh points all the time, and of data
    that have changed or are gone.
    """
    assert origin.run is not None
    config = origin.run.config
    if config.stream:
        return None
    try:
        data = origin.data
    except (ValueError, OSError):
        return None
    parts = halves(data, config.seed) if config.held_out else None
    return data.x if parts is None else data.x[parts.used]


def truth_of(origin: Origin, seed: int) -> Halves | None:
    """The items that nothing was learned from, and the others; None where fresh ones are.

    Raises:
        ValueError: a run that has learned from all rows of its file.
    """
    if origin.data.fresh is not None:
        return None
    if origin.run is None:
        return halves(origin.data, seed)
    if not origin.run.config.held_out:
        raise ValueError(
            f"{origin.run.path} was trained on all of {origin.spec}, so none is left to "
            "compare with: give others with evaluate --against DATA, or train with --hold-out"
        )
    return halves(origin.data, origin.run.config.seed)
