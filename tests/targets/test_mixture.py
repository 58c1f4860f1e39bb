"""`Mixture` against torch's distributions, and what it refuses."""

import pytest
import torch
from oracles import level, normal
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from alphabar.targets import Mixture

K, D = 4, 3
ROOT = normal(K, D, D, seed=1)
COV = ROOT @ ROOT.mT + 0.1 * torch.eye(D, dtype=torch.float64)
MEANS = 2 * normal(K, D, seed=2)
WEIGHTS = torch.tensor([1.0, 2.0, 3.0, 4.0])


@pytest.mark.parametrize(("alpha", "sigma"), [(1.0, 0.0), (0.6, 0.8), (1.0, 20.0)])
def test_log_prob_is_torchs(alpha: float, sigma: float) -> None:
    noise = sigma**2 * torch.eye(D, dtype=torch.float64)
    theirs = MixtureSameFamily(
        Categorical(WEIGHTS.double()), MultivariateNormal(alpha * MEANS, alpha**2 * COV + noise)
    )
    x = 3 * normal(50, D, seed=4)
    found = Mixture(WEIGHTS, MEANS, cov=COV).log_prob(x, level(alpha, sigma))
    torch.testing.assert_close(found, theirs.log_prob(x), rtol=1e-10, atol=1e-10)


def test_three_ways_to_say_one_mixture() -> None:
    var = torch.tensor([0.5, 1.0, 0.01, 2.0]).double()
    eye = torch.eye(D, dtype=torch.float64)
    same = [
        Mixture(WEIGHTS, MEANS, var=var),
        Mixture(WEIGHTS, MEANS, var=var[:, None].expand(K, D)),
        Mixture(WEIGHTS, MEANS, cov=var[:, None, None] * eye),
    ]
    x, at = normal(20, D), level(0.7, 0.5)
    for other in same[1:]:
        torch.testing.assert_close(other.cov, same[0].cov)
        for name in ("denoise", "score", "log_prob", "posterior_cov"):
            torch.testing.assert_close(
                getattr(other, name)(x, at), getattr(same[0], name)(x, at), rtol=1e-10, atol=1e-10
            )


def test_one_gaussian_is_wieners_filter() -> None:
    target = Mixture([1], MEANS[:1], cov=COV[:1])
    x, alpha, sigma = normal(9, D), 0.6, 0.8
    gain = alpha * COV[0] @ torch.linalg.inv(alpha**2 * COV[0] + sigma**2 * torch.eye(D).double())
    expected = MEANS[0] + (x - alpha * MEANS[0]) @ gain.T
    torch.testing.assert_close(target.denoise(x, level(alpha, sigma)), expected)
    left = COV[0] - alpha * gain @ COV[0]
    torch.testing.assert_close(target.posterior_cov(x, level(alpha, sigma))[3], left)


def test_given_is_bayes_rule() -> None:
    """p(x) = Σ_c P(c)·p(x|c) over a split of the components, and so for the scores."""
    whole = Mixture(WEIGHTS, MEANS, cov=COV)
    parts, shares = [whole.given([0, 2]), whole.given([1, 3])], [0.4, 0.6]
    x, at = normal(30, D), level(0.7, 0.6)
    logs = torch.stack(
        [p.log_prob(x, at) + torch.tensor(s).log() for p, s in zip(parts, shares, strict=True)]
    )
    torch.testing.assert_close(logs.logsumexp(0), whole.log_prob(x, at), rtol=1e-6, atol=1e-6)
    mean = sum(r[:, None] * p.denoise(x, at) for r, p in zip(logs.softmax(0), parts, strict=True))
    torch.testing.assert_close(mean, whole.denoise(x, at), rtol=1e-6, atol=1e-6)
    for bad in ([], [4], [-1]):
        with pytest.raises(ValueError, match="from 0 to 3"):
            whole.given(bad)


def test_components_that_are_points() -> None:
    target = Mixture([1, 1], torch.tensor([[-1.0], [1.0]]), var=torch.tensor([0.0, 0.0]))
    x = torch.tensor([[0.2]], dtype=torch.float64)
    found = target.denoise(x, level(1.0, 0.5)).item()
    assert found == pytest.approx(torch.tensor(0.2 / 0.25).tanh().item())
    with pytest.raises(ValueError, match=r"sigma = 0.*variance 0"):
        target.log_prob(x, level(1.0, 0.0))


def test_a_large_batch_is_done_in_parts() -> None:
    target = Mixture(torch.ones(300), normal(300, 20), var=torch.ones(300))
    x, at = normal(1000, 20), level(0.5, 0.5)
    torch.testing.assert_close(target.denoise(x, at)[990:], target.denoise(x[990:], at))


@pytest.mark.parametrize(
    ("keywords", "kind", "message"),
    [
        ({}, TypeError, "exactly one of var and cov"),
        ({"var": torch.ones(K), "cov": COV}, TypeError, "exactly one of var and cov"),
        ({"var": torch.ones(K + 1)}, ValueError, r"var has shape \(5,\)"),
        ({"var": -torch.ones(K)}, ValueError, "var goes down to -1"),
        ({"cov": COV[:2]}, ValueError, r"cov has shape \(2, 3, 3\)"),
        ({"cov": ROOT}, ValueError, "not symmetric"),
        ({"cov": -COV}, ValueError, "positive semi-definite"),
    ],
)
def test_refuses(keywords: dict[str, torch.Tensor], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        Mixture(WEIGHTS, MEANS, **keywords)
    with pytest.raises(ValueError, match="0 components"):
        Mixture([], MEANS[:0], var=torch.ones(0))
