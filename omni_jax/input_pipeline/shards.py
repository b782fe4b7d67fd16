"""A stream of batches cut into a fixed number of virtual shards, so that any number of processes reads the same one.

Shard v of V packs its own rows from every V-th example and keeps its own position. A process reads some of the shards;
the global batch is the shards' rows in order, whoever reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import grain

from omni_jax.errors import UserError

STATE_VERSION = 2


class Shard(NamedTuple):
    index: int = 0
    count: int = 1


def sharded_state(states: Mapping[int, Any]) -> dict[str, Any]:
    """The state of a stream, from the states of its shards."""
    return {"version": STATE_VERSION, "shards": {str(shard): state for shard, state in states.items()}}


def merged_state(states: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The states of readers of different shards as one."""
    shards = {shard: state for part in states for shard, state in part["shards"].items()}
    return states[0] | {"shards": dict(sorted(shards.items(), key=lambda item: int(item[0])))}


def without_sizes(state: Any) -> Any:
    """The state for other data: their number of examples is not compared."""
    if not (isinstance(state, dict) and "shards" in state):
        return state
    shards = {
        shard: {name: value for name, value in part.items() if name != "sizes"} if isinstance(part, dict) else part
        for shard, part in state["shards"].items()
    }
    return state | {"shards": shards}


def truncated_share(state: Any) -> float | None:
    """The share of the examples so far of which something was left out; None where nothing counts them."""
    shards = state["shards"].values() if isinstance(state, dict) and "shards" in state else ()
    counted = [shard for shard in shards if isinstance(shard, dict) and shard.get("examples")]
    if not counted:
        return None
    return sum(shard["truncated"] for shard in counted) / sum(shard["examples"] for shard in counted)


class ShardedDataset(grain.IterDataset):
    """Makes batches of the parts of the shards that one process reads; `join` makes one of a list of them."""

    def __init__(self, datasets: Mapping[int, grain.IterDataset], join: Callable[[Sequence[Any]], Any]):
        super().__init__()
        self.datasets, self.join = dict(datasets), join

    def __iter__(self) -> ShardedIterator:
        return ShardedIterator(self)


class ShardedIterator(grain.DatasetIterator):
    def __init__(self, dataset: ShardedDataset):
        super().__init__()
        self._iterators = {shard: iter(part) for shard, part in dataset.datasets.items()}
        self._join = dataset.join

    def __next__(self) -> Any:
        return self._join([next(iterator) for iterator in self._iterators.values()])

    def get_state(self) -> dict[str, Any]:
        return sharded_state({shard: iterator.get_state() for shard, iterator in self._iterators.items()})

    def set_state(self, state: dict[str, Any]) -> None:
        """`state` may hold other processes' shards too. Raises UserError for another layout or number of shards."""
        if state.get("version") != STATE_VERSION:
            raise UserError(
                f"the checkpoint's data state has layout {state.get('version', 1)}, this version reads layout "
                f"{STATE_VERSION}: start a new run from it with training.init_from, or resume with the version that "
                "wrote it"
            )
        missing = [shard for shard in self._iterators if str(shard) not in state["shards"]]
        if missing:
            raise UserError(
                f"the checkpoint's data state is of {len(state['shards'])} virtual shards and has none numbered "
                f"{missing[0]}: resume with --config.data.shards={len(state['shards'])}"
            )
        for shard, iterator in self._iterators.items():
            iterator.set_state(state["shards"][str(shard)])
