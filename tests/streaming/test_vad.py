"""The energy floor and the turn events."""

import numpy as np
import pytest

from omni_jax.streaming.vad import TurnDetector, TurnEvent, energy_vad, frame_level_dbfs
from omni_jax.types import FRAME_LISTEN_SAMPLES


def _noise(frames: int, dbfs: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 10 ** (dbfs / 20), frames * FRAME_LISTEN_SAMPLES)


def test_levels():
    wav = np.concatenate([np.full(FRAME_LISTEN_SAMPLES, 0.1), np.zeros(FRAME_LISTEN_SAMPLES), np.ones(7)])
    np.testing.assert_allclose(frame_level_dbfs(wav), [-20.0, -100.0], atol=1e-4)


def test_energy_vad_finds_speech_over_noise():
    wav = np.concatenate([_noise(10, -50), _noise(12, -20, 1), _noise(10, -50, 2)])
    expected = np.repeat([False, True, False], [10, 12, 10])
    np.testing.assert_array_equal(energy_vad(wav), expected)


def test_energy_vad_gets_used_to_loud_noise():
    active = energy_vad(np.concatenate([np.zeros(5 * FRAME_LISTEN_SAMPLES), _noise(150, -30)]))
    assert active[5:20].all() and not active[-20:].any()


def test_turn_events_are_dated_by_hysteresis():
    detector = TurnDetector(onset=0.6, offset=0.4, hangover_frames=3)
    speech = [0.1, 0.5, 0.7, 0.9, 0.3, 0.5, 0.2, 0.2, 0.2, 0.2]
    events = [event for vad in speech if (event := detector.update(vad))]
    assert events == [TurnEvent("speech_started", 2), TurnEvent("speech_stopped", 6)]


def test_thresholds_are_checked():
    with pytest.raises(ValueError, match=r"offset=0\.7, onset=0\.6"):
        TurnDetector(onset=0.6, offset=0.7)
