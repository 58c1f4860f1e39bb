"""What true points cost, against the one denoiser whose law is known: a network that answers 0."""

import math

import pytest
import torch
from torch import Tensor

from alphabar import nats as module
from alphabar.bound import Discretised, bound
from alphabar.compare import halves
from alphabar.data import Standardiser, load
from alphabar.data.files import points
from alphabar.denoise import Moments, NetDenoiser
from alphabar.likelihood import log_likelihood
from alphabar.nats import Mean, Nats, integers_of, nats, true_points
from alphabar.nets import NETS
from alphabar.samplers import Normal
from alphabar.schedule import SCHEDULES
from alphabar.targets import Mixture, Target

SCHEDULE = SCHEDULES.parse("linear:T=60,end=0.3")


def untrained(z: Tensor, outputs: int = 1) -> NetDenoiser:
    """A network that answers 0: by its preconditioning the denoiser of N(m, s²·I)."""
    net = NETS.parse("mlp:width=4").build(tuple(z.shape[1:]), 0, outputs)
    return NetDenoiser(net, Moments.of(z), learns_variance=outputs > 1)


def asked(x: Tensor, standardiser: Standardiser | None, target: Target | None = None) -> Nats:
    z = x if standardiser is None else standardiser.apply(x)
    return nats(untrained(z), x, standardiser, SCHEDULE, Normal.of(z), 0, target)


@pytest.fixture
def x() -> Tensor:
    scale = torch.tensor([50.0, 1e-3, 2.0], dtype=torch.float64)
    noise = torch.randn(40, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return 7 + scale * noise


def test_likelihood_is_in_the_units_of_the_data(x: Tensor) -> None:
    """In standardised units the law is N(m, I); in the data's own a normal law for each column."""
    found = asked(x, Standardiser.fit(x))
    law = torch.distributions.Normal(x.mean(0), x.std(0, correction=0))
    each = -law.log_prob(x).sum(1)
    assert found.nll is not None
    assert found.nll.nats == pytest.approx(each.mean().item(), abs=1e-3)
    assert found.nll.standard_error == pytest.approx(each.std().item() / math.sqrt(40), rel=1e-3)
    assert (found.n, found.d, found.reason, found.trace) == (40, 3, None, "exact")


def test_the_bound_is_in_the_units_of_the_data(x: Tensor) -> None:
    scaler = Standardiser.fit(x)
    own, scaled = asked(scaler.apply(x), None).bound, asked(x, scaler).bound
    more = scaler.std.log().mean().item()
    assert scaled.total == pytest.approx(own.total + more, abs=1e-9)
    assert scaled.reconstruction == pytest.approx(own.reconstruction + more, abs=1e-9)
    assert scaled.prior == pytest.approx(own.prior)
    torch.testing.assert_close(scaled.terms[1:], own.terms[1:])
    found = asked(x, scaler)
    assert found.nll is not None
    assert found.bound.standard_error is not None
    assert found.bound.total > found.nll.nats / 3 - 3 * found.bound.standard_error


def test_integers_are_found() -> None:
    assert integers_of(torch.tensor([[3.0, -2.0], [0.0, 7.0]])) == (-2, 7)
    assert integers_of(torch.tensor([[3.0, 2.5]])) is None
    assert integers_of(torch.full((3, 2), 4.0)) is None
    assert integers_of(torch.tensor([[0.0, 2.0**16]])) is None
    assert integers_of(torch.tensor([[0.0, 2.0**16 - 1]])) == (0, 2**16 - 1)


def test_bits_of_integers_do_not_depend_on_the_unit() -> None:
    """A probability has no unit: columns scaled apart, or the integers as they are."""
    x = torch.randint(0, 9, (60, 2), generator=torch.Generator().manual_seed(0)).double()
    x[:, 1] *= 3
    scaler = Standardiser.fit(x)
    assert integers_of(x) == (0, 24)
    z = scaler.apply(x)
    found = nats(untrained(z), x, scaler, SCHEDULE, Normal.of(z), 0, None, (0, 24))
    assert (found.integers, found.variance) == ((0, 24), "posterior")
    low, high = (scaler.apply(torch.full((1, 2), end).double())[0] for end in (0, 24))
    decoder = Discretised(25, low, high)
    own = bound(untrained(z).double(), z, SCHEDULE, 0, "posterior", Normal.of(z), decoder)
    assert found.bound.bits == pytest.approx(own.bits, rel=1e-12)
    assert found.bound.bits == pytest.approx(found.bound.total / math.log(2))
    assert found.bound.standard_error is not None
    least, error = math.log2(9), found.bound.standard_error / math.log(2)
    assert found.bound.total / math.log(2) > least - 4 * error
    document = found.to_dict()["bound"]
    assert (document["integers"], document["bits"]) == ([0, 24], found.bound.bits)
    with pytest.raises(ValueError, match="bits per dimension are for integers alone"):
        nats(untrained(z), x + 0.4, scaler, SCHEDULE, Normal.of(z), 0, None, (0, 24))


def test_divergence_is_kl() -> None:
    """KL between normal laws, as torch has it."""
    law = Mixture([1], torch.tensor([[0.5, 0.0]]), var=torch.tensor([0.25]))
    x = law.sample(4000, torch.Generator().manual_seed(0))
    y = 1.3 * x + 0.4  # what the denoiser takes for its data
    start = Normal.of(y)
    found = nats(untrained(y), x, None, SCHEDULE, start, 0, law)
    mean, std = y.mean(0), Moments.of(y).std
    p = torch.distributions.Normal(torch.tensor([0.5, 0.0]).double(), 0.5)
    q = torch.distributions.Normal(mean, std.expand(2))
    kl = torch.distributions.kl_divergence(p, q).sum().item()
    assert found.entropy is not None
    assert found.divergence is not None
    entropy = p.entropy().sum().item()
    assert found.entropy.nats == pytest.approx(entropy, abs=4 * found.entropy.standard_error)
    assert found.divergence.nats == pytest.approx(kl, abs=4 * found.divergence.standard_error)
    # On the same points, so that chance cancels.
    assert kl > 0.1
    assert found.nll is not None
    assert found.divergence.standard_error < 0.9 * found.nll.standard_error


def test_json_has_items_and_dimensions(x: Tensor) -> None:
    found = asked(x, None).to_dict()
    assert found["nll"]["nats_per_dim"] == pytest.approx(found["nll"]["nats"] / 3)
    assert found["nll"]["standard_error_per_dim"] == found["nll"]["standard_error"] / 3
    assert found["entropy"] is None
    parts = found["bound"]
    total = parts["prior"] + parts["diffusion"] + parts["reconstruction"]
    assert total == pytest.approx(parts["total"])
    assert parts["terms"][0] == parts["reconstruction"]
    assert (len(parts["terms"]), parts["variance"]) == (60, "beta")


def test_a_law_without_a_density_has_no_entropy() -> None:
    from alphabar.targets import Points

    x = load("moons:n=30").x
    found = asked(x, None, Points(x))
    assert (found.entropy, found.divergence) == (None, None)
    assert found.nll is not None


def test_many_dimensions_and_learned_variance() -> None:
    z = torch.randn(12, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    denoiser = untrained(z, outputs=2)
    found = nats(denoiser, z, None, SCHEDULE, Normal.of(z), 0)
    assert (found.trace, found.variance) == ("hutchinson", "learned")
    assert {p.dtype for p in denoiser.parameters()} == {torch.float32}  # left as it was
    assert found.nll is not None
    # Of N(m, s²·I) the derivative is a multiple of I, of which the estimate is exact.
    exact = -log_likelihood(denoiser.double(), z, SCHEDULE, Normal.of(z)).log_prob
    assert found.nll.nats == pytest.approx(exact.mean().item(), abs=1e-3)


def test_true_points_were_not_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 20)
    moons = load("moons:n=500")
    fresh = true_points(moons, None, 3)
    assert fresh.shape == (20, 2)
    assert torch.cdist(fresh, moons.x).min() > 0
    assert torch.equal(fresh, true_points(moons, None, 3))
    assert not torch.equal(fresh, true_points(moons, None, 4))
    rows = points(torch.arange(60.0).reshape(30, 2))
    parts = halves(rows, 1)
    assert parts is not None
    held = true_points(rows, parts, 3)
    assert {*held[:, 0].tolist()} == {*rows.x[parts.held_out][:, 0].tolist()}
    some = true_points(rows, None, 3)[:, 0]
    assert len(some) == 20
    assert not torch.equal(some, rows.x[:20, 0])


def test_mean() -> None:
    found = Mean.of(torch.tensor([1.0, 3.0]).double())
    assert found == (2.0, 1.0)
