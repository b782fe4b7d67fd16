import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omni_jax.nn.grouped_matmul import grouped_matmul, mosaic_matmul

CLOSE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.mark.parametrize("transposed", [False, True])
def test_the_mosaic_kernel_equals_ragged_dot_with_gradients(transposed):
    x = jax.random.normal(jax.random.key(0), (128, 128))
    w = jax.random.normal(jax.random.key(1), (3, 128, 128)) / 12
    sizes = jnp.asarray([50, 0, 78], jnp.int32)

    def value_and_gradients(product):
        return jax.value_and_grad(lambda x, w: jnp.sum(jnp.sin(product(x, w))), argnums=(0, 1))(x, w)

    ours = value_and_gradients(lambda x, w: mosaic_matmul(x, w, sizes, transposed, True))
    expected = value_and_gradients(lambda x, w: grouped_matmul(x, w, sizes, transposed=transposed))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **CLOSE), ours, expected)
