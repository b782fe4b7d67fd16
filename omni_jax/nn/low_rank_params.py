"""Gives the matrices of a model the parameters of their low-rank updates."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import NamedTuple

from flax import nnx

from omni_jax.errors import ConfigError
from omni_jax.model_config import LowRank
from omni_jax.nn.low_rank import A, B, M
from omni_jax.nn.param import constant, weight

_BATCH_AXES = ("layers", "expert", "codebook")  # one matrix for each


class _Matrix(NamedTuple):
    owner: nnx.Module
    name: str
    path: str
    axes: tuple[str, ...]
    shape: tuple[int, ...]


def add_low_rank(model: nnx.Module, updates: tuple[LowRank, ...], rngs: nnx.Rngs, *, strict: bool = True) -> None:
    """Gives every matrix of `model` the update of the first pattern that its path matches; other arrays have none.

    Raises ConfigError for a pattern that is the first of no matrix, if `strict`: a part of a model lacks some.
    """
    idle = list(updates)
    for matrix in list(_matrices(model)) if updates else ():
        update = next((update for update in updates if fnmatchcase(matrix.path, update.pattern)), None)
        if update is not None:
            _add(matrix, update, rngs)
            idle = [other for other in idle if other != update]
    if idle and strict:
        raise ConfigError(f"model.lora: {idle[0].pattern!r} matches no matrix first: want a pattern such as */query")


def _matrices(model: nnx.Module) -> Iterator[_Matrix]:
    for path, node in nnx.iter_graph(model):
        if not isinstance(node, nnx.Module):
            continue
        for name, value in vars(node).items():
            if isinstance(value, nnx.Param):
                axes = value.get_metadata("axes")
                is_matrix = len([axis for axis in axes if axis not in _BATCH_AXES]) > 1
                if is_matrix and not name.endswith("bias"):  # attention's biases are by heads
                    full = "/".join(str(part) for part in (*path, name))
                    yield _Matrix(node, name, full, axes, value.shape)


def _add(matrix: _Matrix, update: LowRank, rngs: nnx.Rngs) -> None:
    count = len([axis for axis in matrix.axes if axis in _BATCH_AXES])
    inputs = len(matrix.axes) - 1 if matrix.axes[count] == "heads" else count + 1
    batch, ins, outs = slice(0, count), slice(count, inputs), slice(inputs, None)

    def part(*parts: slice | int) -> tuple[tuple[int, ...], tuple[str, ...]]:
        """Shape and axes; a number is a dimension of that size."""
        shape = sum(((part,) if isinstance(part, int) else matrix.shape[part] for part in parts), ())
        return shape, sum((("small",) if isinstance(part, int) else matrix.axes[part] for part in parts), ())

    owner, name, std = matrix.owner, matrix.name, math.prod(matrix.shape[ins]) ** -0.5
    setattr(owner, name + A, weight(rngs, *part(batch, ins, update.rank), std))
    setattr(owner, name + B, constant(*part(batch, update.rank, outs), 0.0))
    if update.magnitude:
        setattr(owner, name + M, constant(*part(batch, math.prod(matrix.shape[outs])), 1.0))
