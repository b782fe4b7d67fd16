"""TurnHead on held-out dialogues in noise: both sides are given, only the user's state is to be told."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from omni_jax.evals.turns import TurnExample
from omni_jax.input_pipeline.cast import Cast, make_cast
from omni_jax.input_pipeline.dialogue import lay_out, play, talkers
from omni_jax.input_pipeline.materials import Materials
from omni_jax.input_pipeline.noise import add_noise
from omni_jax.input_pipeline.packing import Budget, Packer, assemble
from omni_jax.input_pipeline.text_tasks import picture_patches
from omni_jax.input_pipeline.timeline import Example
from omni_jax.model_config import ModelConfig
from omni_jax.models import omni
from omni_jax.types import ABSENT, TURN_DELAY_FRAMES, Batch

NOISE_SNR_DB = 10.0


def noisy_turns(materials: Materials, params: Any, count: int, seed: int) -> list[TurnExample]:
    """`count` dialogues of the simulator with white, pink or babble noise at 10 dB, and what TurnHead says of them."""
    cast = make_cast(materials)
    found = [_dialogue(materials, cast, index, np.random.default_rng([seed, index])) for index in range(count)]
    predicted = _predict(materials, params, [example for example, _ in found])
    examples = []
    for index, ((example, wav), guess) in enumerate(zip(found, predicted, strict=True)):
        # Named two frames late, of the frames from the first on.
        named = np.flatnonzero(example.fields["turn_state"] != ABSENT)[TURN_DELAY_FRAMES:]
        states = example.fields["turn_state"][named]
        examples.append(TurnExample(wav, states, guess[named], {"dialogue": str(index)}, TURN_DELAY_FRAMES))
    return examples


def _dialogue(
    materials: Materials, cast: Cast, key: int, rng: np.random.Generator
) -> tuple[Example, Float[np.ndarray, " N"]]:
    picture, scene = play(materials, cast, key, rng)
    wav = add_noise(rng, scene.user + scene.echo, NOISE_SNR_DB, talkers(cast, rng))
    patches = picture_patches(materials, picture, rng) if picture else None
    return lay_out(materials, scene, materials.log_mel(wav), patches), wav


def _predict(materials: Materials, params: Any, examples: Sequence[Example]) -> list[np.ndarray]:
    """The most likely TurnState of every position; one example a row."""
    budget, model = Budget.from_config(materials.config), materials.config.model
    predicted: list[np.ndarray] = []
    for first in range(0, len(examples), budget.rows):
        group = list(examples[first : first + budget.rows])
        packer = Packer(budget)
        packer.rows = [[example] for example in group] + [[]] * (budget.rows - len(group))
        states = np.asarray(_most_likely(model, params, assemble(packer)))
        predicted += [row[: example.num_positions] for row, example in zip(states, group, strict=False)]
    return predicted


@partial(jax.jit, static_argnums=0)
def _most_likely(model: ModelConfig, params: Any, batch: Batch) -> Int[Array, "B T"]:
    return jnp.argmax(omni.apply(model, params, batch).turn_logits, axis=-1)
