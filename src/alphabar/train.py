"""Training: show a denoiser noisy items, and ask for the clean ones.

    minimise  E w(level)·‖x̂_0(x_t, level) − x_0‖²    over x_0 from the data, a level, ε ~ N(0, I)

Whatever the weight, the minimiser is E[x_0 | x_t] (Vincent 2011): see `objectives` for weights,
and `levels` for how levels are drawn. AdamW (Loshchilov & Hutter 2019), with a rate that rises and
falls to 0; sampling uses an average of the weights over the past,

    θ̄_k = (1 − 1/k)^(γ+1)·θ̄_(k−1) + (1 − (1 − 1/k)^(γ+1))·θ_k ,

in which θ_j counts as j^γ: its span is a fixed share of the steps so far, however many there will
be (Karras et al. 2024, *Analyzing and Improving the Training Dynamics of Diffusion Models*, sec.
3.1).
"""

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from alphabar.arguments import check_number, check_seed, check_whole
from alphabar.condition import Condition, without
from alphabar.denoise import NetDenoiser
from alphabar.levels import Drawn, Levels, logistic
from alphabar.objectives import Objective, edm
from alphabar.schedule import Level

State = dict[str, Tensor]  # all that training needs to go on, as `safetensors` holds it

ALL = slice(None)
_SPAN = 7.0  # γ: the average spans about the last tenth of the steps
_WARM_UP = 0.1  # share of the training in which the rate rises
_GOLDEN = 0x9E3779B97F4A7C15  # an odd number whose multiples mod 2⁶⁴ are far apart
_EXPLODED = 1e4  # times the first loss, or times 1


class Batch(NamedTuple):
    """Items to learn from, and what they are conditioned on."""

    x_0: Float[Tensor, "B ..."]
    cond: Condition | None


@runtime_checkable
class Items(Protocol):
    """Where batches come from."""

    def draw(self, n: int, generator: torch.Generator, share: slice = ALL) -> Batch:
        """Of the next n items those of a share of their places."""

    def state(self) -> State:
        """What `load` needs to draw the same items again from here."""

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from where `state` was taken."""


class Shuffled:
    """The items of a data set in random order, none a second time before the order is used up.

    What is left of an order when it is too short for a batch is dropped. Drawn with replacement,
    how often an item has come in k epochs would vary by √k; so it hardly varies.

    Args:
        x_0: the data, (N, …).
        cond: a condition for each.

    Raises:
        ValueError: no items; another number of conditions.
    """

    def __init__(self, x_0: Float[Tensor, "N ..."], cond: Condition | None = None) -> None:
        if not len(x_0):
            raise ValueError("there are no items to learn from: give at least two")
        if cond is not None and len(cond) != len(x_0):
            raise ValueError(f"{len(cond)} conditions for {len(x_0)} items: give each its own")
        self.x_0, self.cond = x_0, cond
        self._order = torch.empty(0, dtype=torch.int64)
        self._at = 0
        self._before: Tensor | None = None  # the generator's state before the order was drawn

    def draw(self, n: int, generator: torch.Generator, share: slice = ALL) -> Batch:
        """Of the next n items a share; what is left of an order shorter than n is not used."""
        if self._at + n > len(self._order):
            self._before = generator.get_state()
            self._shuffle(n, generator)
        chosen = self._order[self._at : self._at + n][share].to(self.x_0.device)
        self._at += n
        return Batch(self.x_0[chosen], None if self.cond is None else self.cond[chosen])

    def _shuffle(self, n: int, generator: torch.Generator) -> None:
        N, times = len(self.x_0), -(-n // len(self.x_0))
        orders = [torch.randperm(N, generator=generator) for _ in range(times)]
        self._order, self._at = torch.cat(orders), 0

    def state(self) -> State:
        """Where in which order; not the order itself, which may be as long as the data."""
        if self._before is None:
            return {}
        at = torch.tensor([self._at, len(self._order)])
        return {"items.at": at, "items.before": self._before}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Draw the order again, and go to the place in it."""
        if "items.at" not in state:
            return
        at, length = state["items.at"].tolist()
        generator = torch.Generator()
        self._before = state["items.before"].clone()
        generator.set_state(self._before)
        self._shuffle(length, generator)
        self._at = at


class Streamed:
    """Items that are drawn afresh all the time: none is seen twice.

    Args:
        fresh: (n, seed) → n items, independent of those of every other seed.
        seed: of the first block; the next has the next.
    """

    BLOCK = 2**16

    def __init__(self, fresh: Callable[[int, int], Float[Tensor, "n ..."]], seed: int) -> None:
        self._fresh, self._seed = fresh, seed
        self._block: Tensor | None = None
        self._next, self._at = 0, 0

    def draw(self, n: int, generator: torch.Generator, share: slice = ALL) -> Batch:
        """Of the next n items a share, in float32."""
        if self._block is None or self._at + n > len(self._block):
            self._block = self._draw_block(max(n, self.BLOCK), self._next)
            self._next, self._at = self._next + 1, 0
        self._at += n
        return Batch(self._block[self._at - n : self._at][share], None)

    def _draw_block(self, n: int, number: int) -> Float[Tensor, "n ..."]:
        return self._fresh(n, (self._seed + number) % (2**32 - 2)).float()

    def state(self) -> State:
        """Which block, how long it is, and where in it."""
        length = 0 if self._block is None else len(self._block)
        return {"items.at": torch.tensor([self._next, length, self._at])}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Draw the block again."""
        self._next, length, self._at = state["items.at"].tolist()
        self._block = self._draw_block(length, self._next - 1) if length else None


@dataclass(frozen=True)
class Settings:
    """How to train; the defaults are chosen by measurement, see docs/training.md.

    Args:
        objective: what is asked of the denoiser.
        levels: how noise levels are drawn.
        batch: items a step.
        rate: the highest learning rate.
        weight_decay: of AdamW.
        drop: how often an item's condition is withheld, so that the denoiser can do without it.

    Raises:
        TypeError, ValueError: numbers out of range.
    """

    objective: Objective = field(default_factory=edm)
    levels: Levels = field(default_factory=lambda: logistic(3.0, 1.6))
    batch: int = 1024
    rate: float = 6e-3
    weight_decay: float = 0.0
    drop: float = 0.1

    def __post_init__(self) -> None:
        check_whole("batch", self.batch, 1, 10**9)
        check_number("rate", self.rate, 0, 1000, "a rate above 0, up to 1000, such as 0.003", True)
        check_number("weight_decay", self.weight_decay, 0, 1000, "from 0 to 1000, such as 0.01")
        check_number("drop", self.drop, 0, 1, "a share from 0 to 1, such as 0.1")


@runtime_checkable
class Engine(Protocol):
    """Where a training runs: in one process, or in several that share each batch.

    Of a batch of B items process r of n takes r, r + n, r + 2n, …, in so many `parts`, one after
    the other. All of them draw the same order, levels and noise, so that a training is the same
    however many there are, up to rounding. `engine.Accelerated` is the one of several.
    """

    rank: int
    size: int
    parts: int
    device: torch.device

    def prepare(
        self, losses: nn.Module, optimizer: torch.optim.Optimizer
    ) -> tuple[nn.Module, torch.optim.Optimizer]:
        """The same, as they are to be used: gradients are the mean over all parts of a batch."""

    def part(self, losses: nn.Module) -> AbstractContextManager[object]:
        """What one part of a batch is learnt in."""

    def backward(self, loss: Float[Tensor, ""]) -> None:
        """Add the gradient of the mean loss of a part."""

    def mean(self, value: float) -> float:
        """Over all processes."""


def check_shares(batch: int, engine: Engine) -> None:
    """Refuse a batch that cannot be shared evenly.

    Raises:
        ValueError: it is no multiple of the number of shares.
    """
    shares = engine.size * engine.parts
    if batch % shares:
        raise ValueError(
            f"--batch {batch} cannot be shared evenly by {engine.size} processes in {engine.parts} "
            f"parts each: take a multiple of {shares}"
        )


class Alone:
    """One process, on the processor, a batch at a time."""

    rank, size, parts = 0, 1, 1
    device = torch.device("cpu")

    def prepare(
        self, losses: nn.Module, optimizer: torch.optim.Optimizer
    ) -> tuple[nn.Module, torch.optim.Optimizer]:
        """As they are."""
        return losses, optimizer

    def part(self, losses: nn.Module) -> AbstractContextManager[object]:
        """Nothing."""
        return nullcontext()

    def backward(self, loss: Float[Tensor, ""]) -> None:
        """Its gradient."""
        loss.backward()  # type: ignore[no-untyped-call]

    def mean(self, value: float) -> float:
        """The value."""
        return value


class _Losses(nn.Module):
    """The loss of each item, in one call, as what spreads a network over processes wants it."""

    def __init__(self, denoiser: NetDenoiser, objective: Objective) -> None:
        super().__init__()
        self.denoiser, self.objective = denoiser, objective

    def forward(
        self,
        x_0: Float[Tensor, "B ..."],
        drawn: Drawn,
        eps: Float[Tensor, "B ..."],
        cond: Condition | None,
        generator: torch.Generator,
    ) -> Float[Tensor, " B"]:
        asked: Callable[..., Tensor] = self.denoiser
        if cond is not None:
            asked = self.denoiser.given(cond)
        return self.objective(asked, x_0, drawn, eps, generator)


class TrainStep(NamedTuple):
    """One step of training; `denoiser` and `state` are those of the latest step, not copies."""

    step: int  # 1, 2, …
    loss: float  # mean over the batch
    rate: float  # of learning, in this step
    seconds: float  # of training so far, what was done between the steps left out
    last: bool  # whether the training ends here
    denoiser: NetDenoiser  # with the average of the weights: the one to sample with
    state: Callable[[], State]  # all that `train` needs to go on from here


class Diverged(ValueError):
    """The loss is no longer a number, or has exploded."""


def train(
    denoiser: NetDenoiser,
    items: Items,
    seed: int,
    steps: int | None = None,
    seconds: float | None = None,
    settings: Settings | None = None,
    state: Mapping[str, Tensor] | None = None,
    engine: Engine | None = None,
) -> Iterator[TrainStep]:
    """Train `denoiser`, one step each time the iterator is advanced.

        for step in train(denoiser, Shuffled(x_0), seed=0, steps=4000):
            print(step.step, step.loss)
        samples = sample(step.denoiser, …)

    The rate rises over the first tenth and falls to 0 along a cosine, by steps if they are given,
    else by time.

    Args:
        denoiser: trained in place.
        items: where batches come from.
        seed: with the same seed, items, steps and number of threads, all is bit-identical.
        steps: how many steps; or
        seconds: how long. How far that goes depends on the machine.
        settings: how to train.
        state: of an earlier step, to go on from; all other arguments must be as they were.
        engine: where to train; None: in this process.

    Raises:
        ValueError: neither steps nor seconds, or both; a state of another network; a batch that
            cannot be shared evenly.
        Diverged: a loss that is not finite, or above 10⁴ times the first (10⁴, if that is below
            1); names the step and the level.
    """
    if (steps is None) == (seconds is None):
        raise ValueError(f"steps = {steps} and seconds = {seconds}: give one of the two")
    if steps is not None:
        check_whole("steps", steps, 1, 10**9)
    if seconds is not None:
        check_number("seconds", seconds, 0, 1e9, "a time > 0, such as 60", True)
    settings = settings or Settings()
    check_seed(seed)
    run = _Training(denoiser, items, seed, settings, engine or Alone())
    if state is not None:
        run.load(state)
    while True:
        begin = time.perf_counter()
        done = run.step / steps if steps else run.seconds / cast(float, seconds)
        if done >= 1:
            return
        loss = run.advance(_rate_at(done if seconds else (run.step + 0.5) / cast(int, steps)))
        run.add_seconds(time.perf_counter() - begin)
        last = run.step == steps if steps else run.seconds >= cast(float, seconds)
        yield TrainStep(run.step, loss, run.rate, run.seconds, last, run.averaged, run.state)


def _rate_at(done: float) -> float:
    """The learning rate as a share of its peak."""
    if done < _WARM_UP:
        return done / _WARM_UP
    return (1 + math.cos(math.pi * (done - _WARM_UP) / (1 - _WARM_UP))) / 2


class _Training:
    """The network, its average, the optimizer and the randomness, all as of one step."""

    def __init__(
        self,
        denoiser: NetDenoiser,
        items: Items,
        seed: int,
        settings: Settings,
        engine: Engine,
    ) -> None:
        check_shares(settings.batch, engine)
        denoiser.to(engine.device)
        self.denoiser, self.items, self.settings, self.engine = denoiser, items, settings, engine
        self.generator = torch.Generator().manual_seed(seed % 2**63)
        self._inner, self._seed = torch.Generator(), seed
        # `swa_utils.AveragedModel` sorts all parameters anew in each update: 5 % of a small step.
        self.averaged = copy.deepcopy(denoiser).eval()
        self._pairs = [
            [list(of(module)) for module in (self.averaged, denoiser)]
            for of in (nn.Module.parameters, nn.Module.buffers)
        ]
        self.optimizer = torch.optim.AdamW(
            denoiser.parameters(), settings.rate, weight_decay=settings.weight_decay, fused=True
        )
        self._losses, self._prepared = engine.prepare(
            _Losses(denoiser, settings.objective), self.optimizer
        )
        self.step, self.seconds, self.rate, self.first_loss = 0, 0.0, 0.0, 0.0
        denoiser.train()

    def add_seconds(self, seconds: float) -> None:
        """The same for all processes: the rate depends on them, and when to stop."""
        self.seconds += self.engine.mean(seconds)

    def advance(self, share: float) -> float:
        """One step, with this share of the peak rate."""
        engine, settings = self.engine, self.settings
        mine = slice(engine.rank, None, engine.size)
        x_0, drawn, eps, cond = self._draw(mine)
        self.rate = share * settings.rate
        self.optimizer.param_groups[0]["lr"] = self.rate
        self.optimizer.zero_grad()
        value = 0.0
        for i in range(engine.parts):
            part = slice(i, None, engine.parts)
            here, own = _rows(drawn, part), self._own(i)
            with engine.part(self._losses):
                losses = self._losses(
                    x_0[part], here, eps[part], None if cond is None else cond[part], own
                )
                loss = losses.mean()
                value += loss.item() / engine.parts
                if i == engine.parts - 1:
                    value = self._checked(engine.mean(value), losses, here)
                engine.backward(loss)
                self._prepared.step()
        self._average()
        self.step += 1
        return value

    def _draw(self, mine: slice) -> tuple[Tensor, Drawn, Tensor, Condition | None]:
        """Of the next batch what is mine; of all of it the same is drawn by every process."""
        settings, generator, device = self.settings, self.generator, self.engine.device
        x_0, cond = self.items.draw(settings.batch, generator, mine)
        drawn = settings.levels.draw(settings.batch, generator)
        shape = (settings.batch, *x_0.shape[1:])
        eps = torch.randn(shape, generator=generator, dtype=x_0.dtype)[mine]
        if cond is not None:
            dropped = torch.rand(settings.batch, generator=generator)[mine] < settings.drop
            cond = without(cond, dropped.to(cond.device)).to(device)
        return x_0.to(device), _rows(drawn, mine), eps.to(device), cond

    def _own(self, part: int) -> torch.Generator:
        """What an objective draws by: of another seed in each step, and in each share of it."""
        engine = self.engine
        shares = engine.size * engine.parts
        place = self.step * shares + part * engine.size + engine.rank
        return self._inner.manual_seed((self._seed + (1 + place) * _GOLDEN) % 2**63)

    def _checked(self, value: float, losses: Float[Tensor, " b"], drawn: Drawn) -> float:
        """The loss, unless it is no number; before the step, as a weight that is NaN stays so."""
        if self.step == 0:
            self.first_loss = value
        most = _EXPLODED * max(abs(self.first_loss), 1.0)
        if not (math.isfinite(value) and abs(value) <= most):
            raise Diverged(_diverged(value, losses, drawn.level, self.step + 1, self.settings))
        return value

    @torch.no_grad()
    def _average(self) -> None:
        """θ̄ ← θ̄ + (1 − (1 − 1/k)^(γ+1))·(θ − θ̄); the first θ is taken whole.

        Buffers, such as a running mean, are taken as they are.
        """
        (averages, weights), (copies, buffers) = self._pairs
        k = self.step + 1
        torch._foreach_lerp_(averages, weights, 1 - (1 - 1 / k) ** (_SPAN + 1))
        if buffers:
            torch._foreach_copy_(copies, buffers)

    def state(self) -> State:
        """Everything as of this step; the tensors are copies."""
        tensors: State = {
            "step": torch.tensor([self.step]),
            "seconds": torch.tensor([self.seconds, self.first_loss], dtype=torch.float64),
            "generator": self.generator.get_state(),
            **self.items.state(),
        }
        for prefix, module in (("weights", self.denoiser), ("average", self.averaged)):
            tensors |= {f"{prefix}.{k}": v for k, v in module.state_dict().items()}
        for name, parameter in self.denoiser.named_parameters():
            moments = self.optimizer.state.get(parameter, {})
            tensors |= {f"optimizer.{name}.{k}": v for k, v in moments.items()}
        return {key: value.detach().cpu().clone() for key, value in tensors.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Put everything back as it was.

        Raises:
            ValueError: a state of another network.
        """

        def part(prefix: str) -> dict[str, Tensor]:
            start = prefix + "."
            return {k.removeprefix(start): v for k, v in state.items() if k.startswith(start)}

        try:
            self.denoiser.load_state_dict(part("weights"))
            self.averaged.load_state_dict(part("average"))
            self.step = int(state["step"])
            self.seconds, self.first_loss = state["seconds"].tolist()
            self.generator.set_state(state["generator"])
            self.items.load(state)
        except (KeyError, RuntimeError, ValueError) as error:
            raise ValueError(f"this state is not of this training: {error}") from None
        for name, parameter in self.denoiser.named_parameters():
            moments = part(f"optimizer.{name}")
            if moments:
                self.optimizer.state[parameter] = {
                    k: v.clone().to(parameter.device) for k, v in moments.items()
                }


def _rows(drawn: Drawn, rows: slice) -> Drawn:
    """The levels of some of the items."""
    if rows == ALL:
        return drawn
    level, before, density, T = drawn

    def of(level: Level) -> Level:
        return Level(level.alpha[rows], level.sigma[rows])

    return Drawn(
        of(level),
        None if before is None else of(before),
        None if density is None else density[rows],
        T,
    )


def _diverged(
    value: float, losses: Float[Tensor, " B"], level: Level, step: int, settings: Settings
) -> str:
    worst = int(
        (~losses.isfinite()).float().argmax() if not math.isfinite(value) else losses.argmax()
    )
    log_snr = level.log_snr.expand(len(losses))[worst].item()
    return (
        f"the loss is {value:g} at step {step}, and {losses[worst].item():g} for an item at "
        f"log-SNR {log_snr:.3g}: training stops here; lower the rate (it rises to "
        f"{settings.rate:g}), take the objective that belongs to what is predicted (of eps simple, "
        "of x_0 x_0), or look for huge numbers in the data"
    )
