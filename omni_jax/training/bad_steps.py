"""What follows a skipped step: it is written down with the keys of its batch; several in a row take the run back."""

from __future__ import annotations

import contextlib
import json
import math
import sys

from omni_jax.errors import UserError
from omni_jax.input_pipeline.batch_keys import batch_keys
from omni_jax.parallel.multihost import is_first
from omni_jax.training.saving import Run, Saver
from omni_jax.training.step_log import Finished

BAD_STEPS_FILE = "bad_steps.jsonl"
MAX_ROLLBACKS = 2  # without a checkpoint in between


class TrainingError(UserError):
    """The training diverged; the remedy is a smaller learning rate or other data."""


class BadSteps:
    """Counts bad steps and says when to go back."""

    def __init__(self, run: Run, saver: Saver) -> None:
        self._run, self._saver = run, saver
        self._rollbacks = 0
        self._furthest = 0  # last bad step

    def seen(self, finished: Finished) -> bool:
        """Notes a finished step; True when the run must go back. Raises TrainingError when that did not help."""
        if not finished.in_a_row:
            return False
        self._furthest = max(self._furthest, finished.step)
        self._write(finished)
        if finished.in_a_row < self._run.operations.max_bad_steps:
            return False
        self._saver.has_failed(wait=True)  # the save that goes on may be the one to go back to
        if self._rollbacks == MAX_ROLLBACKS or self._run.checkpointer.latest_step() is None:
            raise TrainingError(self._diagnosis(finished))
        self._rollbacks += 1
        return True

    def saved(self, step: int) -> None:
        """A checkpoint after the trouble: it is over."""
        if step > self._furthest:
            self._rollbacks = 0

    def _write(self, finished: Finished) -> None:
        kind = "not finite" if finished.not_finite else "a spike"
        if not is_first():
            return
        record = finished._asdict() | {
            "kind": kind,
            "examples": batch_keys(*finished.data_states, self._run.config.data.virtual_shards),
        }
        record["data_state_before"] = record.pop("data_states")[0]
        for name in ("loss", "gradient_norm"):
            record[name] = record[name] if math.isfinite(record[name]) else repr(record[name])
        with (
            contextlib.suppress(OSError),  # a full disk is the checkpoints' to report
            (self._run.workdir / BAD_STEPS_FILE).open("a", encoding="utf-8") as file,
        ):
            file.write(json.dumps(record, default=repr) + "\n")
        print(
            f"warning: step {finished.step} is skipped: {kind} (loss {finished.loss:.4g}, gradient norm "
            f"{finished.gradient_norm:.4g}); its examples are in {BAD_STEPS_FILE}",
            file=sys.stderr,
            flush=True,
        )

    def _diagnosis(self, finished: Finished) -> str:
        what = f"{', '.join(finished.not_finite)} not finite" if finished.not_finite else "spikes"
        since = "there is no checkpoint to go back to"
        if self._rollbacks:
            since = f"going back to a checkpoint {self._rollbacks} times and leaving out the data since did not help"
        return (
            f"{self._run.config.stage}: {finished.in_a_row} bad steps in a row up to step {finished.step} ({what}; "
            f"loss {finished.loss:.4g}, gradient norm {finished.gradient_norm:.4g}); {since}: lower "
            f"optimizer.learning_rate or raise optimizer.warmup_steps, or look at the "
            f"examples in {self._run.workdir / BAD_STEPS_FILE}"
        )
