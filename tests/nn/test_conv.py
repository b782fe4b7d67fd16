"""Causal convolutions: streaming equals offline over a grid of kernels, strides and chunks; rows are independent."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from omni_jax.nn.conv import CausalConv, CausalDepthwiseConv, ConvNeXtStack, depthwise_causal, select_rows

STREAMING_TOLERANCE = 1e-6


def run_in_chunks(layer, x, chunk):
    state, outputs = layer.init_state(x.shape[0]), []
    for start in range(0, x.shape[1], chunk):
        y, state = layer(x[:, start : start + chunk], state)
        outputs.append(y)
    return jnp.concatenate(outputs, axis=1)


def assert_streaming_is_offline(layer, x, chunk):
    offline, _ = layer(x, layer.init_state(x.shape[0]))
    np.testing.assert_allclose(run_in_chunks(layer, x, chunk), offline, rtol=1e-5, atol=STREAMING_TOLERANCE)


@pytest.mark.parametrize("kernel_size", [1, 3, 8])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("chunk", [1, 4])
def test_dense_streaming_is_offline(kernel_size, stride, chunk):
    if kernel_size < stride:
        with pytest.raises(ValueError, match="below stride"):
            CausalConv(3, 5, kernel_size, stride, rngs=nnx.Rngs(0))
        return
    layer = CausalConv(3, 5, kernel_size, stride, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(1), (2, 4 * stride, 3))
    assert_streaming_is_offline(layer, x, chunk * stride)


@pytest.mark.parametrize("chunk", [1, 2, 6])
def test_convnext_streaming_is_offline(chunk):
    layer = ConvNeXtStack(3, 8, 16, 7, rngs=nnx.Rngs(0))
    assert_streaming_is_offline(layer, jax.random.normal(jax.random.key(1), (2, 12, 8)), chunk)


def test_depthwise_is_the_grouped_convolution():
    x = jax.random.normal(jax.random.key(0), (2, 9, 4))
    kernel = jax.random.normal(jax.random.key(1), (5, 4))
    ours, past = depthwise_causal(x, kernel, jnp.zeros((2, 4, 4)))
    reference = jax.lax.conv_general_dilated(
        x, kernel[:, None], (1,), [(4, 0)], dimension_numbers=("NHC", "HIO", "NHC"), feature_group_count=4
    )
    np.testing.assert_allclose(ours, reference, atol=1e-5)
    np.testing.assert_array_equal(past, x[:, -4:])


def test_no_output_depends_on_a_later_input():
    layer = CausalConv(1, 1, 4, 2, rngs=nnx.Rngs(0))
    x = jnp.zeros((1, 8, 1))
    before, _ = layer(x, layer.init_state(1))
    after, _ = layer(x.at[0, 5].set(1.0), layer.init_state(1))
    changed = np.asarray(before != after)[0, :, 0]
    assert not changed[:2].any() and changed[2] and changed[3]


def test_ragged_chunk_is_an_error():
    layer = CausalConv(1, 1, 2, 2, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="3 frames are not a multiple of stride=2"):
        layer(jnp.zeros((1, 3, 1)), layer.init_state(1))


def test_masked_row_keeps_its_state():
    layer = CausalDepthwiseConv(2, 3, rngs=nnx.Rngs(0))
    old = jax.random.normal(jax.random.key(0), (2, 2, 2))
    _, new = layer(jnp.ones((2, 1, 2)), old)
    kept = select_rows(jnp.array([True, False]), {"conv": new}, {"conv": old})["conv"]
    np.testing.assert_array_equal(kept[0], new[0])
    np.testing.assert_array_equal(kept[1], old[1])
