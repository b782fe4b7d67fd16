"""How differently two sounds excite an ear, as PESQ reckons it, but differentiable.

The psychoacoustic core of ITU-T P.862 and P.862.2: power in bands of the Bark scale, Zwicker's law of loudness, small
differences masked, and what a codec adds counted more than what it leaves out. Time alignment, the compensation of
gains and filters, and the norm over syllables are left out: a loss may be stricter than the measure.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from omni_jax import dsp
from omni_jax.types import SPEECH_SAMPLE_RATE_HZ

WINDOW, HOP = 768, 384  # 32 ms, half of it new
NUM_BANDS, HIGHEST_HZ = 49, 8_000.0  # of wide-band PESQ
LEVEL = 10.0**6.5  # power of active speech over all bands, where 1 is 0 dB of sound pressure
ACTIVE_SHARE = 1e-3  # of the loudest frame's power
EXPONENT, SONES = 0.23, 0.1866  # Zwicker's law; the factor of P.862's reference code at 16 kHz
MASKED_SHARE = 0.25  # of the softer one's loudness
ASYMMETRY_EXPONENT, ASYMMETRY_FLOOR, ASYMMETRY_RANGE = 1.2, 50.0, (3.0, 12.0)
LOUDEST = 45.0
SYMMETRIC_WEIGHT, ASYMMETRIC_WEIGHT = 0.1, 0.0309  # PESQ is 4.5 less these two parts
EPSILON = 1e-6


def loudness_loss(real: Float[Array, "B N"], fake: Float[Array, "B N"]) -> Float[Array, ""]:
    """Mean over the rows of the symmetric and the asymmetric disturbance, weighed as PESQ does; 24 kHz."""
    powers = [_bark_power(wav) for wav in (real, fake)]
    frames = jnp.sum(powers[0], axis=-1)
    active = frames > ACTIVE_SHARE * jnp.max(frames, axis=-1, keepdims=True)
    count = jnp.maximum(jnp.sum(active, axis=-1), 1)
    level = jnp.sum(frames * active, axis=-1) / count
    scale = LEVEL / jnp.maximum(level, 1e-4)  # a silent row is not blown up
    powers = [power * scale[:, None, None] for power in powers]
    ease = ((frames * scale[:, None] + 1e5) / 1e7) ** 0.04  # in loud frames differences count less
    parts = [jnp.minimum(part / ease, LOUDEST) for part in _disturbances(*powers)]
    means = [jnp.sqrt(jnp.sum(part**2 * active, axis=-1) / count + EPSILON) for part in parts]
    return jnp.mean(SYMMETRIC_WEIGHT * means[0] + ASYMMETRIC_WEIGHT * means[1])


def _disturbances(
    real: Float[Array, "B T K"], fake: Float[Array, "B T K"]
) -> tuple[Float[Array, "B T"], Float[Array, "B T"]]:
    """Of every frame: differences in loudness, and those where the decoded sound has more power, many times over."""
    width = _bands()[2]
    louds = [_loudness(power) for power in (real, fake)]
    difference = jnp.maximum(jnp.abs(louds[1] - louds[0]) - MASKED_SHARE * jnp.minimum(*louds), 0.0) * width
    total = NUM_BANDS * width
    symmetric = total * jnp.sqrt(jnp.sum(difference**2, axis=-1) / total + EPSILON)
    lowest, highest = ASYMMETRY_RANGE
    excess = ((fake + ASYMMETRY_FLOOR) / (real + ASYMMETRY_FLOOR)) ** ASYMMETRY_EXPONENT
    factor = jax.lax.stop_gradient(jnp.where(excess < lowest, 0.0, jnp.minimum(excess, highest)))
    return symmetric, jnp.sum(difference * factor, axis=-1)


def _bark_power(wav: Float[Array, "B N"]) -> Float[Array, "B T K"]:
    spectrum = dsp.stft(wav, WINDOW, HOP)
    return (jnp.real(spectrum) ** 2 + jnp.imag(spectrum) ** 2) @ _bands()[0]


def _loudness(power: Float[Array, "B T K"]) -> Float[Array, "B T K"]:
    """Sones a Bark; zero under the threshold of hearing."""
    threshold = _bands()[1][None, None]
    ratio = jnp.maximum(power, threshold) / threshold
    return SONES * (2.0 * threshold) ** EXPONENT * ((0.5 + 0.5 * ratio) ** EXPONENT - 1.0)


@functools.lru_cache(maxsize=1)
def _bands() -> tuple[Float[np.ndarray, "F K"], Float[np.ndarray, " K"], float]:
    """Each bin's share in each band (Bark: Wang, Sekey, Gersho 1992), thresholds of hearing (Terhardt), width."""
    half_bin = SPEECH_SAMPLE_RATE_HZ / WINDOW / 2
    bins = np.linspace(0.0, SPEECH_SAMPLE_RATE_HZ / 2, WINDOW // 2 + 1)
    low, high = _bark(np.maximum(bins - half_bin, 0.0))[:, None], _bark(bins + half_bin)[:, None]
    edges = np.linspace(0.0, _bark(HIGHEST_HZ), NUM_BANDS + 1)
    shares = np.maximum(0.0, np.minimum(high, edges[1:]) - np.maximum(low, edges[:-1])) / (high - low)
    khz = np.maximum(0.6 * np.sinh((edges[:-1] + edges[1:]) / 12.0), 0.06)
    threshold_db = 3.64 * khz**-0.8 - 6.5 * np.exp(-0.6 * (khz - 3.3) ** 2) + 1e-3 * khz**4
    return shares.astype(np.float32), (10.0 ** (threshold_db / 10.0)).astype(np.float32), float(edges[1])


def _bark(hz: float | np.ndarray) -> np.ndarray:
    return 6.0 * np.arcsinh(np.asarray(hz) / 600.0)
