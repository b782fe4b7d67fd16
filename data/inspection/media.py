"""Media of the model made visible and audible: log-mel as a picture and as sound, patches as a picture."""

from __future__ import annotations

import io

import numpy as np
import soundfile
from jaxtyping import Float, Int
from matplotlib import colormaps
from PIL import Image

from omni_jax.dsp import WHISPER_HOP, WHISPER_SAMPLE_RATE_HZ, WHISPER_WINDOW, frame_causal, hann, mel_filterbank
from omni_jax.report.style import data_uri

ITERATIONS = 24
MOMENTUM = 0.99
PEAK = 0.5


def spectrogram(mel: Float[np.ndarray, "8A M"]) -> str:
    """Time to the right, low bins below; PNG data URI, one pixel a value."""
    low, high = float(mel.min()), float(mel.max())
    scaled = (mel.T[::-1] - low) / max(high - low, 1e-6)
    return _png(colormaps["magma"](scaled)[..., :3])


def code_map(codes: Int[np.ndarray, "F Q"], codebook_size: int) -> str:
    """Codebook 0 on top; absent codes are white."""
    colours = colormaps["viridis"](np.clip(codes.T / codebook_size, 0, 1))[..., :3]
    return _png(np.where((codes.T < 0)[..., None], 1.0, colours))


def picture(patches: Float[np.ndarray, "P X"], positions: Int[np.ndarray, "P 2"]) -> str:
    """The patches put back where they were cut out."""
    size = round((patches.shape[1] / 3) ** 0.5)
    rows, columns = positions.max(axis=0) + 1
    canvas = np.ones((rows, size, columns, size, 3), np.float32)
    canvas[positions[:, 0], :, positions[:, 1]] = patches.reshape(-1, size, size, 3)
    return _png(canvas.reshape(rows * size, columns * size, 3))


def _png(pixels: Float[np.ndarray, "H W 3"]) -> str:
    encoded = io.BytesIO()
    Image.fromarray((np.clip(pixels, 0, 1) * 255).round().astype(np.uint8)).save(encoded, "PNG")
    return data_uri(encoded.getvalue(), "image/png")


def sound(wav: Float[np.ndarray, "N"], rate_hz: int) -> str:
    """A WAV file as a data URI, at a comfortable level."""
    peak = float(np.abs(wav).max(initial=0.0))
    encoded = io.BytesIO()
    soundfile.write(encoded, wav * (PEAK / max(peak, 1e-4)), rate_hz, format="WAV", subtype="PCM_16")
    return data_uri(encoded.getvalue(), "audio/wav")


def heard_again(mel: Float[np.ndarray, "8A M"]) -> Float[np.ndarray, "N"]:
    """What is left of the sound in causal log-mel features, at 16 kHz: phases by the fast Griffin-Lim algorithm
    (Perraudin et al. 2013), magnitudes by the filterbank's pseudo-inverse.
    """
    filters = mel_filterbank(WHISPER_SAMPLE_RATE_HZ, WHISPER_WINDOW, mel.shape[1])
    power = np.maximum(10.0 ** (4.0 * mel - 4.0) @ np.linalg.pinv(filters), 0.0)
    magnitude = np.sqrt(power)
    spectrum = magnitude * np.exp(2j * np.pi * np.random.default_rng(0).random(magnitude.shape))
    before = spectrum
    for _ in range(ITERATIONS):
        now = _spectra(_overlap_add(spectrum))
        moved = now + MOMENTUM * (now - before)
        before, spectrum = now, magnitude * np.exp(1j * np.angle(moved))
    return _overlap_add(spectrum).astype(np.float32)


def _spectra(wav: Float[np.ndarray, "N"]) -> np.ndarray:
    return np.fft.rfft(frame_causal(wav, WHISPER_WINDOW, WHISPER_HOP) * hann(WHISPER_WINDOW))


def _overlap_add(spectrum: np.ndarray) -> Float[np.ndarray, "N"]:
    """The signal whose right-aligned frames come closest to these spectra."""
    window = hann(WHISPER_WINDOW)
    count, lead = len(spectrum), WHISPER_WINDOW - WHISPER_HOP
    frames = np.fft.irfft(spectrum, WHISPER_WINDOW) * window
    total, weight = np.zeros(count * WHISPER_HOP + lead), np.full(count * WHISPER_HOP + lead, 1e-3)
    for number in range(count):
        part = slice(number * WHISPER_HOP, number * WHISPER_HOP + WHISPER_WINDOW)
        total[part] += frames[number]
        weight[part] += window * window
    return (total / weight)[lead:]
