"""What a step needs of a chip's memory, without its code, whose generation takes a quarter of an hour and more for
programs of thousands of kernels.

The TPU compiler assigns buffers before it generates code, and refuses a chip that is too small with the size that it
would need. So it is asked for a chip of 1 GB; with much less it searches for minutes for what to cut. On a chip with
room it may use more and keep what it computes twice here.
"""

from __future__ import annotations

import re
from typing import Any

import jax

from omni_jax.config import Config
from omni_jax.errors import UserError
from omni_jax.parallel.mesh import check_batch, make_mesh
from omni_jax.planning.plan import Target, lower_plan, shard_bytes
from omni_jax.planning.topology import chip_of, topology_devices, versions

_LITTLE_ROOM = {"xla_tpu_max_hbm_size_mib": 1024}
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def memory_need(config: Config, target: Target) -> dict[str, Any]:
    """`state_bytes` and `temp_bytes` of each device and whether both fit it. Raises UserError for what cannot be."""
    if target.topology.startswith("cpu"):
        raise UserError(f"--topology={target.topology}: --memory_only asks the TPU compiler: want such as v5e:1x1")
    mesh = make_mesh(config.mesh, topology_devices(target.topology, target.num_slices))
    check_batch(config, mesh)
    lowered, state = lower_plan(config, mesh)
    held, temporary = (
        sum(shard_bytes(leaf, leaf.sharding) for leaf in jax.tree.leaves(state)),
        _temporaries(lowered, target),
    )
    capacity = int(chip_of(target.topology).hbm_bytes)
    return {
        "stage": config.stage,
        "size": config.size,
        "topology": target.topology,
        "rows": config.data.rows,
        "state_bytes": held,
        "temp_bytes": temporary,
        "capacity_bytes": capacity,
        "fits": held + temporary <= capacity,
        "versions": versions(),
    }


def _temporaries(lowered: jax.stages.Lowered, target: Target) -> int:
    try:
        return lowered.compile(compiler_options=_LITTLE_ROOM).memory_analysis().temp_size_in_bytes
    except jax.errors.JaxRuntimeError as error:
        found = re.search(r"temporaries \(([\d.]+)([KMGT])\)", str(error))
        if found:
            return int(float(found[1]) * _UNITS[found[2]])
        raise UserError(f"the compiler refuses the step for {target.topology}: {str(error)[:300]}") from error


def format_need(need: dict[str, Any]) -> str:
    gb = [f"{need[name] / 1e9:.2f}" for name in ("state_bytes", "temp_bytes", "capacity_bytes")]
    total = (need["state_bytes"] + need["temp_bytes"]) / 1e9
    return (
        f"{need['stage']}:{need['size']} on {need['topology']}, {need['rows']} rows\n"
        f"memory      {gb[0]} GB state + {gb[1]} temporaries = {total:.2f} of {gb[2]}: "
        f"{'fits' if need['fits'] else 'DOES NOT FIT'}"
    )
