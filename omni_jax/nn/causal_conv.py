"""Causal convolutions over packed segments, as shifted multiply-adds.

On XLA's CPU backend these are an order of magnitude faster than `conv_general_dilated` with feature groups.
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from omni_jax.nn.param import constant, weight


def past_and_present(
    x: Float[Array, "B T D"], segment_ids: Int[Array, "B T"], past: Float[Array, "B k1 D"]
) -> tuple[list[Float[Array, "B T D"]], Float[Array, "B k1 D"]]:
    """The taps of a causal kernel of size k = k1 + 1, oldest first, zero where a tap lies in another segment.

    `past` holds the k - 1 inputs before `x`, which belong to the segment of the first position (zeros at a start).
    Also returns the past of whatever follows.
    """
    k1, length = past.shape[1], x.shape[1]
    padded = jnp.concatenate([past, x], axis=1)
    segments = jnp.concatenate([jnp.repeat(segment_ids[:, :1], k1, axis=1), segment_ids], axis=1)
    taps = []
    for start in range(k1):
        same = segments[:, start : start + length] == segment_ids
        taps.append(jnp.where(same[:, :, None], padded[:, start : start + length], jnp.zeros((), x.dtype)))
    return [*taps, x], padded[:, length:]


class DepthwiseConv(nnx.Module):
    """Causal depthwise convolution with bias."""

    def __init__(self, dim: int, kernel: int, rngs: nnx.Rngs):
        self.past = kernel - 1
        self.kernel = weight(rngs, (kernel, dim), ("small", "mlp"), kernel**-0.5)
        self.bias = constant((dim,), ("mlp",), 0.0)

    def __call__(
        self, x: Float[Array, "B T D"], segment_ids: Int[Array, "B T"], past: Float[Array, "B k1 D"]
    ) -> tuple[Float[Array, "B T D"], Float[Array, "B k1 D"]]:
        taps, past = past_and_present(x, segment_ids, past)
        kernel = self.kernel[...].astype(x.dtype)
        y = sum(tap * jnp.broadcast_to(kernel[i], x.shape) for i, tap in enumerate(taps))
        return y + jnp.broadcast_to(self.bias[...].astype(x.dtype), x.shape), past
