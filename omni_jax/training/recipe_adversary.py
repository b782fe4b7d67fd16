"""The discriminators' part of a recipe's step.

Deviation: both sides learn from one forward pass, while published code updates the discriminators first and judges
again. The generator hears the discriminators of one step ago.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from omni_jax.models.codec import published_discriminators as discriminators
from omni_jax.models.codec.discriminators import Judgement
from omni_jax.recipe_config import RecipeConfig
from omni_jax.training import codec_losses, recipe_losses

Judged = tuple[Judgement, ...]


class Kind(NamedTuple):
    """Losses of one adversarial game."""

    discriminator: Callable[[Judged, Judged], Array]
    generator: Callable[[Judged], Array]
    feature: Callable[[Judged, Judged], Array]


KINDS = {
    "hinge": Kind(
        recipe_losses.hinge_discriminator, recipe_losses.hinge_generator, recipe_losses.relative_feature_loss
    ),
    "clamped_hinge": Kind(
        recipe_losses.hinge_discriminator, codec_losses.generator_hinge_loss, recipe_losses.mean_feature_loss
    ),
    "least_squares": Kind(
        recipe_losses.least_squares_discriminator, recipe_losses.least_squares_generator, recipe_losses.feature_loss
    ),
}


class Adversary(NamedTuple):
    """Outcome of the discriminators' part of a step."""

    losses: dict[str, Float[Array, ""]]  # adversarial and feature
    gradients: dict[str, Float[Array, "B L"]]  # of these, with respect to the generated waveform
    params: Any
    opt_state: optax.OptState
    loss: Float[Array, ""]  # the discriminators' own


def oppose(
    recipe: RecipeConfig,
    optimizer: optax.GradientTransformation,
    state: tuple[Any, optax.OptState],
    real: Float[Array, "B L"],
    fake: Float[Array, "B L"],
) -> Adversary:
    """Judges, updates the discriminators (`state`: their parameters and optimizer's) and tells the generator."""
    kind, (params, opt_state) = KINDS[recipe.adversarial], state

    def judge(params: Any, fake: Array) -> tuple[dict[str, Judgement], dict[str, Judgement]]:
        model = discriminators.bind(recipe.discriminator, params)
        return model.judge(real), model.judge(fake)

    judged, pull_back = jax.vjp(judge, params, fake)
    loss, cotangent = jax.value_and_grad(lambda judged: _weighed(recipe, kind.discriminator, *judged))(judged)
    updates, opt_state = optimizer.update(pull_back(cotangent)[0], opt_state, params)
    terms = {
        "adversarial": lambda judged: _weighed(recipe, kind.generator, judged[1]),
        "feature": lambda judged: _weighed(recipe, kind.feature, *judged),
    }
    losses, gradients = {}, {}
    for name, term in terms.items():
        losses[name], cotangent = jax.value_and_grad(term)(judged)
        gradients[name] = pull_back(cotangent)[1]
    return Adversary(losses, gradients, optax.apply_updates(params, updates), opt_state, loss)


def absent(state: tuple[Any, optax.OptState], fake: Float[Array, "B L"]) -> Adversary:
    """Before the discriminators start."""
    zeros = {name: jnp.zeros(()) for name in ("adversarial", "feature")}
    return Adversary(zeros, {name: jnp.zeros_like(fake) for name in zeros}, *state, jnp.zeros(()))


def _weighed(recipe: RecipeConfig, loss: Callable[..., Array], *sides: dict[str, Judgement]) -> Array:
    """`loss` of the discriminators on waveforms, plus that of those on spectrograms with the recipe's weight."""
    total = jnp.zeros(())
    for kinds, weight in ((("period", "scale"), 1.0), (("stft", "bands"), recipe.spectrogram_weight)):
        chosen = [tuple(judged for name, judged in side.items() if name.startswith(kinds)) for side in sides]
        total = total + (weight * loss(*chosen) if chosen[0] else 0.0)
    return total
