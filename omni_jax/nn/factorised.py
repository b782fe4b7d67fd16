"""Training with DAC's factorised codes (arXiv:2306.06546, section 3.2): gradients move the codebooks, no statistics.

Each level projects the residual to a few dimensions, picks the codebook entry in the most similar direction and
projects it back. The straight-through gradient passes through every level's projections, on purpose: they are trained
by it.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from omni_jax.nn.quantize import nearest_code


class Factors(NamedTuple):
    """Codebooks and projections of all levels."""

    codebooks: Float[Array, "Q K d"]
    in_kernel: Float[Array, "Q D d"]
    in_bias: Float[Array, "Q d"]
    out_kernel: Float[Array, "Q d D"]
    out_bias: Float[Array, "Q D"]


class Factorised(NamedTuple):
    codes: Int[Array, "B T Q"]
    vectors: Float[Array, "B T D"]
    commit_loss: Float[Array, ""]  # pulls latents to their codes; summed over levels, as published
    codebook_loss: Float[Array, ""]  # pulls codes to their latents


def unit(x: Float[Array, "R D"]) -> Float[Array, "R D"]:
    """Rows of length 1. Zero rows stay zero, and have a gradient."""
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(jnp.square(x), axis=-1, keepdims=True), 1e-24))


def quantize_factorised(
    latents: Float[Array, "B T D"], factors: Factors, num_active: Int[Array, " B"] | None = None
) -> Factorised:
    """All levels; a row uses the first `num_active` of them, and None means all.

    Like the published code, later levels of such a row still see the residual, but neither add to the output nor to the
    losses.
    """
    batch, length, dim = latents.shape
    num_levels = factors.codebooks.shape[0]
    rows = jnp.full(batch, num_levels) if num_active is None else num_active
    active = jnp.arange(num_levels)[:, None] < jnp.repeat(rows, length)[None]

    def level(carry: tuple[Array, Array], part: tuple[Factors, Array]) -> tuple[tuple[Array, Array], tuple]:
        residual, total = carry
        vectors, codes, losses = _level(residual, *part)
        total = total + jnp.where(part[1][:, None], vectors, 0.0)
        return (residual - vectors, total), (codes, *losses)

    flat = latents.reshape(-1, dim)
    start = (flat, jnp.zeros_like(flat))
    (_, total), (codes, commit, codebook) = jax.lax.scan(level, start, (factors, active))
    return Factorised(
        codes.T.reshape(batch, length, -1), total.reshape(latents.shape), jnp.sum(commit), jnp.sum(codebook)
    )


def _level(
    residual: Float[Array, "R D"], factors: Factors, active: Bool[Array, " R"]
) -> tuple[Float[Array, "R D"], Int[Array, " R"], tuple[Float[Array, ""], Float[Array, ""]]]:
    projected = residual @ factors.in_kernel + factors.in_bias[None]
    codes = nearest_code(unit(projected), unit(factors.codebooks))
    chosen = factors.codebooks[codes]
    constant = jax.lax.stop_gradient
    commit = jnp.mean(jnp.mean(jnp.square(projected - constant(chosen)), axis=-1) * active)
    codebook = jnp.mean(jnp.mean(jnp.square(chosen - constant(projected)), axis=-1) * active)
    through = projected + constant(chosen - projected)
    return through @ factors.out_kernel + factors.out_bias[None], codes, (commit, codebook)
