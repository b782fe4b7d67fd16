"""The text path of the omni model alone: the same parameters under the same names, so that either starts the other."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from omni_jax.model_config import ModelConfig, parse_lora
from omni_jax.models.binding import Params, bind
from omni_jax.models.transformer import Transformer
from omni_jax.nn.cache import KVCache
from omni_jax.nn.embed import lookup
from omni_jax.nn.low_rank_params import add_low_rank
from omni_jax.nn.param import constant, weight
from omni_jax.types import Projection

_EMBEDDING_STD = 0.1


class TextHead:
    """What the omni model and the language model share. Expects `cfg` and `text_embedding` of the class."""

    def make_text_head(self, cfg: ModelConfig, rngs: nnx.Rngs) -> None:
        dim = cfg.transformer.embed_dim
        if not cfg.tie_text_head:
            self.text_head = weight(rngs, (dim, cfg.vocab_size), ("embed", "vocab"), dim**-0.5)
        if cfg.transformer.variant.text_head_bias:
            self.text_head_bias = constant((cfg.vocab_size,), ("vocab",), 0.0)

    def text_logits(self, hidden: Float[Array, "... D"]) -> Float[Array, "... V"]:
        """Next-token logits, float32."""
        head, bias = self.text_projection()
        logits = (hidden @ head.astype(hidden.dtype)).astype(jnp.float32)
        return logits if bias is None else logits + jnp.broadcast_to(bias, logits.shape)

    def text_projection(self) -> Projection:
        head = self.text_embedding[...].T if self.cfg.tie_text_head else self.text_head[...]
        has_bias = self.cfg.transformer.variant.text_head_bias
        return Projection(head, self.text_head_bias[...] if has_bias else None)


class LanguageModel(TextHead, nnx.Module):
    """Text in, next-token logits out."""

    def __init__(self, cfg: ModelConfig, rngs: nnx.Rngs):
        self.cfg = cfg
        shape = (cfg.vocab_size, cfg.transformer.embed_dim)
        self.text_embedding = weight(rngs, shape, ("vocab", "embed"), _EMBEDDING_STD)
        self.transformer = Transformer(cfg.transformer, rngs)
        self.make_text_head(cfg, rngs)
        add_low_rank(self, parse_lora(cfg.lora), rngs, strict=False)

    def __call__(self, text: Int[Array, "B T"]) -> Float[Array, "B T V"]:
        """Logits of whole rows; a negative id is padding at a row's end."""
        hidden, _ = self.transformer(self.embed(text), _count(text, 0), (text >= 0).astype(jnp.int32))
        return self.text_logits(hidden)

    def embed(self, text: Int[Array, "B T"]) -> Float[Array, "B T D"]:
        return lookup(self.text_embedding[...], text).astype(self.cfg.compute_dtype)

    def extend(self, text: Int[Array, "B T"], cache: KVCache) -> tuple[Float[Array, "B T V"], KVCache]:
        """Logits of the next positions of every row, and the cache with them."""
        positions = _count(text, cache.frames[0])
        write = jnp.ones(text.shape, bool)
        hidden, cache = self.transformer.extend(self.embed(text), positions, cache, write, pinned=False)
        return self.text_logits(hidden), cache


def _count(text: Int[Array, "B T"], first: Int[Array, ""] | int) -> Int[Array, "B T 3"]:
    positions = (first + jnp.arange(text.shape[1]))[None, :, None]
    return jnp.broadcast_to(positions, (*text.shape, 3))


@partial(jax.jit, static_argnums=0)
def logits(cfg: ModelConfig, params: Params, text: Int[Array, "B T"]) -> Float[Array, "B T V"]:
    """Next-token logits of whole rows."""
    return bind(LanguageModel, cfg, params)(text)


@partial(jax.jit, static_argnums=(0, 3))
def greedy(cfg: ModelConfig, params: Params, prompt: Int[Array, "B T"], length: int) -> Int[Array, "B N"]:
    """The `length` most likely tokens after each prompt, one cached step a token."""
    model, batch = bind(LanguageModel, cfg, params), prompt.shape[0]
    cache = model.transformer.init_cache(batch, 0, prompt.shape[1] + length, jnp.dtype(cfg.compute_dtype))
    first, cache = model.extend(prompt, cache)

    def step(carry: tuple, _: None) -> tuple[tuple, Int[Array, "B"]]:
        token, cache = carry
        following, cache = model.extend(token[:, None], cache)
        return (jnp.argmax(following[:, -1], axis=-1), cache), token

    start = jnp.argmax(first[:, -1], axis=-1)
    _, tokens = jax.lax.scan(step, (start, cache), length=length)
    return tokens.T
