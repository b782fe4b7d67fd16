"""Tries settings of mesh, batch and rematerialisation by compiling each, and ranks them."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

from omni_jax.config import Config, MeshConfig
from omni_jax.config_dict import to_dict
from omni_jax.errors import UserError
from omni_jax.parallel.mesh import AXES
from omni_jax.planning.plan import Target, argument_bytes, make_plan
from omni_jax.planning.topology import chip_of, topology_devices, versions

_REMATS = ("full", "minimal")  # the second keeps more
_ROWS = (1, 2)  # times the config's

Result = dict[str, Any]


def candidates(config: Config, target: Target) -> list[Config]:
    """Every mesh that splits fsdp by one other axis, with both batches and both policies; the plainest mesh first."""
    per_slice = len(topology_devices(target.topology, target.num_slices)) // target.num_slices
    splits = [{}, *([{"expert": 4}, {"expert": 16}] if config.model.transformer.num_experts else [])]
    splits += [{"tensor": 2}, {"tensor": 4}]
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


def sweep(
    config: Config, target: Target, done: Sequence[Result] = (), keep: Callable[[list[Result]], None] = lambda _: None
) -> list[Result]:
    """The plan of every candidate with its `change` and `tokens_per_second` a device; the fastest that fits first.

    Args:
        done: results of an earlier sweep; a candidate that is among them is not compiled again.
        keep: gets all results so far, ranked, after each candidate.
    """
    if config.stage == "codec":
        raise UserError("stage codec has no meshes to choose from: plan it without --sweep")
    earlier, results = {result.get("setting"): result for result in done}, []
    tried = candidates(config, target)
    for number, candidate in enumerate(tried, 1):
        setting = _setting(candidate, target)
        result = earlier.get(setting) or _try(candidate, target, results) | {"setting": setting}
        results.append(result)
        print(f"{number} of {len(tried)}: {_line(result)}", file=sys.stderr, flush=True)
        keep(_ranked(results))
    return _ranked(results)


def _ranked(results: list[Result]) -> list[Result]:
    return sorted(results, key=lambda plan: (not plan.get("fits", False), -plan.get("tokens_per_second", 0.0)))


def _setting(config: Config, target: Target) -> str:
    """Names all that a result depends on."""
    whole = {"config": to_dict(config), "target": dataclasses.asdict(target), "versions": versions()}
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:16]


def _try(config: Config, target: Target, results: list[Result]) -> Result:
    mesh = {axis: getattr(config.mesh, axis) for axis in AXES}
    change = {"mesh": mesh, "rows": config.data.rows, "remat": config.model.transformer.remat}
    try:
        reason = _cannot_fit(config, change, target, results)
        if reason:
            return {"change": change, "fits": False, "error": reason}
        plan = make_plan(config, target).values
    except Exception as error:  # whatever a compiler raises of one setting, the others are still worth trying
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return {"change": change, "error": lines[0][:300]}
    tokens = config.data.rows * config.data.row_positions / plan["devices"] / plan["predicted_step_seconds"]
    return plan | {"change": change, "tokens_per_second": tokens}


def _cannot_fit(config: Config, change: Result, target: Target, results: list[Result]) -> str:
    """Why the setting need not be compiled; "" if it must be."""
    for result in results:
        smaller = result["change"]
        needs_less = smaller["mesh"] == change["mesh"] and smaller["rows"] <= change["rows"]
        needs_less &= _REMATS.index(smaller["remat"]) <= _REMATS.index(change["remat"])
        if needs_less and result.get("fits") is False:
            return f"not compiled: {smaller['rows']} rows with remat {smaller['remat']} do not fit"
    arguments, capacity = argument_bytes(config, target), chip_of(target.topology).hbm_bytes
    if arguments > capacity:
        return f"not compiled: {arguments / 1e9:.2f} GB of arguments do not fit {capacity / 1e9:.2f} GB"
    return ""


def _line(result: Result) -> str:
    change = result["change"]
    mesh = " ".join(f"{axis}={size}" for axis, size in change["mesh"].items() if size > 1)
    setting = f"{mesh}, {change['rows']} rows, remat {change['remat']}"
    if "error" in result:
        return f"{setting}: {result['error']}"
    fits = "" if result["fits"] else ", does not fit"
    return (
        f"{setting}: {result['peak_bytes'] / 1e9:.2f} GB{fits}, {result['predicted_step_seconds']:.3g} s, "
        f"MFU {result['predicted_mfu']:.1%}, compiled in {result['compile_seconds']:.0f} s"
    )
