"""Networks. They know no diffusion: numbers and a label in, numbers out."""

from alphabar.nets.mlp import MLP

__all__ = ["MLP"]
