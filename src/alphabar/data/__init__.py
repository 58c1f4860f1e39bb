"""Data sets by name: toy points, drawn words, files of numbers, pictures, folders of them.

`load("swiss_roll:n=500")` and `load("mine.csv")` give a `Data`. Iterating `DATA` gives every kind
with its `name`, `summary` and `usage`.
"""

import os

from alphabar.data.base import DATA, MAX_N, Data
from alphabar.data.toy import (
    checkerboard,
    circles,
    gaussian_means,
    gaussians,
    moons,
    pinwheel,
    rings,
    s_curve,
    spirals,
    swiss_roll,
)

# isort: split
# After the toy sets, so that a listing begins with those.
from alphabar.data.files import PICTURE_FILES, POINT_FILES, extension, file, points
from alphabar.data.folder import folder
from alphabar.data.glyphs import image, text
from alphabar.data.pictures import digits, photo, picture
from alphabar.data.standardise import Standardiser
from alphabar.spec import format_spec

__all__ = [
    "DATA",
    "MAX_N",
    "PICTURE_FILES",
    "POINT_FILES",
    "Data",
    "Standardiser",
    "checkerboard",
    "circles",
    "digits",
    "file",
    "folder",
    "gaussian_means",
    "gaussians",
    "image",
    "load",
    "moons",
    "photo",
    "picture",
    "pinwheel",
    "points",
    "rings",
    "s_curve",
    "spirals",
    "swiss_roll",
    "text",
]


def load(spec: str, **defaults: object) -> Data:
    """The data set that a spec names, or the file or folder that it is the path of.

    A path is one that names an existing file or folder or ends in a known extension: `mine.csv` is
    short for `file:mine.csv`, `cat.png` for `picture:cat.png`, and `photos` for `folder:photos`.
    The name of a data set comes first; `./moons` is the file of that name.

    Args:
        spec: `NAME:key=value,…` or a path.
        defaults: values for parameters that the data set has and the spec leaves out.

    Raises:
        ValueError, OSError: the spec is malformed, or the file is not what it should be; the
            sentence names the value, the rule and the remedy.
    """
    if spec.strip().partition(":")[0] in DATA:
        return DATA.parse(spec, **defaults)
    ending = extension(spec)
    if ending in PICTURE_FILES:
        return DATA.parse(format_spec("picture", {"path": spec}, "path"), **defaults)
    path = os.path.expanduser(spec)
    if os.path.isdir(path):
        return DATA.parse(format_spec("folder", {"path": spec}, "path"), **defaults)
    if ending in POINT_FILES or os.path.isfile(path):
        return DATA.parse(format_spec("file", {"path": spec}, "path"), **defaults)
    return DATA.parse(spec, **defaults)
