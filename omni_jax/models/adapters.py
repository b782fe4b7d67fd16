"""From the encoders' widths to the trunk's."""

from __future__ import annotations

import jax
from flax import nnx
from jaxtyping import Array, Float

from omni_jax.nn.mlp import Linear
from omni_jax.nn.norm import RMSNorm

PATCHES_PER_TOKEN = 4  # a 2x2 block, contiguous in the pool


class Adapter(nnx.Module):
    """Norm and a two-layer GELU projector (LLaVA-1.5, arXiv 2310.03744)."""

    def __init__(self, in_dim: int, embed_dim: int, rngs: nnx.Rngs):
        self.norm = RMSNorm(in_dim)
        self.hidden = Linear(in_dim, embed_dim, ("embed", "mlp"), rngs, bias=True)
        self.out = Linear(embed_dim, embed_dim, ("mlp", "embed"), rngs, bias=True, scale=0.5)

    def __call__(self, x: Float[Array, "G S I"]) -> Float[Array, "G S D"]:
        return self.out(jax.nn.gelu(self.hidden(self.norm(x))))


class VisionAdapter(nnx.Module):
    """Concatenates each 2x2 block of patches and projects it: a quarter of the positions in the timeline."""

    def __init__(self, in_dim: int, embed_dim: int, rngs: nnx.Rngs):
        self.project = Adapter(PATCHES_PER_TOKEN * in_dim, embed_dim, rngs)

    def __call__(self, x: Float[Array, "G P I"]) -> Float[Array, "G S D"]:
        groups, patches, dim = x.shape
        return self.project(x.reshape(groups, patches // PATCHES_PER_TOKEN, PATCHES_PER_TOKEN * dim))
