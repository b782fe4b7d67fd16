"""What an encoder has made out, said in the embeddings of the text vocabulary, so that the trunk can read it.

Each output of an encoder guesses a piece of text: the word that has just been heard, the thing that a picture shows.
The embeddings of the guessed pieces, weighted by their probabilities, are added to what the adapter gives (as LegoSLM
does with CTC posteriors, arXiv 2505.11352). A trunk that has learned to answer in writing then understands speech and
pictures as far as the encoders do, instead of learning a second language.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from omni_jax.nn.embed import lookup
from omni_jax.nn.param import constant
from omni_jax.types import ABSENT, Control

_COSINE_SCALE = 10.0  # of the cosines at the start
_GATE = 0.5  # length of the adapter's part at the start; that of a piece's embedding is a little over 1
_FIRST_PIECE = max(Control) + 1


class Namer(nnx.Module):
    """Pieces from adapted embeddings, and embeddings from pieces."""

    def __init__(self) -> None:
        self.log_scale = constant((1,), ("small",), math.log(_COSINE_SCALE))
        self.gate = constant((1,), ("small",), _GATE)

    def logits(self, x: Float[Array, "G S D"], embedding: Float[Array, "V D"]) -> Float[Array, "G S V"]:
        """Cosines to the embeddings of the pieces at a learned temperature (CLIP, arXiv 2103.00020 section 2.3).

        The lengths of embeddings that text has shaped say nothing here.
        """
        cosine = _unit(x.astype(jnp.float32)) @ _unit(embedding).T
        return cosine * jnp.exp(self.log_scale[...])[None, None]

    def named(self, logits: Float[Array, "G S V"], embedding: Float[Array, "V D"]) -> Float[Array, "G S D"]:
        """The guessed pieces' embeddings. Control tokens (WAIT: nothing heard just now) add nothing."""
        return jax.nn.softmax(logits, axis=-1)[..., _FIRST_PIECE:] @ embedding[_FIRST_PIECE:]

    def shape(self, x: Float[Array, "G S D"]) -> Float[Array, "G S D"]:
        """The adapter's own part, at a learned length: it must not drown the pieces."""
        return _unit(x) * self.gate[...].astype(x.dtype)[None, None]


def written(pieces: Int[Array, "G S"], embedding: Float[Array, "V D"]) -> Float[Array, "G S D"]:
    """What a perfect encoder would name; control tokens and absent pieces are zero."""
    return lookup(embedding, jnp.where(pieces >= _FIRST_PIECE, pieces, ABSENT))


def written_names(tags: Int[Array, "G Z W"], embedding: Float[Array, "V D"]) -> Float[Array, "G Z D"]:
    """The same for pictures: the mean of the pieces of each name, 0-padded."""
    names = written(tags.reshape(len(tags), -1), embedding).reshape(*tags.shape, -1)
    return names.sum(axis=2) / jnp.maximum((tags > 0).sum(axis=2), 1)[..., None]


def _unit(x: Float[Array, "... D"]) -> Float[Array, "... D"]:
    return x / jnp.sqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + 1e-6)
