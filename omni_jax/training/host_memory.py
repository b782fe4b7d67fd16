"""Keeps the C library from giving every step's buffers back to the system.

XLA's CPU backend frees and takes hundreds of megabytes a step. By default glibc maps each large buffer anew and returns
it when it is freed, and the kernel then clears its pages again: a fifth of the time of a training step at `tiny`.
"""

from __future__ import annotations

import ctypes
import sys

# Numbers of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
_NEVER = -1


def keep_freed_memory() -> bool:
    """Returns whether this C library can do it (glibc on Linux). What was used once stays with the process.

    To be called before JAX starts its threads: a thread stays with the arena of its first allocation, and in an arena
    of its own every large buffer is mapped anew whatever the settings.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    # One arena, so that a buffer freed by one thread serves the next thread that asks.
    return all(
        mallopt(name, value) == 1 for name, value in ((_TRIM_THRESHOLD, _NEVER), (_MMAP_MAX, 0), (_ARENA_MAX, 1))
    )
