"""Offline work: any source to ArrayRecord, codes, a vocabulary, deduplication, and going on after a stop."""

import argparse
import json

import numpy as np
import pytest
import sentencepiece
import soundfile
from input_pipeline.conftest import loudness_codes
from input_pipeline.source_files import COUNT, text_of, write_folder, write_own, write_webdataset

from data import deduplicate, encode_codes, prepare, train_tokenizer
from omni_jax.errors import UserError
from omni_jax.input_pipeline.decode import decode_audio
from omni_jax.input_pipeline.readers.address import open_reader
from omni_jax.input_pipeline.records import DataError
from omni_jax.types import Control


def prepare_flags(source, out, **changes):
    flags = {"split": "train", "records_per_shard": 5, "rate_hz": 24_000, "workers": 1, "max_bad_fraction": 0.2}
    return argparse.Namespace(source=source, out=out, **flags | changes)


@pytest.fixture
def in_one_process(monkeypatch):
    """Spawned processes import JAX for seconds each; one test has them."""

    class Pool:
        def __init__(self, *_, **__):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        map = staticmethod(map)

    monkeypatch.setattr(prepare, "ProcessPoolExecutor", Pool)


def test_a_folder_becomes_array_records_with_a_card(tmp_path, in_one_process):
    source, out = write_folder(tmp_path / "folder"), tmp_path / "prepared"
    (tmp_path / "folder" / "audio" / "3.opus").write_bytes(b"<html>")
    assert prepare.prepare(prepare_flags(source, out)) == (4 * COUNT - 1, 1)
    reader = open_reader("x", f"array_record:{out}")
    before = open_reader("x", source)
    records = [reader[i] for i in range(len(reader))]
    assert records[0].texts == (text_of(0),) and records[0].words == before[0].words
    assert records[0].reply == "the cat sits"
    wav = decode_audio(records[0].audio, 24_000)
    assert len(wav) == 12_000 and np.sqrt(np.mean(np.square(wav))) == pytest.approx(10 ** (-23 / 20), rel=0.05)
    assert records[COUNT].picture == before[COUNT + 1].picture and records[COUNT].label == "dog"
    assert [turn.texts for turn in records[-1].turns] == [("hello",), ("hello there",)]
    card = json.loads((out / "card.json").read_text())
    assert card["having"]["audio"] == COUNT - 1 and card["set_aside"] == {"unreadable": 1}
    assert card["seconds"] == pytest.approx((COUNT - 1) * 0.5, abs=0.6) and (out / "card.png").stat().st_size > 1000
    assert "| unreadable | 1 |" in (out / "card.md").read_text()


def test_preparation_goes_on_where_it_was_stopped(tmp_path, in_one_process):
    source, out = write_webdataset(tmp_path / "tars"), tmp_path / "prepared"
    prepare.prepare(prepare_flags(source, out))
    shards = sorted(out.glob("*.array_record-*"))
    contents = [path.read_bytes() for path in shards]
    times = [path.stat().st_mtime_ns for path in shards]
    shards[1].unlink()
    (out / "00001.done.json").unlink()
    prepare.prepare(prepare_flags(source, out))
    assert [path.read_bytes() for path in shards] == contents and len(shards) == 3
    assert shards[0].stat().st_mtime_ns == times[0] and shards[2].stat().st_mtime_ns == times[2]
    with pytest.raises(UserError, match="take another --out"):
        prepare.prepare(prepare_flags(source, out, rate_hz=16_000))


def test_what_could_not_be_read_again_is_not_written(tmp_path, in_one_process):
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in" / "long.wav", 0.1 * rng.standard_normal(16_000 * 400), 16_000)
    (tmp_path / "in" / "metadata.jsonl").write_text('{"audio": "long.wav"}\n')
    args = prepare_flags(f"folder:{tmp_path}/in", tmp_path / "out", rate_hz=16_000, max_bad_fraction=0.99)
    with pytest.raises(DataError, match="1 too large"):
        prepare.prepare(args)


def test_too_much_bad_speech_stops_preparation(tmp_path, in_one_process):
    source = write_folder(tmp_path / "folder")
    (tmp_path / "folder" / "audio" / "0.wav").write_bytes(b"")
    with pytest.raises(DataError, match=r"1 of 48 records are bad"):
        prepare.prepare(prepare_flags(source, tmp_path / "out", max_bad_fraction=0.001))


def test_codes_are_added_once(tmp_path):
    source, out = write_own(tmp_path / "own"), tmp_path / "coded"
    args = argparse.Namespace(source=source, out=out, split="train", records_per_shard=5, max_bad_fraction=0.0)
    assert encode_codes.encode_source(args, loudness_codes, "a" * 64) == COUNT
    record = open_reader("x", f"array_record:{out}")[0]
    assert record.codes.shape == (7 + 3, 4) and record.codes[2, 0] > 10 and record.codes[-1, 0] == 0
    assert record.texts == (text_of(0),) and record.words
    calls = []
    assert encode_codes.encode_source(args, lambda wav: calls.append(1), "a" * 64) == COUNT and not calls
    with pytest.raises(UserError, match="under another codec"):
        encode_codes.encode_source(args, loudness_codes, "b" * 64)


def test_a_vocabulary_of_ones_own_has_the_control_tokens(tmp_path, capsys):
    source, out = write_folder(tmp_path / "folder"), tmp_path / "spm.model"
    assert train_tokenizer.main([f"--source={source}", "--vocab_size=60", f"--out={out}"]) == 0
    model = sentencepiece.SentencePieceProcessor(model_file=str(out))
    assert model.get_piece_size() == 60 and "60 pieces" in capsys.readouterr().out
    assert [model.id_to_piece(token) for token in (Control.LISTEN, Control.AUDIO)] == ["<listen>", "<audio>"]
    assert model.decode(model.encode("the red dog")) == "the red dog"
    with pytest.raises(UserError, match="--vocab_size=9000"):
        train_tokenizer.main([f"--source={source}", "--vocab_size=9000", f"--out={out}"])


def write_texts(folder, texts):
    folder.mkdir()
    (folder / "metadata.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return f"folder:{folder}"


def test_equal_texts_are_dropped(tmp_path):
    source = write_texts(tmp_path / "texts", ["One two.", "three", "one  TWO", "three", "four"])
    out = tmp_path / "clean"
    deduplicate.main([f"--source={source}", f"--out={out}", "--exact", "--shards=2"])
    reader = open_reader("x", f"array_record:{out}")
    assert sorted(reader[i].texts[0] for i in range(len(reader))) == ["One two.", "four", "three"]
    repeats = [json.loads(line) for line in (out / "duplicates.jsonl").read_text().splitlines()]
    assert repeats == [{"record": 2, "repeats": 0, "how": "equal"}, {"record": 3, "repeats": 1, "how": "equal"}]


def test_a_caption_that_is_said_twice_costs_no_picture(tmp_path):
    source, out = write_folder(tmp_path / "folder"), tmp_path / "clean"
    lines = (tmp_path / "folder" / "metadata.jsonl").read_text().splitlines()
    (tmp_path / "folder" / "metadata.jsonl").write_text("".join(f"{line}\n{line}\n" for line in lines))
    deduplicate.main([f"--source={source}", f"--out={out}", "--exact", "--shards=1"])
    reader = open_reader("x", f"array_record:{out}")
    records = [reader[i] for i in range(len(reader))]
    of_media = [record for record in records if record.audio is not None or record.picture is not None]
    of_text = [record for record in records if record.audio is None and record.picture is None and record.texts]
    assert len(of_media) == 2 * 2 * COUNT and len(of_text) == len({record.texts for record in of_text}) > 0


def test_near_texts_are_dropped(tmp_path):
    pytest.importorskip("datasketch")
    words = [f"w{n}" for n in range(200)]
    changed = [*words[:100], "another", *words[101:]]
    texts = [" ".join(part) for part in (words, changed, reversed(words))]
    source, out = write_texts(tmp_path / "texts", texts), tmp_path / "clean"
    deduplicate.main([f"--source={source}", f"--out={out}", "--shards=1"])
    (repeat,) = [json.loads(line) for line in (out / "duplicates.jsonl").read_text().splitlines()]
    assert repeat == {"record": 1, "repeats": 0, "how": "near"}
