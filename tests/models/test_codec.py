"""The spectral codec: streaming equals offline, causality and latency by impulses, its size and its command line."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omni_jax import dsp
from omni_jax.codec_config import CodecConfig
from omni_jax.errors import ConfigError
from omni_jax.models import codec
from omni_jax.models.codec.spectral import synthesize
from omni_jax.types import FRAME_SPEECH_SAMPLES

TINY = CodecConfig(
    num_codebooks=2, codebook_size=8, latent_dim=4, encoder_dim=8, decoder_dim=8, num_phones=4, conv_kernel=3
)
FRAMES = 4
STREAMING_TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def params():
    params = codec.init_params(TINY, jax.random.key(0))
    return params | {"codebooks": jax.random.normal(jax.random.key(1), params["codebooks"].shape)}


@pytest.fixture(scope="module")
def wav():
    return 0.1 * jax.random.normal(jax.random.key(2), (2, FRAMES * FRAME_SPEECH_SAMPLES))


def test_encode_step_gives_the_offline_codes(params, wav):
    state, everyone, codes = codec.init_encode_state(TINY, 2), jnp.ones(2, bool), []
    for chunk in jnp.split(wav, FRAMES, axis=1):
        state, step_codes = codec.encode_step(TINY, params, state, chunk, everyone)
        codes.append(step_codes)
    np.testing.assert_array_equal(jnp.concatenate(codes, axis=1), codec.encode_codes(TINY, params, wav))


def test_decode_step_gives_the_offline_waveform(params):
    codes = jax.random.randint(jax.random.key(3), (2, FRAMES, 2), 0, 8)
    state, everyone, pieces = codec.init_decode_state(TINY, 2), jnp.ones(2, bool), []
    for frame in jnp.split(codes, FRAMES, axis=1):
        state, piece = codec.decode_step(TINY, params, state, frame, everyone)
        pieces.append(piece)
    offline = codec.decode_codes(TINY, params, codes)
    assert offline.shape == (2, FRAMES * FRAME_SPEECH_SAMPLES) and float(jnp.std(offline)) > 1e-3
    np.testing.assert_allclose(jnp.concatenate(pieces, axis=1), offline, atol=STREAMING_TOLERANCE)


def test_masked_rows_wait_and_reset_rows_start_anew(params):
    codes = jax.random.randint(jax.random.key(3), (2, 1, 2), 0, 8)
    initial = codec.init_decode_state(TINY, 2)
    first_only = jnp.array([True, False])
    state, wav = codec.decode_step(TINY, params, initial, codes, first_only)
    assert np.asarray(wav[0]).any() and not np.asarray(wav[1]).any()
    jax.tree.map(lambda new, old: np.testing.assert_array_equal(new[1], old[1]), state, initial)
    again = codec.reset_rows(state, first_only)
    jax.tree.map(np.testing.assert_array_equal, again, initial)


@pytest.mark.parametrize("sample", [2 * FRAME_SPEECH_SAMPLES, 3 * FRAME_SPEECH_SAMPLES - 20])
def test_encoder_uses_a_sample_in_its_own_frame_and_never_before(params, sample):
    """The second impulse lies 20 samples before its frame ends: a delayed window would not have heard it yet."""
    assert codec.encoder_latency_samples(TINY) == 0
    model = codec.bind(TINY, params)
    encode = jax.jit(lambda wav: model.encoder(wav, model.encoder.init_state(1))[0])
    quiet = jnp.zeros((1, FRAMES * FRAME_SPEECH_SAMPLES))
    changed = np.asarray(encode(quiet.at[0, sample].set(1.0)) != encode(quiet)).any(axis=-1)[0]
    np.testing.assert_array_equal(changed[:3], [False, False, True])


def test_decoder_puts_nothing_out_before_its_code(params):
    codes = jnp.zeros((1, FRAMES, 2), jnp.int32)
    before = codec.decode_codes(TINY, params, codes)
    after = codec.decode_codes(TINY, params, codes.at[0, 2].set(5))
    changed = np.asarray(before != after)[0]
    assert not changed[: 2 * FRAME_SPEECH_SAMPLES].any()
    assert changed[2 * FRAME_SPEECH_SAMPLES : 3 * FRAME_SPEECH_SAMPLES].any()


@pytest.mark.parametrize("sample", [1000, 1200, 2399])
def test_synthesis_delays_by_the_stated_latency(sample):
    """Right-aligned STFT frames of an impulse come out as that impulse, late by exactly the decoder's latency."""
    cfg = CodecConfig()
    latency = codec.decoder_latency_samples(cfg)
    assert latency == cfg.istft_window - cfg.istft_hop <= 480
    wav = jnp.zeros((1, 4800)).at[0, sample].set(0.5)
    spectrum = dsp.windowed_rfft(dsp.frame_causal(wav, cfg.istft_window, cfg.istft_hop))
    tail = jnp.zeros((1, latency))
    out, _ = synthesize(jnp.log(jnp.abs(spectrum) + 1e-12), jnp.angle(spectrum), cfg.istft_hop, tail)
    np.testing.assert_allclose(out[:, latency:], wav[:, :-latency], atol=1e-4)


def test_a_partial_frame_is_completed_with_silence(params, wav):
    part = wav[:, : FRAME_SPEECH_SAMPLES + 7]
    padded = jnp.pad(part, ((0, 0), (0, FRAME_SPEECH_SAMPLES - 7)))
    np.testing.assert_array_equal(codec.encode_codes(TINY, params, part), codec.encode_codes(TINY, params, padded))


def test_default_codec_has_at_most_two_and_a_half_million_parameters():
    shapes = jax.eval_shape(functools.partial(codec.init_params, CodecConfig()), jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) <= 2_500_000


def test_vocoder_latency_above_20_ms_is_refused():
    with pytest.raises(ConfigError, match="istft_window=1200"):
        CodecConfig(istft_window=1200, istft_hop=240)
