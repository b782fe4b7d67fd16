import importlib.util

import numpy as np
import pytest

from omni_jax.evals.turns import TurnExample, macro_f1, turn_states
from omni_jax.types import ABSENT, TurnState

from .waves import tone

FACTORS = {"dialogue": "0"}


def example():
    """1.6 s of silence, 1.6 s of a turn, 0.8 s of pause, 1.6 s of a turn."""
    wav = tone(((1600, 3200), (4000, 5600)), 5600, 16_000)
    states = np.repeat([TurnState.IDLE, TurnState.TURN, TurnState.PAUSE, TurnState.TURN], [20, 20, 10, 20])
    return TurnExample(wav, states, states, FACTORS)


def test_macro_f1_is_the_mean_over_states_that_occur():
    hits, false_alarms, misses = [8, 2, 0], [2, 0, 3], [0, 2, 0]
    assert macro_f1(np.array([hits, false_alarms, misses])) == pytest.approx((16 / 18 + 4 / 6) / 2)


def test_interval_keeps_rare_states():
    """One dialogue of twelve has a pause, never found: draws without it must not raise the interval to 1."""
    wav, plain = tone((), 800, 16_000), np.repeat([TurnState.IDLE, TurnState.TURN], 5)
    examples = [TurnExample(wav, plain, plain, {"dialogue": str(i)}) for i in range(11)]
    paused = np.where(np.arange(10) < 2, TurnState.PAUSE, plain)
    examples.append(TurnExample(wav, paused, plain, {"dialogue": "11"}))
    metrics, _ = turn_states(examples)
    assert metrics["turn_f1"] == pytest.approx(2 / 3, abs=0.02)
    assert metrics["turn_f1_ci"][1] < 0.7


def test_a_perfect_head_has_one_and_energy_cannot_tell_pauses():
    metrics, records = turn_states([example()])
    assert metrics["turn_f1"] == 1.0 and records[0]["accuracy"] == 1.0
    # Energy: TURN 40/40; IDLE hits 20 and takes the 10 frames of PAUSE as well (F1 0.8); PAUSE 0.
    assert metrics["turn_f1_floor"] == pytest.approx((1 + 0.8 + 0) / 3)
    assert metrics["turn_f1_pause"] == 1.0 and metrics["turn_f1_side_talk"] is None


def test_absent_frames_are_not_counted():
    states = np.full(70, TurnState.IDLE)
    guess = states.copy()
    guess[50:] = TurnState.TURN
    labels = states.copy()
    labels[50:] = ABSENT
    metrics, _ = turn_states([TurnExample(tone((), 5600, 16_000), labels, guess, FACTORS)])
    assert metrics["turn_f1"] == 1.0


@pytest.mark.skipif(importlib.util.find_spec("faster_whisper") is None, reason="faster-whisper carries Silero")
def test_silero_hears_no_speech_in_a_tone():
    metrics, _ = turn_states([example()])
    assert metrics["turn_f1_floor_silero"] < metrics["turn_f1_floor"]
