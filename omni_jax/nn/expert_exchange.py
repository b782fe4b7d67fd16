"""Expert parallelism: rows travel over the mesh axis `expert` to the devices that hold their experts, and back.

`lax.ragged_all_to_all` moves exactly the rows that must move. XLA's CPU backend lacks it: there a padded all-to-all
fills the same buffers, so that tests on fake devices run everything else as it is.
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from omni_jax.parallel.sharding import axis_size, platform

AXIS = "expert"


class Route(NamedTuple):
    """Where the rows of every device go. [from, to] matrices are the same on all devices of the axis."""

    sizes: Int[Array, "X X"]  # rows that travel
    starts: Int[Array, "X X"]  # where they begin among the sender's rows, which are sorted by expert
    places: Int[Array, "X X"]  # where they begin in the receiver's buffer
    expert: Int[Array, "N"]  # the local expert of each row of this device's buffer; one too high where it is empty
    dropped: Float[Array, ""]  # share of this device's rows that found no room


def plan_route(sizes: Int[Array, "E"], num_rows: int, buffer: float) -> Route:
    """The route of `num_rows` rows sorted by expert, of which `sizes[e]` go to expert e.

    Args:
        buffer: see `mix_experts`; 0 has room for every row of every device.
    """
    devices = axis_size(AXIS)
    room = devices * num_rows if buffer == 0 else min(devices, buffer) * num_rows
    room = 128 * math.ceil(room / 128) if room >= 128 else math.ceil(room)  # the kernels' rows come in tiles
    counts = jax.lax.all_gather(sizes, AXIS).reshape(devices, devices, -1)
    wanted = jnp.sum(counts, axis=-1)
    places = jnp.cumsum(wanted, axis=0) - wanted
    kept = jnp.clip(room - places, 0, wanted)
    me = jax.lax.axis_index(AXIS)
    ends = jnp.cumsum(counts[:, me].reshape(-1))  # (device, local expert) blocks of this device's buffer
    block = jnp.searchsorted(ends, jnp.arange(room), side="right", method="compare_all")
    local = counts.shape[-1]
    return Route(
        sizes=kept,
        starts=jnp.cumsum(wanted, axis=1) - wanted,
        places=places,
        expert=jnp.where(block < len(ends), block % local, local),
        dropped=1.0 - jnp.sum(kept[me]) / num_rows,
    )


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def exchange(rows: Float[Array, "N D"], route: Route, num_rows: int) -> Float[Array, "R D"]:
    """This device's buffer: the rows of all devices that go to its experts, zeros behind them. N is `num_rows`."""
    me = jax.lax.axis_index(AXIS)
    empty = jnp.zeros((len(route.expert), rows.shape[1]), rows.dtype)
    return _move(rows, empty, route.starts[me], route.places[me], route.sizes, route.places[:, me], me)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def return_rows(buffer: Float[Array, "R D"], route: Route, num_rows: int) -> Float[Array, "N D"]:
    """Sends the rows of a buffer back to where they came from; zeros for rows that were dropped."""
    me = jax.lax.axis_index(AXIS)
    empty = jnp.zeros((num_rows, buffer.shape[1]), buffer.dtype)
    return _move(buffer, empty, route.places[:, me], route.starts[:, me], route.sizes.T, route.starts[me], me)


def _move(
    rows: Array, out: Array, starts: Array, far_places: Array, sizes: Array, places: Array, me: Array
) -> Float[Array, "R D"]:
    """`sizes[me, p]` rows from `starts[p]` on go to `far_places[p]` on device p; from p they come to `places[p]`."""
    if platform() != "cpu":
        return jax.lax.ragged_all_to_all(rows, out, starts, sizes[me], far_places, sizes[:, me], axis_name=AXIS)
    devices, slots = len(starts), jnp.arange(min(len(rows), len(out)))  # no block is longer than what a device sends
    padded = rows[jnp.minimum(starts[:, None] + slots[None], len(rows) - 1)]
    came = jax.lax.all_to_all(padded, AXIS, split_axis=0, concat_axis=0)
    # Blocks lie in the order of the devices: a slot belongs to the first one that ends behind it, or to none.
    slot = jnp.arange(len(out))
    device = jnp.clip(jnp.searchsorted(places + sizes[:, me], slot, side="right"), 0, devices - 1)
    offset = slot - places[device]
    real = (offset >= 0) & (offset < sizes[device, me])
    return jnp.where(real[:, None], came[device, jnp.maximum(offset, 0)], out)


exchange.defvjp(
    lambda rows, route, num_rows: (exchange(rows, route, num_rows), route),
    lambda num_rows, route, gradient: (return_rows(gradient, route, num_rows), None),
)
return_rows.defvjp(
    lambda buffer, route, num_rows: (return_rows(buffer, route, num_rows), route),
    lambda num_rows, route, gradient: (exchange(gradient, route, num_rows), None),
)
