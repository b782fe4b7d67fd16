"""The loop that every stage runs: fetch, step, log, checkpoint; it stops cleanly on Ctrl-C and SIGTERM.

A loader is an iterator with `get_state()` and `set_state(...)`; its state is saved as it is after the batch of the
last finished step, so that a resumed run sees exactly the batches that the uninterrupted one would have seen.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from enum import IntEnum
from typing import Any

import jax
import numpy as np

from omni_jax.input_pipeline.shards import merged_state
from omni_jax.parallel.multihost import PeerError, Votes, gather, is_first
from omni_jax.training.bad_steps import BadSteps, TrainingError
from omni_jax.training.goodput import Goodput
from omni_jax.training.profile import Profile
from omni_jax.training.saving import Loader, Run, Saver, resume
from omni_jax.training.state import TrainState
from omni_jax.training.step_log import Finished, StepLog
from omni_jax.training.stop_signals import StopSignals
from omni_jax.training.watchdog import Watchdog

__all__ = ["Loader", "Run", "StepFunction", "Stopped", "TrainingError", "resume", "train"]

StepFunction = Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array]]]
Prepare = Callable[[int, TrainState], TrainState]
Evaluate = Callable[[Any], dict[str, float]]


class Stopped(SystemExit):
    """Raised after a clean stop by a signal; the exit code is the shell's, 128 + signal number."""


class Vote(IntEnum):
    """What a process may ask for after a step; see `Votes`."""

    STOP = 0  # the number of the signal
    SAVE = 1  # time for a checkpoint, or the last save failed


def train(
    run: Run,
    state: TrainState,
    step_function: StepFunction,
    loader: Loader,
    examples: int,
    prepare: Prepare | None = None,
    evaluate: Evaluate | None = None,
) -> TrainState:
    """Runs to `config.training.steps`; every step's metrics must have "loss".

    The metrics of step n - 1 are read while step n runs. Bad steps (`guard.py`) are written down; several in a row take
    the run back to a checkpoint, at the data where it is. Raises Stopped after a signal, once the state is saved;
    TrainingError when going back did not help; CheckpointError when saves fail.

    Args:
        examples: examples a step, to show.
        prepare: called with the steps done and the state before each step; may replace the state.
        evaluate: from parameters to numbers that are logged, every `--evaluate_every` steps and after the last one.
    """
    return _Loop(run, step_function, loader, (prepare, evaluate), state, examples).run(state)


class _Loop:
    """The parts around the steps, and one run through them."""

    def __init__(
        self,
        run: Run,
        step_function: StepFunction,
        loader: Loader,
        hooks: tuple[Prepare | None, Evaluate | None],
        state: TrainState,
        examples: int,
    ) -> None:
        self._run, self._step_function, self._loader = run, step_function, loader
        self._prepare, self._evaluate = hooks
        self._step = start = int(state.step)
        self._saved_at: int | None = None  # the step of the last save
        self._data_state: Any = None  # the loader's, after the batch of the last step
        self._goodput = Goodput(run.workdir, start)
        self._log = StepLog(run, start, examples, self._goodput)
        self._votes = Votes(len(Vote))
        self._watchdog = Watchdog(run.workdir, run.operations.stall_timeout_s)
        self._saver = Saver(run, state.key, self._watchdog.beat)
        self._bad_steps = BadSteps(run, self._saver)
        self._profile = Profile(run.workdir, run.operations.profile_window())
        self._signals = StopSignals(run.operations.grace_s)

    def run(self, state: TrainState) -> TrainState:
        steps = self._run.config.training.steps
        with ExitStack() as stack:
            for part in (self._signals, self._watchdog, self._goodput, self._profile):
                stack.enter_context(part)
            stack.callback(self._run.checkpointer.outcome, wait=True)
            stack.callback(self._log.close)
            self._watchdog.beat("compiling and running the first step", first=True)
            try:
                while self._step < steps:
                    state = self._turn(state)
                self._end(state)
            except (jax.errors.JaxRuntimeError, PeerError) as error:
                if jax.process_count() == 1:
                    raise
                self._watchdog.abort(f"{type(error).__name__}: {str(error).splitlines()[0]}")
        return state

    def _turn(self, state: TrainState) -> TrainState:
        """One step and what follows from it."""
        state, finished = self._advance(state)
        if finished and self._bad_steps.seen(finished):
            return self._go_back(state)
        if self._evaluate and self._is_time_to_evaluate():
            self._log_held_out(self._evaluate, state)
        stop, save = self._wishes()
        if save:
            finished = self._flush()  # a start that goes on from here must find this step's line
            if finished and self._bad_steps.seen(finished):
                return self._go_back(state)
            self._save(state)
            self._watchdog.beat(f"running step {self._step + 1}")
        if stop:
            self._end(state)
            raise Stopped(128 + stop)
        return state

    def _advance(self, state: TrainState) -> tuple[TrainState, Finished | None]:
        """One step; also the step before, which has finished meanwhile."""
        if self._prepare:
            state = self._prepare(self._step, state)
        before = self._loader.get_state()
        with self._goodput.spend("data"):
            batch = next(self._loader)
        self._data_state = self._loader.get_state()
        self._step += 1
        self._profile.before(self._step)
        with self._goodput.spend("step"):
            state, metrics = self._step_function(state, batch)
            finished = self._log.add(self._step, metrics, (before, self._data_state))
        self._goodput.step_done(self._step)
        self._profile.after(self._step, metrics)
        self._watchdog.beat(f"running step {self._step + 1}")
        self._signals.worth_saving = True
        return state, finished

    def _is_time_to_evaluate(self) -> bool:
        every = self._run.operations.evaluate_every
        return bool(every) and (self._step % every == 0 or self._step == self._run.config.training.steps)

    def _log_held_out(self, evaluate: Evaluate, state: TrainState) -> None:
        with self._goodput.spend("step"):
            jax.block_until_ready(state.params)
        self._watchdog.beat("evaluating", first=True)
        with self._goodput.spend("evaluation"):
            self._log.include(evaluate(state.params))
        self._watchdog.beat(f"running step {self._step + 1}")

    def _wishes(self) -> tuple[int, bool]:
        """The number of the signal that ends the run, or 0, and whether to save; the same on all processes."""
        training = self._run.config.training
        wants_save = self._saver.has_failed() or self._saver.time_is_up()
        votes = self._votes.exchange(np.array([self._signals.received, wants_save]))
        stop = int(votes[Vote.STOP])
        due = self._step == training.steps or self._step % training.checkpoint_every == 0
        # Where votes arrive a step late, the first one after a save was cast before it.
        answered = self._votes.late and self._saved_at == self._step - 1
        return stop, bool(due or stop or (votes[Vote.SAVE] and not answered))

    def _flush(self) -> Finished | None:
        with self._goodput.spend("step"):
            return self._log.flush()

    def _save(self, state: TrainState) -> None:
        with self._goodput.spend("checkpoint"):
            self._saver.save(state, self._step, _merged(self._data_state), self._log.mean_since_save())
        self._saved_at = self._step
        self._bad_steps.saved(self._step)

    def _go_back(self, state: TrainState) -> TrainState:
        """The state of the last checkpoint; the loader stays, so that the data since are left out."""
        abstract = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state
        )
        jax.tree.map(lambda leaf: leaf.delete(), state)  # or both would have to fit beside each other
        restored = resume(self._run, abstract, None)
        if restored is abstract:
            raise TrainingError(f"{self._run.config.stage}: diverged, and no checkpoint is whole: start it anew")
        self._step, self._saved_at = int(restored.step), None
        self._log.rewind(self._step)
        self._goodput.went_back(self._step)
        return restored

    def _end(self, state: TrainState) -> None:
        """The last step's numbers and the last save, which is tried again where it fails."""
        self._watchdog.beat("ending", first=True)
        finished = self._flush()
        if finished:
            self._bad_steps.seen(finished)
        with self._goodput.spend("checkpoint"):
            while self._saver.has_failed(wait=True):
                self._save(state)
        if is_first():
            print(f"{self._run.config.stage}: {self._goodput.line()}", flush=True)


def _merged(data_state: Any) -> Any:
    """The data state of all processes: each knows only the shards that it reads."""
    if jax.process_count() == 1:
        return data_state
    return merged_state([json.loads(text) for text in gather("data state", json.dumps(data_state))])
