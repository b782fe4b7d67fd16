"""Keeps the C library from giving every step's buffers back to the system.

XLA's CPU backend frees and takes hundreds of megabytes a step. By default glibc maps each large buffer anew and returns
it when it is freed, and the kernel then clears its pages again: a quarter of the time of a training step at `tiny`.
"""

from __future__ import annotations

import ctypes
import os
import sys

import jax

# Numbers of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
_NEVER = -1
_ARENAS_A_CORE = 2  # by default eight


def keep_freed_memory() -> bool:
    """Returns whether this C library can do it (glibc on Linux). What was used once stays with the process.

    To be called before JAX starts its CPU backend, which dispatches from the calling thread then: the main thread's
    arena is the only one that grows beyond 64 MB. One arena for all threads is no remedy: XLA's small buffers cut it
    into so many pieces that after minutes the search for a free one takes longer than clearing pages did. They are few,
    because each keeps the most that it ever held, and the threads of saves come to use one after the other.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    settings = ((_TRIM_THRESHOLD, _NEVER), (_MMAP_MAX, 0), (_ARENA_MAX, _ARENAS_A_CORE * os.cpu_count()))
    return all(mallopt(name, value) == 1 for name, value in settings)
