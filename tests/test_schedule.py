"""Schedules: laws that every one obeys, the published formulas, diffusers, and what is refused."""

import math
import re

import mpmath
import numpy as np
import pytest
import torch
from torch import Tensor

from alphabar import schedule as S
from alphabar.schedule import SCHEDULES, Level, Schedule, align

NAMED = [entry.name for entry in SCHEDULES if entry.takes_no_argument]
BY_BETA = ["constant", "linear", "quad", "scaled_linear", "sigmoid", "warmup10", "warmup50"]


def made(spec: str, **defaults: object) -> Schedule:
    schedule: Schedule = SCHEDULES.parse(spec, **defaults)
    return schedule


# --- laws


@pytest.mark.parametrize("T", [1, 2, 3, 10, 37, 1000])
@pytest.mark.parametrize("name", NAMED)
def test_every_schedule_leads_from_data_to_noise(name: str, T: int) -> None:
    s = made(name, T=T)
    assert s.T == T
    assert len(s) == T + 1
    assert s.alpha.dtype == s.sigma.dtype == torch.float64
    assert (s.alpha[0], s.sigma[0], s.alpha_bar[0], s.beta[0]) == (1, 0, 1, 0)
    assert s.log_snr[0] == math.inf
    assert (s.log_snr.diff() < 0).all()
    assert (s.alpha_bar.diff() < 0).all()
    assert ((s.beta[1:] > 0) & (s.beta[1:] <= 1)).all()
    assert s.scale in ("vp", "ve", "flow")


@pytest.mark.parametrize("name", NAMED)
def test_every_schedule_is_named_by_its_spec(name: str) -> None:
    s = made(name, T=12)
    again = made(s.spec)
    assert again.spec == s.spec
    assert torch.equal(again.alpha, s.alpha)
    assert torch.equal(again.sigma, s.sigma)


@pytest.mark.parametrize("name", NAMED)
def test_derived_quantities_agree_with_each_other(name: str) -> None:
    s = made(name, T=50)
    product = torch.cumprod(1 - s.beta, 0)
    torch.testing.assert_close(product, s.alpha_bar, rtol=1e-11, atol=1e-15)
    torch.testing.assert_close(
        s.alpha_bar, s.alpha**2 / (s.alpha**2 + s.sigma**2), rtol=1e-12, atol=0
    )
    torch.testing.assert_close(s.snr[1:], (s.alpha / s.sigma)[1:] ** 2, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("T", [1, 40, 1000])
def test_scales_convert_into_one_another(name: str, T: int) -> None:
    s = made(name, T=T)
    ways = {"vp": s.to_vp, "flow": s.to_flow}
    if s.alpha[-1] > 0:
        ways["ve"] = s.to_ve
    for scale, convert in ways.items():
        other = convert()
        if T > 1:  # from data to pure noise in one step is a table of several scales
            assert other.scale == scale
        torch.testing.assert_close(other.log_snr, s.log_snr, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(other.beta, s.beta, rtol=1e-9, atol=1e-12)
        back = {"vp": other.to_vp, "ve": other.to_ve, "flow": other.to_flow}[s.scale]()
        torch.testing.assert_close(back.alpha, s.alpha, rtol=1e-12, atol=0)
        torch.testing.assert_close(back.sigma, s.sigma, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ["jsd", "flow"])
def test_no_exploding_scale_where_nothing_is_left(name: str) -> None:
    with pytest.raises(ValueError, match="sigma = inf"):
        made(name).to_ve()


# --- the published formulas, typed anew in another library


def _published(name: str, T: int, start: float, end: float) -> np.ndarray:
    if name == "linear":
        return np.linspace(start, end, T)
    if name in ("quad", "scaled_linear"):
        return np.linspace(start**0.5, end**0.5, T) ** 2
    if name == "sigmoid":
        return 1 / (1 + np.exp(-np.linspace(-6, 6, T))) * (end - start) + start
    betas = end * np.ones(T)
    warm = int(T * {"warmup10": 0.1, "warmup50": 0.5}[name])
    betas[:warm] = np.linspace(start, end, warm)
    return betas


@pytest.mark.parametrize("T", [1, 2, 15, 100, 1000])
@pytest.mark.parametrize("name", [n for n in BY_BETA if n != "constant"])
def test_beta_follows_the_published_formula(name: str, T: int) -> None:
    s = made(f"{name}:start=1e-5,end=1e-2", T=T)
    expected = torch.from_numpy(_published(name, T, 1e-5, 1e-2))
    torch.testing.assert_close(s.beta[1:], expected, rtol=1e-9, atol=0)


def test_constant_and_jsd() -> None:
    torch.testing.assert_close(
        S.constant(50, 0.035).beta[1:], torch.full((50,), 0.035).double(), rtol=1e-6, atol=0
    )
    jsd = S.jsd(8)
    torch.testing.assert_close(jsd.alpha_bar, torch.linspace(1, 0, 9).double(), rtol=0, atol=1e-15)
    assert jsd.beta[-1] == 1
    assert (jsd.alpha[-1], jsd.sigma[-1]) == (0, 1)


def test_the_post_never_reaches_noise() -> None:
    last = [
        made(f"{n}:T=100,start=1e-5,end=1e-2").alpha_bar[-1] for n in BY_BETA[1:5] if n[:2] != "sc"
    ]
    assert [round(v.item(), 3) for v in last] == [0.605, 0.707, 0.605]


@pytest.mark.parametrize("T", [1, 4, 50, 1000])
def test_cosine(T: int) -> None:
    t = np.arange(T + 1) / T
    f = np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2
    betas = np.minimum(1 - f[1:] / f[:-1], 0.999)
    torch.testing.assert_close(S.cosine(T).beta[1:], torch.from_numpy(betas), rtol=1e-8, atol=1e-13)
    if T == 1000:  # before the clip it is the paper's ᾱ itself
        torch.testing.assert_close(
            S.cosine(T).alpha_bar[:-1], torch.from_numpy(f / f[0])[:-1], rtol=1e-9, atol=0
        )


def test_karras_is_edm_reversed() -> None:
    i = np.arange(18)
    sigma = (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    ours = S.karras(18).sigma[1:]
    torch.testing.assert_close(ours, torch.from_numpy(sigma[::-1].copy()), rtol=1e-12, atol=0)


def test_log_linear_is_geometric() -> None:
    sigma = S.log_linear(5, 0.01, 100.0).sigma[1:]
    torch.testing.assert_close(sigma, torch.tensor([0.01, 0.1, 1, 10, 100]).double())


def test_flow_with_shift() -> None:
    u = np.arange(11) / 10
    sigma = 3 * u / (1 + 2 * u)
    s = S.flow(10, shift=3.0)
    torch.testing.assert_close(s.sigma, torch.from_numpy(sigma), rtol=1e-14, atol=0)
    torch.testing.assert_close(s.alpha, 1 - torch.from_numpy(sigma), rtol=0, atol=1e-15)
    torch.testing.assert_close(S.flow(10).sigma, torch.from_numpy(u), rtol=1e-15, atol=0)


def test_log_snr_is_straight() -> None:
    s = S.log_snr(9, 8.0, -8.0)
    torch.testing.assert_close(s.log_snr[1:], torch.linspace(8, -8, 9).double(), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("spec", "alpha", "sigma"),
    [("karras:T=1", 1, 80), ("log_linear:T=1", 1, 50), ("log_snr:T=1", 0.0067, 1)],
)
def test_one_step_goes_all_the_way(spec: str, alpha: float, sigma: float) -> None:
    level = made(spec)[1]
    assert level.alpha.item() == pytest.approx(alpha, abs=1e-4)
    assert level.sigma.item() == pytest.approx(sigma, rel=1e-4)


# --- precision: against arithmetic with 60 digits


@pytest.mark.parametrize(
    "spec", ["linear:T=1000", "linear:T=50,start=1e-12,end=0.5", "cosine:T=200"]
)
def test_tables_keep_their_digits(spec: str) -> None:
    s = made(spec)
    with mpmath.workdps(60):
        if spec.startswith("linear"):
            start, end = (
                (mpmath.mpf("1e-12"), mpmath.mpf("0.5"))
                if "50" in spec
                else (mpmath.mpf("1e-4"), mpmath.mpf("0.02"))
            )
            betas = [start + (end - start) * i / (s.T - 1) for i in range(s.T)]
        else:

            def f(t: int) -> mpmath.mpf:
                return (
                    mpmath.cos(
                        (mpmath.mpf(t) / 200 + mpmath.mpf("0.008"))
                        / mpmath.mpf("1.008")
                        * mpmath.pi
                        / 2
                    )
                    ** 2
                )

            betas = [min(1 - f(t + 1) / f(t), mpmath.mpf("0.999")) for t in range(s.T)]
        alpha_bar = mpmath.mpf(1)
        for t, beta in enumerate(betas, start=1):
            alpha_bar *= 1 - beta
            assert s.alpha[t].item() == pytest.approx(float(mpmath.sqrt(alpha_bar)), rel=1e-12)
            assert s.sigma[t].item() == pytest.approx(float(mpmath.sqrt(1 - alpha_bar)), rel=1e-11)
            assert s.beta[t].item() == pytest.approx(float(beta), rel=1e-8)


def test_beta_is_not_lost_next_to_one() -> None:
    expected = torch.tensor([1e-15, 2e-15, 0.5], dtype=torch.float64)
    torch.testing.assert_close(S.from_betas(expected).beta[1:], expected, rtol=1e-13, atol=0)


# --- tables from numbers


def test_from_numbers_agree() -> None:
    s = S.linear(40)
    for other in (
        S.from_betas(s.beta[1:]),
        S.from_alpha_bar(s.alpha_bar[1:]),
        S.from_log_snr(s.log_snr[1:]),
        S.from_sigmas(s.to_ve().sigma[1:]).to_vp(),
        S.table(s.alpha, s.sigma),
        S.from_betas(s.beta[1:].tolist()),
        S.from_betas(s.beta[1:].numpy()),
    ):
        torch.testing.assert_close(other.alpha, s.alpha, rtol=1e-11, atol=0)
        torch.testing.assert_close(other.sigma, s.sigma, rtol=1e-10, atol=0)
        again = made(other.spec)
        assert torch.equal(again.alpha, other.alpha)


def test_the_ends_may_be_exact() -> None:
    assert S.from_alpha_bar([0.5, 0.0]).alpha[-1] == 0
    assert S.from_log_snr([1.0, -math.inf]).alpha[-1] == 0
    assert S.from_betas([0.5, 1.0]).sigma[-1] == 1
    assert S.from_betas([1.0]).T == 1


def test_a_derived_schedule_is_written_out_as_its_table() -> None:
    s = S.linear(5).zero_terminal_snr()
    assert s.spec.startswith("table:alpha=1.0-")
    assert torch.equal(made(s.spec).sigma, s.sigma)


# --- diffusers, whose tables are float32


@pytest.mark.parametrize(
    ("spec", "theirs"),
    [
        ("linear", {"beta_schedule": "linear"}),
        (
            "scaled_linear",
            {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
        ),
        ("cosine", {"beta_schedule": "squaredcos_cap_v2"}),
        ("sigmoid", {"beta_schedule": "sigmoid"}),
    ],
)
def test_alpha_bar_of_diffusers(spec: str, theirs: dict[str, object]) -> None:
    from diffusers import DDPMScheduler

    expected = DDPMScheduler(1000, **theirs).alphas_cumprod.double()
    assert (made(spec).alpha_bar[1:] - expected).abs().max() < 1e-6


def test_zero_terminal_snr_of_diffusers() -> None:
    from diffusers import DDIMScheduler

    theirs = DDIMScheduler(1000, rescale_betas_zero_snr=True).alphas_cumprod.double()
    ours = S.linear().zero_terminal_snr().alpha_bar[1:]
    assert (ours - theirs).abs().max() < 1e-6


@pytest.mark.parametrize("rule", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("n", [1, 7, 20, 50, 999, 1000])
def test_spacing_of_diffusers(rule: str, n: int) -> None:
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(1000, timestep_spacing=rule, steps_offset=0)
    scheduler.set_timesteps(n)
    theirs = sorted(t + 1 for t in scheduler.timesteps.tolist())  # their 0 is our t = 1
    s = S.linear()
    assert torch.equal(s.spaced(n, rule).alpha[1:], s.alpha[theirs])  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_sigmas_of_diffusers() -> None:
    from diffusers import EulerDiscreteScheduler

    scheduler = EulerDiscreteScheduler(
        sigma_min=0.002, sigma_max=80.0, use_karras_sigmas=True, timestep_type="continuous"
    )
    scheduler.set_timesteps(25)
    theirs = scheduler.sigmas[:-1].flip(0).double()
    torch.testing.assert_close(S.karras(25).sigma[1:], theirs, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_of_diffusers(shift: float) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    theirs = FlowMatchEulerDiscreteScheduler(1000, shift=shift).sigmas.flip(0).double()
    torch.testing.assert_close(S.flow(1000, shift).sigma[1:], theirs, rtol=0, atol=1e-6)


# --- other tables made from one


@pytest.mark.parametrize("name", [*BY_BETA, "cosine", "jsd", "flow", "log_snr"])
@pytest.mark.parametrize("T", [1, 2, 100])
def test_zero_terminal_snr(name: str, T: int) -> None:
    s = made(name, T=T)
    zero = s.zero_terminal_snr()
    assert zero.scale == s.scale
    assert zero.alpha[-1] == 0
    assert zero.alpha_bar[-1] == 0
    if T > 1:
        assert zero.log_snr[1].item() == pytest.approx(s.log_snr[1].item(), rel=1e-12)
        a, b = s.to_vp().alpha[1:], zero.to_vp().alpha[1:]
        line = (a - a[-1]) / (a[0] - a[-1]) * a[0]  # Lin et al., algorithm 1
        torch.testing.assert_close(b, line, rtol=0, atol=1e-15)


def test_zero_terminal_snr_needs_a_bounded_scale() -> None:
    with pytest.raises(ValueError, match="to_vp"):
        S.karras().zero_terminal_snr()


def test_spaced_selects_levels_of_the_table() -> None:
    s = S.linear(10)
    chosen = {
        rule: [(s.alpha == a).nonzero().item() for a in s.spaced(4, rule).alpha]  # type: ignore[arg-type]
        for rule in ("leading", "trailing", "linspace")
    }
    assert chosen == {
        "leading": [0, 1, 3, 5, 7],
        "trailing": [0, 2, 5, 8, 10],
        "linspace": [0, 1, 4, 7, 10],
    }


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("n", [1, 2, 5, 30])
def test_spaced_evenly_in_log_snr(name: str, n: int) -> None:
    s = made(name, T=20)
    few = s.spaced(n, "log_snr")  # more than T too: these levels are new
    assert few.T == n
    if n > 1:
        assert few.scale == s.scale
    assert few.log_snr[-1].item() == pytest.approx(s.log_snr[-1].item(), rel=1e-9)
    gaps = few.log_snr[1:].diff()
    gaps = gaps[:-1] if s.alpha[-1] == 0 else gaps
    if len(gaps) > 1:
        torch.testing.assert_close(gaps, gaps[:1].expand_as(gaps), rtol=1e-8, atol=0)
    if n > 2:
        assert few.log_snr[1].item() == pytest.approx(s.log_snr[1].item(), rel=1e-9)


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("n", [2, 5, 30])
def test_spaced_as_karras(name: str, n: int) -> None:
    """(σ/α)^(1/7) at equal distances, from λ_1 to λ_T."""
    s = made(name, T=20)
    few = s.spaced(n, "karras")
    assert few.T == n
    assert few.scale == s.scale
    gaps = ((few.sigma / few.alpha)[1:] ** (1 / 7)).diff()
    gaps = gaps[:-1] if s.alpha[-1] == 0 else gaps
    if len(gaps) > 1:
        torch.testing.assert_close(gaps, gaps[:1].expand_as(gaps), rtol=1e-8, atol=0)
    assert few.log_snr[-1].item() == pytest.approx(s.log_snr[-1].item(), rel=1e-9)


def test_karras_spacing_is_the_schedule_of_that_name() -> None:
    few = S.karras(1000).spaced(18, "karras")
    torch.testing.assert_close(few.sigma, S.karras(18).sigma, rtol=1e-9, atol=0)


@pytest.mark.parametrize("rule", ["leading", "trailing", "linspace"])
def test_all_levels_selected_is_the_table_itself(rule: str) -> None:
    s = S.linear(30)
    assert torch.equal(s.spaced(30, rule).alpha, s.alpha)  # type: ignore[arg-type]


# --- the paper's table


@pytest.mark.parametrize(
    "spec", ["linear:T=1000", "jsd:T=20", "cosine:T=50", "constant:T=1,beta=0.3"]
)
def test_coefficients_are_the_papers(spec: str) -> None:
    """Against the definitions, from β alone, in another library and with 40 digits."""
    s = made(spec)
    ours = s.coefficients()
    with mpmath.workdps(40):
        betas = [mpmath.mpf(b) for b in s.beta[1:].tolist()]
        before = mpmath.mpf(1)
        variances = []
        for t, beta in enumerate(betas):
            now = before * (1 - beta)
            row = {
                "betas": beta,
                "alphas_cumprod": now,
                "alphas_cumprod_prev": before,
                "sqrt_alphas_cumprod": mpmath.sqrt(now),
                "sqrt_one_minus_alphas_cumprod": mpmath.sqrt(1 - now),
                "log_one_minus_alphas_cumprod": mpmath.log(1 - now),
                "sqrt_recip_alphas_cumprod": mpmath.inf if now == 0 else 1 / mpmath.sqrt(now),
                "sqrt_recipm1_alphas_cumprod": mpmath.inf if now == 0 else mpmath.sqrt(1 / now - 1),
                "posterior_variance": beta * (1 - before) / (1 - now),
                "posterior_mean_coef1": beta * mpmath.sqrt(before) / (1 - now),
                "posterior_mean_coef2": (1 - before) * mpmath.sqrt(1 - beta) / (1 - now),
            }
            variances.append(row["posterior_variance"])
            for name, value in row.items():
                got = ours[name][t].item()
                assert got == pytest.approx(float(value), rel=1e-7, abs=1e-18), (name, t + 1)
            before = now
        clipped = [variances[min(1, s.T - 1)], *variances[1:]]
        for t, value in enumerate(clipped):
            expected = -math.inf if value == 0 else float(mpmath.log(value))
            got = ours["posterior_log_variance_clipped"][t].item()
            assert got == pytest.approx(expected, rel=1e-7)
    assert {len(v) for v in ours.values()} == {s.T}
    assert {v.dtype for v in ours.values()} == {torch.float64}


def test_coefficients_do_not_depend_on_the_scale() -> None:
    s = S.linear(30)
    for name, values in s.to_ve().coefficients().items():
        torch.testing.assert_close(values, s.coefficients()[name], rtol=1e-9, atol=1e-15)


# --- levels


def test_levels_by_t() -> None:
    s = S.linear(10)
    assert isinstance(s[3], Level)
    assert s[3].alpha.shape == ()
    batch = s[torch.tensor([0, 3, 10])]
    assert torch.equal(batch.sigma, s.sigma[[0, 3, 10]])
    assert [level.sigma.item() for level in s] == s.sigma.tolist()
    assert s[np.int64(3)].alpha == s[3].alpha


@pytest.mark.parametrize("t", [-1, 11, torch.tensor([3, 11]), torch.tensor([-1])])
def test_t_outside(t: int | Tensor) -> None:
    with pytest.raises(ValueError, match=r"t = (-1|11) is outside 0\.\.10"):
        S.linear(10)[t]


@pytest.mark.parametrize("t", [1.0, True, "3", None])
def test_t_is_a_whole_number(t: object) -> None:
    with pytest.raises(TypeError):
        S.linear(10)[t]  # type: ignore[index]


def test_align_keeps_dtype_and_shape() -> None:
    s = S.linear(10)
    x = torch.zeros(3, 2, 4, 4, dtype=torch.float16)
    assert align(s[3].alpha, x).dtype == torch.float32  # the product is rounded to half, not this
    assert (align(s[3].alpha, x.float()) * x.float()).dtype == torch.float32
    per_item = align(s[torch.tensor([1, 2, 3])].alpha, x)
    assert (per_item.shape, per_item.dtype) == ((3, 1, 1, 1), torch.float32)
    with pytest.raises(ValueError, match="2 noise levels for x of shape"):
        align(s[torch.tensor([1, 2])].alpha, x)


# --- what is refused


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("linear:T=0", "T = 0: it must be a whole number from 1 to 1000000"),
        ("linear:T=-3", "T = -3"),
        ("linear:T=1000001", "T = 1000001"),
        ("linear:T=2.5", "T = 2.5: it must be a whole number"),
        ("linear:start=0", "start = 0: it must be a variance in 0 < beta ≤ 1"),
        ("linear:end=1.1", "end = 1.1"),
        ("linear:start=nan", "start = nan"),
        ("linear:end=inf", "end = inf"),
        ("constant:beta=-0.1", "beta = -0.1"),
        ("constant:beta=1e-320", "beta[1] = 1e-320: every one must be from 1e-300"),
        ("constant:T=3,beta=1", "beta[1] = 1"),
        ("cosine:s=-1", "s = -1"),
        ("cosine:max_beta=0", "max_beta = 0"),
        ("karras:sigma_min=0", "sigma_min = 0"),
        ("karras:sigma_min=3,sigma_max=2", "sigma_min = 3 ≥ sigma_max = 2"),
        ("karras:rho=0", "rho = 0"),
        ("karras:rho=0.001", "rho = 0.001"),
        ("flow:shift=0", "shift = 0"),
        ("flow:shift=-1", "shift = -1"),
        ("log_snr:start=-1,end=1", "end = 1 ≥ start = -1"),
        ("log_snr:start=1000", "start = 1000"),
        ("from_betas:betas=0.1-0-0.2", "beta[2] = 0.0"),
        ("from_betas:betas=0.1-nan", "beta[2] = nan"),
        ("from_betas:betas=0.1-1.5", "beta[2] = 1.5"),
        ("from_betas:betas=0.1-1-0.2", "beta[2] = 1"),
        (
            "from_alpha_bar:alpha_bar=0.9-0.8-0.8-0.7",
            "alpha_bar[3] = 0.8 after alpha_bar[2] = 0.8",
        ),
        ("from_alpha_bar:alpha_bar=0.9-0.95", "alpha_bar[2] = 0.95 after"),
        ("from_alpha_bar:alpha_bar=1-0.5", "alpha_bar[1] = 1"),
        ("from_alpha_bar:alpha_bar=0.5--0.1", "alpha_bar[2] = -0.1"),
        ("from_sigmas:sigmas=2-1", "it must rise at every step"),
        ("from_sigmas:sigmas=0-1", "sigma[1] = 0.0"),
        ("from_sigmas:sigmas=1-inf", "sigma[2] = inf"),
        ("from_log_snr:log_snr=1-1", "log_snr[2] = 1.0 after log_snr[1] = 1.0"),
        ("from_log_snr:log_snr=inf-1", "log_snr[1] = inf"),
        ("from_log_snr:log_snr=nan", "log_snr[1] = nan"),
        ("table:alpha=0.9-0.5,sigma=0-0.5", "level 0 has alpha = 0.9"),
        ("table:alpha=1-0.5-0.6,sigma=0-0.5-0.5", "does not grow from t = 1 to 2"),
        ("table:alpha=1-0-0,sigma=0-1-2", "nothing is left of the data at t = 1"),
        ("table:alpha=1--1,sigma=0-1", "alpha[1] = -1"),
        ("table:alpha=1-nan,sigma=0-1", "alpha[1] = nan"),
        ("table:alpha=1,sigma=0", "to T ≥ 1"),
        ("linear:T=1000000", "nothing is left of the data at t = "),
    ],
)
def test_refused(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        made(spec)


@pytest.mark.parametrize("T", [1.0, True, "10", None])
def test_T_is_a_whole_number(T: object) -> None:
    with pytest.raises(TypeError):
        S.linear(T)  # type: ignore[arg-type]


def test_few_levels_can_be_spaced_too() -> None:
    assert S.jsd(1).spaced(1, "log_snr").alpha.tolist() == [1, 0]
    two = S.jsd(2).spaced(2, "log_snr")
    torch.testing.assert_close(two.alpha_bar, S.jsd(2).alpha_bar)
    assert S.linear(1).spaced(1, "log_snr").T == 1
    for s, n in ((S.jsd(1), 2), (S.jsd(2), 3), (S.linear(1), 2)):
        with pytest.raises(ValueError, match=f"n = {n} levels cannot be spaced"):
            s.spaced(n, "log_snr")


def test_narrow_whole_numbers_are_times_too() -> None:
    s = S.linear(1000)
    for dtype in (torch.int8, torch.uint8, torch.int16, torch.int32):
        assert s[torch.tensor([5], dtype=dtype)].alpha == s.alpha[5]


def test_a_schedule_does_not_change_with_the_arrays_it_came_from() -> None:
    alpha, sigma = torch.tensor([1.0, 0.8]).double(), torch.tensor([0.0, 0.6]).double()
    s = S.table(alpha, sigma)
    alpha[1] = 77
    assert s.alpha[1] != 77


def test_shift_keeps_its_digits() -> None:
    assert S.flow(1000, 1e-300).sigma[-1] == 1
    assert S.flow(1000, 1e-6).sigma[-1] == 1


def test_spaced_refuses() -> None:
    s = S.linear(10)
    with pytest.raises(ValueError, match="n = 11 levels cannot be selected from T = 10"):
        s.spaced(11, "trailing")
    with pytest.raises(ValueError, match="n = 0"):
        s.spaced(0)
    other = S.table([1, 0.9, 0.3], [0, 0.9, 0.9])
    assert other.scale == "other"
    with pytest.raises(ValueError, match="no named scale"):
        other.spaced(2, "log_snr")


@pytest.mark.parametrize("betas", [[[0.1]], [], 0.1, ["a"], [0.1j]])
def test_betas_are_one_list_of_numbers(betas: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        S._vector("betas", betas)  # type: ignore[arg-type]
