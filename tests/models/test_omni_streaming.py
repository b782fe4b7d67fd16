"""The real-time step computes what the offline forward pass computes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omni_jax.errors import ConfigError
from omni_jax.models import omni, omni_streaming
from omni_jax.models.omni_streaming import GREEDY
from omni_jax.types import Batch, Control, Media, Timeline

from .tiny import MODEL, dialogue, model_params

PARITY = 2e-5
PREFIX = 2 + 4  # text tokens and pooled patches before the first frame


@pytest.fixture(scope="module")
def params():
    return model_params()


@pytest.fixture(scope="module")
def apply():
    return jax.jit(omni.apply, static_argnums=0)


def prefix_of(batch: Batch) -> Batch:
    timeline = Timeline(*(np.asarray(field)[:, :PREFIX] for field in batch.timeline))
    media = Media(*batch.media)._replace(mel=batch.media.mel[:, :0], mel_segment_ids=batch.media.mel_segment_ids[:, :0])
    return Batch(timeline, media, batch.speech_index[:, :0], batch.task[:, :PREFIX])


def run(params, batch, exec_rows=None, sampling=GREEDY, cache_frames=16):
    """Streams the dialogue with its own text and codes forced; returns hidden-state readouts per frame."""
    rows, frames = batch.media.mel_segment_ids.shape
    state = omni_streaming.init_stream(MODEL, params, rows, cache_frames, PREFIX)
    state = omni_streaming.prefill(MODEL, params, state, prefix_of(batch))
    outputs = []
    for i in range(frames):
        state = state._replace(
            text=jnp.asarray(batch.timeline.text[:, PREFIX + i]), codes=jnp.asarray(batch.timeline.codes[:, PREFIX + i])
        )
        mel = batch.media.mel[:, 8 * i : 8 * (i + 1)]
        mask = np.ones(rows, bool) if exec_rows is None else exec_rows[i]
        state, output = omni_streaming.step(MODEL, params, state, mel, jax.random.key(i), sampling, mask)
        outputs.append(output)
    return state, jax.tree.map(lambda *leaves: np.stack(leaves, 1), *outputs)


def test_streaming_equals_the_offline_forward(params, apply):
    batch = dialogue(frames=7, rows=2)
    offline = apply(MODEL, params, batch)
    _, streamed = run(params, batch)
    np.testing.assert_allclose(streamed.turn_logits, offline.turn_logits[:, PREFIX:], atol=PARITY)
    np.testing.assert_allclose(streamed.vad_logits, offline.vad_logits[:, PREFIX:], atol=PARITY)
    text = jnp.argmax(omni.text_logits(MODEL, params, offline.hidden), axis=-1)[:, PREFIX:]
    np.testing.assert_array_equal(streamed.text, text)


def test_greedy_codes_are_the_teacher_forced_choice_given_themselves(params, apply):
    batch = dialogue(frames=7, rows=2)
    _, streamed = run(params, batch)
    targets = batch.timeline.codes_target.copy()
    texts = batch.timeline.text_target.copy()
    targets[:, PREFIX:], texts[:, PREFIX:] = streamed.codes, streamed.text
    batch = batch._replace(timeline=batch.timeline._replace(codes_target=targets, text_target=texts))
    output, heads = apply(MODEL, params, batch), omni.code_heads(MODEL, params).matrix
    semantic = output.semantic_hidden[:, PREFIX:] @ heads[0]
    acoustic = jnp.einsum("bnqw,qwk->bnqk", output.codes_hidden, heads[1:])
    np.testing.assert_array_equal(jnp.argmax(semantic, axis=-1), streamed.codes[..., 0])
    np.testing.assert_array_equal(jnp.argmax(acoustic, axis=-1), streamed.codes[..., 1:])


def test_prefill_says_the_first_frame(params, apply):
    batch = dialogue(frames=7, rows=2)
    state = omni_streaming.init_stream(MODEL, params, 2, 16, PREFIX)
    state = omni_streaming.prefill(MODEL, params, state, prefix_of(batch))
    hidden = apply(MODEL, params, batch).hidden[:, PREFIX - 1]
    np.testing.assert_array_equal(state.text, jnp.argmax(omni.text_logits(MODEL, params, hidden), axis=-1))
    assert int(state.position[0]) == batch.timeline.position_ids[0, PREFIX, 0]


def test_a_row_that_rests_is_not_disturbed(params):
    """Row 1 rests in frames 2 and 3; afterwards it goes on as if they had not been."""
    batch = dialogue(frames=7, rows=2)
    rests = np.ones((7, 2), bool)
    rests[2:4, 1] = False
    _, streamed = run(params, batch, rests)
    _, both = run(params, batch)
    np.testing.assert_allclose(streamed.turn_logits[0], both.turn_logits[0], atol=PARITY)
    kept = [0, 1, 4, 5, 6]
    cut = dialogue(frames=7, rows=2)
    fields = {
        name: np.delete(np.asarray(getattr(cut.timeline, name)), [PREFIX + 2, PREFIX + 3], axis=1)
        for name in Timeline._fields
    }
    fields["position_ids"] = np.asarray(cut.timeline.position_ids)[:, :-2]
    fields["audio_index"] = np.asarray(cut.timeline.audio_index)[:, :-2]
    mel = np.delete(cut.media.mel, range(16, 32), axis=1)
    media = cut.media._replace(mel=mel, mel_segment_ids=cut.media.mel_segment_ids[:, :-2])
    _, alone = run(params, Batch(Timeline(**fields), media, cut.speech_index[:, :-2], cut.task))
    np.testing.assert_allclose(streamed.turn_logits[1, kept], alone.turn_logits[1], atol=PARITY)


def test_a_full_ring_forgets_frames_but_not_the_prefix(params):
    batch = dialogue(frames=12, rows=2)
    state, _ = run(params, batch, cache_frames=4)
    order = np.asarray(state.cache.order[0])
    np.testing.assert_array_equal(order[:PREFIX], np.arange(PREFIX))
    np.testing.assert_array_equal(np.sort(order[PREFIX:]), PREFIX + np.arange(8, 12))


def test_a_step_changes_no_shape_and_no_dtype(params):
    state = omni_streaming.init_stream(MODEL, params, 2, 16, PREFIX)
    mel = np.zeros((2, 8, MODEL.audio.num_mels), np.float32)
    new, _ = omni_streaming.step(MODEL, params, state, mel, jax.random.key(0), GREEDY, np.ones(2, bool))
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), new) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), state
    )


def test_a_prefix_that_does_not_fit_is_refused(params):
    state = omni_streaming.init_stream(MODEL, params, 1, 8, PREFIX - 1)
    with pytest.raises(ConfigError, match="prefix_slots"):
        omni_streaming.prefill(MODEL, params, state, prefix_of(dialogue()))


def test_sampling_keeps_to_the_best_candidates():
    logits = jnp.log(jnp.asarray([[0.4, 0.3, 0.2, 0.1]]))
    draws = {int(omni_streaming.sample(logits, jax.random.key(i), 1.0, 2)[0]) for i in range(40)}
    assert draws == {0, 1}
    assert int(omni_streaming.sample(logits, jax.random.key(0), 0.0, 0)[0]) == 0


def test_only_a_word_or_an_interruption_follows_its_announcement(params):
    """Whatever the model would rather say; `wanted` is what its head asks for, most of all the first."""
    hidden = jnp.ones((1, MODEL.transformer.embed_dim))

    def said_after(before: Control, *wanted: int) -> int:
        wish = jnp.zeros(MODEL.vocab_size).at[jnp.array(wanted)].set(jnp.arange(len(wanted), 0, -1.0))
        model = omni.bind(MODEL, {**params, "text_head": jnp.outer(hidden[0], wish)})
        return int(omni_streaming._choose(model, hidden, jnp.array([before]), jax.random.key(0), GREEDY)[0][0])

    word = max(Control) + 1
    for announcement in (Control.SPEAK, Control.EPAD, Control.BACKCHANNEL):
        assert said_after(announcement, Control.WAIT, Control.END_OF_TURN, word) == word
        assert said_after(announcement, Control.WAIT, Control.INTERRUPT, word) == Control.INTERRUPT
    assert said_after(Control.WAIT, Control.WAIT, Control.END_OF_TURN, word) == Control.WAIT


def test_the_turn_detector_alone_hears_what_the_step_hears(params):
    batch = dialogue(frames=1, rows=2)
    state = omni_streaming.init_stream(MODEL, params, 2, 16, PREFIX)
    state = omni_streaming.prefill(MODEL, params, state, prefix_of(batch))
    mel, mask = batch.media.mel, np.array([True, False])
    after, output = omni_streaming.step(MODEL, params, state, mel, jax.random.key(0), GREEDY, mask)
    alone, vad_logits, turn_logits = omni_streaming.turn_step(MODEL, params, state, mel, mask)
    np.testing.assert_allclose(vad_logits, output.vad_logits, atol=PARITY)
    np.testing.assert_allclose(turn_logits, output.turn_logits, atol=PARITY)
    given = alone._replace(text=after.text, codes=after.codes)
    for ours, theirs in zip(jax.tree.leaves(given), jax.tree.leaves(after)):
        np.testing.assert_allclose(ours, theirs, atol=PARITY)
