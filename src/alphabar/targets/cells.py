"""Points sorted into boxes, and the boxes that can matter to a block of queries.

With W_B the mass of the points c_i in a box B, and near(Q, B) ≤ ‖y − c_i‖ ≤ far(Q, B) for every
query y of a block Q, all the boxes in which

    near(Q, B)² > far(Q, B′)² + 2ρ²·(log(W_B/W_B′) + L)      for some box B′

have together less than (the number of boxes)·e^−L of the weight Σ_i w_i·exp(−‖y − c_i‖²/2ρ²), and
are left out.
"""

import bisect
from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

PAIRS = 2**21  # of a block and a box, compared at a time
GATHERED = 2**15  # points of the boxes taken at a time
NOTHING = -1e30  # log of a mass that never counts; -inf would make nan of -inf − (-inf)


class Cells:
    """Weighted points in boxes of equal numbers.

    Args:
        points: (n, d).
        log_mass: (n,).
        size: the most points of a box.
    """

    def __init__(
        self, points: Float64[Tensor, "n d"], log_mass: Float64[Tensor, " n"], size: int
    ) -> None:
        index = halved(points, size)
        spare = index >= len(points)
        index = index % len(points)
        self.points = points[index]
        self.log_mass = log_mass[index].masked_fill_(spare, NOTHING)
        self.low, self.high = self.points.amin(1), self.points.amax(1)
        self.log_total = self.log_mass.logsumexp(1)

    def __len__(self) -> int:
        return len(self.points)

    def near(
        self,
        low: Float64[Tensor, "blocks d"],
        high: Float64[Tensor, "blocks d"],
        rho: float,
        nats: float,
    ) -> Iterator[tuple[Int64[Tensor, " G"], Int64[Tensor, "G K"], Bool[Tensor, "G K"]]]:
        """The boxes that matter to blocks of queries, at any width up to `rho`.

        Args:
            low, high: the blocks' corners.
            rho: ρ, in the points' units.
            nats: L.

        Yields:
            blocks: some of them, which need about as many boxes each.
            boxes: K for each of these, filled up with what it need not have.
            kept: which of them the block needs.
        """
        some = max(1, PAIRS // len(self))
        for first in range(0, len(low), some):
            part = slice(first, first + some)
            needs = self._near(low[part], high[part], rho, nats)
            count, boxes = needs.sum(1), needs.nonzero()[:, 1]
            start = count.cumsum(0) - count
            order = count.argsort()
            sizes = count[order].tolist()
            at = 0
            while at < len(sizes):
                # A quarter more than the first needs is little to compute in vain.
                end = at + max(1, GATHERED // (sizes[at] * self.points.shape[1]))
                end = bisect.bisect_right(sizes, 1.25 * sizes[at] + 4, at + 1, min(end, len(sizes)))
                blocks = order[at:end]
                place = torch.arange(sizes[end - 1], device=low.device)
                kept = place < count[blocks, None]
                yield first + blocks, boxes[start[blocks, None] + place * kept], kept
                at = end

    def share(
        self,
        low: Float64[Tensor, "blocks d"],
        high: Float64[Tensor, "blocks d"],
        rho: float,
        nats: float,
    ) -> float:
        """Which part of all boxes matters to a block on average, by some of the blocks."""
        some = slice(None, None, max(1, len(low) // 128))
        return self._near(low[some], high[some], rho, nats).double().mean().item()

    def take(
        self, boxes: Int64[Tensor, "G K"], kept: Bool[Tensor, "G K"]
    ) -> tuple[Float64[Tensor, "G C d"], Float64[Tensor, "G C"]]:
        """The points of boxes and their log masses."""
        log_mass = self.log_mass[boxes].masked_fill_(~kept[..., None], NOTHING)
        return self.points[boxes].flatten(1, 2), log_mass.flatten(1)

    def _near(
        self,
        low: Float64[Tensor, "blocks d"],
        high: Float64[Tensor, "blocks d"],
        rho: float,
        nats: float,
    ) -> Bool[Tensor, "blocks boxes"]:
        nearest = low.new_zeros(len(low), len(self))
        farthest = low.new_zeros(len(low), len(self))
        for j in range(low.shape[1]):
            right = self.high[:, j] - low[:, j : j + 1]
            left = high[:, j : j + 1] - self.low[:, j]
            reach = torch.maximum(right, left)
            # The boxes are apart by what is left of their sizes in the distance.
            size = (self.high - self.low)[:, j] + (high - low)[:, j : j + 1]
            nearest += (reach - size).clamp_min_(0).square_()
            farthest += reach.square_()
        best = (2 * rho**2 * self.log_total - farthest).argmax(1, keepdim=True)
        more = (self.log_total - self.log_total[best] + nats).clamp_min_(0)
        most = farthest.gather(1, best) + 2 * rho**2 * more
        return nearest <= most * (1 + 1e-9)  # a rounding must not drop a box


def halved(points: Float64[Tensor, "n d"], size: int) -> Int64[Tensor, "cells m"]:
    """Indices in 2^k cells of equal numbers m ≤ `size`, each compact (a k-d partition).

    All cells are halved at once, each across the direction in which it is longest. What n lacks to
    a multiple of the cells is filled with copies, whose index is n too high.
    """
    n = len(points)
    depth = max(0, (-(-n // size) - 1).bit_length())
    m = -(-n // (1 << depth))
    index = torch.arange(n, device=points.device)
    lacking = (m << depth) - n
    copies = n + (index[:lacking] * n).div(max(1, lacking), rounding_mode="floor")
    index = torch.cat([index, copies])[None]
    for _ in range(depth):
        x = points[index % n]
        longest = (x.amax(1) - x.amin(1)).argmax(1)
        along = x.gather(2, longest[:, None, None].expand(-1, x.shape[1], 1))[..., 0]
        index = index.gather(1, along.argsort(1)).reshape(2 * len(index), -1)
    return index
