"""Sources of every format: the same examples from each, in any order, in another process too."""

import io
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from omni_jax.errors import UserError
from omni_jax.input_pipeline.decode import decode_audio, decode_picture
from omni_jax.input_pipeline.readers.address import open_reader, shard_paths
from omni_jax.input_pipeline.readers.record import BadRecord, Cause

from .source_files import COUNT, WRITERS, audio_file, beep, picture_file, text_of, write_tar

LOSSY = 0.05  # of full scale: Opus and MP3 at 0.5 s


@pytest.fixture(scope="module")
def addresses(tmp_path_factory):
    return {form: write(tmp_path_factory.mktemp(form) / "source") for form, write in WRITERS.items()}


@pytest.mark.parametrize("form", WRITERS)
def test_examples_are_read_in_any_order_as_they_were_written(addresses, form):
    reader = open_reader("mine", addresses[form])
    assert len(reader) == (4 * COUNT if form == "folder" else COUNT) and not reader.lost
    keys = set()
    for number in (7, 0, 11, 3):
        record = reader[number]
        wav = decode_audio(record.audio, 16_000)
        assert record.texts == (text_of(number),) and len(wav) == pytest.approx(8_000, abs=1_600)
        spectrum = np.abs(np.fft.rfft(wav[:6_000]))
        assert np.argmax(spectrum) * 16_000 / 6_000 == pytest.approx(300 + 50 * number, abs=6)
        keys.add(record.key)
    assert len(keys) == 4
    again = pickle.loads(pickle.dumps(reader))
    assert again[5].texts == reader[5].texts and again[5].key == reader[5].key


@pytest.mark.parametrize(
    ("form", "has"),
    [
        ("webdataset", {"audio", "text"}),
        ("shar", {"audio", "text", "words"}),
        ("parquet", {"audio", "text", "picture"}),
        ("array_record", {"audio", "text", "words", "codes"}),
        ("tfds", {"audio", "text"}),
    ],
)
def test_what_examples_have_is_known_before_they_are_read(addresses, form, has):
    assert open_reader("mine", addresses[form]).kinds() == {frozenset(has): range(COUNT)}


def test_parquet_is_read_through_a_file_system(addresses):
    """The way that gs:// and s3:// take, with pyarrow's local one."""
    path = addresses["parquet"].removeprefix("parquet:")
    reader = open_reader("mine", f"parquet:file://{path}")
    assert len(reader) == COUNT and reader[3].texts == (text_of(3),)
    (one,) = {open_reader("mine", f"parquet:file://{path}/train-00001-of-00002.parquet")[0].texts}
    assert one == (text_of(6),)
    with pytest.raises(UserError, match="cannot be listed"):
        open_reader("mine", "parquet:file:///nowhere/at/all")


@pytest.mark.parametrize("where", ["{}", "file://{}"])
def test_a_directory_of_several_splits_is_its_training_split(tmp_path, where):
    """In a bucket as on the disk; "test" does not mean every name that has these letters."""
    pytest.importorskip("pyarrow")
    for split in ("train", "validation", "test", "latest"):
        (tmp_path / f"{split}-00000-of-00001.parquet").touch()
    path = where.format(tmp_path)
    names = lambda *place: [Path(file).name for file in shard_paths(*place)]  # noqa: E731
    assert names(path, "*.parquet", "") == ["train-00000-of-00001.parquet"]
    assert names(path, "*.parquet", "test") == ["test-00000-of-00001.parquet"]
    assert names(f"{path}/t*-00000-of-*.parquet", "*.parquet", "test") == ["test-00000-of-00001.parquet"]


@pytest.mark.parametrize("where", ["{}", "file://{}"])
def test_parquet_without_pyarrow_says_what_to_install(addresses, monkeypatch, where):
    for module in [name for name in sys.modules if name.partition(".")[0] == "pyarrow"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match="pip install pyarrow"):
        open_reader("mine", "parquet:" + where.format(addresses["parquet"].removeprefix("parquet:")))


def test_a_folder_may_hold_all_kinds(addresses):
    reader = open_reader("mine", addresses["folder"])
    kinds = reader.kinds()
    assert [len(indices) for indices in kinds.values()] == [COUNT] * 4
    assert set(kinds) == {
        frozenset({"audio", "text", "reply", "words"}), frozenset({"picture", "text", "label"}), frozenset({"text"}),
        frozenset({"turns"}),
    }  # fmt: skip
    picture = decode_picture(reader[COUNT].picture)
    assert picture.shape == (24, 40, 3) and tuple(picture[0, 0]) == (0, 200, 30)
    turns = reader[3 * COUNT].turns
    assert [(turn.role, turn.texts) for turn in turns] == [("user", ("hello",)), ("assistant", ("hello there",))]
    assert [word.text for word in reader[0].words] == text_of(0).split()


def test_a_folder_without_metadata_is_its_files(tmp_path):
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.wav").write_bytes(audio_file(0, "WAV"))
    (tmp_path / "clips" / "a.txt").write_text("hello\n")
    (tmp_path / "clips" / "b.wav").write_bytes(audio_file(1, "WAV"))  # for what needs no text
    reader = open_reader("mine", f"folder:{tmp_path}")
    assert reader.kinds() == {frozenset({"audio", "text"}): [0], frozenset({"audio"}): [1]}
    assert reader[0].texts == ("hello",) and reader[0].audio and reader[1].audio and not reader[1].texts


def test_fields_of_another_name_are_named_in_the_address(tmp_path):
    write_tar(tmp_path / "a.tar", [("0.jpg", picture_file(0, "JPEG")), ("0.json", b'{"alt": "a dog", "text": "?"}')])
    reader = open_reader("mine", f"webdataset:{tmp_path}?text=alt&label=alt")
    assert reader.kinds() == {frozenset({"picture", "text", "label"}): range(1)}
    assert reader[0].texts == ("a dog",) and reader[0].label == "a dog"
    with pytest.raises(UserError, match="texts after"):
        open_reader("mine", f"webdataset:{tmp_path}?texts=alt")


def test_an_index_is_made_once_and_again_when_the_shard_changes(tmp_path):
    path = tmp_path / "a.tar"
    write_tar(path, [("0.txt", b"one")])
    assert len(open_reader("mine", f"webdataset:{tmp_path}")) == 1
    made = (tmp_path / "a.tar.index").stat().st_mtime_ns
    open_reader("mine", f"webdataset:{tmp_path}")
    assert (tmp_path / "a.tar.index").stat().st_mtime_ns == made
    write_tar(path, [("0.txt", b"one"), ("1.txt", b"two"), ("2.txt", b"three")])
    reader = open_reader("mine", f"webdataset:{tmp_path}")
    assert [reader[i].texts[0] for i in range(len(reader))] == ["one", "two", "three"]


def test_a_tar_that_lost_its_middle_is_not_taken_for_a_short_one(tmp_path):
    write_tar(tmp_path / "a.tar", [(f"{n}.txt", f"text {n}".encode()) for n in range(4)])
    whole = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(whole[:1024] + whole[4096 + 100 :])
    reader = open_reader("mine", f"webdataset:{tmp_path}")
    assert len(reader) == 1 and reader.lost[0].cause is Cause.CUT_SHARD and "no whole blocks" in reader.lost[0].reason
    (tmp_path / "a.tar").write_bytes(whole[:1030] + b"\xff" * 9 + whole[1039:])
    assert "a header cannot be read" in open_reader("mine", f"webdataset:{tmp_path}").lost[0].reason


def test_missing_shards_are_known_by_their_names(tmp_path):
    (tmp_path / "a-00001-of-00003.parquet").touch()
    names = [path.rpartition("/")[2] for path in shard_paths(str(tmp_path), "*.parquet", "")]
    assert names == [f"a-0000{n}-of-00003.parquet" for n in range(3)]


def test_a_split_is_chosen_by_the_files_names(tmp_path):
    for name in ("x-train.array_record-00000-of-00001", "x-test.array_record-00000-of-00001"):
        (tmp_path / name).touch()
    for split, wanted in (("", "train"), ("test", "test")):
        (path,) = shard_paths(str(tmp_path), "*.array_record*", split)
        assert f"x-{wanted}." in path


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("my/folder", "want FORMAT:PATH"),
        ("zip:my/folder", "want FORMAT:PATH with one of folder, webdataset"),
        ("folder:nowhere", "nowhere is not a folder"),
        ("webdataset:nowhere", r"no \*\.tar there"),
        ("webdataset:gs://bucket/a.tar", "copy it, or mount it"),
        ("folder:s3://bucket/calls", "a folder source is read from disk: copy it, or mount it"),
    ],
)
def test_an_address_that_leads_nowhere_is_named(address, message):
    with pytest.raises(UserError, match=message):
        open_reader("mine", address)


def test_audio_comes_mono_at_the_rate_asked_for():
    stereo = np.stack([beep(0, rate_hz=44_100), np.zeros(22_050, np.float32)], axis=1)
    encoded = io.BytesIO()
    soundfile.write(encoded, stereo, 44_100, format="WAV")
    wav = decode_audio(encoded.getvalue(), 24_000)
    assert wav.shape == (12_000,) and wav.dtype == np.float32 and np.abs(wav).max() == pytest.approx(0.15, abs=0.01)


BAD_AUDIO = {
    "truncated FLAC": (audio_file(0)[:-800], {Cause.TRUNCATED, Cause.UNREADABLE}),
    "no bytes": (b"", {Cause.EMPTY}),
    "not audio": (b"<!DOCTYPE html><html>" * 40, {Cause.UNREADABLE}),
}


@pytest.mark.parametrize("name", BAD_AUDIO)
def test_bad_audio_is_named(name):
    encoded, causes = BAD_AUDIO[name]
    with pytest.raises(BadRecord) as caught:
        decode_audio(encoded, 16_000)
    assert caught.value.cause in causes


def wav_of(samples):
    encoded = io.BytesIO()
    soundfile.write(encoded, np.asarray(samples, np.float32), 16_000, format="WAV", subtype="FLOAT")
    return encoded.getvalue()


@pytest.mark.parametrize(
    ("samples", "cause"), [([], Cause.EMPTY), ([0.0] * 999, Cause.EMPTY), ([0.1, np.nan] * 500, Cause.NOT_FINITE)]
)
def test_audio_without_sound_is_named(samples, cause):
    with pytest.raises(BadRecord) as caught:
        decode_audio(wav_of(samples), 16_000)
    assert caught.value.cause is cause


def test_pictures_lie_on_white_and_bad_ones_are_named():
    for encoded, cause in (
        (b"<html><body>404</body></html>", Cause.UNREADABLE),
        (picture_file(3)[:60], Cause.TRUNCATED),
        (b"", Cause.EMPTY),
    ):
        with pytest.raises(BadRecord) as caught:
            decode_picture(encoded)
        assert caught.value.cause is cause
