"""A multilayer perceptron for points, with random Fourier features.

    features(v) = [v, sin(v·F), cos(v·F)],    F fixed, its columns drawn from N(0, scale²·I)
    h_1 = silu((1 + a)⊙W_1·features(x) + b),  (a, b) = W_0·features(label) + embedding(condition)
    h_i = silu(W_i·h_(i−1)),                  answer = W_out·h_depth + g⊙x,  g = W_g·features(label)

A plain MLP learns fine detail last; sines of its input give it the detail from the start (Tancik
et al. 2020, *Fourier Features Let Networks Learn High Frequency Functions*). The label scales the
first layer as well as shifting it (Perez et al. 2018, *FiLM*): at each noise level the network is
another function of x. What is the same in all directions but a few, as where large items lie near a
surface, hidden layers narrower than the item cannot tell; the gain g of each number, 0 where items
are small, can.
"""

import math
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from alphabar.arguments import check_number, check_whole
from alphabar.condition import Condition
from alphabar.nets.base import NETS, ConditionEmbedding, Fourier, Recipe, Task, refuse

# By measurement: see docs/training.md.
NARROW, WIDE, WIDEST = 64, 256, 512
PLAIN, LARGE = 8, 64  # numbers an item up to which the first and the second are enough
FREQUENCIES = 16


class MLP(nn.Module):
    """Items and a scalar label each, to as many numbers; made by `mlp(…).build(…)`.

    Args:
        task: what it works on; items of any shape are flattened.
        width: units of a hidden layer.
        depth: hidden layers.
        features: frequencies of x.
        scale: their standard deviation, for items of two numbers.
        gain: whether x has a gain of its own.
    """

    def __init__(
        self, task: Task, width: int, depth: int, features: int, scale: float, gain: bool
    ) -> None:
        super().__init__()
        d = math.prod(task.shape)
        self.answer = (task.outputs, *task.shape) if task.outputs > 1 else task.shape
        # A phase is a sum over d numbers: without the root it would grow with them.
        self.point = Fourier(d, features, scale * math.sqrt(2 / d))
        self.label = Fourier(1, 8, 1.0)
        conditioned = task.classes or task.numbers
        self.condition = (
            ConditionEmbedding(task.classes, task.numbers, 2 * width) if conditioned else None
        )
        self.modulation = nn.Linear(self.label.size, 2 * width)
        self.first = nn.Linear(self.point.size, width)
        hidden: list[nn.Module] = []
        for _ in range(depth - 1):
            hidden += [nn.SiLU(), nn.Linear(width, width)]
        self.hidden = nn.Sequential(*hidden, nn.SiLU())
        self.last = nn.Linear(width, task.outputs * d)
        # The answer starts at 0, which the preconditioning makes the best linear denoiser.
        self.gain = nn.Linear(self.label.size, task.outputs * d) if gain else None
        for layer in filter(None, (self.last, self.gain)):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self,
        x: Float[Tensor, "B ..."],
        label: Float[Tensor, " B"],
        cond: Condition | None = None,
    ) -> Float[Tensor, "B ..."]:
        """The network's answer for items x with labels, and conditions if it takes them.

        Raises:
            TypeError: a condition, and a network that takes none.
        """
        told = self.label(label[:, None])
        scale_and_shift = self.modulation(told)
        if self.condition is not None:
            scale_and_shift = scale_and_shift + self.condition(cond, len(x))
        else:
            refuse(cond)
        scale, shift = scale_and_shift.chunk(2, 1)
        h = torch.addcmul(shift, self.first(self.point(x.flatten(1))), 1 + scale)
        answer = self.last(self.hidden(h)).view(len(x), *self.answer)
        if self.gain is None:
            return answer
        gain = self.gain(told).view_as(answer)
        return torch.addcmul(answer, gain, x if answer.ndim == x.ndim else x[:, None])


@NETS.entry()
def mlp(
    width: int | None = None,
    depth: int = 3,
    features: int | None = None,
    scale: float = 2.0,
    gain: bool | None = None,
) -> Recipe:
    """A multilayer perceptron with Fourier features.

    Args:
        width: units of a hidden layer; None: 64 for up to 8 numbers an item, 256 for up to 64, 512
            beyond.
        depth: hidden layers.
        features: frequencies of x, 0 for none; None: 16 for up to 8 numbers an item, 0 beyond.
        scale: their standard deviation, for items of two numbers.
        gain: whether x itself is added, times a number learned for each level and number of x;
            None: for more than 64 numbers an item.

    Raises:
        TypeError, ValueError: not whole numbers in range; scale < 0.
    """
    if width is not None:
        width = check_whole("width", width, 1, 2**16)
    depth = check_whole("depth", depth, 1, 100)
    if features is not None:
        features = check_whole("features", features, 0, 2**16)
    scale = check_number("scale", scale, 0, 1000, "a standard deviation from 0 to 1000, such as 2")

    if width is not None and features is not None and gain is not None:
        made = partial(MLP, width=width, depth=depth, features=features, scale=scale, gain=gain)
        return Recipe(made)

    def fit(shape: tuple[int, ...]) -> Recipe:
        d = math.prod(shape)
        fitting = NARROW if d <= PLAIN else WIDE if d <= LARGE else WIDEST
        frequencies = FREQUENCIES if d <= PLAIN else 0
        return mlp(
            width=width or fitting,
            depth=depth,
            features=frequencies if features is None else features,
            scale=scale,
            gain=d > LARGE if gain is None else gain,
        )

    return Recipe(lambda task: fit(task.shape).make(task), fit)
