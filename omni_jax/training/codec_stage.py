"""Stage `codec`: trains the speech codec and its discriminators."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from omni_jax.checkpoint import Checkpointer, load_codec, local_folder
from omni_jax.codec_config import CodecConfig
from omni_jax.config import Config, OptimizerConfig
from omni_jax.errors import ConfigError
from omni_jax.input_pipeline.loader import make_codec_loader
from omni_jax.models import codec
from omni_jax.models.binding import RUNS_ONCE
from omni_jax.nn.quantize import QuantizerState, kmeans_codebooks
from omni_jax.operations import Operations
from omni_jax.parallel.mesh import make_mesh
from omni_jax.training.codec_program import Method, compile_codec_step, placed_like
from omni_jax.training.gan_step import (
    CodecOptimizers,
    CodecOptState,
    init_discriminator,
    make_codec_step,
    split_codebooks,
)
from omni_jax.training.guard import new_guard
from omni_jax.training.loop import Loader, Run, resume, train
from omni_jax.training.optimizer import parameter_path, update_rule
from omni_jax.training.recipe_stage import recipe_method
from omni_jax.training.state import TrainState

KMEANS_ITERATIONS = 20
_DISCRIMINATOR_KEY, _KMEANS_KEY = 1, 2  # folded into the run's key; 0 is the parameters


def train_codec(config: Config, workdir: str | Path, operations: Operations) -> TrainState:
    """Trains, or goes on from the workdir's last checkpoint, to `config.training.steps`."""
    loader = make_codec_loader(config, workdir=local_folder(workdir))
    try:
        return train_codec_on(loader, config, workdir, operations)
    finally:
        loader.close()


def train_codec_on(
    loader: Loader, config: Config, workdir: str | Path, operations: Operations | None = None
) -> TrainState:
    """`train_codec` on the `CodecBatch`es of a given loader."""
    if jax.process_count() > 1:
        raise ConfigError(f"stage codec trains in one process, here are {jax.process_count()}: start it on one host")
    if operations and operations.evaluate_every:
        raise ConfigError(
            "--evaluate_every: stage codec has no held-out loss; see python -m omni_jax.models.codec evaluate"
        )
    mesh = make_mesh(config.mesh, jax.devices())
    operations = operations or Operations()
    checkpointer = Checkpointer(workdir, config.training.keep_checkpoints, operations)
    run = Run(config, checkpointer.folder, checkpointer, operations=operations)
    everywhere = NamedSharding(mesh, PartitionSpec())
    method = method_of(config)
    # `spectral` starts with the same bits as in the runs that are logged.
    options = RUNS_ONCE if config.recipe else None
    create = jax.jit(method.create, out_shardings=everywhere, compiler_options=options)
    fresh = create(config.seed)
    state = resume(run, fresh, loader)
    if state is fresh:
        state = starting_state(config, fresh)
    step = compile_codec_step(config, mesh, method.step, state)
    prepare = functools.partial(method.prepare, loader)
    state = train(run, state, step, loader, config.data.rows, prepare)
    checkpointer.close()
    return state


def method_of(config: Config) -> Method:
    """A published recipe's, or that of `spectral`."""
    if config.recipe:
        return recipe_method(config)
    optimizers = make_optimizers(config)
    return Method(
        create=functools.partial(init_codec_state, config, optimizers),
        step=make_codec_step(config, optimizers),
        prepare=functools.partial(kmeans_start, config),
    )


def make_optimizers(config: Config) -> CodecOptimizers:
    """For both sides; the discriminators' schedule begins where they do."""
    steps = config.training.steps
    adversarial_steps = max(steps - config.codec_training.adversarial_start_step, 1)
    rate = config.codec_training.discriminator_learning_rate
    discriminator = dataclasses.replace(config.optimizer, name="adamw", learning_rate=rate)
    return CodecOptimizers(_optimizer(config.optimizer, steps), _optimizer(discriminator, adversarial_steps))


def _optimizer(cfg: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """Weight decay falls on all parameters alike, as in DAC's recipe (arXiv:2306.06546).

    AdamW is over one flat vector: the step compiles in a fraction of the time that an update of each leaf takes.
    """
    rule = optax.chain(optax.clip_by_global_norm(cfg.clip_norm), update_rule(cfg, steps, None, _matrices))
    return optax.flatten(rule) if cfg.name == "adamw" else rule


def _matrices(params: Any) -> Any:
    """For Muon: the kernels of linear layers, which may be stacked, are matrices; depthwise kernels are not."""

    def matrix(path: tuple[Any, ...], leaf: Array) -> optax.contrib.MuonDimensionNumbers | None:
        name = parameter_path(path)
        if not name.endswith("/kernel") or "/depthwise/" in name:
            return None
        return optax.contrib.MuonDimensionNumbers(leaf.ndim - 2, leaf.ndim - 1)

    return jax.tree_util.tree_map_with_path(matrix, params)


def init_codec_state(config: Config, optimizers: CodecOptimizers, seed: int) -> TrainState:
    """Fresh parameters, discriminators and optimizer states; learned codebooks and their sums start at zero."""
    key = jax.random.key(seed)
    params = codec.init_params(config.codec, jax.random.fold_in(key, 0))
    discriminator = init_discriminator(config, jax.random.fold_in(key, _DISCRIMINATOR_KEY))
    trainable, codebooks = split_codebooks(params)
    opt_state = CodecOptState(
        optimizers.generator.init(trainable),
        discriminator,
        optimizers.discriminator.init(discriminator),
        QuantizerState(jnp.full(codebooks.shape[:2], 1.0 / codebooks.shape[1]), jnp.zeros(codebooks.shape)),
    )
    return TrainState(params, opt_state, jnp.zeros((), jnp.int32), key, new_guard())


def starting_state(config: Config, state: TrainState) -> TrainState:
    """`state` with the codec of `training.init_from`, whose codes count as equally used; as it is where none is named.

    Raises:
        ConfigError: a recipe is trained, or the workdir holds another codec, or a phase without codes is planned.
    """
    workdir = config.training.init_from
    if not workdir:
        return state
    if config.recipe:
        raise ConfigError(f"training.init_from={workdir}: a recipe starts from nothing: leave init_from empty")
    if config.codec_training.quantiser_start_step:
        raise ConfigError(
            f"training.init_from={workdir} brings its codebooks: keep them by "
            "--config.codec_training.quantiser_start_step=0"
        )
    before, params = load_codec(workdir)
    if before.codec != config.codec:
        raise ConfigError(f"training.init_from={workdir} holds another codec: use its size and codec flags")
    usage = state.opt_state.quantizer.usage
    quantizer = QuantizerState(usage, params["codebooks"] * usage[..., None])
    return placed_like(state, state._replace(params=params, opt_state=state.opt_state._replace(quantizer=quantizer)))


def kmeans_start(config: Config, loader: Loader, steps_done: int, state: TrainState) -> TrainState:
    """Sets the codebooks by residual k-means over fresh latents before the first quantised step."""
    has_codebooks = config.codec.fsq_levels or config.training.init_from
    if steps_done != config.codec_training.quantiser_start_step or has_codebooks:
        return state
    return start_quantizer(config, state, loader)


def start_quantizer(config: Config, state: TrainState, loader: Loader) -> TrainState:
    """Residual k-means over the latents of `kmeans_batches` batches, which it takes from the loader."""
    batches = [next(loader).wav for _ in range(config.codec_training.kmeans_batches)]
    latents = [_latents(config.codec, state.params, wav) for wav in batches]
    points = jnp.concatenate(latents, axis=0).reshape(-1, config.codec.latent_dim)
    cfg, key = config.codec, jax.random.fold_in(state.key, _KMEANS_KEY)
    fit: Callable[..., QuantizerState] = jax.jit(kmeans_codebooks, static_argnums=(1, 2, 3))
    quantizer = fit(points, cfg.num_codebooks, cfg.codebook_size, KMEANS_ITERATIONS, key)
    params = state.params | {"codebooks": quantizer.codebooks}
    return placed_like(state, state._replace(params=params, opt_state=state.opt_state._replace(quantizer=quantizer)))


@functools.partial(jax.jit, static_argnums=0)
def _latents(cfg: CodecConfig, params: Any, wav: Float[Array, "B N"]) -> Float[Array, "B T D"]:
    model = codec.bind(cfg, params)
    return model.encoder(wav, model.encoder.init_state(wav.shape[0]))[0]
