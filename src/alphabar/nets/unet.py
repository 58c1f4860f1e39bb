"""A U-Net for pictures: down to coarse grids and up again, with what was seen on the way down.

    h ← (V·h + W_2·silu((1 + a)⊙norm(W_1·silu(norm(h))) + b))/√2,    (a, b) = W·e

with e what it is told of the label and the condition, and W_1, W_2 convolutions. Blocks, middle and
skips are those of Ho et al. 2020 (appendix B), scale and shift by e and attention of many heads
those of Dhariwal & Nichol 2021 (section 3), sums of two branches over √2 those of Song et al. 2021b
(appendix H).
"""

import math
from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from alphabar.arguments import check_number, check_whole
from alphabar.condition import Condition
from alphabar.nets.base import NETS, Recipe, Task, Told, check_pictures

_HEAD = 32  # numbers of a head of attention
_GROUP = 16  # channels of a group that is normalised together, at least
_ROOT = math.sqrt(0.5)


class UNet(nn.Module):
    """Pictures and a scalar label each, to as many pictures; made by `unet(…).build(…)`.

    Any height and width will do: of an odd side the coarser grid has the larger half.

    Args:
        task: what it works on; items of (C, H, W).
        base: channels of the finest grid, before `mult`.
        mult: times so many channels on each grid, from fine to coarse, each half as wide.
        blocks: on each grid, on the way down; one more on the way up.
        attend: side up to which a grid has attention; 0: none has.
        dropout: share of numbers that is left out in a block, in training.
    """

    def __init__(
        self,
        task: Task,
        base: int,
        mult: Sequence[int],
        blocks: int,
        attend: int,
        dropout: float,
    ) -> None:
        super().__init__()
        colours, *sides = task.shape
        self.answer = (task.outputs, *task.shape) if task.outputs > 1 else task.shape
        self.told = Told(task, 4 * base)
        self.first = nn.Conv2d(colours, base, 3, padding=1)
        side, width = max(sides), base
        seen = [base]  # channels of what is kept for the way up
        self.down, self.up = nn.ModuleList(), nn.ModuleList()

        def block(channels: int, out: int, attends: bool) -> Block:
            return Block(channels, out, 4 * base, dropout, attends)

        grids: list[tuple[int, bool]] = []
        for level, times in enumerate(mult):
            if level:
                self.down.append(nn.Conv2d(width, width, 3, stride=2, padding=1))
                seen.append(width)
                side = -(-side // 2)
            grids.append((base * times, side <= attend))
            for _ in range(blocks):
                self.down.append(block(width, base * times, side <= attend))
                width = base * times
                seen.append(width)
        self.middle = nn.ModuleList([block(width, width, attend > 0), block(width, width, False)])
        for out, attends in reversed(grids):
            for _ in range(blocks + 1):
                self.up.append(block(width + seen.pop(), out, attends))
                width = out
        self.norm = _norm(width)
        self.last = _silent(nn.Conv2d(width, task.outputs * colours, 3, padding=1))

    def forward(
        self,
        x: Float[Tensor, "B C H W"],
        label: Float[Tensor, " B"],
        cond: Condition | None = None,
    ) -> Float[Tensor, "B ..."]:
        """The network's answer for items x with labels, and conditions if it takes them.

        Raises:
            TypeError: a condition, and a network that takes none.
        """
        e = self.told(label, cond)
        h = self.first(x)
        seen = [h]
        for layer in self.down:
            h = layer(h, e) if isinstance(layer, Block) else layer(h)
            seen.append(h)
        for layer in self.middle:
            h = layer(h, e)
        for layer in self.up:
            beside = seen.pop()
            if h.shape[-2:] != beside.shape[-2:]:
                h = F.interpolate(h, beside.shape[-2:])
            h = layer(torch.cat([h, beside], 1), e)
        return self.last(F.silu(self.norm(h))).reshape(len(x), *self.answer)


class Block(nn.Module):
    """Two convolutions, told of label and condition between them, and attention if asked for."""

    def __init__(self, channels: int, out: int, told: int, dropout: float, attends: bool) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = _norm(channels), _norm(out)
        self.conv_1 = nn.Conv2d(channels, out, 3, padding=1)
        self.conv_2 = _silent(nn.Conv2d(out, out, 3, padding=1))
        self.tell = nn.Linear(told, 2 * out)
        self.dropout = nn.Dropout(dropout)
        self.pass_on = nn.Conv2d(channels, out, 1) if channels != out else nn.Identity()
        self.attention = Attention(out) if attends else nn.Identity()

    def forward(
        self, h: Float[Tensor, "B C H W"], e: Float[Tensor, "B told"]
    ) -> Float[Tensor, "B D H W"]:
        """What the next layer sees."""
        a, b = self.tell(e)[..., None, None].chunk(2, 1)
        inner = self.norm_2(self.conv_1(F.silu(self.norm_1(h))))
        inner = self.dropout(F.silu(torch.addcmul(b, inner, 1 + a)))
        return self.attention((self.pass_on(h) + self.conv_2(inner)) * _ROOT)


class Attention(nn.Module):
    """Every place looks at every other: softmax(q·kᵀ/√d)·v, in heads of d = 32 numbers or more."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        heads = max(1, channels // _HEAD)
        self.heads = heads if channels % heads == 0 else 1
        self.norm = _norm(channels)
        self.ask = nn.Conv2d(channels, 3 * channels, 1)
        self.reply = _silent(nn.Conv2d(channels, channels, 1))

    def forward(self, h: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """h, and beside it what was found elsewhere."""
        # (B, 3·C, H, W) → query, key and value, (B, heads, H·W, C/heads) each.
        asked = self.ask(self.norm(h)).flatten(2).unflatten(1, (3, self.heads, -1)).mT
        found = F.scaled_dot_product_attention(*asked.unbind(1))
        return (h + self.reply(found.mT.reshape(h.shape))) * _ROOT


def _norm(channels: int) -> nn.GroupNorm:
    """Of up to 32 groups."""
    groups = max(1, min(32, channels // _GROUP))
    while channels % groups:
        groups -= 1
    return nn.GroupNorm(groups, channels)


def _silent(layer: nn.Conv2d) -> nn.Conv2d:
    """The layer, with an answer of 0 at first: a block begins as what it passes on."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


@NETS.entry()
def unet(
    base: int = 32,
    mult: Sequence[int] = (1, 2),
    blocks: int = 2,
    attend: int = 8,
    dropout: float = 0.0,
) -> Recipe:
    """A U-Net, for pictures.

    Args:
        base: channels of the finest grid, before mult.
        mult: times so many channels on each grid, from fine to coarse: 1-2-2.
        blocks: on each grid, on the way down; one more on the way up.
        attend: side up to which a grid has attention; 0: none has.
        dropout: share of numbers that is left out in a block, in training.

    Raises:
        TypeError, ValueError: not whole numbers in range; a share out of [0, 1).
    """
    base = check_whole("base", base, 1, 2**12)
    times = tuple(check_whole("mult", m, 1, 2**8) for m in mult)
    if not times:
        raise ValueError("mult is empty: give a number for each grid, such as mult=1-2-2")
    made = partial(
        UNet,
        base=base,
        mult=times,
        blocks=check_whole("blocks", blocks, 1, 100),
        attend=check_whole("attend", attend, 0, 2**12),
        dropout=check_number("dropout", dropout, 0, 1, "a share from 0 to 1, such as 0.1"),
    )
    return Recipe(lambda task: made(check_pictures(task, "unet")))
