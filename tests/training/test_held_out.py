"""The loss on held-out batches: the training's own loss, on the same batches every time."""

import dataclasses
from functools import partial

import jax
import numpy as np
import pytest

from omni_jax.config import MeshConfig
from omni_jax.models import omni
from omni_jax.parallel.mesh import make_mesh
from omni_jax.training.held_out import NUM_BATCHES, HeldOut
from omni_jax.training.step import batch_loss
from tests.training.batches import RepeatingLoader, small_config

SHARDED_TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def setup():
    config = small_config(codes_dropout=0.5)
    params = jax.jit(partial(omni.init_params, config.model))(jax.random.key(0))
    return config, params


def held_out(config, devices=1):
    mesh = make_mesh(config.mesh, jax.devices()[:devices])
    return HeldOut(config, mesh, lambda: Batches(config))


class Batches(RepeatingLoader):
    def close(self):
        pass


def test_it_is_the_mean_of_the_training_loss_without_dropped_codes(setup):
    config, params = setup
    found = held_out(config)(params)
    loader, loss = RepeatingLoader(config), jax.jit(partial(batch_loss, config))
    expected = [loss(params, next(loader))[0] for _ in range(NUM_BATCHES)]
    np.testing.assert_allclose(found["held_out/loss"], np.mean(expected), rtol=1e-5)
    assert found["held_out/text"] > 0


def test_the_same_parameters_give_the_same_numbers_on_any_mesh(setup):
    config, params = setup
    evaluate = held_out(config)
    first = evaluate(params)
    assert evaluate(params) == first
    sharded = held_out(dataclasses.replace(config, mesh=MeshConfig(data=2, fsdp=2)), devices=4)(params)
    assert sharded == pytest.approx(first, rel=SHARDED_TOLERANCE)
