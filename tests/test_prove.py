"""What is too long for CI: `make prove`. Every chain at full length, and the study at full size."""

import math

import pytest
import torch
from scipy import stats

from alphabar import data, schedule
from alphabar.forward import marginal, walk
from alphabar.schedule import SCHEDULES
from alphabar.study import study

FALSE_ALARM = 1e-6
NAMED = [entry.name for entry in SCHEDULES if entry.takes_no_argument]

pytestmark = pytest.mark.prove


@pytest.mark.parametrize("name", NAMED)
def test_a_thousand_steps_are_one_move(name: str) -> None:
    """All named schedules, T = 1000, 200,000 items: KS and second moments of x_T."""
    n = 200_000
    table = SCHEDULES.parse(name)
    x_0 = torch.tensor([0.5, -1.5], dtype=torch.float64).expand(n, 2)
    x_t = x_0
    for _, x in walk(table, x_0, torch.Generator().manual_seed(7)):
        x_t = x
    law = marginal(table[table.T], x_0[:1])
    z = (x_t - law.mean) / law.var.sqrt()
    limit = math.sqrt(math.log(4 * len(NAMED) / FALSE_ALARM) / 2 / n)
    for column in z.unbind(1):
        assert stats.kstest(column.numpy(), "norm").statistic < limit
    assert (z.T @ z / n - torch.eye(2)).abs().max() < 6 * math.sqrt(2 / n)


def test_the_study_comes_as_close_as_the_readme_says() -> None:
    """The default study, three seeds: the README says 1.5 to 1.8."""
    ratios = []
    for seed in range(3):
        found = study(
            data.swiss_roll(), None, schedule.linear(), seed, 4000, lambda *_: lambda: None
        )
        ratios.append(found.sampled[0].score.ratio)
    print(ratios)
    assert sum(ratios) / 3 < 2.0
    assert max(ratios) < 2.5
