"""Examples taken out of packed batches, each with its own media: exactly what the model gets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from omni_jax.input_pipeline.tasks import Task
from omni_jax.types import ABSENT, MEL_FRAMES_PER_SLOT, Batch, Media

# Their media lie in the pool without a position that carries them.
UNPLACED_AUDIO, UNPLACED_PICTURE = (Task.HEAR, Task.READING), (Task.SEE,)


@dataclass(frozen=True)
class Shown:
    """One segment of a batch's row. `fields` are the Timeline's, [T, ...], cut to the segment."""

    task: Task
    fields: dict[str, np.ndarray]
    mel: Float[np.ndarray, "8A M"] | None = None
    patches: Float[np.ndarray, "P X"] | None = None
    patch_positions: Int[np.ndarray, "P 2"] | None = None
    tag: tuple[int, ...] = ()

    @property
    def num_positions(self) -> int:
        return len(self.fields["text"])


def examples_of(batch: Batch) -> Iterator[Shown]:
    """The examples of a batch, row by row. A pool's media lie in the order of its examples."""
    rows, pools = len(batch.timeline.text), len(batch.media.mel_segment_ids)
    audio, pictures = [0] * pools, [0] * pools
    for row in range(rows):
        pool = row * pools // rows
        ids = batch.timeline.segment_ids[row]
        for segment in range(1, ids.max(initial=0) + 1):
            mask = ids == segment
            fields = {name: values[row][mask] for name, values in batch.timeline._asdict().items()}
            task = Task(int(batch.task[row][mask][0]))
            media: dict = {}
            if task in UNPLACED_AUDIO or (fields["audio_index"] != ABSENT).any():
                audio[pool] += 1
                media |= _audio(batch.media, pool, audio[pool])
            if task in UNPLACED_PICTURE or (fields["patch_index"] != ABSENT).any():
                pictures[pool] += 1
                media |= _picture(batch.media, pool, pictures[pool])
            yield Shown(task, fields, **media)


def _audio(media: Media, pool: int, segment: int) -> dict:
    slots = np.repeat(media.mel_segment_ids[pool] == segment, MEL_FRAMES_PER_SLOT)
    return {"mel": media.mel[pool][slots]}


def _picture(media: Media, pool: int, segment: int) -> dict:
    mask = media.patch_segment_ids[pool] == segment
    tag = tuple(int(piece) for piece in media.tags[pool, segment - 1] if piece > 0)
    return {"patches": media.patches[pool][mask], "patch_positions": media.patch_positions[pool][mask], "tag": tag}


def of_every_task(examples: Sequence[Shown], count: int) -> list[Shown]:
    """`count` examples, one of each task in turn, in the order in which they came."""
    by_task: dict[Task, list[Shown]] = {}
    for example in examples:
        by_task.setdefault(example.task, []).append(example)
    chosen: list[Shown] = []
    while len(chosen) < min(count, len(examples)):
        for waiting in by_task.values():
            if waiting and len(chosen) < count:
                chosen.append(waiting.pop(0))
    return chosen
