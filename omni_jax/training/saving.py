"""When a run saves, what it does when a save fails, and how it goes on from a checkpoint."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from omni_jax.checkpoint import Checkpointer, CheckpointError, Manifest, NoRoomError
from omni_jax.config import Config
from omni_jax.operations import Operations
from omni_jax.parallel.multihost import is_first
from omni_jax.training.state import TrainState

MAX_FAILED_SAVES = 3  # in a row
_ROOM_POLL_S = 5.0


class Loader(Protocol):
    def __next__(self) -> Any: ...
    def get_state(self) -> Any: ...
    def set_state(self, state: Any) -> None: ...


class Run(NamedTuple):
    """What a stage's loop needs besides its state and step."""

    config: Config
    workdir: Path
    checkpointer: Checkpointer
    codec_sha256: str = ""
    operations: Operations = Operations()


def resume(run: Run, state: TrainState, loader: Loader | None) -> TrainState:
    """State and loader position of the newest whole checkpoint; `state` as it is when there is none.

    `state`: arrays or ShapeDtypeStructs with shardings. `loader` None keeps its place: the data since are left out.
    """
    optimizer = (state.opt_state, state.guard)
    restored = run.checkpointer.restore(run.config, state.params, optimizer, run.codec_sha256)
    if restored is None:
        return state
    manifest = restored.manifest
    if loader is not None:
        loader.set_state(manifest.data_state)
    if is_first():
        print(f"{run.config.stage}: going on from step {manifest.step} in {run.checkpointer.directory}", flush=True)
    step = jax.device_put(np.int32(manifest.step), state.step.sharding)
    key_data = np.asarray(manifest.key_data, np.uint32)
    key = jax.jit(jax.random.wrap_key_data, out_shardings=state.key.sharding)(key_data)
    opt_state, guard = restored.opt_state
    return TrainState(restored.params, opt_state, step, key, guard)


class Saver:
    """Saves by step and by time; a failed save is told, tried again at the next step, and the third in a row stops."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._last_save = time.monotonic()
        self._failed = 0
        self._retry = False

    def time_is_up(self) -> bool:
        interval = self._run.operations.checkpoint_every_s
        return bool(interval) and is_first() and time.monotonic() - self._last_save > interval

    def has_failed(self) -> bool:
        """Whether the last save failed in the background; raises CheckpointError the third time in a row."""
        error = self._run.checkpointer.failure()
        if error is not None:
            self._note(error)
        return self._retry

    def save(self, state: TrainState, step: int, data_state: Any, metrics: dict[str, float]) -> None:
        """Starts a save. Raises CheckpointError at the third failure in a row, or when the disk is full."""
        run = self._run
        key_data = tuple(int(word) for word in np.asarray(jax.random.key_data(state.key)).ravel())
        manifest = Manifest(step, run.config, key_data, data_state, run.codec_sha256)
        self._retry = False
        try:
            run.checkpointer.wait()
            self._failed = 0
        except CheckpointError as error:
            self._note(error)
        self._save_when_there_is_room(manifest, state, metrics)
        self._last_save = time.monotonic()

    def finish(self) -> None:
        """Waits for the last save; raises CheckpointError when it failed."""
        self._run.checkpointer.wait()

    def _save_when_there_is_room(self, manifest: Manifest, state: TrainState, metrics: dict[str, float]) -> None:
        said = False
        while True:
            try:
                self._run.checkpointer.save(manifest, state.params, (state.opt_state, state.guard), metrics)
                return
            except NoRoomError as error:
                if self._run.operations.on_full_disk != "wait":
                    raise
                if not said:
                    print(f"warning: {error}; waiting for room (--on_full_disk=wait)", file=sys.stderr, flush=True)
                said = True
                time.sleep(_ROOM_POLL_S)

    def _note(self, error: CheckpointError) -> None:
        self._failed += 1
        self._retry = True
        if self._failed >= MAX_FAILED_SAVES:
            raise CheckpointError(f"{MAX_FAILED_SAVES} saves in a row failed; the last: {error}") from error
        print(f"warning: {error}; saving again at the next step", file=sys.stderr, flush=True)
