"""Trains the omni model for one stage: pretrain, perceive, align or duplex."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import optax
from jax.sharding import Mesh

from omni_jax.checkpoint import Checkpointer, host_sharding, load_codec, load_params, params_sha256
from omni_jax.config import Config
from omni_jax.errors import ConfigError
from omni_jax.input_pipeline.loader import make_loader
from omni_jax.models import omni
from omni_jax.operations import Operations
from omni_jax.parallel.mesh import check_batch, make_mesh
from omni_jax.parallel.process_rows import my_shards
from omni_jax.parallel.sharding import batch_sharding
from omni_jax.training.held_out import HeldOut
from omni_jax.training.loop import Loader, Run, resume, train
from omni_jax.training.omni_state import abstract_state, omni_optimizer
from omni_jax.training.speech_codes import shared_code_cache
from omni_jax.training.starting_point import parse_parts, take_parts
from omni_jax.training.state import TrainState, fresh_state, init_state
from omni_jax.training.step import compile_step
from omni_jax.types import Batch


def train_omni(config: Config, workdir: str | Path, operations: Operations) -> None:
    """Trains to `config.training.steps`, from the workdir's last checkpoint if there is one.

    The speech codes come from the codec in `training.codec_from`, whose sha256 every checkpoint records.
    Raises UserError for a configuration, codec or starting point that does not fit.
    """
    config, codec_params = with_codec(config)
    has_codec = codec_params is not None
    mesh = make_mesh(config.mesh)
    check_batch(config, mesh)
    optimizer = omni_optimizer(config)
    checkpointer = Checkpointer(workdir, config.training.keep_checkpoints, operations)
    folder = checkpointer.folder
    codes = shared_code_cache(config, codec_params, folder) if has_codec else None
    run = Run(config, folder, checkpointer, params_sha256(codec_params) if has_codec else "", operations)
    shards = my_shards(batch_sharding(mesh), config.data.rows, config.data.virtual_shards)
    loader = make_loader(config, "train", codes, folder, shards)
    state = starting_state(run, mesh, optimizer, loader)
    held_out = HeldOut(config, mesh, partial(make_loader, _held_out(config), "test", codes, folder, shards))
    step = compile_on_first_batch(config, mesh, optimizer)
    train(run, state, step, loader, config.data.rows, evaluate=held_out)
    checkpointer.close()
    loader.close()


def _held_out(config: Config) -> Config:
    """Without the sample corpus' readings, all of which are for training."""
    if config.data.sources:
        return config
    tasks = {name: share for name, share in config.data.tasks.items() if name != "reading"}
    return dataclasses.replace(config, data=dataclasses.replace(config.data, tasks=tasks))


def starting_state(run: Run, mesh: Mesh, optimizer: optax.GradientTransformation, loader: Loader) -> TrainState:
    """The workdir's last checkpoint, else `training.init_from`'s parameters or parts of them, else random ones."""
    config = run.config
    abstract = abstract_state(config, mesh, optimizer)
    if run.checkpointer.latest_step() is not None:
        state = resume(run, abstract, loader)
        if state is not abstract:  # or else every checkpoint was damaged
            return state
    parts = parse_parts(config.training.init_from)
    if config.model.lora and config.training.init_from and not parts:
        parts = [("*", config.training.init_from)]
    if config.training.init_from and not parts:
        return fresh_state(starting_params(config), optimizer, config.seed, abstract)
    state = init_state(lambda key: omni.init_params(config.model, key), optimizer, config.seed, abstract)
    return state._replace(params=take_parts(state.params, parts)) if parts else state


def with_codec(config: Config) -> tuple[Config, Any]:
    """`config` with the configuration of the codec in `training.codec_from`, and that codec's parameters (or None)."""
    if not config.training.codec_from:
        return config, None
    saved, params = load_codec(config.training.codec_from)
    return dataclasses.replace(config, codec=saved.codec), params


def starting_params(config: Config) -> Any:
    """Parameters of the stage in `training.init_from`; ConfigError when it trained another model."""
    before, params = load_params(config.training.init_from, host_sharding())
    if before.model != config.model:
        differing = [
            item.name
            for item in dataclasses.fields(config.model)
            if getattr(before.model, item.name) != getattr(config.model, item.name)
        ]
        raise ConfigError(
            f"training.init_from={config.training.init_from} holds another model (its {', '.join(differing)} differ): "
            "use the same size and model flags in every stage"
        )
    return params


def compile_on_first_batch(config: Config, mesh: Mesh, optimizer: optax.GradientTransformation) -> Callable[..., Any]:
    """A step function that compiles once, for the shapes of the first batch."""
    compiled: list[Callable[..., Any]] = []

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        if not compiled:
            compiled.append(compile_step(config, mesh, optimizer, state, batch))
        return compiled[0](state, batch)

    return step
