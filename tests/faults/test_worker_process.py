"""A data worker that is killed or frozen with half a batch in the pipe: reading says so, and closing always ends."""

import os
import signal
import threading
import time

import grain
import pytest

from omni_jax.input_pipeline import worker_process
from omni_jax.input_pipeline.worker_process import WorkerIterator

BATCH_BYTES = 1 << 20  # a pipe holds 64 KB, so the worker waits in the middle of it
SOON_S = 15.0


class LargeBatches(grain.IterDataset):
    def __iter__(self):
        return LargeBatch()


class LargeBatch(grain.DatasetIterator):
    """Each is its number, many times. Sent, not shared: not an array."""

    def __init__(self):
        super().__init__()
        self._done = 0

    def __next__(self):
        self._done += 1
        return bytes([self._done]) * BATCH_BYTES

    def get_state(self):
        return {"done": self._done}

    def set_state(self, state):
        self._done = state["done"]


@pytest.fixture
def half_read():
    """An iterator whose worker has begun to write its first batch, and the worker's process."""
    iterator = WorkerIterator(LargeBatches(), 2)
    iterator.start_prefetch()
    process = iterator._prefetch_process
    assert iterator._buffer._reader.poll(120)
    yield iterator, process
    iterator.close()


def ends_soon(action, within_s=SOON_S):
    """What it returned or raised."""
    results = []

    def run():
        try:
            results.append(action())
        except RuntimeError as error:
            results.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(within_s)
    assert results, "it hangs"
    return results[0]


def test_a_worker_killed_in_the_middle_of_a_batch_is_told_by_the_next_batch(half_read):
    iterator, process = half_read
    os.kill(process.pid, signal.SIGKILL)
    error = ends_soon(lambda: next(iterator))
    assert isinstance(error, RuntimeError) and "exit code -9" in str(error)
    iterator.set_state({"done": 6})  # another worker, through other pipes
    assert next(iterator)[0] == 7


def test_a_worker_killed_in_the_middle_of_a_batch_does_not_keep_the_run_from_closing(half_read):
    iterator, process = half_read
    os.kill(process.pid, signal.SIGKILL)
    ends_soon(iterator.close)
    assert process.exitcode == -signal.SIGKILL


def test_a_frozen_worker_is_killed_when_the_run_closes(half_read, monkeypatch):
    iterator, process = half_read
    monkeypatch.setattr(worker_process, "LEAVE_S", 1.0)
    os.kill(process.pid, signal.SIGSTOP)
    ends_soon(iterator.close)
    assert process.exitcode == -signal.SIGKILL


def test_a_worker_that_waits_for_room_leaves_when_it_is_asked(half_read):
    iterator, process = half_read
    assert next(iterator)[0] == 1
    begun = time.monotonic()
    ends_soon(iterator.close)
    assert process.exitcode == 0 and time.monotonic() - begun < worker_process.LEAVE_S
