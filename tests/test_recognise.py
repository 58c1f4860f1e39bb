"""A classifier that learns in seconds: what it says of pictures it has not seen."""

import math

import pytest
import torch
from scipy import stats
from torch import Tensor

from alphabar import recognise
from alphabar.compare import halves
from alphabar.data import load
from alphabar.recognise import Recogniser, Share, train_recogniser


def stripes(n: int, shape: tuple[int, ...], seed: int) -> tuple[Tensor, Tensor]:
    """Noisy pictures of which class 0 has stripes across, 1 upright, and 2 neither."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    x = 0.3 * torch.randn(n, *shape, generator=generator)
    height, width = shape[1:]
    x[labels == 0] += 1.5 * (torch.arange(height) // 2 % 2)[:, None]
    x[labels == 1] += 1.5 * (torch.arange(width) // 2 % 2)
    return x, labels


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recognise, "_STEPS", 30)
    monkeypatch.setattr(recognise, "EPOCHS", 1)


# --- a share


@pytest.mark.parametrize(("right", "n"), [(0, 7), (7, 7), (3, 11), (351, 355)])
def test_the_interval_of_a_share_is_exact(right: int, n: int) -> None:
    """At each end the tail of the binomial law, summed term by term, is 2.5%."""
    share = Share.of(right, n)
    assert (share.value, share.n) == (right / n, n)

    def tail(p: float, counts: range) -> float:
        return math.fsum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in counts)

    if right:
        assert tail(share.low, range(right, n + 1)) == pytest.approx(0.025, rel=1e-6)
    else:
        assert share.low == 0
    if right < n:
        assert tail(share.high, range(right + 1)) == pytest.approx(0.025, rel=1e-6)
    else:
        assert share.high == 1


@pytest.mark.parametrize("p", [0.5, 0.99])
def test_the_interval_of_a_share_covers(p: float) -> None:
    """Over all that 50 trials can give, with their chances: 95% or more, and not all."""
    held = [Share.of(k, 50) for k in range(51)]
    covered = sum(stats.binom.pmf(k, 50, p) for k, s in enumerate(held) if s.low <= p <= s.high)
    assert 0.95 <= covered < 0.995


# --- what it learns


@pytest.mark.prove
@pytest.mark.parametrize("seed", range(3))
def test_held_out_digits(seed: int) -> None:
    data = load("digits")
    parts = halves(data, 0)
    assert parts is not None
    assert data.labels is not None
    made = train_recogniser(data.x[parts.used], data.labels[parts.used], seed)
    assert made.accuracy(data.x[parts.held_out], data.labels[parts.held_out]).value >= 0.985


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 12), (2, 9, 32), (1, 64, 64)])
def test_pictures_of_any_size(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    if shape[1] == 64:  # what it learns, the other sizes show
        monkeypatch.setattr(recognise, "_STEPS", 2)
    x, labels = stripes(96, shape, 0)
    made = train_recogniser(x, labels, 0)
    others, theirs = stripes(90, shape, 1)
    assert made(others[:4]).shape == (4, 3)
    assert made.features(others).shape == (90, recognise.FEATURES)
    if shape[1] < 64:
        assert made.accuracy(others, theirs).low > 0.9


@pytest.mark.usefixtures("short")
def test_the_same_seed_is_the_same_classifier() -> None:
    x, labels = stripes(64, (1, 8, 8), 0)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    one = train_recogniser(x, labels, 3)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(6)
    again, other = train_recogniser(x, labels, 3), train_recogniser(x, labels, 4)
    assert torch.equal(one.features(x), again.features(x))
    assert not torch.equal(one.features(x), other.features(x))


@pytest.mark.usefixtures("short")
def test_a_trained_one_is_at_rest() -> None:
    """No dropout, no moments of the batch, no gradients: a picture's features are its own."""
    x, labels = stripes(64, (1, 8, 8), 0)
    with torch.no_grad():  # whoever evaluates may be in this mode
        made = train_recogniser(x, labels, 0)
    assert not any(p.requires_grad for p in made.parameters())
    torch.testing.assert_close(made.features(x)[:3], made.features(x[:3]))
    assert torch.equal(made.classify(x.double()), made(x).argmax(1))
    # More than are looked at at a time.
    many = x.repeat(20, 1, 1, 1)
    torch.testing.assert_close(made.features(many)[-64:], made.features(x))
    assert torch.equal(made.classify(many)[-64:], made.classify(x))


def test_accuracy_is_counted() -> None:
    made = Recogniser((1, 8, 8), 4).eval()
    x = torch.randn(50, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    taken = made.classify(x)
    labels = torch.where(torch.arange(50) < 20, taken, (taken + 1) % 4)
    assert made.accuracy(x, labels) == Share.of(20, 50)


def test_shifts() -> None:
    """Every move of −1, 0, 1 each way, about as often; what leaves is gone, the rim goes on."""
    picture = torch.arange(20.0).reshape(1, 4, 5)
    moved = recognise._shifted(picture.expand(900, 1, 4, 5), 1, torch.Generator().manual_seed(0))
    seen = {}
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            rows = (torch.arange(4) + down).clamp(0, 3)
            columns = (torch.arange(5) + right).clamp(0, 4)
            expected = picture[0][rows][:, columns]
            seen[down, right] = int((moved[:, 0] == expected).flatten(1).all(1).sum())
    assert sum(seen.values()) == 900
    # 100 each; false alarm below 1e-4 for all nine.
    assert min(seen.values()) > 100 - 4.5 * math.sqrt(100)


# --- what is refused


@pytest.mark.parametrize(
    ("x", "labels", "classes", "said"),
    [
        (torch.zeros(0, 1, 8, 8), torch.zeros(0).long(), None, "0 labels for 0 pictures"),
        (torch.zeros(4, 1, 8, 8), torch.zeros(4).long(), None, "two or more"),
        (torch.zeros(4, 1, 8, 8), torch.tensor([0, 1, 2, -1]), None, "class -1"),
        (torch.zeros(4, 1, 8, 8), torch.tensor([0, 1, 2, 3]), 3, "class 3"),
    ],
)
def test_what_cannot_be_learned(x: Tensor, labels: Tensor, classes: int | None, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        train_recogniser(x, labels, 0, classes)


def test_only_pictures_are_recognised() -> None:
    with pytest.raises(ValueError, match="only pictures"):
        Recogniser((2,), 3)
