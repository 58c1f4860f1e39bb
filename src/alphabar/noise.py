"""Noise that depends on (seed, item, step) and on nothing else.

An item's noise is the same whatever batch it is in and whichever process draws it, so a sampling
job can be cut up, spread out or resumed. It is drawn in fixed blocks of items, each from a
counter-based generator (Philox, Salmon et al. 2011) whose counter names the block and the step.
"""

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from alphabar.arguments import check_seed

# Numbers in a block, at least one item. It decides which number an item gets: a change would change
# every sample of every seed.
_BLOCK = 2**12


def keyed_noise(
    seed: int, step: int, first: int, n: int, shape: tuple[int, ...]
) -> Float[Tensor, "n ..."]:
    """Standard normal numbers for items first..first+n−1 at `step`, float32 on the CPU.

    Args:
        seed: 0 ≤ seed < 2⁶⁴.
        step: which draw this is; 0 is the starting noise of a sampler.
        first: index of the first item.
        n: number of items.
        shape: the shape of one item.

    >>> whole = keyed_noise(seed=7, step=3, first=0, n=3000, shape=(2,))
    >>> part = keyed_noise(seed=7, step=3, first=1000, n=500, shape=(2,))
    >>> bool((whole[1000:1500] == part).all())
    True
    """
    check_seed(seed)
    block_items = max(1, _BLOCK // max(1, math.prod(shape)))
    start, stop = first // block_items * block_items, first + n
    drawn = [
        # The low words count numbers within a block: no two blocks or steps can overlap. Numbers
        # come one after the other, so the last block is drawn no further than it is needed.
        np.random.Generator(
            np.random.Philox(key=seed, counter=[0, 0, item // block_items, step])
        ).standard_normal((min(block_items, stop - item), *shape), dtype=np.float32)
        for item in range(start, stop, block_items)
    ]
    noise = drawn[0] if len(drawn) == 1 else np.concatenate(drawn)
    return torch.from_numpy(noise[first - start :])
