"""The published sizes with random weights, against the transformers library: latents, codes, waveforms, near-ties.

Some minutes, so only with OMNI_JAX_SLOW=1 where torch and transformers are installed; `-s` shows the margins.
"""

import importlib.util
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omni_jax.models import codec, vocoder
from omni_jax.nn.factorised import unit
from omni_jax.pretrained import hifigan
from tests.pretrained.published_codecs import compute, randomise, tensors_of
from tests.pretrained.test_published_codecs import CODECS, TOLERANCE

pytestmark = pytest.mark.skipif(
    os.environ.get("OMNI_JAX_SLOW") != "1"
    or not (importlib.util.find_spec("torch") and importlib.util.find_spec("transformers")),
    reason="compares whole models with torch and transformers: OMNI_JAX_SLOW=1",
)
LENGTHS = (2_879, 12_347)
GAINS = {"encodec": 1.0, "mimi": 1.0, "dac": 3**-0.5}  # DAC's is PyTorch's default


def published(name):
    import transformers as library

    if name == "hifigan":
        return library.SpeechT5HifiGan(library.SpeechT5HifiGanConfig())
    if name == "encodec":
        return library.EncodecModel(library.EncodecConfig(target_bandwidths=[6.0]))
    if name == "mimi":
        return library.MimiModel(library.MimiConfig(num_quantizers=8))
    shape = {"downsampling_ratios": [2, 4, 5, 8], "sampling_rate": 24_000, "n_codebooks": 8}
    return library.DacModel(library.DacConfig(**shape))


def margins(name, cfg, params, latents, codes):
    """Of every choice of a code [B, T, Q]: by how much the runner-up is farther, over the distance of the chosen one,
    along the library's codes."""
    model, found = codec.bind(cfg, params), []
    quantizer = model.quantizer
    if name == "dac":
        residual = latents
        for level, part in enumerate(zip(*quantizer.factors())):
            books, in_kernel, in_bias, out_kernel, out_bias = part
            found.append(gap(unit(residual @ in_kernel + in_bias[None, None]), unit(books), codes[..., level]))
            residual = residual - (books[codes[..., level]] @ out_kernel + out_bias[None, None])
        return jnp.stack(found, axis=-1)
    parts = [quantizer] if name == "encodec" else [quantizer.semantic, quantizer.acoustic]
    level = 0
    for part in parts:
        residual = part.points(latents)["all"]
        for book in part.codebooks[...]:
            found.append(gap(residual, book, codes[..., level]))
            residual, level = residual - book[codes[..., level]], level + 1
    return jnp.stack(found, axis=-1)


def gap(points, book, chosen):
    distances = jnp.sum(points**2, -1)[..., None] - 2 * points @ book.T + jnp.sum(book**2, -1)[None, None]
    nearest = jnp.take_along_axis(distances, chosen[..., None], axis=-1)
    others = jnp.where(jax.nn.one_hot(chosen, book.shape[0], dtype=bool), jnp.inf, distances)
    return (jnp.min(others, axis=-1) - nearest[..., 0]) / (nearest[..., 0] + 1e-9)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("name", CODECS)
def test_codec(name, length):
    model = randomise(published(name), seed=1, gain=GAINS[name])
    make_config, read, _ = CODECS[name]
    cfg = make_config(model.config.to_dict())
    params, expected = read(tensors_of(model), cfg), compute(name, model, length)
    expected_codes = expected["codes"][..., : cfg.num_codebooks]

    @jax.jit
    def compute_ours(params):
        bound = codec.bind(cfg, params)
        latents = bound.encoder(expected["input"])
        return latents, bound.quantizer.encode(latents), bound.decode(expected_codes)

    latents, codes, wav = jax.device_get(compute_ours(params))
    close = margins(name, cfg, params, jnp.asarray(expected["latents"]), expected_codes)
    other = np.cumsum(codes != expected_codes, axis=-1) == 1  # the first level that differs
    other &= codes != expected_codes
    print(
        f"\n{name}, {length} samples: latents differ by {np.abs(latents - expected['latents']).max():.1e} of "
        f"{np.abs(expected['latents']).max():.2g}, waveform by {np.abs(wav - expected['wav']).max():.1e} of "
        f"{np.abs(expected['wav']).max():.2g}; {codes.size} codes, {other.sum()} choices differ, at margins "
        f"{np.sort(np.asarray(close)[other])}; closest margin {float(jnp.min(close)):.1e}"
    )
    scale = max(1.0, np.abs(expected["wav"]).max())
    np.testing.assert_allclose(latents, expected["latents"], atol=TOLERANCE)
    np.testing.assert_allclose(wav / scale, expected["wav"] / scale, atol=TOLERANCE)
    assert not other.any() or np.abs(np.asarray(close)[other]).max() < 5e-5


@pytest.mark.parametrize("length", (8 * 23, 8 * 61))
def test_hifigan(length):
    model = randomise(published("hifigan"), seed=1)
    cfg = hifigan.hifigan_config(model.config.to_dict())
    params = hifigan.read_hifigan(tensors_of(model), cfg)
    frames = np.random.default_rng(length).standard_normal((2, length // 8, cfg.input_dim)).astype(np.float32)
    import torch

    with torch.no_grad():
        expected = model(torch.from_numpy(frames)).numpy()
    wav = np.asarray(vocoder.decode(cfg, params, jnp.asarray(frames)))
    print(f"\nhifigan, {length // 8} frames: waveform differs by {np.abs(wav - expected).max():.1e}")
    np.testing.assert_allclose(wav, expected, atol=TOLERANCE)
