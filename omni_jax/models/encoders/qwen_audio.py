"""Qwen3-Omni's audio tower (arXiv 2509.17765 section 2.1): 13 outputs for every 100 mel frames, in windows of 8 s."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from omni_jax.encoder_config import QwenAudioConfig
from omni_jax.models.encoders.tower import TowerBlock, run_tower
from omni_jax.nn.mlp import Linear
from omni_jax.nn.norm import LayerNorm
from omni_jax.nn.param import stack_layers

_TAPS = 3  # of every convolution, in frequency and in time; each halves both


class QwenAudio(nnx.Module):
    """Convolves chunks of `chunk_frames` each for itself, then attends within `chunks_a_window` of them.

    A chunk that is shorter is filled with zeros, as in a batch with whole ones of the published implementation.
    """

    def __init__(self, cfg: QwenAudioConfig, rngs: nnx.Rngs):
        self.cfg, width, channels = cfg, cfg.tower.embed_dim, cfg.conv_dim
        bands = halved(halved(halved(cfg.num_mels)))
        self.first = Linear(_TAPS**2, channels, ("small", "embed"), rngs, bias=True)
        self.second = Linear(_TAPS**2 * channels, channels, ("embed", "embed_out"), rngs, bias=True)
        self.third = Linear(_TAPS**2 * channels, channels, ("embed", "embed_out"), rngs, bias=True)
        self.project = Linear(channels * bands, width, ("small", "embed"), rngs)
        self.layers = stack_layers(lambda rngs: TowerBlock(cfg.tower, rngs), cfg.tower.num_layers, rngs)
        self.norm = LayerNorm(width, cfg.tower.norm_eps)
        self.hidden = Linear(width, width, ("embed", "embed_out"), rngs, bias=True)
        self.out = Linear(width, cfg.out_dim, ("embed", "embed_out"), rngs, bias=True)

    def __call__(
        self, mel: Float[Array, "G N M"], lengths: Int[Array, " G"]
    ) -> tuple[Float[Array, "G T D"], Bool[Array, "G T"]]:
        """
        Args:
            mel: a clip a row, `dsp.log_mel_whisper`'s frames; N is a multiple of `chunk_frames`.
            lengths: frames of each clip.

        Returns:
            Outputs, 13 for every 100 frames of N, and which of them belong to the clip: they come first.
        """
        cfg, (groups, frames, bands) = self.cfg, mel.shape
        real = jnp.arange(frames)[None] < lengths[:, None]
        chunks = jnp.where(real[..., None], mel, 0).reshape(-1, cfg.chunk_frames, bands)
        x = chunks.swapaxes(1, 2)[..., None]
        for layer in (self.first, self.second, self.third):
            x = jax.nn.gelu(layer(_windows(x)), approximate=False)
        x = self.project(x.transpose(0, 2, 3, 1).reshape(x.shape[0], x.shape[2], -1))
        x = (x + jnp.asarray(_sinusoids(*x.shape[1:]), x.dtype)[None]).reshape(groups, -1, x.shape[-1])
        index = jnp.broadcast_to(jnp.arange(x.shape[1]), x.shape[:2])
        valid = index < num_outputs(lengths, cfg.chunk_frames)[:, None]
        window = cfg.outputs_a_chunk * cfg.chunks_a_window
        x = run_tower(self.layers, x, jnp.where(valid, index // window + 1, 0))
        return self.out(jax.nn.gelu(self.hidden(self.norm(x)), approximate=False)), valid


def halved(size: int) -> int:
    """What a convolution of three taps, stride two and one zero on either side leaves of a length."""
    return (size + 1) // 2


def num_outputs(frames: Int[Array, "..."], chunk_frames: int) -> Int[Array, "..."]:
    """Outputs of a clip of so many mel frames: 13 a chunk of 100, an eighth of the rest, rounded up."""
    whole = halved(halved(halved(chunk_frames)))
    return frames // chunk_frames * whole + halved(halved(halved(frames % chunk_frames)))


def _windows(x: Float[Array, "N F T C"]) -> Float[Array, "N F2 T2 C9"]:
    """The 3 x 3 neighbourhood of every second band and frame, zeros beyond the ends."""
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    bands, frames = x.shape[1:3]
    taps = [(i, j) for i in range(_TAPS) for j in range(_TAPS)]
    return jnp.concatenate([padded[:, i : i + bands : 2, j : j + frames : 2] for i, j in taps], axis=-1)


def _sinusoids(length: int, width: int) -> Float[np.ndarray, "T D"]:
    """Whisper's fixed positions."""
    rates = np.exp(-np.log(10_000.0) / (width // 2 - 1) * np.arange(width // 2))
    angles = np.arange(length)[:, None] * rates[None]
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)
