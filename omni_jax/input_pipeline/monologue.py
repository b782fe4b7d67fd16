"""The model's own text stream on the frame grid: word pieces at the time they are spoken, control tokens between.

A word's pieces start at the frame in which the word starts, one a frame; a later word waits until the frame is free
(arXiv:2410.00037, section 3.4.4). EPAD goes before a word where that frame is free, SPEAK before the first word of a
turn, END_OF_TURN into the first frame after both the audio of the last word and its last piece.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from omni_jax.types import Control

# Weights of the own text as a target. LISTEN fills most of a dialogue and would drown the rest. But where the user has
# paused and may go on, or murmurs while the model speaks, *no* transition is the decision to be learned.
LISTEN_WEIGHT = 0.1
DECISION_WEIGHT = 2.0
FILL_WEIGHT = 0.4
TRANSITION_WEIGHT = 5.0
INTERRUPT_WEIGHT = 48.0  # the rarest decision, in one dialogue of six; to go on by mistake is worse than to stop
WORD_WEIGHT = 3.0
# Weighted like a transition, the end of a turn wins wherever the model is unsure of its next word: replies break off.
END_WEIGHT = 1.0

TRANSITIONS = (Control.SPEAK, Control.BACKCHANNEL)


class PlacedWord(NamedTuple):
    start_frame: int
    pieces: tuple[int, ...]


def write_turn(
    text: Int[np.ndarray, "F"], words: Sequence[PlacedWord], end_frame: int, stop_frame: int | None = None
) -> None:
    """Writes one spoken turn into `text`, which holds LISTEN elsewhere.

    Args:
      words: start frames count from the start of `text`; the first must be at least 1.
      end_frame: the first frame after the audio of the last word.
      stop_frame: the turn is interrupted: INTERRUPT falls here, and nothing of the turn comes after it.
    """
    limit = len(text) if stop_frame is None else stop_frame
    free = first = max(1, words[0].start_frame)
    starts = []
    for word in words:
        starts.append(max(word.start_frame, free))
        free = starts[-1] + len(word.pieces)
    end = max(end_frame, free)
    text[first - 1 : min(end, limit)] = Control.WAIT
    text[first - 1] = Control.SPEAK
    for start, word in zip(starts, words, strict=True):
        if start - 1 < limit and text[start - 1] == Control.WAIT:
            text[start - 1] = Control.EPAD
        kept = max(0, min(start + len(word.pieces), limit) - start)
        text[start : start + kept] = word.pieces[:kept]
    if stop_frame is not None:
        text[stop_frame] = Control.INTERRUPT
    elif end < limit:
        text[end] = Control.END_OF_TURN


def text_weights(text: Int[np.ndarray, "F"], decision: Bool[np.ndarray, "F"] | bool = False) -> Float[np.ndarray, "F"]:
    """Weight of each frame's own text as a target; `decision` marks frames that could be taken for a transition."""
    weights = np.full(text.shape, WORD_WEIGHT, np.float32)
    weights[text == Control.LISTEN] = LISTEN_WEIGHT
    weights[np.isin(text, (Control.WAIT, Control.EPAD))] = FILL_WEIGHT
    weights[text == Control.END_OF_TURN] = END_WEIGHT
    weights[text == Control.INTERRUPT] = INTERRUPT_WEIGHT
    weights = np.where(decision, np.maximum(weights, DECISION_WEIGHT), weights)
    return np.where(np.isin(text, TRANSITIONS), TRANSITION_WEIGHT, weights).astype(np.float32)


def without_words(text: Int[np.ndarray, "F"]) -> Int[np.ndarray, "F"]:
    """The same stream for a model without inner monologue: WAIT where word pieces are."""
    return np.where(text > max(Control), Control.WAIT, text)
