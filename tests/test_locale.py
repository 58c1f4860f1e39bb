"""Every language says the same things: equal keys, equal placeholders, equal formulas."""

import re
from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Any

import pytest

from alphabar.data import DATA
from alphabar.locale import LANGS, texts

NAMES = sorted(
    p.name.removesuffix(".toml") for p in (files("alphabar") / "locale" / "en").iterdir()
)


def flat(table: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{above}{key}.")
        else:
            yield above + key, value


@pytest.mark.parametrize("name", NAMES)
def test_languages_have_the_same_texts(name: str) -> None:
    english = dict(flat(texts("en", name)))
    for lang in LANGS:
        own = {k: v for k, v in flat(texts(lang, name)) if not k.startswith("summaries.")}
        assert list(own) == list(english)
        for key, text in own.items():
            fields = r"(?<!\{)\{(\w+)\}"
            assert sorted(re.findall(fields, text)) == sorted(re.findall(fields, english[key])), key


def test_summaries_name_data_sets() -> None:
    assert set(texts("ko", "cli")["summaries"]) == {entry.name for entry in DATA}


def test_an_unknown_language() -> None:
    with pytest.raises(ValueError, match="choose en or ko"):
        texts("fr", "cli")
