"""One example as a timeline: positions are laid out from left to right, and the targets are shifted once, at the end.

Position i carries the user's complete frame i and the model's own text and codes of step i; its targets are what the
model says at step i + 1. A builder therefore states for each position what it carries and how much it counts *as a
target*; `Layout.finish` moves both one position to the left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from omni_jax.input_pipeline.tasks import Task
from omni_jax.types import ABSENT, MEL_FRAMES_PER_SLOT, TURN_DELAY_FRAMES, Control, Event, Modality, TurnState

Array = np.ndarray

# What a position has of a field that its example does not carry; arrays are int32 where this is an integer.
NOTHING = {
    "text": ABSENT,
    "text_target": 0,
    "text_weight": 0.0,
    "codes": ABSENT,
    "codes_target": 0,
    "codes_weight": 0.0,
    "audio_index": ABSENT,
    "patch_index": ABSENT,
    "modality": Modality.PADDING,
    "position_ids": 0,
    "segment_ids": 0,
    "user_vad": ABSENT,
    "turn_state": ABSENT,
    "event": Event.NONE,
}


NO_MEL = np.zeros((0, 0), np.float32)
NO_PATCHES = (np.zeros((0, 0), np.float32), np.zeros((0, 2), np.int32))


def nothing(name: str, shape: tuple[int, ...], num_codebooks: int) -> Array:
    """A field of `Timeline` for positions of this shape that carry nothing of it."""
    extra = (num_codebooks,) if name.startswith("codes") else (3,) if name == "position_ids" else ()
    value = NOTHING[name]
    dtype = np.float32 if isinstance(value, float) else np.int32
    made = np.zeros(shape + extra, dtype)
    if value:
        made.fill(value)
    return made


@dataclass(frozen=True)
class Example:
    """T positions and their media; the fields are those of `types.Timeline` for one row that the example carries.

    `audio_index` and `patch_index` count from the example's own first slot and pooled patch.
    """

    task: Task
    fields: dict[str, Array]  # Timeline field -> [T, ...]; the others are NOTHING everywhere
    mel: Float[Array, "A8 M"]
    patches: Float[Array, "P X"]
    patch_positions: Int[Array, "P 2"]
    labels: tuple[int, ...] = ()  # CTC targets of the audio; empty where there is no transcript
    phones: Int[Array, " A4"] | None = None  # at 50 Hz; None where there are no timings
    words: Int[Array, "A"] | None = None  # pieces by slot; None where there are no timings
    tags: tuple[int, ...] = ()  # pieces that name the picture
    is_cut: bool = False  # a part of what it was made from, because a row does not hold more

    @cached_property
    def num_positions(self) -> int:
        return len(self.fields["text"])

    @cached_property
    def num_slots(self) -> int:
        return len(self.mel) // MEL_FRAMES_PER_SLOT

    @cached_property
    def num_patches(self) -> int:
        return len(self.patches)


@dataclass(frozen=True)
class Frames:
    """F steps of the frame grid. Absent tracks are None; weights count the step's own text and codes as targets."""

    text: Int[Array, "F"]
    text_weight: Float[Array, "F"]
    codes: Int[Array, "F Q"] | None = None
    codes_weight: Float[Array, "F"] | None = None
    user_vad: Int[Array, "F"] | None = None
    turn_state: Int[Array, "F"] | None = None
    event: Int[Array, "F"] | None = None


def delay_codes(codes: Int[Array, "F Q"], delay: int) -> Int[Array, "F Q"]:
    """Delays every codebook but the first by `delay` frames; ABSENT before the first frame, cut at the last."""
    delayed = codes.copy()
    if delay:
        delayed[:, 1:] = ABSENT
        delayed[delay:, 1:] = codes[:-delay, 1:]
    return delayed


def delay_states(states: Int[Array, "F"]) -> Int[Array, "F"]:
    """The TurnState that TurnHead is to name in each frame; IDLE before the first, cut at the last."""
    return np.concatenate([np.full(TURN_DELAY_FRAMES, TurnState.IDLE, states.dtype), states])[: len(states)]


class Layout:
    """Collects the positions of one example. `time` is the TM-RoPE time of the next position (arXiv:2509.17765)."""

    def __init__(self, task: Task, num_codebooks: int):
        self._task = task
        self._num_codebooks = num_codebooks
        self._chunks: list[tuple[slice, dict[str, Any]]] = []  # what some positions carry; one value is for all of them
        self._num_positions = 0
        self._mel: list[Array] = []
        self._num_slots = 0
        self._patches = NO_PATCHES
        self.time = 0

    def text(self, ids: Sequence[int], weight: float | Sequence[float] = 0.0) -> Layout:
        """Text alone, each token counting `weight`, or its own of several, as a target."""
        if len(ids):
            chunk = self._chunk(len(ids), Modality.TEXT)
            chunk |= {"text": ids, "text_weight": weight}
        return self

    def picture(self, patches: Float[Array, "P X"], patch_positions: Int[Array, "P 2"]) -> Layout:
        """The IMAGE token and a block of pooled patches, which share one step of the time axis."""
        start = self.time
        self.text([Control.IMAGE])
        pooled = patch_positions[::4]
        pooled = pooled[pooled[:, 0] >= 0] // 2
        time_height_width = np.full((len(pooled), 3), start, np.int32)
        time_height_width[:, 1:] += pooled
        chunk = self._chunk(len(pooled), Modality.PATCH)
        chunk |= {"patch_index": np.arange(len(pooled)), "position_ids": time_height_width}
        self.time = start + 1
        self._patches = (patches, patch_positions)
        return self

    def unplaced_picture(self, patches: Float[Array, "P X"], patch_positions: Int[Array, "P 2"]) -> Layout:
        """A picture that no position carries: only the encoder's own loss sees it."""
        self._patches = (patches, patch_positions)
        return self

    def audio(self, mel: Float[Array, "A8 M"]) -> Layout:
        """Heard audio alone, one position an 80 ms slot."""
        num_slots = len(mel) // MEL_FRAMES_PER_SLOT
        self._chunk(num_slots, Modality.AUDIO)["audio_index"] = self._num_slots + np.arange(num_slots)
        return self.unplaced_audio(mel)

    def unplaced_audio(self, mel: Float[Array, "A8 M"]) -> Layout:
        """Audio that no position carries: only the encoder's own losses see it."""
        self._mel.append(mel)
        self._num_slots += len(mel) // MEL_FRAMES_PER_SLOT
        return self

    def frames(self, frames: Frames, mel: Float[Array, "F8 M"] | None, modality: Modality = Modality.FRAME) -> Layout:
        """Steps of the frame grid (or own speech alone, with modality SPEECH)."""
        num_frames = len(frames.text)
        chunk = self._chunk(num_frames, modality)
        chunk |= {"text": frames.text, "text_weight": frames.text_weight}
        if frames.codes is not None:
            chunk |= {"codes": frames.codes, "codes_weight": frames.codes_weight[:, None] * (frames.codes >= 0)}
        tracks = {name: getattr(frames, name) for name in ("user_vad", "turn_state", "event")}
        chunk |= {name: track for name, track in tracks.items() if track is not None}
        if mel is not None:
            chunk["audio_index"] = self._num_slots + np.arange(num_frames)
            self.unplaced_audio(mel)
        return self

    def finish(self, labels: Sequence[int] = (), phones: Int[Array, " A4"] | None = None) -> Example:
        """Shifts the targets to the position before; the last position has none."""
        fields = {
            name: nothing(name, (self._num_positions,), self._num_codebooks)
            for name in {name: None for _, chunk in self._chunks for name in chunk}
        }
        for part, chunk in self._chunks:
            for name, values in chunk.items():
                fields[name][part] = values
        for name in ("text", "codes"):
            if name in fields:
                fields[f"{name}_target"] = _shift_left(np.maximum(fields[name], 0))
                fields[f"{name}_weight"] = _shift_left(fields[f"{name}_weight"])
        mel = NO_MEL if not self._mel else self._mel[0] if len(self._mel) == 1 else np.concatenate(self._mel)
        return Example(self._task, fields, mel, *self._patches, tuple(labels), phones)

    def _chunk(self, length: int, modality: Modality) -> dict[str, Any]:
        """The next positions, which carry their place in time and nothing else yet."""
        time = np.arange(self.time, self.time + length, dtype=np.int32)
        chunk = {"modality": modality, "position_ids": time[:, None]}
        self._chunks.append((slice(self._num_positions, self._num_positions + length), chunk))
        self._num_positions += length
        self.time += length
        return chunk


def _shift_left(values: Array) -> Array:
    shifted = np.zeros_like(values)
    shifted[:-1] = values[1:]
    return shifted
