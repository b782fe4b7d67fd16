"""Mimi's transformer between convolutions and quantiser (arXiv:2410.00037, section 3.3): causal, a finite context.

A stream keeps keys and values of the last `context_frames` frames in a ring, position p in slot p mod context.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from omni_jax.codec_config import SeanetConfig
from omni_jax.nn.attention import attend, attend_segments
from omni_jax.nn.rope import Rotary, apply_rotary, rotary_1d
from omni_jax.nn.stream import State, StreamLayer

LAYER_NORM_EPS = 1e-5


class FrameTransformerLayer(nnx.Module):
    """Pre-norm attention and feed-forward layer, each scaled into the residual (arXiv:2103.17239)."""

    def __init__(self, cfg: SeanetConfig, *, rngs: nnx.Rngs) -> None:
        dim = cfg.latent_dim
        self.num_heads = cfg.num_heads
        self.attention_norm = nnx.LayerNorm(dim, epsilon=LAYER_NORM_EPS, rngs=rngs)
        self.query = nnx.Linear(dim, dim, use_bias=False, rngs=rngs)
        self.key = nnx.Linear(dim, dim, use_bias=False, rngs=rngs)
        self.value = nnx.Linear(dim, dim, use_bias=False, rngs=rngs)
        self.out = nnx.Linear(dim, dim, use_bias=False, rngs=rngs)
        self.attention_scale = nnx.Param(jnp.full((dim,), cfg.layer_scale))
        self.mlp_norm = nnx.LayerNorm(dim, epsilon=LAYER_NORM_EPS, rngs=rngs)
        self.up = nnx.Linear(dim, cfg.mlp_dim, use_bias=False, rngs=rngs)
        self.down = nnx.Linear(cfg.mlp_dim, dim, use_bias=False, rngs=rngs)
        self.mlp_scale = nnx.Param(jnp.full((dim,), cfg.layer_scale))

    def project(self, x: Float[Array, "B T D"], angles: Rotary) -> tuple[Array, Array, Array]:
        """Rotated queries and keys, and values: [B, T, H, Dh] each."""
        x = self.attention_norm(x)
        q, k, v = [p(x).reshape(*x.shape[:2], self.num_heads, -1) for p in (self.query, self.key, self.value)]
        return apply_rotary(q, angles), apply_rotary(k, angles), v

    def finish(self, x: Float[Array, "B T D"], attended: Float[Array, "B T H Dh"]) -> Float[Array, "B T D"]:
        x = x + self.attention_scale[...][None, None] * self.out(attended.reshape(x.shape))
        y = self.down(jax.nn.gelu(self.up(self.mlp_norm(x)), approximate=False))
        return x + self.mlp_scale[...][None, None] * y


class FrameTransformer(StreamLayer):
    """Layers over latent frames."""

    def __init__(self, cfg: SeanetConfig, *, rngs: nnx.Rngs) -> None:
        self.context, self.num_heads = cfg.context_frames, cfg.num_heads
        self.head_dim = cfg.latent_dim // cfg.num_heads
        count = cfg.transformer_layers
        self.layers = nnx.Dict({f"{i:02d}": FrameTransformerLayer(cfg, rngs=rngs) for i in range(count)})

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        positions = jnp.broadcast_to(jnp.arange(x.shape[1]), x.shape[:2])
        angles, segments = rotary_1d(positions, self.head_dim), jnp.ones(x.shape[:2], jnp.int32)
        for layer in self.layers.values():
            attended = attend_segments(*layer.project(x, angles), segments, causal=True, window=self.context)
            x = layer.finish(x, attended)
        return x

    def init_state(self, batch: int) -> State:
        empty = jnp.zeros((batch, self.context, self.num_heads, self.head_dim))
        rings = {name: {"keys": empty, "values": empty} for name in self.layers}
        return rings | {"seen": jnp.zeros(batch, jnp.int32)}

    def step(self, x: Float[Array, "B T D"], state: State) -> tuple[Float[Array, "B T D"], State]:
        length, seen = x.shape[1], state["seen"]
        positions = seen[:, None] + jnp.arange(length)[None]
        angles, mask = rotary_1d(positions, self.head_dim), self._mask(seen, positions)
        new: State = {"seen": seen + length}
        for name, layer in self.layers.items():
            ring = state[name]
            q, k, v = layer.project(x, angles)
            keys, values = (jnp.concatenate(pair, axis=1) for pair in ((ring["keys"], k), (ring["values"], v)))
            x = layer.finish(x, attend(q, keys, values, mask))
            new[name] = {"keys": self._write(ring["keys"], k, seen), "values": self._write(ring["values"], v, seen)}
        return x, new

    def _mask(self, seen: Int[Array, " B"], positions: Int[Array, "B T"]) -> Bool[Array, "B T S"]:
        """Over the ring's slots and then the new frames: not later, among the last `context`, and really written."""
        slots, newest = jnp.arange(self.context)[None], seen[:, None] - 1
        held = newest - (newest - slots) % self.context  # the latest position that belongs into the slot
        keys = jnp.concatenate([held, positions], axis=1)[:, None]
        age = positions[..., None] - keys
        return (keys >= 0) & (age >= 0) & (age < self.context)

    def _write(self, ring: Float[Array, "B S H Dh"], new: Float[Array, "B T H Dh"], seen: Int[Array, " B"]) -> Array:
        skipped = max(0, new.shape[1] - self.context)  # overwritten by later frames of the same chunk
        count = new.shape[1] - skipped
        slots = (seen[:, None] + skipped + jnp.arange(count)[None]) % self.context
        return ring.at[jnp.arange(ring.shape[0])[:, None], slots].set(new[:, skipped:])
