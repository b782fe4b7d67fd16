"""The model in real time: explicit state in, one 80 ms frame, explicit state out.

A step takes the user's complete frame together with the text and codes that were chosen for this frame, and chooses
those of the next one. It computes what `omni.apply` computes at the same position.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped

from omni_jax.errors import ConfigError, UserError
from omni_jax.model_config import ModelConfig
from omni_jax.models.encoders.conformer import ConformerState
from omni_jax.models.omni import Omni, Params, bind
from omni_jax.nn.cache import KVCache
from omni_jax.types import ABSENT, Batch, Control, Modality, Timeline

MAX_TEMPERATURE = 10.0
Key = PRNGKeyArray | Shaped[Array, "..."]


@dataclass(frozen=True)
class Sampling:
    """Temperature 0 is greedy; top-k 0 keeps every candidate. Static under `jit`.

    By default as in an evaluation (`EvalConfig`), so that what is measured is what is heard. Raises UserError.
    """

    text_temperature: float = 0.0
    text_top_k: int = 25
    audio_temperature: float = 0.7
    audio_top_k: int = 50

    def __post_init__(self) -> None:
        for name in ("text_temperature", "audio_temperature"):
            if not 0.0 <= getattr(self, name) <= MAX_TEMPERATURE:
                raise UserError(f"--{name}={getattr(self, name)}: want 0 to {MAX_TEMPERATURE:.0f}")


GREEDY = Sampling(audio_temperature=0.0)


class StreamState(NamedTuple):
    """All that a call needs to go on. Rows are independent."""

    audio: ConformerState
    cache: KVCache
    position: Int[Array, "B"]  # TM-RoPE time of the next frame
    text: Int[Array, "B"]  # the model's own text of the next frame; ABSENT before a prefix is read
    codes: Int[Array, "B Q"]  # its codes of the next frame, as emitted


class StepOutput(NamedTuple):
    """What the model says in the next frame, and what it makes of the user in this one."""

    text: Int[Array, "B"]
    codes: Int[Array, "B Q"]  # as emitted: acoustic codebooks belong to `acoustic_delay` frames before codebook 0's
    turn_logits: Float[Array, "B R"]  # of the frame TURN_DELAY_FRAMES before this one
    vad_logits: Float[Array, "B"]


def init_stream(cfg: ModelConfig, params: Params, batch_rows: int, cache_frames: int, prefix_slots: int) -> StreamState:
    """The state before anything was heard: `prefix_slots` pinned positions and a ring of `cache_frames` frames."""
    if cfg.audio.tower is not None:
        raise ConfigError("a published audio encoder hears whole clips, no frames: stream a model with its own")
    model, dtype = bind(cfg, params), jnp.dtype(cfg.compute_dtype)
    return StreamState(
        audio=model.audio_encoder.init_state(batch_rows, dtype),
        cache=model.transformer.init_cache(batch_rows, prefix_slots, cache_frames, dtype),
        position=jnp.zeros((batch_rows,), jnp.int32),
        text=jnp.full((batch_rows,), ABSENT, jnp.int32),
        codes=jnp.full((batch_rows, cfg.num_codebooks), ABSENT, jnp.int32),
    )


def prefill(cfg: ModelConfig, params: Params, state: StreamState, prefix: Batch) -> StreamState:
    """Reads a block of text and pictures into the pinned slots, and chooses the text and codes of the next frame.

    Args:
        prefix: real positions have segment id > 0; a row may have none and is left alone. Position ids count on from
            `state.position`. Audio does not belong into a prefix.

    Raises:
        ConfigError: the block is longer than all pinned slots.
    """
    slots, length = int(state.cache.prefix_slots), prefix.timeline.text.shape[1]
    if length > slots:
        raise ConfigError(f"prefill: a prefix of {length} positions does not fit into prefix_slots={slots}; raise it")
    return read_prefix(cfg, params, state, prefix)


@partial(jax.jit, static_argnums=0)
def read_prefix(cfg: ModelConfig, params: Params, state: StreamState, prefix: Batch) -> StreamState:
    """`prefill` without its check, which needs concrete values: what programs are traced from."""
    model, timeline = bind(cfg, params), prefix.timeline
    real = timeline.segment_ids > 0
    x = model.embed(timeline, None, model.see(prefix.media)[0])
    hidden, cache = model.transformer.extend(x, timeline.position_ids, state.cache, real, pinned=True)
    any_real = jnp.any(real, axis=1)
    last = jnp.max(jnp.where(real, jnp.arange(real.shape[1])[None], 0), axis=1)
    last_hidden = jnp.take_along_axis(hidden, last[:, None, None], axis=1)[:, 0]
    last_time = jnp.take_along_axis(timeline.position_ids[:, :, 0], last[:, None], axis=1)[:, 0]
    text, codes = _choose(model, last_hidden, None, jax.random.key(0), GREEDY)
    return state._replace(
        cache=cache,
        position=jnp.where(any_real, last_time + 1, state.position),
        text=jnp.where(any_real, text, state.text),
        codes=jnp.where(any_real[:, None], codes, state.codes),
    )


@partial(jax.jit, static_argnums=(0, 5))
def step(
    cfg: ModelConfig,
    params: Params,
    state: StreamState,
    mel: Float[Array, "B 8 M"],
    key: Key,
    sampling: Sampling,
    exec_mask: Bool[Array, "B"],
) -> tuple[StreamState, StepOutput]:
    """One frame. Rows outside `exec_mask` keep their state; their outputs mean nothing."""
    model = bind(cfg, params)
    heard, hidden = _listen(model, state, mel, exec_mask)
    text, codes = _choose(model, hidden, state.text, key, sampling)
    vad_logits, turn_logits = model.turn_head(hidden)
    new_state = heard._replace(
        text=jnp.where(exec_mask, text, state.text), codes=jnp.where(exec_mask[:, None], codes, state.codes)
    )
    return new_state, StepOutput(text, codes, turn_logits, vad_logits)


@partial(jax.jit, static_argnums=0)
def turn_step(
    cfg: ModelConfig, params: Params, state: StreamState, mel: Float[Array, "B 8 M"], exec_mask: Bool[Array, "B"]
) -> tuple[StreamState, Float[Array, "B"], Float[Array, "B R"]]:
    """The turn detector alone: (state, voice activity logits, turn logits) of one frame, as `step` has them.

    Nothing is chosen: `state.text` and `state.codes` stay what the model says in this frame, and the caller puts in
    those of the next.
    """
    model = bind(cfg, params)
    heard, hidden = _listen(model, state, mel, exec_mask)
    return heard, *model.turn_head(hidden)


def _listen(
    model: Omni, state: StreamState, mel: Float[Array, "B 8 M"], exec_mask: Bool[Array, "B"]
) -> tuple[StreamState, Float[Array, "B D"]]:
    """The frame through encoder and trunk: the state after it, with its own text and codes, and the hidden state."""
    audio, encoded = model.audio_encoder.step(state.audio, mel.astype(model.cfg.compute_dtype), exec_mask)
    timeline = _frame(model.cfg, state, exec_mask)
    x = model.embed(timeline, model.adapt_audio(encoded)[0], None)
    hidden, cache = model.transformer.extend(x, timeline.position_ids, state.cache, exec_mask[:, None], pinned=False)
    return state._replace(audio=audio, cache=cache, position=state.position + exec_mask), hidden[:, 0]


def _frame(cfg: ModelConfig, state: StreamState, exec_mask: Bool[Array, "B"]) -> Timeline:
    """The one position of this frame; its audio is slot 0 of a pool of one. Targets and labels stay empty."""
    column = state.text[:, None]
    absent, weight = jnp.full_like(column, ABSENT), jnp.zeros(column.shape, jnp.float32)
    # As in training, the delayed codebooks are absent until the first frame's acoustics are due.
    late = (jnp.arange(cfg.num_codebooks) > 0)[None] & (state.cache.frames < cfg.acoustic_delay)[:, None]
    codes = jnp.where(late, ABSENT, state.codes)[:, None]
    return Timeline(
        text=column,
        text_target=absent,
        text_weight=weight,
        codes=codes,
        codes_target=jnp.full_like(codes, ABSENT),
        codes_weight=jnp.zeros(codes.shape, jnp.float32),
        audio_index=jnp.zeros_like(column),
        patch_index=absent,
        modality=jnp.full_like(column, Modality.FRAME),
        position_ids=jnp.repeat(state.position[:, None, None], 3, axis=2),
        segment_ids=exec_mask[:, None].astype(jnp.int32),
        user_vad=absent,
        turn_state=absent,
        event=jnp.zeros_like(column),
    )


def _choose(
    model: Omni, hidden: Float[Array, "B D"], before: Int[Array, "B"] | None, key: Key, sampling: Sampling
) -> tuple[Int[Array, "B"], Int[Array, "B Q"]]:
    """Text first, then the codes that say it. `before` is the text of the frame that has just been heard."""
    text_key, codes_key = jax.random.split(key)
    logits = model.text_logits(hidden)
    if before is not None and model.cfg.inner_monologue:
        logits = jnp.where(_unspeakable(before, logits.shape[-1]), -jnp.inf, logits)
    text = sample(logits, text_key, sampling.text_temperature, sampling.text_top_k)
    choose = partial(sample, temperature=sampling.audio_temperature, top_k=sampling.audio_top_k)
    return text, model.speech_decoder.generate(hidden, text, choose, codes_key)


def _unspeakable(before: Int[Array, "B"], vocab_size: int) -> Bool[Array, "B V"]:
    """After the tokens that announce a word only a word can come, or an interruption.

    Otherwise WAIT, which is one token, wins against words among which the model wavers, and the word is lost.
    """
    announced = jnp.isin(before, jnp.array((Control.SPEAK, Control.EPAD, Control.BACKCHANNEL)))
    pieces = jnp.arange(vocab_size)
    no_word = (pieces <= max(Control)) & (pieces != Control.INTERRUPT)
    return announced[:, None] & no_word[None]


def sample(logits: Float[Array, "B V"], key: Key, temperature: float, top_k: int) -> Int[Array, "B"]:
    """Draws from the `top_k` best candidates at a temperature; the best one at temperature 0."""
    if temperature == 0.0:
        return jnp.argmax(logits, axis=-1)
    if 0 < top_k < logits.shape[-1]:
        best, ids = jax.lax.top_k(logits, top_k)
        chosen = jax.random.categorical(key, best / temperature, axis=-1)
        return jnp.take_along_axis(ids, chosen[:, None], axis=1)[:, 0]
    return jax.random.categorical(key, logits / temperature, axis=-1)
