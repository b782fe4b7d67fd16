"""The state that a training step takes and returns, and its sharded construction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, Key

from omni_jax.models.binding import RUNS_ONCE


class TrainState(NamedTuple):
    """`opt_state` is any pytree: the codec's also holds its discriminators. `key` is the run's root key."""

    params: Any
    opt_state: Any
    step: Int[Array, ""]  # steps done
    key: Key[Array, ""]


def init_state(
    init_params: Callable[[jax.Array], Any], optimizer: optax.GradientTransformation, seed: int, abstract: TrainState
) -> TrainState:
    """Random parameters and a new optimizer state, created where `abstract` says, never whole on one device."""

    def create(key: jax.Array) -> TrainState:
        params = init_params(jax.random.fold_in(key, 0))
        return TrainState(params, optimizer.init(params), jnp.zeros((), jnp.int32), key)

    key = jax.random.key(seed)
    lowered = jax.jit(create, out_shardings=_shardings(abstract)).lower(key)
    return lowered.compile(compiler_options=RUNS_ONCE)(key)


def fresh_state(params: Any, optimizer: optax.GradientTransformation, seed: int, abstract: TrainState) -> TrainState:
    """A new optimizer state for given parameters, whose paths and shapes must be those of `abstract`."""
    shardings = _shardings(abstract)
    placed = jax.device_put(params, shardings.params)
    opt_state = jax.jit(optimizer.init, out_shardings=shardings.opt_state)(placed)
    step, key = jax.device_put((jnp.zeros((), jnp.int32), jax.random.key(seed)), (shardings.step, shardings.key))
    return TrainState(placed, opt_state, step, key)


def _shardings(abstract: TrainState) -> TrainState:
    return jax.tree.map(lambda leaf: leaf.sharding, abstract)
