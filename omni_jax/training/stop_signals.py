"""SIGTERM (the preemption notice) and Ctrl-C: finish the step, save, leave; a second one leaves at once.

Clusters repeat their notice, so a second SIGTERM counts only `REPEAT_S` after the first.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from typing import Any

from omni_jax.parallel.multihost import is_first
from omni_jax.training.watchdog import EXIT_STALLED

REPEAT_S = 2.0


class StopSignals:
    """Notes SIGINT and SIGTERM while the loop runs.

    A thread of its own hears them too, because Python's handlers wait while the compiler or a collective runs: it ends
    the process at once when there is nothing to save yet, and after `grace_s` when the step or the save does not end.
    """

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self.received = 0
        self.worth_saving = False  # set once a step is done
        self._previous: dict[int, Any] = {}
        self._timer: threading.Timer | None = None

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._receiver, self._sender = socket.socketpair()
            self._sender.setblocking(False)
            self._wakeup = signal.set_wakeup_fd(self._sender.fileno(), warn_on_full_buffer=False)
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
            self._thread = threading.Thread(target=self._listen, name="stop signals", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._previous:
            signal.set_wakeup_fd(self._wakeup)
            for number, handler in self._previous.items():
                signal.signal(number, handler)
            self._sender.close()  # ends the thread
            self._thread.join()
            self._receiver.close()
        if self._timer:
            self._timer.cancel()

    def _note(self, number: int, _: object) -> None:
        self.received = self.received or number

    def _give_up(self) -> None:
        print(
            f"not saved within --grace_s={self._grace_s:g} s; the checkpoint before stays", file=sys.stderr, flush=True
        )
        os._exit(EXIT_STALLED)

    def _listen(self) -> None:
        heard_at: float | None = None
        while data := self._receiver.recv(1):
            number = data[0]
            if number not in (signal.SIGINT, signal.SIGTERM):
                continue
            now = time.monotonic()
            if heard_at is not None and number == signal.SIGTERM and now - heard_at < REPEAT_S:
                continue
            if heard_at is not None or not self.worth_saving:
                os._exit(128 + number)
            heard_at, self.received = now, number
            if is_first():
                print("\nstopping after this step and saving a checkpoint ...", flush=True)
            self._timer = threading.Timer(self._grace_s, self._give_up)
            self._timer.daemon = True
            self._timer.start()
