"""TurnHead as a stand-alone voice activity detector: turn events from its per-frame speech probability."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class TurnEvent(NamedTuple):
    kind: str  # speech_started | speech_stopped
    frame: int  # 80 ms frame that the event is dated to, not the one in which it was noticed


class TurnDetector:
    """Per-frame speech probabilities in, dated start and stop events out.

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


def speech_spans(probabilities: Iterable[float]) -> list[tuple[int, int]]:
    """(first frame, frame after the last) of each stretch of speech; the last may still go on at the end."""
    detector, starts, spans, count = TurnDetector(), [], [], 0
    for vad in probabilities:
        count += 1
        event = detector.update(vad)
        if event and event.kind == "speech_started":
            starts.append(event.frame)
        elif event:
            spans.append((starts[-1], event.frame))
    return [*spans, (starts[-1], count)] if detector.speaking else spans
