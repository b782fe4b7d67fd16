"""A fingerprint of parameters, to tell one codec from another."""

from __future__ import annotations

import hashlib
from typing import Any

import jax
import numpy as np


def params_sha256(params: Any) -> str:
    """Hex sha256 over path, dtype, shape and bytes of every leaf, in the tree's own order."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        array = np.ascontiguousarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)}:{array.dtype.str}:{array.shape};".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
