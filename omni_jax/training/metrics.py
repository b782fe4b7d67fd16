"""Writes a run's metrics: `metrics.jsonl`, one JSON object a logged step, and TensorBoard events through clu."""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

METRICS_FILE = "metrics.jsonl"


class MetricsWriter:
    """Appends to `<workdir>/metrics.jsonl`; a resumed run first drops the lines after the step it resumes from."""

    def __init__(self, workdir: str | Path, stage: str, start_step: int = 0, tensorboard: bool = True) -> None:
        self.path = Path(workdir) / METRICS_FILE
        self._stage = stage
        _truncate(self.path, start_step)
        self._file = self.path.open("a", encoding="utf-8")
        self._events = _TensorBoardThread(Path(workdir) / "tensorboard") if tensorboard else None

    def write(self, step: int, loss: float, parts: Mapping[str, float], seconds: float) -> None:
        """`seconds` since the stage began, resumed time not counted twice."""
        rounded = {name: float(f"{value:.6g}") for name, value in parts.items()}
        record = {"step": step, "stage": self._stage, "loss": float(f"{loss:.6g}"), "parts": rounded}
        self._file.write(json.dumps(record | {"seconds": round(seconds, 3)}) + "\n")
        self._file.flush()
        if self._events:
            self._events.put(step, {"loss": loss, **parts})

    def close(self) -> None:
        self._file.close()
        if self._events:
            self._events.close()


def read_metrics(workdir: str | Path) -> list[dict[str, Any]]:
    """All records of a stage, in order; empty when it has not logged yet."""
    path = Path(workdir) / METRICS_FILE
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.endswith("}")]  # a killed run may leave half a line


def _truncate(path: Path, last_step: int) -> None:
    kept = [record for record in read_metrics(path.parent) if record["step"] <= last_step]
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8")
    os.replace(temporary, path)


class _TensorBoardThread:
    """clu imports TensorFlow, which takes about ten seconds: it happens beside the first training steps."""

    def __init__(self, logdir: Path) -> None:
        self._logdir = logdir
        self._scalars: queue.SimpleQueue[tuple[int, Mapping[str, float]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="tensorboard", daemon=True)
        self._thread.start()

    def put(self, step: int, scalars: Mapping[str, float]) -> None:
        self._scalars.put((step, dict(scalars)))

    def close(self) -> None:
        self._scalars.put(None)
        self._thread.join()

    def _run(self) -> None:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        try:
            from clu import metric_writers
        except ImportError:
            print("TensorBoard events are skipped: clu is not installed (requirements.txt has it)", file=sys.stderr)
            return
        writer = metric_writers.SummaryWriter(str(self._logdir))
        while (item := self._scalars.get()) is not None:
            writer.write_scalars(*item)
        writer.close()
