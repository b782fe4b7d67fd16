"""Saving and restoring runs; the only home of orbax."""

from omni_jax.checkpoint.checkpointer import Checkpointer, Outcome, Restored
from omni_jax.checkpoint.digest import params_sha256
from omni_jax.checkpoint.directory import require_local
from omni_jax.checkpoint.disk import NoRoomError
from omni_jax.checkpoint.manifest import CheckpointError, Manifest
from omni_jax.checkpoint.parameters import host_sharding, read_tree, save_params, write_tree
from omni_jax.checkpoint.restore import load_any_codec, load_codec, load_manifest, load_params
from omni_jax.checkpoint.storage import local_folder, place, write_whole

__all__ = [
    "CheckpointError",
    "Checkpointer",
    "Manifest",
    "NoRoomError",
    "Outcome",
    "Restored",
    "host_sharding",
    "load_any_codec",
    "load_codec",
    "load_manifest",
    "load_params",
    "local_folder",
    "params_sha256",
    "place",
    "read_tree",
    "require_local",
    "save_params",
    "write_tree",
    "write_whole",
]
