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


def rotary(
    position_ids: Int[Array, "B T axes"],
    sections: tuple[int, int, int],
    theta: float,
    stretch: tuple[float, ...] = (),
) -> Rotary:
    """Angles in float32. Text and frames carry time = height = width, which makes this ordinary RoPE for them.

    `stretch`: see `stretch_frequencies`; () is none.
    """
    pairs = section_of_pair(sections)
    frequency = theta ** (-np.arange(len(pairs), dtype=np.float32) / len(pairs))
    if stretch:
        frequency = stretch_frequencies(frequency, stretch)
    angle = position_ids[..., pairs].astype(jnp.float32) * jnp.asarray(frequency, jnp.float32)[None, None]
    return Rotary(jnp.cos(angle), jnp.sin(angle))


def stretch_frequencies(frequency: np.ndarray, stretch: tuple[float, ...]) -> np.ndarray:
    """Llama 3.1's longer context (arXiv 2407.21783, section 3.4.2, and the `rope_scaling` of its configuration).

    `stretch` is (factor, low, high, original positions): pairs that turn less than `low` times within the original
    context become `factor` times slower, those that turn more than `high` times stay, the others lie in between.
    """
    factor, low, high, original = stretch
    turns = original * frequency / (2 * np.pi)
    kept = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return (frequency * (kept + (1 - kept) / factor)).astype(np.float32)


def rotary_1d(positions: Int[Array, "B T"], head_dim: int, theta: float = 10_000.0) -> Rotary:
    """Ordinary RoPE (arXiv 2104.09864) for encoders with one position axis."""
    return rotary(positions[..., None], (head_dim // 2, 0, 0), theta)


def apply_rotary(x: Float[Array, "B T H Dh"], angles: Rotary) -> Float[Array, "B T H Dh"]:
    """Turns the pairs (i, i + R), the layout of Llama and Qwen weights; computes in float32.

    Of a head wider than the R pairs, the rest passes through unchanged.
    """
    rotated = 2 * angles.cos.shape[-1]
    first, second = jnp.split(x[..., :rotated].astype(jnp.float32), 2, axis=-1)
    cos, sin = angles.cos[:, :, None], angles.sin[:, :, None]
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)
    return turned if rotated == x.shape[-1] else jnp.concatenate([turned, x[..., rotated:]], axis=-1)
