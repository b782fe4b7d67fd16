"""A published recipe as a way to train in stage `codec`: optimizers, fresh state, the codebooks' start."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from omni_jax.config import Config, OptimizerConfig
from omni_jax.errors import ConfigError
from omni_jax.models import codec
from omni_jax.models.codec import published_discriminators as discriminators
from omni_jax.recipe_config import RecipeConfig
from omni_jax.training.balancer import init_balancer
from omni_jax.training.codec_program import Method, placed_like
from omni_jax.training.guard import new_guard
from omni_jax.training.loop import Loader
from omni_jax.training.optimizer import learning_rate_schedule
from omni_jax.training.recipe_codebooks import even_statistics, kmeans_statistics, read_codebooks, write_codebooks
from omni_jax.training.recipe_generator import init_generator
from omni_jax.training.recipe_step import RecipeOptimizers, RecipeOptState, make_recipe_step, waveform_losses
from omni_jax.training.state import TrainState
from omni_jax.training.teacher import Teacher, read_teacher

_DISCRIMINATOR_KEY, _KMEANS_KEY = 1, 2  # folded into the run's key; 0 is the generator


def recipe_method(config: Config) -> Method:
    optimizers = make_optimizers(config)
    teacher = read_teacher(config.recipe.teacher) if config.recipe.teacher else None
    return Method(
        create=functools.partial(init_recipe_state, config, optimizers, teacher=teacher),
        step=make_recipe_step(config, optimizers, teacher),
        prepare=functools.partial(kmeans_start, config),
    )


def make_optimizers(config: Config) -> RecipeOptimizers:
    """AdamW for both sides, with a learning rate and a clipping norm each."""
    recipe, cfg, steps = config.recipe, config.optimizer, config.training.steps
    if cfg.name != "adamw":
        raise ConfigError(f"optimizer.name={cfg.name!r}: the published recipes are trained with adamw")
    rate = recipe.discriminator_learning_rate
    return RecipeOptimizers(
        _adamw(cfg, _schedule(cfg, cfg.learning_rate, recipe.learning_rate_decay, steps), cfg.clip_norm),
        _adamw(cfg, _schedule(cfg, rate, recipe.learning_rate_decay, steps), recipe.discriminator_clip_norm),
    )


def _adamw(cfg: OptimizerConfig, schedule: optax.Schedule, clip_norm: float) -> optax.GradientTransformation:
    """Over one flat vector: the step compiles in a fraction of the time that an update of each leaf takes."""
    adamw = optax.adamw(schedule, b1=cfg.beta1, b2=cfg.beta2, weight_decay=cfg.weight_decay)
    return optax.flatten(optax.chain(optax.clip_by_global_norm(clip_norm), adamw))


def _schedule(cfg: OptimizerConfig, rate: float, decay: float, steps: int) -> optax.Schedule:
    if not decay:
        return lambda step: rate / cfg.learning_rate * learning_rate_schedule(cfg, steps)(step)
    return lambda step: rate * jnp.minimum(1.0, (step + 1.0) / (cfg.warmup_steps + 1.0)) * decay**step


def init_recipe_state(
    config: Config, optimizers: RecipeOptimizers, seed: int, teacher: Teacher | None = None
) -> TrainState:
    """Fresh parameters, discriminators, optimizer states and averages; the codebooks are random until k-means."""
    recipe, key = config.recipe, jax.random.key(seed)
    live = init_generator(recipe, jax.random.fold_in(key, 0), teacher)
    discriminator = discriminators.init_params(recipe.discriminator, jax.random.fold_in(key, _DISCRIMINATOR_KEY))
    opt_state = RecipeOptState(
        live=live,
        generator=optimizers.generator.init(live),
        discriminator_params=discriminator,
        discriminator=optimizers.discriminator.init(discriminator),
        codebooks=even_statistics(read_codebooks(live["model"])),
        balancer=init_balancer(len(waveform_losses(recipe))),
    )
    return TrainState(jax.tree.map(jnp.copy, live["model"]), opt_state, jnp.zeros((), jnp.int32), key, new_guard())


def kmeans_start(config: Config, loader: Loader, steps_done: int, state: TrainState) -> TrainState:
    """Sets the codebooks that are moving averages by residual k-means, before the first step."""
    opt, recipe = state.opt_state, config.recipe
    if steps_done or not opt.codebooks:
        return state
    batches = [next(loader).wav for _ in range(recipe.kmeans_batches)]
    found = [_points(recipe, opt.live["model"], wav) for wav in batches]
    points = {name: jnp.concatenate([part[name] for part in found]) for name in found[0]}
    fit = jax.jit(kmeans_statistics)
    codebooks = fit(points, opt.codebooks, jax.random.fold_in(state.key, _KMEANS_KEY))
    model = write_codebooks(opt.live["model"], codebooks)
    opt = opt._replace(live=opt.live | {"model": model}, codebooks=codebooks)
    return placed_like(state, state._replace(params=write_codebooks(state.params, codebooks), opt_state=opt))


@functools.partial(jax.jit, static_argnums=0)
def _points(recipe: RecipeConfig, params: Any, wav: Float[Array, "B N"]) -> dict[str, Float[Array, "R D"]]:
    model = codec.bind(recipe.generator, params)
    points = model.quantizer.points(model.encoder(wav))
    return {name: part.reshape(-1, part.shape[-1]) for name, part in points.items()}
