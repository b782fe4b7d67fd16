"""Finished arrays of an import, so that one that is killed goes on where it was."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from jaxtyping import Array

from omni_jax.checkpoint import load_arrays, save_arrays

PART_BYTES = 1_000_000_000  # less is read again sooner than written
_INDEX = "parts.json"


class KeptParts:
    """A directory of numbered parts, each a few whole arrays; made when the first part is full.

    `source` says what is imported: parts of anything else are deleted.
    """

    def __init__(self, directory: Path, source: str):
        self._directory, self._key = directory, hashlib.sha256(source.encode()).hexdigest()
        self._waiting: dict[str, Array] = {}
        self._parts: list[list[str]] = []  # the names of the arrays in each part

    def load(self, abstract: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, Array]:
        """The arrays of the finished parts, placed as `abstract` says."""
        arrays: dict[str, Array] = {}
        for number, names in enumerate(self._read_index()):
            arrays |= _unescaped(load_arrays(self._directory / str(number), _escaped({n: abstract[n] for n in names})))
            self._parts.append(names)
        if arrays:
            print(f"going on from {self._directory}: {len(arrays)} of {len(abstract)} arrays are there")
        return arrays

    def add(self, arrays: Mapping[str, Array]) -> None:
        """Takes finished arrays, and writes a part when there are enough of them."""
        self._waiting |= arrays
        if sum(array.nbytes for array in self._waiting.values()) < PART_BYTES:
            return
        self._directory.mkdir(parents=True, exist_ok=True)
        part = self._directory / str(len(self._parts))
        shutil.rmtree(part, ignore_errors=True)  # of an import that was killed while it wrote
        save_arrays(part, _escaped(self._waiting))
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


def _escaped(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Paths as plain names: a checkpoint's names are files."""
    return {path.replace("/", "."): array for path, array in arrays.items()}


def _unescaped(arrays: Mapping[str, Any]) -> dict[str, Any]:
    return {name.replace(".", "/"): array for name, array in arrays.items()}
