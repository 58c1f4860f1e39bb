"""Specs: what they parse to, that they round-trip, and what they refuse."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphabar.spec import Family, Named, format_spec, split

FRUIT = Family("fruit")


@dataclass(frozen=True)
class Fruit(Named):
    values: tuple[object, ...]


@FRUIT.entry(positional="label")
def apple(label: str, n: int = 3, x: float = 0.5, ripe: bool = False) -> Fruit:
    """An apple."""
    return Fruit((label, n, x, ripe))


@FRUIT.entry()
def grape(sizes: Sequence[float] = (1.0, 2.0), note: str | None = None) -> Fruit:
    """Grapes."""
    return Fruit((tuple(sizes), note))


def test_values_are_read_by_their_annotation() -> None:
    assert FRUIT.parse("apple:red,n=1e3,x=2,ripe=true").values == ("red", 1000, 2.0, True)
    assert FRUIT.parse("grape:sizes=1-2-2,note=a-b").values == ((1.0, 2.0, 2.0), "a-b")
    assert FRUIT.parse("grape:sizes=1e-05--2e-3-+4").values == ((1e-5, -2e-3, 4.0), None)
    assert FRUIT.parse("grape:sizes=7").values == ((7.0,), None)


def test_positional_may_name_its_key() -> None:
    assert FRUIT.parse("apple:label=red") == FRUIT.parse("apple:red")


def test_spec_lists_defaults_and_leaves_out_none() -> None:
    assert FRUIT.parse("apple:red").spec == "apple:red,n=3,x=0.5,ripe=false"
    assert FRUIT.parse("grape").spec == "grape:sizes=1.0-2.0"


def test_a_call_knows_its_spec_too() -> None:
    assert apple("한글", x=1e-5).spec == "apple:한글,n=3,x=1e-05,ripe=false"


def test_defaults_fill_what_the_spec_leaves_out() -> None:
    assert FRUIT.parse("apple:red", n=9).values[1] == 9
    assert FRUIT.parse("apple:red,n=4", n=9).values[1] == 4
    assert FRUIT.parse("grape", n=9).values  # grape has no n


@given(
    st.text(st.characters(exclude_categories=["Cs", "Cc"])),
    st.integers(-(10**15), 10**15),
    st.floats(allow_nan=False),
    st.booleans(),
)
def test_round_trip(label: str, n: int, x: float, ripe: bool) -> None:
    made = apple(label, n, x, ripe)
    again = FRUIT.parse(made.spec)
    assert again.values == made.values
    assert again.spec == made.spec


@given(st.lists(st.floats(allow_nan=False), min_size=1))
def test_lists_round_trip(sizes: list[float]) -> None:
    assert FRUIT.parse(grape(sizes).spec).values == (tuple(sizes), None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("aple:red", "did you mean apple"),
        ("pear", "Valid: apple, grape"),
        ("apple:red,m=3", "no parameter 'm'; Valid: label, n, x, ripe"),
        ("apple:red,nn=3", "did you mean n"),
        ("apple:red,n", "'n' has no value or key"),
        ("apple:red,n=", "n has no value"),
        ("apple:red,n=3,n=4", "n is given twice"),
        ("apple:red,label=blue", "label is given twice"),
        ("apple:red,n=1.5", "n = 1.5: it must be a whole number"),
        ("apple:red,n=many", "n = many: it must be a whole number"),
        ("apple:red,n=١٠", "n = ١٠: it must be a whole number"),
        ("apple:red,x=1-2", "x = 1-2: it must be a number"),
        ("apple:red,x=", "x has no value"),
        ("apple:red,ripe=yes", "ripe = yes: it must be true or false"),
        ("apple", "apple needs label"),
        ("apple:", "an argument is empty"),
        ("apple:,n=3", "an argument is empty"),
        ('apple:"red', "a quote is opened and not closed"),
        ('apple:"re"d', "it must be a word"),
        ("grape:3", "'3' has no value or key"),
        ("grape:sizes=1-x", "sizes = 1-x: it must be numbers joined by -"),
        ("apple,n=3", "is not a spec"),
        ("", "is not a spec"),
        ("9:n=3", "is not a spec"),
    ],
)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        FRUIT.parse(text)
    assert "\n" not in str(caught.value)


def test_an_object_without_a_call_has_no_spec() -> None:
    with pytest.raises(ValueError, match="not made from a spec"):
        _ = Fruit(()).spec


def test_what_a_spec_cannot_hold() -> None:
    with pytest.raises(TypeError, match="a spec cannot hold"):
        format_spec("apple", {"label": object()})


def test_entries_describe_themselves() -> None:
    first, second = FRUIT
    assert (first.summary, first.usage) == ("An apple.", "apple:LABEL,n=3,x=0.5,ripe=false")
    assert (first.takes_no_argument, second.takes_no_argument) == (False, True)
    assert "apple" in FRUIT
    assert "pear" not in FRUIT


def test_split_keeps_commas_in_quotes() -> None:
    assert split(r'apple:"a,\"b\"",n=3') == ("apple", [(None, r'"a,\"b\""'), ("n", "3")])
