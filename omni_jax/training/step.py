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
from omni_jax.parallel.context import balance
from omni_jax.parallel.process_rows import abstract_global, on_devices
from omni_jax.parallel.sharding import batch_sharding
from omni_jax.training.fill import fill
from omni_jax.training.guard import guarded
from omni_jax.training.losses import omni_loss, part_shares
from omni_jax.training.optimizer import learning_rate_schedule, trainable_mask
from omni_jax.training.state import TrainState
from omni_jax.types import ABSENT, Batch, MoEStats

Metrics = dict[str, jax.Array]


def compile_step(
    config: Config, mesh: Mesh, optimizer: optax.GradientTransformation, state: TrainState, batch: Batch
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """The step, compiled ahead for exactly these shapes and shardings: anything else raises instead of recompiling.

    The state passed in is donated. `batch` holds this process' rows in numpy; it is placed on the mesh first.
    """
    compiled = lower_step(config, mesh, optimizer, state, batch).compile()
    rows = batch_sharding(mesh)
    return lambda state, batch: compiled(state, on_devices(batch, rows, config.data.rows))


def lower_step(
    config: Config, mesh: Mesh, optimizer: optax.GradientTransformation, state: TrainState, batch: Batch
) -> jax.stages.Lowered:
    """The step as a program for the mesh, whose devices need not exist; of `state` and `batch` only shapes are read."""
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
        return step.lower(state, abstract_batch)


def train_step(
    config: Config, optimizer: optax.GradientTransformation, state: TrainState, batch: Batch
) -> tuple[TrainState, Metrics]:
    """A pure function; `guarded` makes a bad step leave no trace."""
    batch = drop_own_codes(batch, jax.random.fold_in(state.key, state.step), config.training.codes_dropout)
    parts = config.training.microbatches
    differentiate = _gradients if parts == 1 else _accumulated_gradients
    metrics, expert_share, grads = differentiate(config, state.params, batch)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    params = balance_routers(params, expert_share, config.model.transformer.router_bias_rate)
    metrics |= fill(batch)
    metrics["gradient_norm"] = optax.tree.norm(grads)
    metrics |= {f"gradient_norm/{part}": optax.tree.norm(values) for part, values in grads.items()}
    metrics["learning_rate"] = learning_rate_schedule(config.optimizer, config.training.steps)(state.step)
    return TrainState(params, opt_state, state.step + 1, state.key, state.guard), metrics


def batch_loss(
    config: Config, params: Any, batch: Batch, shares: Metrics | None = None
) -> tuple[jax.Array, Metrics, MoEStats]:
    """The loss, its terms, and what the routers did. `shares`: see `omni_loss`."""
    batch = balance(batch)
    output = omni.apply(config.model, params, batch)
    head = omni.text_projection(config.model, params)
    code_heads = omni.code_heads(config.model, params)
    loss, terms = omni_loss(config.loss, output, batch, head, code_heads, config.model.audio.ctc_subframes, shares)
    return loss, terms, output.moe


def _gradients(
    config: Config, params: Any, batch: Batch, shares: Metrics | None = None
) -> tuple[Metrics, jax.Array, Any]:
    """Metrics, each layer's share of positions by expert, and gradients; of a part, what sums to the whole's."""

    trainable = trainable_mask(params, config.training.trainable)

    def loss_function(params: Any) -> tuple[jax.Array, tuple[Metrics, jax.Array]]:
        # No backward pass for what stays as it is.
        params = jax.tree.map(lambda leaf, train: leaf if train else jax.lax.stop_gradient(leaf), params, trainable)
        loss, terms, moe = batch_loss(config, params, batch, shares)
        if shares is not None:
            moe = jax.tree.map(lambda value: shares["router_z"] * value, moe)
        if config.model.transformer.num_experts:
            terms |= {"router_entropy": moe.router_entropy, "max_expert_share": jnp.max(moe.expert_share)}
            terms |= {"dropped_share": moe.dropped_share}
        return loss, ({"loss": loss, **terms}, moe.expert_share)

    (_, (metrics, share)), grads = jax.value_and_grad(loss_function, has_aux=True)(params)
    return metrics, share, grads


def _accumulated_gradients(config: Config, params: Any, batch: Batch) -> tuple[Metrics, jax.Array, Any]:
    """`_gradients` of one part of the batch after the other, summed: every term's mean is that of the whole batch.

    Only what routers do is not: their losses are means over the parts, each of which is balanced by itself.
    """
    parts = split_batch(batch, config.training.microbatches, config.data.rows_per_pool)
    shares = part_shares(parts, config.model.audio.ctc_subframes)
    example = jax.tree.map(lambda leaf: leaf[0], (parts, shares))
    shapes = jax.eval_shape(partial(_gradients, config), params, *example)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    def add(summed: Any, inputs: tuple[Batch, Metrics]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, summed, _gradients(config, params, *inputs)), None

    return jax.lax.scan(add, zeros, (parts, shares))[0]


def split_batch(batch: Batch, parts: int, rows_per_pool: int) -> Batch:
    """Every field [B, ...] or [G, ...] as [parts, B / parts, ...]; a pool stays with its rows.

    Part i takes every `parts`-th pool from i on, so that each device keeps the rows that it has.
    """
    pools = batch.speech_index.shape[0] // rows_per_pool

    def split(leaf: jax.Array) -> jax.Array:
        inside = leaf.shape[0] // pools
        parted = leaf.reshape(pools // parts, parts, inside, *leaf.shape[1:])
        return jnp.swapaxes(parted, 0, 1).reshape(parts, leaf.shape[0] // parts, *leaf.shape[1:])

    return jax.tree.map(split, batch)


def balance_routers(params: Any, expert_share: jax.Array, rate: float) -> Any:
    """Raises the bias of the experts that got less than their share and lowers the others' (arXiv 2408.15664)."""
    if not rate:
        return params
    too_few = jnp.sign(jnp.mean(expert_share, axis=-1, keepdims=True) - expert_share)

    def move(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        return leaf + rate * too_few if path[-1] == jax.tree_util.DictKey("router_bias") else leaf

    return jax.tree_util.tree_map_with_path(move, params)


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
