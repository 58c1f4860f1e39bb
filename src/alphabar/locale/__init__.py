"""Every text a reader meets, by language: `locale/<lang>/<name>.toml`."""

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any

LANGS = ("en", "ko")


@cache
def texts(lang: str, name: str) -> Mapping[str, Any]:
    """The texts of `locale/<lang>/<name>.toml`, read once.

    Raises:
        ValueError: an unknown language.
    """
    if lang not in LANGS:
        raise ValueError(f"lang = {lang!r}: choose {' or '.join(LANGS)}")
    source = files("alphabar") / "locale" / lang / f"{name}.toml"
    return MappingProxyType(tomllib.loads(source.read_text(encoding="utf-8")))
