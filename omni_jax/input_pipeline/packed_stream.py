"""One virtual shard of the stream: its own mix of the tasks, its own pool of waiting examples, its own rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import grain
import numpy as np

from omni_jax.errors import UserError
from omni_jax.input_pipeline.mixing import Debts, Mixture
from omni_jax.input_pipeline.packing import Budget, Packed, Packer
from omni_jax.input_pipeline.shards import Shard
from omni_jax.input_pipeline.task_stream import Place, TaskExamples, TaskStream
from omni_jax.input_pipeline.tasks import Task
from omni_jax.input_pipeline.timeline import Example

LOOK_AHEAD = 16  # examples among which the best fill of a row is looked for
MOST_WAITING = 32
SMALLEST_GAP = 0.02  # of a row; a larger one is worth more examples


class Waiting(NamedTuple):
    """An example without a place in a row; after a resume it is made again when it is needed."""

    task: Task
    place: Place
    example: Example | None = None


class PackedDataset(grain.IterDataset):
    """Packs the examples of several tasks into a shard's rows of every batch."""

    def __init__(
        self,
        examples: Mapping[Task, TaskExamples],
        mixture: Mixture,
        costs: Mapping[Task, int],
        budget: Budget,
        seed: int,
        shard: Shard,
    ):
        """`costs`: of one example of each task, as the mixture counts; `budget`: of the shard's rows alone."""
        super().__init__()
        self.examples, self.mixture, self.costs, self.budget, self.shard = examples, mixture, costs, budget, shard
        self.seeds = [seed, shard.index]

    def __iter__(self) -> PackedIterator:
        return PackedIterator(self)


class PackedIterator(grain.DatasetIterator):
    """An example is a pure function of its task and place, so places and debts are the whole state."""

    def __init__(self, dataset: PackedDataset):
        super().__init__()
        self._dataset = dataset
        self._streams = {task: TaskStream(part, task, dataset.shard) for task, part in dataset.examples.items()}
        self._debts = Debts(dataset.mixture, dataset.costs, np.random.default_rng(dataset.seeds))
        self._waiting: list[Waiting] = []  # oldest first
        self._batches = 0
        self._examples, self._truncated = 0, 0  # drawn so far, and those of which something is left out

    def __next__(self) -> Packed:
        packer = Packer(self._dataset.budget)
        self._waiting = [
            item if item.example else item._replace(example=self._streams[item.task].again(item.place))
            for item in self._waiting
        ]
        for row in range(packer.budget.rows):
            self._fill(packer, row)
        self._batches += 1
        return Packed(packer, [*self._dataset.seeds, self._batches - 1])

    def _fill(self, packer: Packer, row: int) -> None:
        """The best of what waits; where that leaves a gap, new examples until one closes it or too many wait."""
        while len(self._waiting) < LOOK_AHEAD:
            self._waiting.append(self._draw())
        added = packer.fill(row, [item.example for item in self._waiting])
        self._waiting = [item for index, item in enumerate(self._waiting) if index not in added]
        while packer.free[row] > SMALLEST_GAP * packer.budget.positions and len(self._waiting) < MOST_WAITING:
            item = self._draw()
            if not packer.add(item.example, row):
                self._waiting.append(item)

    def _draw(self) -> Waiting:
        task = self._debts.next(self._batches)
        place, example = self._streams[task].draw()
        if not self._dataset.budget.ever_fits(example):
            raise UserError(
                f"an example of task {task.name.lower()} has {example.num_positions} positions, "
                f"{example.num_slots} audio slots and {len(example.patches)} patches, more than a row or pool "
                "holds: raise data.row_positions, data.audio_slots or data.patches"
            )
        self._debts.pay(task, example.num_positions, self._batches)
        self._examples += 1
        self._truncated += self._dataset.budget.truncates(example)
        return Waiting(task, place, example)

    def get_state(self) -> dict[str, Any]:
        return {
            "count": self._dataset.shard.count,
            "sizes": self._sizes(),
            "next": {task.name: list(stream.next_place) for task, stream in self._streams.items()},
            "debts": self._debts.get_state(),
            "waiting": [[item.task.name, *item.place] for item in self._waiting],
            "batches": self._batches,
            "examples": self._examples,
            "truncated": self._truncated,
        }

    def _sizes(self) -> dict[str, int]:
        """Examples of every task, on which their order depends."""
        return {task.name: examples.num_keys for task, examples in self._dataset.examples.items()}

    def set_state(self, state: dict[str, Any]) -> None:
        names = {task.name for task in self._streams}
        if set(state["next"]) != names:
            raise UserError(
                f"the checkpoint's data state is of tasks {sorted(state['next'])}, data.tasks has {sorted(names)}: "
                "resume with the data.tasks that the run was started with (a share may become 0 at a step, see "
                "docs/data.md)"
            )
        if state["count"] != self._dataset.shard.count:
            raise UserError(
                f"the checkpoint's data state is of {state['count']} virtual shards, data.shards asks for "
                f"{self._dataset.shard.count}: resume with --config.data.shards={state['count']}"
            )
        if state.get("sizes", self._sizes()) != self._sizes():  # older states have none
            raise UserError(
                f"the data have changed: the checkpoint's tasks had {state['sizes']} examples, now {self._sizes()}, in "
                "another order: give the run its data back, start a new one from it (another --workdir, "
                "training.init_from), or go on all the same with --allow_config_change"
            )
        for task, stream in self._streams.items():
            stream.next_place = Place(*state["next"][task.name])
        self._debts.set_state(state["debts"])
        self._waiting = [Waiting(Task[name], Place(*place)) for name, *place in state["waiting"]]
        self._batches = state["batches"]
        self._examples, self._truncated = state.get("examples", 0), state.get("truncated", 0)  # older states have none
