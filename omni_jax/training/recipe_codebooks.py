"""Codebooks of a recipe's residual quantisers that follow moving averages: their start by k-means and their update.

Statistics are a dict by the quantiser's part: `all`, or `semantic` and `acoustic`. DAC's quantiser has none of them.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from omni_jax.nn.quantize import Quantized, QuantizerState, ema_update, kmeans_codebooks, perplexity

KMEANS_ITERATIONS = 20

Statistics = dict[str, QuantizerState]


def read_codebooks(params: dict[str, Any]) -> dict[str, Float[Array, "Q K D"]]:
    """The codebooks in the generator's parameters that gradients do not train."""
    quantizer = params.get("quantizer", {})
    if "in_kernel" in quantizer or not quantizer:
        return {}
    if "codebooks" in quantizer:
        return {"all": quantizer["codebooks"]}
    return {name: part["codebooks"] for name, part in quantizer.items()}


def write_codebooks(params: dict[str, Any], statistics: Statistics) -> dict[str, Any]:
    """The parameters with the codebooks of these statistics."""
    if not statistics:
        return params
    quantizer = dict(params["quantizer"])
    for name, state in statistics.items():
        if name == "all":
            quantizer["codebooks"] = state.codebooks
        else:
            quantizer[name] = quantizer[name] | {"codebooks": state.codebooks}
    return params | {"quantizer": quantizer}


def even_statistics(codebooks: dict[str, Float[Array, "Q K D"]]) -> Statistics:
    """As if every code had been chosen equally often."""
    return {
        name: QuantizerState(jnp.full(books.shape[:2], 1.0 / books.shape[1]), books / books.shape[1])
        for name, books in codebooks.items()
    }


def kmeans_statistics(points: dict[str, Float[Array, "R D"]], like: Statistics, key: PRNGKeyArray) -> Statistics:
    """Residual k-means over what each part quantises."""
    return {
        name: kmeans_codebooks(points[name], *state.usage.shape, KMEANS_ITERATIONS, jax.random.fold_in(key, number))
        for number, (name, state) in enumerate(sorted(like.items()))
    }


def update_statistics(
    statistics: Statistics, levels: dict[str, Quantized], decay: float, key: PRNGKeyArray
) -> Statistics:
    return {
        name: ema_update(state, levels[name], decay, jax.random.fold_in(key, number))
        for number, (name, state) in enumerate(sorted(statistics.items()))
    }


def codebook_use(statistics: Statistics) -> dict[str, Float[Array, ""]]:
    """The mean perplexity of all levels as a share of the codebooks' size; nothing where there are no statistics."""
    if not statistics:
        return {}
    levels = jnp.concatenate([perplexity(state.usage) / state.usage.shape[1] for state in statistics.values()])
    return {"codebook_use": jnp.mean(levels)}
