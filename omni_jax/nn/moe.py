"""Mixture of experts with a float32 router (arXiv 2101.03961, 2211.15841); no position is dropped unless asked for."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from omni_jax.model_config import TransformerConfig
from omni_jax.nn.experts import ExpertWeights, mix_experts
from omni_jax.nn.mlp import SwiGLU
from omni_jax.nn.param import constant, weight


class RouterStats(NamedTuple):
    """Of one layer, over real positions."""

    load_balance_loss: Float[Array, ""]  # 1 where tokens and probabilities are spread evenly (arXiv 2101.03961)
    router_z_loss: Float[Array, ""]  # mean squared log-partition (arXiv 2202.08906)
    expert_share: Float[Array, "E"]  # of the top-k choices; sums to 1
    router_entropy: Float[Array, ""]  # mean, nats
    dropped_share: Float[Array, ""]  # of all choices, for want of room in an expert buffer


def router_stats(
    logits: Float[Array, "... E"],
    probs: Float[Array, "... E"],
    chosen: Int[Array, "... k"],
    real: Bool[Array, "..."],
    dropped: Float[Array, "..."],
) -> RouterStats:
    """Losses and shares of one router; zero-safe where no position is real. `probs` sum to 1 over the experts."""
    num_experts, everywhere = logits.shape[-1], tuple(range(real.ndim))
    mean = real.astype(jnp.float32) / jnp.maximum(jnp.sum(real), 1)
    taken = jnp.mean(jax.nn.one_hot(chosen, num_experts, dtype=jnp.float32), axis=-2)
    share, mean_probs = (jnp.sum(mean[..., None] * values, axis=everywhere) for values in (taken, probs))
    entropy = -jnp.sum(probs * jnp.log(jnp.maximum(probs, jnp.finfo(jnp.float32).tiny)), axis=-1)
    return RouterStats(
        load_balance_loss=num_experts * jnp.sum(share * mean_probs),
        router_z_loss=jnp.sum(mean * jnp.square(jax.nn.logsumexp(logits, axis=-1))),
        expert_share=share,
        router_entropy=jnp.sum(mean * entropy),
        dropped_share=jnp.mean(dropped),
    )


def route(
    cfg: TransformerConfig, logits: Float[Array, "... E"], bias: Float[Array, "E"] | None
) -> tuple[Float[Array, "... k"], Int[Array, "... k"], Float[Array, "... E"]]:
    """Gates and chosen experts of each position, and its probabilities over all experts.

    `sigmoid` scores experts apart from each other (arXiv 2412.19437 section 2.1.2). A position may be held to the
    experts of its best groups, by the sum of each group's two best scores (same section). `bias` moves the choice, not
    the gates (arXiv 2408.15664).
    """
    scores = jax.nn.softmax(logits) if cfg.router == "softmax" else jax.nn.sigmoid(logits)
    choice = jax.lax.stop_gradient(scores)
    if bias is not None:
        choice = choice + jax.lax.stop_gradient(bias).reshape((1,) * (logits.ndim - 1) + (-1,))
    groups, usable = cfg.router_groups
    if usable < groups:
        grouped = choice.reshape(*choice.shape[:-1], groups, -1)
        best_two = jax.lax.top_k(grouped, min(2, grouped.shape[-1]))[0].sum(-1)
        kept = jax.nn.one_hot(jax.lax.top_k(best_two, usable)[1], groups, dtype=jnp.bool_).any(-2)
        choice = jnp.where(kept[..., None], grouped, -jnp.inf).reshape(choice.shape)
    _, chosen = jax.lax.top_k(choice, cfg.experts_per_token)
    gates = jnp.take_along_axis(scores, chosen, axis=-1)
    probs = scores if cfg.router == "softmax" else scores / jnp.sum(scores, axis=-1, keepdims=True)
    return gates / jnp.sum(gates, axis=-1, keepdims=True), chosen, probs


class MoE(nnx.Module):
    """SwiGLU experts; each position goes to its `experts_per_token` best ones, and to the shared ones.

    `moe_dispatch="sorted"` sorts positions by expert and multiplies group by group: the work grows with
    `experts_per_token`. `"dense"` computes every expert for every position: the same result, for a handful of experts
    faster on a CPU, where XLA lowers a grouped product to a dense one and the sort comes on top.
    """

    def __init__(self, cfg: TransformerConfig, rngs: nnx.Rngs, *, residual_std: float = 1.0):
        self.cfg = cfg
        dim, width, experts = cfg.embed_dim, cfg.expert_dim, cfg.num_experts
        std = dim**-0.5
        into, back = ("expert", "expert_embed", "mlp"), ("expert", "mlp", "expert_embed")
        self.router = weight(rngs, (dim, experts), ("embed", "small"), std)
        self.gate = weight(rngs, (experts, dim, width), into, std)
        self.up = weight(rngs, (experts, dim, width), into, std)
        self.down = weight(rngs, (experts, width, dim), back, residual_std * width**-0.5)
        if cfg.num_shared_experts:
            self.shared = SwiGLU(dim, cfg.num_shared_experts * width, rngs, residual_std=residual_std)
        if cfg.router_bias_rate:
            self.router_bias = constant((experts,), ("small",), 0.0)

    def __call__(self, x: Float[Array, "B T D"], real: Bool[Array, "B T"]) -> tuple[Float[Array, "B T D"], RouterStats]:
        """Returns the mixture and the router's statistics over the positions where `real`."""
        logits = x.astype(jnp.float32) @ self.router[...].astype(jnp.float32)
        bias = self.router_bias[...] if self.cfg.router_bias_rate else None
        gates, chosen, probs = route(self.cfg, logits, bias)
        if self.cfg.moe_dispatch == "dense":
            y, dropped = self._dense(x, gates, chosen), jnp.zeros(real.shape, jnp.float32)
        else:
            weights = ExpertWeights(self.gate[...], self.up[...], self.down[...].swapaxes(1, 2))
            y, dropped = mix_experts(x, gates, chosen, weights, self.cfg.expert_buffer)
        if self.cfg.num_shared_experts:
            y = y + self.shared(x)
        return y, router_stats(logits, probs, chosen, real, dropped)

    def _dense(
        self, x: Float[Array, "B T D"], gates: Float[Array, "B T k"], chosen: Int[Array, "B T k"]
    ) -> Float[Array, "B T D"]:
        num_experts, dim, width = self.gate.shape
        one_hot = jax.nn.one_hot(chosen, num_experts, dtype=jnp.float32)
        weights = jnp.einsum("btk,btke->bte", gates, one_hot).astype(x.dtype)
        # One wide layer of E * F units. As an einsum over "ef" XLA's CPU backend takes twice as long.
        gate, up = (
            x @ jnp.moveaxis(w[...], 0, 1).reshape(dim, num_experts * width).astype(x.dtype)
            for w in (self.gate, self.up)
        )
        hidden = jax.nn.silu(gate) * up * jnp.repeat(weights, width, axis=-1)
        return hidden @ self.down[...].reshape(num_experts * width, dim).astype(x.dtype)
