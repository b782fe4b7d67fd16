"""Whole codecs and vocoders in pieces: the offline result, the stated delay, rows that wait, rows that start anew."""

import dataclasses
import functools
import os

import jax
import numpy as np
import pytest

from omni_jax.codec_config import (
    DAC_24KHZ,
    ENCODEC_24KHZ,
    HIFIGAN_UNITS,
    HIFIGAN_V1,
    DacConfig,
    HifiGanConfig,
    SeanetConfig,
    VocosConfig,
)
from omni_jax.codec_config import MIMI as MIMI_24KHZ
from omni_jax.models import codec, vocoder

SLOW = os.environ.get("OMNI_JAX_SLOW") == "1"
TOLERANCE = 1e-5  # relative to the largest value
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
if SLOW:
    CODECS |= {
        "encodec 24 kHz": dataclasses.replace(ENCODEC_24KHZ, pad_mode="constant", num_codebooks=8),
        "mimi 24 kHz": dataclasses.replace(MIMI_24KHZ, num_codebooks=8),
        "dac 24 kHz": dataclasses.replace(DAC_24KHZ, num_codebooks=8),
    }
    VOCODERS |= {"hifigan v1": HIFIGAN_V1, "hifigan units": HIFIGAN_UNITS, "vocos 24 kHz": VocosConfig()}
FRAMES, ROWS, CLIPS = 24, 2, 2
CHUNKS = (1, 2, 5) if SLOW else (4,)
NEAR_TIES = 0.01 if SLOW else 0.0


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
    wav = np.random.default_rng(1).standard_normal((ROWS, CLIPS, FRAMES, cfg.hop_samples)).astype(np.float32)
    return cfg, params, wav


def stream_rows(step, state, clips):
    """Feeds each row its clips in chunks of random size, in the ticks in which it is busy, so that rows drift apart; a
    row starts anew with each clip. `clips` and the result: [rows, clips, frames, ...]."""
    rng, reset = np.random.default_rng(0), jax.jit(codec.reset_rows)
    rows, count, length = clips.shape[:3]
    clip, taken, outputs = np.zeros(rows, int), np.zeros(rows, int), {}
    while (clip < count).any():
        size = int(rng.choice(CHUNKS))
        mask = (rng.random(rows) < 0.7) & (clip < count) & (taken + size <= length)
        piece = rng.permuted(clips[:, 0, :size], axis=1)  # a row that waits must not be heard
        for row in np.flatnonzero(mask):
            piece[row] = clips[row, clip[row], taken[row] : taken[row] + size]
        state, out = step(state, piece, mask)
        for row in np.flatnonzero(mask):
            part = jax.tree.map(lambda leaf, row=row, size=size: np.asarray(leaf)[row].reshape(size, -1), out)
            outputs.setdefault((row, clip[row]), []).append(part)
        taken += size * mask
        over = taken == length
        clip, taken = clip + over, np.where(over, 0, taken)
        state = reset(state, over)
    whole = [jax.tree.map(lambda *parts: np.concatenate(parts), *outputs[key]) for key in sorted(outputs)]
    return jax.tree.map(lambda *parts: np.stack(parts).reshape(rows, count, *parts[0].shape), *whole)


def of_all_clips(function, clips):
    """Offline: every clip is a row. Rows of frames in and out."""
    out = function(clips.reshape(ROWS * CLIPS, *clips.shape[2:]))
    return jax.tree.map(lambda leaf: np.asarray(leaf).reshape(ROWS, CLIPS, FRAMES, -1), out)


def assert_close(streamed, offline):
    error = np.abs(streamed - offline).max() / np.abs(offline).max()
    print(f"streamed is offline but for {error:.1e} of the largest value")
    assert error <= TOLERANCE


def random_codes(cfg):
    shape = (ROWS, CLIPS, FRAMES, cfg.num_codebooks)
    return np.random.default_rng(2).integers(0, cfg.codebook_size, shape).astype(np.int32)


@functools.partial(jax.jit, static_argnums=0)
def encode_step(cfg, params, state, frames, mask):
    """The public step, and the latents of its codes; XLA computes them once."""
    wav = frames.reshape(ROWS, -1)
    latents, _ = codec.bind(cfg, params).encoder.step(wav, state)
    state, codes = codec.encode_step(cfg, params, state, wav, mask)
    return state, (latents, codes)


@functools.partial(jax.jit, static_argnums=0)
def encode(cfg, params, frames):
    wav = frames.reshape(frames.shape[0], -1)
    return codec.bind(cfg, params).encoder(wav), codec.encode_codes(cfg, params, wav)


def test_streamed_latents_and_codes_are_the_offline_ones(one):
    cfg, params, wav = one
    late = codec.encoder_latency_samples(cfg) // cfg.hop_samples
    latents, codes = stream_rows(functools.partial(encode_step, cfg, params), codec.init_encode_state(cfg, ROWS), wav)
    offline_latents, offline_codes = of_all_clips(functools.partial(encode, cfg, params), wav)
    assert len(np.unique(offline_codes)) > 4
    assert_close(latents[:, :, late:], offline_latents[:, :, : FRAMES - late])
    differ = (codes[:, :, late:] != offline_codes[:, :, : FRAMES - late]).any(axis=-1)
    print(f"{differ.sum()} of {differ.size} frames have other codes")
    assert differ.mean() <= NEAR_TIES


def test_streamed_waveform_is_the_offline_one(one):
    cfg, params, _ = one
    late, codes = codec.decoder_latency_samples(cfg), random_codes(cfg)
    step = functools.partial(codec.decode_step, cfg, params)
    wav = stream_rows(step, codec.init_decode_state(cfg, ROWS), codes)
    offline = of_all_clips(functools.partial(codec.decode_codes, cfg, params), codes)
    heard = offline.reshape(ROWS, CLIPS, -1)[:, :, late:]
    assert heard.std() > 1e-2 * np.abs(heard).max() and np.mean(np.abs(heard) == 1.0) < 0.1
    assert_close(wav, offline)


def test_latency_is_what_an_impulse_shows(one):
    """A changed sample changes no code of an earlier frame than stated, and a changed latent no earlier sample."""
    cfg, params, wav = one
    wav = wav.reshape(ROWS * CLIPS, -1)
    frame = FRAMES - 4
    last = (frame + 1) * cfg.hop_samples
    latents = np.random.default_rng(3).standard_normal((1, FRAMES, cfg.latent_dim)).astype(np.float32)

    @jax.jit
    def both(wav, latents):  # one program, called twice: two programs may differ in the last bit
        model = codec.bind(cfg, params)
        return model.encoder(wav), model.decoder(latents)

    whole = both(wav, latents)
    cut_wav, cut_latents = wav.copy(), latents.copy()
    cut_wav[:, last:], cut_latents[:, frame + 1 :] = 0.0, 0.0
    encoded, decoded = (np.asarray(a != b) for a, b in zip(whole, both(cut_wav, cut_latents)))
    late_frames = codec.encoder_latency_samples(cfg) // cfg.hop_samples
    first = int(np.flatnonzero(encoded.any(axis=(0, 2)))[0])
    assert frame + 1 - late_frames <= first <= frame + 2 - late_frames  # whole frames: rounded up
    first = int(np.flatnonzero(decoded[0])[0])
    assert 0 <= first - last + codec.decoder_latency_samples(cfg) < cfg.hop_samples


def vocoder_frames(cfg):
    if cfg.num_codebooks:
        return random_codes(cfg)
    return np.random.default_rng(1).standard_normal((ROWS, CLIPS, FRAMES, cfg.input_dim)).astype(np.float32)


@pytest.mark.parametrize("name", VOCODERS)
def test_vocoders_in_pieces(name):
    cfg = VOCODERS[name]
    params, frames, late = weights(vocoder, cfg), vocoder_frames(cfg), vocoder.latency_samples(cfg)
    step = functools.partial(vocoder.decode_step, cfg, params)
    wav = stream_rows(step, vocoder.init_state(cfg, ROWS), frames).reshape(ROWS, CLIPS, -1)
    offline = of_all_clips(functools.partial(vocoder.decode, cfg, params), frames).reshape(ROWS, CLIPS, -1)
    assert_close(wav[:, :, late:], offline[:, :, : wav.shape[2] - late])


@pytest.mark.parametrize("name", VOCODERS)
def test_latency_of_a_vocoder_is_what_an_impulse_shows(name):
    """Other frames from one on change nothing before the stated delay ahead of them, and something right after it."""
    cfg = VOCODERS[name]
    params, frames = weights(vocoder, cfg), vocoder_frames(cfg).reshape(ROWS * CLIPS, FRAMES, -1)
    other = frames.copy()
    other[:, FRAMES // 2 :] = frames[::-1, FRAMES // 2 :]
    changed = np.asarray(vocoder.decode(cfg, params, frames) != vocoder.decode(cfg, params, other)).any(axis=0)
    start = FRAMES // 2 * cfg.hop_samples
    assert 0 <= int(np.flatnonzero(changed)[0]) - start + vocoder.latency_samples(cfg) < cfg.hop_samples
