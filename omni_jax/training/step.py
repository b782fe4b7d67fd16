"""One compiled training step of the omni model: loss, gradient, update, metrics."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from omni_jax.config import Config
from omni_jax.models import omni
from omni_jax.parallel.process_rows import abstract_global, on_devices
from omni_jax.parallel.sharding import batch_sharding
from omni_jax.training.guard import guarded
from omni_jax.training.losses import omni_loss
from omni_jax.training.optimizer import learning_rate_schedule
from omni_jax.training.state import TrainState
from omni_jax.types import ABSENT, Batch

Metrics = dict[str, jax.Array]


def compile_step(
    config: Config, mesh: Mesh, optimizer: optax.GradientTransformation, state: TrainState, batch: Batch
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """The step, compiled ahead for exactly these shapes and shardings: anything else raises instead of recompiling.

    The state passed in is donated. `batch` holds this process' rows in numpy; it is placed on the mesh first.
    """
    rows = batch_sharding(mesh)
    everywhere = NamedSharding(mesh, PartitionSpec())
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    abstract_batch = abstract_global(batch, rows, config.data.rows)
    step = jax.jit(
        guarded(partial(train_step, config, optimizer), config.optimizer.spike_factor),
        out_shardings=(shardings, everywhere),
        donate_argnums=0,
    )
    with jax.set_mesh(mesh):
        compiled = step.lower(state, abstract_batch).compile()
    return lambda state, batch: compiled(state, on_devices(batch, rows, config.data.rows))


def train_step(
    config: Config, optimizer: optax.GradientTransformation, state: TrainState, batch: Batch
) -> tuple[TrainState, Metrics]:
    """A pure function; `guarded` makes a bad step leave no trace."""
    batch = drop_own_codes(batch, jax.random.fold_in(state.key, state.step), config.training.codes_dropout)

    def loss_function(params: Any) -> tuple[jax.Array, tuple[Metrics, Metrics]]:
        output = omni.apply(config.model, params, batch)
        loss, terms = omni_loss(
            config.loss,
            output,
            batch,
            lambda hidden: omni.text_logits(config.model, params, hidden),
            config.model.vocab_size,
            config.model.audio.ctc_subframes,
        )
        routing = {"router_entropy": output.moe.router_entropy, "max_expert_share": jnp.max(output.moe.expert_share)}
        return loss, (terms, routing if config.model.transformer.num_experts else {})

    (loss, (terms, routing)), grads = jax.value_and_grad(loss_function, has_aux=True)(state.params)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = {"loss": loss, **terms, **routing, "gradient_norm": optax.tree.norm(grads)}
    metrics |= {f"gradient_norm/{part}": optax.tree.norm(values) for part, values in grads.items()}
    metrics["learning_rate"] = learning_rate_schedule(config.optimizer, config.training.steps)(state.step)
    return TrainState(params, opt_state, state.step + 1, state.key, state.guard), metrics


def drop_own_codes(batch: Batch, key: jax.Array, rate: float) -> Batch:
    """Makes the model's own past speech unreliable in a share of the rows: hidden in half of them, in the others
    replaced by what another row says.

    Teacher-forced codes tell which recording is being said, and so all words to come: a model that can trust them reads
    its answer from its own speech instead of from the question, and has nothing to read when it speaks by itself.
    """
    if rate == 0.0:
        return batch
    codes = batch.timeline.codes
    draw = jax.random.uniform(key, (codes.shape[0], 1, 1))
    swapped = jnp.where(codes >= 0, jnp.roll(codes, 1, axis=0), ABSENT)
    codes = jnp.where(draw < rate / 2, ABSENT, jnp.where(draw < rate, swapped, codes))
    return batch._replace(timeline=batch.timeline._replace(codes=codes))
