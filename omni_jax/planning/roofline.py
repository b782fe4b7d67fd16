"""From a compiled program to a step time: operations by arithmetic or memory traffic, links by their bytes."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field

from omni_jax.planning.collectives import Collective, MeshShape, collective
from omni_jax.planning.flops import instruction_flops
from omni_jax.planning.hlo import Computation, Instruction, Program
from omni_jax.planning.topology import Chip

# These name or regroup what is there.
_FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call", "iota"),
    *("after-all", "partition-id", "copy-start", "copy-done", "call-start", "call-done", "async-start", "async-done"),
    *("custom-call-start", "custom-call-update", "custom-call-done", "opt-barrier"),
}
_SLICING = ("dynamic-slice", "gather", "slice")
# Of the peak, by products of a real step: so MaxText's program for Llama2-70B takes what its authors measured
# (docs/scaling.md, "What the prediction is worth").
_REACHED = 0.85


@dataclass
class Cost:
    """What one device does in one step."""

    flops: float = 0.0
    compute_seconds: float = 0.0  # operations that arithmetic bounds
    memory_seconds: float = 0.0  # operations that memory traffic bounds
    link_seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))  # by mesh axis
    bytes_by_kind: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    bytes_by_axis: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    unknown_kernels: set[str] = field(default_factory=set)

    @property
    def device_seconds(self) -> float:
        return self.compute_seconds + self.memory_seconds

    @property
    def overlapped_seconds(self) -> float:
        """The links work while the device does: the slower of both."""
        return max(self.device_seconds, sum(self.link_seconds.values()))

    @property
    def serial_seconds(self) -> float:
        """Nothing overlaps."""
        return self.device_seconds + sum(self.link_seconds.values())

    @property
    def bound_by(self) -> str:
        links = sum(self.link_seconds.values())
        if links > self.device_seconds:
            return f"links of {max(self.link_seconds, key=self.link_seconds.__getitem__)}"
        return "compute" if self.compute_seconds >= self.memory_seconds else "memory"


def program_cost(program: Program, mesh: MeshShape, chip: Chip, torus: tuple[int, ...], num_slices: int = 1) -> Cost:
    """`torus`: chips of a slice along its axes."""
    cost = Cost()
    for computation, item, times in program.runs():
        scattered = "all-reduce-scatter" in computation.name
        sent = collective(computation, item, mesh, scattered) or _fused_collective(program, item, mesh)
        if sent is not None:
            cost.bytes_by_kind[sent.kind] += times * sent.wire_bytes
            cost.bytes_by_axis[sent.axis] += times * sent.wire_bytes
            cost.link_seconds[sent.axis] += times * link_seconds(sent, chip, torus, num_slices)
            continue
        flops = instruction_flops(program, computation, item)
        if flops is None:
            cost.unknown_kernels.add(item.name.rstrip(".0123456789"))
        cost.flops += times * (flops or 0.0)
        arithmetic = (flops or 0.0) / (_REACHED * chip.peak_flops)
        traffic = _traffic(program, computation, item) / chip.hbm_bytes_per_second
        if arithmetic >= traffic:
            cost.compute_seconds += times * arithmetic
        else:
            cost.memory_seconds += times * traffic
    return cost


def _fused_collective(program: Program, item: Instruction, mesh: MeshShape) -> Collective | None:
    """The collective inside a fusion, if there is one."""
    if item.opcode != "fusion":
        return None
    inner = program.computations[item.callees[0]]
    found = [collective(inner, part, mesh, "all-reduce-scatter" in inner.name) for part in inner.instructions.values()]
    return next((one for one in found if one is not None), None)


def link_seconds(sent: Collective, chip: Chip, torus: tuple[int, ...], num_slices: int) -> float:
    """Both directions of every torus axis that the group spans carry a part; all-to-all also pays for the distance."""
    if num_slices > 1 and "data" in sent.axis.split("+"):
        return sent.wire_bytes / chip.dcn_bytes_per_second
    spanned, reached = 0, 1
    for size in sorted(torus, reverse=True):
        if reached >= sent.group_size:
            break
        spanned, reached = spanned + 1, reached * size
    seconds = sent.wire_bytes / (2 * max(spanned, 1) * chip.link_bytes_per_second)
    if sent.kind.endswith("all-to-all"):  # on a ring of n the mean distance is n / 4
        seconds *= max(1.0, max(spanned, 1) * sent.group_size ** (1 / max(spanned, 1)) / 4)
    return seconds


def _traffic(program: Program, computation: Computation, item: Instruction) -> float:
    """Bytes that an operation reads and writes; of what it slices or updates only the part that it touches."""
    if item.opcode in _FREE:
        return 0.0
    operands = [computation.instructions[name] for name in item.operands if name in computation.instructions]
    if item.opcode in _SLICING:
        return 2.0 * _bytes(item)
    if item.opcode == "dynamic-update-slice":
        return 2.0 * _bytes(operands[1])
    if item.opcode != "fusion":
        return _bytes(item) + sum(_bytes(operand) for operand in operands)
    inner = program.computations[item.callees[0]]
    written, updated = _bytes(item), set()
    for part in inner.instructions.values():
        if part.opcode == "dynamic-update-slice" and part.shapes == item.shapes[:1]:
            written, updated = _bytes(inner.instructions[part.operands[1]]), {part.operands[0]}
    parameters = (part for part in inner.instructions.values() if part.opcode == "parameter")
    return written + sum(_read(inner, part, updated) for part in parameters)


def _read(inner: Computation, parameter: Instruction, updated: set[str]) -> float:
    users = [item for item in inner.instructions.values() if parameter.name in item.operands]
    if parameter.name in updated and len(users) == 1:
        return 0.0
    if users and all(user.opcode in _SLICING for user in users):
        return sum(_bytes(user) for user in users)
    return _bytes(parameter)


def _bytes(item: Instruction) -> float:
    return math.fsum(shape.bytes for shape in item.shapes)
