"""Keys and values of a decoding model on a mesh."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from models.tiny import MODEL

from omni_jax.config import MeshConfig
from omni_jax.models import language, omni
from omni_jax.nn.cache import init_cache
from omni_jax.parallel.mesh import make_mesh
from omni_jax.parallel.sharding import batch_sharding, param_shardings

MESH = MeshConfig(data=2, fsdp=2, tensor=2)
TEXT_MODEL = dataclasses.replace(MODEL, text_only=True)


def test_rows_and_heads_of_a_cache_are_split():
    mesh = make_mesh(MESH)
    with jax.set_mesh(mesh):
        cache = jax.jit(lambda: init_cache(3, 8, 2, 6, (2, 4), jnp.float32))()
    wanted = NamedSharding(mesh, PartitionSpec(None, ("data", "fsdp", "expert"), None, "tensor"))
    for held in (cache.keys, cache.values):
        assert held.sharding.is_equivalent_to(wanted, held.ndim)


def test_a_mesh_says_what_one_device_says():
    params = jax.jit(omni.init_params, static_argnums=0)(TEXT_MODEL, jax.random.key(0))
    prompt = jax.random.randint(jax.random.key(1), (8, 5), 0, MODEL.vocab_size)
    alone = language.greedy(TEXT_MODEL, params, prompt, 6)
    mesh = make_mesh(MESH)
    params = jax.device_put(params, param_shardings(mesh, omni.param_axes(TEXT_MODEL)))
    with jax.set_mesh(mesh):
        together = language.greedy(TEXT_MODEL, params, jax.device_put(prompt, batch_sharding(mesh)), 6)
    assert len(np.unique(alone)) > 1
    np.testing.assert_array_equal(together, alone)
