"""Low-rank updates of any matrix: LoRA (arXiv 2106.09685) and DoRA (arXiv 2402.09353), as parameters beside it.

A matrix `w` has `w_lora_a` and `w_lora_b`, with DoRA also `w_lora_m`. What a layer computes with is made from them
where the layer is bound, so no layer knows of it, and a stack of layers never has all of it at once.

Differences from the papers: B A is not scaled by alpha / rank, which a scale of B can say. DoRA's magnitude is relative
to the norm of the frozen matrix, so that it starts at 1 whatever is loaded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

A, B, M = "_lora_a", "_lora_b", "_lora_m"


def updated(
    w: Float[Array, "..."], a: Float[Array, "..."], b: Float[Array, "..."], m: Float[Array, "..."] | None = None
) -> Float[Array, "..."]:
    """The matrix that is computed with, in the shape of `w`.

    Args:
        w: [*batch, *inputs, *outputs].
        a: [*batch, *inputs, rank].
        b: [*batch, rank, *outputs].
        m: [*batch, outputs], DoRA's magnitudes over the norms of `w`'s columns.
    """
    batch = a.shape[: a.ndim + b.ndim - w.ndim - 2]
    rank = a.shape[-1]
    flat_a, flat_b = a.reshape(*batch, -1, rank), b.reshape(*batch, rank, -1)
    update = flat_a @ flat_b
    if m is None:
        return w + update.reshape(w.shape).astype(w.dtype)
    old = w.reshape(update.shape)
    new = old + update
    scale = m * _norms(old) / jax.lax.stop_gradient(_norms(new))  # constant in the backward pass: section 4.3
    return (new * jnp.expand_dims(scale, -2)).reshape(w.shape).astype(w.dtype)


def _norms(matrix: Float[Array, "*B I O"]) -> Float[Array, "*B O"]:
    return jnp.sqrt(jnp.sum(jnp.square(matrix.astype(jnp.float32)), axis=-2))


def column_norms(w: Float[Array, "..."], inputs: int) -> Float[Array, " O"]:
    """The norm of each output's column of one matrix, whose first `inputs` axes come in."""
    return _norms(w.reshape(math.prod(w.shape[:inputs]), -1))


def update_direct(params: Mapping[str, Any], axes: Mapping[str, Any]) -> dict[str, Any]:
    """`params` with every updated matrix computed, but for those in stacks of layers; the updates stay beside them.

    `axes`: the same tree of `ParamAxes`.
    """
    out = {
        name: update_direct(value, axes[name]) if isinstance(value, Mapping) else value
        for name, value in params.items()
    }
    for name in list(out):
        if name + A in out and axes[name].names[0] != "layers":
            out[name] = _computed(out, name)
    return out


def update_layer(params: Mapping[str, Any]) -> dict[str, Any]:
    """`update_direct` for one layer of a stack, or for everything when `params` is a whole model's."""
    out = {name: update_layer(value) if isinstance(value, Mapping) else value for name, value in params.items()}
    for name in [name for name in out if name + A in out]:
        out[name] = _computed(out, name)
    return out


def merge_updates(params: Mapping[str, Any]) -> dict[str, Any]:
    """A whole model's parameters with the updates in the matrices and gone from beside them."""
    return _without(update_layer(params))


def is_update(name: str) -> bool:
    return name.endswith((A, B, M))


def has_updates(params: Mapping[str, Any]) -> bool:
    return any(is_update(name) or (isinstance(value, Mapping) and has_updates(value)) for name, value in params.items())


def _computed(params: Mapping[str, Any], name: str) -> Float[Array, "..."]:
    return updated(params[name], params[name + A], params[name + B], params.get(name + M))


def _without(params: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _without(value) if isinstance(value, Mapping) else value
        for name, value in params.items()
        if not is_update(name)
    }
