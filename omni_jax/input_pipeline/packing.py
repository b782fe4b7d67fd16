"""Rows of T positions from examples: the best fill from those that wait, within every budget of the row and its pool.

A row never splits an example, and an example's media lie in the pool of its own row's group, so attention, convolutions
and gathers never cross a segment.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from omni_jax import sound_frames
from omni_jax.config import Config
from omni_jax.input_pipeline.timeline import Example, nothing
from omni_jax.types import ABSENT, MEL_FRAMES_PER_SLOT, PHONES_PER_SLOT, Batch, Media, Timeline

PATCHES_PER_POOLED = 4
MAX_TAG_PIECES = 4


@dataclass(frozen=True)
class Budget:
    """What a batch, or a part of it, can hold; slots, patches and segments are shared by the rows of one pool."""

    rows: int
    positions: int
    rows_per_pool: int
    slots: int
    patches: int
    segments: int
    labels: int
    speech_positions: int
    num_codebooks: int
    mel_values: int  # of a frame: mel bins, or samples
    patch_values: int

    @classmethod
    def from_config(cls, config: Config) -> Budget:
        data, group = config.data, config.data.rows_per_pool
        return cls(
            rows=data.rows,
            positions=data.row_positions,
            rows_per_pool=group,
            slots=data.audio_slots * group,
            patches=data.patches * group,
            segments=data.max_segments * group,
            labels=data.max_labels,
            speech_positions=data.speech_positions,
            num_codebooks=config.model.num_codebooks,
            mel_values=_mel_values(config),
            patch_values=0 if data.written_media else 3 * config.model.vision.patch_size**2,
        )

    @property
    def num_pools(self) -> int:
        return self.rows // self.rows_per_pool

    def of_rows(self, rows: int) -> Budget:
        """The same budget for some of the rows."""
        return dataclasses.replace(self, rows=rows)

    def ever_fits(self, example: Example) -> bool:
        return (
            example.num_positions <= self.positions
            and example.num_slots <= self.slots
            and example.num_patches <= self.patches
        )

    def truncates(self, example: Example) -> bool:
        """Whether something of it is left out for want of room."""
        return example.is_cut or len(example.labels) > self.labels or len(example.tags) > MAX_TAG_PIECES


def _mel_values(config: Config) -> int:
    if config.data.written_media:
        return 0
    return sound_frames.VALUES if config.data.log_mel == "step" else config.model.audio.num_mels


class _Pool:
    """What is left of a pool: slots and patches, none of them where its segments are used up."""

    def __init__(self, budget: Budget):
        self.audio_segments = self.picture_segments = budget.segments
        self.slots = budget.slots if budget.segments else 0
        self.patches = budget.patches if budget.segments else 0

    def take(self, example: Example) -> None:
        self.audio_segments -= example.num_slots > 0
        self.picture_segments -= example.num_patches > 0
        self.slots = self.slots - example.num_slots if self.audio_segments else 0
        self.patches = self.patches - example.num_patches if self.picture_segments else 0


class Packer:
    """Which example lies in which row of one batch, within every budget."""

    def __init__(self, budget: Budget):
        self.budget = budget
        self.rows: list[list[Example]] = [[] for _ in range(budget.rows)]
        self.free = [budget.positions] * budget.rows
        self._pools = [_Pool(budget) for _ in range(budget.num_pools)]

    def add(self, example: Example, row: int) -> bool:
        """Whether there was room."""
        pool = self._pools[row // self.budget.rows_per_pool]
        if (
            example.num_patches > pool.patches
            or example.num_slots > pool.slots
            or example.num_positions > self.free[row]
        ):
            return False
        self.rows[row].append(example)
        self.free[row] -= example.num_positions
        pool.take(example)
        return True

    def fill(self, row: int, waiting: Sequence[Example]) -> set[int]:
        """Adds to a row what fills it best; returns which of `waiting` that was. The first one goes in if it can."""
        pool = self._pools[row // self.budget.rows_per_pool]
        added = {0} if waiting and self.add(waiting[0], row) else set()
        while True:
            positions, slots, patches = self.free[row], pool.slots, pool.patches
            room = [
                index
                for index, example in enumerate(waiting)
                if example.num_positions <= positions
                and example.num_slots <= slots
                and example.num_patches <= patches
                and index not in added
            ]
            chosen = best_fill([waiting[i].num_positions for i in room], positions)
            # Each fits alone; those that exceed the pool's media together leave room for others.
            new = {room[i] for i in chosen if self.add(waiting[room[i]], row)}
            added |= new
            if not new:
                return added


def best_fill(sizes: Sequence[int], room: int) -> list[int]:
    """Indices of items that add up to as much of `room` as they can; of equal sums the one with earlier items."""
    within = (1 << (room + 1)) - 1
    sums = [1]  # bit n of sums[i]: the last i items can add up to n
    for size in reversed(sizes):
        sums.append((sums[-1] | sums[-1] << size) & within)
    left, chosen = sums[-1].bit_length() - 1, []
    for index, size in enumerate(sizes):
        if left >= size and sums[len(sizes) - index - 1] >> (left - size) & 1:
            chosen.append(index)
            left -= size
    return chosen


class Packed(NamedTuple):
    """The rows of one part of a batch; `seed` chooses the speech positions where there are too many."""

    packer: Packer
    seed: Sequence[int] = (0,)


def assemble(packer: Packer) -> Batch:
    """The numpy batch of what one packer holds."""
    return assemble_parts([Packed(packer)])


def assemble_parts(parts: Sequence[Packed]) -> Batch:
    """The numpy batch of packers with equal budgets, one after the other: what they hold is copied once."""
    budget = parts[0].packer.budget
    budget = budget.of_rows(budget.rows * len(parts))
    timeline, media = _empty_timeline(budget), _empty_media(budget)
    task = np.zeros((budget.rows, budget.positions), np.int32)
    rows = [examples for packer, _ in parts for examples in packer.rows]
    for pool in range(budget.num_pools):
        filler = _PoolFiller(budget, media, pool)
        for row in range(pool * budget.rows_per_pool, (pool + 1) * budget.rows_per_pool):
            _write_row(rows[row], timeline, task, row, filler)
        filler.clear_the_rest()
    weights = np.split(timeline.codes_weight, len(parts))
    speech = [
        _speech_positions(part, budget.speech_positions, seed) for part, (_, seed) in zip(weights, parts, strict=True)
    ]
    return Batch(timeline, media, np.concatenate(speech), task)


def _write_row(examples: Sequence[Example], timeline: Timeline, task: np.ndarray, row: int, pool: _PoolFiller) -> None:
    start = 0
    for segment, example in enumerate(examples, start=1):
        part = slice(start, start + example.num_positions)
        slot_offset, patch_offset = pool.add(example)
        for name, values in example.fields.items():
            getattr(timeline, name)[row, part] = values
        for name, offset in (("audio_index", slot_offset), ("patch_index", patch_offset)):
            if offset and name in example.fields:
                indices = getattr(timeline, name)[row, part]
                indices[indices >= 0] += offset
        timeline.segment_ids[row, part] = segment
        task[row, part] = example.task
        start = part.stop


class _PoolFiller:
    """Appends media to one pool and returns where they went."""

    def __init__(self, budget: Budget, media: Media, pool: int):
        self._budget, self._media, self._pool = budget, media, pool
        self._slots = self._patches = self._audio_segments = self._picture_segments = 0

    def add(self, example: Example) -> tuple[int, int]:
        media, pool = self._media, self._pool
        slot, patch = self._slots, self._patches
        if example.num_slots:
            part = slice(slot * MEL_FRAMES_PER_SLOT, (slot + example.num_slots) * MEL_FRAMES_PER_SLOT)
            media.mel[pool, part] = example.mel[:, : self._budget.mel_values]
            self._slots += example.num_slots
            self._audio_segments += 1
            media.mel_segment_ids[pool, slot : self._slots] = self._audio_segments
            if example.phones is not None:
                media.phones[pool, slot * PHONES_PER_SLOT : self._slots * PHONES_PER_SLOT] = example.phones
            if example.words is not None:
                media.words[pool, slot : self._slots] = example.words
            if 0 < len(example.labels) <= self._budget.labels:
                media.ctc_labels[pool, self._audio_segments - 1, : len(example.labels)] = example.labels
                media.ctc_weight[pool, self._audio_segments - 1] = 1.0
        if example.num_patches:
            self._patches += example.num_patches
            self._picture_segments += 1
            tags = example.tags[:MAX_TAG_PIECES]
            media.tags[pool, self._picture_segments - 1, : len(tags)] = tags
            media.patches[pool, patch : self._patches] = example.patches[:, : self._budget.patch_values]
            media.patch_positions[pool, patch : self._patches] = example.patch_positions
            filled = example.patch_positions[:, 0] >= 0
            media.patch_segment_ids[pool, patch : self._patches] = self._picture_segments * filled
        return slot, patch // PATCHES_PER_POOLED

    def clear_the_rest(self) -> None:
        """What no example has filled: sound and pixels alone, because clearing them costs as much as copying."""
        self._media.mel[self._pool, self._slots * MEL_FRAMES_PER_SLOT :] = 0.0
        self._media.patches[self._pool, self._patches :] = 0.0


def _speech_positions(codes_weight: np.ndarray, count: int, seed: Sequence[int]) -> np.ndarray:
    """Up to `count` positions a row with code targets, drawn by their weight without replacement, in order."""
    chosen = np.full((len(codes_weight), count), ABSENT, np.int32)
    rng = None  # making one takes as long as packing a row
    for row, weight in enumerate(codes_weight.max(-1) if count else ()):
        positions = np.flatnonzero(weight)
        if len(positions) > count:
            rng = rng or np.random.default_rng(seed)
            keys = rng.random(len(positions)) ** (1.0 / weight[positions])
            positions = np.sort(positions[np.argsort(-keys)[:count]])
        chosen[row, : len(positions)] = positions
    return chosen


def _empty_timeline(budget: Budget) -> Timeline:
    shape = (budget.rows, budget.positions)
    return Timeline(**{name: nothing(name, shape, budget.num_codebooks) for name in Timeline._fields})


def _empty_media(budget: Budget) -> Media:
    """Nothing, but for sound and pixels, which hold what the memory did."""
    pools = budget.num_pools
    return Media(
        mel=np.empty((pools, budget.slots * MEL_FRAMES_PER_SLOT, budget.mel_values), np.float32),
        mel_segment_ids=np.zeros((pools, budget.slots), np.int32),
        patches=np.empty((pools, budget.patches, budget.patch_values), np.float32),
        patch_positions=np.zeros((pools, budget.patches, 2), np.int32),
        patch_segment_ids=np.zeros((pools, budget.patches), np.int32),
        ctc_labels=np.zeros((pools, budget.segments, budget.labels), np.int32),
        ctc_weight=np.zeros((pools, budget.segments), np.float32),
        tags=np.zeros((pools, budget.segments, MAX_TAG_PIECES), np.int32),
        phones=np.full((pools, budget.slots * PHONES_PER_SLOT), ABSENT, np.int32),
        words=np.full((pools, budget.slots), ABSENT, np.int32),
    )
