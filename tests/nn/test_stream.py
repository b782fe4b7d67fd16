"""Streaming equals offline: the grid of single convolutions, causal and centred, and stacks that wait for each other.

The whole grid runs with OMNI_JAX_SLOW=1; by default each kernel meets some strides once, dilations and chunks in turn.
"""

import functools
import itertools
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from omni_jax.nn.lstm import LSTM
from omni_jax.nn.stream import Activation, Conv, ConvTranspose, DepthwiseConvTranspose, Window, centred
from omni_jax.nn.stream_chain import Chain, Residual

ONE_LAYER_TOLERANCE = 1e-6  # relative to the largest value
KERNELS, STRIDES, DILATIONS, CHUNKS = (1, 3, 4, 7, 8, 15, 16), range(1, 10), (1, 3, 9), (1, 2, 8)
EVERYTHING = list(itertools.product(KERNELS, STRIDES, DILATIONS, CHUNKS))
SOME_STRIDES = (1, 2, 3, 5, 8)
IN_TURN = [
    (k, s, DILATIONS[i % 3], CHUNKS[(i // 3) % 3]) for i, (k, s) in enumerate(itertools.product(KERNELS, SOME_STRIDES))
]
GRID = EVERYTHING if os.environ.get("OMNI_JAX_SLOW") == "1" else IN_TURN


@functools.partial(jax.jit, static_argnums=(0, 3))
def both_ways(graphdef, params, x, chunk):
    """The offline output, and the stream's in chunks: one program a layer and chunk."""
    layer = nnx.merge(graphdef, params)
    chunks = jnp.moveaxis(x.reshape(x.shape[0], -1, chunk, x.shape[2]), 1, 0)
    _, streamed = jax.lax.scan(lambda state, x: layer.step(x, state)[::-1], layer.init_state(x.shape[0]), chunks)
    return layer(x), jnp.moveaxis(streamed, 0, 1).reshape(x.shape[0], -1, streamed.shape[-1])


def assert_streaming_is_offline(layer, x, chunk, tolerance=ONE_LAYER_TOLERANCE):
    graphdef, params = nnx.split(layer)
    params = jax.tree.map(lambda p: p + 0.1, params)  # biases that would show
    offline, streamed = both_ways(graphdef, params, x, chunk)
    late = layer.delay
    length = min(offline.shape[1], streamed.shape[1] - late)
    assert length > 0
    assert not np.asarray(streamed[:, :late]).any()
    error = np.abs(streamed[:, late : late + length] - offline[:, :length]).max()
    assert error <= tolerance * np.abs(offline).max()


@pytest.mark.parametrize(("kernel_size", "stride", "dilation", "chunk"), GRID)
def test_causal_convolution(kernel_size, stride, dilation, chunk):
    window = Window(kernel_size, stride, dilation)
    x = jax.random.normal(jax.random.key(1), (1, 8 * stride, 2))
    assert_streaming_is_offline(Conv(2, 3, window, rngs=nnx.Rngs(0)), x, chunk * stride)


@pytest.mark.parametrize(("kernel_size", "stride"), [(2, 1), (4, 2), (7, 3), (10, 5), (3, 3)])
@pytest.mark.parametrize("trim", [None, 1])
def test_transposed_convolution(kernel_size, stride, trim):
    layer = ConvTranspose((2, 3), kernel_size, stride, trim, delay=0 if trim is None else 2, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(1), (1, 8, 2))
    if trim is not None:  # the stream's first two elements are what comes before the first
        graphdef, params = nnx.split(layer)
        offline, _ = both_ways(graphdef, params, x[:, 2:], 1)
        _, streamed = both_ways(graphdef, params, x.at[:, :2].set(0.0), 2)
        length = min(offline.shape[1], streamed.shape[1] - layer.delay)
        np.testing.assert_allclose(streamed[:, layer.delay :][:, :length], offline[:, :length], atol=1e-6)
        return
    assert_streaming_is_offline(layer, x, 2)


@pytest.mark.parametrize("window", [centred(7, 3), Window(4, 2, padding=1), Window(10, 5, padding=3), Window(3)])
@pytest.mark.parametrize("late", [False, True])
def test_centred_windows_behind_a_late_layer(window, late):
    """Zero padding in the middle of a network: what lies before the first element must not leak in."""
    rngs = nnx.Rngs(0)
    first = Conv(2, 2, centred(5) if late else Window(5), rngs=rngs)
    stack = Chain([first, Activation(jax.nn.elu, first.delay), Conv(2, 3, window, delay=first.delay, rngs=rngs)])
    x = jax.random.normal(jax.random.key(1), (2, 40, 2))
    assert_streaming_is_offline(stack, x, 10)


def test_a_shortcut_waits_for_its_branch():
    rngs = nnx.Rngs(0)
    first = Conv(2, 4, centred(3, 3), rngs=rngs)
    second = Conv(4, 2, centred(7), delay=first.delay, rngs=rngs)
    block = Residual(2, Chain([first, Activation(jnp.tanh, first.delay), second]))
    assert block.delay == 6
    assert_streaming_is_offline(block, jax.random.normal(jax.random.key(1), (2, 16, 2)), 2)


@pytest.mark.parametrize("layer", [LSTM(3, 2, rngs=nnx.Rngs(0)), DepthwiseConvTranspose(3, 4, 2, rngs=nnx.Rngs(0))])
def test_other_layers(layer):
    assert_streaming_is_offline(layer, jax.random.normal(jax.random.key(1), (2, 8, 3)), 2)


def test_replicated_start_is_each_rows_own():
    layer = Conv(2, 2, Window(4, 2, pad_mode="replicate"), rngs=nnx.Rngs(0))
    assert_streaming_is_offline(layer, jax.random.normal(jax.random.key(1), (2, 8, 2)), 2)


@pytest.mark.parametrize("trim", [None, 2])
def test_transposed_convolution_is_the_textbook_sum(trim):
    layer = ConvTranspose((2, 3), 7, 3, trim, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(1), (1, 5, 2))
    full = np.zeros((4 * 3 + 7, 3))
    for t in range(5):
        full[3 * t : 3 * t + 7] += np.einsum("c,kcd->kd", x[0, t], layer.kernel[...])
    wanted = full[:15] if trim is None else full[2:-2]
    np.testing.assert_allclose(layer(x)[0], wanted, atol=1e-5)


def test_a_kernel_shorter_than_its_stride_sees_the_newest_elements():
    layer = Conv(2, 3, Window(2, 5), rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(1), (1, 15, 2))
    wanted = jnp.einsum("tkc,kcd->td", jnp.stack([x[0, t - 2 : t] for t in (5, 10, 15)]), layer.kernel[...])
    np.testing.assert_allclose(layer(x)[0], wanted, atol=1e-6)
    with pytest.raises(ValueError, match="is below stride=5: want padding=None"):
        Conv(2, 3, Window(2, 5, padding=1), rngs=nnx.Rngs(0))


def test_ragged_chunk_is_an_error():
    layer = Conv(1, 1, Window(4, 2), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="3 steps are not a multiple of stride=2"):
        layer.step(jnp.zeros((1, 3, 1)), layer.init_state(1))
