"""Finished arrays of an import, so that one that is killed goes on where it was.

A part is a directory with a file for each shard, written from the memory in which the shard lies: Orbax would take two
copies of an array on the way.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

PART_BYTES = 1_000_000_000  # less is read again sooner than written
_INDEX = "parts.json"


class KeptParts:
    """A directory of numbered parts, each a few whole arrays; made when the first part is full.

    `source` says what is imported, in which dtype and onto which mesh: parts of anything else are deleted.
    """

    def __init__(self, directory: Path, source: str):
        self._directory, self._key = directory, hashlib.sha256(source.encode()).hexdigest()
        self._waiting: dict[str, Array] = {}
        self._parts: list[list[str]] = []  # the names of the arrays in each part

    def load(self, abstract: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, Array]:
        """The arrays of the finished parts, placed as `abstract` says."""
        arrays: dict[str, Array] = {}
        for number, names in enumerate(self._read_index()):
            arrays |= {name: _read(self._directory / str(number), name, abstract[name]) for name in names}
            self._parts.append(names)
        if arrays:
            print(f"going on from {self._directory}: {len(arrays)} of {len(abstract)} arrays are there")
        return arrays

    def add(self, arrays: Mapping[str, Array]) -> None:
        """Takes finished arrays, and writes a part when there are enough of them."""
        self._waiting |= arrays
        if sum(array.nbytes for array in self._waiting.values()) < PART_BYTES:
            return
        part = self._directory / str(len(self._parts))
        shutil.rmtree(part, ignore_errors=True)  # of an import that was killed while it wrote
        part.mkdir(parents=True)
        for name, array in self._waiting.items():
            _write(part, name, array)
        self._parts.append(list(self._waiting))
        self._waiting = {}
        index = self._directory / f"{_INDEX}.tmp"
        index.write_text(json.dumps({"source": self._key, "parts": self._parts}) + "\n")
        index.replace(self._directory / _INDEX)

    def _read_index(self) -> list[list[str]]:
        try:
            values: dict[str, Any] = json.loads((self._directory / _INDEX).read_text())
            if values["source"] == self._key:
                return values["parts"]
        except (OSError, ValueError, KeyError, TypeError):
            pass
        shutil.rmtree(self._directory, ignore_errors=True)
        return []


def _write(directory: Path, name: str, array: Array) -> None:
    for shard in array.addressable_shards:
        if shard.replica_id == 0:
            np.save(_file(directory, name, shard.index), _bits(np.asarray(shard.data)), allow_pickle=False)


def _read(directory: Path, name: str, abstract: jax.ShapeDtypeStruct) -> Array:
    def shard(index: tuple[slice, ...]) -> np.ndarray:
        return np.load(_file(directory, name, index), allow_pickle=False).view(abstract.dtype)

    return jax.make_array_from_callback(abstract.shape, abstract.sharding, shard)


def _file(directory: Path, name: str, index: tuple[slice, ...]) -> Path:
    """The shard that begins at `index`; a parameter's path as a plain name."""
    begins = "_".join(str(part.start or 0) for part in index)
    return directory / f"{name.replace('/', '.')}-{begins}.npy"


def _bits(array: np.ndarray) -> np.ndarray:
    """NumPy's files know no bfloat16."""
    return array.view(f"u{array.itemsize}")
