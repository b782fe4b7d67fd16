"""The loss on held-out batches while a training goes on (`--evaluate_every`): the same batches every time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from omni_jax.config import Config
from omni_jax.input_pipeline.loader import Loader
from omni_jax.parallel.process_rows import on_devices
from omni_jax.parallel.sharding import batch_sharding
from omni_jax.training.step import batch_loss
from omni_jax.types import Batch

NUM_BATCHES = 4
PREFIX = "held_out/"


class HeldOut:
    """Means of the loss and its terms over the first batches of the test split, without dropped codes.

    Batches are read and the program is compiled at the first call; all processes must call at the same steps.
    """

    def __init__(self, config: Config, mesh: Mesh, make_loader: Callable[[], Loader]) -> None:
        """`make_loader`: the stream of the test split, read by this process' shards."""
        self._config, self._mesh, self._make_loader = config, mesh, make_loader
        self._batches: list[Batch] = []
        self._terms = jax.jit(partial(_terms, config), out_shardings=NamedSharding(mesh, PartitionSpec()))

    def __call__(self, params: Any) -> dict[str, float]:
        if not self._batches:
            loader = self._make_loader()
            self._batches = [next(loader) for _ in range(NUM_BATCHES)]
            loader.close()
        rows = batch_sharding(self._mesh)
        with jax.set_mesh(self._mesh):
            found = [
                jax.device_get(self._terms(params, on_devices(batch, rows, self._config.data.rows)))
                for batch in self._batches
            ]
        return {PREFIX + name: float(sum(terms[name] for terms in found) / NUM_BATCHES) for name in found[0]}


def _terms(config: Config, params: Any, batch: Batch) -> dict[str, jax.Array]:
    loss, terms, _ = batch_loss(config, params, batch)
    return {"loss": loss, **terms}
