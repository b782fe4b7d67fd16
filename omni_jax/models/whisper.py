"""Whisper whole (arXiv 2212.04356): speech recognition with published weights, for evaluation."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from omni_jax.encoder_config import TowerConfig, WhisperConfig
from omni_jax.models.binding import Params, bind
from omni_jax.models.encoders.tower import WhisperEncoder
from omni_jax.nn.attention import Attention, attend, even_heads
from omni_jax.nn.cache import KVCache, Placement, init_cache, place, write_slots
from omni_jax.nn.embed import lookup
from omni_jax.nn.mlp import MLP
from omni_jax.nn.norm import LayerNorm
from omni_jax.nn.param import run_layers, stack_layers, weight

Memory = tuple[Float[Array, "L B S H Dh"], Float[Array, "L B S H Dh"]]  # each layer's keys and values of the audio


class Decoding(NamedTuple):
    """What to begin with and what never to say; ids."""

    prompt: Int[Array, " P"]
    end: Int[Array, ""]
    suppressed: Bool[Array, " V"]
    suppressed_first: Bool[Array, " V"]  # at the first token, too


class WhisperDecoderBlock(nnx.Module):
    def __init__(self, cfg: TowerConfig, rngs: nnx.Rngs):
        def attention() -> Attention:
            heads = even_heads(cfg.embed_dim, cfg.num_heads)
            return Attention(cfg.embed_dim, heads, rngs, qk_norm=False, biases=cfg.biases)

        self.attention_norm, self.cross_norm, self.mlp_norm = (LayerNorm(cfg.embed_dim, cfg.norm_eps) for _ in "abc")
        self.attention, self.cross = attention(), attention()
        self.mlp = MLP(cfg.embed_dim, cfg.mlp_dim, cfg.activation, rngs)

    def __call__(
        self, x: Float[Array, "B T D"], memory: tuple[Array, Array], held: tuple[Array, Array], placement: Placement
    ) -> tuple[Float[Array, "B T D"], tuple[Array, Array]]:
        """The next positions: each sees those before it and all of the audio. Returns the cache's keys and values."""
        q, k, v = self.attention.project(self.attention_norm(x), None)
        keys, values = (write_slots(old, new, placement.slots) for old, new in zip(held, (k, v)))
        x = x + self.attention.output(attend(q, keys.astype(q.dtype), values.astype(q.dtype), placement.mask))
        q = self.cross.queries(self.cross_norm(x))
        everything = jnp.ones((*x.shape[:2], memory[0].shape[1]), bool)
        x = x + self.cross.output(attend(q, *memory, everything))
        return x + self.mlp(self.mlp_norm(x)), (keys, values)


class Whisper(nnx.Module):
    """Encoder and decoder; the head is the token embedding."""

    def __init__(self, cfg: WhisperConfig, rngs: nnx.Rngs):
        self.cfg, width = cfg, cfg.decoder.embed_dim
        self.encoder = WhisperEncoder(cfg.encoder, rngs)
        self.text_embedding = weight(rngs, (cfg.vocab_size, width), ("vocab", "embed"), 0.02)
        self.positions = weight(rngs, (cfg.num_text_positions, width), ("small", "embed"), 0.02)
        self.layers = stack_layers(lambda rngs: WhisperDecoderBlock(cfg.decoder, rngs), cfg.decoder.num_layers, rngs)
        self.norm = LayerNorm(width, cfg.decoder.norm_eps)

    def hear(self, mel: Float[Array, "B N M"]) -> Memory:
        """What the decoder's layers attend to; `mel` is `dsp.log_mel_whisper`'s."""
        encoded = self.encoder(mel)
        return run_layers(self.layers, lambda layer, x, _: (x, layer.cross.keys_values(x)), encoded)[1]

    def init_cache(self, batch: int, length: int, dtype: DTypeLike) -> KVCache:
        decoder = self.cfg.decoder
        heads = (decoder.num_heads, decoder.embed_dim // decoder.num_heads)
        return init_cache(decoder.num_layers, batch, 0, length, heads, dtype)

    def extend(self, text: Int[Array, "B T"], memory: Memory, cache: KVCache) -> tuple[Float[Array, "B T V"], KVCache]:
        """Next-token logits, float32, of the next positions of every row, and the cache with them."""
        positions = jnp.broadcast_to(cache.frames[0] + jnp.arange(text.shape[1]), text.shape)
        x = lookup(self.text_embedding[...], text) + lookup(self.positions[...], positions)
        cache, placement = place(cache, jnp.ones(text.shape, bool), pinned=False)

        def body(layer: WhisperDecoderBlock, x: Array, inputs: tuple) -> tuple[Array, tuple[Array, Array]]:
            return layer(x, inputs[0], inputs[1], placement)

        x, (keys, values) = run_layers(self.layers, body, x, (memory, (cache.keys, cache.values)))
        logits = (self.norm(x) @ self.text_embedding[...].T.astype(x.dtype)).astype(jnp.float32)
        return logits, cache._replace(keys=keys, values=values)


@partial(jax.jit, static_argnums=0)
def logits(
    cfg: WhisperConfig, params: Params, mel: Float[Array, "B N M"], text: Int[Array, "B T"]
) -> Float[Array, "B T V"]:
    """Next-token logits of whole transcripts."""
    model = bind(Whisper, cfg, params)
    return model.extend(text, model.hear(mel), model.init_cache(*text.shape, mel.dtype))[0]


@partial(jax.jit, static_argnums=(0, 4))
def transcribe(
    cfg: WhisperConfig, params: Params, mel: Float[Array, "B N M"], decoding: Decoding, length: int
) -> Int[Array, "B L"]:
    """The `length` most likely tokens after the prompt, one cached step a token; `decoding.end` from the end on."""
    model, batch = bind(Whisper, cfg, params), mel.shape[0]
    memory = model.hear(mel)
    cache = model.init_cache(batch, decoding.prompt.shape[0] + length, mel.dtype)
    prompt = jnp.broadcast_to(decoding.prompt, (batch, *decoding.prompt.shape))
    first, cache = model.extend(prompt, memory, cache)

    def choose(logits: Float[Array, "B V"], suppressed: Bool[Array, " V"]) -> Int[Array, "B"]:
        return jnp.argmax(jnp.where(suppressed[None], -jnp.inf, logits), axis=-1).astype(jnp.int32)

    def going(carry: tuple) -> Bool[Array, ""]:
        index, token, *_ = carry
        return (index < length) & jnp.any(token != decoding.end)

    def step(carry: tuple) -> tuple:
        index, token, said, cache = carry
        said = said.at[:, index].set(token)
        following, cache = model.extend(token[:, None], memory, cache)
        chosen = choose(following[:, -1], decoding.suppressed)
        return index + 1, jnp.where(token == decoding.end, token, chosen), said, cache

    said = jnp.full((batch, length), decoding.end, jnp.int32)
    start = choose(first[:, -1], decoding.suppressed | decoding.suppressed_first)
    return jax.lax.while_loop(going, step, (jnp.zeros((), jnp.int32), start, said, cache))[2]
