"""The sources of a run together: which examples have what, reading them, and what happens to bad ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np

from omni_jax.input_pipeline.readers.address import open_reader, parse
from omni_jax.input_pipeline.readers.record import BadRecord, Reader, Record
from omni_jax.input_pipeline.records import DataError, Quarantine

ATTEMPTS = 100  # records that are tried in place of bad ones
HELD_OUT_EVERY = 50  # every so many-th example of a source belongs to the test split

T = TypeVar("T")


@dataclass(frozen=True)
class Keys:
    """Numbers 0 .. len - 1 for the examples of a split that have something, over all sources."""

    parts: tuple[tuple[str, Sequence[int]], ...]  # (source, its examples)
    held_out: bool

    def __len__(self) -> int:
        return int(self._ends[-1]) if self.parts else 0

    @cached_property
    def _ends(self) -> np.ndarray:
        return np.cumsum([self._count(len(indices)) for _, indices in self.parts])

    def _count(self, examples: int) -> int:
        held_out = examples // HELD_OUT_EVERY
        return held_out if self.held_out else examples - held_out

    def __getitem__(self, key: int) -> tuple[str, int]:
        ends = self._ends
        part = int(np.searchsorted(ends, key, side="right"))
        inside = key - (int(ends[part - 1]) if part else 0)
        name, indices = self.parts[part]
        if self.held_out:
            return name, indices[(inside + 1) * HELD_OUT_EVERY - 1]
        return name, indices[inside + inside // (HELD_OUT_EVERY - 1)]


class OwnSources:
    """Readers by name. What is read is either used or set aside: `read = used + quarantined`, source by source."""

    def __init__(self, addresses: Mapping[str, str], quarantine: Quarantine):
        self.readers: dict[str, Reader] = {name: open_reader(name, addresses[name]) for name in sorted(addresses)}
        self._weights = {name: parse(name, addresses[name]).weight for name in self.readers}
        self.quarantine = quarantine
        self.used = dict.fromkeys(self.readers, 0)
        self.set_aside = dict.fromkeys(self.readers, 0)
        self._kinds = {name: reader.kinds() for name, reader in self.readers.items()}
        for name, reader in self.readers.items():
            quarantine.total[name] = len(reader) + sum(lost.records for lost in reader.lost)
            for lost in reader.lost:
                quarantine.add(name, lost.key, lost.reason, lost.cause, lost.records)
            for index in self._kinds[name].get(frozenset(), ()):  # no task would ever ask for them
                self._look_at(name, index)
            quarantine.check(name)

    def keys(self, needed: Sequence[frozenset[str]], without: frozenset[str], split: str) -> Keys:
        """Examples that have all of one of `needed`, and nothing of `without`."""
        parts = [
            (name, indices)
            for name, kinds in self._kinds.items()
            for names, indices in kinds.items()
            if any(fields <= names for fields in needed) and not without & names
            for _ in range(self._weights[name])
        ]
        return Keys(tuple(parts), split != "train")

    def usable(
        self, keys: Keys, key: int, rng: np.random.Generator, make: Callable[[Record, np.random.Generator], T]
    ) -> T:
        """What `make` makes of record `key`; of another one, drawn by `rng`, where that is bad.

        Raises DataError when a source has too many bad records, or ATTEMPTS after each other are bad.
        """
        for _ in range(ATTEMPTS):
            source, index = keys[key]
            try:
                made = make(self.read(source, index), rng)
            except BadRecord as error:
                self.reject(source, index, error)
                key = int(rng.integers(len(keys)))
                continue
            self.use(source)
            return made
        raise DataError(f"{ATTEMPTS} bad records in a row, the last of source {source}: see quarantine.jsonl")

    def describe(self) -> str:
        """What each source's examples have, for messages."""
        names = {name: sorted(set().union(*kinds)) for name, kinds in self._kinds.items()}
        return "; ".join(f"{name} has {', '.join(fields) or 'nothing known'}" for name, fields in names.items())

    def read(self, source: str, index: int) -> Record:
        """Raises BadRecord; the caller reports what becomes of the record with `use` or `reject`."""
        self.quarantine.seen[source] = self.quarantine.seen.get(source, 0) + 1
        return self.readers[source][index]

    def _look_at(self, source: str, index: int) -> None:
        """Reads an example of which nothing is known, to count it as used or set aside."""
        try:
            self.read(source, index)
        except BadRecord as error:
            self.reject(source, index, error)
        else:
            self.use(source)

    def use(self, source: str) -> None:
        self.used[source] += 1

    def reject(self, source: str, index: int, error: BadRecord) -> None:
        """Raises DataError when the source has too many bad records."""
        self.set_aside[source] += 1
        self.quarantine.add(source, self.readers[source].key(index), str(error), error.cause)
        self.quarantine.check(source)
