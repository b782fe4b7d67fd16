"""Reading and decoding the same clips from every format, in random order, beside bare grain; and opening 1,000 shards.

python -m benchmarks.sources [--clips=400] [--json=sources.json]

5 s of noise and tone at 16 kHz in FLAC, with text. Decoding means a float32 waveform. Everything in one process,
a second is one of CPU time, files come from the page cache. `start` makes a source of 1,000 shards, indexes it once,
times a new process from its first import to its first batch, and says whether TensorFlow was loaded.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import grain
import numpy as np
import soundfile
from array_record.python.array_record_data_source import ArrayRecordDataSource

from data.example_files import flac, serialise, shard_path, write_shard
from omni_jax.input_pipeline.decode import decode_audio
from omni_jax.input_pipeline.readers.address import open_reader
from omni_jax.input_pipeline.records import parse_example

SECONDS, RATE_HZ, SHARDS, ROUNDS, MANY = 5, 16_000, 4, 3, 1_000
START = """
import sys, time
began = time.perf_counter()
from configs import own_data
from omni_jax.input_pipeline.loader import make_loader
from omni_jax.train import resolve
values = own_data.get_config("tiny")
with values.unlocked():
    values.data.sources = {"shards": sys.argv[1]}
    values.data.tasks = {"asr": 1.0}
loader = make_loader(resolve(values))
next(loader)
print(time.perf_counter() - began, "tensorflow" in sys.modules)
loader.close()
"""


def clip(number: int) -> bytes:
    rng = np.random.default_rng(number)
    tone = 0.3 * np.sin(2 * np.pi * rng.uniform(100, 400) * np.arange(SECONDS * RATE_HZ) / RATE_HZ)
    return flac(tone + 0.02 * rng.standard_normal(len(tone)), RATE_HZ)


def write_all(root: Path, clips: list[bytes]) -> dict[str, str]:
    parts = np.array_split(np.arange(len(clips)), SHARDS)
    for name in ("folder", "webdataset", "shar", "parquet", "array_record"):
        (root / name).mkdir()
    lines = [json.dumps({"audio": f"{n}.flac", "text": "the red dog runs"}) for n in range(len(clips))]
    (root / "folder" / "metadata.jsonl").write_text("\n".join(lines))
    for n, content in enumerate(clips):
        (root / "folder" / f"{n}.flac").write_bytes(content)
    for shard, part in enumerate(parts):
        write_tar(root / "webdataset" / f"{shard:06d}.tar", clips, part)
        write_tar(root / "shar" / f"recording.{shard:06d}.tar", clips, part)
        with gzip.open(root / "shar" / f"cuts.{shard:06d}.jsonl.gz", "wt") as file:
            for n in part:
                file.write(json.dumps({"id": str(n), "supervisions": [{"text": "the red dog runs"}]}) + "\n")
        records = (serialise({"audio": clips[n], "text": "the red dog runs"}) for n in part)
        write_shard(shard_path(root / "array_record", "train", shard, SHARDS), records)
    addresses = {name: f"{name}:{root / name}" for name in ("folder", "webdataset", "shar", "array_record")}
    return addresses | write_parquet(root / "parquet", clips)


def write_tar(path: Path, clips: list[bytes], part: Iterable[int]) -> None:
    with tarfile.open(path, "w") as tar:
        for n in part:
            for ending, content in (("flac", clips[n]), ("json", b'{"text": "the red dog runs"}')):
                info = tarfile.TarInfo(f"{n}.{ending}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


def write_parquet(root: Path, clips: list[bytes]) -> dict[str, str]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        return {}
    audio = [{"bytes": content, "path": None} for content in clips]
    table = pyarrow.table({"audio": audio, "text": ["the red dog runs"] * len(clips)})
    pyarrow.parquet.write_table(table, root / "train-00000-of-00001.parquet", row_group_size=20)
    return {"parquet": f"parquet:{root}"}


def rates(readers: dict[str, Callable[[int], int]], count: int) -> dict[str, dict[str, float]]:
    """Examples and megabytes of encoded audio a second of CPU: the best of ROUNDS, in turns."""
    order = np.random.default_rng(0).permutation(count)
    best: dict[str, dict[str, float]] = {}
    for _ in range(ROUNDS):
        for form, read in readers.items():
            read(int(order[0]))
            began = time.process_time()
            total = sum(read(int(index)) for index in order)
            seconds = time.process_time() - began
            found = {"examples_s": count / seconds, "megabytes_s": total / seconds / 1e6}
            best[form] = max(best.get(form, found), found, key=lambda row: row["examples_s"])
    return best


def ours(address: str) -> Callable[[int], int]:
    reader = open_reader("x", address)

    def read(index: int) -> int:
        record = reader[index]
        decode_audio(record.audio, RATE_HZ)
        return len(record.audio)

    return read


def bare_grain(directory: Path) -> Callable[[int], int]:
    """The same records with grain's own data source and the same decoder."""
    files = sorted(str(path) for path in directory.glob("*.array_record-*"))
    dataset = grain.MapDataset.source(ArrayRecordDataSource(files))

    def read(index: int) -> int:
        audio = parse_example(dataset[index])["audio"][0]
        soundfile.read(io.BytesIO(audio), dtype="float32")
        return len(audio)

    return read


def start_seconds(address: str) -> dict[str, float | bool]:
    """Of a new process, after one that has indexed the source."""
    began = time.perf_counter()
    open_reader("x", address)
    indexing = time.perf_counter() - began
    out = subprocess.run([sys.executable, "-c", START, address], capture_output=True, text=True, check=True)
    seconds, tensorflow = out.stdout.split()
    return {"index_once_s": indexing, "first_batch_s": float(seconds), "tensorflow": tensorflow == "True"}


def write_many(root: Path, clips: list[bytes]) -> dict[str, str]:
    """MANY shards of eight clips each, as tars and as ArrayRecord."""
    for name in ("webdataset", "array_record"):
        (root / name).mkdir(parents=True)
    records = [serialise({"audio": content, "text": "the red dog runs"}) for content in clips[:8]]
    for shard in range(MANY):
        write_tar(root / "webdataset" / f"{shard:06d}.tar", clips, range(8))
        write_shard(shard_path(root / "array_record", "train", shard, MANY), records)
    tars = f"webdataset:{root}/webdataset/{{000000..{MANY - 1:06d}}}.tar"
    return {"webdataset": tars, "array_record": f"array_record:{root}/array_record"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=400)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    clips = [clip(number) for number in range(args.clips)]
    rows: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        readers = {form: ours(address) for form, address in write_all(root, clips).items()}
        readers = {"grain alone (array_record)": bare_grain(root / "array_record")} | readers
        rows |= rates(readers, len(clips))
        print("| source | examples/s | MB/s | x real time |\n|---|---|---|---|")
        for form, row in rows.items():
            print(
                f"| {form} | {row['examples_s']:.0f} | {row['megabytes_s']:.1f} | {row['examples_s'] * SECONDS:.0f} |"
            )
        for form, address in write_many(root / "many", clips).items():
            rows[f"start {form}"] = start_seconds(address)
            print(f"{form}, {MANY} shards:", json.dumps(rows[f"start {form}"]), flush=True)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
