"""Voice activity: an energy detector (the floor that a learned one must beat) and turn events from TurnHead."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from omni_jax.types import FRAME_LISTEN_SAMPLES

_SILENCE_DBFS = -100.0


def frame_level_dbfs(
    wav: Float[np.ndarray, " N"], frame_samples: int = FRAME_LISTEN_SAMPLES
) -> Float[np.ndarray, " T"]:
    """RMS level of each whole frame in dB against full scale; digital silence is -100."""
    frames = np.asarray(wav, np.float32)[: len(wav) // frame_samples * frame_samples].reshape(-1, frame_samples)
    rms = np.sqrt(np.mean(np.square(frames), axis=1))
    return 20.0 * np.log10(np.maximum(rms, 10.0 ** (_SILENCE_DBFS / 20.0)))


def energy_vad(
    wav: Float[np.ndarray, " N"], threshold_db: float = 9.0, floor_dbfs: float = -55.0, release_db_s: float = 3.0
) -> Bool[np.ndarray, " T"]:
    """Speech where a frame's level exceeds a tracked noise level by `threshold_db` (causal, per 80 ms).

    The noise level falls at once and rises by `release_db_s`; it never falls below `floor_dbfs`, so that the first
    sound after digital silence does not count by itself.
    """
    levels = frame_level_dbfs(wav)
    rise = release_db_s * FRAME_LISTEN_SAMPLES / 16_000
    noise, active = floor_dbfs, np.zeros(len(levels), bool)
    for index, level in enumerate(levels):
        noise = max(floor_dbfs, min(level, noise + rise))
        active[index] = level > noise + threshold_db
    return active


class TurnEvent(NamedTuple):
    kind: str  # speech_started | speech_stopped
    frame: int  # 80 ms frame that the event is dated to, not the one in which it was noticed


class TurnDetector:
    """TurnHead as a stand-alone detector: per-frame speech probabilities in, dated start and stop events out.

    Hysteresis: speech starts at `onset` and stops after `hangover_frames` frames in a row under `offset`.
    """

    def __init__(self, onset: float = 0.6, offset: float = 0.4, hangover_frames: int = 4) -> None:
        if not 0.0 <= offset <= onset <= 1.0:
            raise ValueError(f"TurnDetector: want 0 <= offset <= onset <= 1, got offset={offset}, onset={onset}")
        self._onset, self._offset, self._hangover_frames = onset, offset, hangover_frames
        self._frame, self._quiet_frames, self.speaking = -1, 0, False

    def update(self, vad: float) -> TurnEvent | None:
        """Takes the next frame's speech probability; returns an event if this frame decides one."""
        self._frame += 1
        if not self.speaking:
            if vad < self._onset:
                return None
            self.speaking, self._quiet_frames = True, 0
            return TurnEvent("speech_started", self._frame)
        self._quiet_frames = self._quiet_frames + 1 if vad < self._offset else 0
        if self._quiet_frames < self._hangover_frames:
            return None
        self.speaking = False
        return TurnEvent("speech_stopped", self._frame - self._hangover_frames + 1)
