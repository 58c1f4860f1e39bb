"""Checks of the terms of the variational bound, each against numbers that are known in float64:

    KL(q(x_T | x_0) ‖ N(0, I)) = ½·Σ (1 − ᾱ_T + ᾱ_T·x_0² − 1 − log(1 − ᾱ_T))
    KL(q(x_{t−1} | x_t, x_0) ‖ p) = ½·Σ (μ̃ − μ)²/β̃_t           where p has the variance β̃_t
    KL(N(m, v) ‖ N(n, w)) = ½·(v/w − 1 − log(v/w) + (m − n)²/w)
    −log N(x; m, v) = ½·(log 2π + log v + (x − m)²/v)

(Ho et al. 2020, eqs (5) and (8)). In nats or bits, summed or averaged over what an item is made of,
for each item or on average over them: all these are right.
"""

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from alphabar.check.catalogue import named
from alphabar.check.explain import Convention, Series, explain
from alphabar.check.formula import Formula, Process
from alphabar.check.report import Finding, Verdict
from alphabar.check.roles import Answering
from alphabar.check.stranger import T_FORMS, CannotCheck, Stranger, seeded

ITEMS, SHAPE = 12, (3,)
_D = 3
_CLOSE = 2e-3  # relatively, of a term
F = Formula.of
Wrong = tuple[str, ...]  # kind, evidence, in words, remedy


class Found(NamedTuple):
    """What a function was found to be."""

    law: str
    wrong: list[Wrong]
    measured: str
    expected: str
    notes: list[str]
    is_usual: bool  # nats, one for each item, summed


class Form(NamedTuple):
    """How a term is summed up, and in what unit."""

    name: str
    of: Callable[[Float64[Tensor, "n d"]], Tensor]
    is_usual: bool = False


def _forms() -> tuple[Form, ...]:
    sums: Mapping[str, Callable[[Any], Tensor]] = {
        "summed over an item": lambda k: k.sum(1),
        "averaged over an item": lambda k: k.mean(1),
        "for each number": lambda k: k,
        "summed over an item, averaged over the batch": lambda k: k.sum(1).mean(),
        "averaged over all": lambda k: k.mean(),
        "summed over all": lambda k: k.sum(),
    }
    found = []
    for unit, factor in (("nats", 1.0), ("bits", 1 / math.log(2))):
        for name, total in sums.items():

            def of(k: Any, factor: float = factor, total: Any = total) -> Tensor:
                return factor * total(k)

            found.append(
                Form(f"{unit}, {name}", of, unit == "nats" and total is sums["summed over an item"])
            )
    return tuple(found)


_FORMS = _forms()


def check_likelihood(
    function: Callable[..., object],
    betas: Tensor,
    predicts: str = "eps",
    given: Mapping[str, object] | None = None,
) -> Finding:
    """Whether a term of the bound, or a Gaussian's KL or log-density, is right.

    Args:
        function: of x_0; of (model, x_0, t, noise); of two Gaussians, each a mean and a
            log-variance, variance or standard deviation; or of x and one Gaussian.
        betas: β_t (T,).
        predicts: what the model predicts: eps, x_0 or v.
        given: what else it is to be handed, by name.

    Raises:
        ValueError: a prediction that means nothing.
    """
    begin = time.perf_counter()
    if predicts not in ("eps", "x_0", "v"):
        raise ValueError(f"predicts = {predicts!r}: choose eps, x_0, v")
    called_as = function.forward if isinstance(function, nn.Module) else function
    stranger = Stranger(called_as, given or {})
    process = Process(torch.as_tensor(betas, dtype=torch.float64))
    said = ""
    try:
        found, said = _found(stranger, process, predicts)
    except CannotCheck as error:
        found, said = None, str(error)
    if found is None:
        why = (
            f"{stranger.name} gave no term of a bound for x_0, for (model, x_0, t, noise), for "
            f"(mean, log_variance, mean, log_variance) or for (x, mean, log_variance): give "
            f"what else it takes by name, as in given={{'name': value}}; "
            f"{said or 'look at what it returns'}"
        )
        seconds = time.perf_counter() - begin
        return Finding(
            stranger.name, "likelihood", "unchecked", _PRIOR, "", "", why=why, seconds=seconds
        )
    verdict: Verdict = "bug" if found.wrong else "right" if found.is_usual else "equivalent"
    return Finding(
        stranger.name,
        "likelihood",
        verdict,
        found.law,
        found.measured,
        found.expected,
        tuple(named("likelihood", *one) for one in found.wrong),
        "; ".join(found.notes),
        seconds=time.perf_counter() - begin,
    )


def _found(stranger: Stranger, process: Process, predicts: str) -> tuple[Found | None, str]:
    """The first kind of term that the function can be called as."""
    parameters = stranger.parameters()
    least = sum(p.default is p.empty for p in parameters)
    said, wrong = "", None
    kinds: list[tuple[int, Callable[[], Found]]] = [
        (1, lambda: _prior(stranger, process)),
        (3, lambda: _density(stranger)),
        (4, lambda: _two(stranger)),
        (4, lambda: _term(stranger, process, predicts, 4)),
        (3, lambda: _term(stranger, process, predicts, 3)),
    ]
    for count, kind in kinds:
        if not least <= count <= len(parameters):
            continue
        try:
            with seeded(0), torch.no_grad():
                one = kind()
        except Exception as error:
            said = said or f"{type(error).__name__}: {error}"
            continue
        if not one.wrong:
            return one, said
        wrong = wrong or one
    return wrong, said


# --- comparing numbers


def _close(got: Tensor, meant: Tensor, least: float) -> bool:
    return got.shape == meant.shape and bool(
        ((got - meant).abs() <= _CLOSE * meant.abs() + least).all()
    )


def _compared(
    law: str,
    got: Mapping[str, Tensor],
    rivals: Mapping[str, Mapping[str, Tensor]],
    least: float,
    notes: list[str],
    right: tuple[str, ...],
) -> Found:
    """Which rival, in which form, has the numbers that came out: at every probe the same.

    Args:
        law: the law.
        got: at each probe, what came out.
        rivals: by name, at each probe the term (n, d); the first is the law.
        least: rounding, of one number.
        notes: what is known of how it was called.
        right: names of rivals that are right.
    """
    for name, terms in rivals.items():
        for form in _FORMS:
            meant = {probe: form.of(terms[probe]) for probe in got}
            if all(_close(_like(got[p], meant[p]), meant[p], 4 * least * _D) for p in got):
                some = next(iter(got))
                measured = f"{_first(got[some])}, which is {name}"
                law_says = form.of(next(iter(rivals.values()))[some])
                expected = f"{_first(law_says)} at {some}"
                every = [*notes, form.name]
                if name in right:
                    return Found(
                        law, [], measured, expected, every, form.is_usual and name == right[0]
                    )
                return Found(law, [_wrong(name, measured)], measured, expected, every, False)
    form = next((f for f in _FORMS if _fits(f, got, rivals)), _FORMS[0])
    some = max(got, key=lambda p: _off(got[p], form.of(next(iter(rivals.values()))[p])))
    meant_here = form.of(next(iter(rivals.values()))[some])
    if not all(g.isfinite().all() for g in got.values()):
        kind, words = "not finite", "it is NaN or infinite"
    else:
        kind, words = "another value", "it is another number than the law's"
    measured, expected = f"{_first(got[some])} at {some}", f"{_first(meant_here)} at {some}"
    remedy = "compare it with torch.distributions.kl_divergence"
    return Found(law, [(kind, measured, words, remedy)], measured, expected, notes, False)


def _like(got: Tensor, meant: Tensor) -> Tensor:
    got = got.double()
    if (
        got.numel() == meant.numel()
        and got.ndim != meant.ndim
        and 1 in (*got.shape, *meant.shape, 1)
    ):
        return got.reshape(meant.shape) if got.numel() != _D * ITEMS or meant.ndim == 2 else got
    return got


def _fits(
    form: Form, got: Mapping[str, Tensor], rivals: Mapping[str, Mapping[str, Tensor]]
) -> bool:
    terms = next(iter(rivals.values()))
    return all(form.of(terms[p]).shape == _like(g, form.of(terms[p])).shape for p, g in got.items())


def _off(got: Tensor, meant: Tensor) -> float:
    got = _like(got, meant)
    if got.shape != meant.shape or not got.isfinite().all():
        return math.inf
    return ((got - meant).abs() / (meant.abs() + 1e-9)).max().item()


def _first(values: Tensor) -> str:
    return f"{values.double().flatten()[0].item():.6g}"


def _wrong(name: str, measured: str) -> Wrong:
    return (name, measured, f"it is {name}", "compare it with torch.distributions.kl_divergence")


# --- the end of the process


_PRIOR = "KL(q(x_T | x_0) ‖ N(0, I)) = ½·Σ (ᾱ_T·x_0² − ᾱ_T − log(1 − ᾱ_T))"


def _prior(stranger: Stranger, process: Process) -> Found:
    generator = torch.Generator().manual_seed(0)
    probes = {
        "x_0 = 0": torch.zeros(ITEMS, *SHAPE),
        "x_0 of size 1": torch.randn((ITEMS, *SHAPE), generator=generator),
        "x_0 of size 100": 100 * torch.randn((ITEMS, *SHAPE), generator=generator),
    }
    got = {name: stranger(x_0)[0].double() for name, x_0 in probes.items()}
    T = torch.tensor([process.T])
    a = process.alpha_bar(T)
    ends: dict[str, tuple[Tensor, Tensor]] = {}  # mean by x_0, variance
    before = process.alpha_bar(T - 1)
    ends["the law"] = a.sqrt(), 1 - a
    ends["of ᾱ_{T−1}"] = before.sqrt(), 1 - before
    ends["of ᾱ_T where √ᾱ_T is meant"] = a, 1 - a
    ends["of the standard deviation where the variance is meant"] = a.sqrt(), (1 - a).sqrt()
    ends["of the variance squared"] = a.sqrt(), (1 - a).square()
    ends["of mean and noise exchanged"] = (1 - a).sqrt(), a
    rivals = {}
    one = torch.ones(())
    for name, (mean, variance) in ends.items():
        for more, rule in _KL_RULES.items():
            label = name if more == "the law" else more if name == "the law" else f"{name}, {more}"
            rivals[label] = {
                p: rule(mean * x.double().flatten(1), variance, 0 * x.double().flatten(1), one)
                for p, x in probes.items()
            }
    # ᾱ_T in single precision, as a product of T numbers.
    least = 3e-7 * (1 + 2 * float(a))
    return _compared(_PRIOR, got, rivals, least, ["called with (x_0)"], ("the law",))


def _kl(m: Tensor, v: Tensor, n: Tensor, w: Tensor) -> Tensor:
    return kl_divergence(Normal(m, v.sqrt()), Normal(n, w.sqrt())).double()


_Rule = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
_KL_RULES: Mapping[str, _Rule] = {
    "the law": lambda m, v, n, w: _kl(m, v, n, w),
    "without the half": lambda m, v, n, w: 2 * _kl(m, v, n, w),
    "a quarter in place of the half": lambda m, v, n, w: _kl(m, v, n, w) / 2,
    "with its sign flipped": lambda m, v, n, w: -_kl(m, v, n, w),
    "with p and q exchanged": lambda m, v, n, w: _kl(n, w, m, v),
    "with the sign of the logarithm flipped": lambda m, v, n, w: _kl(m, v, n, w) + (v / w).log(),
    "without the logarithm": lambda m, v, n, w: _kl(m, v, n, w) + 0.5 * (v / w).log(),
    "without the −1": lambda m, v, n, w: _kl(m, v, n, w) + 0.5,
    "with +1 for −1": lambda m, v, n, w: _kl(m, v, n, w) + 1,
    "without the difference of the means": lambda m, v, n, w: _kl(m, v, m, w),
    "with a difference of the means that is not squared": lambda m, v, n, w: (
        _kl(m, v, m, w) + 0.5 * (m - n) / w
    ),
    "with the size of the difference of the means for its square": lambda m, v, n, w: (
        _kl(m, v, m, w) + 0.5 * (m - n).abs() / w
    ),
    "with the difference of the means not divided by the variance": lambda m, v, n, w: (
        _kl(m, v, m, w) + 0.5 * (m - n).square()
    ),
    "with the difference of the means divided by q's variance": lambda m, v, n, w: (
        _kl(m, v, m, w) + 0.5 * (m - n).square() / v
    ),
    "with the difference of the means divided by the standard deviation": lambda m, v, n, w: (
        _kl(m, v, m, w) + 0.5 * (m - n).square() / w.sqrt()
    ),
    "with the difference of the means multiplied by the variance": lambda m, v, n, w: (
        _kl(m, v, m, w) + 0.5 * (m - n).square() * w
    ),
    "with the sign of the means' part flipped": lambda m, v, n, w: (
        _kl(m, v, m, w) - 0.5 * (m - n).square() / w
    ),
    "with the sum of the means": lambda m, v, n, w: _kl(m, v, -n, w),
    "with the ratio of the variances upside down": lambda m, v, n, w: (
        _kl(m, v, n, w) + 0.5 * (w / v - v / w)
    ),
    "without the ratio of the variances": lambda m, v, n, w: _kl(m, v, n, w) - 0.5 * v / w,
    "with the logarithm halved": lambda m, v, n, w: _kl(m, v, n, w) + 0.25 * (v / w).log(),
    "with the logarithm doubled": lambda m, v, n, w: _kl(m, v, n, w) - 0.5 * (v / w).log(),
}


# --- Gaussians


_TWO = "KL(N(m, v) ‖ N(n, w)) = ½·(v/w − 1 − log(v/w) + (m − n)²/w)"
_SPREADS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "log-variances": torch.log,
    "variances": lambda v: v,
    "standard deviations": torch.sqrt,
    "log standard deviations": lambda v: 0.5 * v.log(),
}


def _gaussians(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn((ITEMS, *SHAPE), generator=generator)
    return mean, 0.3 + 2 * torch.rand((ITEMS, *SHAPE), generator=generator)


def _two(stranger: Stranger) -> Found:
    (m, v), (n, w) = _gaussians(0), _gaussians(1)
    rivals = {
        name: {"two Gaussians": rule(*(x.double() for x in (m, v, n, w)))}
        for name, rule in _KL_RULES.items()
    }
    tried: list[Found] = []
    for spread, how in _SPREADS.items():
        for order in ("(mean, spread, mean, spread)", "(mean, mean, spread, spread)"):
            a, b = how(v), how(w)
            values = (m, a, n, b) if order.startswith("(mean, s") else (m, n, a, b)
            got = {"two Gaussians": _one(stranger(*values))}
            notes = [f"called with {order}, {spread}"]
            tried.append(_compared(_TWO, got, rivals, 1e-5, notes, ("the law",)))
    return _best(tried)


_ONE = "log N(x; m, v) = −½·(log 2π + log v + (x − m)²/v)"


def _density(stranger: Stranger) -> Found:
    (m, v), (x, _) = _gaussians(0), _gaussians(2)
    square = (x - m).double().square() / v.double()
    log = v.double().log()
    two_pi = math.log(2 * math.pi)
    normal: Any = Normal(m.double(), v.double().sqrt())
    rule: Tensor = normal.log_prob(x.double())
    terms = {
        "the law": rule,
        "its negative": -rule,
        "without the half": 2 * rule,
        "without 2π": rule + 0.5 * two_pi,
        "without 2π, negative": -rule - 0.5 * two_pi,
        "without the half before the square": rule - 0.5 * square,
        "without the half before the logarithm": rule - 0.5 * log,
        "with the sign of the logarithm flipped": rule + log,
        "without the logarithm": rule + 0.5 * log,
        "with the sign of the square flipped": rule + square,
        "with the square not divided by the variance": rule + 0.5 * square * (1 - v.double()),
        "with the square divided by the standard deviation": (
            rule + 0.5 * square * (1 - v.double().sqrt())
        ),
        "with the sign of 2π flipped": rule + two_pi,
    }
    rivals = {name: {"a Gaussian": term} for name, term in terms.items()}
    tried: list[Found] = []
    for spread, how in _SPREADS.items():
        values = {"x": x, "mean": m, spread: how(v)}
        for order in itertools.permutations(values):
            got = {"a Gaussian": _one(stranger(*(values[name] for name in order)))}
            notes = [f"called with ({', '.join(order)})"]
            tried.append(_compared(_ONE, got, rivals, 1e-5, notes, ("the law", "its negative")))
    return _best(tried)


def _one(results: list[Tensor]) -> Tensor:
    return results[0].double()


def _best(tried: list[Found]) -> Found:
    """What is right in some way; else what is explained; else the first."""
    ranks = {"another value": 1, "not finite": 2}
    return min(tried, key=lambda f: (bool(f.wrong), ranks.get(f.wrong[0][0], 0) if f.wrong else 0))


# --- a step of the process


_TERM = "KL(q(x_{t−1} | x_t, x_0) ‖ p) = ½·Σ (μ̃ − μ)²/β̃_t"
_ERROR = "Σ(answer − true)²"


def _term(stranger: Stranger, process: Process, predicts: str, count: int) -> Found:
    """By its dependence on the model's error: A_t·Σ(error²) + C_t, at some t."""
    order = _order(stranger, process, predicts, count)
    T = process.T
    knows = _coefficients(stranger, order, process, predicts, T, 1) is not None
    base = 1 if knows else 0
    # At t = 1 it is the decoder's term, or none.
    some = sorted({t for t in (2, 3, T // 4, T // 2, 3 * T // 4, T - 1, T) if 2 <= t <= T})
    measured: dict[int, tuple[float, float, float, Form]] = {}
    for t in some:
        one = _coefficients(stranger, order, process, predicts, t + base - 1, base)
        if one is not None:
            measured[t] = one
    if not measured:
        raise CannotCheck("it gave no number for any t > 1")
    form = next(iter(measured.values()))[3]
    broken = [t for t, one in measured.items() if not math.isfinite(one[0])]
    notes = [f"t counts from {base}", f"called with ({', '.join(order)})", form.name]
    if broken:
        words = f"NaN or infinity at t = {', '.join(map(str, broken))}"
        return Found(_TERM, [("not finite", words, words, "")], words, "a number", notes, False)
    index = torch.tensor(list(measured))
    slope = torch.tensor([one[0] for one in measured.values()], dtype=torch.float64)
    rest = torch.tensor([one[1] for one in measured.values()], dtype=torch.float64)
    left = max(one[2] for one in measured.values())
    return _explained(process, predicts, index, slope, rest, left, form, notes)


def _explained(
    process: Process,
    predicts: str,
    index: Tensor,
    slope: Float64[Tensor, " n"],
    rest: Float64[Tensor, " n"],
    left: float,
    form: Form,
    notes: list[str],
) -> Found:
    """Which formula gives the slope at every t, and whether what is added is right."""
    if left > 0.02:
        words = "it is no sum of squares of the model's error"
        return Found(_TERM, [("no square", words, words, "")], words, _TERM, notes, False)
    ratio = torch.tensor(
        [
            [math.exp(process.log(b, torch.tensor([t])).item()) for b in _BASES]
            for t in index.tolist()
        ],
        dtype=torch.float64,
    )
    smaller = ratio[:, 1] / ratio[:, 0]  # (1 − ᾱ_{t−1})/(1 − ᾱ_t) = β̃_t/β_t
    added = {
        "β̃": torch.zeros_like(smaller),
        "β": 0.5 * (smaller - 1 - smaller.log()),
    }
    ones = torch.ones(ITEMS, _D, dtype=torch.float64)
    units = [f for f in _FORMS if f.of(ones).shape == form.of(ones).shape]
    tried: list[tuple[tuple[bool, float, bool], Found]] = []
    for name, formula in _slopes(predicts).items():
        for unit in units:
            whole = unit.of(ones).flatten()[0].item()  # of 1 for each number
            one = whole / form.of(ones).flatten()[0].item()
            scaled = slope / one
            errors = 1e-3 * scaled.abs() / 6
            found = explain(
                {_ERROR: Series(scaled, errors)},
                index,
                (Convention(name, {_ERROR: formula}),),
                (1,),
                process,
                eps=2.0**-22,
            )
            if not found:
                continue
            wrong: list[Wrong] = []
            for part in found[0].wrong:
                assert part.found is not None
                wrong.append(
                    (
                        f"error: {part.found.kind}",
                        f"½·… becomes {part.found.formula}, to {part.misfit:.1g}",
                        f"{part.found.says} in what multiplies the squared error",
                        f"multiply the squared error by {part.right}",
                    )
                )
            meant = whole * added[name]
            where = (rest - meant).abs() > 5e-3 * meant + 5e-3 * one
            if not wrong and where.any():
                i = int(where.to(torch.uint8).argmax())
                wrong.append(
                    (
                        "another value without error",
                        f"at t = {int(index[i])}, where the model is right, it is "
                        f"{rest[i]:.5g} and not {meant[i]:.5g}",
                        "where the model is right, the term is not what the variances say",
                        "½·(ratio − 1 − log ratio), of the variance of q over that of p",
                    )
                )
            text = found[0].wrong[0].found.formula if found[0].wrong else formula  # type: ignore[union-attr]
            said = Found(
                _TERM,
                wrong,
                f"{text}·{_ERROR}",
                f"{formula}·{_ERROR}",
                [*notes[:-1], unit.name, f"p with variance {name}"],
                unit.is_usual,
            )
            tried.append(((bool(wrong), found[0].cost, not unit.is_usual), said))
    if tried:
        return min(tried, key=lambda one: one[0])[1]
    i = len(index) // 2
    words = f"at t = {int(index[i])} the squared error is multiplied by {slope[i]:.5g}"
    usual = _slopes(predicts)["β̃"].at(process, index[i : i + 1]).item()
    wrong_value: Wrong = ("another value", words, "it is another number than the law's", "")
    return Found(_TERM, [wrong_value], words, f"{usual:.5g}", notes, False)


_BASES = tuple(b for b, _ in F(noise=1, before={"noise": 1}).powers)[::-1]


def _slopes(predicts: str) -> Mapping[str, Formula]:
    """What multiplies the squared error of the model's answer, for p with either variance."""
    of_x_0 = {  # ½·(√ᾱ_{t−1}·β_t/(1 − ᾱ_t))²/variance
        "β̃": {"beta": 1.0, "noise": -1.0, "abar": 0.0, "before": {"abar": 1.0, "noise": -1.0}},
        "β": {"beta": 1.0, "noise": -2.0, "abar": 0.0, "before": {"abar": 1.0}},
    }
    more = {"x_0": (0, 0), "v": (1, 0), "eps": (1, -1)}[predicts]
    found = {}
    for name, powers in of_x_0.items():
        before: Any = powers["before"]
        beta, noise = float(powers["beta"]), float(powers["noise"]) + more[0]  # type: ignore[arg-type]
        if predicts == "eps":  # ᾱ_{t−1}/ᾱ_t = 1/(1 − β_t)
            rest = {k: p for k, p in before.items() if k != "abar"}
            found[name] = F(0.5, beta=beta, noise=noise, alpha=-1.0, before=rest)
        else:
            found[name] = F(0.5, beta=beta, noise=noise, before=before)
    return found


def _orders(count: int) -> Iterator[tuple[str, ...]]:
    names = ("model", "x_0", "t", "noise")[:count]
    yield names
    yield from (order for order in itertools.permutations(names) if order != names)


def _order(stranger: Stranger, process: Process, predicts: str, count: int) -> tuple[str, ...]:
    said = ""
    for order in _orders(count):
        try:
            _run(stranger, order, process, predicts, max(2, process.T // 2), 1, 0.1)
        except Exception as error:
            said = said or f"{type(error).__name__}: {error}"
            continue
        return order
    raise CannotCheck(said)


def _coefficients(
    stranger: Stranger, order: tuple[str, ...], process: Process, predicts: str, i: int, base: int
) -> tuple[float, float, float, Form] | None:
    """Slope, rest and misfit of the term in the squared error; None if it knows no such t."""
    sizes, results = (0.0, 0.3, 1.0, 2.0), []
    error: Tensor | None = None
    try:
        for size in sizes:
            value, error = _run(stranger, order, process, predicts, i, base, size)
            results.append(value)
    except Exception:
        return None
    assert error is not None
    full = error.double().flatten(1).square()
    # A form with the shape that came back.
    form = next(
        (f for f in _FORMS if f.of(full).shape == _like(results[0], f.of(full)).shape), _FORMS[0]
    )
    got = torch.stack([r.double().reshape(-1) for r in results])
    if not got.isfinite().all():
        return math.nan, math.nan, 0.0, form
    weight = form.of(full).reshape(-1)
    x = torch.stack([size**2 * weight for size in sizes]).reshape(-1)
    matrix = torch.stack([x, torch.ones_like(x)], 1)
    found = torch.linalg.lstsq(matrix, got.reshape(-1, 1)).solution[:, 0]
    left = (matrix @ found - got.reshape(-1)).square().mean().sqrt()
    share = (left / got.square().mean().sqrt().clamp(min=1e-12)).item()
    return found[0].item(), found[1].item(), share, form


def _run(
    stranger: Stranger,
    order: tuple[str, ...],
    process: Process,
    predicts: str,
    i: int,
    base: int,
    size: float,
) -> tuple[Tensor, Tensor]:
    """The term at a step, with a model that is off by `size` times a random error."""
    t = torch.tensor([i + 1 - base])
    generator = torch.Generator().manual_seed(0)
    x_0, noise, error = (
        torch.randn((ITEMS, *SHAPE), generator=generator, dtype=torch.float64) for _ in range(3)
    )
    a, b = (f.at(process, t) for f in (F(abar=0.5), F(noise=0.5)))
    true = {"eps": noise, "x_0": x_0, "v": a * noise - b * x_0}[predicts]
    model = Answering((true + size * error).float())
    values: dict[str, Any] = {
        "model": model,
        "x_0": x_0.float(),
        "noise": noise.float(),
        "t": torch.full((ITEMS,), i),
    }
    for form in T_FORMS.values():
        handed = [form(values[n]) if n == "t" else values[n] for n in order]
        try:
            result = stranger(*handed)[0]
        except Exception as error_:
            last = error_
            continue
        if not model.asked:
            raise CannotCheck("the model was not asked")
        return result, error
    raise last
