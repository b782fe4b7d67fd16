"""One process that reads a dataset ahead: its death is noticed at once, and closing it always ends.

Grain's iterator asks the process through locks and reads a pipe of which this process holds the other end open, too.
Where the worker is killed with half a batch written, or within a lock, it waits for ever.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import threading
import time
from multiprocessing.queues import Queue
from typing import Any

import grain
from grain._src.python.dataset.transformations.process_prefetch import ProcessPrefetchDatasetIterator
from grain._src.python.ipc.shared_memory_array import unlink_shm
from threadpoolctl import threadpool_limits

LEAVE_S = 25.0  # for a worker that was asked to end; then it is killed
POLL_S = 0.02


class WorkerIterator(ProcessPrefetchDatasetIterator):
    """The elements of a dataset, made by a process of its own, up to `prefetch` of them ahead.

    Raises RuntimeError from `next` where the process was killed.
    """

    def __init__(self, dataset: grain.IterDataset, prefetch: int):
        super().__init__(dataset, prefetch, _start)
        self._connect()

    def start_prefetch(self) -> None:
        if self._prefetch_process is None:
            super().start_prefetch()
            self._buffer._writer.close()  # the worker alone writes: when it ends, so does the pipe

    def _connect(self) -> None:
        """Pipes and locks of which no process that was killed holds anything."""
        self._prefetch_should_stop = self._process_ctx.Event()
        self._set_state_request_count = self._process_ctx.Value("i", 0)
        self._set_state_queue = self._process_ctx.Queue(5)
        self._set_state_count = 0
        self._buffer = _Batches(self._buffer_size, ctx=self._process_ctx)

    def _stop_prefetch(self) -> None:
        process, self._prefetch_process = self._prefetch_process, None
        if process is None:
            return
        killer = threading.Timer(LEAVE_S, process.kill)
        killer.start()
        if process.exitcode is None:
            self._prefetch_should_stop.set()
        ended = False
        while not ended:  # what it has still to write would keep it from ending
            ended = process.exitcode is not None
            try:
                while True:
                    unlink_shm(self._buffer.get_nowait())
            except queue.Empty:
                process.join(POLL_S)
        killer.cancel()
        self._connect()


class _Batches(Queue):
    """A queue that is empty where its writer has ended, even in the middle of a batch."""

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        try:
            return super().get(block, timeout)
        except (EOFError, OSError):
            time.sleep(POLL_S)  # until the exit code is there
            raise queue.Empty from None


def _start() -> None:
    os.nice(5)  # the training goes first
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    threadpool_limits(limits=1, user_api="blas")


def _leave_with_parent() -> None:
    """Or else the worker of a killed training waits for ever to hand its batch over."""
    multiprocessing.parent_process().join()
    os._exit(1)
