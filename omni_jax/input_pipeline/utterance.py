"""A recorded clip made ready to be heard: at a speaking level, played faster or slower, with a pause put in."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from omni_jax.input_pipeline import augment, features
from omni_jax.input_pipeline.corpus import Span, SpeechClip
from omni_jax.types import LISTEN_SAMPLE_RATE_HZ

SAMPLES_PER_MS = LISTEN_SAMPLE_RATE_HZ // 1000
SPEED_RANGE = (0.85, 1.18)
PAUSE_MS = (400.0, 1500.0)
SPLICE_SAMPLES = 80  # 5 ms ramps where a pause is put in


@dataclass(frozen=True)
class Utterance:
    """A clip cut to its voiced part, at 16 kHz and at speaking level. `pause_ms`: (start, end) of an inserted pause."""

    clip: SpeechClip
    wav: Float[np.ndarray, "N"]
    words: tuple[Span, ...]
    phones: tuple[Span, ...]
    pause_ms: tuple[float, float] | None = None

    @property
    def duration_ms(self) -> float:
        return len(self.wav) / SAMPLES_PER_MS


def utterance(clip: SpeechClip, rng: np.random.Generator | None) -> Utterance:
    """`rng` None: as it was recorded; otherwise at a random speed."""
    wav = clip.wav()
    first, last = features.voiced_samples(wav)
    speed = 1.0 if rng is None else rng.uniform(*SPEED_RANGE)
    wav = wav[first:last]
    if rng is not None:
        wav = augment.change_speed(wav, speed)
    shift_ms, duration_ms = first / SAMPLES_PER_MS, len(wav) / SAMPLES_PER_MS

    def moved(ms: int) -> int:
        return round(min(max((ms - shift_ms) / speed, 0.0), duration_ms))

    words, phones = (
        tuple(Span(span.text, moved(span.start_ms), moved(span.end_ms)) for span in spans)
        for spans in (clip.words, clip.phones)
    )
    return Utterance(clip, augment.at_level(wav, augment.SPEECH_LEVEL_DBFS), words, phones)


def with_pause(spoken: Utterance, rng: np.random.Generator) -> Utterance:
    """Silence of 0.4 to 1.5 s between two words; the clip needs word times and at least two words."""
    boundary = int(rng.integers(1, len(spoken.words)))
    gap = (spoken.words[boundary - 1].end_ms + spoken.words[boundary].start_ms) // 2
    cut = gap * SAMPLES_PER_MS
    pause = round(rng.uniform(*PAUSE_MS))
    before, after = spoken.wav[:cut].copy(), spoken.wav[cut:].copy()
    ramp = np.linspace(1.0, 0.0, SPLICE_SAMPLES, dtype=np.float32)
    before[-SPLICE_SAMPLES:] *= ramp[: len(before)]
    after[:SPLICE_SAMPLES] *= ramp[::-1][: len(after)]
    silence = np.zeros(pause * SAMPLES_PER_MS, np.float32)
    return replace(
        spoken,
        wav=np.concatenate([before, silence, after]),
        words=_parted(spoken.words, gap, pause),
        phones=_parted(spoken.phones, gap, pause),
        pause_ms=(float(gap), float(gap + pause)),
    )


def _parted(spans: tuple[Span, ...], gap_ms: int, pause_ms: int) -> tuple[Span, ...]:
    """Moves what comes after the gap; a span across it sounds on both sides."""
    before = tuple(span._replace(end_ms=min(span.end_ms, gap_ms)) for span in spans if span.start_ms < gap_ms)
    after = tuple(
        span._replace(start_ms=max(span.start_ms, gap_ms) + pause_ms, end_ms=span.end_ms + pause_ms)
        for span in spans
        if span.end_ms > gap_ms
    )
    return before + after
