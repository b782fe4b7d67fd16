"""From the trunk's hidden state to text, speech codes and turn states."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped

from omni_jax.model_config import ModelConfig
from omni_jax.nn.attention import Attention, attend, even_heads
from omni_jax.nn.embed import lookup
from omni_jax.nn.mlp import Linear, SwiGLU
from omni_jax.nn.norm import RMSNorm
from omni_jax.nn.param import run_layers, stack_layers, weight
from omni_jax.types import Projection, TurnState


class DepthBlock(nnx.Module):
    def __init__(self, cfg: ModelConfig, rngs: nnx.Rngs):
        depth = cfg.depth
        residual_std = (2 * depth.num_layers) ** -0.5
        self.attention_norm, self.mlp_norm = RMSNorm(depth.embed_dim), RMSNorm(depth.embed_dim)
        self.attention = Attention(
            depth.embed_dim,
            even_heads(depth.embed_dim, depth.num_heads),
            rngs,
            residual_std=residual_std,
        )
        self.mlp = SwiGLU(depth.embed_dim, depth.mlp_dim, rngs, residual_std=residual_std)

    def __call__(self, x: Float[Array, "N Q D"]) -> Float[Array, "N Q D"]:
        """All codebooks of N frames; a step sees itself and the steps before it."""
        x = x + self.attention(self.attention_norm(x), None, jnp.zeros(x.shape[:2], jnp.int32))
        return x + self.mlp(self.mlp_norm(x))

    def step(
        self, x: Float[Array, "N 1 D"], index: Int[Array, ""], held: tuple[Array, Array]
    ) -> tuple[Float[Array, "N 1 D"], tuple[Array, Array]]:
        """Codebook `index` of N frames; `held` are the keys and values [N, Q, H, Dh] of the steps before it."""
        q, k, v = self.attention.project(self.attention_norm(x), None)
        keys, values = (jax.lax.dynamic_update_slice_in_dim(old, new, index, axis=1) for old, new in zip(held, (k, v)))
        mask = jnp.broadcast_to((jnp.arange(keys.shape[1]) <= index)[None, None], (x.shape[0], 1, keys.shape[1]))
        x = x + self.attention.output(attend(q, keys, values, mask))
        return x + self.mlp(self.mlp_norm(x)), (keys, values)


class DepthTransformer(nnx.Module):
    """Codebook after codebook inside one frame (Moshi, arXiv 2410.00037 section 3.4.1).

    Step 0 reads the hidden state and the text of the frame that is being said, step q the hidden state and code
    q - 1. Input and output projections are per codebook, which tells the steps apart; the layers are shared (Moshi
    has separate ones).
    """

    def __init__(self, cfg: ModelConfig, rngs: nnx.Rngs):
        self.cfg, self.num_codebooks, self.scan_layers = cfg.depth, cfg.num_codebooks, cfg.transformer.scan_layers
        width, dim = cfg.depth.embed_dim, cfg.transformer.embed_dim
        q, k = cfg.num_codebooks, cfg.codebook_size
        self.condition = weight(rngs, (q, dim, width), ("codebook", "embed", "embed_out"), dim**-0.5)
        self.text = weight(rngs, (cfg.vocab_size, width), ("vocab", "embed"), 0.5)
        self.codes = weight(rngs, (q - 1, k, width), ("codebook", "vocab", "embed"), 0.5)
        self.layers = stack_layers(lambda rngs: DepthBlock(cfg, rngs), cfg.depth.num_layers, rngs)
        self.norm = RMSNorm(width)
        self.out = weight(rngs, (q, width, k), ("codebook", "embed", "vocab"), width**-0.5)

    def __call__(
        self,
        hidden: Float[Array, "B Ns D"],
        text_target: Int[Array, "B Ns"],
        codes_target: Int[Array, "B Ns Q"],
    ) -> Float[Array, "B Ns Q W"]:
        """Teacher-forced: what `heads` make the logits of all codebooks from."""
        conditions = jnp.einsum("bnd,qdw->bnqw", hidden, self.condition[...].astype(hidden.dtype))
        text = lookup(self.text[...], text_target)[:, :, None]
        previous = [lookup(self.codes[q], codes_target[:, :, q])[:, :, None] for q in range(self.num_codebooks - 1)]
        inputs = conditions + jnp.concatenate([text, *previous], axis=2).astype(hidden.dtype)
        return self._decode(inputs)

    def heads(self) -> Projection:
        """From the hidden states of step q to the logits of codebook q."""
        return Projection(self.out[...])

    def semantic(self, hidden: Float[Array, "B T D"], text_target: Int[Array, "B T"]) -> Float[Array, "B T W"]:
        """Codebook 0 at every position: the same computation as step 0 above, which sees no other step."""
        condition = hidden @ self.condition[0].astype(hidden.dtype)
        inputs = condition + lookup(self.text[...], text_target).astype(hidden.dtype)
        return self._decode(inputs[:, :, None])[:, :, 0]

    def generate(
        self,
        hidden: Float[Array, "B D"],
        text: Int[Array, "B"],
        choose: Callable[[Float[Array, "B K"], Array], Int[Array, "B"]],
        key: PRNGKeyArray | Shaped[Array, "..."],
    ) -> Int[Array, "B Q"]:
        """Samples one frame, one codebook after the other; `choose(logits, key)` picks the codes."""
        dtype, batch = hidden.dtype, hidden.shape[0]
        heads = (self.cfg.num_heads, self.cfg.embed_dim // self.cfg.num_heads)
        empty = jnp.zeros((self.cfg.num_layers, batch, self.num_codebooks, *heads), dtype)
        conditions = jnp.einsum("bd,qdw->qbw", hidden, self.condition[...].astype(dtype))

        def body(carry: tuple, inputs: tuple) -> tuple[tuple, Array]:
            previous, held = carry
            index, condition, out, key = inputs
            x = (condition + previous)[:, None]
            x, held = run_layers(self.layers, lambda layer, x, h: layer.step(x, index, h), x, held)
            logits = (self.norm(x)[:, 0] @ out.astype(dtype)).astype(jnp.float32)
            codes = choose(logits, key)
            table = self.codes[jnp.minimum(index, self.num_codebooks - 2)]  # the last codebook's code is not read
            return (lookup(table, codes).astype(dtype), held), codes

        steps = jnp.arange(self.num_codebooks)
        keys = jax.random.split(key, self.num_codebooks)
        first = (lookup(self.text[...], text).astype(dtype), (empty, empty))
        _, codes = jax.lax.scan(body, first, (steps, conditions, self.out[...], keys))
        return codes.T

    def _decode(self, inputs: Float[Array, "B N Q W"]) -> Float[Array, "B N Q W"]:
        batch, length, steps, width = inputs.shape
        x = inputs.reshape(batch * length, steps, width)
        x, _ = run_layers(self.layers, lambda layer, x, _: (layer(x), None), x, scan=self.scan_layers)
        return self.norm(x).reshape(inputs.shape)


class TurnHead(nnx.Module):
    """Auxiliary: the user's voice activity in the frame just heard, and the turn state TURN_DELAY_FRAMES before."""

    def __init__(self, embed_dim: int, rngs: nnx.Rngs):
        self.hidden = Linear(embed_dim, embed_dim // 2, ("embed", "mlp"), rngs, bias=True)
        self.out = Linear(embed_dim // 2, 1 + len(TurnState), ("mlp", "small"), rngs, bias=True)

    def __call__(self, hidden: Float[Array, "B T D"]) -> tuple[Float[Array, "B T"], Float[Array, "B T R"]]:
        """Logits of voice activity, and of the `TurnState` classes; float32."""
        logits = self.out(jax.nn.gelu(self.hidden(hidden))).astype(jnp.float32)
        return logits[..., 0], logits[..., 1:]
