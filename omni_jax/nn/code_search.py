"""The codes of residual quantisation by beam search: several paths through the codebooks, the best one taken.

The nearest code of a level is not always the one that leaves the later levels the least (multi-path encoding,
arXiv:1509.05195). Only encoding searches: the codec's training and decoding do not know of it.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from omni_jax.nn.quantize import HIGHEST

PATHS = 4  # held-out voices sound better than with 1, and no better with 16 (docs/LOG.md)


def search_codes(
    latents: Float[Array, "B T D"], codebooks: Float[Array, "Q K D"], paths: int = PATHS
) -> Int[Array, "B T Q"]:
    """Codes whose sum is close to the latents: after each level the `paths` best beginnings are kept.

    With one path these are the codes of `quantize`. R = B * T vectors take R * paths * K scores a level.
    """
    batch, length, dim = latents.shape
    rest = latents.reshape(-1, 1, dim)  # [R, P, D]
    codes = jnp.zeros((rest.shape[0], 1, 0), jnp.int32)  # [R, P, levels so far]
    for codebook in codebooks:
        parents, chosen = _best_children(rest, codebook, paths)
        rest = jnp.take_along_axis(rest, parents[..., None], axis=1) - codebook[chosen]
        codes = jnp.take_along_axis(codes, parents[..., None], axis=1)
        codes = jnp.concatenate([codes, chosen[..., None]], axis=-1)
    return codes[:, 0].reshape(batch, length, -1)  # the best comes first


def _best_children(
    rest: Float[Array, "R P D"], codebook: Float[Array, "K D"], paths: int
) -> tuple[Int[Array, "R C"], Int[Array, "R C"]]:
    """Path and code of the (path, code) pairs that leave least, best first."""
    size = 0.5 * jnp.sum(codebook**2, axis=-1)
    scores = jnp.matmul(rest, codebook.T, precision=HIGHEST) - size[None, None]
    scores -= 0.5 * jnp.sum(rest**2, axis=-1, keepdims=True)  # -|rest - code|^2 / 2
    flat = scores.reshape(rest.shape[0], -1)
    _, best = jax.lax.top_k(flat, min(paths, flat.shape[1]))
    return best // len(codebook), best % len(codebook)
