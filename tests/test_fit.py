"""Steps fitted to the data: they come closer to the exact flow than any spacing by rule."""

import math
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from alphabar import fit
from alphabar import schedule as S
from alphabar.denoise import Moments, NetDenoiser
from alphabar.fit import fit_mixes, fit_steps
from alphabar.samplers import SAMPLERS, LinearSampler, Normal, Sampler, sample
from alphabar.schedule import Level, Schedule
from alphabar.targets import Mixture, Points

RANGE = S.log_snr(50, 12.0, -10.0)


def ring(scale: float = 1.0) -> Mixture:
    """Five round Gaussians on a ring, off centre: no symmetry helps a fit."""
    angle = 2 * math.pi * torch.arange(5, dtype=torch.float64) / 5
    means = torch.stack([angle.cos() + 0.3, angle.sin()], 1)
    return Mixture(torch.ones(5), scale * means, var=torch.full((5,), (0.1 * scale) ** 2))


def law(target: Mixture | Points) -> Normal:
    return Normal(target.mean, target.cov)


def drawn(sampler: Sampler, path: Schedule) -> Tensor:
    """Samples of the ring, always from the same noise, which no fit has seen."""
    *_, last = sample(ring(), sampler, path, 1000, (2,), 77, start=law(ring()))
    return last.x


@cache
def fine() -> Tensor:
    """What few steps stand in for."""
    return drawn(SAMPLERS.parse("dpmpp_3m"), S.log_snr(150, 12.0, -10.0))


def error(sampler: Sampler, few: Schedule) -> float:
    """Root mean square distance to the ends of fine trajectories of the same, fresh noise."""
    return (drawn(sampler, few) - fine()).square().sum(1).mean().sqrt().item()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "ITEMS", 256)
    monkeypatch.setattr(fit, "ROUNDS", 60)


@pytest.mark.parametrize("spec", ["dpmpp_2m", "dpmpp_3m", "unipc", "heun", "ddim"])
def test_fitted_steps_beat_even_ones(spec: str) -> None:
    target, sampler = ring(), SAMPLERS.parse(spec)
    start = law(target)
    even = error(sampler, RANGE.spaced(8, "log_snr"))
    curved = error(sampler, fit_steps(target, sampler, 8, RANGE, start, "curvature"))
    fitted = error(sampler, fit_steps(target, sampler, 8, RANGE, start))
    # Measured: curvature 0.1 to 0.6 of even, gradient at most 0.95 of curvature.
    assert curved < 0.8 * even
    assert fitted < curved


def test_coefficients_fitted_too_are_better_still() -> None:
    target = ring()
    start, two_m = law(target), SAMPLERS.parse("dpmpp_2m")
    levels = error(two_m, fit_steps(target, two_m, 5, RANGE, start))
    few, sampler = fit_mixes(target, 5, RANGE, start)
    assert error(sampler, few) < 0.8 * levels


def test_mixes_are_a_spec_for_their_own_levels_only() -> None:
    target = ring()
    few, sampler = fit_mixes(target, 4, RANGE, law(target))
    assert isinstance(sampler, LinearSampler)
    again = SAMPLERS.parse(sampler.spec)
    path = Level(few.alpha.flip(0), few.sigma.flip(0))
    assert again.moves(path) == sampler.moves(path)
    for i, move in enumerate(sampler.moves(path)):  # a clean item stays on its path
        assert move.to is not None
        total = move.to.a * path.alpha[i] + move.to.b + sum(move.to.c)
        assert total.item() == pytest.approx(path.alpha[i + 1].item(), abs=1e-12)
    assert S.SCHEDULES.parse(few.spec).alpha.tolist() == few.alpha.tolist()
    with pytest.raises(ValueError, match="these mixes are for 4 steps, the schedule has 5"):
        list(sample(target, sampler, RANGE.spaced(5, "log_snr"), 2, (2,), 0))
    with pytest.raises(ValueError, match="off its path"):
        list(sample(target, sampler, RANGE.spaced(4, "log_snr"), 2, (2,), 0))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("mixes:a=nan,b=1,c1=0,c2=0", "mixes hold NaN or inf"),
        ("mixes:a=0,b=1,c1=inf,c2=0", "mixes hold NaN or inf"),
        ("mixes:a=0,b=0,c1=1,c2=0", "step 1 of these mixes counts an answer from before the first"),
        ("mixes:a=0-0,b=1-0,c1=0-0,c2=0-1", "step 2 of these mixes counts an answer from before"),
    ],
)
def test_mixes_are_numbers_for_answers_that_there_are(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SAMPLERS.parse(spec)


def test_one_point_needs_no_fit() -> None:
    point = Points(torch.tensor([[0.3, -2.0]]))
    assert fit_steps(point, SAMPLERS.parse("dpmpp_2m"), 3, RANGE, law(point)).T == 3
    few, sampler = fit_mixes(point, 3, RANGE, law(point))
    *_, last = sample(point, sampler, few, 5, (2,), 0, start=law(point))
    torch.testing.assert_close(last.x, torch.tensor([[0.3, -2.0]]).expand(5, 2))


def test_a_denoiser_without_gradient_is_refused() -> None:
    target = ring()

    @torch.no_grad()
    def mute(x: Tensor, level: Level) -> Tensor:
        return target(x, level)

    with pytest.raises(ValueError, match="has no gradient"):
        fit_steps(mute, SAMPLERS.parse("dpmpp_2m"), 3, RANGE, law(target))


def test_shares_are_equal_by_the_root_of_the_derivative() -> None:
    """Where |x̂_0″| is k⁶ times as large, levels of a 2nd-order method are about k² times as dense.

    A teacher made by hand: x̂_0″ = 1 for λ < 0 and 64 above, so densities of 1 and 4, plus 5 % of 4.
    """
    log_snr = torch.linspace(-8, 8, 1601, dtype=torch.float64)
    change = torch.where(log_snr < 0, 1.0, 64.0).double()
    one = torch.ones_like(log_snr)
    x_0 = torch.tensor([[-1.0], [1.0]])
    levels = fit._equal_shares(fit.Teacher(log_snr, change, one, one, x_0, x_0), 53, 2)
    clean, noisy = (levels > 0).sum().item(), (levels <= 0).sum().item()
    assert (clean, noisy) == pytest.approx((53 * 4.2 / 5.4, 53 * 1.2 / 5.4), abs=1.5)


def test_the_teacher_measures_the_second_derivative() -> None:
    """x̂_0 = λ²/2 whatever x is: its second derivative is 1 at every level."""

    def parabola(x: Tensor, level: Level) -> Tensor:
        return torch.zeros_like(x) + level.log_snr**2 / 2

    start = Normal(torch.zeros(1), torch.eye(1))
    seen = fit._teach(parabola, RANGE, start, 2, 0, lambda: None)
    torch.testing.assert_close(seen.change, torch.ones_like(seen.change), rtol=0.05, atol=0)
    answers = seen.log_snr**2 / 2
    left = answers.diff().abs().flip(0).cumsum(0).flip(0)
    torch.testing.assert_close(seen.left[:-1], left, rtol=1e-3, atol=1e-3)


def test_mixes_need_as_many_numbers_of_each() -> None:
    with pytest.raises(ValueError, match="have 2, 1, 1, 1 numbers"):
        SAMPLERS.parse("mixes:a=1-2,b=1,c1=0,c2=0")


@pytest.mark.parametrize("n", [1, 2, 3, 30])
def test_any_number_of_steps(n: int) -> None:
    target = ring()
    few = fit_steps(target, SAMPLERS.parse("dpmpp_2m"), n, RANGE, law(target), "curvature")
    assert few.T == n
    assert few.scale == "vp"
    inside = (few.log_snr[1:] <= 12.0 + 1e-9) & (few.log_snr[1:] >= -10.0 - 1e-9)
    assert inside.all()


def test_levels_lie_where_the_answer_changes() -> None:
    """Two points at ±1: which of them it will be is decided between λ = −4 and 4, or nowhere."""
    target = Points(torch.tensor([[-1.0], [1.0]]))
    few = fit_steps(target, SAMPLERS.parse("dpmpp_2m"), 16, RANGE, law(target), "curvature")
    log_snr = few.log_snr[1:]
    assert ((log_snr > -4) & (log_snr < 4)).double().mean() > 0.7  # 0.36 if they were even


def test_the_unit_does_not_matter() -> None:
    """Data of another scale have the same fit, as far along the log-SNR as the scale is."""
    far = 1e8
    shifted = S.log_snr(50, 12.0 - 2 * math.log(far), -10.0 - 2 * math.log(far))
    sampler = SAMPLERS.parse("dpmpp_2m")
    one = fit_steps(ring(), sampler, 6, RANGE, law(ring()))
    two = fit_steps(ring(far), sampler, 6, shifted, law(ring(far)))
    moved = two.log_snr[1:] + 2 * math.log(far)
    torch.testing.assert_close(moved, one.log_snr[1:], rtol=0, atol=0.05)


def test_the_same_seed_gives_the_same_levels() -> None:
    target, sampler = ring(), SAMPLERS.parse("unipc")
    fits = [fit_steps(target, sampler, 4, RANGE, law(target), "curvature", s) for s in (3, 3, 4)]
    assert torch.equal(fits[0].alpha, fits[1].alpha)
    assert not torch.equal(fits[0].alpha, fits[2].alpha)


def test_gaussian_data_need_no_level_and_still_get_some() -> None:
    target = Mixture(torch.ones(1), torch.zeros(1, 3), var=torch.tensor([0.25]))
    few = fit_steps(target, SAMPLERS.parse("dpmpp_2m"), 5, RANGE, law(target), "curvature")
    assert few.T == 5


def test_a_schedule_that_ends_in_pure_noise() -> None:
    target, sampler = ring(), SAMPLERS.parse("dpmpp_2m")
    few = fit_steps(target, sampler, 6, S.flow(100), law(target))
    assert error(sampler, few) < 0.2


def test_a_finite_set_and_many_numbers() -> None:
    g = torch.Generator().manual_seed(0)
    x_0 = torch.randn(50, 3, 8, 8, generator=g)
    target = Points(x_0)
    sampler = SAMPLERS.parse("dpmpp_2m")
    few = fit_steps(target, sampler, 12, RANGE, law(target), "curvature")
    *_, last = sample(target, sampler, few, 20, (3, 8, 8), 0, start=law(target))
    nearest = torch.cdist(last.x.flatten(1).double(), x_0.flatten(1).double()).min(1).values
    assert (nearest < 0.1).float().mean() > 0.8  # points of 192 numbers are about 19 apart


def test_a_network_is_left_as_it_was() -> None:
    """Its levels are fitted through it, and nothing is added to its gradients."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(3, 2)

        def forward(self, x: Tensor, label: Tensor) -> Tensor:
            return self.body(torch.cat([x, label[:, None]], 1))

    x_0 = ring().sample(200, torch.Generator().manual_seed(0)).float()
    torch.manual_seed(0)
    denoiser = NetDenoiser(Net(), Moments.of(x_0))
    few = fit_steps(denoiser, SAMPLERS.parse("dpmpp_2m"), 4, RANGE, Normal.of(x_0))
    assert few.T == 4
    assert all(p.grad is None for p in denoiser.parameters())


def test_progress_is_told() -> None:
    told = 0

    def advance() -> None:
        nonlocal told
        told += 1

    target = ring()
    fit_steps(target, SAMPLERS.parse("dpmpp_2m"), 3, RANGE, law(target), advance=advance)
    assert told == fit.FINE + fit.ROUNDS


@pytest.mark.parametrize("spec", ["ddpm", "ddim:eta=0.5", "adaptive", "langevin", "heun:churn=3"])
def test_noise_cannot_be_fitted(spec: str) -> None:
    with pytest.raises(ValueError, match="that has an order"):
        fit_steps(ring(), SAMPLERS.parse(spec), 4, RANGE, law(ring()))


def test_bad_arguments() -> None:
    sampler = SAMPLERS.parse("dpmpp_2m")
    with pytest.raises(ValueError, match="cannot be fitted between those of a schedule of T = 2"):
        fit_steps(ring(), sampler, 3, S.flow(2), law(ring()))
    with pytest.raises(ValueError, match="n = 0"):
        fit_steps(ring(), sampler, 0, RANGE, law(ring()))
    with pytest.raises(ValueError, match="n = 0"):
        fit_mixes(ring(), 0, RANGE, law(ring()))
