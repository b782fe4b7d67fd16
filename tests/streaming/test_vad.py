"""Turn events from speech probabilities."""

import pytest

from omni_jax.streaming.vad import TurnDetector, TurnEvent, speech_spans


def test_turn_events_are_dated_by_hysteresis():
    detector = TurnDetector(onset=0.6, offset=0.4, hangover_frames=3)
    speech = [0.1, 0.5, 0.7, 0.9, 0.3, 0.5, 0.2, 0.2, 0.2, 0.2]
    events = [event for vad in speech if (event := detector.update(vad))]
    assert events == [TurnEvent("speech_started", 2), TurnEvent("speech_stopped", 6)]


def test_thresholds_are_checked():
    with pytest.raises(ValueError, match=r"offset=0\.7, onset=0\.6"):
        TurnDetector(onset=0.6, offset=0.7)


def test_spans():
    speech = [0.1, 0.9, 0.9, 0.2, 0.1, 0.1, 0.1, 0.1, 0.8, 0.7]
    assert speech_spans(speech) == [(1, 3), (8, 10)]
    assert speech_spans([0.1] * 5) == []
