"""One 80 ms frame as one pure function: samples in -> mel -> model step -> undelay -> codec decode -> samples out.

The live loop jits `tick`; a recording known beforehand runs the same function under `lax.scan`.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped

from omni_jax.codec_config import CodecConfig
from omni_jax.model_config import ModelConfig
from omni_jax.models import codec as codec_model
from omni_jax.models import omni_streaming
from omni_jax.models.omni_streaming import Sampling
from omni_jax.streaming.frontend import init_tail, mel_step
from omni_jax.streaming.undelay import UndelayState, init_undelay, undelay_step


class TickConfig(NamedTuple):
    """Everything static; hashable, so that two sessions of the same shape share one compiled program."""

    model: ModelConfig
    codec: CodecConfig
    sampling: Sampling


class Weights(NamedTuple):
    model: Any  # nested dict of arrays
    codec: Any


class TickState(NamedTuple):
    """All that one row of a call remembers. Every leaf has a batch axis except `key`."""

    mel_tail: Float[Array, "B tail"]
    model: Any  # omni_streaming.StreamState
    undelay: UndelayState
    decoder: Any  # codec decode state
    key: Shaped[PRNGKeyArray, ""] | Int[Array, " 2"]


class TickOutput(NamedTuple):
    """What one step says. The audio is frame i - acoustic_delay of the model's speech; zeros before there is one."""

    text: Int[Array, " B"]
    codes: Int[Array, "B Q"]  # one whole frame, undelayed: what `samples` was decoded from
    samples: Float[Array, "B N"]  # 1,920 at 24 kHz
    vad: Float[Array, " B"]  # probability that the user speaks in this frame
    turn: Float[Array, "B R"]  # probabilities of TurnState, TURN_DELAY_FRAMES before


def init_tick(
    config: TickConfig, weights: Weights, rows: int, cache_frames: int, prefix_slots: int, key: Array
) -> TickState:
    """The state before the first frame; `prefix_slots` cache positions are pinned for the prompt and the picture."""
    return TickState(
        mel_tail=init_tail(rows),
        model=omni_streaming.init_stream(config.model, weights.model, rows, cache_frames, prefix_slots),
        undelay=init_undelay(rows, config.model.acoustic_delay),
        decoder=codec_model.init_decode_state(config.codec, rows),
        key=key,
    )


@jax.jit
def begin(state: TickState) -> TickState:
    """After the prefix has been read: it has already chosen codebook 0 of the first frame."""
    codes = state.model.codes
    undelay, _, _ = undelay_step(state.undelay, codes, codes[:, 0] >= 0)
    return state._replace(undelay=undelay)


def tick(
    config: TickConfig,
    weights: Weights,
    state: TickState,
    samples: Float[Array, "B N"],
    exec_mask: Bool[Array, " B"],
) -> tuple[TickState, TickOutput]:
    """Takes the user's complete frame (1,280 samples at 16 kHz) and says the next one.

    A row with `exec_mask` False keeps its state and emits zeros; rows never influence each other.
    """
    next_key, sample_key = jax.random.split(state.key)
    tail, mel = mel_step(state.mel_tail, samples, config.model.audio.num_mels)
    model, step = omni_streaming.step(
        config.model, weights.model, state.model, mel, sample_key, config.sampling, exec_mask
    )
    undelay, codes, ready = undelay_step(state.undelay, step.codes, exec_mask)
    decoder, speech = codec_model.decode_step(config.codec, weights.codec, state.decoder, codes[:, None], ready)
    new_state = TickState(
        mel_tail=jnp.where(exec_mask[:, None], tail, state.mel_tail),
        model=model,
        undelay=undelay,
        decoder=decoder,
        key=jnp.where(exec_mask.any(), next_key, state.key),  # a tick without rows changes nothing
    )
    return new_state, TickOutput(
        text=step.text,
        codes=codes,
        samples=jnp.where(ready[:, None], speech, 0.0),
        vad=jax.nn.sigmoid(step.vad_logits),
        turn=jax.nn.softmax(step.turn_logits, axis=-1),
    )


jit_tick = jax.jit(tick, static_argnums=0, donate_argnums=2)
jit_init_tick = jax.jit(init_tick, static_argnums=(0, 2, 3, 4))


@partial(jax.jit, static_argnums=0, donate_argnums=2)
def scan_ticks(
    config: TickConfig,
    weights: Weights,
    state: TickState,
    samples: Float[Array, "T B N"],
    exec_mask: Bool[Array, "T B"],
) -> tuple[TickState, TickOutput]:
    """`tick` over T frames in one program; the outputs have a leading T."""

    def body(carry: TickState, frame: tuple[Array, Array]) -> tuple[TickState, TickOutput]:
        return tick(config, weights, carry, *frame)

    return jax.lax.scan(body, state, (samples, exec_mask))
