"""seqio tasks as ArrayRecord. Imports TensorFlow (10 s): runs with OMNI_JAX_SLOW=1."""

import itertools
import os

import pytest

from omni_jax.errors import UserError
from omni_jax.input_pipeline.decode import decode_audio, decode_picture
from omni_jax.input_pipeline.readers.address import open_reader

pytestmark = pytest.mark.skipif(
    os.environ.get("OMNI_JAX_SLOW") != "1", reason="imports TensorFlow: set OMNI_JAX_SLOW=1"
)


def cached(tmp_path, *flags):
    from data import cache_tasks

    assert cache_tasks.main([*flags, f"--out={tmp_path / 'out'}", "--shards=3"]) == 0
    return open_reader("x", f"array_record:{tmp_path / 'out'}")


def test_every_task_of_the_shipped_corpus_is_written_whole_and_shuffled(tmp_path):
    reader = cached(tmp_path, "--name=book_captions")
    records = [reader[index] for index in range(len(reader))]
    assert len(records) == 862 and decode_picture(records[0].picture).shape == (64, 64, 3)
    labels = [record.texts[0] for record in records]
    source = open_reader("x", "array_record:data/corpus/picture_book/pictures/1.0.0?text=label")
    stored = [source[index].texts[0] for index in range(len(source))]
    assert sorted(labels) == sorted(stored) and labels != stored
    changes = sum(a != b for a, b in itertools.pairwise(labels))
    assert changes > 400  # of 20 classes: in the files' order it is a few dozen


def test_speech_and_replies_survive(tmp_path):
    reader = cached(tmp_path, "--name=book_dialogue", "--examples=20")
    assert len(reader) == 20
    record = reader[0]
    assert record.texts and record.reply and len(decode_audio(record.audio, 16_000)) > 4_000


def test_a_mixture_needs_an_end(tmp_path):
    with pytest.raises(UserError, match="give --examples=N"):
        cached(tmp_path, "--name=book")
    reader = cached(tmp_path, "--name=book", "--examples=60")
    kinds = {(record.audio is None, record.picture is None) for record in (reader[i] for i in range(60))}
    assert len(reader) == 60 and len(kinds) == 3


def test_a_live_mixture_is_a_source_that_says_what_it_cannot_do(monkeypatch, capsys):
    from data import tasks  # noqa: F401
    from omni_jax.input_pipeline.readers import live_seqio

    monkeypatch.setattr(live_seqio, "MOST_EXAMPLES", 60)
    reader = open_reader("x", "seqio:book")
    assert "60 examples are read live, so this run does not resume exactly" in capsys.readouterr().err
    kinds = reader.kinds()
    assert set(kinds) == {frozenset({"text"}), frozenset({"text", "audio"}), frozenset({"text", "picture"})}
    assert sum(map(len, kinds.values())) == len(reader) == 60
    heard = reader[kinds[frozenset({"text", "audio"})][0]]
    assert heard.texts and len(decode_audio(heard.audio, 16_000)) > 4_000
    with pytest.raises(UserError, match=r"seqio:nothing: want one of .*book_asr"):
        open_reader("x", "seqio:nothing")


def test_a_second_start_keeps_what_is_there(tmp_path):
    cached(tmp_path, "--name=book_text", "--examples=50")
    (shard,) = (tmp_path / "out").glob("*-00001-of-00003")
    before = shard.read_bytes()
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*-of-*")}
    cached(tmp_path, "--name=book_text", "--examples=50")
    assert shard.read_bytes() == before and times == {p: p.stat().st_mtime_ns for p in times}
    with pytest.raises(UserError, match="made with other flags"):
        cached(tmp_path, "--name=book_text", "--examples=51")


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("c4_text", {"texts"}),
        ("librispeech_asr", {"texts", "audio"}),
        ("coco_captions", {"texts", "picture"}),
        ("clevr_vqa", {"texts", "picture", "reply"}),
    ],
)
def test_tasks_of_tfds_run_on_mock_data(tmp_path, monkeypatch, name, fields):
    import seqio
    import tensorflow_datasets as tfds

    monkeypatch.setattr(seqio.TfdsDataSource, "num_input_examples", lambda self, split: 4)  # mock data has no sizes
    with tfds.testing.mock_data(num_examples=4):
        reader = cached(tmp_path, f"--name={name}", "--examples=4")
    record = reader[0]
    assert {name for name in ("texts", "audio", "picture", "reply") if getattr(record, name)} == fields
    if name == "coco_captions":
        assert len(record.texts) >= 1 and decode_picture(record.picture).ndim == 3


def test_metrics():
    from data import tasks

    assert tasks.word_error_rate(["a b c d"], ["A b x d"]) == {"word_error_rate": 0.25}
    assert tasks.exact_match(["yes", "two"], ["Yes", "three"]) == {"exact_match": 0.5}
    assert tasks.best_caption_f1(["a dog\na red ball"], ["a dog"]) == {"caption_f1": 1.0}


def test_what_tfds_writes_as_array_record_is_read(tmp_path):
    import numpy as np
    import tensorflow_datasets as tfds

    class Spoken(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            audio = tfds.features.Audio(sample_rate=16_000, dtype=np.int16)
            features = {"speech": audio, "text": tfds.features.Text(), "image": tfds.features.Image(shape=(8, 8, 3))}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for number in range(3):
                wave = (10_000 * np.sin(np.arange(1_600) / 5)).astype(np.int16)
                yield number, {"speech": wave, "text": f"number {number}", "image": np.full((8, 8, 3), 9, np.uint8)}

    builder = Spoken(data_dir=str(tmp_path), file_format="array_record")
    builder.download_and_prepare()
    reader = open_reader("x", f"tfds:{builder.data_dir}#train")
    assert len(reader) == 3 and reader.kinds() == {frozenset({"audio", "text", "picture"}): range(3)}
    record = reader[0]
    assert record.texts[0].startswith("number") and len(decode_audio(record.audio, 16_000)) == 1_600
    assert decode_picture(record.picture).shape == (8, 8, 3)
