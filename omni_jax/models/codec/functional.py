"""Any codec as pure functions of (config, parameters): what everything outside `models` uses.

The class of the config is the family: `CodecConfig` is `spectral`, `SeanetConfig` EnCodec and Mimi, `DacConfig` DAC.
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

from omni_jax.codec_config import CodecConfig, DacConfig, SeanetConfig
from omni_jax.models.codec.dac import DacCodec
from omni_jax.models.codec.seanet import SeanetCodec
from omni_jax.models.codec.spectral import SpectralCodec
from omni_jax.nn.conv import State, select_rows

Params = dict[str, Any]
AnyCodecConfig = CodecConfig | SeanetConfig | DacConfig
_FAMILIES = {CodecConfig: SpectralCodec, SeanetConfig: SeanetCodec, DacConfig: DacCodec}


@functools.lru_cache(maxsize=8)
def _graphdef(cfg: AnyCodecConfig) -> Any:
    return nnx.split(nnx.eval_shape(lambda: _FAMILIES[type(cfg)](cfg, rngs=nnx.Rngs(0))))[0]


def bind(cfg: AnyCodecConfig, params: Params) -> Any:
    """The module with these parameters."""
    return nnx.merge(_graphdef(cfg), params)


def init_params(cfg: AnyCodecConfig, key: PRNGKeyArray) -> Params:
    """Untrained parameters; `spectral`'s codebooks are zero until k-means sets them."""
    return nnx.to_pure_dict(nnx.split(_FAMILIES[type(cfg)](cfg, rngs=nnx.Rngs(key)))[1])


def encoder_latency_samples(cfg: AnyCodecConfig) -> int:
    """Samples that a code needs beyond the end of its frame, in whole frames: a stream's codes are that late."""
    return bind(cfg, _abstract(cfg)).encoder.delay_frames * cfg.hop_samples


def decoder_latency_samples(cfg: AnyCodecConfig) -> int:
    """Delay of the decoded waveform against the encoded one."""
    return bind(cfg, _abstract(cfg)).decoder.algorithmic_latency_samples


def _abstract(cfg: AnyCodecConfig) -> Params:
    return jax.eval_shape(functools.partial(init_params, cfg), jax.random.key(0))


def init_encode_state(cfg: AnyCodecConfig, batch: int) -> State:
    return bind(cfg, _abstract(cfg)).encoder.init_state(batch)


def init_decode_state(cfg: AnyCodecConfig, batch: int) -> State:
    return bind(cfg, _abstract(cfg)).decoder.init_state(batch)


@functools.partial(jax.jit, static_argnums=0)
def encode_codes(cfg: AnyCodecConfig, params: Params, wav: Float[Array, "B N"]) -> Int[Array, "B T Q"]:
    """Codes of float32 audio at the codec's rate. A last partial frame is completed with silence: T = ceil(N / hop)."""
    wav = jnp.pad(wav, ((0, 0), (0, -wav.shape[1] % cfg.hop_samples)))
    return bind(cfg, params).encode(wav)


@functools.partial(jax.jit, static_argnums=0)
def decode_codes(cfg: AnyCodecConfig, params: Params, codes: Int[Array, "B T Q"]) -> Float[Array, "B N"]:
    """Waveform of the codes, float32 in [-1, 1], late by `decoder_latency_samples` like the streaming decoder's."""
    model = bind(cfg, params)
    wav = model.decode(codes)
    late = model.decoder.algorithmic_latency_samples if model.aligned else 0
    return jnp.clip(jnp.pad(wav, ((0, 0), (late, 0)))[:, : codes.shape[1] * cfg.hop_samples], -1.0, 1.0)


@functools.partial(jax.jit, static_argnums=0)
def encode_step(
    cfg: AnyCodecConfig, params: Params, state: State, wav: Float[Array, "B N"], exec_mask: Bool[Array, " B"]
) -> tuple[State, Int[Array, "B T Q"]]:
    """Codes of the next N / hop whole frames. Rows outside `exec_mask` keep their state; ignore their codes."""
    codes, new = bind(cfg, params).encode_step(wav, state)
    return select_rows(exec_mask, new, state), codes


@functools.partial(jax.jit, static_argnums=0)
def decode_step(
    cfg: AnyCodecConfig, params: Params, state: State, codes: Int[Array, "B T Q"], exec_mask: Bool[Array, " B"]
) -> tuple[State, Float[Array, "B N"]]:
    """The next T frames of the waveform. Rows outside `exec_mask` keep their state and are silent."""
    wav, new = bind(cfg, params).decode_step(codes, state)
    return select_rows(exec_mask, new, state), jnp.where(exec_mask[:, None], jnp.clip(wav, -1.0, 1.0), 0.0)


def reset_rows(state: State, reset_mask: Bool[Array, " B"]) -> State:
    """Starts the rows of `reset_mask` anew: every initial state is zero."""
    return select_rows(reset_mask, jax.tree.map(jnp.zeros_like, state), state)
