"""The training step of a published recipe: generator and discriminators in one compiled program.

The generator is differentiated once: every loss that hears the waveform gives a gradient with respect to it, these are
joined by the recipe's weights or by EnCodec's balancer, and the sum is pulled back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from omni_jax.config import Config
from omni_jax.input_pipeline.codec_loader import CodecBatch
from omni_jax.recipe_config import RecipeConfig
from omni_jax.training.balancer import BalancerState, balance
from omni_jax.training.recipe_adversary import Adversary, absent, oppose
from omni_jax.training.recipe_codebooks import Statistics, codebook_use, update_statistics, write_codebooks
from omni_jax.training.recipe_generator import generate
from omni_jax.training.recipe_losses import mel_loss, multi_scale_loss, time_loss
from omni_jax.training.state import TrainState
from omni_jax.training.teacher import Teacher

Metrics = dict[str, Float[Array, ""]]


class RecipeOptimizers(NamedTuple):
    generator: optax.GradientTransformation
    discriminator: optax.GradientTransformation


class RecipeOptState(NamedTuple):
    """Everything a run carries besides the moving average of the generator, which is `TrainState.params`."""

    live: Any  # what is trained: `recipe_generator.init_generator`
    generator: optax.OptState
    discriminator_params: Any
    discriminator: optax.OptState
    codebooks: Statistics
    balancer: BalancerState


def waveform_losses(recipe: RecipeConfig) -> dict[str, float]:
    """Weights of the losses that hear the waveform, without those that are 0."""
    names = ("time", "mel", "multi_scale", "adversarial", "feature")
    weights = {name: getattr(recipe.weights, name) for name in names}
    return {name: weight for name, weight in weights.items() if weight}


def make_recipe_step(
    config: Config, optimizers: RecipeOptimizers, teacher: Teacher | None = None
) -> Callable[[TrainState, CodecBatch], tuple[TrainState, Metrics]]:
    """The pure step function, to be jitted by the caller with the state donated; a teacher's weights are constants."""
    recipe = config.recipe

    def step(state: TrainState, batch: CodecBatch) -> tuple[TrainState, Metrics]:
        generate_key, restart_key = jax.random.split(jax.random.fold_in(state.key, state.step))
        opt = state.opt_state
        (fake, side_loss), pull_back, made = jax.vjp(
            lambda live: generate(recipe, teacher, live, batch, generate_key), opt.live, has_aux=True
        )
        real = batch.wav[:, : fake.shape[1]]
        adversary = _adversary(recipe, optimizers.discriminator, state, real, fake)
        losses, gradients = _reconstruction(recipe, real, fake)
        losses, gradients = losses | adversary.losses, gradients | adversary.gradients
        loss, gradient, balancer = _join(recipe, losses, gradients, opt.balancer)
        (gradients,) = pull_back((gradient, jnp.ones_like(side_loss)))
        updates, generator = optimizers.generator.update(gradients, opt.generator, opt.live)
        live = optax.apply_updates(opt.live, updates)
        codebooks = update_statistics(opt.codebooks, made.levels, recipe.codebook_decay, restart_key)
        live = live | {"model": write_codebooks(live["model"], codebooks)}
        average = moving_average(recipe, state.params, live["model"], state.step)
        metrics = losses | made.metrics | codebook_use(codebooks)
        metrics |= {"loss": loss + side_loss, "discriminator": adversary.loss}
        metrics["gradient_norm"] = optax.tree.norm(gradients)
        opt = RecipeOptState(live, generator, adversary.params, adversary.opt_state, codebooks, balancer)
        return TrainState(write_codebooks(average, codebooks), opt, state.step + 1, state.key, state.guard), metrics

    return step


def moving_average(recipe: RecipeConfig, average: Any, live: Any, step: Int[Array, ""]) -> Any:
    """A short memory at first, so that the random start is soon forgotten."""
    decay = jnp.minimum(recipe.average_decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda old, new: decay * old + (1.0 - decay) * new, average, live)


def _reconstruction(
    recipe: RecipeConfig, real: Float[Array, "B L"], fake: Float[Array, "B L"]
) -> tuple[Metrics, dict[str, Array]]:
    """Values, and gradients with respect to the generated waveform, of the losses without discriminators."""
    rate, ladder = recipe.sample_rate_hz, tuple(zip(recipe.mel_windows, recipe.mel_bands))
    base = jnp.log(10.0) if recipe.natural_log else 1.0
    terms = {
        "time": lambda fake: time_loss(real, fake),
        "mel": lambda fake: base * mel_loss(real, fake, rate, ladder),
        "multi_scale": lambda fake: multi_scale_loss(real, fake, rate, recipe.scale_windows),
    }
    wanted = [name for name in waveform_losses(recipe) if name in terms]
    found = {name: jax.value_and_grad(terms[name])(fake) for name in wanted}
    return {name: value for name, (value, _) in found.items()}, {name: grad for name, (_, grad) in found.items()}


def _adversary(
    recipe: RecipeConfig, optimizer: optax.GradientTransformation, state: TrainState, real: Array, fake: Array
) -> Adversary:
    opt = state.opt_state
    judges = (opt.discriminator_params, opt.discriminator)
    if not recipe.adversarial_start_step:
        return oppose(recipe, optimizer, judges, real, fake)
    return jax.lax.cond(
        state.step >= recipe.adversarial_start_step,
        lambda: oppose(recipe, optimizer, judges, real, fake),
        lambda: absent(judges, fake),
    )


def _join(
    recipe: RecipeConfig, losses: Metrics, gradients: dict[str, Array], balancer: BalancerState
) -> tuple[Array, Array, BalancerState]:
    """The weighted loss, its gradient (balanced or as it is) and the balancer's averages."""
    weights = waveform_losses(recipe)
    loss = sum(weight * losses[name] for name, weight in weights.items())
    if recipe.balanced:
        return loss, *balance(gradients, weights, balancer)
    return loss, sum(weight * gradients[name] for name, weight in weights.items()), balancer
