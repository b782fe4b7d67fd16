"""Which examples a batch was made of, from the states of the loader before and after it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def batch_keys(before: Any, after: Any, stride: int = 1) -> dict[str, list[int]] | None:
    """Indices by task, as `TaskExamples` counts them; None for a loader that does not count examples.

    `stride`: the number of shards, each of which takes every so many-th example.
    """
    if not isinstance(after, Mapping) or not isinstance(before, Mapping):
        return None
    if "shards" in after:
        merged: dict[str, list[int]] = {}
        for shard, state in after["shards"].items():
            for task, keys in (batch_keys(before["shards"][shard], state, stride) or {}).items():
                merged.setdefault(task, []).extend(keys)
        return {task: sorted(keys) for task, keys in merged.items()}
    if "next" not in after:
        return None
    waited = {(task, index) for task, index, _ in before["waiting"]}
    waiting = {(task, index) for task, index, _ in after["waiting"]}
    keys = {}
    for task, (end, part) in after["next"].items():
        drawn = set(range(before["next"][task][0], end + (stride if part else 0), stride))
        drawn |= {index for name, index in waited if name == task}
        used = sorted(drawn - {index for name, index in waiting if name == task})
        if used:
            keys[task.lower()] = used
    return keys
