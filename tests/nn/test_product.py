"""Gradients of a product in the weight's own orientation are those of JAX's rule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omni_jax.nn.product import product


@pytest.mark.parametrize(
    ("x", "w", "contracted"), [((2, 3, 4), (4, 5), 1), ((2, 3, 4), (4, 5, 6), 1), ((2, 3, 4, 5), (4, 5, 6), 2)]
)
def test_value_and_gradients(x, w, contracted):
    keys = jax.random.split(jax.random.key(0), 3)
    x, w = jax.random.normal(keys[0], x), jax.random.normal(keys[1], w)
    want, want_vjp = jax.vjp(lambda x, w: jnp.tensordot(x, w, contracted), x, w)
    got, got_vjp = jax.vjp(lambda x, w: product(x, w, contracted), x, w)
    cotangent = jax.random.normal(keys[2], want.shape)
    for ours, theirs in zip((got, *got_vjp(cotangent)), (want, *want_vjp(cotangent)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_gradients_keep_the_dtype():
    x, w = jnp.ones((2, 3, 4), jnp.bfloat16), jnp.ones((4, 5), jnp.bfloat16)
    gradients = jax.grad(lambda x, w: product(x, w).astype(jnp.float32).sum(), (0, 1))(x, w)
    assert [g.dtype for g in gradients] == [jnp.bfloat16] * 2
