"""Bad records are counted, written down, and stop the run when there are too many. Nothing is dropped silently."""

import json

import numpy as np
import pytest

from omni_jax.errors import UserError
from omni_jax.input_pipeline.corpus import Source, load_pictures, load_speech, load_text
from omni_jax.input_pipeline.records import DataError, parse_example
from omni_jax.input_pipeline.tokenizer import Tokenizer, load_tokenizer, read_tokenizer
from omni_jax.types import Control

from .conftest import LINES, picture_features, serialise, speech_features, write_records

GOOD = 9


def speech_corpus(root, mutate):
    records = [serialise(speech_features(i, LINES[6])) for i in range(GOOD)]
    features = speech_features(99, LINES[6])
    return write_records(root / "speech" / "1.0.0", "train", [*records, mutate(features)])


def truncated_audio(features):
    return serialise(features | {"audio": features["audio"][:150]})


MUTATIONS = {
    "not a record": (lambda features: b"\xff\xff garbage", "tf.Example"),
    "cut record": (lambda features: serialise(features)[:300], "tf.Example"),
    "no audio field": (lambda f: serialise({k: v for k, v in f.items() if k != "audio"}), "audio"),
    "not audio": (lambda features: serialise(features | {"audio": b"RIFF nonsense"}), ""),
    "truncated audio": (truncated_audio, ""),
    "words without times": (lambda f: serialise(f | {"word_end_ms": f["word_end_ms"][:1]}), "ends"),
    "words out of order": (lambda f: serialise(f | {"word_start_ms": f["word_start_ms"][::-1]}), "order"),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_bad_record_is_set_aside_and_named(tmp_path, name):
    mutate, reason = MUTATIONS[name]
    speech_corpus(tmp_path, mutate)
    quarantine = tmp_path / "run" / "quarantine.jsonl"
    clips = load_speech(Source(str(tmp_path), 0.2, str(quarantine)), "train", 24_000)
    assert len(clips) == GOOD
    (line,) = quarantine.read_text().splitlines()
    entry = json.loads(line)
    assert entry["key"].endswith(f"[{GOOD}]") and reason in entry["reason"] and "speech" in entry["source"]


def test_stages_share_what_was_decoded_and_each_writes_down_the_bad(tmp_path):
    speech_corpus(tmp_path, truncated_audio)
    paths = [tmp_path / stage / "quarantine.jsonl" for stage in ("perceive", "align")]
    first, second = (load_speech(Source(str(tmp_path), 0.2, str(path)), "train", 24_000) for path in paths)
    assert first is second
    assert paths[0].read_text() == paths[1].read_text() != ""


def test_too_many_bad_records_stop_the_run_and_name_the_source(tmp_path):
    speech_corpus(tmp_path, truncated_audio)
    with pytest.raises(
        DataError, match=r"speech/1\.0\.0: 1 of 10 records are bad \(data\.max_bad_fraction=0\.05; 1 unreadable\)"
    ):
        load_speech(Source(str(tmp_path), 0.05), "train", 24_000)


def test_a_truncated_file_is_named(tmp_path):
    path = speech_corpus(tmp_path, serialise)
    path.write_bytes(path.read_bytes()[:4000])
    with pytest.raises(DataError, match=path.name):
        load_speech(Source(str(tmp_path), 1.0), "train", 24_000)


def test_a_missing_shard_is_named(tmp_path):
    path = speech_corpus(tmp_path, serialise)
    path.rename(path.with_name(path.name.replace("of-00001", "of-00002")))
    with pytest.raises(DataError, match="1 of 2 train shards"):
        load_speech(Source(str(tmp_path), 1.0), "train", 24_000)


def test_an_unreadable_picture_is_set_aside(tmp_path):
    good, bad = picture_features("dog", 1), picture_features("cat", 2)
    records = [serialise(good), serialise(bad | {"image": bad["image"][:40]})]
    write_records(tmp_path / "pictures" / "1.0.0", "train", records)
    assert [picture.label for picture in load_pictures(Source(str(tmp_path), 0.5), "train")] == ["dog"]
    with pytest.raises(DataError, match="pictures"):
        load_pictures(Source(str(tmp_path), 0.4), "train")


def test_examples_are_read_as_they_were_written():
    features = parse_example(serialise({"text": "née", "numbers": [3, -4], "words": ["a", "b"], "none": []}))
    assert features == {"text": ["née".encode()], "numbers": [3, -4], "words": [b"a", b"b"], "none": []}


def test_oversized_records_are_refused():
    with pytest.raises(DataError, match="exceeds the limit"):
        parse_example(b"\0" * (9 << 20))


def test_the_corpus_is_complete(corpus):
    source = Source(str(corpus))
    clips = load_speech(source, "train", 24_000)
    assert [clip.text for clip in clips] == [line[2] for line in LINES]
    assert [word.text for word in clips[0].words] == clips[0].text.split()
    slow = load_speech(source, "train", 16_000)[0]
    assert len(slow.samples) == pytest.approx(len(clips[0].samples) * 2 / 3, abs=2)
    assert np.abs(clips[0].wav()).max() == pytest.approx(0.3, abs=0.05)
    assert load_text(source, "test") == tuple(line[2] for line in LINES)
    assert {picture.image.shape for picture in load_pictures(source, "test")} == {(32, 32, 3)}


def test_words_have_the_same_pieces_alone_and_in_text(corpus):
    tokenizer = Tokenizer(read_tokenizer(corpus / "spm.model"))
    text = "two comes after one"
    pieces = [piece for word in text.split() for piece in tokenizer.encode_word(word)]
    assert tokenizer.encode(text) == pieces and min(pieces) > max(Control)
    assert tokenizer.decode([Control.SPEAK, *pieces, Control.END_OF_TURN]) == text


def test_a_vocabulary_of_another_size_is_an_error(corpus):
    with pytest.raises(UserError, match=r"set model\.vocab_size="):
        load_tokenizer(corpus / "spm.model", 9999)


def test_bytes_that_are_no_vocabulary_are_an_error():
    with pytest.raises(UserError, match="not a SentencePiece model"):
        Tokenizer(b"not a model")
