"""A batch on its way from one process to another: one block of memory, because every piece costs more than its bytes.

A file of shared memory takes three messages to Python's resource tracker and as many wake-ups of it, an array that is
sent a header and two copies; a batch has 26 arrays.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from grain._src.python.ipc.shared_memory_array import SharedMemoryArray

from omni_jax.types import Batch, Media, Timeline

ALIGNMENT = 64
SHARED_BYTES = 1 << 16  # a smaller block is sent


class Parcel(NamedTuple):
    layout: str  # JSON: shape and dtype of every array, in order
    block: np.ndarray  # their bytes, each from a multiple of ALIGNMENT on


class Place(NamedTuple):
    shape: tuple[int, ...]
    dtype: str
    offset: int
    end: int


def wrap(batch: Batch) -> Parcel:
    """To be called in the process that sends; grain hands a shared block over by its name."""
    arrays = [*batch.timeline, *batch.media, *batch[2:]]
    layout = json.dumps([[array.shape, array.dtype.str] for array in arrays])
    places = _places(layout)
    size = places[-1].end
    block = SharedMemoryArray((size,), np.uint8) if size >= SHARED_BYTES else np.empty(size, np.uint8)
    for array, inside in zip(arrays, _views(block, places), strict=True):
        inside[...] = array
    return Parcel(layout, block)


def join(parcels: Sequence[Parcel]) -> Batch:
    """The batch of several parts, along the leading axis of every array; copied, so that the blocks can go."""
    parts = zip(*(_views(parcel.block, _places(parcel.layout)) for parcel in parcels), strict=True)
    arrays = [np.concatenate(part) for part in parts]
    media = len(Timeline._fields)
    rest = media + len(Media._fields)
    return Batch(Timeline(*arrays[:media]), Media(*arrays[media:rest]), *arrays[rest:])


def _views(block: np.ndarray, places: Sequence[Place]) -> list[np.ndarray]:
    plain: Any = block.view(np.ndarray)
    return [plain[place.offset : place.end].view(place.dtype).reshape(place.shape) for place in places]


@functools.lru_cache(maxsize=16)
def _places(layout: str) -> tuple[Place, ...]:
    places, offset = [], 0
    for shape, dtype in json.loads(layout):
        end = offset + math.prod(shape) * np.dtype(dtype).itemsize
        places.append(Place(tuple(shape), dtype, offset, end))
        offset = -(-end // ALIGNMENT) * ALIGNMENT
    return tuple(places)
