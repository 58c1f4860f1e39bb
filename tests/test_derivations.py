r"""The proofs of the report, read back from the page's own TeX and proven by sympy.

`Reader` turns a displayed side into a sympy expression (sympy's own LaTeX reader must agree), the
symbols take the values that `MEANING` gives them, and the sides must be equal, symbolically. What
the symbols mean is computed by other routes than the proofs take: the posterior from the
covariances of (x_{t-1}, x_t), the KL divergence by integration. The mutation tests then change
one sign, subscript, root, square or number at a time: every such mutant must be refused.

The free quantities are r = √(1-β_t) and a = √ᾱ_{t-1} in (0, 1), so β_t = 1-r² and ᾱ_t = r²a².
"""

import re
import subprocess
import sys
import tomllib
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib.resources import files
from itertools import pairwise
from typing import Any

import pytest
import sympy as sp
from sympy.parsing.latex import parse_latex

from alphabar.derivations import FORMULAS, derivations

LANGUAGES = ["en", "ko"]
CHECKED = [(d, k) for d in FORMULAS for k, f in FORMULAS[d].items() if f.checked]
STATED = [(d, k) for d in FORMULAS for k, f in FORMULAS[d].items() if not f.checked]

# At ᾱ_0 = 1 some wrong lines are true: √1 = 1, and the sign in front of 0 does not matter.
EDGES = {("posterior", "first_variance"), ("posterior", "first_mean")}


r, a, r_1, s_back = sp.symbols("r a r_1 s_back", positive=True)
x_0, x_s, x_t, x, d = sp.symbols("x_0 x_s x_t x d", real=True)
eps, eps_bar, eps_t, eps_hat = sp.symbols("eps eps_bar eps_t eps_hat", real=True)
mu_q, mu_p = sp.symbols("mu_q mu_p", real=True)
sigma_q, sigma_p = sp.symbols("sigma_q sigma_p", positive=True)
# Data of three points, of any weights: a law is a limit of such.
CLEAN = sp.symbols("u_1:4", real=True)
WEIGHTS = sp.symbols("p_1:4", positive=True)


def density(point: sp.Expr, mean: sp.Expr, var: sp.Expr) -> sp.Expr:
    return sp.exp(-((point - mean) ** 2) / (2 * var)) / sp.sqrt(2 * sp.pi * var)


def log_density(point: sp.Expr, mean: sp.Expr, var: sp.Expr) -> sp.Expr:
    return -sp.log(2 * sp.pi * var) / 2 - (point - mean) ** 2 / (2 * var)


def integral(f: sp.Expr) -> sp.Expr:
    return sp.integrate(f, (x, -sp.oo, sp.oo))


LOG_RATIO = sp.expand_log(log_density(x, mu_q, sigma_q**2) - log_density(x, mu_p, sigma_p**2))


@cache
def under_q(f: sp.Expr) -> sp.Expr:
    """E_q[f(x)] for q = N(mu_q, sigma_q²), by integration around the mean."""
    shifted = sp.expand(f.subs(x, x + mu_q))
    return sp.simplify(integral(shifted * density(x, sp.S.Zero, sigma_q**2)))


@cache
def kl_by_integration() -> sp.Expr:
    return under_q(LOG_RATIO)


def over_data(f: sp.Expr) -> sp.Expr:
    """∫ f(x_0) p(x_0) dx_0 for data of three points."""
    return sum(w * f.subs(x_0, u) for w, u in zip(WEIGHTS, CLEAN, strict=True))


def regression(past: sp.Expr, root: sp.Expr, seen: sp.Expr, x_0: sp.Expr) -> tuple[sp.Expr, ...]:
    """Mean and variance of x_{t-1} given x_t = seen and x_0, from the joint covariance.

    `past` is ᾱ_{t-1} and `root` is √(1-β_t). Given x_0, x_{t-1} has variance 1-past and x_t =
    root·x_{t-1} + noise, so their covariance is root·(1-past).
    """
    var_t = 1 - root**2 * past
    gain = root * (1 - past) / var_t
    mean = sp.sqrt(past) * x_0 + gain * (seen - root * sp.sqrt(past) * x_0)
    return mean, (1 - past) - gain * root * (1 - past)


def meaning(derivation: str) -> dict[str, sp.Expr]:
    """Return what each symbol of a derivation stands for, keyed by its TeX."""
    alpha_bar, noise = r**2 * a**2, sp.sqrt(1 - r**2 * a**2)
    jump = r * a * x_0 + noise * eps
    table: dict[str, sp.Expr] = {
        r"\beta_t": 1 - r**2,
        r"\beta_1": 1 - r_1**2,
        r"\bar\alpha_t": alpha_bar,
        r"\bar\alpha_{t-1}": a**2,
        r"\bar\alpha_1": r_1**2,
        r"\bar\alpha_0": sp.S.One,
        "x_0": x_0,
        "x_1": r_1 * x_0 + sp.sqrt(1 - r_1**2) * eps,
        r"\epsilon": eps,
    }
    if derivation == "closed_form":
        table[r"\epsilon_t"], table[r"\bar\epsilon_{t-1}"] = eps_t, eps_bar
        table["x_{t-1}"] = a * x_0 + sp.sqrt(1 - a**2) * eps_bar
        table["x_t"] = r * table["x_{t-1}"] + sp.sqrt(1 - r**2) * eps_t
        table["a"], table["b"] = sp.symbols("a_ b_", positive=True)
    if derivation == "posterior":
        table["x_t"], table["x_{t-1}"] = x_t, x_s
        table[r"\tilde\mu_t"], table[r"\tilde\beta_t"] = regression(a**2, r, x_t, x_0)
        table[r"\tilde\mu_1"], table[r"\tilde\beta_1"] = regression(
            sp.S.One, r_1, table["x_1"], x_0
        )
        # From the densities, not from the two expanded lines of the proof.
        bayes = log_density(x_t, r * x_s, 1 - r**2) + log_density(x_s, a * x_0, 1 - a**2)
        table["A"], minus_2b, _ = sp.Poly(-2 * bayes, x_s).all_coeffs()
        table["B"] = -minus_2b / 2
    if derivation == "tweedie":
        kernel = density(x_t, r * a * x_0, 1 - alpha_bar)
        kernels = [kernel.subs(x_0, u) for u in CLEAN]
        p_t = over_data(kernel)
        # Bayes by counting: each point's share of the density at x_t.
        shares = [w * k / p_t for w, k in zip(WEIGHTS, kernels, strict=True)]
        table |= {
            "x_t": x_t,
            r"q(x_t\mid x_0)": kernel,
            r"\nabla q(x_t\mid x_0)": sp.diff(kernel, x_t),
            "p_t(x_t)": p_t,
            r"\nabla p_t(x_t)": sp.diff(p_t, x_t),
            r"\nabla\log p_t(x_t)": sp.diff(sp.log(p_t), x_t),
            r"\hat x_0": sum(share * u for share, u in zip(shares, CLEAN, strict=True)),
        }
    if derivation in ("mean_in_eps", "l_simple"):
        table["x_t"] = jump
        table[r"\tilde\mu_t"], table[r"\tilde\beta_t"] = regression(a**2, r, jump, x_0)
        table[r"\epsilon_\theta(x_t, t)"] = eps_hat
        # The model's mean is the posterior's at the x_0 that the guessed noise implies.
        x_0_hat = (jump - noise * eps_hat) / (r * a)
        table[r"\mu_\theta(x_t, t)"] = regression(a**2, r, jump, x_0_hat)[0]
    if derivation == "l_simple":
        table |= {
            "x": x,
            "d": d,
            r"\mu_q": mu_q,
            r"\mu_p": mu_p,
            r"\sigma_q": sigma_q,
            r"\sigma_p": sigma_p,
            r"\tilde\sigma_t": s_back,
            "q(x)": density(x, mu_q, sigma_q**2),
            "p(x)": density(x, mu_p, sigma_p**2),
            r"D_{\mathrm{KL}}(q\,\|\,p)": kl_by_integration(),
        }
        same_mean = kl_by_integration().subs(mu_q, mu_p)
        exact, model = sp.sqrt(table[r"\tilde\beta_t"]), s_back
        table["C"] = d * same_mean.subs({sigma_q: exact, sigma_p: model})
        gap = table[r"\tilde\mu_t"] - table[r"\mu_\theta(x_t, t)"]
        table["w_t"] = sp.simplify(gap**2 / (2 * s_back**2) / (eps - eps_hat) ** 2)
    return table


MEANING = {key: meaning(key) for key in FORMULAS}
POINT = {  # where a wrong equation shows at once, before sympy is asked for a proof
    r: sp.Rational(3, 5),
    a: sp.Rational(5, 7),
    r_1: sp.Rational(4, 9),
    s_back: sp.Rational(2, 3),
    x_0: sp.Rational(7, 5),
    x_s: sp.Rational(-3, 4),
    x_t: sp.Rational(11, 8),
    x: sp.Rational(5, 3),
    d: sp.Integer(3),
    eps: sp.Rational(-9, 7),
    eps_bar: sp.Rational(6, 5),
    eps_t: sp.Rational(13, 9),
    eps_hat: sp.Rational(8, 3),
    mu_q: sp.Rational(9, 5),
    mu_p: sp.Rational(-4, 7),
    sigma_q: sp.Rational(7, 6),
    sigma_p: sp.Rational(8, 5),
    sp.Symbol("a_", positive=True): sp.Rational(2, 5),
    sp.Symbol("b_", positive=True): sp.Rational(7, 4),
}


EXPECT, NORM = sp.Function("EXPECT"), sp.Function("NORM")
COMMANDS = [r"\frac", r"\sqrt", r"\log", r"\left(", r"\right)", r"\left[", r"\right]"]
COMMANDS += [r"\mathbb{E}_q", r"\lVert", r"\rVert", r"\cdot", *"(){}[]+-^"]
CLOSING = {r"\left(": r"\right)", r"\left[": r"\right]", r"\lVert": r"\rVert", "(": ")", "{": "}"}


def tokens(tex: str, names: Mapping[str, object]) -> Iterator[str]:
    """Split TeX into commands, numbers and the longest known names."""
    known = sorted([*names, *COMMANDS], key=len, reverse=True)
    while tex := re.sub(r"^(\s|\\,)+", "", tex):
        digits = re.match(r"\d+", tex)
        token = digits[0] if digits else next((k for k in known if tex.startswith(k)), "")
        if not token:
            raise ValueError(f"unknown TeX: {tex}")
        yield token
        tex = tex[len(token) :]


class Reader:
    """Recursive descent from TeX to sympy; a symbol's name is its TeX."""

    def __init__(self, tex: str, names: Mapping[str, object]):
        self.names, self.rest = names, [*tokens(tex, names), "end"]

    def take(self, expected: str = "") -> str:
        token = self.rest.pop(0)
        if expected and token != expected:
            raise ValueError(f"{token} where {expected} was due")
        return token

    def read(self) -> sp.Expr:
        value = self.sum()
        self.take("end")
        return value

    def sum(self) -> sp.Expr:
        value = sp.S.Zero if self.rest[0] in "+-" else self.product()
        while self.rest[0] in ("+", "-"):
            value += self.product() if self.take() == "+" else -self.product()
        return value

    def product(self) -> sp.Expr:
        value = self.power()
        while self.rest[0] not in ("end", "+", "-", "}", ")", r"\right)", r"\right]", r"\rVert"):
            if self.rest[0] == r"\cdot":
                self.take()
            value *= self.power()
        return value

    def power(self) -> sp.Expr:
        base = self.atom()
        if self.rest[0] != "^":
            return base
        self.take()
        return base ** (self.group() if self.rest[0] == "{" else int(self.take()))

    def group(self) -> sp.Expr:
        closing = CLOSING[self.take()]
        value = self.sum()
        self.take(closing)
        return value

    def atom(self) -> sp.Expr:
        token = self.rest[0]
        if token == r"\lVert":
            return NORM(self.group())
        if token in CLOSING:
            return self.group()
        self.take()
        if token == r"\frac":
            return self.group() / self.group()
        if token == r"\sqrt":
            return sp.sqrt(self.group())
        if token == r"\log":
            return sp.log(self.atom())
        if token == r"\mathbb{E}_q":
            return EXPECT(self.group())
        return sp.Integer(token) if token.isdigit() else symbol(token, self.names)


def symbol(token: str, names: Mapping[str, object]) -> sp.Symbol:
    if token not in names:
        raise ValueError(f"{token} is not a factor")
    return sp.Symbol(token)


def squared_norm(vector: sp.Expr) -> sp.Expr:
    """‖v‖ over two coordinates, each with its own data and noise."""
    own = (x_0, eps, eps_hat)
    return sp.sqrt(
        sum(vector.subs({v: sp.Symbol(f"{v}_{i}", real=True) for v in own}) ** 2 for i in (1, 2))
    )


@cache
def value(tex: str, derivation: str) -> sp.Expr:
    """Read one side and give its symbols their meaning."""
    names = MEANING[derivation]
    read = Reader(tex, names).read()
    meant = read.xreplace({sp.Symbol(k): v for k, v in names.items()})
    return meant.replace(EXPECT, under_q).replace(NORM, squared_norm)


def probe(expr: sp.Expr) -> sp.Expr:
    coordinates = sorted(expr.free_symbols - POINT.keys(), key=str)
    own = {v: sp.Rational(2 * i + 3, 7 - i) for i, v in enumerate(coordinates)}
    return expr.subs(POINT | own).evalf(30)


def equal(left: sp.Expr, right: sp.Expr) -> bool:
    """Whether sympy proves left = right; a number in disagreement spares the attempt."""
    gap = left - right
    if abs(probe(gap)) > 1e-20:
        return False
    gap = sp.expand_log(gap, force=True)
    numerator, _ = sp.fraction(sp.together(gap))
    # Expanding the numerator settles most lines, and is far quicker than simplify.
    return sp.expand(numerator) == 0 or sp.simplify(gap) == 0


QUAD = r",\s*\\quad"


def equations(tex: str) -> Iterator[list[str]]:
    for part in re.split(QUAD, tex):
        yield [side.strip() for side in part.split("=")]


def proves(tex: str, derivation: str) -> bool:
    """Whether every equation of a displayed line holds."""
    chains = [[value(side, derivation) for side in sides] for sides in equations(tex)]
    return all(equal(left, right) for c in chains for left, right in pairwise(c))


def refuses(check: Callable[[str], bool], tex: str) -> bool:
    try:
        return not check(tex)
    except ValueError:
        return True


@pytest.mark.parametrize(("derivation", "key"), CHECKED)
def test_identity_holds_as_displayed(derivation: str, key: str) -> None:
    assert proves(FORMULAS[derivation][key].tex, derivation)


def as_symbols(tex: str, derivation: str) -> sp.Expr:
    return Reader(tex, MEANING[derivation]).read()


def for_sympy(tex: str, names: Mapping[str, object]) -> tuple[str, dict[sp.Symbol, sp.Symbol]]:
    """Rename to single letters and write every product sign, as sympy's grammar needs."""
    # Without d, e, i: these mean something to sympy.
    letters = iter("abcfghjklmnopqrstuvwxyz")
    renamed: dict[str, str] = {}
    out = ""
    previous = ""
    for token in tokens(tex, names):
        if token in names:
            renamed.setdefault(token, next(letters))
        starts = token in names or token.isdigit()
        starts |= token in (r"\frac", r"\sqrt", "(", r"\left(")
        ends = previous in names or previous.isdigit() or previous in (")", r"\right)", "}")
        out += r"\cdot " * (starts and ends) + renamed.get(token, token)
        previous = token
    return out, {sp.Symbol(v): sp.Symbol(k) for k, v in renamed.items()}


def test_sympys_own_latex_reader_reads_the_same() -> None:
    # Its grammar has no E_q[·] and no ‖·‖, and finds \log a - b ambiguous.
    beyond = (r"\mathbb", r"\lVert", r"\log", r"\|")
    sides = {
        (side, derivation)
        for derivation, key in CHECKED
        for chain in equations(FORMULAS[derivation][key].tex)
        for side in chain
        if not any(b in side for b in beyond)
    }
    assert len(sides) > 60
    for side, derivation in sorted(sides):
        tex, names = for_sympy(side, MEANING[derivation])
        theirs = parse_latex(tex, backend="lark").xreplace(names)
        assert sp.simplify(theirs - as_symbols(side, derivation)) == 0, side


SWAPS = {
    "+": "-",
    "-": "+",
    "0": "1",
    "1": "2",
    "2": "3",
    r"\sqrt": "",
    r"\bar\alpha_t": r"\bar\alpha_{t-1}",
    r"\bar\alpha_{t-1}": r"\bar\alpha_t",
    r"\bar\alpha_1": r"\beta_1",
    r"\bar\alpha_0": r"\bar\alpha_1",
    r"\beta_t": r"\bar\alpha_t",
    r"\beta_1": r"\bar\alpha_1",
    r"\tilde\beta_t": r"\beta_t",
    r"\tilde\sigma_t": r"\beta_t",
    "x_0": "x_t",
    "x_t": "x_0",
    "x_{t-1}": "x_t",
    "x_1": "x_0",
    r"\epsilon": "x_0",
    r"\epsilon_t": r"\bar\epsilon_{t-1}",
    r"\bar\epsilon_{t-1}": r"\epsilon_t",
    r"\mu_q": r"\mu_p",
    r"\mu_p": r"\mu_q",
    r"\sigma_q": r"\sigma_p",
    r"\sigma_p": r"\sigma_q",
    r"\hat x_0": "x_t",
    "A": "B",
    "B": "A",
}


def mutants(tex: str, names: Mapping[str, object]) -> Iterator[str]:
    """One wrong sign, subscript, root, square or number at a time."""
    parts = re.split(rf"(=|{QUAD})", tex)
    for i in range(0, len(parts), 2):
        side = [*tokens(parts[i], names)]
        for j, token in enumerate(side):
            if token == "^":
                wrong = [*side[:j], *side[j + 2 :]]
            elif token in SWAPS and (j == 0 or side[j - 1] != "^"):
                wrong = [*side[:j], SWAPS[token], *side[j + 1 :]]
            else:
                continue
            yield "".join([*parts[:i], " ".join(wrong), *parts[i + 1 :]])


@pytest.mark.parametrize(("derivation", "key"), CHECKED)
def test_every_mutant_of_an_identity_is_refused(derivation: str, key: str) -> None:
    wrong = [*mutants(FORMULAS[derivation][key].tex, MEANING[derivation])]
    accepted = [m for m in wrong if proves(m, derivation)]
    assert len(wrong) >= 4
    if (derivation, key) in EDGES:
        assert len(accepted) <= len(wrong) / 2
    else:
        assert not accepted


@pytest.mark.parametrize(("edge", "general"), [("first_variance", 2), ("first_mean", 1)])
def test_an_edge_line_is_the_general_line_at_t_1(edge: str, general: int) -> None:
    line = FORMULAS["posterior"][edge.removeprefix("first_")].tex
    at_1 = line.replace("_{t-1}", "_0").replace("_t", "_1").split(" = ")
    assert FORMULAS["posterior"][edge].tex.split(" = ")[:2] == [at_1[0], at_1[general]]


GAUSSIAN = re.compile(r"\\mathcal\{N\}\\left\((?:(.*?);\\,)?(.*?),\\,(.*?)(?: I)?\\right\)")


def gaussian(tex: str, derivation: str) -> tuple[sp.Expr, sp.Expr]:
    """Read mean and variance out of the N(·; mean, variance I) of a line."""
    found = GAUSSIAN.search(tex)
    if not found:
        raise ValueError(f"no Gaussian in {tex}")
    return value(found[2], derivation), value(found[3], derivation)


def first_sides(tex: str) -> list[str]:
    return next(equations(tex))


def kernel_holds(tex: str) -> bool:
    """The Gaussian of one step is that of the recipe x_t = … + … ε_t."""
    mean, var = gaussian(tex, "closed_form")
    recipe = value("x_t", "closed_form")
    return equal(mean, recipe.subs(eps_t, 0)) and equal(var, recipe.coeff(eps_t) ** 2)


def product_holds(tex: str) -> bool:
    """The product starts at 1 and obeys the recursion line, for any β_1 … β_6."""
    zero, product = re.split(QUAD, tex)
    factor = re.search(r"\\prod_\{s=1\}\^\{t\}(.*)", product)
    if not factor or as_symbols(zero.split("=")[1], "closed_form") != 1:
        raise ValueError(tex)
    betas = sp.symbols("beta_1:7")
    beta_t, beta_s = sp.Symbol(r"\beta_t"), sp.Symbol(r"\beta_s")
    term = Reader(factor[1], {r"\beta_s": 0}).read()
    recursion = as_symbols(first_sides(FORMULAS["closed_form"]["recursion"].tex)[1], "closed_form")
    products = [sp.prod(term.subs(beta_s, b) for b in betas[:t]) for t in range(len(betas) + 1)]
    return all(
        sp.expand(now - recursion.subs({beta_t: b, sp.Symbol(r"\bar\alpha_{t-1}"): before})) == 0
        for b, (before, now) in zip(betas, pairwise(products), strict=True)
    )


def closed_form_holds(mean: sp.Expr, var: sp.Expr) -> bool:
    """Mean and variance as functions of ᾱ_t obey the chain's recursion and start it."""
    at_t = {"mean": mean, "var": var}
    now = sp.Symbol("now", positive=True)
    # ᾱ_t = r²a² throughout, so a → √now/r writes both as functions of ᾱ_t alone.
    law = {k: sp.simplify(v.subs(a, sp.sqrt(now) / r)) for k, v in at_t.items()}
    if any(v.has(r) for v in law.values()):
        return False
    before = {k: v.subs(now, a**2) for k, v in law.items()}
    first = {k: v.subs(now, r**2) for k, v in law.items()}
    beta = 1 - r**2
    return (
        equal(mean, r * before["mean"])
        and equal(var, r**2 * before["var"] + beta)
        and equal(first["mean"], r * x_0)
        and equal(first["var"], beta)
    )


def claim_holds(tex: str) -> bool:
    return closed_form_holds(*gaussian(tex, "closed_form"))


def result_holds(tex: str) -> bool:
    # ε of this line is a single new Gaussian, so the mean is the rest.
    recipe = value(first_sides(tex)[1], "closed_form")
    return closed_form_holds(recipe.subs(eps, 0), recipe.coeff(eps) ** 2)


def hypothesis_holds(tex: str) -> bool:
    """It is the proven line one step earlier."""
    earlier = FORMULAS["closed_form"]["result"].tex
    for now, before in (
        (r"\bar\alpha_t", r"\bar\alpha_{t-1}"),
        (r"\epsilon", r"\bar\epsilon_{t-1}"),
        ("x_t", "x_{t-1}"),
    ):
        earlier = earlier.replace(now, before)
    same = [
        equal(*(value(f(t), "closed_form") for t in (tex, earlier)))
        for f in (lambda t: first_sides(t)[0], lambda t: first_sides(t)[1])
    ]
    return all(same) and tex.split(r"\quad")[1] == earlier.split(r"\quad")[1]


def sum_rule_holds(tex: str) -> bool:
    """The density of a·X + b·Y, by convolution, is the Gaussian that the line claims."""
    mean, var = gaussian(tex, "closed_form")
    of_a, of_b = (value(n, "closed_form") for n in "ab")
    z = sp.Symbol("z", real=True)
    sum_density = convolution(of_a, of_b, z)
    return equal(sp.log(sum_density), log_density(z, mean, var))


@cache
def convolution(of_a: sp.Expr, of_b: sp.Expr, z: sp.Expr) -> sp.Expr:
    zero = sp.S.Zero
    return sp.simplify(integral(density(x, zero, of_a**2) * density(z - x, zero, of_b**2)))


# The densities that the posterior's lines speak of, for one coordinate.
DENSITIES = {
    r"q(x_t\mid x_{t-1})": density(x_t, r * x_s, 1 - r**2),
    r"q(x_{t-1}\mid x_0)": density(x_s, a * x_0, 1 - a**2),
    r"q(x_t\mid x_0)": density(x_t, r * a * x_0, 1 - r**2 * a**2),
}
# Bayes, as a quotient of densities that is not simplified by hand.
BAYES = sp.prod(list(DENSITIES.values())[:2]) / DENSITIES[r"q(x_t\mid x_0)"]
DENSITIES[r"q(x_{t-1}\mid x_t, x_0)"] = density(x_s, *regression(a**2, r, x_t, x_0))


def same_density(f: sp.Expr, g: sp.Expr) -> bool:
    """Whether f = g > 0: no slope of log f - log g in any variable, and no gap at the origin."""
    slopes = [sp.diff(f, v) / f - sp.diff(g, v) / g for v in (x_s, x_t, x_0)]
    at_0 = (f / g).subs({x_s: 0, x_t: 0, x_0: 0})
    return all(equal(slope, sp.S.Zero) for slope in slopes) and equal(at_0**2, sp.S.One)


def bayes_holds(tex: str) -> bool:
    """The quotient of the three densities is the density that regression gives."""
    left, right = (
        Reader(side, DENSITIES).read().xreplace({sp.Symbol(k): v for k, v in DENSITIES.items()})
        for side in first_sides(tex)
    )
    return same_density(left, right)


def log_density_holds(tex: str) -> bool:
    """The right side is -2 log of Bayes' quotient, up to what x_{t-1} does not enter."""
    left, right = first_sides(tex)
    if left != r"-2\log\, q(x_{t-1}\mid x_t, x_0)" or not right.endswith(r" + \mathrm{const}"):
        raise ValueError(tex)
    shown = value(right.removesuffix(r" + \mathrm{const}"), "posterior")
    exact = -2 * sp.expand_log(sp.log(BAYES), force=True)
    return equal(sp.diff(shown, x_s), sp.diff(exact, x_s))


def posterior_holds(tex: str) -> bool:
    """Bayes' quotient is the Gaussian that the line names, constants included."""
    mean, var = gaussian(tex, "posterior")
    return same_density(BAYES, density(x_s, mean, var))


def reverse_holds(tex: str) -> bool:
    mean, var = gaussian(tex, "l_simple")
    return equal(mean, MEANING["l_simple"][r"\mu_\theta(x_t, t)"]) and equal(var, s_back**2)


def term_holds(tex: str) -> bool:
    """It compares the very two distributions that the other lines define, in that order."""
    exact = first_sides(FORMULAS["posterior"]["result"].tex)[0]
    model = first_sides(FORMULAS["l_simple"]["reverse"].tex)[0]
    kl = r"D_{\mathrm{KL}}\left(" + exact + r"\,\|\," + model + r"\right)"
    return tex == r"L_{t-1} = \mathbb{E}_q\left[" + kl + r"\right]"


def kl_definition_holds(tex: str) -> bool:
    """The integral that is written is the mean that is written, and is 0 for q = p only."""
    name, written, mean = first_sides(tex)
    integrand = re.fullmatch(r"\\int (.*)\\,dx", written)
    content = re.fullmatch(r"\\mathbb\{E\}_q\\left\[(.*)\\right\]", mean)
    if not integrand or not content:
        raise ValueError(tex)
    inside, averaged = (value(m[1], "l_simple") for m in (integrand, content))
    q = density(x, mu_q, sigma_q**2)
    return equal(inside, averaged * q) and equal(
        under_q(sp.expand_log(sp.log(sp.simplify(sp.exp(averaged))), force=True)),
        value(name, "l_simple"),
    )


def gaussians_hold(tex: str) -> bool:
    for part in re.split(QUAD, tex):
        name, shape = (side.strip() for side in part.split("="))
        if not equal(sp.log(value(name, "l_simple")), log_density(x, *gaussian(shape, "l_simple"))):
            return False
    return True


def two_coordinates() -> sp.Expr:
    """KL of exact step and model's step in two coordinates, whose divergences add."""
    table = MEANING["l_simple"]
    one = kl_by_integration().subs(
        {
            mu_q: table[r"\tilde\mu_t"],
            mu_p: table[r"\mu_\theta(x_t, t)"],
            sigma_q: sp.sqrt(table[r"\tilde\beta_t"]),
            sigma_p: s_back,
        }
    )
    own = (x_0, eps, eps_hat)
    return sum(
        one.subs({v: sp.Symbol(f"{v}_{i}", real=True) for v in own}, simultaneous=True)
        for i in (1, 2)
    )


def means_hold(tex: str) -> bool:
    found = re.fullmatch(r"L_\{t-1\} = \\mathbb\{E\}_q\\left\[(.*)\\right\] \+ C", tex)
    if not found:
        raise ValueError(tex)
    shown = value(found[1], "l_simple") + MEANING["l_simple"]["C"].subs(d, 2)
    return equal(shown, two_coordinates())


def read_loss(inside: str) -> sp.Expr:
    """Read a loss in ε, and make sure that the network is shown x_t as the jump makes it."""
    shown = re.search(r"\\epsilon_\\theta\\left\((.*),\\, t\\right\)", inside)
    if not shown or not equal(value(shown[1], "l_simple"), MEANING["l_simple"]["x_t"]):
        raise ValueError(inside)
    return value(inside.replace(shown[0], r"\epsilon_\theta(x_t, t)"), "l_simple")


def eps_loss_holds(tex: str) -> bool:
    head = r"L_{t-1} - C = \mathbb{E}_{x_0,\,\epsilon}\left["
    if not tex.startswith(head):
        raise ValueError(tex)
    loss = read_loss(tex.removeprefix(head).removesuffix(r"\right]"))
    return equal(loss + MEANING["l_simple"]["C"].subs(d, 2), two_coordinates())


def l_simple_holds(tex: str) -> bool:
    """L_simple is eps_loss with its weight set to 1, and a mean over t as well."""
    head = r"L_{\mathrm{simple}} = \mathbb{E}_{t,\,x_0,\,\epsilon}\left["
    if not tex.startswith(head):
        raise ValueError(tex)
    loss = read_loss(tex.removeprefix(head).removesuffix(r"\right]"))
    weighted = FORMULAS["l_simple"]["eps_loss"].tex
    bound = read_loss(weighted[weighted.index(r"\left[") + 6 :].removesuffix(r"\right]"))
    return equal(loss * MEANING["l_simple"]["w_t"], bound)


def split_holds(tex: str) -> bool:
    """E‖ε-f‖² splits at the mean, for any distribution of ε on three points of the plane."""
    pattern = r"\\lVert(.*?)\\rVert\^2"
    squares = re.findall(pattern, tex)
    mean_of = r"\mathbb{E}\left[\lVert%s\rVert^2\mid x_t\right]"
    shape = f"{mean_of} = {mean_of} + " + r"\lVert%s\rVert^2,"
    end = r"\quad \epsilon^\star = \mathbb{E}\left[\epsilon\mid x_t\right]"
    if len(squares) != 3 or tex != shape % tuple(squares) + end:
        raise ValueError(tex)
    names = {r"\epsilon^\star": 0, r"\epsilon": 0, "f": 0}
    error, unavoidable, rest = (Reader(inside, names).read() for inside in squares)
    p = [*sp.symbols("p_1 p_2")]
    p.append(1 - sum(p))
    gap = sp.S.Zero
    for i in (1, 2):
        points = sp.symbols(f"u_{i} v_{i} w_{i}")
        mean = sum(weight * point for weight, point in zip(p, points, strict=True))
        fixed = {sp.Symbol(r"\epsilon^\star"): mean, sp.Symbol("f"): sp.Symbol(f"f_{i}")}

        def average(square: sp.Expr, fixed: dict[Any, Any] = fixed, at: Any = points) -> sp.Expr:
            return sum(
                weight * square.xreplace(fixed | {sp.Symbol(r"\epsilon"): point}) ** 2
                for weight, point in zip(p, at, strict=True)
            )

        gap += average(error) - average(unavoidable) - average(rest)
    return sp.expand(gap) == 0


def integral_holds(tex: str) -> bool:
    """The left side is the integral on the right, over data of three points."""
    left, right = first_sides(tex)
    found = re.fullmatch(r"\\int (.*)\\,p\(x_0\)\\,dx_0", right)
    if not found:
        raise ValueError(tex)
    return equal(value(left, "tweedie"), over_data(value(found[1], "tweedie")))


def tweedie_bayes_holds(tex: str) -> bool:
    """The quotient gives each point its share of the density, and their mean is what is named."""
    rule, mean = re.split(QUAD, tex)
    found = re.fullmatch(r"p\(x_0\\mid x_t\) = \\frac\{(.*)\\,p\(x_0\)\}\{(.*)\}", rule.strip())
    name, inside = (side.strip() for side in mean.split("="))
    moment = re.fullmatch(r"\\int (.*)\\,p\(x_0\\mid x_t\)\\,dx_0", inside)
    if not found or not moment:
        raise ValueError(tex)
    share = value(found[1], "tweedie") / value(found[2], "tweedie")
    of_what = value(moment[1], "tweedie")
    return equal(over_data(share), sp.S.One) and equal(
        value(name, "tweedie"), over_data(share * of_what)
    )


STATEMENTS: dict[tuple[str, str], Callable[[str], bool]] = {
    ("closed_form", "kernel"): kernel_holds,
    ("closed_form", "one_step"): lambda tex: equal(
        *(value(side, "closed_form") for side in first_sides(tex))
    ),
    ("closed_form", "alpha_bar"): product_holds,
    ("closed_form", "claim"): claim_holds,
    ("closed_form", "hypothesis"): hypothesis_holds,
    ("closed_form", "sum_rule"): sum_rule_holds,
    ("closed_form", "result"): result_holds,
    ("posterior", "bayes"): bayes_holds,
    ("posterior", "log"): log_density_holds,
    ("posterior", "collect"): log_density_holds,
    ("posterior", "result"): posterior_holds,
    ("tweedie", "marginal"): integral_holds,
    ("tweedie", "inside"): integral_holds,
    ("tweedie", "bayes"): tweedie_bayes_holds,
    ("l_simple", "reverse"): reverse_holds,
    ("l_simple", "term"): term_holds,
    ("l_simple", "kl"): kl_definition_holds,
    ("l_simple", "gaussians"): gaussians_hold,
    ("l_simple", "means"): means_hold,
    ("l_simple", "eps_loss"): eps_loss_holds,
    ("l_simple", "ideal"): split_holds,
    ("l_simple", "result"): l_simple_holds,
}


@pytest.mark.parametrize(("derivation", "key"), STATED)
def test_statement_says_the_truth(derivation: str, key: str) -> None:
    assert STATEMENTS[derivation, key](FORMULAS[derivation][key].tex)


@pytest.mark.parametrize(
    ("derivation", "key", "right", "wrong"),
    [
        ("closed_form", "kernel", r"\beta_t I", r"\beta_t^2 I"),
        ("closed_form", "kernel", r"\sqrt{1-\beta_t}", r"(1-\beta_t)"),
        ("closed_form", "one_step", r"\sqrt{\beta_t}", r"\beta_t"),
        ("closed_form", "alpha_bar", r"(1-\beta_s)", r"\beta_s"),
        ("closed_form", "alpha_bar", r"\bar\alpha_0 = 1", r"\bar\alpha_0 = 0"),
        ("closed_form", "claim", r"\sqrt{\bar\alpha_t}", r"\bar\alpha_t"),
        ("closed_form", "claim", r"(1-\bar\alpha_t)", r"(1+\bar\alpha_t)"),
        ("closed_form", "claim", r"(1-\bar\alpha_t)", r"\sqrt{1-\bar\alpha_t}"),
        ("closed_form", "claim", r"(1-\bar\alpha_t)", r"(1-\bar\alpha_{t-1})"),
        ("closed_form", "claim", r"(1-\bar\alpha_t)", r"(2-\bar\alpha_t)"),
        ("closed_form", "hypothesis", r"1-\bar\alpha_{t-1}", r"1-\bar\alpha_t"),
        ("closed_form", "sum_rule", r"a^2+b^2", r"a+b"),
        ("closed_form", "sum_rule", r"a^2+b^2", r"(a+b)^2"),
        ("closed_form", "result", r"\sqrt{1-\bar\alpha_t}", r"(1-\bar\alpha_t)"),
        ("posterior", "bayes", r"q(x_{t-1}\mid x_0)", r"q(x_t\mid x_0)"),
        ("posterior", "log", r"{1-\bar\alpha_{t-1}}", r"{1-\bar\alpha_t}"),
        ("posterior", "log", r"\sqrt{1-\beta_t}", r"(1-\beta_t)"),
        ("posterior", "log", r"-2\log", r"2\log"),
        ("posterior", "collect", "- 2B", "- B"),
        ("posterior", "result", r"\tilde\beta_t", r"\beta_t"),
        ("posterior", "result", r"\tilde\mu_t", r"B"),
        ("tweedie", "marginal", r"q(x_t\mid x_0)", r"\nabla q(x_t\mid x_0)"),
        ("tweedie", "marginal", r"\,p(x_0)", ""),
        ("tweedie", "inside", "x_0 - x_t", "x_0 + x_t"),
        ("tweedie", "inside", r"\sqrt{\bar\alpha_t}", r"\bar\alpha_t"),
        ("tweedie", "inside", r"{1-\bar\alpha_t}", r"{\bar\alpha_t}"),
        ("tweedie", "bayes", r"{p_t(x_t)}", r"{\nabla p_t(x_t)}"),
        ("tweedie", "bayes", r"{q(x_t\mid x_0)", r"{\nabla q(x_t\mid x_0)"),
        ("tweedie", "bayes", r"\int x_0", r"\int x_t"),
        ("l_simple", "reverse", r"\tilde\sigma_t^2", r"\tilde\sigma_t"),
        ("l_simple", "term", r"q(x_{t-1}\mid x_t, x_0)", r"q(x_{t-1}\mid x_t)"),
        ("l_simple", "kl", r"\int q(x)", r"\int p(x)"),
        ("l_simple", "kl", r"\frac{q(x)}{p(x)}", r"\frac{p(x)}{q(x)}"),
        ("l_simple", "gaussians", r"\sigma_q^2", r"\sigma_q"),
        ("l_simple", "gaussians", r"\mu_p", r"\mu_q"),
        ("l_simple", "means", r"{2\tilde\sigma_t^2}", r"{\tilde\sigma_t^2}"),
        ("l_simple", "means", r"{2\tilde\sigma_t^2}", r"{2\tilde\beta_t}"),
        ("l_simple", "eps_loss", r"\sqrt{\bar\alpha_t}", r"\bar\alpha_t"),
        ("l_simple", "eps_loss", r"w_t\,", ""),
        ("l_simple", "ideal", r"\epsilon^\star-f", r"\epsilon-f"),
        ("l_simple", "ideal", r"+ \lVert", r"- \lVert"),
        ("l_simple", "result", r"\sqrt{1-\bar\alpha_t}", r"(1-\bar\alpha_t)"),
        ("l_simple", "result", r"\rVert^2", r"\rVert"),
    ],
)
def test_a_wrong_statement_is_refused(derivation: str, key: str, right: str, wrong: str) -> None:
    tex = FORMULAS[derivation][key].tex
    assert right in tex
    assert refuses(STATEMENTS[derivation, key], tex.replace(right, wrong))


def test_variances_add_and_a_chain_walked_by_hand_agrees() -> None:
    betas = sp.symbols("beta_1:5", positive=True)
    mean, var, alpha_bar = sp.S.One, sp.S.Zero, sp.S.One
    for beta in betas:
        mean, var, alpha_bar = (
            sp.sqrt(1 - beta) * mean,
            (1 - beta) * var + beta,
            alpha_bar * (1 - beta),
        )
        assert sp.expand(mean**2 - alpha_bar) == 0
        assert sp.expand(var - (1 - alpha_bar)) == 0


def test_kl_is_zero_for_equal_gaussians_and_only_there() -> None:
    kl = kl_by_integration()
    assert sp.simplify(kl.subs({mu_p: mu_q, sigma_p: sigma_q})) == 0
    same_mean = kl.subs(mu_p, mu_q)
    assert sp.solve(sp.diff(same_mean, sigma_p), sigma_p) == [sigma_q]


def test_the_words_about_the_edges_are_true() -> None:
    table = MEANING["posterior"]
    less_noisy = sp.factor(table[r"\tilde\beta_t"] / table[r"\beta_t"])
    assert sp.simplify(less_noisy - (1 - a**2) / (1 - r**2 * a**2)) == 0
    # "A is a sum of precisions": at t = 1 the precision of x_{t-1} given x_0 is infinite.
    assert sp.limit(table["A"], a, 1, "-") == sp.oo
    assert MEANING["l_simple"]["C"].subs(s_back, sp.sqrt(table[r"\tilde\beta_t"])).equals(0)
    # "On the paper's schedule, with σ̃² = β, w_t is largest at the first step."
    alpha_bar, weights = 1.0, []
    for i in range(1000):
        beta = 1e-4 + (0.02 - 1e-4) * i / 999
        alpha_bar *= 1 - beta
        weights.append(beta / (2 * (1 - beta) * (1 - alpha_bar)))
    assert max(weights) == weights[0] == pytest.approx(0.5, rel=1e-3)


def words(lang: str) -> dict[str, Any]:
    path = files("alphabar") / "locale" / lang / "proofs.toml"
    return tomllib.loads(path.read_text(encoding="utf-8"))


def texts(lang: str) -> Iterator[str]:
    for derivation in derivations(lang):
        yield from (derivation.title, derivation.intro, *(s.why for s in derivation.steps))


@cache
def latex() -> Any:
    with warnings.catch_warnings():
        # ziamath 0.13 reads its fonts with importlib.resources.path.
        warnings.simplefilter("ignore", DeprecationWarning)
        import ziamath
    return ziamath.Latex


@pytest.mark.parametrize("lang", LANGUAGES)
def test_words_and_formulas_have_the_same_keys(lang: str) -> None:
    said = words(lang)
    assert said.keys() == {"source", *FORMULAS}
    for key, formulas in FORMULAS.items():
        assert said[key].keys() == {"title", "intro", "why"}
        assert list(said[key]["why"]) == list(formulas)
    assert all(text.strip() for text in texts(lang))


def test_every_statement_has_its_check() -> None:
    assert list(STATEMENTS) == STATED


def test_korean_is_korean_throughout() -> None:
    for text in texts("ko"):
        assert re.search("[가-힣]", text)
    for text in texts("en"):
        assert not re.search("[가-힣]", text)


@pytest.mark.parametrize("derivation", FORMULAS)
def test_formulas_render_within_the_page(derivation: str) -> None:
    for formula in FORMULAS[derivation].values():
        picture = latex()(formula.tex, size=18)
        assert picture.svg().startswith("<svg")
        assert picture.getsize()[0] < 660


@pytest.mark.parametrize("lang", LANGUAGES)
def test_inline_tex_renders(lang: str) -> None:
    inline = set()
    for text in texts(lang):
        assert text.count("$") % 2 == 0
        prose = re.sub(r"\$[^$]*\$", "", text)
        assert "\\" not in prose
        assert "_" not in prose
        inline |= set(re.findall(r"\$([^$]+)\$", text))
    for tex in sorted(inline):
        assert latex()(tex, inline=True).svg().startswith("<svg"), tex


def test_both_languages_show_the_same_inline_formulas() -> None:
    for ours, theirs in zip(texts("en"), texts("ko"), strict=True):
        en, ko = (set(re.findall(r"\$([^$]+)\$", text)) for text in (ours, theirs))
        assert en == ko, (ours, theirs)


def test_alpha_and_sigma_keep_their_one_meaning() -> None:
    # design.md: α_t is the signal scale and σ_t the noise scale, never 1-β_t or a step's variance.
    shown = [f.tex for formulas in FORMULAS.values() for f in formulas.values()]
    for tex in [*shown, *texts("en"), *texts("ko")]:
        assert not re.search(r"(?<!\\bar)\\alpha", tex)
        assert not re.search(r"(?<!\\tilde)\\sigma_t", tex)


def test_an_unknown_language_is_named() -> None:
    with pytest.raises(ValueError, match="'fr': choose en or ko"):
        derivations("fr")


def test_reading_proofs_needs_neither_torch_nor_sympy() -> None:
    code = (
        "import sys, alphabar.derivations as d; d.derivations('ko');"
        "print(sorted({'torch', 'sympy', 'ziamath', 'numpy'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
