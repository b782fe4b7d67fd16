"""When the answer is heard."""

import numpy as np
import pytest

from omni_jax.streaming.latency import first_audible_seconds, last_voiced_seconds, playback_start_seconds
from omni_jax.types import FRAME_SPEECH_SAMPLES


def test_question_end():
    wav = np.zeros(16_000)
    wav[3_200:6_400] = 0.1
    assert last_voiced_seconds(wav) == pytest.approx(0.4)
    assert last_voiced_seconds(np.full(16_000, 1e-4)) is None


def test_a_late_frame_delays_all_that_follow():
    starts = playback_start_seconds([0.01, 0.10, 0.01, 0.01])
    np.testing.assert_allclose(starts, [0.09, 0.26, 0.34, 0.42])
    steady = playback_start_seconds([0.01] * 3)
    np.testing.assert_allclose(steady, [0.09, 0.17, 0.25])


def test_first_sound_counts_computation_and_place_in_frame():
    speech = np.zeros(3 * FRAME_SPEECH_SAMPLES)
    speech[FRAME_SPEECH_SAMPLES + 480 :] = 0.1  # 20 ms into the second frame
    assert first_audible_seconds(speech, [0.01, 0.02, 0.01]) == pytest.approx(0.16 + 0.02 + 0.02)
    assert first_audible_seconds(np.zeros(3 * FRAME_SPEECH_SAMPLES), [0.01] * 3) is None
