"""Speech, pictures and text of a record, decoded and cut to what a row can hold: between words, never inside one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Int

from omni_jax.input_pipeline.corpus import Picture, Span, SpeechClip
from omni_jax.input_pipeline.decode import decode_audio, decode_picture
from omni_jax.input_pipeline.materials import Materials
from omni_jax.input_pipeline.noise import vary_recording
from omni_jax.input_pipeline.readers.record import BadRecord, Cause, Record
from omni_jax.input_pipeline.speech_sources import speech_room_ms
from omni_jax.types import LISTEN_SAMPLE_RATE_HZ


def clip_of(
    materials: Materials, record: Record, text: str, rng: np.random.Generator, whole: bool = False
) -> SpeechClip:
    """The record's audio at 16 kHz with its transcript. Unless it must stay `whole`, speech that is too long for a row
    is cut between timed words, and in training its room and line vary.

    Raises BadRecord.
    """
    wav = decode_audio(record.audio, LISTEN_SAMPLE_RATE_HZ)
    if materials.augmented and not whole:
        wav = vary_recording(rng, wav)
    samples = np.clip(np.round(wav * 32767.0), -32768, 32767).astype(np.int16)
    clip = SpeechClip(
        id=record.key, role=record.role or "user", kind="", voice="", text=text, reply=record.reply, template="",
        slot="", words=record.words, phones=(), samples=samples, sample_rate_hz=LISTEN_SAMPLE_RATE_HZ,
    )  # fmt: skip
    if record.words and record.words[-1].start_ms >= clip.duration_ms:
        raise BadRecord(
            Cause.SCHEMA, f"its words go on to {record.words[-1].end_ms} ms, its audio to {clip.duration_ms:.0f}"
        )
    return clip if whole else cut_between_words(clip, speech_room_ms(materials), rng)


def cut_between_words(clip: SpeechClip, room_ms: float, rng: np.random.Generator) -> SpeechClip:
    """A stretch of whole words that lasts at most `room_ms`, from a random word on; a clip without times as it is."""
    if clip.duration_ms <= room_ms or not clip.words:
        return clip
    words = clip.words
    later = [index for index, word in enumerate(words) if words[-1].end_ms - word.start_ms >= room_ms]
    first = int(rng.integers(len(later) or 1))
    start = words[first].start_ms
    kept = [word for word in words[first:] if word.end_ms - start <= room_ms] or [words[first]]
    per_ms = clip.sample_rate_hz // 1000
    return replace(
        clip,
        samples=clip.samples[start * per_ms : kept[-1].end_ms * per_ms],
        words=tuple(Span(word.text, word.start_ms - start, word.end_ms - start) for word in kept),
        text=" ".join(word.text for word in kept),
    )


def picture_of(materials: Materials, record: Record) -> Picture:
    """Raises BadRecord."""
    if record.picture is None:
        raise BadRecord(Cause.SCHEMA, "it has no picture")
    return Picture(decode_picture(record.picture), record.label, "")


def maybe_picture_of(materials: Materials, record: Record) -> Picture | None:
    return None if record.picture is None else picture_of(materials, record)


def codes_of(materials: Materials, record: Record) -> Int[np.ndarray, "F Q"]:
    """The record's own speech. Raises BadRecord where it is of another codec."""
    model = materials.config.model
    if record.codes is None:
        raise BadRecord(Cause.SCHEMA, "it has no speech codes")
    if record.codes.shape[1] != model.num_codebooks or record.codes.max() >= model.codebook_size:
        raise BadRecord(
            Cause.SCHEMA,
            f"its codes are {record.codes.shape[1]} a frame, up to {record.codes.max()}: the model has "
            f"{model.num_codebooks} of {model.codebook_size}, encode the corpus with this codec",
        )
    return record.codes
