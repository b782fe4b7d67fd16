"""One question, one answer: streams a recording into a session and goes on with silence until the reply has ended."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from omni_jax.streaming.latency import first_audible_seconds, last_voiced_seconds
from omni_jax.streaming.session import FrameResult, Session
from omni_jax.streaming.vad import speech_spans
from omni_jax.types import FRAME_LISTEN_SAMPLES, FRAME_RATE_HZ, FRAME_SPEECH_SAMPLES

QUIET_CONTROLS = ("LISTEN", "END_OF_TURN", "INTERRUPT")
_AFTER_REPLY_FRAMES = 8  # the acoustic delay, the codec's tail and some air
_NO_REPLY_FRAMES = 50  # 4 s without a reply after the recording


def stream_call(
    session: Session, user_wav: Float[np.ndarray, " N"], max_seconds: float, realtime: bool = False
) -> Iterator[FrameResult]:
    """Yields each 80 ms frame as it is computed.

    After the recording the user is silent. The call ends 0.64 s after the end of a reply that is over once the
    recording is, after 4 s without any reply, or at `max_seconds` of the whole call. `realtime` waits for each frame
    as a microphone would.
    """
    recording_frames = -(-len(user_wav) // FRAME_LISTEN_SAMPLES)
    padded = np.zeros(recording_frames * FRAME_LISTEN_SAMPLES, np.float32)
    padded[: len(user_wav)] = user_wav
    silence = np.zeros(FRAME_LISTEN_SAMPLES, np.float32)
    question_end = round((last_voiced_seconds(user_wav) or 0.0) * FRAME_RATE_HZ)
    quiet_frames, replied = 0, False
    start = time.perf_counter()
    for index in range(int(max_seconds * FRAME_RATE_HZ)):
        in_recording = index < recording_frames
        if realtime:
            time.sleep(max(0.0, start + (index + 1) / FRAME_RATE_HZ - time.perf_counter()))
        piece = slice(index * FRAME_LISTEN_SAMPLES, (index + 1) * FRAME_LISTEN_SAMPLES)
        result = session.push(padded[piece] if in_recording else silence)
        yield result
        speaking = result.control not in QUIET_CONTROLS
        replied = replied or (speaking and index >= question_end)
        quiet_frames = 0 if speaking or in_recording else quiet_frames + 1
        if quiet_frames >= (_AFTER_REPLY_FRAMES if replied else _NO_REPLY_FRAMES):
            return


class CallReport(NamedTuple):
    speech: Float[np.ndarray, " N"]  # 24 kHz on the call's clock: 80 ms of silence, then every frame's output
    text: str
    seconds: float  # length of the call
    real_time_factor: float  # computing time over call time
    slowest_frame_seconds: float
    heard_user: list[tuple[float, float]]  # start and end in seconds of the user's speech, by TurnHead
    first_audio_seconds: float | None  # last voiced user sample to first audible output, played in real time


def summarise(results: list[FrameResult], user_wav: Float[np.ndarray, " N"]) -> CallReport:
    """What came of a call. Latency is None where the user or the model was never audible."""
    speech = np.concatenate([result.samples for result in results])
    compute = [result.seconds for result in results]
    question_end = last_voiced_seconds(user_wav)
    first = first_audible_seconds(speech, compute)
    latency = None if question_end is None or first is None else first - question_end
    seconds = len(results) / FRAME_RATE_HZ
    on_clock = np.pad(speech, (FRAME_SPEECH_SAMPLES, 0))  # a frame is answered when it is complete
    text = "".join(result.text_piece for result in results).strip()
    spans = speech_spans(result.vad for result in results)
    heard_user = [(start / FRAME_RATE_HZ, end / FRAME_RATE_HZ) for start, end in spans]
    return CallReport(on_clock, text, seconds, sum(compute) / seconds, max(compute), heard_user, latency)
