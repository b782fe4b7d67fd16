"""Rows split over the mesh axis `context`: every device has the same work, and attention is that of one device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omni_jax.config import MeshConfig
from omni_jax.nn import row_attention
from omni_jax.nn.attention import attend, segment_mask
from omni_jax.parallel.context import balanced_order
from omni_jax.parallel.mesh import make_mesh

LENGTH = 512


@pytest.mark.parametrize("devices", [2, 4])
def test_every_device_sees_as_many_keys(devices):
    order = balanced_order(64, devices)
    assert sorted(order) == list(range(64))
    assert len({int(part.sum()) for part in order.reshape(devices, -1)}) == 1


@pytest.mark.parametrize("kernel", ["splash", "blocks"])
def test_attention_over_context_is_that_of_one_device(kernel, monkeypatch):
    """The splash kernel is interpreted here."""
    monkeypatch.setattr(row_attention, "can_splash", lambda q: kernel == "splash")
    keys = jax.random.split(jax.random.key(0), 4)
    q, k, v = (jax.random.normal(key, (2, LENGTH, heads, 128)) for key, heads in zip(keys, (2, 1, 1), strict=False))
    segments = jnp.array([[1] * 300 + [2] * 212, [1] * 500 + [0] * 12])
    cotangent = jax.random.normal(keys[3], q.shape) * (segments > 0)[..., None, None]
    order = balanced_order(LENGTH, 2)

    def whole(q, k, v):
        return jnp.sum(cotangent * attend(q, k, v, segment_mask(segments, segments, jnp.arange(LENGTH), True, None)))

    def split(q, k, v):
        q, k, v, row_segments = (part[:, order] for part in (q, k, v, segments))
        return jnp.sum(cotangent[:, order] * row_attention.attend_rows(q, k, v, row_segments))

    expected = jax.value_and_grad(whole, (0, 1, 2))(q, k, v)
    with jax.set_mesh(make_mesh(MeshConfig(fsdp=2, context=2), jax.devices()[:4])):
        found = jax.jit(jax.value_and_grad(split, (0, 1, 2)))(q, k, v)
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert np.linalg.norm(ours - theirs) <= 2e-5 * np.linalg.norm(theirs)
