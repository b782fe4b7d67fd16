"""A few spoken words and drawn squares, written in every format that a source may have.

`touch` is applied to the content of every record as it is written: how a test damages them.
"""

import functools
import gzip
import io
import json
import tarfile

import numpy as np
import soundfile
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image

from .conftest import serialise

WORDS = ("the", "red", "dog", "runs", "all", "day")
RATE_HZ = 16_000
COUNT = 12


def beep(number, seconds=0.5, rate_hz=RATE_HZ):
    time = np.arange(int(seconds * rate_hz)) / rate_hz
    return (0.3 * np.sin(2 * np.pi * (300 + 50 * number) * time)).astype(np.float32)


@functools.lru_cache
def audio_file(number, form="FLAC", subtype=None, rate_hz=RATE_HZ):
    encoded = io.BytesIO()
    soundfile.write(encoded, beep(number, rate_hz=rate_hz), rate_hz, format=form, subtype=subtype)
    return encoded.getvalue()


@functools.lru_cache
def picture_file(number, form="PNG"):
    encoded = io.BytesIO()
    Image.new("RGB", (40, 24), (20 * number, 200, 30)).save(encoded, form)
    return encoded.getvalue()


def text_of(number):
    return f"{WORDS[number % 6]} {WORDS[(number + 1) % 6]}"


def write_folder(root, touch=bytes):
    """Speech in five formats, pictures in two, text alone and turns."""
    for name in ("audio", "pictures"):
        (root / name).mkdir(parents=True)
    kinds = (("wav", "WAV"), ("flac", "FLAC"), ("ogg", "OGG"), ("opus", "OGG"), ("mp3", "MP3"))
    lines = []
    for number in range(COUNT):
        ending, form = kinds[number % len(kinds)]
        name = f"audio/{number}.{ending}"
        (root / name).write_bytes(touch(audio_file(number, form, "OPUS" if ending == "opus" else None)))
        words = [[word, 100 + 200 * i, 250 + 200 * i] for i, word in enumerate(text_of(number).split())]
        lines.append({"file_name": name, "text": text_of(number), "reply": "the cat sits", "words": words})
    for number in range(COUNT):
        name = f"pictures/{number}." + ("png", "jpg")[number % 2]
        (root / name).write_bytes(touch(picture_file(number, ("PNG", "JPEG")[number % 2])))
        lines.append({"picture": name, "text": f"a red {WORDS[2]}", "label": "dog"})
    lines += [{"text": "two comes after one"}] * COUNT
    turn = [{"role": "user", "text": "hello"}, {"from": "gpt", "value": "hello there"}]
    lines += [{"turns": turn}] * COUNT
    encoded = [json.dumps(line).encode() for line in lines]
    encoded[2 * COUNT :] = [touch(line) for line in encoded[2 * COUNT :]]
    (root / "metadata.jsonl").write_bytes(b"\n".join(encoded) + b"\n")
    return f"folder:{root}"


def write_tar(path, members):
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def write_webdataset(root, touch=bytes, shards=2):
    root.mkdir(parents=True)
    for shard in range(shards):
        members = []
        for number in range(shard * COUNT // shards, (shard + 1) * COUNT // shards):
            members.append((f"train/{number:04d}.flac", touch(audio_file(number))))
            members.append((f"train/{number:04d}.json", touch(json.dumps({"text": text_of(number)}).encode())))
        write_tar(root / f"shard-{shard:06d}.tar", members)
    return f"webdataset:{root}/shard-{{000000..{shards - 1:06d}}}.tar"


def write_shar(root, touch=bytes):
    """As `lhotse.CutSet.to_shar(root, fields={"recording": "flac"}, shard_size=6)` writes it."""
    root.mkdir(parents=True)
    for shard in range(2):
        cuts, members = [], []
        for number in range(shard * COUNT // 2, (shard + 1) * COUNT // 2):
            words = [[word, 0.1 + 0.2 * i, 0.15, None] for i, word in enumerate(text_of(number).split())]
            spoken = {"id": f"s{number}", "recording_id": f"r{number}", "start": 0, "duration": 0.5, "channel": 0}
            spoken |= {"text": text_of(number), "alignment": {"word": words}}
            cuts.append({"id": f"cut-{number}", "start": 0, "duration": 0.5, "channel": 0, "supervisions": [spoken]})
            members.append((f"cut-{number}.flac", touch(audio_file(number))))
            members.append((f"cut-{number}.json", b"{}"))
        with gzip.open(root / f"cuts.{shard:06d}.jsonl.gz", "wb") as file:
            file.writelines(touch(json.dumps(cut).encode()) + b"\n" for cut in cuts)
        write_tar(root / f"recording.{shard:06d}.tar", members)
    return f"shar:{root}"


def write_parquet(root, touch=bytes):
    import pyarrow
    import pyarrow.parquet

    root.mkdir(parents=True)
    for shard in range(2):
        numbers = range(shard * COUNT // 2, (shard + 1) * COUNT // 2)
        audio = [{"bytes": touch(audio_file(number)), "path": f"{number}.flac"} for number in numbers]
        image = [{"bytes": touch(picture_file(number)), "path": None} for number in numbers]
        columns = {"audio": audio, "image": image, "sentence": [text_of(number) for number in numbers]}
        table = pyarrow.table(columns)
        pyarrow.parquet.write_table(table, root / f"train-{shard:05d}-of-00002.parquet", row_group_size=4)
    return f"parquet:{root}"


def write_array_records(root, records, name="own-train"):
    root.mkdir(parents=True, exist_ok=True)
    half = len(records) // 2
    for shard, part in enumerate((records[:half], records[half:])):
        writer = ArrayRecordWriter(str(root / f"{name}.array_record-{shard:05d}-of-00002"), "group_size:1")
        for record in part:
            writer.write(record)
        writer.close()


def own_record(number):
    words = text_of(number).split()
    return {
        "audio": audio_file(number), "text": text_of(number), "words": words,
        "word_start_ms": [100 + 200 * i for i in range(2)], "word_end_ms": [250 + 200 * i for i in range(2)],
        "codes": [(number + i) % 64 for i in range(6 * 4)], "num_codebooks": 4,
    }  # fmt: skip


def write_own(root, touch=bytes):
    write_array_records(root, [touch(serialise(own_record(number))) for number in range(COUNT)])
    return f"array_record:{root}"


def write_tfds(root, touch=bytes):
    """As TFDS stores LibriSpeech: audio as integers, its rate in features.json."""
    samples = [(32767 * beep(number)).astype(int).tolist() for number in range(COUNT)]
    records = [touch(serialise({"speech": wav, "text": text_of(number)})) for number, wav in enumerate(samples)]
    write_array_records(root, records, "librispeech-train_clean100")
    audio = {"pythonClassName": "tensorflow_datasets.core.features.audio_feature.Audio"}
    features = {"speech": audio | {"audio": {"sampleRate": str(RATE_HZ), "dtype": "int64"}}, "text": {"text": {}}}
    (root / "features.json").write_text(json.dumps({"featuresDict": {"features": features}}))
    return f"tfds:{root}#train_clean100"


WRITERS = {
    "folder": write_folder,
    "webdataset": write_webdataset,
    "shar": write_shar,
    "parquet": write_parquet,
    "array_record": write_own,
    "tfds": write_tfds,
}
