"""Positions of a row over the mesh axis `context`, so that every device has as much causal attention as the others.

Of 2n equal parts of a row, device i of n holds parts i and 2n - 1 - i (arXiv 2407.21783, section 3.3.2): an early part,
which sees few keys, and a late one, which sees many. A batch is put into this order once, before the model; of all
layers only attention asks where a position was.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped

from omni_jax.parallel.sharding import axis_size, constrain
from omni_jax.types import Batch


def balanced_order(length: int, devices: int) -> np.ndarray:
    """[length] int32: the position in the row of what lies at each place. `length` is a multiple of 2 `devices`."""
    parts = np.arange(length, dtype=np.int32).reshape(2 * devices, -1)
    return np.stack([parts[:devices], parts[: devices - 1 : -1]], axis=1).reshape(-1)


def context_order(length: int) -> np.ndarray | None:
    """`balanced_order` for the mesh that is set; None where no axis splits the row."""
    devices = axis_size("context")
    return None if devices == 1 else balanced_order(length, devices)


def balance(batch: Batch) -> Batch:
    """The batch in `context_order`; `speech_index` points to the same positions as before."""
    order = context_order(batch.timeline.text.shape[1])
    if order is None:
        return batch
    places = jnp.asarray(np.argsort(order).astype(np.int32))

    def reorder(field: Shaped[Array, "B T ..."]) -> Shaped[Array, "B T ..."]:
        return constrain(field[:, order], "batch", "length", *["small"] * (field.ndim - 2))

    index = batch.speech_index
    index = jnp.where(index < 0, index, places[jnp.maximum(index, 0)])
    return batch._replace(timeline=jax.tree.map(reorder, batch.timeline), speech_index=index)
