"""Speech to codes and back with a trained or a published codec, and what the way there and back costs.

python -m omni_jax.models.codec encode --workdir=runs/codec --audio=speech.wav --out=codes.npz
python -m omni_jax.models.codec decode --workdir=runs/codec --codes=codes.npz --out=speech.wav
python -m omni_jax.models.codec evaluate --workdir=runs/codec --folder=recordings --out=report

--weights=DIR takes a published codec (config.json, model.safetensors) in place of --workdir.
"""

from __future__ import annotations

import argparse
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from omni_jax.checkpoint import CheckpointError, load_any_codec, params_sha256
from omni_jax.errors import UserError, run_main
from omni_jax.evals.codec_folder import evaluate_folder
from omni_jax.models import codec
from omni_jax.pretrained.codecs import load_codec_directory
from omni_jax.streaming.audio_files import read_recording, require_file, require_writable, write_speech

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
        ("decode", _decode, ("--codes", "what `encode` wrote"), "WAV file at the codec's rate"),
        ("evaluate", _evaluate, ("--folder", "folder of recordings"), "folder for the table and the pictures"),
    ):
        command = commands.add_parser(name)
        origin = command.add_mutually_exclusive_group(required=True)
        origin.add_argument("--workdir", help="the workdir of a trained codec")
        origin.add_argument("--weights", help="the directory of a published codec: EnCodec, Mimi or DAC")
        command.add_argument(source[0], dest="source", required=True, help=source[1])
        command.add_argument("--out", required=True, help=result)
        command.set_defaults(run=run)
    return parser.parse_args(arguments)


def _load(flags: argparse.Namespace, sha256: str = "") -> tuple[codec.AnyCodecConfig, dict[str, Any]]:
    """The codec; another one than the codes are from is an error."""
    if flags.weights:
        cfg, params = load_codec_directory(flags.weights)
        if sha256 and params_sha256(params) != sha256:
            raise CheckpointError(f"{flags.weights} is not the codec of these codes: use the codec that made them")
        return cfg, params
    config, params = load_any_codec(flags.workdir, sha256)
    if config.recipe and not config.recipe.is_codec:
        raise CheckpointError(f"{flags.workdir} holds a vocoder ({config.size}), which makes no codes: give a codec's")
    return config.generator, params


def _encode(flags: argparse.Namespace) -> None:
    require_writable(flags.out)
    cfg, params = _load(flags)
    recording = read_recording(flags.source, cfg.sample_rate_hz)
    for note in recording.notes:
        print(f"note: {note}")
    samples = recording.samples
    padded = np.pad(samples, (0, -len(samples) % (BUCKET_FRAMES * cfg.hop_samples)))
    frames = -(-len(samples) // cfg.hop_samples)
    codes = np.asarray(codec.encode_codes(cfg, params, padded[None]))[0, :frames]
    _write_codes(Path(flags.out), codes, len(samples), params_sha256(params))
    print(f"{flags.out}: {frames} frames of {codes.shape[1]} codes, {len(samples) / cfg.sample_rate_hz:.2f} s")


def _decode(flags: argparse.Namespace) -> None:
    require_writable(flags.out)
    codes, num_samples, sha256 = _read_codes(Path(flags.source))
    cfg, params = _load(flags, sha256)
    _require_codes_of(cfg, codes, flags.source)
    late = codec.decoder_latency_samples(cfg)
    # As many more frames than were encoded as the decoder is late, at least.
    more = -(-late // cfg.hop_samples)
    padded = np.pad(codes, ((0, more + -(len(codes) + more) % BUCKET_FRAMES), (0, 0)), mode="edge")
    wav = np.asarray(codec.decode_codes(cfg, params, padded[None]))[0, late : late + num_samples]
    write_speech(flags.out, wav, cfg.sample_rate_hz)
    print(f"{flags.out}: {len(wav) / cfg.sample_rate_hz:.2f} s")


def _evaluate(flags: argparse.Namespace) -> None:
    cfg, params = _load(flags)
    print(evaluate_folder(cfg, params, Path(flags.source), Path(flags.out)))


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


def _require_codes_of(cfg: codec.AnyCodecConfig, codes: Int[np.ndarray, "T Q"], path: str) -> None:
    shape_fits = codes.ndim == 2 and len(codes) and codes.shape[1] == cfg.num_codebooks
    if not shape_fits or codes.min() < 0 or codes.max() >= cfg.codebook_size:
        raise UserError(
            f"{path}: holds codes of shape {codes.shape}, want [frames, {cfg.num_codebooks}] with values from 0 to "
            f"{cfg.codebook_size - 1}: make it with the encode command and this codec"
        )


if __name__ == "__main__":
    run_main(main)
