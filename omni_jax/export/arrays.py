"""Nested dicts of arrays as flat safetensors files: `a/b/c` names, no code in the file, so none runs on loading."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.flax import load_file, save_file

from omni_jax.errors import UserError

_SEPARATOR = "/"


def write_arrays(path: Path, params: Mapping[str, Any]) -> None:
    """Writes every leaf with its dtype, bfloat16 included. Raises ValueError for a key with the separator in it."""
    save_file(flatten(params), path)


def read_arrays(path: Path) -> dict[str, Any]:
    """The nested dict that `write_arrays` was given, as jax arrays. Raises UserError for a damaged file."""
    try:
        return unflatten(load_file(path))
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: not readable as safetensors ({error}): export it again") from None


def flatten(params: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in params.items():
        if _SEPARATOR in str(key):
            raise ValueError(f"parameter key {key!r} in {prefix!r} holds {_SEPARATOR!r}: rename the parameter")
        name = f"{prefix}{key}"
        flat.update(flatten(value, name + _SEPARATOR) if isinstance(value, Mapping) else {name: value})
    return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        *groups, leaf = name.split(_SEPARATOR)
        node = nested
        for group in groups:
            node = node.setdefault(group, {})
        node[leaf] = value
    return nested


def num_parameters(params: Mapping[str, Any]) -> int:
    return sum(int(np.size(value)) for value in flatten(params).values())
