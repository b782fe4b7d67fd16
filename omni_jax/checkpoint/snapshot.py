"""Copies of a run's arrays in host memory, which a save can read while steps go on and donate the originals."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

_HOST = "pinned_host"  # where accelerators copy to without stopping; on CPUs memory like any other


def snapshot(tree: Any) -> Any:
    """Copies, laid out as the originals are. Waits neither for the arrays nor for the copies: donation does."""
    arrays, structure = jax.tree.flatten(tree)
    on_devices = [index for index, leaf in enumerate(arrays) if isinstance(leaf, jax.Array)]
    shardings = [arrays[index].sharding.with_memory_kind(_HOST) for index in on_devices]
    copies = jax.device_put([arrays[index] for index in on_devices], shardings, may_alias=False)
    arrays = [leaf if isinstance(leaf, jax.Array) else np.array(leaf) for leaf in arrays]
    for index, copy in zip(on_devices, copies, strict=True):
        arrays[index] = copy
    return jax.tree.unflatten(structure, arrays)
