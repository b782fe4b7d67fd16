"""When is the answer heard? Times on the clock of a call, in which frame i of the user is complete at (i + 1) 80 ms."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from omni_jax.types import (
    FRAME_LISTEN_SAMPLES,
    FRAME_SPEECH_SAMPLES,
    LISTEN_SAMPLE_RATE_HZ,
    SPEECH_SAMPLE_RATE_HZ,
)

AUDIBLE_DBFS = -45.0
_WINDOW_MS = 20


def last_voiced_seconds(user_wav: Float[np.ndarray, " N"]) -> float | None:
    """End of the last 20 ms window of a 16 kHz signal over -45 dBFS; None for a silent one."""
    window = LISTEN_SAMPLE_RATE_HZ * _WINDOW_MS // 1000
    loud = _audible_windows(user_wav, window)
    return (int(loud[-1]) + 1) * window / LISTEN_SAMPLE_RATE_HZ if len(loud) else None


def first_audible_seconds(speech: Float[np.ndarray, " N"], compute_seconds: Sequence[float]) -> float | None:
    """When the first audible 20 ms of the 24 kHz output of consecutive frames are played; None if none are."""
    window = SPEECH_SAMPLE_RATE_HZ * _WINDOW_MS // 1000
    loud = _audible_windows(speech, window)
    if not len(loud):
        return None
    frame, offset = divmod(int(loud[0]) * window, FRAME_SPEECH_SAMPLES)
    return float(playback_start_seconds(compute_seconds)[frame]) + offset / SPEECH_SAMPLE_RATE_HZ


def playback_start_seconds(compute_seconds: Sequence[float]) -> Float[np.ndarray, " T"]:
    """Start time of each frame's output, given how long each frame's computation took.

    An output starts to play when it is ready, that is when the user's frame is complete and computed, but never before
    the output of the frame before it has ended.
    """
    frame_seconds = FRAME_LISTEN_SAMPLES / LISTEN_SAMPLE_RATE_HZ
    starts = np.zeros(len(compute_seconds))
    ready, previous_end = 0.0, 0.0
    for index, seconds in enumerate(compute_seconds):
        ready = max((index + 1) * frame_seconds, ready) + seconds
        starts[index] = max(ready, previous_end)
        previous_end = starts[index] + frame_seconds
    return starts


def _audible_windows(wav: Float[np.ndarray, " N"], window: int) -> np.ndarray:
    frames = np.asarray(wav)[: len(wav) // window * window].reshape(-1, window)
    return np.flatnonzero(np.mean(np.square(frames), axis=1) > 10.0 ** (AUDIBLE_DBFS / 10.0))
