"""Speech to codes and back with a trained codec.

python -m omni_jax.models.codec encode --workdir=runs/codec --audio=speech.wav --out=codes.npz
python -m omni_jax.models.codec decode --workdir=runs/codec --codes=codes.npz --out=speech.wav
"""

from __future__ import annotations

import argparse
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int

from omni_jax.checkpoint import load_codec, params_sha256
from omni_jax.config import CodecConfig
from omni_jax.errors import UserError, run_main
from omni_jax.models import codec
from omni_jax.streaming.audio_files import read_recording, require_file, require_writable, write_speech
from omni_jax.types import FRAME_RATE_HZ, SPEECH_SAMPLE_RATE_HZ

MAX_CODES_BYTES = 100_000_000
BUCKET_FRAMES = 64  # lengths are rounded up to this, so that few shapes are compiled


def main(arguments: Sequence[str] | None = None) -> int:
    flags = _parse(arguments)
    flags.run(flags)
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m omni_jax.models.codec", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    for name, run, source, result in (
        ("encode", _encode, ("--audio", "speech: WAV, FLAC, Ogg or MP3"), "codes: an .npz file"),
        ("decode", _decode, ("--codes", "what `encode` wrote"), "WAV file, 24 kHz"),
    ):
        command = commands.add_parser(name)
        command.add_argument("--workdir", required=True, help="the workdir of a trained codec")
        command.add_argument(source[0], dest="source", required=True, help=source[1])
        command.add_argument("--out", required=True, help=result)
        command.set_defaults(run=run)
    return parser.parse_args(arguments)


def _encode(flags: argparse.Namespace) -> None:
    require_writable(flags.out)
    recording = read_recording(flags.source, SPEECH_SAMPLE_RATE_HZ)
    for note in recording.notes:
        print(f"note: {note}")
    config, params = load_codec(flags.workdir)
    samples = recording.samples
    bucket = int(BUCKET_FRAMES * SPEECH_SAMPLE_RATE_HZ / FRAME_RATE_HZ)
    padded = np.pad(samples, (0, -len(samples) % bucket))
    frames = int(np.ceil(len(samples) * FRAME_RATE_HZ / SPEECH_SAMPLE_RATE_HZ))
    codes = np.asarray(codec.encode_codes(config.codec, params, padded[None]))[0, :frames]
    _write_codes(Path(flags.out), codes, len(samples), params_sha256(params))
    print(f"{flags.out}: {frames} frames of {codes.shape[1]} codes, {len(samples) / SPEECH_SAMPLE_RATE_HZ:.2f} s")


def _decode(flags: argparse.Namespace) -> None:
    require_writable(flags.out)
    codes, num_samples, sha256 = _read_codes(Path(flags.source))
    config, params = load_codec(flags.workdir, sha256)
    _require_codes_of(config.codec, codes, flags.source)
    # One frame more than was encoded: the decoder is late by less than that.
    padded = np.pad(codes, ((0, BUCKET_FRAMES - len(codes) % BUCKET_FRAMES), (0, 0)), mode="edge")
    late = codec.decoder_latency_samples(config.codec)
    wav = np.asarray(codec.decode_codes(config.codec, params, padded[None]))[0, late : late + num_samples]
    write_speech(flags.out, wav)
    print(f"{flags.out}: {len(wav) / SPEECH_SAMPLE_RATE_HZ:.2f} s")


def _write_codes(path: Path, codes: Int[np.ndarray, "T Q"], num_samples: int, sha256: str) -> None:
    """Plain arrays only, nothing pickled; whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            arrays = {"codes": codes.astype(np.int16), "num_samples": np.int64(num_samples)}
            np.savez_compressed(file, **arrays, codec_sha256=np.frombuffer(sha256.encode(), np.uint8))
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}): free some space or give another --out"
        ) from None
    finally:
        temporary.unlink(missing_ok=True)


def _read_codes(path: Path) -> tuple[Int[np.ndarray, "T Q"], int, str]:
    require_file(path, MAX_CODES_BYTES, "codes")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            codes, num_samples = arrays["codes"].astype(np.int32), int(arrays["num_samples"])
            sha256 = arrays["codec_sha256"].tobytes().decode()
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: not a file of codes ({error}): make it with the encode command") from None
    return codes, num_samples, sha256


def _require_codes_of(cfg: CodecConfig, codes: Int[np.ndarray, "T Q"], path: str) -> None:
    shape_fits = codes.ndim == 2 and len(codes) and codes.shape[1] == cfg.num_codebooks
    if not shape_fits or codes.min() < 0 or codes.max() >= cfg.codebook_size:
        raise UserError(
            f"{path}: holds codes of shape {codes.shape}, want [frames, {cfg.num_codebooks}] with values from 0 to "
            f"{cfg.codebook_size - 1}: make it with the encode command and this codec"
        )


if __name__ == "__main__":
    run_main(main)
