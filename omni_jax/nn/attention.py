"""Grouped-query attention (arXiv 2305.13245) with QK-norm (arXiv 2302.05442) over packed segments."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from omni_jax.nn.cudnn import attend_fused, can_fuse
from omni_jax.nn.norm import RMSNorm
from omni_jax.nn.param import constant, weight
from omni_jax.nn.product import product
from omni_jax.nn.rope import Rotary, apply_rotary
from omni_jax.nn.splash import attend_splash, can_splash

QUERY_BLOCK = 512  # longer sequences attend block by block, so that the T x T logits never exist at once
_UNROLLED = range(4, 17)  # so many blocks become code of their own, each with no more keys than it may see
_MASKED = -1e30  # finite: a fully masked row gives an average instead of NaN


def attend(
    q: Float[Array, "B T H Dh"],
    k: Float[Array, "B S K Dh"],
    v: Float[Array, "B S K Dh"],
    mask: Bool[Array, "B T S"],
) -> Float[Array, "B T H Dh"]:
    """Softmax attention, logits and softmax in float32; H is a multiple of K.

    The queries that share a key head are folded into one matrix of (H/K) T rows, so that each head is one product.
    """
    batch, length, heads, head_dim = q.shape
    kv_heads, keys = k.shape[2], k.shape[1]
    shared = heads // kv_heads
    folded = (q * head_dim**-0.5).reshape(batch, length, kv_heads, shared, head_dim).transpose(0, 2, 3, 1, 4)
    folded = folded.reshape(batch, kv_heads, shared * length, head_dim)
    logits = jnp.matmul(folded, k.transpose(0, 2, 3, 1), preferred_element_type=jnp.float32)
    logits = jnp.where(mask[:, None, None], logits.reshape(batch, kv_heads, shared, length, keys), _MASKED)
    probs = jax.nn.softmax(logits, axis=-1).astype(v.dtype).reshape(batch, kv_heads, shared * length, keys)
    mixed = jnp.matmul(probs, v.transpose(0, 2, 1, 3)).reshape(batch, kv_heads, shared, length, head_dim)
    return mixed.transpose(0, 3, 1, 2, 4).reshape(q.shape)


def segment_mask(
    queries: Int[Array, "B T"],
    keys: Int[Array, "B S"],
    positions: Int[Array, " T"],
    causal: bool,
    window: int | None,
) -> Bool[Array, "B T S"]:
    """True where query and key share a segment, the key is not later and is among the last `window` positions.

    `queries` are the segment ids at `positions` of the sequence `keys`. Padding (segment 0) attends to padding only,
    which keeps every row of the softmax defined.
    """
    mask = queries[:, :, None] == keys[:, None, :]
    age = positions[:, None] - jnp.arange(keys.shape[1])[None, :]
    if causal:
        mask &= (age >= 0)[None]
    if window is not None:
        mask &= (age < window)[None]
    return mask


def attend_segments(
    q: Float[Array, "B T H Dh"],
    k: Float[Array, "B T K Dh"],
    v: Float[Array, "B T K Dh"],
    segment_ids: Int[Array, "B T"],
    *,
    causal: bool = True,
    window: int | None = None,
) -> Float[Array, "B T H Dh"]:
    """Self-attention inside segments. Above `2 * QUERY_BLOCK` positions memory grows with T, not with T squared.

    Causal attention meets only the keys up to the end of each block of queries: over half of the work falls away.
    On TPUs the whole of it is the splash kernel, on GPUs each block is cuDNN's.
    """
    if can_splash(q):
        return attend_splash(q, k, v, segment_ids, causal=causal, window=window)
    length = q.shape[1]
    is_long = length > 2 * QUERY_BLOCK
    block = QUERY_BLOCK if is_long else QUERY_BLOCK // 4
    if causal and length % block == 0 and length // block in _UNROLLED:
        return _causal_blocks((q, k, v, segment_ids), window, block, remat=is_long)
    if not is_long or length % block:
        return _attend_masked(q, k, v, segment_mask(segment_ids, segment_ids, jnp.arange(length), causal, window))

    return attend_in_blocks((q, segment_ids, jnp.arange(length)), (k, v, segment_ids), block, causal, window)


def attend_in_blocks(
    queries: tuple[Float[Array, "B T H Dh"], Int[Array, "B T"], Int[Array, " T"]],
    keys: tuple[Float[Array, "B S K Dh"], Float[Array, "B S K Dh"], Int[Array, "B S"]],
    block: int,
    causal: bool = True,
    window: int | None = None,
) -> Float[Array, "B T H Dh"]:
    """`block` queries at a time, which divides T. `queries`: with segment ids and positions; `keys`: with values and
    segment ids, in the order of positions.
    """
    q, segment_ids, positions = queries
    k, v, key_segments = keys

    @jax.checkpoint  # the backward pass recomputes a block's logits
    def one_block(start: Int[Array, ""]) -> Float[Array, "B Tq H Dh"]:
        some, segments = (jax.lax.dynamic_slice_in_dim(part, start, block, axis=1) for part in (q, segment_ids))
        own = jax.lax.dynamic_slice_in_dim(positions, start, block)
        return _attend_masked(some, k, v, segment_mask(segments, key_segments, own, causal, window))

    blocks = jax.lax.map(one_block, jnp.arange(0, q.shape[1], block))
    return jnp.moveaxis(blocks, 0, 1).reshape(q.shape)


def _causal_blocks(
    inputs: tuple[Array, Array, Array, Array], window: int | None, block: int, *, remat: bool
) -> Float[Array, "B T H Dh"]:
    """Queries block by block against the keys that they may see. `inputs`: q, k, v, segment_ids."""
    done = []
    for start in range(0, inputs[0].shape[1], block):
        first = 0 if window is None else max(0, start - window + 1)
        one = partial(_last_queries, before=start - first, window=window)
        queries, *seen = inputs[0][:, start : start + block], *(part[:, first : start + block] for part in inputs[1:])
        done.append((jax.checkpoint(one) if remat else one)(queries, *seen))
    return jnp.concatenate(done, axis=1)


def _last_queries(q: Array, k: Array, v: Array, segment_ids: Array, *, before: int, window: int | None) -> Array:
    """Queries of the positions from `before` on, with keys of all positions."""
    positions = jnp.arange(before, k.shape[1])
    return _attend_masked(q, k, v, segment_mask(segment_ids[:, before:], segment_ids, positions, True, window))


def _attend_masked(q: Array, k: Array, v: Array, mask: Bool[Array, "B T S"]) -> Float[Array, "B T H Dh"]:
    return attend_fused(q, k, v, mask) if can_fuse(q, k) else attend(q, k, v, mask)


class Heads(NamedTuple):
    """How many there are, of queries and of keys and values, and how wide each is."""

    num_heads: int
    num_kv_heads: int
    head_dim: int


def even_heads(embed_dim: int, num_heads: int) -> Heads:
    """As many keys as queries, which together are as wide as the embedding."""
    return Heads(num_heads, num_heads, embed_dim // num_heads)


class Attention(nnx.Module):
    """Projections around `attend`. `project` and `output` are separate so that a cache can stand between them."""

    def __init__(
        self,
        embed_dim: int,
        heads: Heads,
        rngs: nnx.Rngs,
        *,
        qk_norm: bool = True,
        norm_eps: float = 1e-6,
        biases: tuple[str, ...] = (),
        residual_std: float = 1.0,
    ):
        """`biases`: which of query, key, value and out have one."""
        num_heads, num_kv_heads, head_dim = heads
        std = embed_dim**-0.5
        self.query = weight(rngs, (embed_dim, num_heads, head_dim), ("embed", "heads", "head_dim"), std)
        self.key = weight(rngs, (embed_dim, num_kv_heads, head_dim), ("embed", "kv_heads", "head_dim"), std)
        self.value = weight(rngs, (embed_dim, num_kv_heads, head_dim), ("embed", "kv_heads", "head_dim"), std)
        out_std = residual_std * (num_heads * head_dim) ** -0.5
        self.out = weight(rngs, (num_heads, head_dim, embed_dim), ("heads", "head_dim", "embed"), out_std)
        self.query_norm = RMSNorm(head_dim, norm_eps) if qk_norm else None
        self.key_norm = RMSNorm(head_dim, norm_eps) if qk_norm else None
        if "query" in biases:
            self.query_bias = constant((num_heads, head_dim), ("heads", "head_dim"), 0.0)
        if "key" in biases:
            self.key_bias = constant((num_kv_heads, head_dim), ("kv_heads", "head_dim"), 0.0)
        if "value" in biases:
            self.value_bias = constant((num_kv_heads, head_dim), ("kv_heads", "head_dim"), 0.0)
        if "out" in biases:
            self.out_bias = constant((embed_dim,), ("small",), 0.0)

    def project(
        self, x: Float[Array, "B T D"], angles: Rotary | None
    ) -> tuple[Float[Array, "B T H Dh"], Float[Array, "B T K Dh"], Float[Array, "B T K Dh"]]:
        """Queries and keys (normalised, rotated) and values."""
        q, (k, v) = self.queries(x), self.keys_values(x)
        if self.query_norm is not None:
            q, k = self.query_norm(q), self.key_norm(k)
        if angles is not None:
            q, k = apply_rotary(q, angles), apply_rotary(k, angles)
        return q, k, v

    def queries(self, x: Float[Array, "B T D"]) -> Float[Array, "B T H Dh"]:
        """Neither normalised nor rotated."""
        return self._biased("query", product(x, self.query[...].astype(x.dtype)))

    def keys_values(self, x: Float[Array, "B S D"]) -> tuple[Float[Array, "B S K Dh"], Float[Array, "B S K Dh"]]:
        """The same of keys and values; attention to another sequence takes these of it."""
        k = self._biased("key", product(x, self.key[...].astype(x.dtype)))
        v = self._biased("value", product(x, self.value[...].astype(x.dtype)))
        return k, v

    def output(self, attended: Float[Array, "B T H Dh"]) -> Float[Array, "B T D"]:
        return self._biased("out", product(attended, self.out[...].astype(attended.dtype), 2))

    def _biased(self, name: str, y: Float[Array, "B T ..."]) -> Float[Array, "B T ..."]:
        bias = getattr(self, f"{name}_bias", None)
        return y if bias is None else y + jnp.broadcast_to(bias[...].astype(y.dtype), y.shape)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        angles: Rotary | None,
        segment_ids: Int[Array, "B T"],
        *,
        causal: bool = True,
        window: int | None = None,
    ) -> Float[Array, "B T D"]:
        q, k, v = self.project(x, angles)
        return self.output(attend_segments(q, k, v, segment_ids, causal=causal, window=window))
