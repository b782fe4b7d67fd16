"""Causal attention of the trunk over rows, which the mesh axis `context` may split."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from omni_jax.nn.attention import QUERY_BLOCK, attend_in_blocks, attend_segments
from omni_jax.nn.splash import attend_splash, can_splash
from omni_jax.parallel.context import context_order
from omni_jax.parallel.sharding import axis_size, gather_shards, on_shards

_QUERIES, _KEYS = ("batch", "length", "heads", "head_dim"), ("batch", "length", "kv_heads", "head_dim")


def attend_rows(
    q: Float[Array, "B T H Dh"],
    k: Float[Array, "B T K Dh"],
    v: Float[Array, "B T K Dh"],
    segment_ids: Int[Array, "B T"],
) -> Float[Array, "B T H Dh"]:
    """Self-attention inside segments. Where `context` splits the rows, they are in its balanced order."""
    order = context_order(q.shape[1])
    if order is None:
        return attend_segments(q, k, v, segment_ids)
    attend_split = attend_splash if can_splash(q) else _attend_gathered
    return attend_split(q, k, v, segment_ids, order=order)


def _attend_gathered(q: Array, k: Array, v: Array, segment_ids: Array, *, order: np.ndarray) -> Array:
    """Each device's queries, block by block, against the keys of all. `order` [T]: the position at each place."""
    places, devices = np.argsort(order), axis_size("context")

    def shard(q: Array, k: Array, v: Array, segment_ids: Array) -> tuple[Array]:
        k, v, key_segments = (gather_shards(part, ("context",), 1)[:, places] for part in (k, v, segment_ids))
        positions = jnp.asarray(order.reshape(devices, -1))[jax.lax.axis_index("context")]
        block = next(size for size in range(min(QUERY_BLOCK, q.shape[1]), 0, -1) if q.shape[1] % size == 0)
        return (attend_in_blocks((q, segment_ids, positions), (k, v, key_segments), block),)

    run = on_shards(shard, [_QUERIES, _KEYS, _KEYS, ("batch", "length")], [_QUERIES])
    return run(q, k, v, segment_ids)[0]
