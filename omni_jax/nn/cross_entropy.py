"""Cross-entropy of a wide vocabulary without its logits: computed chunk by chunk, and again in the backward pass.

Where one chunk takes all positions its logits are kept: the backward pass, which comes next, would hold them anyway.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from omni_jax.parallel.sharding import axis_size, gather_shards, on_shards, sum_shards
from omni_jax.types import Projection

CHUNK_LOGITS = 2**27  # alive at once on a device: 512 MB in float32


def head_nll(
    hidden: Float[Array, "B T D"],
    head: Projection,
    target: Int[Array, "B T"],
    chunk_logits: int = CHUNK_LOGITS,
) -> tuple[Float[Array, "B T"], Float[Array, "B T"]]:
    """-log p(target) at every position and the log-partition of its logits, float32.

    Each device works on its own positions, `chunk_logits` logits at a time; it gathers `head` once, in the dtype of
    `hidden`, and reduce-scatters its gradient once. Over the mesh axis `tensor` the vocabulary is split. Targets
    below 0 are read as 0: their weight must be 0.
    """

    def shard(hidden: Array, matrix: Array, bias: Array, target: Array) -> tuple[Array, Array]:
        return _local_nll(hidden, gather_shards(matrix, ("fsdp", "expert"), 0), bias, target, chunk_logits)

    rows, positions = ("batch", "length", "embed_out"), ("batch", "length")
    run = on_shards(shard, [rows, ("embed", "vocab"), ("vocab",), positions], [positions, positions])
    bias = jnp.zeros(head.matrix.shape[1], jnp.float32) if head.bias is None else head.bias
    return run(hidden, head.matrix.astype(hidden.dtype), bias, target)


def heads_nll(
    hidden: Float[Array, "B N Q W"],
    heads: Float[Array, "Q W K"],
    target: Int[Array, "B N Q"],
    chunk_logits: int = CHUNK_LOGITS,
) -> Float[Array, "B N Q"]:
    """-log p(target) of every codebook by its own head, float32: `head_nll` of one codebook after the other.

    All heads are gathered at once, and `chunk_logits` are those of all codebooks together.
    """
    if not len(heads):
        return jnp.zeros(target.shape, jnp.float32)

    def shard(hidden: Array, heads: Array, target: Array) -> tuple[Array]:
        whole = gather_shards(heads, ("fsdp", "expert"), 1)
        bias = jnp.zeros(whole.shape[2], jnp.float32)

        def codebook(_: None, part: tuple[Array, ...]) -> tuple[None, Array]:
            hidden, head, target = part
            return None, _local_nll(hidden, head, bias, target, chunk_logits // len(heads))[0]

        parts = jnp.moveaxis(hidden, 2, 0), whole, jnp.moveaxis(target, 2, 0)
        return (jnp.moveaxis(jax.lax.scan(codebook, None, parts)[1], 0, 2),)

    # Not split over `context`: the chosen positions of a row are few, and any of its devices may hold them.
    chosen = ("batch", "small", "small")
    run = on_shards(shard, [(*chosen, "embed_out"), ("codebook", "embed", "vocab"), chosen], [chosen])
    return run(hidden, heads.astype(hidden.dtype), target)[0]


def _local_nll(
    hidden: Array, head: Array, bias: Array, target: Array, chunk_logits: int
) -> tuple[Float[Array, "B T"], Float[Array, "B T"]]:
    """On one device, whose `head` has its own share of the vocabulary."""
    columns = head.shape[1]
    first = 0 if axis_size("tensor") == 1 else jax.lax.axis_index("tensor") * columns
    local = jnp.maximum(target, 0).reshape(-1) - first
    chunk = _chunk(local.size, columns, chunk_logits)
    nll, log_z = _nll(hidden.reshape(-1, hidden.shape[-1]), head, bias, local, chunk)
    return nll.reshape(target.shape), log_z.reshape(target.shape)


def _chunk(positions: int, columns: int, chunk_logits: int) -> int:
    """The largest number of positions that divides them all and stays within the limit, at least 1."""
    most = max(1, chunk_logits // columns)
    return next(size for size in range(min(most, positions), 0, -1) if positions % size == 0)


def _nll_chunks(hidden: Array, head: Array, bias: Array, target: Array, chunk: int) -> tuple[Array, Array]:
    return _forward(hidden, head, bias, target, chunk)[0]


def _forward(
    hidden: Array, head: Array, bias: Array, target: Array, chunk: int
) -> tuple[tuple[Array, Array], tuple[Array | None, ...]]:
    def terms(logits: Array, target: Array) -> tuple[Array, Array]:
        log_z = _log_partition(logits)
        return log_z - sum_shards(_pick(logits, target), "tensor"), log_z

    if chunk == len(target):
        kept = _logits(hidden, head, bias)
        nll, log_z = terms(kept, target)
    else:
        kept, parts = None, (_split(hidden, chunk), _split(target, chunk))
        nll, log_z = jax.lax.map(lambda part: terms(_logits(part[0], head, bias), part[1]), parts)
    nll, log_z = nll.reshape(-1), log_z.reshape(-1)
    return (nll, log_z), (hidden, head, bias, target, log_z, kept)


def _backward(
    chunk: int, saved: tuple[Array | None, ...], gradients: tuple[Array, Array]
) -> tuple[Array, Array, Array, None]:
    hidden, head, bias, target, log_z, kept = saved
    # shard_map hands each device of a replicated axis an equal part of the gradient.
    for_nll, for_z = (sum_shards(gradient, "tensor") for gradient in gradients)

    def body(sums: tuple[Array, Array], inputs: tuple[Array, ...]) -> tuple[tuple[Array, Array], Array]:
        hidden, target, log_z, for_nll, for_z = inputs
        logits = _logits(hidden, head, bias) if kept is None else kept
        probs = jnp.exp(logits - log_z[:, None])
        hit = target[:, None] == jnp.arange(head.shape[1])[None]
        for_logits = probs * (for_nll + for_z)[:, None] - jnp.where(hit, for_nll[:, None], 0.0)
        for_bias = sums[1] + jnp.sum(for_logits, axis=0)
        for_logits = for_logits.astype(hidden.dtype)
        for_head = sums[0] + jnp.matmul(hidden.T, for_logits, preferred_element_type=jnp.float32)
        return (for_head, for_bias), for_logits @ head.T

    parts = tuple(_split(part, chunk) for part in (hidden, target, log_z, for_nll, for_z))
    zeros = (jnp.zeros(head.shape, jnp.float32), jnp.zeros(bias.shape, jnp.float32))
    (for_head, for_bias), for_hidden = jax.lax.scan(body, zeros, parts)
    return for_hidden.reshape(hidden.shape), for_head.astype(head.dtype), for_bias, None


_nll = jax.custom_vjp(_nll_chunks, nondiff_argnums=(4,))
_nll.defvjp(_forward, _backward)


def _split(x: Array, chunk: int) -> Array:
    return x.reshape(-1, chunk, *x.shape[1:])


def _logits(hidden: Array, head: Array, bias: Array) -> Float[Array, "N V"]:
    return jnp.matmul(hidden, head, preferred_element_type=jnp.float32) + bias[None]


def _log_partition(logits: Float[Array, "N V"]) -> Float[Array, "N"]:
    peak = jnp.max(logits, axis=-1)
    if axis_size("tensor") > 1:
        peak = jax.lax.pmax(peak, "tensor")
    return peak + jnp.log(sum_shards(jnp.sum(jnp.exp(logits - peak[:, None]), axis=-1), "tensor"))


def _pick(logits: Float[Array, "N V"], target: Int[Array, "N"]) -> Float[Array, "N"]:
    """The target's logit where this device has it, else 0."""
    hit = target[:, None] == jnp.arange(logits.shape[1])[None]
    return jnp.sum(jnp.where(hit, logits, 0.0), axis=-1)
