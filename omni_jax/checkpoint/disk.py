"""Disks that are full, read-only or foreign: asked before a save, and put into one clear line after it."""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Iterator
from typing import Any

import jax
from etils import epath

from omni_jax.checkpoint.manifest import CheckpointError
from omni_jax.checkpoint.storage import is_bucket
from omni_jax.parallel.multihost import gather

_ROOM = 1.1  # free space asked for, as a multiple of the arrays' bytes
FULL = "the disk is full"


class NoRoomError(CheckpointError):
    """The disk has no room for a checkpoint."""


def require_room(directory: epath.Path, *trees: Any) -> None:
    """Raises NoRoomError on all processes when one of them has no room for its share of the arrays."""
    needed = int(_ROOM * sum(_local_bytes(leaf) for leaf in jax.tree.leaves(trees)))
    free = None if is_bucket(directory) else shutil.disk_usage(directory).free
    problem = ""
    if free is not None and free < needed:
        problem = f"the disk has {free / 1e6:.0f} MB free, a checkpoint needs {needed / 1e6:.0f} MB"
    found = next((text for text in gather("room for a checkpoint", problem) if text), "")
    if found:
        raise NoRoomError(
            f"{directory}: {found}: free some space or give another --workdir; the last checkpoint is whole"
        )


def reason(error: Exception) -> str:
    """What went wrong in a write, in a few words; `FULL` where that is what it comes to."""
    text = str(error)
    if isinstance(error, OSError):
        return FULL if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror or text
    if "No space left" in text or "RESOURCE_EXHAUSTED" in text:  # tensorstore reports its own status texts
        return FULL
    return f"{type(error).__name__}: {text}"


def write_error(path: epath.Path, why: str) -> CheckpointError:
    kind = NoRoomError if FULL in why else CheckpointError
    return kind(f"{path}: cannot write a checkpoint: {why}")


@contextlib.contextmanager
def disk_errors(directory: epath.Path) -> Iterator[None]:
    """Turns what the disk raises into a CheckpointError."""
    try:
        yield
    except OSError as error:
        raise write_error(directory, reason(error)) from error


def _local_bytes(leaf: Any) -> int:
    """What this process will write of an array."""
    if not isinstance(leaf, jax.Array):
        return leaf.nbytes
    return sum(shard.data.nbytes for shard in leaf.addressable_shards if shard.replica_id == 0)
