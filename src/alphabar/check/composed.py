"""A step towards the data in its parts, and what it makes when one of them is taken elsewhere.

    x̂_0 = (x − σ_u·ε̂)/α_u,    ε̂ = (x − α_w·x̂_0)/σ_w,    x_s = α_v·x̂_0 + σ_v·ε̂        (DDIM)

All of u, w are t and v is s. A step that takes one of these at another level is still a sum of x_0
and ε, but its coefficients are no product of powers, which is what `explain` tries.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

Numbers = Float64[Tensor, " n"]


class Place(NamedTuple):
    """α and σ at one place of each step: at t, at s, or one level beside."""

    alpha: Numbers
    sigma: Numbers


class Composed(NamedTuple):
    """What a step may do, and what it makes of x_0 and of ε."""

    kind: str
    words: str
    x_0: Numbers
    eps: Numbers
    cost: float


PREVIOUS = {"t": "t−1", "s": "s−1"}


def composed(predicts: str, places: Mapping[str, Place]) -> Iterator[Composed]:
    """Every way to take the parts of a step at these places; `t` and `s` must be among them."""
    here = places["t"]
    x_0: Sequence[Numbers]
    eps: Sequence[Numbers]
    x = (here.alpha, here.sigma)  # of x_0 and ε
    zero, one = torch.zeros_like(here.alpha), torch.ones_like(here.alpha)
    said = {
        "eps": (zero, one),
        "x_0": (one, zero),
        "v": (-here.sigma, here.alpha),
    }[predicts]
    names = list(places)
    for u, w, v in itertools.product(names, (*names, "answer"), names):
        if (u, w, v) == ("t", "t", "s"):
            continue
        at = places[u]
        if predicts == "x_0":
            if u != "t":
                continue
            x_0 = said
        elif predicts == "eps":
            x_0 = tuple((a - at.sigma * o) / at.alpha for a, o in zip(x, said, strict=True))
        else:
            x_0 = tuple(at.alpha * a - at.sigma * o for a, o in zip(x, said, strict=True))
        if w == "answer":
            if predicts == "eps" and u == "t":
                continue  # it is ε
            eps = said
        else:
            by = places[w]
            eps = tuple((a - by.alpha * c) / by.sigma for a, c in zip(x, x_0, strict=True))
        to = places[v]
        made = [to.alpha * c + to.sigma * e for c, e in zip(x_0, eps, strict=True)]
        kind, words = _said(u, w, v, predicts)
        cost = float((u != "t") + (w not in ("t", u)) + (v != "s"))
        yield Composed(kind, words, made[0], made[1], cost)


def _said(u: str, w: str, v: str, predicts: str) -> tuple[str, str]:
    """What that is called."""
    if w == "answer" and predicts != "eps":
        return "takes it for eps", "the answer stands for ε too"
    parts = []
    if u != "t":
        parts.append(f"x̂_0 is taken with ᾱ_{u}")
    if w not in ("t", "answer"):
        parts.append(f"ε̂ with ᾱ_{w}")
    if v != "s":
        parts.append(f"the step leads to ᾱ_{v}")
    wrong = {(name, right) for name, right in ((u, "t"), (w, "t"), (v, "s")) if name != right}
    wrong = {pair for pair in wrong if pair[0] != "answer"}
    before = all(name in (PREVIOUS[right], "s" if right == "t" else "") for name, right in wrong)
    return ("uses ᾱ_prev" if before and wrong else "; ".join(parts)), ", ".join(parts)
