"""Processes that read some of the virtual shards each, so that mixing, decoding and packing use more than one core."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import grain
import numpy as np
from absl import flags

from omni_jax.config import Config
from omni_jax.config_dict import from_dict, to_dict
from omni_jax.input_pipeline.codes import CodeCache
from omni_jax.input_pipeline.parcel import SHARED_BYTES, join, wrap
from omni_jax.input_pipeline.shards import merged_state
from omni_jax.input_pipeline.stream import make_stream
from omni_jax.input_pipeline.worker_process import WorkerIterator


class WorkersDataset(grain.IterDataset):
    """The batches of `shards`, read by `config.data.workers` processes; the rows are in the order of the shards."""

    def __init__(
        self, config: Config, split: str, codes: CodeCache | None, workdir: str | Path | None, shards: Sequence[int]
    ):
        super().__init__()
        parts = np.array_split(shards, min(config.data.workers, len(shards)))
        self._parts = [_ShardsOfAWorker(config, split, codes, workdir, part.tolist()) for part in parts]
        self._prefetch = config.data.prefetch

    def __iter__(self) -> WorkersIterator:
        if not flags.FLAGS.is_parsed():  # grain asks for flags of its own
            flags.FLAGS.mark_as_parsed()
        # grain's public function has a state of its own for every number of workers.
        return WorkersIterator([WorkerIterator(part, self._prefetch) for part in self._parts], join)


class WorkersIterator(grain.DatasetIterator):
    """Its state is that of one process that reads all the shards; None before the first batch.

    `join` makes a batch of what each worker has read.
    """

    def __init__(self, workers: Sequence[WorkerIterator], join: Callable[[list[Any]], Any]):
        super().__init__()
        self._join = join
        self._workers = workers
        self._state: dict[str, Any] | None = None

    def __next__(self) -> Any:
        for worker in self._workers:
            worker.start_prefetch()
        batch = self._join([next(worker) for worker in self._workers])
        self._state = merged_state([worker.get_state() for worker in self._workers])
        return batch

    def get_state(self) -> dict[str, Any] | None:
        return self._state

    def set_state(self, state: dict[str, Any]) -> None:
        """A state that does not fit is told by the next batch."""
        self._state = state
        for worker in self._workers:
            worker.set_state(state)

    def close(self) -> None:
        super().close()
        for worker in self._workers:
            worker.close()


class _ShardsOfAWorker(grain.IterDataset):
    """Travels to the worker as plain values and makes the stream there."""

    def __init__(
        self, config: Config, split: str, codes: CodeCache | None, workdir: str | Path | None, shards: Sequence[int]
    ):
        super().__init__()
        self._config = to_dict(config)
        self._rest = (split, codes, workdir, shards)

    def __iter__(self) -> grain.DatasetIterator:
        stream = make_stream(from_dict(Config, self._config), *self._rest)
        options = grain.experimental.DatasetOptions(min_shm_size=SHARED_BYTES)
        return iter(grain.experimental.WithOptionsIterDataset(stream.map(wrap), options))
