"""A stream of batches cut into a fixed number of virtual shards, so that any number of processes reads the same one.

Shard v of V packs its own rows from every V-th example and keeps its own position. A process reads some of the shards;
the global batch is the shards' rows in order, whoever reads them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import grain
import numpy as np


class Shard(NamedTuple):
    index: int = 0
    count: int = 1


def sharded_state(states: Mapping[int, Any]) -> dict[str, Any]:
    return {"shards": {str(shard): state for shard, state in states.items()}}


class ShardedDataset(grain.IterDataset):
    """Joins the batches of the shards that one process reads, along the leading axis of every array."""

    def __init__(self, datasets: Mapping[int, grain.IterDataset]):
        super().__init__()
        self.datasets = dict(datasets)

    def __iter__(self) -> ShardedIterator:
        return ShardedIterator(self)


class ShardedIterator(grain.DatasetIterator):
    def __init__(self, dataset: ShardedDataset):
        super().__init__()
        self._iterators = {shard: iter(part) for shard, part in dataset.datasets.items()}

    def __next__(self) -> Any:
        return _join([next(iterator) for iterator in self._iterators.values()])

    def get_state(self) -> dict[str, Any]:
        return sharded_state({shard: iterator.get_state() for shard, iterator in self._iterators.items()})

    def set_state(self, state: dict[str, Any]) -> None:
        """`state` may hold other processes' shards too."""
        for shard, iterator in self._iterators.items():
            iterator.set_state(state["shards"][str(shard)])


def _join(batches: Sequence[Any]) -> Any:
    first = batches[0]
    if isinstance(first, np.ndarray):
        return np.concatenate(batches)
    return type(first)(*(_join(parts) for parts in zip(*batches, strict=True)))
