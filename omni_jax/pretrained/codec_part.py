"""The codec of an assembled model: a trained one where it lies, or a published one as a workdir of its own."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

from omni_jax.checkpoint import load_codec, save_params
from omni_jax.codec_config import DacConfig, SeanetConfig
from omni_jax.config import Config
from omni_jax.errors import UserError
from omni_jax.models.codec import AnyCodecConfig
from omni_jax.pretrained.codecs import load_codec_directory
from omni_jax.types import FRAME_SPEECH_SAMPLES, SPEECH_SAMPLE_RATE_HZ


class CodecPart(NamedTuple):
    config: AnyCodecConfig
    params: dict[str, Any] | None  # None for a trained codec, which stays where it is


def read_codec_part(directory: str | Path, num_codebooks: int) -> CodecPart:
    """A codec stage's workdir, or a published codec's first `num_codebooks` codebooks.

    Raises UserError for a codec that does not speak a frame of 80 ms at 24 kHz, and for whatever cannot be read.
    """
    if (Path(directory) / "checkpoints").is_dir():
        part = CodecPart(load_codec(directory)[0].codec, None)
    else:
        part = CodecPart(*first_codebooks(*load_codec_directory(directory), num_codebooks))
    cfg = part.config
    if (cfg.hop_samples, cfg.sample_rate_hz) != (FRAME_SPEECH_SAMPLES, SPEECH_SAMPLE_RATE_HZ):
        raise UserError(
            f"--codec={directory}: {cfg.sample_rate_hz / cfg.hop_samples:g} frames a second at {cfg.sample_rate_hz} "
            "Hz, but the model speaks 12.5 a second at 24000 Hz: give Mimi, or a codec stage's workdir"
        )
    return part


def first_codebooks(
    cfg: SeanetConfig | DacConfig, params: dict[str, Any], count: int
) -> tuple[SeanetConfig | DacConfig, dict[str, Any]]:
    """The codec without its last codebooks, which only refine; all of it when it has no more than `count`."""
    count = min(count, cfg.num_codebooks)
    quantizer = params["quantizer"]
    if isinstance(cfg, DacConfig):
        quantizer = {name: array[:count] for name, array in quantizer.items()}
    elif cfg.semantic_codebooks:
        rest = quantizer["acoustic"]["codebooks"][: count - cfg.semantic_codebooks]
        quantizer = quantizer | {"acoustic": quantizer["acoustic"] | {"codebooks": rest}}
    else:
        quantizer = quantizer | {"codebooks": quantizer["codebooks"][:count]}
    return dataclasses.replace(cfg, num_codebooks=count), params | {"quantizer": quantizer}


def write_codec_part(out: Path, part: CodecPart, config: Config) -> None:
    """A workdir that `training.codec_from` takes."""
    save_params(out, dataclasses.replace(config, stage="codec"), part.params)
