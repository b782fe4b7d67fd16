"""The codec as pure functions of (config, parameters): what everything outside `models` uses.

Parameters are a nested dict of arrays, as `init_params` makes it and checkpoints hold it. All functions are jitted;
inside another jit they are inlined.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from omni_jax.config import CodecConfig
from omni_jax.models.codec.spectral import SpectralCodec, State
from omni_jax.nn.conv import select_rows
from omni_jax.types import FRAME_SPEECH_SAMPLES

Params = dict[str, Any]


@functools.lru_cache(maxsize=8)
def _graphdef(cfg: CodecConfig) -> Any:
    return nnx.split(nnx.eval_shape(lambda: SpectralCodec(cfg, rngs=nnx.Rngs(0))))[0]


def bind(cfg: CodecConfig, params: Params) -> SpectralCodec:
    """The module with these parameters."""
    return nnx.merge(_graphdef(cfg), params)


def init_params(cfg: CodecConfig, key: PRNGKeyArray) -> Params:
    """Untrained parameters; the codebooks are zero until k-means sets them."""
    return nnx.to_pure_dict(nnx.split(SpectralCodec(cfg, rngs=nnx.Rngs(key)))[1])


def encoder_latency_samples(cfg: CodecConfig) -> int:
    """Samples that a code needs beyond the end of its frame."""
    return bind(cfg, _abstract(cfg)).encoder.algorithmic_latency_samples


def decoder_latency_samples(cfg: CodecConfig) -> int:
    """Delay of the decoded waveform against the encoded one."""
    return bind(cfg, _abstract(cfg)).decoder.algorithmic_latency_samples


def _abstract(cfg: CodecConfig) -> Params:
    return jax.eval_shape(functools.partial(init_params, cfg), jax.random.key(0))


def init_encode_state(cfg: CodecConfig, batch: int) -> State:
    return bind(cfg, _abstract(cfg)).encoder.init_state(batch)


def init_decode_state(cfg: CodecConfig, batch: int) -> State:
    return bind(cfg, _abstract(cfg)).decoder.init_state(batch)


@functools.partial(jax.jit, static_argnums=0)
def encode_codes(cfg: CodecConfig, params: Params, wav: Float[Array, "B N"]) -> Int[Array, "B T Q"]:
    """Codes of float32 audio at 24 kHz. A last partial frame is completed with silence: T = ceil(N / 1920)."""
    wav = jnp.pad(wav, ((0, 0), (0, -wav.shape[1] % FRAME_SPEECH_SAMPLES)))
    codec = bind(cfg, params)
    return codec.encode(wav, codec.encoder.init_state(wav.shape[0]))[0]


@functools.partial(jax.jit, static_argnums=0)
def decode_codes(cfg: CodecConfig, params: Params, codes: Int[Array, "B T Q"]) -> Float[Array, "B T*1920"]:
    """Waveform of the codes, float32 in [-1, 1], late by `decoder_latency_samples` like the streaming decoder's."""
    codec = bind(cfg, params)
    return codec.decode(codes, codec.decoder.init_state(codes.shape[0]))[0]


@functools.partial(jax.jit, static_argnums=0)
def encode_step(
    cfg: CodecConfig, params: Params, state: State, wav: Float[Array, "B N"], exec_mask: Bool[Array, " B"]
) -> tuple[State, Int[Array, "B T Q"]]:
    """Codes of the next N / 1920 whole frames. Rows outside `exec_mask` keep their state; ignore their codes."""
    codes, new = bind(cfg, params).encode(wav, state)
    return select_rows(exec_mask, new, state), codes


@functools.partial(jax.jit, static_argnums=0)
def decode_step(
    cfg: CodecConfig, params: Params, state: State, codes: Int[Array, "B T Q"], exec_mask: Bool[Array, " B"]
) -> tuple[State, Float[Array, "B T*1920"]]:
    """The next T frames of the waveform. Rows outside `exec_mask` keep their state and are silent."""
    wav, new = bind(cfg, params).decode(codes, state)
    return select_rows(exec_mask, new, state), jnp.where(exec_mask[:, None], wav, 0.0)


def reset_rows(state: State, reset_mask: Bool[Array, " B"]) -> State:
    """Starts the rows of `reset_mask` anew: every initial state is zero."""
    return select_rows(reset_mask, jax.tree.map(jnp.zeros_like, state), state)
