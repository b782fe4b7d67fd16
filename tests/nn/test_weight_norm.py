"""Grouped convolutions, which the CPU computes group by group."""

import jax
import numpy as np

from omni_jax.nn.weight_norm import convolve, geometry


def test_groups_one_by_one_are_the_grouped_convolution():
    x = jax.random.normal(jax.random.key(0), (2, 40, 8))
    kernel = jax.random.normal(jax.random.key(1), (5, 2, 12))
    want = jax.lax.conv_general_dilated(
        x, kernel, (2,), [(2, 2)], dimension_numbers=("NHC", "HIO", "NHC"), feature_group_count=4
    )
    np.testing.assert_allclose(convolve(x, kernel, geometry((5,), (2,), None, 4)), want, rtol=1e-5, atol=1e-5)
