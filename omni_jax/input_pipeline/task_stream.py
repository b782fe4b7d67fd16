"""The endless, shuffled examples of one task, of which each virtual shard takes every so-many-th key."""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from typing import NamedTuple

import grain
import numpy as np

from omni_jax.errors import UserError
from omni_jax.input_pipeline.materials import TaskSource
from omni_jax.input_pipeline.shards import Shard
from omni_jax.input_pipeline.tasks import Task
from omni_jax.input_pipeline.timeline import Example

LARGEST_PERMUTATION = 1 << 16
MAX_UNUSABLE = 1000  # keys in a row


class Place(NamedTuple):
    """Where an example comes from: the `part`-th example of the `index`-th key of the endless order."""

    index: int
    part: int = 0


class TaskExamples:
    """What `source.build` makes of each key, in the endless order of a seed: `random_map` of grain, with its random
    numbers and without its book-keeping, which takes a quarter of the time of a line of text. For one thread.
    """

    def __init__(self, source: TaskSource, task: Task, seed: int):
        """Raises UserError for an empty source."""
        if source.num_keys == 0:
            raise UserError(
                f"no data for task {task.name.lower()}: its clips are longer than data.row_positions or "
                "data.audio_slots allow, or the corpus has none; raise these, or take the task out of data.tasks"
            )
        # Tasks must not share their random numbers; shuffle and random_map take 32-bit seeds.
        task_seed = int(np.random.SeedSequence([seed, task]).generate_state(1)[0])
        self.num_keys = source.num_keys
        self._keys, self._build = _endless(source.num_keys, task_seed), source.build
        self._bits = np.random.Philox(task_seed)
        self._rng, self._state = np.random.Generator(self._bits), self._bits.state

    def __getitem__(self, index: int) -> Example | Sequence[Example]:
        self._state["state"]["counter"] = np.array([0, 0, 0, index], np.uint64)
        self._bits.state = self._state  # a Philox made anew costs ten times as much
        return self._build(int(self._keys[index]), self._rng)


def shuffled_keys(num_keys: int, seed: int) -> grain.MapDataset:
    """Endless keys, every epoch shuffled anew."""
    keys = _endless(num_keys, seed)
    return grain.MapDataset.source(keys) if isinstance(keys, _ShuffledKeys) else keys


def _endless(num_keys: int, seed: int) -> _ShuffledKeys | grain.MapDataset:
    if num_keys <= LARGEST_PERMUTATION:
        return _ShuffledKeys(num_keys, seed)
    return grain.MapDataset.range(num_keys).shuffle(seed=seed).repeat()


class _ShuffledKeys:
    """The permutations of a few epochs in memory: grain's own walks through 2**16 numbers to find one in range."""

    def __init__(self, num_keys: int, seed: int):
        self._num_keys, self._seed = num_keys, seed

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, index: int) -> int:
        epoch, place = divmod(index, self._num_keys)
        return int(_permutation(self._num_keys, self._seed, epoch)[place])


@functools.lru_cache(maxsize=256)  # shards are in different epochs
def _permutation(num_keys: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(num_keys)


class TaskStream:
    """One shard's examples of one task. `next_place` is the whole state."""

    def __init__(self, examples: TaskExamples, task: Task, shard: Shard):
        self._examples, self._task, self._shard = examples, task, shard
        self.next_place = Place(shard.index)
        self._last: tuple[int, Sequence[Example]] | None = None

    def draw(self) -> tuple[Place, Example]:
        """The next example and its place. Raises UserError where nothing can be used any more."""
        for _ in range(MAX_UNUSABLE):
            place = self.next_place
            parts = self._parts(place.index)
            more = place.part + 1 < len(parts)
            self.next_place = place._replace(part=place.part + 1) if more else Place(place.index + self._shard.count)
            if place.part < len(parts):
                return place, parts[place.part]
        raise UserError(
            f"task {self._task.name.lower()}: {MAX_UNUSABLE} examples in a row cannot be used: see quarantine.jsonl "
            "in the workdir, and take the task out of data.tasks or build its corpus again"
        )

    def again(self, place: Place) -> Example:
        """The example that `draw` has given with this place."""
        return self._parts(place.index)[place.part]

    def _parts(self, index: int) -> Sequence[Example]:
        if self._last is None or self._last[0] != index:
            made = self._examples[index]
            self._last = (index, (made,) if isinstance(made, Example) else made)
        return self._last[1]
