"""The published recipes' losses: waveform, multi-resolution mel, adversarial (hinge, least squares), features."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from omni_jax import dsp
from omni_jax.models.codec.discriminators import Judgement

FLOOR = 1e-5

Judged = tuple[Judgement, ...]


def time_loss(real: Float[Array, "B N"], fake: Float[Array, "B N"]) -> Float[Array, ""]:
    return jnp.mean(jnp.abs(real - fake))


def log_mel(wav: Float[Array, "B N"], sample_rate_hz: int, window: int, num_mels: int) -> Float[Array, "B T M"]:
    """Natural log of the amplitude mel spectrum, Slaney's scale, hop of a quarter window."""
    filters = dsp.mel_filterbank(sample_rate_hz, window, num_mels)
    return jnp.log(jnp.maximum(dsp.magnitude(dsp.stft(wav, window, window // 4)) @ filters, FLOOR))


def mel_loss(
    real: Float[Array, "B N"], fake: Float[Array, "B N"], sample_rate_hz: int, ladder: tuple[tuple[int, int], ...]
) -> Float[Array, ""]:
    """Sum over the (window, mels) of the ladder of the L1 distance in log10, as DAC's."""
    distances = [
        jnp.mean(jnp.abs(log_mel(real, sample_rate_hz, w, m) - log_mel(fake, sample_rate_hz, w, m))) for w, m in ladder
    ]
    return sum(distances) / jnp.log(10.0)


def multi_scale_loss(
    real: Float[Array, "B N"], fake: Float[Array, "B N"], sample_rate_hz: int, windows: tuple[int, ...]
) -> Float[Array, ""]:
    """EnCodec's frequency loss: L1 of the mel amplitudes plus L2 of their logs, mean over the windows, 64 bands."""
    total = jnp.zeros(())
    for window in windows:
        bands = min(64, window // 4)
        a, b = (log_mel(wav, sample_rate_hz, window, bands) for wav in (real, fake))
        total = total + jnp.mean(jnp.abs(jnp.exp(a) - jnp.exp(b))) + jnp.sqrt(jnp.mean(jnp.square(a - b)) + 1e-12)
    return total / len(windows)


def hinge_discriminator(real: Judged, fake: Judged) -> Float[Array, ""]:
    """Real above 1, decoded below -1; mean over the discriminators."""
    losses = [jnp.mean(jax.nn.relu(1.0 - r.logits)) + jnp.mean(jax.nn.relu(1.0 + f.logits)) for r, f in zip(real, fake)]
    return sum(losses) / len(losses)


def hinge_generator(fake: Judged) -> Float[Array, ""]:
    """Without a margin, as in AudioCraft: the generator is never satisfied."""
    return -sum(jnp.mean(f.logits) for f in fake) / len(fake)


def least_squares_discriminator(real: Judged, fake: Judged) -> Float[Array, ""]:
    """Real to 1, decoded to 0 (LSGAN, arXiv:1611.04076); sum over the discriminators, as in HiFi-GAN and DAC."""
    return sum(jnp.mean(jnp.square(1.0 - r.logits)) + jnp.mean(jnp.square(f.logits)) for r, f in zip(real, fake))


def least_squares_generator(fake: Judged) -> Float[Array, ""]:
    return sum(jnp.mean(jnp.square(1.0 - f.logits)) for f in fake)


def feature_loss(real: Judged, fake: Judged) -> Float[Array, ""]:
    """L1 between features, summed over layers and discriminators, as in HiFi-GAN and DAC."""
    pairs = [(a, b) for r, f in zip(real, fake) for a, b in zip(r.features, f.features)]
    return sum(jnp.mean(jnp.abs(jax.lax.stop_gradient(a) - b)) for a, b in pairs)


def mean_feature_loss(real: Judged, fake: Judged) -> Float[Array, ""]:
    """`feature_loss` as a mean over the discriminators, as in Vocos."""
    return feature_loss(real, fake) / len(real)


def relative_feature_loss(real: Judged, fake: Judged) -> Float[Array, ""]:
    """L1 between features relative to the real ones' mean magnitude, mean over all, as in AudioCraft."""
    pairs = [(jax.lax.stop_gradient(a), b) for r, f in zip(real, fake) for a, b in zip(r.features, f.features)]
    return sum(jnp.mean(jnp.abs(a - b)) / jnp.mean(jnp.abs(a)) for a, b in pairs) / len(pairs)
