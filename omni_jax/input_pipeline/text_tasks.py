"""Tasks that need no frame grid and no audio: running text, captions, written questions about a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float, Int

from omni_jax.input_pipeline import features
from omni_jax.input_pipeline.corpus import PICTURE_REPLY, Picture
from omni_jax.input_pipeline.materials import Materials, TaskSource
from omni_jax.input_pipeline.picture_augment import vary_picture
from omni_jax.input_pipeline.tasks import Task
from omni_jax.input_pipeline.timeline import Example, Layout
from omni_jax.types import Control

CAPTIONS = ("{}", "a picture of {}", "this is {}")
ANSWERS = ("it is {}", "that is {}", "i see {}")

Patches = tuple[Float[np.ndarray, "P X"], Int[np.ndarray, "P 2"]]


def text_examples(pieces: Sequence[int], num_codebooks: int, max_positions: int) -> tuple[Example, ...]:
    """BOS, the text, EOS, in as many examples as `max_positions` makes of it.

    A later part begins with the last piece of the one before, so that every piece is a target once.
    """
    ids = [Control.BOS, *pieces, Control.EOS]
    parts = [ids[start : start + max_positions] for start in range(0, len(ids) - 1, max_positions - 1)]
    return tuple(Layout(Task.TEXT, num_codebooks).text(part, _all_but_the_first(len(part))).finish() for part in parts)


def _all_but_the_first(count: int) -> Float[np.ndarray, " T"]:
    weights = np.ones(count, np.float32)
    weights[0] = 0.0
    return weights


def caption_example(patches: Patches, caption: Sequence[int], num_codebooks: int) -> Example:
    """Picture, CAPTION, the caption, EOS."""
    layout = Layout(Task.CAPTION, num_codebooks).picture(*patches).text([Control.CAPTION])
    return layout.text([*caption, Control.EOS], 1.0).finish()


def picture_qa_example(patches: Patches, question: Sequence[int], answer: Sequence[int], num_codebooks: int) -> Example:
    """Picture, written question, ANSWER, the answer, EOS; only the answer is a target."""
    layout = Layout(Task.PICTURE_QA, num_codebooks).picture(*patches).text([*question, Control.ANSWER])
    return layout.text([*answer, Control.EOS], 1.0).finish()


def text_source(materials: Materials) -> TaskSource:
    """One line of text an example, or several where it is longer than a row."""
    lines, longest = materials.text(), materials.config.data.row_positions

    def build(key: int, rng: np.random.Generator) -> tuple[Example, ...]:
        return text_examples(materials.tokenizer.encode(lines[key]), materials.config.model.num_codebooks, longest)

    return TaskSource(len(lines), build)


def caption_source(materials: Materials) -> TaskSource:
    """One picture an example; the caption is a phrase with its class."""
    pictures = materials.pictures()

    def build(key: int, rng: np.random.Generator) -> Example:
        picture = pictures[key]
        caption = materials.tokenizer.encode(str(rng.choice(CAPTIONS)).format(with_article(picture.label)))
        example = caption_example(
            picture_patches(materials, picture, rng), caption, materials.config.model.num_codebooks
        )
        return with_tag(materials, example, picture)

    return TaskSource(len(pictures), build)


def picture_qa_source(materials: Materials) -> TaskSource:
    """One picture an example, with a question and an answer as they are spoken in the corpus, here in writing."""
    pictures = materials.pictures()
    questions = sorted({clip.text for clip in materials.speech("user") if clip.reply == PICTURE_REPLY})

    def build(key: int, rng: np.random.Generator) -> Example:
        picture = pictures[key]
        question = materials.tokenizer.encode(questions[rng.integers(len(questions))])
        answer = materials.tokenizer.encode(str(rng.choice(ANSWERS)).format(with_article(picture.label)))
        patches = picture_patches(materials, picture, rng)
        example = picture_qa_example(patches, question, answer, materials.config.model.num_codebooks)
        return with_tag(materials, example, picture)

    return TaskSource(len(pictures), build)


def see_source(materials: Materials) -> TaskSource:
    """One picture an example, for the vision encoder alone."""
    pictures = materials.pictures()

    def build(key: int, rng: np.random.Generator) -> Example:
        return see_example(materials, pictures[key], rng)

    return TaskSource(len(pictures), build)


def see_example(materials: Materials, picture: Picture, rng: np.random.Generator) -> Example:
    """IMAGE, and a picture that stays in the pool."""
    layout = Layout(Task.SEE, materials.config.model.num_codebooks).text([Control.IMAGE])
    return with_tag(materials, layout.unplaced_picture(*picture_patches(materials, picture, rng)).finish(), picture)


def picture_patches(materials: Materials, picture: Picture, rng: np.random.Generator) -> Patches:
    """Patches of the picture, varied in training; without pixels where `data.written_media` asks for names alone."""
    if materials.config.data.written_media:
        patches, positions = features.patches(picture.image, materials.config.model.vision)
        return patches[:, :0], positions
    image = vary_picture(rng, picture.image) if materials.augmented else picture.image
    return features.patches(image, materials.config.model.vision)


def with_tag(materials: Materials, example: Example, picture: Picture | None) -> Example:
    """Adds the name of the picture, if there is one, as the vision encoder's own target."""
    return example if picture is None else replace(example, tags=tuple(materials.tokenizer.encode(picture.label)))


def with_article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
