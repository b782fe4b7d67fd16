"""Reads the text of an optimised XLA program: computations, instructions, and how often each one runs."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

ITEM_BYTES = {
    **dict.fromkeys(("pred", "s8", "u8", "f8e4m3fn", "f8e5m2", "f8e4m3b11fnuz"), 1),
    **dict.fromkeys(("bf16", "f16", "s16", "u16"), 2),
    **dict.fromkeys(("f32", "s32", "u32"), 4),
    **dict.fromkeys(("f64", "s64", "u64", "c64"), 8),
    **dict.fromkeys(("s4", "u4"), 0.5),
}
_ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\]")
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_TAIL = re.compile(r"^\}(, execution_thread=\S+)?\s*$")
_NAMED = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_CALLEES = re.compile(
    r"\b(?:calls|to_apply|body|branch_computations|true_computation|false_computation)=(\{[^}]*\}|%[\w.\-]+)"
)


@dataclass(frozen=True)
class Shape:
    dtype: str
    dims: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.dims)

    @property
    def bytes(self) -> float:
        return self.size * ITEM_BYTES[self.dtype]


@dataclass(frozen=True)
class Instruction:
    name: str
    opcode: str
    shapes: tuple[Shape, ...]  # several for a tuple
    operands: tuple[str, ...]
    attributes: str  # all that follows the operands
    is_root: bool

    def attribute(self, pattern: str) -> str | None:
        """The first group of `pattern` in the attributes."""
        found = re.search(pattern, self.attributes)
        return found[1] if found else None

    @property
    def callees(self) -> list[str]:
        """Computations that run when this instruction does; of a reduction also its scalar function."""
        return [name for group in _CALLEES.findall(self.attributes) for name in re.findall(r"%([\w.\-]+)", group)]


@dataclass(frozen=True)
class Computation:
    name: str
    instructions: dict[str, Instruction]  # in order

    @property
    def root(self) -> Instruction:
        return next(item for item in self.instructions.values() if item.is_root)


@dataclass(frozen=True)
class Program:
    computations: dict[str, Computation]
    entry: str

    def runs(self) -> Iterator[tuple[Computation, Instruction, float]]:
        """Every instruction outside fusions with the number of times that it runs; loops count by their trips."""
        yield from self._runs(self.entry, 1.0)

    def _runs(self, name: str, times: float) -> Iterator[tuple[Computation, Instruction, float]]:
        computation = self.computations[name]
        for item in computation.instructions.values():
            yield computation, item, times
            if item.opcode == "while":
                yield from self._runs(item.attribute(r"body=%?([\w.\-]+)"), times * self.trips(item))
            elif item.opcode == "conditional":
                yield from self._runs(item.callees[0], times)
            elif item.opcode in ("call", "call-start", "async-start"):
                for callee in item.callees:
                    yield from self._runs(callee, times)

    def trips(self, loop: Instruction) -> int:
        """How often a loop's body runs: the compiler's note, or the constant that its condition compares with."""
        known = loop.attribute(r"known_trip_count\W+n\W+(\d+)")
        if known:
            return int(known)
        condition = self.computations[loop.attribute(r"condition=%?([\w.\-]+)")]
        bounds = [self._constants(item) for item in condition.instructions.values()]
        return max((bound for found in bounds for bound in found), default=1)

    def _constants(self, item: Instruction) -> list[int]:
        if item.opcode == "constant" and item.shapes[0] in (Shape("s32", ()), Shape("u32", ()), Shape("s64", ())):
            return [int(found) for found in re.findall(r"^\((\d+)\)", item.attributes)]
        if item.opcode == "fusion":
            inner = self.computations[item.callees[0]].instructions.values()
            return [bound for part in inner for bound in self._constants(part)]
        return []


def parse_hlo(text: str) -> Program:
    """Raises ValueError for a text without an entry computation."""
    computations: dict[str, Computation] = {}
    entry, current = None, None
    for line in text.splitlines():
        if current is None:
            head = _HEAD.match(line)
            if head:
                current = Computation(head[2], {})
                computations[head[2]] = current
                entry = head[2] if head[1] else entry
        elif _TAIL.match(line):
            current = None
        else:
            named = _NAMED.match(line)
            if named:
                current.instructions[named[2]] = _instruction(named[2], named[3], bool(named[1]))
    if entry is None:
        raise ValueError("no ENTRY computation: this is not the text of a compiled XLA program")
    return Program(computations, entry)


def _instruction(name: str, text: str, is_root: bool) -> Instruction:
    end = _closing(text, 0) if text.startswith("(") else text.find(" ")
    shapes = tuple(_shape(*found) for found in _ARRAY.findall(text[:end]) if found[0] in ITEM_BYTES)
    opcode, _, rest = text[end:].strip().partition("(")
    close = _closing("(" + rest, 0) - 1
    inside, attributes = rest[: close - 1], rest[close:]
    operands = tuple(re.findall(r"%([\w.\-]+)", re.sub(r"/\*.*?\*/", "", inside)))
    if opcode in ("constant", "parameter"):
        attributes = f"({inside})" + attributes
    return Instruction(name, opcode.strip(), shapes, operands, attributes, is_root)


def _shape(dtype: str, dims: str) -> Shape:
    return Shape(dtype, tuple(int(size) for size in dims.split(",") if size))


def _closing(text: str, start: int) -> int:
    """The place behind the parenthesis that closes the one at `start`."""
    depth = 0
    for place in range(start, len(text)):
        depth += (text[place] == "(") - (text[place] == ")")
        if depth == 0:
            return place + 1
    return len(text)
