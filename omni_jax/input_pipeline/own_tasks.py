"""The tasks of `data.sources`: what an example must have for each, and how a record becomes a timeline.

A record that cannot be used is set aside, and another one, drawn by the same example's random numbers, takes its place:
the stream stays a pure function of the seed and the sources.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from omni_jax.errors import UserError
from omni_jax.input_pipeline.corpus import SpeechClip
from omni_jax.input_pipeline.materials import Materials, TaskSource
from omni_jax.input_pipeline.own_dialogue import NEEDS, cast_between, own_dialogue_example
from omni_jax.input_pipeline.own_media import clip_of, codes_of, maybe_picture_of, picture_of
from omni_jax.input_pipeline.packing import Budget
from omni_jax.input_pipeline.readers.record import BadRecord, Cause, Record
from omni_jax.input_pipeline.readers.sources import HELD_OUT_EVERY
from omni_jax.input_pipeline.speech_sources import asr_of, frame_asr_of, hear_of
from omni_jax.input_pipeline.speech_tasks import draw_tts_delay, end_frame, frame_tts_example, tts_example
from omni_jax.input_pipeline.spoken_qa import spoken_qa_example, written_qa_example
from omni_jax.input_pipeline.tasks import Task
from omni_jax.input_pipeline.text_tasks import (
    caption_example,
    picture_patches,
    picture_qa_example,
    see_example,
    text_examples,
    with_tag,
)
from omni_jax.input_pipeline.timeline import Example, Layout
from omni_jax.types import Control

PICTURE_MARK = "<image>"  # in LLaVA's chats, where the picture stands

Make = Callable[[Materials, Record, np.random.Generator], Example | tuple[Example, ...]]


class Recipe(NamedTuple):
    """What a record must have, all of one of `needs`; and what not, because another task makes more of it."""

    needs: tuple[tuple[str, ...], ...]
    make: Make
    without: tuple[str, ...] = ()


def own_source(materials: Materials, task: Task) -> TaskSource:
    """The examples of one task over all of `data.sources`. Raises UserError where no source has what it needs."""
    own, recipe = materials.own, _recipe(materials, task)
    needs = [frozenset(fields) for fields in recipe.needs]
    keys = own.keys(needs, frozenset(recipe.without), materials.split)
    if task is Task.TEXT and not len(keys):  # where nothing is text alone, what belongs to speech and pictures
        keys = own.keys(needs, frozenset(), materials.split)
    if not len(keys) and materials.split != "train":
        raise UserError(
            f"no {materials.split} examples for task {task.name.lower()}: every {HELD_OUT_EVERY}th example of a source "
            "is held out, and the sources have fewer"
        )
    if not len(keys):
        wanted = " or ".join(" and ".join(fields) for fields in recipe.needs)
        raise UserError(
            f"task {task.name.lower()} needs examples with {wanted} in data.sources ({own.describe()}): leave it out "
            f"with --config.data.tasks.{task.name.lower()}=0, or add a source that has them"
        )
    budget = Budget.from_config(materials.config)

    def make(record: Record, rng: np.random.Generator) -> Example | tuple[Example, ...]:
        made = recipe.make(materials, record, rng)
        for example in made if isinstance(made, tuple) else (made,):
            check_room(example, budget)
        return made

    return TaskSource(len(keys), lambda key, rng: own.usable(keys, key, rng, make))


def _recipe(materials: Materials, task: Task) -> Recipe:
    if task is not Task.DIALOGUE:
        return RECIPES[task]
    cast = cast_between(materials)
    return Recipe(NEEDS, lambda materials, record, rng: own_dialogue_example(materials, cast, record, rng))


def check_room(example: Example, budget: Budget) -> None:
    """Raises BadRecord for an example that no row or pool holds."""
    if not budget.ever_fits(example):
        raise BadRecord(
            Cause.TOO_LONG,
            f"it takes {example.num_positions} positions, {example.num_slots} audio slots and {len(example.patches)} "
            "patches: raise data.row_positions, data.audio_slots or data.patches, or cut it before",
        )


def _text(materials: Materials, record: Record, rng: np.random.Generator) -> tuple[Example, ...]:
    data, codebooks = materials.config.data, materials.config.model.num_codebooks
    return text_examples(materials.tokenizer.encode(_one_text(record, rng)), codebooks, data.row_positions)


def _asr(materials: Materials, record: Record, rng: np.random.Generator) -> Example:
    return _heard(asr_of, materials, record, rng)


def _hear(materials: Materials, record: Record, rng: np.random.Generator) -> Example:
    return _heard(hear_of, materials, record, rng)


def _frame_asr(materials: Materials, record: Record, rng: np.random.Generator) -> Example:
    if not record.words:
        raise BadRecord(Cause.SCHEMA, "it has no times of words")
    return _heard(frame_asr_of, materials, record, rng)


def _heard(
    of: Callable[[Materials, SpeechClip, np.random.Generator], Example],
    materials: Materials,
    record: Record,
    rng: np.random.Generator,
) -> Example:
    clip = clip_of(materials, record, _one_text(record, rng), rng)
    example = of(materials, clip, rng)
    return replace(example, is_cut=True) if len(clip.words) < len(record.words) else example


def _tts(materials: Materials, record: Record, rng: np.random.Generator) -> Example:
    pieces = materials.tokenizer.encode(_one_text(record, rng))
    return tts_example(pieces, codes_of(materials, record), materials.config.model.acoustic_delay)


def _frame_tts(materials: Materials, record: Record, rng: np.random.Generator) -> Example:
    if not record.words:
        raise BadRecord(Cause.SCHEMA, "it has no times of words")
    codes, silence = codes_of(materials, record), materials.speech_codes.silence
    if end_frame(record.words) > len(codes):
        raise BadRecord(Cause.SCHEMA, f"its words end in frame {end_frame(record.words)}, its codes in {len(codes)}")
    delay = draw_tts_delay(rng)
    acoustic_delay = materials.config.model.acoustic_delay
    return frame_tts_example(record.words, codes, silence, delay, acoustic_delay, materials.tokenizer)


def _caption(materials: Materials, record: Record, rng: np.random.Generator) -> Example:
    picture = picture_of(materials, record)
    caption = materials.tokenizer.encode(_one_text(record, rng))
    example = caption_example(picture_patches(materials, picture, rng), caption, materials.config.model.num_codebooks)
    return with_tag(materials, example, picture) if record.label else example


def _picture_qa(materials: Materials, record: Record, rng: np.random.Generator) -> Example:
    patches = picture_patches(materials, picture_of(materials, record), rng)
    question, answer = (materials.tokenizer.encode(text) for text in (_one_text(record, rng), _reply(record)))
    return picture_qa_example(patches, question, answer, materials.config.model.num_codebooks)


def _see(materials: Materials, record: Record, rng: np.random.Generator) -> Example:
    if not record.label:
        raise BadRecord(Cause.SCHEMA, "it has no label")
    return see_example(materials, picture_of(materials, record), rng)


def _spoken_qa(materials: Materials, record: Record, rng: np.random.Generator) -> Example:
    text = record.texts[0] if record.texts else ""
    question = clip_of(materials, record, text, rng, whole=True)
    return spoken_qa_example(materials, question, maybe_picture_of(materials, record), _reply(record), rng)


def _written_qa(materials: Materials, record: Record, rng: np.random.Generator) -> Example:
    if not record.turns:
        picture = maybe_picture_of(materials, record)
        return written_qa_example(materials, _one_text(record, rng), picture, _reply(record), rng)
    if materials.chat_template is not None:
        return _templated_chat(materials, record, rng)
    layout = _begin_chat(materials, record, rng).text([Control.DIALOGUE])
    for turn in record.turns:
        pieces = materials.tokenizer.encode(_said(turn, rng))
        if turn.role == "assistant":
            layout.text([Control.ANSWER]).text([*pieces, Control.EOS], 1.0)
        else:
            layout.text(pieces)
    return layout.finish()


def _templated_chat(materials: Materials, record: Record, rng: np.random.Generator) -> Example:
    """A chat in the words of the published model's template, without control tokens."""
    layout = _begin_chat(materials, record, rng)
    messages = [{"role": turn.role or "user", "content": _said(turn, rng)} for turn in record.turns]
    try:
        parts = materials.chat_template.parts(messages)
    except UserError as error:
        raise BadRecord(Cause.SCHEMA, str(error)) from None
    if not parts:
        raise BadRecord(Cause.EMPTY, "none of its turns is the assistant's")
    for text, is_answer in parts:
        layout.text(materials.tokenizer.encode_marked(text), float(is_answer))
    return layout.finish()


def _begin_chat(materials: Materials, record: Record, rng: np.random.Generator) -> Layout:
    """With the picture that the chat is about, if there is one."""
    layout = Layout(Task.WRITTEN_QA, materials.config.model.num_codebooks)
    picture = maybe_picture_of(materials, record)
    return layout if picture is None else layout.picture(*picture_patches(materials, picture, rng))


def _said(turn: Record, rng: np.random.Generator) -> str:
    return _one_text(turn, rng).replace(PICTURE_MARK, "").strip()


def _one_text(record: Record, rng: np.random.Generator) -> str:
    if not record.texts:
        raise BadRecord(Cause.EMPTY, "it has no text")
    return record.texts[int(rng.integers(len(record.texts)))] if len(record.texts) > 1 else record.texts[0]


def _reply(record: Record) -> str:
    if not record.reply:
        raise BadRecord(Cause.EMPTY, "its reply is empty")
    return record.reply


RECIPES = {
    Task.TEXT: Recipe((("text",),), _text, without=("audio", "picture")),
    Task.ASR: Recipe((("audio", "text"),), _asr),
    Task.HEAR: Recipe((("audio", "text"),), _hear),
    Task.READING: Recipe((("audio", "text"),), _hear),
    Task.FRAME_ASR: Recipe((("audio", "text", "words"),), _frame_asr),
    Task.TTS: Recipe((("text", "codes"),), _tts),
    Task.FRAME_TTS: Recipe((("text", "codes", "words"),), _frame_tts),
    Task.CAPTION: Recipe((("picture", "text"),), _caption, without=("reply", "audio")),
    Task.PICTURE_QA: Recipe((("picture", "text", "reply"),), _picture_qa),
    Task.SEE: Recipe((("picture", "label"),), _see),
    Task.SPOKEN_QA: Recipe((("audio", "reply"),), _spoken_qa),
    Task.WRITTEN_QA: Recipe((("text", "reply"), ("turns",)), _written_qa),
}
