"""Short pauses in the assistant's own speech, so that its silence means that it has stopped.

A listener takes 400 ms of silence for the end. Read sentences have pauses of 400 to 550 ms between them, after which
nobody can tell whether a voice goes on or has been interrupted.
"""

from __future__ import annotations

import itertools

import numpy as np
from jaxtyping import Int16

LONGEST_PAUSE_MS = 240
SILENT_DBFS = -45.0
WINDOW_MS = 20

Cuts = list[tuple[int, int]]  # (start, end) in ms


def excess_silence(samples: Int16[np.ndarray, "N"], sample_rate_hz: int) -> Cuts:
    """The middle of every silence between two sounds, as far as it exceeds LONGEST_PAUSE_MS."""
    size = sample_rate_hz * WINDOW_MS // 1000
    windows = samples[: len(samples) // size * size].reshape(-1, size).astype(np.float32) / 32768.0
    sounding = np.flatnonzero(np.mean(np.square(windows), axis=-1) > 10.0 ** (SILENT_DBFS / 10.0))
    longest = LONGEST_PAUSE_MS // WINDOW_MS
    cuts = []
    for before, after in itertools.pairwise(sounding):
        excess = int(after - before) - 1 - longest
        if excess > 0:
            start = (int(before) + 1 + longest // 2) * WINDOW_MS
            cuts.append((start, start + excess * WINDOW_MS))
    return cuts


def cut_samples(samples: Int16[np.ndarray, "N"], sample_rate_hz: int, cuts: Cuts) -> Int16[np.ndarray, "N"]:
    kept = np.ones(len(samples), bool)
    for start_ms, end_ms in cuts:
        kept[start_ms * sample_rate_hz // 1000 : end_ms * sample_rate_hz // 1000] = False
    return samples[kept]


def moved_ms(ms: int, cuts: Cuts) -> int:
    """Where a time lies after the cuts; a time inside one lies at its start."""
    return ms - sum(max(0, min(ms, end) - start) for start, end in cuts)
