"""The state that a training step takes and returns, and its sharded construction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Int, Key

from omni_jax.models.binding import RUNS_ONCE
from omni_jax.training.guard import GuardState, new_guard


class TrainState(NamedTuple):
    """`opt_state` is any pytree: the codec's also holds its discriminators. `key` is the run's root key.

    `guard`: what tells bad steps; None in a loop whose step function does not look for them.
    """

    params: Any
    opt_state: Any
    step: Int[Array, ""]  # steps done
    key: Key[Array, ""]
    guard: GuardState | None = None


def init_state(
    init_params: Callable[[jax.Array], Any], optimizer: optax.GradientTransformation, seed: int, abstract: TrainState
) -> TrainState:
    """Random parameters and a new optimizer state, created where `abstract` says, never whole on one device."""

    def create(key: jax.Array) -> TrainState:
        params = init_params(jax.random.fold_in(key, 0))
        return TrainState(params, optimizer.init(params), jnp.zeros((), jnp.int32), key, new_guard())

    key = jax.random.key(seed)
    lowered = jax.jit(create, out_shardings=_shardings(abstract)).lower(key)
    return lowered.compile(compiler_options=RUNS_ONCE)(key)


def fresh_state(params: Any, optimizer: optax.GradientTransformation, seed: int, abstract: TrainState) -> TrainState:
    """A new optimizer state for given parameters, whose paths and shapes must be those of `abstract`."""
    shardings = _shardings(abstract)
    placed = jax.device_put(jax.tree.map(np.asarray, params), shardings.params)  # from the host: on all processes alike
    opt_state = jax.jit(optimizer.init, out_shardings=shardings.opt_state)(placed)

    def rest() -> tuple[jax.Array, jax.Array, GuardState | None]:
        return jnp.zeros((), jnp.int32), jax.random.key(seed), None if abstract.guard is None else new_guard()

    step, key, guard = jax.jit(rest, out_shardings=(shardings.step, shardings.key, shardings.guard))()
    return TrainState(placed, opt_state, step, key, guard)


def _shardings(abstract: TrainState) -> TrainState:
    return jax.tree.map(lambda leaf: leaf.sharding, abstract)
