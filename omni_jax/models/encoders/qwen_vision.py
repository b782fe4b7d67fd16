"""Qwen3-Omni's vision tower: SigLIP 2's blocks with rotary positions, merged 2 x 2, and features for DeepStack."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from omni_jax.encoder_config import QwenVisionConfig
from omni_jax.models.encoders.tower import TowerBlock
from omni_jax.nn.mlp import Linear
from omni_jax.nn.norm import LayerNorm
from omni_jax.nn.param import run_layers, stack_layers, weight
from omni_jax.nn.rope import Rotary

MERGED = 4  # patches a token, a 2 x 2 block


class Merger(nnx.Module):
    """Four patches become a token of the trunk; normalised one by one, or (DeepStack's) together."""

    def __init__(self, cfg: QwenVisionConfig, together: bool, rngs: nnx.Rngs):
        width = MERGED * cfg.tower.embed_dim
        self.together = together
        self.norm = LayerNorm(width if together else cfg.tower.embed_dim, cfg.tower.norm_eps)
        self.hidden = Linear(width, width, ("embed", "embed_out"), rngs, bias=True)
        self.out = Linear(width, cfg.out_dim, ("embed", "embed_out"), rngs, bias=True)

    def __call__(self, x: Float[Array, "G P D"]) -> Float[Array, "G S O"]:
        joined = (x.shape[0], x.shape[1] // MERGED, MERGED * x.shape[2])
        x = self.norm(x.reshape(joined)) if self.together else self.norm(x).reshape(joined)
        return self.out(jax.nn.gelu(self.hidden(x), approximate=False))


class QwenVision(nnx.Module):
    """Still pictures of any size in packed pools."""

    def __init__(self, cfg: QwenVisionConfig, rngs: nnx.Rngs):
        self.cfg, width = cfg, cfg.tower.embed_dim
        values = 3 * cfg.temporal_patch * cfg.patch_size**2
        self.patch = Linear(values, width, ("small", "embed"), rngs, bias=True)
        self.positions = weight(rngs, (cfg.grid**2, width), ("small", "embed"), 0.02)
        self.layers = stack_layers(lambda rngs: TowerBlock(cfg.tower, rngs), cfg.tower.num_layers, rngs)
        self.merger = Merger(cfg, False, rngs)
        self.deep_mergers = stack_layers(lambda rngs: Merger(cfg, True, rngs), len(cfg.deepstack_layers), rngs)

    def __call__(
        self,
        patches: Float[Array, "G P X"],
        positions: Int[Array, "G P 2"],
        sizes: Int[Array, "G P 2"],
        segment_ids: Int[Array, "G P"],
    ) -> tuple[Float[Array, "G S O"], Float[Array, "N G S O"]]:
        """
        Args:
            patches: RGB values in [0, 1], flattened (row, column, channel); 2 x 2 blocks contiguous.
            positions: each patch's row and column in its picture.
            sizes: rows and columns of its picture.
            segment_ids: of the picture; 0 is padding.

        Returns:
            Tokens of the trunk, and what DeepStack (arXiv 2406.04334) adds to them behind its first N layers.
        """
        cfg = self.cfg
        # A still picture is a film of equal frames.
        x = self.patch(jnp.tile(2.0 * patches - 1.0, cfg.temporal_patch))
        x = x + self._learned(positions, sizes).astype(x.dtype)
        angles = self._angles(positions)

        def body(layer: TowerBlock, x: Array, _: None) -> tuple[Array, Array]:
            x = layer(x, segment_ids, angles)
            return x, x

        x, after = run_layers(self.layers, body, x)
        chosen = after[np.asarray(cfg.deepstack_layers)]
        deep = run_layers(self.deep_mergers, lambda merger, _, x: (None, merger(x)), None, chosen)[1]
        return self.merger(x), deep

    def _learned(self, positions: Int[Array, "G P 2"], sizes: Int[Array, "G P 2"]) -> Float[Array, "G P D"]:
        """Learned positions, resized to each picture's grid: linear, corner on corner."""
        side = self.cfg.grid
        centre = positions * (side - 1) / jnp.maximum(sizes - 1, 1).astype(jnp.float32)
        distance = jnp.abs(jnp.arange(side, dtype=jnp.float32).reshape(1, 1, 1, -1) - centre[..., None])
        near = jnp.maximum(1.0 - distance, 0.0)
        table = self.positions[...].reshape(side, side, -1)
        return jnp.einsum("gpr,gpc,rcd->gpd", near[:, :, 0], near[:, :, 1], table, precision="highest")

    def _angles(self, positions: Int[Array, "G P 2"]) -> Rotary:
        """Rows turn the first half of the pairs, columns the second, with the same frequencies."""
        half = self.cfg.tower.embed_dim // self.cfg.tower.num_heads // 4
        frequency = self.cfg.rope_theta ** (-np.arange(half, dtype=np.float32) / half)
        angle = positions[..., None].astype(jnp.float32) * jnp.asarray(frequency).reshape(1, 1, 1, -1)
        angle = angle.reshape(*positions.shape[:2], -1)
        return Rotary(jnp.cos(angle), jnp.sin(angle))
