"""Quantisers between latents and codes: residual, split into semantic and acoustic, and DAC's factorised codes.

`encode` and `decode` have no gradients; `train` quantises with straight-through gradients and the losses that go with
them, the first `num_active` codebooks of each row. `points` are what each part's codebooks quantise, for their start.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from omni_jax.nn.factorised import Factors, quantize_factorised, unit
from omni_jax.nn.quantize import Quantized, nearest_code, quantize_with_dropout


class Trained(NamedTuple):
    """Latents quantised in training."""

    vectors: Float[Array, "B T D"]  # the decoder's input
    semantic: Float[Array, "B T D"]  # what the semantic codebooks, or else the first one, give alone
    commit_loss: Float[Array, ""]
    codebook_loss: Float[Array, ""]  # zero where the codebooks are moving averages
    levels: dict[str, Quantized]  # what these averages learn from, by the quantiser's part


class ResidualQuantizer(nnx.Module):
    """Q codebooks of K entries; each level quantises what the levels before it left over (arXiv:2107.03312).

    Where the codes' width is not the latents', projections without bias stand around the codebooks (Mimi).
    """

    def __init__(self, shape: tuple[int, int, int], latent_dim: int, *, rngs: nnx.Rngs) -> None:
        self.codebooks = nnx.Param(jax.random.normal(rngs.params(), shape))
        projected = shape[-1] != latent_dim
        self.input = nnx.Linear(latent_dim, shape[-1], use_bias=False, rngs=rngs) if projected else None
        self.output = nnx.Linear(shape[-1], latent_dim, use_bias=False, rngs=rngs) if projected else None

    def points(self, latents: Float[Array, "B T D"]) -> dict[str, Float[Array, "B T d"]]:
        return {"all": latents if self.input is None else self.input(latents)}

    def train(self, latents: Float[Array, "B T D"], num_active: Int[Array, " B"]) -> Trained:
        quantized = quantize_with_dropout(self.points(latents)["all"], self.codebooks[...], num_active)
        vectors, first = (self._project(x) for x in (quantized.vectors, quantized.first))
        return Trained(vectors, first, quantized.commit_loss, jnp.zeros(()), {"all": quantized})

    def _project(self, vectors: Float[Array, "B T d"]) -> Float[Array, "B T D"]:
        return vectors if self.output is None else self.output(vectors)

    def encode(self, latents: Float[Array, "B T D"]) -> Int[Array, "B T Q"]:
        latents = self.points(latents)["all"]

        def level(residual: Array, codebook: Array) -> tuple[Array, Array]:
            codes = nearest_code(residual, codebook)
            return residual - codebook[codes], codes

        _, codes = jax.lax.scan(level, latents.reshape(-1, latents.shape[-1]), self.codebooks[...])
        return codes.T.reshape(*latents.shape[:2], -1)

    def decode(self, codes: Int[Array, "B T Q"]) -> Float[Array, "B T D"]:
        """Q may be less than the number of codebooks: the first ones are meant."""
        books = self.codebooks[...]
        return self._project(sum(books[q][codes[..., q]] for q in range(codes.shape[-1])))


class SplitQuantizer(nnx.Module):
    """Mimi's: the first `num_semantic` codes and the others quantise the same latents, each with its projections."""

    def __init__(self, shape: tuple[int, int, int], num_semantic: int, latent_dim: int, *, rngs: nnx.Rngs) -> None:
        self.num_semantic, self.num_codebooks = num_semantic, shape[0]
        self.semantic = ResidualQuantizer((num_semantic, *shape[1:]), latent_dim, rngs=rngs)
        self.acoustic = ResidualQuantizer((shape[0] - num_semantic, *shape[1:]), latent_dim, rngs=rngs)

    def points(self, latents: Float[Array, "B T D"]) -> dict[str, Float[Array, "B T d"]]:
        parts = {"semantic": self.semantic, "acoustic": self.acoustic}
        return {name: part.points(latents)["all"] for name, part in parts.items()}

    def train(self, latents: Float[Array, "B T D"], num_active: Int[Array, " B"]) -> Trained:
        """The two parts' commitment losses weigh as much as they have codebooks."""
        semantic = self.semantic.train(latents, jnp.minimum(num_active, self.num_semantic))
        acoustic = self.acoustic.train(latents, jnp.maximum(num_active - self.num_semantic, 0))
        share = self.num_semantic / self.num_codebooks
        commit = share * semantic.commit_loss + (1 - share) * acoustic.commit_loss
        levels = {"semantic": semantic.levels["all"], "acoustic": acoustic.levels["all"]}
        return Trained(semantic.vectors + acoustic.vectors, semantic.vectors, commit, jnp.zeros(()), levels)

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
        self.in_kernel = nnx.Param((3 * latent_dim) ** -0.5 * draw(rngs.params(), (num_codebooks, latent_dim, dim)))
        self.in_bias = nnx.Param(jnp.zeros((num_codebooks, dim)))
        self.out_kernel = nnx.Param((3 * dim) ** -0.5 * draw(rngs.params(), (num_codebooks, dim, latent_dim)))
        self.out_bias = nnx.Param(jnp.zeros((num_codebooks, latent_dim)))

    def factors(self) -> Factors:
        parts = (self.codebooks, self.in_kernel, self.in_bias, self.out_kernel, self.out_bias)
        return Factors(*(part[...] for part in parts))

    def points(self, latents: Float[Array, "B T D"]) -> dict[str, Float[Array, "B T d"]]:
        """Nothing: gradients move these codebooks, from where they are drawn."""
        return {}

    def train(self, latents: Float[Array, "B T D"], num_active: Int[Array, " B"]) -> Trained:
        found = quantize_factorised(latents, self.factors(), num_active)
        return Trained(found.vectors, found.vectors, found.commit_loss, found.codebook_loss, {})

    def encode(self, latents: Float[Array, "B T D"]) -> Int[Array, "B T Q"]:
        def level(residual: Array, part: Factors) -> tuple[Array, Array]:
            codes = nearest_code(unit(residual @ part.in_kernel + part.in_bias[None]), unit(part.codebooks))
            return residual - (part.codebooks[codes] @ part.out_kernel + part.out_bias[None]), codes

        _, codes = jax.lax.scan(level, latents.reshape(-1, latents.shape[-1]), self.factors())
        return codes.T.reshape(*latents.shape[:2], -1)

    def decode(self, codes: Int[Array, "B T Q"]) -> Float[Array, "B T D"]:
        part, levels = self.factors(), range(codes.shape[-1])
        return sum(part.codebooks[q][codes[..., q]] @ part.out_kernel[q] + part.out_bias[q][None, None] for q in levels)
