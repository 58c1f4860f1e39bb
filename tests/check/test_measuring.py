"""What check measures and how it explains it, against numbers typed here and against simulation."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from alphabar import check
from alphabar.check.affine import Affine, NotFinite, Value, fit, measure
from alphabar.check.explain import Convention, Series, explain
from alphabar.check.formula import Base, Formula, Moves, Process, edits
from alphabar.check.loop import Audit, _reread
from alphabar.check.report import CheckFailed, Diagnosis, Finding, Report
from alphabar.check.scales import table

BETAS = np.linspace(1e-3, 0.2, 50)
ABAR = np.concatenate([[1.0], np.cumprod(1 - BETAS)])
PROCESS = Process(torch.from_numpy(BETAS))
F = Formula.of


def at(formula: Formula, *t: int, process: Process = PROCESS) -> list[float]:
    return formula.at(process, torch.tensor(t)).tolist()


def test_formulas_are_their_numbers() -> None:
    t = 7
    assert at(F(abar=0.5), t) == pytest.approx([ABAR[t] ** 0.5])
    assert at(F(noise=1), t) == pytest.approx([1 - ABAR[t]])
    assert at(F(alpha=-0.5, before={"noise": 1}), t) == pytest.approx(
        [(1 - ABAR[t - 1]) / math.sqrt(1 - BETAS[t - 1])]
    )
    assert at(F(-2.0, beta=1), t) == pytest.approx([-2 * BETAS[t - 1]])
    assert at(F(before={"noise": 0.5}), 1) == [0.0]  # nothing is lost at t = 0
    assert math.isnan(at(F(abar=0.5).shifted(1), 50)[0])  # there is no t = 51
    assert str(F(abar=0.5, noise=-1)) == "√ᾱ_t/(1 − ᾱ_t)"
    assert str(F(0.0)) == "0"


def log_snr(*t: int) -> list[float]:
    return [math.log(ABAR[i] / (1 - ABAR[i])) if i else math.inf for i in t]


def test_a_path_has_steps_of_its_own() -> None:
    path = Moves.between(log_snr(50, 20, 4), log_snr(20, 4, 0))
    for k, (t, s) in enumerate(((50, 20), (20, 4), (4, 0)), start=1):
        assert at(F(alpha=1), k, process=path) == pytest.approx([ABAR[t] / ABAR[s]])
        assert at(F(beta=1), k, process=path) == pytest.approx([1 - ABAR[t] / ABAR[s]])
        assert at(F(before={"abar": 1}), k, process=path) == pytest.approx([ABAR[s]])
    assert path.is_last(torch.tensor([1, 2, 3])).tolist() == [False, False, True]


def test_edits_are_other_formulas() -> None:
    right = F(beta=1, noise=-1, before={"abar": 0.5})
    found = [edit.formula for edit in edits(right)]
    assert right not in found
    assert F(beta=1, noise=-1, before={"abar": 1.0}) in found
    assert F(beta=1, before={"abar": 0.5}) in found
    assert F(-1.0, beta=1, noise=-1, before={"abar": 0.5}) in found
    assert Formula.made(1.0, {Base("beta"): 1, Base("noise"): -1, Base("abar", 1): 0.5}) in found


def test_noise_that_is_recorded_makes_coefficients_exact() -> None:
    x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    found = measure(lambda: 0.3 * x + 0.7 * torch.randn_like(x), {"x": x})
    assert found.exact
    assert (found.law, found.shares) == ("normal", "")
    assert found.of["x"].value == pytest.approx(0.3, abs=1e-6)
    assert abs(found.noise.value) == pytest.approx(0.7, abs=1e-6)
    uniform = measure(lambda: 0.3 * x + 0.7 * torch.rand(x.shape), {"x": x})
    assert uniform.law == "uniform"
    assert uniform.noise.value == pytest.approx(0.7 / math.sqrt(12), abs=1e-6)
    assert uniform.constant.value == pytest.approx(0.35, abs=1e-6)
    shared = measure(lambda: x + torch.randn(1, 3), {"x": x})
    assert shared.shares == "all items"


def test_noise_from_elsewhere_is_estimated() -> None:
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(40_000, 3)))
    found = fit(0.3 * x + 0.7 * torch.from_numpy(rng.normal(size=x.shape)), {"x": x}, [])
    assert not found.exact
    assert found.of["x"].value == pytest.approx(0.3, abs=6 * found.of["x"].error)
    assert found.of["x"].error < 0.003
    assert found.noise.value == pytest.approx(0.7, abs=6 * found.noise.error)
    assert (found.law, found.leans, found.shares) == ("normal", "", "")
    flat = fit(x + torch.from_numpy(rng.uniform(-1, 1, size=x.shape)), {"x": x}, [])
    assert flat.law == "uniform"
    leaning = fit(x + x * torch.from_numpy(rng.normal(size=x.shape)), {"x": x}, [])
    assert leaning.leans == "x"
    with pytest.raises(NotFinite):
        fit(x / 0, {"x": x}, [])


def series(values: list[float]) -> Series:
    return Series(torch.tensor(values).double(), torch.full((len(values),), 1e-9).double())


def test_a_chain_is_explained_by_its_one_step() -> None:
    """By simulation of the variance: β in place of √β, step by step."""
    index = torch.tensor([1, 3, 10, 50])
    kept, variance, values, noises = 1.0, 0.0, {}, {}
    for t, beta in enumerate(BETAS, start=1):
        kept *= math.sqrt(1 - beta)
        variance = (1 - beta) * variance + beta**2
        values[t], noises[t] = kept, math.sqrt(variance)
    chain = Convention("chain", {"x": F(alpha=0.5), "z": F(beta=0.5)}, is_chain=True)
    measured = {
        "x": series([values[int(t)] for t in index]),
        "z": series([noises[int(t)] for t in index]),
    }
    (found,) = explain(measured, index, [chain], (1,), PROCESS)
    assert [part.found and part.found.kind for part in found.parts] == [None, "no root of beta"]


def betas() -> Tensor:
    return torch.linspace(1e-4, 0.2, 100)


def test_the_post_s_step_has_two_bugs_and_both_are_named() -> None:
    beta = betas()

    def step(x: Tensor, t: int) -> Tensor:
        return torch.sqrt(1 - beta[t]) * x + beta[t] * torch.rand(x.shape)

    report = check.transition(step, betas=beta)
    assert report.verdict == "bug"
    assert [d.id for d in report.functions[0].diagnoses] == ["A1", "A2"]
    with pytest.raises(CheckFailed, match="β where √β is meant"):
        report.raise_if_failed()
    assert "uniform" in str(report)


def test_conventions_are_not_bugs() -> None:
    abar = (1 - betas()).cumprod(0)
    padded = torch.cat([torch.ones(1), abar])

    def from_0(x: Tensor, t: Tensor) -> Tensor:
        return abar[t].sqrt()[:, None] * x + (1 - abar[t]).sqrt()[:, None] * torch.randn_like(x)

    def from_1(t: Tensor, x: Tensor) -> Tensor:
        return padded[t].sqrt()[:, None] * x + (1 - padded[t]).sqrt()[:, None] * torch.randn_like(x)

    def exploding(x: Tensor, t: Tensor) -> Tensor:
        return x + ((1 - abar[t]) / abar[t]).sqrt()[:, None] * torch.randn_like(x)

    verdicts = [check.marginal(f, betas=betas()).verdict for f in (from_0, from_1, exploding)]
    assert verdicts == ["right", "right", "equivalent"]
    convention = check.marginal(from_1, betas=betas()).functions[0].convention
    assert "t counts from 1" in convention
    assert "called with (t, x_0)" in convention


def test_what_cannot_be_called_is_said() -> None:
    report = check.marginal(lambda a, b, c, d, e: a, betas=betas())
    assert report.verdict == "unchecked"
    assert "takes 5 arguments" in report.functions[0].why

    def fails(x: Tensor, t: Tensor) -> Tensor:
        raise RuntimeError("needs a GPU")

    assert "needs a GPU" in check.marginal(fails, betas=betas()).functions[0].why
    report.raise_if_failed()  # it is no bug


def test_the_worst_verdict_is_the_report_s() -> None:
    def one(verdict: str) -> Finding:
        return Finding("f", "step", verdict, "law", "a", "b", (Diagnosis("A1", "n", "e", "r"),))  # type: ignore[arg-type]

    assert Report((one("right"), one("bug"), one("unchecked"))).verdict == "bug"
    assert Report((one("equivalent"), one("right"))).verdict == "equivalent"
    assert Report().verdict == "unchecked"
    document = Report((one("fragile"),)).to_dict()
    assert document["functions"][0]["diagnoses"] == [
        {"id": "A1", "name": "n", "explains": "e", "remedy": "r"}
    ]


@pytest.mark.parametrize("predicts", ["eps", "x_0", "v"])
def test_a_step_reread_at_another_level(predicts: str) -> None:
    """0.8·x − 0.3·answer: of x_0 and ε by the level that was told, and by the one that was used."""

    def made_of(t: int) -> dict[str, Value]:
        a, b = math.sqrt(ABAR[t]), math.sqrt(1 - ABAR[t])
        answer = {"eps": (0, 1), "x_0": (1, 0), "v": (-b, a)}[predicts]
        x_0, eps = 0.8 * a - 0.3 * answer[0], 0.8 * b - 0.3 * answer[1]
        return {"x_0": Value(x_0, 1e-9), "ε": Value(eps, 1e-9)}

    told = Affine(made_of(30), Value(0.0, 0.0), Value(0.0, 0.0), "none", True)
    audit = Audit(table(PROCESS, 1), predicts, [30.0], {1: told}, {1: []}, [], None, [math.inf])
    found = _reread(audit, log_snr(12))[1]
    for name, expected in made_of(12).items():
        assert found.of[name].value == pytest.approx(expected.value, abs=1e-12)


@pytest.mark.parametrize("wrong", [[], [1.0, 0.1], [0.0, 0.1], [[0.1, 0.2]], [0.1, math.nan], "b"])
def test_betas_that_mean_nothing(wrong: object) -> None:
    with pytest.raises(ValueError, match="betas"):
        check.marginal(lambda x, t: x, betas=wrong)


def test_a_prediction_that_there_is_not() -> None:
    for one in (check.step, check.sampler, check.loss):
        with pytest.raises(ValueError, match="predicts = 'noise': choose eps"):
            one(lambda model, x, t: x, betas=betas(), predicts="noise")
    with pytest.raises(ValueError, match="predicts = 'flow': choose eps, x_0, v"):
        check.sampler(lambda model, x: x, betas=betas(), predicts="flow")


@pytest.mark.parametrize(
    "odd", [np.array([None, 1]), np.array(["a"]), torch.eye(3).to_sparse(), None, "x", {}, object()]
)
def test_odd_results_are_unchecked(odd: object) -> None:
    for one in (check.marginal, check.transition, check.posterior, check.step, check.loss):
        assert one(lambda x, t: odd, betas=betas()).verdict == "unchecked"
    assert check.schedule(lambda t: odd, gives="sigma_prime").verdict == "unchecked"


def test_what_fails_in_the_middle_is_unchecked_and_what_is_misspelt_is_not() -> None:
    left = iter(range(3))

    def tires(x_0: Tensor, t: Tensor) -> Tensor:
        next(left)
        return x_0

    assert check.marginal(tires, betas=betas()).verdict == "unchecked"
    with pytest.raises(TypeError, match="betaz"):
        check.marginal(tires, betaz=betas())
