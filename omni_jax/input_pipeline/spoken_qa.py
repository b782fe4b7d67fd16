"""Spoken questions with written answers: what a dialogue asks, heard on the frame grid, but answered in text at once.

Without the answer's speech an example takes a third of the positions of a dialogue, so understanding gets three times
the questions. With the question in writing too it takes a fifth of that, and teaches what is answered to what.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from omni_jax.input_pipeline import features
from omni_jax.input_pipeline.cast import Cast, make_cast
from omni_jax.input_pipeline.corpus import PICTURE_REPLY, Picture, SpeechClip
from omni_jax.input_pipeline.materials import Materials, TaskSource
from omni_jax.input_pipeline.scene import FRAME_MS
from omni_jax.input_pipeline.speech_sources import LEAD_MS, SLOWEST, heard_clip, with_timings
from omni_jax.input_pipeline.tasks import Task
from omni_jax.input_pipeline.text_tasks import picture_patches, with_tag
from omni_jax.input_pipeline.timeline import Example, Frames, Layout, delay_codes
from omni_jax.types import MEL_FRAMES_PER_SLOT, Control

KIND_SHARES = {"picture_question": 0.25, "fact_question": 0.4, "repeat_request": 0.2, "greeting": 0.05, "tell": 0.1}
TAIL_MS = (0.0, 240.0)
MARKS = 3  # DIALOGUE, ANSWER, EOS
PICTURE_POSITIONS = 8  # IMAGE and the longest answer about a picture, beside the patches


def spoken_qa_source(materials: Materials) -> TaskSource:
    """Every question of the split that has an answer and fits a row; without a codec own silence has no codes."""
    cast = make_cast(materials, materials.assistant() if materials.codes is None else None)
    data, encode = materials.config.data, materials.tokenizer.encode
    picture_positions = PICTURE_POSITIONS + materials.config.model.vision.num_patches // 4

    def fits(clip: SpeechClip) -> bool:
        longest_ms = LEAD_MS[1] + SLOWEST * clip.duration_ms + TAIL_MS[1]
        slots = math.ceil(longest_ms / FRAME_MS)
        pictured = clip.reply == PICTURE_REPLY
        answer = picture_positions if pictured else len(encode(clip.reply))
        has_room = slots + answer + MARKS <= data.row_positions and slots <= materials.longest_slots
        return has_room and (data.patches > 0 or not pictured)

    cast = _with_questions(cast, fits)

    def build(key: int, rng: np.random.Generator) -> Example:
        question, picture, answer = _draw(cast, rng)
        return spoken_qa_example(materials, question, picture, answer, rng)

    return TaskSource(sum(len(clips) for clips in cast.questions.values()), build)


def written_qa_source(materials: Materials) -> TaskSource:
    """The same questions as they are heard: words without punctuation. Needs no speech codes.

    Left out are those that do not fit a row, and those about pictures where `data.patches` is 0.
    """
    cast = make_cast(materials, materials.assistant())
    data, encode = materials.config.data, materials.tokenizer.encode
    picture_positions = PICTURE_POSITIONS + materials.config.model.vision.num_patches // 4

    def fits(clip: SpeechClip) -> bool:
        pictured = clip.reply == PICTURE_REPLY
        answer = picture_positions if pictured else len(encode(clip.reply))
        return len(encode(clip.text)) + answer + MARKS <= data.row_positions and (data.patches > 0 or not pictured)

    cast = _with_questions(cast, fits)

    def build(key: int, rng: np.random.Generator) -> Example:
        question, picture, answer = _draw(cast, rng)
        return written_qa_example(materials, question.text, picture, answer, rng)

    return TaskSource(sum(len(clips) for clips in cast.questions.values()), build)


def written_qa_example(
    materials: Materials, question: str, picture: Picture | None, answer: str, rng: np.random.Generator
) -> Example:
    """Maybe a picture, DIALOGUE, the question, ANSWER, the answer, EOS."""
    layout = Layout(Task.WRITTEN_QA, materials.config.model.num_codebooks)
    if picture is not None:
        layout.picture(*picture_patches(materials, picture, rng))
    layout.text([Control.DIALOGUE, *materials.tokenizer.encode(question), Control.ANSWER])
    layout.text([*materials.tokenizer.encode(answer), Control.EOS], 1.0)
    return with_tag(materials, layout.finish(), picture)


def spoken_qa_example(
    materials: Materials, question: SpeechClip, picture: Picture | None, answer: str, rng: np.random.Generator
) -> Example:
    """Maybe a picture, DIALOGUE, the frames of the question under own silence, ANSWER, the answer, EOS."""
    model = materials.config.model
    mel, spoken, lead_ms = heard_clip(materials, question, rng, TAIL_MS)
    num_frames = len(mel) // MEL_FRAMES_PER_SLOT
    frames = Frames(np.full(num_frames, Control.LISTEN, np.int32), text_weight=np.zeros(num_frames, np.float32))
    if materials.codes is not None:
        silence = np.tile(materials.codes.silence, (num_frames, 1))
        codes = delay_codes(silence, model.acoustic_delay)
        frames = replace(frames, codes=codes, codes_weight=np.zeros(num_frames, np.float32))
    layout = Layout(Task.SPOKEN_QA, model.num_codebooks)
    if picture is not None:
        layout.picture(*picture_patches(materials, picture, rng))
    layout.text([Control.DIALOGUE]).frames(frames, mel).text([Control.ANSWER])
    layout.text([*materials.tokenizer.encode(answer), Control.EOS], 1.0)
    example = with_tag(materials, layout.finish(features.labels(question.text)), picture)
    return with_timings(materials, example, spoken, lead_ms)


def _with_questions(cast: Cast, fits: Callable[[SpeechClip], bool]) -> Cast:
    kept = {kind: [clip for clip in clips if fits(clip)] for kind, clips in cast.questions.items()}
    return replace(cast, questions={kind: clips for kind, clips in kept.items() if clips})


def _draw(cast: Cast, rng: np.random.Generator) -> tuple[SpeechClip, Picture | None, str]:
    """A question, the picture that it is about, and the answer."""
    kinds = list(cast.questions)
    shares = np.array([KIND_SHARES[kind] for kind in kinds])
    clips = cast.questions[kinds[rng.choice(len(kinds), p=shares / shares.sum())]]
    question = clips[rng.integers(len(clips))]
    picture = _picture(cast, rng) if question.reply == PICTURE_REPLY else None
    return question, picture, cast.reply(question, picture.label if picture else None).text


def _picture(cast: Cast, rng: np.random.Generator) -> Picture:
    label = cast.labels[rng.integers(len(cast.labels))]
    return cast.pictures[label][rng.integers(len(cast.pictures[label]))]
