"""Which examples share a row."""

import itertools

import numpy as np
import pytest

from omni_jax.input_pipeline.packing import best_fill
from omni_jax.input_pipeline.task_stream import shuffled_keys


@pytest.mark.parametrize("seed", range(20))
def test_no_other_choice_fills_more(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 60, rng.integers(0, 9)).tolist()
    room = int(rng.integers(1, 150))
    chosen = best_fill(sizes, room)
    assert len(set(chosen)) == len(chosen)
    sums = [sum(part) for count in range(len(sizes) + 1) for part in itertools.combinations(sizes, count)]
    assert sum(sizes[index] for index in chosen) == max(total for total in sums if total <= room)


def test_of_equal_choices_the_older_examples_go_first():
    assert best_fill([3, 3, 3, 3], 6) == [0, 1]
    assert best_fill([9, 2, 2, 4], 4) == [1, 2]


@pytest.mark.parametrize("num_keys", [1, 3, 1000, 70_000])
def test_every_epoch_has_every_key_once_in_another_order(num_keys):
    keys = shuffled_keys(num_keys, seed=5)
    epochs = [[keys[epoch * num_keys + place] for place in range(min(num_keys, 1000))] for epoch in (0, 1)]
    for epoch in epochs:
        assert len(set(epoch)) == len(epoch) and set(epoch) <= set(range(num_keys))
    assert num_keys < 1000 or epochs[0] != epochs[1]
