"""The step of the timeline: what a position carries, what its targets are, and what they weigh."""

import numpy as np

from omni_jax.input_pipeline import text_tasks
from omni_jax.input_pipeline.monologue import (
    DECISION_WEIGHT,
    END_WEIGHT,
    FILL_WEIGHT,
    LISTEN_WEIGHT,
    TRANSITION_WEIGHT,
    WORD_WEIGHT,
    PlacedWord,
    text_weights,
    without_words,
    write_turn,
)
from omni_jax.input_pipeline.tasks import Task
from omni_jax.input_pipeline.timeline import Frames, Layout, delay_codes, delay_states
from omni_jax.types import ABSENT, Control, Modality

Q = 3
L, W, E, S, X, I = (  # noqa: E741
    Control.LISTEN,
    Control.WAIT,
    Control.EPAD,
    Control.SPEAK,
    Control.END_OF_TURN,
    Control.INTERRUPT,
)


def frames(num_frames, delay=0):
    codes = np.arange(num_frames)[:, None] * 10 + np.arange(Q)
    weight = np.arange(1, num_frames + 1, dtype=np.float32)
    return Frames(np.arange(30, 30 + num_frames), weight, delay_codes(codes, delay), weight / 2)


def test_targets_are_what_the_next_position_carries():
    mel = np.zeros((8 * 4, 5), np.float32)
    example = Layout(Task.DIALOGUE, Q).text([Control.DIALOGUE]).frames(frames(4, delay=1), mel).finish()
    f = example.fields
    np.testing.assert_array_equal(f["text"], [Control.DIALOGUE, 30, 31, 32, 33])
    np.testing.assert_array_equal(f["text_target"][:-1], f["text"][1:])
    np.testing.assert_array_equal(f["text_weight"], [1, 2, 3, 4, 0])
    np.testing.assert_array_equal(f["codes"][1], [0, ABSENT, ABSENT])
    np.testing.assert_array_equal(f["codes"][3], [20, 11, 12])
    np.testing.assert_array_equal(f["codes_target"][1:4], f["codes"][2:])
    np.testing.assert_array_equal(f["codes_weight"][0], [0.5, 0, 0])
    np.testing.assert_array_equal(f["codes_weight"][2], [1.5, 1.5, 1.5])
    assert (f["codes_target"] >= 0).all() and not f["codes_weight"][-1].any()
    np.testing.assert_array_equal(f["audio_index"], [ABSENT, 0, 1, 2, 3])
    np.testing.assert_array_equal(f["modality"], [Modality.TEXT] + [Modality.FRAME] * 4)


def test_delay_counts_frames_and_spares_the_first_codebook():
    codes = np.arange(12).reshape(4, 3)
    np.testing.assert_array_equal(delay_codes(codes, 0), codes)
    delayed = delay_codes(codes, 2)
    np.testing.assert_array_equal(delayed[:, 0], codes[:, 0])
    np.testing.assert_array_equal(delayed[2:, 1:], codes[:2, 1:])
    assert (delayed[:2, 1:] == ABSENT).all()


def test_a_state_is_to_be_named_two_frames_later():
    states = np.array([0, 1, 1, 3], np.int32)
    np.testing.assert_array_equal(delay_states(states), [0, 0, 0, 1])
    np.testing.assert_array_equal(delay_states(states[3:]), [0])


def test_a_picture_takes_one_step_of_time():
    positions = np.array([(0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (0, 3), (1, 2), (1, 3)])
    patches = (np.zeros((8, 12), np.float32), positions)
    example = text_tasks.caption_example(patches, [40, 41], Q)
    np.testing.assert_array_equal(example.fields["text"], [Control.IMAGE, -1, -1, Control.CAPTION, 40, 41, Control.EOS])
    np.testing.assert_array_equal(example.fields["patch_index"], [-1, 0, 1, -1, -1, -1, -1])
    np.testing.assert_array_equal(example.fields["position_ids"][:4], [[0, 0, 0], [0, 0, 0], [0, 0, 1], [1, 1, 1]])
    np.testing.assert_array_equal(example.fields["text_weight"], [0, 0, 0, 1, 1, 1, 0])


def test_long_text_goes_on_in_the_next_row():
    parts = text_tasks.text_examples(range(20, 60), Q, max_positions=8)
    assert [part.num_positions for part in parts] == [8] * 5 + [7]
    targets = [part.fields["text_target"][part.fields["text_weight"] > 0] for part in parts]
    assert np.concatenate(targets).tolist() == [*range(20, 60), Control.EOS]
    (whole,) = text_tasks.text_examples(range(20, 24), Q, max_positions=8)
    assert whole.fields["text"].tolist() == [Control.BOS, 20, 21, 22, 23, Control.EOS]


def turn(words, end_frame, num_frames=14, stop_frame=None):
    text = np.full(num_frames, L, np.int32)
    write_turn(text, [PlacedWord(start, pieces) for start, pieces in words], end_frame, stop_frame)
    return text.tolist()


def test_words_are_placed_where_they_sound():
    assert turn([(3, (50,)), (6, (51, 52)), (9, (53,))], 11) == [L, L, S, 50, W, E, 51, 52, E, 53, W, X, L, L]


def test_late_pieces_push_later_words_and_the_end_of_turn():
    assert turn([(2, (50, 51, 52)), (3, (53,)), (4, (54,))], 5) == [L, S, 50, 51, 52, 53, 54, X, L, L, L, L, L, L]


def test_a_word_is_never_overwritten_by_epad():
    assert turn([(2, (50, 51)), (4, (52,)), (6, (53,))], 8) == [L, S, 50, 51, 52, E, 53, W, X, L, L, L, L, L]


def test_an_interrupted_turn_keeps_only_what_was_said():
    assert turn([(2, (50,)), (5, (51, 52)), (9, (53,))], 11, stop_frame=6) == [L, S, 50, W, E, 51, I] + [L] * 7


def test_a_turn_at_the_end_of_the_grid_is_cut():
    assert turn([(2, (50,)), (5, (51,))], 6, num_frames=5) == [L, S, 50, W, E]


def test_weights_of_the_own_text():
    text = np.array([L, L, S, 50, W, E, X, 51], np.int32)
    weights = text_weights(text, np.isin(np.arange(8), (1, 2, 7)))
    expected = [LISTEN_WEIGHT, DECISION_WEIGHT, TRANSITION_WEIGHT, WORD_WEIGHT]
    expected += [FILL_WEIGHT, FILL_WEIGHT, END_WEIGHT, max(WORD_WEIGHT, DECISION_WEIGHT)]
    np.testing.assert_allclose(weights, expected, rtol=1e-6)


def test_without_inner_monologue_only_control_tokens_stay():
    text = np.array([L, S, 50, 51, W, E, 52, X], np.int32)
    assert without_words(text).tolist() == [L, S, W, W, W, E, W, X]
