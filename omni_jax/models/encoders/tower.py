"""Published encoders: pre-norm blocks with biases, bidirectional, under Whisper's, CLIP's and SigLIP's stems."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from omni_jax.encoder_config import TowerConfig, VisionTowerConfig, WhisperEncoderConfig
from omni_jax.nn.attention import Attention, even_heads
from omni_jax.nn.mlp import MLP, Linear
from omni_jax.nn.norm import LayerNorm
from omni_jax.nn.param import run_layers, stack_layers, weight
from omni_jax.nn.rope import Rotary


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

    def __call__(
        self, x: Float[Array, "G T D"], segment_ids: Int[Array, "G T"], angles: Rotary | None = None
    ) -> Float[Array, "G T D"]:
        x = x + self.attention(self.attention_norm(x), angles, segment_ids, causal=False)
        return x + self.mlp(self.mlp_norm(x))


def run_tower(
    layers: TowerBlock, x: Float[Array, "G T D"], segment_ids: Int[Array, "G T"], remat: str = "none"
) -> Float[Array, "G T D"]:
    return run_layers(layers, lambda layer, x, _: (layer(x, segment_ids), None), x, remat=remat)[0]


class WhisperEncoder(nnx.Module):
    """Hears a clip at once, both ways: for `align` and half-duplex, not for streaming."""

    def __init__(self, cfg: WhisperEncoderConfig, rngs: nnx.Rngs, *, remat: str = "none"):
        width, self.remat = cfg.tower.embed_dim, remat
        self.first = Linear(3 * cfg.num_mels, width, ("small", "embed"), rngs, bias=True)
        self.second = Linear(3 * width, width, ("embed", "embed_out"), rngs, bias=True)
        self.positions = weight(rngs, (cfg.num_positions, width), ("small", "embed"), 0.02)
        self.layers = stack_layers(lambda rngs: TowerBlock(cfg.tower, rngs), cfg.tower.num_layers, rngs)
        self.norm = LayerNorm(width, cfg.tower.norm_eps)

    def __call__(
        self, mel: Float[Array, "G N M"], segment_ids: Int[Array, "G T"] | None = None
    ) -> Float[Array, "G T D"]:
        """
        Args:
            mel: `dsp.log_mel_whisper`'s, an even number of frames. T = N / 2.
            segment_ids: clips behind each other, 0 is padding; each has at most `num_positions` outputs, its own
                positions, and nothing of its neighbours. By default a row is one clip.
        """
        if segment_ids is None:
            segment_ids = jnp.ones((mel.shape[0], mel.shape[1] // 2), jnp.int32)
        frame_segments = jnp.repeat(segment_ids, 2, axis=1)
        x = jax.nn.gelu(self.first(_windows(mel, frame_segments, 1)), approximate=False)
        x = jax.nn.gelu(self.second(_windows(x, frame_segments, 2)), approximate=False)
        x = x + jnp.take(self.positions[...], _since_start(segment_ids), axis=0, mode="clip").astype(x.dtype)
        return self.norm(run_tower(self.layers, x, segment_ids, self.remat))


def _windows(x: Float[Array, "G N C"], segments: Int[Array, "G N"], stride: int) -> Float[Array, "G Ns C3"]:
    """Three neighbouring frames around every `stride`-th one, zeros beyond the ends of its segment."""
    padded = jnp.pad(x, ((0, 0), (1, 1), (0, 0)))
    owners = jnp.pad(segments, ((0, 0), (1, 1)), constant_values=-1)
    taps = [slice(tap, tap + x.shape[1], stride) for tap in range(3)]
    own = segments[:, ::stride]
    return jnp.concatenate([jnp.where((owners[:, t] == own)[..., None], padded[:, t], 0) for t in taps], axis=-1)


def _since_start(segment_ids: Int[Array, "G T"]) -> Int[Array, "G T"]:
    """Each position's number in its segment."""
    index = jnp.broadcast_to(jnp.arange(segment_ids.shape[1]), segment_ids.shape)
    before = jnp.pad(segment_ids, ((0, 0), (1, 0)), constant_values=-1)[:, :-1]
    return index - jax.lax.cummax(jnp.where(segment_ids != before, index, 0), axis=1)


class VisionTower(nnx.Module):
    """Pictures of any size in packed pools, as `ViT` takes them."""

    def __init__(self, cfg: VisionTowerConfig, rngs: nnx.Rngs, *, remat: str = "none"):
        self.cfg, self.remat, width, eps = cfg, remat, cfg.tower.embed_dim, cfg.tower.norm_eps
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
            return self.norm(run_tower(self.layers, x, segment_ids, self.remat))
        token = (self.class_embedding[...] + self.class_position[...]).astype(x.dtype)
        tokens = jnp.broadcast_to(token, (x.shape[0], pictures, x.shape[2]))
        their_segments = jnp.broadcast_to(jnp.arange(1, pictures + 1, dtype=jnp.int32), tokens.shape[:2])
        joined = self.pre_norm(jnp.concatenate([x, tokens], axis=1))
        joined_segments = jnp.concatenate([segment_ids, their_segments], axis=1)
        return run_tower(self.layers, joined, joined_segments, self.remat)[:, : x.shape[1]]

    def _positions(self, positions: Int[Array, "G P 2"], sizes: Int[Array, "G P 2"]) -> Float[Array, "G P D"]:
        """Learned positions, resized to each picture's grid: linear with antialiasing, exact at the learned size."""
        scale = self.cfg.grid / jnp.maximum(sizes, 1).astype(jnp.float32)
        centre = (positions + 0.5) * scale - 0.5
        distance = jnp.abs(jnp.arange(self.cfg.grid, dtype=jnp.float32).reshape(1, 1, 1, -1) - centre[..., None])
        near = jnp.maximum(1.0 - distance / jnp.maximum(scale, 1.0)[..., None], 0.0)
        near = near / jnp.sum(near, axis=-1, keepdims=True)
        table = self.positions[...].reshape(self.cfg.grid, self.cfg.grid, -1)
        return jnp.einsum("gpr,gpc,rcd->gpd", near[:, :, 0], near[:, :, 1], table, precision="highest")
