"""Quantiser dropout, factorised cosine codes and FSQ: against loops, their gradients, and 8 devices against one."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from omni_jax.nn import fsq
from omni_jax.nn.factorised import Factors, quantize_factorised
from omni_jax.nn.quantize import (
    QuantizerState,
    draw_active_levels,
    ema_update,
    quantize,
    quantize_with_dropout,
)

CODEBOOKS = jax.random.normal(jax.random.key(0), (3, 16, 4)) * jnp.array([1.0, 0.5, 0.25])[:, None, None]
LATENTS = jax.random.normal(jax.random.key(1), (8, 6, 4))
NUM_ACTIVE = jnp.array([1, 2, 3, 1, 3, 3, 2, 1])
STATE = QuantizerState(jnp.full((3, 16), 1 / 16), CODEBOOKS / 16)
FACTORS = Factors(
    *(
        jax.random.normal(key, shape)
        for key, shape in zip(
            jax.random.split(jax.random.key(2), 5), [(3, 16, 2), (3, 4, 2), (3, 2), (3, 2, 4), (3, 4)], strict=True
        )
    )
)


def test_a_row_uses_its_first_codebooks():
    dropped = jax.jit(quantize_with_dropout)(LATENTS, CODEBOOKS, NUM_ACTIVE)
    for count in (1, 2, 3):
        alone = jax.jit(quantize)(LATENTS, CODEBOOKS[:count])
        rows = np.flatnonzero(count == NUM_ACTIVE)
        np.testing.assert_allclose(dropped.vectors[rows], alone.vectors[rows], atol=1e-6)
        np.testing.assert_array_equal(dropped.codes[rows, :, :count], alone.codes[rows])


def test_all_codebooks_active_is_no_dropout():
    dropped = jax.jit(quantize_with_dropout)(LATENTS, CODEBOOKS, jnp.full(8, 3))
    plain = jax.jit(quantize)(LATENTS, CODEBOOKS)
    for name in ("codes", "vectors", "first", "commit_loss", "residuals"):
        np.testing.assert_allclose(getattr(dropped, name), getattr(plain, name), atol=1e-6)
    key = jax.random.key(0)  # a decay at which no code dies, so that no random vector is drawn
    update = jax.jit(ema_update)
    for a, b in zip(update(STATE, dropped, 0.99, key), update(STATE, plain, 0.99, key)):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_statistics_count_only_what_a_level_quantised():
    dropped = jax.jit(quantize_with_dropout)(LATENTS, CODEBOOKS, jnp.ones(8, jnp.int32))
    new = jax.jit(ema_update)(STATE, dropped, 0.5, jax.random.key(0))
    np.testing.assert_array_equal(new.usage[1:], STATE.usage[1:])  # nobody reached levels 1 and 2
    np.testing.assert_array_equal(new.sums[1:], STATE.sums[1:])
    assert np.abs(new.usage[0] - STATE.usage[0]).max() > 1e-3


def test_dropout_draws_its_share():
    counts = draw_active_levels(jax.random.key(0), 4000, 8, 0.5)
    assert counts.min() == 1 and counts.max() == 8
    assert np.mean(counts == 8) == pytest.approx(0.5 + 0.5 / 8, abs=0.03)
    assert (draw_active_levels(jax.random.key(0), 100, 8, 0.0) == 8).all()


def on_all_devices(function, *batches):
    mesh = Mesh(np.array(jax.devices()), ("data",))
    return jax.jit(function)(*jax.device_put(batches, NamedSharding(mesh, PartitionSpec("data"))))


def test_eight_devices_give_the_codebooks_of_one():
    def update(latents, num_active):
        quantized = quantize_with_dropout(latents, CODEBOOKS, num_active)
        return ema_update(STATE, quantized, 0.2, jax.random.key(3))  # a low decay: codes die and are drawn anew

    def factorised_gradient(latents, num_active):
        def loss(factors):
            out = quantize_factorised(latents, factors, num_active)
            return jnp.mean(out.vectors**2) + out.commit_loss + out.codebook_loss

        return jax.grad(loss)(FACTORS)

    for function in (update, factorised_gradient):
        single, sharded = jax.jit(function)(LATENTS, NUM_ACTIVE), on_all_devices(function, LATENTS, NUM_ACTIVE)
        for a, b in zip(single, sharded):
            np.testing.assert_allclose(a, b, atol=1e-5)


def test_factorised_codes_are_the_nearest_directions():
    out = jax.jit(quantize_factorised)(LATENTS, FACTORS)
    residual, total = np.asarray(LATENTS), 0.0
    for q in range(3):
        projected = residual @ FACTORS.in_kernel[q] + FACTORS.in_bias[q][None, None]
        book = FACTORS.codebooks[q]
        cosine = jnp.einsum("btd,kd->btk", projected, book) / jnp.linalg.norm(book, axis=-1)[None, None]
        np.testing.assert_array_equal(out.codes[..., q], jnp.argmax(cosine, -1))
        step = book[out.codes[..., q]] @ FACTORS.out_kernel[q] + FACTORS.out_bias[q][None, None]
        residual, total = residual - step, total + step
    np.testing.assert_allclose(out.vectors, total, atol=1e-5)


def test_factorised_losses_move_each_side_alone():
    commit = jax.jit(jax.grad(lambda f: quantize_factorised(LATENTS, f).commit_loss))(FACTORS)
    codebook = jax.jit(jax.grad(lambda f: quantize_factorised(LATENTS, f).codebook_loss))(FACTORS)
    assert not np.asarray(commit.codebooks).any() and np.asarray(commit.in_kernel).any()
    assert np.asarray(codebook.codebooks).any()
    assert not np.asarray(codebook.in_kernel[-1]).any()  # the last level's projection has no later level to reach


@pytest.mark.parametrize("levels", [(3, 5), (4, 2, 3), (8, 5, 5)])
def test_fsq_is_the_nearest_code_of_its_grid(levels):
    """Which is rounding each dimension; all codes are reached, each with a vector of its own."""
    vectors = fsq.grid(levels)
    assert len({tuple(row) for row in vectors}) == fsq.num_codes(levels) and np.abs(vectors).max() <= 1.0
    spread = jnp.stack(jnp.meshgrid(*[jnp.linspace(-4, 4, 25)] * len(levels)), -1).reshape(1, -1, len(levels))
    found = quantize(fsq.bounded(spread, levels), jnp.asarray(fsq.product_codebooks(levels, 1)))
    assert set(np.unique(found.codes)) == set(range(len(vectors)))
    rounded = jnp.round(fsq.bound(spread, levels)) / np.array([count // 2 for count in levels])[None, None]
    np.testing.assert_allclose(found.vectors, rounded, atol=1e-6)


def test_fsq_codes_have_dimensions_of_their_own():
    levels = (5, 4)
    latents = jax.random.normal(jax.random.key(0), (2, 3, 6))
    bounded = fsq.bounded(latents, 3 * levels)
    found = quantize(bounded, jnp.asarray(fsq.product_codebooks(levels, 3)))
    alone = [fsq.bounded(part, levels) for part in jnp.split(latents, 3, axis=-1)]
    for q, part in enumerate(alone):
        book = jnp.asarray(fsq.product_codebooks(levels, 1))
        np.testing.assert_array_equal(found.codes[..., q], quantize(part, book).codes[..., 0])


def test_fsq_gradient_goes_straight_through():
    levels, x = (5, 4), jnp.array([[[0.3, -0.2]]])
    book = jnp.asarray(fsq.product_codebooks(levels, 1))
    gradient = jax.grad(lambda x: jnp.sum(quantize(fsq.bounded(x, levels), book).vectors))(x)
    smooth = jax.grad(lambda x: jnp.sum(fsq.bounded(x, levels)))(x)
    np.testing.assert_allclose(gradient, smooth, atol=1e-6)
    assert all(value > 0 for value in itertools.chain(*gradient[0].tolist()))
