"""Reads the parameters of a trained stage: what evaluation, streaming, export and the next stage start from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.sharding import Sharding, SingleDeviceSharding

from omni_jax.checkpoint.checkpointer import checkpoint_directory
from omni_jax.checkpoint.digest import params_sha256
from omni_jax.checkpoint.manifest import CheckpointError, Manifest
from omni_jax.config import Config


def load_params(workdir: str | Path, sharding: Sharding | None = None) -> tuple[Config, Any]:
    """Config and parameters (a nested dict of arrays) of the last whole checkpoint in a stage's workdir.

    `sharding`: where every array is placed; by default the first device. Raises CheckpointError when there is none.
    """
    with _reader(workdir) as manager:
        step = _latest_step(manager, workdir)
        manifest = _read_manifest(manager, step)
        placed = sharding or SingleDeviceSharding(jax.devices()[0])
        saved = manager.item_metadata(step)["params"]
        abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=placed), saved.tree)
        params = manager.restore(step, args=ocp.args.Composite(params=ocp.args.StandardRestore(abstract)))["params"]
    return manifest.config, params


def load_manifest(workdir: str | Path) -> Manifest:
    """Step, config, codec sha256 and data state of the last whole checkpoint. Raises CheckpointError."""
    with _reader(workdir) as manager:
        return _read_manifest(manager, _latest_step(manager, workdir))


def load_codec(workdir: str | Path, expected_sha256: str = "") -> tuple[Config, Any]:
    """Like `load_params` for a codec's workdir; another codec than the expected one is a CheckpointError."""
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


def _reader(workdir: str | Path) -> ocp.CheckpointManager:
    directory = checkpoint_directory(workdir)
    if not directory.is_dir():
        raise CheckpointError(f"{workdir}: no checkpoints/ in it: train the stage first or check the path")
    options = ocp.CheckpointManagerOptions(read_only=True, create=False)
    return ocp.CheckpointManager(
        directory,
        item_names=("params", "extra"),
        item_handlers={"params": ocp.StandardCheckpointHandler(), "extra": ocp.JsonCheckpointHandler()},
        options=options,
    )


def _latest_step(manager: ocp.CheckpointManager, workdir: str | Path) -> int:
    step = manager.latest_step()
    if step is None:
        raise CheckpointError(f"{workdir}: no whole checkpoint in it: train the stage first")
    return step


def _read_manifest(manager: ocp.CheckpointManager, step: int) -> Manifest:
    return Manifest.from_json(manager.restore(step, args=ocp.args.Composite(extra=ocp.args.JsonRestore()))["extra"])
