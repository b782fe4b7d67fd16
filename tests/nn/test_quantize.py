"""Residual quantisation against brute force, its gradients, and the life of the codebooks."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from omni_jax.nn.quantize import (
    QuantizerState,
    dequantize,
    ema_update,
    kmeans,
    kmeans_codebooks,
    nearest_code,
    perplexity,
    quantize,
)

CODEBOOKS = jax.random.normal(jax.random.key(0), (3, 16, 4)) * jnp.array([1.0, 0.5, 0.25])[:, None, None]
LATENTS = jax.random.normal(jax.random.key(1), (2, 8, 4))


def uniform_state(codebooks):
    usage = jnp.full(codebooks.shape[:2], 1 / codebooks.shape[1])
    return QuantizerState(usage, codebooks * usage[..., None])


def test_codes_are_the_nearest_of_each_residual():
    quantized = quantize(LATENTS, CODEBOOKS)
    residual = np.asarray(LATENTS, np.float64)
    for level, codebook in enumerate(np.asarray(CODEBOOKS, np.float64)):
        codes = np.square(residual[:, :, None] - codebook).sum(-1).argmin(-1)
        np.testing.assert_array_equal(quantized.codes[..., level], codes)
        residual = residual - codebook[codes]
    np.testing.assert_allclose(quantized.vectors, LATENTS - residual, atol=1e-5)


def test_dequantize_gives_the_quantised_vectors():
    quantized = quantize(LATENTS, CODEBOOKS)
    np.testing.assert_allclose(dequantize(quantized.codes, CODEBOOKS), quantized.vectors, atol=1e-5)


def test_straight_through_gradient_is_the_identity():
    gradient = jax.grad(lambda x: jnp.sum(quantize(x, CODEBOOKS).vectors * 3.0))(LATENTS)
    np.testing.assert_allclose(gradient, 3.0)


def test_commit_gradient_carries_no_straight_through_term():
    """d/dx of the mean over levels of |residual - code|^2 with constant codes: the sum of the remainders."""
    gradient = jax.grad(lambda x: quantize(x, CODEBOOKS).commit_loss)(LATENTS)
    residuals, left = quantize(LATENTS, CODEBOOKS).residuals, LATENTS - quantize(LATENTS, CODEBOOKS).vectors
    remainders = jnp.concatenate([residuals[1:], left.reshape(1, -1, 4)])
    expected = jnp.sum(2 * remainders, axis=0).reshape(LATENTS.shape) / (3 * LATENTS.size)
    np.testing.assert_allclose(gradient, expected, atol=1e-6)


def test_no_gradient_reaches_the_codebooks():
    gradient = jax.grad(lambda c: jnp.sum(quantize(LATENTS, c).vectors) + quantize(LATENTS, c).commit_loss)(CODEBOOKS)
    assert not np.asarray(gradient).any()


def test_ema_moves_codes_to_the_mean_of_their_vectors():
    points = jnp.array([[[1.0, 0.0], [3.0, 0.0], [-2.0, 0.0], [-4.0, 0.0]]])
    state = uniform_state(jnp.array([[[1.0, 1.0], [-1.0, 1.0]]]))
    for _ in range(60):
        state = ema_update(state, quantize(points, state.codebooks), 0.8, jax.random.key(0))
    np.testing.assert_allclose(state.codebooks[0], [[2.0, 0.0], [-3.0, 0.0]], atol=1e-3)
    np.testing.assert_allclose(state.usage, 0.5, atol=1e-5)


def test_dead_code_restarts_at_a_vector_of_the_batch():
    far = jnp.array([[[0.0, 0.0], [1.0, 1.0], [900.0, 900.0], [901.0, 900.0]]])
    points = jax.random.uniform(jax.random.key(3), (1, 64, 2))
    state = uniform_state(far)
    for _ in range(40):
        state = ema_update(state, quantize(points, state.codebooks), 0.9, jax.random.key(0))
    assert np.abs(state.codebooks).max() < 2.0
    assert float(perplexity(state.usage)[0]) > 3.0


def test_kmeans_finds_separate_clusters():
    centres = jnp.array([[0.0, 0.0], [8.0, 0.0], [0.0, 8.0], [8.0, 8.0]])
    noise = 0.1 * jax.random.normal(jax.random.key(0), (200, 2))
    points = jnp.tile(centres, (50, 1)) + noise
    spread = min(
        float(jnp.mean(jnp.sum((points - found[assigned]) ** 2, -1)))
        for found, assigned in (kmeans(points, 4, 20, jax.random.key(seed)) for seed in range(5))
    )
    assert spread < 0.03


def test_residual_kmeans_lowers_the_error_level_by_level():
    points = jax.random.normal(jax.random.key(2), (512, 4))
    state = kmeans_codebooks(points, 3, 16, 10, jax.random.key(0))
    errors = [
        float(jnp.mean((points - quantize(points[None], state.codebooks[:n]).vectors[0]) ** 2)) for n in (1, 2, 3)
    ]
    assert errors[0] < 0.6 and errors[1] < 0.6 * errors[0] and errors[2] < 0.6 * errors[1]
    np.testing.assert_allclose(state.usage.sum(-1), 1.0, rtol=1e-5)


def test_statistics_of_a_sharded_batch_are_global():
    mesh = Mesh(np.array(jax.devices()), ("data",))
    state, latents = uniform_state(CODEBOOKS), jax.random.normal(jax.random.key(4), (8, 4, 4))

    def update(state, latents):
        return ema_update(state, quantize(latents, state.codebooks), 0.9, jax.random.key(0))

    single = jax.jit(update)(state, latents)
    sharded = jax.jit(update)(state, jax.device_put(latents, NamedSharding(mesh, PartitionSpec("data"))))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), single, sharded)


def test_nearest_code_prefers_the_closest_not_the_largest():
    assert int(nearest_code(jnp.array([[1.0, 0.0]]), jnp.array([[100.0, 0.0], [0.9, 0.0]]))[0]) == 1
