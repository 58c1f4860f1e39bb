"""The specimens themselves: the correct ones are correct, each edit makes the difference it says.

No checker takes part. Right code is held against closed forms in numpy, Bayes' rule by brute force
and the package's own samplers with an exact denoiser.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from alphabar import schedule as S
from alphabar.forward import marginal, posterior, transition
from alphabar.samplers import SAMPLERS, sample
from alphabar.schedule import Level, Schedule, align
from specimens import (
    BUGS,
    NOT_BUGS,
    RIGHT,
    SPECIMENS,
    Specimen,
    facts,
    load,
    reach,
    right_of,
    source,
)
from specimens.catalogue import STYLES, SUBJECTS
from specimens.probes import (
    LEVELS,
    SIGMAS,
    TIMES,
    X,
    Y,
    averaged,
    doubled_net,
    key_of,
    labelled_net,
    net,
    numbers_of,
    score,
)

BETAS = np.linspace(1e-4, 0.02, 1000)
BARS = np.cumprod(1 - BETAS)
LINEAR = S.linear()
FLOAT32 = 2e-3  # of tables in float32, 1 − ᾱ of which has lost digits near the data


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def name(specimen: Specimen) -> str:
    return f"{specimen.id}-{key_of(specimen)}"


@cache
def loaded(specimen_at: int) -> ModuleType:
    return load(SPECIMENS[specimen_at])


@cache
def did(specimen_at: int) -> list[Tensor]:
    """The numbers of a specimen, by its place in the list: a specimen holds a dict."""
    return numbers_of(key_of(SPECIMENS[specimen_at]), loaded(specimen_at))


def place(specimen: Specimen) -> int:
    return next(i for i, other in enumerate(SPECIMENS) if other is specimen)


def right(key: str) -> Any:
    """The correct subject of this name."""
    return reach(loaded(next(i for i, s in enumerate(RIGHT) if key_of(s) == key)))


def bugged(id: str, key: str, nth: int = 0) -> Any:
    """A subject with a bug."""
    found = [s for s in (*BUGS, *NOT_BUGS) if s.id == id and key_of(s) == key]
    return reach(loaded(place(found[nth])))


def effect(found: list[Tensor], wanted: list[Tensor]) -> float:
    """The largest difference, of all numbers, in units of the largest one of its own table."""
    if [x.shape for x in found] != [x.shape for x in wanted]:
        return math.inf
    worst = 0.0
    for x, y in zip(found, wanted, strict=True):
        if not x.isfinite().all() and y.isfinite().all():
            return math.inf
        size = y.abs().max().clamp(min=1e-12)
        worst = max(worst, float((x - y).abs().max() / size))
    return worst


def close(found: Any, wanted: Any, tol: float = FLOAT32) -> None:
    found = torch.as_tensor(found).double()
    if not isinstance(wanted, Tensor):
        wanted = torch.as_tensor(np.asarray(wanted, dtype=np.float64))  # a list would be float32
    wanted = wanted.double().expand(found.shape)
    torch.testing.assert_close(found, wanted, rtol=tol, atol=tol * float(wanted.abs().max()))


def wide(values: Any, x: Tensor = X) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64).reshape(-1, *[1] * (x.ndim - 1))


def drawn(x: Tensor, seed: int = 0) -> Tensor:
    """What randn_like gives a subject that draws first."""
    torch.manual_seed(seed)
    return torch.randn_like(x)


def seeded(call: Callable[[], Any], seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return call()


def ideal(x: Tensor, level: Level) -> Tensor:
    """E[x_0 | x_t] for numbers of ±1 + N(0, ¼), each by itself."""
    alpha, sigma = (align(c, x) for c in level)
    total = alpha**2 / 4 + sigma**2
    return (alpha / 4 / total * x + sigma**2 / total * torch.tanh(alpha * x / total)).to(x.dtype)


def eps_of(x: Tensor, t: Any) -> Tensor:
    level = LINEAR[int(torch.as_tensor(t).reshape(-1)[0]) + 1]
    return (x - float(level.alpha) * ideal(x, level)) / float(level.sigma)


def ends_at(spec: str, path: Schedule, start: Tensor) -> Tensor:
    """Where a sampler of the package leads x_T."""
    shape = tuple(start.shape[1:])
    *_, last = sample(ideal, SAMPLERS.parse(spec), path, len(start), shape, seed=0, start=start)
    return last.x


# --- the catalogue


def test_every_id_in_two_forms() -> None:
    forms: dict[str, set[tuple[str, str]]] = {}
    for specimen in (*BUGS, *NOT_BUGS):
        forms.setdefault(specimen.id, set()).add((specimen.style, specimen.subject))
        assert specimen.note
    bugs = [f"A{i}" for i in range(1, 36)]
    assert sorted(forms) == sorted([*bugs, *(f"N{i}" for i in range(1, 9))])
    assert all(len(forms[id]) >= 2 for id in bugs)
    assert {s.style for s in RIGHT} == {"plain", "class", "scheduler"}
    assert {s.role for s in SPECIMENS} == {
        "marginal", "transition", "schedule", "posterior", "loss", "step", "sampler", "weighting",
        "guidance", "ema", "embedding", "langevin", "time_sampling", "likelihood", "scheduler",
    }  # fmt: skip
    assert max(Counter((s.id, s.module, s.edits, s.subject) for s in SPECIMENS).values()) <= 4


@pytest.mark.parametrize("specimen", [*BUGS, *NOT_BUGS], ids=name)
def test_edits_stand_once(specimen: Specimen) -> None:
    assert specimen.edits
    assert source(specimen) != source(right_of(specimen))


def test_an_edit_that_fits_nowhere() -> None:
    with pytest.raises(ValueError, match=r"plain\.py has 0 of 'no such text'"):
        source(RIGHT[0]._replace(edits=(("no such text", ""),)))


@pytest.mark.parametrize("specimen", BUGS, ids=name)
def test_a_bug_makes_a_difference(specimen: Specimen) -> None:
    wanted = did(next(i for i, s in enumerate(RIGHT) if key_of(s) == key_of(specimen)))
    assert all(x.isfinite().all() for x in wanted)
    assert effect(did(place(specimen)), wanted) > 2e-5


@pytest.mark.parametrize("at", range(len(SPECIMENS)), ids=[name(s) for s in SPECIMENS])
def test_other_names_same_numbers(at: int) -> None:
    module = load(SPECIMENS[at], seed=at)
    found = numbers_of(key_of(SPECIMENS[at]), module)
    for name_, value in facts(module).items():
        old = facts(loaded(at))[name_]
        if isinstance(value, Tensor):
            assert torch.equal(value, old)
        else:
            assert callable(value) or value == old
    assert all(
        torch.equal(a.nan_to_num(7), b.nan_to_num(7)) for a, b in zip(found, did(at), strict=True)
    )


def test_names_are_shuffled() -> None:
    first, again, other = (load(RIGHT[0], seed) for seed in (1, 1, 2))
    assert set(vars(first)) == set(vars(again)) != set(vars(other))
    assert "q_sample" not in vars(first)
    for style in STYLES:
        specimen = next(s for s in RIGHT if s.module == style)
        held = vars(load(specimen, 5))
        mine = {n for n in held if not n.startswith("__")}
        assert mine & set(vars(load(specimen))) <= {
            "torch", "math", "copy", "np", "nn", "NamedTuple", "pairwise"
        }  # fmt: skip
        assert not any("_at" in vars(v) for v in held.values() if isinstance(v, type))
        own = [v for v in held.values() if getattr(v, "__globals__", None) is held]
        assert own
        assert not any(v.__doc__ for v in own)


# --- right: tables


def test_tables() -> None:
    close(loaded(0).betas, BETAS, 1e-6)
    close(right("betas"), np.linspace(1e-3, 0.2, 100), 1e-6)
    close(right("G.betas"), np.linspace(1e-3, 0.2, 100), 1e-6)
    close(right("S.betas"), np.linspace(1e-3, 0.2, 100), 1e-12)
    cosine = S.cosine()
    close(right("betas_cosine"), cosine.beta[1:], 1e-9)
    close(right("bars_cosine"), cosine.alpha_bar[1:], 1e-9)
    close(right("G.betas_cosine"), cosine.beta[1:], 1e-6)
    close(right("G.bars_cosine"), cosine.alpha_bar[1:], 1e-6)
    close(right("S.bars_cosine"), cosine.alpha_bar[1:], 1e-9)
    stable = S.scaled_linear().zero_terminal_snr()
    close(np.cumprod(1 - right("betas_zero").numpy()), stable.alpha_bar[1:], 1e-9)
    close(np.cumprod(1 - right("S.betas_zero").numpy()), stable.alpha_bar[1:], 1e-9)
    zero = LINEAR.zero_terminal_snr()
    close(np.cumprod(1 - right("G.betas_zero").double().numpy()), zero.alpha_bar[1:], 1e-5)
    close(right("karras_sigmas"), [*S.karras(40).sigma[1:].flip(0).tolist(), 0.0], 1e-9)
    step = posterior(cosine[499], cosine[500], X, X).var
    close(right("variance_cosine")[499], step, 1e-9)
    assert right("ddim_times")[0] == 999
    assert right("ddim_times")[-1] == 0
    assert right("ddim_times_many") == sorted(set(right("ddim_times_many")), reverse=True)
    for n in (1, 7, 1000):
        times = right("S.timesteps")(n)
        assert times[0] == (999 if n > 1 else 0)
        assert (times.diff() < 0).all()


def test_what_is_wrong_with_wrong_tables() -> None:
    def last_bar(betas: Tensor) -> float:
        return float((1 - betas.double()).prod())

    for key in ("betas", "G.betas", "S.betas"):
        assert last_bar(right(key)) < 1e-4
        assert last_bar(bugged("A13", key)) == pytest.approx(0.364, abs=2e-3)
    assert last_bar(right("betas_sigmoid")) < 0.01
    assert last_bar(bugged("A13", "betas_sigmoid")) == pytest.approx(0.606, abs=2e-3)
    assert last_bar(bugged("A12", "S.betas_zero")) > 4e-3
    assert last_bar(bugged("A12", "betas_zero")) > 4e-3
    assert bugged("A12", "ddim_times")[0] == 980
    scheduler = bugged("A12", "DDIM")
    scheduler.set_timesteps(50)
    assert scheduler.timesteps[[0, -1]].tolist() == [981, 1]
    for key in ("bars_cosine", "G.bars_cosine", "S.bars_cosine"):
        assert bugged("A10", key)[0] == 1
    assert bugged("A10", "variance_cosine")[0].isnan()
    assert bugged("A10", "G.posterior_cosine")(X, Y, TIMES)[1].isnan().any()
    assert len(set(bugged("A35", "ddim_times_many"))) < 400
    assert len(set(bugged("A35", "S.timesteps")(500).tolist())) < 400


# --- right: forward


@pytest.mark.parametrize("key", ["q_sample", "G.q_sample", "S.add_noise"])
def test_marginals(key: str) -> None:
    wanted = marginal(LINEAR[TIMES + 1], X).at(Y)
    f = right(key)
    close(f(X, Y, TIMES) if key.startswith("S.") else f(X, TIMES, Y), wanted)
    image = torch.randn(6, 3, 4, 5)
    found = f(image, image, TIMES) if key.startswith("S.") else f(image, TIMES, image)
    close(found, marginal(LINEAR[TIMES + 1], image).at(image))
    assert found.dtype == torch.float32


def test_means_and_spreads() -> None:
    q = marginal(LINEAR[TIMES + 1], X)
    mean, std = right("q_mean_std")(X, TIMES)
    close(mean, q.mean)
    close(std, wide(q.var.sqrt()))
    mean, variance = right("G.q_mean_variance")(X, TIMES)
    close(mean, q.mean)
    close(variance, wide(q.var))
    close(
        right("S.velocity")(X, Y, TIMES),
        wide(BARS[TIMES] ** 0.5) * Y - wide((1 - BARS[TIMES]) ** 0.5) * X,
        1e-9,
    )
    close(right("ve_sample")(X, SIGMAS, Y), X + wide(SIGMAS) * Y, 1e-12)
    close(right("VE.perturb")(X, SIGMAS / 50, Y), X + wide(0.01 * 5000 ** (SIGMAS / 50)) * Y, 1e-9)
    ve = right("S.ve_add_noise")(X, Y, TIMES)
    close(ve, X + wide(((1 - BARS[TIMES]) / BARS[TIMES]) ** 0.5) * Y, 1e-9)
    t = SIGMAS / 50
    bar = torch.exp(-(0.1 * t + 9.95 * t**2))
    close(right("VP.perturb")(X, t, Y), wide(bar.sqrt()) * X + wide((1 - bar).sqrt()) * Y, 1e-9)
    share = TIMES / 1000
    close(right("flow_mix")(X, Y, share), (1 - wide(share)) * X + wide(share) * Y, 1e-9)
    close(right("Flow.mix")(X, Y, share), wide(share) * X + (1 - wide(share)) * Y, 1e-9)


@pytest.mark.parametrize("key", ["forward_step", "G.q_step"])
def test_one_step(key: str) -> None:
    t = TIMES[1:]
    x = X[1:]
    found = seeded(lambda: right(key)(x, t))
    close(found, transition(LINEAR[t], LINEAR[t + 1], x).at(drawn(x)), 1e-5)


def test_a_chain() -> None:
    noise = torch.randn(20, 6, 4)
    seq = right("forward_process")(X, 20, noise)
    x = X
    for n in range(20):
        x = np.sqrt(1 - BETAS[n]) * x + np.sqrt(BETAS[n]) * noise[n]
    assert len(seq) == 21
    close(seq[-1], x, 1e-5)
    drawing = seeded(lambda: right("forward_process")(torch.zeros(50_000, 1), 3))
    z = seeded(lambda: [torch.randn(50_000, 1) for _ in range(3)])
    x = torch.zeros(50_000, 1)
    for n in range(3):
        x = np.sqrt(1 - BETAS[n]) * x + np.sqrt(BETAS[n]) * z[n]
    close(drawing[-1], x, 1e-5)


def test_uniform_noise_has_a_mean() -> None:
    x, t = torch.zeros(40_000, 1), torch.full((40_000,), 500)
    for key in ("forward_step", "G.q_step"):
        shift = seeded(lambda key=key: bugged("A1", key)(x, t)) / BETAS[500] ** 0.5
        assert shift.mean() == pytest.approx(0.5, abs=0.01)
        assert shift.var() == pytest.approx(1 / 12, abs=0.01)
        small = seeded(lambda key=key: bugged("A2", key)(x, t)).std()
        assert small == pytest.approx(BETAS[500], rel=0.02)


def test_spread_that_is_nothing_at_zero() -> None:
    nothing = torch.zeros_like(X)
    assert (bugged("A6", "q_sample")(nothing, TIMES, Y) == 0).all()
    assert (bugged("A6", "G.q_sample")(nothing, TIMES, Y) == 0).all()
    assert (bugged("A6", "S.add_noise")(nothing, Y, TIMES) == 0).all()
    assert (bugged("A6", "q_mean_std")(nothing, TIMES)[1] == 0).all()
    assert (bugged("A6", "VP.marginal")(nothing, SIGMAS / 50)[1] == 0).all()


def test_noise_that_is_not_used() -> None:
    for key in ("q_sample", "G.q_sample"):
        f = bugged("A3", key)
        assert torch.equal(
            seeded(lambda f=f: f(X, TIMES, Y)), seeded(lambda f=f: f(X, TIMES, 2 * Y))
        )


def test_low_precision() -> None:
    x, z = X.bfloat16(), Y.bfloat16()
    wanted = marginal(LINEAR[TIMES + 1], x.double()).at(z.double())
    for key in ("q_sample_low", "G.q_sample_low", "S.add_noise_low"):
        swap = key.startswith("S.")

        def call(f: Any, swap: bool = swap) -> Tensor:
            return f(x, z, TIMES) if swap else f(x, TIMES, z)

        assert call(right(key)).dtype == torch.bfloat16
        close(call(right(key)), wanted, 0.01)
        error = (call(bugged("A35", key)).double() - wanted).abs().max(1).values
        assert error[0] > 5e-3  # all noise of the first level is lost


# --- right: posterior, by brute force


def bayes(t: int, x_0: float, x_t: float) -> tuple[float, float]:
    """Mean and variance of q(x_{t−1} | x_t, x_0) from its density on a grid; t an index ≥ 1."""
    spread = math.sqrt(1 - BARS[t - 1])
    middle = math.sqrt(BARS[t - 1]) * x_0
    x = np.linspace(middle - 14 * spread, middle + 14 * spread, 400_001)
    log = -0.5 * (x - middle) ** 2 / spread**2
    log -= 0.5 * (x_t - np.sqrt(1 - BETAS[t]) * x) ** 2 / BETAS[t]
    weight = np.exp(log - log.max())
    weight /= weight.sum()
    mean = float(weight @ x)
    return mean, float(weight @ (x - mean) ** 2)


@pytest.mark.parametrize("t", [1, 40, 500, 999])
def test_posteriors(t: int) -> None:
    x_0 = torch.tensor([[0.7]], dtype=torch.float64)
    x_t = math.sqrt(BARS[t]) * x_0 + 0.3 * math.sqrt(1 - BARS[t])
    mean, variance = bayes(t, 0.7, float(x_t))
    at = torch.tensor([t])
    for key in ("posterior", "G.posterior"):
        found = right(key)(x_0, x_t, at)
        close(found[0], mean)
        close(found[1], variance)
    found = right("G.posterior")(x_0, x_t, at)
    close(found[2].exp(), variance)
    for key in ("posterior", "G.posterior"):  # β for β̃, and nothing at the end
        found = bugged("A11", key)(x_0, x_t, at)[1]
        close(found, BETAS[t] if t < 999 else 0.0)


def test_a_tenth_of_the_steps() -> None:
    table, t = S.linear(T=100, start=1e-3, end=0.2), TIMES // 10
    x_t = marginal(table[t + 1], X).at(Y)
    q = posterior(table[t], table[t + 1], X, x_t)
    found = right("G.posterior_100")(X, x_t, t)
    close(found[0], q.mean)
    close(found[1], wide(q.var))
    close(seeded(lambda: right("G.p_sample_100")(lambda x, t: Y, x_t, t)), q.at(drawn(X)))
    scheduler = right("DDIM_100")
    scheduler.set_timesteps(9)
    times = scheduler.timesteps.tolist()
    assert times[0] == 99
    for t_, s in zip(times, [*times[1:], -1], strict=True):
        x_t, x_s = (marginal(table[i + 1], X).at(Y) for i in (t_, s))
        close(scheduler.step(Y, t_, x_t).prev_sample, x_s, 1e-9)
    loop = right("G.p_sample_loop_100")
    assert visits(lambda model: loop(model, (2, 1)), net)[1] == list(range(99, -1, -1))


def test_pictures() -> None:
    """Items of any shape: each number is treated as if it were alone."""
    flat = torch.randn(6, 60, dtype=torch.float64)
    image = flat.view(6, 3, 4, 5)

    def twice(x: Tensor, t: Any) -> Tensor:
        return net(x, t)

    for key in ("p_sample", "G.p_sample", "p_sample_clipped", "p_sample_thresholded"):
        a, b = (seeded(lambda x=x, k=key: right(k)(twice, x, TIMES)) for x in (flat, image))
        close(b.flatten(1), a, 1e-6)
    for key in ("eps_loss", "v_loss", "weighted_loss", "G.losses_min_snr", "S.loss_min_snr"):
        a, b = (right(key)(twice, x, TIMES, x.flip(0)) for x in (flat, image))
        close(a, b, 1e-6)
    for key in ("DDPM", "DDIM", "Euler", "DPM", "DDIM_threshold"):
        ends = []
        for x in (flat, image):
            scheduler = right(key)
            scheduler.set_timesteps(5)
            torch.manual_seed(0)
            for t in scheduler.timesteps:
                x = scheduler.step(net(x, t), t, x).prev_sample
            ends.append(x.flatten(1))
        close(ends[0], ends[1], 1e-6)
    x = image.float()
    assert right("p_sample_learned")(lambda x, t: torch.cat([x, x], 1), x, TIMES).shape == x.shape
    assert right("G.p_sample_learned")(lambda x, t: torch.cat([x, x], 1), x, TIMES).shape == x.shape


def test_learned_ranges() -> None:
    x, t = X, torch.full((6,), 400)

    def network(y: Tensor, _: Any) -> Tensor:
        return torch.cat([net(y, t), torch.full_like(y, -0.5)], 1)

    step = posterior(LINEAR[400], LINEAR[401], X, X).var.item()
    wanted = 0.25 * math.log(BETAS[400]) + 0.75 * math.log(step)
    for key in ("p_sample_learned", "G.p_sample_learned"):
        spread = seeded(lambda key=key: right(key)(network, x, t)) - seeded(
            lambda key=key: right(key)(network, x, t), 1
        )
        close(spread, math.exp(wanted / 2) * (drawn(x) - drawn(x, 1)))
    scheduler = right("DDPM_learned")
    scheduler.set_timesteps(10)
    low = posterior(LINEAR[600], LINEAR[700], X, X).var.item()
    high = 1 - BARS[699] / BARS[599]
    out = network(x, t)
    a, b = (seeded(lambda: scheduler.step(out, 699, x).prev_sample, seed) for seed in (0, 1))
    std = math.exp(0.125 * math.log(high) + 0.375 * math.log(low))
    close(a - b, std * (drawn(x) - drawn(x, 1)), 1e-9)


def test_small_effects_in_their_own_measure() -> None:
    """Where a bug moves little of all numbers, it moves much of those that it is about."""

    def std(step: Callable[[], Any]) -> Tensor:
        return (seeded(step) - seeded(step, 1)) / (drawn(X) - drawn(X, 1))

    # A15: the range is wide at the end alone
    t = torch.ones(6, dtype=torch.long)
    least, most = posterior(LINEAR[1], LINEAR[2], X, X).var, BETAS[1]
    wanted = math.sqrt(0.25 * most + 0.75 * least)

    def network(y: Tensor, _: Any) -> Tensor:
        return torch.cat([y, torch.full_like(y, -0.5)], 1)

    for key in ("p_sample_learned", "G.p_sample_learned"):
        close(std(lambda key=key: bugged("A15", key)(network, X, t)), wanted)
        close(std(lambda key=key: right(key)(network, X, t)), most**0.125 * least**0.375)
    assert wanted / float(most**0.125 * least**0.375) > 1.03
    ratios = []
    for made in (bugged("A15", "DDPM_learned"), bugged("A15", "DDPM_learned", 1)):
        true = right("DDPM_learned")
        for scheduler in (made, true):
            scheduler.set_timesteps(250)
        out = network(X, 0)
        found = [
            std(lambda s=s, out=out: s.step(out, 7, X).prev_sample).mean() for s in (made, true)
        ]
        ratios.append(float(found[0] / found[1]))
    assert ratios[0] > 1.01
    assert ratios[1] < 0.9

    # A24, A29: x̂_0 is not where the last step ends
    x_t = marginal(LINEAR[20], X).at(Y)
    left = math.sqrt(1 - BARS[0])
    found = bugged("A29", "ddim_step")(x_t, Y, 19, -1)
    close(found - X * BARS[0] ** 0.5, left * Y)
    # an exact denoiser of smooth data says almost nothing of ε there: this network says 1
    for key in ("ddim_loop", "G.ddim"):
        seen: list[Tensor] = []

        def asked(x: Tensor, t: Tensor, seen: list[Tensor] = seen) -> Tensor:
            level = LINEAR[int(t[0]) + 1]
            seen.append((x.double() - level.sigma) / level.alpha)
            return torch.ones_like(x)

        close(seeded(lambda key=key, asked=asked: right(key)(asked, (20, 2))), seen[-1], 1e-5)
        found = seeded(lambda key=key, asked=asked: bugged("A29", key)(asked, (20, 2)))
        close(found, seen[-1] * BARS[0] ** 0.5 + left, 1e-5)
    scheduler = bugged("A29", "DDIM")
    scheduler.set_timesteps(50)
    close(scheduler.step(Y, 19, x_t).prev_sample, X * BARS[0] ** 0.5 + left * Y, 1e-9)
    scheduler = bugged("A24", "DDIM")
    scheduler.set_timesteps(50)
    bars = BARS[18], BARS[38]
    x_0 = (X - math.sqrt(1 - bars[1]) * Y) / math.sqrt(bars[1])
    wanted_x = math.sqrt(bars[0]) * x_0 + math.sqrt(1 - bars[0]) * Y
    close(scheduler.step(Y, 39, X).prev_sample, wanted_x, 1e-9)
    wanted_x = math.sqrt(BARS[649]) * (X - math.sqrt(1 - BARS[699]) * Y) / math.sqrt(BARS[699])
    close(bugged("A24", "ddim_step")(X, Y, 700, 650), wanted_x + math.sqrt(1 - BARS[649]) * Y)

    # A28: no 0 in the table, or what comes of 0/0
    assert bugged("A28", "karras_sigmas").min() == right("karras_sigmas")[-2] > 0
    for key in ("heun_sample", "dpmpp_sample"):
        assert not bugged("A28", key)(ideal_at, X, LEVELS).isfinite().all()
    scheduler = bugged("A28", "Euler")
    scheduler.set_timesteps(9)
    assert scheduler.sigmas[-1] == scheduler.sigmas[-2] > 0

    # A32: the gradient of −3/2·x², at x_t or at the mean
    t = TIMES[1:]
    x_t = marginal(LINEAR[t + 1], X[1:]).at(Y[1:])
    q = posterior(LINEAR[t], LINEAR[t + 1], X[1:], x_t)
    for key in ("classifier", "G.guided"):
        f = bugged("A32", key)
        found = seeded(lambda f=f: f(lambda x, t: Y[1:], lambda x, t: -3 * x, x_t, t))
        plain = seeded(lambda f=f: f(lambda x, t: Y[1:], lambda x, t: 0 * x, x_t, t))
        close(found - plain, -3 * wide(q.var) * x_t, 5e-3)
        assert effect([wide(q.var) * x_t], [wide(q.var) * q.mean]) > 0.005


def ideal_at(x: Tensor, sigma: Any) -> Tensor:
    return ideal(x, Level(torch.ones((), dtype=torch.float64), torch.tensor(float(sigma)).double()))


# --- right: losses, which an oracle brings to nothing


@pytest.mark.parametrize(
    ("keys", "answer"),
    [
        (
            (
                "eps_loss",
                "weighted_loss",
                "G.losses",
                "G.losses_min_snr",
                "S.loss",
                "S.loss_min_snr",
            ),
            lambda a, s: Y,
        ),
        (("x_0_loss", "G.losses_x_0", "S.loss_x_0"), lambda a, s: X),
        (("v_loss", "G.losses_v", "S.loss_v"), lambda a, s: a * Y - s * X),
        (("score_loss", "G.losses_score"), lambda a, s: -Y / s),
    ],
)
def test_losses(keys: tuple[str, ...], answer: Callable[[Tensor, Tensor], Tensor]) -> None:
    alpha, sigma = wide(BARS[TIMES] ** 0.5), wide((1 - BARS[TIMES]) ** 0.5)
    true = answer(alpha, sigma)
    for key in keys:

        def oracle(x: Tensor, t: Tensor) -> Tensor:
            close(x, alpha * X + sigma * Y)
            assert torch.equal(t, TIMES)
            return true

        f = right(key)
        size = f(lambda x, t: torch.zeros_like(x), X, TIMES, Y)
        assert f(oracle, X, TIMES, Y) < 1e-5 * size
        assert size > 0


def test_losses_that_draw() -> None:
    close(seeded(lambda: right("dsm")(lambda x, s: -(x - X) / wide(s) ** 2, X, SIGMAS)), 0.0, 1e-9)
    close(
        right("VE.score_loss")(lambda x, t: -Y / wide(0.01 * 5000**t), X, SIGMAS / 50, Y), 0, 1e-9
    )
    close(right("flow_loss")(lambda x, t: Y - X, X, TIMES / 1000, Y), 0.0, 1e-9)
    close(right("Flow.loss")(lambda x, t: X - Y, X, TIMES / 1000, Y), 0.0, 1e-9)


def test_losses_of_images() -> None:
    images = X.sigmoid()
    alpha, sigma = wide(BARS[TIMES] ** 0.5), wide((1 - BARS[TIMES]) ** 0.5)
    seen: list[Tensor] = []

    def look(x: Tensor, t: Tensor) -> Tensor:
        seen.append((x, t))
        return torch.zeros_like(x)

    right("image_loss")(look, images, TIMES, Y)
    right("S.train_step")(look, images, TIMES, Y)
    for x, _ in seen:
        close(x, alpha * (2 * images - 1) + sigma * Y)
    many = images[:1].expand(4000, 4)
    seeded(lambda: right("G.forward")(look, many))
    x, t = seen[-1]
    noise = (x - wide(BARS[t] ** 0.5) * (2 * many - 1)) / wide((1 - BARS[t]) ** 0.5)
    assert noise.mean().abs() < 0.03
    assert noise.std() == pytest.approx(1, abs=0.03)


def test_weights() -> None:
    snr = torch.from_numpy(BARS / (1 - BARS))
    least = snr.clamp(max=5)
    close(right("min_snr")(TIMES), (least / snr)[TIMES])
    close(right("G.weight")(TIMES), (least / snr)[TIMES])
    close(right("S.weights")(TIMES), (least / snr)[TIMES])
    close(right("G.weight_v")(TIMES), (least / (snr + 1))[TIMES])
    for key in ("min_snr_zero", "G.weight_zero", "S.weights_zero", "debiased_zero"):
        assert right(key)(TIMES).isfinite().all()
        assert not bugged("A19", key)(TIMES).isfinite().all()
    for key in ("min_snr_zero", "G.weight_zero", "S.weights_zero"):
        assert right(key)(TIMES)[-1] == 1
    for key in ("weighted_loss", "G.losses_min_snr", "S.loss_min_snr"):
        for i in range(6):
            hot = torch.zeros_like(X)
            hot[i] = 1
            found = right(key)(lambda x, t, hot=hot: Y + hot, X, TIMES, Y)
            close(found, (least / snr)[TIMES[i]] / 6)
            wrong = bugged("A18", key)(lambda x, t, hot=hot: Y + hot, X, TIMES, Y)
            close(wrong, (least / snr)[TIMES].mean() / 6)


def test_times() -> None:
    for key in ("sample_time", "G.times", "S.times"):
        t = seeded(lambda key=key: right(key)(50_000))
        assert set(t.tolist()) == set(range(1000))
        assert t.double().mean() == pytest.approx(499.5, abs=5)
    for key in ("flow_times", "Flow.times"):
        t = seeded(lambda key=key: right(key)(50_000))
        assert 0 <= t.min() < t.max() <= 1
        assert t.std() == pytest.approx(12**-0.5, abs=0.005)
        t = seeded(lambda key=key: bugged("A5", key)(50_000))
        outside = ((t < 0) | (t > 1)).double().mean()
        assert outside == pytest.approx(0.6587, abs=0.01)
    for key in ("flow_loss", "Flow.loss"):
        seen: list[Tensor] = []

        def asked(x: Tensor, t: Tensor, seen: list[Tensor] = seen) -> Tensor:
            seen.append(t)
            return x

        seeded(lambda key=key, asked=asked: right(key)(asked, torch.zeros(1000, 1)))
        seeded(lambda key=key, asked=asked: bugged("A5", key)(asked, torch.zeros(1000, 1)))
        assert 0 <= seen[0].min() < seen[0].max() <= 1
        assert seen[1].min() < -1


# --- right: steps of an oracle


@pytest.mark.parametrize("key", ["p_sample", "G.p_sample", "G.p_sample_v", "p_sample_clipped"])
def test_ancestral_steps(key: str) -> None:
    x_0, eps = X.clamp(-2.5, 2.5), Y
    alpha, sigma = wide(BARS[TIMES] ** 0.5), wide((1 - BARS[TIMES]) ** 0.5)
    out = alpha * eps - sigma * x_0 if key.endswith("_v") else eps
    x_t = alpha * x_0 + sigma * eps
    found = seeded(lambda: right(key)(lambda x, t: out, x_t, TIMES))
    q = posterior(LINEAR[TIMES], LINEAR[TIMES + 1], x_0, x_t)
    close(found, q.at(drawn(X)))
    close(found[0], x_0[0])  # the last step has no noise


@pytest.mark.parametrize("key", ["DDPM", "DDPM_v", "DDPM_linspace", "DDPM_cosine", "DDPM_cosine_v"])
@pytest.mark.parametrize("n", [1, 7, 30])
def test_ancestral_schedulers(key: str, n: int) -> None:
    scheduler = right(key)
    scheduler.set_timesteps(n)
    table = S.cosine() if "cosine" in key else LINEAR
    times = scheduler.timesteps.tolist()
    for t, s in zip(times, [*times[1:], -1], strict=True):
        level = table[torch.tensor([t + 1] * 6)]
        x_t = marginal(level, X).at(Y)
        out = Y
        if key.endswith("_v"):
            out = wide(level.alpha) * Y - wide(level.sigma) * X
        found = seeded(lambda out=out, t=t, x_t=x_t: scheduler.step(out, t, x_t))
        q = posterior(table[torch.tensor([s + 1] * 6)], level, X, x_t)
        close(found.prev_sample, q.at(drawn(X)) if s >= 0 else X, 1e-6)
        close(found.pred_original_sample, X, 1e-6)


@pytest.mark.parametrize("key", ["DDIM", "DDIM_v", "DDIM_x_0", "DDIM_linspace"])
@pytest.mark.parametrize("n", [1, 7, 30])
def test_ddim_schedulers(key: str, n: int) -> None:
    scheduler = right(key)
    scheduler.set_timesteps(n)
    times = scheduler.timesteps.tolist()
    for t, s in zip(times, [*times[1:], -1], strict=True):
        here, there = (LINEAR[torch.tensor([i + 1] * 6)] for i in (t, s))
        out = {"DDIM_v": wide(here.alpha) * Y - wide(here.sigma) * X, "DDIM_x_0": X}.get(key, Y)
        x_t, x_s = (marginal(level, X).at(Y) for level in (here, there))
        close(scheduler.step(out, t, x_t).prev_sample, x_s, 1e-9)
        if s >= 0:  # all noise fresh: the law of the ancestral step
            found = seeded(lambda out=out, t=t, x_t=x_t: scheduler.step(out, t, x_t, 1.0))
            close(found.prev_sample, posterior(there, here, X, x_t).at(drawn(X)), 1e-9)


def test_ddim_functions() -> None:
    for t, s in ((999, 979), (400, 100), (19, -1)):
        here, there = (LINEAR[torch.tensor([i + 1] * 6)] for i in (t, s))
        x_t, x_s = (marginal(level, X).at(Y) for level in (here, there))
        close(right("ddim_step")(x_t, Y, t, s), x_s)
        close(right("ddim_step_x_0")(x_t, X, t, s), x_s)


def test_clipping() -> None:
    x_0 = 4 * X
    assert x_0.abs().max() > 3
    alpha, sigma = wide(BARS[TIMES] ** 0.5), wide((1 - BARS[TIMES]) ** 0.5)
    x_t = alpha * x_0 + sigma * Y
    q = posterior(LINEAR[TIMES], LINEAR[TIMES + 1], x_0.clamp(-3, 3), x_t)
    for key in ("p_sample_clipped", "G.p_sample_clipped"):
        close(seeded(lambda key=key: right(key)(lambda x, t: Y, x_t, TIMES)), q.at(drawn(X)))
    scheduler = right("DDPM_clipped")
    scheduler.set_timesteps(10)
    x_t = marginal(LINEAR[700], x_0).at(Y)
    close(scheduler.step(Y, 699, x_t).pred_original_sample, x_0.clamp(-3, 3), 1e-9)
    for key, ratio in (("p_sample_thresholded", 0.995), ("G.p_sample_threshold", 0.9)):
        bound = torch.quantile(x_0.abs(), ratio, dim=1, keepdim=True).clamp(min=1)
        cut = torch.maximum(torch.minimum(x_0, bound), -bound) / bound
        x_t = alpha * x_0 + sigma * Y
        q = posterior(LINEAR[TIMES], LINEAR[TIMES + 1], cut, x_t)
        found = seeded(lambda key=key, x_t=x_t: right(key)(lambda x, t: Y, x_t, TIMES))
        close(found, q.at(drawn(X)))
    scheduler = right("DDIM_threshold")
    scheduler.set_timesteps(10)
    x_t = marginal(LINEAR[700], x_0).at(Y)
    close(scheduler.step(Y, 699, x_t).pred_original_sample, cut, 1e-9)


# --- right: loops, beside the package's own


def path_of(times: list[int]) -> Schedule:
    """Levels of these indices, cleanest first."""
    return S.from_alpha_bar(BARS[sorted(times)])


def visits(loop: Callable[[Any], Any], answer: Any = eps_of) -> tuple[Any, list[int]]:
    times: list[int] = []

    def asked(x: Tensor, t: Tensor) -> Tensor:
        times.append(int(t[0]))
        return answer(x, t)

    return seeded(lambda: loop(asked)), times


def test_ddim_loops() -> None:
    shape = (5, 3)
    start = seeded(lambda: torch.randn(shape))
    for key, answer in (
        ("ddim_loop", eps_of),
        ("G.ddim", eps_of),
        ("G.ddim_30", eps_of),
        ("G.ddim_x_0", lambda x, t: ideal(x, LINEAR[int(t[0]) + 1])),
        ("S.generate", eps_of),
    ):
        found, times = visits(lambda model, key=key: right(key)(model, shape), answer)
        assert times[0] == 999
        assert times == sorted(set(times), reverse=True)
        close(found, ends_at("ddim:eta=0.0", path_of(times), start), 1e-2)


def test_ddim_loops_keep_a_constant_noise() -> None:
    """If ε̂ is always 1, so is x̂_0 the same at each step, whatever the steps are."""
    start = seeded(lambda: torch.randn(5, 3))
    wanted = (start.double() - LINEAR.sigma[1000]) / LINEAR.alpha[1000]
    for key in ("ddim_loop", "G.ddim", "G.ddim_30", "S.generate"):
        found = seeded(lambda key=key: right(key)(lambda x, t: torch.ones_like(x), (5, 3)))
        close(found, wanted, 1e-4)
    for id, key in (("A26", "ddim_loop"), ("A26", "G.ddim_30"), ("A12", "G.ddim")):
        f = bugged(id, key)
        found = seeded(lambda f=f: f(lambda x, t: torch.ones_like(x), (5, 3)))
        assert effect([found], [wanted]) > 0.01


def test_ancestral_loops() -> None:
    for key in ("p_sample_loop", "G.p_sample_loop", "S.generate_ddpm"):
        found, times = visits(lambda model, key=key: right(key)(model, (200, 1)))
        assert times == list(range(999, -1, -1))
        assert found.abs().mean() == pytest.approx(1.0, abs=0.1)  # ±1 + N(0, ¼): 1.0085
        assert found.std() == pytest.approx(math.sqrt(1.25), abs=0.12)
    for key in ("p_sample_loop", "G.p_sample_loop", "S.generate_ddpm"):
        assert visits(lambda model, key=key: bugged("A30", key)(model, (2, 1)))[1][0] == 0


def test_loops_that_begin_with_data() -> None:
    """From data at 0, the first question is the noise that was drawn, times σ of its level."""
    data = torch.zeros(50, 1)
    z = drawn(data)
    both = seeded(lambda: (torch.randn_like(data) + torch.randn_like(data)) / 2)

    def first(f: Any, *arguments: Any) -> tuple[int, Tensor]:
        seen: list[tuple[int, Tensor]] = []

        def asked(x: Tensor, t: Tensor) -> Tensor:
            seen.append((int(t[0]), x))
            return x

        seeded(lambda: f(asked, data, *arguments))
        return seen[0]

    for key, arguments, noise, noisier in (
        ("img2img", (40,), z, 1),
        ("G.interpolate", (data, 40), both, 1),
        ("S.img2img", (), z, 20),
    ):
        t, x = first(right(key), *arguments)
        close(x, math.sqrt(1 - BARS[t]) * noise, 1e-4)
        t, x = first(bugged("A8", key), *arguments)
        close(x, math.sqrt(1 - BARS[t + noisier]) * noise, 1e-4)
    t, x = first(bugged("A8", "img2img", 1), 40)
    assert t == 40
    close(x, math.sqrt(1 - BARS[41]) * z, 1e-4)


def test_encoding() -> None:
    """Data to noise and back along the same path: a small step is its own way back."""
    made = right("G.ddim_encode").__self__
    x = seeded(lambda: made.ddim_sample(eps_of, (20, 1), 500))
    back, times = visits(lambda model: made.ddim_encode(model, x, 500))
    assert times == sorted(times)
    again = back.double()
    path = path_of([*times, 999])
    close(ends_at("ddim:eta=0.0", path, again), x, 0.05)


@pytest.mark.parametrize(
    ("key", "spec"),
    [("euler_sample", "euler"), ("heun_sample", "heun"), ("dpmpp_sample", "dpmpp_2m")],
)
def test_sigma_loops(key: str, spec: str) -> None:
    sigmas = S.karras(12).sigma.flip(0)
    x = float(sigmas[0]) * X

    def denoise(y: Tensor, sigma: float) -> Tensor:
        s = torch.tensor(sigma, dtype=torch.float64)
        return ideal(y, Level(torch.ones_like(s), s))

    wanted = ends_at(spec, S.from_sigmas(sigmas[:-1].flip(0)), x)
    close(right(key)(denoise, x, sigmas), wanted, 1e-9)
    if key == "heun_sample":
        step = right("Heun.one_step")
        for here, there in pairwise(sigmas):
            x = step(lambda y, s: denoise(y, float(s)), x, here, there)
        close(x, wanted, 1e-9)
        loop = right("Heun")
        close(loop.levels, S.karras(40).sigma.flip(0), 1e-9)
        x = 80 * seeded(lambda: torch.randn(5, 3, dtype=torch.float64))
        found = seeded(lambda: loop(lambda y, s: denoise(y, float(s)), (5, 3)))
        close(found, ends_at("heun", S.karras(40), x), 1e-9)


@pytest.mark.parametrize(
    ("key", "spec", "calls"), [("Euler", "euler", 9), ("Heun2", "heun", 17), ("DPM", "dpmpp_2m", 9)]
)
def test_sigma_schedulers(key: str, spec: str, calls: int) -> None:
    scheduler = right(key)
    scheduler.set_timesteps(9)
    assert len(scheduler.timesteps) == calls
    times = sorted(set(scheduler.timesteps.tolist()))
    bars = BARS[times]
    start = X
    path = path_of(times)
    if key != "DPM":
        start = float(scheduler.init_noise_sigma) * X
        path = S.from_sigmas(np.sqrt((1 - bars) / bars))
    x = start
    for t in scheduler.timesteps:
        asked = scheduler.scale_model_input(x, t)
        x = scheduler.step(eps_of(asked, t), t, x).prev_sample
    close(x, ends_at(spec, path, start), 1e-9)


def test_flows() -> None:
    """Data at one point c: straight lines lead there, in one step or many."""
    c = 0.7
    for key, sign in (("flow_sample", 1), ("Flow.sample", -1)):

        def field(x: Tensor, t: Tensor, sign: int = sign) -> Tensor:
            noise_share = t if sign == 1 else 1 - t
            return sign * (x - c) / noise_share[:, None]

        close(seeded(lambda key=key, field=field: right(key)(field, (4, 3))), c, 1e-4)


def test_vp_coefficients_and_flows() -> None:
    """N(0, s²) data: x stays in proportion to its standard deviation all along the flow."""
    t = torch.linspace(0.01, 1, 9, dtype=torch.float64)
    process = loaded(next(i for i, s in enumerate(RIGHT) if s.module == "processes")).VPSDE()
    plain = loaded(next(i for i, s in enumerate(RIGHT) if s.module == "karras"))
    for sigma, prime in (
        (process.sigma, process.sigma_prime),
        (plain.vp_sigma, plain.vp_sigma_prime),
    ):
        h = 1e-6
        close(prime(t), (sigma(t + h) - sigma(t - h)) / (2 * h), 1e-6)
    close(process.scale(t), plain.vp_scale(t), 1e-9)
    h = 1e-6
    for slope in (process.scale_prime, plain.vp_scale_prime):
        close(slope(t), (plain.vp_scale(t + h) - plain.vp_scale(t - h)) / (2 * h), 1e-6)

    s = 0.5

    def gaussian(y: Tensor, sigma: Any) -> Tensor:
        return y * s**2 / (s**2 + float(sigma) ** 2)

    def std(u: float) -> float:
        at = torch.tensor(u, dtype=torch.float64)
        return float(process.scale(at) * (s**2 + process.sigma(at) ** 2).sqrt())

    for key in ("vp_flow", "VP.flow_sample"):
        close(right(key)(gaussian, X, 200), X * std(1e-3) / std(1), 1e-3)
        assert effect([bugged("A14", key)(gaussian, X, 200)], [X * std(1e-3) / std(1)]) > 0.3


# --- right: the rest


def test_guidance() -> None:
    wanted = -1.5 * labelled_net(X, TIMES, None) + 2.5 * labelled_net(X, TIMES, 1)
    close(right("cfg")(labelled_net, X, TIMES, 1, 2.5), wanted, 1e-9)
    close(right("G.cfg")(labelled_net, 1, 2.5)(X, TIMES), wanted, 1e-9)
    close(right("S.guided")(doubled_net, X, TIMES, 1, 2.5), wanted, 1e-9)
    alpha, sigma = wide(BARS[TIMES] ** 0.5), wide((1 - BARS[TIMES]) ** 0.5)
    x_t = alpha * X + sigma * Y
    q = posterior(LINEAR[TIMES], LINEAR[TIMES + 1], X, x_t)
    shifted = q.at(drawn(X)) - 3 * wide(q.var) * q.mean  # log p(y | x) = −3/2·x²
    for key, f in (("classifier", right("classifier")), ("G.guided", right("G.guided"))):
        found = seeded(lambda f=f: f(lambda x, t: Y, lambda x, t: -3 * x, x_t, TIMES))
        # the class cuts the variance off at its second value, which is ten times 0
        rows = slice(None) if key == "classifier" else slice(1, None)
        close(found[rows], shifted[rows])
        plain = seeded(lambda f=f: f(lambda x, t: Y, lambda x, t: 0 * x, x_t, TIMES))
        shift = ((found - plain) / wide(q.var))[2:]
        close(shift, -3 * q.mean[2:], 1e-3)


def test_averages() -> None:
    decays = {
        "ema": [min(0.999, (1 + i) / (10 + i)) for i in range(1, 21)],
        "G.ema": [min(0.995, i / (i + 1)) for i in range(20)],
        "S.ema": [min(0.9999, 1 - (1 + i) ** (-2 / 3)) for i in range(20)],
    }
    for key, decay in decays.items():
        mean, found = 1.0, list(averaged(right(key)))
        for i in range(20):
            mean = decay[i] * mean + (1 - decay[i]) * (i % 3)
            assert found[i].item() == pytest.approx(mean, rel=1e-5)
        last = list(averaged(bugged("A33", key)))
        first = decay[0]  # never larger again
        mean = 1.0
        for i in range(20):
            mean = first * mean + (1 - first) * (i % 3)
        assert last[-1].item() == pytest.approx(mean, rel=1e-5)


def test_embeddings() -> None:
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    for key in ("embedding", "G.embedding", "S.embedding"):
        f = right(key)
        assert torch.equal(f(TIMES[order]), f(TIMES)[order])
        assert torch.equal(f(TIMES[:1])[0], f(TIMES)[0])
        assert f(TIMES).shape == (6, 32)
        assert len(f(torch.arange(1000)).unique(dim=0)) == 1000
        wrong = bugged("A22", key)
        assert wrong(TIMES).shape == (6, 32)
        assert not torch.allclose(wrong(TIMES[order]), wrong(TIMES)[order])
    rates = 10000 ** (-np.arange(16) / 15)
    angles = TIMES.numpy()[:, None] * rates
    close(right("embedding")(TIMES), np.concatenate([np.sin(angles), np.cos(angles)], 1), 1e-3)


def test_langevin() -> None:
    """One step from N(0, 1) with its score: variance (1 − h)² + 2h."""
    x = seeded(lambda: torch.randn(100_000, 1, dtype=torch.float64), 9)
    t, h = torch.zeros(len(x), dtype=torch.long), 0.1

    def score_of(y: Tensor, _: Any) -> Tensor:
        return -y

    calls: dict[str, Callable[[Any], Any]] = {
        "langevin_step": lambda f: f(score_of, x, t, h),
        "langevin": lambda f: f(score_of, x, 1.0, h),
    }
    for key, call in calls.items():
        variance = seeded(lambda call=call, key=key: call(right(key))).var()
        assert variance == pytest.approx((1 - h) ** 2 + 2 * h, rel=0.02)
    wrong = seeded(lambda: bugged("A31", "langevin_step")(score_of, x, t, h)).var()
    assert wrong == pytest.approx((1 - h) ** 2 + 1, rel=0.02)
    wrong = seeded(lambda: bugged("A31", "langevin_step", 1)(score_of, x, t, h)).var()
    assert wrong == pytest.approx((1 - h) ** 2 + h**2, rel=0.02)
    s = SIGMAS / 50
    size = wide(0.1 * (0.01 * 5000**s) ** 2)
    found = seeded(lambda: right("VE.correct")(score, X, s))
    close(found, X + size * score(X, s) + (2 * size).sqrt() * drawn(X), 1e-9)
    size = 2e-5 * 25
    found = seeded(lambda: right("Annealed.move")(score, X, 1))
    close(found, X + size * score(X, 1) + math.sqrt(2 * size) * drawn(X), 1e-6)
    torch.manual_seed(0)
    y = X
    for level in LEVELS[:-1].tolist():
        size = 0.001 * (level / 0.1) ** 2
        for _ in range(4):
            y = y + size * score(y, 0) + math.sqrt(2 * size) * torch.randn_like(y)
    close(seeded(lambda: right("annealed")(score, X, LEVELS[:-1], 0.001, 4)), y, 1e-6)


def test_likelihoods() -> None:
    end = marginal(LINEAR[1000], X)
    prior = end._replace(mean=torch.zeros_like(X), var=torch.ones((), dtype=torch.float64))
    t = TIMES[[1, 2, 3, 4, 5, 1]]
    x_t = marginal(LINEAR[t + 1], X).at(Y)
    guess = (x_t - wide((1 - BARS[t]) ** 0.5) * net(x_t, t)) / wide(BARS[t] ** 0.5)
    true, found = (posterior(LINEAR[t], LINEAR[t + 1], x, x_t) for x in (X, guess))
    for prior_kl, term in (("prior_kl", "bound_term"), ("G.prior_kl", "G.bound_term")):
        close(right(prior_kl)(X), end.kl(prior), 0.05)  # 1e-4: a few digits are left of float32
        close(right(term)(net, X, t, Y), true.kl(found), 1e-2)


# --- not bugs: the same, up to their convention


def of(id: str) -> list[tuple[str, list[Tensor], list[Tensor]]]:
    """Key, numbers, and those of the code it was made from."""
    return [
        (
            key_of(s),
            did(place(s)),
            did(next(i for i, r in enumerate(RIGHT) if key_of(r) == key_of(s))),
        )
        for s in NOT_BUGS
        if s.id == id
    ]


def test_n1_n3_n5_are_the_same() -> None:
    for id, tol in (("N1", 1e-9), ("N3", 2e-3), ("N5", 0.0)):
        assert of(id)
        for _, found, wanted in of(id):
            assert effect(found, wanted) <= tol


def test_n2_is_one_off() -> None:
    a = bugged("N2", "cfg")(labelled_net, X, TIMES, 1, 1.5)
    close(a, right("cfg")(labelled_net, X, TIMES, 1, 2.5), 1e-9)
    a = bugged("N2", "G.cfg")(labelled_net, 1, 1.5)(X, TIMES)
    close(a, right("G.cfg")(labelled_net, 1, 2.5)(X, TIMES), 1e-9)
    a = bugged("N2", "S.guided")(doubled_net, X, TIMES, 1, 1.5)
    close(a, right("S.guided")(doubled_net, X, TIMES, 1, 2.5), 1e-9)


def test_n4_differs_in_the_variance_alone() -> None:
    q = posterior(LINEAR[TIMES], LINEAR[TIMES + 1], X, X)
    more = wide(BETAS[TIMES] ** 0.5) - wide(q.var.sqrt())
    more[0] = 0
    for key in ("p_sample", "G.p_sample"):
        a, b = (seeded(lambda f=f: f(net, X, TIMES)) for f in (bugged("N4", key), right(key)))
        close(a - b, more * drawn(X), 1e-2)
    a, b = bugged("N4", "DDPM"), right("DDPM")
    for scheduler in (a, b):
        scheduler.set_timesteps(10)
    found = [seeded(lambda s=s: s.step(Y, 699, X).prev_sample) for s in (a, b)]
    beta = 1 - BARS[699] / BARS[599]
    small = beta * (1 - BARS[599]) / (1 - BARS[699])
    close(found[0] - found[1], (beta**0.5 - small**0.5) * drawn(X), 1e-9)


def test_n6_is_another_scale() -> None:
    a, b = bugged("N6", "Euler"), right("Euler")
    for scheduler in (a, b):
        scheduler.set_timesteps(9)
    root = (b.sigmas**2 + 1).sqrt()
    x, y = X, X * root[0]
    for i, t in enumerate(a.timesteps):
        close(a.scale_model_input(x, t), b.scale_model_input(y, t), 1e-9)
        x = a.step(net(a.scale_model_input(x, t), t), t, x).prev_sample
        y = b.step(net(b.scale_model_input(y, t), t), t, y).prev_sample
        close(x * root[i + 1], y, 1e-9)
    close(a.add_noise(X, Y, TIMES), marginal(LINEAR[TIMES + 1], X).at(Y), 1e-9)
    found = bugged("N6", "euler_sample")(score, X / math.sqrt(1 + LEVELS[0] ** 2), LEVELS)
    close(found, right("euler_sample")(score, X, LEVELS), 1e-9)


def test_n7_turns_time_round() -> None:
    share = TIMES / 1000

    def turned(x: Tensor, t: Tensor) -> Tensor:
        return -net(x, 1 - t)

    for prefix in ("flow_", "Flow."):
        a = bugged("N7", f"{prefix}mix")(X, Y, share)
        close(a, right(f"{prefix}mix")(X, Y, 1 - share), 1e-6)
        a = bugged("N7", f"{prefix}loss")(turned, X, share, Y)
        close(a, right(f"{prefix}loss")(net, X, 1 - share, Y), 1e-6)
        a = seeded(lambda p=prefix: bugged("N7", f"{p}sample")(turned, (4, 3)))
        close(a, seeded(lambda p=prefix: right(f"{p}sample")(net, (4, 3))), 1e-4)


def test_n8_ends_with_nothing_left() -> None:
    for key in ("betas_cosine", "G.betas_cosine"):
        found, wanted = bugged("N8", key), right(key)
        assert found[-1] == 1
        assert wanted[-1].item() == pytest.approx(0.999)
        assert torch.equal(found[:-1], wanted[:-1])
    scheduler = bugged("N8", "DDPM_cosine_v")
    assert scheduler.alphas_cumprod[-1] == 0
    scheduler.set_timesteps(10)
    assert scheduler.step(Y, 999, X).prev_sample.isfinite().all()


def test_all_subjects_have_a_specimen() -> None:
    assert {key_of(s) for s in RIGHT} == set(SUBJECTS)
