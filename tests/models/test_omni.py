"""Parity pairs of the whole model."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omni_jax.models import omni
from omni_jax.types import ABSENT

from .tiny import MODEL, concatenate, dialogue, model_params, with_transformer

PARITY = 2e-5


@pytest.fixture(scope="module")
def params():
    return model_params()


@pytest.fixture(scope="module")
def apply():
    return jax.jit(omni.apply, static_argnums=0)


def test_packed_equals_unpacked(params, apply):
    """Text, audio pool, picture pool and speech positions of two examples in one row."""
    first, second = dialogue(frames=6, seed=1), dialogue(frames=6, seed=2)
    packed = apply(MODEL, params, concatenate(first, second))
    length = first.timeline.text.shape[1]
    for part, example in ((slice(0, length), first), (slice(length, None), second)):
        alone = apply(MODEL, params, example)
        for name in ("hidden", "semantic_hidden", "vad_logits", "turn_logits"):
            np.testing.assert_allclose(getattr(packed, name)[:, part], getattr(alone, name), atol=PARITY, err_msg=name)
    np.testing.assert_allclose(packed.codes_hidden[:, 6:], alone.codes_hidden, atol=PARITY)
    np.testing.assert_allclose(packed.ctc_logits[:, 6 * 4 :], alone.ctc_logits, atol=PARITY)


def test_the_second_picture_is_used(params, apply):
    first, second = dialogue(frames=6, seed=1), dialogue(frames=6, seed=2)
    packed = concatenate(first, second)
    patches = packed.media.patches.copy()
    patches[:, 16:] = 0.0
    blank = packed._replace(media=packed.media._replace(patches=patches))
    difference = jnp.abs(apply(MODEL, params, blank).hidden - apply(MODEL, params, packed).hidden)
    length = first.timeline.text.shape[1]
    assert float(jnp.max(difference[:, :length])) == 0.0
    assert float(jnp.max(difference[:, length + 2])) > 1e-3


def test_the_semantic_step_is_depth_step_zero(params):
    batch = dialogue(frames=6)
    hidden = jax.random.normal(jax.random.key(0), (1, 6, MODEL.transformer.embed_dim))
    text, codes = batch.timeline.text_target[:, 6:], batch.timeline.codes_target[:, 6:]
    decoder = omni.bind(MODEL, params).speech_decoder
    np.testing.assert_allclose(decoder.semantic(hidden, text), decoder(hidden, text, codes)[:, :, 0], atol=PARITY)


def test_depth_steps_see_earlier_codebooks_only(params, apply):
    batch = dialogue(frames=6)
    targets = batch.timeline.codes_target.copy()
    targets[..., 1] = (targets[..., 1] + 1) % MODEL.codebook_size
    changed = batch._replace(timeline=batch.timeline._replace(codes_target=targets))
    difference = jnp.abs(apply(MODEL, params, changed).codes_hidden - apply(MODEL, params, batch).codes_hidden)
    assert float(jnp.max(difference[:, :, :1])) == 0.0  # codebook 1; codebook 2 reads the code that was changed
    assert float(jnp.max(difference[:, :, 1])) > 1e-3


def test_nothing_sees_the_future(params, apply):
    """Changing all that position 8 (frame 2) carries leaves every earlier output as it was, and changes its own."""
    batch = dialogue(frames=6)
    text, codes, mel = batch.timeline.text.copy(), batch.timeline.codes.copy(), batch.media.mel.copy()
    text[:, 8], codes[:, 8] = (text[:, 8] + 1) % MODEL.vocab_size, (codes[:, 8] + 1) % MODEL.codebook_size
    mel[:, 16:24] += 1.0
    changed = batch._replace(
        timeline=batch.timeline._replace(text=text, codes=codes), media=batch.media._replace(mel=mel)
    )
    difference = jnp.abs(apply(MODEL, params, changed).hidden - apply(MODEL, params, batch).hidden)
    assert float(jnp.max(difference[:, :8])) == 0.0
    assert float(jnp.min(jnp.max(difference[:, 8:], axis=-1))) > 1e-4


def test_scanned_equals_unrolled(params, apply):
    batch = dialogue(frames=6)
    unrolled = apply(with_transformer(scan_layers=False), params, batch)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=PARITY), apply(MODEL, params, batch), unrolled)


def test_router_losses_count_every_expert_layer(params, apply):
    moe = apply(MODEL, params, dialogue(frames=6)).moe
    assert moe.expert_share.shape == (2, 4)
    np.testing.assert_allclose(jnp.sum(moe.expert_share, axis=1), 1.0, atol=1e-5)
    assert float(moe.load_balance_loss) >= 2 - 0.2
    assert float(moe.router_z_loss) > 0
    assert 0 < float(moe.router_entropy) <= 2 * np.log(4) + 1e-5


def test_text_alone_computes_no_encoder(params):
    batch = dialogue(frames=6)
    media = batch.media._replace(
        mel=batch.media.mel[:, :0],
        mel_segment_ids=batch.media.mel_segment_ids[:, :0],
        patches=batch.media.patches[:, :0],
        patch_positions=batch.media.patch_positions[:, :0],
        patch_segment_ids=batch.media.patch_segment_ids[:, :0],
    )
    absent = np.full_like(batch.timeline.text, ABSENT)
    timeline = batch.timeline._replace(audio_index=absent, patch_index=absent)
    output = jax.eval_shape(
        lambda: omni.apply(MODEL, params, batch._replace(timeline=timeline, media=media, speech_index=absent[:, :0]))
    )
    assert output.semantic_hidden is None and output.codes_hidden is None and output.ctc_logits is None


def test_tied_head_shares_the_embedding():
    tied = dataclasses.replace(MODEL, tie_text_head=True)
    shapes = jax.eval_shape(lambda: omni.init_params(tied, jax.random.key(0)))
    assert "text_head" not in shapes
    hidden = jnp.ones((1, 1, MODEL.transformer.embed_dim))
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)
    params["text_embedding"] = params["text_embedding"].at[3].set(1.0)
    assert int(jnp.argmax(omni.text_logits(tied, params, hidden))) == 3


def test_parameters_are_plain_and_have_axes(params):
    axes = omni.param_axes(MODEL)
    assert jax.tree.structure(axes) == jax.tree.structure(params)
    shapes = jax.tree.map(lambda leaf: leaf.shape, params)
    assert jax.tree.map(lambda leaf: leaf.shape, axes) == shapes
    assert axes["transformer"]["sparse"]["moe"]["gate"].names == ("layers", "expert", "expert_embed", "mlp")
