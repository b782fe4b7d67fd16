"""Parquet in the Hugging Face layout: columns, audio and pictures as structs of `bytes` and `path`.

Needs pyarrow (`pip install pyarrow`), also for `gs://` and `s3://`. A row is reached through its whole row group, so
examples in random order cost much more than from ArrayRecord: `python -m data.prepare` turns one into the other.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from omni_jax.errors import UserError
from omni_jax.input_pipeline.readers.record import BadRecord, Cause, Lost, Record
from omni_jax.input_pipeline.readers.record_fields import field_names, record_of
from omni_jax.input_pipeline.records import DataError

MAX_GROUP_BYTES = 2 << 30
OPEN_GROUPS = 4


class ParquetReader:
    """The rows of some files, in order."""

    def __init__(self, shards: Sequence[str], rename: Mapping[str, str]):
        self._rename = dict(rename)
        self._groups: list[tuple[str, int]] = []  # (file, row group)
        self._columns: tuple[str, ...] = ()
        self.lost: list[Lost] = []
        counts: list[int] = []
        for shard in shards:
            try:
                metadata, columns = _footer(shard)
            except UserError:
                raise
            except (OSError, ValueError) as error:
                cause = Cause.MISSING_SHARD if isinstance(error, FileNotFoundError) else Cause.CUT_SHARD
                self.lost.append(Lost(shard, cause, f"no whole Parquet file: {error}", 0))
                continue
            self._columns = self._columns or columns
            counts += [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
            self._groups += [(shard, number) for number in range(metadata.num_row_groups)]
        if not sum(counts):
            raise DataError(f"no row in {len(shards)} Parquet files, the first of {list(shards)[:1]}: check the path")
        self._ends = np.cumsum(counts)
        average = max(1, len(self) // (len(shards) - len(self.lost)))
        self.lost = [lost._replace(records=average) for lost in self.lost]

    def __len__(self) -> int:
        return int(self._ends[-1])

    def kinds(self) -> dict[frozenset[str], Sequence[int]]:
        return {field_names(self._columns, self._rename): range(len(self))}

    def __getitem__(self, index: int) -> Record:
        return record_of(self.key(index), _row(*self._place(index)), self._rename)

    def key(self, index: int) -> str:
        shard, group, row = self._place(index)
        return f"{shard.rpartition('/')[2]}[{group},{row}]"

    def _place(self, index: int) -> tuple[str, int, int]:
        """File, row group, row of the group."""
        number = int(np.searchsorted(self._ends, index, side="right"))
        return *self._groups[number], index - (int(self._ends[number - 1]) if number else 0)


def _pyarrow() -> Any:
    try:
        import pyarrow.fs
        import pyarrow.parquet
    except ImportError:
        raise UserError("a parquet source needs pyarrow: pip install pyarrow") from None
    return pyarrow


def _open(path: str) -> Any:
    pyarrow = _pyarrow()
    if "://" in path:
        filesystem, inner = pyarrow.fs.FileSystem.from_uri(path)
        return pyarrow.parquet.ParquetFile(filesystem.open_input_file(inner))
    return pyarrow.parquet.ParquetFile(path)


def _footer(path: str) -> tuple[Any, tuple[str, ...]]:
    with _open(path) as file:
        return file.metadata, tuple(file.schema_arrow.names)


@functools.lru_cache(maxsize=OPEN_GROUPS)
def _group(path: str, group: int) -> Any:
    with _open(path) as file:
        size = file.metadata.row_group(group).total_byte_size
        if size > MAX_GROUP_BYTES:
            raise BadRecord(Cause.TOO_LARGE, f"a row group of {size} bytes, at most {MAX_GROUP_BYTES} are read")
        return file.read_row_group(group)


def _row(path: str, group: int, row: int) -> dict[str, Any]:
    try:
        return _group(path, group).slice(row, 1).to_pylist()[0]
    except BadRecord:
        raise
    except UnicodeDecodeError:
        raise BadRecord(Cause.NOT_UTF8, "its text is not UTF-8") from None
    except (OSError, ValueError, IndexError, OverflowError, NotImplementedError) as error:
        raise BadRecord(Cause.UNREADABLE, f"the row cannot be read ({error})") from None
