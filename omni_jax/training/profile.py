"""A profile of chosen steps, in xprof's format, in `<workdir>/profile`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax


class Profile:
    """Traces the steps `window` (first, last); (0, 0) is none."""

    def __init__(self, workdir: Path, window: tuple[int, int]) -> None:
        self._directory = workdir / "profile"
        self._first, self._last = window
        self._running = False

    def __enter__(self) -> Profile:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def before(self, step: int) -> None:
        if step == self._first:
            jax.profiler.start_trace(self._directory)
            self._running = True

    def after(self, step: int, metrics: Any) -> None:
        if self._running and step >= self._last:
            jax.block_until_ready(metrics)  # the traced steps must have run
            self._stop()

    def _stop(self) -> None:
        if self._running:
            self._running = False
            jax.profiler.stop_trace()
            print(f"profile of steps {self._first} to {self._last} in {self._directory}: xprof {self._directory}")
