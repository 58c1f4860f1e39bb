"""The steps that a sampler visits, of the T that there are: T − 1 > … > 0, or T > … > 1."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from alphabar.check.catalogue import named
from alphabar.check.report import Finding, Verdict
from alphabar.check.schedule.common import STEPS, WORST_FIRST, bug, reading
from alphabar.check.stranger import CannotCheck, Stranger, tensors_of


def check_timesteps(
    values: object, beta: Float64[Tensor, " T"] | None, steps: int | None
) -> Finding:
    """The steps that are visited, or those that a function of their number makes."""
    if beta is None:
        raise CannotCheck("which steps there are follows from T: give betas=my_betas")
    T = len(beta)
    if not callable(values) or isinstance(values, Tensor):
        return _visited(_times_of(values, steps), T, steps)
    stranger = Stranger(values)
    asked = [n for n in sorted({*STEPS, T // 2, T}) if 1 <= n <= T]
    found: list[tuple[int, Finding]] = []
    said = ""
    for n in asked:
        try:
            found.append((n, _visited(_times_of(stranger(n), n), T, n)))
        except Exception as error:
            said = said or f"{type(error).__name__}: {error}"
    if not found:
        raise CannotCheck(f"it was called with a number of steps, such as 50, and said: {said}")
    more = [one for one in found if one[0] > 1] or found
    n, worst = min(more, key=lambda one: WORST_FIRST.index(one[1].verdict))
    bugs = {d.id: d for _, one in more for d in one.diagnoses}
    if worst.verdict in ("equivalent", "right") and found[0][1].verdict == "bug":
        # A line of one point has one end: which of the two is taken is seldom thought of.
        why = f"of a single step it makes {found[0][1].measured}: take two or more"
        return replace(worst, verdict="fragile", why=why)
    return replace(
        worst, measured=f"of {n} steps: {worst.measured}", diagnoses=tuple(bugs.values())
    )


def _times_of(values: object, n: int | None) -> Float64[Tensor, " n"]:
    """The timesteps among what came back: the list that is nearest to n long."""
    found = [t for t in tensors_of(values) if t.ndim == 1 and len(t) and not t.is_complex()]
    if isinstance(values, Sequence) and all(isinstance(v, int | float | np.number) for v in values):
        found = [torch.tensor([float(v) for v in values], dtype=torch.float64)]
    elif isinstance(values, range):
        found = [torch.tensor(list(values), dtype=torch.float64)]
    if not found:
        each = [t.reshape(1).double() for t in tensors_of(values) if t.numel() == 1]
        found = [torch.cat([torch.empty(0, dtype=torch.float64), *each])]
    times = min(reversed(found), key=lambda t: abs(len(t) - (n or len(t))))
    return times.detach().double().cpu()


def _visited(times: Float64[Tensor, " n"], T: int, steps: int | None) -> Finding:
    """t from the noisiest level down to near clean data, each once."""
    law = f"from T − 1 = {T - 1} (or T) down to near 0, each t once"
    if not len(times):
        return bug(law, "no timesteps", "one or more", "length")
    if not times.isfinite().all():
        return bug(law, "NaN or infinity", "whole numbers", "not finite")
    rising = len(times) > 1 and bool(times[0] < times[-1])
    conventions = ["in rising order"] if rising else []
    down = times.flip(0) if rising else times
    # Heun's method asks twice at each level but the first, or but the last.
    doubled = steps is not None and len(down) == 2 * steps - 1 and steps > 1
    if doubled and len(_distinct(down)) == steps:
        down = _distinct(down).flip(0)
        conventions.append("each twice, for a second stage")
    counts_from = 1 if down[0] == T else 0
    if counts_from:
        conventions.append("t counts from 1")
    if steps is not None and len(down) == steps + 1 and down[-1] == counts_from - 1:
        down = down[:-1]
        conventions.append("clean data last")
    if (down != down.round()).any():
        conventions.append("between whole numbers")
    first, last = ", ".join(f"{v:g}" for v in down[:3]), f"{down[-1]:g}"
    measured = f"{first}, …, {last} ({len(down)} steps)" if len(down) > 3 else f"{down.tolist()}"
    if down.min() < 0 or down.max() > T:
        kind = "timesteps outside"
        return bug(law, measured, f"from 0 to {T - 1}, or from 1 to {T}", kind)
    repeated = down[1:] == down[:-1]
    if repeated.any() or len(_distinct(down)) < len(down):
        most = max(down.tolist(), key=down.tolist().count)
        words = f"t = {most:g} comes {down.tolist().count(most)} times"
        diagnosis = named("schedule", "duplicate timesteps", words)
        return replace(bug(law, f"{words}: {measured}", "each once", ""), diagnoses=(diagnosis,))
    if (down[1:] > down[:-1]).any():
        i = int((down[1:] > down[:-1]).nonzero()[0])
        return bug(law, f"{down[i]:g}, then {down[i + 1]:g}", "less at each step", "not falling")
    noisiest = T - 1 + counts_from
    late = down[0] < noisiest - 0.5
    widest = float((down[:-1] - down[1:]).max()) if len(down) > 1 else float(T)
    gap = max(widest, T / len(down)) + 1
    early = down[-1] - counts_from > gap
    diagnoses = []
    if late:
        words = f"the first is t = {down[0]:g}, and the noisiest {noisiest}"
        diagnoses.append(named("schedule", "late start", words))
    if early:
        words = f"the last is t = {last}, and the steps are {gap - 1:g} wide at most"
        name = "the steps end before clean data"
        diagnoses.append(reading("early end", name, words, "visit the least noisy levels too"))
    off = 0 if steps is None else len(down) - steps
    whole = steps is not None and T % steps == 0
    if off and whole and not late:
        words = f"{len(down)} steps, where {steps} are asked for"
        name = "there are more steps, or fewer, than asked for"
        diagnoses.append(reading("count", name, words, "make as many as asked for"))
    expected = f"{noisiest}, …" + (f" ({steps} steps)" if steps is not None else "")
    if diagnoses:
        return Finding("", "schedule", "bug", law, measured, expected, tuple(diagnoses))
    verdict: Verdict = "equivalent" if conventions else "right"
    why = ""
    if off:
        verdict, why = (
            "fragile",
            f"asked for {steps} steps, which do not divide {T}, it makes {len(down)}",
        )
    return Finding(
        "", "schedule", verdict, law, measured, expected, (), "; ".join(conventions), why
    )


def _distinct(times: Float64[Tensor, " n"]) -> Float64[Tensor, " m"]:
    """Each t once, rising."""
    return torch.tensor(sorted({*times.tolist()}), dtype=torch.float64)
