"""The state that a training step takes and returns, and its sharded construction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, Key


class TrainState(NamedTuple):
    """`opt_state` is any pytree: the codec's also holds its discriminators. `key` is the run's root key."""

    params: Any
    opt_state: Any
    step: Int[Array, ""]  # steps done
    key: Key[Array, ""]


def init_state(
    init_params: Callable[[jax.Array], Any], optimizer: optax.GradientTransformation, seed: int, shardings: TrainState
) -> TrainState:
    """Fresh parameters and optimizer state, created where `shardings` says: nothing is ever whole on one device."""

    def create(key: jax.Array) -> TrainState:
        params = init_params(jax.random.fold_in(key, 0))
        return TrainState(params, optimizer.init(params), jnp.zeros((), jnp.int32), key)

    return jax.jit(create, out_shardings=shardings)(jax.random.key(seed))


def replace_params(state: TrainState, params: Any) -> TrainState:
    """`state` with `params` laid out like its own; a leaf of another shape or path raises ValueError."""
    placed = jax.tree.map(_place, state.params, params)
    return state._replace(params=placed)


def _place(like: jax.Array, value: jax.Array) -> jax.Array:
    if like.shape != value.shape:
        raise ValueError(f"a parameter has shape {value.shape}, the model wants {like.shape}")
    return jax.device_put(jnp.asarray(value, like.dtype), like.sharding)
