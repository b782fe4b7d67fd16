"""Experts on a mesh: rows that travel to their experts and back give what one device computes, with gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omni_jax.config import MeshConfig
from omni_jax.nn.experts import ExpertWeights, mix_experts
from omni_jax.parallel.mesh import make_mesh

ROWS, LENGTH, DIM, WIDTH, EXPERTS, TOP = 8, 4, 8, 4, 4, 2
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, LENGTH, DIM)).astype(np.float32)
    gates = rng.uniform(size=(ROWS, LENGTH, TOP)).astype(np.float32)
    chosen = np.stack([rng.permutation(EXPERTS)[:TOP] for _ in range(ROWS * LENGTH)]).reshape(ROWS, LENGTH, TOP)
    weights = ExpertWeights(*(rng.normal(size=(EXPERTS, DIM, WIDTH), scale=0.4).astype(np.float32) for _ in range(3)))
    return x, gates, chosen.astype(np.int32), weights


def value_and_gradients(inputs, buffer=0.0):
    x, gates, chosen, weights = inputs

    def loss(x, gates, weights):
        y, dropped = mix_experts(x, gates, chosen, weights, buffer)
        return jnp.sum(jnp.square(y)), (y, dropped)

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))(x, gates, weights)


@pytest.fixture(scope="module")
def single(inputs):
    return value_and_gradients(inputs)


@pytest.mark.parametrize("mesh", [MeshConfig(expert=4, fsdp=2), MeshConfig(expert=2, fsdp=2, tensor=2)])
def test_a_mesh_computes_what_one_device_does(inputs, single, mesh):
    with jax.set_mesh(make_mesh(mesh)):
        found = value_and_gradients(inputs)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **CLOSE), found, single)


def test_what_finds_no_room_is_dropped_and_counted(inputs):
    x, gates, chosen, weights = inputs
    crowded = x, gates, np.zeros_like(chosen), weights  # all rows go to the device of expert 0
    with jax.set_mesh(make_mesh(MeshConfig(expert=4, data=2, fsdp=1))):
        (_, (y, dropped)), _ = value_and_gradients(crowded, buffer=2.0)
        (_, (whole, none)), _ = value_and_gradients(crowded)
    assert float(jnp.mean(dropped)) == pytest.approx(0.5)  # of four devices' rows two fit
    assert not np.any(none)
    kept = np.any(np.asarray(y) != 0.0, axis=-1)
    assert kept.mean() == pytest.approx(0.5)
    np.testing.assert_allclose(np.asarray(y)[kept], np.asarray(whole)[kept], **CLOSE)
