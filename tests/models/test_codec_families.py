"""Whole codecs and vocoders in pieces: the offline result, the stated delay, rows that wait, rows that start anew."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omni_jax.codec_config import DacConfig, HifiGanConfig, SeanetConfig, VocosConfig
from omni_jax.models import codec, vocoder

TOLERANCE = 1e-5
SHAPE = {"num_filters": 4, "ratios": (3, 2), "latent_dim": 8, "codebook_size": 16, "num_heads": 2}
ENCODEC = SeanetConfig(num_codebooks=2, codebook_dim=8, pad_mode="constant", **SHAPE)
MIMI = SeanetConfig(
    num_codebooks=3,
    codebook_dim=4,
    pad_mode="constant",
    lstm_layers=0,
    transformer_layers=2,
    mlp_dim=16,
    context_frames=5,
    layer_scale=0.3,
    resample=2,
    semantic_codebooks=1,
    conv_shortcut=False,
    **SHAPE,
)
DAC = DacConfig(encoder_dim=2, strides=(2, 5), decoder_dim=8, num_codebooks=2, codebook_size=16, codebook_dim=3)
CODECS = {"encodec": ENCODEC, "mimi": MIMI, "dac": DAC}
MEL = {"input_dim": 4, "initial_dim": 8, "rates": (3, 2), "kernel_sizes": (7, 4)}
BRANCHES = {"resblock_kernel_sizes": (3, 5), "resblock_dilations": ((1, 3), (1, 2))}
HIFIGAN = HifiGanConfig(**MEL, **BRANCHES)
UNITS = HifiGanConfig(snake=True, num_codebooks=2, codebook_size=8, **MEL, **BRANCHES)
VOCOS = VocosConfig(input_dim=4, dim=8, hidden_dim=16, num_layers=2, kernel_size=3, window=12, hop_samples=4)
VOCODERS = {"hifigan": HIFIGAN, "units": UNITS, "vocos": VOCOS}
FRAMES, PIECES, ROWS = 24, 6, 2


def weights(module, cfg):
    """Quiet enough not to be clipped, with biases, so that padding and what comes before the first sample show."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(functools.partial(module.init_params, cfg), jax.random.key(0))

    def draw(leaf):
        noise = rng.standard_normal(leaf.shape).astype(np.float32)
        return 0.1 + 0.1 * noise if leaf.ndim == 1 else noise * 0.7 * np.prod(leaf.shape[:-1]) ** -0.5

    params = jax.tree.map(draw, shapes)
    if "quantizer" in params:
        gain = {"in_kernel": 20.0, "in_bias": 0.1}  # latents are small, and all their codes must not be alike
        params["quantizer"] = jax.tree_util.tree_map_with_path(
            lambda path, p: p * gain.get(path[-1].key, 4.0), params["quantizer"]
        )
    return params


@pytest.fixture(scope="module", params=CODECS)
def one(request):
    cfg = CODECS[request.param]
    params = weights(codec, cfg)
    wav = np.random.default_rng(1).standard_normal((ROWS, FRAMES * cfg.hop_samples)).astype(np.float32)
    return cfg, params, wav


def stream_rows(step, state, pieces, busy):
    """Feeds each row its pieces in order, in the ticks in which it is busy, so that rows drift apart."""
    taken, outputs = np.zeros(len(busy[0]), int), [[] for _ in busy[0]]
    for tick in busy:
        mask = tick & (taken < len(pieces))
        piece = np.stack([pieces[min(taken[row], len(pieces) - 1)][row] for row in range(len(tick))])
        state, out = step(state, piece, mask)
        out = np.asarray(out)
        for row in np.flatnonzero(mask):
            outputs[row].append(out[row])
            taken[row] += 1
    assert (taken == len(pieces)).all()
    return np.stack([np.concatenate(row) for row in outputs]), state


def random_codes(cfg):
    shape = (ROWS, FRAMES, cfg.num_codebooks)
    return np.random.default_rng(2).integers(0, cfg.codebook_size, shape).astype(np.int32)


def busy_ticks(count):
    rng = np.random.default_rng(0)
    return [*(rng.random((count, ROWS)) < 0.6), *np.ones((count, ROWS), bool)]


def test_streamed_latents_and_codes_are_the_offline_ones(one):
    cfg, params, wav = one
    late = codec.encoder_latency_samples(cfg) // cfg.hop_samples
    pieces = np.split(wav, PIECES, axis=1)
    codes, _ = stream_rows(
        lambda state, piece, mask: codec.encode_step(cfg, params, state, piece, mask),
        codec.init_encode_state(cfg, ROWS),
        pieces,
        busy_ticks(len(pieces)),
    )
    offline = np.asarray(codec.encode_codes(cfg, params, wav))
    assert codes.shape == (ROWS, FRAMES, cfg.num_codebooks) and len(np.unique(offline)) > 4
    np.testing.assert_array_equal(codes[:, late:], offline[:, : FRAMES - late])


def test_streamed_waveform_is_the_offline_one(one):
    cfg, params, _ = one
    late = codec.decoder_latency_samples(cfg)
    codes = random_codes(cfg)
    pieces = np.split(codes, PIECES, axis=1)

    def step(state, piece, mask):
        return codec.decode_step(cfg, params, state, piece, mask)

    wav, state = stream_rows(step, codec.init_decode_state(cfg, ROWS), pieces, busy_ticks(len(pieces)))
    offline = np.asarray(codec.decode_codes(cfg, params, codes))
    assert offline[:, late:].std() > 1e-2 and np.mean(np.abs(offline) == 1.0) < 0.1
    np.testing.assert_allclose(wav, offline, atol=TOLERANCE)
    # A row that starts anew knows nothing of what it was; the other goes on.
    state = jax.jit(codec.reset_rows)(state, np.array([True, False]))
    _, again = step(state, pieces[0], np.ones(ROWS, bool))
    np.testing.assert_allclose(again[0], offline[0, : again.shape[1]], atol=TOLERANCE)
    assert np.abs(again[1] - offline[1, : again.shape[1]]).max() > 1e-3


def test_latency_is_what_an_impulse_shows(one):
    """A changed sample changes no code of an earlier frame than stated, and a changed latent no earlier sample."""
    cfg, params, wav = one
    frame = FRAMES - 4
    last = (frame + 1) * cfg.hop_samples
    latents = np.random.default_rng(3).standard_normal((1, FRAMES, cfg.latent_dim)).astype(np.float32)

    @jax.jit
    def changes(params):
        model = codec.bind(cfg, params)
        cut_wav, cut_latents = jnp.asarray(wav).at[:, last:].set(0.0), jnp.asarray(latents).at[:, frame + 1 :].set(0.0)
        encoder, decoder = model.encoder, model.decoder
        return encoder(wav) != encoder(cut_wav), decoder(latents) != decoder(cut_latents)

    encoded, decoded = (np.asarray(change) for change in changes(params))
    late_frames = codec.encoder_latency_samples(cfg) // cfg.hop_samples
    first = int(np.flatnonzero(encoded.any(axis=(0, 2)))[0])
    assert frame + 1 - late_frames <= first <= frame + 2 - late_frames  # whole frames: rounded up
    first = int(np.flatnonzero(decoded[0])[0])
    assert last - codec.decoder_latency_samples(cfg) <= first < last + cfg.hop_samples


@pytest.mark.parametrize("name", VOCODERS)
def test_vocoders_in_pieces(name):
    cfg = VOCODERS[name]
    params = weights(vocoder, cfg)
    if cfg.num_codebooks:
        frames = random_codes(cfg)
    else:
        frames = np.random.default_rng(1).standard_normal((ROWS, FRAMES, cfg.input_dim)).astype(np.float32)
    pieces = np.split(frames, PIECES, axis=1)
    wav, _ = stream_rows(
        lambda state, piece, mask: vocoder.decode_step(cfg, params, state, piece, mask),
        vocoder.init_state(cfg, ROWS),
        pieces,
        busy_ticks(len(pieces)),
    )
    offline, late = np.asarray(vocoder.decode(cfg, params, frames)), vocoder.latency_samples(cfg)
    assert offline.shape == wav.shape == (ROWS, FRAMES * cfg.hop_samples)
    np.testing.assert_allclose(wav[:, late:], offline[:, : wav.shape[1] - late], atol=TOLERANCE)
