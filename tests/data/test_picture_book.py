"""The shipped corpus: sizes, splits, voices, timings, audio and vocabulary. Reads ArrayRecord without TensorFlow."""

import collections
import io
import pathlib
import re

import numpy as np
import PIL.Image
import pytest
import sentencepiece
import soundfile

from data.picture_book import catalogue, lexicon, phrases, script, tokenizer, voices
from data.picture_book import crowd as crowd_script
from data.picture_book import pictures as pictures_script
from data.picture_book import readings as readings_script

ROOT = pathlib.Path(__file__).resolve().parents[2]
CORPUS = ROOT / "data" / "corpus" / "picture_book"
LARGEST_BYTES = 34_000_000
SPLITS = ("train", "test")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _fields(data: bytes) -> list[tuple[int, bytes | int]]:
    """(number, value) of a protobuf message that has varints and length-delimited fields only."""
    at, found = 0, []
    while at < len(data):
        key, at = _varint(data, at)
        value, at = _varint(data, at)
        if key & 7 == 2:
            value, at = data[at : at + value], at + value
        found.append((key >> 3, value))
    return found


def _feature(data: bytes) -> list:
    """The values of a `tf.train.Feature` that holds bytes or int64."""
    kind, message = _fields(data)[0]
    values = _fields(message)
    if kind == 1:
        return [value for _, value in values]
    integers = []
    for _, value in values:
        at, packed = 0, value if isinstance(value, bytes) else b""
        integers += [value] if isinstance(value, int) else []
        while at < len(packed):
            number, at = _varint(packed, at)
            integers.append(number)
    return integers


def parse_example(record: bytes) -> dict[str, list]:
    """A `tf.train.Example` as name -> list of bytes or int."""
    ((_, feature_map),) = _fields(record)
    result = {}
    for _, entry in _fields(feature_map):
        pair = dict(_fields(entry))
        result[pair[1].decode()] = _feature(pair[2]) if pair[2] else []
    return result


def _read(config: str, split: str) -> list[dict[str, list]]:
    array_record = pytest.importorskip("array_record.python.array_record_module")
    examples = []
    for path in sorted((CORPUS / config / "1.0.0").glob(f"*-{split}.array_record-*")):
        reader = array_record.ArrayRecordReader(str(path))
        examples += [parse_example(record) for record in reader.read_all()]
    return examples


def _text(example: dict, name: str) -> str:
    return example[name][0].decode()


@pytest.fixture(scope="module")
def speech() -> dict[str, list[dict]]:
    return {split: _read("speech", split) for split in SPLITS}


@pytest.fixture(scope="module")
def readings() -> list[dict]:
    return _read("readings", "train")


@pytest.fixture(scope="module")
def crowd() -> list[dict]:
    return _read("crowd", "train")


@pytest.fixture(scope="module")
def pictures() -> dict[str, list[dict]]:
    return {split: _read("pictures", split) for split in SPLITS}


def _users(examples: list[dict]) -> list[dict]:
    return [e for e in examples if _text(e, "role") == "user"]


def test_the_corpus_is_small_enough_for_git():
    total = sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file())
    assert total <= LARGEST_BYTES


def test_everything_in_the_script_was_spoken(speech):
    spoken = {_text(e, "id") for split in SPLITS for e in speech[split]}
    assert spoken == {u.id for u in script.plan()}


def test_picture_clusters_do_not_cross_the_split(pictures):
    clusters = [{e["cluster"][0] for e in pictures[split]} for split in SPLITS]
    assert not clusters[0] & clusters[1]


def test_no_training_picture_looks_like_a_held_out_one(pictures):
    hashes = {split: [_hashes(e["image"][0]) for e in pictures[split]] for split in SPLITS}
    grey, outline = (np.stack([h[i] for h in hashes["train"]]) for i in range(2))
    for own_grey, own_outline in hashes["test"]:
        grey_bits, outline_bits = (grey != own_grey).sum(-1), (outline != own_outline).sum(-1)
        assert grey_bits.min() > pictures_script.GREY_BITS
        similar = outline_bits <= pictures_script.OUTLINE_BITS
        assert not (similar & (grey_bits <= pictures_script.OUTLINE_GREY_BITS)).any()


def _hashes(png: bytes) -> tuple[np.ndarray, np.ndarray]:
    return pictures_script.hashes(PIL.Image.open(io.BytesIO(png)))


def test_every_class_has_pictures_enough(pictures):
    for split, least in (("train", 10), ("test", 7)):
        counts = collections.Counter(_text(e, "label") for e in pictures[split])
        assert set(counts) == set(phrases.NOUNS) == set(catalogue.DRAWINGS)
        assert min(counts.values()) >= least
    assert len(phrases.NOUNS) >= 16


def test_pictures_are_png_of_the_stated_size(pictures):
    for example in pictures["test"]:
        header = example["image"][0]
        assert header[:8] == b"\x89PNG\r\n\x1a\n"
        assert int.from_bytes(header[16:20], "big") == int.from_bytes(header[20:24], "big") == 64


def test_held_out_voices_speak_in_test_only_and_reserved_ones_never(speech):
    heard = {split: {_text(e, "voice") for e in _users(speech[split])} for split in SPLITS}
    assert heard["train"] == set(voices.TRAIN)
    assert heard["test"] == set(voices.HELD)
    assert not (heard["train"] | heard["test"]) & set(voices.RESERVED)
    assert all(e["held_voice"][0] == (split == "test") for split in SPLITS for e in _users(speech[split]))


def test_readings_and_crowd_have_a_voice_a_clip_that_no_held_out_or_reserved_voice_is_part_of(readings, crowd):
    assert len(readings) == readings_script.CLIPS and len(crowd) == len(crowd_script.plan())
    names = [_text(e, "voice") for e in readings + crowd]
    assert len(set(names)) == len(names)
    for name in names:
        weights = voices.blend(name)
        assert sum(weights.values()) == pytest.approx(1) and len(weights) == 3
        assert set(weights) <= set(voices.ANCHORS)
    assert not set(voices.ANCHORS) & {*voices.HELD, *voices.RESERVED}


def test_readings_are_of_the_training_text(readings):
    lines = {split: {script.normalise(_text(e, "text")) for e in _read("text", split)} for split in SPLITS}
    said = {_text(e, "text") for e in readings}
    assert said <= lines["train"] and not said & lines["test"]


def test_the_crowd_says_what_users_say_in_training_and_is_answered_alike(speech, crowd):
    said = {(_text(e, "kind"), _text(e, "text")): e for e in _users(speech["train"])}
    for example in crowd:
        known = said[_text(example, "kind"), _text(example, "text")]
        assert [_text(example, name) for name in ("reply", "answer_id")] == [
            _text(known, name) for name in ("reply", "answer_id")
        ]
    assert {_text(e, "kind") for e in crowd} == set(crowd_script.TAKES)


def test_held_out_combinations_and_sentences_are_not_in_training(speech):
    trained = {_text(e, "text") for e in speech["train"]}
    trained_pairs = {(_text(e, "template"), _text(e, "slot")) for e in _users(speech["train"])}
    held = [e for e in speech["test"] if e["held_text"][0]]
    assert not any(e["held_text"][0] for e in speech["train"])
    assert not {_text(e, "text") for e in held} & trained
    combined = [e for e in _users(held) if _text(e, "kind") in ("fact_question", "tell", "repeat_request")]
    assert len(combined) > 100
    assert not {(_text(e, "template"), _text(e, "slot")) for e in combined} & trained_pairs


def test_parts_of_held_out_combinations_are_in_training(speech):
    for kind in ("fact_question", "tell"):
        train, test = ([e for e in _users(speech[s]) if _text(e, "kind") == kind] for s in SPLITS)
        for part in ("template", "slot", "reply"):
            assert {_text(e, part) for e in test} <= {_text(e, part) for e in train}


def test_held_out_speech_has_words_that_training_has(speech):
    words = {split: {w for e in speech[split] for w in e["words"]} for split in SPLITS}
    assert words["test"] <= words["train"]


def test_held_out_text_is_not_in_the_training_text(speech):
    lines = {script.normalise(_text(e, "text")) for e in _read("text", "train")}
    for example in speech["test"]:
        if example["held_text"][0]:
            assert _text(example, "text") not in lines


def test_every_reply_was_spoken_exactly_once(speech):
    clips = [e for split in SPLITS for e in speech[split] if _text(e, "role") == "assistant"]
    counts = collections.Counter(_text(e, "text") for e in clips)
    ids = {_text(e, "id"): _text(e, "text") for e in clips}
    assert set(counts.values()) == {1}
    for split in SPLITS:
        for example in _users(speech[split]):
            reply = _text(example, "reply")
            if reply not in ("", script.PICTURE):
                assert ids[_text(example, "answer_id")] == reply
    for noun in phrases.NOUNS:
        for template in phrases.PICTURE_REPLIES:
            assert counts[script.normalise(template.format(a=script.with_article(noun)))] == 1


def test_every_kind_is_in_both_splits(speech):
    kinds = {split: {_text(e, "kind") for e in _users(speech[split])} for split in SPLITS}
    assert kinds["train"] == kinds["test"] >= {"picture_question", "stop", "backchannel", "side_talk", "repeat_request"}


def test_facts_have_many_balanced_answers(speech):
    counts = collections.Counter(
        _text(e, "reply") for e in _users(speech["train"]) if _text(e, "kind") == "fact_question"
    )
    assert len(counts) >= 40
    assert max(counts.values()) <= 2 * min(counts.values())


def test_some_answers_are_long_enough_to_be_interrupted(speech):
    long = [e for e in speech["train"] if _text(e, "template") == "tell"]
    assert len(long) >= 24
    assert all(e["num_samples"][0] / e["sample_rate"][0] > 2.5 for e in long)


@pytest.mark.parametrize("split", SPLITS)
def test_timings_are_monotone_and_inside_the_clip(speech, split):
    for example in speech[split]:
        milliseconds = example["num_samples"][0] * 1000 / example["sample_rate"][0]
        assert [w.decode() for w in example["words"]] == _text(example, "text").split()
        for unit in ("word", "phone"):
            starts, ends = np.array(example[f"{unit}_start_ms"]), np.array(example[f"{unit}_end_ms"])
            assert len(starts) == len(ends) == len(example[f"{unit}s"])
            assert (starts < ends).all() and (ends[:-1] <= starts[1:]).all()
            assert starts[0] >= 0 and ends[-1] <= milliseconds
        assert example["phone_start_ms"][0] == 0
        assert {p.decode() for p in example["phones"]} <= set(lexicon.PHONES)


def test_opus_decodes_to_the_stated_length_and_level(speech):
    for example in speech["test"][::10]:
        audio, rate = soundfile.read(io.BytesIO(example["audio"][0]), dtype="float32")
        assert rate == example["sample_rate"][0] == 24000
        assert audio.shape == (example["num_samples"][0],)
        start, end = example["word_start_ms"][0] * 24, example["word_end_ms"][-1] * 24
        level_dbfs = 10 * np.log10(np.mean(audio[start:end] ** 2))
        assert -33 < level_dbfs < -20
        assert np.abs(audio[: max(start - 480, 0)]).max(initial=0) < 0.1


def test_speech_is_louder_inside_words_than_outside(speech):
    inside, outside = [], []
    for example in speech["test"][::10]:
        audio, _ = soundfile.read(io.BytesIO(example["audio"][0]), dtype="float32")
        is_word = np.zeros(audio.size, bool)
        for start, end in zip(example["word_start_ms"], example["word_end_ms"], strict=True):
            is_word[start * 24 : end * 24] = True
        inside.append(np.mean(audio[is_word] ** 2))
        outside.append(np.mean(audio[~is_word] ** 2))
    assert np.mean(inside) > 100 * np.mean(outside)


def test_vocabulary_has_the_control_tokens_in_their_places():
    model = sentencepiece.SentencePieceProcessor(model_file=str(CORPUS / "spm.model"))
    assert model.vocab_size() == tokenizer.VOCAB_SIZE == 768
    assert [model.id_to_piece(i) for i in range(4)] == ["<pad>", "<unk>", "<s>", "</s>"]
    assert [model.id_to_piece(4 + i) for i in range(16)] == list(tokenizer.CONTROL_TOKENS)
    assert model.piece_to_id("<listen>") == 4 and model.piece_to_id("<audio>") == 19
    for line in phrases.PICTURE_QUESTIONS:
        text = script.normalise(line)
        assert model.decode(model.encode(text)) == text and 1 not in model.encode(text)
    assert model.encode("It is a Dog") == model.encode("it is a dog")


def test_licences_name_every_source(pictures):
    text = (CORPUS / "LICENSES.md").read_text()
    used = {_text(e, "source").split(":")[0] for s in SPLITS for e in pictures[s] if ":" in _text(e, "source")}
    for source in (*used, "openclipart", "WordNet", "Kokoro", "flite", "festival"):
        assert re.search(re.escape(source), text, re.IGNORECASE), source


def test_the_builder_states_the_stored_features():
    pytest.importorskip("tensorflow_datasets")
    import tensorflow_datasets as tfds

    from data.picture_book import picture_book

    for config in picture_book.CONFIGS:
        stored = tfds.builder_from_directory(CORPUS / config / "1.0.0")
        assert set(stored.info.features) == set(picture_book.features(config))
        assert stored.info.splits["train"].num_examples == len(_read(config, "train"))
