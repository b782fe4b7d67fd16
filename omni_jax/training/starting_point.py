"""Parts of other runs' parameters as the start of this one: `training.init_from = "PATTERN=WORKDIR,..."`."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import jax
import numpy as np

from omni_jax.checkpoint import host_sharding, load_params
from omni_jax.errors import ConfigError
from omni_jax.nn.low_rank import is_update
from omni_jax.training.optimizer import parameter_path


def parse_parts(init_from: str) -> list[tuple[str, str]]:
    """(path pattern, workdir) in the order given; empty when `init_from` is one workdir, which gives everything.

    Raises ConfigError when only some of the parts have a pattern.
    """
    if "=" not in init_from:
        return []
    parts = [tuple(part.strip() for part in item.partition("=")[::2]) for item in init_from.split(",")]
    if not all(pattern and workdir for pattern, workdir in parts):
        raise ConfigError(f"training.init_from={init_from!r}: want one WORKDIR, or PATTERN=WORKDIR,PATTERN=WORKDIR")
    return parts


def take_parts(params: Any, parts: list[tuple[str, str]]) -> Any:
    """`params` with every array whose path matches a pattern taken from that pattern's workdir, placed as it was.

    The first pattern that matches counts; paths are joined by "/", patterns are those of `fnmatch`, whose * also
    matches "/". Low-rank updates (`model.lora`) that the workdir does not have stay as they are.

    Raises:
        ConfigError: a pattern matches nothing here, the workdir lacks a matching array, or the shapes differ.
    """
    loaded = {workdir: _by_path(load_params(workdir, host_sharding())[1]) for _, workdir in parts}
    used: set[str] = set()

    def choose(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        name = parameter_path(path)
        for pattern, workdir in parts:
            if fnmatchcase(name, pattern):
                used.add(pattern)
                if is_update(name) and name not in loaded[workdir]:
                    return leaf
                return jax.device_put(np.asarray(_fitting(name, leaf, workdir, loaded[workdir])), leaf.sharding)
        return leaf

    result = jax.tree_util.tree_map_with_path(choose, params)
    idle = [pattern for pattern, _ in parts if pattern not in used]
    if idle:
        groups = sorted({name.split("/")[0] for name in _by_path(params)})
        raise ConfigError(f"training.init_from: {idle[0]!r} matches no parameter first; the groups are {groups}")
    return result


def _fitting(name: str, leaf: jax.Array, workdir: str, arrays: dict[str, jax.Array]) -> jax.Array:
    if name not in arrays:
        raise ConfigError(f"training.init_from: {workdir} has no {name}: narrow the pattern")
    if arrays[name].shape != leaf.shape:
        raise ConfigError(
            f"training.init_from: {name} has shape {arrays[name].shape} in {workdir}, the model wants {leaf.shape}: "
            "use the same model configuration for this part"
        )
    return arrays[name].astype(leaf.dtype)


def _by_path(params: Any) -> dict[str, jax.Array]:
    return {parameter_path(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
