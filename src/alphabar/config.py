"""What determines a run: a config; and what it learns from: lessons.

    config, lessons = configure(load("swiss_roll"), None, seed=0, steps=4000)

`configure` tries everything out once and writes nothing; `runs` makes a folder of it. To go on with
a run, `lessons_of(run.config, load("swiss_roll"))` makes the same lessons again, or refuses data
that have changed.
"""

import hashlib
import json
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple, cast

import torch
from jaxtyping import Float32
from torch import Tensor

from alphabar.arguments import check_number, check_seed, check_whole
from alphabar.compare import halves
from alphabar.condition import Condition
from alphabar.data import Data, Standardiser
from alphabar.denoise import PREDICTIONS, Moments, NetDenoiser
from alphabar.draw import LARGEST
from alphabar.levels import LEVELS, Drawn, of_schedule
from alphabar.nets import is_own, recipe
from alphabar.objectives import OBJECTIVES, Hybrid
from alphabar.schedule import SCHEDULES, Level
from alphabar.storage import chunks, take
from alphabar.train import Items, Settings, Shuffled, Streamed

# The objective that is the squared error of a prediction; a score is a multiple of ε.
_OWN = {"x_0": "x_0", "eps": "simple", "score": "simple", "v": "v", "flow": "flow"}
_FEW = 100  # items that are soon known by heart
_RARE = 10  # items of a class
_LOOKED_AT = 100_000  # items in which copies are looked for
# Fresh items are drawn by seeds from here on: those below are what samples are judged by.
_STREAMS, _BLOCKS = 3 * 2**30, 2**12


class Remark(NamedTuple):
    """What a person should know: the key of a sentence in `locale`, and what it speaks of."""

    key: str
    values: dict[str, int]


class Lessons(NamedTuple):
    """What a denoiser learns from, in the units that it is diffused in."""

    x_0: Float32[Tensor, "N ..."]
    cond: Condition | None = None
    fresh: Callable[[int, int], Tensor] | None = None  # (n, seed) → n more, in the same units

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the items and their conditions."""
        found = hashlib.sha256(str(tuple(self.x_0.shape)).encode())
        for part in (self.x_0, self.cond):
            if part is not None:
                found.update(part.detach().cpu().contiguous().numpy().data)
        return found.hexdigest()

    def items(self, seed: int) -> Items:
        """Where batches come from: shuffled items, or fresh ones."""
        if self.fresh is None:
            return Shuffled(self.x_0, self.cond)
        return Streamed(self.fresh, _STREAMS + seed % (2**30 // _BLOCKS) * _BLOCKS)

    def remarks(self) -> list[Remark]:
        """What a person should know of these items before they train on them."""
        said, n = [], len(self.x_0)
        if self.fresh is None and n < _FEW:
            said.append(Remark("few_items", {"n": n}))
        looked_at = self.x_0[:_LOOKED_AT].detach().cpu().flatten(1)
        # By 64 bits of each: to sort whole items would take several times their memory.
        copies = len(looked_at) - len({hash(item.tobytes()) for item in looked_at.numpy()})
        if self.fresh is None and copies > len(looked_at) / 100:
            said.append(Remark("many_copies", {"copies": copies, "n": len(looked_at)}))
        if self.cond is not None and not self.cond.is_floating_point():
            counts = torch.bincount(self.cond[self.cond >= 0])
            for c in (counts < _RARE).nonzero().flatten().tolist()[:5]:
                n = int(counts[c])
                said.append(Remark("rare_class" if n else "empty_class", {"c": c, "n": n}))
        return said


@dataclass(frozen=True)
class Config:
    """What determines a run.

    Args:
        data: spec of the data; None for tensors of one's own.
        fingerprint: of the items that were trained on: `Lessons.fingerprint`.
        n: how many these were.
        kind: points or pictures.
        shape: of an item.
        columns: names of its numbers.
        held_out: whether they were the first of `compare.halves(data, seed)`.
        stream: whether fresh items were drawn all the time; the fingerprint is of the first.
        standardiser: what brought the data to the units that they are diffused in.
        classes: how many the network is conditioned on; or
        numbers: how many numbers.
        schedule: spec of what is sampled on, unless another is asked for.
        levels: spec of the density that noise levels were drawn from; None: from the schedule.
        net, predicts, objective: specs, and a name of `denoise.PREDICTIONS`.
        batch, rate, weight_decay, drop: those of `train.Settings`.
        steps: how many; or
        seconds: how long.
        seed: of the first weights, the batches and the noise.

    Raises:
        TypeError, ValueError: what cannot be trained.
    """

    data: str | None
    fingerprint: str
    n: int
    kind: str
    shape: tuple[int, ...]
    columns: tuple[str, ...]
    held_out: bool
    stream: bool
    standardiser: Standardiser | None
    classes: int
    numbers: int
    schedule: str | None
    levels: str | None
    net: str
    predicts: str
    objective: str
    batch: int
    rate: float
    weight_decay: float
    drop: float
    steps: int | None
    seconds: float | None
    seed: int

    def __post_init__(self) -> None:
        check_whole("n", self.n, 1, 2**40)
        if self.kind not in ("points", "pictures"):
            raise ValueError(f"kind = {self.kind!r}: choose points or pictures")
        if not self.shape or min(self.shape) < 1:
            raise ValueError(f"shape = {self.shape}: it must be whole numbers ≥ 1")
        check_whole("classes", self.classes, 0, 2**31)
        check_whole("numbers", self.numbers, 0, 2**31)
        if self.predicts not in PREDICTIONS:
            raise ValueError(f"predicts = {self.predicts!r}: choose {', '.join(PREDICTIONS)}")
        if self.schedule is None and self.levels is None:
            raise ValueError("neither schedule nor levels are given: noise levels come from one")
        if (self.steps is None) == (self.seconds is None):
            raise ValueError(f"steps = {self.steps}, seconds = {self.seconds}: give one of the two")
        if self.steps is not None:
            check_whole("steps", self.steps, 1, 10**9)
        if self.seconds is not None:
            check_number("seconds", self.seconds, 0, 1e9, "a time > 0, such as 60", True)
        check_seed(self.seed)
        if not is_own(self.net):  # which is not imported because a file says so
            recipe(self.net)
        self.settings()

    def settings(self) -> Settings:
        """How to train."""
        if self.levels is None:
            levels: Any = of_schedule(SCHEDULES.parse(cast(str, self.schedule)))
        else:
            levels = LEVELS.parse(self.levels)
        objective = OBJECTIVES.parse(self.objective)
        return Settings(objective, levels, self.batch, self.rate, self.weight_decay, self.drop)

    def build(self, data: Moments, net: str | None = None) -> NetDenoiser:
        """The denoiser, with its first weights.

        Args:
            data: mean and standard deviation of the data.
            net: the import path of the network, where it is the person's own: as they name it.

        Raises:
            ValueError: as of `check_net`.
        """
        self.check_net(net)
        learns_variance = isinstance(OBJECTIVES.parse(self.objective), Hybrid)
        made = recipe(self.net).build(
            self.shape, self.seed, 1 + learns_variance, self.classes, self.numbers
        )
        predicts = cast(Literal["edm"], self.predicts)
        return NetDenoiser(made, data, predicts, learns_variance=learns_variance)

    def check_net(self, net: str | None) -> None:
        """Refuse to import what a run names: the person must have named it, too.

        Raises:
            ValueError: the network is the person's own, and they have not named it, or another.
        """
        if is_own(self.net) and net != self.net:
            raise ValueError(
                f"the network of this run is the code {self.net}, which a run may not choose to "
                f"import: if you know and trust it, name it yourself with --net {self.net}"
            )

    def to_dict(self) -> dict[str, object]:
        """For JSON; `from_dict` gives back the same."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        standardiser = self.standardiser
        return values | {
            "shape": list(self.shape),
            "columns": list(self.columns),
            "standardiser": None if standardiser is None else standardiser.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> "Config":
        """The config that `to_dict` wrote.

        Raises:
            TypeError, ValueError: a key that is missing, unknown or of the wrong kind.
        """
        known = {field.name: field.type for field in fields(cls)}
        for key in values.keys() - known.keys():
            raise ValueError(f"{key!r} is not a key of a run's config; remove it")
        for key in known.keys() - values.keys():
            raise ValueError(f"the key {key!r} is missing")
        return cls(**{key: _read(key, values[key], known[key]) for key in known})

    @property
    def digest(self) -> str:
        """SHA-256 of all but where the data lie: what a checkpoint belongs to."""
        values = self.to_dict() | {"data": None}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    def check_given(self, given: Mapping[str, object]) -> None:
        """Refuse to go on in another way than the run was begun; None stands for "as it was".

            run.config.check_given({"steps": 8000, "net": None})

        Raises:
            ValueError: a value that differs.
        """
        families = {"objective": OBJECTIVES, "levels": LEVELS, "schedule": SCHEDULES}
        for key, value in given.items():
            if value is None:
                continue
            if key == "net":
                value = recipe(str(value)).fitted(self.shape).spec
            elif key in families:
                value = families[key].parse(str(value)).spec
            if value != getattr(self, key):
                begun = getattr(self, key)
                how = f"without {key}" if begun is None else f"with {begun}"
                raise ValueError(
                    f"{key} = {value}: this run was begun {how}, and a run that is resumed goes on "
                    f"as it was begun; leave {key} out, or train another"
                )

    def check_items(self, shape: tuple[int, ...], name: str) -> None:
        """Refuse items of another size than those of the run.

        Raises:
            ValueError: another shape.
        """
        if shape != self.shape:
            raise ValueError(
                f"{name} has items of shape {shape}, and the run was trained on {self.shape} "
                f"({self.data or 'tensors'}): give data of that shape"
            )


def _read(key: str, value: object, kind: Any) -> Any:
    """What JSON holds, as the kind that the field is of."""
    if kind == Standardiser | None:
        if value is None:
            return None
        if isinstance(value, Mapping):
            return Standardiser.from_dict(value)
    elif kind in (tuple[int, ...], tuple[str, ...]):
        inner = kind.__args__[0]
        if isinstance(value, list) and all(type(item) is inner for item in value):
            return tuple(value)
    else:
        kinds = kind.__args__ if isinstance(kind, types.UnionType) else (kind,)
        if type(value) in kinds:
            return value
        if float in kinds and type(value) is int:
            return float(value)
    raise TypeError(f"{key} = {value!r}: it must be of the kind {getattr(kind, '__name__', kind)}")


def configure(
    data: Data,
    standardiser: Standardiser | None,
    seed: int,
    steps: int | None = None,
    seconds: float | None = None,
    net: str = "mlp",
    predicts: str = "edm",
    objective: str | None = None,
    levels: str | None = None,
    schedule: str | None = None,
    batch: int | None = None,
    rate: float | None = None,
    weight_decay: float | None = None,
    drop: float | None = None,
    held_out: bool = False,
    stream: bool = False,
    condition: Condition | None = None,
) -> tuple[Config, Lessons]:
    """A run that can be trained: everything is tried out once, and nothing is written.

    Args:
        data: what to learn.
        standardiser: applied to it first, where given.
        seed: determines everything.
        steps: of training; or
        seconds: of training.
        net, predicts: a spec, and a name of `denoise.PREDICTIONS`.
        objective: a spec; None: the squared error of what is predicted, which is bounded at all
            levels, as that of another prediction need not be.
        levels: spec of the density of noise levels; None: the schedule's levels if there is one,
            else the default of `train.Settings`.
        schedule: spec of a schedule to sample on, and to draw levels from if there is no density.
        batch, rate, weight_decay, drop: None: those of `train.Settings`.
        held_out: learn from the first of `compare.halves(data, seed)` alone.
        stream: learn from fresh items all the time.
        condition: of each of the data, such as `data.labels`.

    Raises:
        TypeError, ValueError: what cannot be trained, in one sentence.
    """
    default = Settings()
    if levels is None and schedule is None:
        levels = default.levels.spec
    lessons = _lessons(data, standardiser, held_out, stream, seed, condition)
    cond = lessons.cond
    by_class = cond is not None and not cond.is_floating_point()
    config = Config(
        data=data.spec if data._call else None,
        fingerprint=lessons.fingerprint,
        n=len(lessons.x_0),
        kind=data.kind,
        shape=tuple(lessons.x_0.shape[1:]),
        columns=data.columns,
        held_out=held_out,
        stream=stream,
        standardiser=standardiser,
        # Of all data: a class may have no item in the half that is used.
        classes=int(condition.max()) + 1 if by_class and condition is not None else 0,
        numbers=0 if cond is None or by_class else cond.shape[1],
        schedule=None if schedule is None else SCHEDULES.parse(schedule).spec,
        levels=None if levels is None else LEVELS.parse(levels).spec,
        net=recipe(net).fitted(tuple(lessons.x_0.shape[1:])).spec,
        predicts=predicts,
        objective=OBJECTIVES.parse(objective or _OWN.get(predicts, "edm")).spec,
        batch=default.batch if batch is None else batch,
        rate=default.rate if rate is None else rate,
        weight_decay=default.weight_decay if weight_decay is None else weight_decay,
        drop=default.drop if drop is None else drop,
        steps=steps,
        seconds=None if seconds is None else float(seconds),
        seed=seed,
    )
    _try_out(config, lessons)
    return config, lessons


def lessons_of(config: Config, data: Data, condition: Condition | None = None) -> Lessons:
    """What a run learns from, made again from its data, to go on with it.

    Args:
        config: the run's.
        data: the same data.
        condition: the same conditions; None: the data's labels, if the run is conditioned on them.

    Raises:
        ValueError: data of another shape, or that are not the same any more.
    """
    name = data.spec if data._call else "the data"
    config.check_items(tuple(data.x.shape[1:]), name)
    if condition is None and config.classes:
        condition = data.labels
    if condition is None and (config.classes or config.numbers):
        raise ValueError(
            f"{name} comes without conditions, and the run was trained with them: give them too"
        )
    lessons = _lessons(
        data, config.standardiser, config.held_out, config.stream, config.seed, condition
    )
    if lessons.fingerprint != config.fingerprint:
        raise ValueError(
            f"{name} is not what the run was begun with ({_begun_with(config, lessons)}): the "
            "data, or their conditions, have changed; bring them back, or train another run"
        )
    return lessons


def _begun_with(config: Config, lessons: Lessons) -> str:
    if len(lessons.x_0) != config.n:
        return f"{len(lessons.x_0)} items to learn from, then {config.n}"
    return f"as many items, {config.n}, but not the same"


def _lessons(
    data: Data,
    standardiser: Standardiser | None,
    held_out: bool,
    stream: bool,
    seed: int,
    condition: Condition | None,
) -> Lessons:
    fresh = data.fresh
    if stream and fresh is None:
        raise ValueError(
            f"stream: {data.spec if data._call else 'these data'} cannot be drawn afresh; only a "
            "generated data set can, such as swiss_roll"
        )
    if stream and (held_out or condition is not None):
        raise ValueError("stream: fresh items have no held-out half and no conditions; give one")
    if condition is not None:
        _check_condition(condition, len(data))
    x, cond = data.x, condition
    if held_out:
        parts = halves(data, seed)
        if parts is None:
            raise ValueError(
                "held_out: these data can be drawn afresh, so none need be held out; leave it out"
            )
        x, cond = take(x, parts.used), None if cond is None else cond[parts.used]
    scale = standardiser.apply if standardiser is not None else lambda x: x
    x = scale(x)
    _check_scale(x)
    if stream and fresh is not None:
        draw = fresh
        return Lessons(x.float(), None, lambda n, seed: scale(draw(n, seed)).float())
    if cond is not None and cond.is_floating_point():
        cond = cond.float()
    return Lessons(x.float(), cond)


def _check_condition(condition: Condition, n: int) -> None:
    if len(condition) != n:
        raise ValueError(f"{len(condition)} conditions for {n} items: give each its own")
    rule = "give each item a class from 0 (int64), -1 for none, or a row of numbers, NaN for none"
    if condition.ndim != (2 if condition.is_floating_point() else 1):
        shape = tuple(condition.shape)
        raise ValueError(f"conditions of {condition.dtype} and shape {shape}: {rule}")
    if not condition.is_floating_point() and (condition.min() < -1 or condition.max() < 0):
        least, most = int(condition.min()), int(condition.max())
        raise ValueError(f"conditions from {least} to {most}: {rule}")


def _check_scale(x: Tensor) -> None:
    """Refuse items that float32 cannot hold, or not tell apart."""
    far = max(part.abs().max().item() for part in chunks(x))
    spread = Moments.of(x).std.item()
    if far > LARGEST or far * 2**-24 > 1e-3 * spread:
        raise ValueError(
            f"the data hold numbers up to {far:.3g} and spread by {spread:.3g}: float32, in which "
            "networks are trained, cannot hold them apart; add --standardise, or give them in "
            "another unit"
        )


def _try_out(config: Config, lessons: Lessons) -> None:
    """Ask the objective once, at both ends of the levels: it may refuse levels or a prediction."""
    settings, generator = config.settings(), torch.Generator().manual_seed(0)
    denoiser = config.build(Moments.of(lessons.x_0), config.net)  # as it was given just now
    schedule = None if config.levels is not None else SCHEDULES.parse(cast(str, config.schedule))
    drawn = settings.levels.draw(schedule.T if schedule else 2, generator)
    ends = torch.tensor([0, len(drawn.level.alpha) - 1])
    level, before, density, T = drawn
    drawn = Drawn(
        Level(level.alpha[ends], level.sigma[ends]),
        None if before is None else Level(before.alpha[ends], before.sigma[ends]),
        None if density is None else density[ends],
        T,
    )
    both = torch.tensor([0, len(lessons.x_0) - 1])
    x_0, cond = lessons.x_0[both], lessons.cond
    asked = denoiser if cond is None else denoiser.given(cond[both])
    settings.objective(asked, x_0, drawn, torch.zeros_like(x_0), generator)
