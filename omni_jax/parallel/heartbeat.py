"""Signs of life between the processes of a run, so that the one that died or froze can be named."""

from __future__ import annotations

import threading
import time

import jax

from omni_jax.parallel import multihost

INTERVAL_S = 1.0
PATIENCE_S = 4.0  # a process that sends nothing for so long is lost
ANSWER_S = 3.0  # for all counts, twice


class Heartbeat:
    """Counts up in the coordination service from a thread of its own; `lost` compares everybody's count at two times.

    No call to the service is trusted to return: it runs in process 0, which may be the one that froze.
    """

    def __init__(self) -> None:
        self.me = multihost.describe(jax.process_index())
        self._names = [multihost.describe(rank) for rank in range(jax.process_count())]
        self._ended = threading.Event()
        if jax.process_count() > 1:
            threading.Thread(target=self._send, name="heartbeat", daemon=True).start()

    def close(self) -> None:
        self._ended.set()

    def lost(self) -> str:
        """Names of the silent processes, joined; "" when all live. Takes up to `PATIENCE_S` + `ANSWER_S`."""
        if jax.process_count() == 1:
            return ""
        found: list[str] = []
        asking = threading.Thread(target=lambda: found.append(self._compare()), daemon=True)
        asking.start()
        asking.join(PATIENCE_S + ANSWER_S)
        return found[0] if found else f"{self._names[0]}, which runs the coordination service"

    def _send(self) -> None:
        count = 0
        while not self._ended.wait(INTERVAL_S):
            count += 1
            try:
                multihost.put(f"beat/{jax.process_index()}", str(count))
            except jax.errors.JaxRuntimeError:
                return  # the service is gone; `lost` will say so

    def _compare(self) -> str:
        try:
            before = self._counts()
            time.sleep(PATIENCE_S)
            after = self._counts()
        except jax.errors.JaxRuntimeError:
            return f"{self._names[0]}, which runs the coordination service"
        return ", ".join(name for name, old, new in zip(self._names, before, after, strict=True) if old == new)

    def _counts(self) -> list[str]:
        return [multihost.look_up(f"beat/{rank}") for rank in range(jax.process_count())]
