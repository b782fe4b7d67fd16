"""Beam search through residual codebooks: greedy with one path, the best there is with enough of them."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from omni_jax.nn.code_search import search_codes
from omni_jax.nn.quantize import dequantize, quantize


def _problem(num_codebooks, num_codes, dim=6, length=40):
    keys = jax.random.split(jax.random.key(3), 2)
    scales = 0.6 ** jnp.arange(num_codebooks)[:, None, None]
    codebooks = scales * jax.random.normal(keys[0], (num_codebooks, num_codes, dim))
    return jax.random.normal(keys[1], (2, length, dim)), codebooks


def _errors(latents, codebooks, codes):
    return jnp.sum((latents - dequantize(codes, codebooks)) ** 2, axis=-1)


def test_one_path_takes_the_nearest_code_of_every_level():
    latents, codebooks = _problem(4, 16)
    np.testing.assert_array_equal(search_codes(latents, codebooks, 1), quantize(latents, codebooks).codes)


def test_with_every_beginning_kept_nothing_is_closer():
    latents, codebooks = _problem(3, 5)
    every = jnp.array(list(itertools.product(range(5), repeat=3)))
    sums = sum(codebook[index] for codebook, index in zip(codebooks, every.T))
    best = jnp.min(jnp.sum((latents[:, :, None] - sums[None, None]) ** 2, axis=-1), axis=-1)
    found = _errors(latents, codebooks, search_codes(latents, codebooks, 25))
    np.testing.assert_allclose(found, best, rtol=1e-5)
    assert float(jnp.mean(found)) < 0.97 * float(
        jnp.mean(_errors(latents, codebooks, quantize(latents, codebooks).codes))
    )


def test_more_paths_than_there_are_beginnings():
    latents, codebooks = _problem(2, 3)
    np.testing.assert_array_equal(search_codes(latents, codebooks, 100), search_codes(latents, codebooks, 9))
