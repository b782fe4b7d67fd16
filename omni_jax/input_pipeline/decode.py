"""Encoded media of unknown origin as arrays: mono waveforms at 16 or 24 kHz, RGB pictures. Sizes are checked first."""

from __future__ import annotations

import io
import warnings

import numpy as np
import soundfile
import soxr
from jaxtyping import Float, UInt8
from PIL import Image

from omni_jax.input_pipeline.readers.record import BadRecord, Cause, Samples

MAX_SECONDS = 600.0
MAX_CHANNELS = 8
RATES_HZ = (4_000, 192_000)
SILENT_BELOW = 1e-4  # of full scale
INEXACT_FORMATS = ("MPEG", "MP3")  # their headers only estimate the length
PICTURE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
MAX_PIXELS = 8192 * 8192
LONGEST_SIDE = 1024  # larger pictures are made smaller as they are decoded


def decode_audio(
    audio: bytes | Samples, sample_rate_hz: int, max_seconds: float = MAX_SECONDS
) -> Float[np.ndarray, "N"]:
    """Mono audio in [-1, 1] at `sample_rate_hz`; channels are averaged.

    Raises:
      BadRecord: no audio, cut off, empty, silent, not finite, or of a length or rate that no speech has.
    """
    wav, rate = _samples(audio) if isinstance(audio, Samples) else _decoded(audio, max_seconds)
    if not len(wav):
        raise BadRecord(Cause.EMPTY, "the audio has no samples")
    if not RATES_HZ[0] <= rate <= RATES_HZ[1]:
        raise BadRecord(Cause.UNREADABLE, f"the audio has {rate} Hz, want {RATES_HZ[0]} to {RATES_HZ[1]}")
    if len(wav) > max_seconds * rate:
        raise BadRecord(Cause.TOO_LONG, f"the audio lasts over {max_seconds:.0f} s: cut it with python -m data.segment")
    mono = wav if wav.ndim == 1 else wav[:, 0] if wav.shape[1] == 1 else wav.mean(axis=1)
    peak = max(float(mono.max()), -float(mono.min()))  # NaN where there is one
    if not np.isfinite(peak):
        raise BadRecord(Cause.NOT_FINITE, "the audio has samples that are not numbers")
    if peak < SILENT_BELOW:
        raise BadRecord(Cause.EMPTY, "the audio is silent")
    if peak > 1.0:  # floating-point files may
        mono = mono / peak
    return mono if rate == sample_rate_hz else soxr.resample(mono, rate, sample_rate_hz).astype(np.float32)


def _samples(audio: Samples) -> tuple[Float[np.ndarray, "N"], int]:
    return audio.values.astype(np.float32) / 32768.0, audio.sample_rate_hz


def _decoded(encoded: bytes, max_seconds: float) -> tuple[Float[np.ndarray, "N C"], int]:
    if not encoded:
        raise BadRecord(Cause.EMPTY, "the audio file has no bytes")
    try:
        with soundfile.SoundFile(io.BytesIO(encoded)) as file:
            rate, channels, frames = file.samplerate, file.channels, file.frames
            if not 0 < channels <= MAX_CHANNELS or rate <= 0:
                raise BadRecord(Cause.UNREADABLE, f"the audio has {channels} channels at {rate} Hz")
            limit = int(max_seconds * rate) + 1
            # The header's length is not believed: it may be a number that no memory holds.
            wav = _read(file, limit)
    except BadRecord:
        raise
    except (soundfile.SoundFileError, ValueError, TypeError, OSError) as error:
        raise BadRecord(Cause.UNREADABLE, f"the audio cannot be decoded: {error}") from None
    if len(wav) < min(frames, limit) and file.format not in INEXACT_FORMATS:
        raise BadRecord(Cause.TRUNCATED, f"the audio breaks off after {len(wav)} of {frames} samples")
    return wav, rate


def _read(file: soundfile.SoundFile, limit: int) -> Float[np.ndarray, "N C"]:
    parts, count, step = [], 0, min(limit, 10 * file.samplerate)
    while count < limit:
        part = file.read(step, dtype="float32", always_2d=True)
        parts.append(part)
        count += len(part)
        if len(part) < step:
            break
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def decode_picture(encoded: bytes) -> UInt8[np.ndarray, "H W 3"]:
    """RGB on white, with at most LONGEST_SIDE pixels on a side.

    Raises:
      BadRecord: no picture, cut off, or too large.
    """
    if not encoded:
        raise BadRecord(Cause.EMPTY, "the picture file has no bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _picture(encoded)
    except BadRecord:
        raise
    except (
        OSError,
        ValueError,
        SyntaxError,
        TypeError,
        ArithmeticError,
        LookupError,
        Image.DecompressionBombError,
    ) as e:
        cut = "truncated" in str(e)
        raise BadRecord(Cause.TRUNCATED if cut else Cause.UNREADABLE, f"the picture cannot be decoded: {e}") from None


def _picture(encoded: bytes) -> UInt8[np.ndarray, "H W 3"]:
    with Image.open(io.BytesIO(encoded), formats=PICTURE_FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            raise BadRecord(Cause.TOO_LARGE, f"a picture of {image.width} x {image.height} pixels")
        image.draft("RGB", (LONGEST_SIDE, LONGEST_SIDE))
        image.load()
        if image.mode != "RGB":
            clear = image.convert("RGBA")
            image = Image.new("RGBA", clear.size, "white")
            image.alpha_composite(clear)
            image = image.convert("RGB")
        if max(image.size) > LONGEST_SIDE:
            image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.BILINEAR)
        return np.asarray(image)
