"""A trainer whose model is one matrix: the real loop, loader, checkpoints and processes, and no compiler to wait for.

python tests/faults/toy.py --workdir=DIR --steps=60 [--step_s=0.02] [--hold_at=4] [--nan_at=7] [Operations as flags]
"""

import argparse
import dataclasses
import itertools
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl.flags import FLAGS
from jax.sharding import NamedSharding, PartitionSpec

from omni_jax.checkpoint import Checkpointer
from omni_jax.config import Config, DataConfig, MeshConfig, TrainingConfig
from omni_jax.errors import run_main
from omni_jax.input_pipeline.loader import Loader
from omni_jax.input_pipeline.shards import ShardedDataset
from omni_jax.input_pipeline.worker_process import WorkerIterator
from omni_jax.input_pipeline.workers import WorkersIterator
from omni_jax.operations import Operations
from omni_jax.parallel import multihost
from omni_jax.parallel.mesh import make_mesh
from omni_jax.parallel.process_rows import my_shards, on_devices
from omni_jax.parallel.sharding import batch_sharding
from omni_jax.training.guard import guarded, new_guard
from omni_jax.training.loop import Run, resume, train
from omni_jax.training.state import TrainState, init_state

ROWS, WIDTH, SHARDS, PREFETCH = 8, 64, 4, 2
OPTIMIZER = optax.adam(1e-2)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--step_s", type=float, default=0.02)
    parser.add_argument("--hold_at", type=int, default=-1, help="step of this start that takes a minute, from 1")
    parser.add_argument("--checkpoint_every", type=int, default=10)
    parser.add_argument("--workers", type=int, default=1, help="more than one: processes that read the data")
    parser.add_argument("--nan_at", type=int, default=-1, help="batch of this start that is NaN, from 1")
    parser.add_argument("--nan_batches", type=int, default=1)
    for item in dataclasses.fields(Operations):
        parser.add_argument(f"--{item.name}", type=type(item.default), default=item.default)
    flags = parser.parse_args()
    operations = Operations(**{item.name: getattr(flags, item.name) for item in dataclasses.fields(Operations)})
    multihost.initialize()
    training = TrainingConfig(
        steps=flags.steps, log_every=1, checkpoint_every=flags.checkpoint_every, tensorboard=False
    )
    config = Config(mesh=MeshConfig(), data=DataConfig(rows=ROWS, shards=SHARDS), training=training)
    checkpointer = Checkpointer(flags.workdir, operations=operations)
    run = Run(config, checkpointer.folder, checkpointer, operations=operations)
    mesh = make_mesh(config.mesh)
    rows = batch_sharding(mesh)
    loader = make_toy_loader(my_shards(rows, ROWS, SHARDS), flags.workers)
    abstract = abstract_state(mesh)
    state = init_state(init_params, OPTIMIZER, 0, abstract)
    state = resume(run, state, loader)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    everywhere = NamedSharding(mesh, PartitionSpec())
    compiled = jax.jit(guarded(toy_step, 0.0), out_shardings=(shardings, everywhere), donate_argnums=0)

    batches = itertools.count(1)

    def step(state: TrainState, batch: np.ndarray) -> tuple[TrainState, dict]:
        number = next(batches)
        time.sleep(60.0 if number == flags.hold_at else flags.step_s)
        if flags.nan_at <= number < flags.nan_at + flags.nan_batches:
            batch = batch * np.float32("nan")
        with jax.set_mesh(mesh):
            return compiled(state, on_devices(batch, rows, ROWS))

    train(run, state, step, loader, ROWS)
    run.checkpointer.close()
    loader.close()
    return 0


def make_toy_loader(shards: list[int], workers: int) -> Loader:
    return Loader(InWorkers(shards, workers) if workers > 1 else rows_of(shards), PREFETCH)


class InWorkers(grain.IterDataset):
    def __init__(self, shards: list[int], workers: int):
        super().__init__()
        self._parts = [rows_of(part.tolist()) for part in np.array_split(shards, workers)]

    def __iter__(self) -> WorkersIterator:
        FLAGS.mark_as_parsed()
        return WorkersIterator([WorkerIterator(part, PREFETCH) for part in self._parts], np.concatenate)


def rows_of(shards: list[int]) -> ShardedDataset:
    """Rows of random numbers, each a function of its key."""
    keys = grain.MapDataset.range(512).shuffle(seed=3).repeat()

    def part(shard: int) -> grain.IterDataset:
        mine = keys[shard::SHARDS].map(lambda key: np.random.default_rng(key).standard_normal(WIDTH).astype(np.float32))
        return mine.batch(ROWS // SHARDS).to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))

    return ShardedDataset({shard: part(shard) for shard in shards}, np.concatenate)


def init_params(key: jax.Array) -> dict:
    return {"w": jax.random.normal(key, (WIDTH, WIDTH)) / WIDTH, "b": jnp.zeros(WIDTH)}


def abstract_state(mesh: jax.sharding.Mesh) -> TrainState:
    """`w` and its moments over fsdp, the rest everywhere."""

    def create() -> TrainState:
        params = init_params(jax.random.key(0))
        return TrainState(params, OPTIMIZER.init(params), jnp.zeros((), jnp.int32), jax.random.key(0), new_guard())

    def place(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        spec = PartitionSpec("fsdp") if len(leaf.shape) == 2 else PartitionSpec()
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, spec))

    return jax.tree.map(place, jax.eval_shape(create))


def toy_step(state: TrainState, batch: jax.Array) -> tuple[TrainState, dict[str, jax.Array]]:
    """Learns to turn the rows round; noise from the run's key, as dropout would take it."""
    noise = 0.1 * jax.random.normal(jax.random.fold_in(state.key, state.step), batch.shape)

    def loss_function(params: dict) -> jax.Array:
        return jnp.mean((batch @ params["w"] + params["b"][None] - batch[:, ::-1] - noise) ** 2)

    loss, grads = jax.value_and_grad(loss_function)(state.params)
    updates, opt_state = OPTIMIZER.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = {"loss": loss, "gradient_norm": optax.tree.norm(grads), "rows": jnp.sum(batch)}
    return TrainState(params, opt_state, state.step + 1, state.key, state.guard), metrics


if __name__ == "__main__":
    run_main(main)
