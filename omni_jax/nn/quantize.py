"""Residual vector quantisation: k-means start, EMA codebooks, dead-code restart, straight-through gradients.

Q codebooks of K entries of D dimensions; level q quantises what the levels before it left over (arXiv:2107.03312).
Statistics are means over the whole batch: with a batch sharded over devices, jit makes them global by itself.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

HIGHEST = jax.lax.Precision.HIGHEST  # a bfloat16 distance on a TPU would choose other codes
DEAD_SHARE = 0.1  # of uniform usage; below it a code is restarted (Moshi's rule)
USAGE_FLOOR = 1e-8


class QuantizerState(NamedTuple):
    """EMA statistics; not parameters, no gradient reaches them."""

    usage: Float[Array, "Q K"]  # share of vectors that chose the code; sums to 1 a level
    sums: Float[Array, "Q K D"]  # sum of those vectors, divided by the number of all vectors

    @property
    def codebooks(self) -> Float[Array, "Q K D"]:
        return self.sums / jnp.maximum(self.usage, USAGE_FLOOR)[..., None]


class Quantized(NamedTuple):
    codes: Int[Array, "B T Q"]
    vectors: Float[Array, "B T D"]  # straight-through: value of the chosen codes, gradient of the latents
    first: Float[Array, "B T D"]  # codebook 0 alone, straight-through
    commit_loss: Float[Array, ""]  # mean over levels
    residuals: Float[Array, "Q R D"]  # inputs of each level, R = B T; for `ema_update`
    level_codes: Int[Array, "Q R"]
    active: Bool[Array, "Q R"] | None = None  # under quantiser dropout: the vectors that a level really quantised


def nearest_code(x: Float[Array, "R D"], codebook: Float[Array, "K D"]) -> Int[Array, " R"]:
    """Index of the closest code in squared Euclidean distance."""
    scores = jnp.matmul(x, codebook.T, precision=HIGHEST) - 0.5 * jnp.sum(codebook**2, axis=-1)[None]
    return jnp.argmax(scores, axis=-1).astype(jnp.int32)


def quantize(latents: Float[Array, "B T D"], codebooks: Float[Array, "Q K D"]) -> Quantized:
    """Residual quantisation. The residual carries no straight-through gradient (encodec issue 25): each level
    subtracts a constant, and the identity gradient is added once, at the end."""
    batch, length, dim = latents.shape

    def level(residual: Array, codebook: Array) -> tuple[Array, tuple[Array, Array, Array]]:
        codes = nearest_code(jax.lax.stop_gradient(residual), codebook)
        chosen = jax.lax.stop_gradient(codebook[codes])
        left = residual - chosen
        return left, (codes, residual, jnp.mean(left**2))

    flat = latents.reshape(-1, dim)
    left, (codes, residuals, losses) = jax.lax.scan(level, flat, codebooks)
    first = jax.lax.stop_gradient(codebooks[0][codes[0]]).reshape(latents.shape)
    total = jax.lax.stop_gradient(flat - left).reshape(latents.shape)
    return Quantized(
        codes=codes.T.reshape(batch, length, -1),
        vectors=latents + jax.lax.stop_gradient(total - latents),
        first=latents + jax.lax.stop_gradient(first - latents),
        commit_loss=jnp.mean(losses),
        residuals=jax.lax.stop_gradient(residuals),
        level_codes=codes,
    )


def draw_active_levels(
    key: PRNGKeyArray, rows: int, num_codebooks: int, share: float, at_least: int = 1
) -> Int[Array, " B"]:
    """Quantiser dropout (arXiv:2107.03312, section 3.4): how many codebooks each row uses. A `share` of the rows draws
    a number from `at_least` to all of them, the others use all."""
    chosen_key, count_key = jax.random.split(key)
    drops = jax.random.uniform(chosen_key, (rows,)) < share
    return jnp.where(drops, jax.random.randint(count_key, (rows,), at_least, num_codebooks + 1), num_codebooks)


def quantize_with_dropout(
    latents: Float[Array, "B T D"], codebooks: Float[Array, "Q K D"], num_active: Int[Array, " B"]
) -> Quantized:
    """`quantize` with the first `num_active` codebooks of each row; the later ones add nothing, learn nothing from the
    row and are left out of the commitment loss."""
    batch, length, dim = latents.shape
    num_levels = codebooks.shape[0]
    rows = jnp.repeat(num_active, length)
    active = jnp.arange(num_levels)[:, None] < rows[None]

    def level(residual: Array, part: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array, Array]]:
        codebook, on = part
        codes = nearest_code(jax.lax.stop_gradient(residual), codebook)
        left = residual - jnp.where(on[:, None], jax.lax.stop_gradient(codebook[codes]), 0.0)
        loss = jnp.sum(jnp.mean(left**2, axis=-1) * on) / jnp.maximum(jnp.sum(on), 1)
        return left, (codes, residual, loss)

    flat = latents.reshape(-1, dim)
    left, (codes, residuals, losses) = jax.lax.scan(level, flat, (codebooks, active))
    first = jax.lax.stop_gradient(codebooks[0][codes[0]]).reshape(latents.shape)
    total = jax.lax.stop_gradient(flat - left).reshape(latents.shape)
    return Quantized(
        codes=codes.T.reshape(batch, length, -1),
        vectors=latents + jax.lax.stop_gradient(total - latents),
        first=latents + jax.lax.stop_gradient(first - latents),
        commit_loss=jnp.mean(losses),
        residuals=jax.lax.stop_gradient(residuals),
        level_codes=codes,
        active=active,
    )


def dequantize(codes: Int[Array, "B T Q"], codebooks: Float[Array, "Q K D"]) -> Float[Array, "B T D"]:
    """Sum of the chosen codes of all levels."""
    levels = jax.vmap(lambda codebook, index: codebook[index], in_axes=(0, 2))(codebooks, codes)
    return jnp.sum(levels, axis=0)


def ema_update(state: QuantizerState, quantized: Quantized, decay: float, key: PRNGKeyArray) -> QuantizerState:
    """Moves each code towards the mean of the vectors that chose it and restarts dead codes at random vectors."""
    num_codes = state.usage.shape[1]
    num_vectors = quantized.level_codes.shape[1]
    chosen = jax.nn.one_hot(quantized.level_codes, num_codes)  # [Q, R, K]
    if quantized.active is None:
        chosen = chosen / num_vectors
        drawn = quantized.residuals[:, jax.random.randint(key, (num_codes,), 0, num_vectors)]
    else:
        count = jnp.sum(quantized.active, axis=1)[:, None, None]
        chosen = chosen * quantized.active[..., None] / jnp.maximum(count, 1)
        drawn = _draw_active(quantized, num_codes, key)
    sums = jnp.einsum("qrk,qrd->qkd", chosen, quantized.residuals, precision=HIGHEST)
    usage = decay * state.usage + (1 - decay) * jnp.sum(chosen, axis=1)
    sums = decay * state.sums + (1 - decay) * sums
    dead = usage < DEAD_SHARE / num_codes
    usage = jnp.where(dead, 1.0 / num_codes, usage)
    sums = jnp.where(dead[..., None], drawn / num_codes, sums)
    total = jnp.sum(usage, axis=-1, keepdims=True)
    new = QuantizerState(usage / total, sums / total[..., None])
    if quantized.active is None:
        return new
    idle = ~jnp.any(quantized.active, axis=1)  # levels that no row of this batch reached
    return QuantizerState(
        jnp.where(idle[:, None], state.usage, new.usage), jnp.where(idle[:, None, None], state.sums, new.sums)
    )


def count_usage(state: QuantizerState, quantized: Quantized, decay: float) -> QuantizerState:
    """For codebooks that stay as they are: moves the usage alone."""
    shares = jnp.mean(jax.nn.one_hot(quantized.level_codes, state.usage.shape[1]), axis=1)
    return state._replace(usage=decay * state.usage + (1 - decay) * shares)


def _draw_active(quantized: Quantized, num_codes: int, key: PRNGKeyArray) -> Float[Array, "Q K D"]:
    """Random inputs of each level, among those that it quantised."""
    logits = jnp.where(quantized.active, 0.0, -1e30)
    drawn = jax.random.categorical(key, logits[:, None], shape=(logits.shape[0], num_codes))
    return jnp.take_along_axis(quantized.residuals, drawn[..., None], axis=1)


def perplexity(usage: Float[Array, "Q K"]) -> Float[Array, " Q"]:
    """exp(entropy) of each level: how many codes are in effective use."""
    return jnp.exp(-jnp.sum(usage * jnp.log(usage + USAGE_FLOOR), axis=-1))


def kmeans(
    points: Float[Array, "R D"], num_codes: int, iterations: int, key: PRNGKeyArray
) -> tuple[Float[Array, "K D"], Int[Array, " R"]]:
    """Lloyd's algorithm from randomly chosen points. An empty cluster keeps its centre."""
    distinct = points.shape[0] >= num_codes
    centres = jax.random.choice(key, points, (num_codes,), replace=not distinct)

    def iteration(_: int, centres: Array) -> Array:
        assigned = nearest_code(points, centres)
        sums = jax.ops.segment_sum(points, assigned, num_codes)
        counts = jnp.bincount(assigned, length=num_codes)[:, None]
        return jnp.where(counts > 0, sums / jnp.maximum(counts, 1), centres)

    centres = jax.lax.fori_loop(0, iterations, iteration, centres)
    return centres, nearest_code(points, centres)


def kmeans_codebooks(
    points: Float[Array, "R D"], num_codebooks: int, num_codes: int, iterations: int, key: PRNGKeyArray
) -> QuantizerState:
    """Residual k-means: the starting codebooks, with the usage statistics of `points`."""

    def level(residual: Array, key: Array) -> tuple[Array, tuple[Array, Array]]:
        centres, assigned = kmeans(residual, num_codes, iterations, key)
        usage = jnp.bincount(assigned, length=num_codes) / residual.shape[0]
        return residual - centres[assigned], (centres, usage)

    _, (codebooks, usage) = jax.lax.scan(level, points, jax.random.split(key, num_codebooks))
    usage = jnp.maximum(usage, DEAD_SHARE / num_codes)
    usage = usage / jnp.sum(usage, axis=-1, keepdims=True)
    return QuantizerState(usage, codebooks * usage[..., None])
