"""The loop that every stage runs: fetch, step, log, checkpoint; stops cleanly on Ctrl-C and SIGTERM.

A loader is an iterator with `get_state()` and `set_state(...)`; its state is saved as it is after the batch of the
last finished step, so that a resumed run sees exactly the batches that the uninterrupted one would have seen.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from omni_jax.checkpoint import Checkpointer, Manifest
from omni_jax.config import Config
from omni_jax.errors import UserError
from omni_jax.training.metrics import MetricsWriter, read_metrics
from omni_jax.training.progress import StageProgress
from omni_jax.training.state import TrainState

StepFunction = Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array]]]


_MAX_BAD_LOGS = 5


class TrainingError(UserError):
    """The training diverged; the remedy is a smaller learning rate or other data."""


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


class Stopped(SystemExit):
    """Raised after a clean stop by a signal; the exit code is the shell's, 128 + signal number."""


def resume(run: Run, state: TrainState, loader: Loader) -> TrainState:
    """State and loader position of the workdir's last checkpoint; `state` as it is when there is none."""
    restored = run.checkpointer.restore(run.config, state.params, state.opt_state, run.codec_sha256)
    if restored is None:
        return state
    manifest = restored.manifest
    loader.set_state(manifest.data_state)
    step = jax.device_put(np.int32(manifest.step), state.step.sharding)
    key_data = np.asarray(manifest.key_data, np.uint32)
    key = jax.device_put(jax.random.wrap_key_data(key_data), state.key.sharding)
    return TrainState(restored.params, restored.opt_state, step, key)


def train(run: Run, state: TrainState, step_function: StepFunction, loader: Loader, examples: int) -> TrainState:
    """Runs to `config.training.steps`; every step's metrics must have "loss". `examples`: examples a step, to show.

    The metrics of step n - 1 are read while step n runs. A step whose loss is not finite must have left the state as
    it was (see `optimizer.py`): it is not logged, and `_MAX_BAD_LOGS` of them in a row raise TrainingError. Raises
    Stopped after a signal, once the state is saved.
    """
    training = run.config.training
    start = int(state.step)
    log = _Log(run, start, examples)
    try:
        with _StopSignals() as signals:
            for step in range(start + 1, training.steps + 1):
                state, metrics = step_function(state, next(loader))
                log.add(step, metrics)
                last = step == training.steps or signals.received
                if last or step % training.checkpoint_every == 0:
                    save(run, state, step, loader)
                if signals.received:
                    raise Stopped(128 + signals.received)
    finally:
        log.close()
        run.checkpointer.wait()
    return state


def save(run: Run, state: TrainState, step: int, loader: Loader) -> None:
    key_data = tuple(int(word) for word in jax.random.key_data(state.key).ravel())
    manifest = Manifest(step, run.config, key_data, loader.get_state(), run.codec_sha256)
    run.checkpointer.save(manifest, state.params, state.opt_state)


class _Log:
    """Holds back one step's metrics, so that reading them does not wait for the step that has just been started."""

    def __init__(self, run: Run, start_step: int, examples: int) -> None:
        training = run.config.training
        self._stage = run.config.stage
        self._bad_logs = 0
        self._log_every, self._steps, self._examples = training.log_every, training.steps, examples
        self._writer = MetricsWriter(run.workdir, self._stage, start_step, training.tensorboard)
        earlier = read_metrics(run.workdir)
        self._began = time.monotonic() - (earlier[-1]["seconds"] if earlier else 0.0)
        self._progress = StageProgress(self._stage, training.steps, start_step)
        self._held: tuple[int, dict[str, jax.Array]] | None = None

    def add(self, step: int, metrics: dict[str, jax.Array]) -> None:
        self._flush()
        self._held = (step, metrics)

    def close(self) -> None:
        self._flush()
        self._writer.close()
        self._progress.close()

    def _flush(self) -> None:
        if self._held is None:
            return
        step, metrics = self._held
        self._held = None
        loss = None
        if step == 1 or step % self._log_every == 0 or step == self._steps:
            values = {name: float(value) for name, value in jax.device_get(metrics).items()}
            loss = values.pop("loss")
            self._write(step, loss, values)
        self._progress.update(step, loss, self._examples)

    def _write(self, step: int, loss: float, values: dict[str, float]) -> None:
        if np.isfinite(loss):
            self._bad_logs = 0
            self._writer.write(step, loss, values, time.monotonic() - self._began)
            return
        self._bad_logs += 1
        if self._bad_logs == _MAX_BAD_LOGS:
            raise TrainingError(
                f"{self._stage}: the loss is not finite at step {step} and at the {_MAX_BAD_LOGS - 1} logged steps "
                "before: lower optimizer.learning_rate or raise optimizer.warmup_steps"
            )


class _StopSignals:
    """Notes SIGINT and SIGTERM instead of dying in the middle of a step; a second Ctrl-C stops at once."""

    def __init__(self) -> None:
        self.received = 0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> _StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.received:
            raise KeyboardInterrupt
        self.received = number
        print("\nstopping after this step and saving a checkpoint ...", flush=True)
