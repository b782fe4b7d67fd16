"""A directory with a published codec (config.json, model.safetensors) as a config and parameters of ours, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from omni_jax.codec_config import DacConfig, SeanetConfig
from omni_jax.errors import UserError
from omni_jax.pretrained import dac, seanet
from omni_jax.pretrained.codec_tensors import Tensors

MAX_CONFIG_BYTES, MAX_WEIGHTS_BYTES = 1_000_000, 4_000_000_000
PublishedCodec = SeanetConfig | DacConfig


READERS = {
    "encodec": (seanet.encodec_config, seanet.read_encodec),
    "mimi": (seanet.mimi_config, seanet.read_mimi),
    "dac": (dac.dac_config, dac.read_dac),
}


def load_codec_directory(directory: str | Path) -> tuple[PublishedCodec, dict[str, Any]]:
    """Config and parameters. Raises UserError for files that are missing, too large or of another model."""
    path = Path(directory) / "config.json"
    published = _read_json(path)
    kind = published.get("model_type")
    if kind not in READERS:
        raise UserError(f"{path}: model_type={kind!r}: want encodec, mimi or dac")
    make_config, read = READERS[kind]
    try:
        cfg = make_config(published)
    except KeyError as error:
        raise UserError(f"{path}: has no {error}: give the file that lies beside the weights") from None
    return cfg, read(_read_tensors(path.with_name("model.safetensors")), cfg)


def save_codec_directory(directory: str | Path, cfg: PublishedCodec, params: Mapping[str, Any]) -> None:
    """Writes the two files so that the transformers library loads them without a missing or an unexpected name."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    if isinstance(cfg, DacConfig):
        published, tensors = dac.published_config(cfg), dac.write_dac(params, cfg)
    elif cfg.semantic_codebooks:
        published, tensors = seanet.published_mimi(cfg), seanet.write_mimi(params, cfg)
    else:
        published, tensors = seanet.published_encodec(cfg), seanet.write_encodec(params, cfg)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    (directory / "config.json").write_text(json.dumps(published, indent=2) + "\n", encoding="utf-8")


def _read_json(path: Path) -> dict[str, Any]:
    _require_file(path, MAX_CONFIG_BYTES)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: not JSON ({error}): download it again") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: holds no object: give the codec's config.json")
    return values


def _read_tensors(path: Path) -> Tensors:
    _require_file(path, MAX_WEIGHTS_BYTES)
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not readable as safetensors ({error}): download it again") from None
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise UserError(f"{path}: {name} holds values that are not numbers: download it again")
    return tensors


def _require_file(path: Path, max_bytes: int) -> None:
    if not path.is_file():
        raise UserError(f"{path}: no such file: give the directory of a codec with config.json and model.safetensors")
    if path.stat().st_size > max_bytes:
        raise UserError(f"{path}: has {path.stat().st_size / 1e6:.0f} MB, at most {max_bytes / 1e6:.0f} MB are read")
