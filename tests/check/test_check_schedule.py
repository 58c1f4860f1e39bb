"""check.schedule: tables against sums typed here in numpy, in the usual conventions and wrong."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from alphabar.check.schedule import check_schedule

T = 1000
BETAS = np.linspace(1e-4, 0.02, T)
ABAR = np.array([math.prod(1 - b for b in BETAS[: t + 1]) for t in range(T)])
PREV = np.concatenate([[1.0], ABAR[:-1]])
BETA_TILDE = BETAS * (1 - PREV) / (1 - ABAR)


def curve(n: int, s: float = 0.008) -> np.ndarray:
    return np.array([math.cos((t / n + s) / (1 + s) * math.pi / 2) ** 2 for t in range(n + 1)])


def cosine(n: int, most: float = 0.999) -> np.ndarray:
    f = curve(n)
    return np.minimum(1 - f[1:] / f[:-1], most)


def stretched(betas: np.ndarray) -> np.ndarray:
    root = np.sqrt(np.cumprod(1 - betas))
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    return 1 - root**2 / np.concatenate([[1.0], root[:-1] ** 2])


def karras(n: int, rho: float = 7.0) -> np.ndarray:
    low, high = 0.002 ** (1 / rho), 80 ** (1 / rho)
    return np.array([(high + i / (n - 1) * (low - high)) ** rho for i in range(n)] + [0.0])


def ids(found: object) -> list[str]:
    return [d.id for d in found.diagnoses]  # type: ignore[attr-defined]


def test_usual_tables_are_right() -> None:
    one_s = np.linspace(1e-2, 0.2, 100)
    for values, claims in (
        (BETAS, "linear"),
        (torch.from_numpy(BETAS).float(), "linear"),
        (BETAS.tolist(), None),
        (np.linspace(0.00085**0.5, 0.012**0.5, T) ** 2, "scaled_linear"),
        (one_s[0] + (one_s[-1] - one_s[0]) / (1 + np.exp(-np.linspace(-6, 6, 100))), "sigmoid"),
        (cosine(T), "cosine"),
        (torch.from_numpy(cosine(50)).float(), "squaredcos_cap_v2"),
        (stretched(BETAS), "zero_terminal_snr"),
        (stretched(np.linspace(0.00085**0.5, 0.012**0.5, T) ** 2), "zero_terminal_snr"),
        (1 / np.arange(30, 0, -1), "jsd"),
    ):
        found = check_schedule(values, claims)
        assert found.verdict == "right", found
    assert "linear" in check_schedule(BETAS).convention
    assert "nats a dimension" in check_schedule(BETAS, "linear").measured


def test_the_kl_is_that_of_two_normal_laws() -> None:
    """By quadrature: KL(N(√ᾱ·x_0, 1 − ᾱ) ‖ N(0, 1)), x_0 ~ N(0, 1)."""
    betas = np.linspace(1e-4, 0.02, 300)
    abar = float(np.prod(1 - betas))
    x = np.linspace(-9, 9, 4001)
    normal = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    dx = x[1] - x[0]
    total = 0.0
    for x_0, weight in zip(x[::40], normal[::40] * 40 * dx, strict=True):
        q = np.exp(-((x - math.sqrt(abar) * x_0) ** 2) / (2 * (1 - abar)))
        q /= q.sum() * dx
        inside = q > 1e-300
        kl = q[inside] * np.log(q[inside] / np.maximum(normal[inside], 1e-300))
        total += weight * float(kl.sum() * dx)
    said = check_schedule(betas).measured
    assert float(said.split("ᾱ_T = ")[1].split(", ")[1].split()[0]) == pytest.approx(
        total, rel=5e-3
    )


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(3, 400),
    low=st.floats(1e-3, 0.5),
    high=st.floats(11, 40),
    double=st.booleans(),
    family=st.sampled_from(["linear", "quad"]),
)
def test_lines_that_reach_noise_are_right_and_shorter_ones_are_not(
    n: int, low: float, high: float, double: bool, family: str
) -> None:
    power = 1 if family == "linear" else 2
    # Σβ is about high/2 or high/3: ᾱ_T from e^(−3.7) on would not do.
    ends = np.minimum(np.array([low, 2 * high]) / n, 0.95) ** (1 / power)
    betas = np.linspace(*ends, n) ** power
    noise = np.prod(1 - betas)
    table = torch.from_numpy(betas).to(torch.float64 if double else torch.float32)
    found = check_schedule(table, family)
    assert (found.verdict == "right") == (noise < 0.0198), found
    short = check_schedule(table[: n // 2] * 0.02, family)
    assert short.verdict == "bug"
    if len(short.diagnoses):
        assert ids(short)[-1] == "A13"


def test_t_changed_and_the_range_kept() -> None:
    for n, claims in ((100, "linear"), (100, None), (200, "linear")):
        found = check_schedule(np.linspace(1e-4, 0.02, n), claims)
        assert (found.verdict, ids(found)) == ("bug", ["A13"])
    almost = check_schedule(np.linspace(0.00085**0.5, 0.012**0.5, T) ** 2)
    assert almost.verdict == "right"
    assert "ᾱ_T = 0.0046" in almost.measured


def test_the_cosine_and_its_clip() -> None:
    unclipped = check_schedule(cosine(T, 1.0), "cosine")
    assert unclipped.verdict == "fragile"
    assert "0.999" in unclipped.why
    # N1: another way to write the same grid.
    u = np.linspace(0, T + 1, T + 1) / (T + 1)
    f = np.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2
    assert check_schedule(np.minimum(1 - f[1:] / f[:-1], 0.999), "cosine").verdict == "right"
    other = check_schedule(
        np.minimum(1 - curve(T, 0.02)[1:] / curve(T, 0.02)[:-1], 0.999), "cosine"
    )
    assert (other.verdict, "s = 0.02" in other.convention) == ("equivalent", True)
    wrong = {
        "not-squared": 1 - np.sqrt(curve(T))[1:] / np.sqrt(curve(T))[:-1],
        "total-for-step": 1 - curve(T)[1:],
    }
    for kind, betas in wrong.items():
        found = check_schedule(np.minimum(betas, 0.999), "cosine")
        assert (found.verdict, ids(found)[0]) == ("bug", f"schedule/{kind}")


def test_another_family_and_other_readings() -> None:
    assert ids(check_schedule(1 - BETAS, "linear")) == ["schedule/alpha-for-beta"]
    assert ids(check_schedule(np.sqrt(BETAS), "linear"))[0] == "schedule/root-of-beta"
    assert ids(check_schedule(BETAS[::-1].copy(), "linear"))[0] == "schedule/reversed"
    assert ids(check_schedule(-BETAS, "linear")) == ["schedule/sign-of-beta"]
    assert "another-family" in ids(check_schedule(cosine(T), "linear"))[0]
    one_off = BETAS.copy()
    one_off[500] *= 1.01
    found = check_schedule(one_off, "linear")
    assert (found.verdict, found.diagnoses) == ("bug", ())
    assert "β_501" in found.measured
    for values in ([0.1, math.nan, 0.9], [0.0, 0.1, 0.2], [0.5, 1.2], [0.5, 1.0, 0.5]):
        assert check_schedule(values).verdict == "bug"


def test_signal_that_must_not_be_left() -> None:
    found = check_schedule(BETAS, "zero_terminal_snr")
    assert (found.verdict, ids(found)) == ("bug", ["A12"])
    root = np.sqrt(np.cumprod(1 - BETAS))
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    unsquared = 1 - root / np.concatenate([[1.0], root[:-1]])
    assert ids(check_schedule(unsquared, "zero_terminal_snr")) == ["schedule/not-squared"]


TABLES = {
    "alphas_cumprod": ABAR,
    "alphas_cumprod_prev": PREV,
    "sqrt_alphas_cumprod": np.sqrt(ABAR),
    "sqrt_one_minus_alphas_cumprod": np.sqrt(1 - ABAR),
    "sqrt_recip_alphas_cumprod": 1 / np.sqrt(ABAR),
    "posterior_variance": BETA_TILDE,
    "posterior_mean_coef1": BETAS * np.sqrt(PREV) / (1 - ABAR),
    "posterior_mean_coef2": (1 - PREV) * np.sqrt(1 - BETAS) / (1 - ABAR),
    "log_snr": np.log(ABAR / (1 - ABAR)),
}


@pytest.mark.parametrize("gives", TABLES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tables_follow_from_beta(gives: str, dtype: torch.dtype) -> None:
    table = torch.from_numpy(TABLES[gives]).to(dtype)
    assert check_schedule(table, gives=gives, betas=BETAS).verdict == "right"
    assert check_schedule(table.flip(0), gives=gives, betas=BETAS).verdict == "bug"
    wrong = table.clone()
    wrong[400] *= 0.97
    found = check_schedule(wrong, gives=gives, betas=BETAS)
    assert (found.verdict, found.diagnoses) == ("bug", ())
    assert "t = 401" in found.measured
    assert check_schedule(table[:-1], gives=gives, betas=BETAS).verdict == "bug"


def test_tables_in_which_one_thing_is_wrong() -> None:
    clean = np.concatenate([[1.0], ABAR])
    assert check_schedule(clean, gives="alphas_cumprod", betas=BETAS).verdict == "equivalent"
    kept = check_schedule(clean[:-1], gives="alphas_cumprod", betas=BETAS)
    assert (kept.verdict, ids(kept)) == ("bug", ["A10"])
    with np.errstate(invalid="ignore"):
        before = np.concatenate([[1.0], clean[:-2]])
        variance = BETAS * (1 - before) / (1 - clean[:-1])
    assert ids(check_schedule(variance, gives="posterior_variance", betas=BETAS)) == ["A10"]
    padded = BETAS * (1 - np.concatenate([ABAR[1:], [1.0]])) / (1 - ABAR)
    assert ids(check_schedule(padded, gives="posterior_variance", betas=BETAS)) == ["A11"]
    for wrong, kind in (
        (np.cumprod(BETAS), "product-of-beta"),
        (1 - np.cumsum(BETAS), "sum-of-beta"),
        (np.sqrt(ABAR), "root-of-abar"),
        (1 - ABAR, "noise-for-abar"),
        (ABAR[::-1].copy(), "reversed"),
    ):
        found = check_schedule(wrong, gives="alphas_cumprod", betas=BETAS)
        assert (found.verdict, ids(found)) == ("bug", [f"schedule/{kind}"])
    beta = check_schedule(BETAS, gives="posterior_variance", betas=BETAS)
    assert beta.verdict == "bug"
    log = np.log(np.maximum(BETA_TILDE, 1e-20))
    assert check_schedule(log, gives="posterior_variance", betas=BETAS).verdict == "equivalent"


def test_without_betas_they_are_taken_from_the_table() -> None:
    assert check_schedule(ABAR, "linear", "alphas_cumprod").verdict == "right"
    assert check_schedule(ABAR, "quad", "alphas_cumprod").verdict == "bug"
    assert check_schedule(np.sqrt(ABAR), None, "sqrt_alphas_cumprod").verdict == "right"
    assert check_schedule(ABAR[::-1].copy(), None, "alphas_cumprod").verdict == "bug"
    missing = check_schedule(BETA_TILDE, gives="posterior_variance")
    assert (missing.verdict, "betas=" in missing.why) == ("unchecked", True)


def test_sigmas() -> None:
    for values in (karras(40), karras(18, 3.0), torch.from_numpy(karras(40)).float()):
        found = check_schedule(values, "karras", "sigmas")
        assert found.verdict == "right", found
    assert "ρ = 3" in check_schedule(karras(18, 3.0), "karras", "sigmas").convention
    rising = check_schedule(karras(40)[:-1][::-1].copy(), "karras", "sigmas")
    assert (rising.verdict, "rising" in rising.convention) == ("equivalent", True)
    repeated = karras(40)
    repeated[-1] = repeated[-2]
    for values in (karras(40)[:-1], repeated, np.append(karras(40), 0.0)):
        found = check_schedule(values, "karras", "sigmas")
        assert (found.verdict, ids(found)) == ("bug", ["A28"])
    bent = karras(40)
    bent[20] *= 1.02
    assert check_schedule(bent, "karras", "sigmas").verdict == "bug"
    levels = np.geomspace(50, 0.01, 10)  # of Langevin dynamics, without a 0
    assert check_schedule(levels, None, "sigmas").verdict == "equivalent"
    assert "another-family" in ids(check_schedule(np.append(levels, 0), "karras", "sigmas"))[0]
    assert "check the betas" in check_schedule(karras(40), "linear", "sigmas").why


def test_timesteps() -> None:
    def trailing(n: int) -> list[int]:
        return [round(T - i * T / n) - 1 for i in range(n)]

    assert check_schedule(trailing, gives="timesteps", betas=BETAS).verdict == "right"
    tables: tuple[tuple[object, int, str], ...] = (
        (trailing(50), 50, "right"),
        (np.linspace(T - 1, 0, 50).round(), 50, "right"),
        ([t + 1 for t in trailing(50)], 50, "equivalent"),
        (torch.tensor(trailing(50)[::-1]), 50, "equivalent"),
        ([*trailing(50), -1], 50, "equivalent"),
        (range(T - 1, -1, -1), T, "right"),
    )
    for values, n, verdict in tables:
        found = check_schedule(values, gives="timesteps", betas=BETAS, steps=n)
        assert found.verdict == verdict, found
    late = check_schedule(range(980, -1, -20), gives="timesteps", betas=BETAS, steps=50)
    assert ids(late) == ["A12"]
    twice = check_schedule([*trailing(50)[:-1], trailing(50)[-2]], gives="timesteps", betas=BETAS)
    assert ids(twice) == ["A35"]
    for wrong in (trailing(50)[:-10], [999, 500, 600, 20], [1500, 700, 10], [999.0, math.nan]):
        assert check_schedule(wrong, gives="timesteps", betas=BETAS, steps=None).verdict == "bug"
    extra = check_schedule([*trailing(50)[:-1], 10, 3], gives="timesteps", betas=BETAS, steps=50)
    assert ids(extra) == ["schedule/count"]


def area(t: Tensor) -> Tensor:
    return 0.1 * t + 0.5 * 19.9 * t**2


def sigma(t: Tensor) -> Tensor:
    return torch.expm1(area(t)).sqrt()


def slope(t: Tensor) -> Tensor:
    return 0.5 * (0.1 + 19.9 * t) * (sigma(t) + 1 / sigma(t))


def test_slopes() -> None:
    def numbers(t: float) -> float:
        return math.sqrt(math.expm1(0.1 * t + 0.5 * 19.9 * t * t))

    assert check_schedule(slope, gives="sigma_prime", sigma=sigma).verdict == "right"
    by_differences = check_schedule(slope, gives="sigma_prime", sigma=numbers)
    assert by_differences.verdict == "right"
    single = check_schedule(
        lambda t: slope(t).float(), gives="sigma_prime", sigma=lambda t: sigma(t).float()
    )
    assert single.verdict == "right"
    twice = check_schedule(lambda t: 2 * slope(t), gives="sigma_prime", sigma=sigma)
    assert ids(twice) == ["A14"]
    assert "2 times" in twice.diagnoses[0].explains
    for wrong, kind in (
        (lambda t: -slope(t), "slope:-sign"),
        (lambda t: slope(t) * sigma(t), "square-for-sigma"),
        (lambda t: slope(t) / sigma(t), "log-for-sigma"),
        (lambda t: 0.5 * (0.1 + 19.9 * t) * sigma(t), "first-term-alone"),
        (lambda t: 0.5 * (0.1 + 19.9 * t) / sigma(t), "second-term-alone"),
    ):
        assert ids(check_schedule(wrong, gives="sigma_prime", sigma=sigma)) == [f"schedule/{kind}"]
    other = check_schedule(lambda t: slope(t) + 1, gives="sigma_prime", sigma=sigma)
    assert (other.verdict, other.diagnoses) == ("bug", ())
    assert "sigma=" in check_schedule(slope, gives="sigma_prime").why


def test_what_is_no_table() -> None:
    def fails() -> None:
        raise RuntimeError("needs a GPU")

    assert "needs a GPU" in check_schedule(fails).why
    for values in ("betas", None, [], torch.zeros(3, 4)):
        assert check_schedule(values).verdict == "unchecked"
    assert check_schedule(lambda: BETAS, "linear").verdict == "right"
    assert check_schedule(torch.from_numpy(BETAS).bfloat16()).verdict == "fragile"


def test_names_that_there_are_not() -> None:
    with pytest.raises(ValueError, match="claims = 'cosin': it must be one of cosine"):
        check_schedule(BETAS, "cosin")
    with pytest.raises(ValueError, match="gives = 'beta': it must be one of betas"):
        check_schedule(BETAS, gives="beta")
    with pytest.raises(ValueError, match="betas is a str"):
        check_schedule(ABAR, gives="alphas_cumprod", betas="mine")


def of_number(n: int) -> torch.Tensor:
    line = torch.linspace(80 ** (1 / 7), 0.002 ** (1 / 7), n, dtype=torch.float64)
    return torch.cat([line**7, line.new_zeros(1)])


def test_a_function_of_the_number_of_levels_makes_as_many() -> None:
    assert check_schedule(of_number, "karras", "sigmas").verdict == "right"
    assert check_schedule(lambda n: of_number(n - 1), "karras", "sigmas").verdict == "right"
    for wrong in (lambda n: of_number(n + 1), lambda n: of_number(1), lambda n: of_number(n // 2)):
        found = check_schedule(wrong, "karras", "sigmas")
        assert found.verdict == "bug"
        assert found.expected == "10, or 11 with the 0"
    found = check_schedule(of_number(7), "karras", "sigmas", steps=10)
    assert (found.verdict, found.measured) == ("bug", "8 levels")
    found = check_schedule(lambda n: 1 / 0, "karras", "sigmas")
    assert found.verdict == "unchecked"
    assert "ZeroDivisionError" in found.why


def test_one_level_is_of_every_curve() -> None:
    found = check_schedule(of_number(1), "karras", "sigmas")
    assert found.verdict == "unchecked"
    assert "show no karras" in found.why
    assert check_schedule(of_number(1), None, "sigmas").verdict == "right"


def test_no_timesteps_are_a_bug() -> None:
    found = check_schedule(torch.empty(0), None, "timesteps", betas=np.linspace(1e-4, 0.02, 1000))
    assert (found.verdict, found.measured) == ("bug", "no timesteps")


def alpha_bar_sigmoid(T: int, start: float, end: float, tau: float) -> Tensor:
    """β of ᾱ on a part of a sigmoid, as people write it."""
    low, high = (1 / (1 + math.exp(-v / tau)) for v in (start, end))
    at = [1 / (1 + math.exp(-(start + (end - start) * t / T) / tau)) for t in range(T + 1)]
    abar = [(high - v) / (high - low) for v in at]
    return torch.tensor([min(1 - b / a, 0.999) for a, b in itertools.pairwise(abar)])


@pytest.mark.parametrize("ends", [(-3, 3, 1), (0, 3, 0.9), (-3, 3, 0.5)])
@pytest.mark.parametrize("T", [10, 1000])
def test_a_sigmoid_of_alpha_bar_is_one_too(T: int, ends: tuple[float, float, float]) -> None:
    betas = alpha_bar_sigmoid(T, *ends)
    found = check_schedule(betas, "sigmoid")
    assert found.verdict == "equivalent", found
    assert "sigmoid of ᾱ, from" in found.convention
    betas[T // 2] *= 1.01
    assert check_schedule(betas, "sigmoid").verdict == "bug"


def test_a_family_of_sigmas_says_what_the_numbers_are() -> None:
    assert check_schedule(of_number(40), "karras").verdict == "right"
    assert check_schedule(of_number, "karras").verdict == "right"
    assert check_schedule(np.linspace(1e-4, 0.02, 1000), "karras").verdict == "bug"  # β of none
