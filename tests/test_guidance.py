"""Guidance, level by level, against Bayes' rule on a mixture whose every density is known."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from alphabar import schedule as S
from alphabar.guidance import classifier_guided, guided
from alphabar.schedule import Level, Schedule

MEANS, STD = (-1.0, 1.0), 0.7  # two classes, equally likely; the condition is the second
TABLES = ["linear:T=12", "karras:T=12", "flow:T=12,shift=3.0"]
STEPS = (1, 4, 8, 11)


def table(spec: str) -> Schedule:
    made: Schedule = S.SCHEDULES.parse(spec)
    return made


def shaped(*shape: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def bayes(x: Tensor, level: Level, classes: tuple[float, ...]) -> Tensor:
    """E[x_0 | x_t] by summing over 8001 values of x_0, for data in these classes only."""
    alpha, sigma = (v.reshape(-1, *[1] * x.ndim) for v in level)
    x_0 = torch.linspace(-8, 8, 8001, dtype=torch.float64)
    prior = torch.logsumexp(-0.5 * ((x_0[:, None] - torch.tensor(classes)) / STD) ** 2, 1)
    log = prior - 0.5 * ((x[..., None] - alpha * x_0) / sigma) ** 2
    return (torch.softmax(log, -1) * x_0).sum(-1)


def conditional(x: Tensor, level: Level) -> Tensor:
    return bayes(x, level, MEANS[1:])


def unconditional(x: Tensor, level: Level) -> Tensor:
    return bayes(x, level, MEANS)


def log_joint(x: Tensor, level: Level) -> Tensor:
    """log p(x_t, y) of the two classes, (B, 2): N(α·mean, α²·std² + σ²) for each number."""
    alpha, sigma = (v.reshape(-1, *[1] * (x.ndim - 1)) for v in level)
    var = alpha**2 * STD**2 + sigma**2
    logs = [-0.5 * (x - alpha * m) ** 2 / var - 0.5 * torch.log(var) for m in MEANS]
    return torch.stack([log.flatten(1).sum(1) for log in logs], 1)


def log_class(x: Tensor, level: Level) -> Tensor:
    """log p(y | x_t) of the second class, for items of one number."""
    joint = log_joint(x, level)
    return joint[:, 1] - torch.logsumexp(joint, 1)


@dataclass
class Counted:
    """A denoiser that counts its calls."""

    denoiser: Callable[[Tensor, Level], Tensor]
    seen: list[Tensor] = field(default_factory=list)

    def __call__(self, x: Tensor, level: Level) -> Tensor:
        self.seen.append(x)
        return self.denoiser(x, level)


def never(x: Tensor, level: Level) -> Tensor:
    raise AssertionError("this denoiser is not needed here")


def tilted(x: Tensor, level: Level, s: float) -> Tensor:
    """x̂_0 of the score ∇[log p(x_t) + s·log p(y | x_t)], the slope taken by autograd."""
    x = x.detach().requires_grad_()
    density = torch.logsumexp(log_joint(x, level), 1) + s * log_class(x, level)
    (score,) = torch.autograd.grad(density.sum(), x)
    return (x.detach() + level.sigma**2 * score) / level.alpha


# --- the formula, level by level


@pytest.mark.parametrize("spec", TABLES)
@pytest.mark.parametrize("s", [0.0, 0.5, 1.0, 2.0, 7.5])
def test_both_guidances_have_the_tilted_score(spec: str, s: float) -> None:
    for t in STEPS:
        level = table(spec)[t]
        x = torch.hypot(*level) * torch.linspace(-3, 3, 13, dtype=torch.float64)[:, None]
        expected = tilted(x, level, s)
        free = guided(conditional, unconditional, s)(x, level)
        torch.testing.assert_close(free, expected, rtol=1e-8, atol=1e-8)
        by_class = classifier_guided(unconditional, log_class, s)(x, level)
        torch.testing.assert_close(by_class, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("spec", TABLES)
def test_levels_of_ones_own(spec: str) -> None:
    s, t = table(spec), torch.tensor(STEPS)
    x = torch.hypot(s.alpha, s.sigma)[t, None] * shaped(4, 1)
    for denoiser in (
        guided(conditional, unconditional, 3.0),
        guided(conditional, unconditional, 3.0, interval=(-1.0, 1.5)),
        classifier_guided(unconditional, log_class, 3.0),
    ):
        whole = denoiser(x, s[t])
        for i in range(4):
            one = denoiser(x[i : i + 1], s[int(t[i])])
            torch.testing.assert_close(whole[i : i + 1], one, rtol=1e-10, atol=1e-12)


def test_guided_samples_do_not_follow_the_tilted_density() -> None:
    """The guided flow, integrated by Heun in σ on 501 quantiles, against p·p(y|x)² summed."""
    n = 501
    u = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    sigmas = torch.cat([torch.logspace(2, -3, 250, dtype=torch.float64), torch.zeros(1)])
    x = sigmas[0] * torch.special.ndtri(u)[:, None]
    one = torch.ones((), dtype=torch.float64)

    def exact(classes: tuple[float, ...]) -> Callable[[Tensor, Level], Tensor]:
        """Closed form, for speed: each class's mean moves to its posterior mean."""
        means = torch.tensor(classes, dtype=torch.float64)

        def denoise(x: Tensor, level: Level) -> Tensor:
            var = STD**2 + level.sigma**2
            share = torch.softmax(-0.5 * (x - means) ** 2 / var, 1)
            return (share * (means + STD**2 / var * (x - means))).sum(1, keepdim=True)

        return denoise

    check = Level(one, torch.tensor(0.8).double())
    torch.testing.assert_close(exact(MEANS)(x / 40, check), unconditional(x / 40, check))
    denoiser = guided(exact(MEANS[1:]), exact(MEANS), 2.0)

    def slope(x: Tensor, sigma: Tensor) -> Tensor:
        return (x - denoiser(x, Level(one, sigma))) / sigma

    for before, after in pairwise(sigmas):
        first = slope(x, before)
        x_next = x + (after - before) * first
        if after > 0:
            x_next = x + (after - before) * (first + slope(x_next, after)) / 2
        x = x_next
    assert x.mean().item() == pytest.approx(1.44, abs=0.005)
    assert x.std().item() == pytest.approx(0.51, abs=0.005)

    grid = torch.linspace(-8, 8, 20_001, dtype=torch.float64)
    clean = Level(one, torch.zeros_like(one))
    joint = log_joint(grid[:, None], clean)
    weight = torch.softmax(2 * joint[:, 1] - torch.logsumexp(joint, 1), 0)
    mean = (weight * grid).sum()
    assert mean.item() == pytest.approx(1.13, abs=0.005)
    assert (weight * (grid - mean) ** 2).sum().sqrt().item() == pytest.approx(0.62, abs=0.005)


# --- which denoiser is asked


@pytest.mark.parametrize(
    ("scale", "rescale", "asked"),
    [(1.0, 0.0, "c"), (1.0, 0.7, "c"), (0.0, 0.0, "u"), (0.0, 0.5, "cu"), (2.0, 0.0, "cu")],
)
def test_only_what_is_needed_is_called(scale: float, rescale: float, asked: str) -> None:
    c, u = Counted(conditional), Counted(unconditional)
    x = shaped(4, 2)
    guided(c, u, scale, rescale=rescale)(x, table("linear:T=12")[6])
    assert (len(c.seen), len(u.seen)) == ("c" in asked, "u" in asked)
    assert all(seen is x for seen in c.seen + u.seen)


def test_the_interval_holds_its_lower_end_only() -> None:
    """σ in (σ_lo, σ_hi], as the paper has it, is −2·log σ_hi ≤ λ < −2·log σ_lo."""
    s = S.from_log_snr([4.0, 2.0, 0.0, -2.0, -4.0])
    low, high = s.log_snr[4].item(), s.log_snr[2].item()
    x = shaped(3, 1)
    for t, inside in enumerate([False, False, True, True, False], start=1):
        c, u = Counted(conditional), Counted(unconditional)
        found = guided(c, u, 3.0, interval=(low, high))(x, s[t])
        plain = guided(conditional, unconditional, 3.0)(x, s[t])
        expected = plain if inside else conditional(x, s[t])
        assert torch.equal(found, expected)
        assert (len(c.seen), len(u.seen)) == (1, inside)
    open_ended = guided(conditional, unconditional, 0.0, interval=(-math.inf, high))
    assert torch.equal(open_ended(x, s[5]), unconditional(x, s[5]))
    assert torch.equal(open_ended(x, s[1]), conditional(x, s[1]))


def test_outside_the_interval_an_item_is_left_alone() -> None:
    """In a mixed batch too: even where the unconditional denoiser fails."""
    s, t = S.from_log_snr([4.0, 0.0, -4.0]), torch.tensor([1, 2, 3])
    x = shaped(3, 4)

    def fails_outside(x: Tensor, level: Level) -> Tensor:
        return torch.where(level.log_snr.abs()[:, None] < 1, unconditional(x, level), math.nan)

    found = guided(conditional, fails_outside, 3.0, (-1.0, 1.0), rescale=0.5)(x, s[t])
    alone = conditional(x, s[t])
    assert torch.equal(found[[0, 2]], alone[[0, 2]])
    assert found[1].isfinite().all()
    assert not torch.allclose(found[1], alone[1])
    without = guided(conditional, unconditional, 0.0, (-1.0, 1.0))(x, s[t])
    assert torch.equal(without[[0, 2]], alone[[0, 2]])
    assert torch.equal(without[1], unconditional(x, s[t])[1])


# --- rescaling


@pytest.mark.parametrize("phi", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("shape", [(3, 5), (3, 2, 4, 4)])
def test_rescaling_is_the_papers(phi: float, shape: tuple[int, ...]) -> None:
    """Lin et al. 2023, eq. (15) and (16), in numpy, item by item."""
    c, u = shaped(*shape), shaped(*shape, seed=2)
    denoiser = guided(lambda x, level: c, lambda x, level: u, 4.0, rescale=phi)
    found = denoiser(shaped(*shape, seed=3), table("linear:T=12")[6])
    for i in range(3):
        cond, cfg = c[i].numpy(), (u[i] + 4 * (c[i] - u[i])).numpy()
        rescaled = cfg * cond.std(ddof=1) / cfg.std(ddof=1)
        final = phi * rescaled + (1 - phi) * cfg
        torch.testing.assert_close(found[i], torch.from_numpy(final), rtol=1e-12, atol=1e-12)


def test_full_rescaling_restores_the_contrast() -> None:
    c, u = shaped(3, 50), shaped(3, 50, seed=2)
    denoiser = guided(lambda x, level: c, lambda x, level: u, 4.0, rescale=1.0)
    torch.testing.assert_close(denoiser(c, table("linear:T=12")[6]).std(1), c.std(1))


def test_an_item_without_contrast_stays_finite() -> None:
    flat = torch.ones(2, 3).double()
    denoiser = guided(lambda x, level: flat, lambda x, level: 0 * flat, 2.0, rescale=0.5)
    assert torch.equal(denoiser(flat, table("linear:T=12")[6]), 2 * flat)


# --- classifier guidance


def test_the_gradient_is_taken_where_the_denoiser_looked() -> None:
    """guided-diffusion 51 takes it at the posterior mean instead."""
    seen: list[Tensor] = []

    def log_prob(x: Tensor, level: Level) -> Tensor:
        seen.append(x.detach().clone())
        return log_class(x, level)

    denoiser = Counted(unconditional)
    x = shaped(4, 1)
    classifier_guided(denoiser, log_prob, 2.0)(x, table("linear:T=12")[6])
    assert torch.equal(seen[0], x)
    assert denoiser.seen[0] is x
    assert len(seen) == len(denoiser.seen) == 1


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_it_works_in_every_mode_and_leaves_x_alone(mode: Callable[[], torch.no_grad]) -> None:
    level = table("linear:T=12")[6]
    denoiser = classifier_guided(unconditional, log_class, 2.0)
    with mode():
        x = shaped(4, 1) * 1.0  # in inference mode, a tensor that autograd refuses
        found = denoiser(x, level)
        assert not found.requires_grad
        assert not x.requires_grad
        assert torch.is_grad_enabled() == (mode is torch.enable_grad)
    torch.testing.assert_close(found, tilted(shaped(4, 1), level, 2.0))


def test_it_is_differentiable_in_x() -> None:
    for level in (table("linear:T=12")[6], table("linear:T=12")[torch.tensor([3, 6, 9])]):
        x = shaped(3, 1).requires_grad_()
        for denoiser in (
            classifier_guided(unconditional, log_class, 2.0),
            guided(conditional, unconditional, 2.0),
        ):
            assert torch.autograd.gradcheck(
                lambda x, d=denoiser, level=level: d(x, level), x, rtol=1e-4
            )


@pytest.mark.parametrize("batch", [False, True])
def test_clean_data_are_not_guided(batch: bool) -> None:
    """σ²/α is 0 there, and a classifier that is infinitely sure must not spoil it."""
    s = table("linear:T=12")
    level = s[torch.tensor([0, 6])] if batch else s[0]
    x = shaped(2, 1)

    def sure(x: Tensor, level: Level) -> Tensor:
        return (x[:, 0] + 3) / level.sigma

    found = classifier_guided(lambda x, level: x, sure, 2.0)(x, level)
    assert torch.equal(found[0], x[0])
    assert found.isfinite().all()
    if batch:
        expected = x[1] + 2.0 * s.sigma[6] / s.alpha[6]
        torch.testing.assert_close(found[1], expected)


def test_pure_noise_has_no_classifier_gradient() -> None:
    s = S.jsd(10)
    denoiser = classifier_guided(lambda x, level: x, log_class, 2.0)
    with pytest.raises(ValueError, match="at alpha = 0, sigma = 1: pure noise says nothing"):
        denoiser(shaped(3, 1), s[10])
    with pytest.raises(ValueError, match="pure noise says nothing"):
        denoiser(shaped(3, 1), s[torch.tensor([1, 10, 5])])
    # Classifier-free guidance has no such end.
    found = guided(conditional, unconditional, 2.0)(shaped(3, 1), s[10])
    torch.testing.assert_close(found, torch.full_like(found, 2 * MEANS[1] - 0.0))


# --- dtypes


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("batch", [False, True])
def test_narrow_types_agree_with_float64(dtype: torch.dtype, batch: bool) -> None:
    s = table("linear:T=12")
    level = s[torch.tensor([6, 1, 6, 6])] if batch else s[6]
    c, u, x = (shaped(4, 6, seed=i).to(dtype) for i in (1, 2, 3))

    def log_prob(x: Tensor, level: Level) -> Tensor:
        return torch.sin(x).sum(1)

    def made(dtype: torch.dtype) -> list[Tensor]:
        free = guided(
            lambda x, level: c.to(dtype), lambda x, level: u.to(dtype), 3.0, (-2.0, 3.0), 0.5
        )
        by_class = classifier_guided(lambda x, level: c.to(dtype), log_prob, 3.0)
        return [d(x.to(dtype), level) for d in (free, by_class)]

    for found, exact in zip(made(dtype), made(torch.float64), strict=True):
        assert found.dtype == dtype
        unit = 4 * torch.finfo(dtype).eps
        torch.testing.assert_close(found.double(), exact, rtol=unit, atol=4 * unit)


# --- what is refused


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((-1.0,), "scale = -1: it must be a number ≥ 0"),
        ((math.nan,), "scale = nan"),
        ((math.inf,), "scale = inf"),
        ((2.0, (1.0, 1.0)), r"interval = \(1\.0, 1\.0\)"),
        ((2.0, (math.nan, 1.0)), "low < high"),
        ((2.0, None, 1.5), "rescale = 1.5: it must be a share from 0"),
        ((2.0, None, -0.1), "rescale = -0.1"),
    ],
)
def test_bad_parameters(arguments: tuple[object, ...], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        guided(conditional, unconditional, *arguments)  # type: ignore[arg-type]


def test_bad_classifier_scale() -> None:
    with pytest.raises(ValueError, match="scale = nan: it must be a number, such as 1"):
        classifier_guided(unconditional, log_class, math.nan)


def test_denoisers_of_another_shape() -> None:
    level, x = table("linear:T=12")[6], shaped(3, 2)

    def narrow(x: Tensor, level: Level) -> Tensor:
        return x[:, :1]

    for denoiser in (
        guided(narrow, unconditional, 2.0),
        guided(conditional, narrow, 2.0),
        guided(narrow, unconditional, 1.0),
        classifier_guided(narrow, log_class, 1.0),
    ):
        with pytest.raises(ValueError, match=r"at alpha = .* shape \(3, 1\) for x of shape"):
            denoiser(x, level)


def test_rescaling_needs_two_numbers_an_item() -> None:
    with pytest.raises(ValueError, match=r"items of 1 number.*take rescale = 0"):
        guided(conditional, unconditional, 2.0, rescale=0.5)(shaped(3, 1), table("linear:T=12")[6])


def test_bad_log_probs() -> None:
    level, x = table("linear:T=12")[6], shaped(3, 2)

    def refused(log_prob: Callable[[Tensor, Level], Tensor], match: str) -> None:
        with pytest.raises(ValueError, match=match):
            classifier_guided(lambda x, level: x, log_prob, 2.0)(x, level)

    refused(lambda x, level: x.sum(), r"returned shape \(\) for 3 items.*shape \(3,\)")
    refused(lambda x, level: x, r"returned shape \(3, 2\) for 3 items")
    refused(lambda x, level: x.detach().sum(1), "does not depend on x_t")
    refused(lambda x, level: torch.ones(3).requires_grad_() * 2, "does not depend on x_t")
