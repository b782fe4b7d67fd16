"""Any vocoder as pure functions of (config, parameters): `HifiGanConfig` or `VocosConfig` selects the family.

`frames` are mel frames [B, T, M], or codes [B, T, Q] for a config with `num_codebooks`.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, PRNGKeyArray, Shaped

from omni_jax.codec_config import HifiGanConfig, VocosConfig
from omni_jax.models.vocoder.hifigan import HifiGan
from omni_jax.models.vocoder.vocos import Vocos
from omni_jax.nn.conv import State, select_rows

AnyVocoderConfig = HifiGanConfig | VocosConfig
_FAMILIES = {HifiGanConfig: HifiGan, VocosConfig: Vocos}


@functools.lru_cache(maxsize=8)
def _graphdef(cfg: AnyVocoderConfig) -> Any:
    return nnx.split(nnx.eval_shape(lambda: _FAMILIES[type(cfg)](cfg, rngs=nnx.Rngs(0))))[0]


def bind(cfg: AnyVocoderConfig, params: Any) -> Any:
    """The module with these parameters."""
    return nnx.merge(_graphdef(cfg), params)


def init_params(cfg: AnyVocoderConfig, key: PRNGKeyArray) -> dict[str, Any]:
    """Untrained parameters as a nested dict."""
    return nnx.to_pure_dict(nnx.split(_FAMILIES[type(cfg)](cfg, rngs=nnx.Rngs(key)))[1])


def _abstract(cfg: AnyVocoderConfig) -> Any:
    return bind(cfg, jax.eval_shape(functools.partial(init_params, cfg), jax.random.key(0)))


def latency_samples(cfg: AnyVocoderConfig) -> int:
    """Delay of a stream's waveform against its frames."""
    return _abstract(cfg).algorithmic_latency_samples


def init_state(cfg: AnyVocoderConfig, batch: int) -> State:
    return _abstract(cfg).init_state(batch)


@functools.partial(jax.jit, static_argnums=0)
def decode(cfg: AnyVocoderConfig, params: Any, frames: Shaped[Array, "B T M"]) -> Float[Array, "B N"]:
    """The waveform in time with the frames."""
    model = bind(cfg, params)
    return model(model.embed(frames) if cfg.num_codebooks else frames)


@functools.partial(jax.jit, static_argnums=0)
def decode_step(
    cfg: AnyVocoderConfig, params: Any, state: State, frames: Shaped[Array, "B T M"], exec_mask: Bool[Array, " B"]
) -> tuple[State, Float[Array, "B N"]]:
    """The next T frames of the waveform. Rows outside `exec_mask` keep their state and are silent."""
    model = bind(cfg, params)
    wav, new = model.step(model.embed(frames) if cfg.num_codebooks else frames, state)
    return select_rows(exec_mask, new, state), jnp.where(exec_mask[:, None], wav, 0.0)
