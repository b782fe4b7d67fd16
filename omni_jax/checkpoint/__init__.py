"""Saving and restoring runs; the only home of orbax."""

from omni_jax.checkpoint.checkpointer import Checkpointer, NoRoomError, Restored
from omni_jax.checkpoint.digest import params_sha256
from omni_jax.checkpoint.manifest import CheckpointError, Manifest
from omni_jax.checkpoint.parameters import read_tree, save_params, write_tree
from omni_jax.checkpoint.restore import load_codec, load_manifest, load_params

__all__ = [
    "CheckpointError",
    "Checkpointer",
    "Manifest",
    "NoRoomError",
    "Restored",
    "load_codec",
    "load_manifest",
    "load_params",
    "params_sha256",
    "read_tree",
    "save_params",
    "write_tree",
]
