"""Tries settings of mesh, batch and rematerialisation by compiling each, and ranks them."""

from __future__ import annotations

import dataclasses
import itertools
import sys
from typing import Any

from omni_jax.config import Config, MeshConfig
from omni_jax.errors import UserError
from omni_jax.parallel.mesh import AXES
from omni_jax.planning.plan import Target, make_plan
from omni_jax.planning.topology import topology_devices

_REMATS = ("full", "minimal")
_ROWS = (1, 2)  # times the config's


def candidates(config: Config, target: Target) -> list[Config]:
    """Every mesh that splits fsdp by one other axis, with both batches and both policies."""
    per_slice = len(topology_devices(target.topology, target.num_slices)) // target.num_slices
    splits = [{}, {"tensor": 2}, {"tensor": 4}]
    if config.model.transformer.num_experts:
        splits += [{"expert": 4}, {"expert": 8}]
    meshes = [
        {"data": target.num_slices, "fsdp": per_slice // ways, **split}
        for split in splits
        if per_slice % (ways := max(split.values(), default=1)) == 0
    ]
    return [
        dataclasses.replace(
            config,
            mesh=MeshConfig(**mesh),
            data=dataclasses.replace(config.data, rows=config.data.rows * times),
            model=dataclasses.replace(
                config.model, transformer=dataclasses.replace(config.model.transformer, remat=remat)
            ),
        )
        for mesh, times, remat in itertools.product(meshes, _ROWS, _REMATS)
    ]


def sweep(config: Config, target: Target) -> list[dict[str, Any]]:
    """The plan of every candidate with its `change` and `tokens_per_second` a device; the fastest that fits first."""
    if config.stage == "codec":
        raise UserError("stage codec has no meshes to choose from: plan it without --sweep")
    results = [_try(candidate, target) for candidate in candidates(config, target)]
    return sorted(results, key=lambda plan: (not plan.get("fits", False), -plan.get("tokens_per_second", 0.0)))


def _try(config: Config, target: Target) -> dict[str, Any]:
    mesh = {axis: getattr(config.mesh, axis) for axis in AXES}
    change = {"mesh": mesh, "rows": config.data.rows, "remat": config.model.transformer.remat}
    print(f"compiling {change}", file=sys.stderr, flush=True)
    try:
        plan = make_plan(config, target).values
    except UserError as error:
        return {"change": change, "error": str(error)}
    tokens = config.data.rows * config.data.row_positions / plan["devices"] / plan["predicted_step_seconds"]
    return plan | {"change": change, "tokens_per_second": tokens}
