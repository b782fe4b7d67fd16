"""One example of any source as it lies there, what can be wrong with it, and what a reader offers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, Int16

from omni_jax.input_pipeline.corpus import Span
from omni_jax.input_pipeline.records import DataError


class Cause(StrEnum):
    """Why a record cannot be used; what `quarantine.jsonl` and the counts call it."""

    UNREADABLE = "unreadable"  # not what its name says: HTML for a picture, noise for a FLAC
    TRUNCATED = "truncated"
    EMPTY = "empty"
    NOT_FINITE = "not finite"
    NOT_UTF8 = "not UTF-8"
    SCHEMA = "another schema"
    MISSING = "missing file"
    TOO_LARGE = "too large"
    TOO_LONG = "longer than a row"
    CUT_SHARD = "cut shard"
    MISSING_SHARD = "missing shard"


class BadRecord(DataError):
    """A record that cannot be used, with its cause."""

    def __init__(self, cause: Cause, message: str):
        super().__init__(message)
        self.cause = cause


class Samples(NamedTuple):
    """Audio that is stored undecoded. `values` is [N] for mono."""

    values: Int16[np.ndarray, "N"]
    sample_rate_hz: int


@dataclass(frozen=True)
class Record:
    """What one example has; what it lacks is empty or None. `texts` are alternatives, as five captions of a picture."""

    key: str
    texts: tuple[str, ...] = ()
    audio: bytes | Samples | None = None  # a wav, flac, ogg, opus or mp3 file, or its samples
    picture: bytes | None = None
    reply: str = ""
    label: str = ""
    role: str = ""  # user | assistant
    words: tuple[Span, ...] = ()
    codes: Int[np.ndarray, "F Q"] | None = None  # not yet delayed
    turns: tuple[Record, ...] = ()
    kind: str = ""  # stop | backchannel | side_talk: said while the assistant speaks
    fades: Mapping[int, Int[np.ndarray, "F Q"]] = field(default_factory=dict)  # frame -> codes if it breaks off there
    spoken_reply: Record | None = None  # how `reply` sounds


class Lost(NamedTuple):
    """A part of a source that cannot be read at all: about so many records."""

    key: str
    cause: Cause
    reason: str
    records: int


PROBED = 16  # so many first examples tell what a source's examples have


@runtime_checkable
class Reader(Protocol):
    """Random access to one source. Readers can be pickled; they open their files in the process that reads."""

    lost: Sequence[Lost]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record:
        """Raises BadRecord."""
        ...

    def key(self, index: int) -> str:
        """What an example is called in messages: where to find it."""
        ...

    def kinds(self) -> Mapping[frozenset[str], Sequence[int]]:
        """Indices of examples by the names of the fields that they have; no media is read."""
        ...
