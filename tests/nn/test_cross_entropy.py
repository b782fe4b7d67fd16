"""Cross-entropy in chunks against the plain one, on one device and on a mesh that splits rows and vocabulary."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from omni_jax.config import MeshConfig
from omni_jax.nn.cross_entropy import head_nll, heads_nll
from omni_jax.parallel.mesh import make_mesh
from omni_jax.types import Projection

ROWS, LENGTH, DIM, VOCAB = 8, 6, 16, 32
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(ROWS, LENGTH, DIM)).astype(np.float32)
    head = Projection(*(rng.normal(size=shape).astype(np.float32) for shape in ((DIM, VOCAB), (VOCAB,))))
    target = rng.integers(-1, VOCAB, (ROWS, LENGTH)).astype(np.int32)
    weight = rng.uniform(size=(ROWS, LENGTH)).astype(np.float32) * (target >= 0)
    return hidden, head, target, weight


def plain(hidden, head, target):
    logits = hidden @ head.matrix + head.bias[None, None]
    log_z = jax.nn.logsumexp(logits, axis=-1)
    return log_z - jnp.take_along_axis(logits, jnp.maximum(target, 0)[..., None], axis=-1)[..., 0], log_z


def value_and_gradients(function, inputs):
    hidden, head, target, weight = inputs

    def loss(hidden, head):
        nll, log_z = function(hidden, head, target)
        return jnp.sum(weight * (nll + 0.1 * jnp.square(log_z)))

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(hidden, head)


@pytest.mark.parametrize("chunk_logits", [1, 7 * VOCAB, 10**6])
def test_equals_the_plain_one(inputs, chunk_logits):
    ours = value_and_gradients(lambda *arrays: head_nll(*arrays, chunk_logits), inputs)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **CLOSE), ours, value_and_gradients(plain, inputs))


@pytest.mark.parametrize("mesh", [MeshConfig(tensor=4), MeshConfig(data=2, expert=2, context=2, fsdp=1)])
def test_equals_the_plain_one_on_a_mesh(inputs, mesh):
    with jax.set_mesh(make_mesh(mesh)):
        ours = value_and_gradients(lambda *arrays: head_nll(*arrays, 3 * VOCAB), inputs)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **CLOSE), ours, value_and_gradients(plain, inputs))


def test_never_holds_all_logits(inputs):
    text = str(jax.make_jaxpr(lambda *x: value_and_gradients(lambda *a: head_nll(*a, 4 * VOCAB), x))(*inputs))
    assert f"f32[4,{VOCAB}]" in text
    assert f"f32[{ROWS * LENGTH},{VOCAB}]" not in text
    assert f"f32[{ROWS * LENGTH // 4},4,{VOCAB}]" not in text


def test_one_chunk_keeps_its_logits(inputs):
    def products(chunk_logits):
        run = jax.make_jaxpr(lambda *x: value_and_gradients(lambda *a: head_nll(*a, chunk_logits), x))
        return str(run(*inputs)).count("dot_general[")

    assert (products(4 * VOCAB), products(10**6)) == (4, 3)


CODEBOOKS = 3


@pytest.fixture(scope="module")
def codes():
    rng = np.random.default_rng(1)
    hidden = rng.normal(size=(ROWS, LENGTH, CODEBOOKS, DIM)).astype(np.float32)
    heads = rng.normal(size=(CODEBOOKS, DIM, VOCAB)).astype(np.float32)
    target = rng.integers(-1, VOCAB, (ROWS, LENGTH, CODEBOOKS)).astype(np.int32)
    weight = rng.uniform(size=target.shape).astype(np.float32) * (target >= 0)
    return hidden, heads, target, weight


def plain_heads(hidden, heads, target):
    logits = jax.nn.log_softmax(jnp.einsum("bnqw,qwk->bnqk", hidden, heads))
    return -jnp.take_along_axis(logits, jnp.maximum(target, 0)[..., None], axis=-1)[..., 0]


def codes_value_and_gradients(function, codes):
    hidden, heads, target, weight = codes
    loss = lambda hidden, heads: jnp.sum(weight * function(hidden, heads, target))  # noqa: E731
    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(hidden, heads)


@pytest.mark.parametrize("chunk_logits", [1, 7 * CODEBOOKS * VOCAB, 10**6])
def test_codebooks_equal_the_plain_ones(codes, chunk_logits):
    ours = codes_value_and_gradients(lambda *arrays: heads_nll(*arrays, chunk_logits), codes)
    plain = codes_value_and_gradients(plain_heads, codes)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **CLOSE), ours, plain)


@pytest.mark.parametrize("mesh", [MeshConfig(tensor=4), MeshConfig(data=2, expert=2, context=2, fsdp=1)])
def test_codebooks_equal_the_plain_ones_on_a_mesh(codes, mesh):
    with jax.set_mesh(make_mesh(mesh)):
        ours = codes_value_and_gradients(lambda *arrays: heads_nll(*arrays, 9 * VOCAB), codes)
    plain = codes_value_and_gradients(plain_heads, codes)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **CLOSE), ours, plain)


def test_never_holds_the_logits_of_all_codebooks(codes):
    run = lambda *x: codes_value_and_gradients(lambda *a: heads_nll(*a, 12 * VOCAB), x)  # noqa: E731
    sizes = {math.prod(aval.shape) for aval in all_avals(jax.make_jaxpr(run)(*codes).jaxpr)}
    assert 4 * VOCAB in sizes  # four positions of one codebook
    assert max(sizes) < ROWS * LENGTH * CODEBOOKS * VOCAB


def test_one_codebook_alone_has_no_others_to_learn(codes):
    hidden, heads, target, _ = codes
    assert heads_nll(hidden[:, :, :0], heads[:0], target[:, :, :0]).shape == (ROWS, LENGTH, 0)


def all_avals(jaxpr):
    """Of every value in it, programs inside programs included."""
    for equation in jaxpr.eqns:
        yield from (value.aval for value in equation.outvars)
        for inner in jaxprs_in_params(equation.params):
            yield from all_avals(inner)
