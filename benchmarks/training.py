"""How close a network comes to the Swiss roll in seconds of training, and what the loop costs.

    python benchmarks/training.py [--json] [--seeds 5] [--draws 10] [--long]

Ratios are those of the contract: sliced Wasserstein-2 over what true samples of the same size
score, 10,000 points a draw, starting noise i.i.d. Gaussian. Beside them, for the same seconds, the
loop of the tutorials: T = 100, linear β, a network told t that predicts ε, Adam, ancestral
sampling. `--long` trains for 60 seconds too, on fixed points and on fresh ones. One thread.
"""

import copy
import json
import math
import statistics
import sys
import time
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from alphabar import data
from alphabar import schedule as S
from alphabar.denoise import Moments, NetDenoiser
from alphabar.excess import Excess, even_log_snr
from alphabar.fit import fit_mixes
from alphabar.forward import marginal
from alphabar.metrics import Yardstick, against_fresh
from alphabar.nets import mlp
from alphabar.samplers import Normal, dpmpp_2m, sample
from alphabar.targets import target_of
from alphabar.train import Items, Settings, Shuffled, Streamed, TrainStep, train

N = 10_000
FITTED = 12  # calls that levels and coefficients are fitted to
FEW = 20


def value(name: str, default: int) -> int:
    return int(sys.argv[sys.argv.index(name) + 1]) if name in sys.argv else default


ROLL = data.swiss_roll()
X = ROLL.x.float()
TARGET = target_of(ROLL)
PROBE = Excess(TARGET, even_log_snr(40), n_each=512, seed=1)
BASE = S.linear()
LAW = Normal.of(ROLL.x)  # of the training points: all that a user has


def trained(seed: int, seconds: float, stream: bool) -> TrainStep:
    denoiser = NetDenoiser(mlp().build((2,), seed), Moments.of(X))
    fresh = ROLL.fresh
    assert fresh is not None
    items: Items = Streamed(fresh, 2**20 + 10_000 * seed) if stream else Shuffled(X)
    *_, last = train(denoiser, items, seed, seconds=seconds)
    return last


def ours(
    seed: int, seconds: float, stream: bool, draws: int, yardstick: Yardstick
) -> Iterator[dict[str, object]]:
    last = trained(seed, seconds, stream)
    excess = PROBE(last.denoiser)
    begin = time.perf_counter()
    few, mixes = fit_mixes(last.denoiser, FITTED, BASE, LAW, seed)
    fit = time.perf_counter() - begin
    ways = (
        (f"levels and coefficients fitted, {FITTED} calls", few, mixes, fit),
        (f"2M, even in log-SNR, {FEW} calls", BASE.spaced(FEW, "log_snr"), dpmpp_2m(), 0.0),
    )
    for name, levels, sampler, fit_s in ways:
        sets = []
        for i in range(draws):
            steps = sample(last.denoiser, sampler, levels, N, (2,), seed, first=i * N, start=LAW)
            *_, end = steps
            sets.append(end.x.double())
        yield {
            "way": name,
            "data": "fresh points" if stream else "10,000 points",
            "nfe": end.nfe,
            "train_s": last.seconds,
            "steps": last.step,
            "fit_s": fit_s,
            "ratio": yardstick.score(sets).ratio,
            "excess": excess.share,
        }


class Tutorial(nn.Module):
    """A network told t, as tutorials have it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(3, 128), nn.SiLU(), nn.Linear(128, 128), nn.SiLU(),
            nn.Linear(128, 128), nn.SiLU(), nn.Linear(128, 2),
        )  # fmt: skip

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.net(torch.cat([x, t[:, None] / 100], 1))


def tutorial(seed: int, seconds: float, draws: int, yardstick: Yardstick) -> dict[str, object]:
    torch.manual_seed(seed)
    beta = torch.linspace(1e-4, 0.2, 100)
    alpha_bar = (1 - beta).cumprod(0)
    net = Tutorial()
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    begin, steps = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        x_0 = X[torch.randint(N, (128,))]
        t = torch.randint(100, (128,))
        eps = torch.randn_like(x_0)
        x_t = alpha_bar[t].sqrt()[:, None] * x_0 + (1 - alpha_bar[t]).sqrt()[:, None] * eps
        loss = (net(x_t, t) - eps).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        steps += 1
    took = time.perf_counter() - begin
    sets = []
    with torch.no_grad():
        for _ in range(draws):
            x = torch.randn(N, 2)
            for i in reversed(range(100)):
                eps = net(x, torch.full((N,), i))
                x = (x - beta[i] / (1 - alpha_bar[i]).sqrt() * eps) / (1 - beta[i]).sqrt()
                if i:
                    x = x + beta[i].sqrt() * torch.randn_like(x)
            sets.append(x.double())
    return {
        "way": "tutorial, 100 calls",
        "data": "10,000 points",
        "nfe": 100,
        "train_s": took,
        "steps": steps,
        "fit_s": 0.0,
        "ratio": yardstick.score(sets).ratio,
        "excess": None,
    }


def overhead(width: int = 128, rounds: int = 15, steps: int = 60) -> float:
    """Median of (training loop)/(the same work written out), interleaved."""
    ratios = []
    for i in range(rounds):
        times = {}
        for name in ("loop", "bare") if i % 2 else ("bare", "loop"):
            denoiser = NetDenoiser(mlp(width=width).build((2,), 0), Moments.of(X))
            run = loop if name == "loop" else bare
            times[name] = run(denoiser, steps)
        ratios.append(times["loop"] / times["bare"])
    return statistics.median(ratios)


def loop(denoiser: NetDenoiser, steps: int) -> float:
    begin = time.perf_counter()
    for _ in train(denoiser, Shuffled(X), 0, steps=steps):
        pass
    return time.perf_counter() - begin


def bare(denoiser: NetDenoiser, steps: int) -> float:
    """Forward, backward, fused optimizer step and moving average, with the same draws."""
    settings = Settings()
    generator = torch.Generator().manual_seed(0)
    begin = time.perf_counter()
    optimizer = torch.optim.AdamW(denoiser.parameters(), settings.rate, fused=True)
    average = copy.deepcopy(denoiser)
    kept, now = list(average.parameters()), list(denoiser.parameters())
    variance = denoiser.std.item() ** 2
    items = Shuffled(X)
    for _ in range(steps):
        x_0 = items.draw(settings.batch, generator).x_0
        level = settings.levels.draw(settings.batch, generator).level
        eps = torch.randn(x_0.shape, generator=generator)
        weight = (level.snr + 1 / variance).float()
        error = denoiser(marginal(level, x_0).at(eps), level) - x_0
        loss = (weight * error.square().mean(1)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(kept, now, 0.01)
    return time.perf_counter() - begin


def main() -> None:
    torch.set_num_threads(1)
    seeds, draws = value("--seeds", 5), value("--draws", 10)
    as_json = "--json" in sys.argv
    assert ROLL.fresh is not None
    cost = overhead()
    if not as_json:
        print(f"training loop over the same work written out, width 128: {cost:.3f} (goal 1.05)")
    yardstick = against_fresh(N, ROLL.fresh)
    found: dict[tuple[object, ...], list[dict[str, object]]] = {}
    plan = [(10.0, False)] + ([(60.0, False), (60.0, True)] if "--long" in sys.argv else [])
    for seconds, stream in plan:
        for seed in range(seeds):
            rows = list(ours(seed, seconds, stream, draws, yardstick))
            if not stream:
                rows.append(tutorial(seed, seconds, draws, yardstick))
            for row in rows:
                found.setdefault((seconds, row["data"], row["way"]), []).append(row)
        for (s, of, way), rows in found.items():
            if s != seconds or (of == "fresh points") != stream or as_json:
                continue
            ratios = [float(row["ratio"]) for row in rows]  # type: ignore[arg-type]
            steps = statistics.mean(row["steps"] for row in rows)  # type: ignore[misc]
            excess = [row["excess"] for row in rows if row["excess"] is not None]
            more = f"   excess loss {100 * statistics.mean(excess):.2f} %" if excess else ""  # type: ignore[type-var]
            fit = statistics.mean(row["fit_s"] for row in rows)  # type: ignore[misc]
            error = statistics.stdev(ratios) / math.sqrt(len(ratios)) if len(ratios) > 1 else 0
            print(
                f"{s:3.0f} s  {of}  {way:45} ratio {statistics.mean(ratios):.3f} ± {error:.3f}"
                f"   {steps:6.0f} steps   fit {fit:4.1f} s{more}",
                flush=True,
            )
    if as_json:
        rows = [row for group in found.values() for row in group]
        print(json.dumps({"overhead": cost, "rows": rows, "torch": torch.__version__}))


if __name__ == "__main__":
    main()
