"""Stands in for jaxtyping where it is not installed: its names occur in annotations, which nothing evaluates here.

Import it before `omni_jax`. So a benchmark runs on a machine that has only jax, flax, optax and ml_collections.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from typing import Any


class _Names(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Any


if importlib.util.find_spec("jaxtyping") is None:
    sys.modules["jaxtyping"] = _Names("jaxtyping")
