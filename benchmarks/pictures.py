"""What a class-conditional run of scikit-learn's digits is worth, and what its loops cost.

    python benchmarks/pictures.py [--seconds 60] [--seeds 3] [--net mlp]

For each seed: train on four fifths of the digits, draw 10 sets of 355 without guidance in 20 calls,
and hold them against the fifth that was held out. Goals: class accuracy within the interval of the
classifier's own, coverage within that of real pictures, and a median distance to the nearest
training picture of 0.95 of that of held-out ones or more. Accuracy alone proves nothing: a
memoriser has it, too. Then, of the U-Net at a batch of 64, the sampling loop over its own calls
(goal ≤ 1.02), and the share of a training step that goes into drawing the batch (goal < 2 %).
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor

from alphabar import schedule as schedules
from alphabar.data import load
from alphabar.denoise import Moments, NetDenoiser
from alphabar.nets import unet
from alphabar.samplers import dpmpp_2m, sample
from alphabar.schedule import Level
from alphabar.train import Batch, Settings, Shuffled, train

NAMES = ("class_accuracy", "coverage", "coverage_features", "nearest_train", "memorised")
STEPS, BATCH, ROUNDS = 10, 64, 5


def command(*words: object) -> dict:
    """What a command of alphabar answers."""
    called = [sys.executable, "-m", "alphabar", *map(str, words), "--json", "--quiet"]
    return json.loads(subprocess.run(called, check=True, capture_output=True, text=True).stdout)


def judged(seed: int, seconds: float, net: str) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "digits"
        options = ("--net", net, "--batch", 256, "--rate", 3e-3, "--seed", seed)
        made = command("train", "digits", "--classes", "--seconds", seconds, "-o", run, *options)
        found = command("evaluate", run, "--seed", seed)
    return {"steps": made["steps"], "nfe": found["sample"]["nfe"], **found["metrics"]}


def small() -> NetDenoiser:
    x = load("digits").x
    net = unet(base=32, mult=(1, 2), blocks=1, attend=(4,)).build((1, 8, 8), 0)
    return NetDenoiser(net, Moments.of(x)).eval()


def sampling() -> float:
    """Median of (the loop)/(its calls alone), in turns."""
    denoiser, few = small(), schedules.linear().spaced(STEPS, "log_snr")
    asked: list[tuple[Tensor, Level]] = []

    def spy(x: Tensor, level: Level) -> Tensor:
        asked.append((x.clone(), level))
        return denoiser(x, level)

    def loop(of: object = denoiser) -> None:
        for _ in sample(of, dpmpp_2m(), few, BATCH, (1, 8, 8), seed=0):
            pass

    @torch.no_grad()
    def calls() -> None:
        for x, level in asked:
            denoiser(x, level)

    loop(spy), calls()
    ratios = []
    for i in range(ROUNDS):
        times = {}
        for run in (loop, calls) if i % 2 else (calls, loop):
            start = time.perf_counter()
            run()
            times[run.__name__] = time.perf_counter() - start
        ratios.append(times["loop"] / times["calls"])
    return statistics.median(ratios)


class Timed(Shuffled):
    """Items that know how long it took to draw them."""

    seconds = 0.0

    def draw(self, *arguments: object, **named: object) -> Batch:
        start = time.perf_counter()
        drawn = super().draw(*arguments, **named)
        self.seconds += time.perf_counter() - start
        return drawn


def waiting() -> float:
    """The share of training that goes into drawing batches."""
    data = load("digits")
    items = Timed(data.x)
    *_, last = train(small(), items, 0, 20, settings=Settings(batch=128))
    return items.seconds / last.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--net", default="mlp")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    for seed in range(chosen.seeds):
        found = judged(seed, chosen.seconds, chosen.net)
        print(f"seed {seed}: {found['steps']} steps of {chosen.net}, {found['nfe']} calls")
        for name in NAMES:
            one = found[name]
            floor = f"{one['floor']:.4f}"
            if one["floor_low"] is not None:
                floor += f" ({one['floor_low']:.4f} … {one['floor_high']:.4f})"
            interval = f"{one['value']:.4f} ({one['low']:.4f} … {one['high']:.4f})"
            print(f"  {name:18} {interval:28} floor {floor}   ratio {one['ratio']:.3f}")
    print(f"sampling loop over its calls, U-Net, batch {BATCH}: {sampling():.4f} (goal ≤ 1.02)")
    print(f"share of a step spent on drawing the batch: {100 * waiting():.2f} % (goal < 2 %)")


if __name__ == "__main__":
    main()
