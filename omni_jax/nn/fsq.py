"""Finite scalar quantisation (arXiv:2309.15505): each dimension is rounded to a few levels, nothing is learned.

The codes of several dimensions are numbers of one grid, so the codebooks of the other quantisers, filled with the grid
and left alone, do the rest: nearest code, straight-through gradient, decoding.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

EPS = 1e-3  # keeps the outermost levels inside the range of tanh


def num_codes(levels: tuple[int, ...]) -> int:
    return math.prod(levels)


def bound(x: Float[Array, "... D"], levels: tuple[int, ...]) -> Float[Array, "... D"]:
    """Squeezes dimension d into `levels[d]` unit steps; even counts are shifted by half a step so that 0 is a level."""
    counts = np.asarray(levels, np.float32)
    half = (counts - 1) * (1 + EPS) / 2
    offset = np.where(counts % 2 == 0, 0.5, 0.0).astype(np.float32)
    shape = (1,) * (x.ndim - 1) + (-1,)
    half, offset, shift = (v.reshape(shape) for v in (half, offset, np.arctanh(offset / half)))
    return jnp.tanh(x + shift) * half - offset


def bounded(latents: Float[Array, "B T D"], levels: tuple[int, ...]) -> Float[Array, "B T D"]:
    """Latents in [-1, 1] whose nearest code is what rounding gives: `quantize` with `product_codebooks` is FSQ."""
    return bound(latents, levels) / _half_widths(levels)[None, None]


def grid(levels: tuple[int, ...]) -> Float[np.ndarray, "K D"]:
    """The vectors of all codes."""
    codes, counts = np.arange(num_codes(levels))[:, None], np.asarray(levels)
    half = _half_widths(levels)[None]
    return ((codes // _places(levels)[None] % counts[None] - half) / half).astype(np.float32)


def product_codebooks(levels: tuple[int, ...], num_codebooks: int) -> Float[np.ndarray, "Q K QD"]:
    """Each codebook is the grid of its own D dimensions of the latents and zero in the others."""
    vectors = grid(levels)
    books = np.zeros((num_codebooks, len(vectors), num_codebooks, len(levels)), np.float32)
    for q in range(num_codebooks):
        books[q, :, q] = vectors
    return books.reshape(num_codebooks, len(vectors), -1)


def _half_widths(levels: tuple[int, ...]) -> np.ndarray:
    return np.asarray([count // 2 for count in levels], np.int32)


def _places(levels: tuple[int, ...]) -> np.ndarray:
    return np.cumprod((1, *levels[:-1])).astype(np.int32)
