"""Causal attention over the last `window` positions, at a cost that grows with T x window instead of T x T."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from omni_jax.nn.attention import attend, segment_mask


def attend_banded(
    q: Float[Array, "B T H Dh"],
    k: Float[Array, "B T K Dh"],
    v: Float[Array, "B T K Dh"],
    segment_ids: Int[Array, "B T"],
    window: int,
) -> Float[Array, "B T H Dh"]:
    """Self-attention inside segments, each position on itself and the `window - 1` before it.

    Blocks of `window` queries attend to the keys of their own and the previous block, which hold all that they may see.
    """
    batch, length = segment_ids.shape
    queries, segments = _blocks(q, window), _blocks(segment_ids, window)
    keys, values = _with_previous(_blocks(k, window), 0), _with_previous(_blocks(v, window), 0)
    key_segments = _with_previous(segments, -1)
    count = segments.shape[1]
    positions = window + jnp.arange(window)
    mask = segment_mask(_merge(segments), _merge(key_segments), positions, True, window)
    mixed = attend(_merge(queries), _merge(keys), _merge(values), mask)
    return mixed.reshape(batch, count * window, *q.shape[2:])[:, :length]


def _blocks(x: Shaped[Array, "B T ..."], size: int) -> Shaped[Array, "B N size ..."]:
    """Cut along T; the last block is filled up with zeros, which are later than every real query."""
    padding = ((0, 0), (0, -x.shape[1] % size)) + ((0, 0),) * (x.ndim - 2)
    return jnp.pad(x, padding).reshape(x.shape[0], -1, size, *x.shape[2:])


def _with_previous(blocks: Shaped[Array, "B N size ..."], before_first: int) -> Shaped[Array, "B N size2 ..."]:
    """Each block behind the one before it, the first behind a block of `before_first`."""
    previous = jnp.concatenate([jnp.full_like(blocks[:, :1], before_first), blocks[:, :-1]], axis=1)
    return jnp.concatenate([previous, blocks], axis=2)


def _merge(x: Shaped[Array, "B N ..."]) -> Shaped[Array, "B*N ..."]:
    return x.reshape(-1, *x.shape[2:])
