"""Layers of `stream.py` put together: one after another, and beside a shortcut that waits for them."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from omni_jax.nn.stream import Conv, State, StreamLayer


class Chain(StreamLayer):
    """Layers one after another."""

    def __init__(self, layers: Sequence[StreamLayer]) -> None:
        # Two digits, because names are sorted as text when a module is taken apart and put together.
        self.layers = nnx.Dict({f"{i:02d}": layer for i, layer in enumerate(layers)})
        self.delay = layers[-1].delay

    def __call__(self, x: Float[Array, "B T C"]) -> Float[Array, "B N D"]:
        for layer in self.layers.values():
            x = layer(x)
        return x

    def init_state(self, batch: int) -> State:
        return {name: layer.init_state(batch) for name, layer in self.layers.items()}

    def step(self, x: Float[Array, "B T C"], state: State) -> tuple[Float[Array, "B N D"], State]:
        new = {}
        for name, layer in self.layers.items():
            x, new[name] = layer.step(x, state[name])
        return x, new


class Residual(StreamLayer):
    """body(x) + shortcut(x); the shortcut waits for a body that is late."""

    def __init__(self, dim: int, body: Chain, shortcut: Conv | None = None, *, delay: int = 0) -> None:
        self.body, self.shortcut, self.dim = body, shortcut, dim
        self.delay, self.lag = body.delay, body.delay - delay

    def __call__(self, x: Float[Array, "B T C"]) -> Float[Array, "B T C"]:
        return self.body(x) + (x if self.shortcut is None else self.shortcut(x))

    def init_state(self, batch: int) -> State:
        state = {"body": self.body.init_state(batch), "waiting": init_wait(batch, self.lag, self.dim)}
        return state | ({} if self.shortcut is None else {"shortcut": self.shortcut.init_state(batch)})

    def step(self, x: Float[Array, "B T C"], state: State) -> tuple[Float[Array, "B T C"], State]:
        y, body = self.body.step(x, state["body"])
        new = {"body": body}
        if self.shortcut is not None:
            x, new["shortcut"] = self.shortcut.step(x, state["shortcut"])
        x, new["waiting"] = wait(x, state["waiting"])
        return y + x, new


def init_wait(batch: int, steps: int, dim: int) -> Float[Array, "B W C"]:
    return jnp.zeros((batch, steps, dim))


def wait(x: Float[Array, "B T C"], waiting: Float[Array, "B W C"]) -> tuple[Float[Array, "B T C"], Array]:
    """A delay line of W steps."""
    both = jnp.concatenate([waiting, x], axis=1)
    return both[:, : x.shape[1]], both[:, x.shape[1] :]
