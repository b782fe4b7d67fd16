"""A very small model and codec with random weights."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from models.tiny import MODEL

from omni_jax.codec_config import CodecConfig
from omni_jax.models import codec, omni

CODEC = CodecConfig(
    num_codebooks=MODEL.num_codebooks,
    codebook_size=MODEL.codebook_size,
    latent_dim=4,
    encoder_dim=8,
    encoder_layers=(1, 1),
    decoder_dim=8,
    decoder_layers=(1, 1, 1),
    conv_kernel=3,
    num_phones=4,
)


@functools.cache
def weights():
    """(model parameters, codec parameters) of about unit gain, drawn by numpy: initialisers take long to compile."""
    params = jax.eval_shape(lambda: omni.init_params(MODEL, jax.random.key(0)))
    codec_params = jax.eval_shape(lambda: codec.init_params(CODEC, jax.random.key(0)))
    return _draw(params, 0), _draw(codec_params, 1)


def _draw(shapes, seed: int):
    rng = np.random.default_rng(seed)

    def leaf(shape: jax.ShapeDtypeStruct) -> jax.Array:
        fan_in = shape.shape[-2] if len(shape.shape) > 1 else 1
        return jnp.asarray(rng.standard_normal(shape.shape) * fan_in**-0.5, shape.dtype)

    return jax.tree.map(leaf, shapes)
