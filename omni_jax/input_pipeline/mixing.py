"""Which task the next example is of: the one that is owed most.

Every example that is drawn costs its positions (or one, where shares are of examples). The cost is owed to all tasks by
their shares and paid to the one drawn, so a task's debt never exceeds a few examples and the realised shares hold in
every stretch of the stream, also where shares change at a step: debts are carried over, the past is not made up for.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from omni_jax.config import DataConfig
from omni_jax.errors import UserError
from omni_jax.input_pipeline.tasks import Task

Shares = Mapping[Task, float]


@dataclass(frozen=True)
class Mixture:
    """Normalised shares by step: `shares[i]` holds from batch `steps[i]` on; `steps[0]` is 0."""

    steps: tuple[int, ...]
    shares: tuple[Shares, ...]
    of_examples: bool = False

    @property
    def tasks(self) -> tuple[Task, ...]:
        return tuple(self.shares[0])

    def at(self, batch: int) -> Shares:
        return self.shares[bisect.bisect_right(self.steps, batch) - 1]

    def cost(self, num_positions: int) -> int:
        return 1 if self.of_examples else num_positions


def asked_tasks(data: DataConfig) -> dict[Task, tuple[tuple[int, float], ...]]:
    """(step, share) pairs of the tasks that ever have a share.

    Raises UserError for an unknown task, a share that cannot be, or a schedule that does not begin at step 0.
    """
    known = {task.name.lower(): task for task in Task if task != Task.NONE}
    unknown = sorted(set(data.tasks) - set(known))
    if unknown:
        raise UserError(f"data.tasks has {', '.join(unknown)}: want shares of {', '.join(known)}")
    asked = {known[name]: _schedule(name, value) for name, value in data.tasks.items()}
    return {task: pairs for task, pairs in asked.items() if any(share > 0 for _, share in pairs)}


def make_mixture(data: DataConfig, num_keys: Mapping[Task, int]) -> Mixture:
    """The mixture that `data` asks for; `num_keys` are the sizes of the sources, for `data.temperature`.

    With a temperature T the shares are multiplied by num_keys ** (1 / T) (arXiv 1910.10683 section 3.5.2; T = 1 is
    proportional to size, large T even). Raises UserError where a step has no task.
    """
    asked = asked_tasks(data)
    size = {task: num_keys[task] ** (1 / data.temperature) if data.temperature else 1.0 for task in asked}
    steps = tuple(sorted({step for pairs in asked.values() for step, _ in pairs} | {0}))
    shares = []
    for step in steps:
        weights = {
            task: size[task] * next(share for start, share in reversed(pairs) if start <= step)
            for task, pairs in asked.items()
        }
        total = sum(weights.values())
        if total <= 0:
            raise UserError(
                f"data.tasks={dict(data.tasks)}: want at least one task with a share above 0 at step {step}"
            )
        shares.append({task: weight / total for task, weight in weights.items()})
    return Mixture(steps, tuple(shares), data.share_of == "examples")


def _schedule(name: str, value: float | Sequence[Sequence[float]]) -> tuple[tuple[int, float], ...]:
    try:
        pairs = ((0, float(value)),) if isinstance(value, int | float) else tuple((int(s), float(w)) for s, w in value)
    except (TypeError, ValueError):
        pairs = ()
    steps = [step for step, _ in pairs]
    if not pairs or steps[0] != 0 or steps != sorted(set(steps)) or min(share for _, share in pairs) < 0:
        raise UserError(
            f"data.tasks.{name}={value!r}: want a share of at least 0, or (step, share) pairs with rising steps from "
            "0 on, such as ((0, 0.5), (1000, 0.1))"
        )
    return pairs


class Debts:
    """What is owed to each task, in positions or examples; plain numbers, so that JSON keeps them exactly."""

    def __init__(self, mixture: Mixture, costs: Mapping[Task, int], rng: np.random.Generator):
        """`costs`: of one example each. The first debts are random parts of them, so that shards do not go in step."""
        self._mixture = mixture
        self._owed = {task: float(rng.uniform(-0.5, 0.5)) * costs[task] for task in mixture.tasks}

    def next(self, batch: int) -> Task:
        shares = self._mixture.at(batch)
        return max((self._owed[task], -task, task) for task in shares if shares[task] > 0)[2]

    def pay(self, task: Task, num_positions: int, batch: int) -> None:
        cost = self._mixture.cost(num_positions)
        for other, share in self._mixture.at(batch).items():
            self._owed[other] += share * cost
        self._owed[task] -= cost

    def get_state(self) -> dict[str, float]:
        return {task.name: owed for task, owed in self._owed.items()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self._owed = {Task[name]: float(owed) for name, owed in state.items()}
