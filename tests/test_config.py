"""What determines a run: round trips, what cannot be trained, data that changed."""

import json
import re
from dataclasses import replace
from pathlib import Path

import jaxtyping
import pytest
import torch
from torch import Tensor

from alphabar.compare import halves
from alphabar.config import Config, Lessons, configure, lessons_of
from alphabar.data import Data, Standardiser, load, points
from alphabar.denoise import Moments
from alphabar.locale import LANGS, texts
from alphabar.schedule import SCHEDULES
from alphabar.train import Settings, train

TINY = "mlp:width=8,depth=1,features=2"


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def labelled(n: int = 30) -> Data:
    return load(f"gaussians:n={n}")


def table(tmp_path: Path, x: Tensor | None = None) -> Data:
    """A user's file of three columns in odd units."""
    x = normal(40, 3) * torch.tensor([1e-3, 1.0, 1e5]) + 7 if x is None else x
    path = tmp_path / "mine.csv"
    path.write_text(
        ",".join("abc"[: x.shape[1]])
        + "\n"
        + "".join(",".join(map(repr, r)) + "\n" for r in x.tolist())
    )
    return load(str(path))


def configured(data: Data, standardiser: Standardiser | None = None, **given: object) -> Config:
    return configure(data, standardiser, 1, **({"steps": 5, "net": TINY} | given))[0]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"steps": None, "seconds": 2},
        {"schedule": "linear:T=50", "predicts": "eps", "objective": "simple"},
        {"schedule": "linear:T=50", "levels": "cosine", "objective": "min_snr:gamma=2"},
        {"schedule": "linear:T=50", "objective": "hybrid"},
        {"stream": True, "batch": 7, "rate": 1e-4, "weight_decay": 0.1},
        {"condition": "labels", "drop": 0.25},
        {"condition": normal(30, 2)},
    ],
)
def test_json_gives_back_the_same_config_and_lessons(given: dict[str, object]) -> None:
    data = labelled()
    condition = given.get("condition")
    if condition == "labels":
        given = given | {"condition": data.labels}
    config, lessons = configure(data, None, 3, **({"steps": 5, "net": TINY} | given))  # type: ignore[arg-type]
    again = Config.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again.to_dict() == config.to_dict()
    assert again.digest == config.digest
    numbers = condition if isinstance(condition, Tensor) else None
    same = lessons_of(again, labelled(), numbers)
    assert torch.equal(same.x_0, lessons.x_0)
    assert (same.cond is None) == (condition is None)
    if same.fresh is not None and lessons.fresh is not None:
        assert torch.equal(same.fresh(5, 9), lessons.fresh(5, 9))


def test_a_file_is_standardised_and_cut_in_two_as_before(tmp_path: Path) -> None:
    data = table(tmp_path)
    scale = Standardiser.fit(data.x, data.columns)
    config, lessons = configure(data, scale, 4, steps=5, net=TINY, held_out=True)
    parts = halves(data, 4)
    assert parts is not None
    x = data.x.numpy()[parts.used.numpy()]
    z = (x - data.x.numpy().mean(0)) / data.x.numpy().std(0)
    torch.testing.assert_close(lessons.x_0, torch.from_numpy(z).float(), rtol=1e-5, atol=1e-6)
    assert config.columns == ("a", "b", "c")
    again = Config.from_dict(json.loads(json.dumps(config.to_dict())))
    # By the standardiser that was kept: the data's own may differ in a last digit elsewhere.
    assert torch.equal(lessons_of(again, table(tmp_path)).x_0, lessons.x_0)


def test_fresh_items_are_in_the_units_of_the_run() -> None:
    data = labelled()
    scale = Standardiser.fit(data.x)
    _, lessons = configure(data, scale, 4, steps=5, net=TINY, stream=True)
    assert lessons.fresh is not None
    assert data.fresh is not None
    z = (data.fresh(6, 11).numpy() - data.x.numpy().mean(0)) / data.x.numpy().std(0)
    torch.testing.assert_close(lessons.fresh(6, 11), torch.from_numpy(z).float())
    assert lessons.fresh(6, 11).dtype == torch.float32


def test_the_settings_are_those_that_were_asked_for() -> None:
    config = configured(labelled(), schedule="linear:T=9", batch=3, rate=0.5, drop=0.0)
    settings = config.settings()
    assert (settings.batch, settings.rate, settings.drop) == (3, 0.5, 0.0)
    drawn = settings.levels.draw(9, torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn.level.log_snr, SCHEDULES.parse("linear:T=9").log_snr[1:])
    assert configured(labelled()).settings().levels.spec == Settings().levels.spec


def test_a_class_of_the_held_out_half_counts(tmp_path: Path) -> None:
    """One member of class 5 in forty rows: wherever it falls, the network has a place for it."""
    data, labels = table(tmp_path), torch.zeros(40, dtype=torch.int64)
    labels[17] = 5
    for seed in range(4):
        config, _ = configure(
            data,
            Standardiser.fit(data.x),
            seed,
            steps=1,
            net=TINY,
            held_out=True,
            condition=labels,
        )
        assert config.classes == 6


# --- what cannot be trained


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"steps": None}, "steps = None, seconds = None: give one of the two"),
        ({"seconds": 3.0}, "steps = 5, seconds = 3.0: give one of the two"),
        ({"steps": 0}, "steps = 0: it must be a whole number from 1"),
        ({"steps": None, "seconds": 0.0}, "seconds = 0: it must be a time > 0"),
        ({"net": "mpl"}, "did you mean mlp"),
        ({"net": "mlp:width=0"}, "width = 0"),
        ({"predicts": "noise"}, "predicts = 'noise': choose edm"),
        ({"objective": "simpel"}, "did you mean simple"),
        ({"levels": "normal:std=0"}, "std = 0"),
        ({"schedule": "liner"}, "did you mean linear"),
        ({"batch": 0}, "batch = 0"),
        ({"rate": 0.0}, "rate = 0"),
        ({"drop": 1.5}, "drop = 1.5"),
        ({"objective": "hybrid"}, "hybrid"),  # no schedule, so no steps
        ({"schedule": "flow:T=20", "predicts": "eps"}, "alpha = 0"),  # at t = T alone
        ({"held_out": True}, "none need be held out"),
        ({"condition": torch.zeros(4, dtype=torch.int64)}, "4 conditions for 30 items"),
        ({"stream": True, "condition": torch.zeros(30, dtype=torch.int64)}, "no conditions"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_a_sentence(
    given: dict[str, object], says: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(says)) as caught:
        configured(labelled(), **given)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_learned_is_refused(tmp_path: Path) -> None:
    file = table(tmp_path)
    with pytest.raises(ValueError, match=r"mine.csv cannot be drawn afresh.*such as swiss_roll"):
        configured(file, stream=True)
    with pytest.raises(ValueError, match="the data do not vary"):
        configured(points(torch.ones(5, 2)))
    with pytest.raises(ValueError, match="the data do not vary"):
        configured(load("swiss_roll:n=1"))
    with pytest.raises(ValueError, match="3 rows: half of a file"):
        configured(points(normal(3, 2)), held_out=True)
    with pytest.raises(ValueError, match="cannot hold them apart; add --standardise"):
        configured(points(normal(9, 2) + 1e6))
    with pytest.raises(ValueError, match=r"up to 1e\+19"):
        configured(points(normal(9, 2).sign() * 1e19))


def test_the_trial_leaves_no_trace() -> None:
    state = torch.get_rng_state()
    configured(labelled())
    assert torch.equal(torch.get_rng_state(), state)


# --- what has changed


def test_changed_data_are_refused(tmp_path: Path) -> None:
    data = table(tmp_path)
    scale = Standardiser.fit(data.x)
    config = configured(data, scale)
    x = data.x.clone()
    x[20, 1] += 1e-3
    with pytest.raises(
        ValueError, match=r"mine.csv is not what .*as many items, 40, but not the same.*changed"
    ):
        lessons_of(config, table(tmp_path, x))
    with pytest.raises(ValueError, match=r"\(39 items to learn from, then 40\)"):
        lessons_of(config, table(tmp_path, data.x[:39]))
    with pytest.raises(ValueError, match="changed"):  # another order is another training
        lessons_of(config, table(tmp_path, data.x.flip(0)))
    with pytest.raises(ValueError, match=r"items of shape \(2,\).* trained on \(3,\) .*mine\.csv"):
        lessons_of(config, table(tmp_path, data.x[:, :2]))
    assert torch.equal(lessons_of(config, table(tmp_path, data.x)).x_0, scale.apply(data.x).float())


def test_changed_conditions_are_refused() -> None:
    data = labelled()
    assert data.labels is not None
    config = configured(data, condition=data.labels)
    with pytest.raises(ValueError, match="changed"):
        lessons_of(config, data, data.labels.roll(1))
    with pytest.raises(ValueError, match="comes without conditions"):
        lessons_of(config, points(data.x))
    numbers = configured(data, condition=normal(30, 2))
    with pytest.raises(ValueError, match="comes without conditions"):
        lessons_of(numbers, data)


def test_items_and_conditions_do_not_stand_in_for_each_other() -> None:
    """Twelve numbers, split in several ways."""
    x = torch.arange(12.0)
    prints = {
        Lessons(x.view(6, 2)).fingerprint,
        Lessons(x.view(4, 3)).fingerprint,
        Lessons(x[:8].view(4, 2), x[8:].view(4, 1)).fingerprint,
        Lessons(x[:8].view(4, 2), x[8:].view(4, 1) + 1).fingerprint,
        Lessons(x[:8].view(4, 2)).fingerprint,
    }
    assert len(prints) == 5


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"steps": 6}, "steps = 6: this run was begun with 5"),
        ({"net": "mlp:width=9"}, "this run was begun with mlp:width=8"),
        ({"rate": 1e-3}, "rate = 0.001"),
        ({"schedule": "linear"}, "begun without schedule"),
    ],
)
def test_a_run_cannot_be_resumed_as_another(given: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        configured(labelled()).check_given(given)


def test_what_is_the_same_may_be_said_again() -> None:
    config = configured(labelled())
    config.check_given({"steps": 5, "net": f"{TINY},scale=2", "rate": None, "objective": "edm"})


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("steps", "many", "steps = 'many'"),
        ("steps", True, "steps = True"),
        ("stream", 1, "stream = 1"),
        ("shape", [2.0], "shape"),
        ("shape", [], "shape"),
        ("columns", "xy", "columns"),
        ("rate", None, "rate = None"),
        ("standardiser", {"mean": [0.0]}, "a standardiser needs"),
        ("standardiser", 3, "standardiser = 3"),
        ("kind", "songs", "choose points or pictures"),
        ("levels", None, "neither schedule nor levels"),
        ("extra", 1, "'extra' is not a key"),
    ],
)
def test_a_wrong_value_is_named(key: str, value: object, says: str) -> None:
    values = configured(labelled()).to_dict()
    with pytest.raises((TypeError, ValueError), match=re.escape(says)):
        Config.from_dict(values | {key: value})


@pytest.mark.parametrize("key", list(configured(labelled()).to_dict()))
def test_a_missing_key_is_named(key: str) -> None:
    values = configured(labelled()).to_dict()
    del values[key]
    with pytest.raises(ValueError, match=f"the key '{key}' is missing"):
        Config.from_dict(values)


@pytest.mark.parametrize("key", list(configured(labelled()).to_dict()))
def test_a_checkpoint_belongs_to_all_but_the_place_of_the_data(key: str) -> None:
    config = configured(labelled())
    other = {
        "data": "elsewhere.csv",
        "fingerprint": "00",
        "kind": "pictures",
        "shape": (3,),
        "columns": ("a", "b"),
        "standardiser": Standardiser(torch.zeros(2).double(), torch.ones(2).double()),
        "schedule": "linear:T=9",
        "levels": "cosine",
        "net": "mlp:width=9",
        "predicts": "v",
        "objective": "simple",
        "steps": 6,
    }
    value = other.get(key)
    if value is None:
        was = getattr(config, key)
        value = not was if isinstance(was, bool) else (was or 0) + (0.5 if key == "drop" else 1)
    changed = {key: value, "steps": None} if key == "seconds" else {key: value}
    assert (replace(config, **changed).digest == config.digest) == (key == "data")


# --- what a person should know


def test_items_that_agree_in_one_number_are_no_copies() -> None:
    x = torch.stack([torch.zeros(500), torch.arange(500.0)], 1)
    assert Lessons(x).remarks() == []


def test_remarks() -> None:
    assert Lessons(normal(500, 2).float()).remarks() == []
    assert Lessons(normal(10, 2).float()).remarks() == [("few_items", {"n": 10})]
    copies = Lessons(normal(60, 2).float().repeat(2, 1))
    assert copies.remarks() == [("many_copies", {"copies": 60, "n": 120})]
    cond = torch.zeros(500, dtype=torch.int64)
    cond[3], cond[4:9], cond[100:200] = 2, 3, 4
    assert Lessons(normal(500, 2).float(), cond).remarks() == [
        ("empty_class", {"c": 1, "n": 0}),
        ("rare_class", {"c": 2, "n": 1}),
        ("rare_class", {"c": 3, "n": 5}),
    ]


@pytest.mark.parametrize("lang", LANGS)
def test_remarks_can_be_said(lang: str) -> None:
    cond = torch.tensor([0, 2] * 10)
    few = Lessons(torch.ones(20, 2), cond).remarks()
    said = [texts(lang, "cli")[remark.key].format(**remark.values) for remark in few]
    assert len(said) == 3
    assert "{" not in "".join(said)


def test_fresh_items_are_not_those_that_samples_are_judged_by() -> None:
    """Yardsticks take fresh points by seeds below 2³¹ + 1; runs have blocks of their own."""
    asked: list[int] = []

    def fresh(n: int, seed: int) -> Tensor:
        asked.append(seed)
        return torch.zeros(n, 2)

    for seed in (0, 1, 7, 2**18 - 1, 2**18 + 3, 2**64 - 1):
        Lessons(torch.zeros(2, 2), None, fresh).items(seed).draw(4, torch.Generator())
    assert min(asked) > 2**31 + 1
    assert max(asked) <= 2**32 - 3
    assert len(set(asked)) == 5  # 2⁶⁴ − 1 and 2¹⁸ − 1 agree in 18 bits
    assert min(b - a for a, b in zip(sorted(set(asked)), sorted(set(asked))[1:], strict=False)) > 99


@pytest.mark.parametrize(
    ("predicts", "objective"),
    [
        ("edm", "edm"),
        ("eps", "simple"),
        ("score", "simple"),
        ("x_0", "x_0"),
        ("v", "v"),
        ("flow", "flow"),
    ],
)
def test_the_objective_is_that_of_the_prediction(predicts: str, objective: str) -> None:
    """Bounded at all levels that may be drawn, as another one need not be."""
    data = load("moons:n=400")
    config, lessons = configure(data, None, 0, steps=150, predicts=predicts, batch=256, net=TINY)
    assert config.objective == objective
    assert configure(data, None, 0, steps=1, predicts=predicts, objective="v")[0].objective == "v"
    denoiser = config.build(Moments.of(lessons.x_0))
    steps = train(denoiser, lessons.items(0), 0, 150, settings=config.settings())
    losses = [step.loss for step in steps]
    assert max(losses) < 2 * losses[0]
    assert sum(losses[-20:]) / 20 < 0.9 * losses[0]


@pytest.mark.parametrize(
    ("condition", "says"),
    [
        (torch.ones(30), r"conditions of torch.float32 and shape \(30,\)"),
        (torch.ones(30, 1, dtype=torch.int64), r"conditions of torch.int64 and shape \(30, 1\)"),
        (torch.full((30,), -1), "conditions from -1 to -1"),
        (torch.arange(30) - 5, "conditions from -5 to 24"),
        (torch.zeros(29, dtype=torch.int64), "29 conditions for 30 items"),
    ],
)
def test_conditions_that_mean_nothing(
    condition: Tensor, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=says):
        configure(labelled(), None, 0, steps=1, condition=condition)
