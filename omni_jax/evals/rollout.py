"""Runs held-out calls through the streaming model: batches for what is said, one call alone for how long it takes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from omni_jax.config import EvalConfig
from omni_jax.evals.examples import Call, Reply
from omni_jax.export.bundle import Bundle
from omni_jax.models.omni_streaming import Sampling
from omni_jax.streaming.batch_session import BatchFrames, BatchSession
from omni_jax.streaming.transcript import Transcript
from omni_jax.types import FRAME_LISTEN_SAMPLES, FRAME_SPEECH_SAMPLES


def sampling(config: EvalConfig) -> Sampling:
    return Sampling(
        text_temperature=config.text_temperature,
        text_top_k=config.text_top_k,
        audio_temperature=config.audio_temperature,
        audio_top_k=config.audio_top_k,
    )


def run_calls(bundle: Bundle, config: EvalConfig, calls: Sequence[Call]) -> list[Reply]:
    """What the model says in each call; calls are cut or padded with silence to `config.call_frames`.

    A call's result depends on its place in `calls` and on the seed, not on the other calls, so that a second run with
    changed audio is the same up to the change.
    """
    replies: list[Reply] = []
    for first in range(0, len(calls), config.rows):
        group = list(calls[first : first + config.rows])
        pictures = [call.picture for call in group] + [None] * (config.rows - len(group))
        wavs = [whole_call(call.user_wav, config.call_frames) for call in group]
        wavs += [np.zeros(0, np.float32)] * (config.rows - len(group))
        frames = _session(bundle, config, pictures, first).run_offline(wavs)
        replies += [_reply(bundle, frames, row) for row in range(len(group))]
    return replies


def time_calls(bundle: Bundle, config: EvalConfig, calls: Sequence[Call]) -> list[list[float]]:
    """Seconds of every frame's computation of whole calls, one call at a time, compilation excluded."""
    if not calls:
        raise ValueError("time_calls: no calls to time")
    _session(bundle, config, [calls[0].picture], 0).warm_up()
    timed = []
    for index, call in enumerate(calls):
        session = _session(bundle, config, [call.picture], index)
        wav = whole_call(call.user_wav, config.call_frames).reshape(config.call_frames, 1, FRAME_LISTEN_SAMPLES)
        timed.append([session.push(samples).seconds for samples in wav])
    return timed


def whole_call(wav: Float[np.ndarray, " N"], frames: int) -> Float[np.ndarray, " M"]:
    """Cut or padded with silence to `frames` frames of 80 ms at 16 kHz."""
    samples = frames * FRAME_LISTEN_SAMPLES
    return np.pad(wav[:samples], (0, max(0, samples - len(wav)))).astype(np.float32)


def _session(bundle: Bundle, config: EvalConfig, pictures: Sequence[np.ndarray | None], place: int) -> BatchSession:
    return BatchSession(
        bundle.config.model,
        bundle.params,
        bundle.codec_config,
        bundle.codec_params,
        sampling(config),
        pictures,
        seed=config.seed + place,
    )


def _reply(bundle: Bundle, frames: BatchFrames, row: int) -> Reply:
    text_ids = frames.text[:, row]
    heard = np.concatenate([np.zeros(FRAME_SPEECH_SAMPLES, np.float32), frames.speech(row)])
    text = Transcript(bundle.vocabulary()).text(int(token) for token in text_ids)
    return Reply(text_ids, text, heard, frames.turn[:, row])
