"""Shares hold in every stretch of the stream, follow their schedule and the sizes of the sources."""

import json
import math

import numpy as np
import pytest

from omni_jax.config import DataConfig
from omni_jax.errors import UserError
from omni_jax.input_pipeline.mixing import Debts, make_mixture
from omni_jax.input_pipeline.tasks import Task

WINDOW, TOLERANCE = 10_000, 0.01
SHARES = {"text": 0.4, "asr": 0.3, "dialogue": 0.295, "see": 0.005}
MEAN_POSITIONS = {Task.TEXT: 30, Task.ASR: 90, Task.DIALOGUE: 130, Task.SEE: 1}
SHARDS, ROUND = 64, 8
SIZES = dict.fromkeys(Task, 1)


def draw(debts, rng, count, batch):
    """(task, positions) of `count` examples."""
    drawn = []
    for _ in range(count):
        task = debts.next(batch)
        positions = max(1, round(rng.gamma(4.0) / 4.0 * MEAN_POSITIONS[task]))
        debts.pay(task, positions, batch)
        drawn.append((task, positions))
    return drawn


def stream(mixture, examples, resume_every=0):
    """What 64 shards draw in turn, some examples a batch each; killed and resumed now and then."""
    costs = {task: mixture.cost(MEAN_POSITIONS[task]) for task in mixture.tasks}
    shards = [Debts(mixture, costs, np.random.default_rng([0, shard])) for shard in range(SHARDS)]
    rng, drawn, batch = np.random.default_rng(1), [], 0
    while len(drawn) < examples:
        for number, debts in enumerate(shards):
            drawn += draw(debts, rng, ROUND, batch)
            if resume_every and (batch + 1) % resume_every == 0:
                shards[number] = Debts(mixture, costs, np.random.default_rng(99))
                shards[number].set_state(json.loads(json.dumps(debts.get_state())))
        batch += 1
    return np.array(drawn), batch


def worst_error(drawn, shares, of_examples):
    """Largest difference between realised and asked share of any task in any window."""
    worst = 0.0
    weight = np.ones(len(drawn)) if of_examples else drawn[:, 1]
    total = np.concatenate([[0], np.cumsum(weight)])
    for task, share in shares.items():
        own = np.concatenate([[0], np.cumsum(np.where(drawn[:, 0] == task, weight, 0))])
        realised = (own[WINDOW:] - own[:-WINDOW]) / (total[WINDOW:] - total[:-WINDOW])
        worst = max(worst, np.abs(realised - share).max())
    return worst


@pytest.mark.parametrize("share_of", ["positions", "examples"])
def test_shares_hold_in_every_window(share_of):
    mixture = make_mixture(DataConfig(tasks=SHARES, share_of=share_of), SIZES)
    drawn, _ = stream(mixture, 3 * WINDOW, resume_every=7)
    assert worst_error(drawn, mixture.at(0), mixture.of_examples) < TOLERANCE


def test_a_resume_changes_nothing():
    mixture = make_mixture(DataConfig(tasks=SHARES), SIZES)
    np.testing.assert_array_equal(stream(mixture, 2000)[0], stream(mixture, 2000, resume_every=1)[0])


def test_a_schedule_takes_effect_at_once_and_makes_up_for_nothing():
    tasks = {"text": ((0, 1.0), (10, 0.25)), "asr": ((0, 0.0), (10, 0.75))}
    mixture = make_mixture(DataConfig(tasks=tasks, share_of="examples"), SIZES)
    assert mixture.at(9) == {Task.TEXT: 1.0, Task.ASR: 0.0} and mixture.at(10) == {Task.TEXT: 0.25, Task.ASR: 0.75}
    debts, rng = Debts(mixture, SIZES, np.random.default_rng(0)), np.random.default_rng(1)
    assert {task for task, _ in draw(debts, rng, 500, 9)} == {Task.TEXT}
    after = [task for task, _ in draw(debts, rng, 100, 10)]
    assert after.count(Task.ASR) == pytest.approx(75, abs=2)


def test_a_temperature_makes_shares_of_sizes():
    sizes = {Task.TEXT: 900, Task.ASR: 100}
    for temperature, text in ((1.0, 0.9), (2.0, 0.75), (1e9, 0.5), (0.0, 0.5)):
        data = DataConfig(tasks={"text": 1.0, "asr": 1.0}, temperature=temperature)
        assert math.isclose(make_mixture(data, sizes).at(0)[Task.TEXT], text, rel_tol=1e-6)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (-1.0, "want a share of at least 0"),
        ("half", "want a share"),
        (((5, 1.0),), "rising steps from 0"),
        (((0, 1.0), (9, 0.0)), "above 0 at step 9"),
        (((0, 1.0), (0, 0.0)), "rising steps"),
    ],
)
def test_wrong_shares_are_named(value, message):
    with pytest.raises(UserError, match=message):
        make_mixture(DataConfig(tasks={"text": value}), SIZES)
