"""The stage of a dialogue: the user's track, the model's own text and codes, and the labels of every frame.

Labels hold by construction: whoever is put on the stage at a known time also writes what happens in its frames.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from omni_jax.input_pipeline import features
from omni_jax.input_pipeline.corpus import Span
from omni_jax.input_pipeline.monologue import PlacedWord, write_turn
from omni_jax.input_pipeline.utterance import SAMPLES_PER_MS, Utterance
from omni_jax.types import FRAME_LISTEN_SAMPLES, Control, Event, TurnState

FRAME_MS = FRAME_LISTEN_SAMPLES // SAMPLES_PER_MS
SILENT_CODES_WEIGHT = 0.1  # codes under LISTEN
FALL_FRAMES = 2  # the sound of the last word dies away
GAP_FRAMES = 2  # silent frames between the user's last voiced frame and the reply's first: 160 to 240 ms
DECISION_FRAMES = 5  # in the first frames of a pause it could be the end of the turn


class Scene:
    """`num_frames` steps of silence, to be filled. Times are in ms from the start, frames are 80 ms."""

    def __init__(self, num_frames: int, silence: Int[np.ndarray, "Q"]):
        self.num_frames = num_frames
        self.user = np.zeros(num_frames * FRAME_LISTEN_SAMPLES, np.float32)
        self.echo = np.zeros_like(self.user)
        self.text = np.full(num_frames, Control.LISTEN, np.int32)
        self.codes = np.tile(silence, (num_frames, 1))
        self.codes_weight = np.full(num_frames, SILENT_CODES_WEIGHT, np.float32)
        self.user_vad = np.zeros(num_frames, np.int32)
        self.turn_state = np.full(num_frames, TurnState.IDLE, np.int32)
        self.event = np.full(num_frames, Event.NONE, np.int32)
        self.decision = np.zeros(num_frames, bool)  # what the user does could be taken for a reason to start or stop
        self.phones: list[Span] = []  # of all that the user says
        self.words: list[Span] = []
        self.transcript: list[str] = []

    def hear(self, spoken: Utterance, start_ms: int, state: TurnState, gain: float = 1.0) -> int:
        """Puts an utterance of the user on the track; returns the frame of its last voiced sample."""
        start = start_ms * SAMPLES_PER_MS
        self.user[start : start + len(spoken.wav)] += spoken.wav * np.float32(gain)
        first_frame = start // FRAME_LISTEN_SAMPLES
        voiced = features.voiced_frames(np.pad(spoken.wav, (start % FRAME_LISTEN_SAMPLES, 0)))
        voiced[[0, -1]] = True  # an utterance is cut to its voiced part
        last_frame = first_frame + len(voiced) - 1
        frames = slice(first_frame, last_frame + 1)
        self.user_vad[frames] = voiced
        self.turn_state[frames] = state
        if spoken.pause_ms is not None:
            pause = slice(*(int((start_ms + ms) // FRAME_MS) + 1 for ms in spoken.pause_ms))
            silent = np.arange(pause.start, pause.stop)[self.user_vad[pause] == 0]
            self.turn_state[silent] = TurnState.PAUSE
            self.decision[silent[:DECISION_FRAMES]] = True
            self.event[silent[:1]] = Event.PAUSE
        if state in (TurnState.BACKCHANNEL, TurnState.SIDE_TALK):
            self.decision[first_frame : last_frame + 1 + GAP_FRAMES] = True
        self.phones += [Span(p.text, p.start_ms + start_ms, p.end_ms + start_ms) for p in spoken.phones]
        self.words += [Span(w.text, w.start_ms + start_ms, w.end_ms + start_ms) for w in spoken.words]
        self.transcript.append(spoken.clip.text)
        return last_frame

    def say(
        self,
        codes: Int[np.ndarray, "F Q"],
        words: list[PlacedWord],
        start_frame: int,
        end_frame: int,
        stop_frame: int | None = None,
    ) -> None:
        """Puts the assistant's codes at `start_frame` and its words at theirs; `stop_frame` interrupts the words."""
        codes = codes[max(-start_frame, 0) : self.num_frames - start_frame]
        self.codes[max(start_frame, 0) : max(start_frame, 0) + len(codes)] = codes
        write_turn(self.text, words, end_frame, stop_frame)
        end = end_frame if stop_frame is None else stop_frame
        self.codes_weight[words[0].start_frame - 1 : end + FALL_FRAMES] = 1.0

    def cut(self, num_frames: int) -> None:
        """Ends the scene after `num_frames`."""
        self.num_frames = min(num_frames, self.num_frames)
        samples = self.num_frames * FRAME_LISTEN_SAMPLES
        self.user, self.echo = self.user[:samples], self.echo[:samples]
        for name in ("text", "codes", "codes_weight", "user_vad", "turn_state", "event", "decision"):
            setattr(self, name, getattr(self, name)[: self.num_frames])

    def room_ms(self) -> int:
        return self.num_frames * FRAME_MS

    def add_echo(self, wav: Float[np.ndarray, "N"], start_sample: int) -> None:
        part = wav[: max(0, len(self.echo) - start_sample)]
        self.echo[start_sample : start_sample + len(part)] += part
