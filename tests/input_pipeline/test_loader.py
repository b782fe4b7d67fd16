"""The stream of batches: exact resume, shares, packing, and what it refuses."""

import dataclasses
import json
import shutil
import threading

import numpy as np
import pytest

from omni_jax.errors import UserError
from omni_jax.input_pipeline.batch_keys import batch_keys
from omni_jax.input_pipeline.codec_loader import CodecCrops, at_speed, draw_speed
from omni_jax.input_pipeline.loader import make_codec_loader, make_loader
from omni_jax.input_pipeline.materials import TaskSource, corpus_source, load_materials
from omni_jax.input_pipeline.records import DataError
from omni_jax.input_pipeline.task_stream import TaskExamples, shuffled_keys
from omni_jax.input_pipeline.tasks import Task
from omni_jax.types import ABSENT, Modality

ALL_TASKS = {
    "text": 0.2, "asr": 0.1, "tts": 0.1, "frame_asr": 0.1, "frame_tts": 0.1, "caption": 0.1, "picture_qa": 0.1,
    "dialogue": 0.2, "hear": 0.003, "see": 0.003, "spoken_qa": 0.1,
}  # fmt: skip
SHARE_TOLERANCE = 0.03


def with_data(config, **changes):
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **changes))


def leaves(batch):
    for part in batch:
        yield from part if isinstance(part, tuple) else (part,)


def assert_same(first, second):
    for a, b in zip(leaves(first), leaves(second), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture
def everything(config):
    return with_data(config, tasks=ALL_TASKS, patches=256)


def test_state_is_of_the_last_batch_handed_out(everything, codes):
    eager = make_loader(with_data(everything, prefetch=4), "train", codes)
    lazy = make_loader(with_data(everything, prefetch=1), "train", codes)
    for _ in range(2):
        next(eager), next(lazy)
    assert eager.get_state() == lazy.get_state()
    eager.close()
    lazy.close()


def test_shares_of_positions_are_the_configured_ones(everything, codes):
    loader = make_loader(everything, "train", codes)
    counts = np.zeros(len(Task))
    for _ in range(15):
        counts += np.bincount(next(loader).task.ravel(), minlength=len(Task))
    shares = counts[1:] / counts[1:].sum()
    for name, share in ALL_TASKS.items():
        assert shares[Task[name.upper()] - 1] == pytest.approx(share, abs=SHARE_TOLERANCE)
    loader.close()


@pytest.mark.parametrize("shards", [1, 4])
def test_rows_are_filled(everything, codes, shards):
    loader = make_loader(with_data(everything, shards=shards), "train", codes)
    filled = np.mean([np.mean(next(loader).timeline.segment_ids > 0) for _ in range(8)])
    loader.close()
    assert filled > 0.97


@pytest.mark.parametrize("rows_per_pool", [1, 2])
def test_media_never_cross_a_segment(everything, codes, rows_per_pool):
    loader = make_loader(with_data(everything, rows_per_pool=rows_per_pool), "train", codes)
    for _ in range(2):
        timeline, media, *_ = next(loader)
        for row in range(len(timeline.text)):
            pool = row // rows_per_pool
            for index, ids in (
                (timeline.audio_index[row], media.mel_segment_ids[pool]),
                (timeline.patch_index[row], media.patch_segment_ids[pool][::4]),
            ):
                used = index != ABSENT
                pairs = set(zip(timeline.segment_ids[row][used], ids[index[used]], strict=True))
                assert all(media_segment > 0 for _, media_segment in pairs)
                assert len({segment for segment, _ in pairs}) == len(pairs) == len({m for _, m in pairs})
    loader.close()


def test_padding_is_neither_carried_nor_a_target(everything, codes):
    loader = make_loader(with_data(everything, max_segments=1), "train", codes)
    timeline, _, speech_index, task = next(loader)
    loader.close()
    padding = timeline.segment_ids == 0
    assert padding.any()
    assert not timeline.text_weight[padding].any() and not timeline.codes_weight[padding].any()
    assert (timeline.text[padding] == ABSENT).all() and (timeline.modality[padding] == Modality.PADDING).all()
    assert (task[padding] == Task.NONE).all()
    last = np.diff(timeline.segment_ids, axis=1, append=0) != 0
    assert not timeline.text_weight[last].any() and not timeline.codes_weight[last].any()
    rows, slots = np.nonzero(speech_index != ABSENT)
    assert timeline.codes_weight[rows, speech_index[rows, slots], 0].all()


def test_speech_positions_are_bounded_and_in_order(everything, codes):
    loader = make_loader(with_data(everything, speech_positions=16, tasks={"dialogue": 1.0}), "train", codes)
    speech_index = next(loader).speech_index
    loader.close()
    assert speech_index.shape == (4, 16) and (np.diff(speech_index, axis=1) > 0).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": {"dialog": 1.0}}, "data.tasks has dialog"),
        ({"tasks": {}}, "at least one task"),
        ({"tasks": {"tts": 1.0}}, "training.codec_from"),
        ({"tasks": {"asr": 1.0}, "audio_slots": 4}, "no data for task asr"),
        ({"corpus": "nowhere"}, "no train split"),
        ({"tokenizer": "nowhere/spm.model"}, "data.tokenizer"),
    ],
)
def test_what_cannot_work_is_said_in_one_line(config, changes, message):
    with pytest.raises(UserError, match=message):
        next(make_loader(with_data(config, **changes), "train", None))


def test_closing_ends_the_thread(config):
    before = threading.active_count()
    loader = make_loader(config)
    next(loader)
    assert threading.active_count() == before + 1
    loader.close()
    loader.close()
    assert threading.active_count() == before


def test_codec_batches_resume_and_carry_phones(config):
    loader = make_codec_loader(config)
    batches = [next(loader) for _ in range(3)]
    assert batches[0].wav.shape == (4, 30_720) and batches[0].phones.shape == (4, 64)
    assert batches[0].wav.dtype == np.float32 and batches[0].phones.dtype == np.int32
    assert {0, 1} <= set(np.unique([batch.phones for batch in batches]))
    resumed = make_codec_loader(config)
    next(resumed)
    state = json.loads(json.dumps(resumed.get_state()))
    resumed.close()
    again = make_codec_loader(config)
    again.set_state(state)
    for batch in batches[1:]:
        assert_same(batch, next(again))
    again.close()
    loader.close()


def test_the_codec_hears_readings_where_it_is_to(config, tmp_path):
    corpus = shutil.copytree(config.data.corpus, tmp_path / "corpus")
    shutil.copytree(corpus / "speech", corpus / "readings")

    def num_clips(split, readings, corpus=corpus):
        training = dataclasses.replace(config.codec_training, readings=readings)
        changed = dataclasses.replace(with_data(config, corpus=str(corpus)), codec_training=training)
        return CodecCrops(changed, corpus_source(changed), split).num_clips

    assert num_clips("train", True) == 2 * num_clips("train", False)
    assert num_clips("test", True) == num_clips("test", False)
    with pytest.raises(DataError, match="readings"):
        num_clips("train", True, config.data.corpus)


def test_another_speed_moves_pitch_and_phones_together(config):
    tone = np.sin(2 * np.pi * 400.0 * np.arange(60_000) / 24_000).astype(np.float32)
    spectrum = np.abs(np.fft.rfft(at_speed(tone, 1.25, 24_000)))
    assert np.argmax(spectrum) == 500
    training = dataclasses.replace(config.codec_training, speed_range=0.3)
    crops = CodecCrops(dataclasses.replace(config, codec_training=training), corpus_source(config), "train")
    clip = next(clip for clip in crops._clips if clip.phones)
    slow, fast = crops._phones(clip, 0, 0.5), crops._phones(clip, 0, 1.0)
    assert len(set(fast)) > 3
    assert np.mean(slow[: len(fast)][::2] == fast[: len(slow[::2])]) > 0.8  # but for the rounding to 20 ms
    drawn = [crops.crop(0, np.random.default_rng(seed)) for seed in range(4)]
    assert all(crop.wav.shape == (30_720,) and crop.wav.dtype == np.float32 for crop in drawn)
    assert len({draw_speed(0.3, np.random.default_rng(seed)) for seed in range(20)}) > 5


def test_readings_are_heard_by_the_encoder_alone(everything, tmp_path):
    corpus = shutil.copytree(everything.data.corpus, tmp_path / "corpus")
    shutil.copytree(corpus / "speech", corpus / "readings")
    config = with_data(everything, corpus=str(corpus), tasks={"reading": 1.0})
    loader = make_loader(config, "train", None)
    batch = next(loader)
    loader.close()
    real = batch.task != Task.NONE
    assert set(batch.task[real]) == {Task.READING}
    assert np.all(batch.timeline.text_weight[real] == 0)
    assert np.any(batch.media.phones > 0) and np.any(batch.media.words > 0)
    with pytest.raises(DataError, match="readings"):
        make_loader(with_data(config, corpus=everything.data.corpus), "train", None)


def test_the_crowd_joins_the_users_of_training(everything, tmp_path):
    corpus = shutil.copytree(everything.data.corpus, tmp_path / "corpus")
    shutil.copytree(corpus / "speech", corpus / "crowd")

    def num_users(split, corpus):
        return len(load_materials(with_data(everything, corpus=str(corpus)), split).speech("user"))

    assert num_users("train", corpus) == 2 * num_users("train", everything.data.corpus) > 0
    assert num_users("test", corpus) == num_users("test", everything.data.corpus)


def test_the_stream_does_not_depend_on_who_reads_its_shards(everything, codes):
    config = with_data(everything, shards=4)
    whole = make_loader(config, "train", codes)
    parts = [make_loader(config, "train", codes, shards=shards) for shards in ((0, 1), (2, 3))]
    before = whole.get_state()
    for _ in range(2):
        batches = [list(leaves(next(part))) for part in parts]
        for found, expected in zip(zip(*batches, strict=True), leaves(next(whole)), strict=True):
            np.testing.assert_array_equal(np.concatenate(found), expected)
    keys = batch_keys(before, whole.get_state(), stride=4)
    assert keys["text"] == sorted(set(keys["text"])) and keys.keys() <= ALL_TASKS.keys()
    for loader in (whole, *parts):
        loader.close()


@pytest.mark.parametrize("num_keys", [7, 70_000])
def test_examples_have_the_keys_and_random_numbers_of_grains_random_map(num_keys):
    def build(key, rng):
        return key, *rng.integers(1000, size=3), rng.random()

    ours = TaskExamples(TaskSource(num_keys, build), Task.TEXT, seed=3)
    seed = int(np.random.SeedSequence([3, Task.TEXT]).generate_state(1)[0])
    of_grain = shuffled_keys(num_keys, seed).random_map(build, seed=seed)
    for index in (0, 5, 5, 99_999, 3):
        assert ours[index] == of_grain[index]
