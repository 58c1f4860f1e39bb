"""check.weighting: weights typed here in plain arithmetic, at each SNR by itself."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from alphabar.check.weighting import PREDICTIONS, check_weighting

BETAS = np.linspace(1e-4, 0.02, 1000)
SNR = [math.prod(1 - b for b in BETAS[: t + 1]) for t in range(1000)]
SNR = [a / (1 - a) for a in SNR]
ZERO = np.append(BETAS[:-1], 1.0)  # nothing is left at T


def min_snr(snr: float, predicts: str, gamma: float = 5.0) -> float:
    return min(snr, gamma) / {"x_0": 1.0, "eps": snr, "v": snr + 1}[predicts]


def table(weight: object, *more: object) -> Tensor:
    return torch.tensor([weight(s, *more) for s in SNR], dtype=torch.float64)  # type: ignore[operator]


def ids(found: object) -> list[str]:
    return [d.id for d in found.diagnoses]  # type: ignore[attr-defined]


@settings(max_examples=40, deadline=None)
@given(
    gamma=st.floats(0.5, 30),
    predicts=st.sampled_from(PREDICTIONS),
    size=st.sampled_from([1.0, 0.5, 3.0]),
    double=st.booleans(),
    stated=st.booleans(),
)
def test_min_snr_for_each_prediction(
    gamma: float, predicts: str, size: float, double: bool, stated: bool
) -> None:
    weights = size * table(min_snr, predicts, gamma)
    weights = weights if double else weights.float()
    found = check_weighting(
        lambda t: weights[t], BETAS, predicts, "min_snr", gamma if stated else None
    )
    # A factor of x_0's weight cannot be told from another γ, unless γ is stated.
    assert found.verdict == "right" if size == 1 else found.verdict in ("right", "equivalent"), (
        found
    )
    for other in PREDICTIONS:
        if other != predicts:
            wrong = check_weighting(weights, BETAS, other, "min_snr", gamma)
            assert wrong.verdict == "bug"


def test_the_clamp_the_wrong_way_and_other_slips() -> None:
    for predicts in PREDICTIONS:
        divisor = table(lambda s, p=predicts: {"x_0": 1.0, "eps": s, "v": s + 1}[p])
        upside = table(lambda s: max(s, 5.0)) / divisor
        found = check_weighting(upside, BETAS, predicts, "min_snr", 5.0)
        assert (found.verdict, ids(found)[0]) == ("bug", "A17")
    slips = {
        "weight-of-x_0": table(min_snr, "x_0"),
        "inverse-SNR": table(lambda s: min_snr(1 / s, "eps")),
        "root-of-SNR": table(lambda s: min_snr(math.sqrt(s), "eps")),
        "abar-for-SNR": table(lambda s: min_snr(s / (1 + s), "eps", 0.3)),
        "not-clamped": table(lambda s: 1.0),
        "always-gamma": table(lambda s: 5 / s),
        "another-gamma": table(min_snr, "eps", 7.0),
    }
    for kind, weights in slips.items():
        gamma = 0.3 if kind == "abar-for-SNR" else 5.0
        found = check_weighting(weights, BETAS, "eps", "min_snr", gamma)
        assert (found.verdict, ids(found)) == ("bug", [f"weighting/{kind}"]), found
    bent = table(min_snr, "eps")
    bent[700] *= 1.1
    found = check_weighting(bent, BETAS, "eps", "min_snr")
    assert (found.verdict, found.diagnoses) == ("bug", ())
    assert "t = 701" in found.measured


def test_weights_without_a_signal() -> None:
    abar = (1 - torch.from_numpy(ZERO)).cumprod(0)
    snr = abar / (1 - abar)
    right = (5 / snr).clamp(max=1)
    for weights in (right, right.float(), torch.where(snr > 0, right, 0.0)):
        assert check_weighting(weights, ZERO, "eps", "min_snr").verdict == "right"
    for weights in (snr.clamp(max=5) / snr, 1 / snr.sqrt(), 1 / snr.clamp(min=1e-20).sqrt()):
        for claims in (None, "min_snr"):
            found = check_weighting(weights, ZERO, "eps", claims)
            assert (found.verdict, ids(found)) == ("bug", ["A19"])
    clamped = check_weighting(1 / snr.clamp(min=1e-4).sqrt(), ZERO)
    assert (clamped.verdict, "debiased" in clamped.convention) == ("right", True)


def test_functions_are_called_as_they_can_be() -> None:
    weights = table(min_snr, "eps")
    padded = torch.cat([torch.zeros(1), weights])

    def of_snr(snr: Tensor, gamma: float) -> Tensor:
        return torch.minimum(snr, torch.full_like(snr, gamma)) / snr

    for function, words in (
        (lambda t: weights[t], "t from 0"),
        (lambda t: weights[t].view(-1, 1, 1, 1), "t from 0"),
        (lambda t: padded[t] if t.min() > 0 else 1 / 0, "t from 1"),
        (lambda t: float(weights[int(t)]), "t from 0"),
        (of_snr, "SNR, γ"),
        (weights.tolist(), "a table"),
        (padded.numpy(), "t = 0 first"),
    ):
        found = check_weighting(function, BETAS, "eps", "min_snr", 5.0)
        assert found.verdict == "right", found
        assert words in found.convention


def test_other_weightings() -> None:
    for claims, weight in (
        ("uniform", lambda s: 1.0),
        ("snr", lambda s: s),
        ("snr+1", lambda s: s + 1),
        ("truncated", lambda s: max(s, 1.0)),
        ("p2", lambda s: 1 / (1 + s)),
        ("debiased", lambda s: s**-0.5),
        ("edm", lambda s: s + 4),
        ("sigmoid", lambda s: 1 / (1 + s)),
    ):
        assert check_weighting(table(weight), BETAS, "eps", claims).verdict == "right"
        twice = check_weighting(2 * table(weight), BETAS, "eps", claims)
        assert (twice.verdict, "times 2" in twice.convention) == ("equivalent", True)
        if claims != "uniform":
            assert check_weighting(table(weight).sqrt(), BETAS, "eps", claims).verdict == "bug"
    assert "min_snr, γ = 5, of v" in check_weighting(table(min_snr, "v"), BETAS).convention
    assert check_weighting(-table(lambda s: s), BETAS).verdict == "bug"


def test_what_cannot_be_called() -> None:
    def fails(t: Tensor) -> Tensor:
        raise RuntimeError("needs a GPU")

    assert "needs a GPU" in check_weighting(fails, BETAS).why
    assert "given={'c'" in check_weighting(lambda a, b, c: a, BETAS).why
    for function in (lambda t: torch.ones(3), torch.ones(7), "weights"):
        assert check_weighting(function, BETAS).verdict == "unchecked"


def test_what_is_misdeclared() -> None:
    with pytest.raises(ValueError, match="claims = 'min_sn': it must be one of min_snr"):
        check_weighting(torch.ones(1000), BETAS, claims="min_sn")
    with pytest.raises(ValueError, match="predicts = 'noise'"):
        check_weighting(torch.ones(1000), BETAS, predicts="noise")
    with pytest.raises(ValueError, match="gamma = -1"):
        check_weighting(torch.ones(1000), BETAS, claims="min_snr", gamma=-1.0)
    for wrong in ("b", [], [1.0, 0.5], [0.0, 0.5]):
        with pytest.raises(ValueError, match="betas"):
            check_weighting(torch.ones(2), wrong)
