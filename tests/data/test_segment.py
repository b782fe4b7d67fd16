"""Utterances out of long recordings: stretches out of probabilities, what becomes of the text, and the real model."""

import importlib.util
import io
import json

import numpy as np
import pytest
import soundfile

from data.segment import cut, main
from data.vad import CHUNK_MS, MARGIN_MS, speech_spans
from omni_jax.input_pipeline.corpus import Span
from omni_jax.input_pipeline.decode import decode_audio
from omni_jax.input_pipeline.readers.address import open_reader
from omni_jax.input_pipeline.readers.record import BadRecord, Record


def chunks(*parts):
    return np.concatenate([np.full(round(ms / CHUNK_MS), probability) for probability, ms in parts])


def test_speech_begins_and_ends_with_hysteresis():
    found = speech_spans(chunks((0.1, 960), (0.9, 1600), (0.4, 320), (0.9, 640), (0.1, 1600)), 20_000)
    assert found == [(960 - MARGIN_MS, 960 + 1600 + 320 + 640 + MARGIN_MS)]


def test_a_short_silence_does_not_part_and_a_short_noise_is_nothing():
    joined = speech_spans(chunks((0.9, 960), (0.1, 320), (0.9, 960)), 20_000)
    assert joined == [(0, 960 + 320 + 960)]
    apart = speech_spans(chunks((0.9, 960), (0.1, 640), (0.9, 960), (0.1, 960), (0.9, 160), (0.1, 960)), 20_000)
    assert len(apart) == 2


def test_a_long_stretch_is_cut_where_speech_is_least_likely():
    found = speech_spans(chunks((0.9, 3200), (0.6, 64), (0.9, 2400), (0.1, 960)), 4_600)
    assert [round(end - start) for start, end in found] == [3200 + MARGIN_MS, 64 + 2400 + 2 * MARGIN_MS]
    assert all(end - start <= 4_600 for start, end in found)


def test_an_utterance_gets_the_words_in_it():
    words = (Span("one", 100, 400), Span("two", 500, 900), Span("three", 2_100, 2_500))
    parts = list(cut(Record("r", ("one two three",), b"", words=words), [(50, 1_000), (2_000, 2_600)], 20.0))
    assert [part.texts for part, _ in parts] == [("one two",), ("three",)]
    assert parts[1][0].words == (Span("three", 100, 500),) and parts[1][0].key == "r#1"


def test_a_transcript_without_times_is_kept_whole_or_set_aside():
    record = Record("r", ("one two three",), b"")
    ((whole, span),) = cut(record, [(50, 1_000), (2_000, 2_600)], 20.0)
    assert whole is record and span == (50, 2_600)
    with pytest.raises(BadRecord, match="has no times"):
        list(cut(record, [(50, 1_000), (2_000, 2_600)], 2.0))
    with pytest.raises(BadRecord, match="nobody speaks"):
        list(cut(record, [], 2.0))


def test_the_published_detector_parts_two_sentences(tmp_path):
    pytest.importorskip("onnxruntime")
    if importlib.util.find_spec("silero_vad") is None:
        pytest.skip("pip install --no-deps silero-vad")
    source = open_reader("x", "array_record:data/corpus/picture_book/speech/1.0.0#test")
    clips = [decode_audio(source[index].audio, 16_000) for index in (0, 40)]
    silence = np.zeros(24_000, np.float32)
    encoded = io.BytesIO()
    soundfile.write(encoded, np.concatenate([silence, clips[0], silence, clips[1], silence]), 16_000, format="WAV")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "talk.wav").write_bytes(encoded.getvalue())
    lines = [{"audio": "talk.wav"}, {"text": "nobody says this"}]
    (tmp_path / "in" / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main([f"--source=folder:{tmp_path}/in", f"--out={tmp_path}/out"]) == 0
    reader = open_reader("x", f"array_record:{tmp_path}/out")
    assert len(reader) == 2
    for index, clip in enumerate(clips):
        assert len(decode_audio(reader[index].audio, 16_000)) == pytest.approx(len(clip), abs=6_400)
