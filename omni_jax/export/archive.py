"""A trained model with all that it needs to run, as files: weights, configuration, tokenizer and a manifest."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from omni_jax import __version__
from omni_jax.codec_config import CodecConfig
from omni_jax.config import Config
from omni_jax.config_dict import from_dict, to_dict
from omni_jax.errors import ConfigError, UserError
from omni_jax.export import sharded
from omni_jax.export.arrays import flatten, num_parameters, read_arrays, write_arrays
from omni_jax.export.manifest import verify_manifest, write_manifest
from omni_jax.export.precision import pack, unpack
from omni_jax.input_pipeline.tokenizer import Tokenizer
from omni_jax.models import omni
from omni_jax.streaming.tick import Weights

MODEL, CODEC, CONFIG = "model.safetensors", "codec.safetensors", "config.json"
TOKENIZERS = ("tokenizer.model", "tokenizer.json")  # SentencePiece, and Hugging Face's


@dataclass(frozen=True)
class Bundle:
    """`params` and `codec_params` are nested dicts of float32 arrays, also where the export holds others."""

    config: Config
    params: Any
    codec_params: Any
    tokenizer_model: bytes  # a SentencePiece model or a tokenizer.json
    step: int
    data_card: Mapping[str, Any] = field(default_factory=dict)
    license: str = "unspecified"  # of the weights, an SPDX identifier

    @property
    def codec_config(self) -> CodecConfig:
        return self.config.codec

    def vocabulary(self) -> Tokenizer:
        return Tokenizer(self.tokenizer_model)

    def stored(self, dtype: str) -> Weights:
        """The weights as an export in `dtype` has them. The codec's stay float32: they are few, and are heard."""
        return Weights(pack(self.params, dtype, omni.param_axes(self.config.model)), self.codec_params)


def write_archive(directory: Path, bundle: Bundle, weights: Weights) -> None:
    """Stored weights as safetensors, and what goes with them. `describe` is called last."""
    write_arrays(directory / MODEL, weights.model)
    write_arrays(directory / CODEC, weights.codec)
    write_companions(directory, bundle)


def write_companions(directory: Path, bundle: Bundle) -> None:
    (directory / CONFIG).write_text(json.dumps(to_dict(bundle.config), indent=2) + "\n", encoding="utf-8")
    (directory / TOKENIZERS[bundle.tokenizer_model[:1] == b"{"]).write_bytes(bundle.tokenizer_model)


def describe(directory: Path, bundle: Bundle, weights: Weights) -> None:
    """Writes the manifest: what was trained on what, with what, how it is stored, and every file's sha256."""
    facts = {
        "step": bundle.step,
        "num_parameters": {"model": num_parameters(bundle.params), "codec": num_parameters(bundle.codec_params)},
        "versions": {
            "omni_jax": __version__,
            "python": platform.python_version(),
            "jax": jax.__version__,
            "numpy": np.__version__,
        },
        "license": {"weights": bundle.license, "code": "Apache-2.0", "data": "see data_card"},
        "data_card": dict(bundle.data_card),
        "training_config": to_dict(bundle.config),
        "tensors": {part: _shapes(tree) for part, tree in weights._asdict().items()},
    }
    write_manifest(directory, facts)


def _shapes(tree: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: {"shape": list(leaf.shape), "dtype": str(leaf.dtype)} for name, leaf in flatten(tree).items()}


def read_archive(directory: str | Path) -> Bundle:
    """The bundle, after checking every file. Raises UserError."""
    directory = Path(directory)
    manifest = verify_manifest(directory)
    try:
        config = from_dict(Config, json.loads((directory / CONFIG).read_text(encoding="utf-8")))
    except (OSError, ValueError, ConfigError) as error:
        raise UserError(f"{directory / CONFIG}: {error}") from None
    if (directory / sharded.MODEL).is_dir():
        weights = sharded.read_sharded(directory)
    else:
        weights = Weights(read_arrays(directory / MODEL), read_arrays(directory / CODEC))
    tokenizer_model = (directory / _tokenizer_name(directory)).read_bytes()
    card, license = manifest["data_card"], manifest["license"]["weights"]
    params = jax.tree.map(jnp.asarray, unpack(jax.device_get(weights.model)))
    return Bundle(config, params, weights.codec, tokenizer_model, manifest["step"], card, license)


def _tokenizer_name(directory: Path) -> str:
    return next((name for name in TOKENIZERS if (directory / name).is_file()), TOKENIZERS[0])
