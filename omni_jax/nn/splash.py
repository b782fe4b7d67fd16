"""Attention on a TPU: the splash kernel, which never leaves the chip's vector memory with logits."""

from __future__ import annotations

import jax
from jaxtyping import Array, Float, Int

from omni_jax.parallel.sharding import axis_size, gather_shards, on_shards, platform

_BLOCK = 1024
_LANES = 128


def can_splash(q: Float[Array, "B T H Dh"]) -> bool:
    """The kernel runs on TPUs, on sequences and heads that fill its lanes."""
    return platform() == "tpu" and q.shape[1] % (_LANES * axis_size("context")) == 0 and q.shape[3] % _LANES == 0


def attend_splash(
    q: Float[Array, "B T H Dh"],
    k: Float[Array, "B T K Dh"],
    v: Float[Array, "B T K Dh"],
    segment_ids: Int[Array, "B T"],
    causal: bool,
    window: int | None,
) -> Float[Array, "B T H Dh"]:
    """Self-attention inside segments; see `attend_segments`. Over `context` every device gathers all keys."""
    length, heads = q.shape[1], q.shape[2] // axis_size("tensor")

    def shard(q: Array, k: Array, v: Array, segment_ids: Array) -> tuple[Array]:
        from jax.experimental.pallas.ops.tpu.splash_attention import SegmentIds

        k, v, key_segments = (gather_shards(part, ("context",), 1) for part in (k, v, segment_ids))
        kernel = _kernel(length, heads, causal, window)
        heads_first = (part.swapaxes(1, 2) for part in (q * q.shape[-1] ** -0.5, k, v))
        out = jax.vmap(kernel)(*heads_first, SegmentIds(segment_ids, key_segments))
        return (out.swapaxes(1, 2),)

    queries, keys = ("batch", "length", "heads", "head_dim"), ("batch", "length", "kv_heads", "head_dim")
    return on_shards(shard, [queries, keys, keys, ("batch", "length")], [queries])(q, k, v, segment_ids)[0]


def _kernel(length: int, heads: int, causal: bool, window: int | None):
    """The kernel for this device's queries against all keys, with block sizes that divide both."""
    from jax.experimental.pallas.ops.tpu.splash_attention import BlockSizes, make_splash_mha
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    shards = axis_size("context")
    shape = (length, length)
    if window is not None:
        mask = masks.LocalMask(shape, (window - 1, 0 if causal else None), 0)
    else:
        mask = masks.CausalMask(shape) if causal else masks.FullMask(shape)
    block_q = next(size for size in (_BLOCK, 512, 256, _LANES) if length // shards % size == 0)
    block_kv = next(size for size in (_BLOCK, 512, 256, _LANES) if length % size == 0)
    sizes = BlockSizes(
        block_q=block_q,
        block_kv=block_kv,
        block_kv_compute=min(512, block_kv),
        block_q_dkv=block_q,
        block_kv_dkv=block_kv,
        block_kv_dkv_compute=min(512, block_kv),
        use_fused_bwd_kernel=True,  # one pass computes the gradients of queries, keys and values
    )
    return make_splash_mha(masks.MultiHeadMask([mask] * heads), block_sizes=sizes, head_shards=1, q_seq_shards=shards)
