"""When a run saves, what it does when a save fails, and how it goes on from a checkpoint."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np

from omni_jax.checkpoint import Checkpointer, CheckpointError, Manifest, NoRoomError
from omni_jax.config import Config
from omni_jax.input_pipeline.shards import without_sizes
from omni_jax.operations import Operations
from omni_jax.parallel.multihost import is_first
from omni_jax.training.state import TrainState

MAX_FAILED_SAVES = 3  # in a row
_ROOM_POLL_S = 5.0


@runtime_checkable
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
        allowed = run.operations.allow_config_change
        loader.set_state(without_sizes(manifest.data_state) if allowed else manifest.data_state)
    if is_first():
        print(f"{run.config.stage}: going on from step {manifest.step} in {run.checkpointer.directory}", flush=True)
    step = jax.device_put(np.int32(manifest.step), state.step.sharding)
    key_data = np.asarray(manifest.key_data, np.uint32)
    key = jax.jit(jax.random.wrap_key_data, out_shardings=state.key.sharding)(key_data)
    opt_state, guard = restored.opt_state
    return TrainState(restored.params, opt_state, step, key, guard)


class Saver:
    """Saves by step and by time; a failed save is told, tried again at the next step, and the third in a row stops.

    A full disk stops at once, or holds the run until a checkpoint is whole (`--on_full_disk=wait`).
    """

    def __init__(self, run: Run, key: jax.Array, alive: Callable[[str], None] = lambda doing: None) -> None:
        """`key`: the run's root key. `alive`: called now and then while the run is held."""
        self._run, self._alive = run, alive
        self._key_data = tuple(int(word) for word in np.asarray(jax.random.key_data(key)).ravel())
        self._last_save = time.monotonic()
        self._failed = 0
        self._error: CheckpointError | None = None  # of the last save
        self._metrics: dict[str, float] = {}  # of the last save
        self._full = False

    def time_is_up(self) -> bool:
        interval = self._run.operations.checkpoint_every_s
        return bool(interval) and is_first() and time.monotonic() - self._last_save > interval

    def has_failed(self, wait: bool = False) -> bool:
        """Whether the last save has failed; without waiting for its end unless asked to."""
        outcome = self._run.checkpointer.outcome(wait)
        if outcome is not None:
            self._error = outcome.error
            self._failed = self._failed + 1 if outcome.error else 0
        return self._error is not None

    def save(self, state: TrainState, step: int, data_state: Any, metrics: dict[str, float]) -> None:
        """Starts a save, after the end of the one before; all processes at the same step.

        Raises CheckpointError when the last three have failed, NoRoomError when the disk is full and the run must stop.
        """
        run = self._run
        if self.has_failed(wait=True):
            self._note(self._error)
            metrics = self._metrics  # of many more steps than those since
        self._error, self._metrics = None, metrics
        manifest = Manifest(step, run.config, self._key_data, data_state, run.codec_sha256)
        while not self._start(manifest, state, metrics):
            self._alive("waiting for room on the disk")
            time.sleep(_ROOM_POLL_S)
        self._last_save = time.monotonic()

    def _start(self, manifest: Manifest, state: TrainState, metrics: dict[str, float]) -> bool:
        """False when the disk has no room. Where it was full before, the run goes on with a whole checkpoint only."""
        try:
            self._run.checkpointer.save(manifest, state.params, (state.opt_state, state.guard), metrics)
        except NoRoomError as error:
            self._note(error)
            return False
        if self._full and self.has_failed(wait=True):
            self._note(self._error)
            return False
        self._full = False
        return True

    def _note(self, error: CheckpointError) -> None:
        """Says what is done about a failed save, or raises."""
        if isinstance(error, NoRoomError):
            if self._run.operations.on_full_disk != "wait":
                raise error
            if not self._full:
                print(f"warning: {error}; waiting for room (--on_full_disk=wait)", file=sys.stderr, flush=True)
            self._full, self._failed = True, 0
        elif self._failed >= MAX_FAILED_SAVES:
            raise CheckpointError(f"{MAX_FAILED_SAVES} saves in a row failed; the last: {error}") from error
        else:
            print(f"warning: {error}; saving again", file=sys.stderr, flush=True)
