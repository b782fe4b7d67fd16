"""Batches for training: single examples, mixed and packed by virtual shards, prefetched in a thread.

An example is a pure function of (seed, task, key), so a shard's whole state is one place and one debt a task, the
places of the examples that wait for room, and the number of batches: some hundred bytes of JSON, after which the
following batches are bit-identical, whichever process reads the shard.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import grain
import numpy as np
from threadpoolctl import threadpool_limits

from omni_jax.config import Config
from omni_jax.input_pipeline.codec_loader import CodecBatch, CodecCrops, OwnCrops
from omni_jax.input_pipeline.codes import CodeCache
from omni_jax.input_pipeline.materials import corpus_source, own_sources
from omni_jax.input_pipeline.stream import make_stream
from omni_jax.input_pipeline.task_stream import shuffled_keys
from omni_jax.input_pipeline.workers import WorkersDataset


class Loader:
    """An endless iterator of numpy batches. `get_state` is JSON-able; `set_state` goes on exactly from there."""

    def __init__(self, dataset: grain.IterDataset, prefetch: int):
        # With several threads a small product waits for a core that the training step holds: 35 times as long.
        threadpool_limits(limits=1, user_api="blas")
        prefetched = grain.experimental.ThreadPrefetchIterDataset(dataset, prefetch_buffer_size=prefetch)
        self._iterators = [iter(prefetched)]
        # Before the interpreter shuts down, at the latest: after that, closing grain's iterators is an error.
        self._close = weakref.finalize(self, _close_all, self._iterators)

    def __iter__(self) -> Loader:
        return self

    def __next__(self) -> Any:
        return next(self._iterators[0])

    def get_state(self) -> dict[str, Any]:
        """The state after the last batch that was handed out, whatever has been prefetched since."""
        return self._iterators[0].get_state()

    def set_state(self, state: Mapping[str, Any]) -> None:
        self._iterators[0].set_state(dict(state))

    def close(self) -> None:
        """Ends the prefetching thread; nothing can be read afterwards."""
        self._close()


def _close_all(iterators: list[grain.DatasetIterator]) -> None:
    while iterators:
        iterators.pop().close()


def make_loader(
    config: Config,
    split: str = "train",
    codes: CodeCache | None = None,
    workdir: str | Path | None = None,
    shards: Sequence[int] | None = None,
) -> Loader:
    """Batches of the tasks in `config.data.tasks`, mixed by their shares.

    Args:
      codes: the assistant's speech codes; needed by tts, frame_tts and dialogue.
      workdir: where `quarantine.jsonl` is written.
      shards: which of the `config.data.virtual_shards` to read, ascending; by default all.
    Raises:
      UserError: an unknown task, no data for one, or data that cannot be read.
    """
    chosen = range(config.data.virtual_shards) if shards is None else shards
    make = WorkersDataset if config.data.workers > 1 else make_stream
    return Loader(make(config, split, codes, workdir, chosen), config.data.prefetch)


def make_codec_loader(config: Config, split: str = "train", workdir: str | Path | None = None) -> Loader:
    """Endless `CodecBatch`es of random crops of every voice; the same state protocol as `make_loader`."""
    source = corpus_source(config, workdir)
    crops = OwnCrops(config, own_sources(config, source), split) if config.data.sources else None
    crops = crops or CodecCrops(config, source, split)
    clips = shuffled_keys(crops.num_clips, config.seed)
    batches = clips.random_map(crops.crop, seed=config.seed).batch(config.data.rows, batch_fn=_stack)
    # Without read-ahead of grain's own: the thread of `Loader` is the only one.
    dataset = batches.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))
    return Loader(dataset, config.data.prefetch)


def _stack(crops: list[CodecBatch]) -> CodecBatch:
    return CodecBatch(*(np.stack(values) for values in zip(*crops, strict=True)))
