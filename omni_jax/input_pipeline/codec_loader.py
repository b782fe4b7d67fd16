"""What the codec is trained on: crops of 24 kHz speech of every voice, with the phones that sound in them."""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import soxr
from jaxtyping import Float, Int, Int16

from omni_jax.config import Config
from omni_jax.errors import UserError
from omni_jax.input_pipeline.corpus import Source, Span, SpeechClip, load_readings, load_speech
from omni_jax.input_pipeline.decode import decode_audio
from omni_jax.input_pipeline.phones import phone_inventory, phone_track
from omni_jax.input_pipeline.readers.record import Record
from omni_jax.input_pipeline.readers.sources import OwnSources
from omni_jax.types import ABSENT, SPEECH_SAMPLE_RATE_HZ

PHONE_RATE_HZ = 50
GAIN_DB = (-12.0, 4.0)


class CodecBatch(NamedTuple):
    wav: Float[np.ndarray, "B N"]  # 24 kHz, or the recipe's rate
    phones: Int[np.ndarray, "B U"]  # at 50 Hz, whole frames; ABSENT where the clip was not aligned


@runtime_checkable
class Crops(Protocol):
    """`crop(key, rng)` is one crop (without batch axis) of clip `key`, 0 <= key < num_clips."""

    num_clips: int

    def crop(self, key: int, rng: np.random.Generator) -> CodecBatch: ...


class OwnCrops:
    """Crops of whatever has audio in `data.sources`; nothing is known of phones. Bad records are replaced."""

    def __init__(self, config: Config, own: OwnSources, split: str):
        recipe = config.recipe
        self._own, self._rate_hz = own, recipe.sample_rate_hz if recipe else SPEECH_SAMPLE_RATE_HZ
        self._num_samples = (recipe or config.codec_training).segment_samples
        self._speed_range = 0.0 if recipe else config.codec_training.speed_range
        self._keys = own.keys([frozenset(["audio"])], frozenset(), split)
        self.num_clips = len(self._keys)
        if not self.num_clips:
            raise UserError(f"stage codec needs examples with audio in data.sources: {own.describe()}")

    def crop(self, key: int, rng: np.random.Generator) -> CodecBatch:
        return self._own.usable(self._keys, key, rng, self._crop)

    def _crop(self, record: Record, rng: np.random.Generator) -> CodecBatch:
        speed = draw_speed(self._speed_range, rng)
        wav, _ = draw_crop(decode_audio(record.audio, self._rate_hz), math.ceil(self._num_samples * speed), rng)
        wav = at_speed(wav, speed, self._num_samples)
        return CodecBatch(wav, np.full(num_phone_frames(self._num_samples, self._rate_hz), ABSENT, np.int32))


class CodecCrops:
    """Cuts crops of `codec_training.segment_samples`, or the recipe's; a shorter clip is surrounded by silence.

    Phone 0 is silence inside and around aligned clips; the others are numbered by frequency in the training split; the
    rarest are left out (ABSENT) where there are more than `num_phones`.
    """

    def __init__(self, config: Config, source: Source, split: str):
        recipe = config.recipe
        self._rate_hz = recipe.sample_rate_hz if recipe else SPEECH_SAMPLE_RATE_HZ
        self._num_samples = (recipe or config.codec_training).segment_samples
        self._speed_range = 0.0 if recipe else config.codec_training.speed_range
        self._clips = load_speech(source, split, self._rate_hz)
        if split == "train" and config.codec_training.readings:
            self._clips += load_readings(source, self._rate_hz)
        train = load_speech(source, "train", SPEECH_SAMPLE_RATE_HZ)
        self.phone_ids = phone_inventory(train, (recipe or config.codec).num_phones)

    @property
    def num_clips(self) -> int:
        return len(self._clips)

    def crop(self, key: int, rng: np.random.Generator) -> CodecBatch:
        """One crop (without batch axis) of clip `key`, at a random gain, maybe played faster or slower."""
        clip = self._clips[key]
        speed = draw_speed(self._speed_range, rng)
        wav, start = draw_crop(clip.samples, math.ceil(self._num_samples * speed), rng)
        return CodecBatch(at_speed(wav, speed, self._num_samples), self._phones(clip, start, speed))

    def _phones(self, clip: SpeechClip, start: int, speed: float) -> Int[np.ndarray, "U"]:
        count = num_phone_frames(self._num_samples, self._rate_hz)
        phones = [Span(p.text, p.start_ms / speed, p.end_ms / speed) for p in clip.phones]
        return phone_track(phones, count, -1000.0 * start / (self._rate_hz * speed), self.phone_ids)


def num_phone_frames(num_samples: int, sample_rate_hz: int) -> int:
    return num_samples * PHONE_RATE_HZ // sample_rate_hz


def draw_speed(log_range: float, rng: np.random.Generator) -> float:
    """1 for half of the crops, and for all where `log_range` is 0, which draws nothing."""
    if not log_range or rng.random() < 0.5:
        return 1.0
    return float(np.exp(rng.uniform(-log_range, log_range)))


def at_speed(wav: Float[np.ndarray, " N"], speed: float, num_samples: int) -> Float[np.ndarray, " M"]:
    """The first `num_samples` of `wav` played `speed` times faster, pitch and all, as another speaker would sound."""
    if speed == 1.0:
        return wav[:num_samples]
    played = soxr.resample(wav, SPEECH_SAMPLE_RATE_HZ * speed, SPEECH_SAMPLE_RATE_HZ, quality="MQ")[:num_samples]
    return np.clip(np.pad(played, (0, num_samples - len(played))), -1.0, 1.0)


def draw_crop(
    samples: Int16[np.ndarray, " N"] | Float[np.ndarray, " N"], num_samples: int, rng: np.random.Generator
) -> tuple[Float[np.ndarray, " M"], int]:
    """A stretch of a clip at a random gain, and where it starts; a shorter clip is surrounded by silence."""
    spare = len(samples) - num_samples
    start = int(rng.integers(min(spare, 0), max(spare, 0) + 1))  # negative: silence before a short clip
    wav = np.zeros(num_samples, np.float32)
    part = samples[max(start, 0) : max(start, 0) + num_samples].astype(np.float32)
    wav[max(-start, 0) : max(-start, 0) + len(part)] = part / 32768.0 if samples.dtype == np.int16 else part
    gain = np.float32(10.0 ** (rng.uniform(*GAIN_DB) / 20.0))
    return np.clip(wav * gain, -1.0, 1.0), start
