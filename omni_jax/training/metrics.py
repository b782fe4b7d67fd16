"""Writes a run's metrics: `metrics.jsonl`, one JSON object a logged step, and TensorBoard events through clu."""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omni_jax.errors import UserError

METRICS_FILE = "metrics.jsonl"


class MetricsWriter:
    """Appends to `<workdir>/metrics.jsonl`; a resumed run first drops the lines after the step it resumes from."""

    def __init__(self, workdir: str | Path, stage: str, start_step: int = 0, tensorboard: bool = True) -> None:
        self.path = Path(workdir) / METRICS_FILE
        self._stage = stage
        try:
            _truncate(self.path, start_step)
            self._file = self.path.open("ab", buffering=0)
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written: {error.strerror}: make room or mend the disk") from error
        self._unwritten = b""  # held while the disk is full
        self._logdir = str(Path(workdir) / "tensorboard")
        self._events = _events_process() if tensorboard else None

    def write(
        self,
        step: int,
        loss: float,
        parts: Mapping[str, float],
        seconds: float,
        input_wait: float,
        events: Mapping[str, float],
    ) -> None:
        """`seconds` since the stage began, resumed time not counted twice; `input_wait`: of the time since the record
        before, the share in which the step had no batch. `events`: scalars for TensorBoard alone.
        """
        rounded = {name: float(f"{value:.6g}") for name, value in parts.items()}
        record = {"step": step, "stage": self._stage, "loss": float(f"{loss:.6g}"), "parts": rounded}
        self._append(json.dumps(record | {"seconds": round(seconds, 3), "input_wait": round(input_wait, 4)}) + "\n")
        if self._events:
            self._events.put(self._logdir, step, {"loss": loss, "input_wait": input_wait, **parts, **events})

    def close(self) -> None:
        self._append("")
        self._file.close()
        if self._events:
            self._events.close_file(self._logdir)

    def _append(self, text: str) -> None:
        """What a full disk does not take is written later; whether the run goes on is the checkpoints' to decide."""
        told = bool(self._unwritten)
        self._unwritten += text.encode()
        try:
            while self._unwritten:
                self._unwritten = self._unwritten[self._file.write(self._unwritten) :]
        except OSError as error:
            if not told:
                print(f"warning: {self.path}: {error.strerror}; metrics are held until it takes them", file=sys.stderr)


def read_metrics(workdir: str | Path) -> list[dict[str, Any]]:
    """All records of a stage, in order; empty when it has not logged yet."""
    path = Path(workdir) / METRICS_FILE
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.endswith("}")]  # a killed run may leave half a line


def _truncate(path: Path, last_step: int) -> None:
    records = read_metrics(path.parent)
    kept = [record for record in records if record["step"] <= last_step]
    if kept == records and path.exists() and path.read_bytes()[-1:] in (b"", b"\n"):
        return  # nothing to drop, not even half a line: a full disk does not matter
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8")
    os.replace(temporary, path)


class _EventsProcess:
    """TensorBoard events through clu, in a process of its own: clu imports TensorFlow, which is slow and large.

    It takes one JSON line a step on stdin and ends with it; see `_write_events`. Ctrl-C does not reach it: it stops the
    training, which then closes its files.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "omni_jax.training.metrics"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # TensorFlow's start-up notes
            text=True,
            start_new_session=True,
        )
        atexit.register(self._end)

    def put(self, logdir: str, step: int, scalars: Mapping[str, float]) -> None:
        with contextlib.suppress(BrokenPipeError):  # metrics.jsonl has everything; training goes on
            print(json.dumps([logdir, step, scalars]), file=self._process.stdin, flush=True)

    def close_file(self, logdir: str) -> None:
        """Returns when all events of `logdir` are on the disk."""
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps([logdir, 0, None]), file=self._process.stdin, flush=True)
            self._process.stdout.readline()

    def _end(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


@functools.cache
def _events_process() -> _EventsProcess | None:
    """One for all stages that this process trains."""
    try:
        import clu  # noqa: F401  the packages themselves are light; clu.metric_writers is not
        import tensorboard  # noqa: F401
    except ImportError as error:
        print(
            f"TensorBoard events are skipped: {error.name} is not installed (requirements.txt has it)", file=sys.stderr
        )
        return None
    return _EventsProcess()


def _write_events() -> None:
    """The child process: [logdir, step, {name: value}] lines in, one events file a logdir out.

    No values: the logdir's file is closed and its name printed.
    """
    os.nice(10)  # the training goes first
    from clu import metric_writers

    writers: dict[str, metric_writers.SummaryWriter] = {}
    for line in sys.stdin:
        logdir, step, scalars = json.loads(line)
        if scalars is not None:
            if logdir not in writers:
                writers[logdir] = metric_writers.SummaryWriter(logdir)
            writers[logdir].write_scalars(step, scalars)
            continue
        if logdir in writers:
            writers.pop(logdir).close()
        print(logdir, flush=True)
    for writer in writers.values():
        writer.close()


if __name__ == "__main__":
    _write_events()
