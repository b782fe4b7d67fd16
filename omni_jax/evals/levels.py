"""When an output is heard: levels of 20 ms windows against -45 dBFS, first sound, and where a silence starts.

dBFS is relative to a full-scale square wave: a window of constant magnitude 1 has 0 dBFS.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

AUDIBLE_DBFS = -45.0
WINDOW_MS = 20
STOP_SILENCE_MS = 400  # a stop is this much silence in a row


def audible(wav: Float[np.ndarray, " N"], sample_rate_hz: int) -> Bool[np.ndarray, " W"]:
    """True for each 20 ms window whose RMS level is over -45 dBFS; a last, shorter window is dropped."""
    size = sample_rate_hz * WINDOW_MS // 1000
    windows = np.asarray(wav[: len(wav) // size * size], np.float64).reshape(-1, size)
    level = 10 * np.log10(np.mean(windows**2, axis=1) + 1e-12)
    return level > AUDIBLE_DBFS


def first_audible_ms(windows: Bool[np.ndarray, " W"], after_ms: float = 0.0) -> float | None:
    """Start of the first audible window at or after `after_ms`; None when there is none."""
    start = int(np.ceil(after_ms / WINDOW_MS))
    found = np.flatnonzero(windows[start:])
    return float((start + found[0]) * WINDOW_MS) if len(found) else None


def last_audible_ms(windows: Bool[np.ndarray, " W"]) -> float | None:
    """End of the last audible window; None when nothing is audible."""
    found = np.flatnonzero(windows)
    return float((found[-1] + 1) * WINDOW_MS) if len(found) else None


def stop_ms(windows: Bool[np.ndarray, " W"], after_ms: float) -> float | None:
    """Start of the first silence of at least 400 ms at or after `after_ms`; what follows the recording is unknown.

    A silence that began before `after_ms` counts from `after_ms`. None when the output never falls silent.
    """
    need = STOP_SILENCE_MS // WINDOW_MS
    start = int(np.ceil(after_ms / WINDOW_MS))
    for window in range(start, len(windows) - need + 1):
        if not windows[window : window + need].any():
            return float(window * WINDOW_MS)
    return None


def energy_dbfs(wav: Float[np.ndarray, " N"], frame_samples: int) -> Float[np.ndarray, " T"]:
    """Level of each frame of `frame_samples`."""
    frames = np.asarray(wav[: len(wav) // frame_samples * frame_samples], np.float64).reshape(-1, frame_samples)
    return 10 * np.log10(np.mean(frames**2, axis=1) + 1e-12)
