"""The precision that an export's weights are stored in. What is computed with them stays what the configuration says.

int8 is weight-only absmax scaling, a scale a channel (arXiv 2208.07339, section 2, without its outlier split). A matrix
becomes `{"int8": ..., "scale": ...}` in its place in the tree, so a file says by itself how to read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int8

from omni_jax.parallel.sharding import ParamAxes

DTYPES = ("float32", "bfloat16", "int8")
_LEVELS = 127
_MIN_CHANNEL = 32  # weights that share a scale: with fewer, the scales weigh more than an eighth of the weights
_NO_CHANNELS = ("layers", "expert", "codebook", "small")  # axes that number matrices, and those of biases and kernels


def pack(params: Mapping[str, Any], dtype: str, axes: Mapping[str, Any]) -> dict[str, Any]:
    """float32 parameters as they are stored; `axes` has a `ParamAxes` for every leaf.

    Under int8, what is no large matrix (norms, biases, convolutions, routers) stays float32.
    """
    if dtype == "int8":
        return jax.tree.map(_quantize, params, axes)
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf).astype(jnp.dtype(dtype))), params)


def unpack(packed: Mapping[str, Any]) -> dict[str, Any]:
    """The float32 parameters of `pack`: NumPy arrays on the host, or inside a traced program."""

    def leaf(stored: Any) -> Array:
        if is_quantized(stored):
            return stored["int8"].astype(np.float32) * stored["scale"]
        return stored.astype(np.float32)

    return jax.tree.map(leaf, packed, is_leaf=is_quantized)


def is_quantized(node: Any) -> bool:
    return isinstance(node, Mapping) and set(node) == {"int8", "scale"}


def _quantize(leaf: Array, axes: ParamAxes) -> Array | dict[str, Array]:
    """The scales lie along the channels that cost less error."""
    matrix = [index for index, name in enumerate(axes.names) if name not in _NO_CHANNELS]
    shared = [index for index in matrix if axes.shape[index] >= _MIN_CHANNEL]
    if len(matrix) < 2 or not shared:
        return leaf
    weights = np.asarray(leaf, np.float32)
    int8, scale = min(map(partial(_round, weights), shared), key=partial(_squared_error, weights))
    return {"int8": jnp.asarray(int8), "scale": jnp.asarray(scale)}


def _round(weights: Float[np.ndarray, "..."], axis: int) -> tuple[Int8[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    scale = np.abs(weights).max(axis=axis, keepdims=True) / np.float32(_LEVELS)
    scale = np.where(scale > 0, scale, np.float32(1))
    return np.rint(weights / scale).astype(np.int8), scale


def _squared_error(weights: np.ndarray, rounded: tuple[np.ndarray, np.ndarray]) -> float:
    int8, scale = rounded
    return float(np.square(int8 * scale - weights).sum())
