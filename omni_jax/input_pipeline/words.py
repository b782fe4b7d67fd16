"""Words by time: the piece that has just been heard in every 80 ms slot, as a target for the audio encoder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from omni_jax.input_pipeline.corpus import Span
from omni_jax.input_pipeline.tokenizer import Tokenizer
from omni_jax.types import ABSENT, FRAME_RATE_HZ, Control

SLOT_MS = 1000.0 / FRAME_RATE_HZ


def word_track(words: Sequence[Span], num_slots: int, start_ms: float, tokenizer: Tokenizer) -> Int[np.ndarray, "A"]:
    """The pieces of words whose times count from `start_ms` on, WAIT between them.

    A word's last piece lies in the slot in which the word ends, because only then it has been heard; its other pieces
    lie before it, and a slot that is taken moves a word back. ABSENT everywhere when there are no words.
    """
    if not words:
        return np.full(num_slots, ABSENT, np.int32)
    track = np.full(num_slots, Control.WAIT, np.int32)
    free = 0
    for word in words:
        pieces = tokenizer.encode_word(word.text)
        last = int((start_ms + word.end_ms) // SLOT_MS)
        first = max(last - len(pieces) + 1, free)
        kept = pieces[: max(0, num_slots - first)]
        track[first : first + len(kept)] = kept
        free = first + len(pieces)
    return track
