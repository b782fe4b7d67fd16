"""One plan: the step of a config compiled for a topology, and what the program says."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding

from omni_jax.config import Config
from omni_jax.errors import UserError
from omni_jax.parallel.mesh import check_batch, make_mesh
from omni_jax.parallel.sharding import batch_sharding
from omni_jax.planning.abstract_batch import abstract_batch
from omni_jax.planning.codec_plan import describe_codec, lower_codec_plan
from omni_jax.planning.collectives import MeshShape
from omni_jax.planning.hlo import parse_hlo
from omni_jax.planning.roofline import Cost, program_cost
from omni_jax.planning.topology import chip_of, parse_topology, topology_devices, versions
from omni_jax.training.model_flops import count_parameters, model_flops
from omni_jax.training.omni_state import abstract_state, omni_optimizer
from omni_jax.training.step import lower_step


@dataclass(frozen=True)
class Target:
    topology: str
    num_slices: int = 1


@dataclass(frozen=True)
class Plan:
    values: dict[str, Any]  # what --json writes
    hlo: str


def make_plan(config: Config, target: Target) -> Plan:
    """Compiles the train step of `config.stage` and measures the program. Raises UserError for what cannot be."""
    mesh = make_mesh(config.mesh, topology_devices(target.topology, target.num_slices))
    check_batch(config, mesh)
    lowered, _ = lower_plan(config, mesh)
    started = time.monotonic()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        raise UserError(_refusal(error, target)) from error
    seconds = time.monotonic() - started
    hlo = compiled.as_text()
    cost = hlo_cost(hlo, mesh, target)
    memory, speed = _memory(compiled.memory_analysis(), target), _speed(config, cost, mesh, target)
    values = _describe(config, target, mesh) | memory | speed
    return Plan(values | {"compile_seconds": seconds, "versions": versions()}, hlo)


def argument_bytes(config: Config, target: Target) -> int:
    """What the state and the batch of an omni stage take on a device, by their shardings. Raises UserError."""
    mesh = make_mesh(config.mesh, topology_devices(target.topology, target.num_slices))
    check_batch(config, mesh)
    state, rows = abstract_state(config, mesh, omni_optimizer(config)), batch_sharding(mesh)
    held = [(leaf, leaf.sharding) for leaf in jax.tree.leaves(state)]
    held += [(leaf, rows) for leaf in jax.tree.leaves(abstract_batch(config))]
    return sum(shard_bytes(leaf, sharding) for leaf, sharding in held)


def shard_bytes(leaf: jax.ShapeDtypeStruct, sharding: NamedSharding) -> int:
    """What an array takes on one device."""
    return math.prod(sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize


def lower_plan(config: Config, mesh: Mesh) -> tuple[jax.stages.Lowered, Any]:
    """The step, and its state as shapes with shardings."""
    if config.stage == "codec":
        return lower_codec_plan(config, mesh)
    optimizer = omni_optimizer(config)
    state = abstract_state(config, mesh, optimizer)
    return lower_step(config, mesh, optimizer, state, abstract_batch(config)), state


def hlo_cost(hlo: str, mesh: Mesh, target: Target) -> Cost:
    shape = MeshShape(tuple(mesh.axis_names), tuple(mesh.devices.shape))
    _, torus = parse_topology(target.topology)
    return program_cost(parse_hlo(hlo), shape, chip_of(target.topology), torus, target.num_slices)


def _describe(config: Config, target: Target, mesh: Mesh) -> dict[str, Any]:
    return {
        "stage": config.stage,
        "size": config.size,
        "topology": target.topology,
        "num_slices": target.num_slices,
        "devices": mesh.size,
        "mesh": dict(mesh.shape),
        "rows": config.data.rows,
    } | (describe_codec(config) if config.stage == "codec" else _describe_omni(config))


def _describe_omni(config: Config) -> dict[str, Any]:
    parameters = count_parameters(config)
    return {
        "row_positions": config.data.row_positions,
        "remat": config.model.transformer.remat,
        "params_total": parameters.total,
        "params_active": parameters.active,
    }


def _memory(stats: Any, target: Target) -> dict[str, Any]:
    held = stats.argument_size_in_bytes + stats.output_size_in_bytes - stats.alias_size_in_bytes
    peak, capacity = held + stats.temp_size_in_bytes, chip_of(target.topology).hbm_bytes
    return {
        "argument_bytes": stats.argument_size_in_bytes,
        "output_bytes": stats.output_size_in_bytes,
        "alias_bytes": stats.alias_size_in_bytes,
        "temp_bytes": stats.temp_size_in_bytes,
        "peak_bytes": peak,
        "capacity_bytes": int(capacity),
        "fits": bool(peak <= capacity),
    }


def _speed(config: Config, cost: Cost, mesh: Mesh, target: Target) -> dict[str, Any]:
    """The codec has no count of model FLOPs, and so no MFU."""
    speed = _cost(cost)
    if config.stage == "codec":
        return speed
    flops = model_flops(config) / mesh.size
    peak = chip_of(target.topology).peak_flops
    return speed | {
        "model_flops": flops,
        "predicted_mfu": flops / peak / cost.overlapped_seconds,
        "predicted_mfu_serial": flops / peak / cost.serial_seconds,
    }


def _cost(cost: Cost) -> dict[str, Any]:
    return {
        "program_flops": cost.flops,
        "collective_bytes": dict(cost.bytes_by_kind),
        "collective_bytes_by_axis": dict(cost.bytes_by_axis),
        "compute_seconds": cost.compute_seconds,
        "memory_seconds": cost.memory_seconds,
        "link_seconds": dict(cost.link_seconds),
        "predicted_step_seconds": cost.overlapped_seconds,
        "predicted_step_seconds_serial": cost.serial_seconds,
        "bound_by": cost.bound_by,
        "unknown_kernels": sorted(cost.unknown_kernels),
    }


def _refusal(error: Exception, target: Target) -> str:
    lines = str(error).strip().splitlines()
    if "RESOURCE_EXHAUSTED" in lines[0]:
        return f"the step does not fit {target.topology}: {lines[0][:300]}; use more devices or fewer data.rows"
    return f"the compiler refuses the step for {target.topology}: {lines[0][:300]}"
