"""Published encoders in place of ours: the same pools in, the same slots and patches out."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from omni_jax.model_config import AudioEncoderConfig, VisionEncoderConfig
from omni_jax.models.encoders.heads import SlotHeads
from omni_jax.models.encoders.tower import VisionTower, WhisperEncoder
from omni_jax.types import WHISPER_FRAMES_PER_SLOT


class WhisperSlots(SlotHeads, nnx.Module):
    """Whisper over the clips of a pool; four of its 50 Hz outputs, side by side, are a slot.

    Clips are not padded to 30 s, as Whisper's own are: a whole 30 s clip gives exactly its outputs, and shorter ones
    lack the silence behind them. Every slot sees its whole clip, the future too.
    """

    def __init__(self, cfg: AudioEncoderConfig, rngs: nnx.Rngs, *, remat: str = "none"):
        self.cfg = cfg
        self.tower = WhisperEncoder(cfg.tower, rngs, remat=remat)
        self.make_slot_heads(cfg, rngs)

    def __call__(self, mel: Float[Array, "G A8 M"], segment_ids: Int[Array, "G A"]) -> Float[Array, "G A D"]:
        """Slots of `cfg.slot_dim`."""
        outputs = self.tower(mel, jnp.repeat(segment_ids, WHISPER_FRAMES_PER_SLOT, axis=1))
        return outputs.reshape(*segment_ids.shape, -1)


class Pictures(nnx.Module):
    """CLIP's or SigLIP's encoder over a pool of pictures of `num_patches` patches, as `ViT` takes them.

    In native form every picture's own grid is what the learned positions are resized to.
    """

    def __init__(self, cfg: VisionEncoderConfig, rngs: nnx.Rngs, *, remat: str = "none"):
        self.num_patches, self.side = cfg.num_patches, cfg.image_size // cfg.patch_size
        self.native = cfg.resize == "native"
        self.tower = VisionTower(cfg.tower, rngs, remat=remat)

    def __call__(
        self,
        patches: Float[Array, "G P X"],
        positions: Int[Array, "G P 2"],
        segment_ids: Int[Array, "G P"],
    ) -> Float[Array, "G P D"]:
        """`patches` are RGB values in [0, 1], flattened (row, column, channel)."""
        picture = (-1, self.num_patches)
        positions = positions.reshape(*picture, 2)
        real = (segment_ids > 0).astype(jnp.int32).reshape(picture)
        own = jnp.max(positions, axis=1, keepdims=True) + 1
        sizes = jnp.broadcast_to(own, positions.shape) if self.native else jnp.full_like(positions, self.side)
        x = self.tower(patches.reshape(*picture, patches.shape[-1]), jnp.maximum(positions, 0), sizes, real)
        return x.reshape(*patches.shape[:2], -1)
