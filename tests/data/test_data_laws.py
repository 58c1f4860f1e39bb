"""Laws that every data set obeys, run over the whole family."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import ks_2samp

from alphabar.data import DATA, Data, load
from alphabar.spec import Entry

GENERATED = [entry for entry in DATA if "seed" in entry.parameters]
FIXED = [entry for entry in DATA if "seed" not in entry.parameters]


@pytest.fixture(scope="session")
def required(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    """What an entry must be given, for those that must."""
    folder = tmp_path_factory.mktemp("required")
    ramp = np.linspace(0, 255, 30 * 20).reshape(20, 30).astype(np.uint8)
    Image.fromarray(ramp).save(folder / "ramp.png")
    (folder / "folder").mkdir()
    for name in ("a", "b"):
        Image.fromarray(ramp).save(folder / "folder" / f"{name}.png")
    np.save(folder / "points.npy", np.random.default_rng(0).standard_normal((50, 2)))
    return {
        "text": {"text": "Ab"},
        "image": {"path": str(folder / "ramp.png")},
        "picture": {"path": str(folder / "ramp.png")},
        "folder": {"path": str(folder / "folder"), "size": 8},
        "file": {"path": str(folder / "points.npy")},
        "photo": {"name": "china"},
    }


def make(entry: Entry, required: dict[str, dict[str, object]], **values: object) -> Data:
    return entry.build(**required.get(entry.name, {}), **values)


def rows(x: torch.Tensor) -> set[bytes]:
    return {row.tobytes() for row in x.numpy()}


each_generated = pytest.mark.parametrize("entry", GENERATED, ids=lambda entry: entry.name)
each = pytest.mark.parametrize("entry", list(DATA), ids=lambda entry: entry.name)


def test_the_family_has_the_promised_members():
    assert {entry.name for entry in GENERATED} == {
        *("swiss_roll", "moons", "circles", "s_curve", "spirals", "pinwheel", "checkerboard"),
        *("rings", "gaussians", "text", "image"),
    }
    assert {entry.name for entry in FIXED} == {"digits", "photo", "picture", "file", "folder"}


@each
def test_has_what_a_listing_shows(entry):
    assert entry.summary.endswith(".")
    assert entry.usage.startswith(entry.name)


@each
def test_is_well_formed_and_knows_its_spec(entry, required):
    data = make(entry, required)
    assert len(data) == len(data.x) == len(data.hue)
    assert data.x.isfinite().all()
    assert ((data.hue >= 0) & (data.hue <= 1)).all()
    assert data.labels is None or len(data.labels) == len(data)
    if data.kind == "points":
        assert data.x.dtype == torch.float64
        assert len(data.columns) == data.x.shape[1]
    else:
        assert data.x.dtype == torch.float32
        assert data.x.abs().max() <= 1
        assert data.columns == ()
    again = load(data.spec)
    assert again.spec == data.spec
    assert torch.equal(again.x, data.x)
    assert torch.equal(again.hue, data.hue)
    assert (data.fresh is not None) == ("seed" in entry.parameters)


@each_generated
def test_takes_n_and_seed_last(entry, required):
    parameters = entry.parameters
    assert parameters["n"] == 10_000
    assert list(parameters)[-1] == "seed"
    assert parameters["seed"] == 0
    for n in (1, 2, 777):
        assert make(entry, required, n=n).x.shape == (n, 2)


@each_generated
def test_seeds(entry, required):
    same = make(entry, required, n=500, seed=3)
    assert torch.equal(make(entry, required, n=500, seed=3).x, same.x)
    assert not rows(make(entry, required, n=500, seed=4).x) & rows(same.x)


@each_generated
def test_fresh_points_are_new_each_time_and_the_same_for_the_same_seed(entry, required):
    data = make(entry, required, n=500, seed=3)
    draws = [data.x, data.fresh(500, 0), data.fresh(500, 1), data.fresh(500, 3)]
    draws.append(make(entry, required, n=500, seed=4).fresh(500, 0))
    assert len(set().union(*map(rows, draws))) == 500 * len(draws)
    assert torch.equal(data.fresh(500, 1), draws[2])
    assert data.fresh(123, 0).shape == (123, 2)
    # No shared randomness either: the correlation of 500 independent pairs exceeds 0.27
    # (6 standard deviations) with probability 2e-9.
    for one, other in [(0, 1), (1, 2), (1, 4)]:
        pair = np.corrcoef(draws[one].numpy().ravel(), draws[other].numpy().ravel())
        assert abs(pair[0, 1]) < 0.27


@each_generated
def test_fresh_points_agree_in_distribution(entry, required):
    # 11 sets × 4 directions, each with a false alarm in 1e-7: 5e-6 in all, were seeds not fixed.
    data = make(entry, required, n=20_000)
    fresh = data.fresh(20_000, 5)
    for direction in ([1, 0], [0, 1], [1, 1], [1, -1]):
        along = torch.tensor(direction, dtype=torch.float64)
        test = ks_2samp((data.x @ along).numpy(), (fresh @ along).numpy(), method="asymp")
        assert test.pvalue > 1e-7


@each_generated
def test_scale_suits_a_process_that_ends_at_unit_variance(entry, required):
    x = make(entry, required).x
    assert x.mean(0).abs().max() < 0.25
    assert 0.7 < x.var(0).sum().sqrt() < 1.5
    if entry.name not in ("text", "image"):  # these keep the proportions of what they draw
        assert x.std(0).min() > 0.45
        assert x.std(0).max() < 1.1


@each_generated
def test_any_part_is_a_fair_sample(entry, required):
    # The first half against the second; false alarm 1e-7 each.
    data = make(entry, required, n=20_000)
    for values in (*data.x.T.numpy(), data.hue.numpy()):
        assert ks_2samp(values[:10_000], values[10_000:], method="asymp").pvalue > 1e-7


@each_generated
@pytest.mark.parametrize("n", [0, -1, 10**8 + 1, True])
def test_refuses_a_wrong_n(entry, required, n):
    kind = TypeError if n is True else ValueError
    with pytest.raises(kind, match=rf"n = {n}: .* whole number from 1 to 100000000"):
        make(entry, required, n=n)
    with pytest.raises(kind, match=rf"n = {n}: .* whole number from 1 to 100000000"):
        make(entry, required, n=2).fresh(n, 0)


@pytest.mark.parametrize("value", [2.5, "10", None])
def test_refuses_what_is_not_a_number_at_all(value):
    # While the tests run the annotations are checked too, and their TypeError comes first.
    for name in ("n", "seed", "noise")[: 2 if value == 2.5 else 3]:
        with pytest.raises(TypeError):
            DATA["moons"].build(**{name: value})


@each_generated
@pytest.mark.parametrize("seed", [-1, 2**32])
def test_refuses_a_wrong_seed(entry, required, seed):
    with pytest.raises(ValueError, match=rf"seed = {seed}.*from 0 to"):
        make(entry, required, seed=seed)
    with pytest.raises(ValueError, match=rf"seed = {seed}.*from 0 to"):
        make(entry, required, n=2).fresh(2, seed)


@pytest.mark.parametrize(
    "entry", [e for e in GENERATED if "noise" in e.parameters], ids=lambda e: e.name
)
@pytest.mark.parametrize("noise", [-0.1, float("nan"), float("inf"), 1e9])
def test_refuses_a_wrong_noise(entry, noise):
    with pytest.raises(ValueError, match=r"noise = .*a standard deviation from 0 to 1000"):
        entry.build(noise=noise)


def test_load_fills_in_defaults():
    assert load("swiss_roll", n=50, T=7).spec == "swiss_roll:n=50,noise=1.0,seed=0"
    assert len(load("swiss_roll:n=60", n=50)) == 60


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("swis_roll", "'swis_roll' is not a data set: did you mean swiss_roll.*digits"),
        ("moons:m=5", "no parameter 'm'"),
        ("moons:n=1.5", "n = 1.5: it must be a whole number"),
        ("moons:n", "no value or key"),
        ("photo", "photo needs name; write photo:NAME,size=256"),
        ("photo:cat", "'cat' is not a photo: write photo:china or photo:flower"),
        ("photo:china,size=0", "size = 0: it must be a whole number from 1 to 4096"),
        ("circles:factor=2", "factor = 2: it must be .*a radius from 0 to 1"),
        ("spirals:arms=0", "arms = 0"),
        ("spirals:turns=-1", "turns = -1"),
        ("pinwheel:radial=-1", "radial = -1"),
        ("pinwheel:tangential=nan", "tangential = nan"),
        ("pinwheel:rate=99", "rate = 99"),
        ("checkerboard:squares=0", "squares = 0"),
        ("rings:rings=1000", "rings = 1000"),
        ("gaussians:modes=0", "modes = 0"),
        ("gaussians:std=-1", "std = -1"),
        ("", "is not a spec"),
    ],
)
def test_load_refuses(spec, message):
    with pytest.raises(ValueError, match=message) as refusal:
        load(spec)
    assert "\n" not in str(refusal.value)


def test_importing_is_quick():
    code = (
        "import sys, alphabar.data as d; d.load('moons:n=5');"
        "print([m for m in ('sklearn', 'matplotlib', 'PIL', 'scipy') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_data_without_a_spec_says_so():
    data = Data(torch.zeros(3, 2, dtype=torch.float64), torch.zeros(3, dtype=torch.float64))
    with pytest.raises(ValueError, match="was not made from a spec"):
        _ = data.spec
