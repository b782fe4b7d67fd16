"""Does TurnHead see in time that the user has ended? Ends of turns, matched within 240 ms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from omni_jax.evals.entries import entry
from omni_jax.evals.turns import THRESHOLDS_DBFS, TurnExample, by_energy, factors_of
from omni_jax.types import ABSENT, TurnState

TOLERANCE_FRAMES = 3  # 240 ms
Counts = tuple[int, int, int]  # matched, true, predicted


def turn_ends(examples: Sequence[TurnExample]) -> dict[str, Any]:
    """`turn_end_f1_240ms`: F1 of the ends of turns, each matched with at most one predicted end within 240 ms.

    A turn ends in the first IDLE frame after TURN or PAUSE; it is predicted when it is named, `late_frames` after that
    frame. Floor: a threshold on the energy of a frame, the one that is best in hindsight.
    """
    counts = np.array([_counts(e) for e in examples]).reshape(-1, 3)
    floor = max(_total_f1(by_energy(examples, threshold)) for threshold in THRESHOLDS_DBFS) if examples else None
    return entry("turn_end_f1_240ms", lambda index: _f1(counts[index].sum(0)), factors_of(examples), floor=floor)


def ends(states: Int[np.ndarray, " T"]) -> Int[np.ndarray, " E"]:
    """The first frame of every IDLE that follows TURN or PAUSE."""
    before, now = states[:-1], states[1:]
    return 1 + np.flatnonzero((now == TurnState.IDLE) & np.isin(before, (TurnState.TURN, TurnState.PAUSE)))


def matched(true: Sequence[int], predicted: Sequence[int]) -> int:
    """How many pairs within the tolerance there are, each end in one pair at most; both in order."""
    pairs, rest = 0, list(predicted)
    for end in true:
        while rest and rest[0] < end - TOLERANCE_FRAMES:
            rest.pop(0)
        if rest and rest[0] <= end + TOLERANCE_FRAMES:
            rest.pop(0)
            pairs += 1
    return pairs


def _counts(example: TurnExample) -> Counts:
    real = example.states != ABSENT
    true, guessed = ends(example.states[real]), ends(example.predicted[real]) + example.late_frames
    return matched(true, guessed), len(true), len(guessed)


def _f1(counts: np.ndarray) -> float:
    hits, true, predicted = counts
    return 2.0 * hits / (true + predicted) if true + predicted else float("nan")


def _total_f1(examples: Sequence[TurnExample]) -> float:
    return _f1(np.sum([_counts(e) for e in examples], axis=0))
