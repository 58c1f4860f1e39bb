"""Truth is at the floor, what is wrong is above it, a copy is found out; intervals and p-values
keep their promise over many repetitions."""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from alphabar import data as sets
from alphabar import metrics
from alphabar.compare import Halves, halves, judge
from alphabar.data import Data, Standardiser
from alphabar.evaluate import (
    DEFAULT,
    METRICS,
    Found,
    Fresh,
    HeldOut,
    Measured,
    Reference,
    Rows,
    evaluate,
    evaluation,
    evaluation_length,
    measured,
)
from alphabar.metrics import against_fresh, against_held_out
from alphabar.targets import Mixture, Points

EVERY = tuple(METRICS)
SHARES = ("ks", "precision", "recall", "coverage", "memorised", "copies")


def gaussian(n: int, seed: int, d: int = 2) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A smaller reference and fewer true sets than the contract's, which test_metrics asserts."""
    monkeypatch.setattr("alphabar.metrics.REFERENCE", 20_000)
    monkeypatch.setattr("alphabar.metrics.FLOOR_SETS", 60)
    monkeypatch.setattr("alphabar.evaluate.FLOOR_SETS", 60)


NORMAL = Mixture([1.0], torch.zeros(1, 2).double(), var=torch.ones(1).double())


def scored(x: Tensor, **options: object) -> dict[str, Measured]:
    return evaluate([x], Fresh(gaussian), gaussian(400, 7), NORMAL, EVERY, **options)


@pytest.fixture(scope="module")
def of_truth() -> Iterator[dict[str, Measured]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("alphabar.metrics.REFERENCE", 20_000)
        patch.setattr("alphabar.metrics.FLOOR_SETS", 60)
        yield scored(gaussian(1_000, 8))


@pytest.mark.parametrize("name", EVERY)
def test_truth_is_at_the_floor(of_truth: dict[str, Measured], name: str) -> None:
    found = of_truth[name]
    assert found.reason is None
    assert found.low <= found.value <= found.high
    assert found.p_value > 0.01
    error = found.floor_sd / math.sqrt(found.draws)
    assert found.value == pytest.approx(found.floor, abs=4 * error + 1e-12)
    assert found.better == METRICS[name].better
    if name in SHARES:
        assert 0 <= found.low <= found.high <= 1
    if name in ("nll", "mmd", "copies"):
        assert found.ratio is None
    else:
        assert found.ratio == pytest.approx(found.value / found.floor)


def wrong(name: str) -> Tensor:
    """Samples that this measure must find out."""
    x = gaussian(1_000, 9)
    return {
        "precision": torch.cat([x[:500], 30 + 30 * x[500:]]),
        "recall": x.abs(),
        "coverage": x.abs(),
        "density": torch.cat([x[:500], 30 + 30 * x[500:]]),
        "nearest_train": gaussian(400, 7).repeat(3, 1)[:1000] + 0.01 * x,
        "memorised": gaussian(400, 7).repeat(3, 1)[:1000] + 1e-4 * x,
        "copies": gaussian(400, 7).float().double(),
        "nll": 1.2 * x,
    }.get(name, x + 0.4)


@pytest.mark.parametrize("name", EVERY)
def test_what_is_wrong_is_found_out(name: str) -> None:
    found = evaluate([wrong(name)], Fresh(gaussian), gaussian(400, 7), NORMAL, [name])[name]
    # One set of samples cannot be rarer than one in as many as there are.
    assert found.p_value <= (1 / 50 if name in ("sliced_w2", "ks") else 0.002)
    if found.better == "low" or name == "nll":
        assert found.low > found.floor + found.floor_sd
    else:
        assert found.high < found.floor


def test_a_copy_of_the_training_points_and_a_fresh_set() -> None:
    training = gaussian(400, 7)
    which = ["nearest_train", "memorised", "copies"]
    copy = evaluate([training], Fresh(gaussian), training, None, which)
    assert [copy[name].value for name in which] == [0, 1, 1]
    fresh = evaluate([gaussian(4_000, 10)], Fresh(gaussian), training, None, which)
    assert fresh["memorised"].value == pytest.approx(0.01, abs=0.006)
    assert fresh["memorised"].floor == pytest.approx(0.01, abs=0.001)
    assert fresh["nearest_train"].ratio == pytest.approx(1, abs=0.05)
    assert (fresh["copies"].value, fresh["copies"].floor) == (0, 0)


def test_nearest_and_memorised_as_they_are_said() -> None:
    """Against a count by brute force, with true points of its own."""
    training, x = gaussian(300, 11), 0.7 * gaussian(5_000, 12)

    def nearest(points: Tensor) -> np.ndarray:
        return torch.cdist(points, training).amin(1).numpy()

    found = evaluate([x], Fresh(gaussian), training, None, ["nearest_train", "memorised"])
    true = nearest(gaussian(40_000, 13))
    assert found["nearest_train"].value == pytest.approx(np.median(nearest(x)), rel=0.02)
    assert found["nearest_train"].floor == pytest.approx(np.median(true), rel=0.02)
    share = (nearest(x) < np.quantile(true, 0.01)).mean()
    assert found["memorised"].value == pytest.approx(share, rel=0.2)


def test_copies_of_points_that_repeat() -> None:
    """Of data in few places true points are copies too: a copier is not above that floor."""

    def dice(n: int, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(6, (n, 2), generator=generator).double() / 7

    found = evaluate([dice(500, 1)], Fresh(dice), dice(300, 2), None, ["memorised", "copies"])
    assert found["memorised"].floor == found["copies"].floor == 1
    halfway = evaluate([dice(500, 1) + 0.05], Fresh(dice), dice(300, 2), None, ["copies"])
    assert halfway["copies"].value == 0
    rounded = dice(500, 1).float().double()
    found = evaluate([rounded], Fresh(dice), dice(300, 2), None, ["memorised", "copies"])
    assert found["memorised"].value == found["copies"].value == 1


def test_nearest_points_in_many_columns_take_smaller_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alphabar.evaluate.PRODUCTS", 600_000)
    for d, n in ((2, 20), (20, 5)):

        def fresh(n: int, seed: int, d: int = d) -> Tensor:
            return gaussian(n, seed, d)

        found = evaluate([fresh(200, 1)], Fresh(fresh), fresh(100, 2), None, ["nearest_train"])
        assert found["nearest_train"].n == n
        assert found["nearest_train"].p_value > 0.01


# --- the score is the contract's


def test_the_score_of_fresh_data_is_the_yardsticks() -> None:
    draws = [1.1 * gaussian(300, 20 + i) for i in range(3)]
    expected = against_fresh(300, gaussian).score(draws)
    for seed in (0, 5):
        found = evaluate(draws, Fresh(gaussian), which=["sliced_w2"], seed=seed)["sliced_w2"]
        # Samples are shuffled, and no distance depends on their order.
        assert found.value == pytest.approx(expected.value, rel=1e-12)
        assert found.floor == pytest.approx(expected.floor, rel=1e-12)
        assert found.ratio == pytest.approx(expected.ratio, rel=1e-12)
        assert (found.draws, found.n) == (expected.draws, 300)


def test_the_score_of_a_file_is_the_yardsticks() -> None:
    used, held_out = gaussian(200, 30), gaussian(200, 31)
    draws = [gaussian(200, 32)]
    expected = against_held_out(used, held_out).score(draws)
    found = evaluate(draws, HeldOut(used, held_out), which=["sliced_w2"])["sliced_w2"]
    assert (found.value, found.floor) == pytest.approx((expected.value, expected.floor))
    # More samples than were used make several sets.
    more = evaluate([gaussian(450, 33)], HeldOut(used, held_out), which=["sliced_w2"])
    assert (more["sliced_w2"].draws, more["sliced_w2"].n) == (2, 200)


def as_file(x: Tensor) -> Data:
    return Data(x, torch.zeros(len(x)).double(), ("x", "y")[: x.shape[1]])


def test_the_score_against_rows_is_the_judges() -> None:
    rows, x = gaussian(300, 34), 1.2 * gaussian(250, 35)
    expected = judge(x, as_file(rows), None).score
    found = evaluate([x], Rows(rows), which=["sliced_w2"])["sliced_w2"]
    assert (found.value, found.floor) == pytest.approx((expected.value, expected.floor))


# --- files


@pytest.mark.parametrize("name", [n for n in EVERY if n != "nll"])
def test_rows_of_a_file_are_at_its_floor(name: str) -> None:
    """Samples as good as the file's own rows, in each way that a file can be compared."""
    used, held_out, x = gaussian(600, 40), gaussian(600, 41), gaussian(600, 42)
    for reference in (HeldOut(used, held_out), Rows(held_out)):
        found = evaluate([x], reference, used, None, [name])[name]
        assert found.reason is None
        assert found.p_value > 0.01
        shifted = evaluate([x + 0.5], reference, used, None, [name])[name]
        if name in ("sliced_w2", "wasserstein2", "ks", "energy", "mmd"):
            assert shifted.value > 1.5 * found.value
            assert shifted.p_value < 0.05


def test_a_copier_of_half_a_file_is_found_out() -> None:
    used, held_out = gaussian(600, 40), gaussian(600, 41)
    found = evaluate([used], HeldOut(used, held_out), used, None, ["memorised", "copies"])
    assert found["memorised"].value == found["copies"].value == 1
    assert found["memorised"].floor < 0.05
    assert found["memorised"].p_value < 0.001


def test_parts_of_a_file_share_no_row() -> None:
    rows = torch.arange(100).double()[:, None]
    reference = HeldOut(rows[:50], rows[50:])
    n = reference.room(5)
    parts = reference.sets(5, n, 3, 1)
    assert torch.cat(parts).unique().tolist() == rows[50:, 0].tolist()
    ten = [gaussian(60, i, 1) for i in range(10)]
    twice = HeldOut(gaussian(100, 1, 1), gaussian(100, 2, 1))
    found = evaluate(ten, twice, which=["energy"])["energy"]
    assert (found.draws, found.n) == (5, 20)  # a few large parts
    for x, y in reference.pairs(4, 20, 3, 2):
        assert len(torch.cat([x, y]).unique()) == 40
    assert len({tuple(x[:, 0].tolist()) for x, _ in reference.pairs(4, 20, 3, 2)}) == 4


@pytest.mark.parametrize("kind", ["fresh", "held_out"])
def test_no_set_is_used_twice(kind: str) -> None:
    """The sets of every stream differ, and those of the score from all."""
    seeds: list[int] = []

    def fresh(n: int, seed: int) -> Tensor:
        seeds.append(seed)
        return gaussian(n, seed)

    reference: Reference = Fresh(fresh)
    if kind == "held_out":
        reference = HeldOut(gaussian(300, 1), gaussian(300, 2))
        first = {tuple(x[0].tolist()) for s in range(9) for x in reference.sets(1, 30, 0, s)}
        assert len(first) > 6  # chance may begin two of them with one row
        return
    evaluate([gaussian(200, 0)], reference, gaussian(100, 1), None, EVERY)
    used = [seed for seed in seeds if seed != 0]
    assert len(set(used)) == len(used)
    assert max(used) < 2**31


# --- intervals and p-values keep their promise


def coverage(
    name: str, sample: Callable[[int], list[Tensor]], mean: float, times: int, **options: object
) -> tuple[float, float]:
    """How often the interval holds the mean that sets have, and p is below 10%."""
    held = small = 0
    for i in range(times):
        found = evaluate(sample(i), which=[name], seed=i, **options)[name]
        held += found.low <= mean <= found.high
        small += found.p_value <= 0.1
    return held / times, small / times


def test_the_interval_of_a_mean_is_scipys() -> None:
    values, floors = [1.0, 2.0, 4.0, 8.0, 16.0], [1.0, 1.5, 3.0]
    found = measured(METRICS["nll"], Found(values, floors, 10))
    expected = stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))
    assert (found.low, found.high) == pytest.approx(expected)
    assert found.floor_sd == pytest.approx(stats.tstd(floors))
    few = measured(METRICS["nll"], Found([3.0, 5.0], floors, 10, [8.0, 10.0]))
    assert (few.low, few.high) == pytest.approx(stats.norm.interval(0.95, 4, math.sqrt(9 / 2)))
    # Sets that agree by chance still vary as true ones do; at 0 a root has no slope.
    zero = measured(METRICS["energy"], Found([0.0] * 5, floors, 10))
    assert zero.low == 0
    assert zero.high**2 == pytest.approx(1.959964 * stats.tstd(floors) / math.sqrt(5))


@pytest.mark.parametrize("count", [5, 10])
@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_intervals_over_sets(count: int, factor: float) -> None:
    """Of numbers as skewed as the squared distances of small sets are: χ² of 3 degrees."""
    random = np.random.default_rng(0)
    held = small = 0
    for _ in range(400):
        values = (factor * random.chisquare(3, count)).tolist()
        floors = random.chisquare(3, 20).tolist()
        found = measured(METRICS["energy"], Found(values, floors, 10))
        held += found.low <= math.sqrt(3 * factor) <= found.high
        small += found.p_value <= 0.1
    # As few sets as five agree by chance too often; truth's own spread makes up for it.
    assert (0.95 if factor == 1 else 0.9) <= held / 400
    assert held < 400  # and not by being boundless
    if factor == 1:
        assert small / 400 == pytest.approx(0.1, abs=0.05)


def test_intervals_over_parts() -> None:
    """Energy distance of 100 samples, in five parts of 20."""
    squares = [
        metrics.energy_squared(1.5 * gaussian(20, 2 * i, 1), gaussian(20, 2 * i + 1, 1))
        for i in range(600)
    ]
    held, _ = coverage(
        "energy",
        lambda i: [1.5 * gaussian(100, 10**6 + i, 1)],
        math.sqrt(np.mean(squares)),
        40,
        reference=Fresh(lambda n, seed: gaussian(n, seed, 1)),
    )
    assert held >= 0.84


@pytest.mark.parametrize(("shift", "draws"), [(0.0, 1), (0.5, 1), (0.5, 6)])
def test_intervals_of_the_score(shift: float, draws: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alphabar.metrics.REFERENCE", 5_000)
    monkeypatch.setattr("alphabar.metrics.FLOOR_SETS", 40)
    reference = Fresh(lambda n, seed: gaussian(n, seed, 1))
    distance = reference.trials(100).distance
    squares = [distance(gaussian(100, 10**5 + i, 1) + shift) for i in range(1_000)]
    held, small = coverage(
        "sliced_w2",
        lambda i: [gaussian(100, 10**6 + 10 * i + j, 1) + shift for j in range(draws)],
        math.sqrt(np.mean(squares)),
        60,
        reference=reference,
    )
    assert held >= 0.87
    if shift == 0:
        assert small <= 0.2  # all against the same 40 true sets


@pytest.mark.parametrize(("shift", "least"), [(0.0, 0.9), (0.5, 0.84)])
def test_intervals_of_ks(shift: float, least: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are wide where samples are true: a share at a fixed place varies more than a maximum."""
    monkeypatch.setattr("alphabar.metrics.REFERENCE", 5_000)
    monkeypatch.setattr("alphabar.evaluate.TRUE_SETS", 15)
    reference = Fresh(lambda n, seed: gaussian(n, seed, 1))
    distance = reference.trials(100).distance
    gaps = [
        metrics.ks_gap(distance.sorted_projections(x), distance.quantiles).value
        for x in (gaussian(100, 10**5 + i, 1) + shift for i in range(200))
    ]
    held, _ = coverage(
        "ks",
        lambda i: [gaussian(100, 10**6 + i, 1) + shift],
        float(np.mean(gaps)),
        25,
        reference=reference,
    )
    assert held >= least


def test_intervals_of_the_likelihood(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cross-entropy of N(0, 1.2²·I) by N(0, I)."""
    monkeypatch.setattr("alphabar.evaluate.TRUE_SETS", 15)
    mean = math.log(2 * math.pi) + 1.2**2
    held, _ = coverage(
        "nll",
        lambda i: [1.2 * gaussian(200, 10**6 + i)],
        mean,
        100,
        reference=Fresh(gaussian),
        target=NORMAL,
    )
    assert 0.88 <= held <= 0.995


def test_the_floor_of_the_likelihood_is_the_entropy() -> None:
    scale = torch.tensor([0.5, 3.0]).double()
    law = Mixture([1.0], torch.ones(1, 2).double(), var=scale.square()[None])
    x = 1 + scale * gaussian(50_000, 50)
    found = evaluate([x], Fresh(gaussian), None, law, ["nll"])["nll"]
    entropy = float(stats.multivariate_normal([1, 1], np.diag(scale.square().numpy())).entropy())
    assert found.floor == pytest.approx(entropy, abs=0.01)
    assert found.low < entropy < found.high
    assert found.ratio is None


def test_p_values_of_one_set_are_its_rank() -> None:
    """60 true sets: what is beyond them all has the chance 1/61."""
    far = evaluate([gaussian(100, 0) + 9], Fresh(gaussian), which=["sliced_w2"])["sliced_w2"]
    assert far.p_value == pytest.approx(1 / 61)
    near = evaluate([gaussian(100, 1) * 0], Rows(gaussian(100, 1)), which=["precision"])
    assert near["precision"].p_value > 0.9  # all in the densest place: none is out of place


@pytest.mark.parametrize("name", ["energy", "coverage", "density"])
def test_p_values_of_several_sets_are_a_permutation_tests(name: str) -> None:
    """The same as scipy's, on the same numbers."""
    better = METRICS[name].better
    side = {"low": "greater", "high": "less", "floor": "two-sided"}[better]
    random = np.random.default_rng(0)
    for shift in (-0.8, 0.0, 0.8):
        values, floors = 5 + shift + random.standard_normal(5), 5 + random.standard_normal(20)
        found = measured(
            METRICS[name]._replace(bounds=(0, 9)), Found(values.tolist(), floors.tolist(), 10)
        )
        expected = stats.permutation_test(
            (values, floors), lambda x, y: x.mean() - y.mean(), alternative=side, rng=random
        )
        assert found.p_value == pytest.approx(expected.pvalue, abs=0.04)
    # Never 0: the order that was found is one of the possible ones.
    away = 50.0 if better == "low" else -50.0
    far = measured(METRICS[name], Found((away + values).tolist(), floors.tolist(), 10))
    assert 1 / 2000 <= far.p_value < 0.005


# --- what can go wrong


@pytest.mark.parametrize(("draws", "message"), [
    ([], "no draws"),
    ([torch.zeros(9, 2), torch.zeros(8, 2)], "draw 1 has shape"),
    ([torch.tensor([[0.0, math.nan], [1.0, 2.0]])], "1 of its 2 samples"),
    ([torch.tensor([[0.0, math.inf], [1.0, 2.0]])], "draw 0 holds NaN or infinity"),
    ([torch.zeros(9, 3)], "3 columns against 2"),
    ([torch.zeros(1, 2)], "two or more"),
])  # fmt: skip
def test_bad_draws(draws: list[Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(draws, Fresh(gaussian))


@pytest.mark.parametrize(("which", "message"), [(["fid"], "'fid'"), ([], "none")])
def test_bad_names(which: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=f"metric {message}: choose among sliced_w2, "):
        evaluate([gaussian(9, 0)], Fresh(gaussian), which=which)


def test_what_is_not_known_has_a_reason() -> None:
    found = evaluate([gaussian(50, 0)], Fresh(gaussian))
    assert tuple(found) == DEFAULT
    assert "energy" not in found
    for name, words in (("nll", "law"), ("copies", "trained on")):
        assert found[name].value is found[name].low is found[name].p_value is None
        assert words in found[name].reason
    points = evaluate([gaussian(50, 0)], Fresh(gaussian), None, Points(gaussian(9, 1)), ["nll"])
    assert "no density" in points["nll"].reason


def test_few_points() -> None:
    ten = evaluate([gaussian(10, 0)], Fresh(gaussian), gaussian(10, 1), NORMAL, EVERY)
    assert "20 or more" in ten["precision"].reason
    # All ten are one set: no spread, and yet a floor and a chance.
    assert ten["wasserstein2"].low is None
    assert "no spread" in ten["wasserstein2"].reason
    assert ten["wasserstein2"].n == 10
    assert 0 < ten["wasserstein2"].p_value <= 1
    assert all(
        found.low <= found.value <= found.high
        for name, found in ten.items()
        if found.reason is None
    )
    two = evaluate([gaussian(2, 0)], Fresh(gaussian), gaussian(2, 1), NORMAL, EVERY)
    assert two["sliced_w2"].value > 0
    assert "10 or more" in two["energy"].reason
    file = evaluate([gaussian(9, 0)], HeldOut(gaussian(9, 1), gaussian(9, 2)), gaussian(9, 1))
    assert "too few" in file["memorised"].reason
    assert file["sliced_w2"].value > 0


def test_constant_columns_and_points_that_repeat() -> None:
    def flat(n: int, seed: int) -> Tensor:
        return torch.cat([gaussian(n, seed).round(), torch.full((n, 1), 3.0).double()], 1)

    found = evaluate([flat(300, 1)], Fresh(flat), flat(200, 2), None, EVERY)
    for name in EVERY:
        if name != "nll":
            assert found[name].reason is None, name
            assert found[name].p_value > 0.005, name

    def still(n: int, seed: int) -> Tensor:
        return torch.zeros(n, 2).double()

    same = evaluate([still(100, 0)], Fresh(still), still(50, 1), None, EVERY)
    assert same["sliced_w2"].value == same["sliced_w2"].floor == same["ks"].value == 0
    assert same["sliced_w2"].ratio is None
    assert same["precision"].value == same["copies"].value == 1
    assert "kernel needs a width" in same["mmd"].reason


@pytest.mark.parametrize("d", [1, 300])
def test_one_column_and_many(d: int) -> None:
    def fresh(n: int, seed: int) -> Tensor:
        return gaussian(n, seed, d)

    found = evaluate([fresh(150, 1)], Fresh(fresh), fresh(100, 2), None, EVERY)
    wide = evaluate([1.5 * fresh(150, 1)], Fresh(fresh), fresh(100, 2), None, EVERY)
    for name in EVERY:
        if name != "nll":
            assert found[name].p_value > 0.01, name
    assert wide["sliced_w2"].ratio > 2
    assert wide["energy"].p_value < 0.01


def test_numbers_too_large() -> None:
    found = evaluate([1e200 * gaussian(60, 0)], Fresh(gaussian), which=["sliced_w2", "ks"])
    assert "standardise" in found["sliced_w2"].reason
    assert found["sliced_w2"].value is None
    assert found["ks"].value > 0.3


# --- seeds, order, progress


def test_the_same_seed_gives_the_same_numbers() -> None:
    x, training = gaussian(300, 60), gaussian(200, 61)
    first, again = (evaluate([x], Fresh(gaussian), training, NORMAL, EVERY, 4) for _ in range(2))
    assert first == again
    other = evaluate([x], Fresh(gaussian), training, NORMAL, EVERY, 5)
    assert other["energy"].value != first["energy"].value
    # Alone or with others, each is the same.
    for name in ("ks", "recall", "mmd", "nearest_train", "nll"):
        alone = evaluate([x], Fresh(gaussian), training, NORMAL, [name], 4)
        assert alone[name] == first[name], name


def test_a_sorted_file_is_cut_at_random() -> None:
    x = gaussian(500, 62, 1).sort(0).values
    found = evaluate([x], Fresh(lambda n, seed: gaussian(n, seed, 1)), which=["wasserstein2"])
    assert found["wasserstein2"].p_value > 0.01


@pytest.mark.parametrize("which", [["sliced_w2"], ["ks"], ["recall", "density"], list(EVERY)])
def test_progress_ends_where_it_was_said_to(which: list[str]) -> None:
    moved = 0

    def advance() -> None:
        nonlocal moved
        moved += 1

    draws = [gaussian(200, 70 + i) for i in range(10)]
    evaluate(draws, Fresh(gaussian), gaussian(100, 1), NORMAL, which, 0, advance)
    assert moved == evaluation_length(which)


# --- as the command line has it


def test_the_document_of_fresh_data() -> None:
    data = sets.load("swiss_roll:n=500")
    x = data.fresh(400, 99)
    document = evaluation([x], data, seed=3)
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert tuple(document["metrics"]) == DEFAULT
    score = document["metrics"]["sliced_w2"]
    assert {"value", "floor", "ratio", "draws", "low", "high", "p_value", "n"} <= {*score}
    assert document["reference"] == "fresh points"
    assert document["metrics"]["nll"]["value"] == pytest.approx(
        document["metrics"]["nll"]["floor"], abs=0.3
    )
    copy = evaluation([data.x], data, training=data.x, which=["copies"])
    assert copy["metrics"]["copies"]["value"] == 1
    unknown = evaluation([data.x], data, which=["copies"])["metrics"]["copies"]
    assert unknown["value"] is None
    assert "not known" in unknown["reason"]


def test_the_document_in_standardised_units() -> None:
    """Distances are in their units, and the likelihood is of the points themselves."""
    data = sets.load("swiss_roll:n=500")
    standardiser = Standardiser.fit(data.x)
    x = data.fresh(400, 99)
    plain = evaluation([x], data, which=["nll", "wasserstein2"])["metrics"]
    scaled = evaluation([x], data, standardiser, which=["nll", "wasserstein2"])["metrics"]
    assert scaled["nll"] == plain["nll"]
    spread = standardiser.std.mean().item()
    assert scaled["wasserstein2"]["floor"] * spread == pytest.approx(
        plain["wasserstein2"]["floor"], rel=0.1
    )
    assert scaled["wasserstein2"]["ratio"] == pytest.approx(plain["wasserstein2"]["ratio"], rel=0.1)


def test_the_document_of_a_file(tmp_path: Path) -> None:
    np.save(tmp_path / "points.npy", gaussian(400, 80).numpy())
    data = sets.load(str(tmp_path / "points.npy"))
    parts = halves(data, 0)
    assert isinstance(parts, Halves)
    used = data.x[parts.used]
    kept = evaluation([used], data, None, parts, used)
    assert kept["reference"] == "the held-out half of the file"
    assert kept["metrics"]["copies"]["value"] == 1
    assert kept["metrics"]["nll"]["value"] is None
    whole = evaluation([gaussian(300, 81)], data)
    assert whole["reference"] == "the rows of the file"
    assert "not known" in whole["metrics"]["memorised"]["reason"]


def test_memory_is_not_judged_by_what_was_trained_on(tmp_path: Path) -> None:
    """Truth that is the training set is as near to it as a copier: nothing could be told."""
    np.save(tmp_path / "points.npy", gaussian(400, 80).numpy())
    data = sets.load(str(tmp_path / "points.npy"))
    which = ["nearest_train", "memorised", "copies", "ks"]
    found = evaluation([data.x], data, training=data.x, which=which)["metrics"]
    for name in ("nearest_train", "memorised", "copies"):
        assert found[name]["value"] is None
        assert "were trained on" in found[name]["reason"]
    assert found["ks"]["value"] is not None
    other = evaluation([data.x], data, training=gaussian(300, 82), which=which)["metrics"]
    assert other["copies"]["value"] == 0


def test_pictures_are_refused() -> None:
    digits = sets.load("digits")
    with pytest.raises(ValueError, match="holds pictures"):
        evaluation([gaussian(9, 0)], digits)


def test_a_negative_likelihood_stays_negative() -> None:
    def fresh(n: int, seed: int) -> Tensor:
        return 0.01 * gaussian(n, seed)

    narrow = Mixture([1.0], torch.zeros(1, 2).double(), var=torch.tensor([1e-4]).double())
    found = evaluate([fresh(1000, 8)], Fresh(fresh), None, narrow, ["nll"])["nll"]
    entropy = 1 + math.log(2 * math.pi * 1e-4)
    assert found.value == pytest.approx(entropy, abs=0.2)
    assert found.floor == pytest.approx(entropy, abs=0.05)
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value < found.high < 0
