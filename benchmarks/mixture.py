"""A mixture of ten Gaussians in 20 dimensions, 50,000 points: how far a network is from its law.

    python benchmarks/mixture.py [--json] [--seconds 120] [--seed 0]

The entropy of the law is known to three digits from fresh points, so everything is in nats an item
above it, 0 for the law itself:

    bound        the variational bound of fresh points: never below 0 but by chance
    likelihood   −log p of fresh points by the probability-flow ODE: KL(law ‖ network)
    samples      −log p_law of the network's samples: above 0 where they fall beside the law, below
                 where they crowd in the middle

Beside it, for the same seconds: a neural spline flow (`pip install zuko`), where that is installed.
"""

import json
import sys
import time

import torch
from torch import Tensor

from alphabar import schedule as S
from alphabar.bound import bound
from alphabar.denoise import Moments, NetDenoiser
from alphabar.excess import Excess, even_log_snr
from alphabar.fit import fit_steps
from alphabar.likelihood import log_likelihood
from alphabar.nets import mlp
from alphabar.samplers import Normal, dpmpp_2m, sample
from alphabar.schedule import Level
from alphabar.targets import Mixture
from alphabar.train import Shuffled, train

D, K, N, HELD = 20, 10, 50_000, 2_000
CLEAN = Level(torch.tensor(1.0).double(), torch.tensor(0.0).double())


def law() -> Mixture:
    """Means of variance 1; covariances of about 0.26, each with axes of its own."""
    g = torch.Generator().manual_seed(0)
    means = torch.randn(K, D, generator=g, dtype=torch.float64)
    root = torch.randn(K, D, D, generator=g, dtype=torch.float64) * (0.5 / D**0.5)
    cov = root @ root.transpose(1, 2) + 0.01 * torch.eye(D, dtype=torch.float64)
    return Mixture([1.0] * K, means, cov=cov)


def value(name: str, default: float) -> float:
    return float(sys.argv[sys.argv.index(name) + 1]) if name in sys.argv else default


def nll(target: Mixture, x: Tensor) -> Tensor:
    return -target.log_prob(x.double(), CLEAN)


def mean_and_error(values: Tensor) -> tuple[float, float]:
    return values.mean().item(), (values.std() / len(values) ** 0.5).item()


def ours(target: Mixture, x: Tensor, fresh: Tensor, seconds: float, seed: int) -> dict[str, object]:
    denoiser = NetDenoiser(mlp().build((D,), seed), Moments.of(x))
    *_, last = train(denoiser, Shuffled(x), seed, seconds=seconds)
    network = last.denoiser.requires_grad_(False)
    start = Normal.of(x)
    own = nll(target, fresh)  # of the same points: their luck cancels
    base = S.log_snr(1000, 12, -10)
    few = fit_steps(network, dpmpp_2m(), 20, base, start, "curvature", seed)
    ways = {
        "2M, by curvature, 20": (dpmpp_2m(), few),
        "2M, 100": (dpmpp_2m(), base.spaced(100, "log_snr")),
    }
    samples = {}
    for name, (sampler, levels) in ways.items():
        *_, end = sample(network, sampler, levels, HELD * 5, (D,), seed, start=start)
        found, error = mean_and_error(nll(target, end.x))
        samples[name] = (found - ENTROPY[0], (error**2 + ENTROPY[1] ** 2) ** 0.5)
    flow = log_likelihood(network, fresh[:500].double(), base, start=start, tolerance=1e-4)
    apart = mean_and_error(-flow.log_prob - own[:500])
    limit = bound(network, fresh.double(), base, seed, start=start)
    return {
        "way": "alphabar",
        "train_s": last.seconds,
        "steps": last.step,
        "excess": Excess(target, even_log_snr(40), n_each=512, seed=1)(network).share,
        "bound": (limit.total * D - own.mean().item(), (limit.standard_error or 0) * D),
        "likelihood": apart,
        "samples": samples,
    }


def spline_flow(
    target: Mixture, x: Tensor, fresh: Tensor, seconds: float, seed: int
) -> dict[str, object] | None:
    try:
        import zuko
    except ImportError:
        return None
    torch.manual_seed(seed)
    flow = zuko.flows.NSF(D, transforms=3, hidden_features=(128, 128))
    mean, std = x.mean(0), x.std(0)
    z = (x - mean) / std
    optimizer = torch.optim.Adam(flow.parameters(), 1e-3)
    begin, steps = time.perf_counter(), 0
    while (now := time.perf_counter() - begin) < seconds:
        optimizer.param_groups[0]["lr"] = 1e-3 * (1 - now / seconds)
        loss = -flow().log_prob(z[torch.randint(len(z), (512,))]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        steps += 1
    with torch.no_grad():
        log_p = flow().log_prob((fresh - mean) / std) - std.log().sum()
        drawn = flow().sample((HELD * 5,)) * std + mean
    found, error = mean_and_error(nll(target, drawn))
    return {
        "way": f"zuko {zuko.__version__} NSF",
        "train_s": time.perf_counter() - begin,
        "steps": steps,
        "excess": None,
        "bound": None,
        "likelihood": mean_and_error(-log_p.double() - nll(target, fresh)),
        "samples": {"": (found - ENTROPY[0], (error**2 + ENTROPY[1] ** 2) ** 0.5)},
    }


TARGET = law()
ENTROPY = mean_and_error(nll(TARGET, TARGET.sample(1_000_000, torch.Generator().manual_seed(3))))


def main() -> None:
    torch.set_num_threads(1)
    seconds, seed = value("--seconds", 120), int(value("--seed", 0))
    x = TARGET.sample(N, torch.Generator().manual_seed(1)).float()
    fresh = TARGET.sample(HELD, torch.Generator().manual_seed(2)).float()
    rows = [ours(TARGET, x, fresh, seconds, seed), spline_flow(TARGET, x, fresh, seconds, seed)]
    if "--json" in sys.argv:
        print(json.dumps({"entropy": ENTROPY, "rows": [row for row in rows if row]}))
        return
    print(f"entropy {ENTROPY[0]:.3f} ± {ENTROPY[1]:.3f} nats an item; all below is beyond it")
    for row in rows:
        if row is None:
            print("zuko is not installed: no peer")
            continue
        print(f"{row['way']}: {row['train_s']:.0f} s, {row['steps']} steps")
        for name in ("bound", "likelihood"):
            if row[name] is not None:
                print("  {:24} {:+.3f} ± {:.3f}".format(name, *row[name]))  # type: ignore[misc]
        for name, (found, error) in row["samples"].items():  # type: ignore[attr-defined]
            print(f"  {'samples, ' + name if name else 'samples':24} {found:+.3f} ± {error:.3f}")


if __name__ == "__main__":
    main()
