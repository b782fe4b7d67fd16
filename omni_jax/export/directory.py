"""The exported directory: weights, configuration, tokenizer and a manifest; whole or absent."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from omni_jax import __version__
from omni_jax.config import Config, ConfigError, from_dict, to_dict
from omni_jax.errors import UserError
from omni_jax.export.arrays import num_parameters, read_arrays, write_arrays
from omni_jax.export.manifest import verify_manifest, write_manifest

MODEL, CODEC, CONFIG, TOKENIZER = "model.safetensors", "codec.safetensors", "config.json", "tokenizer.model"


def write_export(
    directory: str | Path,
    config: Config,
    params: Mapping[str, Any],
    codec_params: Mapping[str, Any],
    tokenizer_model: bytes,
    step: int,
    write_more: Callable[[Path], None] | None = None,
) -> Path:
    """Writes everything beside `directory` and renames it. Raises UserError if it exists or the disk refuses.

    `write_more` may add files to the directory; they are listed in the manifest too.
    """
    directory = Path(directory).absolute()
    if directory.exists():
        raise UserError(f"{directory}: exists already: remove it or give another --out")
    partial = directory.with_name(f".{directory.name}.{os.getpid()}.part")
    try:
        partial.mkdir(parents=True)
        write_arrays(partial / MODEL, params)
        write_arrays(partial / CODEC, codec_params)
        (partial / CONFIG).write_text(json.dumps(to_dict(config), indent=2) + "\n")
        (partial / TOKENIZER).write_bytes(tokenizer_model)
        if write_more is not None:
            write_more(partial)
        facts = {
            "omni_jax": __version__,
            "step": step,
            "num_parameters": {"model": num_parameters(params), "codec": num_parameters(codec_params)},
        }
        write_manifest(partial, facts)
        partial.rename(directory)
    except OSError as error:
        raise UserError(f"{directory}: cannot be written ({error.strerror or error}): give another --out") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return directory


def read_export(directory: str | Path) -> tuple[Config, dict[str, Any], dict[str, Any], bytes, int]:
    """(config, params, codec params, tokenizer model, step) after checking every file. Raises UserError."""
    directory = Path(directory)
    manifest = verify_manifest(directory)
    try:
        config = from_dict(Config, json.loads((directory / CONFIG).read_text()))
    except (ValueError, ConfigError) as error:
        raise UserError(f"{directory / CONFIG}: {error}") from None
    tokenizer_model = (directory / TOKENIZER).read_bytes()
    return (
        config,
        read_arrays(directory / MODEL),
        read_arrays(directory / CODEC),
        tokenizer_model,
        int(manifest["step"]),
    )
