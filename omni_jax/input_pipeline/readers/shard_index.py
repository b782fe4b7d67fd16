"""Where the examples of a shard lie: found once by reading it, kept in a file, looked up lazily afterwards.

A source of a thousand shards opens by reading the first line of a thousand small files; the rest of an index is read
when one of its examples is.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from omni_jax.input_pipeline.readers.record import PROBED, BadRecord, Cause, Lost, Record
from omni_jax.input_pipeline.readers.record_fields import field_names, record_of
from omni_jax.input_pipeline.records import DataError

VERSION = 1
CACHE = Path("~/.cache/omni_jax/index").expanduser()
OPEN_SHARDS = 16

Entry = dict[str, Any]
# Entries of a shard, and what its end was like: "" or why it breaks off.
Scan = Callable[[str], tuple[list[Entry], str]]


class ShardIndex:
    """Example number -> (shard, entry). `scan` reads a shard from end to end, once.

    The index of SHARD is kept in SHARD.index, or under ~/.cache/omni_jax where its folder cannot be written. It is made
    again when the shard's size or time have changed.
    """

    def __init__(self, shards: Iterable[str], scan: Scan):
        self.shards, self.lost = [], []
        self._scan = scan
        counts = []
        for shard in shards:
            try:
                header = _header(shard) or _write(shard, scan)
            except (OSError, BadRecord) as error:
                self.lost.append(Lost(shard, _cause_of(error), str(error), 0))
                continue
            self.shards.append(shard)
            counts.append(header["count"])
            if header["broken"]:
                self.lost.append(Lost(shard, Cause.CUT_SHARD, header["broken"], 0))
        if not sum(counts):
            raise DataError(f"no example in {len(counts)} shards, the first of {list(shards)[:1]}: check the path")
        self._ends = np.cumsum(counts)
        # Nobody knows how many records are gone: count as many as a shard has on average.
        average = max(1, round(float(np.mean(counts))))
        self.lost = [lost._replace(records=average) for lost in self.lost]

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> tuple[str, Entry]:
        number = int(np.searchsorted(self._ends, index, side="right"))
        first = 0 if number == 0 else int(self._ends[number - 1])
        shard = self.shards[number]
        return shard, json.loads(_lines(shard, _index_path(shard))[index - first])


class IndexedReader(ABC):
    """The examples of some shards that `scan` finds. `rename` gives fields the names of a record."""

    def __init__(self, shards: Iterable[str], rename: Mapping[str, str], scan: Scan):
        self._index = ShardIndex(shards, scan)
        self._rename = dict(rename)
        self.lost = self._index.lost

    @abstractmethod
    def field_names(self, shard: str, entry: Entry) -> set[str]:
        """What an example has, at little cost."""

    @abstractmethod
    def read_fields(self, shard: str, entry: Entry) -> dict[str, Any]:
        """Raises BadRecord."""

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, index: int) -> Record:
        return record_of(self.key(index), self.read_fields(*self._index[index]), self._rename)

    def key(self, index: int) -> str:
        shard, entry = self._index[index]
        return f"{Path(shard).name}/{entry['key']}"

    def kinds(self) -> dict[frozenset[str], Sequence[int]]:
        """All examples are taken to have what the first ones have."""
        names = set().union(*(self.field_names(*self._index[index]) for index in range(min(PROBED, len(self)))))
        return {field_names(sorted(names), self._rename): range(len(self))}


def _cause_of(error: OSError | BadRecord) -> Cause:
    if isinstance(error, BadRecord):
        return error.cause
    return Cause.MISSING_SHARD if isinstance(error, FileNotFoundError) else Cause.UNREADABLE


def _index_path(shard: str) -> str:
    beside = Path(f"{shard}.index")
    if beside.exists() or os.access(beside.parent, os.W_OK):
        return str(beside)
    name = hashlib.sha256(str(Path(shard).resolve()).encode()).hexdigest()[:32]
    return str(CACHE / f"{name}.index")


def _stamp(shard: str) -> dict[str, int]:
    stat = os.stat(shard)
    return {"version": VERSION, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}


def _header(shard: str) -> dict[str, Any] | None:
    """The first line of the shard's index, if it is of this very shard."""
    stamp = _stamp(shard)
    try:
        with open(_index_path(shard), encoding="utf-8") as file:
            header = json.loads(file.readline())
    except (OSError, ValueError):
        return None
    fits = isinstance(header, dict) and stamp.items() <= header.items() and isinstance(header.get("count"), int)
    return header if fits else None


def _write(shard: str, scan: Scan) -> dict[str, Any]:
    stamp = _stamp(shard)
    entries, broken = scan(shard)
    header = stamp | {"count": len(entries), "broken": broken}
    path = Path(_index_path(shard))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")  # several hosts may make it at once
    with temporary.open("w", encoding="utf-8") as file:
        for line in (header, *entries):
            file.write(json.dumps(line) + "\n")
    temporary.replace(path)
    return header


@functools.lru_cache(maxsize=OPEN_SHARDS)
def _lines(shard: str, path: str) -> list[str]:
    with open(path, encoding="utf-8") as file:
        return file.read().splitlines()[1:]
