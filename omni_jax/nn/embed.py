"""Lookups in which index ABSENT (-1) contributes zero."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def lookup(table: Float[Array, "V D"], ids: Int[Array, "..."]) -> Float[Array, "... D"]:
    """Rows of a table; zero where an id is negative."""
    rows = jnp.take(table, jnp.maximum(ids, 0), axis=0)
    return jnp.where((ids >= 0)[..., None], rows, jnp.zeros((), table.dtype))


def sum_codes(table: Float[Array, "Q K D"], codes: Int[Array, "... Q"]) -> Float[Array, "... D"]:
    """The sum over codebooks of each code's own embedding; absent codes add nothing."""
    num_codebooks, codebook_size, dim = table.shape
    offset = codebook_size * jnp.arange(num_codebooks).reshape((1,) * (codes.ndim - 1) + (-1,))
    ids = jnp.where(codes >= 0, codes + offset, -1)
    return jnp.sum(lookup(table.reshape(-1, dim), ids), axis=-2)


def gather_pool(pool: Float[Array, "G S D"], index: Int[Array, "B T"]) -> Float[Array, "B T D"]:
    """For every position its slot of the group's pool, zero where absent. Rows [g B/G, (g+1) B/G) own pool g."""
    groups, _, dim = pool.shape
    batch, length = index.shape
    flat = index.reshape(groups, (batch // groups) * length, 1)
    rows = jnp.take_along_axis(pool, jnp.maximum(flat, 0), axis=1)
    return jnp.where(flat >= 0, rows, jnp.zeros((), pool.dtype)).reshape(batch, length, dim)
