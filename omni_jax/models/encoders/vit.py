"""Vision transformer (arXiv 2010.11929) over packed pictures, with a convolution between neighbouring patches.

Before each block a depthwise 3x3 convolution over the grid of patches is added (conditional positional encoding, arXiv
2102.10882): with a few hundred pictures, attention alone learns neighbourhood too slowly.
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from omni_jax.model_config import VisionEncoderConfig
from omni_jax.nn.attention import Attention, even_heads
from omni_jax.nn.embed import gather_pool, lookup
from omni_jax.nn.mlp import Linear, SwiGLU
from omni_jax.nn.norm import RMSNorm
from omni_jax.nn.param import run_layers, stack_layers, weight
from omni_jax.types import ABSENT

_GRID_KERNEL = 3


def neighbours_of(positions: Int[Array, "N P 2"]) -> Int[Array, "9 N P"]:
    """Where in its picture the patch lies that a tap of the convolution sees; ABSENT beyond the edges.

    `positions`: as `Media.patch_positions`, in 2x2 blocks; ABSENT where a picture has no patch.
    """
    size = jnp.max(positions, axis=1, keepdims=True) + 1
    margin = _GRID_KERNEL // 2
    found = []
    for tap in range(_GRID_KERNEL**2):
        at = positions + jnp.asarray(divmod(tap, _GRID_KERNEL)).reshape(1, 1, 2) - margin
        block, within = at // 2, at % 2
        index = 4 * (block[..., 0] * (size[..., 1] // 2) + block[..., 1]) + 2 * within[..., 0] + within[..., 1]
        inside = jnp.all((at >= 0) & (at < size) & (positions >= 0), axis=-1)
        found.append(jnp.where(inside, index, ABSENT))
    return jnp.stack(found)


class GridConv(nnx.Module):
    """Depthwise 3x3 convolution over the grid of patches, zero-padded; patches come in 2x2 blocks."""

    def __init__(self, cfg: VisionEncoderConfig, rngs: nnx.Rngs):
        self.side = cfg.image_size // cfg.patch_size
        self.kernel = weight(rngs, (_GRID_KERNEL**2, cfg.embed_dim), ("small", "mlp"), 0.1)

    def __call__(
        self, x: Float[Array, "N P D"], neighbours: Int[Array, "9 N P"] | None = None
    ) -> Float[Array, "N P D"]:
        """`neighbours`: of pictures of any shape; by default they are squares of the encoder's size."""
        kernel = self.kernel[...].astype(x.dtype)
        if neighbours is not None:
            return sum(gather_pool(x, index) * kernel[tap][None, None] for tap, index in enumerate(neighbours))
        pictures, _, dim = x.shape
        half = self.side // 2
        grid = x.reshape(pictures, half, half, 2, 2, dim).transpose(0, 1, 3, 2, 4, 5)
        grid = grid.reshape(pictures, self.side, self.side, dim)
        margin = _GRID_KERNEL // 2
        padded = jnp.pad(grid, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
        shifts = [divmod(tap, _GRID_KERNEL) for tap in range(_GRID_KERNEL**2)]
        mixed = sum(
            padded[:, row : row + self.side, column : column + self.side] * kernel[tap][None, None, None]
            for tap, (row, column) in enumerate(shifts)
        )
        return mixed.reshape(pictures, half, 2, half, 2, dim).transpose(0, 1, 3, 2, 4, 5).reshape(x.shape)


class ViTBlock(nnx.Module):
    def __init__(self, cfg: VisionEncoderConfig, rngs: nnx.Rngs):
        residual_std = (2 * cfg.num_layers) ** -0.5
        self.attention_norm, self.mlp_norm = RMSNorm(cfg.embed_dim), RMSNorm(cfg.embed_dim)
        self.attention = Attention(
            cfg.embed_dim, even_heads(cfg.embed_dim, cfg.num_heads), rngs, residual_std=residual_std
        )
        self.mlp = SwiGLU(cfg.embed_dim, cfg.mlp_dim, rngs, residual_std=residual_std)
        self.grid_conv = GridConv(cfg, rngs)

    def __call__(
        self, x: Float[Array, "N P D"], segment_ids: Int[Array, "N P"], neighbours: Int[Array, "9 N P"] | None
    ) -> Float[Array, "N P D"]:
        x = x + self.grid_conv(x, neighbours)
        x = x + self.attention(self.attention_norm(x), None, segment_ids, causal=False)
        return x + self.mlp(self.mlp_norm(x))


class ViT(nnx.Module):
    """Patches see every patch of their own picture. Position: learned row and column embeddings, summed.

    A pool holds pictures of `num_patches` patches one behind the other; P must be a multiple. In native form a picture
    may have fewer; the rest of its room is of segment 0.
    """

    def __init__(self, cfg: VisionEncoderConfig, rngs: nnx.Rngs, *, scan_layers: bool = True, remat: str = "none"):
        self.scan_layers, self.remat, self.num_patches = scan_layers, remat, cfg.num_patches
        self.native, side = cfg.resize == "native", cfg.longest_side
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
        pool_shape, picture = x.shape, (-1, self.num_patches)
        # A picture has the room of the encoder's grid, so a pool is a stack of pictures.
        x, segment_ids = x.reshape(*picture, x.shape[-1]), segment_ids.reshape(picture)
        neighbours = neighbours_of(positions.reshape(*picture, 2)) if self.native else None

        def body(layer: ViTBlock, x: Array, _: None) -> tuple[Array, None]:
            return layer(x, segment_ids, neighbours), None

        x, _ = run_layers(self.layers, body, x, remat=self.remat, scan=self.scan_layers)
        return self.norm(x.reshape(pool_shape))
