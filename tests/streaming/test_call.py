"""A call goes on after the recording until the reply is over."""

from types import SimpleNamespace

import numpy as np
import pytest

from omni_jax.streaming.call import stream_call, summarise
from omni_jax.streaming.session import FrameResult
from omni_jax.types import FRAME_LISTEN_SAMPLES, FRAME_SPEECH_SAMPLES, TurnState


class _ScriptedSession:
    """Says LISTEN but in the frames of `speaking`; keeps what it heard."""

    def __init__(self, speaking):
        self.speaking, self.heard = speaking, []

    def push(self, samples):
        index = len(self.heard)
        self.heard.append(samples)
        speaks = index in self.speaking
        loud = np.full(FRAME_SPEECH_SAMPLES, 0.1 * speaks, np.float32)
        return FrameResult(
            20, " hi" * speaks, None if speaks else "LISTEN", loud, 0.9 * (index < 10), TurnState.IDLE, 0.02
        )


def _question(frames: int) -> np.ndarray:
    return np.full(frames * FRAME_LISTEN_SAMPLES - 100, 0.1, np.float32)


def test_ends_soon_after_the_reply():
    session = _ScriptedSession(range(14, 20))
    results = list(stream_call(session, _question(10), max_seconds=60))
    assert len(results) == 20 + 8
    heard = np.concatenate(session.heard)
    np.testing.assert_array_equal(heard[: len(_question(10))], _question(10))
    assert not heard[len(_question(10)) :].any()


def test_what_was_said_before_the_question_ended_is_no_reply():
    results = list(stream_call(_ScriptedSession(range(2, 5)), _question(10), max_seconds=60))
    assert len(results) == 10 + 50


def test_ends_at_max_seconds():
    results = list(stream_call(_ScriptedSession(range(1000)), _question(10), max_seconds=2.0))
    assert len(results) == 25


def test_summary():
    user = _question(10)
    results = list(stream_call(_ScriptedSession(range(14, 20)), user, max_seconds=60))
    report = summarise(results, user)
    assert report.text == "hi hi hi hi hi hi" and len(report.speech) == 29 * FRAME_SPEECH_SAMPLES
    assert report.real_time_factor == pytest.approx(0.25) and report.slowest_frame_seconds == 0.02
    # Frame 14 plays from 15 x 80 ms + 20 ms on; the question's last whole 20 ms window ends at 0.78 s.
    assert report.first_audio_seconds == pytest.approx(1.22 - 0.78)
    assert report.heard_user == [(0.0, 0.8)]
    silent = summarise([result._replace(samples=0 * result.samples) for result in results], user)
    assert silent.first_audio_seconds is None


def test_realtime_waits_for_the_microphone(monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("time.perf_counter", lambda: clock.now)
    monkeypatch.setattr("time.sleep", lambda seconds: setattr(clock, "now", clock.now + seconds))
    times = []
    for _ in stream_call(_ScriptedSession([]), _question(3), max_seconds=0.4, realtime=True):
        times.append(clock.now)
        clock.now += 0.03
    np.testing.assert_allclose(times, [0.08, 0.16, 0.24, 0.32, 0.40])
