"""Ends a run that hangs: no finished step for `stall_timeout_s` means all stacks, who is missing, and an exit code."""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
from pathlib import Path

import jax

from omni_jax.parallel.heartbeat import Heartbeat

EXIT_STALLED = 75  # EX_TEMPFAIL: launchers start again
STARTUP_FACTOR = 4.0  # the first step waits for the compiler
_POLL_S = 0.5


class Watchdog:
    """A thread that aborts the process with `EXIT_STALLED` when `beat` is not called for `timeout_s`; 0 is off.

    It writes the stacks of all threads and the devices' memory to stderr and `<workdir>/stall.<process>.txt`.
    """

    def __init__(self, workdir: Path, timeout_s: float) -> None:
        self._path = workdir / f"stall.{jax.process_index()}.txt"
        self._timeout_s = timeout_s
        self._limit_s = timeout_s * STARTUP_FACTOR
        self._beats, self._doing = 0, "starting"
        self._ended = threading.Event()
        self._heartbeat = Heartbeat()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        if self._timeout_s:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._heartbeat.close()
        if self._timeout_s:
            self._thread.join()

    def beat(self, doing: str, first: bool = False) -> None:
        """Life was seen. `doing` names what comes next; `first`: it may take as long as a compilation."""
        self._limit_s = self._timeout_s * (STARTUP_FACTOR if first else 1.0)
        self._beats, self._doing = self._beats + 1, doing

    def _watch(self) -> None:
        polled, beats, waited_s = time.monotonic(), self._beats, 0.0
        while not self._ended.wait(_POLL_S):
            before, polled = polled, time.monotonic()
            # While the process is stopped (Ctrl-Z, a paused container), nothing could beat: it counts as two polls.
            waited_s = waited_s + min(polled - before, 2 * _POLL_S) if beats == self._beats else 0.0
            beats = self._beats
            if waited_s > self._limit_s:
                self.abort(f"no progress for {self._limit_s:.0f} s while {self._doing}")

    def abort(self, reason: str) -> None:
        """Says why, with stacks and devices, and ends the process."""
        lost = self._heartbeat.lost()
        reason += f"; no sign of life from {lost}" if lost else ""
        me = self._heartbeat.me
        print(f"error: {me}: {reason}; aborting with exit code {EXIT_STALLED}", file=sys.stderr, flush=True)
        faulthandler.dump_traceback(sys.stderr, all_threads=True)
        try:
            with self._path.open("w", encoding="utf-8") as file:
                print(f"{me}: {reason}", *_device_lines(), sep="\n", file=file, flush=True)
                faulthandler.dump_traceback(file, all_threads=True)
        finally:
            os._exit(EXIT_STALLED)


def _device_lines() -> list[str]:
    return [f"{device}: {device.memory_stats() or 'no memory statistics'}" for device in jax.local_devices()]
