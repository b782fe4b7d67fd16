"""A thousand damaged records and shards through every reader: what is read is used or set aside, nothing is lost.

With OMNI_JAX_SLOW=1 every format gets 1,000 of each kind of damage; by default they are spread over all formats.
"""

import gzip
import itertools
import os
import shutil
import time

import numpy as np
import pytest

from omni_jax.input_pipeline.decode import decode_audio, decode_picture
from omni_jax.input_pipeline.readers import array_records, parquet, shard_index
from omni_jax.input_pipeline.readers.record import BadRecord
from omni_jax.input_pipeline.readers.sources import OwnSources
from omni_jax.input_pipeline.records import DataError, Quarantine

from .source_files import WRITERS

SLOW = os.environ.get("OMNI_JAX_SLOW") == "1"
RECORDS = 1_000 if SLOW else 170  # damaged records a format; 1,020 in all
FILES = 1_000 if SLOW else 15  # damaged files a format
ADDRESSES = {
    "folder": "folder:{}", "webdataset": "webdataset:{}", "shar": "shar:{}", "parquet": "parquet:{}",
    "array_record": "array_record:{}", "tfds": "tfds:{}#train_clean100",
}  # fmt: skip
SELF_COUNTING = ("webdataset", "parquet", "array_record", "tfds")  # a line of text can vanish without a trace
LONGEST_SECONDS = 5.0  # for one damaged source


def mutate(content, rng):
    """Bits flipped, a stretch overwritten, cut out or repeated, the end cut off, or replaced by a web page."""
    kind, size = rng.integers(7), len(content)
    at, length = int(rng.integers(size)), int(rng.integers(1, max(2, size // 4)))
    if kind == 0:
        flipped = bytearray(content)
        for place in rng.integers(0, size, 8):
            flipped[place] ^= 1 << int(rng.integers(8))
        return bytes(flipped)
    noise = rng.integers(0, 256, length, dtype=np.uint8).tobytes()
    return [
        b"", content[:at] + noise + content[at + length :], content[:at] + content[at + length :],
        content[: at + length] + content[at:], content[:at], b"<!DOCTYPE html><html>404</html>" * 9,
        content[:at] + b"\xff\xfe\x00" + content[at:],
    ][kind]  # fmt: skip


def damage_a_file(root, rng):
    """A gzip also inside."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    path = files[rng.integers(len(files))]
    content = path.read_bytes()
    if path.suffix == ".gz" and rng.random() < 0.7:
        path.write_bytes(gzip.compress(mutate(gzip.decompress(content), rng)))
    else:
        path.write_bytes(mutate(content, rng))


def read_all(address, whole=0):
    """Reads and decodes every example. Returns how many there were, or None where the source was refused as a whole.

    `whole`: how many it once had; what is missing of them must have been said.
    """
    shard_index._lines.cache_clear()
    parquet._group.cache_clear()
    array_records._file.cache_clear()
    quarantine = Quarantine(1.0)
    try:
        own = OwnSources({"x": address}, quarantine)
    except DataError as error:
        assert len(str(error)) > 10
        return None
    count, bad = len(own.readers["x"]), set()
    for index in range(count):
        try:
            record = own.read("x", index)
            if record.audio is not None:
                assert np.isfinite(decode_audio(record.audio, 16_000)).all()
            if record.picture is not None:
                assert decode_picture(record.picture).shape[2] == 3
        except BadRecord as error:
            own.reject("x", index, error)
            bad.add(own.readers["x"].key(index))
            continue
        own.use("x")
    read = quarantine.seen.get("x", 0)  # opening has read those of which nothing is known
    assert read >= count and read == own.used["x"] + own.set_aside["x"]
    assert sum(quarantine.counts("x").values()) >= len(bad)
    assert count >= whole or own.readers["x"].lost
    return count


@pytest.mark.parametrize("form", WRITERS)
def test_damaged_records_are_used_or_set_aside(tmp_path, form):
    rng = np.random.default_rng(list(WRITERS).index(form))
    damaged = 0

    def touch(content):
        nonlocal damaged
        damaged += 1
        return mutate(content, rng)

    for number in itertools.count():
        if damaged >= RECORDS:
            break
        began = time.monotonic()
        read_all(WRITERS[form](tmp_path / str(number), touch))
        assert time.monotonic() - began < LONGEST_SECONDS


@pytest.mark.parametrize("form", WRITERS)
def test_damaged_files_lose_what_is_in_them_and_no_more(tmp_path, form):
    rng = np.random.default_rng(list(WRITERS).index(form))
    WRITERS[form](tmp_path / "whole")
    whole = read_all(ADDRESSES[form].format(tmp_path / "whole"))
    for path in (tmp_path / "whole").glob("*.index"):
        path.unlink()
    for number in range(FILES):
        target = tmp_path / f"damaged{number}"
        shutil.copytree(tmp_path / "whole", target)
        damage_a_file(target, rng)
        began = time.monotonic()
        read_all(ADDRESSES[form].format(target), whole if form in SELF_COUNTING else 0)
        assert time.monotonic() - began < LONGEST_SECONDS
        shutil.rmtree(target)
