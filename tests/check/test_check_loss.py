"""Training losses: the x_t that the model is shown, the t that they draw, and what is no number."""

import pytest
import torch
from torch.nn.functional import l1_loss, smooth_l1_loss

from alphabar import check
from alphabar.check.report import Report

T = 100
BETAS = torch.linspace(1e-3, 0.2, T)
BARS = torch.cumprod(1 - BETAS, 0)


def column(values, x):  # type: ignore[no-untyped-def]
    return values.reshape(-1, *[1] * (x.ndim - 1))


def mixed(x_0, t, z, bars=BARS):  # type: ignore[no-untyped-def]
    bar = column(bars[t], x_0)
    return bar.sqrt() * x_0 + (1 - bar).sqrt() * z


def ids(report: Report) -> list[str]:
    assert report.verdict == "bug", report
    return [d.id for f in report.functions for d in f.diagnoses]


def drawing(low: int, high: int, shift: int):  # type: ignore[no-untyped-def]
    """A loss that draws t from low to high − 1 where none is given, and reads ᾱ at t − shift."""

    def loss(model, x_0, t=None, noise=None):  # type: ignore[no-untyped-def]
        t = torch.randint(low, high, (len(x_0),)) if t is None else t
        z = torch.randn_like(x_0) if noise is None else noise
        return ((model(mixed(x_0, t - shift, z), t) - z) ** 2).mean()

    return loss


@pytest.mark.parametrize("facts", [(0, T, 0), (1, T + 1, 1)])
def test_t_that_is_drawn_as_it_is_read_is_right(facts: tuple[int, int, int]) -> None:
    report = check.loss(drawing(*facts), BETAS)
    assert report.verdict == "right", report


def test_t_from_0_where_tables_are_read_from_1_is_a_bug() -> None:
    report = check.loss(drawing(0, T, 1), BETAS)
    assert ids(report) == ["loss/other-t-drawn"]
    assert f"from 0 to {T - 1}" in str(report)
    assert f"from 1 to {T}" in str(report)


def absolute(error=l1_loss, mix=mixed, target="eps"):  # type: ignore[no-untyped-def]
    def loss(model, x_0, t, noise=None):  # type: ignore[no-untyped-def]
        z = torch.randn_like(x_0) if noise is None else noise
        x_t = mix(x_0, t, z)
        wanted = {"eps": z, "x_0": x_0, "x_t": x_t}[target]
        return error(model(x_t, t), wanted)

    return loss


def test_an_absolute_error_is_right() -> None:
    report = check.loss(absolute(), BETAS)
    assert report.verdict == "right", report


def no_root(x_0, t, z):  # type: ignore[no-untyped-def]
    bar = column(BARS[t], x_0)
    return bar.sqrt() * x_0 + (1 - bar) * z


def shifted(x_0, t, z):  # type: ignore[no-untyped-def]
    return mixed(x_0, t, z) + 0.5


@pytest.mark.parametrize(
    ("error", "mix", "id_"),
    [
        (smooth_l1_loss, no_root, "marginal/z:-no-root-of-noise"),
        (l1_loss, shifted, "marginal/constant"),
    ],
)
def test_an_absolute_error_of_a_wrong_x_t_is_a_bug(error, mix, id_) -> None:  # type: ignore[no-untyped-def]
    assert ids(check.loss(absolute(error, mix), BETAS)) == [id_]


@pytest.mark.parametrize(("target", "id_"), [("x_0", "loss/asks-for-x_0"), ("x_t", "A20")])
def test_an_absolute_error_of_the_wrong_answer_is_a_bug(target: str, id_: str) -> None:
    """Also where the noise handed over could be taken for the data, and the data for the noise."""
    assert ids(check.loss(absolute(target=target), BETAS)) == [id_]


def unlucky(where, error=torch.square):  # type: ignore[no-untyped-def]
    def loss(model, x_0, t, noise):  # type: ignore[no-untyped-def]
        each = error(model(mixed(x_0, t, noise), t) - noise).flatten(1).mean(1)
        return torch.where(where(t), torch.nan, 1.0).mul(each).mean()

    return loss


@pytest.mark.parametrize(
    ("where", "words", "error"),
    [
        (lambda t: t >= 0, "NaN or infinite at every t", torch.square),
        (lambda t: t > 96, "NaN or infinite at t = 97, 98, 99", torch.square),
        (lambda t: t == 33, "NaN or infinite at t = 33", torch.abs),
        (lambda t: t == 0, "NaN or infinite at t = 0", torch.square),
    ],
)
def test_where_a_loss_is_nan_is_told(where, words: str, error) -> None:  # type: ignore[no-untyped-def]
    report = check.loss(unlucky(where, error), BETAS)
    assert ids(report) == ["loss/not-finite"]
    assert words in str(report)


def test_clean_data_need_have_no_target() -> None:
    with_clean = torch.cat([torch.ones(1), BARS])

    def loss(model, x_0, t, noise):  # type: ignore[no-untyped-def]
        bar = column(with_clean[t], x_0)
        score = -noise / (1 - bar).sqrt()
        return ((model(mixed(x_0, t, noise, with_clean), t) - score) ** 2).mean()

    report = check.loss(loss, BETAS, predicts="score")
    assert report.verdict == "right", report


def test_a_level_may_count_nothing() -> None:
    """With ᾱ_T = 0 the SNR is 0, and so is its weight."""
    betas = BETAS.clone()
    betas[-1] = 1.0
    bars = torch.cumprod(1 - betas, 0)

    def loss(model, x_0, t, noise):  # type: ignore[no-untyped-def]
        each = ((model(mixed(x_0, t, noise, bars), t) - x_0) ** 2).flatten(1).mean(1)
        return (bars[t] / (1 - bars[t]) * each).mean()

    report = check.loss(loss, betas, predicts="x_0")
    assert report.verdict == "right", report


def test_a_loss_that_the_answer_does_not_change_is_a_bug() -> None:
    def loss(model, x_0, t, noise):  # type: ignore[no-untyped-def]
        return 0.0 * ((model(mixed(x_0, t, noise), t) - noise) ** 2).mean()

    report = check.loss(loss, BETAS)
    assert ids(report) == ["loss/not-finite"]


@pytest.mark.parametrize("error", [torch.square, torch.abs])
def test_noise_with_a_default_may_be_left_out(error) -> None:  # type: ignore[no-untyped-def]
    def loss(model, x_0, t, noise=None):  # type: ignore[no-untyped-def]
        return error(model(mixed(x_0, t, noise), t) - noise).mean()

    report = check.loss(loss, BETAS)
    assert ids(report) == ["loss/not-optional"]
    assert "without noise, which has a default" in str(report)


def test_t_with_a_default_may_be_left_out() -> None:
    def loss(model, x_0, t=None):  # type: ignore[no-untyped-def]
        z = torch.randn_like(x_0)
        return ((model(mixed(x_0, t, z), t) - z) ** 2).mean()

    report = check.loss(loss, BETAS)
    assert ids(report) == ["loss/not-optional"]
    assert "without t, which has a default" in str(report)


def test_one_t_for_all_items_is_fragile() -> None:
    def loss(model, x_0, t, noise):  # type: ignore[no-untyped-def]
        abar = BARS[t]  # of (B,), which does not fit (B, D)
        x_t = abar.sqrt() * x_0 + (1 - abar).sqrt() * noise
        return ((model(x_t, t) - noise) ** 2).mean()

    report = check.loss(loss, BETAS)
    assert report.verdict == "fragile"
    assert "one t for all items" in report.functions[0].why


def with_label(model, x_0, t, cond=None, noise=None):  # type: ignore[no-untyped-def]
    z = torch.randn_like(x_0) if noise is None else noise
    return ((model(mixed(x_0, t, z), t, cond) - z) ** 2).mean()


def with_own_t(model, x_0, labels=None):  # type: ignore[no-untyped-def]
    return with_label(model, x_0, torch.randint(0, T, (len(x_0),)), labels)


def with_label_needed(model, x_0, t, y):  # type: ignore[no-untyped-def]
    return with_label(model, x_0, t, y)


def with_both_needed(model, x_0, y):  # type: ignore[no-untyped-def]
    return with_own_t(model, x_0, y)


@pytest.mark.parametrize("loss", [with_label, with_own_t, with_label_needed, with_both_needed])
def test_what_is_only_handed_on_to_the_model_is_a_label(loss) -> None:  # type: ignore[no-untyped-def]
    assert check.loss(loss, BETAS).verdict == "right"


def test_one_random_t_for_a_whole_batch_is_no_bug() -> None:
    def loss(model, x_0):  # type: ignore[no-untyped-def]
        return with_label(model, x_0, torch.randint(0, T, (1,)).expand(len(x_0)))

    assert check.loss(loss, BETAS).verdict == "right"


# --- flows


def flow(target, unit: float = 1.0, to_data: bool = False):  # type: ignore[no-untyped-def]
    """A loss that draws its own t; noise of 1e-3 is left at the data."""

    def loss(model, x, least=1e-3 if to_data else 0.0):  # type: ignore[no-untyped-def]
        t = torch.rand(len(x))
        z, u = torch.randn_like(x), t.view(-1, *[1] * (x.ndim - 1))
        x_t = (1 - (1 - least) * u) * z + u * x if to_data else (1 - u) * x + u * z
        return ((model(x_t, unit * t) - target(x, z, least)) ** 2).mean()

    return loss


@pytest.mark.parametrize(
    ("loss", "verdict", "words"),
    [
        (flow(lambda x, z, m: x - (1 - m) * z, to_data=True), "equivalent", "σ_min = 0.001"),
        (flow(lambda x, z, m: x - z, to_data=True), "equivalent", "t = 1 data"),
        (flow(lambda x, z, m: x - (1 - 30 * m) * z, to_data=True), "bug", ""),
        (flow(lambda x, z, m: z - x, 1000.0), "right", "told 1000·t"),
        (flow(lambda x, z, m: z + x, 1000.0), "bug", "told 1000·t"),
    ],
)
def test_flows_with_least_noise_and_other_units_of_t(loss, verdict: str, words: str) -> None:  # type: ignore[no-untyped-def]
    report = check.loss(loss, predicts="flow", scale="flow")
    assert report.verdict == verdict, report
    assert words in report.functions[0].convention
