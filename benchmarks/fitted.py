"""How few calls of the exact denoiser bring samples of the Swiss roll close to the truth.

    python benchmarks/fitted.py [--json] [--draws 40]

Each figure is the ratio of the contract: sliced Wasserstein-2 over what true samples of the same
size score, 10,000 points a draw. One draw of the truth itself varies by about 0.3, so the mean of
40 by 0.05. Times are those of the fits, on one thread.
"""

import json
import sys
import time

import torch

from alphabar import data
from alphabar import schedule as S
from alphabar.fit import fit_mixes, fit_steps
from alphabar.metrics import against_fresh
from alphabar.samplers import SAMPLERS, Normal, Sampler, sample
from alphabar.schedule import Schedule
from alphabar.targets import target_of

CALLS = (4, 5, 6, 8, 12, 16, 24)
OTHERS = ("ddim", "heun", "dpmpp_2m", "dpmpp_3m", "unipc", "unipc:order=3", "adams")
N = 10_000


def main() -> None:
    torch.set_num_threads(1)
    draws = int(sys.argv[sys.argv.index("--draws") + 1]) if "--draws" in sys.argv else 40
    roll = data.swiss_roll()
    target = target_of(roll)
    start = Normal(target.mean, target.cov)
    yardstick = against_fresh(N, roll.fresh)
    base = S.linear()
    rows: list[dict[str, object]] = []

    def add(name: str, spacing: str, sampler: Sampler, few: Schedule, seconds: float = 0.0) -> None:
        sets = []
        for i in range(draws):
            steps = sample(target, sampler, few, N, (2,), seed=1, first=i * N, start=start)
            *_, last = steps
            sets.append(last.x.double())
        ratio = yardstick.score(sets).ratio
        rows.append(
            {"sampler": name, "spacing": spacing, "nfe": last.nfe, "ratio": ratio, "fit_s": seconds}
        )
        if "--json" not in sys.argv:
            fit = f"   fitted in {seconds:.0f} s" if seconds else ""
            print(f"{last.nfe:3} calls  {name:14} {spacing:12} {ratio:8.3f}{fit}", flush=True)

    for calls in CALLS:
        for name in OTHERS:
            sampler = SAMPLERS.parse(name)
            n = (calls + 1) // 2 if name == "heun" else calls
            add(name, "log_snr", sampler, base.spaced(n, "log_snr"))
            if name in ("dpmpp_2m", "heun"):
                add(name, "karras", sampler, S.karras(n))
        for name in ("dpmpp_2m", "unipc"):
            sampler = SAMPLERS.parse(name)
            for by in ("curvature", "gradient"):
                begin = time.perf_counter()
                few = fit_steps(target, sampler, calls, base, start, by)
                add(name, by, sampler, few, time.perf_counter() - begin)
        begin = time.perf_counter()
        few, fitted = fit_mixes(target, calls, base, start)
        add("mixes", "fitted", fitted, few, time.perf_counter() - begin)
    if "--json" in sys.argv:
        print(json.dumps({"draws": draws, "rows": rows, "torch": torch.__version__}))


if __name__ == "__main__":
    main()
