"""Rotary position embedding over (time, height, width) triples: TM-RoPE (Qwen3-Omni, arXiv 2509.17765 section 2.2)."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


class Rotary(NamedTuple):
    """Cosine and sine of the angle of every rotary pair."""

    cos: Float[Array, "B T R"]
    sin: Float[Array, "B T R"]


def section_of_pair(sections: tuple[int, int, int]) -> np.ndarray:
    """Which coordinate (0 time, 1 height, 2 width) turns each of the Dh/2 rotary pairs.

    Height and width take every third pair from the fastest on, time the rest, as in Qwen3-Omni's interleaved layout:
    so every coordinate sees both fast and slow frequencies.
    """
    _, height, width = sections
    pairs = np.zeros(sum(sections), np.int32)
    pairs[1 : 3 * height : 3] = 1
    pairs[2 : 3 * width : 3] = 2
    return pairs


def rotary(position_ids: Int[Array, "B T 3"], sections: tuple[int, int, int], theta: float) -> Rotary:
    """Angles in float32. Text and frames carry time = height = width, which makes this ordinary RoPE for them."""
    pairs = section_of_pair(sections)
    frequency = theta ** (-np.arange(len(pairs), dtype=np.float32) / len(pairs))
    angle = position_ids[..., pairs].astype(jnp.float32) * jnp.asarray(frequency, jnp.float32)[None, None]
    return Rotary(jnp.cos(angle), jnp.sin(angle))


def rotary_1d(positions: Int[Array, "B T"], head_dim: int, theta: float = 10_000.0) -> Rotary:
    """Ordinary RoPE (arXiv 2104.09864) for encoders with one position axis."""
    return rotary(positions[..., None], (head_dim // 2, 0, 0), theta)


def apply_rotary(x: Float[Array, "B T H Dh"], angles: Rotary) -> Float[Array, "B T H Dh"]:
    """Turns the pairs (i, i + Dh/2), the layout of Llama and Qwen weights; computes in float32."""
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    cos, sin = angles.cos[:, :, None], angles.sin[:, :, None]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)
