"""The post's claim: its schedules, the fairness of the comparison, and the statistics."""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from alphabar import claim, metrics
from alphabar.claim import (
    GROWING,
    RANGES,
    WAYS,
    Claim,
    Ideal,
    Interval,
    Pair,
    Row,
    Settings,
    T,
    answer,
    compared,
    contenders,
    estimate,
    geometric_mean,
    run_claim,
    steps_in,
    way_of,
)
from alphabar.data import Data, swiss_roll
from alphabar.figures import schedule_ratios
from alphabar.metrics import Yardstick, against_fresh
from alphabar.noise import keyed_noise
from alphabar.samplers import Denoiser, Sampler, sample
from alphabar.schedule import SCHEDULES, Level, Schedule

N = 600
ROLL = swiss_roll(N)
X_0 = ROLL.x.float()


# --- the schedules


def make_beta_schedule(
    schedule: str, n_timesteps: int, start: float, end: float
) -> np.ndarray:  # the post's code, in numpy
    if schedule == "linear":
        return np.linspace(start, end, n_timesteps)
    if schedule == "quad":
        return np.linspace(start**0.5, end**0.5, n_timesteps) ** 2
    return 1 / (1 + np.exp(-np.linspace(-6, 6, n_timesteps))) * (end - start) + start


def test_the_posts_range_is_the_posts_code() -> None:
    found = {c.name: c for c in contenders("post")}
    assert list(found) == ["constant 0.035", "constant 0.00501", *GROWING]
    assert [c.grows for c in found.values()] == [False, False, True, True, True]
    betas = {kind: make_beta_schedule(kind, 100, 1e-5, 1e-2) for kind in GROWING}
    betas["constant 0.035"] = np.full(100, 0.035)
    for name, beta in betas.items():
        np.testing.assert_allclose(found[name].schedule.beta[1:], beta, rtol=1e-9)
    ends = {kind: np.prod(1 - betas[kind]) for kind in GROWING}
    assert all(0.6 < end < 0.71 for end in ends.values())  # none is noise
    even = found["constant 0.00501"].schedule
    np.testing.assert_allclose(even.alpha_bar[100], ends["linear"], rtol=1e-9)
    np.testing.assert_allclose(even.beta[1:], even.beta[1].item(), rtol=1e-9)


def test_the_range_that_reaches_noise_ends_at_one_level_for_all() -> None:
    found = {c.name: c for c in contenders("noise")}
    assert list(found) == ["constant 0.088", *GROWING]
    for contender in found.values():
        beta = contender.schedule.beta[1:].numpy()
        assert len(beta) == T
        assert np.prod(1 - beta) == pytest.approx(1e-4, rel=1e-9)
        assert contender.grows == bool((np.diff(beta) > 1e-9).all())
        if contender.grows:
            end = float(contender.schedule.spec.rpartition("end=")[2])
            posts = make_beta_schedule(contender.name, 100, 1e-5, end)
            np.testing.assert_allclose(beta, posts, rtol=1e-9)


# --- the ways


def both(range_: str, way: str, seed: int = 3) -> list[claim.Way]:
    return [way_of(way, c.schedule, X_0, (T, 10), seed) for c in contenders(range_)]  # type: ignore[arg-type]


@pytest.mark.parametrize("way", WAYS)
def test_schedules_begin_with_the_same_weights_and_differ_in_levels_alone(way: str) -> None:
    first, *others = [w for range_ in RANGES for w in both(range_, way)]
    for other in others:
        for (name, a), (_, b) in zip(
            first.denoiser.state_dict().items(), other.denoiser.state_dict().items(), strict=True
        ):
            assert torch.equal(a, b), name
        assert other.training.batch == first.training.batch
        assert type(other.training.objective) is type(first.training.objective)
    (again, *_), (another, *_) = both("post", way), both("post", way, seed=4)
    a, b, c = (w.denoiser.net.first.weight for w in (first, again, another))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def shaken(way: claim.Way) -> claim.Way:
    """With weights away from the first ones, under which the last layer answers 0."""
    generator = torch.Generator().manual_seed(0)
    for parameter in way.denoiser.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data += 0.05 * noise
    return way


def eps_of(way: claim.Way, x_t: Tensor, t: Tensor, alpha_bar: Tensor) -> Tensor:
    """What the plain net says of the noise, from the net itself: of data centred and scaled."""
    mean, std = X_0.mean(0), X_0.std(0, correction=0).square().mean().sqrt()
    width = (alpha_bar * std**2 + 1 - alpha_bar).sqrt()
    centred = (x_t - alpha_bar.sqrt() * mean) / width
    return way.denoiser.net(centred.float(), (10 * t / 100 - 5).float())


@pytest.mark.parametrize("range_", RANGES)
def test_the_plain_way_trains_by_algorithm_1(range_: str) -> None:
    for way, contender in zip(both(range_, "plain"), contenders(range_), strict=True):  # type: ignore[arg-type]
        shaken(way)
        generator = torch.Generator().manual_seed(1)
        drawn = way.training.levels.draw(300, generator)
        eps = torch.randn(300, 2, generator=generator)
        alpha_bar = np.cumprod(1 - contender.schedule.beta.numpy())
        t = torch.from_numpy(
            np.abs(alpha_bar[:, None] - drawn.level.alpha.square().numpy()).argmin(0)
        )
        assert (t.bincount(minlength=101)[1:] == 3).all()  # each as often as any other
        at = torch.from_numpy(alpha_bar)[t][:, None]
        x_0 = X_0[:300]
        guess = eps_of(way, (at.sqrt() * x_0 + (1 - at).sqrt() * eps), t, at)
        losses = way.training.objective(way.denoiser, x_0, drawn, eps, generator)
        expected = (guess - eps).square().mean(1)
        torch.testing.assert_close(losses, expected.float(), rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("range_", RANGES)
@torch.no_grad()
def test_the_plain_way_samples_by_algorithm_2(range_: str) -> None:
    for way, contender in zip(both(range_, "plain"), contenders(range_), strict=True):  # type: ignore[arg-type]
        shaken(way)
        ((sampler, path),) = way.paths
        *_, last = sample(way.denoiser, sampler, path, 50, (2,), seed=5, start=way.start)
        assert last.nfe == T
        beta = contender.schedule.beta.numpy()
        alpha_bar = np.cumprod(1 - beta)
        x = keyed_noise(5, 0, 0, 50, (2,)).double()  # N(0, I)
        for t in range(100, 0, -1):
            at = torch.tensor(alpha_bar[t]).expand(50, 1)
            eps = eps_of(way, x, torch.full((50,), t), at).double()
            x = (x - beta[t] / math.sqrt(1 - alpha_bar[t]) * eps) / math.sqrt(1 - beta[t])
            if t > 1:
                var = (1 - alpha_bar[t - 1]) / (1 - alpha_bar[t]) * beta[t]
                x += math.sqrt(var) * keyed_noise(5, 101 - t, 0, 50, (2,))
        torch.testing.assert_close(last.x.double(), x, rtol=1e-3, atol=1e-3)


def test_our_way_draws_the_schedules_own_levels_and_walks_between_its_ends() -> None:
    for range_ in RANGES:
        for way, contender in zip(both(range_, "ours"), contenders(range_), strict=True):
            ends = contender.schedule.log_snr[[1, T]]
            for steps, (sampler, path) in zip((T, 10), way.paths, strict=True):
                assert sampler.spec == "dpmpp_2m"
                assert path.T == steps
                log_snr = path.log_snr[1:]
                torch.testing.assert_close(log_snr[[0, -1]], ends)
                gaps = log_snr.diff()
                torch.testing.assert_close(gaps, gaps[:1].expand(steps - 1))
            drawn = way.training.levels.draw(T, torch.Generator().manual_seed(0))
            torch.testing.assert_close(drawn.level.alpha, contender.schedule.alpha[1:])
            assert way.start is not None
            np.testing.assert_allclose(way.start.mean, X_0.mean(0), atol=1e-6)
            np.testing.assert_allclose(way.start.cov, np.cov(X_0.T, ddof=0), atol=1e-6)
            assert way.denoiser.predicts == "edm"


# --- the exact denoiser


def yardstick_of(data: Data, reference: int, sets: int) -> Yardstick:
    assert data.fresh is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "REFERENCE", reference)
        patch.setattr(metrics, "FLOOR_SETS", sets)
        return against_fresh(len(data), data.fresh)


@pytest.fixture(scope="module")
def bench() -> claim._Bench:
    yardstick = yardstick_of(ROLL, 50_000, 60)
    return claim._Bench(Settings(n=N, draws=2, exact_draws=2, nfe=(T,)), ROLL, yardstick)


def squares(
    bench: claim._Bench, way: str, range_: str, name: str, seed: int = 0
) -> dict[str, float]:
    contender = next(c for c in contenders(range_) if c.name == name)  # type: ignore[arg-type]
    ideals = [i for i in bench.exact(way, range_, contender, seed) if i.nfe == T]  # type: ignore[arg-type]
    return {i.start: i.ratio**2 for i in ideals}


def test_from_the_true_x_T_the_exact_denoiser_errs_by_discretisation_alone(
    bench: claim._Bench,
) -> None:
    # 100 steps that are even in λ down to σ = 0.003 leave nothing but chance.
    fine = squares(bench, "ours", "noise", "quad")
    assert 0.4 < fine["true"] < 1.8
    # From σ_1 = 0.3 the last step jumps to a mean: the data's own grain, 0.1, is missing.
    assert squares(bench, "ours", "noise", "constant 0.088")["true"] > 2 * fine["true"]


def test_a_start_that_the_schedule_does_not_reach_is_told_from_discretisation(
    bench: claim._Bench,
) -> None:
    short = squares(bench, "plain", "post", "linear")
    assert short["own"] > 2 * short["true"]
    long = squares(bench, "plain", "noise", "linear")
    assert long["own"] == pytest.approx(long["true"], abs=0.1)
    near = squares(bench, "ours", "post", "linear")  # right in mean and covariance
    assert near["own"] - near["true"] < 0.2 * (short["own"] - short["true"])


def test_true_starts_have_the_law_of_x_T(bench: claim._Bench) -> None:
    top = Level(torch.tensor(0.8, dtype=torch.float64), torch.tensor(0.6, dtype=torch.float64))
    assert ROLL.fresh is not None
    fresh = ROLL.fresh(200_000, 7)
    x_T = torch.cat([bench._true(top, seed, i) for seed in range(10) for i in range(2)]).double()
    assert len(x_T.unique(dim=0)) == 20 * N
    spread = fresh.T.cov() * 0.64 + 0.36 * torch.eye(2)
    np.testing.assert_allclose(x_T.mean(0), 0.8 * fresh.mean(0), atol=5 / math.sqrt(20 * N))
    np.testing.assert_allclose(x_T.T.cov(), spread, atol=8 / math.sqrt(20 * N))
    clean = Level(torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64))
    points = torch.cat([bench._true(clean, seed, i) for seed in range(3) for i in range(2)])
    assert len(points.unique(dim=0)) == 6 * N  # none twice, in any seed or set
    # The noise of the way's own start, item by item: as α → 0 both starts are one.
    noise = Level(torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64))
    assert torch.equal(bench._true(noise, 2, 3), keyed_noise(2, 0, 3 * N, N, (2,)))


def test_the_net_and_the_exact_denoiser_are_sampled_from_the_same_noise(
    bench: claim._Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[bool, int, int]] = []

    def spy(
        denoiser: Denoiser, sampler: Sampler, path: Schedule, seed: int, i: int, start: object
    ) -> claim._Drawn:
        asked.append((denoiser is bench.target, seed, i))
        return claim._Drawn(1.0, T, 0.1)

    monkeypatch.setattr(bench, "_drawn", spy)
    contender = contenders("post")[0]
    for way in WAYS:
        asked.clear()
        list(bench.trained(way, "post", contender, 5, 1.0, 1))
        list(bench.exact(way, "post", contender, 5))
        assert asked == [(False, 5, 0), (False, 5, 1)] + [(True, 5, 0), (True, 5, 1)] * 2


def test_sets_of_one_seed_share_no_noise_and_all_schedules_share_all(bench: claim._Bench) -> None:
    asked: dict[str, list[Tensor]] = {}

    def spy(name: str) -> Callable[[Tensor, Level], Tensor]:
        def denoiser(x: Tensor, level: Level) -> Tensor:
            asked.setdefault(name, []).append(x)
            return x

        return denoiser

    for name in ("linear", "quad"):
        way = way_of(
            "plain", next(c.schedule for c in contenders("post") if c.name == name), X_0, (T,), 0
        )
        for i in (0, 1):
            bench._drawn(spy(name), *way.paths[0], 6, i, way.start)
    linear, quad = ([asked[name][k] for k in (0, T)] for name in ("linear", "quad"))
    for i in (0, 1):
        assert torch.equal(linear[i], quad[i])
    assert len(torch.cat(linear).unique(dim=0)) == 2 * N


# --- the experiment


TINY = Settings(
    seeds=2,
    steps=12,
    n=100,
    draws=1,
    exact_draws=1,
    shares=(0.5, 1.0),
    nfe=(T, 8),
    ranges=("noise",),
)
TWO = tuple(c for c in contenders("noise") if c.name in ("constant 0.088", "quad"))


@pytest.fixture(scope="module")
def found() -> Claim:
    calls = 0

    def advance() -> None:
        nonlocal calls
        calls += 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "REFERENCE", 2_000)
        patch.setattr(metrics, "FLOOR_SETS", 20)
        patch.setattr(claim, "contenders", lambda range_: TWO)
        result = run_claim(TINY, advance)
        assert calls == TINY.units == 2 * 2 * 2 * (2 + 1)
    return result


def test_every_training_is_there_once(found: Claim) -> None:
    result = found
    trainings = {(r.way, r.range, r.schedule, r.seed, r.share) for r in result.rows}
    names = [c.name for c in TWO]
    assert trainings == {
        (w, "noise", name, seed, share)
        for w in WAYS
        for name in names
        for seed in (0, 1)
        for share in (0.5, 1.0)
    }
    keys = [(*r[:5], r.nfe) for r in result.rows]
    assert len(set(keys)) == len(keys)
    few = [r for r in result.rows if r.nfe == 8]
    assert {(r.way, r.share) for r in few} == {("ours", 1.0)}
    assert len(few) == 2 * len(names)
    for row in result.rows:
        assert row.steps == {0.5: 6, 1.0: 12}[row.share]
        assert len(row.squares) == 1
        assert row.train_seconds > 0
        assert row.sample_seconds > 0
        assert 0 < row.loss < 100
    assert {len(i.squares) for i in result.ideals} == {1}
    assert len(result.ideals) == len(names) * 2 * 2 * 3  # two seeds, two starts, three paths


def test_the_same_training_again_is_the_same(found: Claim) -> None:
    data, contender = swiss_roll(TINY.n), TWO[1]
    bench = claim._Bench(replace(TINY, draws=2), data, yardstick_of(data, 2_000, 20))
    again = list(bench.trained("ours", "noise", contender, 1, 1.0, 12))
    before = [
        r
        for r in found.rows
        if (r.way, r.schedule, r.seed, r.share) == ("ours", contender.name, 1, 1.0)
    ]
    assert {len(r.squares) for r in again} == {2}
    assert [r.squares[:1] for r in again] == [r.squares for r in before]
    assert [r.loss for r in again] == [r.loss for r in before]
    # Fewer steps are another training, with a rate that falls to 0 at its own end.
    (shorter,) = bench.trained("ours", "noise", contender, 1, 0.5, 12)
    assert shorter.squares != again[0].squares


def test_everything_is_json_and_can_be_drawn(found: Claim) -> None:
    result = found
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(claim, "contenders", lambda range_: TWO)
        told = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    panels = result.panels()
    assert told["settings"] == json.loads(json.dumps(asdict(TINY)))
    assert told["steps"] == 12
    assert [s["name"] for s in told["schedules"]] == ["constant 0.088", "quad"]
    for one in told["schedules"]:
        table = SCHEDULES.parse(one["spec"])
        assert one["alpha_bar_T"] == pytest.approx(1e-4)
        assert one["alpha_bar_T"] == table.alpha_bar[T].item()
        assert one["log_snr_1"] == pytest.approx(math.log(1 / table.beta[1].item() - 1))
        assert (one["range"], one["grows"]) == ("noise", one["name"] == "quad")
    assert len(told["rows"]) == len(result.rows)
    # (2 shares of `plain`; 2 of `ours`, and 8 evaluations) for each schedule
    assert len(told["summaries"]) == len(told["parts"]) == 5 * 2
    questions = [(v["question"], v["way"], v["share"], v["nfe"]) for v in told["verdicts"]]
    assert questions == [
        ("better", "plain", 1.0, T),
        ("faster", "plain", 0.5, T),
        ("better", "ours", 1.0, T),
        ("better", "ours", 1.0, 8),
        ("faster", "ours", 0.5, T),
    ]
    assert [p["schedule"] for p in told["verdicts"][0]["pairs"]] == ["quad"]
    assert list(panels) == [("plain", "noise"), ("ours", "noise")]
    for (way, range_), panel in panels.items():
        for name, (ratio, low, high, exact) in panel.items():
            ratios = result.ratios(way, range_, name)  # type: ignore[arg-type]
            assert min(ratios) <= ratio <= max(ratios)
            assert low is not None
            assert high is not None
            assert low < ratio < high
            assert exact > 0
    assert schedule_ratios(panels).axes


# --- how results are read


def claim_of(
    ratio: Callable[[str, str, str, float, int], list[float]],
    true: float = 1.5,
    own: float = 2.0,
    **options: object,
) -> Claim:
    """A claim whose two sets have the squares r² ± 0.25, r as told, for each seed."""
    settings = Settings(
        **{"seeds": 5, "draws": 2, "exact_draws": 2, "shares": (0.25, 1.0), **options}
    )  # type: ignore[arg-type]
    rows, ideals = [], []
    for way in WAYS:
        for range_ in RANGES:
            for c in contenders(range_):
                for share in settings.shares:
                    for nfe in settings.nfe if way == "ours" and share == 1 else (T,):
                        for seed, r in enumerate(ratio(way, range_, c.name, share, nfe)):
                            sets = (r**2 + 0.25, r**2 - 0.25)
                            rows.append(
                                Row(way, range_, c.name, seed, share, 9, 1.0, 0.5, nfe, 0.1, sets)
                            )
                for nfe in settings.nfe if way == "ours" else (T,):
                    for seed in range(settings.seeds):
                        for start, q in (("true", true), ("own", own)):
                            sets = (q + 0.1 * seed, q + 0.1 * seed)
                            ideals.append(Ideal(way, range_, c.name, seed, nfe, start, sets))  # type: ignore[arg-type]
    return Claim(settings, 9, 0.01, tuple(reversed(rows)), tuple(reversed(ideals)))


def scattered(mean: float) -> list[float]:
    return [mean * v for v in (1.02, 0.97, 1.0, 1.03, 0.99)]


def test_parts_add_up_from_the_true_start_to_the_net() -> None:
    result = claim_of(lambda *_: [2.0, 3.0, 2.5, 2.0, 3.0])
    for parts in result.parts():
        # `true` and `own` have 1.5 and 2.0, and 0.1 more for each seed 0..4
        assert parts.discretisation.value == pytest.approx(0.7)
        assert parts.discretisation.standard_error == pytest.approx(
            np.std([0, 0.1, 0.2, 0.3, 0.4], ddof=1) / math.sqrt(5)
        )
        assert parts.start.value == pytest.approx(0.5)
        assert parts.start.standard_error == pytest.approx(0, abs=1e-9)
        net = np.array([4, 9, 6.25, 4, 9])
        learning = net - (2.0 + 0.1 * np.arange(5))
        assert parts.learning.value == pytest.approx(learning.mean())
        assert parts.learning.standard_error == pytest.approx(stats.sem(learning))
        assert parts.total.value == pytest.approx(net.mean())
        together = 1 + parts.discretisation.value + parts.start.value + parts.learning.value
        assert together == pytest.approx(parts.total.value)


def test_parts_compare_the_sets_that_both_drew() -> None:
    result = claim_of(lambda *_: [2.0] * 5, exact_draws=1)
    assert result.parts()[0].total.value == pytest.approx(4.25)  # the first of 4 ± 0.25
    assert result.summaries()[0].ratio.mean == pytest.approx(2.0)


def test_summaries_are_geometric_means_beside_the_exact_denoisers() -> None:
    result = claim_of(lambda way, *_: scattered(2.0 if way == "plain" else 3.0))
    for summary in result.summaries():
        mean = {"plain": 2.0, "ours": 3.0}[summary.way]
        assert summary.ratio.mean == pytest.approx(mean * stats.gmean(scattered(1)))
        assert summary.exact == pytest.approx(math.sqrt(2.2))  # 2.0 and 0.2 in the mean
    with pytest.raises(ValueError, match="was not measured"):
        result.ratios("plain", "post", "cosine")


def test_verdicts_are_those_of_the_right_rows() -> None:
    def ratio(way: str, range_: str, name: str, share: float, nfe: int) -> list[float]:
        grows = name in GROWING
        if way == "plain" and range_ == "noise":
            return scattered(1.5 if grows else 4)  # holds, whenever
        if way == "plain":
            return scattered(6 if grows else 3 if name == "constant 0.035" else 6)
        if range_ == "noise" and nfe == T:
            return scattered(2 if grows and share < 1 else 3)  # the same in the end
        return [2, 3, 1.8, 2.2, 2.9] if name == "quad" else scattered(2)

    verdicts = claim_of(ratio).verdicts()
    found = {(v.way, v.range, v.against, v.question, v.nfe): v.answer for v in verdicts}
    assert len(found) == len(verdicts) == 3 * 2 + 3 * 3
    for question in ("better", "faster"):
        assert found["plain", "noise", "constant 0.088", question, T] == "holds"
        assert found["plain", "post", "constant 0.035", question, T] == "does not hold"
        assert found["plain", "post", "constant 0.00501", question, T] == "does not hold"
        # linear and sigmoid are surely the same
        assert found["ours", "post", "constant 0.00501", question, T] == "does not hold"
    assert found["ours", "noise", "constant 0.088", "better", T] == "does not hold"
    assert found["ours", "noise", "constant 0.088", "faster", T] == "holds"
    assert found["ours", "noise", "constant 0.088", "better", 20] == "does not hold"
    (verdict,) = (v for v in verdicts if v[:4] == ("better", "plain", "noise", "constant 0.088"))
    assert [p.schedule for p in verdict.pairs] == list(GROWING)
    assert all(p.factor.mean == pytest.approx(1.5 / 4) for p in verdict.pairs)


def test_one_seed_decides_nothing() -> None:
    result = claim_of(lambda *_: [2.0], seeds=1)
    assert {v.answer for v in result.verdicts()} == {"undecided"}
    assert all(s.ratio == Interval(pytest.approx(2.0), None, None) for s in result.summaries())
    assert all(p.total.standard_error is None for p in result.parts())
    assert all(pair.p is None for v in result.verdicts() for pair in v.pairs)
    json.dumps(result.to_dict(), allow_nan=False)
    assert schedule_ratios(result.panels()).axes


# --- statistics, against scipy's


def test_intervals_are_scipys() -> None:
    rng = np.random.default_rng(0)
    for n in (2, 5, 30):
        a, b = np.exp(rng.normal(1, 0.3, (2, n)))
        logs = np.log(a)
        low, high = stats.t.interval(0.95, n - 1, logs.mean(), stats.sem(logs))
        assert geometric_mean(list(a)) == pytest.approx(
            (stats.gmean(a), math.exp(low), math.exp(high))
        )
        test = stats.ttest_rel(logs, np.log(b))
        for family in (1, 3):
            pair = compared("a", list(a), "b", list(b), family)
            ends = test.confidence_interval(1 - 0.05 / family)
            assert pair.p == pytest.approx(test.pvalue)
            assert pair.factor == pytest.approx(
                (math.exp((logs - np.log(b)).mean()), math.exp(ends.low), math.exp(ends.high))
            )
            assert (pair.schedule, pair.against) == ("a", "b")


def test_three_intervals_hold_together_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    trials = 600
    together = 0
    for _ in range(trials):
        base = rng.normal(0, 0.3, 5)  # what the seeds have in common, which pairs take off
        constant = base + rng.normal(1.0, 0.1, 5)
        held = [
            compared(
                "x", list(np.exp(base + rng.normal(0.7, 0.1, 5))), "c", list(np.exp(constant)), 3
            )
            for _ in range(3)
        ]
        low, high = ([getattr(p.factor, end) for p in held] for end in ("low", "high"))
        together += max(low) < math.exp(-0.3) < min(high)
    # Bonferroni's inequality, and the pairs share a constant: a little above 95 %.
    assert 0.935 < together / trials < 0.98


def test_pairs_without_spread() -> None:
    same = compared("a", [2.0, 2.0], "b", [2.0, 2.0])
    assert same.factor == (1, 1, 1)
    assert same.p == 1
    twice = compared("a", [4.0, 4.0], "b", [2.0, 2.0])
    assert twice.factor == pytest.approx((2, 2, 2))
    assert twice.p == 0
    with pytest.raises(ValueError, match="zip"):
        compared("a", [1.0], "b", [1.0, 2.0])


@pytest.mark.parametrize(
    ("intervals", "expected"),
    [
        ([(0.5, 0.9), (0.2, 0.99), (0.97, 0.999)], "holds"),
        ([(0.5, 0.9), (0.2, 0.99), (0.9, 1.1)], "undecided"),
        ([(0.5, 0.9), (0.2, 0.99), (1.001, 1.1)], "does not hold"),
        ([(0.5, 0.9), (0.2, 0.99), (0.96, 1.04)], "does not hold"),  # surely no difference
        ([(0.5, 0.9), (0.2, 0.99), (0.94, 1.04)], "undecided"),
        ([(0.5, 0.9), (0.2, 0.99), (0.96, 1.06)], "undecided"),
        ([(0.97, 0.999), (0.2, 0.99), (0.9, 1.1)], "undecided"),  # a small gain is a gain
        ([(0.5, 1.5)] * 3, "undecided"),
        ([(1.5, 2.5)] * 3, "does not hold"),
        ([(0.5, 0.9), (0.2, 0.99), (None, None)], "undecided"),
        ([(1.5, 2.9), (None, None)], "undecided"),
    ],
)
def test_answers(intervals: list[tuple[float | None, float | None]], expected: str) -> None:
    pairs = [Pair("g", "c", Interval(1.0, low, high), 0.5) for low, high in intervals]
    assert answer(pairs) == expected


def test_estimates() -> None:
    values = [1.0, 2.0, 4.0]
    assert estimate(values) == pytest.approx((np.mean(values), stats.sem(values)))
    assert estimate([3.0]) == (3.0, None)


# --- settings


def test_seconds_become_steps_by_the_speed_after_warming_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def paced(*args: object) -> Iterator[SimpleNamespace]:
        steps = args[3]
        assert isinstance(steps, int)
        for i in range(1, steps + 1):  # a slow start, then 4 ms each
            yield SimpleNamespace(seconds=2.0 + 0.004 * i)

    monkeypatch.setattr(claim, "train", paced)
    assert steps_in(5.0, X_0) == 1250
    assert steps_in(0.0001, X_0) == 1


def test_steps_are_measured_only_where_they_are_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stop(Exception):
        pass

    def measure(seconds: float, x_0: Tensor) -> int:
        assert seconds == 7.0
        raise Stop

    monkeypatch.setattr(claim, "steps_in", measure)
    monkeypatch.setattr(claim, "contenders", lambda range_: ())
    monkeypatch.setattr(metrics, "REFERENCE", 100)
    monkeypatch.setattr(metrics, "FLOOR_SETS", 2)
    with pytest.raises(Stop):
        run_claim(Settings(n=10, seconds=7.0))
    assert run_claim(Settings(n=10, steps=3)).steps == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": 0}, "seeds = 0"),
        ({"seconds": 0.0}, "seconds = 0"),
        ({"steps": 0}, "steps = 0"),
        ({"draws": 0}, "draws = 0"),
        ({"draws": 2, "exact_draws": 3}, "exact_draws = 3: it must be a whole number from 1 to 2"),
        ({"n": 1}, "n = 1"),
        ({"shares": ()}, "end with 1"),
        ({"shares": (0.5,)}, "end with 1"),
        ({"shares": (0.5, 0.25, 1.0)}, "rise"),
        ({"shares": (0.5, 0.5, 1.0)}, "rise"),
        ({"shares": (0.0, 1.0)}, "share = 0"),
        ({"nfe": ()}, "the first must be 100"),
        ({"nfe": (20, 100)}, "the first must be 100"),
        ({"nfe": (100, 1)}, "nfe = 1"),
        ({"nfe": (100, 20, 20)}, "each must be there once"),
        ({"ways": ()}, "ways = .*choose from plain, ours"),
        ({"ways": ("plain", "plain")}, "each once"),
    ],
)
def test_settings_out_of_range(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings(**options)  # type: ignore[arg-type]


def test_units_are_a_training_or_an_exact_comparison_each() -> None:
    assert Settings(seeds=5).units == 5 * 9 * 2 * 4
    assert Settings(seeds=2, shares=(1.0,)).units == 2 * 9 * 2 * 2
