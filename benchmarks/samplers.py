"""What the sampling loop costs over the calls that it makes.

    python benchmarks/samplers.py [--json]

The loop of each sampler beside the same calls of the same denoiser (an MLP of width 128 with three
hidden layers, preconditioned), at batches of 64 and 10,000 points. Interleaved runs in one process,
one thread: what else the machine does falls on both sides alike.
"""

import json
import statistics
import sys
import time

import torch
from torch import Tensor

from alphabar import schedule as S
from alphabar.denoise import Moments, NetDenoiser
from alphabar.nets import mlp
from alphabar.samplers import SAMPLERS, sample
from alphabar.schedule import Level

GOALS = {64: 1.35, 10_000: 1.03}
ROUNDS = {64: 41, 10_000: 9}
STEPS = 20


def overhead(spec: str, batch: int) -> dict[str, float]:
    """Median over rounds of (loop)/(its calls alone), each round measuring both."""
    x_0 = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0))
    denoiser = NetDenoiser(mlp().build((2,), 0), Moments.of(x_0)).eval()
    sampler = SAMPLERS.parse(spec)
    few = S.linear().spaced(STEPS, "log_snr")
    asked: list[tuple[Tensor, Level]] = []

    def spy(x: Tensor, level: Level) -> Tensor:
        asked.append((x.clone(), level))
        return denoiser(x, level)

    for _ in sample(spy, sampler, few, batch, (2,), seed=0):
        pass

    def loop() -> None:
        for _ in sample(denoiser, sampler, few, batch, (2,), seed=0):
            pass

    @torch.no_grad()
    def calls() -> None:
        for x, level in asked:
            denoiser(x, level)

    loop(), calls()
    pairs = []
    for i in range(ROUNDS[batch]):
        times = {}
        for run in (loop, calls) if i % 2 else (calls, loop):  # take turns at going first
            start = time.perf_counter()
            run()
            times[run.__name__] = time.perf_counter() - start
        pairs.append((times["loop"], times["calls"]))
    return {
        "ratio": statistics.median(a / b for a, b in pairs),
        "loop_ms": 1000 * statistics.median(a for a, _ in pairs),
        "calls_ms": 1000 * statistics.median(b for _, b in pairs),
        "calls": len(asked),
    }


def main() -> None:
    torch.set_num_threads(1)
    specs = [e.name for e in SAMPLERS if e.takes_no_argument and e.name != "adaptive"]
    found = {n: {spec: overhead(spec, n) for spec in specs} for n in GOALS}
    if "--json" in sys.argv:
        print(json.dumps({"overhead": found, "torch": torch.__version__}))
        return
    for batch, goal in GOALS.items():
        print(f"batch {batch}: loop over its own calls (goal ≤ {goal})")
        for spec, one in found[batch].items():
            print(f"  {spec:14} {one['ratio']:.3f}   {one['calls_ms']:.1f} ms of calls")


if __name__ == "__main__":
    main()
