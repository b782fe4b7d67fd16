"""A very small model and codec with random weights."""

from __future__ import annotations

import functools

import jax
from models.tiny import MODEL

from omni_jax.config import CodecConfig
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
    """(model parameters, codec parameters); untrained codebooks are zero, so they are drawn here."""
    params = jax.jit(omni.init_params, static_argnums=0)(MODEL, jax.random.key(0))
    codec_params = jax.jit(codec.init_params, static_argnums=0)(CODEC, jax.random.key(1))
    shape = codec_params["codebooks"].shape
    return params, codec_params | {"codebooks": jax.random.normal(jax.random.key(2), shape)}
