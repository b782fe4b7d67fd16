"""Saves and restores a run's state through orbax: asynchronous, whole or absent, verified, by several processes."""

from __future__ import annotations

import contextlib
import errno
import logging
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp

from omni_jax.checkpoint import directory as layout
from omni_jax.checkpoint.integrity import DamagedError, write_commit, write_hashes
from omni_jax.checkpoint.manifest import CheckpointError, Manifest, require_same_run
from omni_jax.config import Config
from omni_jax.operations import Operations
from omni_jax.parallel.multihost import gather, is_first

_ROOM = 1.1  # free space asked for, as a multiple of the arrays' bytes
_SAVE_TIMEOUT_S = 1200

logging.getLogger("absl").setLevel(logging.ERROR)  # orbax comments on every save and every read-only open


class Restored(NamedTuple):
    manifest: Manifest
    params: Any
    opt_state: Any


class NoRoomError(CheckpointError):
    """The disk has no room for a checkpoint."""


class Checkpointer:
    """Checkpoints of one run in `<workdir>/checkpoints/<step>/`, items `params`, `opt_state` and `extra` (JSON).

    A checkpoint counts once its commit marker is written, after the hashes of all its files (`integrity.py`).
    """

    def __init__(self, workdir: str | Path, keep: int = 2, operations: Operations | None = None) -> None:
        """Raises CheckpointError when `workdir` cannot be created."""
        self.directory = layout.checkpoint_directory(workdir)
        self._keep, self._operations = keep, operations or Operations()
        with _disk_errors(self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)
            if is_first():
                layout.clean(self.directory)
        gather("checkpoints cleaned")
        options = ocp.options.AsyncOptions(timeout_secs=_SAVE_TIMEOUT_S)
        self._orbax = ocp.AsyncCheckpointer(ocp.CompositeCheckpointHandler(), async_options=options)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="commit")
        self._commit: Future[None] | None = None

    def save(self, manifest: Manifest, params: Any, opt_state: Any, metrics: Mapping[str, float] | None = None) -> None:
        """Returns once the arrays are copied off the devices; the write goes on in the background.

        `metrics` decide which checkpoint is the best. Raises CheckpointError when the previous save failed, NoRoomError
        before anything is written when the disk is too full.
        """
        self.wait()
        self._require_room(params, opt_state)
        arguments = ocp.args.Composite(
            params=ocp.args.StandardSave(params),
            opt_state=ocp.args.StandardSave(opt_state),
            extra=ocp.args.JsonSave(manifest.to_json()),
        )
        with _disk_errors(self.directory):
            self._orbax.save(self.directory / str(manifest.step), args=arguments, force=True)
        self._commit = self._thread.submit(self._finish, manifest.step, dict(metrics or {}))

    def failure(self) -> CheckpointError | None:
        """What went wrong in the background since the last call, without waiting."""
        if self._commit is None or not self._commit.done():
            return None
        try:
            self.wait()
        except Exception as error:  # whatever it was: the next save may go better
            return error if isinstance(error, CheckpointError) else CheckpointError(f"{self.directory}: {error!r}")
        return None

    def latest_step(self) -> int | None:
        """The newest checkpoint that is committed, damaged or not."""
        return next(reversed(layout.committed_steps(self.directory)), None)

    def restore(self, config: Config, params: Any, opt_state: Any, codec_sha256: str = "") -> Restored | None:
        """The newest whole checkpoint, laid out like `params` and `opt_state` (arrays or ShapeDtypeStructs).

        Damaged ones are named and set aside. None when there is none. Raises CheckpointError when it belongs to another
        configuration or codec.
        """
        step = self._newest_whole()
        if step is None:
            return None
        path = self.directory / str(step)
        extra = self._orbax.restore(path, args=ocp.args.Composite(extra=ocp.args.JsonRestore()))["extra"]
        manifest = Manifest.from_json(extra)
        require_same_run(self.directory.parent, manifest, config, codec_sha256, self._operations.allow_config_change)
        targets = jax.tree.map(ocp.utils.to_shape_dtype_struct, (params, opt_state))
        arrays = self._orbax.restore(
            path,
            args=ocp.args.Composite(
                params=ocp.args.StandardRestore(targets[0]), opt_state=ocp.args.StandardRestore(targets[1])
            ),
        )
        return Restored(manifest, arrays["params"], arrays["opt_state"])

    def wait(self) -> None:
        """Blocks until the last save is committed; raises CheckpointError when it failed."""
        commit, self._commit = self._commit, None
        if commit is not None:
            with _disk_errors(self.directory):
                commit.result()

    def close(self) -> None:
        self.wait()
        self._thread.shutdown()
        self._orbax.close()

    def _finish(self, step: int, metrics: Mapping[str, float]) -> None:
        """In the background: waits for the arrays, hashes this process' files, and commits when all have done so."""
        path, problem = self.directory / str(step), ""
        try:
            self._orbax.wait_until_finished()
            write_hashes(path, jax.process_index(), jax.process_count())
        except Exception as error:
            if jax.process_count() == 1:
                raise
            problem = f"{type(error).__name__}: {error}"
        outcomes = gather("checkpoint written", problem, _SAVE_TIMEOUT_S)
        if any(outcomes):
            failed = [f"process {rank}: {outcome}" for rank, outcome in enumerate(outcomes) if outcome]
            raise CheckpointError(f"{path}: cannot write a checkpoint: {'; '.join(failed)}")
        if is_first():
            write_commit(path, jax.process_count(), {"step": step, "metrics": metrics})
            layout.prune(self.directory, self._keep, self._operations.keep_every, self._operations.best_metric)
        gather("checkpoint committed", timeout_s=_SAVE_TIMEOUT_S)

    def _newest_whole(self) -> int | None:
        """The processes share the reading; what one of them finds damaged is damaged for all."""
        for step in reversed(layout.committed_steps(self.directory)):
            problem = ""
            try:
                layout.check(self.directory, step, (), jax.process_index(), jax.process_count())
            except DamagedError as error:
                problem = str(error)
            found = next((text for text in gather("checkpoint verified", problem) if text), "")
            if not found:
                return step
            if is_first():
                layout.set_aside(self.directory, step, found)
            gather("checkpoint set aside")
        return None

    def _require_room(self, *trees: Any) -> None:
        needed = int(_ROOM * sum(_local_bytes(leaf) for leaf in jax.tree.leaves(trees)))
        free = shutil.disk_usage(self.directory).free
        if free < needed:
            raise NoRoomError(
                f"{self.directory}: the disk has {free / 1e6:.0f} MB free, a checkpoint needs {needed / 1e6:.0f} MB: "
                "free some space or give another --workdir; the last checkpoint is whole"
            )


def _local_bytes(leaf: Any) -> int:
    """What this process will write of an array."""
    if not isinstance(leaf, jax.Array):
        return leaf.nbytes
    return sum(shard.data.nbytes for shard in leaf.addressable_shards if shard.replica_id == 0)


@contextlib.contextmanager
def _disk_errors(directory: Path) -> Iterator[None]:
    """Turns what a full, read-only or foreign disk raises, here or in orbax' threads, into one clear line."""
    try:
        yield
    except OSError as error:
        reason = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
        raise CheckpointError(f"{directory}: cannot write a checkpoint: {reason}") from error
    except CheckpointError:
        raise
    except ValueError as error:  # tensorstore reports its own status texts
        if "No space left" not in str(error) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise CheckpointError(f"{directory}: cannot write a checkpoint: the disk is full") from error
