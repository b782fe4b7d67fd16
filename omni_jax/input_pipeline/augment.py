"""Augmentation of what the user's microphone hears, on 16 kHz waveforms; randomness is passed in."""

from __future__ import annotations

import functools

import numpy as np
from jaxtyping import Float

from omni_jax.sound_frames import Variation, vary
from omni_jax.types import LISTEN_SAMPLE_RATE_HZ

SPEECH_LEVEL_DBFS = -26.0  # of active speech, before a random gain
NOISE_SAMPLES = 30 * LISTEN_SAMPLE_RATE_HZ
TELEPHONE_BAND_HZ = (300.0, 3400.0)
MU = 255.0
DIRECT_SAMPLES = 40  # 2.5 ms before the first reflection
VOCAL_TRACT_RANGE = (0.9, 1.12)
MEL_TILT = 0.125  # log-mel units of 40 dB

Wav = Float[np.ndarray, "_N"]


def rms(wav: Wav) -> float:
    return float(np.sqrt(np.mean(np.square(wav)) + 1e-12))


def at_level(wav: Wav, level_dbfs: float) -> Wav:
    """Scaled so that the louder half of its 80 ms blocks has this level: pauses do not count."""
    blocks = wav[: len(wav) // 1280 * 1280].reshape(-1, 1280) if len(wav) >= 1280 else wav[None]
    energy = np.sort(np.mean(np.square(blocks), axis=-1))
    active = np.sqrt(np.mean(energy[len(energy) // 2 :]) + 1e-12)
    return wav * np.float32(10.0 ** (level_dbfs / 20.0) / active)


def change_speed(wav: Wav, factor: float) -> Wav:
    """Plays `factor` times faster, pitch and all, as another speaker would sound; linear interpolation."""
    positions = np.arange(int(len(wav) / factor)) * factor
    return np.interp(positions, np.arange(len(wav)), wav).astype(np.float32)


@functools.lru_cache(maxsize=1)
def noise_table() -> Float[np.ndarray, "2 N"]:
    """Half a minute of white and of pink (1/f) noise of unit level, made once: spectra are dear, offsets are free."""
    white = np.random.default_rng(0).standard_normal(NOISE_SAMPLES, dtype=np.float32)
    spectrum = np.fft.rfft(white) / np.sqrt(np.maximum(np.arange(NOISE_SAMPLES // 2 + 1), 20.0))
    pink = np.fft.irfft(spectrum, NOISE_SAMPLES).astype(np.float32)
    return np.stack([white, pink / rms(pink)])


def steady_noise(rng: np.random.Generator, num_samples: int) -> Wav:
    """White or pink noise of unit level."""
    table = noise_table()[rng.integers(2)]
    return np.take(table, np.arange(num_samples) + rng.integers(NOISE_SAMPLES), mode="wrap")


def babble(rng: np.random.Generator, wavs: list[Wav], num_samples: int) -> Wav:
    """Several talkers at once, each looped from a random point, of unit level."""
    total = np.zeros(num_samples, np.float32)
    for wav in wavs:
        total += np.take(at_level(wav, 0.0), np.arange(num_samples) + rng.integers(len(wav)), mode="wrap")
    return total / max(rms(total), 1e-6)


def telephone(wav: Wav) -> Wav:
    """Keeps the band of a telephone line."""
    spectrum = np.fft.rfft(wav)
    hz = np.fft.rfftfreq(len(wav), 1.0 / LISTEN_SAMPLE_RATE_HZ)
    spectrum[(hz < TELEPHONE_BAND_HZ[0]) | (hz > TELEPHONE_BAND_HZ[1])] = 0.0
    return np.fft.irfft(spectrum, len(wav)).astype(np.float32)


def mu_law(wav: Wav) -> Wav:
    """As it comes out of a telephone network's codec: eight bits a sample, finer where it is quiet (ITU-T G.711)."""
    companded = np.sign(wav) * np.log1p(MU * np.abs(wav)) / np.log1p(MU)
    steps = np.round(np.clip(companded, -1.0, 1.0) * 127.0) / 127.0
    return (np.sign(steps) * np.expm1(np.abs(steps) * np.log1p(MU)) / MU).astype(np.float32)


def reverberate(rng: np.random.Generator, wav: Wav, seconds: float) -> Wav:
    """In a room in which sound takes `seconds` to fall by 60 dB: the direct sound, then decaying noise, whose energy is
    up to that of the direct sound. Of the same length; the direct sound stays where it was.
    """
    count = int(seconds * LISTEN_SAMPLE_RATE_HZ)
    decay = 10.0 ** (-3.0 * np.arange(count, dtype=np.float32) / count)
    room = steady_noise(rng, count) * decay
    room *= np.float32(rng.uniform(0.2, 1.0) / np.sqrt(np.sum(np.square(room)) + 1e-12))
    room[:DIRECT_SAMPLES] = 0.0
    room[0] = 1.0
    size = 1 << int(len(wav) + count - 1).bit_length()
    heard = np.fft.irfft(np.fft.rfft(wav, size) * np.fft.rfft(room, size), size)[: len(wav)]
    return (heard / max(1.0, float(np.abs(heard).max()))).astype(np.float32)


def echo(rng: np.random.Generator, own_wav: Wav) -> Wav:
    """The assistant's own voice as its microphone hears it: up to a fifth as loud, 100 to 500 ms later."""
    delay = int(rng.uniform(0.1, 0.5) * LISTEN_SAMPLE_RATE_HZ)
    delayed = np.concatenate([np.zeros(delay, np.float32), own_wav])[: len(own_wav)]
    return delayed * np.float32(rng.uniform(0.05, 0.2))


def draw_variation(rng: np.random.Generator, num_frames: int, num_mels: int, masked: bool) -> Variation:
    """Another speaker in front of another microphone: a vocal tract of another length, and a tilt of up to 5 dB from
    the lowest to the highest bin. `masked`: and SpecAugment (arXiv:1904.08779), one band of mel bins and two short
    stretches of time.
    """
    warp = rng.uniform(*VOCAL_TRACT_RANGE)
    tilt = float(np.float32(rng.uniform(-1.0, 1.0) * MEL_TILT))
    if not masked:
        return Variation(warp, tilt)
    width = int(rng.integers(0, num_mels // 8 + 1))
    low = int(rng.integers(0, num_mels - width + 1))
    times = []
    for _ in range(2):
        length = int(rng.integers(0, min(16, num_frames // 10) + 1))
        start = int(rng.integers(0, num_frames - length + 1))
        times.append((start, start + length))
    return Variation(warp, tilt, (low, low + width), tuple(times))


def vary_mel(mel: Float[np.ndarray, "A8 M"], variation: Variation) -> Float[np.ndarray, "A8 M"]:
    """A log-mel as the variation says; what is masked is set to the mean."""
    mel = vary(mel, variation.warp, variation.tilt)
    fill = mel.mean()
    mel[:, slice(*variation.band)] = fill
    for stretch in variation.times:
        mel[slice(*stretch)] = fill
    return mel
