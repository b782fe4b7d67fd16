"""What the loudness loss hears: nothing in equal sounds, more in louder noise, most in what was added."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omni_jax.training.loudness_loss import loudness_loss

SECOND = 24_000
FLOOR = 3e-3  # what the epsilons in the square roots leave


@pytest.fixture(scope="module")
def loss():
    return jax.jit(jax.value_and_grad(loudness_loss, argnums=1))


@pytest.fixture(scope="module")
def voice():
    """A buzz of 120 Hz with formants, and half a second of silence."""
    rng = np.random.default_rng(0)
    pulses = np.zeros(SECOND, np.float32)
    pulses[: SECOND // 2 : 200] = 1.0
    filtered = np.convolve(pulses, np.exp(-np.arange(400) / 60.0) * np.sin(np.arange(400) * 0.13), "same")
    return jnp.asarray(0.1 * filtered + 1e-5 * rng.standard_normal(SECOND), jnp.float32)[None]


def noise(level):
    return jnp.asarray(level * np.random.default_rng(1).standard_normal((1, SECOND)), jnp.float32)


def test_equal_sounds_are_nothing_and_gradients_stay_finite(loss, voice):
    value, gradient = loss(voice, voice)
    assert float(value) < FLOOR and np.isfinite(np.asarray(gradient)).all()


def test_more_noise_is_worse(loss, voice):
    values = [float(loss(voice, voice + noise(level))[0]) for level in (1e-4, 1e-3, 1e-2)]
    assert FLOOR < values[0] < values[1] < values[2]


def test_what_is_added_is_worse_than_what_is_lost(loss, voice):
    more = voice + noise(3e-3)
    assert float(loss(voice, more)[0]) > 1.5 * float(loss(more, voice)[0])


def test_noise_above_8_khz_is_not_heard(loss, voice):
    spectrum = np.fft.rfft(np.asarray(noise(1e-2)[0]))
    spectrum[: round(9_000 * SECOND / 24_000)] = 0.0
    high = jnp.asarray(np.fft.irfft(spectrum), jnp.float32)[None]
    assert float(loss(voice, voice + high)[0]) < 0.1 * float(loss(voice, voice + noise(1e-2))[0])


def test_level_does_not_matter(loss, voice):
    low, high = (float(loss(gain * voice, gain * (voice + noise(1e-3)))[0]) for gain in (0.1, 1.0))
    assert low == pytest.approx(high, rel=1e-3)


def test_silence_has_finite_gradients(loss):
    value, gradient = loss(jnp.zeros((1, SECOND)), noise(1e-6))
    assert np.isfinite(float(value)) and np.isfinite(np.asarray(gradient)).all()
