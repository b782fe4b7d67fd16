"""ArrayRecord files of tf.Example: this project's own, and the ones that TFDS writes (`file_format="array_record"`).

The directory of a TFDS dataset holds `features.json`, which says at what rate audio was stored. No TensorFlow.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader

from omni_jax.input_pipeline.readers.record import PROBED, BadRecord, Cause, Lost, Record, Samples
from omni_jax.input_pipeline.readers.record_fields import field_names, record_of
from omni_jax.input_pipeline.records import DataError, parse_example

OPEN_FILES = 64


class ExampleReader:
    """The records of some ArrayRecord files, in order."""

    def __init__(self, shards: Sequence[str], rename: Mapping[str, str]):
        self._rename = dict(rename)
        self._shards: list[str] = []
        self.lost: list[Lost] = []
        counts = []
        for shard in shards:
            try:
                counts.append(_file(shard).num_records())
                self._shards.append(shard)
            except (OSError, RuntimeError, ValueError, IndexError) as error:
                there = Path(shard).exists()
                cause = Cause.CUT_SHARD if there else Cause.MISSING_SHARD
                self.lost.append(Lost(shard, cause, f"no whole ArrayRecord file: {error}" if there else "not there", 0))
        if not sum(counts):
            raise DataError(f"no record in {len(shards)} ArrayRecord files, the first of {list(shards)[:1]}")
        self._ends = np.cumsum(counts)
        average = max(1, round(float(np.mean(counts))))
        self.lost = [lost._replace(records=average) for lost in self.lost]
        self._rates = _sample_rates(Path(self._shards[0]).parent / "features.json")

    def __len__(self) -> int:
        return int(self._ends[-1])

    def kinds(self) -> dict[frozenset[str], Sequence[int]]:
        """All records are taken to have what the first ones have."""
        names: set[str] = set()
        for index in range(min(PROBED, len(self))):
            try:
                names |= {name for name, value in self._fields(index).items() if len(value)}
            except BadRecord:
                continue
        return {field_names(sorted(names), self._rename): range(len(self))}

    def __getitem__(self, index: int) -> Record:
        return record_of(self.key(index), self._fields(index), self._rename)

    def key(self, index: int) -> str:
        shard, record = self._place(index)
        return f"{os.path.basename(shard)}[{record}]"

    def _place(self, index: int) -> tuple[str, int]:
        """File, record of the file."""
        number = int(np.searchsorted(self._ends, index, side="right"))
        return self._shards[number], index - (int(self._ends[number - 1]) if number else 0)

    def _fields(self, index: int) -> dict[str, Any]:
        shard, record = self._place(index)
        try:
            (content,) = _file(shard).read([record])
        except (OSError, RuntimeError, ValueError, IndexError) as error:
            raise BadRecord(Cause.CUT_SHARD, f"{shard} cannot be read at record {record} ({error})") from None
        try:
            fields = parse_example(content)
        except DataError as error:
            raise BadRecord(Cause.UNREADABLE, str(error)) from None
        for name, rate in self._rates.items():
            if name in fields and fields[name] and not isinstance(fields[name][0], bytes):
                fields[name] = Samples(np.asarray(fields[name]).astype(np.int16), rate)
        return fields


@functools.lru_cache(maxsize=OPEN_FILES)
def _file(path: str) -> ArrayRecordReader:
    """Raises OSError for a file that is not whole: the reader itself only says that it is empty."""
    reader = ArrayRecordReader(path, "readahead_buffer_size:0")
    if not reader.ok():
        raise OSError("its index at the end cannot be read")
    return reader


def _sample_rates(path: Path) -> dict[str, int]:
    """Audio features of a TFDS dataset -> rate in Hz."""
    if not path.is_file():
        return {}
    try:
        features = json.loads(path.read_text(encoding="utf-8"))["featuresDict"]["features"]
        return {name: int(f["audio"].get("sampleRate", 0)) for name, f in features.items() if "audio" in f}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not a description of TFDS features ({error})") from None
