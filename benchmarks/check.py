"""How long `alphabar check` takes for a file of six functions, beside `python -c "import torch"`.

    python benchmarks/check.py [--json]

The six are right, so that every law is tried to its end, and then wrong in a way that no known
change explains, so that every hypothesis is tried too. The goals, 5 s for one function and 20 s for
six of them, are of a machine that imports torch in 1 s, and leave that import aside.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 3
ONE, SIX = 5.0, 20.0  # in imports of torch
TORCH = [sys.executable, "-c", "import torch"]
CODE = """
import torch

T = 1000
betas = torch.linspace(1e-4, 0.02, T)
alphas = 1 - betas
bars = alphas.cumprod(0)
before = torch.cat([torch.ones(1), bars[:-1]])


def at(table, t):
    return table[t][:, None]


def q_sample(x_0, t, noise):
    return at(bars.sqrt(), t) * x_0 + at((1 - bars).sqrt(), t) * noise


def forward_step(x, t):
    return at(alphas.sqrt(), t) * x + at(betas.sqrt(), t) * torch.randn_like(x)


def q_posterior(x_0, x_t, t):
    of_x_0 = betas * before.sqrt() / (1 - bars)
    of_x_t = (1 - before) * alphas.sqrt() / (1 - bars)
    return at(of_x_0, t) * x_0 + at(of_x_t, t) * x_t, at(betas * (1 - before) / (1 - bars), t)


def p_losses(model, x_0, t, noise):
    return (noise - model(q_sample(x_0, t, noise), t)).square().mean()


def p_sample(model, x, t):
    eps = model(x, t)
    mean = (x - at(betas / (1 - bars).sqrt(), t) * eps) / at(alphas.sqrt(), t)
    return mean + (t > 0).float()[:, None] * at(betas.sqrt(), t) * torch.randn_like(x)


def p_sample_loop(model, shape):
    x = torch.randn(shape)
    for i in reversed(range(T)):
        x = p_sample(model, x, torch.full((shape[0],), i))
    return x
"""
# The table of the file stays as it is; what the functions read of it is off by turns.
WRONG = CODE.replace(
    "\n\ndef q_sample",
    "\n\nbars = bars * (0.95 + 0.04 * torch.sin(torch.arange(T) / 50))\n\n\ndef q_sample",
)


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def functions(path: Path) -> dict[str, float]:
    """The seconds of each function of a file, by its role; two of one role are added up."""
    command = [str(Path(sys.executable).with_name("alphabar")), "check", str(path), "--json"]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE)
    found: dict[str, float] = {}
    for each in json.loads(done.stdout)["functions"]:
        found[each["name"]] = found.get(each["name"], 0.0) + each["seconds"]
    return found


def main() -> None:
    seconds(TORCH)  # the first run reads the files from the disk
    rows: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, code in (("right", CODE), ("wrong", WRONG)):
            path = Path(folder) / f"{name}.py"
            path.write_text(code)
            rounds = [(seconds(TORCH), functions(path)) for _ in range(ROUNDS)]
            ratios = [{k: v / torch_s for k, v in found.items()} for torch_s, found in rounds]
            rows[name] = {k: statistics.median(r[k] for r in ratios) for k in ratios[0]}
    whole = {name: sum(row.values()) for name, row in rows.items()}
    if "--json" in sys.argv:
        print(json.dumps({"functions": rows, "whole": whole}))
        return
    for name, row in rows.items():
        for function, ratio in row.items():
            print(f"{name:6} {function:14} over import torch: {ratio:6.2f} (goal ≤ {ONE:g})")
        print(f"{name:6} {'all of them':14} over import torch: {whole[name]:6.2f} (goal ≤ {SIX:g})")


if __name__ == "__main__":
    main()
