import numpy as np

from omni_jax.input_pipeline.corpus import Span
from omni_jax.input_pipeline.words import word_track
from omni_jax.types import ABSENT, Control

WAIT = int(Control.WAIT)


class Pieces:
    """Words of known pieces."""

    def encode_word(self, word):
        return {"one": (21,), "two": (22, 23), "three": (24,)}[word]


def test_the_last_piece_lies_where_the_word_ends():
    words = (Span("one", 0, 170), Span("two", 200, 520))
    track = word_track(words, 8, 100.0, Pieces())
    np.testing.assert_array_equal(track, [WAIT, WAIT, WAIT, 21, WAIT, WAIT, 22, 23])


def test_a_taken_slot_moves_a_word_back_and_the_end_cuts():
    words = (Span("one", 0, 90), Span("two", 90, 150), Span("three", 150, 159))
    np.testing.assert_array_equal(word_track(words, 4, 0.0, Pieces()), [WAIT, 21, 22, 23])


def test_without_times_nothing_is_known():
    np.testing.assert_array_equal(word_track((), 3, 0.0, Pieces()), [ABSENT] * 3)
