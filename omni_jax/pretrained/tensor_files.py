"""Safetensors files read one tensor at a time, so that host memory holds one tensor and not a file.

The library maps whole files into memory, whose pages then count as the process's own. The format is a length, a JSON
header and the bytes: https://huggingface.co/docs/safetensors. No code lies in it, so none runs on loading.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np

from omni_jax.errors import UserError

DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "U8": np.dtype(np.uint8),
    "I8": np.dtype(np.int8),
    "BOOL": np.dtype(np.bool_),
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
_MAX_HEADER_BYTES = 100_000_000  # the library's own limit
_MAX_JSON_BYTES = 100_000_000


class Tensor(NamedTuple):
    """Where a tensor lies."""

    path: Path
    dtype: np.dtype
    shape: tuple[int, ...]
    start: int  # bytes from the file's beginning

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self) -> np.ndarray:
        """The tensor in memory of its own. Raises UserError when the file has shrunk meanwhile."""
        values = np.empty(self.shape, self.dtype)
        with self.path.open("rb") as file:
            file.seek(self.start)
            if file.readinto(values.reshape(-1).view(np.uint8)) != self.num_bytes:
                raise UserError(f"{self.path}: ends inside a tensor: copy it again")
        return values


def read_headers(directory: Path) -> dict[str, Tensor]:
    """Every tensor of a checkpoint directory: one `model.safetensors`, or the shards of its index.

    Raises UserError for a missing or truncated file, an index that names tensors which are not there, and for
    directories that hold pickles only.
    """
    if (directory / INDEX).is_file():
        shards = read_json(directory / INDEX).get("weight_map")
        if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
            raise UserError(f"{directory / INDEX}: no weight_map in it: copy it again")
        tensors = {}
        for shard in sorted(set(shards.values())):
            tensors.update(read_header(_inside(directory, shard)))
        absent = sorted(set(shards) - set(tensors))
        if absent:
            raise UserError(f"{directory / shards[absent[0]]}: {absent[0]} is not in it, as the index says: copy it")
        return tensors
    if (directory / SINGLE).is_file():
        return read_header(directory / SINGLE)
    pickles = sorted(path.name for suffix in ("bin", "pt", "pth", "ckpt") for path in directory.glob(f"*.{suffix}"))
    if pickles:
        raise UserError(
            f"{directory / pickles[0]}: a pickle can run code when it is opened, so it is not: convert it where you "
            "trust it (save_pretrained of transformers writes safetensors), or take the repository's safetensors"
        )
    raise UserError(f"{directory}: neither {SINGLE} nor {INDEX} in it: give the directory of a published checkpoint")


def read_json(path: Path) -> dict:
    """A JSON object. Raises UserError for a file that is missing, too large or something else."""
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise UserError(f"{path}: {path.stat().st_size} bytes are too many for JSON: is it the right file?")
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not readable as JSON ({error}): copy it again") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: want a JSON object: copy it again")
    return values


def _inside(directory: Path, name: str) -> Path:
    if Path(name).name != name:
        raise UserError(f"{directory / INDEX}: shard {name!r} lies outside the directory: refused")
    if not (directory / name).is_file():
        raise UserError(f"{directory / name}: this shard is missing: download it into the directory")
    return directory / name


def read_header(path: Path) -> dict[str, Tensor]:
    """Every tensor of one safetensors file. Raises UserError for a file that is damaged or cut off."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, _MAX_HEADER_BYTES):
            raise UserError(f"{path}: no safetensors header, or truncated ({size} bytes): copy it again")
        try:
            header = json.loads(file.read(length))
            tensors = dict(_parse(path, header, 8 + length))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(f"{path}: damaged safetensors header ({error}): copy it again") from None
    end = max((tensor.start + tensor.num_bytes for tensor in tensors.values()), default=8 + length)
    if end > size:
        raise UserError(f"{path}: truncated, {size} of {end} bytes are there: copy it again")
    return tensors


def _parse(path: Path, header: Mapping[str, Mapping], data: int) -> Iterator[tuple[str, Tensor]]:
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] not in DTYPES:
            raise UserError(f"{path}: {name} has dtype {entry['dtype']}, want one of {', '.join(DTYPES)}")
        begin, end = (int(offset) for offset in entry["data_offsets"])
        tensor = Tensor(path, DTYPES[entry["dtype"]], tuple(int(n) for n in entry["shape"]), data + begin)
        if begin < 0 or min(tensor.shape, default=0) < 0 or end - begin != tensor.num_bytes:
            raise ValueError(f"{name}: {end - begin} bytes for shape {tensor.shape}")
        yield name, tensor
