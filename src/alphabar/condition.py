"""What an item is conditioned on: its class, or numbers that belong to it.

A network that has seen items with and without their condition knows p(x_0 | c) and p(x_0): the two
that classifier-free guidance combines (Ho & Salimans 2022).
"""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

# One class an item, (B,) int64, -1 for none; or k numbers an item, NaN for none.
Condition = Int64[Tensor, " B"] | Float[Tensor, "B k"]


def without(cond: Condition, dropped: Bool[Tensor, " B"]) -> Condition:
    """The conditions, with none in place of those that are dropped."""
    if cond.is_floating_point():
        return cond.masked_fill(dropped[:, None], torch.nan)
    return cond.masked_fill(dropped, -1)
