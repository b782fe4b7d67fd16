"""Feed-forward layers."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from omni_jax.nn.param import constant, weight
from omni_jax.nn.product import product


class Linear(nnx.Module):
    """`x @ w`, plus a bias where asked for."""

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        axes: tuple[str, str],
        rngs: nnx.Rngs,
        *,
        bias: bool = False,
        scale: float = 1.0,
    ):
        self.kernel = weight(rngs, (in_dim, out_dim), axes, scale * in_dim**-0.5)
        self.bias = constant((out_dim,), ("small",), 0.0) if bias else None

    def __call__(self, x: Float[Array, "... I"]) -> Float[Array, "... O"]:
        y = product(x, self.kernel[...].astype(x.dtype))
        if self.bias is None:
            return y
        return y + jnp.broadcast_to(self.bias[...].astype(x.dtype), y.shape)


class SwiGLU(nnx.Module):
    """Gated feed-forward layer (arXiv 2002.05202)."""

    def __init__(self, embed_dim: int, mlp_dim: int, rngs: nnx.Rngs, *, residual_std: float = 1.0):
        self.gate = Linear(embed_dim, mlp_dim, ("embed", "mlp"), rngs)
        self.up = Linear(embed_dim, mlp_dim, ("embed", "mlp"), rngs)
        self.down = Linear(mlp_dim, embed_dim, ("mlp", "embed"), rngs, scale=residual_std)

    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        return self.down(jax.nn.silu(self.gate(x)) * self.up(x))


def quick_gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """CLIP's approximation of GELU (arXiv 1606.08415, section 2)."""
    return x * jax.nn.sigmoid(1.702 * x)


ACTIVATIONS = {  # by the name in a configuration
    "gelu_tanh": jax.nn.gelu,
    "gelu": partial(jax.nn.gelu, approximate=False),
    "quick_gelu": quick_gelu,
}


class MLP(nnx.Module):
    """Two layers with biases (arXiv 1706.03762, section 3.3); `activation` is a key of `ACTIVATIONS`."""

    def __init__(self, embed_dim: int, mlp_dim: int, activation: str, rngs: nnx.Rngs, *, residual_std: float = 1.0):
        self.activation = activation
        self.up = Linear(embed_dim, mlp_dim, ("embed", "mlp"), rngs, bias=True)
        self.down = Linear(mlp_dim, embed_dim, ("mlp", "embed"), rngs, bias=True, scale=residual_std)

    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        return self.down(ACTIVATIONS[self.activation](self.up(x)))
