"""What every task draws on: the configuration, one split of the corpus, the vocabulary and the assistant's codes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float

from omni_jax import sound_frames
from omni_jax.config import Config
from omni_jax.errors import UserError
from omni_jax.input_pipeline import augment, features
from omni_jax.input_pipeline.chat_template import ChatTemplate, load_chat_template
from omni_jax.input_pipeline.codes import CodeCache
from omni_jax.input_pipeline.corpus import (
    SPLITS,
    Picture,
    Source,
    SpeechClip,
    load_crowd,
    load_pictures,
    load_speech,
    load_text,
)
from omni_jax.input_pipeline.phones import phone_inventory
from omni_jax.input_pipeline.readers.sources import OwnSources
from omni_jax.input_pipeline.records import Quarantine
from omni_jax.input_pipeline.timeline import Example
from omni_jax.input_pipeline.tokenizer import Tokenizer, load_tokenizer
from omni_jax.sound_frames import Variation
from omni_jax.types import FRAME_LISTEN_SAMPLES, LISTEN_SAMPLE_RATE_HZ, MEL_FRAMES_PER_SLOT, WHISPER_FRAMES_PER_SLOT


@dataclass(frozen=True)
class TaskSource:
    """`build(key, rng)` makes examples of thing `key`, 0 <= key < num_keys; the same arguments, the same examples.

    One example; or several, of a thing that is longer than a row, in order; or none, of a record that was set aside.
    """

    num_keys: int
    build: Callable[[int, np.random.Generator], Example | Sequence[Example]]


@dataclass(frozen=True)
class Materials:
    """One split; loaded when first asked for and shared by all tasks. Only `train` is augmented."""

    config: Config
    source: Source
    split: str
    tokenizer: Tokenizer
    codes: CodeCache | None = None

    @property
    def augmented(self) -> bool:
        return self.split == "train"

    def speech(self, role: str) -> list[SpeechClip]:
        """The split's clips of "user" or "assistant" at 16 kHz, in training with the crowd of a corpus that has one."""
        clips = load_speech(self.source, self.split, LISTEN_SAMPLE_RATE_HZ)
        if self.split == "train" and self.source.part("crowd").is_dir():
            clips += load_crowd(self.source, LISTEN_SAMPLE_RATE_HZ)
        return [clip for clip in clips if clip.role == role]

    def assistant(self) -> list[SpeechClip]:
        """Every clip of the assistant that users of a split can get to hear; held-out users ask known things too."""
        splits = ("train",) if self.split == "train" else SPLITS
        clips = [clip for split in splits for clip in load_speech(self.source, split, LISTEN_SAMPLE_RATE_HZ)]
        return [clip for clip in clips if clip.role == "assistant"]

    def replies(self) -> list[SpeechClip]:
        """Those of them that can be put on a stage: with codes and word times."""
        return [clip for clip in self.assistant() if clip.words and clip.id in self.speech_codes.clips]

    @cached_property
    def phone_ids(self) -> dict[str, int]:
        """Phone -> id of the training split, the same for every split; own sources have none."""
        if self.config.data.sources:
            return {}
        clips = load_speech(self.source, "train", LISTEN_SAMPLE_RATE_HZ)
        return phone_inventory(clips, self.config.model.audio.num_phones)

    @cached_property
    def own(self) -> OwnSources:
        """What `data.sources` names."""
        return own_sources(self.config, self.source)

    @cached_property
    def chat_template(self) -> ChatTemplate | None:
        """How a published model has its chats; None for a vocabulary of this project's."""
        return load_chat_template(self.config.data.tokenizer) if self.tokenizer.published else None

    def pictures(self) -> tuple[Picture, ...]:
        return load_pictures(self.source, self.split)

    def text(self) -> tuple[str, ...]:
        return load_text(self.source, self.split)

    @property
    def speech_codes(self) -> CodeCache:
        if self.codes is None:
            raise UserError("tasks with own speech need the codec's codes: set training.codec_from to a codec workdir")
        return self.codes

    def draw_variation(
        self, wav: Float[np.ndarray, "N"], rng: np.random.Generator, *, masked: bool
    ) -> Variation | None:
        """How the log-mel of this audio varies in training; None where nothing does."""
        if not self.augmented:
            return None
        num_frames = -(-len(wav) // FRAME_LISTEN_SAMPLES) * MEL_FRAMES_PER_SLOT
        return augment.draw_variation(rng, num_frames, self.config.model.audio.num_mels, masked)

    def log_mel(
        self, wav: Float[np.ndarray, "N"], variation: Variation | None = None
    ) -> Float[np.ndarray, "A8 M"] | Float[np.ndarray, "A8 V"]:
        """Of 16 kHz audio; or its samples, where `data.log_mel` leaves the rest to the step."""
        if self.config.data.log_mel == "step":
            return sound_frames.pack(wav, variation)
        mel = features.log_mel(wav, self.config.model.audio)
        return mel if variation is None else augment.vary_mel(mel, variation)

    @property
    def longest_slots(self) -> int:
        """What a pool has room for, and the audio encoder hears at once."""
        data, tower = self.config.data, self.config.model.audio.tower
        room = data.audio_slots * data.rows_per_pool
        return room if tower is None else min(room, tower.num_positions // WHISPER_FRAMES_PER_SLOT)


def load_materials(
    config: Config, split: str, codes: CodeCache | None = None, workdir: str | Path | None = None
) -> Materials:
    """Bad records are written to `workdir`/quarantine.jsonl where a workdir is given."""
    tokenizer = load_tokenizer(config.data.tokenizer, config.model.vocab_size)
    return Materials(config, corpus_source(config, workdir), split, tokenizer, codes)


def corpus_source(config: Config, workdir: str | Path | None = None) -> Source:
    data = config.data
    path = None if workdir is None else str(Path(workdir) / "quarantine.jsonl")
    return Source(data.corpus, data.max_bad_fraction, path)


def own_sources(config: Config, source: Source) -> OwnSources:
    """`data.sources`, with the quarantine that the corpus would have had."""
    return OwnSources(config.data.sources, Quarantine(source.max_bad_fraction, source.quarantine_path))
