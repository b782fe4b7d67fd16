"""Published encoders: pre-norm blocks with biases, bidirectional, under Whisper's, CLIP's and SigLIP's stems."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from omni_jax.nn.attention import Attention, even_heads
from omni_jax.nn.mlp import MLP, Linear
from omni_jax.nn.norm import LayerNorm
from omni_jax.nn.param import run_layers, stack_layers, weight


@dataclass(frozen=True)
class TowerConfig:
    """The stack of blocks that the encoders share."""

    num_layers: int
    embed_dim: int
    num_heads: int
    mlp_dim: int
    activation: str = "gelu"  # gelu | gelu_tanh | quick_gelu
    norm_eps: float = 1e-5
    biases: tuple[str, ...] = ("query", "key", "value", "out")


@dataclass(frozen=True)
class WhisperEncoderConfig:
    """Whisper's encoder (arXiv 2212.04356): 100 Hz log-mel in, 50 Hz out, 30 s seen both ways."""

    tower: TowerConfig
    num_mels: int = 80
    num_positions: int = 1500


@dataclass(frozen=True)
class VisionTowerConfig:
    """CLIP's (arXiv 2103.00020) and SigLIP's (arXiv 2303.15343, 2502.14786) vision encoders."""

    tower: TowerConfig
    patch_size: int
    grid: int  # learned positions a side; pictures of other sizes interpolate them
    clip: bool = False  # class token, norm before the blocks instead of behind, no patch bias
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)  # pixels in [0, 1] become (pixel - mean) / std
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)


class TowerBlock(nnx.Module):
    def __init__(self, cfg: TowerConfig, rngs: nnx.Rngs):
        residual_std = (2 * cfg.num_layers) ** -0.5
        self.attention_norm = LayerNorm(cfg.embed_dim, cfg.norm_eps)
        self.mlp_norm = LayerNorm(cfg.embed_dim, cfg.norm_eps)
        self.attention = Attention(
            cfg.embed_dim,
            even_heads(cfg.embed_dim, cfg.num_heads),
            rngs,
            qk_norm=False,
            biases=cfg.biases,
            residual_std=residual_std,
        )
        self.mlp = MLP(cfg.embed_dim, cfg.mlp_dim, cfg.activation, rngs, residual_std=residual_std)

    def __call__(self, x: Float[Array, "G T D"], segment_ids: Int[Array, "G T"]) -> Float[Array, "G T D"]:
        x = x + self.attention(self.attention_norm(x), None, segment_ids, causal=False)
        return x + self.mlp(self.mlp_norm(x))


def run_tower(layers: TowerBlock, x: Float[Array, "G T D"], segment_ids: Int[Array, "G T"]) -> Float[Array, "G T D"]:
    return run_layers(layers, lambda layer, x, _: (layer(x, segment_ids), None), x)[0]


class WhisperEncoder(nnx.Module):
    """Hears 30 s at once, both ways: for `align` and half-duplex, not for streaming."""

    def __init__(self, cfg: WhisperEncoderConfig, rngs: nnx.Rngs):
        width = cfg.tower.embed_dim
        self.first = Linear(3 * cfg.num_mels, width, ("small", "embed"), rngs, bias=True)
        self.second = Linear(3 * width, width, ("embed", "embed_out"), rngs, bias=True)
        self.positions = weight(rngs, (cfg.num_positions, width), ("small", "embed"), 0.02)
        self.layers = stack_layers(lambda rngs: TowerBlock(cfg.tower, rngs), cfg.tower.num_layers, rngs)
        self.norm = LayerNorm(width, cfg.tower.norm_eps)

    def __call__(self, mel: Float[Array, "G N M"]) -> Float[Array, "G T D"]:
        """`mel` is `dsp.log_mel_whisper`'s; at most 2 * `num_positions` frames, an even number. T = N / 2."""
        x = jax.nn.gelu(self.first(_windows(mel, 1)), approximate=False)
        x = jax.nn.gelu(self.second(_windows(x, 2)), approximate=False)
        x = x + jnp.broadcast_to(self.positions[: x.shape[1]].astype(x.dtype), x.shape)
        return self.norm(run_tower(self.layers, x, jnp.ones(x.shape[:2], jnp.int32)))


def _windows(x: Float[Array, "G N C"], stride: int) -> Float[Array, "G N/s 3C"]:
    """Three neighbouring frames around every `stride`-th one, zeros beyond the ends."""
    padded = jnp.pad(x, ((0, 0), (1, 1), (0, 0)))
    return jnp.concatenate([padded[:, tap : tap + x.shape[1] : stride] for tap in range(3)], axis=-1)


class VisionTower(nnx.Module):
    """Pictures of any size in packed pools, as `ViT` takes them."""

    def __init__(self, cfg: VisionTowerConfig, rngs: nnx.Rngs):
        self.cfg, width, eps = cfg, cfg.tower.embed_dim, cfg.tower.norm_eps
        self.patch = Linear(3 * cfg.patch_size**2, width, ("small", "embed"), rngs, bias=not cfg.clip)
        self.positions = weight(rngs, (cfg.grid**2, width), ("small", "embed"), 0.02)
        if cfg.clip:
            self.class_embedding = weight(rngs, (width,), ("embed",), 0.02)
            self.class_position = weight(rngs, (width,), ("embed",), 0.02)
            self.pre_norm = LayerNorm(width, eps)
        else:
            self.norm = LayerNorm(width, eps)
        self.layers = stack_layers(lambda rngs: TowerBlock(cfg.tower, rngs), cfg.tower.num_layers, rngs)

    def __call__(
        self,
        patches: Float[Array, "G P X"],
        positions: Int[Array, "G P 2"],
        sizes: Int[Array, "G P 2"],
        segment_ids: Int[Array, "G P"],
        pictures: int = 1,
    ) -> Float[Array, "G P D"]:
        """
        Args:
            patches: RGB values in [0, 1], flattened (row, column, channel).
            positions: each patch's row and column in its picture.
            sizes: rows and columns of its picture.
            segment_ids: of the picture, 1 to `pictures`; 0 is padding.
        """
        cfg = self.cfg
        pixels = cfg.patch_size**2
        mean, std = (jnp.broadcast_to(jnp.tile(jnp.asarray(v), pixels), patches.shape) for v in (cfg.mean, cfg.std))
        x = self.patch(((patches - mean) / std).astype(patches.dtype))
        x = x + self._positions(positions, sizes).astype(x.dtype)
        if not cfg.clip:
            return self.norm(run_tower(self.layers, x, segment_ids))
        token = (self.class_embedding[...] + self.class_position[...]).astype(x.dtype)
        tokens = jnp.broadcast_to(token, (x.shape[0], pictures, x.shape[2]))
        their_segments = jnp.broadcast_to(jnp.arange(1, pictures + 1, dtype=jnp.int32), tokens.shape[:2])
        joined = self.pre_norm(jnp.concatenate([x, tokens], axis=1))
        return run_tower(self.layers, joined, jnp.concatenate([segment_ids, their_segments], axis=1))[:, : x.shape[1]]

    def _positions(self, positions: Int[Array, "G P 2"], sizes: Int[Array, "G P 2"]) -> Float[Array, "G P D"]:
        """Learned positions, resized to each picture's grid: linear with antialiasing, exact at the learned size."""
        scale = self.cfg.grid / jnp.maximum(sizes, 1).astype(jnp.float32)
        centre = (positions + 0.5) * scale - 0.5
        distance = jnp.abs(jnp.arange(self.cfg.grid, dtype=jnp.float32).reshape(1, 1, 1, -1) - centre[..., None])
        near = jnp.maximum(1.0 - distance / jnp.maximum(scale, 1.0)[..., None], 0.0)
        near = near / jnp.sum(near, axis=-1, keepdims=True)
        table = self.positions[...].reshape(self.cfg.grid, self.cfg.grid, -1)
        return jnp.einsum("gpr,gpc,rcd->gpd", near[:, :, 0], near[:, :, 1], table, precision="highest")
