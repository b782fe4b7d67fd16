"""Vocos (arXiv:2306.00814) made causal: ConvNeXt blocks over frames, an inverse STFT with overlap-add at the end.

Deviation: the depthwise convolutions see the past only and window t ends with frame t, so that the waveform of a
stream is late by the windows' overlap and by nothing else.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from omni_jax.codec_config import VocosConfig
from omni_jax.models.codec.spectral import synthesize
from omni_jax.nn.conv import CausalConv, ConvNeXtStack, State


class Vocos(nnx.Module):
    """Frames to waveform; a stream's waveform is `algorithmic_latency_samples` late."""

    def __init__(self, cfg: VocosConfig, *, rngs: nnx.Rngs) -> None:
        self.window, self.hop = cfg.window, cfg.hop_samples
        units = (cfg.num_codebooks, cfg.codebook_size, cfg.input_dim)
        self.embedding = nnx.Param(jax.random.normal(rngs.params(), units)) if cfg.num_codebooks else None
        self.embed_frames = CausalConv(cfg.input_dim, cfg.dim, cfg.kernel_size, rngs=rngs)
        self.first_norm = nnx.LayerNorm(cfg.dim, rngs=rngs)
        self.blocks = ConvNeXtStack(cfg.num_layers, cfg.dim, cfg.hidden_dim, cfg.kernel_size, rngs=rngs)
        self.last_norm = nnx.LayerNorm(cfg.dim, rngs=rngs)
        self.head = nnx.Linear(cfg.dim, 2 * (cfg.window // 2 + 1), rngs=rngs)

    @property
    def algorithmic_latency_samples(self) -> int:
        return self.window - self.hop

    def init_state(self, batch: int) -> State:
        return {
            "embed": self.embed_frames.init_state(batch),
            "blocks": self.blocks.init_state(batch),
            "tail": jnp.zeros((batch, self.window - self.hop)),
        }

    def embed(self, codes: Int[Array, "B T Q"]) -> Float[Array, "B T M"]:
        """Frames of the unit variant: the sum of the codes' embeddings."""
        return sum(self.embedding[...][q][codes[..., q]] for q in range(codes.shape[-1]))

    def __call__(self, frames: Float[Array, "B T M"]) -> Float[Array, "B N"]:
        """In time with the frames; the last `algorithmic_latency_samples` are what the last windows still owe."""
        wav, state = self.step(frames, self.init_state(frames.shape[0]))
        return jnp.concatenate([wav, state["tail"]], axis=1)[:, self.algorithmic_latency_samples :]

    def step(self, frames: Float[Array, "B T M"], state: State) -> tuple[Float[Array, "B N"], State]:
        new = {}
        x, new["embed"] = self.embed_frames(frames, state["embed"])
        x, new["blocks"] = self.blocks(self.first_norm(x), state["blocks"])
        log_magnitude, phase = jnp.split(self.head(self.last_norm(x)), 2, axis=-1)
        wav, new["tail"] = synthesize(log_magnitude, phase, self.hop, state["tail"])
        return wav, new
