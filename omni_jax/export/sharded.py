"""Stored weights as Orbax arrays, cut for the mesh of the server that will read them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from omni_jax.checkpoint import read_tree, write_tree
from omni_jax.config import MeshConfig
from omni_jax.errors import UserError
from omni_jax.export.precision import is_quantized
from omni_jax.parallel.mesh import AXES, make_mesh
from omni_jax.parallel.sharding import param_shardings
from omni_jax.streaming.tick import Weights

MODEL, CODEC = "model", "codec"


def write_sharded(directory: Path, weights: Weights, axes: Any, mesh: MeshConfig) -> None:
    """`model/` after the rule table of `parallel/sharding.py`, `codec/` whole on every device.

    `axes` has a `ParamAxes` for every parameter of the model.

    Raises UserError for a mesh of more devices than there are, or one that does not divide the parameters.
    """
    wanted, devices = math.prod(getattr(mesh, axis) for axis in AXES), jax.devices()
    if wanted > len(devices):
        raise UserError(
            f"--mesh wants {wanted} devices, there are {len(devices)}: on a CPU set JAX_NUM_CPU_DEVICES={wanted}"
        )
    placed = make_mesh(mesh, devices[:wanted])
    shardings = _like(weights.model, param_shardings(placed, axes))
    write_tree(directory / MODEL, jax.device_put(weights.model, shardings))
    write_tree(directory / CODEC, jax.device_put(weights.codec, NamedSharding(placed, PartitionSpec())))


def read_sharded(directory: Path) -> Weights:
    """Stored weights on the first device, whatever mesh they were written for."""
    return Weights(read_tree(directory / MODEL), read_tree(directory / CODEC))


def _like(stored: Any, shardings: Any) -> Any:
    """A sharding for every stored array; scales are replicated, being small."""

    def one(leaf: Any, sharding: NamedSharding) -> Any:
        if is_quantized(leaf):
            return {"int8": sharding, "scale": NamedSharding(sharding.mesh, PartitionSpec())}
        return sharding

    return jax.tree.map(one, stored, shardings, is_leaf=is_quantized)
