"""The experts' work on each device: rows sorted by expert, exchanged over the `expert` axis, multiplied, put back.

Rows move by gathers only: every move below is the transpose of another one, and says so to the differentiation, which
would otherwise turn gathers into scatters.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from omni_jax.nn.expert_exchange import Route, exchange, plan_route, return_rows
from omni_jax.nn.grouped_matmul import grouped_matmul
from omni_jax.parallel.sharding import axis_size, gather_shards, mesh_axes, on_shards, sum_shards


class ExpertWeights(NamedTuple):
    """SwiGLU weights of experts."""

    gate: Float[Array, "E D F"]
    up: Float[Array, "E D F"]
    down: Float[Array, "E D F"]  # transposed: both gathers and reduce-scatters then run along the second axis


def mix_experts(
    x: Float[Array, "B T D"],
    gates: Float[Array, "B T k"],
    chosen: Int[Array, "B T k"],
    weights: ExpertWeights,
    buffer: float,
) -> tuple[Float[Array, "B T D"], Float[Array, "B T"]]:
    """The weighted sum of each position's experts, and the share of its device's choices that were dropped.

    Every device sorts its own positions. The experts' weights are gathered over `fsdp` in the compute dtype and their
    gradients reduce-scattered. Where the mesh has an `expert` axis, rows travel to the devices of their experts and
    back.

    Args:
        buffer: rows that a device takes in, as a multiple of its even share; what comes beyond is dropped. 0 takes
            in whatever comes, at the price of a buffer for the worst case.
    """
    rows, into = ("batch", "length", "embed_out"), ("expert", "expert_embed", "mlp")
    run = on_shards(
        partial(_mix_shard, buffer=buffer),
        [rows, rows, rows, into, into, into],
        [rows, ("batch", "length")],
    )
    cast = (w.astype(x.dtype) for w in weights)
    batch, length = x.shape[:2]
    filled = (_fill(leaf) for leaf in (x, gates.astype(jnp.float32), chosen))
    mixed, dropped = run(*filled, *cast)
    return mixed[:batch, :length], dropped[:batch, :length]


def _fill(x: Array) -> Array:
    """Zeros to the next size that the devices divide: decoding has fewer rows than training, and odd lengths."""
    padding = [-x.shape[0] % axis_size(*mesh_axes("batch")), -x.shape[1] % axis_size(*mesh_axes("length"))]
    return jnp.pad(x, [(0, count) for count in padding] + [(0, 0)]) if any(padding) else x


def _mix_shard(
    x: Array, gates: Array, chosen: Array, gate: Array, up: Array, down: Array, *, buffer: float
) -> tuple[Array, Array]:
    """One device's share of `mix_experts`."""
    weights = ExpertWeights(*(gather_shards(w, ("fsdp",), 1) for w in (gate, up, down)))
    k, num_experts = chosen.shape[-1], gate.shape[0] * axis_size("expert")
    tokens, expert = x.reshape(-1, x.shape[-1]), chosen.reshape(-1)
    order = jnp.argsort(expert, stable=True)
    back = jnp.argsort(order)
    sizes = count(expert, num_experts)
    rows, row_gates = spread(tokens, order, back, k), spread(gates.reshape(-1, 1), order, back, 1)
    if axis_size("expert") == 1:
        out, dropped = swiglu(rows, row_gates, sizes, weights), jnp.zeros((), jnp.float32)
    else:
        route = plan_route(sizes, len(rows), buffer)
        out, dropped = _far_experts(rows, row_gates, route, weights), route.dropped
    out = sum_shards(collect(out, order, back, k), "tensor")
    return out.reshape(x.shape), jnp.broadcast_to(dropped, x.shape[:2])


def _far_experts(rows: Array, row_gates: Array, route: Route, weights: ExpertWeights) -> Array:
    """Sends rows to the devices of their experts, sorts what came in, multiplies, and sends the results back."""
    come, come_gates = exchange(rows, route, len(rows)), exchange(row_gates, route, len(rows))
    order = jnp.argsort(route.expert, stable=True)
    back = jnp.argsort(order)
    sizes = count(route.expert, weights.gate.shape[0])
    out = swiglu(spread(come, order, back, 1), spread(come_gates, order, back, 1), sizes, weights)
    filled: Bool[Array, "R 1"] = (jnp.arange(len(out)) < jnp.sum(sizes))[:, None]
    out = jnp.where(filled, out, jnp.zeros((), out.dtype))  # the kernel leaves the rows behind its groups as they are
    return return_rows(collect(out, order, back, 1), route, len(rows))


def swiglu(
    rows: Float[Array, "N D"], row_gates: Float[Array, "N 1"], sizes: Int[Array, "E"], weights: ExpertWeights
) -> Float[Array, "N D"]:
    """SwiGLU of each row's expert times the row's gate.

    The gate multiplies the hidden layer: its gradient then needs no output, so that with rematerialisation the
    backward pass leaves the last product out.
    """
    hidden = jax.nn.silu(grouped_matmul(rows, weights.gate, sizes)) * grouped_matmul(rows, weights.up, sizes)
    gated = (hidden.astype(jnp.float32) * row_gates).astype(rows.dtype)
    return grouped_matmul(gated, weights.down, sizes, transposed=True)


def count(expert: Int[Array, "N"], num_experts: int) -> Int[Array, "E"]:
    """How many entries name each expert."""
    return jnp.sum(expert[:, None] == jnp.arange(num_experts)[None], axis=0, dtype=jnp.int32)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def spread(x: Float[Array, "n D"], order: Int[Array, "N"], back: Int[Array, "N"], k: int) -> Float[Array, "N D"]:
    """Copies each row k times, in the given order of the n k copies; `back` is the inverse order."""
    return x[order // k]


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def collect(rows: Float[Array, "N D"], order: Int[Array, "N"], back: Int[Array, "N"], k: int) -> Float[Array, "n D"]:
    """Sums the k copies of each row: the transpose of `spread`."""
    return rows[back] if k == 1 else jnp.sum(rows[back].reshape(-1, k, rows.shape[-1]), axis=1)


spread.defvjp(
    lambda x, order, back, k: (spread(x, order, back, k), (order, back)),
    lambda k, saved, gradient: (collect(gradient, *saved, k), None, None),
)
collect.defvjp(
    lambda rows, order, back, k: (collect(rows, order, back, k), (order, back)),
    lambda k, saved, gradient: (spread(gradient, *saved, k), None, None),
)
