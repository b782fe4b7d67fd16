"""Quantisers between latents and codes: residual, split into semantic and acoustic, and DAC's factorised codes.

All of them search without straight-through gradients; `omni_jax/nn/quantize.py` has the parts that training needs.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from omni_jax.nn.factorised import Factors, unit
from omni_jax.nn.quantize import nearest_code


class ResidualQuantizer(nnx.Module):
    """Q codebooks of K entries; each level quantises what the levels before it left over (arXiv:2107.03312).

    Where the codes' width is not the latents', projections without bias stand around the codebooks (Mimi).
    """

    def __init__(self, shape: tuple[int, int, int], latent_dim: int, *, rngs: nnx.Rngs) -> None:
        self.codebooks = nnx.Param(jax.random.normal(rngs.params(), shape))
        projected = shape[-1] != latent_dim
        self.input = nnx.Linear(latent_dim, shape[-1], use_bias=False, rngs=rngs) if projected else None
        self.output = nnx.Linear(shape[-1], latent_dim, use_bias=False, rngs=rngs) if projected else None

    def encode(self, latents: Float[Array, "B T D"]) -> Int[Array, "B T Q"]:
        if self.input is not None:
            latents = self.input(latents)

        def level(residual: Array, codebook: Array) -> tuple[Array, Array]:
            codes = nearest_code(residual, codebook)
            return residual - codebook[codes], codes

        _, codes = jax.lax.scan(level, latents.reshape(-1, latents.shape[-1]), self.codebooks[...])
        return codes.T.reshape(*latents.shape[:2], -1)

    def decode(self, codes: Int[Array, "B T Q"]) -> Float[Array, "B T D"]:
        """Q may be less than the number of codebooks: the first ones are meant."""
        books = self.codebooks[...]
        latents = sum(books[q][codes[..., q]] for q in range(codes.shape[-1]))
        return latents if self.output is None else self.output(latents)


class SplitQuantizer(nnx.Module):
    """Mimi's: the first `num_semantic` codes and the others quantise the same latents, each with its projections."""

    def __init__(self, shape: tuple[int, int, int], num_semantic: int, latent_dim: int, *, rngs: nnx.Rngs) -> None:
        self.num_semantic = num_semantic
        self.semantic = ResidualQuantizer((num_semantic, *shape[1:]), latent_dim, rngs=rngs)
        self.acoustic = ResidualQuantizer((shape[0] - num_semantic, *shape[1:]), latent_dim, rngs=rngs)

    def encode(self, latents: Float[Array, "B T D"]) -> Int[Array, "B T Q"]:
        return jnp.concatenate([self.semantic.encode(latents), self.acoustic.encode(latents)], axis=-1)

    def decode(self, codes: Int[Array, "B T Q"]) -> Float[Array, "B T D"]:
        first, rest = codes[..., : self.num_semantic], codes[..., self.num_semantic :]
        semantic = self.semantic.decode(first)
        return semantic if rest.shape[-1] == 0 else semantic + self.acoustic.decode(rest)


class FactorisedQuantizer(nnx.Module):
    """DAC's (arXiv:2306.06546, section 3.2): each level projects to a few dimensions and compares directions."""

    def __init__(self, shape: tuple[int, int, int], latent_dim: int, *, rngs: nnx.Rngs) -> None:
        num_codebooks, _, dim = shape
        self.codebooks = nnx.Param(jax.random.normal(rngs.params(), shape))
        draw = jax.random.normal
        self.in_kernel = nnx.Param(latent_dim**-0.5 * draw(rngs.params(), (num_codebooks, latent_dim, dim)))
        self.in_bias = nnx.Param(jnp.zeros((num_codebooks, dim)))
        self.out_kernel = nnx.Param(dim**-0.5 * draw(rngs.params(), (num_codebooks, dim, latent_dim)))
        self.out_bias = nnx.Param(jnp.zeros((num_codebooks, latent_dim)))

    def factors(self) -> Factors:
        parts = (self.codebooks, self.in_kernel, self.in_bias, self.out_kernel, self.out_bias)
        return Factors(*(part[...] for part in parts))

    def encode(self, latents: Float[Array, "B T D"]) -> Int[Array, "B T Q"]:
        def level(residual: Array, part: Factors) -> tuple[Array, Array]:
            codes = nearest_code(unit(residual @ part.in_kernel + part.in_bias[None]), unit(part.codebooks))
            return residual - (part.codebooks[codes] @ part.out_kernel + part.out_bias[None]), codes

        _, codes = jax.lax.scan(level, latents.reshape(-1, latents.shape[-1]), self.factors())
        return codes.T.reshape(*latents.shape[:2], -1)

    def decode(self, codes: Int[Array, "B T Q"]) -> Float[Array, "B T D"]:
        part, levels = self.factors(), range(codes.shape[-1])
        return sum(part.codebooks[q][codes[..., q]] @ part.out_kernel[q] + part.out_bias[q][None, None] for q in levels)
