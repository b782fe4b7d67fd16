"""What the metric families read: one held-out call, and what the model said in it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from omni_jax.types import FRAME_LISTEN_SAMPLES, LISTEN_SAMPLE_RATE_HZ

FRAME_MS = 1000 * FRAME_LISTEN_SAMPLES / LISTEN_SAMPLE_RATE_HZ


class Call(NamedTuple):
    """One held-out call, as the metrics see it. Times in milliseconds from the start of `user_wav`."""

    kind: str  # picture | fact | repeat | interruption | backchannel | noise | side_talk | pause
    user_wav: Float[np.ndarray, " N"]  # 16 kHz
    picture: Float[np.ndarray, "H W 3"] | None
    question: str  # what the user says, as text
    expected: str  # the reply that answers it
    label: str  # the class in the picture or the answer word of a fact; "" where there is none
    factors: dict[str, str]  # bootstrap factors: picture, voice, question; second and second_voice of `second_wav`
    target_wav: Float[np.ndarray, " N"] | None = None  # the assistant's recording of `expected`, 24 kHz
    second_wav: Float[np.ndarray, " N"] | None = None  # 16 kHz: said while the assistant speaks
    second_text: str = ""  # its words, or what it is
    identified_ms: float = 0.0  # when the interrupting word is identifiable, from the start of `second_wav`
    pauses_ms: tuple[tuple[float, float], ...] = ()  # silences inside the user's turn


class Reply(NamedTuple):
    """What the model said in one call; frame i answers the user's frame i, which is complete at (i + 1) 80 ms."""

    text_ids: Int[np.ndarray, " T"]  # the text stream, control tokens included
    text: str  # its words
    heard_wav: Float[np.ndarray, " N"]  # 24 kHz on the call's clock: 80 ms of silence, then every frame's output
    turn: Float[np.ndarray, "T R"]  # probabilities of TurnState, TURN_DELAY_FRAMES before
