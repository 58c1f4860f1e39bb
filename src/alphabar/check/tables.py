"""Where a module or an object keeps its β_t: by name, by that of ᾱ_t, or by ᾱ_t = ∏(1 − β_s).

β_t = 1 − ᾱ_t/ᾱ_{t−1},    ᾱ_0 = 1
"""

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

_ALPHA_BAR_NAME = re.compile(
    r"_?(alphas?(_t)?_?(cum_?prod|cum|bars?|hats?|prod)|(cum_?prod|bars?)_?alphas?|a_?bars?)(_t)?",
    re.IGNORECASE,
)
_NOT_BETA = re.compile(
    r"sqrt|root|minus|log|tilde|hat|posterior|prev|cum|bar|alpha|start|end|min|max|prod",
    re.IGNORECASE,
)


class Table(NamedTuple):
    """β_1 … β_T, and the expression that they were found by."""

    name: str
    values: Tensor

    @property
    def words(self) -> str:
        """As a convention."""
        return f"β_t: {self.name}, T = {len(self.values)}"


def table_in(names: Mapping[str, object], owner: str = "") -> Table | None:
    """The β_t among named values: by their name, by that of ᾱ_t, or as ᾱ_t = ∏(1 − β) shows."""
    tables = {k: v for k, v in names.items() if not k.startswith("__") and is_data(v)}

    def rank(name: str) -> tuple[bool, bool, int]:
        bare = name.lower().strip("_")
        return bare != "betas", bare not in ("beta", "beta_t", "betas_t"), len(name)

    for name in sorted(tables, key=rank):
        if _is_beta(name):
            values = as_betas(tables[name])
            if values is not None:
                return Table(owner + name, values)
    for name in tables:
        if _ALPHA_BAR_NAME.fullmatch(name):
            bars = numbers(tables[name])
            if bars is not None and _falls(bars):
                before = torch.cat([torch.ones(1, dtype=bars.dtype), bars[:-1]])
                values = as_betas(1 - bars / before)
                if values is not None:
                    return Table(f"of {owner}{name}", values)
    return _by_product(tables, owner)


def table_of(owner: object) -> Table | None:
    """The β_t that an object keeps."""
    if owner is None or inspect.isclass(owner) or inspect.ismodule(owner):
        return None
    kept = dict(getattr(owner, "__dict__", {}))
    for inner in ("_buffers", "_parameters"):
        kept |= kept.get(inner, {})
    return table_in(kept, f"{type(owner).__name__}.")


def as_betas(value: object, any_order: bool = False) -> Tensor | None:
    """The value as β_1 … β_T; None where it is none. A leading β_0 = 0 is left out."""
    values = numbers(value)
    if values is None:
        return None
    if values[0] == 0 and len(values) > 2:
        values = values[1:]
    rises = any_order or bool((values.diff() >= -1e-9).all())
    return values if rises and bool(((values > 0) & (values <= 1)).all()) else None


def _by_product(tables: Mapping[str, object], owner: str) -> Table | None:
    known = {k: n for k, v in tables.items() if (n := numbers(v)) is not None}
    for name, values in known.items():
        if bool(((values > 0) & (values < 1)).all()):
            product = (1 - values).cumprod(0)
            for other, bars in known.items():
                close = bars.shape == product.shape and torch.allclose(
                    bars, product, rtol=1e-4, atol=1e-7
                )
                if close and other != name:
                    return Table(owner + name, values)
    return None


def _falls(values: Tensor) -> bool:
    return bool((values.diff() < 0).all() and (values >= 0).all() and (values <= 1).all())


def is_data(value: object) -> bool:
    """Whether this is a table."""
    return numbers(value) is not None


def numbers(value: object) -> Tensor | None:
    """A table of two numbers or more, in float64."""
    if isinstance(value, list | tuple):
        if not (len(value) > 1 and all(type(v) in (int, float) for v in value)):
            return None
    elif not isinstance(value, Tensor | np.ndarray):
        return None
    try:
        found = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        return None
    if found.ndim != 1 or len(found) < 2 or not found.is_floating_point():
        return None
    return found.detach().double().cpu()


def used(table_names: Sequence[str], names: Mapping[str, object]) -> Table | None:
    """Of several β_t among named values, that from which those of some other names come."""
    tables = {k: n for k, v in names.items() if (n := numbers(v)) is not None}
    known = [tables[k] for k in table_names if k in tables]
    best, most = None, 0
    for name in tables:
        beta = as_betas(tables[name]) if _is_beta(name) else None
        if beta is None:
            continue
        bars = (1 - beta).cumprod(0)
        forms = (beta, 1 - beta, bars, bars.sqrt(), (1 - bars).sqrt(), beta.sqrt(), 1 - bars)
        fitting = sum(
            any(f.shape == u.shape and torch.allclose(f, u, rtol=1e-3, atol=1e-6) for f in forms)
            for u in known
        )
        if fitting > most:
            best, most = Table(name, beta), fitting
    return best


def _is_beta(name: str) -> bool:
    return "beta" in name.lower() and not _NOT_BETA.search(name)
