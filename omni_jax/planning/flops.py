"""Floating-point operations of matrix products: XLA's own, and those of Mosaic kernels by their shapes."""

from __future__ import annotations

import math
import re

from omni_jax.planning.hlo import Computation, Instruction, Program, Shape

_FLOATS = ("bf16", "f16", "f32")
_EXACT_TAPS = 4_000_000  # above, the border of a convolution is not walked


def instruction_flops(program: Program, computation: Computation, item: Instruction) -> float | None:
    """Two a multiply-add. None: a kernel that is not known here."""
    if item.opcode == "fusion":
        inner = program.computations[item.callees[0]]
        return sum(instruction_flops(program, inner, part) or 0.0 for part in inner.instructions.values())
    if item.opcode == "convolution":
        return _convolution(computation, item)
    if item.opcode == "dot":
        return _dot(computation, item)
    if item.opcode.startswith("custom-call") and "tpu_custom_call" in item.attributes and "-done" not in item.opcode:
        return _kernel(computation, item)
    return 0.0


def _operand(computation: Computation, item: Instruction, index: int) -> Shape:
    return computation.instructions[item.operands[index]].shapes[0]


def _dot(computation: Computation, item: Instruction) -> float:
    left = _operand(computation, item, 0)
    contracted = item.attribute(r"lhs_contracting_dims=\{([\d,]*)\}") or ""
    return 2.0 * item.shapes[0].size * math.prod(left.dims[int(axis)] for axis in contracted.split(",") if axis)


def _convolution(computation: Computation, item: Instruction) -> float:
    """Products with padding are not work: TPU programs write a batched matmul as a padded convolution."""
    left, right = _operand(computation, item, 0), _operand(computation, item, 1)
    found = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", item.attributes)
    lhs, rhs, out = found.groups()
    window = dict(part.split("=") for part in (item.attribute(r"window=\{([^}]*)\}") or "").split())
    groups = int(item.attribute(r"batch_group_count=(\d+)") or 1)
    taps = 1.0
    for axis in (label for label in rhs if label.isdigit()):
        sizes = (left.dims[lhs.index(axis)], right.dims[rhs.index(axis)], item.shapes[0].dims[out.index(axis)])
        taps *= _taps(sizes, int(axis), window)
    return 2.0 * item.shapes[0].size * right.dims[rhs.index("i")] * taps / groups


def _taps(sizes: tuple[int, int, int], axis: int, window: dict[str, str]) -> float:
    """Kernel taps an output place that meet a real input, on average, along one spatial axis."""
    size_in, kernel, size_out = sizes

    def setting(key: str, default: int) -> int:
        return int(window[key].split("x")[axis].split("_")[0]) if key in window else default

    low, stride, spread, gap = (
        setting("pad", 0),
        setting("stride", 1),
        setting("lhs_dilate", 1),
        setting("rhs_dilate", 1),
    )
    if kernel == 1 or size_out * kernel > _EXACT_TAPS:
        return float(min(kernel, size_in))
    last = (size_in - 1) * spread
    places = (o * stride + k * gap - low for o in range(size_out) for k in range(kernel))
    return sum(1 for place in places if 0 <= place <= last and place % spread == 0) / size_out


def _kernel(computation: Computation, item: Instruction) -> float | None:
    """Grouped products by rows x width x width, causal attention by half the square of its length."""
    shapes = [shape for name in item.operands for shape in computation.instructions[name].shapes[:1]]
    if "metadata" in item.name:
        return 0.0
    if re.match(r"tgmm", item.name):  # [D, N] or [N, D] and [N, F] -> [E, D, F]
        _, depth, width = item.shapes[0].dims
        return 2.0 * depth * width * max(size for shape in shapes if len(shape.dims) == 2 for size in shape.dims)
    if re.match(r"gmm|ragged[-_]dot", item.name):  # [N, D] and [E, D, F] -> [N, F]
        rows, width = item.shapes[0].dims
        inner = next(shape.dims[1] for shape in shapes if len(shape.dims) == 2 and shape.dims[0] == rows)
        return 2.0 * rows * width * inner
    if item.name.startswith("splash"):
        # [rows, heads, positions, head_dim], without rows where a device has one; the mask's blocks are integers.
        queries, keys = [shape.dims for shape in shapes if shape.dtype in _FLOATS and len(shape.dims) >= 3][:2]
        products = 2 if "fwd" in item.name else 5 if "dkv" in item.name else 3
        return 2.0 * products * math.prod(queries) * keys[-2] / 2
    return None
