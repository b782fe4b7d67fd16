"""A stack of LSTM layers with a residual around it, as EnCodec has it between convolutions and latents."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from omni_jax.nn.stream import State, StreamLayer


class LSTM(StreamLayer):
    """Gates in PyTorch's order: input, forget, cell, output. One bias; PyTorch's two are added."""

    def __init__(self, dim: int, num_layers: int, *, rngs: nnx.Rngs) -> None:
        self.dim, self.num_layers = dim, num_layers
        std = dim**-0.5

        def uniform(*shape: int) -> Array:
            return jax.random.uniform(rngs.params(), shape, minval=-std, maxval=std)

        self.inputs = nnx.Param(uniform(num_layers, dim, 4 * dim))
        self.recurrent = nnx.Param(uniform(num_layers, dim, 4 * dim))
        self.bias = nnx.Param(jnp.zeros((num_layers, 4 * dim)))

    def init_state(self, batch: int) -> State:
        return {name: jnp.zeros((batch, self.num_layers, self.dim)) for name in ("hidden", "cell")}

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        return self.step(x, self.init_state(x.shape[0]))[0]

    def step(self, x: Float[Array, "B T D"], state: State) -> tuple[Float[Array, "B T D"], State]:
        y, hidden, cell = x, [], []
        for layer in range(self.num_layers):
            # The input's share of the gates is one product for all steps; the scan is left with the recurrence.
            gates = y @ self.inputs[...][layer] + self.bias[...][layer][None, None]
            start = (state["hidden"][:, layer], state["cell"][:, layer])
            y, last = _recur(gates, self.recurrent[...][layer], start)
            hidden.append(last[0])
            cell.append(last[1])
        return x + y, {"hidden": jnp.stack(hidden, 1), "cell": jnp.stack(cell, 1)}


def _recur(
    gates: Float[Array, "B T D4"], recurrent: Float[Array, "D D4"], start: tuple[Array, Array]
) -> tuple[Float[Array, "B T D"], tuple[Array, Array]]:
    def one(carry: tuple[Array, Array], gate: Array) -> tuple[tuple[Array, Array], Array]:
        hidden, cell = carry
        i, f, g, o = jnp.split(gate + hidden @ recurrent, 4, axis=-1)
        cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
        hidden = jax.nn.sigmoid(o) * jnp.tanh(cell)
        return (hidden, cell), hidden

    last, outputs = jax.lax.scan(one, start, jnp.swapaxes(gates, 0, 1))
    return jnp.swapaxes(outputs, 0, 1), last
