"""Networks by import path: the person's to give, never a run's; and what they may not do."""

from pathlib import Path

import pytest
import torch

from alphabar.imports import imported
from alphabar.nets import is_own, recipe
from command_line import Run

CODE = """
import torch
from torch import nn

print("imported")

class Net(nn.Module):
    def __init__(self, shape, classes=0):
        super().__init__()
        self.f = nn.Linear(shape[0] + 1, shape[0])

    def forward(self, x, label):
        return self.f(torch.cat([x, label[:, None]], 1))

class Short(Net):
    def forward(self, x, label):
        return x[:, :1]

class Raises(Net):
    def forward(self, x, label):
        raise KeyError("inside")

def no_module(**task):
    return sorted(task)

def breaks(shape):
    raise RuntimeError("no such size")

number = 3
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the present folder, of a name that no other test has."""
    name = f"own_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_a_network_of_ones_own_is_built_for_the_task(here: str) -> None:
    made = recipe(f"{here}:Net")
    assert made.spec == made.fitted((3,)).spec == f"{here}:Net"
    net, again = made.build((3,), 5), made.build((3,), 5)
    x, label = torch.randn(4, 3), torch.randn(4)
    assert torch.equal(net(x, label), again(x, label))  # the seed makes the weights
    assert net(x, label).shape == (4, 3)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Short", r"answers Tensor of shape \(2, 1\): it must be a tensor of shape \(2, 2\)"),
        ("Raises", r"with x \(2, 2\) and label \(2,\) it raises KeyError: 'inside'"),
        ("no_module", "gives list: it must be a torch module"),
        ("breaks", "making it raises RuntimeError: no such size"),
        ("number", "number cannot be called"),
        ("Nothing", "has nothing of that name"),
    ],
)
def test_what_it_may_not_do(here: str, name: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        recipe(f"{here}:{name}").build((2,), 0)(torch.zeros(2, 2), torch.zeros(2))


def test_names_that_lead_nowhere(here: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no module nowhere_at_all"):
        imported("nowhere_at_all:Net", "--net")
    with pytest.raises(ValueError, match=r"--features a\.b: write package\.module:name"):
        imported("a.b", "--features")
    (tmp_path / f"{here}_broken.py").write_text("1 / 0")
    with pytest.raises(ValueError, match="raises ZeroDivisionError: division by zero; mend it"):
        imported(f"{here}_broken:Net", "--net")
    assert not is_own("mlp:width=3")
    assert not is_own("mlp:width")  # a spec with a mistake in it
    with pytest.raises(ValueError, match="did you mean mlp"):
        recipe("mlpp:width=3")


def test_a_run_does_not_choose_what_is_imported(run: Run, here: str) -> None:
    few = ("--steps", 3, "--levels", "logistic", "--schedule", "linear:T=1")
    assert run("train", "moons:n=50", "--net", f"{here}:Net", "-o", "r", *few).code == 0
    for command in ("sample r -n 3", "evaluate r", "decompose r", "train -o r --resume"):
        result = run(*command.split())
        assert result.code == 2
        assert f"--net {here}:Net" in result.err
        assert "imported" not in result.out
    assert run("sample", "r", "-n", 3, "-o", "x.csv", "--net", f"{here}:Net").code == 0
    assert "was begun with" in run("train", "-o", "r", "--resume", "--net", "mlp").err
    result = run("sample", "r", "-n", 3, "--net", f"{here}:Short")
    assert result.code == 2
