"""One full-duplex call: 80 ms of the user's audio in, 80 ms of the model's text and speech out."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from omni_jax.codec_config import CodecConfig
from omni_jax.model_config import ModelConfig
from omni_jax.models.omni_streaming import Sampling
from omni_jax.streaming.batch_session import BatchFrames, BatchSession
from omni_jax.streaming.prefix import Picture
from omni_jax.streaming.transcript import PieceVocabulary, Transcript, control_name
from omni_jax.types import FRAME_LISTEN_SAMPLES, TurnState


class FrameResult(NamedTuple):
    """What the model does in one frame. The sampled text alone controls the speech; nothing gates the audio."""

    text_id: int
    text_piece: str  # what this frame adds to the transcript; often empty
    control: str | None  # name of the control token, None for a word piece
    samples: Float[np.ndarray, " N"]  # 1,920 at 24 kHz, `acoustic_delay` frames behind the text
    vad: float  # probability that the user speaks
    turn_state: TurnState  # most likely state of the user, TURN_DELAY_FRAMES before
    seconds: float  # wall time of this frame's computation


class Session:
    """A `BatchSession` of one row with its transcript."""

    def __init__(
        self,
        config: ModelConfig,
        params: Any,
        codec_config: CodecConfig,
        codec_params: Any,
        sampling: Sampling,
        picture: Picture | None = None,
        vocabulary: PieceVocabulary | None = None,
        seed: int = 0,
    ) -> None:
        """`picture`: RGB [H, W, 3] in [0, 1]. Without a vocabulary, pieces read `<id>`."""
        self._batch = BatchSession(config, params, codec_config, codec_params, sampling, [picture], seed=seed)
        self._transcript = Transcript(vocabulary) if vocabulary else None

    def push(self, samples: Float[np.ndarray, " N"]) -> FrameResult:
        """Takes the user's next 1,280 samples at 16 kHz, float in [-1, 1]."""
        samples = np.asarray(samples, np.float32).reshape(-1)
        if len(samples) != FRAME_LISTEN_SAMPLES:
            raise ValueError(f"push: {len(samples)} samples, want {FRAME_LISTEN_SAMPLES} (80 ms at 16 kHz)")
        frames = self._batch.push(samples[None])
        return self._result(BatchFrames(*(field[None] for field in frames[:-1]), frames.seconds), 0, frames.seconds)

    def run_offline(self, user_wav: Float[np.ndarray, " N"]) -> list[FrameResult]:
        """A whole 16 kHz recording through one scanned program; the same results as `push` frame by frame."""
        frames = self._batch.run_offline([user_wav])
        count = len(frames.text)
        return [self._result(frames, index, frames.seconds / count) for index in range(count)]

    def warm_up(self) -> float:
        """Compiles the step; returns the seconds it took."""
        return self._batch.warm_up()

    def _result(self, frames: BatchFrames, index: int, seconds: float) -> FrameResult:
        text_id = int(frames.text[index, 0])
        control = control_name(text_id)
        piece = self._transcript.push(text_id) if self._transcript else ("" if control else f"<{text_id}>")
        return FrameResult(
            text_id=text_id,
            text_piece=piece,
            control=control,
            samples=frames.samples[index, 0],
            vad=float(frames.vad[index, 0]),
            turn_state=TurnState(int(frames.turn[index, 0].argmax())),
            seconds=seconds,
        )
