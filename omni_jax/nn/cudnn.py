"""Attention on a GPU: cuDNN's fused kernel, which never writes logits to memory."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from omni_jax.parallel.sharding import platform

_WIDEST_HEAD = 128  # before Hopper
_NARROWEST_STEP = 8


def can_fuse(q: Float[Array, "B T H Dh"], k: Float[Array, "B S K Dh"]) -> bool:
    """The kernel runs on GPUs, in half precision; with a mask it wants even lengths to be differentiated."""
    head_dim = q.shape[3]
    return (
        platform() == "gpu"
        and q.dtype in (jnp.bfloat16, jnp.float16)
        and head_dim <= _WIDEST_HEAD
        and head_dim % _NARROWEST_STEP == 0
        and q.shape[1] % 2 == k.shape[1] % 2 == 0
    )


def attend_fused(
    q: Float[Array, "B T H Dh"],
    k: Float[Array, "B S K Dh"],
    v: Float[Array, "B S K Dh"],
    mask: Bool[Array, "B T S"],
    implementation: str = "cudnn",
) -> Float[Array, "B T H Dh"]:
    """As `nn.attention.attend`. The kernel reads the mask as a bias in the dtype of `q`, one for all heads.

    JAX's public call knows no packed segments, which is why causality, window and segments all come as a mask.
    """
    return jax.nn.dot_product_attention(q, k, v, mask=mask[:, None], implementation=implementation)
