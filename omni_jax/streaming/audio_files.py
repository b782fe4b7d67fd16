"""Users' recordings in, speech out: every way in which a file can be wrong is one clear line (`UserError`)."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import soxr
from jaxtyping import Float

from omni_jax.errors import UserError
from omni_jax.types import LISTEN_SAMPLE_RATE_HZ, SPEECH_SAMPLE_RATE_HZ

MAX_SECONDS = 600
MAX_BYTES = 500_000_000
MAX_DECODED_SAMPLES = 120_000_000  # of all channels: 480 MB as float32
_MIN_SAMPLE_RATE_HZ, _MAX_SAMPLE_RATE_HZ, _MAX_CHANNELS = 4_000, 384_000, 64
_UNKNOWN_SIZE = (0, 0xFFFFFFFF)  # what programs that stream a WAV leave in its header


class Recording(NamedTuple):
    samples: Float[np.ndarray, " N"]  # mono, in [-1, 1]
    notes: tuple[str, ...]  # what was done to the file to make it so


def read_recording(path: str | Path, wanted_rate_hz: int = LISTEN_SAMPLE_RATE_HZ) -> Recording:
    """Reads WAV, FLAC, Ogg or MP3 as mono at `wanted_rate_hz`; resampling and mixing are noted. Raises UserError."""
    path = Path(path)
    require_file(path, MAX_BYTES, "audio")
    _require_whole_wav(path)
    wav, sample_rate_hz = _decode(path)
    notes = []
    if wav.shape[1] > 1:
        notes.append(f"{path}: mixed {wav.shape[1]} channels to one")
    mono = wav.mean(axis=1)
    if sample_rate_hz != wanted_rate_hz:
        notes.append(f"{path}: resampled from {sample_rate_hz} Hz to {wanted_rate_hz} Hz")
        mono = soxr.resample(mono, sample_rate_hz, wanted_rate_hz)
    if not len(mono):
        raise UserError(f"{path}: holds less than a sample at {wanted_rate_hz} Hz: record it again")
    if not np.isfinite(mono).all():
        raise UserError(f"{path}: holds samples that are not numbers (NaN or infinity): write it again as 16-bit PCM")
    peak = float(np.abs(mono).max())
    if peak > 1.0:
        notes.append(f"{path}: louder than full scale (peak {peak:.2f}), clipped")
    return Recording(np.clip(mono, -1.0, 1.0).astype(np.float32), tuple(notes))


def write_speech(path: str | Path, wav: Float[np.ndarray, " N"], sample_rate_hz: int = SPEECH_SAMPLE_RATE_HZ) -> None:
    """Writes 16-bit mono WAV, whole or not at all. Raises UserError."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        soundfile.write(temporary, np.clip(wav, -1.0, 1.0), sample_rate_hz, format="WAV", subtype="PCM_16")
        os.replace(temporary, path)
    except (OSError, soundfile.LibsndfileError) as error:
        raise UserError(
            f"{path}: cannot be written ({_reason(error)}): free some space or give another --out"
        ) from None
    finally:
        temporary.unlink(missing_ok=True)


def require_writable(path: str | Path) -> None:
    """Checks before a long computation that `write_speech` has somewhere to write. Raises UserError."""
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path}: is a directory: give a file name, for example {path / 'answer.wav'}")
    if not path.parent.is_dir():
        raise UserError(f"{path}: the directory {path.parent} does not exist: make it with mkdir -p {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"{path}: the directory {path.parent} is not writable: give another --out")


def require_file(path: Path, max_bytes: int, kind: str) -> None:
    if not path.exists():
        raise UserError(f"{path}: no such file: check the path of the {kind}")
    if not path.is_file():
        raise UserError(f"{path}: is not a file: give the path of one {kind} file")
    size = path.stat().st_size
    if size == 0:
        raise UserError(f"{path}: the file is empty: save the {kind} again")
    if size > max_bytes:
        raise UserError(f"{path}: has {size / 1e6:.0f} MB, at most {max_bytes / 1e6:.0f} MB are read: cut it first")


def _require_whole_wav(path: Path) -> None:
    """Compares a WAV's header with its length: libsndfile reads what is there of a cut file and says nothing."""
    with path.open("rb") as file:
        head = file.read(12)
        if len(head) < 12 or head[:4] != b"RIFF" or head[8:] != b"WAVE":
            return
        while len(chunk := file.read(8)) == 8:
            name, size = struct.unpack("<4sI", chunk)
            if name == b"data":
                break
            file.seek(size + size % 2, os.SEEK_CUR)
        else:
            raise UserError(f"{path}: truncated WAV, it ends before its audio begins: copy or record it again")
        present = path.stat().st_size - file.tell()
    if size not in _UNKNOWN_SIZE and present < size:
        raise UserError(
            f"{path}: truncated WAV, its header promises {size} bytes of audio and {present} are there: "
            "copy or record it again"
        )


def _decode(path: Path) -> tuple[Float[np.ndarray, "N channels"], int]:
    try:
        with soundfile.SoundFile(path) as file:
            _require_readable_format(path, file)
            wav = file.read(dtype="float32", always_2d=True)
            promised, sample_rate_hz = file.frames, file.samplerate
    except (soundfile.LibsndfileError, OSError) as error:
        raise UserError(
            f"{path}: not readable as audio ({_reason(error)}): give a WAV, FLAC, Ogg or MP3 file"
        ) from None
    if not len(wav):
        raise UserError(f"{path}: holds no audio: record it again")
    if len(wav) < promised:
        raise UserError(f"{path}: truncated, {len(wav)} of {promised} samples are there: copy or record it again")
    return wav, sample_rate_hz


def _require_readable_format(path: Path, file: soundfile.SoundFile) -> None:
    if not _MIN_SAMPLE_RATE_HZ <= file.samplerate <= _MAX_SAMPLE_RATE_HZ:
        raise UserError(
            f"{path}: sample rate {file.samplerate} Hz, want {_MIN_SAMPLE_RATE_HZ} to {_MAX_SAMPLE_RATE_HZ} Hz: "
            "convert it to 16000 Hz"
        )
    if file.channels > _MAX_CHANNELS:
        raise UserError(f"{path}: {file.channels} channels, at most {_MAX_CHANNELS} are mixed: convert it to mono")
    if file.frames > MAX_SECONDS * file.samplerate:
        raise UserError(
            f"{path}: {file.frames / file.samplerate:.0f} s long, at most {MAX_SECONDS} s are read: cut it first"
        )
    if file.frames * file.channels > MAX_DECODED_SAMPLES:
        raise UserError(
            f"{path}: {file.frames} samples of {file.channels} channels, at most {MAX_DECODED_SAMPLES} in all are "
            "decoded: convert it to mono at 48000 Hz"
        )


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).rstrip(".").split(": ")[-1]
