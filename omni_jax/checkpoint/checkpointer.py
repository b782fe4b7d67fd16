"""Saves and restores a run's state through orbax: asynchronous, whole or absent, verified, by several processes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp

from omni_jax.checkpoint import directory as layout
from omni_jax.checkpoint.disk import disk_errors, reason, require_room, write_error
from omni_jax.checkpoint.integrity import DamagedError, write_commit, write_hashes
from omni_jax.checkpoint.manifest import CheckpointError, Manifest, require_same_run
from omni_jax.checkpoint.small_files import SmallFiles
from omni_jax.checkpoint.snapshot import snapshot
from omni_jax.config import Config
from omni_jax.operations import Operations
from omni_jax.parallel.multihost import PeerError, gather, is_first

_SAVE_TIMEOUT_S = 1200
_ARRAYS = ("params", "opt_state")  # items beside `extra`

logging.getLogger("absl").setLevel(logging.CRITICAL)  # orbax comments on every save, and what fails is raised too


class Restored(NamedTuple):
    manifest: Manifest
    params: Any
    opt_state: Any


class Outcome(NamedTuple):
    """How a save ended; `error` None is well."""

    error: CheckpointError | None


class Checkpointer:
    """Checkpoints of one run in `<workdir>/checkpoints/<step>/`, items `params`, `opt_state` and `extra` (JSON).

    A checkpoint counts once its commit marker is written, after the hashes of all its files (`integrity.py`). The
    workdir may lie in a bucket; all files but the checkpoints are written into `folder`, a directory of this machine.
    """

    def __init__(self, workdir: str | Path, keep: int = 2, operations: Operations | None = None) -> None:
        """Raises CheckpointError when `workdir` cannot be created or reached."""
        self.directory = layout.checkpoint_directory(workdir)
        self._small_files = SmallFiles(workdir)
        self.folder = self._small_files.folder
        self._keep, self._operations = keep, operations or Operations()
        with disk_errors(self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)
            if is_first():
                self._small_files.fetch()
                layout.clean(self.directory)
        gather("checkpoints cleaned")
        self._orbax = _orbax_checkpointer()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._saving: Future[None] | None = None

    def save(self, manifest: Manifest, params: Any, opt_state: Any, metrics: Mapping[str, float] | None = None) -> None:
        """Returns at once, although the arrays may still be computed; all else is done in the background.

        `metrics` decide which checkpoint is the best. Raises CheckpointError when the previous save failed, NoRoomError
        before anything is written when the disk is too full.
        """
        self.wait()
        require_room(self.directory, params, opt_state)
        copies = snapshot((params, opt_state))
        self._saving = self._thread.submit(self._save, manifest, copies, dict(metrics or {}))

    def outcome(self, wait: bool = False) -> Outcome | None:
        """How the last save ended, told once; None while it goes on (unless `wait`), or when there is none to tell."""
        if self._saving is None or not (wait or self._saving.done()):
            return None
        try:
            self.wait()
        except CheckpointError as error:
            return Outcome(error)
        except PeerError as error:
            return Outcome(CheckpointError(str(error)))
        return Outcome(None)

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
        items = {name: ocp.args.StandardRestore(tree) for name, tree in zip(_ARRAYS, targets, strict=True)}
        arrays = self._orbax.restore(path, args=ocp.args.Composite(**items))
        return Restored(manifest, *(arrays[name] for name in _ARRAYS))

    def wait(self) -> None:
        """Blocks until the last save is committed; raises CheckpointError when it failed."""
        saving, self._saving = self._saving, None
        if saving is not None:
            saving.result()

    def close(self) -> None:
        """After the last save and whatever else was written into `folder`."""
        self.wait()
        if is_first():
            self._small_files.push()
        self._thread.shutdown()
        self._orbax.close()

    def _save(self, manifest: Manifest, arrays: tuple[Any, Any], metrics: Mapping[str, float]) -> None:
        """In the background: writes the arrays, hashes this process' files, and commits when all have done so."""
        step = manifest.step
        path = self.directory / str(step)

        def write() -> None:
            items = {name: ocp.args.StandardSave(tree) for name, tree in zip(_ARRAYS, arrays, strict=True)}
            extra = ocp.args.JsonSave(manifest.to_json())
            self._orbax.save(path, args=ocp.args.Composite(**items, extra=extra), force=True)
            self._orbax.wait_until_finished()
            write_hashes(path, jax.process_index(), jax.process_count())

        def commit() -> None:
            if is_first():
                self._small_files.push()
                write_commit(path, jax.process_count(), {"step": step, "metrics": metrics})
                layout.prune(self.directory, self._keep, self._operations.keep_every, self._operations.best_metric)

        self._together("checkpoint written", step, write)
        self._together("checkpoint committed", step, commit)

    def _together(self, topic: str, step: int, act: Callable[[], None]) -> None:
        """Acts; where that fails on one process the save fails on all, and leaves nothing that takes up room."""
        problem = ""
        try:
            act()
        except Exception as error:  # whatever it was: the next save may go better
            problem = reason(error)
        outcomes = gather(topic, problem, _SAVE_TIMEOUT_S)
        if not any(outcomes):
            return
        if is_first():
            layout.discard(self.directory, step)
        failed = [f"process {rank}: {outcome}" for rank, outcome in enumerate(outcomes) if outcome]
        raise write_error(self.directory / str(step), "; ".join(failed) if len(outcomes) > 1 else problem)

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
                with disk_errors(self.directory):
                    layout.set_aside(self.directory, step, found)
            gather("checkpoint set aside")
        return None


def _orbax_checkpointer() -> ocp.AsyncCheckpointer:
    """Its processes meet through the coordination service: a thread's collectives would mix with those of the steps."""
    count = jax.process_count()
    together = ocp.options.MultiprocessingOptions(active_processes=set(range(count)) if count > 1 else None)
    handler = ocp.CompositeCheckpointHandler(composite_options=ocp.CompositeOptions(multiprocessing_options=together))
    return ocp.AsyncCheckpointer(
        handler,
        async_options=ocp.options.AsyncOptions(timeout_secs=_SAVE_TIMEOUT_S),
        multiprocessing_options=together,
    )
