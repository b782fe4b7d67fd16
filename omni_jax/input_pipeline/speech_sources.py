"""Speech recognition and synthesis from the corpus: which clips there are, and what is heard of them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from omni_jax.input_pipeline import features
from omni_jax.input_pipeline.codes import TAIL_FRAMES
from omni_jax.input_pipeline.corpus import SpeechClip, load_readings
from omni_jax.input_pipeline.materials import Materials, TaskSource
from omni_jax.input_pipeline.noise import add_background
from omni_jax.input_pipeline.phones import phone_track
from omni_jax.input_pipeline.speech_tasks import (
    ASR_DELAYS,
    FRAME_MS,
    TTS_DELAYS,
    asr_example,
    draw_tts_delay,
    frame_asr_example,
    frame_tts_example,
    hear_example,
    tts_example,
)
from omni_jax.input_pipeline.tasks import Task
from omni_jax.input_pipeline.timeline import Example
from omni_jax.input_pipeline.utterance import SAMPLES_PER_MS, Utterance, utterance
from omni_jax.input_pipeline.words import word_track
from omni_jax.types import FRAME_LISTEN_SAMPLES, LISTEN_SAMPLE_RATE_HZ, MEL_FRAMES_PER_SLOT, PHONES_PER_SLOT

LEAD_MS = (80.0, 400.0)  # silence before and after a clip
TTS_TAIL_FRAMES = 3  # silence codes that are kept after a clip
SLOWEST = 1.15  # room for clips that are played slower
PROMPT_POSITIONS = 8
SPEECH_SHARE = 0.7  # of a row; its text takes the rest
DELAYED_MS = (max(ASR_DELAYS) + 6) * FRAME_MS  # text after the last frame of speech


def asr_source(materials: Materials) -> TaskSource:
    """Everything that anybody says."""
    clips = _that_fit(materials, _heard_clips(materials), extra_ms=2 * LEAD_MS[1])

    def build(key: int, rng: np.random.Generator) -> Example:
        return asr_of(materials, clips[key], rng)

    return TaskSource(len(clips), build)


def asr_of(materials: Materials, clip: SpeechClip, rng: np.random.Generator) -> Example:
    """What is heard of a clip, then its text."""
    mel, spoken, lead_ms = heard_clip(materials, clip, rng)
    pieces, labels = materials.tokenizer.encode(clip.text), features.labels(clip.text)
    example = asr_example(mel, pieces, labels, materials.config.model.num_codebooks)
    return with_timings(materials, example, spoken, lead_ms)


def hear_source(materials: Materials) -> TaskSource:
    """The same, for the audio encoder alone."""
    return _encoder_source(materials, _heard_clips(materials), Task.HEAR)


def reading_source(materials: Materials) -> TaskSource:
    """Lines of text that are read aloud, for the audio encoder alone; all of them are for training."""
    return _encoder_source(materials, list(load_readings(materials.source, LISTEN_SAMPLE_RATE_HZ)), Task.READING)


def _encoder_source(materials: Materials, clips: list[SpeechClip], task: Task) -> TaskSource:
    room_ms = _pool_ms(materials) - 2 * LEAD_MS[1]
    clips = [clip for clip in clips if clip.duration_ms * SLOWEST <= room_ms]

    def build(key: int, rng: np.random.Generator) -> Example:
        return hear_of(materials, clips[key], rng, task)

    return TaskSource(len(clips), build)


def hear_of(materials: Materials, clip: SpeechClip, rng: np.random.Generator, task: Task = Task.HEAR) -> Example:
    """What is heard of a clip, for the encoder alone."""
    mel, spoken, lead_ms = heard_clip(materials, clip, rng)
    example = hear_example(task, mel, features.labels(clip.text), materials.config.model.num_codebooks)
    return with_timings(materials, example, spoken, lead_ms)


def frame_asr_source(materials: Materials) -> TaskSource:
    """Clips with word times."""
    timed = [clip for clip in _heard_clips(materials) if clip.words]
    clips = _that_fit(materials, timed, extra_ms=LEAD_MS[1] + DELAYED_MS)

    def build(key: int, rng: np.random.Generator) -> Example:
        return frame_asr_of(materials, clips[key], rng)

    return TaskSource(len(clips), build)


def frame_asr_of(materials: Materials, clip: SpeechClip, rng: np.random.Generator) -> Example:
    """A clip with word times on the frame grid, its text some frames later."""
    spoken, lead_ms = _spoken(materials, clip, rng)
    delay = int(rng.choice(list(ASR_DELAYS)))
    wav = _heard(materials, spoken, lead_ms, (delay + 5) * FRAME_MS, rng)
    words = [word._replace(end_ms=word.end_ms + round(lead_ms)) for word in spoken.words]
    clean = np.zeros_like(wav)
    start = round(lead_ms) * SAMPLES_PER_MS
    clean[start : start + len(spoken.wav)] = spoken.wav
    example = frame_asr_example(
        _mel(materials, wav, rng),
        words,
        features.voiced_frames(clean).astype(np.int32),
        delay,
        materials.tokenizer,
        features.labels(spoken.clip.text),
        materials.config.model.num_codebooks,
    )
    return with_timings(materials, example, spoken, lead_ms)


def tts_source(materials: Materials) -> TaskSource:
    """The assistant's clips."""
    clips, codes = _own_clips(materials), materials.speech_codes

    def build(key: int, rng: np.random.Generator) -> Example:
        clip = clips[key]
        own = codes.clips[clip.id][: TTS_TAIL_FRAMES - TAIL_FRAMES]
        return tts_example(materials.tokenizer.encode(clip.text), own, materials.config.model.acoustic_delay)

    return TaskSource(len(clips), build)


def frame_tts_source(materials: Materials) -> TaskSource:
    """The assistant's clips; half of them without delay, as in a dialogue."""
    clips, codes = _own_clips(materials), materials.speech_codes

    def build(key: int, rng: np.random.Generator) -> Example:
        clip = clips[key]
        delay = draw_tts_delay(rng)
        own = codes.clips[clip.id][: TTS_TAIL_FRAMES - TAIL_FRAMES]
        return frame_tts_example(
            clip.words, own, codes.silence, delay, materials.config.model.acoustic_delay, materials.tokenizer
        )

    return TaskSource(len(clips), build)


def heard_clip(
    materials: Materials, clip: SpeechClip, rng: np.random.Generator, tail_ms: tuple[float, float] = LEAD_MS
) -> tuple[Float[np.ndarray, "A8 M"], Utterance, float]:
    """A clip as the microphone hears it, with silence around it: log-mel, the utterance, and where it starts in ms.

    With `data.written_media` the log-mel has no bins: only its length counts.
    """
    spoken, lead_ms = _spoken(materials, clip, rng)
    tail = rng.uniform(*tail_ms)
    if materials.config.data.written_media:
        num_slots = math.ceil((lead_ms + spoken.duration_ms + tail) / FRAME_MS)
        return np.zeros((num_slots * MEL_FRAMES_PER_SLOT, 0), np.float32), spoken, lead_ms
    wav = _heard(materials, spoken, lead_ms, tail, rng)
    return _mel(materials, wav, rng), spoken, lead_ms


def with_timings(materials: Materials, example: Example, spoken: Utterance, lead_ms: float) -> Example:
    """Adds the phones and words of the only utterance of an example."""
    phones = phone_track(spoken.phones, example.num_slots * PHONES_PER_SLOT, lead_ms, materials.phone_ids)
    words = word_track(spoken.words, example.num_slots, lead_ms, materials.tokenizer)
    return replace(example, phones=phones, words=words)


def _heard_clips(materials: Materials) -> list[SpeechClip]:
    return materials.speech("user") + materials.speech("assistant")


def _own_clips(materials: Materials) -> list[SpeechClip]:
    extra_ms = (max(TTS_DELAYS) + TAIL_FRAMES) * FRAME_MS
    return _that_fit(materials, materials.replies(), extra_ms)


def _that_fit(materials: Materials, clips: list[SpeechClip], extra_ms: float) -> list[SpeechClip]:
    """Clips whose slots, and text, have room in a row."""
    room_ms = min(_pool_ms(materials), materials.config.data.row_positions * FRAME_MS)

    def fits(clip: SpeechClip) -> bool:
        text_ms = (len(materials.tokenizer.encode(clip.text)) + PROMPT_POSITIONS) * FRAME_MS
        return clip.duration_ms * SLOWEST + extra_ms + text_ms <= room_ms

    return [clip for clip in clips if fits(clip)]


def speech_room_ms(materials: Materials) -> float:
    """How long a clip may be so that it, and most likely its text, has room in a row."""
    row_ms = materials.config.data.row_positions * FRAME_MS * SPEECH_SHARE
    return (min(_pool_ms(materials), row_ms) - 2 * LEAD_MS[1]) / SLOWEST - DELAYED_MS


def _pool_ms(materials: Materials) -> float:
    return materials.longest_slots * FRAME_MS


def _spoken(materials: Materials, clip: SpeechClip, rng: np.random.Generator) -> tuple[Utterance, float]:
    """The clip and the silence before it in ms."""
    return utterance(clip, rng if materials.augmented else None), float(round(rng.uniform(*LEAD_MS)))


def _heard(
    materials: Materials, spoken: Utterance, lead_ms: float, tail_ms: float, rng: np.random.Generator
) -> Float[np.ndarray, "N"]:
    wav = np.pad(spoken.wav, (round(lead_ms) * SAMPLES_PER_MS, round(tail_ms) * SAMPLES_PER_MS))
    wav = np.pad(wav, (0, -len(wav) % FRAME_LISTEN_SAMPLES))
    return add_background(rng, wav) if materials.augmented else wav


def _mel(materials: Materials, wav: Float[np.ndarray, "N"], rng: np.random.Generator) -> Float[np.ndarray, "A8 M"]:
    return materials.log_mel(wav, materials.draw_variation(wav, rng, masked=True))
