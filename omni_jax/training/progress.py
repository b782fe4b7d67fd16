"""A progress bar on a terminal, plain lines elsewhere: stage, step, loss, examples/s, time left."""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_PLAIN_INTERVAL_SECONDS = 15.0


class StageProgress:
    """One stage's progress. Speed and time left leave out this process' first step, which waits for the compiler."""

    def __init__(self, stage: str, steps: int, start_step: int, stream: TextIO | None = None) -> None:
        self._stage, self._steps, self._start_step = stage, steps, start_step
        self._stream = stream or sys.stdout
        self._began = self._last_line = time.monotonic()
        self._examples = 0
        self._bar = _bar(self._stream) if self._stream.isatty() else None
        if self._bar:
            self._task = self._bar.add_task(stage, total=steps, completed=start_step, loss="", rate="")
            self._bar.start()

    def update(self, step: int, loss: float | None, examples: int) -> None:
        """`step` steps are done, the last one with `examples` examples; `loss` None keeps the one shown."""
        if step == self._start_step + 1:
            self._began = time.monotonic()
        else:
            self._examples += examples
        if self._bar:
            shown = {} if loss is None else {"loss": f"loss {loss:.4f}"}
            self._bar.update(self._task, completed=step, rate=f"{self._rate():.1f} examples/s", **shown)
        elif loss is not None and time.monotonic() - self._last_line > _PLAIN_INTERVAL_SECONDS:
            self._last_line = time.monotonic()
            self._print_line(step, loss)

    def close(self) -> None:
        if self._bar:
            self._bar.stop()

    def _rate(self) -> float:
        return self._examples / max(time.monotonic() - self._began, 1e-6)

    def _print_line(self, step: int, loss: float) -> None:
        line = f"{self._stage} {step}/{self._steps}  loss {loss:.4f}"
        timed_steps = step - self._start_step - 1  # the first one compiles
        if timed_steps:
            per_step = (time.monotonic() - self._began) / timed_steps
            left = timedelta(seconds=round(per_step * (self._steps - step)))
            line += f"  {self._rate():.1f} examples/s  {left} left"
        print(line, file=self._stream, flush=True)


def _bar(stream: TextIO) -> Progress:
    return Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]}"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=Console(file=stream),
    )
