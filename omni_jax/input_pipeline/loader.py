"""Batches for training: grain datasets of single examples, mixed by share of positions, packed, prefetched in a thread.

An example is a pure function of (seed, task, index), so the whole state of the stream is one counter a task, the list
of examples that wait for a place, and the number of batches: a few hundred bytes of JSON, after which the following
batches are bit-identical.
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
from omni_jax.errors import UserError
from omni_jax.input_pipeline.codec_loader import CodecBatch, CodecCrops, OwnCrops
from omni_jax.input_pipeline.codes import CodeCache
from omni_jax.input_pipeline.dialogue import dialogue_source
from omni_jax.input_pipeline.materials import TaskSource, corpus_source, load_materials, own_sources
from omni_jax.input_pipeline.own_tasks import own_source
from omni_jax.input_pipeline.packing import Budget, Packer, assemble
from omni_jax.input_pipeline.shards import Shard, ShardedDataset
from omni_jax.input_pipeline.speech_sources import (
    asr_source,
    frame_asr_source,
    frame_tts_source,
    hear_source,
    tts_source,
)
from omni_jax.input_pipeline.spoken_qa import spoken_qa_source, written_qa_source
from omni_jax.input_pipeline.tasks import Task
from omni_jax.input_pipeline.text_tasks import caption_source, picture_qa_source, see_source, text_source
from omni_jax.input_pipeline.timeline import Example
from omni_jax.types import Batch

SOURCES = {
    Task.TEXT: text_source,
    Task.ASR: asr_source,
    Task.TTS: tts_source,
    Task.FRAME_ASR: frame_asr_source,
    Task.FRAME_TTS: frame_tts_source,
    Task.CAPTION: caption_source,
    Task.PICTURE_QA: picture_qa_source,
    Task.DIALOGUE: dialogue_source,
    Task.HEAR: hear_source,
    Task.SEE: see_source,
    Task.SPOKEN_QA: spoken_qa_source,
    Task.WRITTEN_QA: written_qa_source,
}
WAITING_ROWS = 1  # how many examples may wait for a place, in rows of the batch: first fit looks at no more
SHORTEST_SHUFFLE = 1024
STATE_VERSION = 1


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
    """Batches of the tasks in `config.data.tasks`, each with its share of the positions.

    Args:
      codes: the assistant's speech codes; needed by tts, frame_tts and dialogue.
      workdir: where `quarantine.jsonl` is written.
      shards: which of the `config.data.shards` to read, ascending; by default all.
    Raises:
      UserError: an unknown task, no data for one, or data that cannot be read.
    """
    materials = load_materials(config, split, codes, workdir)
    shares = task_shares(config.data.tasks)
    sources = {
        task: own_source(materials, task) if config.data.sources else SOURCES[task](materials) for task in shares
    }
    datasets = {task: task_dataset(source, task, config.seed) for task, source in sources.items()}
    budget, count = Budget.from_config(config), config.data.shards

    def packed(shard: int) -> PackedDataset:
        return PackedDataset(datasets, shares, budget, config.seed, Shard(shard, count))

    if count == 1:
        return Loader(packed(0), config.data.prefetch)
    chosen = range(count) if shards is None else shards
    return Loader(ShardedDataset({shard: packed(shard) for shard in chosen}), config.data.prefetch)


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


def task_shares(tasks: Mapping[str, float]) -> dict[Task, float]:
    """Normalised shares of the tasks that have one. Raises UserError for an unknown task or no task at all."""
    known = {task.name.lower(): task for task in Task if task != Task.NONE}
    unknown = sorted(set(tasks) - set(known))
    if unknown:
        raise UserError(f"data.tasks has {', '.join(unknown)}: want shares of {', '.join(known)}")
    total = sum(tasks.values())
    if total <= 0 or min(tasks.values()) < 0:
        raise UserError(f"data.tasks={dict(tasks)}: want at least one task with a share above 0 and none below")
    return {known[name]: share / total for name, share in tasks.items() if share > 0}


def task_dataset(source: TaskSource, task: Task, seed: int) -> grain.MapDataset:
    """The endless, shuffled, randomly accessible examples of one task."""
    if source.num_keys == 0:
        raise UserError(
            f"no data for task {task.name.lower()}: its clips are longer than data.row_positions or data.audio_slots "
            "allow, or the corpus has none; raise these, or take the task out of data.tasks"
        )
    # Tasks must not share their random numbers; shuffle and random_map take 32-bit seeds.
    task_seed = int(np.random.SeedSequence([seed, task]).generate_state(1)[0])
    return shuffled_keys(source.num_keys, task_seed).random_map(source.build, seed=task_seed)


def shuffled_keys(num_keys: int, seed: int) -> grain.MapDataset:
    """Endless shuffled keys; a few of them are shuffled as several epochs at once."""
    # grain's permutation walks through at least 2**16 numbers to find one in range: 4 ms for a range of 3.
    epochs = max(1, SHORTEST_SHUFFLE // num_keys)
    return grain.MapDataset.range(num_keys).repeat(epochs).shuffle(seed=seed).repeat()


class PackedDataset(grain.IterDataset):
    """Packs the examples of several datasets into batches; a shard takes every `count`-th and its part of the rows."""

    def __init__(
        self,
        datasets: Mapping[Task, grain.MapDataset],
        shares: Mapping[Task, float],
        budget: Budget,
        seed: int,
        shard: Shard,
    ):
        super().__init__()
        self.datasets, self.shares, self.budget, self.shard = datasets, shares, budget, shard
        self.seeds = [seed] if shard.count == 1 else [seed, shard.index]

    def __iter__(self) -> PackedIterator:
        return PackedIterator(self)


class PackedIterator(grain.DatasetIterator):
    """Draws next from the task that is furthest behind its share, so shares are of positions and hold at any time."""

    def __init__(self, dataset: PackedDataset):
        super().__init__()
        self._dataset = dataset
        self._next = {task: dataset.shard.index for task in dataset.datasets}
        self._positions = {task: 0 for task in dataset.datasets}
        self._waiting: list[tuple[Task, int]] = []
        self._built: dict[tuple[Task, int], Example] = {}
        self._batches = 0

    def __next__(self) -> Batch:
        budget = self._dataset.budget
        packer = Packer(budget)
        self._waiting = [item for item in self._waiting if not packer.place(self._example(item))]
        while len(self._waiting) < WAITING_ROWS * budget.rows and packer.free_positions:
            item = self._draw()
            if not packer.place(self._example(item)):
                self._waiting.append(item)
        self._built = {item: self._built[item] for item in self._waiting}
        rng = np.random.default_rng([*self._dataset.seeds, self._batches])
        self._batches += 1
        return assemble(packer, rng)

    def _draw(self) -> tuple[Task, int]:
        total = sum(self._positions.values())
        shares = self._dataset.shares
        task = min(shares, key=lambda task: (self._positions[task] - shares[task] * total, task))
        item = (task, self._next[task])
        self._next[task] += self._dataset.shard.count
        self._positions[task] += self._example(item).num_positions
        return item

    def _example(self, item: tuple[Task, int]) -> Example:
        if item not in self._built:
            task, index = item
            example = self._dataset.datasets[task][index]
            if not self._dataset.budget.ever_fits(example):
                raise UserError(
                    f"an example of task {task.name.lower()} has {example.num_positions} positions, "
                    f"{example.num_slots} audio slots and {len(example.patches)} patches, more than a row or pool "
                    "holds: raise data.row_positions, data.audio_slots or data.patches"
                )
            self._built[item] = example
        return self._built[item]

    def get_state(self) -> dict[str, Any]:
        return {
            "version": STATE_VERSION,
            "next": {task.name: index for task, index in self._next.items()},
            "positions": {task.name: count for task, count in self._positions.items()},
            "waiting": [[task.name, index] for task, index in self._waiting],
            "batches": self._batches,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        names = {task.name for task in self._next}
        if state.get("version") != STATE_VERSION or set(state["next"]) != names:
            raise UserError(
                f"the checkpoint's data state is of tasks {sorted(state.get('next', {}))}, "
                f"data.tasks has {sorted(names)}: resume with the data.tasks that the run was started with"
            )
        self._next = {Task[name]: index for name, index in state["next"].items()}
        self._positions = {Task[name]: count for name, count in state["positions"].items()}
        self._waiting = [(Task[name], index) for name, index in state["waiting"]]
        self._batches = state["batches"]
        self._built = {}


def realised_shares(state: Mapping[str, Any]) -> dict[str, float]:
    """Share of positions that each task has had so far, from a loader's state."""
    total = max(1, sum(state["positions"].values()))
    return {name.lower(): count / total for name, count in state["positions"].items()}
