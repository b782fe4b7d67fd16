"""Vision transformer (arXiv 2010.11929) over packed pictures."""

from __future__ import annotations

from flax import nnx
from jaxtyping import Array, Float, Int

from omni_jax.config import VisionEncoderConfig
from omni_jax.nn.attention import Attention
from omni_jax.nn.embed import lookup
from omni_jax.nn.mlp import Linear, SwiGLU
from omni_jax.nn.norm import RMSNorm
from omni_jax.nn.param import run_layers, stack_layers, weight


class ViTBlock(nnx.Module):
    def __init__(self, cfg: VisionEncoderConfig, rngs: nnx.Rngs):
        heads, residual_std = cfg.num_heads, (2 * cfg.num_layers) ** -0.5
        self.attention_norm, self.mlp_norm = RMSNorm(cfg.embed_dim), RMSNorm(cfg.embed_dim)
        self.attention = Attention(cfg.embed_dim, heads, heads, cfg.embed_dim // heads, rngs, residual_std=residual_std)
        self.mlp = SwiGLU(cfg.embed_dim, cfg.mlp_dim, rngs, residual_std=residual_std)

    def __call__(self, x: Float[Array, "G P D"], segment_ids: Int[Array, "G P"]) -> Float[Array, "G P D"]:
        x = x + self.attention(self.attention_norm(x), None, segment_ids, causal=False)
        return x + self.mlp(self.mlp_norm(x))


class ViT(nnx.Module):
    """Patches see every patch of their own picture. Position: learned row and column embeddings, summed."""

    def __init__(self, cfg: VisionEncoderConfig, rngs: nnx.Rngs, *, scan_layers: bool = True, remat: str = "none"):
        self.scan_layers, self.remat = scan_layers, remat
        side = cfg.image_size // cfg.patch_size
        self.patch = Linear(3 * cfg.patch_size**2, cfg.embed_dim, ("small", "embed"), rngs, bias=True)
        self.rows = weight(rngs, (side, cfg.embed_dim), ("small", "embed"), 0.1)
        self.columns = weight(rngs, (side, cfg.embed_dim), ("small", "embed"), 0.1)
        self.layers = stack_layers(lambda rngs: ViTBlock(cfg, rngs), cfg.num_layers, rngs)
        self.norm = RMSNorm(cfg.embed_dim)

    def __call__(
        self,
        patches: Float[Array, "G P X"],
        positions: Int[Array, "G P 2"],
        segment_ids: Int[Array, "G P"],
    ) -> Float[Array, "G P D"]:
        """`patches` are RGB values in [0, 1], flattened (row, column, channel)."""
        # White becomes zero: drawings are on white, and its constant would drown the strokes at the start.
        x = self.patch(2.0 * (patches - 1.0))
        x = x + lookup(self.rows[...].astype(x.dtype), positions[..., 0])
        x = x + lookup(self.columns[...].astype(x.dtype), positions[..., 1])

        def body(layer: ViTBlock, x: Array, _: None) -> tuple[Array, None]:
            return layer(x, segment_ids), None

        x, _ = run_layers(self.layers, body, x, remat=self.remat, scan=self.scan_layers)
        return self.norm(x)
