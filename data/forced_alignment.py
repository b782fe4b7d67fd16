"""When each word of a transcript is said, by the most likely path of CTC labels (Graves et al. 2006, section 4)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from omni_jax.input_pipeline import features
from omni_jax.input_pipeline.corpus import Span

BLANK = 0
FRAME_MS = 20.0
# CTC names a letter when it has been heard, not when it begins: medians over 871 words of the sample corpus, held-out
# voices, against the synthesisers' times.
START_LAG_MS, END_LAG_MS = 140, 30
LETTERS = frozenset(features.CHARACTERS) - {" "}


class DoesNotFit(ValueError):
    """A transcript with no letters, or with more than its audio has frames for."""


def align(log_probs: Float[np.ndarray, "W U"], labels: Sequence[int]) -> Int[np.ndarray, " W"]:
    """For every frame the label that it belongs to, counted from 0, or -1 for a blank. Raises DoesNotFit."""
    repeats = sum(a == b for a, b in zip(labels[1:], labels[:-1], strict=True))
    if not labels or len(labels) + repeats > len(log_probs):
        raise DoesNotFit(f"{len(labels)} labels do not fit {len(log_probs)} frames")
    states = np.full(2 * len(labels) + 1, BLANK)
    states[1::2] = labels
    # A label may follow the one before without a blank between, where they differ.
    skips = np.zeros(len(states), bool)
    skips[3::2] = states[3::2] != states[1:-2:2]
    score = np.full(len(states), -np.inf)
    score[:2] = log_probs[0, states[:2]]
    moves = np.zeros((len(log_probs), len(states)), np.int8)
    for frame in range(1, len(log_probs)):
        stay, step = score, np.concatenate([[-np.inf], score[:-1]])
        skip = np.where(skips, np.concatenate([[-np.inf] * 2, score[:-2]]), -np.inf)
        choices = np.stack([stay, step, skip])
        moves[frame] = choices.argmax(axis=0)
        score = choices.max(axis=0) + log_probs[frame, states]
    state = len(states) - 1 if score[-1] >= score[-2] else len(states) - 2
    path = np.full(len(log_probs), -1)
    for frame in range(len(log_probs) - 1, -1, -1):
        path[frame] = state // 2 if state % 2 else -1
        state -= moves[frame, state]
    return path


def word_spans(log_probs: Float[np.ndarray, "W U"], text: str) -> tuple[Span, ...]:
    """The words of `text` that have letters, from their first letter's frame to the end of their last one's, earlier by
    the labels' lag.
    """
    words = [word for word in text.replace("-", " ").split() if LETTERS & set(word.lower())]
    labels = features.labels(" ".join(words))
    path = align(log_probs, labels)
    spans, first = [], 0
    for word in words:
        count = len(features.labels(word))
        frames = np.flatnonzero((path >= first) & (path < first + count))
        before = spans[-1].end_ms if spans else 0
        start = max(before, round(frames[0] * FRAME_MS) - START_LAG_MS)
        spans.append(Span(word, start, max(start + 1, round((frames[-1] + 1) * FRAME_MS) - END_LAG_MS)))
        first += count + 1  # and the blank between words
    return tuple(spans)
