"""Spoken questions answered in text, and examples that only an encoder sees."""

import dataclasses

import numpy as np

from omni_jax.input_pipeline.cast import make_cast
from omni_jax.input_pipeline.loader import make_loader
from omni_jax.input_pipeline.materials import load_materials
from omni_jax.input_pipeline.spoken_qa import spoken_qa_example, spoken_qa_source, written_qa_example
from omni_jax.input_pipeline.tasks import Task
from omni_jax.types import Control, Modality


def batch_of(config, codes, **tasks):
    loader = make_loader(
        dataclasses.replace(config, data=dataclasses.replace(config.data, tasks=tasks)), "train", codes
    )
    batch = next(loader)
    loader.close()
    return batch


def test_only_the_answer_is_a_target_and_it_follows_the_question(config, codes):
    materials = load_materials(config, "train", codes)
    cast = make_cast(materials)
    question = next(clip for clips in cast.questions.values() for clip in clips if clip.reply in cast.replies)
    example = spoken_qa_example(materials, question, None, question.reply, np.random.default_rng(0))
    fields = example.fields
    answer = [*materials.tokenizer.encode(question.reply), Control.EOS]
    targets = fields["text_target"][fields["text_weight"] > 0]
    assert targets.tolist() == answer
    assert fields["text"][-len(answer) - 1] == Control.ANSWER
    frames = fields["modality"] == Modality.FRAME
    assert frames.sum() == example.num_slots and (fields["text"][frames] == Control.LISTEN).all()
    assert not fields["codes_weight"].any()
    assert len(example.phones) == 4 * example.num_slots
    heard = [piece for piece in example.words if piece > max(Control)]
    assert heard == materials.tokenizer.encode(question.text)


def test_the_same_question_in_writing(config, codes):
    materials = load_materials(config, "train", codes)
    example = written_qa_example(materials, "what comes after one", None, "two", np.random.default_rng(0))
    encode = materials.tokenizer.encode
    question = [Control.DIALOGUE, *encode("what comes after one"), Control.ANSWER]
    assert example.fields["text"].tolist() == [*question, *encode("two"), Control.EOS]
    assert (example.fields["text_weight"] > 0).sum() == len(encode("two")) + 1
    assert example.num_slots == 0


def test_picture_questions_show_the_picture(config, codes):
    source = spoken_qa_source(load_materials(config, "train", codes))
    built = [source.build(key, np.random.default_rng(key)) for key in range(20)]
    assert {len(example.patches) > 0 for example in built} == {True, False}
    assert all(bool(example.tags) == (len(example.patches) > 0) for example in built)


def test_encoder_examples_cost_one_position_and_fill_the_pools(config, codes):
    batch = batch_of(config, codes, text=0.5, hear=0.25, see=0.25)
    alone = np.isin(batch.task, (Task.HEAR, Task.SEE))
    assert alone.any() and not (batch.timeline.text_weight[alone] > 0).any()
    assert (batch.timeline.audio_index == -1).all() and (batch.timeline.patch_index == -1).all()
    assert batch.media.mel_segment_ids.max() > 0 and batch.media.patch_segment_ids.max() > 0
    pictures = batch.media.patch_segment_ids.max(axis=1)
    assert ((batch.media.tags[..., 0] > 0).sum(axis=1) == pictures).all()


def test_written_media_stand_for_sound_and_pixels(config):
    """The words at their times and the names of pictures, without a codec's codes."""
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, written_media=True))
    batch = batch_of(config, None, spoken_qa=1.0)
    assert batch.media.mel.shape[2] == batch.media.patches.shape[2] == 0
    assert (batch.media.words > max(Control)).any() and (batch.media.tags > max(Control)).any()
    assert (batch.timeline.codes < 0).all() and (batch.timeline.audio_index >= 0).any()
    assert (batch.timeline.text_target[batch.timeline.text_weight > 0] > 0).all()


def test_questions_that_do_not_fit_a_row_are_left_out(config, codes):
    def source(positions):
        data = dataclasses.replace(config.data, row_positions=positions)
        return spoken_qa_source(load_materials(dataclasses.replace(config, data=data), "train", codes))

    some, everything = source(40), source(400)
    assert 0 < some.num_keys < everything.num_keys
    for key in range(20):
        assert some.build(key, np.random.default_rng(key)).num_positions <= 40
