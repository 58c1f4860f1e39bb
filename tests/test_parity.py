"""Samplers beside those of diffusers: the same denoiser, the same noise, the same levels.

Its tables are float32; here they are overwritten in float64, so that what is compared is the
method. It still rounds x to float32 in some steps, hence 1e-5.
"""

import importlib
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from alphabar import schedule as S
from alphabar.samplers import SAMPLERS, Sampler
from alphabar.samplers.base import Asked, combine
from alphabar.schedule import Level

diffusers = pytest.importorskip("diffusers")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # its own

N = 20
BETAS = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def denoise(x: Tensor, level: Level) -> Tensor:
    """E[x_0 | x_t] for numbers of ±1 + N(0, ¼), each by itself."""
    alpha, sigma = (float(c) for c in level)
    total = alpha**2 / 4 + sigma**2
    return alpha / 4 / total * x + sigma**2 / total * torch.tanh(alpha * x / total)


def draws(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(7)
    return [torch.randn(5, 3, generator=generator, dtype=torch.float64) for _ in range(count)]


NOISE = draws(2 * N + 30)


def ours(spec: str, path: Level, x: Tensor) -> list[Tensor]:
    """The states after each step, the first by draw 1."""
    made: Sampler = SAMPLERS.parse(spec)
    times = range(len(path.alpha) - 1, -1, -1)
    run = made.run(Asked(denoise, times), x, path, lambda k: NOISE[k - 1])
    return [state for _, state, _ in run]


def same(found: list[Tensor], wanted: list[Tensor]) -> None:
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        assert (a - b).abs().max() < 1e-5 * max(1.0, b.abs().max().item())


@pytest.fixture
def replay(monkeypatch: pytest.MonkeyPatch) -> None:
    """diffusers draws our noise, in the same order."""
    for name in ("ddpm", "ddim", "dpmsolver_multistep", "euler_discrete", "edm_euler"):
        module = importlib.import_module(f"diffusers.schedulers.scheduling_{name}")
        rest = iter(NOISE)
        monkeypatch.setattr(
            module,
            "randn_tensor",
            lambda shape, *_, rest=rest, dtype=None, **__: next(rest).to(dtype or torch.float64),
        )


def vp_path(alpha_bar: Tensor) -> Level:
    return Level(alpha_bar.sqrt(), (1 - alpha_bar).sqrt())


def in_float64(scheduler: Any, betas: Tensor) -> Any:
    scheduler.betas = betas
    scheduler.alphas = 1 - betas
    scheduler.alphas_cumprod = (1 - betas).cumprod(0)
    scheduler.final_alpha_cumprod = torch.ones((), dtype=torch.float64)
    return scheduler


# --- by index into a table of ᾱ


@pytest.mark.parametrize(
    ("variance_type", "spec"),
    [("fixed_small", "ddpm"), ("fixed_large", "ddpm:variance=beta")],
)
@pytest.mark.usefixtures("replay")
def test_ddpm(variance_type: str, spec: str) -> None:
    """The whole chain: with fewer steps diffusers' fixed_large adds noise in the last one too."""
    betas = torch.linspace(1e-3, 0.3, 30, dtype=torch.float64)
    scheduler = diffusers.DDPMScheduler(
        30, variance_type=variance_type, prediction_type="sample", clip_sample=False
    )
    in_float64(scheduler, betas).set_timesteps(30)
    alpha_bar = torch.cat([scheduler.alphas_cumprod.flip(0), torch.ones(1).double()])
    path, x, theirs = vp_path(alpha_bar), NOISE[-1], []
    for i, t in enumerate(scheduler.timesteps):
        x = scheduler.step(denoise(x, at(path, i)), t, x).prev_sample
        theirs.append(x)
    same(ours(spec, path, NOISE[-1]), theirs)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.usefixtures("replay")
def test_ddim(eta: float) -> None:
    """With `trailing`, the one spacing whose previous index t − 1000/N is the previous step."""
    scheduler = diffusers.DDIMScheduler(
        1000, prediction_type="sample", clip_sample=False, timestep_spacing="trailing"
    )
    in_float64(scheduler, BETAS).set_timesteps(N)
    s = S.linear(1000).spaced(N, "trailing")
    path, x, theirs = Level(s.alpha.flip(0), s.sigma.flip(0)), NOISE[-1], []
    torch.testing.assert_close(
        path.alpha[:-1] ** 2, scheduler.alphas_cumprod[scheduler.timesteps], rtol=1e-9, atol=0
    )
    for i, t in enumerate(scheduler.timesteps):
        x = scheduler.step(denoise(x, at(path, i)), t, x, eta=eta).prev_sample
        theirs.append(x)
    same(ours(f"ddim:eta={eta}", path, NOISE[-1]), theirs)


def at(path: Level, i: int) -> Level:
    return Level(path.alpha[i], path.sigma[i])


# --- by σ/α

SIGMAS = S.karras(N, 0.01, 30.0).sigma.flip(0)  # 30 … 0.01, 0


def ve_path(sigmas: Tensor) -> Level:
    return Level(torch.ones_like(sigmas), sigmas)


def lifted(x: Tensor, sigma: Tensor, churn: dict[str, float], z: Tensor) -> tuple[Tensor, Tensor]:
    """EDM's algorithm 2, lines 4 to 6."""
    inside = churn["s_tmin"] <= sigma <= churn["s_tmax"]
    gamma = min(churn["s_churn"] / N, math.sqrt(2) - 1) if inside else 0.0
    hat = sigma * (1 + gamma)
    return x + churn["s_noise"] * (hat**2 - sigma**2).sqrt() * z, hat


@pytest.mark.parametrize("name", ["EulerDiscreteScheduler", "EDMEulerScheduler"])
@pytest.mark.parametrize("churn", [0.0, 5.0, 40.0])
@pytest.mark.usefixtures("replay")
def test_euler(name: str, churn: float) -> None:
    """diffusers lifts x after the network was asked; EDM, and we, before.

    So the answer that it is handed here is the one for the lifted x.
    """
    how = {"s_churn": churn, "s_tmin": 0.05, "s_tmax": 20.0, "s_noise": 1.003}
    edm = name.startswith("EDM")
    scheduler = getattr(diffusers, name)(**({} if edm else {"prediction_type": "sample"}))
    scheduler.set_timesteps(N)
    scheduler.sigmas, scheduler.is_scale_input_called = SIGMAS, True
    x, theirs, used = 30 * NOISE[-1], [], 0
    for i, t in enumerate(scheduler.timesteps):
        raised, hat = lifted(x, SIGMAS[i], how, NOISE[used])
        used += int(hat > SIGMAS[i])
        x_0_hat = denoise(raised, Level(torch.ones(()).double(), hat))
        extra = {"pred_original_sample": x_0_hat} if edm else {}
        x = scheduler.step(x_0_hat, t, x, **how, **extra).prev_sample
        theirs.append(x)
    spec = f"euler:churn={churn},low=0.05,high=20,inflate=1.003"
    same(ours(spec, ve_path(SIGMAS), 30 * NOISE[-1]), theirs)
    assert used == (0 if churn == 0 else sum(0.05 <= s <= 20 for s in SIGMAS))


def test_heun() -> None:
    """Its σ come twice, once for each stage; churn it has none."""
    scheduler = diffusers.HeunDiscreteScheduler(prediction_type="sample")
    scheduler.set_timesteps(N)
    scheduler.set_begin_index(0)
    scheduler.sigmas = torch.cat([SIGMAS[:1], SIGMAS[1:-1].repeat_interleave(2), SIGMAS[-1:]])
    x, theirs = 30 * NOISE[-1], []
    for i, t in enumerate(scheduler.timesteps):
        answer = denoise(x, Level(torch.ones(()).double(), scheduler.sigmas[i]))
        x = scheduler.step(answer, t, x).prev_sample
        if i % 2 or i == len(scheduler.timesteps) - 1:
            theirs.append(x)
    same(ours("heun", ve_path(SIGMAS), 30 * NOISE[-1]), theirs)


def vp_of(sigmas: Tensor) -> Level:
    alpha = 1 / (1 + sigmas**2).sqrt()
    return Level(alpha, sigmas * alpha)


@pytest.mark.parametrize(
    ("algorithm", "order", "spec"),
    [
        ("dpmsolver++", 1, "ddim"),
        ("dpmsolver++", 2, "dpmpp_2m"),
        ("sde-dpmsolver++", 1, "ddim:eta=1"),
        ("sde-dpmsolver++", 2, "dpmpp_2m_sde"),
    ],
)
@pytest.mark.usefixtures("replay")
def test_dpm_solver(algorithm: str, order: int, spec: str) -> None:
    """With 15 steps or more it lowers the order in the step to σ = 0 alone, as we do."""
    scheduler = diffusers.DPMSolverMultistepScheduler(
        algorithm_type=algorithm, solver_order=order, prediction_type="sample"
    )
    scheduler.set_timesteps(N)
    scheduler.sigmas = SIGMAS
    path, x, theirs = vp_of(SIGMAS), NOISE[-1], []
    for i, t in enumerate(scheduler.timesteps):
        x = scheduler.step(denoise(x, at(path, i)), t, x).prev_sample
        theirs.append(x)
    same(ours(spec, path, NOISE[-1]), theirs)


@pytest.mark.parametrize("variant", ["bh1", "bh2"])
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("end", ["positive", "zero"])
def test_unipc(order: int, variant: str, end: str) -> None:
    """To a positive level at full order, and to σ = 0, where only `lower_order_final` is finite.

    With order 3 that lowers the last step but one as well, so there the two differ at the end; and
    with bh1 its last step is NaN, as B(h) = inf meets 0.
    """
    scheduler = diffusers.UniPCMultistepScheduler(
        solver_order=order,
        solver_type=variant,
        prediction_type="sample",
        lower_order_final=end == "zero",
    )
    sigmas = SIGMAS if end == "zero" else SIGMAS[:-1]
    scheduler.set_timesteps(len(sigmas) - 1)
    scheduler.sigmas = sigmas
    path, x, theirs = vp_of(sigmas), NOISE[-1], []
    for i, t in enumerate(scheduler.timesteps):
        x = scheduler.step(denoise(x, at(path, i)), t, x).prev_sample
        theirs.append(x)
    alike = len(theirs)
    if end == "zero":
        alike -= 2 if order == 3 else variant == "bh1"
    spec = f"unipc:order={order},variant={variant}"
    same(ours(spec, path, NOISE[-1])[:alike], theirs[:alike])


def test_flow() -> None:
    """Euler's method in the flow's time, from pure noise, is DDIM on a flow table."""
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(N)
    s = S.flow(N, shift=3.0)
    path, x, theirs = Level(s.alpha.flip(0), s.sigma.flip(0)), NOISE[-1], []
    scheduler.sigmas = path.sigma
    for i, t in enumerate(scheduler.timesteps):
        velocity = (x - denoise(x, at(path, i))) / path.sigma[i]
        x = scheduler.step(velocity, t, x).prev_sample
        theirs.append(x)
    same(ours("ddim", path, NOISE[-1]), theirs)


# --- third order: where we part


def third_order(
    path: Level, i: int, x: Tensor, answers: list[Tensor], weight: float, eta: int = 0
) -> Tensor:
    """Multistep DPM-Solver++ of order 3, step i → i+1, D2's coefficient times `weight`.

    Written from the interpolation: p(τ) = D0 + (τ/h)·D1 + (τ/h)²·D2 goes through the last three
    answers, in Newton's divided differences.
    """
    lam = path.alpha.log() - path.sigma.log()
    h, r0, r1 = lam[i + 1] - lam[i], lam[i] - lam[i - 1], lam[i - 1] - lam[i - 2]
    r0, r1 = r0 / h, r1 / h
    m0, m1, m2 = answers[:3]
    first, before = (m0 - m1) / r0, (m1 - m2) / r1
    D1 = first + r0 / (r0 + r1) * (first - before)
    D2 = (first - before) / (r0 + r1)
    H = (1 + eta) * h
    phi1 = 1 - torch.exp(-H)
    phi2 = 1 - phi1 / H
    half_phi3 = 0.5 - 1 / H + phi1 / H**2
    decay = path.sigma[i + 1] / path.sigma[i] * torch.exp(-eta * h)
    return decay * x + path.alpha[i + 1] * (phi1 * m0 + phi2 * D1 + weight * half_phi3 * D2)


@pytest.mark.parametrize(("algorithm", "eta"), [("dpmsolver++", 0), ("sde-dpmsolver++", 1)])
def test_third_order_dpm_solver_halves_its_parabola(algorithm: str, eta: int) -> None:
    """diffusers' third-order step, as published, is not the integral of its own parabola.

    The step is (σ_s/σ_t)·x + α_s·∫_0^h e^(−(h−τ))·p(τ) dτ with p(τ) = D0 + (τ/h)·D1 + (τ/h)²·D2
    through the last three answers, and by parts

        ∫_0^h e^(−(h−τ)) (τ/h)² dτ = 1 − (2/h)·(1 − (1 − e^(−h))/h)
                                   = −2·((e^(−h) − 1 + h)/h² − ½)

    The published coefficient of D2 has no factor 2. (In Lu et al.'s Taylor expansion it stands
    before x̂_0″, and x̂_0″·h² is 2·D2.) Its SDE form has −½ in place of +½ besides, so that the
    coefficient tends to −1, not 0, for small steps. With the factor 2, and the right sign, it is
    ours.
    """
    scheduler = diffusers.DPMSolverMultistepScheduler(
        algorithm_type=algorithm, solver_order=3, prediction_type="sample"
    )
    scheduler.set_timesteps(N)
    scheduler.sigmas = SIGMAS
    path, (x, *answers) = vp_of(SIGMAS), NOISE[:4]
    name = "dpmpp_3m_sde" if eta else "dpmpp_3m"
    moves = SAMPLERS.parse(name).moves(path)
    for i in range(3, N - 1):
        scheduler._step_index = i
        theirs = scheduler.multistep_dpm_solver_third_order_update(
            answers[::-1], sample=x, noise=torch.zeros_like(x)
        )
        mine = combine(moves[i].to, x, answers, torch.zeros_like(x))
        same([mine], [third_order(path, i, x, answers, 2.0, eta)])
        published = third_order(path, i, x, answers, 1.0, eta)
        if eta:
            nothing = third_order(path, i, x, answers, 0.0, eta)
            h = (path.log_snr[i + 1] - path.log_snr[i]).item()  # (1 + η)·h
            half = 0.5 - 1 / h - math.expm1(-h) / h**2
            published = published + (published - nothing) * (-1 / half)
        same([theirs], [published])


def below(path: Level, i: int, x: Tensor) -> Tensor:
    """The cumulative distribution of the data above, noised: the flow on the line keeps it."""
    spread = (path.alpha[i] ** 2 / 4 + path.sigma[i] ** 2).sqrt()
    z = [torch.special.ndtr((x - m * path.alpha[i]) / spread) for m in (-1, 1)]
    return (z[0] + z[1]) / 2


def flow(path: Level, i: int, j: int, x: Tensor) -> Tensor:
    """x at the i-th level, led by the exact flow to the j-th, by bisection of the quantile."""
    p, low, high = below(path, i, x), torch.full_like(x, -30), torch.full_like(x, 30)
    for _ in range(100):
        middle = (low + high) / 2
        under = below(path, j, middle) < p
        low, high = torch.where(under, middle, low), torch.where(under, high, middle)
    return (low + high) / 2


@pytest.mark.parametrize(("weight", "order"), [(1.0, 2), (2.0, 3)])
def test_the_order_of_third_order_dpm_solver(weight: float, order: int) -> None:
    """With exact history: as published it converges with order 2, with its factor 2 with 3."""
    errors = []
    for n in (80, 160, 320):
        lam = torch.linspace(-1 - 4 / n, 4, n + 3, dtype=torch.float64)  # two levels early
        lam = lam + 0.3 * torch.sin(lam)  # no two steps alike
        path = Level(lam.sigmoid().sqrt(), (-lam).sigmoid().sqrt())
        start = torch.tensor([[-1.6], [-0.3], [0.2], [1.1]], dtype=torch.float64)
        x = flow(path, 0, 2, start)
        answers = [denoise(flow(path, 0, i, start), at(path, i)) for i in (1, 0)]
        for i in range(2, n + 2):
            answers = [denoise(x, at(path, i)), *answers[:2]]
            x = third_order(path, i, x, answers, weight)
        errors.append((x - flow(path, 0, n + 2, start)).abs().max().item())
    slopes = [math.log2(errors[k] / errors[k + 1]) for k in (0, 1)]
    assert slopes[1] == pytest.approx(order, abs=0.15), (slopes, errors)
