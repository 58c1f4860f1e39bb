"""Networks: laws that every member of the family keeps, and the mlp's own."""

import math
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from alphabar.condition import without
from alphabar.nets import MLP, NETS, DiT, Recipe, UNet, mlp
from alphabar.nets.base import ConditionEmbedding, Fourier
from alphabar.nets.dit import Block as DiTBlock
from alphabar.nets.unet import Attention
from alphabar.nets.unet import Block as UNetBlock
from alphabar.spec import Entry

SHAPES = [(1,), (2,), (5,), (100,), (3, 4, 4), (1, 1, 1), (2, 5, 8)]
TASKS = {"alone": {}, "classes": {"classes": 4}, "numbers": {"numbers": 3}, "two": {"outputs": 2}}
SPECS = ["mlp", "mlp:width=16", "mlp:width=8,depth=1", "mlp:features=0", "mlp:gain=true"]
PICTURES = [
    "unet:base=4,blocks=1",
    "unet:base=6,mult=1-2-1,attend=2",
    "dit:width=16,depth=2,patch=1",
]
SPECS += PICTURES


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


def usual(spec: str) -> tuple[int, ...]:
    """A shape of items that a network is for, with three numbers."""
    return (1, 1, 3) if spec in PICTURES else (3,)


def built(
    spec: str, shape: tuple[int, ...] = (2,), task: str = "alone", seed: int = 0
) -> nn.Module:
    return NETS.parse(spec).build(shape, seed, **TASKS[task])


# --- every network


def fits(spec: str, shape: tuple[int, ...]) -> bool:
    return spec not in PICTURES or len(shape) == 3


CASES = [case for case in product(SPECS, SHAPES, TASKS) if fits(*case[:2])]


@pytest.mark.parametrize(("spec", "shape", "task"), CASES)
def test_numbers_in_as_many_out(spec: str, shape: tuple[int, ...], task: str) -> None:
    net = built(spec, shape, task)
    x, label = normal(7, *shape), normal(7)
    answer = net(x, label, *condition(task, 7))
    assert answer.shape == ((7, 2, *shape) if task == "two" else (7, *shape))
    assert answer.dtype == x.dtype


@pytest.mark.parametrize(("spec", "task"), list(product(SPECS, TASKS)))
def test_the_first_answer_is_0_and_learns(spec: str, task: str) -> None:
    """The preconditioning makes 0 the best linear denoiser; a gradient leads away from it."""
    shape = usual(spec)
    net = built(spec, shape, task)
    x, label, given = normal(7, *shape), normal(7), condition(task, 7)
    assert (net(x, label, *given) == 0).all()
    assert (net(x, label) == 0).all()
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    losses = []
    for _ in range(8):
        answer = net(x, label, *given)
        loss = (answer - x.view(7, *[1] * (answer.ndim - x.ndim), *shape)).square().mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.99 * losses[0]


@pytest.mark.parametrize(("spec", "task"), list(product(SPECS, TASKS)))
def test_items_do_not_see_each_other(spec: str, task: str) -> None:
    """A label that is spread over the batch axis in place of the features' fails here."""
    shape = usual(spec)
    net = awake(built(spec, shape, task))
    x, label, given = normal(6, *shape), normal(6), condition(task, 6)
    whole = net(x, label, *given)
    order = torch.tensor([4, 2, 0, 5, 1, 3])
    permuted = net(x[order], label[order], *(c[order] for c in given))
    torch.testing.assert_close(permuted, whole[order], rtol=1e-5, atol=1e-6)
    for i in range(6):
        one = net(x[i : i + 1], label[i : i + 1], *(c[i : i + 1] for c in given))
        torch.testing.assert_close(one[0], whole[i], rtol=1e-5, atol=1e-6)
    # Each answer depends on its own x, label and condition.
    for changed in (
        net(x + 0.5 * torch.eye(6)[0].view(6, *[1] * len(shape)), label, *given),
        net(x, label + torch.eye(6)[0], *given),
    ):
        assert not torch.allclose(changed[0], whole[0], atol=1e-4)
        torch.testing.assert_close(changed[1:], whole[1:], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("task", ["classes", "numbers"])
@pytest.mark.parametrize("spec", SPECS)
def test_each_condition_has_its_own_answer(spec: str, task: str) -> None:
    shape = usual(spec)
    net = awake(built(spec, shape, task))
    x, label = normal(1, *shape).expand(5, *shape), normal(1).repeat(5)
    given = torch.arange(5) - 1 if task == "classes" else torch.eye(5, 3) * 3
    if task == "numbers":
        given[4] = torch.nan
    answers = net(x, label, given).flatten(1)
    distances = torch.cdist(answers, answers) + 9 * torch.eye(5)
    pairs = distances[distances < 9]
    # Of the numbers, rows 3 and 4 are (0, 0, 0) and none: zeros are a condition too.
    assert pairs.min() > 1e-3


@pytest.mark.parametrize("task", ["classes", "numbers"])
@pytest.mark.parametrize("spec", SPECS)
def test_none_is_one_thing_however_it_is_said(spec: str, task: str) -> None:
    shape = usual(spec)
    net = awake(built(spec, shape, task))
    x, label, (given,) = normal(8, *shape), normal(8), condition(task, 8)
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
    shape = usual(spec)
    first = built(spec, shape, task, seed=7).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(4)
    again = built(spec, shape, task, seed=7).state_dict()
    other = built(spec, shape, task, seed=8).state_dict()
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
    shape = (2,) if entry.name == "mlp" else (1, 4, 4)
    first, same = recipe.build(shape, 0).state_dict(), again.build(shape, 0).state_dict()
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
    shape = usual(spec)
    one, other = (awake(built(spec, shape, seed=seed), seed) for seed in (1, 2))
    x, label = normal(5, *shape), normal(5)
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
        ("unet:mult=1-2.5", "mult = 1-2.5: it must be whole numbers joined by -"),
        ("unet:mult=0", "mult = 0: it must be a whole number from 1"),
        ("unet:dropout=2", "dropout = 2: it must be a share from 0 to 1"),
        ("dit:size=M", "size = 'M': choose S, B, L, XL"),
        ("dit:width=18,heads=3", "width = 18: it must be a multiple of 4, and of heads = 3"),
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


# --- those for pictures


@pytest.mark.parametrize("spec", PICTURES)
def test_pictures_are_three_axes(spec: str) -> None:
    with pytest.raises(ValueError, match=r"for pictures, \(C, H, W\), .* shape \(2,\): take mlp"):
        built(spec, (2,))


def test_patches_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="of 7 × 8 are no whole number of patches of 2"):
        built("dit", (1, 7, 8))


def heads_of(x: np.ndarray, heads: int) -> np.ndarray:
    """(C, places) → (heads, places, C/heads)."""
    return x.reshape(heads, -1, x.shape[-1]).transpose(0, 2, 1)


def attention_by_loops(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Each query's mean of the values, weighted by exp(q·k/√d)."""
    found = np.zeros_like(q)
    for i, j in product(range(q.shape[0]), range(q.shape[1])):
        weight = np.exp(k[i] @ q[i, j] / math.sqrt(q.shape[2]))
        found[i, j] = weight @ v[i] / weight.sum()
    return found


def test_attention_of_a_unet_is_its_formula() -> None:
    attention = awake(Attention(64)).double()
    assert attention.heads == 2
    h = normal(2, 64, 2, 3).double()
    w = {key: value.numpy() for key, value in attention.state_dict().items()}
    normed = attention.norm(h).detach().numpy()
    for item, seen in zip(h.numpy(), normed, strict=True):
        asked = w["ask.weight"][:, :, 0, 0] @ seen.reshape(64, 6) + w["ask.bias"][:, None]
        found = attention_by_loops(*(heads_of(part, 2) for part in np.split(asked, 3)))
        found = found.transpose(0, 2, 1).reshape(64, 6)
        reply = w["reply.weight"][:, :, 0, 0] @ found + w["reply.bias"][:, None]
        expected = (item + reply.reshape(64, 2, 3)) / math.sqrt(2)
        got = attention(torch.from_numpy(item)[None])[0].detach()
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9)


def test_a_block_of_a_dit_is_its_formula() -> None:
    block = awake(DiTBlock(8, 2)).double()
    h, e = normal(1, 5, 8).double(), normal(1, 8, seed=3).double()
    w = {key: value.numpy() for key, value in block.state_dict().items()}

    def line(name: str, v: np.ndarray) -> np.ndarray:
        return v @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(v: np.ndarray) -> np.ndarray:
        return (v - v.mean(-1, keepdims=True)) / np.sqrt(v.var(-1, keepdims=True) + 1e-5)

    a_1, b_1, g_1, a_2, b_2, g_2 = np.split(line("tell", e.numpy())[0], 6)
    x = h.numpy()[0]
    asked = np.split(line("ask", (1 + a_1) * norm(x) + b_1).T, 3)
    found = attention_by_loops(*(heads_of(part, 2) for part in asked))
    x = x + g_1 * line("reply", found.transpose(1, 0, 2).reshape(5, 8))
    inner = line("mlp.0", (1 + a_2) * norm(x) + b_2)
    inner = 0.5 * inner * (1 + np.tanh(math.sqrt(2 / math.pi) * (inner + 0.044715 * inner**3)))
    np.testing.assert_allclose(
        block(h, e)[0].detach(), x + g_2 * line("mlp.2", inner), rtol=1e-9, atol=1e-9
    )


def test_a_block_of_a_unet_is_its_formula() -> None:
    block = awake(UNetBlock(16, 32, 8, 0.0, False)).double()
    h, e = normal(2, 16, 4, 5).double(), normal(2, 8, seed=3).double()
    silu, conv = nn.functional.silu, nn.functional.conv2d
    w = dict(block.named_parameters())

    def norm(v: Tensor, name: str, groups: int) -> Tensor:
        parts = v.unflatten(1, (groups, -1)).flatten(2)
        parts = (parts - parts.mean(2, True)) / (
            parts.var(2, correction=0, keepdim=True) + 1e-5
        ) ** 0.5
        line = (slice(None), None, None)
        return parts.reshape(v.shape) * w[f"{name}.weight"][line] + w[f"{name}.bias"][line]

    inner = conv(silu(norm(h, "norm_1", 1)), w["conv_1.weight"], w["conv_1.bias"], padding=1)
    a, b = (e @ w["tell.weight"].T + w["tell.bias"])[..., None, None].chunk(2, 1)
    inner = silu((1 + a) * norm(inner, "norm_2", 2) + b)
    inner = conv(inner, w["conv_2.weight"], w["conv_2.bias"], padding=1)
    passed = conv(h, w["pass_on.weight"], w["pass_on.bias"])
    torch.testing.assert_close(block(h, e), (passed + inner) / math.sqrt(2))


def test_a_patch_comes_back_to_its_place() -> None:
    """At first the blocks of a dit are the identity: then a patch's answer is its own."""
    net = built("dit:width=16,depth=1,patch=2", (3, 4, 6))
    assert isinstance(net, DiT)
    with torch.no_grad():
        net.last.weight.copy_(normal(12, 16))
    x, label = normal(1, 3, 4, 6), normal(1)
    other = x.clone()
    other[0, 1, 2, 5] += 1  # in the patch of rows 2, 3 and columns 4, 5
    moved = (net(other, label) - net(x, label))[0].abs().amax(0) > 1e-6
    assert moved[2:, 4:].all()
    assert not moved[:2].any()
    assert not moved[:, :4].any()


def test_every_place_has_its_own_sines() -> None:
    net = built("dit:width=16,depth=1,patch=1", (1, 5, 7))
    assert isinstance(net, DiT)
    places = net.places.view(5, 7, 16)
    assert torch.cdist(net.places, net.places).add(torch.eye(35)).min() > 0.1
    assert (places[..., :8] == places[:, :1, :8]).all()  # of the row
    assert (places[..., 8:] == places[:1, :, 8:]).all()  # of the column
    assert places[3, 0, 0].item() == pytest.approx(math.sin(3))
    assert places[0, 2, 12].item() == pytest.approx(math.cos(2))


@pytest.mark.parametrize(("attend", "far"), [(0, False), (4, True)])
def test_attention_where_it_was_asked_for(attend: int, far: bool) -> None:
    """On one grid, without attention, a number is seen no farther than the convolutions reach."""
    net = built(f"unet:base=16,mult=1,blocks=1,attend={attend}", (1, 40, 4))
    assert isinstance(net, UNet)
    assert any(isinstance(m, Attention) for m in net.modules()) == far
    deep = built("unet:base=4,mult=1-1-1,blocks=2,attend=10", (1, 40, 4))
    assert isinstance(deep, UNet)
    # 40 → 20 → 10: the coarsest grid's two blocks, three on the way up, and the middle's first.
    assert sum(isinstance(m, Attention) for m in deep.modules()) == 2 + 3 + 1


def test_published_sizes() -> None:
    """33 M weights and 130 M: Peebles & Xie 2023, table 1, within what label and condition take."""
    with torch.device("meta"):
        for size, weights in (("S", 33e6), ("B", 130e6)):
            net = NETS.parse(f"dit:size={size}").build((4, 32, 32), 0, classes=1000)
            assert sum(p.numel() for p in net.parameters()) == pytest.approx(weights, rel=0.03)
