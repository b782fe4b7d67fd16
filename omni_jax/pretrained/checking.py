"""Compares a published checkpoint with a family's table before anything is read: names, shapes, leftovers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

import jax
import numpy as np

from omni_jax.errors import UserError
from omni_jax.parallel.sharding import ParamAxes
from omni_jax.pretrained.family import Family
from omni_jax.pretrained.layout import Entry
from omni_jax.pretrained.tensor_files import Tensor

_SHOWN = 4


class Report(NamedTuple):
    """What became of every tensor of the files, and what the files do not have. Names sorted."""

    mapped: tuple[str, ...]
    unused: tuple[str, ...]  # in the files only; each is named by the family or by --ignore
    missing: tuple[str, ...]  # our arrays that no tensor fills

    def lines(self) -> list[str]:
        counts = f"mapped {len(self.mapped)}, unused {len(self.unused)}, missing {len(self.missing)}"
        names = [f"unused {name}" for name in self.unused] + [f"missing {name}" for name in self.missing]
        return [counts, *names]


def without_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Files of one family may or may not have a prefix before every name; the tables have none."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def check(
    family: Family,
    table: Sequence[Entry],
    tensors: Mapping[str, Tensor],
    axes: Mapping[str, ParamAxes],
    ignore: Sequence[str] = (),
) -> Report:
    """Raises UserError for a tensor that is missing, has another shape, or is in no table and not named by a pattern.

    Args:
        axes: our arrays by path. Those that no line of the table fills are reported as missing.
        ignore: patterns (`fnmatch`) of published names to leave out, besides the family's own.
    """
    wanted = {line.theirs for line in table}
    absent = sorted(wanted - tensors.keys())
    if absent:
        raise UserError(f"{family.name}: {_some(absent)} is not in the files: is a shard or the right class missing?")
    for line in table:
        expected = _published_shape(line, axes)
        if tensors[line.theirs].shape != expected:
            raise UserError(
                f"{tensors[line.theirs].path}: {line.theirs} has shape {tensors[line.theirs].shape}, config.json "
                f"means {expected}: the two do not belong together"
            )
    unused = sorted(tensors.keys() - wanted)
    patterns = (*family.unused, *ignore)
    unnamed = [name for name in unused if not any(fnmatchcase(name, pattern) for pattern in patterns)]
    if unnamed:
        raise UserError(f"{family.name}: nothing takes {_some(unnamed)}: name what to leave out with --ignore=PATTERN")
    filled = {slot.path for line in table for slot in line.ours}
    return Report(tuple(sorted(wanted)), tuple(unused), tuple(sorted(axes.keys() - filled)))


def _published_shape(line: Entry, axes: Mapping[str, ParamAxes]) -> tuple[int, ...]:
    parts = [jax.ShapeDtypeStruct(axes[slot.path].shape[len(slot.index) :], np.float32) for slot in line.ours]
    return jax.eval_shape(line.layout.to_theirs, parts).shape


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
