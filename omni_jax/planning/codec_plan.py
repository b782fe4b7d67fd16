"""What a plan of stage `codec` needs: its step lowered for devices that are not there, and its size in words."""

from __future__ import annotations

from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from omni_jax.config import Config
from omni_jax.training.codec_program import Method, lower_codec_step
from omni_jax.training.codec_stage import method_of
from omni_jax.training.state import TrainState


def lower_codec_plan(config: Config, mesh: Mesh) -> tuple[jax.stages.Lowered, TrainState]:
    """The step, and its state as shapes with shardings."""
    method = method_of(config)
    everywhere = NamedSharding(mesh, PartitionSpec())
    state = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere), _abstract(config, method)
    )
    return lower_codec_step(config, mesh, method.step, state), state


def describe_codec(config: Config) -> dict[str, Any]:
    """Samples a row, and the parameters that are saved and those of the discriminators."""
    state = _abstract(config, method_of(config))
    generator, judges = (
        sum(leaf.size for leaf in jax.tree.leaves(tree))
        for tree in (state.params, state.opt_state.discriminator_params)
    )
    segment = (config.recipe or config.codec_training).segment_samples
    return {"segment_samples": segment, "params_total": generator, "params_discriminators": judges}


def _abstract(config: Config, method: Method) -> TrainState:
    return jax.eval_shape(lambda: method.create(config.seed))
