"""Bytes on the wire: what each device sends in a collective, by kind and by mesh axis."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np

from omni_jax.planning.hlo import Computation, Instruction

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "ragged-all-to-all", "all-to-all", "collective-permute")


@dataclass(frozen=True)
class MeshShape:
    """Names and sizes of the mesh axes, in the order in which devices are numbered."""

    axes: tuple[str, ...]
    sizes: tuple[int, ...]

    def varying(self, devices: list[int]) -> str:
        """The axes along which these devices differ, joined by "+"."""
        places = np.stack(np.unravel_index(np.asarray(devices), self.sizes))
        named = [axis for axis, row in zip(self.axes, places) if len(set(row.tolist())) > 1]
        return "+".join(named) or "none"


@dataclass(frozen=True)
class Collective:
    kind: str
    wire_bytes: float
    group_size: int
    axis: str


def collective(computation: Computation, item: Instruction, mesh: MeshShape, scattered: bool) -> Collective | None:
    """What the instruction sends; None where it is not a collective.

    For a group of n: all-gather out (n-1)/n, reduce-scatter in (n-1)/n, all-reduce 2 size (n-1)/n, all-to-all
    size (n-1)/n, permute size. `scattered`: an all-reduce of which one shard is kept (a fusion of both) counts as a
    reduce-scatter. A ragged all-to-all moves no more than the smaller of its sides holds; the other has room to spare.
    """
    kind = item.opcode.removesuffix("-start")
    if kind not in KINDS:
        return None
    shapes = item.shapes
    if item.opcode.endswith("-start") and kind in ("all-gather", "collective-permute", "reduce-scatter"):
        shapes = shapes[len(shapes) // 2 :] if kind == "all-gather" else shapes[1:2]
    size, group = sum(shape.bytes for shape in shapes), _group(item)
    if kind == "ragged-all-to-all" and item.operands[0] in computation.instructions:
        size = min(size, sum(shape.bytes for shape in computation.instructions[item.operands[0]].shapes))
    n = len(group)
    share = (n - 1) / n
    if kind == "all-reduce" and scattered:
        return Collective("reduce-scatter", size * share, n, mesh.varying(group))
    factor = {"all-reduce": 2 * share, "reduce-scatter": n * share, "collective-permute": 1.0}.get(kind, share)
    return Collective(kind, size * factor, n, mesh.varying(group))


def _group(item: Instruction) -> list[int]:
    """The devices of one group."""
    text = item.attributes
    found = re.search(r"source_target_pairs=\{\{(\d+),(\d+)\}", text)
    if found:
        return [int(found[1]), int(found[2])]
    found = re.search(r"replica_groups=mesh\[([^\]]*)\] ?\{([^}]*)\}", text)
    if found:
        return _named_group(dict(re.findall(r"'([^']+)'=(\d+)", found[1])), re.findall(r"'([^']+)'", found[2]))
    found = re.search(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", text)
    if found:
        sizes = [int(size) for size in found[3].split(",")]
        order = [int(axis) for axis in found[4].split(",")] if found[4] else range(len(sizes))
        return np.arange(math.prod(sizes)).reshape(sizes).transpose(order).reshape(-1, int(found[2]))[0].tolist()
    found = re.search(r"replica_groups=\{\{([\d,]+)\}", text)
    return [int(device) for device in found[1].split(",")] if found else [0]


def _named_group(sizes: dict[str, str], chosen: list[str]) -> list[int]:
    devices = np.arange(math.prod(int(size) for size in sizes.values())).reshape([int(size) for size in sizes.values()])
    return devices[tuple(slice(None) if axis in chosen else 0 for axis in sizes)].reshape(-1).tolist()
