"""A diffusion transformer: patches of a picture as a set of words (Peebles & Xie 2023).

    h ← h + g_1⊙attention((1 + a_1)⊙norm(h) + b_1)
    h ← h + g_2⊙mlp((1 + a_2)⊙norm(h) + b_2),    (a_1, b_1, g_1, a_2, b_2, g_2) = W·silu(e)

with e what it is told of the label and the condition. W is 0 at first, so that every block begins
as the identity (adaLN-Zero, section 3.2). A place is told by sines and cosines of its row and
column.
"""

import math
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from alphabar.arguments import check_whole
from alphabar.condition import Condition
from alphabar.nets.base import NETS, Recipe, Task, Told, check_pictures


class Size(NamedTuple):
    """A row of their table 1."""

    width: int
    depth: int
    heads: int


SIZES = {
    "S": Size(384, 12, 6),
    "B": Size(768, 12, 12),
    "L": Size(1024, 24, 16),
    "XL": Size(1152, 28, 16),
}


class DiT(nn.Module):
    """Pictures and a scalar label each, to as many pictures; made by `dit(…).build(…)`.

    Args:
        task: what it works on; items of (C, H, W), whole numbers of patches high and wide.
        patch: side of a patch.
        width: numbers of a patch on its way.
        depth: blocks.
        heads: of attention; they share the width.
    """

    places: Tensor

    def __init__(self, task: Task, patch: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        colours, height, breadth = task.shape
        if height % patch or breadth % patch:
            raise ValueError(
                f"pictures of {height} × {breadth} are no whole number of patches of {patch}: "
                "choose another patch, or crop them"
            )
        self.patch = patch
        self.answer = (task.outputs, *task.shape) if task.outputs > 1 else task.shape
        self.told = Told(task, width)
        self.first = nn.Conv2d(colours, width, patch, stride=patch)
        places = _places(height // patch, breadth // patch, width)
        self.register_buffer("places", places, persistent=False)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.tell = _silent(nn.Linear(width, 2 * width))
        self.last = _silent(nn.Linear(width, task.outputs * colours * patch**2))

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
        h = self.first(x).flatten(2).mT + self.places
        for block in self.blocks:
            h = block(h, e)
        a, b = self.tell(e)[:, None].chunk(2, 2)
        patches = self.last(torch.addcmul(b, self.norm(h), 1 + a))
        # (B, patches, numbers of one) → the picture, by the inverse of cutting it up.
        whole = F.fold(patches.mT, x.shape[-2:], self.patch, stride=self.patch)
        return whole.reshape(len(x), *self.answer)


class Block(nn.Module):
    """Attention, then a perceptron for each place; both scaled, shifted and gated by e."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.ask, self.reply = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width)
        )
        self.tell = _silent(nn.Linear(width, 6 * width))

    def forward(
        self, h: Float[Tensor, "B N width"], e: Float[Tensor, "B width"]
    ) -> Float[Tensor, "B N width"]:
        """What the next block sees."""
        a_1, b_1, g_1, a_2, b_2, g_2 = self.tell(e)[:, None].chunk(6, 2)
        asked = self.ask(torch.addcmul(b_1, self.norm(h), 1 + a_1))
        # (B, N, 3·width) → query, key and value, (B, heads, N, width/heads) each.
        parts = asked.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        found = F.scaled_dot_product_attention(*parts.unbind(0))
        h = torch.addcmul(h, g_1, self.reply(found.transpose(1, 2).flatten(2)))
        return torch.addcmul(h, g_2, self.mlp(torch.addcmul(b_2, self.norm(h), 1 + a_2)))


def _places(rows: int, columns: int, width: int) -> Float[Tensor, "N width"]:
    """Sines and cosines of each place's row, then of its column (Vaswani et al. 2017, sec. 3.5)."""
    quarter = width // 4
    rates = torch.exp(-math.log(10_000.0) * torch.arange(quarter).double() / quarter)
    phases = [torch.arange(n).double()[:, None] * rates for n in (rows, columns)]
    row, column = (torch.cat([p.sin(), p.cos()], 1) for p in phases)
    both = [row[:, None].expand(-1, columns, -1), column[None].expand(rows, -1, -1)]
    return torch.cat(both, 2).flatten(0, 1).float()


def _silent(layer: nn.Linear) -> nn.Linear:
    """The layer, with an answer of 0 at first."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


@NETS.entry()
def dit(
    size: str | None = None,
    patch: int = 2,
    width: int = 128,
    depth: int = 6,
    heads: int = 4,
) -> Recipe:
    """A diffusion transformer, for pictures.

    Args:
        size: S, B, L or XL, the published sizes, in place of width, depth and heads.
        patch: side of a patch; each side of a picture must be a multiple of it.
        width: numbers of a patch on its way, a multiple of 4 and of heads.
        depth: blocks.
        heads: of attention.

    Raises:
        TypeError, ValueError: not whole numbers in range, or a width that does not fit.
    """
    if size is not None:
        if size not in SIZES:
            raise ValueError(f"size = {size!r}: choose {', '.join(SIZES)}")
        width, depth, heads = SIZES[size]
    width = check_whole("width", width, 4, 2**14)
    heads = check_whole("heads", heads, 1, 2**10)
    if width % 4 or width % heads:
        raise ValueError(f"width = {width}: it must be a multiple of 4, and of heads = {heads}")
    made = partial(
        DiT,
        patch=check_whole("patch", patch, 1, 2**10),
        width=width,
        depth=check_whole("depth", depth, 1, 1000),
        heads=heads,
    )
    return Recipe(lambda task: made(check_pictures(task, "dit")))
