"""Where a source lies: FORMAT:PATH, as `data.sources` has it.

    folder:my/recordings
    webdataset:/data/cc3m/{00000..00331}.tar
    shar:/data/libriheavy
    parquet:/data/common_voice/en/train-*.parquet?text=sentence
    array_record:/data/prepared
    tfds:/data/tfds/librispeech/2.1.2#train_clean100
    seqio:book#train

After `?` stand the source's own names for text, audio, picture, reply; after `#` the split, where files are
named by it (train, if there are several). `?weight=3` shows its examples three times where others are shown once.
"""

from __future__ import annotations

import glob
import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl

from omni_jax.input_pipeline.readers.array_records import ExampleReader
from omni_jax.input_pipeline.readers.folder import FolderReader
from omni_jax.input_pipeline.readers.live_seqio import LiveReader
from omni_jax.input_pipeline.readers.parquet import ParquetReader
from omni_jax.input_pipeline.readers.record import Reader
from omni_jax.input_pipeline.readers.record_fields import NAMES
from omni_jax.input_pipeline.readers.shar import SharReader
from omni_jax.input_pipeline.readers.tar_shards import TarReader
from omni_jax.input_pipeline.records import DataError

# Format -> its reader, and what its files are called in a directory. All but folders are read from lists of shards.
SHARDED = {
    "webdataset": (TarReader, "*.tar"),
    "shar": (SharReader, "cuts.*.jsonl.gz"),
    "parquet": (ParquetReader, "*.parquet"),
    "array_record": (ExampleReader, "*.array_record*"),
    "tfds": (ExampleReader, "*.array_record*"),
}
FORMATS = ("folder", *SHARDED, "seqio")
MAX_SHARDS = 1 << 17
MAX_WEIGHT = 1000


class Address(NamedTuple):
    """FORMAT:PATH?NAME=THEIRS&weight=N#SPLIT, taken apart."""

    form: str
    path: str
    rename: dict[str, str]
    split: str
    weight: int


def parse(name: str, address: str) -> Address:
    """Raises DataError for what is no address."""
    form, colon, rest = address.partition(":")
    if not colon or form not in FORMATS:
        raise DataError(f"data.sources.{name}={address}: want FORMAT:PATH with one of {', '.join(FORMATS)} as FORMAT")
    rest, _, split = rest.partition("#")
    path, _, query = rest.partition("?")
    rename = dict(parse_qsl(query))
    weight = rename.pop("weight", "1")
    unknown = sorted(set(rename) - set(NAMES))
    if unknown:
        raise DataError(f"data.sources.{name}: {', '.join(unknown)} after '?' is none of {', '.join(NAMES)}, weight")
    if not weight.isdecimal() or not 1 <= int(weight) <= MAX_WEIGHT:
        raise DataError(f"data.sources.{name}: weight={weight}: want a whole number from 1 to {MAX_WEIGHT}")
    return Address(form, path, rename, split, int(weight))


def open_reader(name: str, address: str) -> Reader:
    """The reader of `data.sources.NAME=ADDRESS`. Raises UserError where there is nothing to read."""
    form, path, rename, split, _ = parse(name, address)
    if "://" in path and form != "parquet":
        raise DataError(f"data.sources.{name}={address}: a {form} source is read from disk: copy it, or mount it")
    if form == "folder":
        return FolderReader(path, rename)
    if form == "seqio":
        return LiveReader(path, split or "train", rename)
    reader, pattern = SHARDED[form]
    shards = shard_paths(path, pattern, split)
    if not shards:
        raise DataError(f"data.sources.{name}={address}: no {pattern} there{f' of split {split}' if split else ''}")
    return reader(shards, rename)


def shard_paths(path: str, pattern: str, split: str) -> list[str]:
    """The files of a directory, a glob, or {first..last}; with the ones that a name's "of" says are missing."""
    numbers = re.search(r"\{(\d+)\.\.(\d+)\}", path)
    if numbers:
        first, last = numbers.groups()
        if int(last) - int(first) >= MAX_SHARDS:
            raise DataError(f"{path}: more than {MAX_SHARDS} shards")
        return [
            path[: numbers.start()] + str(number).zfill(len(first)) + path[numbers.end() :]
            for number in range(int(first), int(last) + 1)
        ]
    if "://" in path:
        return _remote_paths(path, pattern, split)
    found = sorted(glob.glob(str(Path(path) / pattern)) if Path(path).is_dir() else glob.glob(path))
    return _with_missing(_of_split([file for file in found if not file.endswith((".index", ".tmp"))], split))


def _of_split(found: list[str], split: str) -> list[str]:
    """The files of one split; of several, `train` where none is named."""
    splits = {_split_of(file) for file in found}
    if not split and len(splits) > 1 and "train" in splits:
        split = "train"
    return [file for file in found if not split or _split_of(file) == split]


def _split_of(file: str) -> str:
    """NAME-SPLIT.array_record-..., or SPLIT-00000-of-00004.parquet; "" for other names."""
    name = Path(file).name
    match = re.search(r"(?:^|-)([^-]+)\.array_record", name) or re.search(r"(?:^|-)([^-]+)-\d{5}-of-\d{5}", name)
    return match[1] if match else ""


def _with_missing(found: list[str]) -> list[str]:
    """NAME-00001-of-00004 tells of four files."""
    paths = dict.fromkeys(found)
    for file in found:
        match = re.search(r"-(\d{5})-of-(\d{5})", file)
        if match and int(match[2]) < MAX_SHARDS:
            whole = (
                f"{file[: match.start()]}-{n:05d}-of-{match[2]}{file[match.end() :]}" for n in range(int(match[2]))
            )
            paths |= dict.fromkeys(whole)
    return sorted(paths)


def _remote_paths(path: str, pattern: str, split: str) -> list[str]:
    """Files of a bucket's directory, of a glob in its last part, or the file itself, by pyarrow's file systems."""
    try:
        from pyarrow import fs
    except ImportError:
        raise DataError(f"{path} needs pyarrow: pip install pyarrow") from None
    ending = pattern.removeprefix("*")
    directory, _, name = path.rpartition("/")
    if "*" in name:
        path, pattern = directory, name
    elif path.endswith(ending):
        return [path]
    try:
        system, inner = fs.FileSystem.from_uri(path)
        files = system.get_file_info(fs.FileSelector(inner, recursive=False))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be listed: {error}") from None
    scheme = path.partition("://")[0]
    found = sorted(f"{scheme}://{file.path}" for file in files if fnmatchcase(file.base_name, pattern))
    return _with_missing(_of_split(found, split))
