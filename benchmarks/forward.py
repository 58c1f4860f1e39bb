"""The forward process beside the bare loops it stands for, and the building of long schedules.

    python benchmarks/forward.py [--json]

Each ratio is of medians of interleaved runs in one process, so that what else the machine does
falls on both sides alike.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable

import torch

from alphabar.forward import marginal, walk
from alphabar.schedule import SCHEDULES, linear

T_LONG = 1_000_000
ROUNDS = 9


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def ratio(ours: Callable[[], object], bare: Callable[[], object]) -> dict[str, float]:
    ours(), bare()  # the first run pays for memory and threads
    pairs = []
    for i in range(ROUNDS):  # take turns at going first
        first, second = (ours, bare) if i % 2 else (bare, ours)
        a, b = seconds(first), seconds(second)
        pairs.append((a, b) if i % 2 else (b, a))
    mine, theirs = (statistics.median(p[k] for p in pairs) for k in (0, 1))
    return {"ours_s": mine, "bare_s": theirs, "ratio": mine / theirs}


def marginal_of_ten_million_points() -> dict[str, float]:
    noise, x = linear(), torch.randn(10_000_000, 2)
    a, s = noise.alpha[500].item(), noise.sigma[500].item()
    generator = torch.Generator().manual_seed(0)
    return ratio(
        lambda: marginal(noise[500], x).sample(generator),
        lambda: a * x + s * torch.randn_like(x),
    )


def walk_of_a_hundred_steps() -> dict[str, float]:
    noise, x_0 = linear(100, 1e-3, 0.2), torch.randn(100_000, 2)
    generator = torch.Generator().manual_seed(0)
    beta = noise.beta[1:].float()

    def bare() -> torch.Tensor:
        x = x_0
        for t in range(100):
            x = torch.sqrt(1 - beta[t]) * x + torch.sqrt(beta[t]) * torch.randn_like(x_0)
        return x

    def ours() -> torch.Tensor:
        x_T = x_0
        for _, x_t in walk(noise, x_0, generator):
            x_T = x_t
        return x_T

    return ratio(ours, bare)


def building_of_long_schedules() -> dict[str, float]:
    """Milliseconds for T = 10⁶, β scaled to T so that ᾱ_T is what it is at T = 1000."""
    found = {}
    for entry in SCHEDULES:
        if not entry.takes_no_argument:
            continue
        given: dict[str, object] = {"T": T_LONG}
        for key in ("start", "end", "beta"):
            default = entry.parameters.get(key)
            if isinstance(default, float) and entry.name != "log_snr":
                given[key] = default * 1000 / T_LONG
        times = [seconds(lambda build=entry.build, g=given: build(**g)) for _ in range(ROUNDS)]
        found[entry.name] = 1000 * statistics.median(times)
    return found


def main() -> None:
    found = {
        "marginal_sample_1e7_points": marginal_of_ten_million_points(),
        "walk_100_steps": walk_of_a_hundred_steps(),
        "schedule_build_ms_T_1e6": building_of_long_schedules(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    if "--json" in sys.argv:
        print(json.dumps(found))
        return
    for key, goal in (("marginal_sample_1e7_points", 1.05), ("walk_100_steps", 1.10)):
        print(f"{key}: ratio {found[key]['ratio']:.3f} (goal ≤ {goal})")  # type: ignore[index]
    slowest = max(found["schedule_build_ms_T_1e6"].items(), key=lambda kv: kv[1])  # type: ignore[attr-defined]
    print(f"slowest schedule at T = 10⁶: {slowest[0]}, {slowest[1]:.1f} ms (goal ≤ 50)")


if __name__ == "__main__":
    main()
