"""Which examples share a row."""

import itertools

import numpy as np
import pytest

from omni_jax.input_pipeline.packing import best_fill


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
