"""One example as a timeline: positions are laid out from left to right, and the targets are shifted once, at the end.

Position i carries the user's complete frame i and the model's own text and codes of step i; its targets are what the
model says at step i + 1. A builder therefore states for each position what it carries and how much it counts *as a
target*; `Layout.finish` moves both one position to the left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from omni_jax.input_pipeline.tasks import Task
from omni_jax.types import ABSENT, MEL_FRAMES_PER_SLOT, Control, Event, Modality

Array = np.ndarray


@dataclass(frozen=True)
class Example:
    """T positions and their media; the fields are those of `types.Timeline` for one row.

    `audio_index` and `patch_index` count from the example's own first slot and pooled patch.
    """

    task: Task
    fields: dict[str, Array]  # Timeline field -> [T, ...]
    mel: Float[Array, "A8 M"]
    patches: Float[Array, "P X"]
    patch_positions: Int[Array, "P 2"]
    labels: tuple[int, ...] = ()  # CTC targets of the audio; empty where there is no transcript
    phones: Int[Array, " A4"] | None = None  # at 50 Hz; None where there are no timings
    words: Int[Array, "A"] | None = None  # pieces by slot; None where there are no timings
    tags: tuple[int, ...] = ()  # pieces that name the picture

    @property
    def num_positions(self) -> int:
        return len(self.fields["text"])

    @property
    def num_slots(self) -> int:
        return len(self.mel) // MEL_FRAMES_PER_SLOT


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


class Layout:
    """Collects the positions of one example. `time` is the TM-RoPE time of the next position (arXiv:2509.17765)."""

    def __init__(self, task: Task, num_codebooks: int):
        self._task = task
        self._num_codebooks = num_codebooks
        self._chunks: list[dict[str, Array]] = []
        self._mel: list[Array] = []
        self._num_slots = 0
        self._patches = (np.zeros((0, 0), np.float32), np.zeros((0, 2), np.int32))
        self.time = 0

    def text(self, ids: Sequence[int], weight: float = 0.0) -> Layout:
        """Text alone, each token counting `weight` as a target."""
        if len(ids):
            chunk = self._chunk(len(ids), Modality.TEXT)
            chunk["text"][:] = ids
            chunk["text_weight"][:] = weight
        return self

    def picture(self, patches: Float[Array, "P X"], patch_positions: Int[Array, "P 2"]) -> Layout:
        """The IMAGE token and a block of pooled patches, which share one step of the time axis."""
        pooled = patch_positions[::4] // 2
        chunk = self._chunk(1 + len(pooled), Modality.PATCH)
        chunk["modality"][0] = Modality.TEXT
        chunk["text"][0] = Control.IMAGE
        chunk["patch_index"][1:] = np.arange(len(pooled))
        start = chunk["position_ids"][0, 0]
        chunk["position_ids"][1:, 0] = start
        chunk["position_ids"][1:, 1:] = start + pooled
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
        chunk = self._chunk(num_slots, Modality.AUDIO)
        chunk["audio_index"][:] = self._num_slots + np.arange(num_slots)
        self._add_mel(mel)
        return self

    def unplaced_audio(self, mel: Float[Array, "A8 M"]) -> Layout:
        """Audio that no position carries: only the encoder's own losses see it."""
        self._add_mel(mel)
        return self

    def frames(self, frames: Frames, mel: Float[Array, "F8 M"] | None, modality: Modality = Modality.FRAME) -> Layout:
        """Steps of the frame grid (or own speech alone, with modality SPEECH)."""
        num_frames = len(frames.text)
        chunk = self._chunk(num_frames, modality)
        chunk["text"][:] = frames.text
        chunk["text_weight"][:] = frames.text_weight
        if frames.codes is not None:
            chunk["codes"][:] = frames.codes
            chunk["codes_weight"][:] = frames.codes_weight[:, None] * (frames.codes >= 0)
        for name in ("user_vad", "turn_state", "event"):
            if getattr(frames, name) is not None:
                chunk[name][:] = getattr(frames, name)
        if mel is not None:
            chunk["audio_index"][:] = self._num_slots + np.arange(num_frames)
            self._add_mel(mel)
        return self

    def finish(self, labels: Sequence[int] = (), phones: Int[Array, " A4"] | None = None) -> Example:
        """Shifts the targets to the position before; the last position has none."""
        fields = {name: np.concatenate([chunk[name] for chunk in self._chunks]) for name in self._chunks[0]}
        for name in ("text", "codes"):
            fields[f"{name}_target"] = _shift_left(np.maximum(fields[name], 0))
            fields[f"{name}_weight"] = _shift_left(fields[f"{name}_weight"])
        mel = np.concatenate(self._mel) if self._mel else np.zeros((0, 0), np.float32)
        return Example(self._task, fields, mel, *self._patches, tuple(labels), phones)

    def _add_mel(self, mel: Float[Array, "A8 M"]) -> None:
        self._mel.append(mel)
        self._num_slots += len(mel) // MEL_FRAMES_PER_SLOT

    def _chunk(self, length: int, modality: Modality) -> dict[str, Array]:
        absent = np.full((5, length), ABSENT, np.int32)
        time = self.time + np.arange(length, dtype=np.int32)
        chunk = {
            "text": absent[0],
            "text_weight": np.zeros(length, np.float32),
            "codes": np.full((length, self._num_codebooks), ABSENT, np.int32),
            "codes_weight": np.zeros((length, self._num_codebooks), np.float32),
            "audio_index": absent[1],
            "patch_index": absent[2],
            "modality": np.full(length, modality, np.int32),
            "position_ids": np.repeat(time[:, None], 3, axis=1),
            "user_vad": absent[3],
            "turn_state": absent[4],
            "event": np.full(length, Event.NONE, np.int32),
        }
        self._chunks.append(chunk)
        self.time += length
        return chunk


def _shift_left(values: Array) -> Array:
    return np.concatenate([values[1:], np.zeros_like(values[:1])])
