"""Losses of codec training: reconstruction, phones, adversarial (hinge) and feature matching."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from omni_jax import dsp
from omni_jax.models.codec.discriminators import Judgement
from omni_jax.types import ABSENT, SPEECH_SAMPLE_RATE_HZ

# STFT window -> mel bands: fine in time to fine in frequency (DAC's ladder without its extremes, arXiv:2306.06546)
MEL_LADDER = {128: 20, 512: 80, 1024: 120, 2048: 160}
LOG_FLOOR = 1e-4  # amplitude


def reconstruction_losses(
    real: Float[Array, "B N"], fake: Float[Array, "B N"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Mean over the resolutions of the log10-mel distance and of the relative spectral distance, both L1."""
    mel_losses, stft_losses = [], []
    for window, num_mels in MEL_LADDER.items():
        filters = dsp.mel_filterbank(SPEECH_SAMPLE_RATE_HZ, window, num_mels) * (SPEECH_SAMPLE_RATE_HZ / window)
        spectra = [dsp.magnitude(dsp.stft(wav, window, window // 4)) * (4.0 / window) for wav in (real, fake)]
        mels = [jnp.log10(spectrum @ filters + LOG_FLOOR) for spectrum in spectra]
        mel_losses.append(jnp.mean(jnp.abs(mels[0] - mels[1])))
        stft_losses.append(jnp.mean(jnp.abs(spectra[0] - spectra[1])) / (jnp.mean(spectra[0]) + LOG_FLOOR))
    return sum(mel_losses) / len(mel_losses), sum(stft_losses) / len(stft_losses)


def phone_loss(logits: Float[Array, "B T K"], phones: Int[Array, "B T"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Cross-entropy and accuracy over the sub-frames whose phone is known; zero when none is."""
    known = phones != ABSENT
    count = jnp.maximum(jnp.sum(known), 1)
    labels = jnp.where(known, phones, 0)
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[..., None], axis=-1)[..., 0]
    correct = (jnp.argmax(logits, axis=-1) == phones) & known
    return -jnp.sum(jnp.where(known, chosen, 0.0)) / count, jnp.sum(correct) / count


def discriminator_loss(real: tuple[Judgement, ...], fake: tuple[Judgement, ...]) -> Float[Array, ""]:
    """Hinge: real above 1, decoded below -1; mean over the resolutions."""
    losses = [jnp.mean(jax.nn.relu(1.0 - r.logits)) + jnp.mean(jax.nn.relu(1.0 + f.logits)) for r, f in zip(real, fake)]
    return sum(losses) / len(losses)


def generator_hinge_loss(fake: tuple[Judgement, ...]) -> Float[Array, ""]:
    return sum(jnp.mean(jax.nn.relu(1.0 - f.logits)) for f in fake) / len(fake)


def feature_matching_loss(real: tuple[Judgement, ...], fake: tuple[Judgement, ...]) -> Float[Array, ""]:
    """L1 between hidden features, relative to the mean magnitude of the real ones (AudioCraft's normalisation)."""
    distances = [
        jnp.mean(jnp.abs(a - b)) / (jnp.mean(jnp.abs(a)) + 1e-6)
        for r, f in zip(real, fake)
        for a, b in zip(jax.lax.stop_gradient(r.features), f.features)
    ]
    return sum(distances) / len(distances)
