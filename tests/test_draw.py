"""Drawing from exact denoisers, and what samples are worth: laws, parts, starts, refusals."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from alphabar import data, draw, metrics
from alphabar.compare import evaluate, halves, judge, pooled, yardstick_of
from alphabar.data import Data, Standardiser
from alphabar.data.files import points
from alphabar.draw import Known, Learned, Plan, Source, Watched, choose, make_plan, source_of
from alphabar.metrics import Score
from alphabar.samplers import SAMPLERS, nfe_of, sample
from alphabar.schedule import SCHEDULES, Level, Schedule, from_log_snr
from alphabar.targets import Points


def still(what: str, total: int) -> Callable[[], None]:
    return lambda: None


def planned(source: Source, spec: str = "dpmpp_2m", steps: int = 8, **options: str) -> Plan:
    noise = SCHEDULES.parse(options.get("schedule", "linear"))
    choice = choose(spec, options.get("rule", "log_snr"), noise, steps)
    return make_plan(choice, source, noise, options.get("start", "auto"), 0, still)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A coarse yardstick: the commands wait for it longest."""
    monkeypatch.setattr(metrics, "REFERENCE", 4000)
    monkeypatch.setattr(metrics, "FLOOR_SETS", 10)


# --- what is drawn


@pytest.mark.parametrize(
    ("spec", "sampler"),
    [
        ("gaussians:modes=3", "dpmpp_2m"),
        ("gaussians:modes=3", "adaptive:rtol=0.01,atol=0.01"),
        ("swiss_roll", "ddpm"),
        ("checkerboard:n=500", "unipc"),
    ],
)
def test_parts_do_not_change_samples(
    spec: str, sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = source_of(data.load(spec), None)
    plan = planned(source, sampler, 6)
    whole = draw.draw(source, plan, 300, seed=4)
    monkeypatch.setattr(draw, "BATCH", 2 * 70)
    parts = draw.draw(source, plan, 300, seed=4)
    assert len(draw.batches(source, 300)) == 5
    torch.testing.assert_close(parts.x, whole.x, rtol=0, atol=1e-6)
    later = draw.draw(source, plan, 100, seed=4, first=200)
    torch.testing.assert_close(later.x, whole.x[200:], rtol=0, atol=1e-6)


def test_samples_are_those_of_the_library() -> None:
    source = source_of(data.load("moons"), None)
    plan = planned(source, "heun", 5)
    *_, last = sample(source.target, plan.sampler, plan.schedule, 50, (2,), 9, start=plan.start)
    assert torch.equal(draw.draw(source, plan, 50, 9).x, last.x)
    assert draw.draw(source, plan, 50, 9).nfe == 9


def test_what_was_watched_belongs_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draw, "BATCH", 2 * 16)
    source = source_of(data.load("gaussians:modes=3"), None)
    plan = planned(source, "ddim", 6)
    watched = Watched(range(7), 40)
    drawn = draw.draw(source, plan, 50, 1, watch=watched)
    trace = watched.trace(plan.schedule)
    assert trace.times == [6, 5, 4, 3, 2, 1, 0]
    assert torch.equal(trace.x[-1], drawn.x[:40])
    assert torch.equal(watched.x_0_hat[-1], drawn.x[:40])
    for t, x, said in zip(trace.times[:-1], trace.x, watched.x_0_hat, strict=False):
        torch.testing.assert_close(said, source.target(x, plan.schedule[t]))


def test_a_finite_set_gives_its_own_items() -> None:
    rows = points(np.random.default_rng(0).normal(size=(40, 1000)))
    source = source_of(rows, Standardiser.fit(rows.x))
    assert not source.is_law
    x = source.invert(draw.draw(source, planned(source, steps=20), 30, 0).x)
    assert x.dtype == torch.float64
    assert torch.cdist(x, rows.x).min(1).values.max() < 0.05


def test_a_law_is_not_standardised() -> None:
    moons = data.load("moons")
    with pytest.raises(ValueError, match="known in its own units alone"):
        source_of(moons, Standardiser.fit(moons.x))


def test_far_from_zero_all_is_float64() -> None:
    rng = np.random.default_rng(0)
    far = points(1e8 + rng.normal(size=(50, 2)))
    source = source_of(far, None)
    assert source.dtype == torch.float64
    x = draw.draw(source, planned(source), 20, 0).x
    assert x.dtype == torch.float64
    apart = torch.linalg.vector_norm(x[:, None] - far.x, dim=2)  # cdist squares, and loses all
    assert apart.min(1).values.max() < 0.05
    assert source_of(points(1e8 * rng.normal(size=(50, 2))), None).dtype == torch.float32
    assert source_of(data.photo("china", size=16), None).dtype == torch.float32  # no spread at all


def learned(x: Tensor, standardiser: Standardiser | None = None) -> tuple[Learned, Known]:
    """A source as a run has it, and the exact one of the same items."""
    known = Known(Points(x), x, False, standardiser)
    law = known.law
    mean = x.double().mean(0)
    return Learned(known.target, mean, law.cov, law.cov.diagonal(), standardiser), known


def test_a_trained_denoiser_is_drawn_from_like_a_known_one() -> None:
    scaler = Standardiser(torch.tensor([5.0, -1.0]).double(), torch.tensor([2.0, 3.0]).double())
    own, known = learned(data.load("moons:n=200").x, scaler)
    for level in (SCHEDULES.parse("linear")[1000], SCHEDULES.parse("linear:T=50")[50]):
        assert own.gap(level) == pytest.approx(known.gap(level), rel=1e-6)
    assert own.spread == pytest.approx(known.spread, rel=1e-9)
    assert (own.shape, own.dtype, own.is_large) == ((2,), torch.float32, False)
    for options in ({}, {"start": "matched"}, {"schedule": "linear:T=50"}):
        drawn = [draw.draw(s, planned(s, **options), 40, 3).x for s in (own, known)]
        torch.testing.assert_close(drawn[0], drawn[1], rtol=0, atol=1e-6)
    torch.testing.assert_close(
        own.invert(drawn[0]),
        torch.tensor([5.0, -1.0]) + torch.tensor([2.0, 3.0]) * drawn[0].double(),
    )


def test_a_trained_denoiser_of_large_items_has_no_matched_start() -> None:
    x = torch.randn(6, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    mean, var = x.double().mean(0), x.double().flatten(1).var(0, correction=0)
    own = Learned(Points(x), mean, None, var, None)
    assert own.is_large
    assert own.spread == pytest.approx(var.max().sqrt().item())
    assert planned(own, steps=2).start_name == "noise"
    for options in ({"start": "matched"}, {"rule": "fitted"}):
        with pytest.raises(ValueError, match="covariance of at most 4096"):
            planned(own, steps=2, **options)


# --- where it starts


@pytest.mark.parametrize("spec", ["linear", "cosine:T=10", "karras", "flow", "linear:T=30"])
def test_the_gap_is_the_divergence(spec: str) -> None:
    """Against the divergence of two normal laws, by torch."""
    x = (
        torch.tensor([[1.0, 2.0, 0.5]])
        + torch.randn(60, 3, generator=torch.Generator().manual_seed(0)).double()
        @ torch.tensor([[2.0, 0.3, 0.0], [0.0, 1.0, 0.2], [0.0, 0.0, 0.1]]).double()
    )
    source = source_of(points(x), None)
    level = SCHEDULES.parse(spec)[SCHEDULES.parse(spec).T]
    eye = torch.eye(3, dtype=torch.float64)
    total = level.alpha**2 + level.sigma**2
    normal = torch.distributions.MultivariateNormal
    cov = level.alpha**2 * torch.cov(x.T, correction=0) + level.sigma**2 * eye
    expected = torch.distributions.kl_divergence(
        normal(level.alpha * x.mean(0), cov), normal(torch.zeros(3).double(), total * eye)
    )
    assert source.gap(level) == pytest.approx(expected.item() / 3, rel=1e-6, abs=1e-12)


def test_the_start_is_matched_where_noise_is_not_reached() -> None:
    source = source_of(data.load("swiss_roll"), None)
    assert planned(source).start is None
    assert planned(source, schedule="linear:T=100").start is not None
    assert planned(source, schedule="linear:T=100", start="noise").start is None
    assert planned(source, start="matched").start is not None
    tiny = source_of(points(1e-8 * np.random.default_rng(0).normal(size=(50, 2))), None)
    # The noise at T has variance 1 in this scale only if the data has too.
    assert planned(tiny, schedule="log_snr:start=46.8,end=26.8").start is not None


def test_a_matched_start_mends_a_schedule_that_ends_early(quick: None) -> None:
    roll = data.load("swiss_roll")
    source = source_of(roll, None)
    yardstick = yardstick_of(roll, None, None, 1000)
    spec = "linear:T=1000,start=1e-4,end=0.001"
    ratio = {
        start: evaluate(
            source, planned(source, schedule=spec, start=start), yardstick, 1000, 2, 0
        ).ratio
        for start in ("noise", "matched")
    }
    assert ratio["matched"] < 0.5 * ratio["noise"]


def test_large_items_have_no_matched_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draw, "MAX_COV", 100)
    source = source_of(data.photo("china", size=16), None)
    assert planned(source, steps=2).start is None
    with pytest.raises(ValueError, match="take --start noise"):
        planned(source, steps=2, start="matched")
    with pytest.raises(ValueError, match="take --start noise"):
        planned(source, steps=2, schedule="linear:T=100")


def test_numbers_that_float32_cannot_square() -> None:
    with pytest.raises(ValueError, match="add --standardise"):
        source_of(points(1e20 * np.arange(9.0)), None)


# --- how many steps


@pytest.mark.parametrize("entry", [e.name for e in SAMPLERS if e.takes_no_argument])
@pytest.mark.parametrize("rule", ["log_snr", "trailing", "leading", "linspace"])
@pytest.mark.parametrize("schedule", ["linear", "flow"])
def test_as_many_steps_as_the_calls_allow(entry: str, rule: str, schedule: str) -> None:
    noise, sampler = SCHEDULES.parse(schedule), SAMPLERS.parse(entry)
    if entry == "adaptive":
        with pytest.raises(ValueError, match="as its tolerance needs"):
            choose(entry, "log_snr", noise, nfe=20)
        return
    least = nfe_of(sampler, noise.spaced(1, "log_snr"))
    for nfe in (least, least + 1, 13, 40):
        steps = choose(entry, rule, noise, nfe=nfe).steps
        assert nfe_of(sampler, noise.spaced(steps, rule)) <= nfe  # type: ignore[arg-type]
        assert nfe_of(sampler, noise.spaced(steps + 1, rule)) > nfe  # type: ignore[arg-type]


def test_steps_that_were_left_out() -> None:
    assert choose("ddim", "log_snr", SCHEDULES.parse("linear")).steps == 20
    assert choose("ddim", "trailing", SCHEDULES.parse("linear:T=7")).steps == 7
    assert choose("ddim", "all", SCHEDULES.parse("linear:T=77")).steps == 77


# --- fitted steps


@pytest.mark.parametrize("rule", ["curvature", "fitted"])
def test_fitted_steps_come_again_from_their_spec(
    rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alphabar.fit.ROUNDS", 5)
    monkeypatch.setattr("alphabar.fit.FINE", 30)
    monkeypatch.setattr("alphabar.fit.ITEMS", 64)
    source = source_of(data.load("gaussians:modes=2"), None)
    plan = planned(source, "dpmpp_2m", 4, rule=rule)
    assert plan.start is not None
    assert plan.fit_seconds is not None
    again = Plan(
        SAMPLERS.parse(plan.sampler.spec),
        "all",
        SCHEDULES.parse(plan.schedule.spec),
        source.law,
        0.0,
        None,
    )
    assert torch.equal(draw.draw(source, plan, 20, 3).x, draw.draw(source, again, 20, 3).x)


# --- a denoiser that is wrong says where


class Broken(Points):
    """A target that answers wrongly once σ is below ½."""

    wrong: Callable[[Tensor], Tensor]

    def __call__(self, x_t: Tensor, level: Level) -> Tensor:
        return self.wrong(x_t) if level.sigma < 0.5 else super().__call__(x_t, level)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda x: x[:, :1], r"at t = 5 the denoiser returned torch.float32 of shape \(10, 1\)"),
        (lambda x: x.double(), "at t = 5 the denoiser returned torch.float64"),
        (lambda x: x * math.nan, "at t = 5 the denoiser returned NaN or inf"),
    ],
)
def test_a_wrong_answer_names_its_level(wrong: Callable[[Tensor], Tensor], message: str) -> None:
    noise: Schedule = from_log_snr([5.0, 4.0, 3.0, 2.5, 2.0, -1.0, -2.0, -9.0])
    x = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])
    target = Broken(x)
    target.wrong = wrong
    source = Known(target, x, False, None)
    plan = Plan(SAMPLERS.parse("ddim"), "all", noise, None, 0.0, None)
    with pytest.raises(ValueError, match=message):
        draw.draw(source, plan, 10, 0)


# --- what samples are worth


def test_draws_are_pooled() -> None:
    scores = [Score(r * 0.2, 0.2, r, 1) for r in (1.0, 1.2, 0.9, 1.4)]
    pool, error = pooled(scores)
    squares = np.array([1.0, 1.44, 0.81, 1.96])
    assert pool.ratio == pytest.approx(np.sqrt(squares.mean()))
    assert pool.value == pytest.approx(0.2 * pool.ratio)
    assert pool.draws == 4
    # The slope of the root, by a finite difference.
    slope = (np.sqrt(squares.mean() + 1e-6) - pool.ratio) / 1e-6
    assert error == pytest.approx(squares.std(ddof=1) / 2 * slope, rel=1e-4)
    assert pooled(scores[:1])[1] is None


def test_true_draws_score_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against 40 files: ratio² deviates by 0.5, their mean by 0.08; false alarms are 1 in 10⁵.

    A floor that left out the file's own chance, or the set's, would give 2.
    """
    monkeypatch.setattr(metrics, "FLOOR_SETS", 20)
    rng = np.random.default_rng(0)
    squares = []
    for _ in range(40):
        rows, fresh = rng.normal(size=(100, 2)), rng.normal(size=(100, 2))
        found = judge(torch.from_numpy(fresh), points(rows), None)
        squares.append(found.score.ratio**2)
        assert (found.n, found.reference, found.copies) == (100, 100, 0)
    assert np.mean(squares) == pytest.approx(1, abs=0.35)


def test_a_long_file_is_several_draws(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alphabar.compare.SET", 100)
    roll = data.load("swiss_roll:n=350")
    x = roll.x[roll.x[:, 0].argsort()]  # sorted: a draw of its first rows would be half a roll
    found = judge(x, data.load("swiss_roll"), None)
    assert (found.score.draws, found.n) == (3, 100)
    assert found.score.ratio < 2


def test_halves_share_no_row() -> None:
    rows = points(np.arange(41.0))
    parts = halves(rows, 5)
    assert parts is not None
    assert sorted([*parts.used.tolist(), *parts.held_out.tolist()]) == list(range(41))
    again = halves(rows, 5)
    assert again is not None
    assert torch.equal(parts.used, again.used)
    assert halves(data.load("moons"), 5) is None


def test_draws_share_no_noise(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    moons: Data = data.load("moons")
    source = source_of(moons, None)
    plan = planned(source)
    first, second = (draw.draw(source, plan, 10, 1, first=i).x for i in (0, 10))
    both = draw.draw(source, plan, 20, 1).x
    torch.testing.assert_close(torch.cat([first, second]), both)
    begun: list[int] = []

    def spy(source: Source, plan: Plan, n: int, seed: int, first: int) -> draw.Drawn:
        begun.append(first)
        return draw.draw(source, plan, n, seed, first)

    monkeypatch.setattr("alphabar.compare.draw", spy)
    row = evaluate(source, plan, yardstick_of(moons, None, None, 200), 200, 3, 1)
    assert begun == [0, 200, 400]
    assert row.draws == 3
    assert row.standard_error is not None
    assert row.ratio == pytest.approx(row.value / row.floor)


def test_memory_is_refused_before_it_is_taken(tmp_path: Path) -> None:
    source = source_of(data.load("moons"), None)
    draw.check_memory(source, 10**8)
    with pytest.raises(ValueError, match="GiB, more than the 4"):
        draw.check_memory(source, 10**7, 1000, 10**7)
    with pytest.raises(ValueError, match="-n = 0"):
        draw.check_memory(source, 0)
