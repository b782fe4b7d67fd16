"""One matrix' low-rank update as the PEFT library has it: A [rank, inputs], B [outputs, rank], magnitudes [outputs]."""

from __future__ import annotations

import numpy as np

from omni_jax.pretrained.family import Family
from omni_jax.pretrained.layout import Entry

UNTRANSPOSED = "gpt2"  # its matrices are [inputs, outputs], PEFT's parts of them are not


def module_name(family: Family, line: Entry) -> str:
    """The published module that holds the matrix."""
    return f"{family.prefix}{line.theirs.removesuffix('.weight')}"


def to_theirs(family: Family, line: Entry, array: np.ndarray, inputs: int) -> np.ndarray:
    """[rank, *outputs] as [outputs, rank], in the order that the family has its outputs in.

    `inputs`: axes of the matrix that come in; a layout that reorders outputs has one.
    """
    if inputs > 1 or family.name == UNTRANSPOSED:
        return array.reshape(array.shape[0], -1).T
    return np.asarray(line.layout.to_theirs([array]))


def to_ours(family: Family, line: Entry, array: np.ndarray, inputs: int, outputs: tuple[int, ...]) -> np.ndarray:
    """The inverse of `to_theirs`."""
    shape = (array.shape[1], *outputs)
    if inputs > 1 or family.name == UNTRANSPOSED:
        return array.T.reshape(shape)
    return line.layout.to_ours(array, [shape])[0]


def input_axes(shape: tuple[int, ...], inputs: int, outputs: int) -> int:
    """How many axes of a matrix come in, when their sizes multiply to `inputs`; 0 when it does not fit."""
    for count in range(1, len(shape)):
        if (int(np.prod(shape[:count])), int(np.prod(shape[count:]))) == (inputs, outputs):
            return count
    return 0
