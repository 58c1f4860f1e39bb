"""Networks. They know no diffusion: numbers and a label in, numbers out.

`mlp(width=64).build(shape=(2,), seed=0)` is a torch module; `NETS.parse("mlp:width=64")` is the
same recipe by its spec.
"""

from alphabar.nets.base import NETS, Recipe, Task
from alphabar.nets.mlp import MLP, mlp

# isort: split
# After the network for points, so that a listing begins with it.
from alphabar.nets.dit import DiT, dit
from alphabar.nets.own import Own, is_own, recipe
from alphabar.nets.unet import UNet, unet

__all__ = [
    "MLP",
    "NETS",
    "DiT",
    "Own",
    "Recipe",
    "Task",
    "UNet",
    "dit",
    "is_own",
    "mlp",
    "recipe",
    "unet",
]
