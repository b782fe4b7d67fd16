"""Safetensors files written one tensor at a time, in shards with an index, as `transformers` names them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from omni_jax.pretrained.tensor_files import INDEX, NAMES, SINGLE

SHARD_BYTES = 5_000_000_000


class Source(NamedTuple):
    """A tensor to be written; `make` computes it when its turn comes."""

    shape: tuple[int, ...]
    dtype: np.dtype
    make: Callable[[], np.ndarray]

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def write_tensors(directory: Path, sources: Mapping[str, Source], shard_bytes: int = SHARD_BYTES) -> None:
    """Writes one `model.safetensors`, or shards of at most `shard_bytes` (or one tensor) and their index."""
    shards = _shards(sources, shard_bytes)
    if len(shards) == 1:
        write_file(directory / SINGLE, shards[0])
        return
    weight_map = {}
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        write_file(directory / name, shard)
        weight_map.update(dict.fromkeys(shard, name))
    total = sum(source.num_bytes for source in sources.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (directory / INDEX).write_text(json.dumps(index, indent=2) + "\n")


def _shards(sources: Mapping[str, Source], shard_bytes: int) -> list[dict[str, Source]]:
    shards: list[dict[str, Source]] = [{}]
    filled = 0
    for name, source in sources.items():
        if shards[-1] and filled + source.num_bytes > shard_bytes:
            shards.append({})
            filled = 0
        shards[-1][name] = source
        filled += source.num_bytes
    return shards


def write_file(path: Path, sources: Mapping[str, Source]) -> None:
    """One safetensors file."""
    header: dict[str, dict] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, source in sources.items():
        offsets = [end, end + source.num_bytes]
        header[name] = {"dtype": NAMES[source.dtype], "shape": list(source.shape), "data_offsets": offsets}
        end = offsets[1]
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data begin at a multiple of 8 bytes
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for source in sources.values():
            values = np.ascontiguousarray(source.make(), source.dtype).reshape(source.shape)
            file.write(values.reshape(-1).view(np.uint8).data)
