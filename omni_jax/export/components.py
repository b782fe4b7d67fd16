"""The parts of the frame as programs of their own, for servers that run them apart; any number of rows at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import export
from jaxtyping import Array, Bool, Float, Int

from omni_jax.export.precision import unpack
from omni_jax.models import codec as codec_model
from omni_jax.models import omni
from omni_jax.models.encoders.conformer import Conformer
from omni_jax.streaming.frontend import init_tail, mel_step
from omni_jax.streaming.tick import TickConfig, Weights
from omni_jax.types import FRAME_LISTEN_SAMPLES, FRAME_SPEECH_SAMPLES


class Program(NamedTuple):
    """`function(**inputs)` returns a dict; `inputs` are pytrees of abstract arrays by name."""

    function: Callable[..., dict[str, Any]]
    inputs: dict[str, Any]


def component_programs(config: TickConfig, weights: Weights) -> dict[str, Program]:
    """hear (80 ms to an audio slot), encode (80 ms to codes), decode (codes to 80 ms), and NAME_start for each.

    `weights`: as they are stored, as ShapeDtypeStructs. The batch axis is symbolic; a start takes it from `exec_mask`.
    """

    def hear(model: Any, state: Any, samples: Float[Array, "B N"], exec_mask: Bool[Array, " B"]) -> dict[str, Any]:
        whole = omni.bind(config.model, unpack(model))
        tail, mel = mel_step(state["mel_tail"], samples, config.model.audio.num_mels)
        audio, encoded = whole.audio_encoder.step(state["audio"], mel.astype(config.model.compute_dtype), exec_mask)
        tail = jnp.where(exec_mask[:, None], tail, state["mel_tail"])
        return {"state": {"mel_tail": tail, "audio": audio}, "audio": whole.adapt_audio(encoded)[0]}

    def encode(codec: Any, state: Any, wav: Float[Array, "B N"], exec_mask: Bool[Array, " B"]) -> dict[str, Any]:
        state, codes = codec_model.encode_step(config.codec, codec, state, wav, exec_mask)
        return {"state": state, "codes": codes}

    def decode(codec: Any, state: Any, codes: Int[Array, "B 1 Q"], exec_mask: Bool[Array, " B"]) -> dict[str, Any]:
        state, wav = codec_model.decode_step(config.codec, codec, state, codes, exec_mask)
        return {"state": state, "wav": wav}

    (rows,) = export.symbolic_shape("rows")
    mask = {"exec_mask": jax.ShapeDtypeStruct((rows,), jnp.bool_)}
    starts = _starts(config, weights)
    known = {"hear": {"model": weights.model}, "encode": {"codec": weights.codec}, "decode": {"codec": weights.codec}}
    samples, wav = (
        jax.ShapeDtypeStruct((rows, count), jnp.float32) for count in (FRAME_LISTEN_SAMPLES, FRAME_SPEECH_SAMPLES)
    )
    codes = jax.ShapeDtypeStruct((rows, 1, config.codec.num_codebooks), jnp.int32)
    heard = {"hear": {"samples": samples}, "encode": {"wav": wav}, "decode": {"codes": codes}}
    programs = {}
    for name, step in (("hear", hear), ("encode", encode), ("decode", decode)):
        programs[f"{name}_start"] = Program(starts[name], mask)
        programs[name] = Program(step, known[name] | jax.eval_shape(starts[name], **mask) | heard[name] | mask)
    return programs


def _starts(config: TickConfig, weights: Weights) -> dict[str, Callable[..., dict[str, Any]]]:
    """Functions of `exec_mask`, whose length is the number of rows."""
    encoder: Conformer = omni.bind(config.model, jax.eval_shape(unpack, weights.model)).audio_encoder
    dtype = jnp.dtype(config.model.compute_dtype)

    def hear(exec_mask: Bool[Array, " B"]) -> dict[str, Any]:
        rows = exec_mask.shape[0]
        return {"state": {"mel_tail": init_tail(rows), "audio": encoder.init_state(rows, dtype)}}

    def encode(exec_mask: Bool[Array, " B"]) -> dict[str, Any]:
        return {"state": codec_model.init_encode_state(config.codec, exec_mask.shape[0])}

    def decode(exec_mask: Bool[Array, " B"]) -> dict[str, Any]:
        return {"state": codec_model.init_decode_state(config.codec, exec_mask.shape[0])}

    return {"hear": hear, "encode": encode, "decode": decode}
