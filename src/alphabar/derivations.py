r"""Five proofs behind the formulas, line by line, each line with its reason in words.

- `closed_form`:  q(x_t | x_0) = N(√ᾱ_t x_0, (1 − ᾱ_t) I), by induction over the chain
- `posterior`:    q(x_{t−1} | x_t, x_0) = N(μ̃_t, β̃_t I), by Bayes and completing the square
- `mean_in_eps`:  μ̃_t = (x_t − β_t/√(1−ᾱ_t) ε)/√(1−β_t)
- `tweedie`:      ∇log p_t(x_t) = (√ᾱ_t E[x_0 | x_t] − x_t)/(1 − ᾱ_t)
- `l_simple`:     from the KL divergence of two Gaussians to L_simple

This module holds the TeX, which no language owns; `locale/<lang>/proofs.toml` holds the words.
A line with `checked=True` consists of identities only, and the tests read that very string back
with a parser and prove its sides equal, so that what a page shows is what was proven. The other
lines state a definition or a distribution; what those say is tested as well.

The notation is that of Ho, Jain & Abbeel 2020 (arXiv:2006.11239), with two exceptions, because
in this library alpha_t and sigma_t are the scales of signal and noise: 1 − β_t is written out,
and the variance of one reverse step, the paper's σ_t², is \tilde\sigma_t^2.
"""

from dataclasses import dataclass
from functools import cache

from alphabar.locale import texts


@dataclass(frozen=True)
class Formula:
    """One line of TeX; `eq` is its number in arXiv:2006.11239 where it has one."""

    tex: str
    checked: bool
    eq: str = ""


@dataclass(frozen=True)
class Step:
    """A formula with its reason in one language; `why` may hold TeX between dollar signs."""

    key: str
    tex: str
    why: str
    checked: bool
    source: str = ""


@dataclass(frozen=True)
class Derivation:
    """A proof in one language: what it shows, and the steps in their order."""

    key: str
    title: str
    intro: str
    steps: tuple[Step, ...]


def _identity(tex: str, eq: str = "") -> Formula:
    return Formula(tex, checked=True, eq=eq)


def _statement(tex: str, eq: str = "") -> Formula:
    return Formula(tex, checked=False, eq=eq)


FORMULAS: dict[str, dict[str, Formula]] = {
    "closed_form": {
        "kernel": _statement(
            r"q(x_t\mid x_{t-1})"
            r" = \mathcal{N}\left(x_t;\, \sqrt{1-\beta_t}\,x_{t-1},\, \beta_t I\right)",
            eq="2",
        ),
        "one_step": _statement(
            r"x_t = \sqrt{1-\beta_t}\,x_{t-1} + \sqrt{\beta_t}\,\epsilon_t,"
            r"\quad \epsilon_t\,\sim\,\mathcal{N}(0, I)"
        ),
        "alpha_bar": _statement(
            r"\bar\alpha_0 = 1, \quad \bar\alpha_t = \prod_{s=1}^{t}(1-\beta_s)"
        ),
        "recursion": _identity(r"\bar\alpha_t = (1-\beta_t)\,\bar\alpha_{t-1}"),
        "claim": _statement(
            r"q(x_t\mid x_0)"
            r" = \mathcal{N}\left(x_t;\, \sqrt{\bar\alpha_t}\,x_0,\, (1-\bar\alpha_t) I\right)",
            eq="4",
        ),
        "base": _identity(
            r"\sqrt{\bar\alpha_1} = \sqrt{1-\beta_1}, \quad 1-\bar\alpha_1 = \beta_1"
        ),
        "hypothesis": _statement(
            r"x_{t-1} = \sqrt{\bar\alpha_{t-1}}\,x_0"
            r" + \sqrt{1-\bar\alpha_{t-1}}\,\bar\epsilon_{t-1},"
            r"\quad \bar\epsilon_{t-1}\,\sim\,\mathcal{N}(0, I)"
        ),
        "insert": _identity(
            r"x_t = \sqrt{1-\beta_t}\,\sqrt{\bar\alpha_{t-1}}\,x_0"
            r" + \sqrt{1-\beta_t}\,\sqrt{1-\bar\alpha_{t-1}}\,\bar\epsilon_{t-1}"
            r" + \sqrt{\beta_t}\,\epsilon_t"
        ),
        "signal": _identity(
            r"\sqrt{1-\beta_t}\,\sqrt{\bar\alpha_{t-1}}"
            r" = \sqrt{(1-\beta_t)\,\bar\alpha_{t-1}} = \sqrt{\bar\alpha_t}"
        ),
        "sum_rule": _statement(
            r"a\,\bar\epsilon_{t-1} + b\,\epsilon_t"
            r"\,\sim\,\mathcal{N}\left(0,\, (a^2+b^2) I\right)"
        ),
        "noise": _identity(
            r"(1-\beta_t)(1-\bar\alpha_{t-1}) + \beta_t"
            r" = 1 - (1-\beta_t)\,\bar\alpha_{t-1} = 1-\bar\alpha_t"
        ),
        "result": _statement(
            r"x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\epsilon,"
            r"\quad \epsilon\,\sim\,\mathcal{N}(0, I)",
            eq="4",
        ),
    },
    "posterior": {
        "bayes": _statement(
            r"q(x_{t-1}\mid x_t, x_0)"
            r" = \frac{q(x_t\mid x_{t-1})\,q(x_{t-1}\mid x_0)}{q(x_t\mid x_0)}"
        ),
        "log": _statement(
            r"-2\log\, q(x_{t-1}\mid x_t, x_0)"
            r" = \frac{(x_t-\sqrt{1-\beta_t}\,x_{t-1})^2}{\beta_t}"
            r" + \frac{(x_{t-1}-\sqrt{\bar\alpha_{t-1}}\,x_0)^2}{1-\bar\alpha_{t-1}}"
            r" + \mathrm{const}"
        ),
        "expand_step": _identity(
            r"\frac{(x_t-\sqrt{1-\beta_t}\,x_{t-1})^2}{\beta_t}"
            r" = \frac{1-\beta_t}{\beta_t}\,x_{t-1}^2"
            r" - 2\,\frac{\sqrt{1-\beta_t}\,x_t}{\beta_t}\,x_{t-1} + \frac{x_t^2}{\beta_t}"
        ),
        "expand_past": _identity(
            r"\frac{(x_{t-1}-\sqrt{\bar\alpha_{t-1}}\,x_0)^2}{1-\bar\alpha_{t-1}}"
            r" = \frac{1}{1-\bar\alpha_{t-1}}\,x_{t-1}^2"
            r" - 2\,\frac{\sqrt{\bar\alpha_{t-1}}\,x_0}{1-\bar\alpha_{t-1}}\,x_{t-1}"
            r" + \frac{\bar\alpha_{t-1}\,x_0^2}{1-\bar\alpha_{t-1}}"
        ),
        "collect": _statement(
            r"-2\log\, q(x_{t-1}\mid x_t, x_0)"
            r" = A\,x_{t-1}^2 - 2B\,x_{t-1} + \mathrm{const}"
        ),
        "coefficients": _identity(
            r"A = \frac{1-\beta_t}{\beta_t} + \frac{1}{1-\bar\alpha_{t-1}},"
            r"\quad B = \frac{\sqrt{1-\beta_t}}{\beta_t}\,x_t"
            r" + \frac{\sqrt{\bar\alpha_{t-1}}}{1-\bar\alpha_{t-1}}\,x_0"
        ),
        "square": _identity(
            r"A\,x_{t-1}^2 - 2B\,x_{t-1}"
            r" = A\left(x_{t-1}-\frac{B}{A}\right)^2 - \frac{B^2}{A}"
        ),
        "read_off": _identity(r"\tilde\beta_t = \frac{1}{A}, \quad \tilde\mu_t = \frac{B}{A}"),
        "common": _identity(
            r"A = \frac{(1-\beta_t)(1-\bar\alpha_{t-1}) + \beta_t}{\beta_t(1-\bar\alpha_{t-1})}"
            r" = \frac{1-\bar\alpha_t}{\beta_t(1-\bar\alpha_{t-1})}"
        ),
        "variance": _identity(
            r"\tilde\beta_t = \frac{1}{A}"
            r" = \frac{1-\bar\alpha_{t-1}}{1-\bar\alpha_t}\,\beta_t",
            eq="7",
        ),
        "mean_product": _identity(
            r"\tilde\mu_t = B\,\tilde\beta_t = \left(\frac{\sqrt{1-\beta_t}}{\beta_t}\,x_t"
            r" + \frac{\sqrt{\bar\alpha_{t-1}}}{1-\bar\alpha_{t-1}}\,x_0\right)"
            r"\frac{1-\bar\alpha_{t-1}}{1-\bar\alpha_t}\,\beta_t"
        ),
        "mean": _identity(
            r"\tilde\mu_t = \frac{\sqrt{\bar\alpha_{t-1}}\,\beta_t}{1-\bar\alpha_t}\,x_0"
            r" + \frac{\sqrt{1-\beta_t}\,(1-\bar\alpha_{t-1})}{1-\bar\alpha_t}\,x_t",
            eq="7",
        ),
        "result": _statement(
            r"q(x_{t-1}\mid x_t, x_0)"
            r" = \mathcal{N}\left(x_{t-1};\, \tilde\mu_t,\, \tilde\beta_t I\right)",
            eq="6",
        ),
        "first_variance": _identity(
            r"\tilde\beta_1 = \frac{1-\bar\alpha_0}{1-\bar\alpha_1}\,\beta_1 = 0"
        ),
        "first_mean": _identity(
            r"\tilde\mu_1 = \frac{\sqrt{\bar\alpha_0}\,\beta_1}{1-\bar\alpha_1}\,x_0"
            r" + \frac{\sqrt{1-\beta_1}\,(1-\bar\alpha_0)}{1-\bar\alpha_1}\,x_1 = x_0"
        ),
    },
    "mean_in_eps": {
        "solve": _identity(
            r"x_0 = \frac{x_t - \sqrt{1-\bar\alpha_t}\,\epsilon}{\sqrt{\bar\alpha_t}}"
        ),
        "insert": _identity(
            r"\tilde\mu_t = \frac{\sqrt{\bar\alpha_{t-1}}\,\beta_t}{1-\bar\alpha_t}"
            r"\cdot\frac{x_t - \sqrt{1-\bar\alpha_t}\,\epsilon}{\sqrt{\bar\alpha_t}}"
            r" + \frac{\sqrt{1-\beta_t}\,(1-\bar\alpha_{t-1})}{1-\bar\alpha_t}\,x_t"
        ),
        "ratio": _identity(
            r"\frac{\sqrt{\bar\alpha_{t-1}}}{\sqrt{\bar\alpha_t}} = \frac{1}{\sqrt{1-\beta_t}}"
        ),
        "coefficient_x": _identity(
            r"\frac{\beta_t}{(1-\bar\alpha_t)\sqrt{1-\beta_t}}"
            r" + \frac{\sqrt{1-\beta_t}\,(1-\bar\alpha_{t-1})}{1-\bar\alpha_t}"
            r" = \frac{\beta_t + (1-\beta_t)(1-\bar\alpha_{t-1})}{(1-\bar\alpha_t)\sqrt{1-\beta_t}}"
        ),
        "cancel": _identity(
            r"\frac{\beta_t + (1-\beta_t)(1-\bar\alpha_{t-1})}{(1-\bar\alpha_t)\sqrt{1-\beta_t}}"
            r" = \frac{1-\bar\alpha_t}{(1-\bar\alpha_t)\sqrt{1-\beta_t}}"
            r" = \frac{1}{\sqrt{1-\beta_t}}"
        ),
        "coefficient_eps": _identity(
            r"-\frac{\beta_t}{1-\bar\alpha_t}\cdot\frac{\sqrt{1-\bar\alpha_t}}{\sqrt{1-\beta_t}}"
            r" = -\frac{1}{\sqrt{1-\beta_t}}\cdot\frac{\beta_t}{\sqrt{1-\bar\alpha_t}}"
        ),
        "mean": _identity(
            r"\tilde\mu_t = \frac{1}{\sqrt{1-\beta_t}}"
            r"\left(x_t - \frac{\beta_t}{\sqrt{1-\bar\alpha_t}}\,\epsilon\right)",
            eq="10",
        ),
        "model": _identity(
            r"\mu_\theta(x_t, t) = \frac{1}{\sqrt{1-\beta_t}}"
            r"\left(x_t - \frac{\beta_t}{\sqrt{1-\bar\alpha_t}}\,\epsilon_\theta(x_t, t)\right)",
            eq="11",
        ),
        "first_mean": _identity(
            r"\frac{1}{\sqrt{1-\beta_1}}"
            r"\left(x_1 - \frac{\beta_1}{\sqrt{1-\bar\alpha_1}}\,\epsilon\right)"
            r" = \frac{x_1 - \sqrt{1-\bar\alpha_1}\,\epsilon}{\sqrt{\bar\alpha_1}} = x_0"
        ),
    },
    "tweedie": {
        "marginal": _statement(r"p_t(x_t) = \int q(x_t\mid x_0)\,p(x_0)\,dx_0"),
        "slope": _identity(
            r"\nabla q(x_t\mid x_0)"
            r" = \frac{\sqrt{\bar\alpha_t}\,x_0 - x_t}{1-\bar\alpha_t}\,q(x_t\mid x_0)"
        ),
        "inside": _statement(
            r"\nabla p_t(x_t) = \int \frac{\sqrt{\bar\alpha_t}\,x_0 - x_t}{1-\bar\alpha_t}"
            r"\,q(x_t\mid x_0)\,p(x_0)\,dx_0"
        ),
        "bayes": _statement(
            r"p(x_0\mid x_t) = \frac{q(x_t\mid x_0)\,p(x_0)}{p_t(x_t)},"
            r" \quad \hat x_0 = \int x_0\,p(x_0\mid x_t)\,dx_0"
        ),
        "result": _identity(
            r"\nabla\log p_t(x_t) = \frac{\nabla p_t(x_t)}{p_t(x_t)}"
            r" = \frac{\sqrt{\bar\alpha_t}\,\hat x_0 - x_t}{1-\bar\alpha_t}"
        ),
        "eps": _identity(
            r"\frac{x_t - \sqrt{\bar\alpha_t}\,\hat x_0}{\sqrt{1-\bar\alpha_t}}"
            r" = -\sqrt{1-\bar\alpha_t}\,\nabla\log p_t(x_t)"
        ),
    },
    "l_simple": {
        "reverse": _statement(
            r"p_\theta(x_{t-1}\mid x_t) = \mathcal{N}\left(x_{t-1};\,"
            r" \mu_\theta(x_t, t),\, \tilde\sigma_t^2 I\right)",
            eq="1",
        ),
        "term": _statement(
            r"L_{t-1} = \mathbb{E}_q\left[D_{\mathrm{KL}}\left(q(x_{t-1}\mid x_t, x_0)"
            r"\,\|\,p_\theta(x_{t-1}\mid x_t)\right)\right]",
            eq="5",
        ),
        "kl": _statement(
            r"D_{\mathrm{KL}}(q\,\|\,p) = \int q(x)\,\log\frac{q(x)}{p(x)}\,dx"
            r" = \mathbb{E}_q\left[\log\frac{q(x)}{p(x)}\right]"
        ),
        "gaussians": _statement(
            r"q(x) = \mathcal{N}\left(x;\, \mu_q,\, \sigma_q^2\right),"
            r"\quad p(x) = \mathcal{N}\left(x;\, \mu_p,\, \sigma_p^2\right)"
        ),
        "log_ratio": _identity(
            r"\log\frac{q(x)}{p(x)} = \frac{1}{2}\log\frac{\sigma_p^2}{\sigma_q^2}"
            r" - \frac{(x-\mu_q)^2}{2\sigma_q^2} + \frac{(x-\mu_p)^2}{2\sigma_p^2}"
        ),
        "spread": _identity(
            r"\mathbb{E}_q\left[x-\mu_q\right] = 0,"
            r"\quad \mathbb{E}_q\left[(x-\mu_q)^2\right] = \sigma_q^2"
        ),
        "shift": _identity(
            r"(x-\mu_p)^2 = (x-\mu_q)^2 + 2(\mu_q-\mu_p)(x-\mu_q) + (\mu_q-\mu_p)^2"
        ),
        "other_spread": _identity(
            r"\mathbb{E}_q\left[(x-\mu_p)^2\right] = \sigma_q^2 + (\mu_q-\mu_p)^2"
        ),
        "assemble": _identity(
            r"D_{\mathrm{KL}}(q\,\|\,p) = \frac{1}{2}\log\frac{\sigma_p^2}{\sigma_q^2}"
            r" - \frac{\sigma_q^2}{2\sigma_q^2} + \frac{\sigma_q^2+(\mu_q-\mu_p)^2}{2\sigma_p^2}"
        ),
        "kl_gaussians": _identity(
            r"D_{\mathrm{KL}}(q\,\|\,p) = \frac{(\mu_q-\mu_p)^2}{2\sigma_p^2}"
            r" + \frac{1}{2}\left(\frac{\sigma_q^2}{\sigma_p^2} - 1"
            r" + \log\frac{\sigma_p^2}{\sigma_q^2}\right)"
        ),
        "means": _statement(
            r"L_{t-1} = \mathbb{E}_q\left[\frac{1}{2\tilde\sigma_t^2}"
            r"\lVert\tilde\mu_t-\mu_\theta(x_t, t)\rVert^2\right] + C",
            eq="8",
        ),
        "constant": _identity(
            r"C = \frac{d}{2}\left(\frac{\tilde\beta_t}{\tilde\sigma_t^2} - 1"
            r" + \log\frac{\tilde\sigma_t^2}{\tilde\beta_t}\right)"
        ),
        "gap": _identity(
            r"\tilde\mu_t-\mu_\theta(x_t, t)"
            r" = \frac{\beta_t}{\sqrt{1-\beta_t}\,\sqrt{1-\bar\alpha_t}}"
            r"\left(\epsilon_\theta(x_t, t)-\epsilon\right)"
        ),
        "weighted": _identity(
            r"\frac{1}{2\tilde\sigma_t^2}\lVert\tilde\mu_t-\mu_\theta(x_t, t)\rVert^2"
            r" = \frac{\beta_t^2}{2\tilde\sigma_t^2(1-\beta_t)(1-\bar\alpha_t)}"
            r"\lVert\epsilon-\epsilon_\theta(x_t, t)\rVert^2",
            eq="12",
        ),
        "eps_loss": _statement(
            r"L_{t-1} - C = \mathbb{E}_{x_0,\,\epsilon}\left[w_t\,\lVert\epsilon-\epsilon_\theta"
            r"\left(\sqrt{\bar\alpha_t}\,x_0+\sqrt{1-\bar\alpha_t}\,\epsilon,\, t\right)"
            r"\rVert^2\right]",
            eq="12",
        ),
        "weight": _identity(
            r"w_t = \frac{\beta_t^2}{2\tilde\sigma_t^2(1-\beta_t)(1-\bar\alpha_t)}",
            eq="12",
        ),
        "weight_beta": _identity(
            r"\frac{\beta_t^2}{2\beta_t(1-\beta_t)(1-\bar\alpha_t)}"
            r" = \frac{\beta_t}{2(1-\beta_t)(1-\bar\alpha_t)}"
        ),
        "weight_posterior": _identity(
            r"\frac{\beta_t^2}{2\tilde\beta_t(1-\beta_t)(1-\bar\alpha_t)}"
            r" = \frac{\beta_t}{2(1-\beta_t)(1-\bar\alpha_{t-1})}"
        ),
        "ideal": _statement(
            r"\mathbb{E}\left[\lVert\epsilon-f\rVert^2\mid x_t\right]"
            r" = \mathbb{E}\left[\lVert\epsilon-\epsilon^\star\rVert^2\mid x_t\right]"
            r" + \lVert\epsilon^\star-f\rVert^2,"
            r"\quad \epsilon^\star = \mathbb{E}\left[\epsilon\mid x_t\right]"
        ),
        "result": _statement(
            r"L_{\mathrm{simple}} = \mathbb{E}_{t,\,x_0,\,\epsilon}\left[\lVert\epsilon"
            r"-\epsilon_\theta\left(\sqrt{\bar\alpha_t}\,x_0+\sqrt{1-\bar\alpha_t}\,\epsilon,"
            r"\, t\right)\rVert^2\right]",
            eq="14",
        ),
    },
}


@cache
def derivations(lang: str = "en") -> tuple[Derivation, ...]:
    """Return the five proofs with their words in `lang`.

    Raises:
        ValueError: an unknown language.

    >>> [d.key for d in derivations()]
    ['closed_form', 'posterior', 'mean_in_eps', 'tweedie', 'l_simple']
    >>> derivations("ko")[0].steps[0].source
    'Ho, Jain, Abbeel 2020 (arXiv:2006.11239), 식 (2)'
    """
    words = texts(lang, "proofs")
    return tuple(
        Derivation(
            key=key,
            title=words[key]["title"],
            intro=words[key]["intro"].strip(),
            steps=tuple(
                Step(
                    key=name,
                    tex=formula.tex,
                    why=words[key]["why"][name],
                    checked=formula.checked,
                    source=words["source"].format(eq=formula.eq) if formula.eq else "",
                )
                for name, formula in formulas.items()
            ),
        )
        for key, formulas in FORMULAS.items()
    )
