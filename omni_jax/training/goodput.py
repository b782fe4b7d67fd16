"""Where a run's wall time goes: `goodput.json`, one record a start of the process, kept up to date while it runs.

Seconds by part: startup (from the process' start, or from the end of the stage before it in the same process, to the
loop), compile (the first step), data (waiting for a batch), step, checkpoint (blocked by saves), evaluation, other.
Between the records lies the time in which no process ran (restart), and a record whose steps go beyond the next one's
start has lost them.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from omni_jax.parallel.multihost import is_first

GOODPUT_FILE = "goodput.json"
PARTS = ("startup", "compile", "data", "step", "checkpoint", "evaluation", "other", "restart", "lost")
_WRITE_EVERY_S = 5.0
_KEPT_STEP_TIMES = 512  # the last ones, for percentiles


class Goodput:
    """Counts one process' seconds. Process 0 writes."""

    _startup_began = time.time()  # with the process, or with the end of another stage in it

    def __init__(self, workdir: Path, start_step: int) -> None:
        self._path = workdir / GOODPUT_FILE
        self._earlier = read_attempts(workdir)
        self._began = time.time()
        first = not any(attempt["pid"] == os.getpid() for attempt in self._earlier[-1:])
        startup = self._began - Goodput._startup_began if first else 0.0
        self._began -= startup
        self._seconds = {"startup": startup}
        self._start_step = self._step = start_step
        self._step_times: list[float] = []
        self._last_step = time.monotonic()
        self._written = 0.0
        self._asked, self._waited = time.monotonic(), 0.0

    def __enter__(self) -> Goodput:
        return self

    def __exit__(self, *_: object) -> None:
        self._write()
        Goodput._startup_began = time.time()

    @contextlib.contextmanager
    def spend(self, part: str) -> Iterator[None]:
        began = time.monotonic()
        if part == "step" and self._step == self._start_step:
            part = "compile"
        try:
            yield
        finally:
            self._seconds[part] = self._seconds.get(part, 0.0) + time.monotonic() - began

    def step_done(self, step: int) -> None:
        now = time.monotonic()
        if step > self._start_step + 1:
            self._step_times = [*self._step_times[1 - _KEPT_STEP_TIMES :], now - self._last_step]
        self._step, self._last_step = step, now
        if now - self._written > _WRITE_EVERY_S:
            self._written = now
            self._write()

    def went_back(self, step: int) -> None:
        """The steps after `step` are lost: a new record begins."""
        self._write()
        self._earlier.append(self._record())
        self._began, self._seconds, self._step_times = time.time(), {}, []
        self._start_step = self._step = step

    def input_wait(self) -> float:
        """The share of the time since the last call in which the training waited for a batch."""
        now, waited = time.monotonic(), self._seconds.get("data", 0.0)
        share = max(waited - self._waited, 0.0) / max(now - self._asked, 1e-9)
        self._asked, self._waited = now, waited
        return share

    def scalars(self) -> dict[str, float]:
        """Shares of the wall time of all records, for TensorBoard."""
        seconds = account([*self._earlier, self._record()])
        total = max(sum(seconds.values()), 1e-9)
        return {f"time_share/{part}": value / total for part, value in seconds.items()}

    def line(self) -> str:
        """One line: where the wall time went."""
        seconds = account([*self._earlier, self._record()])
        rest = sorted((value, part) for part, value in seconds.items() if part != "step")[::-1]
        parts = ", ".join(f"{part} {value:.1f} s" for value, part in rest if value >= 0.05)
        return f"{100 * goodput(seconds):.0f} % of {sum(seconds.values()):.0f} s in steps that count; {parts}"

    def _record(self) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "began": round(self._began, 3),
            "ended": round(time.time(), 3),
            "start_step": self._start_step,
            "last_step": self._step,
            "seconds": {part: round(seconds, 3) for part, seconds in self._seconds.items()},
            "peak_memory_bytes": peak_memory_bytes(),
            "step_seconds": [round(seconds, 4) for seconds in self._step_times],
        }

    def _write(self) -> None:
        if not is_first():
            return
        temporary = self._path.with_suffix(".tmp")
        with contextlib.suppress(OSError):  # a full disk is the checkpoints' to report
            temporary.write_text(json.dumps([*self._earlier, self._record()]) + "\n", encoding="utf-8")
            os.replace(temporary, self._path)


def peak_memory_bytes() -> int:
    """The most that the devices held, or this process where devices do not tell (CPU)."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    on_devices = max(values.get("peak_bytes_in_use", 0) for values in stats)
    unit = 1 if sys.platform == "darwin" else 1024
    return on_devices or unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def read_attempts(workdir: Path) -> list[dict[str, Any]]:
    """The records so far; a damaged file counts as none."""
    try:
        return json.loads((workdir / GOODPUT_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []


def account(attempts: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Seconds by `PARTS` over all records; "step" holds only steps that counted in the end."""
    total = dict.fromkeys(PARTS, 0.0)
    for index, attempt in enumerate(attempts):
        seconds = dict(attempt["seconds"])
        wall = attempt["ended"] - attempt["began"]
        seconds["other"] = max(0.0, wall - sum(seconds.values()))
        following = attempts[index + 1] if index + 1 < len(attempts) else None
        if following:
            done = max(1, attempt["last_step"] - attempt["start_step"])
            lost = seconds.get("step", 0.0) * max(0, attempt["last_step"] - following["start_step"]) / done
            seconds["lost"], seconds["step"] = lost, seconds.get("step", 0.0) - lost
            seconds["restart"] = max(0.0, following["began"] - attempt["ended"])
        for part, value in seconds.items():
            total[part] += value
    return total


def goodput(seconds: Mapping[str, float]) -> float:
    """Share of the wall time that went into steps that counted."""
    return seconds["step"] / max(sum(seconds.values()), 1e-9)
