"""Saves and restores a run's state through orbax: asynchronous, whole or absent, the last few kept."""

from __future__ import annotations

import contextlib
import errno
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp

from omni_jax.checkpoint.manifest import CheckpointError, Manifest, config_differences
from omni_jax.config import Config

_ROOM = 1.1  # free space asked for, as a multiple of the arrays' bytes
_ITEMS = ("params", "opt_state", "extra")

logging.getLogger("absl").setLevel(logging.ERROR)  # orbax comments on every save and every read-only open


class Restored(NamedTuple):
    manifest: Manifest
    params: Any
    opt_state: Any


class Checkpointer:
    """Checkpoints of one run in `<workdir>/checkpoints/<step>/`, items `params`, `opt_state` and `extra` (JSON).

    Orbax writes into a temporary directory and renames it: a killed save leaves nothing that `restore` would take.
    """

    def __init__(self, workdir: str | Path, keep: int = 2) -> None:
        """Raises CheckpointError when `workdir` cannot be created."""
        self.directory = checkpoint_directory(workdir)
        with _disk_errors(self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)
            self._manager = ocp.CheckpointManager(
                self.directory,
                item_names=_ITEMS,
                options=ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True),
            )

    def save(self, manifest: Manifest, params: Any, opt_state: Any) -> None:
        """Returns once the arrays are copied off the devices; the write goes on in the background.

        Raises CheckpointError when the disk is, or in the previous save was, full.
        """
        self._require_room(params, opt_state)
        arguments = ocp.args.Composite(
            params=ocp.args.StandardSave(params),
            opt_state=ocp.args.StandardSave(opt_state),
            extra=ocp.args.JsonSave(manifest.to_json()),
        )
        with _disk_errors(self.directory):
            self._manager.save(manifest.step, args=arguments, force=True)

    def latest_step(self) -> int | None:
        return self._manager.latest_step()

    def restore(self, config: Config, params: Any, opt_state: Any, codec_sha256: str = "") -> Restored | None:
        """The latest checkpoint, laid out like `params` and `opt_state` (arrays or ShapeDtypeStructs with shardings).

        None when there is none yet. Raises CheckpointError when it belongs to another configuration or codec.
        """
        step = self.latest_step()
        if step is None:
            return None
        extra = self._manager.restore(step, args=ocp.args.Composite(extra=ocp.args.JsonRestore()))["extra"]
        manifest = Manifest.from_json(extra)
        self._require_same(manifest, config, codec_sha256)
        targets = jax.tree.map(ocp.utils.to_shape_dtype_struct, (params, opt_state))
        arrays = self._manager.restore(
            step,
            args=ocp.args.Composite(
                params=ocp.args.StandardRestore(targets[0]), opt_state=ocp.args.StandardRestore(targets[1])
            ),
        )
        return Restored(manifest, arrays["params"], arrays["opt_state"])

    def wait(self) -> None:
        """Blocks until the last save is whole on disk; raises CheckpointError when it failed."""
        with _disk_errors(self.directory):
            self._manager.wait_until_finished()

    def close(self) -> None:
        with _disk_errors(self.directory):
            self._manager.close()

    def _require_room(self, *trees: Any) -> None:
        needed = int(_ROOM * sum(leaf.nbytes for leaf in jax.tree.leaves(trees)))
        free = shutil.disk_usage(self.directory).free
        if free < needed:
            raise CheckpointError(
                f"{self.directory}: the disk has {free / 1e6:.0f} MB free, a checkpoint needs {needed / 1e6:.0f} MB: "
                "free some space or give another --workdir; the last checkpoint is whole"
            )

    def _require_same(self, manifest: Manifest, config: Config, codec_sha256: str) -> None:
        differences = config_differences(manifest.config, config)
        if differences:
            raise CheckpointError(
                f"{self.directory.parent} holds a run of another config ({'; '.join(differences[:4])}"
                f"{' ...' if len(differences) > 4 else ''}): give another --workdir or the same flags"
            )
        if manifest.codec_sha256 != codec_sha256:
            raise CheckpointError(
                f"{self.directory.parent} was trained on the codes of codec {manifest.codec_sha256[:12] or 'none'}, "
                f"not of {codec_sha256[:12] or 'none'}: set training.codec_from to that codec or start a new --workdir"
            )


def checkpoint_directory(workdir: str | Path) -> Path:
    return Path(workdir).absolute() / "checkpoints"


@contextlib.contextmanager
def _disk_errors(directory: Path) -> Iterator[None]:
    """Turns what a full, read-only or foreign disk raises, here or in orbax' threads, into one clear line."""
    try:
        yield
    except OSError as error:
        reason = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
        raise CheckpointError(f"{directory}: cannot write a checkpoint: {reason}") from error
    except ValueError as error:  # tensorstore reports its own status texts
        if "No space left" not in str(error) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise CheckpointError(f"{directory}: cannot write a checkpoint: the disk is full") from error
