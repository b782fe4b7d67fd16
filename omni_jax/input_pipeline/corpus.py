"""The talking picture book in memory: speech clips, pictures and text of one split.

Speech is decoded once and kept as int16; pictures are kept as uint8. An hour and a half of speech takes about 250 MB at
24 kHz, and another 170 MB where 16 kHz is asked for too.
"""

from __future__ import annotations

import functools
import io
import itertools
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
import soxr
from jaxtyping import Float, Int16, UInt8
from PIL import Image

from omni_jax.input_pipeline.pauses import cut_samples, excess_silence, moved_ms
from omni_jax.input_pipeline.records import DataError, Features, Quarantine, field, read_examples
from omni_jax.types import SPEECH_SAMPLE_RATE_HZ

VERSION = "1.0.0"
SPLITS = ("train", "test")
PICTURE_REPLY = "{picture}"  # `SpeechClip.reply` where the answer depends on the picture that is shown
MAX_CLIP_SECONDS = 30.0
MAX_PIXELS = 4096 * 4096


class Span(NamedTuple):
    """A word or phone and when it sounds."""

    text: str
    start_ms: int
    end_ms: int


@dataclass(frozen=True)
class SpeechClip:
    """One utterance. `words` and `phones` are empty where it was not aligned; `reply` is empty where none is wanted."""

    id: str
    role: str  # user | assistant
    kind: str
    voice: str
    text: str  # lower-case words
    reply: str
    template: str
    slot: str
    words: tuple[Span, ...]
    phones: tuple[Span, ...]
    samples: Int16[np.ndarray, "N"]
    sample_rate_hz: int

    def wav(self) -> Float[np.ndarray, "N"]:
        return self.samples.astype(np.float32) / 32768.0

    @property
    def duration_ms(self) -> float:
        return len(self.samples) * 1000.0 / self.sample_rate_hz


@dataclass(frozen=True)
class Picture:
    image: UInt8[np.ndarray, "H W 3"]
    label: str
    cluster: str  # drawings of one cluster are variants of each other


class Source(NamedTuple):
    """Where a corpus lies and how much of it may be bad; hashable, so that what was loaded can be kept."""

    directory: str
    max_bad_fraction: float = 0.001
    quarantine_path: str | None = None

    def part(self, name: str) -> Path:
        return Path(self.directory) / name / VERSION


def load_speech(source: Source, split: str, sample_rate_hz: int) -> tuple[SpeechClip, ...]:
    """All clips of a split at 24 kHz (as stored) or another rate, in the order of the files.

    Raises:
      DataError: the split is not there, or too many of its records are bad.
    """
    return _speech(source, source.part("speech"), split, sample_rate_hz)


def _speech(source: Source, directory: Path, split: str, sample_rate_hz: int) -> tuple[SpeechClip, ...]:
    clips = _checked(source, directory, split, _speech_clip)
    return clips if sample_rate_hz == SPEECH_SAMPLE_RATE_HZ else _resampled_speech(directory, split, sample_rate_hz)


def load_readings(source: Source, sample_rate_hz: int) -> tuple[SpeechClip, ...]:
    """Lines of text read aloud, each in a voice of its own. Raises DataError as `load_speech`."""
    return _speech(source, source.part("readings"), "train", sample_rate_hz)


def load_crowd(source: Source, sample_rate_hz: int) -> tuple[SpeechClip, ...]:
    """The users' training lines again, each clip in a voice of its own. Raises DataError as `load_speech`."""
    return _speech(source, source.part("crowd"), "train", sample_rate_hz)


def load_pictures(source: Source, split: str) -> tuple[Picture, ...]:
    """Raises DataError as `load_speech`."""
    return _checked(source, source.part("pictures"), split, _picture)


def load_text(source: Source, split: str) -> tuple[str, ...]:
    """Raises DataError as `load_speech`."""
    return _checked(source, source.part("text"), split, _sentence)


def _checked(source: Source, directory: Path, split: str, build: Callable[[Features], Any]) -> tuple:
    items, bad = _load(directory, split, build)
    quarantine = Quarantine(source.max_bad_fraction, source.quarantine_path)
    quarantine.take(bad)
    quarantine.check(str(directory))
    return items


@functools.lru_cache(maxsize=8)
def _load(directory: Path, split: str, build: Callable[[Features], Any]) -> tuple[tuple, Quarantine]:
    """What `build` makes of every record, and the bad ones; the stages of a quickstart share it."""
    bad = Quarantine(1.0)

    def result(key: str, future: Future) -> Any:
        try:
            return future.result()
        except (DataError, OSError, ValueError, soundfile.SoundFileError) as error:
            bad.add(str(directory), key, str(error))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        futures = [(key, pool.submit(build, features)) for key, features in read_examples(directory, split, bad)]
        items = [result(key, future) for key, future in futures]
    return tuple(item for item in items if item is not None), bad


@functools.lru_cache(maxsize=4)
def _resampled_speech(directory: Path, split: str, sample_rate_hz: int) -> tuple[SpeechClip, ...]:
    clips, _ = _load(directory, split, _speech_clip)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return tuple(pool.map(lambda clip: _resampled(clip, sample_rate_hz), clips))


def _resampled(clip: SpeechClip, sample_rate_hz: int) -> SpeechClip:
    samples = soxr.resample(clip.samples, clip.sample_rate_hz, sample_rate_hz)
    return replace(clip, samples=samples, sample_rate_hz=sample_rate_hz)


def _speech_clip(features: Features) -> SpeechClip:
    text = {name: field(features, name, str) for name in ("id", "role", "kind", "voice", "text", "reply")}
    clip = SpeechClip(
        **text,
        template=field(features, "template", str),
        slot=field(features, "slot", str),
        words=_spans(features, "words", "word"),
        phones=_spans(features, "phones", "phone"),
        samples=_decode_audio(field(features, "audio", bytes)),
        sample_rate_hz=SPEECH_SAMPLE_RATE_HZ,
    )
    return _with_short_pauses(clip) if clip.role == "assistant" else clip


def _with_short_pauses(clip: SpeechClip) -> SpeechClip:
    cuts = excess_silence(clip.samples, clip.sample_rate_hz)
    words, phones = (
        tuple(Span(span.text, moved_ms(span.start_ms, cuts), moved_ms(span.end_ms, cuts)) for span in spans)
        for spans in (clip.words, clip.phones)
    )
    return replace(clip, samples=cut_samples(clip.samples, clip.sample_rate_hz, cuts), words=words, phones=phones)


def _decode_audio(encoded: bytes) -> Int16[np.ndarray, "N"]:
    info = soundfile.info(io.BytesIO(encoded))
    if info.samplerate != SPEECH_SAMPLE_RATE_HZ or info.channels != 1:
        raise DataError(f"audio is {info.samplerate} Hz x {info.channels}, want {SPEECH_SAMPLE_RATE_HZ} Hz mono")
    if not 0 < info.frames <= MAX_CLIP_SECONDS * SPEECH_SAMPLE_RATE_HZ:
        raise DataError(f"audio has {info.frames} samples, want 1 to {MAX_CLIP_SECONDS:.0f} s")
    samples, _ = soundfile.read(io.BytesIO(encoded), dtype="int16")
    if len(samples) < info.frames:
        raise DataError(f"audio breaks off after {len(samples)} of {info.frames} samples")
    return samples


def _spans(features: Features, plural: str, singular: str) -> tuple[Span, ...]:
    names = features.get(plural, [])
    starts, ends = (features.get(f"{singular}_{edge}_ms", []) for edge in ("start", "end"))
    if not len(names) == len(starts) == len(ends):
        raise DataError(f"{len(names)} {plural}, {len(starts)} starts and {len(ends)} ends")
    spans = tuple(Span(n.decode("utf-8"), int(s), int(e)) for n, s, e in zip(names, starts, ends, strict=True))
    for before, after in itertools.pairwise(spans):
        if not 0 <= before.start_ms <= before.end_ms or after.start_ms < before.start_ms:
            raise DataError(f"{plural} are not in order at {before} and {after}")
    return spans


def _sentence(features: Features) -> str:
    return field(features, "text", str)


def _picture(features: Features) -> Picture:
    encoded = field(features, "image", bytes)
    with Image.open(io.BytesIO(encoded)) as image:
        if image.width * image.height > MAX_PIXELS:
            raise DataError(f"picture of {image.width} x {image.height} exceeds {MAX_PIXELS} pixels")
        canvas = Image.new("RGBA", image.size, "white")
        canvas.alpha_composite(image.convert("RGBA"))
    cluster = features["cluster"][0] if features.get("cluster") else ""
    cluster = cluster.decode("utf-8") if isinstance(cluster, bytes) else str(cluster)
    return Picture(np.asarray(canvas.convert("RGB")), field(features, "label", str), cluster)
