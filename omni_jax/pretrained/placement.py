"""Fills sharded arrays from published tensors one tensor at a time.

A stack of layers never exists on the host: its buffer is made on the devices, and each tensor is written into its
layer (and expert) there, in place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Int, Shaped

from omni_jax.parallel.sharding import ParamAxes
from omni_jax.pretrained.kept_parts import KeptParts
from omni_jax.pretrained.layout import Entry
from omni_jax.pretrained.tensor_files import Tensor


def fill(
    table: Sequence[Entry],
    tensors: Mapping[str, Tensor],
    axes: Mapping[str, ParamAxes],
    shardings: Mapping[str, NamedSharding],
    dtype: np.dtype,
    kept: KeptParts | None = None,
) -> dict[str, Array]:
    """The arrays that `table` fills, by path, in `dtype` and sharded. The table must have been checked.

    `kept`: where finished arrays are written, and those of an interrupted import are read from.
    """
    arrays: dict[str, Array] = {}
    if kept is not None:
        abstract = {
            path: jax.ShapeDtypeStruct(axes[path].shape, dtype, sharding=shardings[path])
            for path in {slot.path for line in table for slot in line.ours}
        }
        arrays = kept.load(abstract)
    for group in _array_by_array(table):
        if group[0].ours[0].path not in arrays:
            filled = _fill_group(group, tensors, axes, shardings, dtype)
            arrays |= filled
            if kept is not None:
                kept.add(filled)
    return arrays


def _array_by_array(table: Sequence[Entry]) -> list[list[Entry]]:
    """The lines that fill one array, or several from the same tensors; the groups in the table's order."""
    groups: dict[str, list[Entry]] = {}
    for line in table:
        groups.setdefault(line.ours[0].path, []).append(line)
    return list(groups.values())


def _fill_group(
    group: Sequence[Entry],
    tensors: Mapping[str, Tensor],
    axes: Mapping[str, ParamAxes],
    shardings: Mapping[str, NamedSharding],
    dtype: np.dtype,
) -> dict[str, Array]:
    arrays: dict[str, Array] = {}
    for line in sorted(group, key=lambda line: (tensors[line.theirs].path, tensors[line.theirs].start)):
        shapes = [axes[slot.path].shape[len(slot.index) :] for slot in line.ours]
        for slot, part in zip(line.ours, line.layout.to_ours(tensors[line.theirs].read(), shapes)):
            sharding = shardings[slot.path]
            placed = _place(part, _part_sharding(sharding, len(slot.index)))
            if not slot.index:
                arrays[slot.path] = jax.block_until_ready(placed.astype(dtype))  # itself where the dtype is the same
                continue
            if slot.path not in arrays:
                arrays[slot.path] = _zeros(axes[slot.path].shape, dtype, sharding)()
            index = jnp.asarray(slot.index, jnp.int32)
            arrays[slot.path] = _writer(sharding, len(slot.index))(arrays[slot.path], placed, index)
            jax.block_until_ready(arrays[slot.path])  # the host's copy may go before the next one comes
    return arrays


def _place(part: Shaped[np.ndarray, "..."], sharding: NamedSharding) -> Shaped[Array, "..."]:
    """Copies shard by shard: `part` may be a transposed view, whose whole copy would be a second tensor on the host."""
    return jax.make_array_from_callback(part.shape, sharding, lambda index: np.ascontiguousarray(part[index]))


def _part_sharding(sharding: NamedSharding, indexed: int) -> NamedSharding:
    return NamedSharding(sharding.mesh, PartitionSpec(*sharding.spec[indexed:]))


@cache
def _zeros(shape: tuple[int, ...], dtype: np.dtype, sharding: NamedSharding) -> Any:
    return jax.jit(lambda: jnp.zeros(shape, dtype), out_shardings=sharding)


@cache
def _writer(sharding: NamedSharding, indexed: int) -> Any:
    """A compiled `array[index] = part` on shards: a device whose shard does not hold the index writes nothing."""
    names = sharding.spec

    def write(
        array: Shaped[Array, "..."], part: Shaped[Array, "..."], index: Int[Array, "..."]
    ) -> Shaped[Array, "..."]:
        local = []
        for axis in range(indexed):
            shard = 0 if names[axis] is None else jax.lax.axis_index(names[axis])
            inside = index[axis] - shard * array.shape[axis]
            local.append(jnp.where(inside < 0, array.shape[axis], inside))  # beyond the end: dropped
        part = part.astype(array.dtype)
        return array.at[tuple(local)].set(part, mode="drop") if indexed else part

    part_spec = _part_sharding(sharding, indexed).spec
    sharded = jax.shard_map(
        write, mesh=sharding.mesh, in_specs=(names, part_spec, PartitionSpec()), out_specs=names, check_vma=False
    )
    return jax.jit(sharded, donate_argnums=0)
