"""Restoration against the truth: the posterior of a Gaussian mixture is a mixture again.

    python benchmarks/restore.py [--json] [-n 2000] [--truths 4] [--tasks inpaint]

For each task, method and noise: ratio = √(mean over several y of SW2²/floor²) of n draws to the
exact p(x_0 | y), 1 for truth, and the worst y. NFE: calls of the denoiser for all draws together.
"""

import json
import math
import sys
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from alphabar import metrics
from alphabar import schedule as S
from alphabar.operators import Downscale, Identity, Mask, Operator, dense
from alphabar.restore import Restored, denoise, pi_gdm, posterior, repaint
from alphabar.samplers import ddim, sample
from alphabar.targets import Mixture

NOISES = (0.0, 0.05, 0.3)
FULL = S.log_snr(1000, 12, -10)
Method = Callable[[Mixture, Operator, Tensor, float, int, int], tuple[Tensor, int]]


def law(d: int, k: int, seed: int = 0) -> Mixture:
    """Components of std 0.1 to 0.4 along axes of their own, together about of variance 1."""
    g = torch.Generator().manual_seed(seed)
    means = torch.randn(k, d, generator=g, dtype=torch.float64)
    basis = torch.linalg.qr(torch.randn(k, d, d, generator=g, dtype=torch.float64)).Q
    std = 0.1 + 0.3 * torch.rand(k, 1, d, generator=g, dtype=torch.float64)
    return Mixture([1.0 + i % 3 for i in range(k)], means, cov=(basis * std**2) @ basis.mT)


def half(d: int) -> Mask:
    return Mask(torch.arange(d) % 2 == 0, (d,))


TASKS: dict[str, tuple[Mixture, Operator]] = {
    "inpaint 2-D": (law(2, 6), half(2)),
    "inpaint 8-D": (law(8, 10), half(8)),
    "superres 8-D": (law(8, 10), Downscale((8,), 2)),
    "denoise 2-D": (law(2, 6), Identity((2,))),
    "denoise 16-D": (law(16, 10), Identity((16,))),
}


def _last(steps: Iterator[Restored]) -> tuple[Tensor, int]:
    *_, last = steps
    return last.draws, last.nfe


def _posterior(target: Mixture, op: Operator, y: Tensor, noise: float, n: int, seed: int):  # type: ignore[no-untyped-def]
    return _last(posterior(target, FULL, op, y, noise, n, seed))


def _gibbs(target: Mixture, op: Operator, y: Tensor, noise: float, n: int, seed: int):  # type: ignore[no-untyped-def]
    return _last(posterior(target, FULL, op, y, noise, n, seed, crowd=0))


def _denoise(target: Mixture, op: Operator, y: Tensor, noise: float, n: int, seed: int):  # type: ignore[no-untyped-def]
    return _last(denoise(target, FULL, y.expand(n, *y.shape), noise, seed))


def _pi_gdm(target: Mixture, op: Operator, y: Tensor, noise: float, n: int, seed: int):  # type: ignore[no-untyped-def]
    few = FULL.spaced(200, "log_snr")
    *_, last = sample(pi_gdm(target, op, y, noise), ddim(1.0), few, n, op.shape, seed)
    return last.x, last.nfe


def _repaint(target: Mixture, op: Operator, y: Tensor, noise: float, n: int, seed: int):  # type: ignore[no-untyped-def]
    return _last(repaint(target, FULL.spaced(100, "log_snr"), op, y, noise, n, seed))  # type: ignore[arg-type]


METHODS: dict[str, Method] = {
    "posterior": _posterior,
    "denoise": _denoise,
    "split Gibbs": _gibbs,
    "PiGDM": _pi_gdm,
    "RePaint": _repaint,
}


def fits(method: str, op: Operator, noise: float) -> bool:
    if isinstance(op, Identity):
        return noise > 0 and method not in ("RePaint",)
    return method != "denoise" and (method != "RePaint" or isinstance(op, Mask))


def main() -> None:
    torch.set_num_threads(1)
    argv = sys.argv
    n = int(argv[argv.index("-n") + 1]) if "-n" in argv else 2000
    truths = int(argv[argv.index("--truths") + 1]) if "--truths" in argv else 4
    metrics.FLOOR_SETS, metrics.REFERENCE = 40, 40_000
    rows: list[dict[str, float | str]] = []
    wanted = argv[argv.index("--tasks") + 1] if "--tasks" in argv else ""
    for task, (target, op) in TASKS.items():
        if wanted not in task:
            continue
        A = dense(op)
        clean = target.sample(truths, torch.Generator().manual_seed(1))
        for noise in NOISES:
            g = torch.Generator().manual_seed(2)
            n_y = torch.randn(truths, *op.output_shape, generator=g, dtype=torch.float64)
            cases = []
            for y in op.apply(clean) + noise * n_y if noise or A.shape[0] < A.shape[1] else []:
                exact = target.observed(A, y.flatten(), noise)
                yard = metrics.against_fresh(
                    n,
                    lambda m, s, e=exact: e.sample(m, torch.Generator().manual_seed(s)).flatten(1),  # type: ignore[misc]
                )
                cases.append((y, yard))
            for name, method in METHODS.items():
                if not cases or not fits(name, op, noise):
                    continue
                worst, value = 0.0, 0.0
                for i, (y, yard) in enumerate(cases):
                    x, nfe = method(target, op, y.float(), noise, n, i)
                    found = yard.distance(x.flatten(1))
                    value += found / yard.floor / truths
                    worst = max(worst, math.sqrt(found / yard.floor))
                rows.append(
                    {
                        "task": task,
                        "noise": noise,
                        "method": name,
                        "ratio": math.sqrt(value),
                        "worst": worst,
                        "nfe": nfe,
                    }
                )
                if "--json" not in argv:
                    print(
                        f"{task:14} {noise:<5g} {name:12} {math.sqrt(value):8.2f} {worst:8.2f} "
                        f"{nfe:6}",
                        flush=True,
                    )
    if "--json" in argv:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
