"""Key/value cache: a pinned prefix, then a ring of the last frames."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from omni_jax.parallel.sharding import constrain
from omni_jax.types import ABSENT


class KVCache(NamedTuple):
    """Slots [0, prefix_slots) hold the prompt and pictures for good, the others the newest frames in a ring.

    Keys are stored after rotation, so that a slot keeps the position it was written with. A long call evicts old
    frames, never the prefix.
    """

    keys: Float[Array, "L B S K Dh"]
    values: Float[Array, "L B S K Dh"]
    order: Int[Array, "B S"]  # running number of the position in a slot; ABSENT = empty
    pinned: Int[Array, "B"]  # prefix positions written
    frames: Int[Array, "B"]  # ring positions written, evicted ones included
    prefix_slots: Int[Array, ""]


class Placement(NamedTuple):
    """Where new positions go and what each of them may attend to; the same for every layer."""

    slots: Int[Array, "B T"]  # S, which is out of range and dropped, for positions that are not written
    mask: Bool[Array, "B T S"]


def init_cache(
    num_layers: int, batch: int, prefix_slots: int, ring_slots: int, heads_and_dim: tuple[int, int], dtype: DTypeLike
) -> KVCache:
    """An empty cache; on a mesh its rows lie where the batch's lie, its heads where the projections put them."""
    slots = prefix_slots + ring_slots
    empty = jnp.zeros((num_layers, batch, slots, *heads_and_dim), dtype)
    empty = constrain(empty, "layers", "batch", "small", "kv_heads", "head_dim")
    zero = jnp.zeros((batch,), jnp.int32)
    order = jnp.full((batch, slots), ABSENT, jnp.int32)
    return KVCache(empty, empty, order, zero, zero, jnp.asarray(prefix_slots, jnp.int32))


def place(cache: KVCache, write: Bool[Array, "B T"], *, pinned: bool) -> tuple[KVCache, Placement]:
    """Reserves slots for the positions where `write` and returns the cache's new bookkeeping with them.

    Positions see all earlier ones that are still held, and themselves. Pinned positions beyond `prefix_slots` are
    not stored; callers bound the prefix.
    """
    num_slots = cache.order.shape[1]
    batch = write.shape[0]
    rank = jnp.cumsum(write.astype(jnp.int32), axis=1) - 1
    order = (cache.pinned + cache.frames)[:, None] + rank
    if pinned:
        slots = cache.pinned[:, None] + rank
        fits = slots < cache.prefix_slots
    else:
        slots = cache.prefix_slots + (cache.frames[:, None] + rank) % (num_slots - cache.prefix_slots)
        fits = jnp.ones_like(write)
    slots = jnp.where(write & fits, slots, num_slots)
    new_order = cache.order.at[jnp.arange(batch)[:, None], slots].set(order, mode="drop")
    held = new_order[:, None, :]
    mask = (held >= 0) & (held <= order[:, :, None])
    count = jnp.sum(write.astype(jnp.int32), axis=1)
    cache = cache._replace(
        order=new_order,
        pinned=cache.pinned + (count if pinned else 0),
        frames=cache.frames + (0 if pinned else count),
    )
    return cache, Placement(slots, mask)


def write_slots(
    held: Float[Array, "B S K Dh"], new: Float[Array, "B T K Dh"], slots: Int[Array, "B T"]
) -> Float[Array, "B S K Dh"]:
    """One layer's keys or values with the new positions in their slots."""
    return held.at[jnp.arange(held.shape[0])[:, None], slots].set(new.astype(held.dtype), mode="drop")
