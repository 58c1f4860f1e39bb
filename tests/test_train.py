"""Training: which items come, what is asked of them, what the weights do, and how it goes on."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from alphabar import schedule as S
from alphabar import train as module
from alphabar.condition import Condition
from alphabar.denoise import ModelDenoiser, Moments, NetDenoiser, edm
from alphabar.forward import marginal
from alphabar.levels import Drawn, normal, of_schedule, uniform
from alphabar.nets import mlp
from alphabar.objectives import OBJECTIVES, Objective, simple
from alphabar.predict import from_x_0
from alphabar.schedule import Level
from alphabar.train import (
    Diverged,
    Items,
    Settings,
    Shuffled,
    State,
    Streamed,
    TrainStep,
    train,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def points(n: int = 100, d: int = 2) -> Tensor:
    return torch.randn(n, d, generator=generator()) * 0.4 + 1.5


def denoiser_of(x_0: Tensor, seed: int = 0, classes: int = 0, numbers: int = 0) -> NetDenoiser:
    net = mlp(width=8, depth=2, features=2).build(
        tuple(x_0.shape[1:]), seed, classes=classes, numbers=numbers
    )
    return NetDenoiser(net, Moments.of(x_0))


def weights(denoiser: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten().clone() for p in denoiser.parameters()])


# --- which items come


def test_a_block_is_used_to_its_end() -> None:
    asked = []

    def fresh(n: int, seed: int) -> Tensor:
        asked.append(seed)
        return torch.zeros(n, 2)

    items = Streamed(fresh, 5)
    for _ in range(8):
        items.draw(Streamed.BLOCK // 4, generator())
    assert asked == [5, 6]


@pytest.mark.parametrize(("N", "batch"), [(12, 4), (12, 12), (1, 1), (60, 5)])
def test_every_item_comes_before_any_comes_again(N: int, batch: int) -> None:
    items, source = Shuffled(torch.arange(N).float()[:, None]), generator(1)
    orders = []
    for _ in range(3):
        order = torch.cat([items.draw(batch, source).x_0 for _ in range(N // batch)])
        assert sorted(order.flatten().tolist()) == list(range(N))
        orders.append(order.flatten().tolist())
    assert N == 1 or orders[0] != orders[1] != orders[2]


@pytest.mark.parametrize(("N", "batch"), [(1, 8), (2, 8), (3, 8), (10, 1024)])
def test_of_few_items_none_comes_more_often_than_it_must(N: int, batch: int) -> None:
    """A batch of whole orders and a part of one: counts differ by one at most."""
    items, source = Shuffled(torch.arange(N).float()[:, None]), generator(1)
    for _ in range(5):
        drawn = items.draw(batch, source).x_0.flatten().long()
        counts = torch.bincount(drawn, minlength=N)
        assert counts.sum() == batch
        assert counts.max() - counts.min() <= 1


def test_what_is_left_over_favours_no_item() -> None:
    """7 of 10 items an order: each comes in 70% of them, within 5 standard errors."""
    items, source = Shuffled(torch.arange(10).float()[:, None]), generator(2)
    drawn = torch.cat([items.draw(7, source).x_0 for _ in range(2000)]).flatten().long()
    counts = torch.bincount(drawn, minlength=10)
    assert (counts - 1400).abs().max() < 5 * math.sqrt(2000 * 0.7 * 0.3)


def test_conditions_stay_with_their_items() -> None:
    x = torch.arange(30).float()[:, None]
    for cond in (torch.arange(30), torch.arange(30).float()[:, None] * 2):
        items, source = Shuffled(x, cond), generator()
        for _ in range(7):
            x_0, given = items.draw(8, source)
            assert given is not None
            wanted = x_0[:, 0].long() if given.ndim == 1 else 2 * x_0
            assert torch.equal(given, wanted)


def test_items_that_cannot_be_learned_from() -> None:
    with pytest.raises(ValueError, match="no items to learn from"):
        Shuffled(torch.zeros(0, 2))
    with pytest.raises(ValueError, match="3 conditions for 4 items"):
        Shuffled(torch.zeros(4, 2), torch.zeros(3, dtype=torch.int64))


def test_streamed_items_are_fresh_and_in_order() -> None:
    asked: list[tuple[int, int]] = []

    def fresh(n: int, seed: int) -> Tensor:
        asked.append((n, seed))
        return torch.arange(n, dtype=torch.float64)[:, None] + 1e6 * seed

    items = Streamed(fresh, 5)
    batch = Streamed.BLOCK // 4
    seen = torch.cat([items.draw(batch, generator()).x_0 for _ in range(9)]).flatten()
    assert seen.dtype == torch.float32
    assert len(seen.unique()) == len(seen)
    assert asked == [(Streamed.BLOCK, 5), (Streamed.BLOCK, 6), (Streamed.BLOCK, 7)]
    assert items.draw(3, generator()).cond is None
    large = Streamed(fresh, 2**32 - 3)  # the last seed that a data set takes
    assert len(large.draw(Streamed.BLOCK + 1, generator()).x_0) == Streamed.BLOCK + 1
    large.draw(9, generator())
    assert asked[-2:] == [(Streamed.BLOCK + 1, 2**32 - 3), (Streamed.BLOCK, 0)]


def shuffled() -> Items:
    return Shuffled(points(37))


def few() -> Items:
    return Shuffled(points(3))


def with_classes() -> Items:
    return Shuffled(points(37), torch.arange(37) % 3)


def streamed() -> Items:
    def fresh(n: int, seed: int) -> Tensor:
        return torch.randn(n, 2, generator=generator(seed), dtype=torch.float64)

    items = Streamed(fresh, 5)
    items.BLOCK = 50  # so that some steps go from one block to the next
    return items


SOURCES: list[Callable[[], Items]] = [shuffled, few, with_classes, streamed]


@pytest.mark.parametrize("source", SOURCES)
def test_items_go_on_where_they_were(source: Callable[[], Items]) -> None:
    for before in range(9):
        items, bits = source(), generator()
        for _ in range(before):
            items.draw(8, bits)
        state = {key: value.clone() for key, value in items.state().items()}
        rest, resumed = bits.get_state(), source()
        expected = [items.draw(8, bits) for _ in range(9)]
        resumed.load(state)
        assert {k: v.tolist() for k, v in resumed.state().items()} == {
            k: v.tolist() for k, v in state.items()
        }
        bits.set_state(rest)
        found = [resumed.draw(8, bits) for _ in range(9)]
        for a, b in zip(expected, found, strict=True):
            assert torch.equal(a.x_0, b.x_0)
            assert (a.cond is None) == (b.cond is None)
            assert a.cond is None or torch.equal(a.cond, b.cond)


# --- what is asked of them


@dataclass(frozen=True)
class Watched(Objective):
    """The squared error, and everything that came with each step."""

    seen: list[tuple[Tensor, Drawn, Tensor, Any]] = field(default_factory=list)

    def __call__(
        self, denoiser: Any, x_0: Tensor, drawn: Drawn, eps: Tensor, generator: torch.Generator
    ) -> Tensor:
        self.seen.append((x_0, drawn, eps, denoiser))
        return (denoiser(marginal(drawn.level, x_0).at(eps), drawn.level) - x_0).square().mean(1)


def test_noise_and_levels_are_independent_of_the_items() -> None:
    """6,400 draws; bounds of five standard errors."""
    watched, x_0 = Watched(), points(64)
    settings = Settings(watched, uniform(-5, 5), batch=64)
    for _ in train(denoiser_of(x_0), Shuffled(x_0), 1, 100, settings=settings):
        pass
    items, drawn, eps, _ = zip(*watched.seen, strict=True)
    n, noise, item = 100 * 64, torch.cat(eps), torch.cat(items)
    assert noise.mean(0).abs().max() < 5 / math.sqrt(n)
    assert (noise.square().mean(0) - 1).abs().max() < 5 * math.sqrt(2 / n)
    log_snr = torch.cat([d.level.log_snr for d in drawn])
    assert (log_snr.reshape(100, 64).sort(1).values.diff(dim=1) > 0).all()
    columns = torch.cat([noise, item, log_snr[:, None]], 1).double().T
    correlation = torch.corrcoef(columns) - torch.eye(5)
    correlation[2:4, 2:4] = 0  # of the 64 items among themselves
    assert correlation.abs().max() < 5 / math.sqrt(n)
    # Noise of one step has nothing to do with that of the next.
    assert (noise[64:] * noise[:-64]).mean(0).abs().max() < 5 / math.sqrt(n)


class Told(nn.Module):
    """A network that notes what condition it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(()))
        self.told: list[Condition | None] = []

    def forward(self, x: Tensor, label: Tensor, cond: Condition | None = None) -> Tensor:
        self.told.append(cond)
        return x * self.w


@pytest.mark.parametrize("drop", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("kind", ["class", "numbers"])
def test_a_condition_is_withheld_as_often_as_asked(kind: str, drop: float) -> None:
    watched, x_0 = Watched(), points(64)
    cond: Tensor = torch.arange(64)
    if kind == "numbers":
        cond = torch.stack([cond, -cond], 1).float()
    net = Told()
    settings = Settings(watched, batch=32, drop=drop)
    denoiser = NetDenoiser(net, Moments.of(x_0))
    for _ in train(denoiser, Shuffled(x_0, cond), 1, 60, settings=settings):
        pass
    told = torch.cat([c for c in net.told if c is not None])
    assert len(told) == 60 * 32
    missing = (told == -1) if kind == "class" else told.isnan().all(1)
    n = len(missing)
    assert abs(missing.float().mean().item() - drop) <= 5 * math.sqrt(drop * (1 - drop) / n)
    # What is told belongs to the item.
    items = torch.cat([step[0] for step in watched.seen])
    where = torch.cdist(items, x_0).argmin(1)
    assert torch.equal(told[~missing], cond[where][~missing])
    if 0 < drop < 1:  # each step and each place in the batch has its own
        assert len({tuple(row) for row in missing.view(60, 32).tolist()}) == 60
        assert missing.view(60, 32).float().mean(0).std() < 0.15


def test_without_conditions_a_network_is_told_of_none() -> None:
    net, x_0 = Told(), points(16)
    for _ in train(NetDenoiser(net, Moments.of(x_0)), Shuffled(x_0), 1, 3):
        pass
    assert net.told == [None] * 3


def test_objectives_find_the_denoiser_behind_its_condition() -> None:
    """`edm` asks for the spread of the data, `hybrid` for the variance: both with conditions."""
    x_0, cond = points(16), torch.arange(16) % 2
    net = mlp(width=8, depth=1).build((2,), 0, outputs=2, classes=2)
    denoiser = NetDenoiser(net, Moments.of(x_0), learns_variance=True)
    levels = of_schedule(S.linear(20))
    for objective in ("edm", "hybrid", "vlb"):
        settings = Settings(OBJECTIVES.parse(objective), levels, batch=8)
        *_, last = train(denoiser, Shuffled(x_0, cond), 1, 3, settings=settings)
        assert math.isfinite(last.loss)


# --- what the weights do


def test_the_average_counts_step_j_as_j_to_the_seventh() -> None:
    """θ̄_K = Σ_j θ_j·(j⁸ − (j−1)⁸)/K⁸: the product of all (1 − 1/i)⁸ telescopes."""
    x_0 = points()
    denoiser = denoiser_of(x_0)
    past: list[Tensor] = []
    settings = Settings(batch=16, rate=0.05)
    for step in train(denoiser, Shuffled(x_0), 0, 30, settings=settings):
        past.append(weights(denoiser).double())
        K = step.step
        share = [(j**8 - (j - 1) ** 8) / K**8 for j in range(1, K + 1)]
        assert sum(share) == pytest.approx(1, abs=1e-12)
        expected = sum(s * w for s, w in zip(share, past, strict=True))
        torch.testing.assert_close(
            weights(step.denoiser).double(), expected, rtol=1e-5, atol=1e-6
        )  # fmt: skip
    assert not torch.equal(weights(step.denoiser), weights(denoiser))
    assert not step.denoiser.training
    assert denoiser.training


def test_the_rate_rises_for_a_tenth_and_falls_along_a_cosine() -> None:
    x_0, peak = points(), 0.03
    settings = Settings(batch=8, rate=peak)
    rates = np.array(
        [s.rate for s in train(denoiser_of(x_0), Shuffled(x_0), 0, 200, settings=settings)]
    )
    # At the middle of each step: straight from 0, so that its tenth-th is peak·(i − ½)/20.
    np.testing.assert_allclose(rates[:20], peak * (np.arange(20) + 0.5) / 20, rtol=1e-12)
    # cos: from peak to 0 in 180 steps, by its sum rule and its symmetry about the middle.
    fall = rates[20:]
    np.testing.assert_allclose(fall + fall[::-1], peak, rtol=1e-9)
    assert (np.diff(fall) < 0).all()
    np.testing.assert_allclose(fall[0], peak * np.cos(np.pi * 0.5 / 180 / 2) ** 2, rtol=1e-9)
    np.testing.assert_allclose(fall[60], peak * np.cos(np.pi * 60.5 / 180 / 2) ** 2, rtol=1e-9)


@pytest.mark.parametrize("decay", [0.0, 0.7])
def test_steps_are_adamw_in_numpy(decay: float) -> None:
    """Loshchilov & Hutter 2019, algorithm 2, from the gradients that each step leaves."""
    x_0 = points()
    denoiser = denoiser_of(x_0).double()
    settings = Settings(batch=16, rate=0.02, weight_decay=decay)
    w = weights(denoiser).numpy()
    m, v = np.zeros_like(w), np.zeros_like(w)
    for step in train(denoiser, Shuffled(x_0.double()), 0, 12, settings=settings):
        g = torch.cat([p.grad.flatten() for p in denoiser.parameters() if p.grad is not None])
        g = g.numpy()
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        k, w_before = step.step, w
        w = w - step.rate * (m / (1 - 0.9**k) / (np.sqrt(v / (1 - 0.999**k)) + 1e-8))
        w = w - step.rate * decay * w_before
        np.testing.assert_allclose(weights(denoiser).numpy(), w, rtol=1e-6, atol=1e-9)


def test_the_gradient_is_of_the_mean_loss() -> None:
    """And of this step alone: what an earlier one left does not add up."""
    x_0, watched = points(), Watched()
    denoiser = denoiser_of(x_0)
    settings = Settings(watched, batch=16)
    steps = train(denoiser, Shuffled(x_0), 0, 3, settings=settings)
    for _ in range(3):
        before = {k: v.clone() for k, v in denoiser.state_dict().items()}
        step = next(steps)
        again = denoiser_of(x_0)
        again.load_state_dict(before)
        items, drawn, eps, _ = watched.seen[-1]
        losses = Watched()(again, items, drawn, eps, generator())
        losses.mean().backward()
        assert step.loss == pytest.approx(losses.mean().item(), rel=1e-6)
        for p, q in zip(denoiser.parameters(), again.parameters(), strict=True):
            torch.testing.assert_close(p.grad, q.grad)


# --- steps and seconds


def test_steps_are_counted_and_the_last_is_marked() -> None:
    x_0 = points()
    seen = list(train(denoiser_of(x_0), Shuffled(x_0), 0, 7, settings=Settings(batch=4)))
    assert [s.step for s in seen] == [1, 2, 3, 4, 5, 6, 7]
    assert [s.last for s in seen] == [False] * 6 + [True]


def test_seconds_are_those_of_training_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that moves by ½ s when it is read; the caller takes 100 s between two steps."""
    now = 0.0

    def read() -> float:
        nonlocal now
        now += 0.5
        return now

    monkeypatch.setattr(module.time, "perf_counter", read)
    x_0, peak = points(), 0.03
    settings = Settings(batch=4, rate=peak)
    seen: list[TrainStep] = []
    for step in train(denoiser_of(x_0), Shuffled(x_0), 0, seconds=10, settings=settings):
        seen.append(step)
        now += 100
    assert [s.seconds for s in seen] == [0.5 * k for k in range(1, 21)]
    assert [s.last for s in seen] == [False] * 19 + [True]
    rates = np.array([s.rate for s in seen])
    np.testing.assert_allclose(rates[:3], [0, peak / 2, peak], atol=1e-12)
    assert (np.diff(rates[2:]) < 0).all()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "steps = None and seconds = None: give one of the two"),
        ({"steps": 3, "seconds": 1.0}, "steps = 3 and seconds = 1.0"),
        ({"steps": 0}, "steps = 0: it must be a whole number from 1"),
        ({"steps": -1}, "steps = -1"),
        ({"seconds": 0.0}, "seconds = 0: it must be a time > 0"),
        ({"seconds": math.inf}, "seconds = inf"),
        ({"steps": 3, "seed": -1}, "seed = -1"),
    ],
)
def test_bounds_are_checked(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        next(train(denoiser_of(points()), Shuffled(points()), **({"seed": 0} | given)))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"batch": 0}, "batch = 0: it must be a whole number from 1"),
        ({"rate": 0.0}, "rate = 0: it must be a rate above 0"),
        ({"rate": math.nan}, "rate = nan"),
        ({"weight_decay": -0.1}, "weight_decay = -0.1"),
        ({"drop": 1.1}, "drop = 1.1: it must be a share from 0 to 1"),
    ],
)
def test_settings_are_checked(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Settings(**given)


# --- the same again, and on from there


def denoiser_for(items: Items, seed: int = 3) -> NetDenoiser:
    classes = 3 if isinstance(items, Shuffled) and items.cond is not None else 0
    return denoiser_of(points(), seed, classes)


def run(
    items: Items, steps: int = 14, seed: int = 3, state: State | None = None, upto: int = 10**9
) -> tuple[list[tuple[int, float, float]], list[State]]:
    """(step, loss, rate) of each step, and the state after it, without the clock."""
    denoiser, lines, states = denoiser_for(items), [], []
    settings = Settings(batch=8, rate=0.02, drop=0.4)
    for step in train(denoiser, items, seed, steps, settings=settings, state=state):
        lines.append((step.step, step.loss, step.rate))
        states.append(step.state())
        if step.step == upto:
            break
    return lines, states


def same(a: State, b: State) -> bool:
    clock = {"seconds"}
    return a.keys() == b.keys() and all(
        torch.equal(a[key], b[key]) and a[key].dtype == b[key].dtype for key in a.keys() - clock
    )


@pytest.mark.parametrize("source", SOURCES)
def test_a_seed_determines_every_bit(source: Callable[[], Items]) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    lines, states = run(source())
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again, same_states = run(source())
    assert lines == again
    assert all(same(a, b) for a, b in zip(states, same_states, strict=True))
    assert run(source(), seed=4)[0] != lines


@pytest.mark.parametrize("source", SOURCES)
def test_going_on_from_any_step_changes_no_bit(source: Callable[[], Items]) -> None:
    """The state goes through a file each time; a run is stopped twice on its way."""
    lines, states = run(source())
    for k in (1, 4, 5, 9, 13):
        state = load(save(states[k - 1]))
        rest, resumed = run(source(), state=state, upto=min(k + 3, 14))
        assert rest == lines[k : k + 3]
        again, last = run(source(), state=load(save(resumed[-1])))
        assert again == lines[k + 3 :]
        assert same((last or resumed)[-1], states[-1])


def test_a_finished_training_goes_no_further() -> None:
    _, states = run(shuffled())
    assert run(shuffled(), state=states[-1]) == ([], [])


def test_a_state_stays_what_it_was() -> None:
    """Copies: the training that goes on does not change them."""
    items = shuffled()
    steps = train(denoiser_for(items), items, 3, 9, settings=Settings(batch=8))
    next(steps)
    state = next(steps).state()
    kept = {key: value.clone() for key, value in state.items()}
    for _ in steps:
        pass
    assert all(torch.equal(value, kept[key]) for key, value in state.items())
    *_, last = train(denoiser_for(items), shuffled(), 3, 9, settings=Settings(batch=8), state=state)
    assert last.step == 9
    assert all(torch.equal(value, kept[key]) for key, value in state.items())


def test_time_goes_on_too(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def read() -> float:
        nonlocal now
        now += 0.5
        return now

    monkeypatch.setattr(module.time, "perf_counter", read)
    x_0 = points()

    def go(state: State | None = None) -> list[TrainStep]:
        items = Shuffled(x_0)
        settings = Settings(batch=4)
        return list(train(denoiser_of(x_0), items, 0, seconds=6, settings=settings, state=state))

    states = []
    for step in train(denoiser_of(x_0), Shuffled(x_0), 0, seconds=6, settings=Settings(batch=4)):
        states.append(step.state())
    whole = go()
    rest = go(states[4])
    assert [(s.step, s.loss, s.rate, s.seconds) for s in rest] == [
        (s.step, s.loss, s.rate, s.seconds) for s in whole[5:]
    ]


def test_a_state_of_another_training_is_refused() -> None:
    items = shuffled()
    step = next(iter(train(denoiser_for(items), items, 3, 9, settings=Settings(batch=8))))
    state = step.state()
    wider = NetDenoiser(mlp(width=9).build((2,), 0), Moments.of(points()))
    with pytest.raises(ValueError, match="this state is not of this training"):
        next(train(wider, shuffled(), 3, 9, state=state))
    del state["generator"]
    with pytest.raises(ValueError, match="this state is not of this training"):
        next(train(denoiser_for(items), shuffled(), 3, 9, state=state))


# --- a loss that is no number any more


class Breaks(nn.Module):
    """Answers 0, but `answer` for items whose λ is near one number, from one step on."""

    def __init__(self, near: float, answer: float, step: int) -> None:
        super().__init__()
        self.near, self.answer, self.step, self.calls = near, answer, step, 0
        self.w = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        self.calls += 1
        wrong = ((4 * label - self.near).abs() < 0.5) & (self.calls >= self.step)
        return (torch.where(wrong, self.answer, 0.0) * self.w)[:, None].expand_as(x)


@pytest.mark.parametrize(
    ("answer", "loss", "step"),
    [
        (math.nan, "nan", 1),
        (math.nan, "nan", 6),
        (math.inf, "inf", 1),
        (math.inf, "inf", 6),
        (1e7, r"[\d.]+e\+\d\d", 6),  # with what it began, a loss has nothing to explode from
    ],
)
def test_divergence_names_its_step_and_level(answer: float, loss: str, step: int) -> None:
    """Levels are 20 of a table; only that with λ = 2 goes wrong."""
    x_0, log_snr = points(), torch.linspace(6, -13, 20).tolist()
    denoiser = NetDenoiser(Breaks(2.0, answer, step), Moments.of(x_0))
    settings = Settings(levels=of_schedule(S.from_log_snr(log_snr)), batch=40)
    seen = []
    says = (
        rf"^the loss is {loss} at step {step}, and {loss} for an item at log-SNR 2: training stops "
        r"here; lower the rate \(it rises to 0.006\), take the objective that belongs to what is "
        r"predicted \(of eps simple, of x_0 x_0\), or look for huge numbers in the data$"
    )
    steps = train(denoiser, Shuffled(x_0), 0, 50, settings=settings)
    with pytest.raises(Diverged, match=says):
        seen.extend(steps)  # keeps what came before the error
    assert denoiser.net.w.isfinite().all()  # the step was not taken


def test_a_loss_of_minus_infinity_diverges_too() -> None:
    x_0 = points()

    @dataclass(frozen=True)
    class Sinks(Objective):
        def __call__(self, denoiser: Any, x_0: Tensor, drawn: Drawn, *_: Any) -> Tensor:
            return denoiser(x_0, drawn.level).mean(1) - math.inf

    with pytest.raises(Diverged, match="the loss is -inf at step 1"):
        next(train(denoiser_of(x_0), Shuffled(x_0), 0, 5, settings=Settings(Sinks())))


def test_a_large_first_loss_is_no_divergence() -> None:
    """The variance of data of a spread of 4,000: nothing is smaller where all is noise."""
    x_0 = points() * 1e4
    settings = Settings(Watched(), uniform(-40, -30), batch=16)
    losses = [s.loss for s in train(denoiser_of(x_0), Shuffled(x_0), 0, 5, settings=settings)]
    assert min(losses) > 1e6


# --- what is learned


def close_to(found: Tensor, exact: Tensor) -> float:
    return (found - exact).square().mean().sqrt().item()


def test_training_finds_the_exact_denoiser_with_and_without_a_class() -> None:
    """Two points, −1 of class 0 and 1 of class 1: E[x_0 | x_t] = tanh(α·x_t/σ²), or the point.

    Errors were 0.006 to 0.08 at the levels, for five seeds.
    """
    x_0, labels = torch.tensor([[-1.0], [1.0]]), torch.tensor([0, 1])
    net = mlp(width=32, depth=2, features=4).build((1,), 0, classes=2)
    denoiser = NetDenoiser(net, Moments.of(x_0))
    settings = Settings(levels=normal(0.0, 3.0), batch=128, rate=2e-2, drop=0.3)
    *_, last = train(denoiser, Shuffled(x_0, labels), 0, 400, settings=settings)
    s = S.log_snr(5, 4, -6)
    for t in range(1, 6):
        level = s[t]
        x_t = marginal(level, x_0.repeat(200, 1)).sample(generator(t))
        exact = torch.tanh(x_t * (level.alpha / level.sigma**2).float())
        with torch.no_grad():
            assert close_to(last.denoiser(x_t, level), exact) < 0.1
            for label in (0, 1):
                own = x_t[label::2]
                assert close_to(last.denoiser.given(label)(own, level), x_0[label]) < 0.1
            mixed = last.denoiser(x_t, level, labels.repeat(200))
            assert close_to(mixed, x_0.repeat(200, 1)) < 0.1
            none = last.denoiser(x_t, level, torch.full((400,), -1))
        torch.testing.assert_close(none, last.denoiser(x_t, level).detach())


# --- the denoiser that is trained


class Wavy(nn.Module):
    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        return torch.sin(3 * x) + label[:, None]


@pytest.mark.parametrize("predicts", ["x_0", "eps", "v", "score", "flow", "edm"])
def test_a_prediction_means_the_same_as_from_a_model(predicts: Any) -> None:
    """Of centred data, in the variance-preserving scale, whatever scale it is used in."""
    data = 0.3 * torch.randn(50, 2, generator=generator(), dtype=torch.float64) + 1
    moments = Moments.of(data)
    denoiser = NetDenoiser(Wavy(), moments, predicts).double()
    std, mean = moments.std.item(), moments.mean.float().double()
    x = torch.randn(4, 2, generator=generator(1), dtype=torch.float64)
    for s in (S.linear(10), S.linear(10).to_ve(), S.linear(10).to_flow()):
        for t in (1, 5, 10):
            level = s[t]
            size = torch.hypot(*level)
            vp = Level(level.alpha / size, level.sigma / size)
            y = (x - level.alpha * mean) / size
            inner = 1 / torch.sqrt(vp.sigma**2 + (vp.alpha * std) ** 2)
            answer = Wavy()(inner * y, (vp.log_snr / 4).expand(4))
            found = denoiser(x, level) - mean
            if predicts == "edm":
                model = ModelDenoiser(Wavy(), edm(std), "vp", lambda level: level.log_snr / 4)
                torch.testing.assert_close(found, model(y, vp))
            else:  # x̂_0 is right if it implies the answer that was given
                implied = from_x_0(predicts, found, y, vp)
                torch.testing.assert_close(implied, answer, rtol=1e-9, atol=1e-9)


def test_the_spread_comes_with_the_weights() -> None:
    one, other = (NetDenoiser(Wavy(), Moments.of(points() * k + k)) for k in (1, 3))
    x, level = points(4), S.linear(10)[5]
    assert not torch.equal(one(x, level), other(x, level))
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(x, level), other(x, level))


def test_moments_are_in_float64() -> None:
    x = points(50) + 1000
    mean, std = Moments.of(x)
    centred = x.double().numpy() - x.double().numpy().mean(0)
    np.testing.assert_allclose(mean, x.double().numpy().mean(0), rtol=1e-14)
    np.testing.assert_allclose(std, np.sqrt((centred**2).mean()), rtol=1e-12)
    for same_items in (torch.ones(5, 2), torch.ones(1, 2)):
        with pytest.raises(ValueError, match="the data do not vary"):
            Moments.of(same_items)


def test_a_denoiser_without_a_variance_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    denoiser = NetDenoiser(Wavy(), Moments.of(points()))
    with pytest.raises(TypeError, match="this denoiser learns no variance"):
        denoiser.with_variance(points(3), S.linear(10)[5])
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match="predicts = 'noise': choose edm, x_0"):
        NetDenoiser(Wavy(), Moments.of(points()), "noise")  # type: ignore[arg-type]


def test_a_simple_objective_trains_a_network_that_predicts_the_noise() -> None:
    """Ho et al. 2020: the loss is the error of ε̂, which begins at E‖ε‖² = 1 and falls."""
    x_0 = points(200)
    net = mlp(width=16, depth=2, features=4).build((2,), 0)
    denoiser = NetDenoiser(net, Moments.of(x_0), "eps")
    settings = Settings(simple(), of_schedule(S.linear(100)), batch=128, rate=5e-3)
    losses = [s.loss for s in train(denoiser, Shuffled(x_0), 0, 150, settings=settings)]
    assert losses[0] == pytest.approx(1, abs=0.4)
    assert np.mean(losses[-20:]) < 0.7
    assert all(a > 0 for a, _ in pairwise(losses))


def test_the_first_loss_is_remembered() -> None:
    """It says what an explosion is: here the first loss is high itself."""
    x_0 = points() * 1e4
    settings = Settings(Watched(), uniform(-40, -30), batch=16)
    first = next(iter(train(denoiser_of(x_0), Shuffled(x_0), 0, 5, settings=settings)))
    assert first.loss > 1e6
    rest = train(denoiser_of(x_0), Shuffled(x_0), 0, 5, settings=settings, state=first.state())
    assert len(list(rest)) == 4


@dataclass(frozen=True)
class Falls(Objective):
    """−10³, −10⁶, −10⁹, …"""

    seen: list[int] = field(default_factory=list)

    def __call__(self, denoiser: Any, x_0: Tensor, drawn: Drawn, *_: Any) -> Tensor:
        self.seen.append(0)
        return denoiser(x_0, drawn.level).mean(1) * 0 - 10.0 ** (3 * len(self.seen))


def test_a_loss_that_falls_without_end_diverges_too() -> None:
    x_0 = points()
    with pytest.raises(Diverged, match=r"the loss is -1e\+09 at step 3"):
        list(train(denoiser_of(x_0), Shuffled(x_0), 0, 5, settings=Settings(Falls())))


def test_the_average_has_the_buffers_of_the_network() -> None:
    class Normalised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.line = nn.BatchNorm1d(2), nn.Linear(2, 2)

        def forward(self, x: Tensor, label: Tensor) -> Tensor:
            return self.line(self.norm(x))

    x_0 = points()
    denoiser = NetDenoiser(Normalised(), Moments.of(x_0))
    *_, last = train(denoiser, Shuffled(x_0), 0, 20, settings=Settings(batch=32))
    own, averaged = denoiser.net.norm, last.denoiser.net.norm
    assert own.num_batches_tracked == averaged.num_batches_tracked == 20
    assert torch.equal(own.running_var, averaged.running_var)
    assert not torch.equal(own.running_var, torch.ones(2))
    assert not torch.equal(own.weight, averaged.weight)


def test_a_state_of_other_items_is_refused() -> None:
    x_0 = points()
    (first,) = train(denoiser_of(x_0), Shuffled(x_0), 0, 1, settings=Settings(batch=16))
    streamed = Streamed(lambda n, seed: torch.zeros(n, 2), 0)
    with pytest.raises(ValueError, match="not of this training"):
        next(iter(train(denoiser_of(x_0), streamed, 0, 2, state=first.state())))
