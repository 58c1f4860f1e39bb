"""Averages of weights: right in many manners, and wrong ones; an oracle by hand."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from alphabar.check.ema import check_ema
from alphabar.check.report import Finding

DECAY = 0.999


class Plain:
    """A deep copy, no warm-up; what is wrong is put in by `rate`."""

    def __init__(self, model, decay=DECAY):  # type: ignore[no-untyped-def]
        self.decay, self.k, self.ema_model = decay, 0, copy.deepcopy(model)

    def rate(self) -> tuple[float, float]:
        return self.decay, 1 - self.decay

    def update(self, model):  # type: ignore[no-untyped-def]
        a, b = self.rate()
        self.k += 1
        for old, new in zip(self.ema_model.parameters(), model.parameters(), strict=True):
            old.data = a * old.data + b * new.data


def with_rate(rate):  # type: ignore[no-untyped-def]
    return type("Made", (Plain,), {"rate": rate})


class Shadow:
    """A dictionary by name, and weights that are swapped in and out."""

    def __init__(self, model, decay):  # type: ignore[no-untyped-def]
        self.model, self.decay, self.backup = model, decay, {}
        self.shadow = {n: p.data.clone() for n, p in model.named_parameters()}

    def update(self) -> None:
        for n, p in self.model.named_parameters():
            self.shadow[n] = (1.0 - self.decay) * p.data + self.decay * self.shadow[n]

    def apply_shadow(self) -> None:
        for n, p in self.model.named_parameters():
            self.backup[n], p.data = p.data, self.shadow[n]

    def restore(self) -> None:
        for n, p in self.model.named_parameters():
            p.data = self.backup[n]


class Lit(nn.Module):
    """Buffers, and a counter that is a tensor; a call updates."""

    def __init__(self, model, decay=0.9999):  # type: ignore[no-untyped-def]
        super().__init__()
        self.names = {n: n.replace(".", "") for n, _ in model.named_parameters()}
        self.register_buffer("decay", torch.tensor(decay, dtype=torch.float32))
        self.register_buffer("updates", torch.tensor(0, dtype=torch.int))
        for n, p in model.named_parameters():
            self.register_buffer(self.names[n], p.clone().detach().data)

    def forward(self, model) -> None:  # type: ignore[no-untyped-def]
        self.updates += 1
        d = min(self.decay, (1 + self.updates) / (10 + self.updates))
        shadows = dict(self.named_buffers())
        for n, p in model.named_parameters():
            shadows[self.names[n]].sub_((1.0 - d) * (shadows[self.names[n]] - p.data))

    def copy_to(self, model) -> None:  # type: ignore[no-untyped-def]
        shadows = dict(self.named_buffers())
        for n, p in model.named_parameters():
            p.data.copy_(shadows[self.names[n]])


class Corrected:
    def __init__(self, parameters, decay=DECAY):  # type: ignore[no-untyped-def]
        self.sums, self.decay, self.k = [torch.zeros_like(p) for p in parameters], decay, 0

    def step(self, parameters):  # type: ignore[no-untyped-def]
        self.k += 1
        for s, p in zip(self.sums, parameters, strict=True):
            s.mul_(self.decay).add_(p.detach(), alpha=1 - self.decay)

    def average(self):  # type: ignore[no-untyped-def]
        return [s / (1 - self.decay**self.k) for s in self.sums]


class Uncorrected(Corrected):
    def average(self):  # type: ignore[no-untyped-def]
        return self.sums


class EveryTenth(Plain):
    """Copies at first, then averages each tenth update; keeps the model itself, too."""

    def update(self, model):  # type: ignore[no-untyped-def]
        self.k += 1
        if self.k <= 20:
            self.ema_model.load_state_dict(model.state_dict())
        elif self.k % 10 == 0:
            for old, new in zip(self.ema_model.parameters(), model.parameters(), strict=True):
                old.data.lerp_(new.data, 1 - self.decay)


@torch.no_grad()
def update_ema(target_params, source_params, rate=DECAY):  # type: ignore[no-untyped-def]
    for t, s in zip(target_params, source_params, strict=True):
        t.detach().mul_(rate).add_(s, alpha=1 - rate)


def requires_module(ema_model, model, decay):  # type: ignore[no-untyped-def]
    params = dict(ema_model.named_parameters())
    for n, p in model.named_parameters():
        params[n].mul_(decay).add_(p.data, alpha=1 - decay)


def of_tensors(old, new, decay=DECAY):  # type: ignore[no-untyped-def]
    return old * decay + (1 - decay) * new


def of_states(model, average, decay=DECAY):  # type: ignore[no-untyped-def]
    for n in average:
        average[n] = decay * average[n] + (1 - decay) * model[n]


def verdict(make: object, decay: float = DECAY) -> Finding:
    found = check_ema(make, decay)  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize(
    ("make", "decay"),
    [
        (Plain, DECAY),
        (Shadow, 0.99),
        (Lit, 0.9999),
        (EveryTenth, 0.99),
        (with_rate(lambda s: (min(s.decay, s.k / (s.k + 1)), max(1 - s.decay, 1 / (s.k + 1)))),
         0.9999),
        (lambda m: AveragedModel(m, multi_avg_fn=get_ema_multi_avg_fn(0.99)), 0.99),
        (update_ema, DECAY),
        (requires_module, DECAY),
        (of_tensors, DECAY),
        (lambda m: Plain(m, 0.9), 0.9),
        (Corrected, DECAY),
    ],
)  # fmt: skip
def test_right_in_many_manners(make: object, decay: float) -> None:
    found = verdict(make, decay)
    assert found.verdict in ("right", "equivalent"), found


def test_conventions_are_said() -> None:
    assert "bias-corrected" in verdict(Corrected).convention
    assert verdict(Corrected).verdict == "equivalent"
    assert "averages every" in verdict(EveryTenth, 0.99).convention
    assert "buffers are not averaged" in verdict(Plain).convention
    found = check_ema(Lit, 0.9999)
    assert "(1 + k)/(10 + k)" in found.convention


def karras(s: Plain) -> tuple[float, float]:
    d = (1 - 1 / (s.k + 1)) ** (6.94 + 1)
    return d, 1 - d


def test_a_power_function_average_is_equivalent() -> None:
    found = verdict(with_rate(karras))
    assert found.verdict == "equivalent"
    assert "power-function" in found.convention


@settings(max_examples=5, deadline=None)
@given(meant=st.floats(0.5, 0.999), used=st.floats(0.3, 0.9999))
def test_another_decay_is_named(meant: float, used: float) -> None:
    """By hand: an impulse 1 at update j is worth (1 − d)·d^(k − j) at update k."""
    found = check_ema(lambda m: Plain(m, used), meant)
    if abs(used - meant) < 1e-6:
        assert found.verdict == "right"
    elif min(abs(used - meant), abs(1 - used - meant)) > 1e-4:
        assert [d.id for d in found.diagnoses] == ["A33"]
        model = nn.Linear(1, 1, bias=False, dtype=torch.float64)
        model.weight.data.zero_()
        ema = Plain(model, used)
        for w in (1.0, 0.0, 0.0):
            model.weight.data.fill_(w)
            ema.update(model)
        worth = ema.ema_model.weight.item()
        assert worth == pytest.approx((1 - used) * used**2)
        assert f"d_1 = {math.sqrt(worth / (1 - used)):.5g}"[:10] in found.measured


class Overwritten(Plain):
    def rate(self):  # type: ignore[no-untyped-def]
        self.decay = min(self.decay, (1 + self.k) / (10 + self.k))
        return self.decay, 1 - self.decay


class Ignored(Plain):
    def __init__(self, model, decay=DECAY):  # type: ignore[no-untyped-def]
        super().__init__(model, DECAY)


@pytest.mark.parametrize(
    "make",
    [
        Overwritten,
        Ignored,
        with_rate(lambda s: (max(s.decay, s.k / (s.k + 1)), 1 - max(s.decay, s.k / (s.k + 1)))),
        with_rate(lambda s: (s.k / (s.k + 1), 1 / (s.k + 1))),
        with_rate(lambda s: ((1 + s.k) / (10 + s.k), 9 / (10 + s.k))),
        with_rate(lambda s: (0.99, 0.01)),
    ],
)
def test_an_overwritten_decay_is_named(make: object) -> None:
    found = verdict(make)
    assert [d.id for d in found.diagnoses][:1] == ["A33"], found


class Aliased(Plain):
    def __init__(self, model, decay=DECAY):  # type: ignore[no-untyped-def]
        self.decay, self.k, self.ema_model = decay, 0, model


class Backwards(Plain):
    def update(self, model):  # type: ignore[no-untyped-def]
        for old, new in zip(self.ema_model.parameters(), model.parameters(), strict=True):
            new.data = self.decay * old.data + (1 - self.decay) * new.data


class Forgetful(Plain):
    def update(self, model):  # type: ignore[no-untyped-def]
        for old, new in zip(self.ema_model.parameters(), model.parameters(), strict=True):
            old = self.decay * old.data + (1 - self.decay) * new.data


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (with_rate(lambda s: (1 - s.decay, s.decay)), "ema/roles-swapped"),
        (with_rate(lambda s: (s.decay, s.decay)), "ema/weights-do-not-add-up"),
        (with_rate(lambda s: (s.decay, 1.0)), "ema/weights-do-not-add-up"),
        (with_rate(lambda s: (1.0, 0.0)), "ema/never-updates"),
        (Aliased, "ema/the-model-itself"),
        (Backwards, "ema/updates-the-model"),
        (Forgetful, "ema/never-updates"),
        (Uncorrected, "ema/starts-elsewhere"),
        (
            with_rate(lambda s: (s.decay - 0.5 / (1 + s.k), 0.5 / (1 + s.k) + 1 - s.decay)
                      if s.k % 2 else (s.decay, 1 - s.decay)),
            "ema/falling-decay",
        ),
    ],
)  # fmt: skip
def test_other_bugs_are_described(make: object, kind: str) -> None:
    found = verdict(make)
    assert [d.id for d in found.diagnoses] == [kind], found
    assert found.diagnoses[0].remedy


def test_functions_the_wrong_way_round() -> None:
    assert verdict(of_states).verdict == "right"
    found = verdict(lambda old, new, decay=DECAY: (1 - decay) * old + decay * new)
    assert [d.id for d in found.diagnoses] == ["ema/roles-swapped"]


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"decay = 1.5: give a number from 0 to below 1"):
        check_ema(Plain, 1.5)
    found = verdict(lambda: None)
    assert found.verdict == "unchecked"
    assert "lambda model: EMA" in found.why
    assert verdict(lambda model: 1 / 0).verdict == "unchecked"
    assert check_ema(Plain, 0.9, {"decay": 0.9}).verdict == "right"


def test_an_average_that_grows_without_bound_is_told_at_once() -> None:
    found = check_ema(with_rate(lambda self: (1e30, 1.0)), 0.99)
    assert [d.id for d in found.diagnoses] == ["ema/not-finite"]


class Late:
    """Copies at first, and averages from a step on."""

    def __init__(self, share: float = 1.0) -> None:
        self.step, self.share = 0, share

    def update(self, average, model, first=2000):  # type: ignore[no-untyped-def]
        self.step += 1
        d = 0.0 if self.step <= first else DECAY
        for old, new in zip(average.parameters(), model.parameters(), strict=True):
            old.data = d * old.data + (1 - d) * self.share * new.data


def test_an_average_that_begins_after_some_steps() -> None:
    found = verdict(Late().update)
    assert found.verdict == "right", found
    assert "warm-up" in found.convention
    found = verdict(Late(0.5).update)
    assert [d.id for d in found.diagnoses] == ["ema/weights-do-not-add-up"]
