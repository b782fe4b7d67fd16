"""Parameters without an optimizer: what imported and assembled models are at first, and exported ones at last."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.sharding import Sharding, SingleDeviceSharding

from omni_jax.checkpoint.directory import checkpoint_directory
from omni_jax.checkpoint.integrity import write_commit, write_hashes
from omni_jax.checkpoint.manifest import CheckpointError, Manifest
from omni_jax.config import Config

_CHUNK_BYTES, _FILE_BYTES = 2**25, 2**26
_IN_FLIGHT = 1.1  # times the largest array: Orbax refuses what does not stay below its limit


def save_params(workdir: str | Path, config: Config, params: Any, codec_sha256: str = "") -> None:
    """Writes a checkpoint of step 0 that `load_params` reads and that no run goes on from.

    Raises CheckpointError when the workdir already holds a checkpoint.
    """
    directory = checkpoint_directory(workdir)
    if directory.is_dir() and any(directory.iterdir()):
        raise CheckpointError(f"{workdir}: holds checkpoints already: give another directory")
    directory.mkdir(parents=True, exist_ok=True)
    manifest = Manifest(step=0, config=config, key_data=(), codec_sha256=codec_sha256)
    items = {"params": _in_small_pieces(params), "extra": ocp.args.JsonSave(manifest.to_json())}
    largest = max(leaf.nbytes for leaf in jax.tree.leaves(params))
    limited = ocp.PyTreeCheckpointHandler(save_concurrent_gb=_IN_FLIGHT * largest / 1e9)
    path = directory / "0"
    handlers = {"params": limited, "extra": ocp.JsonCheckpointHandler()}
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler(**handlers)) as writer:
        writer.save(path, args=ocp.args.Composite(**items))
    for item in (path, *(path / name for name in items)):  # Orbax names the machine's folders there
        (item / "commit_success.txt").write_text("committed\n")
    write_hashes(path, process=0, num_processes=1)
    write_commit(path, num_processes=1, facts={"step": 0})


def _in_small_pieces(params: Any) -> ocp.args.PyTreeSave:
    """Orbax holds what it writes until a file is full, by default a copy of all."""
    pieces = jax.tree.map(lambda _: ocp.SaveArgs(chunk_byte_size=_CHUNK_BYTES), params)
    return ocp.args.PyTreeSave(params, save_args=pieces, ocdbt_target_data_file_size=_FILE_BYTES)


def write_tree(directory: Path, tree: Any) -> None:
    """Writes a nested dict of arrays as it lies on the devices; any Orbax reads it."""
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as writer:
        writer.save(directory, args=ocp.args.StandardSave(tree))


def host_sharding() -> Sharding:
    """The host's memory, where there is room for what is only passed on; the first device where JAX has no CPU."""
    try:
        return SingleDeviceSharding(jax.local_devices(backend="cpu")[0])
    except RuntimeError:  # JAX_PLATFORMS leaves it out
        return SingleDeviceSharding(jax.local_devices()[0])


def read_tree(directory: Path, sharding: Sharding | None = None) -> Any:
    """The nested dict, with every array placed by `sharding`; by default on the first device."""
    placed = sharding or SingleDeviceSharding(jax.local_devices()[0])
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
        saved = reader.metadata(directory).item_metadata
        abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=placed), saved.tree)
        return reader.restore(directory, args=ocp.args.StandardRestore(abstract))
