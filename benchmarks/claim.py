"""The study post's claim, tested: does a β that grows beat a constant one?

    python benchmarks/claim.py [--json] [--seeds 5] [--seconds 5] [--steps N] [--draws 4]
                               [--exact-draws 2] [--shares 0.25 0.5 1] [--figure FILE]

The same net is trained on constant, linear, quad and sigmoid schedules of T = 100, at the post's
range and down to noise, the plain way and ours: see `alphabar.claim`. Each ratio is the contract's:
sliced Wasserstein-2 over what true samples of the same size score, 10,000 points a draw. One
thread. `--seconds` becomes steps by this machine's speed, once; give `--steps` to repeat a run.
"""

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from alphabar.claim import GROWING, Claim, Estimate, Interval, Settings, T, contenders, run_claim
from alphabar.figures import schedule_ratios


def main() -> None:
    usual = Settings()
    parser = argparse.ArgumentParser(description="The study post's claim, tested.")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seeds", type=int, default=usual.seeds)
    parser.add_argument("--seconds", type=float, default=usual.seconds)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--draws", type=int, default=usual.draws)
    parser.add_argument("--exact-draws", type=int, default=usual.exact_draws)
    parser.add_argument("--shares", type=float, nargs="+", default=usual.shares)
    parser.add_argument("--figure", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    settings = Settings(
        seeds=given.seeds,
        seconds=given.seconds,
        steps=given.steps,
        draws=given.draws,
        exact_draws=min(given.exact_draws, given.draws),
        shares=tuple(given.shares),
    )
    done, begin = 0, time.perf_counter()

    def advance() -> None:
        nonlocal done
        done += 1
        passed = time.perf_counter() - begin
        left = passed / done * (settings.units - done) / 60
        print(f"\r{done}/{settings.units}, {left:.0f} min left ", end="", file=sys.stderr)

    claim = run_claim(settings, advance)
    print(file=sys.stderr)
    minutes = (time.perf_counter() - begin) / 60
    if given.figure:
        schedule_ratios(claim.panels()).savefig(given.figure)
    if given.json:
        print(json.dumps({**claim.to_dict(), "minutes": minutes, "torch": torch.__version__}))
    else:
        show(claim)
        print(f"{minutes:.0f} min in all")


def show(claim: Claim) -> None:
    """The evidence as Markdown: what docs/claim.md holds."""
    settings = claim.settings
    seconds = statistics.median(row.train_seconds for row in claim.rows if row.share == 1)
    print(
        f"{settings.seeds} seeds, {claim.steps} steps each (median {seconds:.1f} s), "
        f"{settings.draws} draws of {settings.n:,} points, torch {torch.__version__}.\n"
    )
    table(
        ("range", "schedule", "ᾱ_T", "λ_1", "σ_1/α_1"),
        [
            (r, c.name, f"{last:.2g}", f"{first:.1f}", f"{math.exp(-first / 2):.2g}")
            for r in settings.ranges
            for c in contenders(r)
            for last, first in [(c.schedule.alpha_bar[T].item(), c.schedule.log_snr[1].item())]
        ],
    )
    found = {summary[:5]: summary for summary in claim.summaries()}
    parts = {one[:5]: one for one in claim.parts()}
    heads = ("schedule", "evaluations", "ratio", "exact", "discretisation", "start", "learning")
    for way in settings.ways:
        for range_ in settings.ranges:
            print(f"### {way}, {range_}\n")
            keys = [key for key in found if key[:2] == (way, range_) and key[3] == 1]
            table(
                heads,
                [
                    (
                        key[2],
                        str(key[4]),
                        interval(found[key].ratio),
                        f"{found[key].exact:.2f}",
                        *(part(one) for one in parts[key][5:8]),
                    )
                    for key in keys
                ],
            )
            names = [key[2] for key in keys if key[4] == T]
            table(
                ("schedule", *(f"{share:.0%}" for share in settings.shares), "ms a step"),
                [
                    (
                        name,
                        *(interval(found[way, range_, name, s, T].ratio) for s in settings.shares),
                        f"{pace(claim, way, range_, name):.2f}",
                    )
                    for name in names
                ],
            )
    table(
        ("question", "way", "range", "evaluations", "against", "answer", *GROWING),
        [
            (
                v.question if v.share == 1 else f"{v.question} (after {v.share:.0%})",
                v.way,
                v.range,
                str(v.nfe),
                v.against,
                f"**{v.answer}**",
                *(interval(pair.factor) for pair in v.pairs),
            )
            for v in claim.verdicts()
        ],
    )


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A Markdown table."""
    for row in (heads, ["---"] * len(heads), *rows):
        print("| " + " | ".join(row) + " |")
    print()


def pace(claim: Claim, way: str, range_: str, schedule: str) -> float:
    """Milliseconds a step of training, the median over seeds."""
    rows = [r for r in claim.rows if r[:3] == (way, range_, schedule) and r.share == 1]
    return statistics.median(1000 * row.train_seconds / row.steps for row in rows)


def interval(value: Interval) -> str:
    """A mean and its ends."""
    ends = "" if value.low is None else f" ({value.low:.2f}–{value.high:.2f})"
    return f"{value.mean:.2f}{ends}"


def part(value: Estimate) -> str:
    """A mean and its standard error."""
    error = "" if value.standard_error is None else f" ± {value.standard_error:.2f}"
    return f"{value.value:.2f}{error}"


if __name__ == "__main__":
    main()
