import numpy as np
import pytest

from omni_jax.evals.turn_ends import ends, matched, turn_ends
from omni_jax.evals.turns import TurnExample
from omni_jax.types import TurnState

from .waves import tone

IDLE, TURN, PAUSE, MURMUR = TurnState.IDLE, TurnState.TURN, TurnState.PAUSE, TurnState.BACKCHANNEL


def example(predicted=None, number=0):
    """0.8 s of silence, a turn with a pause until 4 s, a murmur, silence; 10 frames are 0.8 s."""
    states = np.repeat([IDLE, TURN, PAUSE, TURN, IDLE, MURMUR, IDLE], [10, 20, 10, 10, 10, 5, 5])
    wav = tone(((800, 2400), (3200, 4000), (4800, 5200)), 5600, 16_000)
    return TurnExample(wav, states, states if predicted is None else predicted, {"dialogue": str(number)})


def test_pauses_and_murmurs_are_no_ends():
    np.testing.assert_array_equal(ends(example().states), [50])


def test_an_end_that_is_late_by_more_than_240_ms_or_comes_twice_is_wrong():
    states = example().states
    in_time, late, twice = states.copy(), states.copy(), states.copy()
    in_time[50:53] = TURN
    late[50:54] = TURN
    twice[30:32] = IDLE
    values = [turn_ends([example(predicted)])["turn_end_f1_240ms"] for predicted in (states, in_time, late, twice)]
    assert values == pytest.approx([1.0, 1.0, 0.0, 2 / 3])


def test_an_end_counts_when_it_is_named():
    """Two frames late as always, and one or two more."""
    states = example().states
    one_more, two_more = states.copy(), states.copy()
    one_more[50], two_more[50:52] = TURN, TURN
    late = [example(predicted)._replace(late_frames=2) for predicted in (one_more, two_more)]
    assert [turn_ends([dialogue])["turn_end_f1_240ms"] for dialogue in late] == [1.0, 0.0]
    floors = [turn_ends([dialogue])["turn_end_f1_240ms_floor"] for dialogue in (late[0], example())]
    assert floors[0] == floors[1]  # a threshold on the energy does not wait


def test_a_threshold_takes_pauses_and_murmurs_for_ends():
    assert turn_ends([example()])["turn_end_f1_240ms_floor"] == pytest.approx(2 / (1 + 3))


def test_each_end_has_one_partner():
    assert matched([10, 12], [11]) == 1
    assert matched([10, 20], [8, 9, 19, 30]) == 2
    assert matched([], [3]) == matched([3], []) == 0


def test_without_examples_there_is_no_value():
    assert turn_ends([])["turn_end_f1_240ms"] is None
