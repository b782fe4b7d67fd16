"""Tasks of `data.sources`: each from the examples that have what it needs; bad ones are replaced and counted."""

import dataclasses
import json
import os

import numpy as np
import pytest

from omni_jax.errors import UserError
from omni_jax.input_pipeline.corpus import Span, SpeechClip
from omni_jax.input_pipeline.loader import make_codec_loader, make_loader
from omni_jax.input_pipeline.own_media import cut_between_words
from omni_jax.input_pipeline.readers.record import BadRecord, Cause
from omni_jax.input_pipeline.readers.sources import HELD_OUT_EVERY, Keys, OwnSources
from omni_jax.input_pipeline.records import DataError, Quarantine
from omni_jax.input_pipeline.tasks import Task
from omni_jax.input_pipeline.tokenizer import Tokenizer, read_tokenizer
from omni_jax.types import ABSENT, Control, Modality

from .source_files import COUNT, WRITERS, picture_file, text_of, write_folder, write_own, write_webdataset
from .test_loader import assert_same, with_data

FROM_FOLDER = ("text", "asr", "hear", "frame_asr", "caption", "see", "spoken_qa", "written_qa")


def own_config(config, tasks, **sources):
    return with_data(config, sources=sources, tasks=dict.fromkeys(tasks, 1.0), patches=256)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("own") / "folder")


def test_one_folder_serves_many_tasks(config, folder):
    loader = make_loader(own_config(config, FROM_FOLDER, mine=folder))
    seen, modalities = set(), set()
    for _ in range(6):
        batch = next(loader)
        seen |= set(np.unique(batch.task))
        modalities |= set(np.unique(batch.timeline.modality))
    loader.close()
    assert seen == {Task.NONE, *(Task[name.upper()] for name in FROM_FOLDER)}
    assert {Modality.AUDIO, Modality.PATCH, Modality.FRAME} <= modalities


def test_a_chat_may_be_about_a_picture(config, tmp_path):
    (tmp_path / "dog.png").write_bytes(picture_file(0, "PNG"))
    turns = [{"from": "human", "value": "<image>\nwhat is this"}, {"from": "gpt", "value": "a dog"}]
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"picture": "dog.png", "conversations": turns}) + "\n")
    tokenizer = Tokenizer(read_tokenizer(config.data.tokenizer))
    loader = make_loader(own_config(config, ("written_qa",), mine=f"folder:{tmp_path}"))
    timeline = next(loader).timeline
    loader.close()
    first = timeline.segment_ids[0] == 1
    text = timeline.text[0][first]
    question, answer = tokenizer.encode("what is this"), tokenizer.encode("a dog")
    said = [Control.DIALOGUE, *question, Control.ANSWER, *answer, Control.EOS]
    assert text[text >= 0].tolist() == [Control.IMAGE, *said]
    assert (timeline.modality[0][first] == Modality.PATCH).sum() == config.model.vision.num_patches // 4
    assert timeline.text_weight[0][first].sum() == len(answer) + 1


def test_codes_of_the_source_are_own_speech(config, tmp_path, codes):
    loader = make_loader(own_config(config, ("tts", "frame_tts"), mine=write_own(tmp_path / "own")), codes=codes)
    timeline = next(loader).timeline
    loader.close()
    assert timeline.codes.max() > 0 and {Modality.SPEECH, Modality.FRAME} <= set(np.unique(timeline.modality))


@pytest.mark.parametrize("form", WRITERS)
def test_every_format_gives_batches(config, tmp_path, form):
    loader = make_loader(own_config(config, ("asr",), mine=WRITERS[form](tmp_path / "source")))
    batch = next(loader)
    loader.close()
    assert batch.media.mel.any() and batch.timeline.text_weight.any()


def test_a_codec_is_trained_on_whatever_has_audio(config, tmp_path):
    address = write_folder(tmp_path / "folder")
    (tmp_path / "folder" / "audio" / "1.flac").write_bytes(b"<html>")
    loader = make_codec_loader(with_data(config, sources={"mine": address}, max_bad_fraction=0.1))
    batches = [next(loader) for _ in range(5)]
    loader.close()
    wav = np.concatenate([batch.wav for batch in batches])
    assert wav.shape == (20, 30_720) and np.isfinite(wav).all() and (np.abs(wav).max(axis=1) > 0.01).all()
    assert (batches[0].phones == ABSENT).all() and batches[0].phones.shape == (4, 64)
    with pytest.raises(UserError, match="stage codec needs examples with audio"):
        (tmp_path / "texts").mkdir()
        (tmp_path / "texts" / "metadata.jsonl").write_text('{"text": "hello"}')
        make_codec_loader(with_data(config, sources={"mine": f"folder:{tmp_path}/texts"}))


def test_resume_is_bit_identical_with_bad_records_between(config, tmp_path):
    address = write_folder(tmp_path / "folder")
    (tmp_path / "folder" / "audio" / "1.flac").write_bytes(b"<html>")
    own = with_data(own_config(config, FROM_FOLDER, mine=address), max_bad_fraction=0.1)
    loader = make_loader(own)
    for _ in range(2):
        next(loader)
    state = json.loads(json.dumps(loader.get_state()))
    expected = [next(loader) for _ in range(2)]
    loader.close()
    resumed = make_loader(own)
    resumed.set_state(state)
    for batch in expected:
        assert_same(batch, next(resumed))
    resumed.close()


def damage(folder):
    (folder / "audio" / "1.flac").write_bytes(b"<html>")
    (folder / "audio" / "2.ogg").unlink()
    (folder / "pictures" / "0.png").write_bytes((folder / "pictures" / "0.png").read_bytes()[:60])
    lines = (folder / "metadata.jsonl").read_bytes().splitlines()
    lines[2 * COUNT] = b'{"text": "caf\xe9 is long enough"}'
    lines[3 * COUNT] = b'{"turns": 3}'
    (folder / "metadata.jsonl").write_bytes(b"\n".join(lines))


def test_bad_records_are_counted_by_cause_and_written_down_once(config, tmp_path):
    address = write_folder(tmp_path / "folder")
    damage(tmp_path / "folder")
    own = with_data(own_config(config, FROM_FOLDER, mine=address), max_bad_fraction=0.5)
    for batches in (7, 1):  # a second start adds nothing
        loader = make_loader(own, workdir=tmp_path / "run")
        for _ in range(batches):
            next(loader)
        loader.close()
    entries = [json.loads(line) for line in (tmp_path / "run" / "quarantine.jsonl").read_text().splitlines()]
    causes = sorted(entry["cause"] for entry in entries)
    assert causes == ["another schema", "missing file", "not UTF-8", "truncated", "unreadable"]
    assert all(entry["source"] == "mine" and entry["key"] and entry["reason"] for entry in entries)


def test_too_many_bad_records_stop_the_run_and_say_why(config, tmp_path):
    address = write_folder(tmp_path / "folder")
    damage(tmp_path / "folder")
    with pytest.raises(DataError, match=r"mine: 1 of \d+ records are bad \(data\.max_bad_fraction=0\.001; 1 "):
        loader = make_loader(own_config(config, ("asr", "caption"), mine=address))
        for _ in range(8):
            next(loader)


def test_a_quarantine_file_in_pieces_is_gone_on_with(tmp_path):
    path = tmp_path / "quarantine.jsonl"
    Quarantine(0.5, path).add("mine", "a", "is bad")
    path.write_text(path.read_text() + '{"source": "mi{"source": "mine"}\n[3]\n\n')
    quarantine = Quarantine(0.5, path)
    for key in ("a", "b"):
        quarantine.add("mine", key, "is bad")
    assert [json.loads(line)["key"] for line in path.read_text().splitlines() if "reason" in line] == ["a", "b"]


def test_a_pipe_or_a_path_out_of_the_folder_is_not_opened(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "outside.wav").write_bytes(b"RIFF")
    os.mkfifo(tmp_path / "in" / "pipe.wav")
    names = ("pipe.wav", "../outside.wav", str(tmp_path / "outside.wav"), "in", "a\0b")
    lines = [json.dumps({"audio": name, "text": "hello"}) for name in names]
    (tmp_path / "in" / "metadata.jsonl").write_text("\n".join(lines))
    own = OwnSources({"x": f"folder:{tmp_path}/in"}, Quarantine(0.99))
    for index in range(len(names)):
        with pytest.raises(BadRecord):
            own.read("x", index)


@pytest.mark.parametrize(
    ("bad", "seen", "total", "stops"),
    [
        (10, 200, 1_000_000, False),  # judged from 10,000 records on
        (11, 200, 1_000_000, True),
        (20, 20_000, 1_000_000, False),
        (21, 20_000, 1_000_000, True),
        (1, 1_000, 1_000, False),
        (1, 1, 999, True),
        (0, 10, 10, False),
    ],
)
def test_the_share_of_bad_records_is_judged_on_enough_of_them(bad, seen, total, stops):
    quarantine = Quarantine(0.001)
    quarantine.seen["x"], quarantine.total["x"] = seen, total
    for number in range(bad):
        quarantine.add("x", str(number), "is bad")
        quarantine.add("x", str(number), "is bad")  # read again in the next epoch
    if stops:
        with pytest.raises(DataError, match="x: "):
            quarantine.check("x")
    else:
        quarantine.check("x")


def test_a_missing_shard_counts_as_many_records_as_another_has(tmp_path):
    address = write_webdataset(tmp_path / "tars", shards=3)
    (tmp_path / "tars" / "shard-000001.tar").unlink()
    quarantine = Quarantine(0.5)
    own = OwnSources({"tars": address}, quarantine)
    assert len(own.readers["tars"]) == 8 and quarantine.counts("tars") == {Cause.MISSING_SHARD: 4}
    with pytest.raises(DataError, match=r"tars: 4 of 0 records are bad .*4 missing shard.*shard-000001"):
        OwnSources({"tars": address}, Quarantine(0.1))


@pytest.mark.parametrize("form", ["webdataset", "shar", "parquet", "array_record", "tfds"])
def test_a_shard_cut_in_half_is_counted_and_the_rest_is_read(tmp_path, form):
    address = WRITERS[form](tmp_path / "source")
    files = sorted(path for path in (tmp_path / "source").iterdir() if path.suffix not in (".json", ".index"))
    last = [path for path in files if not path.name.startswith("recording")][-1]
    last.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    own = OwnSources({"x": address}, quarantine := Quarantine(0.99))
    assert quarantine.counts("x")[Cause.CUT_SHARD] >= 1 and 6 <= len(own.readers["x"]) < COUNT
    assert [own.read("x", index).texts for index in range(6)] == [(text_of(index),) for index in range(6)]


def test_what_no_source_has_is_said_with_the_remedy(config, tmp_path):
    address = write_own(tmp_path / "own")
    with pytest.raises(UserError, match=r"task caption needs examples with picture and text .*mine has audio, codes"):
        make_loader(own_config(config, ("asr", "caption"), mine=address))
    with pytest.raises(UserError, match="no test examples for task asr: every 50th"):
        make_loader(own_config(config, ("asr",), mine=address), "test")
    with pytest.raises(UserError, match="task dialogue needs examples with audio and reply and reply_codes"):
        make_loader(own_config(config, ("dialogue",), mine=address))


def test_a_record_that_no_row_holds_is_bad(config, tmp_path):
    own = with_data(own_config(config, ("asr",), mine=write_webdataset(tmp_path / "tars")), audio_slots=4)
    with pytest.raises(DataError, match="longer than a row"):
        next(make_loader(own))


def test_train_and_test_share_no_example_and_lose_none():
    parts = (("a", range(120)), ("b", [3 * n for n in range(70)]))
    train, test = Keys(parts, held_out=False), Keys(parts, held_out=True)
    chosen = [[keys[n] for n in range(len(keys))] for keys in (train, test)]
    assert len(chosen[1]) == 120 // HELD_OUT_EVERY + 70 // HELD_OUT_EVERY
    assert sorted(chosen[0] + chosen[1]) == sorted((name, index) for name, part in parts for index in part)


def test_a_weight_shows_a_source_more_often(tmp_path):
    one, two = write_own(tmp_path / "one"), write_own(tmp_path / "two")
    own = OwnSources({"one": one, "two": f"{two}?weight=3"}, Quarantine(0.1))
    keys = own.keys([frozenset(["text"])], frozenset(), "train")
    drawn = [keys[number] for number in range(len(keys))]
    assert len(drawn) == 4 * COUNT and len(set(drawn)) == 2 * COUNT
    assert sum(name == "two" for name, _ in drawn) == 3 * COUNT
    for weight in ("0", "x", "1.5"):
        with pytest.raises(UserError, match=f"weight={weight}: want a whole number"):
            OwnSources({"two": f"{two}?weight={weight}"}, Quarantine(0.1))


def test_long_speech_is_cut_between_words():
    words = tuple(Span(f"w{n}", 500 * n, 500 * n + 400) for n in range(20))
    samples = np.arange(16 * 10_000).astype(np.int16)
    clip = SpeechClip("", "user", "", "", "", "", "", "", words, (), samples, 16_000)
    for seed in range(20):
        cut = cut_between_words(clip, 3_000, np.random.default_rng(seed))
        first = int(cut.words[0].text[1:])
        assert (
            cut.duration_ms <= 3_000 and len(cut.words) >= 5 and cut.text.split() == [word.text for word in cut.words]
        )
        assert cut.samples[0] == samples[first * 500 * 16] and cut.words[0].start_ms == 0
    untimed = dataclasses.replace(clip, words=())
    assert cut_between_words(untimed, 3_000, np.random.default_rng(0)) is untimed


def test_bad_records_carry_their_cause():
    error = BadRecord(Cause.EMPTY, "the audio is silent")
    assert isinstance(error, UserError) and error.cause == "empty"
