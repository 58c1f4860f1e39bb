"""For each subject of the catalogue, some numbers that its behaviour determines.

They say whether two pieces of code do the same, and nothing about which is right. Noise is drawn
from one seed.
"""

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from specimens.catalogue import SUBJECTS
from specimens.loading import Specimen, reach

Probe = Callable[[Any], Any]

SHAPE = (6, 4)
TIMES = torch.tensor([0, 1, 40, 300, 700, 999])
SIGMAS = torch.tensor([0.02, 0.1, 0.5, 1.0, 5.0, 40.0], dtype=torch.float64)
LEVELS = torch.tensor([20.0, 5.0, 1.5, 0.5, 0.1, 0.0], dtype=torch.float64)


def numbers(seed: int, shape: tuple[int, ...] = SHAPE) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


X, Y, Z = numbers(1), numbers(2), numbers(3)


def net(x: Tensor, t: Any) -> Tensor:
    """A network that heeds both its inputs."""
    share = torch.as_tensor(t, dtype=x.dtype).reshape(-1, *[1] * (x.ndim - 1)) / 1000
    return torch.tanh(x * (1 + share)) * 0.7 + 0.2 * torch.cos(3 * share)


def wide_net(x: Tensor, t: Any) -> Tensor:
    return torch.cat([net(x, t), torch.tanh(0.3 * x)], dim=1)


def labelled_net(x: Tensor, t: Any, label: Any) -> Tensor:
    return net(x, t) if label is None else 0.5 * net(x, t) + 0.4


def doubled_net(x: Tensor, t: Any, labels: list[Any]) -> Tensor:
    parts = zip(x.chunk(2), t.chunk(2), labels, strict=True)
    return torch.cat([labelled_net(a, b, label) for a, b, label in parts])


def denoise(x: Tensor, sigma: Any) -> Tensor:
    s = torch.as_tensor(sigma, dtype=x.dtype).reshape(-1, *[1] * (x.ndim - 1))
    return torch.tanh(x / (1 + s**2)) * 0.9 + 0.01 * s / (1 + s)


def score(x: Tensor, level: Any) -> Tensor:
    return -x * 0.8 + 0.1


def pull(x: Tensor, t: Any) -> Tensor:
    return torch.sin(2 * x)


def averaged(ema: Any) -> Iterator[Tensor]:
    """The average's weight after each of some updates by a network whose weight is known."""
    one = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        one.weight.fill_(1.0)
        made = ema(one.parameters()) if hasattr(ema, "step") else ema(one)
        for i in range(20):
            one.weight.fill_(float(i % 3))
            if hasattr(made, "step"):
                made.step(list(one.parameters()))
                yield made.shadow_params[0].clone()
            else:
                made.update(one)
                average = made.shadow if hasattr(made, "shadow") else made.average
                yield average.weight.clone()


def stepped(scheduler: Any, n: int = 12) -> Iterator[Tensor]:
    """All samples along a scheduler's loop."""
    scheduler.set_timesteps(n)
    yield scheduler.timesteps
    x = 3 * X
    wide = getattr(scheduler, "variance_type", "") == "learned_range"
    for t in scheduler.timesteps:
        asked = scheduler.scale_model_input(x, t)
        x = scheduler.step((wide_net if wide else net)(asked, t), t, x).prev_sample
        yield x


def _audit(loop: Callable[[Any], Any]) -> tuple[Any, Any, Any]:
    """What a loop returns, the times it asks at, and what it asks first."""
    times: list[Tensor] = []
    asked: list[Tensor] = []

    def seen(x: Tensor, t: Any) -> Tensor:
        times.append(torch.as_tensor(t, dtype=torch.float64).reshape(-1)[0])
        asked.append(x.clone())
        return net(x, t)

    return loop(seen), torch.stack(times), asked[0]


def _itself(f: Any) -> Any:
    return f


def _at_t(f: Any) -> Any:
    return f(X, TIMES)


def _noised(f: Any) -> Any:
    return f(X, TIMES, Y), f(X, TIMES)


def _low(f: Any) -> Any:
    return f(X.bfloat16(), TIMES, Y.bfloat16())


def _pair(f: Any) -> Any:
    return f(X, Y, TIMES)


def _loss(f: Any) -> Any:
    one_by_one = [f(net, X[i : i + 1], TIMES[i : i + 1], Y[i : i + 1]) for i in range(len(X))]
    return f(net, X, TIMES, Y), torch.stack(one_by_one)


def _model_step(f: Any) -> Any:
    return f(net, 2 * X, TIMES)


def _loop(f: Any) -> Any:
    return _audit(lambda model: f(model, (2, 3)))


def _walk(f: Any) -> Any:
    return _audit(lambda model: f(model, 9 * X, LEVELS))


def _flow(f: Any) -> Any:
    return _audit(lambda model: f(model, X))


def _by_sigma(f: Any) -> Any:
    return f(X, SIGMAS, Y), f(X, SIGMAS)


def _by_time(f: Any) -> Any:
    return f(X, SIGMAS / 50, Y)


def _ddim_step(f: Any) -> Any:
    return f(X, Y, 700, 650), f(X, Y, 700, 650, 1.0), f(X, Y, 19, -1)


_PROBES: dict[str, Probe] = {
    "forward_step": _at_t,
    "forward_process": lambda f: (f(X, 9), f(X, 9, numbers(4, (9, *SHAPE)))),
    "q_sample": _noised,
    "q_sample_low": _low,
    "q_mean_std": _at_t,
    "posterior": _pair,
    "eps_loss": _loss,
    "x_0_loss": _loss,
    "v_loss": _loss,
    "score_loss": _loss,
    "image_loss": _loss,
    "weighted_loss": _loss,
    "min_snr": lambda f: f(TIMES),
    "min_snr_zero": lambda f: f(TIMES),
    "debiased_zero": lambda f: f(TIMES),
    "sample_time": lambda f: f(1000),
    "p_sample": _model_step,
    "p_sample_clipped": _model_step,
    "p_sample_thresholded": _model_step,
    "p_sample_learned": lambda f: f(wide_net, X, TIMES),
    "p_sample_loop": _loop,
    "img2img": lambda f: _audit(lambda model: f(model, X, 40)),
    "ddim_times": lambda f: torch.tensor(f),
    "ddim_times_many": lambda f: torch.tensor(f),
    "ddim_step": _ddim_step,
    "ddim_step_x_0": lambda f: (f(X, Y, 700, 650), f(X, Y, 19, -1)),
    "ddim_loop": _loop,
    "cfg": lambda f: f(labelled_net, X, TIMES, 1, 2.5),
    "classifier": lambda f: f(net, pull, X, TIMES),
    "ema": lambda f: list(averaged(f)),
    "embedding": lambda f: f(TIMES),
    "langevin_step": lambda f: f(score, X, TIMES, 0.02),
    "prior_kl": lambda f: f(X),
    "bound_term": lambda f: f(net, X, TIMES[1:].repeat(2)[:6], Y),
    "ve_sample": _by_sigma,
    "dsm": lambda f: f(score, X, SIGMAS),
    "euler_sample": _walk,
    "heun_sample": _walk,
    "dpmpp_sample": _walk,
    "langevin": lambda f: f(score, X, 0.5, 0.02, 3),
    "annealed": lambda f: f(score, X, LEVELS[:-1], 0.001, 4),
    "vp_sigma_prime": lambda f: torch.stack([f(t) for t in (0.01, 0.3, 1.0)]),
    "vp_flow": _flow,
    "flow_times": lambda f: f(1000),
    "flow_mix": lambda f: f(X, Y, TIMES / 1000),
    "flow_loss": lambda f: (f(net, X, TIMES / 1000, Y), f(net, X)),
    "flow_sample": _loop,
    "G.q_step": _noised,
    "G.q_mean_variance": _at_t,
    "G.q_sample": _noised,
    "G.q_sample_low": _low,
    "G.posterior": _pair,
    "G.posterior_cosine": _pair,
    "G.p_sample": _model_step,
    "G.posterior_100": lambda f: f(X, Y, TIMES // 10),
    "G.p_sample_100": lambda f: f(net, X, TIMES // 10),
    "G.p_sample_loop_100": _loop,
    "G.p_sample_v": _model_step,
    "G.p_sample_clipped": _model_step,
    "G.p_sample_threshold": _model_step,
    "G.p_sample_learned": lambda f: f(wide_net, X, TIMES),
    "G.p_mean_variance_learned": lambda f: f(wide_net, X, TIMES),
    "G.p_sample_loop": _loop,
    "G.interpolate": lambda f: _audit(lambda model: f(model, X, Y, 40)),
    "G.ddim": _loop,
    "G.ddim_30": _loop,
    "G.ddim_x_0": _loop,
    "G.ddim_encode": lambda f: _audit(lambda model: f(model, X)),
    "G.losses": _loss,
    "G.losses_x_0": _loss,
    "G.losses_v": _loss,
    "G.losses_score": _loss,
    "G.losses_min_snr": _loss,
    "G.forward": lambda f: f(net, X.sigmoid()),
    "G.weight": lambda f: f(TIMES),
    "G.weight_v": lambda f: f(TIMES),
    "G.weight_zero": lambda f: f(TIMES),
    "G.times": lambda f: f(1000),
    "G.guided": lambda f: f(net, pull, X, TIMES),
    "G.cfg": lambda f: f(labelled_net, 1, 2.5)(X, TIMES),
    "G.ema": lambda f: list(averaged(f)),
    "G.embedding": lambda f: f(TIMES),
    "G.prior_kl": lambda f: f(X),
    "G.bound_term": lambda f: f(net, X, TIMES[1:].repeat(2)[:6], Y),
    "VE.marginal": lambda f: f(X, SIGMAS / 50),
    "VE.perturb": _by_time,
    "VE.score_loss": lambda f: f(score, X, SIGMAS / 50, Y),
    "VE.correct": lambda f: f(score, X, SIGMAS / 50),
    "VP.marginal": lambda f: f(X, SIGMAS / 50),
    "VP.perturb": _by_time,
    "VP.sigma_prime": lambda f: f(SIGMAS / 50),
    "VP.flow_sample": _flow,
    "Heun.one_step": lambda f: (f(denoise, X, LEVELS[1], LEVELS[2]), f(denoise, X, *LEVELS[-2:])),
    "Heun": _loop,
    "Flow.times": lambda f: f(1000),
    "Flow.mix": lambda f: f(X, Y, TIMES / 1000),
    "Flow.loss": lambda f: (f(net, X, TIMES / 1000, Y), f(net, X)),
    "Flow.sample": _loop,
    "Annealed.move": lambda f: f(score, X, 1),
    "S.add_noise": lambda f: f(X, Y, TIMES),
    "S.add_noise_low": lambda f: f(X.bfloat16(), Y.bfloat16(), TIMES),
    "S.velocity": lambda f: f(X, Y, TIMES),
    "S.ve_add_noise": lambda f: f(X, Y, TIMES),
    "S.generate": _loop,
    "S.generate_ddpm": _loop,
    "S.img2img": lambda f: _audit(lambda model: f(model, X)),
    "S.guided": lambda f: f(doubled_net, X, TIMES, 1, 2.5),
    "S.weights": lambda f: f(TIMES),
    "S.weights_zero": lambda f: f(TIMES),
    "S.loss": _loss,
    "S.loss_x_0": _loss,
    "S.loss_v": _loss,
    "S.loss_min_snr": _loss,
    "S.train_step": _loss,
    "S.times": lambda f: f(1000),
    "S.embedding": lambda f: f(TIMES),
    "S.ema": lambda f: list(averaged(f)),
    "S.timesteps": lambda f: (f(500), f(20)),
}

# A table is its own probe, and a scheduler's is its loop.
_BY_ROLE: dict[str, Probe] = {
    "schedule": _itself,
    "scheduler": lambda f: (*stepped(f), f.add_noise(X, Y, TIMES % f.num_train_timesteps)),
}

_KEYS = {
    (made.module, made.subject, *sorted(made.given.items())): key for key, made in SUBJECTS.items()
}


def key_of(specimen: Specimen) -> str:
    """Which subject of the catalogue a specimen is made of."""
    return _KEYS[(specimen.module, specimen.subject, *sorted(specimen.given.items()))]


def numbers_of(key: str, module: ModuleType) -> list[Tensor]:
    """What the subject does, in float64."""
    probe = _PROBES.get(key) or _BY_ROLE[SUBJECTS[key].role]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return [x.detach().double() for x in _flat(probe(reach(module)))]


def _flat(found: Any) -> Iterator[Tensor]:
    if isinstance(found, (list, tuple)):
        for part in found:
            yield from _flat(part)
    else:
        yield torch.as_tensor(found)
