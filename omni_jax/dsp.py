"""Signal processing that training, streaming and the input pipeline share: one text for numpy and jax.numpy.

Every function takes the array namespace from its argument, so a numpy array stays on the host and a jax array can be
traced. Audio is float32 in [-1, 1] with samples on the last axis.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import numpy as np
from jaxtyping import Complex, Float

Array = Any  # np.ndarray or jax.Array

WHISPER_SAMPLE_RATE_HZ = 16_000
WHISPER_WINDOW = 400
WHISPER_HOP = 160
WHISPER_SAMPLES = 480_000  # 30 s
STREAMING_HISTORY_SAMPLES = WHISPER_WINDOW - WHISPER_HOP
# Whisper lets nothing fall more than 8 decades below the loudest value of the 30 s, which needs the future. Speech at
# normal level peaks near 10**1.5, hence this fixed floor.
STREAMING_LOG10_FLOOR = -6.5


@functools.lru_cache(maxsize=32)
def hann(window: int) -> Float[np.ndarray, " W"]:
    """Periodic Hann window."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)).astype(np.float32)


def _hz_to_mel(hz: Any) -> np.ndarray:
    hz = np.asarray(hz, np.float64)
    log_part = 15.0 + np.log(np.maximum(hz, 1e-3) / 1000.0) * 27.0 / np.log(6.4)
    return np.where(hz < 1000.0, hz * 3.0 / 200.0, log_part)


def _mel_to_hz(mel: np.ndarray) -> np.ndarray:
    return np.where(mel < 15.0, mel * 200.0 / 3.0, 1000.0 * np.exp((mel - 15.0) * np.log(6.4) / 27.0))


@functools.lru_cache(maxsize=32)
def mel_filterbank(sample_rate_hz: int, window: int, num_mels: int) -> Float[np.ndarray, "F M"]:
    """Slaney's mel scale with unit-area triangles from 0 Hz to Nyquist (librosa's default, and Whisper's)."""
    bins_hz = np.linspace(0.0, sample_rate_hz / 2, window // 2 + 1)
    edges_hz = _mel_to_hz(np.linspace(_hz_to_mel(0.0), _hz_to_mel(sample_rate_hz / 2), num_mels + 2))
    rising = (bins_hz[:, None] - edges_hz[:-2]) / np.diff(edges_hz)[:-1]
    falling = (edges_hz[2:] - bins_hz[:, None]) / np.diff(edges_hz)[1:]
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    return (triangles * 2.0 / (edges_hz[2:] - edges_hz[:-2])).astype(np.float32)


def frame(x: Float[Array, "*B N"], window: int, hop: int) -> Float[Array, "*B T W"]:
    """Frames [t hop, t hop + window) as shifted blocks, which costs no gather. Only whole blocks of `hop` are used."""
    xp = x.__array_namespace__()
    overlap = math.ceil(window / hop)
    num_blocks = x.shape[-1] // hop
    if num_blocks < overlap:
        raise ValueError(f"frame: {x.shape[-1]} samples are fewer than the {overlap * hop} of one frame: pad the audio")
    blocks = x[..., : num_blocks * hop].reshape(*x.shape[:-1], num_blocks, hop)
    count = num_blocks - overlap + 1
    frames = xp.concatenate([blocks[..., j : j + count, :] for j in range(overlap)], axis=-1)
    return frames[..., :window]


def frame_causal(
    x: Float[Array, "*B N"], window: int, hop: int, history: Float[Array, "*B H"] | None = None
) -> Float[Array, "*B T W"]:
    """Right-aligned frames: frame t ends with sample (t + 1) hop - 1. N must be a multiple of `hop`.

    `history` is the `window - hop` samples before x; None means silence.
    """
    if x.shape[-1] % hop:
        raise ValueError(f"frame_causal: {x.shape[-1]} samples are not a multiple of hop={hop}: pad the audio")
    xp = x.__array_namespace__()
    if history is None:
        history = xp.zeros((*x.shape[:-1], window - hop), x.dtype)
    # `frame` reads whole blocks; zeros in front complete the first and are cut off again.
    lead = -(window - hop) % hop
    padded = xp.concatenate([xp.zeros((*x.shape[:-1], lead), x.dtype), history, x], axis=-1)
    return frame(padded, window + lead, hop)[..., lead:]


def overlap_add(
    frames: Float[Array, "*B T W"], hop: int, tail: Float[Array, "*B Wo"]
) -> tuple[Float[Array, "*B N"], Float[Array, "*B Wo"]]:
    """Adds frame t at [t hop, t hop + W). `tail` is what earlier frames still owe; W must be a multiple of hop.

    Returns the T hop samples that no later frame will change, and the new tail.
    """
    xp = frames.__array_namespace__()
    *lead, count, window = frames.shape
    overlap = window // hop
    blocks = frames.reshape(*lead, count, overlap, hop)
    total = xp.concatenate(
        [tail.reshape(*lead, overlap - 1, hop), xp.zeros((*lead, count, hop), frames.dtype)], axis=-2
    )
    for j in range(overlap):
        before, after = [xp.zeros((*lead, rows, hop), frames.dtype) for rows in (j, overlap - 1 - j)]
        total = total + xp.concatenate([before, blocks[..., j, :], after], axis=-2)
    done, owed = total[..., :count, :], total[..., count:, :]
    return done.reshape(*lead, count * hop), owed.reshape(*lead, (overlap - 1) * hop)


def windowed_rfft(frames: Float[Array, "*B T W"]) -> Complex[Array, "*B T F"]:
    """Hann-windowed spectrum of each frame."""
    shape = (1,) * (frames.ndim - 1) + frames.shape[-1:]
    return frames.__array_namespace__().fft.rfft(frames * hann(frames.shape[-1]).reshape(shape))


def stft(x: Float[Array, "*B N"], window: int, hop: int) -> Complex[Array, "*B T F"]:
    """Hann-windowed spectra of whole frames, neither padded nor centred."""
    return windowed_rfft(frame(x, window, hop))


def magnitude(spectrum: Complex[Array, "*B"], floor: float = 1e-5) -> Float[Array, "*B"]:
    """sqrt(|X|^2 + floor^2): unlike |X|, it has a gradient at zero."""
    xp = spectrum.__array_namespace__()
    return xp.sqrt(xp.square(spectrum.real) + xp.square(spectrum.imag) + floor * floor)


def _log10_mel(frames: Float[Array, "*B T W"], num_mels: int) -> Float[Array, "*B T M"]:
    xp = frames.__array_namespace__()
    spectrum = windowed_rfft(frames)
    power = xp.square(spectrum.real) + xp.square(spectrum.imag)
    filters = mel_filterbank(WHISPER_SAMPLE_RATE_HZ, WHISPER_WINDOW, num_mels)
    # A TPU would round both factors to bfloat16, 0.2 away from the reference.
    with jax.default_matmul_precision("highest"):
        mel = xp.matmul(power, filters)
    return xp.log10(xp.maximum(mel, xp.float32(1e-10)))


def log_mel_whisper(wav: Float[Array, "*B N"], num_mels: int = 80) -> Float[Array, "*B 3000 M"]:
    """Whisper's input features (arXiv:2212.04356): centred windows over 30 s at 16 kHz, shorter audio zero-padded.

    Looks 12.5 ms ahead, and its normaliser sees all 30 s: for half-duplex use only.
    """
    if wav.shape[-1] > WHISPER_SAMPLES:
        raise ValueError(f"log_mel_whisper: {wav.shape[-1]} samples exceed {WHISPER_SAMPLES} (30 s): cut the audio")
    xp = wav.__array_namespace__()
    silence = xp.zeros((*wav.shape[:-1], WHISPER_SAMPLES - wav.shape[-1]), wav.dtype)
    wav = xp.concatenate([wav, silence], axis=-1)
    pad = [(0, 0)] * (wav.ndim - 1) + [(WHISPER_WINDOW // 2, WHISPER_WINDOW // 2)]
    frames = frame(xp.pad(wav, pad, mode="reflect"), WHISPER_WINDOW, WHISPER_HOP)
    mel = _log10_mel(frames[..., : WHISPER_SAMPLES // WHISPER_HOP, :], num_mels)
    loudest = xp.max(mel, axis=(-2, -1), keepdims=True)
    return (xp.maximum(mel, loudest - 8.0) + 4.0) / 4.0


def log_mel_streaming(
    wav: Float[Array, "*B N"], num_mels: int = 80, history: Float[Array, "*B 240"] | None = None
) -> Float[Array, "*B T M"]:
    """The causal variant of Whisper's features: windows end where their frame ends, on a fixed scale.

    N is a multiple of 160 samples at 16 kHz and T = N / 160. `history` is the 240 samples before `wav`; None means
    silence. Feeding a signal in pieces, with the history carried along, gives the same frames as feeding it whole.
    """
    return streaming_mel_of(frame_causal(wav, WHISPER_WINDOW, WHISPER_HOP, history), num_mels)


def streaming_mel_of(windows: Float[Array, "*B T 400"], num_mels: int) -> Float[Array, "*B T M"]:
    """`log_mel_streaming` from its windows of samples on."""
    xp = windows.__array_namespace__()
    return (xp.maximum(_log10_mel(windows, num_mels), xp.float32(STREAMING_LOG10_FLOOR)) + 4.0) / 4.0
