"""Reads the parameters of a trained stage: what evaluation, streaming, export and the next stage start from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp
from jax.sharding import Sharding

from omni_jax.checkpoint.digest import params_sha256
from omni_jax.checkpoint.directory import newest_whole
from omni_jax.checkpoint.manifest import CheckpointError, Manifest
from omni_jax.checkpoint.parameters import read_tree
from omni_jax.config import Config


def load_params(workdir: str | Path, sharding: Sharding | None = None) -> tuple[Config, Any]:
    """Config and parameters (a nested dict of arrays) of the last whole checkpoint in a stage's workdir.

    `sharding`: where every array is placed; by default the first device. Raises CheckpointError when there is none.
    """
    path = newest_whole(workdir, ("params", "extra"))
    return _read_manifest(path).config, read_tree(path / "params", sharding)


def load_manifest(workdir: str | Path) -> Manifest:
    """Step, config, codec sha256 and data state of the last whole checkpoint. Raises CheckpointError."""
    return _read_manifest(newest_whole(workdir, ("extra",)))


def load_codec(workdir: str | Path, expected_sha256: str = "") -> tuple[Config, Any]:
    """Like `load_params` for the workdir of a `spectral` codec, the one that omni models speak through.

    Another codec than the expected one, or one of a published recipe, is a CheckpointError.
    """
    config, params = load_any_codec(workdir, expected_sha256)
    if config.recipe:
        raise CheckpointError(
            f"{workdir} holds a codec of recipe {config.size}, omni models speak through configs/codec.py's: train "
            "that one and give its workdir"
        )
    return config, params


def load_any_codec(workdir: str | Path, expected_sha256: str = "") -> tuple[Config, Any]:
    """`load_codec` for the codecs of published recipes, too: `config.generator` says which it is."""
    config, params = load_params(workdir)
    if config.stage != "codec":
        raise CheckpointError(f"{workdir} holds stage {config.stage!r}, want a codec: check training.codec_from")
    found = params_sha256(params) if expected_sha256 else ""
    if found != expected_sha256:
        raise CheckpointError(
            f"{workdir} holds codec {found[:12]}, the model was trained on the codes of {expected_sha256[:12]}: "
            "use the codec that it was trained with"
        )
    return config, params


def _read_manifest(path: Path) -> Manifest:
    with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
        return Manifest.from_json(reader.restore(path / "extra", args=ocp.args.JsonRestore()))
