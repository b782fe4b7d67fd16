"""The trunk: pre-norm, GQA with TM-RoPE and QK-norm, first dense layers, then mixture-of-experts layers.

By configuration it is also the trunk of GPT-2, GPT-J, Llama, Qwen and Mixtral (see `omni_jax/pretrained/`).
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from omni_jax.model_config import TransformerConfig
from omni_jax.nn.attention import Attention, Heads, attend
from omni_jax.nn.cache import KVCache, init_cache, place, write_slots
from omni_jax.nn.embed import lookup
from omni_jax.nn.mlp import MLP, SwiGLU
from omni_jax.nn.moe import MoE, RouterStats
from omni_jax.nn.norm import NORMS
from omni_jax.nn.param import run_layers, stack_layers, weight
from omni_jax.nn.rope import Rotary, rotary
from omni_jax.nn.row_attention import attend_rows
from omni_jax.parallel.sharding import constrain
from omni_jax.types import MoEStats


class Block(nnx.Module):
    """One layer; `sparse` selects experts instead of one feed-forward."""

    def __init__(self, cfg: TransformerConfig, sparse: bool, rngs: nnx.Rngs):
        residual_std = (2 * cfg.num_layers) ** -0.5
        norm = NORMS[cfg.variant.norm]
        self.attention_norm = norm(cfg.embed_dim, cfg.norm_eps)
        self.attention = Attention(
            cfg.embed_dim,
            Heads(cfg.num_heads, cfg.num_kv_heads, cfg.head_dim),
            rngs,
            qk_norm=cfg.qk_norm,
            norm_eps=cfg.norm_eps,
            biases=cfg.variant.attention_biases,
            residual_std=residual_std,
        )
        self.mlp_norm = None if cfg.variant.parallel_block else norm(cfg.embed_dim, cfg.norm_eps)
        if sparse:
            self.moe = MoE(cfg, rngs, residual_std=residual_std)
        elif cfg.variant.mlp == "swiglu":
            self.mlp = SwiGLU(cfg.embed_dim, cfg.mlp_dim, rngs, residual_std=residual_std)
        else:
            self.mlp = MLP(cfg.embed_dim, cfg.mlp_dim, cfg.variant.mlp, rngs, residual_std=residual_std)

    def __call__(
        self, x: Float[Array, "B T D"], angles: Rotary | None, segment_ids: Int[Array, "B T"]
    ) -> tuple[Float[Array, "B T D"], RouterStats | None]:
        """A layer over whole sequences; segment 0 is padding."""
        normed = self.attention_norm(x)
        attended = attend_rows(*self.attention.project(normed, angles), segment_ids)
        return self.feed_forward(x + self.attention.output(attended), normed, segment_ids > 0)

    def feed_forward(
        self, x: Float[Array, "B T D"], normed: Float[Array, "B T D"], real: Bool[Array, "B T"]
    ) -> tuple[Float[Array, "B T D"], RouterStats | None]:
        """`x` has been through attention. A parallel block (GPT-J) computes from attention's own input `normed`."""
        inputs = normed if self.mlp_norm is None else self.mlp_norm(x)
        y, stats = self.moe(inputs, real) if hasattr(self, "moe") else (self.mlp(inputs), None)
        return constrain(x + y, "batch", "length", "embed_out"), stats


class Transformer(nnx.Module):
    """Dense layers and expert layers as two stacks, each applied by one scan."""

    def __init__(self, cfg: TransformerConfig, rngs: nnx.Rngs):
        self.cfg = cfg
        sparse_layers = cfg.num_layers - cfg.num_dense_layers if cfg.num_experts else 0
        self.depths = (cfg.num_layers - sparse_layers, sparse_layers)
        if self.depths[0]:
            self.dense = stack_layers(lambda rngs: Block(cfg, False, rngs), self.depths[0], rngs)
        if self.depths[1]:
            self.sparse = stack_layers(lambda rngs: Block(cfg, True, rngs), self.depths[1], rngs)
        self.norm = NORMS[cfg.variant.norm](cfg.embed_dim, cfg.norm_eps)
        if cfg.variant.learned_positions:
            self.positions = weight(rngs, (cfg.variant.learned_positions, cfg.embed_dim), ("small", "embed"), 0.02)

    @property
    def stacks(self) -> tuple[nnx.Module, ...]:
        return tuple(getattr(self, name) for name, depth in zip(("dense", "sparse"), self.depths) if depth)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        position_ids: Int[Array, "B T 3"],
        segment_ids: Int[Array, "B T"],
        residuals: Float[Array, "N B T D"] | None = None,
    ) -> tuple[Float[Array, "B T D"], MoEStats]:
        """Normalised hidden states, and router losses summed over the expert layers.

        `residuals` are added behind the first N layers (DeepStack, arXiv 2406.04334).
        """
        x, angles = self._positioned(x, position_ids)

        def body(layer: Block, x: Array, index: Int[Array, ""]) -> tuple[Array, RouterStats | None]:
            x, stats = layer(x, angles, segment_ids)
            return _with_residual(x, residuals, index), stats

        stats = None
        for stack, indices in zip(self.stacks, self._indices()):
            layers = jnp.asarray(indices)
            x, stats = run_layers(
                stack, body, x, layers, remat=self.cfg.remat, scan=self.cfg.scan_layers, dtype=x.dtype
            )
        return self.norm(x), self._moe_stats(stats)

    def init_cache(self, batch: int, prefix_slots: int, ring_slots: int, dtype: DTypeLike) -> KVCache:
        heads_and_dim = (self.cfg.num_kv_heads, self.cfg.head_dim)
        return init_cache(self.cfg.num_layers, batch, prefix_slots, ring_slots, heads_and_dim, dtype)

    def extend(
        self,
        x: Float[Array, "B T D"],
        position_ids: Int[Array, "B T 3"],
        cache: KVCache,
        write: Bool[Array, "B T"],
        *,
        pinned: bool,
        residuals: Float[Array, "N B T D"] | None = None,
    ) -> tuple[Float[Array, "B T D"], KVCache]:
        """Goes on after what the cache holds; rows and positions without `write` leave no trace in it."""
        x, angles = self._positioned(x, position_ids)
        cache, placement = place(cache, write, pinned=pinned)

        def body(layer: Block, x: Array, inputs: tuple) -> tuple[Array, tuple[Array, Array]]:
            index, held = inputs
            normed = layer.attention_norm(x)
            q, k, v = layer.attention.project(normed, angles)
            keys, values = (write_slots(old, new, placement.slots) for old, new in zip(held, (k, v)))
            x = x + layer.attention.output(attend(q, keys.astype(q.dtype), values.astype(q.dtype), placement.mask))
            x, _ = layer.feed_forward(x, normed, write)
            return _with_residual(x, residuals, index), (keys, values)

        written = []
        for stack, indices in zip(self.stacks, self._indices()):
            held = (cache.keys[indices[0] : indices[-1] + 1], cache.values[indices[0] : indices[-1] + 1])
            x, held = run_layers(stack, body, x, (jnp.asarray(indices), held), scan=self.cfg.scan_layers)
            written.append(held)
        keys, values = (jnp.concatenate(parts) for parts in zip(*written))
        return self.norm(x), cache._replace(keys=keys, values=values)

    def _indices(self) -> list[np.ndarray]:
        """The number of every layer, stack by stack."""
        numbers = np.split(np.arange(self.cfg.num_layers), [self.depths[0]])
        return [part for part in numbers if len(part)]

    def _positioned(
        self, x: Float[Array, "B T D"], position_ids: Int[Array, "B T 3"]
    ) -> tuple[Float[Array, "B T D"], Rotary | None]:
        """Positions either as angles for the attention or, learned, added to the input."""
        cfg = self.cfg
        if cfg.variant.learned_positions:
            return x + lookup(self.positions[...].astype(x.dtype), position_ids[..., 0]), None
        return x, rotary(position_ids, cfg.rope_sections, cfg.rope_theta, cfg.variant.rope_stretch)

    def _moe_stats(self, stats: RouterStats | None) -> MoEStats:
        if stats is None:
            zero = jnp.zeros((), jnp.float32)
            return MoEStats(zero, zero, jnp.zeros((0, self.cfg.num_experts), jnp.float32), zero, zero)
        return MoEStats(
            jnp.sum(stats.load_balance_loss),
            jnp.sum(stats.router_z_loss),
            stats.expert_share,
            jnp.sum(stats.router_entropy),
            jnp.mean(stats.dropped_share),
        )


def _with_residual(
    x: Float[Array, "B T D"], residuals: Float[Array, "N B T D"] | None, layer: Int[Array, ""]
) -> Float[Array, "B T D"]:
    if residuals is None:
        return x
    count = residuals.shape[0]
    return x + jnp.where(layer < count, residuals[jnp.minimum(layer, count - 1)], 0).astype(x.dtype)
