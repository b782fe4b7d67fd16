"""Which rows of the global batch this process feeds, and putting them on its devices."""

from __future__ import annotations

import math
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding

from omni_jax.errors import ConfigError


def my_shards(sharding: NamedSharding, rows: int, shards: int) -> list[int]:
    """The data shards, of `rows / shards` rows each, that hold the rows of this process' devices, ascending.

    Where a row lies on devices of several processes (the tensor axis spans them), all of them read it. Raises
    ConfigError when a device's rows are not whole shards.
    """
    if jax.process_count() == 1:
        return list(range(shards))
    ways = math.prod(sharding.mesh.shape[axis] for axis in ("data", "fsdp"))
    if rows % ways:
        raise ConfigError(
            f"data.rows={rows} does not divide over {ways} devices of mesh data and fsdp: change one of them"
        )
    size = rows // shards
    found: set[int] = set()
    for index in sharding.addressable_devices_indices_map((rows,)).values():
        start, stop, _ = index[0].indices(rows)
        found |= set(range(start // size, -(-stop // size)))
    mine = sorted(found)
    local = _row_ranges(sharding, rows)
    if len(mine) * size != sum(stop - start for start, stop in local):
        raise ConfigError(
            f"data.shards={shards} of {size} rows do not fit {jax.process_count()} processes with rows {local}: want a "
            f"multiple of the processes, such as --config.data.shards={jax.process_count()}"
        )
    return mine


def abstract_global(batch: Any, sharding: NamedSharding, rows: int) -> Any:
    """Shapes of the global batch from one process' part of it; `rows`: of the global timeline."""
    factor = rows / _local_rows(batch)
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
            (round(leaf.shape[0] * factor), *leaf.shape[1:]), leaf.dtype, sharding=sharding
        ),
        batch,
    )


def on_devices(batch: Any, sharding: NamedSharding, rows: int) -> Any:
    """The global batch as arrays, of which this process fills the part that it has read."""
    if jax.process_count() == 1:
        return jax.device_put(batch, sharding)
    factor = rows / _local_rows(batch)

    def place(leaf: np.ndarray) -> jax.Array:
        shape = (round(leaf.shape[0] * factor), *leaf.shape[1:])
        return jax.make_array_from_process_local_data(sharding, leaf, shape)

    return jax.tree.map(place, batch)


def _row_ranges(sharding: NamedSharding, rows: int) -> list[tuple[int, int]]:
    indices = sharding.addressable_devices_indices_map((rows,)).values()
    return sorted({index[0].indices(rows)[:2] for index in indices})


def _local_rows(batch: Any) -> int:
    return jax.tree.leaves(batch)[0].shape[0]
