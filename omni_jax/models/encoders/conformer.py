"""Causal Conformer (arXiv 2005.08100) over packed 80 ms slots: log-mel at 100 Hz in, 12.5 Hz out.

Differences from the paper: RMSNorm instead of batch and layer norm, RoPE instead of relative sinusoids, one stacking
subsampler, everything causal. A slot depends on its own eight mel frames and the past of its segment, never on more.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from omni_jax.model_config import AudioEncoderConfig
from omni_jax.models.encoders.heads import SlotHeads
from omni_jax.nn.attention import Attention, attend, even_heads
from omni_jax.nn.banded import attend_banded
from omni_jax.nn.cache import KVCache, Placement, init_cache, place, write_slots
from omni_jax.nn.causal_conv import DepthwiseConv, past_and_present
from omni_jax.nn.mlp import Linear, SwiGLU
from omni_jax.nn.norm import RMSNorm
from omni_jax.nn.param import run_layers, stack_layers
from omni_jax.nn.rope import Rotary, rotary_1d
from omni_jax.types import FRAME_LISTEN_SAMPLES, MEL_FRAMES_PER_SLOT

_STEM_FRAMES = 2  # mel frames of a 50 Hz sub-frame
_STEM_KERNEL = 3  # sub-frames
_SUBFRAMES = MEL_FRAMES_PER_SLOT // _STEM_FRAMES


class ConformerState(NamedTuple):
    """What streaming carries from slot to slot."""

    stem: Float[Array, "B 2 I"]  # the last sub-frames
    conv: Float[Array, "L B k1 D"]  # inputs of each depthwise convolution
    cache: KVCache  # a ring of `left_context_slots`


class Stem(nnx.Module):
    """Mel frames in pairs, a causal convolution at 50 Hz, then four sub-frames stacked into a slot."""

    def __init__(self, cfg: AudioEncoderConfig, rngs: nnx.Rngs):
        frame_dim, width = _STEM_FRAMES * cfg.num_mels, cfg.embed_dim // 2
        self.conv = Linear(_STEM_KERNEL * frame_dim, width, ("small", "embed_out"), rngs, bias=True)
        self.stack = Linear(_SUBFRAMES * width, cfg.embed_dim, ("small", "embed"), rngs, bias=True)

    def __call__(
        self,
        mel: Float[Array, "G A8 M"],
        segment_ids: Int[Array, "G A"],
        past: Float[Array, "G 2 I"],
    ) -> tuple[Float[Array, "G A D"], Float[Array, "G 2 I"]]:
        groups, slots = segment_ids.shape
        frames = mel.reshape(groups, slots * _SUBFRAMES, -1)
        subframe_segments = jnp.repeat(segment_ids, _SUBFRAMES, axis=1)
        taps, past = past_and_present(frames, subframe_segments, past)
        hidden = jax.nn.silu(self.conv(jnp.concatenate(taps, axis=-1)))
        return self.stack(hidden.reshape(groups, slots, -1)), past


class ConvModule(nnx.Module):
    """Pointwise GLU, causal depthwise convolution, norm, SiLU, pointwise."""

    def __init__(self, cfg: AudioEncoderConfig, rngs: nnx.Rngs):
        self.expand = Linear(cfg.embed_dim, 2 * cfg.embed_dim, ("embed", "mlp"), rngs)
        self.depthwise = DepthwiseConv(cfg.embed_dim, cfg.conv_kernel, rngs)
        self.norm = RMSNorm(cfg.embed_dim)
        self.out = Linear(cfg.embed_dim, cfg.embed_dim, ("mlp", "embed"), rngs, scale=0.5)

    def __call__(
        self, x: Float[Array, "G A D"], segment_ids: Int[Array, "G A"], past: Float[Array, "G k1 D"]
    ) -> tuple[Float[Array, "G A D"], Float[Array, "G k1 D"]]:
        value, gate = jnp.split(self.expand(x), 2, axis=-1)
        mixed, past = self.depthwise(value * jax.nn.sigmoid(gate), segment_ids, past)
        return self.out(jax.nn.silu(self.norm(mixed))), past


class ConformerBlock(nnx.Module):
    """Half feed-forward, attention, convolution, half feed-forward, norm."""

    def __init__(self, cfg: AudioEncoderConfig, rngs: nnx.Rngs):
        dim = cfg.embed_dim
        self.first_norm, self.attention_norm, self.conv_norm = RMSNorm(dim), RMSNorm(dim), RMSNorm(dim)
        self.second_norm, self.out_norm = RMSNorm(dim), RMSNorm(dim)
        self.first_mlp = SwiGLU(dim, cfg.mlp_dim, rngs, residual_std=0.5)
        self.attention = Attention(dim, even_heads(dim, cfg.num_heads), rngs, residual_std=0.5)
        self.conv = ConvModule(cfg, rngs)
        self.second_mlp = SwiGLU(dim, cfg.mlp_dim, rngs, residual_std=0.5)

    def __call__(
        self, x: Float[Array, "G A D"], angles: Rotary, segment_ids: Int[Array, "G A"], window: int
    ) -> Float[Array, "G A D"]:
        x = x + 0.5 * self.first_mlp(self.first_norm(x))
        q, k, v = self.attention.project(self.attention_norm(x), angles)
        x = x + self.attention.output(attend_banded(q, k, v, segment_ids, window))
        past = jnp.zeros((x.shape[0], self.conv.depthwise.past, x.shape[2]), x.dtype)
        return self._after_attention(x, segment_ids, past)[0]

    def step(
        self, x: Float[Array, "B 1 D"], angles: Rotary, placement: Placement, state: tuple[Array, Array, Array]
    ) -> tuple[Float[Array, "B 1 D"], tuple[Array, Array, Array]]:
        """One slot; `state` is the convolution's past and the cached keys and values."""
        past, keys, values = state
        x = x + 0.5 * self.first_mlp(self.first_norm(x))
        q, k, v = self.attention.project(self.attention_norm(x), angles)
        keys, values = write_slots(keys, k, placement.slots), write_slots(values, v, placement.slots)
        x = x + self.attention.output(attend(q, keys, values, placement.mask))
        x, past = self._after_attention(x, jnp.ones(x.shape[:2], jnp.int32), past)
        return x, (past, keys, values)

    def _after_attention(self, x: Array, segment_ids: Array, past: Array) -> tuple[Array, Array]:
        y, past = self.conv(self.conv_norm(x), segment_ids, past)
        x = x + y
        x = x + 0.5 * self.second_mlp(self.second_norm(x))
        return self.out_norm(x), past


class Conformer(SlotHeads, nnx.Module):
    """The audio encoder."""

    algorithmic_latency_samples = FRAME_LISTEN_SAMPLES  # of 16 kHz: a slot waits for its last sample, no more

    def __init__(self, cfg: AudioEncoderConfig, rngs: nnx.Rngs, *, scan_layers: bool = True, remat: str = "none"):
        self.cfg, self.scan_layers, self.remat = cfg, scan_layers, remat
        self.stem = Stem(cfg, rngs)
        self.layers = stack_layers(lambda rngs: ConformerBlock(cfg, rngs), cfg.num_layers, rngs)
        self.make_slot_heads(cfg, rngs)

    def __call__(self, mel: Float[Array, "G A8 M"], segment_ids: Int[Array, "G A"]) -> Float[Array, "G A D"]:
        """Slot embeddings. Neither convolution nor attention crosses from one segment to another."""
        groups, slots = segment_ids.shape
        past = jnp.zeros((groups, _STEM_KERNEL - 1, _STEM_FRAMES * self.cfg.num_mels), mel.dtype)
        x, _ = self.stem(mel, segment_ids, past)
        angles = self._angles(jnp.broadcast_to(jnp.arange(slots)[None], segment_ids.shape))

        def body(layer: ConformerBlock, x: Array, _: None) -> tuple[Array, None]:
            return layer(x, angles, segment_ids, self.cfg.left_context_slots), None

        return run_layers(self.layers, body, x, remat=self.remat, scan=self.scan_layers)[0]

    def init_state(self, batch: int, dtype: DTypeLike = jnp.float32) -> ConformerState:
        cfg = self.cfg
        return ConformerState(
            stem=jnp.zeros((batch, _STEM_KERNEL - 1, _STEM_FRAMES * cfg.num_mels), dtype),
            conv=jnp.zeros((cfg.num_layers, batch, cfg.conv_kernel - 1, cfg.embed_dim), dtype),
            cache=init_cache(
                cfg.num_layers,
                batch,
                0,
                cfg.left_context_slots,
                (cfg.num_heads, cfg.embed_dim // cfg.num_heads),
                dtype,
            ),
        )

    def step(
        self, state: ConformerState, mel: Float[Array, "B 8 M"], exec_mask: Bool[Array, "B"]
    ) -> tuple[ConformerState, Float[Array, "B 1 D"]]:
        """One slot of each row; rows outside `exec_mask` keep their state."""
        x, stem = self.stem(mel, jnp.ones((mel.shape[0], 1), jnp.int32), state.stem)
        angles = self._angles(state.cache.frames[:, None])
        cache, placement = place(state.cache, exec_mask[:, None], pinned=False)

        def body(layer: ConformerBlock, x: Array, held: tuple) -> tuple[Array, tuple]:
            return layer.step(x, angles, placement, held)

        x, (conv, keys, values) = run_layers(
            self.layers, body, x, (state.conv, cache.keys, cache.values), scan=self.scan_layers
        )
        keep = exec_mask[:, None, None]
        state = ConformerState(
            stem=jnp.where(keep, stem, state.stem),
            conv=jnp.where(keep[None], conv, state.conv),
            cache=cache._replace(keys=keys, values=values),
        )
        return state, x

    def _angles(self, positions: Int[Array, "B T"]) -> Rotary:
        return rotary_1d(positions, self.cfg.embed_dim // self.cfg.num_heads)
