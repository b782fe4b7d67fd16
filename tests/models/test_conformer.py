"""The audio encoder: streaming equals offline, nothing crosses a segment, and no look-ahead beyond the 80 ms slot."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omni_jax.models import omni
from omni_jax.models.encoders.conformer import Conformer
from omni_jax.types import FRAME_LISTEN_SAMPLES

from .tiny import MODEL, model_params

PARITY = 2e-5
SLOTS = 10  # more than left_context_slots = 6: the ring wraps


@pytest.fixture(scope="module")
def encode():
    encoder = omni.bind(MODEL, model_params()).audio_encoder
    return jax.jit(encoder), jax.jit(encoder.step), encoder.init_state(2)


@pytest.fixture(scope="module")
def mel():
    return jax.random.normal(jax.random.key(0), (2, 8 * SLOTS, MODEL.audio.num_mels))


def ones():
    return jnp.ones((2, SLOTS), jnp.int32)


def test_streaming_equals_offline(encode, mel):
    offline, step, state = encode
    whole = offline(mel, ones())
    for i in range(SLOTS):
        state, slot = step(state, mel[:, 8 * i : 8 * (i + 1)], jnp.ones(2, bool))
        np.testing.assert_allclose(slot[:, 0], whole[:, i], atol=PARITY)


def test_a_resting_row_keeps_its_state(encode, mel):
    _, step, state = encode
    state, _ = step(state, mel[:, :8], jnp.ones(2, bool))
    rested, _ = step(state, mel[:, 8:16], jnp.asarray([True, False]))
    for name in ("stem", "conv"):
        before, after = getattr(state, name), getattr(rested, name)
        before, after = (jnp.moveaxis(x, -3, 0) for x in (before, after))
        np.testing.assert_array_equal(before[1], after[1])
        assert not np.array_equal(before[0], after[0])
    np.testing.assert_array_equal(state.cache.keys[:, 1], rested.cache.keys[:, 1])
    assert rested.cache.frames.tolist() == [2, 1]


def test_segments_do_not_see_each_other(encode, mel):
    offline, _, _ = encode
    segments = jnp.asarray([[1] * 4 + [2] * 6] * 2, jnp.int32)
    packed = offline(mel, segments)
    moved = jnp.concatenate([mel[:, 32:], mel[:, :32]], axis=1)
    swapped = offline(moved, jnp.asarray([[1] * 6 + [2] * 4] * 2, jnp.int32))
    np.testing.assert_allclose(packed[:, 4:], swapped[:, :6], atol=PARITY)
    np.testing.assert_allclose(packed[:, :4], swapped[:, 6:], atol=PARITY)


def test_impulse_shows_no_look_ahead(encode, mel):
    """A change in a slot's last mel frame reaches that slot, as stated, and no earlier one."""
    offline, _, _ = encode
    changed = offline(mel.at[:, 8 * 5 + 7].add(1.0), ones())
    difference = jnp.max(jnp.abs(changed - offline(mel, ones())), axis=(0, 2))
    assert float(jnp.max(difference[:5])) == 0.0
    assert float(difference[5]) > 1e-3
    assert Conformer.algorithmic_latency_samples == FRAME_LISTEN_SAMPLES


def test_context_is_finite(encode, mel):
    """Attention reaches 6 slots and each convolution 2 back, over 2 layers; the stem one."""
    offline, _, _ = encode
    blind = MODEL.audio.num_layers * (MODEL.audio.left_context_slots - 1 + MODEL.audio.conv_kernel - 1) + 2
    long = jnp.tile(mel, (1, 2, 1))
    segments = jnp.ones((2, 2 * SLOTS), jnp.int32)
    difference = jnp.abs(offline(long.at[:, :8].add(1.0), segments) - offline(long, segments))
    assert blind < 2 * SLOTS
    assert float(jnp.max(difference[:, blind:])) == 0.0
    assert float(jnp.max(difference[:, 3])) > 0.0
