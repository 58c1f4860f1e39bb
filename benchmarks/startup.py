"""How long `alphabar --help` takes beside `python -c "import torch"`.

python benchmarks/startup.py [--json]
"""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROUNDS = 9
HELP = [str(Path(sys.executable).with_name("alphabar")), "--help"]
TORCH = [sys.executable, "-c", "import torch"]


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    for command in (HELP, TORCH):
        seconds(command)  # the first run reads the files from the disk
    pairs = [(seconds(HELP), seconds(TORCH)) for _ in range(ROUNDS)]
    help_s, torch_s = (statistics.median(p[k] for p in pairs) for k in (0, 1))
    if "--json" in sys.argv:
        print(json.dumps({"help_s": help_s, "torch_s": torch_s, "ratio": help_s / torch_s}))
    else:
        print(f"alphabar --help over import torch: ratio {help_s / torch_s:.3f} (goal ≤ 0.333)")


if __name__ == "__main__":
    main()
