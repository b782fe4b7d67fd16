import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omni_jax.nn.attention import attend, segment_mask
from omni_jax.nn.banded import attend_banded

EXACT = 1e-5


@pytest.mark.parametrize("length, window", [(12, 4), (13, 5), (7, 10), (9, 1)])
def test_equals_masked_attention_with_gradients(length, window):
    keys = jax.random.split(jax.random.key(length), 3)
    q, k, v = (jax.random.normal(key, (2, length, heads, 8)) for key, heads in zip(keys, (4, 2, 2), strict=True))
    segments = jnp.asarray([[1] * (length // 2) + [2] * (length - length // 2), [1] * (length - 2) + [0] * 2])

    def banded(q, k, v):
        return jnp.sum(jnp.sin(attend_banded(q, k, v, segments, window)))

    def masked(q, k, v):
        return jnp.sum(jnp.sin(attend(q, k, v, segment_mask(segments, segments, jnp.arange(length), True, window))))

    for a, b in zip(*(jax.grad(f, argnums=(0, 1, 2))(q, k, v) for f in (banded, masked)), strict=True):
        np.testing.assert_allclose(a, b, atol=EXACT)
    np.testing.assert_allclose(banded(q, k, v), masked(q, k, v), rtol=EXACT)
