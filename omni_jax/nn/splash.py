"""Attention on a TPU: the splash kernel, which never leaves the chip's vector memory with logits."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
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
    *,
    causal: bool = True,
    window: int | None = None,
    order: np.ndarray | None = None,
) -> Float[Array, "B T H Dh"]:
    """Self-attention inside segments; see `attend_segments`.

    With `order` [T], the position of what lies at each place, the mesh axis `context` splits the row: every device
    gathers all keys and puts them back into the order of positions.
    """
    from jax.experimental.pallas.ops.tpu.splash_attention import SegmentIds

    is_split = order is not None
    length = "length" if is_split else "small"  # encoders have theirs whole on every device of `context`
    kernel = _kernel(_mask(q.shape[1], causal, window, order), q.shape[2] // axis_size("tensor"), is_split)

    def shard(kernel: Any, q: Array, k: Array, v: Array, segment_ids: Array) -> tuple[Array]:
        key_segments = segment_ids
        if is_split:
            gathered = (gather_shards(part, ("context",), 1) for part in (k, v, segment_ids))
            k, v, key_segments = (part[:, np.argsort(order)] for part in gathered)
        heads_first = (part.swapaxes(1, 2) for part in (q * q.shape[-1] ** -0.5, k, v))
        out = jax.vmap(kernel)(*heads_first, SegmentIds(segment_ids, key_segments))
        return (out.swapaxes(1, 2),)

    queries, keys = ("batch", length, "heads", "head_dim"), ("batch", length, "kv_heads", "head_dim")
    run = on_shards(shard, [_specs(kernel, is_split), queries, keys, keys, ("batch", length)], [queries])
    return run(kernel, q, k, v, segment_ids)[0]


def _specs(kernel: Any, is_split: bool) -> Any:
    """Which part of the kernel's description of its mask each device gets: that of its queries."""
    mesh = jax.sharding.get_abstract_mesh()
    return kernel.manual_sharding_spec(NamedSharding(mesh, PartitionSpec(None, "context" if is_split else None)))


def _mask(length: int, causal: bool, window: int | None, order: np.ndarray | None) -> Any:
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    shape = (length, length)
    if window is not None:
        mask = masks.LocalMask(shape, (window - 1, 0 if causal else None), 0)
    else:
        mask = masks.CausalMask(shape) if causal else masks.FullMask(shape)
    if order is not None:
        mask.q_sequence = order
    return mask


def _kernel(mask: Any, heads: int, is_split: bool) -> Any:
    """The kernel for all queries, or for each device's of `context`, with block sizes that divide them and the keys."""
    from jax.experimental.pallas.ops.tpu.splash_attention import BlockSizes, make_splash_mha
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    length, shards = mask.shape[0], axis_size("context") if is_split else 1
    part = length // (2 * shards) if is_split else length
    block_q = next(size for size in (_BLOCK, 512, 256, _LANES) if part % size == 0)
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
    return make_splash_mha(
        masks.MultiHeadMask([mask] * heads),
        block_sizes=sizes,
        head_shards=1,
        q_seq_shards=shards,
        interpret=platform() != "tpu",
    )
