"""Finite scalar quantisation (arXiv:2309.15505): no codebook, each dimension is rounded to a few levels."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

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


def quantize(
    latents: Float[Array, "B T D"], levels: tuple[int, ...]
) -> tuple[Float[Array, "B T D"], Int[Array, "B T"]]:
    """Straight-through vectors in [-1, 1] and their codes."""
    bounded = bound(latents, levels)
    rounded = bounded + jax.lax.stop_gradient(jnp.round(bounded) - bounded)
    return rounded / _half_widths(levels)[None, None], _codes(jnp.round(bounded), levels)


def dequantize(codes: Int[Array, "B T"], levels: tuple[int, ...]) -> Float[Array, "B T D"]:
    """The vectors of the codes."""
    counts, places = np.asarray(levels), _places(levels)
    digits = codes[..., None] // places[None, None] % counts[None, None]
    half = _half_widths(levels)[None, None]
    return (digits - half) / half


def _half_widths(levels: tuple[int, ...]) -> np.ndarray:
    return np.asarray([count // 2 for count in levels], np.int32)


def _places(levels: tuple[int, ...]) -> np.ndarray:
    return np.cumprod((1, *levels[:-1])).astype(np.int32)


def _codes(rounded: Float[Array, "B T D"], levels: tuple[int, ...]) -> Int[Array, "B T"]:
    digits = rounded.astype(jnp.int32) + _half_widths(levels)[None, None]
    return jnp.sum(digits * _places(levels)[None, None], axis=-1)
