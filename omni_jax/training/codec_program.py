"""What stage `codec` needs of a way to train a codec, and the compilation of its step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from omni_jax.config import Config
from omni_jax.input_pipeline.codec_loader import CodecBatch, num_phone_frames
from omni_jax.parallel.sharding import batch_sharding
from omni_jax.training.guard import guarded
from omni_jax.training.loop import Loader, StepFunction
from omni_jax.training.state import TrainState
from omni_jax.types import SPEECH_SAMPLE_RATE_HZ


class Method(NamedTuple):
    """One way to train: `spectral` in phases, or a published recipe."""

    create: Callable[[int], TrainState]  # from the seed
    step: Callable[[TrainState, CodecBatch], tuple[TrainState, dict[str, jax.Array]]]
    prepare: Callable[[Loader, int, TrainState], TrainState]  # before each step, with the steps done


def lower_codec_step(config: Config, mesh: Mesh, step: Callable[..., Any], state: TrainState) -> jax.stages.Lowered:
    """One program for all phases; donates the state. `state`: arrays, or shapes with shardings."""
    rows, everywhere = batch_sharding(mesh), NamedSharding(mesh, PartitionSpec())
    samples = (config.recipe or config.codec_training).segment_samples
    phones = num_phone_frames(samples, config.recipe.sample_rate_hz if config.recipe else SPEECH_SAMPLE_RATE_HZ)
    batch = CodecBatch(
        jax.ShapeDtypeStruct((config.data.rows, samples), jnp.float32, sharding=rows),
        jax.ShapeDtypeStruct((config.data.rows, phones), jnp.int32, sharding=rows),
    )
    guarded_step = jax.jit(guarded(step, config.optimizer.spike_factor), out_shardings=everywhere, donate_argnums=0)
    with jax.set_mesh(mesh):
        return guarded_step.lower(state, batch)


def compile_codec_step(config: Config, mesh: Mesh, step: Callable[..., Any], state: TrainState) -> StepFunction:
    """Compiled ahead: another shape raises instead of recompiling."""
    compiled, rows = lower_codec_step(config, mesh, step, state).compile(), batch_sharding(mesh)
    return lambda state, batch: compiled(state, jax.device_put(CodecBatch(*batch), rows))


def placed_like(state: TrainState, new: TrainState) -> TrainState:
    """`new` on the devices of `state`."""
    parts = (state.params, state.opt_state)
    placed = jax.device_put((new.params, new.opt_state), jax.tree.map(lambda leaf: leaf.sharding, parts))
    return new._replace(params=placed[0], opt_state=placed[1])
