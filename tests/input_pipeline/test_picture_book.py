"""The shipped corpus through the whole input pipeline: nothing is missing, and nothing leaks between the splits."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from omni_jax.config import Config, DataConfig
from omni_jax.input_pipeline.cast import QUESTION_KINDS, make_cast
from omni_jax.input_pipeline.codes import CodeCache, num_frames
from omni_jax.input_pipeline.corpus import SPLITS, Source, load_pictures, load_speech
from omni_jax.input_pipeline.dialogue import play
from omni_jax.input_pipeline.loader import make_loader
from omni_jax.input_pipeline.materials import load_materials
from omni_jax.types import Event

CORPUS = Path(__file__).parents[2] / "data" / "corpus" / "picture_book"
TAIL = 8

pytestmark = pytest.mark.skipif(not (CORPUS / "speech").exists(), reason="the sample corpus has not been built")


@pytest.fixture(scope="module")
def shipped_config() -> Config:
    data = DataConfig(corpus=str(CORPUS), tokenizer=str(CORPUS / "spm.model"), audio_slots=256, workers=2)
    return dataclasses.replace(Config(), data=dataclasses.replace(data, tasks={"dialogue": 0.7, "frame_asr": 0.3}))


@pytest.fixture(scope="module")
def numbered_codes(shipped_config) -> CodeCache:
    """Codes that only have the right lengths: what they sound like does not matter here."""
    source = Source(shipped_config.data.corpus)
    clips = [clip for split in SPLITS for clip in load_speech(source, split, 24_000) if clip.role == "assistant"]
    codes = {clip.id: np.ones((num_frames(clip.samples) + TAIL, 8), np.int32) for clip in clips}
    fades = {name: {12: own[:TAIL]} for name, own in codes.items() if len(own) > 40}
    return CodeCache("0" * 64, np.zeros(8, np.int32), codes, fades)


def test_every_kind_of_question_has_answers_in_both_splits(shipped_config, numbered_codes):
    for split in SPLITS:
        cast = make_cast(load_materials(shipped_config, split, numbered_codes))
        assert set(cast.questions) == set(QUESTION_KINDS)
        assert cast.stops and cast.backchannels and cast.side_talks
        assert len(cast.labels) >= 16


def test_held_out_voices_pictures_and_questions_are_not_in_training(shipped_config):
    source = Source(shipped_config.data.corpus)
    train, test = ([c for c in load_speech(source, split, 24_000) if c.role == "user"] for split in SPLITS)
    assert not {clip.voice for clip in train} & {clip.voice for clip in test}
    asked = ({c.text for c in clips if c.kind in ("fact_question", "repeat_request")} for clips in (train, test))
    assert not set.intersection(*asked)
    clusters = [{picture.cluster for picture in load_pictures(source, split)} for split in SPLITS]
    assert not set.intersection(*clusters)


def test_dialogues_of_the_corpus_fit_and_have_everything(shipped_config, numbered_codes):
    materials = load_materials(shipped_config, "train", numbered_codes)
    cast = make_cast(materials)
    events = np.concatenate([play(materials, cast, i, np.random.default_rng(i))[1].event for i in range(60)])
    assert set(events.tolist()) == {int(event) for event in Event}


def test_batches_of_the_corpus_have_the_configured_shapes(shipped_config, numbered_codes):
    loader = make_loader(shipped_config, "train", numbered_codes)
    timeline, media, speech_index, task = next(loader)
    loader.close()
    assert timeline.text.shape == task.shape == (8, 256) and timeline.codes.shape == (8, 256, 8)
    assert media.mel.shape == (8, 2048, 80) and media.patches.shape == (8, 128, 192)
    assert media.ctc_labels.shape == (8, 12, 128) and speech_index.shape == (8, 128)
    assert np.mean(timeline.segment_ids > 0) > 0.85
    heard = media.mel[np.repeat(media.mel_segment_ids > 0, 8, axis=1)]
    assert np.isfinite(heard).all() and heard.std() > 0.1
