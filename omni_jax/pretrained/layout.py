"""How one published tensor becomes one or several of our arrays, and back, without touching a bit of any value.

`to_ours` works on NumPy arrays and moves views where it can; `to_theirs` also works on abstract arrays, which is how
shapes are checked before anything is read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped

Shape = tuple[int, ...]


class Layout(NamedTuple):
    """`to_ours(tensor, shapes)` gives one array for each of our shapes, `to_theirs(arrays)` the published tensor."""

    to_ours: Callable[[np.ndarray, Sequence[Shape]], tuple[np.ndarray, ...]]
    to_theirs: Callable[[Sequence[Shaped[Array, "..."]]], Shaped[Array, "..."]]


class Slot(NamedTuple):
    """One of our arrays, or one layer (and expert) of a stack of them."""

    path: str  # keys joined by "/"
    index: tuple[int, ...] = ()


class Entry(NamedTuple):
    """One line of a family's table: a published tensor, the slots that it fills, and how."""

    theirs: str
    ours: tuple[Slot, ...]
    layout: Layout


def _two_dimensions(array: Shaped[Array, "..."], inputs: int) -> Shaped[Array, "I O"]:
    in_size = int(np.prod(array.shape[:inputs], dtype=np.int64))
    return array.reshape(in_size, -1)


SAME = Layout(lambda tensor, shapes: (tensor.reshape(shapes[0]),), lambda arrays: arrays[0])
# A bias by heads [H, Dh] is published flat.
FLAT = Layout(lambda tensor, shapes: (tensor.reshape(shapes[0]),), lambda arrays: arrays[0].reshape(-1))


def matrix(inputs: int = 1) -> Layout:
    """A `torch.nn.Linear` weight [O, I]; ours is [*inputs, *outputs] with so many leading input axes."""
    return Layout(
        lambda tensor, shapes: (tensor.T.reshape(shapes[0]),),
        lambda arrays: _two_dimensions(arrays[0], inputs).T,
    )


def untransposed(inputs: int = 1) -> Layout:
    """GPT-2's `Conv1D` weight [I, O]."""
    return Layout(
        lambda tensor, shapes: (tensor.reshape(shapes[0]),), lambda arrays: _two_dimensions(arrays[0], inputs)
    )


def fused(parts: int, inputs: int) -> Layout:
    """Several untransposed weights (or, with inputs=0, biases) side by side in one tensor's last axis."""

    def to_ours(tensor: np.ndarray, shapes: Sequence[Shape]) -> tuple[np.ndarray, ...]:
        return tuple(part.reshape(shape) for part, shape in zip(np.split(tensor, parts, axis=-1), shapes))

    def to_theirs(arrays: Sequence[Shaped[Array, "..."]]) -> Shaped[Array, "..."]:
        flat = [_two_dimensions(array, inputs) if inputs else array.reshape(-1) for array in arrays]
        return jnp.concatenate(flat, axis=-1)

    return Layout(to_ours, to_theirs)


def adjacent_pairs(rotary_dim: int) -> Layout:
    """A query or key matrix whose rotary pairs are neighbours (GPT-J) becomes one that turns (i, i + R).

    A fixed permutation of the first `rotary_dim` outputs of each head; queries and keys permuted alike give the same
    attention.
    """
    order = np.concatenate([np.arange(0, rotary_dim, 2), np.arange(1, rotary_dim, 2)])
    back = np.argsort(order)

    def permuted(array: Shaped[Array, "D H Dh"], by: np.ndarray) -> Shaped[Array, "D H Dh"]:
        by = np.concatenate([by, np.arange(rotary_dim, array.shape[-1])])
        return array[..., by]

    plain = matrix()
    return Layout(
        lambda tensor, shapes: (permuted(plain.to_ours(tensor, shapes)[0], order),),
        lambda arrays: plain.to_theirs([permuted(arrays[0], back)]),
    )


def convolution(rank: int, side: int | None = None) -> Layout:
    """A `torch.nn.Conv` weight; ours is a matrix over windows, [kernel... * I, O].

    rank 1: Whisper's [O, I, 3]. rank 2: square patches of RGB pictures, [O, 3, p, p], or kernels of a given side.
    """
    given = 3 if rank == 1 else side

    def to_theirs(arrays: Sequence[Shaped[Array, "KI O"]]) -> Shaped[Array, "O I ..."]:
        rows, outputs = arrays[0].shape
        side = given or math.isqrt(rows // 3)
        unfolded = arrays[0].reshape(*(side,) * rank, rows // side**rank, outputs)
        return unfolded.transpose(rank + 1, rank, *range(rank))

    return Layout(
        lambda tensor, shapes: (tensor.transpose(*range(2, 2 + rank), 1, 0).reshape(shapes[0]),),
        to_theirs,
    )


def film_patches(frames: int) -> Layout:
    """A `torch.nn.Conv3d` weight of patches [O, 3, frames, p, p]; ours is [frames * p * p * 3, O]."""

    def to_theirs(arrays: Sequence[Shaped[Array, "X O"]]) -> Shaped[Array, "O 3 F p p"]:
        rows, outputs = arrays[0].shape
        side = math.isqrt(rows // (3 * frames))
        return arrays[0].reshape(frames, side, side, 3, outputs).transpose(4, 3, 0, 1, 2)

    return Layout(lambda tensor, shapes: (tensor.transpose(2, 3, 4, 1, 0).reshape(shapes[0]),), to_theirs)


def fused_matrices(parts: int) -> Layout:
    """Several `torch.nn.Linear` weights, or biases, behind each other in one tensor's first axis."""

    def to_ours(tensor: np.ndarray, shapes: Sequence[Shape]) -> tuple[np.ndarray, ...]:
        return tuple(part.T.reshape(shape) for part, shape in zip(np.split(tensor, parts), shapes))

    def to_theirs(arrays: Sequence[Shaped[Array, "..."]]) -> Shaped[Array, "..."]:
        flat = [array.reshape(-1) if array.ndim == 2 else _two_dimensions(array, 1).T for array in arrays]
        return jnp.concatenate(flat)

    return Layout(to_ours, to_theirs)


def leading_row() -> Layout:
    """A table whose first row is ours apart: [1 + N, D] as [D] and [N, D] (CLIP's class position)."""
    return Layout(
        lambda tensor, shapes: (tensor[0], tensor[1:]),
        lambda arrays: jnp.concatenate([arrays[0][None], arrays[1]]),
    )
