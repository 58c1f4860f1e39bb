"""A classifier of pictures, by which samples are judged: trained on the real ones, in seconds.

    two convolutions and a halving, until 2 × 2 are left or less;  128 features;  a class

Nothing is downloaded, so it sees what these data teach. Its accuracy on held-out pictures is the
most that can be asked of samples, and its features are a space in which two sets of pictures are
compared by what they show rather than by their pixels.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from scipy import stats  # type: ignore[import-untyped]
from torch import Tensor, nn
from torch.nn import functional

FEATURES = 128
EPOCHS = 40
_BATCH = 64
_RATE = 3e-3
_WIDTH = 32
_LARGEST = 64  # pixels a side that it looks at
_STEPS = 1000  # at least, so that a few hundred pictures are learned too
_MOST = 4000  # at most, whatever there is
SURE = 0.95


class Share(NamedTuple):
    """A share of n trials, with an interval that covers the true one in 95 of 100 such trials."""

    value: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, right: int, n: int) -> "Share":
        """Clopper & Pearson 1934: exact, and never too narrow."""
        exact = stats.binomtest(right, n).proportion_ci(SURE, "exact")
        return cls(right / n, float(exact.low), float(exact.high), n)


class Recogniser(nn.Module):
    """p(class | picture), and features of pictures.

    Args:
        shape: (C, H, W) of a picture.
        classes: how many.

    Raises:
        ValueError: no picture, or fewer than two classes.
    """

    def __init__(self, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        if len(shape) != 3:
            raise ValueError(f"items of shape {shape}: only pictures, (C, H, W), are recognised")
        if classes < 2:
            raise ValueError(f"{classes} class: to be recognised there must be two or more")
        channels, side, width = shape[0], min(_LARGEST, *shape[1:]), _WIDTH
        self.side = side
        layers: list[nn.Module] = []
        while side > 2:
            layers += [*_convolved(channels, width), *_convolved(width, width), nn.MaxPool2d(2)]
            channels, width, side = width, min(2 * width, FEATURES), side // 2
        self.body = nn.Sequential(
            *layers,
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(channels * side * side, FEATURES),
            nn.ReLU(),
        )
        self.head = nn.Sequential(nn.Dropout(0.3), nn.Linear(FEATURES, classes))

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B classes"]:
        """log p(class | x), up to a constant of each picture."""
        return self.head(self.body(self._seen(x)))

    def _seen(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C s s"]:
        if x.shape[2:] == (self.side, self.side):
            return x
        return functional.adaptive_avg_pool2d(x, self.side)

    @torch.no_grad()
    def classify(self, x: Float[Tensor, "N C H W"]) -> Int64[Tensor, " N"]:
        """The most likely class of each picture."""
        parts = [self(part).argmax(1) for part in torch.split(x.float(), 1024)]
        return torch.cat(parts)

    @torch.no_grad()
    def features(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N 128"]:
        """What the last layer sees of each picture."""
        return torch.cat([self.body(self._seen(part)) for part in torch.split(x.float(), 1024)])

    def accuracy(self, x: Float[Tensor, "N C H W"], labels: Int64[Tensor, " N"]) -> Share:
        """The share of pictures that are taken for what they are."""
        return Share.of(int((self.classify(x) == labels).sum()), len(x))


def train_recogniser(
    x: Float[Tensor, "N C H W"], labels: Int64[Tensor, " N"], seed: int, classes: int | None = None
) -> Recogniser:
    """A recogniser of these pictures; the same for the same seed.

    Each picture is shown shifted by up to a sixteenth of its side (a pixel at least), as what it
    shows does not depend on where it stands.

    Args:
        x: pictures in [−1, 1].
        labels: the class of each, from 0.
        seed: of the first weights, the order and the shifts.
        classes: how many there are; None: as the labels say.

    Raises:
        ValueError: no pictures, fewer than two classes, another number of labels, or a class that
            there is not.
    """
    if len(x) != len(labels) or not len(x):
        raise ValueError(f"{len(labels)} labels for {len(x)} pictures: give each its own")
    least, most = int(labels.min()), int(labels.max())
    classes = most + 1 if classes is None else classes
    if least < 0 or most >= classes:
        raise ValueError(
            f"class {least if least < 0 else most} among {classes} classes: number them from 0"
        )
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed % 2**63)
        made = Recogniser(tuple(x.shape[1:]), classes)
        generator = torch.Generator().manual_seed(seed % 2**63)
        batch = min(_BATCH, len(x))
        steps = min(_MOST, max(_STEPS, EPOCHS * (len(x) // batch)))
        optimizer = torch.optim.AdamW(made.parameters(), _RATE, weight_decay=1e-2, fused=True)
        rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, steps)
        reach = max(1, x.shape[-1] // 16)
        for rows, _ in zip(_orders(len(x), batch, generator), range(steps), strict=False):
            shown = _shifted(x[rows].float(), reach, generator)
            loss = functional.cross_entropy(made(shown), labels[rows], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            rates.step()
    return made.eval().requires_grad_(False)


def _convolved(inner: int, outer: int) -> list[nn.Module]:
    return [nn.Conv2d(inner, outer, 3, padding=1), nn.BatchNorm2d(outer), nn.ReLU()]


def _orders(n: int, batch: int, generator: torch.Generator) -> Iterator[Int64[Tensor, " B"]]:
    while True:
        order = torch.randperm(n, generator=generator)
        yield from torch.split(order[: n // batch * batch], batch)


def _shifted(
    x: Float[Tensor, "B C H W"], reach: int, generator: torch.Generator
) -> Float[Tensor, "B C H W"]:
    """Each picture moved by its own −reach … reach pixels; its rim goes on."""
    B, _, H, W = x.shape
    wide = functional.pad(x, (reach,) * 4, mode="replicate")
    down, right = torch.randint(0, 2 * reach + 1, (2, B, 1), generator=generator)
    rows, columns = down + torch.arange(H), right + torch.arange(W)
    items = torch.arange(B)[:, None, None]
    return wide[items, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
