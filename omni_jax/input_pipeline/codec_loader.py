"""What the codec is trained on: crops of 24 kHz speech of every voice, with the phones that sound in them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from omni_jax.config import Config
from omni_jax.input_pipeline.corpus import Source, SpeechClip, load_speech
from omni_jax.input_pipeline.phones import phone_inventory, phone_track
from omni_jax.types import SPEECH_SAMPLE_RATE_HZ

PHONE_FRAME_SAMPLES = 480  # 50 Hz
GAIN_DB = (-12.0, 4.0)
SAMPLES_PER_MS = SPEECH_SAMPLE_RATE_HZ // 1000


class CodecBatch(NamedTuple):
    wav: Float[np.ndarray, "B N"]  # 24 kHz
    phones: Int[np.ndarray, "B N/480"]  # at 50 Hz; ABSENT where the clip was not aligned


class CodecCrops:
    """Cuts crops of `codec_training.segment_samples`; a shorter clip is surrounded by silence.

    Phone 0 is silence inside and around aligned clips; the others are numbered by frequency in the training split; the
    rarest are left out (ABSENT) where there are more than `codec.num_phones`.
    """

    def __init__(self, config: Config, source: Source, split: str):
        self._clips = load_speech(source, split, SPEECH_SAMPLE_RATE_HZ)
        self._num_samples = config.codec_training.segment_samples
        train = load_speech(source, "train", SPEECH_SAMPLE_RATE_HZ)
        self.phone_ids = phone_inventory(train, config.codec.num_phones)

    @property
    def num_clips(self) -> int:
        return len(self._clips)

    def crop(self, key: int, rng: np.random.Generator) -> CodecBatch:
        """One crop (without batch axis) of clip `key`, at a random gain."""
        clip = self._clips[key]
        spare = len(clip.samples) - self._num_samples
        start = int(rng.integers(min(spare, 0), max(spare, 0) + 1))  # negative: silence before a short clip
        wav = np.zeros(self._num_samples, np.float32)
        part = clip.samples[max(start, 0) : max(start, 0) + self._num_samples].astype(np.float32) / 32768.0
        wav[max(-start, 0) : max(-start, 0) + len(part)] = part
        gain = np.float32(10.0 ** (rng.uniform(*GAIN_DB) / 20.0))
        return CodecBatch(np.clip(wav * gain, -1.0, 1.0), self._phones(clip, start))

    def _phones(self, clip: SpeechClip, start: int) -> Int[np.ndarray, "U"]:
        count = self._num_samples // PHONE_FRAME_SAMPLES
        return phone_track(clip.phones, count, -start / SAMPLES_PER_MS, self.phone_ids)
