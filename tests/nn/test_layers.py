import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from omni_jax.nn.causal_conv import DepthwiseConv
from omni_jax.nn.embed import gather_pool, lookup, sum_codes
from omni_jax.nn.mlp import SwiGLU
from omni_jax.nn.param import run_layers, stack_layers

EXACT = 1e-6


def test_depthwise_convolution_stays_in_its_segment_and_in_the_past():
    conv = DepthwiseConv(3, 4, nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (1, 9, 3))
    segments = jnp.asarray([[1] * 4 + [2] * 5], jnp.int32)
    past = jnp.zeros((1, 3, 3))
    packed, _ = conv(x, segments, past)
    alone, _ = conv(x[:, 4:], segments[:, 4:], past)
    np.testing.assert_allclose(packed[:, 4:], alone, atol=EXACT)
    kernel = np.asarray(conv.kernel[...])
    np.testing.assert_allclose(packed[0, 3], (np.asarray(x[0, :4]) * kernel).sum(0), atol=1e-5)


def test_depthwise_convolution_streams():
    conv = DepthwiseConv(3, 4, nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (2, 6, 3))
    ones = jnp.ones((2, 6), jnp.int32)
    whole, end = conv(x, ones, jnp.zeros((2, 3, 3)))
    past, parts = jnp.zeros((2, 3, 3)), []
    for i in range(6):
        part, past = conv(x[:, i : i + 1], ones[:, :1], past)
        parts.append(part)
    np.testing.assert_allclose(jnp.concatenate(parts, axis=1), whole, atol=EXACT)
    np.testing.assert_array_equal(past, end)


@pytest.mark.parametrize("remat", ["none", "minimal", "full"])
def test_scanned_unrolled_and_rematerialised_layers_agree(remat):
    graph, state = nnx.split(stack_layers(lambda rngs: SwiGLU(6, 10, rngs), 3, nnx.Rngs(0)))
    x = jax.random.normal(jax.random.key(0), (2, 4, 6))

    def loss(state, scan, remat):
        layers = nnx.merge(graph, state)
        y, means = run_layers(layers, lambda f, x, _: (x + f(x), jnp.mean(x)), x, remat=remat, scan=scan)
        return jnp.sum(jnp.sin(y)) + jnp.sum(means)

    state = nnx.to_pure_dict(state)
    expected = jax.value_and_grad(loss)(state, False, "none")
    for scan in (True, False):
        got = jax.value_and_grad(loss)(state, scan, remat)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), got, expected)


def test_a_scan_stacks_gradients_in_the_compute_dtype():
    graph, state = nnx.split(stack_layers(lambda rngs: SwiGLU(6, 10, rngs), 3, nnx.Rngs(0)))
    x = jax.random.normal(jax.random.key(0), (2, 4, 6), jnp.bfloat16)

    def loss(state, dtype):
        y, _ = run_layers(nnx.merge(graph, state), lambda f, x, _: (x + f(x), None), x, remat="full", dtype=dtype)
        return jnp.sum(y.astype(jnp.float32))

    state = nnx.to_pure_dict(state)
    narrow, wide = (jax.grad(loss)(state, dtype) for dtype in (jnp.bfloat16, None))
    jax.tree.map(np.testing.assert_array_equal, narrow, wide)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(narrow))
    program = jax.make_jaxpr(jax.grad(lambda state: loss(state, jnp.bfloat16)))(state)
    scans = [equation for equation in program.eqns if equation.primitive.name == "scan"]
    stacked = [out.aval for scan in scans for out in scan.outvars if out.aval.shape == (3, 6, 10)]
    assert [aval.dtype for aval in stacked] == [jnp.bfloat16] * 2


def test_layers_of_a_stack_differ():
    layers = stack_layers(lambda rngs: SwiGLU(6, 10, rngs), 2, nnx.Rngs(0))
    kernel = np.asarray(layers.gate.kernel[...])
    assert kernel.shape == (2, 6, 10)
    assert not np.allclose(kernel[0], kernel[1])


def test_absent_contributes_zero():
    table = jnp.arange(12.0).reshape(2, 3, 2) + 1
    np.testing.assert_array_equal(lookup(table[0], jnp.asarray([-1, 2])), [[0, 0], [5, 6]])
    codes = jnp.asarray([[[0, -1], [2, 1], [-1, -1]]])
    np.testing.assert_array_equal(sum_codes(table, codes), [[[1, 2], [5 + 9, 6 + 10], [0, 0]]])


def test_rows_gather_from_their_own_group():
    pool = jnp.asarray([[[1.0], [2.0]], [[3.0], [4.0]]])
    index = jnp.asarray([[0, -1], [1, 1], [0, 1], [-1, 0]])
    np.testing.assert_array_equal(gather_pool(pool, index)[..., 0], [[1, 0], [2, 2], [3, 4], [0, 3]])
