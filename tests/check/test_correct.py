"""Right code raises no false alarm, however it is written: see `correct`."""

import warnings

import pytest
from correct import ROLES, Case, case

from alphabar import check
from alphabar.check.report import Report

SEEDS = range(32, 1282)
FEW = range(32)


def reported(one: Case) -> Report:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs
        return getattr(check, one.role)(one.subject, **one.facts)


def unseen(one: Case) -> bool:
    """Whether it draws what is not recorded: then nobody can say what its loss is made of."""
    unrecorded = ("own", "default_rng", "random.gauss")
    return one.role == "loss" and any(f"noise={n}" in one.words for n in unrecorded)


def judge(seed: int) -> None:
    one = case(seed)
    report = reported(one)
    verdict = report.verdict
    fine = ("right", "equivalent", "fragile") + ("unchecked",) * unseen(one)
    assert verdict in fine, f"{one.role} {seed}: {one.words}\n{report}"


@pytest.mark.parametrize("seed", FEW)
def test_right_code_is_not_a_bug(seed: int) -> None:
    judge(seed)


@pytest.mark.prove
@pytest.mark.parametrize("seed", SEEDS)
def test_much_right_code_is_not_a_bug(seed: int) -> None:
    judge(seed)


def test_a_seed_is_one_case() -> None:
    for seed in FEW:
        first, again, other = case(seed), case(seed), case(seed + len(ROLES))
        assert first.role == again.role == other.role
        assert first.words == again.words != other.words
