"""The batches of a stage of the omni model, as shapes: for compiling without data."""

from __future__ import annotations

import jax
import numpy as np

from omni_jax.config import Config
from omni_jax.input_pipeline.packing import Budget, Packer, assemble
from omni_jax.types import Batch


def abstract_batch(config: Config) -> Batch:
    """Shapes and dtypes of the stage's batches: a batch of one pool, with as many of them as the config asks for."""
    budget = Budget.from_config(config)
    empty = assemble(Packer(budget.of_rows(budget.rows_per_pool)))

    def whole(leaf: np.ndarray) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((leaf.shape[0] * budget.num_pools, *leaf.shape[1:]), leaf.dtype)

    return jax.tree.map(whole, empty)
