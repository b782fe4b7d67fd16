"""Which of the codec's parameters Muon orthogonalises."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import codec_recipes
from omni_jax.config import resolve
from omni_jax.errors import ConfigError
from omni_jax.models import codec
from omni_jax.training import recipe_stage
from omni_jax.training.codec_stage import make_optimizers
from omni_jax.training.gan_step import split_codebooks
from tests.training.test_gan_step import CONFIG

RATE = 4e-3


def with_muon(config):
    return dataclasses.replace(
        config, optimizer=dataclasses.replace(config.optimizer, name="muon", learning_rate=RATE, warmup_steps=0)
    )


def test_muon_turns_every_layers_kernel_into_a_rotation_and_leaves_the_rest_to_adam():
    shapes = jax.eval_shape(lambda: split_codebooks(codec.init_params(CONFIG.codec, jax.random.key(0)))[0])
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)
    gradients = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), shapes)
    config = with_muon(CONFIG)
    optimizer, beta1 = make_optimizers(config).generator, config.optimizer.beta1
    updates, _ = jax.jit(optimizer.update)(gradients, optimizer.init(params), params)
    blocks = updates["decoder"]["coarse"]["blocks"]
    for kernel in np.asarray(blocks["up"]["kernel"]):
        lengths = np.linalg.svd(kernel, compute_uv=False)
        assert lengths[0] < 2 * lengths[-1]
        assert np.sqrt(np.mean(kernel**2)) == pytest.approx(0.2 * RATE, rel=0.3)
    # Adam's first step is as long in every parameter; optax has Nesterov's momentum in it, too.
    first = RATE * (1 + beta1 / (1 + beta1))
    np.testing.assert_allclose(np.abs(blocks["depthwise"]["kernel"]), first, rtol=1e-2)
    np.testing.assert_allclose(np.abs(updates["decoder"]["embed"]["bias"]), first, rtol=1e-2)


def test_a_published_recipe_refuses_it():
    config = resolve(codec_recipes.get_config("encodec"))
    with pytest.raises(ConfigError, match="trained with adamw"):
        recipe_stage.make_optimizers(with_muon(config))
