"""Right and wrong diffusion code, as people write it, to judge a checker by."""

from specimens.catalogue import BUGS, NOT_BUGS, RIGHT, SPECIMENS, right_of
from specimens.loading import Specimen, facts, load, reach, source

__all__ = [
    "BUGS",
    "NOT_BUGS",
    "RIGHT",
    "SPECIMENS",
    "Specimen",
    "facts",
    "load",
    "reach",
    "right_of",
    "source",
]
