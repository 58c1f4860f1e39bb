"""Errors of known size, put into denoisers and steps, come out under their own names."""

import json
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from alphabar import decompose as decomposing
from alphabar import metrics
from alphabar.compare import evaluate
from alphabar.decompose import Decomposition, Way, decompose, finely
from alphabar.draw import Known, Plan
from alphabar.metrics import SlicedW2, Yardstick, against_fresh
from alphabar.samplers import Normal, ddim, ddpm, dpmpp_2m, sample
from alphabar.schedule import Level, Schedule, log_snr
from alphabar.targets import Mixture, Points

N, DRAWS = 500, 6
LEVELS = log_snr(100)


def gaussian(mean: list[float], std: float) -> Mixture:
    return Mixture([1.0], torch.tensor([mean]), var=torch.tensor([std**2]))


TRUTH = gaussian([0.0, 0.0], 1.0)
START = Normal(torch.zeros(2), torch.eye(2))


def yardstick_of(target: Mixture, n: int = N) -> Yardstick:
    def fresh(m: int, seed: int) -> Tensor:
        return target.sample(m, torch.Generator().manual_seed(100 + seed))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "REFERENCE", 40_000)
        patch.setattr(metrics, "FLOOR_SETS", 100)
        return against_fresh(n, fresh)


@pytest.fixture(scope="module")
def yardstick() -> Yardstick:
    return yardstick_of(TRUTH)


def way(steps: int, start: Normal | None = START) -> Way:
    return Way(ddim(), LEVELS.spaced(steps, "log_snr"), start)


def end_of_ddim(schedule: Schedule, mean: float, std: float) -> tuple[float, float]:
    """Where DDIM leads N(0, 1) with the denoiser of N(mean, std²): each step is x ← u·x + v."""
    at, spread = 0.0, 1.0
    for t in range(schedule.T, 0, -1):
        (a_t, s_t), (a_s, s_s) = ((float(v) for v in schedule[k]) for k in (t, t - 1))
        gain = a_t * std**2 / (a_t**2 * std**2 + s_t**2)  # x̂_0 = mean + gain·(x − a_t·mean)
        shift = mean * (1 - gain * a_t)
        u = s_s / s_t + (a_s - a_t * s_s / s_t) * gain
        at, spread = u * at + (a_s - a_t * s_s / s_t) * shift, u * spread
    return at, spread


def close(found: decomposing.Part, expected: float, slack: float) -> None:
    assert found.standard_error is not None
    assert abs(found.square - expected) < 4 * found.standard_error + slack


def assert_adds_up(found: Decomposition) -> None:
    assert sum(part.square for part in found.parts) == pytest.approx(found.total.square)
    named = [part.name for part in found.rows()]
    assert named == ["noise", "model", "discretisation", "interaction", "rest", "total"]
    three = sum(part.square for part in found.parts[1:4])
    assert found.systematic.square == pytest.approx(three)
    for part in found.rows():
        assert part.floors == pytest.approx(part.square / found.floor**2)


def test_every_part_has_the_size_that_was_put_in(yardstick: Yardstick) -> None:
    """W2² of N(0, 1) and N(m, s²) on a line is m² + (1 − s)²: all four corners in closed form."""
    few, many = way(8), way(60)
    trained = gaussian([0.5, 0.0], 1.3)
    found = decompose(trained, TRUTH, few, many, yardstick, N, DRAWS, 0)
    corner = {}
    for who, (mean, std) in (("trained", (0.5, 1.3)), ("exact", (0.0, 1.0))):
        for how, schedule in (("few", few.schedule), ("many", many.schedule)):
            a, spread = end_of_ddim(schedule, mean, std)
            b, _ = end_of_ddim(schedule, 0.0, std)
            corner[who, how] = (a**2 + b**2) / 2 + (1 - spread) ** 2
    slack = 0.05 * corner["trained", "many"]  # the noise is as large as the spread, and not 1
    assert corner["trained", "many"] > 20 * yardstick.floor
    assert corner["exact", "few"] > 5 * yardstick.floor
    close(found.model, corner["trained", "many"] - corner["exact", "many"], slack)
    close(found.discretisation, corner["exact", "few"] - corner["exact", "many"], slack)
    both = corner["trained", "few"] + corner["exact", "many"]
    both -= corner["trained", "many"] + corner["exact", "few"]
    assert both < -5 * yardstick.floor  # these errors cancel
    close(found.interaction, both, slack)
    close(found.rest, corner["exact", "many"], 0)
    assert_adds_up(found)
    assert found.noise.square == yardstick.floor
    assert found.noise.standard_error is None
    assert found.floor == math.sqrt(yardstick.floor)
    assert found.ratio == pytest.approx(math.sqrt(found.total.square / yardstick.floor))
    rest = found.total.square - found.rest.square
    assert found.steady_ratio == pytest.approx(math.sqrt(rest / yardstick.floor))
    assert found.blame == found.model


def test_a_wrong_start_is_in_the_rest(yardstick: Yardstick) -> None:
    """x_T too wide, in both ways: the exact denoiser cannot make it good, at however many steps."""
    wide = Normal(torch.zeros(2), 100.0**2 * torch.eye(2))
    found = decompose(TRUTH, TRUTH, way(100, wide), way(100, wide), yardstick, N, 3, 0)
    alpha, sigma = (float(v) for v in LEVELS[100])
    spread = math.hypot(100 * alpha, sigma)
    assert spread > 1.1
    close(found.rest, (spread - 1) ** 2, 0.02)
    assert found.systematic.square == 0


def test_the_exact_denoiser_has_no_model_error_at_all(yardstick: Yardstick) -> None:
    found = decompose(TRUTH, TRUTH, way(5), way(60), yardstick, N, 3, 1)
    assert (found.model.square, found.model.standard_error) == (0, 0)
    assert (found.interaction.square, found.interaction.standard_error) == (0, 0)
    assert found.discretisation.square > 4 * (found.discretisation.standard_error or math.inf)
    assert found.blame == found.discretisation
    assert_adds_up(found)


def test_the_same_way_twice_has_no_discretisation_error(yardstick: Yardstick) -> None:
    found = decompose(gaussian([0.3, 0.0], 1.0), TRUTH, way(20), way(20), yardstick, N, 3, 1)
    assert (found.discretisation.square, found.interaction.square) == (0, 0)
    assert found.model.square > 4 * (found.model.standard_error or math.inf)
    assert found.blame == found.model


def test_the_noise_is_shared_so_that_a_small_error_is_seen(yardstick: Yardstick) -> None:
    """Of the size of floor²/4: hidden in the noise of the draws, clear beside the exact one."""
    found = decompose(gaussian([0.04, 0.04], 1.0), TRUTH, way(25), way(25), yardstick, N, 8, 3)
    trained, _, exact, _ = found.runs
    assert trained.standard_error is not None
    assert exact.standard_error is not None
    apart = math.hypot(trained.standard_error, exact.standard_error)
    assert (found.model.standard_error or math.inf) < apart / 2
    close(found.model, 0.04**2, 0)


def test_standard_errors_are_those_of_the_draws(yardstick: Yardstick) -> None:
    """Set by set, from the loop itself and a plain sort."""
    trained, few, many = gaussian([0.2, 0.0], 1.0), way(4), way(30)
    found = decompose(trained, TRUTH, few, many, yardstick, N, 3, 9)
    squares = np.empty((2, 2, 3))
    for a, denoiser in enumerate((trained, TRUTH)):
        for b, how in enumerate((few, many)):
            for i in range(3):
                *_, last = sample(
                    denoiser, ddim(), how.schedule, N, (2,), 9, first=i * N, start=START
                )
                rising = np.sort(last.x.double().numpy() @ metrics.directions(2).numpy(), axis=0)
                squares[a, b, i] = ((rising.T - yardstick.distance.quantiles.numpy()) ** 2).mean()
    tf, tm, ef, em = squares.reshape(4, 3)
    expected = {
        "model": tm - em,
        "discretisation": ef - em,
        "interaction": tf - tm - ef + em,
        "rest": em - yardstick.floor,
        "total": tf,
        "systematic": tf - em,
    }
    for part in [*found.rows()[1:], found.systematic]:
        values = expected[part.name]
        assert part.square == pytest.approx(values.mean(), rel=1e-4, abs=1e-7)
        assert part.standard_error == pytest.approx(values.std(ddof=1) / math.sqrt(3), rel=1e-3)
    for run, values in zip(found.runs, (tf, tm, ef, em), strict=True):
        assert run.square == pytest.approx(values.mean(), rel=1e-4)
        assert run.standard_error == pytest.approx(values.std(ddof=1) / math.sqrt(3), rel=1e-3)
        assert run.ratio == pytest.approx(math.sqrt(values.mean() / yardstick.floor), rel=1e-4)
    assert [(r.denoiser, r.steps, r.nfe) for r in found.runs] == [
        ("trained", 4, 4),
        ("trained", 30, 30),
        ("exact", 4, 4),
        ("exact", 30, 30),
    ]


def test_the_total_is_what_compare_reports(yardstick: Yardstick) -> None:
    trained = gaussian([0.2, 0.0], 1.0)
    few = way(6, None)
    source = Known(trained, torch.zeros(1, 2), True, None)
    row = evaluate(source, Plan(few.sampler, "", few.schedule, None, 0, None), yardstick, N, 3, 5)
    found = decompose(trained, TRUTH, few, way(30), yardstick, N, 3, 5)
    assert found.ratio == pytest.approx(row.ratio)
    assert found.total.standard_error is not None
    error = found.total.standard_error / yardstick.floor / (2 * found.ratio)
    assert error == pytest.approx(row.standard_error)


# --- the training set's share


@pytest.fixture(scope="module")
def training() -> Tensor:
    return TRUTH.sample(N, torch.Generator().manual_seed(77)) + torch.tensor([0.1, 0.0])


@pytest.fixture(autouse=True)
def small_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decomposing, "REFERENCE", 20_000)
    monkeypatch.setattr(decomposing, "REFERENCES", 3)


def test_a_memorised_set_is_inherited_and_nothing_else(
    yardstick: Yardstick, training: Tensor
) -> None:
    fine = finely(LEVELS, START, 40)
    found = decompose(Points(training), TRUTH, fine, fine, yardstick, N, 4, 2, training)
    inherited = found.inherited
    assert inherited is not None
    exact = training @ metrics.directions(2)
    quantiles = torch.distributions.Normal(0, 1).icdf((torch.arange(N).double() + 0.5) / N)
    deviation = (exact.sort(0).values - quantiles[:, None]).square().mean().item()
    assert inherited.deviation == pytest.approx(deviation, rel=0.08)
    generator = torch.Generator().manual_seed(3)
    alike = [training[torch.randint(N, (N,), generator=generator)] for _ in range(150)]
    rising = torch.stack([(x @ metrics.directions(2)).sort(0).values for x in alike]).mean(0)
    off = exact.sort(0).values - quantiles[:, None]
    share = ((rising - quantiles[:, None]) * off).mean().item() / deviation
    assert 0.8 < share < 1  # of sets drawn again from the training set
    assert inherited.share == pytest.approx(share, abs=0.05)
    assert found.model.standard_error is not None
    own = found.model.square - inherited.square
    assert abs(own) < 4 * found.model.standard_error
    assert inherited.floors == pytest.approx(inherited.square / yardstick.floor)


def test_half_of_a_shift_is_inherited_where_the_model_has_half_of_it(yardstick: Yardstick) -> None:
    """d_T = (0.6, 0), d_model = (0.3, 0.4): κ = ½, and 0.4² of the model's own."""
    far = TRUTH.sample(20_000, torch.Generator().manual_seed(5))
    far = (far - far.mean(0)) / far.std(0) + torch.tensor([0.6, 0.0])
    fine = finely(LEVELS, START, 40)
    trained = gaussian([0.3, 0.4], 1.0)
    found = decompose(trained, TRUTH, fine, fine, yardstick, N, DRAWS, 4, far)
    inherited = found.inherited
    assert inherited is not None
    assert inherited.share_error is not None
    assert inherited.standard_error is not None
    assert inherited.deviation == pytest.approx(0.6**2 / 2, rel=0.05)
    assert inherited.share == pytest.approx(0.5, abs=0.02)
    assert inherited.square == pytest.approx(0.3**2 / 2, rel=0.06)
    assert found.model.square - inherited.square == pytest.approx(0.4**2 / 2, rel=0.15)
    assert 0 < inherited.share_error < 0.02
    expected = inherited.share**2 - inherited.share_error**2
    assert inherited.square == pytest.approx(expected * inherited.deviation)
    slope = 2 * inherited.share * inherited.deviation
    assert inherited.standard_error == pytest.approx(slope * inherited.share_error)


def test_nothing_is_inherited_by_the_exact_denoiser(yardstick: Yardstick, training: Tensor) -> None:
    found = decompose(TRUTH, TRUTH, way(10), way(10), yardstick, N, 2, 4, training)
    assert found.inherited is not None
    assert (found.inherited.share, found.inherited.square) == (0, 0)
    assert decompose(TRUTH, TRUTH, way(3), way(3), yardstick, N, 1, 4).inherited is None


# --- the loop


def test_parts_of_a_set_make_the_set(yardstick: Yardstick, monkeypatch: pytest.MonkeyPatch) -> None:
    ways = Way(ddpm(), LEVELS.spaced(6), START), way(8)
    whole = decompose(TRUTH, TRUTH, *ways, yardstick, N, 1, 6)
    monkeypatch.setattr(decomposing, "BATCH", 2 * 77)
    parts = decompose(TRUTH, TRUTH, *ways, yardstick, N, 1, 6)
    for a, b in zip(whole.rows(), parts.rows(), strict=True):
        assert a.square == pytest.approx(b.square, rel=1e-4, abs=1e-9)
    assert decompose(TRUTH, TRUTH, *ways, yardstick, N, 1, 6) == parts
    assert decompose(TRUTH, TRUTH, *ways, yardstick, N, 1, 7) != parts


def test_progress_json_and_a_single_draw(yardstick: Yardstick, training: Tensor) -> None:
    calls: list[None] = []
    found = decompose(
        gaussian([0.1, 0.0], 1.0),
        TRUTH,
        way(3, None),
        way(9),
        yardstick,
        N,
        1,
        0,
        training,
        advance=lambda: calls.append(None),
    )
    assert len(calls) == 4
    assert {part.standard_error for part in found.rows()} == {None}
    text = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert text["parts"][1]["square"] == found.model.square
    assert text["parts"][-1]["floors"] == pytest.approx(text["ratio"] ** 2)
    assert (text["n"], text["draws"], text["floor"]) == (N, 1, found.floor)
    assert [run["denoiser"] for run in text["runs"]] == ["trained", "trained", "exact", "exact"]
    assert text["steady_ratio"] == found.steady_ratio
    assert text["systematic"]["square"] == found.systematic.square
    assert found.inherited is not None
    assert text["inherited"]["share"] == found.inherited.share
    assert text["inherited"]["share_error"] is None
    assert found.inherited.square == found.inherited.share**2 * found.inherited.deviation


def test_many_steps() -> None:
    many = finely(LEVELS, START)
    assert (many.sampler.spec, many.schedule.T, many.start) == ("dpmpp_3m", 200, START)
    steps = many.schedule.log_snr[1:].diff()
    torch.testing.assert_close(steps, steps.mean().expand(199))
    assert many.schedule.log_snr[-1] == pytest.approx(LEVELS.log_snr[-1].item())
    assert finely(LEVELS).start is None


def test_data_far_from_0_need_float64() -> None:
    """At 10⁷ float32 tells numbers apart that differ by 1; the spread is 1."""
    far = gaussian([1e7, 1e7], 1.0)
    ruler = yardstick_of(far, 100)
    start = Normal(far.mean, far.cov)
    fine = Way(dpmpp_2m(), LEVELS.spaced(30, "log_snr"), start)
    seen = set()

    def denoiser(x: Tensor, level: Level) -> Tensor:
        seen.add(x.dtype)
        return far(x, level)

    found = decompose(denoiser, far, fine, fine, ruler, 100, 4, 0, dtype=torch.float64)
    assert seen == {torch.float64}
    assert found.ratio < 2.5


def test_bad_input(yardstick: Yardstick) -> None:
    with pytest.raises(ValueError, match="n = 1"):
        decompose(TRUTH, TRUTH, way(3), way(3), yardstick, 1, 1, 0)
    with pytest.raises(ValueError, match="draws = 0"):
        decompose(TRUTH, TRUTH, way(3), way(3), yardstick, N, 0, 0)
    with pytest.raises(ValueError, match=r"training has shape \(5, 3\): .*\(N, 2\)"):
        decompose(TRUTH, TRUTH, way(3), way(3), yardstick, N, 1, 0, torch.zeros(5, 3))
    with pytest.raises(ValueError, match=r"x has shape \(501, 2\)"):
        decompose(TRUTH, TRUTH, way(3), way(3), yardstick, N + 1, 1, 0)
    with pytest.raises(ValueError, match="at t = 3 the denoiser returned NaN"):
        decompose(lambda x, at: x * math.nan, TRUTH, way(3), way(3), yardstick, N, 1, 0)


def test_the_reference_of_the_law_is_near_it() -> None:
    """Nearer than one set of that size: five sets have a fifth of its noise, squared."""
    quantiles = torch.distributions.Normal(0, 1).icdf((torch.arange(N).double() + 0.5) / N)
    one = SlicedW2(TRUTH.sample(20_000, torch.Generator().manual_seed(1)), N).quantiles
    found = decomposing._truth(TRUTH, N)
    ratio = (found - quantiles).square().mean() / (one - quantiles).square().mean()
    assert ratio < 0.7


def test_what_is_inherited_is_of_the_model_at_many_steps(yardstick: Yardstick) -> None:
    """The set has a spread of 1.5 and the model of 1.25: half of it. Few steps shrink both."""
    far = TRUTH.sample(20_000, torch.Generator().manual_seed(5))
    far = 1.5 * (far - far.mean(0)) / far.std(0)
    fine = finely(LEVELS, START, 40)
    trained = gaussian([0.0, 0.0], 1.25)
    found = decompose(trained, TRUTH, way(3), fine, yardstick, N, DRAWS, 4, far)
    assert found.inherited is not None
    assert found.inherited.share == pytest.approx(0.5, abs=0.03)


def test_the_rest_is_nobodys_fault(yardstick: Yardstick) -> None:
    wide = Normal(torch.zeros(2), 100.0**2 * torch.eye(2))
    found = decompose(TRUTH, TRUTH, way(100, wide), way(100, wide), yardstick, N, 2, 0)
    assert found.rest.floors > 1
    assert found.blame is None
    better = decompose(TRUTH, TRUTH, way(100), way(100, wide), yardstick, N, 2, 0)
    assert better.systematic.floors < -1
    assert better.steady_ratio == 0
