"""Writes the metrics of finished steps, one step late, so that reading them does not wait for the step just started."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import jax
import numpy as np

from omni_jax.input_pipeline.shards import truncated_share
from omni_jax.parallel.multihost import is_first
from omni_jax.training.goodput import Goodput
from omni_jax.training.metrics import MetricsWriter, read_metrics
from omni_jax.training.model_flops import padded_flops
from omni_jax.training.progress import StageProgress
from omni_jax.training.saving import Run

COUNTERS = ("bad_steps_in_a_row", "skipped_steps", "gradient_norm")


class Finished(NamedTuple):
    """A step whose numbers have been read."""

    step: int
    loss: float
    gradient_norm: float
    in_a_row: int  # bad steps, this one included; 0 is a good step
    not_finite: tuple[str, ...]  # names of metrics
    data_states: tuple[Any, Any]  # of the loader, before and after this step's batch


class StepLog:
    """Process 0 writes; every process reads the same numbers and so takes the same decisions."""

    def __init__(self, run: Run, start_step: int, examples: int, goodput: Goodput) -> None:
        self._run, self._examples, self._goodput = run, examples, goodput
        self._log_every, self._steps = run.config.training.log_every, run.config.training.steps
        self._held: tuple[int, dict[str, jax.Array], tuple[Any, Any]] | None = None
        self._held_out: dict[str, float] = {}  # of the step that is held
        self._logged: list[dict[str, float]] = []  # since the last save
        self._writer: MetricsWriter | None = None
        self._progress: StageProgress | None = None
        earlier = read_metrics(run.workdir)
        self._began = time.monotonic() - (earlier[-1]["seconds"] if earlier else 0.0)
        self._open(start_step)

    def add(self, step: int, metrics: dict[str, jax.Array], data_states: tuple[Any, Any]) -> Finished | None:
        """Holds a step that was just started; returns the one before, once it is finished."""
        before = self.flush()
        self._held = (step, metrics, data_states)
        return before

    def include(self, held_out: dict[str, float]) -> None:
        """Numbers of held-out batches after the step that is held, which is logged for their sake."""
        self._held_out = held_out
        self._logged.append(held_out)

    def flush(self) -> Finished | None:
        """Waits for the step that is held, and logs it."""
        if self._held is None:
            return None
        (step, metrics, data_states), self._held = self._held, None
        held_out, self._held_out = self._held_out, {}
        due = step == 1 or step % self._log_every == 0 or step == self._steps or bool(held_out)
        wanted = metrics if due else {name: metrics[name] for name in ("loss", *COUNTERS) if name in metrics}
        if not due and "bad_steps_in_a_row" not in metrics:
            self._show(step, None)
            return None
        values = {name: float(value) for name, value in jax.device_get(wanted).items()}
        truncated = truncated_share(data_states[1])
        if due and truncated is not None:  # of this process' own shards
            values["fill/truncated"] = truncated
        if "fill/positions" in values:
            values["fill/padded_flops"] = padded_flops(self._run.config, values)
        bad = tuple(name for name, value in values.items() if not np.isfinite(value))
        loss = values.pop("loss")
        in_a_row = int(values.pop("bad_steps_in_a_row", 0))
        if due and np.isfinite(loss):
            self._logged.append({"loss": loss, **values})
            self._write(step, loss, values | held_out)
        self._show(step, loss if due else None)
        return Finished(step, loss, values.get("gradient_norm", np.nan), in_a_row, bad, data_states)

    def mean_since_save(self) -> dict[str, float]:
        """Means of what was logged since the last call."""
        logged, self._logged = self._logged, []
        names = {name for values in logged for name in values}
        return {name: float(np.mean([values[name] for values in logged if name in values])) for name in names}

    def rewind(self, step: int) -> None:
        """Drops what was logged after `step`."""
        self._held, self._held_out = None, {}
        self._logged = []
        self._close_files()
        self._open(step)

    def close(self) -> None:
        self.flush()
        self._close_files()

    def _open(self, start_step: int) -> None:
        if not is_first():
            return
        config = self._run.config
        self._writer = MetricsWriter(self._run.workdir, config.stage, start_step, config.training.tensorboard)
        self._progress = StageProgress(config.stage, self._steps, start_step)

    def _write(self, step: int, loss: float, values: dict[str, float]) -> None:
        if self._writer:
            seconds, waited = time.monotonic() - self._began, self._goodput.input_wait()
            self._writer.write(step, loss, values, seconds, waited, self._goodput.scalars())

    def _show(self, step: int, loss: float | None) -> None:
        if self._progress:
            self._progress.update(step, loss, self._examples)

    def _close_files(self) -> None:
        if self._writer:
            self._writer.close()
        if self._progress:
            self._progress.close()
