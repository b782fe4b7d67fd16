"""Dropless mixture of experts with a float32 softmax router (arXiv 2101.03961, 2211.15841)."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from omni_jax.nn.param import weight


class RouterStats(NamedTuple):
    """Of one layer, over real positions."""

    load_balance_loss: Float[Array, ""]  # 1 where tokens and probabilities are spread evenly (arXiv 2101.03961)
    router_z_loss: Float[Array, ""]  # mean squared log-partition (arXiv 2202.08906)
    expert_share: Float[Array, "E"]  # of the top-k choices; sums to 1
    router_entropy: Float[Array, ""]  # mean, nats


def router_stats(logits: Float[Array, "N E"], chosen: Int[Array, "N k"], real: Bool[Array, "N"]) -> RouterStats:
    """Losses and shares of one router; zero-safe where no position is real."""
    num_experts = logits.shape[-1]
    mean = real.astype(jnp.float32) / jnp.maximum(jnp.sum(real), 1)
    log_probs = jax.nn.log_softmax(logits)
    probs = jnp.exp(log_probs)
    share = mean @ jnp.mean(jax.nn.one_hot(chosen, num_experts, dtype=jnp.float32), axis=1)
    return RouterStats(
        load_balance_loss=num_experts * jnp.sum(share * (mean @ probs)),
        router_z_loss=jnp.sum(mean * jnp.square(jax.nn.logsumexp(logits, axis=-1))),
        expert_share=share,
        router_entropy=-jnp.sum(mean * jnp.sum(probs * log_probs, axis=-1)),
    )


class MoE(nnx.Module):
    """SwiGLU experts; each position goes to its `experts_per_token` best ones, none is dropped.

    `dispatch="sorted"` sorts positions by expert and multiplies by `lax.ragged_dot`: the work grows with
    `experts_per_token`. `dispatch="dense"` computes every expert for every position: the same result, for a handful of
    experts faster on a CPU, where XLA lowers `ragged_dot` to a dense product and the sort comes on top.
    """

    def __init__(
        self,
        embed_dim: int,
        expert_dim: int,
        num_experts: int,
        experts_per_token: int,
        dispatch: str,
        rngs: nnx.Rngs,
        *,
        residual_std: float = 1.0,
    ):
        self.experts_per_token = experts_per_token
        self.dispatch = dispatch
        std = embed_dim**-0.5
        into, back = ("expert", "embed", "mlp"), ("expert", "mlp", "embed")
        self.router = weight(rngs, (embed_dim, num_experts), ("embed", "small"), std)
        self.gate = weight(rngs, (num_experts, embed_dim, expert_dim), into, std)
        self.up = weight(rngs, (num_experts, embed_dim, expert_dim), into, std)
        self.down = weight(rngs, (num_experts, expert_dim, embed_dim), back, residual_std * expert_dim**-0.5)

    def __call__(self, x: Float[Array, "B T D"], real: Bool[Array, "B T"]) -> tuple[Float[Array, "B T D"], RouterStats]:
        """Returns the mixture and the router's statistics over the positions where `real`."""
        tokens = x.reshape(-1, x.shape[-1])
        logits = tokens.astype(jnp.float32) @ self.router[...].astype(jnp.float32)
        top, chosen = jax.lax.top_k(jax.nn.softmax(logits), self.experts_per_token)
        gates = top / jnp.sum(top, axis=-1, keepdims=True)
        mix = self._dense if self.dispatch == "dense" else self._sorted
        return mix(tokens, gates, chosen).reshape(x.shape), router_stats(logits, chosen, real.reshape(-1))

    def _dense(
        self, x: Float[Array, "N D"], gates: Float[Array, "N k"], chosen: Int[Array, "N k"]
    ) -> Float[Array, "N D"]:
        num_experts, dim, width = self.gate.shape
        one_hot = jax.nn.one_hot(chosen, num_experts, dtype=jnp.float32)
        weights = jnp.einsum("nk,nke->ne", gates, one_hot).astype(x.dtype)
        # One wide layer of E * F units. As an einsum over "nef" XLA's CPU backend takes twice as long.
        gate, up = (
            x @ jnp.moveaxis(w[...], 0, 1).reshape(dim, num_experts * width).astype(x.dtype)
            for w in (self.gate, self.up)
        )
        hidden = jax.nn.silu(gate) * up * jnp.repeat(weights, width, axis=1)
        return hidden @ self.down[...].reshape(num_experts * width, dim).astype(x.dtype)

    def _sorted(
        self, x: Float[Array, "N D"], gates: Float[Array, "N k"], chosen: Int[Array, "N k"]
    ) -> Float[Array, "N D"]:
        num_experts, k = self.gate.shape[0], chosen.shape[1]
        order = jnp.argsort(chosen.reshape(-1), stable=True)
        sizes = jnp.bincount(chosen.reshape(-1), length=num_experts).astype(jnp.int32)
        rows = x[order // k]
        gate = jax.lax.ragged_dot(rows, self.gate[...].astype(x.dtype), sizes)
        up = jax.lax.ragged_dot(rows, self.up[...].astype(x.dtype), sizes)
        out = jax.lax.ragged_dot(jax.nn.silu(gate) * up, self.down[...].astype(x.dtype), sizes)
        out = out[jnp.argsort(order)].reshape(-1, k, x.shape[-1])  # back to (position, choice)
        return jnp.sum(out * gates[:, :, None].astype(x.dtype), axis=1)
