"""Parameters without an optimizer: what imported and assembled models are before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from omni_jax.checkpoint.directory import checkpoint_directory
from omni_jax.checkpoint.integrity import write_commit, write_hashes
from omni_jax.checkpoint.manifest import CheckpointError, Manifest
from omni_jax.config import Config


def save_params(workdir: str | Path, config: Config, params: Any, codec_sha256: str = "") -> None:
    """Writes a checkpoint of step 0 that `load_params` reads and that no run goes on from.

    Raises CheckpointError when the workdir already holds a checkpoint.
    """
    directory = checkpoint_directory(workdir)
    if directory.is_dir() and any(directory.iterdir()):
        raise CheckpointError(f"{workdir}: holds checkpoints already: give another directory")
    directory.mkdir(parents=True, exist_ok=True)
    manifest = Manifest(step=0, config=config, key_data=(), codec_sha256=codec_sha256)
    items = {"params": ocp.args.StandardSave(params), "extra": ocp.args.JsonSave(manifest.to_json())}
    path = directory / "0"
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as writer:
        writer.save(path, args=ocp.args.Composite(**items))
    write_hashes(path, process=0, num_processes=1)
    write_commit(path, num_processes=1, facts={"step": 0})
