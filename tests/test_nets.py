"""Networks: laws that every member of the family keeps, and the mlp's own."""

import math
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from alphabar.condition import without
from alphabar.nets import MLP, NETS, Recipe, mlp
from alphabar.nets.base import ConditionEmbedding
from alphabar.nets.mlp import Fourier
from alphabar.spec import Entry

SHAPES = [(1,), (2,), (5,), (100,), (3, 4, 4)]
TASKS = {"alone": {}, "classes": {"classes": 4}, "numbers": {"numbers": 3}, "two": {"outputs": 2}}
SPECS = ["mlp", "mlp:width=16", "mlp:width=8,depth=1", "mlp:features=0", "mlp:gain=true"]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed))


def awake(net: nn.Module, seed: int = 9) -> nn.Module:
    """The net with weights that are nowhere 0, as after training."""
    with torch.no_grad():
        for i, p in enumerate(net.parameters()):
            p.copy_(normal(*p.shape, seed=100 * seed + i) / math.sqrt(p.shape[-1]))
    return net


def condition(task: str, n: int) -> tuple[Tensor, ...]:
    if task == "classes":
        return (torch.arange(n) % 5 - 1,)  # −1: none
    if task == "numbers":
        given = normal(n, 3, seed=4)
        given[::3] = torch.nan
        return (given,)
    return ()


def built(
    spec: str, shape: tuple[int, ...] = (2,), task: str = "alone", seed: int = 0
) -> nn.Module:
    return NETS.parse(spec).build(shape, seed, **TASKS[task])


# --- every network


@pytest.mark.parametrize(("spec", "shape", "task"), list(product(SPECS, SHAPES, TASKS)))
def test_numbers_in_as_many_out(spec: str, shape: tuple[int, ...], task: str) -> None:
    net = built(spec, shape, task)
    x, label = normal(7, *shape), normal(7)
    answer = net(x, label, *condition(task, 7))
    assert answer.shape == ((7, 2, *shape) if task == "two" else (7, *shape))
    assert answer.dtype == x.dtype


@pytest.mark.parametrize(("spec", "task"), list(product(SPECS, TASKS)))
def test_the_first_answer_is_0_and_learns(spec: str, task: str) -> None:
    """The preconditioning makes 0 the best linear denoiser; a gradient leads away from it."""
    net = built(spec, (3,), task)
    x, label, given = normal(7, 3), normal(7), condition(task, 7)
    assert (net(x, label, *given) == 0).all()
    assert (net(x, label) == 0).all()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    losses = []
    for _ in range(5):
        answer = net(x, label, *given)
        loss = (answer - x.view(7, *[1] * (answer.ndim - 2), 3)).square().mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.99 * losses[0]


@pytest.mark.parametrize(("spec", "task"), list(product(SPECS, TASKS)))
def test_items_do_not_see_each_other(spec: str, task: str) -> None:
    """A label that is spread over the batch axis in place of the features' fails here."""
    net = awake(built(spec, (3,), task))
    x, label, given = normal(6, 3), normal(6), condition(task, 6)
    whole = net(x, label, *given)
    order = torch.tensor([4, 2, 0, 5, 1, 3])
    permuted = net(x[order], label[order], *(c[order] for c in given))
    torch.testing.assert_close(permuted, whole[order], rtol=1e-5, atol=1e-6)
    for i in range(6):
        one = net(x[i : i + 1], label[i : i + 1], *(c[i : i + 1] for c in given))
        torch.testing.assert_close(one[0], whole[i], rtol=1e-5, atol=1e-6)
    # Each answer depends on its own x, label and condition.
    for changed in (
        net(x + torch.eye(6, 3)[:, :1] * 0.5, label, *given),
        net(x, label + torch.eye(6)[0], *given),
    ):
        assert not torch.allclose(changed[0], whole[0], atol=1e-4)
        torch.testing.assert_close(changed[1:], whole[1:], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("task", ["classes", "numbers"])
@pytest.mark.parametrize("spec", SPECS)
def test_each_condition_has_its_own_answer(spec: str, task: str) -> None:
    net = awake(built(spec, (3,), task))
    x, label = normal(1, 3).repeat(5, 1), normal(1).repeat(5)
    given = torch.arange(5) - 1 if task == "classes" else torch.eye(5, 3) * 3
    if task == "numbers":
        given[4] = torch.nan
    answers = net(x, label, given)
    distances = torch.cdist(answers, answers) + 9 * torch.eye(5)
    pairs = distances[distances < 9]
    # Of the numbers, rows 3 and 4 are (0, 0, 0) and none: zeros are a condition too.
    assert pairs.min() > 1e-3


@pytest.mark.parametrize("task", ["classes", "numbers"])
@pytest.mark.parametrize("spec", SPECS)
def test_none_is_one_thing_however_it_is_said(spec: str, task: str) -> None:
    net = awake(built(spec, (3,), task))
    x, label, (given,) = normal(8, 3), normal(8), condition(task, 8)
    dropped = torch.tensor([True, False] * 4)
    unconditional = net(x, label)
    withheld = net(x, label, without(given, dropped))
    torch.testing.assert_close(withheld[dropped], unconditional[dropped])
    torch.testing.assert_close(withheld[~dropped], net(x, label, given)[~dropped])
    torch.testing.assert_close(net(x, label, without(given, dropped | ~dropped)), unconditional)
    if task == "numbers":  # one unknown number makes the condition unknown
        partly = given.nan_to_num()
        partly[:, 1] = torch.nan
        torch.testing.assert_close(net(x, label, partly), unconditional)


@pytest.mark.parametrize("task", ["classes", "numbers"])
def test_gradients_are_finite_where_there_is_no_condition(task: str) -> None:
    """NaN times 0 is NaN: numbers that are not there must not reach the weights."""
    net = awake(built("mlp:width=8", (3,), task))
    given = torch.full((4,), -1) if task == "classes" else torch.full((4, 3), torch.nan)
    net(normal(4, 3), normal(4), given).square().sum().backward()
    grads = [p.grad for p in net.parameters() if p.grad is not None]
    assert grads
    assert all(grad.isfinite().all() for grad in grads)


@pytest.mark.parametrize(("spec", "task"), list(product(SPECS, TASKS)))
def test_a_seed_makes_one_network_and_leaves_the_global_generator(spec: str, task: str) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = built(spec, (2,), task, seed=7).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(4)
    again = built(spec, (2,), task, seed=7).state_dict()
    other = built(spec, (2,), task, seed=8).state_dict()
    assert first.keys() == again.keys()
    assert all(torch.equal(v, again[k]) for k, v in first.items())
    assert any(not torch.equal(v, other[k]) for k, v in first.items())


@pytest.mark.parametrize("seed", [0, 2**63, 2**64 - 1])
def test_any_seed_will_do(seed: int) -> None:
    assert built("mlp:width=4", seed=seed)


@pytest.mark.parametrize("entry", list(NETS), ids=lambda entry: entry.name)
def test_specs_round_trip(entry: Entry) -> None:
    recipe = NETS.parse(entry.name)
    assert isinstance(recipe, Recipe)
    again = NETS.parse(recipe.spec)
    assert again.spec == recipe.spec
    first, same = recipe.build((2,), 0).state_dict(), again.build((2,), 0).state_dict()
    assert all(torch.equal(v, same[k]) for k, v in first.items())
    assert NETS.parse("mlp:width=7,depth=2").spec == "mlp:width=7,depth=2,scale=2.0"
    assert mlp(width=7, depth=2).spec == "mlp:width=7,depth=2,scale=2.0"


@pytest.mark.parametrize(
    ("given", "shape", "spec"),
    [
        ("mlp", (2,), "mlp:width=64,depth=3,features=16,scale=2.0,gain=false"),
        ("mlp", (8,), "mlp:width=64,depth=3,features=16,scale=2.0,gain=false"),
        ("mlp", (3, 3), "mlp:width=256,depth=3,features=0,scale=2.0,gain=false"),
        ("mlp", (65,), "mlp:width=512,depth=3,features=0,scale=2.0,gain=true"),
        ("mlp:width=9,depth=1", (2,), "mlp:width=9,depth=1,features=16,scale=2.0,gain=false"),
        ("mlp:features=4", (20,), "mlp:width=256,depth=3,features=4,scale=2.0,gain=false"),
        ("mlp:width=9,features=0", (20,), "mlp:width=9,depth=3,features=0,scale=2.0,gain=false"),
    ],
)
def test_what_the_size_of_an_item_decides(given: str, shape: tuple[int, ...], spec: str) -> None:
    recipe = NETS.parse(given)
    fitted = recipe.fitted(shape)
    assert fitted.spec == spec
    assert fitted.fitted((1,)).spec == spec
    one, other = recipe.build(shape, 5).state_dict(), fitted.build(shape, 5).state_dict()
    assert one.keys() == other.keys()
    assert all(torch.equal(v, other[k]) for k, v in one.items())


@pytest.mark.parametrize("spec", SPECS)
def test_the_state_is_all_there_is(spec: str) -> None:
    """Weights and fixed features: loaded into a network of another seed, they make it the same."""
    one, other = awake(built(spec, seed=1), 1), awake(built(spec, seed=2), 2)
    x, label = normal(5, 2), normal(5)
    assert not torch.equal(one(x, label), other(x, label))
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(x, label), other(x, label))


# --- what is refused


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("mlp:width=0", "width = 0: it must be a whole number from 1"),
        ("mlp:depth=0", "depth = 0: it must be a whole number from 1"),
        ("mlp:features=-1", "features = -1: it must be a whole number from 0"),
        ("mlp:scale=-1", "scale = -1: it must be a standard deviation"),
        ("mlp:width=2.5", "width = 2.5: it must be a whole number"),
        ("mlp:wide=2", "mlp has no parameter 'wide'; did you mean width"),
        ("unett", "'unett' is not a network"),
    ],
)
def test_bad_specs_are_one_sentence(spec: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        NETS.parse(spec)


def test_a_network_has_one_kind_of_condition() -> None:
    with pytest.raises(ValueError, match="classes = 2 and numbers = 3"):
        mlp().build((2,), 0, classes=2, numbers=3)
    with pytest.raises(ValueError, match="seed = -1"):
        mlp().build((2,), -1)


@pytest.mark.parametrize(
    ("task", "given", "says"),
    [
        ("classes", lambda: torch.tensor([0, 1, 4]), "values 0 to 4: give each of the 3 items"),
        ("classes", lambda: torch.tensor([0, -2, 3]), "values -2 to 3"),
        ("classes", lambda: torch.zeros(3, 3), "this network is conditioned on a class from 0"),
        ("numbers", lambda: torch.zeros(3, 2), "give each of the 3 items 3 real numbers"),
        ("numbers", lambda: torch.zeros(3, dtype=torch.int64), "int64"),
        ("alone", lambda: torch.zeros(3, dtype=torch.int64), "takes no condition"),
    ],
)
def test_wrong_conditions_are_refused(task: str, given: Callable[[], Tensor], says: str) -> None:
    net = built("mlp:width=4", (2,), task)
    with pytest.raises((TypeError, ValueError), match=says):
        net(normal(3, 2), normal(3), given())


def test_another_number_of_conditions_than_items_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(2,\) and values 0 to 1: give each of the 3"):
        ConditionEmbedding(4, 0, 8)(torch.tensor([0, 1]), 3)
    with pytest.raises(ValueError, match=r"shape \(2, 3\) and dtype .*: give each of the 4"):
        ConditionEmbedding(0, 3, 8)(torch.zeros(2, 3), 4)


# --- the mlp's own


def test_the_mlp_is_its_formula() -> None:
    """In float64 numpy, from the state's names alone."""
    net = awake(built("mlp:width=5,depth=3,features=4", (2, 3), "classes")).double()
    w = {key: value.numpy() for key, value in net.state_dict().items()}
    x, label = normal(4, 2, 3, seed=1).double(), normal(4, seed=2).double()
    given = torch.tensor([3, -1, 0, 2])

    def line(name: str, v: np.ndarray) -> np.ndarray:
        return v @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def features(name: str, v: np.ndarray) -> np.ndarray:
        phase = v @ w[f"{name}.frequencies"]
        return np.concatenate([v, np.sin(phase), np.cos(phase)], 1)

    def silu(v: np.ndarray) -> np.ndarray:
        return v / (1 + np.exp(-v))

    both = line("modulation", features("label", label.numpy()[:, None]))
    both = both + w["condition.table.weight"][given.numpy() + 1]
    a, b = both[:, :5], both[:, 5:]
    h = silu((1 + a) * line("first", features("point", x.numpy().reshape(4, 6))) + b)
    h = silu(line("hidden.1", h))
    h = silu(line("hidden.3", h))
    expected = line("last", h).reshape(4, 2, 3)
    np.testing.assert_allclose(net(x, label, given).detach(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("d", "width"), [(1, 64), (8, 64), (9, 256), (64, 256), (65, 512)])
def test_the_width_follows_the_items(d: int, width: int) -> None:
    net = mlp().build((d,), 0)
    assert isinstance(net, MLP)
    assert net.first.out_features == width
    wide = mlp(width=12).build((d,), 0)
    assert isinstance(wide, MLP)
    assert wide.first.out_features == 12


@pytest.mark.parametrize("d", [1, 2, 30, 1000])
def test_phases_are_as_large_in_any_dimension(d: int) -> None:
    """x·F has variance 2·scale² for x ~ N(0, I), whatever d: else large items were all noise."""
    net = mlp(features=2000, scale=1.5).build((d,), 0)
    assert isinstance(net, MLP)
    phase = normal(200, d) @ net.point.frequencies
    # 400,000 phases; d = 1 has 2,000 independent frequencies and 200 x: 4 of its errors.
    assert phase.std().item() == pytest.approx(1.5 * math.sqrt(2), rel=0.25 if d == 1 else 0.1)


def test_features_are_sines_of_every_item() -> None:
    fourier = Fourier(2, 3, 1.0)
    v = normal(5, 2)
    found = fourier(v)
    assert found.shape == (5, fourier.size)
    assert torch.equal(found[:, :2], v)
    torch.testing.assert_close(found[:, 2:5] ** 2 + found[:, 5:] ** 2, torch.ones(5, 3))
    assert not [name for name, _ in fourier.named_parameters()]  # fixed


@pytest.mark.parametrize("task", TASKS)
def test_a_gain_is_of_each_number_and_label(task: str) -> None:
    """Without its last layer the network is a diagonal map of x, another for each label."""
    net = awake(built("mlp:width=4,gain=true", (3,), task))
    with torch.no_grad():
        net.last.weight.zero_()
        net.last.bias.zero_()
    x, label = normal(6, 3), normal(6, seed=1)
    given = condition(task, 6)
    answer = net(x, label, *given)
    other = x.clone()
    other[:, 1] *= 2
    changed = net(other, label, *given) - answer
    torch.testing.assert_close(changed[..., 1], answer[..., 1])
    assert changed[..., [0, 2]].abs().max() == 0
    gains = answer / (x[:, None] if task == "two" else x)
    torch.testing.assert_close(net(3 * x, label, *given), 3 * answer)
    assert gains.std(0).min() > 1e-3
    if task == "two":
        assert (gains[:, 0] - gains[:, 1]).abs().min() > 0
