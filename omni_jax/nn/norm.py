"""Normalisation over the last axis: root mean square (arXiv 1910.07467) and with mean and bias (arXiv 1607.06450)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from omni_jax.nn.param import constant


class RMSNorm(nnx.Module):
    """Divides by the root mean square over the last axis, in float32, and scales. Keeps the input's dtype."""

    def __init__(self, size: int, eps: float = 1e-6):
        self.eps = eps
        self.scale = constant((size,), ("small",), 1.0)

    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        x32 = x.astype(jnp.float32)
        normed = x32 * jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + self.eps)
        return (normed * jnp.broadcast_to(self.scale[...], x.shape)).astype(x.dtype)


class LayerNorm(nnx.Module):
    """Subtracts the mean, divides by the standard deviation in float32, scales and shifts. Keeps the input's dtype."""

    def __init__(self, size: int, eps: float = 1e-5):
        self.eps = eps
        self.scale = constant((size,), ("small",), 1.0)
        self.bias = constant((size,), ("small",), 0.0)

    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        x32 = x.astype(jnp.float32)
        centred = x32 - jnp.mean(x32, axis=-1, keepdims=True)
        normed = centred * jax.lax.rsqrt(jnp.mean(jnp.square(centred), axis=-1, keepdims=True) + self.eps)
        scale, bias = (jnp.broadcast_to(part[...], x.shape) for part in (self.scale, self.bias))
        return (normed * scale + bias).astype(x.dtype)


NORMS = {"rms": RMSNorm, "layer": LayerNorm}  # by the name in a configuration
